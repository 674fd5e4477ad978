"""The option ``--full`` of the tests, and the figures that they print at the end."""

from collections.abc import Callable

import pytest

_FIGURES = pytest.StashKey[dict[str, dict[str, float]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--full``."""
    parser.addoption(
        "--full", action="store_true", help="run every case of the fault tests, not a seeded tenth"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make room for figures."""
    config.stash[_FIGURES] = {}


@pytest.fixture(scope="session")
def full(request: pytest.FixtureRequest) -> bool:
    """Whether every case is wanted, not a seeded tenth."""
    return bool(request.config.getoption("--full"))


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Print figures at the end of the session: ``figures("values", compared=10)``; equal titles add up."""
    kept = request.config.stash[_FIGURES]

    def note(title: str, **numbers: float) -> None:
        row = kept.setdefault(title, {})
        for name, number in numbers.items():
            row[name] = row.get(name, 0) + number

    return note


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the figures."""
    kept = config.stash[_FIGURES]
    if kept:
        terminalreporter.section("figures")
    for title, numbers in kept.items():
        words = ", ".join(f"{number:,} {name.replace('_', ' ')}" for name, number in numbers.items())
        terminalreporter.line(f"{title}: {words}")

"""The option ``--full`` of the tests, and the figures that they print at the end."""

from collections.abc import Callable

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--full``."""
    parser.addoption(
        "--full", action="store_true", help="run every case of the fault tests, not a seeded tenth"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Collect figures."""
    config.pluginmanager.register(_Figures())
    config.addinivalue_line("markers", "full: runs with --full only")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is for ``--full``."""
    left = [] if config.getoption("--full") else [item for item in items if item.get_closest_marker("full")]
    config.hook.pytest_deselected(items=left)
    items[:] = [item for item in items if item not in left]


@pytest.fixture(scope="session")
def full(request: pytest.FixtureRequest) -> bool:
    """Whether every case is wanted, not a seeded tenth."""
    return bool(request.config.getoption("--full"))


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Print figures at the end of the session: ``figures("values", compared=10)``; equal titles add up."""

    def note(title: str, **numbers: float) -> None:
        plain = {name: getattr(number, "item", lambda n=number: n)() for name, number in numbers.items()}
        request.node.user_properties.append(("figures", (title, plain)))  # these reach the main process

    return note


class _Figures:
    """Adds up what tests noted, in whichever process they ran."""

    def __init__(self) -> None:
        self._noted: dict[str, dict[str, float]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for kind, value in report.user_properties if report.when == "teardown" else ():
            if kind == "figures":
                title, numbers = value
                row = self._noted.setdefault(title, {})
                for name, number in numbers.items():
                    row[name] = row.get(name, 0) + number

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._noted:
            terminalreporter.section("figures")
        for title, numbers in self._noted.items():
            words = ", ".join(f"{number:,} {name.replace('_', ' ')}" for name, number in numbers.items())
            terminalreporter.line(f"{title}: {words}")

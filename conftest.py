"""The option ``--full`` of the tests, the order of files, and the figures that tests print at the end."""

from collections import Counter
from collections.abc import Callable

import pytest

LONGEST = (
    "tests/test_faults.py",
    "tests/pages/test_notebooks.py",
    "tests/export/test_conformance.py",
    "tests/pages/test_monitor.py",
    "tests/stream/test_same_bits.py",
    "tests/test_docstrings.py",
    "tests/cluster/test_slurm.py",
    "tests/export/test_export.py",
    "tests/stream/test_workers.py",
    "tests/conformance/test_geometry.py",
    "tests/pages/test_constants.py",
    "tests/reductions/test_faults.py",
    "tests/stream/test_examples.py",
    "tests/geometry/test_assembly.py",
    "tests/export/test_reopen.py",
    "tests/test_cli.py",
    "tests/test_psana_examples.py",
    "tests/conformance/test_xtc1_run.py",
    "tests/stream/test_shmem.py",
    "tests/stream/test_zmq.py",
    "tests/test_follow.py",
    "tests/cluster/test_notebook.py",
    "tests/stream/test_running.py",
    "tests/geometry/test_convert.py",
    "tests/pages/test_events.py",
    "tests/pages/test_dashboard.py",
    "tests/conformance/test_algorithms.py",
    "tests/cluster/test_local.py",
    "tests/test_calibration.py",
)
"""Files of more than about twenty seconds, the longest first."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--full``."""
    parser.addoption(
        "--full", action="store_true", help="run every case of the fault tests, not a seeded tenth"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Collect figures."""
    config.pluginmanager.register(_Figures())
    config.addinivalue_line("markers", "full: runs with --full only")
    if hasattr(config.option, "loadscopereorder"):  # else pytest-xdist begins with the files of most tests
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is for ``--full``; where processes share the files, they begin with the longest ones."""
    left = [] if config.getoption("--full") else [item for item in items if item.get_closest_marker("full")]
    config.hook.pytest_deselected(items=left)
    items[:] = [item for item in items if item not in left]
    if hasattr(config, "workerinput"):
        _longest_first(items)


def _longest_first(items: list[pytest.Item]) -> None:
    """Sort by file: a long one that begins late leaves the other process without work at the end."""
    tests = Counter(_file_of(item) for item in items)
    rank = {name: k for k, name in enumerate(LONGEST)}
    files = sorted(tests, key=lambda name: (rank.get(name, len(rank)), -tests[name]))
    place = {name: k for k, name in enumerate(files)}
    items.sort(key=lambda item: place[_file_of(item)])


def _file_of(item: pytest.Item) -> str:
    """Return the path of a test's file, relative to this one."""
    return item.nodeid.split("::", 1)[0]


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

"""Where the facility's files and the values read from them lie; how comparisons are counted."""

import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__)


def conformance_folder() -> Path:
    """Return the folder of PSANA_DASK_CONFORMANCE, by default ``../shared/data`` beside the repository."""
    named = os.environ.get("PSANA_DASK_CONFORMANCE", HERE.parents[3] / "shared" / "data")
    return Path(os.path.abspath(named))


def oracle_names(kind: str) -> list[str]:
    """Return the names of all oracle files of one format, relative to its ``oracle`` folder."""
    folder = conformance_folder() / kind / "oracle"
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.json.gz"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "xtc2_oracle" in metafunc.fixturenames:
        # one case where there is nothing: the fixture then skips it, or fails in CI
        names = oracle_names("xtc2") or ["absent"]
        ids = [n.removesuffix(".json.gz") for n in names]
        metafunc.parametrize("xtc2_oracle", names, ids=ids, indirect=True)


@pytest.fixture(scope="session")
def conformance() -> Path:
    """Folder of the oracle data; skips where it is absent, and fails in CI."""
    folder = conformance_folder()
    if not folder.is_dir():
        reason = f"no conformance data at {folder}: set PSANA_DASK_CONFORMANCE"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return folder


@pytest.fixture(scope="session")
def xtc2_data(conformance: Path) -> Path:
    """Folder of the LCLS-II files."""
    return conformance / "xtc2"


@pytest.fixture
def xtc2_oracle(request: pytest.FixtureRequest, xtc2_data: Path) -> dict[str, Any]:
    """What the facility's library reads from one LCLS-II file."""
    return load_oracle(xtc2_data / "oracle" / request.param)


def load_oracle(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(gzip.decompress(path.read_bytes()))
    return found


class Tally:
    """Counts comparisons, and keeps those that differ."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {"comparisons": 0}
        self.differences: list[str] = []

    def same(self, got: Any, want: Any, *where: Any) -> None:
        """Compare two values; floats by their text, so that NaN equals NaN."""
        self.counts["comparisons"] += 1
        if got != want and repr(got) != repr(want):
            self.differences.append(f"{' '.join(map(str, where))}: {got!r}, not {want!r}")

    def add(self, **counts: int) -> None:
        """Count what was compared."""
        for name, count in counts.items():
            self.counts[name] = self.counts.get(name, 0) + count


@pytest.fixture
def tally(figures: Any, request: pytest.FixtureRequest) -> Iterator[Tally]:
    """Comparisons of one test: no difference is allowed, and the counts are printed."""
    made = Tally()
    yield made
    title = f"{request.node.originalname}"
    figures(title, **made.counts, differences=len(made.differences))
    assert made.counts["comparisons"] > 0
    assert not made.differences, f"{len(made.differences)} differences\n" + "\n".join(made.differences[:20])


@pytest.fixture(scope="session")
def load_xtc2_oracle(xtc2_data: Path) -> Any:
    """Read the oracle of a file named relative to the folder of the LCLS-II files."""
    return lambda name: load_oracle(xtc2_data / "oracle" / f"{name}.json.gz")

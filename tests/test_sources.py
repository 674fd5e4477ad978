"""Bytes from files: the pool of open files, threads, short reads, systems without preadv."""

import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import psana_dask
from psana_dask import simulate, sources
from psana_dask.errors import ReadError
from psana_dask.simulate import Detector, RunSpec
from psana_dask.sources import FilePool, FileSource, MemorySource, read_bytes


@pytest.fixture
def files(tmp_path):
    """Ten files; the bytes of file k are all k."""
    paths = [tmp_path / f"{k}" for k in range(10)]
    for k, path in enumerate(paths):
        path.write_bytes(bytes([k]) * 1000)
    return [str(p) for p in paths]


def is_open(descriptor):
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def borrow(pool, path):
    with pool.open(path) as descriptor:
        return descriptor


def test_the_pool_closes_what_was_used_longest_ago(files):
    pool = FilePool(3)
    first, second, third = (borrow(pool, p) for p in files[:3])
    assert borrow(pool, files[0]) == first  # used again: now the second is the oldest
    fourth = borrow(pool, files[3])
    assert list(pool._files.values()) == [third, first, fourth]
    assert fourth == second or not is_open(second)  # the number may be in use again


def test_a_lent_file_stays_open(files):
    pool = FilePool(1)
    with pool.open(files[4]) as descriptor:
        for path in files[:4]:
            borrow(pool, path)
        assert os.pread(descriptor, 2, 0) == b"\4\4"
    borrow(pool, files[0])
    assert len(pool._files) == 1


def test_the_pool_keeps_to_a_quarter_of_what_the_system_allows(monkeypatch):
    for limit, capacity in ((64, 16), (8, 4), (1 << 20, 128)):
        monkeypatch.setattr(sources, "_descriptor_limit", lambda limit=limit: limit)
        assert FilePool().capacity() == capacity


def test_a_forgotten_file_is_opened_anew(files):
    pool = FilePool()
    before = borrow(pool, files[1])
    os.replace(files[2], files[1])
    assert os.pread(borrow(pool, files[1]), 1, 0) == b"\1"  # still the old file
    pool.forget(files[1])
    assert not is_open(before)
    assert os.pread(borrow(pool, files[1]), 1, 0) == b"\2"


def test_a_file_in_use_is_not_forgotten(files):
    pool = FilePool()
    with pool.open(files[1]) as descriptor:
        pool.forget(files[1])
        assert is_open(descriptor)


@pytest.mark.parametrize("preadv", [True, False])
def test_threads_share_few_descriptors(files, monkeypatch, preadv):
    monkeypatch.setattr(sources, "POOL", FilePool(2))
    if not preadv:
        monkeypatch.setattr(sources, "PREAD", None)

    def read(task):
        out = np.empty(300, np.uint8)
        FileSource(files[task % 10]).read_pieces(
            np.array([0, 500]), np.array([100, 200]), out, np.array([200, 0])
        )
        return bool(np.all(out == task % 10))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(400)))
    assert not sources.POOL._in_use
    borrow(sources.POOL, __file__)  # what eight threads had to open at once is closed again
    assert len(sources.POOL._files) <= 2


SOURCES = {"file": FileSource, "memory": lambda path: MemorySource(bytes(1000), path)}


@pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES)
@pytest.mark.parametrize("preadv", [True, False])
def test_a_short_read_is_an_error_that_says_where(files, monkeypatch, make, preadv):
    if not preadv:
        monkeypatch.setattr(sources, "PREAD", None)
    source = make(files[0])
    with pytest.raises(ReadError, match=rf"{files[0]}: wanted 20 bytes at byte 990, found .*open the run"):
        read_bytes(source, 990, 20)
    with pytest.raises(ReadError, match=rf"{files[0]}: wanted 20 bytes at byte 990"):
        source.read_pieces(np.array([0, 990]), np.array([5, 20]), np.empty(30, np.uint8), np.array([0, 5]))
    assert read_bytes(source, 990, 10) == bytes(10)


def test_a_file_that_is_not_there(tmp_path):
    source = FileSource(str(tmp_path / "gone"))
    for ask in (source.size, lambda: read_bytes(source, 0, 1)):
        with pytest.raises(ReadError, match=r"cannot open .*gone: No such file"):
            ask()


def test_sources_travel(files):
    for source in (FileSource(files[3]), MemorySource(b"\3" * 1000, "memory")):
        again = pickle.loads(pickle.dumps(source))
        assert again == source
        assert (again.size(), read_bytes(again, 5, 3)) == (1000, b"\3\3\3")


def test_everything_reads_the_same_without_preadv(rich, rich_run, monkeypatch):
    normal = rich_run.dataset(chunks=None).load()
    monkeypatch.setattr(sources, "PREAD", None)
    monkeypatch.setattr("psana_dask.gather.read_pieces", None)  # compiled code must not be asked
    run = psana_dask.open(rich.folder, cache=False)
    assert run.dataset(chunks=None).load().identical(normal)
    assert run.epics.at().identical(rich_run.epics.at())
    assert run.steps.equals(rich_run.steps)


SCRIPT = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
import numpy as np, psana_dask
run = psana_dask.open(sys.argv[1])
order = np.random.default_rng(0).permutation(len(run))
values = run.isel(order).gmd.field("milliJoulesPerPulse", chunks=None).values
print(len(run.files), len(run), repr(float(values[np.argsort(order)] @ np.arange(len(run)))))
"""


def test_200_parts_are_read_with_64_open_files(tmp_path):
    spec = RunSpec(events=200, detectors=(Detector(name="gmd", kind="gmd"),), cuts={0: tuple(range(1, 200))})
    truth = simulate.write(spec, tmp_path)
    said = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], check=True, capture_output=True, text=True
    ).stdout.split()
    values = np.array([truth.value("gmd", "milliJoulesPerPulse", e) for e in range(200)])
    assert said[:2] == ["200", "200"]
    # float32 values times small integers, summed in float64: exact to rounding of 200 terms
    assert float(said[2]) == pytest.approx(float(values @ np.arange(200)), rel=1e-12)


def test_a_replaced_file_is_refused_also_after_it_was_closed(tmp_path):
    detector = Detector(name="cam", kind="camera", shape=(4, 6))
    for seed, name in enumerate(("one", "two")):
        simulate.write(RunSpec(events=5, detectors=(detector,), seed=seed, smalldata=None), tmp_path / name)
    path, other = (next((tmp_path / name).glob("*.xtc2")) for name in ("one", "two"))
    raw = psana_dask.open(path).cam.field("raw", chunks=None)
    raw.isel(time=0).values  # noqa: B018  (opens the file)
    os.replace(other, path)
    os.close(sources.POOL._files.pop(str(path)))  # as the pool does to make room
    with pytest.raises(ReadError, match="was replaced since the run was opened"):
        raw.isel(time=1).values  # noqa: B018
    assert psana_dask.open(path).cam.raw.shape == (5, 4, 6)

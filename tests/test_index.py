"""The index of a stream: built, kept, checked, extended."""

import dataclasses
import itertools
import os
import subprocess
import sys

import numpy as np
import pytest

import psana_dask
from psana_dask import simulate
from psana_dask.errors import PartialRunWarning, ReadError
from psana_dask.files import StreamFiles, find_run
from psana_dask.index import cache_path, run_and_step, stream_index
from psana_dask.model import DGRAM_COLUMNS, Service
from psana_dask.options import current
from psana_dask.readers.xtc2_scanner import Scanner
from psana_dask.simulate import Detector, RunSpec, corrupt

TWO = (
    Detector(name="gmd", kind="gmd"),
    Detector(name="hsd", kind="hsd", segments=2, stream=1),
    Detector(name="cam", kind="camera", stream=1, shape=(4, 6)),
)
SPEC = RunSpec(events=30, steps=3, detectors=TWO, cuts={1: (8, 21)}, slow_every=6)


@pytest.fixture
def scans(monkeypatch):
    """Every scan that is made: (file, first byte)."""
    made, scan = [], Scanner.scan

    def noted(self, source, part, start=0, known=None):
        made.append((os.path.basename(source.name), start))
        return scan(self, source, part, start, known)

    monkeypatch.setattr(Scanner, "scan", noted)
    return made


def data_scans(scans):
    return [(name, start) for name, start in scans if ".smd." not in name]


def same(one, other):
    assert one.parts == other.parts
    assert one.configs == other.configs
    assert one.problems == other.problems
    assert one.columns.keys() == other.columns.keys()
    for name, column in one.columns.items():
        assert column.dtype == other[name].dtype
        np.testing.assert_array_equal(column, other[name])


LAYOUTS = ("layout", "layout_key", "layout_config", "first_word", "words")


def same_meaning(one, other):
    """Compare indexes that may number their layouts differently."""
    plain = [{k: v for k, v in i.columns.items() if k not in LAYOUTS} for i in (one, other)]
    same(dataclasses.replace(one, columns=plain[0]), dataclasses.replace(other, columns=plain[1]))
    assert shapes(one) == shapes(other)


def shapes(index):
    bounds = index["first_word"]
    words = [tuple(index["words"][a:b].tolist()) for a, b in itertools.pairwise(bounds.tolist())]
    return [words[k] for k in index["layout"]]


@pytest.mark.parametrize("smalldata", ["offline", "daq", None])
@pytest.mark.parametrize("old_header", [False, True])
def test_every_datagram_is_in_the_index(tmp_path, smalldata, old_header):
    spec = dataclasses.replace(SPEC, smalldata=smalldata, old_header=old_header)
    truth = simulate.write(spec, tmp_path)
    for files in find_run(tmp_path).streams:
        index, rows = stream_index(files), truth.datagrams[files.stream]
        for column in ("timestamp", "service", "part", "offset", "size"):
            np.testing.assert_array_equal(index[column], rows[column])
        events = index["service"] == Service.L1_ACCEPT
        np.testing.assert_array_equal(index["step"][events], rows["step"][events])
        assert not index.problems
        for column, dtype in DGRAM_COLUMNS.items():
            assert index[column].dtype == np.dtype(dtype)
            assert len(index[column]) == len(rows) + (column == "first_block")


def test_the_cache_is_used(tmp_path, scans):
    simulate.write(SPEC, tmp_path)
    files = find_run(tmp_path).streams[1]
    built = stream_index(files)
    assert len(data_scans(scans)) == 3
    scans.clear()
    same(stream_index(files), built)
    assert scans == []


def test_no_cache_is_left_without_being_asked(tmp_path, scans):
    simulate.write(SPEC, tmp_path)
    files = find_run(tmp_path).streams[0]
    built = stream_index(files, cache=False)
    assert not cache_path(files).exists()
    scans.clear()
    same(stream_index(files, cache=False), built)
    assert data_scans(scans) == [(os.path.basename(files.parts[0]), 0)]


def test_a_file_that_changed_is_scanned_again(tmp_path, scans):
    first = simulate.write(SPEC, tmp_path)
    files = find_run(tmp_path).streams[0]
    stream_index(files)
    scans.clear()
    later = simulate.write(dataclasses.replace(SPEC, start="2024-06-15T00:00:00"), tmp_path)
    assert [p.stat().st_size for p in later.files] == [p.stat().st_size for p in first.files]
    index = stream_index(files)
    assert index["timestamp"].tolist() == later.datagrams[0]["timestamp"].tolist()
    assert data_scans(scans) == [(os.path.basename(files.parts[0]), 0)]


def test_a_longer_file_written_in_its_place_is_scanned_from_its_start(tmp_path, scans):
    simulate.write(SPEC, tmp_path)
    files = find_run(tmp_path).streams[0]
    stream_index(files)
    scans.clear()
    longer = dataclasses.replace(SPEC, events=60, steps=3, start="2024-06-15T00:00:00")
    later = simulate.write(longer, tmp_path)  # the same inode
    index = stream_index(files)
    assert index["timestamp"].tolist() == later.datagrams[0]["timestamp"].tolist()
    assert data_scans(scans) == [(os.path.basename(files.parts[0]), 0)]


def test_a_copy_with_the_same_name_is_another_file(tmp_path):
    simulate.write(SPEC, tmp_path)
    files = find_run(tmp_path).streams[0]
    before = int(stream_index(files)["timestamp"][0])
    status = os.stat(files.parts[0])
    changed = bytearray((tmp_path / os.path.basename(files.parts[0])).read_bytes())
    changed[0] ^= 1  # the nanoseconds of the Configure
    (tmp_path / "new").write_bytes(changed)
    os.utime(tmp_path / "new", ns=(status.st_atime_ns, status.st_mtime_ns))
    os.replace(tmp_path / "new", files.parts[0])  # same size, same time; only the inode differs
    assert int(stream_index(files)["timestamp"][0]) == before ^ 1


@pytest.mark.parametrize("damage", [b"", b"garbage\n", b'{"format": "psana_dask columns 1"}\n'])
def test_a_damaged_cache_is_built_anew(tmp_path, damage):
    simulate.write(SPEC, tmp_path)
    files = find_run(tmp_path).streams[1]
    built = stream_index(files)
    cache_path(files).write_bytes(damage)
    same(stream_index(files), built)
    assert len(cache_path(files).read_bytes()) > 1000


def test_a_cache_of_another_version_is_built_anew(tmp_path, monkeypatch, scans):
    simulate.write(SPEC, tmp_path)
    files = find_run(tmp_path).streams[0]
    built = stream_index(files)
    scans.clear()
    monkeypatch.setattr("psana_dask.index.INDEX_VERSION", 999)
    same(stream_index(files), built)
    assert len(data_scans(scans)) == 1


def test_a_run_that_grows_is_scanned_where_it_grew(tmp_path, scans):
    growing = simulate.grow(dataclasses.replace(SPEC, in_progress=True, cuts={1: (3,)}), tmp_path)
    for entry in growing:
        if entry.event == 4:
            break
    before = find_run(tmp_path).streams
    old = [stream_index(files) for files in before]
    for entry in growing:
        if entry.event == 13:
            break
    scans.clear()
    for files, earlier in zip(find_run(tmp_path).streams, old, strict=True):
        index = stream_index(files)
        for column in DGRAM_COLUMNS:
            np.testing.assert_array_equal(index[column][: len(earlier)], earlier[column][: len(earlier)])
        same_meaning(index, stream_index(files, cache=False))
    ends = [int(i["offset"][-1]) + int(i["size"][-1]) for i in old]
    resumed = [(name, start) for name, start in data_scans(scans) if start]
    assert [start for _, start in resumed] == ends


def test_a_growing_run_has_every_event_at_every_moment(tmp_path):
    spec = RunSpec(events=9, steps=2, detectors=TWO, cuts={1: (5,)}, in_progress=True)
    growing, seen = simulate.grow(spec, tmp_path), 0
    for entry in growing:
        seen = max(seen, entry.event + 1)
        index = stream_index(find_run(tmp_path).streams[1])
        assert np.count_nonzero(index["service"] == Service.L1_ACCEPT) == seen
    assert seen == 9


def test_a_finished_file_keeps_the_index_of_its_days_in_progress(tmp_path, scans):
    truth = simulate.write(dataclasses.replace(SPEC, in_progress=True), tmp_path)
    stream_index(find_run(tmp_path).streams[0])
    scans.clear()
    for path in (*truth.files, *truth.smd_files.values()):
        path.rename(str(path).removesuffix(".inprogress"))
    index = stream_index(find_run(tmp_path).streams[0])
    assert scans == []
    assert index.parts == (str(truth.files[0]).removesuffix(".inprogress"),)


def test_problems_of_an_earlier_part_stay_when_the_last_one_grows(tmp_path):
    spec = dataclasses.replace(SPEC, smalldata=None, in_progress=True)
    growing = simulate.grow(spec, tmp_path)
    for entry in growing:
        if entry.event == 12:
            break
    first, _ = find_run(tmp_path).streams[1].parts
    with open(first, "ab") as file:
        file.write(b"\1\2\3")  # a torn write at the end of a part
    (problem,) = stream_index(find_run(tmp_path).streams[1]).problems
    assert "longer than the file" in problem.what or "no valid datagram" in problem.what
    for entry in growing:
        if entry.event == 15:
            break
    files = find_run(tmp_path).streams[1]
    same_meaning(stream_index(files), stream_index(files, cache=False))


def test_events_of_all_parts_are_reached_in_any_order(tmp_path):
    truth = simulate.write(SPEC, tmp_path)
    run = psana_dask.open(tmp_path)
    order = np.random.default_rng(0).permutation(30)
    frames = run.sel(truth.times[order]).cam.raw.values
    for event, frame in zip(order, frames, strict=True):
        np.testing.assert_array_equal(frame, truth.value("cam", "image", event))


def test_a_partial_last_datagram_is_a_problem_but_not_of_a_live_run(tmp_path):
    simulate.write(dataclasses.replace(SPEC, partial_tail={0: 30, 1: 7}), tmp_path)
    with pytest.warns(PartialRunWarning, match=r"the datagram is longer than the file.* \(and 1 more\)"):
        run = psana_dask.open(tmp_path)
    assert len(run) == 30
    assert run.problems["what"].str.contains("nothing readable follows").all()
    with pytest.raises(psana_dask.errors.FormatError, match=r"longer than the file.* at byte \d+"):
        psana_dask.open(tmp_path, strict=True)
    assert len(psana_dask.open(tmp_path, live=True).problems) == 0


@pytest.mark.parametrize("smalldata", ["offline", None])
def test_one_bad_header_hides_one_event(tmp_path, smalldata):
    truth = simulate.write(dataclasses.replace(SPEC, smalldata=smalldata, cuts={}), tmp_path)
    row = next(r for r in truth.datagrams[1] if r["event"] == 11)
    corrupt.overwrite(truth.streams[1][0], int(row["offset"]), b"\xff" * 24)
    with pytest.warns(PartialRunWarning, match=f"no valid datagram header: {row['size']} bytes"):
        run = psana_dask.open(tmp_path)
    assert np.flatnonzero(~run.cam.present.values).tolist() == [11]
    assert run.problems["offset"].tolist()[0] == row["offset"]
    assert len(run) == 30  # the other stream has the event


def test_the_small_data_file_is_checked_against_the_headers(tmp_path):
    truth = simulate.write(SPEC, tmp_path)
    smd = truth.smd_files[1]
    index = stream_index(StreamFiles(1, (str(smd),)))
    row = int(np.flatnonzero(index["service"] == Service.L1_ACCEPT)[5])
    offset = int(index["offset"][row]) + 60  # of intOffset in a small-data event of 76 bytes
    corrupt.overwrite(smd, offset, (12345).to_bytes(8, "little"))
    with pytest.warns(PartialRunWarning, match="lists an event of .* at byte 12345 of part 0, which is"):
        run = psana_dask.open(tmp_path)
    assert run.problems["event"].tolist() == [truth.timestamps[5]]
    assert bool(run.cam.present.all())


@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b[: len(b) // 2], lambda b: b"\xff" * len(b)])
def test_a_small_data_file_that_is_damaged_hides_nothing(tmp_path, damage, recwarn):
    truth = simulate.write(SPEC, tmp_path)
    truth.smd_files[1].write_bytes(damage(truth.smd_files[1].read_bytes()))
    run = psana_dask.open(tmp_path)
    assert len(run) == 30
    assert bool(run.cam.present.all())
    assert all(w.category is PartialRunWarning for w in recwarn)


def test_a_file_that_is_gone(tmp_path):
    truth = simulate.write(SPEC, tmp_path)
    files = find_run(tmp_path).streams[0]
    truth.streams[0][0].unlink()
    with pytest.raises(ReadError, match=r"cannot open .*s000-c000.xtc2"):
        stream_index(files)


def test_progress_is_told(tmp_path):
    truth = simulate.write(SPEC, tmp_path)
    told = []
    stream_index(find_run(tmp_path).streams[1], progress=lambda *facts: told.append(facts))
    sizes = [(str(p), p.stat().st_size) for p in truth.streams[1]]
    last = {path: (done, size) for path, done, size in told}
    assert last == {path: (size, size) for path, size in sizes}


SCRIPT = "import sys, psana_dask; r = psana_dask.open(sys.argv[1]); print(len(r), int(r.cam.raw.sum()))"


def test_two_processes_may_build_at_once(tmp_path, monkeypatch):
    truth = simulate.write(SPEC, tmp_path / "run")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "kernels").symlink_to((current().cache_folder() / "kernels").resolve())
    monkeypatch.setenv("PSANA_DASK_CACHE", str(tmp_path / "cache"))
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "run")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate()[0].split() for process in both]
    total = sum(int(np.sum(truth.value("cam", "image", event), dtype=np.int64)) for event in range(30))
    assert said == [["30", str(total)]] * 2
    assert len(list((tmp_path / "cache" / "index").iterdir())) == 2


def test_runs_and_steps_are_counted():
    begin, step, event, end = Service.BEGIN_RUN, Service.BEGIN_STEP, Service.L1_ACCEPT, Service.END_RUN
    services = [event, step, begin, event, step, event, step, event, end, begin, event, step, event]
    run, steps = run_and_step(np.array(services, np.uint8))
    assert run.tolist() == [0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1]
    assert steps.tolist() == [-1, 0, -1, -1, 0, 0, 1, 1, 1, -1, -1, 0, 0]

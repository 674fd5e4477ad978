"""Runs followed while they are written: everything once, in order, as the closed run gives it."""

import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

import psana_dask
from psana_dask import growing as growing_module
from psana_dask import index_xtc2, simulate
from psana_dask.errors import ReadError, StreamWarning
from psana_dask.files import find_run, refreshed
from psana_dask.growing import GrowingRun
from psana_dask.model import Service

FORMATS = ("xtc2", "xtc")


class Replay:
    """Copies the files of a closed run to a growing one, some bytes of each stream at a time."""

    def __init__(self, run, folder, suffix=".inprogress"):
        self.folder, self.suffix = folder, suffix
        self.streams = [
            [(os.path.basename(p), Path(p).read_bytes()) for p in stream.parts]
            for stream in run._recording.streams
        ]
        self.at = [(0, 0)] * len(self.streams)
        for number in range(len(self.streams)):
            self._path(number).touch()

    def _path(self, number):
        return self.folder / (self.streams[number][self.at[number][0]][0] + self.suffix)

    def write(self, number, size):
        """Append `size` bytes of a stream; go to the next part at the end of one."""
        part, done = self.at[number]
        data = self.streams[number][part][1]
        with open(self._path(number), "ab") as file:
            file.write(data[done : done + size])
        self.at[number] = (part, min(done + size, len(data)))
        if done + size >= len(data):
            self._close(number)

    def _close(self, number):
        part, _ = self.at[number]
        path = self._path(number)
        if self.suffix:
            path.rename(path.with_name(path.name.removesuffix(self.suffix)))
        if part + 1 < len(self.streams[number]):
            self.at[number] = (part + 1, 0)
            self._path(number).touch()

    def done(self, number):
        part, at = self.at[number]
        return part + 1 == len(self.streams[number]) and at == len(self.streams[number][part][1])

    def finish(self):
        for number in range(len(self.streams)):
            while not self.done(number):
                self.write(number, 1 << 30)


@pytest.fixture(scope="module", params=FORMATS)
def closed(request, tmp_path_factory):
    """A closed run with everything: several streams, two parts, mixed rates, a recorder."""
    return psana_dask.open(simulate.demo_run(tmp_path_factory.mktemp("closed"), 24, format=request.param))


@pytest.fixture
def replay(closed, tmp_path):
    return Replay(closed, tmp_path)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """No waiting for parts that a finished writer will not begin."""
    monkeypatch.setattr(growing_module, "SETTLED", 0.0)


@pytest.fixture
def _at_once(monkeypatch):
    """LCLS-1 datagrams are given out before it is sure that none overtakes them."""
    monkeypatch.setattr(growing_module, "HELD_BACK", {"xtc2": 0, "xtc": 0})


def growing_of(replay, **choices):
    return GrowingRun(lambda: refreshed(find_run(replay.folder)), **choices)


def recorded(growing):
    recording = growing.recording()
    return np.zeros(0, np.int64) if recording is None else recording.events.time


@pytest.mark.parametrize("seed", [0, 1])
def test_pieces_of_any_size_give_the_events_of_the_closed_run(closed, replay, seed):
    """Whatever the streams have written, what came before is never changed, and nothing is lost."""
    rng = np.random.default_rng(seed)
    growing, before = growing_of(replay), np.zeros(0, np.int64)
    want = closed._recording.events
    while not all(map(replay.done, range(len(replay.streams)))):
        number = int(rng.integers(len(replay.streams)))
        if not replay.done(number):
            left = sum(len(d) for _, d in replay.streams[number])
            replay.write(number, int(rng.integers(1, 2 + left // 8)))
        growing.poll()
        now = recorded(growing)
        assert np.array_equal(now[: len(before)], before)
        assert np.array_equal(now, want.time[: len(now)])
        before = now
    growing.poll()
    assert growing.ended
    growing.finish()
    events = growing.recording().events
    for name in ("time", "timestamp", "step"):
        assert np.array_equal(getattr(events, name), getattr(want, name)), name


def test_an_event_waits_for_the_slowest_stream(closed, replay):
    growing = growing_of(replay)
    first, *others = range(len(replay.streams))
    for number in others:
        while not replay.done(number):
            replay.write(number, 1 << 30)
    growing.poll()
    assert len(recorded(growing)) == 0
    while not replay.done(first):
        replay.write(first, 1 << 30)
    growing.poll()
    assert len(recorded(growing)) == len(closed)


def test_the_index_is_extended_not_built_again(closed, replay, monkeypatch):
    """Every byte of a stream is scanned once: scans go on where the last one ended."""
    growing, starts = growing_of(replay), {}
    scan_part = growing_module.GrowingStream._scan_part

    def noted(stream, number, size):
        before = stream._next[number]
        found = scan_part(stream, number, size)
        if stream._next[number] > before:
            starts.setdefault((stream.stream, number), []).append((before, stream._next[number]))
        return found

    monkeypatch.setattr(growing_module.GrowingStream, "_scan_part", noted)
    for _ in range(6):
        for number in range(len(replay.streams)):
            if not replay.done(number):
                replay.write(number, 1 + len(replay.streams[number][0][1]) // 4)
        growing.poll()
    for ranges in starts.values():
        assert [a for a, _ in ranges] == [0, *(b for _, b in ranges[:-1])]


@pytest.mark.parametrize("closed", ["xtc2"], indirect=True)  # LCLS-1 numbers its parts
def test_what_announces_the_next_part_is_decoded_once(closed, replay, monkeypatch):
    """However often a run is polled: a poll of a long run costs what is new, not what was."""
    decoded = []
    announced = index_xtc2._announced
    monkeypatch.setattr(index_xtc2, "_announced", lambda *a: decoded.append(a[1]) or announced(*a))
    growing = growing_of(replay)
    while not all(map(replay.done, range(len(replay.streams)))):
        for number in range(len(replay.streams)):
            if not replay.done(number):
                replay.write(number, 1 + sum(len(d) for _, d in replay.streams[number]) // 40)
        growing.poll()
    growing.poll()
    enables = sum(np.sum(s["service"] == Service.ENABLE) for s in closed._recording.streams)
    assert 0 < len(decoded) <= enables
    assert len(recorded(growing)) == len(closed)


def test_what_a_small_data_file_lists_is_looked_up():
    rng = np.random.default_rng(0)
    offset = np.sort(rng.choice(10_000, 300, replace=False))
    there = (rng.integers(0, 9, 300), np.repeat([0, 1, 2], 100), offset, rng.integers(1, 4, 300))
    listed = tuple(np.concatenate([c[::3], c[::-1]]) for c in there)
    listed[3][::7] += 1
    listed[2][5::11] += 1
    known = set(zip(*(c.tolist() for c in there), strict=True))
    want = [k for k, row in enumerate(zip(*(c.tolist() for c in listed), strict=True)) if row not in known]
    assert 0 < len(want) < 400
    assert index_xtc2._not_in(listed, there).tolist() == want
    none = tuple(c[:0] for c in there)
    assert index_xtc2._not_in(listed, none).tolist() == list(range(400))
    assert index_xtc2._not_in(none, there).tolist() == []


def test_a_stream_that_stands_still_is_given_up_after_patience(replay):
    growing = growing_of(replay, patience=0.2)
    for number in range(1, len(replay.streams)):
        while not replay.done(number):
            replay.write(number, 1 << 30)
    replay.write(0, len(replay.streams[0][0][1]) // 2)
    growing.poll()
    early = len(recorded(growing))
    time.sleep(0.25)
    growing.poll()
    assert len(recorded(growing)) > early
    assert any("without this stream" in p.what for p in growing.recording().problems)
    replay.finish()
    growing.poll()
    growing.finish()
    stamps = growing.recording().events.timestamp
    assert len(np.unique(stamps)) == len(stamps)  # nothing twice


def test_a_file_that_is_replaced_is_refused(replay):
    growing = growing_of(replay)
    replay.write(0, len(replay.streams[0][0][1]) // 2)
    growing.poll()
    path = replay._path(0)
    path.unlink()
    path.write_bytes(b"x" * 100)
    with pytest.raises(ReadError, match="was replaced or cut while it was followed"):
        growing.poll()


# ---- through the front door ---------------------------------------------------------------------
WRITER = """
import sys, time
from psana_dask.simulate.runs import grow, demo_spec
folder, form, events, pause = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
for entry in grow(demo_spec(events, format=form), folder):
    time.sleep(pause)
"""


@pytest.fixture(params=FORMATS)
def writer(request, tmp_path):
    """A process that writes a run; it begins after the reader."""
    command = [sys.executable, "-c", WRITER, str(tmp_path), request.param, "24", "0.005"]
    with subprocess.Popen(command) as process:
        yield process, tmp_path
        process.kill()


def test_follow_a_process(writer):
    process, folder = writer
    run = psana_dask.open(folder, live=True)
    batches = list(run.follow(batch=8, timeout=20, poll=0.02))
    assert process.wait() == 0
    closed = psana_dask.open(folder)
    assert np.array_equal(np.concatenate([b.time.values for b in batches]), closed.events.time.values)
    assert max(b.sizes["time"] for b in batches) <= 8
    name = "epixquad_raw" if closed.format == "xtc2" else "epix100a_raw"
    frames = np.concatenate([b[name].values for b in batches])
    assert np.array_equal(frames, closed.dataset()[name].values)


def test_batches_have_one_schema_and_are_lazy(closed, replay):
    run = None
    for number in range(len(replay.streams)):
        replay.write(number, 1 << 30)
    run = psana_dask.open(replay.folder, live=True)
    replay.finish()
    batches = list(run.follow(batch=7, timeout=5))
    late = batches[1:]
    assert {tuple(sorted(b.data_vars)) for b in late} == {tuple(sorted(late[0].data_vars))}
    whole = closed.dataset(chunks=None)
    assert set(late[0].data_vars) == set(whole.data_vars)
    for name in whole.data_vars:
        if "time" in whole[name].dims:
            got = np.concatenate([b[name].values for b in batches if name in b])
            want = whole[name].values[len(closed) - len(got) :]
            assert np.array_equal(got, want, equal_nan=got.dtype.kind == "f")


@pytest.mark.usefixtures("_at_once")
def test_a_batch_outlives_the_next_ones_and_the_renaming_of_its_file(replay, closed):
    for number in range(len(replay.streams)):
        replay.write(number, 9 * len(replay.streams[number][0][1]) // 10)
    run = psana_dask.open(replay.folder, live=True)
    following = run.follow_runs(batch=4, timeout=5)
    first = next(following)
    lazy = first.dataset(chunks={"time": 2})
    replay.finish()
    list(following)
    name = "epixquad_raw" if closed.format == "xtc2" else "epix100a_raw"
    want = closed.dataset()[name].isel(time=slice(0, lazy.sizes["time"])).values
    assert np.array_equal(lazy[name].values, want)


@pytest.mark.parametrize("closed", ["xtc2"], indirect=True)  # the format makes no difference
def test_a_batch_travels_to_another_process(replay, closed, elsewhere):
    replay.finish()
    run = next(iter(psana_dask.open(replay.folder, live=True).follow_runs(batch=6)))
    name = "epixquad_raw" if closed.format == "xtc2" else "epix100a_raw"
    lazy = run.dataset(chunks={"time": 3})[name]
    assert elsewhere(lazy, "x.sum().compute().item()") == lazy.sum().compute().item()


def test_slow_data_and_steps_of_a_batch(replay, closed):
    replay.finish()
    run = psana_dask.open(replay.folder, live=True)
    batches = list(run.follow_runs(batch=9))
    assert np.array_equal(np.concatenate([b.events.step for b in batches]), closed.events.step)
    at = [b.epics.at(b.events.time.values).to_array().values for b in batches]
    want = closed.epics.at(closed.events.time.values).to_array().values
    assert np.array_equal(np.concatenate(at, axis=1).astype(str), want.astype(str))


def test_a_run_that_stops_is_given_up(replay):
    for number in range(len(replay.streams)):
        replay.write(number, 2 * len(replay.streams[number][0][1]) // 3)
    run = psana_dask.open(replay.folder, live=True)
    with pytest.warns(StreamWarning, match="nothing new for 0.3 s"):
        batches = list(run.follow(batch=1000, timeout=0.3))
    assert sum(b.sizes["time"] for b in batches) == len(run)  # what is there is given out


def test_what_follow_refuses(closed):
    with pytest.raises(ValueError, match="batch=0"):
        next(closed.follow(batch=0))
    with pytest.raises(ValueError, match="select in each batch"):
        next(closed.isel([1, 2]).follow())


def test_a_closed_run_can_be_followed(closed):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batches = list(closed.follow(batch=16))
    assert sum(b.sizes["time"] for b in batches) == len(closed)


def test_events_of_lcls1_are_extended_not_joined_again(tmp_path, monkeypatch):
    """Joining what is new costs no more the longer the run is, and gives the events of the closed run."""
    detectors = tuple(d for d in simulate.runs.DEMO_DETECTORS["xtc"] if d.name in ("evr0", "ebeam", "ipm2"))
    recorder = simulate.Detector(name="opal", kind="camera", stream=80, every=2, shape=(8, 8))
    folder = simulate.demo_run(tmp_path / "closed", 1200, format="xtc", detectors=(*detectors, recorder))
    closed = psana_dask.open(folder)
    (tmp_path / "live").mkdir()
    replay, joined = Replay(closed, tmp_path / "live"), []
    build = growing_module.build_xtc_events

    def noted(streams, runs, files, first=None):
        joined.append(sum(len(s) for s in streams) - sum(first or [0]))
        return build(streams, runs, files, first)

    monkeypatch.setattr(growing_module, "build_xtc_events", noted)
    growing = growing_of(replay)
    sizes = [len(stream[0][1]) // 20 + 1 for stream in replay.streams]
    for _ in range(20):
        for number, size in enumerate(sizes):
            if not replay.done(number):
                replay.write(number, size)
        growing.poll()
    replay.finish()
    growing.poll()
    growing.finish()
    events, want = growing.recording().events, closed._recording.events
    for name in ("time", "timestamp", "step", "rows"):
        assert np.array_equal(getattr(events, name), getattr(want, name)), name
    assert len(joined) > 15
    assert max(joined[8:-3]) < 3 * growing_module.CONTEXT * len(sizes)

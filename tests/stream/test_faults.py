"""What may go wrong online: counted, reported, and nothing lost that could be kept."""

import gc
import os
import struct
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import numpy as np
import pytest

import psana_dask
from psana_dask import simulate
from psana_dask.errors import PartialRunWarning, StreamWarning
from psana_dask.model import Service
from psana_dask.stream import open_stream
from psana_dask.stream.replay import moments
from psana_dask.stream.shmem_server import serve_run
from psana_dask.stream.stream import Stream
from psana_dask.stream.taps import Delivery, ListTap, Refusals

FRAMES = {"xtc2": "epixquad", "xtc": "epix100a"}
FORMATS = ["xtc2", "xtc"]
WRITER = """
import sys, time
from psana_dask.simulate import demo_spec, grow
for entry in grow(demo_spec(int(sys.argv[3]), format=sys.argv[2], renames=True), sys.argv[1]):
    time.sleep(0.005)
"""


def times_of(runs):
    return np.concatenate([r.events.time.values for r in runs])


# ---- files --------------------------------------------------------------------------------------
@pytest.mark.parametrize("form", FORMATS)
def test_a_writer_that_is_killed_and_started_again(form, tmp_path):
    """A run without an end is given up with a warning; the next one is followed from its first event."""
    command = [sys.executable, "-c", WRITER, str(tmp_path / "first"), form]
    with subprocess.Popen([*command, "400"]) as process:
        while sum(p.stat().st_size for p in (tmp_path / "first").glob("*.inprogress")) < 1e7:
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    name = f"{FRAMES[form]}.raw"
    with (
        open_stream(f"live:{tmp_path / 'first'}") as stream,
        pytest.warns(StreamWarning, match="no end of the run in .*inprogress"),
    ):
        *_, last = stream.reduce("count", name, timeout=0.3)
    assert int(last.max()) == int(psana_dask.open(tmp_path / "first", live=True).count(name).max()) > 0
    command[3] = str(tmp_path / "second")
    with subprocess.Popen([*command, "12"]) as process, open_stream(f"live:{command[3]}") as stream:
        times = times_of(stream.follow_runs(timeout=20))
        assert process.wait() == 0
    assert np.array_equal(times, psana_dask.open(command[3]).events.time.values)


def test_a_file_that_stops_in_the_middle_of_a_datagram(small, tmp_path):
    """What is whole before is given out; the rest comes when it is written."""
    last = {stream.parts[-1] for stream in small._recording.streams}
    rest = {}
    for path in small.files:
        data = Path(path).read_bytes()
        growing = tmp_path / (os.path.basename(path) + (".inprogress" if path in last else ""))
        cut = len(data) * 4 // 5 + 11 if path in last else len(data)
        growing.write_bytes(data[:cut])
        if path in last:
            rest[growing] = data[cut:]
    seen, before = [], []

    def go_on():
        before.extend(seen)
        for growing, data in rest.items():
            with growing.open("ab") as file:
                file.write(data)
            growing.rename(growing.with_suffix(""))

    timer = threading.Timer(0.3, go_on)
    with open_stream(f"live:{tmp_path}") as stream:
        for run in stream.follow_runs(batch=5, timeout=20):
            seen.append(run.events.time.values)
            if len(seen) == 1:
                timer.start()
    timer.join()
    assert len(before) > 0
    assert np.array_equal(np.concatenate(seen), small.events.time.values)


@pytest.mark.parametrize("form", FORMATS)
def test_clocks_that_jump(form, tmp_path):
    """An hour ahead and back again: every event comes once, from files and from a tap."""
    epoch = {"xtc2": 631_152_000, "xtc": 0}[form]
    seconds = 1_718_345_523 - epoch + np.arange(40) // 10
    seconds[20:30] += 3600
    words = seconds.astype(np.uint64) << np.uint64(32) | (np.arange(40) % 10 * 8_333_333).astype(np.uint64)
    detectors = tuple(d for d in simulate.runs.DEMO_DETECTORS[form] if d.name in ("timing", "gmd", "ebeam"))
    spec = simulate.RunSpec(format=form, events=40, detectors=detectors, timestamps=words, smalldata=None)
    with pytest.warns(PartialRunWarning, match="1 datagrams out of time order: sorted"):
        closed = psana_dask.open(simulate.write(spec, tmp_path).folder)
    assert len(closed) == 40
    with pytest.warns(PartialRunWarning), open_stream(f"live:{tmp_path}") as stream:
        assert np.array_equal(times_of(stream.follow_runs(batch=7, timeout=5)), closed.events.time.values)
    with Stream(ListTap(form, [one(m) for m in moments(closed._recording)])) as stream:
        assert np.array_equal(np.sort(times_of(stream.follow_runs(batch=7))), closed.events.time.values)


def one(moment):
    events = moment.service == Service.L1_ACCEPT
    return Delivery(events=[moment.dgrams]) if events else Delivery([moment.dgrams])


# ---- slow consumers -----------------------------------------------------------------------------
@pytest.mark.skipif(sys.platform != "linux", reason="POSIX message queues are Linux only")
@pytest.mark.parametrize("policy", ["complete", "latest"])
def test_a_slow_consumer_of_shared_memory(small, policy):
    """Under "complete" a patient server waits and nothing is lost; under "latest" old ones are dropped."""
    tag = f"test_{uuid.uuid4().hex[:12]}"
    arguments = {"clients": 1, "buffers": 2, "wait_clients": 1, "patience": 10.0}
    server = threading.Thread(target=serve_run, args=(tag, small._recording), kwargs=arguments)
    server.start()
    seen = []
    with open_stream(f"shmem://{tag}", policy=policy, waiting=4) as stream:
        time.sleep(1.0)
        for run in stream.follow_runs(batch=2, timeout=None):
            seen.append(run.events.time.values)
            time.sleep(0.01)
            if seen[-1][-1] == small.events.time.values[-1]:
                break
        counted = stream.counters
    server.join()
    times = np.concatenate(seen)
    assert counted.processed == len(times)
    assert counted.received == len(small) == counted.processed + counted.dropped
    if policy == "complete":
        assert np.array_equal(times, small.events.time.values)
    else:
        assert counted.dropped > 10
        assert np.isin(times, small.events.time.values).all()


# ---- a long time --------------------------------------------------------------------------------
class Endless:
    """A tap of one run's transitions and many copies of an event, each with a time of its own."""

    def __init__(self, run, events, each=250):
        made = list(moments(run._recording))
        first = next(k for k, m in enumerate(made) if m.service == Service.L1_ACCEPT)
        self.form, self.refused = run.format, Refusals()
        self._transitions = [m.dgrams for m in made[:first]]
        self._event, self._left, self._each, self._sent = made[first].dgrams[:1], events, each, 0

    def receive(self, seconds):
        if not self._left:
            return Delivery(end=True)
        count = min(self._each, self._left)
        transitions, self._transitions = self._transitions, []
        self._left -= count
        return Delivery(transitions, [self._copy() for _ in range(count)])

    def _copy(self):
        self._sent += 1
        clock = 1_718_345_600 * 10**9 + self._sent * 1_000_000
        out = []
        for stream, data in self._event:
            copy = bytearray(data)
            struct.pack_into("<II", copy, 0, clock % 10**9, clock // 10**9)
            if self.form == "xtc":  # the fiducial counts as well
                word = struct.unpack_from("<I", copy, 12)[0]
                struct.pack_into("<I", copy, 12, word & ~0x1FFFF | self._sent * 3 % 0x1FFE0)
            out.append((stream, copy))
        return [type(self._event[0])(*pair) for pair in out]

    def close(self):
        pass


def resident():
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


@pytest.fixture
def collector():
    """Hide from the collector what earlier tests keep: looking through it took most of a long test."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("form", ["xtc2", "xtc"])
@pytest.mark.usefixtures("collector")
def test_a_hundred_thousand_events_in_flat_memory(form, tmp_path):
    """Everything is processed, and what the process holds does not grow with the events."""
    total = 100_000
    kind = {"xtc2": ("gmd", "gmd"), "xtc": ("ebeam", "ebeam")}[form]
    detectors = (simulate.Detector(name=kind[0], kind=kind[1]),)
    spec = simulate.RunSpec(format=form, events=2, detectors=detectors, smalldata=None)
    run = psana_dask.open(simulate.write(spec, tmp_path).folder)
    field = next(f for f in run[kind[0]].fields if run[kind[0]][f].dtype.kind == "f")
    sizes = {}
    with Stream(Endless(run, total), waiting=2000) as stream:
        for so_far in stream.reduce("count", f"{kind[0]}.{field}", batch=1000, every=0.2):
            last = int(so_far)
            sizes[stream.counters.processed] = resident()
        assert stream.counters.processed == stream.counters.received == total
    assert last == total
    early = max(size for events, size in sizes.items() if events <= total // 2)
    assert max(sizes.values()) - early < 16 * 2**20, sizes  # a memory of datagrams is 20,000 events

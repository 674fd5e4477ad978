"""Streams on one machine: ZMQ, shared memory and a live file; frames are calibrated and summed.

    python benchmarks/bench_stream.py [--rounds N] [--events N] [--times N] [--seconds S] [--only WAY]
    python benchmarks/bench_stream.py --quick

One process sends frames of 2.3 million pixels (an ePix10ka2M: 16 panels of 352 x 384, 4.3 MB), this
one receives. "copy" is `np.copyto` of the same bytes, in this process. Cases: taking the batches; reading
the frames; the running sum of raw frames, and of calibrated ones without and with common mode (that one also
by two workers of a Dask client). First events are offered as fast as they are taken: where each way
saturates. Then 120 a second are offered for some seconds, and what became of them is counted: processed,
dropped by the server, and lost in between. The live file lies in memory (``/dev/shm``) where there is one:
the disk is not what is measured. Two workers have had one stream before: the first one of new workers, which
also pays for memory that nobody touched before, is said by itself. The load of the machine is printed with
every figure. ``--quick`` is one short round of the cases that can lose events: it shows that all of it works.
"""

import argparse
import contextlib
import functools
import math
import os
import subprocess
import sys
import tempfile
import time
import uuid
import warnings

import numpy as np

import psana_dask
from psana_dask import simulate
from psana_dask.errors import StreamWarning
from psana_dask.simulate import Detector, RunSpec
from psana_dask.stream import open_stream

RATE = 120.0

SERVE = """
import os, struct, sys, time
import psana_dask
from psana_dask.model import Service
from psana_dask.stream.replay import moments
run = psana_dask.open(sys.argv[1])
ready = list(moments(run._recording))  # from memory: the disk is not what is measured
where, times, rate = sys.argv[2], int(sys.argv[3]), float(sys.argv[4]) or None
first = [k for k, m in enumerate(ready) if m.service == Service.L1_ACCEPT]
events = [bytearray(ready[k].dgrams[0].data) for k in first]
low, high = struct.unpack_from("<II", events[0])

def at(data, clock):
    clock += high * 10**9 + low
    struct.pack_into("<II", data, 0, clock % 10**9, clock // 10**9)
    return data

def one_run(recording=None):  # of many events: the same frames again and again, with the times of 120 Hz
    yield from ready[: first[0]]
    for sent in range(times * len(events)):
        moment = ready[first[sent % len(events)]]
        data = at(events[sent % len(events)], sent * 8_333_333)
        yield moment._replace(dgrams=[moment.dgrams[0]._replace(data=data)])
    for number, moment in enumerate(ready[first[-1] + 1 :]):
        data = at(bytearray(moment.dgrams[0].data), times * len(events) * 8_333_333 + number * 10**6)
        yield moment._replace(dgrams=[moment.dgrams[0]._replace(data=data)])

def is_event(moment):
    return int(moment.service == Service.L1_ACCEPT)

if where.startswith("tcp"):
    from psana_dask.stream.sending import Sender, serve
    with Sender(where, run.format) as sender:
        serve(sender, one_run(), rate)
        sender.end()
        print(sender.sent.events, 0)
elif where.startswith("live:"):
    from psana_dask.stream.sending import paced
    path = where.removeprefix("live:") + "/tstx00117-r0001-s000-c000.xtc2"
    with open(path + ".inprogress", "wb", buffering=0) as file:
        for moment in paced(one_run(), rate, is_event):
            file.write(moment.dgrams[0].data)
    os.rename(path + ".inprogress", path)
    print(times * len(events), 0)
else:
    import psana_dask.stream.shmem_server as server
    server.moments = one_run
    served = server.serve_run(where, run._recording, rate, wait_clients=int(sys.argv[5]))
    print(served.events, served.dropped + served.taken_back)
"""


def frames_run(folder, events):
    detector = Detector(name="epix", kind="epix10ka", segments=16, shape=(352, 384))
    return simulate.write(RunSpec(events=events, detectors=(detector,), smalldata=False), folder).folder


@functools.cache
def constants():
    rng = np.random.default_rng(0)
    shape = (7, 16, 352, 384)
    return {
        "pedestals": rng.normal(1000, 3, shape).astype(np.float32),
        "pixel_gain": rng.normal(16, 0.1, shape).astype(np.float32),
    }


COMMON = {"common_mode": (7, 2, 100, 10)}
"""Rows, columns and banks of an ePix."""


def taken(stream):
    return sum(len(run) for run in stream.follow_runs(timeout=2))


def read(stream):
    return sum(len(run.epix.raw.values) for run in stream.follow_runs(timeout=2))


def summed(name, **calibration):
    def case(stream):
        choices = {"calibration": calibration or None, "every": 1e9, "timeout": 2}
        *_, _last = stream.reduce("sum", name, **choices)
        return stream.counters.processed

    return case


CASES = {
    "take batches": taken,
    "read frames": read,
    "sum raw": summed("epix.raw"),
    "calibrate and sum": summed("epix.calib", common_mode=None),
    "with common mode": summed("epix.calib", **COMMON),
}


class Clock:
    """Notes when the last batch of a stream was done, and the processor time it took."""

    def __init__(self, stream):
        self.start = self.last = (time.perf_counter(), time.process_time())
        self.events, self._follow = 0, stream.follow_runs
        stream.follow_runs = self.follow_runs

    def follow_runs(self, **choices):
        for run in self._follow(**choices):
            yield run
            self.events += len(run)
            self.last = (time.perf_counter(), time.process_time())

    def figures(self):
        """Events a second, and events per second of processor time."""
        wall, busy = (b - a for a, b in zip(self.start, self.last, strict=True))
        return self.events / wall, self.events / busy


class Served:
    """A process that sends; `told` is what it says at the end: events, and those that nobody took."""

    def __init__(self, folder, way, times, rate=0.0, clients=1):
        self._folder = tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
        name = {
            "tcp": f"tcp://127.0.0.1:{5600 + 2 * (time.monotonic_ns() % 500)}",
            "shmem": f"shmem://bench_{uuid.uuid4().hex[:8]}",
            "live": f"live:{self._folder.name}",
        }
        self.url = name[way]
        arguments = [self.url.removeprefix("shmem://"), str(times), str(rate), str(clients)]
        command = [sys.executable, "-c", SERVE, str(folder), *arguments]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def __enter__(self):
        if self.url.startswith("live:"):  # a run that has not begun is waited for 10 s only
            while not os.listdir(self._folder.name):
                time.sleep(0.01)
        return self

    def __exit__(self, *error):
        said = self._process.communicate(timeout=120)[0].split()
        self.told = tuple(map(int, said)) or (0, 0)
        self._folder.cleanup()


def measure(folder, way, case, times, rate=0.0):
    """Return events a second, events per second of processor time, those sent, dropped and processed."""
    with Served(folder, way, times, rate) as served, warnings.catch_warnings():
        warnings.simplefilter("ignore", StreamWarning)  # shared memory has no end
        with open_stream(served.url, calib=constants(), timeout=60) as stream:
            clock = Clock(stream)
            case(stream)
            figures, processed = clock.figures(), stream.counters.processed
    return (*figures, *served.told, processed)


@contextlib.contextmanager
def two_workers():
    """Start two workers of one thread each."""
    with psana_dask.cluster.local(workers=2, threads=1, dashboard=":0") as client:
        yield client


def measure_two(client, folder, way, times, rate=0.0):
    """Return the same of two workers that share the events, with common mode."""
    with Served(folder, way, times, rate, 2) as served, warnings.catch_warnings():
        warnings.simplefilter("ignore", StreamWarning)
        choices = {"client": client, "readers": 2}
        with open_stream(served.url, calib=constants(), timeout=60, **choices) as stream:
            start = time.perf_counter()
            results = stream.reduce("sum", "epix.calib", calibration=COMMON, every=0.5, timeout=3)
            seen = [(time.perf_counter() - start, stream.counters.processed) for _ in results]
            processed = seen[-1][1]
            last = next(t for t, n in seen if n == processed)
            begin = next((t, n) for t, n in seen if n)
            wall = (processed - begin[1]) / max(1e-3, last - begin[0])
    return (wall, np.nan, *served.told, processed)


def load():
    """Return what else the machine does: the number of processes that want to run, of the last minute."""
    return f"load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""


def report(way, case, figures, nbytes):
    rate, busy, *_ = np.median(figures, axis=0)
    print(
        f"{way:6} {case:30} saturates at {rate:5.0f} Hz {rate * nbytes / 1e9:5.2f} GB/s   per second of "
        f"processor {busy:6.0f} events   {load()}",
        flush=True,
    )


def report_rate(way, case, figures):
    _rate, _, given, dropped, processed = figures
    print(
        f"{way:6} {case:30} {RATE:.0f} Hz offered: {processed:.0f} of {given + dropped:.0f} processed, "
        f"{dropped:.0f} dropped by the server, {given - processed:.0f} lost behind it   {load()}",
        flush=True,
    )


def saturated(folder, ways, given, nbytes):
    for way in ways:
        for name, case in CASES.items():
            figures = [measure(folder, way, case, given.times) for _ in range(given.rounds)]
            report(way, name, figures, nbytes)
        if way != "tcp":
            with two_workers() as client:
                measure_two(client, folder, way, given.times)  # does not count
                figures = [measure_two(client, folder, way, given.times) for _ in range(given.rounds)]
                report(way, "with common mode, two workers", figures, nbytes)


def at_rate(folder, ways, given):
    times = math.ceil(given.seconds * RATE / given.events)
    for way in ways:
        for _ in range(given.rounds):
            name = "calibrate and sum"
            report_rate(way, name, measure(folder, way, CASES[name], times, RATE))
    if ways == ["tcp"]:
        return
    with two_workers() as client:
        for way in [w for w in ways if w != "tcp"]:
            if not given.quick:
                figures = measure_two(client, folder, way, times, RATE)
                report_rate(way, "first stream of two new workers", figures)
            for _ in range(given.rounds):
                figures = measure_two(client, folder, way, times, RATE)
                report_rate(way, "with common mode, two workers", figures)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--events", type=int, default=24)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--only", choices=["tcp", "shmem", "live"])
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    if given.quick:
        given.events, given.rounds, given.seconds = 12, 1, 0.5
    there = ("tcp", "live", "shmem") if sys.platform == "linux" else ("tcp", "live")
    ways = [way for way in there if given.only in (None, way)]
    with tempfile.TemporaryDirectory() as folder:
        frames_run(folder, given.events)
        frame = psana_dask.open(folder).epix.raw.isel(time=0).values
        out = np.empty_like(frame)
        start = time.perf_counter()
        for _ in range(50):
            np.copyto(out, frame)
        copy = (time.perf_counter() - start) / 50
        print(f"frame {frame.nbytes / 1e6:.1f} MB, copy {copy * 1e3:.2f} ms")
        if not given.quick:
            saturated(folder, ways, given, frame.nbytes)
        at_rate(folder, ways, given)


if __name__ == "__main__":
    main()

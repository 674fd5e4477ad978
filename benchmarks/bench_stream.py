"""Streams on one machine: ZMQ, shared memory and a live file; frames are calibrated and summed.

    python benchmarks/bench_stream.py [--rounds N] [--events N] [--times N] [--only WAY]

One process sends frames of 2.3 million pixels (an ePix10ka2M: 16 panels of 352 x 384, 4.3 MB), this
one receives. "copy" is `np.copyto` of the same bytes, in this process. Cases: taking the batches; reading
the frames; the running sum of raw frames, and of calibrated ones without and with common mode (that one also
by two workers of a Dask client). First events are offered as fast as they are taken: where each way
saturates. Then 120 a second are offered for some seconds, and what became of them is counted. The live file
lies in memory (``/dev/shm``) where there is one: the disk is not what is measured.
"""

import argparse
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
if where.startswith("tcp"):
    from psana_dask.stream.sending import Sender, repeated, serve
    with Sender(where, run.format) as sender:
        serve(sender, repeated(lambda: ready, times), rate)
        sender.end()
        print(sender.sent.events, 0)
elif where.startswith("live:"):
    first = [k for k, m in enumerate(ready) if m.service == Service.L1_ACCEPT]
    before, after = ready[: first[0]], ready[first[-1] + 1 :]
    events = [bytearray(ready[k].dgrams[0].data) for k in first]
    path = where.removeprefix("live:") + "/tstx00117-r0001-s000-c000.xtc2"
    low, high = struct.unpack_from("<II", events[0])
    start, sent = high * 10**9 + low, 0
    with open(path + ".inprogress", "wb", buffering=0) as file:
        for moment in before:
            file.write(moment.dgrams[0].data)
        begin = time.monotonic()
        for _ in range(times):
            for data in events:
                clock = start + sent * 8_333_333
                struct.pack_into("<II", data, 0, clock % 10**9, clock // 10**9)
                if rate:
                    time.sleep(max(0.0, begin + sent / rate - time.monotonic()))
                file.write(data)
                sent += 1
        clock = start + sent * 8_333_333
        for moment in after:
            data = bytearray(moment.dgrams[0].data)
            clock += 10**6
            struct.pack_into("<II", data, 0, clock % 10**9, clock // 10**9)
            file.write(data)
    os.rename(path + ".inprogress", path)
    print(sent, 0)
else:
    import psana_dask.stream.shmem_server as server
    server.moments = lambda recording: ready
    repeat = server.repeated
    server.repeated = lambda make, _: repeat(make, times)
    def slow_first(things, rate, count):  # 24 events at 8 Hz: kernels and constants are loaded meanwhile
        begin, given = time.monotonic(), 0
        for thing in things:
            due = given / 8 if given < 24 else 3 + (given - 24) / rate
            time.sleep(max(0.0, begin + due - time.monotonic()))
            yield thing
            given += count(thing)
    server.paced = slow_first if rate else server.paced
    served = server.serve_run(where, run._recording, rate, wait=2.0, buffers=8, wait_clients=int(sys.argv[5]))
    print(served.events, served.dropped + served.taken_back)
"""


def frames_run(folder, events):
    detector = Detector(name="epix", kind="epix10ka", segments=16, shape=(352, 384))
    return simulate.write(RunSpec(events=events, detectors=(detector,), smalldata=False), folder).folder


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
    """Return events a second, events per second of processor time, those sent and those processed."""
    with Served(folder, way, times, rate) as served, warnings.catch_warnings():
        warnings.simplefilter("ignore", StreamWarning)  # shared memory has no end
        with open_stream(served.url, calib=constants(), timeout=60, waiting=32) as stream:
            _ = stream.latest.epix.raw
            clock = Clock(stream)
            case(stream)
            figures, processed = clock.figures(), stream.counters.processed
    return (*figures, *served.told, processed)


def measure_two(folder, times, rate=0.0):
    """Return the same of two workers that share the shared memory of this machine."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
        Served(folder, "shmem", times, rate, 2) as served,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", StreamWarning)
        choices = {"client": client, "readers": 2}
        with open_stream(served.url, calib=constants(), timeout=60, waiting=32, **choices) as stream:
            start = time.perf_counter()
            results = stream.reduce("sum", "epix.calib", calibration=COMMON, every=0.5, timeout=3)
            seen = [(time.perf_counter() - start, stream.counters.processed) for _ in results]
            processed = seen[-1][1]
            last = next(t for t, n in seen if n == processed)
            begin = next((t, n) for t, n in seen if n)
            wall = (processed - begin[1]) / max(1e-3, last - begin[0])
    return (wall, np.nan, *served.told, processed)


def report(way, case, figures, nbytes):
    rate, busy, *_ = np.median(figures, axis=0)
    print(
        f"{way:6} {case:28} saturates at {rate:6.0f} Hz {rate * nbytes / 1e9:5.2f} GB/s   per second of "
        f"processor {busy:6.0f} events",
        flush=True,
    )


def report_rate(way, case, figures):
    _rate, _, sent, lost, processed = figures
    print(
        f"{way:6} {case:28} {RATE:.0f} Hz offered: {processed:.0f} of {sent:.0f} events processed, "
        f"{lost:.0f} dropped by the server",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--events", type=int, default=24)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--only", choices=["tcp", "shmem", "live"])
    given = parser.parse_args()
    ways = ["tcp", "live"] + (["shmem"] if sys.platform == "linux" else [])
    with tempfile.TemporaryDirectory() as folder:
        frames_run(folder, given.events)
        frame = psana_dask.open(folder).epix.raw.isel(time=0).values
        out = np.empty_like(frame)
        start = time.perf_counter()
        for _ in range(50):
            np.copyto(out, frame)
        copy = (time.perf_counter() - start) / 50
        print(f"frame {frame.nbytes / 1e6:.1f} MB, copy {copy * 1e3:.2f} ms")
        for way in [w for w in ways if given.only in (None, w)]:
            for name, case in CASES.items():
                figures = [measure(folder, way, case, given.times) for _ in range(given.rounds)]
                report(way, name, figures, frame.nbytes)
            report_rate(
                way, "calibrate and sum", measure(folder, way, CASES["calibrate and sum"], given.times, RATE)
            )
            if way == "shmem":
                figures = [measure_two(folder, given.times) for _ in range(given.rounds)]
                report(way, "with common mode, two workers", figures, frame.nbytes)
                report_rate(way, "with common mode, two workers", measure_two(folder, given.times, RATE))


if __name__ == "__main__":
    main()

"""Streams on one machine: how much goes through ZMQ, and how fast frames are calibrated and summed.

    python benchmarks/bench_stream.py [--rounds N] [--events N]

One process sends frames of 2.3 million pixels (an ePix10ka2M: 16 panels of 352 x 384, 4.3 MB), this one
receives. "copy" is `np.copyto` of the same bytes, in this process. Cases: taking the batches; reading the
frames; the running sum of raw frames, and of calibrated ones without and with common mode. The same from
shared memory (Linux), where the server drops what is not taken; events are offered as fast as they go.
"""

import argparse
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

SERVE = """
import sys
import psana_dask
from psana_dask.stream.replay import moments
run = psana_dask.open(sys.argv[1])
ready = list(moments(run._recording))  # from memory: the disk is not what is measured
times = int(sys.argv[3])
if sys.argv[2].startswith("tcp"):
    from psana_dask.stream.sending import Sender, repeated, serve
    with Sender(sys.argv[2], run.format) as sender:
        serve(sender, repeated(lambda: ready, times))
        sender.end()
else:
    import psana_dask.stream.shmem_server as server
    server.moments = lambda recording: ready
    repeat = server.repeated
    server.repeated = lambda make, _: repeat(make, times)
    server.serve_run(sys.argv[2], run._recording, wait=1.0, buffers=8)
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
    "the same with common mode": summed("epix.calib"),
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


def measure(folder, url, case, times):
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(folder), url.removeprefix("shmem://"), str(times)]
    )
    try:
        with open_stream(url, calib=constants(), timeout=60, waiting=16) as stream:
            _ = stream.latest  # kernels are loaded, constants are found
            clock = Clock(stream)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", StreamWarning)  # shared memory has no end
                CASES[case](stream)
            return clock.figures()
    finally:
        process.wait(timeout=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--events", type=int, default=24)
    parser.add_argument("--times", type=int, default=10)
    given = parser.parse_args()
    ways = ["tcp"] + (["shmem"] if sys.platform == "linux" else [])
    with tempfile.TemporaryDirectory() as folder:
        frames_run(folder, given.events)
        frame = psana_dask.open(folder).epix.raw.isel(time=0).values
        out = np.empty_like(frame)
        start = time.perf_counter()
        for _ in range(50):
            np.copyto(out, frame)
        copy = (time.perf_counter() - start) / 50
        print(f"frame {frame.nbytes / 1e6:.1f} MB, copy {copy * 1e3:.2f} ms")
        for way in ways:
            for case in CASES:
                figures = []
                for k in range(given.rounds):
                    port = 5600 + 2 * k
                    url = (
                        f"tcp://127.0.0.1:{port}" if way == "tcp" else f"shmem://bench_{uuid.uuid4().hex[:8]}"
                    )
                    figures.append(measure(folder, url, case, given.times))
                rate, busy = np.median(figures, axis=0)
                print(
                    f"{way:6} {case:26} {rate:6.0f} Hz {rate * frame.nbytes / 1e9:5.2f} GB/s   per second "
                    f"of processor {busy:6.0f} events {busy * frame.nbytes / 1e9:5.2f} GB"
                )


if __name__ == "__main__":
    main()

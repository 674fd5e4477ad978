"""LCLS-1 runs as users read them: opening, columns of 1e6 events, stacks of CSPAD frames.

    python benchmarks/bench_xtc1_columns.py [--rounds N] [--events N] [--frames N]

Runs are simulated (`simulate.write_many`, `simulate.repeat`) in a temporary folder.  The stack is read beside
a bare ``preadv`` loop over the same bytes into the same array, page cache warm.  Required (medians, imports
and compiling not counted): EBeam and event-code columns of 1e6 events 1.5 s, opening 0.05 s, the stack 0.9.
"""

import argparse
import os
import tempfile
import time

import numpy as np

import psana_dask
from psana_dask import simulate
from psana_dask.simulate import Daq, Detector, RunSpec


def timed(call, rounds):
    """Return the median seconds of `call`, after one call that compiles and imports."""
    call()
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def show(what, seconds, required):
    print(f"{what:44} {seconds:8.3f} s   required {required} s", flush=True)


def columns(folder, events, rounds):
    """Time what needs every event of a long run."""
    start = time.perf_counter()
    simulate.write_many(folder, events=events, format="xtc")
    print(f"{events:,} events of 1 kB written in {time.perf_counter() - start:.1f} s")
    run = psana_dask.open(folder)

    def opened():
        psana_dask.recording.forget_all()
        return psana_dask.open(folder)

    def codes():
        run._recording.__dict__.get("_memory", {}).pop(("event_codes", False, False), None)
        return run.evr.has(90, -162).mask(run._view)

    show("open, index cached", timed(opened, rounds), 0.05)
    show("ebeam.photon_energy", timed(lambda: run["ebeam", "photon_energy"].values, rounds), 1.5)
    show("event codes: has(90, -162)", timed(codes, rounds), 1.5)
    show("event codes: dense (event, 256)", timed(lambda: run.evr.codes, rounds), 1.5)


def stacks(folder, frames, rounds):
    """Compare stacks of CSPAD frames with a bare read."""
    cspad = Detector(name="cspad", kind="cspad")
    spec = RunSpec(format="xtc", events=4, detectors=(cspad,), daq=Daq(index=False), smalldata=None)
    simulate.repeat(spec, folder, frames)
    run = psana_dask.open(folder)
    recording = run._recording
    reader = run._view.target(run._view.entries["cspad"].channels["raw"]).reader()
    chosen, panels = np.arange(frames), np.arange(32)
    offsets = recording.streams[0]["offset"][recording.events.rows[0]].tolist()
    out = np.empty((frames, 32, 185, 388), np.int16)
    flat = out.reshape(frames, -1).view(np.uint8)
    ratios = []
    with open(recording.streams[0].parts[0], "rb") as file:
        for _ in range(rounds + 1):
            start = time.perf_counter()
            for row, offset in zip(flat, offsets, strict=True):
                os.preadv(file.fileno(), [row.data], offset + 100)
            middle = time.perf_counter()
            reader.read_into(chosen, panels, slice(None), out)
            ratios.append((middle - start) / (time.perf_counter() - middle))
    print(f"stack of {frames} CSPAD frames: {np.median(ratios[1:]):.2f} of a bare preadv, required 0.9")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--frames", type=int, default=64)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        columns(os.path.join(folder, "many"), given.events, given.rounds)
        stacks(os.path.join(folder, "cspad"), given.frames, given.rounds)


if __name__ == "__main__":
    main()

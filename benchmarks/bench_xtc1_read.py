"""Reading of LCLS-1 runs: columns of a million small events, a stack of CSPAD frames beside a bare read.

    python benchmarks/bench_xtc1_read.py [--events N] [--frames N] [--rounds N]

Columns: wall and CPU seconds of one value of EBeam and of the event codes, without Dask; the run is
indexed and in the page cache.  Required: 1.5 s each for 1e6 events.  Stack: all panels of
the frames into one reused array, and the same bytes by one ``preadv`` for each frame; the
median of the ratios of interleaved rounds.  Required: 0.9.
"""

import argparse
import os
import tempfile
import time
import warnings

import numpy as np

import psana_dask
from psana_dask import simulate
from psana_dask.recording import forget_all
from psana_dask.simulate import Daq, Detector, RunSpec
from psana_dask.simulate.large import repeat


def timed(work):
    """(wall, CPU) seconds of a call."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def columns(folder, events):
    simulate.write_many(folder, format="xtc", events=events, size=600, daq=Daq(streams=2), smalldata=None)
    rows = [("index and open", *timed(lambda: psana_dask.open_run(folder)))]
    forget_all()
    rows.append(("open, index cached", *timed(lambda: psana_dask.open_run(folder))))
    run = psana_dask.open_run(folder)
    for title, detector, field in (
        ("EBeam value, first", "ebeam", "photon_energy"),
        ("EBeam value, next", "ebeam", "charge"),
        ("event codes", "timing", "event_codes"),
    ):
        rows.append((title, *timed(lambda d=detector, f=field: run[d].field(f, chunks=None).load())))
    rows.append(("evr.codes", *timed(lambda: run.evr.codes)))
    return rows


def stack(folder, frames, rounds):
    detectors = (Detector(name="cspad", kind="cspad"), Detector(name="evr0", kind="timing"))
    spec = RunSpec(format="xtc", events=4, detectors=detectors, smalldata=None)
    repeat(spec, folder, frames)
    run = psana_dask.open_run(folder)
    reader = run._view.target(run.cspad._entry.channels["raw"]).reader()
    out = np.empty((frames, 32, 185, 388), np.int16)
    flat, size = memoryview(out.reshape(-1).view(np.uint8)), out[0].nbytes
    recording = run._recording
    offsets = recording.streams[0]["offset"][recording.events.rows[0]].tolist()
    descriptor = os.open(run.files[0], os.O_RDONLY)

    def bare():
        for k, offset in enumerate(offsets):
            os.preadv(descriptor, [flat[k * size : (k + 1) * size]], offset + 200)

    def ours():
        reader.read_into(np.arange(frames), np.arange(32), slice(0, 185), out)

    bare(), ours()
    ratios = [timed(bare)[0] / timed(ours)[0] for _ in range(rounds)]
    os.close(descriptor)
    return float(np.median(ratios))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=9)
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        for title, wall, cpu in columns(os.path.join(folder, "many"), chosen.events):
            print(f"{title:22} {wall:8.3f} s wall {cpu:8.3f} s CPU")
        ratio = stack(os.path.join(folder, "cspad"), chosen.frames, chosen.rounds)
        print(f"CSPAD stack            {ratio:8.2f} of a bare preadv loop")


if __name__ == "__main__":
    main()

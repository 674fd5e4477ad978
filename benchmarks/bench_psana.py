"""Events per second of loops through psana's face, beside `run.loop`: python benchmarks/bench_psana.py."""

import tempfile
import time

import numpy as np

import psana_dask
from psana_dask import simulate
from psana_dask.psana import DataSource, Detector, EventId

EVENTS, JUMPS = 20_000, 2000


def spec(form):
    frames = simulate.Detector(name="cam", kind="camera", shape=(64, 64))
    more = ("ebeam", "timing") if form == "xtc" else ("gmd", "timing")
    others = tuple(simulate.Detector(name=kind, kind=kind) for kind in more)
    return simulate.RunSpec(format=form, events=EVENTS, detectors=(frames, *others))


def measure(name, loop):
    loop()  # indexes, kernels, page cache
    began = time.perf_counter()
    events = loop()
    took = time.perf_counter() - began
    print(f"{name:44} {events / took:10,.0f} events/s {1e6 * took / events:9.1f} us")


def over(ds, *calls):
    def loop():
        count = 0
        for evt in ds.events():
            for call in calls:
                call(evt)
            count += 1
        return count

    return loop


def native(run):
    return lambda: sum(event["cam.raw"] is not None for event in run.loop("cam.raw"))


def jumps(run, det):
    times = run.times()
    chosen = np.random.default_rng(1).permutation(len(times))[:JUMPS].tolist()
    return lambda: len([det.raw(run.event(times[k])) for k in chosen])


def main():
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        simulate.write(spec("xtc"), first)
        simulate.write(spec("xtc2"), second)
        ds = DataSource(first)
        cam, evr, ebeam = Detector("cam"), Detector("timing"), Detector("EBeam")
        measure("nothing", over(ds))
        measure("EventId.time()", over(ds, lambda evt: evt.get(EventId).time()))
        measure("Detector.raw, 64 x 64", over(ds, cam.raw))
        measure("run.loop of psana_dask, the same", native(psana_dask.open(first)))
        measure("eventCodes", over(ds, evr.eventCodes))
        measure("EBeam.get, one accessor", over(ds, lambda evt: ebeam.get(evt).ebeamPhotonEnergy()))
        measure("run.event(t) in random order, and a frame", jumps(next(ds.runs()), cam))
        ds = DataSource(files=second)
        run = next(ds.runs())
        frames, gmd, timing = run.Detector("cam").raw, run.Detector("gmd").raw, run.Detector("timing").raw
        calls = frames.raw, gmd.milliJoulesPerPulse, timing.eventcodes
        measure("psana2: frame, scalar, event codes", over(ds, *calls))


if __name__ == "__main__":
    main()

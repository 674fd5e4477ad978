"""Assembly of a Jungfrau 4M: ours, EXtra-geom's `position_modules(out=)` and a copy of the image.

    python benchmarks/bench_assembly.py [--rounds N] [--frames N]

All cases of a geometry run in turn within each round; printed are medians and the median of
the ratios to the copy of the same round.  The EXtra-geom object has the same pixel positions
(it comes from our own CrystFEL file), so both place the same 4 million pixels.

Then a whole run of --frames frames, one thread: read + calibrate + sum, and the same with the sum
assembled once at the end (``run.sum("jungfrau.image")``), next to a bare read of the same bytes.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np

from psana_dask.geometry.assembly import apply, panels_of, prepare
from psana_dask.geometry.defaults import default_geometry
from psana_dask.geometry.model import Geometry, Part

# columns and rows of the 8 modules, um; measured tilts of a real detector are of this size
PLACES = [(x, y) for y in (-60000, -21000, 21000, 60000) for x in (-39500, 39500)]
TILTS = (-0.10, 0.27, -0.04, -0.35, 0.17, -0.06, 0.20, 0.09)


STACK = 8
STACKED = "apply float32, per frame of 8"


def jungfrau(turned):
    """A Jungfrau 4M whose panels lie along the image rows, or are turned by 90 degrees."""
    angle = 90.0 if turned else 0.0
    parts = [
        Part("CAMERA", 0, "JUNGFRAU:V1", k, (x, y, 0.0), (180.0 * (k % 2), 0.0, 0.0), (tilt, 0.0, 0.0))
        for k, ((x, y), tilt) in enumerate(zip(PLACES, TILTS, strict=True))
    ]
    # the psana image has x down: the frame as a whole is turned by 90 for panels along its rows
    return Geometry((*parts, Part("IP", 0, "CAMERA", 0, (0.0, 0.0, -1e5), (90.0 - angle, 0.0, 0.0))))


def measured(cases, rounds):
    """Seconds of each case in each round, (round, case)."""
    times = np.empty((rounds, len(cases)))
    for call in cases.values():
        call()
    for row in times:
        for k, call in enumerate(cases.values()):
            start = time.perf_counter()
            call()
            row[k] = time.perf_counter() - start
    return times


def medians(cases, rounds):
    times = measured(cases, rounds)
    times[:, list(cases).index(STACKED)] /= STACK
    return np.median(times, axis=0) * 1e3, np.median(times / times[:, :1], axis=0)


def extra_geom_case(geometry, frame):
    """Return a call of EXtra-geom on the same pixels, or None where it is not installed."""
    try:
        from extra_geom import JUNGFRAUGeometry
    except ImportError:
        return None
    from psana_dask.geometry.convert.crystfel import write_crystfel

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "jungfrau.geom")
        path.write_text(write_crystfel(geometry))
        detector = JUNGFRAUGeometry.from_crystfel_geom(str(path))
    stack = frame[None]
    out = detector.output_array_for_position(extra_shape=(1,), dtype=np.float32)
    return lambda: detector.position_modules(stack, out=out)


def cases_of(geometry):
    rng = np.random.default_rng(1)
    frame = rng.random(geometry.shape, np.float32)
    raw = (frame * 16000).astype(np.uint16)
    tables = prepare(geometry)
    image, source = np.empty(tables.shape, np.float32), rng.random(tables.shape, np.float32)
    raw_image = np.empty(tables.shape, np.uint16)
    back = np.empty_like(frame)
    filled = prepare(geometry, overlap="mean", holes="nearest")
    stack, images = np.stack([frame] * STACK), np.empty((STACK, *tables.shape), np.float32)
    cases = {
        "copy of the image": lambda: np.copyto(image, source),
        "apply float32": lambda: apply(frame, tables, image),
        "apply float32, mean + nearest": lambda: apply(frame, filled, image),
        STACKED: lambda: apply(stack, tables, images),
        "apply uint16": lambda: apply(raw, tables, raw_image),
        "image to panels": lambda: panels_of(source, tables, back),
    }
    extra = extra_geom_case(geometry, frame)
    return cases | ({"EXtra-geom position_modules(out=)": extra} if extra else {}), tables


def written(folder, frames):
    """A Jungfrau run in `folder`, with constants of three gain ranges."""
    from psana_dask import simulate

    shape = (8, 512, 1024)
    rng = np.random.default_rng(1)
    simulate.write_large(folder, gigabytes=frames * 8.4e-3, shape=shape)
    pedestals = rng.normal(1000, 50, (3, *shape)).astype(np.float32)
    return {"pedestals": pedestals, "pixel_gain": rng.normal(40, 1, (3, *shape)).astype(np.float32)}


def bare_read(paths):
    """Read all bytes into one buffer, as much at a time as a frame has."""
    buffer = bytearray(1 << 23)
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def fused(rounds, frames):
    import dask

    import psana_dask

    with tempfile.TemporaryDirectory() as folder, dask.config.set(scheduler="single-threaded"):
        constants = written(folder, frames)
        os.environ["XDG_CACHE_HOME"] = folder
        with psana_dask.set_options(cache_dir=Path(folder, "cache"), read_threads=1):
            run = psana_dask.open(folder, calib=constants)
            how = {"calibration": {"common_mode": None}}
            source = np.ones(run.jungfrau.assembled().shape[1:], np.float32)
            switched = float((run.jungfrau.raw[0].values >> 14 != 0).mean())
            image = np.empty_like(source)
            cases = {
                "copy of the image": lambda: np.copyto(image, source),
                "bare read": lambda: bare_read(run.files),
                "read + calibrate + sum": lambda: run.sum("jungfrau.calib", **how),
                "read + calibrate + sum, assemble": lambda: run.sum("jungfrau.image", **how),
            }
            copy, read, *sums = measured(cases, rounds).T * 1e3
        count = len(run)
    print(f"a run of {count} frames, {switched:.2%} of the pixels switched, one thread; per frame")
    print(f"  copy of the image {np.median(copy):.2f} ms, bare read {np.median(read) / count:.2f} ms")
    for case, ms in zip(list(cases)[2:], sums, strict=True):
        more = np.median((ms - read) / count / copy)
        print(f"  {case:36s} {np.median(ms) / count:7.2f} ms  {more:6.2f} copies more than the read")
    share = np.median((sums[1] - sums[0]) / copy)
    print(f"  the assembly costs {share:.1f} copies of the image once, {share / count:.2f} per frame")


def main(rounds=21, frames=32):
    detectors = {
        "panels along the image rows": jungfrau(False),
        "panels turned by 90 degrees": jungfrau(True),
        "the facility's default Jungfrau 4M (turned)": default_geometry("jungfrau", panels=8),
    }
    for name, geometry in detectors.items():
        start = time.perf_counter()
        cases, tables = cases_of(geometry)
        prepared = time.perf_counter() - start
        milliseconds, ratios = medians(cases, rounds)
        print(f"{name}: image {tables.shape}, tables {tables.nbytes / 1e6:.1f} MB, set up {prepared:.1f} s")
        for case, ms, ratio in zip(cases, milliseconds, ratios, strict=True):
            print(f"  {case:36s} {ms:7.2f} ms  {ratio:6.2f} copies")
    fused(max(rounds // 4, 3), frames)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--frames", type=int, default=32)
    given = parser.parse_args()
    main(given.rounds, given.frames)

"""How fast pixels are calibrated, assembled and reduced on this machine.

"copy" is ``np.copyto`` of the detector's float32 frame (of the image for assembly); "bare read" is
``preadv`` of the same bytes into one frame that is used again, page cache warm.  One thread
unless said; its own CPU time is what counts, so what other programs take does not.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psana_dask import cluster
from psana_dask.calib.apply import apply, prepare
from psana_dask.calib.detectors import detector
from psana_dask.geometry import assembly
from psana_dask.geometry.defaults import default_geometry
from psana_dask.opening import open_run
from psana_dask.reductions import calls, tasks
from psana_dask.reductions.leaves import LEAF
from psana_dask.reductions.quantities import quantities
from psana_dask.run import Run
from psana_dask.simulate import write_large

Figure = tuple[str, float, str]
Case = Callable[[], Any]
EXACT = {"common_mode": None}


def figures(folder: Path, *, small: bool, rounds: int) -> list[Figure]:
    """Return (what, value, note) of every row about pixels."""
    shape = (2 if small else 8, 512, 1024)
    constants = _constants(shape)
    rows = _calibration(shape, constants, rounds) + _assembly(shape[1:], rounds)
    large = write_large(folder, gigabytes=0.07 if small else 4.0, shape=shape, smalldata=None)
    rows += _processes(folder, rounds)
    return rows + _reductions(folder, str(large.files[0]), constants, rounds)


def _constants(shape: tuple[int, ...]) -> dict[str, NDArray[Any]]:
    r = np.random.default_rng(1)
    pedestals = np.stack([r.normal(level, 100, shape) for level in (2900, 13500, 13800)])
    gain = np.stack([r.normal(g, abs(g) * 0.03, shape) for g in (41.5, -1.44, -0.11)])
    return {"pedestals": pedestals.astype(np.float32), "pixel_gain": gain.astype(np.float32)}


def _timed(cases: Sequence[Case], rounds: int) -> NDArray[np.float64]:
    """Return CPU seconds of this thread, (case, round), side by side; the first round does not count."""
    times = np.empty((len(cases), rounds + 1))
    for k in range(rounds + 1):
        for number, case in enumerate(cases):
            began = time.thread_time()
            case()
            times[number, k] = time.thread_time() - began
    return times[:, 1:]


def _copies(size: int, count: int) -> Case:
    source, target = np.ones(size, np.float32), np.ones(size, np.float32)

    def copy() -> None:
        for _ in range(count):
            np.copyto(target, source)

    return copy


def _ratio(one: NDArray[np.float64], two: NDArray[np.float64]) -> float:
    return float(np.median(one / two))


# ---- in memory ----------------------------------------------------------------------------------
def _calibration(shape: tuple[int, ...], constants: dict[str, Any], rounds: int) -> list[Figure]:
    r = np.random.default_rng(2)
    raw = r.normal(2950, 15, (LEAF, *shape)).astype(np.uint16)
    raw[r.random(raw.shape) < 0.001] |= 1 << 14
    out = np.ones(raw.shape, np.float32)
    plain = prepare(constants, detector("Jungfrau"), common_mode=None)
    rows = prepare(constants, detector("Jungfrau"))
    number = iter(range(10**9))

    def one(tables: Any) -> Case:
        scratch = tables.scratch()

        def call() -> None:
            k = next(number) % LEAF
            apply(raw[k], tables, out[k], scratch)

        return call

    times = _timed(
        [_copies(raw[0].size, 1), one(plain), lambda: apply(raw, plain, out), one(rows)], rounds
    )
    note = f"Jungfrau {shape[0]} x 512 x 1024, 0.1 % switched"
    return [
        ("calibrate one frame (copies)", _ratio(times[1], times[0]), note),
        ("calibrate a stack (copies)", _ratio(times[2] / LEAF, times[0]), f"{note}, {LEAF} frames"),
        ("calibrate with common mode (copies)", _ratio(times[3], times[0]), f"{note}, rows of 64"),
    ]


def _assembly(panel: tuple[int, ...], rounds: int) -> list[Figure]:
    """Measure default geometries of Jungfraus: the panels of a 1M lie straight, a 4M's are turned."""
    rows: list[Figure] = []
    for count, how in ((2, ""), (8, ", panels turned by 90 degrees")):
        tables = assembly.prepare(default_geometry("jungfrau", panels=count))
        panels, out = np.ones((count, *panel), np.float32), np.empty(tables.shape, np.float32)
        times = _timed([_copies(out.size, 1), partial(assembly.apply, panels, tables, out)], rounds)
        note = "x".join(map(str, tables.shape))
        rows.append((f"assembly{how} (copies of the image)", _ratio(times[1], times[0]), note))
    return rows


# ---- from files ---------------------------------------------------------------------------------
def kernel(run: Run, which: str, name: str, calibration: dict[str, Any] | None = None) -> Case:
    """Return one task over all events of a run, as a worker does it, without Dask."""
    (quantity,), _ = quantities(run._view, name, calibration)
    events = calls.Events.of(run._view, None, None, None)
    job = calls.Job.of(quantity, (which,), events, None)
    piece, levels = tasks.Piece(job.events.bins[0]), 6
    return lambda: tasks.accumulate_piece(job.request.work, piece, levels)


def _reductions(folder: Path, path: str, constants: dict[str, Any], rounds: int) -> list[Figure]:
    run = open_run(folder, calib=constants).isel(slice(0, 4 * LEAF))
    reader = run.jungfrau._imaging.raw.frame_reader()
    places = reader.places(np.arange(len(run)))[2][:, 0].tolist()
    frame = np.empty(reader.panels.size * int(np.prod(reader.panel_shape)), np.uint16)
    sums, calibrated = kernel(run, "sum", "jungfrau.raw"), kernel(run, "sum", "jungfrau.calib", EXACT)
    copies = _copies(frame.size, len(run))
    rows: list[Figure] = []
    with open(path, "r+b", buffering=0) as file:
        def bare() -> None:
            for place in places:
                os.preadv(file.fileno(), [frame.data], place)

        for share, words in ((0.0, "single gain"), (0.001, "0.1 % switched"), (0.3, "30 % switched")):
            _switch(file, places, frame, share)
            times = _timed([bare, copies, sums, calibrated], rounds)
            more = float(np.median((times[3] - times[0]) / times[1]))
            if not share:
                rows.append(("read + sum (of the bare read's speed)", _ratio(times[0], times[2]), ""))
                hertz = len(run) / float(np.median(times[3])) * frame.size / 2.3e6
                rows.append(("read + calibrate + sum, 2.3 Mpixel (Hz)", hertz, "one thread, scaled"))
            what = f"read + calibrate + sum, {words} (bare read + copies)"
            rows.append((what, more, f"{len(run)} frames of {frame.nbytes / 1e6:.1f} MB"))
    return rows


def _switch(file: Any, places: list[int], frame: NDArray[np.uint16], share: float) -> None:
    """Give a share of the pixels another gain, in the file."""
    r = np.random.default_rng(3)
    for place in places:
        os.preadv(file.fileno(), [frame.data], place)
        frame &= 0x3FFF
        chosen = r.random(frame.size) < share
        frame[chosen] |= r.choice(np.array([1, 3], np.uint16), int(chosen.sum())) << 14
        file.seek(place)
        file.write(frame.tobytes())


# ---- two processes ------------------------------------------------------------------------------
def _alone(folder: str, first: int, last: int, ready: Any, go: Any, out: Any) -> None:
    """Run the kernel over a part of the events whenever told to, and say when it ran."""
    task = kernel(open_run(folder).isel(slice(first, last)), "sum", "jungfrau.raw")
    task()
    ready.release()
    while True:
        go.acquire()
        began = time.perf_counter()
        task()
        out.put((began, time.perf_counter()))


def _processes(folder: Path, rounds: int) -> list[Figure]:
    """Compare ``run.sum`` on two workers with two processes that run the kernel on a half each."""
    run = open_run(folder)
    context = multiprocessing.get_context("spawn")
    ready, go, out = context.Semaphore(0), context.Semaphore(0), context.Queue()
    half = len(run) // 2
    copies = [
        context.Process(target=_alone, args=(str(folder), a, b, ready, go, out), daemon=True)
        for a, b in ((0, half), (half, len(run)))
    ]
    for process in copies:
        process.start()
    for _ in copies:
        ready.acquire()
    ratios = []
    try:
        with cluster.local(workers=2, threads=1):
            run.sum("jungfrau.raw", progress=False)
            for _ in range(rounds):
                alone = _both(copies, go, out)
                began = time.perf_counter()
                run.sum("jungfrau.raw", progress=False)
                ratios.append(alone / (time.perf_counter() - began))
    finally:
        for process in copies:
            process.kill()
    note = f"run.sum of {len(run)} frames; copies of the kernel on half of them each"
    return [("two processes (of two copies of the kernel)", statistics.median(ratios), note)]


def _both(copies: Sequence[Any], go: Any, out: Any) -> float:
    for _ in copies:
        go.release()
    spans = [out.get() for _ in copies]
    return float(max(end for _, end in spans) - min(begin for begin, _ in spans))

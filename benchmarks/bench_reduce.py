"""Reductions next to a bare read of the same bytes, a copy of a frame, and other ways.

    python benchmarks/bench_reduce.py [--gigabytes 2] [--rounds 5] [--only task,processes,...] [--json]

The data are simulated Jungfrau 4M frames in the page cache.  All cases of a table are timed side
by side in every round, after one untimed round; figures are medians of the rounds' ratios.
"bare" is a loop of ``preadv`` into one reused frame, "copy" ``np.copyto`` of the float32 frame.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import dask
import numpy as np

import psana_dask
from psana_dask import simulate
from psana_dask.reductions import calls, compute, tasks
from psana_dask.reductions.quantities import quantities

SHAPE = (8, 512, 1024)
PIXELS = int(np.prod(SHAPE))
NO_COMMON_MODE = {"common_mode": None}


def constants() -> dict:
    r = np.random.default_rng(1)
    levels = (2900, 13500, 13800)
    peds = np.stack([r.normal(level, 100, SHAPE) for level in levels]).astype("f4")
    gains = np.stack([r.normal(g, abs(g) * 0.03, SHAPE) for g in (41.5, -1.44, -0.11)]).astype("f4")
    status = (r.random((3, *SHAPE)) < 0.003).astype("u8")
    return {"pedestals": peds, "pixel_gain": gains, "pixel_status": status}


def offsets(run: psana_dask.Run) -> tuple[int, list[int]]:
    reader = quantities(run._view, "jungfrau.raw")[0][0].target.reader()
    found = reader.places(np.arange(len(run)))[2][:, 0]
    return os.open(run.files[0], os.O_RDONLY), found.tolist()


def switch(path: str, places: list[int], share: float) -> None:
    """Set gain bits of a share of the pixels, in the file."""
    r = np.random.default_rng(3)
    with open(path, "r+b", buffering=0) as file:
        for place in places:
            frame = np.fromfile(path, "u2", PIXELS, offset=place) & 0x3FFF
            chosen = r.random(PIXELS) < share
            frame[chosen] |= r.choice(np.array([1, 3], "u2"), int(chosen.sum())) << 14
            file.seek(place)
            file.write(frame.tobytes())


def a_task(run: psana_dask.Run, which: str, name: str, **calibration: object) -> Callable[[], object]:
    """One task over all events, as a worker does it: read, decode, add; nothing of Dask."""
    (quantity,), _ = quantities(run._view, name, calibration or None)
    events = calls.Events.of(run._view, None, None, None)
    job = calls.Job.of(quantity, (which,), events, None)
    piece = tasks.Piece(job.events.bins[0])
    return lambda: tasks.accumulate_piece(job.request.work, piece, 6)


def rounds_of(
    cases: dict[str, Callable[[], object]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in cases}
    for k in range(rounds + 1):
        for name, case in cases.items():
            began = clock()
            case()
            if k:
                times[name].append(clock() - began)
    return times


def median_ratio(one: list[float], two: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(one, two, strict=True))


# ---- one task, one thread -----------------------------------------------------------------------
def bench_task(run: psana_dask.Run, rounds: int, share: str) -> list[dict]:
    run = run.isel(slice(0, 128))
    descriptor, places = offsets(run)
    frame, source, target = np.empty(2 * PIXELS, "u1"), np.ones(PIXELS, "f4"), np.ones(PIXELS, "f4")
    cases = {
        "bare": lambda: [os.preadv(descriptor, [frame], place) for place in places],
        "copy": lambda: [np.copyto(target, source) for _ in places],
        "read + sum of words": a_task(run, "sum", "jungfrau.raw"),
        "read + calibrate + sum": a_task(run, "sum", "jungfrau.calib", **NO_COMMON_MODE),
        "read + calibrate + mean and variance": a_task(run, "var", "jungfrau.calib", **NO_COMMON_MODE),
        "read + calibrate + max": a_task(run, "max", "jungfrau.calib", **NO_COMMON_MODE),
    }
    times = rounds_of(cases, rounds, time.thread_time)  # one thread: what others take does not count
    rows = []
    for name in list(cases)[2:]:
        extra = statistics.median(
            (t - b) / c for t, b, c in zip(times[name], times["bare"], times["copy"], strict=True)
        )
        rows.append({
            "table": "task", "case": f"{name}, {share} switched",
            "of the bare read's speed": round(1 / median_ratio(times[name], times["bare"]), 3),
            "bare read + copies": round(extra, 2),
            "ms per frame": round(statistics.median(times[name]) / len(places) * 1e3, 2),
        })  # fmt: skip
    return rows


# ---- two processes ------------------------------------------------------------------------------
def _kernel_copy(folder: str, first: int, last: int, ready: object, go: object, out: object) -> None:
    run = psana_dask.open(folder)
    task = a_task(run.isel(slice(first, last)), "sum", "jungfrau.raw")
    task()
    ready.release()
    while True:
        go.acquire()
        began = time.perf_counter()
        task()
        out.put((began, time.perf_counter()))


def bench_processes(folder: str, run: psana_dask.Run, rounds: int) -> list[dict]:
    """Compare ``run.sum`` on two workers with two processes that run the kernel on a half each."""
    import distributed

    ready, go, out = multiprocessing.Semaphore(0), multiprocessing.Semaphore(0), multiprocessing.Queue()
    half = len(run) // 2
    copies = [
        multiprocessing.Process(target=_kernel_copy, args=(folder, a, b, ready, go, out), daemon=True)
        for a, b in ((0, half), (half, len(run)))
    ]

    def independent() -> float:
        for _ in copies:
            go.release()
        spans = [out.get() for _ in copies]
        return max(b for _, b in spans) - min(a for a, _ in spans)

    [p.start() for p in copies]
    [ready.acquire() for _ in copies]
    ratios, overall = [], []
    with psana_dask.cluster.local(workers=2, threads_per_worker=1) as client:
        assert isinstance(client, distributed.Client)
        run.sum("jungfrau.raw")
        for _ in range(rounds):
            alone = independent()
            began = time.perf_counter()
            run.sum("jungfrau.raw")
            overall.append(alone / (time.perf_counter() - began))
            ratios.append(alone)
    [p.kill() for p in copies]
    return [{
        "table": "processes", "case": f"run.sum of {len(run)} frames on two workers",
        "of two copies of the kernel": round(statistics.median(overall), 3),
        "copies take s": round(statistics.median(ratios), 2),
    }]  # fmt: skip


# ---- a mean image, other ways -------------------------------------------------------------------
def psana_style(run: psana_dask.Run) -> np.ndarray:
    """One event after the other, one float array: what a script with psana does."""
    total = np.zeros(SHAPE)
    for event in run.loop("jungfrau.raw"):
        total += event["jungfrau.raw"]
    return total / len(run)


def plain_dask(run: psana_dask.Run) -> np.ndarray:
    return run.jungfrau.raw.mean("time").values


def ours(run: psana_dask.Run) -> np.ndarray:
    return run.mean("jungfrau.raw").values


def write_extra(folder: Path, run: psana_dask.Run) -> None:
    """Write the same frames in the layout of an EuXFEL run, for EXtra-data."""
    from extra_data.tests.mockdata import write_file
    from extra_data.tests.mockdata.jungfrau import JUNGFRAUModule

    folder.mkdir(exist_ok=True)
    import h5py

    trains = len(run)
    for module in range(SHAPE[0]):
        path = folder / f"RAW-R0001-JNGFR{module + 1:02}-S00000.h5"
        device = JUNGFRAUModule(f"SPB_IRDA_JF4M/DET/JNGFR{module + 1:02}")
        write_file(path, [device], trains, chunksize=32, format_version="1.2")
        with h5py.File(path, "r+") as file:
            name = f"INSTRUMENT/SPB_IRDA_JF4M/DET/JNGFR{module + 1:02}:daqOutput/data/adc"
            shape = (trains, 1, *SHAPE[1:])
            if file[name].shape != shape:
                attrs = dict(file[name].attrs)
                del file[name]
                file.create_dataset(name, shape, "u2", chunks=(1, 1, *SHAPE[1:]))
                file[name].attrs.update(attrs)
            for first in range(0, trains, 16):
                part = run.jungfrau.field("raw", chunks=None).isel(
                    time=slice(first, first + 16), panel=module
                )
                file[name][first : first + part.shape[0], 0] = part.values


def extra_data(folder: Path) -> Callable[[], np.ndarray]:
    from extra_data import RunDirectory

    opened = RunDirectory(str(folder))
    keys = [f"SPB_IRDA_JF4M/DET/JNGFR{m + 1:02}:daqOutput" for m in range(SHAPE[0])]
    arrays = [opened[key, "data.adc"] for key in keys]
    return lambda: np.stack(dask.compute(*[a.dask_array().mean(axis=0) for a in arrays]))


def bench_mean(run: psana_dask.Run, rounds: int, folder: Path) -> list[dict]:
    descriptor, places = offsets(run)
    frame = np.empty(2 * PIXELS, "u1")
    cases: dict[str, Callable[[], object]] = {
        "bare": lambda: [os.preadv(descriptor, [frame], place) for place in places],
        "run.mean": lambda: ours(run),
        "event loop, as with psana": lambda: psana_style(run),
        "plain dask: raw.mean('time')": lambda: plain_dask(run),
    }
    try:
        write_extra(folder / "extra", run)
        cases["EXtra-data, the same frames as HDF5"] = extra_data(folder / "extra")
    except ImportError as error:
        print(f"without EXtra-data: {error}", file=sys.stderr)
    reference = ours(run)
    for name, case in list(cases.items())[1:]:
        np.testing.assert_allclose(np.squeeze(case()), reference, rtol=1e-6, err_msg=name)
    times = rounds_of(cases, rounds)
    return [
        {
            "table": "mean", "case": f"{name}, {len(run) * 2 * PIXELS / 1e9:.1f} GB",
            "of the bare read's speed": round(1 / median_ratio(times[name], times["bare"]), 3),
            "run.mean is faster by": round(median_ratio(times[name], times["run.mean"]), 2),
            "s": round(statistics.median(times[name]), 2),
        }
        for name in list(cases)[1:]
    ]  # fmt: skip


# ---- overhead per task --------------------------------------------------------------------------
def bench_overhead(rounds: int) -> list[dict]:
    """Reduce tiny events in many tasks: what remains is the cost of a task."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        simulate.write_many(folder, events=32_000, size=160, pool=1000)
        run = psana_dask.open(folder)
        (name,) = run.detectors
        before = compute.even_pieces
        for where in ("threads", "two workers"):
            seconds = {}
            for size in (16, 8000):
                compute.even_pieces = lambda events, nbytes, size=size: size
                seconds[size] = _overhead(run, f"{name}.number", where, rounds)
            compute.even_pieces = before
            more = 2000 - 4  # tasks of 16 events, less those of 8000
            rows.append({"table": "overhead", "case": f"per task, {where}",
                         "ms": round((seconds[16] - seconds[8000]) / more * 1e3, 3)})  # fmt: skip
    return rows


def _overhead(run: psana_dask.Run, name: str, where: str, rounds: int) -> float:
    if where == "threads":
        return statistics.median(rounds_of({"x": lambda: run.sum(name)}, rounds)["x"])
    with psana_dask.cluster.local(workers=2, threads_per_worker=1):
        return statistics.median(rounds_of({"x": lambda: run.sum(name)}, rounds)["x"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="task,processes,mean,overhead")
    parser.add_argument("--folder", type=Path, help="where the data go; a temporary folder by default")
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench_reduce_", dir=arguments.folder) as name:
        for row in measured(Path(name), arguments.gigabytes, arguments.rounds, arguments.only.split(",")):
            print(json.dumps(row) if arguments.json else _line(row), flush=True)


def _line(row: dict) -> str:
    figures = ", ".join(f"{k}: {v}" for k, v in row.items() if k not in ("table", "case"))
    return f"{row['case']:58} {figures}"


def measured(folder: Path, gigabytes: float, rounds: int, only: list[str]) -> list[dict]:
    rows: list[dict] = []
    data = folder / "run"
    large = simulate.write_large(data, gigabytes=gigabytes, smalldata=None, pool=4)
    run = psana_dask.open(data, calib=constants())
    if "processes" in only:
        rows += bench_processes(str(data), run, rounds)
    if "mean" in only:
        rows += bench_mean(run, rounds, folder)
    if "task" in only:
        for share in (0.0, 0.001, 0.05, 0.3):
            some = run.isel(slice(0, 64))
            descriptor, places = offsets(some)
            os.close(descriptor)
            switch(str(large.files[0]), places, share)
            rows += bench_task(some, rounds, f"{share:.1%}")
    if "overhead" in only:
        rows += bench_overhead(rounds)
    subprocess.run(["sync"], check=False)
    return rows


if __name__ == "__main__":
    main()

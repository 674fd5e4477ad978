"""Exports next to a copy of the same bytes and to the codec alone.

    python benchmarks/bench_export.py [--gigabytes 0.25] [--rounds 5] [--folder F] [--only zarr,...] [--json]

The data are simulated Jungfrau frames (4M, uint16) in the page cache or in memory (`--folder`); the issue's
size is ``--gigabytes 2``.  All cases of a row are timed side by side in every round, after one untimed
round; ratios are medians over the rounds of work per time relative to the other case.  Nothing is synced,
neither copies nor exports; what an earlier round made is removed before the clock starts.

zarr       export to uncompressed Zarr against ``cp`` of the file        required 0.3, reach 0.6
hdf5       export to HDF5 with bitshuffle and LZ4 against the codec alone, memory to memory, on as
           many threads as the export has (required 0.6), and on one (said, no limit); beside them a bare
           write of the same bytes to a new file, and the processor time of all: other work on the
           machine stretches the clock
open       open a finished export of many events                         required 50 ms
processes  the pieces of an export in two processes against one          said, no limit
references `run.to_virtual_zarr` of 100,000 frames                       said, no limit
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np

import psana_dask
from psana_dask import recording, simulate
from psana_dask.export import export, plan
from psana_dask.export.codecs import bitshuffle
from psana_dask.simulate import Detector, RunSpec

SHAPE = (8, 512, 1024)
FRAME = int(np.prod(SHAPE)) * 2
CORES = os.cpu_count() or 1


def jungfrau(folder: Path, gigabytes: float) -> psana_dask.Run:
    """Frames whose pixels have the noise of a detector: what a codec finds in real data."""
    simulate.write_large(folder / "data", gigabytes=gigabytes, shape=SHAPE)
    run = psana_dask.open_run(folder / "data")
    noise = [np.random.default_rng(k).normal(3000, 12, SHAPE[1:]).astype("<u2").tobytes() for k in range(8)]
    reader = run._view.target(run._view.entries["jungfrau"].channels["raw"]).reader()
    sources, which, offsets = reader.places(np.arange(len(run)))
    for event, panel in np.ndindex(which.shape):
        with open(sources[which[event, panel]].name, "r+b") as file:
            file.seek(offsets[event, panel])
            file.write(noise[(event + panel) % 8])
    return psana_dask.open_run(folder / "data")  # the files changed


def timed(work: Callable[[], object], cleared: Path | None = None) -> tuple[float, float]:
    """Return the time of some work by the clock, and the processor time of this process."""
    if cleared is not None:
        fresh(cleared)
    started, used = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - started, time.process_time() - used


def side_by_side(
    rounds: int, made: dict[str, Path] | None = None, **cases: Callable[[], object]
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Time the cases one after the other in every round: by the clock, and their processor time.

    The first round does not count; `made` is what a case makes, and removes before.
    """
    taken: dict[str, list[float]] = {name: [] for name in cases}
    used: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds + 1):
        for name, case in cases.items():
            seconds, processor = timed(case, (made or {}).get(name))
            if number:
                taken[name].append(seconds)
                used[name].append(processor)
    return taken, used


def ratio(taken: dict[str, list[float]], one: str, other: str) -> float:
    """Speed of one case relative to another, median over the rounds."""
    return statistics.median(b / a for a, b in zip(taken[one], taken[other], strict=True))


def fresh(path: Path) -> Path:
    shutil.rmtree(path, ignore_errors=True)
    path.unlink(missing_ok=True)
    return path


def zarr_against_cp(run: psana_dask.Run, folder: Path, rounds: int) -> list[tuple]:
    made = {"cp": folder / "copy", "zarr": folder / "raw.zarr"}
    taken, _ = side_by_side(
        rounds,
        made,
        cp=lambda: subprocess.run(["cp", "-r", folder / "data", made["cp"]], check=True),
        zarr=lambda: export(run, made["zarr"], "jungfrau.raw", compression=None),
    )
    speed = len(run) * FRAME / statistics.median(taken["zarr"]) / 1e9
    [fresh(path) for path in made.values()]
    return [
        ("zarr", "export to uncompressed Zarr / cp", ratio(taken, "zarr", "cp"), 0.3, f"{speed:.2f} GB/s")
    ]


def hdf5_against_codec(run: psana_dask.Run, folder: Path, rounds: int) -> list[tuple]:
    frames = [run.isel(k).jungfrau.field("raw", chunks=None).values[0] for k in range(4)]
    library = bitshuffle()
    block = library.bshuf_default_block_size(2)
    threads = {"codec": CORES, "alone": 1}
    rooms = [np.empty(library.bshuf_compress_lz4_bound(frames[0].size, 2, block), "u1") for _ in range(CORES)]

    def some(worker: int, workers: int) -> None:
        for number in range(worker, len(run), workers):
            frame = frames[number % 4]
            library.bshuf_compress_lz4(frame.ctypes.data, rooms[worker].ctypes.data, frame.size, 2, block)

    def codec(which: str) -> None:
        """Compress the same frames with the same code, from memory to memory."""
        count = threads[which]
        with ThreadPoolExecutor(count) as pool:
            list(pool.map(some, range(count), [count] * count))

    made = {"hdf5": folder / "raw.h5", "write": folder / "written"}
    size = export(run, fresh(made["hdf5"]), "jungfrau.raw", compression="lz4").stat().st_size
    taken, used = side_by_side(
        rounds,
        made,
        alone=lambda: codec("alone"),
        codec=lambda: codec("codec"),
        write=lambda: write_new(made["write"], size, rooms[0]),
        hdf5=lambda: export(run, made["hdf5"], "jungfrau.raw", compression="lz4"),
    )
    speed = len(run) * FRAME / statistics.median(taken["hdf5"]) / 1e9
    [fresh(path) for path in made.values()]
    what = "export to HDF5, bitshuffle and LZ4 / the codec alone"
    share = statistics.median(w / h for w, h in zip(used["write"], used["hdf5"], strict=True))
    return [
        ("hdf5", f"{what}, one thread", ratio(taken, "hdf5", "alone"), None, f"{speed:.2f} GB/s"),
        ("hdf5", f"{what}, all threads", ratio(taken, "hdf5", "codec"), 0.6, ""),
        ("hdf5", f"{what}, processor time", ratio(used, "hdf5", "codec"), None, ""),
        ("hdf5", "a bare write of its bytes / the export, processor time", share, None, ""),
    ]


def write_new(path: Path, size: int, room: np.ndarray) -> None:
    """Write so many bytes to a new file, as an export does."""
    with open(path, "wb", buffering=0) as file:
        for done in range(0, size, plan.WRITE_BYTES):
            file.write(room[: min(plan.WRITE_BYTES, size - done)])


def reopening(folder: Path, rounds: int, events: int) -> list[tuple]:
    scalars = (Detector(name="gmd", kind="gmd"), Detector(name="timing", kind="timing"))
    run = psana_dask.open_run(
        simulate.repeat(RunSpec(events=100, detectors=scalars), folder / "many", events).folder
    )
    rows = []
    for suffix in (".zarr", ".h5"):
        path = export(run, fresh(folder / f"many{suffix}"))

        def again(path: Path = path) -> None:
            recording.forget_all()
            psana_dask.exported.open_store.cache_clear()
            psana_dask.open_run(path)

        seconds = statistics.median(side_by_side(rounds, again=again)[0]["again"])
        rows.append(("open", f"open an export of {events:,} events, {suffix}", seconds * 1e3, 50.0, "ms"))
        fresh(path)
    return rows


def two_processes(run: psana_dask.Run, folder: Path, rounds: int) -> list[tuple]:
    from dask.distributed import Client, LocalCluster

    def with_workers(count: int) -> Callable[[], object]:
        def work() -> None:
            with clients[count].as_current():
                export(run, made[f"on{count}"], "jungfrau.raw", compression="lz4")

        return work

    made = {f"on{k}": folder / f"on{k}.h5" for k in (1, 2)}
    clients = {}
    with ExitStack() as open_ones:  # each cluster gives logging back as it found it: the last one first
        for k in (1, 2):
            cluster = LocalCluster(k, threads_per_worker=1, dashboard_address=":0", silence_logs=50)
            open_ones.enter_context(cluster)
            clients[k] = open_ones.enter_context(Client(cluster, set_as_default=False))
        taken, _ = side_by_side(rounds, made, on1=with_workers(1), on2=with_workers(2))
    [fresh(path) for path in made.values()]
    return [("processes", "HDF5 export on two processes / one", ratio(taken, "on2", "on1"), None, "")]


def references(folder: Path, rounds: int, frames: int) -> list[tuple]:
    camera = (Detector(name="cam", kind="camera", shape=(8, 16)),)
    run = psana_dask.open_run(
        simulate.repeat(RunSpec(events=100, detectors=camera), folder / "refs", frames).folder
    )
    taken, _ = side_by_side(rounds, write=lambda: run.to_virtual_zarr(fresh(folder / "refs.parq"), "cam"))
    speed = frames / statistics.median(taken["write"]) / 1e3
    return [("references", f"references to {frames:,} frames", speed, None, "thousand/s")]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=0.25)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--events", type=int, default=100_000, help="of the export that is opened")
    parser.add_argument(
        "--folder", type=Path, default=Path("/dev/shm" if os.path.isdir("/dev/shm") else "/tmp")
    )
    parser.add_argument("--only", default="zarr,hdf5,open,processes,references")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    plan.PIECE_BYTES = min(plan.PIECE_BYTES, max(FRAME, int(arguments.gigabytes * 1e9 / 4)))
    rows: list[tuple] = []
    wanted = arguments.only.split(",")
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="bench_export_") as name:
        folder = Path(name)
        if {"zarr", "hdf5", "processes"} & set(wanted):
            run = jungfrau(folder, arguments.gigabytes)
        if "zarr" in wanted:
            rows += zarr_against_cp(run, folder, arguments.rounds)
        if "hdf5" in wanted:
            rows += hdf5_against_codec(run, folder, arguments.rounds)
        if "processes" in wanted:
            rows += two_processes(run, folder, arguments.rounds)
        if "open" in wanted:
            rows += reopening(folder, arguments.rounds, arguments.events)
        if "references" in wanted:
            rows += references(folder, arguments.rounds, arguments.events)
    if arguments.json:
        print(json.dumps(rows))
        return 0
    for _, what, value, required, more in rows:
        limit = "" if required is None else f"(required {required})"
        print(f"{what:72} {value:8.2f} {more:12} {limit}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

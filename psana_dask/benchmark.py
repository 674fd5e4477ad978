"""How fast reading is on this machine, next to a bare read of the same bytes.

Each comparison is interleaved in one process and repeated; what is shown is the median of
the rounds.  `REQUIRED` is what the project asks of itself (DESIGN, section 5).
"""

from __future__ import annotations

import os
import pickle
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from psana_dask import recording
from psana_dask.opening import open_run
from psana_dask.options import set_options
from psana_dask.pixel_benchmark import figures
from psana_dask.readers.xtc2_scanner import Scanner
from psana_dask.run import Run
from psana_dask.simulate import Detector, RunSpec, repeat, write_large
from psana_dask.sources import FileSource

REQUIRED = {
    "index scan, 1 kB datagrams (M/s)": ">= 5",
    "open, index cached (ms)": "<= 50",
    "column of scalars (s)": "<= 0.5",
    "stack of frames (x of bare preadv)": ">= 0.9",
    "random events: bytes read / wanted": "<= 1.05",
    "random events: build (ms)": "<= 100",
    "graph of frames (tasks)": "<= 25000",
    "graph of frames (kB)": "<= 1000",
    "graph of frames (s)": "<= 1",
    "graph of their mean (tasks)": "<= 25000",
    "graph of their mean (kB)": "<= 1000",
    "graph of their mean (s)": "<= 1",
    "calibrate one frame (copies)": "<= 5",
    "calibrate a stack (copies)": "<= 2",
    "calibrate with common mode (copies)": "<= 20",
    "assembly (copies of the image)": "<= 3",
    "assembly, panels turned by 90 degrees (copies of the image)": "<= 5",
    "read + sum (of the bare read's speed)": ">= 0.6",
    "read + calibrate + sum, single gain (bare read + copies)": "<= 2",
    "read + calibrate + sum, 0.1 % switched (bare read + copies)": "<= 3",
    "read + calibrate + sum, 30 % switched (bare read + copies)": "<= 8",
    "read + calibrate + sum, 2.3 Mpixel (Hz)": ">= 120",
    "two processes (of two copies of the kernel)": ">= 0.85",
}


class Row(NamedTuple):
    """One figure."""

    what: str
    value: float
    required: str
    note: str


def measure_all(*, small: bool = False, rounds: int = 5) -> list[Row]:
    """Measure every row of REQUIRED.

    Parameters
    ----------
    small : bool
        Small files: a check that it runs.
    rounds : int
    """
    events = 20_000 if small else 1_000_000
    with tempfile.TemporaryDirectory(prefix="psana_dask_bench_") as name, set_options(cache_dir=_cache(name)):
        folder = Path(name)
        many = _many(folder / "many", events)
        rows = _scan(many, rounds) + _open(folder / "many", rounds)
        rows += _column(folder / "many", rounds) + _random(folder / "many", events)
        rows += _graph(folder / "many", rounds)
        for file in many.parent.glob("*.xtc2"):
            file.unlink()
        rows += _stack(folder / "large", 0.1 if small else 1.0, rounds)
        found = figures(folder / "pixels", small=small, rounds=rounds)
        return rows + [_row(*figure) for figure in found]


def table(rows: list[Row]) -> str:
    """Return the rows as text."""
    width = max(len(r.what) for r in rows)
    return "\n".join(f"{r.what.ljust(width)}  {r.value:10.4g}  {r.required:9}  {r.note}" for r in rows)


def _cache(folder: str) -> str:
    """Make a cache folder of its own that still finds the compiled kernels."""
    from psana_dask.options import current

    cache = Path(folder) / "cache"
    cache.mkdir()
    kernels = current().cache_folder() / "kernels"
    kernels.mkdir(parents=True, exist_ok=True)
    (cache / "kernels").symlink_to(kernels)
    return str(cache)


def _many(folder: Path, events: int) -> Path:
    """Write a run of datagrams of about 1 kB: a frame of 20 x 22 pixels and two scalars."""
    detectors = (
        Detector(name="gmd", kind="gmd"),
        Detector(name="pixels", kind="pixels", shape=(20, 22)),
    )
    spec = RunSpec(events=1024, detectors=detectors, slow_every=1024, rate=10_000.0, smalldata=None)
    return repeat(spec, folder, events).files[0]


def _median(function: Callable[[], Any], rounds: int) -> float:
    """Return the median seconds of `function`."""
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def _row(what: str, value: float, note: str = "") -> Row:
    return Row(what, value, REQUIRED[what], note)


def _scan(file: Path, rounds: int) -> list[Row]:
    counts = []

    def scan() -> None:
        scanner = Scanner()
        scanner.scan(FileSource(str(file)), 0)
        counts.append(len(scanner.columns()["timestamp"]))

    scan()
    seconds, bare = _median(scan, rounds), _median(lambda: _bare_read(file), rounds)
    note = f"{seconds / bare:.2f} x a bare read of the file"
    return [_row("index scan, 1 kB datagrams (M/s)", counts[-1] / seconds / 1e6, note)]


def _bare_read(file: Path) -> None:
    """Read a file into one buffer that stays in the cache."""
    buffer = np.empty(256 * 1024, np.uint8)
    with open(file, "rb", buffering=0) as raw:
        while raw.readinto(buffer.data):
            pass


def _open(folder: Path, rounds: int) -> list[Row]:
    events = len(open_run(folder))

    def again() -> Run:
        recording.forget_all()
        return open_run(folder)

    return [_row("open, index cached (ms)", 1e3 * _median(again, rounds), f"{events:,} events")]


def _column(folder: Path, rounds: int) -> list[Row]:
    run = open_run(folder)
    run["gmd"].field("milliJoulesPerPulse", chunks=None).isel(time=slice(0, 2)).load()  # imports, kernels
    seconds = _median(lambda: run["gmd"].field("milliJoulesPerPulse", chunks=None).values, rounds)
    return [_row("column of scalars (s)", seconds, f"{len(run):,} events")]


def _random(folder: Path, events: int) -> list[Row]:
    run = open_run(folder)
    wanted = np.sort(np.random.default_rng(0).choice(events, min(1000, events), replace=False))
    with _CountedReads() as reads:
        began = time.perf_counter()
        frames = run.isel(time=wanted)["pixels"].field("raw")
        build = time.perf_counter() - began
        frames.values  # noqa: B018  (reads them)
    needed = frames.nbytes
    return [
        _row("random events: bytes read / wanted", reads.bytes / needed, f"{len(wanted)} of {events:,}"),
        _row("random events: build (ms)", 1e3 * build),
    ]


class _CountedReads:
    """Counts the bytes that are asked of files."""

    def __init__(self) -> None:
        self.bytes = 0
        self._original = FileSource.read_pieces

    def __enter__(self) -> _CountedReads:
        def counted(source: FileSource, offsets: Any, sizes: Any, out: Any, places: Any) -> None:
            self.bytes += int(sizes.sum())
            self._original(source, offsets, sizes, out, places)

        FileSource.read_pieces = counted  # type: ignore[method-assign,assignment]
        return self

    def __exit__(self, *error: object) -> None:
        FileSource.read_pieces = self._original  # type: ignore[method-assign]


def _graph(folder: Path, rounds: int) -> list[Row]:
    """Measure the graph of an array, and that of its mean as plain Dask makes it."""
    run = open_run(folder)
    frames = _graph_rows("graph of frames", lambda: run["pixels"].field("raw").data, rounds)
    mean = _graph_rows("graph of their mean", lambda: run["pixels"].field("raw").data.mean(axis=0), rounds)
    return frames + mean


def _graph_rows(what: str, make: Callable[[], Any], rounds: int) -> list[Row]:
    found: list[Any] = []

    def build() -> None:
        array = make()
        graph = array.__dask_optimize__(array.__dask_graph__(), array.__dask_keys__())
        found[:] = [dict(graph)]

    sent = len(pickle.dumps(make()))  # a new one: optimising keeps tasks in the old one
    build()
    seconds = _median(build, rounds)
    graph = found[0]
    return [
        _row(f"{what} (tasks)", len(graph)),
        _row(f"{what} (kB)", sent / 1e3, "as it is sent to a scheduler"),
        _row(f"{what} (s)", seconds, "built and optimised"),
    ]


def _stack(folder: Path, gigabytes: float, rounds: int) -> list[Row]:
    large = write_large(folder, gigabytes=gigabytes, smalldata=None)
    run = open_run(folder)
    count = min(len(run), 32)
    reader = _reader(run)
    frame = reader.panels.size * int(np.prod(reader.panel_shape))
    out = np.empty((count, reader.panels.size, *reader.panel_shape), reader.dtype)
    offsets = run._recording.streams[0]["offset"][run._recording.events.rows[0][:count]]
    events, panels = np.arange(count), np.arange(reader.panels.size)
    flat = out.reshape(count, frame).view(np.uint8)
    ratios = []
    with open(large.files[0], "rb") as file:
        for _ in range(rounds + 1):
            bare = _median(lambda: _bare_stack(file.fileno(), flat, offsets), 1)
            ours = _median(lambda: reader.read_into(events, panels, slice(None), out), 1)
            ratios.append(bare / ours)
    note = f"{count} frames of {frame * 2 / 1e6:.1f} MB"
    return [_row("stack of frames (x of bare preadv)", statistics.median(ratios[1:]), note)]


def _bare_stack(descriptor: int, out: Any, offsets: Any) -> None:
    """Read frame after frame with preadv into the rows of one array."""
    for row, offset in zip(out, offsets.tolist(), strict=True):
        os.preadv(descriptor, [row.data], offset)


def _reader(run: Run) -> Any:
    entry = run._view.entries["jungfrau"]
    return run._view.target(entry.channels["raw"]).reader()

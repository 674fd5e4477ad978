"""Times of kernels as ratios to a copy of one frame (``np.copyto`` of its float32), side by side."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Case:
    """One row of the result: what is timed, per how many frames, and the limits in copies."""

    name: str
    frames: int
    required: float | None
    reach: float | None
    run: Callable[[int], object]  # takes the number of the call
    clock: Callable[[], float] = time.thread_time
    # CPU time of the one thread that works: time given to other programs does not count


def measure(case: Case, shape: tuple[int, ...], rounds: int) -> dict[str, object]:
    """Return the median ratio to a copy of one frame, and the times in ms per frame."""
    source, target = np.random.default_rng(0).random(shape).astype(np.float32), np.ones(shape, np.float32)
    runs = {"copy": lambda _: np.copyto(target, source), "case": case.run}
    for run in runs.values():
        run(0)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for call in range(1, rounds + 1):
        for name, run in runs.items():
            start = case.clock()
            run(call)
            times[name].append(case.clock() - start)
    ratios = [t / case.frames / c for t, c in zip(times["case"], times["copy"], strict=True)]
    return {
        "case": case.name, "copies": round(statistics.median(ratios), 2),
        "required": case.required, "reach": case.reach,
        "ms": round(statistics.median(times["case"]) / case.frames * 1e3, 2),
        "copy_ms": round(statistics.median(times["copy"]) * 1e3, 2),
    }  # fmt: skip


def arguments(description: str) -> argparse.Namespace:
    """Return the arguments that these benchmarks take."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    return parser.parse_args()


def show(rows: Iterable[dict[str, object]], as_json: bool) -> None:
    """Print rows as they come."""
    for row in rows:
        if as_json:
            print(json.dumps(row), flush=True)
            continue
        limits = "" if row["required"] is None else f" (required {row['required']}, reach {row['reach']})"
        times = f"{row['ms']} ms, copy {row['copy_ms']} ms"
        print(f"{row['case']:55s} {row['copies']:7.2f} copies{limits}; {times}", flush=True)

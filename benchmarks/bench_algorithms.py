"""Algorithms in copies of a frame (``np.copyto`` of its float32), one thread; pyFAI beside them.

    python benchmarks/bench_algorithms.py [--rounds 9] [--json]

Each case is timed side by side with the copy in every round, after one untimed call; the figure is the
median of the rounds' ratios, of CPU time of the one thread. pyFAI's CSR engine uses several threads:
its figure is wall time, and so is that of the integration beside it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from psana_dask import algorithms, geometry
from psana_dask.algorithms.positions import HC

ENERGY = 9500.0
PIXEL = 75e-6


@dataclass(frozen=True)
class Case:
    """One row of the result: what is timed, per how many frames, and the limits in copies."""

    name: str
    frames: int
    required: float | None
    reach: float | None
    run: Callable[[int], object]  # takes the number of the call
    clock: Callable[[], float] = time.thread_time


def jungfrau() -> tuple[algorithms.Positions, np.ndarray]:
    """Return where the pixels of a Jungfrau 4M are, and four frames with 200 peaks each."""
    where = algorithms.pixel_positions(geometry.default_geometry("jungfrau", panels=8), distance=0.1)
    random = np.random.default_rng(0)
    radius = where.radius / PIXEL
    rows, cols = np.mgrid[-4:5, -4:5]
    frames = np.empty((4, *where.shape), np.float32)
    for frame in frames:
        frame[:] = random.normal(5, 4, radius.shape) + 20 * np.exp(-((radius / 700) ** 2))
        for _ in range(200):
            panel, row, col = random.integers(8), random.integers(5, 506), random.integers(5, 1018)
            spot = random.uniform(150, 900) * np.exp(-(rows**2 + cols**2) / (2 * 1.1**2))
            frame[panel, row - 4 : row + 5, col - 4 : col + 5] += spot
    return where, frames


def peak_cases(where: algorithms.Positions, frames: np.ndarray) -> Iterator[Case]:
    finder = algorithms.prepare_radial(where.radius / PIXEL, asic=(256, 256))
    adaptive = algorithms.prepare_adaptive(where.shape)
    droplet = algorithms.prepare_droplet(where.shape, low=60, high=100)

    def find(finder: object) -> Callable[[int], object]:
        return lambda call: algorithms.find_peaks(frames[call % 4], finder, most=512)

    # psana2's peakfinder8: 153 ms where a copy of this frame takes 1.55 ms
    yield Case("peaks, radial background", 1, 33, 30, find(finder))
    yield Case("peaks, adaptive", 1, None, None, find(adaptive))
    yield Case("peaks, droplet form", 1, None, None, find(droplet))


def profile_cases(where: algorithms.Positions, frames: np.ndarray) -> Iterator[Case]:
    table = algorithms.prepare_azimuthal(where, bins=1000, energy=ENERGY)
    moving = algorithms.prepare_azimuthal(where, bins=1000, span=(0.1, 3.0))
    stack = np.concatenate([frames] * 4)
    wall = time.perf_counter
    yield Case("azimuthal, one frame", 1, None, None,
               lambda call: algorithms.integrate(frames[call % 4], table), wall)
    yield Case("azimuthal, 16 frames", 16, None, None, lambda _: algorithms.integrate(stack, table), wall)
    yield Case("azimuthal, an energy per event", 1, None, None,
               lambda call: algorithms.integrate(frames[call % 4], moving, [ENERGY + call]), wall)
    theirs = pyfai(frames.shape[1:])
    if theirs is not None:
        yield Case("pyFAI, csr, no splitting", 1, None, None, lambda call: theirs(frames[call % 4]), wall)


def pyfai(shape: tuple[int, ...]) -> Callable[[np.ndarray], object] | None:
    """Return pyFAI's integration with its table made; None where it is not installed."""
    try:
        from pyFAI.integrator.azimuthal import AzimuthalIntegrator
    except ImportError:
        return None
    from psana_dask.geometry.convert.pyfai import to_pyfai

    detector, place = to_pyfai(geometry.default_geometry("jungfrau", panels=8))
    whole = AzimuthalIntegrator(detector=detector, wavelength=HC / ENERGY * 1e-10, **place)
    flat = (shape[0] * shape[1], shape[2])
    method = ("no", "csr", "cython")
    return lambda frame: whole.integrate1d(frame.reshape(flat), 1000, unit="q_A^-1", method=method)


def photon_cases(frames: np.ndarray) -> Iterator[Case]:
    random = np.random.default_rng(1)
    sparse = random.normal(0, 1.5, frames.shape).astype(np.float32)
    sparse[random.random(frames.shape) < 0.01] += 30
    yield Case("photons", 1, None, None, lambda call: algorithms.count_photons(sparse[call % 4][None], 30.0))
    yield Case("droplets, 1 % of the pixels lit", 1, None, None,
               lambda call: algorithms.find_droplets(sparse[call % 4][None], high=15, low=5, most=100_000))
    yield Case("lit pixels", 1, None, None, lambda call: algorithms.lit_pixels(sparse[call % 4][None], 15))


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
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # pyFAI's
    where, frames = jungfrau()
    cases = [*peak_cases(where, frames), *profile_cases(where, frames), *photon_cases(frames)]
    for case in cases:
        row = measure(case, where.shape, arguments.rounds)
        if arguments.json:
            print(json.dumps(row), flush=True)
        else:
            limits = "" if case.required is None else f" (required {case.required}, reach {case.reach})"
            times = f"{row['ms']} ms, copy {row['copy_ms']} ms"
            print(f"{row['case']:34s} {row['copies']:7.2f} copies{limits}; {times}", flush=True)


if __name__ == "__main__":
    main()

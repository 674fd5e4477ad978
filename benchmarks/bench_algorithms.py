"""Algorithms in copies of a frame (``np.copyto`` of its float32), one thread; pyFAI beside them.

    python benchmarks/bench_algorithms.py [--rounds 9] [--json]

Each case is timed side by side with the copy in every round, after one untimed call; the figure is the
median of the rounds' ratios, of CPU time of the one thread. pyFAI's CSR engine uses several threads:
its figure is wall time, and so is that of the integration beside it.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator

import numpy as np
from copies import Case, arguments, measure, show

from psana_dask import algorithms, geometry
from psana_dask.algorithms.positions import HC

ENERGY = 9500.0
PIXEL = 75e-6


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
    calls = {
        "azimuthal, one frame": (1, lambda call: algorithms.integrate(frames[call % 4], table)),
        "azimuthal, 16 frames": (16, lambda _: algorithms.integrate(stack, table)),
        "azimuthal, an energy per event": (
            1, lambda call: algorithms.integrate(frames[call % 4], moving, [ENERGY + call])
        ),
    }  # fmt: skip
    theirs = pyfai(frames.shape[1:])
    if theirs is not None:
        calls["pyFAI, csr, no splitting, one frame"] = (1, lambda call: theirs(frames[call % 4]))
        calls["pyFAI, csr, no splitting, 16 frames"] = (16, lambda _: [theirs(frame) for frame in stack])
    for name, (count, run) in calls.items():
        yield Case(name, count, None, None, run, time.perf_counter)


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
    yield Case(
        "droplets, 1 % of the pixels lit",
        1,
        None,
        None,
        lambda call: algorithms.find_droplets(sparse[call % 4][None], high=15, low=5, most=100_000),
    )
    yield Case("lit pixels", 1, None, None, lambda call: algorithms.lit_pixels(sparse[call % 4][None], 15))


def main() -> None:
    given = arguments(__doc__)
    warnings.simplefilter("ignore")  # pyFAI's
    where, frames = jungfrau()
    cases = [*peak_cases(where, frames), *profile_cases(where, frames), *photon_cases(frames)]
    show((measure(case, where.shape, given.rounds) for case in cases), given.json)


if __name__ == "__main__":
    main()

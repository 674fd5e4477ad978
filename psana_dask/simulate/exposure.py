"""Photons on pixels: a counter-based random number for each pixel, so any pixel is known alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from psana_dask.jit import njit

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
FIRST = np.uint64(0xBF58476D1CE4E5B9)
SECOND = np.uint64(0x94D049BB133111EB)
LOW = np.uint64(0xFFFF)
BRIGHT = 30.0  # photons from where a normal distribution stands for Poisson's


@njit("uint64(uint64)")
def scrambled(state: np.uint64) -> np.uint64:
    """Hash 64 bits (splitmix64, Steele, Lea and Flood 2014)."""
    state = (state ^ (state >> np.uint64(30))) * FIRST
    state = (state ^ (state >> np.uint64(27))) * SECOND
    return state ^ (state >> np.uint64(31))


@njit("float64(uint64)")
def bell(word: np.uint64) -> float:
    """Turn 64 random bits into a number of mean 0 and variance 1: the sum of four uniform ones."""
    total = (word & LOW) + ((word >> np.uint64(16)) & LOW)
    total += ((word >> np.uint64(32)) & LOW) + (word >> np.uint64(48))
    return (float(total) / 65536.0 - 2.0 + 2.0 / 65536.0) * np.sqrt(3.0)


@njit("float64(float64, float64)")
def photons(mean: float, uniform: float) -> float:
    """Return the Poisson number at `uniform` (0 to 1) of the distribution function."""
    chance = np.exp(-mean)
    below = chance
    count = 0.0
    while uniform > below and count < 200.0:
        count += 1.0
        chance *= mean / count
        below += chance
    return count


@njit("void(float64[::1], float32[::1], uint64, float64, float64, float64, float64[::1])")
def expose(
    expected: npt.NDArray[np.float64],
    pedestals: npt.NDArray[np.float32],
    key: np.uint64,
    intensity: float,
    adu_per_photon: float,
    read_noise: float,
    out: npt.NDArray[np.float64],
) -> None:
    """Fill `out` with the counts of each pixel in ADU, not yet rounded."""
    for i in range(expected.size):
        first = scrambled(key + np.uint64(i) * GOLDEN)
        second = scrambled(first + GOLDEN)
        mean = expected[i] * intensity
        if mean < BRIGHT:
            count = photons(mean, float(first >> np.uint64(11)) * 2.0**-53)
        else:
            count = max(0.0, np.floor(mean + np.sqrt(mean) * bell(first) + 0.5))
        out[i] = pedestals[i] + adu_per_photon * count + read_noise * bell(second)

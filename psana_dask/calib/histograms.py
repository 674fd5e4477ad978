"""Common-mode estimates by histogram, by mean and from unbonded pixels (numba kernels).

The rules are those of LCLS-1's C++ code, kept bit for bit: ImgAlgos ``CommonMode.h``
(``findCommonMode``, ``medianInRegion``, ``applyCModeUnbond``) and psalg ``common_mode.cc``.
Arithmetic is in the precision used there: means in float64, subtracted in float64, stored in
the type of the data.  `tests/conformance/test_calib.py` compares them with that code's output.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from psana_dask.jit import njit

NO_CORRECTION = np.nan
HIST_LOW, HIST_HIGH = -1000, 2000  # ADU, range of the peak search
SECTION_ROWS, SECTION_COLS = 185, 388  # a CSPAD 2x1

Floats = NDArray[Any]
Ints = NDArray[np.int32]
Used = NDArray[np.uint8]


@njit()
def _bins_of(values: Floats, used: Used, spare: int | np.int32, bins: Ints) -> None:
    """Bin of each value, rounded half away from zero; `spare` if it does not count."""
    for i in range(bins.size):
        v = np.float64(values[i])
        v = v - 0.5 if v < 0 else v + 0.5
        inside = (used[i] != 0) & (v > HIST_LOW - 1) & (v < HIST_HIGH)
        bins[i] = np.int32(v if inside else HIST_LOW) - HIST_LOW if inside else spare


@njit()
def _fill_histogram(
    values: Floats, used: Used, start: int, size: int, stride: int, hist: Ints, bins: Ints
) -> None:
    """Count the rounded values of a section; the last bin takes what does not count."""
    hist[:] = 0
    spare = np.int32(hist.size - 1)
    for first in range(0, size, bins.size):
        n = min(bins.size, size - first)
        lo = start + first * stride
        hi = lo + (n - 1) * stride + 1
        part = bins[:n]
        if stride == 1:
            _bins_of(values[lo:hi], used[lo:hi], spare, part)
        else:
            _bins_of(values[lo:hi:stride], used[lo:hi:stride], spare, part)
        for i in range(n):
            hist[np.uintp(part[i])] += 1


@njit()
def _peak(hist: Ints, threshold: int) -> tuple[int, int, int]:
    """First running maximum above threshold, up to a bin at half of it; with its half widths."""
    bins = hist.size - 1
    top, count, right = -1, -1, bins
    for i in range(bins):
        if hist[i] > count and hist[i] > threshold:
            top, count = i, hist[i]
        elif count > 0 and hist[i] <= count // 2:
            right = i
            break
    left = top
    while left >= 0 and hist[left] > count // 2:
        left -= 1
    return top, left, right


@njit()
def _around(hist: Ints, top: int, mean: float, sigma: float) -> tuple[float, float]:
    """Mean and sigma of the bins within two sigma of the peak bin."""
    d = int(sigma * 2 + 0.5)
    s0, s1, s2 = 0, 0.0, 0.0
    for i in range(max(0, top - d), min(hist.size - 2, top + d) + 1):
        s0 += hist[i]
        s1 += (i - mean) * hist[i]
        s2 += (i - mean) * (i - mean) * hist[i]
    return mean + s1 / s0, np.sqrt(s2 / s0 - (s1 / s0) * (s1 / s0))


@njit()
def peak_mean(
    values: Floats, used: Used, start: int, size: int, stride: int,
    largest: float, widest: float, threshold: int, hist: Ints, bins: Ints,
) -> float:
    """Return the mean of the noise peak (algorithm 1), or NaN if there is none in the limits.

    Parameters
    ----------
    values, used : ndarray, shape (pixel,)
    start, size, stride : int
        The section: `size` pixels from `start`, `stride` apart.
    largest, widest : float
        Limits of mean and sigma, ADU.
    threshold : int
        A peak bin holds more pixels than this.
    hist, bins : ndarray of int32, shape (3001,) and (1024,) or so
        Work space.
    """
    _fill_histogram(values, used, start, size, stride, hist, bins)
    top, left, right = _peak(hist, threshold)
    if top < 0:
        return NO_CORRECTION
    mean, sigma = float(top), (right - left) / 2.36
    for _ in range(2):
        mean, sigma = _around(hist, top, mean, sigma)
    mean += HIST_LOW
    if abs(mean) > largest or sigma > widest:
        return NO_CORRECTION
    return mean


@njit()
def unbonded_mean(values: Floats, start: int, largest: float) -> float:
    """Return the mean of a CSPAD section's unbonded pixels, or NaN if beyond `largest`."""
    total, n = 0.0, 0
    for r in range(10, SECTION_ROWS, 10):
        p = start + r * SECTION_COLS + r
        # one addition of both halves in the data's own precision, as in the original
        total += values[p] + values[p + SECTION_COLS // 2]
        n += 2
    mean = total / n
    return NO_CORRECTION if abs(mean) > largest else mean


@njit()
def _subtract(values: Floats, start: int, size: int, stride: int, mean: float) -> None:
    if stride == 1:
        part = values[start : start + size]
        for i in range(size):
            part[i] = values.dtype.type(np.float64(part[i]) - mean)
    else:
        for i in range(size):
            values[start + i * stride] = values.dtype.type(np.float64(values[start + i * stride]) - mean)


@njit()
def subtract_peak_means(
    values: Floats, used: Used, sections: int, size: int, stride: int,
    largest: float, widest: float, threshold: int, unbonded: bool, hist: Ints, bins: Ints,
) -> None:
    """Apply algorithm 1 to each section, in place; `unbonded`: fall back to algorithm 5."""
    for k in range(sections):
        mean = peak_mean(values, used, k * size, size, stride, largest, widest, threshold, hist, bins)
        if np.isnan(mean) and unbonded:
            mean = unbonded_mean(values, k * size, largest)
        if not np.isnan(mean):
            _subtract(values, k * size, size, stride, mean)


@njit()
def subtract_unbonded_means(values: Floats, size: int, largest: float) -> None:
    """Apply algorithm 5 to each section of `size` pixels, in place."""
    for k in range(values.size // size):
        mean = unbonded_mean(values, k * size, largest)
        if not np.isnan(mean):
            _subtract(values, k * size, size, 1, mean)


@njit()
def subtract_run_means(
    values: Floats, used: Used, length: int, threshold: float, largest: float
) -> None:
    """Apply algorithm 2: the mean of the values below `threshold` of each run, in place."""
    for start in range(0, values.size, length):
        stop = min(values.size, start + length)
        total, n = 0.0, 0
        for p in range(start, stop):
            if used[p] and values[p] < threshold:
                total += values[p]
                n += 1
        if n == 0:
            continue
        mean = values.dtype.type(total / n)
        if abs(mean) <= largest:
            for p in range(start, stop):
                values[p] -= mean


@njit()
def _interpolated_median(hist: Ints, low: int, count: int) -> float:
    """Median with linear interpolation in its bin; 0.8 is the original's empirical offset."""
    left = (count + 1) // 2
    i = -1
    while left > 0:
        i += 1
        left -= hist[i]
    part = np.float32(left) / np.float32(hist[i])
    return float(np.float32(np.float64(np.float32(low + i) + part) + 0.8))


@njit()
def _region_median(
    values: Floats, used: Used, columns: int, top: int, left: int, rows: int, cols: int, step: int,
    half_range: int, largest: int, hist: Ints,
) -> float:
    """Histogram median whose range moves until it holds half of the pixels, or NaN."""
    low, high = -half_range, half_range
    while True:
        bins = high - low + 1
        if bins > hist.size:
            return NO_CORRECTION
        hist[:bins] = 0
        count = 0
        for r in range(top, top + rows):
            for c in range(left, left + cols, step):
                p = r * columns + c
                if used[p]:
                    hist[min(max(int(values[p]) - low, 0), bins - 1)] += 1
                    count += 1
        if count < 10:
            return NO_CORRECTION
        if hist[0] > count // 2:
            if largest and low < -largest:
                return NO_CORRECTION
            low -= bins // 4
        elif hist[bins - 1] > count // 2:
            if largest and high > largest:
                return NO_CORRECTION
            high += bins // 4
        else:
            median = _interpolated_median(hist, low, count)
            return NO_CORRECTION if largest and abs(median) > largest else median


@njit()
def subtract_region_medians(
    values: Floats, used: Used, columns: int, height: int, width: int, step: int,
    half_range: int, largest: int, hist: Ints,
) -> None:
    """Apply the FCCD960 form of algorithm 4: regions of `height` by `width`, in place.

    With `step` 2 the even and the odd columns of a region are separate.
    """
    rows = values.size // columns
    for top in range(0, rows, height):
        for left in range(0, columns, width):
            for k in range(step):
                cm = _region_median(values, used, columns, top, left + k, height, width - k, step,
                                    half_range, largest, hist)
                if np.isnan(cm):
                    continue
                for r in range(top, top + height):
                    for c in range(left + k, left + width, step):
                        values[r * columns + c] -= values.dtype.type(cm)

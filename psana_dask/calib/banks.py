"""Exact medians of large groups: the banks of a panel, thousands of pixels each (numba kernels).

The values of a bank are laid out as rows of `LANES` and counted against a limit that regula
falsi moves to the middle; equal values, for which no limit has the wanted count, go through a
histogram that is refined until it holds the rank.  Both are exact: half the float32 sum of the
two middle values for an even count, as ``np.median``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from psana_dask.calib.medians import LANES, count_up_to, neighbours
from psana_dask.jit import njit

ATTEMPTS = 24  # counts before the histogram takes over
PATIENCE = 4  # counts without progress before it does

Floats = NDArray[Any]
Ints = NDArray[np.int32]


@njit()
def select_rank(values: Floats, count: int, rank: int, bins: Ints) -> float:
    """Return the value of this rank among the first `count` of `values`, which it reorders.

    Histogram the range, keep the bin that holds the rank, repeat: exact, because the bin
    number never decreases with the value.
    """
    n = count
    while n > 24:
        lo = values[0]
        hi = values[0]
        for i in range(1, n):
            v = values[i]
            lo = v if v < lo else lo
            hi = v if v > hi else hi
        if lo == hi:
            return lo
        scale = bins.size / (np.float64(hi) - np.float64(lo))
        last = bins.size - 1
        bins[:] = 0
        for i in range(n):
            bins[min(last, int((np.float64(values[i]) - lo) * scale))] += 1
        chosen = 0
        while rank >= bins[chosen]:
            rank -= bins[chosen]
            chosen += 1
        m = 0
        for i in range(n):
            v = values[i]
            values[m] = v
            m += 1 if min(last, int((np.float64(v) - lo) * scale)) == chosen else 0
        n = m
    for i in range(1, n):
        v = values[i]
        j = i
        while j > 0 and values[j - 1] > v:
            values[j] = values[j - 1]
            j -= 1
        values[j] = v
    return values[rank]


@njit()
def _by_selection(values: Floats, count: int, work: Floats, bins: Ints) -> tuple[float, float]:
    """Lower and upper middle of the first `count` values, whatever they are."""
    work[:count] = values[:count]
    rank = (count - 1) // 2
    lower = select_rank(work, count, rank, bins)
    upper = np.inf
    up_to = 0
    for i in range(count):
        v = values[i]
        up_to += 1 if v <= lower else 0
        if lower < v < upper:
            upper = v
    return lower, lower if up_to > rank + 1 else upper


@njit()
def _by_counting(values: Floats, count: int, lanes: Floats, hint: Floats) -> tuple[bool, float, float]:
    """Lower and upper middle by regula falsi on the count, if that finds them.

    `values` has room for a multiple of 64 values, which is filled up with +inf.
    """
    rows = (count + 63) // 64 * 2
    values[count : rows * LANES] = np.inf
    buf = values[: rows * LANES].reshape(rows, LANES)
    need = (count + 1) // 2
    low, n_low, high, n_high = -np.inf, -1, np.inf, count + 1
    t, step, stalled = float(hint[0]), float(hint[1]), 0
    for _ in range(ATTEMPTS):
        for lane in range(LANES):
            lanes[0, lane] = t
        limit = lanes[0, 0]
        count_up_to(buf, lanes[0], lanes[1])
        n = int(lanes[1].sum())
        if n == need:
            neighbours(buf, lanes[0], lanes[2], lanes[3])
            return True, lanes[2].max(), lanes[3].min()
        stalled += 1 if n in (n_low, n_high) else 0
        if stalled > PATIENCE:  # many equal values: no limit has this count
            break
        if n < need:
            low, n_low = float(limit), n
        else:
            high, n_high = float(limit), n
        if low == -np.inf:
            t = high - step
        elif high == np.inf:
            t = low + step
        else:
            t = low + (high - low) * ((need - n_low + 0.5) / (n_high - n_low + 1))
        step += step
    return False, 0.0, 0.0


@njit()
def median_of(
    values: Floats, count: int, work: Floats, bins: Ints, lanes: Floats, hint: Floats
) -> float:
    """Return the median of the first `count` values, as ``np.median`` in their own precision.

    `values` and `work` hold a multiple of 64 values; `lanes` is (4, LANES), `hint` as in
    `workspace`.
    """
    found, lower, upper = _by_counting(values, count, lanes, hint)
    if not found:
        lower, upper = _by_selection(values, count, work, bins)
    kind = values.dtype.type
    median = kind(lower) if count % 2 else (kind(lower) + kind(upper)) * kind(0.5)
    hint[0] = median
    return median


@njit()
def subtract_bank_medians(
    values: Floats, used: NDArray[np.uint8], columns: int, height: int, width: int,
    low: float, high: float, fewest: int, largest: float, everywhere: bool,
    picked: Floats, work: Floats, bins: Ints, lanes: Floats, hint: Floats,
) -> None:
    """Subtract its median from each bank of `height` rows by `width` columns, in place.

    `picked` and `work` are work space of ``height * width`` values, rounded up to 64, `bins` of a
    few hundred int32; `lanes` and `hint` as in `median_of`.  Other parameters as in `subtract_run_medians`.
    """
    rows = values.size // columns
    for top in range(0, rows - height + 1, height):
        for left in range(0, columns - width + 1, width):
            n = 0
            for r in range(top, top + height):
                for i in range(r * columns + left, r * columns + left + width):
                    v = values[i]
                    picked[n] = v
                    n += 1 if used[i] and v >= low and v <= high else 0
            if n < fewest or n == 0:
                continue
            cm = median_of(picked, n, work, bins, lanes, hint)
            if not abs(cm) <= largest:
                continue
            for r in range(top, top + height):
                at = r * columns + left
                for i in range(at, at + width):
                    values[i] = values[i] - cm if everywhere or used[i] else values[i]

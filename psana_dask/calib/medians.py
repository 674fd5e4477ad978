"""Exact medians of many small groups of pixels at once (numba kernels).

A detector's common mode is the median of each row segment, column segment or bank.
Sorting each group by itself costs about 15 ns a pixel; here 32 groups lie side by side
as the lanes of a vector and go through one comparator network together, pruned to the
two middle ranks.  The result does not depend on the data's distribution and equals
``np.median`` bit for bit: for an even count, half the float32 sum of the two middle values.

Pixels that do not count are filled with +inf and -inf in turns, which leaves the middle
ranks in place.  `tests/calib/test_medians.py` checks all kernels against ``np.median``.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

LANES = 32  # groups per network pass: two 16-float vectors, 256 rows stay in a 32 KiB cache

BOTH, ONLY_MIN, ONLY_MAX = 0, 1, 2

Floats = NDArray[Any]
Ints = NDArray[np.int32]


def _merge_exchange(size: int) -> list[tuple[int, int]]:
    """Return Batcher's merge-exchange sort of `size` items (Knuth, TAOCP 3, 5.2.2 M)."""
    pairs: list[tuple[int, int]] = []
    top = 1 << max(0, (size - 1).bit_length() - 1)
    p = top
    while p > 0:
        q, r, d = top, 0, p
        while True:
            pairs += [(i, i + d) for i in range(size - d) if i & p == r]
            if q == p:
                break
            d, q, r = q - p, q >> 1, p
        p >>= 1
    return pairs


@lru_cache(maxsize=32)
def median_network(size: int) -> Ints:
    """Return the comparators that leave ranks ``size/2 - 1`` and ``size/2`` in place.

    Parameters
    ----------
    size : int
        Number of inputs, even and at least 2.

    Returns
    -------
    ndarray of int32, shape (comparator, 3)
        Lower index, upper index, and which of the two results is still needed.
    """
    if size < 2 or size % 2:
        raise ValueError(f"a median network needs an even number of inputs, not {size}")
    needed = {size // 2 - 1, size // 2}
    kept: list[tuple[int, int, int]] = []
    for i, j in reversed(_merge_exchange(size)):
        low, high = i in needed, j in needed
        if low or high:
            kept.append((i, j, BOTH if low and high else ONLY_MIN if low else ONLY_MAX))
            needed |= {i, j}
    return np.array(kept[::-1], np.int32).reshape(-1, 3)


def network_inputs(length: int) -> int:
    """Return the number of network inputs for groups of `length` (even, one spare if odd)."""
    return max(2, length + length % 2)


@numba.njit(cache=True, nogil=True)
def _run_network(net: Ints, buf: Floats) -> None:
    for k in range(net.shape[0]):
        low = buf[net[k, 0]]
        high = buf[net[k, 1]]
        kind = net[k, 2]
        if kind == BOTH:
            for lane in range(LANES):
                a = low[lane]
                b = high[lane]
                low[lane] = a if a < b else b
                high[lane] = a if a > b else b
        elif kind == ONLY_MIN:
            for lane in range(LANES):
                a = low[lane]
                b = high[lane]
                low[lane] = a if a < b else b
        else:
            for lane in range(LANES):
                a = low[lane]
                b = high[lane]
                high[lane] = a if a > b else b


@numba.njit(cache=True, nogil=True)
def _middle(buf: Floats, absent: Ints, length: int, lane: int, truncate: bool) -> float:
    """Median of one lane after the network; `truncate`: the lower middle, cut to an integer."""
    half = buf.shape[0] // 2
    lower = buf[half - 1, lane]
    if truncate:
        return min(max(np.trunc(lower), buf.dtype.type(-16384)), buf.dtype.type(16383))
    if (length - absent[lane]) % 2:
        return lower
    return (lower + buf[half, lane]) * buf.dtype.type(0.5)


@numba.njit(cache=True, nogil=True)
def _corrections(
    buf: Floats, absent: Ints, length: int, lanes: int,
    fewest: int, largest: float, truncate: bool, cm: Floats,
) -> None:
    """Write the correction of each lane, 0 where it does not apply."""
    for lane in range(lanes):
        c = _middle(buf, absent, length, lane, truncate)
        wanted = length - absent[lane] >= fewest and abs(c) <= largest
        cm[lane] = c if wanted else buf.dtype.type(0)


@numba.njit(cache=True, nogil=True)
def _alternate(buf: Floats, absent: Ints, turn: Floats, length: int) -> None:
    """Replace NaN, lane by lane, with +inf and -inf in turns, and count them."""
    for lane in range(LANES):
        turn[lane] = np.inf
        absent[lane] = 0
    for i in range(length):
        row = buf[i]
        for lane in range(LANES):
            v = row[lane]
            t = turn[lane]
            counts = v == v  # noqa: PLR0124 - not NaN
            row[lane] = v if counts else t
            turn[lane] = t if counts else -t
            absent[lane] += np.int32(0) if counts else np.int32(1)
    if buf.shape[0] > length:
        for lane in range(LANES):
            buf[length, lane] = turn[lane]


@numba.njit(cache=True, nogil=True)
def _fill_runs(
    values: Floats, used: NDArray[np.uint8], length: int, lanes: int,
    low: float, high: float, buf: Floats, picked: Floats,
) -> None:
    """Lay `lanes` consecutive runs side by side; NaN where a pixel does not count."""
    nan = values.dtype.type(np.nan)
    for i in range(lanes * length):
        v = values[i]
        picked[i] = v if (used[i] != 0) & (v >= low) & (v <= high) else nan
    for i in range(length):
        row = buf[i]
        for lane in range(LANES):
            row[lane] = picked[lane * length + i]


@numba.njit(cache=True, nogil=True)
def subtract_run_medians(
    values: Floats, used: NDArray[np.uint8], length: int,
    low: float, high: float, fewest: int, largest: float, truncate: bool, everywhere: bool,
    net: Ints, buf: Floats, absent: Ints, turn: Floats, picked: Floats,
) -> None:
    """Subtract its median from each run of `length` consecutive pixels, in place.

    Parameters
    ----------
    values : ndarray, shape (pixel,)
        Pedestal-subtracted values; a last, shorter run is left alone by the caller.
    used : ndarray of uint8, shape (pixel,)
        Not zero where a pixel may enter the estimate.
    low, high : float
        Only values in [low, high] enter the estimate.
    fewest : int
        A run with fewer such pixels is not corrected.
    largest : float
        A correction beyond it in magnitude is not applied.
    truncate : bool
        Integer median of the truncated values (algorithm 3).
    everywhere : bool
        Correct all pixels of the run, or only the used ones.
    net, buf, absent, turn, picked : ndarray
        `median_network` and work space: (inputs, LANES), (LANES,) int32, (LANES,) and
        (LANES * length,) of the values' type.
    """
    runs = values.size // length
    for first in range(0, runs, LANES):
        lanes = min(LANES, runs - first)
        start = first * length
        stop = start + lanes * length
        _fill_runs(values[start:stop], used[start:stop], length, lanes, low, high, buf, picked)
        _alternate(buf, absent, turn, length)
        _run_network(net, buf)
        _corrections(buf, absent, length, lanes, fewest, largest, truncate, turn)
        for lane in range(lanes):
            _subtract_line(values, used, start + lane * length, length, turn[lane], everywhere)


@numba.njit(cache=True, nogil=True)
def _subtract_line(
    values: Floats, used: NDArray[np.uint8], start: int, length: int, cm: float, everywhere: bool
) -> None:
    line = values[start : start + length]
    mark = used[start : start + length]
    zero = values.dtype.type(0)
    if everywhere:
        for i in range(length):
            line[i] -= cm
    else:
        for i in range(length):
            line[i] -= cm if mark[i] else zero


@numba.njit(cache=True, nogil=True)
def _fill_columns(
    values: Floats, used: NDArray[np.uint8], start: int, stride: int, length: int, lanes: int,
    low: float, high: float, buf: Floats,
) -> None:
    """Copy `lanes` neighbouring columns; NaN where a pixel does not count."""
    nan = values.dtype.type(np.nan)
    for i in range(length):
        at = start + i * stride
        line = values[at : at + lanes]
        mark = used[at : at + lanes]
        row = buf[i]
        for lane in range(lanes):
            v = line[lane]
            row[lane] = v if (mark[lane] != 0) & (v >= low) & (v <= high) else nan


@numba.njit(cache=True, nogil=True)
def subtract_column_medians(
    values: Floats, used: NDArray[np.uint8], columns: int, length: int,
    low: float, high: float, fewest: int, largest: float, everywhere: bool,
    net: Ints, buf: Floats, absent: Ints, turn: Floats,
) -> None:
    """Subtract its median from each column of `length` rows, in place.

    `values` holds rows of `columns` pixels; its number of rows is a multiple of `length`.
    Other parameters as in `subtract_run_medians`; `turn` is work space (LANES,) float32.
    """
    block = columns * length
    zero = values.dtype.type(0)
    for base in range(0, values.size // block * block, block):
        for first in range(0, columns, LANES):
            lanes = min(LANES, columns - first)
            start = base + first
            _fill_columns(values, used, start, columns, length, lanes, low, high, buf)
            _alternate(buf, absent, turn, length)
            _run_network(net, buf)
            _corrections(buf, absent, length, lanes, fewest, largest, False, turn)
            for i in range(length):
                at = start + i * columns
                line = values[at : at + lanes]
                mark = used[at : at + lanes]
                for lane in range(lanes):
                    line[lane] -= turn[lane] if everywhere or mark[lane] else zero


@numba.njit(cache=True, nogil=True)
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


@numba.njit(cache=True, nogil=True)
def median_of(values: Floats, count: int, work: Floats, bins: Ints) -> float:
    """Return the median of the first `count` values, as ``np.median`` in their own precision."""
    work[:count] = values[:count]
    rank = (count - 1) // 2
    lower = select_rank(work, count, rank, bins)
    if count % 2:
        return lower
    upper = values[0]
    below = 0
    found = False
    for i in range(count):
        v = values[i]
        below += 1 if v <= lower else 0
        if v > lower and (not found or v < upper):
            upper = v
            found = True
    if below > rank + 1:
        upper = lower
    return (lower + upper) * values.dtype.type(0.5)


@numba.njit(cache=True, nogil=True)
def subtract_bank_medians(
    values: Floats, used: NDArray[np.uint8], columns: int, height: int, width: int,
    low: float, high: float, fewest: int, largest: float, everywhere: bool,
    picked: Floats, work: Floats, bins: Ints,
) -> None:
    """Subtract its median from each bank of `height` rows by `width` columns, in place.

    `picked` and `work` are work space of at least ``height * width`` values, `bins` of a
    few hundred int32.  Other parameters as in `subtract_run_medians`.
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
            cm = median_of(picked, n, work, bins)
            if not abs(cm) <= largest:
                continue
            for r in range(top, top + height):
                at = r * columns + left
                for i in range(at, at + width):
                    values[i] = values[i] - cm if everywhere or used[i] else values[i]

"""Exact medians of many small groups of pixels at once (numba kernels).

A detector's common mode is the median of each row segment, column segment or bank.
Sorting each group by itself costs about 15 ns a pixel.  Here 32 groups lie side by side as the
lanes of a vector.  Counting the values below a limit brings the limits of all lanes to a few
ranks above the middle ones in a few passes (Newton's steps, then regula falsi on the count), and
the largest values below a limit are those ranks; where that does not settle them, as many values
are equal, a comparator network pruned to the two middle ranks does.  Either way the result equals
``np.median`` bit for bit: for an even count, half the float32 sum of the two middle values.

Pixels that do not count are +inf, which no limit reaches; for the network every other one
becomes -inf, so that the middle ranks stay in the middle.
`tests/calib/test_medians.py` checks all kernels against ``np.median``.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psana_dask.jit import njit

LANES = 32  # groups at once: two 16-float vectors; 256 rows of them stay in a 32 KiB cache
SHORT = 96  # up to this length the network is faster than the search
EIGHTHS = 152  # comparators of the network for 64 inputs that `_sort_eighths` does: 8 x 19
SEARCHES = 12  # counts before the network takes over; 3 to 6 suffice for noise
NEAR = 4  # ranks above the middle within which a limit is near enough: as many as `_largest` finds
LANES_2, LANES_3, LANES_4 = 2 * LANES, 3 * LANES, 4 * LANES

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


def workspace(length: int, dtype: np.dtype[Any]) -> tuple[NDArray[Any], ...]:
    """Return the network, lane buffer, state and hint for groups of `length`."""
    inputs = network_inputs(length)
    hint = np.array([0, 0.5], dtype)  # ADU: a median, and one rank near it
    return (median_network(inputs), np.zeros((inputs, LANES), dtype), np.zeros((15, LANES), dtype), hint)


@njit()
def _run_network(net: Ints, buf: Floats) -> None:
    # one flat array and unsigned numbers: no test for negative indices, no test for overlap
    flat = buf.reshape(-1)
    width = np.uintp(LANES)
    for k in range(net.shape[0]):
        i = np.uintp(net[k, 0]) * width
        j = np.uintp(net[k, 1]) * width
        kind = net[k, 2]
        if kind == BOTH:
            for lane in range(LANES):
                p, q = i + np.uintp(lane), j + np.uintp(lane)
                a, b = flat[p], flat[q]
                flat[p] = a if a < b else b
                flat[q] = a if a > b else b
        elif kind == ONLY_MIN:
            for lane in range(LANES):
                p, q = i + np.uintp(lane), j + np.uintp(lane)
                a, b = flat[p], flat[q]
                flat[p] = a if a < b else b
        else:
            for lane in range(LANES):
                p, q = i + np.uintp(lane), j + np.uintp(lane)
                a, b = flat[p], flat[q]
                flat[q] = a if a > b else b


@njit()
def _alternate(buf: Floats, turn: Floats) -> None:
    """Turn every other +inf of a lane into -inf, which leaves the middle ranks in place."""
    for lane in range(LANES):
        turn[lane] = np.inf
    for i in range(buf.shape[0]):
        row = buf[i]
        for lane in range(LANES):
            v = row[lane]
            t = turn[lane]
            counts = v < np.inf
            row[lane] = v if counts else t
            turn[lane] = t if counts else -t


@njit()
def count_up_to(buf: Floats, limit: Floats, count: Floats) -> None:
    """Count, lane by lane, the values <= limit; 4 rows at a time to spare stores."""
    one, zero = buf.dtype.type(1), buf.dtype.type(0)
    for lane in range(LANES):
        count[lane] = zero
    whole = buf.shape[0] // 4 * 4
    for i in range(0, whole, 4):
        a, b, c, d = buf[i], buf[i + 1], buf[i + 2], buf[i + 3]
        for lane in range(LANES):
            t = limit[lane]
            n = one if a[lane] <= t else zero
            n += one if b[lane] <= t else zero
            n += one if c[lane] <= t else zero
            n += one if d[lane] <= t else zero
            count[lane] += n
    for i in range(whole, buf.shape[0]):
        a = buf[i]
        for lane in range(LANES):
            count[lane] += one if a[lane] <= limit[lane] else zero


@njit()
def neighbours(buf: Floats, limit: Floats, below: Floats, above: Floats) -> None:
    """Find, lane by lane, the largest value <= limit and the smallest beyond."""
    inf = buf.dtype.type(np.inf)
    for lane in range(LANES):
        below[lane] = -inf
        above[lane] = inf
    for i in range(0, buf.shape[0] - 1, 2):
        a, b = buf[i], buf[i + 1]
        for lane in range(LANES):
            t, low, high = limit[lane], below[lane], above[lane]
            v, w = a[lane], b[lane]
            small = v if v <= t else -inf
            large = inf if v <= t else v
            low = small if small > low else low
            high = large if large < high else high
            small = w if w <= t else -inf
            large = inf if w <= t else w
            below[lane] = small if small > low else low
            above[lane] = large if large < high else high


@njit()
def _next_limits(state: Floats, rank: float) -> bool:
    """Move every lane's limit to where a little more than `need` are below it; True when all are there.

    `rank` is what a limit moves by per rank while it is not known on which side it is.
    """
    need, t, count = state[0], state[1], state[2]
    low, n_low, high, n_high = state[3], state[4], state[5], state[6]
    one, half = state.dtype.type(1), state.dtype.type(0.5)
    found = True
    for lane in range(LANES):
        c, aim = count[lane], need[lane] + one + half
        if (c >= need[lane]) & (c < need[lane] + NEAR):
            high[lane], n_high[lane] = t[lane], c
            continue
        found = False
        if c < need[lane]:
            low[lane], n_low[lane] = t[lane], c
        else:
            high[lane], n_high[lane] = t[lane], c
        if (low[lane] == -np.inf) | (high[lane] == np.inf):
            t[lane] += (aim - c) * rank
        else:
            part = (aim - n_low[lane] + half) / (n_high[lane] - n_low[lane] + one)
            t[lane] = low[lane] + (high[lane] - low[lane]) * part
    return found


@njit()
def _largest(buf: Floats, limit: Floats, top: Floats) -> None:
    """Find, lane by lane, the smallest value beyond a limit and the four largest that are not.

    `top` is one flat array of five rows of lanes, so that the compiler tests for no overlaps.
    """
    inf = buf.dtype.type(np.inf)
    top[:LANES] = inf
    top[LANES:] = -inf
    for i in range(0, buf.shape[0] - 1, 2):
        row, other = buf[i], buf[i + 1]
        for lane in range(LANES):
            v, w, t = row[lane], other[lane], limit[lane]
            above = top[lane]
            a, b, c, d = top[lane + LANES], top[lane + LANES_2], top[lane + LANES_3], top[lane + LANES_4]
            x, y = (inf if v <= t else v), (inf if w <= t else w)
            x = x if x < y else y
            top[lane] = x if x < above else above
            v, w = (v if v <= t else -inf), (w if w <= t else -inf)
            v, w = (v if v > w else w), (w if v > w else v)
            a, v = (v if v > a else a), (a if v > a else v)
            b, w = (w if w > b else b), (b if w > b else w)
            b, v = (v if v > b else b), (b if v > b else v)
            c, w = (w if w > c else c), (c if w > c else w)
            c, v = (v if v > c else c), (c if v > c else v)
            v = v if v > w else w
            top[lane + LANES], top[lane + LANES_2], top[lane + LANES_3] = a, b, c
            top[lane + LANES_4] = v if v > d else d


@njit()
def _settle(buf: Floats, state: Floats) -> None:
    """Write the lower and upper middle of every lane, whose limit is less than `NEAR` ranks above."""
    need, count, lower, upper = state[0], state[2], state[7], state[8]
    _largest(buf, state[1], state[10:].reshape(-1))
    for lane in range(LANES):
        k = np.int32(count[lane] - need[lane])
        lower[lane] = state[11 + k, lane]
        upper[lane] = state[10 + k, lane]


@njit()
def _search(buf: Floats, state: Floats, guess: float, rank: float) -> bool:
    """Find the lower and upper middle of every lane by counting; False if it does not come near.

    Where limits do not come near enough, as many values are equal: the largest value below the
    bracket's upper end is the lower middle if fewer than `need` values are smaller.
    Rows of `state`: need, limit, count, low, n_low, high, n_high, lower, upper, n, and what `_largest` finds.
    """
    need, t, count, high, lower, upper = state[0], state[1], state[2], state[5], state[7], state[8]
    for lane in range(LANES):
        t[lane] = guess
        state[3, lane] = -np.inf
        high[lane] = np.inf
    for _ in range(SEARCHES):
        count_up_to(buf, t, count)
        if _next_limits(state, rank):
            _settle(buf, state)
            return True
        rank += rank
    neighbours(buf, high, lower, upper)
    count_up_to(buf, lower, count)
    for lane in range(LANES):
        t[lane] = np.nextafter(lower[lane], -buf.dtype.type(np.inf))
    count_up_to(buf, t, state[3])
    good = True
    for lane in range(LANES):
        good &= (state[3, lane] < need[lane]) & (count[lane] >= need[lane])
        upper[lane] = lower[lane] if count[lane] > need[lane] else upper[lane]
    return good


@njit()
def _rank(state: Floats, before: float) -> float:
    """Return how far a rank near the middle is from the next one, on average."""
    total, count = 0.0, 0
    for lane in range(LANES):
        apart = state[11, lane] - state[14, lane]
        if 0 < apart < np.inf:
            total += apart
            count += NEAR - 1
    return total / count if count > 0 else before


@njit()
def _sort_eighths(buf: Floats) -> None:
    """Do the first `EIGHTHS` comparators of the network for 64 inputs in registers.

    They sort the 8 values of each residue class; the offsets must be compile-time constants
    for the compiler to keep the values in registers, hence only this one length.
    """
    flat = buf.reshape(-1)
    for k in range(8):
        part = flat[k * LANES :]
        for lane in range(LANES):
            a, b, c, d = part[lane], part[lane + 256], part[lane + 512], part[lane + 768]
            e, f, g, h = part[lane + 1024], part[lane + 1280], part[lane + 1536], part[lane + 1792]
            a, e = (a if a < e else e), (a if a > e else e)
            b, f = (b if b < f else f), (b if b > f else f)
            c, g = (c if c < g else g), (c if c > g else g)
            d, h = (d if d < h else h), (d if d > h else h)
            a, c = (a if a < c else c), (a if a > c else c)
            b, d = (b if b < d else d), (b if b > d else d)
            e, g = (e if e < g else g), (e if e > g else g)
            f, h = (f if f < h else h), (f if f > h else h)
            c, e = (c if c < e else e), (c if c > e else e)
            d, f = (d if d < f else f), (d if d > f else f)
            a, b = (a if a < b else b), (a if a > b else b)
            c, d = (c if c < d else d), (c if c > d else d)
            e, f = (e if e < f else f), (e if e > f else f)
            g, h = (g if g < h else h), (g if g > h else h)
            b, e = (b if b < e else e), (b if b > e else e)
            d, g = (d if d < g else g), (d if d > g else g)
            b, c = (b if b < c else c), (b if b > c else c)
            d, e = (d if d < e else e), (d if d > e else e)
            f, g = (f if f < g else g), (f if f > g else g)
            part[lane], part[lane + 256], part[lane + 512], part[lane + 768] = a, b, c, d
            part[lane + 1024], part[lane + 1280], part[lane + 1536], part[lane + 1792] = e, f, g, h


@njit()
def _by_network(buf: Floats, net: Ints, state: Floats) -> None:
    _alternate(buf, state[1])
    if buf.shape[0] == 64:
        _sort_eighths(buf)
        _run_network(net[EIGHTHS:], buf)
    else:
        _run_network(net, buf)
    half = buf.shape[0] // 2
    for lane in range(LANES):
        state[7, lane] = buf[half - 1, lane]
        state[8, lane] = buf[half, lane]


@njit()
def _lane_corrections(
    buf: Floats, net: Ints, state: Floats, hint: Floats, fewest: int, largest: float, truncate: bool
) -> None:
    """Write the correction of each lane to row 2 of `state`: its median, 0 where it does not apply.

    `hint` holds a guess of the median, and of how far a rank near it is from the next one, and is renewed.
    """
    n, need, cm = state[9], state[0], state[2]
    for lane in range(LANES):
        state[1, lane] = np.finfo(np.float32).max
    count_up_to(buf, state[1], n)
    for lane in range(LANES):
        need[lane] = (np.int32(n[lane]) + 1) >> 1
    if buf.shape[0] > SHORT and _search(buf, state, hint[0], hint[1]):
        hint[1] = _rank(state, hint[1])
    else:
        _by_network(buf, net, state)
    half = buf.dtype.type(0.5)
    low, high = buf.dtype.type(-16384), buf.dtype.type(16383)
    total, count = 0.0, 0
    for lane in range(LANES):
        lower = state[7, lane]
        odd = np.int32(n[lane]) & 1
        c = lower if odd else (lower + state[8, lane]) * half
        if truncate:
            c = min(max(np.trunc(lower), low), high)
        wanted = n[lane] >= fewest and abs(c) <= largest
        cm[lane] = c if wanted else buf.dtype.type(0)
        if wanted:
            total += c
            count += 1
    if count > 0:
        hint[0] = total / count


@njit()
def _fill_runs(
    values: Floats, used: NDArray[np.uint8], length: int, lanes: int,
    low: float, high: float, buf: Floats, picked: Floats,
) -> None:
    """Lay `lanes` consecutive runs side by side; +inf where a pixel does not count."""
    out = values.dtype.type(np.inf)
    for i in range(lanes * length):
        v = values[i]
        picked[i] = v if (used[i] != 0) & (v >= low) & (v <= high) else out
    for i in range(length):
        row = buf[i]
        for lane in range(LANES):
            row[lane] = picked[lane * length + i]


@njit()
def subtract_run_medians(
    values: Floats, used: NDArray[np.uint8], length: int,
    low: float, high: float, fewest: int, largest: float, truncate: bool, everywhere: bool,
    net: Ints, buf: Floats, state: Floats, hint: Floats, picked: Floats,
) -> None:
    """Subtract its median from each run of `length` consecutive pixels, in place.

    Parameters
    ----------
    values : ndarray, shape (pixel,)
        Pedestal-subtracted values; a last, shorter run is left alone.
    used : ndarray of uint8, shape (pixel,)
        Not zero where a pixel may enter the estimate.
    low, high : float
        Only values in [low, high] enter the estimate.
    fewest : int
        A run with fewer such pixels is not corrected; at least 1.
    largest : float
        A correction beyond it in magnitude is not applied.
    truncate : bool
        Integer median of the truncated values (algorithm 3).
    everywhere : bool
        Correct all pixels of the run, or only the used ones.
    net, buf, state, hint, picked : ndarray
        From `workspace` and, for `picked`, (LANES * length,) of the values' type.
    """
    runs = values.size // length
    for first in range(0, runs, LANES):
        lanes = min(LANES, runs - first)
        start = first * length
        stop = start + lanes * length
        buf[length:] = np.inf
        _fill_runs(values[start:stop], used[start:stop], length, lanes, low, high, buf, picked)
        _lane_corrections(buf, net, state, hint, fewest, largest, truncate)
        for lane in range(lanes):
            _subtract_line(values, used, start + lane * length, length, state[2, lane], everywhere)


@njit()
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


@njit()
def _fill_columns(
    values: Floats, used: NDArray[np.uint8], start: int, stride: int, length: int,
    low: float, high: float, buf: Floats,
) -> None:
    """Copy `LANES` neighbouring columns; +inf where a pixel does not count."""
    out = values.dtype.type(np.inf)
    for i in range(length):
        at = np.uintp(start + i * stride)
        row = buf[i]
        for lane in range(LANES):
            p = at + np.uintp(lane)
            v = values[p]
            row[lane] = v if (used[p] != 0) & (v >= low) & (v <= high) else out


@njit()
def _fill_last_columns(
    values: Floats, used: NDArray[np.uint8], start: int, stride: int, length: int, lanes: int,
    low: float, high: float, buf: Floats,
) -> None:
    """Copy fewer columns than there are lanes; the other lanes get nothing that counts."""
    out = values.dtype.type(np.inf)
    buf[:] = out
    for i in range(length):
        at = start + i * stride
        for lane in range(lanes):
            v = values[at + lane]
            if used[at + lane] != 0 and low <= v <= high:
                buf[i, lane] = v


@njit()
def _subtract_columns(
    values: Floats, used: NDArray[np.uint8], start: int, stride: int, length: int, lanes: int,
    cm: Floats, everywhere: bool,
) -> None:
    zero = values.dtype.type(0)
    for i in range(length):
        at = np.uintp(start + i * stride)
        if lanes == LANES and not everywhere:
            for lane in range(LANES):
                p = at + np.uintp(lane)
                values[p] -= cm[lane] if used[p] != 0 else zero
        else:
            for lane in range(lanes):
                p = at + np.uintp(lane)
                values[p] -= cm[lane] if everywhere or used[p] != 0 else zero


@njit()
def subtract_column_medians(
    values: Floats, used: NDArray[np.uint8], columns: int, length: int,
    low: float, high: float, fewest: int, largest: float, everywhere: bool,
    net: Ints, buf: Floats, state: Floats, hint: Floats,
) -> None:
    """Subtract its median from each column of `length` rows, in place.

    `values` holds rows of `columns` pixels; its number of rows is a multiple of `length`.
    Other parameters as in `subtract_run_medians`.
    """
    block = columns * length
    for base in range(0, values.size // block * block, block):
        for first in range(0, columns, LANES):
            lanes = min(LANES, columns - first)
            start = base + first
            if lanes == LANES:
                buf[length:] = np.inf
                _fill_columns(values, used, start, columns, length, low, high, buf)
            else:
                _fill_last_columns(values, used, start, columns, length, lanes, low, high, buf)
            _lane_corrections(buf, net, state, hint, fewest, largest, False)
            _subtract_columns(values, used, start, columns, length, lanes, state[2], everywhere)

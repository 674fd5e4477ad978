"""Compiled exact sums of integer words, split by gain range (numba).

State arrays have the pixel on the last axis: ``sums[range, pixel]``, ``squares[range, pixel]``
and ``counts[range, pixel]``; the counts of range 0 are not kept, they are what is left.  Four
rows at a time are added where no word of a short line has switched; lines that have are
blended without a condition, so they cost the same at any mix.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from psana_dask.calib.gain import JUNGFRAU
from psana_dask.jit import njit

LINE = 256
"""Pixels that are tested for switched gains together."""

WORDS_LINE = 4096
"""Pixels whose sums stay in the nearest cache while all rows are added to them."""

Rows = NDArray[Any]
Ints = NDArray[np.int64]
Sums = NDArray[Any]
Squares = NDArray[np.uint64]
Counts = NDArray[np.uint32]


@njit()
def _four(rows: Rows, use: Ints, first: int, lo: int, sums: Sums) -> None:
    """Add four rows of one line."""
    n = sums.size
    a, b = rows[use[first], lo : lo + n], rows[use[first + 1], lo : lo + n]
    c, d = rows[use[first + 2], lo : lo + n], rows[use[first + 3], lo : lo + n]
    for p in range(n):
        sums[p] += (sums.dtype.type(a[p]) + sums.dtype.type(b[p])) + (
            sums.dtype.type(c[p]) + sums.dtype.type(d[p])
        )


@njit()
def _eight(rows: Rows, use: Ints, first: int, lo: int, sums: Sums) -> None:
    """Add eight rows of one line."""
    n, kind = sums.size, sums.dtype.type
    a, b = rows[use[first], lo : lo + n], rows[use[first + 1], lo : lo + n]
    c, d = rows[use[first + 2], lo : lo + n], rows[use[first + 3], lo : lo + n]
    e, f = rows[use[first + 4], lo : lo + n], rows[use[first + 5], lo : lo + n]
    g, h = rows[use[first + 6], lo : lo + n], rows[use[first + 7], lo : lo + n]
    for p in range(n):
        sums[p] += ((kind(a[p]) + kind(b[p])) + (kind(c[p]) + kind(d[p]))) + (
            (kind(e[p]) + kind(f[p])) + (kind(g[p]) + kind(h[p]))
        )


@njit()
def _four_squares(rows: Rows, use: Ints, first: int, lo: int, squares: Squares) -> None:
    """Add the squares of four rows of one line: at most 15 bits each, so they fit 32 bits together."""
    n = squares.size
    a, b = rows[use[first], lo : lo + n], rows[use[first + 1], lo : lo + n]
    c, d = rows[use[first + 2], lo : lo + n], rows[use[first + 3], lo : lo + n]
    for p in range(n):
        v, w, x, y = np.uint32(a[p]), np.uint32(b[p]), np.uint32(c[p]), np.uint32(d[p])
        squares[p] += np.uint64(np.uint32(v * v + w * w) + np.uint32(x * x + y * y))


@njit()
def _one(row: Rows, sums: Sums) -> None:
    for p in range(sums.size):
        sums[p] += sums.dtype.type(row[p])


@njit()
def _one_squares(row: Rows, squares: Squares) -> None:
    for p in range(squares.size):
        value = np.int64(row[p])
        squares[p] += np.uint64(value * value)


@njit()
def push_words(rows: Rows, column: int, use: Ints, at: int, n: int, sums: Sums, squares: Squares) -> None:
    """Add whole words of the rows `use`; ``squares`` may have no rows."""
    for lo in range(0, n, WORDS_LINE):
        size = min(WORDS_LINE, n - lo)
        total, from_column = sums[0, at + lo : at + lo + size], column + lo
        k = 0
        while k + 8 <= use.size:
            _eight(rows, use, k, from_column, total)
            k += 8
        while k < use.size:
            _one(rows[use[k], from_column : from_column + size], total)
            k += 1
    if squares.shape[0]:
        for e in use:
            _one_squares(rows[e, column : column + n], squares[0, at : at + n])


@njit()
def _seen(row: Rows) -> np.uint32:
    seen = np.uint32(0)
    for p in range(row.size):
        seen |= np.uint32(row[p])
    return seen


@njit()
def _seen_in_four(rows: Rows, use: Ints, first: int, lo: int, n: int) -> np.uint32:
    a, b = rows[use[first], lo : lo + n], rows[use[first + 1], lo : lo + n]
    c, d = rows[use[first + 2], lo : lo + n], rows[use[first + 3], lo : lo + n]
    seen = np.uint32(0)
    for p in range(n):
        seen |= np.uint32((a[p] | b[p]) | (c[p] | d[p]))
    return seen


@njit()
def _mixed_jungfrau(row: Rows, at: int, sums: Sums, squares: Squares, counts: Counts) -> None:
    """Add one line: range 0 where no gain bit is set, 1, 2, and 3 for the code that means none."""
    n = row.size
    s0, s1, s2 = sums[0, at : at + n], sums[1, at : at + n], sums[2, at : at + n]
    c1, c2, c3 = counts[0, at : at + n], counts[1, at : at + n], counts[2, at : at + n]
    for p in range(n):
        word = np.uint32(row[p])
        value = word & np.uint32(0x3FFF)
        low, high = (word >> np.uint32(14)) & np.uint32(1), word >> np.uint32(15)
        one, two, none = low & (low ^ high), low & high, high & (low ^ high)
        s0[p] += value * (np.uint32(1) ^ (low | high))
        s1[p] += value * one
        s2[p] += value * two
        c1[p] += one
        c2[p] += two
        c3[p] += none
    if squares.shape[0]:
        q0, q1, q2 = squares[0, at : at + n], squares[1, at : at + n], squares[2, at : at + n]
        for p in range(n):
            word = np.uint32(row[p])
            value = word & np.uint32(0x3FFF)
            low, high = (word >> np.uint32(14)) & np.uint32(1), word >> np.uint32(15)
            square = value * value
            q0[p] += np.uint64(square * (np.uint32(1) ^ (low | high)))
            q1[p] += np.uint64(square * (low & (low ^ high)))
            q2[p] += np.uint64(square * (low & high))


@njit()
def _mixed_switched(
    row: Rows, keep: int, switch: int, at: int, sums: Sums, squares: Squares, counts: Counts
) -> None:
    """Add one line: range 1 where the switch bit is set."""
    n = row.size
    s0, s1, c1 = sums[0, at : at + n], sums[1, at : at + n], counts[0, at : at + n]
    bits, bit = np.uint32(keep), np.uint32(switch)
    for p in range(n):
        word = np.uint32(row[p])
        value = word & bits
        second = np.uint32(1) if (word & bit) != 0 else np.uint32(0)
        s0[p] += value * (np.uint32(1) ^ second)
        s1[p] += value * second
        c1[p] += second
    if squares.shape[0]:
        q0, q1 = squares[0, at : at + n], squares[1, at : at + n]
        for p in range(n):
            word = np.uint32(row[p])
            value = word & bits
            switched = np.uint64(1) if (word & bit) != 0 else np.uint64(0)
            square = np.uint64(value * value)
            q0[p] += square * (np.uint64(1) ^ switched)
            q1[p] += square * switched


@njit()
def push_ranges(
    rows: Rows, column: int, use: Ints, at: int, n: int, kind: int, keep: int, switch: int,
    sums: Sums, squares: Squares, counts: Counts,
) -> bool:
    """Add the rows `use` of words with gain bits; return whether any word had switched.

    Parameters
    ----------
    rows : (event, column) unsigned words
    column, n : int
        Columns [column, column + n).
    use : (k,) int64
        Numbers of the rows.
    at : int
        First pixel of the state.
    kind, keep, switch : int
        Decoding: `gain.JUNGFRAU` or `gain.SWITCHED`, value bits, gain bit.
    sums : (range, pixel) uint32
    squares : (range or 0, pixel) uint64
    counts : (range, pixel) uint32
        Of the ranges from 1 on, and of the words in none.
    """
    clean = ~np.uint32(keep) | np.uint32(switch)
    mixed = False
    for lo in range(0, n, LINE):
        size = min(LINE, n - lo)
        here, from_column = at + lo, column + lo
        first = sums[0, here : here + size]
        k = 0
        while k < use.size:
            if k + 4 <= use.size and _seen_in_four(rows, use, k, from_column, size) & clean == 0:
                _four(rows, use, k, from_column, first)
                if squares.shape[0]:
                    _four_squares(rows, use, k, from_column, squares[0, here : here + size])
                k += 4
                continue
            row = rows[use[k], from_column : from_column + size]
            if _seen(row) & clean == 0:
                _one(row, first)
                if squares.shape[0]:
                    _one_squares(row, squares[0, here : here + size])
            else:
                mixed = True
                if kind == JUNGFRAU:
                    _mixed_jungfrau(row, here, sums, squares, counts)
                else:
                    _mixed_switched(row, keep, switch, here, sums, squares, counts)
            k += 1
    return mixed


@njit()
def finish(
    sums: Sums, squares: Squares, counts: Counts, ranges: int, present: Ints, pixels: int,
    pedestal: NDArray[np.float32], factor: NDArray[np.float32], bad: float, out: NDArray[np.float64],
) -> None:
    """Turn exact sums into calibrated ones: number of values, sum, squared distances from the mean.

    Within a range the mean of the words and their squared distances from an integer near it
    are exact; the ranges are then merged, in their order.

    Parameters
    ----------
    sums, squares : (range, pixel)
        `squares` may have no rows.
    counts : (range or 0, pixel)
        Words of the ranges from 1 on, and, beyond the ranges, of those in none.
    ranges : int
        Gain ranges of the decoding.
    present : (panel,) int64
        Events that have each panel.
    pixels : int
        Of a panel.
    pedestal, factor : (range, pixel) float32
        No rows: the words are the values.
    bad : float
        Value of a word in no range; NaN: it counts as none.
    out : (2 or 3, pixel) float64
        As a node of `kernels`: number, sum, spread.
    """
    plain = factor.shape[0] == 0
    for p in range(sums.shape[1]):
        total, number, spread = 0.0, 0.0, 0.0
        left_over = np.int64(present[p // pixels])
        for g in range(counts.shape[0]):
            left_over -= np.int64(counts[g, p])
        for g in range(sums.shape[0]):
            count = left_over if g == 0 else np.int64(counts[g - 1, p])
            f = 1.0 if plain else np.float64(factor[g, p])
            if count == 0 or f != f:  # noqa: PLR0124  (NaN: no value)
                continue
            n, words = np.float64(count), np.int64(sums[g, p])
            level = 0.0 if plain else np.float64(pedestal[g, p])
            base = np.int64(np.rint(level))
            sum_here = (np.float64(words - count * base) - n * (level - np.float64(base))) * f
            if squares.shape[0]:
                pivot = words // count
                left = np.float64(words - count * pivot)
                square = np.float64(np.int64(squares[g, p]) - 2 * pivot * words + count * pivot * pivot)
                inside = max(0.0, square - left * left / n) * f * f
                if number > 0:
                    apart = sum_here / n - total / number
                    inside += apart * apart * (n * number / (n + number))
                spread += inside
            total += sum_here
            number += n
        if counts.shape[0] >= ranges and bad == bad and counts[ranges - 1, p]:  # noqa: PLR0124
            n = np.float64(counts[ranges - 1, p])
            if number > 0:
                spread += (total / number) ** 2 * (n * number / (n + number))
            number += n
        out[0, p], out[1, p] = number, total
        if out.shape[0] > 2:
            out[2, p] = spread

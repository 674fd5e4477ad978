"""Compiled accumulation: rows of values into sums, extremes and histograms (numba).

Every kernel takes ``rows[event, column]`` (C-contiguous), the columns ``[column, column + n)`` of it
that are wanted, and state arrays whose last axis is the pixel, from pixel `at` on.  One thread, no
GIL, additions in the order of the rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from psana_dask.jit import int32, int64, njit, pread
from psana_dask.reductions.leaves import CACHED, FAN, LEAF

Rows = NDArray[Any]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

WEIGHT, SUM, SPREAD, MEAN = 0, 1, 2, 3
"""Rows of a node: sums of weights, of weighted values, of weighted squared distances from the mean; the mean.

The mean is not the sum by the weight: it keeps the digits that a sum of large values loses.
"""

PIVOT, OFFSET, SQUARE = 2, 3, 4
"""Further rows of an open leaf: its first value, sums of distances from it and of their squares."""


# ---- reading ------------------------------------------------------------------------------------
@njit()
def read_rows(descriptors: NDArray[np.int32], offsets: Ints, size: int, out: NDArray[np.uint8]) -> int:
    """Read `size` bytes into each row whose descriptor is not negative; return the first that failed, or -1.

    Parameters
    ----------
    descriptors : (event,) int32
    offsets : (event,) int64
    size : int
    out : (event, bytes) uint8
    """
    for e in range(descriptors.size):
        if descriptors[e] < 0:
            continue
        done = 0
        while done < size:
            got = pread(int32(descriptors[e]), out[e, done:].ctypes, size - done, int64(offsets[e] + done))
            if got <= 0:
                return e
            done += got
    return -1


# ---- moments ------------------------------------------------------------------------------------
# Loops over pixels have no branches and few arrays: only then they become vector instructions.
@njit()
def _add(row: Rows, weight: float, total: Floats, sums: Floats) -> None:
    for p in range(row.size):
        value = np.float64(row[p])
        there = value == value  # noqa: PLR0124  (not NaN)
        total[p] += weight if there else 0.0
        sums[p] += weight * value if there else 0.0


@njit()
def _set_pivots(row: Rows, total: Floats, pivot: Floats) -> None:
    for p in range(row.size):
        value = np.float64(row[p])
        first = (value == value) & (total[p] == 0.0)  # noqa: PLR0124
        pivot[p] = value if first else pivot[p]


@njit()
def _add_squares(row: Rows, weight: float, pivot: Floats, offset: Floats, square: Floats) -> None:
    for p in range(row.size):
        value = np.float64(row[p])
        distance = value - pivot[p] if value == value else 0.0  # noqa: PLR0124
        offset[p] += weight * distance
        square[p] += weight * distance * distance


@njit()
def _add_rows(rows: Rows, column: int, n: int, use: Bools, weights: Floats, leaf: Floats, at: int) -> None:
    """Add rows to an open leaf, from its pixel `at` on."""
    end = at + n
    for e in range(rows.shape[0]):
        if use[e] and weights[e] > 0:
            row = rows[e, column : column + n]
            if leaf.shape[0] > PIVOT:
                _set_pivots(row, leaf[WEIGHT, at:end], leaf[PIVOT, at:end])
                _add_squares(
                    row, weights[e], leaf[PIVOT, at:end], leaf[OFFSET, at:end], leaf[SQUARE, at:end]
                )
            _add(row, weights[e], leaf[WEIGHT, at:end], leaf[SUM, at:end])


@njit(error_model="numpy")
def _spread(weight: Floats, offset: Floats, square: Floats, spread: Floats) -> None:
    for p in range(weight.size):
        there = weight[p] > 0
        found = square[p] - offset[p] * offset[p] / (weight[p] if there else 1.0)
        spread[p] = 0.0 if (found <= 0.0) | ~there else found


@njit(error_model="numpy")
def _mean(weight: Floats, offset: Floats, pivot: Floats, mean: Floats) -> None:
    for p in range(weight.size):
        there = weight[p] > 0
        mean[p] = pivot[p] + offset[p] / weight[p] if there else 0.0


@njit()
def close_leaf(leaf: Floats, at: int, n: int, node: Floats, place: int) -> None:
    """Turn pixels [at, at + n) of an open leaf into those of a node from `place` on, and empty the leaf."""
    end, stop = at + n, place + n
    node[WEIGHT, place:stop] = leaf[WEIGHT, at:end]
    node[SUM, place:stop] = leaf[SUM, at:end]
    if node.shape[0] > SPREAD:
        weight, offset = leaf[WEIGHT, at:end], leaf[OFFSET, at:end]
        _spread(weight, offset, leaf[SQUARE, at:end], node[SPREAD, place:stop])
        _mean(weight, offset, leaf[PIVOT, at:end], node[MEAN, place:stop])
    for k in range(leaf.shape[0]):
        leaf[k, at:end] = 0.0


@njit(error_model="numpy")
def _merge_spreads(one: Floats, two: Floats, apart: Floats, spread: Floats, other: Floats) -> None:
    """Merge squared distances; `apart` is how far the means of both are from each other."""
    for p in range(one.size):
        both = (one[p] > 0) & (two[p] > 0)
        share = one[p] * two[p] / (one[p] + two[p] if both else 1.0)
        merged = spread[p] + other[p] + apart[p] * apart[p] * share
        alone = other[p] if two[p] > 0 else spread[p]
        spread[p] = merged if both else alone


@njit(error_model="numpy")
def _merge_means(one: Floats, two: Floats, apart: Floats, mean: Floats, other: Floats) -> None:
    for p in range(one.size):
        both = (one[p] > 0) & (two[p] > 0)
        merged = mean[p] + apart[p] * (two[p] / (one[p] + two[p] if both else 1.0))
        alone = other[p] if two[p] > 0 else mean[p]
        mean[p] = merged if both else alone


@njit()
def _plus(first: Floats, second: Floats) -> None:
    for p in range(first.size):
        first[p] += second[p]


@njit()
def merge_nodes(first: Floats, at: int, n: int, second: Floats, place: int) -> None:
    """Merge a later node, from its pixel `place` on, into pixels [at, at + n) of the earlier one."""
    end, stop = at + n, place + n
    if first.shape[0] > SPREAD:
        one, two = first[WEIGHT, at:end], second[WEIGHT, place:stop]
        mean, other = first[MEAN, at:end], second[MEAN, place:stop]
        apart = other - mean
        _merge_spreads(one, two, apart, first[SPREAD, at:end], second[SPREAD, place:stop])
        _merge_means(one, two, apart, mean, other)
    _plus(first[WEIGHT, at:end], second[WEIGHT, place:stop])
    _plus(first[SUM, at:end], second[SUM, place:stop])


@njit()
def carry(count: int, level: int, kept: Floats, at: int, n: int, node: Floats, place: int) -> None:
    """Put the `count`-th node of a level into pixels [at, at + n) of the levels, as `leaves.Carry` does."""
    while True:
        above = kept[level]
        if (count - 1) % FAN == 0:
            for k in range(node.shape[0]):
                above[k, at : at + n] = node[k, place : place + n]
        else:
            merge_nodes(above, at, n, node, place)
        if count % FAN or level + 1 == kept.shape[0]:
            return
        node, place = above, at
        level, count = level + 1, count // FAN


@njit()
def push_moments(
    rows: Rows, column: int, n: int, use: Bools, weights: Floats, start: int, at: int,
    leaf: Floats, kept: Floats, work: Floats,
) -> None:
    """Add rows number `start`, `start` + 1, ... of a reduction.

    Parameters
    ----------
    rows : (event, column) array
    column, n : int
        Columns [column, column + n) are taken.
    use : (event,) bool
    weights : (event,) float64
    start : int
        Events that came before.
    at : int
        First pixel of the state.
    leaf : (2 or 5, pixel) float64
        The open leaf.
    kept : (level, 2 or 4, pixel) float64
        Nodes of each level.
    work : (4 or 9, CACHED) float64
        Zeros: a leaf, and room for a node.
    """
    for first in range(0, n, CACHED):
        part = min(CACHED, n - first)
        _push_part(rows, column + first, part, use, weights, start, at + first, leaf, kept, work)


@njit()
def _push_part(
    rows: Rows, column: int, n: int, use: Bools, weights: Floats, start: int, at: int,
    leaf: Floats, kept: Floats, work: Floats,
) -> None:
    """Add rows to some pixels; leaves that are whole among the rows never leave the cache."""
    own, node = work[: leaf.shape[0]], work[leaf.shape[0] :]
    first = 0
    while first < rows.shape[0]:
        stop = min(rows.shape[0], first + LEAF - (start + first) % LEAF)
        whole = stop - first == LEAF
        target, place = (own, 0) if whole else (leaf, at)
        _add_rows(rows[first:stop], column, n, use[first:stop], weights[first:stop], target, place)
        if (start + stop) % LEAF == 0:
            close_leaf(target, place, n, node, 0)
            carry((start + stop) // LEAF, 0, kept, at, n, node, 0)
        first = stop


# ---- order-free ---------------------------------------------------------------------------------
@njit()
def push_extremes(rows: Rows, column: int, n: int, use: Bools, at: int, least: Rows, most: Rows) -> None:
    """Lower `least` and raise `most`; NaN is no value, and in the state it means none so far."""
    low, high = least[at : at + n], most[at : at + n]
    for e in range(rows.shape[0]):
        if use[e]:
            row = rows[e, column : column + n]
            for p in range(n):
                value, a, b = row[p], low[p], high[p]
                low[p] = value if (value < a) | (a != a) else a  # noqa: PLR0124
                high[p] = value if (value > b) | (b != b) else b  # noqa: PLR0124


@njit()
def push_present(rows: Rows, column: int, n: int, use: Bools, at: int, count: NDArray[np.int64]) -> None:
    """Count the values that are not NaN."""
    found = count[at : at + n]
    for e in range(rows.shape[0]):
        if use[e]:
            row = rows[e, column : column + n]
            for p in range(n):
                found[p] += 1 if row[p] == row[p] else 0


@njit()
def bin_of(value: float, edges: Floats, scale: float) -> int:
    """Return the bin of a value, as `numpy.histogram` has it, or -1; `scale` is bins per unit, or 0."""
    last = edges.size - 1
    if not (edges[0] <= value <= edges[last]):
        return -1
    if scale == 0.0:
        return min(int(np.searchsorted(edges, value, side="right")), last) - 1
    k = min(int((value - edges[0]) * scale), last - 1)
    if value < edges[k]:
        return k - 1
    return k + 1 if value >= edges[k + 1] and k + 1 < last else k


@njit()
def push_histogram(
    rows: Rows, column: int, n: int, use: Bools, at: int, good: NDArray[np.uint8],
    edges: Floats, scale: float, counts: NDArray[np.int64],
) -> None:
    """Count values into bins; ``counts[pixel, bin]`` per pixel, ``counts[0, bin]`` for all of them."""
    each = counts.shape[0] > 1
    for e in range(rows.shape[0]):
        if use[e]:
            for p in range(n):
                if good[at + p]:
                    k = bin_of(np.float64(rows[e, column + p]), edges, scale)
                    if k >= 0:
                        counts[at + p if each else 0, k] += 1

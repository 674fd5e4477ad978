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
from psana_dask.reductions.leaves import FAN, LEAF

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
@njit()
def _add(row: Rows, weight: float, total: Floats, sums: Floats) -> None:
    for p in range(row.size):
        value = np.float64(row[p])
        there = value == value  # noqa: PLR0124  (not NaN)
        total[p] += weight if there else 0.0
        sums[p] += weight * value if there else 0.0


@njit()
def _add_squares(
    row: Rows, weight: float, total: Floats, sums: Floats, pivot: Floats, offset: Floats, square: Floats
) -> None:
    for p in range(row.size):
        value = np.float64(row[p])
        there = value == value  # noqa: PLR0124  (not NaN)
        first = value if total[p] == 0.0 else pivot[p]
        pivot[p] = first if there else pivot[p]
        distance = value - first if there else 0.0
        offset[p] += weight * distance
        square[p] += weight * distance * distance
        total[p] += weight if there else 0.0
        sums[p] += weight * value if there else 0.0


@njit()
def close_leaf(leaf: Floats, at: int, n: int, node: Floats) -> None:
    """Turn an open leaf into a node, and empty the leaf."""
    for p in range(at, at + n):
        weight = leaf[WEIGHT, p]
        node[WEIGHT, p] = weight
        node[SUM, p] = leaf[SUM, p]
        if node.shape[0] > SPREAD:
            spread = leaf[SQUARE, p] - leaf[OFFSET, p] * leaf[OFFSET, p] / weight if weight > 0 else 0.0
            node[SPREAD, p] = max(0.0, spread) if spread == spread else spread  # noqa: PLR0124
            node[MEAN, p] = leaf[PIVOT, p] + leaf[OFFSET, p] / weight if weight > 0 else 0.0
    for k in range(leaf.shape[0]):
        leaf[k, at : at + n] = 0.0


@njit()
def merge_nodes(first: Floats, second: Floats, at: int, n: int) -> None:
    """Merge the later node into the earlier one, pixels [at, at + n)."""
    spreads = first.shape[0] > SPREAD
    for p in range(at, at + n):
        one, two = first[WEIGHT, p], second[WEIGHT, p]
        if spreads and two > 0:
            if one > 0:
                apart = second[MEAN, p] - first[MEAN, p]
                between = apart * apart * (one * two / (one + two))
                first[SPREAD, p] = first[SPREAD, p] + second[SPREAD, p] + between
                first[MEAN, p] += apart * (two / (one + two))
            else:
                first[SPREAD, p], first[MEAN, p] = second[SPREAD, p], second[MEAN, p]
        first[WEIGHT, p] = one + two
        first[SUM, p] += second[SUM, p]


@njit()
def carry(count: int, level: int, at: int, n: int, node: Floats, kept: Floats) -> None:
    """Put the `count`-th node of a level into the levels, as `leaves.Carry` does."""
    while True:
        above = kept[level]
        if (count - 1) % FAN == 0:
            above[:, at : at + n] = node[:, at : at + n]
        else:
            merge_nodes(above, node, at, n)
        if count % FAN or level + 1 == kept.shape[0]:
            return
        node = above
        level, count = level + 1, count // FAN


@njit()
def push_moments(
    rows: Rows, column: int, n: int, use: Bools, weights: Floats, start: int, at: int,
    leaf: Floats, node: Floats, kept: Floats,
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
    node : (2 or 4, pixel) float64
        Work space.
    kept : (level, 2 or 4, pixel) float64
        Nodes of each level.
    """
    end = at + n
    for e in range(rows.shape[0]):
        if use[e] and weights[e] > 0:
            row = rows[e, column : column + n]
            if leaf.shape[0] > PIVOT:
                _add_squares(
                    row, weights[e], leaf[WEIGHT, at:end], leaf[SUM, at:end], leaf[PIVOT, at:end],
                    leaf[OFFSET, at:end], leaf[SQUARE, at:end],
                )
            else:
                _add(row, weights[e], leaf[WEIGHT, at:end], leaf[SUM, at:end])
        if (start + e + 1) % LEAF == 0:
            close_leaf(leaf, at, n, node)
            carry((start + e + 1) // LEAF, 0, at, n, node, kept)


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

"""Compiled sums and histograms over the pixels of a region, event by event (numba)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from psana_dask.jit import njit
from psana_dask.reductions.kernels import bin_of

LANES = 16
"""Partial sums of a sum over all pixels: pixel p goes to lane p % 16, and lanes are added in order."""

Values = NDArray[np.float64]
Flags = NDArray[np.uint8]


@njit()
def _all(values: Values, good: Flags, sums: Values, counts: Values) -> None:
    lanes = np.zeros(LANES)
    number = 0
    for p in range(values.size):
        there = (values[p] == values[p]) & (good[p] != 0)
        lanes[p % LANES] += values[p] if there else 0.0
        number += 1 if there else 0
    for k in range(LANES):
        sums[0] += lanes[k]
    counts[0] = number


@njit()
def sums(values: Values, good: Flags, axis: int) -> tuple[Values, Values]:
    """Return sums and numbers of values, (event, position along `axis` or 1).

    Parameters
    ----------
    values : (event, panel, row, col) float64
        NaN is left out.
    good : (panel, row, col) uint8
    axis : int
        The axis that stays, 1 to 3; 0 for none.
    """
    events = values.shape[0]
    length = 1 if axis == 0 else values.shape[axis]
    total, counts = np.zeros((events, length)), np.zeros((events, length))
    for e in range(events):
        if axis == 0:
            _all(values[e].reshape(-1), good.reshape(-1), total[e], counts[e])
            continue
        for i in range(values.shape[1]):
            for j in range(values.shape[2]):
                for k in range(values.shape[3]):
                    value = values[e, i, j, k]
                    if good[i, j, k] and value == value:  # noqa: PLR0124
                        place = i if axis == 1 else (j if axis == 2 else k)
                        total[e, place] += value
                        counts[e, place] += 1
    return total, counts


@njit()
def histograms(rows: Values, good: Flags, edges: Values) -> NDArray[np.int64]:
    """Return how many good pixels are in each bin, (event, bin)."""
    counts = np.zeros((rows.shape[0], edges.size - 1), np.int64)
    for e in range(rows.shape[0]):
        for p in range(rows.shape[1]):
            if good[p]:
                k = bin_of(rows[e, p], edges, 0.0)
                if k >= 0:
                    counts[e, k] += 1
    return counts

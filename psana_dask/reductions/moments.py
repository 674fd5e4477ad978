"""Sums, means and variances of float values, in the fixed order of `leaves`.

The state is that of a counter: an open leaf, and at most seven merged nodes of each level.
Batches of any size may be pushed; the value is the same.
Contract: tests/reductions/test_statistics.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psana_dask.reductions.leaves import CACHED, FAN, LEAF, Partial, span
from psana_dask.reductions.tiles import Tile

Floats = NDArray[np.float64]

LEVELS = 9
"""Enough for 2e9 events; memory is taken when a level is first used."""


@dataclass(frozen=True, eq=False)
class MomentNode(Partial):
    """Sums over some events: what a task sends.

    Parameters
    ----------
    sums : (2 or 4, pixel) float64
        Sum of weights, of weighted values and, where variances are wanted, of weighted squared
        distances from the mean, and the mean.
    numbers : (pixel,) int64, optional
        How many values there were, if they have weights.
    """

    sums: Floats
    numbers: NDArray[np.int64] | None = None

    def merge(self, other: MomentNode) -> MomentNode:
        """Return both, this one first; its arrays may be used for it."""
        from psana_dask.reductions.kernels import merge_nodes

        sums = self.sums if self.sums.flags.writeable else self.sums.copy()
        merge_nodes(sums, 0, sums.shape[1], other.sums, 0)
        both = self.numbers is not None and other.numbers is not None
        return MomentNode(sums, self.numbers + other.numbers if both else None)  # type: ignore[operator]


class Moments:
    """Accumulates sums of values, tile by tile.

    Parameters
    ----------
    pixels : int
        Of all panels.
    squares : bool
        Keep what variances need.
    weighted : bool
        Count the values too: the sum of weights does not say how many they were.
    levels : int
        Levels of the tree, the leaves not counted: a task of ``span(k)`` events needs k + 1.
    """

    needs_values = True

    def __init__(self, pixels: int, *, squares: bool, weighted: bool = False, levels: int = LEVELS) -> None:
        rows = 4 if squares else 2
        self._leaf = np.zeros((5 if squares else 2, pixels))
        self._work = np.zeros((len(self._leaf) + rows, CACHED))
        self._kept = np.zeros((levels, rows, pixels))
        self._numbers = np.zeros(pixels, np.int64) if weighted else None
        self._events = 0

    def push(self, tile: Tile) -> None:
        """Add the events of a tile; every pixel must see every event, in order."""
        from psana_dask.reductions.kernels import push_moments, push_present

        rows = _as_rows(tile.shown)
        push_moments(
            rows, tile.column, tile.count, tile.use, tile.weights, tile.start, tile.at, self._leaf,
            self._kept, self._work,
        )  # fmt: skip
        if self._numbers is not None:
            use = tile.use & (tile.weights > 0)
            push_present(rows, tile.column, tile.count, use, tile.at, self._numbers)

    def advance(self, events: int) -> None:
        """Note that all tiles of some events were pushed."""
        self._events += events

    def rescale(self, exponent: int) -> None:
        """Multiply all weights by a power of two: no bit of a mean or variance changes."""
        from psana_dask.reductions.kernels import OFFSET, SPREAD, SQUARE, SUM, WEIGHT

        for k in (WEIGHT, SUM, *((OFFSET, SQUARE) if len(self._leaf) > SQUARE else ())):
            self._leaf[k] = np.ldexp(self._leaf[k], exponent)
        for k in (WEIGHT, SUM, *((SPREAD,) if self._kept.shape[1] > SPREAD else ())):
            self._kept[:, k] = np.ldexp(self._kept[:, k], exponent)

    def absorb(self, node: MomentNode, level: int) -> None:
        """Add a complete node that another accumulator made of the events that come next.

        Parameters
        ----------
        node : MomentNode
        level : int
            It covers ``span(level)`` events.

        Raises
        ------
        ValueError
            This one does not end where such a node may begin.
        """
        from psana_dask.reductions.kernels import carry

        if self._events % span(level):
            raise ValueError(f"{self._events} events are no whole number of {span(level)}: cannot merge here")
        carry(self._events // span(level) + 1, level, self._kept, 0, node.sums.shape[1], node.sums, 0)
        self._events += span(level)

    def node(self) -> MomentNode:
        """Return everything so far as one node; more may be pushed after it."""
        from psana_dask.reductions.kernels import close_leaf, merge_nodes

        pixels = self._leaf.shape[1]
        found: Floats | None = None
        if self._events % LEAF:
            found = np.empty((self._kept.shape[1], pixels))
            close_leaf(self._leaf.copy(), 0, pixels, found, 0)
        for level, kept in enumerate(self._kept):
            nodes = self._events // span(level)
            if nodes % FAN or (nodes and level + 1 == len(self._kept)):
                merged = kept.copy()
                if found is not None:
                    merge_nodes(merged, 0, pixels, found, 0)
                found = merged
        return MomentNode(np.zeros((self._kept.shape[1], pixels)) if found is None else found, self._numbers)


def _as_rows(values: NDArray[Any]) -> NDArray[Any]:
    return values.view(np.uint8) if values.dtype == np.bool_ else values

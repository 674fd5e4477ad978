"""Least and greatest values, and histograms: exact, whatever the order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psana_dask.reductions.leaves import Partial
from psana_dask.reductions.tiles import Tile

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ExtremeNode(Partial):
    """Least and greatest values of some events, (pixel,); NaN, or nothing in `present`, where there is none.

    Parameters
    ----------
    least, most : (pixel,) array
    present : (panel,) int64
        Events that have each panel.
    """

    least: NDArray[Any]
    most: NDArray[Any]
    present: Ints

    def merge(self, other: ExtremeNode) -> ExtremeNode:
        """Return both."""
        least, most = np.fmin(self.least, other.least), np.fmax(self.most, other.most)
        return ExtremeNode(least, most, self.present + other.present)


class Extremes:
    """Accumulates least and greatest values, tile by tile.

    Parameters
    ----------
    panels, pixels : int
        Pixels are those of one panel.
    dtype : numpy dtype
        Of the values.
    """

    def __init__(self, panels: int, pixels: int, dtype: np.dtype[Any], *, values: bool) -> None:
        self.needs_values = values
        self._pixels = pixels
        self._dtype = dtype
        kept = np.dtype(np.uint8) if dtype.kind == "b" else dtype.newbyteorder("=")
        ends = (np.nan, np.nan) if kept.kind == "f" else (np.iinfo(kept).max, np.iinfo(kept).min)
        self._least, self._most = (np.full(panels * pixels, end, kept) for end in ends)
        self._present = np.zeros(panels, np.int64)

    def push(self, tile: Tile) -> None:
        """Add the events of a tile."""
        from psana_dask.reductions.kernels import push_extremes

        rows = tile.shown if self.needs_values else tile.raw
        rows = rows.view(np.uint8) if rows.dtype.kind == "b" else rows
        push_extremes(rows, tile.column, tile.count, tile.use, tile.at, self._least, self._most)
        if tile.at % self._pixels == 0:
            self._present[tile.panel] += np.count_nonzero(tile.use)

    def advance(self, events: int) -> None:
        """Note that all tiles of some events were pushed."""

    def node(self) -> ExtremeNode:
        """Return what was found so far."""
        kind = np.dtype(bool) if self._dtype.kind == "b" else self._least.dtype
        return ExtremeNode(self._least.astype(kind), self._most.astype(kind), self._present)


@dataclass(frozen=True, eq=False)
class HistogramNode(Partial):
    """Counts of some events, (pixel or 1, bin)."""

    counts: NDArray[np.int64]

    def merge(self, other: HistogramNode) -> HistogramNode:
        """Return both."""
        return HistogramNode(self.counts + other.counts)


class Counts:
    """Counts values into bins, tile by tile.

    Parameters
    ----------
    pixels : int
        Of all panels.
    edges : (bin + 1,) float64
        Increasing; the last bin includes its upper edge, as in `numpy.histogram`.
    per_pixel : bool
        A histogram of each pixel, or one of all of them.
    good : (pixel,) uint8, optional
        Pixels that count.
    """

    def __init__(
        self, pixels: int, edges: NDArray[np.float64], *, per_pixel: bool, values: bool,
        good: NDArray[np.uint8] | None = None,
    ) -> None:  # fmt: skip
        self.needs_values = values
        self._edges = np.asarray(edges, np.float64)
        bins = len(self._edges) - 1
        step = (self._edges[-1] - self._edges[0]) / bins
        even = np.linspace(self._edges[0], self._edges[-1], bins + 1)
        near = np.abs(self._edges - even).max() < step / 4  # the kernel puts a guess right by one bin
        self._scale = float(1 / step) if near else 0.0
        self._good = np.ones(pixels, np.uint8) if good is None else good
        self._counts = np.zeros((pixels if per_pixel else 1, bins), np.int64)

    def push(self, tile: Tile) -> None:
        """Add the events of a tile."""
        from psana_dask.reductions.kernels import push_histogram

        rows = tile.shown if self.needs_values else tile.raw
        rows = rows.view(np.uint8) if rows.dtype.kind == "b" else rows
        push_histogram(
            rows, tile.column, tile.count, tile.use, tile.at, self._good, self._edges, self._scale,
            self._counts,
        )  # fmt: skip

    def advance(self, events: int) -> None:
        """Note that all tiles of some events were pushed."""

    def node(self) -> HistogramNode:
        """Return the counts so far."""
        return HistogramNode(self._counts)

"""Exact sums: integers are added as integers, by gain range, and calibrated once at the end.

Where calibration is affine per pixel and gain range (no common mode), the sum of calibrated
values is that of the words: ``sum_g factor_g (S_g - N_g pedestal_g)``.  S and N are exact, so the
order of the additions does not matter, workers need no constants, and a pass costs little
more than the read.  Contract: tests/reductions/test_exact.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psana_dask.calib.detectors import PLAIN, Decoding
from psana_dask.calib.gain import KIND_NUMBER
from psana_dask.reductions.leaves import Partial
from psana_dask.reductions.tiles import MOST_EVENTS, Tile

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ExactNode(Partial):
    """Exact sums of some events: what a task sends.

    Parameters
    ----------
    rows : int
        Most events that any pixel holds.
    present : (panel,) int64
        Events that have each panel.
    sums : (range, pixel) integers
        Of 32 bits while they suffice.
    squares : (range or 0, pixel) uint64
    counts : (range or 0, pixel) uint32
        Of range 1 and up, and of words in no range; no rows if no word has switched.
    """

    rows: int
    present: Ints
    sums: NDArray[Any]
    squares: NDArray[np.uint64]
    counts: NDArray[np.uint32]

    def merge(self, other: ExactNode) -> ExactNode:
        """Return the sums of both; the arrays of this one may be used for it."""
        rows = self.rows + other.rows
        sums = self.sums
        if sums.dtype.itemsize == 4 and rows > MOST_ROWS:
            sums = sums.astype(np.int64)
        return ExactNode(
            rows, self.present + other.present, _summed(sums, other.sums),
            _summed(self.squares, other.squares), _summed(self.counts, other.counts),
        )  # fmt: skip


MOST_ROWS = 1 << 16
"""Words of 16 bits that may be added in 32 bits."""


def _summed(one: NDArray[Any], two: NDArray[Any]) -> NDArray[Any]:
    """Add the rows that both have, in place where there is room; rows that one lacks are zero."""
    longer, shorter = (one, two) if len(one) >= len(two) else (two, one)
    if longer.dtype.itemsize < shorter.dtype.itemsize:
        longer = longer.astype(shorter.dtype)
    if not longer.flags.writeable:  # sent by another process
        longer = longer.copy()
    longer[: len(shorter)] += shorter.astype(longer.dtype, copy=False)
    return longer


class ExactSums:
    """Accumulates exact sums, tile by tile.

    Parameters
    ----------
    panels, pixels : int
        Pixels are those of one panel.
    dtype : numpy dtype
        Of the words.
    decoding : Decoding
        How a word splits into value and gain range; plain for raw words.
    squares : bool
        Keep what variances need.
    """

    needs_values = False

    def __init__(
        self, panels: int, pixels: int, dtype: np.dtype[Any], decoding: Decoding = PLAIN, *, squares: bool
    ) -> None:
        self.decoding = decoding
        self._pixels = pixels
        kind = KIND_NUMBER[decoding.kind]
        self._code = (kind, decoding.data_bits, decoding.gain_bit)
        ranges = {"plain": 1, "jungfrau": 3, "switched": 2}[decoding.kind]
        more = {"plain": 0, "jungfrau": 3, "switched": 1}[decoding.kind]
        self._narrow = dtype.itemsize <= 2
        small = np.int32 if dtype.kind == "i" else np.uint32
        total = panels * pixels
        self._present = np.zeros(panels, np.int64)
        self._sums = np.zeros((ranges, total), small if self._narrow else np.int64)
        self._squares = np.zeros((ranges if squares else 0, total), np.uint64)
        self._counts = np.zeros((more, total), np.uint32)
        self._wide: NDArray[np.int64] | None = None
        self._rows, self._done = 0, 0
        self._mixed = False

    def push(self, tile: Tile) -> None:
        """Add the events of a tile."""
        from psana_dask.reductions.exact_kernels import push_ranges, push_words

        use = np.flatnonzero(tile.use)
        words, at, n = _as_words(tile.raw), tile.at, tile.count
        if self.decoding.kind == "plain":
            push_words(words, tile.column, use, at, n, self._sums, self._squares)
        else:
            self._mixed |= push_ranges(
                words, tile.column, use, at, n, *self._code, self._sums, self._squares, self._counts
            )
        if at % self._pixels == 0:
            self._present[tile.panel] += len(use)

    def advance(self, events: int) -> None:
        """Note that all tiles of some events were pushed."""
        self._rows += events
        self._done += events
        if self._narrow and self._rows > MOST_ROWS - MOST_EVENTS:
            self._widen()

    def _widen(self) -> None:
        """Make room in the narrow sums."""
        wide = np.zeros(self._sums.shape, np.int64) if self._wide is None else self._wide
        wide += self._sums
        self._sums[...] = 0
        self._wide, self._rows = wide, 0

    def node(self) -> ExactNode:
        """Return what was added so far; push no more after it."""
        sums = self._sums
        if self._wide is not None:
            self._widen()
            sums = self._wide
        node = ExactNode(self._done, self._present, sums, self._squares, self._counts)
        return node if self._mixed else _only_first_range(node)


def _only_first_range(node: ExactNode) -> ExactNode:
    """Leave out what no word was in: most runs have no switched pixel in most places."""
    return replace(node, sums=node.sums[:1], squares=node.squares[:1], counts=node.counts[:0])


def _as_words(raw: NDArray[Any]) -> NDArray[Any]:
    return raw.view(np.uint8) if raw.dtype == np.bool_ else raw


def finished(
    node: ExactNode, pixels: int, pedestal: NDArray[np.float32] | None, factor: NDArray[np.float32] | None,
    bad: float, ranges: int,
) -> NDArray[np.float64]:
    """Return (2 or 3, pixel) float64: number of values, sum, squared distances from the mean.

    Parameters
    ----------
    node : ExactNode
    pixels : int
        Of a panel.
    pedestal, factor : (range, pixel) float32, optional
        None: the words are the values.
    bad : float
        Value of words in no range.
    ranges : int
        Gain ranges of the decoding.
    """
    from psana_dask.reductions.exact_kernels import finish

    total = node.sums.shape[1]
    none = np.zeros((0, total), np.float32)
    out = np.empty((3 if len(node.squares) else 2, total))
    finish(
        node.sums, node.squares, node.counts, ranges, node.present, pixels,
        none if pedestal is None else pedestal, none if factor is None else factor, bad, out,
    )  # fmt: skip
    return out

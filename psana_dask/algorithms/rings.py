"""Pixels by ring: which pixels lie in which bin of radius, so that a frame is taken ring by ring.

Adding pixels to the sum of their ring in the order of the frame waits for the sum before at
every pixel.  Here the pixels of each tile of `TILE` are sorted by ring: a *run* holds those of
one ring in one tile, its sums stay in registers, and the tile stays in the cache while it is
read out of order.  `psana_dask.algorithms.radialpeaks` and `azimuthal` are built on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

TILE = 1 << 16
# pixels: positions in a tile fit 16 bits, and 256 KiB of float32 stay in the second cache
LANES = 16
# sums side by side: two 8-float vectors; the order of adding is fixed, so results never vary


@dataclass(frozen=True)
class Rings:
    """The pixels of a detector in the order of tiles and, within a tile, of rings."""

    count: int
    # number of rings
    order: NDArray[np.uint16]
    # (used pixel,) position within the tile
    starts: NDArray[np.int64]
    # (run + 1,) where each run starts in `order`
    ring: NDArray[np.int32]
    # (run,) its ring
    tile_runs: NDArray[np.int64]
    # (tile + 1,) first run of each tile

    @property
    def kernel(self) -> tuple[NDArray[Any], ...]:
        """What kernels take."""
        return self.order, self.starts, self.ring, self.tile_runs


def sorted_by_ring(ring: NDArray[Any], count: int) -> Rings:
    """Sort pixels by ring.

    Parameters
    ----------
    ring : array of int
        Ring of each pixel, any shape; pixels outside ``0 <= ring < count`` are left out.
    count : int
        Number of rings.
    """
    flat = np.asarray(ring).reshape(-1)
    orders, rings, lengths = [], [], []
    tile_runs = [0]
    for first in range(0, len(flat), TILE):
        tile = flat[first : first + TILE]
        good = np.flatnonzero((tile >= 0) & (tile < count))
        sorted_good = good[np.argsort(tile[good], kind="stable")]
        found, length = np.unique(tile[sorted_good], return_counts=True)
        orders.append(sorted_good.astype(np.uint16))
        rings.append(found)
        lengths.append(length)
        tile_runs.append(tile_runs[-1] + len(found))
    starts = np.concatenate([[0], np.cumsum(np.concatenate([*lengths, []]))]).astype(np.int64)
    numbers = np.concatenate([*rings, []]).astype(np.int32)
    order: NDArray[np.uint16] = np.concatenate([*orders, np.empty(0, np.uint16)]).astype(np.uint16)
    return Rings(count, order, starts, numbers, np.array(tile_runs, np.int64))

"""Local extremes of frames: brightest or darkest pixels of their rows, columns and squares."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from psana_dask.algorithms.localpeaks import extremes_of
from psana_dask.algorithms.radialpeaks import panel_shape

ROW, COL, SQUARE = 1, 2, 4
"""Bits of the flags: extreme of its row, of its column, and then of its square."""


def local_extrema(
    frames: NDArray[Any], *, rank: int = 3, mask: NDArray[Any] | None = None, minima: bool = False
) -> NDArray[np.uint8]:
    """Flag local maxima, or minima, of each panel; psana's ``local_maxima_2d`` (psalgos).

    Parameters
    ----------
    frames : (event, [panel,] row, col) array
        NaN is no extreme.
    rank : int
        How far a pixel is compared, to each side.
    mask : array of a frame's shape, optional
        1 good, 0 bad: bad pixels are no extremes, and nothing is compared with them.
    minima : bool

    Returns
    -------
    uint8 array of the shape of `frames`
        `ROW` | `COL` | `SQUARE` for an extreme of its square of ``2 * rank + 1`` pixels. Rows and columns
        are walked as psana does: behind a higher pixel the walk goes on beyond its reach, and
        passes over a few extremes of their row or column.

    Examples
    --------
    >>> import numpy as np
    >>> from psana_dask import algorithms
    >>> frame = np.array([[[0, 1, 0], [1, 5, 2], [0, 3, 0]]], np.float32)
    >>> int((algorithms.local_extrema(frame, rank=1) == 7).sum())
    1
    """
    if rank < 1:
        raise ValueError(f"rank={rank}: compare with one pixel to each side at least")
    shape = panel_shape(frames.shape[1:])
    flat = np.ascontiguousarray(frames, np.float32).reshape(len(frames), -1)
    good = np.ones(flat.shape[1], bool) if mask is None else np.asarray(mask, bool).reshape(-1)
    out = np.zeros(flat.shape, np.uint8)
    extremes_of(flat, good, shape, rank, np.float32(-1 if minima else 1), out)
    return out.reshape(frames.shape)


def cross_maxima(frames: NDArray[Any], *, mask: NDArray[Any] | None = None) -> NDArray[np.uint8]:
    """Flag pixels above both neighbours in their row (1) and in their column (2).

    psana's ``local_maxima_rank1_cross_2d``: nothing is compared with bad pixels or beyond the border.

    Parameters
    ----------
    frames : (event, [panel,] row, col) array
    mask : array of a frame's shape, optional
        1 good, 0 bad.

    Returns
    -------
    uint8 array of the shape of `frames`

    Examples
    --------
    >>> both = algorithms.cross_maxima(frames) == 3
    """
    values = np.asarray(frames, np.float32)
    good = np.isfinite(values) if mask is None else np.isfinite(values) & np.asarray(mask, bool)
    known = np.where(good, values, -np.inf)
    out = np.zeros(values.shape, np.uint8)
    for axis, bit in ((-1, ROW), (-2, COL)):
        line = np.moveaxis(known, axis, 0)
        border = np.full_like(line[:1], -np.inf)
        top = (line > np.concatenate([border, line[:-1]])) & (line > np.concatenate([line[1:], border]))
        out |= np.where(np.moveaxis(top, 0, axis), np.uint8(bit), np.uint8(0))
    return out

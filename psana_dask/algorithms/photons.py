"""Photons from charge: counting where a photon's charge is shared by two pixels, and droplets.

`count_photons` is psana's method (`det.photons`): each pixel holds its whole photons; where the
rest has a local maximum of at least half a photon, it is joined with the largest rest beside it,
and counts as one more photon if both together reach `fraction`.

`find_droplets` is smalldata_tools' method: groups of pixels above a high threshold grow by one pixel
to neighbours above a low one; groups that then touch are one droplet.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from psana_dask.algorithms.radialpeaks import panel_shape
from psana_dask.jit import njit


def count_photons(
    frames: NDArray[Any], adu: float, *, fraction: float = 0.9, mask: NDArray[Any] | None = None
) -> NDArray[np.uint16]:
    """Count the photons in each pixel.

    Parameters
    ----------
    frames : (event, [panel,] row, col) array
        Calibrated; NaN holds no photon.
    adu : float
        Signal of one photon.
    fraction : float
        Least sum of two neighbouring rests that makes a photon, in photons.
    mask : array of a frame's shape, optional
        1 good, 0 bad: bad pixels hold nothing.

    Returns
    -------
    uint16 array of the shape of `frames`

    Examples
    --------
    >>> import numpy as np
    >>> from psana_dask import algorithms
    >>> frame = np.array([[[0, 0, 0, 0], [0, 6, 3, 0], [0, 0, 0, 24]]], np.float32)
    >>> algorithms.count_photons(frame, adu=10, fraction=0.9)[0]
    array([[0, 0, 0, 0],
           [0, 1, 0, 0],
           [0, 0, 0, 2]], dtype=uint16)
    """
    panels, rows, cols = panel_shape(frames.shape[1:])
    flat = np.ascontiguousarray(frames, np.float32).reshape(-1, panels, rows, cols)
    good = np.ones((panels, rows, cols), bool)
    if mask is not None:
        good = np.asarray(mask, bool).reshape(panels, rows, cols)
    out = np.zeros(flat.shape, np.uint16)
    if rows < 2 or cols < 2:
        raise ValueError(f"photons are shared between pixels: panels of {rows} x {cols} are too small")
    _photons(flat, good, np.float32(adu), np.float32(fraction), out)
    return out.reshape(frames.shape)


@njit()
def _photons(frames: Any, good: Any, adu: Any, fraction: Any, out: Any) -> None:
    _, panels, rows, cols = frames.shape
    rest = np.zeros((rows + 2, cols + 2), np.float32)  # a border of nothing: -1 is no candidate
    free = np.zeros((rows + 2, cols + 2), np.bool_)
    rest[0], rest[-1], rest[:, 0], rest[:, -1] = -1.0, -1.0, -1.0, -1.0
    for event in range(frames.shape[0]):
        for panel in range(panels):
            count = out[event, panel]
            for r in range(rows):
                _split(frames[event, panel, r], good[panel, r], adu, count[r], rest[r + 1, 1:-1])
            free[1:-1, 1:-1] = True
            _join_all(rest, free, fraction, count)


@njit()
def _split(row: Any, good: Any, adu: Any, count: Any, rest: Any) -> None:
    """Split the values of a row into whole photons and the rest (a loop without branches)."""
    nothing, most = np.float32(0.0), np.float32(65534.0)
    for i in range(row.size):
        c = np.uint64(i)
        v = row[c] / adu
        v = v if good[c] and v > nothing else nothing
        whole = np.floor(v)
        count[c] = np.uint16(np.int32(whole if whole < most else most))
        rest[c] = v - whole


@njit()
def _join_all(rest: Any, free: Any, fraction: Any, count: Any) -> None:
    """Join the rests of the inner pixels, then of the borders: left, right, top, bottom, corners."""
    rows, cols = count.shape
    half = np.float32(0.5)
    for r in range(1, rows - 1):
        line = rest[r + 1]
        for c in range(1, cols - 1):
            if line[np.uint64(c + 1)] >= half:
                _join(rest, free, fraction, count, r, c)
    for r in range(1, rows - 1):
        _join(rest, free, fraction, count, r, 0)
    for r in range(1, rows - 1):
        _join(rest, free, fraction, count, r, cols - 1)
    for c in range(1, cols - 1):
        _join(rest, free, fraction, count, 0, c)
    for c in range(1, cols - 1):
        _join(rest, free, fraction, count, rows - 1, c)
    for r in (0, rows - 1):
        for c in (0, cols - 1):
            _join(rest, free, fraction, count, r, c)


@njit()
def _join(rest: Any, free: Any, fraction: Any, count: Any, row: int, col: int) -> None:
    """Make a photon of a local maximum and the largest rest beside it, if they suffice."""
    r, c = row + 1, col + 1
    top = rest[r, c]
    if top < 0.5 or not free[r, c]:
        return
    best, at = np.float32(-1.0), (r, c)
    for there in ((r, c - 1), (r, c + 1), (r - 1, c), (r + 1, c)):
        if rest[there] >= top:
            return
        if free[there] and rest[there] > best:
            best, at = rest[there], there
    if best >= 0 and top + best >= fraction:
        count[row, col] += 1
        free[r, c] = False
        free[at] = False

"""Droplets: the charge of one or a few photons on connected pixels (compiled).

smalldata_tools' rule: pixels above the high threshold `high`, and their four neighbours above the low
one, make groups (four neighbours again); groups whose sum stays below `least` are dropped.  The
charge of a droplet divided by that of a photon is its number of photons.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from psana_dask.algorithms.groups import COLUMNS, measure
from psana_dask.algorithms.peaks import Peaks
from psana_dask.algorithms.radialpeaks import panel_shape
from psana_dask.jit import njit


def find_droplets(
    frames: NDArray[Any],
    *,
    high: float,
    low: float,
    least: float = 0.0,
    mask: NDArray[Any] | None = None,
    most: int = 4096,
) -> Peaks:
    """Find the droplets of each frame.

    Parameters
    ----------
    frames : (event, [panel,] row, col) array
        Calibrated; NaN is in no droplet.
    high, low : float
        Thresholds, in units of the data: of a droplet's core, and of the pixels beside it.
    least : float
        Least sum of a droplet.
    mask : array of a frame's shape, optional
        1 good, 0 bad.
    most : int
        Droplets kept of each frame; how many more there are is in ``overflow``.

    Returns
    -------
    Peaks
        `intensity` is the sum of a droplet; background 0, `snr` and `noise` NaN.

    Examples
    --------
    >>> import numpy as np
    >>> from psana_dask import algorithms
    >>> frame = np.array([[[0, 0, 0], [0, 80, 40], [0, 0, 0]]], np.float32)
    >>> droplets = algorithms.find_droplets(frame, high=60, low=30)
    >>> int(droplets.count[0]), droplets["intensity"][0, 0], droplets["col"][0, 0]
    (1, np.float64(120.0), np.float64(1.3333333333333333))
    """
    if low > high:
        raise ValueError(f"low={low} is above high={high}")
    shape = panel_shape(frames.shape[1:])
    flat = np.ascontiguousarray(frames, np.float32).reshape(-1, int(np.prod(shape)))
    good = np.ones(flat.shape[1], bool) if mask is None else np.asarray(mask, bool).reshape(-1)
    out = np.full((len(flat), most, len(COLUMNS)), np.nan)
    found = np.zeros(len(flat), np.int64)
    _droplets(flat, good, shape, (np.float32(high), np.float32(low), float(least)), out, found)
    kept = np.minimum(found, most)
    return Peaks(out, kept, found - kept)


@njit()
def _droplets(frames: Any, good: Any, shape: Any, limits: Any, out: Any, counts: Any) -> None:
    panels, rows, cols = shape
    high, low, least = limits
    size = rows * cols
    state = np.zeros(size, np.bool_)
    members = np.empty((size, 2), np.int64)
    row_of = np.empty(out.shape[2])
    for event in range(frames.shape[0]):
        for panel in range(panels):
            frame = frames[event, panel * size : (panel + 1) * size]
            here = good[panel * size : (panel + 1) * size]
            if _grown(frame, here, rows, cols, high, low, state) == 0:
                continue
            for i in range(size):
                if not state[i]:
                    continue
                n = _collect(state, members, i, rows, cols)
                row_of[:] = np.nan
                measure(frame, members[:n], (0, 0, 0, 0), cols, 0.0, row_of)
                row_of[0] = panel
                if row_of[3] >= least:
                    if counts[event] < out.shape[1]:
                        out[event, counts[event]] = row_of
                    counts[event] += 1


@njit()
def _grown(frame: Any, good: Any, rows: int, cols: int, high: Any, low: Any, state: Any) -> int:
    """Flag the pixels of droplets, return how many cores there are; `state` is all False before."""
    cores = 0
    for i in range(frame.size):
        if not (good[i] and frame[i] > high):
            continue
        cores += 1
        state[i] = True
        row, col = i // cols, i % cols
        for r, c in ((row - 1, col), (row + 1, col), (row, col - 1), (row, col + 1)):
            if 0 <= r < rows and 0 <= c < cols and good[r * cols + c] and frame[r * cols + c] > low:
                state[r * cols + c] = True
    return cores


@njit()
def _collect(state: Any, members: Any, first: int, rows: int, cols: int) -> int:
    """Collect a droplet and clear its flags."""
    members[0, 0], members[0, 1] = first // cols, first % cols
    state[first] = False
    n, at = 1, 0
    while at < n:
        row, col = members[at, 0], members[at, 1]
        at += 1
        for r, c in ((row - 1, col), (row + 1, col), (row, col - 1), (row, col + 1)):
            if 0 <= r < rows and 0 <= c < cols and state[r * cols + c]:
                state[r * cols + c] = False
                members[n, 0], members[n, 1] = r, c
                n += 1
    return n

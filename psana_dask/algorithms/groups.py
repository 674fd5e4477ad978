"""Groups of pixels: what every peak finder and the droplets measure of one (compiled)."""

from __future__ import annotations

from typing import Any

import numpy as np

from psana_dask.jit import njit

COLUMNS = (
    "panel", "row", "col", "intensity", "background", "snr", "npix", "highest", "noise",
    "row_sigma", "col_sigma", "row_min", "row_max", "col_min", "col_max", "row_top", "col_top",
)  # fmt: skip
"""What is known of a peak, in the order of the kernels' output.

``row, col``: centroid in pixels of the panel, centres at whole numbers; ``intensity``: sum of the
values above ``background``; ``snr``: see each finder; ``highest``: largest value above background;
``noise``: standard deviation of the background; ``*_sigma``: standard deviation of the position,
weighted by the values above background; ``*_min, *_max``: the box around it; ``*_top``: its
brightest pixel.
"""


@njit()
def widened(values: Any) -> Any:
    """Return an array twice as long that starts with the same values."""
    wide = np.empty(2 * values.size, values.dtype)
    for i in range(values.size):
        wide[i] = values[i]
    return wide


@njit()
def measure(frame: Any, members: Any, origin: Any, cols: int, level: float, out: Any) -> None:
    """Measure the pixels `members` (row, col) above `level`; positions count from the panel's corner.

    `frame` is flat; `origin` is the line and column of (0, 0) of the members, then the line and
    column of the panel's corner; a line has `cols` pixels.  Sets row, col, intensity, background,
    npix, highest, the sigmas, box and brightest pixel of `out`.
    """
    total = down = right = down2 = right2 = 0.0
    highest = -np.inf
    first, left = origin[0] - origin[2], origin[1] - origin[3]
    for i in range(members.shape[0]):
        v = np.float64(frame[(origin[0] + members[i, 0]) * cols + origin[1] + members[i, 1]]) - level
        row, col = members[i, 0] + first, members[i, 1] + left
        total += v
        down += v * row
        right += v * col
        down2 += v * row * row
        right2 += v * col * col
        if v > highest:
            highest = v
            out[15], out[16] = row, col
        if i == 0:
            out[11] = out[12] = row
            out[13] = out[14] = col
        out[11], out[12] = min(out[11], row), max(out[12], row)
        out[13], out[14] = min(out[13], col), max(out[14], col)
    out[1], out[2], out[9], out[10] = out[15], out[16], 0.0, 0.0
    if total > 0:
        out[1], out[2] = down / total, right / total
        if members.shape[0] > 1:
            out[9] = np.sqrt(max(down2 / total - out[1] * out[1], 0.0))
            out[10] = np.sqrt(max(right2 / total - out[2] * out[2], 0.0))
    out[3], out[4], out[6], out[7] = total, level, members.shape[0], highest

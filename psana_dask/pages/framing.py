"""Frames as pictures: assembled images with their place in millimetres, panels side by side without one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from psana_dask.pages.pictures import Picture, Range

if TYPE_CHECKING:
    import xarray as xr

GAP = 4
"""Pixels between panels of a mosaic."""


def mosaic(panels: npt.NDArray[Any], gap: int = GAP) -> npt.NDArray[np.float64]:
    """Lay panels side by side: as many in a row as make the whole about square.

    Parameters
    ----------
    panels : (..., row, col) array
    gap : int
        Pixels between panels; they are NaN.

    Returns
    -------
    (y, x) float64
    """
    if panels.ndim == 2:
        return panels.astype(float)
    panels = panels.reshape(-1, *panels.shape[-2:])
    count, rows, cols = panels.shape
    across = math.ceil(math.sqrt(count))
    down = math.ceil(count / across)
    out = np.full((down * (rows + gap) - gap, across * (cols + gap) - gap), np.nan)
    for k, panel in enumerate(panels):
        y, x = k // across * (rows + gap), k % across * (cols + gap)
        out[y : y + rows, x : x + cols] = panel
    return out


def picture_from(array: xr.DataArray) -> Picture:
    """Return a frame, (y, x) or (..., row, col), as a picture."""
    if array.dims == ("y", "x") and "x" in array.coords:
        x, y = (_millimetres(array[dim].values) for dim in ("x", "y"))
        return Picture(np.asarray(array.values, np.float32), x, y, "mm")
    values = mosaic(array.values).astype(np.float32)
    return Picture(values, (0.0, float(values.shape[1])), (0.0, float(values.shape[0])))


def _millimetres(places: npt.NDArray[np.float64]) -> Range:
    """Return where the first bin begins and the last one ends, mm."""
    half = float(places[-1] - places[0]) / max(len(places) - 1, 1) / 2
    return 1e3 * (float(places[0]) - half), 1e3 * (float(places[-1]) + half)


def ascending(picture: Picture) -> npt.NDArray[np.float32]:
    """Return the values with x and y that rise, as bokeh wants them."""
    rows = slice(None, None, 1 if picture.y[0] <= picture.y[1] else -1)
    columns = slice(None, None, 1 if picture.x[0] <= picture.x[1] else -1)
    return np.ascontiguousarray(picture.values[rows, columns])

"""Frames as pictures: assembled images with their place in millimetres, panels side by side without one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from psana_dask.drawing import side_by_side
from psana_dask.pages.pictures import Picture, Range

if TYPE_CHECKING:
    import xarray as xr


def picture_from(array: xr.DataArray) -> Picture:
    """Return a frame, (y, x) or (..., row, col), as a picture."""
    if array.dims == ("y", "x") and "x" in array.coords:
        x, y = (_millimetres(array[dim].values) for dim in ("x", "y"))
        return Picture(np.asarray(array.values, np.float32), x, y, "mm")
    values = side_by_side(array.values).astype(np.float32)
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

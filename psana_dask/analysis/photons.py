"""Photons and droplets of DataArrays of frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from psana_dask.algorithms.droplets import find_droplets as find_in_block
from psana_dask.algorithms.groups import COLUMNS
from psana_dask.algorithms.photons import count_photons as count_in_block
from psana_dask.analysis.events import EVENT, Output, by_event


def count_photons(
    frames: xr.DataArray, adu: float, *, fraction: float = 0.9, mask: Any = None
) -> xr.DataArray:
    """Count the photons in each pixel; see `algorithms.count_photons`.

    Returns
    -------
    DataArray
        uint16, of the shape of `frames` (time first), lazy where they are.
    """
    dims = {str(dim): size for dim, size in frames.sizes.items() if dim != EVENT}
    chosen = {"adu": adu, "fraction": fraction, "mask": None if mask is None else np.asarray(mask, bool)}
    return by_event(count_in_block, frames, [Output("photons", dims, np.uint16)], constants=chosen)["photons"]


def find_droplets(
    frames: xr.DataArray, *, high: float, low: float, least: float = 0.0, mask: Any = None, most: int = 4096
) -> xr.Dataset:
    """Find the droplets of each frame; see `algorithms.find_droplets`.

    Returns
    -------
    Dataset
        One variable (time, peak) for each of `algorithms.COLUMNS`, ``count`` and ``overflow``, as from
        `find_peaks`; `peak_table` makes one row per droplet of it.
    """
    outputs = [
        Output("values", {"peak": most, "column": len(COLUMNS)}),
        Output("count", dtype=np.int64),
        Output("overflow", dtype=np.int64),
    ]
    good = None if mask is None else np.asarray(mask, bool)
    chosen = {"high": high, "low": low, "least": least, "mask": good, "most": most}
    found = by_event(_droplets, frames, outputs, constants=chosen)
    columns = {name: found["values"].isel(column=k) for k, name in enumerate(COLUMNS)}
    return xr.Dataset({**columns, "count": found["count"], "overflow": found["overflow"]})


def _droplets(frames: Any, **choices: Any) -> tuple[Any, ...]:
    found = find_in_block(frames, **choices)
    return found.values, found.count, found.overflow

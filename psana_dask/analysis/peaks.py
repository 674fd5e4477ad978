"""Peaks and hits of DataArrays of frames."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from psana_dask.algorithms import peaks as blocks
from psana_dask.algorithms.groups import COLUMNS
from psana_dask.algorithms.hits import lit_pixels as count_lit
from psana_dask.algorithms.peaks import UNITS, Finder, momentum, places
from psana_dask.algorithms.positions import Positions
from psana_dask.analysis.events import EVENT, Output, by_event
from psana_dask.analysis.perframe import PerFrame

if TYPE_CHECKING:
    import pandas as pd

PEAK = "peak"


def find_peaks(
    frames: xr.DataArray,
    finder: Finder,
    *,
    most: int = 1024,
    positions: Positions | None = None,
    energy: float | xr.DataArray | None = None,
) -> xr.Dataset:
    """Find the peaks of each frame.

    Parameters
    ----------
    frames : DataArray ([time][, panel], row, col)
        ``run.cspad.calib``, for instance.
    finder : RadialFinder or LocalFinder
        From `algorithms.prepare_radial`, `prepare_adaptive` or `prepare_droplet`.
    most : int
        Peaks kept of each frame.
    positions : Positions, optional
        Adds ``x`` and ``y`` in metres, laboratory frame.
    energy : float or DataArray (time), optional
        Photon energy in eV: adds ``q`` in 1/angstrom.

    Returns
    -------
    Dataset
        One variable (time, peak) for each of `algorithms.COLUMNS`, NaN beyond ``count`` (time);
        ``overflow`` (time) says how many more there were. Lazy where `frames` is; `peak_table`
        makes one row per peak of it.

    Examples
    --------
    >>> where = algorithms.pixel_positions(run.cspad.geometry, distance=0.1)
    >>> finder = algorithms.prepare_radial(where.radius / 110e-6, mask=run.cspad.mask.values, adc=100)
    >>> peaks = analysis.find_peaks(run.cspad.calib, finder, positions=where, energy=9500)
    >>> hits = run.select(peaks["count"] >= 15)
    """
    outputs = [
        Output("values", {PEAK: most, "column": len(COLUMNS)}),
        Output("count", dtype=np.int64),
        Output("overflow", dtype=np.int64),
    ]
    found = by_event(_block, frames, outputs, constants={"finder": finder, "most": most})
    columns = {name: found["values"].isel(column=k) for k, name in enumerate(COLUMNS)}
    data = xr.Dataset({**columns, "count": found["count"], "overflow": found["overflow"]})
    return data if positions is None else _placed(data, positions, energy)


def _block(frames: NDArray[Any], finder: Finder, most: int) -> tuple[NDArray[Any], ...]:
    found = blocks.find_peaks(frames, finder, most=most)
    return found.values, found.count, found.overflow


def _placed(data: xr.Dataset, where: Positions, energy: float | xr.DataArray | None) -> xr.Dataset:
    """Add x, y and q."""
    at = xr.apply_ufunc(
        lambda panel, row, col: places(panel, row, col, where),
        data["panel"], data["row"], data["col"],
        dask="parallelized", output_core_dims=[[], [], []], output_dtypes=[np.float64] * 3,
    )  # fmt: skip
    data = data.assign(x=at[0], y=at[1])
    if energy is not None:
        data["q"] = xr.apply_ufunc(
            momentum, *at, energy, dask="parallelized", output_dtypes=[np.float64], join="left"
        )
    for name, unit in UNITS.items():
        if name in data:
            data[name].attrs["units"] = unit
    return data


def find_hits(frames: xr.DataArray, rule: Callable[[NDArray[Any]], Any]) -> xr.DataArray:
    """Ask a rule of your own of each frame.

    Parameters
    ----------
    frames : DataArray ([time,] ...)
    rule : callable
        Takes frames (event, ...) and gives one boolean per event, which depends on its frame alone.

    Returns
    -------
    DataArray
        bool (time), for `Run.select`; lazy where `frames` is, and then worked out in parallel.

    Examples
    --------
    >>> hits = analysis.find_hits(run.cspad.calib, lambda frames: (frames > 50).sum(axis=(1, 2, 3)) > 200)
    >>> run.select(hits)
    """
    return by_event(_ruled, frames, [Output("hit", dtype=np.bool_)], constants={"rule": rule})["hit"]


def _ruled(frames: NDArray[Any], rule: Callable[[NDArray[Any]], Any]) -> NDArray[np.bool_]:
    found = np.asarray(rule(frames))
    if found.shape != (len(frames),):
        raise ValueError(f"the rule gave an array of shape {found.shape} for {len(frames)} frames")
    return found.astype(bool)


def powder_of(of: str, finder: Finder, *, most: int = 1024) -> PerFrame:
    """Return the peaks of each frame of a field as a frame, for reductions: a virtual powder pattern.

    Each peak's ``intensity`` stands at its brightest pixel, everything else is 0.

    Parameters
    ----------
    of : str
        ``"cspad.calib"``.
    finder : RadialFinder or LocalFinder
    most : int
        Peaks kept of each frame.

    Examples
    --------
    >>> powder = run.sum(analysis.powder_of("cspad.calib", finder))
    >>> run.cspad.assembled(powder).plot()
    """
    return PerFrame(of, "powder", partial(_powder, finder=finder, most=most), dtype=np.float32)


def _powder(frames: NDArray[Any], finder: Finder, most: int) -> NDArray[np.float32]:
    table = blocks.find_peaks(frames, finder, most=most).table()
    out = np.zeros((len(frames), *finder.shape), np.float32)
    place = tuple(table[name].astype(np.int64) for name in ("event", "panel", "row_top", "col_top"))
    np.add.at(out, place, table["intensity"].astype(np.float32))
    return out.reshape(frames.shape)


def peak_table(peaks: xr.Dataset) -> pd.DataFrame:
    """Return one row per peak: the time and position of its event, and what is known of it.

    Parameters
    ----------
    peaks : Dataset
        From `find_peaks`; computed here if it is lazy, and left as it is.

    Examples
    --------
    >>> analysis.peak_table(analysis.find_peaks(run.cspad.calib, finder))
    """
    import pandas as pd

    loaded = peaks.compute() if EVENT in peaks.dims else peaks.compute().expand_dims(EVENT)
    event, peak = np.nonzero(np.arange(loaded.sizes[PEAK]) < loaded["count"].values[:, None])
    time = {EVENT: loaded[EVENT].values[event]} if EVENT in loaded.coords else {}
    names = [str(n) for n, v in loaded.data_vars.items() if v.dims == (EVENT, PEAK)]
    columns = {n: loaded[n].values[event, peak] for n in names}
    whole = ("panel", "npix", "row_min", "row_max", "col_min", "col_max", "row_top", "col_top")
    columns |= {n: columns[n].astype(np.int64) for n in whole}
    return pd.DataFrame({**time, "event": event, **columns})


def lit_pixels(frames: xr.DataArray, threshold: float, *, mask: Any = None) -> xr.Dataset:
    """Count the pixels above a threshold in each frame, and add them up.

    Parameters
    ----------
    frames : DataArray ([time,] ...)
    threshold : float
        In units of the data.
    mask : array of one frame's shape, optional
        1 good, 0 bad.

    Returns
    -------
    Dataset
        ``lit_pixels`` and ``lit_sum`` (time).

    Examples
    --------
    >>> hits = run.select(analysis.lit_pixels(run.cspad.calib, 50)["lit_pixels"] > 200)
    """
    outputs = [Output("lit_pixels", dtype=np.int64), Output("lit_sum")]
    good = None if mask is None else np.asarray(mask, bool)
    found = by_event(count_lit, frames, outputs, constants={"threshold": threshold, "mask": good})
    return xr.Dataset(found)

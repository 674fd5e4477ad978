"""Azimuthal integration of DataArrays of frames."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from psana_dask.algorithms import azimuthal as blocks
from psana_dask.algorithms.azimuthal import UNITS, Integrator
from psana_dask.analysis.events import Output, by_event


def integrate(
    frames: xr.DataArray,
    integrator: Integrator,
    energy: xr.DataArray | None = None,
    *,
    error: Literal["poisson", "azimuthal"] | None = None,
    gain: float = 1.0,
) -> xr.Dataset:
    """Integrate frames azimuthally, on the panels: nothing is assembled.

    Parameters
    ----------
    frames : DataArray ([time][, panel], row, col)
        ``run.cspad.calib``, for instance.
    integrator : Integrator
        From `algorithms.prepare_azimuthal`.
    energy : DataArray (time), optional
        Photon energies in eV, for an integrator in q without one.
    error : {None, "poisson", "azimuthal"}
        See `psana_dask.algorithms.azimuthal`.
    gain : float
        Signal of one photon, for ``"poisson"``.

    Returns
    -------
    Dataset
        ``intensity`` and ``pixels`` (how many count), and ``error`` if asked for: ([time][, azimuth], q),
        or ``two_theta`` or ``radius`` in place of ``q``. Lazy where `frames` is.

    Examples
    --------
    >>> where = algorithms.pixel_positions(run.cspad.geometry, distance=0.0925)
    >>> table = algorithms.prepare_azimuthal(where, bins=500, energy=9500, mask=run.cspad.mask.values)
    >>> analysis.integrate(run.cspad.calib, table).intensity.mean("time").plot()
    """
    sectors, bins = integrator.bins
    dims = {"azimuth": sectors, integrator.unit: bins}
    names = ("intensity", "error", "pixels")
    chosen = {"integrator": integrator, "error": error, "gain": gain}
    sides = () if energy is None else (energy,)
    found = by_event(_block, frames, [Output(name, dims) for name in names], *sides, constants=chosen)
    if error is None:
        del found["error"]
    azimuth = ("azimuth", integrator.azimuth_centres, {"units": "degree"})
    radial = (integrator.unit, integrator.centres, {"units": UNITS[integrator.unit]})
    data = xr.Dataset(found).assign_coords({"azimuth": azimuth, integrator.unit: radial})
    return data.isel(azimuth=0, drop=True) if sectors == 1 else data


def _block(
    frames: NDArray[Any], energy: NDArray[np.float64] | None = None, **choices: Any
) -> tuple[NDArray[Any], ...]:
    return tuple(blocks.integrate(frames, choices.pop("integrator"), energy, **choices))

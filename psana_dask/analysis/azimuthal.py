"""Azimuthal integration of DataArrays of frames."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from psana_dask.algorithms import azimuthal as blocks
from psana_dask.algorithms.azimuthal import UNITS, Integrator
from psana_dask.analysis.events import Output, by_event
from psana_dask.analysis.perframe import PerFrame


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
    dims = dict(zip(("azimuth", integrator.unit), integrator.bins, strict=True))
    names = ("intensity", "error", "pixels")
    chosen = {"integrator": integrator, "error": error, "gain": gain}
    sides = () if energy is None else (energy,)
    found = by_event(_block, frames, [Output(name, dims) for name in names], *sides, constants=chosen)
    if error is None:
        del found["error"]
    data = xr.Dataset(found).assign_coords(_coords(integrator))
    return data.isel(azimuth=0, drop=True) if integrator.bins[0] == 1 else data


def _coords(integrator: Integrator) -> dict[str, Any]:
    azimuth = ("azimuth", integrator.azimuth_centres, {"units": "degree"})
    radial = (integrator.unit, integrator.centres, {"units": UNITS[integrator.unit]})
    return {"azimuth": azimuth, integrator.unit: radial}


def profile_of(of: str, integrator: Integrator, *, energy: str | None = None) -> PerFrame:
    """Return the azimuthal profile of each frame of a field, for reductions.

    Parameters
    ----------
    of : str
        ``"cspad.calib"``.
    integrator : Integrator
        From `algorithms.prepare_azimuthal`.
    energy : str, optional
        Field of the photon energies in eV, for an integrator in q without one.

    Returns
    -------
    PerFrame
        ([azimuth, ]q), or ``two_theta`` or ``radius`` in place of ``q``.

    Examples
    --------
    >>> run.mean(analysis.profile_of("cspad.calib", table), by=("delay", edges))
    """
    coords = _coords(integrator)
    dims = dict(zip(coords, integrator.bins, strict=True))
    if integrator.bins[0] == 1:
        del coords["azimuth"], dims["azimuth"]
    function = partial(_profile, integrator=integrator, shape=tuple(dims.values()))
    return PerFrame(of, "profile", function, dims, coords=coords, along=(energy,) if energy else ())


def _profile(
    frames: NDArray[Any], energy: NDArray[np.float64] | None = None, *, integrator: Integrator,
    shape: tuple[int, ...],
) -> NDArray[np.float64]:  # fmt: skip
    return blocks.integrate(frames, integrator, energy).intensity.reshape(len(frames), *shape)


def _block(
    frames: NDArray[Any], energy: NDArray[np.float64] | None = None, **choices: Any
) -> tuple[NDArray[Any], ...]:
    return tuple(blocks.integrate(frames, choices.pop("integrator"), energy, **choices))

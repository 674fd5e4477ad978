"""Photons and droplets of DataArrays of frames."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from psana_dask.algorithms.droplets import find_droplets as find_in_block
from psana_dask.algorithms.groups import COLUMNS
from psana_dask.algorithms.photons import count_photons as count_in_block
from psana_dask.algorithms.spectra import fit_photon_peaks as fit_in_block
from psana_dask.analysis.events import EVENT, Output, by_event
from psana_dask.analysis.perframe import PerFrame


def count_photons(
    frames: xr.DataArray, adu: float, *, fraction: float = 0.9, mask: Any = None
) -> xr.DataArray:
    """Count the photons in each pixel; see `algorithms.count_photons`.

    Returns
    -------
    DataArray
        uint16, of the shape of `frames` (time first), lazy where they are.

    Examples
    --------
    >>> photons = analysis.count_photons(run.cspad.calib, adu=30)
    """
    dims = {str(dim): size for dim, size in frames.sizes.items() if dim != EVENT}
    chosen = {"adu": adu, "fraction": fraction, "mask": None if mask is None else np.asarray(mask, bool)}
    return by_event(count_in_block, frames, [Output("photons", dims, np.uint16)], constants=chosen)["photons"]


def photons_of(of: str, adu: float, *, fraction: float = 0.9, mask: Any = None) -> PerFrame:
    """Return the photons in each pixel of each frame of a field, for reductions.

    Parameters
    ----------
    of : str
        ``"cspad.calib"``.
    adu, fraction, mask
        As for `algorithms.count_photons`.

    Examples
    --------
    >>> run.sum(analysis.photons_of("cspad.calib", adu=30))
    """
    good = None if mask is None else np.asarray(mask, bool)
    function = partial(count_in_block, adu=adu, fraction=fraction, mask=good)
    return PerFrame(of, "photons", function, dtype=np.uint16)


def spectrum_of(of: str, edges: Iterable[float], *, high: float, low: float, **choices: Any) -> PerFrame:
    """Return how many droplets of each frame of a field lie between edges, for reductions.

    Parameters
    ----------
    of : str
        ``"cspad.calib"``.
    edges : iterable of float
        Increasing, in units of the data; the last bin includes its upper edge.
    high, low, **choices
        As for `algorithms.find_droplets`.

    Examples
    --------
    >>> run.sum(analysis.spectrum_of("cspad.calib", np.arange(0, 200, 2), high=20, low=8)).plot()
    """
    limits = np.asarray(list(edges), np.float64)
    if len(limits) < 2 or not (np.diff(limits) > 0).all():
        raise ValueError(f"edges of bins increase: {limits[:4]}...")
    if choices.get("mask") is not None:
        choices["mask"] = np.asarray(choices["mask"], bool)
    function = partial(_spectrum, edges=limits, high=high, low=low, **choices)
    coords = {"intensity": ("intensity", (limits[1:] + limits[:-1]) / 2)}
    return PerFrame(of, "spectrum", function, {"intensity": len(limits) - 1}, np.int64, coords)


def _spectrum(frames: Any, edges: Any, **choices: Any) -> Any:
    found = find_in_block(frames, **choices)
    out = np.zeros((len(frames), len(edges) - 1), np.int64)
    for counts, intensity, number in zip(out, found["intensity"], found.count, strict=True):
        counts[:] = np.histogram(intensity[:number], edges)[0]
    return out


def find_droplets(
    frames: xr.DataArray, *, high: float, low: float, least: float = 0.0, mask: Any = None, most: int = 4096
) -> xr.Dataset:
    """Find the droplets of each frame; see `algorithms.find_droplets`.

    Returns
    -------
    Dataset
        One variable (time, peak) for each of `algorithms.COLUMNS`, ``count`` and ``overflow``, as from
        `find_peaks`; `peak_table` makes one row per droplet of it.

    Examples
    --------
    >>> droplets = analysis.find_droplets(run.epix.calib, high=20, low=8, least=25)
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


def fit_photon_peaks(histogram: xr.DataArray, adu: float, *, least: int = 20) -> xr.Dataset:
    """Find the peaks of no photon and of one photon in histograms that `Run.reduce` made.

    Parameters
    ----------
    histogram : DataArray
        Of ``run.reduce(Histogram(edges), "cspad.calib")``, whose bins have ``<bin>_left`` and ``_right``.
    adu, least
        As for `algorithms.fit_photon_peaks`.

    Returns
    -------
    Dataset
        ``pedestal``, ``noise`` and ``gain``, in the units of the values, over the other dimensions; NaN
        where a peak was not found.

    Raises
    ------
    ValueError
        The array has no such bins.

    Examples
    --------
    >>> counts = run.reduce(Histogram(range(-20, 200)), "cspad.calib")
    >>> analysis.fit_photon_peaks(counts, adu=30)
    """
    dim = next((str(d) for d in histogram.dims if f"{d}_left" in histogram.coords), None)
    if dim is None:
        raise ValueError(f"{histogram.name} {histogram.dims} has no bins with left and right edges")
    edges = np.append(histogram[f"{dim}_left"].values, histogram[f"{dim}_right"].values[-1])
    counts = histogram.transpose(..., dim)
    found = fit_in_block(counts.values, edges, adu, least=least)
    kept = {name: c for name, c in counts.coords.items() if dim not in c.dims}
    arrays = zip(found._fields, found, strict=True)
    return xr.Dataset({name: xr.DataArray(v, kept, counts.dims[:-1]) for name, v in arrays})

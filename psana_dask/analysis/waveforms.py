"""Edges, windows and fits of DataArrays of waveforms (time, ..., sample)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from psana_dask.algorithms import waveforms as blocks
from psana_dask.analysis.events import EVENT, Output, by_event

if TYPE_CHECKING:
    import pandas as pd


def find_edges(waveforms: xr.DataArray, *, most: int = 16, **choices: Any) -> xr.Dataset:
    """Find edges by constant fraction; see `algorithms.find_edges` for the choices.

    Parameters
    ----------
    waveforms : DataArray ([time,] ..., sample)
        The last dimension counts samples.
    most : int
        Edges kept of each waveform.

    Returns
    -------
    Dataset
        ``position`` (samples) and ``amplitude`` ([time,] ..., edge), NaN beyond ``count`` ([time,] ...);
        ``overflow`` says how many more there were. Lazy where `waveforms` is.

    Examples
    --------
    >>> edges = analysis.find_edges(run.acqiris.waveform, threshold=-0.05, deadtime=5)
    >>> seconds = edges.position * period + delay
    """
    dims = _channels(waveforms)
    outputs = [
        Output("position", {**dims, "edge": most}),
        Output("amplitude", {**dims, "edge": most}),
        Output("count", dims, np.int64),
        Output("overflow", dims, np.int64),
    ]
    return xr.Dataset(by_event(_edges, waveforms, outputs, constants={"most": most, **choices}))


def _edges(waveforms: NDArray[Any], **choices: Any) -> tuple[NDArray[Any], ...]:
    found = blocks.find_edges(waveforms, **choices)
    return found.position, found.amplitude, found.count, found.overflow


PULSES = ("position", "height", "area", "first", "length")


def find_pulses(waveforms: xr.DataArray, *, most: int = 16, **choices: Any) -> xr.Dataset:
    """Find pulses beyond a threshold; see `algorithms.find_pulses` for the choices.

    Returns
    -------
    Dataset
        ``position first length`` (samples), ``height`` and ``area`` ([time,] ..., pulse), NaN beyond
        ``count`` ([time,] ...), and ``overflow``. Lazy where `waveforms` is.

    Examples
    --------
    >>> pulses = analysis.find_pulses(flat, threshold=-0.02)
    """
    dims = _channels(waveforms)
    padded = [Output(name, {**dims, "pulse": most}) for name in PULSES]
    counts = [Output(name, dims, np.int64) for name in ("count", "overflow")]
    chosen = {"most": most, **choices}
    return xr.Dataset(by_event(_pulses, waveforms, [*padded, *counts], constants=chosen))


def _pulses(waveforms: NDArray[Any], **choices: Any) -> tuple[NDArray[Any], ...]:
    found = blocks.find_pulses(waveforms, **choices)
    return (*(getattr(found, name) for name in PULSES), found.count, found.overflow)


def edge_table(found: xr.Dataset) -> pd.DataFrame:
    """Return one row per edge or pulse: its event, its channel, and what is known of it.

    Parameters
    ----------
    found : Dataset
        From `find_edges` or `find_pulses`; computed here if it is lazy.

    Returns
    -------
    DataFrame
        ``time``, ``event`` (position), the other dimensions, then the variables.

    Examples
    --------
    >>> analysis.edge_table(analysis.find_edges(flat, threshold=-0.02))
    """
    import pandas as pd

    loaded = found.compute()
    padded = {str(n): v for n, v in loaded.data_vars.items() if v.dims != loaded["count"].dims}
    dims = next(iter(padded.values())).dims
    there = np.arange(loaded.sizes[dims[-1]]) < loaded["count"].values[..., None]
    place = dict(zip(dims, np.nonzero(there), strict=True))
    labels = {str(d): loaded[d].values[place[d]] if d in loaded.coords else place[d] for d in dims[:-1]}
    events = {"event": place[EVENT]} if EVENT in dims else {}
    return pd.DataFrame({**labels, **events, **{n: v.values[there] for n, v in padded.items()}})


def subtract_baseline(waveforms: xr.DataArray, region: slice) -> xr.DataArray:
    """Take the median of a region of samples off each waveform; see `algorithms.subtract_baseline`.

    Examples
    --------
    >>> flat = analysis.subtract_baseline(run.acq.waveforms().waveform, slice(0, 100))
    """
    samples = {str(waveforms.dims[-1]): waveforms.shape[-1]}
    outputs = [Output(str(waveforms.name or "waveform"), {**_channels(waveforms), **samples})]
    found = by_event(blocks.subtract_baseline, waveforms, outputs, constants={"region": region})
    return found[outputs[0].name].assign_attrs(waveforms.attrs)


def integrate_windows(waveforms: xr.DataArray, windows: ArrayLike, *, period: float = 1.0) -> xr.DataArray:
    """Integrate over windows of samples, ([time,] ..., window); see `algorithms.integrate_windows`.

    Examples
    --------
    >>> analysis.integrate_windows(flat, [(0, 50), (50, 100)], period=1e-9)
    """
    limits = np.asarray(windows, np.int64).reshape(-1, 2)
    outputs = [Output("integral", {**_channels(waveforms), "window": len(limits)})]
    chosen = {"windows": limits, "period": period}
    return by_event(blocks.integrate_windows, waveforms, outputs, constants=chosen)["integral"]


def fit_basis(waveforms: xr.DataArray, basis: NDArray[Any]) -> xr.Dataset:
    """Fit each waveform with a sum of shapes: ``coefficients`` ([time,] ..., shape) and ``residual``.

    Examples
    --------
    >>> fit = analysis.fit_basis(waves.waveform, basis)
    """
    dims = _channels(waveforms)
    outputs = [Output("coefficients", {**dims, "shape": len(basis)}), Output("residual", dims)]
    return xr.Dataset(by_event(blocks.fit_basis, waveforms, outputs, constants={"basis": np.asarray(basis)}))


def _channels(waveforms: xr.DataArray) -> dict[str, int]:
    """Return the dimensions between events and samples."""
    return {str(dim): waveforms.sizes[dim] for dim in waveforms.dims[:-1] if dim != EVENT}

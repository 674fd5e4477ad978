"""Pump-probe differences, backgrounds and correlations of DataArrays of frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from psana_dask.algorithms.background import subtract_background as subtract_from_block
from psana_dask.algorithms.correlation import MultiTau
from psana_dask.analysis.events import EVENT, Output, by_event


def pump_probe(
    frames: xr.DataArray, on: xr.DataArray, off: xr.DataArray, monitor: xr.DataArray | None = None
) -> xr.Dataset:
    """Normalise and subtract the frames with and without laser.

    Parameters
    ----------
    frames : DataArray (time, ...)
    on, off : DataArray (time) bool
        Which events are which, ``run.flags({...})`` for instance.
    monitor : DataArray (time), optional
        Incoming intensity; events where it is missing or not above 0 are left out. By default each
        event counts as 1.

    Returns
    -------
    Dataset
        ``on`` and ``off``: ``sum(frames) / sum(monitor)`` over the events that have the pixel;
        ``difference = on - off`` and ``relative = difference / off``. Lazy where `frames` is; sums are
        float64 in a fixed order, so chunks never change a bit. ``attrs``: ``events_on``, ``events_off``.

    Examples
    --------
    >>> flags = run.flags({"on": [90, -162], "off": [91, -162]})
    >>> both = analysis.pump_probe(run.cspad.image, flags.on, flags.off, run.gmd.milliJoulesPerPulse)
    >>> both.relative.plot()
    """
    level = xr.ones_like(on, np.float64) if monitor is None else monitor.astype(np.float64)
    level = level.reindex({EVENT: frames[EVENT]}).load()
    found, used = {}, {}
    for name, flag in {"on": on, "off": off}.items():
        wanted = flag.reindex({EVENT: frames[EVENT]}, fill_value=False).astype(bool)
        chosen = wanted.values & (level.values > 0)
        some, light = frames.isel({EVENT: chosen}).astype(np.float64), level.isel({EVENT: chosen})
        lit = _sum(some.notnull() * light)
        found[name] = _sum(some.fillna(0.0)) / lit.where(lit > 0)
        used[f"events_{name}"] = int(chosen.sum())
    found["difference"] = found["on"] - found["off"]
    found["relative"] = found["difference"] / found["off"].where(found["off"] != 0)
    data = xr.Dataset(found)
    return data.drop_vars([c for c in data.coords if EVENT in data[c].dims]).assign_attrs(used)


LEAF, FAN = 16, 8
"""Events are added up one after the other in leaves of 16, leaves eight by eight, whatever the chunks."""


def _sum(values: xr.DataArray) -> xr.DataArray:
    """Return the sum over events, in a fixed order; lazy where the values are."""
    import dask.array as da

    ordered = values.transpose(EVENT, ...)
    if not len(ordered):
        return xr.zeros_like(ordered.sum(EVENT))
    lazy = da.asarray(ordered.data).rechunk({0: LEAF})
    total = da.reduction(lazy, _added, _added, axis=0, split_every={0: FAN}, dtype=np.float64)
    kept = {name: c for name, c in ordered.coords.items() if EVENT not in c.dims}
    found = xr.DataArray(total, kept, ordered.dims[1:])
    return found if ordered.chunks is not None else found.compute()


def _added(block: NDArray[np.float64], axis: Any, keepdims: bool) -> NDArray[np.float64]:
    """Add up a block along its first axis, in order."""
    del axis
    total = np.zeros(block.shape[1:])
    for row in block:
        total += row
    return total[None] if keepdims else total


def subtract_background(frames: xr.DataArray, shapes: NDArray[Any], *, mask: Any = None) -> xr.DataArray:
    """Take a background of a few shapes off each frame; see `algorithms.subtract_background`.

    Examples
    --------
    >>> flat = analysis.subtract_background(run.opal.raw, shapes)
    """
    dims = {str(dim): size for dim, size in frames.sizes.items() if dim != EVENT}
    name = str(frames.name or "frames")
    chosen = {"shapes": np.asarray(shapes), "mask": None if mask is None else np.asarray(mask, bool)}
    found = by_event(subtract_from_block, frames, [Output(name, dims, np.float32)], constants=chosen)
    return found[name].assign_attrs(frames.attrs)


def autocorrelation(
    frames: xr.DataArray, regions: Any, *, channels: int = 16, levels: int = 8
) -> xr.DataArray:
    """Compute g2 of each region of pixels; see `psana_dask.algorithms.correlation`.

    Parameters
    ----------
    frames : DataArray (time, ...)
        Read chunk by chunk, in the order of time; the result does not depend on the chunks.
    regions : array of int of a frame's shape
        Number of the region of each pixel, from 0; negative for none.
    channels, levels : int
        See `algorithms.MultiTau`.

    Returns
    -------
    DataArray (region, delay)
        Delays in events.

    Examples
    --------
    >>> g2 = analysis.autocorrelation(run.epix.calib, regions)
    """
    ordered = frames.transpose(EVENT, ...)
    tau = MultiTau(np.asarray(regions), channels=channels, levels=levels)
    sizes = ordered.variable.chunksizes.get(EVENT, (ordered.sizes[EVENT],))
    first = 0
    for size in sizes:
        tau.push(ordered.isel({EVENT: slice(first, first + size)}).values)
        first += size
    values = tau.value()
    coords = {"region": np.arange(len(values)), "delay": ("delay", tau.delays, {"units": "events"})}
    return xr.DataArray(values, coords, ("region", "delay"), name="g2")

"""Functions on blocks of events, applied to DataArrays: lazily where the data are lazy.

A block function takes an array (event, ...) and gives arrays (event, ...): each event's result
depends on that event alone, so any chunking gives the same values.  What it needs beside the
data (tables, masks) goes along in the graph once, not once per task.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

EVENT = "time"


@dataclass(frozen=True)
class Output:
    """One result of a block function."""

    name: str
    dims: Mapping[str, int] = field(default_factory=dict)
    # its dimensions beside that of events, and their sizes
    dtype: Any = np.float64


def by_event(
    function: Callable[..., Any],
    data: xr.DataArray,
    outputs: Sequence[Output],
    *along: xr.DataArray,
    constants: Mapping[str, Any] | None = None,
) -> dict[str, xr.DataArray]:
    """Apply a block function to a DataArray.

    Parameters
    ----------
    function : callable
        ``function(block, *along, **constants)`` with blocks (event, ...); returns one array, or as
        many as there are `outputs`.
    data : DataArray
        With or without the dimension ``time``.
    outputs : sequence of Output
    *along : DataArray
        One value per event each.
    constants : mapping, optional
        Keyword arguments of the function.

    Returns
    -------
    dict of DataArray by name
        Lazy where `data` is.
    """
    if EVENT not in data.dims:
        widened = by_event(function, data.expand_dims(EVENT), outputs, *along, constants=constants)
        return {name: found.isel({EVENT: 0}) for name, found in widened.items()}
    ordered = data.transpose(EVENT, ...)
    sides = [_aligned(side, ordered) for side in along]
    if ordered.chunks is None:
        given = function(ordered.values, *(side.values for side in sides), **(constants or {}))
        results = (given,) if len(outputs) == 1 else given
    else:
        results = _lazily(function, ordered, sides, outputs, constants or {})
    kept = {name: c for name, c in ordered.coords.items() if set(c.dims) <= {EVENT}}
    return {
        out.name: xr.DataArray(values, kept, (EVENT, *out.dims), name=out.name)
        for out, values in zip(outputs, results, strict=True)
    }


def _aligned(side: xr.DataArray, data: xr.DataArray) -> xr.DataArray:
    """Return one value per event of `data`."""
    side = side.reindex({EVENT: data[EVENT]}) if EVENT in side.coords and EVENT in data.coords else side
    if side.dims != (EVENT,) or side.sizes[EVENT] != data.sizes[EVENT]:
        raise ValueError(f"{side.name} {dict(side.sizes)} does not have one value per event of {data.name}")
    return side


def _lazily(
    function: Callable[..., Any],
    data: xr.DataArray,
    sides: Sequence[xr.DataArray],
    outputs: Sequence[Output],
    constants: Mapping[str, Any],
) -> tuple[Any, ...]:
    import dask
    import dask.array as da

    whole = data.variable.chunk(dict.fromkeys(data.dims[1:], -1))  # coordinates may have chunks of their own
    rows = whole.chunksizes[EVENT]
    blocks = [da.asarray(side.data).rechunk((rows,)) for side in sides]
    axes = [f"i{k}" for k in range(data.ndim - 1)]
    names = {dim: f"o{k}" for k, dim in enumerate({d: 0 for out in outputs for d in out.dims})}
    signature = ",".join([f"({','.join(axes)})", *("()" for _ in sides)])
    results = ",".join(f"({','.join(names[d] for d in out.dims)})" for out in outputs)
    found = da.apply_gufunc(
        function,
        f"{signature}->{results}",
        whole.data,
        *blocks,
        output_dtypes=[np.dtype(out.dtype) for out in outputs],
        output_sizes={names[d]: size for out in outputs for d, size in out.dims.items()},
        **{name: dask.delayed(value, pure=True, traverse=False) for name, value in constants.items()},
    )
    return found if isinstance(found, tuple) else (found,)

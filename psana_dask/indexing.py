"""Orthogonal indexing: one slice, integer or integer array for each dimension; tables as labelled arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

Key = tuple[Any, ...]


def labelled(values: Any) -> Any:
    """Return a Series (pandas or Dask) on times as a DataArray on ``time``; anything else as it is."""
    if not (hasattr(values, "to_frame") and hasattr(values, "index")):
        return values
    series = values.compute() if hasattr(values, "dask") else values
    on_time = getattr(series.index.dtype, "kind", "O") == "M"
    return series.rename_axis("time").to_xarray() if on_time else series.to_numpy()


def full_key(key: Any, ndim: int) -> Key:
    """Return `key` with one index per dimension."""
    key = key if isinstance(key, tuple) else (key,)
    if Ellipsis in [k if k is Ellipsis else None for k in key]:
        at = next(i for i, k in enumerate(key) if k is Ellipsis)
        key = key[:at] + (slice(None),) * (ndim - len(key) + 1) + key[at + 1 :]
    return key + (slice(None),) * (ndim - len(key))


def scalar(index: Any) -> Any:
    """Return what removes a dimension of length 1 if `index` is a single number."""
    return 0 if isinstance(index, int | np.integer) else slice(None)


def listed(index: Any) -> Any:
    """Return an index that keeps its dimension."""
    return slice(index, index + 1 or None) if isinstance(index, int | np.integer) else index


def forward(index: slice, length: int) -> tuple[int, int]:
    """Return the smallest range [first, last) that holds what a slice picks."""
    picked = range(*index.indices(length))
    return (min(picked[0], picked[-1]), max(picked[0], picked[-1]) + 1) if picked else (0, 0)


def bounds(index: Any, length: int) -> tuple[slice, Any]:
    """Return the contiguous rows to read, and what to pick from them (None: all)."""
    if isinstance(index, int | np.integer):
        first = int(index) % length if length else 0
        return slice(first, first + 1), None
    if isinstance(index, slice):
        first, last = forward(index, length)
        if index.step in (None, 1):
            return slice(first, last), None
        return slice(first, last), np.arange(length)[index] - first
    picked = np.arange(length)[index]
    first, last = int(picked.min(initial=length)), int(picked.max(initial=-1)) + 1
    return (slice(first, last), picked - first) if len(picked) else (slice(0, 0), None)

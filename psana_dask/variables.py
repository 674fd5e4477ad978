"""Lazy arrays to xarray variables, with and without Dask."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

import psana_dask.accessor  # noqa: F401  (whoever holds a variable has `.psana`)
from psana_dask.graph import dask_array
from psana_dask.model import Array
from psana_dask.pipeline import LazyArray


class PsanaArray(BackendArray):
    """A lazy array behind xarray's door: indexing is orthogonal, and nothing else is read."""

    def __init__(self, lazy: LazyArray) -> None:
        self.lazy = lazy
        self.shape = lazy.shape
        self.dtype = lazy.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Array:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self.lazy.read
        )

    async def async_getitem(self, key: indexing.ExplicitIndexer) -> Array:
        """Read in a thread: what xarray's ``load_async`` calls."""
        return await asyncio.to_thread(self.__getitem__, key)


def lazy_part(variable: xr.Variable) -> tuple[LazyArray, tuple[Any, ...]] | None:
    """Return the lazy array behind a variable without Dask, and what is picked of each dimension.

    None where values are there already, or Dask has them.
    """
    data = variable._data
    if not isinstance(data, indexing.LazilyIndexedArray) or not isinstance(data.array, PsanaArray):
        return None
    return data.array.lazy, data.key.tuple


def variable(lazy: LazyArray, attrs: Mapping[str, Any], chunks: Any) -> xr.Variable:
    """Return a lazy variable: a Dask array, or read on indexing where `chunks` is None."""
    data: Any = indexing.LazilyIndexedArray(PsanaArray(lazy)) if chunks is None else dask_array(lazy, chunks)
    encoding = {"preferred_chunks": lazy.preferred_chunks}
    return xr.Variable(lazy.dims, data, dict(attrs), encoding, fastpath=True)

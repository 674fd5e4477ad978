"""Lazy arrays to Dask arrays: one task per chunk, deterministic names.

The array travels once per graph, not once per task; Dask pushes slices into the read,
so a slice of a chunked array reads only what it shows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from psana_dask.pipeline import LazyArray

if TYPE_CHECKING:
    import dask.array as da


def dask_array(lazy: LazyArray, chunks: Any = "auto") -> da.Array:
    """Return `lazy` as a Dask array.

    Parameters
    ----------
    lazy : LazyArray
    chunks : "auto" or mapping of dimension to size
        "auto": whole frames with all panels, about 32 MiB and at most 64 events; scalars 65536.

    Returns
    -------
    dask.array.Array
        Named after its contents: the same data give the same graph.
    """
    import dask.array as da
    from dask.base import tokenize

    explicit = lazy.chunks(chunks)
    return da.from_array(
        lazy,
        chunks=explicit,
        name=f"{lazy.name}-{tokenize(lazy.token, explicit)}",  # other chunks are another graph
        lock=False,
        meta=np.empty((0,) * lazy.ndim, lazy.dtype),
    )

"""Lazy arrays to Dask arrays: one task per chunk, deterministic names.

The array travels once per graph, not once per task; Dask pushes slices into the read,
so a slice of a chunked array reads only what it shows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from dask._task_spec import DataNode, Task, TaskRef
from dask.array.core import Array as DaskArray
from dask.array.core import getter
from dask.base import tokenize
from dask.blockwise import Blockwise, blockwise_token
from dask.highlevelgraph import HighLevelGraph, MaterializedLayer
from dask.layers import ArrayBlockwiseDep

from psana_dask.pipeline import LazyArray

if TYPE_CHECKING:
    import dask.array as da

Chunks = tuple[tuple[int, ...], ...]


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
    explicit = lazy.chunks(chunks)
    name = f"{lazy.name}-{tokenize(lazy.token, [np.array(c) for c in explicit])}"
    meta = np.empty((0,) * lazy.ndim, lazy.dtype)
    return DaskArray(_graph(name, lazy, explicit), name, explicit, meta=meta)


def _graph(name: str, lazy: LazyArray, chunks: Chunks) -> HighLevelGraph:
    """Return the graph that `dask.array.from_array` makes, in a form that is quicker to unfold.

    The tasks refer to the array from the start, so Dask fills in one argument of each, not two;
    the array is among the indices all the same, where Dask looks for dependencies.
    """
    array = f"original-{name}"
    axes = tuple(range(lazy.ndim))
    task = Task(name, getter, TaskRef(array), TaskRef(blockwise_token(1)), _data_producer=True)
    indices = [(TaskRef(array), None), (Regions(chunks), axes)]
    layers = {array: MaterializedLayer({array: lazy}), name: Blockwise(name, axes, task, indices, {})}
    return HighLevelGraph(layers, {array: set(), name: {array}})


class Regions(ArrayBlockwiseDep):
    """The slices of each chunk, as nodes of a graph, so that Dask need not look inside.

    Parameters
    ----------
    chunks : tuple of tuple of int
    """

    def __init__(self, chunks: Chunks) -> None:
        super().__init__(chunks)
        ends = [np.cumsum((0, *sizes)).tolist() for sizes in chunks]
        self._slices = [list(map(slice, e[:-1], e[1:])) for e in ends]

    def __getitem__(self, index: tuple[int, ...]) -> DataNode:
        return DataNode(None, tuple([s[i] for s, i in zip(self._slices, index, strict=True)]))

    def get(self, index: tuple[int, ...], default: object) -> DataNode:
        """Return the slices of one chunk."""
        return self[index]

    def __reduce__(self) -> tuple[type[Regions], tuple[Chunks]]:
        return Regions, (self.chunks,)

    def __dask_tokenize__(self) -> str:
        return f"regions-{tokenize([np.array(c) for c in self.chunks])}"

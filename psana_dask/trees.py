"""Files of other layouts as a tree of arrays: what `exported.Store` reads, whoever wrote the file.

A `Column` has the events of a run in time order, wherever their rows lie in the file; a `Ready` one
is worked out when it is first read.  `Tree` answers as an ``h5py.File`` does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from psana_dask.model import Array

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

MISSING = -99999
"""psana's integer for what an event lacks."""


@dataclass(frozen=True, eq=False)
class Column:
    """Rows of datasets, in the order of the events.

    Parameters
    ----------
    parts : tuple of h5py.Dataset
    part, row : (event,) int64
        Which dataset has an event, and where; -1 where none has.
    inner : str or None
        Of records.
    attrs : mapping
    """

    parts: tuple[Any, ...]
    part: Ints
    row: Ints
    inner: str | None = None
    attrs: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """Of one element; text is of objects."""
        found: np.dtype[Any] = np.dtype(self._one.base)
        return found.newbyteorder("=") if found.kind != "O" else found

    @property
    def _one(self) -> np.dtype[Any]:
        whole: np.dtype[Any] = self.parts[0].dtype
        return whole if self.inner is None else whole[self.inner]

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """(event, ...)."""
        return (len(self.row), *self.parts[0].shape[1:], *self._one.shape)

    def __getitem__(self, key: Any) -> Array:
        """Return rows: all, or a slice of events."""
        events = np.arange(len(self.row)) if key is Ellipsis or key == () else np.arange(len(self.row))[key]
        out = np.zeros((len(events), *self.shape[1:]), self.dtype)
        if self.dtype.kind == "f":
            out[...] = np.nan
        for number, part in enumerate(self.parts):
            mine = np.flatnonzero((self.part[events] == number) & (self.row[events] >= 0))
            if mine.size:
                out[mine] = self._read(part, self.row[events[mine]])
        return without_sentinel(out)

    def _read(self, part: Any, rows: Ints) -> Array:
        """Read rows of one dataset, each range of neighbours at once."""
        wanted, back = np.unique(rows, return_inverse=True)
        cut = np.flatnonzero(np.diff(wanted) != 1) + 1
        pieces = [part[run[0] : run[-1] + 1] for run in np.split(wanted, cut)]
        values = np.concatenate(pieces)[back]
        return values if self.inner is None else values[self.inner]

    def present(self) -> Bools:
        """Return which events have a value: none of its elements is what psana writes for missing ones."""
        there = self.row >= 0
        if not is_signed(self.dtype) and self.dtype.kind != "f":
            return there
        found = there.copy()
        step = max(1, 2**24 // max(1, int(np.prod(self.shape[1:], dtype=np.int64))))
        for first in range(0, len(found), step):
            mine = np.flatnonzero(there[first : first + step]) + first
            for number, part in enumerate(self.parts):
                some = mine[self.part[mine] == number]
                if some.size:
                    found[some] = ~_lacks(self._read(part, self.row[some]))
        return found


def is_signed(dtype: np.dtype[Any]) -> bool:
    """Tell whether values can be psana's -99999."""
    return dtype.kind == "i" and dtype.itemsize >= 4


def without_sentinel(values: Array) -> Array:
    """Return integers with 0 in the place of -99999."""
    if not is_signed(values.dtype):
        return values
    missing = values == MISSING
    return np.where(missing, 0, values).astype(values.dtype) if missing.any() else values


def _lacks(values: Array) -> Bools:
    """Tell which rows have nothing but what stands for missing values."""
    flat = values.reshape(len(values), -1)
    if not flat.shape[1]:
        return np.zeros(len(values), bool)
    missing = np.isnan(flat) if flat.dtype.kind == "f" else flat == MISSING
    return np.logical_and.reduce(missing, axis=1)


class Ready:
    """An array that is worked out when it is first read.

    Parameters
    ----------
    make : callable or array
    attrs : mapping, optional
    """

    def __init__(self, make: Callable[[], Array] | Array, attrs: Mapping[str, Any] | None = None) -> None:
        self._make = make
        self.attrs = dict(attrs or {})

    @cached_property
    def _values(self) -> Array:
        return self._make() if callable(self._make) else self._make

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array."""
        return self._values.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the array."""
        return self._values.dtype

    def __getitem__(self, key: Any) -> Any:
        """Index the array."""
        return self._values[key]


class Tree:
    """Arrays by path, as an HDF5 file has them.

    Parameters
    ----------
    arrays : mapping of str to Column, Ready or h5py.Dataset
    attrs : mapping
        Of the root.
    file : h5py.File
        Kept open.
    """

    def __init__(self, arrays: Mapping[str, Any], attrs: Mapping[str, Any], file: Any) -> None:
        self._arrays = dict(arrays)
        self.attrs = dict(attrs)
        self.file = file

    @cached_property
    def _groups(self) -> dict[str, list[str]]:
        groups: dict[str, list[str]] = {}
        for path in self._arrays:
            group, _, name = path.rpartition("/")
            groups.setdefault(group, []).append(name)
        return groups

    def __contains__(self, path: str) -> bool:
        return path in self._arrays or path in self._groups

    def __getitem__(self, path: str) -> Any:
        return self._arrays[path] if path in self._arrays else self._groups[path]

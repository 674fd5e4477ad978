"""An export as the bytes tower has it: arrays in groups, and a run's events and streams.

What `export` wrote is read here: Zarr or HDF5, the same groups in both.  ``/about`` says in JSON
what the detectors and their fields are, so opening looks at little more than the event table.
"""

from __future__ import annotations

import json
import re
import threading
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from psana_dask.errors import FormatError, ReadError, UnknownFormat
from psana_dask.model import Array, EventTable, Problem, StreamIndex

Ints = npt.NDArray[np.int64]

FORMAT = "export"
NANOSECONDS = {
    "nanoseconds": 1, "microseconds": 10**3, "milliseconds": 10**6, "seconds": 10**9, "minutes": 60 * 10**9,
    "hours": 3600 * 10**9, "days": 86400 * 10**9,
}  # fmt: skip
"""Length of the units in which files count times."""

STREAM = re.compile(r"stream_(\d+)")
ZARR_NODE = "zarr.json"
"""File that makes a folder of Zarr v3 a group or an array."""

MARK = "psana_dask_export"
"""Attribute of the root that makes a file an export; says its version."""


class Store:
    """Arrays of an export by group and name.

    Parameters
    ----------
    path : str

    Raises
    ------
    UnknownFormat
        It is no export.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._folder = Path(path) if Path(path).is_dir() else None  # Zarr
        self._lock = threading.RLock()
        self._arrays: dict[str, Any] = {}
        if MARK not in self.attrs:
            what = f"no export of psana_dask: its root has no attribute {MARK}"
            raise UnknownFormat(f"{path} is {what}; nor is it small data or a translated run")

    @cached_property
    def _root(self) -> Any:
        file = self._file()
        return file if self._folder is not None else _known_layout(file)

    def _file(self) -> Any:
        try:
            if self._folder is not None:
                import zarr

                return zarr.open_group(self.path, mode="r")
            import h5py
            import hdf5plugin  # noqa: F401  (the filters of the files)

            return h5py.File(self.path, "r")
        except (OSError, ValueError, KeyError) as error:
            raise UnknownFormat(f"{self.path} is neither Zarr nor HDF5: {error}") from error

    @cached_property
    def attrs(self) -> dict[str, Any]:
        """Attributes of the root; netCDF has numbers as arrays of one."""
        attrs = dict(self._root.attrs)
        single = {k: v.item() for k, v in attrs.items() if isinstance(v, np.ndarray) and v.size == 1}
        return attrs | single

    @cached_property
    def about(self) -> dict[str, Any]:
        """What the export says of itself: ``detectors``, ``epics``, ``settings``, ``problems`` ..."""
        text = self.array("about/text")[()]
        if isinstance(text, np.ndarray):
            text = text.item()
        try:
            return json.loads(text)
        except (TypeError, ValueError) as error:
            raise FormatError(f"the description of the export is damaged: {error}", self.path) from error

    def __contains__(self, name: str) -> bool:
        if self._folder is not None:
            return (self._folder / name / ZARR_NODE).is_file()
        return name in self._root

    def names(self, group: str) -> list[str]:
        """Return the names of the arrays of a group."""
        if self._folder is not None:  # Zarr reads all of them twice to say the same
            return sorted(node.parent.name for node in (self._folder / group).glob(f"*/{ZARR_NODE}"))
        return list(self._root[group]) if group in self._root else []

    def array(self, name: str) -> Any:
        """Return an array (of h5py or zarr) by its path."""
        with self._lock:
            if name not in self._arrays:
                try:
                    self._arrays[name] = self._root[name]
                except (KeyError, OSError, ValueError) as error:
                    what = f"{self.path} has no {name}: it is damaged, export it again"
                    raise ReadError(what) from error
            return self._arrays[name]

    def attrs_of(self, name: str) -> dict[str, Any]:
        """Return the attributes of an array."""
        return dict(self.array(name).attrs)

    def whole(self, name: str) -> Array:
        """Read a whole array; text becomes str, and what netCDF keeps as bytes becomes bool."""
        array = self.array(name)
        with self._lock:
            values = np.asarray(array[...])
        if values.dtype == np.int8 and array.attrs.get("dtype") == "bool":
            return values.astype(bool)
        return _as_text(values) if values.dtype.kind in "OTS" else values

    def rows(self, name: str, rows: Ints, *rest: Any) -> Array:
        """Read rows in any order: neighbours together, each once."""
        array = self.array(name)
        wanted, back = np.unique(rows, return_inverse=True)
        cut = np.flatnonzero(np.diff(wanted) != 1) + 1
        with self._lock:
            pieces = [np.asarray(array[run[0] : run[-1] + 1]) for run in np.split(wanted, cut) if len(run)]
        values = np.concatenate(pieces) if pieces else np.zeros((0, *array.shape[1:]), array.dtype)
        values = values[(slice(None), *rest)]
        return values if np.array_equal(back, np.arange(len(wanted))) else values[back]


def _known_layout(file: Any) -> Any:
    """Return a file that others wrote as the tree that an export would be; an export as it is."""
    from psana_dask.small_files import is_small_data, open_small_data
    from psana_dask.translated_files import is_translated, open_translated

    if MARK in file.attrs:
        return file
    if is_translated(file):
        return open_translated(file, MARK)
    return open_small_data(file, MARK) if is_small_data(file) else file


def _as_text(values: Array) -> Array:
    """Return text as fixed-width strings, as the rest of the package has it."""
    plain = [v.decode() if isinstance(v, bytes) else str(v) for v in values.reshape(-1).tolist()]
    return np.array(plain, dtype=str).reshape(values.shape)


@lru_cache(maxsize=16)
def open_store(path: str, mark: tuple[int, ...]) -> Store:
    """Return the store of an export, opened once per process; `mark` changes when it is replaced."""
    del mark
    return Store(path)


def streams_of(store: Store) -> tuple[StreamIndex, ...]:
    """Return the streams that the run had: their numbers, without datagrams."""
    empty = {"timestamp": np.zeros(0, np.uint64)}
    return tuple(StreamIndex(n, (store.path,), (), empty, format=FORMAT) for n in _stream_numbers(store))


def _stream_numbers(store: Store) -> list[int]:
    named = (STREAM.fullmatch(name) for name in store.names("events"))
    return sorted(int(found[1]) for found in named if found)


def events_of(store: Store) -> EventTable:
    """Return the table of events; rows say which streams had each."""
    time = _nanoseconds(store, store.whole("events/time").astype(np.int64))
    there = [store.whole(f"events/stream_{n}").astype(bool) for n in _stream_numbers(store)]
    rows = [np.where(one, np.arange(len(time)), -1) for one in there]
    return EventTable(
        time=time,
        timestamp=store.whole("events/timestamp").astype(np.uint64),
        step=store.whole("events/step").astype(np.int32),
        rows=np.array(rows, np.int32).reshape(len(rows), len(time)),
    )


def _nanoseconds(store: Store, values: Ints, name: str = "events/time") -> Ints:
    """Return times as ns since 1970, from whatever CF unit the file has."""
    units = str(store.attrs_of(name).get("units", "nanoseconds since 1970-01-01"))
    word, _, origin = units.partition(" since ")
    if word not in NANOSECONDS:
        raise FormatError(f"times in {units!r} are not understood", store.path)
    start = np.datetime64(origin.replace(" ", "T")).astype("M8[ns]").astype(np.int64)
    out: Ints = values * NANOSECONDS[word] + start
    return out


def times_of(store: Store, name: str) -> npt.NDArray[np.datetime64]:
    """Return an array of times."""
    values = store.whole(name)
    if values.dtype.kind == "f":
        missing = ~np.isfinite(values)
        found = _nanoseconds(store, np.where(missing, 0, values).astype(np.int64), name)
        return np.where(missing, np.iinfo(np.int64).min, found).view("M8[ns]")
    lost = values == np.iinfo(np.int64).min
    found = np.where(lost, values, _nanoseconds(store, np.where(lost, 0, values).astype(np.int64), name))
    return found.view("M8[ns]")


def facts_of(store: Store) -> dict[str, Array]:
    """Return what datagrams said of each event, by name."""
    usual = ("time", "timestamp", "step")
    names = [n for n in store.names("events") if n not in usual and not STREAM.fullmatch(n)]
    return {name: store.whole(f"events/{name}") for name in names}


def problems_of(store: Store) -> tuple[Problem, ...]:
    """Return what was wrong with the run that was exported."""
    return tuple(Problem(*row) for row in store.about.get("problems", []))

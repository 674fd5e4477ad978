"""Per-event results in one table, sorted by time: HDF5, Parquet or Zarr by the ending of the path.

A function sees one event and returns a dict of numbers, text and arrays, or None to leave the
event out.  Arrays whose length varies become flat values with ``<name>_count`` beside them;
a key that some events lack is NaN, '' or, for integers, 0 with ``<name>_present`` beside it.
Contract: tests/reductions/test_smalldata.py.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from psana_dask.choice import Choice
from psana_dask.dataset import Names, View, run_attrs
from psana_dask.errors import FunctionError, MissingLibrary
from psana_dask.reductions import compute
from psana_dask.reductions.eventfields import place_of
from psana_dask.reductions.loops import events_of

if TYPE_CHECKING:
    import xarray as xr

Ints = NDArray[np.int64]
Rows = list[tuple[int, dict[str, Any]]]
"""Event number, and what the function made of it."""

FORMATS = (".h5", ".hdf5", ".nc", ".parquet", ".zarr")
EVENTS = 256
"""Events of a task."""


@dataclass(frozen=True, eq=False)
class Work:
    """What every task does; a worker gets it once."""

    view: View
    function: Callable[[Any], Mapping[str, Any] | None]
    names: Names
    calibration: Mapping[str, Any] | None


def smalldata(
    view: View, function: Callable[[Any], Mapping[str, Any] | None], path: str | os.PathLike[str],
    names: Names = None, every: int | None = None, calibration: Mapping[str, Any] | None = None,
    progress: bool | None = None,
) -> xr.Dataset:  # fmt: skip
    """Write what a function makes of each event; see `Run.smalldata`."""
    place = Path(path)
    if place.suffix not in FORMATS:
        raise ValueError(f"{place}: the path ends with one of {', '.join(FORMATS)}")
    order = np.argsort(view.choice.numbers, kind="stable")
    numbers = view.choice.numbers[order]
    empty = replace(view, choice=Choice(np.zeros(0, np.int64), view.choice.total))
    work = Work(empty, function, names, calibration)
    rows: Rows = []
    table = _table(view, rows)
    size = max(1, min(EVENTS, every or EVENTS))
    step = max(1, every or len(numbers))
    for first in range(0, max(1, len(numbers)), step):
        rows += _results(work, numbers[first : first + step], first, size, place.name, progress)
        table = _table(view, rows)
        _replace(table, place)
    return table


def _results(
    work: Work, numbers: Ints, first: int, size: int, label: str, progress: bool | None
) -> Rows:
    """Return the rows of some events, made in parallel, in time order."""
    graph = compute.Tasks()
    shared = graph.shared(work)
    parts = [
        graph.call(rows_of, shared, numbers[a : a + size], first + a) for a in range(0, len(numbers), size)
    ]
    return [row for part in graph.computed(parts, label, progress) for row in part]


def rows_of(work: Work, numbers: Ints, first: int) -> Rows:
    """Return what the function makes of some events.

    Raises
    ------
    FunctionError
        It raised; the message names the event and its file.
    """
    view = replace(work.view, choice=Choice(numbers, work.view.choice.total))
    rows: Rows = []
    for event in events_of(view, work.names, calibration=work.calibration, first=first):
        number = int(numbers[event.position - first])
        try:
            made = work.function(event)
            if made is not None:
                rows.append((number, {str(k): _owned(v) for k, v in made.items()}))
        except Exception as error:
            name = getattr(work.function, "__name__", repr(work.function))
            what = f"{name} failed at {place_of(view.recording, number)}: {type(error).__name__}: {error}"
            raise FunctionError(what) from error
    return rows


def _owned(value: Any) -> Any:
    """Return a value that does not lie in a buffer of the loop; a large array must not keep a block alive."""
    if value is None or isinstance(value, str | bytes | bool | int | float | complex):
        return value
    array = np.asarray(value.values if hasattr(value, "values") else value)
    if array.dtype.kind not in "iufcbmMU":
        raise TypeError(f"a {type(value).__name__}: numbers, text and arrays of them can be written")
    return array[()] if array.ndim == 0 else array.copy()


# ---- rows to columns ----------------------------------------------------------------------------
def _table(view: View, rows: Rows) -> xr.Dataset:
    """Return rows as a Dataset along time."""
    import xarray as xr

    numbers = np.array([number for number, _ in rows], np.int64)
    events = view.recording.events
    coords: dict[str, Any] = {
        "time": events.time[numbers].view("M8[ns]"),
        "timestamp": ("time", events.timestamp[numbers]),
        "step": ("time", events.step[numbers]),
    }
    variables: dict[str, Any] = {}
    for name in dict.fromkeys(key for _, row in rows for key in row):
        for key, variable in _column(name, [row.get(name) for _, row in rows]):
            if key in variables or key in coords:
                raise FunctionError(f"two columns would be called {key}: use another name")
            variables[key] = variable
    return xr.Dataset(variables, coords, run_attrs(view))


def _column(name: str, values: Sequence[Any]) -> Iterable[tuple[str, Any]]:
    """Yield the variables that hold one column."""
    there = np.array([v is not None for v in values], bool)
    known = [np.asarray(v) for v in values if v is not None]
    if not known:
        return
    if any(v.dtype.kind in "US" for v in known) and not all(v.dtype.kind in "US" for v in known):
        raise FunctionError(f"{name} is text in some events and a number in others")
    shapes = {v.shape for v in known}
    dtype = np.result_type(*{v.dtype for v in known})
    if len(shapes) > 1:
        yield from _ragged(name, values, dtype)
        return
    shape = shapes.pop()
    out = np.full((len(values), *shape), _nothing(dtype), dtype)
    out[there] = np.stack(known)
    yield name, (("time", *(f"{name}_{k}" for k in range(len(shape)))), out)
    if not there.all() and dtype.kind not in "fcmMU":
        yield f"{name}_present", ("time", there)


def _ragged(name: str, values: Sequence[Any], dtype: np.dtype[Any]) -> Iterable[tuple[str, Any]]:
    """Yield flat values and how many each event has (CF contiguous ragged array)."""
    pieces = [np.zeros(0, dtype) if v is None else np.atleast_1d(np.asarray(v, dtype)) for v in values]
    inner = {p.shape[1:] for p in pieces if p.size}
    if len(inner) > 1:
        few = sorted(inner)[:3]
        raise FunctionError(f"{name} varies in more than its first dimension: {few}; flatten it")
    shape = inner.pop() if inner else ()
    flat = [p.reshape(-1, *shape) for p in pieces]
    dims = (f"{name}_item", *(f"{name}_{k}" for k in range(len(shape))))
    yield name, (dims, np.concatenate(flat) if flat else np.zeros((0, *shape), dtype))
    counts = np.array([len(p) for p in flat], np.int64)
    yield f"{name}_count", ("time", counts, {"sample_dimension": f"{name}_item"})


def _nothing(dtype: np.dtype[Any]) -> Any:
    if dtype.kind in "mM":
        return np.array("NaT", dtype)
    return np.nan if dtype.kind in "fc" else np.zeros((), dtype)[()]


# ---- columns to files ---------------------------------------------------------------------------
def _replace(table: xr.Dataset, place: Path) -> None:
    """Write a table beside its place and move it there: whoever looks sees a whole one."""
    place.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.parent))
    try:
        made = folder / place.name
        _write(table, made)
        if made.is_dir() and place.is_dir():
            os.replace(place, folder / "before")
        os.replace(made, place)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write(table: xr.Dataset, path: Path) -> None:
    if path.suffix == ".parquet":
        _write_parquet(table, path)
    elif path.suffix == ".zarr":
        table.to_zarr(path, zarr_format=2, consolidated=True)
    else:
        _write_hdf5(table, path)


def _write_hdf5(table: xr.Dataset, path: Path) -> None:
    """Write one HDF5 dataset per variable; times are ns since 1970, text has variable length."""
    import h5py

    with h5py.File(path, "w") as file:
        file.attrs.update(table.attrs)
        for name, variable in table.variables.items():
            values = variable.values
            if values.dtype.kind in "mM":
                dataset = file.create_dataset(name, data=values.astype("M8[ns]").astype(np.int64))
                dataset.attrs["units"] = "nanoseconds since 1970-01-01"
            elif values.dtype.kind == "U":
                dataset = file.create_dataset(name, data=values.astype(object), dtype=h5py.string_dtype())
            else:
                dataset = file.create_dataset(name, data=values)
            dataset.attrs.update(variable.attrs)
        for name, variable in table.variables.items():
            for axis, dim in enumerate(variable.dims):
                file[name].dims[axis].label = str(dim)


def _write_parquet(table: xr.Dataset, path: Path) -> None:
    """Write one row per event; arrays are lists."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise MissingLibrary.of("pyarrow", "frame", "writing Parquet") from None
    columns: dict[str, Any] = {}
    for name, variable in table.variables.items():
        if f"{name}_count" in table:
            ends = np.cumsum(table[f"{name}_count"].values)
            columns[str(name)] = [p.tolist() for p in np.split(variable.values, ends)[: len(ends)]]
        elif variable.dims[:1] == ("time",) and not str(name).endswith("_count"):
            columns[str(name)] = variable.values if variable.ndim == 1 else variable.values.tolist()
    parquet.write_table(pa.table(columns), path)

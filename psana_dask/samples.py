"""Outside data as samples: tables, arrays, files and other runs; the key of each sample, as an integer.

Nothing is guessed: a time without a zone, a date whose order of day and month is not said, a number
without a unit are refused.
Contract: tests/test_join.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from psana_dask.errors import NameNotFound, suggestion
from psana_dask.model import Array

if TYPE_CHECKING:
    import xarray as xr

Ints = npt.NDArray[np.int64]

UTC_TIME = "event time (UTC)"
EVENT_COORDS = {"time", "timestamp", "step", "pulse_id", "fiducial"}
UNITS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}

LATEST = 2**63 - 1
"""Nanoseconds since 1970 that fit 64 bits: until 2262."""

ZONE = re.compile(r"[T ]\S*(Z|[+-]\d\d(:?\d\d)?)$")
"""The zone at the end of a time as ISO 8601 writes it; the end of a date alone is none."""

NO_KEY = int(np.iinfo(np.int64).min)
"""Stands for the key of a sample that has none."""


# ---- keys ---------------------------------------------------------------------------------------
def time_keys(values: Any, tz: str | None, unit: str | None, where: str) -> Ints:
    """Return times as nanoseconds since 1970 UTC; `NO_KEY` for a missing one.

    Parameters
    ----------
    values : array of datetime64, of text as ISO 8601 has it, of datetimes, or of numbers
    tz : str, optional
        The zone of times that have none: ``"UTC"``, ``"America/Los_Angeles"``.
    unit : {"s", "ms", "us", "ns"}, optional
        Of numbers, which count from 1970 UTC.
    where : str
        What the values are, for errors.

    Raises
    ------
    ValueError
        Times without a zone and without `tz`, with and without one mixed, numbers without
        `unit`, text of another form, or an hour that the clock change leaves open.
    """
    kind = getattr(values.dtype, "kind", "O")
    if not len(values):
        return np.zeros(0, np.int64)
    if kind in "iuf":
        if unit not in UNITS:
            raise ValueError(
                f"{where} are numbers: unit= must say what they count since 1970 UTC (s, ms, us, ns)"
            )
        return _counted(np.asarray(values), UNITS[unit], where)
    if kind == "O" or not hasattr(values.dtype, "tz"):
        values = _parsed(values, where)
    return _in_utc(values, tz, where)


def _counted(values: Array, scale: int, where: str) -> Ints:
    """Return numbers as nanoseconds; what is not finite is no time."""
    known = np.isfinite(values)
    whole = np.floor(np.where(known, values, 0))
    if len(far := whole[np.abs(whole) > LATEST // scale]):
        raise ValueError(f"{where}: {far[0]:g} is too far from 1970: is unit= right?")
    if values.dtype.kind != "f":
        return values.astype(np.int64) * scale
    rest = np.rint((np.where(known, values, 0) - whole) * scale)
    return np.where(known, whole.astype(np.int64) * scale + rest.astype(np.int64), NO_KEY)


def _parsed(values: Any, where: str) -> Any:
    """Return text or objects as times, all with a zone or all without."""
    import pandas as pd

    plain = np.asarray(values)
    if plain.dtype.kind == "M":
        return plain
    given: Any = [None if v is pd.NaT or v == "" else v for v in plain.tolist()]
    zoned = {_has_zone(v) for v in given if v is not None}
    if len(zoned) > 1:
        raise ValueError(
            f"{where} mix times with and without a zone: which zone the others are in is not said"
        )
    try:
        # 06/07/2024 is in June or in July: no other form says which
        return pd.to_datetime(given, format="ISO8601", utc=zoned == {True})
    except (ValueError, TypeError) as error:
        said = str(error).partition(". ")[0]
        raise ValueError(f"{where}: {said}; write times as 2024-06-14T06:12:03.5Z") from None


def _has_zone(time: Any) -> bool:
    if isinstance(time, str):
        return ZONE.search(time) is not None
    return getattr(time, "tzinfo", None) is not None


def _in_utc(values: Any, tz: str | None, where: str) -> Ints:
    import pandas as pd

    try:
        index = pd.DatetimeIndex(values).as_unit("ns")
    except ValueError as error:  # the year 3000
        raise ValueError(f"{where}: {error}") from None
    if index.tz is None:
        if tz is None:
            raise ValueError(f'{where} have no time zone: say tz="UTC", or the zone that the clock showed')
        try:
            index = index.tz_localize(tz)
        except (ValueError, KeyError) as error:  # an hour that is there twice, or not at all; no such zone
            raise ValueError(f"{where} in {tz}: {error}") from error
    return np.asarray(index.tz_convert("UTC").tz_localize(None).to_numpy("M8[ns]")).view(np.int64)


def whole_keys(values: Any, where: str) -> Ints:
    """Return counters as integers; `NO_KEY` for a missing one.

    Raises
    ------
    ValueError
        They are no whole numbers, or so large that a float does not hold them.
    """
    import pandas as pd

    column = pd.Series(values)
    known = column.notna().to_numpy()
    numbers = column[known].to_numpy()
    wrong = numbers.dtype.kind not in "iuf" or np.abs(numbers.astype(float)).max(initial=0) >= LATEST
    if numbers.dtype.kind == "f":  # as tables with a gap have them
        wrong = bool(((numbers != np.rint(numbers)) | (np.abs(numbers) > 2**53)).any())
    if wrong and len(numbers):
        raise ValueError(f"{where} are {column.dtype}: whole numbers are needed")
    keys = np.full(len(column), NO_KEY, np.int64)
    keys[known] = numbers.astype(np.int64)
    return keys


def in_nanoseconds(span: Any) -> int:
    """Return a time span (timedelta, text such as "1.5 ms", an `Offset`) in nanoseconds.

    Raises
    ------
    TypeError
        A bare number: of what?
    """
    import pandas as pd

    span = getattr(span, "offset", span)
    if np.asarray(span).dtype.kind in "iuf":
        raise TypeError(f'{span!r} has no unit: write "{span} s" or a timedelta')
    return int(pd.Timedelta(span).as_unit("ns").value)


# ---- samples ------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Samples:
    """What is joined: variables on one dimension, and the key of each sample.

    Parameters
    ----------
    variables : mapping of str to xarray.Variable
        Their first dimension is the samples.
    keys : array
        As found, not yet parsed.
    is_utc : bool
        Whether times are known to be UTC.
    """

    variables: Mapping[str, xr.Variable]
    keys: Any
    is_utc: bool = False


def samples_of(
    other: Any, key: str, names: Iterable[str] | None, group: str | None = None, *, between: bool = False
) -> Samples:
    """Return what any kind of `other` holds: a path, table, Series, Dataset, DataArray or Run.

    Parameters
    ----------
    other : path, table, Series, Dataset, DataArray or Run
    key : str
        Column or variable of the keys.
    names : iterable of str, optional
    group : str, optional
        Of a file.
    between : bool
        Values between samples are wanted: of a run numbers only, NaN where a detector is missing.
    """
    import xarray as xr

    if isinstance(other, str | Path):
        other = _read(Path(other), group)
    elif group is not None:
        raise ValueError(f"group={group!r} belongs to a file, not to a {type(other).__name__}")
    if hasattr(other, "dataset") and hasattr(other, "events"):  # a Run
        other = other.dataset(names, join="outer")
        other = _marked(other) if between else other
        names = None
    if isinstance(other, xr.DataArray):
        other = other.to_dataset(name=other.name or "value")
    if isinstance(other, xr.Dataset):
        return _of_dataset(other, key, names)
    if hasattr(other, "to_pandas"):  # tables of pyarrow and polars
        other = other.to_pandas()
    if hasattr(other, "to_frame") and not hasattr(other, "columns"):
        other = other.to_frame(other.name or "value")
    if hasattr(other, "columns"):
        return _of_frame(other, key, names)
    raise TypeError(
        f"cannot join a {type(other).__name__}: a path, DataFrame, Dataset, DataArray or Run is needed"
    )


def _marked(data: xr.Dataset) -> xr.Dataset:
    """Return the events of a run with NaN where something is missing, instead of marks beside it."""
    found = data.drop_vars([n for n in data.variables if str(n).endswith(("_damage", "_present"))])
    for name, values in data.data_vars.items():
        owner = f"{values.attrs.get('detector')}_present"
        if name in found and owner in data.coords and values.dtype.kind in "fiu":
            found[name] = values.psana.masked().drop_vars(owner).assign_attrs(values.attrs)
    return found


# ---- files --------------------------------------------------------------------------------------
def _read(path: Path, group: str | None) -> Any:
    """Open a file by the end of its name; arrays stay on disk."""
    import pandas as pd

    if path.suffix in (".zarr", ".h5", ".hdf5", ".nc", ".cxi"):
        return _arrays(path, group)
    if group is not None:
        raise ValueError(f"{path} has no groups, but group={group!r}")
    if path.suffix in (".csv", ".txt", ".dat"):
        try:
            return pd.read_csv(path)
        except pd.errors.ParserError as error:
            raise ValueError(f"{path}: {error}") from None
        except pd.errors.EmptyDataError:
            raise ValueError(f"{path} is empty: not even a line with the names of columns") from None
    if path.suffix in (".parquet", ".pq"):
        return pd.read_parquet(path)
    raise ValueError(
        f"{path}: the end of the name must be csv, parquet, zarr, h5 or nc; or pass a DataFrame or Dataset"
    )


def _arrays(path: Path, group: str | None) -> xr.Dataset:
    """Open the arrays of a zarr, HDF5 or netCDF file.

    Raises
    ------
    NameNotFound
        There are none; says which groups have some.
    """
    import xarray as xr

    if not path.exists():
        raise FileNotFoundError(f"no file {path}")
    if path.suffix == ".zarr":
        found = xr.open_zarr(path, consolidated=False, group=group)  # reads either kind
    else:
        how = {"phony_dims": "access"}
        try:
            found = xr.open_dataset(path, engine="h5netcdf", chunks={}, group=group, backend_kwargs=how)
        except OSError as error:
            raise OSError(f"{path}: {error}") from error
    if found.variables:
        return found
    there = ", ".join(repr(name) for name in _groups(path, group)) or "no arrays at all"
    raise NameNotFound(
        f"{path}: nothing in the group {group or '/'}; it has group={there} "
        "(an export of a run is joined as psana_dask.open(path))"
    )


def _groups(path: Path, group: str | None) -> list[str]:
    """Return the groups of a file that hold arrays."""
    if path.suffix == ".zarr":
        import zarr

        members = zarr.open_group(path, path=group or "", mode="r").members(max_depth=None)
        names = [name for name, item in members if isinstance(item, zarr.Array)]
    else:
        import h5py

        names = []
        with h5py.File(path) as file:
            file[group or "/"].visititems(
                lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None
            )
    return sorted({name.rpartition("/")[0] for name in names})


# ---- arrays and tables --------------------------------------------------------------------------
def _of_dataset(data: xr.Dataset, key: str, names: Iterable[str] | None) -> Samples:
    if key not in data.variables:
        raise NameNotFound.of("variable", key, map(str, data.variables))
    keys = data[key]
    if keys.ndim != 1:
        raise ValueError(f"{key} has the dimensions {keys.dims}: one key per sample is needed")
    dim = keys.dims[0]
    own = {key, dim} | (EVENT_COORDS & set(map(str, data.coords)))  # the run has coordinates of its own
    wanted = [n for n, v in data.variables.items() if dim in v.dims and n not in own]
    chosen = _chosen(names, [str(n) for n in wanted])
    variables = {n: data.variables[n].transpose(dim, ...) for n in chosen}
    return Samples(variables, keys.to_index() if keys.dtype.kind == "M" else keys.values, _says_utc(keys))


def _says_utc(keys: xr.DataArray) -> bool:
    return keys.attrs.get("long_name") == UTC_TIME


def _of_frame(frame: Any, key: str, names: Iterable[str] | None) -> Samples:
    import xarray as xr

    if getattr(frame.index, "nlevels", 1) > 1:
        frame = frame.reset_index()
    frame = frame.rename(columns={c: str(c) for c in frame.columns})
    if len(set(frame.columns)) < len(frame.columns):
        twice = next(c for c in frame.columns if list(frame.columns).count(c) > 1)
        raise ValueError(f"the table has two columns {twice!r}: rename one")
    columns = [c for c in frame.columns if c != key]
    chosen = _chosen(names, columns)
    keys = frame[key] if key in frame.columns else frame.index
    if key not in frame.columns and (keys.name not in (key, None) or keys.dtype.kind not in "mMOU"):
        raise NameNotFound(f"the table has no column {key!r}{suggestion(key, columns)}; key= names it")
    if hasattr(frame, "dask"):
        keys = keys.compute()
        lengths = tuple(frame.map_partitions(len).compute())
        data = {c: frame[c].to_dask_array(lengths=lengths) for c in chosen}
    else:
        data = {c: _plain(frame[c]) for c in chosen}
    return Samples({c: xr.Variable(("sample",), v) for c, v in data.items()}, keys)


def _plain(column: Any) -> Array:
    """Return a column of pandas as an array of numpy: what is missing is NaN, False or empty text."""
    import pandas as pd

    kinds = pd.api.types
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = pd.Series(np.asarray(column))
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        column = column.dt.tz_convert("UTC").dt.tz_localize(None)
    if kinds.is_bool_dtype(column.dtype):
        return np.asarray(column.fillna(False).to_numpy(bool))
    number = kinds.is_numeric_dtype(column.dtype)
    if number and kinds.is_extension_array_dtype(column.dtype) and column.isna().any():
        return np.asarray(column.to_numpy(np.float64, na_value=np.nan))
    if number or column.dtype.kind in "mM":
        return np.asarray(column.to_numpy())
    return np.array(["" if pd.isna(v) else str(v) for v in column], dtype=str)


def _chosen(names: Iterable[str] | None, known: list[str]) -> list[str]:
    if names is None:
        return known
    wanted = [names] if isinstance(names, str) else list(names)
    for name in wanted:
        if name not in known:
            raise NameNotFound.of("variable", name, known)
    return wanted

"""Data from outside of the DAQ, matched to the events of a run: tables, arrays, another run.

Whatever has a key for each sample (a time, a pulse number, a fiducial) becomes variables on
the run's time.  Nothing is guessed: a time without a zone is refused unless the zone is
given, samples that are doubled or out of order are counted, and events without a sample say so.
Contract: tests/test_join.py, which compares with `pandas.merge_asof`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from psana_dask.dataset import View, event_coords, run_attrs
from psana_dask.errors import DroppedWarning, NameNotFound, suggestion
from psana_dask.fields import missing_value
from psana_dask.model import Array

if TYPE_CHECKING:
    import xarray as xr

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

METHODS = ("exact", "nearest", "ffill", "interp")
UTC_TIME = "event time (UTC)"
EVENT_COORDS = {"time", "timestamp", "step", "pulse_id", "fiducial"}
UNITS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}


# ---- matching -----------------------------------------------------------------------------------
@dataclass(frozen=True)
class Matches:
    """Which sample belongs to each event.

    Parameters
    ----------
    before : (event,) int64
        Position of the sample; -1 for none.
    after : (event,) int64
        For "interp": the sample behind the event; else the same.
    weight : (event,) float64
        Share of the sample behind.
    """

    before: Ints
    after: Ints
    weight: npt.NDArray[np.float64]

    @property
    def found(self) -> Bools:
        """Whether an event has a sample."""
        return self.before >= 0


def match(keys: Ints, wanted: Ints, method: str, tolerance: int | None = None) -> Matches:
    """Match events to samples.

    Of samples with equal keys the last counts.

    Parameters
    ----------
    keys : (sample,) int64
        In ascending order.
    wanted : (event,) int64
    method : {"exact", "nearest", "ffill", "interp"}
        The same key; the nearest one, the earlier of two equally near; the last at or before;
        between the one at or before and the one behind.
    tolerance : int, optional
        Largest distance of a sample, both of them for "interp".
    """
    before = np.searchsorted(keys, wanted, side="right") - 1
    if not len(keys):
        return Matches(before, before, np.zeros(len(wanted)))
    after = np.minimum(before + 1, len(keys) - 1)
    left, right = wanted - keys[np.maximum(before, 0)], keys[after] - wanted
    inside = before + 1 < len(keys)
    if method == "interp":
        return _between(before, after, left, right, inside, tolerance)
    at = before.copy()
    if method == "nearest":
        take = inside & ((before < 0) | (right < left))
        at[take] = (before + 1)[take]
    distance = np.abs(wanted - keys[np.maximum(at, 0)])
    limit = 0 if method == "exact" else tolerance
    if limit is not None:
        at[distance > limit] = -1
    return Matches(at, at, np.zeros(len(wanted)))


def _between(
    before: Ints, after: Ints, left: Ints, right: Ints, inside: Bools, tolerance: int | None
) -> Matches:
    exact = (before >= 0) & (left == 0)
    good = exact | ((before >= 0) & inside)
    if tolerance is not None:
        good &= exact | ((left <= tolerance) & (right <= tolerance))
    weight = np.where(exact | ~good, 0.0, left / np.maximum(left + right, 1))
    return Matches(np.where(good, before, -1), np.where(exact, before, after), weight)


# ---- keys ---------------------------------------------------------------------------------------
def time_keys(values: Any, tz: str | None, unit: str | None, where: str) -> Ints:
    """Return times as nanoseconds since 1970 UTC; the smallest int64 for a missing one.

    Parameters
    ----------
    values : array of datetime64, of text, of datetimes with a zone, or of numbers
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
        `unit`, or an hour that the clock change leaves open.
    """
    import pandas as pd

    kind = getattr(values.dtype, "kind", "O")
    if kind in "iuf":
        if unit not in UNITS:
            raise ValueError(
                f"{where} are numbers: unit= must say what they count since 1970 UTC (s, ms, us, ns)"
            )
        return _counted(np.asarray(values), UNITS[unit])
    if kind == "O" or not hasattr(values.dtype, "tz"):
        values = _parsed(values, where)
    index = pd.DatetimeIndex(values)
    if index.tz is None:
        if tz is None:
            raise ValueError(f'{where} have no time zone: say tz="UTC", or the zone that the clock showed')
        try:
            index = index.tz_localize(tz)
        except (ValueError, KeyError) as error:  # an hour that is there twice, or not at all; no such zone
            raise ValueError(f"{where} in {tz}: {error}") from error
    return np.asarray(index.tz_convert("UTC").tz_localize(None).to_numpy("M8[ns]")).view(np.int64)


def _counted(values: Array, scale: int) -> Ints:
    """Return numbers as nanoseconds; NaN is no time."""
    if values.dtype.kind != "f":
        return values.astype(np.int64) * scale
    whole = np.floor(np.nan_to_num(values))
    found = whole.astype(np.int64) * scale + np.rint((np.nan_to_num(values) - whole) * scale).astype(np.int64)
    return np.where(np.isnan(values), np.iinfo(np.int64).min, found)


def _parsed(values: Any, where: str) -> Any:
    """Return text or objects as times, all with a zone or all without."""
    import pandas as pd

    plain = np.asarray(values)
    if plain.dtype.kind == "M":
        return plain.astype("M8[ns]")
    times = [None if v is None or v is pd.NaT or v == "" else pd.Timestamp(v) for v in plain.tolist()]
    zoned = {t.tzinfo is not None for t in times if t is not None}
    if len(zoned) > 1:
        raise ValueError(
            f"{where} mix times with and without a zone: which zone the others are in is not said"
        )
    if zoned == {True}:
        return pd.DatetimeIndex([pd.NaT if t is None else t.tz_convert("UTC") for t in times])
    return pd.DatetimeIndex([pd.NaT if t is None else t for t in times])


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


# ---- the other side -----------------------------------------------------------------------------
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


def samples_of(other: Any, key: str, names: Iterable[str] | None, group: str | None = None) -> Samples:
    """Return what any kind of `other` holds: a path, DataFrame, Series, Dataset, DataArray or Run."""
    import xarray as xr

    if isinstance(other, str | Path):
        other = _read(Path(other), group)
    elif group is not None:
        raise ValueError(f"group={group!r} belongs to a file, not to a {type(other).__name__}")
    if hasattr(other, "dataset") and hasattr(other, "events"):  # a Run
        other = other.dataset(names, join="outer")
        names = None
    if isinstance(other, xr.DataArray):
        other = other.to_dataset(name=other.name or "value")
    if isinstance(other, xr.Dataset):
        return _of_dataset(other, key, names)
    if hasattr(other, "to_frame") and not hasattr(other, "columns"):
        other = other.to_frame(other.name or "value")
    if hasattr(other, "columns"):
        return _of_frame(other, key, names)
    raise TypeError(
        f"cannot join a {type(other).__name__}: a path, DataFrame, Dataset, DataArray or Run is needed"
    )


def _read(path: Path, group: str | None) -> Any:
    """Open a file by the end of its name; arrays stay on disk."""
    import pandas as pd
    import xarray as xr

    if path.suffix == ".zarr":
        return xr.open_zarr(path, consolidated=False, group=group)  # reads either kind
    if path.suffix in (".h5", ".hdf5", ".nc", ".cxi"):
        how = {"phony_dims": "access"}
        found = xr.open_dataset(path, engine="h5netcdf", chunks={}, group=group, backend_kwargs=how)
        if not found.variables:
            raise NameNotFound(f"{path}: nothing in the group {group or '/'}; it has {_groups(path, group)}")
        return found
    if group is not None:
        raise ValueError(f"{path} has no groups, but group={group!r}")
    if path.suffix in (".csv", ".txt", ".dat"):
        return pd.read_csv(path)
    if path.suffix in (".parquet", ".pq"):
        return pd.read_parquet(path)
    raise ValueError(
        f"{path}: the end of the name must be csv, parquet, zarr, h5 or nc; or pass a DataFrame or Dataset"
    )


def _groups(path: Path, group: str | None) -> str:
    """Return the groups of an HDF5 file that hold arrays, as text."""
    import h5py

    with h5py.File(path) as file:
        found: list[str] = []
        file[group or "/"].visititems(
            lambda name, item: (
                found.append(name.rpartition("/")[0]) if isinstance(item, h5py.Dataset) else None
            )
        )
    return f"group={', '.join(map(repr, dict.fromkeys(found)))}" if found else "no arrays at all"


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

    columns = [str(c) for c in frame.columns if c != key]
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
    """Return a column of pandas as an array of numpy: text as text, nullable numbers with NaN."""
    import pandas as pd

    if pd.api.types.is_numeric_dtype(column.dtype) or column.dtype.kind in "mM":
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


# ---- joining ------------------------------------------------------------------------------------
def join(
    view: View,
    other: Any,
    on: str = "time",
    method: str = "exact",
    *,
    tolerance: Any = None,
    offset: Any = None,
    key: str | None = None,
    names: Iterable[str] | None = None,
    group: str | None = None,
    tz: str | None = None,
    unit: str | None = None,
    units: Mapping[str, str] | None = None,
    prefix: str = "",
) -> xr.Dataset:
    """Return outside data on the events of a run; see `Run.join`."""
    import xarray as xr

    if method not in METHODS:
        raise ValueError(f"method={method!r}{suggestion(method, METHODS)}")
    samples = samples_of(other, key or on, names, group)
    wanted, keys = _both_keys(view, samples, on, key or on, tz, unit)
    shift, limit = (0 if v is None else _span(v, on) for v in (offset, tolerance))
    ordered, order, counts = _in_order(keys, shift)
    found = match(ordered, wanted, method, None if tolerance is None else limit)
    variables = {
        f"{prefix}{name}": _at_events(variable, found, order, method, name)
        for name, variable in samples.variables.items()
    }
    if taken := EVENT_COORDS & set(variables):
        raise ValueError(f'the run has a {min(taken)!r} of its own: prefix="..." keeps both')
    for name, text in (units or {}).items():
        if name not in samples.variables:
            raise NameNotFound.of("variable", name, map(str, samples.variables))
        variables[f"{prefix}{name}"].attrs["units"] = text
    matched = int(found.found.sum())
    used = len(np.unique(np.concatenate([found.before, found.after])[np.tile(found.found, 2)]))
    counts |= {"matched": matched, "unmatched": len(wanted) - matched, "unused": len(ordered) - used}
    _warn(counts, ordered, wanted, on)
    own = {f"{prefix}joined": ("time", found.found)}
    own[f"{prefix}joined_{on}"] = ("time", _own_keys(ordered, found, on))
    words = {"on": on, "method": method, "tolerance": str(tolerance), "offset": str(offset)}
    return xr.Dataset(variables, event_coords(view) | own, run_attrs(view) | words | counts)


def _both_keys(
    view: View, samples: Samples, on: str, key: str, tz: str | None, unit: str | None
) -> tuple[Ints, Ints]:
    """Return the keys of the events and those of the samples, as integers."""
    if on == "time":
        zone = tz or ("UTC" if samples.is_utc else None)
        return view.time.view(np.int64), time_keys(samples.keys, zone, unit, f"the times in {key!r}")
    coords = event_coords(view)
    if on not in coords or on in ("time", "step"):
        known = [str(c) for c in coords if c != "step"]
        raise NameNotFound.of("key of events", on, known)
    values = np.asarray(samples.keys)
    if values.dtype.kind not in "iu":
        raise ValueError(f"{key!r} is {values.dtype}: {on} is a whole number")
    return np.asarray(coords[on].values).astype(np.int64), values.astype(np.int64)


def _span(value: Any, on: str) -> int:
    """Return an offset or tolerance as an integer, in the units of the key."""
    if on == "time":
        return in_nanoseconds(value)
    if not isinstance(value, int | np.integer):
        raise TypeError(f"an offset or tolerance of {on} is a whole number, not {value!r}")
    return int(value)


def _in_order(keys: Ints, shift: int) -> tuple[Ints, Ints, dict[str, int]]:
    """Return keys in order on the clock of the run, where each was, and what was odd about them."""
    known = np.flatnonzero(keys != np.iinfo(np.int64).min)
    present = keys[known]
    order = known[np.argsort(present, kind="stable")]
    counts = {
        "without_key": len(keys) - len(known),
        "out_of_order": int((np.diff(present) < 0).sum()),
        "duplicates": int((np.diff(keys[order]) == 0).sum()),
    }
    return keys[order] + shift, order, counts


def _warn(counts: Mapping[str, int], keys: Ints, wanted: Ints, on: str) -> None:
    odd = [f"{counts[w]} samples {w.replace('_', ' ')}" for w in ("without_key", "out_of_order") if counts[w]]
    if counts["duplicates"]:
        odd.append(f"{counts['duplicates']} samples with the key of another (the last counts)")
    if not counts["matched"] and len(keys) and len(wanted):
        at = np.clip(np.searchsorted(keys, wanted), 1, max(1, len(keys) - 1))
        near = int(
            np.min([np.abs(keys[np.minimum(at, len(keys) - 1)] - wanted), np.abs(keys[at - 1] - wanted)])
        )
        far = f"{near / 1e9:.6f} s" if on == "time" else str(near)
        odd.append(f"no event has a sample: the nearest is {far} away (tz=, offset= and tolerance= help)")
    if odd:
        warnings.warn(f"join on {on}: {'; '.join(odd)}", DroppedWarning, stacklevel=4)


def _own_keys(keys: Ints, found: Matches, on: str) -> Array:
    """Return the key of the sample that each event has, on the clock of the run; NaT or -1 without."""
    missing = np.iinfo(np.int64).min if on == "time" else -1
    out = np.full(len(found.before), missing, np.int64)
    out[found.found] = keys[found.before[found.found]]
    return out.view("M8[ns]") if on == "time" else out


def _at_events(variable: xr.Variable, found: Matches, order: Ints, method: str, name: str) -> xr.Variable:
    """Return a variable at the events, as lazy as it was."""
    import xarray as xr

    dims = ("time", *variable.dims[1:])
    if not len(order):
        empty = np.zeros((1, *variable.shape[1:]), variable.dtype)
        values: Any = _masked(empty[np.zeros(len(found.before), int)], found.found)
        return xr.Variable(dims, values, variable.attrs)
    first = variable.data[order[np.maximum(found.before, 0)]]
    if method == "interp":
        if variable.dtype.kind not in "fiu":
            raise ValueError(
                f'{name} is {variable.dtype}: only numbers can be interpolated; use method="ffill"'
            )
        last = variable.data[order[np.maximum(found.after, 0)]]
        weight = found.weight.reshape(-1, *[1] * (variable.ndim - 1))
        # weight 0 means the sample itself: what lies behind it (NaN even) is not touched
        first = _where(weight > 0, first * (1 - weight) + last * weight, first * 1.0)
    return xr.Variable(dims, _masked(first, found.found), variable.attrs)


def _masked(values: Any, present: Bools) -> Any:
    """Return values with those of absent samples replaced: NaN, 0, False, NaT or ''."""
    if present.all():
        return values
    fill = np.datetime64("NaT") if values.dtype.kind == "M" else missing_value(values.dtype)
    return _where(present.reshape(-1, *[1] * (values.ndim - 1)), values, np.asarray(fill, values.dtype))


def _where(condition: Array, yes: Any, no: Any) -> Any:
    if isinstance(yes, np.ndarray):
        return np.where(condition, yes, no)
    import dask.array as da

    return da.where(condition, yes, no)

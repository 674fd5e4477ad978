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
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from psana_dask.dataset import View, event_coords, run_attrs
from psana_dask.errors import DroppedWarning, NameNotFound, suggestion
from psana_dask.fields import missing_value
from psana_dask.model import Array
from psana_dask.samples import (
    EVENT_COORDS,
    NO_KEY,
    Samples,
    in_nanoseconds,
    samples_of,
    time_keys,
    whole_keys,
)

if TYPE_CHECKING:
    import xarray as xr

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

METHODS = ("exact", "nearest", "ffill", "interp")


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

    Of samples with equal keys the last counts; of those behind an event, which "nearest" and
    "interp" look at, the first: as `pandas.merge_asof` has it.

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

    _refuse(method, tolerance)
    samples = samples_of(other, key or on, names, group, between=method == "interp")
    wanted, keys = _both_keys(view, samples, on, key or on, tz, unit)
    shift, limit = (0 if v is None else _span(v, on) for v in (offset, tolerance))
    if limit < 0:
        raise ValueError(f"tolerance={tolerance!r}: the largest distance of a sample is at least 0")
    ordered, order, counts = _in_order(keys, shift)
    found = match(ordered, wanted, method, None if tolerance is None else limit)
    made = _variables(samples, found, order, method, units or {})
    variables = {f"{prefix}{name}": variable for name, variable in made.items()}
    own = {f"{prefix}joined": ("time", found.found)}
    own[f"{prefix}joined_{on}"] = ("time", _own_keys(ordered, found, on))
    if taken := (EVENT_COORDS | own.keys()) & variables.keys():
        raise ValueError(f'the run has a {min(taken)!r} of its own: prefix="..." keeps both')
    counts |= _uses(found, len(ordered))
    _warn(counts, ordered, wanted, on)
    words = {"on": on, "method": method, "tolerance": str(tolerance), "offset": str(offset)}
    return xr.Dataset(variables, event_coords(view) | own, run_attrs(view) | words | counts)


def _refuse(method: str, tolerance: Any) -> None:
    if method not in METHODS:
        raise ValueError(f"method={method!r}{suggestion(method, METHODS)}")
    if method == "exact" and tolerance is not None:
        raise ValueError('method="exact" takes no tolerance: "nearest" does')


def _variables(
    samples: Samples, found: Matches, order: Ints, method: str, units: Mapping[str, str]
) -> dict[str, xr.Variable]:
    """Return the variables at the events, with the units that are given."""
    variables = {n: _at_events(v, found, order, method, n) for n, v in samples.variables.items()}
    for name, text in units.items():
        if name not in variables:
            raise NameNotFound.of("variable", name, map(str, variables))
        variables[name].attrs["units"] = text
    return variables


def _uses(found: Matches, samples: int) -> dict[str, int]:
    """Return how many events have a sample, and how many samples no event has."""
    matched = int(found.found.sum())
    used = np.unique(np.concatenate([found.before, found.after])[np.tile(found.found, 2)])
    return {"matched": matched, "unmatched": len(found.found) - matched, "unused": samples - len(used)}


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
    values = whole_keys(samples.keys, f"the values of {key!r}")
    return np.asarray(coords[on].values).astype(np.int64), values


def _span(value: Any, on: str) -> int:
    """Return an offset or tolerance as an integer, in the units of the key."""
    if on == "time":
        return in_nanoseconds(value)
    if not isinstance(value, int | np.integer):
        raise TypeError(f"an offset or tolerance of {on} is a whole number, not {value!r}")
    return int(value)


def _in_order(keys: Ints, shift: int) -> tuple[Ints, Ints, dict[str, int]]:
    """Return keys in order on the clock of the run, where each was, and what was odd about them."""
    known = np.flatnonzero(keys != NO_KEY)
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
    missing = NO_KEY if on == "time" else -1
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

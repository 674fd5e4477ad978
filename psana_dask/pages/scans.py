"""How one number of the events depends on another: for scan plots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from psana_dask.conditions import events_where
from psana_dask.errors import ConditionError, EventNotFound, NameNotFound
from psana_dask.slow import steps_of

if TYPE_CHECKING:
    from psana_dask.run import Run

Floats = npt.NDArray[np.float64]

TIME, STEP = "time", "step"
MOST_VALUES = 400
"""Different values of what was scanned that are kept apart; beyond them they are put into bins."""

BINS = 60


@dataclass(frozen=True, eq=False)
class Scan:
    """Means of a number over the values of another one.

    Parameters
    ----------
    x : (point,) float64
        A value of what was scanned, or the middle of a bin.
    mean, error : (point,) float64
        Mean and its standard deviation (NaN for a single event).
    count : (point,) int64
        Events of each.
    left_out : int
        Events without one of the numbers.
    """

    x: Floats
    mean: Floats
    error: Floats
    count: npt.NDArray[np.int64]
    left_out: int
    x_name: str
    y_name: str


def over_names(run: Run) -> list[str]:
    """Return what a number may be drawn over: what was scanned first, then step, time, and all numbers."""
    steps = steps_of(run._recording)
    scanned = [f"scan {name}" for name in steps.scanned if _is_number(steps.values[name])]
    return [*scanned, STEP, TIME, *number_names(run)]


def number_names(run: Run) -> list[str]:
    """Return ``detector.field`` of every number of the events."""
    from psana_dask.pages.event_content import layout_of

    return [f"{detector}.{field}" for detector, field in layout_of(run).scalars]


def _is_number(column: Any) -> bool:
    return np.asarray(column).dtype.kind in "iuf"


def scan_of(run: Run, y: str, x: str, condition: str = "") -> Scan:
    """Return the mean of a number over the values of another one.

    Parameters
    ----------
    run : Run
    y : str
        ``detector.field``.
    x : str
        One of `over_names`.
    condition : str
        Only these events: see `psana_dask.conditions.events_where`.

    Raises
    ------
    EventNotFound
        No event has both and meets the condition.
    ConditionError, NameNotFound
        The condition is not understood; a name fits nothing.
    """
    chosen = np.flatnonzero(events_where(run, condition)) if condition.strip() else np.arange(len(run))
    part = run.isel(chosen)
    values, places = _values(part, y), _places(part, x)
    known = np.isfinite(values) & np.isfinite(places)
    if not known.any():
        raise EventNotFound(f"none of {len(chosen)} events has both {y} and {x}")
    group, at = _grouped(places[known])
    return _means(group, values[known], at, int((~known).sum()), x, y)


def _values(run: Run, name: str) -> Floats:
    """Return a number of each event, NaN where it is missing."""
    detector, _, field = name.partition(".")
    found = run[detector].field(field, chunks=None)
    if getattr(found, "dims", ()) != ("time",):
        raise ConditionError(f"{name} is no number of an event")
    there = np.asarray(run[detector].present.values, bool)
    return np.where(there, np.asarray(found.data, np.float64), np.nan)


def _places(run: Run, name: str) -> Floats:
    if name == TIME:
        time = run.events.time.values
        return (time - time[0]) / np.timedelta64(1, "s") if len(time) else np.zeros(0)
    step = run.events.step.values
    if name == STEP:
        return np.where(step >= 0, step.astype(np.float64), np.nan)
    if not name.startswith("scan "):
        return _values(run, name)
    column = steps_of(run._recording).values.get(name.removeprefix("scan "))
    if column is None or not _is_number(column):
        raise NameNotFound(f"{name!r} was not scanned")
    found = np.asarray(column, np.float64)
    return np.where(step >= 0, found[np.clip(step, 0, len(found) - 1)], np.nan)


def _grouped(places: Floats) -> tuple[npt.NDArray[np.int64], Floats]:
    """Return the group of each event, and where the groups are."""
    values, group = np.unique(places, return_inverse=True)
    if len(values) <= MOST_VALUES:
        return group.reshape(-1), values
    edges = np.linspace(values[0], values[-1], BINS + 1)
    bins = np.clip(np.searchsorted(edges, places, side="right") - 1, 0, BINS - 1)
    return bins, (edges[:-1] + edges[1:]) / 2


def _means(
    group: npt.NDArray[np.int64], values: Floats, at: Floats, left_out: int, x: str, y: str
) -> Scan:
    count = np.bincount(group, minlength=len(at))
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.bincount(group, values, len(at)) / count
        spread = np.bincount(group, (values - mean[group]) ** 2, len(at)) / (count - 1)
        error = np.sqrt(np.where(count > 1, spread, np.nan) / count)
    used = count > 0
    return Scan(at[used], mean[used], error[used], count[used], left_out, x, y)

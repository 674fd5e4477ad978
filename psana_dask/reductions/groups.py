"""Bins: which group of a reduction each event belongs to.

``by="step"``, ``by=("delay", edges)``, ``by=run.evr.has(90)``, a boolean or any other array over
time, a list of these (several dimensions), or a mapping that also names them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from psana_dask.catalog import Entry
from psana_dask.dataset import View, field_of
from psana_dask.errors import NameNotFound, near_names
from psana_dask.fields import any_panel
from psana_dask.indexing import labelled
from psana_dask.pipeline import FrameArray, catalog_of
from psana_dask.slow import Epics, steps_of

Ints = NDArray[np.int64]


@runtime_checkable
class Condition(Protocol):
    """A question that can be asked of every event (``run.evr.has(90, -162)``)."""

    def mask(self, view: View) -> NDArray[np.bool_]:
        """Return the answer for each event of the view."""


@dataclass(frozen=True, eq=False)
class Axis:
    """One dimension of bins.

    Parameters
    ----------
    name : str
    codes : (event,) int64
        Bin of each event; -1: none.
    labels : (bin,) array
        The coordinate.
    coords : mapping of str to (bin,) array
        More coordinates along it: bin edges, scan values.
    """

    name: str
    codes: Ints
    labels: NDArray[Any]
    coords: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Groups:
    """All dimensions of bins together.

    Parameters
    ----------
    axes : tuple of Axis
    events : int
        Of the view.
    """

    axes: tuple[Axis, ...]
    events: int

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the dimensions."""
        return tuple(axis.name for axis in self.axes)

    @property
    def shape(self) -> tuple[int, ...]:
        """Bins along each dimension."""
        return tuple(len(axis) for axis in self.axes)

    @property
    def coords(self) -> dict[str, tuple[str, NDArray[Any]]]:
        """Coordinates of the bins."""
        found: dict[str, tuple[str, NDArray[Any]]] = {}
        for axis in self.axes:
            found[axis.name] = (axis.name, axis.labels)
            found |= {name: (axis.name, values) for name, values in axis.coords.items()}
        return found

    def members(self) -> list[Ints]:
        """Return the positions of the events of each bin, in the order of the bins (C order)."""
        codes, kept = np.zeros(self.events, np.int64), np.ones(self.events, bool)
        for axis in self.axes:
            codes = codes * len(axis) + axis.codes
            kept &= axis.codes >= 0
        positions = np.flatnonzero(kept)
        order = positions[np.argsort(codes[positions], kind="stable")]
        bins = int(np.prod(self.shape, dtype=np.int64))
        ends = np.cumsum(np.bincount(codes[positions], minlength=bins))
        return np.split(order, ends[:-1]) if bins else []


By = Any


def groups_of(view: View, by: By) -> Groups:
    """Return the bins that `by` describes.

    Parameters
    ----------
    view : View
    by : None, or a description
        See the module; ``None`` is one bin of everything, without a dimension.

    Raises
    ------
    NameNotFound
        A name is neither a scan variable, nor an EPICS variable, nor a scalar field.
    """
    events = len(view.choice)
    if by is None:
        return Groups((), events)
    if isinstance(by, Mapping):
        axes = tuple(_axis(view, spec, name) for name, spec in by.items())
    elif isinstance(by, list) or (isinstance(by, tuple) and not _is_binned(by)):
        axes = tuple(_axis(view, spec, None) for spec in by)
    else:
        axes = (_axis(view, by, None),)
    if len({axis.name for axis in axes}) < len(axes):
        names = [axis.name for axis in axes]
        raise ValueError(f"two dimensions of bins have one name: {names}; name them by a mapping")
    return Groups(axes, events)


def _is_binned(by: tuple[Any, ...]) -> bool:
    """Tell whether a tuple is (what, edges), not several dimensions."""
    return len(by) == 2 and not isinstance(by[1], str | Condition | tuple) and np.ndim(by[1]) <= 1


def _axis(view: View, spec: Any, name: str | None) -> Axis:
    spec = labelled(spec)
    if isinstance(spec, tuple) and _is_binned(spec):
        return _binned(view, spec[0], spec[1], name)
    if isinstance(spec, str) and spec == "step":
        return _steps(view, name or "step")
    if name is not None and _are_edges(spec) and len(spec) != len(view.choice):
        return _binned(view, name, spec, name)
    if isinstance(spec, Condition):
        return _condition(view, spec, name or re.sub(r"\W+", "_", str(spec)))
    own, values = _values(view, spec)
    return _distinct(name or own, values)


def _are_edges(spec: Any) -> bool:
    return isinstance(spec, Sequence | np.ndarray) and not isinstance(spec, str)


def _steps(view: View, name: str) -> Axis:
    recording = view.recording
    steps = steps_of(recording)
    codes = recording.events.step[view.choice.numbers].astype(np.int64)
    count = max(len(steps), int(codes.max(initial=-1)) + 1)
    given = {key: values for key, values in steps.values.items() if len(values) == count}
    coords = {key if key != name else f"{key}_value": v for key, v in given.items() if v.ndim == 1}
    return Axis(name, codes, np.arange(count), coords)


def _condition(view: View, condition: Condition, name: str) -> Axis:
    """Return the bins False and True; an event that cannot be asked is in neither."""
    yes = condition.mask(view)
    no = (~condition).mask(view) if hasattr(condition, "__invert__") else ~yes
    codes = np.where(yes, 1, np.where(no, 0, -1)).astype(np.int64)
    return Axis(name, codes, np.array([False, True]))


def _binned(view: View, what: Any, edges: Any, name: str | None) -> Axis:
    """Return bins between edges, or that many equal ones; the last includes its upper edge."""
    own, values = _values(view, what)
    numbers = values.astype(np.float64)
    if isinstance(edges, int | np.integer):
        finite = numbers[np.isfinite(numbers)]
        low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 1.0)
        edges = np.linspace(low, high if high > low else low + 1, int(edges) + 1)
    edges = np.asarray(edges, np.float64)
    if edges.ndim != 1 or len(edges) < 2 or not (np.diff(edges) > 0).all():
        raise ValueError(f"bin edges of {name or own} must increase, and be two at least: {edges[:5]}")
    codes = np.searchsorted(edges, numbers, side="right") - 1
    codes[numbers == edges[-1]] = len(edges) - 2
    codes[~np.isfinite(numbers) | (numbers < edges[0]) | (numbers > edges[-1])] = -1
    label = name or own
    coords = {f"{label}_left": edges[:-1], f"{label}_right": edges[1:]}
    return Axis(label, codes.astype(np.int64), (edges[:-1] + edges[1:]) / 2, coords)


def _distinct(name: str, values: NDArray[Any]) -> Axis:
    """Return one bin for each value that occurs; both for booleans."""
    if values.dtype == np.bool_:
        return Axis(name, values.astype(np.int64), np.array([False, True]))
    there = ~np.isnan(values) if values.dtype.kind == "f" else np.ones(len(values), bool)
    labels, inverse = np.unique(values[there], return_inverse=True)
    codes = np.full(len(values), -1, np.int64)
    codes[there] = inverse.reshape(-1)
    return Axis(name, codes, labels)


# ---- values of each event -----------------------------------------------------------------------
def _values(view: View, what: Any) -> tuple[str, NDArray[Any]]:
    """Return the name and the values, (event,), of what events are binned by."""
    if isinstance(what, str):
        return what.rpartition(".")[2] if "." in what else what, event_values(view, what)
    what = labelled(what)
    if isinstance(what, Condition):
        return str(what), what.mask(view)
    return given_values(view, what)


def given_values(view: View, what: Any) -> tuple[str, NDArray[Any]]:
    """Return given values; labelled ones are aligned on time."""
    name = str(getattr(what, "name", None) or "bin")
    indexes = getattr(what, "indexes", None)
    values = np.asarray(what.values if hasattr(what, "values") else what)
    if indexes is not None and "time" in indexes:
        values = _aligned(view, np.asarray(indexes["time"].values, "M8[ns]"), values)
    if values.shape != (len(view.choice),):
        what = f"{name} has shape {values.shape} for {len(view.choice)} events"
        raise ValueError(f"{what}: one value per event is needed")
    return name, values


def _aligned(view: View, times: NDArray[Any], values: NDArray[Any]) -> NDArray[Any]:
    """Return values at the times of the view; what is not there is NaN, or False."""
    if np.array_equal(times, view.time):
        return values
    order = np.argsort(times, kind="stable")
    at = np.minimum(np.searchsorted(times[order], view.time), max(0, len(times) - 1))
    there = times[order][at] == view.time if len(times) else np.zeros(len(view.choice), bool)
    kind = np.dtype(bool) if values.dtype == np.bool_ else np.result_type(values.dtype, np.float64)
    out = np.full(len(view.choice), False if kind == np.bool_ else np.nan, kind)
    out[there] = values[order][at[there]]
    return out


def event_values(view: View, name: str) -> NDArray[Any]:
    """Return one value per event: a scan variable, an EPICS variable, or a scalar field.

    Raises
    ------
    NameNotFound
        It is none of these.
    """
    steps = steps_of(view.recording)
    if name in steps.values:
        return _of_steps(view, steps.values[name])
    entry = catalog_of(view.recording).find(name.partition(".")[0])
    if "." in name and entry is not None and entry.name in view.entries:
        return _scalar(view, entry, name.partition(".")[2])
    epics = Epics(view.recording, view.time)
    if name in epics:
        return _epics(view, epics, name)
    if entry is not None and entry.name in view.entries and len(entry.channels) == 1:
        return _scalar(view, entry, next(iter(entry.channels)))
    if near_names(name.partition(".")[0], view.entries) and "." in name and entry is None:
        raise NameNotFound.of("detector", name.partition(".")[0], view.entries)
    fields = (f"{n}.{f}" for n, e in view.entries.items() for f in e.channels)
    known = ["step", "run", *steps.values, *epics, *fields]
    raise NameNotFound.of("scan variable, EPICS variable or scalar field", name, known)


def _of_steps(view: View, values: NDArray[Any]) -> NDArray[Any]:
    step = view.recording.events.step[view.choice.numbers]
    found = np.full(len(step), np.nan) if values.dtype.kind in "iuf" else np.zeros(len(step), values.dtype)
    known = (step >= 0) & (step < len(values))
    found[known] = values[step[known]]
    return found


def _epics(view: View, epics: Epics, name: str) -> NDArray[Any]:
    """Return an EPICS variable at the events; NaN, or '', before its first update."""
    values, present = epics.find(name).at(view.time)
    if values.ndim > 1:
        raise NameNotFound(f"EPICS variable {name} is an array: events cannot be binned by it")
    if present.all() or values.dtype.kind not in "iub":
        return values
    return np.where(present, values.astype(np.float64), np.nan)


def _scalar(view: View, entry: Entry, field: str) -> NDArray[Any]:
    public = field_of(entry, field)
    lazy = view.arrays(entry, public).get(public) if view.exists(entry.channels[public]) else None
    if not isinstance(lazy, FrameArray) or lazy.shape != (len(view.choice),):
        what = f"{entry.name}.{public} is not one number per event"
        raise NameNotFound(f"{what}: events cannot be binned by it")
    values = np.asarray(lazy[...])
    there = any_panel(lazy.target.reader().present(view.choice.numbers))
    if there.all() or values.dtype.kind == "f":
        return np.where(there, values, np.nan) if values.dtype.kind == "f" else values
    return np.where(there, values.astype(np.float64), np.nan)

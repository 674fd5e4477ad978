"""Reductions by a function of the user that go on: the same 16 events together as on a closed run.

Events wait until there are 16 of their bin; what they are then is handed to the function once.
Contract: tests/stream/test_running.py.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from psana_dask.dataset import View
from psana_dask.errors import NameNotFound
from psana_dask.reductions.calls import FADING, Choices, is_of_pixels
from psana_dask.reductions.eventfields import EventField, block_dataset, event_fields, having_all
from psana_dask.reductions.functions import Call, added, binned, partial_of
from psana_dask.reductions.groups import Axis, Groups
from psana_dask.reductions.leaves import LEAF, Carry
from psana_dask.reductions.quantities import Wanted as Names
from psana_dask.reductions.quantities import check_names
from psana_dask.stream.running import Bins, Key, joined, rebound, rebound_target

if TYPE_CHECKING:
    import xarray as xr

Merge = Callable[[Any, Any], Any]


NUMBERS = np.zeros(0, np.int64)
"""Events of a stream have no numbers that would outlive their batch."""


class StreamCall(Call):
    """A function and what it is called with; its errors name events by their times."""

    def _blamed(self, data: xr.Dataset, events: Any, error: Exception) -> str:
        del events
        name = getattr(self.function, "__name__", repr(self.function))
        times = data["time"].values
        for k, when in enumerate(times):
            try:
                self.function(data.isel(time=slice(k, k + 1)))
            except Exception as own:
                return f"{name} failed at event {when}: {type(own).__name__}: {own}"
        return f"{name} failed between events {times[0]} and {times[-1]}: {type(error).__name__}: {error}"


@dataclass
class _Open:
    """Partial results of one bin, and the events that do not make a leaf yet."""

    carry: Carry[Any]
    waiting: xr.Dataset | None = None


@dataclass(frozen=True, eq=False)
class PartialResults:
    """What a function has made so far, by bin.

    Parameters
    ----------
    parts : mapping of bin to what the function returns
    axes : tuple of Axis
    merge : callable
    """

    parts: Mapping[Key, Any]
    axes: tuple[Axis, ...]
    merger: Merge

    def merge(self, other: PartialResults) -> PartialResults:
        """Return both, this one first."""
        parts = dict(self.parts)
        for key, part in other.parts.items():
            parts[key] = self.merger(parts[key], part) if key in parts else part
        return replace(self, parts=parts, axes=joined(self.axes, other.axes))

    def told(self) -> PartialResults:
        """Return it in a form that can be sent."""
        return self

    def result(self) -> Any:
        """Return the results of all bins side by side; None before the first event."""
        if not self.parts:
            return None
        keys = itertools.product(*(axis.labels.tolist() for axis in self.axes))
        return binned([self.parts.get(key) for key in keys], Groups(self.axes, 0))


@dataclass
class RunningFunction:
    """A reduction of micro-batches by a function.

    Parameters
    ----------
    function : callable
    names : names, optional
    choices : Choices
    merge : callable, optional
    """

    function: Callable[[Any], Any]
    names: Names
    choices: Choices
    merge: Merge | None = None
    _open: dict[Key, _Open] = field(default_factory=dict)
    _fields: tuple[EventField, ...] = ()
    _made_for: Any = None

    def __post_init__(self) -> None:
        if self.choices.half_life is not None:
            raise ValueError(f"half_life= is for {', '.join(FADING)}, not for a function")
        if self.choices.weights is not None:
            raise ValueError("a function applies weights by itself")
        self._bins = Bins(self.choices)

    def push(self, view: View) -> None:
        """Add the events of a batch."""
        mask = self.choices.mask
        if mask is not None and not callable(mask) and is_of_pixels(view, mask):
            raise ValueError("a function applies masks of pixels by itself")
        fields = self._found(view)
        if not fields:
            return
        self._call = StreamCall(self.function, fields, self.merge)
        size = self._call.block()
        for key, events in self._bins.of(view):
            numbers = events.bins[0]
            if self.names is not None:
                numbers = numbers[having_all(fields, numbers)]
            for first in range(0, len(numbers), size):
                opened = self._open.setdefault(key, _Open(Carry(self.merge or added)))
                self._add(opened, block_dataset(fields, view.recording, numbers[first : first + size]))

    def snapshot(self) -> PartialResults:
        """Return what was made of all events so far."""
        parts = {key: self._total(opened) for key, opened in self._open.items()}
        return PartialResults(parts, self._bins.axes or (), self.merge or added)

    def result(self) -> Any:
        """Return what was made of all events so far; None before the first."""
        return self.snapshot().result()

    def _found(self, view: View) -> tuple[EventField, ...]:
        """Return the fields of a batch; constants are looked up once a run."""
        recording = view.recording
        made_for = (recording.number, tuple(len(s.configs) for s in recording.streams))
        if made_for != self._made_for:
            check_names(view, self.names)
            try:
                self._fields = tuple(event_fields(view, self.names, self.choices.calibration))
            except NameNotFound:
                if self._made_for is None and not view.entries:
                    raise
                return ()
            self._made_for = made_for
        return tuple(_again(each, view) for each in self._fields)

    def _add(self, opened: _Open, data: xr.Dataset) -> None:
        """Hand whole leaves to the function; keep the rest."""
        import xarray as xr

        if opened.waiting is not None:
            data = xr.concat([opened.waiting, data], "time", join="exact", combine_attrs="override")
        whole = data.sizes["time"] // LEAF * LEAF
        for at in range(0, whole, LEAF):
            leaf = data.isel(time=slice(at, at + LEAF))
            opened.carry.push(partial_of(self._call, leaf, NUMBERS))
        rest = data.isel(time=slice(whole, None))
        opened.waiting = rest.copy(deep=True) if rest.sizes["time"] else None

    def _total(self, opened: _Open) -> Any:
        last = None if opened.waiting is None else partial_of(self._call, opened.waiting, NUMBERS)
        return copy.deepcopy(opened.carry).total(last)


def _again(each: EventField, view: View) -> EventField:
    """Return a field that is read from the recording of another batch."""
    quantity = None if each.quantity is None else _quantity(each.quantity, view)
    return replace(each, target=rebound_target(each.target, view), quantity=quantity)


def _quantity(quantity: Any, view: View) -> Any:
    from psana_dask.reductions.derived import retargeted

    lazy = retargeted(quantity.lazy, lambda target: rebound_target(target, view))
    return replace(rebound(quantity, view), lazy=lazy)

"""The values of events, field by field: what loops, `map`, functions and small data read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from psana_dask.analysis.perframe import PerFrame
from psana_dask.choice import Choice
from psana_dask.dataset import View, chosen_fields
from psana_dask.errors import NameNotFound
from psana_dask.fields import any_panel
from psana_dask.pipeline import CountArray, StringArray, Target, ragged_reader
from psana_dask.recording import Recording, open_recording
from psana_dask.reductions.quantities import (
    PIXELS,
    Quantity,
    derived_quantity,
    field_quantity,
    listed,
    pixel_quantity,
)
from psana_dask.reductions.quantities import Wanted as Names

if TYPE_CHECKING:
    import xarray as xr

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class EventField:
    """One field of a detector, read for any events.

    Parameters
    ----------
    detector, field : str
    target : Target
        Over no events.
    quantity : Quantity, optional
        None: text or ragged values.
    """

    detector: str
    field: str
    target: Target
    quantity: Quantity | None

    @property
    def name(self) -> str:
        """``<detector>_<field>``."""
        return f"{self.detector}_{self.field}"

    @property
    def nbytes(self) -> int:
        """Bytes of an event that have to be read; a guess for text and ragged values."""
        return 256 if self.quantity is None else self.quantity.frames.nbytes

    def present(self, events: Ints) -> Bools:
        """Return which panels each event has, (event, panel)."""
        found: Bools = self.target.reader().present(events)
        return found

    def read(self, events: Ints) -> Any:
        """Return one value per event: an array (event, ...), or a list where lengths vary."""
        if self.quantity is not None:
            return self.quantity.read(events)
        target = replace(self.target, choice=Choice(events, self.target.choice.total))
        if _is_text(target):
            return StringArray(target)[...]
        counts = np.asarray(CountArray(target)[...])
        ends = np.cumsum(counts.reshape(len(events), -1).sum(axis=1))
        return np.split(ragged_reader(target).read(events), ends)[: len(events)]


def _is_text(target: Target) -> bool:
    from psana_dask.fields import StringReader

    return isinstance(target.reader(), StringReader)


def event_fields(
    view: View, names: Names, calibration: Mapping[str, Any] | None = None
) -> list[EventField]:
    """Return the fields that names mean, of any kind; all that a detector has where none is named."""
    found: dict[tuple[str, str], EventField] = {}
    for name in listed(view, names):
        if isinstance(name, PerFrame):
            derived = derived_quantity(view, name, dict(calibration or {}))
            found[derived.detector, name.name] = EventField(
                derived.detector, name.name, derived.target, derived
            )
            continue
        detector, _, last = name.rpartition(".") if isinstance(name, str) else (name[0], "", name[1])
        if last in PIXELS and detector:
            entry = view.find(detector)
            stored = field_quantity(view, entry, last) if last in entry.channels else None
            quantity = stored or pixel_quantity(view, entry, last, **dict(calibration or {}))
            found[entry.name, last] = EventField(entry.name, last, quantity.target, quantity)
            continue
        for owner, fields in chosen_fields(view, [name]).items():
            for each in fields:
                made = _field(view, owner, each)
                if made is not None:
                    found[owner, each] = made
    if not found and view.entries:
        raise NameNotFound(f"no event has anything of {names!r}")
    return list(found.values())


def _field(view: View, detector: str, field: str) -> EventField | None:
    entry = view.entries[detector]
    channel = entry.channels[field]
    if not view.exists(channel):
        return None
    target = replace(view.target(channel), choice=Choice(np.zeros(0, np.int64), view.choice.total))
    return EventField(detector, field, target, field_quantity(view, entry, field))


def having_all(fields: Iterable[EventField], events: Ints) -> Bools:
    """Return which events have every detector."""
    kept = np.ones(len(events), bool)
    for each in {f.detector: f for f in fields}.values():
        kept &= any_panel(each.present(events))
    return kept


# ---- labelled -----------------------------------------------------------------------------------
def block_dataset(fields: Sequence[EventField], recording: Recording, events: Ints) -> xr.Dataset:
    """Return some events as a loaded Dataset of the form of `run.dataset`.

    Raises
    ------
    NameNotFound
        A field has no fixed shape.
    """
    import xarray as xr

    table = recording.events
    coords: dict[str, Any] = {
        "time": table.time[events].view("M8[ns]"),
        "timestamp": ("time", table.timestamp[events]),
        "step": ("time", table.step[events]),
    }
    data: dict[str, Any] = {}
    for each in fields:
        coords |= _presence(each, events)
        data[each.name] = (("time", *_dims(each, fields)), _fixed(each, events), _attrs(each))
    return xr.Dataset(data, coords)


def _presence(each: EventField, events: Ints) -> dict[str, Any]:
    found = each.present(events)
    coords: dict[str, Any] = {f"{each.detector}_present": ("time", any_panel(found))}
    if found.shape[1] > 1:
        coords[f"{each.detector}_panel_present"] = (("time", f"{each.detector}_panel"), found)
    return coords


def _dims(each: EventField, fields: Sequence[EventField]) -> tuple[str, ...]:
    """Return the dimensions of a field; those of frames get the detector's name among several detectors."""
    dims = () if each.quantity is None else each.quantity.dims
    if len({f.detector for f in fields}) == 1:
        return tuple("panel" if d == f"{each.detector}_panel" else d for d in dims)
    return tuple(f"{each.detector}_{d}" if d in ("panel", "row", "col", "y", "x") else d for d in dims)


def _fixed(each: EventField, events: Ints) -> NDArray[Any]:
    values = each.read(events)
    if isinstance(values, list):
        what = f"{each.name} has another length in every event"
        raise NameNotFound(f"{what}: loop over the run, or use run.smalldata")
    return np.asarray(values)


def _attrs(each: EventField) -> dict[str, Any]:
    return {"detector": each.detector} if each.quantity is None else dict(each.quantity.attrs)


def recording_of(fields: Sequence[EventField]) -> Recording:
    """Return the recording that fields belong to, opened once in this process."""
    target = fields[0].target
    return target.held or open_recording(target.files, target.token)


def place_of(recording: Recording, event: int) -> str:
    """Say where an event is: its time, and the file it is in."""
    time = recording.events.time[event : event + 1].view("M8[ns]")[0]
    for stream, row in enumerate(recording.events.rows[:, event].tolist()):
        if row >= 0:
            index = recording.streams[stream]
            return f"event {time} in {index.parts[int(index['part'][row])]}"
    return f"event {time} in {recording.files.paths[0]}"

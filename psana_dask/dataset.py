"""Channels to labelled variables: names, dimensions, coordinates, attributes, joins.

A `View` is a recording with a choice of events; everything here is a function of it.
"""

from __future__ import annotations

import fnmatch
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from psana_dask.catalog import Channel, Entry
from psana_dask.choice import Choice
from psana_dask.errors import DroppedWarning, NameNotFound, suggestion
from psana_dask.fields import FrameReader, any_panel
from psana_dask.model import Kind
from psana_dask.pipeline import (
    DamageArray,
    FrameArray,
    LazyArray,
    PresenceArray,
    Target,
    catalog_of,
    channel_reader,
    lazy_arrays,
)
from psana_dask.recording import Recording
from psana_dask.stacking import Part, flat

if TYPE_CHECKING:
    import xarray as xr


class Kept(dict[Any, Any]):
    """What was worked out for a view; it stays in its process."""

    def __reduce__(self) -> tuple[type[Kept], tuple[()]]:
        return Kept, ()


@dataclass(frozen=True)
class View:
    """A run as it is looked at: a recording, some of its events, and how damage is treated.

    Parameters
    ----------
    recording : Recording
    choice : Choice
    keep_damaged : bool
    only : tuple of str, optional
        Detectors to show; all by default.
    calib : optional
        Where constants come from; see `stores.store_of`.
    kept : Kept
        What was worked out for it, such as constants looked up; its selections share it.
    """

    recording: Recording
    choice: Choice
    keep_damaged: bool = False
    only: tuple[str, ...] | None = None
    calib: Any = None
    kept: Kept = dataclass_field(default_factory=Kept, compare=False, repr=False)

    @property
    def entries(self) -> Mapping[str, Entry]:
        """The detectors by name."""
        detectors = catalog_of(self.recording).detectors
        if self.only is None:
            return detectors
        return {name: e for name, e in detectors.items() if name in self.only}

    @property
    def time(self) -> npt.NDArray[np.datetime64]:
        """Times of the events, (event,)."""
        return self.recording.events.time[self.choice.numbers].view("M8[ns]")

    def target(self, channel: Channel) -> Target:
        """Return what a lazy array of `channel` reads from."""
        held = self.recording if self.recording.live else None
        return Target(
            self.recording.files, self.recording.token, channel.id, self.choice, self.keep_damaged, held
        )

    def exists(self, channel: Channel) -> bool:
        """Tell whether any event of the run has the channel."""
        return channel_reader(self.recording, channel.id, self.keep_damaged) is not None

    def arrays(self, entry: Entry, field: str) -> Mapping[str, LazyArray]:
        """Return the lazy arrays of one field: its values, and the counts if it is ragged."""
        channel = entry.channels[field]
        stem = f"{entry.name}_{field}" if self.recording.splits_events else ""  # sources are no good names
        dims = tuple(f"{entry.name}_{dim}" for dim in channel.spec.dims)
        return lazy_arrays(self.target(channel), field, self.frame(entry), stem, dims)

    def frame(self, entry: Entry) -> tuple[int, int] | None:
        """Return (rows, columns) of a detector: of its pixels, else of its first field that is 2-d."""
        for field in sorted(entry.channels, key=lambda f: f != "raw"):
            reader = channel_reader(self.recording, entry.channels[field].id, self.keep_damaged)
            if isinstance(reader, FrameReader) and len(reader.panel_shape) == 2:
                return reader.panel_shape[0], reader.panel_shape[1]
        return None

    def panels(self, entry: Entry) -> npt.NDArray[np.int64] | None:
        """Return the numbers of the panels of a detector; None if it has no panel dimension."""
        for field in sorted(entry.channels, key=lambda f: f != "raw"):
            reader = channel_reader(self.recording, entry.channels[field].id, self.keep_damaged)
            if reader is not None and reader.segmented:
                return reader.panels
        return None

    def find(self, name: str) -> Entry:
        """Return a detector by any of its spellings.

        Raises
        ------
        NameNotFound
            No such detector; lists the nearest names.
        """
        entry = catalog_of(self.recording).find(name)
        if entry is None or entry.name not in self.entries:
            raise NameNotFound.of("detector", name, self.entries)
        return entry


# ---- what is asked for --------------------------------------------------------------------------
Names = str | tuple[str, str] | Iterable[str | tuple[str, str]] | None


def chosen_fields(view: View, names: Names) -> dict[str, list[str]]:
    """Return detector to fields for names such as ``"cspad"``, ``"cspad.raw"`` and ``"epix*"``.

    Raises
    ------
    NameNotFound
        A name fits nothing; lists the nearest ones.
    """
    chosen: dict[str, list[str]] = {}
    if names is None:
        names = list(view.entries)
    elif isinstance(names, str) or _is_pair(view, names):
        names = [names]  # type: ignore[list-item]
    for name in names:
        for detector, field in _expanded(view, name):
            fields = chosen.setdefault(detector, [])
            wanted = list(view.entries[detector].channels) if field is None else [field]
            fields += [f for f in wanted if f not in fields]
    return chosen


def _is_pair(view: View, names: object) -> bool:
    """Tell whether `names` is one (detector, field), not two detectors."""
    if not (isinstance(names, tuple) and len(names) == 2 and all(isinstance(n, str) for n in names)):
        return False
    entry = catalog_of(view.recording).find(names[0])
    return entry is not None and entry.channel(names[1]) is not None and names[1] not in view.entries


def _expanded(view: View, name: str | tuple[str, str]) -> list[tuple[str, str | None]]:
    """Return the (detector, field) pairs that one name means; None for all fields."""
    if isinstance(name, tuple):
        entry = view.find(name[0])
        return [(entry.name, field_of(entry, name[1]))]
    if any(c in name for c in "*?["):
        found = [d for d in view.entries if fnmatch.fnmatchcase(d, name)]
        if not found:
            raise NameNotFound.of("detector", name, view.entries)
        return [(d, None) for d in found]
    if catalog_of(view.recording).find(name) is None and "." in name:
        detector, _, field = name.partition(".")
        entry = view.find(detector)
        return [(entry.name, field_of(entry, field))]
    return [(view.find(name).name, None)]


MADE_OF_PIXELS = ("calib", "image")
"""What reductions, loops and exports know beside the fields of a file."""


def field_of(entry: Entry, name: str) -> str:
    """Return the public name of a field of a detector.

    Raises
    ------
    NameNotFound
        No such field; lists the nearest ones.
    """
    channel = entry.channel(name)
    if channel is None:
        made = MADE_OF_PIXELS if "raw" in entry.channels else ()
        if name in made:
            where = f"run.{entry.name}.{name}, run.mean, run.reduce, run.loop or run.export"
            raise NameNotFound(f"{entry.name}.{name} is no field of the file, but made of one: use {where}")
        raise NameNotFound.of(f"field of {entry.name}", name, [*entry.channels, *made])
    return next(public for public, c in entry.channels.items() if c is channel)


# ---- variables ----------------------------------------------------------------------------------
def detector_variables(
    view: View, entry: Entry, fields: Sequence[str] | None, chunks: Any
) -> dict[str, xr.Variable]:
    """Return the variables of one detector, by field name; presence and damage included."""
    from psana_dask.variables import variable

    wanted = list(entry.channels) if fields is None else fields
    there = [f for f in wanted if view.exists(entry.channels[f])]
    variables: dict[str, xr.Variable] = {}
    for field in there:
        channel = entry.channels[field]
        for name, lazy in view.arrays(entry, field).items():
            made = variable(lazy, field_attrs(view, entry, channel), chunks)
            variables[name] = _own_panels(view, entry, channel, made)
    if there:
        variables |= _presence(view, entry, there, chunks)
    return variables


def _own_panels(view: View, entry: Entry, channel: Channel, made: xr.Variable) -> xr.Variable:
    """Give a channel that has other panels than its detector a panel dimension of its own."""
    reader = view.target(channel).reader()
    usual = view.panels(entry)
    if "panel" not in made.dims or usual is None or np.array_equal(reader.panels, usual):
        return made
    own = f"{channel.algorithm}_{channel.field}_panel"
    return made._replace(dims=tuple(own if d == "panel" else d for d in made.dims))


def _presence(view: View, entry: Entry, fields: Sequence[str], chunks: Any) -> dict[str, xr.Variable]:
    """Return ``present``, ``panel_present`` and ``damage`` of a detector.

    They belong to the algorithm of its pixels (or of its first field); another algorithm
    has its own ``<alg>_present``.
    """
    from psana_dask.variables import variable

    variables = {}
    main = main_channel(entry, fields)
    seen: set[str] = set()
    for field in fields if main is None else [main, *fields]:
        channel = entry.channels[field]
        prefix = "" if not seen else f"{channel.algorithm}_"
        if channel.algorithm in seen:
            continue
        seen.add(channel.algorithm)
        target = view.target(channel)
        variables[f"{prefix}present"] = variable(PresenceArray(target, per_panel=False), {}, chunks)
        if target.reader().segmented:
            made = variable(PresenceArray(target, per_panel=True), {}, chunks)
            variables[f"{prefix}panel_present"] = _own_panels(view, entry, channel, made)
        variables[f"{prefix}damage"] = variable(DamageArray(target), {}, chunks)
    return variables


def main_channel(entry: Entry, fields: Iterable[str]) -> str | None:
    """Return the field that stands for a detector: its pixels, else its first field."""
    fields = list(fields)
    return "raw" if "raw" in fields else (fields[0] if fields else None)


def field_attrs(view: View, entry: Entry, channel: Channel) -> dict[str, Any]:
    """Return the attributes of a field: what it is and where it comes from."""
    recording = view.recording
    attrs: dict[str, Any] = {
        "detector": entry.name,
        "alias": entry.alias,
        "det_type": entry.det_type,
        "det_id": list(entry.det_ids),
        "algorithm": channel.algorithm,
        "version": ".".join(map(str, channel.version)),
        "field": channel.spec.accessor or channel.field,
        "experiment": recording.experiment or "",
        "run": -1 if recording.number is None else recording.number,
        "format": recording.data_format,
    }
    if entry.source:
        attrs["source"] = entry.source
    if channel.spec.unit:
        attrs["units"] = channel.spec.unit
    reader = channel_reader(recording, channel.id, view.keep_damaged)
    if channel.spec.kind is Kind.ENUM:
        enum = {} if reader is None else reader.events.enum
        attrs["flag_values"] = list(enum)
        attrs["flag_meanings"] = " ".join(enum.values())
    return attrs | dict(getattr(reader, "attrs", {}))


# ---- coordinates --------------------------------------------------------------------------------
def event_coords(view: View) -> dict[str, Any]:
    """Return the coordinates along time: time, timestamp, step, and pulse_id where every event has one."""
    import xarray as xr

    from psana_dask.variables import variable

    events, numbers = view.recording.events, view.choice.numbers
    coords: dict[str, Any] = {
        "time": xr.Variable("time", view.time, {"long_name": "event time (UTC)"}),
        "timestamp": xr.Variable("time", events.timestamp[numbers], {"long_name": "seconds << 32 | ns"}),
        "step": xr.Variable("time", events.step[numbers], {"long_name": "scan step"}),
    }
    facts = view.recording.facts
    if "fiducial" in facts:
        coords["fiducial"] = xr.Variable("time", facts["fiducial"][numbers], {"long_name": "360 Hz counter"})
    pulse = pulse_id(view)
    if pulse is not None:
        coords["pulse_id"] = variable(pulse, {"long_name": "accelerator pulse"}, None)
    elif "pulse_id" in facts:
        attrs = {"long_name": "accelerator pulse"}
        coords["pulse_id"] = xr.Variable("time", facts["pulse_id"][numbers], attrs)
    return coords


FACTS: Mapping[str, Mapping[str, Any]] = {
    "l3": {"long_name": "level-3 trigger", "flag_values": [0, 1, 2], "flag_meanings": "none pass fail"},
    "trimmed": {"long_name": "payload thrown away by the level-3 trigger"},
    "recorder_only": {"long_name": "no DAQ stream has the event"},
    "vector": {"long_name": "events since Configure, 15 bits"},
    "ticks": {"long_name": "119 MHz counter within the fiducial"},
    "dgram_damage": {"long_name": "damage word of the datagram"},
}


def event_facts(view: View) -> dict[str, Any]:
    """Return what the datagrams say of each event, as variables along time (LCLS-1)."""
    import xarray as xr

    facts, numbers = view.recording.facts, view.choice.numbers
    known = {name: attrs for name, attrs in FACTS.items() if name in facts}
    return {name: xr.Variable("time", facts[name][numbers], dict(a)) for name, a in known.items()}


def pulse_id(view: View) -> LazyArray | None:
    """Return the pulse numbers of the events; None unless every event has one."""
    for entry in catalog_of(view.recording).detectors.values():
        for channel in entry.channels.values():
            if channel.spec.name == "pulseId" and view.exists(channel):
                target = view.target(channel)
                if any_panel(target.reader().present(view.choice.numbers)).all():
                    return FrameArray(target)
    return None


# ---- datasets -----------------------------------------------------------------------------------
def detector_dataset(
    view: View, entry: Entry, chunks: Any, fields: Sequence[str] | None = None
) -> xr.Dataset:
    """Return one detector as a Dataset; variables have the names of its fields."""
    import xarray as xr

    part = _part(view, entry, chunks, fields)
    coords = event_coords(view) | part.coords
    return xr.Dataset(part.data, coords, {"detector": entry.name, "det_type": entry.det_type})


def _part(view: View, entry: Entry, chunks: Any, fields: Sequence[str] | None) -> Part:
    variables = detector_variables(view, entry, fields, chunks)
    coords = _panel_coords(view, entry, variables) | _positions(view, entry, variables)
    # presence goes where the values go: it must survive ds["cspad_raw"] and arithmetic
    own = {name for name in variables if name.endswith("present")} - set(entry.channels)
    coords |= {name: variables[name] for name in own}
    return Part({name: v for name, v in variables.items() if name not in coords}, coords)


def _panel_coords(view: View, entry: Entry, variables: Mapping[str, xr.Variable]) -> dict[str, xr.Variable]:
    import xarray as xr

    if not any("panel" in v.dims for v in variables.values()):
        return {}
    return {"panel": xr.Variable("panel", view.panels(entry))}


def _positions(view: View, entry: Entry, variables: Mapping[str, xr.Variable]) -> dict[str, xr.Variable]:
    """Return where rows and columns are, for fields whose file says that: images of an export."""
    import xarray as xr

    coords: dict[str, xr.Variable] = {}
    for field in set(variables) & set(entry.channels):
        reader = channel_reader(view.recording, entry.channels[field].id, view.keep_damaged)
        for name, values in getattr(reader, "coords", {}).items():
            coords[name] = xr.Variable(name, values, {"units": "m"})
    return coords


def run_dataset(
    view: View,
    names: Names,
    join: str | None,
    chunks: Any,
    *,
    absent_too: bool = False,
    own_dims: bool = False,
) -> xr.Dataset:
    """Return several detectors as one flat Dataset; variables are ``<detector>_<field>``.

    Parameters
    ----------
    view : View
    names : names of detectors or fields, optional
    join : {"inner", "outer"}, optional
        Events that all of the detectors have, or all events. Inner where names are given.
    chunks : "auto", mapping or None
    absent_too : bool
        Keep detectors that none of these events has, if any event of the run has them.
    own_dims : bool
        Put the detector's name in front of panel, row and col also where no two detectors disagree.
    """
    import xarray as xr

    join = join or ("outer" if names is None else "inner")
    if join not in ("inner", "outer"):
        raise ValueError(f'join={join!r}: use "inner" (events that all detectors have) or "outer"')
    chosen = chosen_fields(view, names)
    there = _exists if absent_too else _appears
    absent = [d for d, fields in chosen.items() if not there(view, d, fields)]
    if absent:
        warnings.warn(f"left out, as no event has them: {', '.join(absent)}", DroppedWarning, stacklevel=3)
    chosen = {d: fields for d, fields in chosen.items() if d not in absent}
    before = len(view.choice)
    if join == "inner":
        view = replace(view, choice=common_events(view, chosen))
    parts = {d: _part(view, view.entries[d], _own_chunks(chunks, d), fields) for d, fields in chosen.items()}
    _check_chunks(chunks, parts)
    variables, coords = flat(parts, own_dims)
    attrs = run_attrs(view) | {"join": join, "dropped_events": before - len(view.choice)}
    if absent:
        attrs["absent_detectors"] = absent
    return xr.Dataset(variables, event_coords(view) | coords, attrs)


def _own_chunks(chunks: Any, detector: str) -> Any:
    """Return chunks with the names that dimensions have within one detector."""
    if not isinstance(chunks, Mapping):
        return chunks
    return {dim.removeprefix(f"{detector}_"): size for dim, size in chunks.items()} | dict(chunks)


def _check_chunks(chunks: Any, parts: Mapping[str, Part]) -> None:
    """Refuse chunks along a dimension that nothing has."""
    own = {(d, str(dim)) for d, part in parts.items() for dim in part.sizes}
    known = {dim for _, dim in own} | {f"{d}_{dim}" for d, dim in own}
    unknown = sorted(set(chunks) - known) if isinstance(chunks, Mapping) else []
    if unknown:
        raise ValueError(f"chunks along {unknown[0]!r}: no such dimension{suggestion(unknown[0], known)}")


def _exists(view: View, detector: str, fields: Iterable[str]) -> bool:
    return any(view.exists(view.entries[detector].channels[f]) for f in fields)


def _appears(view: View, detector: str, fields: Iterable[str]) -> bool:
    channels = (view.entries[detector].channels[f] for f in fields)
    return any(
        view.exists(c) and view.target(c).reader().present(view.choice.numbers).any() for c in channels
    )


def common_events(view: View, chosen: Mapping[str, Iterable[str]]) -> Choice:
    """Return the events that all detectors have."""
    keep = np.ones(len(view.choice), bool)
    for detector, fields in chosen.items():
        channels = view.entries[detector].channels
        main = main_channel(view.entries[detector], [f for f in fields if view.exists(channels[f])])
        if main is not None:
            target = view.target(channels[main])
            keep &= any_panel(target.reader().present(view.choice.numbers))
    return Choice(view.choice.numbers[keep], view.choice.total)


def run_attrs(view: View) -> dict[str, Any]:
    """Return the attributes of a Dataset of the run."""
    recording = view.recording
    return {
        "experiment": recording.experiment or "",
        "run": -1 if recording.number is None else recording.number,
        "format": recording.data_format,
        "damaged": "keep" if view.keep_damaged else "missing",
    }


def reader_facts(view: View, channel: Channel) -> tuple[str, str]:
    """Return dtype and shape of a channel as text, for tables."""
    reader = channel_reader(view.recording, channel.id, view.keep_damaged)
    if reader is None:
        return str(channel.spec.dtype), "-"
    panels = (len(reader.panels),) if reader.segmented else ()
    if isinstance(reader, FrameReader):
        return str(reader.dtype), "×".join(map(str, panels + reader.panel_shape)) or "scalar"
    word = "text" if channel.spec.kind is Kind.STRING else "ragged"
    return str(reader.dtype), "×".join([*map(str, panels), word])

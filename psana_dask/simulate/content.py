"""What a described run contains: every value, and which pieces are there.  No file is involved.

The writer asks it what to write, and `Truth` tells tests what to expect.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from psana_dask.errors import NameNotFound
from psana_dask.readers.xtc2_layout import TYPES, TransitionId
from psana_dask.readers.xtc_layout import FIDUCIALS
from psana_dask.readers.xtc_layout import Damage as XtcDamage
from psana_dask.simulate.describe import (
    FIRST_RECORDER,
    Algorithm,
    Choice,
    Damage,
    Detector,
    Enum,
    Epics,
    Field,
    RunSpec,
    Scan,
    unpacked,
)
from psana_dask.simulate.images import Picture
from psana_dask.simulate.kinds import filled_in
from psana_dask.simulate.schedule import Entry, schedule
from psana_dask.simulate.values import Moment, frame
from psana_dask.simulate.xtc_kinds import XtcDetector, xtc_detectors

Flags = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint32]


class Content:
    """A `RunSpec` worked out; deterministic, and computed when asked."""

    def __init__(self, spec: RunSpec) -> None:
        self.spec = spec
        self.is_xtc = spec.format == "xtc"
        self.xtc: tuple[XtcDetector, ...] = xtc_detectors(spec.detectors) if self.is_xtc else ()
        self.detectors = tuple(one.detector for one in self.xtc)
        if not self.is_xtc:
            self.detectors = tuple(filled_in(detector) for detector in spec.detectors)
        self._has_datagram: dict[int, Flags] = {}
        self._has_block: dict[tuple[int, int], Flags] = {}

    def __reduce__(self) -> tuple[type[Content], tuple[RunSpec]]:
        return Content, (self.spec,)

    @cached_property
    def timestamps(self) -> npt.NDArray[np.uint64]:
        """Time stamp word of each event."""
        return self.spec.stamps()

    @cached_property
    def schedule(self) -> tuple[Entry, ...]:
        """Transitions and events in the order of writing."""
        return schedule(self.spec)

    @cached_property
    def step(self) -> npt.NDArray[np.int64]:
        """Step of each event."""
        return np.repeat(np.arange(len(self.spec.step_sizes)), self.spec.step_sizes)

    @cached_property
    def pictures(self) -> Mapping[str, Picture]:
        """The picture on each detector that has frames."""
        return {d.name: _picture(d, field, self.spec.seed) for d in self.detectors for field in _frames(d)}

    def scheduled(self, detector: Detector) -> Flags:
        """Tell in which events the detector's rate lets it write."""
        return np.arange(self.spec.events) % detector.every == detector.offset % detector.every

    def entries_of(self, stream: int) -> list[Entry]:
        """Return the transitions and events of a stream in the order of its file."""
        entries = list(self.schedule)
        places = {entry.event: place for place, entry in enumerate(entries) if entry.event >= 0}
        for one, other in self.spec.swapped.get(stream, ()):
            a, b = places[one], places[other]
            entries[a], entries[b] = entries[b], entries[a]
        return [entry for entry in entries if self.has_entry(stream, entry)]

    def has_entry(self, stream: int, entry: Entry) -> bool:
        """Tell whether a stream has a datagram for a transition or event."""
        return entry.event < 0 or bool(self.has_datagram(stream)[entry.event])

    def has_datagram(self, stream: int) -> Flags:
        """Tell in which events the stream has a datagram."""
        if stream not in self._has_datagram:
            found = self._find_datagrams(stream)
            found.flags.writeable = False
            self._has_datagram[stream] = found
        return self._has_datagram[stream]

    def _find_datagrams(self, stream: int) -> Flags:
        if self.is_xtc and stream < FIRST_RECORDER:
            there = self.dealt == stream
        else:
            there = np.zeros(self.spec.events, bool)
            for detector in self.detectors:
                if stream in detector.segment_streams.values():
                    there |= self.scheduled(detector)
        for gap in self.spec.missing:
            if gap.stream == stream and gap.detector is None:
                there[list(gap.events)] = False
        return there

    @cached_property
    def dealt(self) -> Numbers:
        """LCLS-1: the DAQ stream of each event."""
        given = self.spec.daq.dealt
        events = np.arange(self.spec.events)
        return events % self.spec.daq.streams if given is None else np.asarray(given, np.int64)

    def homes(self, stream: int) -> Numbers:
        """Return the stream in which each event has the blocks of detectors that belong to `stream`."""
        dealt = self.is_xtc and stream < FIRST_RECORDER
        return self.dealt if dealt else np.full(self.spec.events, stream)

    @cached_property
    def fiducials(self) -> Numbers:
        """LCLS-1: fiducial of each event."""
        if self.spec.daq.fiducials is not None:
            return np.asarray(self.spec.daq.fiducials, np.int64)
        return np.array([self.fiducial_at(int(word)) for word in self.timestamps])

    def fiducial_at(self, timestamp: int) -> int:
        """Return the fiducial, a counter of 360 Hz, at a time stamp word."""
        after = int(unpacked(np.uint64(timestamp))) - int(unpacked(self.timestamps[:1])[0])
        return (self.spec.daq.first_fiducial + round(after * 360 / 1e9)) % FIDUCIALS

    def has_block(self, detector: Detector, segment: int) -> Flags:
        """Tell in which events the segment's blocks are on disk with their content."""
        key = (id(detector), segment)  # this content keeps its detectors alive
        if key not in self._has_block:
            found = self._find_blocks(detector, segment)
            found.flags.writeable = False
            self._has_block[key] = found
        return self._has_block[key]

    def _find_blocks(self, detector: Detector, segment: int) -> Flags:
        homes = self.homes(detector.segment_streams[segment])
        there = self.scheduled(detector)
        for stream in np.unique(homes).tolist():
            there &= self.has_datagram(stream) | (homes != stream)
        there[self._without_content(homes)] = False
        for gap in self.spec.missing:
            if gap.detector == detector.name and gap.segment in (None, segment):
                there[list(gap.events)] = False
        for fault in self.spec.damage:
            hit = fault.detector == detector.name and fault.segment in (None, segment)
            if hit and not fault.payload:
                there[list(fault.events)] = False
        return there

    def _without_content(self, homes: Numbers) -> list[int]:
        """Return the events whose datagrams hold nothing, or nothing that may be looked into."""
        events = list(self.spec.daq.trimmed) if self.is_xtc else []
        for fault in self.spec.damage:
            closed = self.is_xtc and fault.word & XtcDamage.INCOMPLETE_CONTRIBUTION
            if fault.detector is None and (closed or not fault.payload):
                events += self._hit(fault, homes)
        return events

    def _hit(self, fault: Damage, homes: Numbers) -> list[int]:
        return [event for event in fault.events if fault.stream in (None, homes[event])]

    def block_damage(self, detector: Detector, segment: int) -> Words:
        """Damage word of the segment's blocks in each event."""
        words = np.zeros(self.spec.events, np.uint32)
        for fault in self.spec.damage:
            if fault.detector == detector.name and fault.segment in (None, segment):
                words[list(fault.events)] |= np.uint32(fault.word)
        return words

    def datagram_damage(self, stream: int) -> Words:
        """Damage word, in each event, of the datagram with the blocks that belong to the stream."""
        words = np.zeros(self.spec.events, np.uint32)
        for fault in self.spec.damage:
            if fault.detector is None:
                words[self._hit(fault, self.homes(stream))] |= np.uint32(fault.word)
        return words

    def keeps_payload(self, event: int, stream: int, detector: str | None = None, segment: int = 0) -> bool:
        """Tell whether a datagram (or, with `detector`, a block) has its content."""
        return not any(
            not fault.payload
            and event in fault.events
            and (fault.stream in (None, stream) if detector is None else fault.segment in (None, segment))
            and fault.detector == detector
            for fault in self.spec.damage
        )

    def value(self, detector: Detector, field: Field, event: int, segment: int) -> object:
        """Return what the field holds, whether or not it was written."""
        return evaluated(field, self._moment(detector.name, field, event, segment, self.event_codes(event)))

    def event_codes(self, event: int) -> tuple[int, ...]:
        """Return the event codes that fire."""
        return tuple(code for code, every in self.spec.event_codes.items() if event % every == 0)

    def _moment(self, name: str, field: Field, event: int, segment: int, codes: tuple[int, ...]) -> Moment:
        return Moment(
            seed=self.spec.seed,
            detector=name,
            field=field.name,
            segment=segment,
            event=event,
            timestamp=int(self.timestamps[event]),
            step=int(self.step[event]),
            dtype=field.dtype,
            shape=field.shape,
            longest=field.longest,
            codes=codes,
            fiducial=int(self.fiducials[event]) if self.is_xtc else 0,
            picture=self.pictures.get(name),
        )

    def epics_updates(self, epics: Epics) -> tuple[Entry, ...]:
        """Return the SlowUpdates (LCLS-1: Configure, and events) in which the variables are written."""
        return tuple(entry for entry in self.schedule if self.writes_epics(epics, entry))

    def writes_epics(self, epics: Epics, entry: Entry) -> bool:
        """Tell whether the variables are written in a transition or event."""
        due = entry.update >= 0 and entry.update % epics.every == epics.offset % epics.every
        if not self.is_xtc:
            return due
        if entry.event < 0:
            return entry.service == TransitionId.CONFIGURE
        home = int(self.homes(epics.stream)[entry.event])
        closed = int(self.datagram_damage(epics.stream)[entry.event]) & XtcDamage.INCOMPLETE_CONTRIBUTION
        return due and self.has_entry(home, entry) and self.keeps_payload(entry.event, home) and not closed

    def epics_value(self, field: Field, entry: Entry) -> object:
        """Return an EPICS variable's value in one SlowUpdate."""
        moment = Moment(
            seed=self.spec.seed,
            detector="epics",
            field=field.name,
            event=entry.update,
            timestamp=entry.timestamp,
            step=entry.step,
            dtype=field.dtype,
            shape=field.shape,
        )
        return evaluated(field, moment)

    def detector(self, name: str) -> Detector:
        """Return the description of a detector, everything filled in."""
        for detector in self.detectors:
            if detector.name == name:
                return detector
        raise NameNotFound.of("detector", name, (d.name for d in self.detectors))


def algorithms(detector: Detector) -> tuple[Algorithm, ...]:
    """Return the algorithms of a detector that went through `filled_in`."""
    return detector.algorithms or ()


def find_field(detector: Detector, name: str) -> Field:
    """Return the field `name`, or `algorithm.name`; the first algorithm that has it wins."""
    known = {}
    for algorithm in reversed(algorithms(detector)):
        for field in algorithm.fields:
            known[field.name] = field
            known[f"{algorithm.name}.{field.name}"] = field
    if name not in known:
        raise NameNotFound.of(f"field of {detector.name}", name, known)
    return known[name]


def evaluated(field: Field, moment: Moment) -> object:
    """Return the field's value as the array, number or text that a reader should find."""
    value = field.value(moment) if callable(field.value) else field.value
    found = stored(value, dtype_of(field))
    if field.absent and isinstance(found, np.ndarray):
        found[list(field.absent)] = 0
    return found


def dtype_of(field: Field) -> np.dtype[np.generic] | None:
    """Return the dtype on disk; None for text."""
    if field.dtype == "str":
        return None
    return TYPES[11] if field.dtype == "enum" else np.dtype(field.dtype).newbyteorder("<")


def stored(value: object, dtype: np.dtype[np.generic] | None = None) -> object:
    """Return `value` as it is on disk: text, a numpy scalar, or an array of the dtype."""
    if isinstance(value, Choice):
        return np.int32(value.value)
    if isinstance(value, str):
        return value
    return np.asarray(value, dtype)[()]


def enums_of(fields: Sequence[Field]) -> tuple[Enum, ...]:
    """Return each enum dictionary once."""
    return tuple({field.enum.name: field.enum for field in fields if field.enum}.values())


def _frames(detector: Detector) -> list[Field]:
    return [f for algorithm in algorithms(detector) for f in algorithm.fields if f.value is frame][:1]


def _picture(detector: Detector, field: Field, seed: int) -> Picture:
    return Picture(
        scene=detector.scene,
        seed=seed,
        name=detector.name,
        segments=detector.segment_numbers,
        frame_shape=tuple(n or 0 for n in field.shape),
        dtype=field.dtype,
    )


def scan_columns(spec: RunSpec) -> dict[str, npt.NDArray[Any]]:
    """Return the numbers that BeginStep says, one for each step: motors, then `step_value` (LCLS-II)."""
    if spec.scan is None:
        return {}
    columns = {name: np.asarray(values) for name, values in spec.scan.motors.items()}
    given = spec.scan.step_value
    steps = len(spec.step_sizes)
    if spec.format == "xtc2":
        columns["step_value"] = np.arange(steps, dtype="<f8") if given is None else np.asarray(given, "<f8")
    for name, array in columns.items():
        if len(array) != steps:
            raise ValueError(f"scan {name!r} has {len(array)} values for {steps} steps")
    return columns


def scan_docstrings(spec: RunSpec) -> list[str]:
    """Return the JSON text of each step."""
    scan, steps = spec.scan or Scan(), range(len(spec.step_sizes))
    about = {"detname": scan.detname, "scantype": scan.scantype}
    return [json.dumps({**about, "step": step}) for step in steps]

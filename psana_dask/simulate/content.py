"""What a described run contains: every value, and which pieces are there.  No file is involved.

The writer asks it what to write, and `Truth` tells tests what to expect.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from psana_dask.errors import NameNotFound
from psana_dask.readers.xtc2_layout import TYPES
from psana_dask.simulate.describe import Algorithm, Choice, Detector, Enum, Epics, Field, RunSpec
from psana_dask.simulate.images import Picture
from psana_dask.simulate.kinds import filled_in
from psana_dask.simulate.schedule import Entry, schedule
from psana_dask.simulate.values import Moment, frame

Flags = npt.NDArray[np.bool_]


class Content:
    """A `RunSpec` worked out; deterministic, and computed when asked."""

    def __init__(self, spec: RunSpec) -> None:
        self.spec = spec
        self.detectors = tuple(filled_in(detector) for detector in spec.detectors)
        self._has_block: dict[tuple[int, int], Flags] = {}

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

    def has_datagram(self, stream: int) -> Flags:
        """Tell in which events the stream has a datagram."""
        there = np.zeros(self.spec.events, bool)
        for detector in self.detectors:
            if stream in detector.segment_streams.values():
                there |= self.scheduled(detector)
        for gap in self.spec.missing:
            if gap.stream == stream and gap.detector is None:
                there[list(gap.events)] = False
        return there

    def has_block(self, detector: Detector, segment: int) -> Flags:
        """Tell in which events the segment's blocks are on disk with their content."""
        key = (id(detector), segment)  # this content keeps its detectors alive
        if key not in self._has_block:
            found = self._find_blocks(detector, segment)
            found.flags.writeable = False
            self._has_block[key] = found
        return self._has_block[key]

    def _find_blocks(self, detector: Detector, segment: int) -> Flags:
        stream = detector.segment_streams[segment]
        there = self.scheduled(detector) & self.has_datagram(stream)
        for gap in self.spec.missing:
            if gap.detector == detector.name and gap.segment in (None, segment):
                there[list(gap.events)] = False
        for fault in self.spec.damage:
            hit = fault.detector == detector.name and fault.segment in (None, segment)
            whole = fault.detector is None and fault.stream in (None, stream)
            if (hit or whole) and not fault.payload:
                there[list(fault.events)] = False
        return there

    def block_damage(self, detector: Detector, segment: int) -> npt.NDArray[np.uint16]:
        """Damage word of the segment's blocks in each event."""
        words = np.zeros(self.spec.events, np.uint16)
        for fault in self.spec.damage:
            if fault.detector == detector.name and fault.segment in (None, segment):
                words[list(fault.events)] |= np.uint16(fault.word)
        return words

    def datagram_damage(self, stream: int) -> npt.NDArray[np.uint16]:
        """Damage word of the stream's datagram in each event."""
        words = np.zeros(self.spec.events, np.uint16)
        for fault in self.spec.damage:
            if fault.detector is None and fault.stream in (None, stream):
                words[list(fault.events)] |= np.uint16(fault.word)
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
            picture=self.pictures.get(name),
        )

    def epics_updates(self, epics: Epics) -> tuple[Entry, ...]:
        """Return the SlowUpdates in which the variables are written."""
        return tuple(
            entry
            for entry in self.schedule
            if entry.update >= 0 and entry.update % epics.every == epics.offset % epics.every
        )

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
    return stored(value, dtype_of(field))


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
    """Return the numbers that BeginStep says, one for each step: motors, then `step_value`."""
    if spec.scan is None:
        return {}
    columns = {name: np.asarray(values) for name, values in spec.scan.motors.items()}
    given = spec.scan.step_value
    steps = len(spec.step_sizes)
    columns["step_value"] = np.arange(steps, dtype="<f8") if given is None else np.asarray(given, "<f8")
    for name, array in columns.items():
        if len(array) != steps:
            raise ValueError(f"scan {name!r} has {len(array)} values for {steps} steps")
    return columns


def scan_docstrings(spec: RunSpec) -> list[str]:
    """Return the JSON text of each step."""
    steps = range(len(spec.step_sizes))
    return [f'{{"detname": "scan", "scantype": "scan", "step": {step}}}' for step in steps]

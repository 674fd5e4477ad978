"""The Names and values of one stream: a described run as XTC2 containers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from psana_dask.readers import xtc2_write as enc
from psana_dask.readers.xtc2_layout import CHARSTR, ENUMDICT, ENUMVAL, TYPES, TransitionId, TypeId
from psana_dask.simulate.content import Content, algorithms, enums_of, scan_columns, scan_docstrings, stored
from psana_dask.simulate.describe import Choice, Config, Detector, Enum, Epics, Field
from psana_dask.simulate.schedule import Entry

RUNINFO, SMDINFO, SCAN, CHUNKINFO = 255, 254, 253, 252  # names indices that the DAQ reserves
CHUNKINFO_FIELDS = (("filename", CHARSTR, 1), ("chunkid", 2, 0))


@dataclass(frozen=True)
class Block:
    """One Names entry and what it writes in each transition or event."""

    names: enc.Names
    values: Callable[[Entry], list[object] | None]  # None: nothing in this one
    damage: Callable[[Entry], int] = lambda _: 0
    keeps_payload: Callable[[Entry], bool] = lambda _: True


class StreamLayout:
    """The Names of one stream, with their NamesIds, and the bytes of each datagram."""

    def __init__(self, content: Content, stream: int) -> None:
        self.content, self.stream = content, stream
        self.spec = content.spec
        self.blocks: list[Block] = []
        self._next_index = 0
        for epics in self.spec.epics:
            if epics.stream == stream:
                self._add_epics(epics)
        for detector in content.detectors:
            for segment, home in detector.segment_streams.items():
                if home == stream:
                    self._add_segment(detector, segment)
        if self.spec.scan and self.spec.scan.stream == stream:
            self._add_scan()
        self._add_runinfo()
        self._add_sums()
        self.chunkinfo = self._names("chunkinfo", "chunkinfo", CHUNKINFO_FIELDS, index=CHUNKINFO, version=1)

    def payload(self, entry: Entry) -> bytes:
        """Return the containers of a transition or event."""
        pieces = [enc.names_block(block.names) for block in self._described(entry)]
        if entry.service == TransitionId.CONFIGURE:
            pieces.append(enc.names_block(self.chunkinfo))
        pieces += [piece for block in self.blocks if (piece := self._encoded(block, entry)) is not None]
        inner = b"".join(pieces)
        return enc.parent(inner, self.stream) if self.spec.nested and inner else inner

    def _described(self, entry: Entry) -> list[Block]:
        return self.blocks if entry.service == TransitionId.CONFIGURE else []

    def _encoded(self, block: Block, entry: Entry) -> bytes | None:
        values = block.values(entry)
        if values is None:
            return None
        damage = block.damage(entry)
        if not block.keeps_payload(entry):
            return enc.xtc(TypeId.SHAPES_DATA, b"", src=block.names.src, damage=damage)
        return self.shapes_data(block.names, values, damage)

    def shapes_data(self, names: enc.Names, values: list[object], damage: int = 0) -> bytes:
        """Encode values the way the run's description wants it."""
        return enc.shapes_data(
            names,
            values,
            damage=damage,
            data_first=self.spec.data_first,
            shapes_tail=self.spec.shapes_tail,
        )

    def _index(self) -> int:
        self._next_index += 1
        return self._next_index - 1

    def _names(
        self,
        name: str,
        alg: str,
        fields: tuple[tuple[str, int, int], ...],
        *,
        index: int | None = None,
        version: int = 0,
        det_type: str | None = None,
        det_id: str = "",
        segment: int = 0,
    ) -> enc.Names:
        return enc.Names(
            src=enc.names_id(self.stream, self._index() if index is None else index),
            det_name=name,
            alg_name=alg,
            fields=tuple(enc.FieldName(*one) for one in fields),
            det_type=name if det_type is None else det_type,
            det_id=det_id,
            alg_version=version,
            segment=segment,
        )

    def _add_epics(self, epics: Epics) -> None:
        fields = tuple(pv.as_field() for pv in epics.pvs)
        version = enc.version_word(2)
        names = self._names("epics", "raw", described(fields), version=version, segment=epics.segment)
        updates = {entry.update for entry in self.content.epics_updates(epics)}

        def values(entry: Entry) -> list[object] | None:
            if entry.update < 0 or entry.update not in updates:
                return None
            return with_members(fields, [self.content.epics_value(one, entry) for one in fields])

        self.blocks.append(Block(names, values))
        if epics.info:
            self._add_epicsinfo(epics)

    def _add_epicsinfo(self, epics: Epics) -> None:
        fields = (("keys", CHARSTR, 1), *((pv.name, CHARSTR, 1) for pv in epics.pvs))
        version = enc.version_word(1)
        names = self._names("epicsinfo", "epicsinfo", fields, version=version, segment=epics.segment)
        texts: list[object] = ["epicsname", *(pv.address or pv.name for pv in epics.pvs)]
        self.blocks.append(only_in(TransitionId.CONFIGURE, names, lambda _: texts))

    def _add_segment(self, detector: Detector, segment: int) -> None:
        for algorithm in algorithms(detector):
            names = self._names(
                detector.name,
                algorithm.name,
                described(algorithm.fields),
                version=enc.version_word(*algorithm.version),
                det_type=detector.det_type,
                det_id=detector.det_id or "",
                segment=segment,
            )
            self.blocks.append(self._events_of(detector, segment, algorithm.fields, names))
        if detector.config:
            self._add_config(detector, detector.config, segment)

    def _events_of(
        self, detector: Detector, segment: int, fields: tuple[Field, ...], names: enc.Names
    ) -> Block:
        content = self.content
        words = content.block_damage(detector, segment)
        skipped = {
            event
            for gap in self.spec.missing
            if gap.detector == detector.name and gap.segment in (None, segment)
            for event in gap.events
        }
        there = content.scheduled(detector)

        def values(entry: Entry) -> list[object] | None:
            event = entry.event
            if event < 0 or not there[event] or event in skipped:
                return None
            return with_members(fields, [content.value(detector, one, event, segment) for one in fields])

        return Block(
            names,
            values,
            lambda entry: int(words[entry.event]),
            lambda entry: content.keeps_payload(entry.event, self.stream, detector.name, segment),
        )

    def _add_config(self, detector: Detector, config: Config, segment: int) -> None:
        def add(service: TransitionId, given: Callable[[int], Mapping[str, object]], members: bool) -> None:
            sample = given(0)
            if not sample:
                return
            names = self._names(
                detector.name,
                config.algorithm,
                config_fields(sample, members),
                version=enc.version_word(*config.version),
                det_type=detector.det_type,
                det_id=detector.det_id or "",
                segment=segment,
            )
            self.blocks.append(only_in(service, names, lambda e: config_values(given(e.step), members)))

        add(TransitionId.CONFIGURE, lambda _: config.of_segment(segment), True)
        add(TransitionId.BEGIN_RUN, lambda _: config.begin_run, False)
        add(TransitionId.BEGIN_STEP, config.of_step, False)

    def _add_scan(self) -> None:
        scan = self.spec.scan
        if scan is None:
            return
        columns = scan_columns(self.spec)
        fields = [(name, code_of(array), 0) for name, array in columns.items()]
        texts = scan_docstrings(self.spec)
        if scan.docstring:
            fields.append(("step_docstring", CHARSTR, 1))
        names = self._names("scan", "raw", tuple(fields), index=SCAN, version=enc.version_word(2))

        def values(entry: Entry) -> list[object]:
            numbers: list[object] = [array[entry.step] for array in columns.values()]
            return [*numbers, texts[entry.step]] if scan.docstring else numbers

        self.blocks.append(only_in(TransitionId.BEGIN_STEP, names, values))

    def _add_runinfo(self) -> None:
        fields = (("expt", CHARSTR, 1), ("runnum", 2, 0))
        names = self._names("runinfo", "runinfo", fields, index=RUNINFO, version=1)
        said: list[object] = [self.spec.experiment, self.spec.number]
        self.blocks.append(only_in(TransitionId.BEGIN_RUN, names, lambda _: said))

    def _add_sums(self) -> None:
        said = self.spec.end_run_values
        if said:
            names = self._names("cube", "raw", config_fields(said, False), version=enc.version_word(1))
            self.blocks.append(only_in(TransitionId.END_RUN, names, lambda _: config_values(said, False)))


def only_in(service: TransitionId, names: enc.Names, values: Callable[[Entry], list[object]]) -> Block:
    """Return a block that is written in one kind of transition."""
    return Block(names, lambda entry: values(entry) if entry.service == service else None)


def described(fields: tuple[Field, ...]) -> tuple[tuple[str, int, int], ...]:
    """Return (name on disk, type code, rank) of the fields, then of their enums' members."""
    own = tuple(_described_field(one) for one in fields)
    return own + tuple(_members(enums_of(fields)))


def _described_field(one: Field) -> tuple[str, int, int]:
    if one.dtype == "str":
        return one.name, CHARSTR, 1
    if one.enum is not None:
        return f"{one.name}:{one.enum.name}", ENUMVAL, 0
    return one.name, code_of(np.empty(0, one.dtype)), len(one.shape)


def _members(enums: tuple[Enum, ...]) -> Iterator[tuple[str, int, int]]:
    for enum in enums:
        for member in enum.members:
            yield f"{member}:{enum.name}", ENUMDICT, 0


def with_members(fields: tuple[Field, ...], values: list[object]) -> list[object]:
    """Append the codes of the enums' members, as `described` lists them."""
    return values + [code for enum in enums_of(fields) for code in enum.members.values()]


def code_of(array: npt.NDArray[Any]) -> int:
    """Return the type code of an array's dtype."""
    wanted = array.dtype.newbyteorder("<")
    if wanted not in TYPES[:CHARSTR]:
        raise ValueError(f"XTC2 has no type for {array.dtype}")
    return TYPES.index(wanted)


def _enums(values: Mapping[str, object]) -> tuple[Enum, ...]:
    return tuple({v.enum.name: v.enum for v in values.values() if isinstance(v, Choice)}.values())


def config_fields(values: Mapping[str, object], members: bool) -> tuple[tuple[str, int, int], ...]:
    """Describe configuration values; enum members only in the first block of a configuration."""
    first = tuple(_members(_enums(values))) if members else ()
    return first + tuple(_config_field(name, value) for name, value in values.items())


def _config_field(name: str, value: object) -> tuple[str, int, int]:
    if isinstance(value, Choice):
        return f"{name}:{value.enum.name}", ENUMVAL, 0
    if isinstance(value, str):
        return name, CHARSTR, 1
    array = np.asarray(stored(value))
    return name, code_of(array), array.ndim


def config_values(values: Mapping[str, object], members: bool) -> list[object]:
    """Return the values in the order of `config_fields`."""
    codes = [code for enum in _enums(values) for code in enum.members.values()] if members else []
    return [*codes, *(stored(value) for value in values.values())]

"""The containers of one LCLS-1 stream: a described run as records, in the nodes that write them.

A DAQ stream has one container for each readout node: control and event codes, beam-line data, EPICS, then
one for each detector.  A recorder has one for all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from psana_dask.readers.compression import Engine, compress
from psana_dask.readers.record_writing import encode
from psana_dask.readers.records import View
from psana_dask.readers.tables import EPICS, record_for
from psana_dask.readers.xtc2_layout import TransitionId as _SERVICE
from psana_dask.readers.xtc_config import NOT_AN_ARRAY
from psana_dask.readers.xtc_layout import ID_EVR_DATA, Level, detector_source
from psana_dask.readers.xtc_write import SEGMENT_NODE, Source, container, node, record_container
from psana_dask.simulate.content import Content, algorithms
from psana_dask.simulate.describe import FIRST_RECORDER, PV, Epics
from psana_dask.simulate.schedule import Entry
from psana_dask.simulate.xtc_kinds import XtcDetector, nested

CONTROL: Source = (Level.CONTROL << 24 | 4321, 0xAC150A01)
RECORDER_NODE: Source = (Level.EVENT << 24 | 8000, 0xAC151401)
TRIGGER: Source = (Level.EVENT << 24 | 5000, 0xAC150B01)
ALIASES, SCAN, EPICS_CONFIG, TRIGGER_DATA = (69, 1), (10, 3), (54, 1), (71, 2)
CTRL, TIME = 28, 14
_DBR = {"str": 0, "i2": 1, "f4": 2, "enum": 3, "u1": 4, "i4": 5, "f8": 6}
EPOCH_1990 = 631_152_000
IOC_DELAY = 1_000_000
"""Nanoseconds from the time stamp of an EPICS value to the event that carries it."""


class XtcLayout:
    """What one stream holds in each transition and event."""

    def __init__(self, content: Content, stream: int) -> None:
        self.content, self.stream, self.spec = content, stream, content.spec
        self.is_recorder = stream >= FIRST_RECORDER
        self.detectors = [one for one in content.xtc if self._is_here(one)]
        self.epics = [one for one in self.spec.epics if self._belongs(one.stream)]
        self.nodes = self._nodes()
        self._configs: dict[tuple[str, int, int | None], View] = {}

    def _belongs(self, stream: int) -> bool:
        return stream == self.stream if self.is_recorder else stream < FIRST_RECORDER

    def _is_here(self, one: XtcDetector) -> bool:
        return any(self._belongs(stream) for stream in one.detector.segment_streams.values())

    def _nodes(self) -> list[list[XtcDetector]]:
        """Return the detectors of each readout node."""
        evrs = [one for one in self.detectors if one.data_key[0] == ID_EVR_DATA]
        bld = [one for one in self.detectors if one.is_bld]
        return [evrs, bld, *([one] for one in self.detectors if one not in evrs and one not in bld)]

    def children(self, entry: Entry) -> list[bytes]:
        """Return the containers at the top of a transition's or event's datagram."""
        if entry.event >= 0:
            return self._event(entry)
        if entry.service == _SERVICE.CONFIGURE:
            return self._arranged(self._configure())
        if entry.service == _SERVICE.BEGIN_STEP:
            return self._arranged(self._begin_step(entry.step))
        return []

    def _arranged(self, inside: Sequence[list[bytes]], empty: bool = False) -> list[bytes]:
        """Put the containers of each node into its own; nodes with nothing are left out unless `empty`."""
        if self.is_recorder:
            return [node([piece for pieces in inside for piece in pieces], RECORDER_NODE)]
        return [node(p, _node_source(number)) for number, p in enumerate(inside) if p or empty]

    # ---- configuration --------------------------------------------------------------------------
    def _configure(self) -> list[list[bytes]]:
        inside = [[piece for one in group for piece in self._config_of(one)] for group in self.nodes]
        inside[0][:0] = [] if self.is_recorder else [*self._aliases(), *self._scan(0)]
        return [*inside, [piece for epics in self.epics for piece in self._epics_config(epics)]]

    def _begin_step(self, step: int) -> list[list[bytes]]:
        inside = [[piece for one in group for piece in self._config_of(one, step)] for group in self.nodes]
        inside[0][:0] = [] if self.is_recorder else self._scan(step)
        return inside

    def _config_of(self, one: XtcDetector, step: int | None = None) -> Iterator[bytes]:
        config, key = one.detector.config, one.config_key
        if key is None or config is None or (step is not None and not config.of_step(step)):
            return
        for segment, source in one.sources.items():
            values = self._settings(one, segment, step)
            yield record_container(record_for(*key), values, key=key, source=source)

    def _settings(self, one: XtcDetector, segment: int, step: int | None) -> Mapping[str, Any]:
        values = dict(one.settings(segment, step))
        if one.data_key[0] == ID_EVR_DATA:
            values.setdefault("eventcodes", [{"code": code} for code in self.spec.event_codes])
        return values

    def config_view(self, one: XtcDetector, segment: int, step: int | None) -> View | None:
        """Return the configuration in force for the events of a step."""
        key, config = one.config_key, one.detector.config
        if key is None or config is None:
            return None
        at = (one.detector.name, segment, step if config.begin_step else None)
        if at not in self._configs:
            record = record_for(*key)
            data = encode(record, self._settings(one, segment, at[2]))
            self._configs[at] = record.view(np.frombuffer(data, np.uint8))
        return self._configs[at]

    def _aliases(self) -> Iterator[bytes]:
        named = [one for one in self.content.xtc if not one.is_bld] if self.spec.daq.aliases else []
        entries = [
            {"src": {"log": one.whole[0], "phy": one.whole[1]}, "aliasName": one.detector.name}
            for one in named
        ]
        if entries:
            yield record_container(record_for(*ALIASES), {"srcAlias": entries}, key=ALIASES, source=CONTROL)

    def _scan(self, step: int) -> Iterator[bytes]:
        scan = self.spec.scan
        if scan is None:
            return
        values = {
            "uses_events": 1,
            "events": self.spec.step_sizes[step],
            "pvControls": [_control(name, np.asarray(v)[step]) for name, v in scan.motors.items()],
            "pvMonitors": [
                {"name": name, "index": NOT_AN_ARRAY, "loValue": low, "hiValue": high}
                for name, (low, high) in scan.monitors.items()
            ],
            "pvLabels": [{"name": name, "value": texts[step]} for name, texts in scan.labels.items()],
        }
        yield record_container(record_for(*SCAN), values, key=SCAN, source=CONTROL)

    # ---- events ---------------------------------------------------------------------------------
    def _event(self, entry: Entry) -> list[bytes]:
        daq, trimmed = self.spec.daq, entry.event in self.spec.daq.trimmed
        inside = [[] if trimmed else self._data(group, entry) for group in self.nodes]
        epics = [piece for one in self.epics for piece in self._epics_values(one, entry)]
        found = self._arranged([*inside, epics] if epics else inside, empty=True)
        return [*found, _verdict(trimmed)] if daq.trimmed and not self.is_recorder else found

    def _data(self, group: Sequence[XtcDetector], entry: Entry) -> list[bytes]:
        return [
            piece
            for one in group
            for segment in one.sources
            if self._belongs(one.detector.segment_streams[segment])
            for piece in self._block(one, segment, entry)
        ]

    def _block(self, one: XtcDetector, segment: int, entry: Entry) -> Iterator[bytes]:
        content, event = self.content, entry.event
        detector, (type_id, version) = one.detector, one.data_key
        damage = int(content.block_damage(detector, segment)[event])
        given = {"type_id": type_id, "version": version, "source": one.sources[segment], "damage": damage}
        if content.has_block(detector, segment)[event]:
            payload = self.payload(one, segment, entry)
            packed = self._compressed(one, payload)
            yield container(packed or payload, compressed=packed is not None, **given)  # type: ignore[arg-type]
        elif not content.keeps_payload(event, self.stream, detector.name, segment):
            yield container(b"", **given)  # type: ignore[arg-type]

    def payload(self, one: XtcDetector, segment: int, entry: Entry) -> bytes:
        """Return the record of a detector's segment in an event, uncompressed."""
        record = record_for(*one.data_key)
        fields = [field for algorithm in algorithms(one.detector) for field in algorithm.fields]
        values = {f.name: self.content.value(one.detector, f, entry.event, segment) for f in fields}
        cfg = self.config_view(one, segment, entry.step)
        settings = self._settings(one, segment, None)
        return encode(record, nested(record, one.kind.arranged(values, settings)), cfg)

    def _compressed(self, one: XtcDetector, payload: bytes) -> bytes | None:
        engines = {"hist16": Engine.HIST16, "histn": Engine.HISTN}
        head, wanted = one.kind.compressible, one.detector.compression
        if wanted is None:
            return None
        if not head:
            raise ValueError(f"{one.detector.name}: LCLS-1 has no compressed {one.detector.kind}")
        blocks = one.kind.blocks(one.settings(min(one.sources)))
        size = len(payload) // blocks
        pieces = [payload[i * size : (i + 1) * size] for i in range(blocks)]
        dtype = np.dtype("u1" if one.detector.dtype == "u1" else "<u2")
        pixels = [(piece[:head], np.frombuffer(piece[head:], dtype)) for piece in pieces]
        return compress(pixels, engines[wanted])

    # ---- EPICS ----------------------------------------------------------------------------------
    def _epics_config(self, epics: Epics) -> Iterator[bytes]:
        source = archiver(epics)
        if epics.info:
            entries = [
                {"pvId": number, "description": pv.name, "interval": 1.0}
                for number, pv in enumerate(epics.pvs)
                if pv.address
            ]
            values = {"getPvConfig": entries}
            yield record_container(record_for(*EPICS_CONFIG), values, key=EPICS_CONFIG, source=source)
        configure = next(e for e in self.content.schedule if e.service == _SERVICE.CONFIGURE)
        for number, pv in enumerate(epics.pvs):
            head = {"pvName": pv.address or pv.name, "dbr": _described(pv)}
            yield self._epics_record(epics, number, CTRL, head, configure)

    def _epics_values(self, epics: Epics, entry: Entry) -> Iterator[bytes]:
        if self.content.writes_epics(epics, entry):
            for number, pv in enumerate(epics.pvs):
                status, severity = pv.alarm(entry.update) if pv.alarm else (0, 0)
                head = {"status": status, "severity": severity, "stamp": _stamp(entry.timestamp)}
                yield self._epics_record(epics, number, TIME, {"dbr": head}, entry)

    def _epics_record(
        self, epics: Epics, number: int, group: int, head: Mapping[str, Any], entry: Entry
    ) -> bytes:
        pv = epics.pvs[number]
        value = self.content.epics_value(pv.as_field(), entry)
        data = [value] if isinstance(value, str) else np.atleast_1d(np.asarray(value))
        dbr_type = group + _DBR[pv.dtype]
        first = np.array([number, dbr_type, len(data)], "<i2")
        values = {"pvId": number, "dbrType": dbr_type, "numElements": len(data), "data": data, **head}
        payload = encode(record_for(EPICS, 1, first.view(np.uint8)), values)
        return container(payload, type_id=EPICS, version=1, source=archiver(epics))


def archiver(epics: Epics) -> Source:
    """Return the source of an EPICS archiver."""
    return detector_source("EpicsArch", epics.segment, "NoDevice", 0)


def _node_source(number: int) -> Source:
    return SEGMENT_NODE[0] + number, SEGMENT_NODE[1] + number


def _verdict(trimmed: bool) -> bytes:
    """Return what level 3 said: a container of its own at the top."""
    values = {"result": 0 if trimmed else 1}
    return record_container(record_for(*TRIGGER_DATA), values, key=TRIGGER_DATA, source=TRIGGER)


def _control(name: str, value: Any) -> dict[str, Any]:
    plain, bracket, index = name.partition("[")
    return {
        "name": plain,
        "index": int(index.rstrip("]")) if bracket else NOT_AN_ARRAY,
        "value": float(value),
    }


def _described(pv: PV) -> dict[str, Any]:
    if pv.enum is not None:
        names = {code: name for name, code in pv.enum.members.items()}
        return {"no_str": max(names) + 1, "strings": [names.get(code, "") for code in range(16)]}
    return {"units": pv.unit} if pv.dtype != "str" else {}


def _stamp(timestamp: int) -> dict[str, int]:
    nanoseconds = (timestamp >> 32) * 1_000_000_000 + (timestamp & 0xFFFFFFFF) - IOC_DELAY
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return {"sec": seconds - EPOCH_1990, "nsec": rest}

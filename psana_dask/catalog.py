"""What a run holds: detectors, their fields, and the names that users know them by.

A `Channel` is one field of one detector over all its segments, wherever they are in the
streams; the catalog gathers channels from the Names of every stream.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from psana_dask.errors import DuplicateData
from psana_dask.model import FieldSpec, Kind, Names, Service
from psana_dask.names import KNOWN_NAMES, RESERVED, snake_case
from psana_dask.readers.xtc_layout import source_fits
from psana_dask.recording import Recording

SLOW = {"epics": "epics", "epicsinfo": "epicsinfo", "scan": "scan", "scanDet": "scan", "runinfo": "runinfo",
        "smdinfo": "smdinfo", "offset": "smdinfo", "chunkinfo": "chunkinfo"}  # fmt: skip
"""Detector names and types that are no detectors of events, and what they are."""

SLOW_TYPES = {
    "Epics": "variables", "EpicsConfig": "variables", "RunControlConfig": "steps", "L3TConfig": "trigger",
    "AliasConfig": "aliases", "PartitionConfig": "partition", "Any": "damage", "Xtc": "container",
    "SmlDataConfig": "smdinfo", "SmlDataProxy": "smdinfo", "SmlDataOrigDgramOffset": "smdinfo",
}  # fmt: skip
"""Types of LCLS-1 that are no detectors of events, and what they are."""

PIXEL_FIELDS = ("raw", "arrayRaw", "image", "data16", "waveform", "waveforms")
"""What files call the pixels or samples of the algorithm ``raw``, in order of preference."""


@dataclass(frozen=True)
class Place:
    """Where a segment is found: in one stream, under one key for each configuration.

    Parameters
    ----------
    stream : int
        Position in `Recording.streams`.
    names : tuple of (int, Names)
        Configuration and names.
    """

    stream: int
    names: tuple[tuple[int, Names], ...]

    def keys(self, configs: int) -> list[int]:
        """Return the key in each of the stream's configurations, -1 where it has none."""
        found = dict(self.names)
        return [found[c].key if c in found else -1 for c in range(configs)]


@dataclass(frozen=True)
class Segment:
    """One physical part of a detector, and every place where its data may be."""

    number: int
    places: tuple[Place, ...]


@dataclass(frozen=True)
class Channel:
    """One field of one detector, over all its segments.

    Parameters
    ----------
    detector : str
        As in the file.
    algorithm : str
    version : tuple of int
    spec : FieldSpec
    segments : tuple of Segment
        Ordered by number.
    """

    detector: str
    algorithm: str
    version: tuple[int, int, int]
    spec: FieldSpec
    segments: tuple[Segment, ...]

    @property
    def id(self) -> tuple[str, str, str]:
        """Detector, algorithm and field, as the file names them."""
        return self.detector, self.algorithm, self.spec.name

    @property
    def field(self) -> str:
        """The field without the name of its enum."""
        return self.spec.name.partition(":")[0] if self.spec.kind is Kind.ENUM else self.spec.name


@dataclass(frozen=True)
class Entry:
    """One detector.

    Parameters
    ----------
    name : str
        What users call it.
    alias : str
        The DAQ's name for it.
    det_type : str
    det_ids : tuple of str
        Serial numbers, one per segment.
    channels : mapping of str to Channel
        By the public name of the field.
    source : str
        Its address in the DAQ of LCLS-1: ``XppGon.0:Cspad.0``, ``EBeam``; else empty.
    """

    name: str
    alias: str
    det_type: str
    det_ids: tuple[str, ...]
    channels: Mapping[str, Channel]
    source: str = ""

    def spellings(self) -> Iterator[str]:
        """Yield every name that this detector answers to."""
        yield from (self.name, self.alias)
        if self.source:
            yield from source_spellings(self.source)

    def channel(self, name: str) -> Channel | None:
        """Return a channel by its public name, ``algorithm.field``, or the name in the file or in psana."""
        if name in self.channels:
            return self.channels[name]
        for channel in self.channels.values():
            if name in (f"{channel.algorithm}.{channel.field}", f"{channel.algorithm}.{channel.spec.name}"):
                return channel
        same = [c for c in self.channels.values() if name in (c.field, c.spec.accessor)]
        return same[0] if len(same) == 1 else None


class Catalog:
    """Everything that a run declares.

    Parameters
    ----------
    recording : Recording

    Raises
    ------
    DuplicateData
        Two streams deliver the same (detector, field, segment).
    """

    def __init__(self, recording: Recording) -> None:
        self.recording = recording

    @cached_property
    def declared(self) -> list[tuple[int, int, Names]]:
        """(stream position, configuration, names) of all blocks that may occur in this run."""
        found = []
        for k in self.recording.wanted:
            index = self.recording.streams[k]
            used = self._used_configs(k)
            found += [(k, c, n) for c, names in enumerate(index.configs) if c in used for n in names]
        return found

    def _used_configs(self, stream: int) -> set[int]:
        index, runs = self.recording.streams[stream], self.recording.runs[stream]
        config = index["config"]
        if runs is not None:  # the Configure of the next run comes before its BeginRun
            config = config[np.isin(index["run"], runs) & (index["service"] != Service.CONFIGURE)]
        return set(np.flatnonzero(np.bincount(config[config >= 0], minlength=1)).tolist())

    def slow(self, kind: str) -> list[tuple[int, int, Names]]:
        """Return what is declared of one kind of slow data (a value of SLOW)."""
        return [row for row in self.declared if slow_kind(row[2]) == kind]

    @cached_property
    def detectors(self) -> dict[str, Entry]:
        """Detectors by name, in alphabetical order."""
        by_source: dict[str, list[tuple[int, int, Names]]] = {}
        for row in self.declared:
            if slow_kind(row[2]) is None:
                by_source.setdefault(row[2].detector, []).append(row)
        entries: dict[str, Entry] = {}
        for source in sorted(by_source):
            known = KNOWN_NAMES.get(source, source)
            name = _unused(snake_case(self.recording.aliases.get(source, known)), entries)
            entries[name] = self._entry(name, source, by_source[source])
        return dict(sorted(entries.items()))

    def _entry(self, name: str, source: str, rows: list[tuple[int, int, Names]]) -> Entry:
        serials = {n.segment: n.det_id for _, _, n in rows}
        channels = [c for c in self._channels(rows) if not is_configuration(c.algorithm)]
        return Entry(
            name=name,
            alias=self.recording.aliases.get(source, source),
            det_type=rows[0][2].det_type,
            det_ids=tuple(serials[k] for k in sorted(serials)),
            channels=public_names(channels, prefix=not self.recording.splits_events),
            source=source if self.recording.splits_events else "",
        )

    def _channels(self, rows: list[tuple[int, int, Names]]) -> Iterator[Channel]:
        """Yield the channels of one detector."""
        grouped: dict[tuple[str, str], dict[int, dict[int, list[dict[int, Names]]]]] = {}
        specs: dict[tuple[str, str], tuple[FieldSpec, Names]] = {}
        for stream, config, names in rows:
            for spec in names.fields:
                if spec.kind is not Kind.ENUM_ENTRY:
                    key = (names.algorithm, spec.name)
                    specs.setdefault(key, (spec, names))
                    places = grouped.setdefault(key, {}).setdefault(names.segment, {})
                    self._add_place(places.setdefault(stream, []), config, names)
        for (algorithm, _), segments in grouped.items():
            spec, names = specs[algorithm, _]
            yield Channel(
                detector=names.detector,
                algorithm=algorithm,
                version=names.version,
                spec=spec,
                segments=tuple(
                    Segment(number, self._places(names, number, spec, segments[number]))
                    for number in sorted(segments)
                ),
            )

    def _add_place(self, places: list[dict[int, Names]], config: int, names: Names) -> None:
        """Add names to the places of one segment in one stream.

        In LCLS-1 a segment may come as several kinds of block: other versions, compressed ones.
        """
        free = next((place for place in places if config not in place), None)
        if free is None and (not places or self.recording.splits_events):
            free = {}
            places.append(free)
        if free is not None:
            free[config] = names

    def _places(
        self, names: Names, number: int, spec: FieldSpec, places: dict[int, list[dict[int, Names]]]
    ) -> tuple[Place, ...]:
        alone = self.recording.splits_events or is_configuration(names.algorithm)
        if len(places) > 1 and not alone:
            streams = [self.recording.streams[k] for k in sorted(places)]
            where = " and ".join(f"stream {s.stream} ({s.parts[0]})" for s in streams)
            raise DuplicateData(
                f"{names.detector}.{names.algorithm}.{spec.name} segment {number} is in {where}: "
                "open the run with streams=... to choose one"
            )
        return tuple(Place(k, tuple(sorted(place.items()))) for k in sorted(places) for place in places[k])

    def find(self, name: str) -> Entry | None:
        """Return a detector by any of its spellings, or by an address that only it fits (``:Cspad``)."""
        if name in self.detectors:
            return self.detectors[name]
        for entry in self.detectors.values():
            if any(name == s or name.lower() == s.lower() for s in entry.spellings()):
                return entry
        fitting = [e for e in self.detectors.values() if e.source and source_fits(name, e.source)]
        return fitting[0] if len(fitting) == 1 else None


def slow_kind(names: Names) -> str | None:
    """Return what kind of slow data these names declare; None for a detector of events."""
    return SLOW.get(names.detector) or SLOW.get(names.det_type) or SLOW_TYPES.get(names.det_type)


def is_configuration(algorithm: str) -> bool:
    """Tell whether an algorithm delivers settings rather than events (``config``, ``tsConfig``)."""
    return algorithm.lower().endswith("config")


def source_spellings(source: str) -> Iterator[str]:
    """Yield the ways to write an LCLS-1 source: ``DetInfo(XppGon.0:Cspad.0)``, ``XppGon-0|Cspad-0``, ..."""
    detector, colon, device = source.partition(":")
    if not colon:
        yield from (source, f"BldInfo({source})")
        return
    daq = "|".join("-".join(side.rsplit(".", 1)) for side in (detector, device))
    yield from (source, f"DetInfo({source})", daq, f"DetInfo({daq})")


def _unused(name: str, taken: Iterable[str]) -> str:
    taken = set(taken)
    if name not in taken:
        return name
    return next(f"{name}_{k}" for k in range(1, len(taken) + 2) if f"{name}_{k}" not in taken)


def public_names(channels: Iterable[Channel], *, prefix: bool = True) -> dict[str, Channel]:
    """Give each channel of a detector the name that users see.

    The pixels of the algorithm ``raw`` are ``raw``; its other fields keep their names; those
    of another algorithm get it as a prefix, and so does a field with a reserved name.  In LCLS-1
    (`prefix` False) names are prefixed only where two fields would have the same.
    """
    channels = list(channels)
    pixels = _pixel_channel([c for c in channels if c.algorithm == "raw"])
    named: dict[str, Channel] = {}
    for channel in channels:
        plain = re.sub(r"\W", "_", channel.field)
        free = plain not in RESERVED and plain != UNDECODED and plain not in named
        if channel is pixels:
            name = "raw"
        elif plain not in RESERVED and channel.algorithm == "raw":
            name = plain
        else:
            name = plain if free and not prefix else f"{channel.algorithm}_{plain}"
        named[_unused(name, named)] = channel
    return named


UNDECODED = "bytes"
"""Field of what no table of LCLS-1 knows."""


def _pixel_channel(channels: list[Channel]) -> Channel | None:
    said = [c for c in channels if c.spec.kind is Kind.PIXELS]
    if said:
        return said[0]
    by_field = {c.field: c for c in channels}
    for field in PIXEL_FIELDS:
        if field in by_field and by_field[field].spec.rank > 0:
            return by_field[field]
    frames = [c for c in channels if c.spec.rank >= 2 and c.spec.dtype.kind == "u"]
    return frames[0] if len(frames) == 1 else None

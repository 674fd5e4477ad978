"""One channel over many events: which parts are there, and their values.

`FrameReader` serves fields whose shape never changes (scalars, waveforms, frames),
`RaggedReader` those whose length changes from event to event, `StringReader` text.
All take event numbers (positions in the event table) and never look at a file to tell
what is present.  Contract: tests/test_fields.py.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from psana_dask.blocks import Parts, decode_dgram, read_field, read_parts
from psana_dask.catalog import Channel, Place
from psana_dask.model import Array, Kind, Names, Problem
from psana_dask.options import current
from psana_dask.recording import Recording
from psana_dask.sources import Source

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

SPLIT_BYTES = 4 * 2**20
"""A read at least this large is split over threads."""


@dataclass(frozen=True)
class Found:
    """The blocks of one segment in one stream, for the events asked.

    Parameters
    ----------
    segment : int
        Position in `Channel.segments`.
    place : Place
    rows : (event,) int64
        Rows of the datagrams, -1 where the stream has none.
    blocks : (event,) int64
        Rows of the blocks, -1 where there is none.
    """

    segment: int
    place: Place
    rows: Ints
    blocks: Ints


class ChannelEvents:
    """Which events have which segments of a channel.

    Parameters
    ----------
    recording : Recording
    channel : Channel
    keep_damaged : bool
        Deliver payloads whose damage is not zero; otherwise they count as missing.
    """

    def __init__(self, recording: Recording, channel: Channel, *, keep_damaged: bool = False) -> None:
        self.recording = recording
        self.channel = channel
        self.keep_damaged = keep_damaged

    def found(self, events: Ints, segments: Ints | None = None) -> Iterator[Found]:
        """Yield the blocks of each segment in each stream where it may be."""
        for number, segment in enumerate(self.channel.segments):
            if segments is not None and number not in segments:
                continue
            for place in segment.places:
                yield self._locate(number, place, events)

    def _locate(self, number: int, place: Place, events: Ints) -> Found:
        index = self.recording.streams[place.stream]
        rows = self.recording.events.rows[place.stream][events].astype(np.int64)
        blocks = self.recording.blocks[place.stream].locate(rows, place.keys(len(index.configs)))
        if not self.keep_damaged and len(index["key"]):
            blocks[(index["block_damage"][blocks] != 0) | (index["damage"][rows] != 0)] = -1
        return Found(number, place, rows, blocks)

    def present(self, events: Ints) -> Bools:
        """Return which segments each event has, (event, segment)."""
        out = np.zeros((len(events), len(self.channel.segments)), bool)
        for found in self.found(events):
            out[:, found.segment] |= found.blocks >= 0
        return out

    def damage(self, events: Ints) -> npt.NDArray[np.uint32]:
        """Return the damage word of each event: that of its datagrams and of its blocks, combined."""
        out = np.zeros(len(events), np.uint32)
        for place in (place for segment in self.channel.segments for place in segment.places):
            index = self.recording.streams[place.stream]
            rows = self.recording.events.rows[place.stream][events].astype(np.int64)
            keys = place.keys(len(index.configs))
            blocks = self.recording.blocks[place.stream].locate(rows, keys, readable=False)
            for column, where in (("damage", rows), ("block_damage", blocks)):
                has = where >= 0
                out[has] |= index[column][where[has]].astype(np.uint32)
        return out

    @cached_property
    def shapes(self) -> dict[tuple[int, ...], int]:
        """The shapes that segments have, and how many blocks of the run have each.

        Where all layouts agree the count is 1: nothing has to be counted.
        """
        if self.channel.spec.rank == 0:
            return {(): 1}
        possible = {shape for kind in self._kinds() for shape in _distinct(self._shapes(*kind))}
        if len(possible) < 2:
            return dict.fromkeys(possible, 1)
        counted: dict[tuple[int, ...], int] = {}
        for found in self.found(np.arange(len(self.recording.events))):
            for shape, count in self._counts(found).items():
                counted[shape] = counted.get(shape, 0) + count
        return counted

    def _kinds(self) -> Iterator[tuple[Place, int, Names]]:
        for segment in self.channel.segments:
            for place in segment.places:
                for config, names in place.names:
                    yield place, config, names

    def _shapes(self, place: Place, config: int, names: Names) -> Ints:
        places = self.recording.blocks[place.stream].places(config, names)
        return places.shapes[self.field_number(names)]

    def _counts(self, found: Found) -> dict[tuple[int, ...], int]:
        index = self.recording.streams[found.place.stream]
        has = found.blocks >= 0
        counts: dict[tuple[int, ...], int] = {}
        for config, names in found.place.names:
            mine = found.blocks[has][index["config"][found.rows[has]] == config]
            places = self.recording.blocks[found.place.stream].places(config, names)
            used = np.bincount(places.local(index["layout"][mine]), minlength=len(places.layouts))
            shapes = places.shapes[self.field_number(names)][used > 0]
            distinct, which = np.unique(shapes, axis=0, return_inverse=True)
            totals = np.bincount(which.reshape(-1), used[used > 0], minlength=len(distinct))
            for shape, total in zip(map(tuple, distinct.tolist()), totals.tolist(), strict=True):
                counts[shape] = counts.get(shape, 0) + int(total)
        return counts

    def field_number(self, names: Names) -> int:
        """Return the position of this channel's field in `names`."""
        return [f.name for f in names.fields].index(self.channel.spec.name)

    def extents(self, found: Found) -> tuple[Ints, Ints, Ints, Array]:
        """Return events, byte offsets and sizes of the field, and the part, of the blocks that exist."""
        index = self.recording.streams[found.place.stream]
        has = np.flatnonzero(found.blocks >= 0)
        rows, blocks = found.rows[has], found.blocks[has]
        offsets = index["offset"][rows] + index["data"][blocks].astype(np.int64)
        sizes = np.zeros(len(has), np.int64)
        configs = index["config"][rows]
        for config, names in found.place.names:
            mine = configs == config
            places = self.recording.blocks[found.place.stream].places(config, names)
            local = places.local(index["layout"][blocks[mine]])
            number = self.field_number(names)
            offsets[mine] += places.offsets[number][local]
            sizes[mine] = places.sizes[number][local]
        return has, offsets, sizes, index["part"][rows]

    @cached_property
    def enum(self) -> dict[int, str]:
        """Names of the values of an ENUM field, from the first block that carries them."""
        if self.channel.spec.kind is not Kind.ENUM:
            return {}
        tag = self.channel.spec.name.partition(":")[2]
        for found in self.found(np.arange(len(self.recording.events))):
            for row in found.rows[found.blocks >= 0][:1]:
                return self._enum_entries(found.place.stream, int(row), tag)
        return {}

    def _enum_entries(self, stream: int, row: int, tag: str) -> dict[int, str]:
        for names, values in decode_dgram(self.recording.streams[stream], row):
            if (names.detector, names.algorithm) == (self.channel.detector, self.channel.algorithm):
                return enum_entries(names, values, tag)
        return {}


def enum_entries(names: Names, values: dict[str, Any], tag: str) -> dict[int, str]:
    """Return value to name of the enum `tag`, from a block that carries its dictionary."""
    return {
        int(values[f.name]): f.name.partition(":")[0]
        for f in names.fields
        if f.kind is Kind.ENUM_ENTRY and f.name.partition(":")[2] == tag
    }


def _distinct(shapes: Ints) -> list[tuple[int, ...]]:
    return [tuple(row) for row in np.unique(shapes, axis=0).tolist()]


RARE = 0.01
"""Frames of another shape that are at most this share of all are missing pieces, not ragged data."""

FEW = 10
"""So is a single one, where at least this many have the usual shape."""


def usual_shape(events: ChannelEvents) -> tuple[int, ...] | None:
    """Return the shape that (almost) all blocks have; None if the lengths really vary, or there are none."""
    shapes = events.shapes
    if not shapes:
        return None
    best = max(shapes, key=lambda s: shapes[s])
    others = sum(shapes.values()) - shapes[best]
    allowed = max(RARE * shapes[best], int(shapes[best] >= FEW))
    rare = len(best) >= 2 and others <= allowed
    return best if others == 0 or rare else None


ENCODED = ("hsd",)
"""Types of detectors whose channels are bytes that hold samples and peaks: how many says nothing of these."""


def is_encoded(channel: Channel) -> bool:
    """Tell whether the bytes of a channel are to be decoded: ragged, also where all are equally many."""
    if channel.spec.rank != 1 or channel.spec.dtype != np.uint8:
        return False
    names = (names for segment in channel.segments for place in segment.places for _, names in place.names)
    return any(found.det_type in ENCODED for found in names)


class FrameReader:
    """Reads a channel whose segments always have the same shape.

    Parameters
    ----------
    events : ChannelEvents

    Attributes
    ----------
    dtype : numpy.dtype
    panels : (panel,) int64
        Panel numbers. A segment of rank 3 has several panels.
    panel_shape : tuple of int
        (row, col), (sample,) or ().
    dims : tuple of str
        Names of the dimensions of `panel_shape`, where the file says them (an export does).
    coords : mapping of str to array
        Positions along these dimensions, where the file says them.
    attrs : mapping
        Attributes that the file gives the values.
    decoded : str
        Why values do not lie in the file as they are; '' where they do, and `places` says where.
    """

    decoded: str = ""
    dims: tuple[str, ...] = ()
    coords: Mapping[str, Array] = MappingProxyType({})
    attrs: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, events: ChannelEvents) -> None:
        shape = usual_shape(events)
        if shape is None:
            raise ValueError(f"{'.'.join(events.channel.id)} has no fixed shape")
        self.events = events
        self.dtype = events.channel.spec.dtype
        numbers = np.array([s.number for s in events.channel.segments], np.int64)
        self._per_segment = shape[0] if len(shape) == 3 else 1
        self.panels = (numbers[:, None] * self._per_segment + np.arange(self._per_segment)).reshape(-1)
        self.panel_shape = shape[1:] if len(shape) == 3 else shape
        self._bytes = int(np.prod(shape, dtype=np.int64)) * self.dtype.itemsize

    @property
    def segmented(self) -> bool:
        """Whether values have a panel dimension."""
        return len(self.panels) > 1 or len(self.events.channel.segments) > 1

    def present(self, events: Ints) -> Bools:
        """Return which panels each event has, (event, panel)."""
        out = np.zeros((len(events), len(self.events.channel.segments)), bool)
        for found in self.events.found(events):
            out[self._usable(found)[0], found.segment] = True
        return np.repeat(out, self._per_segment, axis=1)

    def _usable(self, found: Found) -> tuple[Ints, Ints, Array]:
        """Return events, offsets and parts of the blocks that have the usual size."""
        events, offsets, sizes, part = self.events.extents(found)
        usual = sizes == self._bytes
        return events[usual], offsets[usual], part[usual]

    def odd(self, most: int = 1000) -> list[Problem]:
        """Return a problem for each block of another shape: it counts as missing."""
        if len(self.events.shapes) < 2:
            return []
        problems = []
        for found in self.events.found(np.arange(len(self.events.recording.events))):
            events, offsets, sizes, part = self.events.extents(found)
            paths = self.events.recording.streams[found.place.stream].parts
            for k in np.flatnonzero(sizes != self._bytes)[:most]:
                event = int(self.events.recording.events.timestamp[events[k]])
                what = f"{'.'.join(self.events.channel.id)} has {sizes[k]} bytes, not {self._bytes}: missing"
                problems.append(Problem(paths[int(part[k])], int(offsets[k]), event, what))
        return problems[:most]

    def read_into(self, events: Ints, panels: Ints, rows: slice, out: Array) -> None:
        """Read panels of events.

        Parameters
        ----------
        events : (event,) int64
            Event numbers, in any order.
        panels : (panel,) int64
            Positions in `panels`.
        rows : slice
            Rows (or samples) of each panel; step 1.
        out : (event, panel, row, ...) array
            C-contiguous, of the channel's dtype. What is missing becomes NaN or 0.

        Raises
        ------
        ReadError
            A file cannot be read as indexed.
        """
        row_bytes = int(np.prod(self.panel_shape[1:], dtype=np.int64)) * self.dtype.itemsize
        height = self.panel_shape[0] if self.panel_shape else 1
        first, last, _ = rows.indices(height)
        piece = max(0, last - first) * row_bytes
        absent = np.ones((len(events), len(panels)), bool)
        for stream, work in self._work(events, panels):
            event, panel, offset, part = work
            absent[event, panel] = False
            at = offset + (panels[panel] % self._per_segment * height + first) * row_bytes
            self._read(stream, part, at, piece, out, (event * len(panels) + panel) * piece)
        if absent.any():
            out[absent] = missing_value(self.dtype)

    def places(self, events: Ints) -> tuple[list[Source], npt.NDArray[np.int32], Ints]:
        """Return where the bytes of each panel of each event lie, for kernels that read by themselves.

        Returns
        -------
        sources : list of Source
        which : (event, panel) int32
            Position in `sources`; -1: missing.
        offsets : (event, panel) int64
            Byte of the panel's first value.
        """
        shape = (len(events), len(self.panels))
        which, offsets = np.full(shape, -1, np.int32), np.zeros(shape, np.int64)
        panel_bytes = self._bytes // self._per_segment
        sources: list[Source] = []
        for stream, (event, panel, offset, part) in self._work(events, np.arange(shape[1])):
            numbers, local = np.unique(part, return_inverse=True)
            which[event, panel] = len(sources) + local.reshape(-1)
            offsets[event, panel] = offset + panel % self._per_segment * panel_bytes
            sources += [self.events.recording.blocks[stream].source(int(n)) for n in numbers]
        return sources, which, offsets

    def _work(self, events: Ints, panels: Ints) -> Iterator[tuple[int, tuple[Ints, Ints, Ints, Array]]]:
        """Yield for each stream the (event, panel, segment offset, part) of all that is there."""
        segment = panels // self._per_segment
        by_stream: dict[int, list[tuple[Ints, Ints, Ints, Array]]] = {}
        for found in self.events.found(events, np.unique(segment)):
            event, offset, part = self._usable(found)
            for panel in np.flatnonzero(segment == found.segment):
                columns = (event, np.full(len(event), panel), offset, part)
                by_stream.setdefault(found.place.stream, []).append(columns)
        for stream, pieces in by_stream.items():
            if len(pieces) == 1:
                yield stream, pieces[0]
            else:
                joined = tuple(np.concatenate(c) for c in zip(*pieces, strict=True))
                order = np.lexsort((joined[1], joined[0]))
                yield stream, tuple(c[order] for c in joined)  # type: ignore[misc]

    def _read(self, stream: int, part: Array, at: Ints, piece: int, out: Array, places: Ints) -> None:
        blocks = self.events.recording.blocks[stream]
        read_split(blocks, part, at, np.full(len(at), piece, np.int64), out, places)


_THREAD = threading.local()


@contextmanager
def unsplit_reads() -> Iterator[None]:
    """Let this thread read alone in the block: many that read already only wait for more."""
    before = getattr(_THREAD, "unsplit", False)
    _THREAD.unsplit = True
    try:
        yield
    finally:
        _THREAD.unsplit = before


def read_split(blocks: Parts, part: Array, at: Ints, sizes: Ints, out: Array, places: Ints) -> None:
    """Copy pieces to ``out`` as `read_parts` does, in several threads where that is worth it."""
    alone = getattr(_THREAD, "unsplit", False) or int(sizes.sum()) < SPLIT_BYTES
    threads = 1 if alone else current().read_threads
    bounds = np.linspace(0, len(at), threads + 1).astype(int)
    pieces = [slice(a, b) for a, b in itertools.pairwise(bounds) if b > a]
    if len(pieces) == 1:
        read_parts(blocks, part, at, sizes, out, places)
    elif pieces:
        with ThreadPoolExecutor(len(pieces)) as pool:
            list(pool.map(lambda s: read_parts(blocks, part[s], at[s], sizes[s], out, places[s]), pieces))


class RaggedReader:
    """Reads a channel whose length changes from event to event.

    Items of an event are those of its segments, one after the other.

    Parameters
    ----------
    events : ChannelEvents

    Attributes
    ----------
    item_shape : tuple of int
        Of one item: what all shapes have after their first dimension, else () (flattened).
    dims : tuple of str
        Names of the dimensions of `item_shape`, where the file says them.
    """

    dims: tuple[str, ...] = ()

    def __init__(self, events: ChannelEvents) -> None:
        self.events = events
        self.dtype = events.channel.spec.dtype
        trailing = {shape[1:] for shape in events.shapes}
        self.item_shape = trailing.pop() if len(trailing) == 1 else ()
        if not all(self.item_shape):
            self.item_shape = ()
        self._item_bytes = int(np.prod(self.item_shape, dtype=np.int64)) * self.dtype.itemsize
        self.segmented = len(events.channel.segments) > 1
        self.panels = np.array([s.number for s in events.channel.segments], np.int64)

    def counts(self, events: Ints) -> Ints:
        """Return the number of items of each event and segment, (event, segment)."""
        out = np.zeros((len(events), len(self.events.channel.segments)), np.int64)
        for found in self.events.found(events):
            has, _, sizes, _ = self.events.extents(found)
            out[has, found.segment] = sizes // self._item_bytes
        return out

    def present(self, events: Ints) -> Bools:
        """Return which segments each event has, (event, segment)."""
        return self.events.present(events)

    def read(self, events: Ints) -> Array:
        """Return the items of the events, one after the other, (item, ...)."""
        counts = self.counts(events)
        starts = (np.cumsum(counts) - counts.reshape(-1)).reshape(counts.shape) * self._item_bytes
        out = np.empty((int(counts.sum()), *self.item_shape), self.dtype)
        for found in self.events.found(events):
            has, offsets, sizes, part = self.events.extents(found)
            blocks = self.events.recording.blocks[found.place.stream]
            read_parts(blocks, part, offsets, sizes, out, starts[has, found.segment])
        return out


class StringReader:
    """Reads a channel of text."""

    def __init__(self, events: ChannelEvents) -> None:
        self.events = events
        self.segmented = len(events.channel.segments) > 1
        self.panels = np.array([s.number for s in events.channel.segments], np.int64)

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """Wide enough for the longest text that the shapes allow."""
        width = max((shape[0] for shape in self.events.shapes if shape), default=1)
        return np.dtype(f"<U{max(1, width)}")

    def present(self, events: Ints) -> Bools:
        """Return which segments each event has, (event, segment)."""
        return self.events.present(events)

    def read(self, events: Ints) -> Array:
        """Return the text of each event and segment, (event, segment); '' where it is missing."""
        out = np.zeros((len(events), len(self.events.channel.segments)), self.dtype)
        for found in self.events.found(events):
            has = np.flatnonzero(found.blocks >= 0)
            blocks = self.events.recording.blocks[found.place.stream]
            kinds = dict(found.place.names)
            name = self.events.channel.spec.name
            out[has, found.segment] = read_field(blocks, found.rows[has], found.blocks[has], kinds, name)
        return out


def any_panel(present: Bools) -> Bools:
    """Return which events have any part of a detector, from (event, panel)."""
    return np.logical_or.reduce(present, axis=1)


def missing_value(dtype: np.dtype[Any]) -> Any:
    """Return what stands for a missing value: NaN, 0, False or ''."""
    return np.nan if dtype.kind == "f" else np.zeros((), dtype)[()]


Reader = FrameReader | RaggedReader | StringReader


def reader_of(recording: Recording, channel: Channel, *, keep_damaged: bool = False) -> Reader | None:
    """Return what reads a channel; None if no event of the run has it."""
    events = ChannelEvents(recording, channel, keep_damaged=keep_damaged)
    if channel.spec.kind is Kind.STRING:
        return StringReader(events)
    if not events.shapes:
        return None
    if usual_shape(events) is None or is_encoded(channel):
        return RaggedReader(events)
    return FrameReader(events)

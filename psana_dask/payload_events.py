"""Which events of an LCLS-1 run have a channel, and how its field is read from each kind of payload.

A field may come as several kinds of block: in several streams, under several configurations, in
other versions of a type, compressed or not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from psana_dask.catalog import Channel, Place
from psana_dask.channel_events import Found
from psana_dask.errors import FormatError
from psana_dask.model import Array, Problem
from psana_dask.payload_blocks import PayloadBlocks
from psana_dask.readers.compression import decompress
from psana_dask.readers.records import View
from psana_dask.readers.tables.panels import Panels
from psana_dask.readers.xtc_fields import Column, columns_of, frame_of, read_column
from psana_dask.readers.xtc_layout import COMPRESSED, EBEAM, USER_BITS, Damage
from psana_dask.readers.xtc_pieces import Piece, piece_of
from psana_dask.readers.xtc_values import Ragged
from psana_dask.recording import Recording

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

TILE_BYTES = 64 * 2**20
"""Whole payloads are read and decoded this many bytes at a time."""


@dataclass(frozen=True)
class PayloadKind:
    """The blocks of one key in one state of configuration, as one field is read from them.

    Parameters
    ----------
    blocks : PayloadBlocks
    view : View
        The payload that stands for them.
    size : int
        Its bytes in the file.
    compressed : bool
    column : Column
    panels : Panels or None
        Of the payload, where the field is the pixels of an area detector.
    """

    blocks: PayloadBlocks
    view: View
    size: int
    compressed: bool
    column: Column
    panels: Panels | None

    @classmethod
    def of(cls, blocks: PayloadBlocks, state: int, key: int, field: str) -> PayloadKind | None:
        """Return the kind of a key; None if no payload stands for it, or has the field."""
        row, block = blocks.sample(state, key)
        if row < 0:
            return None
        try:
            view = blocks.decode(row, block)
            columns = columns_of(view)
        except FormatError:
            raw = blocks.payload(row, block)
            view = opaque_view(raw)
            columns = columns_of(view)
        column = next((c for c in columns if c.name == field), None)
        if column is None:
            return None
        compressed = bool(blocks.kind(key)[2] & COMPRESSED)
        size = int(blocks.index["payload"][block])
        return cls(blocks, view, size, compressed, column, frame_of(view) if column.is_frame else None)

    @cached_property
    def piece(self) -> Piece | None:
        """The bytes that hold the field, where nothing else of the payload need be read."""
        value = self.column.value
        return None if value is None or self.compressed else piece_of(self.view, value)

    def in_piece(self, sizes: Array) -> Bools:
        """Tell which payloads, of these sizes, have the field in that piece."""
        if self.piece is None:
            return np.zeros(len(sizes), bool)
        return np.asarray(sizes == self.size) if self.piece.moves else np.ones(len(sizes), bool)

    @property
    def least(self) -> int:
        """Bytes that a payload must have for the field to be there."""
        if self.compressed:
            return 1
        if self.panels is not None:
            return self.size
        record = self.view.record
        return record.size if record.size is not None else record.dtype.itemsize

    def usable(self, sizes: Array) -> Bools:
        """Tell which payloads, of these sizes, can have the field."""
        if self.panels is not None and not self.compressed:
            return np.asarray(sizes == self.size)
        return np.asarray(sizes >= self.least)

    def decode(self, rows: Ints, blocks: Ints) -> Array | Ragged:
        """Return the field of some blocks, decoded from whole payloads.

        Raises
        ------
        FormatError
            One of them contradicts itself.
        """
        payloads = self.blocks.payloads(rows, blocks)
        data, starts, stops = payloads.data, payloads.starts, payloads.stops
        if self.compressed:
            plain = [decompress(data[a:b]) for a, b in zip(starts.tolist(), stops.tolist(), strict=True)]
            sizes = np.array([len(p) for p in plain], np.int64)
            stops = np.cumsum(sizes)
            starts, data = stops - sizes, np.concatenate(plain)
        return read_column(self.column, self.view.record, data, starts, stops, self.view.cfg)


def opaque_view(payload: npt.NDArray[np.uint8]) -> View:
    """Return a payload as the bytes that it is."""
    from psana_dask.readers.tables import opaque

    return opaque("undecoded").view(payload)


def tiles(sizes: Ints) -> Iterator[slice]:
    """Yield slices of about TILE_BYTES each."""
    ends = np.cumsum(sizes)
    first = 0
    while first < len(sizes):
        before = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(ends, before + TILE_BYTES, side="right")))
        yield slice(first, last)
        first = last


@dataclass(frozen=True)
class Some:
    """Some events of one kind.

    Parameters
    ----------
    kind : PayloadKind
    segment : int
        Position in `Channel.segments`.
    events : (n,) int64
        Positions among the events that were asked for.
    rows, blocks : (n,) int64
    """

    kind: PayloadKind
    segment: int
    events: Ints
    rows: Ints
    blocks: Ints

    @property
    def sizes(self) -> Ints:
        """Bytes of the payloads, (n,)."""
        return self.kind.blocks.index["payload"][self.blocks].astype(np.int64)

    def only(self, which: Array) -> Some:
        """Return some of them: a mask, or positions."""
        return Some(self.kind, self.segment, self.events[which], self.rows[which], self.blocks[which])


class PayloadEvents:
    """Which events have which segments of a channel.

    Of two payloads of one source in an event the first stream's counts, as in psana.

    Parameters
    ----------
    recording : Recording
    channel : Channel
    keep_damaged : bool
        Deliver payloads whose damage is not zero; otherwise they count as missing.
    """

    enum: dict[int, str] = {}  # noqa: RUF012  (LCLS-1 has no enums in its events)

    def __init__(self, recording: Recording, channel: Channel, *, keep_damaged: bool = False) -> None:
        self.recording = recording
        self.channel = channel
        self.keep_damaged = keep_damaged
        self._kinds: dict[tuple[int, int, int], PayloadKind | None] = {}

    def found(self, events: Ints, segments: Ints | None = None) -> Iterator[Found]:
        """Yield the blocks of each segment in each stream where it may be."""
        for number, segment in enumerate(self.channel.segments):
            if segments is not None and number not in segments:
                continue
            taken = np.zeros(len(events), bool)
            for place in segment.places:
                found = self._locate(number, place, events)
                found.blocks[taken] = -1
                taken |= found.blocks >= 0
                yield found

    def _locate(self, number: int, place: Place, events: Ints) -> Found:
        index = self.recording.streams[place.stream]
        rows = self.recording.events.rows[place.stream][events].astype(np.int64)
        blocks = self.recording.blocks[place.stream].locate(rows, place.keys(len(index.configs)))
        if not self.keep_damaged and len(index["key"]):
            damage = index["block_damage"][blocks]
            bad = damage != 0
            if bad.any():
                ebeam = np.isin(index["kind_contains"] & 0xFFFF, EBEAM)[index["key"][blocks]]
                bad &= ~(ebeam & ((damage & ~USER_BITS) == Damage.USER_DEFINED))
            blocks[bad] = -1
        return Found(number, place, rows, blocks)

    def some(self, events: Ints, segments: Ints | None = None) -> Iterator[Some]:
        """Yield the events that can be read, kind by kind."""
        for found in self.found(events, segments):
            index = self.recording.streams[found.place.stream]
            has = np.flatnonzero(found.blocks >= 0)
            states = index["config"][found.rows[has]]
            for state, names in found.place.names:
                mine = has[states == state] if len(found.place.names) > 1 else has
                kind = self.kind(found.place.stream, state, names.key) if len(mine) else None
                if kind is not None:
                    mine = mine[kind.usable(index["payload"][found.blocks[mine]])]
                    yield Some(kind, found.segment, mine, found.rows[mine], found.blocks[mine])

    def kind(self, stream: int, state: int, key: int) -> PayloadKind | None:
        """Return how the field is read from the blocks of a key, made once."""
        if (stream, state, key) not in self._kinds:
            blocks = self.recording.blocks[stream]
            self._kinds[stream, state, key] = PayloadKind.of(blocks, state, key, self.channel.spec.name)
        return self._kinds[stream, state, key]

    @cached_property
    def kinds(self) -> list[tuple[int, PayloadKind]]:
        """(segment, kind) of everything that the channel may be read from."""
        found = [
            (number, self.kind(place.stream, state, names.key))
            for number, segment in enumerate(self.channel.segments)
            for place in segment.places
            for state, names in place.names
        ]
        return [(number, kind) for number, kind in found if kind is not None]

    def present(self, events: Ints) -> Bools:
        """Return which segments each event has, (event, segment)."""
        out = np.zeros((len(events), len(self.channel.segments)), bool)
        for some in self.some(events):
            out[some.events, some.segment] = True
        return out

    def damage(self, events: Ints) -> npt.NDArray[np.uint32]:
        """Return the damage word of each event: that of its payloads, and of what marks them as damaged."""
        out = np.zeros(len(events), np.uint32)
        for place in (place for segment in self.channel.segments for place in segment.places):
            index = self.recording.streams[place.stream]
            rows = self.recording.events.rows[place.stream][events].astype(np.int64)
            own = place.keys(len(index.configs))
            marks = [[key] * len(index.configs) for key in self._marks(place)]
            for keys in (own, *marks):
                blocks = self.recording.blocks[place.stream].locate(rows, keys, readable=False)
                has = blocks >= 0
                out[has] |= index["block_damage"][blocks[has]]
        return out

    def _marks(self, place: Place) -> list[int]:
        """Return the keys of blocks of the same source that hold nothing but a damage word (type 0)."""
        index = self.recording.streams[place.stream]
        level, phy = index["kind_log"] >> 24, index["kind_phy"]
        key = place.names[0][1].key
        same = (level == level[key]) & (phy == phy[key]) & (index["kind_contains"] & 0xFFFF == 0)
        return np.flatnonzero(same).tolist()

    def odd(self, most: int = 1000) -> list[Problem]:
        """Return a problem for each payload that is too short, or of another size than the others."""
        problems: list[Problem] = []
        events = np.arange(len(self.recording.events))
        for found in self.found(events):
            index = self.recording.streams[found.place.stream]
            has = found.blocks >= 0
            for state, names in found.place.names:
                kind = self.kind(found.place.stream, state, names.key)
                mine = np.flatnonzero(has & (index["config"][found.rows] == state))
                if kind is None:
                    continue
                sizes = index["payload"][found.blocks[mine]]
                wrong = mine[~kind.usable(sizes)][:most].tolist()
                problems += [self._odd(found, int(found.rows[k]), int(found.blocks[k]), kind) for k in wrong]
        return problems[:most]

    def _odd(self, found: Found, row: int, block: int, kind: PayloadKind) -> Problem:
        index = self.recording.streams[found.place.stream]
        offset = int(index["offset"][row]) + int(index["data"][block])
        what = f"{self.channel.detector}.{self.channel.spec.name} has"
        what = f"{what} {index['payload'][block]} bytes, not {kind.least}: missing"
        path = index.parts[int(index["part"][row])]
        return Problem(path, offset, int(index["timestamp"][row]), what)

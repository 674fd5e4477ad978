"""Which events have a channel, and in which block: one channel over many events (LCLS-II).

Nothing here reads values but the names of an enum: presence, damage and shapes are in the index.
`payload_events` has the same of LCLS-1.  Contract: tests/test_fields.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from psana_dask.blocks import decode_dgram
from psana_dask.catalog import Channel, Place
from psana_dask.model import Array, Kind, Names
from psana_dask.recording import Recording

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


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

"""The values of one channel over many events, as arrays.

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
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from psana_dask.blocks import Parts, read_field, read_parts
from psana_dask.catalog import Channel
from psana_dask.channel_events import ChannelEvents, Found, is_encoded, usual_shape
from psana_dask.model import Array, Kind, Problem
from psana_dask.options import current
from psana_dask.recording import Recording
from psana_dask.sources import Source

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

SPLIT_BYTES = 4 * 2**20
"""A read at least this large is split over threads."""


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

"""One channel of an LCLS-1 run over many events: its values.

What `fields` is to LCLS-II: readers of fixed shape, ragged readers and text, which take event numbers.  A
value that is stored at one place of every payload is read alone; panels of area detectors are read
by panel and row; what is computed, compressed, or moves from payload to payload is decoded from
whole payloads, some tens of megabytes at a time.  Contract: tests/xtc1/test_run.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from psana_dask.blocks import read_parts
from psana_dask.catalog import Channel
from psana_dask.errors import FormatError
from psana_dask.fields import FrameReader, RaggedReader, Reader, StringReader, missing_value, read_split
from psana_dask.model import Array, Kind, Problem
from psana_dask.payload_blocks import PayloadBlocks
from psana_dask.payload_events import PayloadEvents, PayloadKind, Some, tiles
from psana_dask.readers.compression import decompress
from psana_dask.readers.records import View
from psana_dask.readers.tables.panels import Panels, ReadHeads, panel_table, quad_heads
from psana_dask.readers.xtc_fields import frame_of
from psana_dask.readers.xtc_pieces import quad_value
from psana_dask.readers.xtc_values import Ragged, counted_in_head, head_counts
from psana_dask.recording import Recording
from psana_dask.sources import Source

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


# ---- values of fixed shape ----------------------------------------------------------------------
class ValueFrames(FrameReader):
    """Reads a value that has the same shape in all payloads.

    Parameters
    ----------
    events : PayloadEvents
    """

    decoded = "decoded from payloads"

    def __init__(self, events: PayloadEvents) -> None:
        self.payloads = self.events = events  # type: ignore[assignment]
        column = events.kinds[0][1].column
        self.dtype = column.dtype
        for _, kind in events.kinds[1:]:
            self.dtype = np.promote_types(self.dtype, kind.column.dtype)
        self.panels = np.array([s.number for s in events.channel.segments], np.int64)
        self.panel_shape = column.shape

    def present(self, events: Ints) -> Bools:
        """Return which segments each event has, (event, segment)."""
        return self.payloads.present(events)

    def odd(self, most: int = 1000) -> list[Problem]:
        """Return a problem for each payload that is too short."""
        return self.payloads.odd(most)

    def read_into(self, events: Ints, panels: Ints, rows: slice, out: Array) -> None:
        """Read segments of events; see `FrameReader.read_into`."""
        out[...] = missing_value(self.dtype)
        for some in self.payloads.some(events, np.unique(panels)):
            for column in np.flatnonzero(panels == some.segment).tolist():
                target = out[:, column]
                for numbers, values in self._values(some):
                    picked = values[:, rows] if self.panel_shape else values
                    target[numbers] = picked.reshape(len(picked), *out.shape[2:])

    def _values(self, some: Some) -> Iterator[tuple[Ints, Array]]:
        """Yield (events, values): from the few bytes that hold them, or from whole payloads."""
        simple = some.kind.in_piece(some.sizes)
        for group in tiles(np.full(np.count_nonzero(simple), self._piece_bytes(some.kind), np.int64)):
            part = some.only(np.flatnonzero(simple)[group])
            yield part.events, pieces(part)
        rest = some.only(~simple)
        value = some.kind.column.value
        take = None if value is None or some.kind.compressed else quad_value(some.kind.view, value)
        if take is not None and len(rest.rows):
            sample = some.kind.view
            yield rest.events, take(quad_heads(sample.record, sample.cfg, len(rest.rows), heads_of(rest)))
            return
        for which, values in decoded(rest):
            if not isinstance(values, Ragged) and values.shape[1:] == self.panel_shape:
                yield rest.events[which], values

    def _piece_bytes(self, kind: PayloadKind) -> int:
        piece = kind.piece
        return 0 if piece is None else piece.dtype.itemsize * int(np.prod(piece.shape, dtype=np.int64))


def pieces(some: Some) -> Array:
    """Read a field from the bytes that hold it, and nothing else."""
    index, piece = some.kind.blocks.index, some.kind.piece
    assert piece is not None  # noqa: S101  (see PayloadKind.in_piece)
    offsets = index["offset"][some.rows] + index["data"][some.blocks].astype(np.int64) + piece.offset
    out = np.empty((len(offsets), *piece.shape), piece.dtype)
    size = piece.dtype.itemsize * int(np.prod(piece.shape, dtype=np.int64))
    sizes, places = np.full(len(offsets), size, np.int64), np.arange(len(offsets)) * size
    read_parts(some.kind.blocks, index["part"][some.rows], offsets, sizes, out, places)
    return piece.take(out)


def decoded(some: Some) -> Iterator[tuple[Any, Array | Ragged]]:
    """Yield (which, values) of a field; a payload that contradicts itself does not hide the others."""
    for which in tiles(some.sizes):
        rows, blocks = some.rows[which], some.blocks[which]
        try:
            yield which, some.kind.decode(rows, blocks)
        except FormatError:
            for k in range(len(rows)):
                one = slice(which.start + k, which.start + k + 1)
                try:
                    yield one, some.kind.decode(rows[k : k + 1], blocks[k : k + 1])
                except FormatError:
                    continue


# ---- area detectors -----------------------------------------------------------------------------
class PanelFrames(FrameReader):
    """Reads the pixels of an area detector, by panel and row.

    Parameters
    ----------
    events : PayloadEvents
    """

    def __init__(self, events: PayloadEvents) -> None:
        self.payloads = self.events = events  # type: ignore[assignment]
        first = usual_panels(events)
        self.dtype, self.panel_shape = first.dtype, first.shape
        counts: dict[int, int] = {}
        for segment, kind in events.kinds:
            if kind.panels is not None and kind.panels.shape == self.panel_shape:
                counts[segment] = max(counts.get(segment, 0), len(kind.panels.starts))
        numbers = [s.number for s in events.channel.segments]
        self._first = {segment: sum(counts.get(k, 0) for k in range(segment)) for segment in counts}
        self.panels = np.concatenate([numbers[k] + np.arange(n) for k, n in sorted(counts.items())])
        self._segment = np.concatenate([np.full(n, k) for k, n in sorted(counts.items())])

    @property
    def segmented(self) -> bool:
        """Whether values have a panel dimension."""
        return len(self.panels) > 1

    def _usable(self, some: Some) -> bool:  # type: ignore[override]
        panels = some.kind.panels
        return panels is not None and panels.shape == self.panel_shape

    def present(self, events: Ints) -> Bools:
        """Return which panels each event has, (event, panel)."""
        out = np.zeros((len(events), len(self.panels)), bool)
        for some in self.payloads.some(events):
            if self._usable(some) and some.kind.panels is not None:
                there = some.kind.panels.present
                first = self._first[some.segment]
                out[some.events, first : first + len(there)] = there
        return out

    def odd(self, most: int = 1000) -> list[Problem]:
        """Return a problem for each frame of another size: it counts as missing."""
        return self.payloads.odd(most)

    def read_into(self, events: Ints, panels: Ints, rows: slice, out: Array) -> None:
        """Read panels of events; see `FrameReader.read_into`."""
        first, last, _ = rows.indices(self.panel_shape[0])
        absent = np.ones((len(events), len(panels)), bool)
        for some in self.payloads.some(events, np.unique(self._segment[panels])):
            if not self._usable(some):
                continue
            read = self._compressed if some.kind.compressed else self._stored
            read(some, panels, slice(first, last), out, absent)
        if absent.any():
            out[absent] = missing_value(self.dtype)

    @cached_property
    def decoded(self) -> str:  # type: ignore[override]
        """Why pixels do not lie in the file as they are: '' where they do."""
        usable = [kind for _, kind in self.payloads.kinds if kind.panels is not None]
        if any(kind.compressed for kind in usable):
            return "compressed"
        if any(kind.panels.step != self.dtype.itemsize for kind in usable if kind.panels is not None):
            return "pixels of several panels take turns"
        return "" if all(kind.column.dtype == self.dtype for kind in usable) else "types of pixels differ"

    def places(self, events: Ints) -> tuple[list[Source], npt.NDArray[np.int32], Ints]:
        """Return where the bytes of each panel lie, unless they are `decoded`; see `FrameReader.places`."""
        shape = (len(events), len(self.panels))
        which, offsets = np.full(shape, -1, np.int32), np.zeros(shape, np.int64)
        sources: list[Source] = []
        for some in self.payloads.some(events):
            if not self._usable(some):
                continue
            starts, _ = self._starts(some)
            index = some.kind.blocks.index
            base = index["offset"][some.rows] + index["data"][some.blocks].astype(np.int64)
            numbers, local = np.unique(index["part"][some.rows], return_inverse=True)
            mine = np.ix_(some.events, self._first[some.segment] + np.arange(starts.shape[1]))
            which[mine] = np.where(starts >= 0, len(sources) + local.reshape(-1, 1), -1)
            offsets[mine] = np.where(starts >= 0, base[:, None] + starts, 0)
            sources += [some.kind.blocks.source(int(n)) for n in numbers]
        return sources, which, offsets

    def _wanted(self, some: Some, panels: Ints) -> tuple[Ints, Ints]:
        """Return the positions in `panels` that a segment has, and which of its own panels they are."""
        positions = np.flatnonzero(self._segment[panels] == some.segment)
        return positions, panels[positions] - self._first[some.segment]

    def _stored(self, some: Some, panels: Ints, rows: slice, out: Array, absent: Bools) -> None:
        """Read uncompressed frames: the rows that are wanted of each panel are one piece of the file."""
        positions, own = self._wanted(some, panels)
        starts, step = self._starts(some)
        starts = starts[:, own]
        there = starts >= 0
        pixels = (rows.stop - rows.start) * self.panel_shape[1]
        index = some.kind.blocks.index
        base = index["offset"][some.rows] + index["data"][some.blocks].astype(np.int64)
        skipped = rows.start * self.panel_shape[1] * step
        event, panel = np.nonzero(there)
        offsets = base[event] + starts[event, panel] + skipped
        target = some.events[event], positions[panel]
        absent[target] = False
        part = index["part"][some.rows][event]
        if step == self.dtype.itemsize and some.kind.column.dtype == out.dtype:
            size = pixels * step
            places = (target[0] * len(panels) + target[1]) * size
            read_pieces(some.kind.blocks, part, offsets, size, out, places)
        else:
            self._spread(some, part, offsets, step, out, target)

    def _spread(
        self, some: Some, part: Array, offsets: Ints, step: int, out: Array, target: tuple[Ints, Ints]
    ) -> None:
        """Read pixels that do not follow each other: every `step` bytes one of them."""
        dtype = some.kind.panels.dtype if some.kind.panels is not None else self.dtype
        pixels = int(np.prod(out.shape[2:], dtype=np.int64))
        size = (pixels - 1) * step + dtype.itemsize
        for which in tiles(np.full(len(offsets), size, np.int64)):
            buffer = np.zeros((len(offsets[which]), pixels * step), np.uint8)
            sizes = np.full(len(buffer), size, np.int64)
            places = np.arange(len(buffer)) * buffer.shape[1]
            read_parts(some.kind.blocks, part[which], offsets[which], sizes, buffer, places)
            pixel = np.ndarray((len(buffer), *out.shape[2:]), dtype, buffer, 0, _strides(out, step, buffer))
            out[target[0][which], target[1][which]] = pixel

    def _starts(self, some: Some) -> tuple[Ints, int]:
        """Return where the panels of each event lie in its payload, and the bytes between pixels."""
        kind = some.kind
        assert kind.panels is not None  # noqa: S101  (see _usable)
        if not kind.view.record.title.startswith("CsPad.Data"):
            starts = kind.panels.starts
            return np.broadcast_to(starts, (len(some.rows), len(starts))), kind.panels.step
        table = panel_table(kind.view.record, kind.view.cfg, len(some.rows), heads_of(some))
        return table.starts, table.step

    def _compressed(self, some: Some, panels: Ints, rows: slice, out: Array, absent: Bools) -> None:
        """Read compressed frames: each payload is decompressed whole."""
        positions, own = self._wanted(some, panels)
        blocks, sample = some.kind.blocks, some.kind.view
        which = (some.events.tolist(), some.rows.tolist(), some.blocks.tolist())
        for event, row, block in zip(*which, strict=True):
            try:
                view = sample.record.view(decompress(blocks.payload(row, block)), cfg=sample.cfg)
                found = frame_of(view)
            except FormatError:
                continue
            if found is None or found.shape != self.panel_shape:
                continue
            for position, panel in zip(positions.tolist(), own.tolist(), strict=True):
                if found.starts[panel] >= 0:
                    out[event, position] = _panel(view, found, panel)[rows]
                    absent[event, position] = False


def heads_of(some: Some) -> ReadHeads:
    """Return what reads a few bytes of each payload."""
    blocks, index = some.kind.blocks, some.kind.blocks.index
    base = index["offset"][some.rows] + index["data"][some.blocks].astype(np.int64)

    def read(offsets: Ints, size: int) -> npt.NDArray[np.uint8]:
        out = np.empty((len(base), size), np.uint8)
        sizes, places = np.full(len(base), size, np.int64), np.arange(len(base)) * size
        read_parts(blocks, index["part"][some.rows], base + offsets, sizes, out, places)
        return out

    return read


def _panel(view: View, panels: Panels, number: int) -> Array:
    """Return one panel of a payload, (row, col)."""
    strides = (panels.step * panels.shape[1], panels.step)
    start = view.start + int(panels.starts[number])
    return np.ndarray(panels.shape, panels.dtype, view.buffer, start, strides)


def _strides(out: Array, step: int, buffer: Array) -> tuple[int, ...]:
    columns = out.shape[3]
    return (buffer.shape[1], columns * step, step)


def usual_panels(events: PayloadEvents) -> Panels:
    """Return the panels that most kinds have."""
    shapes = [kind.panels for _, kind in events.kinds if kind.panels is not None]
    counted = [sum(p.shape == other.shape for other in shapes) for p in shapes]
    return shapes[int(np.argmax(counted))]


def read_pieces(
    blocks: PayloadBlocks, part: Array, offsets: Ints, size: int, out: Array, places: Ints
) -> None:
    """Read pieces of one size; those that follow each other in the file and in `out` are read at once."""
    if not len(offsets):
        return
    follows = (np.diff(offsets) == size) & (np.diff(places) == size) & (part[1:] == part[:-1])
    first = np.flatnonzero(np.concatenate([[True], ~follows]))
    counts = np.diff(np.append(first, len(offsets)))
    read_split(blocks, part[first], offsets[first], counts * size, out, places[first])


# ---- ragged values and text ---------------------------------------------------------------------
class RaggedPayloads(RaggedReader):
    """Reads a value of which each event has another number.

    Parameters
    ----------
    events : PayloadEvents
    """

    def __init__(self, events: PayloadEvents) -> None:
        self.payloads = self.events = events  # type: ignore[assignment]
        columns = [kind.column for _, kind in events.kinds]
        self.dtype = columns[0].dtype
        trailing = {c.shape[1:] for c in columns}
        self.item_shape = trailing.pop() if len(trailing) == 1 else ()
        self.segmented = len(events.channel.segments) > 1
        self.panels = np.array([s.number for s in events.channel.segments], np.int64)

    @cached_property
    def _everything(self) -> Ints:
        """Number of items of every event of the recording, (event, segment)."""
        total = len(self.payloads.recording.events)
        out = np.zeros((total, len(self.panels)), np.int64)
        for some in self.payloads.some(np.arange(total)):
            for which, counts in item_counts(some):
                out[some.events[which], some.segment] = counts
        return out

    def counts(self, events: Ints) -> Ints:
        """Return the number of items of each event and segment, (event, segment)."""
        return self._everything[events]

    def present(self, events: Ints) -> Bools:
        """Return which segments each event has, (event, segment)."""
        return self.payloads.present(events)

    def read(self, events: Ints) -> Array:
        """Return the items of the events, one after the other, (item, ...)."""
        counts = self.counts(events)
        starts = (np.cumsum(counts) - counts.reshape(-1)).reshape(counts.shape)
        out = np.zeros((int(counts.sum()), *self.item_shape), self.dtype)
        for some in self.payloads.some(events):
            for which, values in decoded(some):
                ragged = as_ragged(values)
                first = starts[some.events[which], some.segment]
                target = np.repeat(first - (np.cumsum(ragged.counts) - ragged.counts), ragged.counts)
                out[target + np.arange(len(ragged.items))] = ragged.items
        return out


def item_counts(some: Some) -> Iterator[tuple[Any, Ints]]:
    """Yield (which, number of items) of a ragged field; from the heads of the payloads where they say it."""
    record, value = some.kind.view.record, some.kind.column.value
    if some.kind.compressed or value is None or not counted_in_head(record, value):
        for which, values in decoded(some):
            yield which, as_ragged(values).counts
        return
    head = record.dtype.itemsize
    heads = some.kind.blocks.payloads(some.rows, some.blocks, 0, head).data.reshape(-1, head)
    yield slice(None), head_counts(record, value, heads, some.sizes)


def as_ragged(values: Array | Ragged) -> Ragged:
    """Return values of one shape as ragged ones."""
    if isinstance(values, Ragged):
        return values
    counts = np.full(len(values), values.shape[1] if values.ndim > 1 else 1, np.int64)
    return Ragged(counts, values.reshape(-1, *values.shape[2:]))


class TextPayloads(StringReader):
    """Reads text.

    Parameters
    ----------
    events : PayloadEvents
    """

    def __init__(self, events: PayloadEvents) -> None:
        self.payloads = self.events = events  # type: ignore[assignment]
        self.segmented = len(events.channel.segments) > 1
        self.panels = np.array([s.number for s in events.channel.segments], np.int64)

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """Wide enough for the room that the record has."""
        return np.dtype(f"<U{max(1, *(kind.column.dtype.itemsize for _, kind in self.payloads.kinds))}")

    def present(self, events: Ints) -> Bools:
        """Return which segments each event has, (event, segment)."""
        return self.payloads.present(events)

    def read(self, events: Ints) -> Array:
        """Return the text of each event and segment, (event, segment); '' where it is missing."""
        out = np.zeros((len(events), len(self.panels)), self.dtype)
        for some in self.payloads.some(events):
            for which, values in decoded(some):
                if not isinstance(values, Ragged) and values.ndim == 1:
                    out[some.events[which], some.segment] = np.char.decode(values, "latin-1")
        return out


def reader_of(recording: Recording, channel: Channel, *, keep_damaged: bool = False) -> Reader | None:
    """Return what reads a channel; None if no event of the run has it."""
    events = PayloadEvents(recording, channel, keep_damaged=keep_damaged)
    if not events.kinds:
        return None
    columns = [kind.column for _, kind in events.kinds]
    if any(kind.panels is not None for _, kind in events.kinds):
        return PanelFrames(events)
    if channel.spec.kind is Kind.STRING:
        return TextPayloads(events)
    if len({c.shape for c in columns}) > 1 or any(c.ragged for c in columns):
        return RaggedPayloads(events)
    if all(_surely_fixed(kind) for _, kind in events.kinds) or _has_one_shape(events):
        return ValueFrames(events)
    return RaggedPayloads(events)


def _surely_fixed(kind: PayloadKind) -> bool:
    """Tell whether the layout alone says that a value has one shape."""
    value = kind.column.value
    return kind.compressed or not kind.column.shape or (value is not None and value.fixed)


def _has_one_shape(events: PayloadEvents) -> bool:
    """Tell whether all payloads have a value in the shape that it has in the one that stands for them."""
    for some in events.some(np.arange(len(events.recording.events))):
        value = some.kind.column.value
        if value is not None and counted_in_head(some.kind.view.record, value):
            if any(np.any(counts != value.shape[0]) for _, counts in item_counts(some)):
                return False
        elif np.any(some.sizes != some.kind.size):
            return False
    return True

"""Values of single events, read ahead as a script goes through a run.

A script asks for one value of one event at a time.  What it asks for in the order of the events is
read in pieces that double, and large frames by a thread while the script works; an event out of
order is read alone.  So a loop costs little more than `Run.loop`, and a jump reads one event.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psana_dask.calibrated import ImageArray
from psana_dask.catalog import Channel, Entry
from psana_dask.choice import Choice
from psana_dask.dataset import View
from psana_dask.evr import all_flags
from psana_dask.fields import FrameReader, RaggedReader, any_panel
from psana_dask.imaging import Imaging
from psana_dask.pipeline import CountArray
from psana_dask.psana.ddl import Payload
from psana_dask.reductions.eventfields import EventField, event_fields
from psana_dask.reductions.loops import BLOCK_BYTES, LARGE, MOST_EVENTS, Source
from psana_dask.reductions.quantities import pixel_quantity
from psana_dask.slow_formats import code_words

Ints = NDArray[np.int64]
Piece = tuple[Any, Sequence[Any]]
"""Values of some events, and for each whether it has them."""

FRAMES_AHEAD = 4
"""Large frames in one piece; the next piece is read while a script works on one."""


class Ahead:
    """One value of every event, read in pieces.

    Parameters
    ----------
    events : (event,) int64
        Numbers of the events, in the order of the script.
    read : callable
        Returns the values of some events.
    most : int
        Events in a piece, at most.
    threaded : bool
        Read the next piece by a thread.
    """

    def __init__(
        self, events: Ints, read: Callable[[Ints], Piece], most: int, threaded: bool = False
    ) -> None:
        self._events, self._read_events, self._most = events, read, most
        self._first, self._size, self._given = 0, 0, -1
        self._piece: Piece = ((), ())
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="psana_dask-psana") if threaded else None
        self._next: tuple[int, int, Future[Piece]] | None = None

    def at(self, position: int) -> Any:
        """Return the value of the event at a position; None where it has none."""
        at = position - self._first
        if not 0 <= at < self._size:
            self._go_to(position)
            at = 0
        elif position == self._given:  # a script may have changed the array it got
            values, there = self._read_events(self._events[position : position + 1])
            return values[0] if there[0] else None
        values, there = self._piece
        if not there[at]:
            return None
        found = values[at]
        self._given = position if isinstance(found, np.ndarray) else -1
        return found

    def _go_to(self, position: int) -> None:
        """Read the piece that begins at a position."""
        end = self._first + self._size
        onward = self._size > 0 and end <= position < end + self._size
        size = min(2 * self._size, self._most) if onward else 1
        waiting, self._next = self._next, None
        if waiting is not None and waiting[0] == position:
            size, self._piece = waiting[1], waiting[2].result()
        else:
            if waiting is not None:
                waiting[2].cancel()
            self._piece = self._read(position, size)
        self._first, self._given = position, -1
        self._size = len(self._piece[1])
        after = position + self._size
        if self._pool is not None and size == self._most and after < len(self._events):
            self._next = (after, size, self._pool.submit(self._read, after, size))

    def _read(self, position: int, size: int) -> Piece:
        return self._read_events(self._events[position : position + size])


@dataclass(frozen=True)
class Wanted:
    """A field of a detector, and how its pixels are made.

    Parameters
    ----------
    detector, field : str
        Public names; ``calib`` and ``image`` too.
    calibration : mapping
        As `Detector.calibrated` takes it.
    assembly : mapping
        As `psana_dask.geometry.prepare` takes it.
    whole : bool
        An event that lacks a panel has nothing.
    """

    detector: str
    field: str
    calibration: Mapping[str, Any]
    assembly: Mapping[str, Any]
    whole: bool = False


class Reading:
    """Values of the events of a view.

    Parameters
    ----------
    view : View
    """

    def __init__(self, view: View) -> None:
        self.view = view
        self._columns: dict[Any, Ahead] = {}

    def value(
        self, position: int, detector: str, field: str, *, whole: bool = False,
        calibration: Mapping[str, Any] | None = None, assembly: Mapping[str, Any] | None = None,
    ) -> Any:  # fmt: skip
        """Return a field of the event at a position, None where it has none."""
        key = (detector, field, whole, _mark(calibration), _mark(assembly))
        column = self._columns.get(key)
        if column is None:
            wanted = Wanted(detector, field, calibration or {}, assembly or {}, whole)
            column = self._columns[key] = self._column(wanted)
        return column.at(position)

    def _column(self, wanted: Wanted) -> Ahead:
        each = event_field(self.view, wanted)
        events = self.view.choice.numbers
        if each is None:
            return Ahead(events, lambda some: ([None] * len(some), [False] * len(some)), MOST_EVENTS)
        source = Source(self.view, None, wanted.calibration)

        def read(some: Ints) -> Piece:
            panels = each.present(some)
            there = np.asarray(panels.all(axis=1) if wanted.whole else any_panel(panels), bool)
            return source.read(each, some), there.tolist()

        if each.nbytes >= LARGE:
            return Ahead(events, read, FRAMES_AHEAD, threaded=True)
        return Ahead(events, read, int(np.clip(BLOCK_BYTES // max(1, each.nbytes), 1, MOST_EVENTS)))

    def panels(self, position: int, entry: Entry) -> Any:
        """Return the numbers of the panels that an event has, None without any."""
        channel = entry.channels["raw"]
        reader = self.view.target(channel).reader()
        found = reader.present(self.view.choice.numbers[position : position + 1])[0]
        return reader.panels[found] if found.any() else None

    def codes(self, position: int) -> NDArray[np.bool_] | None:
        """Return which event codes an event has, (code,); None without timing data."""
        words, present = self._codes
        return all_flags(words[position : position + 1])[0] if present[position] else None

    @cached_property
    def _codes(self) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
        return code_words(self.view)

    def is_ragged(self, channel: Channel) -> bool:
        """Tell whether events have different numbers of a field."""
        return isinstance(self.view.target(channel).reader(), RaggedReader)

    def counts(self, position: int, channel: Channel) -> Ints:
        """Return how many items each panel of a ragged field has in an event, (panel,)."""
        view = self.view
        one = Choice(view.choice.numbers[position : position + 1], view.choice.total)
        return np.asarray(CountArray(replace(view.target(channel), choice=one))[...]).reshape(-1)

    def payloads(self, position: int, entry: Entry) -> list[Payload]:
        """Return what an LCLS-1 source wrote into an event, as records."""
        key = ("payloads", entry.name)
        if key not in self._columns:
            self._columns[key] = self._records(entry)
        return self._columns[key].at(position) or []

    def _records(self, entry: Entry) -> Ahead:
        from psana_dask.readers.tables import is_config

        recording = self.view.recording
        kinds = [
            (stream, key)
            for stream in recording.wanted
            for key in {n.key for names in recording.streams[stream].configs for n in names
                        if n.detector == entry.source}
            if not is_config(recording.blocks[stream].kind(key)[2] & 0xFFFF)
        ]  # fmt: skip

        def read(some: Ints) -> Piece:
            found: list[list[Payload]] = [[] for _ in some]
            for stream, key in sorted(kinds):
                self._add_records(stream, key, some, found)
            return found, [True] * len(some)

        large = any(_is_large(recording.streams[s], k) for s, k in kinds)
        return Ahead(self.view.choice.numbers, read, FRAMES_AHEAD if large else MOST_EVENTS)

    def _add_records(self, stream: int, key: int, some: Ints, found: list[list[Payload]]) -> None:
        recording = self.view.recording
        index, blocks = recording.streams[stream], recording.blocks[stream]
        rows = recording.events.rows[stream][some].astype(np.int64)
        there = np.flatnonzero(rows >= 0)
        if not there.size:
            return
        wanted = [key] * (int(index["config"].max()) + 1)
        chosen = blocks.locate(rows[there], wanted)
        kept = chosen >= 0
        there, chosen = there[kept], chosen[kept]
        read = blocks.payloads(rows[there], chosen)
        log, phy, contains = blocks.kind(key)
        for at, block, start, stop in zip(
            there.tolist(), chosen.tolist(), read.starts.tolist(), read.stops.tolist(), strict=True
        ):
            damage = int(index["block_damage"][block])
            if damage and not self.view.keep_damaged and not _is_ebeam_said(contains, damage):
                continue
            configuration = blocks.configuration(int(index["config"][rows[at]]))
            found[at].append(Payload(read.data[start:stop], contains, (log, phy), configuration))


USER_DAMAGE, EBEAM = 1 << 14, 15


def _is_ebeam_said(contains: int, damage: int) -> bool:
    """Tell whether an EBeam payload has only bits of the accelerator's own: those are delivered."""
    return contains & 0xFFFF == EBEAM and damage & 0xFFFFFF == USER_DAMAGE


def _is_large(index: Any, key: int) -> bool:
    sizes = index["payload"][index["key"] == key]
    return bool(len(sizes)) and int(sizes[0]) >= LARGE


def has_frames(view: View, entry: Entry) -> bool:
    """Tell whether a detector's ``raw`` is made of pixels in rows and columns."""
    channel = entry.channels.get("raw")
    if channel is None or not view.exists(channel):
        return False
    reader = view.target(channel).reader()
    return isinstance(reader, FrameReader) and len(reader.panel_shape) == 2


def event_field(view: View, wanted: Wanted) -> EventField | None:
    """Return how a field is read; None if no event has it."""
    entry = view.entries[wanted.detector]
    if wanted.field == "image" and "image" not in entry.channels:
        return _image_field(view, entry, wanted)
    if wanted.field not in ("calib", "image") and not view.exists(entry.channels[wanted.field]):
        return None
    found = event_fields(view, (wanted.detector, wanted.field), wanted.calibration)
    return found[0] if found else None


def _image_field(view: View, entry: Entry, wanted: Wanted) -> EventField:
    """Return how images are read; bins without a pixel are 0, as in psana."""
    quantity = pixel_quantity(view, entry, "image", **wanted.calibration)
    if isinstance(quantity.lazy, ImageArray):
        imaging = Imaging(view, entry)
        lazy, _ = imaging.assembled(quantity.made_of, fill=0, **wanted.assembly)
        quantity = replace(quantity, lazy=lazy)
    return EventField(entry.name, "image", quantity.target, quantity)


def _mark(choices: Mapping[str, Any] | None) -> Any:
    """Return something hashable that differs where choices differ."""
    if not choices:
        return None
    return tuple((k, v.tobytes() if isinstance(v, np.ndarray) else repr(v)) for k, v in choices.items())

"""Event loops: one event after the other, read in blocks, some of them ahead.

An event gives plain numpy arrays, and None for what it does not have.  Blocks are read into
memory that is used again as soon as nobody holds an array of it.
Contract: tests/reductions/test_loops.py.
"""

from __future__ import annotations

import itertools
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psana_dask.catalog import Entry
from psana_dask.dataset import Names, View, field_of
from psana_dask.errors import suggestion
from psana_dask.fields import any_panel
from psana_dask.pipeline import FrameArray, catalog_of
from psana_dask.reductions.eventfields import EventField, event_fields

Ints = NDArray[np.int64]

LARGE = 64 * 1024
"""Fields of at least so many bytes per event are read event by event unless they were named."""

BLOCK_BYTES = 4 * 2**20
MOST_EVENTS = 1024


class Event:
    """One event of a loop.

    ``event["cspad.raw"]``, ``event["cspad", "raw"]`` and ``event.cspad.raw`` are numpy arrays (or
    text, or numbers), and None where the event does not have the detector.  Panels that are
    missing are NaN, or 0 in integers: `present` tells.

    Attributes
    ----------
    position : int
        Within the run or selection.
    """

    __slots__ = ("_at", "_block", "position")

    def __init__(self, block: Block, at: int, position: int) -> None:
        self._block, self._at, self.position = block, at, position

    @property
    def time(self) -> np.datetime64:
        """Time of the event."""
        found: np.datetime64 = self._block.time[self._at]
        return found

    @property
    def timestamp(self) -> int:
        """The file's word."""
        return int(self._block.table.timestamp[self._number])

    @property
    def step(self) -> int:
        """Scan step."""
        return int(self._block.table.step[self._number])

    @property
    def _number(self) -> int:
        return int(self._block.events[self._at])

    def __getitem__(self, name: str | tuple[str, str]) -> Any:
        return self._block.value(name, self._at)

    def get(self, name: str | tuple[str, str], default: Any = None) -> Any:
        """Return a value, or `default` where the event does not have it."""
        found = self[name]
        return default if found is None else found

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str | tuple) and self[name] is not None

    def present(self, name: str) -> NDArray[np.bool_]:
        """Return which panels of a detector or field the event has, (panel,)."""
        return self._block.panels(name, self._at)

    def __getattr__(self, name: str) -> _Detector:
        if name.startswith("_"):
            raise AttributeError(name)
        return _Detector(self, self._block.entry(name))

    def __repr__(self) -> str:
        return f"<Event {self.position}: {self.time}>"


class _Detector:
    """A detector in one event: its fields are attributes."""

    __slots__ = ("_entry", "_event")

    def __init__(self, event: Event, entry: Entry) -> None:
        self._event, self._entry = event, entry

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self._event[self._entry.name, name]

    def __dir__(self) -> list[str]:
        return list(self._entry.channels)


class Shelf:
    """Arrays to read into, used again when nobody holds them any more."""

    def __init__(self) -> None:
        self._arrays: list[NDArray[Any]] = []

    def array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return an array that nobody else has."""
        for kept in self._arrays:
            # three know an idle array: the list, this loop, and the call that counts
            if kept.shape == shape and kept.dtype == dtype and sys.getrefcount(kept) <= 3:
                return kept
        made = np.empty(shape, dtype)
        self._arrays = [*self._arrays[-8:], made]
        return made


class Source:
    """The fields of a loop, found by any spelling, and how to read them."""

    def __init__(self, view: View, names: Names, calibration: Mapping[str, Any] | None) -> None:
        self.view = view
        self.calibration = calibration
        self.ahead = [] if names is None else event_fields(view, names, calibration)
        self._known: dict[Any, EventField] = {f"{f.detector}.{f.field}": f for f in self.ahead}
        self._known |= {(f.detector, f.field): f for f in self.ahead}
        self._shelf = Shelf()

    def field(self, name: str | tuple[str, str]) -> EventField:
        """Return a field by its name.

        Raises
        ------
        NameNotFound
            No such field; lists the nearest ones.
        """
        if name not in self._known:
            pair = self._pair(name)
            if pair not in self._known:
                self._known[pair] = event_fields(self.view, pair, self.calibration)[0]
            self._known[name] = self._known[pair]
        return self._known[name]

    def _pair(self, name: str | tuple[str, str]) -> tuple[str, str]:
        detector, _, field = name.partition(".") if isinstance(name, str) else (name[0], "", name[1])
        entry = self.view.find(detector)
        field = field or ("raw" if "raw" in entry.channels else next(iter(entry.channels)))
        return entry.name, field if field in ("calib", "image") else field_of(entry, field)

    def read(self, each: EventField, events: Ints) -> Any:
        """Return the values of some events."""
        lazy = None if each.quantity is None else each.quantity.lazy
        if not isinstance(lazy, FrameArray) or each.nbytes < LARGE:
            return each.read(events)
        reader = lazy.frame_reader()
        out = self._shelf.array((len(events), *lazy.shape[1:]), lazy.dtype)
        whole = out.reshape(len(events), len(reader.panels), *(reader.panel_shape or (1,)))
        reader.read_into(events, np.arange(len(reader.panels)), slice(None), whole)
        return out


class Block:
    """Some consecutive events; fields are read when first wanted.

    Parameters
    ----------
    source : Source
    events : (event,) int64
        Event numbers.
    """

    def __init__(self, source: Source, events: Ints) -> None:
        self.source, self.events = source, events
        self.table = source.view.recording.events
        self.time = self.table.time[events].view("M8[ns]")
        self._values: dict[Any, Any] = {}
        self._present: dict[Any, tuple[NDArray[np.bool_], list[bool]]] = {}

    def fill(self) -> Block:
        """Read what was named."""
        for each in self.source.ahead:
            self._read(each)
        return self

    def value(self, name: str | tuple[str, str], at: int) -> Any:
        """Return the value of one event, or None."""
        try:
            values, there = self._values[name]
        except KeyError:
            each = self.source.field(name)
            if each.nbytes >= LARGE and each not in self.source.ahead:
                return self._alone(each, at)
            values, there = self._values[name] = self._read(each)
        return values[at] if there[at] else None

    def _alone(self, each: EventField, at: int) -> Any:
        """Read a large field that was not announced, for this event only."""
        event = self.events[at : at + 1]
        return self.source.read(each, event)[0] if any_panel(each.present(event))[0] else None

    def _read(self, each: EventField) -> tuple[Any, list[bool]]:
        key = (each.detector, each.field)
        if key not in self._values:
            there = any_panel(self._panels(each)).tolist()
            self._values[key] = self.source.read(each, self.events), there
        found: tuple[Any, list[bool]] = self._values[key]
        return found

    def panels(self, name: str, at: int) -> NDArray[np.bool_]:
        """Return which panels one event has."""
        return self._panels(self.source.field(name))[at]

    def _panels(self, each: EventField) -> NDArray[np.bool_]:
        key = (each.detector, each.field)
        if key not in self._present:
            self._present[key] = (each.present(self.events), [])
        return self._present[key][0]

    def entry(self, name: str) -> Entry:
        """Return a detector.

        Raises
        ------
        AttributeError
            There is none of this name.
        """
        entry = catalog_of(self.source.view.recording).find(name)
        if entry is None or entry.name not in self.source.view.entries:
            near = suggestion(name, self.source.view.entries)
            raise AttributeError(f"no detector {name!r} in this event{near}")
        return entry


def events_of(
    view: View, names: Names = None, prefetch: int = 8, calibration: Mapping[str, Any] | None = None,
    first: int = 0,
) -> Iterator[Event]:  # fmt: skip
    """Yield the events of a view; see `Run.loop`."""
    if prefetch < 0:
        raise ValueError(f"prefetch={prefetch}: events to read ahead, 0 or more")
    source = Source(view, names, calibration)
    size = _block_events(source, prefetch)
    numbers = view.choice.numbers
    pieces = [numbers[at : at + size] for at in range(0, len(numbers), size)]
    position = first
    for block in _read_ahead(source, pieces, -(-prefetch // size)):
        for at in range(len(block.events)):
            yield Event(block, at, position)
            position += 1


def _block_events(source: Source, prefetch: int) -> int:
    """Return how many events are read at once: many small ones, few large ones."""
    each = sum(f.nbytes for f in source.ahead)
    if each >= LARGE:
        return max(1, prefetch // 2)
    return int(np.clip(BLOCK_BYTES // max(1, each), max(1, prefetch), max(MOST_EVENTS, prefetch)))


def _read_ahead(source: Source, pieces: list[Ints], blocks: int) -> Iterator[Block]:
    """Yield blocks, the next ones already being read by a thread."""
    if not blocks or not source.ahead:
        for piece in pieces:
            yield Block(source, piece).fill()
        return
    waiting: deque[Future[Block]] = deque()
    rest = iter(pieces)
    with ThreadPoolExecutor(1, thread_name_prefix="psana_dask-loop") as pool:
        try:
            while True:
                for piece in itertools.islice(rest, blocks + 1 - len(waiting)):
                    waiting.append(pool.submit(Block(source, piece).fill))
                if not waiting:
                    return
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

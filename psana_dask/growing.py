"""Runs that are still being written: their indexes are extended, and their events come when complete.

`GrowingRun.poll` looks at the files; `GrowingRun.recording` is all that was complete then.  An event is
complete when every stream that may still deliver a part of it has gone beyond its time (the
watermark), so nothing is given out twice or in pieces.  Contract: tests/test_follow.py.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from psana_dask.align import build_events, event_rows
from psana_dask.align_xtc import build_events as build_xtc_events
from psana_dask.errors import ReadError, TruncatedError, UnknownFormat
from psana_dask.files import RunFiles, StreamFiles
from psana_dask.index import FORMATS as SCANS
from psana_dask.index import StreamScan, format_of, run_and_step
from psana_dask.model import EventTable, Problem, Service, StreamIndex
from psana_dask.recording import Recording, adopt, choose_runs
from psana_dask.sources import GROWING, LENGTHS, FileSource

Ints = npt.NDArray[np.int64]

FIRST_TIME, LAST_TIME = np.iinfo(np.int64).min, np.iinfo(np.int64).max

TAIL_WAIT = 2.0
"""Seconds that a part gets to be finished after the next one appeared."""

SETTLED = 3.0
"""Seconds after which a stream whose last part was closed, and no other one came, has ended."""

HELD_BACK = {"xtc2": 0, "xtc": 20}
"""Datagrams at the end of a stream that may still be overtaken: psana sorts LCLS-1 within such a window."""


CONTEXT = 128
"""Datagrams of LCLS-1 that are joined again with those that are new: several windows of its merger."""


class GrowingStream:
    """One stream whose files grow: what is new is scanned, and added to the index.

    Parameters
    ----------
    files : StreamFiles

    Attributes
    ----------
    index : StreamIndex or None
        None before the first datagram.
    moved : float
        When it last had something new (`time.monotonic`).
    """

    def __init__(self, files: StreamFiles) -> None:
        self.stream = files.stream
        self.index: StreamIndex | None = None
        self.moved = time.monotonic()
        self._parts = list(files.parts)
        self._next: list[int] = []
        self._inodes: list[int] = []
        self._scan: StreamScan | None = None
        self._successor_seen = 0.0
        self._closed_since: float | None = None
        self._was_growing = False

    def extend(self, parts: Sequence[str]) -> bool:
        """Scan what is new; tell whether there was anything.

        Parameters
        ----------
        parts : sequence of str
            Today's paths of the parts; a part may have lost its ``.inprogress``, new ones may follow.

        Raises
        ------
        ReadError
            A file was replaced by another one, or is shorter than it was.
        """
        self._parts[: len(parts)] = parts
        number, new = max(len(self._next) - 1, 0), False
        while number < len(self._parts):
            size = self._look(number)
            new |= self._scan_part(number, size)
            if not self._may_leave(number, size):
                break
            number += 1
            if number == len(self._parts) and self._scan is not None:
                self._parts += self._scan.next_parts(self._parts)
        if new:
            self._index()
            self.moved = time.monotonic()
        self._watch_names()
        return new

    def _watch_names(self) -> None:
        """Note since when the last part has been closed by its writer (renamed) and is read to its end."""
        growing = self._parts[-1].endswith(GROWING)
        self._was_growing |= growing
        if growing or not self._was_growing or self.unread:
            self._closed_since = None
        elif self._closed_since is None:
            self._closed_since = time.monotonic()

    def _look(self, number: int) -> int:
        """Return the size of a part; refuse another file in its place."""
        path = self._parts[number]
        if not os.path.exists(path) and path.endswith(GROWING):
            path = self._parts[number] = path.removesuffix(GROWING)
        try:
            status = os.stat(path)
        except OSError as error:
            raise ReadError(f"cannot open {path}: {error.strerror}") from error
        if number == len(self._next):
            self._next.append(0)
            self._inodes.append(status.st_ino)
        size = LENGTHS.get(path, status.st_size)
        if status.st_ino != self._inodes[number] or size < self._next[number]:
            raise ReadError(f"{path} was replaced or cut while it was followed: open the run again")
        return size

    def _scan_part(self, number: int, size: int) -> bool:
        start, source = self._next[number], FileSource(self._parts[number])
        if size <= start or (self._scan is None and not self._begin(source)):
            return False
        assert self._scan is not None  # noqa: S101  (`_begin` made it)
        if start == 0 and not self._recognised(source):
            return False
        self._next[number] = self._scan.scan(source, number, start)
        return self._next[number] > start

    def _begin(self, source: FileSource) -> bool:
        """Find out the format of the stream, once its first datagram is there."""
        try:
            form = format_of(source)
        except (UnknownFormat, TruncatedError):
            return False
        files = StreamFiles(self.stream, tuple(self._parts))
        self._scan = SCANS[form].StreamScan(files, None, live=True, progress=None)
        self.form = form
        return True

    def _recognised(self, source: FileSource) -> bool:
        return bool(SCANS[self.form].recognise(source))

    def _may_leave(self, number: int, size: int) -> bool:
        """Tell whether to go on to the next part: when this one is read to its end."""
        if number + 1 == len(self._parts) or self._next[number] >= size:
            self._successor_seen = 0.0
            return True
        self._successor_seen = self._successor_seen or time.monotonic()
        return time.monotonic() - self._successor_seen > TAIL_WAIT

    def _index(self) -> None:
        assert self._scan is not None  # noqa: S101  (something was scanned)
        try:
            index = self._scan.index(tuple(self._parts))
        except TruncatedError:
            return
        run, step = run_and_step(index["service"])
        self.index = replace(index, columns={**index.columns, "run": run, "step": step})

    @property
    def closed(self) -> bool:
        """Whether the run has ended in this stream: EndRun was read."""
        if self.index is None:
            return False
        service = self.index["service"]
        ends, begins = (np.flatnonzero(service == s) for s in (Service.END_RUN, Service.BEGIN_RUN))
        return len(ends) > 0 and ends[-1] > (begins[-1] if len(begins) else -1)

    @property
    def renamed(self) -> bool:
        """Whether the writer closed the last part some time ago, and no other one came."""
        return self._closed_since is not None and time.monotonic() - self._closed_since > SETTLED

    @property
    def unread(self) -> int:
        """Bytes of the last part that are no whole datagram yet."""
        done = self._next[-1] if len(self._next) == len(self._parts) else 0
        return FileSource(self._parts[-1]).size() - done

    @property
    def watermark(self) -> int:
        """Time (ns) before which nothing more is to come."""
        if self.index is None:
            return FIRST_TIME
        if self.closed:
            return LAST_TIME
        times = self.index["time"]
        held = HELD_BACK[self.form]
        seen = times[: len(times) - held] if held else times
        return int(seen.max()) if len(seen) else FIRST_TIME


class GrowingEvents:
    """A table of events that grows at its end."""

    def __init__(self) -> None:
        self._length = 0
        self._table = _empty_table(0, 64)

    def __len__(self) -> int:
        return self._length

    def table(self, problems: tuple[Problem, ...] = ()) -> EventTable:
        """Return the events so far."""
        n, t = self._length, self._table
        return EventTable(t.time[:n], t.timestamp[:n], t.step[:n], t.rows[:, :n], problems)

    def extend(self, more: EventTable) -> None:
        """Append events."""
        end = self._length + len(more)
        streams = more.rows.shape[0]
        if end > len(self._table) or streams > self._table.rows.shape[0]:
            larger = _empty_table(streams, max(end, 2 * self._length, 64))
            old = self.table()
            for name in ("time", "timestamp", "step"):
                getattr(larger, name)[: self._length] = getattr(old, name)
            larger.rows[: old.rows.shape[0], : self._length] = old.rows
            self._table = larger
        for name in ("time", "timestamp", "step"):
            getattr(self._table, name)[self._length : end] = getattr(more, name)
        self._table.rows[:, self._length : end] = more.rows
        self._length = end


def _empty_table(streams: int, room: int) -> EventTable:
    rows = np.full((streams, room), -1, np.int32)
    return EventTable(np.zeros(room, np.int64), np.zeros(room, np.uint64), np.zeros(room, np.int32), rows)


@dataclass
class Counts:
    """What came: events that are complete, and parts of events that came too late to be in one."""

    events: int = 0
    late: int = 0


class GrowingRun:
    """A run whose files grow.

    Parameters
    ----------
    find : callable
        Returns the files that the run has now.
    patience : float, optional
        Seconds after which a stream that stands still is not waited for; by default all are.
    kept : optional
        What must live as long as the recordings.
    """

    def __init__(
        self, find: Callable[[], RunFiles], *, patience: float | None = None, kept: Any = None
    ) -> None:
        self._find, self._patience, self._kept = find, patience, kept
        self.files = find()
        self.streams: list[GrowingStream] = []
        self.counts = Counts()
        self._events = GrowingEvents()
        self._seen: list[npt.NDArray[np.bool_]] = []
        self._problems: dict[tuple[str, int], Problem] = {}
        self._name = uuid.uuid4().hex
        self._polls = 0
        self._given = FIRST_TIME

    def poll(self) -> bool:
        """Look at the files; tell whether more events are complete."""
        self.files = self._find()
        new = False
        for files in self.files.streams:
            known = next((s for s in self.streams if s.stream == files.stream), None)
            if known is None:
                known = GrowingStream(files)
                self.streams.append(known)
            new |= known.extend(files.parts)
        return self._take(self._watermark()) if new or self._patience is not None else False

    def finish(self) -> bool:
        """Give up waiting: what is incomplete is complete now; tell whether that gave events."""
        return self._take(LAST_TIME)

    @property
    def ended(self) -> bool:
        """Whether nothing more is to come: every stream has its EndRun, or its writer closed it."""
        return bool(self.streams) and all(s.closed or s.renamed for s in self.streams)

    def waiting_for(self) -> list[str]:
        """Return the files of streams that have not ended."""
        return [s._parts[-1] for s in self.streams if not (s.closed or s.renamed)]

    def _watermark(self) -> int:
        waited = [s for s in self.streams if not s.renamed or s.index is None]
        if self._patience is not None:
            now = time.monotonic()
            alive = [s for s in waited if now - s.moved < self._patience]
            if len(alive) < len(waited):
                self._blame([s for s in waited if s not in alive and not s.closed])
            waited = alive
        return min((s.watermark for s in waited), default=LAST_TIME)

    def _blame(self, idle: Sequence[GrowingStream]) -> None:
        for stream in idle:
            what = f"nothing new for {self._patience:g} s: events are given out without this stream"
            self._note(Problem(stream._parts[-1], -1, -1, what))

    def _note(self, problem: Problem) -> None:
        self._problems.setdefault((problem.file, problem.offset if problem.offset >= 0 else -1), problem)

    def _take(self, watermark: int) -> bool:
        """Add the events before `watermark` that were not given out yet."""
        indexed = [s.index for s in self._ordered() if s.index is not None]
        if not indexed:
            return False
        while len(self._seen) < len(indexed):
            self._seen.append(np.zeros(0, bool))
        self._runs, self._experiment, self._number = choose_runs(self.files, indexed)
        self._seen = [_padded(seen, len(i)) for seen, i in zip(self._seen, indexed, strict=True)]
        found = self._found(indexed, watermark)
        for seen, rows in zip(self._seen, found.rows, strict=True):
            seen[rows[rows >= 0]] = True
        found = self._on_time(found)
        for problem in (*found.problems, *(p for i in indexed for p in i.problems)):
            self._note(problem)
        self._events.extend(found)
        self.counts.events += len(found)
        self._given = watermark
        return len(found) > 0

    def _ordered(self) -> list[GrowingStream]:
        """Return the streams in the order in which they got their first datagram."""
        self.streams.sort(key=lambda s: s.index is None)
        return self.streams

    def _found(self, indexed: Sequence[StreamIndex], watermark: int) -> EventTable:
        """Return the complete events that have rows not seen yet."""
        files = [i.parts[0] for i in indexed]
        if indexed[0].format == "xtc2":
            rows = []
            for index, runs, seen in zip(indexed, self._runs, self._seen, strict=True):
                own = event_rows(index, runs)
                rows.append(own[~seen[own] & (index["time"][own] < watermark)])
            return build_events(indexed, rows, files)
        first = None if watermark == LAST_TIME else [self._context(i) for i in indexed]
        table = build_xtc_events(indexed, self._runs, files, first)
        keep = table.time < watermark
        for seen, own in zip(self._seen, table.rows, strict=True):
            keep &= ~((own >= 0) & seen[own])
        problems = table.problems if watermark == LAST_TIME else ()
        return EventTable(
            table.time[keep], table.timestamp[keep], table.step[keep], table.rows[:, keep], problems
        )

    def _context(self, index: StreamIndex) -> int:
        """Return from which row on datagrams are joined: those that were not, and some before them."""
        later = np.flatnonzero(index["time"] >= self._given)
        return max(0, (int(later[0]) if len(later) else len(index)) - CONTEXT)

    def _on_time(self, found: EventTable) -> EventTable:
        """Leave out parts of events that were given out already."""
        late = np.isin(found.timestamp, self._events.table().timestamp) if self._patience else None
        if late is None or not late.any():
            return found
        self.counts.late += int(late.sum())
        for stamp in found.timestamp[late].tolist():
            what = "a part of an event came after the event was given out: it is left out"
            self._problems[f"event {stamp}", -1] = Problem("", -1, int(stamp), what)
        keep = ~late
        return EventTable(
            found.time[keep], found.timestamp[keep], found.step[keep], found.rows[:, keep], found.problems
        )

    def recording(self) -> Recording | None:
        """Return what was complete at the last poll; None before the first datagram."""
        indexed = [s.index for s in self._ordered() if s.index is not None]
        if not indexed or not hasattr(self, "_runs"):
            return None
        self._polls += 1
        problems = tuple(self._problems.values())
        return adopt(
            Recording(
                files=self.files,
                streams=tuple(indexed),
                runs=tuple(self._runs),
                events=self._events.table(),
                experiment=self._experiment,
                number=self._number,
                problems=problems,
                token=f"live-{self._name}-{self._polls}",
                live=True,
                kept=self._kept,
            )
        )


def _padded(seen: npt.NDArray[np.bool_], length: int) -> npt.NDArray[np.bool_]:
    """Return flags of more rows, those that are new False."""
    if length <= len(seen):
        return seen
    larger = np.zeros(length, bool)
    larger[: len(seen)] = seen
    return larger

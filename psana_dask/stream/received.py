"""Micro-batches of a tap: a thread receives, events wait in a queue, batches are assembled from them."""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from psana_dask.dataset import Kept, View
from psana_dask.errors import StreamWarning
from psana_dask.run import Run
from psana_dask.stream.assembly import Assembly
from psana_dask.stream.batches import BATCH, TIMEOUT, Counters, checked
from psana_dask.stream.datagrams import Dgram
from psana_dask.stream.taps import Delivery, Tap

WAITING_EVENTS = {"complete": 4096, "latest": 256}
"""Events that wait to be processed, at most: where nothing may be lost, those of half a minute."""


BATCH_BYTES = 64 * 2**20
"""A batch has no more, and one event at least: its memory is used again for the next one."""


def _waiting_bytes() -> dict[str, int]:
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not a POSIX system
        memory = 0
    return {"complete": min(2**31, max(memory // 16, 2**28)), "latest": 2**28}


WAITING_BYTES = _waiting_bytes()
"""And bytes of them: 256 MB, under "complete" up to 2 GB, of a 16th of the memory.

At 120 Hz, 2.3 million pixels are 0.5 GB a second, and the kernels and constants of the first batch take
more than a second.
"""


@dataclass(frozen=True)
class Shown:
    """What a stream shows of its events: options of `open_stream`.

    Parameters
    ----------
    calib : optional
    only : list of str, optional
        Detectors.
    keep_damaged : bool
    experiment : str, optional
        What datagrams do not say: those of LCLS-1.
    """

    calib: Any = None
    only: tuple[str, ...] | None = None
    keep_damaged: bool = False
    experiment: str | None = None

    def of(self, view: View) -> View:
        """Return a view of the detectors of choice."""
        if self.only is None:
            return view
        return replace(view, only=tuple(view.find(d).name for d in self.only))


class Received:
    """Micro-batches of what a tap delivers.

    Parameters
    ----------
    tap : Tap
    shown : Shown
    policy : {"complete", "latest"}
    waiting : int, optional
        Events that may wait.
    """

    def __init__(self, tap: Tap, shown: Shown, policy: str, waiting: int | None = None) -> None:
        self.policy = checked(policy)
        self._tap, self._shown = tap, shown
        self._most = WAITING_EVENTS[self.policy] if waiting is None else waiting
        self._most_bytes = WAITING_BYTES[self.policy]
        self._counters = Counters()
        self._latest: Run | None = None
        self._peeked: Run | None = None
        self._assembly = Assembly(tap.form, shown.experiment)
        self._kept: tuple[Any, Kept] = (None, Kept())
        self._queue: deque[Delivery] = deque()
        self._events = self._bytes = 0
        if hasattr(tap, "backlog"):
            tap.backlog = lambda: self._events
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._ended = self._closed = False
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()

    @property
    def form(self) -> str:
        """``"xtc2"`` or ``"xtc"``."""
        return self._tap.form

    def peek(self) -> Run | None:
        """Return the latest batch; waits for the first one, which is given out all the same."""
        if self._latest is None:
            self._peeked = next(self._runs(BATCH, TIMEOUT), None)
        return self._latest

    @property
    def counters(self) -> Counters:
        """What became of the events so far."""
        return replace(self._counters, refused=self._tap.refused.count)

    def close(self) -> None:
        """Stop the receiver."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        self._queue.clear()
        self._tap.close()

    # ---- receiving ----------------------------------------------------------------------------
    def _receive(self) -> None:
        try:
            while not (self._closed or self._ended):
                delivery = self._tap.receive(0.1) if self._may_receive() else None
                if delivery is not None:
                    self._put(delivery)
        except BaseException as error:
            self._error = error
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    @property
    def _full(self) -> bool:
        return self._events >= self._most or self._bytes >= self._most_bytes

    def _may_receive(self) -> bool:
        """Wait until there is room, if nothing may be lost."""
        with self._changed:
            if self.policy == "complete" and self._full:
                self._changed.wait(0.1)
            return self.policy == "latest" or not self._full

    def _put(self, delivery: Delivery) -> None:
        with self._changed:
            self._counters.received += len(delivery.events)
            self._counters.missed += delivery.missed
            self._counters.restarts += delivery.anew
            self._queue.append(delivery)
            self._note(delivery.events, 1)
            if self.policy == "latest":
                self._drop()
            self._ended |= delivery.end
            self._changed.notify_all()

    def _note(self, events: Sequence[Any], sign: int) -> None:
        """Count events that came to the queue, or left it."""
        self._events += sign * len(events)
        self._bytes += sign * _size(events)

    def _drop(self) -> None:
        """Throw the oldest events away that are too many; transitions stay."""
        for place, old in enumerate(self._queue):
            while len(old.events) and (self._events > self._most or self._bytes > self._most_bytes):
                if self._events == 1:
                    return
                surplus = max(1, min(len(old.events), self._events - self._most))
                self._note(old.events[:surplus], -1)
                self._counters.dropped += surplus
                old = self._queue[place] = replace(old, events=old.events[surplus:])  # noqa: PLW2901

    def _take(self, most: int, room: int, timeout: float | None) -> Delivery | None:
        """Return what waits next, of at most so many events and bytes; None at the end."""
        with self._changed:
            stop = None if timeout is None else time.monotonic() + timeout
            while not self._queue and not self._ended and not self._closed:
                left = None if stop is None else stop - time.monotonic()
                if left is not None and left <= 0:
                    what = f"no event for {timeout:g} s: the stream is no longer followed"
                    warnings.warn(what, StreamWarning, stacklevel=6)
                    return None
                self._changed.wait(left if left is None else min(left, 1.0))
            if not self._queue:
                if self._error is not None:
                    error, self._error = self._error, None
                    raise error
                return None
            first = self._queue.popleft()
            count = _fitting(first.events, most, room)
            if len(first.events) > count:
                self._queue.appendleft(Delivery(events=first.events[count:]))
                first = replace(first, events=first.events[:count])
            self._note(first.events, -1)
            self._changed.notify_all()
            return first

    # ---- batches ------------------------------------------------------------------------------
    def runs(self, batch: int, timeout: float | None, gather: float = 0.0) -> Iterator[Run]:
        """Yield micro-batches of at most `batch` events; smaller ones at least `gather` seconds apart."""
        peeked, self._peeked = self._peeked, None
        for first in range(0, 0 if peeked is None else len(peeked), batch):
            assert peeked is not None  # noqa: S101  (else there is nothing to go through)
            yield peeked.isel(slice(first, first + batch))
        del peeked
        yield from self._runs(batch, timeout, gather)

    def _runs(self, batch: int, timeout: float | None, gather: float = 0.0) -> Iterator[Run]:
        while (delivery := self._take(batch, BATCH_BYTES, timeout)) is not None:
            due = time.monotonic() + gather
            waiting = list(delivery.events)
            self._begin(delivery)
            while (more := self._more(batch - len(waiting), BATCH_BYTES - _size(waiting))) is not None:
                waiting += more.events
            run = self._assembled(waiting) if waiting else None
            del waiting, delivery, more  # their memory is used again
            if run is not None:
                yield run
            self._gather(batch, due)

    def _gather(self, batch: int, due: float) -> None:
        """Wait until there is a whole batch, or the next one is due."""
        with self._changed:
            while not (self._ended or self._closed or self._full):
                left = due - time.monotonic()
                if left <= 0 or self._events >= batch or self._bytes >= BATCH_BYTES:
                    return
                self._changed.wait(left)

    def _more(self, most: int, room: int) -> Delivery | None:
        """Return what waits and needs no transition before it; None if there is no room for it."""
        with self._changed:
            first = self._queue[0] if self._queue else None
            if first is None or first.transitions or first.anew or most < 1 or _size(first.events[:1]) > room:
                return None
        return self._take(most, room, None)

    def _begin(self, delivery: Delivery) -> None:
        if delivery.anew:
            self._assembly = Assembly(self._tap.form, self._shown.experiment)
        for transition in delivery.transitions:
            self._assembly.transition(transition)

    def _assembled(self, events: list[Any]) -> Run | None:
        found = self._assembly.events(events)
        if found is None:
            self._counters.unconfigured += len(events)
            return None
        recording, choice = found
        if self._kept[0] != recording.number:
            self._kept = (recording.number, Kept())
        shown = self._shown
        view = View(recording, choice, shown.keep_damaged, calib=shown.calib, kept=self._kept[1])
        self._counters.processed += len(choice)
        self._latest = Run(shown.of(view))
        return self._latest


def _size(events: Sequence[Sequence[Dgram]]) -> int:
    return sum(len(dgram.data) for event in events for dgram in event)


def _fitting(events: Sequence[Sequence[Dgram]], most: int, room: int) -> int:
    """Return how many of the first events are at most so many, and of so many bytes; one at least."""
    for count, event in enumerate(events):
        room -= _size([event])
        if count == most or (count and room < 0):
            return count
    return len(events)

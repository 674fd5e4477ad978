"""Streams that are read by the workers of a Dask client: each reads its tap and accumulates there.

A worker opens its source once, and a thread of it takes batch after batch; the client asks for what has
been made of them, and merges that of all workers.  When a worker dies, another one on the same machine goes
on; what the first had told remains, and of files the other one begins behind it.
Contract: tests/stream/test_workers.py.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import uuid
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, Protocol

from psana_dask.errors import ReadError, StreamWarning
from psana_dask.run import Run
from psana_dask.stream.asked import EachEvent, Reduction
from psana_dask.stream.batches import Batches, Counters, gathering
from psana_dask.stream.opened import Opening, same_host
from psana_dask.stream.received import Received, Shown
from psana_dask.stream.replay import part_of
from psana_dask.stream.several import Several
from psana_dask.stream.taps import Delivery, ListTap, Refusals

Step = Callable[[Run], Run]

ASK_SECONDS = 0.2
"""How long a worker waits for something new before it says that there is nothing."""

LOOK_SECONDS = 1.0
"""How often the client looks whether a worker that does not answer is still there."""

RESTART_SECONDS = 30.0
"""How long a cluster gets to start a worker again when the last one went away."""

MOST_READY = 8
"""Batches that a worker keeps ready, at most."""

NOTHING_YET = -1
"""The last event, before the first."""


# ---- on a worker --------------------------------------------------------------------------------
class Work(Protocol):
    """What a worker makes of batches."""

    def take(self, run: Run, last: int) -> None:
        """Take the next batch, which may be empty, and the number of the last event before any selection."""

    def told(self) -> tuple[Any, int]:
        """Return what was made so far, or since the last time, and the last event that is in it."""


class Reducing:
    """A reduction."""

    def __init__(self, reduction: Reduction) -> None:
        self._running, self._lock, self._any = reduction.begin(), threading.Lock(), False
        self._last = NOTHING_YET

    def take(self, run: Run, last: int) -> None:
        """Push a batch."""
        with self._lock:
            if len(run):
                self._running.push(run._view)
                self._any = True
            self._last = last

    def told(self) -> tuple[Any, int]:
        """Return the result so far; None before the first event."""
        with self._lock:
            return (self._running.snapshot().told() if self._any else None), self._last


class Making:
    """Something made of each batch; None is nothing."""

    def __init__(self, make: Callable[[Run], Any]) -> None:
        self._make, self._ready, self._changed = make, deque[Any](), threading.Condition()
        self._last = NOTHING_YET

    def take(self, run: Run, last: int) -> None:
        """Make it; waits until there is room for it."""
        made = self._make(run) if len(run) else None
        if made is None:
            return
        with self._changed:
            self._changed.wait_for(lambda: len(self._ready) < MOST_READY, timeout=600)
            self._ready.append((made, last))
            self._changed.notify_all()

    def told(self) -> tuple[Any, int]:
        """Return what was made since the last time."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._ready), timeout=ASK_SECONDS)
            made = [each for each, _ in self._ready]
            self._last = self._ready[-1][1] if self._ready else self._last
            self._ready.clear()
            self._changed.notify_all()
            return made, self._last


class Sending:
    """The datagrams of each batch, with the transitions that were not sent before."""

    def __init__(self) -> None:
        self._sent: set[tuple[int, int, int]] = set()

    def __call__(self, run: Run) -> Delivery:
        """Return those of a batch."""
        transitions, events = part_of(run._recording, run._view.choice.numbers.tolist())
        fresh = []
        for dgrams in transitions:
            key = (dgrams[0].stream, hash(bytes(dgrams[0].data)), len(dgrams))
            if key not in self._sent:
                self._sent.add(key)
                fresh.append(dgrams)
        return Delivery(fresh, events)


@dataclass(frozen=True, eq=False)
class Told:
    """What a worker says.

    Parameters
    ----------
    made : object
    last : int
        Number of the last event that is in it.
    counters : Counters
    ended : bool
    said : tuple of str
        Warnings of the stream.
    """

    made: Any
    last: int
    counters: Counters
    ended: bool
    said: tuple[str, ...] = ()


class Session:
    """A source that a worker has opened, and the thread that goes through it."""

    def __init__(self, opening: Opening) -> None:
        self.batches: Batches = opening.batches()
        self._going: tuple[Any, ...] | None = None

    def begin(
        self, work: Work, steps: Sequence[Step], batch: int, timeout: float | None, gather: float
    ) -> None:
        """Go through the batches, from now on."""
        self._work = work
        self._said: list[str] = []
        self._error: BaseException | None = None
        stop = self._stop = threading.Event()
        arguments = (work, steps, self.batches.runs(batch, timeout, gather), stop)
        self._thread = threading.Thread(target=self._go, args=arguments, daemon=True)
        self._thread.start()

    def _go(self, work: Work, steps: Sequence[Step], runs: Iterator[Run], stop: threading.Event) -> None:
        try:
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always", StreamWarning)
                for run in runs:
                    last = int(run._view.choice.numbers[-1])
                    work.take(reduce(lambda r, step: step(r), steps, run), last)
                    if stop.is_set():
                        return
            self._said = [str(w.message) for w in said if issubclass(w.category, StreamWarning)]
        except BaseException as error:
            self._error = error

    def told(self) -> Told:
        """Return what was made so far.

        Raises
        ------
        Exception
            That of the stream, or of a function.
        """
        ended = not self._thread.is_alive()
        made, last = self._work.told()
        if ended and self._error is not None:
            raise self._error
        ended = ended and not (isinstance(self._work, Making) and self._work._ready)
        return Told(made, last, self.batches.counters, ended, tuple(self._said) if ended else ())

    def stop(self) -> None:
        """Take no further batch."""
        self._stop.set()
        if isinstance(self._work, Making):
            self._work.told()  # one that waits for room goes on, and ends


_SESSIONS: dict[str, Session] = {}


def opened(name: str, opening: Opening) -> str:
    """Open a source on this worker; return its format."""
    _SESSIONS[name] = Session(opening)
    return _SESSIONS[name].batches.form


class Forgotten(LookupError):
    """A worker was started again since it opened a source."""


def session(name: str) -> Session:
    """Return an open source of this worker."""
    if name not in _SESSIONS:
        raise Forgotten(name)
    return _SESSIONS[name]


def begun(
    name: str, what: Any, steps: Sequence[Step], batch: int, timeout: float | None, gather: float = 0.0
) -> None:
    """Begin to go through a source."""
    work: Work = Reducing(what) if isinstance(what, Reduction) else Making(what)
    session(name).begin(work, steps, batch, timeout, gather)


def told(name: str) -> Told:
    """Return what was made of a source so far."""
    return session(name).told()


def peeked(name: str) -> Delivery | None:
    """Return the latest batch of a source; waits for the first one."""
    run = session(name).batches.peek()
    return None if run is None else Sending()(run)


def stopped(name: str) -> None:
    """Take no further batch of a source."""
    if name in _SESSIONS:
        _SESSIONS[name].stop()


def closed(name: str) -> None:
    """Let go of a source."""
    gone = _SESSIONS.pop(name, None)
    if gone is not None:
        gone.batches.close()


# ---- on the client ------------------------------------------------------------------------------
class Lost(Exception):
    """A worker went away."""


@dataclass(eq=False)
class Reader:
    """One worker that reads one source.

    Parameters
    ----------
    opening : Opening
    address : str
        Of the worker.
    name : str
        Of its session.
    """

    opening: Opening
    address: str
    name: str
    counters: Counters
    before: Counters
    ended: bool = False
    last: int = NOTHING_YET  # the event up to which it was told what was made


class OnWorkers:
    """Sources that are read by workers.

    Parameters
    ----------
    client : distributed.Client
    openings : sequence of Opening

    Raises
    ------
    ReadError
        No worker on a machine, or a worker cannot open its source.
    """

    def __init__(self, client: Any, openings: Sequence[Opening]) -> None:
        self._client = client
        self.policy = str(openings[0].options.get("policy", "complete"))
        self._readers: list[Reader] = []
        for opening in openings:
            address = self._place(opening)
            reader = Reader(opening, address, uuid.uuid4().hex, Counters(), Counters())
            self._readers.append(reader)
        forms = self._open(self._readers)
        self.form = forms[0]

    def _place(self, opening: Opening) -> str:
        """Return the worker for a source: one on its machine, that with the fewest sources."""
        hosts = self._client.run(socket.gethostname)
        wanted = opening.host
        fitting = [a for a, host in hosts.items() if wanted is None or same_host(wanted, host)]
        if not fitting:
            there = ", ".join(sorted(set(hosts.values()))) or "none"
            raise ReadError(f"{opening.source}: no worker on {wanted}; there are workers on: {there}")
        busy = [r.address for r in self._readers]
        return min(fitting, key=busy.count)

    def _open(self, readers: Sequence[Reader]) -> list[str]:
        return self._on_all(readers, opened, lambda r: (r.opening,))

    def _on_all(self, readers: Sequence[Reader], function: Any, arguments: Callable[[Reader], Any]) -> Any:
        """Call a function on the workers of some readers, all at once."""
        futures = [self._submit(r, function, *arguments(r)) for r in readers]
        return [self._answer(r, f) for r, f in zip(readers, futures, strict=True)]

    def _submit(self, reader: Reader, function: Any, *arguments: Any) -> Any:
        with warnings.catch_warnings():  # constants are sent once
            warnings.filterwarnings("ignore", message="Sending large graph", category=UserWarning)
            return self._client.submit(
                function, reader.name, *arguments, workers=[reader.address], allow_other_workers=False,
                pure=False, retries=0, priority=10,
            )  # fmt: skip

    def _answer(self, reader: Reader, future: Any) -> Any:
        """Return what a worker answers.

        Raises
        ------
        Lost
            It went away.
        """
        from distributed import CancelledError
        from distributed.scheduler import KilledWorker

        look = time.monotonic() + LOOK_SECONDS
        while not future.done():
            time.sleep(0.002)
            if time.monotonic() > look:
                look += LOOK_SECONDS
                if reader.address not in self._client.nthreads():
                    future.cancel()
                    raise Lost(reader.address)
        try:
            return future.result()
        except (CancelledError, KilledWorker, Forgotten) as error:
            raise Lost(reader.address) from error

    def _replace(self, reader: Reader) -> None:
        """Let another worker go on with the source of one that went away; waits for one if there is none."""
        with contextlib.suppress(TimeoutError):  # `_place` says which workers there are
            self._client.wait_for_workers(1, timeout=RESTART_SECONDS)
        reader.before = replace(reader.before + reader.counters, restarts=reader.before.restarts + 1)
        reader.counters, reader.name = Counters(), uuid.uuid4().hex
        reader.address = self._place(reader.opening)
        reader.opening = replace(reader.opening, after=reader.last)
        self._open([reader])

    # ---- asking -------------------------------------------------------------------------------
    @property
    def counters(self) -> Counters:
        """What became of the events of all sources so far, as last told."""
        return sum((r.before + r.counters for r in self._readers), Counters())

    def answers(
        self, what: Any, steps: Sequence[Step], batch: int, timeout: float | None, every: float
    ) -> Iterator[list[Any]]:
        """Yield what the workers have made, again and again, until all sources have ended.

        What a worker made before it went away comes as one more answer.
        """
        gather = gathering(every) if isinstance(what, Reduction) else 0.0
        arguments = (what, tuple(steps), batch, timeout, gather)
        for reader in self._readers:
            reader.ended, reader.last = False, NOTHING_YET
        self._on_all(self._readers, begun, lambda _: arguments)
        last: dict[str, Any] = {}
        try:
            while True:
                due = time.monotonic() + every
                for reader in [r for r in self._readers if not r.ended]:
                    last[reader.name] = self._told(reader, arguments)
                yield [made for made in last.values() if made is not None]
                if all(r.ended for r in self._readers):
                    return
                if not isinstance(what, Reduction):
                    last.clear()
                time.sleep(max(0.0, due - time.monotonic()))
        finally:
            for reader in self._readers:
                self._submit(reader, stopped)

    def _told(self, reader: Reader, arguments: Any) -> Any:
        while True:
            try:
                found = self._answer(reader, self._submit(reader, told))
            except Lost:
                self._replace(reader)
                self._on_all([reader], begun, lambda _: arguments)
                continue
            reader.counters, reader.ended = found.counters, found.ended
            reader.last = max(reader.last, found.last)
            for what in found.said:
                warnings.warn(f"{reader.opening.source}: {what}", StreamWarning, stacklevel=4)
            return found.made

    def reduced(
        self, reduction: Reduction, steps: Sequence[Step], batch: int, timeout: float | None, every: float
    ) -> Iterator[Any]:
        """Yield the result of all workers so far, again and again."""
        reduction.begin()  # which refuses what cannot be
        pause = min(every, 3600.0) if every < float("inf") else 1.0
        result = None
        for made in self.answers(reduction, steps, batch, timeout, pause):
            if made:
                result = reduce(lambda one, two: one.merge(two), made).result()
                if every < float("inf") and result is not None:
                    yield result
        if every == float("inf") and result is not None:
            yield result

    def mapped(
        self, function: EachEvent, steps: Sequence[Step], batch: int, timeout: float | None
    ) -> Iterator[Any]:
        """Yield what a function makes of each batch; those of one source are in order."""
        for made in self.answers(function, steps, batch, timeout, 0.0):
            for several in made:
                yield from several

    # ---- batches in this process --------------------------------------------------------------
    def runs(self, batch: int, timeout: float | None, gather: float = 0.0) -> Iterator[Run]:
        """Yield micro-batches: their datagrams are sent here."""
        several = Several([self._brought(reader, batch, timeout, gather) for reader in self._readers])
        try:
            yield from several.runs(batch, None)
        finally:
            several.close()

    def _brought(self, reader: Reader, batch: int, timeout: float | None, gather: float) -> Received:
        options = reader.opening.options
        self._on_all([reader], begun, lambda _: (Sending(), (), batch, timeout, gather))
        shown = Shown(options.get("calib"))
        return Received(WorkerTap(self, reader), shown, "complete")

    def peek(self) -> Run | None:
        """Return the latest batch; waits for the first one, which is given out all the same."""
        reader = self._readers[0]
        found = self._answer(reader, self._submit(reader, peeked))
        if found is None:
            return None
        received = Received(
            ListTap(self.form, [found]), Shown(reader.opening.options.get("calib")), "complete"
        )
        try:
            return received.peek()
        finally:
            received.close()

    def close(self) -> None:
        """Stop all workers' readers."""
        for reader in self._readers:
            with contextlib.suppress(Exception):
                self._answer(reader, self._submit(reader, closed))


class WorkerTap:
    """The tap of a source that a worker reads."""

    def __init__(self, workers: OnWorkers, reader: Reader) -> None:
        self.form, self.refused = workers.form, Refusals()
        self._workers, self._reader = workers, reader
        self._waiting: deque[Delivery] = deque()
        self._ended = False

    def receive(self, seconds: float) -> Delivery | None:
        """Return what comes within some seconds, or None."""
        del seconds
        if not self._waiting and not self._ended:
            found = self._workers._answer(self._reader, self._workers._submit(self._reader, told))
            self._reader.counters, self._ended = found.counters, found.ended
            self._waiting += found.made
        if self._waiting:
            return self._waiting.popleft()
        return Delivery(end=True) if self._ended else None

    def close(self) -> None:
        """Take no further batch."""
        with contextlib.suppress(Lost):
            self._workers._answer(self._reader, self._workers._submit(self._reader, stopped))

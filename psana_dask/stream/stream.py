"""A stream of events from elsewhere, with the face of a run."""

from __future__ import annotations

import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from psana_dask.dataset import Kept, Names, View, run_dataset
from psana_dask.errors import DroppedWarning, ReadError, StreamWarning
from psana_dask.evr import Evr
from psana_dask.run import Run
from psana_dask.slow import Epics
from psana_dask.stream.assembly import Assembly
from psana_dask.stream.running import Running, cube_of
from psana_dask.stream.taps import Delivery, Tap

if TYPE_CHECKING:
    import xarray as xr

WAITING_EVENTS = 256
"""Events that wait to be processed, at most."""

BATCH, TIMEOUT = 64, 120.0
POLICIES = ("complete", "latest")


@dataclass
class Counters:
    """What became of the events of a stream.

    Parameters
    ----------
    received : int
        Events that arrived.
    processed : int
        Events that were given out.
    dropped : int
        Events that arrived and were thrown away, as the policy is "latest".
    missed : int
        Events that the sender gave out to all and that never arrived.
    unconfigured : int
        Events that came before their configuration: nobody knows what they hold.
    refused : int
        Messages that were no messages of a stream.
    restarts : int
        How often the server was started again.
    """

    received: int = 0
    processed: int = 0
    dropped: int = 0
    missed: int = 0
    unconfigured: int = 0
    refused: int = 0
    restarts: int = 0


def open_stream(
    url: str,
    *,
    calib: Any = None,
    detectors: Iterable[str] | None = None,
    damaged: str = "missing",
    policy: str = "complete",
    waiting: int = WAITING_EVENTS,
    timeout: float = 10.0,
) -> Stream:
    """Open a stream of events.

    Parameters
    ----------
    url : str
        ``shmem://TAG`` (a monitoring server on this machine) or ``tcp://host:port`` (`psana-dask serve
        --zmq`).
    calib, detectors, damaged
        As in `psana_dask.open`.
    policy : {"complete", "latest"}
        When events come faster than they are processed: "complete" lets the sender wait (or, where
        it does not wait, as shared memory, lets it drop them); "latest" drops the oldest, counted.
    waiting : int
        Events that may wait.
    timeout : float
        Seconds that the server gets to appear.

    Returns
    -------
    Stream

    Raises
    ------
    ReadError
        No server.

    Examples
    --------
    >>> with open_stream("tcp://daq-node:5555") as stream:
    ...     for events in stream.follow("epixquad.raw"):
    ...         print(events.sizes["time"], stream.counters.dropped)
    """
    keep = {"missing": False, "keep": True}.get(damaged)
    if keep is None:
        raise ValueError(f'damaged={damaged!r}: use "missing" or "keep"')
    only = None if detectors is None else ([detectors] if isinstance(detectors, str) else list(detectors))
    return Stream(
        _tap(url, timeout), calib=calib, only=only, keep_damaged=keep, policy=policy, waiting=waiting
    )


def _tap(url: str, timeout: float) -> Tap:
    if url.startswith("tcp://"):
        from psana_dask.stream.receiving import ZmqTap

        return ZmqTap(url, timeout)
    if url.startswith("shmem://"):
        from psana_dask.stream.shmem import ShmemTap

        return ShmemTap(url.removeprefix("shmem://"), timeout)
    raise ValueError(f"{url!r} is no stream: use shmem://TAG or tcp://HOST:PORT")


class Stream:
    """Events that come from elsewhere. Made by `open_stream`; close it, or use ``with``.

    Detectors are attributes and items, as on a `Run`: they are those of the latest batch.

    Parameters
    ----------
    tap : Tap
    calib, only, keep_damaged
        As of a `View`.
    policy : {"complete", "latest"}
    waiting : int
    """

    def __init__(
        self,
        tap: Tap,
        *,
        calib: Any = None,
        only: list[str] | None = None,
        keep_damaged: bool = False,
        policy: str = "complete",
        waiting: int = WAITING_EVENTS,
        _chosen: tuple[Any, ...] = (),
        _shared: _Shared | None = None,
    ) -> None:
        if policy not in POLICIES:
            raise ValueError(f'policy={policy!r}: use "complete" or "latest"')
        self.policy = policy
        self._chosen = _chosen
        self._shared = _shared or _Shared(tap, policy, waiting, calib, only, keep_damaged)

    # ---- life ---------------------------------------------------------------------------------
    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop receiving."""
        self._shared.close()

    @property
    def counters(self) -> Counters:
        """What became of the events so far."""
        self._shared.counters.refused = self._shared.tap.refused.count
        return replace(self._shared.counters)

    # ---- batches ------------------------------------------------------------------------------
    def follow_runs(self, *, batch: int = BATCH, timeout: float | None = TIMEOUT) -> Iterator[Run]:
        """Yield the events in micro-batches, each as a Run: with detectors, EPICS, steps, problems.

        Parameters
        ----------
        batch : int
            Events in a batch, at most: what is there is given out at once.
        timeout : float, optional
            Seconds without an event after which the stream is given up, with a `StreamWarning`.
        """
        if batch < 1:
            raise ValueError(f"batch={batch}: use 1 or more")
        for run in self._shared.runs(batch, timeout):
            for wanted in self._chosen:
                run = run.select(wanted)  # noqa: PLW2901
            if len(run):
                yield run

    def follow(
        self,
        names: Names = None,
        *,
        batch: int = BATCH,
        timeout: float | None = TIMEOUT,
        join: str | None = None,
        chunks: Any = None,
    ) -> Iterator[xr.Dataset]:
        """Yield the events as Datasets, as `Run.follow` does."""
        for run in self.follow_runs(batch=batch, timeout=timeout):
            events = _dataset(run, names, join, chunks)
            if events.sizes["time"]:
                yield events

    def dataset(self, names: Names = None, *, join: str | None = None, chunks: Any = None) -> xr.Dataset:
        """Return the latest batch as a Dataset, as `Run.dataset` makes it; waits for the first one."""
        return _dataset(self.latest, names, join, chunks)

    @property
    def latest(self) -> Run:
        """The latest batch; waits for the first one if nothing was taken from the stream yet."""
        if self._shared.latest is None:
            next(iter(self.follow_runs()), None)
        if self._shared.latest is None:
            raise ReadError("the stream ended before its first event")
        return self._shared.latest

    # ---- what is in it ------------------------------------------------------------------------
    @property
    def detectors(self) -> Mapping[str, Any]:
        """Detectors by name."""
        return self.latest.detectors

    @property
    def epics(self) -> Epics:
        """EPICS variables."""
        return self.latest.epics

    @property
    def evr(self) -> Evr:
        """Event codes; ``stream.evr.has(90, -162)`` is a condition for `select`."""
        return self.latest.evr

    @property
    def events(self) -> xr.Dataset:
        """The event table of the latest batch."""
        return self.latest.events

    @property
    def format(self) -> str:
        """File format of the datagrams: ``"xtc2"`` or ``"xtc"``."""
        return self._shared.tap.form

    def __getitem__(self, name: str | tuple[str, str]) -> Any:
        return self.latest[name]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.latest, name)

    # ---- work ---------------------------------------------------------------------------------
    def select(self, wanted: Any) -> Stream:
        """Return the stream with fewer events: those of each batch that fulfil a condition.

        Parameters
        ----------
        wanted : condition or callable
            Such as ``stream.evr.has(90, -162)``, or a function of the batch (a `Run`) that gives a mask.
        """
        chosen = _Called(wanted) if callable(wanted) and not hasattr(wanted, "mask") else wanted
        return Stream(
            self._shared.tap, policy=self.policy, _chosen=(*self._chosen, chosen), _shared=self._shared
        )

    def map(
        self,
        function: Callable[[xr.Dataset], Any],
        names: Names = None,
        *,
        calibration: Mapping[str, Any] | None = None,
        **choices: Any,
    ) -> Iterator[Any]:
        """Yield what a function makes of each batch, computed; see `Run.map`. Choices: `follow_runs`."""
        for run in self.follow_runs(**choices):
            yield run.map(function, names, calibration=calibration).compute()

    def reduce(
        self,
        what: Any,
        names: Names = None,
        *,
        calibration: Mapping[str, Any] | None = None,
        window: int | None = None,
        every: float = 1.0,
        **choices: Any,
    ) -> Iterator[Any]:
        """Yield the result so far, again and again; the last one is of all events.

        Parameters
        ----------
        what, names, calibration
            As in `Run.reduce`: statistics, histograms, projections.
        window : int, optional
            Only the last batches that have this many events; all events by default.
        every : float
            Seconds between results.
        **choices
            As for `follow_runs`.

        Yields
        ------
        DataArray or Dataset
            As `Run.reduce` returns; over all events of a run it has the bits of the closed run's.
        """
        running = Running(*cube_of(what, names), calibration, window)
        due = time.monotonic()
        fresh = False
        for run in self.follow_runs(**choices):
            running.push(run._view)
            fresh = True
            if time.monotonic() >= due:
                yield running.result()
                due, fresh = time.monotonic() + every, False
        if fresh:
            yield running.result()

    def _whole(self, which: str, names: Names, choices: Mapping[str, Any]) -> Any:
        """Return a statistic of all events until the stream ends."""
        last = None
        for last in self.reduce(which, names, **{"every": float("inf"), **choices}):  # noqa: B007
            pass
        if last is None:
            raise ReadError("the stream ended before its first event")
        return last

    def mean(self, names: Names = None, **choices: Any) -> Any:
        """Return the mean over all events, when the stream has ended."""
        return self._whole("mean", names, choices)

    def std(self, names: Names = None, **choices: Any) -> Any:
        """Return the standard deviation over all events, when the stream has ended."""
        return self._whole("std", names, choices)

    def sum(self, names: Names = None, **choices: Any) -> Any:
        """Return the sum over all events, when the stream has ended."""
        return self._whole("sum", names, choices)

    def __repr__(self) -> str:
        c = self.counters
        counts = ", ".join(f"{value:,} {name}" for name, value in vars(c).items() if value or name in _SHOWN)
        return f"<stream of {self.format}, policy {self.policy}: {counts or 'nothing yet'}>"


_SHOWN = ("received", "processed", "dropped")


@dataclass(frozen=True)
class _Called:
    """A selection by a function of the batch, as a condition."""

    function: Callable[[Run], Any]

    def mask(self, view: View) -> Any:
        """Return which events the function chooses."""
        return self.function(Run(view))


def _dataset(run: Run, names: Names, join: str | None, chunks: Any) -> xr.Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DroppedWarning)
        return run_dataset(run._view, names, join, chunks, absent_too=True)


# ---- receiving ----------------------------------------------------------------------------------
class _Shared:
    """What a stream and its selections share: the receiver, what waits, and what was assembled."""

    def __init__(
        self, tap: Tap, policy: str, waiting: int, calib: Any, only: list[str] | None, keep_damaged: bool
    ) -> None:
        self.tap, self._policy, self._most = tap, policy, waiting
        self.counters = Counters()
        self.latest: Run | None = None
        self._assembly = Assembly(tap.form)
        self._calib, self._only, self._keep_damaged = calib, only, keep_damaged
        self._kept: tuple[Any, Kept] = (None, Kept())
        self._queue: deque[Delivery] = deque()
        self._events = 0
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._ended = self._closed = False
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the receiver."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        self.tap.close()

    def _receive(self) -> None:
        try:
            while not (self._closed or self._ended):
                delivery = self.tap.receive(0.1) if self._may_receive() else None
                if delivery is not None:
                    self._put(delivery)
        except BaseException as error:
            self._error = error
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _may_receive(self) -> bool:
        """Wait until there is room, if nothing may be lost."""
        with self._changed:
            if self._policy == "complete" and self._events >= self._most:
                self._changed.wait(0.1)
            return self._policy == "latest" or self._events < self._most

    def _put(self, delivery: Delivery) -> None:
        with self._changed:
            self.counters.received += len(delivery.events)
            self.counters.missed += delivery.missed
            self.counters.restarts += delivery.anew
            self._queue.append(delivery)
            self._events += len(delivery.events)
            for place, old in enumerate(self._queue):
                if self._policy == "complete" or self._events <= self._most:
                    break
                drop = min(len(old.events), self._events - self._most)
                self._queue[place] = replace(old, events=old.events[drop:])
                self._events -= drop
                self.counters.dropped += drop
            self._ended |= delivery.end
            self._changed.notify_all()

    def _take(self, most: int, timeout: float | None) -> Delivery | None:
        """Return what waits next, of at most so many events; None at the end."""
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
            if len(first.events) > most:
                self._queue.appendleft(Delivery(events=first.events[most:]))
                first = replace(first, events=first.events[:most])
            self._events -= len(first.events)
            self._changed.notify_all()
            return first

    def runs(self, batch: int, timeout: float | None) -> Iterator[Run]:
        """Yield micro-batches."""
        while (delivery := self._take(batch, timeout)) is not None:
            waiting = list(delivery.events)
            self._begin(delivery)
            while len(waiting) < batch and (more := self._more(batch - len(waiting))) is not None:
                waiting += more.events
            if waiting:
                run = self._assembled(waiting)
                if run is not None:
                    yield run

    def _more(self, most: int) -> Delivery | None:
        """Return what waits and needs no transition before it."""
        with self._changed:
            ready = self._queue and not (self._queue[0].transitions or self._queue[0].anew)
        return self._take(most, None) if ready else None

    def _begin(self, delivery: Delivery) -> None:
        if delivery.anew:
            self._assembly = Assembly(self.tap.form)
        for transition in delivery.transitions:
            self._assembly.transition(transition)

    def _assembled(self, events: list[Any]) -> Run | None:
        found = self._assembly.events(events)
        if found is None:
            self.counters.unconfigured += len(events)
            return None
        recording, choice = found
        if self._kept[0] != recording.number:
            self._kept = (recording.number, Kept())
        view = View(recording, choice, self._keep_damaged, calib=self._calib, kept=self._kept[1])
        if self._only is not None:
            view = replace(view, only=tuple(view.find(d).name for d in self._only))
        self.counters.processed += len(choice)
        self.latest = Run(view)
        return self.latest

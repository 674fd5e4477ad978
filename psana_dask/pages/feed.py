"""The reader of live plots: a thread that takes events, accumulates them, and has the newest at hand.

Pages ask for a `Snapshot` when they are ready for one; frames are calibrated and means are worked
out then, in the thread of who asks, once for all pages.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from psana_dask.dataset import View
from psana_dask.errors import ReadError
from psana_dask.pages.following import Following
from psana_dask.pages.shown import RAW_IF_NEED_BE, Shown, shown_of
from psana_dask.reductions.calls import Choices, labelled_dataset
from psana_dask.stream.batches import BATCH, Counters
from psana_dask.stream.running import Running

if TYPE_CHECKING:
    import xarray as xr

KEPT_EVENTS = 2000
"""Events whose numbers are kept for histograms and scatter plots."""

GATHER_SECONDS = 0.05
"""Events are gathered so long for the means: sums of many pixels cost more per batch than per event."""

RATE_SECONDS = 2.0
"""Time over which rates are taken."""

Times = npt.NDArray[np.datetime64]


@dataclass(frozen=True, eq=False)
class Numbers:
    """The numbers of some events.

    Parameters
    ----------
    time : (event,) datetime64[ns]
    columns : mapping of name to (event,) float64
    """

    time: Times
    columns: Mapping[str, npt.NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class Newest:
    """The last event that has a frame or lines.

    Parameters
    ----------
    shown : Shown
    event : int
        Its number in the recording of `shown`.
    time : datetime64
    """

    shown: Shown
    event: int
    time: np.datetime64


@dataclass(frozen=True)
class Pace:
    """How fast events come.

    Parameters
    ----------
    received, processed, dropped : float
        Events a second.
    """

    received: float = 0.0
    processed: float = 0.0
    dropped: float = 0.0


@dataclass(frozen=True, eq=False)
class Snapshot:
    """What is known at a moment.

    Parameters
    ----------
    number : int
        Of the batch, from 1.
    arrived : float
        When it was taken, as `time.monotonic`.
    view : View
        The batch.
    since : datetime64
        Time of the first event of the means.
    """

    number: int
    arrived: float
    view: View
    since: np.datetime64
    _feed: Feed
    _numbers: tuple[Numbers, ...]
    _newest: Mapping[str, Newest]
    _made: dict[Any, Any] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def frames(self) -> tuple[str, ...]:
        """Names of the frames."""
        return tuple(k for k, n in self._newest.items() if n.shown.kind == "frame")

    @property
    def lines(self) -> tuple[str, ...]:
        """Names of the lines."""
        return tuple(k for k, n in self._newest.items() if n.shown.kind == "lines")

    def time_of(self, name: str) -> np.datetime64:
        """Return the time of the event that a frame or lines are of."""
        return self._newest[name].time

    def latest(self, name: str) -> xr.DataArray:
        """Return a frame, or lines, of the last event that has them."""
        newest = self._newest[name]
        return self._once(("latest", name), lambda: newest.shown.frame(newest.event))

    def mean(self, name: str) -> xr.DataArray:
        """Return the mean of frames or lines, over the events since `since`.

        Raises
        ------
        ReadError
            Means are not made.
        """
        means = self._once("means", self._feed._means)
        found: xr.DataArray = means[f"{name}_mean"]
        return found

    @property
    def numbers(self) -> Numbers:
        """The numbers of the last events, (event,)."""
        return self._once("numbers", lambda: _joined(self._numbers))

    @property
    def dataset(self) -> xr.Dataset:
        """All that was accumulated, as `psana_dask.plot.live` says."""
        return self._once("dataset", self._dataset)

    def _dataset(self) -> xr.Dataset:
        import xarray as xr

        arrays = {name: self.latest(name) for name in self._newest}
        if self._feed.means:
            arrays |= {f"{name}_mean": self.mean(name) for name in self._newest}
        numbers = self.numbers
        frames = labelled_dataset(self.view, arrays)
        columns = {name: ("time", values) for name, values in numbers.columns.items()}
        counts = vars(self._feed.counters)
        return frames.assign(xr.Dataset(columns, {"time": numbers.time})).assign_attrs(counts)

    def _once(self, key: Any, make: Any) -> Any:
        with self._lock:
            if key in self._made:
                return self._made[key]
        made = make()
        with self._lock:
            return self._made.setdefault(key, made)


def _joined(pieces: Sequence[Numbers]) -> Numbers:
    time = np.concatenate([p.time for p in pieces]) if pieces else np.zeros(0, "M8[ns]")
    names = dict.fromkeys(name for p in pieces for name in p.columns)
    empty = [np.full(len(p.time), np.nan) for p in pieces]
    columns = {
        name: np.concatenate([p.columns.get(name, e) for p, e in zip(pieces, empty, strict=True)])
        for name in names
    }
    return Numbers(time, columns)


class Feed:
    """Takes events in a thread, from `start` to `close`.

    Parameters
    ----------
    events : Following
    names : iterable of names
        See `shown_of`.
    title : str
        Where the events come from, for people.
    kept : int
        Events whose numbers are kept.
    means : bool
        Make means of frames and lines; every event is read for them.
    window : int, optional
        Means of the last batches that have so many events; of all events by default.
    half_life : float, optional
        Means in which an event counts half after so many more events.
    """

    def __init__(
        self,
        events: Following,
        names: Iterable[Any],
        title: str = "",
        *,
        kept: int = KEPT_EVENTS,
        means: bool = True,
        window: int | None = None,
        half_life: float | None = None,
    ) -> None:
        self.names = list(names)
        self.title = title
        self.error: BaseException | None = None
        self.ended = False
        self.means, self._window, self._kept = means, window, kept
        self._choices = Choices(calibration=RAW_IF_NEED_BE, half_life=half_life)
        self._events = events
        self._changed = threading.Condition()
        self._reducing = threading.Lock()
        self._restart = False
        self._listeners: set[threading.Event] = set()
        self._snapshot: Snapshot | None = None
        self._progress: deque[tuple[float, Counters]] = deque()
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._read, name="psana_dask live plots", daemon=True)
        self._begin(None)

    # ---- for pages ----------------------------------------------------------------------------
    def start(self) -> Feed:
        """Begin to take events."""
        self._thread.start()
        return self

    def close(self) -> None:
        """Take no more events."""
        self._events.close()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def counters(self) -> Counters:
        """What became of the events."""
        return self._events.counters

    @property
    def pace(self) -> Pace:
        """How fast events come, over the last seconds."""
        now, counters = time.monotonic(), self.counters
        with self._changed:
            self._progress.append((now, counters))
            while len(self._progress) > 1 and now - self._progress[1][0] > RATE_SECONDS:
                self._progress.popleft()
            then, before = self._progress[0]
        seconds = max(now - then, 1e-3)
        gone = (
            counters.received - before.received,
            counters.processed - before.processed,
            counters.dropped + counters.missed - before.dropped - before.missed,
        )
        return Pace(*(n / seconds for n in gone)) if now - then > 0.1 else Pace()

    @property
    def snapshot(self) -> Snapshot | None:
        """The newest state; None before the first event."""
        return self._snapshot

    def tell(self, event: threading.Event) -> None:
        """Set an event whenever there is something new."""
        self._listeners.add(event)

    def tell_no_more(self, event: threading.Event) -> None:
        """Undo `tell`."""
        self._listeners.discard(event)

    def newer(self, than: int, seconds: float) -> Snapshot | None:
        """Return the newest state as soon as its number is greater; None if nothing comes in time."""

        def there() -> bool:
            return self._snapshot is not None and self._snapshot.number > than

        with self._changed:
            self._changed.wait_for(lambda: there() or self.ended, seconds)
            return self._snapshot if there() else None

    def restart(self) -> None:
        """Forget what was accumulated, at the next event."""
        self._restart = True

    # ---- the thread ---------------------------------------------------------------------------
    def _read(self) -> None:
        try:
            for run in self._events.runs(BATCH, None, GATHER_SECONDS if self.means else 0.0):
                self._take(run._view)
        except BaseException as error:
            self.error = error
        self.ended = True
        self._notify()

    def _notify(self) -> None:
        for listener in tuple(self._listeners):
            listener.set()
        with self._changed:
            self._changed.notify_all()

    def _begin(self, view: View | None) -> None:
        """Accumulate anew."""
        self._numbers: deque[Numbers] = deque()
        self._newest: dict[str, Newest] = {}
        self._found: dict[int, list[Shown]] = {}
        self._made_for = None if view is None else _identity(view)
        self._since = np.datetime64("NaT") if view is None else view.time[0]
        self._restart = False
        with self._reducing:
            self._running: Running | None = None

    def _take(self, view: View) -> None:
        if self._restart or self._made_for is None or self._made_for[0] != view.recording.number:
            self._begin(view)
        shown = self._shown(view)
        for one in shown:
            if one.kind != "number":
                self._remember(one, view)
        self._add_numbers([one for one in shown if one.kind == "number"], view)
        if self.means:
            self._add_to_means([one for one in shown if one.kind != "number"], view)
        number = 1 if self._snapshot is None else self._snapshot.number + 1
        self._snapshot = Snapshot(
            number, time.monotonic(), view, self._since, self, tuple(self._numbers), dict(self._newest)
        )
        self._notify()

    def _shown(self, view: View) -> list[Shown]:
        """Return what is shown of a batch; names are looked up again when the configuration changes."""
        if self._made_for != _identity(view):
            self._made_for, self._found = _identity(view), {}
        for place, name in enumerate(self.names):
            if not self._found.get(place):
                self._found[place] = shown_of(view, name)
        once = {one.key: one for found in self._found.values() for one in found}
        return [one.in_batch(view) for one in once.values()]

    def _remember(self, shown: Shown, view: View) -> None:
        having = np.flatnonzero(shown.having(view))
        if len(having):
            last = int(having[-1])
            event = int(view.choice.numbers[last])
            self._newest[shown.key] = Newest(shown, event, view.time[last])

    def _add_numbers(self, shown: Sequence[Shown], view: View) -> None:
        self._numbers.append(Numbers(view.time, {one.key: one.values(view) for one in shown}))
        while sum(len(n.time) for n in self._numbers) - len(self._numbers[0].time) >= self._kept:
            self._numbers.popleft()

    def _add_to_means(self, shown: Sequence[Shown], view: View) -> None:
        if not shown:
            return
        with self._reducing:
            if self._running is None:
                names = list({one.key: one.name for one in shown}.values())
                self._running = Running(["mean"], names, Choices(calibration=RAW_IF_NEED_BE), self._window)
            self._running.push(view)

    def _means(self) -> Any:
        """Return the means so far."""
        with self._reducing:
            found = None if self._running is None else self._running.result()
        if found is None:
            raise ReadError("no means are made: live(..., means=True)")
        return found


def _identity(view: View) -> tuple[Any, ...]:
    """Return what tells the runs and configurations of a stream apart."""
    recording = view.recording
    return recording.number, recording.experiment, tuple(len(s.configs) for s in recording.streams)

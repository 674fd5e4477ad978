"""Where the events of live plots come from: a stream, a run that is being written, or a closed run.

Each gives Runs of a few events, one after the other, and counts what became of the events.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from psana_dask.run import Run
from psana_dask.sources import GROWING
from psana_dask.stream.stream import POLICIES, Counters, Stream

BATCH = 64
"""Events that are taken at a time, at most."""

CATCH_UP = 1 << 20
"""Events that a live run may be behind: all of them are seen, to throw the older ones away."""

TICK, LONGEST_GAP = 0.02, 1.0
"""Seconds between looks at the clock, and the longest pause, of a replay."""


class Following(Protocol):
    """Events as they come."""

    title: str

    @property
    def counters(self) -> Counters:
        """What became of the events so far."""

    def batches(self) -> Iterator[Run]:
        """Yield the events in order, as Runs of a few; from one thread."""

    def close(self) -> None:
        """End `batches`; from another thread."""


def following(
    source: Run | Stream, policy: str | None = None, rate: float | None = None, live: bool = False
) -> Following:
    """Return how the events of a source are followed.

    Parameters
    ----------
    source : Run or Stream
        A stream has its own policy.
    policy : {"latest", "complete"}, optional
        By default the newest events of a run that is being written, all of a closed one.
    rate : float, optional
        Events a second of a closed run; by default the pace at which it was taken.
    live : bool
        A run is being written; files called ``.inprogress`` are anyway.
    """
    if policy is not None and policy not in POLICIES:
        raise ValueError(f"policy={policy!r}: use {' or '.join(POLICIES)}")
    if isinstance(source, Stream):
        return StreamEvents(source)
    if live or any(path.endswith(GROWING) for path in source.files):
        return LiveEvents(source, policy or "latest")
    return ReplayedEvents(source, policy or "complete", rate)


class StreamEvents:
    """Events of a stream, which is closed with this."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.title = f"stream of {stream.format}, policy {stream.policy}"

    @property
    def counters(self) -> Counters:
        """What became of the events so far."""
        return self._stream.counters

    def batches(self) -> Iterator[Run]:
        """Yield the events in order."""
        return self._stream.follow_runs(batch=BATCH, timeout=None)

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()


class RunEvents:
    """What live and closed runs share: the newest events of what has come, and counters.

    Parameters
    ----------
    run : Run
    policy : {"latest", "complete"}
        "latest": of what has come since the last look, only the newest events are taken.
    """

    def __init__(self, run: Run, policy: str) -> None:
        self._run, self._policy = run, policy
        self._counters = Counters()
        self._closed = threading.Event()

    @property
    def counters(self) -> Counters:
        """What became of the events so far."""
        return replace(self._counters)

    def close(self) -> None:
        """End `batches`."""
        self._closed.set()

    def batches(self) -> Iterator[Run]:
        """Yield the events in order."""
        for arrived in self._arrived():
            self._counters.received += len(arrived)
            first = max(0, len(arrived) - BATCH) if self._policy == "latest" else 0
            self._counters.dropped += first
            for start in range(first, len(arrived), BATCH):
                if self._closed.is_set():
                    return
                batch = arrived.isel(slice(start, start + BATCH))
                self._counters.processed += len(batch)
                yield batch

    def _arrived(self) -> Iterator[Run]:
        """Yield what has come since the last time."""
        raise NotImplementedError


class LiveEvents(RunEvents):
    """Events of a run that is being written, from its first one on."""

    def __init__(self, run: Run, policy: str) -> None:
        super().__init__(run, policy)
        self.title = f"{named(run)}, being written, policy {policy}"

    def _arrived(self) -> Iterator[Run]:
        return self._run.follow_runs(batch=CATCH_UP, timeout=None, until=self._closed.is_set)


class ReplayedEvents(RunEvents):
    """Events of a closed run, as if they were taken now."""

    def __init__(self, run: Run, policy: str, rate: float | None) -> None:
        super().__init__(run, policy)
        self._rate = rate
        pace = "at the pace it was taken" if rate is None else f"at {rate:g} events a second"
        self.title = f"{named(run)}, replayed {pace}, policy {policy}"

    def _arrived(self) -> Iterator[Run]:
        due, begin, done = self._due(), time.monotonic(), 0
        while done < len(due) and not self._closed.is_set():
            now = int(np.searchsorted(due, time.monotonic() - begin, side="right"))
            if now == done:
                self._closed.wait(TICK)
                continue
            first = done == 0
            yield self._run.isel(slice(done, now))
            done = now
            if first:  # it compiles kernels and looks constants up: not for the clock to count
                begin = time.monotonic() - due[done - 1]

    def _due(self) -> Any:
        """Return when each event is due, in seconds after the first."""
        if self._rate is not None:
            return np.arange(len(self._run)) / self._rate
        gaps = np.diff(self._run._view.time).astype(np.int64) / 1e9
        return np.concatenate([[0.0], np.cumsum(np.minimum(gaps, LONGEST_GAP))])[: len(self._run)]


def named(run: Run | Stream) -> str:
    """Return experiment and number of a run."""
    if isinstance(run, Stream):
        return "stream"
    return f"{run.experiment or 'run'} run {run.number}" if run.number is not None else str(run.experiment)

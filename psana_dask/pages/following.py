"""Where the events of live plots come from: a stream, a run that is being written, or a closed run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt

from psana_dask.run import Run
from psana_dask.sources import GROWING
from psana_dask.stream import Stream
from psana_dask.stream.batches import BATCH, Counters
from psana_dask.stream.followed import ClosedRun, LiveRun

LONGEST_GAP = 1.0
"""Seconds of the longest pause of a replay."""


class Following(Protocol):
    """Events as they come."""

    @property
    def counters(self) -> Counters:
        """What became of the events so far."""

    def runs(self, batch: int, timeout: float | None, gather: float = 0.0) -> Iterator[Run]:
        """Yield the events in order, as Runs of a few; from one thread."""

    def close(self) -> None:
        """End `runs`; from another thread."""


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
    if isinstance(source, Stream):
        return StreamEvents(source)
    if live or any(path.endswith(GROWING) for path in source.files):
        return LiveRun(source, policy or "latest", BATCH)
    if rate is None:
        return AsTaken(source, policy or "complete", BATCH)
    return ClosedRun(source, policy or "complete", BATCH, rate=rate)


class StreamEvents:
    """Events of a stream, which is closed with this."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    @property
    def counters(self) -> Counters:
        """What became of the events so far."""
        return self._stream.counters

    def runs(self, batch: int, timeout: float | None, gather: float = 0.0) -> Iterator[Run]:
        """Yield the events in order."""
        return self._stream.follow_runs(batch=batch, timeout=timeout, gather=gather)

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()


class AsTaken(ClosedRun):
    """Events of a closed run, at the pace at which they were taken."""

    def _due(self) -> npt.NDArray[np.float64]:
        return due_times(self._run._view.time)


def due_times(time: npt.NDArray[np.datetime64]) -> npt.NDArray[np.float64]:
    """Return when each event is due, in seconds after the first."""
    gaps = np.diff(time).astype(np.int64) / 1e9
    return np.concatenate([[0.0], np.cumsum(np.minimum(gaps, LONGEST_GAP))])[: len(time)]


def titled(source: Run | Stream, events: Following) -> str:
    """Say where events come from, and under which policy."""
    if isinstance(source, Stream):
        return f"stream of {source.format}, policy {source.policy}"
    name = f"{source.experiment or 'run'} run {source.number}"
    how = "being written" if isinstance(events, LiveRun) else "replayed"
    return f"{name}, {how}, policy {events.policy}"  # type: ignore[attr-defined]  # of a run

"""Micro-batches of files: of a run that is being written, or of a closed one, at once or at a rate."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from psana_dask.run import Run
from psana_dask.sources import GROWING, POOL
from psana_dask.stream.batches import BATCH, TIMEOUT, Counters, checked
from psana_dask.stream.taps import Share

TICK = 0.02
"""Seconds between looks at the clock."""

SHARED = 8
"""Events that go to one reader before the next ones go to the next reader."""

EVERYTHING = 1 << 20
"""Events that are taken from a live run at a time, to throw away those that are too old."""


class RunBatches:
    """What live and closed runs have in common.

    Parameters
    ----------
    run : Run
    policy : {"complete", "latest"}
        "latest": of what has come since the last batch only the newest events are given out.
    waiting : int
        Events that may have come without being thrown away, under the policy "latest".
    share : Share, optional
        Give out the events of this reader: others give out the others.
    after : int
        Give out the events behind this number.
    """

    def __init__(
        self, run: Run, policy: str, waiting: int, share: Share | None = None, after: int = -1
    ) -> None:
        self.policy = checked(policy)
        self._run, self._waiting, self._share, self._after = run, waiting, share, after
        self._counters = Counters()
        self._latest: Run | None = None
        self._closed = threading.Event()

    @property
    def form(self) -> str:
        """``"xtc2"`` or ``"xtc"``."""
        return self._run.format

    @property
    def counters(self) -> Counters:
        """What became of the events so far."""
        return replace(self._counters)

    def peek(self) -> Run | None:
        """Return the latest batch; waits for the first one, which is given out all the same."""
        if self._latest is None:
            return next(self._arrived(BATCH, TIMEOUT), None)
        return self._latest

    def close(self) -> None:
        """Stop, and close the files: one that is removed while it is open keeps its room on the disk."""
        self._closed.set()
        for path in (self._latest or self._run).files:
            bare = path.removesuffix(GROWING)
            POOL.forget(bare)
            POOL.forget(bare + GROWING)

    def runs(self, batch: int, timeout: float | None, gather: float = 0.0) -> Iterator[Run]:
        """Yield micro-batches of at most `batch` events; smaller ones at least `gather` seconds apart."""
        for everybodys in self._arrived(batch, timeout):
            due = time.monotonic() + gather
            arrived = self._own(everybodys)
            self._counters.received += len(arrived)
            late = max(0, len(arrived) - self._waiting) if self.policy == "latest" else 0
            self._counters.dropped += late
            for first in range(late, len(arrived), batch):
                if self._closed.is_set():
                    return
                self._latest = arrived.isel(slice(first, first + batch))
                self._counters.processed += len(self._latest)
                yield self._latest
            if len(everybodys) < batch:
                self._closed.wait(max(0.0, due - time.monotonic()))

    def _own(self, run: Run) -> Run:
        """Return the events of this reader: their numbers decide; batches differ between readers."""
        if self._share is None and self._after < 0:
            return run
        numbers = run._view.choice.numbers
        own = numbers > self._after
        if self._share is not None:
            own &= numbers // SHARED % self._share.readers == self._share.reader
        return run.isel(np.flatnonzero(own))

    def _arrived(self, batch: int, timeout: float | None) -> Iterator[Run]:
        """Yield what has come since the last time."""
        raise NotImplementedError


class LiveRun(RunBatches):
    """Micro-batches of a run that is being written, from its first event on."""

    def _arrived(self, batch: int, timeout: float | None) -> Iterator[Run]:
        size = batch if self.policy == "complete" else EVERYTHING
        return self._run.follow_runs(batch=size, timeout=timeout, poll=TICK, until=self._closed.is_set)


class ClosedRun(RunBatches):
    """Micro-batches of a closed run.

    Parameters
    ----------
    rate : float, optional
        Events a second, as if they were taken now; by default as fast as they are asked for.
    repeat : bool
        Begin again at the end.
    """

    def __init__(
        self, run: Run, policy: str, waiting: int, share: Share | None = None, after: int = -1,
        rate: float | None = None, repeat: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(run, policy, waiting, share, -1 if repeat else after)
        self._rate, self._repeat = rate, repeat

    def _arrived(self, batch: int, timeout: float | None) -> Iterator[Run]:
        del timeout
        while True:
            yield from self._once(batch)
            if not self._repeat or self._closed.is_set():
                return

    def _once(self, batch: int) -> Iterator[Run]:
        due, begin, done = self._due(), time.monotonic(), 0
        while done < len(due) and not self._closed.is_set():
            now = int(np.searchsorted(due, time.monotonic() - begin, side="right"))
            end = min(now, done + batch) if self.policy == "complete" else now
            if end == done:
                self._closed.wait(TICK)
                continue
            first = done == 0
            yield self._run.isel(slice(done, end))
            done = end
            if first:  # it compiles kernels and looks constants up: not for the clock to count
                begin = time.monotonic() - due[done - 1]

    def _due(self) -> npt.NDArray[np.float64]:
        """Return when each event is due, in seconds after the first."""
        return np.arange(len(self._run)) / (self._rate or np.inf)

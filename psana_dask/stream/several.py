"""Several sources of micro-batches as one: what comes first is given out first."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from psana_dask.run import Run
from psana_dask.stream.batches import Batches, Counters

END = object()


class Several:
    """Micro-batches of several sources; the events of each are in order, those of two are not.

    Parameters
    ----------
    sources : sequence of Batches
    """

    def __init__(self, sources: Sequence[Batches]) -> None:
        self._sources = list(sources)
        self.policy = self._sources[0].policy
        self._latest: Run | None = None
        self._closed = threading.Event()

    @property
    def form(self) -> str:
        """``"xtc2"`` or ``"xtc"``."""
        return self._sources[0].form

    @property
    def counters(self) -> Counters:
        """What became of the events of all sources so far."""
        return sum((s.counters for s in self._sources), Counters())

    def peek(self) -> Run | None:
        """Return the latest batch; waits for the first one of the first source."""
        return self._latest or self._sources[0].peek()

    def close(self) -> None:
        """Stop all."""
        self._closed.set()
        for source in self._sources:
            source.close()

    def runs(self, batch: int, timeout: float | None, gather: float = 0.0) -> Iterator[Run]:
        """Yield micro-batches of at most `batch` events, until all sources have ended; see `Batches.runs`."""
        ready: queue.Queue[Any] = queue.Queue(maxsize=len(self._sources))
        stop = threading.Event()
        for source in self._sources:
            arguments = (source.runs(batch, timeout, gather), ready, stop)
            threading.Thread(target=self._read, args=arguments, daemon=True).start()
        try:
            yield from self._ready(ready)
        finally:
            stop.set()

    def _ready(self, ready: queue.Queue[Any]) -> Iterator[Run]:
        going = len(self._sources)
        while going and not self._closed.is_set():
            try:
                found = ready.get(timeout=0.2)
            except queue.Empty:
                continue
            if found is END:
                going -= 1
            elif isinstance(found, BaseException):
                raise found
            else:
                self._latest = found
                yield found

    def _read(self, runs: Iterator[Run], ready: queue.Queue[Any], stop: threading.Event) -> None:
        """Hand the batches of one source over, one at a time."""
        last: Any = END
        try:
            for run in runs:
                if not self._handed(run, ready, stop):
                    return
        except BaseException as error:
            last = error
        self._handed(last, ready, stop)

    def _handed(self, what: Any, ready: queue.Queue[Any], stop: threading.Event) -> bool:
        while not (stop.is_set() or self._closed.is_set()):
            try:
                ready.put(what, timeout=0.2)
                return True
            except queue.Full:
                continue
        return False

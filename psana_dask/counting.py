"""A plugin of Dask's scheduler that counts the tasks of one client, for progress bars."""

from __future__ import annotations

import time
from typing import Any

from distributed.diagnostics.plugin import SchedulerPlugin

SECONDS = 0.1
"""Between two reports."""


class TaskCounter(SchedulerPlugin):
    """Tells a topic how many tasks of a client are done.

    A task that is lost with its worker and done again counts once.

    Parameters
    ----------
    topic : str
        Of the scheduler's events; also the plugin's name.
    client : str
        The client's id.
    """

    def __init__(self, topic: str, client: str) -> None:
        self.name = self._topic = topic
        self._client = client
        self._waiting: set[Any] = set()
        self._total = 0
        self._told = 0.0
        self._scheduler: Any = None

    async def start(self, scheduler: Any) -> None:
        """Remember the scheduler."""
        self._scheduler = scheduler

    def update_graph(self, scheduler: Any, *, client: str, tasks: Any, **rest: Any) -> None:
        """Note the tasks of a new graph."""
        del scheduler, rest
        if client == self._client:
            new = {t for t in tasks if t not in self._waiting}
            self._waiting |= new
            self._total += len(new)
            self._tell()

    def transition(self, key: Any, start: str, finish: str, *args: Any, **rest: Any) -> None:
        """Note that a task is done, failed, or not wanted any more."""
        del start, args, rest
        if key in self._waiting and finish in ("memory", "erred", "forgotten"):
            self._waiting.discard(key)
            if not self._waiting or time.monotonic() - self._told > SECONDS:
                self._tell()

    def _tell(self) -> None:
        self._told = time.monotonic()
        numbers = {"done": self._total - len(self._waiting), "total": self._total}
        self._scheduler.log_event(self._topic, numbers)

"""Progress bars for Dask computations, wherever they run, and for long scans; in a terminal or a notebook."""

from __future__ import annotations

import html
import sys
import time
import uuid
from collections.abc import Callable
from typing import Any, Protocol

from dask.callbacks import Callback
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

Report = Callable[[int, int], None]
"""Called with the tasks that are done, and with all of them."""


class Bar(Protocol):
    """Something that shows how many tasks are done."""

    def start(self) -> None:
        """Show it."""

    def update(self, done: int, total: int) -> None:
        """Show other numbers."""

    def stop(self) -> None:
        """Leave it as it is."""


class TerminalBar:
    """A bar on the terminal; in a log only its last state."""

    def __init__(self, label: str) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=Console(stderr=True))
        self._task = self._progress.add_task(label, total=None)

    def start(self) -> None:
        """Show the bar."""
        self._progress.start()

    def update(self, done: int, total: int) -> None:
        """Show other numbers."""
        self._progress.update(self._task, completed=done, total=total)

    def stop(self) -> None:
        """Leave the bar as it is."""
        self._progress.stop()


class NotebookBar:
    """A bar in the output of a notebook's cell; needs no widgets."""

    SECONDS = 0.2  # between two updates

    def __init__(self, label: str) -> None:
        self._label = label
        self._numbers = (0, 0)
        self._began = self._shown = 0.0
        self._handle: Any = None

    def start(self) -> None:
        """Show the bar."""
        from IPython.display import HTML, display

        self._began = time.monotonic()
        self._handle = display(HTML(self._html()), display_id=True)

    def update(self, done: int, total: int) -> None:
        """Show other numbers, not too often."""
        self._numbers = (done, total)
        if time.monotonic() - self._shown > self.SECONDS:
            self._show()

    def stop(self) -> None:
        """Show the last numbers."""
        self._show()

    def _show(self) -> None:
        from IPython.display import HTML

        self._shown = time.monotonic()
        if self._handle is not None:
            self._handle.update(HTML(self._html()))

    def _html(self) -> str:
        done, total = self._numbers
        words = f"{done}/{total} tasks, {time.monotonic() - self._began:.1f} s" if total else "..."
        bar = f'<progress value="{done}" max="{max(total, 1)}" style="width: 20em"></progress>'
        return f"{html.escape(self._label)} {bar} {words}"


class PatientBar:
    """A bar that shows itself only when something takes long.

    Parameters
    ----------
    bar : Bar
    after : float
        Seconds.
    """

    def __init__(self, bar: Bar, after: float) -> None:
        self._bar, self._after = bar, after
        self._began = 0.0
        self._shown = False

    def start(self) -> None:
        """Wait from now on."""
        self._began = time.monotonic()

    def update(self, done: int, total: int) -> None:
        """Show other numbers, if it is time."""
        if not self._shown and time.monotonic() - self._began >= self._after:
            self._shown = True
            self._bar.start()
        if self._shown:
            self._bar.update(done, total)

    def stop(self) -> None:
        """Leave the bar as it is."""
        if self._shown:
            self._bar.stop()


def in_notebook() -> bool:
    """Tell whether this process serves a notebook."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return getattr(shell, "kernel", None) is not None


def somebody_looks() -> bool:
    """Tell whether this is a notebook or a terminal, rather than a log."""
    return in_notebook() or sys.stderr.isatty()


def bar_for_here(label: str) -> Bar:
    """Return a bar for a notebook if this is one, else for a terminal."""
    return NotebookBar(label) if in_notebook() else TerminalBar(label)


class LocalTasks(Callback):
    """Counts the tasks of Dask's own schedulers (threads, processes, one thread)."""

    def __init__(self, report: Report) -> None:
        super().__init__(start_state=self._begin, posttask=self._step)
        self._report = report
        self._done = self._total = 0

    def start(self) -> None:
        """Count from now on."""
        self.register()

    def stop(self) -> None:
        """Count no more."""
        self.unregister()

    def _begin(self, dsk: Any, state: Any) -> None:
        del dsk
        self._total += sum(len(state[k]) for k in ("ready", "waiting"))
        self._report(self._done, self._total)

    def _step(self, *task: Any) -> None:
        del task
        self._done += 1
        self._report(self._done, self._total)


class ClientTasks:
    """Counts the tasks that a distributed client has its scheduler do."""

    def __init__(self, client: Any, report: Report) -> None:
        self._client, self._report = client, report
        self._topic = f"psana_dask-progress-{uuid.uuid4().hex}"

    def start(self) -> None:
        """Have the scheduler count from now on."""
        from psana_dask.counting import TaskCounter

        self._client.subscribe_topic(self._topic, self._hear)
        self._client.register_plugin(TaskCounter(self._topic, self._client.id))

    def stop(self) -> None:
        """Have the scheduler count no more."""
        for number in self._client.sync(self._final):
            self._report(*number)
        self._client.unsubscribe_topic(self._topic)

    async def _final(self) -> list[tuple[int, int]]:
        """Return the last numbers, and take the counter from the scheduler."""
        events = await self._client.scheduler.events(topic=self._topic)
        await self._client.scheduler.unregister_scheduler_plugin(name=self._topic)
        return [(e["done"], e["total"]) for _, e in events[-1:]]

    def _hear(self, event: tuple[float, dict[str, int]]) -> None:
        self._report(event[1]["done"], event[1]["total"])


def active_client() -> Any | None:
    """Return the distributed client that Dask computes on now, or None."""
    if "distributed" not in sys.modules:
        return None
    from dask.base import get_scheduler

    get = get_scheduler()
    owner = getattr(get, "__self__", None)
    return owner if hasattr(owner, "register_plugin") else None


class ComputeProgress:
    """Shows how many tasks of Dask computations are done, while it is a context.

    Works for threads, processes and any distributed client, in a terminal and in a notebook.

    Parameters
    ----------
    label : str
        What the bar says.
    after : float
        Seconds that the computations take before a bar is worth it.
    """

    def __init__(self, label: str = "computing", after: float = 0) -> None:
        self._bar: Bar = PatientBar(bar_for_here(label), after) if after else bar_for_here(label)
        client = active_client()
        report = self._bar.update
        self._tasks: list[LocalTasks | ClientTasks] = [LocalTasks(report)]
        if client is not None:  # computations may still say scheduler="threads"
            self._tasks.append(ClientTasks(client, report))

    def __enter__(self) -> ComputeProgress:
        self._bar.start()
        for tasks in self._tasks:
            tasks.start()
        return self

    def __exit__(self, *error: object) -> None:
        try:
            for tasks in self._tasks:
                tasks.stop()
        finally:
            self._bar.stop()


def progress_bar(label: str = "computing") -> ComputeProgress:
    """Return a context that shows how far the Dask computations inside it are.

    Parameters
    ----------
    label : str
        What the bar says.

    Examples
    --------
    >>> with psana_dask.progress_bar("mean image"):
    ...     run.cspad.image.mean("time").compute()
    """
    return ComputeProgress(label)


class ScanProgress:
    """Shows the bytes scanned of each file, while it is a context; call it as an index `Progress`."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns)
        self._tasks: dict[str, Any] = {}

    def __call__(self, path: str, done: int, total: int) -> None:
        """Note that `done` of the `total` bytes of a file are scanned."""
        name = path.rpartition("/")[2]
        if path not in self._tasks:
            self._tasks[path] = self._progress.add_task(name, total=total)
        self._progress.update(self._tasks[path], completed=done, total=total)

    def __enter__(self) -> ScanProgress:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()


class StepProgress:
    """Shows how many steps are done, while it is a context; call it with steps done and in all.

    Parameters
    ----------
    label : str
        What the bar says.
    """

    def __init__(self, label: str) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns)
        self._task = self._progress.add_task(label, total=None)

    def __call__(self, done: int, total: int) -> None:
        """Note that `done` of `total` steps are done."""
        self._progress.start()  # not before: an error in the words of a command needs no bar
        self._progress.update(self._task, completed=done, total=total)

    def __enter__(self) -> StepProgress:
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

"""Progress bars for Dask computations and for long scans."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from dask.callbacks import Callback
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)


class ComputeProgress(Callback):
    """Shows how many tasks of a Dask computation are done, while it is a context.

    Parameters
    ----------
    label : str
        What the bar says.
    """

    def __init__(self, label: str) -> None:
        super().__init__(start_state=self._begin, posttask=self._step)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns)
        self._task = self._progress.add_task(label, total=None)

    def _begin(self, dsk: Any, state: Any) -> None:
        del dsk
        total = sum(len(state[k]) for k in ("ready", "waiting"))
        self._progress.update(self._task, total=total)

    def _step(self, *task: Any) -> None:
        del task
        self._progress.advance(self._task)

    def __enter__(self) -> ComputeProgress:
        self._progress.start()
        super().__enter__()
        return self

    def __exit__(self, *error: type[BaseException] | BaseException | TracebackType | None) -> None:
        super().__exit__(*error)
        self._progress.stop()


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

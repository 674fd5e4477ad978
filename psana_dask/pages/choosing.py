"""What the pages may open: experiments and their runs, each opened once for all users.

A page names an experiment and a run number out of these lists, never a path: nothing that comes
from a browser reaches the file system.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psana_dask.errors import RunNotFound
from psana_dask.files import EXPERIMENT, find_run, find_runs, is_export
from psana_dask.options import current
from psana_dask.recording import run_numbers

if TYPE_CHECKING:
    from psana_dask.files import RunFiles
    from psana_dask.run import Run

OPENED = 6
"""Runs that are kept open for all users together."""

UNNAMED = "files"
"""What files are called whose names say no experiment."""


@dataclass(frozen=True)
class RunChoice:
    """A run that may be opened.

    Parameters
    ----------
    experiment : str
    number : int
        -1 if nothing says it.
    source : str
        What `psana_dask.open` takes.
    folder : str, optional
        Its ``dir=``.
    stamp : tuple
        Sizes and times of the files: a run that grew is opened again.
    """

    experiment: str
    number: int
    source: str
    folder: str | None = None
    stamp: tuple[Any, ...] = field(default=(), repr=False)

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments of `psana_dask.open` after the source."""
        run = {"run": self.number} if self.number >= 0 and not is_export(self.source) else {}
        return run | ({"dir": self.folder} if self.folder else {})


class Shelf:
    """The experiments and runs that the pages may open.

    Parameters
    ----------
    source : str, optional
        An experiment, or anything else that `psana_dask.open` takes; without it all experiments
        under the root of the data, or those whose files lie in `folder`.
    folder : path, optional
        Where the files lie.
    calib : optional
        As ``calib=`` of `psana_dask.open`.
    """

    def __init__(
        self, source: str | None = None, folder: str | os.PathLike[str] | None = None, calib: Any = None
    ) -> None:
        self.source = source
        self.folder = None if folder is None else os.path.abspath(folder)
        self.calib = calib
        self._open: OrderedDict[RunChoice, Run] = OrderedDict()
        self._lock = threading.Lock()

    # ---- what there is ------------------------------------------------------------------------
    def experiments(self) -> list[str]:
        """Return the names of the experiments, sorted."""
        if self.source is None and self.folder is None:
            found = current().data_folder().glob("*/*")
            return sorted({p.name for p in found if EXPERIMENT.fullmatch(p.name)})
        if self.source is not None and self._is_name:
            return [self.source]
        return sorted({_named(files) for files in self._files()})

    def runs(self, experiment: str) -> list[RunChoice]:
        """Return the runs of an experiment, the newest number last.

        Raises
        ------
        RunNotFound
            No such experiment among those that may be opened.
        """
        known = self.experiments()
        if experiment not in known:
            raise RunNotFound(f"no experiment {experiment[:40]!r} here; there are {', '.join(known[:8])}")
        if self._looks_up:
            found = find_runs(experiment, folder=self.folder)
        else:
            found = [files for files in self._files() if _named(files) == experiment]
        return [self._choice(experiment, number, f) for f in found for number in _numbers(f)]

    def forget(self) -> None:
        """Open runs again when they are asked for: constants in force may have changed."""
        with self._lock:
            self._open.clear()

    def _files(self) -> list[RunFiles]:
        place = str(self.source if self.source is not None else self.folder)
        return [find_run(place)] if is_export(place) else find_runs(place)

    @property
    def _is_name(self) -> bool:
        return EXPERIMENT.fullmatch(str(self.source)) is not None and not os.path.exists(str(self.source))

    @property
    def _looks_up(self) -> bool:
        """Whether files are found by the name of the experiment."""
        return self._is_name if self.source is not None else self.folder is None

    def _choice(self, experiment: str, number: int, files: RunFiles) -> RunChoice:
        status = [os.stat(p) for p in files.paths]
        stamp = tuple((s.st_size, s.st_mtime_ns) for s in status)
        if self._looks_up:
            return RunChoice(experiment, number, experiment, self.folder, stamp)
        if self.source is None:
            return RunChoice(experiment, number, str(self.folder), None, stamp)
        return RunChoice(experiment, number, self.source, self.folder, stamp)

    # ---- opening ------------------------------------------------------------------------------
    def choice(self, experiment: str, number: int) -> RunChoice:
        """Return a run that may be opened.

        Raises
        ------
        RunNotFound
            It is not among those on the shelf.
        """
        runs = self.runs(experiment)
        for one in runs:
            if one.number == number:
                return one
        there = ", ".join(str(r.number) for r in runs[-8:])
        raise RunNotFound(f"no run {number} of {experiment}; there are runs {there}")

    def open(self, choice: RunChoice) -> Run:
        """Return a run, opened once for all users; the one that was not used longest is closed."""
        from psana_dask.opening import open_run

        with self._lock:
            known = self._open.get(choice)
        # not under the lock: indexing a new run may take minutes, and the others go on
        run = open_run(choice.source, calib=self.calib, **choice.arguments) if known is None else known
        with self._lock:
            self._open.setdefault(choice, run)
            self._open.move_to_end(choice)
            while len(self._open) > OPENED:
                self._open.popitem(last=False)
            return self._open[choice]


def _named(files: RunFiles) -> str:
    return files.experiment or UNNAMED


def _numbers(files: RunFiles) -> list[int]:
    """Return the numbers of the runs in some files; only files whose names say none are looked into."""
    if files.number is not None:
        return [files.number]
    if len(files.paths) == 1 and is_export(files.paths[0]):
        return [-1]
    return run_numbers(files) or [-1]


def opening_code(choice: RunChoice, calib: Any) -> str:
    """Return the line that opens a run as the pages do."""
    given = dict(choice.arguments)
    if isinstance(calib, str | os.PathLike):
        given["calib"] = str(Path(calib)) if "://" not in str(calib) else str(calib)
    words = [repr(choice.source), *(f"{key}={value!r}" for key, value in given.items())]
    return f"run = psana_dask.open({', '.join(words)})"

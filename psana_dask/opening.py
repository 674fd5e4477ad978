"""From a source to a run: `open_run`, `open_runs`, `list_runs`."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from psana_dask.choice import Choice
from psana_dask.dataset import View
from psana_dask.errors import (
    FormatError,
    PartialRunWarning,
    ReadError,
    RunNotFound,
    TruncatedError,
    UnknownFormat,
)
from psana_dask.files import RunFiles, find_run, find_runs, is_data_set, parse_data_set
from psana_dask.pipeline import catalog_of
from psana_dask.recording import Recording, open_recording, run_numbers
from psana_dask.run import Run
from psana_dask.runs import Runs

if TYPE_CHECKING:
    import pandas as pd

    from psana_dask.stores import Calib

Source = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def open_run(
    source: Source,
    run: int | None = None,
    *,
    dir: str | os.PathLike[str] | None = None,
    streams: Iterable[int] | None = None,
    detectors: Iterable[str] | None = None,
    calib: Calib = None,
    live: bool = False,
    damaged: str = "missing",
    strict: bool = False,
    cache: bool = True,
) -> Run:
    """Open one run.

    Parameters
    ----------
    source : str, path or list of them
        ``"exp=xpptut15:run=54"`` (also with commas and ``dir=``), an experiment name, a
        file, a glob, a folder, or a list of files.
    run : int, optional
        Run number.
    dir : path, optional
        Where the files lie; by default ``$SIT_PSDM_DATA/<instrument>/<experiment>/xtc``.
    streams : iterable of int, optional
        Read only these; the times of events are the same all the same.
    detectors : iterable of str, optional
        Show only these.
    calib : optional
        Where constants come from: a calib directory, a URL of the calibration service, a
        mapping of kind to array, a store, or a list of these. By default the folder that
        ``PSANA_DASK_CALIB`` names, then ``calib`` beside the folder of the data.
    live : bool
        The files may still be growing: an unfinished end is no problem, and a run that has not
        begun is waited for (10 s). `Run.follow` gives out events as they come.
    damaged : {"missing", "keep"}
        What becomes of payloads whose damage is not zero.
    strict : bool
        Raise `FormatError` where `Run.problems` would have an entry.
    cache : bool
        Keep indexes in the cache folder.

    Returns
    -------
    Run

    Raises
    ------
    RunNotFound, AmbiguousRun
        Nothing there, or several runs and `run` does not say which.
    UnknownFormat
        The content is neither XTC2 nor XTC.
    DuplicateData
        Two streams deliver the same (detector, field, segment).

    Examples
    --------
    >>> run = open_run("exp=tstx00117:run=1:dir=/data")
    >>> run.epixquad.raw.isel(time=0)
    """
    if damaged not in ("missing", "keep"):
        raise ValueError(f'damaged={damaged!r}: use "missing" or "keep"')
    live = live or (is_data_set(source) and "live" in parse_data_set(str(source)).modes)
    recording = _recording(lambda: replace(find_run(source, run, dir, streams), cache=cache), live)
    view = View(recording, Choice.everything(len(recording.events)), damaged == "keep", calib=calib)
    opened = Run(view)
    catalog_of(recording).detectors  # noqa: B018  (duplicates are an error now, not at first use)
    if detectors is not None:
        wanted = [detectors] if isinstance(detectors, str) else list(detectors)
        opened = Run(replace(view, only=tuple(view.find(d).name for d in wanted)))
    _tell_problems(opened, strict)
    return opened


LIVE_WAIT = 10.0
"""Seconds that a live run gets to show its first datagram."""


def _recording(find: Callable[[], RunFiles], live: bool) -> Recording:
    """Open what `find` finds; a live run may not have begun."""
    patience = time.monotonic() + LIVE_WAIT
    while True:
        try:
            return open_recording(find(), live=live)
        except (RunNotFound, TruncatedError, ReadError):  # a file may lose its .inprogress meanwhile
            if not live or time.monotonic() > patience:
                raise
            time.sleep(0.1)


def _tell_problems(run: Run, strict: bool) -> None:
    problems = run._recording.problems
    if not problems:
        return
    first = problems[0]
    if strict:
        raise FormatError(first.what, first.file or None, first.offset if first.offset >= 0 else None)
    where = f" in {first.file} at byte {first.offset}" if first.file else ""
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    message = f"{first.what}{where}{more}: see run.problems"
    warnings.warn(message, PartialRunWarning, stacklevel=3)


def open_runs(
    source: Source,
    runs: Iterable[int] | None = None,
    *,
    dir: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Runs:
    """Open every run of a source, or the given ones, ordered by number.

    Parameters
    ----------
    source, dir
        As in `open_run`.
    runs : iterable of int, optional
    **options
        Passed to `open_run`.

    Raises
    ------
    UnknownFormat, FormatError
        One of `runs` cannot be read at all, or any with ``strict=True``; else such a run is left out,
        with a warning.

    Returns
    -------
    Runs
        A sequence of `Run`, with ``.dataset``, ``.mean``, ``.reduce``, ... of them all.

    Examples
    --------
    >>> open_runs("tstx00117", range(5, 9), dir="/data").mean("epixquad.image", by="run")
    """
    opened = []
    wanted = None if runs is None else set(runs)
    for files in find_runs(source, folder=dir):
        try:
            numbers: list[int | None] = [*run_numbers(files)] or [None]
        except (FormatError, UnknownFormat) as error:
            if options.get("strict") or files.number in (wanted or ()):
                raise
            if wanted is None:
                left = f"run {files.number} is left out: {error}"
                warnings.warn(left, PartialRunWarning, stacklevel=2)
            continue
        for number in numbers:
            if wanted is None or number in wanted:
                paths = list(files.paths)
                opened.append(open_run(paths, number, **options))
    return Runs(opened)


def list_runs(experiment: Source, dir: str | os.PathLike[str] | None = None) -> pd.DataFrame:
    """Return a table of the runs on disk: run, streams, files, size in bytes, time of the last change.

    Parameters
    ----------
    experiment : str
        Name of an experiment, or any source that `open_run` takes.
    dir : path, optional

    Examples
    --------
    >>> psana_dask.list_runs("xpptut15")
    """
    import pandas as pd

    rows = []
    for files in find_runs(experiment, folder=dir):
        status = [os.stat(p) for p in files.paths]
        rows.append(
            {
                "experiment": files.experiment,
                "run": files.number,
                "streams": len(files.streams),
                "files": len(files.paths),
                "bytes": sum(s.st_size for s in status),
                "changed": np.datetime64(max(s.st_mtime_ns for s in status), "ns"),
            }
        )
    return pd.DataFrame(rows, columns=["experiment", "run", "streams", "files", "bytes", "changed"])

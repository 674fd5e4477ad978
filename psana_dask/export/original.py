"""Chosen events as files of the run's own format: datagrams copied as they are.

Configuration, transitions and slow updates come along, so the result is a run that this
package and the facility's own tools read. Where the run has several files, so has the result:
in a folder, under the names that they had, which are those that the parts announce.
LCLS-1 carries EPICS updates in events: those of events that are left out go into the next one that
is kept (`updates`).
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from psana_dask.errors import ExportError
from psana_dask.export.plan import replace
from psana_dask.export.updates import carried_updates, with_updates
from psana_dask.model import Service, StreamIndex

if TYPE_CHECKING:
    from psana_dask.run import Run

Bools = npt.NDArray[np.bool_]

SUFFIXES = {".xtc": "xtc", ".xtc2": "xtc2"}
"""Format of each suffix."""

COPY_BYTES = 2**20


def export_original(
    run: Run, path: str | os.PathLike[str], streams: Sequence[int] | None = None, *, overwrite: bool = False
) -> list[Path]:
    """Write the events of `run` as files of the format they come from.

    Parameters
    ----------
    run : Run
    path : path
        ``small.xtc2`` for LCLS-II, ``small.xtc`` for LCLS-1: the name of the file, or of the folder
        where the run has several files; `open_run` takes either.
    streams : sequence of int, optional
        Numbers of the streams to keep; all that the run was opened with by default.
    overwrite : bool

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    ExportError
        The suffix is of the other format, a file is there already, or the disk is full; nothing
        is left behind then.

    Examples
    --------
    >>> export_original(run.select(hits), "hits.xtc2")
    """
    path = Path(path)
    if SUFFIXES.get(path.suffix) != run.format:
        raise ExportError(f"{path}: the run is {run.format}, its events go into .{run.format} files")
    recording = run._recording
    positions = [k for k in recording.wanted if streams is None or recording.streams[k].stream in streams]
    if not positions:
        there = ", ".join(str(recording.streams[k].stream) for k in recording.wanted)
        raise ExportError(f"none of the streams {streams}: the run has {there}")
    if path.exists() and not overwrite:
        raise ExportError(f"{path} is there already: overwrite=True replaces it")
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        names = _write(run, positions, fresh)
        replace(fresh, path)
    except OSError as error:
        raise ExportError(f"cannot write {path}: {error}") from error
    finally:
        _remove(fresh)
    return [path / name for name in names] if names else [path]


def streams_of(run: Run, names: Sequence[str]) -> list[int]:
    """Return the numbers of the streams that carry these detectors.

    Raises
    ------
    NameNotFound
        No such detector; lists the nearest ones.
    """
    channels = [c for name in names for c in run._view.find(name.partition(".")[0]).channels.values()]
    positions = {place.stream for c in channels for segment in c.segments for place in segment.places}
    return sorted(run._recording.streams[k].stream for k in positions)


def _write(run: Run, positions: Sequence[int], path: Path) -> list[str]:
    """Write the files of the streams into a folder, and return their names; none where it is one file."""
    carried = carried_updates(run, positions)
    copies = []
    for k in positions:
        index, rows = run._recording.streams[k], np.flatnonzero(_kept(run, k))
        extra = {row: leaves for (stream, row), leaves in carried.items() if stream == k}
        parts = index["part"][rows]
        copies += [(index.parts[part], index, rows[parts == part], extra) for part in np.unique(parts)]
    if len(copies) == 1:
        _copy(*copies[0], path)
        return []
    path.mkdir()
    names = [Path(source).name.removesuffix(".inprogress") for source, *_ in copies]
    for name, copy in zip(names, copies, strict=True):
        _copy(*copy, path / name)
    return names


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)


def _kept(run: Run, position: int) -> Bools:
    """Return which datagrams of a stream are kept: those of chosen events, and all transitions of the run."""
    recording = run._recording
    index, runs = recording.streams[position], recording.runs[position]
    kept = np.asarray(index["service"] != Service.L1_ACCEPT)
    if runs is not None:  # the Configure of a run comes before its BeginRun
        kept &= np.isin(index["run"], runs) | (index["service"] == Service.CONFIGURE)
    rows = recording.events.rows[position][run._view.choice.numbers]
    kept[rows[rows >= 0]] = True
    return kept


def _copy(
    path: str, index: StreamIndex, rows: npt.NDArray[np.int64], extra: Mapping[int, bytes], target: Path
) -> None:
    """Copy datagrams of one part, one after the other in the order of the stream; some get more blocks."""
    cut = np.flatnonzero(np.isin(rows, list(extra)))
    with open(path, "rb", buffering=0) as source, open(target, "wb") as out:
        for first, last in itertools.pairwise([0, *np.sort(np.r_[cut, cut + 1]).tolist(), len(rows)]):
            here = rows[first:last]
            if len(here) == 1 and int(here[0]) in extra:
                out.write(with_updates(index, int(here[0]), extra[int(here[0])]))
                continue
            for start, stop in _extents(index, here):
                _copy_bytes(source, out, start, stop)
        out.flush()
        os.fsync(out.fileno())


def _extents(index: StreamIndex, rows: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    """Return first and last byte (exclusive) of neighbours that are copied together."""
    if not len(rows):
        return []
    starts = index["offset"][rows].astype(np.int64)
    stops = starts + index["size"][rows]
    cut = np.flatnonzero(starts[1:] != stops[:-1]) + 1
    firsts, lasts = np.concatenate([[0], cut]), np.concatenate([cut, [len(rows)]]) - 1
    return list(zip(starts[firsts].tolist(), stops[lasts].tolist(), strict=True))


def _copy_bytes(source: Any, out: Any, start: int, stop: int) -> None:
    source.seek(start)
    left = stop - start
    while left:
        data = source.read(min(left, COPY_BYTES))
        if not data:
            raise OSError(f"{source.name} ends at byte {stop - left}, it was longer when it was indexed")
        out.write(data)
        left -= len(data)

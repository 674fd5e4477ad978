"""The index of one stream: built by a scan, kept on disk, extended when a file grew.

`stream_index` is the door.  What differs between the formats is in one row of `FORMATS` each
(`index_xtc2`, `index_xtc`): how a file is recognised, scanned, and what other files say about it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from psana_dask import index_xtc, index_xtc2
from psana_dask.columns import load_columns, save_columns
from psana_dask.errors import ReadError, TruncatedError, UnknownFormat
from psana_dask.files import StreamFiles
from psana_dask.model import Array, FieldSpec, Kind, Names, Problem, Progress, Service, StreamIndex
from psana_dask.options import current
from psana_dask.sources import POOL, FileSource, Source, read_bytes

FORMATS: Mapping[str, ModuleType] = {"xtc2": index_xtc2, "xtc": index_xtc}
"""What scans the streams of each format: modules with `recognise` and `StreamScan`."""


class StreamScan(Protocol):
    """A scan of one stream, part by part."""

    def scan(self, source: Source, part: int, start: int) -> int:
        """Scan a part from byte `start`; return the first byte that belongs to no whole datagram."""

    def next_parts(self, parts: list[str]) -> list[str]:
        """Return the files that the last part says come next, if they are there and not known yet."""

    def index(self, parts: tuple[str, ...]) -> StreamIndex:
        """Return the index of all that was scanned, with its problems."""


INDEX_VERSION = 8
"""Raised whenever the columns or their meaning change: older caches are then built anew."""


def stream_index(
    files: StreamFiles, *, cache: bool = True, live: bool = False, progress: Progress | None = None
) -> StreamIndex:
    """Return the index of a stream, from the cache where it is still right.

    Parameters
    ----------
    files : StreamFiles
    cache : bool
        Look in the cache folder, and leave the index there.
    live : bool
        Files may still grow.
    progress : callable, optional

    Raises
    ------
    ReadError
        A file cannot be read.
    UnknownFormat, TruncatedError
        The first file holds no datagram.
    """
    path = cache_path(files)
    kept = _load(path) if cache else None
    if kept is not None and _unchanged(kept[1], files):
        problems = _settled(*kept) if live else kept[0].problems
        return replace(kept[0], parts=_paths(kept[1], files), problems=problems)
    index, marks = _build(files, kept, live, progress)
    if cache and not live:
        save_columns(path, index.columns, _about(index, marks))
    return index


def cache_path(files: StreamFiles) -> Path:
    """Return where the index of these files is kept."""
    named = "\n".join(p.removesuffix(".inprogress") for p in files.parts)
    digest = hashlib.sha256(named.encode()).hexdigest()[:24]
    return current().cache_folder() / "index" / f"{Path(files.parts[0]).name.split('.')[0]}-{digest}"


def file_mark(path: str) -> list[int]:
    """Return what tells whether a file changed: size, modification time (ns), inode."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise ReadError(f"cannot open {path}: {error.strerror}") from error
    return [status.st_size, status.st_mtime_ns, status.st_ino]


# ---- building -----------------------------------------------------------------------------------
Marks = list[dict[str, Any]]
"""For each part: ``path``, ``mark`` (see `file_mark`), ``next``, the first byte not indexed, and
``witness``, a hash of the bytes at its start and before ``next``: a file that grew still has them."""

WITNESS = 256


def _build(
    files: StreamFiles, kept: tuple[StreamIndex, Marks] | None, live: bool, progress: Progress | None
) -> tuple[StreamIndex, Marks]:
    """Scan the files, or what is new in them."""
    before, marks = None, Marks()
    if kept is not None and _only_grew(kept[1], files):
        before, marks = replace(kept[0], problems=_settled(*kept)), list(kept[1])
    if before is None:
        POOL.forget(files.parts[0])  # another file may be there now
    form = format_of(FileSource(files.parts[0])) if before is None else before.format
    running: StreamScan = FORMATS[form].StreamScan(files, before, live=live, progress=progress)
    marks = _scanned(running, files, marks)
    index = running.index(tuple(mark["path"] for mark in marks))
    run, step = run_and_step(index["service"])
    return replace(index, columns={**index.columns, "run": run, "step": step}), marks


def _scanned(running: StreamScan, files: StreamFiles, marks: Marks) -> Marks:
    """Scan the parts of a stream, each from where `marks` end; a part may tell of further ones."""
    parts, out = list(_paths(marks, files)), Marks()
    while len(out) < len(parts):
        number = len(out)
        done = marks[number] if number < len(marks) else None
        out.append(_part(running, parts[number], number, done))
        if len(out) == len(parts):
            parts += running.next_parts(parts)
    return out


def _part(running: StreamScan, path: str, number: int, done: Mapping[str, Any] | None) -> dict[str, Any]:
    """Scan a part, unless it is as it was; return its mark."""
    mark = file_mark(path)
    start = done["next"] if done else 0
    if done is None or mark != done["mark"]:
        POOL.forget(path)
        start = running.scan(FileSource(path), number, start)
    return {"path": path, "mark": mark, "next": start, "witness": _witness(path, start)}


def format_of(source: Source) -> str:
    """Return the format of a file, from its content.

    Raises
    ------
    UnknownFormat, TruncatedError
        It is of no known format, or too short to tell.
    """
    for name, form in FORMATS.items():
        if form.recognise(source):
            return name
    if source.size() < 24:
        raise TruncatedError(f"only {source.size()} bytes: not even a datagram header", source.name, 0)
    raise UnknownFormat(f"{source.name} is neither XTC2 nor XTC: no chain of datagram headers at its start")


def _witness(path: str, end: int) -> str:
    """Return a hash of the first and the last bytes before `end`."""
    source = FileSource(path)
    if source.size() < end:
        return ""
    some = min(WITNESS, end)
    both = read_bytes(source, 0, some) + read_bytes(source, end - some, some)
    return hashlib.sha256(both).hexdigest()[:16]


def _settled(index: StreamIndex, marks: Marks) -> tuple[Problem, ...]:
    """Return the problems that stay when the last part grows: not those of its unfinished end."""
    ends = {m["path"]: np.inf for m in marks} | {marks[-1]["path"]: marks[-1]["next"]}
    return tuple(p for p in index.problems if p.offset < ends.get(p.file, -1))


def run_and_step(service: Array) -> tuple[Array, Array]:
    """Return for each datagram how many runs, and steps of its run, began before it, less one.

    Runs count from 0 also where the BeginRun is missing; steps are -1 before the first.
    """
    begins = service == Service.BEGIN_RUN
    run = np.maximum(np.cumsum(begins, dtype=np.int32) - 1, 0).astype(np.int32)
    steps = np.cumsum(service == Service.BEGIN_STEP, dtype=np.int32)
    before = np.maximum.accumulate(np.where(begins, steps, 0))
    return run, (steps - before - 1).astype(np.int32)


# ---- keeping ------------------------------------------------------------------------------------
def _about(index: StreamIndex, marks: Marks) -> dict[str, Any]:
    return {
        "version": INDEX_VERSION,
        "stream": index.stream,
        "format": index.format,
        "aliases": dict(index.aliases),
        "marks": marks,
        "configs": [[_names_to_json(n) for n in names] for names in index.configs],
        "problems": [list(p) for p in index.problems],
    }


def _load(path: Path) -> tuple[StreamIndex, Marks] | None:
    found = load_columns(path)
    if found is None or found[1].get("version") != INDEX_VERSION:
        return None
    columns, about = found
    configs = tuple(tuple(_names_from_json(n) for n in names) for names in about["configs"])
    problems = tuple(Problem(*p) for p in about["problems"])
    parts = tuple(m["path"] for m in about["marks"])
    kept = StreamIndex(about["stream"], parts, configs, columns, problems, about["format"], about["aliases"])
    return kept, about["marks"]


def _names_to_json(names: Names) -> list[Any]:
    fields = [
        [f.name, f.dtype.str, f.rank, int(f.kind), f.unit, list(f.dims), f.accessor] for f in names.fields
    ]
    return [
        names.key, names.detector, names.det_type, names.det_id, names.algorithm,
        list(names.version), names.segment, fields,
    ]  # fmt: skip


def _names_from_json(row: list[Any]) -> Names:
    fields = tuple(FieldSpec(f[0], np.dtype(f[1]), f[2], Kind(f[3]), f[4], tuple(f[5]), f[6]) for f in row[7])
    return Names(row[0], row[1], row[2], row[3], row[4], tuple(row[5]), row[6], fields)


def _unchanged(marks: Marks, files: StreamFiles) -> bool:
    return len(marks) >= len(files.parts) and all(
        file_mark(path) == m["mark"] for path, m in zip(_paths(marks, files), marks, strict=True)
    )


def _paths(marks: Marks, files: StreamFiles) -> tuple[str, ...]:
    """Return today's paths of the indexed parts: a part may have lost its ``.inprogress``."""
    return files.parts + tuple(m["path"] for m in marks[len(files.parts) :])


def _only_grew(marks: Marks, files: StreamFiles) -> bool:
    """Tell whether the files still begin with what was indexed: only the last part may be longer."""
    if len(marks) < 1:
        return False
    for done, path in zip(marks, _paths(marks, files), strict=False):
        mark = file_mark(path)
        if mark == done["mark"]:
            continue
        longer = mark[2] == done["mark"][2] and mark[0] > done["mark"][0]
        POOL.forget(path)
        if done is not marks[-1] or not longer or _witness(path, done["next"]) != done["witness"]:
            return False
    return True

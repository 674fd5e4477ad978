"""The index of one stream: built by a scan, kept on disk, extended when a file grew.

`stream_index` is the door.  The small-data file, where there is one, says where every
event should be: those offsets are where a scan picks up again after a corrupt datagram,
and each of them is checked against the header that is there.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from psana_dask.columns import load_columns, save_columns
from psana_dask.errors import ReadError, TruncatedError, UnknownFormat
from psana_dask.files import StreamFiles
from psana_dask.model import Array, FieldSpec, Kind, Names, Problem, Service, StreamIndex
from psana_dask.options import current
from psana_dask.readers.xtc2 import recognise
from psana_dask.readers.xtc2_scanner import Progress, Scanner
from psana_dask.sources import POOL, FileSource, Source, read_bytes

INDEX_VERSION = 2
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
    grown = kept is not None and _only_grew(kept[1], files)
    scanner, marks = _resumed(kept, live) if kept is not None and grown else (Scanner(live=live), [])
    scanner.progress = progress
    listing = read_listing(files.smd) if files.smd is not None else Listing.empty()
    parts = list(_paths(marks, files))
    number = 0
    while number < len(parts):
        done = marks[number] if number < len(marks) else None
        mark = file_mark(parts[number])
        start = done["next"] if done else 0
        if done is None or mark != done["mark"]:
            POOL.forget(parts[number])
            start = _scan_part(scanner, FileSource(parts[number]), number, start, listing)
        witness = _witness(parts[number], start)
        entry = {"path": parts[number], "mark": mark, "next": start, "witness": witness}
        marks[number : number + 1] = [entry]
        number += 1
        if number == len(parts):
            parts += _continuation(scanner, files.stream, parts)
    scanner.problems += listing.problems
    index = _finished(files.stream, tuple(parts), scanner)
    absent = () if live else _absent_parts(index)
    return replace(index, problems=index.problems + absent + listing.missing_from(index)), marks


def _witness(path: str, end: int) -> str:
    """Return a hash of the first and the last bytes before `end`."""
    source = FileSource(path)
    if source.size() < end:
        return ""
    some = min(WITNESS, end)
    both = read_bytes(source, 0, some) + read_bytes(source, end - some, some)
    return hashlib.sha256(both).hexdigest()[:16]


def _resumed(kept: tuple[StreamIndex, Marks], live: bool) -> tuple[Scanner, Marks]:
    """Return a scanner that goes on where an index ends."""
    index, marks = kept
    scanner = Scanner(index.configs, live=live)
    scanner.add(_plain(index.columns))
    scanner.problems += _settled(index, marks)
    return scanner, list(marks)


def _settled(index: StreamIndex, marks: Marks) -> tuple[Problem, ...]:
    """Return the problems that stay when the last part grows: not those of its unfinished end."""
    ends = {m["path"]: np.inf for m in marks} | {marks[-1]["path"]: marks[-1]["next"]}
    return tuple(p for p in index.problems if p.offset < ends.get(p.file, -1))


def _scan_part(scanner: Scanner, source: Source, part: int, start: int, listing: Listing) -> int:
    if part == 0 and start == 0 and recognise(source) is None:
        if source.size() < 24:
            raise TruncatedError(f"only {source.size()} bytes: not even a datagram header", source.name, 0)
        raise UnknownFormat(_not_xtc2(source))
    return scanner.scan(source, part, start, known=listing.offset[listing.part == part])


def _not_xtc2(source: Source) -> str:
    """Say what a file is that is not XTC2."""
    from psana_dask.readers import xtc

    if xtc.recognise(source):
        return f"{source.name} is an LCLS-1 XTC file: runs of that format cannot be opened yet"
    return f"{source.name} is not XTC2: no chain of datagram headers at its start"


def _finished(stream: int, parts: tuple[str, ...], scanner: Scanner) -> StreamIndex:
    if not scanner.has_rows():
        first = scanner.problems[0] if scanner.problems else Problem(parts[0], 0, -1, "no datagram")
        raise TruncatedError(first.what, first.file, first.offset)
    columns = scanner.columns()
    columns["run"], columns["step"] = run_and_step(columns["service"])
    return StreamIndex(stream, parts, tuple(scanner.configs), columns, tuple(scanner.problems))


def run_and_step(service: Array) -> tuple[Array, Array]:
    """Return for each datagram how many runs, and steps of its run, began before it, less one.

    Runs count from 0 also where the BeginRun is missing; steps are -1 before the first.
    """
    begins = service == Service.BEGIN_RUN
    run = np.maximum(np.cumsum(begins, dtype=np.int32) - 1, 0).astype(np.int32)
    steps = np.cumsum(service == Service.BEGIN_STEP, dtype=np.int32)
    before = np.maximum.accumulate(np.where(begins, steps, 0))
    return run, (steps - before - 1).astype(np.int32)


def _continuation(scanner: Scanner, stream: int, parts: list[str]) -> list[str]:
    """Return the file that the last part says comes next, if it is there and not known yet."""
    if not scanner.has_rows():
        return []
    from psana_dask.blocks import decode_dgram

    index = StreamIndex(stream, tuple(parts), tuple(scanner.configs), scanner.columns())
    last = np.flatnonzero(index["service"] == Service.ENABLE)[-1:]
    for row in last:
        for names, values in decode_dgram(index, int(row)):
            if names.detector == "chunkinfo" and index["part"][row] == len(parts) - 1:
                path = os.path.join(os.path.dirname(parts[-1]), os.path.basename(str(values["filename"])))
                if path not in parts and os.path.exists(path):
                    return [path]
    return []


def _absent_parts(index: StreamIndex) -> tuple[Problem, ...]:
    """Return a problem for each part that an Enable announces and that is not there."""
    from psana_dask.blocks import read_columns

    enables = np.flatnonzero(index["service"] == Service.ENABLE)
    rows, values = read_columns(index, enables, "chunkinfo", ("filename",))
    known = {os.path.basename(p).removesuffix(".inprogress") for p in index.parts}
    said = zip(rows.tolist(), map(os.path.basename, values["filename"].astype(str)), strict=True)
    return tuple(
        Problem(
            os.path.join(os.path.dirname(index.parts[0]), name), -1, int(index["timestamp"][row]),
            f"part {name} is announced by {index.parts[index['part'][row]]} and is not there: "
            "its events are missing",
        )
        for row, name in said
        if name.removesuffix(".inprogress") not in known
    )  # fmt: skip


# ---- the small-data file ------------------------------------------------------------------------
@dataclass(frozen=True)
class Listing:
    """The events that a small-data file lists.

    Parameters
    ----------
    timestamp : (n,) uint64
    part : (n,) int64
        Part of the stream; the file counts its switches by the chunkinfo of Enables.
    offset, size : (n,) int64
        Of the datagram in that part.
    name : str
        The file.
    problems : tuple of Problem
    """

    timestamp: Array
    part: Array
    offset: Array
    size: Array
    name: str = ""
    problems: tuple[Problem, ...] = ()

    @classmethod
    def empty(cls, name: str = "", *problems: Problem) -> Listing:
        """Return a listing of nothing."""
        none = np.zeros(0, np.int64)
        return cls(none.astype(np.uint64), none, none, none, name, problems)

    def missing_from(self, index: StreamIndex, most: int = 1000) -> tuple[Problem, ...]:
        """Return a problem for each listed event that is not where the file says."""
        own = np.flatnonzero(index["service"] == Service.L1_ACCEPT)
        found = (index[c][own] for c in ("timestamp", "part", "offset", "size"))
        missing = _not_in((self.timestamp, self.part, self.offset, self.size), tuple(found))
        return tuple(
            Problem(
                self.name, -1, int(self.timestamp[k]),
                f"the small-data file lists an event of {self.size[k]} bytes at byte {self.offset[k]} "
                f"of part {self.part[k]}, which is not there",
            )
            for k in missing[:most]
        )  # fmt: skip


def read_listing(smd: str) -> Listing:
    """Return the events that a small-data file lists."""
    from psana_dask.blocks import read_columns

    POOL.forget(smd)
    scanner = Scanner(live=True)  # an unfinished tail only makes the listing shorter
    try:
        scanner.scan(FileSource(smd), 0)
    except ReadError as error:
        return Listing.empty(smd, Problem(smd, 0, -1, str(error)))
    if not scanner.has_rows():
        return Listing.empty(smd, Problem(smd, 0, -1, "no datagram in the small-data file: it is not used"))
    index = StreamIndex(0, (smd,), tuple(scanner.configs), scanner.columns(), tuple(scanner.problems))
    switches = np.zeros(len(index), np.int64)
    enables = np.flatnonzero(index["service"] == Service.ENABLE)
    switches[read_columns(index, enables, "chunkinfo", ("chunkid",))[0]] = 1
    events = np.flatnonzero(index["service"] == Service.L1_ACCEPT)
    rows, values = read_columns(index, events, "smdinfo", ("intOffset", "intDgramSize"))
    offset, size = (values[name].astype(np.int64) for name in ("intOffset", "intDgramSize"))
    return Listing(index["timestamp"][rows], np.cumsum(switches)[rows], offset, size, smd, index.problems)


def _not_in(rows: tuple[Array, ...], others: tuple[Array, ...]) -> Array:
    """Return the positions of the rows (given by columns) that are not among the others."""
    kind = np.dtype([(f"c{k}", "<u8") for k in range(len(rows))])
    records = []
    for columns in (rows, others):
        table = np.stack([c.astype(np.uint64) for c in columns], axis=1)
        records.append(np.ascontiguousarray(table).view(kind).ravel())
    return np.flatnonzero(~np.isin(records[0], records[1]))


# ---- keeping ------------------------------------------------------------------------------------
def _about(index: StreamIndex, marks: Marks) -> dict[str, Any]:
    return {
        "version": INDEX_VERSION,
        "stream": index.stream,
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
    return StreamIndex(about["stream"], parts, configs, columns, problems), about["marks"]


def _names_to_json(names: Names) -> list[Any]:
    fields = [[f.name, f.dtype.str, f.rank, int(f.kind)] for f in names.fields]
    return [
        names.key, names.detector, names.det_type, names.det_id, names.algorithm,
        list(names.version), names.segment, fields,
    ]  # fmt: skip


def _names_from_json(row: list[Any]) -> Names:
    fields = tuple(FieldSpec(name, np.dtype(dtype), rank, Kind(kind)) for name, dtype, rank, kind in row[7])
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


def _plain(columns: Mapping[str, Array]) -> dict[str, Array]:
    """Return stored columns as a scan hands them over: without the closing row and derived columns."""
    shortened = {"first_block", "first_word"}
    return {k: v[:-1] if k in shortened else v for k, v in columns.items() if k not in ("run", "step")}

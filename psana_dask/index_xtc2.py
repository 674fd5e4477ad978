"""What is particular to the index of an XTC2 stream: the small-data file, and parts that announce others.

The small-data file, where there is one, says where every event should be: those offsets are
where a scan picks up again after a corrupt datagram, and each of them is checked against the
header that is there.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from psana_dask.errors import ReadError, TruncatedError
from psana_dask.files import StreamFiles
from psana_dask.model import Array, Problem, Progress, Service, StreamIndex
from psana_dask.readers import xtc2
from psana_dask.readers.xtc2_scanner import Scanner
from psana_dask.sources import POOL, FileSource, Source


def recognise(source: Source) -> bool:
    """Tell whether a file is XTC2."""
    return xtc2.recognise(source) is not None


class StreamScan:
    """A scan of one XTC2 stream.

    Parameters
    ----------
    files : StreamFiles
    before : StreamIndex, optional
        What was indexed already; files only grew since then.
    live : bool
        Files may still grow.
    progress : callable, optional
    """

    def __init__(
        self, files: StreamFiles, before: StreamIndex | None, *, live: bool, progress: Progress | None
    ) -> None:
        self._stream, self._live = files.stream, live
        self._scanner = Scanner(() if before is None else before.configs, live=live, progress=progress)
        if before is not None:
            self._scanner.add(_plain(before.columns))
            self._scanner.problems += before.problems
        self._listing = read_listing(files.smd) if files.smd is not None else Listing.empty()
        self._continuation = Continuation()

    def scan(self, source: Source, part: int, start: int) -> int:
        """Scan a part from byte `start`; return the first byte that belongs to no whole datagram."""
        known = self._listing.offset[self._listing.part == part]
        return self._scanner.scan(source, part, start, known=known)

    def next_parts(self, parts: list[str]) -> list[str]:
        """Return the file that the last part says comes next, if it is there and not known yet."""
        scanner = self._scanner
        if not scanner.has_rows():
            return []
        index = StreamIndex(self._stream, tuple(parts), tuple(scanner.configs), scanner.columns())
        return self._continuation.after(index)

    def index(self, parts: tuple[str, ...]) -> StreamIndex:
        """Return the index of all that was scanned, with its problems.

        Raises
        ------
        TruncatedError
            Nothing was found.
        """
        scanner = self._scanner
        problems = [*scanner.problems, *self._listing.problems]
        if not scanner.has_rows():
            first = problems[0] if problems else Problem(parts[0], 0, -1, "no datagram")
            raise TruncatedError(first.what, first.file, first.offset)
        index = StreamIndex(self._stream, parts, tuple(scanner.configs), scanner.columns())
        absent = () if self._live else _absent_parts(index)
        problems += [*absent, *self._listing.missing_from(index)]
        return StreamIndex(self._stream, parts, index.configs, index.columns, tuple(problems))


def _plain(columns: Mapping[str, Array]) -> dict[str, Array]:
    """Return stored columns as a scan hands them over: without the closing row and derived columns."""
    shortened = {"first_block", "first_word"}
    return {k: v[:-1] if k in shortened else v for k, v in columns.items() if k not in ("run", "step")}


class Continuation:
    """What the parts of a stream say of the next one; each Enable is decoded once."""

    def __init__(self) -> None:
        self._read, self._said = -1, ""

    def after(self, index: StreamIndex) -> list[str]:
        """Return the file that the last part says comes next, if it is there and not known yet."""
        for row in np.flatnonzero(index["service"] == Service.ENABLE)[-1:].tolist():
            if row != self._read:
                self._read, self._said = row, _announced(index, row)
            if self._said and index["part"][row] == len(index.parts) - 1:
                path = os.path.join(os.path.dirname(index.parts[-1]), os.path.basename(self._said))
                return [path] if path not in index.parts and os.path.exists(path) else []
        return []


def _announced(index: StreamIndex, row: int) -> str:
    """Return the name of the next part that a datagram announces; empty if it does not."""
    from psana_dask.blocks import decode_dgram

    said = [str(v["filename"]) for names, v in decode_dgram(index, row) if names.detector == "chunkinfo"]
    return said[-1] if said else ""


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
    """Return the positions of the rows (given by columns) that are not among the others.

    The second and third column are part and offset; the others, as a scan finds them, are in their order.
    A live run asks at every poll, so nothing that grows with the run is sorted.
    """
    if not len(rows[0]) or not len(others[0]):
        return np.arange(len(rows[0]))
    wanted, there = (c[1].astype(np.uint64) << np.uint64(48) | c[2].astype(np.uint64) for c in (rows, others))
    place = np.minimum(np.searchsorted(there, wanted), len(there) - 1)
    found = [own == other[place] for own, other in zip(rows, others, strict=True)]
    return np.flatnonzero(~np.logical_and.reduce(found))

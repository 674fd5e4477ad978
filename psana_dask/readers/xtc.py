"""LCLS-1 XTC: from bytes to the datagrams of a file and the leaves of their container trees.

`recognise` tells from the first headers whether a file is XTC; `walk` drives the compiled
scan of `xtc_scan` over one file and yields its datagrams and leaves in blocks; `scan` joins
them.  What a leaf holds is decoded with the records of `tables`.  Corrupt pieces become
problems that name the byte; every intact datagram is delivered.  Format: ``docs/formats/xtc.md``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from psana_dask.errors import ReadError
from psana_dask.model import Problem
from psana_dask.readers.state import BASE, END, LENGTH, NEXT, UNREAD, WINDOW
from psana_dask.readers.xtc_layout import DGRAM, TYPE_COUNT, XTC, Level, TransitionId
from psana_dask.sources import FileSource, MemorySource, Source, read_bytes

Array = npt.NDArray[Any]

FAULT_TEXT = (
    "a container whose extent is impossible: the rest of its parent is passed over",
    "a container of no known type or level: the rest of its parent is passed over",
    "a few bytes follow the last container",
    "containers nested deeper than any known file: not entered",
)


PIECE = 64 * 2**20
MOST_PIECES = 8
"""A file is scanned in as many pieces of at least PIECE bytes side by side."""

ALIGNED = 4
"""Headers of an intact file lie at multiples of this."""

OPENING = 4 * 2**20
"""Bytes at the start of a file that tell how large its datagrams are."""


# ---- recognising a file -------------------------------------------------------------------------
def recognise(source: Source, most: int = 4) -> bool:
    """Tell whether `source` is XTC: there is no magic number, the headers must chain."""
    end, offset, links, declared = source.size(), 0, 0, False
    while links < most and offset + DGRAM.itemsize <= end:
        row = np.frombuffer(read_bytes(source, offset, DGRAM.itemsize), DGRAM)[0]
        if not is_header(row):
            return links > 1 or declared
        declared = declared or (links == 0 and _declares(source, row))
        offset += 20 + int(row["extent"])
        links += 1
    return links > 0


def _declares(source: Source, row: Any) -> bool:
    """Tell whether the first datagram is a Configure that begins with a container: that is proof enough."""
    room = min(int(row["extent"]), source.size() - 20) - XTC.itemsize
    if int(row["ticks"]) >> 24 & 15 != TransitionId.CONFIGURE or room < XTC.itemsize:
        return False
    first = np.frombuffer(read_bytes(source, DGRAM.itemsize, XTC.itemsize), XTC)[0]
    sized = XTC.itemsize <= int(first["extent"]) <= room and int(first["extent"]) % 4 == 0
    return sized and int(first["contains"]) & 0xFFFF < TYPE_COUNT and int(first["log"]) >> 24 < len(Level)


def is_header(row: Any) -> bool:
    """Tell whether a DGRAM row is what a DAQ writes."""
    service, extent = int(row["ticks"]) >> 24 & 15, int(row["extent"])
    known = int(row["contains"]) & 0xFFFF < TYPE_COUNT and int(row["log"]) >> 24 < len(Level)
    sized = extent >= 20 and extent % 4 == 0
    return known and sized and 2 <= service <= 12 and int(row["nanoseconds"]) < 10**9


# ---- scanning -----------------------------------------------------------------------------------
@dataclass(frozen=True)
class Block:
    """Some consecutive datagrams of a file and their leaves.

    Parameters
    ----------
    dgrams : ndarray of xtc_scan.DGRAM_ROW
    leaves : ndarray of xtc_scan.LEAF_ROW
        Those of datagram i are ``leaves[first_leaf[i]:first_leaf[i + 1]]``, the last one's go to the end.
    problems : tuple of Problem
    next : int
        First byte that belongs to no whole datagram: where a scan of a growing file goes on.
    """

    dgrams: Array
    leaves: Array
    problems: tuple[Problem, ...]
    next: int

    def leaves_of(self, dgram: int) -> Array:
        """Return the leaves of one datagram."""
        first = self.dgrams["first_leaf"]
        stop = first[dgram + 1] if dgram + 1 < len(first) else len(self.leaves)
        return self.leaves[first[dgram] : stop]


def scan(
    source: Source,
    start: int = 0,
    *,
    live: bool = False,
    containers: bool = False,
    known: Array | None = None,
) -> Block:
    """Find every datagram and leaf of one file; arguments as for `walk`.

    Large files are scanned in pieces side by side; the result is that of one walk.
    """
    blocks = _side_by_side(source, start, live=live, containers=containers)
    at = blocks[-1].next if blocks else start
    blocks += walk(source, at, live=live, containers=containers, known=known)
    rows = np.cumsum([0, *(len(b.leaves) for b in blocks)])
    dgrams = _joined([b.dgrams for b in blocks])
    dgrams["first_leaf"] += np.repeat(rows[:-1], [len(b.dgrams) for b in blocks])
    problems = tuple(p for b in blocks for p in b.problems)
    return Block(dgrams, _joined([b.leaves for b in blocks]), problems, blocks[-1].next)


def _joined(tables: Sequence[Array]) -> Array:
    """Return tables of equal rows one after the other, as bytes: numpy takes rows field by field."""
    return np.concatenate([t.view(np.uint8) for t in tables]).view(tables[0].dtype)


def _side_by_side(source: Source, start: int, *, live: bool, containers: bool) -> list[Block]:
    """Scan pieces of a large file in threads, as far as that gives what one walk would.

    Where a piece begins is guessed as after a corrupt datagram. Pieces are taken in order as
    long as each begins where the one before it ended, without a problem.
    """
    end = source.size()
    if end - start < 2 * PIECE or not isinstance(source, FileSource):
        return []
    with _Walk(source, start, stop=start + OPENING, live=live, containers=containers) as opening:
        blocks = list(opening.blocks())
    if any(b.problems for b in blocks) or not len(blocks[-1].dgrams):
        return []
    at, near = blocks[-1].next, int(blocks[-1].dgrams["timestamp"][-1]) >> 32
    count = _pieces(end - at, max(int(b.dgrams["size"].max()) for b in blocks))
    bounds = (at + np.linspace(0, (end - at) // ALIGNED, count + 1).astype(np.int64) * ALIGNED).tolist()

    def piece(first: int, stop: int) -> tuple[int, list[Block]]:
        with _Walk(source, first, stop=stop, live=live, containers=containers) as walk:
            begin = first if first == bounds[0] else walk.go_to_chain(first, near)
            return begin, list(walk.blocks()) if begin >= 0 else []

    with ThreadPoolExecutor(min(count, os.cpu_count() or 1)) as pool:
        for begin, found in pool.map(piece, bounds[:-1], [*bounds[1:-1], end]):
            if begin != at or any(b.problems for b in found):
                break
            blocks += found
            at = blocks[-1].next
    return blocks


def walk(
    source: Source,
    start: int = 0,
    *,
    live: bool = False,
    containers: bool = False,
    known: Array | None = None,
) -> Iterator[Block]:
    """Yield the datagrams of one file from byte `start` on, in blocks.

    Parameters
    ----------
    source : Source
    start : int
        Where a datagram begins.
    live : bool
        The file may still grow: an unfinished last datagram is no problem.
    containers : bool
        List the containers between datagram and leaf too.
    known : ndarray of int, sorted, optional
        Places where datagrams are said to begin (an .idx file): tried after a corrupt header.

    Yields
    ------
    Block
        At least one; the last one's `next` is where the scan ended.
    """
    with _Walk(source, start, live=live, containers=containers, known=known) as running:
        yield from running.blocks()


def _pieces(size: int, dgram: int) -> int:
    """Return into how many pieces a file is cut whose datagrams have `dgram` bytes.

    Where one begins is found at about 1 ns per byte of a datagram, and a datagram is passed in about
    1 us: a piece of ``dgram**2 / 1000`` bytes takes as long to find as to scan.
    """
    return max(1, min(MOST_PIECES, size // max(PIECE, dgram * dgram // 250)))


class Kinds:
    """Numbers for what leaves are: the same (source, type, version) has the same number in all files.

    Parameters
    ----------
    known : sequence of ndarray of uint32, optional
        ``log``, ``phy`` and ``contains`` of kinds that have numbers already.

    Attributes
    ----------
    rows : ndarray of xtc_scan.KIND_ROW
        By number.
    """

    def __init__(self, known: Sequence[Array] | None = None) -> None:
        from psana_dask.readers.xtc_scan import KIND_ROW

        self._known = 0 if known is None else len(known[0])
        self._table: Array = np.zeros(max(64, 2 * self._known), KIND_ROW)
        for name, column in zip(("log", "phy", "contains"), known or (), strict=False):
            self._table[name][: self._known] = column

    @property
    def rows(self) -> Array:
        """The kinds found so far."""
        return self._table[: self._known]

    def number(self, leaves: Array) -> npt.NDArray[np.uint32]:
        """Return the kind of each leaf; kinds not seen before get the next numbers."""
        from psana_dask.readers.xtc_scan import number_kinds

        numbers = np.zeros(len(leaves), np.uint32)
        while (known := number_kinds(leaves, self._table, self._known, numbers)) < 0:
            self._known = len(self._table)
            self._table = np.resize(self._table, 4 * len(self._table))
        self._known = known
        return numbers


class _Walk:
    """One scan of one source: the tables that the compiled walk fills, and its stops."""

    def __init__(
        self,
        source: Source,
        start: int,
        *,
        live: bool,
        containers: bool,
        known: Array | None = None,
        stop: int | None = None,
    ) -> None:
        from psana_dask.readers import xtc_scan

        self._kernel = xtc_scan
        self._source, self._live, self._containers = source, live, int(containers)
        self._known = np.zeros(0, np.int64) if known is None else known
        self._problems: list[Problem] = []
        self._seconds = 0
        self._state = np.zeros(xtc_scan.STATE_SIZE, np.int64)
        self._state[NEXT], self._state[END] = start, source.size()
        self._state[xtc_scan.STOP] = source.size() if stop is None else stop
        self._stops = np.zeros(xtc_scan.MAX_DEPTH, np.int64)
        self._window = np.empty(WINDOW, np.uint8)
        self._allocate(1 << 14)

    def __enter__(self) -> _Walk:
        self._opened = _descriptor(self._source)
        self._descriptor = self._opened.__enter__()
        if isinstance(self._source, MemorySource):
            self._window = np.frombuffer(self._source.data, np.uint8).copy()
            self._state[LENGTH] = self._window.size
        return self

    def __exit__(self, *error: Any) -> None:
        self._opened.__exit__(*error)

    def blocks(self) -> Iterator[Block]:
        """Scan to the end."""
        k = self._kernel
        while True:
            status = k.scan(
                self._descriptor, self._window, self._state, self._stops,
                self._dgrams, self._leaves, self._faults, self._containers,
            )  # fmt: skip
            if status == k.Status.NEED:
                self._refill(int(self._state[NEXT]))
            elif status == k.Status.FULL:
                grow = self._state[k.DGRAMS] == 0
                yield self._flush()
                if grow:
                    self._allocate(2 * len(self._dgrams))
            elif status == k.Status.DONE or not self._go_on(status):
                yield self._flush()
                return

    def go_to_chain(self, offset: int, near: int) -> int:
        """Go to where a chain of datagrams begins from `offset` on and return that; -1 if there is none.

        `near` are the seconds of an earlier datagram.
        """
        self._seconds = near
        place = self._next_chain(offset - ALIGNED, ALIGNED)
        self._state[NEXT] = place
        return place

    def _go_on(self, status: int) -> bool:
        """Find where datagrams go on after a bad header; tell whether they do."""
        k, offset = self._kernel, int(self._state[NEXT])
        cut = status == k.Status.TRUNCATED
        if cut and self._live:
            return False
        self._seconds = self._seconds or self._clock_at(offset)
        first = self._doubtful(offset)
        found = [p for p in (self._next_chain(first), self._next_known(first)) if p >= 0]
        goal = min(found, default=offset)
        if goal < offset:
            self._drop_last()
            offset = first
        what = "the datagram is longer than the file" if cut else "no valid datagram header"
        skipped = min(found, default=int(self._state[END])) - offset
        more = "the next datagrams follow" if found else "nothing readable follows"
        self._problem(offset, f"{what}: {skipped} bytes are passed over; {more}")
        self._state[NEXT] = goal
        return bool(found)

    def _clock_at(self, offset: int) -> int:
        """Return the seconds of the header at `offset`, 0 if it is none: a hint what other headers say."""
        if offset + DGRAM.itemsize > self._state[END]:
            return 0
        row = np.frombuffer(read_bytes(self._source, offset, DGRAM.itemsize), DGRAM)[0]
        return int(row["seconds"]) if is_header(row) else 0

    def _doubtful(self, offset: int) -> int:
        """Return where to search from: the last datagram too if it is damaged, its size may be wrong."""
        k, s = self._kernel, self._state
        if s[k.DGRAMS] == 0:
            return offset
        last = int(self._dgrams["offset"][s[k.DGRAMS] - 1])
        faulty = self._faults["dgram"][: min(s[k.FAULTS], len(self._faults))]
        return last if last in faulty else offset

    def _drop_last(self) -> None:
        k, s = self._kernel, self._state
        s[k.DGRAMS] -= 1
        s[k.LEAVES] = self._dgrams["first_leaf"][s[k.DGRAMS]]

    def _next_chain(self, offset: int, step: int = 1) -> int:
        """Return where after `offset` a chain of valid datagrams begins, or -1."""
        k = self._kernel
        count = int(self._state[k.DGRAMS])
        seconds = int(self._dgrams["timestamp"][count - 1]) >> 32 if count else self._seconds
        self._state[NEXT] = offset
        while True:
            found = int(k.resync(self._descriptor, self._window, self._state, np.uint64(seconds), step))
            if found != UNREAD:
                return found
            self._refill(int(self._state[NEXT]))
            self._state[NEXT] -= step

    def _next_known(self, offset: int) -> int:
        """Return the next place after `offset` where a datagram is said to be, and is; or -1."""
        end = int(self._state[END])
        for place in self._known[self._known > offset].tolist():
            if place + DGRAM.itemsize <= end:
                row = np.frombuffer(read_bytes(self._source, place, DGRAM.itemsize), DGRAM)[0]
                if is_header(row) and place + 20 + int(row["extent"]) <= end:
                    return int(place)
        return -1

    def _refill(self, offset: int) -> None:
        """Give the walk the bytes of the datagram at `offset`, where it cannot read itself."""
        if self._descriptor >= 0 or isinstance(self._source, MemorySource):
            raise ReadError(f"{self._source.name}: cannot read byte {offset}: the file shrank; open it again")
        row = np.frombuffer(read_bytes(self._source, offset, DGRAM.itemsize), DGRAM)[0]
        size = 20 + int(row["extent"]) if is_header(row) else DGRAM.itemsize
        size = min(max(size, 4 * WINDOW), int(self._state[END]) - offset)
        self._window = np.empty(max(size, WINDOW), np.uint8)
        self._source.read_into(offset, self._window[:size])
        self._state[BASE], self._state[LENGTH] = offset, size

    def _allocate(self, rows: int) -> None:
        k = self._kernel
        self._dgrams = np.zeros(rows, k.DGRAM_ROW)
        self._leaves = np.zeros(16 * rows, k.LEAF_ROW)
        self._faults = np.zeros(1000, k.FAULT_ROW)

    def _flush(self) -> Block:
        """Hand out the rows and start empty tables."""
        k, s = self._kernel, self._state
        dgrams, leaves = _joined([self._dgrams[: s[k.DGRAMS]]]), _joined([self._leaves[: s[k.LEAVES]]])
        self._report_faults()
        if len(dgrams):
            self._seconds = int(dgrams["timestamp"][-1]) >> 32
        s[[k.DGRAMS, k.LEAVES, k.FAULTS]] = 0
        problems, self._problems = tuple(self._problems), []
        return Block(dgrams, leaves, problems, int(s[NEXT]))

    def _report_faults(self) -> None:
        count = int(self._state[self._kernel.FAULTS])
        dgrams = self._dgrams[: self._state[self._kernel.DGRAMS]]
        for row in self._faults[: min(count, len(self._faults))]:
            same = dgrams["timestamp"][dgrams["offset"] == row["dgram"]]
            event = int(same[0]) if len(same) else -1
            self._problem(int(row["offset"]), FAULT_TEXT[row["what"]], event)
        if count > len(self._faults):
            self._problem(-1, f"{count - len(self._faults)} more faults like these")

    def _problem(self, offset: int, what: str, event: int = -1) -> None:
        self._problems.append(Problem(self._source.name, offset, event, what))


@contextmanager
def _descriptor(source: Source) -> Iterator[int]:
    """Give the file descriptor of a file, -1 for what is read through Python."""
    if isinstance(source, FileSource):
        with source.descriptor() as descriptor:
            yield descriptor
    else:
        yield -1

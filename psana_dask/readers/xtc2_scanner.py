"""The scan of one stream of XTC2: drives the compiled walk of `xtc2_scan` over its parts.

The walk stops where it needs something: names of a Configure, room in its tables, bytes
that it cannot read, or a place to go on after a corrupt datagram.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from psana_dask.errors import ReadError
from psana_dask.model import BLOCK_COLUMNS, DGRAM_COLUMNS, LAYOUT_COLUMNS, Array, Names, Problem, Progress
from psana_dask.readers.state import BASE, END, LENGTH, NEXT, UNREAD, WINDOW
from psana_dask.readers.xtc2 import is_header, parse_names, recognise
from psana_dask.readers.xtc2_layout import DGRAM, DGRAM_OLD, XTC
from psana_dask.sources import FileSource, MemorySource, Source, read_bytes


@dataclass(frozen=True)
class _NameTables:
    """The Names of one configuration as the arrays that the compiled walk takes."""

    keys: npt.NDArray[np.uint32]
    first_field: npt.NDArray[np.int64]
    arrays: npt.NDArray[np.int64]
    dims: npt.NDArray[np.int64]
    ranks: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]

    @classmethod
    def of(cls, names: tuple[Names, ...]) -> _NameTables:
        ordered = sorted(names, key=lambda n: n.key)
        counts = [len(n.fields) + 1 for n in ordered]  # one more: the end mark
        ranks = [rank for n in ordered for rank in (*(f.rank for f in n.fields), -1)]
        sizes = [size for n in ordered for size in (*(f.dtype.itemsize for f in n.fields), 0)]
        return cls(
            keys=np.array([n.key for n in ordered], np.uint32),
            first_field=np.cumsum([0, *counts])[:-1].astype(np.int64),
            arrays=np.array([sum(f.rank > 0 for f in n.fields) for n in ordered], np.int64),
            dims=np.array([sum(f.rank for f in n.fields) for n in ordered], np.int64),
            ranks=np.array(ranks, np.int64),
            sizes=np.array(sizes, np.int64),
        )


FAULT_TEXT = (
    "a container runs past its parent: the rest of the datagram is lost",
    "a few bytes follow the last container",
    "a container is marked corrupted: its contents are not read",
    "a block without data",
    "a block of names that no Configure declares",
    "a block with too few shapes",
    "a block whose data are shorter than its shapes say",
    "a container of an unknown type is passed over",
)


CHAIN = 64 * 2**20
"""Bytes in which three datagrams are looked for after a corrupt one, where the walk cannot read itself."""


PIECE = 64 * 2**20
MOST_PIECES = 8
"""A file is scanned in as many pieces of at least PIECE bytes side by side."""

_DERIVED = ("run", "step")
_COLUMNS = {
    name: np.dtype(dtype)
    for table in (DGRAM_COLUMNS, BLOCK_COLUMNS, LAYOUT_COLUMNS, {"words": "<u4"})
    for name, dtype in table.items()
    if name not in _DERIVED
}
_POINTS_AT = {"first_block": "key", "first_word": "words"}


class _Column:
    """A column that grows by pieces, which are joined when it is asked for.

    Parameters
    ----------
    dtype : numpy.dtype

    Attributes
    ----------
    pieces : list of (array, int)
        What was appended: values, and what is to be added to each.
    """

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._dtype = dtype
        self.pieces: list[tuple[Array, int]] = []
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def append(self, values: Array, add: int = 0) -> None:
        """Keep `values`, each to be raised by `add`; they must not change later."""
        self.pieces.append((values, add))
        self._length += len(values)

    def closed(self, last: int | None = None) -> Array:
        """Return the values as one array, and `last` behind them if it is given."""
        closing = [] if last is None else [(np.array([last], self._dtype), 0)]
        whole = self._joined([*self.pieces, *closing])
        self.pieces = [(whole[: self._length], 0)]
        return whole

    def _joined(self, pieces: list[tuple[Array, int]]) -> Array:
        first, add = pieces[0] if pieces else (np.empty(0, self._dtype), 0)
        if len(pieces) < 2 and add == 0 and first.dtype == self._dtype and first.flags.carray:
            return first
        whole = np.empty(sum(len(values) for values, _ in pieces), self._dtype)
        end = 0
        for values, add in pieces:
            end += len(values)
            np.add(values, add, out=whole[end - len(values) : end], casting="unsafe")
        return whole


WORTH_THREADS = 100_000
"""Blocks from which on threads join the columns: to start them takes longer than the few of a batch."""


class Scanner:
    """Finds everything in one stream, part by part.

    Parameters
    ----------
    configs : sequence of tuple of Names
        Configurations known from before; the last one is in force.
    live : bool
        Files may still grow: an unfinished last datagram is no problem.
    progress : callable, optional
        Called with a file, the bytes scanned and its size.

    Attributes
    ----------
    configs : list of tuple of Names
    problems : list of Problem
    """

    def __init__(
        self,
        configs: tuple[tuple[Names, ...], ...] = (),
        *,
        live: bool = False,
        progress: Progress | None = None,
    ) -> None:
        self.configs = list(configs)
        self.problems: list[Problem] = []
        self._live = live
        self.progress = progress
        self._columns = {name: _Column(dtype) for name, dtype in _COLUMNS.items()}

    def scan(self, source: Source, part: int, start: int = 0, known: Array | None = None) -> int:
        """Scan `source` from byte `start`; return the first byte that belongs to no whole datagram.

        `known` (sorted offsets) are places where datagrams are said to begin: the scan tries
        them where it meets a corrupt header.
        """
        header = recognise(source)
        if header is None:
            if not self._live:  # else it has not begun
                self.problem(source, 0, "not XTC2: no chain of datagram headers at its start")
            return start
        old = header == DGRAM_OLD
        if not self._live and isinstance(source, FileSource):
            start = self._side_by_side(source, part, old, start)
        with _Walk(self, source, part, old, start, known) as walk:
            return walk.run()

    def _side_by_side(self, source: Source, part: int, old: bool, start: int) -> int:
        """Scan pieces of a large file in threads; return the byte from where one walk must go on.

        Where a piece begins is guessed as after a corrupt datagram. Pieces are taken in order
        as long as each begins where the one before it ended, without a problem and under
        the same names: the rows are then those of one walk.
        """
        count = min(MOST_PIECES, (source.size() - start) // PIECE)
        if count < 2:
            return start
        with _Walk(self, source, part, old, start, None, stop=start + 1) as walk:
            at = walk.run()  # a Configure, as a rule: the other pieces need its names
        if not self.configs or not self.has_rows() or self.problems:
            return at
        near = int(self._columns["timestamp"].closed()[-1]) >> 32
        bounds = np.linspace(at, source.size(), count + 1).astype(np.int64).tolist()

        def piece(first: int, stop: int) -> tuple[int, int, Scanner]:
            scanner = Scanner(tuple(self.configs))
            with _Walk(scanner, source, part, old, first, None, stop=stop) as walk:
                begin = first if first == at else walk.go_to_chain(first - 1, near)
                return begin, walk.run() if begin >= 0 else -1, scanner

        with ThreadPoolExecutor(min(count, os.cpu_count() or 1)) as pool:
            for begin, end, scanner in pool.map(piece, bounds[:-1], bounds[1:]):
                if begin != at or scanner.problems or len(scanner.configs) != len(self.configs):
                    return at
                self._take(scanner)
                at = end
        return at

    def has_rows(self) -> bool:
        """Tell whether any datagram was found."""
        return len(self._columns["timestamp"]) > 0

    def columns(self) -> dict[str, Array]:
        """Return the columns of all that was scanned, as `model` names them."""
        closing = {"first_block": len(self._columns["key"]), "first_word": len(self._columns["words"])}

        def joined(name: str) -> Array:
            return self._columns[name].closed(closing.get(name))

        if len(self._columns["key"]) < WORTH_THREADS:
            return {name: joined(name) for name in _COLUMNS}
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:  # joining is copying, which threads share
            return dict(zip(_COLUMNS, pool.map(joined, _COLUMNS), strict=True))

    def add(self, rows: Mapping[str, Array]) -> None:
        """Append columns whose row numbers start at 0; the arrays are kept."""
        self._append({name: [(rows[name], 0)] for name in _COLUMNS})

    def _take(self, piece: Scanner) -> None:
        """Append what the scanner of the next piece of a file found."""
        self._append({name: column.pieces for name, column in piece._columns.items()})

    def _append(self, pieces: Mapping[str, list[tuple[Array, int]]]) -> None:
        before = {name: len(self._columns[name]) for name in ("key", "layout_key", "words")}
        for name, column in self._columns.items():
            shift = before.get(_POINTS_AT.get(name, ""), 0)
            for values, add in pieces[name]:
                if name == "layout":  # -1 stays: a block without one
                    column.append(np.where(values >= 0, values + before["layout_key"], -1))
                else:
                    column.append(values, add + shift)

    def problem(self, source: Source, offset: int, what: str, event: int = -1) -> None:
        """Note what is wrong at a byte of a file."""
        self.problems.append(Problem(source.name, offset, event, what))


def chain_after(source: Source, offset: int, near: int, *, old: bool = False) -> int:
    """Return where after byte `offset` a chain of datagrams begins, or -1.

    `near` are the seconds of an earlier datagram, 0 if none is known.
    """
    with _Walk(Scanner(), source, 0, old, offset, None) as walk:
        return walk.go_to_chain(offset, near)


class _Walk:
    """One scan of one source: the tables that the compiled walk fills, and its stops."""

    def __init__(
        self,
        scanner: Scanner,
        source: Source,
        part: int,
        old: bool,
        start: int,
        known: Array | None,
        stop: int | None = None,
    ) -> None:
        from psana_dask.readers import xtc2_scan

        self._kernel = xtc2_scan
        self._scanner, self._source, self._part, self._old = scanner, source, part, int(old)
        self._known = np.zeros(0, np.int64) if known is None else known
        self._state = np.zeros(xtc2_scan.STATE_SIZE, np.int64)
        self._state[NEXT] = start
        self._state[END] = source.size()
        self._state[xtc2_scan.STOP] = source.size() if stop is None else stop
        self._state[xtc2_scan.CONFIGURED] = -1
        self._window = np.empty(WINDOW, np.uint8)
        self._recent = [(start, 0)]  # offset and seconds of the last datagrams: a resync looks from there on
        self._resumed = start  # where the last resync went on: never back behind that
        self._allocate(1 << 14)
        self._use_names()

    def __enter__(self) -> _Walk:
        self._opened = _descriptor(self._source)
        self._descriptor = self._opened.__enter__()
        if isinstance(self._source, MemorySource):
            self._window = np.frombuffer(self._source.data, np.uint8).copy()
            self._state[LENGTH] = self._window.size
        return self

    def __exit__(self, *error: Any) -> None:
        self._opened.__exit__(*error)

    def run(self) -> int:
        """Scan to the end; return the byte after the last whole datagram."""
        k = self._kernel
        while True:
            status = self._step()
            offset = int(self._state[NEXT])
            if status == k.Status.DONE or not self._go_on(status, offset):
                self._flush()
                return offset

    def go_to_chain(self, offset: int, near: int) -> int:
        """Go to where a chain of datagrams begins after `offset` and return that; -1 if there is none."""
        place = self._next_chain(offset, near)
        self._state[NEXT] = self._resumed = place
        self._recent = [(place, near)]
        return place

    def _step(self) -> int:
        t = self._tables
        return int(
            self._kernel.scan(
                self._descriptor, self._window, self._state, self._old,
                t.keys, t.first_field, t.arrays, t.dims, t.ranks, t.sizes, self._last,
                self._dgrams, self._blocks, self._layouts, self._faults, self._words,
            )
        )  # fmt: skip

    def _go_on(self, status: int, offset: int) -> bool:
        """Do what the compiled walk asks for; tell whether it can go on."""
        k = self._kernel
        if status == k.Status.FULL:
            if self._state[k.DGRAMS] == 0:
                self._allocate(2 * len(self._dgrams))
            self._flush()
        elif status == k.Status.CONFIGURE:
            self._flush()
            self._configure(offset)
        elif status == k.Status.NEED:
            self._refill(offset)
        elif status == k.Status.TRUNCATED and self._scanner._live:
            return False
        else:
            return self._resync(status, offset)
        return True

    def _allocate(self, rows: int) -> None:
        k = self._kernel
        self._dgrams = np.zeros(rows, k.DGRAM_ROW)
        self._blocks = np.zeros(8 * rows, k.BLOCK_ROW)
        self._layouts = np.zeros(4 * rows, k.LAYOUT_ROW)
        self._words = np.zeros(16 * rows, np.uint32)
        self._faults = np.zeros(1000, k.FAULT_ROW)

    def _use_names(self) -> None:
        names = self._scanner.configs[-1] if self._scanner.configs else ()
        self._tables = _NameTables.of(names)
        self._last = np.full(len(self._tables.keys), -1, np.int64)

    def _configure(self, offset: int) -> None:
        """Parse the Configure at `offset`; the walk then takes it like any other datagram."""
        header = DGRAM_OLD if self._old else DGRAM
        row = np.frombuffer(read_bytes(self._source, offset, header.itemsize), header)[0]
        payload = read_bytes(self._source, offset + header.itemsize, int(row["extent"]) - XTC.itemsize)
        names, faults = parse_names(payload)
        for where, what in faults:
            self._scanner.problem(self._source, offset + header.itemsize + where, what)
        if names or not self._scanner.configs:
            self._scanner.configs.append(tuple(names))
        else:
            self._scanner.problem(self._source, offset, "a Configure without names: the one before it stays")
        self._state[self._kernel.CONFIGURED] = offset
        self._use_names()

    def _refill(self, offset: int, least: int = 4 * WINDOW) -> None:
        """Give the walk the bytes of the datagram at `offset`, where it cannot read itself."""
        if self._descriptor >= 0 or isinstance(self._source, MemorySource):
            raise ReadError(f"{self._source.name}: cannot read byte {offset}: the file shrank; open it again")
        header = DGRAM_OLD if self._old else DGRAM
        row = np.frombuffer(read_bytes(self._source, offset, header.itemsize), header)[0]
        size = header.itemsize + int(row["extent"]) if is_header(row) else header.itemsize
        size = min(max(size, least), int(self._state[END]) - offset)
        self._window = np.empty(max(size, WINDOW), np.uint8)
        self._source.read_into(offset, self._window[:size])
        self._state[BASE], self._state[LENGTH] = offset, size

    def _resync(self, status: int, offset: int) -> bool:
        """Find where datagrams go on after a bad header; report what is passed over.

        The search begins inside the datagram before: its extent may be what is wrong. Where
        that finds nothing it may be no datagram at all, and the one before it is asked.
        """
        k = self._kernel
        self._flush()
        for latest, seconds in reversed(self._recent):
            before = min(max(latest, self._resumed), offset)
            places = (self._next_chain(before, seconds), self._next_known(before))
            found = [place for place in places if place >= 0]
            if found:
                break
        place = min(found, default=offset)
        if place < offset:
            what = f"the datagram says that it is longer than it is: the next one begins at byte {place}"
            self._scanner.problem(self._source, before, what)
        else:
            cut = status == k.Status.TRUNCATED
            what = "the datagram is longer than the file" if cut else "no valid datagram header"
            skipped = min(found, default=int(self._state[END])) - offset
            more = "the next datagrams follow" if found else "nothing readable follows"
            self._scanner.problem(self._source, offset, f"{what}: {skipped} bytes are passed over; {more}")
        self._state[NEXT] = self._resumed = place
        return bool(found)

    def _next_chain(self, offset: int, near: int) -> int:
        """Return where after `offset` a chain of datagrams begins, their times near `near` (s); or -1."""
        k = self._kernel
        self._state[NEXT] = offset
        while True:
            seconds = np.uint64(near)
            found = int(k.resync(self._descriptor, self._window, self._state, self._old, seconds))
            if found != UNREAD:
                return found
            self._refill(int(self._state[NEXT]), CHAIN)
            self._state[NEXT] -= 1

    def _next_known(self, offset: int) -> int:
        """Return the next place after `offset` where a datagram is said to be, and is; or -1."""
        header = DGRAM_OLD if self._old else DGRAM
        end = int(self._state[END])
        for place in self._known[self._known > offset].tolist():
            if place + header.itemsize <= end:
                row = np.frombuffer(read_bytes(self._source, place, header.itemsize), header)[0]
                if is_header(row) and place + header.itemsize - XTC.itemsize + int(row["extent"]) <= end:
                    return int(place)
        return -1

    def _flush(self) -> None:
        """Hand the rows to the scanner and start empty tables."""
        k, s = self._kernel, self._state
        dgrams, blocks = self._dgrams[: s[k.DGRAMS]], self._blocks[: s[k.BLOCKS]]
        layouts, words = self._layouts[: s[k.LAYOUTS]], self._words[: s[k.WORDS]]
        self._report_faults()
        if len(dgrams):
            last = dgrams[-3:]
            seconds = (last["timestamp"] >> np.uint64(32)).tolist()
            self._recent = [*self._recent, *zip(last["offset"].tolist(), seconds, strict=True)][-3:]
            config = np.int16(len(self._scanner.configs) - 1)
            self._scanner.add(
                {name: dgrams[name].astype(_COLUMNS[name]) for name in _DGRAM_NAMES}
                | {name: blocks[source].astype(_COLUMNS[name]) for name, source in _BLOCK_NAMES}
                | {
                    "part": np.broadcast_to(np.uint16(self._part), len(dgrams)),
                    "config": np.broadcast_to(config, len(dgrams)),
                    "layout_key": layouts["key"].copy(),
                    "layout_config": np.broadcast_to(config, len(layouts)),
                    "first_word": layouts["first_word"].copy(),
                    "words": words.copy(),
                }
            )
        if self._scanner.progress is not None:
            self._scanner.progress(self._source.name, int(s[NEXT]), int(s[END]))
        s[[k.DGRAMS, k.BLOCKS, k.LAYOUTS, k.WORDS, k.FAULTS]] = 0
        self._last[:] = -1

    def _report_faults(self) -> None:
        count = int(self._state[self._kernel.FAULTS])
        for row in self._faults[: min(count, len(self._faults))]:
            self._scanner.problem(self._source, int(row["offset"]), FAULT_TEXT[row["what"]])
        if count > len(self._faults):
            self._scanner.problem(self._source, -1, f"{count - len(self._faults)} more faults like these")


_DGRAM_NAMES = ("timestamp", "time", "service", "offset", "size", "env", "damage", "first_block")
_BLOCK_NAMES = (("key", "key"), ("data", "data"), ("block_damage", "damage"), ("layout", "layout"))


@contextmanager
def _descriptor(source: Source) -> Iterator[int]:
    """Lend a descriptor for the compiled walk; -1 where it must be given the bytes."""
    if isinstance(source, FileSource):
        with source.descriptor() as descriptor:
            yield descriptor
    else:
        yield -1

"""LCLS-II XTC2: from bytes to index rows and to the meaning of blocks.

`recognise` tells from the first headers whether a file is XTC2, `parse_names` reads what
a Configure says about the blocks, and `Scanner` drives the compiled walk of
`xtc2_scan` over the parts of one stream.  Format: ``docs/formats/xtc2.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from psana_dask.errors import FormatError, ReadError
from psana_dask.model import Array, FieldSpec, Kind, Names, Problem
from psana_dask.readers.state import BASE, END, LENGTH, NEXT, UNREAD, WINDOW
from psana_dask.readers.xtc2_layout import (
    CHARSTR,
    CORRUPTED,
    DGRAM,
    DGRAM_OLD,
    ENUMDICT,
    ENUMVAL,
    EPOCH_1990,
    FIELD,
    MAX_RANK,
    NAMES,
    TYPES,
    XTC,
    TransitionId,
    TypeId,
)
from psana_dask.sources import FileSource, MemorySource, Source, read_bytes

Progress = Callable[[str, int, int], None]
"""Called with a path, the bytes scanned and the size of the file."""

_KINDS = {CHARSTR: Kind.STRING, ENUMVAL: Kind.ENUM, ENUMDICT: Kind.ENUM_ENTRY}


# ---- recognising a file -------------------------------------------------------------------------
def recognise(source: Source) -> np.dtype[Any] | None:
    """Return the datagram header that `source` uses, DGRAM or DGRAM_OLD; None if it is not XTC2.

    There is no magic number: the headers must chain from one to the next.
    """
    links = {old: _chain(source, header) for old, header in ((False, DGRAM), (True, DGRAM_OLD))}
    if max(links.values()) <= 0:
        return None
    return DGRAM_OLD if links[True] > links[False] else DGRAM


def _chain(source: Source, header: np.dtype[Any], most: int = 4) -> int:
    """Return how many of the first datagrams have valid headers."""
    end, offset, links, declared = source.size(), 0, 0, False
    while links < most and offset + header.itemsize <= end:
        row = np.frombuffer(read_bytes(source, offset, header.itemsize), header)[0]
        if not is_header(row):
            return links if links > 1 or declared else 0
        if links == 0:
            declared = _declares(source, row, header)
        offset += header.itemsize - XTC.itemsize + int(row["extent"])
        links += 1
    return links


def _declares(source: Source, row: Any, header: np.dtype[Any]) -> bool:
    """Tell whether the first datagram is a Configure that begins with Names: no other proof is needed."""
    if service_of(row) != TransitionId.CONFIGURE or source.size() < header.itemsize + XTC.itemsize:
        return False
    first = np.frombuffer(read_bytes(source, header.itemsize, XTC.itemsize), XTC)[0]
    smallest = XTC.itemsize + NAMES.itemsize
    return int(first["contains"]) & 0xFFF == TypeId.NAMES and int(first["extent"]) >= smallest


def is_header(row: Any) -> bool:
    """Tell whether a header row (DGRAM or DGRAM_OLD) is valid."""
    return int(row["contains"]) == 0 and int(row["extent"]) >= XTC.itemsize and service_of(row) in _SERVICES


def service_of(row: Any) -> int:
    """Return the transition of a header row."""
    return int(row["pulse"]) >> 56 & 15 if "pulse" in row.dtype.names else int(row["env"]) >> 24 & 15


_SERVICES = frozenset(TransitionId)


# ---- what the blocks mean -----------------------------------------------------------------------
def parse_names(payload: bytes) -> tuple[list[Names], list[tuple[int, str]]]:
    """Read the Names of a Configure.

    Parameters
    ----------
    payload : bytes
        What follows the datagram header.

    Returns
    -------
    names : list of Names
    faults : list of (int, str)
        Offset in the payload and what is wrong there.
    """
    names: dict[int, Names] = {}
    faults: list[tuple[int, str]] = []
    for offset, header in _containers(payload):
        if int(header["contains"]) & 0xFFF != TypeId.NAMES:
            continue
        try:
            found = _names(payload[offset : offset + int(header["extent"])])
        except FormatError as error:
            faults.append((offset, error.what))
            continue
        if found.key in names:
            faults.append((offset, f"second Names with key {found.key:#x}: the first one is used"))
        names.setdefault(found.key, found)
    return list(names.values()), faults


def _containers(payload: bytes) -> Iterator[tuple[int, Any]]:
    """Yield (offset, header) of every container that is no Parent; Parents are entered."""
    offset = 0
    while offset + XTC.itemsize <= len(payload):
        header = np.frombuffer(payload, XTC, 1, offset)[0]
        extent = int(header["extent"])
        if extent < XTC.itemsize or offset + extent > len(payload):
            return  # the compiled walk reports it
        parent = int(header["contains"]) & 0xFFF == TypeId.PARENT
        if parent and not int(header["damage"]) & CORRUPTED:
            offset += XTC.itemsize
            continue
        if not parent:
            yield offset, header
        offset += extent


def _names(container: bytes) -> Names:
    fields_size = len(container) - XTC.itemsize - NAMES.itemsize
    if fields_size < 0 or fields_size % FIELD.itemsize:
        raise FormatError(f"a Names container of {len(container)} bytes, which no number of fields gives")
    header = np.frombuffer(container, XTC, 1)[0]
    row = np.frombuffer(container, NAMES, 1, XTC.itemsize)[0]
    fields = np.frombuffer(container, FIELD, offset=XTC.itemsize + NAMES.itemsize)
    version = int(row["alg_version"])
    return Names(
        key=int(header["src"]) & 0x0FFFFFFF,
        detector=text(row["det_name"]),
        det_type=text(row["det_type"]),
        det_id=text(row["det_id"]),
        algorithm=text(row["alg_name"]),
        version=(version >> 16 & 0xFF, version >> 8 & 0xFF, version & 0xFF),
        segment=int(row["segment"]),
        fields=tuple(map(_field, fields["name"].tolist(), fields["type"].tolist(), fields["rank"].tolist())),
    )


def _field(name: bytes, code: int, rank: int) -> FieldSpec:
    if code >= len(TYPES) or rank > MAX_RANK:
        raise FormatError(f"field {text(name)!r} has type {code} and rank {rank}, which do not exist")
    return FieldSpec(text(name), TYPES[code], rank, _KINDS.get(code, Kind.NUMBER))


def text(raw: bytes) -> str:
    """Return a C string: what comes before the first NUL."""
    return bytes(raw).split(b"\0", 1)[0].decode("utf-8", "replace")


# ---- scanning -----------------------------------------------------------------------------------
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
        self._chunks: list[dict[str, Array]] = []

    def scan(self, source: Source, part: int, start: int = 0, known: Array | None = None) -> int:
        """Scan `source` from byte `start`; return the first byte that belongs to no whole datagram.

        `known` (sorted offsets) are places where datagrams are said to begin: the scan tries
        them where it meets a corrupt header.
        """
        header = recognise(source)
        if header is None:
            self.problem(source, 0, "not XTC2: no chain of datagram headers at its start")
            return start
        with _Walk(self, source, part, header == DGRAM_OLD, start, known) as walk:
            return walk.run()

    def has_rows(self) -> bool:
        """Tell whether any datagram was found."""
        return bool(self._chunks)

    def columns(self) -> dict[str, Array]:
        """Return the columns of all that was scanned, as `model` names them."""
        merged = {k: np.concatenate([c[k] for c in self._chunks]) for k in _EMPTY}
        for column in ("first_block", "first_word"):
            total = len(merged["key" if column == "first_block" else "words"])
            merged[column] = np.append(merged[column], total)
        return merged

    def add(self, chunk: dict[str, Array]) -> None:
        """Append columns whose row numbers start at 0."""
        rows = {k: sum(len(c[k]) for c in self._chunks) for k in ("key", "layout_key", "words")}
        chunk["first_block"] = chunk["first_block"] + rows["key"]
        known = chunk["layout"] >= 0
        chunk["layout"] = np.where(known, chunk["layout"] + rows["layout_key"], -1).astype(np.int32)
        chunk["first_word"] = chunk["first_word"] + rows["words"]
        self._chunks.append(chunk)

    def problem(self, source: Source, offset: int, what: str, event: int = -1) -> None:
        """Note what is wrong at a byte of a file."""
        self.problems.append(Problem(source.name, offset, event, what))


class _Walk:
    """One scan of one source: the tables that the compiled walk fills, and its stops."""

    def __init__(
        self, scanner: Scanner, source: Source, part: int, old: bool, start: int, known: Array | None
    ) -> None:
        from psana_dask.readers import xtc2_scan

        self._kernel = xtc2_scan
        self._scanner, self._source, self._part, self._old = scanner, source, part, int(old)
        self._known = np.zeros(0, np.int64) if known is None else known
        self._state = np.zeros(xtc2_scan.STATE_SIZE, np.int64)
        self._state[NEXT] = start
        self._state[END] = source.size()
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
            self._scanner.add(
                {name: dgrams[name].copy() for name in _DGRAM_NAMES}
                | {name: blocks[source].copy() for name, source in _BLOCK_NAMES}
                | {
                    "service": dgrams["service"].astype(np.uint8),
                    "part": np.full(len(dgrams), self._part, np.uint16),
                    "config": np.full(len(dgrams), len(self._scanner.configs) - 1, np.int16),
                    "time": unix_ns(dgrams["timestamp"]),
                    "layout_key": layouts["key"].copy(),
                    "layout_config": np.full(len(layouts), len(self._scanner.configs) - 1, np.int16),
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


_DGRAM_NAMES = ("timestamp", "offset", "size", "env", "damage", "first_block")
_BLOCK_NAMES = (("key", "key"), ("data", "data"), ("block_damage", "damage"), ("layout", "layout"))
_EMPTY = (
    "timestamp", "time", "service", "part", "offset", "size", "env", "damage", "config", "first_block",
    "key", "data", "block_damage", "layout", "layout_key", "layout_config", "first_word", "words",
)  # fmt: skip


@contextmanager
def _descriptor(source: Source) -> Iterator[int]:
    """Lend a descriptor for the compiled walk; -1 where it must be given the bytes."""
    if isinstance(source, FileSource):
        with source.descriptor() as descriptor:
            yield descriptor
    else:
        yield -1


def unix_ns(timestamp: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """Return nanoseconds since 1970 of XTC2 time stamp words (seconds since 1990 << 32 | ns)."""
    seconds = (timestamp >> np.uint64(32)).astype(np.int64) + EPOCH_1990
    return seconds * 1_000_000_000 + (timestamp & np.uint64(0xFFFFFFFF)).astype(np.int64)

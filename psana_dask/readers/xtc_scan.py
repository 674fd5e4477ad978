"""Compiled walk over XTC (LCLS-1) datagrams: what lies where, in one pass.

`scan` hops from datagram to datagram, walks the container tree of each and writes rows of
two tables (datagrams, leaves).  It stops when it needs something from the caller
(`Status`) and goes on when called again: its state lives in one small array.  Payloads are
never read, only headers.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from psana_dask.jit import array, int32, int64, njit, uint64, void
from psana_dask.readers.state import BASE, END, NEXT, UNREAD
from psana_dask.readers.window import BYTES, STATE, Bytes, Ints, Table, fetch, u4

MAX_EXTENT = 256 * 1024 * 1024
"""The largest datagram that psana's own reader takes."""

MAX_DEPTH = 32


class Status(IntEnum):
    """Why `scan` came back."""

    DONE = 0  # the end of the file, or STOP: datagrams that begin there are another walk's
    FULL = 1  # an output table has no room for the next datagram
    NEED = 2  # bytes outside the window (memory), or that cannot be read (file)
    BAD_HEADER = 3  # no valid datagram header at NEXT
    TRUNCATED = 4  # the datagram at NEXT is longer than the file


class Fault(IntEnum):
    """What is wrong inside a datagram."""

    EXTENT = 0
    HEADER = 1
    TRAILING = 2
    DEPTH = 3


# rows of the state array, after those of `window`
DGRAMS, LEAVES, FAULTS, STOP = range(4, 8)
STATE_SIZE = 8

# fmt: off
DGRAM_ROW = np.dtype([
    ("timestamp", "<u8"),      # seconds << 32 | nanoseconds
    ("offset",    "<i8"),      # byte of the header in the file
    ("first_leaf", "<i8"),     # row of its first leaf
    ("size",      "<u4"),      # bytes, header included
    ("ticks",     "<u4"),      # the header's word: ticks and control byte
    ("fiducial",  "<u4"),      # the header's word: fiducial and vector
    ("env",       "<u4"),
    ("damage",    "<u4"),
    ("service",   "<u4"),
])
LEAF_ROW = np.dtype([
    ("at",       "<u4"),       # byte of the container's header, from the start of the datagram
    ("extent",   "<u4"),       # bytes, header of 20 included
    ("log",      "<u4"),
    ("phy",      "<u4"),
    ("contains", "<u4"),
    ("damage",   "<u4"),
    ("depth",    "<u4"),       # 0: the datagram's own container
])
KIND_ROW = np.dtype([          # what leaves can be: a source and a type
    ("log",      "<u4"),       # of the first leaf of this kind; its process id does not count
    ("phy",      "<u4"),
    ("contains", "<u4"),
])
FAULT_ROW = np.dtype([("offset", "<i8"), ("dgram", "<i8"), ("what", "<i8")])
# fmt: on

_DGRAMS, _LEAVES, _FAULTS, _KINDS = (
    array(row, writable=True) for row in (DGRAM_ROW, LEAF_ROW, FAULT_ROW, KIND_ROW)
)


@njit(void(STATE, _FAULTS, int64, int64), counted=False)
def report(state: Ints, faults: Table, what: int, offset: int) -> None:
    """Note a fault of the datagram in hand; beyond the table's room they are only counted."""
    n = state[FAULTS]
    if n < faults.size:
        faults[n].offset = offset
        faults[n].dgram = state[NEXT]
        faults[n].what = what
    state[FAULTS] = n + 1


@njit(void(BYTES, int64, int64, int64, STATE, _LEAVES), counted=False, inline="always")
def add_leaf(
    window: Bytes, i: int, offset: int, depth: int, state: Ints, leaves: Table
) -> None:
    """Append the container whose header is at window[i]."""
    row = state[LEAVES]
    leaves[row].at = offset - state[NEXT]
    leaves[row].damage = u4(window, i)
    leaves[row].log = u4(window, i + 4)
    leaves[row].phy = u4(window, i + 8)
    leaves[row].contains = u4(window, i + 12)
    leaves[row].extent = u4(window, i + 16)
    leaves[row].depth = depth
    state[LEAVES] = row + 1


@njit(int64(int64, int64, int64, int64), counted=False, inline="always")
def header_fault(extent: int, room: int, contains: int, log: int) -> int:
    """Return what is wrong with a container header, -1 if nothing."""
    if extent < 20 or extent & 3 or extent > room:
        return Fault.EXTENT
    if contains & 0xFFFF >= 124 or log >> 24 >= 7:
        return Fault.HEADER
    return -1


@njit(
    int64(int32, BYTES, STATE, _LEAVES, _FAULTS, STATE, int64, int64, int64),
    counted=False, inline="always",
)  # fmt: skip
def walk(
    descriptor: int, window: Bytes, state: Ints, leaves: Table, faults: Table, stops: Ints,
    start: int, stop: int, containers: int,
) -> int:  # fmt: skip
    """Add the leaves of the datagram's container at [start, stop).

    A container marked incomplete is a leaf: its payload must not be entered.  After a bad
    header the rest of its parent is passed over and the parent's siblings follow.
    """
    depth = 0
    stops[0] = stop
    position = start
    while True:
        while depth > 0 and position >= stops[depth]:
            position = stops[depth]
            depth -= 1
        if position >= stop:
            return Status.DONE
        if stops[depth] - position < 20:
            report(state, faults, Fault.TRAILING, position)
            position = stops[depth]
            continue
        i = fetch(descriptor, window, state, position, 20)
        if i < 0:
            return Status.NEED
        contains, extent = u4(window, i + 12), u4(window, i + 16)
        fault = header_fault(extent, stops[depth] - position, contains, u4(window, i + 4))
        if fault >= 0:
            report(state, faults, fault, position)
            position = stops[depth]
            continue
        if state[LEAVES] >= leaves.size:
            return Status.FULL
        nested = contains & 0xFFFF == 1 and not u4(window, i) & 0x8000
        if containers or not nested:
            add_leaf(window, i, position, depth, state, leaves)
        if not nested:
            position += extent
        elif depth + 1 < stops.size:
            depth += 1
            stops[depth] = position + extent
            position += 20
        else:
            report(state, faults, Fault.DEPTH, position)
            position += extent


@njit(int64(BYTES, int64), counted=False, inline="always")
def service_of(window: Bytes, i: int) -> int:
    """Return the transition of the header at window[i], or -1 if it is no valid header."""
    service = np.int64(window[i + 11]) & 15
    extent = u4(window, i + 36)
    fault = header_fault(extent, MAX_EXTENT, u4(window, i + 32), u4(window, i + 24))
    return int(service) if fault < 0 and service <= 12 else -1


@njit(int64(BYTES, int64, int64), counted=False, inline="always")
def is_likely(window: Bytes, i: int, seconds: int) -> int:
    """Tell whether window[i] is surely a header: valid, of a known transition, within a day of `seconds`.

    0 seconds: no clock is known yet.
    """
    near = u4(window, i + 4) - seconds if seconds else 0
    service = service_of(window, i)
    sequence = window[i + 11] >> 4 & 7
    return int(service >= 2 and sequence < 3 and u4(window, i) < 1000000000 and -86400 <= near <= 86400)


@njit(int64(int32, BYTES, STATE, STATE, _DGRAMS, _LEAVES, _FAULTS, int64), counted=False)
def scan(
    descriptor: int, window: Bytes, state: Ints, stops: Ints,
    dgrams: Table, leaves: Table, faults: Table, containers: int,
) -> int:  # fmt: skip
    """Add datagrams from ``state[NEXT]`` on; return a `Status`.

    Parameters
    ----------
    descriptor : int32
        Open file, or -1: then `window` holds the bytes [BASE, BASE + LENGTH).
    window : (bytes,) uint8
        At least WINDOW long where there is a descriptor.
    state : (STATE_SIZE,) int64
        Datagrams from NEXT on, those that begin before STOP; END is the size of the file.
    stops : (MAX_DEPTH,) int64
        Room for the ends of nested containers.
    dgrams, leaves, faults : tables to fill
    containers : int
        1: list containers too, not leaves alone.
    """
    while True:
        offset = state[NEXT]
        if offset >= state[STOP]:
            return Status.DONE
        if offset + 40 > state[END]:
            return Status.TRUNCATED if offset < state[END] else Status.DONE
        if state[DGRAMS] >= dgrams.size:
            return Status.FULL
        i = fetch(descriptor, window, state, offset, 40)
        if i < 0:
            return Status.NEED
        service = service_of(window, i)
        if service < 0:
            return Status.BAD_HEADER
        size = 20 + u4(window, i + 36)
        if offset + size > state[END]:
            return Status.TRUNCATED
        row = state[DGRAMS]
        dgrams[row].timestamp = np.uint64(u4(window, i + 4)) << np.uint64(32) | np.uint64(u4(window, i))
        dgrams[row].offset = offset
        dgrams[row].first_leaf = state[LEAVES]
        dgrams[row].size = size
        dgrams[row].ticks = u4(window, i + 8)
        dgrams[row].fiducial = u4(window, i + 12)
        dgrams[row].env = u4(window, i + 16)
        dgrams[row].damage = u4(window, i + 20)
        dgrams[row].service = service
        undo_leaves, undo_faults = state[LEAVES], state[FAULTS]
        status = walk(
            descriptor, window, state, leaves, faults, stops, offset + 20, offset + size, containers
        )  # fmt: skip
        if status != Status.DONE:
            state[LEAVES], state[FAULTS] = undo_leaves, undo_faults
            return status
        state[DGRAMS] = row + 1
        state[NEXT] = offset + size


@njit(int64(int32, BYTES, STATE, uint64, int64), counted=False)
def resync(descriptor: int, window: Bytes, state: Ints, seconds: int, step: int) -> int:
    """Return the next offset after ``state[NEXT]`` where a chain of datagrams begins again, or -1.

    Every `step` bytes are tried; headers of an intact file lie at multiples of 4.

    A chain is three likely headers, or fewer that end exactly at the end of the file.  UNREAD:
    bytes are needed from ``state[NEXT]`` on (memory) or cannot be read (file).
    """
    while True:
        state[NEXT] += step
        position = state[NEXT]
        links = 0
        while links < 3 and position + 40 <= state[END]:
            i = fetch(descriptor, window, state, position, 40)
            if i < 0:
                if descriptor < 0 and state[BASE] != state[NEXT]:
                    return UNREAD
                links = 3 if links > 0 and descriptor < 0 else links  # as far as bytes in hand tell
                break
            if not is_likely(window, i, int(seconds)):
                break
            size = 20 + u4(window, i + 36)
            if position + size > state[END]:
                break
            position += size
            links += 1
        if links == 3 or (links > 0 and position == state[END]):
            return state[NEXT]
        if state[NEXT] + 40 >= state[END]:
            return -1


@njit(int64(array(LEAF_ROW), _KINDS, int64, array("u4", writable=True)))
def number_kinds(leaves: Table, kinds: Table, known: int, numbers: Table) -> int:
    """Write the kind of each leaf, new ones added to `kinds`; return how many are known then, -1 if too many.

    Datagrams repeat their leaves, so the kind that followed the last time is tried first.
    """
    follower = np.zeros(kinds.size, np.int64)
    last = 0
    for row in range(leaves.size):
        level, phy, contains = leaves[row].log >> 24, leaves[row].phy, leaves[row].contains
        kind, tried = follower[last], 0
        while tried < known:
            if kind >= known:
                kind = 0
            if kinds[kind].phy == phy and kinds[kind].contains == contains and kinds[kind].log >> 24 == level:
                break
            kind += 1
            tried += 1
        if tried == known:
            if known == kinds.size:
                return -1
            kind = known
            kinds[kind].log, kinds[kind].phy, kinds[kind].contains = leaves[row].log, phy, contains
            known += 1
        follower[last] = kind
        last = kind
        numbers[row] = kind
    return known


@njit(void(array("u1"), array("i8"), array("i8"), array("u1", writable=True)), counted=False)
def copy_runs(data: Bytes, starts: Ints, sizes: Ints, out: Bytes) -> None:
    """Copy ``sizes[i]`` bytes from each of `starts`, one behind the other."""
    place = 0
    for piece in range(starts.size):
        start = starts[piece]
        for i in range(sizes[piece]):
            out[place + i] = data[start + i]
        place += sizes[piece]


@njit(void(array("u1"), array("i8"), array("u1", 2, writable=True)), counted=False)
def copy_pieces(data: Bytes, starts: Ints, out: Bytes) -> None:
    """Copy ``out.shape[1]`` bytes from each of `starts`, one row each."""
    size = out.shape[1]
    for row in range(starts.size):
        start = starts[row]
        for i in range(size):
            out[row, i] = data[start + i]

"""Compiled walk over XTC2 datagrams: what lies where, in one pass.

`scan` hops from datagram to datagram, walks the containers of each and writes rows of
three tables (datagrams, blocks, layouts).  It stops when it needs something from the
caller (`Status`) and goes on when called again: state lives in one small array.
Pixels are never read, only headers and shapes.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from psana_dask.jit import array, int32, int64, njit, uint64, void
from psana_dask.readers.state import BASE, END, NEXT, UNREAD
from psana_dask.readers.window import BYTES, STATE, Bytes, Ints, Table, fetch, u4
from psana_dask.readers.xtc2_layout import EPOCH_1990


class Status(IntEnum):
    """Why `scan` came back."""

    DONE = 0  # the end of the file, or STOP: datagrams that begin there are another walk's
    CONFIGURE = 1  # a Configure whose names must be parsed first
    FULL = 2  # an output table has no room for the next datagram
    NEED = 3  # bytes outside the window (memory), or that cannot be read (file)
    BAD_HEADER = 4  # no valid datagram header at NEXT
    TRUNCATED = 5  # the datagram at NEXT is longer than the file


class Fault(IntEnum):
    """What is wrong inside a datagram."""

    EXTENT = 0
    TRAILING = 1
    CORRUPTED = 2
    NO_DATA = 3
    UNKNOWN_NAMES = 4
    SHAPES_SHORT = 5
    DATA_SHORT = 6
    UNKNOWN_TYPE = 7


# rows of the state array, after those of `window`
DGRAMS, BLOCKS, LAYOUTS, WORDS, FAULTS, CONFIGURED, STOP = range(4, 11)
STATE_SIZE = 11

MOST_BYTES = 1 << 31
"""More than a block can have (libxtc takes extents as signed); times any 32-bit word no overflow."""

# fmt: off
DGRAM_ROW = np.dtype([
    ("timestamp", "<u8"), ("time", "<i8"), ("offset", "<i8"), ("first_block", "<i8"),
    ("size", "<u4"), ("env", "<u4"), ("damage", "<u4"), ("service", "<u4"),
])
BLOCK_ROW = np.dtype([("key", "<u4"), ("data", "<u4"), ("damage", "<u4"), ("layout", "<i4")])
LAYOUT_ROW = np.dtype([("first_word", "<i8"), ("key", "<u4"), ("unused", "<u4")])
FAULT_ROW = np.dtype([("offset", "<i8"), ("dgram", "<i8"), ("what", "<i8")])
# fmt: on

_INTS = array("i8")
_KEYS = array("u4")
_TABLES = tuple(array(row, writable=True) for row in (DGRAM_ROW, BLOCK_ROW, LAYOUT_ROW, FAULT_ROW))
_WORDS = array("u4", writable=True)


@njit(int64(_KEYS, int64), counted=False, inline="always")
def find_key(keys: Table, key: int) -> int:
    """Return the row of `key` in the sorted `keys`, or -1."""
    low, high = 0, keys.size
    while low < high:
        middle = (low + high) // 2
        if keys[middle] < key:
            low = middle + 1
        else:
            high = middle
    return low if low < keys.size and keys[low] == key else -1


@njit(void(STATE, _TABLES[3], int64, int64), counted=False)
def report(state: Ints, faults: Table, what: int, offset: int) -> None:
    """Note a fault of the datagram in hand; beyond the table's room they are only counted."""
    n = state[FAULTS]
    if n < faults.size:
        faults[n].offset = offset
        faults[n].dgram = state[NEXT]
        faults[n].what = what
    state[FAULTS] = n + 1


@njit(int64(BYTES, int64, _INTS, _INTS, int64, _WORDS, int64), counted=False, inline="always")
def copy_shapes(
    window: Bytes, at: int, ranks: Ints, sizes: Ints, first: int, words: Table, place: int
) -> int:
    """Copy the valid words of a Shapes payload; return the bytes that the data must have.

    `ranks` and `sizes` describe all fields of a configuration, from `first` on those of
    this block, ended by a rank of -1.
    """
    total = 0
    f = first
    while ranks[f] >= 0:
        count = sizes[f]
        for k in range(ranks[f]):
            word = u4(window, at + 4 * k)
            words[place] = word
            place += 1
            count = min(count * word, MOST_BYTES)
        if ranks[f] > 0:
            at += 20
        total = min(total + count, MOST_BYTES)
        f += 1
    return total


@njit(int64(STATE, _TABLES[2], _WORDS, STATE, int64, int64, int64), counted=False, inline="always")
def layout_of(
    state: Ints, layouts: Table, words: Table, last: Ints, name: int, key: int, count: int
) -> int:
    """Return the layout row of the `count` words just copied: the last one of this name if equal."""
    place = state[WORDS]
    row = last[name]
    if row >= 0:
        same = True
        first = layouts[row].first_word
        for k in range(count):
            same &= words[first + k] == words[place + k]
        if same:
            return row
    row = state[LAYOUTS]
    layouts[row].first_word = place
    layouts[row].key = key
    state[LAYOUTS] = row + 1
    state[WORDS] = place + count
    last[name] = row
    return row


@njit(
    int64(
        int32, BYTES, STATE, _KEYS, _INTS, _INTS, _INTS, _INTS, _INTS, STATE,
        _TABLES[1], _TABLES[2], _TABLES[3], _WORDS, int64, int64,
    ),
    counted=False, inline="always",
)  # fmt: skip
def add_block(
    descriptor: int, window: Bytes, state: Ints,
    keys: Table, first_field: Ints, arrays: Ints, dims: Ints, ranks: Ints, sizes: Ints, last: Ints,
    blocks: Table, layouts: Table, faults: Table, words: Table,
    start: int, stop: int,
) -> int:  # fmt: skip
    """Add the ShapesData container at [start, stop) to the block table.

    One whose data are missing or too short has no layout (-1): only its damage is known.
    """
    at = fetch(descriptor, window, state, start, 12)
    if at < 0:
        return Status.NEED
    key = u4(window, at) & 0x0FFFFFFF
    damage = u4(window, at + 4) & 0xFFFF
    shapes, data, shapes_size, data_size = -1, -1, 0, 0
    position = start + 12
    while position + 12 <= stop:
        at = fetch(descriptor, window, state, position, 12)
        if at < 0:
            return Status.NEED
        kind = (u4(window, at + 4) >> 16) & 0xFFF
        extent = u4(window, at + 8)
        if extent < 12 or position + extent > stop:
            report(state, faults, Fault.EXTENT, position)
            return Status.DONE
        if kind == 2:
            shapes, shapes_size = position + 12, extent - 12
        elif kind == 3:
            data, data_size = position + 12, extent - 12
        position += extent
    name = find_key(keys, key)
    if name < 0:
        report(state, faults, Fault.UNKNOWN_NAMES, start)
        return Status.DONE
    readable = data >= 0 and shapes_size >= 20 * arrays[name]
    if data < 0 and damage == 0:
        report(state, faults, Fault.NO_DATA, start)
    elif data >= 0 and not readable:
        report(state, faults, Fault.SHAPES_SHORT, start)
    if state[BLOCKS] + 1 > blocks.size or state[LAYOUTS] + 1 > layouts.size:
        return Status.FULL
    if state[WORDS] + dims[name] > words.size:
        return Status.FULL
    at = 0
    if readable and arrays[name] > 0:
        at = fetch(descriptor, window, state, shapes, 20 * arrays[name])
        if at < 0:
            return Status.NEED
    layout = -1
    if readable:
        needed = copy_shapes(window, at, ranks, sizes, first_field[name], words, state[WORDS])
        if needed > data_size or needed == MOST_BYTES:
            report(state, faults, Fault.DATA_SHORT, start)
        else:
            layout = layout_of(state, layouts, words, last, name, key, dims[name])
    row = state[BLOCKS]
    blocks[row].key = key
    blocks[row].data = max(data - state[NEXT], 0)
    blocks[row].damage = damage
    blocks[row].layout = layout
    state[BLOCKS] = row + 1
    return Status.DONE


@njit(
    int64(
        int32, BYTES, STATE, _KEYS, _INTS, _INTS, _INTS, _INTS, _INTS, STATE,
        _TABLES[1], _TABLES[2], _TABLES[3], _WORDS, int64, int64,
    ),
    counted=False, inline="always",
)  # fmt: skip
def walk(
    descriptor: int, window: Bytes, state: Ints,
    keys: Table, first_field: Ints, arrays: Ints, dims: Ints, ranks: Ints, sizes: Ints, last: Ints,
    blocks: Table, layouts: Table, faults: Table, words: Table,
    start: int, stop: int,
) -> int:  # fmt: skip
    """Add every block between `start` and `stop`; nested parents are entered in place."""
    position = start
    while position + 12 <= stop:
        at = fetch(descriptor, window, state, position, 12)
        if at < 0:
            return Status.NEED
        word = u4(window, at + 4)
        damage, kind = word & 0xFFFF, (word >> 16) & 0xFFF
        extent = u4(window, at + 8)
        if extent < 12 or position + extent > stop:
            report(state, faults, Fault.EXTENT, position)
            return Status.DONE
        if kind == 0 and not damage & 8:
            position += 12
            continue
        if kind == 0:
            report(state, faults, Fault.CORRUPTED, position)
        elif kind == 1:
            status = add_block(
                descriptor, window, state, keys, first_field, arrays, dims, ranks, sizes, last,
                blocks, layouts, faults, words, position, position + extent,
            )  # fmt: skip
            if status != Status.DONE:
                return status
        elif kind != 4:
            report(state, faults, Fault.UNKNOWN_TYPE, position)
        position += extent
    if position != stop:
        report(state, faults, Fault.TRAILING, position)
    return Status.DONE


@njit(int64(BYTES, int64, int64), counted=False, inline="always")
def service_of(window: Bytes, at: int, old: int) -> int:
    """Return the transition of the header at window[at], or -1 if it is no valid header.

    The old header (32 bytes) has its service in the first word, the new one (24) in env.
    """
    size = 32 if old else 24
    service = (window[at + 7] if old else window[at + 11]) & 15
    contains = u4(window, at + size - 8) >> 16
    extent = u4(window, at + size - 4)
    valid = contains == 0 and extent >= 12 and service <= 12 and service != 11
    return int(service) if valid else -1


@njit(
    int64(
        int32, BYTES, STATE, int64, _KEYS, _INTS, _INTS, _INTS, _INTS, _INTS, STATE,
        _TABLES[0], _TABLES[1], _TABLES[2], _TABLES[3], _WORDS,
    ),
    counted=False,
)  # fmt: skip
def scan(
    descriptor: int, window: Bytes, state: Ints, old: int,
    keys: Table, first_field: Ints, arrays: Ints, dims: Ints, ranks: Ints, sizes: Ints, last: Ints,
    dgrams: Table, blocks: Table, layouts: Table, faults: Table, words: Table,
) -> int:  # fmt: skip
    """Add datagrams from ``state[NEXT]`` on; return a `Status`.

    Parameters
    ----------
    descriptor : int32
        Open file, or -1: then `window` holds the bytes [BASE, BASE + LENGTH).
    window : (bytes,) uint8
        At least WINDOW long.
    state : (STATE_SIZE,) int64
    old : int
        1 for 32-byte headers.
    keys : (name,) uint32
        Sorted keys of the configuration in force; for each: `first_field` (row of its first
        field in `ranks` and `sizes`), `arrays` (number of array fields), `dims` (words of its
        shapes), and `last`, its latest layout or -1.
    dgrams, blocks, layouts, faults, words : tables to fill
    """
    header = 32 if old else 24
    while True:
        offset = state[NEXT]
        if offset >= state[STOP]:
            return Status.DONE
        if offset + header > state[END]:
            return Status.TRUNCATED if offset < state[END] else Status.DONE
        if state[DGRAMS] >= dgrams.size:
            return Status.FULL
        at = fetch(descriptor, window, state, offset, header)
        if at < 0:
            return Status.NEED
        service = service_of(window, at, old)
        if service < 0:
            return Status.BAD_HEADER
        low = at + (8 if old else 0)
        size = header - 12 + u4(window, at + header - 4)
        if offset + size > state[END]:
            return Status.TRUNCATED
        if service == 2 and state[CONFIGURED] != offset:
            return Status.CONFIGURE
        row = state[DGRAMS]
        seconds, nanoseconds = u4(window, low + 4), u4(window, low)
        dgrams[row].timestamp = np.uint64(seconds) << np.uint64(32) | np.uint64(nanoseconds)
        dgrams[row].time = (seconds + EPOCH_1990) * 1_000_000_000 + nanoseconds
        dgrams[row].offset = offset
        dgrams[row].size = size
        dgrams[row].env = u4(window, low + 8)
        dgrams[row].damage = u4(window, at + header - 8) & 0xFFFF
        dgrams[row].service = service
        dgrams[row].first_block = state[BLOCKS]
        undo_blocks, undo_layouts, undo_words = state[BLOCKS], state[LAYOUTS], state[WORDS]
        undo_faults = state[FAULTS]
        status = walk(
            descriptor, window, state, keys, first_field, arrays, dims, ranks, sizes, last,
            blocks, layouts, faults, words, offset + header, offset + size,
        )  # fmt: skip
        if status != Status.DONE:
            state[BLOCKS], state[LAYOUTS], state[WORDS] = undo_blocks, undo_layouts, undo_words
            state[FAULTS] = undo_faults
            for k in range(last.size):
                if last[k] >= undo_layouts:
                    last[k] = -1
            return status
        state[DGRAMS] = row + 1
        state[NEXT] = offset + size


@njit(int64(int32, BYTES, STATE, int64, int64, uint64), counted=False, inline="always")
def size_if_datagram(
    descriptor: int, window: Bytes, state: Ints, position: int, old: int, seconds: int
) -> int:
    """Return the size of the datagram that begins at `position`; -1 if none does, UNREAD if bytes are needed.

    Stricter than `service_of`, as pixels may look like headers: a service that files have,
    unused bits of env and level of src zero, nanoseconds below a second, a time within a day
    of `seconds` (unless they are 0: unknown), all of it in the file, and a first container that fits.
    """
    header = 32 if old else 24
    if position + header > state[END]:
        return -1
    at = fetch(descriptor, window, state, position, header)
    if at < 0:
        return UNREAD
    time = at + (8 if old else 0)
    near = u4(window, time + 4) - np.int64(seconds) if seconds else 0
    extent = u4(window, at + header - 4)
    size = header - 12 + extent
    if service_of(window, at, old) < 2 or near > 86400 or near < -86400 or position + size > state[END]:
        return -1
    if u4(window, at + header - 12) >= 1 << 28 or u4(window, time) >= 1_000_000_000 or 12 < extent < 24:
        return -1
    if not old and u4(window, at + 8) >= 1 << 28:
        return -1
    if extent > 12:
        at = fetch(descriptor, window, state, position + header, 12)
        if at < 0:
            return UNREAD
        first = u4(window, at + 8)
        if (u4(window, at + 4) >> 16) & 0xFFF > 4 or first < 12 or first > extent - 12:
            return -1
    return size


@njit(int64(int32, BYTES, STATE, int64, uint64), counted=False)
def resync(descriptor: int, window: Bytes, state: Ints, old: int, seconds: int) -> int:
    """Return the next offset after ``state[NEXT]`` where a chain of datagrams begins again, or -1.

    A chain is three datagrams (`size_if_datagram`), or fewer that end exactly at the end of the
    file; `seconds` are those of the last good datagram.  UNREAD: bytes are needed from
    ``state[NEXT]`` on (memory) or cannot be read (file).
    """
    header = 32 if old else 24
    while True:
        state[NEXT] += 1
        position = state[NEXT]
        links = 0
        while links < 3:
            size = size_if_datagram(descriptor, window, state, position, old, seconds)
            if size == UNREAD and descriptor < 0 and (links == 0 or state[BASE] < state[NEXT]):
                return UNREAD
            if size < 0:
                break
            position += size
            links += 1
        if links == 3 or (links > 0 and position == state[END]):
            return state[NEXT]
        if state[NEXT] + header >= state[END]:
            return -1

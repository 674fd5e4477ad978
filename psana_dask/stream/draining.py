"""Taking events out of a monitoring server's buffers while Python is busy.

The server drops what finds no free buffer, and has few.  Python code that works on other events holds the
GIL for tenths of a second now and then, so what must not wait is compiled and needs no GIL: a thread of its
own receives the messages, copies the datagrams, and returns the buffers.  `Drain.take` gives what it has.
Contract: tests/stream/test_shmem.py.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import types

from psana_dask.jit import array, int32, int64, njit, uint64
from psana_dask.stream.datagrams import Data
from psana_dask.stream.memory import LANDING, SMALL

SLOT_BYTES = 256 * 2**20
LEAST_SLOTS, MOST_SLOTS = 16, 256
"""How much memory is ready for what comes while Python is busy: half a second of 4 MB at 120 Hz."""

PAGE_BYTES = 4096

SIZES = {"xtc2": (20, 12), "xtc": (36, 20)}
"""Where a header has the extent, and what it does not count, by format."""

STOP, ENABLED, RAN, ASKED, ANSWERED, FILLED, LATE, TEAM, LEAVE, SIZE, AT, PLUS = range(12)
"""Words that both threads see; each is written by one of them."""

with suppress(OSError):  # where message queues are before glibc 2.34
    ctypes.CDLL("librt.so.1", mode=ctypes.RTLD_GLOBAL)

_C = types.ExternalFunction
_receive = _C("mq_timedreceive", int64(int32, uint64, uint64, uint64, uint64))
_send = _C("mq_timedsend", int32(int32, uint64, uint64, uint64, uint64))
_pread = _C("pread", int64(int32, uint64, uint64, int64))
_write = _C("write", int64(int32, uint64, uint64))
_poll = _C("poll", int32(uint64, uint64, int32))

_WORDS = array("i8", writable=True)
_BYTES = array("u1", writable=True)
_IDLE_MS, _FULL_MS = 5, 1
_RETURNS = 1000


@njit(int32(_WORDS, int64, uint64, uint64))
def _sent(queues: npt.NDArray[np.int64], count: int, message: int, now: int) -> int:
    """Send a message to the first of some queues that has room; return whether one had."""
    for k in range(count):
        if _send(queues[k], message, 16, 0, now) == 0:
            return 1
    return 0


@njit(int64(_WORDS, _BYTES))
def _bytes_of(state: npt.NDArray[np.int64], head: npt.NDArray[np.uint8]) -> int:
    """Return the size of a datagram, as its header says; at most that of a buffer."""
    at = state[AT]
    extent = int(head[at]) | int(head[at + 1]) << 8 | int(head[at + 2]) << 16 | int(head[at + 3]) << 24
    return min(state[SIZE], extent + state[PLUS])


@njit(int64(_WORDS))
def _free_slot(slots: npt.NDArray[np.int64]) -> int:
    """Return the first slot with memory, as what was used last is in the cache; -1: there is none."""
    for slot in range(slots.size):
        if slots[slot]:
            return slot
    return -1


@njit(types.void(_WORDS, _WORDS, _WORDS, _WORDS, _WORDS, _WORDS, _WORDS, _BYTES))
def _drain(
    state: npt.NDArray[np.int64],
    files: npt.NDArray[np.int64],
    onward: npt.NDArray[np.int64],
    others: npt.NDArray[np.int64],
    slots: npt.NDArray[np.int64],
    order: npt.NDArray[np.int64],
    sizes: npt.NDArray[np.int64],
    scratch: npt.NDArray[np.uint8],
) -> None:
    """Take events until told to stop.

    Parameters
    ----------
    state : (12,) int64
    files : (3,) int64
        Descriptors: the queue of events, the shared memory, what wakes the reader.
    onward, others : int64
        How many queues, and these: where buffers go; those of the team.
    slots : (slots,) int64
        Addresses of memory for datagrams; 0 where there is none.
    order, sizes : (slots,) int64
        Of the events that were taken: the slot, and how many bytes are in it.
    scratch : (128,) uint8
        Zeros; from 0 a time of long ago, from 16 a message, from 32 what to poll, from 48 a header.
    """
    base = scratch.ctypes.data
    message, polled, head = base + 16, base + 32, base + 48
    scratch[32:36].view(np.int32)[0] = files[0]
    scratch[36] = 1  # POLLIN
    scratch[96] = 1  # what is written to wake the reader: a 1 of 8 bytes
    while state[STOP] == 0:
        asked = state[ASKED]
        slot = _free_slot(slots)
        while state[STOP] == 0 and slot >= 0:
            if _receive(files[0], message, 16, 0, base) != 16:
                break
            index = scratch[16:20].view(np.int32)[0]
            team = int64(scratch[28:32].view(np.uint32)[0])
            free = state[TEAM] == 0 or team != state[TEAM]
            fresh = False
            if state[ENABLED] and free:
                if state[LEAVE] and _sent(others[1:], others[0], message, base):
                    continue
                if _pread(files[1], head, 40, index * state[SIZE]) == 40:
                    count = _bytes_of(state, scratch[48:88])
                    place = state[FILLED] % slots.size
                    sizes[place] = _pread(files[1], slots[slot], count, index * state[SIZE])
                    order[place] = slot
                    slots[slot] = 0
                    fresh = True
            elif free and state[RAN]:
                state[LATE] += 1
            if state[ENABLED] and state[TEAM]:
                scratch[28:32].view(np.uint32)[0] = state[TEAM]
            for _ in range(_RETURNS):
                if _sent(onward[1:], onward[0], message, base) or state[STOP]:
                    break
                _poll(0, 0, 1)
            if fresh:
                state[FILLED] += 1
                _write(files[2], base + 96, 8)
                slot = _free_slot(slots)
        state[ANSWERED] = asked
        if slot >= 0:
            _poll(polled, 1, _IDLE_MS)
        else:
            _poll(0, 0, _FULL_MS)


_NOTHING = np.zeros(0, np.uint8)


class Drain:
    """The thread that takes the events of one connection.

    Parameters
    ----------
    events, memory : int
        Descriptors of the queue of events and of the shared memory.
    onward : sequence of int
        Descriptors of the queues to which buffers go, in this order; the last one is the server's.
    size : int
        Bytes of a buffer.
    team : int
        What events are marked with; 0: not at all.
    """

    def __init__(self, events: int, memory: int, onward: Sequence[int], size: int, team: int) -> None:
        self._taken = self._late = 0
        self.wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        count = min(MOST_SLOTS, max(LEAST_SLOTS, SLOT_BYTES // size))
        self._memory, self._empty = [_NOTHING] * count, list(range(count))
        self._slots, self._order, self._sizes = (np.zeros(count, np.int64) for _ in range(3))
        self._state = np.zeros(12, np.int64)
        self._state[[SIZE, TEAM]] = size, team
        self._others = np.zeros(len(onward) + 1, np.int64)
        files = np.array([events, memory, self.wake], np.int64)
        back = np.array([len(onward), *onward], np.int64)
        scratch = np.zeros(128, np.uint8)
        given = (self._state, files, back, self._others, self._slots, self._order, self._sizes, scratch)
        self.ready()
        for slot in self._memory:  # fresh pages cost more than the copy: before events come
            slot[::PAGE_BYTES] = 0
        self._thread = threading.Thread(target=self._run, args=given, daemon=True)
        self._thread.start()

    def _run(self, *given: npt.NDArray[Any]) -> None:
        _drain(*given)  # a method: the memory that it fills lives as long as it runs

    def enable(self, form: str, on: bool, ran: bool) -> None:
        """Say whether events count from now on, and whether those that do not are late."""
        self._state[[AT, PLUS, RAN]] = *SIZES[form], ran
        self._state[ENABLED] = on

    def leave_to(self, queues: Sequence[int]) -> None:
        """Leave what comes next to others, by the descriptors of their queues, while these have room."""
        self._state[LEAVE] = 0
        self._others[1 : len(queues) + 1] = queues
        self._others[0] = len(queues)
        self._state[LEAVE] = bool(queues)

    @property
    def waiting(self) -> int:
        """Events that can be taken."""
        return int(self._state[FILLED]) - self._taken

    def ready(self) -> None:
        """Give memory for as many events as there are slots."""
        size = max(int(self._state[SIZE]), SMALL)
        for slot in self._empty:
            self._memory[slot] = LANDING.array(size)
            self._slots[slot] = self._memory[slot].ctypes.data
        self._empty.clear()

    def take(self) -> Data:
        """Return the next event; there must be one."""
        place = self._taken % len(self._slots)
        slot, size = int(self._order[place]), max(0, int(self._sizes[place]))
        whole, self._memory[slot] = self._memory[slot], _NOTHING
        self._empty.append(slot)
        self._taken += 1
        if size < len(whole) // 2:  # its memory is for the large ones
            return LANDING.copied(memoryview(whole.data)[:size])
        return memoryview(whole.data)[:size]

    def late(self) -> int:
        """Return how many events came while none counted, since this was asked last."""
        before, self._late = self._late, int(self._state[LATE])
        return self._late - before

    def ask(self) -> None:
        """Ask the thread to look whether there is an event; `answered` says when it has."""
        self._state[ASKED] += 1

    @property
    def answered(self) -> bool:
        """Whether the thread has taken all that there was when it was asked, or has no room."""
        return bool(self._state[ANSWERED] == self._state[ASKED] or not self._slots.any())

    def close(self) -> None:
        """Stop the thread."""
        self._state[STOP] = 1
        self._thread.join()
        self._memory.clear()
        LANDING.trim()
        os.close(self.wake)

"""Memory that looks like a file: datagrams that arrived, for the code that reads files.

The bytes lie in anonymous memory of this process (``memfd``), reachable by the name of a link
that is removed with it; where the system has none, in a temporary file.  Fresh memory costs more
than the work on it, so both kinds here are used again: `MemoryFile` takes over the memory of one
that is gone, `Landing` that of datagrams which nobody holds any more.
Contract: tests/stream/test_memory.py.
"""

from __future__ import annotations

import mmap
import os
import shutil
import sys
import tempfile
import threading
import weakref
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from psana_dask.sources import LENGTHS, POOL
from psana_dask.stream.datagrams import Data

LEAST_ROOM = 2**20
"""Of a file, bytes."""

MOST_IDLE_BYTES = 512 * 2**20
"""What is kept of files that are gone, at most."""


class Pages:
    """Memory behind a descriptor, mapped: what was touched once is quick to write again."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.bytes = np.zeros(0, np.uint8)

    def grow(self, size: int) -> None:
        """Map at least so many bytes; what is not touched takes no memory."""
        room = max(size, 2 * len(self.bytes), LEAST_ROOM)
        os.ftruncate(self.descriptor, room)
        self.bytes = np.frombuffer(mmap.mmap(self.descriptor, room), np.uint8)


class _Idle:
    """Memory of files that are gone, for the next ones."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: list[Pages] = []

    def take(self) -> Pages:
        """Return the largest memory that is idle, or a new one."""
        with self._lock:
            if self._kept:
                return self._kept.pop()
        return Pages(os.memfd_create("psana_dask", os.MFD_CLOEXEC))

    def give(self, pages: Pages) -> None:
        """Keep memory for the next file, or free it."""
        with self._lock:
            if len(pages.bytes) + sum(len(p.bytes) for p in self._kept) <= MOST_IDLE_BYTES:
                self._kept = sorted([*self._kept, pages], key=lambda p: len(p.bytes))
                return
        os.close(pages.descriptor)


_IDLE = _Idle()


class MemoryFile:
    """Bytes that grow at their end, under a path.

    Parameters
    ----------
    suffix : str
        What the path ends with.

    Attributes
    ----------
    path : str
    size : int
    """

    def __init__(self, suffix: str = "") -> None:
        folder = tempfile.mkdtemp(prefix="psana_dask_stream_")
        self.path = os.path.join(folder, f"memory{suffix}")
        self.size = 0
        anonymous = hasattr(os, "memfd_create")
        if anonymous:
            self._pages = _IDLE.take()
            os.symlink(f"/proc/{os.getpid()}/fd/{self._pages.descriptor}", self.path)
        else:
            self._pages = Pages(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        LENGTHS[self.path] = 0
        self._close = weakref.finalize(self, _close, self._pages, self.path, folder, anonymous)

    def append(self, pieces: Iterable[Data]) -> None:
        """Add bytes at the end."""
        waiting = [memoryview(p).cast("B") for p in pieces]
        end = self.size + sum(map(len, waiting))
        if end > len(self._pages.bytes):
            self._pages.grow(end)
        for piece in waiting:
            if len(piece):
                place = self._pages.bytes[self.size : self.size + len(piece)]
                np.copyto(place, np.frombuffer(piece, np.uint8))
            self.size += len(piece)
        LENGTHS[self.path] = self.size

    def close(self) -> None:
        """Give the memory back."""
        self._close()


def _close(pages: Pages, path: str, folder: str, anonymous: bool) -> None:
    POOL.forget(path)
    LENGTHS.pop(path, None)
    shutil.rmtree(folder, ignore_errors=True)
    if anonymous:
        _IDLE.give(pages)
    else:
        os.close(pages.descriptor)


SMALL = 64 * 1024
"""Datagrams below this size are copied as they come."""


class Landing:
    """Copies of datagrams, in memory that is used again as soon as nobody holds its copy."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._arrays: dict[int, list[NDArray[np.uint8]]] = {}

    def copied(self, data: memoryview) -> Data:
        """Return a copy of some bytes."""
        size = len(data)
        if size < SMALL:
            return bytes(data)
        copy = memoryview(self.array(size).data)
        copy[:] = data  # `np.copyto` gives the GIL up, and may wait 5 ms for it behind a calculation
        return copy

    def array(self, size: int) -> NDArray[np.uint8]:
        """Return so many bytes that nobody else has, to be filled."""
        if size < SMALL:
            return np.empty(size, np.uint8)
        with self._lock:
            return self._array(_room(size))[:size]

    def _array(self, room: int) -> NDArray[np.uint8]:
        """Return memory that nobody else has."""
        kept = self._arrays.setdefault(room, [])
        if len(kept) * room > MOST_IDLE_BYTES and sys.getrefcount(kept[-1]) <= 2:
            kept.pop()
        for number in range(len(kept)):
            # two know idle memory: the list, and the call that counts
            if sys.getrefcount(kept[number]) <= 2:
                return kept[number]
        kept.append(np.empty(room, np.uint8))
        return kept[-1]

    def trim(self) -> None:
        """Free the idle memory beyond what is kept for the next stream."""
        with self._lock:
            left = MOST_IDLE_BYTES
            for room, kept in self._arrays.items():
                for number in reversed(range(len(kept))):
                    left -= room
                    if left < 0 and sys.getrefcount(kept[number]) <= 2:
                        del kept[number]


LANDING = Landing()
"""That of this process: the next stream uses the memory of the last one."""


def _room(size: int) -> int:
    """Return a size that datagrams of about this size share: steps of an eighth."""
    step = 1 << max(0, size.bit_length() - 4)
    return -(-size // step) * step

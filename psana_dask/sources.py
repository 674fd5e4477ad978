"""Bytes by (offset, length), from a file or from memory.

A source knows how to open, not an open handle: it pickles, and files are opened on
first use through one small pool per process, so 64 descriptors serve any number of
files.  `read_pieces` is the one primitive of the bytes tower for reading data: many
pieces of one source into one buffer, in compiled code where the C library has
``pread``, else by seek and readinto.

Contract (tests/test_sources.py): a short read is an error that names file and offset,
never a short result; a source may be used by several threads at once.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from psana_dask.errors import ReadError

PREAD = getattr(os, "preadv", None)
"""``os.preadv``, or None where the system lacks it; tests set None to force the fallback."""

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]


class Source(Protocol):
    """Where bytes come from."""

    @property
    def name(self) -> str:
        """What messages call it: the path of a file."""

    def size(self) -> int:
        """Return how many bytes there are now."""

    def read_into(self, offset: int, out: Bytes) -> None:
        """Fill `out` from byte `offset`; raise `ReadError` if there are fewer bytes."""

    def read_pieces(self, offsets: Ints, sizes: Ints, out: Bytes, places: Ints) -> None:
        """Copy ``[offsets[i], offsets[i] + sizes[i])`` to ``out[places[i]:]`` for every i."""


class FilePool:
    """Open files of this process, the least recently used closed first.

    Parameters
    ----------
    capacity : int, optional
        Most files open at once; by default a quarter of what the system allows, at most 128.
    """

    def __init__(self, capacity: int | None = None) -> None:
        self._capacity = capacity
        self._files: OrderedDict[str, int] = OrderedDict()
        self._in_use: dict[int, int] = {}
        self._expected: dict[str, int] = {}
        self._lock = threading.RLock()

    def capacity(self) -> int:
        """Return the most files that are kept open."""
        return self._capacity or min(128, max(4, _descriptor_limit() // 4))

    @contextmanager
    def open(self, path: str) -> Iterator[int]:
        """Lend the descriptor of `path`; it stays open while lent."""
        descriptor = self._borrow(path)
        try:
            yield descriptor
        finally:
            self._give_back(descriptor)

    def forget(self, path: str) -> None:
        """Close `path` if it is open and idle: the next read opens the file that is there then."""
        with self._lock:
            descriptor = self._files.get(path)
            self._expected.pop(path, None)
            if descriptor is not None and not self._in_use.get(descriptor):
                os.close(self._files.pop(path))

    def expect(self, path: str, inode: int) -> None:
        """Open `path` from now on only while it is still this file: another one is a `ReadError`."""
        with self._lock:
            self._expected[path] = inode

    def _borrow(self, path: str) -> int:
        with self._lock:
            if path not in self._files:
                self._make_room()
                self._files[path] = self._opened(path)
            self._files.move_to_end(path)
            descriptor = self._files[path]
            self._in_use[descriptor] = self._in_use.get(descriptor, 0) + 1
            return descriptor

    def _opened(self, path: str) -> int:
        descriptor = _open(path)
        wanted = self._expected.get(path)
        if wanted is not None and os.fstat(descriptor).st_ino != wanted:
            os.close(descriptor)
            raise ReadError(f"{path} was replaced since the run was opened: open it again")
        return descriptor

    def _give_back(self, descriptor: int) -> None:
        with self._lock:
            self._in_use[descriptor] -= 1
            if not self._in_use[descriptor]:
                del self._in_use[descriptor]

    def _make_room(self) -> None:
        idle = [p for p, d in self._files.items() if d not in self._in_use]
        for path in idle[: max(0, len(self._files) + 1 - self.capacity())]:
            os.close(self._files.pop(path))


def _descriptor_limit() -> int:
    try:
        import resource
    except ImportError:  # not a POSIX system
        return 512
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _open(path: str) -> int:
    if path.endswith(GROWING) and not os.path.exists(path):
        path = path.removesuffix(GROWING)  # the writer closed it since
    try:
        return os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0))
    except OSError as error:
        raise ReadError(f"cannot open {path}: {error.strerror}") from error


GROWING = ".inprogress"
"""What the name of a file ends with while it is written."""

LENGTHS: dict[str, int] = {}
"""How many bytes count of files that are longer than what they hold: memory that is used again."""

POOL = FilePool()
_SEEK_LOCK = threading.Lock()


@dataclass(frozen=True)
class FileSource:
    """A file on disk, finished or still growing.

    Parameters
    ----------
    path : str
    """

    path: str

    @property
    def name(self) -> str:
        """The path."""
        return self.path

    def size(self) -> int:
        """Return the size of the file now."""
        known = LENGTHS.get(self.path)
        if known is not None:
            return known
        try:
            return os.stat(self.path).st_size
        except FileNotFoundError as error:
            if self.path.endswith(GROWING):  # the writer closed it since
                return FileSource(self.path.removesuffix(GROWING)).size()
            raise ReadError(f"cannot open {self.path}: {error.strerror}") from error
        except OSError as error:
            raise ReadError(f"cannot open {self.path}: {error.strerror}") from error

    @contextmanager
    def descriptor(self) -> Iterator[int]:
        """Lend a file descriptor for compiled kernels, or -1 where they cannot read files."""
        if PREAD is None:
            yield -1
        else:
            with POOL.open(self.path) as descriptor:
                yield descriptor

    def read_into(self, offset: int, out: Bytes) -> None:
        """Fill `out` from byte `offset`."""
        with POOL.open(self.path) as descriptor:
            done = 0
            while done < out.size:
                got = _read_at(descriptor, self.path, offset + done, out[done:])
                if got == 0:
                    raise _short(self.path, offset, out.size, done)
                done += got

    def read_pieces(self, offsets: Ints, sizes: Ints, out: Bytes, places: Ints) -> None:
        """Copy many pieces of the file into one buffer."""
        if PREAD is None:
            for offset, size, place in zip(offsets.tolist(), sizes.tolist(), places.tolist(), strict=True):
                self.read_into(offset, out[place : place + size])
            return
        from psana_dask.gather import read_pieces

        with POOL.open(self.path) as descriptor:
            failed = read_pieces(descriptor, offsets, sizes, out, places)
        if failed >= 0:
            raise _short(self.path, int(offsets[failed]), int(sizes[failed]), None)


@dataclass(frozen=True)
class MemorySource:
    """Bytes in memory: small files of tests, datagrams that arrived by a stream.

    Parameters
    ----------
    data : bytes
    name : str
        What messages call it.
    """

    data: bytes = field(repr=False)
    name: str = "<memory>"

    def size(self) -> int:
        """Return the number of bytes."""
        return len(self.data)

    def read_into(self, offset: int, out: Bytes) -> None:
        """Fill `out` from byte `offset`."""
        piece = np.frombuffer(self.data, np.uint8)[offset : offset + out.size]
        if piece.size < out.size:
            raise _short(self.name, offset, out.size, piece.size)
        out[:] = piece

    def read_pieces(self, offsets: Ints, sizes: Ints, out: Bytes, places: Ints) -> None:
        """Copy many pieces into one buffer."""
        for offset, size, place in zip(offsets.tolist(), sizes.tolist(), places.tolist(), strict=True):
            self.read_into(offset, out[place : place + size])


def read_bytes(source: Source, offset: int, size: int) -> bytes:
    """Return `size` bytes of `source` from `offset`."""
    out = np.empty(size, np.uint8)
    source.read_into(offset, out)
    return out.tobytes()


def _read_at(descriptor: int, name: str, offset: int, out: Bytes) -> int:
    try:
        return _read_some(descriptor, offset, out)
    except OSError as error:  # a directory, a failing disk
        raise ReadError(f"{name}: cannot read byte {offset}: {error.strerror}") from error


def _read_some(descriptor: int, offset: int, out: Bytes) -> int:
    if PREAD is not None:
        return int(PREAD(descriptor, [out.data], offset))
    with _SEEK_LOCK, open(descriptor, "rb", buffering=0, closefd=False) as file:
        file.seek(offset)
        return int(file.readinto(out.data) or 0)


def _short(name: str, offset: int, size: int, got: int | None) -> ReadError:
    found = "fewer" if got is None else f"{got}"
    return ReadError(
        f"{name}: wanted {size} bytes at byte {offset}, found {found}: the file shrank or is still "
        "being copied; open the run again"
    )

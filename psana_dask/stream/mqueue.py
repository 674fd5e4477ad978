"""POSIX message queues of Linux, through the C library."""

from __future__ import annotations

import ctypes
import errno
import os
import time
from pathlib import Path
from typing import Any

from psana_dask.errors import ReadError

LIMITS = Path("/proc/sys/fs/mqueue")


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Attributes(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_long), ("maxmsg", ctypes.c_long), ("msgsize", ctypes.c_long),
        ("curmsgs", ctypes.c_long), ("reserved", ctypes.c_long * 4),
    )  # fmt: skip


def _library(kind: type[ctypes.CDLL] = ctypes.CDLL) -> Any:
    for name in ("librt.so.1", None):  # since glibc 2.34 they are in libc itself
        try:
            found = kind(name, use_errno=True)
            found.mq_open.restype = ctypes.c_int
        except (OSError, AttributeError):
            continue
        found.mq_receive.restype = found.mq_timedreceive.restype = ctypes.c_ssize_t
        return found
    raise ReadError(
        "shared-memory streams need POSIX message queues, which this system lacks: they are Linux only"
    )


class Queue:
    """A message queue.

    Parameters
    ----------
    name : str
        Begins with a slash.
    flags : int
        ``os.O_RDONLY``, ``O_WRONLY`` or ``O_RDWR``; with ``O_CREAT`` it is made.
    depth, size : int
        Messages that fit, and bytes of one, where it is made.

    Raises
    ------
    FileNotFoundError
        There is no such queue.
    ReadError
        The system refuses; the message says which limit is reached.
    """

    def __init__(self, name: str, flags: int, depth: int = 0, size: int = 16) -> None:
        self.name, self._size = name, size
        self._library = _library()
        attributes = _Attributes(0, depth, size, 0)
        previous = os.umask(0)
        try:
            self._queue = self._library.mq_open(
                name.encode(), flags | os.O_CLOEXEC, 0o666, ctypes.byref(attributes) if depth else None
            )
        finally:
            os.umask(previous)
        if self._queue < 0:
            raise self._refusal(ctypes.get_errno(), depth)
        # what does not wait keeps the GIL: to get it back may take 5 ms, in which a buffer is not returned
        self._at_once = _library(ctypes.PyDLL)

    def _refusal(self, number: int, depth: int) -> OSError:
        if number == errno.ENOENT:
            return FileNotFoundError(number, os.strerror(number), self.name)
        hint = ""
        if number == errno.EINVAL and depth:
            hint = (
                f": {depth} messages are more than fs.mqueue.msg_max = {limit('msg_max')} allows; use fewer "
                f"buffers, or let the administrator say: sysctl fs.mqueue.msg_max={depth}"
            )
        elif number in (errno.ENOSPC, errno.EMFILE):
            hint = (
                f": there are as many queues as fs.mqueue.queues_max = {limit('queues_max')} and "
                "`ulimit -q` (bytes) allow; look for old ones in /dev/mqueue"
            )
        elif number == errno.EACCES:
            hint = ": it belongs to another user; see /dev/mqueue"
        return ReadError(f"message queue {self.name}: {os.strerror(number)}{hint}")

    def fileno(self) -> int:
        """Return the descriptor, for `select`."""
        return int(self._queue)

    def send(self, message: bytes, seconds: float = 0.0) -> bool:
        """Send a message; return False if there was no room for so long."""
        library = self._library if seconds else self._at_once
        done = library.mq_timedsend(
            self._queue, message, ctypes.c_size_t(len(message)), ctypes.c_uint(0), _until(seconds)
        )
        return self._ended(done) is not None

    def receive(self, seconds: float = 0.0) -> bytes | None:
        """Return the next message, or None if there was none for so long."""
        buffer = ctypes.create_string_buffer(self._size)
        library = self._library if seconds else self._at_once
        done = library.mq_timedreceive(
            self._queue, buffer, ctypes.c_size_t(self._size), None, _until(seconds)
        )
        length = self._ended(done)
        return None if length is None else buffer.raw[:length]

    def _ended(self, done: int) -> int | None:
        if done >= 0:
            return int(done)
        number = ctypes.get_errno()
        if number in (errno.ETIMEDOUT, errno.EAGAIN, errno.EINTR):
            return None
        raise ReadError(f"message queue {self.name}: {os.strerror(number)}")

    def close(self) -> None:
        """Close it."""
        if self._queue >= 0:
            self._library.mq_close(self._queue)
            self._queue = -1

    def unlink(self) -> None:
        """Remove the name."""
        unlink(self.name)


def unlink(name: str) -> None:
    """Remove a queue, if it is there."""
    _library().mq_unlink(name.encode())


def limit(name: str) -> int | None:
    """Return a limit of the system (``msg_max``, ``msgsize_max``, ``queues_max``); None if there is none."""
    try:
        return int((LIMITS / name).read_text())
    except (OSError, ValueError):
        return None


def _until(seconds: float) -> Any:
    due = time.time() + seconds
    return ctypes.byref(_Timespec(int(due), int(due % 1 * 1e9)))

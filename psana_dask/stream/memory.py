"""Memory that looks like a file: datagrams that arrived, for the code that reads files.

The bytes lie in anonymous memory of this process (``memfd``), reachable by the name of a link
that is removed with it; where the system has none, in a temporary file.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Iterable

from psana_dask.sources import POOL
from psana_dask.stream.datagrams import Data

MOST_VECTORS = 512


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
        if hasattr(os, "memfd_create"):
            self._descriptor = os.memfd_create("psana_dask", os.MFD_CLOEXEC)
            os.symlink(f"/proc/{os.getpid()}/fd/{self._descriptor}", self.path)
        else:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        self._close = weakref.finalize(self, _close, self._descriptor, self.path, folder)

    def append(self, pieces: Iterable[Data]) -> None:
        """Add bytes at the end."""
        waiting = [memoryview(p).cast("B") for p in pieces]
        while waiting:
            some = waiting[:MOST_VECTORS]
            written = os.writev(self._descriptor, some)
            self.size += written
            while waiting and written >= len(waiting[0]):
                written -= len(waiting.pop(0))
            if written:
                waiting[0] = waiting[0][written:]

    def close(self) -> None:
        """Give the memory back."""
        self._close()


def _close(descriptor: int, path: str, folder: str) -> None:
    POOL.forget(path)
    os.close(descriptor)
    shutil.rmtree(folder, ignore_errors=True)

"""An HDF5 file that threads fill side by side: HDF5 says where a chunk goes, the thread writes it there.

HDF5 writes a chunk itself, one thread at a time.  Here it is opened over an object that does its reads
and writes, and that leaves out the bytes of chunks: each thread writes those with `os.pwrite`, outside
of all locks.  The metadata are whole only when the file was closed; until then the bytes of a chunk
are in the file, and a `Place` says where, so that another process can take them over.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import h5py
import numpy as np

from psana_dask.export.codecs import Chunk, Encoder
from psana_dask.export.plan import Piece, Place, Plan, Workshop, write_at
from psana_dask.model import Array


class Disk:
    """The file as HDF5 sees it.

    Parameters
    ----------
    path : Path

    Attributes
    ----------
    error : OSError or None
        What went wrong first.  From then on nothing is written, so that HDF5 can close the file: it
        cannot leave one whose metadata find no room.
    """

    def __init__(self, path: Path) -> None:
        self.number = os.open(path, os.O_RDWR)
        self.error: OSError | None = None
        self._at = 0
        self._chunk = -1

    def leave_out(self, data: Array) -> None:
        """Do not write these bytes when HDF5 comes with them."""
        self._chunk = data.ctypes.data

    # -- what h5py's driver "fileobj" calls
    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: os.fstat(self.number).st_size}
        self._at = start[whence] + offset
        return self._at

    def tell(self) -> int:
        """Return the place."""
        return self._at

    def read(self, size: int) -> bytes:
        """Read bytes."""
        return os.pread(self.number, size, self._at)

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer."""
        return os.preadv(self.number, [buffer], self._at)

    def write(self, data: Any) -> int:
        """Write, unless it is the chunk that was left out, or something failed before."""
        if np.frombuffer(data, np.uint8).ctypes.data == self._chunk:
            self._chunk = -1
        elif self.error is None:
            self._noted(lambda: write_at(self.number, data, self._at))
        return len(data)

    def truncate(self, size: int) -> int:
        """Cut the file, or make it longer."""
        if self.error is None:
            self._noted(lambda: os.ftruncate(self.number, size))
        return size

    def flush(self) -> None:
        """Do nothing: all is with the system already."""

    def _noted(self, work: Any) -> None:
        try:
            work()
        except OSError as error:
            self.error = error


class Assembly:
    """A copy of a skeleton in which pieces come together; given up when its block ends without `finish`.

    Parameters
    ----------
    workshop : Workshop
    skeleton : Path
        Complete but for the pieces.
    encode : callable
        Compresses a chunk.
    """

    def __init__(self, workshop: Workshop, skeleton: Path, encode: Encoder) -> None:
        self._workshop = workshop
        self._encode = encode
        self._name = f"pieces/{os.getpid()}-{uuid4().hex[:8]}.h5"
        shutil.copyfile(skeleton, self._path)
        self._disk = Disk(self._path)
        self._file = h5py.File(self._disk, "r+")
        self._lock = threading.Lock()

    @property
    def _path(self) -> Path:
        return self._workshop.folder / self._name

    def write_piece(self, piece: Piece, chunks: Iterable[Chunk]) -> Place:
        """Put the chunks of a piece in; return where they are."""
        whole = self._variable(piece)
        offsets, sizes = [], []
        rows = range(piece.start, piece.stop, piece.column.chunk)
        for row, chunk in zip(rows, chunks, strict=True):
            coded = np.frombuffer(self._encode(chunk), np.uint8)
            offset = self._room(whole, row, coded)
            write_at(self._disk.number, coded, offset)
            offsets.append(offset)
            sizes.append(coded.size)
        return Place(self._name, tuple(offsets), tuple(sizes))

    def _variable(self, piece: Piece) -> h5py.h5d.DatasetID:
        with self._lock:
            return self._file[f"{piece.column.group}/{piece.column.name}"].id

    def _room(self, whole: h5py.h5d.DatasetID, row: int, coded: Array) -> int:
        """Let HDF5 note a chunk; return where its bytes go."""
        at = (row, *(0 for _ in whole.shape[1:]))
        with self._lock:
            self._disk.leave_out(coded)
            whole.write_direct_chunk(at, coded)
            self._check()
            return int(whole.get_chunk_info_by_coord(at).byte_offset)

    def _check(self) -> None:
        if self._disk.error is not None:
            raise self._disk.error

    def finish(self, plan: Plan) -> Path:
        """Take over the pieces that are elsewhere and close the file: it is complete."""
        apart = [p for p in plan.pieces if self._workshop.place(p).file != self._name]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(self._take_over, apart))
        self._file.close()
        self._check()
        self._close()
        return self._path

    def _take_over(self, piece: Piece) -> None:
        whole, place = self._variable(piece), self._workshop.place(piece)
        rows = range(piece.start, piece.stop, piece.column.chunk)
        nothing = np.empty(max(place.sizes), np.uint8)  # HDF5 looks at the size only
        with open(self._workshop.folder / place.file, "rb") as source:
            for row, offset, size in zip(rows, place.offsets, place.sizes, strict=True):
                there = self._room(whole, row, nothing[:size])
                copy_bytes(source.fileno(), offset, self._disk.number, there, size)

    def __enter__(self) -> Assembly:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        """Close a file that was not finished as it is: its chunks can be taken over, nothing else counts."""
        self._disk.error = self._disk.error or OSError(f"{self._path} was given up")
        self._file.close()
        self._close()

    def _close(self) -> None:
        if self._disk.number >= 0:
            os.close(self._disk.number)
            self._disk.number = -1


def copy_bytes(source: int, start: int, target: int, place: int, size: int) -> None:
    """Copy bytes between open files, in the kernel where it can.

    Raises
    ------
    OSError
        The source ends before, or what the system says.
    """
    while size > 0:
        done = _copied_some(source, start, target, place, size)
        if done == 0:
            raise OSError(f"a piece ends {size} bytes too early: remove what is unfinished, start again")
        start, place, size = start + done, place + done, size - done


def _copied_some(source: int, start: int, target: int, place: int, size: int) -> int:
    try:
        return os.copy_file_range(source, target, size, start, place)
    except (AttributeError, OSError):  # not this system, or not between these files
        data = os.pread(source, min(size, 2**24), start)
        write_at(target, data, place)
        return len(data)

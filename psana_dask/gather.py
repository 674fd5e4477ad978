"""Compiled copy of many pieces of a file into one buffer.

Small pieces that lie close together are taken from a window that stays in the L2
cache, so a scalar column costs one pass over the file; larger or lonely pieces go
straight to their place, one ``pread`` each.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from psana_dask.jit import array, int32, int64, njit, pread

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]

WINDOW = 256 * 1024
NEAR = 32 * 1024
"""A next piece at most this far on is worth a window."""

_INTS = array("i8")
_OUT = array("u1", writable=True)


@njit(int64(int32, int64, int64, _OUT, int64))
def read_fully(descriptor: int, offset: int, size: int, out: Bytes, place: int) -> int:
    """Read `size` bytes from `offset` to ``out[place:]``; return how many there were."""
    done = 0
    while done < size:
        got = pread(descriptor, out[place + done :].ctypes, size - done, offset + done)
        if got <= 0:
            break
        done += got
    return done


@njit(int64(int32, _INTS, _INTS, _OUT, _INTS))
def read_pieces(descriptor: int, offsets: Ints, sizes: Ints, out: Bytes, places: Ints) -> int:
    """Copy pieces of a file; return the index of the first that failed, or -1.

    Parameters
    ----------
    descriptor : int32
        Open file.
    offsets, sizes, places : (n,) int64
        Piece i is ``[offsets[i], offsets[i] + sizes[i])`` of the file and goes to ``out[places[i]:]``.
    out : (bytes,) uint8
    """
    window = np.empty(WINDOW, np.uint8)
    base = 0
    length = 0
    for i in range(offsets.size):
        offset, size, place = offsets[i], sizes[i], places[i]
        if size < 0 or place < 0 or place + size > out.size:
            return i
        if not (base <= offset and offset + size <= base + length) and i + 1 < offsets.size:
            step = offsets[i + 1] - offset
            if size <= NEAR and 0 <= step <= NEAR:
                base = offset
                length = max(0, pread(descriptor, window.ctypes, WINDOW, offset))
        if base <= offset and offset + size <= base + length:
            start = offset - base
            for k in range(size):
                out[place + k] = window[start + k]
        elif read_fully(descriptor, offset, size, out, place) < size:
            return i
    return -1

"""The window through which compiled walks see a file, shared by both formats.

A walk keeps its place in one small array; the first rows of it (`state`) mean the same for
every walk, so that `fetch` serves them all.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from psana_dask.jit import array, int32, int64, njit, pread
from psana_dask.readers.state import BASE, HOP, LENGTH, NEAR, WINDOW

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Table = npt.NDArray[Any]

_1, _2, _3 = np.uint64(1), np.uint64(2), np.uint64(3)
_8, _16, _24 = np.uint32(8), np.uint32(16), np.uint32(24)

BYTES = array("u1", writable=True)
STATE = array("i8", writable=True)


@njit(int64(BYTES, int64), counted=False, inline="always")
def u4(window: Bytes, i: int) -> Any:
    """Return the 32-bit word at window[i]."""
    k = np.uint64(i)  # an unsigned index cannot count from the end: four bytes become one load
    low = np.uint32(window[k]) | np.uint32(window[k + _1]) << _8
    high = np.uint32(window[k + _2]) << _16 | np.uint32(window[k + _3]) << _24
    return np.int64(low | high)


@njit(int64(int32, BYTES, STATE, int64, int64), counted=False, inline="always")
def fetch(descriptor: int, window: Bytes, state: Ints, offset: int, size: int) -> int:
    """Return where byte `offset` is in the window, reading on if it must; -1 if it cannot.

    Reads grow as long as each begins where the last one ended, and are small again after a hop:
    reading what lies between takes longer than a call for gaps above some 10 kB.
    """
    base, length = state[BASE], state[LENGTH]
    if base <= offset and offset + size <= base + length:
        return int(offset - base)
    if descriptor < 0:
        return -1
    ahead = offset - (base + length)
    wanted = min(2 * length, WINDOW) if -WINDOW < ahead < NEAR else HOP
    wanted = max(wanted, HOP, size)
    state[BASE] = offset
    state[LENGTH] = max(0, pread(descriptor, window.ctypes, wanted, offset))
    return 0 if size <= state[LENGTH] else -1

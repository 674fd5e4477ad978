"""Damaging files on purpose, for tests of what a reader does then.

Every function changes the file where it lies; copy it first if it is still wanted.
"""

from __future__ import annotations

import os
from os import PathLike
from pathlib import Path

import numpy as np

from psana_dask.readers.xtc2_layout import DGRAM, XTC

File = str | PathLike[str]


def cut(path: File, size: int) -> None:
    """Cut the file after `size` bytes, as when a copy was interrupted."""
    os.truncate(path, size)


def flip_bits(
    path: File, count: int = 1, seed: int = 0, start: int = 0, stop: int | None = None
) -> list[int]:
    """Flip `count` bits between bytes `start` and `stop`.

    Returns
    -------
    list of int
        Offsets of the bytes that changed, sorted.
    """
    data = bytearray(Path(path).read_bytes())
    random = np.random.Generator(np.random.Philox(key=seed))
    bits = random.choice((len(data) if stop is None else stop) - start, count, replace=False)
    shifts = random.integers(0, 8, count)
    for offset, shift in zip(bits.tolist(), shifts.tolist(), strict=True):
        data[start + offset] ^= 1 << shift
    Path(path).write_bytes(data)
    return sorted(start + offset for offset in bits.tolist())


def overwrite(path: File, offset: int, data: bytes) -> None:
    """Write `data` over what stands at `offset`."""
    with Path(path).open("r+b") as file:
        file.seek(offset)
        file.write(data)


def drop_datagram(path: File, number: int) -> tuple[int, int]:
    """Take the datagram `number` (from 0) out of an XTC2 file.

    Returns
    -------
    tuple of int
        The offset where it was, and its size.
    """
    data = Path(path).read_bytes()
    offset, size = datagrams(data)[number]
    Path(path).write_bytes(data[:offset] + data[offset + size :])
    return offset, size


def swap_datagrams(path: File, one: int, other: int) -> None:
    """Let two datagrams of an XTC2 file change places."""
    data = Path(path).read_bytes()
    pieces = [data[offset : offset + size] for offset, size in datagrams(data)]
    rest = data[sum(map(len, pieces)) :]
    pieces[one], pieces[other] = pieces[other], pieces[one]
    Path(path).write_bytes(b"".join(pieces) + rest)


def set_extent(path: File, number: int, extent: int) -> None:
    """Let the header of an XTC2 datagram lie about its length."""
    offset, _ = datagrams(Path(path).read_bytes())[number]
    overwrite(path, offset + DGRAM.itemsize - 4, extent.to_bytes(4, "little"))


def datagrams(data: bytes) -> list[tuple[int, int]]:
    """Return (offset, size) of all whole datagrams with 24-byte headers."""
    found, at = [], 0
    while at + DGRAM.itemsize <= len(data):
        extent = int.from_bytes(data[at + DGRAM.itemsize - 4 : at + DGRAM.itemsize], "little")
        size = DGRAM.itemsize - XTC.itemsize + extent
        if extent < XTC.itemsize or at + size > len(data):
            break
        found.append((at, size))
        at += size
    return found

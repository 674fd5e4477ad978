"""Damaging files on purpose, for tests of what a reader does then.

Every function changes the file where it lies; copy it first if it is still wanted.  Files with ``.xtc2`` in
their name are LCLS-II, others LCLS-1.
"""

from __future__ import annotations

import os
from os import PathLike
from pathlib import Path

import numpy as np

from psana_dask.readers import xtc2_layout, xtc_layout

File = str | PathLike[str]
HEADERS = {
    "xtc2": (xtc2_layout.DGRAM.itemsize, xtc2_layout.XTC.itemsize),
    "xtc": (xtc_layout.DGRAM.itemsize, xtc_layout.XTC.itemsize),
}
"""Bytes of the header of a datagram, and of a container, by format; the last word of both is the extent."""


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
    """Take the datagram `number` (from 0) out of a file.

    Returns
    -------
    tuple of int
        The offset where it was, and its size.
    """
    data = Path(path).read_bytes()
    offset, size = datagrams(data, format_of(path))[number]
    Path(path).write_bytes(data[:offset] + data[offset + size :])
    return offset, size


def swap_datagrams(path: File, one: int, other: int) -> None:
    """Let two datagrams of a file change places."""
    data = Path(path).read_bytes()
    pieces = [data[offset : offset + size] for offset, size in datagrams(data, format_of(path))]
    rest = data[sum(map(len, pieces)) :]
    pieces[one], pieces[other] = pieces[other], pieces[one]
    Path(path).write_bytes(b"".join(pieces) + rest)


def set_extent(path: File, number: int, extent: int) -> None:
    """Let the header of a datagram lie about its length."""
    form = format_of(path)
    offset, _ = datagrams(Path(path).read_bytes(), form)[number]
    overwrite(path, offset + HEADERS[form][0] - 4, extent.to_bytes(4, "little"))


def format_of(path: File) -> str:
    """Return the format of a simulated file, from its name."""
    return "xtc2" if ".xtc2" in Path(path).name else "xtc"


def datagrams(data: bytes, form: str = "xtc2") -> list[tuple[int, int]]:
    """Return (offset, size) of all whole datagrams (LCLS-II: with 24-byte headers)."""
    header, container = HEADERS[form]
    found, at = [], 0
    while at + header <= len(data):
        extent = int.from_bytes(data[at + header - 4 : at + header], "little")
        size = header - container + extent
        if extent < container or at + size > len(data):
            break
        found.append((at, size))
        at += size
    return found

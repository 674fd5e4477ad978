"""Compression of chunks, outside of HDF5 and Zarr: those take one thread at a time, codecs take all.

An encoder turns a chunk into the bytes that the file's own reader decodes.
"""

from __future__ import annotations

import ctypes
import math
import struct
import threading
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from psana_dask.model import Array

STRIP_BYTES = 1024 * 1024
"""What is read and compressed while it is in the cache: whole blocks of any codec."""


class Chunk(Protocol):
    """Rows of a variable that are compressed together; ask for one or the other, once."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(row, ...)."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values."""

    def whole(self) -> Array:
        """Return the values, C-contiguous, in memory that holds until the thread's next chunk."""

    def strips(self) -> Iterator[Array]:
        """Yield the bytes in strips of `STRIP_BYTES`; one holds until the next is asked for."""


Encoder = Callable[[Chunk], Any]
"""Gives bytes, or a buffer that holds until the thread's next chunk."""


def zarr_encoder(compression: str | None) -> Encoder:
    """Return the encoder of a Zarr chunk; the codecs are those of `zarr_store`."""
    from numcodecs.blosc import BITSHUFFLE, Blosc

    if compression == "lz4":
        encode = Blosc("lz4", 5, BITSHUFFLE).encode
        return lambda chunk: encode(chunk.whole())
    return _zstd if compression == "zstd" else _as_is


def hdf5_encoder(compression: str | None) -> Encoder | None:
    """Return the encoder of an HDF5 chunk; None where only HDF5 itself can do it.

    The filters are those of `hdf5_file.filters`.
    """
    if compression == "lz4":
        library = bitshuffle()
        return None if library is None else lambda chunk: _bitshuffled(library, chunk)
    return _zstd if compression == "zstd" else _as_is


def _as_is(chunk: Chunk) -> Any:
    return chunk.whole().reshape(-1).view(np.uint8).data


def _zstd(chunk: Chunk) -> Any:
    from numcodecs.zstd import compress

    return compress(_as_is(chunk), 3)


@lru_cache(maxsize=1)
def bitshuffle() -> Any:
    """Return the bitshuffle library of hdf5plugin, whose functions run without the lock of HDF5."""
    import hdf5plugin

    for path in sorted(Path(hdf5plugin.PLUGIN_PATH).glob("libh5bshuf.*")):
        try:
            library = ctypes.CDLL(str(path))
            size = ctypes.c_size_t
            library.bshuf_default_block_size.argtypes = [size]
            library.bshuf_default_block_size.restype = size
            library.bshuf_compress_lz4_bound.argtypes = [size] * 3
            library.bshuf_compress_lz4_bound.restype = size
            library.bshuf_compress_lz4.argtypes = [ctypes.c_void_p, ctypes.c_void_p, *[size] * 3]
            library.bshuf_compress_lz4.restype = ctypes.c_int64
        except (OSError, AttributeError):
            continue
        return library
    return None


_ROOMS = threading.local()


def room(use: str, size: int) -> Array:
    """Return bytes that this thread uses again and again for the same: fresh memory is slow."""
    rooms: dict[str, Array] = _ROOMS.__dict__
    if use not in rooms or len(rooms[use]) < size:
        rooms[use] = np.empty(size, np.uint8)
    return rooms[use][:size]


def _bitshuffled(library: Any, chunk: Chunk) -> Any:
    """Return a chunk as the filter 32008 writes it: sizes, big endian, then blocks, each by itself."""
    item, items = chunk.dtype.itemsize, math.prod(chunk.shape)
    block = library.bshuf_default_block_size(item)
    out = room("coded", 12 + library.bshuf_compress_lz4_bound(items, item, block))
    out[:12] = np.frombuffer(struct.pack(">QI", items * item, block * item), np.uint8)
    start, size = out.ctypes.data, 12
    for strip in chunk.strips():
        done = library.bshuf_compress_lz4(strip.ctypes.data, start + size, strip.nbytes // item, item, block)
        if done < 0:
            raise OSError(f"bitshuffle cannot compress a chunk of {items * item} bytes: error {done}")
        size += done
    return out[:size].data


# ---- pieces on disk -----------------------------------------------------------------------------
CRC_TABLE: list[int] = []


def crc32c(data: bytes) -> int:
    """Return the checksum (Castagnoli) that ends the index of a Zarr shard."""
    if not CRC_TABLE:
        for byte in range(256):
            value = byte
            for _ in range(8):
                value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
            CRC_TABLE.append(value)
    found = 0xFFFFFFFF
    for byte in data:
        found = found >> 8 ^ CRC_TABLE[(found ^ byte) & 0xFF]
    return found ^ 0xFFFFFFFF

"""Compressed XTC payloads: the Hist16 and HistN codecs and the blocks around them.

A compressed payload (bit 31 of the type word) is a sequence of 4-byte aligned blocks, each
``u4 header size, header, u4 engine, u4 0, u4 uncompressed size, u4 compressed size, data``;
the payload it stands for is each header followed by its decompressed data.

Both codecs store pixels in a histogram's two classes: a bitmap says for each pixel whether
it is near the base value and takes few bits, or is stored whole.  Long bitmaps are
run-length encoded.  The writers here make data for tests and for the simulator.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from psana_dask.errors import FormatError
from psana_dask.jit import array, int64, njit

Bytes = npt.NDArray[np.uint8]


class Engine(IntEnum):
    """How the data of a block are stored."""

    NONE = 0
    HIST16 = 1
    HISTN = 2


BITMAP, RUNS = 1, 3
"""Values of a codec's flag word: a plain or a run-length encoded bitmap; 0: the pixels as they are."""

_MAX_BYTES = 1 << 30
_READ, _WRITE = array("u1"), array("u1", writable=True)


# ---- payloads -----------------------------------------------------------------------------------
def decompress(payload: Bytes) -> Bytes:
    """Return the payload that a compressed one stands for.

    Parameters
    ----------
    payload : ndarray of uint8

    Raises
    ------
    FormatError
        If sizes do not fit, a codec is unknown or a checksum is wrong; names the byte of the payload.
    """
    pieces = [piece for pair in _pieces(payload) for piece in pair]
    return np.concatenate(pieces) if pieces else np.empty(0, np.uint8)


def _pieces(payload: Bytes) -> Iterator[tuple[Bytes, Bytes]]:
    at = 0
    while at + 4 <= len(payload):
        header_size = _word(payload, at)
        header = _take(payload, at + 4, header_size)
        at += 4 + header_size
        engine, _, size, compressed = struct.unpack("<4I", _take(payload, at, 16).tobytes())
        yield header, _decoded(engine, _take(payload, at + 16, compressed), size, at)
        at = -(-(at + 16 + compressed) // 4) * 4


def _word(payload: Bytes, at: int) -> int:
    return int.from_bytes(payload[at : at + 4].tobytes(), "little")


def _take(payload: Bytes, at: int, size: int) -> Bytes:
    if at + size > len(payload):
        raise FormatError(f"compressed payload ends {at + size - len(payload)} bytes early", offset=at)
    return payload[at : at + size]


def _decoded(engine: int, data: Bytes, size: int, at: int) -> Bytes:
    if engine == Engine.NONE:
        return _take(data, 0, size)
    if engine not in {Engine.HIST16, Engine.HISTN} or size > _MAX_BYTES:
        raise FormatError(f"compressed block of engine {engine} and {size} bytes", offset=at)
    out = np.empty(size, np.uint8)
    short = 12 if engine == Engine.HIST16 else 10
    decode = decode_hist16 if engine == Engine.HIST16 else decode_histn
    if len(data) < short or decode(np.ascontiguousarray(data), out) != 0:
        raise FormatError(f"compressed data of engine {engine} are inconsistent", offset=at)
    if not _sum_is_right(engine, data, out):
        raise FormatError("wrong checksum of compressed data", offset=at)
    return out


def _sum_is_right(engine: int, data: Bytes, out: Bytes) -> bool:
    depth = 2 if engine == Engine.HIST16 else int.from_bytes(data[2:4].tobytes(), "little")
    total = out.view("<u2" if depth == 2 else "u1").sum(dtype=np.uint64)
    return int(total) & 0xFFFFFFFF == _word(data, 4)


# ---- codecs -------------------------------------------------------------------------------------
@njit(int64(_READ, int64))
def u2_at(data: Bytes, i: int) -> int:
    """Return the 16-bit word at data[i]."""
    return int(data[i]) | int(data[i + 1]) << 8


@njit(int64(_READ, int64))
def u4_at(data: Bytes, i: int) -> int:
    """Return the 32-bit word at data[i]."""
    return u2_at(data, i) | u2_at(data, i + 2) << 16


@njit(int64(_READ, int64, int64, int64, _WRITE))
def fill_bitmap(data: Bytes, at: int, words: int, runs: int, near: Bytes) -> int:
    """Write the bitmap at data[at] as one byte per pixel; return 0, or 1 if it is inconsistent."""
    pixel, i = 0, 0
    while i < words:
        repeat, word = 1, u2_at(data, at + 2 * i)
        i += 1
        if runs:
            if i >= words:
                return 1
            repeat, word = word, u2_at(data, at + 2 * i)
            i += 1
        for _ in range(repeat):
            for bit in range(16):
                if pixel < near.size:
                    near[pixel] = word >> bit & 1
                    pixel += 1
    return 0 if pixel >= near.size else 1


@njit(int64(_READ, _WRITE))
def decode_hist16(data: Bytes, out: Bytes) -> int:
    """Decode 16-bit pixels into `out`; return 0, or 1 if the data are inconsistent."""
    flag = u4_at(data, 0)
    if flag == 0:
        if data.size < 12 + out.size:
            return 1
        out[:] = data[12 : 12 + out.size]
        return 0
    if flag not in (BITMAP, RUNS) or out.size % 2 or data.size < 18:
        return 1
    base, count = u2_at(data, 12), u4_at(data, 14)
    if 18 + count + 4 > data.size:
        return 1
    words = u4_at(data, 18 + count)
    if 22 + count + 2 * words > data.size:
        return 1
    near = np.empty(out.size // 2, np.uint8)
    if fill_bitmap(data, 22 + count, words, flag == RUNS, near):
        return 1
    at, stop = 18, 18 + count
    for pixel in range(near.size):
        width = 1 if near[pixel] else 2
        if at + width > stop:
            return 1
        value = base + np.int64(data[at]) if near[pixel] else u2_at(data, at)
        out[2 * pixel] = value & 0xFF
        out[2 * pixel + 1] = value >> 8 & 0xFF
        at += width
    return 0


@njit(int64(_READ, int64, int64, int64))
def bits_at(data: Bytes, start: int, first: int, width: int) -> int:
    """Return `width` (at most 16) bits from bit `first` of the stream at data[start], lowest bit first."""
    value, shift = 0, 0
    byte = start + (first >> 3)
    skip = first & 7
    while shift < width + skip:
        value |= int(data[byte]) << shift
        byte += 1
        shift += 8
    return value >> skip & ((1 << width) - 1)


@njit(int64(_READ, _WRITE))
def decode_histn(data: Bytes, out: Bytes) -> int:
    """Decode 8- or 16-bit pixels into `out`; return 0, or 1 if the data are inconsistent."""
    flag, depth = u2_at(data, 0), u2_at(data, 2)
    if flag == 0:
        if data.size < 12 + out.size:
            return 1
        out[:] = data[12 : 12 + out.size]
        return 0
    if flag not in (BITMAP, RUNS) or depth not in (1, 2) or out.size % depth or data.size < 24:
        return 1
    far_bits, near_bits = u2_at(data, 12), u2_at(data, 14)
    base, count = u4_at(data, 16), u4_at(data, 20)
    if far_bits > 16 or near_bits > 16 or 24 + count + 4 > data.size:
        return 1
    words = u4_at(data, 24 + count)
    if 28 + count + 2 * words > data.size:
        return 1
    near = np.empty(out.size // depth, np.uint8)
    if fill_bitmap(data, 28 + count, words, flag == RUNS, near):
        return 1
    bit = 0
    for pixel in range(near.size):
        width = near_bits if near[pixel] else far_bits
        if bit + width > 8 * count:
            return 1
        value = bits_at(data, 24, bit, width) + (base if near[pixel] else 0)
        out[depth * pixel] = value & 0xFF
        if depth == 2:
            out[2 * pixel + 1] = value >> 8 & 0xFF
        bit += width
    return 0


# ---- writing ------------------------------------------------------------------------------------
def compress(pieces: Sequence[tuple[bytes, npt.NDArray[Any]]], engine: int, *, runs: bool = False) -> bytes:
    """Return a compressed payload.

    Parameters
    ----------
    pieces : sequence of (header, pixels)
        What the payload holds: headers as they are, pixels as uint8 or uint16.
    engine : int
        Of `Engine`.
    runs : bool
        Run-length encode the bitmap.
    """
    out = b""
    for header, pixels in pieces:
        data = _encoded(pixels, engine, runs)
        out += struct.pack("<I", len(header)) + header
        out += struct.pack("<4I", engine, 0, pixels.nbytes, len(data)) + data
        out += bytes(-len(out) % 4)
    return out


def _encoded(pixels: npt.NDArray[Any], engine: int, runs: bool) -> bytes:
    if engine == Engine.NONE:
        return pixels.tobytes()
    values = pixels.ravel().astype(np.int64)
    total = int(values.sum()) & 0xFFFFFFFF
    if engine == Engine.HIST16:
        rest = _hist16(values, runs)
        return struct.pack("<3I", RUNS if runs else BITMAP, total, len(rest)) + rest
    rest = _histn(values, 8 * pixels.itemsize, runs)
    return struct.pack("<2H2I", RUNS if runs else BITMAP, pixels.itemsize, total, len(rest)) + rest


def _hist16(values: npt.NDArray[np.int64], runs: bool) -> bytes:
    base = _base(values, 8)
    near = (values >= base) & (values < base + 256)
    body = b"".join(
        int(v - base).to_bytes(1, "little") if n else int(v).to_bytes(2, "little")
        for v, n in zip(values.tolist(), near.tolist(), strict=True)
    )
    return struct.pack("<HI", base, len(body)) + body + _bitmap(near, runs)


def _histn(values: npt.NDArray[np.int64], far_bits: int, runs: bool) -> bytes:
    near_bits = far_bits // 2
    base = _base(values, near_bits)
    near = (values >= base) & (values < base + (1 << near_bits))
    stream, bit = 0, 0
    for value, is_near in zip(values.tolist(), near.tolist(), strict=True):
        stream |= (value - base if is_near else value) << bit
        bit += near_bits if is_near else far_bits
    body = stream.to_bytes(-(-bit // 32) * 4, "little")
    return struct.pack("<2H2I", far_bits, near_bits, base, len(body)) + body + _bitmap(near, runs)


def _base(values: npt.NDArray[np.int64], near_bits: int) -> int:
    """Return the lowest value that few bits reach: the range is laid around the median."""
    middle = int(np.median(values)) if values.size else 0
    return max(0, middle - (1 << near_bits >> 1))


def _bitmap(near: npt.NDArray[np.bool_], runs: bool) -> bytes:
    padded = np.pad(near, (0, -near.size % 16))
    words = np.packbits(padded, bitorder="little").view("<u2")
    if runs and words.size:
        starts = np.flatnonzero(np.r_[True, words[1:] != words[:-1]])
        counts = np.diff(np.r_[starts, words.size])
        words = np.stack([counts.astype("<u2"), words[starts]], axis=1).ravel()
    return struct.pack("<I", words.size) + words.astype("<u2").tobytes()

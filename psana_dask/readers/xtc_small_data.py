"""Small-data files written: the datagrams of an XTC file without their large payloads.

Each large payload becomes a PROXY that says where it is, and each event says where its whole datagram
is; `xtc_index_files` reads both.  Byte for byte what the facility's own tool writes, but for the
source of the first container, which that tool leaves uninitialised.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from psana_dask.readers import xtc
from psana_dask.readers.xtc_index_files import ID_ORIGINAL, ID_PROXY, ID_SMALL_DATA, ORIGINAL, PROXY
from psana_dask.readers.xtc_layout import DGRAM, ID_EVR_DATA, ID_XTC, XTC, Damage, Level, TransitionId
from psana_dask.readers.xtc_write import container
from psana_dask.sources import Source, read_bytes

THRESHOLD = 1024
"""Containers from this size on are left in the big file, unless they are event codes."""

_RECORDER = (Level.RECORDER << 24, 0)


def small_data(source: Source, threshold: int = THRESHOLD) -> Iterator[bytes]:
    """Yield the datagrams of the small-data file that belongs to an XTC file.

    Events whose top level is incomplete, or that hold nothing, are left out.

    Parameters
    ----------
    source : Source
    threshold : int
        Bytes, container header included.
    """
    for block in xtc.walk(source):
        for row in block.dgrams:
            offset = int(row["offset"])
            small = small_dgram(read_bytes(source, offset, int(row["size"])), offset, threshold)
            if small:
                yield small


def small_dgram(data: bytes, offset: int, threshold: int = THRESHOLD) -> bytes:
    """Return what the small-data file holds of one datagram; b"" if that is left out.

    Parameters
    ----------
    data : bytes
        The whole datagram.
    offset : int
        Its first byte in the XTC file.
    threshold : int
    """
    header = np.frombuffer(data, DGRAM, 1)[0]
    service = int(header["ticks"]) >> 24 & 15
    if service == TransitionId.CONFIGURE:
        size = threshold.to_bytes(4, "little")
        said = container(size, type_id=ID_SMALL_DATA, version=1, source=_RECORDER)
        return _with_payload(data, said + data[DGRAM.itemsize :])
    if service != TransitionId.L1_ACCEPT:
        return data
    if len(data) == DGRAM.itemsize or int(header["damage"]) & Damage.INCOMPLETE_CONTRIBUTION:
        return b""
    return _small_event(data, offset, threshold)


def _small_event(data: bytes, offset: int, threshold: int) -> bytes:
    original = np.zeros(1, ORIGINAL)
    original["offset"], original["extent"] = offset, len(data) - (DGRAM.itemsize - XTC.itemsize)
    first = container(original.tobytes(), type_id=ID_ORIGINAL, version=1, source=_RECORDER)
    return _with_payload(data, first + _shrunk(data, DGRAM.itemsize, len(data), offset, threshold))


def _with_payload(dgram: bytes, payload: bytes) -> bytes:
    """Return a datagram with another payload."""
    header = np.frombuffer(dgram[: DGRAM.itemsize], DGRAM).copy()
    header["extent"] = XTC.itemsize + len(payload)
    return header.tobytes() + payload


def _shrunk(data: bytes, start: int, stop: int, offset: int, threshold: int) -> bytes:
    """Return the containers in ``data[start:stop]`` with the large payloads replaced."""
    pieces = []
    while stop - start >= XTC.itemsize:
        header = np.frombuffer(data, XTC, 1, start).copy()
        extent = int(header["extent"][0])
        if extent < XTC.itemsize or start + extent > stop:
            break
        kind = int(header["contains"][0]) & 0xFFFF
        if kind == ID_XTC:
            inner = _inside(data, start, extent, offset, threshold)
            header["extent"] = XTC.itemsize + len(inner)
            pieces.append(header.tobytes() + inner)
        elif extent >= threshold and kind != ID_EVR_DATA:
            pieces.append(_proxy(header, offset + start))
        else:
            pieces.append(data[start : start + extent])
        start += extent
    return b"".join(pieces)


def _inside(data: bytes, start: int, extent: int, offset: int, threshold: int) -> bytes:
    """Return the payload of a container of containers; that of an incomplete one is left out."""
    if int(np.frombuffer(data, XTC, 1, start)["damage"][0]) & Damage.INCOMPLETE_CONTRIBUTION:
        return b""
    return _shrunk(data, start + XTC.itemsize, start + extent, offset, threshold)


def _proxy(header: np.ndarray[tuple[int], np.dtype[np.void]], place: int) -> bytes:
    proxy = np.zeros(1, PROXY)
    proxy["offset"], proxy["contains"], proxy["extent"] = place, header["contains"], header["extent"]
    header["contains"], header["extent"] = ID_PROXY | 1 << 16, XTC.itemsize + PROXY.itemsize
    return bytes(header.tobytes() + proxy.tobytes())

"""Single datagrams as bytes: what their headers say, in both formats."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from psana_dask.errors import FormatError
from psana_dask.model import Service
from psana_dask.readers.xtc_layout import TransitionId
from psana_dask.readers.xtc_rows import SERVICES

Data = bytes | bytearray | memoryview


class Dgram(NamedTuple):
    """One datagram of a stream."""

    stream: int
    data: Data


@dataclass(frozen=True)
class Header:
    """What the header of a datagram says.

    Parameters
    ----------
    service : Service
    timestamp : int
        The file's word: seconds << 32 | nanoseconds.
    size : int
        Bytes of the datagram.
    """

    service: Service
    timestamp: int
    size: int


def header_xtc2(data: Data) -> Header:
    """Read the header of an LCLS-II datagram."""
    if len(data) < 24:
        raise FormatError(f"{len(data)} bytes are no XTC2 datagram")
    low, high, env, _, _, contains, extent = struct.unpack_from("<IIIIHHI", data)
    service = env >> 24 & 15
    if contains or extent < 12 or service not in Service._value2member_map_ or low >= 10**9:
        raise FormatError("no XTC2 datagram header")
    return Header(Service(service), high << 32 | low, 12 + extent)


def header_xtc(data: Data) -> Header:
    """Read the header of an LCLS-1 datagram."""
    if len(data) < 40:
        raise FormatError(f"{len(data)} bytes are no XTC datagram")
    nanoseconds, seconds, ticks, _, _, _, log, _, contains, extent = struct.unpack_from("<10I", data)
    service = ticks >> 24 & 15
    if extent < 20 or extent % 4 or service > max(TransitionId) or contains & 0xFFFF > 123 or log >> 24 > 6:
        raise FormatError("no XTC datagram header")
    return Header(SERVICES[TransitionId(service)], seconds << 32 | nanoseconds, 20 + extent)


HEADERS: Mapping[str, Callable[[Data], Header]] = {"xtc": header_xtc, "xtc2": header_xtc2}
"""What reads the header of a datagram, by format."""


def checked(form: str, data: Data) -> Header:
    """Return the header of a datagram that must fill `data`.

    Raises
    ------
    FormatError
        It is no datagram, or one of another size.
    """
    header = HEADERS[form](data)
    if header.size != len(data):
        raise FormatError(f"a datagram of {header.size} bytes in {len(data)}")
    return header

"""LCLS-1 XTC written: datagrams and containers as bytes, from the same tables that read them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from psana_dask.readers.record_writing import encode
from psana_dask.readers.records import Record, View
from psana_dask.readers.xtc_layout import COMPRESSED, DGRAM, ID_XTC, XTC, Level, TransitionId

Source = tuple[int, int]

EVENT_NODE: Source = (Level.EVENT << 24 | 5000, 0xAC150B01)
"""Source of the datagrams that an event builder writes."""

SEGMENT_NODE: Source = (Level.SEGMENT << 24 | 1000, 0xAC150A00)
"""Source of the containers that a readout node writes."""


def container(
    payload: bytes,
    *,
    type_id: int,
    source: Source,
    version: int = 0,
    damage: int = 0,
    compressed: bool = False,
) -> bytes:
    """Return one container: header and payload, padded to 4 bytes."""
    payload += bytes(-len(payload) % 4)
    header = np.zeros(1, XTC)
    header["damage"], header["log"], header["phy"] = damage, *source
    header["contains"] = type_id | version << 16 | (COMPRESSED if compressed else 0)
    header["extent"] = XTC.itemsize + len(payload)
    return header.tobytes() + payload


def record_container(
    record: Record,
    values: Mapping[str, Any],
    *,
    key: tuple[int, int],
    source: Source,
    cfg: View | None = None,
    damage: int = 0,
) -> bytes:
    """Return the container of one record, from its values."""
    payload = encode(record, values, cfg)
    return container(payload, type_id=key[0], version=key[1], source=source, damage=damage)


def node(children: Iterable[bytes], source: Source = SEGMENT_NODE, damage: int = 0) -> bytes:
    """Return the container that holds other containers."""
    return container(b"".join(children), type_id=ID_XTC, source=source, damage=damage)


def dgram(
    service: TransitionId,
    children: Iterable[bytes] = (),
    *,
    timestamp: int,
    fiducial: int = 0,
    vector: int = 0,
    ticks: int = 0,
    env: int = 0,
    source: Source = EVENT_NODE,
    damage: int = 0,
) -> bytes:
    """Return one datagram.

    Parameters
    ----------
    service : TransitionId
    children : iterable of bytes
        Containers, usually one `node` for each readout node.
    timestamp : int
        seconds << 32 | nanoseconds.
    fiducial, vector, ticks, env : int
        Words of the header; see `xtc_layout`.
    source : (int, int)
        Of the node that wrote the datagram.
    damage : int
    """
    payload = b"".join(children)
    header = np.zeros(1, DGRAM)
    header["seconds"], header["nanoseconds"] = timestamp >> 32, timestamp & 0xFFFFFFFF
    header["ticks"] = ticks & 0xFFFFFF | service << 24
    header["fiducial"] = fiducial & 0x1FFFF | (vector & 0x7FFF) << 17
    header["env"], header["damage"], header["contains"] = env, damage, ID_XTC
    header["log"], header["phy"] = source
    header["extent"] = XTC.itemsize + len(payload)
    return header.tobytes() + payload

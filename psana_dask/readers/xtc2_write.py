"""XTC2 bytes from values: datagrams, Names and ShapesData, by the tables of `xtc2_layout`.

The inverse of the reader, used by `psana_dask.simulate` and by tests; the reading path
never imports it.  ``tests/test_xtc2_write.py`` encodes what an independent parser finds
in real files and compares byte by byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from psana_dask.readers.xtc2_layout import (
    CHARSTR,
    DGRAM,
    DGRAM_OLD,
    FIELD,
    MAX_RANK,
    NAMES,
    SHAPE,
    TYPES,
    XTC,
    TransitionId,
    TypeId,
)

EXTENT_BEFORE = DGRAM.itemsize - XTC.itemsize
"""Bytes of a datagram header that its extent does not count."""

SMD_NODE, SMD_INDEX = 512, 0
"""NamesId that the offline smalldata writer uses for `smdinfo`; the DAQ uses index 254."""


@dataclass(frozen=True)
class FieldName:
    """One entry of a Names block."""

    name: str
    type: int  # index into xtc2_layout.TYPES
    rank: int = 0
    alg_name: str = ""
    alg_version: int = 0


@dataclass(frozen=True, kw_only=True)
class Names:
    """What the ShapesData of one NamesId hold: a detector segment's algorithm and its fields."""

    src: int  # NamesId, see names_id()
    det_name: str
    alg_name: str
    fields: tuple[FieldName, ...]
    det_type: str = ""
    det_id: str = ""
    alg_version: int = 0  # see version_word()
    segment: int = 0


def names_id(node: int, index: int) -> int:
    """Pack a stream's node (12 bits) and the number of a Names block (8 bits)."""
    if not (0 <= node < 1 << 12 and 0 <= index < 1 << 8):
        raise ValueError(f"NamesId: node {node} needs 12 bits and index {index} 8; use more streams")
    return node << 8 | index


def version_word(major: int, minor: int = 0, micro: int = 0) -> int:
    """Pack an algorithm's version number."""
    return major << 16 | minor << 8 | micro


def smd_names(src: int) -> Names:
    """Describe the offsets that stand in a smalldata file for each event."""
    fields = (FieldName("intOffset", 3), FieldName("intDgramSize", 3))
    return Names(src=src, det_name="smdinfo", det_type="offset", alg_name="offsetAlg", fields=fields)


def xtc(type_id: int, payload: bytes, *, src: int = 0, damage: int = 0, version: int = 0) -> bytes:
    """Put an XTC header before `payload`."""
    header = np.zeros((), XTC)
    header["src"], header["damage"] = src, damage
    header["contains"] = version << 12 | type_id
    header["extent"] = XTC.itemsize + len(payload)
    return header.tobytes() + payload


def names_block(names: Names) -> bytes:
    """Encode `names` as a Names container."""
    head = np.zeros((), NAMES)
    head["num_arrays"] = sum(field.rank > 0 for field in names.fields)
    for key in ("det_type", "det_name", "det_id", "alg_name"):
        head[key] = _fitting(getattr(names, key))
    head["alg_version"], head["segment"] = names.alg_version, names.segment
    table = np.zeros(len(names.fields), FIELD)
    for row, field in zip(table, names.fields, strict=True):
        row["alg_name"], row["name"] = _fitting(field.alg_name), _fitting(field.name)
        row["alg_version"], row["type"], row["rank"] = field.alg_version, field.type, field.rank
    return xtc(TypeId.NAMES, head.tobytes() + table.tobytes(), src=names.src)


def _fitting(text: str) -> bytes:
    raw = text.encode()
    if len(raw) > 255:
        raise ValueError(f"the name {text[:40]!r}... has {len(raw)} bytes; XTC2 keeps 255 and a NUL")
    return raw


def char_array(text: str) -> npt.NDArray[np.bytes_]:
    """Encode text as CHARSTR: with a NUL, padded to a multiple of 4 bytes."""
    raw = text.encode() + b"\0"
    return np.frombuffer(raw + bytes(-len(raw) % 4), "S1")


def field_array(field: FieldName, value: object) -> npt.NDArray[np.generic]:
    """Convert `value` to the dtype and rank that `field` has on disk.

    Raises
    ------
    ValueError
        If the value has another rank, or does not fit the integer type.
    """
    if field.type == CHARSTR and isinstance(value, str):
        return char_array(value)
    given = np.frombuffer(value, "S1") if isinstance(value, bytes) else np.asarray(value)
    if given.ndim != field.rank or field.rank > MAX_RANK:
        raise ValueError(f"field {field.name!r} has rank {field.rank}, its value has {given.ndim}")
    array = np.ascontiguousarray(given, TYPES[field.type]).reshape(given.shape)
    if given.dtype.kind in "iub" and not np.array_equal(array, given):
        raise ValueError(f"field {field.name!r}: the value does not fit {TYPES[field.type]}")
    return array


def shapes_data(
    names: Names,
    values: Sequence[object],
    *,
    damage: int = 0,
    data_first: bool = False,
    shapes_tail: int = 0,
) -> bytes:
    """Encode one block of values.

    Parameters
    ----------
    names : Names
        Which fields, in which order.
    values : sequence
        One value for each field: a scalar, an array, or text for a CHARSTR field.
    damage : int
        Damage word of the block.
    data_first : bool
        Write Data before Shapes, as the DAQ's DescribedData does.
    shapes_tail : int
        Bytes that follow the last shape; BlockDgram leaves 4.
    """
    arrays = [field_array(f, v) for f, v in zip(names.fields, values, strict=True)]
    shaped = [array.shape for array in arrays if array.ndim]
    table = np.zeros((len(shaped), MAX_RANK), SHAPE.base)
    for i, shape in enumerate(shaped):
        table[i, : len(shape)] = shape
    shapes = xtc(TypeId.SHAPES, table.tobytes() + bytes(shapes_tail))
    data = xtc(TypeId.DATA, b"".join([array.tobytes() for array in arrays]))
    pair = data + shapes if data_first else shapes + data
    return xtc(TypeId.SHAPES_DATA, pair, src=names.src, damage=damage)


def parent(payload: bytes, src: int = 0) -> bytes:
    """Wrap containers into one Parent, as some DAQ nodes do."""
    return xtc(TypeId.PARENT, payload, src=src)


def datagram(
    timestamp: int,
    service: int,
    payload: bytes = b"",
    *,
    bits: int = 0,
    src: int = 0,
    damage: int = 0,
    old: bool = False,
    pulse_id: int = 0,
) -> bytes:
    """Encode a whole datagram.

    Parameters
    ----------
    timestamp : int
        Seconds since 1990 << 32 | nanoseconds.
    service : int
        `TransitionId`.
    payload : bytes
        Containers back to back.
    bits : int
        Bits 0-23 of `env`: readout groups (0-15) and the L1 bits (16-23).
    src : int
        Node of the stream.
    damage : int
        Damage word of the datagram.
    old : bool
        The 32-byte header of 2019 and before, where the service stands beside the pulse id.
    pulse_id : int
        56 bits, only in the old header.
    """
    header = np.zeros((), DGRAM_OLD if old else DGRAM)
    header["low"], header["high"] = timestamp & 0xFFFFFFFF, timestamp >> 32
    header["env"] = bits if old else service << 24 | bits
    if old:
        header["pulse"] = service << 56 | pulse_id
    header["src"], header["damage"] = src, damage
    header["extent"] = XTC.itemsize + len(payload)
    return header.tobytes() + payload


def smd_datagram(
    timestamp: int, names: Names, offset: int, size: int, *, bits: int = 0, old: bool = False
) -> bytes:
    """Encode an event of a smalldata file: where its datagram lies in the data file of its part."""
    block = shapes_data(names, (offset, size))
    return datagram(timestamp, TransitionId.L1_ACCEPT, block, bits=bits, old=old)

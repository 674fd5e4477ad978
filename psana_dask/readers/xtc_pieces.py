"""Values that need not the whole payload: the few bytes that hold them, and what to make of these.

A frame of a megabyte has a head of some words; who asks for one of them must not read the frame.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from psana_dask.readers.records import Field, View
from psana_dask.readers.xtc_values import Value

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Piece:
    """The bytes of a payload that hold a value.

    Parameters
    ----------
    offset : int
        From the start of the payload.
    dtype : numpy.dtype
        Of what is read.
    shape : tuple of int
    take : callable
        Turns a column of `dtype`, (event, ...), into the value.
    moves : bool
        Whether it lies there only in payloads as long as the one that was looked at.
    """

    offset: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    take: Callable[[Array], Array]
    moves: bool


def piece_of(sample: View, value: Value) -> Piece | None:
    """Return the bytes that hold a value; None where that is not so simple.

    Parameters
    ----------
    sample : View
        A payload of the kind, not compressed.
    value : Value
    """
    if value.dtype.kind == "S" or len(value.path) > 2:
        return None
    item = sample.record.lookup[value.path[0]]
    if not isinstance(item, tuple):
        return None
    field, bits = item
    if field.record is None:
        return _piece(sample, field, lambda column: bits.of(column) if bits else column)
    inner = field.record.lookup.get(value.path[-1])
    if len(value.path) < 2 or field.record.size is None or not isinstance(inner, tuple) or inner[0].record:
        return None
    name, inner_bits = field.record.name_of(inner[0]), inner[1]
    return _piece(sample, field, lambda column: inner_bits.of(column[name]) if inner_bits else column[name])


def _piece(sample: View, field: Field, take: Callable[[Array], Array]) -> Piece | None:
    """Return the piece that a whole field is; None behind records of variable size."""
    variable = [f for f in sample.record.moving if f.record is not None and f.record.size is None]
    if variable and not field.is_fixed:
        return None
    place = sample.place(field.accessor)
    return Piece(place.start - sample.start, field.dtype, place.shape, take, not field.is_fixed)


def quad_value(sample: View, value: Value) -> Callable[[npt.NDArray[np.uint8]], Array] | None:
    """Return what takes a value of CSPAD quads from their heads, (event, quad, byte); None for others."""
    if not sample.record.title.startswith("CsPad.Data") or len(value.path) != 2 or value.path[0] != "quads":
        return None
    quad = sample.record.fields[0].record
    item = None if quad is None else quad.lookup[value.path[1]]
    if quad is None or not isinstance(item, tuple) or not item[0].is_fixed:
        return None
    name, bits = quad.name_of(item[0]), item[1]

    def take(heads: npt.NDArray[np.uint8]) -> Array:
        column: Array = np.ascontiguousarray(heads).view(quad.dtype)[..., 0][name]
        return bits.of(column) if bits else column

    return take

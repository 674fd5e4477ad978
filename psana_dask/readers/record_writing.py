"""Records written from values: the reverse of decoding, driven by the same tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from psana_dask.errors import FormatError
from psana_dask.readers.records import REST, Bits, Field, Record, View, round_up


def encode(record: Record, values: Mapping[str, Any], cfg: View | None = None) -> bytes:
    """Return the bytes of a record; the reverse of `View.values`.

    Parameters
    ----------
    record : Record
    values : mapping
        By our names or psana's; what is left out is zero.  Lengths that the record stores
        (``num_fifo_events`` of ``fifo_events``) are filled in from the arrays.  Derived values
        are ignored.
    cfg : View, optional
        The configuration that shapes refer to.

    Raises
    ------
    FormatError
        If an array has not the shape that the layout says.
    """
    given = _given(record, values)
    writer = _Writer(record, _own_lengths(record, given) | given, cfg, bytearray(record.dtype.itemsize))
    at = 0
    for field in record.fields:
        at = at if field.offset is None else field.offset
        payload = writer.payload(field)
        writer.out[at : at + len(payload)] = payload
        at += len(payload)
    size = len(writer.out)
    padded = size if record.size is not None else round_up(size, record.align)
    return bytes(writer.out).ljust(padded, b"\0")


def _given(record: Record, values: Mapping[str, Any]) -> dict[str, Any]:
    items: list[Field | Bits] = [*record.fields, *(b for f in record.fields for b in f.bits)]
    pairs = [(item.accessor, record.name_of(item)) for item in items]
    return {a: values.get(a, values.get(n)) for a, n in pairs if a in values or n in values}


def _own_lengths(record: Record, given: Mapping[str, Any]) -> dict[str, int]:
    """Return the lengths that the head stores, taken from the arrays."""
    lengths: dict[str, int] = {}
    for field in record.moving:
        value = given.get(field.accessor)
        if value is None or not field.shape:
            continue
        shape = (len(value),) if isinstance(value, str | list) else np.shape(value)
        for dim, length in zip(field.shape, shape, strict=False):
            target = record.lookup.get(dim) if isinstance(dim, str) else None
            if isinstance(target, tuple):
                lengths[(target[1] or target[0]).accessor] = length
    return lengths


@dataclass(frozen=True)
class _Writer:
    """One record being written; `out` holds what its fields have so far."""

    record: Record
    given: Mapping[str, Any]
    cfg: View | None
    out: bytearray

    def payload(self, field: Field) -> bytes:
        """Return the bytes of one field."""
        value = self.given.get(field.accessor)
        shape = self._shape(field, value)
        if field.record is not None:
            return b"".join(encode(field.record, item, self._inner()) for item in _items(value, shape))
        if field.type == "char":
            return _chars(value, shape)
        if field.bits:
            value = self._word(field, int(value or 0))
        array = np.zeros(shape) if value is None else np.asarray(value)
        if array.shape != shape:
            where = f"{self.record.title}.{field.accessor}"
            raise FormatError(f"{where} has the shape {array.shape}, the layout says {shape}")
        return array.astype(field.dtype, copy=False).tobytes()

    def _word(self, field: Field, word: int) -> int:
        for bits in field.bits:
            if bits.accessor in self.given:
                mask = ((1 << bits.width) - 1) << bits.shift
                word = (word & ~mask) | ((int(self.given[bits.accessor]) << bits.shift) & mask)
        return word

    def _shape(self, field: Field, value: Any) -> tuple[int, ...]:
        if REST in field.shape:
            return (0,) if value is None else (len(value),)
        head = self._head()
        return tuple(head.dimension(field, n, 0) for n in field.shape)

    def _head(self) -> View:
        return View(self.record, np.frombuffer(bytes(self.out), np.uint8), 0, len(self.out), self.cfg)

    def _inner(self) -> View | None:
        name = self.record.inner_config
        return self._head()[name] if name and self.given.get(name) is not None else self.cfg


def _items(value: Any, shape: tuple[int, ...]) -> Sequence[Mapping[str, Any]]:
    count = math.prod(shape)
    items = [{}] * count if value is None else [value] if not shape else list(value)
    if len(items) != count:
        raise FormatError(f"{len(items)} nested records given, the layout says {count}")
    return items


def _chars(value: Any, shape: tuple[int, ...]) -> bytes:
    if len(shape) > 1:
        rows = [""] * shape[0] if value is None else list(value)
        return b"".join(_chars(row, shape[1:]) for row in rows)
    room = math.prod(shape)
    return str(value or "").encode("latin-1")[:room].ljust(room, b"\0")

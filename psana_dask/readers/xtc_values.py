"""The values of an LCLS-1 payload as flat, named columns: what a detector offers, read for many events.

Nested records are unfolded (``ipm_fex_data_sum``), derived values stand beside stored ones.  `values_of`
lists them from one payload, `read_value` reads one of them from a block of payloads; both formats of a
run can so be offered in the same way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from psana_dask.errors import FormatError
from psana_dask.readers.record_blocks import Batch, batches, gather, is_counted, ragged, texts
from psana_dask.readers.records import Bytes, Derived, Dim, Field, Record, View

Ints = npt.NDArray[np.int64]
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Value:
    """One value that the payloads of a type have.

    Parameters
    ----------
    name : str
        Our name; those of nested records joined by ``_``.
    path : tuple of str
        psana's accessors from the record to the value.
    dtype : numpy.dtype
        Of one element; text is ``S``.
    shape : tuple of int
        In the payload that was looked at.
    fixed : bool
        Whether all payloads of this type and configuration have that shape.
    unit : str
    place : int or None
        Byte in the payload where it is stored, the same in all payloads: then nothing else need
        be read.  None for what is computed, or lies behind something of variable size.
    """

    name: str
    path: tuple[str, ...]
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fixed: bool
    unit: str = ""
    place: int | None = None


@dataclass(frozen=True)
class Ragged:
    """Values of which each event has another number.

    Parameters
    ----------
    counts : (event,) int64
    items : (sum of counts, ...) array
        Those of the first event, then those of the second, ...
    """

    counts: Ints
    items: Array


def values_of(view: View) -> list[Value]:
    """Return the values of a payload, in the order of the record.

    Parameters
    ----------
    view : View
        Any one payload of the type, with its configuration.
    """
    return list(_values(view, _Here((), (), True, 0)))


@dataclass(frozen=True)
class _Here:
    """Where in a payload the walk is: path, names, whether shapes are fixed, first byte if that is fixed."""

    path: tuple[str, ...]
    names: tuple[str, ...]
    fixed: bool
    start: int | None

    def inside(self, view: View, accessor: str, name: str) -> _Here:
        """Return where one of the values of a record is."""
        item = view.record.lookup[accessor]
        field = item[0] if isinstance(item, tuple) else None
        stored = field is not None and field.is_fixed and field.accessor == accessor
        start = self.start + (field.offset or 0) if stored and field and self.start is not None else None
        fixed = self.fixed and _stays(view.record, field)
        return _Here((*self.path, accessor), (*self.names, name), fixed, start)


def _values(view: View, here: _Here) -> Iterator[Value]:
    for accessor, name in view.record.accessors.items():
        item, sample = view.record.lookup[accessor], view[accessor]
        field = item[0] if isinstance(item, tuple) else None
        there = here.inside(view, accessor, name)
        if isinstance(sample, View):
            yield from _values(sample, there)
        elif field is not None and field.record is not None:
            yield from _unfolded(sample, there)
        else:
            kind = np.dtype(f"S{_room(field)}") if _is_text(field) else _dtype(sample, item)
            yield _value(there, kind, np.shape(sample), view.record.units.get(name, ""))


def _value(here: _Here, kind: np.dtype[Any], shape: tuple[int, ...], unit: str) -> Value:
    return Value("_".join(here.names), here.path, kind, shape, here.fixed or not shape, unit, here.start)


def _unfolded(views: Sequence[View], here: _Here) -> Iterator[Value]:
    """Yield the values of a list of nested records: arrays with one dimension more."""
    if not views:
        return
    shapes = {repr([v.shape for v in values_of(view)]) for view in views}
    inner = replace(here, fixed=here.fixed and len(shapes) == 1, start=None)
    for value in _values(views[0], inner):
        shape = (len(views), *value.shape)
        yield replace(value, shape=shape, fixed=inner.fixed and value.fixed)


def _stays(record: Record, field: Field | None) -> bool:
    """Tell whether a value has one shape in all payloads of a configuration."""
    dims: list[Dim] = list(field.shape) if field is not None else [n for f in record.moving for n in f.shape]
    return all(isinstance(n, int) or (isinstance(n, str) and n.startswith("cfg.")) for n in dims)


def _is_text(field: Field | None) -> bool:
    return field is not None and field.type == "char"


def _room(field: Field | None) -> int:
    last = field.shape[-1] if field is not None and field.shape else 1
    return last if isinstance(last, int) else 0


def _dtype(sample: Any, item: Any) -> np.dtype[Any]:
    if isinstance(sample, np.ndarray):
        return sample.dtype
    if isinstance(item, Derived):
        return np.dtype(item.type)
    field: Field = item[0]
    return field.dtype


def read_value(
    record: Record, value: Value, data: Bytes, starts: Ints, stops: Ints, cfg: View | None = None
) -> Array | Ragged:
    """Read one value from many payloads.

    Parameters
    ----------
    record : Record
    value : Value
        Of `values_of`.
    data : ndarray of uint8
    starts, stops : ndarray of int64, shape (event,)
        Where each payload lies in `data`.
    cfg : View, optional
        Their common configuration.

    Returns
    -------
    (event, ...) array, or Ragged
        Ragged where the payloads do not all have the value in the same shape.

    Raises
    ------
    FormatError
        If a payload is too short, or arrays of more than one dimension differ in shape.
    """
    if value.place is not None:
        return _direct(record, value, data, starts, stops)
    if not value.fixed and _is_listed(record, value.path):
        return _listed(record, value, data, starts, stops)
    pieces = [(b.picked, column_of(b, value.path)) for b in batches(record, data, starts, stops, cfg)]
    shapes = {column.shape[1:] for _, column in pieces}
    if len(shapes) == 1 and (value.fixed or not shapes <= {(0,)}):
        return _together(pieces, len(starts), next(iter(shapes)))
    if any(len(shape) < 1 for shape in shapes) or len({shape[1:] for shape in shapes}) > 1:
        raise FormatError(f"{record.title}: {value.name} has the shapes {sorted(shapes)} in one run")
    return _one_after_the_other(pieces, len(starts))


def _direct(record: Record, value: Value, data: Bytes, starts: Ints, stops: Ints) -> Array:
    """Read a value that is stored at the same place of every payload, and nothing else."""
    text = value.dtype.kind == "S"
    element = np.dtype(("S1", (value.dtype.itemsize,))) if text else value.dtype
    kind = np.dtype((element, value.shape)) if value.shape else element
    first = starts + (value.place or 0)
    short = np.flatnonzero(first + kind.itemsize > stops)
    if short.size:
        what = f"{record.title} has no {value.name}: the payload is too short"
        raise FormatError(what, offset=int(starts[short[0]]))
    column: Array = gather(data, first, np.dtype([("value", kind)]))["value"]
    return texts(column) if text else column


def counted_in_head(record: Record, value: Value) -> bool:
    """Tell whether the fixed head of a payload says how many items of a value it has."""
    return not value.fixed and _is_listed(record, value.path)


def head_counts(record: Record, value: Value, heads: Bytes, sizes: Ints) -> Ints:
    """Return the number of items that each head says, (event,); 0 where the payload is too short for them.

    Parameters
    ----------
    record : Record
    value : Value
        For which `counted_in_head` holds.
    heads : (event, ``record.dtype.itemsize``) uint8
    sizes : (event,) int64
        Bytes of the payloads.
    """
    item = record.lookup[value.path[0]]
    field = item[0] if isinstance(item, tuple) else record.fields[-1]
    table = np.ascontiguousarray(heads).view(record.dtype)[:, 0]
    counts = np.asarray(Batch(record, np.arange(len(heads)), table)[str(field.shape[0])], np.int64)
    return np.where((field.offset or 0) + counts * field.dtype.itemsize <= sizes, counts, 0)


def _is_listed(record: Record, path: tuple[str, ...]) -> bool:
    """Tell whether a value is stored in a list of records, or numbers, whose length the head says."""
    item = record.lookup[path[0]]
    if not (isinstance(item, tuple) and is_counted(item[0])) or len(path) > 2:
        return False
    inner = item[0].record
    stored = inner.lookup[path[1]] if inner is not None and len(path) == 2 else (item[0], None)
    return isinstance(stored, tuple) and stored[1] is None and item[0].type != "char"


def _listed(record: Record, value: Value, data: Bytes, starts: Ints, stops: Ints) -> Array | Ragged:
    counts, items = ragged(record, value.path[0], data, starts, stops)
    item = record.lookup[value.path[0]]
    if isinstance(item, tuple) and item[0].record is not None:
        inner = item[0].record.lookup[value.path[1]]
        items = items[item[0].record.name_of(inner[0])] if isinstance(inner, tuple) else items
    if len(counts) and counts[0] > 0 and (counts == counts[0]).all():
        return items.reshape(len(counts), -1, *items.shape[1:])
    return Ragged(counts, items)


def column_of(batch: Batch, path: Sequence[str]) -> Array:
    """Return the column that a path of accessors leads to."""
    found: Any = batch
    for accessor in path:
        found = [part[accessor] for part in found] if isinstance(found, list) else found[accessor]
    if isinstance(found, list):
        if len({part.shape for part in found}) > 1:
            raise FormatError(f"{batch.record.title}: the parts of {path[-1]} differ in shape")
        return np.stack(found, axis=1)
    column: Array = np.asarray(found)
    return column


def _together(pieces: list[tuple[Ints, Array]], events: int, shape: tuple[int, ...]) -> Array:
    if len(pieces) == 1:
        return pieces[0][1]
    out = np.empty((events, *shape), pieces[0][1].dtype)
    for picked, column in pieces:
        out[picked] = column
    return out


def _one_after_the_other(pieces: list[tuple[Ints, Array]], events: int) -> Ragged:
    counts = np.zeros(events, np.int64)
    for picked, column in pieces:
        counts[picked] = column.shape[1]
    first = np.cumsum(counts) - counts
    sample = pieces[0][1]
    items = np.empty((int(counts.sum()), *sample.shape[2:]), sample.dtype)
    for picked, column in pieces:
        items[first[picked][:, None] + np.arange(column.shape[1])] = column
    return Ragged(counts, items)

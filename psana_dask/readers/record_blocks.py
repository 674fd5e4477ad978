"""Many payloads of one record decoded at once: columns instead of one object per event."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from psana_dask.errors import FormatError
from psana_dask.readers.records import (
    REST,
    Bytes,
    Derived,
    Field,
    Method,
    Place,
    Record,
    View,
    cast,
    resolve,
    subarray,
)

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Batch:
    """A block of events of one layout: columns by ``[name]``, as `View` has values.

    By attribute integers come as int64, so that formulas written for a `View` do not overflow.

    Parameters
    ----------
    record : Record
    picked : ndarray of int
        Which of the payloads given to `batches` these are.
    table : ndarray, structured, shape (len(picked),)
        The fields; those of variable size with the dimensions that all these payloads share.
    cfg : View, optional
    """

    record: Record
    picked: Ints
    table: npt.NDArray[Any]
    cfg: View | None = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name not in self.record.lookup:
            raise AttributeError(name)
        column = self[name]
        narrow = isinstance(column, np.ndarray) and column.dtype.kind in "iu" and column.dtype.itemsize < 8
        return column.astype(np.int64) if narrow and name not in self._arrays() else column

    def _arrays(self) -> set[str]:
        """Return the fields with dimensions of their own: pixels and samples stay as they are."""
        wide = (f for f in self.record.fields if f.shape and f.dtype.itemsize < 4)
        return {n for f in wide for n in (f.accessor, self.record.name_of(f))}

    def __getitem__(self, name: str) -> Any:
        item = self.record.lookup[name]
        if isinstance(item, Derived):
            value = item.of(self)
            if isinstance(value, Batch):
                return value
            value = cast(np.asarray(value), item.type)
            return value if value.ndim else np.broadcast_to(value, self.table.shape)
        if isinstance(item, Method):
            return lambda *arguments: item.of(self, *arguments)
        field, bits = item
        column = self.table[self.record.name_of(field)]
        if field.record is not None:
            return self._nested(field.record, column)
        column = texts(column) if field.type == "char" else column
        return column if bits is None else bits.of(column)

    def _nested(self, record: Record, column: npt.NDArray[Any]) -> Any:
        names = column.dtype.names or ()
        if names and names[0] == "0":  # records of different layouts, one after the other
            return [Batch(record, self.picked, column[name], self.cfg) for name in names]
        return Batch(record, self.picked, column, self.cfg)


def texts(chars: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return char columns as byte strings; what lies behind the first NUL is no text."""
    room = chars.shape[-1]
    behind = np.logical_or.accumulate(chars == b"", axis=-1)
    return np.where(behind, b"", chars).view(f"S{room}")[..., 0] if room else chars


def batches(
    record: Record, data: Bytes, starts: Ints, stops: Ints, cfg: View | None = None
) -> Iterator[Batch]:
    """Decode many payloads of one record, one `Batch` for each layout that occurs among them.

    Records of fixed size, and those that only the configuration shapes, give one batch in one
    gather; records that their own head shapes are grouped by the shapes found there.

    Parameters
    ----------
    record : Record
    data : ndarray of uint8
        The bytes that hold the payloads.
    starts, stops : ndarray of int64, shape (n,)
        Where each payload lies in `data`.
    cfg : View, optional
        Their common configuration.

    Raises
    ------
    FormatError
        If a payload is shorter than its layout, naming its first byte.
    """
    for rows, dtype in _layouts(record, data, starts, stops, cfg):
        short = stops[rows] - starts[rows] < dtype.itemsize
        if short.any():
            at = int(starts[rows][short][0])
            what = f"{record.title} needs {dtype.itemsize} bytes, the payload is shorter"
            raise FormatError(what, offset=at)
        yield Batch(record, rows, gather(data, starts[rows], dtype), cfg)


def ragged(
    record: Record, name: str, data: Bytes, starts: Ints, stops: Ints
) -> tuple[Ints, npt.NDArray[Any]]:
    """Read one array whose length each payload's head says, as counts and all items in a row.

    For arrays that lie at a fixed place, as the event codes of EvrData.

    Parameters
    ----------
    record : Record
    name : str
        Of the array field.
    data : ndarray of uint8
    starts, stops : ndarray of int64, shape (n,)
        Where each payload lies in `data`.

    Returns
    -------
    counts : (n,) int64
    items : (sum of counts,) array
        Structured if the items are records.

    Raises
    ------
    FormatError
        If the field is no such array, or a payload is shorter than its head says.
    """
    from psana_dask.readers.xtc_scan import copy_runs

    field = _array_field(record, name)
    heads = Batch(record, np.arange(len(starts)), gather(data, starts, record.dtype))
    counts = np.asarray(heads[str(field.shape[0])], np.int64)
    first = starts + (field.offset or 0)
    sizes = counts * field.dtype.itemsize
    short = np.flatnonzero(first + sizes > stops)
    if short.size:
        what = f"{record.title}.{field.accessor} of {counts[short[0]]} items runs past the payload"
        raise FormatError(what, offset=int(starts[short[0]]))
    out = np.empty(int(sizes.sum()), np.uint8)
    copy_runs(data, np.ascontiguousarray(first, np.int64), sizes, out)
    return counts, out.view(field.dtype)


def is_counted(field: Field) -> bool:
    """Tell whether a field is a list at a fixed place whose length another field of the record says."""
    length = field.shape[0] if len(field.shape) == 1 else None
    own = isinstance(length, str) and length != REST and not length.startswith("cfg.")
    variable = field.record is not None and field.record.size is None
    return field.offset is not None and own and not variable


def _array_field(record: Record, name: str) -> Field:
    item = record.lookup.get(name)
    if isinstance(item, tuple) and item[1] is None and is_counted(item[0]):
        return item[0]
    raise FormatError(f"{record.title}.{name} is no array at a fixed place with a length in the head")


def gather(data: Bytes, starts: Ints, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Copy ``dtype.itemsize`` bytes from each of `starts` into a contiguous structured array."""
    from psana_dask.readers.xtc_scan import copy_pieces

    out = np.empty((len(starts), dtype.itemsize), np.uint8)
    if out.size:
        copy_pieces(data, np.ascontiguousarray(starts, np.int64), out)
    return out.view(dtype)[:, 0] if dtype.itemsize else np.empty(len(starts), dtype)


def _layouts(
    record: Record, data: Bytes, starts: Ints, stops: Ints, cfg: View | None
) -> Iterator[tuple[Ints, np.dtype[Any]]]:
    everyone = np.arange(len(starts))
    if record.size is not None or len(starts) == 0:
        yield everyone, record.dtype
        return
    if _shaped_by_config(record):
        yield everyone, concrete_dtype(record.view(data, int(starts[0]), int(stops[0]), cfg))
        return
    keys = _shape_keys(record, data, starts, stops, cfg)
    flat = keys[:, 0] if keys.shape[1] == 1 else keys  # sorting numbers is much faster than sorting rows
    _, first, which = np.unique(flat, axis=0, return_index=True, return_inverse=True)
    for group, i in enumerate(first):
        view = record.view(data, int(starts[i]), int(stops[i]), cfg)
        yield everyone[which.reshape(-1) == group], concrete_dtype(view)


def _shaped_by_config(record: Record) -> bool:
    dims = [n for f in record.moving for n in f.shape if not isinstance(n, int)]
    return not _nests(record) and all(isinstance(n, str) and n.startswith("cfg.") for n in dims)


def _nests(record: Record) -> bool:
    return any(f.record is not None and f.record.size is None for f in record.moving)


def _shape_keys(record: Record, data: Bytes, starts: Ints, stops: Ints, cfg: View | None) -> Ints:
    """Return the numbers that fix the layout, one row for each payload."""
    dims = [n for f in record.moving for n in f.shape if not isinstance(n, int)]
    names = [n for n in dims if callable(n) or not n.startswith("cfg.")]
    if _nests(record) or REST in names:
        views = (record.view(data, int(a), int(b), cfg) for a, b in zip(starts, stops, strict=True))
        numbers: dict[np.dtype[Any], int] = {}
        return np.array([[numbers.setdefault(concrete_dtype(view), len(numbers))] for view in views])
    heads = Batch(record, np.arange(len(starts)), gather(data, starts, record.dtype), cfg)
    columns = [np.asarray(n(heads) if callable(n) else resolve(heads, n), np.int64) for n in names]
    return np.stack([np.broadcast_to(c, len(starts)) for c in columns], axis=1)


def concrete_dtype(view: View) -> np.dtype[Any]:
    """Return the dtype of exactly this payload: dimensions filled in, nested records spelled out."""
    record = view.record
    if record.size is not None:
        return record.dtype
    places = [(f, view._place(f)) for f in record.fields]
    return np.dtype(
        {
            "names": [record.name_of(f) for f, _ in places],
            "formats": [_nested_dtype(p) if p.children else subarray(f, p.shape) for f, p in places],
            "offsets": [p.start - view.start for _, p in places],
            "itemsize": view.nbytes,
        }
    )


def _nested_dtype(place: Place) -> Any:
    kinds = [concrete_dtype(child) for child in place.children]
    if all(kind == kinds[0] for kind in kinds):
        return (kinds[0], place.shape) if place.shape else kinds[0]
    starts = np.cumsum([0, *(k.itemsize for k in kinds)])[:-1].tolist()
    return np.dtype({"names": [str(i) for i in range(len(kinds))], "formats": kinds, "offsets": starts})

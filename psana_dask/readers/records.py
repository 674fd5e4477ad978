"""Type tables: the vocabulary in which LCLS-1 layouts are written, and their interpreter.

A layout is data: a `Record` is a tuple of `Field` lines, each with the accessor name that
psana gives it, its type, its byte offset and its unit.  Four shape rules carry all types:

- a constant: ``Array("pots", "u1", 0, (80,))``;
- the record's own head: ``("width",)`` names another accessor of the same record, a function computes;
- the configuration of the same source: ``("cfg.num_pixels_y", "cfg.num_pixels_x")``;
- nested records, of fixed or of variable size (CSPAD quads, whose size follows from ROI masks).

What is computed (volts, numbers of rows, event codes) is a named function beside the record:
`Derived` for values, `Method` for functions with an argument.  `View` decodes one payload,
piece by piece and on demand; `record_blocks` decodes many events at once and `record_writing`
writes.  Checked against psana's own values in ``tests/conformance/test_xtc1_records.py``.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from psana_dask.errors import FormatError, NameNotFound

Bytes = npt.NDArray[np.uint8]
Choices = Mapping[int, str]
Dim = int | str | Callable[[Any], int]

REST = "*"
"""Dimension of the last field: as many elements as the payload holds."""

_BOUNDARY = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_MAX_ITEMS = 1 << 28
_SIGNED = re.compile(r"i([1248])$")
_UNSIGNED = re.compile(r"u([1248])$")


def snake(accessor: str) -> str:
    """Return our name for a psana accessor: ``numPixelsX`` -> ``num_pixels_x``."""
    return _BOUNDARY.sub("_", accessor).lower().strip("_")


@dataclass(frozen=True)
class Bits:
    """Some bits of an integer field: ``(word >> shift) & (2**width - 1)``."""

    accessor: str
    shift: int
    width: int
    name: str = ""
    hidden: bool = False
    choices: Choices = dataclasses.field(default_factory=dict, compare=False)

    def of(self, word: Any) -> Any:
        """Extract the bits from a word, or from a column of words."""
        return (word >> self.shift) & ((1 << self.width) - 1)


@dataclass(frozen=True)
class Field:
    """One line of a layout.

    Parameters
    ----------
    accessor : str
        Name of the value in psana; our name is `name`, by default ``snake(accessor)``.
    type : str or Record
        ``u1 i1 u2 i2 u4 i4 u8 i8 f4 f8`` (little-endian), ``char`` (text up to the first NUL;
        the last dimension is its room) or a nested record.
    offset : int or None
        Byte offset inside the record; None = right behind the field before.
    shape : tuple of int and str
        Dimensions in C order; see the module's docstring for the rules.
    unit : str
        Physical unit, "" for counts and settings.
    bits : tuple of Bits
        Named bits of the word.
    choices : mapping of int to str
        What the values mean, where they are a choice.
    hidden : bool
        Read by shape rules or left alone, but no value of the record.
    """

    accessor: str
    type: str | Record
    offset: int | None = None
    shape: tuple[Dim, ...] = ()
    unit: str = ""
    name: str = ""
    bits: tuple[Bits, ...] = ()
    hidden: bool = False
    choices: Choices = dataclasses.field(default_factory=dict, compare=False)

    @cached_property
    def record(self) -> Record | None:
        """The nested record, if the field is one."""
        return self.type if isinstance(self.type, Record) else None

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """Type of one element (a fixed-size record gives a structured dtype)."""
        if isinstance(self.type, Record):
            return self.type.dtype
        return np.dtype("S1") if self.type == "char" else np.dtype("<" + self.type)

    @cached_property
    def is_fixed(self) -> bool:
        """Whether place and size are the same in every payload."""
        nested_fixed = self.record is None or self.record.size is not None
        return self.offset is not None and nested_fixed and all(isinstance(n, int) for n in self.shape)

    @cached_property
    def fixed_shape(self) -> tuple[int, ...]:
        """The dimensions that are plain numbers: all of them, for a field of fixed place."""
        return tuple(n for n in self.shape if isinstance(n, int))

    @cached_property
    def fixed_size(self) -> int:
        """Bytes of the dimensions that are plain numbers."""
        return self.dtype.itemsize * math.prod(self.fixed_shape)


def Array(
    accessor: str,
    type: str | Record,
    offset: int | None,
    shape: tuple[Dim, ...],
    *,
    unit: str = "",
    name: str = "",
) -> Field:
    """Return a field with dimensions."""
    return Field(accessor, type, offset, shape, unit, name)


def Hidden(
    accessor: str,
    type: str | Record,
    offset: int | None,
    shape: tuple[Dim, ...] = (),
    bits: tuple[Bits, ...] = (),
) -> Field:
    """Return a field that psana does not show (padding, or the source of derived values)."""
    return Field(accessor, type, offset, shape, bits=bits, hidden=True)


@dataclass(frozen=True)
class Derived:
    """A value computed from the fields; `of` gets a `View` (or, for data records, a `Batch`)."""

    accessor: str
    type: str
    of: Callable[[Any], Any]
    unit: str = ""
    name: str = ""


@dataclass(frozen=True)
class Method:
    """A function of the record with an argument, as ``config.roi_mask(quad)``."""

    accessor: str
    of: Callable[..., Any]
    name: str = ""


@dataclass(frozen=True, eq=False)
class Record:
    """Layout of one type and version.

    Parameters
    ----------
    title : str
        Its name in the facility's libraries, as ``Bld.BldDataEBeamV7``.
    fields : tuple of Field
        In the order of memory.
    size : int or None
        Bytes; None = the end of the last field, rounded up to `align`.
    derived : tuple of Derived and Method
        What is computed from the fields.
    configs : tuple of str
        Titles of the configuration records that shapes refer to, in the order of search.
    inner_config : str
        Accessor of the configuration that the record itself carries for its nested records.
    drop : str
        Prefix of accessors that our names leave out (``ebeamCharge`` -> ``charge``).
    """

    title: str
    fields: tuple[Field, ...]
    size: int | None = None
    derived: tuple[Derived | Method, ...] = ()
    configs: tuple[str, ...] = ()
    inner_config: str = ""
    align: int = 4
    drop: str = ""

    def __repr__(self) -> str:
        return f"<Record {self.title}: {'varies' if self.size is None else self.size} bytes>"

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle records of the tables by title: their formulas cannot be pickled."""
        from psana_dask.readers.tables import record_of

        if record_of(self.title) is self:
            return record_of, (self.title,)
        return super().__reduce_ex__(protocol)

    def name_of(self, item: Field | Bits | Derived | Method) -> str:
        """Return our name of one of the record's values."""
        if isinstance(item, Field) and item.hidden:
            return item.accessor
        return item.name or snake(item.accessor.removeprefix(self.drop))

    @cached_property
    def lookup(self) -> dict[str, tuple[Field, Bits | None] | Derived | Method]:
        """Values by their name and by psana's accessor; psana's wins where both exist."""
        items = [(f, (f, None)) for f in self.fields]
        bits = [(b, (f, b)) for f in self.fields for b in f.bits]
        everything: list[Any] = [*items, *bits, *((d, d) for d in self.derived)]
        found = {self.name_of(item): target for item, target in everything}
        return found | {item.accessor: target for item, target in everything}

    @cached_property
    def accessors(self) -> dict[str, str]:
        """Psana's accessor -> our name, for every value (not for methods), in order."""
        shown: list[Field | Bits | Derived] = []
        for field in self.fields:
            shown += [] if field.hidden else [field]
            shown += [bits for bits in field.bits if not bits.hidden]
        shown += [item for item in self.derived if isinstance(item, Derived)]
        return {item.accessor: self.name_of(item) for item in shown}

    @cached_property
    def units(self) -> dict[str, str]:
        """Our name -> unit, for the values that have one."""
        items: list[Field | Derived] = [*self.fields, *(d for d in self.derived if isinstance(d, Derived))]
        return {self.name_of(item): item.unit for item in items if item.unit}

    @cached_property
    def choices(self) -> dict[str, Choices]:
        """Our name -> what its numbers mean, for the values that are a choice."""
        items: list[Field | Bits] = [*self.fields, *(bits for field in self.fields for bits in field.bits)]
        return {self.name_of(item): item.choices for item in items if item.choices}

    def before(self, accessor: str) -> tuple[Field, ...]:
        """Return the fields before `accessor`: what a later version of the type keeps."""
        names = [f.accessor for f in self.fields]
        return self.fields[: names.index(accessor)]

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """The fields of fixed place as one numpy dtype; the whole record when `size` is fixed."""
        fixed = [f for f in self.fields if f.is_fixed]
        end = max((_end(f) for f in fixed), default=0)
        layout: Any = {
            "names": [self.name_of(f) for f in fixed],
            "formats": [subarray(f, f.shape) for f in fixed],
            "offsets": [f.offset for f in fixed],
            "itemsize": self.size or end,
        }
        return np.dtype(layout)

    @cached_property
    def moving(self) -> tuple[Field, ...]:
        """The fields whose place or size is known only from the payload or the configuration."""
        return tuple(f for f in self.fields if not f.is_fixed)

    def view(self, buffer: Bytes, start: int = 0, stop: int | None = None, cfg: View | None = None) -> View:
        """Decode the payload in ``buffer[start:stop]``; nothing is read before it is asked for."""
        return View(self, buffer, start, len(buffer) if stop is None else stop, cfg)


def subarray(field: Field, shape: tuple[Any, ...]) -> Any:
    """Return the format of a field inside a numpy dtype."""
    return (field.dtype, shape) if shape else field.dtype


def _end(field: Field) -> int:
    return (field.offset or 0) + field.fixed_size


@dataclass(frozen=True)
class Place:
    """Where a field of one payload lies: first byte, dimensions, and nested variable records."""

    start: int
    shape: tuple[int, ...]
    stop: int
    children: tuple[View, ...] = ()


class View:
    """One decoded payload: values by attribute or by ``[name]``, in our or in psana's spelling.

    Numbers come as Python ints and floats, text as str, arrays as numpy views of the bytes,
    nested records as `View` or a list of them.

    Parameters
    ----------
    record : Record
    buffer : ndarray of uint8, one-dimensional
    start, stop : int
        Where the payload lies in `buffer`; reading beyond `stop` raises FormatError.
    cfg : View, optional
        The configuration that shapes refer to.
    """

    __slots__ = ("_places", "buffer", "cfg", "record", "start", "stop")

    def __init__(self, record: Record, buffer: Bytes, start: int, stop: int, cfg: View | None = None) -> None:
        self.record, self.buffer, self.start, self.stop, self.cfg = record, buffer, start, stop, cfg
        self._places: dict[str, Place] | None = None
        if record.size is not None and start + record.size > stop:
            what = f"{record.title} needs {record.size} bytes, the payload has {stop - start}"
            raise FormatError(what, offset=start)

    def __repr__(self) -> str:
        return f"<{self.record.title} at byte {self.start}>"

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.record.lookup]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return self[name]
        except NameNotFound as error:
            raise AttributeError(str(error)) from None

    def __getitem__(self, name: str) -> Any:
        item = self.record.lookup.get(name)
        if item is None:
            raise NameNotFound.of(f"value of {self.record.title}", name, self.record.accessors.values())
        if isinstance(item, Derived):
            return cast(item.of(self), item.type)
        if isinstance(item, Method):
            return lambda *arguments: item.of(self, *arguments)
        field, bits = item
        return self._read(field) if bits is None else bits.of(self._read(field))

    def __reduce__(self) -> tuple[Any, ...]:
        payload = np.array(self.buffer[self.start : self.stop])
        return View, (self.record, payload, 0, len(payload), self.cfg)

    def values(self) -> dict[str, Any]:
        """Return every value by our name, derived ones included, nested records as dicts."""
        return {name: plain(self[accessor]) for accessor, name in self.record.accessors.items()}

    def stored(self) -> dict[str, Any]:
        """Return every stored field by psana's accessor, hidden ones included: `encode` gives the payload."""
        return {field.accessor: plain(self._read(field), View.stored) for field in self.record.fields}

    @property
    def nbytes(self) -> int:
        """Size of the record in bytes, as the layout says (payloads may be padded)."""
        if self.record.size is not None:
            return self.record.size
        places = self.places()
        end = max([self.start + self.record.dtype.itemsize, *(p.stop for p in places.values())])
        return round_up(end - self.start, self.record.align)

    def places(self) -> dict[str, Place]:
        """Return where the fields of no fixed place lie, by accessor."""
        if self._places is None:
            self._places = dict(self._lay_out())
        return self._places

    def place(self, name: str) -> Place:
        """Return where the field `name` lies."""
        item = self.record.lookup[name]
        if not isinstance(item, tuple):
            raise NameNotFound.of(f"field of {self.record.title}", name, self.record.accessors.values())
        return self._place(item[0])

    def _place(self, field: Field) -> Place:
        if not field.is_fixed:
            return self.places()[field.accessor]
        start = self.start + (field.offset or 0)
        return Place(start, field.fixed_shape, start + field.fixed_size)

    def _lay_out(self) -> Iterator[tuple[str, Place]]:
        at = self.start
        for field in self.record.fields:
            if field.is_fixed:
                at = self._place(field).stop
                continue
            at = at if field.offset is None else self.start + field.offset
            place = self._measure(field, at)
            at = place.stop
            yield field.accessor, place

    def _measure(self, field: Field, at: int) -> Place:
        shape = tuple(self.dimension(field, n, at) for n in field.shape)
        count = math.prod(shape)
        if field.record is not None and field.record.size is None:
            return self._nest(field.record, at, shape, count)
        stop = at + count * field.dtype.itemsize
        if count > _MAX_ITEMS or stop > self.stop:
            raise FormatError(
                f"{self.record.title}.{field.accessor} with shape {shape} needs {stop - at} bytes, "
                f"the payload has {self.stop - at} left",
                offset=at,
            )
        return Place(at, shape, stop)

    def _nest(self, record: Record, at: int, shape: tuple[int, ...], count: int) -> Place:
        if count > self.stop - at:
            raise FormatError(f"{self.record.title} says it holds {count} x {record.title}", offset=at)
        children, stop = [], at
        cfg = self[self.record.inner_config] if self.record.inner_config else self.cfg
        for _ in range(count):
            children.append(View(record, self.buffer, stop, self.stop, cfg))
            stop += children[-1].nbytes
        return Place(at, shape, stop, tuple(children))

    def dimension(self, field: Field, dim: Dim, at: int) -> int:
        """Return the length of one dimension of a field that starts at byte `at`."""
        if isinstance(dim, int):
            return dim
        if dim == REST:
            return max(0, self.stop - at) // field.dtype.itemsize
        length = dim(self) if callable(dim) else resolve(self, dim)
        if not isinstance(length, int) or length < 0:
            what = f"{self.record.title}.{field.accessor} has a dimension {length}"
            raise FormatError(what, offset=at)
        return length

    def _read(self, field: Field) -> Any:
        place = self._place(field)
        if place.stop > self.stop:
            what = f"{self.record.title}.{field.accessor} lies beyond the payload"
            raise FormatError(what, offset=place.start)
        if field.record is not None:
            return self._records(field.record, place)
        values = np.ndarray(place.shape, field.dtype, self.buffer, place.start)
        if field.type == "char":
            return text(values)
        return values if place.shape else values.item()

    def _records(self, record: Record, place: Place) -> View | list[View]:
        views = place.children or tuple(
            View(record, self.buffer, place.start + i * (record.size or 0), self.stop, self.cfg)
            for i in range(math.prod(place.shape))
        )
        return list(views) if place.shape else views[0]


def resolve(view: Any, path: str) -> Any:
    """Return the value that a dotted name means: own (``width``) or ``cfg.num_pixels_x``."""
    value = view
    for part in path.split("."):
        if value is None:
            needed = " or ".join(view.record.configs)
            raise FormatError(f"{view.record.title} needs its configuration: {needed}")
        value = getattr(value, part)
    return value


def text(chars: npt.NDArray[Any]) -> Any:
    """Return char arrays as str up to the first NUL (Latin-1: any byte is a character), or a list of them."""
    if chars.ndim > 1:
        return [text(row) for row in chars]
    return chars.tobytes().split(b"\0", 1)[0].decode("latin-1")


def cast(value: Any, type: str) -> Any:
    """Return `value` as the C type `type` holds it (integers wrap, ``f4`` rounds)."""
    if isinstance(value, np.ndarray):
        return value.astype(type, copy=False) if type[0] in "uif" else value
    if unsigned := _UNSIGNED.match(type):
        return int(value) & ((1 << 8 * int(unsigned[1])) - 1)
    if signed := _SIGNED.match(type):
        half = 1 << (8 * int(signed[1]) - 1)
        return (int(value) + half) % (2 * half) - half
    if type in {"f4", "f8"}:
        return float(np.float32(value)) if type == "f4" else float(value)
    return value


def divide(numerator: Any, denominator: Any) -> Any:
    """Return the integer quotient as C gives it for positive numbers; 0 for a zero denominator."""
    return numerator // denominator if denominator else 0


def plain(value: Any, unfold: Callable[[View], dict[str, Any]] = View.values) -> Any:
    """Return `value` with each nested record as a dict."""
    if isinstance(value, View):
        return unfold(value)
    return [plain(v, unfold) for v in value] if isinstance(value, list) else value


def round_up(size: int, align: int) -> int:
    """Return the first multiple of `align` that is not below `size`."""
    return -(-size // align) * align

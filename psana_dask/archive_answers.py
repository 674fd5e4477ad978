"""What an Archiver Appliance answers: samples as JSON, or as protocol buffers (PB).

PB: chunks with an empty line between them; the first line of a chunk is a ``PayloadInfo`` (type, name, year,
headers), every other one a sample.  A line is a message in which ESC, line feed and carriage return are
written as ESC 1, ESC 2 and ESC 3.  Times are seconds into the year, UTC, and nanoseconds.  Format: the
appliance's documentation (pb_pbraw) and ``EPICSEvent.proto``.  Messages are taken apart here: nothing
is executed or unpickled.  Contract: tests/test_archive.py, tests/test_archive_pb.py.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from psana_dask.errors import ArchiverError, NameNotFound
from psana_dask.model import Array

if TYPE_CHECKING:
    import xarray as xr

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Form:
    """One form of answers.

    Parameters
    ----------
    ending : str
        Of the address.
    parse : callable
        ``parse(answer, pv, url)`` returns a DataArray.
    """

    ending: str
    parse: Callable[[bytes, str, str], xr.DataArray]


def _series(
    pv: str, url: str, stamps: Ints, values: Array, words: Mapping[str, Array], units: str
) -> xr.DataArray:
    """Return samples in order of time."""
    import xarray as xr

    order = np.argsort(stamps, kind="stable")
    dims = ("time", *(f"{pv}_{k}" for k in range(values.ndim - 1)))
    coords = {"time": stamps[order].view("M8[ns]")} | {w: ("time", v[order]) for w, v in words.items()}
    attrs = {"pv": pv, "units": units, "source": url.partition("/retrieval")[0]}
    return xr.DataArray(values[order], coords, dims, name=pv, attrs=attrs)


# ---- JSON ---------------------------------------------------------------------------------------
def parse_json(answer: bytes, pv: str, url: str) -> xr.DataArray:
    """Return the samples that an answer holds.

    Raises
    ------
    NameNotFound
        It holds no variable.
    ArchiverError
        It is not what an archiver says; names what is wrong.
    """
    try:
        found = json.loads(answer)
    except (ValueError, RecursionError) as error:
        raise ArchiverError(f"{url}: the answer is no JSON: {str(error)[:200]}") from None
    if found == []:
        raise NameNotFound(f"the archiver does not know {pv}")
    try:
        (series,) = found
        meta, rows = series["meta"], series["data"]
        stamps = np.array([_nanoseconds(r["secs"], r.get("nanos", 0)) for r in rows], np.int64)
        values = _values([r["val"] for r in rows])
        words = {w: np.array([int(r.get(w, 0)) for r in rows], np.int32) for w in ("severity", "status")}
        units = str(meta.get("EGU", ""))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ArchiverError(f"{url}: not the answer of an archiver: {type(error).__name__} {error}") from None
    return _series(pv, url, stamps, values, words, units)


def _nanoseconds(seconds: Any, nanos: Any) -> int:
    if (
        type(seconds) is not int
        or type(nanos) is not int
        or not 0 <= nanos < 10**9
        or not 0 <= seconds < 9 * 10**9
    ):
        raise ValueError(f"secs {seconds!r}, nanos {nanos!r} is no time")
    return seconds * 10**9 + nanos


def _values(values: list[Any]) -> Array:
    """Return samples as an array: numbers, text, or waveforms padded with NaN."""
    if any(isinstance(v, list) for v in values):
        rows = [np.asarray([_number(x) for x in v], np.float64) for v in values]
        out = np.full((len(rows), max(map(len, rows))), np.nan)
        for row, given in zip(out, rows, strict=True):
            row[: len(given)] = given
        return out
    if values and all(type(v) is int and abs(v) < 2**63 for v in values):
        return np.array(values, np.int64)
    if all(_is_number(v) for v in values):
        return np.array([_number(v) for v in values], np.float64)
    if all(isinstance(v, str) for v in values):
        return np.array(values, dtype=str)
    kinds = sorted({type(v).__name__ for v in values})
    raise ValueError(f"values of {' and '.join(kinds)}")


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) or value in ("NaN", "Infinity", "-Infinity", None)


def _number(value: Any) -> float:
    if not _is_number(value):
        raise ValueError(f"{value!r} is no number")
    return float("nan") if value is None else float(value)


# ---- protocol buffers ---------------------------------------------------------------------------
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Wire types."""

WIDTHS = {FIXED64: 8, FIXED32: 4}
ESCAPES = {1: 0x1B, 2: 0x0A, 3: 0x0D}
Message = dict[int, list[Any]]


def _zigzag(word: int) -> int:
    return (word >> 1) ^ -(word & 1)


def _unpacked(code: str) -> Callable[[bytes], list[Any]]:
    return lambda raw: np.frombuffer(raw, code).tolist()


def _shorts(raw: bytes) -> list[int]:
    at, found = 0, []
    while at < len(raw):
        word, at = _varint(raw, at)
        found.append(_zigzag(word))
    return found


@dataclass(frozen=True)
class Kind:
    """How the value of a sample is written.

    Parameters
    ----------
    wire : int
    read : callable
        From the wire's value: an integer, or bytes.
    array : bool
        It is a waveform: values come together.
    """

    wire: int
    read: Callable[[Any], Any]
    array: bool = False


KINDS: Mapping[int, Kind] = MappingProxyType({
    0: Kind(BYTES, lambda raw: raw.decode()),                      # SCALAR_STRING
    1: Kind(VARINT, _zigzag),                                      # SCALAR_SHORT, sint32
    2: Kind(FIXED32, lambda raw: struct.unpack("<f", raw)[0]),     # SCALAR_FLOAT
    3: Kind(VARINT, _zigzag),                                      # SCALAR_ENUM, sint32
    4: Kind(BYTES, lambda raw: struct.unpack("<b", raw)[0]),       # SCALAR_BYTE
    5: Kind(FIXED32, lambda raw: struct.unpack("<i", raw)[0]),     # SCALAR_INT, sfixed32
    6: Kind(FIXED64, lambda raw: struct.unpack("<d", raw)[0]),     # SCALAR_DOUBLE
    8: Kind(BYTES, _shorts, array=True),                           # WAVEFORM_SHORT, packed
    9: Kind(BYTES, _unpacked("<f4"), array=True),                  # WAVEFORM_FLOAT
    10: Kind(BYTES, _shorts, array=True),                          # WAVEFORM_ENUM
    11: Kind(BYTES, _unpacked("<i1"), array=True),                 # WAVEFORM_BYTE
    12: Kind(BYTES, _unpacked("<i4"), array=True),                 # WAVEFORM_INT
    13: Kind(BYTES, _unpacked("<f8"), array=True),                 # WAVEFORM_DOUBLE
})  # fmt: skip
"""By the number of a payload type. Lists of strings (7) and V4 structures (14) are not read."""


BROKEN = (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, struct.error)
"""What taking a message apart that is none may raise."""


def parse_pb(answer: bytes, pv: str, url: str) -> xr.DataArray:
    """Return the samples that an answer in protocol buffers holds.

    Raises
    ------
    NameNotFound
        It holds no variable.
    ArchiverError
        It is not what an archiver says; names the line.
    """
    stamps: list[int] = []
    values: list[Any] = []
    words: dict[str, list[int]] = {"severity": [], "status": []}
    units, header = "", None
    for number, line in enumerate(answer.split(b"\n"), 1):
        try:
            if not line:
                header = None
            elif header is None:
                header = _header(_message(_unescaped(line)))
                units = header.units or units
            else:
                stamp, value, severity, status = _sample(_message(_unescaped(line)), header)
                stamps.append(stamp)
                values.append(value)
                words["severity"].append(severity)
                words["status"].append(status)
        except BROKEN as error:
            what = f"line {number}: {type(error).__name__} {error}"
            raise ArchiverError(f"{url}: not the answer of an archiver: {what}") from None
    if not answer.strip():
        raise NameNotFound(f"the archiver does not know {pv}")
    arrays = {w: np.array(v, np.int32) for w, v in words.items()}
    return _series(pv, url, np.array(stamps, np.int64), _values(values), arrays, units)


@dataclass(frozen=True)
class Header:
    """What holds for the samples of a chunk.

    Parameters
    ----------
    kind : Kind
    start : int
        Nanoseconds since 1970 at the beginning of the year.
    units : str
    """

    kind: Kind
    start: int
    units: str


def _header(message: Message) -> Header:
    number, year = message[1][0], message[3][0]
    if number not in KINDS:
        raise ValueError(f"payload type {number!r} is not read")
    if not 1970 <= year <= 2261:
        raise ValueError(f"the year {year}")
    start = int(np.datetime64(f"{year}-01-01", "ns").astype(np.int64))
    fields = [_message(raw) for raw in message.get(15, [])]
    named = {f[1][0].decode(): f[2][0].decode() for f in fields}
    return Header(KINDS[number], start, named.get("EGU", ""))


def _sample(message: Message, header: Header) -> tuple[int, Any, int, int]:
    """Return time, value, severity and status of a sample."""
    seconds, nanos = message[1][0], message[2][0]
    if not 0 <= seconds < 366 * 86400 + 2 or not 0 <= nanos < 10**9:
        raise ValueError(f"{seconds} s and {nanos} ns into the year is no time")
    kind, given = header.kind, message.get(3, [])
    if any(isinstance(v, int) != (kind.wire == VARINT) for v in given):
        raise ValueError("a value of another wire type than its kind")
    if kind.array:
        value: Any = [x for raw in given for x in kind.read(raw)]
    else:
        value = kind.read(given[-1])
    severity, status = (_signed(message.get(k, [0])[0]) for k in (4, 5))
    return header.start + seconds * 10**9 + nanos, value, severity, status


def _signed(word: int) -> int:
    """Return an int32: negative ones are written as 64 bits."""
    signed = word - (1 << 64) if word >= 1 << 63 else word
    if not -(1 << 31) <= signed < 1 << 31:
        raise ValueError(f"{word} is no int32")
    return signed


def _unescaped(line: bytes) -> bytes:
    if b"\x1b" not in line:
        return line
    head, *rest = line.split(b"\x1b")
    return head + b"".join(bytes([ESCAPES[piece[0]]]) + piece[1:] for piece in rest)


def _message(raw: bytes) -> Message:
    """Return the values of a message by field number: integers, or bytes."""
    found: Message = {}
    for field, value in _fields(raw):
        found.setdefault(field, []).append(value)
    return found


def _fields(raw: bytes) -> Iterator[tuple[int, Any]]:
    at = 0
    while at < len(raw):
        tag, at = _varint(raw, at)
        field, wire = tag >> 3, tag & 7
        if wire == VARINT:
            value, at = _varint(raw, at)
            yield field, value
            continue
        if wire == BYTES:
            width, at = _varint(raw, at)
        elif wire in WIDTHS:
            width = WIDTHS[wire]
        else:
            raise ValueError(f"wire type {wire} of field {field}")
        if at + width > len(raw):
            raise ValueError(f"field {field} ends behind the message")
        yield field, raw[at : at + width]
        at += width


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """Return an integer of 7 bits a byte, and where it ends."""
    word = 0
    for shift in range(0, 70, 7):
        byte = raw[at]
        at += 1
        word |= (byte & 0x7F) << shift
        if byte < 0x80:
            return word & 0xFFFFFFFFFFFFFFFF, at
    raise ValueError("an integer of more than 10 bytes")


FORMS: Mapping[str, Form] = MappingProxyType({"json": Form("json", parse_json), "pb": Form("raw", parse_pb)})
"""What `Archiver` may ask for."""

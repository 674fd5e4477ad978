"""A look at a strange LCLS-II file: datagrams, their containers and decoded fields as plain values.

The counterpart of `xtc_dump`, with results of the same form; every container is looked at, also
what the index passes over.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from psana_dask.errors import FormatError
from psana_dask.model import FieldSpec, Kind, Names
from psana_dask.readers.plain import simple
from psana_dask.readers.xtc2 import is_header, parse_names, recognise, service_of, text
from psana_dask.readers.xtc2_layout import (
    CORRUPTED,
    DGRAM,
    DGRAM_OLD,
    EPOCH_1990,
    XTC,
    TransitionId,
    TypeId,
)
from psana_dask.readers.xtc2_scanner import chain_after
from psana_dask.sources import Source, read_bytes

DAMAGE = ("truncated", "out_of_order", "out_of_synch", "corrupted", "dropped_contribution", "missing_data",
          "timed_out")  # fmt: skip
"""Names of the damage bits, from bit 0; bits 12-15 are the user's."""


def dump(source: Source, start: int = 0, known: Iterable[Names] = ()) -> Iterator[dict[str, Any]]:
    """Yield every datagram of a file as nested dicts.

    Parameters
    ----------
    source : Source
    start : int
        Datagrams that begin before this byte only give their names.
    known : iterable of Names
        What was in force before the file, as for the parts of a stream behind the first one.
    """
    header = _layout(source)
    names = {n.key: n for n in known}
    offset, end, last, near = 0, source.size(), 0, 0
    while offset < end:
        row, fault = _header(source, header, offset, end)
        if row is None:
            place = chain_after(source, last, near, old=header is DGRAM_OLD)
            yield {"offset": offset, "problem": f"{fault}: {_more(offset, place, end)}"}
            if place < 0:
                return
            offset = last = place
            continue
        inside = offset + header.itemsize
        size = header.itemsize - XTC.itemsize + int(row["extent"])
        configure = service_of(row) == TransitionId.CONFIGURE
        if configure or offset >= start:
            payload = read_bytes(source, inside, offset + size - inside)
            found, faults = parse_names(payload) if configure else ([], [])
            names = {n.key: n for n in found} or names
            if offset >= start:
                yield from _datagram(_dgram(row, offset, size), _Tree(payload, inside, names), faults)
        offset, last, near = offset + size, offset, int(row["high"])


def _datagram(dgram: dict[str, Any], tree: _Tree, faults: list[tuple[int, str]]) -> Iterator[dict[str, Any]]:
    """Yield a datagram with its containers, and what is wrong inside; `faults` are those of its names."""
    yield dgram | {"containers": list(tree.nodes(0, len(tree.payload), 1))}
    more = [(at, what) for at, what in tree.faults if at not in dict(faults)]
    for at, what in sorted([*faults, *more]):
        yield {"offset": tree.base + at, "problem": what}


def names_of(source: Source) -> list[Names]:
    """Return the names that the first Configure of a file declares."""
    header = _layout(source)
    row, _ = _header(source, header, 0, source.size())
    if row is None or service_of(row) != TransitionId.CONFIGURE:
        return []
    return parse_names(read_bytes(source, header.itemsize, int(row["extent"]) - XTC.itemsize))[0]


def _layout(source: Source) -> np.dtype[Any]:
    """Return the header that a file uses: the old one only if its first datagram fits."""
    header = recognise(source) or DGRAM
    if header is DGRAM_OLD and _header(source, header, 0, source.size())[0] is None:
        return DGRAM
    return header


def _header(source: Source, header: np.dtype[Any], offset: int, end: int) -> tuple[Any, str]:
    """Return the header at `offset`; None, and what is wrong, if there is none or its datagram is cut."""
    if offset + header.itemsize > end:
        return None, f"only {end - offset} bytes: not even a datagram header"
    row = np.frombuffer(read_bytes(source, offset, header.itemsize), header)[0]
    if not is_header(row):
        return None, "no valid datagram header"
    size = header.itemsize - XTC.itemsize + int(row["extent"])
    if offset + size > end:
        service = TransitionId(service_of(row)).name
        return None, f"the datagram is longer than the file ({service}, {size} bytes)"
    return row, ""


def _more(offset: int, place: int, end: int) -> str:
    if place < 0:
        return f"{end - offset} bytes are passed over; nothing readable follows"
    if place < offset:
        return f"the datagram before is longer than it should be; the next one begins at byte {place}"
    return f"{place - offset} bytes are passed over; the next datagrams follow"


def _dgram(row: Any, offset: int, size: int) -> dict[str, Any]:
    high, low, env = int(row["high"]), int(row["low"]), int(row["env"])
    found = {
        "offset": offset,
        "size": size,
        "service": TransitionId(service_of(row)).name,
        "time": str(np.datetime64((high + EPOCH_1990) * 10**9 + low, "ns")),
        "seconds": high,
        "nanoseconds": low,
        "groups": env & 0xFFFF,
        "l1_bits": env >> 16 & 0xFF,
        "source": f"node {int(row['src']) & 0x0FFFFFFF}",
        "damage": damage_text(int(row["damage"])),
    }
    if "pulse" in row.dtype.names:
        found["pulse_id"] = int(row["pulse"]) & (1 << 56) - 1
    return found


def damage_text(damage: int) -> str:
    """Return the names of the damage bits, "" for none."""
    words = [name for bit, name in enumerate(DAMAGE) if damage >> bit & 1]
    words += [f"bit {bit}" for bit in range(len(DAMAGE), 12) if damage >> bit & 1]
    return " ".join(words + ([f"user {damage >> 12:#x}"] if damage >> 12 else []))


@dataclass
class _Tree:
    """The containers of one datagram.

    Parameters
    ----------
    payload : bytes
        What follows the datagram header, at byte `base` of the file.
    base : int
    names : mapping of key to Names
    """

    payload: bytes
    base: int
    names: dict[int, Names]

    def __post_init__(self) -> None:
        self.faults: list[tuple[int, str]] = []

    def nodes(self, start: int, stop: int, depth: int) -> Iterator[dict[str, Any]]:
        """Yield the containers at [start, stop) and, each behind its parent, what they hold."""
        at = start
        while at < stop:
            header = self._container(at, stop)
            if header is None:
                return
            extent, kind = int(header["extent"]), int(header["contains"]) & 0xFFF
            node = _container(header, self.base + at, depth)
            corrupted = kind == TypeId.PARENT and int(header["damage"]) & CORRUPTED
            if corrupted:
                node["problem"] = "marked corrupted: not entered"
            elif kind in (TypeId.NAMES, TypeId.SHAPES_DATA):
                node |= self._meaning(header, at, at + extent)
            yield node
            if not corrupted and kind in (TypeId.PARENT, TypeId.SHAPES_DATA):
                yield from self.nodes(at + XTC.itemsize, at + extent, depth + 1)
            at += extent

    def _container(self, at: int, stop: int) -> Any:
        """Return the header of the container at `at`; None, and a fault, if it cannot be one."""
        if stop - at < XTC.itemsize:
            self.faults.append((at, f"{stop - at} bytes follow the last container"))
            return None
        header = np.frombuffer(self.payload, XTC, 1, at)[0]
        extent = int(header["extent"])
        if extent < XTC.itemsize or at + extent > stop:
            what = f"a container of {extent} bytes where {stop - at} are left: the rest of its parent is lost"
            self.faults.append((at, what))
            return None
        return header

    def _meaning(self, header: Any, at: int, stop: int) -> dict[str, Any]:
        """Return the record's name and values of a Names or ShapesData container, or why it has none."""
        key = int(header["src"]) & 0x0FFFFFFF
        names = self.names.get(key)
        if names is None:
            if int(header["contains"]) & 0xFFF == TypeId.NAMES:
                return {"problem": "malformed Names"}
            return {"problem": f"no Configure declares the names {key:#x}"}
        if int(header["contains"]) & 0xFFF == TypeId.NAMES:
            fields = {f.name: f"{_type_name(f)}, rank {f.rank}" for f in names.fields}
            about = {"det_type": names.det_type, "det_id": names.det_id, "fields": fields}
            return {"record": _title(names), "values": about}
        try:
            return {"record": _title(names), "values": self._values(names, at + XTC.itemsize, stop)}
        except FormatError as error:
            return {"record": _title(names), "problem": error.what}

    def _values(self, names: Names, start: int, stop: int) -> dict[str, Any]:
        parts = dict(self._parts(start, stop))
        data = parts.get(TypeId.DATA)
        if data is None:
            raise FormatError("no data")
        shapes, values, at, row = parts.get(TypeId.SHAPES, b""), {}, 0, 0
        for spec in names.fields:
            if spec.rank and len(shapes) < 4 * (5 * row + spec.rank):
                raise FormatError(f"too few shapes: {spec.name} has none")
            shape = np.frombuffer(shapes, "<u4", spec.rank, 20 * row).tolist() if spec.rank else []
            row += spec.rank > 0
            size = int(np.prod(shape, dtype=object)) * spec.dtype.itemsize
            if at + size > len(data):
                have = f"{len(data) - at} bytes are left for {size} of {spec.name} (shape {shape})"
                raise FormatError(f"the data are shorter than their shapes say: {have}")
            values[spec.name] = _value(spec, data[at : at + size], shape)
            at += size
        return values

    def _parts(self, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
        """Yield type and payload of what a ShapesData container holds."""
        at = start
        while stop - at >= XTC.itemsize:
            header = np.frombuffer(self.payload, XTC, 1, at)[0]
            extent = int(header["extent"])
            if extent < XTC.itemsize or at + extent > stop:
                return  # `nodes` says so
            yield int(header["contains"]) & 0xFFF, self.payload[at + XTC.itemsize : at + extent]
            at += extent


def _container(header: Any, offset: int, depth: int) -> dict[str, Any]:
    contains, src = int(header["contains"]), int(header["src"])
    kind = contains & 0xFFF
    known = kind in TypeId._value2member_map_
    described = kind in (TypeId.NAMES, TypeId.SHAPES_DATA)
    return {
        "offset": offset,
        "depth": depth,
        "source": f"node {src >> 8 & 0xFFF} names {src & 0xFF}" if described else "",
        "type": TypeId(kind).name.lower() if known else f"unknown {kind}",
        "version": contains >> 12,
        "extent": int(header["extent"]),
        "damage": damage_text(int(header["damage"])),
    }


def _title(names: Names) -> str:
    version = ".".join(map(str, names.version))
    return f"{names.detector}.{names.algorithm} {version} segment {names.segment}"


def _type_name(spec: FieldSpec) -> str:
    return spec.dtype.name if spec.kind is Kind.NUMBER else spec.kind.name.lower()


def _value(spec: FieldSpec, data: bytes, shape: list[int]) -> Any:
    if spec.kind is Kind.STRING:
        return text(data)
    flat = np.frombuffer(data, spec.dtype)
    return simple(flat.reshape(shape)) if spec.rank else flat[0].item()

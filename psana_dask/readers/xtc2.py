"""LCLS-II XTC2: which files are of this format, and what their blocks mean.

`recognise` tells from the first headers whether a file is XTC2, and `parse_names` reads
what a Configure says about the blocks; `xtc2_scanner` finds them.  Format:
``docs/formats/xtc2.md``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from psana_dask.errors import FormatError
from psana_dask.model import (
    FieldSpec,
    Kind,
    Names,
)
from psana_dask.readers.xtc2_layout import (
    CHARSTR,
    CORRUPTED,
    DGRAM,
    DGRAM_OLD,
    ENUMDICT,
    ENUMVAL,
    FIELD,
    MAX_RANK,
    NAMES,
    TYPES,
    XTC,
    TransitionId,
    TypeId,
)
from psana_dask.sources import Source, read_bytes

_KINDS = {CHARSTR: Kind.STRING, ENUMVAL: Kind.ENUM, ENUMDICT: Kind.ENUM_ENTRY}


# ---- recognising a file -------------------------------------------------------------------------
def recognise(source: Source) -> np.dtype[Any] | None:
    """Return the datagram header that `source` uses, DGRAM or DGRAM_OLD; None if it is not XTC2.

    There is no magic number: the headers must chain from one to the next.
    """
    links = {old: _chain(source, header) for old, header in ((False, DGRAM), (True, DGRAM_OLD))}
    if max(links.values()) <= 0:
        return None
    return DGRAM_OLD if links[True] > links[False] else DGRAM


def _chain(source: Source, header: np.dtype[Any], most: int = 4) -> int:
    """Return how many of the first datagrams have valid headers."""
    end, offset, links, declared = source.size(), 0, 0, False
    while links < most and offset + header.itemsize <= end:
        row = np.frombuffer(read_bytes(source, offset, header.itemsize), header)[0]
        if not is_header(row):
            return links if links > 1 or declared else 0
        if links == 0:
            declared = _declares(source, row, header)
        offset += header.itemsize - XTC.itemsize + int(row["extent"])
        links += 1
    return links


def _declares(source: Source, row: Any, header: np.dtype[Any]) -> bool:
    """Tell whether the first datagram is a Configure that begins with Names: no other proof is needed."""
    if service_of(row) != TransitionId.CONFIGURE or source.size() < header.itemsize + XTC.itemsize:
        return False
    first = np.frombuffer(read_bytes(source, header.itemsize, XTC.itemsize), XTC)[0]
    smallest = XTC.itemsize + NAMES.itemsize
    return int(first["contains"]) & 0xFFF == TypeId.NAMES and int(first["extent"]) >= smallest


def is_header(row: Any) -> bool:
    """Tell whether a header row (DGRAM or DGRAM_OLD) is valid."""
    return int(row["contains"]) == 0 and int(row["extent"]) >= XTC.itemsize and service_of(row) in _SERVICES


def service_of(row: Any) -> int:
    """Return the transition of a header row."""
    return int(row["pulse"]) >> 56 & 15 if "pulse" in row.dtype.names else int(row["env"]) >> 24 & 15


_SERVICES = frozenset(TransitionId)


# ---- what the blocks mean -----------------------------------------------------------------------
def parse_names(payload: bytes) -> tuple[list[Names], list[tuple[int, str]]]:
    """Read the Names of a Configure.

    Parameters
    ----------
    payload : bytes
        What follows the datagram header.

    Returns
    -------
    names : list of Names
    faults : list of (int, str)
        Offset in the payload and what is wrong there.
    """
    names: dict[int, Names] = {}
    faults: list[tuple[int, str]] = []
    for offset, header in _containers(payload):
        if int(header["contains"]) & 0xFFF != TypeId.NAMES:
            continue
        try:
            found = _names(payload[offset : offset + int(header["extent"])])
        except FormatError as error:
            faults.append((offset, error.what))
            continue
        if found.key in names:
            faults.append((offset, f"second Names with key {found.key:#x}: the first one is used"))
        names.setdefault(found.key, found)
    return list(names.values()), faults


def _containers(payload: bytes) -> Iterator[tuple[int, Any]]:
    """Yield (offset, header) of every container that is no Parent; Parents are entered."""
    offset = 0
    while offset + XTC.itemsize <= len(payload):
        header = np.frombuffer(payload, XTC, 1, offset)[0]
        extent = int(header["extent"])
        if extent < XTC.itemsize or offset + extent > len(payload):
            return  # the compiled walk reports it
        parent = int(header["contains"]) & 0xFFF == TypeId.PARENT
        if parent and not int(header["damage"]) & CORRUPTED:
            offset += XTC.itemsize
            continue
        if not parent:
            yield offset, header
        offset += extent


def _names(container: bytes) -> Names:
    fields_size = len(container) - XTC.itemsize - NAMES.itemsize
    if fields_size < 0 or fields_size % FIELD.itemsize:
        raise FormatError(f"a Names container of {len(container)} bytes, which no number of fields gives")
    header = np.frombuffer(container, XTC, 1)[0]
    row = np.frombuffer(container, NAMES, 1, XTC.itemsize)[0]
    fields = np.frombuffer(container, FIELD, offset=XTC.itemsize + NAMES.itemsize)
    version = int(row["alg_version"])
    return Names(
        key=int(header["src"]) & 0x0FFFFFFF,
        detector=text(row["det_name"]),
        det_type=text(row["det_type"]),
        det_id=text(row["det_id"]),
        algorithm=text(row["alg_name"]),
        version=(version >> 16 & 0xFF, version >> 8 & 0xFF, version & 0xFF),
        segment=int(row["segment"]),
        fields=tuple(map(_field, fields["name"].tolist(), fields["type"].tolist(), fields["rank"].tolist())),
    )


def _field(name: bytes, code: int, rank: int) -> FieldSpec:
    if code >= len(TYPES) or rank > MAX_RANK:
        raise FormatError(f"field {text(name)!r} has type {code} and rank {rank}, which do not exist")
    return FieldSpec(text(name), TYPES[code], rank, _KINDS.get(code, Kind.NUMBER))


def text(raw: bytes) -> str:
    """Return a C string: what comes before the first NUL."""
    return bytes(raw).split(b"\0", 1)[0].decode("utf-8", "replace")

"""A look at a strange LCLS-1 file: datagrams, their container trees and decoded payloads as plain values.

For programs and for the command line: every result is made of dicts, lists, numbers and text.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from psana_dask.errors import FormatError
from psana_dask.model import Problem
from psana_dask.readers import xtc
from psana_dask.readers.plain import simple
from psana_dask.readers.tables import record_for, type_name
from psana_dask.readers.xtc_config import Configuration
from psana_dask.readers.xtc_layout import (
    COMPRESSED,
    ID_XTC,
    NO_FIDUCIAL,
    XTC,
    Damage,
    TransitionId,
    source_key,
    source_name,
)
from psana_dask.sources import Source, read_bytes

Bytes = npt.NDArray[np.uint8]

def dump(
    source: Source, start: int = 0, configuration: Configuration | None = None
) -> Iterator[dict[str, Any]]:
    """Yield every datagram of a file as nested dicts.

    Parameters
    ----------
    source : Source
    start : int
        Byte where a datagram begins.  What lies before it still gives its configuration.
    configuration : Configuration, optional
        What was in force before the file, as for the parts of a stream behind the first one.
    """
    configuration = configuration or Configuration()
    for block in xtc.walk(source, containers=True):
        problems = sorted((p for p in block.problems if p.offset >= start), key=lambda p: p.offset)
        for row, dgram in enumerate(block.dgrams):
            offset, size = int(dgram["offset"]), int(dgram["size"])
            while problems and problems[0].offset < offset:
                yield _problem(problems.pop(0))
            configuring = dgram["service"] in _CONFIGURING
            if not configuring and offset < start:
                continue
            payload, nodes = np.frombuffer(read_bytes(source, offset, size), np.uint8), block.leaves_of(row)
            if configuring:
                configuration = configuration.with_dgram(payload, nodes[nodes["contains"] & 0xFFFF != ID_XTC])
            if offset >= start:
                yield _dgram(dgram, nodes, payload, configuration)
        yield from map(_problem, problems)


def configuration_of(source: Source) -> Configuration:
    """Return what is in force at the end of a file."""
    configuration = Configuration()
    for block in xtc.walk(source):
        for row in np.flatnonzero(np.isin(block.dgrams["service"], _CONFIGURING)):
            offset, size = int(block.dgrams["offset"][row]), int(block.dgrams["size"][row])
            payload = np.frombuffer(read_bytes(source, offset, size), np.uint8)
            configuration = configuration.with_dgram(payload, block.leaves_of(int(row)))
    return configuration


def _problem(problem: Problem) -> dict[str, Any]:
    return {"offset": problem.offset, "problem": problem.what}


_CONFIGURING = (TransitionId.CONFIGURE, TransitionId.BEGIN_CALIB_CYCLE)


def _dgram(dgram: Any, nodes: Any, payload: Bytes, configuration: Configuration) -> dict[str, Any]:
    offset, timestamp = int(dgram["offset"]), int(dgram["timestamp"])
    return {
        "offset": offset,
        "size": int(dgram["size"]),
        "service": TransitionId(int(dgram["service"])).name,
        "time": str(np.datetime64((timestamp >> 32) * 10**9 + (timestamp & 0xFFFFFFFF), "ns")),
        "seconds": timestamp >> 32,
        "nanoseconds": timestamp & 0xFFFFFFFF,
        "fiducial": int(dgram["fiducial"]) & NO_FIDUCIAL,
        "vector": int(dgram["fiducial"]) >> 17,
        "ticks": int(dgram["ticks"]) & 0xFFFFFF,
        "env": int(dgram["env"]),
        "containers": [_container(node, offset, payload, configuration) for node in nodes],
    }


def _container(node: Any, offset: int, dgram: Bytes, configuration: Configuration) -> dict[str, Any]:
    log, phy, contains = int(node["log"]), int(node["phy"]), int(node["contains"])
    found = {
        "offset": offset + int(node["at"]),
        "depth": int(node["depth"]),
        "source": source_name(log, phy),
        "type": type_name(contains & 0xFFFF),
        "version": contains >> 16 & 0x7FFF,
        "extent": int(node["extent"]),
        "damage": damage_text(int(node["damage"])),
    }
    if contains & COMPRESSED:
        found["compressed"] = True
    size = int(node["extent"]) - XTC.itemsize
    if contains & 0xFFFF != ID_XTC and size > 0:
        start = int(node["at"]) + XTC.itemsize
        found |= _decoded(contains, source_key(log, phy), dgram[start : start + size], configuration)
    return found


def _decoded(
    contains: int, source: tuple[int, int], payload: Bytes, configuration: Configuration
) -> dict[str, Any]:
    """Return the record's name and values, or why it has none."""
    try:
        view = configuration.decode(contains, source, payload)
        return {"record": view.record.title, "values": simple(view.values())}
    except FormatError as error:
        record = record_for(contains & 0xFFFF, contains >> 16 & 0x7FFF, payload)
        return {"record": record.title, "problem": str(error)}


def damage_text(damage: int) -> str:
    """Return the names of the damage bits, "" for none."""
    names = [bit.name or "" for bit in Damage if damage & bit]
    if damage & Damage.USER_DEFINED:
        names.append(f"user {damage >> 24:#x}")
    return " ".join(name.lower() for name in names)

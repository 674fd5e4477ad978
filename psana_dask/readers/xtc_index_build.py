"""Index files made: what the facility's ``xtcindex`` says of an XTC file, without its wrong offsets."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from psana_dask.readers import xtc
from psana_dask.readers.tables import EPICS, is_known, record_for
from psana_dask.readers.tables.signals import event_codes
from psana_dask.readers.xtc_index_files import IDX_EVENT, IDX_STEP, Idx, IdxSegment
from psana_dask.readers.xtc_layout import ID_EVR_DATA, ID_XTC, NO_FIDUCIAL, XTC, Damage, Level, TransitionId
from psana_dask.sources import Source, read_bytes

MOST_CODES = 32
"""Bits of the mask of event codes."""


def build_idx(source: Source) -> Idx:
    """Return the index of an XTC file; `write_idx` makes the file of it.

    Nodes, their sources and event codes are numbered as they first appear in events.
    """
    builder = _Builder(source)
    for block in xtc.walk(source, containers=True):
        for row, dgram in enumerate(block.dgrams):
            builder.add(dgram, block.leaves_of(row))
    events = np.array(builder.events, IDX_EVENT)
    order = np.argsort(events[["seconds", "nanoseconds"]], kind="stable", order=("seconds", "nanoseconds"))
    segments = tuple(IdxSegment(*node, tuple(found)) for node, found in builder.nodes.items())
    name = os.path.basename(source.name)[:31]
    steps, codes = np.array(builder.steps, IDX_STEP), np.array(builder.codes, np.uint8)
    return Idx(name, events[order], steps, codes, segments)


@dataclass
class _Builder:
    source: Source
    events: list[tuple[int, ...]] = field(default_factory=list)
    steps: list[tuple[int, ...]] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    nodes: dict[tuple[int, int], list[tuple[int, int, int]]] = field(default_factory=dict)

    def add(self, dgram: Any, tree: Any) -> None:
        """Take one datagram and all its containers."""
        offset, timestamp = int(dgram["offset"]), int(dgram["timestamp"])
        clock = timestamp >> 32, timestamp & 0xFFFFFFFF
        fiducial = int(dgram["fiducial"]) & NO_FIDUCIAL
        if dgram["service"] == TransitionId.BEGIN_CALIB_CYCLE:
            self.steps.append((offset, len(self.events), *clock))
        elif dgram["service"] == TransitionId.L1_ACCEPT and fiducial != NO_FIDUCIAL:
            damaged, empty = self._masks(tree)
            codes = self._code_mask(offset, tree)
            self.events.append((*clock, fiducial, offset, int(dgram["damage"]), damaged, empty, codes))

    def _masks(self, tree: Any) -> tuple[int, int]:
        """Return the bits of the readout nodes that are damaged, and that hold nothing."""
        damaged = empty = 0
        for node, inside in _nodes(tree):
            sources = self.nodes.setdefault((int(node["log"]), int(node["phy"])), [])
            bit = 1 << list(self.nodes).index((int(node["log"]), int(node["phy"])))
            damaged |= bit if node["damage"] else 0
            empty |= bit if node["contains"] & 0xFFFF == ID_XTC and not len(inside) else 0
            if not sources:
                sources += _sources(inside)
        return damaged, empty

    def _code_mask(self, offset: int, tree: Any) -> int:
        mask = 0
        for leaf in tree[tree["contains"] & 0xFFFF == ID_EVR_DATA]:
            for code in self._codes(offset, leaf).tolist():
                if code not in self.codes and code < 256 and len(self.codes) < MOST_CODES:
                    self.codes.append(code)
                mask |= 1 << self.codes.index(code) if code in self.codes else 0
        return mask

    def _codes(self, offset: int, leaf: Any) -> npt.NDArray[np.uint32]:
        record = record_for(ID_EVR_DATA, int(leaf["contains"]) >> 16 & 0x7FFF)
        size = int(leaf["extent"]) - XTC.itemsize
        if not size or not is_known(record):
            return np.zeros(0, np.uint32)
        start = offset + int(leaf["at"]) + XTC.itemsize
        return event_codes(record.view(np.frombuffer(read_bytes(self.source, start, size), np.uint8)))


def _nodes(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Yield (readout node, payloads in it) of an event; incomplete nodes are not looked into."""
    tops = np.append(np.flatnonzero(tree["depth"] == 1), len(tree))
    for first, stop in pairwise(tops.tolist()):
        node, inside = tree[first], tree[first + 1 : stop]
        if node["log"] >> 24 == Level.SEGMENT and not node["damage"] & Damage.INCOMPLETE_CONTRIBUTION:
            yield node, inside[inside["contains"] & 0xFFFF != ID_XTC]


def _sources(payloads: Any) -> list[tuple[int, int, int]]:
    """Return the sources and types of a node, up to its first EPICS payload."""
    found = []
    for row in payloads:
        found.append((int(row["log"]), int(row["phy"]), int(row["contains"])))
        if row["contains"] & 0xFFFF == EPICS:
            break
    return found

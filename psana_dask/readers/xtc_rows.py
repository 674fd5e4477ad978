"""The rows of one LCLS-1 stream: what a scan finds, as the columns of an index.

A block is a leaf of the container tree; its key is the number of its kind (source, type, version).
Transitions have the numbers of `model.Service`, whatever the format.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from psana_dask.model import BLOCK_COLUMNS, DGRAM_COLUMNS, XTC_COLUMNS, Array, Problem, Service
from psana_dask.readers import xtc
from psana_dask.readers.xtc_layout import XTC, TransitionId
from psana_dask.sources import Source

SERVICES = {
    TransitionId.UNKNOWN: Service.UNKNOWN,
    TransitionId.RESET: Service.RESET,
    TransitionId.MAP: Service.MAP,
    TransitionId.UNMAP: Service.UNMAP,
    TransitionId.CONFIGURE: Service.CONFIGURE,
    TransitionId.UNCONFIGURE: Service.UNCONFIGURE,
    TransitionId.BEGIN_RUN: Service.BEGIN_RUN,
    TransitionId.END_RUN: Service.END_RUN,
    TransitionId.BEGIN_CALIB_CYCLE: Service.BEGIN_STEP,
    TransitionId.END_CALIB_CYCLE: Service.END_STEP,
    TransitionId.ENABLE: Service.ENABLE,
    TransitionId.DISABLE: Service.DISABLE,
    TransitionId.L1_ACCEPT: Service.L1_ACCEPT,
}
"""What the transitions of LCLS-1 are called here."""

_TO_SERVICE = np.full(16, Service.UNKNOWN, np.uint8)
_TO_SERVICE[list(SERVICES)] = list(SERVICES.values())
_TO_TRANSITION = np.zeros(16, np.uint8)
_TO_TRANSITION[list(SERVICES.values())] = list(SERVICES)

_TABLES = DGRAM_COLUMNS | BLOCK_COLUMNS | XTC_COLUMNS
_SCANNED = (
    "timestamp", "time", "service", "part", "offset", "size", "env", "damage", "first_block", "fiducial",
    "ticks", "key", "data", "block_damage", "payload",
)  # fmt: skip
KIND_COLUMNS = ("kind_log", "kind_phy", "kind_contains")


def transition_ids(service: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the TransitionId of each `Service`."""
    return _TO_TRANSITION[service]


class Rows:
    """The datagrams and leaves of a stream, part after part.

    Parameters
    ----------
    before : mapping of str to array, optional
        Columns of an index that is to be continued.
    live : bool
        Files may still grow: an unfinished last datagram is no problem.
    progress : callable, optional
    """

    def __init__(
        self, before: Mapping[str, Array] | None = None, *, live: bool = False, progress: Any = None
    ) -> None:
        self.problems: list[Problem] = []
        self._live, self._progress = live, progress
        self._pieces: list[dict[str, Array]] = []
        self._blocks = 0
        known = None if before is None else [before[name] for name in KIND_COLUMNS]
        self._kinds = xtc.Kinds(known)
        if before is not None:
            self._pieces.append({n: before[n][:-1] if n == "first_block" else before[n] for n in _SCANNED})
            self._blocks = len(before["key"])

    def __len__(self) -> int:
        return sum(len(piece["timestamp"]) for piece in self._pieces)

    def scan(self, source: Source, part: int, start: int, known: Array) -> int:
        """Add a part from byte `start`; return the first byte that belongs to no whole datagram.

        `known` (sorted) are offsets where datagrams are said to begin.
        """
        block = xtc.scan(source, start, live=self._live, known=known)
        self._pieces.append(self._columns_of(block, part))
        self._blocks += len(block.leaves)
        self.problems += block.problems
        if self._progress is not None:
            self._progress(source.name, block.next, source.size())
        return block.next

    def _columns_of(self, block: xtc.Block, part: int) -> dict[str, Array]:
        dgrams, leaves = block.dgrams, block.leaves
        seconds = (dgrams["timestamp"] >> np.uint64(32)).astype(np.int64)
        nanoseconds = (dgrams["timestamp"] & np.uint64(0xFFFFFFFF)).astype(np.int64)
        return {
            "timestamp": dgrams["timestamp"],
            "time": seconds * 1_000_000_000 + nanoseconds,
            "service": _TO_SERVICE[dgrams["service"]],
            "part": np.full(len(dgrams), part, np.uint16),
            "offset": dgrams["offset"],
            "size": dgrams["size"],
            "env": dgrams["env"],
            "damage": dgrams["damage"],
            "first_block": dgrams["first_leaf"] + self._blocks,
            "fiducial": dgrams["fiducial"],
            "ticks": dgrams["ticks"],
            "key": self._kinds.number(leaves),
            "data": leaves["at"] + np.uint32(XTC.itemsize),
            "block_damage": leaves["damage"],
            "payload": leaves["extent"] - np.uint32(XTC.itemsize),
        }

    def columns(self) -> dict[str, Array]:
        """Return the columns of all that was scanned."""
        found = {}
        for name in _SCANNED:
            pieces = [piece[name] for piece in self._pieces]
            last = [np.array([self._blocks])] if name == "first_block" else []
            found[name] = np.concatenate([*pieces, *last]).astype(_TABLES[name], copy=False)
        kinds = self._kinds.rows
        return found | {f"kind_{n}": np.ascontiguousarray(kinds[n]) for n in ("log", "phy", "contains")}

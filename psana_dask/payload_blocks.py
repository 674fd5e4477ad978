"""The blocks of an LCLS-1 stream: which payload has a key, its bytes, and the configuration it needs.

`PayloadBlocks` is to LCLS-1 what `blocks.StreamBlocks` is to LCLS-II.  A configuration is a state of
the stream: it begins with a Configure, and a BeginCalibCycle that carries other settings begins the
next.  States are read when they are first needed and kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from psana_dask.blocks import read_parts
from psana_dask.model import Array, Service, StreamIndex
from psana_dask.readers.xtc_layout import XTC, source_key
from psana_dask.sources import FileSource, Source

if TYPE_CHECKING:
    from psana_dask.readers.records import View
    from psana_dask.readers.xtc_config import Configuration

Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]


class PayloadBlocks:
    """Looks up payloads of one stream.

    Parameters
    ----------
    index : StreamIndex
        Of the format ``xtc``.
    """

    def __init__(self, index: StreamIndex) -> None:
        self.index = index
        self._states: dict[int, Configuration] = {}

    def source(self, part: int) -> Source:
        """Return the file of a part."""
        return FileSource(self.index.parts[part])

    def kind(self, key: int) -> tuple[int, int, int]:
        """Return the source (log, phy) and the type word of the blocks with a key."""
        index = self.index
        return int(index["kind_log"][key]), int(index["kind_phy"][key]), int(index["kind_contains"][key])

    def locate(self, rows: Array, wanted: Sequence[int], *, readable: bool = True) -> Ints:
        """Return for each datagram row the row of its block whose key is ``wanted[config]``, or -1.

        Blocks without data are left out, unless `readable` is False.
        """
        from psana_dask.locate import blocks_of

        out, payload = blocks_of(self.index, rows, wanted), self.index["payload"]
        if readable and len(payload):
            out[payload[out] == 0] = -1
        return out

    def blocks_of(self, row: int) -> Ints:
        """Return the blocks of one datagram."""
        first, last = self.index["first_block"][row : row + 2].tolist()
        return np.arange(first, last)

    def dgram(self, row: int) -> Bytes:
        """Return the bytes of one datagram."""
        index = self.index
        out = np.empty(int(index["size"][row]), np.uint8)
        self.source(int(index["part"][row])).read_into(int(index["offset"][row]), out)
        return out

    def leaves(self, row: int) -> Array:
        """Return the leaves of one datagram, as rows of ``readers.xtc_scan.LEAF_ROW``."""
        from psana_dask.readers.xtc_scan import LEAF_ROW

        index, blocks = self.index, self.blocks_of(row)
        out = np.zeros(len(blocks), LEAF_ROW)
        keys = index["key"][blocks]
        out["at"] = index["data"][blocks] - np.uint32(XTC.itemsize)
        out["extent"] = index["payload"][blocks] + np.uint32(XTC.itemsize)
        out["damage"] = index["block_damage"][blocks]
        for name in ("log", "phy", "contains"):
            out[name] = index[f"kind_{name}"][keys]
        return out

    def payload(self, row: int, block: int) -> Bytes:
        """Return the bytes of one block, as they are in the file."""
        index = self.index
        out = np.empty(int(index["payload"][block]), np.uint8)
        offset = int(index["offset"][row]) + int(index["data"][block])
        self.source(int(index["part"][row])).read_into(offset, out)
        return out

    def decode(self, row: int, block: int) -> View:
        """Return one block decoded, with the configuration in force.

        Raises
        ------
        FormatError
            It is cut, or contradicts itself.
        """
        log, phy, contains = self.kind(int(self.index["key"][block]))
        configuration = self.configuration(int(self.index["config"][row]))
        return configuration.decode(contains, source_key(log, phy), self.payload(row, block))

    def sample(self, state: int, key: int) -> tuple[int, int]:
        """Return the datagram and the block that stand for a kind in a state; -1 where there is none."""
        place = state * len(self.index["kind_log"]) + key
        return int(self.index["sample_row"][place]), int(self.index["sample_block"][place])

    def configuration(self, state: int) -> Configuration:
        """Return the settings in force in a state of the stream (a value of its column ``config``)."""
        from psana_dask.readers.xtc_config import Configuration

        known = state
        while known > 0 and known not in self._states and not self._is_fresh(known):
            known -= 1
        for step in range(known, state + 1):
            if step not in self._states:
                fresh = step == 0 or self._is_fresh(step)
                before = Configuration() if fresh else self._states[step - 1]
                self._states[step] = before if step == 0 else self._after(before, step)
        return self._states[state]

    def _is_fresh(self, state: int) -> bool:
        """Tell whether a state begins with a Configure."""
        return bool(self.index["service"][self._first_row(state)] == Service.CONFIGURE)

    def _first_row(self, state: int) -> int:
        return int(np.searchsorted(self.index["config"], state))

    def _after(self, before: Configuration, state: int) -> Configuration:
        row = self._first_row(state)
        return before.with_dgram(self.dgram(row), self.leaves(row))

    def payloads(self, rows: Array, blocks: Ints, first: int = 0, size: int | None = None) -> Payloads:
        """Read many payloads, or the same piece of each.

        Parameters
        ----------
        rows, blocks : (n,) int64
        first : int
            Byte of the payload from which on it is read.
        size : int, optional
            Bytes of each; by default all from `first` on. No more is read than there is.
        """
        index = self.index
        there = np.maximum(index["payload"][blocks].astype(np.int64) - first, 0)
        sizes = there if size is None else np.minimum(there, size)
        offsets = index["offset"][rows] + index["data"][blocks].astype(np.int64) + first
        stops = np.cumsum(sizes)
        data = np.empty(int(stops[-1]) if len(stops) else 0, np.uint8)
        read_parts(self, index["part"][rows], offsets, sizes, data, stops - sizes)
        return Payloads(data, stops - sizes, stops)


@dataclass(frozen=True)
class Payloads:
    """Bytes of many payloads.

    Parameters
    ----------
    data : (bytes,) uint8
    starts, stops : (n,) int64
        Where each lies in them.
    """

    data: Bytes
    starts: Ints
    stops: Ints

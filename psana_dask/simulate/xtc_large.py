"""The repeated events of one LCLS-1 stream: what changes in them from cycle to cycle."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from psana_dask.readers import xtc
from psana_dask.readers.xtc2_layout import TransitionId as Service
from psana_dask.readers.xtc_index_build import build_idx
from psana_dask.readers.xtc_index_files import ID_PROXY, Idx, idx_file_of, write_idx
from psana_dask.readers.xtc_layout import DGRAM, FIDUCIALS, ID_EPICS, ID_EVR_DATA, XTC
from psana_dask.readers.xtc_small_data import small_dgram
from psana_dask.simulate.describe import packed, unpacked
from psana_dask.simulate.repeated import Places, Records
from psana_dask.simulate.xtc import XtcWriter
from psana_dask.sources import FileSource, MemorySource

Numbers = npt.NDArray[np.int64]

FIDUCIAL_AT = 12
ORIGINAL_AT = DGRAM.itemsize + XTC.itemsize
"""Byte, in an event of a small-data file, that says where the whole event is."""


def fiducials_later(fiducials: Numbers, nanoseconds: Any) -> Numbers:
    """Return the fiducials of events that come `nanoseconds` later."""
    later: Numbers = (fiducials + np.rint(np.asarray(nanoseconds) * 360e-9).astype(np.int64)) % FIDUCIALS
    return later


class XtcTrack:
    """The repeated events of a stream: their bytes, and where their clocks, fiducials and offsets stand.

    Parameters
    ----------
    writer : XtcWriter
        Of the stream, after the transitions in front of the events.
    period : int
        Nanoseconds from one cycle to the next.
    """

    def __init__(self, writer: XtcWriter, period: int) -> None:
        self.writer, self.files, self.period = writer, writer.files, period
        entries = [entry for entry in writer.entries() if entry.service == Service.L1_ACCEPT]
        self.event = np.array([entry.event for entry in entries], np.int64)
        self.times = unpacked([writer.clock(entry) for entry in entries])
        self.fiducials = writer.content.fiducials[self.event]
        pieces = [writer.datagram(entry) for entry in entries]
        self.data = Records(pieces)
        small = [small_dgram(p, start) for p, start in zip(pieces, self.data.starts.tolist(), strict=False)]
        self.small = Records(small)
        self._kept = np.array([len(piece) > 0 for piece in small], bool)
        self._words = [_Words(records) for records in (self.data, self.small)]
        self._proxies = self._words[1].leaves(ID_PROXY)[1] + XTC.itemsize
        self._proxy_offsets = self.small.get(self._proxies, "<i8")
        self._begin, self._idx = self.files.offset, list[npt.NDArray[Any]]()

    def append(self, later: int, events: int) -> None:
        """Write one cycle, or the first `events` of it, `later` nanoseconds after the pool's."""
        count = int(np.searchsorted(self.event, events))
        number = later // self.period * self.writer.spec.events + self.event
        times, fiducials = self.times + later, fiducials_later(self.fiducials, later)
        for words, kept in zip(self._words, (np.ones(len(self.event), bool), self._kept), strict=True):
            words.set(times[kept], fiducials[kept], number[kept])
        base = self.files.offset
        starts = [records.starts[:-1][self._kept] for records in (self.small, self.data)]
        self.small.put(starts[0] + ORIGINAL_AT, base + starts[1], "<i8")
        self.small.put(self._proxies, base + self._proxy_offsets, "<i8")
        self._note(base + self.data.starts[:count], packed(times[:count]), fiducials[:count])
        self.files.write(self.data.first(count))
        self.files.write_smd(self.small.first(count))

    def _note(self, offsets: Numbers, stamps: npt.NDArray[np.uint64], fiducials: Numbers) -> None:
        """Keep what the index file says of the events of one cycle, if the description wants one."""
        if not self.writer.spec.daq.index:
            return
        pool = self._pool.events[: len(offsets)].copy()
        pool["seconds"], pool["nanoseconds"] = stamps >> np.uint64(32), stamps & np.uint64(0xFFFFFFFF)
        pool["offset"], pool["fiducial"] = offsets, fiducials
        self._idx.append(pool)

    @cached_property
    def _pool(self) -> Idx:
        return build_idx(MemorySource(self.data.buffer.tobytes(), "pool.xtc"))

    def write_index(self) -> None:
        """Write the index file of the whole stream, if the description wants one."""
        if not self._idx:
            return
        path = self.files.files[0]
        place = Path(idx_file_of(str(path)))
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(write_idx(self._whole_idx(path)))

    def _whole_idx(self, path: Path) -> Idx:
        if len(self._idx) == 1:  # perhaps not the whole pool
            return build_idx(FileSource(str(path)))
        with path.open("rb") as file:
            start = build_idx(MemorySource(file.read(self._begin), "start"))
        return replace(self._pool, name=path.name[:31], events=np.concatenate(self._idx), steps=start.steps)


class _Words:
    """Where time stamps and fiducials stand in datagrams: in headers, event codes and EPICS values."""

    def __init__(self, records: Records) -> None:
        self.records = records
        self._block = xtc.scan(MemorySource(records.buffer.tobytes(), "pool"))
        self._starts = self._block.dgrams["offset"].astype(np.int64)
        rows, places = self.leaves(ID_EVR_DATA)
        counts = records.get(places + XTC.itemsize, "<u4").astype(np.int64)
        which = np.repeat(np.arange(len(places)), counts)
        nth = np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)
        self._code_rows, self._codes = rows[which], places[which] + XTC.itemsize + 4 + 12 * nth
        self._epics_rows, epics = self.leaves(ID_EPICS)
        self._epics = epics + XTC.itemsize + 12
        self._first = unpacked(records.get(self._starts, "<u8"))
        self._stamps = [records.get(self._epics + 4 * i, "<u4").astype(np.int64) for i in (0, 1)]

    def leaves(self, type_id: int) -> tuple[Numbers, Places]:
        """Return the datagrams of the containers of one type, and where their headers are."""
        dgrams, leaves = self._block.dgrams, self._block.leaves
        first = np.append(dgrams["first_leaf"], len(leaves)).astype(np.int64)
        rows = np.repeat(np.arange(len(dgrams)), first[1:] - first[:-1])
        mine = leaves["contains"] & 0xFFFF == type_id
        return rows[mine], dgrams["offset"][rows[mine]].astype(np.int64) + leaves["at"][mine]

    def set(self, times: Numbers, fiducials: Numbers, numbers: Numbers) -> None:
        """Set the clocks (nanoseconds), fiducials and numbers of the datagrams."""
        records = self.records
        records.put(self._starts, packed(times), "<u8")
        records.put(self._starts + FIDUCIAL_AT, fiducials | (numbers + 1 & 0x7FFF) << 17, "<u4")
        records.put(self._codes, fiducials[self._code_rows], "<u4")
        stamps = self._stamps[0] * 1_000_000_000 + self._stamps[1] + (times - self._first)[self._epics_rows]
        seconds, rest = np.divmod(stamps, 1_000_000_000)
        records.put(self._epics, seconds, "<u4")
        records.put(self._epics + 4, rest, "<u4")

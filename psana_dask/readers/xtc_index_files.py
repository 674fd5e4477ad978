"""Files beside an XTC file that say where things are: ``.idx`` indices and ``.smd.xtc`` small data.

Both are shortcuts, never the truth: an offset counts only after the header there was looked at
(`verify_offsets`).  ``xtcindex`` itself writes wrong offsets: after a datagram without a fiducial
the next entry points to the datagram that it skipped.  Formats: ``docs/formats/xtc.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from psana_dask.errors import FormatError, TruncatedError
from psana_dask.model import Problem
from psana_dask.readers.xtc_layout import DGRAM, NO_FIDUCIAL, XTC, TransitionId
from psana_dask.sources import Source

Array = npt.NDArray[Any]

# fmt: off
IDX_HEADER = np.dtype([               # offset; meaning
    ("type",          "<u4"),         #  0; 38, version 2 in the high half
    ("name",          "S32"),         #  4; name of the XTC file, cut to fit
    ("steps",         "<i4"),         # 36; number of BeginCalibCycles
    ("codes",         "<i2"),         # 40; number of event codes
    ("segments",      "<i2"),         # 42; number of readout nodes
    ("events",        "<i4"),         # 44; number of L1Accepts
    ("out_of_order",  "<i4"),         # 48
    ("overlap_prev",  "<i4"),         # 52
    ("overlap_next",  "<i4"),         # 56
])

IDX_HEADER_V1 = np.dtype([
    ("type",          "<u4"),         #  0; 38, version 1
    ("name",          "S32"),         #  4
    ("steps",         "<i2"),         # 36
    ("codes",         "i1"),          # 38
    ("segments",      "i1"),          # 39
    ("events",        "<i4"),         # 40
])

IDX_EVENT = np.dtype([
    ("seconds",       "<u4"),         #  0
    ("nanoseconds",   "<u4"),         #  4
    ("fiducial",      "<u4"),         #  8
    ("offset",        "<i8"),         # 12; byte of the datagram in the XTC file
    ("damage",        "<u4"),         # 20
    ("damaged",       "<u4"),         # 24; bit i: segment i is damaged
    ("empty",         "<u4"),         # 28; bit i: segment i has no data
    ("codes",         "<u4"),         # 32; bit i: event code i was there
])

IDX_STEP = np.dtype([
    ("offset",        "<i8"),         #  0; byte of the BeginCalibCycle
    ("first_event",   "<i4"),         #  8; index of its first L1Accept
    ("seconds",       "<u4"),         # 12
    ("nanoseconds",   "<u4"),         # 16
])

SOURCE = np.dtype([("log", "<u4"), ("phy", "<u4")])
# fmt: on

_NEAR = 8
"""How many datagrams behind a wrong offset are looked at."""


@dataclass(frozen=True)
class IdxSegment:
    """A readout node: its bit in the masks of events, and the sources behind it up to EPICS."""

    log: int
    phy: int
    sources: tuple[tuple[int, int, int], ...]  # (log, phy, type word)


@dataclass(frozen=True)
class Idx:
    """What an .idx file says.

    Parameters
    ----------
    name : str
        Of the XTC file, at most 31 characters.
    events : ndarray of IDX_EVENT
        Sorted by time; offsets as in the file, unverified.
    steps : ndarray of IDX_STEP
    codes : ndarray of uint8
        Event code of bit i.
    segments : tuple of IdxSegment
    """

    name: str
    events: Array
    steps: Array
    codes: npt.NDArray[np.uint8]
    segments: tuple[IdxSegment, ...]


def read_idx(data: bytes, path: str = "<memory>") -> Idx:
    """Read an .idx file.

    Parameters
    ----------
    data : bytes
        The whole file.
    path : str
        For messages.

    Raises
    ------
    FormatError
        If it is no .idx file.
    TruncatedError
        If it ends before its header says.
    """
    word = int.from_bytes(data[:4], "little")
    layouts = {1: IDX_HEADER_V1, 2: IDX_HEADER}
    if word & 0xFFFF != 38 or word >> 16 not in layouts:
        raise FormatError(f"not an .idx file: its first word is {word:#x}", path, 0)
    reader = _Reader(data, path)
    head = reader.take(layouts[word >> 16], 1)[0]
    events = reader.take(IDX_EVENT, int(head["events"]))
    steps = reader.take(IDX_STEP, int(head["steps"]))
    codes = reader.take(np.dtype("u1"), int(head["codes"]))
    segments = tuple(reader.segment() for _ in range(int(head["segments"])))
    return Idx(bytes(head["name"]).decode("latin-1"), events, steps, codes, segments)


@dataclass
class _Reader:
    data: bytes
    path: str
    at: int = 0

    def take(self, dtype: np.dtype[Any], count: int) -> Array:
        """Return the next `count` items."""
        stop = self.at + dtype.itemsize * max(0, count)
        if stop > len(self.data):
            raise TruncatedError(f"needs {stop - len(self.data)} bytes more", self.path, self.at)
        items = np.frombuffer(self.data[self.at : stop], dtype)
        self.at = stop
        return items

    def segment(self) -> IdxSegment:
        """Return the next readout node."""
        node = self.take(SOURCE, 1)[0]
        count = int(self.take(np.dtype("u1"), 1)[0])
        sources, types = self.take(SOURCE, count), self.take(np.dtype("<u4"), count)
        rows = zip(sources["log"].tolist(), sources["phy"].tolist(), types.tolist(), strict=True)
        return IdxSegment(int(node["log"]), int(node["phy"]), tuple(rows))


def write_idx(idx: Idx) -> bytes:
    """Return the bytes of an .idx file (version 2), as the simulator writes it."""
    head = np.zeros(1, IDX_HEADER)
    head["type"], head["name"] = 38 | 2 << 16, idx.name.encode("latin-1")[:31]
    for column in ("events", "steps", "codes", "segments"):
        head[column] = len(getattr(idx, column))
    parts = [head.tobytes(), idx.events.tobytes(), idx.steps.tobytes(), idx.codes.tobytes()]
    for node in idx.segments:
        sources = np.array([source[:2] for source in node.sources], "<u4")
        types = np.array([source[2] for source in node.sources], "<u4")
        parts += [np.array([node.log, node.phy], "<u4").tobytes(), bytes([len(types)])]
        parts += [sources.tobytes(), types.tobytes()]
    return b"".join(parts)


# ---- offsets that are only said to be right -----------------------------------------------------
def headers_at(source: Source, offsets: npt.NDArray[np.int64]) -> Array:
    """Return the DGRAM headers at `offsets`; zeros where the file has no 40 bytes."""
    inside = (offsets >= 0) & (offsets + DGRAM.itemsize <= source.size())
    out = np.zeros(len(offsets) * DGRAM.itemsize, np.uint8)
    places = np.flatnonzero(inside) * DGRAM.itemsize
    sizes = np.full(len(places), DGRAM.itemsize, np.int64)
    source.read_pieces(np.ascontiguousarray(offsets[inside], np.int64), sizes, out, places.astype(np.int64))
    return out.view(DGRAM)


def verify_offsets(idx: Idx, source: Source) -> tuple[npt.NDArray[np.int64], list[Problem]]:
    """Look at the header of every entry of an index; mend those that point to another datagram.

    Parameters
    ----------
    idx : Idx
    source : Source
        The XTC file.

    Returns
    -------
    offsets : ndarray of int64
        Of each event; -1 where no header of its time and fiducial was found.
    problems : list of Problem
        One for each entry that was wrong.
    """
    offsets = idx.events["offset"].astype(np.int64)
    wrong = np.flatnonzero(~_fits(headers_at(source, offsets), idx.events))
    problems = []
    for row in wrong.tolist():
        said = int(offsets[row])
        offsets[row] = _next_fit(source, said, idx.events[row])
        found = f"the datagram is at byte {offsets[row]}" if offsets[row] >= 0 else "it is not near"
        event = int(idx.events["seconds"][row]) << 32 | int(idx.events["nanoseconds"][row])
        what = f"entry {row} of the .idx file points to another datagram: {found}"
        problems.append(Problem(source.name, said, event, what))
    return offsets, problems


def _fits(headers: Array, events: Array) -> npt.NDArray[np.bool_]:
    same = [headers[column] == events[column] for column in ("seconds", "nanoseconds")]
    fiducial = headers["fiducial"] & NO_FIDUCIAL == events["fiducial"] & NO_FIDUCIAL
    l1 = headers["ticks"] >> 24 & 15 == TransitionId.L1_ACCEPT
    fits: npt.NDArray[np.bool_] = same[0] & same[1] & fiducial & l1
    return fits


def _next_fit(source: Source, offset: int, event: Any) -> int:
    """Return the offset of the event's datagram among the next few from `offset`, or -1."""
    for _ in range(_NEAR):
        header = headers_at(source, np.array([offset]))
        if int(header["extent"][0]) < XTC.itemsize:
            return -1
        if _fits(header, event)[0]:
            return offset
        offset += 20 + int(header["extent"][0])
    return -1


# ---- small data ---------------------------------------------------------------------------------
# fmt: off
ORIGINAL = np.dtype([                 # payload of type 90: the event's datagram in the big file
    ("offset",        "<i8"),
    ("extent",        "<u4"),
])

PROXY = np.dtype([                    # payload of type 91: a container left in the big file
    ("offset",        "<i8"),         #  0; byte of its header
    ("contains",      "<u4"),         #  8; its type word
    ("extent",        "<u4"),         # 12
])
# fmt: on

ID_SMALL_DATA, ID_ORIGINAL, ID_PROXY = 89, 90, 91


def small_data_rows(leaves: Array, type_id: int) -> npt.NDArray[np.int64]:
    """Return which leaves (xtc_scan.LEAF_ROW) are ORIGINAL (90) or PROXY (91) records."""
    return np.flatnonzero(leaves["contains"] & 0xFFFF == type_id)


def read_small_data(source: Source, starts: npt.NDArray[np.int64], layout: np.dtype[Any]) -> Array:
    """Return the ORIGINAL or PROXY records whose container headers are at bytes `starts`."""
    count = len(starts)
    out = np.zeros(count * layout.itemsize, np.uint8)
    sizes = np.full(count, layout.itemsize, np.int64)
    places = np.arange(count, dtype=np.int64) * layout.itemsize
    source.read_pieces(np.ascontiguousarray(starts + XTC.itemsize, np.int64), sizes, out, places)
    return out.view(layout)


def big_file_of(path: str) -> str:
    """Return the XTC file that a small-data file belongs to: ``smalldata/x.smd.xtc`` -> ``x.xtc``."""
    folder, _, name = path.rpartition("/")
    parent = folder.removesuffix("smalldata").removesuffix("/") if folder.endswith("smalldata") else folder
    return (f"{parent}/" if parent or path.startswith("/") else "") + name.replace(".smd.xtc", ".xtc")


def idx_file_of(path: str) -> str:
    """Return where the index of an XTC file lies: ``index/x.xtc.idx`` beside it."""
    folder, slash, name = path.rpartition("/")
    return f"{folder}{slash}index/{name}.idx"

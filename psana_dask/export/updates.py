"""EPICS updates of events that an excerpt leaves out, for LCLS-1, which has them in events.

They go into the next event that is kept, so that each kept event sees the values that were in force: of
a variable the last update in each gap.  An update keeps the stamp of its IOC.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from psana_dask.model import StreamIndex
from psana_dask.payload_blocks import PayloadBlocks
from psana_dask.readers.xtc_layout import DGRAM, ID_EPICS, XTC

if TYPE_CHECKING:
    from psana_dask.run import Run

Ints = npt.NDArray[np.int64]

TYPE = 0xFFFF
"""Bits of the type word that say which type it is."""

HEAD = np.dtype([("pv_id", "<i2"), ("dbr_type", "<i2")])
"""Beginning of an EPICS record."""

FIRST_CTRL = 28
"""The dbr types from here on have names and units besides the value."""

UPDATE = np.dtype(
    [("target", "<i8"), ("event", "<i8"), ("stream", "<i8"), ("row", "<i8"), ("block", "<i8"),
     ("log", "<u4"), ("phy", "<u4"), ("pv_id", "<i2"), ("is_ctrl", "?")]
)  # fmt: skip


def carried_updates(run: Run, positions: Sequence[int]) -> dict[tuple[int, int], bytes]:
    """Return what to append to datagrams, by (stream, row): updates of the events left out before them."""
    recording = run._recording
    if recording.format != "xtc":
        return {}
    kept = np.unique(run._view.choice.numbers)
    found = np.concatenate([np.zeros(0, UPDATE), *(_updates(run, k, kept) for k in positions)])
    targets = _datagrams(recording.events.rows[list(positions)], positions, kept)
    carried: dict[tuple[int, int], bytes] = {}
    last = _last_ones(found)
    for update in last[~np.isin(last["event"], kept)]:  # a kept event has its own ones already
        stream, row = targets[int(update["target"])]
        if stream >= 0:
            leaf = _leaf(recording.streams[int(update["stream"])], int(update["row"]), int(update["block"]))
            carried[stream, row] = carried.get((stream, row), b"") + leaf
    return carried


def _updates(run: Run, position: int, kept: Ints) -> npt.NDArray[np.void]:
    """Return the EPICS blocks of a stream, and in or before which kept event each is."""
    recording = run._recording
    index, table = recording.streams[position], recording.events.rows[position]
    kinds = np.flatnonzero((index["kind_contains"] & TYPE) == ID_EPICS)
    blocks = np.flatnonzero(np.isin(index["key"], kinds) & (index["payload"] > 0))
    rows = np.searchsorted(index["first_block"], blocks, side="right") - 1
    event_of = np.full(len(index), -1, np.int64)
    there = np.flatnonzero(table >= 0)
    event_of[table[there]] = there
    event = event_of[rows]
    target = np.searchsorted(kept, event)
    wanted = (event >= 0) & (target < len(kept))
    rows, blocks = rows[wanted], blocks[wanted]
    out = np.zeros(len(rows), UPDATE)
    out["target"], out["event"], out["stream"] = target[wanted], event[wanted], position
    out["row"], out["block"] = rows, blocks
    keys = index["key"][blocks]
    out["log"], out["phy"] = index["kind_log"][keys], index["kind_phy"][keys]
    if len(rows):
        heads = PayloadBlocks(index).payloads(rows, blocks, 0, HEAD.itemsize).data.view(HEAD)
        out["pv_id"], out["is_ctrl"] = heads["pv_id"], heads["dbr_type"] >= FIRST_CTRL
    return out


def _last_ones(found: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
    """Return of each variable the last update of each gap, names first."""
    if not len(found):
        return found
    ordered = found[np.lexsort((found["block"], found["event"]))][::-1]
    same = ordered[["target", "log", "phy", "pv_id", "is_ctrl"]]
    _, first = np.unique(same, return_index=True)
    last = ordered[np.sort(first)][::-1]
    return last[np.argsort(~last["is_ctrl"], kind="stable")]


def _datagrams(
    table: npt.NDArray[np.int32], positions: Sequence[int], kept: Ints
) -> list[tuple[int, int]]:
    """Return for each kept event the stream and row of a datagram of it; -1 where it has none here."""
    rows = table[:, kept]
    first = np.argmax(rows >= 0, axis=0)
    chosen = rows[first, np.arange(len(kept))]
    streams = np.where(chosen >= 0, np.asarray(positions)[first], -1)
    return list(zip(streams.tolist(), chosen.tolist(), strict=True))


def _leaf(index: StreamIndex, row: int, block: int) -> bytes:
    """Return one block with its header."""
    start = int(index["data"][block]) - XTC.itemsize
    size = int(index["payload"][block]) + XTC.itemsize
    dgram = PayloadBlocks(index).dgram(row)
    return dgram[start : start + size].tobytes()


def with_updates(index: StreamIndex, row: int, leaves: bytes) -> bytes:
    """Return a datagram with blocks appended to its outermost container."""
    dgram = PayloadBlocks(index).dgram(row)
    head = dgram[: DGRAM.itemsize].view(DGRAM)
    head["extent"] += np.uint32(len(leaves))
    return dgram.tobytes() + leaves

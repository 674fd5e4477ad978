"""The order in which datagrams of several LCLS-1 streams make events: psana's rules, as one pure function.

DAQ streams (below 80) hold different events; recorder streams (80 and above) run on another
clock and are matched by fiducial.  `sort_stream` puts the events of one stream into the order of
their clocks, within the reader's look-ahead; `merge_order` merges the streams and groups what
belongs together.  Checked against psana's own merger in ``tests/conformance/test_xtc1_merge.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from psana_dask.jit import array, int64, njit
from psana_dask.readers.xtc_layout import FIDUCIALS, NO_FIDUCIAL, TransitionId

Ints = npt.NDArray[np.int64]

FIRST_RECORDER = 80
"""Streams from this number on are recorders (IOC cameras), not DAQ streams."""

MAX_CLOCK_DIFFERENCE = 85
"""Seconds that a recorder's clock may be off; equal fiducials further apart are different events."""

LOOK_AHEAD, RECORDER_LOOK_AHEAD = 20, 40
"""Datagrams that psana reads ahead in a stream: how far out of order they may be."""

_L1 = int(TransitionId.L1_ACCEPT)
_END_STEP = int(TransitionId.END_CALIB_CYCLE)
_IN, _OUT = array("i8"), array("i8", writable=True)


@dataclass(frozen=True)
class Stream:
    """The datagrams of one stream, all its parts one after the other.

    Parameters
    ----------
    number : int
    service : ndarray of int
        TransitionId of each.
    timestamp : ndarray of uint64
        seconds << 32 | nanoseconds.
    fiducial : ndarray of int
        The header's word; its low 17 bits count.
    """

    number: int
    service: npt.NDArray[Any]
    timestamp: npt.NDArray[Any]
    fiducial: npt.NDArray[Any]

    @property
    def is_recorder(self) -> bool:
        """Whether it is matched by fiducial."""
        return self.number >= FIRST_RECORDER


@dataclass(frozen=True)
class MergeOrder:
    """Groups of datagrams in order: an event or a transition each.

    The datagrams of group g are ``stream[first[g]:first[g + 1]]`` (places in the list of streams) and
    ``row[...]`` (their rows there), DAQ streams first.
    """

    first: Ints
    stream: Ints
    row: Ints

    def __len__(self) -> int:
        return len(self.first) - 1


def sort_stream(stream: Stream) -> Ints:
    """Return the rows of a stream in the order in which psana delivers them.

    L1Accepts move before later ones as far as the look-ahead reaches, never across another
    transition.  Two L1Accepts of a recorder with the same clock are both dropped.
    """
    order = np.empty(len(stream.service), np.int64)
    ahead = RECORDER_LOOK_AHEAD if stream.is_recorder else LOOK_AHEAD
    service, clock = stream.service.astype(np.int64), stream.timestamp.astype(np.int64)
    return order[: _sort(service, clock, ahead, int(stream.is_recorder), order)]


@njit(int64(_IN, _IN, int64, int64, _OUT))
def _sort(service: Ints, clock: Ints, ahead: int, recorder: int, order: Ints) -> int:
    """Write the order; ``order[:taken]`` has left the look-ahead and stays."""
    count, taken = 0, 0
    for row in range(service.size):
        if count - taken >= ahead:
            taken += 1
        place = count
        if service[row] == _L1:
            while place > taken and service[order[place - 1]] == _L1 and clock[order[place - 1]] > clock[row]:
                place -= 1
        twin = place - 1
        if (
            recorder
            and service[row] == _L1
            and twin >= taken
            and service[order[twin]] == _L1
            and clock[order[twin]] == clock[row]
        ):
            for i in range(twin, count - 1):
                order[i] = order[i + 1]
            count -= 1
            continue
        for i in range(count, place, -1):
            order[i] = order[i - 1]
        order[place] = row
        count += 1
    return count


def merge_order(streams: Sequence[Stream]) -> MergeOrder:
    """Merge the streams of a run into events and transitions.

    Enable and Disable are left out, and L1Accepts without a valid fiducial.  L1Accepts of a recorder join the
    DAQ event of the same fiducial; two DAQ events never join, even with equal times.  Transitions join
    when kind and clock are equal.  Events without a DAQ datagram stand for themselves.

    Parameters
    ----------
    streams : sequence of Stream
        In the order of their numbers.
    """
    rows = [_mergeable(stream, sort_stream(stream)) for stream in streams]
    bounds = np.cumsum([0, *(len(r) for r in rows)])
    service, clock, fiducial = (_joined(streams, rows, n) for n in ("service", "timestamp", "fiducial"))
    blocks = np.concatenate([_blocks(s.service[r]) for s, r in zip(streams, rows, strict=True)] or [_NONE])
    recorder = np.array([s.is_recorder for s in streams], np.int64)
    total = int(bounds[-1])
    first, stream, place = (np.empty(n, np.int64) for n in (total + 1, total, total))
    groups = _merge(service, clock, fiducial, blocks, bounds, recorder, first, stream, place)
    source = np.concatenate([*rows, _NONE])
    return _in_stream_order(MergeOrder(first[: groups + 1], stream, source[place] if total else _NONE))


_NONE = np.empty(0, np.int64)


def _mergeable(stream: Stream, rows: Ints) -> Ints:
    service = stream.service[rows]
    l1 = service == _L1
    valid = (stream.fiducial[rows].astype(np.int64) & NO_FIDUCIAL) < FIDUCIALS
    kept = (l1 & valid) | ~(l1 | np.isin(service, (TransitionId.ENABLE, TransitionId.DISABLE)))
    return rows[kept]


def _joined(streams: Sequence[Stream], rows: Sequence[Ints], name: str) -> Ints:
    columns = [getattr(s, name)[r].astype(np.int64) for s, r in zip(streams, rows, strict=True)]
    return np.concatenate([*columns, _NONE])


def _blocks(service: npt.NDArray[Any]) -> Ints:
    """Return how many steps have ended at each datagram, its own end counted."""
    return np.cumsum(service == _END_STEP).astype(np.int64)


def _in_stream_order(order: MergeOrder) -> MergeOrder:
    """Sort the datagrams of each group by stream."""
    group = np.repeat(np.arange(len(order)), np.diff(order.first))
    by_stream = np.lexsort((order.stream, group))
    return MergeOrder(order.first, order.stream[by_stream], order.row[by_stream])


@njit(int64(_IN, _IN, _IN, _IN, int64, int64))
def _comes_before(
    service: Ints, clock: Ints, fiducial: Ints, block: Ints, a: int, b: int
) -> int:
    """Tell whether datagram a is merged before b; equal ones are not."""
    a_l1, b_l1 = service[a] == _L1, service[b] == _L1
    if block[a] != block[b]:
        return int(block[a] < block[b])
    if a_l1 != b_l1:
        return int(b_l1)
    if not a_l1:
        return int(clock[a] < clock[b])
    seconds = (clock[b] >> 32) - (clock[a] >> 32)
    if abs(seconds) >= MAX_CLOCK_DIFFERENCE:
        return int(seconds > 0)
    ahead = ((fiducial[b] & NO_FIDUCIAL) - (fiducial[a] & NO_FIDUCIAL)) % FIDUCIALS
    return int(0 < ahead < FIDUCIALS // 2)


@njit(int64(_IN, _IN, _IN, int64, int64, int64))
def _belongs(
    service: Ints, clock: Ints, fiducial: Ints, a: int, b: int, recorders: int
) -> int:
    """Tell whether datagram b joins the group that a began; `recorders`: one of the two is a recorder's."""
    if service[a] != _L1 or service[b] != _L1:
        return int(service[a] == service[b] and clock[a] == clock[b])
    near = abs((clock[b] >> 32) - (clock[a] >> 32)) < MAX_CLOCK_DIFFERENCE
    return int(recorders and near and (fiducial[a] ^ fiducial[b]) & NO_FIDUCIAL == 0)


@njit(int64(_IN, _IN, _IN, _IN, _IN, _IN, _OUT, _OUT, _OUT))
def _merge(
    service: Ints, clock: Ints, fiducial: Ints, block: Ints, bounds: Ints, recorder: Ints,
    first: Ints, stream: Ints, place: Ints,
) -> int:  # fmt: skip
    """Write the groups; return how many there are."""
    heads = bounds[:-1].copy()
    groups, written, leader, has_daq = 0, 0, -1, 0
    first[0] = 0
    while True:
        best = -1
        for s in range(recorder.size):
            if heads[s] >= bounds[s + 1]:
                continue
            if best < 0 or _comes_before(service, clock, fiducial, block, heads[s], heads[best]):
                best = s
        if best < 0:
            break
        row = heads[best]
        heads[best] += 1
        joins = leader >= 0 and _belongs(
            service, clock, fiducial, leader, row, int(recorder[best] or not has_daq)
        )  # fmt: skip
        if leader >= 0 and not joins:
            groups += 1
            first[groups] = written
        if not joins:
            leader, has_daq = row, 0
        has_daq = int(has_daq or not recorder[best])
        stream[written], place[written] = best, row
        written += 1
    if leader >= 0:
        groups += 1
        first[groups] = written
    return groups

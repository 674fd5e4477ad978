"""Event building: the streams of a run joined into one table of events.

Datagrams with equal time stamps in different streams are one event.  A time stamp that
occurs k times in one stream gives k events; the later ones are moved on by 1, 2, ... ns
so that `time` is unique, and each move is a problem of the run.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from psana_dask.model import Array, EventTable, Problem, Service, StreamIndex

MOST_PROBLEMS = 1000


def event_rows(index: StreamIndex, runs: Sequence[int] | None) -> npt.NDArray[np.int64]:
    """Return the rows of a stream's L1Accepts in time order.

    Parameters
    ----------
    index : StreamIndex
    runs : sequence of int, optional
        Which of the stream's runs; all by default.
    """
    mine = index["service"] == Service.L1_ACCEPT
    if runs is not None:
        mine &= np.isin(index["run"], runs)
    rows = np.flatnonzero(mine)
    time = index["time"][rows]
    if np.all(time[1:] >= time[:-1]):
        return rows
    return rows[np.argsort(time, kind="stable")]


def build_run(
    streams: Sequence[StreamIndex], runs: Sequence[tuple[int, ...] | None], files: Sequence[str]
) -> EventTable:
    """Join the streams of an XTC2 run; `runs` says for each stream which of its runs, None for all."""
    rows = [event_rows(stream, which) for stream, which in zip(streams, runs, strict=True)]
    return build_events(streams, rows, files)


def build_events(
    streams: Sequence[StreamIndex], rows: Sequence[npt.NDArray[np.int64]], files: Sequence[str]
) -> EventTable:
    """Join the streams on their time stamps.

    Parameters
    ----------
    streams : sequence of StreamIndex
    rows : sequence of (n,) int64
        For each stream its rows in time order (`event_rows`).
    files : sequence of str
        What problems call each stream.

    Returns
    -------
    EventTable
        Every event of every stream, in time order.
    """
    from psana_dask.merge import count_equal, merge_times

    times = [np.ascontiguousarray(s["time"][r]) for s, r in zip(streams, rows, strict=True)]
    total = sum(map(len, times))
    starts = np.cumsum([0, *map(len, times)]).astype(np.int64)
    flat = np.concatenate([*times, np.zeros(0, np.int64)])
    turn = np.zeros(total, np.int64)
    for first, last in itertools.pairwise(starts):
        count_equal(flat[first:last], turn[first:last])
    member = np.full((len(streams), total), -1, np.int32)
    merged = np.empty(total, np.int64)
    count = merge_times(flat, turn, starts, member, merged)
    table = np.full((len(streams), count), -1, np.int32)
    for k, own in enumerate(rows):
        has = member[k, :count] >= 0
        table[k, has] = own[member[k, :count][has]]
    return _finished(streams, table, merged[:count], unordered(streams, rows, files))


def _finished(
    streams: Sequence[StreamIndex], table: npt.NDArray[np.int32], clock: Array, problems: list[Problem]
) -> EventTable:
    time = make_unique(clock)
    timestamp = np.zeros(len(time), np.uint64)
    step = np.full(len(time), -1, np.int32)
    for stream, own in zip(streams, table, strict=True):
        has = own >= 0
        timestamp[has] = stream["timestamp"][own[has]]
        step[has] = np.maximum(step[has], stream["step"][own[has]])
    problems += moved(time, clock, timestamp)
    return EventTable(time, timestamp, step, table, tuple(problems))


def moved(time: Array, clock: Array, timestamp: Array) -> list[Problem]:
    """Note the events whose time is not that of their clock."""
    problems = []
    for k in np.flatnonzero(time != clock)[:MOST_PROBLEMS]:
        what = f"an event with the time of another one is moved by {time[k] - clock[k]} ns"
        problems.append(Problem("", -1, int(timestamp[k]), what))
    return problems


def make_unique(clock: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return sorted times with equal ones moved on by 1, 2, ... ns, cascading."""
    steps = np.arange(len(clock), dtype=np.int64)
    return np.maximum.accumulate(clock - steps) + steps if len(clock) else clock.copy()


def unordered(
    streams: Sequence[StreamIndex], rows: Sequence[npt.NDArray[Any]], files: Sequence[str]
) -> list[Problem]:
    """Note the streams whose datagrams were not in time order."""
    problems = []
    for stream, own, file in zip(streams, rows, files, strict=True):
        back = int(np.count_nonzero(np.diff(own) < 0))
        if back:
            first = int(own[np.flatnonzero(np.diff(own) < 0)[0] + 1])
            offset, event = int(stream["offset"][first]), int(stream["timestamp"][first])
            problems.append(Problem(file, offset, event, f"{back} datagrams out of time order: sorted"))
    return problems


def select_events(table: EventTable, keep: npt.NDArray[np.bool_]) -> EventTable:
    """Return the events where `keep` is true."""
    if keep.all():
        return table
    return EventTable(
        table.time[keep], table.timestamp[keep], table.step[keep], table.rows[:, keep], table.problems
    )

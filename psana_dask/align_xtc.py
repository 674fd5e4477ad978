"""Event building of LCLS-1: datagrams of DAQ streams and recorders joined as psana's merger joins them.

Every L1Accept that the merger emits is an event, with the clock of its DAQ datagram; distinct events of
equal clocks are ordered by fiducial, stream and offset, and moved on by 1, 2, ... ns.  What
the merger drops is a problem of the run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from psana_dask.align import MOST_PROBLEMS, make_unique, moved, unordered
from psana_dask.model import Array, EventTable, Problem, Service, StreamIndex
from psana_dask.readers.xtc_layout import FIDUCIALS, NO_FIDUCIAL, L1Env
from psana_dask.readers.xtc_merge import FIRST_RECORDER, MergeOrder, Stream, merge_order
from psana_dask.readers.xtc_rows import transition_ids

Ints = npt.NDArray[np.int64]


def build_events(
    streams: Sequence[StreamIndex],
    runs: Sequence[tuple[int, ...] | None],
    files: Sequence[str],
    first: Sequence[int] | None = None,
) -> EventTable:
    """Join the streams of a run.

    Parameters
    ----------
    streams : sequence of StreamIndex
        In the order of their numbers.
    runs : sequence of (tuple of int or None)
        For each stream, which of the runs in it; None for all.
    files : sequence of str
        What problems call each stream.
    first : sequence of int, optional
        Rows of each stream from which on datagrams are joined; all by default.

    Returns
    -------
    EventTable
        Every event, in time order.
    """
    begin = [0] * len(streams) if first is None else first
    own = [_rows_of(stream, which) for stream, which in zip(streams, runs, strict=True)]
    own = [rows[np.searchsorted(rows, row) :] for rows, row in zip(own, begin, strict=True)]
    order = merge_order([_mergeable(stream, rows) for stream, rows in zip(streams, own, strict=True)])
    table, problems = _event_rows(streams, own, order, files)
    leading = _leading(streams, table)
    clock, fiducial = (_gathered(streams, table, leading, name) for name in ("time", "fiducial"))
    sequence = _in_time_order(clock.astype(np.int64), fiducial & NO_FIDUCIAL, leading, table)
    table, leading, clock = table[:, sequence], leading[sequence], clock[sequence].astype(np.int64)
    time = make_unique(clock)
    timestamp = _gathered(streams, table, leading, "timestamp").astype(np.uint64)
    step = _gathered(streams, table, leading, "step").astype(np.int32)
    problems += unordered(streams, [rows[rows >= 0] for rows in table], files)
    problems += moved(time, clock, timestamp)
    return EventTable(time, timestamp, step, table, tuple(problems))


def _rows_of(stream: StreamIndex, which: tuple[int, ...] | None) -> Ints:
    """Return the rows of a stream that belong to the run."""
    if which is None:
        return np.arange(len(stream))
    return np.flatnonzero(np.isin(stream["run"], which))


def _mergeable(stream: StreamIndex, rows: Ints) -> Stream:
    service = transition_ids(stream["service"][rows])
    return Stream(stream.stream, service, stream["timestamp"][rows], stream["fiducial"][rows])


def _event_rows(
    streams: Sequence[StreamIndex], own: Sequence[Ints], order: MergeOrder, files: Sequence[str]
) -> tuple[npt.NDArray[np.int32], list[Problem]]:
    """Return the rows of each stream for each event, (stream, event), and what is in none."""
    place, group = order.stream, np.repeat(np.arange(len(order)), np.diff(order.first))
    row = np.empty(len(order.row), np.int64)
    is_l1 = np.zeros(len(order.row), bool)
    for k, (stream, rows) in enumerate(zip(streams, own, strict=True)):
        mine = place == k
        row[mine] = rows[order.row[mine]]
        is_l1[mine] = stream["service"][row[mine]] == Service.L1_ACCEPT
    event = np.cumsum(is_l1[order.first[:-1]]) - 1 if len(order) else np.zeros(0, np.int64)
    table = np.full((len(streams), int(event[-1]) + 1 if len(event) else 0), -1, np.int32)
    back = np.flatnonzero(is_l1)[::-1]  # of two datagrams of one stream in one event the first stays
    table[place[back], event[group[back]]] = row[back]
    problems: list[Problem] = []
    for stream, rows, taken, file in zip(streams, own, table, files, strict=True):
        problems += _left_out(stream, rows, taken, file)
    return table, problems


def _left_out(stream: StreamIndex, rows: Ints, taken: Array, file: str) -> list[Problem]:
    """Return a problem for each L1Accept that is in no event."""
    used = np.zeros(len(stream), bool)
    used[taken[taken >= 0]] = True
    lost = rows[(stream["service"][rows] == Service.L1_ACCEPT) & ~used[rows]]
    problems = []
    for row in lost[:MOST_PROBLEMS].tolist():
        fiducial = int(stream["fiducial"][row]) & NO_FIDUCIAL
        what = "an event without a valid fiducial" if fiducial >= FIDUCIALS else _TWIN
        path = stream.parts[stream["part"][row]]
        event, offset = int(stream["timestamp"][row]), int(stream["offset"][row])
        problems.append(Problem(path or file, offset, event, f"{what}: left out, as psana does"))
    return problems


_TWIN = "a recorder's datagram with the clock or the fiducial of another one"


def _leading(streams: Sequence[StreamIndex], table: Array) -> Ints:
    """Return for each event the place of the stream whose datagram names it: DAQ streams come first."""
    out = np.zeros(table.shape[1], np.int64)
    numbers = np.array([s.stream for s in streams])
    for k in np.argsort(numbers, kind="stable")[::-1]:
        out[table[k] >= 0] = k
    return out


def _gathered(streams: Sequence[StreamIndex], table: Array, leading: Ints, column: str) -> Array:
    """Return a column of the leading datagram of each event."""
    out = np.zeros(len(leading), streams[0][column].dtype)
    for k, stream in enumerate(streams):
        mine = leading == k
        out[mine] = stream[column][table[k, mine]]
    return out


def _in_time_order(clock: Ints, fiducial: Array, leading: Ints, table: Array) -> Ints:
    """Return the order of events by time; of equal times by fiducial (which wraps), stream, row."""
    order = np.argsort(clock, kind="stable")
    equal = clock[order][1:] == clock[order][:-1]
    if not equal.any():
        return order
    group = np.cumsum(np.concatenate([[True], ~equal])) - 1
    sorted_fiducial = fiducial[order].astype(np.int64)
    lowest = np.full(int(group[-1]) + 1, FIDUCIALS, np.int64)
    np.minimum.at(lowest, group, sorted_fiducial)
    later = (sorted_fiducial - lowest[group] + FIDUCIALS // 2) % FIDUCIALS
    row = table[leading[order], order]
    return order[np.lexsort((row, leading[order], later, group))]


def begin_runs(index: StreamIndex) -> dict[int, tuple[str, int]]:
    """Return ("", run number) of each run of a stream whose BeginRun says its number."""
    rows = np.flatnonzero((index["service"] == Service.BEGIN_RUN) & (index["env"] != 0))
    return {int(index["run"][row]): ("", int(index["env"][row])) for row in rows.tolist()}


def event_facts(streams: Sequence[StreamIndex], events: EventTable) -> Mapping[str, Array]:
    """Return what the datagrams say of each event, (event,) arrays.

    ``fiducial``; ``vector`` (event count since Configure) and ``ticks`` (119 MHz, within the fiducial);
    ``l3`` (0 none, 1 pass, 2 fail), ``trimmed`` (the payload was thrown away), ``recorder_only`` (no DAQ
    stream has it), ``dgram_damage``.
    """
    leading = _leading(streams, events.rows)
    word, ticks, env, damage = (
        _gathered(streams, events.rows, leading, name) for name in ("fiducial", "ticks", "env", "damage")
    )
    is_recorder = np.array([s.stream >= FIRST_RECORDER for s in streams])
    return {
        "fiducial": (word & NO_FIDUCIAL).astype(np.int32),
        "vector": (word >> 17).astype(np.int16),
        "ticks": (ticks & 0xFFFFFF).astype(np.int32),
        "l3": (env >> 8 & 3).astype(np.int8),
        "trimmed": env & L1Env.TRIMMED != 0,
        "recorder_only": is_recorder[leading],
        "dgram_damage": damage,
    }

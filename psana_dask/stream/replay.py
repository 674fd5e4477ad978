"""A recorded run as a DAQ would deliver it: transitions and events, one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from psana_dask.model import Service
from psana_dask.recording import Recording
from psana_dask.sources import FileSource, read_bytes
from psana_dask.stream.datagrams import Data, Dgram
from psana_dask.stream.memory import SMALL, Landing


class Moment(NamedTuple):
    """What happens at one time: a transition or an event, with the datagram of each stream that has it."""

    service: Service
    dgrams: list[Dgram]


def moments(recording: Recording) -> Iterator[Moment]:
    """Yield the transitions and events of a run in the order of time, each with its bytes.

    A transition comes before the events with its time; the same one of several streams is one.
    Memory of datagrams that nobody holds any more is used again.
    """
    landing = Landing()
    for service, rows in _order(recording):
        dgrams = [Dgram(_number(recording, k), _read(recording, k, row, landing)) for k, row in rows]
        yield Moment(service, dgrams)
        del dgrams


def part_of(recording: Recording, numbers: Iterable[int]) -> tuple[list[list[Dgram]], list[list[Dgram]]]:
    """Return all transitions of a recording, and some of its events, as datagrams."""
    changes, at, transitions = sorted(_transitions(recording)), 0, []
    while at < len(changes):
        at, (_, rows) = _together(changes, at)
        transitions.append([Dgram(_number(recording, k), _read(recording, k, row)) for k, row in rows])
    events = []
    for number in numbers:
        rows_of = recording.events.rows[:, number]
        there = np.flatnonzero(rows_of >= 0).tolist()
        events.append([Dgram(_number(recording, k), _read(recording, k, int(rows_of[k]))) for k in there])
    return transitions, events


def _order(recording: Recording) -> Iterator[tuple[Service, list[tuple[int, int]]]]:
    """Yield the service, and (stream position, row) of each datagram, of what happens."""
    changes = sorted(_transitions(recording))
    events = recording.events
    at = 0
    for number, clock in enumerate(events.time.tolist()):
        while at < len(changes) and changes[at][0] <= clock:
            at, change = _together(changes, at)
            yield change
        rows = events.rows[:, number]
        yield Service.L1_ACCEPT, [(k, int(rows[k])) for k in np.flatnonzero(rows >= 0).tolist()]
    while at < len(changes):
        at, change = _together(changes, at)
        yield change


def _transitions(recording: Recording) -> Iterator[tuple[int, int, int, int]]:
    """Yield (time, row, stream position, service) of the transitions of a run."""
    for k, (index, runs) in enumerate(zip(recording.streams, recording.runs, strict=True)):
        mine = index["service"] != Service.L1_ACCEPT
        if runs is not None:
            mine &= np.isin(index["run"], runs) | (index["service"] == Service.CONFIGURE)
        latest = np.iinfo(np.int64).min
        for row in np.flatnonzero(mine).tolist():
            latest = max(latest, int(index["time"][row]))  # never before the one that came first
            yield latest, row, k, int(index["service"][row])


def _together(
    changes: list[tuple[int, int, int, int]], at: int
) -> tuple[int, tuple[Service, list[tuple[int, int]]]]:
    """Return the position behind the transitions that are one with that at `at`, and them."""
    time, _, _, service = changes[at]
    rows: dict[int, int] = {}
    while at < len(changes) and changes[at][0] == time and changes[at][3] == service:
        _, row, k, _ = changes[at]
        if k in rows:
            break
        rows[k] = row
        at += 1
    return at, (Service(service), sorted(rows.items()))


def _number(recording: Recording, position: int) -> int:
    return recording.streams[position].stream


def _read(recording: Recording, position: int, row: int, landing: Landing | None = None) -> Data:
    index = recording.streams[position]
    source = FileSource(index.parts[int(index["part"][row])])
    size = int(index["size"][row])
    if landing is None or size < SMALL:
        return read_bytes(source, int(index["offset"][row]), size)
    out = landing.array(size)
    source.read_into(int(index["offset"][row]), out)
    return memoryview(out.data)

"""The order of a run: which transitions and events follow each other, and when.

All streams see the same transitions with the same time stamps; what a stream leaves out of
it is the writer's matter.  Transitions are named as LCLS-II names them; LCLS-1 has no SlowUpdates, its
EPICS updates are part of the event, and its parts end without a transition.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from psana_dask.readers.xtc2_layout import TransitionId
from psana_dask.simulate.describe import RunSpec, packed, unpacked

Times = npt.NDArray[np.int64]

DATAGRAMS = np.dtype(
    [
        ("timestamp", "<u8"),
        ("service", "u1"),
        ("event", "<i8"),  # -1 in transitions
        ("step", "<i8"),
        ("part", "<i4"),
        ("offset", "<i8"),
        ("size", "<i8"),
    ]
)
"""What was written where, one row for each datagram of a stream."""

Rows = np.ndarray[tuple[int, ...], np.dtype[np.void]]


@dataclass(frozen=True)
class Entry:
    """One transition or event of the run."""

    service: TransitionId
    event: int = -1
    step: int = -1
    update: int = -1  # of a SlowUpdate, or of an LCLS-1 event with EPICS: its number
    next_event: int = -1  # of an Enable: the event that follows, where a part may start
    timestamp: int = 0


def schedule(spec: RunSpec) -> tuple[Entry, ...]:
    """Return everything that happens in the run, in the order of writing."""
    entries = list(_entries(spec))
    stamps = _timestamps(spec, entries)
    return tuple(replace(entry, timestamp=stamp) for entry, stamp in zip(entries, stamps, strict=True))


def _entries(spec: RunSpec) -> Iterator[Entry]:
    if spec.configure:
        yield Entry(TransitionId.CONFIGURE)
    if spec.begin_run:
        yield Entry(TransitionId.BEGIN_RUN)
    first = 0
    for step, size in enumerate(spec.step_sizes):
        last_step = step == len(spec.step_sizes) - 1
        yield from _step(spec, step, range(first, first + size), spec.finished or not last_step)
        first += size
    if spec.end_run and spec.finished:
        yield Entry(TransitionId.END_RUN)
        if spec.format == "xtc":
            yield Entry(TransitionId.UNCONFIGURE)


def _step(spec: RunSpec, step: int, events: range, closed: bool) -> Iterator[Entry]:
    later = spec.format == "xtc2"
    cuts = {event for events in spec.cuts.values() for event in events} if later else set()
    yield Entry(TransitionId.BEGIN_STEP, step=step)
    yield Entry(TransitionId.ENABLE, step=step, next_event=events.start)
    for event in events:
        if event in cuts and event != events.start:
            yield Entry(TransitionId.DISABLE, step=step)
            yield Entry(TransitionId.ENABLE, step=step, next_event=event)
        number, rest = divmod(event - spec.slow_offset, spec.slow_every)
        update = number if rest == 0 else -1
        if update >= 0 and later:
            yield Entry(TransitionId.SLOW_UPDATE, step=step, update=update)
        yield Entry(TransitionId.L1_ACCEPT, event=event, step=step, update=-1 if later else max(update, -1))
    if closed:
        yield Entry(TransitionId.DISABLE, step=step)
        yield Entry(TransitionId.END_STEP, step=step)


def _timestamps(spec: RunSpec, entries: list[Entry]) -> list[int]:
    """Give the events their own stamps, and spread the transitions over the time between."""
    times = unpacked(spec.stamps())
    stamps = np.empty(len(entries), np.int64)
    events = np.array([entry.event for entry in entries])
    written = np.flatnonzero(events >= 0)
    stamps[written] = times[events[written]]
    unit = 1 if spec.timestamps is not None else max(1, round(1e9 / spec.rate))
    for start, stop in _gaps(written, len(entries)):
        before = times[: events[start - 1] + 1] if start else times[:0]
        after = times[events[stop] :] if stop < len(entries) else times[:0]
        stamps[start:stop] = _between(before, after, stop - start, unit)
    return [int(word) for word in packed(stamps)]


def _gaps(written: Times, count: int) -> Iterator[tuple[int, int]]:
    edges = [-1, *written.tolist(), count]
    for left, right in pairwise(edges):
        if right - left > 1:
            yield left + 1, right


def _between(before: Times, after: Times, count: int, unit: int) -> Times:
    """Return `count` times after all of `before` and before all of `after`, where that is possible."""
    order = np.arange(1, count + 1)
    if not len(before):
        first = int(after.min()) if len(after) else 0
        return np.maximum(first - order[::-1] * unit, 0)
    if not len(after):
        return int(before.max()) + order * unit
    low, high = int(before.max()), int(after.min())
    if high <= low:
        return int(before[-1]) + order
    gap = high - low
    return low + (gap * order // (count + 1) if gap > count else np.minimum(order, gap))

"""Following a run while it is written: micro-batches of its events, in order, as views.

Contract: tests/test_follow.py.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np

from psana_dask.choice import Choice
from psana_dask.dataset import View
from psana_dask.errors import StreamWarning
from psana_dask.files import has_all_streams, refreshed
from psana_dask.growing import GrowingRun

BATCH, TIMEOUT, POLL = 64, 120.0, 0.1


def follow(
    view: View,
    batch: int = BATCH,
    timeout: float | None = TIMEOUT,
    poll: float = POLL,
    patience: float | None = None,
    until: Callable[[], bool] | None = None,
) -> Iterator[View]:
    """Yield the events of a run that is being written, from its first one on; see `Run.follow`.

    `until` is asked at every poll: following ends when it says True.
    """
    if batch < 1:
        raise ValueError(f"batch={batch}: use 1 or more")
    if not view.choice.is_everything:
        raise ValueError("follow() gives out all events: select in each batch instead")
    files = view.recording.files
    find = partial(refreshed, files, new_streams=has_all_streams(files))
    growing = GrowingRun(find, patience=patience)
    done = 0
    for _ in _polls(growing, timeout, poll, until or (lambda: False)):
        recording = growing.recording() if growing.counts.events > done else None
        if recording is None:
            continue
        total = len(recording.events)
        for first in range(done, total, batch):
            numbers = np.arange(first, min(first + batch, total))
            yield replace(view, recording=recording, choice=Choice(numbers, total))
        done = total


def _polls(
    growing: GrowingRun, timeout: float | None, poll: float, until: Callable[[], bool]
) -> Iterator[None]:
    """Poll until the run has ended, or nothing came for `timeout` seconds."""
    while not until():
        new = growing.poll()
        yield
        if new:
            continue
        if growing.ended:
            growing.finish()
            yield
            return
        idle = time.monotonic() - max(s.moved for s in growing.streams)
        if timeout is not None and idle > timeout:
            growing.finish()
            yield
            where = ", ".join(growing.waiting_for())
            what = f"nothing new for {timeout:g} s, and no end of the run in {where}: no longer followed"
            warnings.warn(what, StreamWarning, stacklevel=4)
            return
        time.sleep(poll)

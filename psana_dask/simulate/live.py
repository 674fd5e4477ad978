"""Writing a run as if it were taken now: files that grow at the rate of events, renamed at the end."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from psana_dask.readers.xtc2_layout import TransitionId
from psana_dask.simulate.describe import RunSpec
from psana_dask.simulate.runs import Folder, grow
from psana_dask.simulate.truth import Truth


def write_live(spec: RunSpec, folder: Folder, rate: float | None = None) -> Truth:
    """Write a run as the DAQ does: its events have the times of now, its files end with ``.inprogress``.

    Parameters
    ----------
    spec : RunSpec
    folder : path
    rate : float, optional
        Events a second; that of the description by default.

    Returns
    -------
    Truth
        When the run has ended.

    Examples
    --------
    >>> write_live(demo_spec(1200), "running", rate=120)     # and meanwhile: psana_dask.open("live:running")
    """
    pace = spec.rate if rate is None else rate
    now = str(np.datetime64(time.time_ns(), "ns"))
    entries = grow(
        replace(spec, start=now, rate=min(pace, spec.rate), renames=True, in_progress=False), folder
    )
    begin, events = time.monotonic(), 0
    while True:
        try:
            entry = next(entries)
        except StopIteration as end:
            truth: Truth = end.value
            return truth
        if entry.service == TransitionId.L1_ACCEPT:
            events += 1
            time.sleep(max(0.0, begin + events / pace - time.monotonic()))

"""What a script asked a data source for: strings of both generations, and psana2's keywords."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from psana_dask.errors import AmbiguousRun, PsanaWarning, RunNotFound, suggestion
from psana_dask.files import is_data_set, parse_data_set
from psana_dask.opening import open_run, open_runs
from psana_dask.run import Run as NativeRun

POLITE = (
    "auto_tune", "batch_size", "cached_detectors", "dbsuffix", "drp", "fetch_calib_cache_max_retries",
    "intg_delta_t", "log_file", "log_level", "module", "monitor", "mpi_ts", "prom_jobid", "psmon_publish",
    "skip_calib_load", "small_xtc", "smalldata_kwargs", "use_calib_cache",
)  # fmt: skip
"""Keywords of psana2 that have nothing to decide here."""

MEANT = (
    "calib", "detectors", "detnames", "dir", "exp", "files", "intg_det", "live", "max_events", "run", "shmem",
    "smd_callback", "timestamps", "xdetectors",
)  # fmt: skip
"""Keywords that decide something."""


@dataclass(frozen=True)
class Asked:
    """What a data source was asked for.

    Parameters
    ----------
    source : str or list of str
    numbers : tuple of int
        Run numbers; empty: all.
    ranged : bool
        The numbers are a range: what is not there is left out.
    folder : str, optional
    streams : tuple of int, optional
    live : bool
    shmem : str
        Tag of the shared memory.
    calib : optional
    """

    source: Any
    numbers: tuple[int, ...] = ()
    ranged: bool = False
    folder: Any = None
    streams: tuple[int, ...] | None = None
    live: bool = False
    shmem: str = ""
    calib: Any = None

    def open(self, number: int | None, streams: Any = None) -> NativeRun:
        """Open one run."""
        chosen = self.streams if streams is None else streams
        return open_run(
            self.source, number, dir=self.folder, streams=chosen, calib=self.calib, live=self.live
        )

    def _every_run(self) -> Iterable[NativeRun]:
        try:
            return [self.open(None)]
        except AmbiguousRun:
            how = {"streams": self.streams, "calib": self.calib, "live": self.live}
            return open_runs(self.source, dir=self.folder, **how)

    def natives(self) -> Iterator[NativeRun]:
        """Open the runs."""
        if not self.numbers:
            yield from self._every_run()
        for number in self.numbers:
            try:
                yield self.open(number)
            except RunNotFound:
                if not self.ranged:
                    raise


def asked_for(source: Sequence[Any], keywords: dict[str, Any], calib: Any) -> Asked:
    """Return what the arguments of a data source ask for.

    Parameters
    ----------
    source : sequence
        At most one string or list, or several files.
    keywords : dict
        psana2's.
    calib : optional
        That of `psana_dask.open`.
    """
    if keywords.get("shmem"):
        return Asked("shmem", shmem=str(keywords["shmem"]), calib=calib)
    if not source:
        return _of_keywords(keywords, calib)
    given = source[0] if len(source) == 1 else list(source)
    if isinstance(given, str) and given.startswith("shmem="):
        tag = given.removeprefix("shmem=").split(":")[0]
        return Asked("shmem", shmem=re.sub(r"\.\d+$", "", tag), calib=calib)
    if is_data_set(given):
        return _of_string(str(given), calib)
    return Asked(given, folder=keywords.get("dir"), calib=calib)


def _of_keywords(keywords: dict[str, Any], calib: Any) -> Asked:
    found = keywords.get("files") or keywords.get("exp")
    if found is None:
        raise TypeError('DataSource wants a data set ("exp=...:run=..."), or exp= and run=, or files=')
    source = [os.fspath(p) for p in found] if isinstance(found, list | tuple) else os.fspath(found)
    asked = keywords.get("run")
    numbers = () if asked is None else tuple(int(n) for n in np.atleast_1d(asked))
    return Asked(source, numbers, False, keywords.get("dir"), None, bool(keywords.get("live")), calib=calib)


def _of_string(text: str, calib: Any) -> Asked:
    """Take a data set string apart; unlike `psana_dask.open` it may name several runs."""
    runs = re.search(r"(?:^|[:,])\s*run=([\d\-,\s]*\d)", text)
    numbers, ranged = _numbers(runs[1]) if runs else ((), False)
    rest = text if runs is None else text[: runs.start()] + text[runs.end() :]
    parsed = parse_data_set(rest.strip(":,"))
    return Asked(
        parsed.experiment, numbers, ranged, parsed.folder, parsed.streams, "live" in parsed.modes, calib=calib
    )


def _numbers(text: str) -> tuple[tuple[int, ...], bool]:
    """Return the numbers of ``12,15-18``, and whether there is a range among them."""
    numbers: list[int] = []
    for word in text.split(","):
        first, _, last = word.strip().partition("-")
        numbers += range(int(first), int(last or first) + 1)
    return tuple(numbers), "-" in text


def check_keywords(keywords: dict[str, Any]) -> None:
    """Warn of keywords that psana2 does not have."""
    for name in keywords:
        if name not in MEANT and name not in POLITE:
            near = suggestion(name, (*MEANT, *POLITE))
            warnings.warn(f"DataSource knows no {name}=: ignored{near}", PsanaWarning, stacklevel=4)


# ---- choosing -----------------------------------------------------------------------------------
def of_detectors(native: NativeRun, keywords: dict[str, Any], asked: Asked) -> NativeRun:
    """Return the run with the streams that have any of ``detectors=`` and none of ``xdetectors=``."""
    wanted = keywords.get("detectors") or keywords.get("detnames") or ()
    unwanted = keywords.get("xdetectors") or ()
    if not wanted and not unwanted:
        return native
    recording = native._recording
    homes = {name: _streams_of(native, name) for name in (*wanted, *unwanted)}
    kept = {s.stream for s in recording.streams}
    if wanted:
        kept &= set().union(*(homes[name] for name in wanted))
    kept -= set().union(*(homes[name] for name in unwanted)) if unwanted else set()
    opened = asked.open(native.number, sorted(kept))
    there = [k for k, s in enumerate(recording.streams) if s.stream in kept]
    rows = opened._recording.events.rows
    return opened.select((rows[there] >= 0).any(axis=0)) if len(rows) > len(there) else opened


def _streams_of(native: NativeRun, name: str) -> set[int]:
    entry = native._view.find(name)
    streams = native._recording.streams
    places = (p for c in entry.channels.values() for s in c.segments for p in s.places)
    return {streams[place.stream].stream for place in places}


def at_timestamps(native: NativeRun, timestamps: Any) -> NativeRun:
    """Return the run over the events with some of psana2's timestamps."""
    if timestamps is None:
        return native
    words = np.load(timestamps) if isinstance(timestamps, str | Path) else np.asarray(timestamps)
    return native.select(np.isin(native.events.timestamp.values, words.astype(np.uint64)))

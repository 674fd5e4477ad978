"""psana's ``DataSource``: from a dataset string, or psana2's keywords, to runs, steps and events."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from psana_dask.errors import AmbiguousRun, PsanaWarning, RunNotFound, suggestion
from psana_dask.files import is_data_set, parse_data_set
from psana_dask.opening import open_run, open_runs
from psana_dask.psana.detectors import make_detector
from psana_dask.psana.environment import Env, detector_names
from psana_dask.psana.events import Event, Run, Step
from psana_dask.psana.smalldata import SmallData, SmallDataFile
from psana_dask.run import Run as NativeRun

if TYPE_CHECKING:
    from psana_dask.stream import Stream

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



@dataclass
class Latest:
    """The data source that was opened last: psana's ``Detector("name")`` says no other."""

    source: DataSource | None = None
    options: dict[str, Any] = field(default_factory=dict)


LATEST = Latest()


class DataSource:
    """Runs, steps and events of a data set.

    Parameters
    ----------
    source : str or list, optional
        ``"exp=xpptut15:run=54:smd"``, also ``idx`` and ``live``, ``run=12,15-18``, ``stream=0,2-4``,
        ``dir=``, ``shmem=TAG.0:stop=no``; with commas as on psana2's command line; a file or several.
    **keywords
        psana2's: ``exp= run= dir= files= shmem= detectors= xdetectors= timestamps= max_events= live=
        intg_det= smd_callback=``; ``calib=`` is that of `psana_dask.open`. What only tunes psana2 is
        accepted and has nothing to do; an unknown keyword is a warning.

    Raises
    ------
    RunNotFound
        No files; the message says where they were looked for.

    Examples
    --------
    >>> ds = DataSource("exp=xpptut15:run=54:smd")
    >>> for evt in ds.events():
    ...     img = Detector("cspad").image(evt)
    >>> ds = DataSource(exp="tstx00117", run=1, max_events=100)
    >>> for run in ds.runs():
    ...     det = run.Detector("jungfrau")
    """

    def __init__(self, *source: Any, **keywords: Any) -> None:
        _check_keywords(keywords)
        self._asked = _asked(source, keywords)
        self._keywords = keywords
        self._opened: list[Run] | None = None
        self._current: Run | None = None
        self._stream: Stream | None = None
        LATEST.source = self
        if not self._asked.shmem:
            self._all()  # what is not there is said now

    # ---- runs ---------------------------------------------------------------------------------
    def _all(self) -> list[Run]:
        if self._opened is None:
            self._opened = [self._made(native) for native in self._asked.natives()]
            if not self._opened:
                raise RunNotFound(f"no run in {self._asked.source!r}")
        return self._opened

    def _made(self, native: NativeRun) -> Run:
        """Return a run with what the keywords choose of it."""
        keywords = self._keywords
        native = _of_detectors(native, keywords, self._asked)
        chosen = _chosen(native, keywords.get("timestamps"))
        parts = native.follow_runs if self._asked.live else None
        made = Run(chosen, keywords.get("intg_det") or "", parts)
        return _called_back(made, keywords.get("smd_callback"))

    def _run(self, number: Any = None) -> Run:
        """Return the run with a number, or the one that the loop is in."""
        current = self._current or (self._shared() if self._asked.shmem else self._all()[0])
        if number is None or isinstance(number, bool) or self._asked.shmem or number == current.runnum:
            return current
        found = [run for run in self._all() if run.runnum == number]
        if not found:
            raise RunNotFound(f"run {number} is not in this data source: it has {self._numbers()}")
        return found[0]

    def _numbers(self) -> str:
        return ", ".join(str(run.runnum) for run in self._all())

    def runs(self) -> Iterator[Run]:
        """Yield the runs.

        Examples
        --------
        >>> for run in ds.runs():
        ...     for evt in run.events():
        ...         pass
        """
        if self._asked.shmem:
            yield self._current or self._shared()
            return
        left = self._keywords.get("max_events") or None
        for run in self._all():
            self._current = run
            if left is not None:
                if left <= 0:
                    return
                run = Run(run.native.isel(slice(0, left)), run.integrating, run._parts)  # noqa: PLW2901
                self._current = run
                left -= len(run.native)
            yield run

    def _shared(self) -> Run:
        """Return the run that a shared memory delivers; waits for its first event."""
        from psana_dask.stream import open_stream

        self._stream = open_stream(f"shmem://{self._asked.shmem}", calib=self._asked.calib)
        self._current = Run(self._stream.latest, parts=self._stream.follow_runs)
        return self._current

    def steps(self) -> Iterator[Step]:
        """Yield the scan steps of all runs.

        Examples
        --------
        >>> for step in ds.steps():
        ...     control = Detector("ControlData")().pvControls()
        """
        for run in self.runs():
            yield from run.steps()

    def events(self) -> Iterator[Event]:
        """Yield the events of all runs.

        Examples
        --------
        >>> for n, evt in enumerate(ds.events()):
        ...     if n == 10:
        ...         break
        """
        for run in self.runs():
            yield from run.events()

    def env(self) -> Env:
        """Return the environment: experiment, EPICS, configurations.

        Examples
        --------
        >>> ds.env().epicsStore().value("XPP:TEMP")
        """
        return self._run().env()

    def end(self) -> None:
        """Let a shared memory go; files need no end."""
        if self._stream is not None:
            self._stream.close()

    def jump(self, *args: Any) -> None:
        """Refuse: an event is named by its time, not by its place in files."""
        raise NotImplementedError("files and offsets name no event here: use run.event(time)")

    # ---- psana2 -------------------------------------------------------------------------------
    def smalldata(
        self, filename: str | os.PathLike[str] | None = None, batch_size: int = 1000,
        callbacks: Sequence[Callable[[dict[str, Any]], None]] = (), **ignored: Any,
    ) -> SmallDataFile:  # fmt: skip
        """Return psana2's small data: ``smd.event(evt, x=1)``, ``smd.done()``.

        Examples
        --------
        >>> smd = ds.smalldata(filename="run1.h5")
        >>> smd.event(evt, total=det.raw.calib(evt).sum())
        >>> smd.done()
        """
        return SmallDataFile(filename, batch_size, callbacks)

    def is_mpi(self) -> bool:
        """Return False: one process."""
        return False

    def is_srv(self) -> bool:
        """Return False: no process only serves."""
        return False

    def is_bd(self) -> bool:
        """Return True: this process reads data."""
        return True

    def unique_user_rank(self) -> bool:
        """Return True: there is one process."""
        return True

    def __repr__(self) -> str:
        return f"<DataSource {self._asked.source!r}>"


class MPIDataSource(DataSource):
    """psana's parallel data source, in one process: every event is this rank's.

    Parameters
    ----------
    source : str

    Examples
    --------
    >>> ds = MPIDataSource("exp=xpptut15:run=54:smd")
    >>> small = ds.small_data("run54.h5", gather_interval=100)
    >>> for evt in ds.events():
    ...     small.event(total=det.calib(evt).sum())
    >>> small.save()
    """

    rank, size, master = 0, 1, True

    def __init__(self, source: str, **keywords: Any) -> None:
        super().__init__(source, **keywords)
        self._most: int | None = None
        self._seen = 0
        self._event: Event | None = None

    def break_after(self, number: int) -> None:
        """End the loop after so many events; ``break`` works too."""
        self._most = number

    def events(self) -> Iterator[Event]:
        """Yield the events, up to `break_after`'s number."""
        for n, event in enumerate(super().events()):
            if self._most is not None and n >= self._most:
                return
            self._seen, self._event = n, event
            yield event

    def event_number(self) -> int:
        """Return the number of the event that the loop is at."""
        return self._seen

    def experiment(self) -> str:
        """Return the name of the experiment."""
        return self.env().experiment()

    def detnames(self, which: str = "detectors") -> list[tuple[str, str, str]]:
        """Return (full name, DAQ's name, '') of detectors, "epics" or "all"."""
        return detector_names(self._run(), which)

    def small_data(
        self, filename: str | os.PathLike[str] | None = None, keys_to_save: Iterable[str] = (),
        gather_interval: int = 100, **ignored: Any,
    ) -> SmallData:  # fmt: skip
        """Return psana's small data: ``small.event(x=1)``, ``small.save(total=...)``."""
        return SmallData(self, filename, keys_to_save, gather_interval)


# ---- what was asked for -------------------------------------------------------------------------
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


def _asked(source: Sequence[Any], keywords: dict[str, Any]) -> Asked:
    calib = keywords.get("calib", LATEST.options.get("calib"))
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


def _check_keywords(keywords: dict[str, Any]) -> None:
    for name in keywords:
        if name not in MEANT and name not in POLITE:
            near = suggestion(name, (*MEANT, *POLITE))
            warnings.warn(f"DataSource knows no {name}=: ignored{near}", PsanaWarning, stacklevel=4)


# ---- choosing -----------------------------------------------------------------------------------
def _of_detectors(native: NativeRun, keywords: dict[str, Any], asked: Asked) -> NativeRun:
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


def _chosen(native: NativeRun, timestamps: Any) -> NativeRun:
    """Return the run over the events with some of psana2's timestamps."""
    if timestamps is None:
        return native
    words = np.load(timestamps) if isinstance(timestamps, str | Path) else np.asarray(timestamps)
    return native.select(np.isin(native.events.timestamp.values, words.astype(np.uint64)))


def _called_back(run: Run, callback: Callable[[Run], Iterable[Event]] | None) -> Run:
    """Return the run over the events that psana2's ``smd_callback`` yields."""
    if callback is None:
        return run
    kept = np.zeros(len(run.native), bool)
    kept[[event.position for event in callback(run)]] = True
    return Run(run.native.select(kept), run.integrating, run._parts)


# ---- psana's functions --------------------------------------------------------------------------
def Detector(name: str, env: Env | None = None, accept_missing: bool = False) -> Any:
    """Return a detector as psana has it.

    Parameters
    ----------
    name : str
        A detector in any spelling, an EPICS variable, or ``"ControlData"``.
    env : Env, optional
        Not needed: an event says which run it is of.
    accept_missing : bool
        Give something whose calls return None where there is none.

    Raises
    ------
    NameNotFound
        No such name; lists the nearest ones. Also a KeyError.

    Examples
    --------
    >>> ds = DataSource("exp=xpptut15:run=54:smd")
    >>> det = Detector("cspad")
    >>> img = det.image(next(ds.events()))
    """
    return make_detector(name, _latest(), accept_missing)


def DetNames(which: str = "detectors") -> list[tuple[str, str, str]]:
    """Return (full name, DAQ's name, '') of detectors, "epics" or "all".

    Examples
    --------
    >>> for name in DetNames():
    ...     print(name)
    """
    return detector_names(_latest()._run(), which)


def _latest() -> DataSource:
    if LATEST.source is None:
        raise RuntimeError("open a DataSource first: its detectors are meant")
    return LATEST.source


OPTIONS = {"psana.calib-dir": "calib"}
"""Options of psana that have a meaning here."""


def setOption(name: str, value: Any) -> None:
    """Set an option of psana for the data sources to come: ``psana.calib-dir``.

    Examples
    --------
    >>> setOption("psana.calib-dir", "/data/calib")
    """
    if name not in OPTIONS:
        what = f"option {name!r} has nothing to set here{suggestion(name, OPTIONS)}"
        warnings.warn(what, PsanaWarning, stacklevel=2)
        return
    LATEST.options[OPTIONS[name]] = value


def setOptions(options: dict[str, Any]) -> None:
    """Set several options; see `setOption`.

    Examples
    --------
    >>> setOptions({"psana.calib-dir": "/data/calib"})
    """
    for name, value in options.items():
        setOption(name, value)


def setConfigFile(path: str) -> None:
    """Take ``calib-dir`` of the section ``[psana]`` of a configuration file of psana.

    Examples
    --------
    >>> setConfigFile("psana.cfg")
    """
    import configparser

    parser = configparser.ConfigParser()
    with open(path) as file:
        parser.read_file(file)
    if parser.has_option("psana", "calib-dir"):
        setOption("psana.calib-dir", parser.get("psana", "calib-dir"))

"""psana's ``DataSource``: from a dataset string, or psana2's keywords, to runs, steps and events."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from psana_dask.errors import PsanaWarning, RunNotFound, suggestion
from psana_dask.psana.asked import asked_for, at_timestamps, check_keywords, of_detectors
from psana_dask.psana.detectors import make_detector
from psana_dask.psana.environment import Env, detector_names
from psana_dask.psana.events import Event
from psana_dask.psana.runs import Run, Step
from psana_dask.psana.smalldata import SmallData, SmallDataFile
from psana_dask.run import Run as NativeRun

if TYPE_CHECKING:
    from psana_dask.stream import Stream


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
        check_keywords(keywords)
        self._asked = asked_for(source, keywords, keywords.get("calib", LATEST.options.get("calib")))
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
        native = of_detectors(native, keywords, self._asked)
        chosen = at_timestamps(native, keywords.get("timestamps"))
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

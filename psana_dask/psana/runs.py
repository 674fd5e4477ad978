"""Runs and their steps as psana's scripts have them.

One face serves both generations: psana's names (``run.times()``) and psana2's (``run.timestamp``,
``run.Detector("x")``) are on the same objects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from psana_dask.psana.events import Event, EventTime
from psana_dask.psana.reading import Reading
from psana_dask.readers.xtc2_layout import EPOCH_1990
from psana_dask.run import Run as NativeRun
from psana_dask.slow import steps_of

if TYPE_CHECKING:
    from psana_dask.psana.environment import Env

Ints = NDArray[np.int64]


class Step:
    """One scan step: its events.

    Parameters
    ----------
    run : Run
    number : int
    """

    def __init__(self, run: Run, number: int) -> None:
        self._run, self.number = run, number

    @property
    def time(self) -> np.datetime64:
        """When it began."""
        found: np.datetime64 = steps_of(self._run.native._recording).start[self.number]
        return found

    @property
    def step(self) -> int:
        """Its number, as `Event.step` says it."""
        return self.number

    @property
    def evt(self) -> Step:
        """What psana2 calls the transition: it has a ``timestamp``, and detectors of scan values take it."""
        return self

    @property
    def timestamp(self) -> int:
        """When it began, as the file's word."""
        nanoseconds = int(self.time.astype(np.int64))
        return (nanoseconds // 10**9 - self._run._epoch) << 32 | nanoseconds % 10**9

    def events(self) -> Iterator[Event]:
        """Yield the events of the step.

        Examples
        --------
        >>> for step in run.steps():
        ...     for evt in step.events():
        ...         pass
        """
        table = self._run.native._recording.events
        wanted = table.step[self._run.native._view.choice.numbers] == self.number
        return self._run._visited(map(int, np.flatnonzero(wanted)))

    def env(self) -> Env:
        """Return the environment; its values are those at the last event of the loop."""
        return self._run.env()

    def __repr__(self) -> str:
        return f"<Step {self.number} of run {self._run.runnum}>"


class Run:
    """One run.

    Parameters
    ----------
    native : psana_dask.Run
        The same run with the calls of this package.
    integrating : str
        Detector that integrates (psana2's ``intg_det=``).
    parts : callable, optional
        Yields the run piece by piece, while it is written.
    """

    def __init__(
        self, native: NativeRun, integrating: str = "", parts: Callable[[], Iterator[NativeRun]] | None = None
    ) -> None:
        self.native, self.integrating, self._parts = native, integrating, parts
        self._reading = Reading(native._view)
        self._now: Event | Step | None = None

    @cached_property
    def _epoch(self) -> int:
        """Unix seconds of the zero of the file's words."""
        return EPOCH_1990 if self.native._recording.data_format == "xtc2" else 0

    # ---- events -------------------------------------------------------------------------------
    def events(self) -> Iterator[Event]:
        """Yield the events in the order of time.

        Examples
        --------
        >>> for n, evt in enumerate(run.events()):
        ...     img = det.image(evt)
        """
        if self._parts is None:
            yield from self._visited(range(len(self.native)))
            return
        for part in self._parts():
            self.native, reading = part, Reading(part._view)
            for position in range(len(part)):
                self._now = Event(self, reading, position)
                yield self._now

    def _visited(self, positions: Any) -> Iterator[Event]:
        for position in positions:
            self._now = event = Event(self, self._reading, position)
            yield event

    def steps(self) -> Iterator[Step]:
        """Yield the scan steps; each has ``events()``.

        Examples
        --------
        >>> for step in run.steps():
        ...     delay = run.Detector("delay")(step)
        """
        for number in range(len(steps_of(self.native._recording))):
            self._now = step = Step(self, number)
            yield step

    def nsteps(self) -> int:
        """Return how many steps there are."""
        return len(steps_of(self.native._recording))

    def step(self, event: Event) -> Step:
        """Return the step of an event."""
        return Step(self, event.step)

    # ---- random access ------------------------------------------------------------------------
    def times(self, step: int | None = None) -> tuple[EventTime, ...]:
        """Return the names of all events, or of those of one step, in the order of time.

        Examples
        --------
        >>> for time in run.times()[::100]:
        ...     evt = run.event(time)
        """
        view = self.native._view
        numbers, table = view.choice.numbers, view.recording.events
        if step is not None:
            numbers = numbers[table.step[numbers] == step]
        fiducials = view.recording.facts.get("fiducial", np.zeros(len(table), np.int64))[numbers].tolist()
        words = (table.timestamp[numbers].astype(np.uint64) + np.uint64(self._epoch << 32)).tolist()
        return tuple(map(EventTime, words, fiducials))

    def event(self, time: Any) -> Event | None:
        """Return the event with a name, from any place of the run; None where there is none.

        Parameters
        ----------
        time : EventTime, int, or any event key of `psana_dask`
            An int is psana2's timestamp.

        Examples
        --------
        >>> evt = run.event(run.times()[1234])
        >>> evt = run.event(4194783241933859761)
        """
        if isinstance(time, EventTime):
            position = self._position(time.time() - (self._epoch << 32), time.fiducial())
        elif isinstance(time, int | np.integer):
            position = self._position(int(time), None)
        else:
            from psana_dask.keys import parse_keys
            from psana_dask.selection import key_positions

            position = int(key_positions(self.native._view, parse_keys(time))[0])
        return None if position is None else next(self._visited([position]))

    @cached_property
    def _sorted(self) -> tuple[NDArray[np.uint64], Ints]:
        view = self.native._view
        words = view.recording.events.timestamp[view.choice.numbers]
        order = np.argsort(words, kind="stable")
        return words[order], order

    def _position(self, word: int, fiducial: int | None) -> int | None:
        words, order = self._sorted
        if not 0 <= word < 1 << 64:
            return None
        first, last = (int(np.searchsorted(words, np.uint64(word), side)) for side in ("left", "right"))
        facts = self.native._recording.facts.get("fiducial")
        for at in order[first:last].tolist():
            number = self.native._view.choice.numbers[at]
            if fiducial is None or facts is None or int(facts[number]) == fiducial:
                return int(at)
        return None

    @contextmanager
    def build_table(self) -> Iterator[bool]:
        """Do nothing: any event can be had at any time.

        Examples
        --------
        >>> with run.build_table():
        ...     evt = run.event(timestamp)
        """
        yield True

    # ---- facts --------------------------------------------------------------------------------
    def run(self) -> int:
        """Return the number of the run, -1 where it is not known."""
        return -1 if self.native.number is None else self.native.number

    def end(self) -> None:
        """Do nothing: a run needs no end."""

    def terminate(self) -> None:
        """Do nothing: stop the loop with ``break``."""

    def env(self) -> Env:
        """Return the environment: experiment, EPICS, configurations."""
        from psana_dask.psana.environment import Env

        return Env(self)

    @property
    def runnum(self) -> int:
        """Number of the run."""
        return self.run()

    @property
    def expt(self) -> str | None:
        """Name of the experiment."""
        return self.native.experiment

    @property
    def timestamp(self) -> int:
        """When the first event was, as the file's word."""
        return int(self.native._recording.events.timestamp[0])

    @property
    def detnames(self) -> set[str]:
        """Names of the detectors, as the DAQ has them."""
        return {entry.alias for entry in self.native._view.entries.values()}

    @property
    def detinfo(self) -> dict[tuple[str, str], list[str]]:
        """Calls of each detector and algorithm: ``{("jungfrau", "raw"): ["calib", "image", "raw", ...]}``."""
        from psana_dask.psana.lcls2 import interfaces

        entries = self.native._view.entries.values()
        return {(e.alias, a): calls for e in entries for a, calls in interfaces(self, e).items()}

    @property
    def xtcinfo(self) -> dict[tuple[str, str], list[str]]:
        """Fields of each detector and algorithm, as they are in the file."""
        found: dict[tuple[str, str], list[str]] = {}
        for entry in self.native._view.entries.values():
            for channel in entry.channels.values():
                found.setdefault((entry.alias, channel.algorithm), []).append(channel.field)
        return found

    @property
    def epicsinfo(self) -> dict[tuple[str, str], str]:
        """Names of EPICS variables."""
        return {(name, "raw"): "raw" for s in self.native.epics.series.values() for name in s.spellings}

    @property
    def scaninfo(self) -> dict[tuple[str, str], str]:
        """Names of scan variables."""
        return {(name, "raw"): "raw" for name in steps_of(self.native._recording).values}

    @property
    def scannames(self) -> set[str]:
        """Names of scan variables."""
        return set(steps_of(self.native._recording).values)

    def Detector(self, name: str, accept_missing: bool = False, **mask: Any) -> Any:
        """Return a detector as psana2 has it.

        Parameters
        ----------
        name : str
            A detector, an EPICS variable or a scan variable.
        accept_missing : bool
            Give something whose calls return None where there is none.
        **mask
            What its mask is made of: ``edges=True, edge_rows=1, ...``.

        Raises
        ------
        NameNotFound
            No such name; lists the nearest ones.

        Examples
        --------
        >>> det = run.Detector("jungfrau")
        >>> det.raw.image(evt)
        """
        from psana_dask.psana.lcls2 import detector

        return detector(self, name, accept_missing, mask)

    def analyze(self, event_fn: Callable[[Event, Any], Any] | None = None, det: Any = None) -> None:
        """Call a function for every event."""
        for event in self.events():
            if event_fn is not None:
                event_fn(event, det)

    def __repr__(self) -> str:
        return f"<run {self.runnum} of {self.expt}: {len(self.native)} events>"

"""Runs, steps and events as psana's scripts have them.

One face serves both generations: psana's names (``run.times()``, ``evt.get(EventId)``) and psana2's
(``run.timestamp``, ``evt.timestamp``, ``run.Detector("x")``) are on the same objects.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from psana_dask.catalog import Entry
from psana_dask.model import Service
from psana_dask.pipeline import catalog_of
from psana_dask.psana.ddl import Payload, Record, Type, address_of, title_of
from psana_dask.psana.reading import Reading
from psana_dask.readers.xtc2_layout import EPOCH_1990
from psana_dask.readers.xtc_layout import source_fits
from psana_dask.run import Run as NativeRun
from psana_dask.slow import steps_of

if TYPE_CHECKING:
    from psana_dask.psana.environment import Env

Ints = NDArray[np.int64]
LOW_WORD = 0xFFFFFFFF


@dataclass(frozen=True, order=True)
class EventTime:
    """What names an event of a run: its clock and its fiducial.

    Parameters
    ----------
    word : int
        Unix seconds << 32 | nanoseconds.
    number : int
        Fiducial; 0 in LCLS-II.

    Examples
    --------
    >>> kept = [run.times()[5]]
    >>> event = run.event(kept[0])
    """

    word: int
    number: int = 0

    def time(self) -> int:
        """Return seconds << 32 | nanoseconds."""
        return self.word

    def seconds(self) -> int:
        """Return Unix seconds."""
        return self.word >> 32

    def nanoseconds(self) -> int:
        """Return the nanoseconds within the second."""
        return self.word & LOW_WORD

    def fiducial(self) -> int:
        """Return the fiducial."""
        return self.number


class EventId:
    """The names of an event: ``evt.get(EventId).time()``.

    Parameters
    ----------
    event : Event
    """

    def __init__(self, event: Event) -> None:
        self._event = event

    def time(self) -> tuple[int, int]:
        """Return Unix seconds and nanoseconds, as the event builder wrote them."""
        word = self._event._unix_word
        return word >> 32, word & LOW_WORD

    def idxtime(self) -> EventTime:
        """Return what `Run.event` takes."""
        return EventTime(self._event._unix_word, self.fiducials())

    def run(self) -> int:
        """Return the number of the run, -1 where it is not known."""
        return self._event.run()

    def fiducials(self) -> int:
        """Return the 360 Hz counter (0 in LCLS-II)."""
        return self._event._fact("fiducial")

    def ticks(self) -> int:
        """Return the 119 MHz counter within the fiducial (0 in LCLS-II)."""
        return self._event._fact("ticks")

    def vector(self) -> int:
        """Return the events since Configure, 15 bits (0 in LCLS-II)."""
        return self._event._fact("vector")

    def __repr__(self) -> str:
        seconds, nanoseconds = self.time()
        return f"<EventId run {self.run()}, {seconds}.{nanoseconds:09d}, fiducial {self.fiducials()}>"


@dataclass(frozen=True)
class EventKey:
    """What an event has of a source."""

    what: str
    source: str
    name: str

    def type(self) -> str:
        """Return the name of the type."""
        return self.what

    def src(self) -> str:
        """Return the address."""
        return self.source

    def alias(self) -> str:
        """Return the DAQ's name of it."""
        return self.name

    def key(self) -> str:
        """Return the empty text: only psana's own modules make others."""
        return ""


class Event:
    """One event.

    Parameters
    ----------
    run_ : Run
    reading : Reading
    position : int
        Within the events of the reading.
    """

    __slots__ = ("_reading", "_run", "position")

    def __init__(self, run_: Run, reading: Reading, position: int) -> None:
        self._run, self._reading, self.position = run_, reading, position

    @property
    def _number(self) -> int:
        return int(self._reading.view.choice.numbers[self.position])

    @property
    def timestamp(self) -> int:
        """The file's word: seconds << 32 | nanoseconds, since 1990 in LCLS-II, since 1970 in LCLS-1."""
        return int(self._reading.view.recording.events.timestamp[self._number])

    @property
    def time(self) -> np.datetime64:
        """Time of the event, UTC."""
        found: np.datetime64 = self._reading.view.recording.events.time[self._number].view("M8[ns]")
        return found

    @property
    def step(self) -> int:
        """Scan step."""
        return int(self._reading.view.recording.events.step[self._number])

    @property
    def _unix_word(self) -> int:
        return self.timestamp + (self._run._epoch << 32)

    def _fact(self, name: str) -> int:
        facts = self._reading.view.recording.facts
        return int(facts[name][self._number]) if name in facts else 0

    # ---- psana --------------------------------------------------------------------------------
    def get(self, what: Any, source: Any = "", key: str = "") -> Any:
        """Return what the event has of a type and a source; None where it has nothing.

        Parameters
        ----------
        what : type
            ``EventId``, or a type such as ``EvrData.DataV4`` (LCLS-1).
        source : Source or str
            In any spelling; empty: any.
        key : str
            Empty: nothing else is in an event.

        Examples
        --------
        >>> seconds, nanoseconds = evt.get(EventId).time()
        >>> evt.get(Bld.BldDataEBeamV7, Source("BldInfo(EBeam)")).ebeamPhotonEnergy()
        """
        if what is EventId:
            return EventId(self)
        if not isinstance(what, Type):
            raise TypeError(f"{what!r} is no type of psana: use EventId, or EvrData.DataV4 and the like")
        for entry in self._sources(address_of(source)):
            for record in self._records(entry):
                if what(record):
                    return record
        return None

    def _sources(self, address: str) -> list[Entry]:
        catalog = catalog_of(self._reading.view.recording)
        if not address:
            return list(catalog.detectors.values())
        named = catalog.find(address)
        fitting = [e for e in catalog.detectors.values() if e.source and source_fits(address, e.source)]
        return fitting if named is None else [named]

    def _records(self, entry: Entry) -> Iterator[Record]:
        if self._reading.view.recording.format != "xtc":
            return
        payloads: list[Payload] = self._reading.payloads(self.position, entry)
        for payload in payloads:
            yield from payload.records()

    def keys(self, source: Any = "") -> list[EventKey]:
        """Return what the event has: type, source, alias.

        Examples
        --------
        >>> for key in evt.keys():
        ...     print(key.type(), key.src(), key.alias())
        """
        return [
            EventKey(title_of(record), entry.source, "" if entry.alias == entry.source else entry.alias)
            for entry in self._sources(address_of(source))
            for record in self._records(entry)
        ]

    def run(self) -> int:
        """Return the number of the run, -1 where it is not known."""
        number = self._run.native.number
        return -1 if number is None else number

    # ---- psana2 -------------------------------------------------------------------------------
    def datetime(self) -> dt.datetime:
        """Return the time of the event, UTC."""
        microseconds = int(self.time.astype("M8[us]").astype(np.int64))
        return dt.datetime.fromtimestamp(0, dt.UTC) + dt.timedelta(microseconds=microseconds)

    def timestamp_diff(self, timestamp: int) -> int:
        """Return how many nanoseconds this event is after another timestamp."""
        return _nanoseconds(self.timestamp) - _nanoseconds(int(timestamp))

    def service(self) -> int:
        """Return the number of the transition: an event is 12."""
        return int(Service.L1_ACCEPT)

    def EndOfBatch(self) -> list[str]:
        """Return the integrating detectors (``intg_det=``) that are read out with this event."""
        wanted = self._run.integrating
        return (
            [wanted]
            if wanted and self._reading.value(self.position, *_main(self._run, wanted)) is not None
            else []
        )

    def __repr__(self) -> str:
        return f"<Event {self.position} of run {self.run()}: {self.time}>"


def _main(run: Run, detector: str) -> tuple[str, str]:
    """Return a detector and the field that stands for it."""
    entry = run.native._view.find(detector)
    return entry.name, "raw" if "raw" in entry.channels else next(iter(entry.channels))


def _nanoseconds(word: int) -> int:
    return (word >> 32) * 10**9 + (word & LOW_WORD)


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

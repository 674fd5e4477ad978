"""Events as psana's scripts have them: times, keys, contents.

One face serves both generations: psana's names (``evt.get(EventId)``) and psana2's
(``evt.timestamp``) are on the same objects.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from psana_dask.catalog import Entry
from psana_dask.model import Service
from psana_dask.pipeline import catalog_of
from psana_dask.psana.ddl import Payload, Record, Type, address_of, title_of
from psana_dask.psana.reading import Reading
from psana_dask.readers.xtc_layout import source_fits

if TYPE_CHECKING:
    from psana_dask.psana.runs import Run

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

    Examples
    --------
    >>> seconds, nanoseconds = evt.get(EventId).time()
    >>> run.event(evt.get(EventId).idxtime())
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


class RunNumber(int):
    """The number of a run, as psana's ``evt.run()`` gives it, with what psana2's has besides.

    Attributes
    ----------
    runnum : int
    expt : str or None
    timestamp : int
    intg_det : str
    """

    runnum: int
    expt: str | None
    timestamp: int
    intg_det: str

    def __new__(cls, run: Run) -> RunNumber:
        """Make it from a run."""
        made = super().__new__(cls, run.runnum)
        made.runnum, made.expt, made.intg_det = run.runnum, run.expt, run.integrating
        made.timestamp = run.timestamp
        return made

    def __reduce__(self) -> tuple[type[int], tuple[int]]:
        return int, (int(self),)


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

    def run(self) -> RunNumber:
        """Return the number of the run, -1 where it is not known; also psana2's ``evt.run().expt``."""
        return RunNumber(self._run)

    # ---- psana2 -------------------------------------------------------------------------------
    @property
    def _seconds(self) -> int:
        return self.timestamp >> 32

    @property
    def _nanoseconds(self) -> int:
        return self.timestamp & LOW_WORD

    def datetime(self) -> dt.datetime:
        """Return the time of the event, UTC."""
        microseconds = int(self.time.astype("M8[us]").astype(np.int64))
        return dt.datetime.fromtimestamp(0, dt.UTC) + dt.timedelta(microseconds=microseconds)

    def timestamp_diff(self, timestamp: int) -> int:
        """Return how many nanoseconds this event is after another timestamp."""
        return _in_nanoseconds(self.timestamp) - _in_nanoseconds(int(timestamp))

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


def _in_nanoseconds(word: int) -> int:
    return (word >> 32) * 10**9 + (word & LOW_WORD)

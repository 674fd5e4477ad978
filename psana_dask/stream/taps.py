"""Where a stream comes from: taps deliver transitions and events, one delivery after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

from psana_dask.stream.datagrams import HEADERS, Dgram


@dataclass(frozen=True)
class Delivery:
    """Some consecutive events, and the transitions before them.

    Parameters
    ----------
    transitions : sequence of sequence of Dgram
    events : sequence of sequence of Dgram
        The datagrams of each event.
    missed : int
        Events that were sent before these and never arrived.
    anew : bool
        The server was started again: what was known of it does not count.
    end : bool
        Nothing more comes.
    """

    transitions: Sequence[Sequence[Dgram]] = ()
    events: Sequence[Sequence[Dgram]] = ()
    missed: int = 0
    anew: bool = False
    end: bool = False


@dataclass(frozen=True)
class Share:
    """One of several readers of a server that gives each event to all of them: which events are its own.

    Parameters
    ----------
    reader, readers : int
    team : int
        A word of 32 bits that these readers have in common, and no others; not 0.
    """

    reader: int
    readers: int
    team: int = 1

    def has(self, timestamp: int) -> bool:
        """Tell whether an event is this reader's: a hash of its time decides."""
        return (timestamp * 0x9E3779B97F4A7C15 >> 32) % self.readers == self.reader


@dataclass
class Refusals:
    """Messages that were no messages."""

    count: int = 0
    last: str = ""

    def add(self, what: str) -> None:
        """Count one."""
        self.count += 1
        self.last = what


@runtime_checkable
class Tap(Protocol):
    """A source of deliveries."""

    form: str
    refused: Refusals

    def receive(self, seconds: float) -> Delivery | None:
        """Return what comes within some seconds, or None."""

    def close(self) -> None:
        """Let go."""


@dataclass
class ListTap:
    """A tap that gives out what it was given: for tests, and for other programs' data.

    Parameters
    ----------
    form : {"xtc", "xtc2"}
    deliveries : list of Delivery
    """

    form: str
    deliveries: list[Delivery]
    refused: Refusals = field(default_factory=Refusals)

    def receive(self, seconds: float) -> Delivery | None:
        """Return the next delivery; at the end one that says so."""
        del seconds
        return self.deliveries.pop(0) if self.deliveries else Delivery(end=True)

    def close(self) -> None:
        """Do nothing."""


class SharedTap:
    """A tap of which only some events are taken: another reader takes the others.

    Parameters
    ----------
    tap : Tap
    share : Share
    """

    def __init__(self, tap: Tap, share: Share) -> None:
        self._tap, self._share = tap, share
        self.form, self.refused = tap.form, tap.refused

    def receive(self, seconds: float) -> Delivery | None:
        """Return what comes within some seconds, or None."""
        found = self._tap.receive(seconds)
        if found is None:
            return None
        header = HEADERS[self.form]
        mine = [e for e in found.events if self._share.has(header(e[0].data).timestamp)]
        return replace(found, events=mine)

    def close(self) -> None:
        """Let go."""
        self._tap.close()

"""Where a stream comes from: taps deliver transitions and events, one delivery after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from psana_dask.stream.datagrams import Dgram


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


@dataclass
class Refusals:
    """Messages that were no messages."""

    count: int = 0
    last: str = ""

    def add(self, what: str) -> None:
        """Count one."""
        self.count += 1
        self.last = what


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

"""Where micro-batches come from, and what became of the events on the way.

A `Stream` is made of `Batches`: received from a tap, read from files that are being written or are
closed, or several of these.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Protocol

from psana_dask.run import Run

BATCH, TIMEOUT = 64, 120.0
POLICIES = ("complete", "latest")

MOST_GATHERING = 0.25
"""Seconds that a reduction gathers events for a batch, at most."""


@dataclass
class Counters:
    """What became of the events of a stream.

    Parameters
    ----------
    received : int
        Events that arrived.
    processed : int
        Events that were given out.
    dropped : int
        Events that arrived and were thrown away, as the policy is "latest".
    missed : int
        Events that the sender gave out to all and that never arrived.
    unconfigured : int
        Events that came before their configuration: nobody knows what they hold.
    refused : int
        Messages that were no messages of a stream.
    restarts : int
        How often a server was started again, or a worker that reads one.
    """

    received: int = 0
    processed: int = 0
    dropped: int = 0
    missed: int = 0
    unconfigured: int = 0
    refused: int = 0
    restarts: int = 0

    def __add__(self, other: Counters) -> Counters:
        return Counters(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


class Batches(Protocol):
    """A source of micro-batches."""

    policy: str

    @property
    def form(self) -> str:
        """``"xtc2"`` or ``"xtc"``."""

    @property
    def counters(self) -> Counters:
        """What became of the events so far."""

    def peek(self) -> Run | None:
        """Return the latest batch, None at the end; waits for the first one, and gives that out later."""

    def runs(self, batch: int, timeout: float | None, gather: float = 0.0) -> Iterator[Run]:
        """Yield micro-batches of at most `batch` events; smaller ones at least `gather` seconds apart."""

    def close(self) -> None:
        """Stop."""


def gathering(every: float) -> float:
    """Return how long to gather events for a reduction that is looked at every so many seconds.

    The sums of many pixels and their constants pass through memory once a batch, whatever is in it.
    """
    return min(every / 4, MOST_GATHERING)


def checked(policy: str) -> str:
    """Return a policy.

    Raises
    ------
    ValueError
        There is no such policy.
    """
    if policy not in POLICIES:
        raise ValueError(f'policy={policy!r}: use "complete" or "latest"')
    return policy

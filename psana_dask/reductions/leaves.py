"""The fixed order of float sums: leaves of 16 events, merged eight by eight.

The events of a reduction are numbered in time order.  Leaf L holds the events 16 L to
16 L + 15, summed one after the other; node N of a level holds the nodes 8 N to 8 N + 7 of
the level below, merged one after the other.  Whoever computes which part, the same
additions are done in the same order, so the bits of a result depend on the events alone.
A task covers one node: `span(level)` events, from a multiple of that number on.
Contract: tests/reductions/test_leaves.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

LEAF = 16
"""Events of a leaf."""

FAN = 8
"""Nodes that make one node of the next level."""

CACHED = 4096
"""Pixels that see all events of a leaf before the next ones do: their sums stay in the cache."""

Node = TypeVar("Node")


def span(level: int) -> int:
    """Return how many events a node of a level covers; level 0 are the leaves."""
    return int(LEAF * FAN**level)


def spans(events: int, level: int) -> Iterator[tuple[int, int]]:
    """Yield the events [first, last) of each node of a level."""
    step = span(level)
    for first in range(0, events, step):
        yield first, min(events, first + step)


def groups(nodes: Sequence[Node]) -> list[Sequence[Node]]:
    """Return the nodes that make each node of the next level."""
    return [nodes[first : first + FAN] for first in range(0, len(nodes), FAN)]


class Partial:
    """What a task sends: it tells its size, for the scheduler brings work to where the data are."""

    def __sizeof__(self) -> int:
        return object.__sizeof__(self) + sum(getattr(v, "nbytes", 0) for v in vars(self).values())


class Carry(Generic[Node]):
    """Merges nodes as they come, like the digits of a counter: at most one per level is kept.

    Parameters
    ----------
    merge : callable
        ``merge(earlier, later)`` returns one node; it may change `earlier`.
    """

    def __init__(self, merge: Callable[[Node, Node], Node]) -> None:
        self._merge = merge
        self._kept: list[tuple[Node, int] | None] = []  # by level: merged nodes, and how many

    def push(self, node: Node, level: int = 0) -> None:
        """Add the next complete node of a level.

        Raises
        ------
        ValueError
            Nodes of lower levels are not complete: this one cannot be the next.
        """
        if any(kept is not None for kept in self._kept[:level]):
            raise ValueError(f"a node of level {level} cannot follow an incomplete one")
        self._kept += [None] * (level + 1 - len(self._kept))
        kept = self._kept[level]
        merged, count = (node, 1) if kept is None else (self._merge(kept[0], node), kept[1] + 1)
        self._kept[level] = (merged, count) if count < FAN else None
        if count == FAN:
            self.push(merged, level + 1)

    def total(self, last: Node | None = None) -> Node | None:
        """Return all nodes merged, `last` (an incomplete leaf) behind them; None if there are none.

        The nodes that are kept go into the result: push no more after it unless `merge`
        leaves its arguments alone.
        """
        found = last
        for kept in self._kept:
            if kept is not None:
                found = kept[0] if found is None else self._merge(kept[0], found)
        return found

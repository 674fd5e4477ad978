"""What one task does: read a range of events, accumulate, return small partial results.

Functions of this module are what runs on workers.  An error says which file and which event.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from psana_dask.errors import PsanaError
from psana_dask.recording import open_recording
from psana_dask.reductions.statistics import Node, Work
from psana_dask.reductions.tiles import Block, Buffers, Tile

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Nodes = tuple[Node, ...]


SLOW = 1e9
"""Bytes per second below which files are taken to be on a disk: what comes next is announced.

Announcing what lies in memory already would cost a tenth of a reduction.
"""


@dataclass(frozen=True, eq=False)
class Piece:
    """Consecutive events of one bin: one node of its tree.

    Parameters
    ----------
    events : (event,) int64
        Event numbers.
    weights : (event,) float64, optional
    """

    events: Ints
    weights: Floats | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpacked_piece, (_packed(self.events), self.weights)


def _unpacked_piece(packed: Any, weights: Floats | None) -> Piece:
    return Piece(_unpacked(packed), weights)


def _packed(events: Ints) -> Any:
    """Return event numbers in few bytes: a range, bits, or 32-bit integers."""
    steps = np.diff(events)
    first, last = (int(events[0]), int(events[-1])) if len(events) else (0, 0)
    if (steps == 1).all():
        return range(first, first + len(events))
    if (steps > 0).all() and (last - first) // 8 < 4 * len(events):
        mask = np.zeros(last - first + 1, bool)
        mask[events - first] = True
        return first, np.packbits(mask), len(mask)
    return events.astype(np.int32)


def _unpacked(packed: Any) -> Ints:
    if isinstance(packed, range):
        return np.arange(packed.start, packed.stop, dtype=np.int64)
    if isinstance(packed, tuple):
        first, bits, count = packed
        return first + np.flatnonzero(np.unpackbits(bits, count=count))
    return np.asarray(packed, np.int64)


def accumulate_piece(work: Work, piece: Piece, levels: int) -> Nodes:
    """Return the nodes of a piece.

    Parameters
    ----------
    work : Work
    piece : Piece
    levels : int
        Levels that its tree has.

    Raises
    ------
    ReadError
        A file cannot be read as indexed; the message names it and the event.
    """
    buffers, slow = Buffers(), False
    accumulators = _begun(work, levels, piece.events)
    for block, later in blocks(piece, work.frames.block):
        began = time.perf_counter()
        try:
            ahead = later if slow else None
            for tile in work.frames.tiles(block, buffers, values=work.values, later=ahead):
                for accumulator in accumulators:
                    accumulator.push(tile)
        except PsanaError as error:
            raise blamed(error, block.events, work) from error
        for accumulator in accumulators:
            accumulator.advance(len(block.events))
        slow = len(block.events) * work.frames.nbytes < SLOW * (time.perf_counter() - began)
    return tuple(accumulator.node() for accumulator in accumulators)


def accumulate_bins(work: Work, pieces: Sequence[Piece], levels: int) -> list[Nodes]:
    """Return the nodes of pieces of several bins; their events are read once, in time order."""
    events = np.concatenate([piece.events for piece in pieces])
    owner = np.repeat(np.arange(len(pieces)), [len(piece.events) for piece in pieces])
    weights = np.concatenate([np.ones(len(p.events)) if p.weights is None else p.weights for p in pieces])
    order = np.argsort(events, kind="stable")
    everything = Piece(events[order], weights[order])
    bins, buffers = [_Bin(_begun(work, levels, everything.events)) for _ in pieces], Buffers()
    for block, later in blocks(everything, work.frames.block):
        here = owner[order[block.start : block.start + len(block.events)]]
        members = [(bins[k], np.flatnonzero(here == k)) for k in np.unique(here).tolist()]
        try:
            for tile in work.frames.tiles(block, buffers, values=work.values, later=later):
                for bin_, rows in members:
                    bin_.push(tile, rows)
        except PsanaError as error:
            raise blamed(error, block.events, work) from error
        for bin_, rows in members:
            bin_.advance(len(rows))
    return [tuple(accumulator.node() for accumulator in bin_.accumulators) for bin_ in bins]


@dataclass(eq=False)
class _Bin:
    """The accumulators of one bin, and how many events they have had."""

    accumulators: list[Any]
    events: int = 0

    def push(self, tile: Tile, rows: Ints) -> None:
        """Add some rows of a tile."""
        own = replace(
            tile, raw=tile.raw[rows], values=None if tile.values is None else tile.values[rows],
            use=tile.use[rows], weights=tile.weights[rows], start=self.events,
        )  # fmt: skip
        for accumulator in self.accumulators:
            accumulator.push(own)

    def advance(self, events: int) -> None:
        """Note that all tiles of some events were pushed."""
        self.events += events
        for accumulator in self.accumulators:
            accumulator.advance(events)


def nodes_of(bins: Sequence[Nodes], which: int) -> Nodes:
    """Return the nodes of one of several bins."""
    return bins[which]


def _begun(work: Work, levels: int, events: Ints) -> list[Any]:
    """Return fresh accumulators; the files are opened for that."""
    try:
        return work.accumulators(levels)
    except PsanaError as error:
        raise blamed(error, events, work) from error


def blocks(piece: Piece, size: int) -> Iterator[tuple[Block, Ints | None]]:
    """Yield the blocks of a piece, each with the events that come after it."""
    events = piece.events
    weights = np.ones(len(events)) if piece.weights is None else piece.weights
    for first in range(0, len(events), size):
        end = first + size
        later = events[end : end + size] if end < len(events) else None
        yield Block(events[first:end], weights[first:end], first), later


def blamed(error: PsanaError, events: Ints, work: Work) -> PsanaError:
    """Return the error with the event it is about: the first that cannot be read by itself."""
    target = work.frames.raw.target
    try:
        recording = target.held or open_recording(target.files, target.token)
    except PsanaError:  # then the files do not say when it was
        return type(error)(f"{error} (wanted for events {events[0]} to {events[-1]} of the run)")
    for event in events:
        one = Block(np.array([event]), np.ones(1), 0)
        try:
            for _ in work.frames.tiles(one, Buffers(), values=False):
                pass
        except PsanaError as own:
            return type(own)(f"{own} (event {_when(recording, int(event))})")
    first, last = (_when(recording, int(events[k])) for k in (0, -1))
    return type(error)(f"{error} (events {first} to {last})")


def _when(recording: Any, event: int) -> str:
    return str(recording.events.time[event : event + 1].view("M8[ns]")[0])


Part = TypeVar("Part")


def merge_nodes(parts: Sequence[Nodes]) -> Nodes:
    """Merge the nodes of consecutive pieces, in order."""
    return tuple(reduce(lambda a, b: a.merge(b), column) for column in zip(*parts, strict=True))


def folded(parts: Sequence[Part], merge: Callable[[Part, Part], Part]) -> Part:
    """Merge parts one after the other."""
    return reduce(merge, parts)

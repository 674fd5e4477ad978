"""Reducing what a function makes of each frame (`PerFrame`): read, calibrate, call, accumulate.

A few frames at a time go through buffers that are used again; their results are the tiles of
the reduction, one panel of as many pixels as a result has values.  So statistics, bins, weights and the
order of sums are those of any field.  Contract: tests/reductions/test_derived.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from psana_dask.analysis.perframe import PerFrame
from psana_dask.calibrated import CalibratedArray, ImageArray
from psana_dask.choice import Choice
from psana_dask.errors import FunctionError
from psana_dask.fields import any_panel
from psana_dask.indexing import Key
from psana_dask.pipeline import EventArray, FrameArray
from psana_dask.reductions.leaves import LEAF
from psana_dask.reductions.tiles import LARGE_BYTES, Block, Buffers, Frames, Tile

Ints = NDArray[np.int64]
Base = FrameArray | CalibratedArray | ImageArray

TOGETHER_BYTES = 8 * 2**20
"""Frames go to the function together up to this size, and at least one."""

RESULT_BYTES = 64 * 2**20
"""Results are accumulated together up to this size: the sums of a large one pass through memory each time."""

TILE_BYTES = 2**18
"""Of the results that are accumulated at once; their sums take sixteen times that."""


class DerivedArray(EventArray):
    """What a function makes of each frame, (time, ...).

    Parameters
    ----------
    base : FrameArray, CalibratedArray or ImageArray
        The frames.
    made : PerFrame
    sides : tuple of FrameArray
        Scalars that go along.
    """

    def __init__(self, base: Base, made: PerFrame, sides: tuple[FrameArray, ...] = ()) -> None:
        super().__init__(base.target)
        self.base, self.made, self.sides = base, made, sides
        inner = dict(zip(base.dims[1:], base.shape[1:], strict=True)) if made.dims is None else made.dims
        self.dims = ("time", *inner)
        self.shape = (base.shape[0], *inner.values())
        self.dtype = np.dtype(made.dtype)

    def read(self, key: Key) -> NDArray[Any]:
        """Make what `key` picks."""
        events, buffers = self.numbers(key[0]), Buffers()
        out = np.empty((len(events), *self.shape[1:]), self.dtype)
        size = together(self.base)
        for first in range(0, len(events), size):
            out[first : first + size] = self.of(events[first : first + size], buffers)
        time = 0 if isinstance(key[0], int | np.integer) else slice(None)
        for axis in reversed(range(1, out.ndim)):
            out = out[(slice(None),) * axis + (key[axis],)]
        return out[time]

    def of(self, events: Ints, buffers: Buffers) -> NDArray[Any]:
        """Return what is made of some events.

        Raises
        ------
        FunctionError
            It does not have the shape that was said.
        """
        frames = self._frames(events, buffers)
        values = np.asarray(self.made.function(frames, *(_side(s, events) for s in self.sides)))
        expected = (len(events), *self.shape[1:])
        if values.shape != expected:
            what = f"{self.made.name} made an array of shape {values.shape} of {len(events)} frames"
            raise FunctionError(f"{what}, not {expected}")
        return values.astype(self.dtype, copy=False)

    def _frames(self, events: Ints, buffers: Buffers) -> NDArray[Any]:
        """Return frames; those of panels lie in buffers."""
        base = self.base
        if isinstance(base, ImageArray):
            return np.asarray(over(base, events)[...])
        raw = base.raw if isinstance(base, CalibratedArray) else base
        reader = raw.frame_reader()
        panels = np.arange(len(reader.panels))
        shape = (len(events), len(panels), *reader.panel_shape)
        words = buffers.array("words", shape, raw.dtype)
        if isinstance(base, CalibratedArray):
            found = buffers.array("frames", shape, base.dtype)
            base.frames_into(events, panels, found, words)
        else:
            found = words
            reader.read_into(events, panels, slice(None), found)
        return found.reshape(len(events), *base.shape[1:])


def together(base: Base) -> int:
    """Return how many frames go to the function at once."""
    return max(1, TOGETHER_BYTES // max(1, math.prod(base.shape[1:]) * base.dtype.itemsize))


def _side(side: FrameArray, events: Ints) -> NDArray[np.float64]:
    """Return one number per event, NaN where it is missing."""
    values = np.asarray(over(side, events)[...], np.float64).reshape(len(events), -1)[:, 0]
    return np.where(any_panel(side.target.reader().present(events)), values, np.nan)


def over(lazy: Any, events: Ints) -> Any:
    """Return a lazy array like `lazy` over other events (numbers in the event table)."""
    return retargeted(
        lazy, lambda target: replace(target, choice=Choice(events, lazy.target.choice.total))
    )


def retargeted(lazy: Any, change: Any) -> Any:
    """Return a lazy array that reads from another target: ``change(target)``."""
    if isinstance(lazy, DerivedArray):
        sides = tuple(retargeted(side, change) for side in lazy.sides)
        return DerivedArray(retargeted(lazy.base, change), lazy.made, sides)
    if isinstance(lazy, ImageArray):
        return ImageArray(retargeted(lazy._frames, change), lazy._tables, lazy._slots, lazy._fill)
    if isinstance(lazy, CalibratedArray):
        return CalibratedArray(retargeted(lazy.raw, change), lazy._tables, lazy._digest)
    inner = lazy.dims[2:] if lazy._panelled else lazy.dims[1:]
    return FrameArray(change(lazy.target), inner)


@dataclass(eq=False)
class DerivedFrames(Frames):
    """What a reduction of a `DerivedArray` reads.

    Parameters
    ----------
    made : DerivedArray
    """

    made: Any = None
    are_words: ClassVar[bool] = False

    @classmethod
    def of_derived(cls, made: DerivedArray) -> DerivedFrames:
        """Return what is read for an array."""
        base: Any = made.base
        base = base._frames if isinstance(base, ImageArray) else base
        return cls(base.raw if isinstance(base, CalibratedArray) else base, made=made)

    def __reduce__(self) -> tuple[Any, ...]:
        return DerivedFrames.of_derived, (self.made,)

    @property
    def panels(self) -> int:
        """One: the result."""
        return 1

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a result."""
        return tuple(self.made.shape[1:])

    @property
    def nbytes(self) -> int:
        """Raw bytes of an event."""
        return super().panels * math.prod(self.reader.panel_shape) * self.raw.dtype.itemsize

    def tiles(
        self, block: Block, buffers: Buffers, *, values: bool, later: Ints | None = None
    ) -> Iterator[Tile]:
        """Yield the results of a block; those of large frames a few at a time, in order."""
        del values
        if later is not None:
            self._announce(later)
        count = len(block.events)
        if self.nbytes >= LARGE_BYTES:  # smaller ones of several bins come together: `Work.together`
            result = self.pixels * self.made.dtype.itemsize
            count = int(np.clip(RESULT_BYTES // max(1, result), together(self.made.base), LEAF))
        for first in range(0, len(block.events), count):
            part = slice(first, min(first + count, len(block.events)))
            yield from self._parts_of(block, part, self._results(block.events[part], buffers))

    def _results(self, events: Ints, buffers: Buffers) -> NDArray[Any]:
        """Return what is made of some events, (event, value of a result), in a buffer."""
        out = buffers.array("results", (len(events), self.pixels), self.made.dtype)
        size = together(self.made.base)
        for first in range(0, len(events), size):
            some = events[first : first + size]
            out[first : first + len(some)] = self.made.of(some, buffers).reshape(len(some), -1)
        return out

    def _parts_of(self, block: Block, part: slice, rows: NDArray[Any]) -> Iterator[Tile]:
        """Cut results into tiles that stay in the cache while they are accumulated."""
        use = any_panel(self.reader.present(block.events[part]))
        start, weights = block.start + part.start, block.weights[part]
        size = max(1, TILE_BYTES // (len(rows) * rows.dtype.itemsize))
        for first in range(0, self.pixels, size):
            count = min(size, self.pixels - first)
            yield Tile(rows, None, first, count, 0, first, use, weights, start)

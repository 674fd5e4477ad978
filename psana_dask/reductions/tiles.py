"""The events of a reduction, read and calibrated tile by tile through buffers that are reused.

A tile is some rows of one panel in consecutive events, small enough for the cache.  Raw words
come straight from the files by a compiled kernel where the reader can say where they lie, else
panel by panel through `FrameReader.read_into`; both give the same tiles.
Contract: tests/reductions/test_formats.py.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from psana_dask.calib.apply import Tables, apply
from psana_dask.calibrated import CalibratedArray
from psana_dask.errors import ReadError
from psana_dask.fields import FrameReader
from psana_dask.pipeline import FrameArray
from psana_dask.reductions.leaves import LEAF
from psana_dask.sources import FileSource, Source

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

TILE_BYTES = 3 * 2**20
"""Raw bytes of a tile of all its events: what stays in the cache while it is added."""

BLOCK_BYTES = 4 * 2**20
"""Events are read together up to this size, and at least a leaf of them."""

LARGE_BYTES = 32 * 1024
"""Panels from this size on are read one by one; smaller ones many at once, through a window."""

MOST_EVENTS = 1 << 13
"""Exact sums of 16-bit words have room for eight such blocks in 32 bits."""

AHEAD_BYTES = 256 * 1024
"""Frames from this size on are announced to the system one block ahead, for files that are not cached."""


@dataclass(frozen=True, eq=False)
class Tile:
    """Some pixels of one panel in consecutive events of a reduction.

    Parameters
    ----------
    raw : (event, column) array
        Words as they are in the file; garbage where `use` is False.
    values : (event, column) float32, optional
        Calibrated, if that was asked for.
    column, count : int
        The pixels are the columns [column, column + count).
    panel : int
        Position of the panel.
    at : int
        Position of the first pixel among those of all panels.
    use : (event,) bool
        Which events have the panel.
    weights : (event,) float64
    start : int
        Events of the reduction that came before.
    """

    raw: NDArray[Any]
    values: NDArray[Any] | None
    column: int
    count: int
    panel: int
    at: int
    use: Bools
    weights: NDArray[np.float64]
    start: int

    @property
    def shown(self) -> NDArray[Any]:
        """Calibrated values, or the words where nothing is calibrated."""
        return self.raw if self.values is None else self.values


@dataclass(frozen=True, eq=False)
class Block:
    """Consecutive events of a reduction.

    Parameters
    ----------
    events : (event,) int64
        Event numbers.
    weights : (event,) float64
    start : int
        Events of the reduction that came before.
    """

    events: Ints
    weights: NDArray[np.float64]
    start: int


class Buffers:
    """Memory that one task uses again and again: fresh memory costs more than the work."""

    def __init__(self) -> None:
        self._kept: dict[str, NDArray[np.uint8]] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return an array of any contents, the same memory for the same name."""
        size = math.prod(shape) * dtype.itemsize
        if name not in self._kept or self._kept[name].size < size:
            self._kept[name] = np.empty(size, np.uint8)
        return self._kept[name][:size].view(dtype).reshape(shape)


@dataclass(eq=False)
class Frames:
    """What a reduction reads: frames as they are in the file, or calibrated.

    Parameters
    ----------
    raw : FrameArray
    tables : Tables, optional
        None: words are values.
    """

    raw: FrameArray
    tables: Tables | None = None
    _parts: dict[tuple[int, int], Tables] = field(default_factory=dict, repr=False)

    are_words: ClassVar[bool] = True
    # tiles hold what the file holds, which can be added up exactly

    @classmethod
    def of(cls, lazy: FrameArray | CalibratedArray) -> Frames:
        """Return what a lazy array reads."""
        if isinstance(lazy, CalibratedArray):
            return cls(lazy.raw, lazy._tables)
        return cls(lazy)

    def __reduce__(self) -> tuple[Any, ...]:
        return Frames, (self.raw, self.tables)

    @cached_property
    def reader(self) -> FrameReader:
        """What reads them in this process."""
        return self.raw.frame_reader()

    @property
    def panels(self) -> int:
        """How many panels an event has; 1 if they are no dimension."""
        return len(self.reader.panels)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a panel."""
        return self.reader.panel_shape

    @property
    def pixels(self) -> int:
        """Pixels of a panel."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Raw bytes of an event."""
        return self.panels * self.pixels * self.raw.dtype.itemsize

    @property
    def block(self) -> int:
        """How many events are read together: whole leaves."""
        fitting = min(MOST_EVENTS, BLOCK_BYTES // max(1, self.nbytes))
        return max(LEAF, fitting // LEAF * LEAF)

    def tiles(
        self, block: Block, buffers: Buffers, *, values: bool, later: Ints | None = None
    ) -> Iterator[Tile]:
        """Yield the tiles of a block of events, panel after panel.

        Parameters
        ----------
        block : Block
        buffers : Buffers
            Tiles lie in them: use a tile before asking for the next.
        values : bool
            Calibrate: tiles are whole panels then (or whole events, where they must be).
        later : (event,) int64, optional
            Events that will be wanted next.
        """
        if later is not None and self.nbytes >= AHEAD_BYTES:
            self._announce(later)
        if values and self.tables is not None:
            yield from self._group_tiles(block, buffers, self.tables)
        elif self.pixels * self.raw.dtype.itemsize < LARGE_BYTES:
            yield from self._group_tiles(block, buffers, None)
        else:
            yield from self._raw_tiles(block, buffers)

    def _raw_tiles(self, block: Block, buffers: Buffers) -> Iterator[Tile]:
        """Read large panels by the kernel, if it can."""
        sources, which, offsets = self._places(block.events)
        with ExitStack() as stack:
            lent = [stack.enter_context(s.descriptor()) for s in sources if isinstance(s, FileSource)]
            if which is None or offsets is None or len(lent) < len(sources) or any(d < 0 for d in lent):
                yield from self._group_tiles(block, buffers, None)
                return
            descriptors = np.array([*lent, -1], np.int32)[which]
            for panel in range(self.panels):
                places_of = (descriptors[:, panel], offsets[:, panel])
                for tile, failed in self._read_tiles(block, buffers, panel, *places_of):
                    if failed >= 0:
                        raise self._short(sources[which[failed, panel]], int(offsets[failed, panel]))
                    yield tile

    def _read_tiles(
        self, block: Block, buffers: Buffers, panel: int, descriptors: NDArray[np.int32], offsets: Ints
    ) -> Iterator[tuple[Tile, int]]:
        """Read one panel of a block, some pixels at a time, into one buffer; say which event failed."""
        from psana_dask.reductions.kernels import read_rows

        each = self.raw.dtype.itemsize
        size = min(self.pixels, max(1, TILE_BYTES // (len(block.events) * each)))
        buffer = buffers.array("words", (len(block.events), size * each), np.dtype(np.uint8))
        words, use = buffer.view(self.raw.dtype), descriptors >= 0
        for first in range(0, self.pixels, size):
            count = min(size, self.pixels - first)
            failed = read_rows(descriptors, offsets + first * each, count * each, buffer)
            at = panel * self.pixels + first
            yield Tile(words, None, 0, count, panel, at, use, block.weights, block.start), failed

    def _short(self, source: Source, offset: int) -> ReadError:
        """Return the error of a panel that could not be read."""
        try:
            source.read_into(offset, np.empty(self.pixels * self.raw.dtype.itemsize, np.uint8))
        except ReadError as error:
            return error
        return ReadError(f"{source.name}: byte {offset} could not be read for a moment: try again")

    def _group_tiles(self, block: Block, buffers: Buffers, tables: Tables | None) -> Iterator[Tile]:
        """Read some panels at a time through the reader, calibrate them, and yield each."""
        present = self.reader.present(block.events)
        each = max(1, len(block.events) * self.pixels * self.raw.dtype.itemsize)
        whole = tables is not None and tables.unit == "event"
        size = self.panels if whole else int(np.clip(BLOCK_BYTES // each, 1, self.panels))
        for first in range(0, self.panels, size):
            panels = np.arange(first, min(self.panels, first + size))
            shape = (len(block.events), len(panels), *(self.shape or (1,)))
            buffer = buffers.array("words", shape, self.raw.dtype)
            self.reader.read_into(block.events, panels, slice(None), buffer)
            words = buffer.reshape(len(buffer), -1)
            values = None if tables is None else self._calibrated(buffer, panels, buffers)
            for number, panel in enumerate(panels.tolist()):
                place = (number * self.pixels, self.pixels, panel, panel * self.pixels)
                yield Tile(words, values, *place, present[:, panel], block.weights, block.start)

    def _calibrated(self, words: NDArray[Any], panels: Ints, buffers: Buffers) -> NDArray[np.float32]:
        tables = self._tables_of(panels)
        out = buffers.array("values", (len(words), *tables.shape), np.dtype(np.float32))
        return apply(words.reshape(out.shape), tables, out).reshape(len(words), -1)

    def _tables_of(self, panels: Ints) -> Tables:
        """Return the tables of some panels, cut once."""
        if self.tables is None:
            raise ValueError("nothing to calibrate with")
        if len(panels) == self.panels:
            return self.tables
        key = (int(panels[0]), len(panels))
        if key not in self._parts:
            self._parts[key] = self.tables.region(panels=panels.tolist())
        return self._parts[key]

    def _places(self, events: Ints) -> tuple[list[Source], NDArray[np.int32] | None, Ints | None]:
        """Return where panels lie; nothing if the reader has to decode them."""
        if type(self.reader).read_into is not FrameReader.read_into:
            return [], None, None
        return self.reader.places(events)

    def _announce(self, events: Ints) -> None:
        """Ask the system to read events that are wanted soon."""
        sources, which, offsets = self._places(events)
        if which is None or offsets is None or not hasattr(os, "posix_fadvise"):
            return
        size = self.pixels * self.raw.dtype.itemsize
        for number, source in enumerate(sources):
            if isinstance(source, FileSource):
                with source.descriptor() as descriptor:
                    for offset in offsets[which == number].tolist() if descriptor >= 0 else ():
                        os.posix_fadvise(descriptor, offset, size, os.POSIX_FADV_WILLNEED)

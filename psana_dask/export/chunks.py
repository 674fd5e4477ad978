"""The chunks of a piece, one after the other, in memory that each thread uses again: fresh memory is slow."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from psana_dask.export.codecs import STRIP_BYTES, Chunk, room
from psana_dask.export.plan import Piece
from psana_dask.fields import FrameReader, missing_value
from psana_dask.model import Array
from psana_dask.pipeline import FrameArray
from psana_dask.sources import Source
from psana_dask.variables import lazy_part

Ints = npt.NDArray[np.int64]

BLOCK_BYTES = 16 * 2**20
"""Bytes that are read at once, about, where values are computed: larger memory is always fresh."""


def chunks(variable: Any, piece: Piece) -> Iterator[Chunk]:
    """Yield the chunks of a piece, (chunk rows, ...); the last one is filled up with zeros.

    A chunk holds until the next one is asked for.
    """
    frames = frames_of(variable, piece)
    if frames is not None:
        yield from frames.chunks(piece.column.chunk)
        return
    for block in _blocks(variable, piece):
        for first in range(0, len(block), piece.column.chunk):
            yield InMemory(_filled(block[first : first + piece.column.chunk], piece.column.chunk))


@dataclass(frozen=True, eq=False)
class InMemory:
    """A chunk whose values were computed."""

    values: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """(row, ...)."""
        return self.values.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values."""
        return self.values.dtype

    def whole(self) -> Array:
        """Return the values."""
        return self.values

    def strips(self) -> Iterator[Array]:
        """Yield the bytes in strips."""
        flat = self.values.reshape(-1).view(np.uint8)
        for first in range(0, flat.size, STRIP_BYTES):
            yield flat[first : first + STRIP_BYTES]


def _blocks(variable: Any, piece: Piece) -> Iterator[Array]:
    """Read a piece block by block: rows of whole chunks."""
    column = piece.column
    row_bytes = max(1, variable.nbytes // max(1, len(variable)))
    rows = column.chunk * max(1, BLOCK_BYTES // (column.chunk * row_bytes))
    for first in range(piece.start, piece.stop, rows):
        values = variable[first : min(first + rows, piece.stop)].values
        kept = values.astype(np.int8) if values.dtype.kind == "b" else values  # as files have it
        yield np.ascontiguousarray(kept)


def _filled(rows: Array, chunk: int) -> Array:
    if len(rows) == chunk:
        return rows
    filled = np.zeros((chunk, *rows.shape[1:]), rows.dtype)
    filled[: len(rows)] = rows
    return filled


@dataclass(frozen=True)
class Frames:
    """Frames that lie in files as they are, and where: looked up once for a whole piece.

    Parameters
    ----------
    shape : tuple of int
        Of one row: (panel, row, col) or what there is of these.
    dtype : numpy.dtype
    sources : list of Source
    which : (event, panel) int32
        Position in `sources`; -1: missing.
    offsets : (event, panel) int64
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    sources: list[Source]
    which: npt.NDArray[np.int32]
    offsets: Ints

    def chunks(self, chunk: int) -> Iterator[Chunk]:
        """Yield chunks of so many rows."""
        panels = chunk * math.prod(self.which.shape[1:])
        where = np.full((2, -(-len(self.which) // chunk) * panels), NOTHING)
        where[:, : self.which.size] = self.which.reshape(-1), self.offsets.reshape(-1)
        shape = (chunk, *self.shape)
        size = math.prod(shape) * self.dtype.itemsize // max(1, panels)
        layout = Layout(shape, self.dtype, self.sources, _cuts(panels, size, STRIP_BYTES))
        for which, offsets in where.reshape(2, -1, panels).swapaxes(0, 1):
            yield InFiles(layout, which, offsets)


NOTHING = -2
"""Instead of a position in the sources: a row behind the last one, zeros."""


@dataclass(frozen=True, eq=False)
class Cut:
    """What one strip of a chunk is made of.

    Parameters
    ----------
    panels : slice
        Of the chunk.
    starts, sizes, places : (panel,) int64
        Bytes of the panel, how many, and where in the strip.
    """

    panels: slice
    starts: Ints
    sizes: Ints
    places: Ints


def _cuts(panels: int, size: int, strip: int) -> list[Cut]:
    """Return how the panels of a chunk lie in strips."""
    total = panels * size
    edges = np.unique([*range(0, total, strip), *range(0, total, max(1, size)), total])
    first, sizes = edges[:-1], np.diff(edges)
    panel, number = first // max(1, size), first // strip
    bounds = np.searchsorted(number, np.arange(-(-total // strip) + 1)).tolist()
    return [
        Cut(slice(int(panel[a]), int(panel[b - 1]) + 1), first[a:b] % size, sizes[a:b], first[a:b] % strip)
        for a, b in itertools.pairwise(bounds)
    ]


@dataclass(frozen=True, eq=False)
class Layout:
    """What the chunks of a piece have in common.

    Parameters
    ----------
    shape : tuple of int
        Of a chunk: (row, ...).
    dtype : numpy.dtype
    sources : list of Source
    cuts : list of Cut
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    sources: list[Source]
    cuts: list[Cut]

    def read(self, which: Ints, offsets: Ints, sizes: Ints, out: Array, places: Ints) -> None:
        """Read bytes of some panels to places of `out`; NaN or 0 where a panel is missing."""
        for number in dict.fromkeys(which.tolist()):
            mine = slice(None) if (which == number).all() else which == number
            if number >= 0:
                self.sources[number].read_pieces(offsets[mine], sizes[mine], out, places[mine])
                continue
            value = missing_value(self.dtype) if number > NOTHING else 0
            for place, size in zip(places[mine].tolist(), sizes[mine].tolist(), strict=True):
                out[place : place + size].view(self.dtype)[:] = value


@dataclass(frozen=True, eq=False)
class InFiles:
    """A chunk of frames that lie in files as they are.

    Parameters
    ----------
    layout : Layout
    which, offsets : (panel,) int64
        Of the panels of all its rows.
    """

    layout: Layout
    which: Ints
    offsets: Ints

    @property
    def shape(self) -> tuple[int, ...]:
        """(row, ...)."""
        return self.layout.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values."""
        return self.layout.dtype

    def whole(self) -> Array:
        """Read all values into memory that this thread uses again."""
        nbytes = math.prod(self.shape) * self.dtype.itemsize
        out = room("chunk", nbytes)
        size = nbytes // max(1, len(self.which))
        places = np.arange(len(self.which)) * size
        self.layout.read(self.which, self.offsets, np.full(len(self.which), size), out, places)
        return out.view(self.dtype).reshape(self.shape)

    def strips(self) -> Iterator[Array]:
        """Read strip by strip, each into the same memory."""
        for cut in self.layout.cuts:
            out = room("strip", int(cut.sizes.sum()))
            which, offsets = self.which[cut.panels], self.offsets[cut.panels] + cut.starts
            self.layout.read(which, offsets, cut.sizes, out, cut.places)
            yield out


def frames_of(variable: Any, piece: Piece) -> Frames | None:
    """Return where the frames of a piece lie; None where they are computed, decoded or cut."""
    found = lazy_part(variable)
    if found is None:
        return None
    lazy, key = found
    if not isinstance(lazy, FrameArray) or variable.ndim != lazy.ndim:
        return None
    reader = lazy.frame_reader()
    panels, inner = (key[1], key[2:]) if reader.segmented else (slice(None), key[1:])
    if not _as_it_is(reader) or any(
        not _is_whole(k, n) for k, n in zip(inner, reader.panel_shape, strict=True)
    ):
        return None
    events = lazy.numbers(key[0])[piece.start : piece.stop]
    sources, which, offsets = reader.places(events)
    return Frames(piece.column.shape[1:], reader.dtype, sources, which[:, panels], offsets[:, panels])


def _as_it_is(reader: FrameReader) -> bool:
    return not reader.decoded and reader.dtype.kind in "iuf"


def _is_whole(index: Any, length: int) -> bool:
    return isinstance(index, slice) and index.indices(length) == (0, length, 1)

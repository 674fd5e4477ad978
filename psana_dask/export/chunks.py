"""The chunks of a piece, one after the other, in memory that each thread uses again: fresh memory is slow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from psana_dask.export.codecs import room
from psana_dask.export.plan import Piece
from psana_dask.fields import FrameReader, missing_value
from psana_dask.model import Array
from psana_dask.pipeline import FrameArray
from psana_dask.sources import Source
from psana_dask.variables import lazy_part

Ints = npt.NDArray[np.int64]

BLOCK_BYTES = 16 * 2**20
"""Bytes that are read at once, about, where values are computed: larger memory is always fresh."""


def chunks(variable: Any, piece: Piece) -> Iterator[Array]:
    """Yield the chunks of a piece, (chunk rows, ...), C-contiguous; the last one is filled up with zeros.

    A chunk holds until the next one is asked for.
    """
    frames = frames_of(variable, piece)
    if frames is not None:
        yield from frames.chunks(piece.column.chunk)
        return
    for block in _blocks(variable, piece):
        for first in range(0, len(block), piece.column.chunk):
            yield _filled(block[first : first + piece.column.chunk], piece.column.chunk)


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

    def chunks(self, chunk: int) -> Iterator[Array]:
        """Read chunk by chunk into the same memory."""
        nbytes = chunk * int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize
        out = room("chunk", nbytes).view(self.dtype).reshape(chunk, *self.shape)
        for first in range(0, len(self.which), chunk):
            rows = slice(first, min(first + chunk, len(self.which)))
            self._read(rows, out[: rows.stop - first])
            out[rows.stop - first :] = 0
            yield out

    def _read(self, events: slice, out: Array) -> None:
        which, offsets = self.which[events].reshape(-1), self.offsets[events].reshape(-1)
        panels = out.reshape(len(which), -1)
        size = panels.shape[1] * self.dtype.itemsize
        for number in np.unique(which).tolist():
            mine = np.flatnonzero(which == number)
            if number < 0:
                panels[mine] = missing_value(self.dtype)
            else:
                sizes = np.full(len(mine), size)
                flat = panels.reshape(-1).view(np.uint8)
                self.sources[number].read_pieces(offsets[mine], sizes, flat, mine * size)


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

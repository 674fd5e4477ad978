"""The fused pass: arrays that read, and later calibrate and assemble, exactly what is asked.

A lazy array knows its shape and how to fill any part of it.  It travels by value: the
files, their token, a channel and a choice of events; each process opens the index once.
Indexing is orthogonal (one slice, integer or integer array per dimension).  Contract:
tests/test_pipeline.py.
"""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import Any

import numpy as np
import numpy.typing as npt

from psana_dask import exported_fields, fields, payload_fields
from psana_dask.catalog import Catalog, Channel
from psana_dask.choice import Choice
from psana_dask.errors import ReadError
from psana_dask.exported_fields import ExportCatalog
from psana_dask.fields import FrameReader, RaggedReader, Reader, StringReader, any_panel
from psana_dask.files import RunFiles
from psana_dask.indexing import Key, bounds, full_key, listed, scalar
from psana_dask.model import Array
from psana_dask.options import current
from psana_dask.recording import Recording, open_recording

Ints = npt.NDArray[np.int64]

SCALAR_CHUNK = 65536
"""Most events in a chunk of scalars, and of whatever is not larger than SMALL."""

SMALL = 1024
"""Bytes per event below which a value counts as a scalar."""

MOST_FRAMES = 64
TILE_BYTES = 4 * 2**20
"""Bytes of whole rows that are read at once when only some columns are wanted."""


@dataclass(frozen=True)
class Target:
    """What a lazy array reads from: enough to find it again in another process.

    Parameters
    ----------
    files : RunFiles
    token : str
        Of the recording.
    channel : tuple of str
        Detector, algorithm, field, as in the file.
    choice : Choice
    keep_damaged : bool
    held : Recording, optional
        The recording itself where it cannot be opened again: that of a live run.
    """

    files: RunFiles
    token: str
    channel: tuple[str, str, str]
    choice: Choice
    keep_damaged: bool = False
    held: Recording | None = dataclass_field(default=None, compare=False, repr=False)

    @property
    def digest(self) -> str:
        """Hash of all that decides the values."""
        text = "|".join((self.token, *self.channel, self.choice.digest, str(self.keep_damaged)))
        return hashlib.sha256(text.encode()).hexdigest()[:24]

    def reader(self) -> Reader:
        """Return the reader, made once per process."""
        recording = self.held or open_recording(self.files, self.token)
        reader = channel_reader(recording, self.channel, self.keep_damaged)
        if reader is None:
            raise ReadError(f"no event has {'.'.join(self.channel)}")
        return reader


def catalog_of(recording: Recording) -> Catalog:
    """Return the catalog of a recording, made once."""
    memory = _memory(recording)
    if "catalog" not in memory:
        memory["catalog"] = (ExportCatalog if recording.format == "export" else Catalog)(recording)
    catalog: Catalog = memory["catalog"]
    return catalog


def channel_reader(recording: Recording, channel: tuple[str, str, str], keep_damaged: bool) -> Reader | None:
    """Return the reader of a channel, made once; None if no event has it."""
    memory = _memory(recording)
    key = (channel, keep_damaged)
    if key not in memory:
        reader_of = READERS[recording.format]
        memory[key] = reader_of(recording, _channel(recording, channel), keep_damaged=keep_damaged)
    reader: Reader | None = memory[key]
    return reader


READERS = {
    "xtc2": fields.reader_of,
    "xtc": payload_fields.reader_of,
    "export": exported_fields.reader_of,
}
"""What reads the channels of each format."""


def _memory(recording: Recording) -> dict[Any, Any]:
    """Return what was worked out for a recording; it goes when the recording goes."""
    return recording.__dict__.setdefault("_memory", {})


def forget_worked_out(recording: Recording) -> None:
    """Drop the catalog and the readers of a recording; they are made again when they are wanted."""
    recording.__dict__.pop("_memory", None)


def _channel(recording: Recording, wanted: tuple[str, str, str]) -> Channel:
    for entry in catalog_of(recording).detectors.values():
        for channel in entry.channels.values():
            if channel.id == wanted:
                return channel
    raise ReadError(f"the run has no {'.'.join(wanted)}: open it again")


class LazyArray(ABC):
    """An array that is read when it is indexed.

    Attributes
    ----------
    dims : tuple of str
    shape : tuple of int
    dtype : numpy.dtype
    """

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __init__(self, target: Target) -> None:
        self.target = target

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def token(self) -> str:
        """Hash of the values, for deterministic graphs."""
        return f"{type(self).__name__}-{self.target.digest}-{self.ndim}"

    @property
    def name(self) -> str:
        """Detector and field, as the file names them."""
        return "_".join(self.target.channel)

    def __dask_tokenize__(self) -> str:
        return self.token

    @abstractmethod
    def read(self, key: Key) -> Array:
        """Return the part that `key` (one index per dimension) picks."""

    def __getitem__(self, key: Any) -> Array:
        return self.read(full_key(key, self.ndim))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.asarray(self[...], dtype)

    def chunks(self, chunks: Any = "auto") -> tuple[tuple[int, ...], ...]:
        """Return explicit chunks: "auto", {} or None for ours, else a mapping of dim to size."""
        if chunks is None or (isinstance(chunks, str) and chunks == "auto"):
            chunks = {}
        elif not isinstance(chunks, Mapping):
            chunks = {self.dims[0]: chunks}
        ours = self.preferred_chunks
        sizes = ours | {d: c for d, c in dict(chunks).items() if d in self.dims}
        return tuple(_split(n, sizes[d], ours[d]) for d, n in zip(self.dims, self.shape, strict=True))

    @property
    def preferred_chunks(self) -> dict[str, int]:
        """Size of a natural chunk along each dimension: whole frames, never split."""
        each = max(1, int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize)
        most = MOST_FRAMES if "row" in self.dims or each > SMALL else SCALAR_CHUNK
        fitting = int(np.clip(current().chunk_bytes // each, 1, most))
        first = 1 << (fitting.bit_length() - 1)
        return {d: max(1, n) for d, n in zip(self.dims, (first, *self.shape[1:]), strict=True)}


def _split(length: int, size: Any, preferred: int) -> tuple[int, ...]:
    """Return the chunk sizes of one dimension."""
    if isinstance(size, tuple):
        return size
    if size is None or size == -1:
        size = max(1, length)
    elif size == "auto":
        size = preferred
    elif not isinstance(size, int | np.integer) or size < 1:
        raise ValueError(f'a chunk of {size!r}: use "auto", -1 (all), a number above 0, or a tuple of sizes')
    whole, rest = divmod(length, size)
    return (size,) * whole + ((rest,) if rest or not length else ())


class EventArray(LazyArray):
    """A lazy array whose first dimension is ``time``."""

    def numbers(self, key: Any) -> Ints:
        """Return the event numbers that an index along time picks."""
        return np.atleast_1d(self.target.choice.numbers[key])


class FrameArray(EventArray):
    """Values of fixed shape: scalars, waveforms, frames; (time[, panel][, row[, col]]).

    Parameters
    ----------
    target : Target
    dims : tuple of str, optional
        Names of the dimensions within a panel; by default names that nothing else has.
    """

    def __init__(self, target: Target, dims: tuple[str, ...] | None = None) -> None:
        super().__init__(target)
        reader = self.frame_reader()
        self.dtype = reader.dtype
        self._panelled = reader.segmented
        panels = (len(reader.panels),) if self._panelled else ()
        self._panel_shape = reader.panel_shape
        self.shape = (len(target.choice), *panels, *reader.panel_shape)
        names = dims or sample_dims(stem_of(target), reader.panel_shape)
        self.dims = ("time", *(("panel",) if self._panelled else ()), *names)

    def frame_reader(self) -> FrameReader:
        """Return what reads the frames in this process."""
        reader = self.target.reader()
        if not isinstance(reader, FrameReader):
            raise ReadError(f"{self.name} has no fixed shape any more: open the run again")
        return reader

    def read(self, key: Key) -> Array:
        """Read exactly the events, panels and rows that `key` picks; columns are cut from whole rows."""
        events = self.numbers(key[0])
        inner = key[2:] if self._panelled else key[1:]
        panels = np.arange(self.shape[1] if self._panelled else 1)
        if self._panelled:
            panels = np.atleast_1d(panels[key[1]])
        rows, row_rest = bounds(inner[0], self._panel_shape[0]) if inner else (slice(0, 1), None)
        columns = tuple(listed(k) for k in inner[1:])
        out = self._read_rows(events, panels, rows, columns)
        if row_rest is not None:
            out = out[:, :, row_rest]
        picked = [scalar(key[0])]
        picked += [scalar(key[1])] if self._panelled else [0]
        picked += [scalar(k) for k in inner]
        return out[tuple(picked)]

    def _read_rows(self, events: Ints, panels: Ints, rows: slice, columns: Key) -> Array:
        """Return (event, panel, row, columns...)."""
        whole = all(isinstance(c, slice) and c == slice(None) for c in columns)
        height = (rows.stop - rows.start,) if self._panel_shape else ()
        frame = (len(panels), *height, *self._panel_shape[1:])
        if whole:
            out = np.empty((len(events), *frame), self.dtype)
            self.frame_reader().read_into(events, panels, rows, out)
            return out
        return self._cut_columns(events, panels, rows, columns, frame)

    def _cut_columns(
        self, events: Ints, panels: Ints, rows: slice, columns: Key, frame: tuple[int, ...]
    ) -> Array:
        """Read whole rows tile by tile into one buffer and keep the columns that are wanted."""
        reader = self.frame_reader()
        bytes_each = int(np.prod(frame, dtype=np.int64)) * self.dtype.itemsize
        tile = max(1, min(len(events), TILE_BYTES // max(1, bytes_each)))
        buffer = np.empty((tile, *frame), self.dtype)
        cut = _cut(buffer[:0], columns).shape[3:]
        out = np.empty((len(events), *frame[:2], *cut), self.dtype)
        for first in range(0, len(events), tile):
            some = events[first : first + tile]
            reader.read_into(some, panels, rows, buffer[: len(some)])
            out[first : first + tile] = _cut(buffer[: len(some)], columns)
        return out


def _cut(values: Array, columns: Key) -> Array:
    """Pick columns, (event, panel, row, columns...), one dimension after the other: lists do not pair up."""
    for axis, index in enumerate(columns, start=3):
        values = values[(slice(None),) * axis + (index,)]
    return values


class StringArray(EventArray):
    """Text, one value per event and segment."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        reader = self._reader()
        self.dtype = reader.dtype
        self._panelled = reader.segmented
        self.shape = (len(target.choice), *((len(reader.panels),) if self._panelled else ()))
        self.dims = ("time", *(("panel",) if self._panelled else ()))

    def _reader(self) -> StringReader:
        reader = self.target.reader()
        assert isinstance(reader, StringReader)  # noqa: S101  (the catalog says it is text)
        return reader

    def read(self, key: Key) -> Array:
        """Read the text of the events that `key` picks."""
        out = self._reader().read(self.numbers(key[0]))
        out = out[:, listed(key[1])] if self._panelled else out[:, 0]
        return out[scalar(key[0])] if not self._panelled else out[scalar(key[0]), scalar(key[1])]


class PresenceArray(EventArray):
    """Which events, or which panels of them, have the channel; from the index alone.

    Parameters
    ----------
    target : Target
    per_panel : bool
    """

    dtype = np.dtype(bool)

    def __init__(self, target: Target, *, per_panel: bool) -> None:
        super().__init__(target)
        self._per_panel = per_panel
        panels = len(target.reader().panels) if per_panel else 0
        self.shape = (len(target.choice), panels) if per_panel else (len(target.choice),)
        self.dims = ("time", "panel") if per_panel else ("time",)

    def read(self, key: Key) -> Array:
        """Look the events up in the index."""
        found = self.target.reader().present(self.numbers(key[0]))
        if not self._per_panel:
            return any_panel(found)[scalar(key[0])]
        return found[:, listed(key[1])][scalar(key[0]), scalar(key[1])]


class DamageArray(EventArray):
    """Damage word of each event of a channel; from the index alone."""

    dtype = np.dtype(np.uint32)
    dims = ("time",)

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self.shape = (len(target.choice),)

    def read(self, key: Key) -> Array:
        """Look the events up in the index."""
        return self.target.reader().events.damage(self.numbers(key[0]))[scalar(key[0])]


class CountArray(EventArray):
    """Number of items of each event of a ragged channel; from the index alone."""

    dtype = np.dtype(np.int64)

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        reader = ragged_reader(target)
        self._panelled = reader.segmented
        self.shape = (len(target.choice), *((len(reader.panels),) if self._panelled else ()))
        self.dims = ("time", "panel") if self._panelled else ("time",)

    def read(self, key: Key) -> Array:
        """Look the events up in the index."""
        counts = ragged_reader(self.target).counts(self.numbers(key[0]))
        if not self._panelled:
            return counts.sum(axis=1)[scalar(key[0])]
        return counts[:, listed(key[1])][scalar(key[0]), scalar(key[1])]


class ItemArray(LazyArray):
    """All items of a ragged channel, event after event (CF contiguous ragged array).

    Parameters
    ----------
    target : Target
    dim : str
        Name of the item dimension.
    stem : str
        What the names of dimensions within an item begin with.
    """

    def __init__(self, target: Target, dim: str, stem: str = "") -> None:
        super().__init__(target)
        reader = ragged_reader(target)
        self.dtype = reader.dtype
        self._ends = np.cumsum(reader.counts(target.choice.numbers).sum(axis=1))
        self.shape = (int(self._ends[-1]) if len(self._ends) else 0, *reader.item_shape)
        inner = reader.dims or sample_dims(stem or stem_of(target), reader.item_shape)
        self.dims = (dim, *inner)

    @property
    def preferred_chunks(self) -> dict[str, int]:
        """Chunks of about the size that frames have."""
        item_bytes = int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize
        items = max(1, current().chunk_bytes // item_bytes)
        return dict(zip(self.dims, (items, *self.shape[1:]), strict=True))

    def read(self, key: Key) -> Array:
        """Read the events that hold the items that `key` picks."""
        items, rest = bounds(key[0], self.shape[0])
        if items.stop <= items.start:
            return np.zeros((0, *self.shape[1:]), self.dtype)[(slice(None), *key[1:])]
        start, stop = np.searchsorted(self._ends, [items.start, items.stop - 1], side="right")
        values = ragged_reader(self.target).read(self.target.choice.numbers[start : stop + 1])
        before = int(self._ends[start - 1]) if start else 0
        values = values[items.start - before : items.stop - before]
        values = values if rest is None else values[rest]
        for axis in reversed(range(1, len(key))):
            values = values[(slice(None),) * axis + (key[axis],)]
        return values[scalar(key[0])]


def ragged_reader(target: Target) -> RaggedReader:
    """Return the reader of a ragged channel."""
    reader = target.reader()
    if not isinstance(reader, RaggedReader):
        raise ReadError(f"{'.'.join(target.channel)} is not ragged any more: open the run again")
    return reader


def sample_dims(stem: str, shape: tuple[int, ...]) -> tuple[str, ...]:
    """Name the dimensions of an array field that is no frame: unique, so that nothing aligns by chance."""
    return tuple(f"{stem}_{k}" for k in range(len(shape)))


def stem_of(target: Target) -> str:
    """Return what names of dimensions begin with, where nothing better is known."""
    detector, algorithm, field = target.channel
    words = (detector, field) if algorithm == "raw" else (detector, algorithm, field)
    return re.sub(r"\W", "_", "_".join(words))


def lazy_arrays(
    target: Target,
    field: str,
    frame: tuple[int, int] | None = None,
    stem: str = "",
    dims: tuple[str, ...] = (),
) -> Mapping[str, LazyArray]:
    """Return the lazy arrays of one channel: the values under `field`, counts if it is ragged.

    Parameters
    ----------
    target : Target
    field : str
        Public name.
    frame : (int, int), optional
        A channel of this shape has the dimensions row and col.
    stem : str
        What the names of other dimensions begin with.
    dims : tuple of str
        Names of the dimensions, where the format says them.
    """
    reader = target.reader()
    stem = stem or stem_of(target)
    if isinstance(reader, FrameReader):
        shape, dims = reader.panel_shape, reader.dims or dims
        if len(dims) == len(shape) > 0:
            return {field: FrameArray(target, dims)}
        return {field: FrameArray(target, ("row", "col") if shape == frame else sample_dims(stem, shape))}
    if isinstance(reader, StringReader):
        return {field: StringArray(target)}
    return {field: ItemArray(target, f"{field}_item", stem), f"{field}_count": CountArray(target)}

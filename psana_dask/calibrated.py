"""The fused pass over detectors: read, calibrate, assemble, one tile of events after another.

`CalibratedArray` and `ImageArray` are lazy arrays like those of `pipeline`; the constants
travel with them as tables, once per graph.  The step-by-step form (`calib.apply`,
`geometry.assembly`) calls the same kernels, so both give the same bits.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

from psana_dask.calib.apply import Tables, apply, common_mode
from psana_dask.calib.detectors import Decoding
from psana_dask.calib.gain import gain_range
from psana_dask.geometry import assembly
from psana_dask.geometry.assembly import AssemblyTables
from psana_dask.indexing import Key, listed, scalar
from psana_dask.model import Array
from psana_dask.pipeline import EventArray, FrameArray

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

TILE = 16
"""Events that go through the kernels together: constants are then read from the cache."""


class CalibratedArray(EventArray):
    """Calibrated frames, (time[, panel], row, col) float32; NaN where a panel is missing.

    Parameters
    ----------
    raw : FrameArray
        Frames as they are in the file.
    tables : calib.Tables, optional
        None: the raw values as floats (policy "warn" or "raw" without constants).
    digest : str
        Hash of the constants and choices that the tables were made from.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, raw: FrameArray, tables: Tables | None, digest: str) -> None:
        super().__init__(raw.target)
        self.raw = raw
        self.shape, self.dims = raw.shape, raw.dims
        self._tables, self._digest = tables, digest
        self._panelled = len(self.shape) == 4
        self._frame = self.shape[1:] if self._panelled else (1, *self.shape[1:])

    @property
    def token(self) -> str:
        """Hash of the values."""
        return f"{super().token}-{self._digest}"

    def read(self, key: Key) -> Array:
        """Calibrate the events that `key` picks; what its unit does not need is not read."""
        events = self.numbers(key[0])
        panels = np.arange(self._frame[0])
        wanted: Key = key[1:] if self._panelled else (0, *key[1:])
        if self._tables is None or self._tables.unit != "event":
            panels = np.atleast_1d(panels[wanted[0]])
        out = self.frames(events, panels)
        if len(panels) < self._frame[0]:
            wanted = (0 if isinstance(wanted[0], int | np.integer) else slice(None), *wanted[1:])
        time = 0 if isinstance(key[0], int | np.integer) else slice(None)
        return _orthogonal(out, (time, *wanted))

    def frames(self, events: Ints, panels: Ints) -> npt.NDArray[np.float32]:
        """Return (event, panel, row, col) of the given event numbers and panel positions."""
        out = np.empty((len(events), len(panels), *self._frame[1:]), np.float32)
        buffer = np.empty((min(TILE, len(events)), *out.shape[1:]), self.raw.dtype)
        self.frames_into(events, panels, out, buffer)
        return out

    def frames_into(
        self, events: Ints, panels: Ints, out: npt.NDArray[np.float32], buffer: npt.NDArray[Any]
    ) -> None:
        """Fill `out` (event, panel, row, col) through a buffer of words of fewer events."""
        reader, tables = self.raw.frame_reader(), self._restricted(panels)
        for first in range(0, len(events), len(buffer) or 1):
            some = events[first : first + len(buffer)]
            words, values = buffer[: len(some)], out[first : first + len(some)]
            reader.read_into(some, panels, slice(None), words)
            if tables is None:
                values[...] = words
            else:
                shape = (len(some), *tables.shape)
                self._write(words.reshape(shape), tables, values.reshape(shape))
            values[~reader.present(some)[:, panels]] = np.nan

    def _write(self, words: Array, tables: Tables, values: npt.NDArray[np.float32]) -> None:
        apply(words, tables, values)

    def _restricted(self, panels: Ints) -> Tables | None:
        if self._tables is None or len(panels) == self._frame[0]:
            return self._tables
        return self._tables.region(panels=panels.tolist())


class CommonModeArray(CalibratedArray):
    """What the common mode subtracts from each pixel, ADU; NaN where a panel is missing."""

    def _write(self, words: Array, tables: Tables, values: npt.NDArray[np.float32]) -> None:
        values[...] = common_mode(words, tables)


class GainRangeArray(EventArray):
    """Gain range of each word, int8; -1 where it is in none, or a panel is missing.

    Parameters
    ----------
    raw : FrameArray
    decoding : Decoding
    ranges : (2, [panel,] row, col) int8, optional
        That the settings allow each pixel, from `calib.gain.allowed_ranges`.
    """

    dtype = np.dtype(np.int8)

    def __init__(self, raw: FrameArray, decoding: Decoding, ranges: npt.NDArray[np.int8] | None) -> None:
        super().__init__(raw.target)
        self.raw, self._decoding = raw, decoding
        self._ranges = None if ranges is None else ranges.reshape(2, *raw.shape[1:])
        self.shape, self.dims = raw.shape, raw.dims

    def read(self, key: Key) -> Array:
        """Read the words that `key` picks and name their ranges."""
        words = self.raw.read((listed(key[0]), *key[1:]))
        ranges = None if self._ranges is None else _orthogonal(self._ranges, (slice(None), *key[1:]))
        found = gain_range(words, self._decoding, ranges)
        present = self.target.reader().present(self.numbers(key[0]))
        there = present[:, key[1]] if "panel" in self.dims else present[:, 0]
        found[~there] = -1
        return found[scalar(key[0])]


class ImageArray(EventArray):
    """Assembled images, (time, y, x); bins without data are NaN, or 0 for integers.

    Parameters
    ----------
    frames : FrameArray or CalibratedArray
        What is assembled.
    tables : geometry.AssemblyTables
    slots : (panel,) int64
        Panel of the geometry that each panel of the data is.
    fill : number, optional
        For bins without data, instead of NaN or 0; NaN makes floats of integers.
    """

    dims = ("time", "y", "x")

    def __init__(
        self,
        frames: FrameArray | CalibratedArray,
        tables: AssemblyTables,
        slots: Ints,
        fill: float | None = None,
    ) -> None:
        super().__init__(frames.target)
        self._frames, self._tables, self._slots, self._fill = frames, tables, slots, fill
        self.dtype = assembly.image_dtype(frames.dtype, fill)
        self.shape = (frames.shape[0], *tables.shape)

    @property
    def token(self) -> str:
        """Hash of the values."""
        return f"{super().token}-{self._frames.token}-{self._tables.key[:16]}-{self._fill}"

    @property
    def preferred_chunks(self) -> dict[str, int]:
        """As many events as the frames have in a chunk, and whole images."""
        return {"time": self._frames.preferred_chunks["time"], "y": self.shape[1], "x": self.shape[2]}

    def read(self, key: Key) -> Array:
        """Assemble the events that `key` picks; panels that do not show in the region are not read."""
        positions = np.atleast_1d(np.arange(self.shape[0])[key[0]])
        panels = self._showing(key[1], key[2])
        out = np.empty((len(positions), *self.shape[1:]), self.dtype)
        for first in range(0, len(positions), TILE):
            self._assemble(positions[first : first + TILE], panels, out[first : first + TILE])
        time = 0 if isinstance(key[0], int | np.integer) else slice(None)
        return _orthogonal(out, (time, key[1], key[2]))

    def _showing(self, rows: Any, cols: Any) -> Ints:
        """Return the panels of the data that may show in a region."""
        if not (isinstance(rows, slice) and isinstance(cols, slice)):
            return np.arange(len(self._slots))
        return np.flatnonzero(self._tables.touched(rows, cols)[self._slots])

    def _assemble(self, positions: Ints, panels: Ints, out: Array) -> None:
        frames, present = self._placed(positions, panels)
        assembly.apply(frames, self._tables, out, present=present, fill=self._fill)

    def _placed(self, positions: Ints, panels: Ints) -> tuple[Array, Bools]:
        """Return (event, panel, row, col) and (event, panel) with panels at their places in the geometry."""
        slots, events = self._slots[panels], self.target.choice.numbers[positions]
        count = self._tables.panels[0]
        if np.array_equal(slots, np.arange(count)):
            return self._panels(positions, panels), self.target.reader().present(events)
        frames = np.zeros((len(positions), *self._tables.panels), self._frames.dtype)
        present = np.zeros((len(positions), count), bool)
        if len(panels):
            frames[:, slots] = self._panels(positions, panels)
            present[:, slots] = self.target.reader().present(events)[:, panels]
        return frames, present

    def _panels(self, positions: Ints, panels: Ints) -> Array:
        if self._frames.ndim == 3:
            return self._frames[positions][:, None]
        return self._frames[positions, panels]


def _orthogonal(array: Array, key: Key) -> Array:
    """Index each dimension on its own."""
    for axis in reversed(range(len(key))):
        array = array[(slice(None),) * axis + (key[axis],)]
    return array


def digest_of(*parts: Any) -> str:
    """Return a hash of constants and choices, from their texts."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

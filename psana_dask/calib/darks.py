"""Dark runs: pedestals, noise and pixel status from frames without beam, streaming.

Two stages, as in LCLS's ``DarkProc`` (Detector ``UtilsCalib.py``, lcls2 ``UtilsCalib.py``).  The
first `gate_frames` frames are kept; per pixel their quantiles give a gate.  Then all frames,
those too, are summed inside the gate as integers, so the result does not depend on how the
frames were cut into blocks.  Memory: the kept frames and 35 bytes per pixel.

A multi-gain detector is processed per gain stage, one accumulator each; `stack_ranges` joins
the stages.  Both psana versions differ in details that are mistakes; `docs/calibration.md`
lists them, `tests/conformance/test_calib.py` shows each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from psana_dask.calib.constants import Constants, checked
from psana_dask.calib.detectors import EPIX10KA_RANGES, GENERIC, Detector
from psana_dask.errors import ConstantsError
from psana_dask.jit import njit

# bits of pixel_status that a dark run sets
NOISY, QUIET, HIGH, LOW, BRIGHT, DIM, BAD_CODE = 1, 2, 4, 8, 16, 32, 64
STATUS_BITS = {
    NOISY: "rms too large", QUIET: "rms too small", HIGH: "too often above the highest value",
    LOW: "too often below the lowest value", BRIGHT: "mean too large", DIM: "mean too small",
    BAD_CODE: "gain code 2 seen (Jungfrau)",
}

QUANTILE_TILE = 16384  # pixels whose frames are sorted at once
SUM_TILE = 8192  # pixels taken through all frames of a block before moving on

Counts = NDArray[np.uint16]


@dataclass(frozen=True)
class DarkSettings:
    """Limits of the dark processing; the defaults are psana's."""

    gate_frames: int = 100  # frames that set the gates
    low_fraction: float = 0.05  # quantiles of the gate
    high_fraction: float = 0.95
    lowest: int = 1  # ADU; the gate stays in [lowest, highest]
    highest: int = 16000
    rms_lowest: float = 0.001  # ADU; limits of the noise, whatever its distribution
    rms_highest: float = 16000.0
    sigmas: float = 6.0  # of the distribution over pixels, for rms and mean
    bad_fraction: float = 0.1  # of the frames that may lie outside [lowest, highest]
    data_bits: int = 0x3FFF  # of the raw word
    jungfrau: bool = False  # look for gain code 2
    medians: bool = False  # keep median and median deviation of the gate frames

    @classmethod
    def of(cls, detector: Detector, **changes: Any) -> DarkSettings:
        """Return the settings for a detector: the bits of its raw word, and what they can hold."""
        bits = detector.decoding.data_bits
        highest = min(16000, bits - 1) if detector.multigain else bits - 1
        defaults: dict[str, Any] = {
            "data_bits": bits, "highest": highest, "rms_highest": float(highest),
            "jungfrau": detector.decoding.kind == "jungfrau",
            "medians": detector.decoding.ranges == EPIX10KA_RANGES,
        }
        return cls(**{**defaults, **changes})


@dataclass(frozen=True, eq=False)
class Gates:
    """Per pixel: which values count; with `DarkSettings.medians` also their middle and spread."""

    low: Counts
    high: Counts
    median: NDArray[np.float64] | None = None
    deviation: NDArray[np.float64] | None = None  # median of |value - median|


@dataclass(frozen=True, eq=False)
class DarkResult:
    """What a dark run says about each pixel of one gain stage.

    Examples
    --------
    >>> darks = calib.DarkAccumulator()
    >>> darks.push(run.epixquad.raw[:12].values)
    >>> darks.result().pedestals.shape
    """

    pedestals: NDArray[np.float64]  # ADU, mean inside the gate
    rms: NDArray[np.float64]  # ADU, standard deviation inside the gate: about 0.8 of the true one
    status: NDArray[np.uint64]  # bits of `STATUS_BITS`
    smallest: Counts
    largest: Counts
    gates: Gates
    frames: int
    limits: dict[str, tuple[float, float]] = field(default_factory=dict)  # of rms and mean

    def constants(self, **provenance: Any) -> dict[str, Constants]:
        """Return the result as constants, in the types of their kinds.

        Parameters
        ----------
        **provenance
            Fields of `Constants`: detector, runs, store, origin, version, comment, created.
        """
        values = {
            "pedestals": self.pedestals, "pixel_rms": self.rms, "pixel_status": self.status,
            "pixel_max": self.largest, "pixel_min": self.smallest,
        }
        return {kind: Constants(kind, checked(kind, value), **provenance) for kind, value in values.items()}

    def counts(self) -> dict[str, int]:
        """Return how many pixels have each status bit."""
        return {text: int((self.status & np.uint64(bit) != 0).sum()) for bit, text in STATUS_BITS.items()}


def gates(frames: NDArray[Any], settings: DarkSettings) -> Gates:
    """Return the gates that these frames set.

    Parameters
    ----------
    frames : ndarray of unsigned, shape (frame, ...)
        Raw words.
    settings : DarkSettings
        The quantiles are values that occur: the lower and the higher neighbour.
    """
    shape, n = frames.shape[1:], len(frames)
    flat = frames.reshape(n, -1)
    ranks = math.floor(settings.low_fraction * (n - 1)), math.ceil(settings.high_fraction * (n - 1))
    low, high = np.empty(flat.shape[1], np.uint16), np.empty(flat.shape[1], np.uint16)
    middle, spread = (np.empty(flat.shape[1]) for _ in range(2)) if settings.medians else (None, None)
    for lo in range(0, flat.shape[1], QUANTILE_TILE):
        part = slice(lo, lo + QUANTILE_TILE)
        tile = np.ascontiguousarray(flat[:, part].T) & np.uint16(settings.data_bits)
        if middle is not None and spread is not None:
            middle[part] = np.median(tile, axis=1)
            spread[part] = np.median(np.abs(tile - middle[part, None]), axis=1)
        tile.partition(ranks, axis=1)
        low[part], high[part] = tile[:, ranks[0]], tile[:, ranks[1]]
    low = np.maximum(low, np.uint16(settings.lowest))
    high = np.minimum(high, np.uint16(settings.highest))
    high = np.minimum(high + (high <= low), np.uint16(settings.highest)).astype(np.uint16)
    return Gates(low.reshape(shape), high.reshape(shape), *(
        None if a is None else a.reshape(shape) for a in (middle, spread)))


@dataclass(frozen=True, eq=False)
class Sums:
    """Integer sums over frames, per pixel; `add` changes them in place."""

    inside: NDArray[np.int32]  # values in the gate
    total: NDArray[np.int64]  # their sum
    squares: NDArray[np.int64]  # and sum of squares
    below: NDArray[np.int32]  # values < lowest
    above: NDArray[np.int32]  # values > highest
    smallest: Counts
    largest: Counts
    bad_code: NDArray[np.uint8]  # 1: gain code 2 was seen

    @classmethod
    def zeros(cls, pixels: int) -> Sums:
        """Return the sums of no frame."""
        return cls(np.zeros(pixels, np.int32), np.zeros(pixels, np.int64), np.zeros(pixels, np.int64),
                   np.zeros(pixels, np.int32), np.zeros(pixels, np.int32),
                   np.full(pixels, 0xFFFF, np.uint16), np.zeros(pixels, np.uint16),
                   np.zeros(pixels, np.uint8))

    def add(self, frames: NDArray[Any], gate: Gates, settings: DarkSettings) -> None:
        """Add frames, shape (frame, ...)."""
        flat = np.ascontiguousarray(frames, np.uint16).reshape(len(frames), -1)
        _add_frames(flat, gate.low.reshape(-1), gate.high.reshape(-1), settings.data_bits,
                    settings.lowest, settings.highest, settings.jungfrau, self.inside, self.total,
                    self.squares, self.below, self.above, self.smallest, self.largest, self.bad_code)


# One loop for each sum: with more arrays in a loop LLVM does not vectorise it (see `gain`).
@njit()
def _add_inside(word: Counts, bits: int, low: Counts, high: Counts, inside: NDArray[np.int32]) -> None:
    for p in range(word.size):
        v = np.int32(word[p]) & np.int32(bits)
        inside[p] += np.int32((v >= low[p]) & (v <= high[p]))


@njit()
def _add_total(word: Counts, bits: int, low: Counts, high: Counts, total: NDArray[np.int64]) -> None:
    for p in range(word.size):
        v = np.int32(word[p]) & np.int32(bits)
        total[p] += v if (v >= low[p]) & (v <= high[p]) else np.int32(0)


@njit()
def _add_squares(word: Counts, bits: int, low: Counts, high: Counts, squares: NDArray[np.int64]) -> None:
    for p in range(word.size):
        v = np.int32(word[p]) & np.int32(bits)
        kept = np.int64(v if (v >= low[p]) & (v <= high[p]) else np.int32(0))
        squares[p] += kept * kept


@njit()
def _add_outside(
    word: Counts, bits: int, lowest: int, highest: int, below: NDArray[np.int32], above: NDArray[np.int32]
) -> None:
    for p in range(word.size):
        v = np.int32(word[p]) & np.int32(bits)
        below[p] += np.int32(v < lowest)
        above[p] += np.int32(v > highest)


@njit()
def _keep_extremes(word: Counts, bits: int, smallest: Counts, largest: Counts) -> None:
    for p in range(word.size):
        v = word[p] & np.uint16(bits)
        smallest[p] = min(smallest[p], v)
        largest[p] = max(largest[p], v)


@njit()
def _mark_bad_codes(word: Counts, bad_code: NDArray[np.uint8]) -> None:
    for p in range(word.size):
        bad_code[p] |= np.uint8(word[p] >> 14 == 2)


@njit()
def _add_frames(
    frames: Counts, low: Counts, high: Counts, bits: int, lowest: int, highest: int, jungfrau: bool,
    inside: NDArray[np.int32], total: NDArray[np.int64], squares: NDArray[np.int64],
    below: NDArray[np.int32], above: NDArray[np.int32], smallest: Counts, largest: Counts,
    bad_code: NDArray[np.uint8],
) -> None:
    for lo in range(0, frames.shape[1], SUM_TILE):
        hi = min(frames.shape[1], lo + SUM_TILE)
        for f in range(frames.shape[0]):
            word = frames[f, lo:hi]
            _add_inside(word, bits, low[lo:hi], high[lo:hi], inside[lo:hi])
            _add_total(word, bits, low[lo:hi], high[lo:hi], total[lo:hi])
            _add_squares(word, bits, low[lo:hi], high[lo:hi], squares[lo:hi])
            _add_outside(word, bits, lowest, highest, below[lo:hi], above[lo:hi])
            _keep_extremes(word, bits, smallest[lo:hi], largest[lo:hi])
            if jungfrau:
                _mark_bad_codes(word, bad_code[lo:hi])


def _mean_and_rms(sums: Sums) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    n = np.maximum(sums.inside, 1)
    mean = np.where(sums.inside > 0, sums.total / n, 0.0)
    square = np.where(sums.inside > 0, sums.squares / n, 0.0)
    return mean, np.sqrt(square - np.square(mean))


def _limits(values: NDArray[np.float64], sigmas: float, low: float, high: float) -> tuple[float, float]:
    mean, sigma = values.mean(), values.std()
    return max(mean - sigmas * sigma, low), min(mean + sigmas * sigma, high)


def status_words(
    mean: NDArray[np.float64], rms: NDArray[np.float64], sums: Sums, frames: int, settings: DarkSettings
) -> tuple[NDArray[np.uint64], dict[str, tuple[float, float]]]:
    """Return the status bits of each pixel and the limits that were used.

    The limits are mean +- `sigmas` standard deviations over all pixels, clipped; they are not
    robust, as in psana: a few wild pixels widen them.
    """
    rms_limits = _limits(rms, settings.sigmas, settings.rms_lowest, settings.rms_highest)
    mean_limits = _limits(mean, settings.sigmas, settings.lowest, settings.highest)
    allowed = int(settings.bad_fraction * frames)
    shape = mean.shape
    conditions = {
        NOISY: rms > rms_limits[1], QUIET: rms < rms_limits[0],
        HIGH: sums.above.reshape(shape) > allowed, LOW: sums.below.reshape(shape) > allowed,
        BRIGHT: mean > mean_limits[1], DIM: mean < mean_limits[0],
        BAD_CODE: sums.bad_code.reshape(shape) != 0,
    }
    words = np.zeros(shape, np.uint64)
    for bit, bad in conditions.items():
        words |= np.where(bad, np.uint64(bit), np.uint64(0))
    return words, {"rms": rms_limits, "mean": mean_limits}


def finish(sums: Sums, gate: Gates, frames: int, settings: DarkSettings) -> DarkResult:
    """Return the result of the sums over `frames` frames."""
    shape = gate.low.shape
    mean, rms = (a.reshape(shape) for a in _mean_and_rms(sums))
    status, limits = status_words(mean, rms, sums, frames, settings)
    return DarkResult(mean, rms, status, sums.smallest.reshape(shape), sums.largest.reshape(shape), gate,
                      frames, limits)


class DarkAccumulator:
    """Takes blocks of dark frames of one gain stage; `result` may be asked for at any time.

    Parameters
    ----------
    settings : DarkSettings
        `DarkSettings.of(detector)` for the detector's own.

    Notes
    -----
    Panels are independent except for the status limits, so a large detector can be processed
    panel by panel if the kept frames would not fit into memory (`nbytes`).

    Examples
    --------
    >>> darks = calib.DarkAccumulator()
    >>> darks.push(run.epixquad.raw[:4].values)
    """

    def __init__(self, settings: DarkSettings | None = None) -> None:
        self.settings = settings or DarkSettings()
        self.frames = 0
        self._kept: NDArray[np.uint16] | None = None
        self._gates: Gates | None = None
        self._sums: Sums | None = None
        self._shape: tuple[int, ...] = ()

    @property
    def nbytes(self) -> int:
        """Return the bytes held for the gate frames and the sums."""
        arrays: list[Any] = [self._kept, *(vars(self._sums).values() if self._sums else ())]
        return sum(a.nbytes for a in arrays if a is not None)

    def push(self, block: ArrayLike) -> None:
        """Add frames.

        Parameters
        ----------
        block : array_like of unsigned, shape (frame, ...)
            Raw words; every block has the same frame shape.

        Raises
        ------
        ConstantsError
            Frames of another shape, or not unsigned words of 16 bits.
        """
        frames = self._checked(np.asarray(block))
        if self._gates is None:
            frames = self._keep(frames)
        if len(frames) and self._gates is not None and self._sums is not None:
            self._sums.add(frames, self._gates, self.settings)
            self.frames += len(frames)

    def _checked(self, frames: NDArray[Any]) -> NDArray[np.uint16]:
        if frames.dtype == np.uint16 and self._shape in {(), frames.shape[1:]}:
            self._shape = frames.shape[1:]
            return frames
        if frames.dtype.kind not in "ui" or (frames.size and (frames.min() < 0 or frames.max() > 0xFFFF)):
            raise ConstantsError(f"dark frames are raw words of 0 to 65535, not {frames.dtype}")
        if self._shape and frames.shape[1:] != self._shape:
            raise ConstantsError(f"dark frame of shape {frames.shape[1:]} after frames of {self._shape}")
        self._shape = frames.shape[1:]
        return frames.astype(np.uint16, copy=False)

    def _keep(self, frames: NDArray[np.uint16]) -> NDArray[np.uint16]:
        """Store frames for the gates; return those that come after the gates are set."""
        if self._kept is None:
            self._kept = np.empty((self.settings.gate_frames, *self._shape), np.uint16)
        now = min(len(frames), self.settings.gate_frames - self.frames)
        self._kept[self.frames : self.frames + now] = frames[:now]
        self.frames += now
        if self.frames == self.settings.gate_frames:
            self._gates, self._sums = self._start(self._kept)
            self._kept = None
        return frames[now:]

    def _start(self, kept: NDArray[np.uint16]) -> tuple[Gates, Sums]:
        gate = gates(kept, self.settings)
        sums = Sums.zeros(math.prod(self._shape))
        sums.add(kept, gate, self.settings)
        return gate, sums

    def result(self) -> DarkResult:
        """Return pedestals, noise and status of all frames so far.

        Raises
        ------
        ConstantsError
            Fewer than two frames.
        """
        if self.frames < 2:
            raise ConstantsError(f"a dark needs two frames or more, there are {self.frames}")
        return finish(*self.state(), self.frames, self.settings)

    def state(self) -> tuple[Sums, Gates]:
        """Return the sums of all frames so far, and the gates."""
        gate, sums = self._gates, self._sums
        if gate is None or sums is None:  # a short run: the frames there are set the gates
            assert self._kept is not None  # noqa: S101 - frames were pushed
            gate, sums = self._start(self._kept[: self.frames])
        return sums, gate


def joined(states: Sequence[tuple[Sums, Gates]], shape: tuple[int, ...]) -> tuple[Sums, Gates]:
    """Return the sums and gates of a detector from those of groups of its panels.

    Parameters
    ----------
    states : sequence of (Sums, Gates)
        In the order of the panels.
    shape : tuple of int
        Of a frame of the whole detector.
    """
    sums = Sums(*(np.concatenate([getattr(s, f.name) for s, _ in states]) for f in fields(Sums)))
    gate: dict[str, Any] = {}
    for f in fields(Gates):
        parts = [getattr(g, f.name) for _, g in states]
        gate[f.name] = None if parts[0] is None else np.concatenate([p.ravel() for p in parts]).reshape(shape)
    return sums, Gates(**gate)


def guarded(mean: NDArray[np.float64], gate: Gates, deviation: float | None = None) -> NDArray[np.float64]:
    """Return the mean, or the median where the two differ too much (ePix10ka's rule).

    Parameters
    ----------
    mean : ndarray
        Gated mean, ADU.
    gate : Gates
        With medians.
    deviation : float, optional
        Largest difference; else the median over pixels of the gate frames' median deviation.
    """
    if gate.median is None or gate.deviation is None:
        raise ConstantsError("the median guard needs DarkSettings(medians=True)")
    limit = float(np.median(gate.deviation)) if deviation is None else deviation
    return np.where(np.abs(mean - gate.median) > limit, gate.median, mean)


def outliers(values: ArrayLike, factor: float = 8.0) -> NDArray[np.bool_]:
    """Return where values lie at or beyond median +- factor * median deviation.

    Where the median deviation is 0 the standard deviation takes its place (psana's
    ``UtilsPixelStatus``).
    """
    array = np.asarray(values, np.float64)
    middle = np.median(array)
    spread = np.median(np.abs(array - middle)) or array.std()
    if spread == 0:
        return np.zeros(array.shape, np.bool_)
    return (array <= middle - factor * spread) | (array >= middle + factor * spread)


def low_range_pedestals(
    offset_low: ArrayLike, offset_high: ArrayLike, pedestal_high: ArrayLike,
    gain_low: ArrayLike, gain_high: ArrayLike,
) -> NDArray[np.float64]:
    """Return pedestals of ePix10ka's auto-ranging low stage, which no dark run can measure.

    ``offset_low - (offset_high - pedestal_high) * gain_low / gain_high``, from straight-line
    fits of charge injection in both stages; all arrays per pixel, ADU and ADU per pulse step.
    """
    low, high, dark = (np.asarray(a, np.float64) for a in (offset_low, offset_high, pedestal_high))
    return low - (high - dark) * np.asarray(gain_low, np.float64) / np.asarray(gain_high, np.float64)


def stack_ranges(
    results: Mapping[int, DarkResult],
    row: Detector = GENERIC,
    previous: Mapping[str, Constants] | None = None,
    **provenance: Any,
) -> dict[str, Constants]:
    """Join the gain stages of a detector into constants with a leading axis of gain ranges.

    Parameters
    ----------
    results : mapping of range number to DarkResult
        Measured stages, all of one frame shape.
    row : Detector
        Row of the detector table: names the ranges.
    previous : mapping of kind to Constants, optional
        Where ranges that were not measured are taken from.
    **provenance
        As in `DarkResult.constants`.

    Raises
    ------
    ConstantsError
        A range was not measured and `previous` does not have it.
    """
    stages = {k: r.constants() for k, r in results.items()}
    stacked = {}
    for kind in next(iter(stages.values())):
        planes = [
            np.asarray(stages[k][kind].value) if k in stages else _previous(previous, kind, k, row)
            for k in range(len(row.decoding.ranges))
        ]
        stacked[kind] = Constants(kind, checked(kind, np.stack(planes)), **provenance)
    return stacked


def _previous(
    previous: Mapping[str, Constants] | None, kind: str, k: int, row: Detector
) -> NDArray[Any]:
    if previous is None or kind not in previous:
        raise ConstantsError(
            f"gain range {row.decoding.ranges[k]} of {row.name} was not measured; give previous= constants "
            f"that have its {kind}, or missing='in force' or 'neutral' to the constants of a dark"
        )
    return np.asarray(previous[kind].value)[k]

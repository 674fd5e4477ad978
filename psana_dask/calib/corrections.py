"""The steps that a common-mode plan is made of: one correction of consecutive pixels each.

A step knows its *unit*, the smallest number of consecutive pixels that it can correct alone,
and brings the work space that its kernel needs, made once and reused for every event.  The
kernels are in `medians`, `banks` and `histograms`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from psana_dask.calib import banks, histograms, medians

Floats = NDArray[Any]
Used = NDArray[np.uint8]
Work = tuple[NDArray[Any], ...]

EVERYTHING = math.inf


class Step(Protocol):
    """One correction of consecutive pixels."""

    @property
    def unit(self) -> int:
        """Smallest number of consecutive pixels that can be corrected alone."""

    def work(self, dtype: np.dtype[Any]) -> Work:
        """Return work space, reused for every event."""

    def __call__(self, values: Floats, used: Used, work: Work) -> None:
        """Correct `values` in place; `used` marks what enters the estimate."""


@dataclass(frozen=True)
class Limits:
    """What enters a median, and when the correction applies."""

    low: float = -EVERYTHING
    high: float = EVERYTHING  # only values in [low, high] enter
    fewest: int = 1  # pixels
    largest: float = EVERYTHING  # ADU, inclusive
    everywhere: bool = False  # correct pixels that do not enter, too

    def of(self, dtype: np.dtype[Any]) -> tuple[Any, Any, int, Any]:
        """Return low, high, fewest, largest for values of this type."""
        kind = dtype.type
        return kind(self.low), kind(self.high), self.fewest, kind(self.largest)


@dataclass(frozen=True)
class RunMedian:
    """Median of each run of consecutive pixels; a shorter last run is corrected by itself."""

    length: int
    limits: Limits
    truncate: bool = False

    @property
    def unit(self) -> int:
        """Return the pixels of a run."""
        return self.length

    def work(self, dtype: np.dtype[Any]) -> Work:
        """Return `medians.workspace`."""
        return (*medians.workspace(self.length, dtype), np.zeros(medians.LANES * self.length, dtype))

    def __call__(self, values: Floats, used: Used, work: Work) -> None:
        """Correct whole runs, then the rest."""
        self._correct(values, used, self.length, work)
        rest = values.size % self.length
        if rest:
            tail = RunMedian(rest, self.limits, self.truncate)
            tail._correct(values[-rest:], used[-rest:], rest, tail.work(values.dtype))

    def _correct(self, values: Floats, used: Used, length: int, work: Work) -> None:
        low, high, fewest, largest = self.limits.of(values.dtype)
        medians.subtract_run_medians(values, used, length, low, high, fewest, largest,
                                     self.truncate, self.limits.everywhere, *work)


@dataclass(frozen=True)
class ColumnMedian:
    """Median of each column of `length` rows."""

    columns: int
    length: int
    limits: Limits

    @property
    def unit(self) -> int:
        """Return the pixels of `length` rows."""
        return self.columns * self.length

    def work(self, dtype: np.dtype[Any]) -> Work:
        """Return `medians.workspace`."""
        return medians.workspace(self.length, dtype)

    def __call__(self, values: Floats, used: Used, work: Work) -> None:
        """Correct all columns."""
        low, high, fewest, largest = self.limits.of(values.dtype)
        medians.subtract_column_medians(values, used, self.columns, self.length, low, high, fewest,
                                        largest, self.limits.everywhere, *work)


@dataclass(frozen=True)
class BankMedian:
    """Median of each bank of `height` rows and `width` columns."""

    columns: int
    height: int
    width: int
    limits: Limits

    @property
    def unit(self) -> int:
        """Return the pixels of `height` rows."""
        return self.columns * self.height

    def work(self, dtype: np.dtype[Any]) -> Work:
        """Return room for the values of a bank, twice, for a histogram, and lanes and hint."""
        size = -(-self.height * self.width // 64) * 64
        hint = np.array([0, 8], dtype)  # ADU
        return (np.zeros(size, dtype), np.zeros(size, dtype), np.zeros(512, np.int32),
                np.zeros((4, medians.LANES), dtype), hint)

    def __call__(self, values: Floats, used: Used, work: Work) -> None:
        """Correct all banks."""
        low, high, fewest, largest = self.limits.of(values.dtype)
        banks.subtract_bank_medians(values, used, self.columns, self.height, self.width, low, high,
                                    fewest, largest, self.limits.everywhere, *work)


@dataclass(frozen=True)
class PeakMean:
    """Algorithm 1: mean of the noise peak of each section."""

    sections: int  # 0: as many as there are
    size: int
    stride: int
    largest: float
    widest: float
    threshold: int
    unbonded: bool = False

    @property
    def unit(self) -> int:
        """Return the pixels of a section, or 0 for the whole event."""
        return 0 if self.sections else self.size

    def work(self, dtype: np.dtype[Any]) -> Work:
        """Return the histogram and room for the bins of some pixels."""
        bins = histograms.HIST_HIGH - histograms.HIST_LOW
        return np.zeros(bins + 1, np.int32), np.zeros(1024, np.int32)

    def __call__(self, values: Floats, used: Used, work: Work) -> None:
        """Correct the sections."""
        sections = self.sections or values.size // self.size
        histograms.subtract_peak_means(values, used, sections, self.size, self.stride, self.largest,
                                       self.widest, self.threshold, self.unbonded, *work)


@dataclass(frozen=True)
class RunMean:
    """Algorithm 2: mean of the values below a threshold of each run."""

    length: int
    threshold: float
    largest: float

    @property
    def unit(self) -> int:
        """Return the pixels of a run."""
        return self.length

    def work(self, dtype: np.dtype[Any]) -> Work:
        """Return nothing."""
        return ()

    def __call__(self, values: Floats, used: Used, work: Work) -> None:
        """Correct all runs, the last shorter one too."""
        kind = values.dtype.type
        histograms.subtract_run_means(values, used, self.length, kind(self.threshold), kind(self.largest))


@dataclass(frozen=True)
class UnbondedMean:
    """Algorithm 5: mean of the unbonded pixels of each CSPAD section."""

    size: int
    largest: float

    @property
    def unit(self) -> int:
        """Return the pixels of a section."""
        return self.size

    def work(self, dtype: np.dtype[Any]) -> Work:
        """Return nothing."""
        return ()

    def __call__(self, values: Floats, used: Used, work: Work) -> None:
        """Correct all sections."""
        histograms.subtract_unbonded_means(values, self.size, self.largest)


@dataclass(frozen=True)
class RegionMedian:
    """FCCD960's algorithm 4: interpolated histogram median of each region."""

    columns: int
    height: int
    width: int
    step: int
    half_range: int
    largest: int

    @property
    def unit(self) -> int:
        """Return the pixels of `height` rows."""
        return self.columns * self.height

    def work(self, dtype: np.dtype[Any]) -> Work:
        """Return the largest histogram."""
        return (np.zeros(10000, np.int32),)

    def __call__(self, values: Floats, used: Used, work: Work) -> None:
        """Correct all regions."""
        histograms.subtract_region_medians(values, used, self.columns, self.height, self.width,
                                           self.step, self.half_range, self.largest, *work)


@dataclass(frozen=True)
class FakePixels:
    """Archon: the median of the last pixels of each run is taken off the whole run."""

    length: int
    fake: int

    @property
    def unit(self) -> int:
        """Return the pixels of a run."""
        return self.length

    def work(self, dtype: np.dtype[Any]) -> Work:
        """Return `medians.workspace`."""
        return RunMedian(self.length, Limits()).work(dtype)

    def __call__(self, values: Floats, used: Used, work: Work) -> None:
        """Correct all runs."""
        only = np.zeros(values.size, np.uint8)
        only.reshape(-1, self.length)[:, -self.fake :] = 1
        RunMedian(self.length, Limits(everywhere=True))(values, only & used, work)


@dataclass(frozen=True)
class QuietPixels:
    """Algorithm 6 (ePix100): medians without photons, their neighbours and large values."""

    rms: NDArray[np.floating[Any]] = field(compare=False)  # (row, col), ADU
    largest: float = 30
    half_range: float = 30
    columns_and_rows: int = 3  # bits: 1 columns, 2 rows
    fraction: float = 0.25  # of the pixels of a column or row that must remain
    mean_first: bool = False  # subtract the mean of the quiet pixels from them, first

    @property
    def unit(self) -> int:
        """Return 0: the whole event."""
        return 0

    def work(self, dtype: np.dtype[Any]) -> Work:
        """Return nothing: this algorithm is rare, its steps bring their own."""
        return ()

    def _quiet(self, image: Floats) -> NDArray[np.bool_]:
        photon = image >= self.rms * 10
        near = photon.copy()
        near[1:] |= photon[:-1]
        near[:-1] |= photon[1:]
        near[:, 1:] |= photon[:, :-1]
        near[:, :-1] |= photon[:, 1:]
        return ~(near | (np.abs(image) > self.half_range))

    def _limits(self, length: int) -> Limits:
        fewest = length - math.floor((1 - self.fraction) * length)
        return Limits(fewest=fewest, largest=self.largest, everywhere=True)

    def __call__(self, values: Floats, used: Used, work: Work) -> None:
        """Correct columns of half the rows, then rows of an eighth of the columns."""
        rows, cols = self.rms.shape
        image = values.reshape(rows, cols)
        quiet = self._quiet(image)
        if self.mean_first:
            mean = np.float64(np.where(quiet, image, 0).sum()) / quiet.sum()
            image[...] = image - np.where(quiet, mean, 0.0)  # in float64, as the original
        keep = quiet.astype(np.uint8).reshape(-1)
        steps: list[Step] = []
        if self.columns_and_rows & 1:
            steps.append(ColumnMedian(cols, rows // 2, self._limits(rows // 2)))
        if self.columns_and_rows & 2:
            steps.append(RunMedian(cols // 8, self._limits(cols // 8)))
        for step in steps:
            step(values, keep, step.work(values.dtype))

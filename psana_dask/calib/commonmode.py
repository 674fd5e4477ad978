"""Common mode: the numbered algorithms of LCLS-1 and LCLS-II as a plan of steps.

A plan is made once from parameters and detector, then corrects pedestal-subtracted values in
place.  Each step works on whole *units* of consecutive pixels, so a frame is corrected unit by
unit while it is still in the cache.

==  ===================================================================  =======================
no  what is subtracted                                                    parameters after the no
==  ===================================================================  =======================
1   mean of the noise peak of a section                                   mean_max, sigma_max, threshold
                                                                          [, unbonded] (CSPAD)
                                                                          [, sections, size, stride]
2   mean of a run, values below threshold                                 threshold, largest, length
3   integer median of a run, values below threshold                       threshold, largest, length
4   median of bank (bit 1), row (2), column (4) of a bank                 bits, half_range, largest
5   mean of the unbonded pixels (CSPAD)                                   largest
6   ePix100 columns and rows without photons and their neighbours         (keywords)
7   median of bank (4), row of a bank (1), column of a bank (2)           bits, largest[, fewest]
8   pnCCD: rows of 128 (1), rows (2), columns (4), banks (8)              bits, largest
9   median of the last pixels of each run of a row (Archon)               pixels, length
==  ===================================================================  =======================

Numbers 1 to 5 correct every pixel, 7 and 8 only those that may enter the estimate.
Sources: ImgAlgos ``CommonModeCorrection.h``, Detector ``UtilsCommonMode.py``,
``UtilsPNCCD.py``, pyimgalgos ``cm_epix.py``, lcls2 ``UtilsCommonMode.py``, ``archon.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from psana_dask.calib.corrections import (
    EVERYTHING,
    BankMedian,
    ColumnMedian,
    FakePixels,
    Floats,
    Limits,
    PeakMean,
    QuietPixels,
    RegionMedian,
    RunMean,
    RunMedian,
    Step,
    UnbondedMean,
    Used,
    Work,
)
from psana_dask.calib.detectors import GENERIC, Detector
from psana_dask.errors import ConstantsError

Correction = Callable[[Floats, Used], None]  # a user's own: (values, used) of one event, in place


def _below(limit: float) -> float:
    """Return the largest float32 below `limit`: ``x < limit`` becomes ``x <= _below``."""
    return float(np.nextafter(np.float32(limit), np.float32(-np.inf)))


@dataclass(frozen=True)
class CommonMode:
    """A numbered algorithm and its parameters, as in a ``common_mode`` constant.

    Examples
    --------
    >>> calib.CommonMode.of((1, 25, 25, 100)).parameter(0)
    """

    algorithm: int
    parameters: tuple[float, ...] = ()

    @classmethod
    def of(cls, values: ArrayLike | CommonMode | None) -> CommonMode | None:
        """Return the algorithm that the numbers ask for; None if they ask for none."""
        if isinstance(values, CommonMode) or values is None:
            return values
        numbers = np.asarray(values, np.float64).reshape(-1)
        if numbers.size == 0 or not np.isfinite(numbers).all():
            raise ConstantsError(f"common_mode needs finite numbers, not {numbers.tolist()}")
        return cls(int(numbers[0]), tuple(float(v) for v in numbers[1:]))

    def parameter(self, index: int, default: float | None = None) -> float:
        """Return parameter `index` (0: the first after the algorithm number)."""
        if index < len(self.parameters):
            return self.parameters[index]
        if default is None:
            raise ConstantsError(
                f"common mode {self.algorithm} needs {index + 1} parameters or more, "
                f"not {list(self.parameters)}"
            )
        return default


@dataclass(frozen=True)
class Plan:
    """Steps that correct one event, unit by unit."""

    steps: tuple[Step, ...]
    shape: tuple[int, ...]  # of an event
    steady_only: bool = False  # only pixels in the detector's steady gain ranges enter

    @property
    def unit(self) -> int:
        """Return the pixels that must be corrected together."""
        size = math.prod(self.shape)
        units = [step.unit for step in self.steps]
        if 0 in units:
            return size
        together = math.lcm(*units) if units else 1
        return size if size % together else together

    def chunk(self, most: int = 65536) -> int:
        """Return a number of pixels, whole units, that divides the event: at most `most` if it can."""
        units = math.prod(self.shape) // self.unit
        most_units = min(units, max(1, most // self.unit))
        return self.unit * next(k for k in range(most_units, 0, -1) if units % k == 0)

    def work(self, dtype: np.dtype[Any]) -> tuple[Work, ...]:
        """Return the work space of all steps."""
        return tuple(step.work(dtype) for step in self.steps)

    def correct(self, values: Floats, used: Used, work: tuple[Work, ...] | None = None) -> None:
        """Correct whole units of one event in place.

        Parameters
        ----------
        values : ndarray of float, shape (pixel,)
            Pedestal-subtracted values, C-contiguous.
        used : ndarray of uint8, shape (pixel,)
            1 where a pixel may enter the estimate.
        work : tuple, optional
            From `work`; made here if not given.
        """
        for step, space in zip(self.steps, work or self.work(values.dtype), strict=True):
            step(values, used, space)


def _section_means(cm: CommonMode, det: Detector, shape: tuple[int, ...]) -> list[Step]:
    threshold = int(cm.parameter(2, 0))
    limits = (cm.parameter(0), cm.parameter(1), threshold if threshold > 0 else 100)
    if det.name in {"Cspad", "Cspad2x2"}:
        return [PeakMean(0, shape[-2] * shape[-1], 1, *limits, cm.parameter(3, 0) > 0.1)]
    sections = max(1, int(cm.parameter(3, 1)))
    size = int(cm.parameter(4, 0)) or math.prod(shape)
    stride = max(1, int(cm.parameter(5, 1)))
    size = 128 if size < 100 else size
    if (sections - 1) * size + (size - 1) * stride >= math.prod(shape):
        raise ConstantsError(
            f"common mode 1 asks for {sections} sections of {size} pixels with stride {stride}, "
            f"but an event of {det.name} has {math.prod(shape)} pixels"
        )
    return [PeakMean(sections, size, stride, *limits)]


def _run_means(cm: CommonMode, det: Detector, shape: tuple[int, ...]) -> list[Step]:
    length = int(cm.parameter(2, 128))
    return [RunMean(128 if length < 100 else length, cm.parameter(0), cm.parameter(1))]


def _run_medians(cm: CommonMode, det: Detector, shape: tuple[int, ...]) -> list[Step]:
    length = int(cm.parameter(2, 128))
    limits = Limits(high=_below(cm.parameter(0)), largest=cm.parameter(1), everywhere=True)
    return [RunMedian(128 if length < 100 else length, limits, truncate=True)]


def _bank_grid(cm: CommonMode, det: Detector, shape: tuple[int, ...]) -> tuple[int, int]:
    down, across = det.banks
    rows, cols = shape[-2:]
    if rows % down or cols % across:
        raise ConstantsError(
            f"common mode {cm.algorithm} of {det.name} needs panels that divide into "
            f"{down} x {across} banks, not {rows} x {cols} pixels"
        )
    return rows // down, cols // across


def _regions(cm: CommonMode, shape: tuple[int, ...]) -> list[Step]:
    bits, half_range, largest = int(cm.parameter(0)), int(cm.parameter(1)), int(cm.parameter(2))
    rows, cols = shape[-2:]
    half_range = max(half_range, 10)
    steps: list[Step] = []
    if bits & 1:
        steps.append(RegionMedian(cols, 1, cols // 6, 2, half_range, largest))
    if bits & 2:
        steps.append(RegionMedian(cols, rows // 2, cols // 96, 1, half_range, largest))
    return steps


def _quiet_medians(cm: CommonMode, det: Detector, shape: tuple[int, ...]) -> list[Step]:
    if det.name == "Fccd960":
        return _regions(cm, shape)
    height, width = _bank_grid(cm, det, shape)
    bits, half_range, largest = int(cm.parameter(0)), cm.parameter(1), cm.parameter(2)
    limits = Limits(-half_range, half_range, 10, largest or EVERYTHING, everywhere=True)
    steps: list[Step] = []
    if bits & 1:
        steps.append(BankMedian(shape[-1], height, width, limits))
    if bits & 2:
        steps.append(RunMedian(width, limits))
    if bits & 4:
        steps.append(ColumnMedian(shape[-1], height, limits))
    return steps


def _unbonded(cm: CommonMode, det: Detector, shape: tuple[int, ...]) -> list[Step]:
    if det.name not in {"Cspad", "Cspad2x2"}:
        raise ConstantsError(f"common mode 5 is for CSPAD's unbonded pixels; {det.name} has none")
    return [UnbondedMean(shape[-2] * shape[-1], cm.parameter(0))]


def _bank_medians(cm: CommonMode, det: Detector, shape: tuple[int, ...]) -> list[Step]:
    height, width = _bank_grid(cm, det, shape)
    bits, largest, fewest = int(cm.parameter(0)), _below(cm.parameter(1, 0)), int(cm.parameter(2, 10))
    line = Limits(fewest=max(1, fewest + 1), largest=largest)
    steps: list[Step] = []
    if bits & 4:
        steps.append(BankMedian(shape[-1], height, width, Limits(fewest=max(1, fewest), largest=largest)))
    if bits & 1:
        steps.append(RunMedian(width, line))
    if bits & 2:
        steps.append(ColumnMedian(shape[-1], height, line))
    return steps


def _pnccd_medians(cm: CommonMode, det: Detector, shape: tuple[int, ...]) -> list[Step]:
    height, width = _bank_grid(cm, det, shape)
    bits, largest = int(cm.parameter(0)), _below(cm.parameter(1))
    line = Limits(fewest=11, largest=largest)
    steps: list[Step] = []
    if bits & 1:
        steps.append(RunMedian(width, line))
    if bits & 2:
        steps.append(RunMedian(shape[-1], line))
    if bits & 4:
        steps.append(ColumnMedian(shape[-1], shape[-2], line))
    if bits & 8:
        steps.append(BankMedian(shape[-1], height, width, Limits(fewest=10, largest=largest)))
    return steps


def _fake_pixels(cm: CommonMode, det: Detector, shape: tuple[int, ...]) -> list[Step]:
    fake, length = int(cm.parameter(0)), int(cm.parameter(1))
    if shape[-1] % length or not 0 < fake <= length:
        raise ConstantsError(
            f"common mode 9 needs rows that divide into runs of {length} pixels, "
            f"{det.name} has {shape[-1]} columns"
        )
    return [FakePixels(length, fake)]


ALGORITHMS: dict[int, Callable[[CommonMode, Detector, tuple[int, ...]], list[Step]]] = {
    1: _section_means, 2: _run_means, 3: _run_medians, 4: _quiet_medians, 5: _unbonded,
    7: _bank_medians, 8: _pnccd_medians, 9: _fake_pixels,
}


def _quiet_pixels(shape: tuple[int, ...], rms: ArrayLike | None, cm: CommonMode) -> list[Step]:
    if rms is None:
        raise ConstantsError("common mode 6 needs pixel_rms")
    noise = np.asarray(rms, np.float32)
    if noise.size != math.prod(shape):
        raise ConstantsError(f"common mode 6: pixel_rms has {noise.shape}, an event has {shape}")
    names = ("largest", "half_range", "columns_and_rows", "fraction")
    given = dict(zip(names, cm.parameters, strict=False))
    options: dict[str, Any] = {**given, "columns_and_rows": int(given.get("columns_and_rows", 3))}
    return [QuietPixels(noise.reshape(shape[-2:]), **options)]


def plan(
    values: Sequence[float] | ArrayLike | CommonMode | None,
    shape: tuple[int, ...],
    detector: Detector = GENERIC,
    *,
    xtc2: bool = False,
    rms: ArrayLike | None = None,
) -> Plan | None:
    """Return the steps for these parameters, or None if no common mode is asked for.

    Parameters
    ----------
    values : sequence of float
        Algorithm number and parameters, as in a ``common_mode`` constant.
    shape : tuple of int
        Shape of an event, ending in (row, col).
    detector : Detector
        Its banks; CSPAD and FCCD960 have rules of their own.
    xtc2 : bool
        LCLS-II: the number is ignored (except that 7 restricts to steady gain ranges), and
        the bits mean what they mean for number 7.
    rms : array_like, optional
        ``pixel_rms``, for number 6.

    Raises
    ------
    ConstantsError
        Unknown algorithm, missing parameters, or a layout they do not fit.
    """
    cm = CommonMode.of(values)
    if cm is None:
        return None
    steady = cm.algorithm == 7
    if xtc2 and cm.algorithm not in {6, 9} and cm.parameters:
        steps = _bank_medians(cm, detector, shape)
    elif cm.algorithm == 0:
        return None
    elif cm.algorithm == 6:
        steps = _quiet_pixels(shape, rms, cm)
    elif cm.algorithm in ALGORITHMS:
        steps = ALGORITHMS[cm.algorithm](cm, detector, shape)
    else:
        raise ConstantsError(f"no common-mode algorithm {cm.algorithm}; there are {[0, 6, *ALGORITHMS]}")
    return Plan(tuple(steps), shape, steady) if steps else None

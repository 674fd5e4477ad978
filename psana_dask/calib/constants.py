"""A calibration constant: a value with provenance.

`KINDS` is the table of the calibration types of both facilities' stores: the type a value is
cast to, its unit and meaning.  A `Constants` says where it came from and for which runs it
holds, so that what was used can be written beside every result.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from psana_dask.errors import ConstantsError, NameNotFound

LAST_RUN = 9999  # "end" in both stores


@dataclass(frozen=True)
class Kind:
    """One type of constant."""

    name: str
    dtype: str  # numpy name; "str" for text
    unit: str
    meaning: str
    neutral: float | None = None  # value that changes nothing; None: there is none


KINDS: dict[str, Kind] = {kind.name: kind for kind in (
    Kind("pedestals", "float32", "ADU", "mean dark value", 0),
    Kind("pixel_rms", "float32", "ADU", "standard deviation of the dark value", 1),
    Kind("pixel_gain", "float32", "", "gain; the detector's convention says multiply or divide", 1),
    Kind("pixel_offset", "float32", "ADU", "added to the pedestal", 0),
    Kind("pixel_status", "uint64", "", "bits that say why a pixel is bad", 0),
    Kind("status_extra", "uint64", "", "further status bits", 0),
    Kind("status_data", "uint64", "", "status bits found in data", 0),
    Kind("pixel_mask", "uint8", "", "1 good, 0 bad", 1),
    Kind("users_mask", "uint8", "", "1 good, 0 bad", 1),
    Kind("pixel_bkgd", "float32", "ADU", "background", 0),
    Kind("pixel_max", "uint64", "ADU", "largest dark value"),
    Kind("pixel_min", "uint64", "ADU", "smallest dark value"),
    Kind("common_mode", "float64", "", "algorithm number and parameters"),
    Kind("geometry", "str", "um", "panel positions, text"),
    Kind("code_geometry", "str", "", "geometry as code, never executed"),
)}


def kind_of(name: str) -> Kind:
    """Return the row of a kind of constant, or raise `NameNotFound`."""
    if name not in KINDS:
        raise NameNotFound.of("kind of constant", name, KINDS)
    return KINDS[name]


@dataclass(frozen=True, order=True)
class RunRange:
    """The runs that a constant is meant for, both ends included.

    Examples
    --------
    >>> 5 in calib.RunRange(1, 20)
    """

    begin: int
    end: int = LAST_RUN

    def __post_init__(self) -> None:
        if not 0 <= self.begin <= LAST_RUN or not 0 <= self.end <= LAST_RUN:
            raise ConstantsError(f"runs are 0 to {LAST_RUN}, not {self.begin} to {self.end}")
        if self.begin > self.end:
            raise ConstantsError(f"run range begins ({self.begin}) after it ends ({self.end})")

    def __contains__(self, run: int) -> bool:
        return self.begin <= min(run, LAST_RUN) <= self.end

    def __str__(self) -> str:
        return f"{self.begin}-{'end' if self.end == LAST_RUN else self.end}"


@dataclass(frozen=True, eq=False)
class Constants:
    """One constant and where it came from.

    Examples
    --------
    >>> calib.Constants("pixel_gain", np.ones((4, 352, 384), np.float32), detector="epixquad").unit
    """

    kind: str
    value: NDArray[Any] | str
    detector: str = ""  # source (LCLS-1) or short name (LCLS-II)
    runs: RunRange = field(default=RunRange(0))
    store: str = ""  # name of the store
    origin: str = ""  # file, or database/collection/document
    version: str = ""
    comment: str = ""
    created: str = ""  # ISO time, as the store has it

    @cached_property
    def sha256(self) -> str:
        """Return the hash of the value's bytes (text: UTF-8)."""
        value = self.value
        data = value.encode() if isinstance(value, str) else np.ascontiguousarray(value).data
        return hashlib.sha256(data).hexdigest()

    @property
    def unit(self) -> str:
        """Return the unit of the value."""
        return KINDS[self.kind].unit if self.kind in KINDS else ""

    def attrs(self) -> dict[str, str]:
        """Return the provenance as plain strings, for the attrs of a result."""
        return {
            "kind": self.kind, "detector": self.detector, "store": self.store, "origin": self.origin,
            "runs": str(self.runs), "version": self.version, "comment": self.comment,
            "created": self.created, "sha256": self.sha256,
        }

    def with_value(self, value: ArrayLike | str) -> Constants:
        """Return the same constant with another value, checked."""
        return replace(self, value=checked(self.kind, value))

    def __repr__(self) -> str:
        what = f"{len(self.value)} characters" if isinstance(self.value, str) else (
            f"{self.value.dtype}{list(self.value.shape)}")
        return f"<Constants {self.kind} {what} runs {self.runs} from {self.origin or self.store or 'memory'}>"


def checked(
    kind: str, value: Any, shape: tuple[int, ...] | None = None, where: str = ""
) -> NDArray[Any] | str:
    """Return `value` in the type of its kind, or say what is wrong with it.

    Parameters
    ----------
    kind : str
        Kind of constant; one that is not in `KINDS` keeps its type.
    value : array_like or str
    shape : tuple of int, optional
        Expected shape; an array of the same size is reshaped.
    where : str
        File or document, for the message.

    Raises
    ------
    ConstantsError
        Text for numbers or the reverse, wrong size, negative status, values that do not fit.
    """
    place = f" in {where}" if where else ""
    row = KINDS.get(kind)
    if isinstance(value, str):
        if row is not None and row.dtype != "str":
            raise ConstantsError(f"{kind} must be numbers, found text{place}")
        return value
    if row is not None and row.dtype == "str":
        raise ConstantsError(f"{kind} must be text, found an array{place}")
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise ConstantsError(f"{kind} must be numbers, found {array.dtype}{place}")
    if row is not None:
        array = _cast(kind, array, np.dtype(row.dtype), place)
    if shape is not None and array.shape != tuple(shape):
        if array.size != math.prod(shape):
            raise ConstantsError(f"{kind} has shape {array.shape}{place}, expected {tuple(shape)}")
        array = array.reshape(shape)
    return array


def _cast(kind: str, array: NDArray[Any], dtype: np.dtype[Any], place: str) -> NDArray[Any]:
    if dtype.kind == "f":
        return array.astype(dtype, copy=False)
    limits = np.iinfo(dtype)
    if array.size == 0 or array.dtype == dtype:
        return array.astype(dtype, copy=False)
    if array.dtype.kind == "f" and not (np.isfinite(array).all() and (array == np.trunc(array)).all()):
        raise ConstantsError(f"{kind} must be whole numbers{place}; found NaN, inf or fractions")
    if array.min() < 0 or int(array.max()) > limits.max:
        raise ConstantsError(f"{kind} must be 0 to {limits.max}{place}; found {array.min()} to {array.max()}")
    return array.astype(dtype)


def neutral(kind: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return an array that changes nothing: zeros for pedestals, ones for gains.

    Raises
    ------
    ConstantsError
        The kind has no such value.
    """
    row = kind_of(kind)
    if row.neutral is None:
        raise ConstantsError(f"there is no neutral {kind}")
    return np.full(shape, row.neutral, np.dtype(row.dtype))


def summary(constants: Mapping[str, Constants]) -> dict[str, dict[str, str]]:
    """Return the provenance of a set of constants, kind by kind."""
    return {kind: constant.attrs() for kind, constant in constants.items()}

"""Pieces that several tables share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from psana_dask.readers.records import Field, Record, divide

SOURCE = Record(
    "Pds.Src",
    (
        Field("log", "u4", 0),
        Field("phy", "u4", 4),
    ),
    size=8,
)
CLOCK_TIME = Record(
    "Pds.ClockTime",
    (
        Field("nanoseconds", "u4", 0, unit="ns"),
        Field("seconds",     "u4", 4, unit="s"),
    ),
    size=8,
)


def constant(value: float) -> Callable[[Any], Any]:
    """Return the function that gives `value` for every record of a type."""
    return lambda _: value


def popcount(mask: Any) -> Any:
    """Return how many bits of a mask, or of each of a column of masks, are set."""
    if isinstance(mask, np.ndarray):
        return np.bitwise_count(mask).astype(np.int64)
    return int(mask).bit_count()


def low_24_bits(counts: Any) -> Any:
    """Return the low 24 bits of a counter as a signed number."""
    return (counts & 0xFFFFFF ^ 0x800000) - 0x800000


def binned_x(r: Any) -> Any:
    """Return the columns that a binned CCD delivers, a partly filled one included."""
    return divide(r.width + r.bin_x - 1, r.bin_x)


def binned_y(r: Any) -> Any:
    """Return the rows that a binned CCD delivers, a partly filled one included."""
    return divide(r.height + r.bin_y - 1, r.bin_y)


def pixels_x_times_y(r: Any) -> Any:
    """Return the pixels of one frame of a binned CCD."""
    return r.num_pixels_x * r.num_pixels_y

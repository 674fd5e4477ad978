"""Compiled: the colour of each pixel, one byte of it, as a browser gets pictures many times a second."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from psana_dask.jit import array, boolean, float64, njit, void

COLOURS = 255
"""Of a palette; code 0 is for pixels without a value."""

DECADES = 3.0
"""Of a logarithmic scale whose lowest colour is not positive."""

_FRAME = array(np.float32, 2)
_CODES = array(np.uint8, 2, writable=True)


@njit(void(_FRAME, float64, float64, boolean, _CODES), counted=False)
def _code(values: Any, first: float, scale: float, log: bool, out: Any) -> None:
    rows, columns = values.shape
    for k in range(rows):
        for m in range(columns):
            value = values[k, m]
            place = float64(value)
            if log:
                place = math.log(value) if value > 0 else first
            place = min(max((place - first) * scale, 0.0), 254.0)
            out[k, m] = 1 + int(place) if np.isfinite(value) else 0


def colour_ends(low: float, high: float, log: bool) -> tuple[float, float]:
    """Return ends of a scale of colours that can be drawn: rising, and positive where it is logarithmic.

    >>> colour_ends(-5.0, 2000.0, True)
    (2.0, 2000.0)
    """
    high = high if high > low else low + 1.0
    if not log:
        return low, high
    high = high if high > 0 else 1.0
    return (low if low > 0 else high / 10**DECADES), high


def colour_codes(
    values: npt.NDArray[np.float32], low: float, high: float, log: bool
) -> npt.NDArray[np.uint8]:
    """Return the number of the colour of each pixel.

    Parameters
    ----------
    values : (y, x) float32
    low, high : float
        Where the colours begin and end, as of `colour_ends`.
    log : bool

    Returns
    -------
    (y, x) uint8
        1 to 255 from `low` to `high`, the ends for what lies outside; 0 for what is not finite.

    Examples
    --------
    >>> colour_codes(np.array([[0, 5, 10, np.nan]], np.float32), 0.0, 10.0, False)
    array([[  1, 128, 255,   0]], dtype=uint8)
    """
    out = np.empty(values.shape, np.uint8)
    first, last = (math.log(low), math.log(high)) if log else (low, high)
    _code(np.ascontiguousarray(values), first, COLOURS / (last - first), log, out)
    return out


def coded(palette: Sequence[str], nothing: str) -> list[str]:
    """Return the colours of the codes: `nothing`, then a palette of 255."""
    places = np.round(np.linspace(0, len(palette) - 1, COLOURS)).astype(int)
    return [nothing, *(palette[k] for k in places)]

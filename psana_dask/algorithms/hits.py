"""Which frames have something on them: lit pixels and their sum (compiled)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from psana_dask.jit import njit


def lit_pixels(
    frames: NDArray[Any], threshold: float, *, mask: NDArray[Any] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Count the pixels above a threshold, and add them up.

    Parameters
    ----------
    frames : (event, ...) array
        NaN is not lit.
    threshold : float
        In units of the data; a lit pixel is above it.
    mask : array of one frame's shape, optional
        1 good, 0 bad.

    Returns
    -------
    count : (event,) int64
    total : (event,) float64
        Sum of the lit pixels.

    Examples
    --------
    >>> counts, sums = algorithms.lit_pixels(frames, threshold=20)
    """
    flat = np.ascontiguousarray(frames, np.float32).reshape(len(frames), -1) if frames.size else None
    count, total = np.zeros(len(frames), np.int64), np.zeros(len(frames))
    if flat is not None:
        good = np.ones(flat.shape[1], bool) if mask is None else np.asarray(mask, bool).reshape(-1)
        _lit(flat, good, np.float32(threshold), count, total)
    return count, total


@njit()
def _lit(frames: Any, good: Any, threshold: Any, count: Any, total: Any) -> None:
    for event in range(frames.shape[0]):
        n = 0
        s = 0.0
        for i in range(frames.shape[1]):
            v = frames[event, np.uint64(i)]
            if good[np.uint64(i)] and v > threshold:
                n += 1
                s += v
        count[event], total[event] = n, s

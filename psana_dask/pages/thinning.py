"""Compiled: means of square blocks of a frame, for a screen that has fewer pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from psana_dask.jit import array, int64, njit, void

_FRAME = array(np.float32, 2, layout="A")
_OUT = array(np.float32, 2, writable=True)


@njit(void(_FRAME, int64, _OUT), counted=False)
def _block_means(values: Any, step: int, out: Any) -> None:
    rows, columns = values.shape
    for k in range(out.shape[0]):
        for m in range(out.shape[1]):
            total, count = np.float32(0), 0
            for y in range(k * step, min((k + 1) * step, rows)):
                for x in range(m * step, min((m + 1) * step, columns)):
                    value = values[y, x]
                    if np.isfinite(value):
                        total += value
                        count += 1
            out[k, m] = total / count if count else np.nan


def block_means(values: npt.NDArray[np.float32], step: int) -> npt.NDArray[np.float32]:
    """Return the means of blocks of `step` by `step` pixels, without NaN; NaN where there are none.

    Parameters
    ----------
    values : (y, x) float32
    step : int

    Returns
    -------
    (ceil(y / step), ceil(x / step)) float32

    Examples
    --------
    >>> block_means(np.array([[1, 3, 5], [5, np.nan, 7]], np.float32), 2)
    array([[3., 6.]], dtype=float32)
    """
    rows, columns = values.shape
    out = np.empty((-(-rows // step), -(-columns // step)), np.float32)
    _block_means(values, step, out)
    return out

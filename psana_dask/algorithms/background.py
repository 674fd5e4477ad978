"""A background that changes from event to event, taken off by a few shapes learnt from others."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from psana_dask.algorithms.waveforms import basis_of


def background_shapes(frames: NDArray[Any], count: int) -> NDArray[np.float64]:
    """Return the shapes that describe frames without signal best, (count, pixel of a frame).

    Parameters
    ----------
    frames : (event, ...) array
        Events with background only (dropped lasers, empty shots). Pixels that are NaN in any are 0.
    count : int
        How many shapes.

    Returns
    -------
    (count, ...) float64 array
        Orthonormal: the first right singular vectors of the frames.

    Examples
    --------
    >>> shapes = algorithms.background_shapes(dark_frames, count=5)
    """
    flat = np.asarray(frames, np.float64).reshape(len(frames), -1)
    known = np.where(np.isfinite(flat).all(axis=0), flat, 0.0)
    return basis_of(known, count).reshape(count, *frames.shape[1:])


def subtract_background(
    frames: NDArray[Any], shapes: NDArray[Any], *, mask: NDArray[Any] | None = None
) -> NDArray[np.float32]:
    """Fit each frame with the shapes where `mask` says there is no signal, and subtract the fit.

    Parameters
    ----------
    frames : (event, ...) array
        NaN pixels count nowhere and stay NaN.
    shapes : (shape, ...) array
        From `background_shapes`.
    mask : array of a frame's shape, optional
        1 where there is background only: the pixels that are fitted; by default all.

    Returns
    -------
    float32 array of the shape of `frames`
        A frame with fewer good pixels than shapes is NaN.

    Examples
    --------
    >>> frames = algorithms.subtract_background(frames, shapes, mask=mask)
    """
    flat = np.asarray(frames, np.float64).reshape(len(frames), -1)
    basis = np.asarray(shapes, np.float64).reshape(len(shapes), -1)
    fitted = np.ones(flat.shape[1], bool) if mask is None else np.asarray(mask, bool).reshape(-1)
    inverse = np.linalg.pinv(basis[:, fitted])
    out = np.empty(flat.shape, np.float32)
    for event, frame in enumerate(flat):
        good = fitted & np.isfinite(frame)
        if good.sum() < len(basis):
            out[event] = np.nan
            continue
        whole = good.sum() == fitted.sum()
        weights = frame[good] @ (inverse if whole else np.linalg.pinv(basis[:, good]))
        out[event] = frame - weights @ basis
    return out.reshape(frames.shape)

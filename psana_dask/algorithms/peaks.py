"""Finding peaks in frames, whatever the method: the call, the result, and where the peaks are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from psana_dask.algorithms.groups import COLUMNS
from psana_dask.algorithms.localpeaks import LocalFinder, local_peaks
from psana_dask.algorithms.positions import Positions, momentum_factor
from psana_dask.algorithms.radialpeaks import RadialFinder, radial_peaks

Finder = RadialFinder | LocalFinder

UNITS = {"x": "m", "y": "m", "q": "1/angstrom"}


@dataclass(frozen=True, eq=False)
class Peaks:
    """The peaks of some frames, padded: rows beyond ``count`` are NaN.

    Examples
    --------
    >>> finder = algorithms.prepare_droplet((1, 352, 384), low=5, high=20)
    >>> algorithms.find_peaks(run.epixquad.calib[:1, :1].values, finder).count
    """

    values: NDArray[np.float64]
    # (event, peak, column), columns as `COLUMNS`
    count: NDArray[np.int64]
    # (event,) how many rows hold a peak
    overflow: NDArray[np.int64]
    # (event,) how many more were found than there is room for

    def __getitem__(self, column: str) -> NDArray[np.float64]:
        return self.values[..., COLUMNS.index(column)]

    def table(self) -> dict[str, NDArray[Any]]:
        """Return one row per peak: ``event`` (position of the frame) and the columns."""
        event, peak = np.nonzero(np.arange(self.values.shape[1]) < self.count[:, None])
        rows = self.values[event, peak]
        return {"event": event, **{name: rows[:, k] for k, name in enumerate(COLUMNS)}}


def find_peaks(frames: NDArray[Any], finder: Finder, *, most: int = 1024) -> Peaks:
    """Find the peaks of each frame.

    Parameters
    ----------
    frames : ([event, ...][, panel], row, col) array
        Calibrated frames; NaN where there are no data. Leading dimensions are events.
    finder : RadialFinder or LocalFinder
        From `prepare_radial`, `prepare_adaptive` or `prepare_droplet`.
    most : int
        Peaks kept of each frame, in the order of the data; how many more there were is in ``overflow``.

    Returns
    -------
    Peaks
        The leading dimensions are flattened to one of events.

    Raises
    ------
    ValueError
        The frames do not have the pixels of the finder.

    Examples
    --------
    >>> import numpy as np
    >>> from psana_dask import algorithms
    >>> frame = np.zeros((64, 64), np.float32)
    >>> frame[20:22, 30:32] = 100
    >>> radius = np.hypot(*(np.mgrid[:64, :64] - 31.5))
    >>> peaks = algorithms.find_peaks(frame, algorithms.prepare_radial(radius))
    >>> peaks["row"][0, 0], peaks["intensity"][0, 0]
    (np.float64(20.5), np.float64(400.0))
    """
    size = int(np.prod(finder.shape))
    if frames.size % size or frames.shape[-2:] != finder.shape[1:]:
        raise ValueError(f"frames of {frames.shape} do not consist of panels of {finder.shape}")
    flat = np.ascontiguousarray(frames, np.float32).reshape(-1, size)
    out = np.full((len(flat), most, len(COLUMNS)), np.nan)
    found = np.zeros(len(flat), np.int64)
    kernel: Any = radial_peaks if isinstance(finder, RadialFinder) else local_peaks
    kernel(flat, finder.kernel, out, found)
    kept = np.minimum(found, most)
    return Peaks(out, kept, found - kept)


def places(
    panel: ArrayLike, row: ArrayLike, col: ArrayLike, where: Positions
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return x, y, z in metres of points on panels, between the centres of the pixels around them.

    Parameters
    ----------
    panel, row, col : arrays of one shape
        NaN gives NaN.
    where : Positions

    Examples
    --------
    >>> x, y, z = algorithms.places(peaks.panel, peaks.row, peaks.col, where)
    """
    rows, cols = where.shape[-2:]
    k, r, c = (np.asarray(v, np.float64) for v in (panel, row, col))
    known = np.isfinite(k) & np.isfinite(r) & np.isfinite(c)
    number = np.where(known, k, 0).astype(np.int64)
    top = np.clip(np.floor(np.where(known, r, 0)), 0, max(rows - 2, 0)).astype(np.int64)
    left = np.clip(np.floor(np.where(known, c, 0)), 0, max(cols - 2, 0)).astype(np.int64)
    down, right = np.where(known, r - top, np.nan), np.where(known, c - left, np.nan)
    below, beside = np.minimum(top + 1, rows - 1), np.minimum(left + 1, cols - 1)
    found = []
    for axis in (where.x, where.y, where.z):
        flat = axis.reshape(-1, rows, cols)
        above = flat[number, top, left] * (1 - right) + flat[number, top, beside] * right
        under = flat[number, below, left] * (1 - right) + flat[number, below, beside] * right
        found.append(above * (1 - down) + under * down)
    return found[0], found[1], found[2]


def momentum(x: ArrayLike, y: ArrayLike, z: ArrayLike, energy: ArrayLike) -> NDArray[np.float64]:
    """Return the momentum transfer in 1/angstrom of points in metres, at photon energies in eV.

    ``q = 4 pi / wavelength * sin(atan2(sqrt(x^2 + y^2), z) / 2)``.

    Examples
    --------
    >>> algorithms.momentum(0.01, 0.0, 0.1, energy=9500)
    """
    two_theta = np.arctan2(np.hypot(x, y), np.asarray(z, np.float64))
    return np.asarray(momentum_factor(energy) * np.sin(two_theta / 2))

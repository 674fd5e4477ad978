"""Waveforms: baselines, windows, edges, pulses, and fits with a few shapes.

Blocks are (event, ..., sample): every waveform is taken by itself.  Positions are in samples,
between samples for edges; a sample's time is ``delay + period * position``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from psana_dask.jit import njit

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Edges:
    """Edges or pulses of each waveform, padded with NaN: the last dimension counts them."""

    position: Floats
    # samples
    amplitude: Floats
    # of the pulse, above the baseline, with its sign
    count: NDArray[np.int64]
    # how many there are room for
    overflow: NDArray[np.int64]
    # how many more were found


def subtract_baseline(waveforms: NDArray[Any], region: slice) -> NDArray[np.float64]:
    """Take the median of a region of samples off each waveform.

    Parameters
    ----------
    waveforms : (..., sample) array
    region : slice
        Samples before the signal. NaN samples are left out; all NaN gives NaN.

    Returns
    -------
    float64 array of the same shape
    """
    values = np.asarray(waveforms, np.float64)
    part = values[..., region]
    if part.shape[-1] == 0:
        raise ValueError(f"no sample of {values.shape[-1]} lies in the region {region}")
    level = np.full(values.shape[:-1], np.nan)
    known = np.isfinite(part).any(axis=-1)
    level[known] = np.nanmedian(part[known], axis=-1)
    return values - level[..., None]


def find_edges(
    waveforms: NDArray[Any],
    *,
    threshold: float,
    baseline: float = 0.0,
    fraction: float = 0.5,
    deadtime: float = 0.0,
    leading: bool = True,
    most: int = 16,
) -> Edges:
    """Find edges by constant fraction: where a pulse crosses a share of its own height.

    A pulse is a stretch of samples beyond `threshold`, upwards if it lies above the baseline, else
    downwards. Its edge is where the waveform crosses ``baseline + fraction * (peak - baseline)``,
    linear between samples.

    Parameters
    ----------
    waveforms : (..., sample) array
    threshold, baseline : float
        In units of the waveform.
    fraction : float
        0 to 1.
    deadtime : float
        Samples: pulses not longer than this are no pulses; edges nearer than this to the one before
        are left out.
    leading : bool
        The first edge of each pulse, or the last one.
    most : int
        Edges kept of each waveform.

    Returns
    -------
    Edges

    Notes
    -----
    As psalg's ``find_edges``, which forgets to add the baseline to the level: equal at baseline 0.

    Examples
    --------
    >>> import numpy as np
    >>> from psana_dask import algorithms
    >>> wave = np.array([0, 0, 0, 4, 8, 8, 4, 0, 0.0])
    >>> algorithms.find_edges(wave, threshold=2).position[0]
    np.float64(3.0)
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction={fraction}: a share of the pulse's height, above 0 and at most 1")
    values = np.ascontiguousarray(waveforms, np.float64)
    flat = values.reshape(-1, values.shape[-1])
    position, amplitude = (np.full((len(flat), most), np.nan) for _ in range(2))
    found = np.zeros(len(flat), np.int64)
    sign = 1.0 if threshold > baseline else -1.0
    _edges(
        flat, sign, float(baseline), float(threshold), float(fraction), float(deadtime), leading,
        position, amplitude, found,
    )  # fmt: skip
    shape = values.shape[:-1]
    kept = np.minimum(found, most)
    return Edges(
        position.reshape(*shape, most), amplitude.reshape(*shape, most), kept.reshape(shape),
        (found - kept).reshape(shape),
    )  # fmt: skip


@njit()
def _edges(
    waves: Any,
    sign: float,
    baseline: float,
    threshold: float,
    fraction: float,
    deadtime: float,
    leading: bool,
    position: Any,
    amplitude: Any,
    counts: Any,
) -> None:
    for k in range(waves.shape[0]):
        wave = waves[k]
        last = -np.inf
        i = 0
        while i < wave.size:
            if not sign * (wave[i] - threshold) > 0:
                i += 1
                continue
            first = top = i
            while i < wave.size and sign * (wave[i] - threshold) > 0:
                top = i if sign * (wave[i] - wave[top]) > 0 else top
                i += 1
            height = wave[top] - baseline
            at = _crossing(wave, top, baseline + fraction * height, sign, -1 if leading else 1)
            if i - first > deadtime and at >= 0 and at - last > deadtime:
                if counts[k] < position.shape[1]:
                    position[k, counts[k]], amplitude[k, counts[k]] = at, height
                counts[k] += 1
                last = at


@njit()
def _crossing(wave: Any, top: int, level: float, sign: float, step: int) -> float:
    """Return where a waveform falls to `level` on one side of its peak, -1 if it never does."""
    i = top
    while 0 <= i < wave.size and sign * (wave[i] - level) > 0:
        i += step
    if i < 0 or i >= wave.size or not sign * (wave[i] - level) <= 0:
        return float(top) if i == top else -1.0
    if i == top:
        return float(top)
    before = i - step  # beyond the level; i is not
    return i + (level - wave[i]) / (wave[before] - wave[i]) * (before - i)


def integrate_windows(
    waveforms: NDArray[Any], windows: ArrayLike, *, period: float = 1.0
) -> NDArray[np.float64]:
    """Integrate waveforms over windows of samples.

    Parameters
    ----------
    waveforms : (..., sample) array
        NaN counts as nothing; a window of NaN only gives NaN.
    windows : (window, 2) array of int
        First sample, and the one after the last.
    period : float
        Time of a sample: the result is in units of the waveform times this.

    Returns
    -------
    (..., window) float64 array
    """
    limits = np.asarray(windows, np.int64).reshape(-1, 2)
    samples = np.shape(waveforms)[-1]
    if len(limits) and (limits.min() < 0 or limits.max() > samples or (limits[:, 0] >= limits[:, 1]).any()):
        raise ValueError(f"windows {limits.tolist()} do not lie in 0 to {samples}")
    values = np.asarray(waveforms, np.float64)
    out = np.empty((*values.shape[:-1], len(limits)))
    for k, (first, stop) in enumerate(limits):
        part = values[..., first:stop]
        known = np.isfinite(part).any(axis=-1)
        out[..., k] = np.where(known, np.nansum(part, axis=-1) * period, np.nan)
    return out


def basis_of(waveforms: NDArray[Any], count: int) -> NDArray[np.float64]:
    """Return the shapes that describe waveforms best: the first right singular vectors.

    Parameters
    ----------
    waveforms : (waveform, sample) array
        Those with NaN are left out.
    count : int
        How many shapes.

    Returns
    -------
    (count, sample) float64 array
        Orthonormal; the largest sample of each is positive.
    """
    values = np.asarray(waveforms, np.float64).reshape(-1, np.shape(waveforms)[-1])
    values = values[np.isfinite(values).all(axis=1)]
    if len(values) < count:
        raise ValueError(f"{len(values)} whole waveforms do not have {count} shapes")
    shapes = np.linalg.svd(values, full_matrices=False)[2][:count]
    largest = np.take_along_axis(shapes, np.abs(shapes).argmax(axis=1)[:, None], axis=1)
    return np.asarray(shapes * np.sign(largest))


def fit_basis(waveforms: NDArray[Any], basis: NDArray[Any]) -> tuple[Floats, Floats]:
    """Fit each waveform with a sum of shapes, by least squares.

    Parameters
    ----------
    waveforms : (..., sample) array
        One with NaN gives NaN.
    basis : (shape, sample) array
        Any shapes that do not depend on each other.

    Returns
    -------
    coefficients : (..., shape) array
    residual : (...) array
        Root mean square of what is left.
    """
    shapes = np.asarray(basis, np.float64)
    values = np.asarray(waveforms, np.float64)
    coefficients = np.einsum("...s,sk->...k", values, np.linalg.pinv(shapes))
    rest = values - np.einsum("...k,ks->...s", coefficients, shapes)
    return coefficients, np.sqrt(np.mean(rest**2, axis=-1))

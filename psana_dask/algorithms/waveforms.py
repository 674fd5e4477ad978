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
    """Edges of each waveform, padded with NaN: the last dimension counts them.

    Examples
    --------
    >>> found = algorithms.find_edges(np.sin(np.arange(100) / 9)[None], threshold=0.5)
    >>> found.position[0, : found.count[0]]
    """

    position: Floats
    # samples
    amplitude: Floats
    # of the pulse, above the baseline, with its sign
    count: NDArray[np.int64]
    # how many there are room for
    overflow: NDArray[np.int64]
    # how many more were found


@dataclass(frozen=True, eq=False)
class Pulses:
    """Pulses of each waveform, padded with NaN: the last dimension counts them.

    Examples
    --------
    >>> found = algorithms.find_pulses(np.sin(np.arange(100) / 9)[None], threshold=0.5)
    >>> found.height[0, : found.count[0]]
    """

    position: Floats
    # samples: centroid of what lies beyond the baseline
    height: Floats
    # above the baseline, with its sign
    area: Floats
    # sum of the samples above the baseline
    first: Floats
    # first sample
    length: Floats
    # samples
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

    Examples
    --------
    >>> flat = algorithms.subtract_baseline(waveforms, slice(0, 100))
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
    linear between samples. psalg's ``find_edges`` forgets to add the baseline: equal at baseline 0.

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
    levels = (*_levels(threshold, baseline), float(fraction), float(deadtime), leading)
    values, count, overflow = _padded(waveforms, _edges, levels, most, 2)
    return Edges(values[..., 0], values[..., 1], count, overflow)


def find_pulses(
    waveforms: NDArray[Any], *, threshold: float, baseline: float = 0.0, shortest: int = 1, most: int = 16
) -> Pulses:
    """Find pulses: stretches of samples beyond a threshold, upwards if it lies above the baseline.

    Parameters
    ----------
    waveforms : (..., sample) array
    threshold, baseline : float
        In units of the waveform.
    shortest : int
        Fewest samples of a pulse.
    most : int
        Pulses kept of each waveform.

    Examples
    --------
    >>> import numpy as np
    >>> from psana_dask import algorithms
    >>> found = algorithms.find_pulses(np.array([0, 0, 4, 8, 4, 0, 0.0]), threshold=2)
    >>> found.position[0], found.height[0], found.area[0], found.length[0]
    (np.float64(3.0), np.float64(8.0), np.float64(16.0), np.float64(3.0))
    """
    levels = (*_levels(threshold, baseline), int(shortest))
    values, count, overflow = _padded(waveforms, _pulses, levels, most, 5)
    position, height, area, first, length = np.moveaxis(values, -1, 0)
    return Pulses(position, height, area, first, length, count, overflow)


def _levels(threshold: float, baseline: float) -> tuple[float, float, float]:
    """Return the sign of pulses, baseline and threshold."""
    return 1.0 if threshold > baseline else -1.0, float(baseline), float(threshold)


def _padded(
    waveforms: NDArray[Any], kernel: Any, levels: tuple[Any, ...], most: int, columns: int
) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
    """Return what a kernel finds in each waveform, padded, how many there are, and how many more."""
    values = np.ascontiguousarray(waveforms, np.float64)
    shape, flat = values.shape[:-1], values.reshape(-1, values.shape[-1])
    out, found = np.full((len(flat), most, columns), np.nan), np.zeros(len(flat), np.int64)
    kernel(flat, levels, out, found)
    kept = np.minimum(found, most)
    return out.reshape(*shape, most, columns), kept.reshape(shape), (found - kept).reshape(shape)


@njit()
def _edges(waves: Any, levels: Any, out: Any, counts: Any) -> None:
    sign, baseline, threshold, fraction, deadtime, leading = levels
    for k in range(waves.shape[0]):
        wave = waves[k]
        last = -np.inf
        first, stop = _next_pulse(wave, 0, sign, threshold)
        while first < stop:
            top = _top(wave, first, stop, sign)
            height = wave[top] - baseline
            at = _crossing(wave, top, baseline + fraction * height, sign, -1 if leading else 1)
            if stop - first > deadtime and at >= 0 and at - last > deadtime:
                if counts[k] < out.shape[1]:
                    out[k, counts[k], 0], out[k, counts[k], 1] = at, height
                counts[k] += 1
                last = at
            first, stop = _next_pulse(wave, stop, sign, threshold)


@njit()
def _pulses(waves: Any, levels: Any, out: Any, counts: Any) -> None:
    sign, baseline, threshold, shortest = levels
    for k in range(waves.shape[0]):
        wave = waves[k]
        first, stop = _next_pulse(wave, 0, sign, threshold)
        while first < stop:
            if stop - first >= shortest:
                if counts[k] < out.shape[1]:
                    _measure(wave, first, stop, sign, baseline, out[k, counts[k]])
                counts[k] += 1
            first, stop = _next_pulse(wave, stop, sign, threshold)


@njit()
def _measure(wave: Any, first: int, stop: int, sign: float, baseline: float, out: Any) -> None:
    """Set position, height, area, first sample and length of a pulse."""
    total = moment = 0.0
    for i in range(first, stop):
        total += wave[i] - baseline
        moment += (wave[i] - baseline) * i
    out[0], out[1] = moment / total, wave[_top(wave, first, stop, sign)] - baseline
    out[2], out[3], out[4] = total, first, stop - first


@njit()
def _next_pulse(wave: Any, start: int, sign: float, threshold: float) -> tuple[int, int]:
    """Return the first sample beyond the threshold from `start` on, and the one after its last."""
    first = start
    while first < wave.size and not sign * (wave[first] - threshold) > 0:
        first += 1
    stop = first
    while stop < wave.size and sign * (wave[stop] - threshold) > 0:
        stop += 1
    return first, stop


@njit()
def _top(wave: Any, first: int, stop: int, sign: float) -> int:
    """Return the first of the samples that are furthest out."""
    top = first
    for i in range(first + 1, stop):
        top = i if sign * (wave[i] - wave[top]) > 0 else top
    return top


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

    Examples
    --------
    >>> algorithms.integrate_windows(waveforms, [(0, 50), (50, 100)], period=1e-9)
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

    Examples
    --------
    >>> basis = algorithms.basis_of(waveforms, count=3)
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

    Examples
    --------
    >>> coefficients, residues = algorithms.fit_basis(waveforms, basis)
    """
    shapes = np.asarray(basis, np.float64)
    values = np.asarray(waveforms, np.float64)
    coefficients = np.einsum("...s,sk->...k", values, np.linalg.pinv(shapes))
    rest = values - np.einsum("...k,ks->...s", coefficients, shapes)
    return coefficients, np.sqrt(np.mean(rest**2, axis=-1))

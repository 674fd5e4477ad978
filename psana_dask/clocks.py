"""How far two clocks are apart, from a signal that both saw."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from psana_dask.samples import NO_KEY, in_nanoseconds, time_keys

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

LEAST = 16
"""Samples that both signals must have in common."""

MOST_POINTS = 2**24


@dataclass(frozen=True)
class Offset:
    """What must be added to the times of one clock to have those of another.

    Parameters
    ----------
    offset : timedelta64[ns]
        For ``run.join(other, offset=...)``.
    uncertainty : timedelta64[ns]
        One standard deviation.
    correlation : float
        Of the two signals once they are shifted, at most 1.
    samples : int
        That both have, shifted.
    """

    offset: np.timedelta64
    uncertainty: np.timedelta64
    correlation: float
    samples: int

    def __str__(self) -> str:
        seconds = [float(t / np.timedelta64(1, "s")) for t in (self.offset, self.uncertainty)]
        return f"{seconds[0]:.9f} +- {seconds[1]:.9f} s (correlation {self.correlation:.3f})"


def find_offset(reference: Any, other: Any, *, within: Any, step: Any = None, tz: str = "UTC") -> Offset:
    """Find what must be added to the times of `other` so that its signal fits `reference`.

    Both signals are put on one grid of times by linear interpolation; where the correlation
    of their common part is largest lies the offset: the top of a parabola through the peak, or, where
    the peak is narrower than the distance of samples, the best shift of the one at the times of the
    other.  The uncertainty is that of the delete-one jackknife over consecutive parts of the
    signals (Efron, Stein, Ann. Stat. 9, 586, 1981), which knows neither the noise nor the signal.

    Parameters
    ----------
    reference, other : DataArray on ``time``, Series on times, or (times, values)
        A signal of the run, and the same signal as the other clock saw it.
    within : timedelta or str
        How far apart the clocks can be (``"2 s"``).
    step : timedelta or str, optional
        Of the grid; by default the smaller of the two median distances of samples.
    tz : str
        Zone of times that have none.

    Returns
    -------
    Offset

    Raises
    ------
    ValueError
        The signals have too little in common, or the best shift lies at the edge of `within`.

    Examples
    --------
    >>> found = psana_dask.find_offset(run.gmd.milliJoulesPerPulse, scope, within="2 s")
    >>> run.join(scope, method="nearest", tolerance="1 ms", offset=found)
    """
    first, second = _signal(reference, tz, "the reference"), _signal(other, tz, "the other signal")
    grid = _spacing(first[0], second[0]) if step is None else in_nanoseconds(step)
    most = in_nanoseconds(within)
    if grid <= 0 or most < 2 * grid:
        raise ValueError(f"within={within!r} is less than two steps of {grid / 1e9:g} s")
    found, samples = _peak(first, second, grid, most // grid)
    if not found.correlation >= 4 / np.sqrt(samples):
        raise ValueError(
            f"no common signal: the largest correlation is {found.correlation:.2f} of {samples} samples"
        )
    spread = np.hypot(found.spread, 0.05)  # interpolation between samples errs by some percent of a step
    offset, uncertainty = (np.timedelta64(round(x * grid), "ns") for x in (found.shift, spread))
    return Offset(offset, uncertainty, min(found.correlation, 1.0), samples)


def _spacing(*times: Ints) -> int:
    """Return the smallest median distance of samples."""
    return int(np.min([np.median(np.diff(t)) for t in times]))


def _grid_of(first: Ints, second: Ints, grid: int) -> Ints:
    """Return times (ns) that span both signals."""
    start, stop = min(first[0], second[0]), max(first[-1], second[-1])
    if (stop - start) // grid > MOST_POINTS:
        raise ValueError(
            f"the signals span {(stop - start) / 1e9:g} s in steps of {grid / 1e9:g} s: give step="
        )
    return np.arange(start, stop + 1, grid)


def _signal(signal: Any, tz: str, what: str) -> tuple[Ints, Floats]:
    """Return the times (ns, increasing) and values of a signal, without missing ones."""
    if isinstance(signal, tuple):
        times, values = signal
    elif hasattr(signal, "coords"):
        times, values = signal["time"].to_index(), signal.values
    else:
        times, values = signal.index, signal.to_numpy()
    keys = time_keys(
        times if hasattr(times, "dtype") else np.asarray(times), tz, None, f"the times of {what}"
    )
    numbers = np.asarray(values, np.float64)
    if numbers.ndim != 1 or len(numbers) != len(keys):
        raise ValueError(
            f"{what} has the shape {numbers.shape} for {len(keys)} times: one number each is needed"
        )
    good = np.isfinite(numbers) & (keys != NO_KEY)
    keys, first = np.unique(keys[good], return_index=True)
    if len(keys) < LEAST:
        raise ValueError(f"{what} has {len(keys)} samples; {LEAST} are needed")
    return keys, numbers[good][first]


def _on_grid(times: Ints, keys: Ints, values: Floats) -> tuple[Floats, Floats]:
    """Return a signal on a grid, and 1 where it is known; gaps of many samples are not filled."""
    limit = 4 * float(np.median(np.diff(keys)))
    out = np.interp(times, keys, values - values.mean())
    right = np.clip(np.searchsorted(keys, times), 1, len(keys) - 1)
    known = (times >= keys[0]) & (times <= keys[-1]) & (keys[right] - keys[right - 1] <= limit)
    return np.where(known, out, 0.0), known.astype(np.float64)


def _correlation(
    first: tuple[Floats, Floats], second: tuple[Floats, Floats], most: int
) -> tuple[Ints, Floats, Floats]:
    """Return shifts, the correlation of what is common at each, and how many points that is."""
    (a, ma), (b, mb) = first, second
    size = 1 << int(np.ceil(np.log2(len(a) + len(b))))
    fa, fma, faa = (np.fft.rfft(x, size) for x in (a, ma, a * a))
    fb, fmb, fbb = (np.conj(np.fft.rfft(x, size)) for x in (b, mb, b * b))

    def sums(x: Any, y: Any) -> Floats:
        return np.asarray(np.fft.irfft(x * y, size))

    count = np.rint(sums(fma, fmb))
    n = np.maximum(count, 1)
    mean_a, mean_b = sums(fa, fmb) / n, sums(fma, fb) / n
    spread = (sums(faa, fmb) / n - mean_a**2) * (sums(fma, fbb) / n - mean_b**2)
    good = (count >= LEAST) & (spread > 1e-12 * max(float(np.max(spread)), 1e-300))
    r = np.where(good, (sums(fa, fb) / n - mean_a * mean_b) / np.sqrt(np.where(good, spread, 1)), -np.inf)
    most = min(most, len(a) - 1)
    lags = np.arange(-most, most + 1)
    return lags, r[lags], count[lags]


def _top(lags: Ints, r: Floats, grid: int) -> int:
    """Return where the correlation is largest.

    Raises
    ------
    ValueError
        Nowhere, or at the edge.
    """
    k = int(np.argmax(r))
    if not np.isfinite(r[k]):
        raise ValueError(
            f"the signals have fewer than {LEAST} samples in common at any shift: is within= right?"
        )
    if k in (0, len(lags) - 1) or not np.isfinite(r[k - 1 : k + 2]).all():
        raise ValueError(f"the best shift, {lags[k] * grid / 1e9:g} s, lies at the edge: raise within=")
    return k


# ---- the peak -----------------------------------------------------------------------------------
PARTS = 30
"""Of the signals, for the jackknife."""

FINE = 20
"""Shifts that are tried within a step, where the peak is narrower than one."""


@dataclass(frozen=True)
class Peak:
    """Where the correlation is largest.

    Parameters
    ----------
    shift, spread : float
        With its standard deviation, in steps of the grid.
    correlation : float
        There.
    """

    shift: float
    spread: float
    correlation: float


def _peak(first: tuple[Ints, Floats], second: tuple[Ints, Floats], grid: int, most: int) -> tuple[Peak, int]:
    """Return the peak of the correlation of two signals, and how many samples they have in common there.

    Parameters
    ----------
    first, second : tuple of (sample,) int64 and float64
        Times (ns) and values.
    grid : int
        Distance of the points at which they are compared, ns.
    most : int
        Points by which they may be apart.
    """
    times = _grid_of(first[0], second[0], grid)
    a, b = _on_grid(times, *first), _on_grid(times, *second)
    lags, r, common = _correlation(a, b, most)
    top = _top(lags, r, grid)
    span = float(common[top]) * grid
    samples = int(max(LEAST, min(span / np.median(np.diff(t)) for t in (first[0], second[0]))))
    parts = int(np.clip(samples // 8, 4, PARTS))
    width = _width(r, top)
    if width < 2:
        return _narrow(first, second, int(lags[top]) * grid, grid, parts), samples
    return _wide(a, b, int(lags[top]), width, parts), samples


def _width(r: Floats, top: int) -> int:
    """Return how many steps from its top the peak has half of its height, on the steeper side."""
    low = np.flatnonzero(~(r > 0.5 * r[top]))
    left, right = low[low < top], low[low > top]
    return int(min(top - (left[-1] if len(left) else -1), (right[0] if len(right) else len(r)) - top)) - 1


def _wide(
    first: tuple[Floats, Floats], second: tuple[Floats, Floats], lag: int, width: int, parts: int
) -> Peak:
    """Return the top of a parabola through the upper part of a peak of many steps."""
    reach = max(2, width // 3)
    near = np.arange(-reach, reach + 1, max(1, reach // 8))
    for _ in range(2):  # noise moves the largest value: the second time the parabola is centred
        sums = _products(first, second, lag + near, parts)
        peak = _jackknife(sums, near.astype(np.float64), _vertex)
        whole = lag + peak.shift
        lag += int(np.clip(np.rint(peak.shift), -reach, reach))
    return Peak(whole, peak.spread, peak.correlation)


def _products(first: tuple[Floats, Floats], second: tuple[Floats, Floats], lags: Ints, parts: int) -> Floats:
    """Return n and the sums of a, b, aa, bb, ab in each part of the grid, (shift, 6, part)."""
    (a, ma), (b, mb) = first, second
    known = np.flatnonzero(ma)
    low, high = int(known[0]), int(known[-1]) + 1
    edges = np.linspace(0, high - low, parts + 1).astype(np.int64)[:-1]
    found = []
    for lag in lags.tolist():
        at = np.arange(low, high) - lag
        inside = (at >= 0) & (at < len(b))
        both = ma[low:high] * np.where(inside, mb[at * inside], 0.0)
        x, y = a[low:high] * both, b[at * inside] * both
        found.append([np.add.reduceat(v, edges) for v in (both, x, y, x * x, y * y, x * y)])
    return np.array(found)


def _narrow(
    first: tuple[Ints, Floats], second: tuple[Ints, Floats], shift: int, grid: int, parts: int
) -> Peak:
    """Return the best shift near one: values from sample to sample have nothing in common."""
    near = np.arange(-3 * FINE // 2, 3 * FINE // 2 + 1)
    swapped = len(second[0]) > len(first[0])
    (t0, a), (t1, b) = (second, first) if swapped else (first, second)
    sign = -1 if swapped else 1  # the denser signal is looked up at the times of the other
    limit = 4 * float(np.median(np.diff(t0)))
    edges = np.linspace(t1[0], t1[-1], parts + 1)[1:-1]
    part = np.searchsorted(edges, t1, side="right")
    found = []
    for step in near.tolist():
        times = t1 + sign * (shift + step * grid // FINE)
        right = np.clip(np.searchsorted(t0, times), 1, len(t0) - 1)
        gap = t0[right] - t0[right - 1]
        known = (times >= t0[0]) & (times <= t0[-1]) & (gap <= limit)
        weight = (times - t0[right - 1]) / gap
        x = np.where(known, a[right - 1] * (1 - weight) + a[right] * weight, 0.0)
        y = np.where(known, b - b.mean(), 0.0)
        values = (known.astype(np.float64), x, y, x * x, y * y, x * y)
        found.append([np.bincount(part, v, parts) for v in values])
    peak = _jackknife(np.array(found), near.astype(np.float64), _largest)
    return Peak(shift / grid + peak.shift / FINE, peak.spread / FINE, peak.correlation)


def _jackknife(sums: Floats, at: Floats, place: Callable[[Floats, Floats], Floats]) -> Peak:
    """Return the peak of the whole, and how much it moves when a part is left out.

    Parameters
    ----------
    sums : (shift, 6, part) float64
    at : (shift,) float64
        The shifts.
    place : callable
        ``place(at, r)`` returns where the peaks of correlations r (row, shift) are.
    """
    whole = sums.sum(-1)
    r = _of_sums(np.concatenate([whole[None], np.moveaxis(whole[..., None] - sums, -1, 0)]))
    found = place(at, r)
    parts = len(found) - 1
    variance = (parts - 1) / parts * float(((found[1:] - found[1:].mean()) ** 2).sum())
    return Peak(float(found[0]), float(np.sqrt(variance)), float(r[0].max()))


def _of_sums(sums: Floats) -> Floats:
    """Return correlations from n and the sums of a, b, aa, bb, ab (on the last axis)."""
    n, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
    n = np.maximum(n, 1)
    spread = (xx - x * x / n) * (yy - y * y / n)
    return np.asarray((xy - x * y / n) / np.sqrt(np.maximum(spread, 1e-300)))


def _vertex(at: Floats, r: Floats) -> Floats:
    """Return the top of the parabola through each row, within the shifts."""
    curvature, slope, _ = np.linalg.pinv(np.vander(at, 3)) @ r.T
    top = np.where(curvature < 0, -slope / (2 * np.where(curvature < 0, curvature, -1.0)), 0.0)
    return np.asarray(np.clip(top, at[0], at[-1]))


def _largest(at: Floats, r: Floats) -> Floats:
    """Return the largest value of each row, with a parabola through its neighbours."""
    k, row = np.clip(r.argmax(-1), 1, len(at) - 2), np.arange(len(r))
    left, top, right = r[row, k - 1], r[row, k], r[row, k + 1]
    curvature = 2 * top - left - right
    return np.asarray(
        at[k] + np.where(curvature > 0, 0.5 * (right - left) / np.maximum(curvature, 1e-300), 0)
    )

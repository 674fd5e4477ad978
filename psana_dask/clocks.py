"""How far two clocks are apart, from a signal that both saw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from psana_dask.join import in_nanoseconds, time_keys

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
    of their common part is largest lies the offset, refined by a parabola.  Its variance is
    ``(1 - r^2) / (n r |r''|)`` with the correlation r, its second derivative by the shift, and
    n samples: the least-squares error of a shift under white noise.

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
    (t0, a), (t1, b) = _signal(reference, tz, "the reference"), _signal(other, tz, "the other signal")
    grid = int(np.min([np.median(np.diff(t)) for t in (t0, t1)])) if step is None else in_nanoseconds(step)
    most = in_nanoseconds(within)
    if grid <= 0 or most < 2 * grid:
        raise ValueError(f"within={within!r} is less than two steps of {grid / 1e9:g} s")
    start, stop = min(t0[0], t1[0]), max(t0[-1], t1[-1])
    if (stop - start) // grid > MOST_POINTS:
        raise ValueError(
            f"the signals span {(stop - start) / 1e9:g} s in steps of {grid / 1e9:g} s: give step="
        )
    times = np.arange(start, stop + 1, grid)
    lags, r, common = _correlation(_on_grid(times, t0, a), _on_grid(times, t1, b), most // grid)
    return _peak(lags, r, common, grid, (t0, t1))


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
    good = np.isfinite(numbers) & (keys != np.iinfo(np.int64).min)
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


def _peak(lags: Ints, r: Floats, common: Floats, grid: int, keys: tuple[Ints, Ints]) -> Offset:
    """Return the offset at the largest correlation."""
    k = int(np.argmax(r))
    if not np.isfinite(r[k]):
        raise ValueError(
            f"the signals have fewer than {LEAST} samples in common at any shift: is within= right?"
        )
    if k in (0, len(lags) - 1) or not np.isfinite(r[k - 1 : k + 2]).all():
        raise ValueError(f"the best shift, {lags[k] * grid / 1e9:g} s, lies at the edge: raise within=")
    curvature = float(2 * r[k] - r[k - 1] - r[k + 1])
    shift = float(lags[k] + 0.5 * (r[k + 1] - r[k - 1]) / curvature)
    overlap = float(common[k]) * grid
    samples = int(max(LEAST, min(overlap / np.median(np.diff(t)) for t in keys)))
    correlation = float(min(r[k], 1.0))
    if correlation < 4 / np.sqrt(samples):
        raise ValueError(
            f"no common signal: the largest correlation is {correlation:.2f} of {samples} samples"
        )
    variance = (1 - correlation**2) / (samples * correlation * curvature)
    spread = np.sqrt(variance + 0.05**2)  # interpolation between samples errs by some percent of a step
    as_time = [np.timedelta64(round(x * grid), "ns") for x in (shift, spread)]
    return Offset(as_time[0], as_time[1], correlation, samples)

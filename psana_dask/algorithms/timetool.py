"""The time tool: where the edge is that the X-ray pulse draws across the laser's spectrum.

1. A projection of the camera (one row of samples per event) is divided by a reference without
   X-rays, minus one.
2. It is correlated with the weights of a filter, of the shape of the edge (matched filter).
3. A parabola through the points above `share` of the response's maximum, and one beyond on each
   side, gives the position.

Positions are samples of the projection, at the middle of the weights.  psana 1's ``TimeTool.Analyze``
counts from the first weight (``position - (n - 1) / 2`` for ``n`` weights) and psana2's ``edgefinder`` from
the last one (``position + (n - 1) / 2``).  A calibration polynomial turns positions into picoseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from psana_dask.jit import njit

Floats = NDArray[np.float64]


class TimeEdges(NamedTuple):
    """The edge of each event, (event,) float64 each; NaN where the projection is not whole.

    Examples
    --------
    >>> algorithms.find_time_edges(projections, weights).position  # doctest: +SKIP
    """

    position: Floats
    # samples
    amplitude: Floats
    # response of the filter, at the top of the parabola
    fwhm: Floats
    # samples: sqrt(-2 A / c) of the parabola A + c x^2, as psana calls it
    next_amplitude: Floats
    # highest response outside the first peak's half height
    ref_amplitude: Floats
    # mean of the reference


def project(images: NDArray[Any], rows: slice, pedestals: NDArray[Any] | None = None) -> Floats:
    """Return the mean over a region of rows of each image, (event, col); NaN pixels left out.

    Parameters
    ----------
    images : (event, row, col) array
    rows : slice
        The laser's rows.
    pedestals : (row, col) array, optional
        Taken off first.

    Examples
    --------
    >>> signals = algorithms.project(images, slice(400, 450))
    """
    values = np.asarray(images[:, rows], np.float64)
    if values.shape[1] == 0:
        raise ValueError(f"no row of {images.shape[1]} lies in {rows}")
    values = values if pedestals is None else values - np.asarray(pedestals, np.float64)[rows]
    known = np.isfinite(values)
    count = known.sum(axis=1)
    total = np.where(known, values, 0).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def step_weights(width: int, *, rising: bool = False) -> Floats:
    """Return the weights of a plain step, ``width`` samples on each side; a falling one by default.

    Examples
    --------
    >>> weights = algorithms.step_weights(50)
    """
    if width < 1:
        raise ValueError(f"width={width}: a step has at least one sample on each side")
    ones = np.ones(width) / (2 * width)
    return np.concatenate([-ones, ones]) if rising else np.concatenate([ones, -ones])


def running_references(
    signals: NDArray[Any], dropped: NDArray[np.bool_], *, fraction: float = 0.1
) -> tuple[Floats, NDArray[np.int64]]:
    """Average the projections without X-rays, as they come.

    Parameters
    ----------
    signals : (event, sample) array
        In the order of time.
    dropped : (event,) bool
        Which events have no X-rays.
    fraction : float
        Weight of the newest one: ``reference = (1 - fraction) * reference + fraction * signal``.

    Returns
    -------
    references : (reference, sample) array
        The average after each dropped shot.
    which : (event,) int64
        The reference in force at each event: the last one before it, or the first of the run.

    Raises
    ------
    ValueError
        No whole projection without X-rays.

    Examples
    --------
    >>> references, which = algorithms.running_references(signals, dropped)
    """
    whole = np.asarray(dropped, bool) & np.isfinite(signals).all(axis=1)
    if not whole.any():
        raise ValueError("no event without X-rays has a projection: there is no reference")
    references = np.array(signals[whole], np.float64)
    for k in range(1, len(references)):
        references[k] = (1 - fraction) * references[k - 1] + fraction * references[k]
    return references, np.maximum(np.cumsum(whole) - 1, 0)


def find_time_edges(
    signals: NDArray[Any],
    references: NDArray[Any],
    weights: NDArray[Any],
    which: NDArray[np.int64] | None = None,
    *,
    share: float = 0.8,
) -> TimeEdges:
    """Find the edge of each event.

    Parameters
    ----------
    signals : (event, sample) array
        Projections, background taken off.
    references : (sample,) or (reference, sample) array
        Projections without X-rays.
    weights : (weight,) array
        Of the filter; `step_weights` makes plain ones.
    which : (event,) array of int, optional
        Row of `references` for each event; without it there is one, or one for each event.
    share : float
        Of the maximum, above which points count for the parabola.

    Returns
    -------
    TimeEdges

    Examples
    --------
    >>> import numpy as np
    >>> from psana_dask import algorithms
    >>> x = np.arange(400)
    >>> signal = 100 - 10 / (1 + np.exp((130.5 - x) / 4))
    >>> edge = algorithms.find_time_edges(signal[None], np.full(400, 100.0), algorithms.step_weights(30))
    >>> round(float(edge.position[0]), 2)
    130.5
    """
    values = np.ascontiguousarray(signals, np.float64)
    known = np.atleast_2d(np.asarray(references, np.float64))
    rows = np.broadcast_to(np.arange(len(known)), len(values)) if which is None else np.asarray(which)
    kernel = np.ascontiguousarray(weights, np.float64)
    if len(kernel) >= values.shape[1]:
        raise ValueError(f"{len(kernel)} weights are too many for {values.shape[1]} samples")
    out = np.full((5, len(values)), np.nan)
    _edges(values, np.ascontiguousarray(known), rows.astype(np.int64), kernel, float(share), out)
    return TimeEdges(*out)


@njit()
def _edges(signals: Any, references: Any, which: Any, weights: Any, share: float, out: Any) -> None:
    n = signals.shape[1] - weights.size + 1
    change = np.empty(signals.shape[1])
    response = np.empty(n)
    for event in range(signals.shape[0]):
        reference = references[which[event]]
        level = 0.0
        for i in range(change.size):
            change[i] = signals[event, i] / reference[i] - 1
            level += reference[i]
        top = 0
        whole = True
        for i in range(n):
            total = 0.0
            for j in range(weights.size):
                total += change[i + j] * weights[j]
            response[i] = total
            whole = whole and np.isfinite(total)
            top = i if total > response[top] else top
        if whole and response[top] > 0:
            out[0, event], out[1, event], out[2, event] = _parabola(response, top, share)
            out[0, event] += (weights.size - 1) / 2
            out[3, event] = _next(response, top)
            out[4, event] = level / change.size


@njit()
def _parabola(response: Any, top: int, share: float) -> tuple[float, float, float]:
    """Fit a parabola to the points around a maximum above a share of it; return top, height, width."""
    first = last = top
    while first > 0 and response[first - 1] >= share * response[top]:
        first -= 1
    while last < response.size - 1 and response[last + 1] >= share * response[top]:
        last += 1
    first, last = max(first - 1, 0), min(last + 1, response.size - 1)  # and one beyond, as psana does
    if last - first < 2:
        return float(top), response[top], np.nan
    # least squares of a + b x + c x^2 about the middle of the points, where odd sums vanish
    middle, n = (first + last) / 2, last - first + 1
    s2 = s4 = t0 = t1 = t2 = 0.0
    for i in range(first, last + 1):
        x, v = i - middle, response[i]
        s2 += x * x
        s4 += x * x * x * x
        t0 += v
        t1 += x * v
        t2 += x * x * v
    c = (n * t2 - s2 * t0) / (n * s4 - s2 * s2)
    a, b = (t0 - c * s2) / n, t1 / s2
    if not c < 0:
        return float(top), response[top], np.nan
    height = a - b * b / (4 * c)
    return middle - b / (2 * c), height, np.sqrt(-2 * height / c)


@njit()
def _next(response: Any, top: int) -> float:
    """Return the highest response outside the first peak's half height, 0 if there is none."""
    first = last = top
    while first > 0 and response[first - 1] >= 0.5 * response[top]:
        first -= 1
    while last < response.size - 1 and response[last + 1] >= 0.5 * response[top]:
        last += 1
    best = 0.0
    for i in range(response.size):
        if (i < first or i > last) and response[i] > best:
            best = response[i]
    return best


def time_of(position: NDArray[Any], calibration: Sequence[float]) -> Floats:
    """Return picoseconds: ``calibration[0] + calibration[1] * position + ...``, lowest power first.

    Examples
    --------
    >>> algorithms.time_of(position, calibration=(-1.2, 0.0025))
    """
    return np.asarray(np.polynomial.polynomial.polyval(np.asarray(position, np.float64), list(calibration)))

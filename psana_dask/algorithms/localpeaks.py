"""Peaks that stand out from the pixels around them: the adaptive and the droplet form.

Both take the brightest pixel of each square of ``2 * rank + 1`` pixels, estimate background
``b`` and noise ``s`` from a ring ``r0 <= r <= r0 + dr`` around it, and collect the pixels that
touch it (4 neighbours) inside the square and reach a threshold:

- *adaptive*: threshold ``b + nsigma * s``; the ring leaves out pixels that are extremes of their
  row or column within `rank`.
- *droplet*: threshold `low`; only squares whose brightest pixel reaches `high`; the ring takes
  values in ``[-high, high)``.

``snr = sum(I - b) / (s * sqrt(npix))``.  The rules are those of psana2 (``peakFinder``, V3R3 and
V4R3), the way it looks for extremes along rows and columns included, which passes over a few;
`tests/conformance/test_algorithms.py` compares every peak.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psana_dask.algorithms.groups import measure, widened
from psana_dask.algorithms.radialpeaks import panel_shape
from psana_dask.jit import njit

ALONG_ROW, ALONG_COL, SQUARE = np.uint8(1), np.uint8(2), np.uint8(4)
# extreme of its row, of its column, of its square


@dataclass(frozen=True)
class Selection:
    """Which groups are peaks; the defaults are those of ``peaks_adaptive`` in psana.

    Examples
    --------
    >>> chosen = algorithms.Selection(npix_min=2, npix_max=20, snr_min=5)
    """

    npix_min: float = 1
    npix_max: float | None = None
    # default: the whole square
    highest_min: float = 0.0
    intensity_min: float = 0.0
    snr_min: float = 8.0

    def limits(self, rank: int) -> tuple[float, ...]:
        """Return the numbers that the kernel takes."""
        most = (2 * rank + 1) ** 2 if self.npix_max is None else self.npix_max
        return (
            float(self.npix_min),
            float(most),
            float(self.highest_min),
            float(self.intensity_min),
            float(self.snr_min),
        )


@dataclass(frozen=True)
class LocalFinder:
    """How to find peaks among their neighbours; made by `prepare_adaptive` or `prepare_droplet`.

    Examples
    --------
    >>> finder = algorithms.prepare_droplet((4, 352, 384), low=10, high=30)
    """

    shape: tuple[int, int, int]
    # (panel, row, col)
    good: NDArray[np.bool_]
    # (pixel,)
    rank: int
    ring: NDArray[np.int64]
    # (pixel of the ring, 2) rows and columns from the middle
    thresholds: tuple[float, float]
    # adaptive: (nsigma, unused); droplet: (low, high)
    droplet: bool
    selection: Selection

    @cached_property
    def kernel(self) -> tuple[Any, ...]:
        """What the kernel takes."""
        limits = self.selection.limits(self.rank)
        return self.shape, self.good, self.rank, self.ring, self.thresholds, self.droplet, limits


def prepare_adaptive(
    shape: tuple[int, ...],
    *,
    mask: NDArray[Any] | None = None,
    rank: int = 5,
    r0: float = 7.0,
    dr: float = 2.0,
    nsigma: float = 5.0,
    selection: Selection = Selection(),
) -> LocalFinder:
    """Prepare finding peaks with a threshold that follows background and noise.

    Parameters
    ----------
    shape : ([panel,] row, col)
        Of a frame.
    mask : array of `shape`, optional
        1 good, 0 bad.
    rank : int
        Half the side of the square, pixels.
    r0, dr : float
        Inner radius and width of the ring of background, pixels.
    nsigma : float
        Threshold, in standard deviations above the background.
    selection : Selection

    Examples
    --------
    >>> finder = algorithms.prepare_adaptive(frames.shape[1:], nsigma=5)
    """
    return _finder(shape, mask, rank, (r0, dr), (float(nsigma), 0.0), False, selection)


def prepare_droplet(
    shape: tuple[int, ...],
    *,
    low: float,
    high: float,
    mask: NDArray[Any] | None = None,
    rank: int = 5,
    r0: float = 7.0,
    dr: float = 2.0,
    selection: Selection = Selection(),
) -> LocalFinder:
    """Prepare finding peaks with two thresholds, in units of the data.

    Parameters
    ----------
    low : float
        Pixels of a peak reach it.
    high : float
        Its brightest pixel reaches it.
    shape, mask, rank, r0, dr, selection
        As for `prepare_adaptive`.

    Examples
    --------
    >>> finder = algorithms.prepare_droplet(frames.shape[1:], low=8, high=20)
    """
    return _finder(shape, mask, rank, (r0, dr), (float(low), float(high)), True, selection)


def _finder(
    shape: tuple[int, ...],
    mask: NDArray[Any] | None,
    rank: int,
    ring: tuple[float, float],
    thresholds: tuple[float, float],
    droplet: bool,
    selection: Selection,
) -> LocalFinder:
    if rank < 1:
        raise ValueError(f"rank={rank}: a square has at least one pixel beside its middle")
    whole = panel_shape(shape)
    good = np.ones(whole, bool) if mask is None else np.asarray(mask, bool).reshape(whole)
    return LocalFinder(whole, good.reshape(-1), rank, _ring(*ring), thresholds, droplet, selection)


def _ring(inner: float, width: float) -> NDArray[np.int64]:
    """Return the (row, col) from the middle of the pixels with inner <= r <= inner + width."""
    reach = int(np.ceil(inner + width))
    row, col = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1)
    places = np.stack([row, col], axis=-1).astype(np.int64)
    distance = np.hypot(row, col)
    return np.ascontiguousarray(places[(distance >= inner) & (distance <= inner + width)])


@njit()
def local_peaks(frames: Any, finder: Any, out: Any, counts: Any) -> None:
    """Find the peaks of each frame; arguments as for `psana_dask.algorithms.radialpeaks.radial_peaks`."""
    shape, mask, rank, ring, thresholds, droplet, limits = finder
    panels, rows, cols = shape
    size = rows * cols
    good = np.empty(size, np.bool_)
    state = np.empty(size, np.uint8)
    work = (
        np.empty(((2 * rank + 1) ** 2, 2), np.int64),
        np.empty((2 * rank + 1, 2 * rank + 1), np.bool_),
        np.empty(out.shape[2]),
    )
    for event in range(frames.shape[0]):
        counts[event] = 0
        for panel in range(panels):
            frame = frames[event, panel * size : (panel + 1) * size]
            for i in range(size):
                good[i] = mask[panel * size + i] and not np.isnan(frame[i])
            work[2][0] = panel
            if droplet:
                found = _droplets(frame, good, (rows, cols), state, rank, thresholds)
            else:
                found = _extremes(frame, good, (rows, cols), state, rank)
            for middle in found:
                bounds = (rows, cols, rank, droplet)
                if _peak(frame, good, state, middle, ring, thresholds, bounds, limits, work):
                    if counts[event] < out.shape[1]:
                        out[event, counts[event]] = work[2]
                    counts[event] += 1


@njit()
def _droplets(frame: Any, good: Any, shape: Any, state: Any, rank: int, thresholds: Any) -> Any:
    """Return the brightest pixels of their squares that reach the high threshold.

    Of equal ones in a square the last counts.  `state` becomes 1 for pixels of the background.
    """
    rows, cols = shape
    high = np.float32(thresholds[1])
    found = np.empty(64, np.int64)
    n = 0
    for i in range(frame.size):
        state[i] = 1 if good[i] and -high <= frame[i] < high else 0
    for i in range(frame.size):
        if not good[i] or not frame[i] >= high:
            continue
        if _is_highest(frame, good, state, rows, cols, i, rank):
            if n == found.size:
                found = widened(found)
            found[n] = i
            n += 1
        else:
            state[i] = 2
    return found[:n]


@njit()
def _is_highest(frame: Any, good: Any, state: Any, rows: int, cols: int, pixel: int, rank: int) -> bool:
    """Whether a pixel is above all of its square, but for those known not to be the highest."""
    row, col = pixel // cols, pixel % cols
    for r in range(max(row - rank, 0), min(row + rank + 1, rows)):
        for c in range(max(col - rank, 0), min(col + rank + 1, cols)):
            other = r * cols + c
            if other != pixel and good[other] and state[other] != 2 and not frame[pixel] > frame[other]:
                return False
    return True


@njit()
def _extremes(frame: Any, good: Any, shape: Any, state: Any, rank: int) -> Any:
    """Return the local maxima; `state` becomes 1 for pixels that are no extreme of any kind."""
    flags = np.zeros(frame.size, np.uint8)
    for sign in (np.float32(-1.0), np.float32(1.0)):  # minima first: the maxima are what is returned
        state[:] = 0
        found = _flagged(frame, good, shape, state, rank, sign)
        flags |= state
    for i in range(frame.size):
        state[i] = 1 if good[i] and flags[i] == 0 else 0
    return found


@njit()
def _flagged(frame: Any, good: Any, shape: Any, state: Any, rank: int, sign: Any) -> Any:
    """Flag the maxima (sign 1) or minima (-1) in `state`, and return those of squares."""
    rows, cols = shape
    for row in range(rows):
        _line_extremes(frame, good, state, row * cols, 1, cols, rank, sign, ALONG_ROW)
    for col in range(cols):
        _line_extremes(frame, good, state, col, cols, rows, rank, sign, ALONG_COL)
    return _square_extremes(frame, good, state, shape, rank, sign)


@njit()
def extremes_of(frames: Any, mask: Any, shape: Any, rank: int, sign: Any, out: Any) -> None:
    """Flag the extremes of each panel of each frame (event, pixel); see `algorithms.local_extrema`."""
    panels, rows, cols = shape
    size = rows * cols
    good = np.empty(size, np.bool_)
    for event in range(frames.shape[0]):
        for panel in range(panels):
            first = panel * size
            frame = frames[event, first : first + size]
            for i in range(size):
                good[i] = mask[first + i] and not np.isnan(frame[i])
            _flagged(frame, good, (rows, cols), out[event, first : first + size], rank, sign)


@njit()
def _line_extremes(
    frame: Any, good: Any, state: Any, first: int, step: int, count: int, rank: int, sign: Any, bit: Any
) -> None:
    """Flag the maxima (sign 1) or minima (-1) of a row or column, in one walk along it.

    A maximum is above its next neighbour and not below any good pixel within `rank`; from a
    higher one behind, the walk goes on beyond the reach of that one (as psana does: what lies
    between is not looked at).
    """
    at = 0
    while at < count:
        here = first + at * step
        top = sign * frame[here]
        if not good[here] or (at + 1 < count and not top > sign * frame[here + step]):
            at += 1
            continue
        beyond = -1
        for other in range(at + 1, min(at + rank, count - 1) + 1):
            there = first + other * step
            if good[there] and sign * frame[there] > top:
                beyond = other
                break
        for other in range(max(at - rank, 0), at):
            there = first + other * step
            if beyond < 0 and good[there] and sign * frame[there] > top:
                beyond = other + rank + 1
        if beyond < 0:
            state[here] |= bit
            beyond = at + rank + 1
        at = beyond


@njit()
def _square_extremes(frame: Any, good: Any, state: Any, shape: Any, rank: int, sign: Any) -> Any:
    """Flag the extremes of row and column that are extremes of their square, and return them."""
    cols = shape[1]
    found = np.empty(1024, np.int64)
    n = 0
    pixel = 0
    while pixel < frame.size:
        here = pixel
        pixel += 1
        if state[here] != ALONG_ROW | ALONG_COL or _is_topped(frame, good, shape, here, rank, sign):
            continue
        state[here] |= SQUARE
        if n == found.size:
            found = widened(found)
        found[n] = here
        n += 1
        pixel = min(here + rank + 1, (here // cols + 1) * cols)
    return found[:n]


@njit()
def _is_topped(frame: Any, good: Any, shape: Any, pixel: int, rank: int, sign: Any) -> bool:
    """Whether a good pixel of the square, off the pixel's row and column, is above it."""
    rows, cols = shape
    row, col = pixel // cols, pixel % cols
    top = sign * frame[pixel]
    for r in range(max(row - rank, 0), min(row + rank + 1, rows)):
        for c in range(max(col - rank, 0), min(col + rank + 1, cols)):
            other = r * cols + c
            if r != row and c != col and good[other] and sign * frame[other] > top:
                return True
    return False


@njit()
def _peak(
    frame: Any,
    good: Any,
    state: Any,
    middle: int,
    ring: Any,
    thresholds: Any,
    bounds: Any,
    limits: Any,
    work: Any,
) -> bool:
    """Measure the peak around a pixel into ``work[2]``; whether it is selected."""
    rows, cols, _, droplet = bounds
    members, seen, out = work
    row, col = middle // cols, middle % cols
    level, noise = _ring_level(frame, state, row, col, (rows, cols), ring)
    threshold = np.float32(thresholds[0] if droplet else level + thresholds[0] * noise)
    n = _connected(frame, good, row, col, bounds, threshold, members, seen)
    if n == 0:
        return False
    measure(frame, members[:n], (0, 0, 0, 0), cols, level, out)
    # in a droplet a pixel that is topped only from outside the square of this one may be brighter
    out[7], out[15], out[16] = np.float64(frame[middle]) - level, row, col
    spread = noise * np.sqrt(np.float64(n))
    out[5] = out[3] / spread if spread > 0 else 0.0
    out[8] = noise
    least, most, highest, intensity, snr = limits
    return least <= n <= most and out[7] >= highest and out[3] >= intensity and out[5] >= snr


@njit()
def _ring_level(frame: Any, state: Any, row: int, col: int, shape: Any, ring: Any) -> tuple[float, float]:
    """Return mean and standard deviation of the background in the ring around a pixel."""
    n = 0
    total = squares = 0.0
    for i in range(ring.shape[0]):
        r, c = row + ring[i, 0], col + ring[i, 1]
        if 0 <= r < shape[0] and 0 <= c < shape[1] and state[r * shape[1] + c] == 1:
            v = np.float64(frame[r * shape[1] + c])
            n += 1
            total += v
            squares += v * v
    if n == 0:
        return 0.0, 0.0
    mean = total / n
    return mean, np.sqrt(max(squares / n - mean * mean, 0.0))


@njit()
def _connected(
    frame: Any, good: Any, row: int, col: int, bounds: Any, threshold: Any, members: Any, seen: Any
) -> int:
    """Collect the pixels of the square that touch its middle and reach the threshold."""
    rows, cols, rank, _ = bounds
    seen[:] = False
    if not frame[row * cols + col] >= threshold:
        return 0
    members[0, 0], members[0, 1] = row, col
    seen[rank, rank] = True
    n, at = 1, 0
    while at < n:
        for r, c in (
            (members[at, 0] + 1, members[at, 1]),
            (members[at, 0], members[at, 1] + 1),
            (members[at, 0] - 1, members[at, 1]),
            (members[at, 0], members[at, 1] - 1),
        ):
            inside = 0 <= r < rows and 0 <= c < cols and abs(r - row) <= rank and abs(c - col) <= rank
            if inside and not seen[r - row + rank, c - col + rank]:
                seen[r - row + rank, c - col + rank] = True
                if good[r * cols + c] and frame[r * cols + c] >= threshold:
                    members[n, 0], members[n, 1] = r, c
                    n += 1
        at += 1
    return n

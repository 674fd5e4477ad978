"""Bragg peaks above a background that depends on the radius only (the peakfinder8 method).

Written from the description of the method in A. Barty et al., J. Appl. Cryst. 47 (2014) 1118
(Cheetah) and of its parameters; the published GPL source was not used.

1. Pixels fall into rings of one pixel of radius.  In each ring mean ``m`` and standard
   deviation ``s`` are taken over the values between ``m - snr * s`` and the threshold
   ``max(m + snr * s, adc)`` of the pass before; five passes.
2. Connected pixels (8 neighbours) above the threshold of their ring, inside one ASIC, make a
   group.  A group starts at a pixel that is not on the border of its ASIC.
3. Around the centroid (weighted by ``I - m``), within ``2 * background_radius`` pixels, the values
   below their threshold give the local background ``b`` and its standard deviation ``sigma``;
   ``snr = sum(I - b) / sigma``.  The position of the peak is the centroid weighted by ``I`` itself.

Groups with too few or too many pixels, with too small an snr, or whose highest pixel does not
rise above the highest pixel of the background are no peaks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psana_dask.algorithms.groups import measure, widened
from psana_dask.algorithms.rings import LANES, TILE, Rings, sorted_by_ring
from psana_dask.jit import njit

PASSES = 5

BELOW, ABOVE, TAKEN = np.uint8(0), np.uint8(1), np.uint8(2)
# state of a pixel: at or below the threshold of its ring, above it, part of a group


@dataclass(frozen=True)
class RadialFinder:
    """How to find peaks: the pixels by ring, and what counts as a peak.

    Made by `prepare_radial`; valid for every frame of one geometry and mask.

    Examples
    --------
    >>> where = algorithms.pixel_positions(run.epixquad.geometry, distance=0.1)
    >>> finder = algorithms.prepare_radial(where.radius / 1e-4, adc=20, snr=5)
    """

    shape: tuple[int, int, int]
    # (panel, row, col)
    rings: Rings
    ring: NDArray[np.int32]
    # (pixel,) ring of each pixel, -1 where masked
    asic: tuple[int, int]
    # rows and columns of an ASIC; groups do not leave theirs
    adc: float
    # least threshold, in units of the data
    snr: float
    # least signal to noise, of pixels in rings and of peaks
    pixels: tuple[int, int]
    # least and largest number of pixels of a peak
    background_radius: int
    # pixels; the local background is taken within twice this distance

    @cached_property
    def kernel(self) -> tuple[Any, ...]:
        """What the kernel takes."""
        limits = (float(self.adc), float(self.snr), *self.pixels, int(self.background_radius))
        return self.rings.kernel, self.ring, (*self.shape, *self.asic), limits


def prepare_radial(
    radius: NDArray[Any],
    *,
    mask: NDArray[Any] | None = None,
    asic: tuple[int, int] | None = None,
    adc: float = 30.0,
    snr: float = 5.0,
    pixels: tuple[int, int] = (2, 50),
    background_radius: int = 3,
) -> RadialFinder:
    """Prepare finding peaks above a radial background.

    Parameters
    ----------
    radius : (panel, row, col) array
        Distance of each pixel from the beam in pixels; NaN where there is no pixel.
    mask : (panel, row, col) array, optional
        1 good, 0 bad.
    asic : (rows, cols), optional
        Size of the parts of a panel that peaks do not cross; the whole panel by default.
    adc : float
        Least threshold, in units of the data.
    snr : float
        Least signal to noise: of pixels against their ring, of peaks against their surroundings.
    pixels : (least, largest)
        Number of pixels of a peak.
    background_radius : int
        Pixels; the local background is taken within twice this distance of the centroid.

    Returns
    -------
    RadialFinder

    Raises
    ------
    ValueError
        The ASICs do not fill the panel, or mask and radius differ in shape.

    Examples
    --------
    >>> finder = algorithms.prepare_radial(where.radius / 110e-6, adc=100, snr=5)
    """
    radius = np.asarray(radius, np.float64)
    shape = panel_shape(radius.shape)
    asic = shape[1:] if asic is None else asic
    if shape[1] % asic[0] or shape[2] % asic[1]:
        raise ValueError(f"ASICs of {asic} pixels do not fill a panel of {shape[1:]}")
    good = np.isfinite(radius).reshape(shape)
    if mask is not None:
        good &= np.asarray(mask, bool).reshape(shape)
    whole = np.rint(np.where(good, radius.reshape(shape), -1.0)).astype(np.int32)
    count = int(whole.max(initial=-1)) + 1
    return RadialFinder(
        shape, sorted_by_ring(whole, count), whole.reshape(-1), asic, adc, snr, pixels, background_radius
    )


def panel_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return (panel, row, col) of the shape of a frame; leading dimensions are panels."""
    if len(shape) < 2 or 0 in shape:
        raise ValueError(f"frames are ([panel,] row, col), not {shape}")
    return int(np.prod(shape[:-2], dtype=int)), shape[-2], shape[-1]


@njit()
def radial_peaks(frames: Any, finder: Any, out: Any, counts: Any) -> None:
    """Find the peaks of each frame.

    `frames` is (event, pixel) float32, `out` (event, most, column) with the columns of
    `psana_dask.algorithms.groups.COLUMNS`, `counts` (event,) how many were found, also where
    `out` has no room for them.
    """
    rings, ring, shape, limits = finder
    values = np.empty(rings[0].size, np.float32)
    count = 0
    for i in range(rings[2].size):
        count = max(count, rings[2][i] + 1)
    lower, upper = np.empty(count, np.float32), np.empty(count, np.float32)
    level = np.zeros(count)
    state = np.zeros(ring.size, np.uint8)
    for event in range(frames.shape[0]):
        frame = frames[event]
        _ring_limits(frame, rings, values, level, lower, upper, limits[0], limits[1])
        seeds = _candidates(rings, values, upper, shape)
        _mark(seeds, state, shape, ABOVE)
        counts[event] = _groups(frame, (ring, level, upper), state, seeds, shape, limits, out[event])
        _mark(seeds, state, shape, BELOW)


@njit()
def _ring_limits(
    frame: Any, rings: Any, values: Any, level: Any, lower: Any, upper: Any, adc: float, snr: float
) -> None:
    """Set mean and limits of each ring; `values` gets the pixels in ring order."""
    order, starts, ring, tile_runs = rings
    sums = np.empty((lower.size, 3))
    moving = np.ones(lower.size, np.bool_)
    lanes = np.empty((3, LANES))
    lower[:], upper[:] = -np.inf, np.inf
    for number in range(PASSES):
        sums[:] = 0.0
        for tile in range(tile_runs.size - 1):
            pixels = frame[tile * TILE : (tile + 1) * TILE]
            for run in range(tile_runs[tile], tile_runs[tile + 1]):
                k = ring[run]
                if not moving[k]:
                    continue
                here = values[starts[run] : starts[run + 1]]
                if number == 0:
                    there = order[starts[run] : starts[run + 1]]
                    for i in range(here.size):
                        here[np.uint64(i)] = pixels[np.uint64(there[np.uint64(i)])]
                _add_between(here, lower[k], upper[k], sums[k], lanes)
        _new_limits(sums, moving, level, lower, upper, adc, snr)


@njit()
def _new_limits(sums: Any, moving: Any, level: Any, lower: Any, upper: Any, adc: float, snr: float) -> None:
    """Set mean and limits from the sums; a ring whose limits stay does not need another pass."""
    for k in range(lower.size):
        n = sums[k, 0]
        if not moving[k] or n == 0:
            upper[k] = max(upper[k], np.float32(adc)) if moving[k] else upper[k]
            moving[k] = False
            continue
        mean = sums[k, 1] / n
        spread = snr * np.sqrt(max(sums[k, 2] / n - mean * mean, 0.0))
        low, high = np.float32(mean - spread), np.float32(max(mean + spread, adc))
        moving[k] = low != lower[k] or high != upper[k]
        level[k], lower[k], upper[k] = mean, low, high


@njit()
def _add_between(values: Any, low: float, high: float, sums: Any, lanes: Any) -> None:
    """Add number, sum and sum of squares of the values between two limits (NaN is in no range)."""
    whole = values.size // LANES * LANES
    lanes[:] = 0.0
    for i in range(0, whole, LANES):
        for j in range(LANES):
            v = values[np.uint64(i + j)]
            inside = (v > low) & (v < high)
            w = np.float64(v) if inside else 0.0
            lanes[0, j] += 1.0 if inside else 0.0
            lanes[1, j] += w
            lanes[2, j] += w * w
    for j in range(LANES):
        for k in range(3):
            sums[k] += lanes[k, j]
    for i in range(whole, values.size):
        v = np.float64(values[i])
        if low < values[i] < high:
            sums[0] += 1
            sums[1] += v
            sums[2] += v * v


@njit()
def _candidates(rings: Any, values: Any, upper: Any, shape: Any) -> Any:
    """Return the pixels above the threshold of their ring, in the order ASIC, row, column."""
    order, starts, ring, tile_runs = rings
    found = np.empty(1024, np.int64)
    n = 0
    for tile in range(tile_runs.size - 1):
        for run in range(tile_runs[tile], tile_runs[tile + 1]):
            threshold = upper[ring[run]]
            for i in range(starts[run], starts[run + 1]):
                if values[np.uint64(i)] > threshold:
                    if n == found.size:
                        found = widened(found)
                    found[n] = _rank(tile * TILE + int(order[i]), shape)
                    n += 1
    _sort(found[:n])
    return found[:n]


@njit()
def _sort(values: Any) -> None:
    """Sort in place (Shell's method: numba compiles ``np.sort`` for ten seconds)."""
    gap = values.size // 2
    while gap > 0:
        for i in range(gap, values.size):
            v = values[i]
            j = i
            while j >= gap and values[j - gap] > v:
                values[j] = values[j - gap]
                j -= gap
            values[j] = v
        gap = gap // 2 if gap != 2 else 1


@njit()
def _rank(pixel: int, shape: Any) -> int:
    """Return the place of a pixel in the order panel, row of ASICs, ASIC, row, column."""
    _, rows, cols, deep, wide = shape
    line, col = pixel // cols, pixel % cols
    panel, row = line // rows, line % rows
    asic = (panel * (rows // deep) + row // deep) * (cols // wide) + col // wide
    return (asic * deep + row % deep) * wide + col % wide


@njit()
def _pixel(rank: int, shape: Any) -> tuple[int, int, int, int]:
    """Return (first line, first column, row, column) of ASIC and pixel of a rank; lines count all panels."""
    _, _, cols, deep, wide = shape
    rank, col = rank // wide, rank % wide
    asic, row = rank // deep, rank % deep
    across = cols // wide
    return asic // across * deep, asic % across * wide, row, col


@njit()
def _mark(seeds: Any, state: Any, shape: Any, value: Any) -> None:
    for seed in seeds:
        top, left, row, col = _pixel(seed, shape)
        state[(top + row) * shape[2] + left + col] = value


@njit()
def _groups(frame: Any, radial: Any, state: Any, seeds: Any, shape: Any, limits: Any, out: Any) -> int:
    """Grow a group from each seed, write the peaks, return how many there are."""
    _, rows, cols, deep, wide = shape
    least, most = limits[2], limits[3]
    members = np.empty((max(seeds.size, 1), 2), np.int64)
    row_of = np.zeros(out.shape[1])
    found = 0
    for seed in seeds:
        top, left, row, col = _pixel(seed, shape)
        inner = 0 < row < deep - 1 and 0 < col < wide - 1
        if not inner or state[(top + row) * cols + left + col] != ABOVE:
            continue
        box = (top, left, deep, wide, cols)
        n = _grow(state, members, row, col, box)
        if least <= n <= most and _describe(frame, radial, members[:n], box, rows, limits, row_of):
            if found < out.shape[0]:
                out[found] = row_of
            found += 1
    return found


@njit()
def _grow(state: Any, members: Any, row: int, col: int, box: Any) -> int:
    """Collect the pixels above threshold that touch each other, from one on, inside an ASIC."""
    top, left, deep, wide, cols = box
    members[0, 0], members[0, 1] = row, col
    state[(top + row) * cols + left + col] = TAKEN
    n, at = 1, 0
    while at < n:
        row, col = members[at]
        for r in range(max(row - 1, 0), min(row + 2, deep)):
            for c in range(max(col - 1, 0), min(col + 2, wide)):
                pixel = (top + r) * cols + left + c
                if state[pixel] == ABOVE:
                    state[pixel] = TAKEN
                    members[n, 0], members[n, 1] = r, c
                    n += 1
        at += 1
    return n


@njit()
def _describe(frame: Any, radial: Any, members: Any, box: Any, rows: int, limits: Any, out: Any) -> bool:
    """Measure a group against its surroundings; whether it is a peak."""
    top, left, deep, wide, cols = box
    corner = top // rows * rows
    measure(frame, members, (top, left, top, left), cols, 0.0, out)
    total, row, col = out[3], out[1], out[2]
    if not (total > 0 and 0 <= row <= deep - 1 and 0 <= col <= wide - 1):
        return False
    middle = _middle(frame, radial, members, box)
    level, noise, brightest = _surroundings(frame, radial, middle, box, limits[4])
    measure(frame, members, (top, left, corner, 0), cols, level, out)
    out[0], out[1], out[2] = top // rows, row + top - corner, col + left
    out[5] = out[3] / noise if noise > 0 else np.inf
    out[8] = noise
    return out[5] >= limits[1] and out[7] >= brightest - level


@njit()
def _middle(frame: Any, radial: Any, members: Any, box: Any) -> tuple[int, int]:
    """Return the pixel at the centroid of what stands above the mean of the rings."""
    ring, level, _ = radial
    top, left, _, _, cols = box
    total = down = right = 0.0
    for i in range(members.shape[0]):
        pixel = (top + members[i, 0]) * cols + left + members[i, 1]
        v = np.float64(frame[pixel]) - level[ring[pixel]]
        total += v
        down += v * members[i, 0]
        right += v * members[i, 1]
    return int(np.rint(down / total)), int(np.rint(right / total))


@njit()
def _surroundings(frame: Any, radial: Any, middle: Any, box: Any, radius: int) -> tuple[float, float, float]:
    """Return mean, standard deviation and maximum of the values around a pixel that are no peak."""
    ring, _, upper = radial
    top, left, deep, wide, cols = box
    reach = 2 * radius
    n = 0
    total = squares = 0.0
    brightest = -np.inf
    for row in range(max(middle[0] - reach, 0), min(middle[0] + reach, deep)):
        for col in range(max(middle[1] - reach, 0), min(middle[1] + reach, wide)):
            near = (row - middle[0]) ** 2 + (col - middle[1]) ** 2 <= reach * reach
            pixel = (top + row) * cols + left + col
            if not near or ring[pixel] < 0 or not frame[pixel] < upper[ring[pixel]]:
                continue
            v = np.float64(frame[pixel])
            n += 1
            total += v
            squares += v * v
            brightest = max(brightest, v)
    if n == 0:
        return 0.0, 0.01, 0.0
    mean = total / n
    return mean, np.sqrt(max(squares / n - mean * mean, 0.0)), brightest

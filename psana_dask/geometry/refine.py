"""Centre and distance of a detector from powder rings.

Algorithm
---------
1. Coarse centre: of the pixels, the brightest 2 % above a smooth radial background are kept; over
   a grid of shifts within ``search`` the sharpness of their histogram in radius (the sum of the
   squared counts) is largest where the rings are round.  The grid is refined twice, fivefold.
2. Control points: around each ring and in each azimuthal sector, the intensity is averaged
   in bins of the scattering angle's tangent; a straight line through the ends of the window is
   taken off and the centroid of what stands above half of the maximum is one point.
3. Fit: least squares of the shift (x, y, z) of the whole detector that puts the control points
   on cones of the known angles, ``hypot(x + dx, y + dy) = (z + dz) tan(2 theta)``, points further
   off than 4 median deviations left out.
4. Steps 2 and 3 are repeated with the moved detector and a narrower window until the shift
   changes by less than a hundredth of a pixel.

Step 3 finds a distance that is wrong by less than half the distance between rings (relative to the
ring's radius).  Tilts are not fitted: tilt and centre are hardly distinguished by rings of small angle.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import product
from math import asin, pi, sqrt
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psana_dask.errors import GeometryError
from psana_dask.geometry.model import Geometry, Triple
from psana_dask.geometry.segments import Array
from psana_dask.geometry.text import write_text
from psana_dask.geometry.tree import Coordinates, coordinates

WINDOWS = (0.45, 0.3, 0.2, 0.15)
# half widths around a ring, as a share of the distance to its neighbour, one per round
ROUNDS = 12
BINS = 48
# of the tangent, across a window


@dataclass(frozen=True)
class RingFit:
    """What `fit_rings` found."""

    geometry: Geometry
    # the detector where the rings say it is
    shift: Triple
    # um, x, y, z of the laboratory frame: from the old place to the new one
    uncertainty: Triple
    # um, one standard deviation from the scatter of the control points
    residual: float
    # um, root mean square distance of the control points from their rings
    points: tuple[int, ...]
    # control points used on each ring
    rounds: int
    before: str = ""
    # hash of the geometry that was refined

    def __str__(self) -> str:
        x, y, z = (f"{s:+.2f} +- {u:.2f}" for s, u in zip(self.shift, self.uncertainty, strict=True))
        return (
            f"moved by x {x}, y {y}, z {z} um (laboratory frame); residual {self.residual:.2f} um, "
            f"{sum(self.points)} points on {len(self.points)} rings, {self.rounds} rounds"
        )

    def constants(self) -> dict[str, str]:
        """Return the geometry constant to deploy: the text, with how it was found as comments."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        notes = (
            f"# REFINED from powder rings by psana_dask, {now}",
            f"# {self}",
            f"# geometry before: {self.before[:16]}, now: {self.geometry.key[:16]}",
        )
        comments = (*((0, note) for note in notes), *self.geometry.comments)
        return {"geometry": write_text(replace(self.geometry, comments=comments))}


@dataclass(frozen=True, eq=False)
class _Points:
    """Control points: place on the detector, m to the interaction point, and tangent of the ring."""

    x: Array
    y: Array
    z: Array
    ring: NDArray[np.int64]
    weight: Array


def two_theta(spacings: Iterable[float], wavelength: float) -> tuple[float, ...]:
    """Return the scattering angles (rad) of lattice spacings by Bragg's law, same unit as the wavelength.

    Spacings that are too small to scatter are left out.
    """
    return tuple(2 * asin(wavelength / (2 * d)) for d in spacings if d >= wavelength / 2)


def spacings(calibrant: str, most: int = 12) -> tuple[float, ...]:
    """Return the largest lattice spacings of a calibrant, angstrom.

    Silver behenate: T. C. Huang et al., J. Appl. Cryst. 26 (1993) 180.  LaB6, CeO2, Si: lattice
    constants of the NIST standards 660c, 674b, 640d and the reflections that their cells allow.
    """
    if calibrant == "AgBeh":
        return tuple(58.380 / order for order in range(1, most + 1))
    if calibrant not in CUBIC:
        raise GeometryError(f"no calibrant {calibrant!r}; there are AgBeh, {', '.join(CUBIC)}")
    length, allowed = CUBIC[calibrant]
    sums = sorted({sum(i * i for i in hkl) for hkl in product(range(7), repeat=3) if allowed(*hkl)})
    return tuple(length / sqrt(total) for total in sums if total)[:most]


def fit_rings(
    intensity: NDArray[Any],
    geometry: Geometry,
    angles: Sequence[float],
    *,
    mask: NDArray[np.bool_] | None = None,
    search: float = 5000.0,
    sectors: int = 36,
    distance: bool = True,
) -> RingFit:
    """Find where the detector is from the rings of a powder.

    Parameters
    ----------
    intensity : array (panel, row, col)
        For instance the mean of calibrated frames; NaN for bad pixels.
    geometry : Geometry
        Where the detector is thought to be.
    angles : sequence of float
        Scattering angles 2 theta of the rings, rad; rings off the detector are ignored.
    mask : bool array (panel, row, col), optional
        True for good pixels.
    search : float
        How far off the centre may be, um; 0 if it is known to a fraction of the ring spacing.
    sectors : int
        Azimuthal sectors; each gives at most one control point per ring.
    distance : bool
        Fit z as well as x and y.

    Returns
    -------
    RingFit

    Raises
    ------
    GeometryError
        Fewer control points than the fit needs, or no agreement after 12 rounds.
    """
    good = np.isfinite(intensity) if mask is None else np.isfinite(intensity) & mask
    where = coordinates(geometry, frame="lab")
    good &= np.isfinite(where.x)
    pixels = Coordinates(*(axis[good] for axis in where))
    value = np.asarray(intensity[good], np.float64)
    tangents = np.tan(np.sort(np.asarray(angles, np.float64)))
    shift = np.array([*_coarse_centre(pixels, value, search), 0.0]) if search > 0 else np.zeros(3)
    return _iterate(geometry, pixels, value, tangents, shift, sectors, distance)


def _iterate(
    geometry: Geometry,
    pixels: Coordinates,
    value: Array,
    tangents: Array,
    shift: Array,
    sectors: int,
    distance: bool,
) -> RingFit:
    enough = geometry.segment.pixel_size / 100
    for number in range(ROUNDS):
        moved = Coordinates(*(axis + step for axis, step in zip(pixels, shift, strict=True)))
        window = WINDOWS[min(number, len(WINDOWS) - 1)]
        points = _control_points(moved, value, tangents, window, sectors)
        change, spread, residual, used = _fit(points, tangents, distance)
        shift = shift + change
        if number >= len(WINDOWS) - 1 and float(np.abs(change).max()) < enough:
            counts = np.bincount(points.ring[used], minlength=len(tangents))
            x, y, z = (float(v) for v in shift)
            placed = shifted(geometry, (x, y, z))
            deviations = (float(spread[0]), float(spread[1]), float(spread[2]))
            used_points = tuple(counts.tolist())
            return RingFit(placed, (x, y, z), deviations, residual, used_points, number + 1, geometry.key)
    raise GeometryError(
        f"the rings were not found: after {ROUNDS} rounds the shift still changes by "
        f"{np.abs(change).max():.1f} um; check the wavelength, the distance and search="
    )


def shifted(geometry: Geometry, shift: Triple) -> Geometry:
    """Return the geometry moved as a whole by ``(x, y, z)`` um in the laboratory frame."""
    x, y, z = shift
    parts = tuple(
        replace(p, origin=(p.origin[0] - y, p.origin[1] - x, p.origin[2] - z))
        if p.parent_key == geometry.root
        else p
        for p in geometry.parts
    )
    return replace(geometry, parts=parts)


def _coarse_centre(pixels: Coordinates, value: Array, search: float) -> tuple[float, float]:
    """Return the shift of x and y (um) that makes the rings round."""
    bright = _brightest(pixels, value)
    x, y = pixels.x[bright], pixels.y[bright]
    # a ring seen off centre is spread over twice the error
    step = search / 12
    centre = np.zeros(2)
    for _ in range(3):
        tries = [np.add(centre, (i * step, j * step)) for i in range(-12, 13) for j in range(-12, 13)]
        scores = [_sharpness(x + dx, y + dy, max(step, 50.0)) for dx, dy in tries]
        centre = tries[int(np.argmax(scores))]
        step /= 5
    return float(centre[0]), float(centre[1])


def _brightest(
    pixels: Coordinates, value: Array, share: float = 0.02, most: int = 20000
) -> NDArray[np.int64]:
    """Return the pixels that stand out most from the mean at their radius."""
    radius = np.hypot(pixels.x, pixels.y)
    shell = (radius / max(float(radius.max()), 1.0) * 20).astype(np.int64)
    counts = np.maximum(np.bincount(shell), 1)
    mean = np.bincount(shell, value) / counts
    spread = np.sqrt(np.maximum(np.bincount(shell, value**2) / counts - mean**2, 1e-30))
    above = (value - mean[shell]) / spread[shell]
    count = max(int(share * value.size), 1)
    chosen = np.argpartition(above, -count)[-count:]
    return chosen[:: max(count // most, 1)]


def _sharpness(x: Array, y: Array, step: float) -> float:
    counts = np.bincount((np.hypot(x, y) / step).astype(np.int64)).astype(np.float64)
    # the number of pixels grows with the radius, what a sharp ring adds to it does not
    return float((counts**2 / (np.arange(counts.size) + 1)).sum())


def _control_points(
    pixels: Coordinates, value: Array, tangents: Array, window: float, sectors: int
) -> _Points:
    tangent = np.hypot(pixels.x, pixels.y) / pixels.z
    azimuth = np.arctan2(pixels.y, pixels.x)
    found = []
    for ring, (middle, half) in enumerate(zip(tangents, _half_widths(tangents) * window, strict=True)):
        near = np.flatnonzero(np.abs(tangent - middle) < half)
        sector = ((azimuth[near] + pi) / (2 * pi) * sectors).astype(np.int64) % sectors
        across = (tangent[near] - middle + half) / (2 * half)
        for k, weight, peak in _centroids(*_profiles(sector, across, value[near], sectors)):
            at = near[sector == k]
            angle = float(np.angle(np.exp(1j * azimuth[at]).mean()))
            found.append((middle + (2 * peak - 1) * half, angle, pixels.z[at].mean(), float(ring), weight))
    if not found:
        raise GeometryError("no ring stands out anywhere near its angle; check wavelength and distance")
    place, angle_of, z, rings, weights = np.array(found).T
    radius = place * z
    return _Points(radius * np.cos(angle_of), radius * np.sin(angle_of), z, rings.astype(np.int64), weights)


def _profiles(
    sector: NDArray[np.int64], across: Array, value: Array, sectors: int
) -> tuple[Array, Array]:
    """Return pixel counts and sums of the intensity (sector, bin); `across` is 0 to 1 over the window."""
    bins = np.minimum((across * BINS).astype(np.int64), BINS - 1)
    cells = sector * BINS + bins
    counts, sums = (
        np.bincount(cells, weights, sectors * BINS).reshape(sectors, BINS).astype(np.float64)
        for weights in (None, value)
    )
    return counts, sums


def _half_widths(tangents: Array) -> Array:
    """Return the distance of each ring to its nearest neighbour; a single ring has a tenth of its own."""
    if len(tangents) == 1:
        return tangents * 0.1
    gaps = np.diff(tangents)
    return np.minimum(np.append(gaps, np.inf), np.insert(gaps, 0, np.inf))


def _centroids(counts: Array, sums: Array) -> list[tuple[int, float, float]]:
    """Return (sector, weight, place from 0 to 1) of the peaks that stand out by five deviations."""
    found = []
    for sector, (count, total) in enumerate(zip(counts, sums, strict=True)):
        if (count < 4).any():
            continue
        above, noise = _above_line(total / count)
        top = float(above.max())
        if top < 5 * noise:
            continue
        peak = np.flatnonzero(above > top / 2)
        place = float((peak + 0.5) @ above[peak] / above[peak].sum()) / BINS
        found.append((sector, sqrt(float(count[peak].sum())), place))
    return found


def _above_line(mean: Array) -> tuple[Array, float]:
    """Take off the straight line through both ends; return the rest and the noise of the ends."""
    ends = BINS // 8
    first, last = mean[:ends], mean[-ends:]
    line = np.interp(np.arange(BINS), [ends / 2, BINS - ends / 2], [first.mean(), last.mean()])
    return mean - line, float(np.concatenate([np.diff(first), np.diff(last)]).std()) + 1e-30


def _fit(points: _Points, tangents: Array, distance: bool) -> tuple[Array, Array, float, NDArray[np.bool_]]:
    """Return shift, its standard deviations, the residual (um) and which points were used."""
    radius = np.hypot(points.x, points.y)
    design = np.stack([points.x / radius, points.y / radius, -tangents[points.ring]], axis=1)
    design = design[:, : 3 if distance else 2]
    target = tangents[points.ring] * points.z - radius
    solution, used = _clipped(design, target, points.weight)
    left = (target - design @ solution)[used]
    weights = points.weight[used] ** 2
    variance = float(weights @ left**2) / (used.sum() - design.shape[1])
    normal = np.linalg.inv((design[used] * weights[:, None]).T @ design[used])
    change, spread = np.zeros(3), np.zeros(3)
    change[: design.shape[1]] = solution
    spread[: design.shape[1]] = np.sqrt(np.diag(normal) * variance)
    return change, spread, float(np.sqrt((left**2).mean())), used


def _clipped(design: Array, target: Array, weight: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Solve least squares four times, leaving out what is further off than 4 median deviations."""
    used = np.ones(len(target), np.bool_)
    solution: Array = np.zeros(design.shape[1])
    for _ in range(4):
        if used.sum() < 2 * design.shape[1]:
            raise GeometryError(f"only {int(used.sum())} control points; more rings or sectors are needed")
        rows = design[used] * weight[used, None]
        solution = np.asarray(np.linalg.lstsq(rows, target[used] * weight[used], rcond=None)[0], np.float64)
        left = np.abs(target - design @ solution)
        used = left <= 4 * max(1.4826 * float(np.median(left[used])), 1e-9)
    return solution, used


def _any(*_: int) -> bool:
    return True


def _face_centred(*hkl: int) -> bool:
    return len({index % 2 for index in hkl}) == 1


def _diamond(*hkl: int) -> bool:
    return _face_centred(*hkl) and (hkl[0] % 2 == 1 or sum(hkl) % 4 == 0)


CUBIC: Mapping[str, tuple[float, Any]] = MappingProxyType(
    {
        "LaB6": (4.156826, _any),
        "CeO2": (5.411651, _face_centred),
        "Si": (5.43123, _diamond),
    }
)
# lattice constant, angstrom, and which reflections there are

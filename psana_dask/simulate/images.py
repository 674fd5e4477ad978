"""Frames that look like diffraction, with rings and peaks at known places.

A detector's panels lie in a grid, left to right and top to bottom, with a gap between
them; (y, x) are pixels of that assembled plane, with pixel centres at whole numbers.  The
expected number of photons is a smooth background plus rings plus Bragg peaks, and nothing
behind the beam stop; a frame is ``pedestal + adu_per_photon * Poisson(expected * pulse
energy) + read noise``.  ``tests/test_simulate.py`` finds the rings and peaks again.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import ceil, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from psana_dask.simulate.values import mixed

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What falls on a detector; lengths in pixels, levels in photons per pixel at 1 mJ.

    Examples
    --------
    >>> simulate.Scene(rings=(40.0, 80.0), peaks=3)
    """

    rings: tuple[float, ...] | None = None  # radii; default 0.35, 0.6, 0.85 of the half size
    ring_level: float = 2.0
    ring_sigma: float = 2.0
    peaks: int | tuple[tuple[float, float], ...] = 8  # how many, or their (y, x)
    peak_level: float = 30.0
    peak_sigma: float = 1.3
    background: float = 0.15
    centre: tuple[float, float] | None = None  # (y, x) of the beam; default near the middle
    stop_radius: float | None = None  # of the beam stop's shadow; default 0.12 of the half size
    gap: int = 8  # between panels
    adu_per_photon: float = 20.0
    pedestal: float = 1000.0
    pedestal_spread: float = 30.0
    read_noise: float = 3.0  # ADU, standard deviation


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A `Scene` on the panels of one detector.

    A segment's frame may hold several panels (its leading axes); panel p of segment number
    s is panel ``position of s * panels per segment + p``.

    Examples
    --------
    >>> truth.picture("epixquad").rings
    """

    scene: Scene
    seed: int
    name: str
    segments: tuple[int, ...]
    frame_shape: tuple[int, ...]  # (row, col) or (..., row, col)
    dtype: str

    @property
    def panels_per_segment(self) -> int:
        """How many panels a segment's frame holds."""
        return int(np.prod(self.frame_shape[:-2], dtype=int))

    @cached_property
    def corners(self) -> npt.NDArray[np.int64]:
        """First row and column of each panel in the assembled plane, (panel, 2)."""
        count = len(self.segments) * self.panels_per_segment
        across = ceil(sqrt(count))
        down, right = np.divmod(np.arange(count), across)
        rows, cols = self.frame_shape[-2:]
        return np.stack([down * (rows + self.scene.gap), right * (cols + self.scene.gap)], axis=1)

    @cached_property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the assembled plane."""
        far = self.corners.max(axis=0) + self.frame_shape[-2:]
        return int(far[0]), int(far[1])

    @cached_property
    def centre(self) -> tuple[float, float]:
        """(y, x) where the beam would hit."""
        if self.scene.centre is not None:
            return self.scene.centre
        return self.shape[0] / 2 + 2.3, self.shape[1] / 2 - 3.6

    @property
    def _half(self) -> float:
        return min(self.shape) / 2

    @cached_property
    def rings(self) -> tuple[float, ...]:
        """Radii of the rings in pixels."""
        if self.scene.rings is not None:
            return self.scene.rings
        return tuple(round(part * self._half, 1) for part in (0.35, 0.6, 0.85))

    @cached_property
    def stop_radius(self) -> float:
        """Radius of the beam stop's shadow in pixels."""
        given = self.scene.stop_radius
        return 0.12 * self._half if given is None else given

    @cached_property
    def peaks(self) -> Floats:
        """(y, x) of each Bragg peak: away from rings, panel edges and each other, (peak, 2)."""
        if not isinstance(self.scene.peaks, int):
            return np.array(self.scene.peaks, np.float64).reshape(-1, 2)
        random = np.random.Generator(np.random.Philox(key=mixed(self.seed, self.name, "peaks")))
        tried = random.uniform((0, 0), self.shape, (4000, 2)).round(2)
        found: list[npt.NDArray[np.float64]] = []
        for place in tried[self._is_quiet(tried)]:
            apart = all(np.hypot(*(place - other)) > 20 for other in found)
            if apart and len(found) < self.scene.peaks:
                found.append(place)
        return np.array(found, np.float64).reshape(-1, 2)

    def _is_quiet(self, places: Floats) -> npt.NDArray[np.bool_]:
        """Tell which (y, x) lie well inside a panel, away from the rings and the beam stop."""
        from_corner = places[:, None] - self.corners - 8
        room = np.array(self.frame_shape[-2:]) - 17
        inside = np.any(np.all((from_corner >= 0) & (from_corner <= room), axis=2), axis=1)
        radius = np.hypot(*(places - self.centre).T)
        off_rings = np.all([abs(radius - ring) > 12 for ring in self.rings], axis=0)
        quiet: npt.NDArray[np.bool_] = inside & off_rings & (radius > self.stop_radius + 10)
        return quiet

    @cached_property
    def expected(self) -> Floats:
        """Photons per pixel at 1 mJ, (panel, row, col)."""
        rows, cols = self.frame_shape[-2:]
        y = self.corners[:, 0, None, None] + np.arange(rows)[:, None] + np.zeros(cols)
        x = self.corners[:, 1, None, None] + np.zeros(rows)[:, None] + np.arange(cols)
        radius = np.hypot(y - self.centre[0], x - self.centre[1])
        photons = self._smooth(radius)
        for peak in self.peaks:
            self._add_peak(photons, peak)
        photons[radius < self.stop_radius] = 0.0
        return photons

    def _add_peak(self, photons: Floats, peak: Floats) -> None:
        """Add a Gaussian spot to the panels it touches; beyond 8 sigma nothing is left of it."""
        reach = int(8 * self.scene.peak_sigma) + 1
        for panel, corner in zip(photons, self.corners, strict=True):
            y, x = peak - corner
            rows, cols = (slice(max(0, int(v) - reach), max(0, int(v) + reach)) for v in (y, x))
            down, right = np.ogrid[: panel.shape[0], : panel.shape[1]]
            apart = ((down[rows] - y) ** 2 + (right[:, cols] - x) ** 2) / (2 * self.scene.peak_sigma**2)
            panel[rows, cols] += self.scene.peak_level * np.exp(-apart)

    def _smooth(self, radius: Floats) -> Floats:
        scene = self.scene
        photons = np.full_like(radius, scene.background)
        for ring in self.rings:
            photons += scene.ring_level * np.exp(-((radius - ring) ** 2) / (2 * scene.ring_sigma**2))
        return photons

    @cached_property
    def pedestals(self) -> npt.NDArray[np.float32]:
        """Dark level of each pixel in ADU, (panel, row, col)."""
        random = np.random.Generator(np.random.Philox(key=mixed(self.seed, self.name, "pedestals")))
        spread = self.scene.pedestal_spread * random.standard_normal(self.expected.shape)
        return np.asarray(self.scene.pedestal + spread, np.float32).round(2)

    def frame(self, event: int, segment: int, intensity: float) -> npt.NDArray[np.generic]:
        """Return the frame of one event and segment, of `dtype` and `frame_shape`."""
        from psana_dask.simulate.exposure import expose

        first = self.segments.index(segment) * self.panels_per_segment
        panels = slice(first, first + self.panels_per_segment)
        counts = np.empty(self.frame_shape, np.float64)
        key = mixed(self.seed, self.name, "frame", segment, event)
        scene = self.scene
        expose(
            self.expected[panels].ravel(),
            self.pedestals[panels].ravel(),
            np.uint64(key),
            intensity,
            scene.adu_per_photon,
            scene.read_noise,
            counts.reshape(-1),
        )
        return _stored(counts, np.dtype(self.dtype))

    def assembled(self, panels: npt.NDArray[np.generic], fill: float = np.nan) -> Floats:
        """Put panels (panel, row, col) into the plane; `fill` goes between them."""
        plane = np.full(self.shape, fill)
        rows, cols = self.frame_shape[-2:]
        flat = panels.reshape(-1, rows, cols)
        for (y, x), panel in zip(self.corners, flat, strict=True):
            plane[y : y + rows, x : x + cols] = panel
        return plane


def _stored(counts: Floats, dtype: np.dtype[Any]) -> npt.NDArray[np.generic]:
    if dtype.kind == "f":
        return counts.astype(dtype)
    top = min(np.iinfo(dtype).max, 0x3FFF)  # 14 bits: the two above are the gain bits of switching detectors
    return np.clip(np.floor(counts + 0.5), 0, top).astype(dtype)

"""Where pixels are as the sample sees them: scattering angle, momentum transfer, azimuth.

The frame is the laboratory's (`docs/geometry.md`): z along the beam, y up, x to the left when one
looks along the beam; metres, from the sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from psana_dask.geometry.model import Geometry
from psana_dask.geometry.tree import areas, coordinates

HC = 12398.419843320026
# eV * angstrom: h * c / e, from the exact values of the SI

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Positions:
    """The centres of pixels, each ([panel,] row, col) in metres from the sample, and their areas.

    Examples
    --------
    >>> where = algorithms.pixel_positions(run.epixquad.geometry, distance=0.1)
    >>> where.radius.max(), where.two_theta.shape
    """

    x: Floats
    y: Floats
    z: Floats
    area: Floats
    # in units of a regular pixel
    normal: tuple[float, float, float] = (0.0, 0.0, 1.0)
    # of the sensors, for the solid angle

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a frame."""
        return self.x.shape

    @cached_property
    def radius(self) -> Floats:
        """Distance from the beam, m."""
        return np.hypot(self.x, self.y)

    @cached_property
    def two_theta(self) -> Floats:
        """Scattering angle in radians: ``atan2(sqrt(x^2 + y^2), z)``."""
        return np.arctan2(self.radius, self.z)

    @cached_property
    def half_sine(self) -> Floats:
        """``sin(two_theta / 2)``: momentum transfer in units of ``4 pi / wavelength``."""
        return np.sin(self.two_theta / 2)

    @cached_property
    def azimuth(self) -> Floats:
        """Azimuth in radians, -pi to pi: ``atan2(y, x)``, from the x axis towards y."""
        return np.arctan2(self.y, self.x)

    def q(self, energy: float) -> Floats:
        """Momentum transfer in 1/angstrom at a photon energy in eV: ``4 pi / wavelength * sin(theta)``."""
        return momentum_factor(energy) * self.half_sine

    @cached_property
    def solid_angle(self) -> Floats:
        """Solid angle of each pixel, in units of a regular one that faces the sample at distance ``|z|``.

        ``area * cos(a) * (z / r)^2`` with the distance ``r`` to the sample and the angle ``a``
        between the direction to it and the normal of the sensors; ``(z / r)^3`` for a flat
        detector across the beam.
        """
        distance = np.sqrt(self.x**2 + self.y**2 + self.z**2)
        toward = (self.x * self.normal[0] + self.y * self.normal[1] + self.z * self.normal[2]) / distance
        return np.asarray(self.area * np.abs(toward) * (self.z / distance) ** 2)

    def polarisation(self, factor: float = 1.0) -> Floats:
        """Relative intensity of each pixel for linearly polarised light.

        ``(1 + cos^2(2theta) - factor * cos(2 azimuth) * sin^2(2theta)) / 2`` (pyFAI's convention):
        factor 1 is light polarised along x (horizontally), -1 along y, 0 unpolarised.
        """
        cosine = np.cos(self.two_theta) ** 2
        return np.asarray((1 + cosine - factor * np.cos(2 * self.azimuth) * (1 - cosine)) / 2)


def momentum_factor(energy: ArrayLike) -> Floats:
    """Return ``4 pi / wavelength`` in 1/angstrom for photon energies in eV.

    Examples
    --------
    >>> algorithms.momentum_factor(9500.0)
    """
    return np.asarray(4 * np.pi / HC * np.asarray(energy, np.float64))


def pixel_positions(
    geometry: Geometry, *, distance: float | None = None, centre: tuple[float, float] = (0.0, 0.0)
) -> Positions:
    """Return where the pixels of a geometry are, as the sample sees them.

    Parameters
    ----------
    geometry : Geometry
        ``run.cspad.geometry``, for instance.
    distance : float, optional
        From the sample to the mean plane of the pixels, m; by default what the geometry says.
    centre : (x, y)
        Where the beam passes, m in the laboratory frame.

    Raises
    ------
    ValueError
        The geometry has no distance (its pixels lie at z = 0) and none is given.

    Examples
    --------
    >>> where = algorithms.pixel_positions(run.cspad.geometry, distance=0.0925)
    """
    x, y, z = (np.asarray(axis) * 1e-6 for axis in coordinates(geometry, frame="lab"))
    mean = float(np.nanmean(z))
    if distance is None and abs(mean) < 1e-6:
        raise ValueError("this geometry does not say how far the sample is: give distance= in metres")
    shift = 0.0 if distance is None else distance - mean
    return Positions(x - centre[0], y - centre[1], z + shift, np.asarray(areas(geometry), np.float64))


def flat_positions(
    shape: tuple[int, int], *, pixel: float, distance: float, centre: tuple[float, float]
) -> Positions:
    """Return the positions of one flat sensor across the beam, rows downwards, columns to the right.

    Parameters
    ----------
    shape : (rows, cols)
    pixel : float
        Size, m.
    distance : float
        From the sample, m.
    centre : (row, col)
        Where the beam hits, in pixels.

    Examples
    --------
    >>> where = algorithms.flat_positions((1024, 1024), pixel=75e-6, distance=0.1, centre=(512, 512))
    """
    row, col = np.mgrid[: shape[0], : shape[1]].astype(np.float64)
    # seen along the beam: the columns run to the right, which is minus x
    x, y = -(col - centre[1]) * pixel, -(row - centre[0]) * pixel
    return Positions(x, y, np.full(shape, float(distance)), np.ones(shape))

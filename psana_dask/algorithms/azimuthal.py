"""Azimuthal integration on panels: intensity against q, scattering angle or radius.

A bin's intensity is ``sum(signal) / sum(norm)`` over its good pixels, with
``norm = solid_angle * polarisation`` (pyFAI's definition), or with ``weighted=False`` the plain mean
of ``signal / norm``.  A pixel belongs to the bin of its centre.  NaN pixels count in neither sum.

Errors are those of the intensity (standard error of the mean):

- ``"poisson"``: variance of a pixel ``|signal| * gain`` with `gain` the signal of one photon:
  ``sqrt(gain * sum(signal)) / sum(norm)``;
- ``"azimuthal"``: from the scatter around the ring,
  ``sqrt(sum(norm^2 (signal / norm - mean)^2)) / sum(norm)``.

The table of a geometry, one bin number per pixel, is made once; adding a frame up takes about two
copies of it.  With an energy per event the bins of q move with it and are found per event.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from psana_dask.algorithms.positions import Positions, momentum_factor
from psana_dask.jit import njit

Unit = Literal["q", "two_theta", "radius"]
UNITS: dict[Unit, str] = {"q": "1/angstrom", "two_theta": "degree", "radius": "m"}

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Integrator:
    """The bins of a geometry; made by `prepare_azimuthal`, valid for every frame of it.

    Examples
    --------
    >>> where = algorithms.pixel_positions(run.epixquad.geometry, distance=0.1)
    >>> algorithms.prepare_azimuthal(where, bins=100, unit="two_theta").centres
    """

    shape: tuple[int, ...]
    # of a frame
    unit: Unit
    edges: Floats
    # (bin + 1,) along q, two_theta or radius
    azimuths: Floats
    # (azimuth + 1,) degrees
    place: Floats
    # (pixel,) sin(two_theta / 2), degrees, or metres; NaN where masked
    sector: NDArray[np.int32]
    # (pixel,) number of the azimuth bin, -1 outside all
    norm: Floats
    # (pixel,) solid angle * polarisation
    energy: float | None
    # eV; None: one per event
    weighted: bool

    @property
    def bins(self) -> tuple[int, int]:
        """Number of azimuth bins and of radial ones."""
        return len(self.azimuths) - 1, len(self.edges) - 1

    @property
    def centres(self) -> Floats:
        """Centres of the radial bins."""
        return np.asarray((self.edges[1:] + self.edges[:-1]) / 2)

    @property
    def azimuth_centres(self) -> Floats:
        """Centres of the azimuth bins, degrees."""
        return np.asarray((self.azimuths[1:] + self.azimuths[:-1]) / 2)

    @cached_property
    def table(self) -> NDArray[np.int32]:
        """Bin of each pixel at `energy`; those of no bin belong to one more at the end."""
        scale = 1.0 if self.unit != "q" or self.energy is None else float(momentum_factor(self.energy))
        return self.numbers(scale)

    def numbers(self, scale: float) -> NDArray[np.int32]:
        """Return the bin of each pixel whose place is multiplied by `scale`; NaN for no bins at all."""
        count = len(self.edges) - 1
        steps = np.diff(self.edges)
        out = np.full(len(self.place), self.bins[0] * count, np.int32)
        if np.allclose(steps, steps[0], rtol=1e-9, atol=0):
            step = (self.edges[-1] - self.edges[0]) / count
            _even_bins(self.place, scale, self.edges[0], 1 / step, count, self.sector, out)
            return out
        place = np.nan_to_num(self.place * scale, nan=np.inf)
        at = np.searchsorted(self.edges, place, side="right") - 1
        inside = (at >= 0) & (at < count) & (self.sector >= 0)
        out[inside] = self.sector[inside] * count + at[inside]
        return out

    @cached_property
    def weights(self) -> tuple[Floats, Floats]:
        """What multiplies each signal, and what each pixel adds to the norm."""
        ones = np.ones_like(self.norm)
        return (ones, self.norm) if self.weighted else (1 / self.norm, ones)

    @cached_property
    def totals(self) -> tuple[Floats, Floats]:
        """Sum of the norms and number of pixels of each bin, where none is NaN."""
        return self.totals_of(self.table)

    def totals_of(self, table: NDArray[np.int32]) -> tuple[Floats, Floats]:
        """Return `totals` for other bins than `table`."""
        sums = np.zeros((2, self.bins[0] * self.bins[1] + 1))
        _count_up(table, self.weights[1], *sums)
        return sums[0, :-1], sums[1, :-1]


class Profiles(NamedTuple):
    """Intensities of some frames, (event, azimuth, bin) each; NaN where a bin has no pixel.

    Examples
    --------
    >>> where = algorithms.pixel_positions(run.epixquad.geometry, distance=0.1)
    >>> table = algorithms.prepare_azimuthal(where, bins=100, unit="two_theta")
    >>> algorithms.integrate(run.epixquad.calib[:1].values, table).intensity.shape
    """

    intensity: Floats
    error: Floats
    # NaN unless errors were asked for
    pixels: Floats
    # how many pixels count


def prepare_azimuthal(
    where: Positions,
    *,
    bins: int | ArrayLike = 1000,
    unit: Unit = "q",
    energy: float | None = None,
    span: tuple[float, float] | None = None,
    azimuths: int | ArrayLike = 1,
    azimuth_span: tuple[float, float] = (-180.0, 180.0),
    mask: NDArray[Any] | None = None,
    solid_angle: bool = True,
    polarisation: float | None = None,
    weighted: bool = True,
) -> Integrator:
    """Prepare azimuthal integration.

    Parameters
    ----------
    where : Positions
        From `pixel_positions`.
    bins : int or edges
        Number of bins in `span`, or their edges.
    unit : {"q", "two_theta", "radius"}
        1/angstrom, degrees, metres.
    energy : float, optional
        Photon energy in eV; needed for `span` of q by default. Without it, each event brings its own.
    span : (first, last), optional
        Range of the bins; by default that of the good pixels.
    azimuths, azimuth_span
        The same of azimuth, in degrees from the x axis towards y.
    mask : array of a frame's shape, optional
        1 good, 0 bad.
    solid_angle : bool
        Divide by the solid angle of the pixels.
    polarisation : float, optional
        Divide by the polarisation: 1 horizontal light (LCLS), -1 vertical, 0 unpolarised.
    weighted : bool
        ``sum(signal) / sum(norm)``, or the plain mean of ``signal / norm``.

    Raises
    ------
    ValueError
        Neither energy nor edges for q; edges that do not increase; a mask of another shape.

    Examples
    --------
    >>> table = algorithms.prepare_azimuthal(where, bins=500, energy=9500, mask=mask)
    """
    place = _places(where, unit)
    good = _good(place, mask)
    if unit == "q" and energy is None and np.ndim(bins) == 0 and span is None:
        raise ValueError("bins of q need energy= in eV, or span= or edges in 1/angstrom")
    scale = 1.0 if unit != "q" or energy is None else float(momentum_factor(energy))
    edges = _edges(bins, span or _span(place[good] * scale))
    sectors = _edges(azimuths, azimuth_span)
    norm = where.solid_angle if solid_angle else np.ones(where.shape)
    norm = norm if polarisation is None else norm * where.polarisation(polarisation)
    return Integrator(
        where.shape, unit, edges, sectors, np.where(good, place, np.nan).reshape(-1),
        _sectors(where, sectors).reshape(-1), np.where(good, norm, 1.0).reshape(-1), energy, weighted,
    )  # fmt: skip


def _places(where: Positions, unit: Unit) -> Floats:
    """Return what the bins of a unit are of: for q, ``sin(two_theta / 2)``."""
    if unit not in UNITS:
        raise ValueError(f"unit={unit!r}: use {', '.join(UNITS)}")
    if unit == "two_theta":
        return np.degrees(where.two_theta)
    return where.half_sine if unit == "q" else where.radius


def _good(place: Floats, mask: NDArray[Any] | None) -> NDArray[np.bool_]:
    """Return which pixels have a place and are not masked."""
    if mask is None:
        return np.isfinite(place)
    if np.shape(mask) != place.shape:
        raise ValueError(f"a mask of {np.shape(mask)} for frames of {place.shape}")
    return np.isfinite(place) & np.asarray(mask, bool)


def _span(values: Floats) -> tuple[float, float]:
    if values.size == 0:
        raise ValueError("no pixel is good: give span= or edges")
    return float(values.min()), float(values.max())


def _edges(bins: int | ArrayLike, span: tuple[float, float]) -> Floats:
    edges = np.linspace(*span, int(np.asarray(bins)) + 1) if np.ndim(bins) == 0 else np.asarray(bins, float)
    if len(edges) < 2 or not (np.diff(edges) > 0).all():
        raise ValueError(f"edges of bins increase: {edges[:4]}...")
    return edges


def _sectors(where: Positions, edges: Floats) -> NDArray[np.int32]:
    """Return the azimuth bin of each pixel; angles count modulo 360 degrees from the first edge."""
    turned = edges[0] + np.mod(np.degrees(where.azimuth) - edges[0], 360.0)
    found = np.searchsorted(edges, np.nan_to_num(turned, nan=np.inf), side="right") - 1
    return np.where(found < len(edges) - 1, found, -1).astype(np.int32)


def integrate(
    frames: NDArray[Any],
    integrator: Integrator,
    energy: ArrayLike | None = None,
    *,
    error: Literal["poisson", "azimuthal"] | None = None,
    gain: float = 1.0,
) -> Profiles:
    """Integrate frames azimuthally.

    Parameters
    ----------
    frames : (event, ...) array
        Calibrated; NaN where there are no data.
    integrator : Integrator
    energy : (event,) array, optional
        Photon energies in eV, for an integrator in q without one. NaN gives NaN.
    error : {None, "poisson", "azimuthal"}
    gain : float
        Signal of one photon, for ``"poisson"``.

    Returns
    -------
    Profiles
        (event, azimuth, bin).

    Examples
    --------
    >>> profiles = algorithms.integrate(frames, algorithms.prepare_azimuthal(where, bins=500, energy=9500))
    """
    size = int(np.prod(integrator.shape))
    flat = np.ascontiguousarray(frames, np.float32).reshape(-1, size)
    moving = integrator.unit == "q" and integrator.energy is None
    if moving and (energy is None or np.size(energy) != len(flat)):
        raise ValueError("this integrator has no energy: give one per event, in eV")
    sums = np.zeros((len(SUMS), len(flat), integrator.bins[0] * integrator.bins[1] + 1))
    all_sums = error == "azimuthal" or (error == "poisson" and not integrator.weighted)
    if moving:
        for event, scale in enumerate(momentum_factor(np.asarray(energy, np.float64).reshape(-1))):
            table, one = integrator.numbers(float(scale)), slice(event, event + 1)
            _add_up(flat[one], integrator, table, integrator.totals_of(table), all_sums, sums[:, one])
    else:
        _add_up(flat, integrator, integrator.table, integrator.totals, all_sums, sums)
    return _profiles(sums[..., :-1], integrator, error, gain)


SUMS = ("signal", "norm", "pixels", "square", "cross", "norm_square", "photons")
"""What is added up for each bin: s, n, 1, s^2, s n, n^2, s f with signal s = v f and norm n."""


def _add_up(
    flat: NDArray[np.float32],
    integrator: Integrator,
    table: NDArray[np.int32],
    totals: tuple[Floats, Floats],
    all_sums: bool,
    sums: Floats,
) -> None:
    """Fill `sums` (sum, event, bin); without `all_sums` the last four only as far as they are needed.

    The signals alone are added up unless a pixel is NaN: the norms are then the `totals`.
    """
    if all_sums:
        _add_all(flat, table, *integrator.weights, sums)
        return
    if integrator.weighted:
        _add(flat, table, sums[0])
    else:
        _add_times(flat, table, integrator.weights[0], sums[0])
    sums[1, :, :-1], sums[2, :, :-1] = totals
    sums[6] = sums[0]  # Poisson errors of weighted means: f = 1
    for event in np.flatnonzero(~np.isfinite(sums[0, :, :-1]).all(axis=1)):
        sums[:, event] = 0
        _add_all(flat[event : event + 1], table, *integrator.weights, sums[:, event : event + 1])


def _profiles(
    sums: Floats, integrator: Integrator, error: Literal["poisson", "azimuthal"] | None, gain: float
) -> Profiles:
    signal, norm, pixels, square, cross, norm_square, photons = sums
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = signal / norm
        variance = np.full_like(signal, np.nan)
        if error == "poisson":
            variance = gain * np.abs(photons)
        elif error == "azimuthal":
            variance = np.maximum(square - 2 * mean * cross + mean**2 * norm_square, 0.0)
        spread = np.sqrt(variance) / norm
    shape = (sums.shape[1], *integrator.bins)
    return Profiles(mean.reshape(shape), spread.reshape(shape), pixels.reshape(shape))


@njit()
def _even_bins(
    place: Any, scale: float, first: float, per_step: float, count: int, sector: Any, out: Any
) -> None:
    """Set the bin of each pixel inside even bins; the last one has both its edges."""
    for i in range(place.size):
        at = (place[i] * scale - first) * per_step
        if at >= 0 and at <= count and sector[i] >= 0:  # false for NaN
            out[i] = sector[i] * count + min(np.int32(at), count - 1)


@njit()
def _count_up(table: Any, norm: Any, sums: Any, pixels: Any) -> None:
    """Add up norms and pixels of each bin."""
    for i in range(table.size):
        k = table[i]
        sums[k] += norm[i]
        pixels[k] += 1.0


@njit()
def _add(frames: Any, table: Any, sums: Any) -> None:
    """Add each frame (event, pixel) to the bins of its pixels."""
    for event in range(frames.shape[0]):
        frame, total = frames[event], sums[event]
        for i in range(table.size):
            total[np.uint32(table[np.uint64(i)])] += frame[np.uint64(i)]


@njit()
def _add_times(frames: Any, table: Any, factor: Any, sums: Any) -> None:
    for event in range(frames.shape[0]):
        frame, total = frames[event], sums[event]
        for i in range(table.size):
            total[np.uint32(table[np.uint64(i)])] += frame[np.uint64(i)] * factor[np.uint64(i)]


@njit()
def _add_all(frames: Any, table: Any, factor: Any, norm: Any, sums: Any) -> None:
    """Add up all of `SUMS`, (sum, event, bin), leaving out values that are not finite."""
    for event in range(frames.shape[0]):
        for i in range(table.size):
            v = np.float64(frames[event, i])
            if not np.isfinite(v):
                continue
            k = table[i]
            s, n = v * factor[i], norm[i]
            sums[0, event, k] += s
            sums[1, event, k] += n
            sums[2, event, k] += 1.0
            sums[3, event, k] += s * s
            sums[4, event, k] += s * n
            sums[5, event, k] += n * n
            sums[6, event, k] += s * factor[i]

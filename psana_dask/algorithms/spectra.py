"""Histograms of pixel values: where the peaks of no photon and of one photon lie."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

ROUNDS = 20


class PhotonPeaks(NamedTuple):
    """The peaks of each pixel's histogram, in units of the values; NaN where one was not found.

    Examples
    --------
    >>> algorithms.fit_photon_peaks(histograms, edges, adu=30)  # doctest: +SKIP
    """

    pedestal: Floats
    # centre of the peak of no photon
    noise: Floats
    # its standard deviation
    gain: Floats
    # distance of the peak of one photon


def fit_photon_peaks(histograms: ArrayLike, edges: ArrayLike, adu: float, *, least: int = 20) -> PhotonPeaks:
    """Find the peaks of no photon and of one photon in each pixel's histogram.

    Each peak is the mean of the counts within a third of `adu` of its centre, found by going on from the
    last centre until it stays; the noise is corrected for the cut of a Gaussian by that window.

    Parameters
    ----------
    histograms : (..., bin) array
        Counts; the peak of no photon lies within half of `adu` of the fullest bin.
    edges : (bin + 1,) array
        Even edges of the bins.
    adu : float
        About the signal of one photon.
    least : int
        Fewest counts of a peak.

    Returns
    -------
    PhotonPeaks
        Arrays (...).

    Examples
    --------
    >>> peaks = algorithms.fit_photon_peaks(histograms, edges, adu=30)
    """
    counts, bins = np.asarray(histograms, np.float64), np.asarray(edges, np.float64)
    if counts.shape[-1] != len(bins) - 1:
        raise ValueError(f"{counts.shape[-1]} bins do not lie between {len(bins)} edges")
    middle = (bins[1:] + bins[:-1]) / 2
    zero, spread, n0 = _centre(counts, middle, middle[counts.argmax(axis=-1)], adu / 3)
    one, _, n1 = _centre(counts, middle, zero + adu, adu / 3)
    zero, spread = (np.where(n0 >= least, v, np.nan) for v in (zero, spread))
    gain = np.where((n0 >= least) & (n1 >= least), one - zero, np.nan)
    return PhotonPeaks(zero, _uncut(spread, adu / 3), gain)


def _centre(counts: Floats, middle: Floats, start: Floats, reach: float) -> tuple[Floats, Floats, Floats]:
    """Return mean, standard deviation and number of the counts within reach of their own mean."""
    centre = np.asarray(start, np.float64)
    for _ in range(ROUNDS):
        weight = counts * (np.abs(middle - centre[..., None]) <= reach)
        total = weight.sum(axis=-1)
        moved = np.where(total > 0, (weight * middle).sum(axis=-1) / np.maximum(total, 1), centre)
        if np.array_equal(moved, centre):
            break
        centre = moved
    variance = (weight * (middle - centre[..., None]) ** 2).sum(axis=-1) / np.maximum(total, 1)
    return centre, np.sqrt(variance), total


def _uncut(spread: Floats, reach: float) -> Floats:
    """Return the standard deviation of the Gaussian whose part within `reach` has this one."""
    sigma = spread.copy()
    for _ in range(ROUNDS):
        t = reach / np.maximum(sigma, reach / 50)
        density = np.exp(-(t**2) / 2) / np.sqrt(2 * np.pi)
        share = 1 - 2 * t * density / _inside(t)
        sigma = np.minimum(spread / np.sqrt(np.maximum(share, 0.05)), reach)
    return sigma


def _inside(t: Floats) -> Floats:
    """Return the share of a Gaussian within t standard deviations (Abramowitz and Stegun 7.1.26)."""
    x = 1 / (1 + 0.3275911 * t / np.sqrt(2))
    series = x * (0.254829592 + x * (-0.284496736 + x * (1.421413741 + x * (-1.453152027 + x * 1.061405429))))
    return 1 - series * np.exp(-(t**2) / 2)

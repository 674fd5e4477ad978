"""Intensity autocorrelation of speckle, g2, by the multi-tau method (compiled).

For each region of pixels ``g2(k) = <I(t) I(t + k)> / (<I(t)> <I(t + k)>)``: each mean is over the pixels of
the region and over the pairs of events ``k`` apart; the right-hand factors are the means over the earlier and
the later events of these pairs (symmetric normalisation, K. Schätzel, Quantum Opt. 2 (1990) 287).

Level 0 has delays 0 to ``channels - 1`` in events. Each further level adds neighbouring events in pairs
and has delays of ``channels / 2`` to ``channels - 1`` of its own, twice as long, events.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from psana_dask.jit import njit

Floats = NDArray[np.float64]


class MultiTau:
    """Accumulates g2 from events in the order of time; however they are divided, the result is the same.

    Parameters
    ----------
    regions : array of int of a frame's shape
        Number of the region of each pixel, from 0; negative for none.
    channels : int
        Delays of the first level, even.
    levels : int
        How many levels; the longest delay is ``(channels - 1) * 2 ** (levels - 1)``.

    Examples
    --------
    >>> import numpy as np
    >>> from psana_dask import algorithms
    >>> tau = algorithms.MultiTau(np.zeros((4, 4), int), channels=4, levels=2)
    >>> tau.push(np.ones((10, 4, 4)))
    >>> tau.delays.tolist(), tau.value()[0, :3].tolist()
    ([0, 1, 2, 3, 4, 6], [1.0, 1.0, 1.0])
    """

    def __init__(self, regions: NDArray[Any], *, channels: int = 16, levels: int = 8) -> None:
        if channels < 4 or channels % 2 or levels < 1:
            raise ValueError(f"channels={channels}, levels={levels}: an even number from 4, and one from 1")
        flat = np.asarray(regions).reshape(-1)
        self._pixels = np.flatnonzero(flat >= 0)
        self._region = flat[self._pixels].astype(np.int64)
        count = int(self._region.max(initial=-1)) + 1
        self._shape = np.shape(regions)
        self._channels, self._levels = channels, levels
        self._kept = np.zeros((levels, channels, len(self._pixels)))  # the last frames of each level
        self._whole = np.zeros((levels, channels + 1), bool)  # which are whole; the last: the first of a pair
        self._seen = np.zeros(levels, np.int64)
        self._half = np.zeros((levels, len(self._pixels)))  # the first frame of a pair
        self._sums = np.zeros((4, levels, channels, count))  # product, earlier, later, pairs of pixels

    @property
    def delays(self) -> NDArray[np.int64]:
        """Delays in events."""
        first = np.arange(self._channels)
        later = [np.arange(self._channels // 2, self._channels) << level for level in range(1, self._levels)]
        return np.concatenate([first, *later])

    def push(self, frames: NDArray[Any]) -> None:
        """Add events, (event, ...); one with a NaN pixel in a region keeps its place and is in no pair."""
        flat = np.asarray(frames).reshape(-1, int(np.prod(self._shape)))
        chosen = np.ascontiguousarray(flat[:, self._pixels], np.float64)
        whole = np.isfinite(chosen).all(axis=1)
        _push(chosen, whole, self._region, self._kept, self._whole, self._seen, self._half, self._sums)

    def value(self) -> Floats:
        """Return g2 so far, (region, delay); NaN for delays that no pair of events has."""
        with np.errstate(invalid="ignore", divide="ignore"):
            product, earlier, later, count = self._sums
            g2 = product * count / (earlier * later)
        rows = [g2[0], *(g2[level, self._channels // 2 :] for level in range(1, self._levels))]
        return np.concatenate(rows).T


@njit()
def _push(
    frames: Any, good: Any, region: Any, kept: Any, whole: Any, seen: Any, half: Any, sums: Any
) -> None:
    levels, channels, pixels = kept.shape
    frame = np.empty(pixels)
    for event in range(frames.shape[0]):
        frame[:] = frames[event]
        fine = good[event]
        for level in range(levels):
            at = seen[level] % channels
            kept[level, at] = frame
            whole[level, at] = fine
            seen[level] += 1
            first = 0 if level == 0 else channels // 2
            for lag in range(first, min(channels, seen[level])):
                other = (seen[level] - 1 - lag) % channels
                if not (fine and whole[level, other]):
                    continue
                before = kept[level, other]
                for p in range(pixels):
                    k = region[p]
                    sums[0, level, lag, k] += before[p] * frame[p]
                    sums[1, level, lag, k] += before[p]
                    sums[2, level, lag, k] += frame[p]
                    sums[3, level, lag, k] += 1.0
            if seen[level] % 2 == 1:
                half[level] = frame
                whole[level, channels] = fine
                break
            fine = fine and whole[level, channels]
            for p in range(pixels):
                frame[p] = (frame[p] + half[level, p]) / 2

"""Which statistics there are, what a task must accumulate for them, and how they come out of it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psana_dask.calib.detectors import PLAIN, Decoding
from psana_dask.reductions.exact import ExactNode, ExactSums, finished
from psana_dask.reductions.extremes import Counts, ExtremeNode, Extremes, HistogramNode
from psana_dask.reductions.moments import MomentNode, Moments
from psana_dask.reductions.tiles import LARGE_BYTES, Frames

FROM_SUMS = ("count", "sum", "mean", "var", "std")
FROM_EXTREMES = ("min", "max")
STATISTICS = FROM_SUMS + FROM_EXTREMES
CUBE = ("count", "sum", "mean", "var")
"""What `run.reduce` gives of names when no statistic is named."""

STATE_BYTES = 400
"""About what the accumulators of one pixel take."""

MOST_STATE_BYTES = 2**28

Node = ExactNode | MomentNode | ExtremeNode | HistogramNode


@dataclass(frozen=True)
class Histogram:
    """Counts of values in bins.

    Parameters
    ----------
    edges : sequence of float
        Increasing bin edges; the last bin includes its upper edge, as in `numpy.histogram`.
    per_pixel : bool
        A histogram of each pixel (default), or one of all pixels together.

    Examples
    --------
    >>> run.reduce(Histogram([0, 1, 2, 4]), "cspad.calib")
    """

    edges: tuple[float, ...]
    per_pixel: bool = True

    def __init__(self, edges: Iterable[float], per_pixel: bool = True) -> None:
        given = tuple(float(e) for e in edges)
        if len(given) < 2 or not all(a < b for a, b in itertools.pairwise(given)):
            raise ValueError(f"bin edges must increase, and be two at least: {given[:5]}")
        object.__setattr__(self, "edges", given)
        object.__setattr__(self, "per_pixel", per_pixel)


@dataclass(frozen=True)
class Projection:
    """A statistic over time and over some dimensions of the frame.

    Parameters
    ----------
    onto : str or sequence of str
        The dimensions that stay: ``"col"`` sums (or averages) over rows and panels.
    statistic : {"sum", "mean", "count"}
        Of all values that fall onto one place.

    Examples
    --------
    >>> run.reduce(Projection("x", "mean"), "cspad.image")
    """

    onto: tuple[str, ...]
    statistic: str = "sum"

    def __init__(self, onto: str | Iterable[str], statistic: str = "sum") -> None:
        if statistic not in ("sum", "mean", "count"):
            raise ValueError(f'a projection is a "sum", "mean" or "count", not {statistic!r}')
        object.__setattr__(self, "onto", (onto,) if isinstance(onto, str) else tuple(onto))
        object.__setattr__(self, "statistic", statistic)


Wanted = str | Histogram | Projection


@dataclass(frozen=True, eq=False)
class Work:
    """What tasks do with the events of one quantity; a worker gets it once.

    Parameters
    ----------
    frames : Frames
        Without tables where exact sums are all that is wanted.
    dtype : numpy dtype
        Of the values.
    exact : bool
        Sums are exact integers, calibrated afterwards.
    decoding : Decoding
        Of exact sums.
    sums, squares, extremes : bool
        What is accumulated.
    histograms : tuple of Histogram
    weighted : bool
    good : (pixel,) uint8, optional
        Pixels that count in histograms.
    """

    frames: Frames
    dtype: np.dtype[Any]
    exact: bool
    decoding: Decoding
    sums: bool
    squares: bool
    extremes: bool
    histograms: tuple[Histogram, ...]
    weighted: bool
    good: NDArray[np.uint8] | None = None

    @property
    def any_order(self) -> bool:
        """Whether everything is exact, so that any events may be added in any order."""
        return self.exact or not self.sums

    @property
    def small(self) -> bool:
        """Whether it may travel with every task: no constants, no mask."""
        return self.exact and self.frames.tables is None and self.good is None

    def together(self, bins: int) -> bool:
        """Tell whether one task should take events of all bins: values are small, and there is room."""
        state = self.frames.panels * self.frames.pixels * STATE_BYTES
        return bins > 1 and self.frames.nbytes < LARGE_BYTES and bins * state < MOST_STATE_BYTES

    @property
    def values(self) -> bool:
        """Whether frames have to be calibrated event by event."""
        others = self.extremes or bool(self.histograms) or (self.sums and not self.exact)
        return self.frames.tables is not None and others

    def accumulators(self, levels: int) -> list[Any]:
        """Return new accumulators, in the order of the nodes that `outcome` takes."""
        frames = self.frames
        made: list[Any] = []
        panels, pixels = frames.panels, frames.pixels
        if self.sums and self.exact:
            made.append(ExactSums(panels, pixels, frames.raw.dtype, self.decoding, squares=self.squares))
        elif self.sums:
            made.append(
                Moments(panels * pixels, squares=self.squares, weighted=self.weighted, levels=levels)
            )
        if self.extremes:
            made.append(Extremes(panels, pixels, self.dtype, values=self.values))
        return made + [
            Counts(
                panels * pixels, np.array(each.edges), per_pixel=each.per_pixel, values=self.values,
                good=self.good,
            )
            for each in self.histograms
        ]  # fmt: skip


@dataclass(frozen=True, eq=False)
class Request:
    """Statistics of one quantity.

    Parameters
    ----------
    frames : Frames
        With the tables, if it is calibrated.
    dtype : numpy dtype
        Of the values.
    wanted : tuple of str, Histogram or Projection
    weighted : bool
    good : (pixel,) bool, optional
        Pixels that count; the others come out as missing.
    """

    frames: Frames
    dtype: np.dtype[Any]
    wanted: tuple[Wanted, ...]
    weighted: bool = False
    good: NDArray[np.bool_] | None = None

    @cached_property
    def statistics(self) -> frozenset[str]:
        """The plain statistics that are needed, also for projections."""
        named = {w for w in self.wanted if isinstance(w, str)}
        projected = any(isinstance(w, Projection) for w in self.wanted)
        return frozenset(named | ({"sum", "count"} if projected else set()))

    @cached_property
    def squares(self) -> bool:
        """Whether variances are wanted."""
        return bool(self.statistics & {"var", "std"})

    @cached_property
    def exact(self) -> bool:
        """Whether sums of words, calibrated at the end, do."""
        word, tables = self.frames.raw.dtype, self.frames.tables
        if self.weighted or not self.frames.are_words:
            return False
        if word.kind not in "iub" or (word.kind == "u" and word.itemsize == 8):
            return False
        if (self.squares or tables is not None) and word.itemsize > 2:
            return False
        switched = tables is not None and tables.decoding.kind != "plain"
        return tables is None or (tables.unit == "pixel" and not (switched and word.kind != "u"))

    @cached_property
    def decoding(self) -> Decoding:
        """How words split, for exact sums."""
        return PLAIN if self.frames.tables is None else self.frames.tables.decoding

    @cached_property
    def work(self) -> Work:
        """What tasks do."""
        sums = bool(self.statistics & set(FROM_SUMS))
        extremes = bool(self.statistics & set(FROM_EXTREMES))
        histograms = tuple(w for w in self.wanted if isinstance(w, Histogram))
        bare = sums and self.exact and not extremes and not histograms
        frames = Frames(self.frames.raw) if bare else self.frames
        good = None if self.good is None else self.good.astype(np.uint8)
        return Work(
            frames, self.dtype, self.exact, self.decoding, sums, self.squares, extremes, histograms,
            self.weighted, good if histograms else None,
        )  # fmt: skip

    # ---- from nodes to arrays -----------------------------------------------------------------
    def outcome(self, nodes: Iterable[Node]) -> dict[Wanted, NDArray[Any]]:
        """Return what was wanted; pixels are flat, (pixel,), except in histograms."""
        found: dict[Wanted, NDArray[Any]] = {}
        histograms = iter(self.work.histograms)
        for node in nodes:
            if isinstance(node, ExactNode | MomentNode):
                found |= self._from_sums(node)
            elif isinstance(node, ExtremeNode):
                found |= self._from_extremes(node)
            else:
                found[next(histograms)] = self._from_histogram(node)
        return found

    def _from_sums(self, node: ExactNode | MomentNode) -> Mapping[Wanted, NDArray[Any]]:
        """Work out only what is wanted: an array of a large detector is slow to make."""
        wanted = self.statistics
        whole = isinstance(node, ExactNode) and self.frames.tables is None
        if whole and wanted == {"sum"}:
            return {"sum": self._of_good(node.sums[0].astype(np.int64))}
        sums = self._sums(node)
        if self.good is not None:
            sums = np.where(self.good, sums, 0.0)
        found: dict[Wanted, NDArray[Any]] = {}
        if "count" in wanted:
            numbers = node.numbers if isinstance(node, MomentNode) else None
            found["count"] = self._of_good(sums[0].astype(np.int64) if numbers is None else numbers)
        if "sum" in wanted:
            found["sum"] = self._of_good(node.sums[0].astype(np.int64)) if whole else sums[1]
        with np.errstate(invalid="ignore", divide="ignore"):  # 0 / 0: NaN where there is no value
            if "mean" in wanted:
                found["mean"] = sums[1] / sums[0]
            if self.squares:
                found["var"] = sums[2] / sums[0]
            if "std" in wanted:
                found["std"] = np.sqrt(found["var"])
        return found

    def _of_good(self, values: NDArray[Any]) -> NDArray[Any]:
        return values if self.good is None else np.where(self.good, values, values.dtype.type(0))

    def _sums(self, node: ExactNode | MomentNode) -> NDArray[np.float64]:
        """Return sums (2 to 4, pixel): of weights, of values, of squared distances from the mean."""
        if isinstance(node, MomentNode):
            return node.sums
        ranges = {"plain": 1, "jungfrau": 3, "switched": 2}[self.decoding.kind]
        bad = 0.0 if self.frames.tables is None else self.frames.tables.bad
        return finished(node, self.frames.pixels, *self._planes, bad, ranges)

    @cached_property
    def _planes(self) -> tuple[NDArray[np.float32] | None, NDArray[np.float32] | None]:
        """Pedestals and factors, (plane, pixel)."""
        tables = self.frames.tables
        return (None, None) if tables is None else (tables.pedestal, tables.factor)

    def _from_extremes(self, node: ExtremeNode) -> Mapping[Wanted, NDArray[Any]]:
        there = np.repeat(node.present > 0, self.frames.pixels)
        if self.good is not None:
            there = there & self.good
        both = {"min": node.least, "max": node.most}
        return {name: _missing(values, there) for name, values in both.items() if name in self.statistics}

    def _from_histogram(self, node: HistogramNode) -> NDArray[np.int64]:
        return node.counts if len(node.counts) > 1 else node.counts[0]


def _missing(values: NDArray[Any], there: NDArray[np.bool_]) -> NDArray[Any]:
    """Return values with NaN where there is none; integers stay integers if none is missing."""
    if there.all():
        return values
    return np.where(there, values.astype(np.result_type(values.dtype, np.float32)), np.nan)

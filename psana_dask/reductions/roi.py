"""Regions of interest: one number, profile or histogram of a part of the frame for every event.

Only the panels and rows of a region are read.  Sums over pixels are made in one fixed order,
so their bits depend on the frame alone.  Contract: tests/reductions/test_roi.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from psana_dask.calibrated import CalibratedArray
from psana_dask.catalog import Entry
from psana_dask.dataset import View, event_coords, field_attrs
from psana_dask.errors import NameNotFound
from psana_dask.imaging import Imaging
from psana_dask.indexing import Key, scalar
from psana_dask.model import Array
from psana_dask.pipeline import EventArray, FrameArray

if TYPE_CHECKING:
    import xarray as xr

Ints = NDArray[np.int64]
Index = int | slice | Iterable[int] | None
DIMS = ("panel", "row", "col")
EVENTS = 64
"""Events that go through a region together."""


@dataclass(frozen=True, eq=False)
class Roi:
    """A part of a detector's frames: ``det.roi(panel=3, rows=slice(10, 50), cols=slice(0, 100))``.

    Parameters
    ----------
    view : View
    entry : Entry
    panel, rows, cols : int, slice or list of int, optional
        Positions; all by default.
    mask : array, optional
        1 good, 0 bad, of the whole frame.
    calibration : mapping, optional
        Choices for calibrated values, as `Detector.calibrated` takes them.

    Examples
    --------
    >>> spot = run.epixquad.roi(panel=0, rows=slice(10, 20), cols=slice(5, 9))
    >>> spot.sum()
    """

    view: View
    entry: Entry
    panel: Index = None
    rows: Index = None
    cols: Index = None
    mask: Any = None
    calibration: Mapping[str, Any] | None = None

    @property
    def raw(self) -> xr.DataArray:
        """Its words, (time[, panel], row, col), lazy.

        Examples
        --------
        >>> spot.raw
        """
        return self._cut("raw")

    @property
    def calib(self) -> xr.DataArray:
        """Its calibrated values, (time[, panel], row, col), lazy.

        Examples
        --------
        >>> spot.calib
        """
        return self._cut("calib")

    def sum(self, field: str = "calib") -> xr.DataArray:
        """Return the sum of the region for every event, (time,) float64, lazy; NaN is left out.

        Parameters
        ----------
        field : {"calib", "raw"}

        Examples
        --------
        >>> spot.sum()
        """
        return self._made(field, "sum")

    def mean(self, field: str = "calib") -> xr.DataArray:
        """Return the mean of the region for every event, (time,) float64, lazy.

        Examples
        --------
        >>> spot.mean("raw")
        """
        return self._made(field, "mean")

    def projection(self, onto: str, field: str = "calib", statistic: str = "sum") -> xr.DataArray:
        """Return the profile of the region along one dimension for every event, (time, `onto`), lazy.

        Parameters
        ----------
        onto : {"panel", "row", "col"}
        field : {"calib", "raw"}
        statistic : {"sum", "mean"}

        Examples
        --------
        >>> spot.projection("col")
        """
        if onto not in DIMS or statistic not in ("sum", "mean"):
            asked = f"{statistic!r} onto {onto!r}"
            raise ValueError(f'a projection is a "sum" or "mean" onto "panel", "row" or "col", not {asked}')
        return self._made(field, statistic, onto)

    def histogram(self, edges: Iterable[float], field: str = "calib") -> xr.DataArray:
        """Return how many pixels of the region are in each bin, for every event, (time, bin), lazy.

        Parameters
        ----------
        edges : sequence of float
            Increasing; the last bin includes its upper edge, as in `numpy.histogram`.
        field : {"calib", "raw"}

        Examples
        --------
        >>> spot.histogram(range(0, 100, 10))
        """
        bounds = np.asarray(list(edges), np.float64)
        if len(bounds) < 2 or not (np.diff(bounds) > 0).all():
            raise ValueError(f"bin edges must increase, and be two at least: {bounds[:5]}")
        return self._made(field, "histogram", edges=bounds)

    # ---- how ----------------------------------------------------------------------------------
    def _source(self, field: str) -> FrameArray | CalibratedArray:
        imaging = Imaging(self.view, self.entry)
        if field == "calib":
            return imaging.calibrated(**dict(self.calibration or {}))[0]
        if field != "raw":
            raise NameNotFound(f'a region has "raw" and "calib", not {field!r}')
        return imaging.raw

    def _picked(self, shape: tuple[int, ...]) -> tuple[Ints, Ints, Ints]:
        """Return positions of panels, rows and columns, within a frame of (panel, row, col)."""
        chosen = []
        for size, index, name in zip(shape, (self.panel, self.rows, self.cols), DIMS, strict=True):
            picked = np.atleast_1d(np.arange(size)[slice(None) if index is None else _as_index(index)])
            if not picked.size:
                raise ValueError(f"the region has no {name}: {index} of {size}")
            chosen.append(picked)
        return chosen[0], chosen[1], chosen[2]

    def _cut(self, field: str) -> xr.DataArray:
        source = self._source(field)
        frame = source.shape[1:] if len(source.shape) == 4 else (1, *source.shape[1:])
        picked = dict(zip(DIMS, map(_as_slice, self._picked(frame)), strict=True))
        imaging = Imaging(self.view, self.entry)
        whole = imaging.labelled(source, field, {}, "auto", imaging.panel_coords())
        return whole.isel({dim: index for dim, index in picked.items() if dim in whole.dims})

    def _made(
        self, field: str, what: str, onto: str | None = None, edges: NDArray[np.float64] | None = None
    ) -> xr.DataArray:
        import xarray as xr

        from psana_dask.variables import variable

        source = self._source(field)
        frame = source.shape[1:] if len(source.shape) == 4 else (1, *source.shape[1:])
        picked = self._picked(frame)
        good = np.ones(frame, np.uint8)
        if self.mask is not None:
            good = (np.asarray(getattr(self.mask, "values", self.mask)) != 0).astype(np.uint8).reshape(frame)
        lazy = RegionArray(source, picked, good[np.ix_(*picked)], what, onto, edges)
        coords = event_coords(self.view)
        if onto is not None:
            coords[onto] = picked[DIMS.index(onto)]
        if edges is not None:
            coords |= {"bin": (edges[:-1] + edges[1:]) / 2, "bin_left": ("bin", edges[:-1])}
            coords["bin_right"] = ("bin", edges[1:])
        attrs = field_attrs(self.view, self.entry, self.entry.channels["raw"])
        made = variable(lazy, {**attrs, "reduction": what, "of": field}, "auto")
        return xr.DataArray(made, coords, name=f"{self.entry.name}_roi_{what}")


def _as_index(index: Any) -> Any:
    return index if isinstance(index, int | np.integer | slice) else np.asarray(index)


def _as_slice(positions: Ints) -> Any:
    """Return evenly spaced positions as a slice: it is pushed into the read."""
    steps = np.unique(np.diff(positions))
    if len(positions) == 1 or (len(steps) == 1 and steps[0] > 0):
        step = int(steps[0]) if len(positions) > 1 else 1
        return slice(int(positions[0]), int(positions[-1]) + 1, step)
    return positions


class RegionArray(EventArray):
    """What becomes of a region in every event; lazy.

    Parameters
    ----------
    source : FrameArray or CalibratedArray
    picked : tuple of (n,) int64
        Panels, rows and columns.
    good : (panel, row, col) uint8
        Of the region.
    what : {"sum", "mean", "histogram"}
    onto : str, optional
        The dimension that stays.
    edges : (bin + 1,) float64, optional
    """

    def __init__(
        self, source: FrameArray | CalibratedArray, picked: tuple[Ints, Ints, Ints],
        good: NDArray[np.uint8], what: str, onto: str | None, edges: NDArray[np.float64] | None,
    ) -> None:  # fmt: skip
        super().__init__(source.target)
        self._source, self._picked, self._good = source, picked, good
        self._what, self._onto, self._edges = what, onto, edges
        inner: tuple[int, ...] = ()
        if edges is not None:
            inner, self.dims = (len(edges) - 1,), ("time", "bin")
        elif onto is not None:
            inner, self.dims = (good.shape[DIMS.index(onto)],), ("time", onto)
        else:
            self.dims = ("time",)
        self.shape = (source.shape[0], *inner)
        self.dtype = np.dtype(np.int64 if edges is not None else np.float64)

    @property
    def token(self) -> str:
        """Hash of the values."""
        from dask.base import tokenize

        mine = tokenize(self._picked, self._good, self._what, self._onto, self._edges)
        return f"{super().token}-{self._source.token}-{mine}"

    @property
    def preferred_chunks(self) -> dict[str, int]:
        """As many events as the frames have in a chunk, at least."""
        events = max(EVENTS, self._source.preferred_chunks["time"])
        return dict(zip(self.dims, (events, *self.shape[1:]), strict=True))

    def read(self, key: Key) -> Array:
        """Work out the events that `key` picks."""
        positions = np.atleast_1d(np.arange(self.shape[0])[key[0]])
        out = np.empty((len(positions), *self.shape[1:]), self.dtype)
        for first in range(0, len(positions), EVENTS):
            some = positions[first : first + EVENTS]
            out[first : first + len(some)] = self._of(self._values(some))
        out = out[(slice(None), *key[1:])]
        return out[scalar(key[0])]

    def _values(self, positions: Ints) -> Array:
        """Return the region of some events, (event, panel, row, col), NaN where it is missing."""
        panels, rows, cols = self._picked
        inner: Key = (_as_slice(rows), _as_slice(cols))
        events, chosen = _as_slice(positions), _as_slice(panels)
        panelled = len(self._source.shape) == 4
        values = self._source[(events, chosen, *inner) if panelled else (events, *inner)]
        values = values if panelled else values[:, None]
        if isinstance(self._source, CalibratedArray):
            return values
        numbers = self.target.choice.numbers[positions]
        there = self.target.reader().present(numbers)[:, panels]
        return np.where(there[:, :, None, None], values, np.nan)

    def _of(self, values: Array) -> Array:
        from psana_dask.reductions import region_kernels

        rows = np.ascontiguousarray(values, np.float64)
        if self._edges is not None:
            flat = rows.reshape(len(rows), -1)
            return region_kernels.histograms(flat, self._good.reshape(-1), self._edges)
        axis = 0 if self._onto is None else 1 + DIMS.index(self._onto)
        sums, counts = region_kernels.sums(rows, self._good, axis)
        if self._what == "mean":
            with np.errstate(invalid="ignore", divide="ignore"):
                sums = sums / counts
        return sums[:, 0] if self._onto is None else sums

"""Index tables of the assembly: which pixel goes into which bin of the image.

`assembly` documents the rules; `kernels` uses the tables.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from psana_dask.errors import GeometryError
from psana_dask.geometry.model import Geometry
from psana_dask.geometry.segments import Array
from psana_dask.geometry.tree import Bins, Coordinates, Frame, bins, coordinates, in_frame, projected

Overlap = Literal["last", "mean", "max"]
Holes = Literal["none", "nearest", "minimum"]
Index = NDArray[np.uint32]
OVERLAPS: tuple[Overlap, ...] = ("last", "mean", "max")
HOLES: tuple[Holes, ...] = ("none", "nearest", "minimum")
SHORTEST_RUN = 12
# pixels; a panel whose rows break into shorter runs is scattered instead
REACH = 0.7072
# pixels; no point of a grid of pixels is farther from the nearest of them (half a diagonal)


@dataclass(frozen=True)
class Choices:
    """The arguments of `prepare`, part of the tables' key."""

    frame: Frame
    pixel_size: float | None
    overlap: Overlap
    holes: Holes
    tilts: bool
    wide_centres: bool | None
    plane: float | None


@dataclass(frozen=True, eq=False)
class AssemblyTables:
    """What `apply` needs; made by `prepare`, never changed.

    Tables travel as the geometry and the choices they are made from: a few kB, worked out once
    in each process.

    Examples
    --------
    >>> tables = geometry.prepare(run.epixquad.geometry)
    >>> tables.shape
    """

    geometry: Geometry
    # without comments
    choices: Choices
    key: str
    # hash of the geometry and the choices: equal keys, equal tables
    panels: tuple[int, int, int]
    # shape of the data: (panel, row, col)
    shape: tuple[int, int]
    # shape of the image: (y, x)
    y: NDArray[np.float64]
    # m, laboratory y of the middle of each image row
    x: NDArray[np.float64]
    # m, laboratory x of the middle of each image column
    bins: NDArray[np.int32]
    # (panel, row, col): flat image bin of each pixel, -1 for one that does not exist
    boxes: NDArray[np.int64]
    # (panel, 4): first and past-the-end row, first and past-the-end column of each panel's bins
    kernel: tuple[Any, ...]
    # arrays for `kernels.assemble`

    def __reduce__(self) -> tuple[Any, ...]:
        return _prepare, (self.geometry, self.choices)

    def __dask_tokenize__(self) -> str:
        return self.key

    def touched(self, rows: slice, cols: slice) -> NDArray[np.bool_]:
        """Return which panels (panel,) may show in ``image[rows, cols]``: those worth reading.

        A hole at the rim may be filled from one bin outside, so that counts as well.
        """
        spans = [range(*part.indices(size)) for part, size in zip((rows, cols), self.shape, strict=True)]
        if not all(spans):
            return np.zeros(len(self.boxes), np.bool_)
        (top, bottom), (left, right) = ((min(span), max(span)) for span in spans)
        inside = (self.boxes[:, 0] <= bottom + 1) & (self.boxes[:, 1] > top - 1)
        return inside & (self.boxes[:, 2] <= right + 1) & (self.boxes[:, 3] > left - 1)

    @property
    def overlapping(self) -> int:
        """Number of bins that hold more than one pixel."""
        return len(self.kernel[6][0])

    @property
    def nbytes(self) -> int:
        """Size of the tables in memory."""
        runs, starts, visits, visit_starts, _, empty, shared, holes, _ = self.kernel
        arrays = [self.bins, runs, starts, visits, visit_starts, empty, *shared, *holes]
        return sum(array.nbytes for array in arrays)


def prepare(
    geometry: Geometry,
    *,
    frame: Frame = "psana",
    pixel_size: float | None = None,
    overlap: Overlap = "last",
    holes: Holes = "none",
    tilts: bool = True,
    wide_centres: bool | None = None,
    plane: float | None = None,
) -> AssemblyTables:
    """Work out where each pixel goes in the image; a second call with equal arguments is free.

    Parameters
    ----------
    geometry : Geometry
        The detector.
    frame : {"psana", "lab"}
        "psana": the image as seen along the beam (psana's own).  "lab": as seen against it.
    pixel_size : float, optional
        Size of an image bin, um; that of the segment type by default.
    overlap : {"last", "mean", "max"}
        What a bin with several pixels gets.
    holes : {"none", "nearest", "minimum"}
        What an empty bin amid pixels gets.
    tilts, wide_centres
        As in `tree.coordinates`.
    plane : float, optional
        Project the pixels on the plane at this z (um, in `frame`) before binning.

    Returns
    -------
    AssemblyTables

    Raises
    ------
    GeometryError
        No pixel has a position, or the image would have more than 2^31 bins.
    ValueError
        A choice that does not exist.

    Examples
    --------
    >>> tables = geometry.prepare(detector, overlap="mean")
    """
    if pixel_size is not None and not pixel_size > 0:
        raise ValueError(f"pixel_size is {pixel_size}; it must be positive (um)")
    # comments and line numbers do not decide where pixels are
    content = replace(geometry, comments=())
    return _prepare(content, Choices(frame, pixel_size, overlap, holes, tilts, wide_centres, plane))


@lru_cache(maxsize=8)
def _prepare(geometry: Geometry, choices: Choices) -> AssemblyTables:
    where = coordinates(geometry, frame=choices.frame, tilts=choices.tilts, wide_centres=choices.wide_centres)
    if choices.plane is not None:
        where = Coordinates(*projected(where, choices.plane), where.z)
    pixel_size = geometry.segment.pixel_size
    layout = _layout(where, choices.pixel_size or pixel_size, pixel_size, choices.frame)
    kernel = _kernel_tables(layout, choices.overlap, choices.holes)
    key = hashlib.sha256((geometry.key + repr(choices)).encode()).hexdigest()
    boxes = _boxes(layout.bins, layout.shape[1])
    return AssemblyTables(
        geometry, choices, key, geometry.shape, layout.shape, layout.y, layout.x, layout.bins, boxes, kernel
    )


def _boxes(flat: NDArray[np.int32], width: int) -> NDArray[np.int64]:
    found = []
    for panel in flat:
        rows, cols = np.divmod(panel[panel >= 0], width)
        found.append((rows.min(), rows.max() + 1, cols.min(), cols.max() + 1) if rows.size else (0, 0, 0, 0))
    return np.array(found, np.int64)


@dataclass(frozen=True, eq=False)
class _Layout:
    """An image and the pixels on it, in the laboratory frame seen from either side."""

    shape: tuple[int, int]
    y: Array
    # m, of the image rows
    x: Array
    # m, of the image columns
    bins: NDArray[np.int32]
    # (panel, row, col)
    pixel_y: Array
    # m (panel, row, col)
    pixel_x: Array
    pitch: float
    # m, between pixels


def _layout(where: Coordinates, step: float, pixel_size: float, frame: Frame) -> _Layout:
    found = bins(where, step, frame=frame)
    shape = _image_shape(found)
    flat = np.where(found.rows < 0, -1, found.rows * shape[1] + found.cols).astype(np.int32)
    x, y, _ = in_frame(where, "lab") if frame == "psana" else where
    down, right = (np.arange(count) * (step * 1e-6) for count in shape)
    rows = np.nanmax(y) * 1e-6 - down
    cols = np.nanmin(x) * 1e-6 + right if frame == "lab" else np.nanmax(x) * 1e-6 - right
    return _Layout(shape, rows, cols, flat, y * 1e-6, x * 1e-6, pixel_size * 1e-6)


def _image_shape(found: Bins) -> tuple[int, int]:
    shape = int(found.rows.max()) + 1, int(found.cols.max()) + 1
    if min(shape) < 1:
        raise GeometryError("no pixel of this geometry has a position")
    if shape[0] * shape[1] >= 2**31:
        raise GeometryError(f"an image of {shape[0]} x {shape[1]} bins; give a larger pixel_size")
    return shape


def _kernel_tables(layout: _Layout, overlap: Overlap, holes: Holes) -> tuple[Any, ...]:
    if overlap not in OVERLAPS:
        raise ValueError(f"overlap is one of {OVERLAPS}, not {overlap!r}")
    flat = layout.bins
    counts = np.bincount(flat[flat >= 0], minlength=layout.shape[0] * layout.shape[1])
    filled = _hole_tables(layout, counts.reshape(layout.shape) > 0, holes)
    panel = (int(flat.shape[1]), int(flat.shape[2]))
    shared = _shared_tables(flat.ravel(), counts)
    empty = _runs_of_true(counts == 0)
    return (*_panel_tables(flat), panel, empty, shared, filled, OVERLAPS.index(overlap))


def _panel_tables(flat: NDArray[np.int32]) -> tuple[Index, NDArray[np.int64], Index, NDArray[np.int64]]:
    """Return for each panel either its runs or the bins in the order of the scatter."""
    runs: list[Index] = []
    visits: list[Index] = []
    for panel, these in enumerate(flat):
        found = _runs(these, panel * these.size)
        # pixels that do not exist have no bin to be scattered to
        copied = these.size >= SHORTEST_RUN * len(found) or these.min() < 0
        runs.append(found if copied else found[:0])
        visits.append(np.zeros(0, np.uint32) if copied else _visit(these))
    return np.concatenate(runs), _starts(runs), np.concatenate(visits), _starts(visits)


def _starts(arrays: list[Index]) -> NDArray[np.int64]:
    return np.cumsum([0, *(len(array) for array in arrays)], dtype=np.int64)


def _runs(these: NDArray[np.int32], first: int) -> Index:
    """Return the runs (bin, pixel, count, backwards) of one panel's bins (row, col)."""
    step = np.diff(these, axis=1, append=0)
    step[:, -1] = 0
    linked = (np.abs(step) == 1) & (these >= 0)
    linked[:, :-1] &= these[:, 1:] >= 0
    # a pixel begins a run unless it continues one in the same direction
    continues = np.zeros(these.shape, np.bool_)
    continues[:, 1:] = linked[:, :-1]
    turns = np.zeros(these.shape, np.bool_)
    turns[:, 1:-1] = linked[:, :-2] & linked[:, 1:-1] & (step[:, :-2] != step[:, 1:-1])
    begin = np.flatnonzero((~continues | turns) & (these >= 0))
    stop = np.append(begin[1:], these.size)
    valid = np.concatenate([[0], np.cumsum(these.ravel() >= 0)])
    count = valid[stop] - valid[begin]
    bins, steps = these.ravel()[begin], step.ravel()[begin]
    backwards = (count > 1) & (steps == -1)
    lowest = np.where(backwards, bins - count + 1, bins)
    return np.stack([lowest, begin + first, count, backwards], axis=1).astype(np.uint32)


def _visit(these: NDArray[np.int32]) -> Index:
    """Return one panel's bins in the order strip, block of rows, column, row."""
    from psana_dask.geometry.kernels import BLOCK, STRIP

    rows, cols = these.shape
    whole = rows - rows % BLOCK
    pieces = []
    for left in range(0, cols, STRIP):
        strip = these[:, left : left + STRIP]
        blocks = strip[:whole].reshape(-1, BLOCK, strip.shape[1])
        pieces += [blocks.transpose(0, 2, 1).ravel(), strip[whole:].T.ravel()]
    return np.concatenate(pieces).astype(np.uint32)


def _runs_of_true(flags: NDArray[np.bool_]) -> Index:
    """Return the runs (first, 0, count, 0) of True in a flat array."""
    edges = np.flatnonzero(np.diff(flags, prepend=False, append=False))
    first, last = edges[::2], edges[1::2]
    nothing = np.zeros_like(first)
    return np.stack([first, nothing, last - first, nothing], axis=1).astype(np.uint32)


def _shared_tables(
    flat: NDArray[np.int32], counts: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the bins with several pixels, where their pixels start, and those in data order."""
    shared = np.flatnonzero(counts > 1)
    pixels = np.flatnonzero((flat >= 0) & (counts[flat] > 1))
    pixels = pixels[np.argsort(flat[pixels], kind="stable")]
    starts = np.concatenate([[0], np.cumsum(counts[shared])])
    return shared.astype(np.int64), starts.astype(np.int64), pixels.astype(np.int64)


def _hole_tables(
    layout: _Layout, occupied: NDArray[np.bool_], holes: Holes
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the bins to fill and, for each, the bins (hole, source) it is filled from."""
    if holes not in HOLES:
        raise ValueError(f"holes is one of {HOLES}, not {holes!r}")
    if holes == "none":
        return np.zeros(0, np.int64), np.zeros((0, 1), np.int64)
    if holes == "minimum":
        enclosed = np.flatnonzero(_enclosed(occupied))
        return enclosed, _neighbours(enclosed, layout.shape)
    return _nearest(layout, np.flatnonzero(_between(occupied)))


def _enclosed(occupied: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the empty bins whose neighbours inside the image are all occupied."""
    around = np.pad(occupied, 1, constant_values=True)
    enclosed: NDArray[np.bool_] = ~occupied
    for neighbour in (around[:-2, 1:-1], around[2:, 1:-1], around[1:-1, :-2], around[1:-1, 2:]):
        enclosed &= neighbour
    return enclosed


def _between(occupied: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the empty bins with occupied ones on opposite sides."""
    around = np.pad(occupied, 1)
    column = around[:-2, 1:-1] & around[2:, 1:-1]
    row = around[1:-1, :-2] & around[1:-1, 2:]
    between: NDArray[np.bool_] = ~occupied & (column | row)
    return between


def _neighbours(bins: NDArray[np.int64], shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Return for each bin its 4 neighbours; one outside the image is replaced by another one."""
    rows, cols = np.divmod(bins, shape[1])
    up, down = np.where(rows > 0, rows - 1, rows + 1), np.where(rows + 1 < shape[0], rows + 1, rows - 1)
    left, right = np.where(cols > 0, cols - 1, cols + 1), np.where(cols + 1 < shape[1], cols + 1, cols - 1)
    places = [up * shape[1] + cols, down * shape[1] + cols, rows * shape[1] + left, rows * shape[1] + right]
    return np.stack(places, axis=1)


def _nearest(layout: _Layout, holes: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the holes that lie on a sensor and, for each, the bin whose pixel is nearest to its middle."""
    here = layout.bins.ravel()
    pixel = np.full(layout.shape[0] * layout.shape[1], -1, np.int64)
    pixel[here[here >= 0]] = np.flatnonzero(here >= 0)
    neighbours = _neighbours(holes, layout.shape)
    candidates = pixel[neighbours]
    rows, cols = np.divmod(holes, layout.shape[1])
    far_y = layout.pixel_y.ravel()[candidates] - layout.y[rows][:, None]
    far_x = layout.pixel_x.ravel()[candidates] - layout.x[cols][:, None]
    far = np.where(candidates < 0, np.inf, np.hypot(far_y, far_x))
    best = np.argmin(far, axis=1)[:, None]
    on_sensor = np.take_along_axis(far, best, axis=1)[:, 0] <= REACH * layout.pitch
    sources = np.take_along_axis(neighbours, best, axis=1)
    return holes[on_sensor], sources[on_sensor]

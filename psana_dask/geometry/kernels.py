"""Compiled loops of the assembly; one thread, without the GIL, on buffers of the caller.

The tables are made by `assembly.prepare`.  All positions are flat and unsigned (a signed index
may count from the end, which stops the compiler from vectorising): `bin` counts image bins,
`pixel` counts pixels of all panels.  A panel is either copied run by run (its rows lie along
image rows) or scattered (panels turned by 90 degrees) in strips of `STRIP` columns, each in
blocks of `BLOCK` rows: each strip fills a few image rows from end to end while few source lines
are open, which share cache sets because they lie a power of two apart.

Kernels are compiled on first use for each pair of input and output type and cached on disk.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from psana_dask.jit import njit

STRIP, BLOCK = 8, 4
# the fastest of strips of 8, 16, 32, all columns by blocks of 1, 2, 4, 8, 16, 32 rows, for a Jungfrau
LAST, MEAN, MAX = 0, 1, 2


@njit()
def assemble(
    panels: Any, out: Any, present: Any, fill: Any, whole: bool, tables: Any
) -> None:
    """Assemble each frame of `panels` (time, pixel) into `out` (time, bin).

    `present` (time, panel) says which panels have data; the bins of the others get `fill`, as
    do the bins that belong to no pixel.  `whole` rounds the mean of overlapping pixels.
    """
    runs, run_starts, visits, visit_starts, shape, empty, shared, holes, rule = tables
    size = shape[0] * shape[1]
    # frame by frame: to reuse the tables of a panel for all frames costs more than it saves
    for time in range(panels.shape[0]):
        frame, image = panels[time], out[time]
        for panel in range(run_starts.size - 1):
            these = runs[run_starts[panel] : run_starts[panel + 1]]
            visit = visits[visit_starts[panel] : visit_starts[panel + 1]]
            if present[time, panel]:
                _copy_runs(frame, image, these)
                _scatter(frame, image, visit, panel * size, shape)
            else:
                _fill_runs(image, these, fill)
                _fill_bins(image, visit, fill)
        _fill_runs(image, empty, fill)
        _combine(frame, image, shared, present[time], size, fill, rule, whole)
        _fill_holes(image, holes)


@njit()
def disassemble(images: Any, out: Any, fill: Any, tables: Any) -> None:
    """Give each pixel of `out` (time, pixel) the value of its bin in `images` (time, bin)."""
    runs, run_starts, visits, visit_starts, shape, _, _, _, _ = tables
    size = shape[0] * shape[1]
    for time in range(images.shape[0]):
        for panel in range(run_starts.size - 1):
            visit = visits[visit_starts[panel] : visit_starts[panel + 1]]
            if visit.size > 0:
                _gather(images[time], out[time], visit, panel * size, shape)
            else:
                out[time, panel * size : (panel + 1) * size] = fill
                _read_runs(images[time], out[time], runs[run_starts[panel] : run_starts[panel + 1]])


@njit()
def _read_runs(image: Any, frame: Any, runs: Any) -> None:
    for k in range(runs.shape[0]):
        first, pixel, count = np.uint64(runs[k, 0]), np.uint64(runs[k, 1]), np.uint64(runs[k, 2])
        if runs[k, 3] == 0:
            for i in range(count):
                frame[pixel + i] = image[first + i]
        else:
            last = first + count - np.uint64(1)
            for i in range(count):
                frame[pixel + i] = image[last - i]


@njit()
def _gather(image: Any, frame: Any, visit: Any, first: int, shape: Any) -> None:
    """Undo `_scatter`."""
    rows, cols = shape
    at, step = np.uint64(0), np.uint64(cols)
    for left in range(0, cols, STRIP):
        wide = np.uint64(min(STRIP, cols - left))
        for top in range(0, rows, BLOCK):
            deep = np.uint64(min(BLOCK, rows - top))
            pixel = np.uint64(first + top * cols + left)
            for col in range(wide):
                for i in range(deep):
                    frame[pixel + col + i * step] = image[np.uint64(visit[at + i])]
                at += deep


@njit()
def _copy_runs(frame: Any, image: Any, runs: Any) -> None:
    """Copy each run (bin, pixel, count, backwards)."""
    for k in range(runs.shape[0]):
        first, pixel, count = np.uint64(runs[k, 0]), np.uint64(runs[k, 1]), np.uint64(runs[k, 2])
        if runs[k, 3] == 0:
            for i in range(count):
                image[first + i] = frame[pixel + i]
        else:
            last = pixel + count - np.uint64(1)
            for i in range(count):
                image[first + i] = frame[last - i]


@njit()
def _scatter(frame: Any, image: Any, visit: Any, first: int, shape: Any) -> None:
    """Scatter one panel; `visit` holds bins in the order strip, block of rows, column, row."""
    rows, cols = shape
    if visit.size == 0:
        return
    for left in range(0, cols, STRIP):
        wide = min(STRIP, cols - left)
        bins = visit[left * rows : (left + wide) * rows]
        _scatter_strip(frame, image, bins, first + left, shape, wide)


@njit()
def _scatter_strip(frame: Any, image: Any, bins: Any, first: int, shape: Any, wide: int) -> None:
    rows, step = shape[0], np.uint64(shape[1])
    at = np.uint64(0)
    whole = rows - rows % BLOCK if wide == STRIP else 0
    for top in range(0, whole, BLOCK):
        pixel = np.uint64(first + top * shape[1])
        # constant bounds: the compiler unrolls these two loops, which is worth a third
        for col in range(np.uint64(STRIP)):
            for i in range(np.uint64(BLOCK)):
                image[np.uint64(bins[at + i])] = frame[pixel + col + i * step]
            at += np.uint64(BLOCK)
    for top in range(whole, rows, BLOCK):
        deep = np.uint64(min(BLOCK, rows - top))
        pixel = np.uint64(first + top * shape[1])
        for col in range(np.uint64(wide)):
            for i in range(deep):
                image[np.uint64(bins[at + i])] = frame[pixel + col + i * step]
            at += deep


@njit()
def _fill_runs(image: Any, runs: Any, fill: Any) -> None:
    for k in range(runs.shape[0]):
        first, count = np.uint64(runs[k, 0]), np.uint64(runs[k, 2])
        for i in range(count):
            image[first + i] = fill


@njit()
def _fill_bins(image: Any, visit: Any, fill: Any) -> None:
    for where in visit:
        image[np.uint64(where)] = fill


@njit()
def _combine(
    frame: Any, image: Any, shared: Any, present: Any, size: int, fill: Any, rule: int, whole: bool
) -> None:
    """Apply the overlap rule to the bins that hold several pixels."""
    bins, starts, pixels = shared
    for k in range(bins.size):
        value, total, count = fill, 0.0, 0
        for pixel in pixels[starts[k] : starts[k + 1]]:
            if not present[pixel // size]:
                continue
            one = frame[pixel]
            if rule == LAST:
                value = one
            elif one == one and (rule == MEAN or count == 0 or one > value):  # noqa: PLR0124 (skips NaN)
                value = one
                total += one
                count += 1
        if rule == MEAN and count > 0:
            mean = total / count
            image[bins[k]] = np.floor(mean + 0.5) if whole else mean
        else:
            image[bins[k]] = value


@njit()
def _fill_holes(image: Any, holes: Any) -> None:
    """Give each hole the least value of the bins it is filled from; NaN only if all are."""
    bins, sources = holes
    for k in range(bins.size):
        value = image[sources[k, 0]]
        for j in range(1, sources.shape[1]):
            one = image[sources[k, j]]
            if one < value or value != value:  # noqa: PLR0124 (NaN)
                value = one
        image[bins[k]] = value

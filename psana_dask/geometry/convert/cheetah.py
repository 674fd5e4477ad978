"""Cheetah pixel maps: three arrays x, y, z in the shape of Cheetah's stacked data.

x and y are laboratory coordinates in metres, z is in micrometres (as psgeom's writer has it).
A CSPAD is laid out in 8 rows by 4 columns of 2x1 sensors, quad q in column q; every other
detector has its panels stacked one below the other.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from psana_dask.errors import GeometryError
from psana_dask.geometry.model import Geometry
from psana_dask.geometry.segments import Array, Convention, SegmentType, segment_type
from psana_dask.geometry.tiles import Tile, geometry_of, recognised, tiles_of_positions
from psana_dask.geometry.tree import coordinates

CSPAD_PER_COLUMN = 8
UNITS = np.array([1e-6, 1e-6, 1.0])
# from um: m, m, um


class PixelMap(NamedTuple):
    """What the datasets ``x``, ``y``, ``z`` of a pixel map hold; float32 (row, col)."""

    x: NDArray[np.float32]
    y: NDArray[np.float32]
    z: NDArray[np.float32]


def to_pixel_map(geometry: Geometry) -> PixelMap:
    """Return the Cheetah pixel map of a geometry."""
    where = coordinates(geometry, frame="lab", wide_centres=False)
    blocks = [
        stacked(axis * unit, geometry.segment.name).astype(np.float32)
        for axis, unit in zip(where, UNITS, strict=True)
    ]
    return PixelMap(*blocks)


def from_pixel_map(
    pixel_map: PixelMap, segment: str | None = None, *, convention: Convention = "psana2"
) -> Geometry:
    """Return the geometry that a pixel map describes.

    Parameters
    ----------
    pixel_map : PixelMap
        Arrays as Cheetah stores them; float32 limits the positions to about 0.01 um.
    segment : str, optional
        The psana segment type of the panels; by default the one that fits best.
    """
    if segment is None:
        return recognised(lambda kind: _tiles(pixel_map, kind), convention, [_single(pixel_map)])
    found = _tiles(pixel_map, segment_type(segment, convention))
    return geometry_of(found, segment, convention=convention)


def _single(pixel_map: PixelMap) -> str:
    """Return the type of a sensor without gaps that the whole map may be."""
    x, y, z = (axis.astype(np.float64) / unit for axis, unit in zip(pixel_map, UNITS, strict=True))
    pitch = []
    for step in ((-1, 0), (0, -1)):
        count = max(abs(step[0]) * x.shape[0] + abs(step[1]) * x.shape[1] - 1, 1)
        length = np.sqrt(sum((axis[step] - axis[0, 0]) ** 2 for axis in (x, y, z))) / count
        # float32 positions know the mean step to a few digits
        pitch.append(f"{round(float(length), 3):g}")
    return f"MTRX:V2:{x.shape[0]}:{x.shape[1]}:{pitch[0]}:{pitch[1]}"


def _tiles(pixel_map: PixelMap, kind: SegmentType) -> tuple[Tile, ...]:
    """Return the ASICs of a pixel map, taken as panels of a segment type."""
    axes = [panels(axis, kind.shape, kind.name) for axis in pixel_map]
    positions = np.stack(axes, axis=-1).astype(np.float64) / UNITS * 1e-6
    return tiles_of_positions(positions, kind)


def stacked(array: Array, segment: str) -> NDArray[Any]:
    """Return (panel, row, col) as Cheetah's (row, col)."""
    count, rows, cols = array.shape
    if segment != "SENS2X1:V1" or count % CSPAD_PER_COLUMN:
        return array.reshape(count * rows, cols)
    quads = array.reshape(-1, CSPAD_PER_COLUMN, rows, cols)
    return np.moveaxis(quads, 0, 2).reshape(CSPAD_PER_COLUMN * rows, -1)


def panels(array: NDArray[Any], shape: tuple[int, int], segment: str) -> NDArray[Any]:
    """Return Cheetah's (row, col) as (panel, row, col): the inverse of `stacked`."""
    rows, cols = shape
    down, across = array.shape[0] // rows, array.shape[1] // cols
    if array.shape != (down * rows, across * cols) or (across > 1 and segment != "SENS2X1:V1"):
        raise GeometryError(f"a map of shape {array.shape} does not hold whole panels of {segment} {shape}")
    blocks = array.reshape(down, rows, across, cols)
    return np.moveaxis(blocks, 2, 0).reshape(-1, rows, cols)

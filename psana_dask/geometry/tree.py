"""Where the pixels are: coordinates, areas, sizes, masks and the bins of an image.

Frames
------
``"psana"`` is the frame of the geometry text: x down (with gravity), y to the right when one
looks along the beam, z against the beam.  ``"lab"`` is that of CrystFEL, NeXus and McStas:
z along the beam, y up, x to the left when one looks along the beam.  Each is the other's
``(-y, -x, -z)``.  `docs/geometry.md` has the figure.

A segment's pixels are rotated about z, then y, then x by ``rotation + tilt`` and moved to the
origin, for the segment's own line and for each line above it.  The order of the float64
operations is psana's: in many detectors whole ASICs lie on a border between image bins, and
the last bit decides where they fall.
"""

from __future__ import annotations

from math import cos, radians, sin
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from psana_dask.geometry.model import Geometry, Part, find
from psana_dask.geometry.segments import (
    Array,
    SegmentType,
    segment_areas,
    segment_coordinates,
    segment_mask,
    segment_type,
)

Frame = Literal["psana", "lab"]


class Coordinates(NamedTuple):
    """Three float64 arrays (panel, row, col) in micrometres."""

    x: Array
    y: Array
    z: Array


class Bins(NamedTuple):
    """The image bin of each pixel: int64 arrays (panel, row, col); -1 where there is no pixel."""

    rows: NDArray[np.int64]
    cols: NDArray[np.int64]


def coordinates(
    geometry: Geometry,
    *,
    frame: Frame = "psana",
    tilts: bool = True,
    wide_centres: bool | None = None,
    part: tuple[str, int] | None = None,
) -> Coordinates:
    """Return the coordinates of every pixel.

    Parameters
    ----------
    geometry : Geometry
        What to place.
    frame : {"psana", "lab"}
        See the head of this module.
    tilts : bool
        Apply the tilts (the measured deviations) as well as the rotations.
    wide_centres : bool, optional
        Place wide pixels in their geometric centre rather than at their regular outer part;
        the default is what psana does for the type.
    part : (str, int), optional
        Only the panels below this part, in the frame of the part's parent.

    Returns
    -------
    Coordinates
        x, y, z, each float64 (panel, row, col), micrometres.

    Examples
    --------
    >>> x, y, z = geometry.coordinates(detector, frame="lab")
    """
    chains = _chains(geometry, part)
    shape = (len(chains), *geometry.segment.shape)
    result = Coordinates(np.empty(shape), np.empty(shape), np.empty(shape))
    for panel, chain in enumerate(chains):
        segment = segment_type(chain[0].name, geometry.convention, geometry.segment_shape)
        x, y = segment_coordinates(segment, wide_centres)
        z = np.zeros(segment.shape)
        for link in chain:
            x, y, z = to_parent(link, x, y, z, tilts)
        result.x[panel], result.y[panel], result.z[panel] = x, y, z
    return in_frame(result, frame)


def in_frame(coordinates: Coordinates, frame: Frame) -> Coordinates:
    """Turn psana coordinates into `frame`; lab and psana are each other's ``(-y, -x, -z)``."""
    if frame == "psana":
        return coordinates
    if frame != "lab":
        raise ValueError(f"the frame is 'psana' or 'lab', not {frame!r}")
    return Coordinates(-coordinates.y, -coordinates.x, -coordinates.z)


def projected(coordinates: Coordinates, plane: float | None = None) -> tuple[Array, Array]:
    """Return x and y where the line from the origin through each pixel meets a plane.

    Parameters
    ----------
    coordinates : Coordinates
        In either frame.
    plane : float, optional
        z of the plane, um; the mean z of the pixels by default.

    Returns
    -------
    x, y : float64 arrays (panel, row, col)
        Unchanged if the plane is nearer than 1 mm to the origin (a geometry without a
        distance), 0 for a pixel at z = 0.

    Examples
    --------
    >>> x, y = geometry.projected(geometry.coordinates(detector), plane=100_000.0)
    """
    x, y, z = coordinates
    plane = float(z.mean()) if plane is None else plane
    if abs(plane) < 1000:
        return x, y
    with np.errstate(divide="ignore", invalid="ignore"):
        return tuple(plane * np.where(z == 0, 0.0, value / z) for value in (x, y))  # type: ignore[return-value]


def areas(geometry: Geometry) -> Array:
    """Return pixel areas (panel, row, col) in units of the regular pixel.

    Examples
    --------
    >>> geometry.areas(detector).max()
    """
    return np.stack([segment_areas(_type(geometry, chain)) for chain in geometry.panels])


def sizes(geometry: Geometry) -> tuple[Array, Array]:
    """Return the pixels' extents along the rows' index and along the columns' index, um.

    Each is a read-only float64 array (panel, row, col).

    Examples
    --------
    >>> rows, cols = geometry.sizes(detector)
    """
    types = [_type(geometry, chain) for chain in geometry.panels]
    down = np.stack([np.broadcast_to(t.rows.sizes[:, None], t.shape) for t in types])
    right = np.stack([np.broadcast_to(t.cols.sizes[None, :], t.shape) for t in types])
    return down, right


def mask(
    geometry: Geometry, *, edges: int = 1, centre: int = 1, unbonded: bool = True, neighbours: int = 0
) -> NDArray[np.bool_]:
    """Return which pixels (panel, row, col) are good; the choices are those of `segment_mask`.

    Examples
    --------
    >>> good = geometry.mask(detector, edges=1, centre=1)
    """
    masks = [
        segment_mask(
            _type(geometry, chain), edges=edges, centre=centre, unbonded=unbonded, neighbours=neighbours
        )
        for chain in geometry.panels
    ]
    return np.stack(masks)


def bins(
    coordinates: Coordinates,
    pixel_size: float,
    *,
    frame: Frame = "psana",
    offset: tuple[float, float] = (0.0, 0.0),
) -> Bins:
    """Return the image row and column of each pixel, by psana's rule.

    The first bin begins half a pixel before the first pixel; positions are truncated.

    Parameters
    ----------
    coordinates : Coordinates
        In `frame`.
    pixel_size : float
        Size of a bin, um.
    frame : {"psana", "lab"}
        psana: rows along +x, columns along +y (seen along the beam).
        lab: rows along -y, columns along +x (seen against the beam).
    offset : (float, float)
        Empty bins before the first pixel along x and y; only positive ones count.
    """
    x, y, _ = coordinates
    first_x = np.nanmin(x) - max(offset[0], 0) * pixel_size - pixel_size / 2
    across = _truncated((x - first_x) / pixel_size)
    if frame == "lab":
        last_y = np.nanmax(y) + max(offset[1], 0) * pixel_size + pixel_size / 2
        return Bins(_truncated((last_y - y) / pixel_size), across)
    first_y = np.nanmin(y) - max(offset[1], 0) * pixel_size - pixel_size / 2
    return Bins(across, _truncated((y - first_y) / pixel_size))


def bin_of_point(
    point: tuple[float, float],
    coordinates: Coordinates,
    pixel_size: float,
    *,
    frame: Frame = "psana",
) -> tuple[float, float]:
    """Return the fractional image row and column of the point ``(x, y)`` um, inside or outside."""
    x, y, _ = coordinates
    across = (point[0] - (float(np.nanmin(x)) - pixel_size / 2)) / pixel_size
    if frame == "lab":
        return (float(np.nanmax(y)) + pixel_size / 2 - point[1]) / pixel_size, across
    return across, (point[1] - (float(np.nanmin(y)) - pixel_size / 2)) / pixel_size


def _truncated(position: Array) -> NDArray[np.int64]:
    if np.isnan(position).any():
        return np.where(np.isnan(position), -1, np.nan_to_num(position)).astype(np.int64)
    return position.astype(np.int64)


def _type(geometry: Geometry, chain: tuple[Part, ...]) -> SegmentType:
    return segment_type(chain[0].name, geometry.convention, geometry.segment_shape)


def _chains(geometry: Geometry, part: tuple[str, int] | None) -> list[tuple[Part, ...]]:
    """Return the panels' chains, cut above `part` where one is given."""
    if part is None:
        return list(geometry.panels)
    top = geometry.parts[find(geometry, *part)]
    return [chain[: chain.index(top) + 1] for chain in geometry.panels if top in chain]


def to_parent(
    part: Part, x: Array, y: Array, z: Array, tilts: bool = True
) -> tuple[Array, Array, Array]:
    """Take coordinates (um) from a part's frame to its parent's: about z, y, x, then to the origin."""
    about_z, about_y, about_x = (
        design + deviation if tilts else design
        for design, deviation in zip(part.rotation, part.tilt, strict=True)
    )
    x1, y1 = _rotated(x, y, about_z)
    z2, x2 = _rotated(z, x1, about_y)
    y3, z3 = _rotated(y1, z2, about_x)
    return x2 + part.origin[0], y3 + part.origin[1], z3 + part.origin[2]


def _rotated(u: Array, v: Array, degrees: float) -> tuple[Array, Array]:
    angle = radians(degrees)
    s, c = sin(angle), cos(angle)
    return u * c - v * s, v * c + u * s

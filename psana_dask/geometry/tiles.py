"""ASICs as vectors: the form that other programs' geometries are made of, and the way back.

A `Tile` is a regular grid of pixels: where its first pixel is, and the steps from row to row
and from column to column, in metres in the laboratory frame (z along the beam, y up).

Wide pixels lie where their outer, regular part lies (a grid has no room for more); pixels that
psana2 moves to the centre of a wide pixel (JUNGFRAU:V2) are half a pixel away from that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from math import asin, atan2, degrees

import numpy as np
from numpy.typing import NDArray

from psana_dask.errors import GeometryError
from psana_dask.geometry.model import Geometry, Part, check
from psana_dask.geometry.segments import (
    PSANA1,
    PSANA2,
    Array,
    Convention,
    SegmentType,
    segment_type,
)
from psana_dask.geometry.tree import to_parent

LAB_TO_PSANA = np.array([[0.0, -1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])
# its own inverse


@dataclass(frozen=True, eq=False)
class Tile:
    """One ASIC of one panel, laboratory frame, metres."""

    panel: int
    rows: tuple[int, int]
    # first and past-the-end row of the panel's data
    cols: tuple[int, int]
    first: Array
    # (3,) centre of the first pixel
    slow: Array
    # (3,) from one row to the next
    fast: Array
    # (3,) from one column to the next

    @property
    def corner(self) -> Array:
        """Outer corner of the first pixel, m (3,)."""
        return self.first - (self.slow + self.fast) / 2

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.rows[1] - self.rows[0], self.cols[1] - self.cols[0]

    def positions(self) -> Array:
        """Return the centres of all pixels, m (row, col, 3)."""
        rows, cols = (np.arange(count, dtype=np.float64) for count in self.shape)
        return self.first + rows[:, None, None] * self.slow + cols[None, :, None] * self.fast


def tiles_of(geometry: Geometry, *, tilts: bool = True) -> tuple[Tile, ...]:
    """Return the ASICs of a geometry, panel by panel, row by row within a panel."""
    found: list[Tile] = []
    for panel, chain in enumerate(geometry.panels):
        segment = segment_type(chain[0].name, geometry.convention, geometry.segment_shape)
        # steps are turned on their own: a difference of two positions would lose digits
        turns = [replace(part, origin=(0.0, 0.0, 0.0)) for part in chain]
        for tile in local_tiles(segment, panel):
            first = _to_lab(chain, tile.first, tilts)
            slow, fast = (_to_lab(turns, step, tilts) for step in (tile.slow, tile.fast))
            found.append(Tile(panel, tile.rows, tile.cols, first, slow, fast))
    return tuple(found)


def local_tiles(segment: SegmentType, panel: int = 0) -> list[Tile]:
    """Return the ASICs of a segment type in its own frame (not the laboratory's), metres."""
    found = []
    for rows in segment.rows.asics:
        for cols in segment.cols.asics:
            first = _local(segment, segment.rows.positions[rows[0]], segment.cols.positions[cols[0]])
            slow = _local(segment, _pitch(segment.rows.positions, rows), 0.0)
            fast = _local(segment, 0.0, _pitch(segment.cols.positions, cols))
            found.append(Tile(panel, rows, cols, first, slow, fast))
    return found


def geometry_of(
    found: Sequence[Tile],
    segment: str | None = None,
    *,
    convention: Convention = "psana2",
    tolerance: float | None = None,
) -> Geometry:
    """Return the psana geometry whose ASICs are these: the inverse of `tiles_of`.

    Each panel becomes one line, the segment's place and angles fitted to its ASICs; they hang
    on one CAMERA at the mean distance.

    Parameters
    ----------
    found : sequence of Tile
        In any order.
    segment : str, optional
        The segment type; by default the one whose ASICs fit best.
    convention : {"psana2", "psana1"}
        Which library's segment types.
    tolerance : float, optional
        m; how far an ASIC may lie from its place in the segment (half a pixel by default).

    Raises
    ------
    GeometryError
        The ASICs do not have the layout of the segment type, or lie too far from it.
    """
    by_panel = by_panels(found)
    name = segment or best_segment(by_panel[0], convention)
    kind = segment_type(name, convention)
    if tolerance is None:
        tolerance = kind.pixel_size * 0.5e-6
    fits = [_fit(kind, these, tolerance) for these in by_panel]
    distance = min(float(np.mean([shift[2] for _, shift in fits])), 0.0)
    parts = [_part(name, k, turn, shift - (0, 0, distance)) for k, (turn, shift) in enumerate(fits)]
    camera = Part("IP", 0, "CAMERA", 0, (0.0, 0.0, distance), (0.0, 0.0, 0.0))
    geometry = Geometry((*parts, camera), convention=convention)
    check(geometry)
    return geometry


def recognised(
    tiles_for: Callable[[SegmentType], Sequence[Tile]],
    convention: Convention = "psana2",
    also: Sequence[str] = (),
) -> Geometry:
    """Return the geometry of the segment type that fits: most ASICs first, then the best fit.

    Any sensor of several ASICs looks like several sensors of one as well.

    Parameters
    ----------
    tiles_for : callable
        Gives the ASICs, taken as panels of a segment type; raises `GeometryError` if they cannot be.
    convention : {"psana2", "psana1"}
        Which library's segment types.
    also : sequence of str
        Types to try when no other fits.

    Raises
    ------
    GeometryError
        None fits.
    """
    table = PSANA1 if convention == "psana1" else PSANA2
    for names in (_fitting(tiles_for, table, convention), also):
        for name in names:
            with suppress(GeometryError):
                return geometry_of(tiles_for(segment_type(name, convention)), name, convention=convention)
    raise GeometryError("no segment type has these ASICs; give segment=")


def _fitting(
    tiles_for: Callable[[SegmentType], Sequence[Tile]], names: Iterable[str], convention: Convention
) -> list[str]:
    """Return the segment types that fit the first panel, the most likely first."""
    misfits: dict[str, tuple[int, float]] = {}
    for name in names:
        kind = segment_type(name, convention)
        with suppress(GeometryError):
            first = by_panels(tiles_for(kind))[0]
            error = misfit(kind, first)
            if np.isfinite(error):
                # rounded to nm: equal types come in the order of the table
                misfits[name] = (-len(first), round(error, 9))
    return sorted(misfits, key=lambda key: misfits[key])


def best_segment(found: Sequence[Tile], convention: Convention = "psana2") -> str:
    """Return the name of the segment type whose ASICs match those of one panel best."""
    table = PSANA1 if convention == "psana1" else PSANA2
    # rounded to nm: equal types come in the order of the table
    errors = {name: round(misfit(segment_type(name, convention), found), 9) for name in table}
    name = min(errors, key=lambda key: errors[key])
    if np.isfinite(errors[name]):
        return name
    if len(found) == 1:
        tile = found[0]
        sizes = [f"{round(float(np.linalg.norm(step)) * 1e6, 6):g}" for step in (tile.slow, tile.fast)]
        return f"MTRX:V2:{tile.shape[0]}:{tile.shape[1]}:{sizes[0]}:{sizes[1]}"
    shapes = ", ".join(str(tile.shape) for tile in found[:4])
    raise GeometryError(f"no segment type has {len(found)} ASICs of {shapes}; give segment= or single panels")


def rotation_matrix(angles: tuple[float, float, float]) -> Array:
    """Return the matrix that psana's angles about z, y, x (degrees) stand for."""
    x, y, z = np.eye(3)
    return np.stack(to_parent(Part("", 0, "", 0, rotation=angles), x, y, z))


def angles_of(turn: Array) -> tuple[float, float, float]:
    """Return the angles about z, y, x (degrees) of a rotation matrix: Rx Ry Rz."""
    about_y = degrees(asin(max(-1.0, min(1.0, turn[0, 2]))))
    return degrees(atan2(-turn[0, 1], turn[0, 0])), about_y, degrees(atan2(-turn[1, 2], turn[2, 2]))


def _to_lab(chain: Iterable[Part], vector: Array, tilts: bool) -> Array:
    """Take a vector (m) from a segment's frame to the laboratory."""
    x, y, z = vector * 1e6
    for part in chain:
        x, y, z = to_parent(part, x, y, z, tilts)
    return np.array([x, y, z]) @ LAB_TO_PSANA * 1e-6


def _local(segment: SegmentType, row: float, col: float) -> Array:
    place = (row, col, 0.0) if segment.rows_along_x else (col, row, 0.0)
    return np.array(place) * 1e-6


def _pitch(positions: Array, asic: tuple[int, int]) -> float:
    first, end = asic
    return float(positions[end - 1] - positions[first]) / max(end - 1 - first, 1)


def by_panels(found: Sequence[Tile]) -> list[list[Tile]]:
    """Return the tiles of each panel, in the order of the data; no panel may be missing."""
    if not found:
        raise GeometryError("no panels in this geometry")
    panels: dict[int, list[Tile]] = {}
    for tile in found:
        panels.setdefault(tile.panel, []).append(tile)
    missing = sorted(set(range(max(panels) + 1)) - set(panels))
    if missing:
        raise GeometryError(f"panels {missing} are missing; there are {sorted(panels)}")
    return [sorted(panels[k], key=lambda t: (t.rows, t.cols)) for k in sorted(panels)]


def _ends(found: Sequence[Tile]) -> Array:
    """Return the centres of the four corner pixels of each tile, m (point, 3)."""
    return np.concatenate([tile.positions()[[0, 0, -1, -1], [0, -1, 0, -1]] for tile in found])


def _same_layout(kind: SegmentType, found: Sequence[Tile]) -> bool:
    local = local_tiles(kind)
    return [(t.rows, t.cols) for t in local] == [(t.rows, t.cols) for t in found]


def misfit(kind: SegmentType, found: Sequence[Tile]) -> float:
    """Return how far ASICs (in order, of one panel) lie from a type, m; infinity for another layout.

    A type that would have to face away from the source comes after all that face it.
    """
    if not _same_layout(kind, found):
        return np.inf
    turn, _, error = _kabsch(_ends(local_tiles(kind)), _ends(found) @ LAB_TO_PSANA)
    return error + (1.0 if turn[2, 2] < 0 else 0.0) if error < kind.pixel_size * 0.5e-6 else np.inf


def _fit(kind: SegmentType, found: Sequence[Tile], tolerance: float) -> tuple[Array, Array]:
    """Return rotation matrix and origin (um) that bring the segment onto its ASICs."""
    panel = found[0].panel
    if not _same_layout(kind, found):
        ranges = ", ".join(f"rows {t.rows} cols {t.cols}" for t in found[:4])
        raise GeometryError(f"panel {panel} does not have the ASICs of {kind.name}; it has {ranges}")
    turn, shift, error = _kabsch(_ends(local_tiles(kind)), _ends(found) @ LAB_TO_PSANA)
    if error > tolerance:
        raise GeometryError(
            f"panel {panel} is no {kind.name}: an ASIC lies {error * 1e6:.1f} um from its place "
            f"(tolerance {tolerance * 1e6:.1f} um); give another segment="
        )
    return turn, shift * 1e6


def _kabsch(local: Array, measured: Array) -> tuple[Array, Array, float]:
    """Return the rotation and shift that bring `local` nearest to `measured`, and the misfit.

    W. Kabsch, Acta Cryst. A32 (1976) 922, by singular value decomposition.
    """
    middle, centre = local.mean(axis=0), measured.mean(axis=0)
    u, _, vt = np.linalg.svd((measured - centre).T @ (local - middle))
    proper = np.diag([1.0, 1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    turn: Array = u @ proper @ vt
    shift: Array = centre - turn @ middle
    left: NDArray[np.float64] = measured - local @ turn.T - shift
    return turn, shift, float(np.sqrt((left**2).sum(axis=1).max()))


def _part(name: str, index: int, turn: Array, origin: Array) -> Part:
    angles = angles_of(turn)
    design = [90.0 * round(angle / 90) % 360 for angle in angles]
    tilt = [(angle - base + 180) % 360 - 180 for angle, base in zip(angles, design, strict=True)]
    place, rotation, deviation = ((float(a), float(b), float(c)) for a, b, c in (origin, design, tilt))
    return Part("CAMERA", 0, name, index, place, rotation, deviation)


def tiles_of_positions(positions: Array, segment: SegmentType) -> tuple[Tile, ...]:
    """Fit the ASICs of a segment type to the positions of single pixels.

    Parameters
    ----------
    positions : float array (panel, row, col, 3)
        Laboratory frame, m.
    segment : SegmentType
        Says which rows and columns form an ASIC.

    Returns
    -------
    tuple of Tile
        Least squares over each ASIC's pixels but the outermost, which may be wide.
    """
    if positions.shape[1:] != (*segment.shape, 3):
        raise GeometryError(f"positions have shape {positions.shape}, {segment.name} has {segment.shape}")
    if not np.isfinite(positions).all():
        raise GeometryError("some pixels have no position (NaN): such a detector has no way back from here")
    found = []
    for panel, pixels in enumerate(positions):
        for tile in local_tiles(segment, panel):
            part = pixels[tile.rows[0] : tile.rows[1], tile.cols[0] : tile.cols[1]].astype(np.float64)
            found.append(Tile(panel, tile.rows, tile.cols, *_grid(part)))
    return tuple(found)


def _grid(pixels: Array) -> tuple[Array, Array, Array]:
    """Return first pixel, slow and fast step of the regular grid nearest to `pixels`."""
    rim = 1 if min(pixels.shape[:2]) >= 8 else 0
    inner = pixels[rim : pixels.shape[0] - rim, rim : pixels.shape[1] - rim]
    rows, cols = (np.arange(count) - (count - 1) / 2 for count in inner.shape[:2])
    middle = inner.mean(axis=(0, 1))
    slow = np.tensordot(rows, inner.mean(axis=1) - middle, 1) / max(rows @ rows, 1e-30)
    fast = np.tensordot(cols, inner.mean(axis=0) - middle, 1) / max(cols @ cols, 1e-30)
    return middle + (rows[0] - rim) * slow + (cols[0] - rim) * fast, slow, fast

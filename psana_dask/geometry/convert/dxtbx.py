"""DIALS: a detector model as dxtbx writes it in ``.expt`` files (a dict, JSON-ready).

dxtbx's frame is that of imgCIF: y up, z from the sample to the source, so (-x, y, -z) of the
laboratory frame; lengths are millimetres.  A panel's origin is the outer corner of its first
pixel.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from psana_dask.errors import GeometryError
from psana_dask.geometry.model import Geometry
from psana_dask.geometry.segments import Array, Convention, SegmentType, segment_type
from psana_dask.geometry.tiles import Tile, geometry_of, recognised, tiles_of

LAB_TO_DXTBX = np.array([-1.0, 1.0, -1.0])


def to_dxtbx(geometry: Geometry) -> dict[str, Any]:
    """Return the detector model: ``panels`` (one per ASIC) and a flat ``hierarchy``."""
    found = tiles_of(geometry)
    hierarchy = _frame("DETECTOR", np.zeros(3), np.array([1.0, 0, 0]), np.array([0, 1.0, 0]))
    hierarchy["children"] = [{"panel": k} for k in range(len(found))]
    return {"panels": [_panel(tile) for tile in found], "hierarchy": hierarchy}


def from_dxtbx(
    model: Mapping[str, Any], segment: str | None = None, *, convention: Convention = "psana2"
) -> Geometry:
    """Return the geometry of a dxtbx detector model.

    Parameters
    ----------
    model : mapping
        With ``panels`` and, if the panels hang in frames, ``hierarchy``.  Panels follow the
        ASICs of the segment type, panel by panel, row by row.
    segment : str, optional
        The psana segment type; by default the one that fits best.

    Raises
    ------
    GeometryError
        Something is missing in the model, or its panels are not those of the segment type.
    """
    try:
        if segment is None:
            return recognised(lambda kind: _tiles(model, kind), convention, _single(model))
        found = _tiles(model, segment_type(segment, convention))
    except GeometryError:
        raise
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise GeometryError(f"not a dxtbx detector model: {type(error).__name__}: {error}") from error
    return geometry_of(found, segment, convention=convention)


def _single(model: Mapping[str, Any]) -> list[str]:
    """Return the type of a sensor without gaps that each panel may be."""
    panel = model["panels"][0]
    (cols, rows), (col, row) = panel["image_size"], panel["pixel_size"]
    return [f"MTRX:V2:{rows}:{cols}:{_um(row)}:{_um(col)}"]


def _um(millimetres: float) -> str:
    return f"{round(millimetres * 1e3, 6):g}"


def _tiles(model: Mapping[str, Any], kind: SegmentType) -> list[Tile]:
    """Return the panels of a model as ASICs of a segment type."""
    places = [(rows, cols) for rows in kind.rows.asics for cols in kind.cols.asics]
    panels: Sequence[Mapping[str, Any]] = model["panels"]
    if not panels or len(panels) % len(places):
        raise GeometryError(f"{len(panels)} panels; {kind.name} has {len(places)} ASICs per panel")
    frames = dict(_frames(model.get("hierarchy"), np.eye(4)))
    found = []
    for k, panel in enumerate(panels):
        rows, cols = places[k % len(places)]
        found.append(_tile(panel, k // len(places), rows, cols, frames.get(k, np.eye(4))))
    return found


def _panel(tile: Tile) -> dict[str, Any]:
    slow, fast = tile.slow * LAB_TO_DXTBX * 1e3, tile.fast * LAB_TO_DXTBX * 1e3
    pixel = [float(np.linalg.norm(fast)), float(np.linalg.norm(slow))]
    name = f"p{tile.panel}r{tile.rows[0]}c{tile.cols[0]}"
    panel = _frame(name, tile.corner * LAB_TO_DXTBX * 1e3, fast / pixel[0], slow / pixel[1])
    panel |= {
        "type": "SENSOR_PAD",
        "raw_image_offset": [tile.cols[0], tile.rows[0]],
        "image_size": [tile.shape[1], tile.shape[0]],
        "pixel_size": pixel,
        "px_mm_strategy": {"type": "SimplePxMmStrategy"},
    }
    return panel


def _frame(name: str, origin: Array, fast: Array, slow: Array) -> dict[str, Any]:
    """Return what panels and frames have in common, with dxtbx's neutral values."""
    return {
        "name": name,
        "identifier": "",
        "type": "",
        "fast_axis": [float(v) for v in fast],
        "slow_axis": [float(v) for v in slow],
        "origin": [float(v) for v in origin],
        "raw_image_offset": [0, 0],
        "image_size": [0, 0],
        "pixel_size": [0.0, 0.0],
        "trusted_range": [0.0, 0.0],
        "thickness": 0.0,
        "material": "",
        "mu": 0.0,
        "mask": [],
        "gain": 1.0,
        "pedestal": 0.0,
        "px_mm_strategy": {"type": "SimplePxMmStrategy"},
    }


def _frames(node: Mapping[str, Any] | None, above: Array) -> Iterator[tuple[int, Array]]:
    """Yield (panel, matrix) for each panel below `node`: columns fast, slow, normal, origin."""
    if node is None:
        return
    here = above @ _matrix(node)
    for child in node.get("children", ()):
        if "panel" in child:
            yield int(child["panel"]), here
        else:
            yield from _frames(child, here)


def _matrix(node: Mapping[str, Any]) -> Array:
    fast, slow = (np.asarray(node[key], np.float64) for key in ("fast_axis", "slow_axis"))
    matrix = np.eye(4)
    matrix[:3] = np.stack([fast, slow, np.cross(fast, slow), np.asarray(node["origin"])], axis=1)
    return matrix


def _tile(
    panel: Mapping[str, Any], index: int, rows: tuple[int, int], cols: tuple[int, int], frame: Array
) -> Tile:
    size = int(panel["image_size"][1]), int(panel["image_size"][0])
    if size != (rows[1] - rows[0], cols[1] - cols[0]):
        name = panel.get("name")
        raise GeometryError(f"panel {name!r} has {size} pixels, not those of rows {rows} cols {cols}")
    fast, slow = (
        frame[:3, :3] @ np.asarray(panel[key]) * pitch * LAB_TO_DXTBX * 1e-3
        for key, pitch in zip(("fast_axis", "slow_axis"), panel["pixel_size"], strict=True)
    )
    corner = (frame[:3, :3] @ np.asarray(panel["origin"]) + frame[:3, 3]) * LAB_TO_DXTBX * 1e-3
    return Tile(index, rows, cols, corner + (slow + fast) / 2, slow, fast)

"""EXtra-geom (European XFEL): geometry objects of fragments, laboratory frame, metres.

EXtra-geom has no place for a distance apart from the fragments' own z, which it keeps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from psana_dask.errors import GeometryError, MissingLibrary
from psana_dask.geometry.model import Geometry
from psana_dask.geometry.segments import Convention, SegmentType
from psana_dask.geometry.tiles import Tile, by_panels, geometry_of, local_tiles, tiles_of

if TYPE_CHECKING:
    from extra_geom.base import DetectorGeometryBase


def to_extra_geom(geometry: Geometry) -> DetectorGeometryBase:
    """Return an EXtra-geom object: JUNGFRAUGeometry for a Jungfrau, else one of its base class.

    Raises
    ------
    MissingLibrary
        EXtra-geom is not installed.
    """
    try:
        from extra_geom import JUNGFRAUGeometry
        from extra_geom.base import GeometryFragment
    except ImportError:
        raise MissingLibrary.of("EXtra-geom", "geometry", "an EXtra-geom object") from None
    modules = [
        [GeometryFragment(t.corner, t.slow, t.fast, *t.shape) for t in panel]
        for panel in by_panels(tiles_of(geometry))
    ]
    if geometry.segment.name.startswith("JUNGFRAU"):
        return JUNGFRAUGeometry(modules)
    return _class_for(geometry.segment, len(modules))(modules)


def from_extra_geom(
    detector: DetectorGeometryBase, segment: str | None = None, *, convention: Convention = "psana2"
) -> Geometry:
    """Return the geometry of an EXtra-geom object.

    Parameters
    ----------
    detector : DetectorGeometryBase
        Any EXtra-geom detector.
    segment : str, optional
        The psana segment type; by default the one that fits best.
    """
    found = []
    for panel, module in enumerate(detector.modules):
        for number, piece in enumerate(module):
            rows, cols = detector._tile_slice(number)
            slow, fast = np.asarray(piece.ss_vec), np.asarray(piece.fs_vec)
            first = np.asarray(piece.corner_pos) + (slow + fast) / 2
            found.append(Tile(panel, (rows.start, rows.stop), (cols.start, cols.stop), first, slow, fast))
    if not found:
        raise GeometryError("the EXtra-geom object has no modules")
    return geometry_of(found, segment, convention=convention)


def _class_for(segment: SegmentType, panels: int) -> type[DetectorGeometryBase]:
    """Return a subclass with the layout of the segment type, which EXtra-geom keeps in its class."""
    from extra_geom.base import DetectorGeometryBase

    places = [(slice(*tile.rows), slice(*tile.cols)) for tile in local_tiles(segment)]
    shape = places[0][0].stop - places[0][0].start, places[0][1].stop - places[0][1].start

    def split_tiles(module_data: Any) -> list[Any]:
        return [module_data[(..., *place)] for place in places]

    def module_coords_to_tile(slow: Any, fast: Any) -> tuple[Any, Any, Any]:
        per_row = len(segment.cols.asics)
        return slow // shape[0] * per_row + fast // shape[1], slow % shape[0], fast % shape[1]

    attributes = {
        "detector_type_name": segment.name,
        "pixel_size": segment.pixel_size * 1e-6,
        "frag_ss_pixels": shape[0],
        "frag_fs_pixels": shape[1],
        "n_modules": panels,
        "n_tiles_per_module": len(places),
        "expected_data_shape": (panels, *segment.shape),
        "split_tiles": staticmethod(split_tiles),
        "_tile_slice": staticmethod(places.__getitem__),
        "_module_coords_to_tile": staticmethod(module_coords_to_tile),
    }
    return type("PsanaGeometry", (DetectorGeometryBase,), attributes)

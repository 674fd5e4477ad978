"""pyFAI: a detector with the corners of every pixel, and its place relative to the sample.

pyFAI's axes are 1 up, 2 to the right seen along the beam, 3 along the beam: laboratory y, -x, z.
The detector of `to_pyfai` carries all rotations itself, so the geometry beside it is a plain
distance: ``AzimuthalIntegrator(detector=detector, **poni)``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from psana_dask.errors import GeometryError, MissingLibrary
from psana_dask.geometry.model import Geometry
from psana_dask.geometry.segments import Array, Convention, SegmentType, segment_type
from psana_dask.geometry.tiles import Tile, geometry_of, recognised, tiles_of, tiles_of_positions
from psana_dask.geometry.tree import coordinates, sizes

if TYPE_CHECKING:
    from pyFAI.detectors import Detector

LAB_TO_PYFAI = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
# row vector (x, y, z) @ this = axes (1, 2, 3)
CORNERS = np.array([(-0.5, -0.5), (-0.5, 0.5), (0.5, 0.5), (0.5, -0.5)])
# (row, col) offsets; this way round the normals of sensors that face the sample point along the
# beam, as pyFAI expects (the other way round it finds negative solid angles, and intensities)
PLACE = ("dist", "poni1", "poni2", "rot1", "rot2", "rot3")
# m and rad


def pixel_corners(geometry: Geometry, distance: float = 0.0) -> NDArray[np.float32]:
    """Return the corners of each pixel as pyFAI wants them.

    Parameters
    ----------
    geometry : Geometry
        The detector.
    distance : float
        Subtracted from axis 3, m.

    Returns
    -------
    float32 array (panel * row, col, 4, 3)
        Axes 3, 1, 2 ("z, y, x") in metres.  The corners lie about the pixel's coordinates, so
        their mean is what `tree.coordinates` gives.
    """
    axes = np.stack(coordinates(geometry, frame="lab"), axis=-1) * 1e-6 @ LAB_TO_PYFAI
    axes[..., 2] -= distance
    down, right = _steps(geometry)
    corners = np.stack([axes + i * down + j * right for i, j in CORNERS], axis=-2)[..., [2, 0, 1]]
    return corners.reshape(-1, geometry.shape[2], 4, 3).astype(np.float32)


def to_pyfai(geometry: Geometry) -> tuple[Detector, dict[str, float]]:
    """Return a pyFAI detector and the keywords of its place: dist, poni1, poni2, rot1, rot2, rot3.

    Data go in as (panel * row, col).

    Raises
    ------
    MissingLibrary
        pyFAI is not installed.
    """
    try:
        from pyFAI.detectors import Detector
    except ImportError:
        raise MissingLibrary.of("pyFAI", "azimuthal", "a pyFAI detector") from None
    panels, rows, cols = geometry.shape
    tile = tiles_of(geometry)[0]
    pitch = [float(np.linalg.norm(step)) for step in (tile.slow, tile.fast)]
    distance = float(np.nanmean(coordinates(geometry, frame="lab").z)) * 1e-6
    detector = Detector(pixel1=pitch[0], pixel2=pitch[1], max_shape=(panels * rows, cols))
    detector.aliases = [f"psana_dask {geometry.segment.name} x {panels}"]
    detector.set_pixel_corners(pixel_corners(geometry, distance))
    return detector, {**dict.fromkeys(PLACE, 0.0), "dist": distance}


def from_pyfai(
    detector: Detector,
    poni: Mapping[str, float],
    segment: str | None = None,
    *,
    convention: Convention = "psana2",
) -> Geometry:
    """Return the geometry of a pyFAI detector of known segment type.

    Parameters
    ----------
    detector : pyFAI.detectors.Detector
        Its data are (panel * row, col).
    poni : mapping
        dist, poni1, poni2 in metres; rot1, rot2, rot3 in radians.
    segment : str, optional
        The psana segment type of the panels; by default the one that fits best, else one sensor.
    """
    corners = np.asarray(detector.get_pixel_corners(), np.float64)
    axes = corners.mean(axis=2)[..., [1, 2, 0]]
    axes = (axes - (poni["poni1"], poni["poni2"], -poni["dist"])) @ _pyfai_rotation(poni).T
    lab = axes @ LAB_TO_PYFAI.T
    if segment is not None:
        found = _tiles(lab, segment_type(segment, convention))
        return geometry_of(found, segment, convention=convention)
    pitch = [f"{size * 1e6:g}" for size in (detector.pixel1, detector.pixel2)]
    whole = f"MTRX:V2:{lab.shape[0]}:{lab.shape[1]}:{pitch[0]}:{pitch[1]}"
    return recognised(lambda kind: _tiles(lab, kind), convention, [whole])


def _tiles(lab: Array, kind: SegmentType) -> tuple[Tile, ...]:
    """Return the ASICs of pixels (row, col, 3) in m, taken as panels of a segment type."""
    if lab.shape[0] % kind.shape[0] or lab.shape[1] != kind.shape[1]:
        raise GeometryError(f"{lab.shape[:2]} pixels are not panels of {kind.name} {kind.shape}")
    return tiles_of_positions(lab.reshape(-1, *kind.shape, 3), kind)


def poni_text(geometry: Geometry, wavelength: float | None = None, detector: str | None = None) -> str:
    """Return a PONI file (version 2.1) for the detector of `to_pyfai`.

    Parameters
    ----------
    geometry : Geometry
    wavelength : float, optional
        Metres.
    detector : str, optional
        File of the pixels, as the ``save`` method of the detector of `to_pyfai` writes it.
    """
    found, place = to_pyfai(geometry)
    config = {} if detector is None else {"filename": detector, "orientation": int(found.orientation.value)}
    lines = ["poni_version: 2.1", "Detector: NexusDetector", f"Detector_config: {json.dumps(config)}"]
    names = {"dist": "Distance", **{k: k.capitalize() for k in place if k != "dist"}}
    lines += [f"{names[key]}: {value!r}" for key, value in place.items()]
    if wavelength is not None:
        lines.append(f"Wavelength: {wavelength!r}")
    return "\n".join(lines) + "\n"


def _steps(geometry: Geometry) -> tuple[Array, Array]:
    """Return the vectors across each pixel, (panel, row or 1, 1 or col, 3), pyFAI axes, m."""
    shape = geometry.shape
    down, right = np.empty((*shape, 3)), np.empty((*shape, 3))
    tall, wide = _extents(geometry)
    for tile in tiles_of(geometry):
        at = (tile.panel, slice(*tile.rows), slice(*tile.cols))
        down[at] = tall[at][..., None] * _unit(tile.slow) @ LAB_TO_PYFAI
        right[at] = wide[at][..., None] * _unit(tile.fast) @ LAB_TO_PYFAI
    return down, right


def _extents(geometry: Geometry) -> tuple[Array, Array]:
    """Return each pixel's extents, m; a wide pixel that is indexed as a regular one counts as one."""
    tall, wide = (size * 1e-6 for size in sizes(geometry))
    if geometry.segment.wide_centres:
        return tall, wide
    return np.full_like(tall, np.nanmin(tall)), np.full_like(wide, np.nanmin(wide))


def _unit(vector: Array) -> Array:
    length: Any = np.linalg.norm(vector)
    return np.asarray(vector / length)


def _pyfai_rotation(poni: Mapping[str, float]) -> Array:
    """Return pyFAI's rotation of the detector: R3(rot3) R2(-rot2) R1(-rot1) in its own signs.

    pyFAI turns about axis 1 and 2 left-handed and about axis 3 right-handed
    (`pyFAI.geometry.core.Geometry.rotation_matrix`).
    """
    c1, c2, c3 = (np.cos(poni.get(key, 0.0)) for key in ("rot1", "rot2", "rot3"))
    s1, s2, s3 = (np.sin(poni.get(key, 0.0)) for key in ("rot1", "rot2", "rot3"))
    about1 = np.array([[1, 0, 0], [0, c1, s1], [0, -s1, c1]])
    about2 = np.array([[c2, 0, -s2], [0, 1, 0], [s2, 0, c2]])
    about3 = np.array([[c3, -s3, 0], [s3, c3, 0], [0, 0, 1]])
    product: Array = about3 @ about2 @ about1
    return product

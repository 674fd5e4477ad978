"""The constants of simulated detectors: dark levels, one photon's worth of ADU, and where the panels lie.

With them the calibrated frames are photons, and the assembled images are the `Picture`.
``tests/test_simulate_constants.py`` compares both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from psana_dask.calib.constants import Constants
from psana_dask.calib.detectors import detector as detector_row
from psana_dask.calib.store import MemoryStore
from psana_dask.geometry.model import Geometry, Part
from psana_dask.geometry.text import write_text
from psana_dask.simulate.describe import Detector
from psana_dask.simulate.images import Picture

PIXEL_SIZE = 100
"""Of every simulated pixel, um."""

DISTANCE = 100_000
"""From the sample, um."""


def constants_of(
    detectors: Iterable[Detector], pictures: Mapping[str, Picture], form: Literal["xtc", "xtc2"]
) -> MemoryStore:
    """Return what calibrates the frames of a simulated run.

    Parameters
    ----------
    detectors : iterable of Detector
        As they were written, with type and address.
    pictures : mapping of str to Picture
        By detector.
    form : {"xtc", "xtc2"}
        LCLS-1 multiplies by the gain, LCLS-II divides by it.
    """
    with_frames = [d for d in detectors if d.name in pictures]
    return MemoryStore(tuple(c for d in with_frames for c in _of(d, pictures[d.name], form)), "simulated")


def geometry_of(picture: Picture) -> Geometry:
    """Return where the panels of a picture lie, with the beam in the middle of it."""
    rows, cols = picture.frame_shape[-2:]
    name = f"MTRX:{rows}:{cols}:{PIXEL_SIZE}:{PIXEL_SIZE}"
    places = (picture.corners - np.array(picture.centre)) * PIXEL_SIZE  # psana: x down, y to the right
    panels = [
        Part("CAMERA", 0, name, number, (round(float(x), 1), round(float(y), 1), 0.0))
        for number, (x, y) in enumerate(places)
    ]
    return Geometry((*panels, Part("IP", 0, "CAMERA", 0, (0.0, 0.0, float(-DISTANCE)))))


def _of(detector: Detector, picture: Picture, form: str) -> Iterator[Constants]:
    row = detector_row(detector.det_type or "" if form == "xtc2" else detector.source or "")
    gain = picture.scene.adu_per_photon
    factor = gain if row.gain_meaning(form == "xtc2") == "divide" else 1 / gain
    ranges = len(row.decoding.ranges)
    values: dict[str, Any] = {
        "pedestals": _shaped(picture.pedestals, picture, ranges),
        "pixel_gain": _shaped(np.full_like(picture.pedestals, factor), picture, ranges),
        "geometry": write_text(geometry_of(picture)),
    }
    for name in dict.fromkeys(filter(None, (detector.name, detector.source))):
        for kind, value in values.items():
            yield Constants(kind, value, name, origin="psana_dask.simulate")


def _shaped(panels: npt.NDArray[np.float32], picture: Picture, ranges: int) -> npt.NDArray[np.float32]:
    """Return values of (panel, row, col) as a constant, in every gain range; one panel is (row, col)."""
    frame = panels[0] if len(picture.frame_shape) == 2 and len(panels) == 1 else panels
    return np.repeat(frame[None], ranges, axis=0) if ranges else frame

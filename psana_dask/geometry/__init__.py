"""Detector geometry: where each pixel is, and images made from panels.

Pure functions on frozen values and arrays; only `files` opens files.  `docs/geometry.md` has
the convention of coordinates and a figure.

>>> from psana_dask import geometry
>>> detector = geometry.default_geometry("jungfrau", panels=8)
>>> detector.shape
(8, 512, 1024)
>>> tables = geometry.prepare(detector)
>>> tables.shape
(2203, 2299)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from psana_dask.lazily import on_first_use

if TYPE_CHECKING:
    from psana_dask.drawing import colour_limits
    from psana_dask.geometry import convert, refine
    from psana_dask.geometry.assembly import apply, assembled, panels_of, prepare
    from psana_dask.geometry.defaults import default_geometry
    from psana_dask.geometry.figure import describe, draw_image, draw_panels, facts
    from psana_dask.geometry.files import load, save
    from psana_dask.geometry.model import Geometry, Part, moved, placed, tilted
    from psana_dask.geometry.tables import AssemblyTables
    from psana_dask.geometry.text import read_text, write_text
    from psana_dask.geometry.tree import areas, coordinates, mask, projected, sizes

__getattr__, __dir__ = on_first_use(__name__)

__all__ = [
    "AssemblyTables", "Geometry", "Part", "apply", "areas", "assembled", "colour_limits", "convert",
    "coordinates", "default_geometry", "describe", "draw_image", "draw_panels", "facts", "load", "mask",
    "moved", "panels_of", "placed", "prepare", "projected", "read_text", "refine", "save", "sizes",
    "tilted", "write_text",
]  # fmt: skip

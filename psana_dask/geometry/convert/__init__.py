"""Geometries to and from the formats of other programs.

`crystfel`, `dxtbx` and the psana text are texts: `read` and `write` take them by name.  `nexus`
works on an HDF5 group, `cheetah` on three arrays, `pyfai` and `extra_geom` on those libraries'
objects.  All pass through `tiles.Tile`, the ASICs as vectors, except psana's own text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from types import MappingProxyType

from psana_dask.errors import GeometryError, suggestion
from psana_dask.geometry.convert.crystfel import read_crystfel, write_crystfel
from psana_dask.geometry.convert.dxtbx import from_dxtbx, to_dxtbx
from psana_dask.geometry.model import Geometry
from psana_dask.geometry.segments import Convention
from psana_dask.geometry.text import read_text, write_text

__all__ = ["FORMATS", "read", "write"]


def _read_psana(text: str, segment: str | None, convention: Convention) -> Geometry:
    geometry = read_text(text, convention=convention)
    if segment not in (None, geometry.segment.name):
        raise GeometryError(f"the text says {geometry.segment.name}, not {segment}")
    return geometry


def _read_crystfel(text: str, segment: str | None, convention: Convention) -> Geometry:
    return read_crystfel(text, segment, convention=convention)


def _read_dxtbx(text: str, segment: str | None, convention: Convention) -> Geometry:
    try:
        model = json.loads(text)
    except json.JSONDecodeError as error:
        raise GeometryError(f"line {error.lineno}: not JSON: {error.msg}") from None
    # an .expt file holds a list of detectors
    return from_dxtbx(model["detector"][0] if "detector" in model else model, segment, convention=convention)


def _write_dxtbx(geometry: Geometry) -> str:
    return json.dumps(to_dxtbx(geometry), indent=1) + "\n"


Reader = Callable[[str, str | None, Convention], Geometry]
FORMATS: Mapping[str, tuple[Reader, Callable[[Geometry], str]]] = MappingProxyType(
    {
        "psana": (_read_psana, write_text),
        "crystfel": (_read_crystfel, write_crystfel),
        "dxtbx": (_read_dxtbx, _write_dxtbx),
    }
)


def read(
    text: str, form: str = "psana", *, segment: str | None = None, convention: Convention = "psana2"
) -> Geometry:
    """Read a text of one of `FORMATS`.

    Parameters
    ----------
    text : str
        The content of the file.
    form : {"psana", "crystfel", "dxtbx"}
        Which format it is in.
    segment : str, optional
        The psana segment type, where the format does not say it.
    convention : {"psana2", "psana1"}
        Which library's segment types.
    """
    return _known(form)[0](text, segment, convention)


def write(geometry: Geometry, form: str = "psana") -> str:
    """Return a geometry as a text of one of `FORMATS`."""
    return _known(form)[1](geometry)


def _known(form: str) -> tuple[Reader, Callable[[Geometry], str]]:
    if form not in FORMATS:
        raise GeometryError(f"no text format {form!r}{suggestion(form, FORMATS)}")
    return FORMATS[form]

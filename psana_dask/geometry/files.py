"""Geometry files of all formats: `load` and `save`.

The only module of this package that opens files.  `FORMATS` is the table of formats; the names
are those of ``psana-dask geometry convert --to``.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from psana_dask.errors import GeometryError, MissingLibrary, suggestion
from psana_dask.geometry import convert
from psana_dask.geometry.convert import cheetah, nexus, pyfai
from psana_dask.geometry.convert.crystfel import read_crystfel, write_crystfel
from psana_dask.geometry.model import Geometry
from psana_dask.geometry.segments import Convention

StrPath = str | os.PathLike[str]


@dataclass(frozen=True)
class Format:
    """One kind of file."""

    suffixes: tuple[str, ...]
    read: Callable[..., Geometry]
    # (path, segment, convention, options of reading)
    write: Callable[..., None]
    # (geometry, path, options of writing)
    what: str
    reading: tuple[str, ...] = ()
    writing: tuple[str, ...] = ()
    # names of the options


def load(
    path: StrPath,
    form: str | None = None,
    *,
    segment: str | None = None,
    convention: Convention = "psana2",
    **options: Any,
) -> Geometry:
    """Read a geometry file.

    Parameters
    ----------
    path : path
    form : str, optional
        One of `FORMATS`; by default what the file looks like.
    segment : str, optional
        The psana segment type, where the format does not say it; by default the one that fits best.
    convention : {"psana2", "psana1"}
        Which library's segment types: psana1 for LCLS-1, psana2 for LCLS-II.
    **options
        CrystFEL: ``corner``, ``distance``; see `convert.crystfel.read_crystfel`.

    Raises
    ------
    GeometryError
        The file cannot be read as a geometry; the message has the file and, for texts, the line.
    MissingLibrary
        pyFAI is needed for a poni file and is not installed.

    Examples
    --------
    >>> detector = load("refined.geom")  # doctest: +SKIP
    """
    place = Path(path)
    if not place.is_file():
        raise GeometryError(f"no file {place}")
    name = form or form_of(place)
    kind = _known(name)
    _check_options(name, options, kind.reading)
    try:
        return kind.read(place, segment, convention, **options)
    except UnicodeDecodeError:
        raise GeometryError(f"{place}: not a text; give form= one of {', '.join(FORMATS)}") from None
    except GeometryError as error:
        raise GeometryError(f"{place}: {error}") from error


def save(geometry: Geometry, path: StrPath, form: str | None = None, **options: Any) -> Path:
    """Write a geometry file, all of it or nothing.

    Parameters
    ----------
    geometry : Geometry
    path : path
    form : str, optional
        One of `FORMATS`; by default by the ending of the name. ``pyfai`` writes two files, the
        place (``.poni``) and beside it the pixels (``.poni.h5``).
    **options
        CrystFEL: ``clen``, ``data``, ``mask``, ``bad``, ``panel_axis`` and the others of
        `convert.crystfel.write_crystfel`; NeXus: ``title``, ``start_time``, ``end_time``,
        ``wavelength`` (angstrom); pyFAI: ``wavelength``.

    Returns
    -------
    Path
        What was written.

    Raises
    ------
    GeometryError
        The ending of the name belongs to no format, or the format has no such option.

    Examples
    --------
    >>> geometry.save(run.cspad.geometry, "cspad.geom")
    """
    place = Path(path)
    name = form or form_of_suffix(place)
    kind = _known(name)
    _check_options(name, options, kind.writing)
    kind.write(geometry, place, **options)
    return place


def text_of(geometry: Geometry, form: str = "psana", **options: Any) -> str:
    """Return what `save` writes in one of the text formats."""
    _check_options(form, options, _known(form).writing)
    return write_crystfel(geometry, **options) if form == "crystfel" else convert.write(geometry, form)


def _check_options(form: str, given: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for name in given:
        if name not in known:
            there = f"it has {', '.join(known)}" if known else "it has none"
            raise GeometryError(f"the format {form} has no option {name!r}; {there}")


def as_geometry(given: Geometry | StrPath, convention: Convention = "psana2") -> Geometry:
    """Return a geometry that is given as such, as the psana text of one, or as the path of a file."""
    if isinstance(given, Geometry):
        return given
    if isinstance(given, str) and "\n" in given:
        return convert.read(given, convention=convention)
    return load(given, convention=convention)


def form_of(path: Path) -> str:
    """Return which of `FORMATS` a file is in, by its content."""
    with path.open("rb") as file:
        head = file.read(65536)
    if head.startswith(b"\x89HDF"):
        return _form_of_hdf5(path)
    lines = [line.strip() for line in head.decode(errors="replace").splitlines()]
    if lines and next((line for line in lines if line), "").startswith("{"):
        return "dxtbx"
    if any(line.lower().startswith("distance:") for line in lines):
        return "pyfai"
    said = [line for line in lines if line and line[0] not in "#;"]
    return "crystfel" if said and "=" in said[0] else "psana"


def _form_of_hdf5(path: Path) -> str:
    import h5py

    with h5py.File(path) as file:
        return "cheetah" if {"x", "y", "z"} <= set(file) else "nexus"


def form_of_suffix(path: Path) -> str:
    """Return which of `FORMATS` the ending of a name means."""
    fitting = [name for name, form in FORMATS.items() if path.suffix.lower() in form.suffixes]
    if not fitting:
        endings = ", ".join(f"{name} ({' '.join(form.suffixes)})" for name, form in FORMATS.items())
        raise GeometryError(f"{path.name}: the ending says no format; there are {endings}")
    return fitting[0]


def _known(form: str) -> Format:
    if form not in FORMATS:
        names = f"; there are {', '.join(FORMATS)}"
        raise GeometryError(f"no format {form!r}{suggestion(form, FORMATS) or names}")
    return FORMATS[form]


# ---- readers and writers ------------------------------------------------------------------------
@contextlib.contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """Yield a name beside `path` that becomes it when all went well."""
    beside = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield beside
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def _text_reader(form: str) -> Callable[..., Geometry]:
    def read(path: Path, segment: str | None, convention: Convention, **options: Any) -> Geometry:
        text = path.read_text(encoding="utf-8")
        if form == "crystfel":
            return read_crystfel(text, segment, convention=convention, **options)
        return convert.read(text, form, segment=segment, convention=convention)

    return read


def _text_writer(form: str) -> Callable[..., None]:
    def write(geometry: Geometry, path: Path, **options: Any) -> None:
        text = text_of(geometry, form, **options)
        with _whole(path) as beside:
            beside.write_text(text, encoding="utf-8")

    return write


def _read_cheetah(path: Path, segment: str | None, convention: Convention) -> Geometry:
    import h5py

    with h5py.File(path) as file:
        missing = {"x", "y", "z"} - set(file)
        if missing:
            raise GeometryError(f"a pixel map has datasets x, y and z; this one has no {min(missing)}")
        pixel_map = cheetah.PixelMap(*(np.asarray(file[name]) for name in "xyz"))
    return cheetah.from_pixel_map(pixel_map, segment, convention=convention)


def _write_cheetah(geometry: Geometry, path: Path) -> None:
    import h5py

    pixel_map = cheetah.to_pixel_map(geometry)
    with _whole(path) as beside, h5py.File(beside, "w") as file:
        for name, values in zip("xyz", pixel_map, strict=True):
            file[name] = values


def _read_nexus(path: Path, segment: str | None, convention: Convention) -> Geometry:
    import h5py

    with h5py.File(path) as file:
        found: list[Any] = []
        file.visititems(lambda _, item: found.append(item) if nexus.is_detector(item) else None)
        if len(found) != 1:
            names = ", ".join(item.name for item in found) or "none"
            raise GeometryError(f"one NXdetector with modules is wanted, found {names}")
        return nexus.read_nxmx(found[0], segment, convention=convention)


def _write_nexus(geometry: Geometry, path: Path, **options: Any) -> None:
    import h5py

    with _whole(path) as beside, h5py.File(beside, "w") as file:
        nexus.write_entry(file, geometry, **options)


def _read_poni(path: Path, segment: str | None, convention: Convention) -> Geometry:
    try:
        from pyFAI.io.ponifile import PoniFile
    except ImportError:
        raise MissingLibrary.of("pyFAI", "azimuthal", "a poni file") from None
    try:
        poni = PoniFile(_poni_values(path))
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise GeometryError(f"pyFAI cannot read it: {error}") from error
    place = {name: float(poni.as_dict()[name] or 0.0) for name in pyfai.PLACE}
    return pyfai.from_pyfai(poni.detector, place, segment, convention=convention)


def _poni_values(path: Path) -> dict[str, Any]:
    """Return what a poni file says; it names the detector's file relative to itself."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    pairs = [line.split(":", 1) for line in lines if ":" in line]
    values: dict[str, Any] = {key.strip().lower(): value.strip() for key, value in pairs}
    if "detector_config" in values:
        config = json.loads(values["detector_config"])
        if "filename" in config:
            config["filename"] = str(path.parent / config["filename"])
        values["detector_config"] = config
    return values


def _write_poni(geometry: Geometry, path: Path, wavelength: float | None = None) -> None:
    detector, _ = pyfai.to_pyfai(geometry)
    pixels = path.with_name(f"{path.name}.h5")
    with _whole(pixels) as beside:
        detector.save(str(beside))
    metres = None if wavelength is None else wavelength * 1e-10
    with _whole(path) as beside:
        beside.write_text(pyfai.poni_text(geometry, metres, pixels.name), encoding="utf-8")


CRYSTFEL = ("clen", "data", "mask", "photon_energy", "adu_per_ev", "bad", "panel_axis")
FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        "psana": Format((".data", ".txt"), _text_reader("psana"), _text_writer("psana"), "psana text"),
        "crystfel": Format(
            (".geom",),
            _text_reader("crystfel"),
            _text_writer("crystfel"),
            "CrystFEL, EXtra-geom",
            ("corner", "distance"),
            CRYSTFEL,
        ),
        "nexus": Format(
            (".nxs", ".nx5", ".nexus"),
            _read_nexus,
            _write_nexus,
            "NeXus NXmx",
            writing=("title", "start_time", "end_time", "wavelength"),
        ),
        "dxtbx": Format((".expt", ".json"), _text_reader("dxtbx"), _text_writer("dxtbx"), "DIALS, dxtbx"),
        "pyfai": Format(
            (".poni",), _read_poni, _write_poni, "pyFAI poni and detector", writing=("wavelength",)
        ),
        "cheetah": Format((".h5", ".hdf5"), _read_cheetah, _write_cheetah, "Cheetah pixel map"),
    }
)

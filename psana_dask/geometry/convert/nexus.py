"""NeXus NXmx: an NXdetector whose modules hang on a chain of transformations.

`write_nxmx` fills a group and `read_nxmx` reads one; a group is anything with the methods of an
``h5py.Group``, so this module opens no file.  The frame is that of NXmx (McStas), which is the
laboratory frame.  A module's offset leads to the outer corner of its first pixel.

Written is ``transformations/AXIS_RAIL`` (the distance) <- ``AXIS_P<k>`` (place of a panel) <-
``AXIS_P<k>_X`` <- ``_Y`` <- ``_Z`` (its angles) <- ``ARRAY_P<k>A<j>/module_offset`` <- the pixel
directions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from psana_dask.errors import GeometryError
from psana_dask.geometry.model import Geometry
from psana_dask.geometry.segments import Array, Convention
from psana_dask.geometry.tiles import Tile, angles_of, by_panels, geometry_of, tiles_of

METRES = {"m": 1.0, "mm": 1e-3, "um": 1e-6, "µm": 1e-6, "micrometre": 1e-6, "cm": 1e-2, "nm": 1e-9}
DEGREES = {"deg": 1.0, "degree": 1.0, "degrees": 1.0, "rad": 180 / np.pi, "radian": 180 / np.pi}
AXES = {"X": (1.0, 0.0, 0.0), "Y": (0.0, 1.0, 0.0), "Z": (0.0, 0.0, 1.0)}


@dataclass(frozen=True, eq=False)
class _Axis:
    """One NeXus transformation: a rotation or translation, then an offset."""

    turn: Array
    # (3, 3)
    shift: Array
    # (3,) m

    def place(self, point: Array) -> Array:
        return np.asarray(self.turn @ point + self.shift)


def write_nxmx(group: Any, geometry: Geometry) -> None:
    """Write the detector into an empty group, which becomes an NXdetector.

    Parameters
    ----------
    group : h5py.Group or the like
        For instance ``file["/entry/instrument/detector"]``; its ``name`` is used in links.
    geometry : Geometry
        The detector; data are (panel, row, col).
    """
    panels = by_panels(tiles_of(geometry))
    distance = float(np.mean([tile.first[2] for panel in panels for tile in panel]))
    home = f"{group.name.rstrip('/')}/transformations"
    group.attrs["NX_class"] = "NXdetector"
    group["description"] = f"{geometry.segment.name} x {geometry.shape[0]}"
    group["depends_on"] = f"{home}/AXIS_RAIL"
    for name, step in (("x_pixel_size", panels[0][0].fast), ("y_pixel_size", panels[0][0].slow)):
        _dataset(group, name, float(np.linalg.norm(step)), {"units": "m"})
    axes = group.create_group("transformations")
    axes.attrs["NX_class"] = "NXtransformations"
    _axis(axes, "AXIS_RAIL", distance, "translation", (0, 0, 1), ".")
    for number, panel in enumerate(panels):
        turn, place = _panel_axes(axes, home, number, panel, distance)
        last = f"{home}/AXIS_P{number}_Z"
        for asic, tile in enumerate(panel):
            _module(group.create_group(f"ARRAY_P{number}A{asic}"), tile, turn, place, last)


def write_entry(
    file: Any,
    geometry: Geometry,
    *,
    title: str | None = None,
    start_time: str | None = None,
    end_time: str | None = None,
    wavelength: float | Array | None = None,
) -> None:
    """Write an NXmx entry that holds the detector into an empty file.

    Parameters
    ----------
    file : h5py.File or the like
    geometry : Geometry
        The detector.
    title : str, optional
        Of the entry; by default what the detector is.
    start_time, end_time : str, optional
        Of the measurement, ISO 8601.  NXmx wants them; a geometry has none.
    wavelength : float or (event,) array, optional
        Of the incident beam, angstrom.  NXmx wants it.
    """
    file.attrs["default"] = "entry"
    entry = _group(file, "entry", "NXentry")
    entry["definition"] = "NXmx"
    entry["title"] = title or f"geometry of {geometry.shape[0]} x {geometry.segment.name}"
    times = {"start_time": start_time, "end_time": end_time, "end_time_estimated": end_time}
    for name, when in times.items():
        if when is not None:
            entry[name] = when
    sample = _group(entry, "sample", "NXsample")
    sample["name"] = "sample"
    sample["depends_on"] = "."  # in the interaction point, where the laboratory frame has its origin
    source = _group(entry, "source", "NXsource")
    source["name"] = "Linac Coherent Light Source"
    source["name"].attrs["short_name"] = "LCLS"
    instrument = _group(entry, "instrument", "NXinstrument")
    instrument["name"] = "LCLS"
    instrument["name"].attrs["short_name"] = "LCLS"
    if wavelength is not None:
        beam = _group(instrument, "beam", "NXbeam")
        _dataset(beam, "incident_wavelength", wavelength, {"units": "angstrom"})
    write_nxmx(instrument.create_group("detector"), geometry)


def is_detector(item: Any) -> bool:
    """Tell whether something in a file is an NXdetector that holds modules."""
    return _is_a(item, "NXdetector") and any(_is_a(part, "NXdetector_module") for part in item.values())


def _is_a(item: Any, kind: str) -> bool:
    return hasattr(item, "keys") and _text(item.attrs.get("NX_class", "")) == kind


def _group(parent: Any, name: str, kind: str) -> Any:
    group = parent.create_group(name)
    group.attrs["NX_class"] = kind
    return group


def read_nxmx(
    group: Any,
    segment: str | None = None,
    *,
    convention: Convention = "psana2",
) -> Geometry:
    """Read an NXdetector.

    Parameters
    ----------
    group : h5py.Group or the like
        The NXdetector; chains may lead anywhere in ``group.file``.
    segment : str, optional
        The psana segment type; by default the one that fits best.

    Raises
    ------
    GeometryError
        No modules, an unknown unit or transformation, a chain that ends nowhere or in a loop.
    """
    found = [_tile(module) for module in group.values() if _is_a(module, "NXdetector_module")]
    if not found:
        raise GeometryError(f"{group.name} has no NXdetector_module")
    return geometry_of(found, segment, convention=convention)


def _panel_axes(
    axes: Any,
    home: str,
    number: int,
    panel: list[Tile],
    distance: float,
) -> tuple[Array, Array]:
    """Write the chain of one panel; return its rotation and place (m)."""
    fast, slow = (step / np.linalg.norm(step) for step in (panel[0].fast, panel[0].slow))
    turn = np.stack([fast, slow, np.cross(fast, slow)], axis=1)
    middle = np.mean([tile.first for tile in panel], axis=0)
    offset = middle - (0, 0, distance)
    _axis(axes, f"AXIS_P{number}", 0.0, "translation", (0, 0, 1), f"{home}/AXIS_RAIL", offset)
    about_z, about_y, about_x = angles_of(turn)
    above = f"{home}/AXIS_P{number}"
    for letter, angle in (("X", about_x), ("Y", about_y), ("Z", about_z)):
        name = f"AXIS_P{number}_{letter}"
        _axis(axes, name, angle, "rotation", AXES[letter], above)
        above = f"{home}/{name}"
    return turn, middle


def _module(
    group: Any,
    tile: Tile,
    turn: Array,
    place: Array,
    above: str,
) -> None:
    group.attrs["NX_class"] = "NXdetector_module"
    group["data_origin"] = np.array([tile.panel, tile.rows[0], tile.cols[0]])
    group["data_size"] = np.array([1, *tile.shape])
    _axis(group, "module_offset", 0.0, "translation", (0, 0, 1), above, turn.T @ (tile.corner - place))
    for name, step in (("fast_pixel_direction", tile.fast), ("slow_pixel_direction", tile.slow)):
        size = float(np.linalg.norm(step))
        _axis(group, name, size, "translation", turn.T @ step / size, f"{group.name}/module_offset")


def _axis(
    group: Any,
    name: str,
    value: float,
    kind: str,
    vector: Any,
    depends_on: str,
    offset: Any = (0.0, 0.0, 0.0),
) -> None:
    attributes = {
        "transformation_type": kind,
        "units": "deg" if kind == "rotation" else "m",
        "vector": np.asarray(vector, np.float64),
        "offset": np.asarray(offset, np.float64),
        "offset_units": "m",
        "depends_on": depends_on,
    }
    _dataset(group, name, value, attributes)


def _dataset(group: Any, name: str, value: float | Array, attributes: Mapping[str, Any]) -> None:
    group[name] = value
    for key, attribute in attributes.items():
        group[name].attrs[key] = attribute


def _tile(module: Any) -> Tile:
    origin, size = (np.asarray(module[key][()]).ravel().astype(int) for key in ("data_origin", "data_size"))
    panel = int(origin[0]) if len(origin) == 3 else 0
    row, col = int(origin[-2]), int(origin[-1])
    corner = _placed(module["module_offset"], np.zeros(3))
    fast, slow = (_direction(module[f"{name}_pixel_direction"]) for name in ("fast", "slow"))
    rows, cols = (row, row + int(size[-2])), (col, col + int(size[-1]))
    return Tile(panel, rows, cols, corner + (slow + fast) / 2, slow, fast)


def _direction(dataset: Any) -> Array:
    """Return the step of one pixel in the laboratory frame, m."""
    step = _number(dataset) * _unit_of(dataset, METRES) * _vector(dataset)
    for axis in _chain(dataset, skip_first=True):
        step = axis.turn @ step
    return np.asarray(step)


def _placed(dataset: Any, point: Array) -> Array:
    for axis in _chain(dataset):
        point = axis.place(point)
    return point


def _chain(dataset: Any, skip_first: bool = False) -> Iterator[_Axis]:
    seen = set()
    while True:
        if dataset.name in seen:
            raise GeometryError(f"the transformations of {dataset.name} form a loop")
        seen.add(dataset.name)
        if not skip_first:
            yield _transformation(dataset)
        skip_first = False
        above = _text(dataset.attrs.get("depends_on", "."))
        if above == ".":
            return
        dataset = _resolve(dataset, above)


def _resolve(dataset: Any, path: str) -> Any:
    home = dataset.file if path.startswith("/") else dataset.parent
    try:
        return home[path]
    except KeyError:
        raise GeometryError(f"{dataset.name} depends on {path}, which does not exist") from None


def _transformation(dataset: Any) -> _Axis:
    kind = _text(dataset.attrs.get("transformation_type", ""))
    units = _text(dataset.attrs.get("offset_units", "m"))
    if units not in METRES:
        raise GeometryError(f"{dataset.name}: unknown offset_units {units!r}")
    offset = np.asarray(dataset.attrs.get("offset", np.zeros(3)), np.float64) * METRES[units]
    vector = _vector(dataset)
    if kind == "translation":
        return _Axis(np.eye(3), offset + _number(dataset) * _unit_of(dataset, METRES) * vector)
    if kind == "rotation":
        return _Axis(_rodrigues(vector, np.radians(_number(dataset) * _unit_of(dataset, DEGREES))), offset)
    raise GeometryError(f"{dataset.name}: unknown transformation_type {kind!r}")


def _rodrigues(axis: Array, angle: float) -> Array:
    """Return the right-handed rotation by `angle` (rad) about a unit vector."""
    cross = np.cross(np.eye(3), axis)
    turn: Array = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return turn


def _vector(dataset: Any) -> Array:
    vector = np.asarray(dataset.attrs["vector"], np.float64)
    return vector / np.linalg.norm(vector)


def _number(dataset: Any) -> float:
    return float(np.asarray(dataset[()]).ravel()[0])


def _unit_of(dataset: Any, known: Mapping[str, float]) -> float:
    units = _text(dataset.attrs.get("units", ""))
    if units not in known:
        raise GeometryError(f"{dataset.name}: unknown units {units!r}; known are {', '.join(known)}")
    return known[units]


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)

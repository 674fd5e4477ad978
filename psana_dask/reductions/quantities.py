"""What is reduced: names such as ``"cspad.image"`` to arrays that tasks can read in any process.

Everything that needs a store or a configuration is looked up here, by the caller; workers
get values.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psana_dask.analysis.perframe import PerFrame
from psana_dask.calibrated import CalibratedArray
from psana_dask.catalog import Entry
from psana_dask.dataset import MADE_OF_PIXELS, View, chosen_fields, field_attrs
from psana_dask.errors import NameNotFound
from psana_dask.fields import any_panel
from psana_dask.geometry import assembly
from psana_dask.geometry.assembly import AssemblyTables
from psana_dask.imaging import Imaging
from psana_dask.pipeline import FrameArray, LazyArray, Target
from psana_dask.reductions.derived import DerivedArray, DerivedFrames, over
from psana_dask.reductions.tiles import Frames

Ints = NDArray[np.int64]
Name = str | tuple[str, str] | PerFrame
Wanted = Name | Iterable[Name] | None

PIXELS = MADE_OF_PIXELS


@dataclass(frozen=True, eq=False)
class Assembly:
    """How reduced panels become an image.

    Parameters
    ----------
    tables : AssemblyTables
    slots : (panel,) int64
        Panel of the geometry that each panel of the data is.
    """

    tables: AssemblyTables
    slots: Ints

    def image(self, panels: NDArray[Any]) -> NDArray[Any]:
        """Return the image (y, x) of panels ([panel,] row, col)."""
        frames = np.zeros(self.tables.panels, panels.dtype)
        frames[self.slots] = panels.reshape(len(self.slots), *self.tables.panels[1:])
        present = np.isin(np.arange(self.tables.panels[0]), self.slots)
        out = np.empty(self.tables.shape, panels.dtype)
        return assembly.apply(frames, self.tables, out, present=present)

    def panels(self, image: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return the flags of the pixels of an image, (panel, row, col)."""
        out = np.empty(self.tables.panels, np.uint8)
        assembly.panels_of(image.astype(np.uint8), self.tables, out)
        return out[self.slots] != 0


@dataclass(frozen=True, eq=False)
class Quantity:
    """One array over time that can be reduced.

    Parameters
    ----------
    name : str
        ``<detector>_<field>``.
    detector : str
    lazy : FrameArray, CalibratedArray or ImageArray
        Over no events: `over` gives it some.
    dims : tuple of str
        Of an event.
    coords, attrs : mapping
        Of a result.
    made_of : FrameArray or CalibratedArray
        What is reduced: the panels of an image are, and are assembled at the end.
    assembly : Assembly, optional
    """

    name: str
    detector: str
    lazy: LazyArray
    dims: tuple[str, ...]
    made_of: FrameArray | CalibratedArray
    coords: Mapping[str, Any] = field(default_factory=dict)
    attrs: Mapping[str, Any] = field(default_factory=dict)
    assembly: Assembly | None = None

    @property
    def target(self) -> Target:
        """Where it is read from."""
        return self.made_of.target

    @property
    def frames(self) -> Frames:
        """What a task reads."""
        return Frames.of(self.made_of)

    @property
    def panel_dims(self) -> tuple[str, ...]:
        """Dimensions of what is reduced."""
        return self.made_of.dims[1:]

    def present(self, events: Ints) -> NDArray[np.bool_]:
        """Return which panels each event has, (event, panel)."""
        found: NDArray[np.bool_] = self.target.reader().present(events)
        return found

    def having(self, events: Ints) -> NDArray[np.bool_]:
        """Return which events have any panel."""
        return any_panel(self.present(events))

    def read(self, events: Ints) -> NDArray[Any]:
        """Return the values of some events, (event, ...)."""
        return np.asarray(over(self.lazy, events)[...])


class DerivedQuantity(Quantity):
    """What a function makes of each frame, as a quantity: `made_of` is a `DerivedArray`."""

    @property
    def frames(self) -> Frames:
        """What a task reads."""
        return DerivedFrames.of_derived(self.made_of)  # type: ignore[arg-type]


def quantities(
    view: View, names: Wanted, calibration: Mapping[str, Any] | None = None
) -> tuple[list[Quantity], bool]:
    """Return what `names` mean, and whether that is one name of one array.

    Parameters
    ----------
    view : View
    names : names
        As for `run.dataset`; ``"<detector>.calib"``, ``"<detector>.image"`` and `PerFrame` too.
    calibration : mapping, optional
        Choices for ``calib`` and ``image``, as `Detector.calibrated` takes them.

    Raises
    ------
    NameNotFound
        A name fits nothing, or names text or ragged values.
    """
    wanted = listed(view, names)
    found: dict[str, Quantity] = {}
    for name in wanted:
        for quantity in _of_name(view, name, dict(calibration or {})):
            found.setdefault(quantity.name, quantity)
    if not found:
        raise NameNotFound(f"nothing to reduce in {names!r}: no field of fixed shape that any event has")
    single = len(wanted) == 1 and len(found) == 1 and not isinstance(names, list | None)
    return list(found.values()), single


def listed(view: View, names: Wanted) -> list[Name]:
    """Return names one by one; all detectors where there are none."""
    if names is None:
        return list(view.entries)
    if isinstance(names, str | PerFrame):
        return [names]
    if isinstance(names, tuple) and len(names) == 2 and _is_field(view, names):
        return [(str(names[0]), str(names[1]))]
    return list(names)


def check_names(view: View, names: Wanted) -> None:
    """Check that names fit detectors and fields that are declared, whether an event has them yet or not.

    Raises
    ------
    NameNotFound
        One does not; lists the nearest ones.
    """
    for name in listed(view, names):
        wanted = name.of if isinstance(name, PerFrame) else name
        detector, _, last = wanted.rpartition(".") if isinstance(wanted, str) else (wanted[0], "", wanted[1])
        if last in PIXELS and detector:
            _entries(view, detector)
        else:
            chosen_fields(view, [wanted])


def _is_field(view: View, pair: tuple[Any, Any]) -> bool:
    """Tell whether a pair is one (detector, field)."""
    detector, name = pair
    if not (isinstance(detector, str) and isinstance(name, str)) or name in view.entries:
        return False
    return name in PIXELS or name in view.find(detector).channels


def _of_name(view: View, name: Name, calibration: dict[str, Any]) -> Iterable[Quantity]:
    if isinstance(name, PerFrame):
        yield derived_quantity(view, name, calibration)
        return
    detector, _, last = name.rpartition(".") if isinstance(name, str) else (name[0], "", name[1])
    if last in PIXELS and detector:
        for entry in _entries(view, detector):
            stored = field_quantity(view, entry, last) if last in entry.channels else None
            yield stored or pixel_quantity(view, entry, last, **calibration)
        return
    explicit = isinstance(name, tuple) or (bool(detector) and not any(c in name for c in "*?["))
    for found, fields in chosen_fields(view, [name]).items():
        for each in fields:
            quantity = field_quantity(view, view.entries[found], each)
            if quantity is not None:
                yield quantity
            elif explicit and len(fields) == 1:
                what = f"{found}.{each} has no fixed shape, or no event has it"
                raise NameNotFound(f"{what}: reduce what run.map makes of it, or read it through run.dataset")


def _entries(view: View, name: str) -> list[Entry]:
    if any(c in name for c in "*?["):
        found = [e for n, e in view.entries.items() if fnmatch.fnmatchcase(n, name)]
        if not found:
            raise NameNotFound.of("detector", name, view.entries)
        return found
    return [view.find(name)]


def field_quantity(view: View, entry: Entry, name: str) -> Quantity | None:
    """Return a field of fixed shape as a quantity; None if it is text, ragged or nowhere."""
    channel = entry.channels[name]
    if not view.exists(channel):
        return None
    lazy = view.arrays(entry, name).get(name)
    if not isinstance(lazy, FrameArray):
        return None
    coords = {"panel": view.target(channel).reader().panels} if "panel" in lazy.dims else {}
    attrs = field_attrs(view, entry, channel)
    return _quantity(f"{entry.name}_{name}", entry.name, lazy, coords, attrs)


def _quantity(
    name: str,
    detector: str,
    lazy: FrameArray | CalibratedArray,
    coords: dict[str, Any],
    attrs: dict[str, Any],
) -> Quantity:
    empty = over(lazy, np.zeros(0, np.int64))
    return Quantity(name, detector, empty, lazy.dims[1:], empty, coords, attrs)


def pixel_quantity(view: View, entry: Entry, which: str, **choices: Any) -> Quantity:
    """Return calibrated frames, or images, of a detector.

    Raises
    ------
    ConstantsNotFound, GeometryError
        See `Detector.calibrated`.
    """
    imaging = Imaging(view, entry)
    lazy, attrs = imaging.calibrated(**choices)
    attrs = {**field_attrs(view, entry, entry.channels["raw"]), **attrs}
    plain = _quantity(f"{entry.name}_{which}", entry.name, lazy, imaging.panel_coords(), attrs)
    if which == "calib":
        return plain
    if imaging.is_plain:
        return replace(plain, dims=("y", "x"), coords={})
    image, tables = imaging.assembled(plain.made_of)
    coords = {"y": ("y", tables.y, {"units": "m"}), "x": ("x", tables.x, {"units": "m"})}
    assembled = Assembly(tables, image._slots)
    return replace(plain, lazy=image, dims=("y", "x"), coords=coords, assembly=assembled)


def derived_quantity(view: View, made: PerFrame, calibration: Mapping[str, Any]) -> Quantity:
    """Return what a function makes of each frame as a quantity.

    Raises
    ------
    NameNotFound
        Its field, or a scalar that goes along, is nowhere or has no fixed shape.
    """
    base, *more = _of_name(view, made.of, dict(calibration))
    if more:
        raise NameNotFound(f"{made.of!r} means several fields; one is wanted")
    sides = tuple(_scalar_of(view, name) for name in made.along)
    lazy = DerivedArray(base.lazy, made, sides)  # type: ignore[arg-type]
    coords = {**(base.coords if made.dims is None else {}), **made.coords}
    attrs = {**base.attrs, **made.attrs, "made_of": made.of}
    name = f"{base.detector}_{made.name}"
    dims = base.dims if made.dims is None else lazy.dims[1:]
    return DerivedQuantity(name, base.detector, lazy, dims, lazy, coords, attrs)  # type: ignore[arg-type]


def _scalar_of(view: View, name: str) -> FrameArray:
    """Return a scalar field that goes along with frames."""
    found = [quantity.lazy for quantity in _of_name(view, name, {})]
    if len(found) != 1 or not isinstance(found[0], FrameArray) or len(found[0].shape) != 1:
        raise NameNotFound(f"{name!r} is not one number per event")
    return found[0]

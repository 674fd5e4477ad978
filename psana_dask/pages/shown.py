"""What is shown of a name: a frame, lines, or a number for each event."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from psana_dask.dataset import View
from psana_dask.errors import GeometryError, NameNotFound
from psana_dask.reductions.derived import over
from psana_dask.reductions.quantities import Quantity, field_quantity, quantities
from psana_dask.stream.running import rebound

if TYPE_CHECKING:
    import xarray as xr

RAW_IF_NEED_BE = {"policy": "raw"}
"""Without constants there are pictures too; their title says that they are raw counts."""

MOST_NUMBERS, MOST_LINES = 12, 16
"""Fields that are shown of a detector whose name alone was given, and lines in one plot."""


@dataclass(frozen=True, eq=False)
class Shown:
    """One thing to show, as it is in a recording.

    Parameters
    ----------
    quantity : Quantity
    name : str or (str, str) or PerFrame
        What accumulators call it.
    """

    quantity: Quantity
    name: Any

    @property
    def key(self) -> str:
        """Its name in Datasets: ``<detector>_<field>``."""
        return self.quantity.name

    @property
    def kind(self) -> str:
        """``"number"``, ``"lines"`` or ``"frame"``."""
        dims = self.quantity.dims
        if not dims:
            return "number"
        is_lines = len(dims) == 1 or (len(dims) == 2 and dims[0] == "panel")
        return "lines" if is_lines else "frame"

    def in_batch(self, view: View) -> Shown:
        """Return the same of another batch of the run."""
        return Shown(rebound(self.quantity, view), self.name)

    def having(self, view: View) -> npt.NDArray[np.bool_]:
        """Return which events of a batch have it."""
        return self.quantity.having(view.choice.numbers)

    def values(self, view: View) -> npt.NDArray[np.float64]:
        """Return the number of each event of a batch, NaN where there is none."""
        there = self.having(view)
        out = np.full(len(there), np.nan)
        out[there] = over(self.quantity.made_of, view.choice.numbers[there])[...]
        return out

    def frame(self, event: int) -> xr.DataArray:
        """Return the frame or the lines of one event, with coordinates and attributes."""
        import xarray as xr

        made = self.quantity
        panels = np.asarray(over(made.made_of, np.array([event]))[...])[0]
        if made.assembly is not None:
            panels = made.assembly.image(panels)
        attrs = {**made.attrs, "detector": made.detector}
        return xr.DataArray(panels, dict(made.coords), made.dims, made.name, attrs)


def shown_of(view: View, name: Any) -> list[Shown]:
    """Return what is shown of a name; nothing if no event had it yet.

    Parameters
    ----------
    view : View
    name : names
        ``"cspad"``: its images, or all numbers and waveforms of a detector without pixels;
        ``"cspad.raw"``, ``"gmd.energy"``, ``("det", "field")``, a PerFrame.

    Raises
    ------
    NameNotFound
        No such detector or field.
    """
    if not isinstance(name, str) or _is_field(view, name):
        return _explicit(view, name)
    entry = view.find(name)
    pixels = field_quantity(view, entry, "raw") if "raw" in entry.channels else None
    if pixels is not None and pixels.dims[-2:] == ("row", "col"):
        return [_pixels(view, entry.name)]
    return _all_fields(view, entry.name)


def _is_field(view: View, name: str) -> bool:
    detector = name.rpartition(".")[0]
    try:
        view.find(name)
    except NameNotFound:
        return bool(detector)
    return False


def _explicit(view: View, name: Any) -> list[Shown]:
    detector = name[0] if isinstance(name, tuple) else getattr(name, "of", name).rpartition(".")[0]
    view.find(detector)
    try:
        found, _ = quantities(view, name, RAW_IF_NEED_BE)
    except NameNotFound:
        if view.find(detector).channels and not _known_field(view, detector, name):
            raise
        return []
    return [Shown(q, name) for q in found[:MOST_NUMBERS]]


def _known_field(view: View, detector: str, name: Any) -> bool:
    """Tell whether the name is a field, of which no event had values yet."""
    field = name[1] if isinstance(name, tuple) else str(name).rpartition(".")[2]
    return view.find(detector).channel(field) is not None


def _pixels(view: View, detector: str) -> Shown:
    """Return images, or frames where no geometry is known."""
    for field in ("image", "calib"):
        try:
            found, _ = quantities(view, (detector, field), RAW_IF_NEED_BE)
        except GeometryError:
            continue
        return Shown(found[0], (detector, field))
    found, _ = quantities(view, (detector, "raw"))
    return Shown(found[0], (detector, "raw"))


def _all_fields(view: View, detector: str) -> list[Shown]:
    entry = view.entries[detector]
    found = [(field, field_quantity(view, entry, field)) for field in entry.channels]
    every = [Shown(quantity, (detector, field)) for field, quantity in found if quantity is not None]
    return [shown for shown in every if shown.kind != "frame"][:MOST_NUMBERS]

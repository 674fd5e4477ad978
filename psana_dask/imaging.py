"""The pixels of a detector: its constants, calibration, geometry and images.

Constants are looked up on first use; what was used is in the attributes of every result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from psana_dask.calib.constants import Constants
from psana_dask.calib.store import Lookups
from psana_dask.calibrated import CalibratedArray, ImageArray
from psana_dask.calibration import DetectorCalibration
from psana_dask.catalog import Entry
from psana_dask.dataset import View, event_coords, field_attrs
from psana_dask.errors import GeometryError
from psana_dask.geometry.assembly import AssemblyTables, prepare
from psana_dask.geometry.defaults import default_geometry
from psana_dask.geometry.model import Geometry
from psana_dask.geometry.segments import Convention
from psana_dask.geometry.text import read_text
from psana_dask.pipeline import FrameArray, LazyArray

if TYPE_CHECKING:
    import xarray as xr

    from psana_dask.geometry.refine import RingFit


@dataclass(frozen=True)
class Imaging:
    """What a detector's pixels need to become images.

    Parameters
    ----------
    view : View
    entry : Entry
    """

    view: View
    entry: Entry

    # ---- constants and calibration ------------------------------------------------------------
    @cached_property
    def calibration(self) -> DetectorCalibration:
        """What turns words into values."""
        return DetectorCalibration(self.view, self.entry)

    @property
    def lookups(self) -> Lookups:
        """How each kind of constant was looked for, and what was found."""
        return self.calibration.lookups

    @property
    def constants(self) -> dict[str, Constants]:
        """The constants that were found, by kind."""
        return self.lookups.constants()

    @property
    def raw(self) -> FrameArray:
        """The frames as they are in the file, or `NameNotFound`."""
        return self.calibration.raw

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of an event, ([panel,] row, col)."""
        return self.calibration.shape

    def constant(self, kind: str) -> xr.DataArray:
        """Return one constant as ([gain_range,] [panel,] row, col), with its provenance.

        Raises
        ------
        ConstantsNotFound
            There is none; the message says where it was looked for.
        """
        import xarray as xr

        found = self.lookups[kind].found()
        value = np.asarray(found.value)
        dims = ("gain_range", "panel", "row", "col")[-value.ndim :]
        ranges = self.calibration.row.decoding.ranges
        named = dims[0] == "gain_range" and len(ranges) == value.shape[0]
        coords = {"gain_range": list(ranges)} if named else {}
        return xr.DataArray(value, coords, dims, f"{self.entry.name}_{kind}", found.attrs())

    def mask(self, **choices: Any) -> xr.DataArray:
        """Return good pixels (1) and bad ones (0), ([panel,] row, col); see `Detector.masked`."""
        import xarray as xr

        good, dims = self.calibration.mask(**choices), self.raw.dims[1:]
        return xr.DataArray(good, self.panel_coords(), dims, name=f"{self.entry.name}_mask")

    def calibrated(self, **choices: Any) -> tuple[CalibratedArray, dict[str, Any]]:
        """Return calibrated frames, and the attributes that say how; see `Detector.calibrated`."""
        return self.calibration.calibrated(**choices)

    # ---- geometry -----------------------------------------------------------------------------
    @cached_property
    def geometry(self) -> Geometry:
        """The geometry in force: the constant of the run, else the default of the detector type.

        Raises
        ------
        GeometryError
            Neither is there, or the constant is malformed.
        """
        found, which = self.lookups["geometry"].constants, self.convention
        if found is not None:
            try:
                return read_text(str(found.value), convention=which, segment_shape=self._panel)
            except GeometryError as error:
                where = f"geometry of {self.entry.name}, {found.origin or found.store}"
                raise GeometryError(f"{where}: {error}") from error
        panels = int(self._slots.max()) + 1
        return default_geometry(self.entry.det_type, panels=panels, shape=self._panel, convention=which)

    @property
    def convention(self) -> Convention:
        """Which library's segment types are meant: psana1 for LCLS-1 files, psana2 for LCLS-II."""
        return "psana2" if self.calibration.xtc2 else "psana1"

    @property
    def is_plain(self) -> bool:
        """Whether the frame is the image: one sensor, and no geometry is known for it."""
        if len(self.shape) > 2 or self.lookups["geometry"]:
            return False
        try:
            return not self.geometry.parts
        except GeometryError:
            return True

    @property
    def _slots(self) -> npt.NDArray[np.int64]:
        return self.raw.frame_reader().panels

    @property
    def _panel(self) -> tuple[int, int]:
        return self.shape[-2], self.shape[-1]

    def assembled(
        self,
        frames: FrameArray | CalibratedArray,
        geometry: Geometry | None = None,
        fill: float | None = None,
        **choices: Any,
    ) -> tuple[ImageArray, AssemblyTables]:
        """Return assembled images and the tables they were made with."""
        used = geometry or self.geometry
        tables = prepare(used, **choices)
        if tables.panels[1:] != self._panel or int(self._slots.max()) >= tables.panels[0]:
            raise GeometryError(
                f"the geometry has panels of {tables.panels[1:]} pixels, {tables.panels[0]} of them; "
                f"{self.entry.name} has panels {self._slots.tolist()} of {self._panel}"
            )
        return ImageArray(frames, tables, self._slots, fill), tables

    def images(
        self,
        frames: FrameArray | CalibratedArray,
        field: str,
        attrs: Mapping[str, Any],
        chunks: Any = "auto",
        geometry: Geometry | None = None,
        **choices: Any,
    ) -> xr.DataArray:
        """Return images (time, y, x) of the frames of all events, with positions in metres."""
        what = {**attrs, "geometry": self._which_geometry(geometry)}
        if geometry is None and self.is_plain:
            return self.labelled(frames, field, what, chunks, {}).rename(row="y", col="x")
        lazy, tables = self.assembled(frames, geometry, **choices)
        coords = {"y": ("y", tables.y, {"units": "m"}), "x": ("x", tables.x, {"units": "m"})}
        return self.labelled(lazy, field, what, chunks, coords)

    def _which_geometry(self, given: Geometry | None) -> str:
        """Return where the geometry of an image comes from."""
        if given is not None:
            return "given"
        if self.is_plain:
            return "none"
        return "constant" if self.lookups["geometry"] else "default"

    def image_of(
        self, array: Any, geometry: Geometry | None = None, fill: float | None = None, **choices: Any
    ) -> xr.DataArray:
        """Return the image of any array of this detector's pixels; see `Detector.assembled`."""
        from psana_dask.images import assemble, labelled

        pixels = labelled(array, self.raw.dims[1:])
        where = {"geometry": self._which_geometry(geometry)}
        if geometry is None and self.is_plain:
            return pixels.rename(row="y", col="x").assign_attrs(where)
        found = assemble(pixels, geometry or self.geometry, slots=self._slots, fill=fill, **choices)
        return found.assign_attrs(where)

    def panels_of(
        self, image: Any, geometry: Geometry | None = None, fill: float | None = None, **choices: Any
    ) -> xr.DataArray:
        """Return the detector's pixels of an image; see `Detector.panels_of`."""
        from psana_dask.images import IMAGE, disassemble, labelled

        if geometry is None and self.is_plain:
            return labelled(image, IMAGE).rename(y="row", x="col").drop_vars(("row", "col"), errors="ignore")
        found = disassemble(image, geometry or self.geometry, fill=fill, **choices).sel(panel=self._slots)
        return found if "panel" in self.raw.dims else found.squeeze("panel", drop=True)

    def fit_rings(
        self,
        intensity: Any,
        angles: Sequence[float],
        geometry: Geometry | None = None,
        mask: Any = None,
        **choices: Any,
    ) -> RingFit:
        """Find where the detector is from powder rings; see `Detector.fit_rings`."""
        from psana_dask.geometry.refine import fit_rings
        from psana_dask.images import labelled

        used = geometry or self.geometry
        rings = np.full(used.shape, np.nan)
        rings[self._slots] = np.asarray(labelled(intensity, self.raw.dims[1:])).reshape(-1, *self._panel)
        good = np.zeros(used.shape, np.bool_)
        given = self.calibration.mask() if mask is None else np.asarray(mask)
        good[self._slots] = given.reshape(-1, *self._panel) != 0
        return fit_rings(rings, used, angles, mask=good, **choices)

    # ---- labels -------------------------------------------------------------------------------
    def labelled(
        self, lazy: LazyArray, field: str, attrs: Mapping[str, Any], chunks: Any, coords: Mapping[str, Any]
    ) -> xr.DataArray:
        """Return a lazy array as a DataArray over the events of the view."""
        import xarray as xr

        from psana_dask.variables import variable

        channel = self.entry.channels["raw"]
        what = {**field_attrs(self.view, self.entry, channel), **attrs}
        made = variable(lazy, what, chunks)
        return xr.DataArray(made, {**event_coords(self.view), **coords}, name=f"{self.entry.name}_{field}")

    def panel_coords(self) -> dict[str, Any]:
        """Return the panel numbers, if there is a panel dimension."""
        return {"panel": self._slots} if "panel" in self.raw.dims else {}

"""The pixels of a detector: its constants, calibration, geometry and images.

Constants are looked up on first use; what was used is in the attributes of every result.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from psana_dask.calib import apply as calibration
from psana_dask.calib import gain
from psana_dask.calib.constants import Constants, summary
from psana_dask.calib.detectors import Detector as DetectorRow
from psana_dask.calib.detectors import detector as detector_row
from psana_dask.calib.masks import combined_mask
from psana_dask.calib.store import Lookup
from psana_dask.calibrated import CalibratedArray, ImageArray, digest_of
from psana_dask.catalog import Entry
from psana_dask.dataset import View, event_coords, field_attrs
from psana_dask.errors import ConstantsNotFound, ConstantsWarning, GeometryError, NameNotFound
from psana_dask.geometry.assembly import AssemblyTables, prepare
from psana_dask.geometry.defaults import default_geometry
from psana_dask.geometry.model import Geometry
from psana_dask.geometry.segments import Convention
from psana_dask.geometry.text import read_text
from psana_dask.pipeline import FrameArray, LazyArray
from psana_dask.settings import detector_config
from psana_dask.stores import look_up, store_of

if TYPE_CHECKING:
    import xarray as xr

Policy = Literal["error", "warn", "raw"]

CALIBRATION = (
    "pedestals", "pixel_rms", "pixel_gain", "pixel_offset", "pixel_status", "status_extra", "status_data",
    "pixel_mask", "common_mode",
)  # fmt: skip


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

    # ---- constants ----------------------------------------------------------------------------
    @cached_property
    def lookups(self) -> Mapping[str, Lookup]:
        """How each kind of constant was looked for, and what was found."""
        recording = self.view.recording
        store = store_of(self.view.calib, recording.files, recording.experiment)
        long_name = "_".join([self.entry.det_type, *self.entry.det_ids])
        run = recording.number or 0
        kinds = (*CALIBRATION, "geometry")
        return {kind: look_up(store, self.entry.alias, long_name, kind, run) for kind in kinds}

    @property
    def constants(self) -> dict[str, Constants]:
        """The constants that were found, by kind."""
        return {kind: found.constants for kind, found in self.lookups.items() if found.constants is not None}

    @property
    def row(self) -> DetectorRow:
        """What is known of this type of detector."""
        return detector_row(self.entry.det_type)

    @cached_property
    def raw(self) -> FrameArray:
        """The frames as they are in the file.

        Raises
        ------
        NameNotFound
            The detector has no frames.
        """
        channel = self.entry.channels.get("raw")
        if channel is not None and self.view.exists(channel):
            lazy = self.view.arrays(self.entry, "raw")["raw"]
            if isinstance(lazy, FrameArray) and lazy.dims[-2:] == ("row", "col"):
                return lazy
        fields = ", ".join(self.entry.channels)
        raise NameNotFound(f"{self.entry.name} has no frames to calibrate; its fields are {fields}")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of an event, ([panel,] row, col)."""
        return self.raw.shape[1:]

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
        return xr.DataArray(value, dims=dims, name=f"{self.entry.name}_{kind}", attrs=found.attrs())

    # ---- calibration --------------------------------------------------------------------------
    def calibrated(
        self,
        common_mode: Any = "default",
        use_gain: bool = True,
        mask: Any = None,
        constants: Mapping[str, Any] | None = None,
        policy: Policy = "error",
    ) -> tuple[CalibratedArray, dict[str, Any]]:
        """Return calibrated frames, and the attributes that say how; see `Detector.calibrated`."""
        if policy not in ("error", "warn", "raw"):
            raise ValueError(f'policy={policy!r}: use "error", "warn" or "raw"')
        known: Mapping[str, Any] = self.constants if constants is None else dict(constants)
        if known.get("pedestals") is None:
            return self._uncalibrated(policy)
        panels = self._slots.tolist() if len(self.shape) == 3 else None
        tables = calibration.prepare(
            known, self.row, xtc2=True, shape=self.shape, common_mode=common_mode, gain=use_gain,
            mask=mask, ranges=self._gain_ranges(), panels=panels,
        )  # fmt: skip
        provenance = summary({k: v for k, v in known.items() if isinstance(v, Constants)})
        hashes = [_hash(kind, known[kind]) for kind in sorted(known)]
        digest = digest_of(hashes, repr(common_mode), use_gain, None if mask is None else _hash("mask", mask))
        attrs = {"calibrated": True, "constants": repr(provenance), "units": "ADU" if not use_gain else ""}
        return CalibratedArray(self.raw, tables, digest), attrs

    def _uncalibrated(self, policy: Policy) -> tuple[CalibratedArray, dict[str, Any]]:
        """Return raw values as floats, if the policy allows it."""
        if policy == "error":
            self.lookups["pedestals"].found()
            raise ConstantsNotFound(f"no pedestals for {self.entry.name} among the constants given")
        if policy == "warn":
            what = f"{self.entry.name} has no pedestals: its values are raw counts"
            warnings.warn(what, ConstantsWarning, stacklevel=4)
        return CalibratedArray(self.raw, None, "raw"), {"calibrated": False, "units": "ADU"}

    def _gain_ranges(self) -> npt.NDArray[np.int8] | None:
        """Return the gain ranges that the settings allow each pixel (ePix10ka family)."""
        if self.row.decoding.kind != "switched" or len(self.row.decoding.ranges) < 3:
            return None
        config = detector_config(self.view.recording, self.entry.alias)
        parts = [config[segment] for segment in sorted(config.segments)]
        if parts and all("cbitsConfig" in part for part in parts):  # from version 3.0.1 on
            return gain.allowed_ranges(np.stack([part["cbitsConfig"] & np.uint8(28) for part in parts]))
        if not parts or any("asicPixelConfig" not in part for part in parts):
            return None
        pixels = np.stack([part["asicPixelConfig"][:, :176] for part in parts])
        bits = gain.control_bits(pixels, np.stack([part["trbit"] for part in parts]))
        return gain.allowed_ranges(bits)

    def mask(self, **choices: Any) -> npt.NDArray[np.uint8]:
        """Return the mask, 1 good and 0 bad; `choices` as in `calib.masks.combined_mask`."""
        values = {kind: found.value for kind, found in self.constants.items()}
        return combined_mask(values, self.shape, self.row, **choices)

    # ---- geometry -----------------------------------------------------------------------------
    @cached_property
    def geometry(self) -> Geometry:
        """The geometry in force: the constant of the run, else the default of the detector type.

        Raises
        ------
        GeometryError
            Neither is there, or the constant is malformed.
        """
        found, which = self.constants.get("geometry"), self.convention
        if found is not None:
            return read_text(str(found.value), convention=which, segment_shape=self._panel)
        panels = int(self._slots.max()) + 1
        return default_geometry(self.entry.det_type, panels=panels, shape=self._panel, convention=which)

    @property
    def convention(self) -> Convention:
        """Which library's segment types are meant: psana1 for LCLS-1 files, psana2 for LCLS-II."""
        name = Path(self.view.recording.files.paths[0]).name
        return "psana1" if re.search(r"\.xtc($|\.)", name) else "psana2"

    @property
    def is_plain(self) -> bool:
        """Whether the frame is the image: one sensor, and no geometry is known for it."""
        if len(self.shape) > 2 or "geometry" in self.constants:
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

    def image_of(
        self, array: Any, geometry: Geometry | None = None, fill: float | None = None, **choices: Any
    ) -> xr.DataArray:
        """Return the image of any array of this detector's pixels; see `Detector.assembled`."""
        from psana_dask.images import assemble, labelled

        pixels = labelled(array, self.raw.dims[1:])
        if geometry is None and self.is_plain:
            return pixels.rename(row="y", col="x")
        return assemble(pixels, geometry or self.geometry, slots=self._slots, fill=fill, **choices)

    def panels_of(
        self, image: Any, geometry: Geometry | None = None, fill: float | None = None, **choices: Any
    ) -> xr.DataArray:
        """Return the detector's pixels of an image; see `Detector.panels_of`."""
        from psana_dask.images import IMAGE, disassemble, labelled

        if geometry is None and self.is_plain:
            return labelled(image, IMAGE).rename(y="row", x="col").drop_vars(("row", "col"), errors="ignore")
        found = disassemble(image, geometry or self.geometry, fill=fill, **choices).sel(panel=self._slots)
        return found if "panel" in self.raw.dims else found.squeeze("panel", drop=True)

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


def _hash(kind: str, value: Any) -> tuple[str, str]:
    given = value if isinstance(value, Constants) else Constants(kind, np.asarray(value))
    return kind, given.sha256



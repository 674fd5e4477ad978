"""Frames for programs of crystallography: NeXus (NXmx) for DIALS, CXI for CrystFEL.

One detector's frames, (event, panel, row, col), with its geometry, mask, distance, the photon
energy and the keys of each event. ``.nxs`` follows the application definition NXmx; ``.cxi`` the
CXI format (version 1.5), with Cheetah's ``/LCLS`` beside it and a CrystFEL geometry inside, which
`finish` also puts beside the file as ``<name>.cxi.geom``.  Pieces are those of `hdf5_file`.
Contract: tests/export/test_crystallography.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import numpy.typing as npt

from psana_dask.dataset import field_of
from psana_dask.errors import ConstantsNotFound, ExportError, NameNotFound
from psana_dask.export import hdf5_file
from psana_dask.export.content import Wanted
from psana_dask.export.hdf5_growing import Assembly
from psana_dask.export.plan import Plan, Workshop, write_text
from psana_dask.geometry.convert.crystfel import write_crystfel
from psana_dask.geometry.convert.nexus import write_entry
from psana_dask.geometry.model import Geometry, moved
from psana_dask.geometry.tiles import tiles_of
from psana_dask.model import Array

if TYPE_CHECKING:
    import xarray as xr

    from psana_dask.run import Run

EV_ANGSTROM = 12398.41984332
"""Photon energy times wavelength, h c (CODATA 2018, exact)."""

JOULE = 1.602176634e-19
"""One eV."""

SENSORS = {"jungfrau": 320e-6, "epix": 500e-6, "cspad": 500e-6, "pnccd": 300e-6}
"""Thickness of silicon, m, by the beginning of the detector's type; DIALS corrects the parallax with it."""

MASKED = {".nxs": 1 << 8, ".cxi": 1 << 7}
"""Bit of a bad pixel: NXmx "user defined mask", CXI "pixel is bad"."""

IN_EVERY_HDF5 = {"compression": "gzip", "shuffle": True}
"""Filters of masks: a file whose frames are not compressed needs no plugin."""

IN_KEV = ("jungfrau", "epix10ka")
"""Detectors whose gain constants are ADU per keV: with them calibrated frames are in keV."""

write_piece, together = hdf5_file.write_piece, hdf5_file.together


@dataclass(frozen=True, eq=False)
class Frames:
    """What goes along with the frames.

    Parameters
    ----------
    title, detector : str
    geometry : Geometry
        Of the panels that there are.
    distance : float
        m, mean over the panels.
    mask : ([panel,] row, col) uint8
        1 good, 0 bad.
    photon_energy : (event,) float64
        eV, NaN where it is not known.
    events : mapping of str to array
        Keys and scalars of the events, each (event, ...).
    calibrated : bool
    adu_per_ev : float or None
        What a photon of 1 eV is in the frames; None where it is not known.
    sensor : float or None
        Thickness of the silicon, m.
    """

    title: str
    detector: str
    geometry: Geometry
    distance: float
    mask: npt.NDArray[np.uint8]
    photon_energy: npt.NDArray[np.float64]
    events: Mapping[str, Array]
    calibrated: bool
    adu_per_ev: float | None
    sensor: float | None

    @property
    def time(self) -> npt.NDArray[np.datetime64]:
        """Times of the events."""
        return self.events["time"]


# ---- what goes in -------------------------------------------------------------------------------
def contents(path: Path, run: Run, wanted: Wanted, own: xr.Dataset | None) -> dict[str, xr.Dataset]:
    """Return the frames by the group that they are in; ``attrs["frames"]`` has all the rest.

    Raises
    ------
    ExportError
        Not one detector's frames; no photon energy; the detector lies in the interaction point.
    """
    import xarray as xr

    if wanted.roi or own is not None:
        raise ExportError(f"{path}: regions and own variables go into .zarr or .h5")
    name, field, others = _frames_of(run, path, wanted)
    run = _with_frames(run, name)
    detector = run[name]
    data = detector.field(field, None) if field in detector.fields else detector.calibrated(chunks=None)
    geometry = placed(_subset(detector.geometry, data), wanted.distance)
    frames = Frames(
        title=f"{run.experiment} run {run.number}, {name}.{field}",
        detector=name,
        geometry=geometry,
        distance=_distance(geometry),
        mask=_mask(detector, data),
        photon_energy=photon_energy(run, wanted.photon_energy),
        events=_events(run, name, others),
        calibrated=bool(data.attrs.get("calibrated", False)),
        adu_per_ev=adu_per_ev(data.attrs, detector.det_type),
        sensor=sensor_thickness(detector.det_type),
    )
    bare = data.variable._replace(attrs={})
    return {GROUPS[path.suffix]: xr.Dataset({"data": bare}, attrs={"frames": frames})}


GROUPS = {".nxs": "/entry/data", ".cxi": "/entry_1/instrument_1/detector_1"}
"""Where the frames are."""


def _frames_of(run: Run, path: Path, wanted: Wanted) -> tuple[str, str, list[str]]:
    """Return the detector, its field ("calib" or "raw"), and the other names."""
    names = [wanted.names] if isinstance(wanted.names, str) else list(wanted.names or ())
    plain = [".".join(n) if isinstance(n, tuple) else n for n in names]
    area = [n for n in plain if _is_area(run, n)]
    if len(area) != 1:
        known = [n for n, d in run.detectors.items() if "raw" in d.fields and d.field("raw", None).ndim > 2]
        which = " or ".join(f"{n}.calib" for n in known) or "but this run has none"
        raise ExportError(f"{path}: frames of one detector go into it, {which}")
    detector, _, field = area[0].partition(".")
    return run[detector].name, field or "calib", [n for n in plain if n != area[0]]


def _is_area(run: Run, name: str) -> bool:
    """Tell whether a name means the frames of an area detector."""
    detector, _, field = name.partition(".")
    found = run[detector]
    if field and field != "calib":
        field_of(found._entry, field)  # is told what is near
    if field not in ("", "calib", "raw") or "raw" not in found.fields:
        return field == "calib"
    return bool(found.field("raw", None).ndim > 2)


def _with_frames(run: Run, name: str) -> Run:
    """Return the run with the events that have the detector."""
    present = run[name].dataset(None)["present"].values
    return run if present.all() else run.isel(np.flatnonzero(present))


def _subset(geometry: Geometry, data: xr.DataArray) -> Geometry:
    """Return the geometry of the panels that the data have."""
    panels = data["panel"].values.tolist() if "panel" in data.coords else list(range(geometry.shape[0]))
    if panels == list(range(geometry.shape[0])):
        return geometry
    if max(panels) >= geometry.shape[0]:
        raise ExportError(f"the geometry has {geometry.shape[0]} panels, the data have panel {max(panels)}")
    kept = {part.key for panel in panels for part in geometry.panels[panel]}
    return replace(geometry, parts=tuple(part for part in geometry.parts if part.key in kept))


def _distance(geometry: Geometry) -> float:
    return float(np.mean([tile.first[2] for tile in tiles_of(geometry)]))


def sensor_thickness(det_type: str) -> float | None:
    """Return the thickness of the silicon of a type of detector, m; None where it is not known."""
    return next((v for k, v in SENSORS.items() if det_type.lower().startswith(k)), None)


def adu_per_ev(attrs: Mapping[Any, Any], det_type: str) -> float | None:
    """Return what a photon of 1 eV is in frames with these attributes; None where it is not known."""
    gain = attrs.get("gain")  # "default" is keV per ADU, see `calib.detectors`
    in_kev = gain == "default" or (gain == "constants" and det_type.lower().startswith(IN_KEV))
    return 1e-3 if in_kev else None


def placed(geometry: Geometry, distance: float | None) -> Geometry:
    """Return the geometry at a distance, m; at its own by default.

    Raises
    ------
    ExportError
        The distance is 0: the detector would be where the sample is.
    """
    there = _distance(geometry)
    if abs(there if distance is None else distance) < 1e-6:
        raise ExportError("the geometry has the detector at distance 0: say distance= in m")
    if distance is None:
        return geometry
    for part in [p for p in geometry.parts if p.parent_key == geometry.root]:
        by = (0.0, 0.0, (there - distance) * 1e6)  # psana's z points against the beam
        geometry = moved(geometry, part.name, part.index, by=by, parent=part.parent_key)
    return geometry


def _mask(detector: Any, data: xr.DataArray) -> npt.NDArray[np.uint8]:
    try:
        return np.asarray(detector.mask.values, np.uint8)
    except (ConstantsNotFound, NameNotFound):
        return np.ones(data.shape[1:], np.uint8)  # nobody knows a bad pixel


def photon_energy(run: Run, given: float | str | None) -> npt.NDArray[np.float64]:
    """Return the photon energy of each event, eV: as given, from a field, or what the accelerator reports.

    Raises
    ------
    ExportError
        Nothing is given and the run has none.
    """
    if isinstance(given, int | float):
        return np.full(len(run), float(given))
    name = given if given is not None else _beam_field(run)
    if name is None:
        raise ExportError("the run has no photon energy: say photon_energy= in eV, or a field")
    detector, _, field = name.partition(".")
    values = run[detector].field(field, chunks=None)
    present = run[detector].dataset(None)["present"].values
    return np.where(present, values.values.astype(np.float64), np.nan)


def _beam_field(run: Run) -> str | None:
    """Return the field that holds the photon energy which the accelerator reports."""
    for name, entry in run._view.entries.items():
        for public, channel in entry.channels.items():
            said = channel.spec.accessor or channel.spec.name
            if said == "ebeamPhotonEnergy" and run._view.exists(channel):
                return f"{name}.{public}"
    return None


def _events(run: Run, name: str, others: list[str]) -> dict[str, Array]:
    """Return keys and scalars of the events; times are ns since 1970."""
    events = run.events
    found = {str(n): events[n].values for n in events.coords}
    detector = run[name].dataset(None)
    if "panel_present" in detector:
        found["panel_present"] = detector["panel_present"].values
    if others:
        data = run.dataset(others, join="outer", chunks=None)
        found |= {str(n): v.values for n, v in data.variables.items() if v.dims == ("time",) and v.ndim == 1}
    return found


# ---- the files ----------------------------------------------------------------------------------
def begin(workshop: Workshop, groups: Mapping[str, xr.Dataset], plan: Plan, compression: str | None) -> None:
    """Write everything but the frames; and these, if they are few."""
    ((group, data),) = groups.items()
    (workshop.folder / "pieces").mkdir(exist_ok=True)
    with h5py.File(hdf5_file.skeleton(workshop), "w") as file:
        LAYOUTS[workshop.path.suffix](file, data.attrs["frames"])
        variable = data["data"].variable
        chunk = plan.columns[0].chunk if plan.columns else 1
        chunks = (min(chunk, max(1, len(variable))), *variable.shape[1:])
        filters = hdf5_file.filters(compression)
        made = file[group].create_dataset("data", variable.shape, variable.dtype, chunks=chunks, **filters)
        if not plan.columns:
            made[...] = variable.values


def finish(workshop: Workshop, plan: Plan, assembly: Assembly | None = None) -> Path:
    """Return the file, complete; of a CXI file the CrystFEL geometry is put beside it."""
    made = hdf5_file.finish(workshop, plan, assembly)
    if workshop.path.suffix == ".cxi":
        with h5py.File(made) as file:
            text = file[f"{GROUPS['.cxi']}/geometry_1/crystfel"].asstr()[()]
        write_text(workshop.path.with_name(workshop.path.name + ".geom"), text)
    return made


def _nxmx(file: h5py.File, frames: Frames) -> None:
    """Write an NXmx entry."""
    wavelength = EV_ANGSTROM / frames.photon_energy
    same = len(wavelength) > 0 and np.all(wavelength == wavelength[0])
    start, stop = (_iso(t) for t in (frames.time[[0, -1]] if len(frames.time) else [None, None]))
    write_entry(
        file, frames.geometry, title=frames.title, start_time=start, end_time=stop,
        wavelength=float(wavelength[0]) if same else wavelength,
    )  # fmt: skip
    entry = file["entry"]
    entry.attrs["default"] = "data"
    data = entry.create_group("data")
    data.attrs["NX_class"], data.attrs["signal"] = "NXdata", "data"
    detector = entry["instrument/detector"]
    detector["data"] = h5py.SoftLink("/entry/data/data")
    detector["distance"] = frames.distance
    detector["distance"].attrs["units"] = "m"
    detector["local_name"] = frames.detector
    detector["calibrated"] = frames.calibrated
    bad = np.where(frames.mask == 0, MASKED[".nxs"], 0).astype(np.uint32)
    detector.create_dataset("pixel_mask", data=bad, chunks=bad.shape, **IN_EVERY_HDF5)
    if frames.sensor is not None:
        detector["sensor_material"] = "Si"
        detector["sensor_thickness"] = frames.sensor
        detector["sensor_thickness"].attrs["units"] = "m"
    if frames.mask.ndim == 2:  # data are (event, row, col): no axis of panels
        for module in detector.values():
            if isinstance(module, h5py.Group) and "data_origin" in module:
                for name in ("data_origin", "data_size"):
                    values = module[name][1:]
                    del module[name]
                    module[name] = values
    _write_events(entry.create_group("events"), frames, "NXcollection")


def _write_events(group: h5py.Group, frames: Frames, kind: str | None = None) -> None:
    if kind is not None:
        group.attrs["NX_class"] = kind
    for name, values in frames.events.items():
        is_time = values.dtype.kind == "M"
        text = values.dtype.kind == "U"
        group[name] = values.astype("M8[ns]").astype(np.int64) if is_time else _stored(values, text)
        if is_time:
            group[name].attrs["units"] = "nanoseconds since 1970-01-01"


def _stored(values: Array, text: bool) -> Any:
    return values.astype(h5py.string_dtype()) if text else values


def _iso(time: np.datetime64 | None) -> str | None:
    return None if time is None else f"{np.datetime_as_string(time, unit='ns')}Z"


def _cxi(file: h5py.File, frames: Frames) -> None:
    """Write a CXI entry, and what Cheetah writes besides."""
    file["cxi_version"] = 150
    entry = file.create_group("entry_1")
    entry["experiment_identifier"] = np.array([_iso(t) for t in frames.time], h5py.string_dtype())
    entry["title"] = frames.title
    instrument = entry.create_group("instrument_1")
    instrument["name"] = "LCLS"
    instrument["source_1/energy"] = frames.photon_energy * JOULE
    instrument["source_1/energy"].attrs["units"] = "J"
    detector = instrument.create_group("detector_1")
    entry["data_1"] = h5py.SoftLink("/entry_1/instrument_1/detector_1")
    _cxi_detector(detector, frames)
    shots = file.create_group("LCLS")
    shots["photon_energy_eV"] = frames.photon_energy
    shots["photon_wavelength_A"] = EV_ANGSTROM / frames.photon_energy
    seconds, rest = np.divmod(frames.time.astype("M8[ns]").astype(np.int64), 10**9)
    shots["machineTime"], shots["machineTimeNanoSeconds"] = seconds, rest  # since 1970
    if "fiducial" in frames.events:
        shots["fiducial"] = frames.events["fiducial"]
    _write_events(shots.create_group("events"), frames)


def _cxi_detector(detector: h5py.Group, frames: Frames) -> None:
    tiles = tiles_of(frames.geometry)
    panelled = frames.mask.ndim == 3
    detector["description"] = frames.title
    detector["distance"] = frames.distance
    for name, step in (("x_pixel_size", tiles[0].fast), ("y_pixel_size", tiles[0].slow)):
        detector[name] = float(np.linalg.norm(step))
    if panelled:
        detector["module_identifier"] = np.arange(len(frames.mask))
    basis = np.array([[tile.slow, tile.fast] for tile in tiles])
    detector["basis_vectors"] = basis  # (tile, 2, 3): from a row to the next, from a column to the next, m
    detector["corner_positions"] = np.array([tile.corner for tile in tiles])
    detector["regions"] = np.array([[tile.panel, *tile.rows, *tile.cols] for tile in tiles])
    units = basis / np.linalg.norm(basis, axis=2, keepdims=True)
    geometry = detector.create_group("geometry_1")
    geometry["translation"] = np.array([tile.corner for tile in tiles])
    geometry["orientation"] = np.concatenate([units[:, 1], units[:, 0]], axis=1)  # of x (fast), y (slow)
    place = "/entry_1/data_1"
    geometry["crystfel"] = write_crystfel(
        frames.geometry, data=f"{place}/data", mask=f"{place}/mask", panel_axis=panelled,
        adu_per_ev=frames.adu_per_ev,
    )  # fmt: skip
    _masks(detector, frames)


def _masks(detector: h5py.Group, frames: Frames) -> None:
    """Write the mask once per event, as CrystFEL wants it: one compressed chunk, many times."""
    bad = np.where(frames.mask == 0, MASKED[".cxi"], 0).astype(np.uint16)
    shape = (len(frames.time), *bad.shape)
    made = detector.create_dataset("mask", shape, np.uint16, chunks=(1, *bad.shape), **IN_EVERY_HDF5)
    if not len(frames.time):
        return
    made[0] = bad
    detector.file.flush()
    first = (0,) * len(bad.shape)
    flag, chunk = made.id.read_direct_chunk((0, *first))
    for event in range(1, len(frames.time)):
        made.id.write_direct_chunk((event, *first), chunk, flag)


LAYOUTS: Mapping[str, Callable[[h5py.File, Frames], None]] = {".nxs": _nxmx, ".cxi": _cxi}

"""A run as a series of still images of one detector: what crystallography programs ask for.

A locator is a small text file that says which run, detector and photon energy::

    # psana_dask
    source = exp=mfxo1916:run=20
    detector = cspad
    photon_energy = 9500            # eV; or a field: ebeam.photonEnergy; by default what the beam's data say
    select = evr.has(40) and not evr.has(162)
    calib = /my/calib               # by default as `psana_dask.open`
    distance = 0.12                 # m, by default that of the geometry

A data file (``.xtc``, ``.xtc2``) stands for its whole run, if that has one detector with a geometry.
Contract: tests/interop/test_dxtbx.py.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from psana_dask.errors import GeometryError, NameNotFound, PsanaError, suggestion

if TYPE_CHECKING:
    from psana_dask.geometry.model import Geometry
    from psana_dask.geometry.tiles import Tile
    from psana_dask.run import Run

MARK = "# psana_dask"
"""First line of a locator."""

KEYS = ("source", "run", "dir", "detector", "photon_energy", "select", "calib", "distance")
EV_ANGSTROM = 12398.41984332
"""Photon energy times wavelength, h c (CODATA 2018, exact)."""

TRUSTED = (-1e6, 1e7)
"""Values that mean something; what is missing lies below."""

MISSING = -1e9
"""Value of a pixel of a missing panel."""


class LocatorError(PsanaError, ValueError):
    """A locator file is not understood; names the line."""


def is_locator(path: str | os.PathLike[str]) -> bool:
    """Tell whether a file is a locator; reads its first bytes only."""
    try:
        with open(path, "rb") as file:
            return file.read(len(MARK)) == MARK.encode()
    except OSError:
        return False


def is_data_file(path: str | os.PathLike[str]) -> bool:
    """Tell whether a name is that of a data file of a run."""
    return os.fspath(path).endswith((".xtc", ".xtc2")) and os.path.isfile(path)


def read_locator(path: str | os.PathLike[str]) -> dict[str, str]:
    """Return what a locator says.

    Raises
    ------
    LocatorError
        A line is no ``key = value``, a key is unknown or there twice, or there is no source.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals or key not in KEYS or key in found:
            what = "is there twice" if key in found else f"is no key = value{suggestion(key, KEYS)}"
            raise LocatorError(f"{path}, line {number}: {line.strip()!r} {what}")
        found[key] = value
    if "source" not in found:
        raise LocatorError(f"{path}: says no source: add source = exp=NAME:run=NUMBER")
    return found


# ---- images -------------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class Stills:
    """The events of a run that have a detector, as images of its ASICs.

    Parameters
    ----------
    run : Run
        All of its events have the detector.
    name : str
        Of the detector.
    photon_energy : (event,) float64
        eV, NaN where it is not known.
    distance : float, optional
        m, instead of the geometry's.
    """

    run: Run
    name: str
    photon_energy: npt.NDArray[np.float64]
    distance: float | None = None

    def __len__(self) -> int:
        return len(self.run)

    @cached_property
    def geometry(self) -> Geometry:
        """Geometry of the detector, in the laboratory frame."""
        from psana_dask.export.crystallography import placed

        return placed(self.run[self.name].geometry, self.distance)

    @cached_property
    def tiles(self) -> tuple[Tile, ...]:
        """The ASICs: panels of the detector model, in its order."""
        from psana_dask.geometry.tiles import tiles_of

        return tuple(tiles_of(self.geometry))

    @cached_property
    def _frames(self) -> Any:
        return self.run[self.name].calibrated(chunks=None)

    @cached_property
    def slots(self) -> Mapping[int, int]:
        """Where each panel of the geometry is in the data."""
        panels = self._frames.coords.get("panel")
        numbers = range(self.geometry.shape[0]) if panels is None else panels.values.tolist()
        return {panel: k for k, panel in enumerate(numbers)}

    def image(self, number: int) -> list[npt.NDArray[np.float64]]:
        """Return the calibrated values of an event, (row, col) for each ASIC.

        Raises
        ------
        IndexError
            There is no such event.
        """
        if not 0 <= number < len(self):
            raise IndexError(f"image {number} of {len(self)}")
        frame = np.asarray(self._frames[number].values, np.float64)
        return self._split(np.nan_to_num(frame, nan=MISSING), MISSING)

    def mask(self) -> list[npt.NDArray[np.bool_]]:
        """Return the good pixels of each ASIC; all are good where nobody knows of bad ones."""
        from psana_dask.errors import ConstantsNotFound

        try:
            good = np.asarray(self.run[self.name].mask.values) != 0
        except (ConstantsNotFound, NameNotFound):
            good = np.ones(self._frames.shape[1:], bool)
        return self._split(good, False)

    def _split(self, frame: npt.NDArray[Any], missing: Any) -> list[npt.NDArray[Any]]:
        """Return the ASICs of a frame ([panel,] row, col)."""
        panels = frame.reshape(-1, *frame.shape[-2:])
        found = []
        for tile in self.tiles:
            if tile.panel in self.slots:
                piece = panels[self.slots[tile.panel], slice(*tile.rows), slice(*tile.cols)]
            else:
                piece = np.full(tile.shape, missing, frame.dtype)
            found.append(np.ascontiguousarray(piece))
        return found

    def wavelength(self, number: int) -> float | None:
        """Return the wavelength of an event, Angstrom; None where it is not known."""
        energy = float(self.photon_energy[number])
        return EV_ANGSTROM / energy if np.isfinite(energy) and energy > 0 else None

    def model(self) -> dict[str, Any]:
        """Return the detector as dxtbx's dict; see `psana_dask.geometry.convert.dxtbx`."""
        from psana_dask.export.crystallography import sensor_thickness
        from psana_dask.geometry.convert.dxtbx import to_dxtbx

        found = to_dxtbx(self.geometry)
        thickness = sensor_thickness(self.run[self.name].det_type)
        for panel in found["panels"]:
            panel["trusted_range"] = list(TRUSTED)
            if thickness is not None:
                panel |= {"thickness": thickness * 1e3, "material": "Si"}
        return found


def open_stills(path: str | os.PathLike[str]) -> Stills:
    """Open what a locator or a data file stands for.

    Raises
    ------
    LocatorError, RunNotFound, NameNotFound, ConditionError, ExportError
        What the file says cannot be had.
    """
    from psana_dask.conditions import events_where
    from psana_dask.export.crystallography import photon_energy
    from psana_dask.opening import open_run

    said = read_locator(path) if is_locator(path) else _of_data_file(Path(path))
    options: dict[str, Any] = {"calib": said["calib"]} if "calib" in said else {}
    try:
        number = int(said["run"]) if "run" in said else None
        given: float | str | None = said.get("photon_energy")
        distance = float(said["distance"]) if "distance" in said else None
    except ValueError as error:
        raise LocatorError(f"{path}: {error}") from None
    run = open_run(said["source"], number, dir=said.get("dir"), **options)
    if "select" in said:
        run = run.select(events_where(run, said["select"]))
    name = run[said["detector"]].name if "detector" in said else _only_detector(run, path)
    run = run.isel(np.flatnonzero(run[name].present.values))
    with suppress(ValueError):  # else it is a field
        given = float(given) if given is not None else None
    return Stills(run, name, photon_energy(run, given), distance)


def _of_data_file(path: Path) -> dict[str, str]:
    """Return the run that a data file belongs to: the file alone if its name does not say it."""
    from psana_dask.files import FILE_NAME

    match = FILE_NAME.fullmatch(path.name)
    if match is None:
        return {"source": str(path)}
    return {"source": f"exp={match['experiment']}:run={int(match['run'])}", "dir": str(path.parent)}


def _only_detector(run: Run, path: str | os.PathLike[str]) -> str:
    """Return the one detector with pixels and a geometry.

    Raises
    ------
    LocatorError
        There are several, or none.
    """
    found = []
    for name, detector in run.detectors.items():
        if "raw" not in detector.fields or not detector.presence:
            continue
        try:
            if detector.geometry.shape[0] and tuple(detector.raw.dims[-2:]) == ("row", "col"):
                found.append(name)
        except GeometryError:
            continue
    if len(found) != 1:
        known = ", ".join(found) or "none with a geometry"
        raise LocatorError(f"{path}: which detector? There are {known}: a locator says detector = NAME")
    return found[0]

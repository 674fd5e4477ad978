"""What goes into an export: a run as groups of labelled variables.

The groups are those of `Run.tree`: ``events``, one per detector, ``epics/<name>``; and
``steps``, ``codes`` (event codes), ``settings/<detector>``, ``constants/<detector>``,
``presence/<detector>`` (of fields that are not in all payloads of their detector), ``own``, and
``about``: in JSON what detectors and fields are, for `exported`. Everything is in time order.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from psana_dask.dataset import Names, chosen_fields, detector_dataset, main_channel
from psana_dask.errors import NameNotFound
from psana_dask.export.descriptions import (
    COMPUTED,
    constants_group,
    description,
    series_facts,
    settings_group,
)
from psana_dask.exported import MARK
from psana_dask.fields import any_panel
from psana_dask.slow import steps_of
from psana_dask.slow_formats import code_words

if TYPE_CHECKING:
    import xarray as xr

    from psana_dask.export.plan import Column
    from psana_dask.run import Run

EXPORT_VERSION = 1

GROUPS = ("events", "epics", "steps", "codes", "settings", "constants", "presence", "own", "about")
"""Groups that are no detectors."""

Roi = Mapping[str, Mapping[str, slice]]
"""For each detector a slice of panels, rows and columns (``panel``, ``row``, ``col``, ``y``, ``x``)."""


@dataclass(frozen=True)
class Wanted:
    """What the user wants in an export.

    Parameters
    ----------
    names : names of detectors and fields, optional
        As in `Run.dataset`; also ``"cspad.calib"`` and ``"cspad.image"``. All fields by default.
    roi : mapping of detector to mapping of dimension to slice, optional
    bundle : bool
        Constants and geometry too.
    photon_energy : float or str, optional
        eV, or the field that has it; for files of crystallography. By default what the accelerator reports.
    distance : float, optional
        From the sample to the detector, m; for files of crystallography. By default the geometry's.

    Examples
    --------
    >>> export.Wanted(["epixquad.raw", "gmd"], bundle=True)
    """

    names: Names = None
    roi: Roi | None = None
    bundle: bool = False
    photon_energy: float | str | None = None
    distance: float | None = None

    def text(self) -> str:
        """Return it as JSON: equal wishes have equal texts."""
        roi = {
            d: {dim: [s.start, s.stop, s.step] for dim, s in sorted(dims.items())}
            for d, dims in sorted((self.roi or {}).items())
        }
        names = self.names if self.names is None or isinstance(self.names, str) else list(self.names)
        return json.dumps([names, roi, self.bundle, self.photon_energy, self.distance])


def groups(run: Run, wanted: Wanted, own: xr.Dataset | None = None) -> dict[str, xr.Dataset]:
    """Return the groups of an export by path; large variables are lazy.

    Parameters
    ----------
    run : Run
    wanted : Wanted
    own : Dataset, optional
        Variables of the user, for example results of `Run.map`.

    Raises
    ------
    NameNotFound
        A name fits nothing; lists the nearest ones.
    """
    import xarray as xr

    made: dict[str, xr.Dataset] = {"/": xr.Dataset(attrs=root_attrs(run)), "/events": run.events}
    chosen = _chosen(run, wanted.names)
    for detector, fields in chosen.items():
        region = (wanted.roi or {}).get(detector, {})
        made[f"/{group_of(detector)}"] = _detector(run, detector, fields, region)
        made |= _presence(run, detector, fields, region)
    _check_roi(wanted.roi, made)
    for name in run.epics:
        made[f"/epics/{name}"] = run.epics[name].to_dataset(name="value")
    made["/steps"] = run.scan
    made |= _codes(run)
    for detector in chosen:
        made |= settings_group(run, detector)
        if wanted.bundle:
            made |= constants_group(run, detector)
    if own is not None:
        made["/own"] = own
    made["/about"] = xr.Dataset({"text": ((), json.dumps(about(run, wanted, made)))})
    return made


def group_of(detector: str) -> str:
    """Return the group of a detector: its name, with ``_`` where a group of another kind has that."""
    return f"{detector}_" if detector in GROUPS else detector


def root_attrs(run: Run) -> dict[str, Any]:
    """Return what the root says: that it is an export, and of which run."""
    from psana_dask import __version__

    return {
        MARK: EXPORT_VERSION,
        "psana_dask_version": __version__,
        "experiment": run.experiment or "",
        "run": -1 if run.number is None else run.number,
        "format": run._recording.data_format,
    }


def about(run: Run, wanted: Wanted, made: Mapping[str, xr.Dataset]) -> dict[str, Any]:
    """Return what is in the export and how it came to be, as plain values."""
    detectors = {
        name: {"group": group_of(name), **description(run, name, made[f"/{group_of(name)}"])}
        for name in run.detectors
        if f"/{group_of(name)}" in made
    }
    return {
        "detectors": detectors,
        "epics": {name: series_facts(run.epics.find(name)) for name in run.epics},
        "scanned": list(steps_of(run._recording).scanned),
        "format": run._recording.data_format,
        "files": run.files,
        "token": run._recording.token,
        "events_total": run._view.choice.total,
        "selection": list(run._history),
        "wanted": wanted.text(),
        "problems": [list(p) for p in run._all_problems],
    }


def _codes(run: Run) -> dict[str, xr.Dataset]:
    """Return the event codes as bits; nothing where the run has none."""
    import xarray as xr

    try:
        words, present = code_words(run._view)
        own, _ = code_words(run._view, own_fiducial=True)
    except NameNotFound:
        return {}
    dims = ("time", "word")
    variables = {"words": (dims, words), "own_words": (dims, own), "present": ("time", present)}
    return {"/codes": xr.Dataset(variables)}


def _chosen(run: Run, names: Names) -> dict[str, list[str]]:
    """Return detector to fields, `COMPUTED` ones included."""
    chosen: dict[str, list[str]] = {}
    for name in _listed(names):
        detector, field = _pair(run, name)
        if field in COMPUTED:
            chosen.setdefault(run[detector].name, []).append(str(field))
            continue
        for found, fields in chosen_fields(run._view, name).items():
            kept = chosen.setdefault(found, [])
            kept += [f for f in fields if f not in kept]
    if names is None:
        return chosen_fields(run._view, None)
    return chosen


def _listed(names: Names) -> Sequence[Any]:
    if names is None:
        return []
    if isinstance(names, str):
        return [names]
    if isinstance(names, tuple) and len(names) == 2 and names[1] in COMPUTED:
        return [names]
    return list(names)


def _pair(run: Run, name: Any) -> tuple[str, str | None]:
    """Return detector and field that a name with a dot, or a pair, says."""
    if isinstance(name, tuple):
        return name[0], name[1]
    detector, _, field = name.rpartition(".")
    return (detector, field) if detector and field in COMPUTED else (name, None)


def _detector(run: Run, name: str, fields: Sequence[str], roi: Mapping[str, slice]) -> xr.Dataset:
    """Return one detector: its fields as they are in the file, and what is computed."""
    entry = run._view.entries[name]
    plain = [f for f in fields if f not in COMPUTED]
    data = detector_dataset(run._view, entry, None, plain or None)
    if not plain:  # what is computed goes with the presence and damage of what it is made from
        data = data.drop_vars([f for f in entry.channels if f in data])
    for field in fields:
        if field in COMPUTED:
            made = _computed(run[name], field)
            data = data.assign_coords({c: made.coords[c] for c in ("y", "x") if c in made.coords})
            data[field] = made.reset_coords(drop=True)
    return data.isel({dim: s for dim, s in roi.items() if dim in data.dims})


def _presence(
    run: Run, name: str, fields: Sequence[str], roi: Mapping[str, slice]
) -> dict[str, xr.Dataset]:
    """Return which events have a field, where that is not as its algorithm's presence says.

    A frame of an odd size is missing, but its height and width are not.
    """
    import xarray as xr

    entry, numbers = run._view.entries[name], run._view.choice.numbers
    usual: dict[str, npt.NDArray[np.bool_]] = {}
    own: dict[str, Any] = {}
    main = main_channel(entry, [f for f in fields if f in entry.channels])
    for field in sorted(fields, key=lambda f: f != main):
        channel = entry.channels.get(field)
        if channel is None or not run._view.exists(channel):
            continue
        present = run._view.target(channel).reader().present(numbers)
        expected = usual.setdefault(channel.algorithm, present)
        if not np.array_equal(_alike(present, expected), _alike(expected, present)):
            dim = "panel" if present.shape[1] == expected.shape[1] else f"{field}_panel"
            own[field] = (("time", dim), present)
    if not own:
        return {}
    data = xr.Dataset(own).isel({dim: s for dim, s in roi.items() if dim == "panel"}, missing_dims="ignore")
    return {f"/presence/{group_of(name)}": data}


def _alike(present: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return presence as (event, panel), or (event,) where the other has another number of panels."""
    return present if present.shape == other.shape else any_panel(present)


def _computed(detector: Any, field: str) -> xr.DataArray:
    """Return what a detector can give besides the fields of its file, without Dask."""
    if field == "image":
        return detector.assembled(calibrated=True, chunks=None)
    return detector.calibrated(chunks=None)


def _check_roi(roi: Roi | None, made: Mapping[str, xr.Dataset]) -> None:
    """Refuse a region of what is not exported, or along a dimension that nothing has."""
    for detector, dims in (roi or {}).items():
        group = f"/{group_of(detector)}"
        if group not in made:
            known = [g.strip("/") for g in made if g.count("/") == 1 and g != "/"]
            raise NameNotFound.of("exported detector", detector, known)
        for dim in dims:
            if dim not in made[group].dims:
                raise NameNotFound.of(f"dimension of {detector}", dim, map(str, made[group].dims))


def shell(data: xr.Dataset, columns: Mapping[Hashable, Column]) -> xr.Dataset:
    """Return a group whose large variables are never asked for their values.

    Text becomes objects: of that, files have a type that every reader knows.
    """
    import dask.array as da

    made = {}
    for name, variable in data.variables.items():
        if name in columns:
            chunks = (columns[name].piece, *variable.shape[1:])
            made[name] = variable.copy(data=da.zeros(variable.shape, dtype=variable.dtype, chunks=chunks))
        elif variable.dtype.kind == "U":
            made[name] = variable.astype(object)
    return data.assign(made)


def time_order(run: Run) -> Run:
    """Return the run with its events in time order, each once."""
    numbers = run._view.choice.numbers
    return run if run._view.choice.is_sorted else run.isel(np.unique(numbers, return_index=True)[1])

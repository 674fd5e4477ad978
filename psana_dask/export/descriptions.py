"""What detectors, their settings and constants are, in forms that files can hold."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from psana_dask.errors import ConstantsError, ConstantsNotFound, GeometryError, NameNotFound
from psana_dask.model import Kind
from psana_dask.settings import Config, EnumValue

if TYPE_CHECKING:
    import xarray as xr

    from psana_dask.run import Run
    from psana_dask.stepwise import Series

COMPUTED = ("calib", "image")
"""What a detector can give besides the fields of its file."""


def description(run: Run, name: str, group: xr.Dataset) -> dict[str, Any]:
    """Return what a detector and its exported fields are."""
    entry = run._view.entries[name]
    said = {
        public: {
            "algorithm": channel.algorithm,
            "version": list(channel.version),
            "field": channel.spec.name,
            "kind": int(channel.spec.kind),
            "unit": channel.spec.unit,
            "accessor": channel.spec.accessor,
        }
        for public, channel in entry.channels.items()
        if public in group
    }
    said |= {field: _computed(group[field]) for field in COMPUTED if field in group}
    shown = {public: field | _form(group[public]) for public, field in said.items()}
    for public in said:
        if f"{public}_count" in group:  # ragged: the counts say which panels there are
            shown[public]["count_dims"] = [str(d) for d in group[f"{public}_count"].dims]
    return {
        "alias": entry.alias,
        "det_type": entry.det_type,
        "det_ids": list(entry.det_ids),
        "source": entry.source,
        "fields": shown,
    }


def _computed(variable: xr.DataArray) -> dict[str, Any]:
    """Describe frames that were calibrated or assembled: fields of no file."""
    return {
        "algorithm": "computed",
        "version": [1, 0, 0],
        "field": str(variable.name),
        "kind": int(Kind.NUMBER),
        "unit": str(variable.attrs.get("units", "")),
        "accessor": "",
        "attrs": json.loads(json.dumps(variable.attrs, default=str)),
    }


def _form(variable: xr.DataArray) -> dict[str, Any]:
    """Return dimensions, type and the names of values of a variable."""
    enum = {str(k): v for k, v in _enum(variable).items()}
    return {"dims": [str(d) for d in variable.dims], "dtype": variable.dtype.str, "enum": enum}


def _enum(variable: xr.DataArray) -> dict[int, str]:
    values, names = variable.attrs.get("flag_values", []), variable.attrs.get("flag_meanings", "")
    return dict(zip(map(int, values), names.split(), strict=False)) if names else {}


def series_facts(series: Series) -> dict[str, Any]:
    """Return what an EPICS variable is, besides its updates."""
    return {
        "pv": series.pv,
        "kind": int(series.kind),
        "enum": {str(k): v for k, v in series.enum.items()},
        "unit": series.unit,
        "description": series.description,
        "facts": list(series.facts),
    }


# ---- settings -----------------------------------------------------------------------------------
def settings_group(run: Run, detector: str) -> dict[str, xr.Dataset]:
    """Return the settings of a detector: arrays as variables, everything else as JSON."""
    import xarray as xr

    variables: dict[str, Any] = {}
    plain: dict[str, Any] = {}
    for segment, config in run.config(detector).segments.items():
        plain[str(segment)] = _plain(config, f"{segment}", variables)
    if not plain:
        return {}
    variables["text"] = ((), json.dumps(plain))
    return {f"/settings/{detector}": xr.Dataset(variables)}


def _plain(value: Any, name: str, arrays: dict[str, Any]) -> Any:
    """Return a setting as JSON can have it; arrays of numbers go into `arrays` under a number."""
    if isinstance(value, Config):
        return {"config": {k: _plain(v, f"{name}.{k}", arrays) for k, v in value._values.items()}}
    if isinstance(value, EnumValue):
        return {"enum": int(value), "names": {str(k): v for k, v in value.names.items()}}
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        key = f"array_{len(arrays)}"
        arrays[key] = (tuple(f"{key}_{k}" for k in range(value.ndim)), value)
        return {"array": key}
    if isinstance(value, np.ndarray):
        return {"list": [_plain(v, name, arrays) for v in value.tolist()]}
    if isinstance(value, list | tuple):
        return {"list": [_plain(v, name, arrays) for v in value]}
    if isinstance(value, np.generic):
        return {"number": value.item(), "dtype": value.dtype.str}
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    return value


# ---- constants ----------------------------------------------------------------------------------
def constants_group(run: Run, detector: str) -> dict[str, xr.Dataset]:
    """Return the constants of a detector (geometry included) with their provenance; those that there are."""
    import xarray as xr

    try:
        found = run[detector].constants
    except (NameNotFound, ConstantsNotFound, ConstantsError, GeometryError):
        return {}  # no pixels, or nothing to calibrate them with
    variables: dict[str, Any] = {}
    for kind, constant in found.items():
        value = np.asarray(constant.value, object if isinstance(constant.value, str) else None)
        dims = tuple(f"{kind}_{k}" for k in range(value.ndim))
        variables[kind] = (dims, value, {k: str(v) for k, v in constant.attrs().items()})
    return {f"/constants/{detector}": xr.Dataset(variables)} if variables else {}

"""Raw words of any array to calibrated values, with labels: `calib.apply` on DataArrays.

Dimensions other than (panel, row, col) are kept as they are; Dask arrays stay lazy.  `step_attrs`
says in attributes what was done, for every calibrated array of this package.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from psana_dask.calib.apply import apply
from psana_dask.calib.commonmode import CommonMode
from psana_dask.calib.constants import Constants, summary
from psana_dask.calib.detectors import GENERIC, Detector
from psana_dask.calib.detectors import detector as detector_row
from psana_dask.calib.tables import Choices, Tables, common_mode_numbers, prepare
from psana_dask.errors import ConstantsError

PIXELS = ("panel", "row", "col")


def calibrate(
    array: xr.DataArray,
    constants: Mapping[str, Any],
    *,
    detector: str | None = None,
    ranges: npt.NDArray[np.int8] | None = None,
    **choices: Any,
) -> xr.DataArray:
    """Return the calibrated values of an array of raw words.

    Parameters
    ----------
    array : DataArray
        (..., [panel,] row, col). Its attributes say what detector it is (``det_type`` or ``source``,
        ``format``, ``version``); panels that its coordinates call missing become NaN.
    constants : mapping of kind to array or Constants
        ``det.constants``, or arrays.
    detector : str, optional
        Type of the detector, where the attributes do not say it; otherwise generic.
    ranges : (2, [panel,] row, col) int8, optional
        ePix10ka family: from `psana_dask.calib.gain.allowed_ranges`.
    **choices
        Fields of `psana_dask.calib.Choices`, as for `Detector.calibrated`.

    Raises
    ------
    ConstantsNotFound
        No pedestals among the constants.
    ConstantsError
        The array has no rows and columns of pixels, or constants do not fit it.
    """
    dims = tuple(d for d in PIXELS if d in array.dims)
    if dims[-2:] != ("row", "col"):
        raise ConstantsError(f"an array of pixels has dimensions row and col; this one has {array.dims}")
    row, xtc2 = row_of(array.attrs, detector)
    tables = prepare(
        constants, row, xtc2=xtc2, shape=tuple(array.sizes[d] for d in dims), ranges=ranges,
        panels=_panels(array), **choices,
    )  # fmt: skip
    values = xr.apply_ufunc(
        partial(_apply, tables), array.chunk(dict.fromkeys(dims, -1)) if array.chunks else array,
        input_core_dims=[dims], output_core_dims=[dims], dask="parallelized", output_dtypes=[np.float32],
    ).transpose(*array.dims)  # fmt: skip
    done = step_attrs(constants, Choices(**choices), row, xtc2)
    named = _masked(values, array).rename(f"{array.attrs.get('detector', 'pixels')}_calib")
    return named.assign_attrs({**array.attrs, **done})


def _apply(tables: Tables, words: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    out = np.empty(words.shape, np.float32)
    stack = np.ascontiguousarray(words).reshape(-1, *tables.shape)
    if math.prod(stack.shape):
        apply(stack, tables, out.reshape(stack.shape))
    return out


def row_of(attrs: Mapping[str, Any], detector: str | None = None) -> tuple[Detector, bool]:
    """Return the row of the detector table that attributes mean, and whether LCLS-II's rules hold."""
    xtc2 = attrs.get("format", "xtc2") == "xtc2"
    named = detector_row(str(detector or attrs.get("det_type", "")))
    if not xtc2 and detector is None and (found := detector_row(str(attrs.get("source", "")))) is not GENERIC:
        named = found
    version = str(attrs.get("version", ""))
    if xtc2 and version.replace(".", "").isdigit():
        named = named.of_version(tuple(map(int, version.split("."))))
    return named, xtc2


def _panels(array: xr.DataArray) -> list[int] | None:
    there = "panel" in array.dims and "panel" in array.coords
    return array.coords["panel"].values.tolist() if there else None


def _masked(values: xr.DataArray, array: xr.DataArray) -> xr.DataArray:
    """Return the values with NaN where the array says that something is missing."""
    names = [str(name) for name in array.coords]
    known = [n for n in names if n.endswith("panel_present")] or [n for n in names if n.endswith("present")]
    return values.where(array.coords[known[0]]) if known else values


# ---- what was done, in words --------------------------------------------------------------------
def step_attrs(known: Mapping[str, Any], how: Choices, row: Detector, xtc2: bool) -> dict[str, Any]:
    """Return attributes that say how each step was done, and with what constants."""
    stated = {k: v for k, v in known.items() if isinstance(v, Constants)}
    numbers = common_mode_numbers(how.common_mode, known.get("common_mode"), row, xtc2)
    scaled = xtc2 and row.keV_per_adu is not None and how.gain is True
    gains = known.get("pixel_gain") is not None or not isinstance(how.gain, bool)
    return {
        "calibrated": how.pedestals is not False,
        "pedestals": _step(how.pedestals), "common_mode": _common_mode(numbers),
        "gain": _step(how.gain) if gains or not how.gain else "default" if scaled else "none",
        "mask": "status words" if how.mask is None else _step(how.mask),
        "constants": json.dumps(summary(stated)),
        "units": "ADU" if not (gains or scaled) or how.gain is False else "",
    }  # fmt: skip


def _step(value: Any) -> str:
    if isinstance(value, bool):
        return "constants" if value else "off"
    if callable(value):
        return str(getattr(value, "__qualname__", repr(value)))
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={'array' if isinstance(v, np.ndarray) else v}" for key, v in value.items())
    return "given"


def _common_mode(numbers: Any) -> str:
    if isinstance(numbers, CommonMode):
        return ", ".join(f"{n:g}" for n in (numbers.algorithm, *numbers.parameters))
    return "off" if numbers is None else _step(numbers)

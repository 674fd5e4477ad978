"""Datasets of several runs as one: their events one behind the other.

Joins never change a dtype: what a run lacks is 0, NaN, False or '' there, and ``<detector>_present``
is False.  Keys of events that one run lacks are left out: they are never filled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from psana_dask.fields import missing_value

if TYPE_CHECKING:
    import xarray as xr

KEYS = ("fiducial", "pulse_id")
Parts = Sequence[tuple[int, "xr.Dataset"]]


def stacked(parts: Parts) -> xr.Dataset:
    """Return the events of several Datasets one behind the other, with the coordinate ``run``.

    Parameters
    ----------
    parts : sequence of (int, Dataset)
        Run numbers, and variables on ``time`` or on ``<name>_item``; others must agree.

    Raises
    ------
    ValueError
        A variable has other dimensions, another shape or other values in one run than in another.
    """
    import xarray as xr

    data = [part for _, part in parts]
    made = {str(name): _whole(str(name), parts) for name in _names(data)}
    lengths = [part.sizes["time"] for part in data]
    number = np.repeat([number for number, _ in parts], lengths)
    made["run"] = xr.Variable("time", number, {"long_name": "run number"})
    coords = {n for part in data for n in part.coords} | {"run"}
    attrs = common_attrs([part.attrs for part in data]) | {"runs": [number for number, _ in parts]}
    inner = {n: v for n, v in made.items() if n not in coords}
    return xr.Dataset(inner, {n: v for n, v in made.items() if n in coords}, attrs)


def _names(parts: Sequence[xr.Dataset]) -> list[Any]:
    """Return the names of all variables, but for keys that some run lacks."""
    found = dict.fromkeys(name for part in parts for name in part.variables)
    return [n for n in found if n not in KEYS or all(n in part.variables for part in parts)]


def common_attrs(attrs: Sequence[dict[Any, Any]]) -> dict[Any, Any]:
    """Return the attributes that are the same everywhere, but for the run."""
    first = attrs[0]
    same = {k for k in first if all(k in a and _equal(a[k], first[k]) for a in attrs)}
    return {k: v for k, v in first.items() if k in same and k != "run"}


def _equal(one: Any, two: Any) -> bool:
    return bool(np.array_equal(one, two)) if np.ndim(one) or np.ndim(two) else bool(one == two)


def _whole(name: str, parts: Parts) -> xr.Variable:
    """Return one variable of all parts."""
    import xarray as xr

    own = [(number, part.variables[name]) for number, part in parts if name in part.variables]
    like = own[0][1]
    for number, variable in own[1:]:
        _check(name, own[0][0], like, number, variable)
    along = str(like.dims[0]) if like.dims else ""
    if along != "time" and not along.endswith("_item"):
        return like
    pieces = [
        part.variables[name] if name in part.variables else _missing(like, part.sizes.get(along, 0), name)
        for _, part in parts
    ]
    whole = xr.Variable.concat([p.to_base_variable() for p in pieces], along)  # type: ignore[no-untyped-call]
    return xr.Variable(whole.dims, whole.data, common_attrs([dict(v.attrs) for _, v in own]))


def _check(name: str, first: int, like: xr.Variable, number: int, variable: xr.Variable) -> None:
    """Refuse what does not fit: frames of another shape, another panel."""
    fits = variable.dims == like.dims and variable.shape[1:] == like.shape[1:]
    along = str(like.dims[0]) if like.dims else ""
    if fits and along != "time" and not along.endswith("_item"):
        fits = bool(np.array_equal(variable.values, like.values))
    if not fits:
        raise ValueError(
            f"{name} of run {number} is {dict(variable.sizes)}, that of run {first} {dict(like.sizes)}, or "
            "the labels differ: such runs cannot be put one behind the other"
        )


def _missing(like: xr.Variable, length: int, name: str) -> xr.Variable:
    """Return a variable like another in which everything is missing."""
    import xarray as xr

    shape = (length, *like.shape[1:])
    nothing: Any = np.datetime64("NaT") if like.dtype.kind == "M" else missing_value(like.dtype)
    blank = np.asarray(nothing, like.dtype)
    if like.chunks is None:
        return xr.Variable(like.dims, np.full(shape, blank))
    import dask.array as da

    chunks = (max((*like.chunks[0], 1)), *like.chunks[1:])
    return xr.Variable(like.dims, da.full(shape, blank, dtype=like.dtype, chunks=chunks))

"""Datasets made of parts: detectors side by side, and runs one behind the other.

Joins never change a dtype: what a run lacks is 0, NaN, False or '' there, and ``<detector>_present``
is False.  Keys of events that one run lacks are left out: they are never filled.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from psana_dask.fields import missing_value

if TYPE_CHECKING:
    import xarray as xr

FRAME_DIMS = ("panel", "row", "col")
KEYS = ("fiducial", "pulse_id")
Parts = Sequence[tuple[int, "xr.Dataset"]]


# ---- detectors side by side ---------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class Part:
    """What one detector gives to a Dataset, but for the coordinates of events.

    Parameters
    ----------
    data, coords : dict of str to xarray.Variable
    """

    data: dict[str, xr.Variable]
    coords: dict[str, xr.Variable]

    @property
    def sizes(self) -> dict[str, int]:
        """Length of each dimension."""
        both = (*self.data.values(), *self.coords.values())
        return {str(d): n for v in both for d, n in zip(v.dims, v.shape, strict=True)}


def flat(parts: Mapping[str, Part], own_dims: bool) -> tuple[dict[str, xr.Variable], dict[str, Any]]:
    """Merge detectors; panel, row and col get the detector's name in front where detectors disagree."""
    clashing = {
        d for d in FRAME_DIMS if own_dims or len({_extent(p, d) for p in parts.values() if d in p.sizes}) > 1
    }
    variables: dict[str, xr.Variable] = {}
    coords: dict[str, Any] = {}
    owners: dict[str, str] = {}
    for detector, part in parts.items():
        rename = {d: f"{detector}_{d}" for d in clashing if d in part.sizes}
        rename |= {str(d): f"{detector}_{d}" for d in part.sizes if str(d).endswith("_item")}
        for field, data in (part.data | part.coords).items():
            own = data._replace(dims=tuple(rename.get(str(d), d) for d in data.dims))
            if field == "panel":
                coords[rename.get("panel", "panel")] = own
                continue
            name = f"{detector}_{field}"
            if name in owners:
                both = f"{owners[name]} and {detector}.{field}"
                raise ValueError(f"{both} would both be {name}: ask for one of them")
            owners[name] = f"{detector}.{field}"
            (coords if field in part.coords else variables)[name] = own
    return variables, coords


def _extent(part: Part, dim: str) -> tuple[int, ...]:
    """Return what must agree for two detectors to share a dimension."""
    return tuple(part.coords["panel"].values.tolist()) if dim == "panel" else (part.sizes[dim],)


# ---- runs one behind the other ------------------------------------------------------------------


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


def plain_dims(data: xr.Dataset, detectors: Iterable[str]) -> xr.Dataset:
    """Return a Dataset in which panel, row and col bear no detector's name where all detectors agree.

    Parameters
    ----------
    data : Dataset
        With ``<detector>_panel``, ...
    detectors : iterable of str
    """
    renamed: dict[str, str] = {}
    for dim in FRAME_DIMS:
        own = [name for d in detectors if (name := f"{d}_{dim}") in data.sizes]
        labels = {tuple(data[n].values.tolist()) if n in data.coords else data.sizes[n] for n in own}
        if len(labels) == 1:
            renamed |= dict.fromkeys(own, dim)
    for variable, dim in [(n, to) for n, to in renamed.items() if n in data.coords]:
        data = data.drop_vars(variable).assign_coords({dim: (variable, data[variable].values)})
    return _with_dims(data, renamed)


def _with_dims(data: xr.Dataset, renamed: dict[str, str]) -> xr.Dataset:
    """Return a Dataset with other names of dimensions; several may become one."""
    import xarray as xr

    def of(variable: xr.Variable) -> xr.Variable:
        dims = [renamed.get(str(d), d) for d in variable.dims]
        return xr.Variable(dims, variable.data, variable.attrs)

    made = {n: of(v) for n, v in data.variables.items()}
    inner = {n: v for n, v in made.items() if n not in data.coords}
    return xr.Dataset(inner, {n: v for n, v in made.items() if n in data.coords}, data.attrs)


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

"""Statistics of several runs from those of each, in the order of the runs.

Counts, sums, histograms and extremes add up; means come from sums and counts; variances are merged
as by Chan, Golub and LeVeque (The American Statistician 37 (1983) 242, equation 1.5): of two parts with n
values, means m and squared distances S, ``S = S1 + S2 + (m2 - m1)^2 n1 n2 / (n1 + n2)``.  Each run may have
constants of its own: it is calibrated before.
Contract: tests/test_runs.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from psana_dask.analysis.perframe import PerFrame
from psana_dask.reductions.functions import added
from psana_dask.reductions.statistics import CUBE, STATISTICS, Histogram, Projection, Wanted
from psana_dask.stacking import common_attrs

if TYPE_CHECKING:
    import xarray as xr

Parts = Sequence[tuple[int, Any]]

MADE_OF: Mapping[str, tuple[str, ...]] = {
    "mean": ("count", "sum"),
    "var": ("count", "mean", "var"),
    "std": ("count", "mean", "var"),
}
"""What each run must say; any other statistic is made of itself."""

ZERO = ("count", "sum", "histogram", "sum_projection", "count_projection")
"""What is 0 where a run has no events; the others are NaN."""


@dataclass(frozen=True, eq=False)
class Together:
    """A reduction of several runs.

    Parameters
    ----------
    wanted : tuple of str, Histogram or Projection
        Empty for a function.
    names : names
        Of arrays.
    bare : bool
        Whether one statistic was named, not a list.
    function : callable, optional
        What makes partial results.
    """

    wanted: tuple[Wanted, ...]
    names: Any
    bare: bool
    function: Callable[..., Any] | None = None

    @classmethod
    def of(cls, what: Any, names: Any) -> Together:
        """Take apart what `Run.reduce` takes.

        Raises
        ------
        ValueError
            No such statistic.
        """
        if callable(what) and not isinstance(what, PerFrame):
            return cls((), names, True, what)
        if isinstance(what, Histogram | Projection) or what in STATISTICS:
            return cls((what,), names, True)
        if names is None:
            return cls(CUBE, what, False)
        unknown = [w for w in what if not (isinstance(w, Histogram | Projection) or w in STATISTICS)]
        if unknown:
            raise ValueError(
                f"no statistic {unknown[0]!r}; there are {', '.join(STATISTICS)}, Histogram, Projection"
            )
        return cls(tuple(what), names, False)

    def check(self, by: Any, choices: Mapping[str, Any]) -> None:
        """Refuse what cannot be put together.

        Raises
        ------
        ValueError
        """
        if choices.get("weights") is not None:
            raise ValueError('weights= belongs to one run: by="run" gives one result a run')
        if self.function is not None and by is not None:
            raise ValueError(
                'results of a function are merged without bins: by=["run", ...] keeps runs apart'
            )

    @property
    def needed(self) -> Any:
        """What each run is asked for."""
        if self.function is not None:
            return self.function
        found: dict[Wanted, None] = {}
        for wanted in self.wanted:
            found |= dict.fromkeys(_made_of(wanted))
        return list(found)

    def put(self, parts: Parts, merge: Callable[[Any, Any], Any] | None = None) -> Any:
        """Return the results of all runs as one."""
        if self.function is not None:
            whole = parts[0][1]
            for _, part in parts[1:]:
                whole = (merge or added)(whole, part)
            return whole
        aligned = _aligned(parts)
        merged = _merged(aligned)
        attrs = common_attrs([part.attrs for part in aligned]) | {"runs": [number for number, _ in parts]}
        found = {name: self._finished(merged, name) for name in _quantities(merged, self.needed)}
        if self.bare and len(found) == 1 and not isinstance(self.names, list | None):
            ((name, made),) = found.items()
            return next(iter(made.values())).rename(name).assign_attrs(runs=attrs["runs"])
        return self._dataset(found, attrs)

    def _dataset(self, found: Mapping[str, Mapping[str, xr.DataArray]], attrs: dict[Any, Any]) -> xr.Dataset:
        import xarray as xr

        named = {
            name if self.bare else f"{name}_{key}": array
            for name, made in found.items()
            for key, array in made.items()
        }
        return xr.Dataset(named, attrs=attrs)

    def _finished(self, merged: xr.Dataset, name: str) -> dict[str, xr.DataArray]:
        return {_key(wanted): _statistic(merged, name, wanted) for wanted in self.wanted}


def _made_of(wanted: Wanted) -> tuple[Wanted, ...]:
    if isinstance(wanted, Projection) and wanted.statistic == "mean":
        return Projection(wanted.onto, "sum"), Projection(wanted.onto, "count")
    return MADE_OF.get(wanted, (wanted,)) if isinstance(wanted, str) else (wanted,)


def _key(wanted: Wanted) -> str:
    """Return what `Run.reduce` puts behind the name of the array."""
    if isinstance(wanted, str):
        return wanted
    return "histogram" if isinstance(wanted, Histogram) else f"{wanted.statistic}_projection"


def _quantities(merged: xr.Dataset, needed: Sequence[Wanted]) -> list[str]:
    """Return the names of the arrays that were reduced."""
    keys = [_key(w) for w in needed]
    stems = [str(n).removesuffix(f"_{keys[0]}") for n in merged.data_vars if str(n).endswith(f"_{keys[0]}")]
    return [stem for stem in stems if all(f"{stem}_{key}" in merged for key in keys)]


def _statistic(merged: xr.Dataset, name: str, wanted: Wanted) -> xr.DataArray:
    """Return a statistic from what it is made of."""
    key = _key(wanted)
    with np.errstate(invalid="ignore", divide="ignore"):  # 0 / 0: NaN where there is no value
        if key == "mean":
            found = merged[f"{name}_sum"] / merged[f"{name}_count"]
        elif key == "mean_projection":
            found = merged[f"{name}_sum_projection"] / merged[f"{name}_count_projection"]
        elif key == "std":
            found = merged[f"{name}_var"] ** 0.5
        else:
            return merged[f"{name}_{key}"]
    like = merged[f"{name}_{'var' if key == 'std' else _key(_made_of(wanted)[-1])}"]
    return found.assign_attrs({**like.attrs, "reduction": key})


# ---- bins ---------------------------------------------------------------------------------------
def bin_dims(part: Any) -> tuple[str, ...]:
    """Return the dimensions of bins: those along which events were counted."""
    for name, coord in part.coords.items():
        if str(name).endswith("_events"):
            return tuple(map(str, coord.dims))
    return ()


def _aligned(parts: Parts) -> list[Any]:
    """Return parts with the same bins; what a run does not have is 0 or NaN.

    Raises
    ------
    ValueError
        They do not have the same pixels.
    """
    first = parts[0][1]
    labels = {dim: np.unique(np.concatenate([p[dim].values for _, p in parts])) for dim in bin_dims(first)}
    for number, part in parts[1:]:
        for dim in first.dims:
            if dim not in labels and not _same_pixels(first, part, dim):
                raise ValueError(
                    f"run {number} has other pixels along {dim} than run {parts[0][0]}: "
                    "only runs with the same pixels can be put together"
                )
    return [_filled(part, labels) for _, part in parts]


def _same_pixels(one: Any, two: Any, dim: Any) -> bool:
    if one.sizes[dim] != two.sizes.get(dim):
        return False
    return dim not in one.coords or bool(np.array_equal(one[dim].values, two[dim].values))


def _filled(part: Any, labels: Mapping[str, Any]) -> Any:
    names = [part.name] if not hasattr(part, "data_vars") else list(part.data_vars)
    zero = {n: 0 for n in names if str(n).endswith(tuple(f"_{z}" for z in ZERO))}
    zero |= {n: 0 for n in part.coords if str(n).endswith("_events")}
    wanted = {d: values for d, values in labels.items() if not np.array_equal(part[d].values, values)}
    if not wanted:
        return part
    as_dataset = part if hasattr(part, "data_vars") else part.to_dataset(name=part.name)
    nothing = {n: zero.get(n, _nothing(v.dtype)) for n, v in as_dataset.variables.items() if n not in wanted}
    whole = as_dataset.reindex(wanted, fill_value=nothing)
    return whole if hasattr(part, "data_vars") else whole[part.name]


def _nothing(dtype: np.dtype[Any]) -> Any:
    return {"M": np.datetime64("NaT"), "U": "", "b": False}.get(dtype.kind, np.nan)


# ---- merging ------------------------------------------------------------------------------------
def _merged(parts: Sequence[xr.Dataset]) -> xr.Dataset:
    """Return the sums of all parts, one after the other."""
    whole = parts[0]
    for part in parts[1:]:
        same = {n for n, c in whole.coords.items() if n in part.coords and c.equals(part.coords[n])}
        counts = {n for n in whole.coords if str(n).endswith("_events") and n in part.coords}
        variables = {n: _added(str(n), whole, part) for n in whole.data_vars}
        events = {n: whole[n].copy(data=whole[n].values + part[n].values) for n in counts}
        kept = whole.drop_vars([n for n in whole.coords if n not in same])
        whole = kept.assign(variables).assign_coords(events)
    return whole


def _added(name: str, one: xr.Dataset, two: xr.Dataset) -> xr.DataArray:
    a, b = one[name], two[name].transpose(*one[name].dims)
    if name.endswith(("_mean", "_var")):
        values = _moments(name, one, two)
    elif name.endswith("_min"):
        values = np.fmin(a.values, b.values)
    elif name.endswith("_max"):
        values = np.fmax(a.values, b.values)
    else:
        values = a.values + b.values
    own = a.drop_vars([c for c in a.coords if c not in a.dims]).copy(data=values)
    own.attrs = common_attrs([a.attrs, b.attrs])
    return own


def _moments(name: str, one: xr.Dataset, two: xr.Dataset) -> Any:
    """Return mean or variance of both."""
    stem, _, which = name.rpartition("_")
    dims = one[name].dims

    def of(part: xr.Dataset, key: str) -> Any:
        return part[f"{stem}_{key}"].transpose(*dims).values.astype(np.float64)

    n1, n2 = of(one, "count"), of(two, "count")
    m1, m2 = of(one, "mean"), of(two, "mean")
    with np.errstate(invalid="ignore", divide="ignore"):
        share, apart = n2 / (n1 + n2), m2 - m1
        if which == "mean":
            both, first, second = m1 + apart * share, m1, m2
        else:
            first, second = of(one, "var"), of(two, "var")
            both = first * (1 - share) + second * share + apart**2 * share * (1 - share)
    return np.where(n2 == 0, first, np.where(n1 == 0, second, both))


# ---- side by side -------------------------------------------------------------------------------
def side_by_side(parts: Parts) -> Any:
    """Return one result a run, on the dimension ``run``.

    Raises
    ------
    ValueError
        The runs do not have the same pixels.
    """
    import pandas as pd
    import xarray as xr

    index = pd.Index([number for number, _ in parts], name="run")
    if not hasattr(parts[0][1], "dims"):  # plain numbers of a function
        return xr.DataArray([part for _, part in parts], {"run": index}, ("run",))
    return xr.concat(
        _aligned(parts), index, coords="different", compat="equals", join="exact",
        combine_attrs="drop_conflicts",
    )  # fmt: skip

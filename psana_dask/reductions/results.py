"""From nodes to labelled arrays: names, dimensions, coordinates, attributes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from psana_dask.reductions.groups import Groups
from psana_dask.reductions.quantities import Quantity
from psana_dask.reductions.statistics import Histogram, Node, Projection, Request, Wanted

if TYPE_CHECKING:
    import xarray as xr

Nodes = tuple[Node, ...]


def variables(
    quantity: Quantity, request: Request, groups: Groups, nodes: Sequence[Nodes], events: Sequence[int]
) -> dict[str, xr.DataArray]:
    """Return what was wanted of one quantity, by statistic.

    Parameters
    ----------
    quantity : Quantity
    request : Request
    groups : Groups
    nodes : sequence of tuple of Node
        Of each bin.
    events : sequence of int
        Events that went into each bin.
    """
    outcomes = [request.outcome(each) for each in nodes]
    coords = _coords(quantity, groups, events)
    made: dict[str, xr.DataArray] = {}
    for wanted in request.wanted:
        if isinstance(wanted, Histogram):
            made["histogram"] = _histogram(quantity, groups, wanted, [o[wanted] for o in outcomes], coords)
        elif isinstance(wanted, Projection):
            made[f"{wanted.statistic}_projection"] = _projection(quantity, groups, wanted, outcomes, coords)
        else:
            values = [_framed(quantity, o[wanted]) for o in outcomes]
            made[wanted] = _labelled(quantity, groups, values, quantity.dims, coords, wanted)
    return made


def _coords(quantity: Quantity, groups: Groups, events: Sequence[int]) -> dict[str, Any]:
    counted = np.array(events, np.int64).reshape(groups.shape)
    return {
        **groups.coords, **quantity.coords,
        f"{quantity.detector}_events": (groups.dims, counted, {"long_name": "events that went in"}),
    }  # fmt: skip


def _panels(quantity: Quantity, flat: NDArray[Any]) -> NDArray[Any]:
    """Give flat pixels the shape of an event, as the file has it."""
    return flat.reshape(quantity.made_of.shape[1:])


def _framed(quantity: Quantity, flat: NDArray[Any]) -> NDArray[Any]:
    """Give flat pixels their shape, assembled if the quantity is an image."""
    frame = _panels(quantity, flat)
    return frame if quantity.assembly is None else quantity.assembly.image(frame)


def _labelled(
    quantity: Quantity, groups: Groups, values: Sequence[NDArray[Any]], dims: Sequence[str],
    coords: Mapping[str, Any], what: str,
) -> xr.DataArray:  # fmt: skip
    import xarray as xr

    shape = values[0].shape if values else quantity.lazy.shape[1:]
    data = values[0] if len(values) == 1 else np.stack(values) if values else np.zeros((0, *shape))
    attrs = {**quantity.attrs, "reduction": what}
    all_dims = (*groups.dims, *dims)
    fitting = {k: v for k, v in coords.items() if _fits(k, v, all_dims)}
    return xr.DataArray(data.reshape((*groups.shape, *shape)), fitting, all_dims, quantity.name, attrs)


def _fits(name: str, coord: Any, dims: Sequence[str]) -> bool:
    """Tell whether a coordinate lies along dimensions that are there."""
    along = coord[0] if isinstance(coord, tuple) else (name,)
    return all(d in dims for d in ((along,) if isinstance(along, str) else along))


def _histogram(
    quantity: Quantity, groups: Groups, wanted: Histogram, counts: Sequence[NDArray[Any]],
    coords: Mapping[str, Any],
) -> xr.DataArray:  # fmt: skip
    edges = np.array(wanted.edges)
    name = f"{quantity.name}_bin"
    more = {
        name: (name, (edges[:-1] + edges[1:]) / 2),
        f"{name}_left": (name, edges[:-1]), f"{name}_right": (name, edges[1:]),
    }  # fmt: skip
    if not wanted.per_pixel:
        return _labelled(quantity, groups, counts, (name,), {**coords, **more}, "histogram")
    framed = [np.stack([_framed(quantity, c) for c in each.T]) for each in counts]
    return _labelled(quantity, groups, framed, (name, *quantity.dims), {**coords, **more}, "histogram")


def _projection(
    quantity: Quantity, groups: Groups, wanted: Projection, outcomes: Sequence[Mapping[Wanted, Any]],
    coords: Mapping[str, Any],
) -> xr.DataArray:  # fmt: skip
    unknown = [d for d in wanted.onto if d not in quantity.dims]
    if unknown:
        there = ", ".join(quantity.dims)
        raise ValueError(f"{quantity.name} has no dimension {unknown[0]!r}; it has {there}")
    axes = tuple(k for k, d in enumerate(quantity.dims) if d not in wanted.onto)
    found = []
    for outcome in outcomes:
        frame = _framed(quantity, outcome["sum"])
        number = np.nan_to_num(_framed(quantity, outcome["count"].astype(np.float64)))
        total, count = np.nansum(frame, axis=axes), number.sum(axis=axes)
        with np.errstate(invalid="ignore", divide="ignore"):
            made = {"sum": total, "count": count.astype(np.int64), "mean": total / count}
        found.append(made[wanted.statistic])
    dims = [d for d in quantity.dims if d in wanted.onto]
    return _labelled(quantity, groups, found, dims, coords, f"{wanted.statistic} onto {', '.join(dims)}")

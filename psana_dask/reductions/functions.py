"""Functions of the user: over blocks of events (`map`), and over leaves with partial results (`reduce`).

A function gets a loaded Dataset of some events and knows nothing of files, tasks or workers.
For a reduction it always gets the same 16 events together, so its result has the same bits
wherever it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from psana_dask.analysis.perframe import PerFrame
from psana_dask.choice import Choice
from psana_dask.dataset import View, event_coords, run_attrs
from psana_dask.errors import EventNotFound, FunctionError
from psana_dask.options import current
from psana_dask.reductions import compute
from psana_dask.reductions.eventfields import (
    EventField,
    block_dataset,
    event_fields,
    having_all,
    place_of,
    recording_of,
)
from psana_dask.reductions.groups import Groups
from psana_dask.reductions.leaves import LEAF, Carry, spans
from psana_dask.reductions.quantities import Wanted as Names
from psana_dask.reductions.tasks import Piece

if TYPE_CHECKING:
    import xarray as xr

Ints = NDArray[np.int64]
Function = Callable[[Any], Any]
Merge = Callable[[Any, Any], Any]


@dataclass(frozen=True, eq=False)
class Call:
    """A function and what it is called with; a worker gets it once.

    Parameters
    ----------
    function : callable
    fields : tuple of EventField
    merge : callable, optional
        Of a reduction.
    """

    function: Function
    fields: tuple[EventField, ...]
    merge: Merge | None = None

    def of(self, data: xr.Dataset, events: Ints) -> Any:
        """Call the function with some events.

        Raises
        ------
        FunctionError
            It raised; the message names the first event that it cannot take, and its file.
        """
        try:
            return self.function(data)
        except Exception as error:
            raise FunctionError(self._blamed(data, events, error)) from error

    def _blamed(self, data: xr.Dataset, events: Ints, error: Exception) -> str:
        name = getattr(self.function, "__name__", repr(self.function))
        recording = recording_of(self.fields)
        for k, event in enumerate(events.tolist()):
            try:
                self.function(data.isel(time=slice(k, k + 1)))
            except Exception as own:
                return f"{name} failed at {place_of(recording, event)}: {type(own).__name__}: {own}"
        first, last = (place_of(recording, int(events[k])) for k in (0, -1))
        return f"{name} failed between {first} and {last}: {type(error).__name__}: {error}"

    def block(self) -> int:
        """Return how many events are read together: whole leaves."""
        each = max(1, sum(f.nbytes for f in self.fields))
        return max(LEAF, min(1 << 16, current().chunk_bytes // each) // LEAF * LEAF)


# ---- reductions ---------------------------------------------------------------------------------
def added(one: Any, two: Any) -> Any:
    """Merge partial results by adding them."""
    return one + two


def reduce_piece(call: Call, piece: Piece) -> Any:
    """Return the partial result of one node of the tree."""
    recording = recording_of(call.fields)
    carry: Carry[Any] = Carry(call.merge or added)
    last, size = None, call.block()
    for first in range(0, len(piece.events), size):
        events = piece.events[first : first + size]
        data = block_dataset(call.fields, recording, events)
        for at in range(0, len(events), LEAF):
            leaf = events[at : at + LEAF]
            part = partial_of(call, data.isel(time=slice(at, at + LEAF)), leaf)
            if len(leaf) == LEAF:
                carry.push(part)
            else:
                last = part
    return carry.total(last)


def partial_of(call: Call, data: xr.Dataset, events: Ints) -> Any:
    """Return the partial result of the events of a leaf.

    Raises
    ------
    FunctionError
        It has a dimension ``time``.
    """
    part = call.of(data, events)
    if "time" in getattr(part, "dims", ()):
        raise FunctionError(
            "a function for reduce returns partial results without time, for merge to put together; "
            "for one result per event use run.map"
        )
    return part


def merge_parts(call: Call, parts: Sequence[Any]) -> Any:
    """Merge the partial results of consecutive nodes."""
    merge, found = call.merge or added, parts[0]
    for part in parts[1:]:
        found = merge(found, part)
    return found


def reduce_function(
    view: View, function: Function, names: Names, merge: Merge | None, groups: Groups, bins: Sequence[Ints],
    calibration: Mapping[str, Any] | None, progress: bool | None,
) -> Any:  # fmt: skip
    """Return what a function makes of the events, merged; see `Run.reduce`."""
    fields = tuple(event_fields(view, names, calibration))
    call = Call(function, fields, merge)
    kept = [numbers[having_all(fields, numbers)] if names is not None else numbers for numbers in bins]
    nbytes = max(1, sum(f.nbytes for f in fields))
    level = compute.task_level([len(numbers) for numbers in kept], nbytes)
    graph = compute.Tasks()
    shared = graph.shared(call)
    asked = []
    for numbers in kept:
        nodes = [graph.call(reduce_piece, shared, Piece(numbers[a:b])) for a, b in spans(len(numbers), level)]
        merged = partial(graph.call, merge_parts, shared)
        asked.append(graph.merged(nodes, merged) if nodes else None)
    name = getattr(function, "__name__", "function")
    found = iter(graph.computed([a for a in asked if a is not None], name, progress))
    return binned([None if a is None else next(found) for a in asked], groups, call)


def binned(parts: Sequence[Any], groups: Groups, call: Call | None = None) -> Any:
    """Put the results of the bins side by side; where there are no events, NaN or 0.

    Where no bin has any, `call` says what the function makes of no events.
    """
    import xarray as xr

    known = next((p for p in parts if p is not None), None)
    if known is None and call is not None:
        empty = np.zeros(0, np.int64)
        known = partial_of(call, block_dataset(call.fields, recording_of(call.fields), empty), empty)
        parts = [None] * len(parts) if groups.axes else [known]
    if not groups.axes or known is None:
        return parts[0] if parts else None
    blank = xr.full_like(known, np.nan) if _is_float(known) else _blank(known)
    filled = [blank if p is None else p for p in parts]
    flat = xr.concat(filled, "bin_of_all", join="exact", coords="minimal", compat="override")
    return _shaped(flat, groups)


def _is_float(part: Any) -> bool:
    return getattr(getattr(part, "dtype", None), "kind", "") == "f"


def _blank(part: Any) -> Any:
    """Return a result of no events: NaN for floats, 0 for integers."""
    import xarray as xr

    if not isinstance(part, xr.Dataset):
        return xr.zeros_like(part)
    made = {n: xr.full_like(v, np.nan) if v.dtype.kind == "f" else xr.zeros_like(v) for n, v in part.items()}
    return part.assign(made)


def _shaped(flat: Any, groups: Groups) -> Any:
    """Give the flat bins their dimensions."""
    import pandas as pd

    index = pd.MultiIndex.from_product([np.arange(n) for n in groups.shape], names=groups.dims)
    labelled = flat.assign_coords({"bin_of_all": ("bin_of_all", np.arange(len(index)))})
    if len(groups.dims) == 1:
        shaped = labelled.drop_vars("bin_of_all").rename(bin_of_all=groups.dims[0])
    else:
        codes = {name: ("bin_of_all", index.get_level_values(name)) for name in groups.dims}
        shaped = labelled.drop_vars("bin_of_all").assign_coords(codes)
        shaped = shaped.set_index(bin_of_all=list(groups.dims)).unstack("bin_of_all")
    return shaped.assign_coords(groups.coords).transpose(*groups.dims, ...)


# ---- map ----------------------------------------------------------------------------------------
def map_block(call: Call, events: Ints, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Return the values that a function makes of some events, by variable."""
    data = block_dataset(call.fields, recording_of(call.fields), events)
    out = _as_dataset(checked(call.of(data, events), data))
    return {name: np.asarray(out[name].transpose("time", ...).values) for name in names}


def pick(block: Mapping[str, NDArray[Any]], name: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return one variable of a block."""
    if block[name].shape != shape:
        raise FunctionError(
            f"the function made {name} of shape {block[name].shape}, and {shape} of other events: "
            "results of varying length belong in run.smalldata"
        )
    return block[name]


def map_function(
    view: View, function: Function, names: Names, calibration: Mapping[str, Any] | None
) -> xr.Dataset | xr.DataArray:
    """Return what a function makes of each event, lazily; see `Run.map`."""
    import dask.array as da
    import xarray as xr

    graph = compute.Tasks()
    names = function.names if names is None and isinstance(function, PerFrame) else names
    fields = tuple(event_fields(view, names, calibration))
    call = Call(function, fields)
    numbers = view.choice.numbers
    kept = having_all(fields, numbers) if names is not None else np.ones(len(numbers), bool)
    numbers = numbers[kept]
    template = _template(call, numbers)
    whole = _as_dataset(template)
    shared, made_of = graph.shared(call), list(whole.data_vars)
    ranges = _ranges(len(numbers), call.block())
    blocks = [graph.call(map_block, shared, numbers[a:b], made_of) for a, b in ranges]
    variables = {}
    for name, sample in whole.data_vars.items():
        inner = sample.transpose("time", ...)
        shapes = [(b - a, *inner.shape[1:]) for a, b in ranges]
        calls = [graph.call(pick, b, name, shape) for b, shape in zip(blocks, shapes, strict=True)]
        pieces = [
            da.from_delayed(value, shape, inner.dtype)
            for value, shape in zip(graph.delayed(calls), shapes, strict=True)
        ]
        data = da.concatenate(pieces) if pieces else da.zeros((0, *inner.shape[1:]), inner.dtype)
        variables[name] = (inner.dims, data, inner.attrs)
    coords = {k: v for k, v in whole.coords.items() if "time" not in v.dims}
    time = event_coords(_of(view, kept))
    made = xr.Dataset(variables, {**coords, **time}, {**run_attrs(view), **whole.attrs})
    return made[ONLY].rename(template.name) if isinstance(template, xr.DataArray) else made


def _of(view: View, kept: NDArray[np.bool_]) -> View:
    return replace(view, choice=Choice(view.choice.numbers[kept], view.choice.total))


def _ranges(events: int, size: int) -> list[tuple[int, int]]:
    return [(a, min(events, a + size)) for a in range(0, events, size)]


ONLY = "result_of_map"


def _as_dataset(result: Any) -> xr.Dataset:
    """Return a result as a Dataset."""
    import xarray as xr

    return result.to_dataset(name=ONLY) if isinstance(result, xr.DataArray) else result


def _template(call: Call, numbers: Ints) -> Any:
    """Return what the function makes of the first two events, having looked whether it may be mapped."""
    if not len(numbers):
        raise EventNotFound("map needs an event to see what the function makes of it; none was selected")
    some = numbers[:2]
    data = block_dataset(call.fields, recording_of(call.fields), some)
    both = checked(call.of(data, some), data)
    for k in range(len(some)):
        one = data.isel(time=slice(k, k + 1))
        alone = checked(call.of(one, some[k : k + 1]), one)
        _same(_as_dataset(both).isel(time=slice(k, k + 1)), _as_dataset(alone))
    return both


def checked(result: Any, data: xr.Dataset) -> Any:
    """Return a result that has one entry per event.

    Raises
    ------
    FunctionError
        It lost ``time``; names the accumulator that does what was meant.
    """
    import xarray as xr

    if not isinstance(result, xr.Dataset | xr.DataArray):
        raise FunctionError(f"a function for map returns a Dataset or DataArray, not {type(result).__name__}")
    arrays = result.data_vars.values() if isinstance(result, xr.Dataset) else [result]
    for array in arrays:
        if "time" not in array.dims:
            what = f"the function reduced {array.name or 'its result'} over time"
            raise FunctionError(
                f"{what}, but it sees a few events only: {_advice(array, data)} reduces over all of them"
            )
        if array.sizes["time"] != data.sizes["time"]:
            raise FunctionError(
                f"the function made {array.sizes['time']} entries of {data.sizes['time']} events: map keeps "
                "time; select events with run.select before"
            )
    return result


def _advice(array: Any, data: xr.Dataset) -> str:
    """Name the accumulator that a plain reduction over time stands for."""
    for which in ("mean", "sum", "min", "max", "std", "var", "count"):
        for name, values in data.data_vars.items():
            reduced = getattr(values, which)("time") if values.dtype.kind in "iufb" else None
            if reduced is not None and reduced.shape == array.shape and np.array_equal(reduced, array):
                detector = str(values.attrs.get("detector", ""))
                return f'run.{which}("{detector}.{str(name).removeprefix(detector + "_")}")'
    return 'run.mean, run.sum, ... or run.reduce (for instance run.mean("cspad.image"))'


def _same(one: xr.Dataset, alone: xr.Dataset) -> None:
    """Refuse a function whose result for an event depends on the others of its block."""
    for name, array in one.data_vars.items():
        a, b = array.values, alone[name].values
        if a.dtype.kind in "iufcb":
            scale = np.abs(a[np.isfinite(a)]).max(initial=0.0) if a.dtype.kind == "f" else 0.0
            if a.shape == b.shape and np.allclose(a, b, rtol=1e-4, atol=1e-6 * scale, equal_nan=True):
                continue
        elif np.array_equal(a, b):
            continue
        raise FunctionError(
            f"{'the result' if name == ONLY else name} of an event depends on the other events that the "
            "function sees: it reduces over time, or shifts along it. Reduce first (run.mean, run.sum, "
            "run.reduce), then use what comes out in the function"
        )

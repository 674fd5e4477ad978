"""The calls: statistics of names, cubes, and reductions by any function, of a view of a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from psana_dask.analysis.perframe import PerFrame
from psana_dask.dataset import View, run_attrs
from psana_dask.errors import suggestion
from psana_dask.indexing import labelled
from psana_dask.reductions import compute, tasks
from psana_dask.reductions.groups import By, Condition, Groups, event_values, given_values, groups_of
from psana_dask.reductions.leaves import span
from psana_dask.reductions.quantities import Quantity, quantities
from psana_dask.reductions.quantities import Wanted as Names
from psana_dask.reductions.results import Nodes, variables
from psana_dask.reductions.statistics import CUBE, STATISTICS, Histogram, Projection, Request, Wanted

if TYPE_CHECKING:
    import xarray as xr

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Pieces = list[list[tasks.Piece]]


@dataclass(frozen=True, eq=False)
class Choices:
    """How to reduce: what all calls have in common.

    Parameters
    ----------
    by : description of bins, optional
        See `groups.groups_of`.
    mask : array, DataArray or condition, optional
        Over time: which events count. Over the pixels: which pixels count.
    weights : str, array or DataArray, optional
        One number per event, not negative.
    calibration : mapping, optional
        Choices for ``calib`` and ``image``, as `Detector.calibrated` takes them.
    progress : bool, optional
        Show a progress bar.
    half_life : float, optional
        Events after which an event counts half.
    """

    by: By = None
    mask: Any = None
    weights: Any = None
    calibration: Mapping[str, Any] | None = None
    progress: bool | None = None
    half_life: float | None = None

    def check(self, wanted: Sequence[Wanted]) -> None:
        """Refuse what fading weights make no sense of."""
        if self.half_life is None:
            return
        if self.half_life < 1:
            raise ValueError(f"half_life={self.half_life}: events, 1 or more")
        other = [w for w in wanted if w not in FADING]
        if other:
            raise ValueError(f"half_life= is for {', '.join(FADING)}, not for {other[0]!r}")


FADING = ("mean", "var", "std")
"""Statistics in which earlier events may count less."""


def statistic(view: View, which: str, names: Names, choices: Choices) -> xr.DataArray | xr.Dataset:
    """Return one statistic over time: a DataArray of one name, else a Dataset."""
    found, single = reduced(view, names, (which,), choices)
    arrays = {quantity.name: made[which] for quantity, made in found}
    return next(iter(arrays.values())) if single else labelled_dataset(view, arrays)


def reduce(view: View, what: Any, names: Names, choices: Choices, merge: Any = None) -> Any:
    """Return statistics over time, or what a function makes of it; see `Run.reduce`."""
    if callable(what) and not isinstance(what, PerFrame):
        return _by_function(view, what, names, choices, merge)
    if merge is not None:
        raise ValueError("merge= belongs to a function; statistics know how to merge")
    if isinstance(what, str | Histogram | Projection) and _is_wanted(what):
        return _one(view, what, names, choices)
    if names is None and not _all_wanted(what):
        what, names = CUBE, what
    wanted = tuple([what] if isinstance(what, str | Histogram | Projection) else what)
    unknown = [w for w in wanted if not _is_wanted(w)]
    if unknown:
        near = suggestion(str(unknown[0]), [*STATISTICS, "Histogram", "Projection"], 9)
        raise ValueError(f"no statistic {unknown[0]!r}{near}")
    found, _ = reduced(view, names, wanted, choices)
    arrays = {f"{q.name}_{key}": array for q, made in found for key, array in made.items()}
    return labelled_dataset(view, arrays).assign_coords(constants_of(view, [q for q, _ in found]))


def _by_function(view: View, function: Any, names: Names, choices: Choices, merge: Any) -> Any:
    from psana_dask.reductions.functions import reduce_function

    if choices.half_life is not None:
        raise ValueError(f"half_life= is for {', '.join(FADING)}, not for a function")
    if choices.weights is not None or (choices.mask is not None and is_of_pixels(view, choices.mask)):
        raise ValueError("a function applies weights and masks of pixels by itself")
    events = Events.of(view, choices.by, choices.mask, None)
    return reduce_function(
        view, function, names, merge, events.groups, events.bins, choices.calibration, choices.progress
    )


def _one(view: View, what: Wanted, names: Names, choices: Choices) -> xr.DataArray | xr.Dataset:
    found, single = reduced(view, names, (what,), choices)
    arrays = {quantity.name: next(iter(made.values())) for quantity, made in found}
    return next(iter(arrays.values())) if single else labelled_dataset(view, arrays)


def _is_wanted(what: Any) -> bool:
    return isinstance(what, Histogram | Projection) or (isinstance(what, str) and what in STATISTICS)


def _all_wanted(what: Any) -> bool:
    return isinstance(what, list | tuple) and bool(what) and all(map(_is_wanted, what))


def labelled_dataset(view: View, arrays: Mapping[str, xr.DataArray]) -> xr.Dataset:
    """Return arrays as a Dataset; dimensions in which detectors differ get the detector's name."""
    return together(arrays, run_attrs(view))


def together(arrays: Mapping[str, xr.DataArray], attrs: Mapping[str, Any]) -> xr.Dataset:
    """Return arrays as a Dataset; dimensions in which detectors differ get the detector's name."""
    import xarray as xr

    sizes: dict[str, set[Any]] = {}
    for array in arrays.values():
        for dim in ("panel", "row", "col", "y", "x"):
            if dim in array.dims:
                labels = array[dim].values.tolist() if dim in array.coords else []
                sizes.setdefault(dim, set()).add((array.sizes[dim], *labels))
    clashing = {dim for dim, kinds in sizes.items() if len(kinds) > 1}
    own = {
        name: array.rename({d: f"{array.attrs['detector']}_{d}" for d in clashing if d in array.dims})
        for name, array in arrays.items()
    }
    return xr.Dataset(own, attrs=dict(attrs))


def constants_of(view: View, quantities: Iterable[Quantity]) -> dict[str, xr.DataArray]:
    """Return the constants that calibrated values were made with, as coordinates."""
    from psana_dask.imaging import Imaging

    found = {}
    for detector in dict.fromkeys(q.detector for q in quantities if q.attrs.get("calibrated")):
        imaging = Imaging(view, view.entries[detector])
        for kind in ("pedestals", "pixel_gain", "pixel_status"):
            if imaging.lookups[kind].constants is not None:
                constant = imaging.constant(kind)
                own = {d: f"{detector}_{d}" for d in constant.dims}
                found[f"{detector}_{kind}"] = constant.rename(own)
    return found


# ---- the reduction itself -----------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class Events:
    """Which events go into which bin, in time order.

    Parameters
    ----------
    groups : Groups
    bins : tuple of (event,) int64
        Event numbers of each bin.
    weights : tuple of (event,) float64, optional
        Of each bin.
    """

    groups: Groups
    bins: tuple[Ints, ...]
    weights: tuple[NDArray[np.float64], ...] | None

    @classmethod
    def of(cls, view: View, by: By, mask: Any, weights: Any) -> Events:
        """Return the events of a view by bin; masked ones are left out."""
        groups = groups_of(view, by)
        members = groups.members() if groups.axes else [np.arange(len(view.choice))]
        kept = None if mask is None else event_mask(view, mask)
        given = None if weights is None else event_weights(view, weights)
        bins, own = [], []
        for positions in members:
            some = positions if kept is None else positions[kept[positions]]
            some = some[np.argsort(view.choice.numbers[some], kind="stable")]
            bins.append(view.choice.numbers[some])
            own.append(np.ones(0) if given is None else given[some])
        return cls(groups, tuple(bins), None if given is None else tuple(own))

    def having(self, quantity: Quantity) -> Events:
        """Return the events that have a detector."""
        there = [quantity.having(numbers) for numbers in self.bins]
        bins = tuple(n[h] for n, h in zip(self.bins, there, strict=True))
        weights = self.weights
        if weights is not None:
            weights = tuple(w[h] for w, h in zip(weights, there, strict=True))
        return Events(self.groups, bins, weights)

    def fading(self, half_life: float | None) -> Events:
        """Return the events with weights that halve every so many events, the latest ones near 1."""
        if half_life is None:
            return self
        fading = [fading_weights(0, len(n), half_life, (len(n) - 1) // half_life) for n in self.bins]
        own = self.weights or tuple(np.ones(len(n)) for n in self.bins)
        return Events(self.groups, self.bins, tuple(a * b for a, b in zip(own, fading, strict=True)))


FADED = 400
"""Half-lives after which an event counts nothing: far below the last bit of a float64."""


def fading_weights(first: int, count: int, half_life: float, newest: float) -> NDArray[np.float64]:
    """Return the weights of events numbered from `first` on, half of what they are a half-life later.

    Parameters
    ----------
    first, count : int
    half_life : float
        Events.
    newest : float
        A whole number of half-lives after the first event of all: there the weight is 1. Another one
        changes all weights by a power of two, so no bit of a mean or variance.
    """
    age = np.arange(first, first + count) / half_life
    whole = np.floor(age)
    exponent = (whole - newest).astype(np.int64)
    weights = np.ldexp(np.exp2(age - whole), exponent)
    return np.where(exponent < -FADED, 0.0, weights)


def reduced(
    view: View, names: Names, wanted: tuple[Wanted, ...], choices: Choices
) -> tuple[list[tuple[Quantity, dict[str, xr.DataArray]]], bool]:
    """Return what was wanted of each quantity, and whether one array was named."""
    choices.check(wanted)
    of_pixels = choices.mask is not None and is_of_pixels(view, choices.mask)
    found, single = quantities(view, names, choices.calibration)
    events = Events.of(view, choices.by, None if of_pixels else choices.mask, choices.weights)
    pixels = choices.mask if of_pixels else None
    jobs = [Job.of(q, wanted, events, pixels, choices.half_life) for q in found]
    label = ", ".join(q.name for q in found)
    graph = compute.Tasks()
    asked = [job.calls(graph) for job in jobs]
    calls = [call for bins in asked for call in bins if call is not None]
    nodes = iter(graph.computed(calls, label, choices.progress))
    out = []
    for job, bins in zip(jobs, asked, strict=True):
        own = [job.nothing() if d is None else next(nodes) for d in bins]
        counts = [len(numbers) for numbers in job.events.bins]
        out.append((job.quantity, variables(job.quantity, job.request, events.groups, own, counts)))
    return out, single


@dataclass(frozen=True, eq=False)
class Job:
    """The reduction of one quantity.

    Parameters
    ----------
    quantity : Quantity
    request : Request
    events : Events
    """

    quantity: Quantity
    request: Request
    events: Events

    @classmethod
    def of(
        cls, quantity: Quantity, wanted: tuple[Wanted, ...], events: Events, pixel_mask: Any,
        half_life: float | None = None,
    ) -> Job:  # fmt: skip
        """Plan the reduction of a quantity over the events that have it."""
        good = None if pixel_mask is None else pixel_flags(quantity, pixel_mask)
        own = events.having(quantity).fading(half_life)
        request = Request(quantity.frames, quantity.made_of.dtype, wanted, own.weights is not None, good)
        return cls(quantity, request, own)

    def calls(self, graph: compute.Tasks) -> list[Any]:
        """Add the tasks of each bin to a graph; None for a bin without events."""
        work = self.request.work
        everywhere = work if work.small else graph.shared(work)
        together = work.together(len(self.events.bins))
        sizes = [len(numbers) for numbers in self.events.bins]
        shared = [max(sizes)] if together else sizes  # a task takes a piece of every bin, or of one
        nbytes = work.frames.nbytes * (len(sizes) if together else 1)
        level = 0 if work.any_order else compute.task_level(shared, nbytes)
        size = compute.even_pieces(shared, nbytes) if work.any_order else span(level)
        pieces = [self._pieces(k, size) for k in range(len(sizes))]
        run = self._together if together else self._apart
        nodes = run(graph, everywhere, pieces, level + 1)
        merge = partial(graph.call, tasks.merge_nodes)
        return [graph.merged(own, merge) if own else None for own in nodes]

    def _pieces(self, which: int, size: int) -> list[tasks.Piece]:
        """Return the events of a bin in pieces."""
        numbers = self.events.bins[which]
        weights = None if self.events.weights is None else self.events.weights[which]
        return [
            tasks.Piece(numbers[a : a + size], None if weights is None else weights[a : a + size])
            for a in range(0, len(numbers), size)
        ]

    def _apart(self, graph: Any, work: Any, pieces: Pieces, levels: int) -> list[list[Any]]:
        """Add a task for each piece of each bin: large frames are read one by one anyhow."""
        return [[graph.call(tasks.accumulate_piece, work, p, levels) for p in own] for own in pieces]

    def _together(self, graph: Any, work: Any, pieces: Pieces, levels: int) -> list[list[Any]]:
        """Add tasks that take a piece of every bin: small values of all bins lie side by side in a file."""
        nodes: list[list[Any]] = [[] for _ in pieces]
        for number in range(max(map(len, pieces))):
            bins = [k for k, own in enumerate(pieces) if number < len(own)]
            task = graph.call(tasks.accumulate_bins, work, [pieces[k][number] for k in bins], levels)
            for place, k in enumerate(bins):
                nodes[k].append(graph.call(tasks.nodes_of, task, place))
        return nodes

    def nothing(self) -> Nodes:
        """Return the nodes of no events."""
        return tuple(accumulator.node() for accumulator in self.request.work.accumulators(1))


# ---- masks and weights --------------------------------------------------------------------------
def is_of_pixels(view: View, mask: Any) -> bool:
    """Tell whether a mask is one of pixels, not of events."""
    if isinstance(mask, str):
        how = "psana_dask.conditions.events_where(run, text) makes one of text"
        raise TypeError(f"mask={mask!r}: a mask is an array, or a condition such as run.evr.has(90); {how}")
    mask = labelled(mask)
    if isinstance(mask, Condition) or hasattr(mask, "mask"):
        return False
    dims = getattr(mask, "dims", None)
    return "time" not in dims if dims is not None else np.shape(mask) != (len(view.choice),)


def event_mask(view: View, mask: Any) -> Bools:
    """Return which events of a view count."""
    mask = labelled(mask)
    values = mask.mask(view) if hasattr(mask, "mask") else given_values(view, mask)[1]
    return np.asarray(values) != 0


def event_weights(view: View, weights: Any) -> NDArray[np.float64]:
    """Return one weight per event; where none is known the event does not count."""
    values = event_values(view, weights) if isinstance(weights, str) else given_values(view, weights)[1]
    found = np.nan_to_num(np.asarray(values, np.float64), nan=0.0)
    if (found < 0).any():
        raise ValueError(f"weights cannot be negative: {found.min()}")
    return found


def pixel_flags(quantity: Quantity, mask: Any) -> Bools:
    """Return a mask of pixels as (pixel,), in the order of the file."""
    values = np.asarray(getattr(mask, "values", mask)) != 0
    shape = quantity.made_of.shape[1:]
    if values.shape == shape:
        return values.reshape(-1)
    if quantity.assembly is not None and values.shape == quantity.assembly.tables.shape:
        return quantity.assembly.panels(values).reshape(-1)
    raise ValueError(
        f"the mask has shape {values.shape}; pixels of {quantity.name} are {shape}"
        f"{' or ' + str(quantity.lazy.shape[1:]) if quantity.assembly is not None else ''}, "
        "and a mask of events has one value for each event"
    )

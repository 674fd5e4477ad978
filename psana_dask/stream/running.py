"""Reductions that go on: micro-batches are pushed, and the result so far can be had at any time.

The accumulators are those of `Run.reduce`; the events of each bin are numbered as they come, so the
result over all events of a stream has the bits of the closed run's.  A `Snapshot` is the result so far
in a form that travels, and merges with that of another process.
Contract: tests/stream/test_running.py.
"""

from __future__ import annotations

import copy
import itertools
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from psana_dask.analysis.perframe import PerFrame
from psana_dask.choice import Choice
from psana_dask.dataset import View, run_attrs
from psana_dask.errors import NameNotFound
from psana_dask.pipeline import Target
from psana_dask.reductions.calls import (
    FADED,
    Choices,
    Events,
    constants_of,
    fading_weights,
    is_of_pixels,
    pixel_flags,
    together,
)
from psana_dask.reductions.derived import retargeted
from psana_dask.reductions.groups import Axis, Groups
from psana_dask.reductions.moments import LEVELS, Moments
from psana_dask.reductions.quantities import Name, Quantity, check_names, listed, quantities
from psana_dask.reductions.quantities import Wanted as Names
from psana_dask.reductions.results import variables
from psana_dask.reductions.statistics import CUBE, STATISTICS, Histogram, Projection, Request, Wanted
from psana_dask.reductions.tasks import Nodes, Piece, blocks, merge_nodes
from psana_dask.reductions.tiles import Block, Buffers, Frames
from psana_dask.run import Run

if TYPE_CHECKING:
    import xarray as xr

Key = tuple[Any, ...]
"""What the bins of an event are called along each dimension."""


# ---- bins ---------------------------------------------------------------------------------------
class Bins:
    """The bins of a stream: those of each batch, and all so far.

    Parameters
    ----------
    choices : Choices
        Also with functions of the batch (a `Run`) where an array over time would be.

    Raises
    ------
    ValueError
        Bins whose edges depend on all events.
    """

    def __init__(self, choices: Choices) -> None:
        for spec in _specs(choices.by):
            if isinstance(spec, int | np.integer):
                raise ValueError(f"by=(..., {spec}): a stream does not know where its values end; give edges")
        self._choices = choices
        self.axes: tuple[Axis, ...] | None = None

    def of(self, view: View) -> list[tuple[Key, Events]]:
        """Return the events of a batch by bin; bins without events are left out."""
        chosen, mask = self._choices, _asked(self._choices.mask, view)
        mask = None if mask is not None and is_of_pixels(view, mask) else mask
        events = Events.of(view, _asked(chosen.by, view), mask, _asked(chosen.weights, view))
        self.axes = joined(self.axes, events.groups.axes)
        keys = itertools.product(*(axis.labels.tolist() for axis in events.groups.axes))
        none = Groups((), 0)
        weights = events.weights or [None] * len(events.bins)
        return [
            (key, Events(none, (numbers,), None if own is None else (own,)))
            for key, numbers, own in zip(keys, events.bins, weights, strict=True)
            if len(numbers)
        ]


def _specs(by: Any) -> list[Any]:
    """Return the bin edges that a description has."""
    if isinstance(by, Mapping):
        return [e for spec in by.values() for e in _specs(spec)]
    if isinstance(by, tuple) and len(by) == 2 and isinstance(by[1], int | np.integer):
        return [by[1]]
    return [e for spec in by for e in _specs(spec)] if isinstance(by, list) else []


def _asked(what: Any, view: View) -> Any:
    """Return a description with functions of the batch replaced by what they say of it."""
    if isinstance(what, Mapping):
        return {name: _asked(each, view) for name, each in what.items()}
    if isinstance(what, list | tuple):
        return type(what)(_asked(each, view) for each in what)
    if callable(what) and not hasattr(what, "mask") and not hasattr(what, "dtype"):
        return what(Run(view))
    return what


def joined(one: tuple[Axis, ...] | None, two: tuple[Axis, ...]) -> tuple[Axis, ...]:
    """Return the dimensions of two sets of bins together: labels of both."""
    if one is None:
        return tuple(_without_events(axis, axis.labels) for axis in two)
    return tuple(_joined(a, b) for a, b in zip(one, two, strict=True))


def _joined(one: Axis, two: Axis) -> Axis:
    labels = two.labels if np.array_equal(one.labels, two.labels) else np.union1d(one.labels, two.labels)
    fitting = next((a for a in (two, one) if len(a.labels) == len(labels)), None)
    return _without_events(fitting or Axis(one.name, one.codes, labels), labels)


def _without_events(axis: Axis, labels: NDArray[Any]) -> Axis:
    return Axis(axis.name, np.zeros(0, np.int64), labels, axis.coords)


# ---- what is sent -------------------------------------------------------------------------------
@dataclass(frozen=True)
class Form:
    """What an array looks like that lies in another process.

    Parameters
    ----------
    dtype : numpy dtype
    shape, dims : tuple
    panels : int
    panel_shape : tuple of int
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    dims: tuple[str, ...]
    panels: Sequence[int] = ()
    panel_shape: tuple[int, ...] = ()

    def frame_reader(self) -> Form:
        """Return what knows the shape of panels."""
        return self


@dataclass(eq=False)
class ToldFrames(Frames):
    """What results need to know of frames that lie in another process."""

    are_words: bool = True  # type: ignore[misc]

    def __reduce__(self) -> tuple[Any, ...]:
        return ToldFrames, (self.raw, self.tables, {}, self.are_words)


def _told(frames: Frames) -> ToldFrames:
    form: Any = Form(frames.raw.dtype, frames.raw.shape, frames.raw.dims, range(frames.panels), frames.shape)
    return ToldFrames(form, frames.tables, {}, frames.are_words)


def _form(lazy: Any) -> Any:
    return Form(lazy.dtype, tuple(lazy.shape), tuple(lazy.dims))


@dataclass(frozen=True, eq=False)
class Part:
    """What was added of one quantity: nodes, and how many events they are of, by bin."""

    quantity: Quantity
    request: Request
    bins: Mapping[Key, tuple[Nodes, int]]

    def merge(self, other: Part) -> Part:
        """Return both, this one first."""
        bins = dict(self.bins)
        for key, (nodes, events) in other.bins.items():
            before = bins.get(key)
            both = nodes if before is None else merge_nodes([copy.deepcopy(before[0]), nodes])
            bins[key] = (both, events + (0 if before is None else before[1]))
        return Part(self.quantity, self.request, bins)

    def variables(self, axes: tuple[Axis, ...]) -> dict[str, xr.DataArray]:
        """Return what was wanted, by statistic."""
        keys = list(itertools.product(*(axis.labels.tolist() for axis in axes)))
        nothing = None if all(k in self.bins for k in keys) else self._nothing()
        found = [self.bins.get(key, (nothing, 0)) for key in keys]
        nodes: Any = [nodes for nodes, _ in found]
        return variables(self.quantity, self.request, Groups(axes, 0), nodes, [n for _, n in found])

    def _nothing(self) -> Nodes:
        return tuple(accumulator.node() for accumulator in self.request.work.accumulators(1))

    def told(self) -> Part:
        """Return it without the memory that it was read from, and with nodes of its own."""
        quantity = Quantity(
            self.quantity.name, self.quantity.detector, _form(self.quantity.lazy), self.quantity.dims,
            _form(self.quantity.made_of), self.quantity.coords, self.quantity.attrs, self.quantity.assembly,
        )  # fmt: skip
        request = replace(self.request, frames=_told(self.request.frames))
        return Part(quantity, request, copy.deepcopy(dict(self.bins)))


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The result of a reduction so far.

    Parameters
    ----------
    parts : mapping of str to Part
        By quantity.
    axes : tuple of Axis
    several, single : bool
        Several statistics were wanted; one array was.
    attrs : mapping
        Of the run.
    constants : mapping of str to DataArray
    """

    parts: Mapping[str, Part]
    axes: tuple[Axis, ...]
    several: bool
    single: bool
    attrs: Mapping[str, Any]
    constants: Mapping[str, xr.DataArray]

    def merge(self, other: Snapshot) -> Snapshot:
        """Return both, this one first."""
        parts = dict(self.parts)
        for name, part in other.parts.items():
            parts[name] = parts[name].merge(part) if name in parts else part
        constants = {**other.constants, **self.constants}
        return replace(self, parts=parts, axes=joined(self.axes, other.axes), constants=constants)

    def told(self) -> Snapshot:
        """Return it in a form that can be sent."""
        return replace(self, parts={name: part.told() for name, part in self.parts.items()})

    def result(self) -> xr.DataArray | xr.Dataset | None:
        """Return what was wanted; None before the first event."""
        arrays: dict[str, xr.DataArray] = {}
        for name, part in self.parts.items():
            for key, array in part.variables(self.axes).items():
                arrays[f"{name}_{key}" if self.several else name] = array
        if not arrays:
            return None
        if self.single and not self.several:
            return next(iter(arrays.values()))
        return together(arrays, self.attrs).assign_coords(self.constants)


# ---- accumulating -------------------------------------------------------------------------------
@dataclass
class _State:
    """What was pushed of one quantity into one bin."""

    accumulators: list[Any]
    events: int = 0
    newest: float = 0.0  # half-lives that have passed where a fading weight is 1

    def fade_to(self, half_life: float, events: int) -> None:
        """Keep the weights of the next events from growing without end."""
        newest = float((self.events + events) // half_life)
        if newest - self.newest > FADED:
            for accumulator in self.accumulators:
                if isinstance(accumulator, Moments):
                    accumulator.rescale(int(self.newest - newest))
            self.newest = newest


@dataclass
class _Known:
    """What is known of a quantity: looked up once a run."""

    quantity: Quantity
    good: NDArray[np.bool_] | None
    cut: dict[Any, Any] = field(default_factory=dict)
    buffers: Buffers = field(default_factory=Buffers)


class Running:
    """A reduction of micro-batches.

    Parameters
    ----------
    what : str, Histogram, Projection or a list of these
        As in `Run.reduce`.
    names : names, optional
    choices : Choices, optional
        Bins, masks, weights, calibration, half-life.
    window : int, optional
        Only the last batches that have this many events; all by default.
    """

    def __init__(
        self, what: Any, names: Names, choices: Choices | None = None, window: int | None = None
    ) -> None:
        what, names = cube_of(what, names)
        self._several = isinstance(what, list | tuple)
        self._wanted: tuple[Wanted, ...] = tuple(what) if self._several else (what,)
        for wanted in self._wanted:
            if not isinstance(wanted, Histogram | Projection) and wanted not in STATISTICS:
                raise ValueError(f"no statistic {wanted!r}; there are {', '.join(STATISTICS)}")
        self._choices = choices or Choices()
        self._choices.check(self._wanted)
        if window is not None and self._choices.half_life is not None:
            raise ValueError("window= forgets at once and half_life= bit by bit: use one of them")
        self._names, self._window = names, window
        self._bins = Bins(self._choices)
        self._states: dict[str, dict[Key, _State]] = {}
        self._past: dict[str, deque[dict[Key, tuple[Nodes, int]]]] = {}
        self._latest: dict[str, tuple[Quantity, Request]] = {}
        self._known: dict[Any, list[_Known]] = {}
        self._single = False
        self._made_for: Any = None
        self._constants: dict[str, xr.DataArray] = {}
        self._view: View | None = None

    def push(self, view: View) -> None:
        """Add the events of a batch."""
        self._view = view
        bins = self._bins.of(view)
        for known in self._quantities(view):
            quantity = rebound(known.quantity, view)
            request = self._request(known, quantity)
            self._latest[quantity.name] = (quantity, request)
            states = self._states.setdefault(quantity.name, {})
            if self._window is not None:
                states.clear()
            for key, events in bins:
                own = events.having(quantity)
                if key not in states:
                    states[key] = _State(request.work.accumulators(LEVELS))
                self._push(states[key], request.work, own, known)
            if self._window is not None:
                self._keep(quantity.name, states)

    def snapshot(self) -> Snapshot:
        """Return what was wanted of all events so far; it may share memory with what goes on."""
        parts = {
            name: Part(*self._latest[name], self._nodes(name))
            for name, states in self._states.items()
            if states or name in self._past
        }
        attrs = {} if self._view is None else run_attrs(self._view)
        axes = self._bins.axes or ()
        return Snapshot(parts, axes, self._several, self._single, attrs, self._constants)

    def result(self) -> xr.DataArray | xr.Dataset | None:
        """Return what was wanted of all events so far; None before the first."""
        return self.snapshot().result()

    # ---- what is reduced ----------------------------------------------------------------------
    def _quantities(self, view: View) -> list[_Known]:
        """Return the quantities of a batch; constants are looked up once a run."""
        recording = view.recording
        made_for = (recording.number, tuple(len(s.configs) for s in recording.streams))
        if made_for != self._made_for:
            self._made_for, self._known, self._constants = made_for, {}, {}
        for name in listed(view, self._names):
            if name not in self._known:
                self._look_for(view, name)
        return [known for found in self._known.values() for known in found]

    def _look_for(self, view: View, name: Name) -> None:
        """Find what a name means, unless no event had it yet."""
        check_names(view, [name])
        try:
            found, single = quantities(view, name, self._choices.calibration)
        except NameNotFound:
            return
        mask = self._choices.mask
        of_pixels = mask is not None and not callable(mask) and is_of_pixels(view, mask)
        self._known[name] = [_Known(q, pixel_flags(q, mask) if of_pixels else None) for q in found]
        self._single = single and isinstance(self._names, str | tuple | PerFrame)
        if self._several:
            self._constants |= constants_of(view, found)

    def _request(self, known: _Known, quantity: Quantity) -> Request:
        frames = quantity.frames
        if type(frames) is Frames:
            frames = replace(frames, _parts=known.cut)
        weighted = self._choices.weights is not None or self._choices.half_life is not None
        return Request(frames, quantity.made_of.dtype, self._wanted, weighted, known.good)

    # ---- adding -------------------------------------------------------------------------------
    def _push(self, state: _State, work: Any, events: Events, known: _Known) -> None:
        numbers, half_life = events.bins[0], self._choices.half_life
        given = None if events.weights is None else events.weights[0]
        size = len(numbers) if half_life is None else int(half_life * FADED / 4)
        for first in range(0, len(numbers), max(1, size)):
            some = slice(first, first + size)
            weights = None if given is None else given[some]
            if half_life is not None:
                state.fade_to(half_life, len(numbers[some]))
                own = fading_weights(state.events, len(numbers[some]), half_life, state.newest)
                weights = own if weights is None else weights * own
            self._push_piece(state, work, Piece(numbers[some], weights), known.buffers)

    def _push_piece(self, state: _State, work: Any, piece: Piece, buffers: Buffers) -> None:
        for block, later in blocks(piece, work.frames.block):
            placed = Block(block.events, block.weights, state.events)
            for tile in work.frames.tiles(placed, buffers, values=work.values, later=later):
                for accumulator in state.accumulators:
                    accumulator.push(tile)
            for accumulator in state.accumulators:
                accumulator.advance(len(block.events))
            state.events += len(block.events)

    def _keep(self, name: str, states: Mapping[Key, _State]) -> None:
        """Note a batch, and forget those that the window does not need."""
        past = self._past.setdefault(name, deque())
        past.append({key: (_nodes_of(s), s.events) for key, s in states.items()})
        sizes = [sum(n for _, n in batch.values()) for batch in past]
        while len(past) > 1 and sum(sizes) - sizes[0] >= (self._window or 0):
            past.popleft()
            sizes.pop(0)

    def _nodes(self, name: str) -> dict[Key, tuple[Nodes, int]]:
        if self._window is None:
            return {key: (_nodes_of(s), s.events) for key, s in self._states[name].items()}
        found: dict[Key, tuple[Nodes, int]] = {}
        for batch in self._past[name]:
            for key, (nodes, events) in batch.items():
                before, count = found.get(key, (None, 0))
                own = copy.deepcopy(nodes)
                found[key] = (own if before is None else merge_nodes([before, own]), count + events)
        return found


def _nodes_of(state: _State) -> Nodes:
    return tuple(accumulator.node() for accumulator in state.accumulators)


def cube_of(what: Any, names: Names) -> tuple[Any, Names]:
    """Return (statistics, names) where names alone were given: the cube, as in `Run.reduce`."""

    def known(one: Any) -> bool:
        return isinstance(one, Histogram | Projection) or (isinstance(one, str) and one in STATISTICS)

    every = all(map(known, what)) if isinstance(what, list | tuple) else known(what)
    return (what, names) if every or names is not None else (list(CUBE), what)


def rebound(quantity: Quantity, view: View) -> Quantity:
    """Return a quantity that reads from the recording of another batch."""
    return replace(quantity, made_of=retargeted(quantity.made_of, lambda t: rebound_target(t, view)))


def rebound_target(target: Target, view: View) -> Target:
    """Return a target in the recording of another batch, over no events."""
    recording = view.recording
    return replace(
        target, files=recording.files, token=recording.token, held=recording,
        choice=Choice(np.zeros(0, np.int64), view.choice.total),
    )  # fmt: skip

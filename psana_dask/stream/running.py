"""Reductions that go on: micro-batches are pushed, and the result so far can be had at any time.

The accumulators are those of `Run.reduce`; events are numbered as they come, so the result over all
events of a stream has the bits of the closed run's.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from psana_dask.analysis.perframe import PerFrame
from psana_dask.choice import Choice
from psana_dask.dataset import View
from psana_dask.errors import NameNotFound
from psana_dask.pipeline import Target
from psana_dask.reductions.calls import labelled_dataset
from psana_dask.reductions.derived import retargeted
from psana_dask.reductions.groups import Groups
from psana_dask.reductions.moments import LEVELS
from psana_dask.reductions.quantities import Name, Quantity, listed, quantities
from psana_dask.reductions.quantities import Wanted as Names
from psana_dask.reductions.results import variables
from psana_dask.reductions.statistics import CUBE, STATISTICS, Histogram, Projection, Request, Wanted
from psana_dask.reductions.tasks import Piece, blocks, merge_nodes
from psana_dask.reductions.tiles import Block, Buffers

if TYPE_CHECKING:
    import xarray as xr

EVERYTHING = Groups((), 0)


@dataclass
class _State:
    """What was pushed of one quantity."""

    quantity: Quantity
    request: Request
    accumulators: list[Any]
    events: int = 0


class Running:
    """A reduction of micro-batches.

    Parameters
    ----------
    what : str, Histogram, Projection or a list of these
        As in `Run.reduce`.
    names : names, optional
    calibration : mapping, optional
    window : int, optional
        Only the last batches that have this many events; all by default.
    """

    def __init__(
        self,
        what: Any,
        names: Names,
        calibration: Mapping[str, Any] | None = None,
        window: int | None = None,
    ) -> None:
        several = isinstance(what, list | tuple)
        self._several = several
        self._wanted: tuple[Wanted, ...] = tuple(what) if several else (what,)
        for wanted in self._wanted:
            if not isinstance(wanted, Histogram | Projection) and wanted not in STATISTICS:
                raise ValueError(f"no statistic {wanted!r}; there are {', '.join(STATISTICS)}")
        self._names, self._calibration, self._window = names, calibration, window
        self._states: dict[str, _State] = {}
        self._past: dict[str, deque[tuple[int, Any]]] = {}
        self._single = False
        self._made_for: Any = None
        self._templates: dict[Any, list[Quantity]] = {}
        self._view: View | None = None

    def push(self, view: View) -> None:
        """Add the events of a batch."""
        self._view = view
        for quantity in self._quantities(view):
            state = self._states.get(quantity.name)
            if state is None or self._window is not None:
                state = self._begin(quantity)
            self._push(state, quantity, view.choice.numbers)
            if self._window is not None:
                self._keep(quantity.name, state)
            self._states[quantity.name] = state

    def result(self) -> xr.DataArray | xr.Dataset | None:
        """Return what was wanted of all events so far; None before the first."""
        arrays: dict[str, xr.DataArray] = {}
        for name, state in self._states.items():
            nodes, events = self._nodes(name, state)
            made = variables(state.quantity, state.request, EVERYTHING, [nodes], [events])
            for key, array in made.items():
                arrays[f"{name}_{key}" if self._several else name] = array
        if not arrays:
            return None
        if self._single and not self._several:
            return next(iter(arrays.values()))
        assert self._view is not None  # noqa: S101  (there are arrays)
        return labelled_dataset(self._view, arrays)

    def _quantities(self, view: View) -> list[Quantity]:
        """Return the quantities of a batch; constants are looked up once a run."""
        recording = view.recording
        made_for = (recording.number, tuple(len(s.configs) for s in recording.streams))
        if made_for != self._made_for:
            self._made_for, self._templates = made_for, {}
        for name in listed(view, self._names):
            if name not in self._templates:
                self._look_for(view, name)
        return [rebound(q, view) for found in self._templates.values() for q in found]

    def _look_for(self, view: View, name: Name) -> None:
        """Find what a name means, unless no event had it yet."""
        field = name.of if isinstance(name, PerFrame) else name
        detector = field[0] if isinstance(field, tuple) else field.rpartition(".")[0] or field
        if not any(c in detector for c in "*?["):
            view.find(detector)
        try:
            found, single = quantities(view, name, self._calibration)
        except NameNotFound:
            return
        self._templates[name] = found
        self._single = single and isinstance(self._names, str | tuple | PerFrame)

    def _begin(self, quantity: Quantity) -> _State:
        request = Request(quantity.frames, quantity.made_of.dtype, self._wanted)
        return _State(quantity, request, request.work.accumulators(LEVELS))

    def _push(self, state: _State, quantity: Quantity, numbers: Any) -> None:
        own = np.asarray(numbers)[quantity.having(numbers)]
        request = Request(quantity.frames, quantity.made_of.dtype, self._wanted)
        work, buffers = request.work, Buffers()
        for block, later in blocks(Piece(own), work.frames.block):
            placed = Block(block.events, block.weights, state.events)
            for tile in work.frames.tiles(placed, buffers, values=work.values, later=later):
                for accumulator in state.accumulators:
                    accumulator.push(tile)
            for accumulator in state.accumulators:
                accumulator.advance(len(block.events))
            state.events += len(block.events)

    def _keep(self, name: str, state: _State) -> None:
        past = self._past.setdefault(name, deque())
        past.append((state.events, tuple(a.node() for a in state.accumulators)))
        while len(past) > 1 and sum(n for n, _ in past) - past[0][0] >= (self._window or 0):
            past.popleft()

    def _nodes(self, name: str, state: _State) -> tuple[Any, int]:
        if self._window is None:
            return tuple(a.node() for a in state.accumulators), state.events
        past = self._past[name]
        return merge_nodes([copy.deepcopy(nodes) for _, nodes in past]), sum(n for n, _ in past)


def cube_of(what: Any, names: Names) -> tuple[Any, Names]:
    """Return (statistics, names) where names alone were given: the cube, as in `Run.reduce`."""

    def known(one: Any) -> bool:
        return isinstance(one, Histogram | Projection) or (isinstance(one, str) and one in STATISTICS)

    every = all(map(known, what)) if isinstance(what, list | tuple) else known(what)
    return (what, names) if every or names is not None else (list(CUBE), what)


def rebound(quantity: Quantity, view: View) -> Quantity:
    """Return a quantity that reads from the recording of another batch."""
    recording = view.recording

    def change(target: Target) -> Target:
        return replace(
            target, files=recording.files, token=recording.token, held=recording,
            choice=Choice(np.zeros(0, np.int64), view.choice.total),
        )  # fmt: skip

    return replace(quantity, made_of=retargeted(quantity.made_of, change))

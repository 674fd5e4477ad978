"""What is asked of a stream: descriptions that travel to where the events are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from psana_dask.analysis.perframe import PerFrame
from psana_dask.errors import EventNotFound
from psana_dask.reductions.calls import Choices
from psana_dask.reductions.quantities import Wanted as Names
from psana_dask.run import Run
from psana_dask.stream.calling import RunningFunction
from psana_dask.stream.running import Running


@dataclass(frozen=True, eq=False)
class Reduction:
    """A reduction that goes on.

    Parameters
    ----------
    what : str, Histogram, Projection, a list of these, names, or callable
        As in `Run.reduce`.
    names : names, optional
    choices : Choices
    merge : callable, optional
        Of a function.
    window : int, optional
        Of statistics: only the last batches that have this many events.
    """

    what: Any
    names: Names = None
    choices: Choices = field(default_factory=Choices)
    merge: Callable[[Any, Any], Any] | None = None
    window: int | None = None

    def begin(self) -> Running | RunningFunction:
        """Return what batches are pushed into.

        Raises
        ------
        ValueError
            No such statistic, or choices that do not fit it.
        """
        if callable(self.what) and not isinstance(self.what, PerFrame):
            if self.window is not None:
                raise ValueError("window= is for statistics: what a function made is not taken back")
            return RunningFunction(self.what, self.names, self.choices, self.merge)
        if self.merge is not None:
            raise ValueError("merge= belongs to a function; statistics know how to merge")
        return Running(self.what, self.names, self.choices, self.window)


@dataclass(frozen=True, eq=False)
class EachEvent:
    """A function of each event."""

    function: Callable[[Any], Any]
    names: Any = None
    calibration: Mapping[str, Any] | None = None

    def __call__(self, run: Run) -> Any:
        """Return what it makes of a batch, computed in this thread; None if no event has what it is for."""
        import dask

        with dask.config.set(scheduler="synchronous"):
            try:  # what the function itself raises is a FunctionError
                made = run.map(self.function, self.names, calibration=self.calibration)
            except EventNotFound:
                return None
            return made.compute()


# ---- what is done with each batch on the way ------------------------------------------------------
@dataclass(frozen=True, eq=False)
class Selecting:
    """Go on with the events that fulfil a condition.

    Parameters
    ----------
    wanted : condition, or function of the batch that gives a mask
    """

    wanted: Any

    def __call__(self, run: Run) -> Run:
        """Return the events that fulfil it."""
        return chosen(run, self.wanted)


@dataclass(frozen=True, eq=False)
class Noting:
    """Append the times of the events that fulfil a condition to a file, and go on with all.

    Parameters
    ----------
    path : str
    wanted : condition, or function of the batch that gives a mask
    """

    path: str
    wanted: Any

    def __call__(self, run: Run) -> Run:
        """Note them; return all."""
        chosen(run, self.wanted).save_times(self.path)
        return run


def chosen(run: Run, wanted: Any) -> Run:
    """Return the events of a batch that fulfil a condition, or for which a function of the batch says so."""
    called = callable(wanted) and not hasattr(wanted, "mask")
    return run.select(wanted(run) if called else wanted)

"""Reductions over the events of a run: parallel, in one pass, the same bits everywhere.

`Run.mean`, `Run.reduce` and their like are the usual doors; ``docs/reductions.md`` says what
each costs.
"""

from typing import TYPE_CHECKING, Any

from psana_dask.reductions.statistics import STATISTICS, Histogram, Projection

if TYPE_CHECKING:
    from psana_dask.run import Run

__all__ = ["STATISTICS", "Histogram", "Projection", "reduce"]


def reduce(source: "Run", what: Any, names: Any = None, **choices: Any) -> Any:
    """Reduce the events of a run: the same as ``source.reduce(what, names, **choices)``.

    Parameters
    ----------
    source : Run
    what, names, **choices
        See `Run.reduce`.

    Examples
    --------
    >>> psana_dask.reduce(run, "mean", "cspad.image", by="step")
    """
    return source.reduce(what, names, **choices)

"""Tasks on whatever Dask has: threads, processes, one thread, or the client that is active.

A graph holds what all tasks share once, and one entry per task; nodes are merged eight by
eight as they come.  Ctrl-C takes back what was asked for.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from psana_dask.progress import ComputeProgress, active_client, somebody_looks
from psana_dask.reductions.leaves import LEAF, groups, span

TASK_BYTES = 2**30
"""What one task reads, at most, where there are tasks enough for everyone."""

MOST_LEVEL = 5

PATIENCE = 2.0
"""Seconds after which a bar is shown to whoever looks, if nobody said whether to show one."""

PATIENCE = 1.0
"""Seconds after which a bar is shown that nobody asked for."""


def threads() -> int:
    """Return how many tasks run at once."""
    from dask.base import get_scheduler
    from dask.local import get_sync

    client = active_client()
    if client is not None:
        return max(1, sum(client.nthreads().values()))
    return 1 if get_scheduler() is get_sync else os.cpu_count() or 1


def task_level(events: Sequence[int], nbytes: int) -> int:
    """Return the level of the tree that tasks cover; it never changes a result.

    Parameters
    ----------
    events : sequence of int
        Of each bin.
    nbytes : int
        Bytes of an event.
    """
    level = 0
    while level < MOST_LEVEL and span(level + 1) * max(1, nbytes) <= TASK_BYTES:
        level += 1
    wanted = threads()
    while level and sum(-(-n // span(level)) for n in events) < wanted and max(events, default=0) > LEAF:
        level -= 1
    return level


def merged(nodes: Sequence[Any], together: Callable[[list[Any]], Any]) -> Any:
    """Return delayed nodes merged, eight by eight; `together` is a delayed function of some of them."""
    while len(nodes) > 1:
        nodes = [group[0] if len(group) == 1 else together(list(group)) for group in groups(nodes)]
    return nodes[0]


def shared(value: Any) -> Any:
    """Return a value that all tasks get from one place in the graph."""
    import dask

    return dask.delayed(value, pure=False, traverse=False)


def computed(delayed: Sequence[Any], label: str, progress: bool | None) -> list[Any]:
    """Compute delayed values where Dask computes now.

    Parameters
    ----------
    delayed : sequence of Delayed
    label : str
        What a progress bar says.
    progress : bool, optional
        Show a bar; by default in a terminal or a notebook, if it takes longer than a second.
    """
    if not delayed:
        return []
    with _quiet(), _bar(label, progress):
        client = active_client()
        return _here(delayed) if client is None else _on_client(client, delayed)


def _here(delayed: Sequence[Any]) -> list[Any]:
    import dask

    return list(dask.compute(*delayed, optimize_graph=False))


def _on_client(client: Any, delayed: Sequence[Any]) -> list[Any]:
    """Compute on a client; whatever stops this process from waiting takes the tasks back."""
    futures = client.compute(list(delayed), optimize_graph=False)
    try:
        return list(client.gather(futures))
    except BaseException:
        client.cancel(futures)
        raise


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Dask from warning that constants are large: they are in the graph once."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sending large graph", category=UserWarning)
        yield


def _bar(label: str, progress: bool | None) -> Any:
    if progress is False or (progress is None and not somebody_looks()):
        return nullcontext()
    return ComputeProgress(label, after=0 if progress else PATIENCE)

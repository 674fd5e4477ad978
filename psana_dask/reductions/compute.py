"""Tasks on whatever Dask has: threads, processes, one thread, or the client that is active.

A graph holds what all tasks share once, and one entry per task; nodes are merged eight by
eight as they come.  Ctrl-C takes back what was asked for.
"""

from __future__ import annotations

import os
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import dask
from dask._task_spec import DataNode, List, Task, TaskRef
from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph, MaterializedLayer

from psana_dask.progress import ComputeProgress, active_client, somebody_looks
from psana_dask.reductions.leaves import LEAF, groups, span

TASK_BYTES = 2**30
"""What one task reads, at most, where there are tasks enough for everyone."""

EXACT_TASK_BYTES = 2**31
"""The same where events are added in any order, which costs little more than reading them."""

MOST_LEVEL = 5

FEW = 2
"""Tasks for each thread that the scheduler does not spread evenly by itself; more it does."""

PATIENT_SHARE = 1.3
"""How much longer than everybody's equal share the busiest worker may take."""

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

    As large as `TASK_BYTES` allows, but small enough that nobody waits for long for the last task.

    Parameters
    ----------
    events : sequence of int
        Of each bin.
    nbytes : int
        Bytes of an event.
    """
    level, workers, total = 0, threads(), sum(events)
    while level < MOST_LEVEL and span(level + 1) * max(1, nbytes) <= TASK_BYTES:
        level += 1
    while level and _longest(events, span(level), workers) > PATIENT_SHARE * total / workers:
        level -= 1
    return level


def _longest(events: Sequence[int], size: int, workers: int) -> int:
    """Return about how many events the busiest worker has, if tasks have up to `size` of them."""
    tasks = sum(-(-n // size) for n in events)
    return min(size, max(events, default=0)) * -(-tasks // workers)


def even_pieces(events: Sequence[int], nbytes: int) -> int:
    """Return the events of a task where their order does not matter: as many for every worker."""
    most = max(LEAF, EXACT_TASK_BYTES // max(1, nbytes))
    rounds = max(1, -(-sum(events) // (threads() * most)))
    each = -(-sum(events) // (threads() * rounds))
    return max(LEAF, -(-each // LEAF) * LEAF)


class Tasks:
    """A graph in the making: values that all tasks share, and calls.

    A graph of many thousand tasks is made in a second; `dask.delayed` would take several.
    """

    def __init__(self) -> None:
        self._name = f"psana_dask-{uuid.uuid4().hex[:12]}"
        self._graph: dict[Any, Any] = {}
        self._values: set[Any] = set()
        self._leaves: list[Any] = []

    def shared(self, value: Any) -> TaskRef:
        """Add a value that a worker gets once."""
        key = (f"{self._name}-shared", len(self._graph))
        self._graph[key] = DataNode(key, value)
        self._values.add(key)
        return TaskRef(key)

    def call(self, function: Callable[..., Any], *arguments: Any) -> TaskRef:
        """Add a call; arguments may be what other calls return, also in a list."""
        key = (f"{self._name}-{function.__name__}", len(self._graph))
        given = [List(*a) if isinstance(a, list) else a for a in arguments]
        task = self._graph[key] = Task(key, function, *given)
        if task.dependencies <= self._values:
            self._leaves.append(key)
        return TaskRef(key)

    def merged(self, nodes: Sequence[TaskRef], together: Callable[[list[TaskRef]], TaskRef]) -> TaskRef:
        """Add the merge of nodes, eight by eight."""
        while len(nodes) > 1:
            nodes = [group[0] if len(group) == 1 else together(list(group)) for group in groups(nodes)]
        return nodes[0]

    def delayed(self, wanted: Sequence[TaskRef]) -> list[Delayed]:
        """Return what some calls return, as Dask values of one graph."""
        layer = MaterializedLayer(self._graph, annotations=self._places(active_client()))
        graph = HighLevelGraph({self._name: layer}, {self._name: set()})
        return [Delayed(ref.key, graph, layer=self._name) for ref in wanted]

    def _places(self, client: Any) -> dict[str, Any] | None:
        """Return what spreads few first tasks evenly over the workers; neighbours go to one worker.

        By itself the scheduler sends such tasks to the worker that has the values they share,
        and the others wait; many tasks it spreads.
        """
        workers = [] if client is None else sorted(client.nthreads())
        if not workers or len(self._leaves) > FEW * threads():
            return None
        count = len(self._leaves)
        place = {key: [workers[k * len(workers) // count]] for k, key in enumerate(self._leaves)}
        return {"workers": place.get, "allow_other_workers": True}

    def computed(self, wanted: Sequence[TaskRef], label: str, progress: bool | None) -> list[Any]:
        """Compute what some calls return where Dask computes now.

        Parameters
        ----------
        wanted : sequence of TaskRef
        label : str
            What a progress bar says.
        progress : bool, optional
            Show a bar; by default where somebody looks, if it takes long.
        """
        if not wanted:
            return []
        with _quiet(), _bar(label, progress):
            client = active_client()
            found = self.delayed(wanted)
            return _here(found) if client is None else _on_client(client, found)


def _here(delayed: Sequence[Delayed]) -> list[Any]:
    return list(dask.compute(*delayed, optimize_graph=False))


def _on_client(client: Any, delayed: Sequence[Delayed]) -> list[Any]:
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

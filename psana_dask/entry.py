"""From a source of any kind to a run or a stream: what `psana_dask.open` does."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from psana_dask.errors import refuse_unknown
from psana_dask.opening import Source, open_run

if TYPE_CHECKING:
    from psana_dask.run import Run
    from psana_dask.stream import Stream

STREAMS = ("tcp://", "shmem://", "replay://")
"""How the names of streams begin."""


def open_source(source: Source, run: int | None = None, **options: Any) -> Run | Stream:
    """Open a run or a stream.

    Parameters
    ----------
    source : str, path or list of them
        ``tcp://host:port``, ``shmem://[HOST/]TAG``, ``replay://RUN`` and lists of these are streams (see
        `open_stream`), ``live:RUN`` is a run that is being written, everything else a run (see `open_run`).
    run : int, optional
        Run number.
    **options
        Of `open_run` or `open_stream`.

    Returns
    -------
    Run or Stream
        Both have ``detectors``, ``events``, ``epics``, ``dataset``, ``select``, ``map``, ``reduce`` and
        ``follow``.

    Examples
    --------
    >>> run = psana_dask.open("exp=xpptut15:run=54")
    >>> stream = psana_dask.open("shmem://TAG", calib="calib", policy="latest")
    """
    if is_stream(source):
        from psana_dask.stream import open_stream

        if run is not None:
            raise ValueError("a stream has no run= to choose: it delivers the run that is taken")
        _check(open_stream, options)
        return open_stream(source, **options)  # type: ignore[arg-type]  # `is_stream` made sure
    _check(open_run, options)
    if isinstance(source, str) and source.startswith("live:"):
        return open_run(source.removeprefix("live:"), run, live=True, **options)
    return open_run(source, run, **options)


def _check(opens: Callable[..., Any], options: Iterable[str]) -> None:
    known = (p.name for p in inspect.signature(opens).parameters.values() if p.kind is p.KEYWORD_ONLY)
    refuse_unknown("psana_dask.open", options, known)


def is_stream(source: Any) -> bool:
    """Return whether a source, or each of a list, is named as a stream.

    Raises
    ------
    ValueError
        Streams and files in one list.
    """
    several = [source] if isinstance(source, str) else source if isinstance(source, list | tuple) else []
    kinds = [isinstance(each, str) and each.startswith(STREAMS) for each in several]
    if any(kinds) and not all(kinds):
        raise ValueError("streams and files in one list: use open_stream, with live: or replay:// for files")
    return any(kinds)

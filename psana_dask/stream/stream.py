"""A stream of events from elsewhere, with the face of a run."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any

from psana_dask.dataset import run_dataset
from psana_dask.errors import DroppedWarning, ReadError
from psana_dask.evr import Evr
from psana_dask.reductions.calls import Choices
from psana_dask.reductions.quantities import Wanted as Names
from psana_dask.run import Run
from psana_dask.slow import Epics
from psana_dask.stream.asked import EachEvent, Noting, Reduction, Selecting
from psana_dask.stream.batches import BATCH, POLICIES, TIMEOUT, Batches, Counters, gathering
from psana_dask.stream.opened import TAPS, Opening, shared
from psana_dask.stream.received import Received, Shown
from psana_dask.stream.several import Several
from psana_dask.stream.taps import Tap
from psana_dask.stream.workers import OnWorkers

if TYPE_CHECKING:
    import xarray as xr

    from psana_dask.readouts import LiveReadouts

__all__ = ["POLICIES", "Counters", "Stream", "open_stream"]


def open_stream(
    source: str | os.PathLike[str] | Sequence[str],
    *,
    calib: Any = None,
    detectors: Iterable[str] | None = None,
    damaged: str = "missing",
    experiment: str | None = None,
    policy: str = "complete",
    waiting: int | None = None,
    timeout: float = 10.0,
    client: Any = None,
    readers: int = 1,
) -> Stream:
    """Open a stream of events.

    Parameters
    ----------
    source : str, path or list of str
        ``shmem://TAG`` (a monitoring server on this machine), ``shmem://HOST/TAG``, ``tcp://host:port``
        (`psana-dask serve --zmq`), ``live:RUN`` (files that are being written), ``replay://RUN`` and
        ``replay://RUN?rate=120&loop`` (a closed run as if it were taken now), or a run, such as
        ``exp=xpptut15:run=54``. A list of them is one stream.
    calib, detectors, damaged
        As in `psana_dask.open`.
    experiment : str, optional
        Of ``shmem://`` and ``tcp://``: its name, which datagrams of LCLS-1 do not say.
    policy : {"complete", "latest"}
        When events come faster than they are processed: "complete" lets the sender wait (or, where
        it does not wait, as shared memory, lets it drop them); "latest" drops the oldest, counted.
    waiting : int, optional
        Events that may wait. By default 4096 under "complete" (and a 16th of the memory of the machine, at
        least 256 MB and at most 2 GB of them), 256 under "latest" (and 256 MB).
    timeout : float
        Seconds that the server gets to appear.
    client : distributed.Client or str, optional
        Its workers read: each source on a worker of its machine. The address of a scheduler, or
        ``"local"``, will do. The active client by default, if `source` is a list; else this process.
    readers : int
        Workers that share each source, with a client.

    Returns
    -------
    Stream

    Raises
    ------
    ReadError
        No server, or no worker on its machine.

    Examples
    --------
    >>> with open_stream("tcp://daq-node:5555") as stream:
    ...     for events in stream.follow("epixquad.raw"):
    ...         print(events.sizes["time"], stream.counters.dropped)
    >>> stream = open_stream(["shmem://node1/AMO", "shmem://node2/AMO"], client=client)
    """
    if readers < 1 or (readers > 1 and client is None):
        raise ValueError(f"readers={readers}: 1 or more, and more than 1 with client=")
    only = detectors if isinstance(detectors, str) or detectors is None else list(detectors)
    options: dict[str, Any] = {"calib": calib, "detectors": only, "damaged": damaged, "policy": policy}
    options |= {"experiment": experiment, "waiting": waiting, "timeout": timeout}
    if hasattr(source, "files"):
        raise TypeError("a Run is no source: name it as for psana_dask.open, or use run.follow(...)")
    one = isinstance(source, str | os.PathLike)
    several = [os.fspath(source)] if isinstance(source, str | os.PathLike) else [str(s) for s in source]
    if not several:
        raise ValueError("no source: name one at least")
    for each in several:
        if "://" in each and not each.startswith((*TAPS, "replay://")):
            raise ValueError(f"{each!r} is no stream: those begin with {', '.join(TAPS)} or replay://")
    openings = [o for each in several for o in shared(Opening(each, options), readers)]
    if client is None and not one:
        from psana_dask.progress import active_client

        client = active_client()
    if client is not None:
        return Stream(OnWorkers(_client(client), openings))
    opened = [opening.batches() for opening in openings]
    return Stream(opened[0] if len(opened) == 1 else Several(opened))


def _client(client: Any) -> Any:
    """Return a client; it stays open where only its address was given."""
    if not isinstance(client, str):
        return client
    from distributed import Client

    return Client() if client == "local" else Client(client)


class Stream:
    """Events that come from elsewhere. Made by `open_stream`; close it, or use ``with``.

    Detectors are attributes and items, as on a `Run`: they are those of the latest batch.

    Parameters
    ----------
    source : Batches or Tap
    calib, only, keep_damaged, policy, waiting
        Of a tap: as `open_stream` takes them.

    Examples
    --------
    >>> stream = psana_dask.open("shmem://TAG")
    >>> stream.follow("epixquad.raw")
    """

    def __init__(
        self,
        source: Batches | Tap,
        *,
        calib: Any = None,
        only: Sequence[str] | None = None,
        keep_damaged: bool = False,
        policy: str = "complete",
        waiting: int | None = None,
        _steps: tuple[Callable[[Run], Run], ...] = (),
    ) -> None:
        shown = Shown(calib, None if only is None else tuple(only), keep_damaged)
        self._batches: Batches = (
            Received(source, shown, policy, waiting) if isinstance(source, Tap) else source
        )
        self._steps = _steps
        self.policy = self._batches.policy

    # ---- life ---------------------------------------------------------------------------------
    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop receiving.

        Examples
        --------
        >>> stream.close()
        """
        self._batches.close()

    @property
    def counters(self) -> Counters:
        """What became of the events so far.

        Examples
        --------
        >>> stream.counters.processed, stream.counters.dropped
        """
        return self._batches.counters

    # ---- batches ------------------------------------------------------------------------------
    def follow_runs(
        self, *, batch: int = BATCH, timeout: float | None = TIMEOUT, gather: float = 0.0
    ) -> Iterator[Run]:
        """Yield the events in micro-batches, each as a Run: with detectors, EPICS, steps, problems.

        Parameters
        ----------
        batch : int
            Events in a batch, at most, and 64 MiB: what is there is given out at once.
        timeout : float, optional
            Seconds without an event after which the stream is given up, with a `StreamWarning`.
        gather : float
            Seconds between batches that are not full, at least: larger ones cost less per event.

        Examples
        --------
        >>> for part in stream.follow_runs(batch=16):
        ...     print(len(part))
        """
        if batch < 1:
            raise ValueError(f"batch={batch}: use 1 or more")
        for run in self._batches.runs(batch, timeout, gather):
            chosen = reduce(lambda r, step: step(r), self._steps, run)
            if len(chosen):
                yield chosen

    def follow(
        self,
        names: Any = None,
        *,
        batch: int = BATCH,
        timeout: float | None = TIMEOUT,
        join: str | None = None,
        chunks: Any = None,
    ) -> Iterator[xr.Dataset]:
        """Yield the events as Datasets, as `Run.follow` does.

        Examples
        --------
        >>> for events in stream.follow(["gmd", "epixquad.raw"], batch=16):
        ...     print(events.time.values[-1])
        """
        for run in self.follow_runs(batch=batch, timeout=timeout):
            events = _dataset(run, names, join, chunks)
            if events.sizes["time"]:
                yield events

    def group_by_readout(self, detector: str, which: str = "before") -> LiveReadouts:
        """Group the events by the readouts of a slow detector that integrates; see `Run.group_by_readout`.

        Parameters
        ----------
        detector : str
            In any spelling.
        which : {"before", "after"}
            Events since the readout before, itself included; or from a readout up to the next.

        Returns
        -------
        LiveReadouts
            ``.follow(batch=, timeout=)`` yields each window as a Run, once its end was seen.

        Examples
        --------
        >>> for window in stream.group_by_readout("andor").follow():
        ...     print(window.stop, window.sum("gmd.milliJoulesPerPulse").item())
        """
        from psana_dask.readouts import WHICH, LiveReadouts

        if which not in WHICH:
            raise ValueError(f'which={which!r}: use "before" (events since the readout before) or "after"')
        return LiveReadouts(self, detector, which, Run)

    def dataset(self, names: Any = None, *, join: str | None = None, chunks: Any = None) -> xr.Dataset:
        """Return the latest batch as a Dataset, as `Run.dataset` makes it; waits for the first one.

        Examples
        --------
        >>> stream.dataset("gmd")
        """
        return _dataset(self.latest, names, join, chunks)

    @property
    def latest(self) -> Run:
        """The latest batch; waits for the first one if nothing was taken from the stream yet.

        Examples
        --------
        >>> stream.latest.epixquad.raw[0]
        """
        found = self._batches.peek()
        if found is None:
            raise ReadError("the stream ended before its first event")
        return found

    # ---- what is in it ------------------------------------------------------------------------
    @property
    def detectors(self) -> Mapping[str, Any]:
        """Detectors by name.

        Examples
        --------
        >>> list(stream.detectors)
        """
        return self.latest.detectors

    @property
    def epics(self) -> Epics:
        """EPICS variables.

        Examples
        --------
        >>> stream.epics["TST:SAMPLE:TEMP"]
        """
        return self.latest.epics

    @property
    def evr(self) -> Evr:
        """Event codes; ``stream.evr.has(90, -162)`` is a condition for `select`.

        Examples
        --------
        >>> stream.select(lambda batch: batch.evr.has(90))
        """
        return self.latest.evr

    @property
    def events(self) -> xr.Dataset:
        """The event table of the latest batch.

        Examples
        --------
        >>> stream.events.time
        """
        return self.latest.events

    @property
    def format(self) -> str:
        """File format of the datagrams: ``"xtc2"`` or ``"xtc"``.

        Examples
        --------
        >>> stream.format
        """
        return self._batches.form

    def __getitem__(self, name: str | tuple[str, str]) -> Any:
        return self.latest[name]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.latest, name)

    # ---- work ---------------------------------------------------------------------------------
    def select(self, wanted: Any) -> Stream:
        """Return the stream with fewer events: those of each batch that fulfil a condition.

        Parameters
        ----------
        wanted : condition or callable
            Such as ``stream.evr.has(90, -162)``, or a function of the batch (a `Run`) that gives a mask.

        Examples
        --------
        >>> laser = stream.select(stream.evr.has(90, -162))
        """
        return Stream(self._batches, _steps=(*self._steps, Selecting(wanted)))

    def save_times(self, path: Any, wanted: Any) -> Stream:
        """Return the same stream, which appends the times of interesting events to a file as they go by.

        Parameters
        ----------
        path : path
            Read it with ``psana_dask.times(path)``, or jump to its events: ``run.select(path)``. It may be
            written by several processes, and read while it is written.
        wanted : condition or callable
            As for `select`.

        Examples
        --------
        >>> def bright(run):
        ...     return run.gmd.energy.values > 3
        >>> for image in stream.save_times("bright.times", bright).reduce("mean", "epix.image"):
        ...     show(image)
        >>> psana_dask.open("exp=tstx00117:run=5").select("bright.times")
        """
        return Stream(self._batches, _steps=(*self._steps, Noting(os.path.abspath(path), wanted)))

    def map(
        self,
        function: Callable[[xr.Dataset], Any],
        names: Names = None,
        *,
        calibration: Mapping[str, Any] | None = None,
        batch: int = BATCH,
        timeout: float | None = TIMEOUT,
    ) -> Iterator[Any]:
        """Yield what a function makes of each batch, computed; see `Run.map`.

        Examples
        --------
        >>> for sums in stream.map(lambda ds: ds.epixquad_raw.sum(("panel", "row", "col")), "epixquad.raw"):
        ...     print(sums.values)
        """
        each = EachEvent(function, names, calibration)
        if isinstance(self._batches, OnWorkers):
            yield from self._batches.mapped(each, self._steps, batch, timeout)
            return
        for run in self.follow_runs(batch=batch, timeout=timeout):
            if (made := each(run)) is not None:
                yield made

    def reduce(
        self,
        what: Any,
        names: Names = None,
        *,
        by: Any = None,
        mask: Any = None,
        weights: Any = None,
        calibration: Mapping[str, Any] | None = None,
        merge: Callable[[Any, Any], Any] | None = None,
        half_life: float | None = None,
        window: int | None = None,
        every: float = 1.0,
        batch: int = BATCH,
        timeout: float | None = TIMEOUT,
    ) -> Iterator[Any]:
        """Yield the result so far, again and again; the last one is of all events.

        Parameters
        ----------
        what, names, calibration, merge
            As in `Run.reduce`: statistics, histograms, projections, or a function.
        by, mask, weights
            As in `Run.reduce`. Instead of an array over time: a function of the batch (a `Run`) that
            gives one. Bins that are not known before are added as they come.
        half_life : float, optional
            Of means and variances: an event counts half of one that came so many events later.
        window : int, optional
            Only the last batches that have this many events. All events by default.
        every : float
            Seconds between results; events are gathered for up to a quarter of it.
        batch, timeout
            As for `follow_runs`.

        Yields
        ------
        DataArray or Dataset
            As `Run.reduce` returns; over all events of a run it has the bits of the closed run's.

        Examples
        --------
        >>> for image in stream.reduce("mean", "epixquad.image", every=1.0):
        ...     print(float(image.max()))
        """
        choices = Choices(by, mask, weights, calibration, None, half_life)
        reduction = Reduction(what, names, choices, merge, window)
        if isinstance(self._batches, OnWorkers):
            yield from self._batches.reduced(reduction, self._steps, batch, timeout, every)
            return
        running = reduction.begin()
        due, fresh = time.monotonic(), False
        for run in self.follow_runs(batch=batch, timeout=timeout, gather=gathering(every)):
            running.push(run._view)
            fresh = True
            if time.monotonic() >= due:
                yield running.result()
                due, fresh = time.monotonic() + every, False
        if fresh:
            yield running.result()

    def _whole(self, which: str, names: Names, choices: Mapping[str, Any]) -> Any:
        """Return a statistic of all events until the stream ends."""
        last = None
        for last in self.reduce(which, names, **{"every": float("inf"), **choices}):  # noqa: B007
            pass
        if last is None:
            raise ReadError("the stream ended before its first event")
        return last

    def mean(self, names: Names = None, **choices: Any) -> Any:
        """Return the mean over all events, when the stream has ended; choices as for `reduce`.

        Examples
        --------
        >>> stream.mean("epixquad.image")
        """
        return self._whole("mean", names, choices)

    def std(self, names: Names = None, **choices: Any) -> Any:
        """Return the standard deviation over all events, when the stream has ended.

        Examples
        --------
        >>> stream.std("epixquad.calib")
        """
        return self._whole("std", names, choices)

    def var(self, names: Names = None, **choices: Any) -> Any:
        """Return the variance over all events, when the stream has ended.

        Examples
        --------
        >>> stream.var("epixquad.calib")
        """
        return self._whole("var", names, choices)

    def sum(self, names: Names = None, **choices: Any) -> Any:
        """Return the sum over all events, when the stream has ended.

        Examples
        --------
        >>> stream.sum("epixquad.raw")
        """
        return self._whole("sum", names, choices)

    def min(self, names: Names = None, **choices: Any) -> Any:
        """Return the least values of all events, when the stream has ended.

        Examples
        --------
        >>> stream.min("epixquad.raw")
        """
        return self._whole("min", names, choices)

    def max(self, names: Names = None, **choices: Any) -> Any:
        """Return the greatest values of all events, when the stream has ended.

        Examples
        --------
        >>> stream.max("epixquad.raw")
        """
        return self._whole("max", names, choices)

    def count(self, names: Names = None, **choices: Any) -> Any:
        """Return how many events have each pixel, when the stream has ended.

        Examples
        --------
        >>> stream.count("epixquad.raw")
        """
        return self._whole("count", names, choices)

    def __repr__(self) -> str:
        c = self.counters
        counts = ", ".join(f"{value:,} {name}" for name, value in vars(c).items() if value or name in _SHOWN)
        return f"<stream of {self.format}, policy {self.policy}: {counts or 'nothing yet'}>"


_SHOWN = ("received", "processed", "dropped")


def _dataset(run: Run, names: Any, join: str | None, chunks: Any) -> xr.Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DroppedWarning)
        return run_dataset(run._view, names, join, chunks, absent_too=True)

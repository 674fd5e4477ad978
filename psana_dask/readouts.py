"""Integrating detectors: the events that one readout of a slow detector stands for.

A detector that integrates is read out now and then, and its frame holds what came since the
readout before.  A window is those events: all behind one readout, up to and with the
next (or, where the clock of the detector says so, from a readout up to the next).
Contract: tests/test_readouts.py.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from psana_dask.choice import Choice
from psana_dask.dataset import Names, View, chosen_fields, field_attrs, main_channel
from psana_dask.errors import DroppedWarning, NameNotFound
from psana_dask.fields import any_panel
from psana_dask.follow import follow
from psana_dask.pipeline import FrameArray, PresenceArray
from psana_dask.reductions.leaves import FAN, LEAF

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

WHICH = ("before", "after")


def readout_positions(view: View, detector: str) -> Ints:
    """Return the positions of the events of a view that have a detector."""
    entry = view.find(detector)
    there = [f for f, channel in entry.channels.items() if view.exists(channel)]
    main = main_channel(entry, there)
    if main is None:
        return np.zeros(0, np.int64)
    return np.flatnonzero(PresenceArray(view.target(entry.channels[main]), per_panel=False)[...])


def window_numbers(events: int, readouts: Ints, which: str) -> Ints:
    """Return the window of each event; -1 for events that no readout stands for.

    Parameters
    ----------
    events : int
        How many.
    readouts : (readout,) int64
        Positions of the events with a readout, ascending.
    which : {"before", "after"}
        Events up to and with the readout, or from it on.
    """
    positions = np.arange(events)
    if which == "after":
        return np.searchsorted(readouts, positions, side="right") - 1
    numbers = np.searchsorted(readouts, positions, side="left")
    return np.where(numbers < len(readouts), numbers, -1)


def leaf_sums(values: npt.NDArray[np.float64], window: Ints, counts: Ints) -> npt.NDArray[np.float64]:
    """Return the sum of each window, with the leaves and the tree of `Run.reduce`: the same bits.

    Sixteen values in order, then eight by eight.

    Parameters
    ----------
    values : (event,) float64
    window : (event,) int64
        Ascending.
    counts : (window,) int64
        Events of each window.
    """
    place = np.arange(len(values)) - (np.cumsum(counts) - counts)[window]
    width, at = int(-(-counts.max() // LEAF)), place // LEAF
    level = np.bincount(window * width + at, weights=values, minlength=len(counts) * width)
    while width > 1:
        owner, at = np.divmod(np.arange(len(level)), width)
        width = -(-width // FAN)
        level = np.bincount(owner * width + at // FAN, weights=level, minlength=len(counts) * width)
    return np.asarray(level, np.float64)


@dataclass(frozen=True, eq=False)
class Readouts:
    """The events of a run, grouped by the readouts of a detector; made by `Run.group_by_readout`.

    Looping gives each window as a Run.

    Parameters
    ----------
    run : Run
    view : View
        Of the run.
    detector : str
    which : {"before", "after"}
    make : callable
        From a View to a Run.

    Examples
    --------
    >>> readouts = run.group_by_readout("opal")
    >>> readouts.mean("gmd")
    """

    run: Any
    view: View
    detector: str
    which: str
    make: Callable[[View], Any]

    @cached_property
    def positions(self) -> Ints:
        """Positions of the events with a readout, (readout,).

        Examples
        --------
        >>> readouts.positions
        """
        found = readout_positions(self.view, self.detector)
        if not len(found):
            raise NameNotFound(f"no event has {self.detector}: there are no readouts to group by")
        return found

    @cached_property
    def window(self) -> Ints:
        """Window of each event, (event,); -1 where there is none.

        Examples
        --------
        >>> readouts.window
        """
        return window_numbers(len(self.view.choice), self.positions, self.which)

    @property
    def complete(self) -> Bools:
        """Whether both ends of each window are in the run, (readout,).

        Examples
        --------
        >>> readouts.complete.all()
        """
        whole = np.ones(len(self), bool)
        whole[0 if self.which == "before" else -1] = False
        return whole

    @property
    def table(self) -> pd.DataFrame:
        """One row for each readout: first and last event, number of events, complete or not.

        Examples
        --------
        >>> readouts.table
        """
        import pandas as pd

        inside = np.flatnonzero(self.window >= 0)
        numbers, first, counts = np.unique(self.window[inside], return_index=True, return_counts=True)
        time = self.view.time
        columns = {
            "start": time[inside[first]],
            "stop": time[inside[first + counts - 1]],
            "events": counts,
            "complete": self.complete[numbers],
        }
        return pd.DataFrame(columns, index=pd.DatetimeIndex(time[self.positions], name="readout"))

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, number: int) -> Any:
        whole = range(len(self))[number]
        return self._run(np.flatnonzero(self.window == whole))

    def __iter__(self) -> Iterator[Any]:
        inside = np.flatnonzero(self.window >= 0)
        ends = np.flatnonzero(np.diff(self.window[inside])) + 1
        yield from map(self._run, np.split(inside, ends))

    def _run(self, positions: Ints) -> Any:
        choice = Choice(self.view.choice.numbers[positions], self.view.choice.total)
        return self.make(replace(self.view, choice=choice))

    # ---- what a window holds ------------------------------------------------------------------
    def reduce(self, what: Any, names: Names = None, **choices: Any) -> Any:
        """Reduce each window: as `Run.reduce`, with the dimension ``readout`` (times of the readouts).

        The coordinate ``complete`` says which windows have both their ends in the run.

        Examples
        --------
        >>> readouts.reduce(["mean", "count"], "gmd")
        """
        import xarray as xr

        codes = np.where(self.window < 0, np.nan, self.window.astype(float))
        by = xr.DataArray(codes, {"time": self.view.time}, ("time",), name="readout")
        found = self.run.reduce(what, names, by=by, **choices)
        numbers = found["readout"].values.astype(int)
        time = self.view.time[self.positions][numbers]
        return found.assign_coords(readout=time, complete=("readout", self.complete[numbers]))

    def sum(self, names: Names = None, **choices: Any) -> Any:
        """Return the sum over each window.

        Examples
        --------
        >>> readouts.sum("gmd")
        """
        return self._statistic("sum", names, choices)

    def mean(self, names: Names = None, **choices: Any) -> Any:
        """Return the mean over each window.

        Examples
        --------
        >>> readouts.mean("gmd.milliJoulesPerPulse")
        """
        return self._statistic("mean", names, choices)

    def count(self, names: Names = None, **choices: Any) -> Any:
        """Return how many events of each window have the detectors.

        Examples
        --------
        >>> readouts.count("gmd")
        """
        return self._statistic("count", names, choices)

    def _statistic(self, what: str, names: Names, choices: dict[str, Any]) -> Any:
        """Reduce; one floating-point number per event at once, instead of a task for each window."""
        if not choices and isinstance(names, str) and (column := self._column(names)) is not None:
            return self._of_column(what, names, *column)
        return self.reduce(what, names, **choices)

    def _column(self, name: str) -> tuple[npt.NDArray[np.float64], Ints] | None:
        """Return a scalar field of the events that have it, and their windows; None if it is none.

        Also None where a window has nothing, or a value is NaN: `Run.reduce` knows what these mean.
        """
        chosen = chosen_fields(self.view, name)
        (detector, fields) = next(iter(chosen.items()))
        entry = self.view.entries[detector]
        if (
            len(chosen) > 1
            or len(fields) > 1
            or "." not in name
            or not self.view.exists(entry.channels[fields[0]])
        ):
            return None
        lazy = self.view.arrays(entry, fields[0]).get(fields[0])
        if not isinstance(lazy, FrameArray) or lazy.dims != ("time",) or lazy.dtype.kind != "f":
            return None
        there = any_panel(lazy.target.reader().present(self.view.choice.numbers)) & (self.window >= 0)
        values, window = np.asarray(lazy[...], np.float64)[there], self.window[there]
        full = np.bincount(window, minlength=len(self)).all() and np.isfinite(values).all()
        return (values, window) if full else None

    def _of_column(self, what: str, name: str, values: npt.NDArray[np.float64], window: Ints) -> xr.DataArray:
        import xarray as xr

        counts = np.bincount(window, minlength=len(self))
        found = counts if what == "count" else leaf_sums(values, window, counts)
        found = found / counts if what == "mean" else found
        ((detector, (field,)),) = chosen_fields(self.view, name).items()
        entry = self.view.entries[detector]
        attrs = field_attrs(self.view, entry, entry.channels[field]) | {"reduction": what}
        coords = {
            "readout": self.view.time[self.positions],
            "complete": ("readout", self.complete),
            f"{detector}_events": ("readout", counts, {"long_name": "events that went in"}),
        }
        return xr.DataArray(found, coords, ("readout",), name=f"{detector}_{field}", attrs=attrs)

    def lists(self, names: Names) -> dict[str, list[xr.DataArray]]:
        """Return the values of each window, of the events that have the detector.

        Parameters
        ----------
        names : names
            As for `Run.dataset`.

        Returns
        -------
        dict of str to list of DataArray
            One array, on ``time``, for each readout; loaded.

        Examples
        --------
        >>> readouts.lists(["gmd.milliJoulesPerPulse"])
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DroppedWarning)
            data = self.run.dataset(names, join="outer", chunks=None)
        found: dict[str, list[xr.DataArray]] = {}
        for name, values in data.data_vars.items():
            if "time" not in values.dims or str(name).endswith("_damage"):
                continue
            present = self._present(data, str(name))
            keep = np.flatnonzero(present & (self.window >= 0))
            ends = np.searchsorted(self.window[keep], np.arange(1, len(self)))
            loaded = values.isel(time=keep).load()
            edges = [0, *ends.tolist(), len(keep)]
            found[str(name)] = [loaded.isel(time=slice(a, b)) for a, b in pairwise(edges)]
        return found

    def _present(self, data: xr.Dataset, name: str) -> Bools:
        """Return which events have the detector that a variable belongs to."""
        owner = data[name].attrs.get("detector")
        if f"{owner}_present" in data.coords:
            return np.asarray(data[f"{owner}_present"].values, bool)
        return np.ones(data.sizes["time"], bool)

    def follow(self, **choices: Any) -> Iterator[Any]:
        """Yield the windows of a run while it is written, each as a Run, once its end was seen.

        Parameters
        ----------
        **choices
            ``batch, timeout, poll, patience``, as for `Run.follow`.

        Examples
        --------
        >>> next(readouts.follow())
        """
        yield from map(self.make, live_windows(follow(self.view, **choices), self.detector, self.which))

    def __repr__(self) -> str:
        words = "up to and with" if self.which == "before" else "from"
        return f"<{len(self)} windows of events {words} each readout of {self.detector}>"


@dataclass(frozen=True, eq=False)
class LiveReadouts:
    """The events of a stream, grouped by the readouts of a detector; made by `Stream.group_by_readout`.

    Parameters
    ----------
    live : Stream
    detector : str
        In any spelling.
    which : {"before", "after"}
    make : callable
        From a View to a Run.

    Examples
    --------
    >>> readouts = stream.group_by_readout("opal")  # doctest: +SKIP
    """

    live: Any
    detector: str
    which: str
    make: Callable[[View], Any]

    def follow(self, **choices: Any) -> Iterator[Any]:
        """Yield the windows, each as a Run, once its end was seen.

        Parameters
        ----------
        **choices
            ``batch, timeout``, as for `Stream.follow_runs`.

        Raises
        ------
        NameNotFound
            The stream has no such detector.

        Examples
        --------
        >>> next(readouts.follow())  # doctest: +SKIP
        """
        views = (run._view for run in self.live.follow_runs(**choices))
        yield from map(self.make, live_windows(views, self.detector, self.which))


def live_windows(views: Iterable[View], detector: str, which: str) -> Iterator[View]:
    """Yield a view of each window whose end is known, from views of consecutive events.

    A stream that takes other memory counts its events anew: the window that was open then is
    left out, with a warning.

    Parameters
    ----------
    views : iterable of View
    detector : str
    which : {"before", "after"}
    """
    begun, last, held = which == "before", -1, np.zeros(0, np.int64)
    for view in views:
        numbers = view.choice.numbers
        if len(numbers) and numbers[0] <= last:
            left = f"{len(held)} events of an open window of {detector} are left out"
            warnings.warn(f"{left}: the stream took other memory", DroppedWarning, stacklevel=3)
            begun, held = False, held[:0]
        start = 0
        for position in readout_positions(view, detector).tolist():
            stop = position + 1 if which == "before" else position
            held = np.concatenate([held, numbers[start:stop]])
            if begun:
                yield replace(view, choice=Choice(held, view.choice.total))
            begun, held, start = True, held[:0], stop
        held = np.concatenate([held, numbers[start:]])
        last = int(numbers[-1]) if len(numbers) else last

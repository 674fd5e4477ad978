"""Slow data: EPICS values and scan steps, as step functions of time.

The value at an event is the last update at or before it, whatever the order of access;
before the first update it is NaN, -1 (enums), 0 or '' and ``<pv>_present`` is False.
How each format stores them is in `slow_formats`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from psana_dask.errors import NameNotFound
from psana_dask.model import Array, Problem
from psana_dask.recording import Recording
from psana_dask.settings import DetectorConfig
from psana_dask.slow_formats import slow_format
from psana_dask.stepwise import Series, Steps, Times

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr


class Epics:
    """The EPICS variables of a run.

    Parameters
    ----------
    recording : Recording
    events : (event,) datetime64[ns]
        Times of the events that are looked at.

    Examples
    --------
    >>> run.epics["XTST:TEMP:01"]  # at its own rate
    >>> run.epics.at(run.events.time)  # at every event
    """

    def __init__(self, recording: Recording, events: Times) -> None:
        self._recording = recording
        self._events = events

    @cached_property
    def series(self) -> dict[str, Series]:
        """Updates by name.

        Examples
        --------
        >>> list(run.epics.series)
        """
        return _epics_series(self._recording)[0]

    @property
    def problems(self) -> list[Problem]:
        """Variables that several streams deliver.

        Examples
        --------
        >>> run.epics.problems
        """
        return _epics_series(self._recording)[1]

    def find(self, name: str) -> Series:
        """Return a variable by its name, its PV or its description.

        Raises
        ------
        NameNotFound
            No such variable; lists the nearest ones.

        Examples
        --------
        >>> run.epics.find("TST:TEMP").values[-1]
        """
        plain = name.replace("/", "_")
        for series in self.series.values():
            if plain == series.name or name in series.spellings:
                return series
        raise NameNotFound.of("EPICS variable", name, self._spellings())

    def _spellings(self) -> list[str]:
        return [name for series in self.series.values() for name in series.spellings]

    def __getitem__(self, name: str) -> xr.DataArray:
        import xarray as xr

        series = self.find(name)
        dims = ("time", *(f"{series.name}_{k}" for k in range(series.values.ndim - 1)))
        coords = {"time": series.time, **{name: ("time", column) for name, column in series.facts.items()}}
        return xr.DataArray(series.values, coords, dims, name=series.name, attrs=series.attrs())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (name.replace("/", "_") in self.series or name in self._spellings())

    def __iter__(self) -> Iterator[str]:
        return iter(self.series)

    def __len__(self) -> int:
        return len(self.series)

    def _ipython_key_completions_(self) -> list[str]:
        return self._spellings()

    def at(self, time: Any = None) -> xr.Dataset:
        """Return every variable at the given times (by default at the events): a step function.

        Parameters
        ----------
        time : array of datetime64, optional
            Or anything that numpy turns into such.

        Returns
        -------
        xarray.Dataset
            On `time`; ``<pv>_present`` is False before the first update.

        Examples
        --------
        >>> run.epics.at(run.events.time)["temperature"]
        """
        import xarray as xr

        wanted = self._events if time is None else np.atleast_1d(np.asarray(time, "M8[ns]"))
        variables: dict[str, Any] = {}
        for name, series in self.series.items():
            values, present = series.at(wanted)
            dims = ("time", *(f"{name}_{k}" for k in range(values.ndim - 1)))
            variables[name] = (dims, values, series.attrs())
            variables[f"{name}_present"] = ("time", present)
        return xr.Dataset(variables, {"time": wanted})

    @property
    def moved(self) -> list[str]:
        """Names of the variables that changed during the run.

        Examples
        --------
        >>> run.epics.moved
        """
        return [n for n, s in self.series.items() if bool(np.any(s.values[1:] != s.values[:-1]))]

    def __repr__(self) -> str:
        lines = [f"<EPICS: {len(self)} variables, {len(self.moved)} moved>"]
        for name, s in list(self.series.items())[:50]:
            last = s.values[-1] if len(s.values) else "-"
            lines.append(f"  {name:32} {s.pv:32} {len(s.time):6} updates, last {last}")
        return "\n".join(lines)


def _epics_series(recording: Recording) -> tuple[dict[str, Series], list[Problem]]:
    memory = recording.__dict__.setdefault("_memory", {})
    if "epics" not in memory:
        memory["epics"] = slow_format(recording).epics(recording)
    found: tuple[dict[str, Series], list[Problem]] = memory["epics"]
    return found


# ---- scan steps ---------------------------------------------------------------------------------
def steps_of(recording: Recording) -> Steps:
    """Return the steps of a run, read once."""
    memory = recording.__dict__.setdefault("_memory", {})
    if "steps" not in memory:
        memory["steps"] = slow_format(recording).steps(recording)
    steps: Steps = memory["steps"]
    return steps


def steps_table(recording: Recording, step: Array) -> pd.DataFrame:
    """Return one row per step: start, stop, number of events, scan values.

    Parameters
    ----------
    recording : Recording
    step : (event,) int32
        Steps of the events that are looked at.
    """
    import pandas as pd

    steps = steps_of(recording)
    counts = np.bincount(step[step >= 0], minlength=len(steps))[: len(steps)]
    columns = {"start": steps.start, "stop": steps.stop, "events": counts, **steps.values}
    return pd.DataFrame(columns, index=pd.RangeIndex(len(steps), name="step"))


# ---- settings -----------------------------------------------------------------------------------
def detector_config(recording: Recording, alias: str, until: np.datetime64 | None = None) -> DetectorConfig:
    """Return the configuration of a detector in force at a time.

    Parameters
    ----------
    recording : Recording
    alias : str
        Detector as the DAQ names it.
    until : datetime64, optional
        By default the end of the run: every update of BeginRun and BeginStep is in it.
    """
    limit = np.iinfo(np.int64).max if until is None else int(until.astype("M8[ns]").astype(np.int64))
    return slow_format(recording).settings(recording, alias, limit)

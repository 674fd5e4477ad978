"""Slow data: EPICS values and scan steps, as step functions of time.

The value at an event is the last update at or before it, whatever the order of access;
before the first update it is NaN, -1 (enums), 0 or '' and ``<pv>_present`` is False.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from psana_dask.blocks import decode_dgram
from psana_dask.errors import NameNotFound
from psana_dask.fields import enum_entries, missing_value
from psana_dask.model import Array, FieldSpec, Kind, Names, Problem, Service
from psana_dask.pipeline import catalog_of
from psana_dask.recording import Recording

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

Times = npt.NDArray[np.datetime64]


@dataclass(frozen=True)
class Series:
    """The updates of one slow variable.

    Parameters
    ----------
    name : str
        What users call it.
    pv : str
        The process variable, where the file says it.
    time : (update,) datetime64[ns]
    values : (update, ...) array
    kind : Kind
    enum : mapping of int to str
    """

    name: str
    pv: str
    time: Times
    values: Array
    kind: Kind = Kind.NUMBER
    enum: Mapping[int, str] = field(default_factory=dict)

    def at(self, time: Times) -> tuple[Array, npt.NDArray[np.bool_]]:
        """Return the values in force at `time`, and whether there is one."""
        last = np.searchsorted(self.time, time, side="right") - 1
        has = last >= 0
        fill = -1 if self.kind is Kind.ENUM else missing_value(self.values.dtype)
        out = np.full((len(time), *self.values.shape[1:]), fill, self.values.dtype)
        out[has] = self.values[last[has]]
        return out, has

    def attrs(self) -> dict[str, Any]:
        """Return the attributes of its variables."""
        attrs: dict[str, Any] = {"pv": self.pv}
        if self.kind is Kind.ENUM:
            attrs |= {"flag_values": list(self.enum), "flag_meanings": " ".join(self.enum.values())}
        return attrs


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
        """Updates by name."""
        return _epics_series(self._recording)[0]

    @property
    def problems(self) -> list[Problem]:
        """Variables that several streams deliver."""
        return _epics_series(self._recording)[1]

    def find(self, name: str) -> Series:
        """Return a variable by its name or that of its PV.

        Raises
        ------
        NameNotFound
            No such variable; lists the nearest ones.
        """
        plain = name.replace("/", "_")
        for series in self.series.values():
            if plain == series.name or name == series.pv:
                return series
        raise NameNotFound.of("EPICS variable", name, self._spellings())

    def _spellings(self) -> list[str]:
        return [n for s in self.series.values() for n in dict.fromkeys((s.name, s.pv)) if n]

    def __getitem__(self, name: str) -> xr.DataArray:
        import xarray as xr

        series = self.find(name)
        dims = ("time", *(f"{series.name}_{k}" for k in range(series.values.ndim - 1)))
        return xr.DataArray(
            series.values, {"time": series.time}, dims, name=series.name, attrs=series.attrs()
        )

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
        """Names of the variables that changed during the run."""
        return [n for n, s in self.series.items() if bool(np.any(s.values[1:] != s.values[:-1]))]

    def __repr__(self) -> str:
        lines = [f"<EPICS: {len(self)} variables, {len(self.moved)} moved>"]
        for name, s in list(self.series.items())[:50]:
            last = s.values[-1] if len(s.values) else "-"
            lines.append(f"  {name:32} {s.pv:32} {len(s.time):6} updates, last {last}")
        return "\n".join(lines)


Update = tuple[int, int, FieldSpec, Any]
"""Time in ns, stream position, field, value."""


def _epics_series(recording: Recording) -> tuple[dict[str, Series], list[Problem]]:
    memory = recording.__dict__.setdefault("_memory", {})
    if "epics" not in memory:
        memory["epics"] = _gather_epics(recording)
    found: tuple[dict[str, Series], list[Problem]] = memory["epics"]
    return found


def _gather_epics(recording: Recording) -> tuple[dict[str, Series], list[Problem]]:
    pvs = _pv_names(recording)
    updates: dict[str, list[Update]] = {}
    enums: dict[str, dict[int, str]] = {}
    for stream, time, names, values in slow_values(recording, "epics"):
        for spec in names.fields:
            if spec.kind is Kind.ENUM_ENTRY:
                continue
            plain, _, tag = spec.name.partition(":") if spec.kind is Kind.ENUM else (spec.name, "", "")
            updates.setdefault(plain, []).append((time, stream, spec, values[spec.name]))
            if spec.kind is Kind.ENUM and plain not in enums:
                enums[plain] = enum_entries(names, values, tag)
    series, problems = {}, []
    for file_name, rows in sorted(updates.items()):
        streams = sorted({stream for _, stream, _, _ in rows})
        if len(streams) > 1:
            named = ", ".join(str(recording.streams[k].stream) for k in streams)
            what = f"EPICS {file_name} is in streams {named}: the newest value counts"
            problems.append(Problem(recording.streams[streams[0]].parts[0], -1, -1, what))
        name = file_name.replace("/", "_")
        series[name] = _series(name, pvs.get(file_name, file_name), rows, enums.get(file_name, {}))
    return series, problems


def _series(name: str, pv: str, rows: list[Update], enum: dict[int, str]) -> Series:
    rows = sorted(rows, key=lambda row: row[:2])
    time = np.array([row[0] for row in rows], np.int64).view("M8[ns]")
    spec = rows[0][2]
    return Series(name, pv, time, _stacked([row[3] for row in rows], spec), spec.kind, enum)


def _stacked(values: list[Any], spec: FieldSpec) -> Array:
    """Return the updates as one array; arrays that change their length are padded."""
    if spec.kind is Kind.STRING:
        return np.array(values, dtype=str)
    if spec.rank == 0:
        return np.array(values, spec.dtype)
    shape = tuple(np.max([np.shape(v) for v in values], axis=0))
    out = np.full((len(values), *shape), missing_value(spec.dtype), spec.dtype)
    for row, value in zip(out, values, strict=True):
        row[tuple(slice(n) for n in value.shape)] = value
    return out


def _pv_names(recording: Recording) -> dict[str, str]:
    """Return PV names by field name, from the epicsinfo of the Configures."""
    found: dict[str, str] = {}
    for _, _, names, values in slow_values(recording, "epicsinfo"):
        for spec in names.fields:
            if spec.name != "keys" and spec.kind is Kind.STRING:
                found[spec.name] = values[spec.name] or spec.name
    return found


def slow_values(recording: Recording, kind: str) -> Iterator[tuple[int, int, Names, dict[str, Any]]]:
    """Yield (stream position, time in ns, names, values) of one kind of slow data of a run."""
    declared: dict[int, set[tuple[int, int]]] = {}
    for stream, config, names in catalog_of(recording).slow(kind):
        declared.setdefault(stream, set()).add((config, names.key))
    for stream, keys in declared.items():
        index = recording.streams[stream]
        for service in Service:
            if service != Service.L1_ACCEPT:
                for row in recording.transitions(stream, service).tolist():
                    config = int(index["config"][row])
                    blocks = index["key"][index["first_block"][row] : index["first_block"][row + 1]]
                    if any((config, int(key)) in keys for key in blocks):
                        for names, values in decode_dgram(index, row):
                            if (config, names.key) in keys:
                                yield stream, int(index["time"][row]), names, values


# ---- scan steps ---------------------------------------------------------------------------------
@dataclass(frozen=True)
class Steps:
    """The steps of a run: when they were, and the scan values that were set.

    Parameters
    ----------
    start, stop : (step,) datetime64[ns]
        Times of BeginStep and EndStep; NaT where there is none.
    values : mapping of str to (step,) array
        Scan variables, ``step_value`` and ``step_docstring`` among them.
    """

    start: Times
    stop: Times
    values: Mapping[str, Array]

    def __len__(self) -> int:
        return len(self.start)


def steps_of(recording: Recording) -> Steps:
    """Return the steps of a run, from all its streams."""
    starts: dict[int, int] = {}
    stops: dict[int, int] = {}
    values: dict[str, dict[int, Any]] = {}
    keys = {(k, c, n.key) for k, c, n in catalog_of(recording).slow("scan")}
    for stream in range(len(recording.streams)):
        index = recording.streams[stream]
        for row in recording.transitions(stream, Service.BEGIN_STEP).tolist():
            step = int(index["step"][row])
            starts.setdefault(step, int(index["time"][row]))
            for names, found in decode_dgram(index, row) if keys else ():
                if (stream, int(index["config"][row]), names.key) in keys:
                    for f in names.fields:
                        values.setdefault(f.name, {}).setdefault(step, found[f.name])
        for row in recording.transitions(stream, Service.END_STEP).tolist():
            stops.setdefault(int(index["step"][row]), int(index["time"][row]))
    count = max(starts, default=-1) + 1
    return Steps(
        _times([starts.get(k) for k in range(count)]),
        _times([stops.get(k) for k in range(count)]),
        {name: _step_values([found.get(k) for k in range(count)]) for name, found in values.items()},
    )


def _times(values: list[int | None]) -> Times:
    missing = np.iinfo(np.int64).min  # NaT
    return np.array([missing if v is None else v for v in values], np.int64).view("M8[ns]")


def _step_values(values: list[Any]) -> Array:
    """Return scan values as an array; NaN, or '' for text, where a step has none."""
    given = [v for v in values if v is not None]
    if given and isinstance(given[0], str):
        return np.array([v or "" for v in values])
    if len(given) < len(values):
        return np.array([np.nan if v is None else v for v in values], float)
    return np.array(values)


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

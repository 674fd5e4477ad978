"""Values that hold until the next update: step functions of time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from psana_dask.fields import missing_value
from psana_dask.model import Array, Kind

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
        From when on each value is in force.
    values : (update, ...) array
    kind : Kind
    enum : mapping of int to str
    unit : str
    description : str
        The DAQ's own name of it; it is found by that too.
    facts : mapping of str to (update,) array
        What else each update says: ``status``, ``severity``, ``stamp`` (LCLS-1).
    """

    name: str
    pv: str
    time: Times
    values: Array
    kind: Kind = Kind.NUMBER
    enum: Mapping[int, str] = field(default_factory=dict)
    unit: str = ""
    description: str = ""
    facts: Mapping[str, Array] = field(default_factory=dict)

    @property
    def spellings(self) -> list[str]:
        """The names that it answers to."""
        return [name for name in dict.fromkeys((self.name, self.pv, self.description)) if name]

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
        if self.unit:
            attrs["units"] = self.unit
        if self.description:
            attrs["description"] = self.description
        if self.kind is Kind.ENUM:
            attrs |= {"flag_values": list(self.enum), "flag_meanings": " ".join(self.enum.values())}
        return attrs


@dataclass(frozen=True)
class Steps:
    """The steps of a run: when they were, and the scan values that were set.

    Parameters
    ----------
    start, stop : (step,) datetime64[ns]
        Times of BeginStep and EndStep; NaT where there is none.
    values : mapping of str to (step,) array
        Scan variables; ``step_value`` and ``step_docstring`` among them (LCLS-II), or what the run
        control monitored and its labels (LCLS-1).
    scanned : tuple of str
        Names of the values that were set, not only said.
    """

    start: Times
    stop: Times
    values: Mapping[str, Array]
    scanned: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.start)


def steps_from(
    starts: Mapping[int, int],
    stops: Mapping[int, int],
    values: Mapping[str, Mapping[int, Any]],
    scanned: tuple[str, ...],
) -> Steps:
    """Return the steps from their times (ns) and values by step number."""
    numbers = range(max(starts, default=-1) + 1)
    return Steps(
        _times([starts.get(k) for k in numbers]),
        _times([stops.get(k) for k in numbers]),
        {name: _step_values([found.get(k) for k in numbers]) for name, found in values.items()},
        scanned,
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


def stacked(values: list[Any], dtype: np.dtype[Any]) -> Array:
    """Return the updates of numbers as one array; arrays that change their length are padded."""
    if not np.ndim(values[0]):
        return np.array(values, dtype)
    shape = tuple(np.max([np.shape(v) for v in values], axis=0))
    out = np.full((len(values), *shape), missing_value(dtype), dtype)
    for row, value in zip(out, values, strict=True):
        row[tuple(slice(n) for n in value.shape)] = value
    return out

"""All scalars of a run as one dask DataFrame, its partitions along time.

A partition is a range of events that one task reads, and of it only the columns that are
used.  Contract: tests/test_tables.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from psana_dask.choice import Choice
from psana_dask.dataset import Names, View, chosen_fields, common_events, event_coords
from psana_dask.errors import MissingLibrary, NameNotFound
from psana_dask.evr import CodeCondition
from psana_dask.files import RunFiles
from psana_dask.model import Array
from psana_dask.pipeline import SCALAR_CHUNK, LazyArray, PresenceArray
from psana_dask.recording import open_recording
from psana_dask.slow import Epics, steps_of

if TYPE_CHECKING:
    import pandas as pd


class Source(Protocol):
    """Where some columns come from."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns."""

    def read(self, view: View) -> Iterable[Array]:
        """Return the columns at the events of the view."""


@dataclass(frozen=True)
class EventColumns:
    """What the table of events says: timestamp, step, and the counters that every event has."""

    columns: tuple[str, ...]

    def read(self, view: View) -> Iterable[Array]:
        """Return the coordinates of events."""
        coords = event_coords(view)
        return [np.asarray(coords[name].values) for name in self.columns]


@dataclass(frozen=True)
class ScanColumns:
    """The values that were set at the step of each event; NaN or '' outside of steps."""

    columns: tuple[str, ...]

    def read(self, view: View) -> Iterable[Array]:
        """Look the step of each event up."""
        step = view.recording.events.step[view.choice.numbers]
        values = steps_of(view.recording).values
        return [_at_step(values[name], step) for name in self.columns]


def _at_step(values: Array, step: Array) -> Array:
    """Return the value of each event's step; -1 is no step."""
    blank: Any = "" if values.dtype.kind == "U" else np.nan
    padded = np.append(values, [blank])  # integers become floats
    return padded[np.where((step < 0) | (step >= len(values)), len(values), step)]


@dataclass(frozen=True)
class FieldColumns:
    """One field of a detector: a column, or one for each panel.

    Parameters
    ----------
    detector, field : str
    columns : tuple of str
        Several: one for each panel.
    """

    detector: str
    field: str
    columns: tuple[str, ...]

    def read(self, view: View) -> Iterable[Array]:
        """Read the field."""
        values = view.arrays(view.entries[self.detector], self.field)[self.field][...]
        return [values] if values.ndim == 1 else values.T


@dataclass(frozen=True)
class PresenceColumn:
    """Which events have a detector."""

    detector: str
    field: str

    @property
    def columns(self) -> tuple[str, ...]:
        """Its name."""
        return (f"{self.detector}_present",)

    def read(self, view: View) -> Iterable[Array]:
        """Look the events up in the index."""
        target = view.target(view.entries[self.detector].channels[self.field])
        return [PresenceArray(target, per_panel=False)[...]]


@dataclass(frozen=True)
class FlagColumn:
    """Which events have some event codes and lack others."""

    name: str
    codes: tuple[int, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """Its name."""
        return (self.name,)

    def read(self, view: View) -> Iterable[Array]:
        """Read the event codes."""
        return [CodeCondition(self.codes).mask(view)]


@dataclass(frozen=True)
class EpicsColumns:
    """Slow variables, each the last update at or before the event."""

    names: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(f"epics_{name}" for name in self.names)

    def read(self, view: View) -> Iterable[Array]:
        """Look the updates up."""
        series = Epics(view.recording, view.time).series
        return [series[name].at(view.time)[0] for name in self.names]


@dataclass(frozen=True)
class Table:
    """Columns of a run; called with a choice of events, it reads them.

    Parameters
    ----------
    files, token
        The recording, to be found again in another process.
    keep_damaged : bool
    sources : tuple of Source
    """

    files: RunFiles
    token: str
    keep_damaged: bool
    sources: tuple[Source, ...]

    def __call__(self, events: Choice, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Read some columns of some events as a DataFrame on their times; no other columns are read."""
        import pandas as pd

        view = View(open_recording(self.files, self.token), events, self.keep_damaged)
        wanted = [c for s in self.sources for c in s.columns] if columns is None else list(columns)
        found: dict[str, Any] = {}
        for source in self.sources:
            if not set(wanted).isdisjoint(source.columns):
                found |= zip(source.columns, map(_plain, source.read(view)), strict=True)
        return pd.DataFrame(found, index=pd.DatetimeIndex(view.time, name="time"))[wanted]

    def __dask_tokenize__(self) -> str:
        return f"{self.token}-{self.keep_damaged}-{self.sources!r}"


def _plain(values: Array) -> Any:
    """Return text in the form of pandas: an empty column of text is still one of text."""
    import pandas as pd

    return pd.array(values.tolist(), dtype="str") if values.dtype.kind == "U" else values


def run_dataframe(
    view: View,
    names: Names,
    *,
    join: str | None = None,
    epics: bool | Sequence[str] = False,
    flags: Mapping[str, Sequence[int]] | None = None,
    partition: int = SCALAR_CHUNK,
) -> Any:
    """Return the scalars of a run as a dask DataFrame; see `Run.dataframe`."""
    try:
        import dask.dataframe as dd
    except ImportError as error:
        raise MissingLibrary.of("pandas and pyarrow", "frame", "run.dataframe") from error

    table, events = table_of(view, names, join=join, epics=epics, flags=flags)
    starts = range(0, max(1, len(events)), partition)
    pieces = [Choice(events.numbers[k : k + partition], events.total) for k in starts]
    divisions = _divisions(replace(view, choice=events), starts)
    nothing = Choice(events.numbers[:0], events.total)
    return dd.from_map(table, pieces, meta=table(nothing), divisions=divisions, label="run-dataframe")


def _divisions(view: View, starts: range) -> Any:
    """Return the time that each partition starts with, and the last; unknown where times do not increase."""
    import pandas as pd

    if not (view.choice.is_sorted and len(view.choice)):
        return None
    return (*pd.DatetimeIndex(view.time[list(starts)]), pd.Timestamp(view.time[-1]))


def table_of(
    view: View,
    names: Names,
    *,
    join: str | None,
    epics: bool | Sequence[str],
    flags: Mapping[str, Sequence[int]] | None,
) -> tuple[Table, Choice]:
    """Return the table that names ask for, and its events.

    Raises
    ------
    NameNotFound
        A name fits nothing, or has no scalars.
    ValueError
        Two columns would have one name.
    """
    join = join or ("outer" if names is None else "inner")
    if join not in ("inner", "outer"):
        raise ValueError(f'join={join!r}: use "inner" (events that all detectors have) or "outer"')
    chosen = chosen_fields(view, names)
    scalars = {d: list(_scalars(view, d, fields)) for d, fields in chosen.items()}
    if names is not None:
        _refuse_without_scalars(scalars)
    sources = [*_sources(view, scalars, epics, flags or {}, scan=names is None)]
    counts = Counter(column for source in sources for column in source.columns)
    if twins := [column for column, count in counts.items() if count > 1]:
        raise ValueError(f"two columns would be {twins[0]!r}: ask for fewer names at once")
    events = view.choice
    if join == "inner":
        events = common_events(view, {d: f for d, f in chosen.items() if scalars[d]})
    recording = view.recording
    return Table(recording.files, recording.token, view.keep_damaged, tuple(sources)), events


def _sources(
    view: View,
    scalars: Mapping[str, Sequence[FieldColumns]],
    epics: bool | Sequence[str],
    flags: Mapping[str, Sequence[int]],
    *,
    scan: bool,
) -> Iterator[Source]:
    """Yield what fills the columns of a table, in their order."""
    yield EventColumns(_event_names(view))
    if scan and (values := tuple(steps_of(view.recording).values)):
        yield ScanColumns(values)
    for detector, found in scalars.items():
        yield from found
        if found:
            yield PresenceColumn(detector, found[0].field)
    yield from (FlagColumn(name, tuple(codes)) for name, codes in flags.items())
    if epics:
        yield EpicsColumns(_epics_names(view, epics))


def _event_names(view: View) -> tuple[str, ...]:
    return tuple(name for name in event_coords(view) if name != "time")


def _scalars(view: View, detector: str, fields: Sequence[str]) -> Iterator[FieldColumns]:
    """Yield the fields of a detector that have one value per event, or one per event and panel."""
    entry = view.entries[detector]
    for field in fields:
        if not view.exists(entry.channels[field]):
            continue
        lazy: LazyArray = view.arrays(entry, field).get(field)  # type: ignore[assignment]
        if lazy is None or "time" not in lazy.dims:
            continue
        if lazy.ndim == 1:
            yield FieldColumns(detector, field, (f"{detector}_{field}",))
        elif lazy.dims == ("time", "panel"):
            panels = view.target(entry.channels[field]).reader().panels.tolist()
            yield FieldColumns(detector, field, tuple(f"{detector}_{field}_{p}" for p in panels))


def _refuse_without_scalars(scalars: Mapping[str, Sequence[FieldColumns]]) -> None:
    for detector, found in scalars.items():
        if not found:
            raise NameNotFound(
                f"{detector} has no scalars among what was asked for: run.dataset({detector!r}) has arrays, "
                "and a reduction of them gives one value per event"
            )


def _epics_names(view: View, epics: bool | Sequence[str]) -> tuple[str, ...]:
    """Return the names of slow variables that are scalars."""
    known = Epics(view.recording, view.time)
    if epics is True:
        return tuple(name for name, series in known.series.items() if series.values.ndim == 1)
    wanted = [epics] if isinstance(epics, str) else list(epics or ())
    found = [known.find(name) for name in wanted]
    if arrays := [s.name for s in found if s.values.ndim > 1]:
        raise NameNotFound(f"EPICS variable {arrays[0]} is an array: run.epics[{arrays[0]!r}] has it")
    return tuple(s.name for s in found)

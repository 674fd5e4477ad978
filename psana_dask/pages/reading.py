"""What the event browser reads: a run, the events that meet a condition, one event of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from psana_dask.conditions import events_where
from psana_dask.errors import EventNotFound, PsanaError
from psana_dask.pages import event_content as content
from psana_dask.pages.choosing import RunChoice, Shelf
from psana_dask.pages.event_content import Layout, Wanted
from psana_dask.pages.markup import explained
from psana_dask.pages.pictures import Picture

if TYPE_CHECKING:
    from psana_dask.run import Run


@dataclass(frozen=True, eq=False)
class Opened:
    """A run that a page shows.

    Parameters
    ----------
    choice : RunChoice
    layout : Layout
    numbers : (event,) int64
        Positions of the events that meet the condition.
    condition : str
    problems : tuple of str
        What could not be read.
    """

    choice: RunChoice
    layout: Layout
    numbers: npt.NDArray[np.int64]
    condition: str = ""
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Shown:
    """What is read of one event."""

    time: Any
    wanted: Wanted | None
    picture: Picture | None = None
    said: str = ""  # why there is no picture
    lines: content.Lines | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    scalars: tuple[Any, ...] = ()
    epics: tuple[Any, ...] = ()


def opened(shelf: Shelf, choice: RunChoice, condition: str = "") -> Opened:
    """Open a run and find the events that meet a condition."""
    run = shelf.open(choice)
    numbers = np.flatnonzero(events_where(run, condition)) if condition.strip() else np.arange(len(run))
    if condition.strip() and not len(numbers):
        raise EventNotFound(f"no event of {len(run)} meets {condition!r}")
    problems = tuple(f"{p.what}{f' ({p.file})' if p.file else ''}" for p in run._all_problems)
    return Opened(choice, content.layout_of(run), numbers, condition, problems)


def read(run: Run, at: Opened, number: int, wanted: Wanted | None, line: str) -> Shown:
    """Read one event: its picture, one field of curves, and all numbers."""
    event = run.isel(int(number))
    picture, said, lines = None, "", None
    if wanted is not None:
        try:
            picture = content.picture_of(event, wanted)
        except PsanaError as error:
            said = explained(error)
    if line:
        try:
            lines = content.lines_of(event, line)
        except PsanaError:
            lines = None
    scalars, epics = tuple(content.scalars_of(event, at.layout)), tuple(content.epics_of(event))
    return Shown(event.start, wanted, picture, said, lines, content.facts_of(event), scalars, epics)


def nearest(run: Run, at: Opened, text: str) -> int:
    """Return the place, among the events that meet the condition, of the one nearest to a time.

    Raises
    ------
    ValueError
        The text is no time.
    """
    time = run.events.time.values[at.numbers].astype("M8[ns]").astype(np.int64)
    return int(np.abs(time - _time(text)).argmin())


def _time(text: str) -> int:
    """Return a time that was typed, ns since 1970.

    Raises
    ------
    ValueError
        It is no time.
    """
    from psana_dask.keys import times

    try:
        return int(times(text).reshape(-1)[0].astype("M8[ns]").astype(np.int64))
    except (ValueError, TypeError, IndexError):
        raise ValueError(f"{text[:40]!r} is no time: write 2024-06-14T06:12:03.5") from None

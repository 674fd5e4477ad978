"""Axes that follow what is drawn, in steps: an axis that changes has a browser draw and lay out all anew.

An axis keeps its ends while the data fill it well enough. Who zooms or moves a figure has it for himself
until he resets it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from bokeh.events import RangesUpdate, Reset
from bokeh.models import Range1d
from bokeh.plotting import figure

ROOM = 0.1
"""Free part of an axis beside the data, when its ends are chosen anew."""

LEAST = 0.4
"""Part of an axis that the data fill, at least."""

Ends = tuple[float, float]


def ends_of(values: npt.NDArray[Any]) -> Ends | None:
    """Return the least and the largest finite value; None without one. Times are milliseconds."""
    if values.dtype.kind == "M":
        values = values[~np.isnat(values)].astype("M8[ms]").astype(np.float64)
    known = values[np.isfinite(values)]
    return (float(known.min()), float(known.max())) if known.size else None


def followed(before: Ends | None, data: Ends, room: Ends = (ROOM, ROOM)) -> Ends:
    """Return the ends of an axis: those before it while the data fill it well enough.

    Parameters
    ----------
    before : (float, float), optional
    data : (float, float)
        Least and largest value.
    room : (float, float)
        Free part below and above the data, when the ends are chosen anew.

    Examples
    --------
    >>> followed(None, (0.0, 100.0))
    (-10.0, 110.0)
    >>> followed((-10.0, 110.0), (2.0, 105.0))
    (-10.0, 110.0)
    """
    low, high = data
    if not high > low:
        half = 0.5 * abs(low) or 1.0
        low, high = low - half, high + half
        room = (0.0, 0.0)
    inside = before is not None and before[0] <= data[0] and data[1] <= before[1]
    if before is not None and inside and high - low >= LEAST * (before[1] - before[0]):
        return before
    return low - room[0] * (high - low), high + room[1] * (high - low)


@dataclass
class Axis:
    """One axis of a figure.

    Parameters
    ----------
    range : bokeh Range1d
    room : (float, float)
        As of `followed`.
    log : bool
        The room is one of decades.
    """

    range: Any
    room: Ends = (ROOM, ROOM)
    log: bool = False
    ends: Ends | None = None

    def follow(self, data: Ends | None, held: bool) -> None:
        """Show all data, unless a person holds the axis: then after a reset."""
        if data is None:
            return
        ends = followed(self.ends, self._scaled(data), self.room)
        if ends != self.ends:
            self.ends = ends
            start, end = (10**e for e in ends) if self.log else ends
            self.range.update(reset_start=start, reset_end=end)
            if not held:
                self.range.update(start=start, end=end)

    def _scaled(self, data: Ends) -> Ends:
        return (math.log10(data[0]), math.log10(data[1])) if self.log else data


class Axes:
    """A figure whose axes follow what is drawn.

    Parameters
    ----------
    x, y : (float, float)
        Free part below and above the data.
    log : bool
        y is logarithmic.
    **options
        Of `bokeh.plotting.figure`.
    """

    def __init__(
        self, *, x: Ends = (0.02, 0.02), y: Ends = (ROOM, ROOM), log: bool = False, **options: Any
    ) -> None:
        self._held = False
        self._x, self._y = Axis(Range1d(0, 1), x), Axis(Range1d(1 if log else 0, 2), y, log)
        if log:
            options["y_axis_type"] = "log"
        self.figure = figure(x_range=self._x.range, y_range=self._y.range, **options)
        self.figure.on_event(RangesUpdate, lambda _: self._hold(True))
        self.figure.on_event(Reset, lambda _: self._hold(False))

    def _hold(self, held: bool) -> None:
        self._held = held

    def renew(self, x: str, y: str) -> None:
        """Draw other quantities, with these labels: nothing is kept of the axes before."""
        self.figure.xaxis.axis_label, self.figure.yaxis.axis_label = x, y
        self._x.ends = self._y.ends = None
        self._held = False

    def follow(self, x: Ends | None, y: Ends | None) -> None:
        """Show all data: their least and largest x and y; None leaves an axis as it is."""
        self._x.follow(x, self._held)
        self._y.follow(y, self._held)

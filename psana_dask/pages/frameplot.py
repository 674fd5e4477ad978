"""Pictures of a detector on a live page."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import panel as pn
from bokeh.events import MouseLeave, MouseMove, RangesUpdate, Reset
from bokeh.models import (
    BoxZoomTool,
    ColorBar,
    ColumnDataSource,
    CrosshairTool,
    CustomJS,
    LinearColorMapper,
    LogColorMapper,
    NumeralTickFormatter,
    PanTool,
    Range1d,
    ResetTool,
    SaveTool,
    WheelZoomTool,
)
from bokeh.plotting import figure

from psana_dask.drawing import colour_limits
from psana_dask.pages.canvas import AXES, PALETTES
from psana_dask.pages.colouring import COLOURS, coded, colour_codes, colour_ends
from psana_dask.pages.framing import ascending, picture_from
from psana_dask.pages.liveplots import BESIDE, Changed, Histogram, card, counts, plain, what
from psana_dask.pages.pictures import CONTRASTS, Picture, Range, looked_at

if TYPE_CHECKING:
    import xarray as xr

    from psana_dask.pages.feed import Snapshot

WIDTH = 520
"""Screen pixels of a picture with its axes."""

SENT = 512
"""Pixels along an axis of a whole picture that are sent: what the screen shows."""

SAMPLE = 60_000
"""Pixels that decide the colours and make the histogram."""

FIXED = "fixed"

STEADY = 0.05
"""How far limits may be off, as a part of their distance, before they follow the picture."""

NOTHING = "#dfe3e8"
"""Colour of what has no value."""

POINTED = """
cursor.next = {x: [cb_obj.x], y: [cb_obj.y]}
cursor.waits ??= setTimeout(() => { cursor.waits = null; cursor.data = cursor.next }, 100)
"""
LEFT = """
clearTimeout(cursor.waits)
cursor.waits = null
cursor.data = {x: [], y: []}
"""


@dataclass(frozen=True, eq=False)
class PreparedFrame:
    """A frame as it is sent to a browser.

    Parameters
    ----------
    codes : (y, x) uint8
        Colours of the part that is seen, as of `colour_codes`.
    x, y : (float, float)
        Where that part begins and ends.
    whole : Picture
    limits : (float, float)
        Of the colours.
    histogram : mapping, optional
        When it is due.
    title : str
    """

    codes: npt.NDArray[np.uint8]
    x: Range
    y: Range
    whole: Picture
    limits: Range
    histogram: Mapping[str, Any] | None
    title: str


class FramePlot:
    """Pictures of a detector: the latest event or the mean, with colours by choice and a histogram.

    Parameters
    ----------
    name : str
        As in the snapshots.
    means : bool
        Whether the mean can be chosen.
    changed : callable
    log : bool
        Colours on a logarithmic scale at first.
    limits : (float, float), optional
        Fixed limits of the colours at first.
    """

    every = 0.0

    def __init__(
        self, name: str, means: bool, changed: Changed, *, log: bool = False, limits: Range | None = None
    ) -> None:
        self._name, self._changed = name, changed
        self._window: tuple[Range, Range] | None = None
        self._place: tuple[Range, Range] | None = None
        self._whole: Picture | None = None
        self._cursor = ColumnDataSource({"x": [], "y": []})
        self._cursor.on_change("data", lambda attr, old, new: self._say_value())
        self._source = ColumnDataSource({"image": [], "x": [], "y": [], "dw": [], "dh": []})
        self._histogram = Histogram(WIDTH, 150, True)
        self._controls(means, log, limits)
        self._figure = self._drawn()
        self._use_colours()
        self.value = pn.pane.HTML("", margin=(0, 8), align="center")
        top = pn.Row(self.which, self.log, self.palette, self.value)
        below = pn.Row(self.colours, self.low, self.high)
        self.title = pn.pane.HTML("")
        self.card = card(name, self.title, top, below, pn.pane.Bokeh(self._figure), self._histogram.pane)

    def _controls(self, means: bool, log: bool, limits: Range | None) -> None:
        low, high = limits or (0.0, 1.0)
        both, rules = ["latest", "mean"], [*CONTRASTS, FIXED]
        self.which = pn.widgets.RadioButtonGroup(options=both, value="latest", width=140, visible=means)
        self.log = pn.widgets.Toggle(label="log", value=log, width=60)
        self.palette = pn.widgets.Select(options=list(PALETTES), width=100)
        self.colours = pn.widgets.Select(options=rules, value=FIXED if limits else rules[0], width=140)
        self.low = pn.widgets.FloatInput(value=low, width=120, disabled=not limits)
        self.high = pn.widgets.FloatInput(value=high, width=120, disabled=not limits)
        self.palette.param.watch(lambda _: self._use_colours(), "value")
        self.log.param.watch(lambda _: self._use_colours(), "value")
        self.colours.param.watch(self._rule_chosen, "value")
        for widget in (self.which, self.log):
            widget.param.watch(lambda _: self._changed(), "value")
        for widget in (self.low, self.high):
            widget.param.watch(self._limit_typed, "value")

    def _limit_typed(self, _: Any) -> None:
        if self.colours.value == FIXED:
            self._changed()

    def _rule_chosen(self, event: Any) -> None:
        """Limits are typed only while they are fixed: else they follow the picture."""
        self._limits = None
        self.low.disabled = self.high.disabled = event.new != FIXED
        self._changed()

    _counted = -np.inf
    _limits: Range | None = None

    def _drawn(self) -> Any:
        made = figure(
            frame_width=WIDTH - 90, frame_height=WIDTH - 90, x_range=Range1d(0, 1), y_range=Range1d(0, 1),
            tools=[], toolbar_location="above", name=self._name,
        )  # fmt: skip
        self._mappers = {
            False: LinearColorMapper(palette=PALETTES["viridis"], low=0.0, high=1.0),
            True: LogColorMapper(palette=PALETTES["viridis"], low=0.1, high=1.0),
        }
        self._codes = LinearColorMapper(palette=[NOTHING] * (COLOURS + 1), low=-0.5, high=COLOURS + 0.5)
        made.image("image", x="x", y="y", dw="dw", dh="dh", source=self._source, color_mapper=self._codes)
        ticks = NumeralTickFormatter(format="0.[00]a")
        self._bar = ColorBar(color_mapper=self._mappers[False], width=12, formatter=ticks)
        made.add_layout(self._bar, "right")
        plain(made)
        made.grid.visible = False
        self._with_tools(made)
        return made

    def _with_tools(self, made: Any) -> None:
        """Add what a user can do with the picture: zoom, and point at a pixel."""
        wheel, pan = WheelZoomTool(), PanTool()
        box = BoxZoomTool(match_aspect=True)
        made.add_tools(pan, box, wheel, ResetTool(), SaveTool(), CrosshairTool())
        made.toolbar.active_scroll, made.toolbar.active_drag = wheel, pan
        made.toolbar.autohide = False
        made.on_event(RangesUpdate, self._looked)
        made.on_event(Reset, lambda _: self._look_at(None))
        for event, code in ((MouseMove, POINTED), (MouseLeave, LEFT)):
            made.js_on_event(event, CustomJS(args={"cursor": self._cursor}, code=code))

    def _looked(self, event: Any) -> None:
        ends = (event.x0, event.x1, event.y0, event.y1)
        if all(isinstance(end, int | float) for end in ends):
            self._look_at(((event.x0, event.x1), (event.y0, event.y1)))

    def _look_at(self, window: tuple[Range, Range] | None) -> None:
        self._window = window
        self._changed()

    def _use_colours(self) -> None:
        mapper, palette = self._mappers[bool(self.log.value)], PALETTES[self.palette.value]
        mapper.palette = palette
        self._codes.palette = coded(palette, NOTHING)
        self._bar.color_mapper = mapper

    def prepare(self, snapshot: Snapshot) -> PreparedFrame:
        """Return the part that is looked at, with its colours."""
        mean = self.which.value == "mean"
        array = snapshot.mean(self._name) if mean else snapshot.latest(self._name)
        return self.prepare_array(array, what(array, mean, snapshot, self._name))

    def prepare_array(self, array: xr.DataArray, title: str) -> PreparedFrame:
        """Return the part of a frame that is looked at, with its colours."""
        picture = picture_from(array)
        values = sample(picture.values)
        if self.colours.value == FIXED:
            limits = float(self.low.value or 0.0), float(self.high.value or 0.0)
        else:
            limits = self._steady(colour_limits(values, None, CONTRASTS[self.colours.value]))
        seen, log = _part(picture, self._window), bool(self.log.value)
        codes = colour_codes(ascending(seen), *colour_ends(*limits, log), log)
        return PreparedFrame(codes, seen.x, seen.y, picture, limits, self._counts(values), title)

    def _steady(self, limits: Range) -> Range:
        """Return the limits before these, unless they are clearly others: else colours tremble."""
        before = self._limits
        much = STEADY * (limits[1] - limits[0])
        if before is None or any(abs(old - new) > much for old, new in zip(before, limits, strict=True)):
            self._limits = limits
        return self._limits or limits

    def _counts(self, values: npt.NDArray[np.float32]) -> Mapping[str, Any] | None:
        now = time.monotonic()
        if now - self._counted < BESIDE:
            return None
        self._counted = now
        return counts(values, Histogram.BINS)

    def show(self, prepared: PreparedFrame) -> None:
        """Show a frame."""
        x, y, whole = prepared.x, prepared.y, prepared.whole
        if self._place != (whole.x, whole.y):
            self._place, self._window = (whole.x, whole.y), None
            self._look_at_all(whole)
        self._source.data = {
            "image": [prepared.codes], "x": [min(x)], "y": [min(y)],
            "dw": [abs(x[1] - x[0])], "dh": [abs(y[1] - y[0])],
        }  # fmt: skip
        self._set_limits(*prepared.limits)
        if prepared.histogram is not None:
            self._histogram.show(prepared.histogram)
        self.title.object = prepared.title
        self._whole = whole
        self._say_value()

    def _say_value(self) -> None:
        """Say the value under the mouse, of the frame as it is: not averaged, whatever its colour."""
        places = [*zip(self._cursor.data["x"], self._cursor.data["y"], strict=False)]
        text = value_at(self._whole, *places[0]) if places and self._whole is not None else ""
        if text != self.value.object:
            self.value.object = text

    def _set_limits(self, low: float, high: float) -> None:
        for log, mapper in self._mappers.items():
            first, last = colour_ends(low, high, log)
            mapper.update(low=first, high=last)
        if self.colours.value != FIXED:
            self.low.value, self.high.value = (float(f"{end:.4g}") for end in (low, high))

    def _look_at_all(self, picture: Picture) -> None:
        width, height = (abs(ends[1] - ends[0]) or 1.0 for ends in (picture.x, picture.y))
        across = WIDTH - 90
        self._figure.frame_height = int(min(max(across * height / width, 120), 1.3 * across))
        for axis, label in zip((self._figure.xaxis, self._figure.yaxis), AXES[picture.unit], strict=True):
            axis.axis_label = label
        ends_y = picture.y[::-1] if picture.y[0] > picture.y[1] and picture.unit == "mm" else picture.y
        if picture.unit != "mm":  # rows are counted from the top
            ends_y = max(picture.y), min(picture.y)
        for range_, (start, end) in ((self._figure.x_range, picture.x), (self._figure.y_range, ends_y)):
            range_.update(start=start, end=end, reset_start=start, reset_end=end)


def _part(picture: Picture, window: tuple[Range, Range] | None) -> Picture:
    """Return what a window shows, and a margin for the next move, with no more pixels than the screen."""
    if window is None:
        return looked_at(picture, most=SENT)
    margins = [0.25 * (end - start) for start, end in window]
    x, y = ((start - m, end + m) for (start, end), m in zip(window, margins, strict=True))
    return looked_at(picture, x, y, int(1.5 * SENT))


def sample(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return some of the finite pixels of a frame, spread over all of it."""
    flat = values.reshape(-1)
    some = flat[:: max(1, flat.size // SAMPLE) | 1]  # an odd step does not follow the columns
    return some[np.isfinite(some)]


def value_at(picture: Picture, x: Any, y: Any) -> str:
    """Say the value of the pixel at a place; an empty text beside the picture."""
    if not all(isinstance(place, int | float) for place in (x, y)):
        return ""
    found = picture.values[picture.rows(y, y), picture.columns(x, x)]
    if not found.size:
        return ""
    value = f"<b>{found[0, 0]:,.6g}</b>" if np.isfinite(found[0, 0]) else "no value"
    where = f"x {x:.2f}, y {y:.2f} mm" if picture.unit == "mm" else f"row {int(y)}, column {int(x)}"
    return f"{value}<br>{where}"

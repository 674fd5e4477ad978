"""The plots of a live page: bokeh sources that are filled anew, nothing is drawn twice.

Each plot prepares in a thread what it needs of a `Snapshot`, and shows it on the loop of its page.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from html import escape
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import panel as pn
from bokeh.models import ColumnDataSource

from psana_dask.drawing import colour_limits
from psana_dask.pages.axes import ROOM, Axes, ends_of

if TYPE_CHECKING:
    import xarray as xr

    from psana_dask.pages.feed import Pace, Snapshot

CARD = """
:host(.card) { break-inside: avoid; display: inline-block; background: #fff;
  border: 1px solid #dfe3e8; border-radius: 6px; padding: 8px 10px; margin: 6px; }
"""

HEADING = """
h2 { font: 600 15px system-ui, sans-serif; margin: 0; color: #1c2430; }
:host { font: 12px/1.4 system-ui, sans-serif; color: #5b6675; margin: 0 0 2px 4px; }
"""

Changed = Callable[[], None]
"""Told when a person changed a setting: the plot is prepared anew."""

SIDE = 430
"""Screen pixels of a plot beside the pictures."""

BESIDE = 0.6
"""Seconds between updates of what is beside the pictures: every figure costs the browser time."""

TOOLS = "pan,box_zoom,wheel_zoom,reset,save"
LINE_COLOURS = ("#1f6feb", "#d9480f", "#2b8a3e", "#9c36b5", "#e67700", "#0b7285", "#c2255c", "#5c940d")


class Plot(Protocol):
    """One card of a page, shown anew after `every` seconds at the earliest."""

    card: Any
    every: float

    def prepare(self, snapshot: Snapshot) -> Any:
        """Return what is to be shown; in a thread."""

    def show(self, prepared: Any) -> None:
        """Show it; on the loop of the page."""


def card(title: str, *rows: Any) -> Any:
    """Return a card with a title."""
    heading = pn.pane.HTML(f"<h2>{escape(title)}</h2>")
    made = pn.Column(heading, *rows, css_classes=["card"], stylesheets=[CARD])
    for pane in made.select(pn.pane.HTML):
        pane.stylesheets = [HEADING]
    return made


def counts(values: npt.NDArray[Any], bins: int) -> Mapping[str, Any]:
    """Return the columns of a histogram; the last 0.05 % on both sides are left out."""
    ends = colour_limits(values, None, (0.05, 99.95))
    number, edges = np.histogram(values, bins, ends)
    return {"left": edges[:-1], "right": edges[1:], "top": number, "bottom": np.zeros(bins),
            "log_top": np.maximum(number, 0.5), "log_bottom": np.full(bins, 0.5)}  # fmt: skip


class Histogram:
    """Counts on a linear or a logarithmic axis.

    Parameters
    ----------
    width, height : int
        On the screen.
    log : bool
        Which axis is seen first.
    """

    BINS = 80
    COLUMNS = ("left", "right", "top", "bottom", "log_top", "log_bottom")

    def __init__(self, width: int, height: int, log: bool) -> None:
        self._size: dict[str, Any] = {"width": width, "height": height}
        self._source = ColumnDataSource({k: [] for k in self.COLUMNS})
        self.pane = pn.pane.Bokeh(self._drawn(log))

    def _drawn(self, log: bool) -> Any:
        self._log, which = log, "log_" if log else ""
        self._axes = Axes(y=(0.0, 0.1), log=log, **self._size, tools="xpan,xwheel_zoom,reset")
        made = self._axes.figure
        sides = ("left", "right", f"{which}top", f"{which}bottom")
        made.quad(*sides, source=self._source, color="#4c6ef5", line_width=0)
        made.xaxis.ticker.desired_num_ticks = max(3, self._size["width"] // 70)
        plain(made)
        return made

    def choose(self, log: bool) -> None:
        """Show counts on a logarithmic axis, or on a linear one: bokeh cannot change that of a figure."""
        self.pane.object = self._drawn(log)
        self._follow()

    def show(self, columns: Mapping[str, Any]) -> None:
        """Show other counts."""
        self._source.data = dict(columns)
        self._follow()

    def _follow(self) -> None:
        columns = self._source.data
        if not len(columns["top"]):
            return
        most, least = float(np.max(columns["top"])), 0.5 if self._log else 0.0
        self._axes.follow((float(columns["left"][0]), float(columns["right"][-1])), (least, max(most, 1.0)))


def plain(made: Any) -> None:
    """Make a figure quiet: thin lines, small letters, a toolbar that hides."""
    made.toolbar.logo = None
    made.toolbar.autohide = True
    made.min_border = 4
    made.outline_line_color = "#d0d4da"
    made.grid.grid_line_color = "#eceff3"
    made.axis.minor_tick_line_color = None
    made.axis.axis_label_text_font_style = "normal"
    made.axis.axis_label_text_font_size = "11px"
    made.axis.major_label_text_font_size = "11px"
    for drawn in made.renderers:  # nothing is selected: without these, each change is worked out four times
        drawn.update(selection_glyph=None, nonselection_glyph=None, muted_glyph=None, hover_glyph=None)


def what(array: xr.DataArray, mean: bool, snapshot: Snapshot, name: str) -> str:
    """Say which events an array is of, and in what units."""
    state = str(array.attrs.get("units", ""))
    if not array.attrs.get("calibrated", True):
        state = "raw counts, no constants"
    state = f", {state}" if state else ""
    if not mean:
        return f"event of {str(snapshot.time_of(name))[:23].replace('T', ' ')}{state}"
    events = array.coords.get(f"{array.attrs.get('detector')}_events")
    number = "" if events is None else f" of {int(events):,} events"
    return f"mean{number} since {str(snapshot.since)[:19].replace('T', ' ')}{state}"


# ---- lines and numbers --------------------------------------------------------------------------
class LinesPlot:
    """Waveforms: those of the latest event over their mean.

    Parameters
    ----------
    name : str
    means : bool
        Whether there are means.
    axis : {"linear", "datetime"}
        Of x.
    """

    MOST, every = 1500, 0.0

    def __init__(self, name: str, means: bool, axis: str = "linear", label: str = "sample") -> None:
        self._name, self._means = name, means
        empty: dict[str, list[Any]] = {"xs": [], "ys": [], "colour": []}
        self._sources = {which: ColumnDataSource(empty) for which in ("mean", "latest")}
        self._axes = Axes(x=(0.0, 0.0), width=SIDE, height=230, tools=TOOLS, x_axis_type=axis,
                          x_axis_label=label)  # fmt: skip
        made = self._axes.figure
        made.multi_line("xs", "ys", color="colour", source=self._sources["mean"], line_width=4, alpha=0.25)
        made.multi_line("xs", "ys", color="colour", source=self._sources["latest"], line_width=1.3)
        plain(made)
        self.title = pn.pane.HTML("")
        self.card = card(name, self.title, pn.pane.Bokeh(made))

    def prepare(self, snapshot: Snapshot) -> Any:
        """Return the lines."""
        latest = snapshot.latest(self._name)
        mean = snapshot.mean(self._name) if self._means else None
        title = what(latest, False, snapshot, self._name) + ("; pale: the mean" if self._means else "")
        return self.prepare_arrays(latest, mean, title)

    def prepare_arrays(self, latest: xr.DataArray, mean: xr.DataArray | None, title: str) -> Any:
        """Return some lines."""
        columns = {"latest": _line_columns(latest), "mean": _line_columns(mean)}
        return columns, [_ends(columns, axis) for axis in ("xs", "ys")], title

    def show(self, prepared: Any) -> None:
        """Show the lines."""
        columns, ends, self.title.object = prepared
        for which, source in self._sources.items():
            if len(columns[which]["xs"]) or len(source.data["xs"]):
                source.data = columns[which]
        self._axes.follow(*ends)


def _ends(columns: Mapping[str, Any], axis: str) -> Any:
    lines = [line for which in columns.values() for line in which[axis]]
    return ends_of(np.concatenate(lines)) if lines else None


def _line_columns(array: xr.DataArray | None) -> dict[str, list[Any]]:
    if array is None:
        return {"xs": [], "ys": [], "colour": []}
    lines = np.atleast_2d(np.asarray(array.values, np.float64))[: len(LINE_COLOURS) * 2]
    step = -(-max(lines.shape[1], 1) // LinesPlot.MOST)
    x = places(array)[::step]
    colours = [LINE_COLOURS[k % len(LINE_COLOURS)] for k in range(len(lines))]
    return {"xs": [x] * len(lines), "ys": [line[::step] for line in lines], "colour": colours}


def places(array: xr.DataArray) -> npt.NDArray[Any]:
    """Return where the values along the last dimension lie: its coordinate, else their positions."""
    dim = array.dims[-1]
    known = array.coords[dim].values if dim in array.coords else None
    return np.arange(array.sizes[dim]) if known is None or known.dtype.kind not in "iufM" else known


class NumbersPlot:
    """A number of each event: over time, and as a histogram."""

    every = BESIDE

    def __init__(self, name: str) -> None:
        self._name = name
        self._source = ColumnDataSource({"time": [], "value": []})
        self._axes = Axes(width=SIDE - 160, height=190, x_axis_type="datetime", tools=TOOLS)
        made = self._axes.figure
        made.xaxis.ticker.desired_num_ticks = 3
        made.scatter("time", "value", source=self._source, size=3, color="#1f6feb", alpha=0.6, line_width=0)
        plain(made)
        self._histogram = Histogram(160, 190, False)
        self.log = pn.widgets.Toggle(label="log", width=60, margin=0, align="center")
        self.log.param.watch(lambda event: self._histogram.choose(event.new), "value")
        self.title = pn.pane.HTML("", width=SIDE - 80)
        top = pn.Row(self.title, self.log, margin=0)
        self.card = card(name, top, pn.Row(pn.pane.Bokeh(made), self._histogram.pane))

    def prepare(self, snapshot: Snapshot) -> Any:
        """Return times, values and counts."""
        numbers = snapshot.numbers
        values = numbers.columns.get(self._name, np.full(len(numbers.time), np.nan))
        known = np.isfinite(values)
        time, values = numbers.time[known], values[known]
        what = "no value yet"
        if len(values):
            spread = f"mean {values.mean():.5g}, rms {values.std():.3g}"
            what = f"{values[-1]:.6g} now; {spread} of {len(values):,} events"
        return {"time": time, "value": values}, counts(values, 40), what

    def show(self, prepared: Any) -> None:
        """Show them."""
        data, columns, self.title.object = prepared
        self._source.data = data
        self._axes.follow(ends_of(data["time"]), ends_of(data["value"]))
        self._histogram.show(columns)


class ScatterPlot:
    """One number of each event against another.

    Parameters
    ----------
    names : list of str
        What can be chosen.
    changed : callable
    """

    every = BESIDE

    def __init__(self, names: list[str], changed: Changed) -> None:
        self.x = pn.widgets.Select(options=names, value=names[0], width=190)
        self.y = pn.widgets.Select(options=names, value=names[1], width=190)
        self._source = ColumnDataSource({"x": [], "y": []})
        self._names: Any = None
        self._axes = Axes(x=(ROOM, ROOM), width=SIDE, height=300, tools=TOOLS, x_axis_label=names[0])
        made = self._axes.figure
        made.yaxis.axis_label = names[1]
        made.scatter("x", "y", source=self._source, size=4, color="#1f6feb", alpha=0.35, line_width=0)
        plain(made)
        for widget in (self.x, self.y):
            widget.param.watch(lambda _: changed(), "value")
        self.title = pn.pane.HTML("")
        top = pn.Row(self.x, self.y)
        self.card = card("scatter", self.title, top, pn.pane.Bokeh(made))

    def prepare(self, snapshot: Snapshot) -> Any:
        """Return the events that have both."""
        columns, names = snapshot.numbers.columns, (self.x.value, self.y.value)
        x, y = (columns.get(name, np.full(len(snapshot.numbers.time), np.nan)) for name in names)
        both = np.isfinite(x) & np.isfinite(y)
        x, y = x[both], y[both]
        related = len(x) > 2 and x.std() > 0 and y.std() > 0
        what = f"{len(x):,} events" + (f", correlation {np.corrcoef(x, y)[0, 1]:.3f}" if related else "")
        return {"x": x, "y": y}, names, what

    def show(self, prepared: Any) -> None:
        """Show them."""
        data, names, self.title.object = prepared
        self._source.data = data
        if names != self._names:
            self._names = names
            self._axes.renew(*names)
        self._axes.follow(ends_of(data["x"]), ends_of(data["y"]))


# ---- rates --------------------------------------------------------------------------------------
class RatesPlot:
    """Events and pictures a second over the last minutes."""

    MOST, EVERY = 600, 0.5
    LINES: Mapping[str, str] = {
        "received": "#1f6feb", "processed": "#2b8a3e", "lost": "#c92a2a", "pictures": "#868e96",
    }  # fmt: skip

    def __init__(self) -> None:
        self._rows: deque[tuple[float, ...]] = deque(maxlen=self.MOST)
        self._source = ColumnDataSource({k: [] for k in ("time", *self.LINES)})
        self._axes = Axes(x=(0.0, 0.1), y=(0.0, 0.25), width=SIDE, height=200, x_axis_type="datetime",
                          tools="xpan,xwheel_zoom,reset", y_axis_label="a second")  # fmt: skip
        made = self._axes.figure
        for name, colour in self.LINES.items():
            made.line("time", name, source=self._source, color=colour, line_width=1.8, legend_label=name)
        made.legend.location = "top_left"
        made.legend.orientation = "horizontal"
        made.legend.label_text_font_size = "11px"
        made.legend.background_fill_alpha = 0.6
        plain(made)
        self.card = card("rates", pn.pane.Bokeh(made))

    def carry(self, *models: Any) -> None:
        """Take bokeh models along to the browser."""
        self._axes.figure.tags = list(models)

    def add(self, pace: Pace, pictures: float) -> None:
        """Add a moment, unless the last one was just now."""
        now = time.time()
        if self._rows and now - self._rows[-1][0] / 1e3 < self.EVERY:
            return
        self._rows.append((now * 1e3, pace.received, pace.processed, pace.dropped, pictures))
        columns = np.array(self._rows).T
        self._source.data = dict(zip(("time", *self.LINES), columns, strict=True))
        if len(self._rows) > 1:
            self._axes.follow((columns[0][0], columns[0][-1]), (0.0, max(1.0, columns[1:].max())))

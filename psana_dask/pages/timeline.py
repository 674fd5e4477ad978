"""Run ranges on a time line: one row for each kind of constant."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from bokeh.models import ColumnDataSource, FactorRange, HoverTool, Range1d, TapTool
from bokeh.plotting import figure

from psana_dask.pages.desk import Bar

STRIPES = 3
"""Constants of one kind are drawn at so many heights in turn, so that ranges that overlap are told apart."""


class TimeLine:
    """Draws run ranges; solid where a constant is in force, faint where another one hides it.

    Parameters
    ----------
    chosen : callable
        Told the number of the bar that was clicked.
    """

    def __init__(self, chosen: Callable[[int], None]) -> None:
        self._bars: Sequence[Bar] = ()
        self._chosen = chosen
        self.ranges = ColumnDataSource({"y": [], "left": [], "right": [], "runs": [], "number": []})
        self.used = ColumnDataSource({"y": [], "left": [], "right": [], "number": []})
        self.run = ColumnDataSource({"x": [], "top": [], "bottom": []})
        self.figure = self._figure()

    def _figure(self) -> Any:
        made = figure(
            width=900, height=220, y_range=FactorRange(), x_range=Range1d(0, 1), x_axis_label="run",
            tools="xpan,xwheel_zoom,reset", toolbar_location="right", name="timeline",
        )  # fmt: skip
        ends: dict[str, Any] = {"y": "y", "left": "left", "right": "right"}
        bars = made.hbar(**ends, height=0.22, source=self.ranges, fill_alpha=0.15, line_color="#1f77b4")
        used = made.hbar(**ends, height=0.22, source=self.used, fill_alpha=0.8, line_color=None)
        for renderer in (bars, used):
            renderer.nonselection_glyph = None
            renderer.selection_glyph = None
        made.segment("x", "bottom", "x", "top", source=self.run, color="#d62728", line_width=1.5)
        made.add_tools(TapTool(renderers=[bars]), HoverTool(renderers=[bars], tooltips=[("runs", "@runs")]))
        self.ranges.selected.on_change("indices", self._tapped)
        return made

    def _tapped(self, attr: str, old: Any, new: Any) -> None:
        del attr, old
        number = new[0] if isinstance(new, list) and new else None
        if isinstance(number, int) and 0 <= number < len(self._bars):
            self._chosen(number)

    def put(self, bars: Sequence[Bar], last: int) -> None:
        """Show other constants, up to a run."""
        self._bars = tuple(bars)
        kinds = list(dict.fromkeys(b.listed.kind for b in bars))
        self.figure.y_range.factors = kinds[::-1]
        self.figure.height = 110 + 34 * max(1, len(kinds))
        first = min((b.listed.runs.begin for b in bars), default=0)
        self.figure.x_range.update(start=max(0, first - 1) - 0.5, end=last + 0.5, reset_end=last + 0.5)
        places = _places(bars)
        self.ranges.selected.indices = []
        self.ranges.data = {
            "y": places,
            "left": [b.listed.runs.begin - 0.5 for b in bars],
            "right": [min(b.listed.runs.end, last) + 0.5 for b in bars],
            "runs": [str(b.listed.runs) for b in bars],
            "number": list(range(len(bars))),
        }
        spans = [(k, span) for k, bar in enumerate(bars) for span in bar.in_force]
        self.used.data = {
            "y": [places[k] for k, _ in spans],
            "left": [s[0] - 0.5 for _, s in spans],
            "right": [min(s[1], last) + 0.5 for _, s in spans],
            "number": [k for k, _ in spans],
        }

    def mark(self, run: int | None) -> None:
        """Show a run as a line."""
        kinds = list(self.figure.y_range.factors)
        if run is None or not kinds:
            self.run.data = {"x": [], "top": [], "bottom": []}
        else:
            self.run.data = {"x": [run], "bottom": [(kinds[0], -0.5)], "top": [(kinds[-1], 0.5)]}


def _places(bars: Sequence[Bar]) -> list[tuple[str, float]]:
    """Return the row of each bar; those of one kind lie at up to three heights in turn."""
    kinds = [bar.listed.kind for bar in bars]
    heights = {kind: min(kinds.count(kind), STRIPES) for kind in kinds}
    turns = [kinds[:k].count(kind) % STRIPES for k, kind in enumerate(kinds)]
    return [(kind, 0.26 * (turn - (heights[kind] - 1) / 2)) for kind, turn in zip(kinds, turns, strict=True)]

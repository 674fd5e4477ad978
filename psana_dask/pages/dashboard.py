"""The run dashboard: what is in a run, whether it is sound, how its numbers depend on what was scanned."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import panel as pn
from bokeh.models import ColumnDataSource
from bokeh.plotting import figure

from psana_dask.checks import FRAMES, PRESENCE, STATISTICS, findings, quality
from psana_dask.conditions import MOST_CHARACTERS
from psana_dask.describe import COLUMNS, detector_rows, headline, summary_lines
from psana_dask.pages import markup
from psana_dask.pages.answers import Answers
from psana_dask.pages.background import LONG, Background
from psana_dask.pages.choosing import RunChoice, Shelf
from psana_dask.pages.markup import explained
from psana_dask.pages.parts import RunChooser, Status, offer, pane
from psana_dask.pages.scans import Scan, number_names, over_names, scan_of

if TYPE_CHECKING:
    import xarray as xr

    from psana_dask.run import Run

WIDTH = 220
KEPT = 50
"""Runs whose quality is remembered, for all users."""


class Judged:
    """The quality of runs, worked out once for all users."""

    def __init__(self) -> None:
        self._known: OrderedDict[RunChoice, xr.Dataset] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, choice: RunChoice, run: Run) -> xr.Dataset:
        """Return the quality of a run; judges it if nobody has asked before."""
        with self._lock:
            if choice in self._known:
                return self._known[choice]
        found = quality(run)
        with self._lock:
            self._known[choice] = found
            while len(self._known) > KEPT:
                self._known.popitem(last=False)
        return found

    def known(self, choice: RunChoice) -> xr.Dataset | None:
        """Return the quality of a run if it was worked out."""
        with self._lock:
            return self._known.get(choice)


@dataclass(frozen=True, eq=False)
class Summary:
    """What is said of a run at once."""

    choice: RunChoice
    title: str
    lines: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    problems: tuple[tuple[str, str], ...]
    numbers: tuple[str, ...]
    over: tuple[str, ...]


def summary_of(shelf: Shelf, choice: RunChoice) -> Summary:
    """Open a run and say what is in it."""
    run = shelf.open(choice)
    problems = tuple((p.what, p.file) for p in run._all_problems)
    return Summary(choice, headline(run), tuple(summary_lines(run)), tuple(map(tuple, detector_rows(run))),
                   problems, tuple(number_names(run)), tuple(over_names(run)))  # fmt: skip


def quality_text(found: xr.Dataset) -> str:
    """Return what `psana_dask.quality` found, as tables."""
    said = findings(found)
    top = markup.note("\n".join(said), "warn") if said else markup.note("Nothing conspicuous.", "good")
    told = {k: v for k, v in found.attrs.items() if k not in ("experiment", "run")}
    told["dropped_shots"] = "no event codes" if told["dropped_shots"] < 0 else told["dropped_shots"]
    parts = [top, markup.facts(told)]
    for dim, columns in (("detector", (*PRESENCE, *FRAMES)), ("scalar", (*STATISTICS, "off_by"))):
        head = (dim, *(c.replace("_", " ") for c in columns))
        rows = [_row(found.sel({dim: name}), dim, columns) for name in found[dim].values]
        parts += [f"<h4>{'Detectors' if dim == 'detector' else 'Beam'}</h4>", markup.table(head, rows)]
    return "".join(parts)


def _row(found: xr.Dataset, dim: str, columns: tuple[str, ...]) -> tuple[Any, ...]:
    return (str(found[dim].item()), *(_number(found[c]) for c in columns))


def _number(value: Any) -> Any:
    number = value.item()
    return "" if isinstance(number, float) and np.isnan(number) else number


class DashboardPage:
    """What one browser sees.

    Parameters
    ----------
    shelf : Shelf
    judged : Judged
    document : bokeh Document, optional
    asked : mapping of str to str
        What the address asks for: experiment, run.
    live : str
        Address of the page of live plots, if there is one.
    """

    def __init__(
        self,
        shelf: Shelf,
        judged: Judged,
        document: Any = None,
        asked: Mapping[str, str] | None = None,
        live: str = "",
    ) -> None:
        self.shelf, self.judged, self.asked, self.live = shelf, judged, dict(asked or {}), live
        self.summary: Summary | None = None
        self.scan: Scan | None = None
        self._answers = Answers(document)
        self.status = Status()
        self._opening = Background(document, self.status.failed)
        self._judging = Background(document, self._not_judged, self._judges, LONG)
        self._scanning = Background(document, self._no_scan)
        self.chooser = RunChooser(shelf, self._answers, self._opening, self.asked, self._open, WIDTH)
        self._widgets()
        self._watch()
        self.chooser.start()

    # ---- parts --------------------------------------------------------------------------------
    def _widgets(self) -> None:
        w = pn.widgets
        self.judge = w.Button(label="Judge this run", color="primary")
        self.y = w.Select(label="Mean of", width=WIDTH)
        self.x = w.Select(label="over", width=WIDTH)
        self.condition = w.TextInput(
            label="Only events where",
            placeholder="evr.has(90, -162)",
            width=WIDTH,
            max_length=MOST_CHARACTERS,
        )
        self.about, self.problems, self.quality, self.scan_note = (pane() for _ in range(4))
        nothing: dict[str, list[Any]] = {"x": [], "y": [], "low": [], "high": [], "count": []}
        self.points = ColumnDataSource(nothing)
        tips = [("x", "@x"), ("mean", "@y"), ("events", "@count")]
        tools = "pan,wheel_zoom,box_zoom,reset,save,hover"
        self.plot = figure(width=700, height=420, tools=tools, name="scan", tooltips=tips)
        self.plot.line("x", "y", source=self.points, color="#1f77b4")
        self.plot.scatter("x", "y", source=self.points, size=6, color="#1f77b4")
        self.plot.segment("x", "low", "x", "high", source=self.points, color="#1f77b4")

    @property
    def view(self) -> Any:
        """Return the page."""
        row, column = pn.Row, pn.Column
        left = column(self.chooser.experiment, self.chooser.run, width=WIDTH + 20)
        scan = row(column(self.y, self.x, self.condition, self.scan_note, width=WIDTH + 20),
                   pn.pane.Bokeh(self.plot))  # fmt: skip
        tabs = pn.Tabs(
            ("Contents", self.about), ("Quality", column(self.judge, self.quality)), ("Scan", scan),
            ("Live", pane(1000, self._live())),
        )  # fmt: skip
        return column(self.status.view, self.problems, row(left, tabs))

    def _live(self) -> str:
        if self.live:
            address = markup.text(self.live)
            look = "loading='lazy' title='live'"  # it begins when it is looked at
            frame = f"<iframe {look} src='{address}' style='width:100%;height:760px;border:0'"
            link = f"<a href='{address}' target='_blank'>Live plots on a page of their own</a>"
            return f"<p>{link}</p>{frame}></iframe>"
        words = "No live source: start psana-dask browse with --live SOURCE --plot DETECTOR."
        return markup.note(words)

    def _watch(self) -> None:
        on, click = self._answers.on, self._answers.click
        on(self.chooser.run, self._open)
        for widget in (self.x, self.y, self.condition):
            on(widget, self._scan)
        click(self.judge, self._judge)

    # ---- choosing -----------------------------------------------------------------------------
    def _open(self) -> None:
        choice = self.chooser.chosen
        if choice is None:
            self.status.say(self.chooser.why_none, "bad")
            return
        self.status.say("opening ...")
        self._opening.do(lambda: summary_of(self.shelf, choice), self._opened)

    def _opened(self, summary: Summary) -> None:
        self.summary = summary
        self.status.say(summary.title)
        lines = markup.note("\n".join(summary.lines))
        self.about.object = lines + markup.table(COLUMNS, summary.rows)
        self.problems.object = _problems_text(summary)
        with self._answers.silently():
            offer(self.y, summary.numbers)
            offer(self.x, summary.over)
        known = self.judged.known(summary.choice)
        self.quality.object = "" if known is None else quality_text(known)
        self._scan()

    # ---- quality ------------------------------------------------------------------------------
    def _judge(self) -> None:
        summary = self.summary
        if summary is None or self._judging.running:
            return
        self.quality.object = markup.note("reading a sample of the frames, and all numbers ...")

        def work() -> tuple[Summary, Any]:
            return summary, self.judged.of(summary.choice, self.shelf.open(summary.choice))

        self._judging.do(work, self._tell_quality)

    def _tell_quality(self, found: tuple[Summary, Any]) -> None:
        if found[0] is self.summary:
            self.quality.object = quality_text(found[1])

    def _judges(self, busy: bool) -> None:
        self.judge.disabled = busy

    def _not_judged(self, error: BaseException) -> None:
        self.quality.object = markup.note(explained(error), "bad")

    # ---- scans --------------------------------------------------------------------------------
    def _scan(self) -> None:
        summary, y, x = self.summary, self.y.value, self.x.value
        condition = str(self.condition.value)
        if summary is None or y is None or x is None:
            self._draw(None)
            return
        self._scanning.do(lambda: scan_of(self.shelf.open(summary.choice), y, x, condition), self._draw)

    def _draw(self, scan: Scan | None) -> None:
        self.scan = scan
        if scan is None:
            self.points.data = {"x": [], "y": [], "low": [], "high": [], "count": []}
            self.scan_note.object = markup.note("this run has no numbers" if self.summary else "")
            return
        error = np.nan_to_num(scan.error)
        self.points.data = {"x": scan.x, "y": scan.mean, "low": scan.mean - error, "high": scan.mean + error,
                            "count": scan.count}  # fmt: skip
        self.plot.xaxis.axis_label, self.plot.yaxis.axis_label = scan.x_name, f"mean of {scan.y_name}"
        events = f"{int(scan.count.sum())} events at {len(scan.x)} places"
        more = f", {scan.left_out} without these numbers" if scan.left_out else ""
        self.scan_note.object = markup.note(f"{events}{more}; bars: standard deviation of the mean")

    def _no_scan(self, error: BaseException) -> None:
        self._draw(None)
        self.scan_note.object = markup.note(explained(error), "bad")


def _problems_text(summary: Summary) -> str:
    if not summary.problems:
        return ""
    head = f"{len(summary.problems)} problems: part of this run could not be read"
    return markup.note(head, "warn") + markup.table(("what", "file"), summary.problems, most=20)

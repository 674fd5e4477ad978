"""The constants manager: what a store holds on a time line, what is in it, and what may be done with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import panel as pn
from bokeh.models import ColumnDataSource
from bokeh.plotting import figure

from psana_dask.calib.constants import Constants
from psana_dask.calib.exchange import change, facts
from psana_dask.calib.localstore import HistoryLine
from psana_dask.calib.store import difference
from psana_dask.drawing import side_by_side
from psana_dask.errors import ConstantsError, NameNotFound, PsanaError
from psana_dask.pages import markup
from psana_dask.pages.answers import Answers
from psana_dask.pages.background import Background
from psana_dask.pages.canvas import Canvas, part_seen
from psana_dask.pages.choosing import RunChoice, Shelf
from psana_dask.pages.confirming import Confirmed, Plan
from psana_dask.pages.darks import DarkCard
from psana_dask.pages.desk import (
    LONGEST_COMMENT,
    READ_ONLY,
    Bar,
    Desk,
    desk_for,
    histogram,
    last_run,
    name_in_store,
    stage_values,
    stages_of,
)
from psana_dask.pages.masking import undo_plan
from psana_dask.pages.parts import RunChooser, Status, offer, pane
from psana_dask.pages.pictures import CONTRASTS, Picture, contrast
from psana_dask.pages.timeline import TimeLine

if TYPE_CHECKING:
    from psana_dask.run import Run

WIDTH = 230
NOTHING = "nothing"


@dataclass(frozen=True, eq=False)
class Held:
    """What a store holds for a detector.

    Parameters
    ----------
    desk : Desk
    detector : str
        As the store calls it.
    bars : tuple of Bar
    history : tuple of (kind, HistoryLine)
        Newest first.
    """

    desk: Desk
    detector: str
    bars: tuple[Bar, ...]
    history: tuple[tuple[str, HistoryLine], ...]


@dataclass(frozen=True, eq=False)
class Looked:
    """A constant that is looked at: itself, or the difference from another one."""

    constant: Constants
    stage: str
    stages: tuple[str, ...]
    picture: Picture | None
    seen: Picture | None
    edges: list[float]
    counts: list[float]
    facts: Mapping[str, Any]
    text: str = ""  # of a constant that is text


def held(desk: Desk, detector: str) -> Held:
    """Read what a store holds for a detector."""
    bars = tuple(desk.bars(detector)) if detector else ()
    kinds = dict.fromkeys(b.listed.kind for b in bars)
    stored = getattr(desk.store, "kinds", None)
    kinds |= dict.fromkeys(stored(detector) if stored is not None and detector else ())  # also all taken back
    lines = [(kind, line) for kind in kinds for line in desk.history(detector, kind)]
    return Held(desk, detector, bars, tuple(sorted(lines, key=lambda p: p[1].time, reverse=True)))


def looked_at(desk: Desk, bar: Bar, other: Bar | None, stage: str) -> Looked:
    """Read a constant, or the difference of two, for the eye."""
    shown = desk.constant(bar.listed)
    told: dict[str, Any] = {**facts(shown)}
    if other is not None:
        before = desk.constant(other.listed)
        told = {"new": shown.origin, "old": before.origin, "difference": str(difference(shown, before))}
        shown = change(shown, before)
    return seen(shown, stage, told)


def seen(constant: Constants, stage: str, told: Mapping[str, Any]) -> Looked:
    """Lay a constant out for the eye; a stage that it does not have becomes its first."""
    value = constant.value
    if isinstance(value, str):
        return Looked(constant, "", ("",), None, None, [0.0, 1.0], [0.0], told, value[:20_000])
    stages = tuple(stages_of(constant))
    stage = stage if stage in stages else stages[0]
    values = stage_values(constant, stage)
    edges, counts, numbers = histogram(values)
    picture = None
    if values.ndim > 1:
        laid = side_by_side(values).astype(np.float32)
        ends = (0.0, float(laid.shape[1])), (0.0, float(laid.shape[0]))
        picture = Picture(laid, *ends, value_unit=constant.unit)
    part = None if picture is None else part_seen(picture, None)
    return Looked(constant, stage, stages, picture, part, edges, counts, {**told, **numbers})


class ConstantsPage:
    """What one browser sees.

    Parameters
    ----------
    shelf : Shelf
    write : bool
        Whether constants may be put in force and taken back.
    document : bokeh Document, optional
    asked : mapping of str to str
        What the address asks for: experiment, detector.
    """

    def __init__(
        self, shelf: Shelf, write: bool = False, document: Any = None, asked: Mapping[str, str] | None = None
    ) -> None:
        self.shelf, self.write, self.asked = shelf, write, dict(asked or {})
        self.held: Held | None = None
        self.looked: Looked | None = None
        self._dark: Constants | None = None  # what a dark run gave, while it is looked at
        self.status = Status()
        self._answers = Answers(document)
        self._listing, self._looking, self._why = (Background(document, self.status.failed) for _ in range(3))
        self.chooser = RunChooser(shelf, self._answers, self._listing, self.asked, self._list_names, WIDTH)
        self.canvas = Canvas(self._zoomed, drawn_on=False, size=400)
        self.timeline = TimeLine(self._clicked)
        why_not = "" if write else READ_ONLY
        self.deploy = Confirmed("Put in force", self._ask_deploy, document, self._changed, why_not)
        self.undo = Confirmed("Take back", self._ask_undo, document, self._changed, why_not)
        self.dark = DarkCard(shelf, write, document, self._desk_now, self._look_at_dark, self._changed)
        self._widgets()
        self._watch()
        self.chooser.start()

    # ---- parts --------------------------------------------------------------------------------
    def _widgets(self) -> None:
        w = pn.widgets
        self.detector = w.Select(label="Detector", width=WIDTH)
        self.bar = w.Select(label="Constant", width=WIDTH)
        self.minus = w.Select(label="minus", width=WIDTH)
        self.stage = w.Select(label="Gain range", options=[""], width=WIDTH)
        self.contrast = w.Select(label="Contrast", options=list(CONTRASTS), width=WIDTH)
        self.runs = w.TextInput(label="For runs (10, 10-20 or 10-end)", width=220)
        self.comment = w.TextInput(label="Comment", width=300, max_length=LONGEST_COMMENT)
        self.kind = w.Select(label="Kind", width=220)
        self.store, self.why = pane(), pane()
        self.facts, self.history, self.title = pane(700), pane(820), pane(900)
        self.bins = ColumnDataSource({"left": [], "right": [], "top": []})
        self.histogram = figure(width=400, height=300, tools="xpan,xwheel_zoom,reset,save", name="histogram",
                                y_axis_label="pixels")  # fmt: skip
        self.histogram.quad("left", "right", "top", 0, source=self.bins, line_color=None)
        self.tabs = self._tabs()

    def _tabs(self) -> Any:
        row, column = pn.Row, pn.Column
        pictures = row(pn.pane.Bokeh(self.canvas.figure), pn.pane.Bokeh(self.histogram))
        hint = pane(None, markup.note("The constant that is shown is put in force for other runs."))
        return pn.Tabs(
            ("Picture", column(self.title, pictures)),
            ("Provenance", column(self.facts, self.why)),
            ("History", self.history),
            ("Dark runs", self.dark.view),
            ("Deploy", column(hint, row(self.runs, self.comment), self.deploy.view)),
            ("Undo", column(self.kind, self.undo.view)),
        )

    @property
    def view(self) -> Any:
        """Return the page."""
        left = pn.Column(
            self.chooser.experiment, self.chooser.run, self.detector, self.bar, self.minus, self.stage,
            self.contrast, width=WIDTH + 20,
        )  # fmt: skip
        right = pn.Column(pn.pane.Bokeh(self.timeline.figure), self.tabs)
        return pn.Column(self.status.view, self.store, pn.Row(left, right))

    def _watch(self) -> None:
        on = self._answers.on
        on(self.chooser.run, self._mark)
        on(self.detector, self._list)
        for widget in (self.bar, self.minus):
            on(widget, self._look)
        on(self.stage, self._other_stage)
        self._answers.click(self.dark.show, self._to_picture)
        on(self.contrast, self._colour)

    # ---- choosing -----------------------------------------------------------------------------
    def _list_names(self) -> None:
        runs = self.chooser.runs
        self._listing.do(lambda: self._names(runs), self._detectors)

    @property
    def _run(self) -> int | None:
        """Number of the run that is chosen."""
        return None if self.chooser.chosen is None else self.chooser.chosen.number

    def _names(self, runs: list[RunChoice]) -> list[str]:
        """Return the detectors of the store, and those of the last run that have frames."""
        from psana_dask.pages.event_content import layout_of

        run = self._last(runs)
        desk = self._desk(run)
        framed = [] if run is None else [name_in_store(desk, run[n]) for n in layout_of(run).frames]
        return list(dict.fromkeys([*desk.detectors(), *framed]))

    def _last(self, runs: list[RunChoice]) -> Run | None:
        """Open the newest run that can be opened."""
        for choice in reversed(runs[-3:]):
            try:
                return self.shelf.open(choice)
            except PsanaError:
                continue
        return None

    def _desk(self, run: Run | None) -> Desk:
        experiment = "" if run is None else run.experiment or ""
        return desk_for(self.shelf.calib, experiment, run, self.write)

    def _desk_now(self) -> Desk:
        return self.held.desk if self.held is not None else self._desk(None)

    def _detectors(self, names: list[str]) -> None:
        with self._answers.silently():
            offer(self.detector, names, self.asked.pop("detector", None))
        self.dark.put(self.chooser.runs)
        self._list()

    def _list(self) -> None:
        detector, choices = str(self.detector.value or ""), self.chooser.runs

        def work() -> Held:
            return held(self._desk(self._last(choices)), detector)

        self._listing.do(work, self._put)

    def _put(self, found: Held) -> None:
        self.held = found
        self.store.object = markup.note(f"{found.desk.name}{'' if self.write else ' (read only)'}")
        labels = {f"{k + 1}: {bar.label}": k for k, bar in enumerate(found.bars)}
        with self._answers.silently():
            kept = self.bar.value if self.bar.value in labels.values() else next(iter(labels.values()), None)
            self.bar.param.update(options=labels, value=kept)
            self.minus.param.update(options={NOTHING: -1, **labels}, value=-1)
            kinds = list(dict.fromkeys(kind for kind, line in found.history if line.action == "deploy"))
            self.kind.param.update(options=kinds, value=kinds[0] if kinds else None)
        self.timeline.put(found.bars, last_run(found.bars, [c.number for c in self.chooser.runs]))
        self._mark()
        rows = [(kind, *_history_row(line)) for kind, line in found.history]
        self.history.object = markup.table(("kind", "time", "done", "file", "user", "comment"), rows)
        self._look()

    def _mark(self) -> None:
        self.timeline.mark(self._run)
        self._explain()

    # ---- looking ------------------------------------------------------------------------------
    def _bar(self, number: Any) -> Bar | None:
        bars = () if self.held is None else self.held.bars
        return bars[number] if isinstance(number, int) and 0 <= number < len(bars) else None

    def _clicked(self, number: int) -> None:
        if self._bar(number) is not None:
            self.bar.value = number

    def _look(self) -> None:
        bar, other = self._bar(self.bar.value), self._bar(self.minus.value)
        found, stage = self.held, str(self.stage.value or "")
        self._dark = None
        if found is None or bar is None:
            self._nothing()
            return
        self._looking.do(lambda: looked_at(found.desk, bar, other, stage), self._show)
        self._explain()

    def _nothing(self) -> None:
        self.canvas.empty()
        self.looked = None
        self.bins.data = {"left": [], "right": [], "top": []}
        self.facts.object = self.title.object = ""
        self.status.say("no constant is stored for this detector")

    def _to_picture(self) -> None:
        if self.dark.kind.value:
            self.tabs.active = 0

    def _other_stage(self) -> None:
        if self._dark is None:
            self._look()
        else:
            self._look_at_dark(self._dark, str(self.stage.value or ""))

    def _look_at_dark(self, constant: Constants, stage: str) -> None:
        """Show what a dark run gave, before it is put in force."""
        self._dark = constant
        told = {**facts(constant), "origin": "not put in force"}
        self._looking.do(lambda: seen(constant, stage, told), self._show)

    def _show(self, looked: Looked) -> None:
        self.looked = looked
        with self._answers.silently():
            self.stage.param.update(options=list(looked.stages), value=looked.stage)
        if looked.picture is None or looked.seen is None:
            self.canvas.empty()
        else:
            self.canvas.put(looked.picture, looked.seen, contrast(looked.picture, self.contrast.value))
        self.bins.data = {"left": looked.edges[:-1], "right": looked.edges[1:], "top": looked.counts}
        self.histogram.xaxis.axis_label = looked.constant.unit or looked.constant.kind
        text = markup.code(looked.text) if looked.text else ""
        self.facts.object = markup.facts(looked.facts) + text
        stage = f", {looked.stage}" if looked.stage else ""
        one = looked.constant
        whole = f"{one.kind} of {one.detector}{stage}: {looked.facts.get('origin', '')}"
        self.title.object = markup.note(looked.facts.get("difference") or whole)
        self.status.say("")

    def _colour(self) -> None:
        if self.canvas.picture is not None:
            self.canvas.colour(contrast(self.canvas.picture, self.contrast.value))

    def _zoomed(self, *_: Any) -> None:
        picture, window = self.canvas.picture, self.canvas.window

        def then(part: Picture) -> None:
            if self.canvas.picture is picture:
                self.canvas.show(part)

        if picture is not None:
            self._looking.do(lambda: part_seen(picture, window), then)

    def _explain(self) -> None:
        bar, run, found = self._bar(self.bar.value), self._run, self.held
        if bar is None or run is None or found is None:
            self.why.object = ""
            return

        def work() -> str:
            return found.desk.why(bar.listed.detector, bar.listed.kind, run)

        def then(text: str) -> None:
            self.why.object = f"<h4>In force for run {run}</h4>{markup.code(text)}"

        self._why.do(work, then)

    # ---- changing -----------------------------------------------------------------------------
    def _ask_deploy(self) -> Callable[[], Plan]:
        found, bar = self.held, self._bar(self.bar.value)
        if found is None or bar is None:
            raise ConstantsError("no constant is shown")
        detector, comment = str(self.detector.value), str(self.comment.value)
        runs = str(self.runs.value).strip()
        if not runs:
            raise ConstantsError("say for which runs: 10, 10-20 or 10-end")
        return lambda: copy_plan(found.desk, bar, detector, runs, comment)

    def _ask_undo(self) -> Callable[[], Plan]:
        found, kind = self.held, self.kind.value
        if found is None or kind is None:
            raise NameNotFound("nothing was put in force here")
        return lambda: undo_plan(found.desk, found.detector, kind)

    def _changed(self) -> None:
        self.shelf.forget()
        self._list()

    def close(self) -> None:
        """Stop what is being worked out: nobody looks any more."""
        self.dark.close()


def _history_row(line: HistoryLine) -> tuple[str, str, str, str, str]:
    return line.time, line.action, line.file, line.user, line.comment


def copy_plan(desk: Desk, bar: Bar, detector: str, runs: str, comment: str) -> Plan:
    """Return the plan to put a stored constant in force for other runs."""
    constant = desk.constant(bar.listed)
    [trial] = desk.preview([constant], detector, runs)

    def deed() -> str:
        [done] = desk.deploy([constant], detector, runs, comment)
        return f"wrote {done.path}; {done.difference}"

    backup = f"\nThe file that is there is kept as {trial.backup.name}" if trial.backup else ""
    what = f"{bar.label} of {detector} for runs {runs}:"
    return Plan(f"{what}\n{trial.path}\n{trial.difference}{backup}", deed)

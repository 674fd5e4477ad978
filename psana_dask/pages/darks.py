"""Dark runs on a page: chosen, worked out with progress, looked at, put in force after a second click."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import panel as pn

from psana_dask.calib.constants import Constants
from psana_dask.dark_runs import Dark, dark
from psana_dask.errors import ConstantsError, NameNotFound
from psana_dask.pages import markup
from psana_dask.pages.answers import Answers
from psana_dask.pages.background import LONG, Background
from psana_dask.pages.choosing import RunChoice, Shelf
from psana_dask.pages.confirming import Confirmed, Plan
from psana_dask.pages.desk import LONGEST_COMMENT, READ_ONLY, Desk
from psana_dask.pages.markup import explained

MISSING = {
    "an error": "error",
    "those in force": "in force",
    "zeros (ones for rms)": "neutral",
}
MOST_RUNS = 16
TELL_EVERY = 0.2
"""Seconds between two messages of progress."""


class Stopped(Exception):
    """The user asked to stop."""


class DarkJob:
    """A dark that is being worked out.

    Parameters
    ----------
    tell : callable
        Told events done and events in all, now and then, from the thread that works.
    """

    def __init__(self, tell: Callable[[int, int], None]) -> None:
        self._tell, self._told, self.stop = tell, 0.0, False

    def __call__(self, done: int, total: int) -> None:
        """Note progress; raises `Stopped` if it was asked to stop."""
        if self.stop:
            raise Stopped("stopped")
        now = time.monotonic()
        if done >= total or now - self._told > TELL_EVERY:
            self._told = now
            self._tell(done, total)


class DarkCard:
    """The part of a page that works dark runs out.

    Parameters
    ----------
    shelf : Shelf
    write : bool
    document : bokeh Document, optional
    desk : callable
        Returns where constants are put in force.
    look : callable
        Shows a constant and one of its gain ranges.
    changed : callable
        Called when constants were put in force.
    """

    def __init__(
        self,
        shelf: Shelf,
        write: bool,
        document: Any,
        desk: Callable[[], Desk],
        look: Callable[[Constants, str], None],
        changed: Callable[[], None],
    ) -> None:
        self._shelf, self._desk, self._look = shelf, desk, look
        self._answers = Answers(document)
        self._choices: dict[str, RunChoice] = {}
        self._job: DarkJob | None = None
        self.found: Dark | None = None
        self._made: dict[str, Constants] = {}
        self._working = Background(document, self._failed, self._busy, LONG)
        self._listing = Background(document, self._failed)
        self._widgets()
        self.deploy = Confirmed("Put dark in force", self._ask, document, changed, "" if write else READ_ONLY)
        row = pn.Row
        self.view = pn.Column(
            row(self.runs, self.detector),
            row(self.stage, self.events, self.missing),
            row(self.start, self.stop),
            self.progress,
            self.said,
            row(self.kind, self.show),
            row(self.for_runs, self.comment),
            self.deploy.view,
        )

    def _widgets(self) -> None:
        w = pn.widgets
        self.runs = w.MultiSelect(label="Dark runs (several for several gain ranges)", width=260, size=4)
        self.detector = w.Select(label="Detector", width=200)
        self.stage = w.TextInput(label="Gain range (if the words do not say it)", width=250, max_length=40)
        self.events = w.IntInput(label="Events of each run, at most", value=1000, start=2, width=170)
        self.missing = w.Select(label="Ranges not measured get", options=MISSING, width=180)
        self.start = w.Button(label="Work out", color="primary")
        self.stop = w.Button(label="Stop", disabled=True)
        self.progress = pn.indicators.Progress(value=0, max=100, width=460, visible=False)
        self.said = pn.pane.HTML("", stylesheets=[markup.STYLE], width=700)
        self.kind = w.Select(label="Look at", width=200)
        self.show = w.Button(label="Show", margin=(22, 10))
        self.for_runs = w.TextInput(label="For runs (10, 10-20 or 10-end)", width=220, max_length=40)
        self.comment = w.TextInput(label="Comment", width=300, max_length=LONGEST_COMMENT)
        self._answers.click(self.start, self._start)
        self._answers.click(self.stop, self.close)
        self._answers.click(self.show, self._show)
        self._answers.on(self.runs, self._detectors)

    def put(self, choices: Sequence[RunChoice]) -> None:
        """Offer other runs."""
        self._choices = {f"run {c.number}": c for c in choices}
        self.runs.options = list(self._choices)
        self.runs.value = []

    def _chosen(self) -> list[RunChoice]:
        return [self._choices[name] for name in list(self.runs.value)[:MOST_RUNS] if name in self._choices]

    def _detectors(self) -> None:
        chosen = self._chosen()
        if chosen:
            self._listing.do(partial(self._frames, chosen[0]), self._offer)

    def _frames(self, choice: RunChoice) -> list[str]:
        from psana_dask.pages.event_content import layout_of

        return list(layout_of(self._shelf.open(choice)).frames)

    def _offer(self, names: list[str]) -> None:
        value = self.detector.value if self.detector.value in names else (names[0] if names else None)
        self.detector.param.update(options=names, value=value)

    # ---- working ------------------------------------------------------------------------------
    def _start(self) -> None:
        chosen, detector = self._chosen(), self.detector.value
        if not chosen or detector is None:
            self._failed(NameNotFound("choose dark runs and a detector"))
            return
        if self._working.running:
            self._failed(ConstantsError("one is being worked out"))
            return
        stage = str(self.stage.value).strip() or None
        events = max(2, int(self.events.value or 2))
        job = self._job = DarkJob(lambda done, total: self._working.tell(partial(self._tell, done, total)))
        missing = str(self.missing.value)
        self._tell(0, 0)

        def work() -> Dark:
            runs = [self._shelf.open(c).isel(slice(events)) for c in chosen]
            return replace(dark(runs, detector, stage=stage, progress=job), missing=missing)

        self._working.do(work, self._finished)

    def close(self) -> None:
        """Stop what is being worked out."""
        if self._job is not None:
            self._job.stop = True

    def _busy(self, busy: bool) -> None:
        self.start.disabled, self.stop.disabled, self.progress.visible = busy, not busy, busy

    def _tell(self, done: int, total: int) -> None:
        self.progress.value = int(100 * done / total) if total else 0
        words = f"{done} of {total} frames" if total else "waiting for its turn ..."
        self.said.object = markup.note(words)

    def _finished(self, found: Dark) -> None:
        self.found, self._made = found, {}
        said = repr(found)
        try:
            self._made = found.constants()
        except ConstantsError as error:
            said += f"\nnot yet complete: {error}"
        self.said.object = markup.code(said)
        self.kind.param.update(options=list(self._made), value=next(iter(self._made), None))
        self.for_runs.value = f"{min(found.runs, default=0)}-end"
        self._show()

    def _show(self) -> None:
        constant = self._made.get(self.kind.value)
        if constant is not None and self.found is not None:
            self._look(constant, "")

    def _failed(self, error: BaseException) -> None:
        self.said.object = markup.note(explained(error), "bad")

    # ---- putting in force ---------------------------------------------------------------------
    def _ask(self) -> Callable[[], Plan]:
        found, made = self.found, list(self._made.values())
        if found is None or not made:
            raise ConstantsError("work a dark out first")
        runs, comment = str(self.for_runs.value).strip(), str(self.comment.value)
        comment = comment or f"dark of run {', '.join(map(str, found.runs))}"
        return lambda: dark_plan(self._desk(), found, made, runs, comment)


def dark_plan(desk: Desk, found: Dark, made: Sequence[Constants], runs: str, comment: str) -> Plan:
    """Return the plan to put what a dark gave in force."""
    trials = desk.preview(made, found.detector, runs, found.row.group)

    def deed() -> str:
        done = desk.deploy(made, found.detector, runs, comment, found.row.group)
        return "\n".join(f"wrote {d.path}" for d in done)

    return Plan("\n".join(f"{t.path}: {t.difference}" for t in trials), deed)

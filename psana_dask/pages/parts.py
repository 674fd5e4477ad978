"""Parts that pages share: text, a line that says what is going on, a choice of experiment and run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import panel as pn

from psana_dask.pages import markup
from psana_dask.pages.answers import Answers
from psana_dask.pages.background import Background
from psana_dask.pages.choosing import RunChoice, Shelf


def pane(width: int | None = None, text: str = "") -> Any:
    """Return a place for text, as wide as the page if no width is given."""
    how: dict[str, Any] = {"width": width} if width else {"sizing_mode": "stretch_width"}
    return pn.pane.HTML(text, stylesheets=[markup.STYLE], **how)


def offer(widget: Any, names: Sequence[str], asked: str | None = None) -> None:
    """Give a widget new choices: the one that is asked for, else the one it has, else the first."""
    value = next((v for v in (asked, widget.value) if v in names), names[0] if names else None)
    widget.param.update(options=list(names), value=value)


class Status:
    """The line at the top of a page."""

    def __init__(self) -> None:
        self.view = pane()

    def say(self, words: str, kind: str = "plain") -> None:
        """Say something: ``"plain"``, ``"warn"`` or ``"bad"``."""
        self.view.object = markup.note(words, kind)

    def failed(self, error: BaseException) -> None:
        """Say what went wrong."""
        self.say(markup.explained(error), "bad")


class RunChooser:
    """Experiment and run, out of lists that the server made.

    Parameters
    ----------
    shelf : Shelf
    answers : Answers
    background : Background
        Where lists are made.
    asked : dict of str to str
        What the address asks for; what was found is taken out.
    listed : callable
        Told when the runs of an experiment are listed, and one is chosen.
    width : int
        Of the widgets.
    """

    def __init__(
        self,
        shelf: Shelf,
        answers: Answers,
        background: Background,
        asked: dict[str, str],
        listed: Callable[[], None],
        width: int,
    ) -> None:
        self._shelf, self._answers, self._background = shelf, answers, background
        self._asked, self._listed = asked, listed
        self.runs: list[RunChoice] = []
        self.experiment = pn.widgets.Select(label="Experiment", width=width)
        self.run = pn.widgets.Select(label="Run", width=width)
        answers.on(self.experiment, self._list)

    def start(self) -> None:
        """Make the lists."""
        self._background.do(self._shelf.experiments, self._experiments)

    @property
    def chosen(self) -> RunChoice | None:
        """The run that is chosen."""
        choice: RunChoice | None = self.run.value
        return choice

    @property
    def why_none(self) -> str:
        """Why no run is chosen."""
        if self.experiment.value is None:
            return "there is no experiment here: name one, or a folder with --dir"
        return "this experiment has no runs"

    def _experiments(self, names: list[str]) -> None:
        asked = self._asked.pop("experiment", "")
        with self._answers.silently():
            value = asked if asked in names else (names[-1] if names else None)
            self.experiment.param.update(options=names, value=value)
        if names:
            self._list()
        else:
            self._listed()

    def _list(self) -> None:
        experiment = str(self.experiment.value)
        self._background.do(lambda: self._shelf.runs(experiment), self._runs)

    def _runs(self, runs: list[RunChoice]) -> None:
        asked = self._asked.pop("run", "")
        value = next((c for c in runs if str(c.number) == asked), runs[-1] if runs else None)
        names = {f"run {c.number}" if c.number >= 0 else "run ?": c for c in runs}
        self.runs = runs
        with self._answers.silently():
            self.run.param.update(options=names, value=value)
        self._listed()

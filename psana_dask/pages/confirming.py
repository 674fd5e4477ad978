"""A button whose deed is shown first and done after a second click."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import panel as pn

from psana_dask.pages import markup
from psana_dask.pages.answers import Answers
from psana_dask.pages.background import Background


@dataclass(frozen=True)
class Plan:
    """What would be done.

    Parameters
    ----------
    text : str
        For the user, who decides.
    deed : callable
        Does it, and returns what was done.
    """

    text: str
    deed: Callable[[], str]


class Confirmed:
    """A button, what it would do, and the choice to do it or not.

    Parameters
    ----------
    label : str
        Of the button.
    ask : callable
        Called on the loop of the page; collects what the user chose and returns the work, done in a
        thread, that makes the `Plan`.
    document : bokeh Document, optional
    done : callable
        Called after the deed.
    why_not : str
        Why the button has no use; empty if it has. The deed must refuse by itself.
    """

    def __init__(
        self,
        label: str,
        ask: Callable[[], Callable[[], Plan]],
        document: Any,
        done: Callable[[], None],
        why_not: str = "",
    ) -> None:
        self._ask, self._done = ask, done
        self._plan: Plan | None = None
        self._background = Background(document, self._failed)
        self.button = pn.widgets.Button(label=label, color="primary", disabled=bool(why_not))
        self.yes = pn.widgets.Button(label="Yes, do it", color="danger", visible=False)
        self.no = pn.widgets.Button(label="No", visible=False)
        self.said = pn.pane.HTML(markup.note(why_not), stylesheets=[markup.STYLE], width=380)
        answers = Answers(document)
        answers.click(self.button, self._asked)
        answers.click(self.yes, self._confirmed)
        answers.click(self.no, lambda: self._offer(None, ""))
        self.view = pn.Column(self.button, self.said, pn.Row(self.yes, self.no))

    def _asked(self) -> None:
        try:
            work = self._ask()
        except Exception as error:
            self._failed(error)
            return
        self._background.do(work, lambda plan: self._offer(plan, plan.text))

    def _offer(self, plan: Plan | None, words: str, kind: str = "warn") -> None:
        self._plan = plan
        self.said.object = markup.note(words, kind)
        self.yes.visible = self.no.visible = plan is not None

    def _confirmed(self) -> None:
        plan, self._plan = self._plan, None
        if plan is not None:
            self._offer(None, "working ...", "plain")
            self._background.do(plan.deed, self._finished)

    def _finished(self, words: str) -> None:
        self._offer(None, words, "good")
        self._done()

    def _failed(self, error: BaseException) -> None:
        self._offer(None, markup.explained(error), "bad")

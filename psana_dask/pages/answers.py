"""Answers to what a person does on a page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Does = Callable[[], None]


class Answers:
    """Calls functions when widgets change, on the loop of the page, where it may be changed.

    Parameters
    ----------
    document : bokeh Document, optional
        Without one, functions are called at once.
    """

    def __init__(self, document: Any) -> None:
        self._document = document
        self._quiet = False

    def on(self, widget: Any, does: Does, name: str = "value") -> None:
        """Call a function when a value of a widget changes."""
        widget.param.watch(lambda _: None if self._quiet else self.soon(does), name)

    def click(self, button: Any, does: Does) -> None:
        """Call a function when a button is clicked."""
        button.on_click(lambda _: self.soon(does))

    def soon(self, does: Does) -> None:
        """Call a function where the page may be changed: panel tells of widgets without its lock."""
        if self._document is None:
            does()
        else:
            self._document.add_next_tick_callback(does)

    @contextmanager
    def silently(self) -> Iterator[None]:
        """Change widgets without answering to it."""
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before

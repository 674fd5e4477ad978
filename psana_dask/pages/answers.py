"""Answers to what a person does on a page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Does = Callable[[], None]


def next_on_loop(document: Any, does: Does) -> bool:
    """Call a function on the loop of a page, from any thread; return whether the page is still there.

    Bokeh (3.9) takes the documents of closed pages apart, and what is still to be called then finds a part
    missing; of documents whose server was stopped nothing is called any more.
    """
    try:
        document.add_next_tick_callback(does)
    except AttributeError:
        if document.session_context is not None:
            raise
        return False
    return True


def on_loop(document: Any, does: Does) -> bool:
    """Call a function on the loop of a page, from any thread; what it changes is sent together.

    Returns whether the page is still there.

    Changes that are not held panel sends by itself, and now and then forgets some (1.9.4: messages that
    are queued while others are being written wait for the next change).
    """

    def together() -> None:
        document.hold("combine")
        try:
            does()
        finally:
            document.unhold()

    return next_on_loop(document, together)


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
            on_loop(self._document, does)

    @contextmanager
    def silently(self) -> Iterator[None]:
        """Change widgets without answering to it."""
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before

"""Work off the event loop: reading and computing must not keep other users waiting.

A page asks; a thread works; the answer is shown on the loop of the page's document. While
something is under way only the newest wish is kept, so a slider that is dragged never queues up.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from psana_dask.pages.answers import on_loop

THREADS = 4
"""For all users together."""

QUICK = ThreadPoolExecutor(THREADS, thread_name_prefix="psana_dask page")
LONG = ThreadPoolExecutor(1, thread_name_prefix="psana_dask page, long")
"""For what takes minutes: one after the other, so that the pages of others stay quick."""


@dataclass(frozen=True)
class Wish:
    """Something to be done, and what becomes of the answer."""

    work: Callable[[], Any]
    then: Callable[[Any], None]


class Background:
    """What one part of one page has under way.

    Parameters
    ----------
    document : bokeh Document, optional
        The page; without one everything is done at once, as in a test.
    failed : callable
        Told what went wrong.
    busy : callable, optional
        Told whether something is under way.
    pool : ThreadPoolExecutor
        `QUICK` or `LONG`.
    """

    def __init__(
        self,
        document: Any,
        failed: Callable[[BaseException], None],
        busy: Callable[[bool], None] | None = None,
        pool: ThreadPoolExecutor = QUICK,
    ) -> None:
        self._document, self._failed, self._busy = document, failed, busy or (lambda _: None)
        self._pool = pool
        self._running = False
        self._next: Wish | None = None

    def do(self, work: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """Do some work in a thread, then show its result; a newer wish replaces one that waits.

        Parameters
        ----------
        work : callable
            Without arguments; must not touch the page.
        then : callable
            Takes what `work` returned, on the loop of the page. Left out if there is a newer wish.
        """
        wish = Wish(work, then)
        if self._document is None:
            self._show(wish, _tried(work))
        elif self._running:
            self._next = wish
        else:
            self._start(wish)

    @property
    def running(self) -> bool:
        """Whether something is under way."""
        return self._running

    def _start(self, wish: Wish) -> None:
        self._running = True
        self._busy(True)
        self._pool.submit(_tried, wish.work).add_done_callback(partial(self._done, wish))

    def _done(self, wish: Wish, future: Future[Any]) -> None:
        self.tell(partial(self._finished, wish, future.result()))

    def tell(self, say: Callable[[], None]) -> None:
        """Call something on the loop of the page, from any thread; a page that was closed needs nothing."""
        if self._document is None:
            say()
            return
        on_loop(self._document, say)

    def _finished(self, wish: Wish, outcome: Any) -> None:
        newest, self._next, self._running = self._next, None, False
        if newest is not None:
            self._start(newest)
            return
        self._busy(False)
        self._show(wish, outcome)

    def _show(self, wish: Wish, outcome: Any) -> None:
        if isinstance(outcome, _Failure):
            self._failed(outcome.error)
            return
        wish.then(outcome)


@dataclass(frozen=True)
class _Failure:
    error: BaseException


def _tried(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except Exception as error:
        return _Failure(error)

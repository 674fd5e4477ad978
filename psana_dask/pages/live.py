"""Live plots as a whole: a source, what is shown of it, and where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from psana_dask.errors import MissingLibrary
from psana_dask.pages.feed import Feed
from psana_dask.pages.serving import LOOPBACK, PageServer, serve
from psana_dask.stream.batches import Counters, checked

if TYPE_CHECKING:
    import xarray as xr

    from psana_dask.pages.monitor import Choices

FRAME_HEIGHT = 900
"""Of the page in a notebook, screen pixels."""


WAITING = 16
"""Events of a stream that may wait under the policy "latest": what waits is late when it is shown."""


class Live:
    """Plots of events as they come, until `close`. Made by `psana_dask.plot.live`.

    In a notebook it shows itself; in a script `serve` says where a browser finds it.

    Parameters
    ----------
    feed : Feed
        Not started.
    choices : Choices

    Examples
    --------
    >>> live = psana_dask.plot.live(run, "epixquad")
    """

    def __init__(self, feed: Feed, choices: Choices) -> None:
        self._feed, self._choices = feed, choices
        self._server: PageServer | None = None
        self._pages: list[Any] = []
        feed.start()

    # ---- life ---------------------------------------------------------------------------------
    def __enter__(self) -> Live:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the pages, the server and the source.

        Examples
        --------
        >>> live.close()
        """
        pages = list(self._pages)
        for page in pages:
            page.close()
        for page in pages:
            page.join()
        if self._server is not None:
            self._server.stop()
        self._feed.close()

    # ---- showing ------------------------------------------------------------------------------
    def serve(self, *, host: str = LOOPBACK, port: int = 0, token: str | None = None) -> PageServer:
        """Serve the page to browsers, from a thread; see `psana_dask.pages.serving.serve`.

        Examples
        --------
        >>> live = psana_dask.plot.live("shmem://TAG", ["epixquad", "gmd"])
        >>> server = live.serve()
        >>> print(server.url)
        """
        self._server = serve(self.page, host=host, port=port, token=token, title=self._choices.title)
        return self._server

    @property
    def url(self) -> str:
        """The address of the page; it is served on loopback if it is not served yet.

        Examples
        --------
        >>> live.url  # doctest: +SKIP
        """
        return (self._server or self.serve()).url

    def page(self) -> Any:
        """Return the page for one browser, as a panel object: for panel apps of one's own.

        Examples
        --------
        >>> live.page()  # doctest: +SKIP
        """
        import panel as pn

        from psana_dask.pages.monitor import MonitorPage

        page = MonitorPage(self._feed, self._choices, pn.state.curdoc)
        self._pages.append(page)
        pn.state.onload(page.start)
        pn.state.on_session_destroyed(lambda _: self._left(page))
        return page.view

    def _left(self, page: Any) -> None:
        page.close()
        self._pages = [p for p in self._pages if p is not page]

    def __panel__(self) -> Any:
        return self.page()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        del include, exclude
        size = f"width:100%;height:{FRAME_HEIGHT}px;border:1px solid #dfe3e8"
        frame = f"<iframe src='{self.url}' style='{size}' title='live plots'></iframe>"
        link = f"<a href='{self.url}' target='_blank'>{self._choices.title}</a>"
        return {"text/plain": repr(self), "text/html": f"{frame}<div>{link}</div>"}

    def __repr__(self) -> str:
        c = self.counters
        where = "" if self._server is None else f" at {self._server.url}"
        counts = f"{c.received:,} received, {c.processed:,} processed, {c.dropped:,} dropped"
        return f"<live plots of {self._feed.title}{where}: {counts}>"

    # ---- what is in it ------------------------------------------------------------------------
    @property
    def counters(self) -> Counters:
        """What became of the events so far.

        Examples
        --------
        >>> live.counters.processed
        """
        return self._feed.counters

    @property
    def error(self) -> BaseException | None:
        """Why reading ended, if it failed.

        Examples
        --------
        >>> live.error
        """
        return self._feed.error

    @property
    def dataset(self) -> xr.Dataset | None:
        """What was accumulated so far, as the user's own plots get it; None before the first event.

        Examples
        --------
        >>> live.dataset
        """
        snapshot = self._feed.snapshot
        return None if snapshot is None else snapshot.dataset


def begin(
    source: Any,
    names: Any,
    *,
    policy: str | None,
    rate: float | None,
    accumulate: Mapping[str, Any],
    look: Mapping[str, Any],
    options: Mapping[str, Any],
) -> Live:
    """Begin to show events as they come; see `psana_dask.plot.live`.

    Parameters
    ----------
    source, names, policy, rate
        As there.
    accumulate : mapping
        Choices of `Feed`.
    look : mapping
        Of `Choices`.
    options : mapping
        Of `psana_dask.open`.
    """
    try:
        from psana_dask.pages.monitor import Choices
    except ImportError:
        raise MissingLibrary.of("panel", "plot", "live plots") from None
    from psana_dask.pages.following import following, titled

    if policy is not None:
        checked(policy)
    opened = _opened(source, policy, dict(options))
    live = bool(options.get("live")) or str(source).startswith("live:")
    events = following(opened, policy, rate, live)
    listed = [names] if isinstance(names, str | tuple) or not hasattr(names, "__iter__") else list(names)
    _check(opened, listed)
    where = titled(opened, events)
    name = source if isinstance(source, str) else where.partition(",")[0]
    title = look.get("title") or f"psana_dask: {name}"
    return Live(Feed(events, listed, where, **accumulate), Choices(**{**look, "title": title}))


def _opened(source: Any, policy: str | None, options: dict[str, Any]) -> Any:
    """Open a source, unless it is open."""
    import psana_dask
    from psana_dask.entry import is_stream
    from psana_dask.run import Run
    from psana_dask.stream import Stream

    if isinstance(source, Run | Stream):
        if options:
            raise TypeError(f"{', '.join(options)}: for a source that is opened here, and this one is open")
        return source
    if is_stream(source):
        chosen = policy or ("complete" if str(source).startswith("replay://") else "latest")
        waiting = {"waiting": WAITING} if chosen == "latest" else {}
        return psana_dask.open(source, policy=chosen, **{**waiting, **options})
    return psana_dask.open(source, **options)


def _check(opened: Any, names: Sequence[Any]) -> None:
    """Refuse unknown detectors at once, where they are known without waiting."""
    from psana_dask.pages.shown import shown_of
    from psana_dask.run import Run

    if isinstance(opened, Run) and len(opened):
        for name in names:
            shown_of(opened._view, name)

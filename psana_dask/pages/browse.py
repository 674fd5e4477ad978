"""All pages together: events, constants, runs, and live plots if there is a live source."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from psana_dask.pages import markup
from psana_dask.pages.choosing import Shelf

TITLES = {"events": "Events", "constants": "Constants", "runs": "Runs"}
"""Address of each page, and what it is called."""

ASKED = ("experiment", "run", "detector", "event")
LONGEST = 200
"""Characters of a word in an address."""


def asked_for(arguments: Mapping[str, Any]) -> dict[str, str]:
    """Return the words of an address that pages know; too long ones are left out.

    Parameters
    ----------
    arguments : mapping of str to list of bytes
        As panel has them.
    """
    found = {}
    for key in ASKED:
        words = arguments.get(key) or [b""]
        text = bytes(words[0]).decode("utf-8", "replace")
        if text and len(text) <= LONGEST and text.isprintable():
            found[key] = text
    return found


Page = Callable[[], Any]


def pages(shelf: Shelf, write: bool = False, live: Page | None = None) -> dict[str, Page]:
    """Return the pages by address, for `serving.serve`.

    Parameters
    ----------
    shelf : Shelf
        What may be opened.
    write : bool
        Whether constants may be changed.
    live : callable, optional
        Makes the page of live plots.
    """
    # the pages themselves need panel, bokeh and a moment: only when they are asked for
    from psana_dask.pages.constants import ConstantsPage
    from psana_dask.pages.dashboard import DashboardPage, Judged
    from psana_dask.pages.events import EventPage

    judged = Judged()
    titles = TITLES | ({"live": "Live"} if live is not None else {})

    def events(document: Any, asked: dict[str, str]) -> Any:
        return EventPage(shelf, write, document, asked)

    def constants(document: Any, asked: dict[str, str]) -> Any:
        return ConstantsPage(shelf, write, document, asked)

    def runs(document: Any, asked: dict[str, str]) -> Any:
        return DashboardPage(shelf, judged, document, asked, "live" if live is not None else "")

    made = {"events": events, "constants": constants, "runs": runs}
    by_path = {path: _framed(path, make, titles) for path, make in made.items()}
    return {"": by_path["events"], **by_path} | ({"live": live} if live is not None else {})


def _framed(
    path: str, make: Callable[[Any, dict[str, str]], Any], titles: Mapping[str, str]
) -> Page:
    """Return a page with links to the others above it; each browser gets one of its own."""

    def page() -> Any:
        import panel as pn

        asked = asked_for(pn.state.session_args)
        links = pn.pane.HTML(markup.navigation(path, titles), stylesheets=[markup.STYLE])
        shown = make(pn.state.curdoc, asked)
        if hasattr(shown, "close"):
            pn.state.on_session_destroyed(lambda _: shown.close())
        return pn.Column(links, shown.view, sizing_mode="stretch_width")

    return page

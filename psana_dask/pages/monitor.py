"""The page of live plots, for each browser that opens it.

A thread of the page waits for something new, prepares what the page shows (calibrated frames, averaged to
what the screen can show) and has it shown. The browser says when it was painted. The next picture is made
while the one before is painted, but no third one: a slow browser or a slow line skips pictures, and nothing
piles up.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from typing import Any

import numpy as np
import panel as pn
from bokeh.models import ColumnDataSource, CustomJS

from psana_dask.pages.answers import next_on_loop
from psana_dask.pages.feed import Feed, Snapshot
from psana_dask.pages.frameplot import FramePlot
from psana_dask.pages.liveplots import (
    LinesPlot,
    NumbersPlot,
    Plot,
    RatesPlot,
    ScatterPlot,
)
from psana_dask.pages.ownplots import OwnPlot

LOOK_SECONDS = 0.5
"""Time between updates of the counters when nothing comes, and until a browser is asked again."""

SLOW_SECONDS = 0.3
"""A browser that takes longer to paint gets one picture at a time, else two: else they are late."""

BAR_SECONDS = 0.2
"""Time between updates of the line at the top."""

BAR = """
:host { font: 14px/1.4 system-ui, sans-serif; color: #1c2430; width: 100%; }
.bar { display: flex; flex-wrap: wrap; gap: 6px 26px; align-items: center; background: #fff;
       border-bottom: 1px solid #dfe3e8; padding: 8px 14px; }
h1 { font-size: 17px; margin: 0; } .source { color: #5b6675; }
.state { padding: 1px 10px; border-radius: 10px; font-weight: 600; color: #fff; background: #5b6675; }
.live { background: #2b8a3e; } .paused { background: #b7791f; } .failed { background: #c92a2a; }
.count { white-space: nowrap; }
.count b { font-variant-numeric: tabular-nums; font-size: 16px; margin-right: 4px; }
.count span { color: #5b6675; } .lost b { color: #c92a2a; }
.error { background: #fdecea; border-left: 4px solid #c92a2a; padding: 8px 14px; white-space: pre-wrap; }
"""

COLUMNS = {
    "display": "block", "columns": "450px", "column-gap": "0", "flex": "1 1 460px", "min-width": "460px",
}  # fmt: skip
"""Cards beside or below the pictures stand below each other, in as many columns as there is room for."""

SAY_PAINTED = """
requestAnimationFrame(() => requestAnimationFrame(() => { answer.data = {n: [...cb_obj.data.n]} }))
"""

KEEP_STYLES = """
const sheet = Bokeh.require("core/dom")?.InlineStyleSheet?.prototype
const update = sheet?._update
if (update) sheet._update = function (css) { if (this.el.textContent !== css) update.call(this, css) }
"""
"""Bokeh (3.9) writes the style sheet of each axis, grid and legend anew whenever it paints one, and then asks
for colours, so the browser works all styles out some twenty times for a picture. What is the same is left."""


@dataclass(frozen=True)
class Choices:
    """How a page begins.

    Parameters
    ----------
    title : str
    updates : float
        Pictures a second, at most.
    log : bool
        Colours on a logarithmic scale.
    limits : (float, float), optional
        Fixed limits of the colours.
    plots : sequence of callable
        The user's own plots.
    painted : callable, optional
        Told when a browser painted: takes the snapshot, and when that was, as `time.monotonic`.
    """

    title: str = "psana_dask monitor"
    updates: float = 10.0
    log: bool = False
    limits: tuple[float, float] | None = None
    plots: Sequence[Callable[[Any], Any]] = ()
    painted: Callable[[Snapshot, float], None] | None = None


@dataclass(frozen=True, eq=False)
class Prepared:
    """What a page shows next."""

    snapshot: Snapshot
    wanted: Mapping[str, Plot]
    plots: Sequence[tuple[Plot, Any]] = ()
    errors: Sequence[str] = ()


@dataclass(frozen=True, eq=False)
class Sent:
    """What a browser was sent, and when; something new, or again what it has seen."""

    snapshot: Snapshot
    moment: float
    fresh: bool


class MonitorPage:
    """One page.

    Parameters
    ----------
    feed : Feed
    choices : Choices
    document : bokeh Document
    """

    def __init__(self, feed: Feed, choices: Choices, document: Any) -> None:
        self._feed, self._choices, self._document = feed, choices, document
        self._wake, self._closed = threading.Event(), threading.Event()
        self._answers = threading.Condition()
        self._under_way: dict[int, Sent] = {}
        self._painted: list[tuple[Sent, float]] = []
        self._thread = threading.Thread(target=self._run, name="psana_dask monitor page", daemon=True)
        self._again = self._behind = False
        self._when: dict[str, float] = {}
        self._took = self._asked = self._bar_shown = 0.0
        self._plots: dict[str, Plot] = {}
        self._taken: Snapshot | None = None
        self._pictures: deque[float] = deque(maxlen=30)
        self._delay = float("nan")
        self._sent = self._shown = self._beats = 0
        self._errors: Sequence[str] = ()
        self._rates = RatesPlot()
        self._build()

    # ---- what it looks like -------------------------------------------------------------------
    def _build(self) -> None:
        self.bar = pn.pane.HTML("", stylesheets=[BAR], sizing_mode="stretch_width", margin=0)
        self.pause = pn.widgets.Toggle(label="Pause", width=90)
        self.restart = pn.widgets.Button(label="Restart means", width=120)
        self.pause.param.watch(self._paused, "value")
        self.restart.on_click(lambda _: self._feed.restart())
        self._beside = pn.Column(styles=COLUMNS)
        self._beat = ColumnDataSource({"n": [0], "beat": [0]})
        self._answer = ColumnDataSource({"n": [0]})
        self._beat.js_on_change("data", CustomJS(args={"answer": self._answer}, code=SAY_PAINTED))
        self._answer.on_change("data", self._answered)
        self._document.js_on_event("document_ready", CustomJS(code=KEEP_STYLES))
        self._rates.carry(self._beat, self._answer)
        self._beside.append(self._rates.card)
        buttons = pn.Row(self.pause, self.restart, margin=(6, 4, 0, 4))
        self._cards = pn.FlexBox(self._beside, align_items="flex-start", margin=4)
        self.view = pn.Column(self.bar, buttons, self._cards, sizing_mode="stretch_width", margin=0)
        self._show_bar()

    def start(self) -> None:
        """Begin to show."""
        self._feed.tell(self._wake)
        self._began = time.monotonic()
        self._wake.set()
        self._thread.start()

    def close(self) -> None:
        """Show no more."""
        self._closed.set()
        self._wake.set()
        with self._answers:
            self._answers.notify_all()
        self._feed.tell_no_more(self._wake)

    def join(self) -> None:
        """Wait until the thread of a closed page has ended."""
        if self._thread.is_alive():
            self._thread.join()

    def _changed(self) -> None:
        """Show the same moment again, as a setting was changed."""
        self._again = True
        self._wake.set()

    def _paused(self, event: Any) -> None:
        self.pause.label = "Go on" if event.new else "Pause"
        self._changed()
        self._show_bar()

    # ---- the thread ---------------------------------------------------------------------------
    def _run(self) -> None:
        due, step = 0.0, 1 / self._choices.updates
        while not self._closed.is_set():
            self._wake.wait(LOOK_SECONDS)
            self._closed.wait(max(0.0, due - time.monotonic()))
            self._wake.clear()
            if self._is_watched() and self._wait_for_room():
                due = max(due, time.monotonic() - step) + step
                self._turn()

    def _turn(self) -> None:
        """Show what there is to be shown; else how much has come."""
        snapshot, self._again, again = self._next(), False, self._again
        fresh = snapshot is not self._taken
        if snapshot is not None and (again or fresh or self._behind):
            self._taken = snapshot
            prepared = self._prepared(snapshot, everything=not fresh)
            self._sent += 1
            with self._answers:
                self._under_way[self._sent] = Sent(snapshot, time.monotonic(), fresh)
            self._on_page(partial(self._show, prepared, self._sent, fresh))
        elif not self.pause.value:
            self._on_page(self._show_bar)

    def _wait_for_room(self) -> bool:
        """Wait until the browser has painted enough for the next picture to be made; say if so."""
        most = 2 if self._took < SLOW_SECONDS else 1
        with self._answers:
            room = self._answers.wait_for(
                lambda: self._closed.is_set() or len(self._under_way) < most, LOOK_SECONDS
            )
            painted, self._painted = self._painted, []
        for sent, moment in painted:
            self._note(sent, moment)
        if self._under_way and time.monotonic() - self._asked > LOOK_SECONDS:
            self._on_page(self._ask)
        return room

    def _note(self, sent: Sent, moment: float) -> None:
        """Note that a browser has painted."""
        self._took = moment - sent.moment
        if not sent.fresh:
            return
        self._pictures.append(moment)
        if sent.snapshot.arrived > self._began:
            self._delay = moment - sent.snapshot.arrived
        if self._choices.painted is not None:
            self._choices.painted(sent.snapshot, moment)

    def _is_watched(self) -> bool:
        """Return whether a browser is connected: bokeh keeps a page for some time after that."""
        context = self._document.session_context
        session = getattr(context, "session", None)
        return session is None or session.connection_count > 0

    def _next(self) -> Snapshot | None:
        """Return what is to be shown: what is seen already while paused."""
        return self._taken if self.pause.value and self._taken is not None else self._feed.snapshot

    def _prepared(self, snapshot: Snapshot, *, everything: bool) -> Prepared:
        """Prepare pictures and lines, and of what is beside them what waits longest; or everything."""
        errors: list[str] = []
        ready = []
        wanted, now = self._wanted(snapshot), time.monotonic()
        due = [*wanted] if everything else self._due(wanted, now)
        for name in due:
            plot = wanted[name]
            try:
                ready.append((plot, plot.prepare(snapshot)))
            except Exception as error:
                errors.append(f"{getattr(plot, 'name', name)}: {type(error).__name__}: {error}")
        self._when |= dict.fromkeys(due, now)
        self._behind = len(due) < len(wanted)
        return Prepared(snapshot, wanted, ready, errors)

    def _due(self, wanted: Mapping[str, Plot], now: float) -> list[str]:
        """Return what comes with each picture, and one thing beside it: the browser paints them in turn."""
        since = {name: now - self._when.get(name, 0.0) for name in wanted}
        beside = [k for k, plot in wanted.items() if plot.every and since[k] >= plot.every]
        longest = max(beside, key=lambda k: since[k], default=None)
        return [k for k, plot in wanted.items() if not plot.every or k == longest]

    def _wanted(self, snapshot: Snapshot) -> dict[str, Plot]:
        """Return the plots; new ones where something is seen for the first time."""
        return {name: self._plots.get(name) or make() for name, make in self._makers(snapshot).items()}

    def _makers(self, snapshot: Snapshot) -> dict[str, Callable[[], Plot]]:
        """Return what makes the plot of each name, in the order of the page."""
        choices, means = self._choices, self._feed.means
        makers: dict[str, Callable[[], Plot]] = {}
        for name in snapshot.frames:
            makers[name] = partial(
                FramePlot, name, means, self._changed, log=choices.log, limits=choices.limits
            )
        for place, function in enumerate(choices.plots):
            makers[f"plot {place}"] = partial(OwnPlot, function, self._changed)
        for name in snapshot.lines:
            makers[name] = partial(LinesPlot, name, means)
        numbers = list(snapshot.numbers.columns)
        for name in numbers:
            makers[name] = partial(NumbersPlot, name)
        if len(numbers) > 1:
            makers["scatter"] = partial(ScatterPlot, numbers, self._changed)
        return makers

    def _on_page(self, show: Callable[[], None]) -> None:
        """Call a function on the loop of the page."""
        if not next_on_loop(self._document, show):
            self.close()

    # ---- on the loop of the page --------------------------------------------------------------
    def _show(self, prepared: Prepared, number: int, fresh: bool) -> None:
        with pn.io.hold(self._document):
            self._add_cards(prepared)
            for plot, made in prepared.plots:
                plot.show(made)
            self._errors = prepared.errors if prepared.errors or not self._behind else self._errors
            if not fresh or time.monotonic() - self._bar_shown > BAR_SECONDS:
                self._show_bar()
            self._shown = number
            self._send_beat()

    def _send_beat(self) -> None:
        self._asked = time.monotonic()
        self._beats += 1
        self._beat.data = {"n": [self._shown], "beat": [self._beats]}

    def _ask(self) -> None:
        """Ask again whether all was painted: this also sends what panel has forgotten to send.

        Panel (1.9) now and then keeps messages, that are queued while others are written, until the next.
        """
        with pn.io.hold(self._document):
            self._send_beat()

    def _add_cards(self, prepared: Prepared) -> None:
        if prepared.wanted.keys() - self._plots.keys():
            self._plots = dict(prepared.wanted)
            frames = [p for p in self._plots.values() if isinstance(p, FramePlot)]
            beside = [plot.card for plot in self._plots.values() if plot not in frames]
            self._beside.objects = [*beside, self._rates.card]
            self._cards.objects = [*(plot.card for plot in frames), self._beside]

    def _answered(self, _: str, __: Any, new: Any) -> None:
        """Note what the browser has painted: all up to a number."""
        with self._answers:
            for number in [n for n in self._under_way if n <= new["n"][0]]:
                self._painted.append((self._under_way.pop(number), time.monotonic()))
            self._answers.notify_all()

    def _show_bar(self) -> None:
        self._bar_shown = time.monotonic()
        pictures = _rate(self._pictures)
        self._rates.add(self._feed.pace, pictures)
        title, state = self._choices.title, self._state()
        self.bar.object = _bar(state, title, self._feed, pictures, self._delay, self._errors)

    def _state(self) -> str:
        if self._feed.error is not None:
            return "failed"
        if self.pause.value:
            return "paused"
        if self._feed.ended:
            return "ended"
        return "waiting" if self._feed.snapshot is None else "live"


# ---- words --------------------------------------------------------------------------------------
SHOWN = ("received", "processed", "dropped")
"""Counters that are always shown; the others where they are not 0."""


def _bar(
    state: str, title: str, feed: Feed, pictures: float, delay: float, errors: Sequence[str]
) -> str:
    """Return the line at the top of a page."""
    counters, pace = feed.counters, feed.pace
    parts = [f"<h1>{escape(title)}</h1><span class='state {state}'>{state}</span>"]
    counts = {name: value for name, value in vars(counters).items() if value or name in SHOWN}
    parts += [_count(name, f"{value:,}") for name, value in counts.items()]
    if state in ("live", "paused"):
        parts.append(_count("events/s", f"{pace.received:.4g}"))
        parts.append(_count("pictures/s", f"{pictures:.3g}"))
    if state in ("live", "paused") and np.isfinite(delay):
        parts.append(_count("ms from event to picture", f"{1000 * delay:.0f}"))
    parts.append(f"<span class='source'>{escape(feed.title)}</span>")
    wrong = [*errors] if feed.error is None else [f"{type(feed.error).__name__}: {feed.error}", *errors]
    below = "".join(f"<div class='error' role='alert'>{escape(text)}</div>" for text in wrong)
    return f"<div class='bar'>{''.join(parts)}</div>{below}"


def _count(name: str, value: str) -> str:
    lost = " lost" if name in ("dropped", "missed", "unconfigured", "refused") and value != "0" else ""
    return f"<div class='count{lost}' data-count='{name}'><b>{value}</b><span>{name}</span></div>"


def _rate(moments: Sequence[float]) -> float:
    """Return how many a second there were, lately."""
    now = time.monotonic()
    recent = [t for t in moments if now - t < 5.0]
    return (len(recent) - 1) / (recent[-1] - recent[0]) if len(recent) > 1 and recent[-1] > recent[0] else 0.0

"""The event browser: a run, a detector, an event; its picture, curves, numbers, EPICS values and step."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import panel as pn
from bokeh.models import ColumnDataSource
from bokeh.palettes import Category20
from bokeh.plotting import figure

from psana_dask.conditions import MOST_CHARACTERS
from psana_dask.errors import PsanaError
from psana_dask.pages import event_content as content
from psana_dask.pages import markup
from psana_dask.pages.answers import Answers
from psana_dask.pages.background import Background
from psana_dask.pages.canvas import PALETTES, Canvas, part_seen
from psana_dask.pages.choosing import Shelf, opening_code
from psana_dask.pages.desk import desk_for
from psana_dask.pages.event_content import FORMS, MASKS, Wanted
from psana_dask.pages.markup import explained
from psana_dask.pages.masking import DrawnOn, MaskCard
from psana_dask.pages.parts import RunChooser, Status, offer, pane
from psana_dask.pages.pictures import CONTRASTS, RINGS, Picture, contrast, numbers_of, region, ring_radii
from psana_dask.pages.reading import Opened, Shown, nearest, opened, read

if TYPE_CHECKING:
    pass

WIDTH, SIDE = 200, 380
"""Screen pixels of what stands left and right of the picture: all three fit a screen of 1280."""
OWN = "from ... to ..."
"""The contrast whose ends are typed."""


class EventPage:
    """What one browser sees.

    Parameters
    ----------
    shelf : Shelf
        What may be opened.
    write : bool
        Whether masks may be saved.
    document : bokeh Document, optional
    asked : mapping of str to str
        What the address asks for: experiment, run, detector, event.
    """

    def __init__(
        self, shelf: Shelf, write: bool = False, document: Any = None, asked: Mapping[str, str] | None = None
    ) -> None:
        self.shelf, self.write, self.asked = shelf, write, dict(asked or {})
        self.at: Opened | None = None
        self.shown: Shown | None = None
        self.status = Status()
        self._answers = Answers(document)
        self._opening, self._reading = (
            Background(document, self.status.failed, self._wait) for _ in range(2)
        )
        self._zooming = Background(document, self.status.failed)
        self.chooser = RunChooser(shelf, self._answers, self._opening, self.asked, self._open, WIDTH)
        self.canvas = Canvas(self._zoomed)
        self.mask = MaskCard(self.canvas, write, document, self._drawn_on, self._changed)
        self._widgets()
        self._watch()
        self.chooser.start()

    # ---- parts --------------------------------------------------------------------------------
    def _widgets(self) -> None:
        w = pn.widgets
        self.detector = w.Select(label="Detector", width=WIDTH)
        self.form = w.Select(label="Show", options=list(FORMS), width=WIDTH)
        self.masked = w.Select(label="Leave out", options=list(MASKS), width=WIDTH)
        self.common_mode = w.Checkbox(label="common mode", value=True)
        self.slider = w.IntSlider(label="Event", start=0, end=1, value=0, width=380)
        self.back, self.on = w.Button(label="◀", width=40), w.Button(label="▶", width=40)
        self.time = w.TextInput(label="Time (nearest event)", width=180, max_length=64)
        self.condition = w.TextInput(
            label="Only events where", placeholder="gmd.energy > 0.3 and evr.has(90, -162)", width=330,
            max_length=MOST_CHARACTERS,
        )  # fmt: skip
        self.contrast = w.Select(label="Contrast", options=[*CONTRASTS, OWN], width=100)
        self.low = w.FloatInput(label="from", value=0.0, width=90)
        self.high = w.FloatInput(label="to", value=1.0, width=90)
        self.palette = w.Select(label="Colours", options=list(PALETTES), width=80)
        self.rings = w.TextInput(label="Rings at", placeholder="2.1, 3.4", width=WIDTH, max_length=2000)
        self.ring_kind = w.Select(label="as", options=dict(RINGS), width=118)
        self.distance = w.FloatInput(label="Distance (mm)", value=None, width=90)
        self.energy = w.FloatInput(label="Energy (keV)", value=None, width=90)
        self.centre = w.TextInput(label="Centre", value="0, 0", width=62, max_length=60)
        self.line = w.Select(label="Curves of", width=WIDTH)
        self.search = w.TextInput(label="Names with", width=200, max_length=100)
        self._texts()

    def _texts(self) -> None:
        self.problems, self.picture_note = pane(), pane(WIDTH)
        self.facts, self.region, self.code = pane(SIDE), pane(SIDE), pane(SIDE)
        self.scalars, self.epics, self.line_note = pane(SIDE), pane(SIDE), pane(SIDE)
        self.curves = ColumnDataSource({"xs": [], "ys": [], "colour": [], "name": []})
        plot = figure(width=SIDE, height=320, tools="pan,wheel_zoom,box_zoom,reset,save,hover", name="curves",
                      tooltips=[("curve", "@name"), ("value", "$y")])  # fmt: skip
        plot.multi_line("xs", "ys", source=self.curves, color="colour")
        self.curve_plot = plot

    @property
    def view(self) -> Any:
        """Return the page."""
        row, column = pn.Row, pn.Column
        left = column(
            self.chooser.experiment, self.chooser.run,
            self.detector, self.form, self.masked, self.common_mode,
            row(self.contrast, self.palette), row(self.low, self.high), self.rings,
            row(self.ring_kind, self.centre), row(self.distance, self.energy), self.picture_note,
            width=WIDTH + 20,
        )  # fmt: skip
        middle = column(row(self.back, self.slider, self.on), row(self.time, self.condition),
                        pn.pane.Bokeh(self.canvas.figure))  # fmt: skip
        tabs = pn.Tabs(
            ("Event", column(self.facts, self.region)),
            ("Numbers", column(self.search, self.scalars)),
            ("EPICS", self.epics),
            ("Curves", column(self.line, self.line_note, pn.pane.Bokeh(self.curve_plot))),
            ("Mask", self.mask.view),
            ("Code", self.code),
        )
        beside = pn.FlexBox(left, middle, tabs, align_items="flex-start")
        return column(self.status.view, self.problems, beside)

    def _watch(self) -> None:
        on, click = self._answers.on, self._answers.click
        on(self.chooser.run, self._open)
        on(self.condition, self._open)
        on(self.slider, self._read, "value_throttled")
        on(self.time, self._to_time)
        click(self.back, partial(self._step, -1))
        click(self.on, partial(self._step, 1))
        for widget in (self.form, self.masked, self.common_mode, self.line):
            on(widget, self._read)
        on(self.detector, self._other_detector)
        on(self.search, self._tables)
        for widget in (self.contrast, self.low, self.high, self.palette):
            on(widget, self._colour)
        for widget in (self.rings, self.ring_kind, self.distance, self.energy, self.centre):
            on(widget, self._ring)
        self.canvas.region.on_change("data", lambda attr, old, new: self._tell_region())

    # ---- choosing -----------------------------------------------------------------------------
    def _open(self) -> None:
        choice, condition = self.chooser.chosen, str(self.condition.value)
        if choice is None:
            self.status.say(self.chooser.why_none, "bad")
            return
        self.status.say("opening ...")
        self._opening.do(lambda: opened(self.shelf, choice, condition), self._opened)

    def _opened(self, at: Opened) -> None:
        other = self.at is None or at.choice != self.at.choice
        self.at = at
        self._tell_problems(at)
        with self._answers.silently():
            if other:
                offer(self.detector, at.layout.frames, self.asked.get("detector"))
                offer(self.line, at.layout.lines)
                self.canvas.clear_shapes()
            self.slider.param.update(end=max(1, len(at.numbers) - 1), value=0)
            self.slider.disabled = len(at.numbers) < 2
        if other:
            self._find_distance()
        self._go_to_asked()

    def _go_to_asked(self) -> None:
        event = self.asked.pop("event", "")
        if event:
            with self._answers.silently():
                self.time.value = event
            self._to_time()
        elif self.at is not None and len(self.at.numbers):
            self._read()
        else:
            self._empty("this run has no events")

    def _tell_problems(self, at: Opened) -> None:
        if not at.problems:
            self.problems.object = ""
            return
        more = f"\nand {len(at.problems) - 3} more" if len(at.problems) > 3 else ""
        lines = "\n".join(at.problems[:3])
        self.problems.object = markup.note(
            f"{len(at.problems)} problems: part of this run could not be read\n{lines}{more}", "warn"
        )

    # ---- which event --------------------------------------------------------------------------
    @property
    def position(self) -> int:
        """Place of the event among those that meet the condition, whatever the browser says."""
        last = 0 if self.at is None else len(self.at.numbers) - 1
        return min(max(int(self.slider.value or 0), 0), max(last, 0))

    def _step(self, by: int) -> None:
        self._set_position(self.position + by)
        self._read()

    def _set_position(self, position: int) -> None:
        last = 0 if self.at is None else len(self.at.numbers) - 1
        with self._answers.silently():
            self.slider.value = min(max(position, 0), max(last, 0))

    def _to_time(self) -> None:
        at, text = self.at, str(self.time.value).strip()
        if at is None or not text:
            return

        self._opening.do(lambda: nearest(self.shelf.open(at.choice), at, text), self._at_position)

    def _at_position(self, position: int) -> None:
        self._set_position(position)
        self._read()

    # ---- reading ------------------------------------------------------------------------------
    def wanted(self) -> Wanted | None:
        """Return the picture that is asked for, None if the run has no frames."""
        if self.at is None or self.detector.value not in self.at.layout.frames:
            return None
        return Wanted(self.detector.value, self.form.value, self.masked.value, bool(self.common_mode.value))

    def _read(self) -> None:
        at, wanted, line = self.at, self.wanted(), str(self.line.value or "")
        if at is None or not len(at.numbers):
            return
        number = int(at.numbers[self.position])

        def work() -> tuple[Opened, Shown, Picture | None]:
            shown = read(self.shelf.open(at.choice), at, number, wanted, line)
            same = self.canvas.picture
            window = self.canvas.window if same and shown.picture and same.x == shown.picture.x else None
            return at, shown, None if shown.picture is None else part_seen(shown.picture, window)

        self._reading.do(work, lambda found: self._show(*found))

    def _show(self, at: Opened, shown: Shown, seen: Picture | None) -> None:
        if at is not self.at:
            return  # of a run that is not shown any more
        self.shown = shown
        count = f"event {self.position} of 0 to {len(at.numbers) - 1}"
        self.status.say(f"{count}, {shown.time} UTC" + (f", {at.condition}" if at.condition else ""))
        if shown.picture is None or seen is None:
            self.canvas.empty()
        else:
            self.canvas.put(shown.picture, seen, self._limits(shown.picture))
        self.picture_note.object = self._note(shown)
        self._tell_limits()
        self._ring()
        self._tables()
        self._curves(shown.lines)
        self._tell_region()
        self._tell_code()

    def _note(self, shown: Shown) -> str:
        if shown.picture is None:
            return markup.note(shown.said or "this run has no frames", "warn")
        kind = "calibrated" if shown.picture.calibrated else "raw counts: not calibrated"
        asked = shown.wanted is not None and FORMS[shown.wanted.form].calibrated
        return markup.note(kind, "warn" if asked and not shown.picture.calibrated else "plain")

    def _other_detector(self) -> None:
        self.canvas.clear_shapes()
        self.canvas.region.data = {"left": [], "right": [], "bottom": [], "top": []}
        self._find_distance()
        self._read()

    def _find_distance(self) -> None:
        at, detector = self.at, self.detector.value
        if at is None or detector is None:
            return

        def work() -> tuple[float | None, float | None]:
            run = self.shelf.open(at.choice)
            event = run.isel(slice(0, 1))
            return content.distance_of(run, detector), content.energy_of(event) if len(event) else None

        self._zooming.do(work, self._know_distance)

    def _know_distance(self, found: tuple[float | None, float | None]) -> None:
        with self._answers.silently():
            self.distance.value, self.energy.value = found
        self._ring()

    def _zoomed(self, *_: Any) -> None:
        picture = self.canvas.picture
        if picture is None:
            return
        window = self.canvas.window

        def then(seen: Picture) -> None:
            if self.canvas.picture is picture:
                self.canvas.show(seen)

        self._zooming.do(lambda: part_seen(picture, window), then)

    # ---- what is shown ------------------------------------------------------------------------
    def _limits(self, picture: Picture) -> tuple[float, float]:
        if self.contrast.value != OWN:
            return contrast(picture, self.contrast.value)
        low, high = (float(v) if v is not None else 0.0 for v in (self.low.value, self.high.value))
        return (low, high) if high > low else (low, low + 1.0)

    def _colour(self) -> None:
        if self.canvas.picture is not None:
            self.canvas.colour(self._limits(self.canvas.picture), self.palette.value)
            self._tell_limits()
            self._tell_code()

    def _tell_limits(self) -> None:
        if self.contrast.value != OWN:
            with self._answers.silently():
                self.low.value, self.high.value = (float(f"{v:.4g}") for v in self.canvas.limits)

    def _ring(self) -> None:
        picture = self.canvas.picture
        try:
            values = numbers_of(str(self.rings.value))
            centre = numbers_of(str(self.centre.value), 2)
            if len(centre) != 2:
                raise ValueError("the centre of the rings is two numbers: x, y")
            if picture is None or not values:
                radii = []
            elif picture.unit != "mm":
                raise ValueError("rings need an image with a geometry")
            else:
                distance = self.distance.value or 0.0
                radii = ring_radii(values, self.ring_kind.value, distance, self.energy.value)
        except ValueError as error:
            self.canvas.ring([])
            self.status.failed(error)
            return
        self.canvas.ring(radii, (centre[0], centre[1]))

    def _tables(self) -> None:
        if self.shown is None:
            return
        word = str(self.search.value).strip().lower()
        scalars = [row for row in self.shown.scalars if word in row[0].lower()]
        self.scalars.object = markup.table(("name", "value", "unit"), scalars)
        self.epics.object = markup.table(("name", "value", "unit", "PV"), self.shown.epics)
        self.facts.object = markup.facts(self.shown.facts)

    def _curves(self, lines: content.Lines | None) -> None:
        found = lines or content.Lines([], [], [], "", "")
        colours = [Category20[20][k % 20] for k in range(len(found.y))]
        self.curves.data = {"xs": found.x, "ys": found.y, "colour": colours, "name": found.names}
        self.curve_plot.xaxis.axis_label, self.curve_plot.yaxis.axis_label = found.axis, found.unit
        said = "" if lines is not None or not self.line.value else "this event has none"
        more = f"{found.left_out} more are not drawn" if found.left_out else said
        self.line_note.object = markup.note(more)

    def _tell_region(self) -> None:
        picture = self.canvas.picture
        try:
            chosen = self.canvas.chosen_region()
        except PsanaError as error:
            self.region.object = markup.note(explained(error), "bad")
            return
        if picture is None or chosen is None:
            self.region.object = markup.note("A region drawn on the picture is summed here.")
            return
        found = region(picture, *chosen)
        self.region.object = "<h4>Region</h4>" + markup.facts(
            {
                f"x ({picture.unit})": f"{min(found.x):.6g} to {max(found.x):.6g}",
                f"y ({picture.unit})": f"{min(found.y):.6g} to {max(found.y):.6g}",
                "good pixels": found.pixels, "sum": found.total, "mean": found.mean, "std": found.std,
                "largest": found.largest,
            }
        )

    def _tell_code(self) -> None:
        shown, at = self.shown, self.at
        if shown is None or at is None or shown.wanted is None:
            self.code.object = ""
            return
        opening = opening_code(at.choice, self.shelf.calib)
        program = content.code_of(opening, shown.time, shown.wanted, self.canvas.limits)
        self.code.object = f"<p>{self._link()}</p>{markup.code(program)}"

    def _link(self) -> str:
        shown, at = self.shown, self.at
        if shown is None or at is None or shown.wanted is None:
            return ""
        words = {"experiment": at.choice.experiment, "run": at.choice.number,
                 "detector": shown.wanted.detector, "event": str(shown.time)}  # fmt: skip
        link = f"<a href='?{markup.text(urlencode(words))}'>Address of this event</a>"
        return f"{link}; the same picture by program:"

    # ---- masks --------------------------------------------------------------------------------
    def _drawn_on(self) -> DrawnOn:
        at, shown = self.at, self.shown
        if at is None or shown is None or shown.wanted is None or shown.picture is None:
            raise ValueError("there is no picture to draw a mask on")
        if not FORMS[shown.wanted.form].assembled:
            raise ValueError("a mask is drawn on an image, not on panels: choose Show: image")
        run = self.shelf.open(at.choice)
        desk = partial(desk_for, self.shelf.calib, at.choice.experiment, run, self.write)
        return DrawnOn(run[shown.wanted.detector], at.choice.number, desk)

    def _changed(self) -> None:
        """Constants were changed: look them up again, for all users."""
        self.shelf.forget()
        self._read()

    # ---- messages -----------------------------------------------------------------------------
    def _empty(self, words: str) -> None:
        self.canvas.empty()
        self.shown = None
        self.status.say(words, "warn")

    def _wait(self, busy: bool) -> None:
        self.canvas.figure.background_fill_alpha = 0.6 if busy else 1.0

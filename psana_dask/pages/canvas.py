"""A picture on a page: colours, zoom, rings, a region, shapes that are drawn. Bokeh, nothing of runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from bokeh.events import RangesUpdate, Reset
from bokeh.models import (
    BoxEditTool,
    BoxZoomTool,
    ColorBar,
    ColumnDataSource,
    CrosshairTool,
    FreehandDrawTool,
    HoverTool,
    LinearColorMapper,
    PanTool,
    PolyDrawTool,
    Range1d,
    ResetTool,
    SaveTool,
    WheelZoomTool,
)
from bokeh.palettes import Greys256, Inferno256, Viridis256
from bokeh.plotting import figure

from psana_dask.pages.drawing import Shapes, shapes_of
from psana_dask.pages.pictures import Picture, Range, circles, looked_at

PALETTES = {"viridis": Viridis256, "inferno": Inferno256, "grey": Greys256}
SIZE = 500
"""Pixels of the screen that a picture takes, each way."""

AXES = {"mm": ("x (mm), to the left seen along the beam", "y (mm), up"), "pixels": ("column", "row")}

RING_HALO = {"color": "#ffffff", "line_width": 3, "alpha": 0.5}
RING = {"color": "#d62728", "line_width": 1.2}
MASK_LOOK = {"fill_alpha": 0.45, "fill_color": "#ff9800", "line_color": "#e65100"}
TOOLS = (
    ("region", "Region", "shift and drag"),
    ("rectangle", "Mask a rectangle", "shift and drag"),
    ("polygon", "Mask a polygon", "press and hold for the first corner, click the others, hold for the last"),
    ("line", "Mask by a free line", "drag around"),
)

EMPTY_BOXES: dict[str, list[float]] = {"left": [], "right": [], "bottom": [], "top": []}
EMPTY_LINES: dict[str, list[Any]] = {"xs": [], "ys": []}


class Canvas:
    """Draws one picture at a time.

    Parameters
    ----------
    looked : callable, optional
        Told when the window changed; takes x and y range. It decides when to call `show`.
    drawn_on : bool
        With tools for a region and a mask.
    size : int
        Pixels of the screen.
    """

    def __init__(
        self,
        looked: Callable[[Range, Range], None] | None = None,
        *,
        drawn_on: bool = True,
        size: int = SIZE,
    ) -> None:
        self._drawn_on, self._size = drawn_on, size
        self.picture: Picture | None = None
        self.limits: Range = (0.0, 1.0)
        self._looked = looked
        self._image = ColumnDataSource({"image": [], "x": [], "y": [], "dw": [], "dh": []})
        self._colours = LinearColorMapper(palette=Viridis256, low=0.0, high=1.0, nan_color="#d9d9d9")
        self.rings = ColumnDataSource(EMPTY_LINES)
        self.region = ColumnDataSource(EMPTY_BOXES)
        self.boxes = ColumnDataSource(EMPTY_BOXES)
        self.polygons = ColumnDataSource(EMPTY_LINES)
        self.figure = self._figure()

    def _figure(self) -> Any:
        made = figure(
            frame_width=self._size, frame_height=self._size, x_range=Range1d(0, 1), y_range=Range1d(0, 1),
            tools=[], toolbar_location="above", name="picture",
        )  # fmt: skip
        made.grid.visible = False
        how = {"source": self._image, "color_mapper": self._colours}
        image = made.image("image", x="x", y="y", dw="dw", dh="dh", **how)
        made.add_layout(ColorBar(color_mapper=self._colours, width=12), "right")
        for look in (RING_HALO, RING):
            made.multi_line("xs", "ys", source=self.rings, **look)
        tips = [("x, y", "$x{0.00}, $y{0.00}"), ("value", "@image")]
        wheel, pan = WheelZoomTool(), PanTool()
        made.add_tools(pan, BoxZoomTool(match_aspect=True), wheel, ResetTool(), SaveTool(), CrosshairTool(),
                       HoverTool(renderers=[image], tooltips=tips))  # fmt: skip
        made.toolbar.active_scroll, made.toolbar.active_drag = wheel, pan
        if self._drawn_on:
            self._drawing_tools(made)
        made.on_event(RangesUpdate, self._window)
        made.on_event(Reset, self._window)
        return made

    def _drawing_tools(self, made: Any) -> None:
        sides = {"left": "left", "right": "right", "bottom": "bottom", "top": "top"}
        region = made.quad(**sides, source=self.region, fill_alpha=0, line_color="#00c8ff", line_width=2)
        boxes = made.quad(**sides, source=self.boxes, **MASK_LOOK)
        drawn = made.patches("xs", "ys", source=self.polygons, **MASK_LOOK)
        words = {key: f"{what}: {how}" for key, what, how in TOOLS}
        made.add_tools(
            BoxEditTool(renderers=[region], num_objects=1, icon="box_select", description=words["region"]),
            BoxEditTool(renderers=[boxes], description=words["rectangle"]),
            PolyDrawTool(renderers=[drawn], description=words["polygon"]),
            FreehandDrawTool(renderers=[drawn], description=words["line"]),
        )

    def _window(self, _: Any) -> None:
        if self._looked is not None and self.picture is not None:
            self._looked(*self.window)

    @property
    def window(self) -> tuple[Range, Range]:
        """The part that is looked at, x and y."""
        x, y = self.figure.x_range, self.figure.y_range
        return (_number(x.start), _number(x.end)), (_number(y.start), _number(y.end))

    # ---- showing ------------------------------------------------------------------------------
    def put(self, picture: Picture, seen: Picture, limits: Range) -> None:
        """Show another picture; the window stays where it is if the picture has the same place."""
        same = self.picture is not None and (self.picture.x, self.picture.y) == (picture.x, picture.y)
        self.picture = picture
        if not same:
            self._place(picture)
        self.show(seen)
        self.colour(limits)

    def show(self, seen: Picture) -> None:
        """Send what is seen of the picture: see `pictures.looked_at`."""
        ascending = _ascending(seen)
        self._image.data = {
            "image": [ascending], "x": [min(seen.x)], "y": [min(seen.y)],
            "dw": [abs(seen.x[1] - seen.x[0])], "dh": [abs(seen.y[1] - seen.y[0])],
        }  # fmt: skip

    def colour(self, limits: Range, palette: str | None = None) -> None:
        """Set lowest and highest colour, and which colours."""
        self.limits = limits
        self._colours.update(low=limits[0], high=limits[1])
        if palette is not None:
            self._colours.palette = PALETTES[palette]

    def empty(self) -> None:
        """Show nothing."""
        self.picture = None
        self._image.data = {"image": [], "x": [], "y": [], "dw": [], "dh": []}

    def _place(self, picture: Picture) -> None:
        """Look at the whole picture, as far to the left and right as up and down."""
        for axis, label in zip((self.figure.xaxis, self.figure.yaxis), AXES[picture.unit], strict=True):
            axis.axis_label = label
        half = max(abs(picture.x[1] - picture.x[0]), abs(picture.y[1] - picture.y[0])) / 2 * 1.02
        down = picture.unit == "pixels"  # rows are counted from the top
        _centre(self.figure.x_range, picture.x, half if down else -half)
        _centre(self.figure.y_range, picture.y, -half if down else half)

    def ring(self, radii: Sequence[float], centre: Range = (0.0, 0.0)) -> None:
        """Draw circles, in the unit of the picture."""
        x, y = circles(radii, centre)
        self.rings.data = {"xs": x, "ys": y}

    # ---- what a person drew -------------------------------------------------------------------
    def shapes(self) -> Shapes:
        """Return the shapes of the mask, checked."""
        return shapes_of(self.boxes.data, self.polygons.data)

    def clear_shapes(self) -> None:
        """Forget the shapes of the mask."""
        self.boxes.data, self.polygons.data = dict(EMPTY_BOXES), dict(EMPTY_LINES)

    def chosen_region(self) -> tuple[Range, Range] | None:
        """Return the rectangle of the region, x and y, checked; None if there is none."""
        boxes = shapes_of(self.region.data, {}).boxes
        if not boxes:
            return None
        left, right, bottom, top = boxes[-1]
        return (left, right), (bottom, top)


def _centre(range_: Any, ends: Range, half: float) -> None:
    """Let an axis show so much on each side of the middle; turned if it is negative."""
    start, end = sum(ends) / 2 - half, sum(ends) / 2 + half
    range_.update(start=start, end=end, reset_start=start, reset_end=end)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")


def _ascending(seen: Picture) -> npt.NDArray[np.float32]:
    """Return the values with x and y that rise, as bokeh wants them."""
    rows = slice(None, None, 1 if seen.y[0] <= seen.y[1] else -1)
    columns = slice(None, None, 1 if seen.x[0] <= seen.x[1] else -1)
    return np.ascontiguousarray(seen.values[rows, columns])


def part_seen(picture: Picture, window: tuple[Range, Range] | None) -> Picture:
    """Return what a window shows, with a margin, so that small moves show something at once."""
    if window is None or not all(np.isfinite(end) for axis in window for end in axis):
        return looked_at(picture)
    (x, y) = (_wider(axis) for axis in window)
    return looked_at(picture, x, y)


def _wider(ends: Range) -> Range:
    margin = 0.25 * (ends[1] - ends[0])
    return ends[0] - margin, ends[1] + margin

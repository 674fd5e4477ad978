"""What live plots are drawn with: axes that follow, a byte for each colour; pages that were closed."""

import logging
import threading

import numpy as np
import pytest

pytest.importorskip("panel")

from bokeh.document import Document
from bokeh.events import RangesUpdate, Reset
from bokeh.palettes import Viridis256

from psana_dask.drawing import colour_limits
from psana_dask.pages.answers import next_on_loop
from psana_dask.pages.axes import Axes, ends_of, followed
from psana_dask.pages.background import Background
from psana_dask.pages.colouring import coded, colour_codes, colour_ends
from psana_dask.pages.frameplot import value_at
from psana_dask.pages.pictures import Picture


# ---- axes ---------------------------------------------------------------------------------------
def test_an_axis_holds_all_data_and_changes_seldom():
    rng = np.random.default_rng(0)
    ends, changes = None, 0
    for _ in range(500):
        values = rng.normal(0, 1, 1000)
        data = ends_of(values)
        before, ends = ends, followed(ends, data)
        changes += ends != before
        assert ends[0] <= data[0] < data[1] <= ends[1]
        assert data[1] - data[0] >= 0.4 * (ends[1] - ends[0])
    assert changes < 25


def test_an_axis_shrinks_when_data_fill_little_of_it_and_shows_a_single_value():
    assert followed((0.0, 100.0), (40.0, 60.0)) == (38.0, 62.0)
    for value in (0.0, 5.0, -3.0):
        low, high = followed(None, (value, value))
        assert low < value < high
        assert followed((low, high), (value, value)) == (low, high)


def test_ends_leave_out_what_is_no_number():
    assert ends_of(np.array([np.nan, 2.0, np.inf, -1.0])) == (-1.0, 2.0)
    assert ends_of(np.array([np.nan])) is None
    assert ends_of(np.array(["1970-01-01T00:00:01", "NaT"], "M8[ns]"))[0] == 1000.0


def test_who_zooms_keeps_the_axes_until_a_reset():
    axes = Axes(width=100, height=100)
    x = axes.figure.x_range
    axes.follow((0.0, 1.0), (0.0, 1.0))
    axes.figure._trigger_event(RangesUpdate(axes.figure, x0=0.2, x1=0.3, y0=0.2, y1=0.3))
    x.update(start=0.2, end=0.3)
    axes.follow((0.0, 100.0), (0.0, 1.0))
    assert (x.start, x.end) == (0.2, 0.3)
    assert (x.reset_start, x.reset_end) == (-2.0, 102.0)
    axes.figure._trigger_event(Reset(axes.figure))
    axes.follow((0.0, 1000.0), (0.0, 1.0))
    assert (x.start, x.end) == (-20.0, 1020.0)


# ---- colours ------------------------------------------------------------------------------------
@pytest.mark.parametrize("log", [False, True])
def test_codes_are_the_colours_that_bokeh_would_choose(log):
    rng = np.random.default_rng(1)
    values = rng.lognormal(3, 2, (60, 80)).astype(np.float32)
    values[rng.random(values.shape) < 0.1] *= -1
    values[rng.random(values.shape) < 0.1] = np.nan
    low, high = colour_ends(*colour_limits(values, None, (1.0, 99.0)), log)
    codes = colour_codes(values, low, high, log)
    known = np.isfinite(values)
    assert (codes == 0).tolist() == (~known).tolist()
    scaled = np.maximum(values[known].astype(float), low)
    ends = np.log([low, high]) if log else (low, high)
    place = ((np.log(scaled) if log else scaled) - ends[0]) / (ends[1] - ends[0])
    expected = 1 + np.clip(np.floor(255 * place), 0, 254)
    # a value at the edge of two colours may fall on either side
    assert np.abs(codes[known] - expected).max() <= 1
    assert (codes[known] != expected).mean() < 1e-3


def test_ends_of_colours_can_be_drawn():
    assert colour_ends(5.0, 5.0, False) == (5.0, 6.0)
    assert colour_ends(-5.0, -1.0, True) == (1e-3, 1.0)
    assert colour_ends(2.0, 8.0, True) == (2.0, 8.0)


def test_a_palette_of_the_codes():
    palette = coded(Viridis256, "#ffffff")
    assert len(palette) == 256
    assert (palette[0], palette[1], palette[-1]) == ("#ffffff", Viridis256[0], Viridis256[-1])


def test_the_value_under_the_mouse_is_that_of_the_pixel():
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    values[1, 2] = np.nan
    picture = Picture(values, (30.0, 0.0), (0.0, 20.0), "mm")
    assert value_at(picture, 25.0, 15.0) == "<b>3</b><br>x 25.00, y 15.00 mm"
    assert value_at(picture, 5.0, 15.0).startswith("no value")
    assert value_at(picture, 31.0, 5.0) == value_at(picture, "<b>", 5.0) == ""
    assert value_at(Picture(values, (0.0, 3.0), (0.0, 2.0)), 1.5, 0.5) == "<b>1</b><br>row 0, column 1"


# ---- pages that were closed -----------------------------------------------------------------------
def test_work_for_a_page_that_was_closed_ends_quietly(caplog):
    document, done, shown = Document(), threading.Event(), []

    def work():
        document.callbacks.destroy()  # what bokeh takes apart of a page that was closed
        return 1

    background = Background(document, shown.append)
    with caplog.at_level(logging.ERROR):
        background.do(work, shown.append)
        background._pool.submit(done.set)
        assert done.wait(10)
        assert not next_on_loop(document, done.set)
    assert not shown
    assert not caplog.records


def test_other_errors_of_a_page_are_not_hidden():
    class Open:
        session_context = object()

        def add_next_tick_callback(self, _):
            raise AttributeError("a mistake")

    with pytest.raises(AttributeError, match="a mistake"):
        next_on_loop(Open(), lambda: None)

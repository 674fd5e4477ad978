"""The event browser: what it reads, what it draws, and how it is used in a browser."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import psana_dask
from psana_dask.calib.localstore import LocalStore
from psana_dask.drawing import side_by_side
from psana_dask.errors import ConstantsError, EventNotFound, GeometryError, RunNotFound
from psana_dask.pages import markup, pictures
from psana_dask.pages.choosing import Shelf, opening_code
from psana_dask.pages.drawing import MOST_CORNERS, MOST_SHAPES, drawn_mask, inside, shapes_of
from psana_dask.pages.event_content import (
    FORMS,
    MASKS,
    MOST_POINTS,
    Wanted,
    _thinned,
    code_of,
    epics_of,
    facts_of,
    layout_of,
    lines_of,
    picture_of,
    scalars_of,
)
from psana_dask.pages.masking import Drawn
from psana_dask.pages.pictures import Picture, averaged, looked_at, numbers_of, region, ring_radii
from psana_dask.pages.reading import nearest, opened

EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture
def shelf(beamtime, calib):
    return Shelf(folder=beamtime / "xtc", calib=str(calib))


@pytest.fixture
def run(shelf):
    return shelf.open(shelf.choice("tstx00117", 6))


# ---- what may be opened -------------------------------------------------------------------------
def test_a_shelf_lists_experiments_and_runs(shelf, beamtime):
    assert shelf.experiments() == ["tstx00117"]
    assert [c.number for c in shelf.runs("tstx00117")] == [5, 6, 7]
    by_file = Shelf(str(beamtime / "xtc" / "tstx00117-r0006-s000-c000.xtc2"))
    assert [c.number for c in by_file.runs(by_file.experiments()[0])] == [6]
    assert shelf.open(shelf.choice("tstx00117", 6)) is shelf.open(shelf.choice("tstx00117", 6))


@pytest.mark.parametrize("name", ["../../etc", "/etc/passwd", "tstx00117/../x", "", "t\0", EVIL, "t" * 5000])
def test_no_path_reaches_the_files(shelf, name):
    with pytest.raises(RunNotFound, match="no experiment"):
        shelf.runs(name)
    with pytest.raises(RunNotFound, match="no run 99"):
        shelf.choice("tstx00117", 99)


def test_experiments_are_found_under_the_root_of_the_data(beamtime, tmp_path, monkeypatch):
    place = tmp_path / "tst" / "tstx00117"
    place.mkdir(parents=True)
    (place / "xtc").symlink_to(beamtime / "xtc")
    monkeypatch.setenv("SIT_PSDM_DATA", str(tmp_path))
    shelf = Shelf()
    assert shelf.experiments() == ["tstx00117"]
    assert len(shelf.open(shelf.choice("tstx00117", 6))) == 30
    named = Shelf("tstx00117")
    code = opening_code(named.choice("tstx00117", 6), None)
    assert code == "run = psana_dask.open('tstx00117', run=6)"


# ---- what is read -------------------------------------------------------------------------------
def test_content_of_an_event(run):
    layout = layout_of(run)
    assert layout.frames == ("jf", "opal")
    assert layout.lines[0] == "wave.raw"
    event = run.isel(12)
    numbers = {name: value for name, value, _ in scalars_of(event, layout)}
    assert numbers["gmd.milliJoulesPerPulse"] == run.gmd.milliJoulesPerPulse.values[12]
    facts = facts_of(event)
    assert facts["step"] == 1
    assert facts["scan delay"] == 0.0
    assert facts["event codes"] == " ".join(str(c) for c, n in event.evr.counts().items() if n)
    values = {name: value for name, value, *_ in epics_of(event)}
    assert values["temp"] == run.epics.at(event.start)["temp"].values[0]
    lines = lines_of(event, "wave.raw")
    np.testing.assert_array_equal(lines.y[0], run.wave.raw.values[12])


def test_what_an_event_lacks_is_said(run):
    with pytest.raises(EventNotFound, match="this event has no jf"):
        picture_of(run.isel(3), Wanted("jf"))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("detector", ["jf", "opal"])
def test_the_code_makes_the_same_picture(shelf, run, calib, detector, form):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    LocalStore(calib).deploy(_half_masked(run[detector]), detector, psana_dask.calib.constants.RunRange(6))
    shelf.forget()
    event = shelf.open(shelf.choice("tstx00117", 6)).isel(8)
    opening = opening_code(shelf.choice("tstx00117", 6), shelf.calib)
    for mask in MASKS:
        for common_mode in (True, False):
            wanted = Wanted(detector, form, mask, common_mode)
            made = picture_of(event, wanted)
            assert made.calibrated == FORMS[form].calibrated
            found = {}
            exec(code_of(opening, event.start, wanted, (0.0, 2.0)), found)
            frame = found["frame"].values
            frame = side_by_side(frame) if frame.ndim == 3 else frame
            np.testing.assert_array_equal(made.shown, frame.astype(np.float32))
            share = np.isnan(made.shown).mean() - np.isnan(made.values).mean()
            assert (share > 0.3) == (mask == "bad status and pixel_mask")


def _half_masked(detector):
    from psana_dask.calib.constants import Constants

    mask = np.ones(detector.raw.shape[1:], np.uint8)
    mask[..., : mask.shape[-1] // 2] = 0
    return Constants("pixel_mask", mask)


def test_conditions_and_times_choose_events(shelf, run):
    choice = shelf.choice("tstx00117", 6)
    at = opened(shelf, choice, "gmd.milliJoulesPerPulse > 1")
    np.testing.assert_array_equal(at.numbers, np.flatnonzero(run.gmd.milliJoulesPerPulse.values > 1))
    time = run.events.time.values
    wanted = nearest(run, at, str(time[at.numbers[3]] + np.timedelta64(1, "us")))
    assert wanted == 3
    with pytest.raises(EventNotFound, match="no event of 30 meets"):
        opened(shelf, choice, "gmd.milliJoulesPerPulse > 1e9")
    with pytest.raises(ValueError, match="is no time"):
        nearest(run, at, EVIL)


@pytest.mark.filterwarnings("ignore::psana_dask.errors.PartialRunWarning")
def test_a_damaged_run_says_what_is_wrong(shelf):
    at = opened(shelf, shelf.choice("tstx00117", 7))
    assert at.problems
    assert any("r0007-s001" in text for text in at.problems)


# ---- pictures -----------------------------------------------------------------------------------
def test_a_window_shows_the_means_of_blocks():
    values = np.arange(40 * 60, dtype=np.float32).reshape(40, 60)
    values[3, 4] = np.nan
    good = np.ones(values.shape, bool)
    good[0, 0] = False
    picture = Picture(values, (30.0, -30.0), (20.0, -20.0), "mm", good=good)
    seen = looked_at(picture, (0.0, -10.0), (20.0, 10.0), most=5)
    np.testing.assert_allclose(seen.values[0, 0], values[:2, 30:32].mean())
    assert seen.shape == (5, 5)
    assert (seen.x, seen.y) == ((0.0, -10.0), (20.0, 10.0))
    whole = looked_at(picture, most=20)
    corner = values[[0, 0, 1, 1, 1, 2, 2, 2], [1, 2, 0, 1, 2, 0, 1, 2]]  # without the masked pixel
    np.testing.assert_allclose(whole.values[0, 0], corner.mean())
    assert whole.y == (20.0, -22.0)  # the last block is only partly there
    assert looked_at(picture, (50.0, 60.0), (50.0, 60.0)).values.size == 0
    assert looked_at(picture, (np.nan, 1.0)).shape == (40, 60)


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 7), st.integers(0, 2**32 - 1))
def test_averages_are_those_of_numpy(rows, columns, step, seed):
    rng = np.random.default_rng(seed)
    values = rng.random((rows, columns)).astype(np.float32)
    values[rng.random(values.shape) < 0.2] = np.nan
    found = averaged(values, step)
    for k, m in np.ndindex(found.shape):
        block = values[k * step : (k + 1) * step, m * step : (m + 1) * step]
        known = block[np.isfinite(block)].astype(np.float64)
        # sums of at most 49 float32 between 0 and 1
        np.testing.assert_allclose(found[k, m], known.mean() if known.size else np.nan, rtol=1e-5)


def test_rings():
    # silicon 111 at the energy of the Cu K alpha line, 8.04778 keV: 2θ = 28.443° (NIST SRM 640)
    [radius] = ring_radii([3.1356], "d", 100.0, 8.04778)
    assert radius == pytest.approx(100 * np.tan(np.radians(28.443)), rel=1e-4)
    [same] = ring_radii([2 * np.pi / 3.1356], "q", 100.0, 8.04778)
    assert same == pytest.approx(radius)
    assert ring_radii([7.5], "mm", 0.0, None) == [7.5]
    for values, kind, distance, energy in (
        ([0.1], "d", 100.0, 8.0), ([1.0], "q", 100.0, None), ([10.0], "degrees", 0.0, None),
        ([95.0], "degrees", 100.0, None), ([-1.0], "mm", 1.0, None),
    ):  # fmt: skip
        with pytest.raises(GeometryError):
            ring_radii(values, kind, distance, energy)
    with pytest.raises(ValueError, match="is no number"):
        numbers_of("1, x")
    with pytest.raises(ValueError, match="at most 40"):
        numbers_of("1 " * 41)
    with pytest.raises(ValueError, match="is no number"):
        numbers_of("inf")


def test_a_region_is_summed():
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    picture = Picture(values, (0.0, 4.0), (0.0, 3.0), good=values != 6)
    found = region(picture, (1.0, 3.0), (0.0, 2.0))
    assert (found.pixels, found.total, found.largest) == (3, 1 + 2 + 5, 5)
    assert region(picture, (10.0, 12.0), (0.0, 1.0)).pixels == 0


def test_long_curves_keep_their_peaks():
    curve = np.zeros(100_000)
    curve[54_321] = 7.0
    x, y = _thinned(curve)
    assert len(y) <= MOST_POINTS
    assert y.max() == 7.0
    assert abs(x[y.argmax()] - 54_321) <= 50


# ---- masks --------------------------------------------------------------------------------------
def _crossings(xs, ys, x, y):
    """Whether a point is inside by the rule of Franklin: sides to its right, one by one."""
    odd = False
    for k in range(len(xs)):
        x1, y1, x2, y2 = xs[k - 1], ys[k - 1], xs[k], ys[k]
        if (y1 > y) != (y2 > y) and x < (x2 - x1) * (y - y1) / (y2 - y1) + x1:
            odd = not odd
    return odd


@given(st.lists(st.tuples(st.floats(-2, 12), st.floats(-2, 12)), min_size=3, max_size=12), st.booleans())
def test_polygons(corners, falling):
    xs, ys = zip(*corners, strict=True)
    x, y = np.linspace(0.3, 9.7, 6), np.linspace(0.4, 9.6, 5)
    x = x[::-1] if falling else x
    found = inside((xs, ys), x, y)
    wanted = [[_crossings(xs, ys, a, b) for a in x] for b in y]
    near = [[_on_a_side(xs, ys, a, b) for a in x] for b in y]
    assert (found == wanted)[~np.array(near)].all()


def _on_a_side(xs, ys, x, y):
    """Whether rounding may decide."""
    for k in range(len(xs)):
        across, up = xs[k] - xs[k - 1], ys[k] - ys[k - 1]
        length = np.hypot(across, up)
        away = abs(across * (y - ys[k - 1]) - up * (x - xs[k - 1]))
        if abs(y - ys[k]) < 1e-9 or away <= 1e-9 * length:
            return True
    return False


def test_what_is_drawn_becomes_a_mask_of_the_panels(run):
    """A rectangle over known pixels: the mask is 0 for those whose place is in it, panel by panel."""
    from psana_dask.geometry.tree import coordinates

    det = run["jf"]
    picture = picture_of(run.isel(0), Wanted("jf"))
    shapes = shapes_of({"left": [12.0], "right": [3.0], "bottom": [-4.0], "top": [5.5]},
                       {"xs": [[-5.0, -10.0, -7.0]], "ys": [[-3.0, -3.0, 4.0]]})  # fmt: skip
    mask = Drawn(det, picture, shapes).mask()
    x, y, _ = (1e-3 * c.reshape(mask.shape) for c in coordinates(det.geometry, frame="lab"))
    box = (x > 3) & (x < 12) & (y > -4) & (y < 5.5)
    # pixels on the rim of a shape may go either way: a pixel is 0.1 mm
    rim = (abs(x - 3) < 0.1) | (abs(x - 12) < 0.1) | (abs(y + 4) < 0.1) | (abs(y - 5.5) < 0.1)
    right = x < -4  # where the triangle is
    np.testing.assert_array_equal((mask == 0)[~rim & ~right], box[~rim & ~right])
    # half base times height, in pixels; the rim of 20 mm is 200 pixels long
    assert (mask == 0)[right].sum() == pytest.approx(0.5 * 5 * 7 * 100, abs=100)
    image = drawn_mask(shapes, picture)
    assert image.shape == picture.shape


@pytest.mark.parametrize(
    ("boxes", "polygons"),
    [
        ({"left": [1], "right": [2], "bottom": [3], "top": []}, {}),
        ({"left": ["x"], "right": [2], "bottom": [3], "top": [4]}, {}),
        ({"left": [float("nan")], "right": [2], "bottom": [3], "top": [4]}, {}),
        ({k: [1.0] * (MOST_SHAPES + 1) for k in ("left", "right", "bottom", "top")}, {}),
        ({}, {"xs": [[1.0, 2.0]], "ys": [[1.0]]}),
        ({}, {"xs": [[0.0] * (MOST_CORNERS + 1)], "ys": [[0.0] * (MOST_CORNERS + 1)]}),
        ({}, {"xs": [[]] * 100_000, "ys": [[]] * 100_000}),
        ({}, {"xs": ["<script>"], "ys": ["<script>"]}),
    ],
)
def test_shapes_that_are_refused(boxes, polygons):
    with pytest.raises(ConstantsError):
        shapes_of(boxes, polygons)


def test_text_is_escaped():
    table, facts = markup.table((EVIL,), [(EVIL, 1)]), markup.facts({EVIL: EVIL})
    made = (markup.note(EVIL), table, facts, markup.code(EVIL))
    assert not any("<img" in text for text in made)
    links = markup.navigation("a", {"a": EVIL, "b'><img>": "x"})
    assert "<img" not in links
    assert "href='b&#x27;&gt;&lt;img&gt;'" in links
    assert len(markup.text("x" * 10**6)) < 5000


# ---- in a browser -------------------------------------------------------------------------------
def test_open_a_run_and_pick_an_event(page, browsing, shot, drag):
    page.goto(f"{browsing().url}events?run=6&detector=jf")
    page.get_by_text("event 0 of 0 to 29").wait_for()
    page.get_by_role("button", name="▶").click()
    page.get_by_text("event 1 of 0 to 29, 2024-06-14T06:12:03.008333333").wait_for()
    page.get_by_label("Only events where").fill("gmd.milliJoulesPerPulse > 1 and step == 1")
    page.get_by_label("Only events where").press("Enter")
    page.get_by_text("gmd.milliJoulesPerPulse > 1 and step == 1", exact=False).first.wait_for()
    page.get_by_label("Time (nearest").fill("2024-06-14T06:12:03.1")
    page.get_by_label("Time (nearest").press("Enter")
    page.get_by_label("Rings at").fill("5, 9")
    page.get_by_label("Rings at").press("Enter")
    page.get_by_title("Region").click()
    drag("picture", (-5, 3), (-15, -3))
    page.get_by_text("good pixels").wait_for()
    assert _rings(page) == 2
    shot("browse_events")
    page.get_by_text("EPICS", exact=True).click()
    page.get_by_role("cell", name=EVIL).first.wait_for()
    page.get_by_text("Curves", exact=True).click()
    shot("browse_curves")
    page.get_by_text("Code", exact=True).click()
    program = page.locator("pre").inner_text()
    [fraction] = re.findall(r"run.sel\('2024-06-14T06:12:03.(\d{9})'\)", program)
    number = round(int(fraction) * 120e-9)  # at 120 Hz
    page.get_by_role("link", name="Address of this event").click()
    page.get_by_text(f"event {number} of 0 to 29").wait_for()
    page.get_by_label("Only events where").fill("__import__('os').system('x')")
    page.get_by_label("Only events where").press("Enter")
    page.get_by_text("is not understood here").wait_for()


def _rings(page):
    return page.evaluate("""() => Bokeh.documents[0].get_model_by_name('picture').renderers
        .filter(r => r.glyph.type == 'MultiLine')[0].data_source.get_length()""")


def _sent(page):
    """Return the shape of the picture that the browser has, and its width; waits for one."""
    page.wait_for_function(
        "() => Bokeh.documents[0].get_model_by_name('picture').renderers[0].data_source.data.image?.length"
    )
    return page.evaluate("""() => {
        const image = Bokeh.documents[0].get_model_by_name('picture').renderers[0].data_source.data
        return [image.image[0].shape ?? [image.image[0].length], image.dw[0]]
    }""")


def test_zooming_sends_more_of_less(page, browsing, monkeypatch):
    """The whole picture comes thinned to what a screen can show, a part of it pixel by pixel."""
    monkeypatch.setattr(pictures, "MOST", 100)
    monkeypatch.setattr(pictures.looked_at, "__defaults__", (None, None, 100))
    page.goto(f"{browsing().url}events?run=6&detector=jf")
    page.get_by_text("event 0 of 0 to 29").wait_for()
    shape, width = _sent(page)
    assert max(shape) <= 100
    pixel = width / shape[1]
    x, y = page.evaluate("""() => {
        const view = Bokeh.index.find_one(Bokeh.documents[0].get_model_by_name('picture'))
        const box = view.canvas_view.el.getBoundingClientRect(), frame = view.frame.bbox
        return [box.left + frame.hcenter, box.top + frame.vcenter]
    }""")
    page.mouse.move(x, y)
    for _ in range(8):
        page.mouse.wheel(0, -400)
    page.wait_for_function("""pixel => {
        const image = Bokeh.documents[0].get_model_by_name('picture').renderers[0].data_source.data
        return image.dw[0] / image.image[0].shape[1] < 0.5 * pixel
    }""", arg=pixel)  # fmt: skip
    shape, width = _sent(page)
    assert width / shape[1] == pytest.approx(0.1)  # mm: the pixels themselves
    assert max(shape) <= 100


def test_draw_a_mask_save_it_and_take_it_back(page, browsing, calib, shot, drag):
    page.goto(f"{browsing(write=True).url}events?run=6&detector=jf")
    page.get_by_text("event 0 of 0 to 29").wait_for()
    page.get_by_title("Mask a rectangle").click()
    drag("picture", (15, 3), (5, -3))
    page.get_by_text("Mask", exact=True).click()
    page.get_by_label("Comment").fill(EVIL)
    page.get_by_label("Comment").press("Enter")
    page.get_by_role("button", name="Save mask").click()
    page.get_by_text("1 shape;").wait_for()
    saved = calib / "Jungfrau::CalibV1" / "jf" / "pixel_mask" / "6-end.data"
    assert not saved.exists()
    page.get_by_role("button", name="Yes, do it").click()
    page.get_by_text("wrote").wait_for()
    page.get_by_label("Leave out").select_option("bad status and pixel_mask")
    page.wait_for_function("""() => {
        const image = Bokeh.documents[0].get_model_by_name('picture').renderers[0].data_source.data.image[0]
        return image.reduce((n, v) => n + isNaN(v), 0) > 5000
    }""")
    shot("browse_mask")
    mask = LocalStore(calib).find("jf", "pixel_mask", 6).found().value
    # 10 by 6 mm with pixels of 0.1 mm; the mouse has pixels too, of about 0.08 mm
    assert (mask == 0).sum() == pytest.approx(6000, rel=0.03)
    assert LocalStore(calib).history("jf", "pixel_mask")[0].comment == EVIL
    page.get_by_role("button", name="Undo last mask").click()
    page.get_by_text("take back pixel_mask of jf").wait_for()
    page.get_by_role("button", name="Yes, do it").click()
    page.get_by_text("took back").wait_for()
    assert not saved.exists()


FORGE = """() => {
    for (const model of Bokeh.documents[0]._all_models.values())
        if (model.type.endsWith('Button')) { model.disabled = false; model.visible = true }
}"""


def test_without_write_a_forged_click_changes_nothing(page, browsing, calib, drag):
    page.goto(f"{browsing().url}events?run=6&detector=jf")
    page.get_by_text("event 0 of 0 to 29").wait_for()
    page.get_by_title("Mask a rectangle").click()
    drag("picture", (15, 3), (5, -3))
    page.get_by_text("Mask", exact=True).click()
    assert page.get_by_role("button", name="Save mask").is_disabled()
    page.evaluate(FORGE)
    page.get_by_role("button", name="Save mask").click()
    page.locator(".bad").get_by_text("these pages are read only").wait_for()
    page.get_by_role("button", name="Yes, do it").first.click()  # nothing was offered
    assert not (calib / "Jungfrau::CalibV1" / "jf" / "pixel_mask").exists()


@pytest.mark.filterwarnings("ignore::psana_dask.errors.PartialRunWarning")
def test_a_damaged_run_opens_and_says_so(page, browsing, shot):
    page.goto(f"{browsing().url}events?run=7")
    page.get_by_text("event 0 of 0 to").wait_for()
    page.get_by_text("problems: part of this run could not be read").wait_for()
    shot("browse_damaged")


def test_two_users_have_pages_of_their_own(page, chromium, browsing):
    address = f"{browsing().url}events?run=6&detector=jf"
    other = chromium.new_context().new_page()
    page.goto(address)
    other.goto(address)
    for tab in (page, other):
        tab.get_by_text("event 0 of 0 to 29").wait_for()
    page.get_by_role("button", name="▶").click()
    page.get_by_text("event 1 of 0 to 29").wait_for()
    other.get_by_label("Detector").select_option("opal")
    other.get_by_role("button", name="▶").click()
    other.get_by_role("button", name="▶").click()
    other.get_by_text("event 2 of 0 to 29").wait_for()
    assert page.get_by_text("event 1 of 0 to 29").count() == 1
    assert page.get_by_label("Detector").input_value() == "jf"
    other.context.close()

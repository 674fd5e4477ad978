"""The constants manager: what a desk allows, what a page shows, and how it is used in a browser."""

import re
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from psana_dask.calib.constants import LAST_RUN, Constants, RunRange
from psana_dask.calib.localstore import LocalStore
from psana_dask.calib.store import Listed, choose
from psana_dask.errors import ConstantsError, ConstantsNotFound, NameNotFound, ReadOnlyError
from psana_dask.pages.background import Background
from psana_dask.pages.choosing import Shelf
from psana_dask.pages.constants import ConstantsPage, held, looked_at
from psana_dask.pages.darks import DarkJob, Stopped
from psana_dask.pages.desk import (
    LONGEST_COMMENT,
    Desk,
    _in_force,
    desk_for,
    histogram,
    name_in_store,
    stage_values,
    stages_of,
)

pytestmark = pytest.mark.filterwarnings("ignore::psana_dask.errors.PartialRunWarning")  # of run 7

EVIL = "<img src=x onerror=alert(1)>"
SOURCE = "XppEndstation.0:Opal1000.0"


def pedestals(level, shape=(4, 5)):
    return Constants("pedestals", np.full(shape, level, np.float32), comment="by hand")


@pytest.fixture
def store(tmp_path):
    store = LocalStore(tmp_path / "calib")
    for runs, level in ((RunRange(10), 5.0), (RunRange(20, 30), 7.5)):
        store.deploy(pedestals(level), SOURCE, runs, comment=EVIL)
    return store


# ---- the desk -----------------------------------------------------------------------------------
ranges = st.tuples(st.integers(0, 40), st.one_of(st.just(LAST_RUN), st.integers(0, 40))).map(sorted)


@given(st.lists(ranges, max_size=8))
def test_what_is_in_force_is_what_the_store_chooses(pairs):
    """For every run the bar that is solid there is the constant that the choice rule takes."""
    rows = [Listed("d", "pedestals", RunRange(*p), str(k)) for k, p in enumerate(pairs)]
    spans = _in_force(rows)
    for run in [*range(45), LAST_RUN]:
        solid = [row for row, parts in spans if any(first <= run <= last for first, last in parts)]
        best = choose([(r.runs, k, r) for k, r in enumerate(rows)], run)
        assert solid == ([] if best is None else [best[2]])


def test_a_desk_shows_constants_and_their_history(store):
    desk = Desk(store)
    assert desk.detectors() == [SOURCE]
    bars = desk.bars(SOURCE)
    assert [(b.label, b.in_force) for b in bars] == [
        ("pedestals 10-end", ((10, 19), (31, LAST_RUN))), ("pedestals 20-30", ((20, 30),))]  # fmt: skip
    assert desk.constant(bars[1].listed).value.mean() == 7.5
    found = looked_at(desk, bars[1], bars[0], "")
    assert found.facts["difference"].startswith("pedestals: 20 of 20 values differ, by at most 2.5")
    np.testing.assert_array_equal(found.picture.values, np.full((4, 5), 2.5))
    assert [line.comment for _, line in held(desk, SOURCE).history] == [EVIL, EVIL]
    assert "largest begin" in desk.why(SOURCE, "pedestals", 25)


def test_nothing_is_written_without_write(store):
    desk = Desk(store)
    before = _content(store.path)
    for change in (
        lambda: desk.deploy([pedestals(1.0)], SOURCE, "40", ""),
        lambda: desk.preview([pedestals(1.0)], SOURCE, "40"),
        lambda: desk.last(SOURCE, "pedestals"),
        lambda: desk.undo(SOURCE, "pedestals", store.last_deployment(SOURCE, "pedestals")),
    ):
        with pytest.raises(ReadOnlyError, match="--write"):
            change()
    assert _content(store.path) == before
    with pytest.raises(ReadOnlyError, match="no store cannot be written"):
        Desk(None, write=True).deploy([pedestals(1.0)], SOURCE, "40", "")


def _content(folder):
    return {p: p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


@pytest.mark.parametrize("detector", ["../../evil", "a/b", "..", "", "x\0", "x\ny", "n" * 300])
def test_names_cannot_leave_the_store(store, detector):
    before = _content(store.path.parent)
    with pytest.raises((ConstantsError, NameNotFound)):
        Desk(store, write=True).deploy([pedestals(1.0)], detector, "40", "")
    assert _content(store.path.parent) == before


def test_what_is_too_long_or_wrong_is_refused(store):
    desk = Desk(store, write=True)
    for runs, comment in (("40", "c" * (LONGEST_COMMENT + 1)), ("1" * 50, ""), ("30-20", ""), (EVIL, "")):
        with pytest.raises(ConstantsError):
            desk.deploy([pedestals(1.0)], SOURCE, runs, comment)
    with pytest.raises(NameNotFound):
        desk.undo(SOURCE, "../pedestals", store.last_deployment(SOURCE, "pedestals"))


def test_undo_takes_back_what_was_shown_or_nothing(store):
    desk = Desk(store, write=True)
    shown = desk.last(SOURCE, "pedestals")
    desk.deploy([pedestals(9.0)], SOURCE, "20-30", "someone else\nfile:evil  action:deploy")
    with pytest.raises(ConstantsError, match="changed in the meantime"):
        desk.undo(SOURCE, "pedestals", shown)
    assert store.find(SOURCE, "pedestals", 25).found().value.mean() == 9.0
    desk.undo(SOURCE, "pedestals", desk.last(SOURCE, "pedestals"))
    assert store.find(SOURCE, "pedestals", 25).found().value.mean() == 7.5
    for _ in range(2):
        desk.undo(SOURCE, "pedestals", desk.last(SOURCE, "pedestals"))
    with pytest.raises(ConstantsNotFound):
        desk.last(SOURCE, "pedestals")
    assert len(held(desk, SOURCE).history) == 6  # also where nothing is left


def test_which_desk_serves_an_experiment(beamtime, calib):
    run = Shelf(folder=beamtime / "xtc").open(Shelf(folder=beamtime / "xtc").choice("tstx00117", 6))
    assert desk_for(None, "tstx00117", run, False).store.path == beamtime / "calib"
    assert desk_for(str(calib), "tstx00117", run, True).why_not == ""
    web = desk_for("http://127.0.0.1:9/ws", "tstx00117", run, True)
    assert "cannot be written" in web.why_not
    assert name_in_store(web, run["jf"]) == run["jf"].det_type + "_" + "_".join(run["jf"].source["det_ids"])
    assert desk_for(None, "", None, True).bars("jf") == []


def test_gain_ranges_and_histograms(calib):
    desk = Desk(LocalStore(calib))
    found = desk.constant(next(b for b in desk.bars("jf") if b.listed.kind == "pedestals").listed)
    assert stages_of(found) == ["g0", "g1", "g2"]
    np.testing.assert_array_equal(stage_values(found, "g1"), found.value[1])
    with pytest.raises(NameNotFound):
        stage_values(found, EVIL)
    values = np.concatenate([np.random.default_rng(0).normal(100, 5, 10_000), [np.nan, 1e9, -1e9]])
    edges, counts, numbers = histogram(values)
    inside = values[(values >= edges[0]) & (values <= edges[-1])]
    assert sum(counts) == len(inside)
    assert (numbers["below"], numbers["above"], numbers["not finite"]) == (1, 1, 1)


def test_a_dark_stops_when_it_is_asked_to():
    told = []
    job = DarkJob(lambda done, total: told.append((done, total)))
    job(1, 10)
    job(10, 10)
    assert told == [(1, 10), (10, 10)]
    job.stop = True
    with pytest.raises(Stopped):
        job(10, 10)


def test_a_dark_tells_how_far_it_is(beamtime, calib, monkeypatch):
    """The page without a browser: everything is done at once, message by message."""
    monkeypatch.setattr("psana_dask.pages.darks.TELL_EVERY", 0.0)
    page = ConstantsPage(Shelf(folder=beamtime / "xtc", calib=str(calib)), write=True)
    told = []
    page.dark.said.param.watch(lambda event: told.append(event.new), "object")
    page.dark.runs.value = ["run 5"]
    page.dark.detector.value = "jf"
    page.dark.start.clicks += 1
    assert [re.search(r"(\d+) of 30 frames", text)[1] for text in told[1:3]] == ["16", "30"]
    assert "there is no dark of" in told[-1] or "not yet complete" in told[-1]  # g1 and g2 were not measured
    page.dark.missing.value = "neutral"
    page.dark.start.clicks += 1
    assert page.looked.constant.value.shape == (3, 2, 128, 256)
    page.dark.detector.value = "opal"
    page.dark.start.clicks += 1
    page.dark.deploy.button.clicks += 1
    assert "pixel_rms: none before" in page.dark.deploy.said.object
    page.dark.deploy.yes.clicks += 1
    assert page.dark.deploy.said.object.count("wrote") == 5
    page.dark.deploy.yes.clicks += 1  # once is enough
    assert len(LocalStore(calib).history("opal", "pixel_rms")) == 1


class Document:
    """Calls back when it is told to, as the loop of a page does."""

    def __init__(self):
        self.calls = []
        self.held = False

    def add_next_tick_callback(self, call):
        self.calls.append(call)

    def hold(self, policy):
        assert policy == "combine"
        assert not self.held
        self.held = True

    def unhold(self):
        self.held = False

    def run(self, count):
        end = time.monotonic() + 10
        while count and time.monotonic() < end:
            if self.calls:
                self.calls.pop(0)()
                assert not self.held
                count -= 1
            time.sleep(0.001)
        assert not count


def test_of_many_wishes_the_last_is_shown():
    document, shown, failed = Document(), [], []
    background = Background(document, failed.append)
    for k in range(50):
        background.do(lambda k=k: (time.sleep(0.01), k)[1], shown.append)
    document.run(2)
    assert shown == [49]
    background.do(lambda: 1 / 0, shown.append)
    document.run(1)
    assert isinstance(failed[0], ZeroDivisionError)


def test_a_page_without_data_shows_the_store(store, tmp_path, monkeypatch):
    monkeypatch.setenv("SIT_PSDM_DATA", str(tmp_path / "nothing"))
    page = ConstantsPage(Shelf(calib=str(store.path)))
    assert page.detector.options == [SOURCE]
    assert page.looked.constant.value.mean() == 5.0
    page.bar.value = 1
    assert page.looked.constant.value.mean() == 7.5
    page.minus.value = 0
    assert page.looked.constant.value.mean() == 2.5
    assert EVIL not in page.history.object
    page._clicked(7_000)
    assert page.bar.value == 1
    (store.path / "Camera::CalibV1" / SOURCE / "pedestals" / "20-30.data").write_text("not numbers")
    page.minus.value = -1
    assert "20-30.data" in page.status.view.object


# ---- in a browser -------------------------------------------------------------------------------
def _open(page, server, detector="opal"):
    page.goto(f"{server.url}constants?detector={detector}")
    page.get_by_text(f"/{detector}/").first.wait_for()


def test_put_a_constant_in_force_and_take_it_back(page, browsing, calib, shot):
    _open(page, browsing(write=True))
    store = LocalStore(calib)
    page.get_by_label("Constant").select_option("1: pedestals 6-end")
    page.get_by_text("Deploy", exact=True).click()
    page.get_by_label("For runs").last.fill("8-9")
    page.get_by_label("For runs").last.press("Enter")
    page.get_by_label("Comment").last.fill(EVIL)
    page.get_by_label("Comment").last.press("Enter")
    page.get_by_role("button", name="Put in force").click()
    page.get_by_text("pedestals: 0 of 4800 values differ").wait_for()
    assert len(store.listing("opal")) == 3  # nothing is written yet
    page.get_by_role("button", name="No").click()
    page.get_by_role("button", name="Put in force").click()
    page.get_by_role("button", name="Yes, do it").click()
    page.get_by_text("wrote").wait_for()
    assert store.find("opal", "pedestals", 8).found().runs == RunRange(8, 9)
    page.get_by_label("Constant").select_option("2: pedestals 8-9")
    page.get_by_label("minus").select_option("1: pedestals 6-end")
    page.get_by_text("Picture", exact=True).click()
    page.get_by_role("status").get_by_text("pedestals: 0 of 4800 values differ, by").first.wait_for()
    shot("browse_difference")
    page.get_by_text("History", exact=True).click()
    page.get_by_role("cell", name=EVIL).first.wait_for()
    shot("browse_history")
    page.get_by_text("Undo", exact=True).click()
    page.get_by_label("Kind").select_option("pedestals")
    page.get_by_role("button", name="Take back").click()
    page.get_by_text("take back pedestals of opal: 8-9.data").wait_for()
    page.get_by_role("button", name="Yes, do it").click()
    page.get_by_text("took back pedestals 8-9.data").wait_for()
    assert store.find("opal", "pedestals", 8).found().runs == RunRange(6)


def _insist_on_tab(page, name, there):
    """Choose a tab until it stays: the page goes to the pictures by itself when one is asked for."""
    for _ in range(15):
        page.get_by_text(name, exact=True).click()
        page.wait_for_timeout(500)
        if there.is_visible():
            return
    pytest.fail(f"the tab {name} does not stay")


def test_a_dark_run_is_worked_out_and_put_in_force(page, browsing, calib, shot):
    _open(page, browsing(write=True))
    page.get_by_text("Dark runs", exact=True).click()
    page.get_by_label("Dark runs").select_option("run 5")
    page.get_by_label("Detector").last.select_option("opal")
    page.get_by_role("button", name="Work out").click()
    page.get_by_text("30 frames, pedestal").wait_for()
    page.get_by_role("button", name="Show").click()
    page.get_by_text("pedestals of opal: not put in force").wait_for()  # on the tab of pictures
    button = page.get_by_role("button", name="Put dark in force")
    _insist_on_tab(page, "Dark runs", button)
    button.click()
    page.get_by_text("pixel_status/5-end.data").wait_for()
    assert not (calib / "Camera::CalibV1" / "opal" / "pixel_status").exists()
    page.get_by_role("button", name="Yes, do it").click()
    page.get_by_text("wrote").first.wait_for()
    page.get_by_label("Constant").get_by_text("pixel_status 5-end").wait_for(state="attached")
    shot("browse_dark")
    store = LocalStore(calib)
    made = store.find("opal", "pedestals", 5).found().value
    true = store.find("opal", "pedestals", 6).found().value
    # 30 frames with a noise of 3 ADU: 0.55 ADU; the largest of 4800 is below 5 times that
    assert np.abs(made - true).max() < 2.8
    assert store.history("opal", "pedestals")[-1].comment == "dark of run 5"


def test_forged_clicks_without_write_change_nothing(page, browsing, calib):
    """The buttons are enabled by a script in the browser: the server refuses all the same."""
    before = _content(calib)
    _open(page, browsing())
    page.evaluate("""() => { for (const m of Bokeh.documents[0]._all_models.values())
        if (m.type.endsWith('Button')) { m.disabled = false; m.visible = true } }""")
    page.get_by_text("Deploy", exact=True).click()
    page.get_by_label("For runs").last.fill("8-9")
    page.get_by_label("For runs").last.press("Enter")
    page.get_by_role("button", name="Put in force").click()
    page.locator(".bad").get_by_text("these pages are read only").wait_for()
    page.get_by_role("button", name="Yes, do it").first.click()  # nothing was offered
    page.get_by_text("Undo", exact=True).click()
    page.get_by_role("button", name="Take back").click()
    page.locator(".bad").get_by_text("these pages are read only").last.wait_for()
    assert _content(calib) == before


def _insist(page):
    """Ask until the page answers: under load a click that came behind refused values has had no answer."""
    for _ in range(15):
        page.get_by_role("button", name="Put in force").click()
        page.wait_for_timeout(2000)
        if page.locator(".bad").count():
            return
    pytest.fail("the page gave no answer")


def test_what_a_browser_makes_up_is_refused(page, browsing, calib):
    """Values that no widget offers, and messages beyond all measure."""
    server = browsing(write=True)
    before = _content(calib)
    sockets = []
    page.on("websocket", lambda socket: sockets.append(socket))  # noqa: PLW0108  (playwright marks it)
    _open(page, server)
    page.evaluate("""() => { for (const m of Bokeh.documents[0]._all_models.values())
        if (m.type.endsWith('Select') && !m.type.includes('Multi')) m.value = '../../../etc/passwd' }""")
    page.get_by_text("Deploy", exact=True).click()
    page.evaluate("""() => { for (const m of Bokeh.documents[0]._all_models.values())
        if (m.type.endsWith('TextInput')) m.value = 'x'.repeat(3000) }""")
    _insist(page)
    page.expected = ["onnection", "WebSocket"]
    with sockets[-1].expect_event("close"):  # a text in no widget: drawing it takes the browser long
        page.evaluate("() => { Bokeh.documents[0].roots()[0].tags = ['x'.repeat(21_000_000)] }")
    _open(page.context.new_page(), server)  # the server goes on
    assert _content(calib) == before

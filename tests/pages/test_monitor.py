"""A browser sees events as they come: pictures change, counters count, a pause holds."""

import re
import subprocess
import sys
import threading
import time
import uuid
from contextlib import contextmanager

import numpy as np
import pytest

import psana_dask
from psana_dask import simulate
from psana_dask.simulate import Detector, RunSpec

pn = pytest.importorskip("panel")

from psana_dask.errors import PageError  # noqa: E402
from psana_dask.stream.followed import ClosedRun  # noqa: E402
from psana_dask.stream.replay import moments  # noqa: E402
from psana_dask.stream.sending import Sender, serve  # noqa: E402

WRITE_LIVE = """
import sys
from psana_dask.simulate import Detector, RunSpec
from psana_dask.simulate.live import write_live

cam = Detector(name="cam", kind="camera", shape=(120, 160))
detectors = (cam, Detector(name="gmd", kind="gmd", stream=1))
write_live(RunSpec(events=5000, detectors=detectors, smalldata=False), sys.argv[1], rate=60)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    detectors = (
        Detector(name="cam", kind="camera", shape=(120, 160)),
        Detector(name="gmd", kind="gmd", stream=1),
        Detector(name="wave", kind="waveform", stream=1, shape=(50,)),
    )
    return simulate.write(RunSpec(events=1500, detectors=detectors), tmp_path_factory.mktemp("live")).folder


@pytest.fixture(scope="module")
def run(folder):
    return psana_dask.open(folder)


def count(page, name):
    return int(page.locator(f"[data-count='{name}'] b").inner_text().replace(",", ""))


ALL_COUNTS = """bar => Object.fromEntries([...bar.querySelectorAll("[data-count]")].map(
    one => [one.dataset.count, Number(one.querySelector("b").innerText.replaceAll(",", ""))]))"""


def until(page, holds, seconds=60):
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, page.locator(".bar").inner_text()
        page.wait_for_timeout(50)


def picture(page):
    """The picture of the detector, as the screen has it."""
    return figure_of(page, "cam_raw").screenshot()


def figure_of(page, title):
    """The first figure of a card."""
    card = page.locator(".card").filter(has=page.locator("h2", has_text=title))
    return card.locator(".bk-Figure").first


@pytest.fixture(autouse=True)
def _the_server_stops_first(page):
    """The page is still open then, and says so."""
    page.expected.append("not connected so cannot send")


def opened(page, live):
    page.goto(live.url)
    page.locator("h2", has_text="cam_raw").wait_for()
    until(page, lambda: page.locator(".state.live").count() == 1)


def test_a_browser_sees_events_come(page, run, shot):
    def profile(ds):
        return ds.cam_raw_mean.mean("row")

    names = ["cam.raw", "gmd", "wave"]
    with psana_dask.plot.live(run, names, plots=profile, rate=30) as live:
        opened(page, live)
        for title in ("profile", "wave_raw", "gmd_milliJoulesPerPulse", "scatter", "rates"):
            page.locator("h2", has_text=title).first.wait_for()
        before, first = count(page, "processed"), picture(page)
        until(page, lambda: count(page, "processed") > before + 20)
        assert picture(page) != first
        seen = page.locator(".bar").evaluate(ALL_COUNTS)  # at one moment
        assert seen["received"] >= seen["processed"] > before
        shot("monitor")

        # a pause holds everything that is seen, while events are read
        page.get_by_role("button", name="Pause").click()
        page.locator(".state.paused").wait_for()
        until(page, lambda: page.locator(".bar").inner_text() == settled(page))
        held, still, seen = page.locator(".bar").inner_text(), picture(page), live.counters.processed
        until(page, lambda: live.counters.processed > seen + 20)
        assert page.locator(".bar").inner_text() == held
        assert picture(page) == still

        # colours: another scale makes another picture of the same event
        page.get_by_role("button", name="log", exact=True).first.click()
        until(page, lambda: picture(page) != still)
        logarithmic = picture(page)
        page.get_by_role("button", name="mean", exact=True).click()
        page.get_by_text("mean of ").first.wait_for()
        until(page, lambda: picture(page) != logarithmic)

        page.get_by_role("button", name="Go on").click()
        until(page, lambda: count(page, "processed") > seen + 20)
        assert live.error is None


def settled(page):
    """What the bar says, when two looks at it agree."""
    before = page.locator(".bar").inner_text()
    page.wait_for_timeout(300)
    return before if page.locator(".bar").inner_text() == before else None


def test_limits_stay_where_they_are_typed(page, run):
    with psana_dask.plot.live(run, "cam.raw", rate=30, means=False) as live:
        opened(page, live)
        low, high = (page.locator("input.bk-input").nth(k) for k in (0, 1))
        until(page, lambda: float(high.input_value() or 0) > 1)  # the colours that it chose
        assert page.get_by_role("button", name="mean", exact=True).count() == 0
        chosen = page.get_by_role("combobox").nth(1)
        chosen.select_option("fixed")
        high.fill("123456")
        high.press("Enter")
        until(page, lambda: colours(live)[1] == 123456)
        fixed = count(page, "processed")
        until(page, lambda: count(page, "processed") > fixed + 20)
        assert high.input_value() == "123456"
        chosen.select_option("all values")
        until(page, lambda: high.input_value() != "123456")
        assert float(low.input_value()) < float(high.input_value())


def colours(live):
    """Lowest and highest colour of the first picture."""
    mapper = next(iter(live._pages[0]._plots.values()))._bar.color_mapper
    return mapper.low, mapper.high


def test_zooming_shows_real_pixels(page, tmp_path):
    """A frame of more pixels than the screen is averaged, until one looks at a part of it."""
    spec = RunSpec(events=40, detectors=(Detector(name="cam", kind="camera", shape=(1100, 1300)),))
    big = psana_dask.open(simulate.write(spec, tmp_path).folder)
    with psana_dask.plot.live(big, "cam.raw", rate=2, means=False) as live:
        opened(page, live)
        until(page, lambda: sent(live) is not None)
        assert max(sent(live)) <= 512
        canvas = figure_of(page, "cam_raw")
        box = canvas.bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        for _ in range(12):
            page.mouse.wheel(0, -400)
            page.wait_for_timeout(40)
        plot = next(iter(live._pages[0]._plots.values()))
        until(page, lambda: plot._source.data["dw"][0] < 1300 and plot._source.data["dw"][0] == sent(live)[1])


def sent(live):
    """Rows and columns of the picture that a page was sent last."""
    plots = list(live._pages[0]._plots.values()) if live._pages else []
    images = plots[0]._source.data["image"] if plots else []
    return images[0].shape if len(images) else None


def test_a_slow_plot_loses_pictures_and_no_events(page, run):
    def slow(ds):
        time.sleep(0.5)
        return ds.gmd_milliJoulesPerPulse.mean()

    with psana_dask.plot.live(run, ["cam.raw", "gmd"], plots=[slow], rate=200, policy="complete") as live:
        opened(page, live)
        page.locator("h2", has_text="slow").wait_for()
        until(page, lambda: live.counters.processed > 300)
        assert live.counters.dropped == 0
        assert live._pages[0]._sent < live._feed.snapshot.number


def test_what_is_dropped_is_seen(page, run, monkeypatch):
    monkeypatch.setattr("psana_dask.pages.following.BATCH", 4)
    with psana_dask.plot.live(run, ["cam.raw"], rate=2000, policy="latest") as live:
        page.goto(live.url)
        until(page, lambda: page.locator(".count.lost").count() > 0)
        until(page, lambda: page.locator(".state.ended").count() == 1)
        until(page, lambda: count(page, "received") == 1500)
        assert count(page, "dropped") == live.counters.dropped > 0
        assert count(page, "processed") + count(page, "dropped") == 1500


def test_errors_are_shown_and_not_swallowed(page, run, monkeypatch, shot):
    whole = ClosedRun.runs

    def torn(self, *how):
        for number, batch in enumerate(whole(self, *how)):
            if number == 5:
                raise OSError("the file <vanished>")
            yield batch

    def wrong(ds):
        return ds.nothing

    monkeypatch.setattr(ClosedRun, "runs", torn)
    with psana_dask.plot.live(run, ["cam.raw"], plots=[wrong], rate=30) as live:
        page.goto(live.url)
        page.get_by_text("wrong: AttributeError: 'Dataset' object has no attribute 'nothing'").wait_for()
        page.get_by_text("OSError: the file <vanished>").wait_for()
        page.locator(".state.failed").wait_for()
        assert isinstance(live.error, OSError)
        until(page, lambda: page.locator("h2", has_text="cam_raw").count() == 1)  # what came is still seen
        shot("monitor_failed")


@contextmanager
def another_process(*command):
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, *command], **quiet) as process:
        try:
            yield
        finally:
            process.send_signal(2)  # Ctrl-C: it takes its shared memory away


@pytest.fixture(params=["tcp", "shmem", "live"])
def source(request, folder, free_port, tmp_path):
    """A source of events whose other side is another process."""
    served = ("-m", "psana_dask", "serve", str(folder), "--rate", "60", "--loop")
    if request.param == "tcp":
        url = f"tcp://127.0.0.1:{free_port}"
        command = (*served, "--zmq", url, "--pub")
    elif request.param == "shmem":
        if sys.platform != "linux":
            pytest.skip("POSIX message queues are Linux only")
        tag = f"test_{uuid.uuid4().hex[:12]}"
        url, command = f"shmem://{tag}", (*served, "--shmem", tag)
    else:
        url, command = f"live:{tmp_path / 'run'}", ("-c", WRITE_LIVE, str(tmp_path / "run"))
    with another_process(*command):
        deadline = time.monotonic() + 60
        while request.param == "live" and not [*tmp_path.rglob("*.inprogress")]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield request.param, url


def test_events_of_another_process_in_the_browser(page, source, shot):
    kind, url = source
    patient = {} if kind == "live" else {"timeout": 60}
    with psana_dask.plot.live(url, ["cam.raw", "gmd"], **patient) as live:
        opened(page, live)
        until(page, lambda: page.locator("h2", has_text="gmd_milliJoulesPerPulse").count() > 0)
        before, first = page.locator(".bar").evaluate(ALL_COUNTS), picture(page)
        numbers = figure_of(page, "gmd_milliJoulesPerPulse")
        told = numbers.screenshot()
        until(page, lambda: count(page, "processed") > before["processed"] + 20)
        until(page, lambda: picture(page) != first and numbers.screenshot() != told)
        seen = page.locator(".bar").evaluate(ALL_COUNTS)
        assert seen["received"] >= seen["processed"] > before["processed"]
        assert live.error is None
        assert page.locator(".error").count() == 0
        shot(f"monitor_{kind}")


# ---- the last state -------------------------------------------------------------------------------
def wait_for_end(live):
    deadline = time.monotonic() + 60
    while not live._feed.ended:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def shows_the_end(page, live, events):
    """Open a page, and wait until it shows the last picture, the numbers and the counters."""
    page.goto(live.url)
    page.locator(".state.ended").wait_for()
    page.locator("h2", has_text="cam_raw").wait_for()
    page.get_by_text(f"of {events:,} events").first.wait_for()  # the numbers
    page.get_by_text(f"event of {str(live._feed.snapshot.view.time[-1])[:23].replace('T', ' ')}").wait_for()
    until(page, lambda: count(page, "processed") == events)
    until(page, lambda: not live._pages[-1]._under_way)  # the browser says that it painted all of it
    colours = page.evaluate(PIXELS)
    assert len(colours) > 20, colours


PIXELS = """() => {
    const plot = Bokeh.index.find_one_by_id(Bokeh.documents[0].get_model_by_name("cam_raw").id)
    const {left, top, width, height} = plot.frame.bbox, ctx = plot.canvas_view.primary.ctx
    const seen = ctx.getImageData(left, top, width, height).data
    return [...new Set(new Uint32Array(seen.buffer))]
}"""
"""The colours of the picture, as they lie on the canvas of the browser."""


def test_a_page_that_is_opened_after_the_end_shows_the_last_state(page, run, shot):
    with psana_dask.plot.live(run, ["cam.raw", "gmd"], rate=5000) as live:
        wait_for_end(live)
        shows_the_end(page, live, 1500)
        shot("monitor_ended")


def test_a_page_that_is_opened_after_the_end_of_a_stream(page, run, free_port):
    url = f"tcp://127.0.0.1:{free_port}"

    def send():
        with Sender(url, run.format) as sender:
            serve(sender, moments(run.isel(slice(0, 40))._recording), 1000)
            sender.end()

    sending = threading.Thread(target=send)
    sending.start()
    with psana_dask.plot.live(url, ["cam.raw", "gmd"], policy="complete") as live:
        sending.join()
        wait_for_end(live)
        shows_the_end(page, live, live.counters.processed)


def test_what_panel_forgets_to_send_is_asked_for(page, run, monkeypatch):
    """Panel queues what comes while something else is written, and now and then leaves it there."""
    import panel.io.document as sending

    if not hasattr(sending, "_WRITE_MSGS"):
        pytest.skip("another version of panel sends in another way")
    forgotten, write = [], sending.write_events

    def forgets(doc, connections, events):
        shown = [page._shown for page in live._pages if doc is page._document]
        if shown and shown[0] == 2 and not forgotten:  # nothing comes after it
            forgotten.append(events)
            sending._WRITE_MSGS[doc] = {c: [c.protocol.create("PATCH-DOC", events)] for c in connections}
        else:
            write(doc, connections, events)

    monkeypatch.setattr(sending, "write_events", forgets)
    with psana_dask.plot.live(run, ["cam.raw", "gmd"], rate=5000) as live:
        wait_for_end(live)
        shows_the_end(page, live, 1500)
    assert forgotten


# ---- many pictures --------------------------------------------------------------------------------
def test_a_slow_browser_skips_pictures_and_nothing_piles_up(page, run):
    with psana_dask.plot.live(run, ["cam.raw", "gmd"], rate=100) as live:
        opened(page, live)
        shown = live._pages[0]
        page.evaluate("setInterval(() => { const t = Date.now(); while (Date.now() - t < 380); }, 400)")
        until(page, lambda: shown._took > 0.3)
        before, number, most = live._feed.snapshot.number, shown._sent, 0
        end = time.monotonic() + 2
        while time.monotonic() < end:
            most = max(most, len(shown._under_way))
            time.sleep(0.01)
        assert most <= 2
        assert 0 < shown._sent - number < live._feed.snapshot.number - before


def wait_until_still(shown):
    """Wait until a page is sent nothing for a second; return how much it was sent."""
    while True:
        before = shown._sent
        time.sleep(1)
        if shown._sent == before:
            return before


def test_two_browsers_share_a_reader_and_leave_it(chromium, run):
    with psana_dask.plot.live(run, "cam.raw", rate=30) as live:
        contexts = [chromium.new_context() for _ in range(2)]
        tabs = [context.new_page() for context in contexts]
        for tab in tabs:
            opened(tab, live)
        tabs[0].get_by_role("button", name="Pause").click()
        tabs[0].locator(".state.paused").wait_for()
        before = count(tabs[1], "processed")
        until(tabs[1], lambda: count(tabs[1], "processed") > before + 10)
        assert tabs[1].locator(".state.live").count() == 1
        tabs[0].get_by_role("button", name="Go on").click()
        tabs[0].locator(".state.live").wait_for()
        contexts[0].close()
        sent = wait_until_still(live._pages[0])
        before = count(tabs[1], "processed")
        until(tabs[1], lambda: count(tabs[1], "processed") > before + 10)
        assert live._pages[0]._sent == sent  # nothing is made for a browser that has gone
        contexts[1].close()
    ours = ("psana_dask monitor", "psana_dask live")
    assert not [t.name for t in threading.enumerate() if t.name.startswith(ours)]


# ---- notebooks, scripts, the command line ---------------------------------------------------------
def test_a_notebook_cell_shows_the_page(page, run):
    with psana_dask.plot.live(run, "cam.raw", rate=30) as live:
        shown = live._repr_mimebundle_()
        assert "received" in shown["text/plain"]
        page.set_content(f"<h1>notebook</h1>{shown['text/html']}")
        inside = page.frame_locator("iframe")
        inside.locator(".state.live").wait_for()
        number = inside.locator("[data-count='processed'] b")
        before = int(number.inner_text())
        until_inside = time.monotonic() + 60
        while int(number.inner_text()) <= before and time.monotonic() < until_inside:
            page.wait_for_timeout(50)
        assert int(number.inner_text()) > before


def test_holoviews_objects_are_shown(page, run):
    hv = pytest.importorskip("holoviews")
    hv.extension("bokeh")

    def curve(ds):
        return hv.Curve(ds.gmd_milliJoulesPerPulse.values[-50:], "event", "energy")

    with psana_dask.plot.live(run, "gmd", plots=curve, rate=30) as live:
        page.goto(live.url)
        page.locator("h2", has_text="curve").wait_for()
        before = count(page, "processed")
        until(page, lambda: count(page, "processed") > before + 20)
        assert page.locator(".error").count() == 0


def test_the_dataset_is_there_without_a_browser(run):
    with psana_dask.plot.live(run, ["cam.raw", "gmd"], rate=2000) as live:
        deadline = time.monotonic() + 60
        while not live._feed.ended and time.monotonic() < deadline:
            time.sleep(0.02)
        ds = live.dataset
        assert ds.attrs["processed"] == 1500
        np.testing.assert_array_equal(ds.cam_raw_mean.values, run.mean("cam.raw").values)


def test_the_command(folder, page, tmp_path):
    command = [sys.executable, "-m", "psana_dask", "monitor", str(folder), "cam.raw", "gmd", "--rate", "30"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        try:
            url = process.stdout.readline().strip()
            assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{32}/", url)
            assert "ssh -N -L" in process.stdout.readline()
            page.goto(url)
            page.locator(".state.live").wait_for()
        finally:
            process.send_signal(2)  # Ctrl-C
            assert process.wait(30) == 130


def test_a_taken_port_closes_the_source(run):
    live = psana_dask.plot.live(run, "cam.raw", rate=30)
    with live, live.serve() as server, pytest.raises(PageError, match="is taken"):
        live.serve(port=server.port)
    assert live._feed.ended

"""A real browser for tests of pages: headless chromium, driven by playwright.

``page`` is a fresh tab. What it writes to its console as an error, an exception of its scripts, and a
request that leaves this machine or fails make the test fail; ``page.expected`` lists texts that are meant
to be there. ``shot(name)`` keeps a picture in ``$CI_ARTEFACTS`` (else in the folder of the test).
"""

import os
import shutil
import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


@pytest.fixture(scope="module")
def chromium():
    """The browser; of one module only, as playwright's loop disturbs other tests of asyncio."""
    if not Path(CHROMIUM).exists():
        pytest.skip("no chromium: apt-get install chromium")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture
def page(chromium):
    """A tab of 1280 x 900 pixels whose errors fail the test."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    tab = context.new_page()
    tab.set_default_timeout(30_000)
    tab.expected = []
    seen = watched(tab)
    yield tab
    context.close()
    unexpected = [text for text in seen if not any(known in text for known in tab.expected)]
    assert not unexpected, "\n".join(unexpected)


def watched(tab):
    """Return the list to which a tab adds its errors."""
    seen = []

    def request(asked):
        address = urlsplit(asked.url)
        if address.hostname not in ("127.0.0.1", "localhost", None):
            seen.append(f"asks for {asked.url}")

    tab.on("console", lambda m: seen.append(f"console: {m.text}") if m.type == "error" else None)
    tab.on("pageerror", lambda error: seen.append(f"exception: {error}"))
    tab.on("request", request)
    return seen


@pytest.fixture
def shot(page, tmp_path):
    """Return a function that keeps a picture of the page, or of an element of it."""
    folder = Path(os.environ.get("CI_ARTEFACTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)

    def take(name, element=None):
        path = folder / f"{name}.png"
        (element or page).screenshot(path=path)
        return path

    return take


@pytest.fixture
def free_port():
    """A port P of this machine that is free, as is P + 1."""
    while True:
        with socket.socket() as one, socket.socket() as next_one:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            try:
                next_one.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port


# ---- an experiment to browse --------------------------------------------------------------------
EVIL = "<img src=x onerror=alert(1)>"
"""A name that would run a script if a page took it for HTML."""


def _spec(number, dark=False, **changes):
    from psana_dask.simulate import PV, Detector, Epics, RunSpec
    from psana_dask.simulate.images import Scene

    scene = {"scene": Scene(rings=(), peaks=0, background=0.0)} if dark else {}
    detectors = (
        Detector(name="timing", kind="timing"),
        Detector(name="gmd", kind="gmd"),
        Detector(name="jf", kind="jungfrau", segments=2, shape=(1, 128, 256), stream=1, **scene),
        Detector(name="opal", kind="camera", shape=(60, 80), stream=1, **scene),
        Detector(name="wave", kind="waveform", stream=1, shape=(500,)),
    )
    pvs = (PV("temp", lambda m: 295 + m.event, address="TST:TEMP"), PV(EVIL, 1.0, address=EVIL))
    return RunSpec(number=number, experiment="tstx00117", detectors=detectors, epics=(Epics(pvs=pvs),),
                   slow_every=4, **changes)  # fmt: skip


@pytest.fixture(scope="session")
def beamtime(tmp_path_factory):
    """Folder of an experiment with constants: run 5 is dark, run 6 a scan of 30 events, run 7 was cut."""
    import numpy as np

    from psana_dask import simulate
    from psana_dask.calib.constants import RunRange
    from psana_dask.calib.localstore import LocalStore
    from psana_dask.simulate import Missing, Scan, corrupt

    folder = tmp_path_factory.mktemp("beamtime")
    simulate.write(_spec(5, dark=True, events=30), folder / "xtc")
    scan = Scan(motors={"delay": np.linspace(-1, 1, 3)})
    missing = (Missing(events=(3,), detector="jf"),)
    truth = simulate.write(_spec(6, events=30, steps=3, scan=scan, missing=missing), folder / "xtc")
    simulate.write(_spec(7, events=12), folder / "xtc")
    cut = folder / "xtc" / "tstx00117-r0007-s001-c000.xtc2"
    corrupt.cut(cut, cut.stat().st_size * 6 // 10)
    store = LocalStore(folder / "calib")
    for constant in truth.calib.constants:
        group = "Jungfrau" if constant.detector == "jf" else "Camera"
        store.deploy(constant, constant.detector, RunRange(6), comment=EVIL, group=f"{group}::CalibV1")
    return folder


@pytest.fixture
def calib(beamtime, tmp_path):
    """A copy of the constants of `beamtime` that may be changed."""
    return Path(shutil.copytree(beamtime / "calib", tmp_path / "calib"))


@pytest.fixture
def browsing(beamtime, calib):
    """Serves the pages of `beamtime`; ``browsing(write=True)`` returns the server."""
    from psana_dask.pages.browse import pages
    from psana_dask.pages.choosing import Shelf
    from psana_dask.pages.serving import serve

    servers = []

    def start(write=False):
        servers.append(serve(pages(Shelf(folder=beamtime / "xtc", calib=str(calib)), write)))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


PLACE = """([name, x, y]) => {
    const view = Bokeh.index.find_one(Bokeh.documents[0].get_model_by_name(name))
    const canvas = view.canvas_view.el.getBoundingClientRect()
    return [canvas.left + view.frame.x_scale.compute(x), canvas.top + view.frame.y_scale.compute(y)]
}"""


@pytest.fixture
def drag(page):
    """Return a function that drags the mouse with shift held, from (x, y) to (x, y) of a plot."""

    def move(name, start, end):
        page.keyboard.down("Shift")
        page.mouse.move(*page.evaluate(PLACE, [name, *start]))
        page.mouse.down()
        page.mouse.move(*page.evaluate(PLACE, [name, *end]), steps=4)
        page.mouse.up()
        page.keyboard.up("Shift")

    return move

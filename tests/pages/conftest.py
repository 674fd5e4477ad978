"""A real browser for tests of pages: headless chromium, driven by playwright.

``page`` is a fresh tab. What it writes to its console as an error, an exception of its scripts, and a
request that leaves this machine or fails make the test fail; ``page.expected`` lists texts that are meant
to be there. ``shot(name)`` keeps a picture in ``$CI_ARTEFACTS`` (else in the folder of the test).
"""

import os
import shutil
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

"""What people see, in a real browser, next to pictures that were looked at: SSIM above 0.95.

The pictures in ``references/`` are small and grey. Fonts are those of matplotlib, which are the same
everywhere. After a change that is meant, look at the new pictures and keep them::

    PSANA_DASK_NEW_PICTURES=1 python -m pytest tests/pages/test_pictures.py
"""

import base64
import json
import os
from pathlib import Path

import numpy as np
import pytest
from matplotlib import font_manager
from PIL import Image

import psana_dask
from psana_dask import simulate

REFERENCES = Path(__file__).parent / "references"
WIDTH = 480
"""Of a reference; the window is twice as wide."""


def faces():
    """Return rules that give every text a font of matplotlib."""
    rules = []
    for family, name in (("Plain", "DejaVuSans"), ("Plain", "DejaVuSans-Bold"), ("Typed", "DejaVuSansMono")):
        path = Path(font_manager.findfont("DejaVu Sans")).with_name(f"{name}.ttf")
        data = base64.b64encode(path.read_bytes()).decode()
        weight = "bold" if name.endswith("Bold") else "normal"
        source = f"src: url(data:font/ttf;base64,{data})"
        rules.append(f"@font-face {{ font-family: {family}; font-weight: {weight}; {source}; }}")
    typed = "pre, pre *, code, .code { font-family: Typed !important; }"
    return "\n".join([*rules, "* { font-family: Plain !important; }", typed])


@pytest.fixture
def seen(page, shot):
    """Return a function that shows a page and gives its picture, (y, x) grey, of the references' width."""

    def look(content, name, height):
        page.set_viewport_size({"width": 2 * WIDTH, "height": 2 * height})
        page.set_content(content)
        page.add_style_tag(content=faces())
        page.evaluate("document.fonts.ready")
        picture = Image.open(shot(name)).convert("L")
        return np.asarray(picture.resize((WIDTH, height), Image.Resampling.LANCZOS))

    return look


def compare(found, name, figures):
    path = REFERENCES / f"{name}.png"
    if os.environ.get("PSANA_DASK_NEW_PICTURES"):
        Image.fromarray(found).quantize(32).save(path, optimize=True)
    measured = likeness(found, path)
    figures("likeness of pages to their references", **{f"of_{name}": round(measured, 4)})
    assert measured > 0.95


def likeness(found, path):
    metrics = pytest.importorskip("skimage.metrics")
    wanted = np.asarray(Image.open(path).convert("L"))
    assert found.shape == wanted.shape
    return float(metrics.structural_similarity(found, wanted))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    truth = simulate.write(simulate.demo_spec(64), tmp_path_factory.mktemp("shown"))
    return psana_dask.open(truth.folder, calib=truth.calib)


@pytest.mark.parametrize("name", ["run", "run-dark", "run-chosen"])
def test_a_run_shows_itself(seen, run, name, figures):
    colours = "background: #111; --jp-content-font-color1: #eee; --jp-content-font-color2: #aaa; " \
              "--jp-border-color2: #444" if name == "run-dark" else ""  # fmt: skip
    what = run.select(run.evr.has(90, -162)) if name == "run-chosen" else run
    shown = what._repr_html_() + what.epixquad._repr_html_()
    page = f"<!doctype html><body style='margin: 20px; {colours}'>{shown}</body>"
    compare(seen(page, f"repr-{name}", 420), name, figures)


def test_a_changed_page_is_noticed(seen, run):
    """The measure is strict enough: a table that lacks its rows does not pass."""
    page = f"<!doctype html><body style='margin: 20px'>{run._repr_html_()}{run.epixquad._repr_html_()}</body>"
    less = seen(page.replace("<td>", "<td hidden>"), "repr-less", 420)
    assert likeness(less, REFERENCES / "run.png") < 0.95


@pytest.mark.parametrize("name", ["01-first-look", "03-scan-and-laser"])
def test_a_notebook_looks_as_it_should(seen, run_notebook, name, figures):
    exporters = pytest.importorskip("nbconvert.exporters")
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.reads(json.dumps(run_notebook(name)), 4)
    nowhere = dict.fromkeys(("mathjax_url", "require_js_url", "jquery_url", "widget_renderer_url"), "")
    content, _ = exporters.HTMLExporter(**nowhere).from_notebook_node(notebook)
    compare(seen(content, f"notebook-{name}", 1600), name, figures)

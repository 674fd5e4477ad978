"""Plots: what is drawn, where, and with which colours."""

import numpy as np
import pytest

from psana_dask.drawing import colour_limits
from psana_dask.errors import GeometryError
from psana_dask.geometry import convert, tree
from psana_dask.geometry.assembly import assembled, prepare
from psana_dask.geometry.defaults import default_geometry
from psana_dask.geometry.figure import describe, draw_image, draw_panels

GEOMETRY = default_geometry("epix10kaquad")


def test_colour_limits_are_percentiles_of_good_pixels():
    image = np.arange(1001, dtype=np.float64)
    image[0] = np.nan
    mask = np.arange(1001) <= 500
    assert colour_limits(image) == pytest.approx(np.percentile(np.arange(1, 1001), [1, 99]))
    assert colour_limits(image, mask) == pytest.approx(np.percentile(np.arange(1, 501), [1, 99]))
    assert colour_limits(np.full(5, np.nan)) == (0.0, 1.0)
    assert colour_limits(np.full(5, 3.0)) == (3.0, 4.0)


def test_describe_gives_the_facts():
    text = describe(GEOMETRY)
    assert "4 x EPIX10KA:V1, 352 x 384 pixels of 100 um" in text
    assert "mean distance 1000.000 mm" in text
    shape = prepare(GEOMETRY).shape
    assert f"image {shape[0]} x {shape[1]}" in text


def test_panels_are_drawn_where_they_are():
    pytest.importorskip("matplotlib")
    axes = draw_panels(GEOMETRY)
    x, y, _ = tree.coordinates(GEOMETRY, frame="lab")
    drawn = np.concatenate([np.stack(line.get_data(), axis=1) for line in axes.lines])
    # outlines lie half a pixel outside of the centres (mm)
    assert drawn[:, 0].max() == pytest.approx(x.max() * 1e-3 + 0.05)
    assert drawn[:, 1].min() == pytest.approx(y.min() * 1e-3 - 0.05)
    assert [text.get_text() for text in axes.texts] == ["0", "1", "2", "3"]
    left, right = axes.get_xlim()
    assert left > right  # seen along the beam


@pytest.mark.parametrize("frame", ["psana", "lab"])
def test_images_have_their_place_and_colours(frame):
    pytest.importorskip("matplotlib")
    data = np.random.default_rng(1).random(GEOMETRY.shape)
    tables = prepare(GEOMETRY, frame=frame)
    image = assembled(data, GEOMETRY, frame=frame)
    axes = draw_image(image, tables.y, tables.x, cmap="gray")
    shown = axes.images[0]
    assert shown.get_clim() == colour_limits(image)
    left, right, bottom, top = shown.get_extent()
    x, y, _ = tree.coordinates(GEOMETRY, frame="lab")
    assert max(left, right) == pytest.approx(x.max() * 1e-3, abs=0.2)
    assert min(left, right) == pytest.approx(x.min() * 1e-3, abs=0.2)
    assert (bottom, top) == pytest.approx((y.min() * 1e-3, y.max() * 1e-3), abs=0.2)
    assert (left > right) == (frame == "psana")


@pytest.mark.parametrize("form", convert.FORMATS)
def test_texts_by_name(form):
    back = convert.read(convert.write(GEOMETRY, form), form, segment="EPIX10KA:V1")
    for ours, theirs in zip(tree.coordinates(back), tree.coordinates(GEOMETRY), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-3)  # 1e-9 m in um


@pytest.mark.parametrize(
    ("text", "form", "segment", "message"),
    [
        ("", "crystfell", None, r"no text format 'crystfell'; did you mean crystfel"),
        ("{}", "dxtbx", None, r"not a dxtbx detector model: KeyError"),
        ('{\n"panels": [,]}', "dxtbx", "PNCCD:V1", r"line 2: not JSON"),
        (convert.write(GEOMETRY), "psana", "PNCCD:V1", r"the text says EPIX10KA:V1, not PNCCD:V1"),
    ],
)
def test_texts_that_cannot_be_read(text, form, segment, message):
    with pytest.raises(GeometryError, match=message):
        convert.read(text, form, segment=segment)


def test_a_dxtbx_experiment_file_holds_detectors():
    model = convert.write(GEOMETRY, "dxtbx")
    back = convert.read(f'{{"detector": [{model}]}}', "dxtbx", segment="EPIX10KA:V1")
    assert back.shape == GEOMETRY.shape

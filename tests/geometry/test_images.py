"""Any array of pixels to an image and back: labels, missing panels, laziness."""

import pickle

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

import psana_dask
from psana_dask import simulate
from psana_dask.cli import main
from psana_dask.errors import GeometryError
from psana_dask.fields import FrameReader
from psana_dask.geometry import write_text
from psana_dask.geometry.assembly import assembled
from psana_dask.geometry.defaults import default_geometry
from psana_dask.geometry.tables import prepare
from psana_dask.images import assemble, disassemble
from psana_dask.simulate import Detector, Missing, RunSpec

QUAD = default_geometry("epix10kaquad")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Three events of a quad, one of them without panel 2; two panels of four; a camera."""
    detectors = (
        Detector(name="quad", kind="epix10ka", segments=4, stream=(0, 0, 1, 1)),
        Detector(name="part", kind="epix10ka", segments=(1, 3)),
        Detector(name="opal", kind="camera", shape=(24, 30), stream=1),
    )
    place = tmp_path_factory.mktemp("images")
    missing = (Missing(events=(1,), detector="quad", segment=2),)
    simulate.write(RunSpec(events=3, detectors=detectors, missing=missing), place)
    return psana_dask.open(place, calib={"pedestals": np.full((7, 4, 352, 384), 10, np.float32)})


PRESENT = np.array([[1, 1, 1, 1], [1, 1, 0, 1], [1, 1, 1, 1]], bool)


def test_frames_assembled_are_the_image(run):
    raw = run.quad.assembled(run.quad.raw)
    assert (raw.dims, raw.dtype) == (("time", "y", "x"), np.uint16)
    np.testing.assert_array_equal(raw.values, assembled(run.quad.raw.values, QUAD, present=PRESENT))
    xr.testing.assert_identical(raw.y.drop_attrs(), run.quad.assembled().y.drop_attrs())
    # calibrated frames say by NaN which panels are missing
    calib = run.quad.assembled(run.quad.calib)
    np.testing.assert_array_equal(calib.values, run.quad.image.values)
    assert calib.isnull().values[1].sum() > calib.isnull().values[0].sum()


@pytest.mark.parametrize("form", ["numpy", "dask", "labelled", "turned"])
def test_a_mean_or_mask_without_time(run, form):
    values = np.random.default_rng(1).random(QUAD.shape).astype(np.float32)
    array = {
        "numpy": values,
        "dask": da.from_array(values, chunks=(1, 352, 384)),
        "labelled": xr.DataArray(values, dims=("panel", "row", "col"), attrs={"units": "keV"}),
        "turned": xr.DataArray(values, dims=("panel", "row", "col")).transpose("col", "panel", "row"),
    }[form]
    image = run.quad.assembled(array, overlap="mean")
    assert (image.dims, image.y.attrs["units"]) == (("y", "x"), "m")
    assert (image.chunks is not None) == (form == "dask")
    np.testing.assert_array_equal(image.values, assembled(values, QUAD, overlap="mean"))
    if form == "labelled":
        assert image.attrs == {"units": "keV", "geometry": "default"}


def test_masks_of_truth_values_and_of_numbers(run):
    good = np.random.default_rng(2).random(QUAD.shape) < 0.9
    image = run.quad.assembled(good)
    assert image.dtype == bool
    np.testing.assert_array_equal(image.values, assembled(good.astype(np.uint8), QUAD) == 1)
    back = run.quad.panels_of(image)
    assert back.dtype == bool
    shares = np.isin(prepare(QUAD).bins, prepare(QUAD).kernel[6][0])
    np.testing.assert_array_equal(back.values[~shares], good[~shares])
    assert run.quad.assembled(run.quad.mask).dtype == np.uint8


def test_constants_of_several_ranges(run):
    image = run.quad.assembled(run.quad.pedestals)
    assert image.dims == ("gain_range", "y", "x")
    assert set(np.unique(image.values[~np.isnan(image.values)])) == {10}


def test_dask_stays_lazy_and_unread_frames_unread(run, monkeypatch):
    read = []
    original = FrameReader.read_into

    def counted(self, events, *rest):
        read.extend(events)
        original(self, events, *rest)

    monkeypatch.setattr(FrameReader, "read_into", counted)
    for chunks in ({"time": 1}, None):
        image = run.quad.assembled(run.quad.calibrated(chunks=chunks), overlap="max")
        mean = run.quad.panels_of(image.isel(time=0))
        assert read == []
        assert mean.chunks is not None
    np.testing.assert_array_equal(
        image.isel(time=0).values, assembled(run.quad.calib[0].values, QUAD, overlap="max")
    )


def test_graphs_carry_the_geometry_not_the_tables(run):
    image = run.quad.image
    assert len(pickle.dumps(prepare(QUAD))) < 5000
    assert pickle.loads(pickle.dumps(prepare(QUAD))) is prepare(QUAD)
    lazy = image.data.dask[f"original-{image.data.name}"]
    assert len(pickle.dumps(lazy._tables)) < 5000
    names = {run.quad.assembled(run.quad.calib).data.name for _ in range(2)}
    assert len(names) == 1


def test_panels_that_were_not_recorded(run):
    raw = run.part.raw
    assert raw.panel.values.tolist() == [1, 3]
    image = run.part.assembled(raw.values[0], fill=np.nan)
    whole = np.zeros(QUAD.shape, np.uint16)
    whole[[1, 3]] = raw.values[0]
    expected = assembled(whole.astype(np.float32), QUAD, present=np.array([0, 1, 0, 1], bool))
    np.testing.assert_array_equal(image.values, expected)
    np.testing.assert_array_equal(run.part.assembled(raw[0], fill=np.nan).values, expected)
    np.testing.assert_array_equal(run.part.assembled(fill=np.nan)[0].values, expected)
    assert run.part.panels_of(image).panel.values.tolist() == [1, 3]
    one = run.quad.assembled(run.quad.raw[0].isel(panel=3), fill=np.nan)
    assert int((~one.isnull()).sum()) == int((prepare(QUAD).bins[3] >= 0).sum())


def test_fill_makes_floats_where_it_must(run):
    assert run.quad.assembled(fill=np.nan).dtype == np.float32
    assert run.quad.assembled(fill=np.nan)[1].isnull().sum() > 352 * 384
    assert run.quad.assembled(run.quad.raw, fill=65535).dtype == np.uint16
    assert int((run.quad.assembled(fill=7)[1] == 7).sum()) > 352 * 384
    assert run.quad.assembled(fill=7).data.name != run.quad.assembled().data.name
    assert assemble(np.zeros(QUAD.shape, np.int32), QUAD, fill=np.nan).dtype == np.float64


def test_the_inverse_takes_images_apart(run):
    image = run.quad.image
    back = run.quad.panels_of(image)
    assert back.dims == ("time", "panel", "row", "col")
    calib, bins = run.quad.calib.values, prepare(QUAD).bins
    shared = np.isin(bins, prepare(QUAD).kernel[6][0])
    np.testing.assert_array_equal(back.values[:, ~shared], calib[:, ~shared])
    # a window of the image; pixels outside of it are missing
    window = run.quad.panels_of(image[0, 100:300, 50:250]).values
    rows, cols = np.divmod(bins, image.sizes["x"])
    inside = (rows >= 100) & (rows < 300) & (cols >= 50) & (cols < 250)
    np.testing.assert_array_equal(np.isnan(window), ~inside)
    np.testing.assert_array_equal(window[inside & ~shared], calib[0][inside & ~shared])
    drawn = np.ones(image.shape[1:], np.uint8)
    drawn[:400] = 0
    assert run.quad.calibrated(mask=run.quad.panels_of(drawn)).dtype == np.float32


def test_choices_belong_to_both_ways(run):
    image = run.quad.assembled(run.quad.raw[0], pixel_size=200.0, frame="lab")
    assert image.shape < run.quad.image.shape[1:]
    assert run.quad.panels_of(image, pixel_size=200.0, frame="lab").shape == QUAD.shape
    with pytest.raises(GeometryError, match="was not made with this geometry and these choices"):
        run.quad.panels_of(image)
    other = run.quad.assembled(run.quad.raw[0], geometry=default_geometry("epix10ka2m"))
    assert other.attrs["geometry"] == "given"
    assert other.sizes["y"] > image.sizes["y"]


def test_a_camera_is_its_own_image(run):
    dark = run.opal.raw.mean("time")
    image = run.opal.assembled(dark)
    assert (image.dims, image.attrs["geometry"]) == (("y", "x"), "none")
    np.testing.assert_array_equal(image.values, dark.values)
    back = run.opal.panels_of(image)
    assert back.dims == ("row", "col")
    np.testing.assert_array_equal(back.values, dark.values)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 352, 384)), r"4 panels of \(352, 384\) pixels; the array has 3"),
        (np.zeros((4, 352, 380)), r"the array has 4 of \(352, 380\)"),
        (np.zeros(4), r"shape \(4,\) is not"),
        (xr.DataArray(np.zeros((3, 3)), dims=("y", "x")), r"\('y', 'x'\) is no array of pixels"),
        (np.zeros(QUAD.shape, complex), "numbers or truth values, not complex128"),
    ],
)
def test_other_arrays_are_refused(run, array, message):
    with pytest.raises(GeometryError, match=message):
        run.quad.assembled(array)
    with pytest.raises(ValueError, match=r"pass det\.calib"):
        run.quad.assembled(array, calibrated=True)


def test_images_of_other_shapes_are_refused():
    with pytest.raises(GeometryError, match=r"image of \(3, 4\) was not made"):
        disassemble(np.zeros((3, 4)), QUAD)
    with pytest.raises(GeometryError, match="is no image"):
        disassemble(xr.DataArray(np.zeros((3, 4)), dims=("row", "col")), QUAD)


def test_the_accessor_needs_no_run(tmp_path):
    values = np.random.default_rng(3).random((2, *QUAD.shape))
    array = xr.DataArray(values, dims=("delay", "panel", "row", "col"), coords={"delay": [1.0, 2.0]})
    path = tmp_path / "0-end.data"
    path.write_text(write_text(QUAD))
    for geometry in (QUAD, write_text(QUAD), path):
        image = array.psana.assemble(geometry, holes="nearest")
        assert image.dims == ("delay", "y", "x")
        np.testing.assert_array_equal(image.values, assembled(values, QUAD, holes="nearest"))
    single = xr.DataArray(np.ones((704, 768)), dims=("row", "col"))
    assert single.psana.assemble(default_geometry("epix100")).sizes["y"] > 700


@pytest.mark.parametrize(
    ("form", "convention", "segment"), [("xtc", "psana1", "V1"), ("xtc2", "psana2", "V2")]
)
def test_segment_types_are_those_of_the_format(form, convention, segment, tmp_path):
    """LCLS-1 runs are read as psana1 reads them, LCLS-II runs as psana2 does: defaults and constants."""
    name, kind = "jungfrau", "jungfrau"
    shape = (1, 512, 1024)
    simulate.write(
        RunSpec(format=form, events=1, detectors=(Detector(name=name, kind=kind, shape=shape),)), tmp_path
    )
    default = psana_dask.open(tmp_path).jungfrau
    assert default.geometry.convention == convention
    assert default.geometry.segment.name == f"JUNGFRAU:{segment}"
    text = write_text(default_geometry("jungfrau", panels=1, convention="psana2"))
    given = psana_dask.open(tmp_path, calib={"geometry": text}).jungfrau
    # the same text: psana2 has the wide pixels of JUNGFRAU:V2 in their centres, psana1 does not
    assert given.geometry.segment.wide_centres == (convention == "psana2")
    expected = assembled(given.raw.values.reshape(1, *shape), given.geometry)
    np.testing.assert_array_equal(given.assembled().values, expected)


def test_pictures_take_their_colours_from_good_pixels(run):
    pytest.importorskip("matplotlib")
    frame = run.quad.raw[0].values.astype(np.float32)
    good = np.ones(QUAD.shape, np.uint8)
    good[:, :40] = 0
    frame[good == 0] = 1e6
    image = run.quad.assembled(frame)
    axes = image.psana.plot(mask=run.quad.assembled(good))
    low, high = np.percentile(frame[good == 1], (1, 99))
    # some pixels share a bin
    assert axes.images[0].get_clim() == pytest.approx((low, high), rel=1e-3)
    assert image.psana.plot().images[0].get_clim()[1] == 1e6
    assert axes.get_xlabel().startswith("x (mm)")
    assert run.opal.assembled()[0].psana.plot().get_xlabel() == "column"
    with pytest.raises(ValueError, match="assemble first"):
        run.quad.raw[0].psana.plot()


def test_show_draws_calibrated_images_with_the_colours_of_unmasked_pixels(run, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    limits = []
    monkeypatch.setattr(Figure, "savefig", lambda f, *a, **k: limits.append(f.axes[0].images[0].get_clim()))
    folder = str(tmp_path / "xtc")
    simulate.write(RunSpec(events=1, detectors=(Detector(name="quad", kind="epix10ka", segments=4),)), folder)
    status = np.zeros((7, *QUAD.shape), np.uint64)
    status[:, :, :, ::2] = 1
    constants = {"pedestals": np.full((7, *QUAD.shape), -1e5, np.float32), "pixel_status": status}
    for kind, value in constants.items():
        psana_dask.calib.deploy({kind: value}, tmp_path / "calib", "quad", 1)
    result = CliRunner().invoke(main, ["show", folder, "quad", "-o", str(tmp_path / "p.png")])
    assert result.exit_code == 0, result.output
    # calibration makes bad pixels 0, which is far below all others
    [(low, high)] = limits
    assert 9e4 < low < high

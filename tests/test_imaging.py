"""Calibration and assembly of a run's frames: the lazy form equals the kernels, step by step."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import psana_dask
from psana_dask import simulate
from psana_dask.calib import apply as kernels
from psana_dask.calib.constants import Constants, RunRange
from psana_dask.calib.detectors import detector as detector_row
from psana_dask.calib.localstore import LocalStore
from psana_dask.errors import ConstantsNotFound, ConstantsWarning, GeometryError
from psana_dask.fields import FrameReader
from psana_dask.geometry.assembly import assembled
from psana_dask.geometry.defaults import default_geometry
from psana_dask.simulate import Config, Detector, Missing, RunSpec

PANELS = (4, 352, 384)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three events of an epix10ka quad, of which the second lacks a panel, and of a camera."""
    settings_of = Config(
        values=lambda segment: {
            "asicPixelConfig": np.full((4, 178, 192), (0, 8, 12, 0)[segment], np.uint8),
            "trbit": np.array([0, 1, 1, 0], np.uint8),
        }
    )
    detectors = (
        Detector(name="epixquad", kind="epix10ka", segments=4, stream=(0, 0, 1, 1), config=settings_of),
        Detector(name="opal", kind="camera", shape=(24, 30), stream=1),
    )
    missing = (Missing(events=(1,), detector="epixquad", segment=2),)
    place = tmp_path_factory.mktemp("imaging")
    simulate.write(RunSpec(events=3, detectors=detectors, missing=missing), place)
    return place


@pytest.fixture(scope="module")
def constants():
    rng = np.random.default_rng(1)
    return {
        "pedestals": rng.normal(900, 30, (7, *PANELS)).astype(np.float32),
        "pixel_gain": rng.uniform(5, 20, (7, *PANELS)).astype(np.float32),
        "pixel_status": (rng.random((7, *PANELS)) < 0.001).astype(np.uint64),
    }


@pytest.fixture(scope="module")
def run(folder, constants):
    return psana_dask.open(folder, calib=constants)


def by_hand(run, constants):
    """Calibrate all frames with the kernels on arrays."""
    raw = run.epixquad.raw.values
    ranges = run.epixquad._imaging.calibration.ranges
    tables = kernels.prepare(constants, detector_row("epix10ka"), xtc2=True, shape=PANELS, ranges=ranges)
    out = kernels.apply(raw, tables)
    out[1, 2] = np.nan
    return out


def test_calibrated_frames_are_those_of_the_kernels(run, constants):
    calib = run.epixquad.calib
    assert calib.dims == ("time", "panel", "row", "col")
    np.testing.assert_array_equal(calib.values, by_hand(run, constants))
    assert calib.attrs["calibrated"]


def test_gain_ranges_come_from_the_settings_of_the_run(run):
    ranges = run.epixquad._imaging.calibration.ranges
    assert ranges.shape == (2, *PANELS)
    assert [set(np.unique(ranges[0, p])) for p in range(4)] == [{3, 4}, {2}, {0, 1}, {3, 4}]


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_part_is_cut_from_the_whole(run, constants, data):
    lazy = run.epixquad._imaging.calibrated()[0]
    whole = by_hand(run, constants)
    key = []
    for size in lazy.shape:
        start = data.draw(st.integers(0, size - 1))
        index = st.one_of(
            st.just(start), st.just(slice(start, size)), st.just(np.array([start, 0])), st.just(slice(None))
        )
        key.append(data.draw(index))
    expected = whole
    for axis in reversed(range(4)):
        expected = expected[(slice(None),) * axis + (key[axis],)]
    np.testing.assert_array_equal(lazy[tuple(key)], expected)


def test_images_are_assembled_calibrated_frames(run, constants):
    image = run.epixquad.image
    present = np.ones((3, 4), bool)
    present[1, 2] = False
    expected = assembled(by_hand(run, constants), default_geometry("epix10ka", panels=4), present=present)
    np.testing.assert_array_equal(image.values, expected)
    assert image.dims == ("time", "y", "x")
    assert image.attrs["geometry"] == "default"
    assert image.y.attrs["units"] == "m"
    part = image.isel(time=1, y=slice(100, 300), x=slice(5, 700, 2)).values
    np.testing.assert_array_equal(part, expected[1, 100:300, 5:700:2])


def test_raw_frames_assembled_keep_their_type(run):
    image = run.epixquad.assembled()
    assert image.dtype == np.uint16
    assert int(image[0].max()) == int(run.epixquad.raw[0].max())


def test_a_region_reads_only_the_panels_that_show(run, monkeypatch):
    read = []
    original = FrameReader.read_into

    def counted(self, events, panels, *rest):
        read.append(len(panels))
        original(self, events, panels, *rest)

    monkeypatch.setattr(FrameReader, "read_into", counted)
    run.epixquad.assembled(chunks=None).isel(time=0, y=slice(0, 50), x=slice(0, 50)).load()
    assert read == [1]


def test_a_camera_without_geometry_is_its_own_image(run):
    image = run.opal.assembled()
    assert image.dims == ("time", "y", "x")
    np.testing.assert_array_equal(image.values, run.opal.raw.values)
    with pytest.raises(GeometryError, match="no default geometry for 'opal"):
        run.opal.geometry  # noqa: B018


def test_without_constants_values_are_never_called_calibrated(folder):
    detector = psana_dask.open(folder).epixquad
    with pytest.raises(ConstantsNotFound, match="no pedestals of epixquad, run 1"):
        detector.calib  # noqa: B018
    with pytest.warns(ConstantsWarning, match="raw counts"):
        warned = detector.calibrated(policy="warn")
    assert not warned.attrs["calibrated"]
    raw = detector.calibrated(policy="raw")
    np.testing.assert_array_equal(raw[0].values, detector.raw[0].values.astype(np.float32))
    with pytest.raises(ValueError, match="policy='guess'"):
        detector.calibrated(policy="guess")


@pytest.mark.parametrize("how", ["argument", "environment", "beside"])
def test_constants_of_a_directory(folder, constants, tmp_path, monkeypatch, how):
    (tmp_path / "xtc").symlink_to(folder)
    store = LocalStore(tmp_path / "calib")
    own = {kind: constants[kind][0, 0, :24, :30] for kind in ("pedestals", "pixel_gain")}
    for kind, value in own.items():
        store.deploy(Constants(kind, value), "opal", RunRange(0))
    if how == "environment":
        monkeypatch.setenv("PSANA_DASK_CALIB", str(tmp_path / "calib"))
    source = tmp_path / "xtc" if how == "beside" else folder
    opened = psana_dask.open(source, calib=tmp_path / "calib" if how == "argument" else None)
    found = opened.opal.constants
    assert set(found) == {"pedestals", "pixel_gain"}
    assert "calib" in found["pedestals"].origin
    assert "took" in opened.opal.explain_constants()
    expected = (opened.opal.raw.values - own["pedestals"]) / own["pixel_gain"]
    # the text files keep three to seven digits of a constant
    np.testing.assert_allclose(opened.opal.calib.values, expected, rtol=1e-4, atol=1e-3)


def test_masks_by_choice(run, constants):
    status = constants["pixel_status"]
    mask = run.epixquad.mask
    assert mask.dtype == np.uint8
    assert int((mask == 0).sum()) == int(np.any(status[[0, 1, 2, 3, 4]] != 0, axis=0).sum())
    edges = run.epixquad.masked(status=False, edges=1)
    assert int((edges == 0).sum()) == 4 * 2 * (352 + 384 - 2)


def test_results_travel(run):
    image = run.epixquad.image.isel(time=0)
    again = pickle.loads(pickle.dumps(image))
    np.testing.assert_array_equal(again.values, image.values)


def test_constants_of_more_panels_than_the_run_has(tmp_path):
    detector = Detector(name="jf", kind="jungfrau", segments=(1, 3), shape=(1, 8, 10))
    simulate.write(RunSpec(events=2, detectors=(detector,)), tmp_path)
    pedestals = np.arange(3 * 4 * 8 * 10, dtype=np.float32).reshape(3, 4, 8, 10)
    found = psana_dask.open(tmp_path, calib={"pedestals": pedestals}).jf
    expected = found.raw.values - pedestals[0, [1, 3]]
    np.testing.assert_array_equal(found.calibrated(common_mode=None).values, expected)


def test_gain_ranges_of_newer_epix10ka(tmp_path):
    bits = np.full((352, 384), 12, np.uint8)
    settings_of = Config(values={"cbitsConfig": bits})
    detector = Detector(name="epix", kind="epix10ka", segments=1, config=settings_of)
    simulate.write(RunSpec(events=1, detectors=(detector,)), tmp_path)
    ranges = psana_dask.open(tmp_path).epix._imaging.calibration.ranges
    assert set(np.unique(ranges)) == {1}

"""Peaks: known answers, any chunking, and what is missing."""

import h5py
import numpy as np
import pytest
import xarray as xr

from psana_dask import algorithms, analysis
from psana_dask.simulate import Picture, Scene

PIXEL = 100e-6
SCENE = Scene(peaks=12, rings=(30.0, 60.0), ring_level=0.5, peak_level=60.0, background=0.2, pedestal=0.0)


@pytest.fixture(scope="module")
def picture():
    return Picture(scene=SCENE, seed=5, name="cam", segments=(0, 1, 2, 3), frame_shape=(96, 128), dtype="f4")


@pytest.fixture(scope="module")
def radius(picture):
    rows, cols = picture.frame_shape
    y = picture.corners[:, 0, None, None] + np.arange(rows)[:, None] - picture.centre[0]
    x = picture.corners[:, 1, None, None] + np.arange(cols) - picture.centre[1]
    return np.hypot(y, x)


@pytest.fixture(scope="module")
def frames(picture):
    """Five events, (time, panel, row, col), calibrated: pedestals taken off."""
    raw = np.stack([[picture.frame(e, s, 1.0) for s in picture.segments] for e in range(5)])
    time = np.datetime64("2024-06-14", "ns") + np.arange(5)
    return xr.DataArray(
        (raw - picture.pedestals).astype(np.float32), {"time": time}, ("time", "panel", "row", "col")
    )


def finders(radius):
    adc = 10 * SCENE.adu_per_photon
    return {
        "radial": algorithms.prepare_radial(radius, adc=adc, snr=5, pixels=(2, 60)),
        "adaptive": algorithms.prepare_adaptive(
            radius.shape, rank=4, selection=algorithms.Selection(npix_min=4, intensity_min=2000, snr_min=8)
        ),
        "droplet": algorithms.prepare_droplet(radius.shape, low=adc / 2, high=adc),
    }


@pytest.mark.parametrize("name", ["radial", "adaptive", "droplet"])
def test_planted_peaks_are_found_where_they_are(picture, radius, frames, name):
    found = algorithms.find_peaks(frames.values, finders(radius)[name])
    corners = picture.corners
    for event in range(5):
        n = found.count[event]
        panel = found["panel"][event, :n].astype(int)
        at = np.stack([found["row"][event, :n], found["col"][event, :n]], axis=1) + corners[panel]
        distance = np.hypot(*(picture.peaks[:, None] - at).transpose(2, 0, 1)).min(axis=1)
        # about 640 photons in a spot of sigma 1.3: the centroid scatters by 0.05, twice that with
        # the background of a threshold that cuts its foot
        assert distance.max() < 0.35
        assert n == len(picture.peaks)
        expected = 2 * np.pi * SCENE.peak_sigma**2 * SCENE.peak_level * SCENE.adu_per_photon
        # a threshold cuts off the foot of a spot: up to a third of it
        assert 0.6 < np.median(found["intensity"][event, :n]) / expected < 1.05


def test_any_chunking_gives_the_same_peaks(radius, frames):
    finder = finders(radius)["radial"]
    whole = analysis.find_peaks(frames, finder, most=20)
    for chunks in ({"time": 1}, {"time": 2}, {"time": 5, "panel": 2, "row": 48}):
        lazy = analysis.find_peaks(frames.chunk(chunks), finder, most=20)
        assert lazy["row"].chunks is not None
        xr.testing.assert_identical(lazy.compute(), whole)
    alone = analysis.find_peaks(frames.isel(time=3, drop=True), finder, most=20)
    assert np.array_equal(alone["row"], whole["row"][3], equal_nan=True)


def test_coordinates_may_have_chunks_of_their_own(radius, frames):
    present = xr.DataArray(np.ones(5, bool), dims="time").chunk(time=5)
    lazy = frames.chunk(time=2).assign_coords(present=present)
    found = analysis.find_peaks(lazy, finders(radius)["radial"], most=20)
    assert found["present"].chunks == ((5,),)
    whole = analysis.find_peaks(frames, finders(radius)["radial"], most=20)
    assert np.array_equal(found["count"], whole["count"])


def test_the_tables_travel_once_in_a_graph(radius, frames):
    import pickle

    finder = finders(radius)["radial"]
    tables = len(pickle.dumps(finder))
    lazy = analysis.find_peaks(frames.chunk(time=1), finder, most=20)["count"]
    kept = len(pickle.dumps(dict(lazy.__dask_graph__()))) - frames.nbytes
    assert kept < 1.2 * tables


def test_positions_and_momentum(radius, frames, picture):
    down = picture.corners[:, 0, None, None] + np.arange(96)[:, None] - picture.centre[0]
    right = picture.corners[:, 1, None, None] + np.arange(128) - picture.centre[1]
    flat = np.zeros(radius.shape)
    where = algorithms.Positions(flat - right * PIXEL, flat - down * PIXEL, flat + 0.08, flat + 1)
    energy = xr.DataArray(np.linspace(9000, 9400, 5), {"time": frames.time}, "time")
    found = analysis.find_peaks(frames, finders(radius)["radial"], most=20, positions=where, energy=energy)
    table = analysis.peak_table(found)
    assert len(table) == int(found["count"].sum())
    corner = picture.corners[table["panel"]]
    y = -(table["row"] + corner[:, 0] - picture.centre[0]) * PIXEL
    np.testing.assert_allclose(table["y"], y, atol=1e-12)
    angle = np.arctan2(np.hypot(table["x"], table["y"]), 0.08)
    wavelength = 12398.41984 / energy.values[table["event"]]
    np.testing.assert_allclose(table["q"], 4 * np.pi / wavelength * np.sin(angle / 2), rtol=1e-9)
    assert found["q"].attrs["units"] == "1/angstrom"


def test_overflow_is_counted_and_the_first_are_kept(radius, frames):
    finder = finders(radius)["droplet"]
    whole = algorithms.find_peaks(frames.values, finder)
    few = algorithms.find_peaks(frames.values, finder, most=3)
    assert np.array_equal(few.count + few.overflow, whole.count)
    assert (few.count == 3).all()
    assert np.array_equal(few.values, whole.values[:, :3])


@pytest.mark.parametrize("name", ["radial", "adaptive", "droplet"])
def test_a_panel_without_data_hides_no_other(radius, frames, name):
    broken = frames.values.copy()
    broken[:, 1] = np.nan
    finder = finders(radius)[name]
    whole, some = algorithms.find_peaks(frames.values, finder), algorithms.find_peaks(broken, finder)
    for event in range(5):
        kept = whole.values[event][whole["panel"][event] != 1]
        found = some.values[event, : some.count[event]]
        assert np.array_equal(found[:, :3], kept[: some.count[event], :3])
        assert (found[:, 0] != 1).all()
    broken[:] = np.nan
    assert algorithms.find_peaks(broken, finder).count.sum() == 0
    assert algorithms.find_peaks(broken[:0], finder).values.shape == (0, 1024, len(algorithms.COLUMNS))


@pytest.mark.parametrize("name", ["radial", "adaptive", "droplet"])
def test_masked_pixels_are_in_no_peak(radius, frames, name):
    mask = np.ones(radius.shape, np.uint8)
    mask[2] = 0
    mask[:, 40:60] = 0
    finder = {
        "radial": algorithms.prepare_radial(radius, mask=mask, adc=200),
        "adaptive": algorithms.prepare_adaptive(radius.shape, mask=mask),
        "droplet": algorithms.prepare_droplet(radius.shape, mask=mask, low=100, high=200),
    }[name]
    found = algorithms.find_peaks(frames.values, finder).table()
    assert len(found["panel"]) > 0
    tops = tuple(found[name].astype(int) for name in ("panel", "row_top", "col_top"))
    assert mask[tops].min() == 1


def test_all_pixels_masked(radius, frames):
    mask = np.zeros(radius.shape)
    for finder in (
        algorithms.prepare_radial(radius, mask=mask),
        algorithms.prepare_adaptive(radius.shape, mask=mask),
    ):
        assert algorithms.find_peaks(frames.values, finder).count.sum() == 0


def test_a_flat_frame_has_no_peaks(radius):
    for finder in finders(radius).values():
        for level in (0.0, 1000.0):
            flat = np.full(radius.shape, level, np.float32)
            assert algorithms.find_peaks(flat, finder).count[0] == 0


def test_asics_and_frames_that_do_not_fit_are_refused(radius, frames):
    with pytest.raises(ValueError, match=r"ASICs of \(50, 64\) pixels do not fill"):
        algorithms.prepare_radial(radius, asic=(50, 64))
    with pytest.raises(ValueError, match="do not consist of panels"):
        algorithms.find_peaks(frames.values[..., :100], algorithms.prepare_radial(radius))


def test_lit_pixels_select_hits(frames):
    lit = analysis.lit_pixels(frames, 200)
    expected = (frames > 200).sum(["panel", "row", "col"])
    assert np.array_equal(lit["lit_pixels"], expected)
    total = frames.where(frames > 200).astype(float).sum(["panel", "row", "col"])
    np.testing.assert_allclose(lit["lit_sum"], total, rtol=1e-12)
    lazy = analysis.lit_pixels(frames.chunk(time=2), 200)
    xr.testing.assert_identical(lazy.compute(), lit)
    mask = np.zeros(frames.shape[1:])
    assert analysis.lit_pixels(frames, 200, mask=mask)["lit_pixels"].sum() == 0
    assert analysis.lit_pixels(frames.isel(time=slice(0)), 200)["lit_pixels"].shape == (0,)


def test_a_cxi_list_says_what_crystfel_reads(tmp_path, radius, frames):
    found = analysis.find_peaks(frames.chunk(time=2), finders(radius)["radial"], most=20)
    analysis.write_cxi(tmp_path / "peaks.cxi", found, rows=96, frames=frames.chunk(time=2))
    assert found["row"].chunks is not None  # not loaded on the way
    table = analysis.peak_table(found)
    with h5py.File(tmp_path / "peaks.cxi") as file:
        result = file["entry_1/result_1"]
        assert file["entry_1/data_1/data"].shape == (5, 4 * 96, 128)
        for event, count in enumerate(result["nPeaks"][:]):
            mine = table[table["event"] == event]
            assert count == len(mine)
            np.testing.assert_allclose(result["peakXPosRaw"][event, :count], mine["col"], rtol=1e-6)
            np.testing.assert_allclose(
                result["peakYPosRaw"][event, :count], mine["panel"] * 96 + mine["row"], rtol=1e-6
            )
            # the pixel of the stacked frame that a list names is bright
            y, x = (np.rint(result[f"peak{axis}PosRaw"][event, :count]).astype(int) for axis in "YX")
            assert file["entry_1/data_1/data"][event][y, x].min() > 100

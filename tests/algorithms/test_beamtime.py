"""What a user does with a run of either format, and the known answers of the simulation."""

import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import psana_dask
from psana_dask import algorithms, analysis
from psana_dask.analysis import PerFrame
from psana_dask.errors import NameNotFound
from psana_dask.reductions import Histogram

PIXEL = 1e-4  # m: the simulator's
FLAT = {"common_mode": None}
EVENTS = 60


def edge_of(event):  # as conftest.py draws it
    return 120 + 45 * np.sin(1.7 * event)


def stage(event):
    return 1e-12 * (event // 20 - 1)


@pytest.fixture(scope="module")
def where(beamtime):
    return algorithms.pixel_positions(beamtime.run.jungfrau.geometry)


@pytest.fixture(scope="module")
def table(where):
    return algorithms.prepare_azimuthal(where, bins=100, span=(0.05, 0.4), azimuths=3)


@pytest.fixture(scope="module")
def finder(where, beamtime):
    mask = beamtime.run.jungfrau.mask.values
    return algorithms.prepare_radial(where.radius / PIXEL, mask=mask, adc=8, snr=5)


# ---- profiles ------------------------------------------------------------------------------------
def test_rings_have_their_radii_and_their_q(beamtime, where):
    run, picture = beamtime.run, beamtime.truth.picture("jungfrau")
    flat = algorithms.prepare_azimuthal(where, bins=160, unit="radius", span=(0, 8e-3), solid_angle=False)
    profile = run.mean(analysis.profile_of("jungfrau.calib", flat), calibration=FLAT)
    radius = profile.radius.values / PIXEL
    for ring in picture.rings:
        near = np.abs(radius - ring) < 6
        found = np.average(radius[near], weights=np.clip(profile.values[near] - 0.2, 0, None))
        assert abs(found - ring) < 0.1  # pixels; some thousand photons in a ring of sigma 2
    moving = algorithms.prepare_azimuthal(where, bins=400, span=(0.05, 0.4))
    profile = run.mean(analysis.profile_of("jungfrau.calib", moving, energy="ebeam.photon_energy"))
    middle = run.ebeam.photon_energy.values.mean()
    for ring in picture.rings:
        q = 4 * np.pi * middle / 12398.4198 * np.sin(np.arctan(ring * PIXEL / 0.1) / 2)
        near = np.abs(profile.q - q) < 0.03
        top = profile.q.values[near][np.argmax(profile.values[near])]
        assert abs(top - q) < 0.01  # a ring of sigma 0.2 mm at 0.1 m has a sigma of 0.01 in q


def test_a_fused_profile_is_the_mean_of_profiles(beamtime, table):
    run = beamtime.run
    fused = run.reduce(["mean", "std", "count"], analysis.profile_of("jungfrau.calib", table, energy=ENERGY))
    lazy = analysis.integrate(run.jungfrau.calib, table, run.ebeam.photon_energy)["intensity"].load()
    # float64 sums of 59 events in another order
    np.testing.assert_allclose(fused.jungfrau_profile_mean, lazy.mean("time"), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(fused.jungfrau_profile_std, lazy.std("time"), rtol=1e-9, atol=1e-13)
    assert np.array_equal(fused.jungfrau_profile_count, lazy.notnull().sum("time"))
    assert fused.jungfrau_profile_mean.dims == ("azimuth", "q")
    mapped = run.map(analysis.profile_of("jungfrau.calib", table, energy=ENERGY))
    assert np.array_equal(mapped, lazy[np.isin(lazy.time, mapped.time)], equal_nan=True)


ENERGY = "ebeam.photon_energy"


# ---- peaks ---------------------------------------------------------------------------------------
def test_every_planted_peak_is_found_and_nothing_else(beamtime, where, finder):
    run, picture = beamtime.run, beamtime.truth.picture("jungfrau")
    peaks = analysis.find_peaks(
        run.jungfrau.calib, finder, positions=where, energy=run.ebeam.photon_energy, most=64
    )
    found = analysis.peak_table(peaks)
    # the laboratory's x runs to the left, its y upwards
    places = -found[["y", "x"]].to_numpy() / PIXEL + np.array(picture.centre)
    apart = np.hypot(*(places[:, None] - picture.peaks[None]).transpose(2, 0, 1))
    there = int(run.jungfrau.present.sum())
    assert len(found) == there * len(picture.peaks)
    assert ((apart < 1).sum(axis=0) == there).all()
    # 300 photons in a spot of sigma 1.3: 0.08, and its outer pixels are cut off
    assert apart.min(axis=1).max() < 1
    assert np.sqrt((apart.min(axis=1) ** 2).mean()) < 0.2
    factor = 4 * np.pi / 12398.419843320026 * run.ebeam.photon_energy.sel(time=found.time.values).values
    radius = np.hypot(found.x, found.y)
    np.testing.assert_allclose(found.q, factor * np.sin(np.arctan2(radius, 0.1) / 2), rtol=1e-12)


def test_hits_are_a_boolean_that_select_takes(beamtime, finder):
    run = beamtime.run
    there = run.jungfrau.present.values
    peaks = analysis.find_peaks(run.jungfrau.calib, finder, most=64)
    assert len(run.select(peaks["count"] >= 6)) == there.sum()
    assert len(run.select(peaks["count"] >= 7)) == 0
    total = np.nansum(run.jungfrau.calib, axis=(1, 2, 3))
    lit = analysis.lit_pixels(run.jungfrau.calib, 5.0)
    few = int(np.median(lit["lit_pixels"]))
    chosen = run.select(lit["lit_pixels"] > few)
    assert np.array_equal(chosen.events.time, run.events.time[lit["lit_pixels"].values > few])
    rule = analysis.find_hits(run.jungfrau.calib, lambda frames: np.nansum(frames, axis=(1, 2, 3)) > 5e3)
    assert rule.chunks is not None
    assert np.array_equal(rule, total > 5e3)
    assert len(run.select(rule)) == (total > 5e3).sum()


def test_crystfel_finds_the_peaks_where_they_are(beamtime, where, finder, tmp_path):
    """By the rules of CrystFEL's manual: another reader of the geometry, the lists and the half pixel."""
    reader = pytest.importorskip("cfel_fmt.geometry", reason="no EXtra-geom, which brings it")
    run, picture = beamtime.run, beamtime.truth.picture("jungfrau")
    some = run.isel(slice(6, 14))
    peaks = analysis.find_peaks(some.jungfrau.calib, finder, positions=where, most=20)
    hits = some.select(peaks["count"] > 0)
    path, det = tmp_path / "hits.cxi", hits.jungfrau
    analysis.write_cxi(
        path, peaks.sel(time=hits.events.time), geometry=det.geometry, frames=det.calib,
        energy=hits.ebeam.photon_energy, mask=det.mask,
    )  # fmt: skip
    text = Path(f"{path}.geom").read_text()
    assert "peak_list = /entry_1/result_1\npeak_list_type = cxi" in text
    detector = reader.load_crystfel_geometry(f"{path}.geom").detector
    with h5py.File(path) as file:
        data, lists = file["/entry_1/data_1/data"], file["/entry_1/result_1"]
        assert data.shape == (7, 4 * 64, 96)
        assert file["/entry_1/data_1/mask"].shape == data.shape
        assert np.array_equal(file["/LCLS/photon_energy_eV"], hits.ebeam.photon_energy)
        for line, count in enumerate(lists["nPeaks"][()]):
            fs, ss, intensity = (
                lists[name][line][:count] for name in ("peakXPosRaw", "peakYPosRaw", "peakTotalIntensity")
            )
            assert (data[line][np.rint(ss).astype(int), np.rint(fs).astype(int)] > 5).all()
            assert (intensity > 50).all()
            places = [crystfel_place(detector, *at) for at in zip(fs + 0.5, ss + 0.5, strict=True)]
            seen = -np.array(places)[:, ::-1] / PIXEL + picture.centre  # (y, x) of the picture
            apart = np.hypot(*(seen[:, None] - picture.peaks[None]).transpose(2, 0, 1))
            assert apart.min(axis=1).max() < 1
            mine = peaks.sel(time=hits.events.time[line])
            np.testing.assert_allclose(np.array(places)[:, 0], mine.x[:count], atol=1e-9)  # float32 lists
            np.testing.assert_allclose(np.array(places)[:, 1], mine.y[:count], atol=1e-9)
    with pytest.raises(ValueError, match="say geometry= or rows="):
        analysis.write_cxi(tmp_path / "x.cxi", peaks)


def crystfel_place(detector, fs, ss):
    """Return x, y in metres of a point of the slab: exactly one panel has it."""
    (panel,) = [
        p for p in detector["panels"].values()
        if p["orig_min_fs"] <= fs < p["orig_max_fs"] + 1 and p["orig_min_ss"] <= ss < p["orig_max_ss"] + 1
    ]  # fmt: skip
    right, down = fs - panel["orig_min_fs"], ss - panel["orig_min_ss"]
    x = panel["cnx"] + right * panel["fsx"] + down * panel["ssx"]
    y = panel["cny"] + right * panel["fsy"] + down * panel["ssy"]
    return x / panel["res"], y / panel["res"]


def test_the_powder_of_a_run_is_the_sum_of_its_peaks(beamtime, finder):
    run = beamtime.run
    powder = run.sum(analysis.powder_of("jungfrau.calib", finder))
    found = analysis.peak_table(analysis.find_peaks(run.jungfrau.calib, finder, most=64))
    expected = np.zeros(powder.shape)
    np.add.at(expected, (found.panel, found.row_top, found.col_top), found.intensity)
    np.testing.assert_allclose(powder, expected, rtol=1e-6)  # intensities go through float32
    image = run.jungfrau.assembled(powder)
    assert float(image.sum()) == pytest.approx(found.intensity.sum())


# ---- photons -------------------------------------------------------------------------------------
def photons_written(truth, event):
    field = "image" if truth.spec.format == "xtc2" else "raw"
    picture = truth.picture("sparse")
    raw = np.asarray(truth.value("sparse", field, event), np.float64)
    return np.rint((raw - picture.pedestals[0]) / picture.scene.adu_per_photon)


def test_photons_are_those_that_were_simulated(beamtime):
    run, truth = beamtime.run, beamtime.truth
    counted = analysis.count_photons(run.sparse.calib, adu=1.0).values.astype(float)
    written = np.stack([photons_written(truth, event) for event in range(EVENTS)])
    around = np.pad(written, ((0, 0), (1, 1), (1, 1)))
    beside = around[:, :-2, 1:-1] + around[:, 2:, 1:-1] + around[:, 1:-1, :-2] + around[:, 1:-1, 2:]
    alone = (beside == 0) & (written <= 1)
    assert alone.mean() > 0.9
    assert np.array_equal(counted[alone], written[alone])
    # of neighbouring photons whose charge is a little below one, psana's rule takes two for one
    assert 0.98 * written.sum() < counted.sum() <= written.sum()
    assert np.array_equal(run.sum(analysis.photons_of("sparse.calib", adu=1.0)), counted.sum(axis=0))


def test_droplets_and_histograms_know_the_gain(beamtime):
    run = beamtime.run
    in_adu = {"gain": False, "common_mode": None}
    edges = np.arange(-10, 60, 1.0)
    counts = run.reduce(Histogram(edges, per_pixel=False), "sparse.calib", calibration=in_adu)
    fit = algorithms.fit_photon_peaks(counts.values, edges, adu=20)
    # 6000 photons, read noise 0.5 and rounding: 0.01
    assert float(fit.gain) == pytest.approx(20, abs=0.05)
    assert float(fit.pedestal) == pytest.approx(0, abs=0.05)
    assert float(analysis.fit_photon_peaks(counts, 20).gain) == float(fit.gain)
    by_pixel = run.reduce(Histogram(edges), "sparse.calib", calibration=in_adu)
    pixels = analysis.fit_photon_peaks(by_pixel, 20, least=2)
    assert pixels.gain.shape == (64, 80)
    known = pixels.gain.values[np.isfinite(pixels.gain)]
    # those with two photons or more in 60 events; a few with one pixel's noise of 0.6
    assert 100 < known.size < 64 * 80
    assert np.abs(known - 20).max() < 3
    with pytest.raises(ValueError, match="has no bins"):
        analysis.fit_photon_peaks(by_pixel.drop_vars("sparse_calib_bin_left"), 20)
    spectrum = run.sum(analysis.spectrum_of("sparse.calib", np.arange(0.5, 6), high=0.6, low=0.3))
    droplets = analysis.peak_table(analysis.find_droplets(run.sparse.calib, high=0.6, low=0.3, most=400))
    assert np.array_equal(spectrum, np.histogram(droplets.intensity, np.arange(0.5, 6))[0])
    assert spectrum.values[0] > 10 * spectrum.values[1] > 0


# ---- the time tool -------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def edges(beamtime):
    run = beamtime.run
    projections = analysis.project(run.opal.raw, slice(8, 16), np.full((24, 240), 100.0))
    weights = algorithms.step_weights(16, rising=True)
    return analysis.time_edges(projections, run.evr[162], weights, calibration=(-12.0, 0.1))


def test_delays_are_known_to_a_hundredth_of_a_picosecond(beamtime, edges):
    run, event = beamtime.run, np.arange(EVENTS)
    lit = ~beamtime.dropped
    error = (edges.position.values - edge_of(event))[lit]
    # noise 3 in eight rows against a step of 80 to 200 over a width of 3: 0.05 pixels
    assert error.std() < 0.1
    assert abs(error.mean()) < 0.03
    delay = analysis.corrected_delay(run.epics["las_delay"], edges.time_ps)
    true = stage(event) + 1e-12 * (-12 + 0.1 * edge_of(event))
    assert np.sqrt(np.mean((delay.values - true)[lit] ** 2)) < 1e-14  # s: 0.1 ps per pixel
    bins = np.linspace(-6e-12, 6e-12, 9)
    cube = run.select(~run.evr[162]).reduce("mean", "jungfrau.calib", by=(delay, bins))
    there = lit & run.jungfrau.present.values
    assert np.array_equal(cube.jungfrau_events, np.histogram(true[there], bins)[0])
    assert cube.dims == ("delay", "panel", "row", "col")


def test_there_is_one_set_of_variables(beamtime, edges):
    assert {"position", "time_ps", "amplitude", "fwhm", "next_amplitude", "ref_amplitude"} <= set(edges)
    with pytest.raises(AttributeError, match="no time tool among"):
        _ = beamtime.run.timetool
    with pytest.raises(NameNotFound, match="finds edges in images"):
        analysis.time_tool(beamtime.run)


# ---- flags, cuts, quality ------------------------------------------------------------------------
def test_cuts_are_counted(beamtime, edges):
    run, event = beamtime.run, np.arange(EVENTS)
    flags = run.flags({"laser_on": [90, -162], "laser_off": [91, -162]})
    on = (event % 2 == 0) & (event % 6 > 0)
    assert np.array_equal(flags.laser_on, on)
    assert np.array_equal(flags.laser_off, (event % 3 == 0) & (event % 6 > 0))
    cuts = analysis.apply_cuts({"laser_on": flags.laser_on, "edge": edges.position > 120})
    assert cuts.table.loc["laser_on"].tolist() == [on.sum(), on.sum(), (~on).sum(), 0]
    passed = on & (edges.position.values > 120)
    assert cuts.table.loc["edge", "left"] == passed.sum() == len(run.select(cuts.mask))


def test_a_sound_run_is_called_sound(beamtime):
    found = psana_dask.quality(beamtime.run, sample=8)
    jungfrau = found.sel(detector="jungfrau")
    assert (jungfrau["missing"], jungfrau["longest_absence"], jungfrau["saturated"]) == (1, 1, 0)
    assert (found["hot"].fillna(0) == 0).all()
    assert found.attrs["dropped_shots"] == beamtime.dropped.sum()
    assert found["off_by"].isnull().all()


# ---- any chunks, any shape -----------------------------------------------------------------------
@pytest.mark.parametrize("beamtime", ["xtc2"], indirect=True)
@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_chunks_give_the_same_result(whole_results, data):
    frames, finder, table, whole = whole_results
    chunks = {
        "time": tuple(data.draw(splits(frames.sizes["time"]))),
        "panel": data.draw(st.sampled_from([1, 3, 4])),
        "row": data.draw(st.sampled_from([20, 64])),
    }
    for name, made in results(frames.chunk(chunks), finder, table).items():
        assert name == "g2" or made.chunks
        xr.testing.assert_identical(made.compute(), whole[name])


def splits(total):
    """Sizes of chunks that add up to a total."""
    cuts = st.lists(st.integers(1, total - 1), max_size=4, unique=True)
    return cuts.map(lambda at: np.diff([0, *sorted(at), total]).tolist())


def results(frames, finder, table):
    energy = xr.DataArray(np.linspace(9400, 9600, frames.sizes["time"]), {"time": frames.time}, "time")
    odd = xr.DataArray(np.arange(frames.sizes["time"]) % 2 > 0, {"time": frames.time}, "time")
    regions = np.arange(4)[:, None, None] * np.ones(frames.shape[1:], int)
    return {
        "peaks": analysis.find_peaks(frames, finder, most=64),
        "profiles": analysis.integrate(frames, table, energy, error="poisson"),
        "photons": analysis.count_photons(frames, 1.0),
        "droplets": analysis.find_droplets(frames, high=6, low=3, most=500),
        "lit": analysis.lit_pixels(frames, 5.0),
        "difference": analysis.pump_probe(frames, odd, ~odd, energy),
        "g2": analysis.autocorrelation(frames, regions, channels=4, levels=2),
    }


@pytest.fixture(scope="module")
def whole_results(beamtime, finder, table):
    frames = beamtime.run.jungfrau.calib.isel(time=slice(0, 19)).load().drop_attrs()
    frames[3] = np.nan  # beside event 9, which is missing
    frames[5, 2] = np.nan
    return frames, finder, table, results(frames, finder, table)


def test_missing_events_hold_nothing(whole_results):
    frames, _, _, whole = whole_results
    for event in (3, 9):
        assert np.isnan(frames[event]).all()
        assert whole["peaks"]["count"][event] == whole["droplets"]["count"][event] == 0
        assert whole["photons"][event].sum() == whole["lit"]["lit_pixels"][event] == 0
        assert np.isnan(whole["profiles"]["intensity"][event]).all()
    assert whole["photons"][5, 2].sum() == 0
    assert (whole["peaks"].panel[5] != 2).all()


def test_no_events_give_empty_results(whole_results):
    frames, finder, table, whole = whole_results
    for name, made in results(frames[:0], finder, table).items():
        if name in ("difference", "g2"):
            values = made.to_array() if isinstance(made, xr.Dataset) else made
            assert np.isnan(values).all()
        else:
            assert made.sizes["time"] == 0
            assert set(made.sizes) == set(whole[name].sizes)


def test_a_function_of_images_is_reduced(beamtime):
    run = beamtime.run
    top = PerFrame("jungfrau.image", "top", lambda images: np.nanmax(images, axis=(1, 2)), {})
    some = run.isel(slice(10, 15))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert float(some.max(top)) == float(some.jungfrau.image.max())

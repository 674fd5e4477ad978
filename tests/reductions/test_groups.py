"""Bins: by step, by values, by conditions, in several dimensions; each is its own reduction."""

import numpy as np
import pytest
import xarray as xr

from psana_dask.errors import NameNotFound
from psana_dask.reductions.groups import groups_of

EDGES = [-2.0, -0.5, 0.5, 2.0]


def same(one, two):
    assert one.values.tobytes() == two.values.tobytes()


def test_each_bin_has_the_bits_of_a_selection(run):
    steps = run.mean("wild.raw", by="step")
    assert steps.dims[0] == "step"
    np.testing.assert_array_equal(steps.delay, [-1, 0, 1])
    for k in range(3):
        same(steps.isel(step=k), run.select(run.events.step.values == k).mean("wild.raw"))


def test_bins_of_a_scan_variable_with_edges(run):
    delay = run.mean("wild.raw", by=("delay", EDGES))
    assert delay.delay.values.tolist() == [-1.25, 0, 1.25]
    assert delay.delay_left.values.tolist() == EDGES[:-1]
    assert delay.delay_right.values.tolist() == EDGES[1:]
    same(delay, run.mean("wild.raw", by="step"))


def test_conditions_and_several_dimensions(run):
    on = run.evr.has(90)
    found = run.reduce("cam.raw", by={"delay": EDGES, "laser": on})
    assert found.cam_raw_mean.dims == ("delay", "laser", "panel", "row", "col")
    assert found.laser.values.tolist() == [False, True]
    part = run.select(on).select(run.select(on).events.step.values == 2)
    same(found.cam_raw_mean.sel(laser=True, delay=1.25), part.mean("cam.raw"))
    same(found.cam_raw_var.sel(laser=True, delay=1.25), part.var("cam.raw"))
    assert int(found.cam_raw_count.sel(laser=True, delay=1.25)[0, 0, 0]) == len(part)
    assert found.cam_events.sum() == 297
    both = run.mean("cam.raw", by=["step", on])
    assert both.dims[:2] == ("step", "evr_90")


def test_scalar_fields_epics_arrays_and_numbers_of_bins(run):
    energy = run.gmd.milliJoulesPerPulse
    edges = np.quantile(energy.values, [0, 0.5, 1])
    by_name = run.count("cam.raw", by=("gmd.milliJoulesPerPulse", edges))
    same(by_name, run.count("cam.raw", by=(energy, edges)))
    same(by_name, run.count("cam.raw", by=(energy.values, edges)))
    assert by_name.dims[0] == "milliJoulesPerPulse"
    two = run.count("wild.n", by=("gmd.milliJoulesPerPulse", 2))
    low, high = energy.values.min(), energy.values.max()
    np.testing.assert_array_equal(two, np.histogram(energy.values, np.linspace(low, high, 3))[0])
    odd = xr.DataArray(np.arange(300) % 2 == 1, {"time": run.events.time}, name="odd")
    assert run.count("wild.n", by=odd).values.tolist() == [150, 150]
    assert run.count("wild.n", by=odd[::2]).odd.values.tolist() == [False, True]


def test_values_without_a_bin_are_left_out(run):
    values = np.where(np.arange(300) < 10, np.nan, np.arange(300) / 300)
    found = run.count("wild.n", by=(values, [0.0, 0.5, 0.9]))
    assert found.values.tolist() == [140, 121]  # 150 less ten NaN; from 0.5 to 0.9, both included
    empty = run.mean("wild.raw", by=(values, [5.0, 6.0]))
    assert np.isnan(empty).all()
    assert empty.shape == (1, 5, 7)


@pytest.mark.parametrize("shape", [(1,), (4,), (3, 2)])
def test_members_cover_every_event_once(run, shape):
    r = np.random.default_rng(0)
    by = [xr.DataArray(r.integers(0, n, 300), dims="time", name=f"d{k}",
                       coords={"time": run.events.time}) for k, n in enumerate(shape)]
    groups = groups_of(run._view, by)
    members = groups.members()
    assert len(members) == np.prod(groups.shape)
    assert sorted(np.concatenate(members).tolist()) == list(range(300))


def test_what_is_no_bin_is_said(run):
    with pytest.raises(NameNotFound, match=r"EPICS variable or scalar field 'delai'.*delay"):
        run.mean("cam.raw", by=("delai", EDGES))
    with pytest.raises(NameNotFound, match=r"cam\.raw is not one number per event"):
        run.mean("cam.raw", by=("cam.raw", EDGES))
    with pytest.raises(ValueError, match="bin edges of delay must increase"):
        run.mean("cam.raw", by=("delay", [1.0, 0.0]))
    with pytest.raises(ValueError, match="one value per event is needed"):
        run.mean("cam.raw", by=np.arange(7))
    with pytest.raises(ValueError, match="two dimensions of bins have one name"):
        run.mean("cam.raw", by=["step", "step"])


def test_a_cube_of_calibrated_frames_carries_its_constants(run, constants):
    cube = run.reduce("jf.calib", by="step", calibration={"common_mode": None})
    assert set(cube.data_vars) == {"jf_calib_count", "jf_calib_sum", "jf_calib_mean", "jf_calib_var"}
    np.testing.assert_array_equal(cube.coords["jf_pedestals"], constants["pedestals"])
    frames = run.jf.calibrated(common_mode=None).astype("f8")
    by_hand = frames.groupby("step").mean()
    np.testing.assert_allclose(cube.jf_calib_mean, by_hand, rtol=1e-5, atol=1e-3)


def test_small_values_of_all_bins_are_read_once(run, monkeypatch):
    from psana_dask.fields import FrameReader

    read = []
    original = FrameReader.read_into

    def counted(self, events, panels, rows, out):
        if self.events.channel.detector == "wild":
            read.append(len(events))
        original(self, events, panels, rows, out)

    monkeypatch.setattr(FrameReader, "read_into", counted)
    bins = np.arange(300) % 10
    together = run.reduce(["mean", "var", "max"], "wild.raw", by=(bins, np.arange(11) - 0.5))
    assert sum(read) == 300
    monkeypatch.setattr("psana_dask.reductions.statistics.LARGE_BYTES", 0)
    apart = run.reduce(["mean", "var", "max"], "wild.raw", by=(bins, np.arange(11) - 0.5))
    assert together.identical(apart)
    weights = {"weights": "gmd.milliJoulesPerPulse"}
    apart = run.mean("wild.raw", by=bins, **weights)
    monkeypatch.undo()
    assert run.mean("wild.raw", by=bins, **weights).identical(apart)

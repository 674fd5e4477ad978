"""Functions of the user: map keeps time, reduce has the same leaves everywhere, errors name the event."""

import dask
import numpy as np
import pytest
import xarray as xr

from psana_dask.errors import FunctionError
from psana_dask.reductions import compute


def wild_sums(ds):
    return xr.Dataset({"sum": ds.wild_x.sum("time"), "events": ds.time.size})


def test_a_function_of_leaves(run, monkeypatch):
    found = run.reduce(wild_sums, "wild.x")
    assert int(found.events) == 300
    np.testing.assert_allclose(found["sum"], run.wild.x.values.sum(), rtol=1e-12)
    for level in (0, 1, 3):
        monkeypatch.setattr(compute, "task_level", lambda events, nbytes, level=level: level)
        with dask.config.set(scheduler="synchronous" if level else "threads"):
            assert run.reduce(wild_sums, "wild.x").identical(found)


def test_leaves_are_sixteen_events(run):
    sizes = run.reduce(lambda ds: [ds.sizes["time"]], "cam.raw")
    assert sizes == [16] * 18 + [9]  # 297 events have the camera


def test_merge_by_a_function(run):
    def first_and_last(ds):
        return ds.time.values[[0, -1]]

    found = run.reduce(first_and_last, "wild.x", merge=lambda a, b: np.array([a[0], b[1]]))
    np.testing.assert_array_equal(found, run.events.time.values[[0, -1]])


def test_functions_by_bins(run):
    on = run.evr.has(90)
    found = run.reduce(wild_sums, "wild.x", by={"step": "step", "on": on})
    assert found["sum"].dims == ("step", "on")
    part = run.select(on).select(run.select(on).events.step.values == 1)
    assert found.sel(step=1, on=True)["sum"].values == part.reduce(wild_sums, "wild.x")["sum"].values
    empty = run.reduce(wild_sums, "wild.x", by=(np.arange(300), [0, 10, 20, 1000, 2000]))
    assert empty.events.values.tolist() == [10, 10, 280, 0]
    assert np.isnan(empty["sum"][3])


def test_no_events(run):
    found = run.isel([]).reduce(wild_sums, "wild.x")
    assert int(found.events) == 0


def test_map_keeps_time_and_is_lazy(run, values):
    calls = []

    def bright(ds):
        calls.append(ds.sizes["time"])
        return xr.Dataset({"sum": ds.cam_raw.sum(("row", "col")), "x": ds.cam_raw[:, 0, 0, 0] * 2})

    found = run.map(bright, "cam.raw")
    assert max(calls) <= 2
    assert dict(found.sizes) == {"time": 297, "panel": 2}
    there = run.cam.present.values
    np.testing.assert_array_equal(found["sum"], run.cam.raw.sum(("row", "col")).values[there])
    np.testing.assert_array_equal(found.time, run.events.time[there])
    one = run.map(lambda ds: ds.jf_calib.max(("panel", "row", "col")), "jf.calib")
    np.testing.assert_array_equal(one, values("jf.calib").max(axis=(1, 2, 3)))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda ds: ds.cam_raw.mean("time"), r'run\.mean\("cam\.raw"\) reduces over all of them'),
        (lambda ds: ds.cam_raw.max("time"), r'run\.max\("cam\.raw"\) reduces over all of them'),
        (lambda ds: ds.cam_raw - ds.cam_raw.mean("time"), "depends on the other events.*run.mean, run.sum"),
        (lambda ds: ds.cam_raw.shift(time=1), "or shifts along it"),
        (lambda ds: ds.isel(time=slice(0, 1)), "1 entries of 2 events: map keeps time"),
        (lambda ds: 5, "returns a Dataset or DataArray, not int"),
    ],
)
def test_what_map_refuses(run, function, message):
    with pytest.raises(FunctionError, match=message):
        run.map(function, "cam.raw")


def test_errors_name_the_event_and_the_file(run):
    bad = run.events.time.values[123]

    def fussy(ds):
        if bad in ds.time.values:
            raise KeyError("no thanks")
        return ds.wild_x.sum("time")

    where = rf"fussy failed at event {str(bad)[:26]}.* in .*-s000-c000.xtc2: KeyError: 'no thanks'"
    with pytest.raises(FunctionError, match=where):
        run.reduce(fussy, "wild.x")
    with pytest.raises(FunctionError, match=r"for one result per event use run\.map"):
        run.reduce(lambda ds: ds.wild_x, "wild.x")
    with pytest.raises(ValueError, match="applies weights and masks of pixels by itself"):
        run.reduce(wild_sums, "wild.x", weights="wild.x")
    with pytest.raises(ValueError, match="merge= belongs to a function"):
        run.reduce("mean", "wild.x", merge=max)

"""Several runs: one behind the other, side by side, and reduced together with the same bits everywhere."""

import shutil

import dask
import numpy as np
import pytest
import xarray as xr

import psana_dask
from psana_dask import simulate
from psana_dask.errors import DroppedWarning, NameNotFound, PartialRunWarning, RunNotFound, UnknownFormat
from psana_dask.reductions.statistics import Histogram, Projection
from psana_dask.simulate import Detector, Missing, RunSpec, Scan

GMD = Detector(name="gmd", kind="gmd")
TIMING = Detector(name="timing", kind="timing")
CAM = Detector(name="cam", kind="camera", shape=(6, 8))
PLAIN = {"policy": "raw"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three runs of 37, 20 and 53 events; run 6 has no camera, run 7 lacks it in some events."""
    where = tmp_path_factory.mktemp("runs")
    for number, events, dets in (
        (5, 37, (TIMING, GMD, CAM)),
        (6, 20, (TIMING, GMD)),
        (7, 53, (TIMING, GMD, CAM)),
    ):
        spec = RunSpec(
            number=number, events=events, detectors=dets, seed=number, start=f"2024-06-14T0{number}:00:00",
            steps=2 if number < 7 else 3, scan=Scan(motors={"delay": np.arange(2.0 + (number == 7))}),
            missing=(Missing(events=(3, 4, 50), detector="cam"),) if number == 7 else (),
        )  # fmt: skip
        simulate.write(spec, where)
    return where


@pytest.fixture(scope="module")
def runs(folder):
    return psana_dask.open_runs(folder)


def field_values(runs, name):
    """Return the values of the events that have a field, of all runs that have it."""
    detector = name.partition(".")[0]
    found = []
    for run in runs:
        if detector in run.detectors:
            array = run[name]
            found.append(array.values[run[detector].present.values])
    return np.concatenate(found)


# ---- a sequence ---------------------------------------------------------------------------------
def test_it_is_a_sequence_of_runs(runs, folder):
    assert (len(runs), runs.numbers, runs[-1].number, runs.number(6).number) == (3, [5, 6, 7], 7, 6)
    assert runs[1:].numbers == runs.having("gmd")[1:].numbers == [6, 7]
    assert runs.having("cam").numbers == [5, 7]
    with pytest.raises(NameNotFound, match="no detector 'cma'; did you mean cam"):
        runs.having("gmd", "cma")
    assert len(runs[:0].having("cma")) == 0
    assert "run 6: 20 events, " in repr(runs)
    with pytest.raises(RunNotFound, match="no run 8 among these; there are 5, 6, 7"):
        runs.number(8)
    with pytest.raises(RunNotFound, match="there are no runs"):
        psana_dask.open_runs(folder, [99]).mean("gmd")


def test_a_run_that_cannot_be_read_is_left_out_with_a_warning(folder, tmp_path):
    data = shutil.copytree(folder, tmp_path / "xtc")
    next(data.glob("*-r0006-*")).write_bytes(bytes(300))
    with pytest.warns(
        PartialRunWarning, match=r"run 6 is left out: .*r0006-s000-c000.xtc2 is neither XTC2 nor XTC"
    ):
        assert psana_dask.open_runs(data).numbers == [5, 7]
    assert psana_dask.open_runs(data, [5]).numbers == [5]
    for asked in ({"runs": [6]}, {"strict": True}):
        with pytest.raises(UnknownFormat, match="neither XTC2 nor XTC"):
            psana_dask.open_runs(data, **asked)


def test_selections_of_each_run(runs):
    some = runs.select(lambda run: run.evr.has(90, -162))
    assert [len(r) for r in some] == [len(r.select(r.evr.has(90, -162))) for r in runs]
    assert len(runs.select(slice("2024-06-14T07:00", None))[0]) == 0


# ---- one behind the other -----------------------------------------------------------------------
def test_events_one_behind_the_other(runs):
    data = runs.dataset()
    assert data.sizes["time"] == 110
    assert data.attrs["runs"] == [5, 6, 7]
    assert data.run.values.tolist() == [5] * 37 + [6] * 20 + [7] * 53
    assert (np.diff(data.time.values) > np.timedelta64(0)).all()
    assert data.cam_raw.chunks is not None
    assert data.cam_raw.dtype == runs[0].cam.raw.dtype
    assert not data.cam_present.values[37:57].any()
    assert not data.cam_raw.values[37:57].any()
    np.testing.assert_array_equal(data.cam_raw.values[57:], runs[2].cam.raw.values)
    assert np.isnan(data.cam_raw.psana.masked().values[40]).all()
    one = data.sel(time=runs[1].events.time[3])
    assert one.gmd_milliJoulesPerPulse == runs[1].gmd.milliJoulesPerPulse[3]


def test_runs_that_lack_a_name_are_left_out_with_a_warning(runs):
    with pytest.warns(DroppedWarning, match="runs left out, as they lack a name: 6"):
        data = runs.dataset(["cam.raw", "gmd"])
    assert sorted(set(data.run.values)) == [5, 7]
    assert data.sizes["time"] == 37 + 53 - 3
    with pytest.raises(NameNotFound, match="no detector 'camm'; did you mean cam"):
        runs.dataset("camm")


def test_runs_with_other_detectors_share_dimensions_where_these_agree(runs, tmp_path):
    jf = Detector(name="jf", kind="jungfrau", segments=2)
    simulate.write(RunSpec(number=9, events=4, detectors=(GMD, CAM, jf)), tmp_path)
    simulate.write(RunSpec(number=10, events=3, detectors=(jf,)), tmp_path)
    both = psana_dask.runs.Runs([runs[0], *psana_dask.open_runs(tmp_path)])
    data = both.dataset(chunks=None)
    assert data.cam_raw.dims == ("time", "cam_row", "cam_col")
    assert data.jf_raw.dims == ("time", "panel", "jf_row", "jf_col")
    assert data.panel.values.tolist() == [0, 1]
    assert data.jf_panel_present.values.sum(axis=0).tolist() == [7, 7]
    np.testing.assert_array_equal(data.cam_raw.values[37:41], both[1].cam.raw.values)
    np.testing.assert_array_equal(data.jf_raw.values[41:], both[2].jf.raw.values)
    assert both[1:].dataset("jf.raw").jf_raw.dims == ("time", "panel", "row", "col")
    assert runs[::2].dataset("cam.raw").cam_raw.dims == ("time", "row", "col")


def test_frames_of_another_shape_are_refused(runs, tmp_path):
    other = Detector(name="cam", kind="camera", shape=(6, 9))
    simulate.write(RunSpec(number=9, events=4, detectors=(GMD, other)), tmp_path)
    both = psana_dask.runs.Runs([runs[0], psana_dask.open(tmp_path)])
    with pytest.raises(ValueError, match=r"cam_raw of run 9 is .*'cam_col': 9.* run 5 .*'cam_col': 8"):
        both.dataset()
    with pytest.raises(ValueError, match="run 9 has other pixels along col than run 5"):
        both.mean("cam.raw")


def test_tables_and_maps(runs):
    table = runs.dataframe("gmd").compute()
    assert table.groupby("run").size().to_dict() == {5: 37, 6: 20, 7: 53}
    np.testing.assert_array_equal(
        table.gmd_milliJoulesPerPulse, field_values(runs, "gmd.milliJoulesPerPulse")
    )
    twice = runs.map(lambda ds: ds.gmd_milliJoulesPerPulse * 2, "gmd")
    np.testing.assert_array_equal(twice.values, 2 * table.gmd_milliJoulesPerPulse)
    assert twice.run.values.tolist() == table.run.tolist()


# ---- reductions ---------------------------------------------------------------------------------
@pytest.mark.filterwarnings("ignore::psana_dask.errors.DroppedWarning")
@pytest.mark.parametrize("which", ["count", "sum", "mean", "var", "std", "min", "max"])
@pytest.mark.parametrize("name", ["cam.raw", "gmd.milliJoulesPerPulse"])
def test_statistics_of_all_events(runs, which, name):
    found = getattr(runs, which)(name) if which != "count" else runs.reduce("count", name)
    every = field_values(runs, name).astype(np.float64)
    known = len(every) if which == "count" else getattr(np, which)(every, axis=0)
    if which in ("sum", "min", "max") and name == "cam.raw":
        np.testing.assert_array_equal(found.values, known)  # whole numbers: exact
    else:
        # float64 sums of 110 float32 values in another order than numpy's
        np.testing.assert_allclose(found.values, np.broadcast_to(known, found.shape), rtol=1e-12)
    assert found.name == name.replace(".", "_")
    assert found.attrs["reduction"] == which
    assert found.attrs["runs"] == ([5, 7] if name == "cam.raw" else [5, 6, 7])
    assert "run" not in found.attrs


@pytest.mark.filterwarnings("ignore::psana_dask.errors.DroppedWarning")
def test_calibrated_frames(runs):
    pedestals = np.arange(48.0).reshape(6, 8)
    for run, shift in zip(runs.having("cam"), (0, 100), strict=True):
        assert run.cam.calibrated(constants={"pedestals": pedestals + shift}).shape[1:] == (6, 8)
    own = psana_dask.runs.Runs(
        psana_dask.open(run.files, calib={"pedestals": pedestals + 100 * k})
        for k, run in enumerate(runs.having("cam"))
    )
    found = own.reduce(["mean", "std"], "cam.calib")
    frames = np.concatenate([r.cam.calib.values[r.cam.present.values] for r in own]).astype(np.float64)
    # float32 frames: 24 bits
    np.testing.assert_allclose(found.cam_calib_mean.values, frames.mean(0), rtol=1e-6, atol=1e-4)
    np.testing.assert_allclose(found.cam_calib_std.values, frames.std(0), rtol=1e-5)


@pytest.mark.filterwarnings("ignore::psana_dask.errors.DroppedWarning")
def test_the_bits_do_not_depend_on_how(runs):
    wanted = ["mean", "var", "max", Histogram([0, 20, 50, 1e5]), Projection("col", "mean")]
    names = ["cam.raw", "gmd.milliJoulesPerPulse"]

    def results():
        return runs.reduce(wanted[:3], names), runs.reduce(wanted, "cam.raw")

    with dask.config.set(scheduler="synchronous"):
        first = results()
    for scheduler, chunk in (("threads", 1 << 12), ("threads", 1 << 25), ("synchronous", 1 << 9)):
        with dask.config.set(scheduler=scheduler), psana_dask.set_options(chunk_bytes=chunk):
            for one, two in zip(first, results(), strict=True):
                xr.testing.assert_identical(one, two)


def test_one_run_is_the_run_itself(runs):
    for by in (None, "step"):
        xr.testing.assert_identical(
            runs[:1].reduce(["mean", "std"], "cam.raw", by=by),
            runs[0].reduce(["mean", "std"], "cam.raw", by=by),
        )
    assert runs[:1].mean("cam.raw").identical(runs[0].mean("cam.raw"))


@pytest.mark.filterwarnings("ignore::psana_dask.errors.DroppedWarning")
def test_bins_are_put_together_by_their_labels(runs):
    found = runs.reduce(["count", "mean", "min"], "gmd.milliJoulesPerPulse", by="delay")
    delay = np.concatenate([np.asarray(r.scan.delay)[r.events.step.values] for r in runs])
    energy = field_values(runs, "gmd.milliJoulesPerPulse").astype(np.float64)
    assert found.delay.values.tolist() == [0.0, 1.0, 2.0]
    for k, at in enumerate(found.delay.values):
        inside = energy[delay == at]
        assert found.gmd_milliJoulesPerPulse_count[k] == found.gmd_events[k] == len(inside)
        np.testing.assert_allclose(
            found.gmd_milliJoulesPerPulse_mean[k], inside.mean(), rtol=1e-12
        )  # as above
        assert found.gmd_milliJoulesPerPulse_min[k] == inside.min()
    edges = np.array([0.5, 0.8, 1.1, 1.4])
    cube = runs.reduce("cam.raw", by=("gmd.milliJoulesPerPulse", edges))
    frames = field_values(runs, "cam.raw")
    both = np.concatenate(
        [r.gmd.milliJoulesPerPulse.values[r.cam.present.values] for r in runs.having("cam")]
    )
    for k in range(3):
        inside = (both >= edges[k]) & (both < edges[k + 1])
        np.testing.assert_array_equal(cube.cam_raw_sum[k], frames[inside].sum(axis=0))
    np.testing.assert_array_equal(cube.milliJoulesPerPulse_left, edges[:-1])


@pytest.mark.filterwarnings("ignore::psana_dask.errors.DroppedWarning")
def test_one_result_a_run(runs):
    found = runs.mean("cam.raw", by="run")
    assert found.run.values.tolist() == [5, 7]
    for run in runs.having("cam"):
        np.testing.assert_array_equal(found.sel(run=run.number), run.mean("cam.raw"))
    steps = runs.reduce(["count", "mean"], "gmd.milliJoulesPerPulse", by=["run", "step"])
    assert steps.sizes == {"run": 3, "step": 3}
    assert steps.gmd_milliJoulesPerPulse_count.dtype == np.int64
    assert steps.gmd_milliJoulesPerPulse_count.sel(run=6, step=2) == 0
    assert np.isnan(steps.gmd_milliJoulesPerPulse_mean.sel(run=6, step=2))


def test_functions(runs):
    total = runs.reduce(lambda ds: ds.gmd_milliJoulesPerPulse.sum("time").astype(float), "gmd")
    np.testing.assert_allclose(
        total, field_values(runs, "gmd.milliJoulesPerPulse").sum(dtype=float), rtol=1e-6
    )
    largest = runs.reduce(lambda ds: ds.gmd_milliJoulesPerPulse.max("time"), "gmd", merge=np.maximum)
    assert largest == field_values(runs, "gmd.milliJoulesPerPulse").max()


def test_what_cannot_be_put_together(runs):
    with pytest.raises(ValueError, match="weights= belongs to one run"):
        runs.mean("gmd.milliJoulesPerPulse", weights="gmd.milliJoulesPerPulse")
    with pytest.raises(ValueError, match="without bins"):
        runs.reduce(lambda ds: ds.gmd_milliJoulesPerPulse.sum("time"), "gmd", by="step")
    with pytest.raises(ValueError, match="no statistic 'median'"):
        runs.reduce(["mean", "median"], "gmd")

"""What a function makes of each frame, reduced: numpy's answer, the same bits however it is done."""

import dask
import numpy as np
import pytest

from psana_dask.analysis import PerFrame
from psana_dask.errors import FunctionError, NameNotFound
from psana_dask.reductions import Histogram, derived, statistics


def rows_of(frames):
    return np.nanmean(frames.astype(np.float64), axis=(1, 3)) * np.pi  # float sums that depend on their order


ROWS = PerFrame(
    "jf.calib", "rows", rows_of, {"row": 8}, coords={"row": np.arange(8) * 0.5}
)
WHOLE = PerFrame("cam.raw", "bright", lambda frames: frames > 1010, dtype=np.uint8)
SCALED = PerFrame(
    "cam.raw", "scaled", lambda frames, light: frames.sum(axis=(1, 2, 3)) / light,
    {}, along=("gmd.milliJoulesPerPulse",),
)  # fmt: skip


@pytest.fixture(scope="module")
def rows(run):
    return rows_of(run.jf.calib.values)


def test_statistics_are_those_of_numpy(run, rows):
    found = run.reduce(["mean", "std", "min", "max", "count"], ROWS)
    for name, reduced in {"mean": np.mean, "std": np.std, "min": np.min, "max": np.max}.items():
        # another order of float64 sums
        np.testing.assert_allclose(found[f"jf_rows_{name}"], reduced(rows, axis=0), rtol=1e-11)
    assert (found.jf_rows_count == 300).all()
    assert np.array_equal(found.row, np.arange(8) * 0.5)
    assert found.jf_rows_mean.attrs["made_of"] == "jf.calib"


def test_bins_weights_masks_and_histograms(run, rows):
    by_step = run.mean(ROWS, by="step")
    step = run.events.step.values
    for k in range(3):
        np.testing.assert_allclose(by_step[k], rows[step == k].mean(axis=0), rtol=1e-11)
    light = run.gmd.milliJoulesPerPulse.values
    there = run.gmd.present.values
    found = run.mean(ROWS, weights="gmd.milliJoulesPerPulse", mask=run.evr.has(90))
    chosen = run.evr[90].values & there
    expected = np.average(rows[chosen], axis=0, weights=light[chosen].astype(float))
    np.testing.assert_allclose(found, expected, rtol=1e-11)
    counts = run.reduce(Histogram([0, 50, 500, 5000]), ROWS)
    for k in range(8):
        assert np.array_equal(counts[:, k], np.histogram(rows[:, k], [0, 50, 500, 5000])[0])


@pytest.mark.parametrize("size", [1, 1 << 30])
@pytest.mark.parametrize("large", [1, 1 << 30])
def test_however_it_is_done_the_bits_are_the_same(run, monkeypatch, size, large):
    whole = {made: run.reduce(["mean", "std"], made, by="step") for made in (ROWS, WHOLE, SCALED)}
    for name in ("TOGETHER_BYTES", "RESULT_BYTES", "TILE_BYTES"):
        monkeypatch.setattr(derived, name, size)
    for module in (derived, statistics):
        monkeypatch.setattr(module, "LARGE_BYTES", large)
    with dask.config.set(scheduler="synchronous"):
        for made, expected in whole.items():
            assert run.reduce(["mean", "std"], made, by="step").identical(expected)


def test_frames_stay_frames_and_missing_panels_are_left_out(run):
    raw = run.cam.raw.values
    there = run.cam.present.values
    found = run.sum(WHOLE)
    assert found.dims == ("panel", "row", "col")
    assert np.array_equal(found, (raw[there] > 1010).sum(axis=0))  # a missing panel of raw words is 0
    assert found.cam_events == there.sum() == 297


def test_scalars_go_along(run):
    light = np.where(run.gmd.present, run.gmd.milliJoulesPerPulse, np.nan).astype(float)
    raw = run.cam.raw.values.sum(axis=(1, 2, 3))
    there = run.cam.present.values & np.isfinite(light)
    found = run.reduce(["mean", "count"], SCALED)
    np.testing.assert_allclose(found.cam_scaled_mean, (raw / light)[there].mean(), rtol=1e-12)
    assert found.cam_scaled_count == there.sum()


def test_map_loop_and_smalldata_take_it(run, rows, tmp_path):
    lazy = run.map(ROWS)
    assert lazy.dims == ("time", "row")
    np.testing.assert_allclose(lazy.values, rows, rtol=1e-12)
    for event in run.isel(slice(5, 8)).loop(ROWS):
        np.testing.assert_allclose(event["jf.rows"], rows[event.position + 5], rtol=1e-12)
    table = run.smalldata(lambda event: {"rows": event["jf.rows"]}, tmp_path / "x.h5", names=[ROWS])
    np.testing.assert_allclose(table.rows, rows, rtol=1e-12)


def test_no_event_gives_nan(run):
    nothing = run.isel(slice(0, 0)).mean(ROWS)
    assert np.isnan(nothing).all()
    assert nothing.shape == (8,)


def test_what_cannot_be_is_refused(run):
    with pytest.raises(ValueError, match="name a field"):
        PerFrame("jf", "x", rows_of)
    with pytest.raises(NameNotFound, match="no detector 'jff'"):
        run.mean(PerFrame("jff.calib", "x", rows_of))
    with pytest.raises(NameNotFound, match="not one number per event"):
        run.mean(PerFrame("jf.calib", "x", rows_of, along=("cam.raw",)))
    with pytest.raises(
        FunctionError, match=r"rows made an array of shape \(\d+, 8\) of \d+ frames, not \(\d+, 9\)"
    ):
        run.mean(PerFrame("jf.calib", "rows", rows_of, {"row": 9}))

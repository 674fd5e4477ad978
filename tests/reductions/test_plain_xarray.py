"""Expressions of xarray give the same as the calls, and what the documents show works."""

import re
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

TEXT = (Path(__file__).parents[2] / "docs/reductions.md").read_text()


def test_a_mean_over_time(run):
    found = run.jf.raw.mean("time").compute()
    np.testing.assert_allclose(found, run.mean("jf.raw"), rtol=1e-12)  # float64 sums in another order
    masked = run.cam.raw.psana.masked().mean("time")
    np.testing.assert_allclose(masked, run.mean("cam.raw"), rtol=1e-5)  # float32 sums


def test_groups_by_flox(run):
    pytest.importorskip("flox")
    by_step = run.jf.raw.astype("f8").groupby("step").mean()
    np.testing.assert_allclose(by_step, run.mean("jf.raw", by="step"), rtol=1e-12)


def test_bad_pixels_are_left_out_on_demand(run, constants):
    bad = constants["pixel_status"].any(axis=0)
    choices = {"common_mode": None, "fill": np.nan}
    mean = run.mean("jf.calib", calibration=choices)
    np.testing.assert_array_equal(np.isnan(mean), bad)
    np.testing.assert_array_equal(run.count("jf.calib", calibration=choices), np.where(bad, 0, 300))
    assert (run.mean("jf.calib", calibration={"common_mode": None}).values[bad] == 0).all()


def blocks():
    return re.findall(r"```python\n(.*?)```", TEXT, re.S)


def test_the_functions_in_the_documents_work(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = [b for b in blocks() if "def " in b]
    assert len(code) == 2
    names = {"run": run, "xr": xr, "np": np}
    names["positions"] = lambda frame: np.argwhere(frame > frame.mean())[:, 0]
    for block in code:
        exec(block.replace("jungfrau", "jf"), names)
    hits = run.reduce(names["hits"], "jf.calib", merge=names["merge"], by="step")
    frames = run.jf.calib
    assert float(hits.brightest.max()) == float(frames.max())
    np.testing.assert_array_equal(names["bright"], (frames > 8).sum(("panel", "row", "col")))
    assert Path("small.h5").exists()


def test_the_statistics_in_the_documents_work(run):
    code = blocks()[0].replace("cspad", "jf").replace(".plot()", "")
    code = code.replace(".image", ".calib").replace("_image", "_calib")
    names = {"run": run, "np": np}
    exec(code.replace("(y, x) ", ""), names)
    assert names["cube"].jf_calib_mean.dims == ("delay", "panel", "row", "col")
    assert names["laser"].dims == ("panel", "row", "col")

"""An export opens as the run that it was made from: the same calls, the same values."""

import os
import pickle
import subprocess
import sys

import hypothesis.strategies as st
import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings

import psana_dask
from psana_dask.errors import ReadError, RunNotFound, UnknownFormat
from psana_dask.export import export
from psana_dask.simulate import demo_run


@pytest.fixture(scope="module")
def xtc_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("xtc")
    demo_run(folder, 24, format="xtc")
    return psana_dask.open_run(folder)


@pytest.fixture(scope="module", params=[".zarr", ".h5"])
def rich_pair(request, rich_run, tmp_path_factory):
    path = tmp_path_factory.mktemp("rich") / f"rich{request.param}"
    return rich_run, psana_dask.open_run(export(rich_run, path))


def check_same_run(run, found):
    assert (found.experiment, found.number, len(found)) == (run.experiment, run.number, len(run))
    assert list(found.detectors) == [n for n, d in run.detectors.items() if len(d.dataset(None).data_vars)]
    for name in found.detectors:
        check_same_detector(run[name], found[name])
    xr.testing.assert_identical(run.events.load(), found.events.load())
    xr.testing.assert_identical(run.scan, found.scan)
    xr.testing.assert_identical(run.epics.at(), found.epics.at())
    for name in run.epics:
        xr.testing.assert_identical(run.epics[name], found.epics[name])
    assert [tuple(p) for p in found.problems.values.tolist()] == [
        tuple(p) for p in run.problems.values.tolist()
    ]


def check_same_detector(one, other):
    expected, found = one.dataset(None).load(), other.dataset(None).load()
    xr.testing.assert_identical(expected, found)
    for name, variable in expected.variables.items():
        assert found[name].dtype == variable.dtype, name
    assert one.fields == other.fields or set(other.fields) < set(one.fields)
    assert one.config.segments == other.config.segments


def test_everything_is_there(rich_pair):
    check_same_run(*rich_pair)


def test_an_lcls_1_run_comes_back(xtc_run, tmp_path):
    found = psana_dask.open_run(export(xtc_run, tmp_path / "one.zarr"))
    check_same_run(xtc_run, found)
    np.testing.assert_array_equal(xtc_run.evr.codes, found.evr.codes)
    key = (int(xtc_run.events.timestamp[5] >> 32), int(xtc_run.events.timestamp[5] & 0xFFFFFFFF))
    xr.testing.assert_identical(xtc_run.event(key).drop_attrs(), found.event(key).drop_attrs())


def test_reductions_and_selections_work(rich_pair):
    run, found = rich_pair
    for names in ("epix.raw", "gmd.milliJoulesPerPulse"):
        xr.testing.assert_equal(run.mean(names), found.mean(names))
    mask = np.arange(len(run)) % 3 == 1
    xr.testing.assert_identical(run.select(mask)["jf"].raw.load(), found.select(mask)["jf"].raw.load())
    xr.testing.assert_identical(
        run.sel(run.start, method="nearest").dataset(["jf"]).load().drop_attrs(),
        found.sel(run.start, method="nearest").dataset(["jf"]).load().drop_attrs(),
    )
    np.testing.assert_array_equal(run.evr.codes, found.evr.codes)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_chunking_and_selection(rich_pair, data):
    run, found = rich_pair
    rows = data.draw(st.lists(st.integers(0, len(run) - 1), min_size=1, max_size=12))
    chunk = data.draw(st.sampled_from([1, 3, 7, 40]))
    fields = [("epix", "raw"), ("hsd", "chan00"), ("hsd", "after"), ("tt", "raw"), ("types", "v_i8")]
    field = data.draw(st.sampled_from(fields))
    expected = run.isel(rows)[field[0]].field(field[1], chunks=None).load()
    chunks = {"time": chunk}
    xr.testing.assert_equal(expected, found.isel(rows)[field[0]].field(field[1], chunks=chunks).load())


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_frames_are_calibrated_from_the_constants_inside(tmp_path, suffix):
    demo_run(tmp_path / "data", 12)
    pedestals = np.random.default_rng(0).normal(90, 5, (7, 4, 352, 384)).astype(np.float32)
    run = psana_dask.open_run(tmp_path / "data", calib={"pedestals": pedestals})
    path = export(run, tmp_path / f"raw{suffix}", ["epixquad.raw"], bundle=True)
    for file in run.files:
        os.truncate(file, 0)
    bare = psana_dask.open_run(path)
    names = ["epixquad.calib", "epixquad.image"]
    calibrated = psana_dask.open_run(export(bare, tmp_path / f"made{suffix}", names))
    for name in ("calib", "image"):
        one, other = getattr(bare.epixquad, name).load(), getattr(calibrated.epixquad, name).load()
        extra = set(other.coords) - set(one.coords)  # an export has presence everywhere
        xr.testing.assert_equal(one, other.drop_vars(extra))
        assert extra <= {"epixquad_present", "epixquad_panel_present"}
    assert calibrated.epixquad.image.attrs["calibrated"]
    assert "export" in bare.epixquad.explain_constants()
    np.testing.assert_array_equal(np.squeeze(bare.epixquad.pedestals), pedestals)


def test_it_survives_pickling_to_another_process(rich_pair, tmp_path):
    _, found = rich_pair
    (tmp_path / "run").write_bytes(pickle.dumps((found, found["jf"].raw)))
    script = (
        "import pickle, sys; run, raw = pickle.load(open(sys.argv[1], 'rb')); "
        "print(len(run), int(raw.sum()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "run")], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(len(found)), str(int(found["jf"].raw.sum()))]


def test_what_is_no_export_is_said(tmp_path):
    with pytest.raises(RunNotFound, match=r"absent\.zarr"):
        psana_dask.open_run(tmp_path / "absent.zarr")
    (tmp_path / "text.h5").write_text("no HDF5")
    with pytest.raises(UnknownFormat, match="neither"):
        psana_dask.open_run(tmp_path / "text.h5")
    xr.Dataset({"a": 1}).to_netcdf(tmp_path / "other.nc", engine="h5netcdf")
    with pytest.raises(UnknownFormat, match="no export"):
        psana_dask.open_run(tmp_path / "other.nc")


def test_a_damaged_export_is_said(rich_run, tmp_path):
    path = export(rich_run, tmp_path / "bad.zarr", "gmd")
    for file in (path / "events" / "timestamp").rglob("*"):
        if file.is_file() and file.name == "zarr.json":
            file.unlink()
    with pytest.raises(ReadError, match="timestamp"):
        psana_dask.open_run(path)

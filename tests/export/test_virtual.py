"""References to frames in XTC files open with xarray, zarr and fsspec, where this package is not."""

import json
import os
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest
import xarray as xr

import psana_dask
from psana_dask import simulate
from psana_dask.errors import ExportError
from psana_dask.export import virtual
from psana_dask.simulate import Detector, Missing, RunSpec, demo_run

pytest.importorskip("fastparquet", reason="fsspec reads Parquet references with fastparquet")

READER = """
import pickle, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "psana_dask":
            raise ImportError("this reader does not have psana_dask")
sys.meta_path.insert(0, Blocked())
import xarray
jobs, out = pickle.load(open(sys.argv[1], "rb")), []
for path in jobs:
    options = {"fo": path, "remote_protocol": "file"}
    backend = {"storage_options": options, "consolidated": False}
    found = xarray.open_dataset("reference://", engine="zarr", backend_kwargs=backend).load()
    form = {n: (v.dims, v.dtype.str, v.values, v.attrs) for n, v in found.variables.items()}
    out.append((form, found.attrs))
assert "psana_dask" not in sys.modules
sys.stdout.buffer.write(pickle.dumps(out))
"""


def read_elsewhere(tmp_path, *paths):
    """Return variables and attributes of reference sets, as a process without this package reads them."""
    (tmp_path / "jobs").write_bytes(pickle.dumps([str(p) for p in paths]))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", READER, str(tmp_path / "jobs")],
        stdout=subprocess.PIPE,
        check=True,
    )
    return pickle.loads(done.stdout)


def whole(run, names=None):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return run.dataset(names, join="outer", chunks=None).load()


def check_equal(expected, found, left_out):
    """Compare every variable; return how many values there are in virtual ones."""
    variables, attrs = found
    assert json.loads(attrs["left_out"]) == left_out
    gone = set(left_out) | {f"{name}_count" for name in left_out}
    assert set(variables) == {str(n) for n in expected.variables} - gone
    for name, (dims, dtype, values, kept) in variables.items():
        variable = expected[name]
        assert (dims, len(values)) == (variable.dims, len(variable)), name
        assert np.dtype(dtype) == variable.dtype or variable.dtype.kind == "U", name
        np.testing.assert_array_equal(values, variable.values, err_msg=name)
        for key in variable.attrs:
            np.testing.assert_array_equal(kept[key], variable.attrs[key], err_msg=f"{name}.{key}")
    return sum(v[2].size for v in variables.values())


@pytest.mark.parametrize("suffix", ["parq", "json"])
def test_a_run_with_everything(rich_run, tmp_path, suffix):
    path = tmp_path / f"rich.{suffix}"
    left_out = rich_run.to_virtual_zarr(path)
    (found,) = read_elsewhere(tmp_path, path)
    check_equal(whole(rich_run), found, left_out)
    assert left_out
    assert all("ragged" in why for why in left_out.values())
    assert {"epix_present", "epix_panel_present", "jf_panel_present"} <= set(found[0])
    absent = int((~rich_run.epix.dataset(None).panel_present).sum())
    assert json.loads(found[1]["missing_chunks"])["epix_raw"] == absent


def test_an_lcls_1_run(tmp_path):
    demo_run(tmp_path / "data", 12, format="xtc")
    run = psana_dask.open_run(tmp_path / "data")
    left_out = run.to_virtual_zarr(tmp_path / "one.parq")
    (found,) = read_elsewhere(tmp_path, tmp_path / "one.parq")
    check_equal(whole(run), found, left_out)


def test_nothing_is_copied_and_only_what_is_chosen_is_there(tmp_path):
    cameras = (
        Detector(name="cam", kind="camera", shape=(64, 64)),
        Detector(name="slow", kind="camera", stream=1, shape=(32, 64), every=10),
    )
    spec = RunSpec(events=200, detectors=cameras, missing=(Missing(events=(3, 4), detector="cam"),))
    run = psana_dask.open_run(simulate.write(spec, tmp_path / "data").folder)
    run.select(np.arange(200) % 2 == 1).to_virtual_zarr(tmp_path / "odd.parq", "cam")
    size = sum(f.stat().st_size for f in (tmp_path / "odd.parq").rglob("*") if f.is_file())
    assert size < 100_000 < 100 * 64 * 64 * 2
    (found,) = read_elsewhere(tmp_path, tmp_path / "odd.parq")
    variables = found[0]
    assert "slow_raw" not in variables
    expected = run.isel(slice(1, None, 2)).dataset("cam", chunks=None)
    assert len(variables["time"][2]) == 99  # event 3 has no frame
    np.testing.assert_array_equal(variables["cam_raw"][2], expected.cam_raw.values)
    run.to_virtual_zarr(tmp_path / "all.parq")
    (found,) = read_elsewhere(tmp_path, tmp_path / "all.parq")
    check_equal(whole(run), found, {})


def test_what_is_there_is_replaced_only_when_asked(rich_run, tmp_path):
    path = tmp_path / "a.parq"
    rich_run.to_virtual_zarr(path, "gmd")
    with pytest.raises(ExportError, match="overwrite"):
        rich_run.to_virtual_zarr(path)
    rich_run.to_virtual_zarr(path, "jf", overwrite=True)
    assert (path / "jf_raw").exists()
    assert not (path / "gmd_milliJoulesPerPulse").exists()
    with pytest.raises(ExportError, match="cannot write"):
        rich_run.to_virtual_zarr(tmp_path / "absent" / "a.parq", "gmd")
    assert os.listdir(tmp_path) == ["a.parq"]
    with pytest.raises(ExportError, match="already"):
        psana_dask.open_run(rich_run.export(tmp_path / "b.zarr", "gmd")).to_virtual_zarr(tmp_path / "c.parq")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:The 'fastparquet' engine")
def test_many_references_are_in_several_files(tmp_path, monkeypatch):
    monkeypatch.setattr(virtual, "RECORD", 1000)
    spec = RunSpec(events=3210, detectors=(Detector(name="cam", kind="camera", shape=(8, 9)),))
    run = psana_dask.open_run(simulate.write(spec, tmp_path / "data").folder)
    run.to_virtual_zarr(tmp_path / "many.parq", "cam")
    assert len(list((tmp_path / "many.parq" / "cam_raw").iterdir())) == 4
    backend = {"storage_options": {"fo": str(tmp_path / "many.parq")}, "consolidated": False}
    found = xr.open_dataset("reference://", engine="zarr", backend_kwargs=backend)
    for event in (0, 999, 1000, 3209):
        expected = run.isel(event).cam.field("raw", chunks=None).values[0]
        np.testing.assert_array_equal(found.cam_raw[event].values, expected)

"""Runs as entries of an intake catalogue."""

import importlib
import importlib.util
import subprocess
import sys

import pytest
import xarray as xr

import psana_dask
from psana_dask import simulate
from psana_dask.errors import MissingLibrary
from psana_dask.simulate import Detector, RunSpec


def test_without_intake_the_module_is_there_and_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "intake.source.base", None)
    monkeypatch.delitem(sys.modules, "psana_dask.interop.intake_source", raising=False)
    module = importlib.import_module("psana_dask.interop.intake_source")
    with pytest.raises(MissingLibrary, match="pip install intake"):
        module.PsanaSource("exp=tstx00117:run=1")
    monkeypatch.delitem(sys.modules, "psana_dask.interop.intake_source")


CODE = """
import sys, warnings
warnings.simplefilter("ignore")
import intake
catalogue = intake.open_catalog(sys.argv[1])
source = catalogue["run3"]
data = source.to_dask()
assert data.gmd_milliJoulesPerPulse.chunks, data
assert source.discover()["metadata"]["dims"]["time"] == 9
assert hasattr(intake, "open_psana")
source.read().to_netcdf(sys.argv[2], engine="h5netcdf")
"""


@pytest.mark.skipif(importlib.util.find_spec("intake") is None, reason="no intake: pip install intake")
def test_an_entry_of_a_catalogue(tmp_path):
    detectors = (Detector(name="gmd", kind="gmd"), Detector(name="cam", kind="camera", shape=(4, 5)))
    simulate.write(RunSpec(events=9, number=3, detectors=detectors), tmp_path / "xtc")
    (tmp_path / "catalogue.yaml").write_text(
        "sources:\n  run3:\n    driver: psana\n"
        f"    args: {{source: 'exp=tstx00117:run=3:dir={tmp_path / 'xtc'}', names: [gmd, cam.raw]}}\n"
    )
    # in a process of its own: intake changes settings of fsspec and of warnings
    call = [sys.executable, "-c", CODE, str(tmp_path / "catalogue.yaml"), str(tmp_path / "out.nc")]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    known = psana_dask.open(tmp_path / "xtc").dataset(["gmd", "cam.raw"], chunks=None).load()
    with xr.open_dataset(tmp_path / "out.nc", engine="h5netcdf") as found:
        for name in known.data_vars:
            xr.testing.assert_equal(found[name].variable, known[name].variable)

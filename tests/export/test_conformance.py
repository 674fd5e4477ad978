"""The facility's files come back from every kind of export: each value, type, attribute, gap, in order."""

import os
import warnings
from pathlib import Path

import fsspec
import numpy as np
import pytest
import xarray as xr

import psana_dask
from psana_dask.errors import ExportError
from psana_dask.export import export, export_original

DATA = Path(os.environ.get("PSANA_DASK_CONFORMANCE", Path(__file__).parents[3] / "shared/data"))
RUNS = [
    *(f"xtc2/{name}" for name in ("test_epix_calib.xtc2", "test_hsd.xtc2", "test_timetool.xtc2")),
    *(f"xtc1/{name}-s*.xtc" for name in ("cxitst17-r0002", "e999-r0001", "e999-r0003", "e999-r0004")),
    *(f"xtc1/{name}-s*.xtc" for name in ("e999-r0005", "e999-r0006", "e999-r0100")),
]
pytestmark = [
    pytest.mark.skipif(not DATA.is_dir(), reason=f"no conformance data at {DATA}"),
    pytest.mark.filterwarnings("ignore::psana_dask.errors.PsanaWarning"),
]


def opened(source):
    return psana_dask.open_run(str(DATA / source), cache=False)


def compare(one, other):
    """Return how many values two Datasets share; everything has to be equal."""
    xr.testing.assert_identical(one, other)
    for name, variable in one.variables.items():
        assert other[name].dtype == variable.dtype, name
    return sum(v.size for v in one.variables.values())


def presence(run, name, field):
    """Return which parts of a field each event has; None where no event has any."""
    channel = run._view.entries[name].channels[field]
    there = run._view.exists(channel)
    return run._view.target(channel).reader().present(np.arange(len(run))) if there else None


def ways():
    """Yield each run with each kind of file; 158 detectors once, and the other time with --full."""
    for source in RUNS:
        yield source, ".h5"
        yield pytest.param(source, ".zarr", marks=[pytest.mark.full] if "r0100" in source else [])


@pytest.mark.parametrize(("source", "suffix"), list(ways()))
def test_a_run_comes_back(source, suffix, tmp_path):
    run = opened(source)
    found = psana_dask.open_run(export(run, tmp_path / f"run{suffix}"))
    values = compare(run.events.load(), found.events.load()) + compare(run.scan, found.scan)
    values += compare(run.epics.at(), found.epics.at())
    for name in run.epics:
        xr.testing.assert_identical(run.epics[name], found.epics[name])
    assert list(found.detectors) == list(run.detectors)
    for name in found.detectors:
        values += compare(run[name].dataset(None).load(), found[name].dataset(None).load())
        for field in found[name].fields:
            np.testing.assert_array_equal(presence(run, name, field), presence(found, name, field))
        assert found[name].config.segments == run[name].config.segments
    assert found.problems.equals(run.problems)
    print(f"{source}: {values} values, {len(found.detectors)} detectors, {len(list(run.epics))} PVs")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:The 'fastparquet' engine")
@pytest.mark.parametrize("source", RUNS)
def test_frames_are_where_references_say(source, tmp_path):
    pytest.importorskip("fastparquet", reason="fsspec reads Parquet references with fastparquet")
    run = opened(source)
    left_out = run.to_virtual_zarr(tmp_path / "run.parq")
    backend = {"storage_options": {"fo": str(tmp_path / "run.parq")}, "consolidated": False}
    fsspec.filesystem("reference", fo=str(tmp_path / "run.parq")).clear_instance_cache()
    found = xr.open_dataset("reference://", engine="zarr", backend_kwargs=backend).load()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = run.dataset(chunks=None).load()
    gone = {n for n in expected.variables if {n, str(n).removesuffix("_count")} & set(left_out)}
    assert set(found.variables) == set(expected.variables) - gone
    for name, variable in found.variables.items():
        assert variable.dtype == expected[name].dtype or variable.dtype.kind == "O", name
        np.testing.assert_array_equal(variable.values, expected[name].values, err_msg=str(name))
    values = sum(v.size for v in found.variables.values())
    print(f"{source}: {values} values, {len(left_out)} variables left out: {sorted(set(left_out.values()))}")


@pytest.mark.parametrize("source", [s for s in RUNS if "r0006" not in s])
def test_an_excerpt_has_the_same_events(source, tmp_path):
    run = opened(source)
    chosen = run.isel(slice(1, None, 3))
    export_original(chosen, tmp_path / f"small.{run.format}")
    found = psana_dask.open_run(tmp_path / f"small.{run.format}", cache=False)
    keys = [n for n in ("timestamp", "fiducial") if n in chosen.events.coords]
    for key in keys:  # times of equal clocks are told apart by the events that are there
        np.testing.assert_array_equal(found.events[key].values, chosen.events[key].values)
    xr.testing.assert_equal(found.epics.at().drop_vars("time"), chosen.epics.at().drop_vars("time"))
    values = 0
    for name, detector in found.detectors.items():
        if not chosen[name].presence:
            continue
        one, other = chosen[name].dataset(None).load(), detector.dataset(None).load()
        shared = [n for n in one.data_vars if n in other and one[n].dims == other[n].dims]
        values += compare(
            one[shared].drop_vars("time").drop_attrs(), other[shared].drop_vars("time").drop_attrs()
        )
    print(f"{source}: {len(found)} of {len(run)} events, {values} values")


def test_an_export_is_no_raw_file(tmp_path):
    run = psana_dask.open_run(export(opened(RUNS[1]), tmp_path / "a.zarr"))
    with pytest.raises(ExportError, match="already"):
        run.to_virtual_zarr(tmp_path / "b.parq")

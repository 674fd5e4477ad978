"""Chosen events in their own format are a run with the same values."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import psana_dask
from psana_dask.errors import ExportError
from psana_dask.export.original import export_original
from psana_dask.simulate import demo_run


@pytest.mark.parametrize("form", ["xtc2", "xtc"])
def test_a_selection_in_the_format_of_the_run(tmp_path, form):
    demo_run(tmp_path / "whole", 24, **({"format": "xtc"} if form == "xtc" else {}))
    run = psana_dask.open_run(tmp_path / "whole")
    chosen = run.isel([2, 3, 11, 17, 20])
    files = export_original(chosen, tmp_path / f"small.{form}")
    assert sum(f.stat().st_size for f in files) < 0.5 * sum(Path(f).stat().st_size for f in run.files)
    small = psana_dask.open_run(tmp_path / f"small.{form}")
    assert small.problems.empty
    assert len(small) == 5
    assert (small.experiment, small.number, small.format) == (run.experiment, run.number, form)
    check_same(chosen, small)
    np.testing.assert_array_equal(small.events.step.values, chosen.events.step.values)


def check_same(expected, found):
    assert set(found.detectors) == set(expected.detectors)
    for name in found.detectors:
        one, other = expected[name].dataset(None).load(), found[name].dataset(None).load()
        if not expected[name].presence:
            assert not len(other.data_vars) or not found[name].presence
            continue
        xr.testing.assert_equal(one[sorted(other.data_vars)], other)
    xr.testing.assert_equal(expected.epics.at(), found.epics.at())


def test_damage_missing_pieces_and_parts(rich_run, tmp_path):
    chosen = rich_run.isel(slice(2, 30, 3))
    files = export_original(chosen, tmp_path / "rich.xtc2")
    assert [f.name for f in files] == [Path(f).name for f in rich_run.files]
    check_same(chosen, psana_dask.open_run(tmp_path / "rich.xtc2"))


def test_one_stream_is_one_file(rich_run, tmp_path):
    (path,) = export_original(rich_run, tmp_path / "one.xtc2", streams=[3])
    assert path == tmp_path / "one.xtc2"
    assert "hsd" in psana_dask.open_run(path).detectors


def test_mistakes_leave_nothing(rich_run, tmp_path):
    with pytest.raises(ExportError, match="xtc2"):
        export_original(rich_run, tmp_path / "a.xtc")
    with pytest.raises(ExportError, match="streams"):
        export_original(rich_run, tmp_path / "a.xtc2", streams=[77])
    with pytest.raises(ExportError, match="cannot write"):
        export_original(rich_run, tmp_path / "absent" / "a.xtc2")
    assert not list(tmp_path.iterdir())
    export_original(rich_run, tmp_path / "a.xtc2", streams=[3])
    with pytest.raises(ExportError, match="already"):
        export_original(rich_run, tmp_path / "a.xtc2", streams=[3])

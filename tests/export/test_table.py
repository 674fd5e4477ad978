"""Scalars as one Parquet file."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from psana_dask.errors import ExportError, NameNotFound
from psana_dask.export import table_file


@pytest.mark.parametrize("compression", ["lz4", "zstd", None])
def test_a_table_is_what_the_dataframe_is(rich_run, tmp_path, compression):
    path = rich_run.export(tmp_path / "all.parquet", compression=compression)
    pd.testing.assert_frame_equal(pd.read_parquet(path), rich_run.dataframe(epics=True).compute())


def test_chosen_fields_own_columns_and_several_partitions(rich_run, tmp_path, monkeypatch):
    monkeypatch.setattr(table_file, "ROWS", 7)
    own = xr.Dataset({"hit": ("time", np.arange(5) * 0.5)}, {"time": rich_run.events.time.values[:5]})
    rich_run.export(tmp_path / "few.parquet", ["gmd.milliJoulesPerPulse"], own=own)
    found = pd.read_parquet(tmp_path / "few.parquet")
    expected = rich_run.dataframe(["gmd.milliJoulesPerPulse"]).compute()
    pd.testing.assert_frame_equal(found.drop(columns="hit"), expected)
    hits = own.hit.to_series().reindex(found.index)
    pd.testing.assert_series_equal(found.hit, hits, check_names=False, check_freq=False)


def test_what_is_no_table_is_refused(rich_run, tmp_path):
    path = tmp_path / "a.parquet"
    with pytest.raises(ExportError, match="neither regions"):
        rich_run.export(path, "gmd", roi={"gmd": {"time": slice(2)}})
    with pytest.raises(NameNotFound, match="no scalars"):
        rich_run.export(path, "jf.raw")
    assert not list(tmp_path.iterdir())
    rich_run.export(path, "gmd")
    with pytest.raises(ExportError, match="overwrite"):
        rich_run.export(path, "gmd")
    rich_run.export(path, "timing", overwrite=True)
    assert "gmd_present" not in pd.read_parquet(path)

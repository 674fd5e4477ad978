"""Per-event results in one file: the same in every format, sorted by time."""

import h5py
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from psana_dask.errors import FunctionError
from psana_dask.reductions import smalldata


def small(event):
    if event["cam.raw"] is None:
        return None
    row = {
        "sum": event["cam.raw"].sum(),
        "energy": event["gmd.milliJoulesPerPulse"],
        "peaks": np.arange(event.position % 4) * 1.5,
        "name": f"event {event.position}",
        "corner": event["cam.raw"][0, :2, :3],
        "big": event.position > 100,
    }
    if event.step == 1:
        row |= {"only": 7, "half": 0.5}
    return row


@pytest.fixture(scope="module")
def expected(run):
    there = run.cam.present.values
    return there, run.cam.raw.sum(("panel", "row", "col")).values[there]


@pytest.mark.parametrize("ending", ["h5", "parquet", "zarr"])
@pytest.mark.parametrize("every", [None, 100])
def test_tables(run, expected, tmp_path, monkeypatch, ending, every):
    monkeypatch.setattr(smalldata, "EVENTS", 64)
    there, sums = expected
    path = tmp_path / "folder" / f"small.{ending}"
    shuffled = run.isel(np.random.default_rng(0).permutation(300)) if every is None else run
    table = shuffled.smalldata(small, path, every)
    np.testing.assert_array_equal(table.time, run.events.time[there])
    np.testing.assert_array_equal(table["sum"], sums)
    np.testing.assert_array_equal(table.peaks_count, np.flatnonzero(there) % 4)
    assert table.name.values[3] == "event 3"
    assert table.corner.shape == (297, 2, 3)
    np.testing.assert_array_equal(table.only_present, table.step == 1)
    assert "half_present" not in table
    np.testing.assert_array_equal(np.isnan(table.half), table.step != 1)
    check = {"h5": in_hdf5, "parquet": in_parquet, "zarr": in_zarr}[ending]
    check(path, table)
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # nothing is left beside it


def in_hdf5(path, table):
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["sum"], table["sum"])
        np.testing.assert_array_equal(file["peaks"], table.peaks)
        assert file["name"].asstr()[5] == table.name.values[5]
        np.testing.assert_array_equal(file["time"][:].astype("M8[ns]"), table.time)
        assert file["corner"].dims[0].label == "time"


def in_parquet(path, table):
    frame = pd.read_parquet(path)
    np.testing.assert_array_equal(frame["sum"], table["sum"])
    assert [len(p) for p in frame.peaks] == table.peaks_count.values.tolist()
    np.testing.assert_array_equal(np.concatenate(frame.peaks), table.peaks)
    assert frame.name[5] == table.name.values[5]
    np.testing.assert_array_equal(frame.time, table.time)


def in_zarr(path, table):
    with xr.open_zarr(path) as stored:
        assert stored.load().equals(table)


def test_the_file_is_replaced_whole(run, tmp_path):
    path = tmp_path / "x.h5"
    path.write_text("before")
    bad = run.events.time.values[222]

    def late(event):
        if event.time == bad:
            raise RuntimeError("late")
        return {"t": 1}

    where = r"late failed at event 2024-06-14T.* in .*xtc2: RuntimeError: late"
    with pytest.raises(FunctionError, match=where):
        run.smalldata(late, path)
    assert path.read_text() == "before"
    with pytest.raises(FunctionError, match=where):
        run.smalldata(late, path, every=100)
    with h5py.File(path) as file:
        assert len(file["t"]) == 200


def test_no_events_and_nothing_to_write(run, tmp_path):
    table = run.smalldata(lambda event: None, tmp_path / "none.h5")
    assert table.sizes["time"] == 0
    assert run.isel([]).smalldata(small, tmp_path / "none.h5").sizes["time"] == 0


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda event: {"x": "a" if event.position % 2 else 1}, "x is text in some events and a number"),
        (lambda event: {"x": object()}, "a object: numbers, text and arrays"),
        (lambda event: {"x": np.zeros((event.position % 3, event.position % 2 + 1))}, "varies in more than"),
    ],
)
def test_values_that_cannot_be_written(run, tmp_path, function, message):
    with pytest.raises(FunctionError, match=message):
        run.isel(slice(0, 12)).smalldata(function, tmp_path / "x.h5")
    with pytest.raises(ValueError, match="the path ends with one of"):
        run.smalldata(function, tmp_path / "x.txt")

"""Small data that psana, psana2, smalldata_tools and this package write open as runs."""

import h5py
import numpy as np
import pytest

import psana_dask
from psana_dask.errors import PartialRunWarning, ReadError, UnknownFormat
from psana_dask.simulate import demo_run

SECONDS = np.datetime64("2014-06-14T06:12:03", "s").astype(np.int64)
EPOCH_1990 = 631_152_000
RNG = np.random.default_rng(3)


def words(count, epoch=0, step=8_333_333):
    """Key words of events at 120 Hz."""
    time = SECONDS * 10**9 + np.arange(count) * step
    return ((time // 10**9 - epoch) << 32 | time % 10**9).astype(np.uint64), time.view("M8[ns]")


@pytest.fixture
def psana_file(tmp_path):
    """What MPIDataSource.small_data writes: batches out of order, -99999 and NaN for what is missing."""
    order = np.r_[20:30, 0:10, 10:20]
    keys, time = words(30)
    truth = {
        "intensity": RNG.normal(size=30),
        "hits": np.where(np.arange(30) % 4 == 0, -99999, np.arange(30) * 7),
        "roi": np.where((np.arange(30) % 5 == 0)[:, None], np.nan, RNG.normal(size=(30, 6))),
        "counts": RNG.integers(0, 4, 30),
        "code_90": (np.arange(30) % 2).astype(np.int64),
    }
    items = [RNG.normal(size=n) for n in truth["counts"]]
    with h5py.File(tmp_path / "xpptut15_Run0054.h5", "w") as file:
        file["event_time"], file["fiducials"] = keys[order], (np.arange(30) * 3)[order]
        file["intensity"] = truth["intensity"][order]
        file["cspad/hits"] = truth["hits"][order]
        file["cspad/roi/sum"] = truth["roi"][order]
        file["evr/code_90"], file["evr/code_162"] = truth["code_90"][order], np.zeros(30, np.int64)
        file["peaks/var_e"] = np.concatenate([items[k] for k in order])
        file["peaks/var_e_len"] = truth["counts"][order]
        ragged = file.create_dataset("peaks/ragged_t", (30,), h5py.vlen_dtype(np.float32))
        for row, event in enumerate(order):
            ragged[row] = items[event].astype(np.float32)
        file["Sums/cspad"] = RNG.normal(size=(4, 5))
        file["UserDataCfg/cspad/ped"] = np.arange(12.0).reshape(3, 4)
        file["label"] = np.array([b"a", b"bc"])
    return tmp_path / "xpptut15_Run0054.h5", truth, time, items


def test_psana_small_data_is_a_run(psana_file):
    path, truth, time, items = psana_file
    run = psana_dask.open(path)
    assert (run.experiment, run.number, len(run)) == ("xpptut15", 54, 30)
    np.testing.assert_array_equal(run.events.time.values, time)
    np.testing.assert_array_equal(run.events.fiducial.values, np.arange(30) * 3)
    np.testing.assert_array_equal(run["values"].intensity.values, truth["intensity"])
    hits = run.cspad.hits
    assert hits.dtype == np.int64
    missing = truth["hits"] == -99999
    np.testing.assert_array_equal(hits.values, np.where(missing, 0, truth["hits"]))
    np.testing.assert_array_equal(hits.psana.masked().values, np.where(missing, np.nan, truth["hits"]))
    np.testing.assert_array_equal(run.cspad.roi_sum.values, truth["roi"])
    data = run.dataset("peaks.var_e", join="outer")
    assert data.psana.ragged("peaks_var_e")[7].tolist() == items[7].tolist()
    np.testing.assert_array_equal(data.peaks_var_e_count.values, truth["counts"])
    np.testing.assert_array_equal(data.peaks_var_e.values, np.concatenate(items))
    ragged = run.peaks.dataset(None)
    np.testing.assert_array_equal(ragged.ragged_t.values, np.concatenate(items).astype(np.float32))
    np.testing.assert_array_equal(run.evr[90].values, truth["code_90"] == 1)
    pedestals = run.config("UserDataCfg").segments[0].cspad.ped
    np.testing.assert_array_equal(pedestals, np.arange(12.0).reshape(3, 4))
    assert run.config("Sums").segments[0].cspad.shape == (4, 5)


def test_the_calls_of_a_run_work(psana_file, tmp_path):
    path, truth, time, _ = psana_file
    run = psana_dask.open(path)
    there = truth["hits"] != -99999
    assert run.mean("cspad.hits").item() == truth["hits"][there].mean()
    assert run.select(run.evr.has(90)).sum("values.intensity").item() == pytest.approx(
        truth["intensity"][1::2].sum(), rel=1e-12
    )
    np.testing.assert_array_equal(run.sel(time[5]).cspad.roi_sum.values[0], truth["roi"][5])
    frame = run.dataframe("cspad.hits").compute()
    assert len(frame) == there.sum()
    found = psana_dask.open(run.export(tmp_path / "again.zarr"))
    for name in run.detectors:
        one, other = run[name].dataset(None).load(), found[name].dataset(None).load()
        assert one.identical(other), name


def test_virtual_small_data_of_psana2(tmp_path):
    keys, time = words(40, EPOCH_1990)
    values = RNG.integers(0, 100, 40)
    for part, rows in enumerate((np.arange(0, 40, 2), np.arange(1, 40, 2))):
        with h5py.File(tmp_path / f"small_part{part}.h5", "w") as file:
            file["timestamp"], file["gmd/energy"] = keys[rows], values[rows]
    with h5py.File(tmp_path / "small.h5", "w") as file:
        for name, dtype in (("timestamp", np.uint64), ("gmd/energy", np.int64)):
            layout = h5py.VirtualLayout((40,), dtype)
            for part in (0, 1):
                layout[part * 20 : part * 20 + 20] = h5py.VirtualSource(f"small_part{part}.h5", name, (20,))
            file.create_virtual_dataset(name, layout)
    run = psana_dask.open(tmp_path / "small.h5")
    assert run.events.attrs["format"] == "xtc2"
    np.testing.assert_array_equal(run.events.time.values, time)
    np.testing.assert_array_equal(run.events.timestamp.values, keys)
    np.testing.assert_array_equal(run.gmd.energy.values, values)
    (tmp_path / "small_part1.h5").unlink()
    psana_dask.recording.forget_all()
    psana_dask.exported.open_store.cache_clear()
    with pytest.raises(ReadError, match=r"small_part1\.h5"):
        psana_dask.open(tmp_path / "small.h5")


def test_what_run_smalldata_writes_opens_again(tmp_path):
    demo_run(tmp_path / "data", 24)
    run = psana_dask.open(tmp_path / "data")

    def small(event):
        peaks = np.arange(event.position % 3, dtype=np.float64)
        odd = {"odd": event.position} if event.position % 2 else {}
        gmd, word = float(event.gmd.milliJoulesPerPulse), f"e{event.position}"
        return {"gmd": gmd, "peaks": peaks, "word": word, **odd}

    table = run.smalldata(small, tmp_path / "mine.h5")
    found = psana_dask.open(tmp_path / "mine.h5")
    assert (found.experiment, found.number) == (run.experiment, run.number)
    assert found.events.attrs["format"] == run.format
    np.testing.assert_array_equal(found.events.time.values, run.events.time.values)
    data = found["values"].dataset(None)
    np.testing.assert_array_equal(data.gmd.values, table.gmd.values)
    np.testing.assert_array_equal(data.peaks.values, table.peaks.values)
    np.testing.assert_array_equal(data.peaks_count.values, table.peaks_count.values)
    assert data.word.values.tolist() == [f"e{k}" for k in range(24)]
    assert found.mean("values.odd").item() == np.arange(1, 24, 2).mean()


def test_events_with_one_key_are_kept_and_told(tmp_path):
    keys, _ = words(5)
    keys[3] = keys[2]
    with h5py.File(tmp_path / "twice.h5", "w") as file:
        file["timestamp"], file["x/y"] = keys, np.arange(5.0)
    with pytest.warns(PartialRunWarning, match="1 events have the key"):
        run = psana_dask.open(tmp_path / "twice.h5")
    assert run.x.y.values.tolist() == [0, 1, 2, 3, 4]
    assert (np.diff(run.events.time.values).astype(np.int64) > 0).all()


def test_text_reserved_names_and_nothing_at_all(tmp_path):
    keys, _ = words(3)
    with h5py.File(tmp_path / "odd.h5", "w") as file:
        file["event_time"] = keys
        file["lightStatus/time"] = np.arange(3)
        file["lightStatus/9 lives"] = np.array([b"one", b"two", b"three"])
    run = psana_dask.open(tmp_path / "odd.h5")
    assert run.lightStatus.fields == ["d_9_lives", "time_"]
    assert run.lightStatus.field("d_9_lives").values.tolist() == ["one", "two", "three"]
    with h5py.File(tmp_path / "none.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(UnknownFormat, match="nor is it small data"):
        psana_dask.open(tmp_path / "none.h5")

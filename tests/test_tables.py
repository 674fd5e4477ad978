"""Scalars of a run as a dask DataFrame."""

import pickle

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest

import psana_dask
from psana_dask import simulate
from psana_dask.choice import Choice
from psana_dask.errors import NameNotFound
from psana_dask.simulate import Detector, RunSpec, Scan


def test_every_column_is_what_the_dataset_says(rich_run):
    table = rich_run.dataframe(partition=7)
    found = table.compute()
    known = rich_run.dataset(join="outer", chunks=None).load()
    np.testing.assert_array_equal(found.index, known.time)
    compared = 0
    for name, column in found.items():
        base, _, panel = name.rpartition("_")
        if name in known and known[name].ndim == 1:
            np.testing.assert_array_equal(column.to_numpy(), known[name].values, err_msg=name)
        elif base in known and name not in rich_run.scan:
            own = known[base]
            (dim,) = set(own.dims) - {"time"}
            np.testing.assert_array_equal(column.to_numpy(), own.sel({dim: int(panel)}).values, err_msg=name)
        else:
            assert name in rich_run.scan, name
        compared += 1
    scalars = [n for n, v in known.data_vars.items() if v.dims == ("time",) and "count" not in n]
    assert set(scalars) - {n for n in scalars if n.endswith("_damage")} <= set(found)
    assert compared == len(found.columns) > 20


def test_types_are_known_before_anything_is_read(rich_run):
    table = rich_run.dataframe(partition=7)
    assert table.compute().dtypes.tolist() == table.dtypes.tolist()


def test_scan_values_follow_the_step(rich_run):
    found = rich_run.dataframe().compute()
    for name, values in rich_run.scan.data_vars.items():
        expected = values.values[found.step.to_numpy()]
        np.testing.assert_array_equal(found[name].to_numpy().astype(expected.dtype), expected)


def test_epics_variables_are_steps_in_time(rich_run):
    found = rich_run.dataframe("gmd", join="outer", epics=True).compute()
    at = rich_run.epics.at()
    scalars = [name for name in rich_run.epics if at[name].ndim == 1]
    assert {c for c in found if c.startswith("epics_")} == {f"epics_{name}" for name in scalars}
    for name in scalars:
        np.testing.assert_array_equal(found[f"epics_{name}"].to_numpy(), at[name].values)
    one = rich_run.dataframe("gmd", epics=[scalars[0]])
    assert [c for c in one.columns if c.startswith("epics_")] == [f"epics_{scalars[0]}"]


def test_flags_are_event_codes(rich_run):
    code = next(iter(rich_run.evr.counts()))
    found = rich_run.dataframe("timing", flags={"on": [code], "off": [-code]}, join="outer").compute()
    known = rich_run.flags({"on": [code], "off": [-code]})
    for name in ("on", "off"):
        assert found[name].tolist() == known[name].values.tolist()


def test_events_that_all_have(rich_run):
    names = ["gmd", "tt"]
    inner, outer = rich_run.dataframe(names).compute(), rich_run.dataframe(names, join="outer").compute()
    known = rich_run.dataset(names).time.values
    np.testing.assert_array_equal(inner.index, known)
    assert len(outer) == len(rich_run) > len(inner)
    assert outer.tt_present.sum() < len(outer)


def test_partitions_are_found_by_time(rich_run):
    table = rich_run.dataframe("gmd", join="outer", partition=10)
    assert table.known_divisions
    assert table.npartitions == 4
    times = rich_run.events.time.values
    some = table.loc[pd.Timestamp(times[12]) : pd.Timestamp(times[17])]
    assert some.optimize().npartitions == 1
    np.testing.assert_array_equal(some.compute().index, times[12:18])


def test_only_the_columns_that_are_used_are_read(rich_run, monkeypatch):
    from psana_dask import tables

    asked = []
    original = tables.FieldColumns.read
    monkeypatch.setattr(tables.FieldColumns, "read", lambda s, v: asked.append(s.columns) or original(s, v))
    table = rich_run.dataframe()
    asked.clear()
    table["gmd_milliJoulesPerPulse"].sum().compute(scheduler="synchronous")
    assert set(asked) == {("gmd_milliJoulesPerPulse",)}


def test_selected_events_and_any_order(rich_run):
    chosen = [33, 2, 17, 2]
    table = rich_run.isel(chosen).dataframe("gmd", join="outer", partition=3)
    assert not table.known_divisions
    assert table.compute().timestamp.tolist() == rich_run.events.timestamp.values[chosen].tolist()


def test_no_events(rich_run):
    found = rich_run.isel([]).dataframe().compute()
    assert len(found) == 0
    assert found.dtypes.tolist() == rich_run.dataframe().dtypes.tolist()


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # of dask's own writer, with pandas 3.1
def test_there_and_back_through_parquet(rich_run, tmp_path):
    table = rich_run.dataframe(partition=16, epics=True)
    table.to_parquet(tmp_path / "run")
    found = dd.read_parquet(tmp_path / "run").compute()
    pd.testing.assert_frame_equal(found, table.compute(), check_freq=False)


def test_what_cannot_be_a_table(rich_run):
    with pytest.raises(NameNotFound, match=r"wave has no scalars.*run\.dataset\('wave'\)"):
        rich_run.dataframe("wave.raw")
    with pytest.raises(NameNotFound, match="did you mean gmd"):
        rich_run.dataframe("gmdd")
    with pytest.raises(ValueError, match="join='left'"):
        rich_run.dataframe("gmd", join="left")
    with pytest.raises(NameNotFound, match="no EPICS variable 'nosuch'"):
        rich_run.dataframe("gmd", epics=["nosuch"])
    with pytest.raises(ValueError, match="two columns would be 'step'"):
        rich_run.dataframe("timing", flags={"step": [40]})


def test_steps_without_a_value_are_missing(tmp_path):
    scan = Scan(motors={"delay": np.array([0.5, 1.5])})
    spec = RunSpec(events=6, steps=2, scan=scan, detectors=(Detector(name="g", kind="gmd"),))
    simulate.write(spec, tmp_path)
    found = psana_dask.open(tmp_path).dataframe().compute()
    assert found.delay.tolist() == [0.5] * 3 + [1.5] * 3


def test_equal_tables_have_equal_graphs(rich, rich_run):
    again = psana_dask.open(rich.folder)
    assert rich_run.dataframe()._name == again.dataframe()._name
    assert rich_run.dataframe("gmd")._name != rich_run.dataframe("gmd", epics=True)._name
    assert rich_run.dataframe(partition=5)._name != rich_run.dataframe()._name


@pytest.mark.parametrize(
    ("numbers", "most"),
    [(np.arange(500_000, 600_000), 200), (np.arange(0, 1_000_000, 8), 130_000), (np.arange(9)[::-1], 400)],
)
def test_a_choice_travels_in_few_bytes(numbers, most):
    choice = Choice(numbers, 1_000_000)
    sent = pickle.dumps(choice)
    assert len(sent) <= most
    assert np.array_equal(pickle.loads(sent).numbers, numbers)
    assert pickle.loads(sent).total == 1_000_000


def test_a_column_selects_and_bins(rich_run):
    table = rich_run.dataframe("gmd", join="outer")
    column = table.gmd_milliJoulesPerPulse
    values = column.compute()
    above = values > values.median()
    known = rich_run.select(above.to_numpy())
    for mask in (above, column > values.median(), above.sample(frac=1, random_state=1)):
        found = rich_run.select(mask)  # aligned on time, whatever the order
        np.testing.assert_array_equal(found.events.time, known.events.time)
        assert "mask gmd_milliJoulesPerPulse" in repr(found)
        mean = rich_run.mean("gmd.milliJoulesPerPulse", mask=mask)
        assert float(mean) == float(known.mean("gmd.milliJoulesPerPulse"))
        both = rich_run.mean("gmd.milliJoulesPerPulse", by=mask)
        assert float(both[1]) == float(mean)

"""Outside data on the events of a run: the same answers as pandas, and no guesses."""

import itertools
import warnings

import h5py
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import psana_dask
from psana_dask import simulate
from psana_dask.errors import DroppedWarning, NameNotFound
from psana_dask.join import match
from psana_dask.simulate import Detector, RunSpec

KEYS = st.lists(st.integers(-30, 30), max_size=25)
TOLERANCE = st.none() | st.integers(0, 20)


# ---- matching is that of pandas -----------------------------------------------------------------
def asof(keys, wanted, direction, tolerance):
    left = pd.DataFrame({"key": np.array(wanted, np.int64)})
    right = pd.DataFrame({"key": np.array(keys, np.int64), "row": np.arange(len(keys))})
    merged = pd.merge_asof(left, right, on="key", direction=direction, tolerance=tolerance)
    return merged.row.fillna(-1).astype(int).tolist()


@given(KEYS.map(sorted), KEYS.map(sorted), TOLERANCE)
def test_ffill_is_merge_asof(keys, wanted, tolerance):
    found = match(np.array(keys, np.int64), np.array(wanted, np.int64), "ffill", tolerance)
    assert found.before.tolist() == asof(keys, wanted, "backward", tolerance)


@given(KEYS.map(sorted), KEYS.map(sorted), TOLERANCE)
def test_nearest_is_merge_asof(keys, wanted, tolerance):
    found = match(np.array(keys, np.int64), np.array(wanted, np.int64), "nearest", tolerance)
    assert found.before.tolist() == asof(keys, wanted, "nearest", tolerance)


@given(KEYS.map(sorted), KEYS)
def test_exact_is_the_last_sample_with_the_key(keys, wanted):
    last = {key: row for row, key in enumerate(keys)}
    found = match(np.array(keys, np.int64), np.array(wanted, np.int64), "exact")
    assert found.before.tolist() == [last.get(key, -1) for key in wanted]


@given(st.sets(st.integers(-30, 30), max_size=20).map(sorted), KEYS, TOLERANCE, st.integers(0, 9))
def test_interp_is_that_of_numpy_between_near_samples(keys, wanted, tolerance, seed):
    values = np.random.default_rng(seed).normal(size=len(keys))
    found = match(np.array(keys, np.int64), np.array(wanted, np.int64), "interp", tolerance)
    for row, want in enumerate(wanted):
        left = [k for k in keys if k <= want]
        right = [k for k in keys if k >= want]
        near = (
            left
            and right
            and (tolerance is None or left[-1] == want or max(want - left[-1], right[0] - want) <= tolerance)
        )
        assert bool(found.found[row]) == bool(near)
        if near:
            w = found.weight[row]
            value = values[found.before[row]] * (1 - w) + values[found.after[row]] * w
            # numpy evaluates slope * distance, another order of three roundings
            assert value == pytest.approx(np.interp(want, keys, values), rel=1e-12, abs=1e-12)


# ---- joining to a run ---------------------------------------------------------------------------
@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    spec = RunSpec(
        events=40,
        rate=100.0,
        detectors=(Detector(name="timing", kind="timing"), Detector(name="g", kind="gmd")),
    )
    return simulate.write(spec, tmp_path_factory.mktemp("join"))


@pytest.fixture(scope="module")
def run(truth):
    return psana_dask.open(truth.folder)


def zoned(run, **columns):
    return pd.DataFrame({"time": pd.DatetimeIndex(run.events.time).tz_localize("UTC"), **columns})


@settings(max_examples=25)
@given(st.data())
def test_any_counters_are_joined_as_merge_asof_does(run, data):
    pulses = run.events.pulse_id.values.astype(np.int64)
    low, high = int(pulses.min()) - 20, int(pulses.max()) + 20
    keys = data.draw(st.lists(st.integers(low, high), max_size=40))  # any order, gaps, duplicates, none
    offset, tolerance = data.draw(st.integers(-30, 30)), data.draw(st.none() | st.integers(0, 40))
    table = pd.DataFrame({"pulse_id": np.array(keys, np.int64), "x": np.arange(len(keys)) + 0.5})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DroppedWarning)
        found = run.join(table, on="pulse_id", method="ffill", offset=offset, tolerance=tolerance)
    ordered = table.assign(pulse_id=table.pulse_id + offset).sort_values("pulse_id", kind="stable")
    left = pd.DataFrame({"pulse_id": pulses})
    known = pd.merge_asof(left, ordered, on="pulse_id", direction="backward", tolerance=tolerance)
    np.testing.assert_array_equal(found.x.values, known.x)


@settings(max_examples=25)
@given(st.data())
def test_any_table_is_joined_as_merge_asof_does(run, data):
    start = run.events.time.values[0]
    ticks = data.draw(st.lists(st.integers(-60, 460), max_size=40))  # ms; duplicates, gaps, any order
    method = data.draw(st.sampled_from(["nearest", "ffill"]))
    tolerance = data.draw(st.none() | st.integers(0, 50))
    times = start + np.array(ticks, "m8[ms]").astype("m8[ns]")
    table = pd.DataFrame(
        {"time": pd.DatetimeIndex(times).tz_localize("UTC"), "x": np.arange(len(ticks)) + 0.5}
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = run.join(table, method=method, tolerance=None if tolerance is None else f"{tolerance} ms")
    ordered = table.sort_values("time", kind="stable")
    left = pd.DataFrame(
        {"time": pd.DatetimeIndex(run.events.time).tz_localize("UTC").astype(ordered.time.dtype)}
    )
    direction = {"nearest": "nearest", "ffill": "backward"}[method]
    limit = None if tolerance is None else pd.Timedelta(f"{tolerance} ms")
    known = pd.merge_asof(left, ordered, on="time", direction=direction, tolerance=limit)
    np.testing.assert_array_equal(found.x.values, known.x)
    assert found.joined.values.tolist() == known.x.notna().tolist()
    assert found.attrs["matched"] == known.x.notna().sum()
    assert found.attrs["unused"] == len(ticks) - known.x.nunique()
    assert found.attrs["duplicates"] == len(ticks) - len(set(ticks))
    assert found.attrs["out_of_order"] == sum(b < a for a, b in itertools.pairwise(ticks))
    odd = found.attrs["duplicates"] or found.attrs["out_of_order"] or (ticks and known.x.isna().all())
    assert [w.category for w in caught] == ([DroppedWarning] if odd else [])


@settings(max_examples=25)
@given(st.data())
def test_any_table_is_interpolated_as_both_directions_of_merge_asof_say(run, data):
    start = run.events.time.values[0]
    ticks = data.draw(st.lists(st.integers(-60, 460), max_size=40))  # ms; duplicates, gaps, any order
    tolerance = data.draw(st.none() | st.integers(0, 50))
    times = pd.DatetimeIndex(start + np.array(ticks, "m8[ms]").astype("m8[ns]")).tz_localize("UTC")
    table = pd.DataFrame({"time": times, "x": np.arange(len(ticks)) + 0.5})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DroppedWarning)
        limit = None if tolerance is None else f"{tolerance} ms"
        found = run.join(table, method="interp", tolerance=limit)
    ordered = table.sort_values("time", kind="stable").assign(at=lambda t: t.time)
    left = pd.DataFrame({"time": pd.DatetimeIndex(run.events.time).tz_localize("UTC").astype(times.dtype)})
    sides = [pd.merge_asof(left, ordered, on="time", direction=d) for d in ("backward", "forward")]
    (before, after), allowed = sides, pd.Timedelta(limit or "1 D")
    whole, part = after["at"] - before["at"], left.time - before["at"]
    known = before.x + (after.x - before.x) * (part / whole).fillna(0)
    here = before["at"] == left.time
    near = (part <= allowed) & (whole - part <= allowed)
    # numpy's order of the same three roundings is another one
    np.testing.assert_allclose(found.x, before.x.where(here, known.where(near)), rtol=1e-12)


def test_kinds_of_values_and_what_stands_for_nothing(run):
    table = zoned(run, f=1.5, i=3, b=True, s="text", t=np.datetime64("2024-01-01", "ns")).iloc[:20]
    found = run.join(table)
    assert found.f.values[:20].tolist() == [1.5] * 20
    assert np.isnan(found.f.values[20:]).all()
    assert (found.i.dtype, found.i.values[19], found.i.values[20]) == (np.dtype("i8"), 3, 0)
    assert (found.b.dtype, found.b.values[19], found.b.values[20]) == (np.dtype(bool), True, False)
    assert (found.s.values[19], found.s.values[20]) == ("text", "")
    assert np.isnat(found.t.values[20:]).all()
    assert (found.attrs["matched"], found.attrs["unmatched"]) == (20, 20)
    np.testing.assert_array_equal(found.joined_time.values[:20], run.events.time.values[:20])
    assert np.isnat(found.joined_time.values[20:]).all()


def test_counters(run):
    pulses = run.events.pulse_id.values
    table = pd.DataFrame({"pulse_id": pulses[::2], "x": np.arange(20.0)})
    found = run.join(table, on="pulse_id")
    np.testing.assert_array_equal(found.x.values[::2], np.arange(20.0))
    assert not found.joined.values[1::2].any()
    assert found.joined_pulse_id.values[1] == -1
    shifted = run.join(table.assign(pulse_id=table.pulse_id - 7), on="pulse_id", offset=7)
    assert shifted.x.identical(found.x)
    with pytest.raises(TypeError, match="whole number"):
        run.join(table, on="pulse_id", offset="1 s")
    with pytest.raises(NameNotFound, match="no key of events 'fiducial'"):
        run.join(table, on="fiducial", key="pulse_id")


def test_arrays_stay_lazy_and_keep_their_units(run):
    import dask.array as da

    values = np.arange(40 * 6.0).reshape(40, 2, 3)
    data = xr.DataArray(
        da.from_array(values, chunks=(10, 2, 3)),
        dims=("time", "y", "x"),
        name="spectrum",
        attrs={"units": "eV"},
    )
    data = data.assign_coords(time=run.events.time.values + np.timedelta64(2, "ms"))
    found = run.join(data, method="nearest", tolerance="3 ms", tz="UTC")
    assert found.spectrum.chunks
    assert found.spectrum.attrs["units"] == "eV"
    np.testing.assert_array_equal(found.spectrum.values, values)
    half = run.join(data, method="interp", tz="UTC", offset="3 ms")
    # events lie 5 of 10 ms behind a sample: the clock of the run is 5 ms behind
    expected = 0.5 * (values[:-1] + values[1:])
    np.testing.assert_allclose(half.spectrum.values[1:], expected, rtol=1e-12)
    assert not half.joined.values[0]


@pytest.mark.parametrize("kind", ["csv", "parquet", "zarr", "nc"])
@pytest.mark.filterwarnings("ignore::UserWarning:zarr")
def test_files(run, tmp_path, kind):
    path = tmp_path / f"stage.{kind}"
    table = zoned(run, x=np.arange(40.0), label="a")
    if kind == "csv":
        table.to_csv(path, index=False)
    elif kind == "parquet":
        table.to_parquet(path)
    else:
        data = xr.Dataset({"x": ("time", np.arange(40.0))}, {"time": run.events.time.values})
        data.to_zarr(path, consolidated=False) if kind == "zarr" else data.to_netcdf(path, engine="h5netcdf")
    found = run.join(path, names=["x"], tz="UTC", units={"x": "mm"})
    np.testing.assert_array_equal(found.x.values, np.arange(40.0))
    assert found.x.attrs["units"] == "mm"
    assert list(found.data_vars) == ["x"]


def test_another_run(run, tmp_path):
    spec = RunSpec(events=20, rate=50.0, detectors=(Detector(name="g", kind="gmd"),), seed=3)
    simulate.write(spec, tmp_path)
    other = psana_dask.open(tmp_path)
    found = run.join(other, names=["g.milliJoulesPerPulse"], prefix="other_")
    np.testing.assert_array_equal(
        found.other_g_milliJoulesPerPulse.values[::2], other.g.milliJoulesPerPulse.values
    )
    assert found.attrs["matched"] == 20
    assert found.other_g_milliJoulesPerPulse.chunks


def test_groups_of_a_file(run, tmp_path):
    path = tmp_path / "scope.h5"
    with h5py.File(path, "w") as file:
        file["a/time"], file["a/x"] = run.events.time.values.astype("i8"), np.arange(40.0)
    assert run.join(path, group="a", unit="ns").x.values.tolist() == list(range(40))
    with pytest.raises(NameNotFound, match=r"scope\.h5: nothing in the group /; it has group='a'"):
        run.join(path, unit="ns")
    zoned(run, x=1.0).to_csv(tmp_path / "x.csv", index=False)
    for other in (tmp_path / "x.csv", zoned(run, x=1.0)):
        with pytest.raises(ValueError, match="group='a'"):
            run.join(other, group="a")


# ---- nothing is guessed -------------------------------------------------------------------------
def test_times_without_a_zone_are_refused_unless_it_is_said(run):
    naive = pd.DataFrame({"time": run.events.time.values, "x": 1.0})
    with pytest.raises(ValueError, match='have no time zone: say tz="UTC"'):
        run.join(naive)
    assert run.join(naive, tz="UTC").attrs["matched"] == 40
    there = zoned(run, x=1.0)
    local = there.assign(time=there.time.dt.tz_convert("America/Los_Angeles"))
    assert run.join(local).attrs["matched"] == 40
    clock = local.assign(time=local.time.dt.tz_localize(None))
    assert run.join(clock, tz="America/Los_Angeles").attrs["matched"] == 40
    with pytest.warns(DroppedWarning, match=r"no event has a sample: the nearest is 2\d{4}\.\d+ s away"):
        run.join(clock, tz="UTC")


def test_mixed_zones_and_hours_that_are_there_twice(run):
    mixed = pd.DataFrame({"time": ["2024-06-14T06:12:03Z", "2024-06-14T06:12:04"], "x": 1.0})
    with pytest.raises(ValueError, match="mix times with and without a zone"):
        run.join(mixed, tz="UTC")
    twice = pd.DataFrame({"time": ["2024-11-03T01:30:00"], "x": [1.0]})
    with pytest.raises(ValueError, match="in America/Los_Angeles"):
        run.join(twice, tz="America/Los_Angeles")
    with pytest.raises(ValueError, match="in Mars/Olympus"):
        run.join(twice, tz="Mars/Olympus")


def test_numbers_need_a_unit(run):
    ns = run.events.time.values.astype("i8")
    with pytest.raises(ValueError, match="unit= must say"):
        run.join(pd.DataFrame({"time": ns, "x": 1.0}))
    assert run.join(pd.DataFrame({"time": ns, "x": 1.0}), unit="ns").attrs["matched"] == 40
    seconds = pd.DataFrame({"time": ns / 1e9, "x": 1.0})
    assert run.join(seconds, unit="s", method="nearest", tolerance="1 us").attrs["matched"] == 40
    with pytest.raises(TypeError, match="has no unit"):
        run.join(seconds, unit="s", method="nearest", tolerance=1e-6)


def test_what_cannot_be_joined(run):
    table = zoned(run, x=1.0, step=1, label="a")
    with pytest.raises(ValueError, match=r"a 'step' of its own: prefix="):
        run.join(table)
    with pytest.raises(ValueError, match=r"label is .*only numbers can be interpolated"):
        run.join(table, method="interp", prefix="t_")
    with pytest.raises(ValueError, match="did you mean nearest"):
        run.join(table, method="nearst")
    with pytest.raises(NameNotFound, match="no variable 'y'"):
        run.join(table, names=["y"])
    with pytest.raises(NameNotFound, match="no variable 'y'"):
        run.join(table, names=["x"], units={"y": "mm"})
    with pytest.raises(NameNotFound, match=r"no column 'when'.*key= names it"):
        run.join(table.drop(columns="time"), key="when")
    with pytest.raises(TypeError, match="cannot join a int"):
        run.join(3)


def test_empty_sides(run):
    table = zoned(run, x=1.0)
    found = run.join(table.iloc[:0], method="nearest")
    assert (found.attrs["matched"], found.attrs["unmatched"]) == (0, 40)
    assert np.isnan(found.x.values).all()
    none = run.isel([]).join(table, method="ffill")
    assert (none.sizes["time"], none.attrs["unused"]) == (0, 40)


def test_dates_that_may_be_read_in_two_ways_are_refused(run):
    for text in ("06/07/2024 06:12:03", "yesterday", "2024-06-31T06:12:03"):
        with pytest.raises(ValueError, match=r"the times in 'time': .* write times as 2024-06-14T"):
            run.join(pd.DataFrame({"time": [text], "x": [1.0]}), tz="UTC")
    iso = pd.DatetimeIndex(run.events.time).tz_localize("UTC").tz_convert("Asia/Tokyo").map(str)
    assert run.join(pd.DataFrame({"time": iso, "x": 1.0})).attrs["matched"] == 40
    for far in ([1e300], [np.iinfo(np.int64).max]):
        with pytest.raises(ValueError, match="too far from 1970: is unit= right"):
            run.join(pd.DataFrame({"time": far, "x": [1.0]}), unit="s")


def test_counters_with_gaps_as_tables_have_them(run):
    pulse = int(run.events.pulse_id.values[0])
    gaps = (np.array([pulse, np.nan]), pd.array([pulse, None], "Int64"))
    for keys in gaps:
        with pytest.warns(DroppedWarning, match="1 samples without key"):
            found = run.join(pd.DataFrame({"pulse_id": keys, "x": [1, 2]}), on="pulse_id")
        assert (found.attrs["matched"], found.attrs["without_key"], found.x.values[0]) == (1, 1, 1)
    for wrong in ([0.5], [2.0**60], ["a"], np.array([2**63], np.uint64)):
        with pytest.raises(ValueError, match="whole numbers are needed"):
            run.join(pd.DataFrame({"pulse_id": wrong, "x": [1]}), on="pulse_id")


def test_columns_of_any_kind(run):
    zones = pd.DatetimeIndex(["2024-01-01T00:00"] * 40, tz="Europe/Berlin")
    table = zoned(run, b=pd.array([True, None] * 20, "boolean"), when=zones, kind=pd.Categorical([1, 2] * 20))
    found = run.join(table)
    assert [found[n].dtype.kind for n in ("b", "when", "kind")] == ["b", "M", "i"]
    assert found.when.values[0] == np.datetime64("2023-12-31T23:00")
    assert found.b.values.tolist() == [True, False] * 20
    import pyarrow as pa

    assert run.join(pa.Table.from_pandas(table)).attrs["matched"] == 40
    two = pd.concat([table.b, table.b], axis=1).assign(time=table.time)
    with pytest.raises(ValueError, match="two columns 'b'"):
        run.join(two)
    indexed = table.assign(k=1).set_index(["time", "k"])
    assert run.join(indexed).attrs["matched"] == 40
    with pytest.raises(ValueError, match="a 'joined' of its own"):
        run.join(table.assign(joined=1))


def test_spans_that_make_no_sense(run):
    with pytest.raises(ValueError, match="at least 0"):
        run.join(zoned(run, x=1.0), method="nearest", tolerance="-1 s")
    with pytest.raises(ValueError, match='"exact" takes no tolerance'):
        run.join(zoned(run, x=1.0), tolerance="1 s")


def test_between_the_events_of_another_run(run):
    found = run.join(run.isel(slice(0, None, 4)), method="interp", names=["g"], prefix="o_")
    known = run.g.milliJoulesPerPulse.values[::4].astype(float)
    assert (found.attrs["matched"], "o_g_present" in found) == (37, False)
    # float32 values, weighted in double precision
    middle = found.o_g_milliJoulesPerPulse.values[2:36:4]
    np.testing.assert_allclose(middle, (known[:-1] + known[1:]) / 2, rtol=1e-6)


def test_files_that_hold_nothing(run, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("time,x\n")
    assert run.join(path).attrs["matched"] == 0
    path.write_text("")
    with pytest.raises(ValueError, match=r"a\.csv is empty"):
        run.join(path)
    for name in ("a.h5", "a.zarr"):
        with pytest.raises(FileNotFoundError, match=name):
            run.join(tmp_path / name)
    (tmp_path / "a.h5").write_text("no HDF5")
    with pytest.raises(OSError, match=r"a\.h5: "):
        run.join(tmp_path / "a.h5")
    with pytest.raises(NameNotFound, match=r"joined as psana_dask\.open\(path\)"):
        run.join(run.export(tmp_path / "run.zarr", ["g"]))


# ---- offsets of clocks --------------------------------------------------------------------------
def signals(seed, shift, noise, count=600):
    """Return a signal at 100 Hz, and its copy on a clock that is `shift` ns behind, with noise."""
    rng = np.random.default_rng(seed)
    start = np.datetime64("2024-06-14T00:00:00", "ns").astype("i8")
    t0 = start + np.arange(count) * 10_000_000
    t1 = start + 100_000_000 + np.sort(rng.integers(0, (count - 30) * 10_000_000, count - 50))
    knots = start + np.arange(-10, count + 10, 5) * 10_000_000
    heights = rng.normal(size=len(knots))

    def height(times):
        # smooth between knots, so that interpolation on a grid is not what limits
        phase = np.subtract.outer(times, knots) / 50_000_000
        return np.sinc(phase) @ heights

    a = height(t0) + noise * rng.normal(size=len(t0))
    b = 3 + 2 * (height(t1) + noise * rng.normal(size=len(t1)))
    return ((t0.view("M8[ns]"), a), ((t1 - shift).view("M8[ns]"), b))


@pytest.mark.parametrize("noise", [0.5, 1.0])
def test_the_uncertainty_of_an_offset_is_honest(noise):
    pulls = []
    for seed in range(200):
        shift = 123_456_789 + seed * 1_111_111
        found = psana_dask.find_offset(*signals(seed, shift, noise), within="1 s")
        pulls.append((found.offset.astype(int) - shift) / found.uncertainty.astype(int))
    # 68 % and 95 % of 200 normal errors, give or take 3 of their deviations (3.3 and 1.5 %); an
    # uncertainty from 30 parts is itself known to 13 %
    within = [np.mean(np.abs(pulls) < k) for k in (1, 2)]
    print(f"noise {noise}: {within[0]:.0%} within 1 sigma, {within[1]:.1%} within 2")
    assert 0.58 < within[0] < 0.82
    assert within[1] > 0.90
    assert abs(np.mean(pulls)) < 4 * np.std(pulls) / np.sqrt(200)


def test_a_signal_that_differs_from_pulse_to_pulse():
    worst = 0.0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        times = np.datetime64("2024-06-14", "ns").astype("i8") + np.arange(1200) * 10_000_000
        values = rng.gamma(4, size=1200)
        shift, keep = int(rng.uniform(-0.6e9, 0.6e9)), rng.random(1200) > 0.1
        both = [values + 0.5 * rng.normal(size=1200) for _ in range(2)]
        other = ((times - shift)[keep].view("M8[ns]"), both[1][keep])
        first = (times.view("M8[ns]"), both[0])
        for pair, sign in ((first, other), 1), ((other, first), -1):
            found = psana_dask.find_offset(*pair, within="1 s")
            worst = max(worst, abs(found.offset.astype(int) - sign * shift) / found.uncertainty.astype(int))
            assert found.uncertainty < np.timedelta64(1, "ms")  # a tenth of the distance of pulses
    assert worst < 2  # of 40; where samples coincide the peak is sharper than its grid


def test_an_offset_joins(run):
    offset = np.timedelta64(250, "ms")
    values = np.asarray(run.g.milliJoulesPerPulse.values, float)
    other = pd.Series(
        values, pd.DatetimeIndex(run.events.time.values - offset).tz_localize("UTC"), name="seen"
    )
    found = psana_dask.find_offset(run.g.milliJoulesPerPulse, other, within="0.3 s", tz="UTC")
    assert abs(found.offset - offset) < np.timedelta64(1, "ms")
    assert found.correlation > 0.99
    joined = run.join(other, method="nearest", tolerance="4 ms", offset=found)
    np.testing.assert_array_equal(joined.seen.values, values)
    assert "0.25" in str(found)


def test_what_has_no_offset():
    (t0, a), (t1, b) = signals(1, 0, 0.1)
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"no common signal|at the edge"):
        psana_dask.find_offset((t0, a), (t1, rng.normal(size=len(b))), within="1 s")
    with pytest.raises(ValueError, match="at the edge: raise within="):
        psana_dask.find_offset((t0, a), (t1 - np.timedelta64(62, "ms"), b), within="60 ms")
    with pytest.raises(ValueError, match="16 are needed"):
        psana_dask.find_offset((t0[:5], a[:5]), (t1, b), within="1 s")
    with pytest.raises(ValueError, match="fewer than 16 samples in common"):
        psana_dask.find_offset((t0, a), (t1 + np.timedelta64(1, "h"), b), within="1 s")

"""Fast data grouped by the windows of a slow detector, on closed runs and on growing ones."""

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import psana_dask
from psana_dask import simulate
from psana_dask.choice import Choice
from psana_dask.errors import DroppedWarning, NameNotFound
from psana_dask.readouts import live_windows, window_numbers
from psana_dask.simulate import Detector, Missing, RunSpec

EVENTS = 50
SPEC = RunSpec(
    events=EVENTS,
    rate=100.0,
    detectors=(
        Detector(name="gmd", kind="gmd"),
        Detector(name="cam", kind="pixels", shape=(1, 8, 6), stream=1),
        Detector(name="andor", kind="gmd", every=8, offset=3, stream=2),
    ),
    missing=(Missing(events=(20, 21), detector="gmd"),),
)
READ = np.arange(3, EVENTS, 8)  # 3, 11, 19, 27, 35, 43
WINDOWS = {
    "before": [range(0, 4), *(range(p - 7, p + 1) for p in READ[1:])],
    "after": [*(range(p, p + 8) for p in READ[:-1]), range(43, 50)],
}


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    return simulate.write(SPEC, tmp_path_factory.mktemp("readouts"))


@pytest.fixture(scope="module")
def run(truth):
    return psana_dask.open(truth.folder)


@given(st.integers(0, 40).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, max(0, n - 1))))))
def test_windows_share_the_events_out(case):
    events, readouts = case[0], np.array(sorted(case[1] if case[0] else []), np.int64)
    for which in ("before", "after"):
        numbers = window_numbers(events, readouts, which)
        for event, window in enumerate(numbers.tolist()):
            later = [k for k, p in enumerate(readouts) if p >= event]
            earlier = [k for k, p in enumerate(readouts) if p <= event]
            known = (later[:1] or [-1]) if which == "before" else (earlier[-1:] or [-1])
            assert window == known[0]


@pytest.mark.parametrize("which", ["before", "after"])
def test_the_table_of_windows(run, which):
    table = run.group_by_readout("andor", which).table
    times = run.events.time.values
    np.testing.assert_array_equal(table.index, times[READ])
    np.testing.assert_array_equal(table.start, [times[w[0]] for w in WINDOWS[which]])
    np.testing.assert_array_equal(table.stop, [times[w[-1]] for w in WINDOWS[which]])
    assert table.events.tolist() == [len(w) for w in WINDOWS[which]]
    assert np.flatnonzero(~table.complete).tolist() == [0 if which == "before" else 5]


@pytest.mark.parametrize("which", ["before", "after"])
def test_sums_means_and_counts_are_those_of_numpy(run, truth, which):
    windows = run.group_by_readout("andor", which)
    sums, counts = windows.sum("gmd.milliJoulesPerPulse"), windows.count("gmd.milliJoulesPerPulse")
    means, frames = windows.mean("gmd.milliJoulesPerPulse"), windows.sum("cam.raw")
    np.testing.assert_array_equal(sums.readout.values, run.events.time.values[READ])
    assert sums.complete.values.tolist() == windows.complete.tolist()
    for k, window in enumerate(WINDOWS[which]):
        values = [truth.value("gmd", "milliJoulesPerPulse", e) for e in window if e not in (20, 21)]
        # up to eight float64 numbers in another order
        assert sums.values[k] == pytest.approx(np.sum(values, dtype=float), rel=1e-14)
        assert means.values[k] == pytest.approx(np.mean(values, dtype=float), rel=1e-14)
        assert counts.values[k] == len(values)
        images = np.sum([truth.value("cam", "arrayRaw", e) for e in window], axis=0, dtype=np.int64)
        np.testing.assert_array_equal(frames.values[k].squeeze(), images.squeeze())


@pytest.mark.parametrize("size", [7, 16, 17, 300, 2100])
def test_scalars_have_the_bits_of_a_reduction(tmp_path, size):
    detectors = (Detector(name="gmd", kind="gmd"), Detector(name="andor", kind="gmd", every=size, stream=1))
    missing = (Missing(events=tuple(range(0, 2500, 9)), detector="gmd"),)
    spec = RunSpec(events=2500, rate=1000.0, detectors=detectors, missing=missing, slow_every=1000)
    simulate.write(spec, tmp_path)
    windows = psana_dask.open(tmp_path).group_by_readout("andor", "after")
    for what in ("sum", "mean", "count"):
        quick = getattr(windows, what)("gmd.milliJoulesPerPulse")
        xr.testing.assert_identical(quick, windows.reduce(what, "gmd.milliJoulesPerPulse"))


def test_lists_leave_out_what_is_missing(run, truth):
    found = run.group_by_readout("andor").lists(["gmd.milliJoulesPerPulse"])
    (name,) = found
    for values, window in zip(found[name], WINDOWS["before"], strict=True):
        known = [e for e in window if e not in (20, 21)]
        np.testing.assert_array_equal(values.time.values, run.events.time.values[known])
        np.testing.assert_array_equal(
            values.values, [truth.value("gmd", "milliJoulesPerPulse", e) for e in known]
        )


@pytest.mark.parametrize("which", ["before", "after"])
def test_a_window_is_a_run(run, which):
    windows = run.group_by_readout("andor", which)
    times = run.events.time.values
    for one, window in zip(windows, WINDOWS[which], strict=True):
        np.testing.assert_array_equal(one.events.time.values, times[list(window)])
    assert len(windows[-1]) == len(WINDOWS[which][-1])
    with pytest.raises(IndexError):
        windows[6]


def test_a_selected_run_has_fewer_events_in_its_windows(run):
    some = run.isel(slice(10, 40))
    assert some.group_by_readout("andor").table.events.tolist() == [2, 8, 8, 8]


@pytest.mark.parametrize("which", ["before", "after"])
def test_windows_of_a_run_that_grows(tmp_path, truth, which):
    entries = simulate.grow(SPEC, tmp_path)
    next(entries)
    writer = threading.Thread(target=lambda: [time.sleep(0.002) for _ in entries])
    for _ in range(5):  # the transitions before the first event
        next(entries)
    live = psana_dask.open(tmp_path, live=True)
    writer.start()
    found = list(live.group_by_readout("andor", which).follow(timeout=20, poll=0.02, batch=5))
    writer.join()
    known = WINDOWS[which] if which == "before" else WINDOWS[which][:-1]  # the last one never ends
    assert [len(one) for one in found] == [len(w) for w in known]
    last = truth.times.astype("M8[ns]")[list(known[-1])]
    np.testing.assert_array_equal(found[-1].events.time.values, last)
    values = found[2].gmd.milliJoulesPerPulse.values
    np.testing.assert_array_equal(
        values,
        [truth.value("gmd", "milliJoulesPerPulse", e) if e not in (20, 21) else np.nan for e in known[2]],
    )


@pytest.mark.filterwarnings("ignore::psana_dask.errors.StreamWarning")
@pytest.mark.parametrize("batch", [1, 5, 64])
@pytest.mark.parametrize("which", ["before", "after"])
def test_windows_of_a_stream(run, truth, which, batch):
    with psana_dask.open(f"replay://{truth.folder}", timeout=20) as stream:
        found = []
        for window in stream.group_by_readout("andor", which).follow(batch=batch):
            sums = window.sum("gmd.milliJoulesPerPulse").item()
            found.append((window.events.timestamp.values.tolist(), sums, window.cam.raw.values))
    closed = run.group_by_readout("andor", which)
    known = [w for w in closed if len(w) == len(WINDOWS[which][0]) or which == "before"][: len(found)]
    assert len(found) == (6 if which == "before" else 5)
    for (stamps, total, frames), window in zip(found, known, strict=True):
        assert stamps == window.events.timestamp.values.tolist()
        assert total == window.sum("gmd.milliJoulesPerPulse").item()
        np.testing.assert_array_equal(frames, window.cam.raw.values)


def test_a_window_that_other_memory_cuts_is_left_out(run):
    def of(numbers):
        return replace(run._view, choice=Choice(np.array(numbers), EVENTS))

    views = [of(range(14)), of(range(2, 20)), of(range(20, 30))]  # readouts: 3, 11; 3, 11, 19; 27
    with pytest.warns(DroppedWarning, match="2 events of an open window of andor are left out"):
        found = [v.choice.numbers.tolist() for v in live_windows(views, "andor", "before")]
    assert found == [
        list(range(4)), list(range(4, 12)), list(range(4, 12)), list(range(12, 20)), list(range(20, 28)),
    ]  # fmt: skip


def test_what_cannot_be_grouped(run, truth, tmp_path):
    with psana_dask.open(f"replay://{truth.folder}", timeout=20) as stream:
        with pytest.raises(NameNotFound, match="did you mean andor"):
            next(stream.group_by_readout("andr").follow())
        with pytest.raises(ValueError, match="which='behind'"):
            stream.group_by_readout("andor", "behind")
    with pytest.raises(NameNotFound, match="did you mean andor"):
        run.group_by_readout("andr")
    with pytest.raises(ValueError, match="which='behind'"):
        run.group_by_readout("andor", "behind")
    with pytest.raises(NameNotFound, match="no readouts to group by"):
        run.isel([0, 1]).group_by_readout("andor").table  # noqa: B018

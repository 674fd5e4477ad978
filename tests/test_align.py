"""Event building, against a slow reference in plain Python."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import psana_dask
from psana_dask import simulate
from psana_dask.align import build_events, event_rows, make_unique, select_events
from psana_dask.errors import PartialRunWarning
from psana_dask.model import Service, StreamIndex
from psana_dask.recording import FORMATS
from psana_dask.simulate import Detector, Missing, RunSpec

CLOCKS = st.lists(st.integers(0, 12), max_size=15)
STREAMS = st.lists(CLOCKS, min_size=1, max_size=5)


def index_of(clocks, run=None, service=None):
    """A stream of L1Accepts with these clocks; the word is 1000 more than the clock."""
    clocks = np.asarray(clocks, np.int64)
    accept, zeros = [Service.L1_ACCEPT] * len(clocks), [0] * len(clocks)
    columns = {
        "time": clocks,
        "timestamp": (clocks + 1000).astype(np.uint64),
        "service": np.array(accept if service is None else service, np.uint8),
        "run": np.array(zeros if run is None else run, np.int32),
        "step": (clocks // 5).astype(np.int32),
        "offset": np.arange(len(clocks)) * 100,
    }
    return StreamIndex(0, ("file",), (), columns)


def table_of(streams):
    rows = [event_rows(s, None) for s in streams]
    return build_events(streams, rows, [f"file {k}" for k in range(len(streams))])


def reference(streams):
    """(clock, turn) to the row in each stream: the n-th with a clock joins the n-th of the others."""
    events = {}
    for k, clocks in enumerate(streams):
        seen = {}
        for row in sorted(range(len(clocks)), key=lambda r: clocks[r]):  # stable
            turn = seen[clocks[row]] = seen.get(clocks[row], -1) + 1
            events.setdefault((clocks[row], turn), {})[k] = row
    return sorted(events.items())


@given(STREAMS)
def test_the_merge_is_that_of_plain_python(streams):
    table = table_of([index_of(c) for c in streams])
    want = reference(streams)
    assert len(table) == len(want)
    assert (table.timestamp - 1000).tolist() == [clock for (clock, _), _ in want]
    rows = [[members.get(k, -1) for _, members in want] for k in range(len(streams))]
    assert table.rows.tolist() == rows
    assert table.step.tolist() == [clock // 5 for (clock, _), _ in want]


@given(STREAMS)
def test_times_are_sorted_and_unique_and_moved_as_little_as_possible(streams):
    table = table_of([index_of(c) for c in streams])
    last = -1
    for time, ((clock, _), _) in zip(table.time.tolist(), reference(streams), strict=True):
        assert time == max(clock, last + 1)
        last = time
    moved = np.count_nonzero(table.time != table.timestamp.astype(np.int64) - 1000)
    assert sum("is moved by" in p.what for p in table.problems) == moved


@given(st.lists(st.integers(-20, 20)))
def test_equal_times_move_on(clocks):
    found = make_unique(np.array(sorted(clocks), np.int64))
    assert np.all(np.diff(found) > 0)
    assert np.all(found >= sorted(clocks))


@pytest.mark.parametrize("streams", [[[]], [[], []], [[], [3]]])
def test_streams_without_events(streams):
    table = table_of([index_of(c) for c in streams])
    assert table.rows.shape == (len(streams), sum(map(len, streams)))


def test_only_l1accepts_of_the_wanted_runs_are_events():
    accept, slow = Service.L1_ACCEPT, Service.SLOW_UPDATE
    index = index_of([5, 1, 2, 9, 3], run=[0, 0, 1, 1, 2], service=[accept, accept, slow, accept, accept])
    assert event_rows(index, None).tolist() == [1, 4, 0, 3]
    assert event_rows(index, (0, 2)).tolist() == [1, 4, 0]


def test_the_step_is_that_of_a_stream_that_saw_it_begin():
    late = index_of([1, 7])
    late.columns["step"][:] = -1  # as in a stream without the BeginSteps
    for streams in ([index_of([1, 7]), late], [late, index_of([1, 7])]):
        assert table_of(streams).step.tolist() == [0, 1]


def test_a_stream_out_of_order_is_a_problem_that_says_where():
    table = table_of([index_of([1, 2, 3]), index_of([1, 3, 2, 5, 4])])
    (problem,) = table.problems
    assert problem == ("file 1", 100, 1003, "2 datagrams out of time order: sorted")


def test_events_may_be_selected():
    table = table_of([index_of([1, 2, 3]), index_of([2])])
    fewer = select_events(table, table.rows[1] >= 0)
    assert (fewer.time.tolist(), fewer.rows.tolist(), fewer.step.tolist()) == ([2], [[1], [0]], [0])
    assert select_events(table, np.ones(3, bool)) is table


# ---- whole runs ---------------------------------------------------------------------------------
THREE = (
    Detector(name="a", kind="gmd"),
    Detector(name="b", kind="gmd", stream=1, every=3, offset=1),
    Detector(name="c", kind="gmd", stream=2, every=2),
)
TIMES = {
    "fake and tiny": np.arange(30),
    "shuffled": (7 << 32) + np.random.default_rng(0).permutation(30) * 1000,
    "pairs": np.repeat(np.arange(15), 2),
    "backwards": np.arange(30)[::-1] + (1 << 40),
}


@pytest.mark.parametrize("stamps", TIMES.values(), ids=TIMES)
def test_events_of_files_come_in_order_of_time(tmp_path, stamps, expected, recwarn):
    spec = RunSpec(events=30, timestamps=stamps, detectors=THREE, missing=(Missing(events=(4,), stream=0),))
    truth = simulate.write(spec, tmp_path)
    run = psana_dask.open(tmp_path)
    time = run.events.time.values
    assert np.all(np.diff(time) > np.timedelta64(0))
    if len(set(stamps.tolist())) == 30:
        assert run.events.timestamp.values.tolist() == truth.timestamps[truth.order].tolist()
        for name in "abc":
            values = run[name].field("milliJoulesPerPulse", chunks=None).values
            np.testing.assert_array_equal(values, expected(truth, name, "milliJoulesPerPulse"))
    assert all(w.category is PartialRunWarning for w in recwarn)


def test_mixed_rates_and_gaps(tmp_path):
    truth = simulate.write(
        RunSpec(events=30, detectors=THREE[1:], missing=(Missing(events=(6, 7), stream=2),)), tmp_path
    )
    run = psana_dask.open(tmp_path)
    assert run.events.timestamp.values.tolist() == truth.timestamps[truth.order].tolist()
    for stream in (1, 2):
        there = truth.in_stream(stream)[truth.order]
        assert run.events[f"stream_{stream}"].values.tolist() == there.tolist()
    assert len(run) == 19  # of 30: each multiple of 2 but one, each third


def test_the_times_of_events_do_not_depend_on_the_streams_that_are_read(tmp_path, recwarn):
    stamps = np.repeat(np.arange(15), 2)
    simulate.write(RunSpec(events=30, timestamps=stamps, detectors=THREE), tmp_path)
    whole = psana_dask.open(tmp_path)
    for stream in (0, 1, 2):
        part = psana_dask.open(tmp_path, streams=[stream])
        there = whole.events[f"stream_{stream}"].values
        assert part.events.time.values.tolist() == whole.events.time.values[there].tolist()


def test_many_events_are_kept_on_disk(tmp_path, monkeypatch):
    run = simulate.write_many(tmp_path, events=3000, size=200, pool=100)
    first = psana_dask.open(tmp_path).events
    psana_dask.recording.forget_all()
    asked_again = dataclasses.replace(FORMATS["xtc2"], events=None)  # not to be called
    monkeypatch.setitem(FORMATS, "xtc2", asked_again)
    again = psana_dask.open(tmp_path).events
    assert again.identical(first)
    assert again.timestamp.values.tolist() == run.timestamps.tolist()

"""Interesting events: noted while they are taken, by several at once, found again afterwards."""

import multiprocessing
import warnings

import numpy as np
import pytest

import psana_dask
from psana_dask import simulate
from psana_dask.errors import FormatError, StreamWarning
from psana_dask.saved_times import append_times, read_times


@pytest.fixture(scope="module", params=["xtc2", "xtc"])
def run(request, tmp_path_factory):
    return psana_dask.open(simulate.demo_run(tmp_path_factory.mktemp("run"), 24, format=request.param))


def test_events_are_found_again(run, tmp_path):
    path = tmp_path / "bright.times"
    assert run.isel([3, 5]).save_times(path) == 2
    assert run.isel([9, 5]).save_times(str(path)) == 2
    assert run.isel([]).save_times(path) == 0
    want = run.events.time.values[[3, 5, 9]]
    assert np.array_equal(psana_dask.times(path), want)
    assert np.array_equal(run.select(path).events.time.values, want)
    assert np.array_equal(run.select(str(path)).events.time.values, want)
    assert run.event(psana_dask.times(path)[1]).time.values == want[1]
    words = [int(line.split()[1]) for line in path.read_text().splitlines()]
    assert np.array_equal(words, run.events.timestamp.values[[3, 5, 9, 5]])


def many(path, first):
    times = np.arange(first, first + 50).astype("M8[s]").astype("M8[ns]")
    for k in range(50):
        append_times(path, times[k : k + 1], np.array([k], np.uint64))


def test_several_processes_append(tmp_path):
    path = str(tmp_path / "all.times")
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=many, args=(path, 1000 * k)) for k in range(3)]
    [p.start() for p in processes]
    [p.join() for p in processes]
    assert all(p.exitcode == 0 for p in processes)
    want = np.concatenate([np.arange(1000 * k, 1000 * k + 50) for k in range(3)])
    assert np.array_equal(read_times(path), want.astype("M8[s]"))


def test_a_line_that_was_cut_short_is_left_out_and_closed(run, tmp_path):
    path = tmp_path / "cut.times"
    run.isel([1, 2]).save_times(path)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.warns(StreamWarning, match=r"1 lines were cut short and are left out \(line 2\)"):
        assert np.array_equal(read_times(path), run.events.time.values[[1]])
    run.isel([4]).save_times(path)
    with pytest.warns(StreamWarning, match="cut short"):
        assert np.array_equal(read_times(path), run.events.time.values[[1, 4]])


def test_comments_and_other_files(tmp_path):
    path = tmp_path / "some.times"
    path.write_text("# the good ones\n2024-06-14T06:12:03.000000001 5\n\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_times(path) == np.datetime64("2024-06-14T06:12:03.000000001")
    path.write_text("hello\nworld\n")
    with pytest.raises(FormatError, match="line 1 is no event time"):
        read_times(path)
    path.write_text("")
    assert len(read_times(path)) == 0

"""A stream has the face of a run, and its results are the run's, bit for bit."""

import os
import shutil
import time

import numpy as np
import pytest
import xarray as xr

import psana_dask
from psana_dask.errors import EventNotFound, FunctionError, ReadError
from psana_dask.reductions import Histogram
from psana_dask.stream import open_stream, received
from psana_dask.stream.stream import Stream
from psana_dask.stream.taps import ListTap

FRAMES = {"xtc2": "epixquad", "xtc": "epix100a"}


@pytest.fixture(scope="module")
def closed(small):
    return small


@pytest.fixture
def stream_of(small_stream_of):
    return small_stream_of


@pytest.mark.parametrize("sizes", [(1,), (5, 2, 9)])
@pytest.mark.parametrize("field", ["raw", "calib"])
def test_reductions_have_the_bits_of_the_closed_run(closed, stream_of, sizes, field):
    name, what = f"{FRAMES[closed.format]}.{field}", ["mean", "std", "sum", "max"]
    *_, last = stream_of(sizes).reduce(what, [name])
    want = closed.reduce(what, [name])
    assert set(last.data_vars) == set(want.data_vars)
    for key in want.data_vars:
        assert last[key].dims == want[key].dims
        assert np.array_equal(last[key].values, want[key].values, equal_nan=True), key


def test_several_statistics_of_several_names(closed, stream_of):
    names = [
        f"{FRAMES[closed.format]}.raw",
        {"xtc2": "gmd.milliJoulesPerPulse", "xtc": "acqiris.raw"}[closed.format],
    ]
    wanted = ["mean", Histogram([0, 500, 1000, 2000], per_pixel=False)]
    *_, last = stream_of().reduce(wanted, names)
    want = closed.reduce(wanted, names)
    assert set(last.data_vars) == set(want.data_vars)
    for name in want.data_vars:
        assert np.array_equal(last[name].values, want[name].values, equal_nan=True), name


def test_names_alone_give_the_cube(closed, stream_of):
    name = f"{FRAMES[closed.format]}.raw"
    *_, last = stream_of().reduce(name)
    assert np.array_equal(last[f"{name.replace('.', '_')}_mean"].values, closed.mean(name).values)


def test_results_on_the_way_and_mean_of_the_whole(closed, stream_of):
    name = f"{FRAMES[closed.format]}.raw"
    counts = [int(r.max()) for r in stream_of((4,)).reduce("count", name, every=0.0, batch=4)]
    assert counts == sorted(counts)
    assert len(counts) > 5
    assert np.array_equal(stream_of().mean(name).values, closed.mean(name).values)


@pytest.mark.parametrize("least", [1, 100_000, 10**9])
def test_a_batch_has_no_more_bytes_than_it_may_and_one_event_at_least(closed, stream_of, least, monkeypatch):
    monkeypatch.setattr(received, "BATCH_BYTES", least)
    name = f"{FRAMES[closed.format]}.raw"
    raw = closed[FRAMES[closed.format]].raw.values
    sizes, frames = [], []
    for run in stream_of((5, 2, 9)).follow_runs(batch=4):
        sizes.append(len(run))
        frames.append(run[FRAMES[closed.format]].raw.values)
    assert np.array_equal(np.concatenate(frames), raw), name
    most = max(1, least // raw[0].nbytes)  # an event has a little more than its frame
    assert max(sizes) <= min(4, most)
    assert (max(sizes) == 1) == (most < 3)


def test_map_over_batches_of_which_some_have_no_event_with_the_detector(rich, rich_run):
    """The camera is in every fifth event: nothing is made of the others, and nothing is missing."""

    def brightest(ds):
        return ds.tt_raw.max(("row", "col"))

    with open_stream(f"replay://{rich.folder}") as stream:
        made = list(stream.map(brightest, "tt.raw", batch=1))
    want = rich_run.map(brightest, "tt.raw").compute()
    assert [len(m) for m in made] == [1] * len(want)
    xr.testing.assert_equal(xr.concat(made, "time").drop_attrs(), want.drop_attrs())


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="the system does not say what is open")
@pytest.mark.parametrize("source", ["replay://{}", "live:{}"])
def test_a_stream_that_is_closed_has_no_data_files_open(rich, tmp_path, source):
    """A file that is removed while it is open keeps its room."""
    folder = shutil.copytree(rich.folder, tmp_path / "run")

    def still_open():
        found = [os.path.realpath(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")]
        return [path for path in found if os.path.dirname(path) == str(folder)]

    with open_stream(source.format(folder)) as stream:
        frames = next(iter(stream.follow_runs())).epix.raw.values
        assert len(frames)
        assert still_open()
    assert not still_open()


def test_a_function_of_the_user_that_finds_no_event_is_not_hidden(rich):
    def failing(ds):
        raise EventNotFound("of the user")

    with open_stream(f"replay://{rich.folder}") as stream, pytest.raises(FunctionError, match="of the user"):
        list(stream.map(failing, "gmd"))


@pytest.mark.parametrize("files", [False, True])
def test_gathered_batches_are_some_time_apart(closed, stream_of, files, monkeypatch):
    """Events of a tap, and of files: one every 5 ms; the last ones come at once."""
    at_once = ListTap.receive

    def trickling(tap, seconds):
        time.sleep(0.005)
        return at_once(tap, seconds)

    monkeypatch.setattr(ListTap, "receive", trickling)
    folder, gather, begun = os.path.dirname(closed.files[0]), 0.05, time.monotonic()
    with open_stream(f"replay://{folder}?rate=200") if files else stream_of((1,)) as stream:
        sizes = [len(run) for run in stream.follow_runs(gather=gather)]
    taken, ends_of_steps = time.monotonic() - begun, 0 if files else 8  # a tap's batch ends with its step
    assert sum(sizes) == len(closed)
    assert len(sizes) <= taken / gather + 2 + ends_of_steps


def test_a_window_forgets(closed, stream_of):
    name = f"{FRAMES[closed.format]}.raw"
    *_, last = stream_of((4,)).reduce("mean", name, window=8, batch=4)
    raw = closed[FRAMES[closed.format]].raw.values[-10:].astype(float)  # whole batches: 4, 4 and 2
    np.testing.assert_allclose(last.values, raw.mean(axis=0), rtol=1e-12)  # order of float sums differs


def test_map_gives_what_the_run_gives(closed, stream_of):
    name = f"{FRAMES[closed.format]}_raw"

    def brightest(events):
        dims = [d for d in events[name].dims if d != "time"]
        return events[name].max(dims)

    got = list(stream_of().map(brightest, f"{FRAMES[closed.format]}.raw"))
    want = closed.map(brightest, f"{FRAMES[closed.format]}.raw").compute()
    assert np.array_equal(np.concatenate([g.values for g in got]), want.values)
    assert np.array_equal(np.concatenate([g.time.values for g in got]), want.time.values)


def test_images_and_calibration_are_the_runs(calibrated, calibrated_stream_of):
    name, at = FRAMES[calibrated.format], 0
    for run in calibrated_stream_of((16,)).follow_runs():
        for field in ("calib", "image"):
            got = getattr(run[name], field).values
            want = getattr(calibrated[name], field)[at : at + len(got)].values
            assert np.array_equal(got, want, equal_nan=True), field
        at += len(run)
    assert at == len(calibrated)


def test_select_by_a_condition_and_by_a_function(closed, stream_of):
    want = closed.select(closed.events.step == 2).events.time.values
    chosen = stream_of().select(lambda run: run.events.step.values == 2)
    assert np.array_equal(np.concatenate([r.events.time.values for r in chosen.follow_runs()]), want)
    code = 90
    want = closed.select(closed.evr.has(code)).events.time.values
    chosen = stream_of((40,))
    got = [r.events.time.values for r in chosen.select(chosen_condition(closed, code)).follow_runs()]
    assert np.array_equal(np.concatenate(got), want)


def chosen_condition(closed, code):
    return closed.evr.has(code)


def test_the_face_of_a_run(closed, stream_of):
    stream = stream_of((10,))
    assert set(stream.detectors) == set(closed.detectors)
    assert stream.format == closed.format
    assert stream[FRAMES[closed.format]].raw.dims == closed[FRAMES[closed.format]].raw.dims
    assert set(stream.epics) == set(closed.epics)
    assert stream.dataset(FRAMES[closed.format]).sizes["time"] > 0
    assert stream.events.sizes["time"] > 0
    assert stream.number == closed.number
    assert "10 received" in repr(stream) or "received" in repr(stream)


def test_detectors_of_choice(closed, stream_of):
    name = FRAMES[closed.format]
    assert list(stream_of(only=[name]).detectors) == [name]


def test_constants_are_looked_up_once(closed, stream_of, monkeypatch):
    """Frozen at first use: all batches of a run share what was looked up."""
    kept = [r._view.kept for r in stream_of((8,)).follow_runs()]
    assert len({id(k) for k in kept}) == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [({"policy": "some"}, "policy='some'"), ({}, "batch=0")],
)
def test_what_is_refused(stream_of, options, said):
    with pytest.raises(ValueError, match=said):
        list(stream_of(**options).follow_runs(batch=0))


def test_a_stream_without_events():
    with Stream(ListTap("xtc2", [])) as stream:
        with pytest.raises(ReadError, match="ended before its first event"):
            stream.mean("a")
        assert not hasattr(stream, "_private")


def test_an_error_of_the_tap_reaches_the_user():
    class Broken(ListTap):
        def receive(self, seconds):
            raise ReadError("the cable is cut")

    with Stream(Broken("xtc2", [])) as stream, pytest.raises(ReadError, match="the cable is cut"):
        next(stream.follow())


@pytest.mark.parametrize("url", ["tcp://127.0.0.1:1", "shmem://nobody_is_here"])
def test_open_takes_streams(url):
    with pytest.raises(ReadError, match=r"nobody answers|no server of this tag"):
        psana_dask.open(url, timeout=0.2)


def test_open_takes_live_runs(closed):
    import os

    run = psana_dask.open(f"live:{os.path.dirname(closed.files[0])}")
    assert len(run) == len(closed)

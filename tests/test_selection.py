"""Choosing events: by condition, mask, time, word, position."""

import dask.array as da
import numpy as np
import pytest
import xarray as xr

import psana_dask
from psana_dask import simulate
from psana_dask.errors import DroppedWarning, EventNotFound
from psana_dask.simulate import Detector, RunSpec


def events(run):
    """Which events of the 100 a run holds."""
    return run._view.choice.numbers.tolist()


@pytest.fixture(scope="module")
def time(plain_run):
    return plain_run.events.time.values


MASK = np.random.default_rng(0).random(100) < 0.3
CHOSEN = np.flatnonzero(MASK).tolist()


def labelled(run):
    return xr.DataArray(MASK, {"time": run.events.time}, "time", name="bright")


MASKS = {
    "bare": lambda run: MASK,
    "list": lambda run: MASK.tolist(),
    "dask": lambda run: da.from_array(MASK, chunks=30),
    "labelled": labelled,
    "labelled, in another order": lambda run: labelled(run)[::-1],
    "labelled, dask": lambda run: labelled(run).chunk({"time": 30}),
    "labelled, without false ones": lambda run: labelled(run)[MASK],
    "from data": lambda run: run.cam.raw.max(("panel", "row", "col")) > 0,
}


@pytest.mark.parametrize("kind", list(MASKS)[:-1])
def test_masks(plain_run, kind):
    assert events(plain_run.select(MASKS[kind](plain_run))) == CHOSEN


def test_a_mask_from_lazy_data(plain, plain_run, expected):
    bright = plain_run.gmd.milliJoulesPerPulse > 1.0
    want = np.flatnonzero(expected(plain, "gmd", "milliJoulesPerPulse") > 1.0).tolist()
    assert events(plain_run.select(bright)) == want
    assert 0 < len(want) < 100


def test_a_labelled_mask_is_aligned_with_a_selection(plain_run):
    half = plain_run.isel(slice(1, None, 2))
    mask = labelled(plain_run)
    mask_of_half = mask[1::2]
    want = [e for e in CHOSEN if e % 2]
    assert events(half.select(mask_of_half)) == want
    with pytest.warns(
        DroppedWarning, match=f"{len(CHOSEN) - len(want)} events of the mask are not in this run"
    ):
        assert events(half.select(mask)) == want
    assert events(plain_run.select(mask_of_half)) == want  # absent is False


@pytest.mark.parametrize("mask", [np.ones(99, bool), np.ones((100, 1), bool), da.ones(7, dtype=bool)])
def test_a_bare_mask_needs_one_value_per_event(plain_run, mask):
    with pytest.raises(ValueError, match=r"a mask of shape .* for 100 events: one value per event is needed"):
        plain_run.select(mask)


def test_times_and_words(plain, plain_run, time):
    wanted = [70, 3, 3]
    pairs = [(int(w) >> 32, int(w) & 0xFFFFFFFF) for w in plain.timestamps[wanted]]
    for keys in (time[wanted], time[wanted].astype(str).tolist(), plain.timestamps[wanted], pairs):
        assert events(plain_run.select(keys)) == wanted
        assert events(plain_run.sel(keys)) == wanted
    assert events(plain_run.sel(str(time[8]))) == [8]
    assert events(plain_run.sel(int(plain.timestamps[8]))) == [8]
    assert events(plain_run.sel(pairs[0])) == [70]


def test_a_time_of_the_event_table(plain, plain_run, time):
    table = plain_run.events
    for key in (table.time[8], table.timestamp[8], table.indexes["time"][8]):
        assert events(plain_run.sel(key)) == events(plain_run.select(key)) == [8]
        assert plain_run.event(key).time.values == time[8]
    assert events(plain_run.sel([table.time[8], table.time[3]])) == [8, 3]


SLICES = {
    "both ends": (lambda t: slice(t[10], t[20]), range(10, 21)),
    "text": (lambda t: slice(str(t[10]), str(t[20])), range(10, 21)),
    "between": (lambda t: slice(t[10] + 1, t[20] - 1), range(11, 20)),
    "open end": (lambda t: slice(t[95], None), range(95, 100)),
    "open start": (lambda t: slice(None, t[3]), range(4)),
    "outside": (lambda t: slice("2000", "2001"), range(0)),
    "positions": (lambda t: slice(10, 20), range(10, 20)),
    "positions from the end": (lambda t: slice(-5, None, 2), range(95, 100, 2)),
}


@pytest.mark.parametrize("kind", SLICES)
def test_slices(plain_run, time, kind):
    make, want = SLICES[kind]
    assert events(plain_run.select(make(time))) == list(want)
    assert events(plain_run.sel(make(time))) == list(want)


def test_a_slice_of_words(plain, plain_run):
    first, last = (int(w) for w in plain.timestamps[[5, 8]])
    assert events(plain_run.sel(slice(first, last))) == [5, 6, 7, 8]


def test_a_slice_of_times_takes_no_step(plain_run, time):
    with pytest.raises(ValueError, match=r"a slice of times takes no step; select, then isel"):
        plain_run.sel(slice(time[1], time[9], 2))


def test_positions(plain_run):
    assert events(plain_run.isel(7)) == [7]
    assert events(plain_run.isel(time=-1)) == [99]
    assert events(plain_run.isel([5, 2, 5])) == [5, 2, 5]
    assert events(plain_run.isel(slice(None, None, 50))) == [0, 50]
    assert events(plain_run.isel(MASK)) == CHOSEN
    with pytest.raises(IndexError, match="index 100 is out of bounds"):
        plain_run.isel(100)


NEAR = {
    ("nearest", 4_000_000): 30,  # events are 8.3 ms apart
    ("nearest", 4_500_000): 31,
    ("nearest", -1): 30,
    ("ffill", 1): 30,
    ("pad", 8_333_332): 30,
    ("ffill", 0): 30,
    ("bfill", 1): 31,
    ("backfill", 0): 30,
    ("bfill", -1): 30,
}


@pytest.mark.parametrize(("method", "distance"), NEAR)
def test_near_events(plain_run, time, method, distance):
    run = plain_run.sel(time[30] + distance, method=method)
    assert events(run) == [NEAR[method, distance]]
    assert plain_run.event(time[30] + distance, method).time.values == time[NEAR[method, distance]]


def test_nearest_at_the_ends(plain_run, time):
    assert events(plain_run.sel(["2000-01-01", "2100-01-01"], method="nearest")) == [0, 99]
    for method, key in (("ffill", time[0] - 1), ("bfill", time[99] + 1)):
        with pytest.raises(EventNotFound, match="no event with time"):
            plain_run.sel(key, method=method)


@pytest.mark.parametrize("words", [False, True])
def test_tolerance(plain, plain_run, time, words):
    key = int(plain.timestamps[30]) + 1000 if words else time[30] + 1000
    assert events(plain_run.sel(key, method="nearest", tolerance=np.timedelta64(1, "us"))) == [30]
    with pytest.raises(EventNotFound, match=r"no event with .* 0.000001000 s away"):
        plain_run.sel(key, method="nearest", tolerance=np.timedelta64(999, "ns"))


def test_words_do_not_wrap_at_a_second(tmp_path):
    stamps = [(7 << 32) + 999_999_999, (8 << 32) + 500_000_000]
    detector = Detector(name="g", kind="gmd")
    simulate.write(RunSpec(events=2, timestamps=stamps, detectors=(detector,)), tmp_path)
    run = psana_dask.open(tmp_path)
    assert events(run.sel((8, 0), method="nearest")) == [0]
    assert events(run.sel((8, 400_000_000), method="nearest")) == [1]


def test_a_miss_names_the_nearest_event_and_its_distance(plain, plain_run, time):
    with pytest.raises(
        EventNotFound, match=rf"no event with time .*; the nearest is {time[30]}, 0.001000000 s"
    ):
        plain_run.sel(time[30] + 1_000_000)
    word = int(plain.timestamps[30])
    with pytest.raises(
        EventNotFound, match=rf"timestamp {word - 2}; the nearest is {word}, 0.000000002 s away"
    ):
        plain_run.event(word - 2)
    with pytest.raises(KeyError, match=r'method="nearest" takes it; run.isel\(time=...\) goes by position'):
        plain_run.sel([time[3], time[3] + 1])


def test_words_match_the_file_and_never_the_moved_time(tmp_path):
    stamps = [1000, 1000, 1000]
    simulate.write(
        RunSpec(events=3, timestamps=stamps, detectors=(Detector(name="g", kind="gmd"),)), tmp_path
    )
    with pytest.warns(psana_dask.errors.PartialRunWarning, match="is moved by 1 ns"):
        run = psana_dask.open(tmp_path)
    assert run.events.timestamp.values.tolist() == stamps
    assert events(run.sel(run.events.time.values[2])) == [2]
    with pytest.raises(EventNotFound, match="timestamp 1001; the nearest is 1000"):
        run.sel((0, 1001))


def test_an_unknown_method(plain_run, time):
    with pytest.raises(ValueError, match='method=\'near\': use "nearest", "ffill" or "bfill"'):
        plain_run.sel(time[0], method="near")


def test_an_empty_run_has_no_events(plain_run, time):
    empty = plain_run.select(np.zeros(100, bool))
    assert len(empty) == 0
    assert empty.cam.raw.shape == (0, 2, 8, 12)
    assert np.isnat(empty.start)
    assert "0 of 100 events" in repr(empty)
    with pytest.raises(EventNotFound, match="no event: the run, or what was selected of it, is empty"):
        empty.sel(time[0])


def test_selections_compose_and_say_so(plain_run, time):
    run = plain_run.select(slice(time[10], time[59])).isel(slice(None, None, 5))
    assert events(run) == list(range(10, 60, 5))
    again = run.select(run.gmd.milliJoulesPerPulse > 0).sel(time[[20, 15]])
    assert events(again) == [20, 15]
    assert "2 of 100 events (" in repr(again)
    assert "isel ::5, mask gmd_milliJoulesPerPulse" in repr(again)
    assert events(plain_run) == list(range(100))


def test_a_selection_keeps_the_detectors_that_were_chosen(plain):
    run = psana_dask.open(plain.folder, detectors=["cam"])
    assert list(run.detectors) == list(run.isel(slice(3)).detectors) == ["cam"]
    with pytest.raises(psana_dask.errors.NameNotFound, match="no detector 'gmd'"):
        run["gmd"]


def test_a_detector_that_is_asked_for_must_exist(plain):
    with pytest.raises(psana_dask.errors.NameNotFound, match=r"no detector 'cma'; did you mean cam\?"):
        psana_dask.open(plain.folder, detectors=["cma"])

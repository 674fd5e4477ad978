"""What live plots accumulate is what the run has; what cannot be processed in time is counted."""

import threading
import time
import warnings
from time import monotonic

import numpy as np
import pytest
import xarray as xr

import psana_dask
from psana_dask import simulate
from psana_dask.drawing import side_by_side
from psana_dask.errors import NameNotFound, ReadError
from psana_dask.pages.feed import Feed
from psana_dask.pages.following import AsTaken, due_times, following
from psana_dask.pages.framing import picture_from
from psana_dask.pages.thinning import block_means
from psana_dask.simulate import Detector, RunSpec
from psana_dask.stream.batches import Counters
from psana_dask.stream.followed import LiveRun
from psana_dask.stream.replay import moments
from psana_dask.stream.sending import Sender, serve

FAST = 1e6  # events a second: as fast as they are taken


def finished(events, names, **choices):
    feed = Feed(events, names, **choices).start()
    deadline = monotonic() + 120
    while not feed.ended and monotonic() < deadline:
        time.sleep(0.01)
    assert feed.ended
    return feed


@pytest.fixture(scope="module")
def shown(rich_run):
    return finished(following(rich_run, "complete", FAST), ["epix.raw", "gmd", "wave", "tt.raw"])


def test_every_event_is_processed(shown, rich_run):
    assert shown.error is None
    c = shown.counters
    assert (c.received, c.processed, c.dropped) == (len(rich_run), len(rich_run), 0)
    assert shown.snapshot.numbers.time.tolist() == rich_run.events.time.values.tolist()


def test_numbers_are_those_of_the_run(shown, rich_run):
    ds = rich_run.dataset("gmd", join="outer")
    columns = shown.snapshot.numbers.columns
    assert len(columns) == 2
    for name, values in columns.items():
        field = name.removeprefix("gmd_")
        expected = ds[name].where(ds.gmd_present).values.astype(float)
        np.testing.assert_array_equal(values, expected, err_msg=field)


def test_frames_and_means_are_those_of_the_run(shown, rich_run):
    snapshot = shown.snapshot
    for name, field in (("epix_raw", "epix.raw"), ("wave_raw", "wave.raw"), ("tt_raw", "tt.raw")):
        mean = rich_run.mean(field)
        np.testing.assert_array_equal(snapshot.mean(name).values, mean.values, strict=True)
        latest = rich_run[field].sel(time=snapshot.time_of(name)).load()
        np.testing.assert_array_equal(snapshot.latest(name).values, latest.values)
    assert snapshot.frames == ("epix_raw", "tt_raw")
    assert snapshot.lines == ("wave_raw",)
    assert snapshot.time_of("tt_raw") < snapshot.time_of("epix_raw")  # it comes less often


def test_the_dataset_holds_all_of_it(shown):
    ds = shown.snapshot.dataset
    assert {"epix_raw", "epix_raw_mean", "wave_raw", "wave_raw_mean", "tt_raw", "tt_raw_mean"} < set(ds)
    assert ds.sizes["time"] == ds.attrs["processed"] == 40
    assert ds.epix_raw.dims[-2:] != ds.tt_raw.dims  # two sensors of different size in one Dataset


def test_pixels_become_images_with_constants_or_without(tmp_path):
    epix = Detector(name="epix", kind="epix10ka", segments=4, shape=(352, 384))
    spec = RunSpec(events=6, detectors=(epix,))
    run = psana_dask.open(simulate.write(spec, tmp_path).folder)
    raw = finished(following(run, "complete", FAST), ["epix"]).snapshot.latest("epix_image")
    assert raw.attrs["calibrated"] is False
    assert raw.dims == ("y", "x")
    pedestals = np.full((7, 4, 352, 384), 7, np.float32)
    with_constants = psana_dask.open(tmp_path, calib={"pedestals": pedestals})
    snapshot = finished(following(with_constants, "complete", FAST), ["epix"]).snapshot
    image = with_constants.epix.image
    np.testing.assert_array_equal(snapshot.latest("epix_image"), image.isel(time=-1))
    np.testing.assert_array_equal(snapshot.mean("epix_image"), with_constants.mean("epix.image"))


def test_only_so_many_numbers_are_kept(plain_run):
    snapshot = finished(following(plain_run, "complete", FAST), ["gmd"], kept=10, means=False).snapshot
    assert 10 <= len(snapshot.numbers.time) <= 10 + 64  # whole batches
    assert snapshot.numbers.time[-1] == plain_run.events.time.values[-1]


def test_without_means_there_are_none(plain_run):
    snapshot = finished(following(plain_run, "complete", FAST), ["cam"], means=False).snapshot
    assert list(snapshot.dataset) == list(snapshot.frames)
    with pytest.raises(ReadError, match="no means are made"):
        snapshot.mean(*snapshot.frames)


def test_a_window_of_means(plain_run):
    feed = finished(following(plain_run, "complete", 3000.0), ["cam.raw"], window=20)
    mean = feed.snapshot.mean("cam_raw")
    last = int(mean.cam_events)
    assert 20 <= last < 100
    expected = plain_run.isel(slice(-last, None)).mean("cam.raw")
    np.testing.assert_array_equal(mean.values, expected.values)


def test_means_begin_anew(plain_run):
    feed = Feed(following(plain_run, "complete", 200.0), ["cam.raw"]).start()
    feed.newer(3, 60)
    feed.restart()
    while not feed.ended:
        time.sleep(0.01)
    events = int(feed.snapshot.mean("cam_raw").cam_events)
    assert 0 < events < 100
    assert feed.snapshot.since == plain_run.events.time.values[-events]
    np.testing.assert_array_equal(
        feed.snapshot.mean("cam_raw").values, plain_run.isel(slice(-events, None)).mean("cam.raw").values
    )


class Slow:
    """A name that takes long to look at: the reader falls behind."""

    def __init__(self, feed):
        self.take, feed._take = feed._take, self

    def __call__(self, view):
        time.sleep(0.05)
        self.take(view)


def test_a_slow_reader_drops_and_counts_only_under_latest(plain_run):
    for policy in ("latest", "complete"):
        feed = Feed(following(plain_run, policy, 1e5), ["gmd"], means=False)
        Slow(feed)
        feed.start()
        while not feed.ended:
            time.sleep(0.01)
        c = feed.counters
        assert c.received == 100
        assert c.processed + c.dropped == 100
        assert (c.dropped > 0) == (policy == "latest")
        assert len(feed.snapshot.numbers.time) == c.processed
        assert feed.snapshot.view.time[-1] == plain_run.events.time.values[-1]


def test_a_replay_goes_at_the_pace_the_run_was_taken_with_short_pauses():
    time = np.array([0, 10, 20, 60_000, 60_010], "M8[ms]").astype("M8[ns]")
    np.testing.assert_allclose(due_times(time), [0, 0.01, 0.02, 1.02, 1.03], rtol=1e-12)
    assert due_times(time[:0]).size == 0


def test_a_replay_as_taken(plain_run):
    events = following(plain_run)
    assert isinstance(events, AsTaken)
    began = monotonic()
    feed = finished(events, ["gmd"], means=False)
    assert feed.counters.processed == 100
    assert monotonic() - began > 99 / 120  # never faster than it was taken


def test_a_run_that_is_being_written(tmp_path):
    spec = RunSpec(events=300, detectors=(Detector(name="gmd", kind="gmd"),))
    truth = simulate.write(spec, tmp_path / "whole")
    live = tmp_path / "live"
    live.mkdir()
    files = sorted(p for p in truth.folder.rglob("*.xtc2") if "smalldata" not in str(p))
    assert len(files) == 1
    content = files[0].read_bytes()
    growing = live / (files[0].name + ".inprogress")
    growing.write_bytes(content[: len(content) * 3 // 4])
    run = psana_dask.open(live, live=True)
    events = following(run)
    assert isinstance(events, LiveRun)
    feed = Feed(events, ["gmd"]).start()
    first = feed.newer(0, 60)
    assert 0 < len(first.numbers.time) < 300
    with growing.open("ab") as file:
        file.write(content[len(content) * 3 // 4 :])
    growing.rename(live / files[0].name)
    deadline = monotonic() + 60
    while not feed.ended and monotonic() < deadline:
        time.sleep(0.02)
    assert feed.error is None
    assert len(feed.snapshot.numbers.time) == feed.counters.processed
    assert feed.counters.received == 300
    feed.close()


def test_closing_does_not_wait_for_a_run_that_goes_on(tmp_path):
    spec = RunSpec(events=300, detectors=(Detector(name="gmd", kind="gmd"),), smalldata=False)
    truth = simulate.write(spec, tmp_path)
    (path,) = truth.folder.rglob("*.xtc2")
    content = path.read_bytes()
    path.with_name(path.name + ".inprogress").write_bytes(content[: len(content) * 3 // 4])
    path.unlink()
    feed = Feed(following(psana_dask.open(tmp_path, live=True)), ["gmd"]).start()
    assert feed.newer(0, 60) is not None
    assert not feed.ended
    began = monotonic()
    feed.close()
    assert monotonic() - began < 5
    assert feed.error is None


class Two:
    """Events of one run, then of another, as a stream brings them."""

    counters = Counters()

    def __init__(self, *runs):
        self._runs = runs

    def runs(self, batch, timeout, gather=0.0):
        for run in self._runs:
            yield from (run.isel(slice(k, k + batch)) for k in range(0, len(run), batch))

    def close(self):
        pass


def test_another_run_begins_anew(plain_run, tmp_path):
    detectors = (Detector(name="cam", kind="camera", shape=(6, 7)), Detector(name="gmd", kind="gmd"))
    spec = RunSpec(number=9, events=20, detectors=detectors)
    other = psana_dask.open(simulate.write(spec, tmp_path).folder)
    feed = finished(Two(plain_run, other), ["cam.raw", "gmd"])
    assert feed.error is None
    snapshot = feed.snapshot
    assert snapshot.latest("cam_raw").shape == (6, 7)
    np.testing.assert_array_equal(snapshot.mean("cam_raw").values, other.mean("cam.raw").values)
    assert snapshot.numbers.time.tolist() == other.events.time.values.tolist()
    assert snapshot.since == other.start


def test_a_stream_over_zmq(plain_run, free_port):
    url = f"tcp://127.0.0.1:{free_port}"

    def send():
        with Sender(url, plain_run.format) as sender:
            serve(sender, moments(plain_run._recording), None)
            sender.end()

    sending = threading.Thread(target=send)
    sending.start()
    with psana_dask.open(url) as stream:
        feed = finished(following(stream), ["cam.raw", "gmd"])
        assert feed.error is None
        assert feed.counters.processed == 100
        np.testing.assert_array_equal(feed.snapshot.mean("cam_raw").values, plain_run.mean("cam.raw").values)
    sending.join()


def test_an_error_of_the_reader_is_kept(plain_run):
    feed = finished(following(plain_run, "complete", FAST), ["camm"])
    assert isinstance(feed.error, NameNotFound)
    assert "did you mean cam?" in str(feed.error)


def test_closing_ends_the_thread(plain_run):
    feed = Feed(following(plain_run, "complete", 1.0), ["gmd"]).start()
    assert feed.newer(0, 60) is not None
    began = monotonic()
    feed.close()
    assert monotonic() - began < 5
    assert feed.ended


def test_live_says_at_once_that_a_name_is_wrong(plain_run):
    with pytest.raises(NameNotFound, match="did you mean cam"):
        psana_dask.plot.live(plain_run, ["camm"])
    with pytest.raises(TypeError, match="calib: for a source that is opened here"):
        psana_dask.plot.live(plain_run, ["cam"], calib="x")
    with pytest.raises(ValueError, match="'newest': use"):
        psana_dask.plot.live(plain_run, ["cam"], policy="newest")


# ---- pixels for the screen ----------------------------------------------------------------------
@pytest.mark.parametrize("step", [1, 2, 3, 7, 50])
def test_block_means_are_those_of_numpy(step):
    rng = np.random.default_rng(step)
    values = rng.normal(5, 2, (37, 53)).astype(np.float32)
    values[rng.random(values.shape) < 0.3] = np.nan
    values[:9, :9] = np.nan
    padded = np.full((-(-37 // step) * step, -(-53 // step) * step), np.nan)
    padded[:37, :53] = values
    blocks = padded.reshape(padded.shape[0] // step, step, padded.shape[1] // step, step)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy warns of blocks without a number
        expected = np.nanmean(blocks, axis=(1, 3))
    # sums of at most 2500 float32 in order: each addition rounds by 6e-8 of the sum
    np.testing.assert_allclose(block_means(values, step), expected, rtol=2e-5)


def test_panels_lie_side_by_side_and_images_in_millimetres():
    panels = np.arange(3 * 2 * 5.0).reshape(3, 2, 5)
    laid = side_by_side(panels, gap=1)
    assert laid.shape == (2 * 3 - 1, 2 * 6 - 1)
    np.testing.assert_array_equal(laid[3:, :5], panels[2])
    assert np.isnan(laid[2]).all()
    x = 1e-3 * np.array([3.0, 2.0, 1.0])
    image = xr.DataArray(np.zeros((2, 3)), {"y": [0.002, 0.001], "x": x}, ("y", "x"))
    picture = picture_from(image)
    assert picture.unit == "mm"
    np.testing.assert_allclose((*picture.x, *picture.y), (3.5, 0.5, 2.5, 0.5), rtol=1e-12)

"""Streams that the workers of a Dask client read: several taps at once, their results merged."""

import os
import signal
import sys
import threading
import time
import uuid
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

import psana_dask
from psana_dask.errors import FunctionError, ReadError
from psana_dask.model import EventTable
from psana_dask.stream import open_stream
from psana_dask.stream.opened import Opening
from psana_dask.stream.replay import moments
from psana_dask.stream.shmem_server import ShmemServer, _serve
from psana_dask.stream.taps import Share

distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="POSIX message queues are Linux only")


@pytest.fixture(scope="module")
def client():
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        distributed.Client(cluster, set_as_default=False) as made,
    ):
        yield made


@pytest.fixture(autouse=True)
def _all_workers(client):
    """Wait for the worker that takes the place of one which the last test has killed."""
    try:
        client.wait_for_workers(2, timeout=30)
    except TimeoutError:  # once in many kills a nanny starts none
        client.cluster.scale(3)
        client.wait_for_workers(2, timeout=60)


@pytest.fixture(scope="module", params=["xtc2", "xtc"])
def closed(request, tmp_path_factory, write_small_run):
    return psana_dask.open(write_small_run(tmp_path_factory.mktemp("small"), request.param, 40))


@pytest.fixture
def taps(closed):
    """Two servers on this machine, each with its own half of a run."""
    tags = [f"test_{uuid.uuid4().hex[:12]}" for _ in range(2)]
    halves = [closed.isel(slice(0, 20)), closed.isel(slice(20, None))]
    threads = [threading.Thread(target=serve, args=(t, h)) for t, h in zip(tags, halves, strict=True)]
    [t.start() for t in threads]
    yield [f"shmem://localhost/{tag}" for tag in tags]
    [t.join() for t in threads]


def serve(tag, run):
    """Serve the events of a run as soon as somebody is there to take them."""
    events, numbers = run._recording.events, run._view.choice.numbers
    table = EventTable(
        events.time[numbers], events.timestamp[numbers], events.step[numbers], events.rows[:, numbers], ()
    )
    recording = replace(run._recording, events=table)
    with ShmemServer(tag, run.format, 1 << 20, clients=1, buffers=4) as server:
        deadline = time.monotonic() + 20
        while not server.served.clients and time.monotonic() < deadline:
            time.sleep(0.02)
        _serve(server, run.format, moments(recording), None, 0.0, 5.0)


def frames(run):
    return "epixquad.raw" if run.format == "xtc2" else "epix100a.raw"


def last_of(iterator):
    with pytest.warns(psana_dask.errors.StreamWarning, match="no longer followed"):
        *_, last = iterator
    return last


def test_two_taps_are_merged(closed, taps, client):
    name = frames(closed)
    with open_stream(taps, client=client) as stream:
        what = ["mean", "std", "max", "count"]
        last = last_of(stream.reduce(what, name, by="step", timeout=1.5, every=0.2))
        assert stream.counters.processed == len(closed)
        assert stream.counters.dropped == 0
    want = closed.reduce(what, name, by="step")
    xr.testing.assert_identical(last.drop_attrs(), want.drop_attrs())  # sums of words are exact


def test_two_taps_without_workers(closed, taps):
    with open_stream(taps) as stream:
        last = last_of(stream.reduce("sum", frames(closed), timeout=1.5))
    assert np.array_equal(last.values, closed.sum(frames(closed)).values)


def test_functions_and_batches_of_workers(closed, taps, client):
    variable = frames(closed).replace(".", "_")

    def brightest(ds):
        return ds[variable].max([d for d in ds[variable].dims if d != "time"])

    with open_stream(taps, client=client) as stream, pytest.warns(psana_dask.errors.StreamWarning):
        made = xr.concat(list(stream.map(brightest, frames(closed), timeout=1.5)), "time").sortby("time")
    want = closed.map(brightest, frames(closed)).compute()
    assert np.array_equal(made.time, want.time)
    assert np.array_equal(made, want)


def test_workers_map_over_batches_without_the_detector(rich, rich_run, client):
    def brightest(ds):
        return ds.tt_raw.max(("row", "col"))

    with open_stream(f"replay://{rich.folder}", client=client) as stream:
        made = xr.concat(list(stream.map(brightest, "tt.raw", batch=1)), "time")
    xr.testing.assert_equal(made.drop_attrs(), rich_run.map(brightest, "tt.raw").compute().drop_attrs())


def test_runs_of_workers_have_everything(closed, taps, client):
    with open_stream(taps, client=client) as stream:
        runs = []
        for run in stream.follow_runs(timeout=None):
            runs.append(run)
            if sum(map(len, runs)) == len(closed):
                break
        assert set(stream.detectors) == set(closed.detectors)
    times = np.concatenate([r.events.time.values for r in runs])
    assert np.array_equal(np.sort(times), closed.events.time.values)
    detector, _ = frames(closed).split(".")
    got = {t: f for r in runs for t, f in zip(r.events.time.values, r[detector].raw.values, strict=True)}
    want = closed[detector].raw.values
    assert all(np.array_equal(got[t], w) for t, w in zip(closed.events.time.values, want, strict=True))


def test_one_source_shared_by_two_workers(closed, client):
    """A closed run as a stream: each worker takes its share of the batches."""
    folder = os.path.dirname(closed.files[0])
    with open_stream(f"replay://{folder}", client=client, readers=2) as stream:
        got = stream.sum(frames(closed), batch=4)
        assert stream.counters.processed == len(closed)
    assert np.array_equal(got.values, closed.sum(frames(closed)).values)


def test_readers_of_a_live_run_share_its_events_whatever_their_batches(closed):
    """Each looks at the files at other times: what is whose must not depend on what came together."""
    folder, times = os.path.dirname(closed.files[0]), []
    for reader, batch in enumerate((3, 7)):
        batches = Opening(f"live:{folder}", {}, Share(reader, 2)).batches()
        times.append(np.concatenate([r.events.time.values for r in batches.runs(batch, 5.0)]))
        assert batches.counters.received == batches.counters.processed == len(times[-1])
    assert abs(len(times[0]) - len(times[1])) <= 8
    assert np.array_equal(np.sort(np.concatenate(times)), closed.events.time.values)


@pytest.mark.parametrize(("rate", "patience"), [(None, 5.0), (200.0, 0.0)])
def test_one_shared_memory_shared_by_two_workers(closed, client, rate, patience):
    """Each event is taken once, by either; only what the server itself drops is missing."""
    tag, name = f"test_{uuid.uuid4().hex[:12]}", frames(closed)
    done = []
    with ShmemServer(tag, closed.format, 1 << 20, clients=3, buffers=6) as server:  # a client never comes

        def go():
            while server.served.clients < 2:
                time.sleep(0.02)
            _serve(server, closed.format, moments(closed._recording), rate, 0.0, patience)
            done.append(server.served)

        thread = threading.Thread(target=go)
        thread.start()
        with open_stream(f"shmem://{tag}", client=client, readers=2) as stream:
            last = last_of(stream.reduce(["sum", "count"], name, timeout=2.0, batch=1, every=0.2))
            processed, missed = stream.counters.processed, stream.counters.missed
        thread.join()
    sent = len(closed) - done[0].dropped - done[0].taken_back
    assert (processed, missed) == (sent, 0)  # also what one passes on when the other has seen the Disable
    assert int(last[f"{name.replace('.', '_')}_count"].max()) <= processed
    if not done[0].dropped + done[0].taken_back:
        want = closed.sum(name)
        assert np.array_equal(last[f"{name.replace('.', '_')}_sum"].values, want.values)


def test_one_worker_gives_the_bits_of_floats_too(closed, client):
    folder = os.path.dirname(closed.files[0])
    name = {"xtc2": "gmd.milliJoulesPerPulse", "xtc": "acqiris.raw"}[closed.format]

    def weird(ds):
        return (ds[name.replace(".", "_")].astype(float) ** 1.5).sum()

    with open_stream(f"replay://{folder}", client=client) as stream:
        *_, last = stream.reduce(["mean", "var"], name, half_life=5.0, batch=3)
        xr.testing.assert_identical(
            last.drop_attrs(), closed.reduce(["mean", "var"], name, half_life=5.0).drop_attrs()
        )
        *_, last = stream.reduce(weird, name, batch=7)
        assert last == closed.reduce(weird, name)


def test_errors_reach_the_client(closed, client):
    def failing(ds):
        raise RuntimeError("no such luck")

    folder = os.path.dirname(closed.files[0])
    with (
        open_stream(f"replay://{folder}", client=client) as stream,
        pytest.raises(FunctionError, match="no such luck"),
    ):
        list(stream.reduce(failing, frames(closed)))
    with pytest.raises(ReadError, match=r"no worker on nowhere\.example; there are workers on"):
        open_stream("shmem://nowhere.example/AMO", client=client)
    with pytest.raises(ReadError, match=r"no server of this tag"):
        open_stream("shmem://nobody", client=client, timeout=0.2)


def test_shared_memory_of_another_machine_is_explained():
    with pytest.raises(ReadError, match=r"open it with a dask client that has a worker on nowhere\.example"):
        open_stream("shmem://nowhere.example/AMO")


def test_a_worker_that_dies_is_replaced(closed, client):
    """What it had told remains; another worker goes on, and the counters say so."""
    folder = os.path.dirname(closed.files[0])
    source = f"replay://{folder}?rate=60&loop"
    with open_stream(source, client=client) as stream:
        seen = []
        for result in stream.reduce("count", frames(closed), every=0.2):
            seen.append(int(result.max()))
            if len(seen) == 2:
                os.kill(client.run(os.getpid)[stream._batches._readers[0].address], signal.SIGKILL)
            if stream.counters.restarts and seen[-1] > seen[1] + 10:
                break
            assert len(seen) < 200
    assert seen == sorted(seen)
    assert stream.counters.restarts == 1
    time.sleep(0.1)


@pytest.mark.parametrize("readers", [1, 2])
def test_no_event_of_a_file_counts_twice_when_a_worker_dies(closed, client, readers):
    folder = os.path.dirname(closed.files[0])
    with open_stream(f"replay://{folder}?rate=20", client=client, readers=readers) as stream:
        results = []
        for result in stream.reduce(["count", "sum"], frames(closed), every=0.2):
            results.append(result)
            if len(results) == 2:
                os.kill(client.run(os.getpid)[stream._batches._readers[0].address], signal.SIGKILL)
    assert stream.counters.restarts == 1
    xr.testing.assert_equal(results[-1], closed.reduce(["count", "sum"], frames(closed)))


def test_every_event_of_a_file_is_mapped_once_when_a_worker_dies(closed, client):
    folder, variable = os.path.dirname(closed.files[0]), frames(closed).replace(".", "_")

    def first_row(ds):
        return ds[variable].isel(row=0)

    with open_stream(f"replay://{folder}?rate=20", client=client) as stream:
        times, killed = [], False
        for made in stream.map(first_row, frames(closed)):
            times += made.time.values.tolist()
            if len(times) > 5 and not killed:
                os.kill(client.run(os.getpid)[stream._batches._readers[0].address], signal.SIGKILL)
                killed = True
    assert stream.counters.restarts == 1
    assert times == closed.map(first_row, frames(closed)).time.values.tolist()

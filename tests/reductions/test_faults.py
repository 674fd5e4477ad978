"""What goes wrong on workers: right results, or one clear error; never a hang."""

import os
import signal
import threading
import time
from contextlib import contextmanager

import dask
import distributed
import numpy as np
import pytest

import psana_dask
from psana_dask import simulate
from psana_dask.errors import FunctionError, PsanaError, ReadError
from psana_dask.options import current
from psana_dask.reductions import compute
from psana_dask.simulate import Detector, RunSpec

pytestmark = [
    pytest.mark.timeout(120),
    # distributed tells of workers that are killed, which is the point here
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


@contextmanager
def workers(folder, **options):
    """Two worker processes with a cache folder of their own."""
    folder.mkdir()
    (folder / "kernels").symlink_to((current().cache_folder() / "kernels").resolve())
    given = {"threads_per_worker": 1, "dashboard_address": ":0", "env": {"PSANA_DASK_CACHE": str(folder)}}
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 10}),
        distributed.LocalCluster(n_workers=2, **given, **options) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with workers(tmp_path_factory.mktemp("faults") / "cache", silence_logs=50) as client:
        yield client


@pytest.fixture
def here():
    """Compute without the client that is active."""

    def computed(function, *args, **kwargs):
        with dask.config.set(scheduler="threads"):
            return function(*args, **kwargs)

    return computed


@pytest.fixture
def fresh(tmp_path):
    """A run of its own, that a test may spoil, in two parts."""
    spec = RunSpec(events=200, detectors=(Detector(name="big", shape=(64, 64)),), cuts={0: (120,)})
    truth = simulate.write(spec, tmp_path / "run")
    return truth, psana_dask.open(truth.folder)


@pytest.mark.parametrize("name", ["wild.raw", "jf.calib"])
def test_results_on_workers_have_the_same_bits(client, run, here, monkeypatch, name):
    for level in (0, 1):
        monkeypatch.setattr(compute, "task_level", lambda events, nbytes, level=level: level)
        found = run.reduce(["mean", "var", "max"], name, by="step")
        assert found.identical(here(run.reduce, ["mean", "var", "max"], name, by="step"))
    assert client.scheduler_info()["workers"]


def test_few_tasks_are_spread_over_the_workers(client, run):
    client.get_task_stream()  # the scheduler begins to keep it
    for _ in range(5):  # the scheduler by itself sends them to one worker more often than not
        began = time.time()
        run.sum("jf.raw")
        tasks = [t for t in client.get_task_stream(start=began) if "accumulate_piece" in str(t["key"])]
        assert len(tasks) == len({t["worker"] for t in tasks}) == 2


def test_two_workers_are_killed(client, run, here, monkeypatch):
    monkeypatch.setattr(compute, "task_level", lambda events, nbytes: 0)

    def slow(ds):
        time.sleep(0.1)
        return ds.wild_raw.sum("time")

    expected = here(run.reduce, lambda ds: ds.wild_raw.sum("time"), "wild.raw")
    pids = list(client.run(os.getpid).values())
    killer = threading.Timer(0.4, lambda: [os.kill(pid, signal.SIGKILL) for pid in pids])
    killer.start()
    found = run.reduce(slow, "wild.raw")
    killer.join()
    assert found.values.tobytes() == expected.values.tobytes()
    client.wait_for_workers(2, timeout=60)
    assert set(client.run(os.getpid).values()).isdisjoint(pids)
    mean = run.mean("wild.raw")  # and they go on working
    assert mean.identical(here(run.mean, "wild.raw"))


def test_a_file_that_vanished_is_named(client, fresh):
    truth, run = fresh
    truth.files[0].unlink()
    with pytest.raises(ReadError, match=r"s000-c000\.xtc2: No such file.*events \d+ to \d+ of"):
        run.mean("big.raw")


def test_a_part_that_shrank_is_named_with_its_event(client, fresh, here):
    truth, run = fresh
    expected = here(run.isel(slice(0, 100)).mean, "big.raw")
    part = truth.files[1]
    part.write_bytes(part.read_bytes()[: part.stat().st_size // 2])
    with pytest.raises(PsanaError, match=r"-c000|-c001\.xtc2"):
        run.mean("big.raw")
    shrank = r"c001\.xtc2: wanted 8192 bytes .* \(event 2024-06-14T06:12:04\.\d+\)"
    with pytest.raises(ReadError, match=shrank):
        here(run.mean, "big.raw")
    assert expected.shape == (64, 64)


def test_an_error_of_the_users_function_comes_back_once(client, run):
    bad = run.events.time.values[222]

    def picky(ds):
        if (ds.time == bad).any():
            raise ValueError("not this one")
        return ds.wild_x.sum("time")

    where = rf"picky failed at event {str(bad)[:26]}.* in .*-s000-c000\.xtc2: ValueError: not this one"
    with pytest.raises(FunctionError, match=where):
        run.reduce(picky, "wild.x")
    assert float(run.mean("wild.x")) == pytest.approx(float(run.wild.x.mean()))  # nothing is left behind


def test_an_interrupt_takes_the_tasks_back(client, run, monkeypatch):
    monkeypatch.setattr(compute, "task_level", lambda events, nbytes: 0)

    def endless(ds):
        time.sleep(0.5)
        return ds.wild_x.sum("time")

    main = threading.main_thread().ident
    timer = threading.Timer(1.0, lambda: signal.pthread_kill(main, signal.SIGINT))
    timer.start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run.reduce(endless, "wild.x")
    assert time.monotonic() - began < 20
    deadline = time.monotonic() + 20
    while any(client.processing().values()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(client.processing().values())
    assert float(run.sum("wild.n")) == float(run.wild.n.sum())


def test_small_data_on_workers(client, run, here, tmp_path):
    def row(event):
        return {"x": event["wild.x"], "at": event.position}

    found = run.smalldata(row, tmp_path / "x.h5", every=120)
    assert found.identical(here(run.smalldata, row, tmp_path / "y.h5"))
    np.testing.assert_array_equal(found.at, np.arange(300))
    lazy = run.map(lambda ds: ds.wild_raw * 2, "wild.raw")
    np.testing.assert_array_equal(lazy.values, run.wild.raw.values * 2)

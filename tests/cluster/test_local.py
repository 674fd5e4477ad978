"""Workers on this machine: their environment, death, Ctrl-C."""

import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import dask
import distributed
import numpy as np
import pytest

import psana_dask
from psana_dask import cluster
from psana_dask.cluster.sizes import least_memory, malloc_settings, worker_size
from psana_dask.options import current

MEMORY = 4 * 2**30


@pytest.fixture(scope="module")
def environment():
    """What is in the environment before workers are started; other clusters of Dask leave something there."""
    return dict(os.environ)


@pytest.fixture(scope="module")
def client(environment):
    with cluster.local(2, threads=1, memory=MEMORY) as running:
        yield running


def initial_environment():
    """Return the environment that the process was started with: what its allocator has read."""
    pairs = Path("/proc/self/environ").read_bytes().decode().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


def test_the_settings_are_in_the_workers_from_their_start(client):
    wanted = malloc_settings(MEMORY // 2) | {"PSANA_DASK_CACHE": str(current().cache_folder())}
    for found in client.run(initial_environment).values():
        assert {name: found.get(name) for name in wanted} == wanted
        assert found["OMP_NUM_THREADS"] == "1"  # what Dask sets besides stays


def test_the_environment_of_this_process_stays_as_it_was(client, environment):
    """Programs that are started later do not inherit what is for workers only."""
    assert client.nthreads()
    for name in (*malloc_settings(MEMORY), "PYTHONHASHSEED", "OMP_NUM_THREADS"):
        assert os.environ.get(name) == environment.get(name), name



def page_faults_of_a_second_chunk():
    """Return how many pages the system had to provide for a chunk after another one was freed."""
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        np.empty(32 * 2**20, np.uint8).fill(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(sys.platform != "linux", reason="page faults of glibc")
def test_workers_reuse_the_memory_of_a_freed_chunk(client):
    # 8192 pages of 4 KiB when it is given back in between, as Dask's own settings do
    assert all(faults < 100 for faults in client.run(page_faults_of_a_second_chunk).values())


def test_workers_are_cut_as_asked(client):
    def cut(dask_worker):
        return dask_worker.state.nthreads, dask_worker.memory_manager.memory_limit, current().read_threads

    assert list(client.run(cut).values()) == [(1, MEMORY // 2, 1)] * 2


def test_it_is_the_active_client_and_stands_for_its_cluster(client):
    assert distributed.get_client() is client
    assert client.scheduler_address == client.cluster.scheduler_address
    with distributed.Client(client, set_as_default=False) as other:
        assert other.submit(sum, [1, 2]).result() == 3
    with pytest.raises(AttributeError, match="no_such_thing"):
        client.no_such_thing  # noqa: B018


def test_a_killed_worker_comes_back_and_the_result_is_right(client, rich_run):
    raw = rich_run.epix.field("raw", chunks={"time": 1}).astype("u8")
    before = client.run(os.getpid)
    victim = next(iter(before.values()))

    def slowly(block):
        time.sleep(0.05)
        return block

    future = client.compute(raw.data.map_blocks(slowly, dtype="u8").sum(axis=0))
    time.sleep(0.3)
    assert not future.done()
    os.kill(victim, signal.SIGKILL)
    np.testing.assert_array_equal(future.result(timeout=60), raw.values.sum(axis=0))
    client.wait_for_workers(2, timeout=30)
    assert victim not in client.run(os.getpid).values()
    assert len(client.run(os.getpid)) == 2


def test_an_interrupt_that_is_remembered_holds_no_tasks(client, monkeypatch):
    def tasks():
        return client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks))

    submit = client._graph_to_futures

    def interrupted(*args, **options):
        futures = submit(*args, **options)
        while tasks() < 20:
            time.sleep(0.05)
        raise KeyboardInterrupt(len(futures))

    monkeypatch.setattr(client, "_graph_to_futures", interrupted)
    with pytest.raises(KeyboardInterrupt) as remembered:  # its traceback refers to the futures
        dask.compute(*[dask.delayed(time.sleep)(5 + k) for k in range(20)])
    deadline = time.monotonic() + 10
    while tasks() > 2:  # what already sleeps cannot be stopped
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert remembered.type is KeyboardInterrupt


def interrupt(script, *arguments):
    """Run a script and interrupt its process group, as a terminal does; return what it says, and when."""
    command = [sys.executable, str(Path(__file__).parent / script), *arguments]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, start_new_session=True, **streams) as process:
        assert process.stdout.readline() == "computing\n"
        time.sleep(1)
        started = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)
        said, _ = process.communicate(timeout=60)
        return process.returncode, said, time.monotonic() - started


def test_ctrl_c_cancels_and_leaves_the_workers_alive():
    code, said, _ = interrupt("interrupted.py")
    assert code == 0
    # no traceback of a worker, no lost result; a busy machine may make Dask warn of slow heartbeats
    assert not re.search(r"Traceback|exception|Killed|Restarting", said), said
    found = re.search(r"cancelled after ([\d.]+)\nworkers 2\nanswer 3\n", said)
    assert found, said
    assert float(found[1]) < 20  # of 100 s


# ---- sizes --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("cores", "gigabytes", "expected"),
    [
        (1, 4, (1, 1)),
        (2, 24, (2, 1)),
        (4, 24, (2, 2)),
        (8, 32, (2, 4)),
        (128, 480, (32, 4)),
        (120, 480, (30, 4)),
    ],
)
def test_a_machine_is_cut_into_workers(cores, gigabytes, expected):
    size = worker_size(cores, gigabytes * 10**9)
    assert (size.workers, size.threads) == expected
    assert size.cores <= cores
    assert size.memory * size.workers <= gigabytes * 10**9


@pytest.mark.parametrize("gigabytes", [0.5, 1.6, 3, 6, 12, 100])
@pytest.mark.parametrize("cores", [1, 2, 3, 8, 64])
@pytest.mark.parametrize("megabytes", [8, 32, 256])
def test_the_chunks_of_all_threads_fit_or_there_is_one_thread(cores, gigabytes, megabytes):
    memory, chunk = int(gigabytes * 2**30), megabytes * 2**20
    size = worker_size(cores, memory, chunk_bytes=chunk)
    assert size.memory >= least_memory(size.threads, chunk) or (size.workers, size.threads) == (1, 1)
    assert size.memory * size.workers <= memory


def test_sizes_that_are_asked_for_are_kept():
    size = worker_size(2, 2**30, workers=5, threads=3)
    assert (size.workers, size.threads, size.memory) == (5, 3, 2**30 // 5)


def test_smaller_chunks_let_more_threads_fit():
    with psana_dask.set_options(chunk_bytes=2**20):
        many = worker_size(16, 6 * 2**30)
    assert many.cores > worker_size(16, 6 * 2**30).cores


def test_memory_goes_back_before_a_worker_is_full():
    for memory in (2**30, 2**33, 2**40):
        assert int(malloc_settings(memory)["MALLOC_TRIM_THRESHOLD_"]) <= memory // 4

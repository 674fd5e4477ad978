"""A real batch system: jobs are submitted, cancelled, and come back; results do not change by a bit."""

import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dask
import pytest

import psana_dask.reductions.compute
from psana_dask import cluster, simulate
from psana_dask.cluster.sizes import malloc_settings
from psana_dask.errors import ClusterError

GIGABYTES = 2.0
SMALL = {"cores": 2, "memory": "6 GiB", "walltime": "00:10:00"}  # a job of two workers


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A run of two gigabytes."""
    folder = tmp_path_factory.mktemp("large")
    simulate.write_large(folder, gigabytes=GIGABYTES, shape=(8, 512, 1024))
    return psana_dask.open(folder)


def initial_environment():
    pairs = Path("/proc/self/environ").read_bytes().decode().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


@pytest.fixture
def small_tasks(monkeypatch):
    """Tasks of one leaf, 16 events: enough of them that a job can be lost in the middle."""
    monkeypatch.setattr(psana_dask.reductions.compute, "TASK_BYTES", 1)
    monkeypatch.setattr(psana_dask.reductions.compute, "EXACT_TASK_BYTES", 1)


def test_a_cancelled_job_changes_nothing_and_comes_back(slurm, large, small_tasks, tmp_path, figures):
    with dask.config.set(scheduler="synchronous"):
        serial = large.std("jungfrau.raw")
    started = time.monotonic()
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "3s"}),
        cluster.slurm(nodes=2, log_directory=str(tmp_path), **SMALL) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        client.wait_for_workers(4, timeout=120)
        figures("slurm", seconds_until_four_workers=round(time.monotonic() - started, 1))
        settings = malloc_settings(3 * 2**30)
        for found in client.run(initial_environment).values():
            assert {name: found.get(name) for name in settings} == settings
        cancelled, kept = sorted(slurm.jobs())

        future = pool.submit(large.std, "jungfrau.raw")
        slurm.until(lambda: finished(client), 120, "a finished task")
        subprocess.run(["scancel", str(cancelled)], check=True)
        assert not future.done()
        lost = time.monotonic()
        found = future.result(timeout=120)
        assert found.values.tobytes() == serial.values.tobytes()

        slurm.until(lambda: len(slurm.jobs()) == 2 and cancelled not in slurm.jobs(), 120, "two jobs again")
        client.wait_for_workers(4, timeout=120)
        figures("slurm", seconds_until_four_again=round(time.monotonic() - lost, 1))
        assert kept in slurm.jobs()
    slurm.until(lambda: not slurm.ask("squeue", "-h", "-t", "R,PD"), 30, "an empty queue after closing")


def finished(client):
    """Return how many tasks have a result on a worker."""
    return sum(len(keys) for keys in client.has_what().values())


def test_workers_leave_before_their_job_is_killed_and_others_follow(slurm, tmp_path):
    short = ["--lifetime", "8s"]
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "1s"}),
        cluster.slurm(workers=1, log_directory=str(tmp_path), worker_extra_args=short, **SMALL) as client,
    ):
        client.wait_for_workers(1, timeout=120)
        (first,) = slurm.jobs()
        kept = client.submit(sum, [1, 2])
        assert kept.result() == 3
        slurm.until(lambda: slurm.jobs() and first not in slurm.jobs(), 120, "another job")
        client.wait_for_workers(1, timeout=120)
        assert client.submit(os.getpid).result() > 0


@pytest.mark.parametrize(
    ("wrong", "words"),
    [({"queue": "nosuch"}, "(?i)partition"), ({"cores": 64}, "(?i)node configuration is not available")],
)
def test_a_job_that_slurm_refuses_is_an_error_at_once(slurm, tmp_path, wrong, words):
    with pytest.raises(ClusterError, match=words):
        cluster.slurm(nodes=1, log_directory=str(tmp_path), **(SMALL | wrong))
    assert not slurm.ask("squeue", "-h", "-t", "R,PD")

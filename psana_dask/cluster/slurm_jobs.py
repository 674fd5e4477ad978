"""A Slurm cluster whose jobs come back, also when a job holds several workers."""

from __future__ import annotations

import signal
import subprocess
from typing import Any

import dask
from dask.utils import parse_timedelta

from psana_dask.errors import ClusterError

_ON_INTERRUPT = signal.getsignal(signal.SIGINT)
from dask_jobqueue import SLURMCluster  # noqa: E402

signal.signal(signal.SIGINT, _ON_INTERRUPT)  # dask-jobqueue makes Ctrl-C end the process


class SlurmJobs(SLURMCluster):
    """A `dask_jobqueue.SLURMCluster` that forgets a job when the last of its workers is gone.

    Adaptive scaling then submits another.  dask-jobqueue looks a lost worker up by the name
    of its job, which fits only where a job has one worker.
    """

    def __init__(self, **options: Any) -> None:
        self._arrived: set[Any] = set()
        super().__init__(**options)

    def _update_worker_status(self, op: str, message: Any) -> None:
        if op == "add":
            self._arrived |= {self._job_of(w["name"]) for w in message["workers"].values()}
        if op == "remove":
            wait = parse_timedelta(dask.config.get("distributed.deploy.lost-worker-timeout"))
            self.loop.call_later(wait, self._forget_lost_jobs)
            if message not in self.scheduler_info["workers"]:
                return  # it left before its coming was told
        super()._update_worker_status(op, message)

    def _job_of(self, worker: Any) -> Any:
        """Return the job that a worker belongs to."""
        for job, spec in self.worker_spec.items():
            if worker == job or worker in {f"{job}{suffix}" for suffix in spec.get("group", ())}:
                return job
        return worker

    async def _forget_lost_jobs(self) -> None:
        """Forget the jobs that had workers and have none, and those that Slurm does not know any more."""
        alive = {self._job_of(w["name"]) for w in self.scheduler_info["workers"].values()}
        waiting = [job for job in self.workers if job not in alive]
        queued = await self._queued() if set(waiting) - self._arrived else set()
        for job in waiting:
            if job in self.workers and (job in self._arrived or self.workers[job].job_id not in queued):
                self._arrived.discard(job)
                await self.workers.pop(job).close()

    async def _queued(self) -> set[str]:
        """Return the numbers of the user's jobs that wait or run."""
        found = await self.job_cls._call(["squeue", "-h", "--me", "-o", "%i"])
        return set(found.split())


def check_job(script: str) -> None:
    """Ask Slurm whether it would take a job; nothing is submitted.

    Parameters
    ----------
    script : str
        The job script.

    Raises
    ------
    ClusterError
        With Slurm's own words: a wrong queue, account, time limit, size.
    """
    command = ["sbatch", "--test-only"]
    try:
        done = subprocess.run(command, input=script, text=True, capture_output=True, check=False, timeout=60)  # noqa: S603
    except FileNotFoundError:
        raise ClusterError(
            "there is no sbatch on this machine: start on a login node of the batch system, or use "
            "psana_dask.cluster.local()"
        ) from None
    except subprocess.TimeoutExpired:
        raise ClusterError("sbatch did not answer within a minute: is the batch system up?") from None
    if done.returncode:
        raise ClusterError(f"Slurm refuses such a job: {done.stderr.strip() or done.stdout.strip()}")

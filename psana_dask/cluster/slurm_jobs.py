"""A Slurm cluster whose jobs come back, also when a job holds several workers."""

from __future__ import annotations

import subprocess
from typing import Any

import dask
from dask.utils import parse_timedelta
from dask_jobqueue import SLURMCluster

from psana_dask.errors import ClusterError


class SlurmJobs(SLURMCluster):
    """A `dask_jobqueue.SLURMCluster` that forgets a job when the last of its workers is gone.

    Adaptive scaling then submits another.  dask-jobqueue looks a lost worker up by the name
    of its job, which fits only where a job has one worker.
    """

    def _update_worker_status(self, op: str, message: Any) -> None:
        if op == "remove":
            job = self._job_of(self.scheduler_info["workers"][message]["name"])
            wait = parse_timedelta(dask.config.get("distributed.deploy.lost-worker-timeout"))
            self.loop.call_later(wait, self._forget_if_lost, job)
        super()._update_worker_status(op, message)

    def _job_of(self, worker: Any) -> Any:
        """Return the job that a worker belongs to."""
        for job, spec in self.worker_spec.items():
            if worker == job or worker in {f"{job}{suffix}" for suffix in spec.get("group", ())}:
                return job
        return worker

    async def _forget_if_lost(self, job: Any) -> None:
        alive = {self._job_of(w["name"]) for w in self.scheduler_info["workers"].values()}
        if job in self.workers and job not in alive:
            lost = self.workers.pop(job)
            await lost.close()


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

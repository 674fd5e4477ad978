"""Workers for Dask: on this machine, or as jobs of a Slurm batch system."""

from __future__ import annotations

import os
import shlex
import socket
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from psana_dask.cluster.presets import Preset, preset
from psana_dask.cluster.sizes import WorkerSize, malloc_settings, worker_size
from psana_dask.errors import ClusterError, MissingLibrary
from psana_dask.options import current

if TYPE_CHECKING:
    from psana_dask.cluster.client import ClusterClient

PRELOAD = "psana_dask.cluster.worker"


def local(
    workers: int | None = None,
    *,
    threads: int | None = None,
    memory: int | str | None = None,
    chunk_bytes: int | None = None,
    dashboard: str = "127.0.0.1:8787",
    **options: Any,
) -> ClusterClient:
    """Start workers on this machine, and make them what Dask computes on.

    A worker that dies is started again, and its work is done again.

    Parameters
    ----------
    workers, threads : int, optional
        Processes, and threads of each; by default what the cores and the memory allow.
    memory : int or str, optional
        Of all workers together (``"16 GiB"``); by default all that the machine (or its
        container) has.
    chunk_bytes : int, optional
        Size of the chunks that the workers will hold; by default that of `set_options`.
    dashboard : str
        Where the dashboard listens: by default for this machine only. Where the port is
        taken, a free one is; ``client.dashboard_link`` says which.
    **options
        Of `distributed.LocalCluster`; they win over what is chosen here.

    Returns
    -------
    ClusterClient
        The active client; close it, or use it in a ``with`` block, to end the workers.

    Examples
    --------
    >>> with psana_dask.cluster.local() as client:
    ...     run.cspad.image.mean("time").compute()
    """
    from dask.system import CPU_COUNT
    from dask.utils import parse_bytes
    from distributed import LocalCluster
    from distributed.system import MEMORY_LIMIT

    from psana_dask.cluster.client import ClusterClient
    from psana_dask.cluster.nanny import EnvironmentNanny

    total = MEMORY_LIMIT if memory is None else parse_bytes(memory)
    workers = options.pop("n_workers", workers)
    threads = options.pop("threads_per_worker", threads)
    size = worker_size(CPU_COUNT, total, workers=workers, threads=threads, chunk_bytes=chunk_bytes)
    chosen: dict[str, Any] = {
        "n_workers": size.workers,
        "threads_per_worker": size.threads,
        "memory_limit": size.memory,
        "dashboard_address": free_address(dashboard),
        "preload": [PRELOAD],
        "worker_class": EnvironmentNanny,
    }
    chosen |= options
    chosen["env"] = environment(size) | options.get("env", {})
    return ClusterClient(LocalCluster(**chosen), direct=True)


def free_address(address: str) -> str:
    """Return `address`, with port 0 (any) where its port is taken.

    Dask would take another one too, but leave a socket open.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit():
        return address
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, int(port)))
        except OSError:
            return f"{host}:0"
    return address


def environment(size: WorkerSize) -> dict[str, str]:
    """Return the environment of a worker: how it keeps memory, and where its caches are."""
    settings = malloc_settings(size.memory)
    if current().cache_dir or os.environ.get("PSANA_DASK_CACHE"):
        settings["PSANA_DASK_CACHE"] = str(current().cache_folder().absolute())
    return settings


def slurm(
    site: str | Preset | None = None,
    *,
    nodes: int | None = None,
    workers: int | None = None,
    queue: str | None = None,
    account: str | None = None,
    walltime: str | None = None,
    cores: int | None = None,
    memory: str | None = None,
    threads: int | None = None,
    chunk_bytes: int | None = None,
    adaptive: bool = True,
    dashboard: str = "127.0.0.1:8787",
    **options: Any,
) -> ClusterClient:
    """Start workers as jobs of a Slurm batch system, and make them what Dask computes on.

    Returns at once; work begins when the first job does.  Workers leave before their wall
    time is over and hand their results on; jobs that lose their workers are submitted
    again.

    Parameters
    ----------
    site : str or Preset, optional
        What jobs may ask for: a name of `presets` (``"s3df"``, ``"nersc"``, ``"generic"``); by
        default what ``$PSANA_DASK_CLUSTER`` names, else ``"generic"``.
    nodes : int, optional
        Jobs of the size that the preset gives; one by default.
    workers : int, optional
        Worker processes, instead of `nodes`; a job is then no larger than they need.
    queue, account, walltime, cores, memory : optional
        Instead of what the preset says. `cores` and `memory` are those of one job.
    threads : int, optional
        Of each worker; by default at most four.
    chunk_bytes : int, optional
        Size of the chunks that the workers will hold; by default that of `set_options`.
    adaptive : bool
        Replace jobs that are lost. False: submit them once.
    dashboard : str
        Where the dashboard listens, as for `local`.
    **options
        Of `Preset` (``interface=``, ``local_directory=``, ``directives=``, ...) or of
        `dask_jobqueue.SLURMCluster`; they win over what is chosen here, lists are appended to it.

    Returns
    -------
    ClusterClient
        The active client; close it, or use it in a ``with`` block, to end the jobs.

    Raises
    ------
    ClusterError
        There is no batch system here, or it refuses such a job; in its own words.
    NameNotFound
        No such preset.

    Examples
    --------
    >>> with psana_dask.cluster.slurm("s3df", account="lcls:xpptut15", nodes=4) as client:
    ...     run.cspad.image.mean("time").compute()
    """
    if nodes and workers:
        raise ValueError("either nodes= or workers=, not both")
    asked = {"queue": queue, "account": account, "walltime": walltime, "cores": cores, "memory": memory}
    given: dict[str, Any] = {k: v for k, v in asked.items() if v is not None}
    given |= {k: options.pop(k) for k in list(options) if k in Preset.__dataclass_fields__}
    place = replace(site if isinstance(site, Preset) else preset(site), **given)
    size, jobs = job_size(place, nodes=nodes, workers=workers, threads=threads, chunk_bytes=chunk_bytes)
    cluster = _slurm_cluster(job_options(place, size, dashboard), options)
    return _started(cluster, jobs, adaptive)


def job_size(
    place: Preset,
    *,
    nodes: int | None = None,
    workers: int | None = None,
    threads: int | None = None,
    chunk_bytes: int | None = None,
) -> tuple[WorkerSize, int]:
    """Return how one job is cut into workers, and the number of jobs."""
    from dask.utils import parse_bytes

    memory = parse_bytes(place.memory)
    whole = worker_size(place.cores, memory, threads=threads, chunk_bytes=chunk_bytes)
    if workers is None:
        return whole, nodes or 1
    jobs = -(-workers // whole.workers)
    return replace(whole, workers=-(-workers // jobs)), jobs


def _slurm_cluster(chosen: dict[str, Any], options: dict[str, Any]) -> Any:
    try:
        from psana_dask.cluster.slurm_jobs import SlurmJobs, check_job
    except ImportError as error:
        raise MissingLibrary.of("dask-jobqueue", "cluster", "psana_dask.cluster.slurm") from error

    cluster = SlurmJobs(**(chosen | {k: _joined(chosen.get(k), v) for k, v in options.items()}))
    try:
        check_job(cluster.job_script())
    except ClusterError:
        cluster.close()
        raise
    return cluster


def _joined(chosen: Any, given: Any) -> Any:
    """Return what is given, added to what is chosen where both are lists or mappings."""
    if isinstance(chosen, list):
        return [*chosen, *given]
    return chosen | given if isinstance(chosen, dict) else given


def job_options(place: Preset, size: WorkerSize, dashboard: str) -> dict[str, Any]:
    """Return the arguments of `dask_jobqueue.SLURMCluster` for jobs at a place.

    Parameters
    ----------
    place : Preset
    size : WorkerSize
        Of one job.
    dashboard : str
        Where the dashboard of the scheduler listens.
    """
    own_queue = [f"{place.queue_flag}={place.queue}"] if place.queue and place.queue_flag != "-p" else []
    exports = [f"export {name}={shlex.quote(value)}" for name, value in environment(size).items()]
    return {
        "queue": None if own_queue else place.queue,
        "account": place.account,
        "walltime": place.walltime,
        "cores": size.cores,
        "processes": size.workers,
        "memory": f"{size.memory * size.workers} B",
        "interface": place.interface,
        "local_directory": place.local_directory,
        "job_extra_directives": [*own_queue, *place.directives],
        "job_directives_skip": list(place.skip),
        "job_script_prologue": [*exports, *place.prologue],
        "worker_extra_args": ["--preload", PRELOAD, *lifetime(place.walltime)],
        "scheduler_options": {"dashboard_address": free_address(dashboard)},
    }


def lifetime(walltime: str) -> list[str]:
    """Return the worker arguments that make it leave before its job is killed, not all at once.

    Parameters
    ----------
    walltime : str
        ``HH:MM:SS``, ``MM:SS`` or ``D-HH:MM:SS``.

    Examples
    --------
    >>> lifetime("01:00:00")
    ['--lifetime', '3060s', '--lifetime-stagger', '180s']
    """
    total = seconds(walltime)
    stagger = min(300, total // 20)
    margin = min(300, total // 10)
    return ["--lifetime", f"{total - margin - stagger}s", "--lifetime-stagger", f"{stagger}s"]


def seconds(walltime: str) -> int:
    """Return the seconds of a wall time in any of Slurm's forms.

    Raises
    ------
    ValueError
        It is none of them.
    """
    days, dash, clock = walltime.rpartition("-")
    parts = clock.split(":")
    if not all(p.isdigit() for p in [*parts, *([days] if dash else [])]) or len(parts) > 3:
        raise ValueError(f'walltime={walltime!r}: write it as "HH:MM:SS" or "D-HH:MM:SS"')
    numbers = [int(p) for p in parts]
    if dash:  # days-hours[:minutes[:seconds]]
        hours, minutes, rest = (*numbers, 0, 0)[:3]
        return ((int(days) * 24 + hours) * 60 + minutes) * 60 + rest
    if len(numbers) == 1:  # minutes
        return numbers[0] * 60
    hours, minutes, rest = (0, *numbers)[-3:]
    return (hours * 60 + minutes) * 60 + rest


def _started(cluster: Any, jobs: int, adaptive: bool) -> ClusterClient:
    """Submit the jobs and connect to the cluster; nothing is left behind if that fails."""
    from psana_dask.cluster.client import ClusterClient

    try:
        if adaptive:
            cluster.adapt(minimum_jobs=jobs, maximum_jobs=jobs)
        else:
            cluster.scale(jobs=jobs)
        return ClusterClient(cluster)
    except BaseException:
        cluster.close()
        raise

"""How many workers, threads and bytes: from the cores, the memory and the size of a chunk.

What a task holds at once is a small number of chunks (raw, calibrated, assembled, what a
user's arithmetic makes of them), so memory is counted in chunks for each thread.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass

from psana_dask.options import current

CHUNKS_PER_THREAD = 16
"""Raw chunks (uint16) for which a thread has memory: raw 1, float32 2, image 2, a float64 copy 4, spare 7."""

PROCESS_BYTES = 2**30
"""What a process needs by itself: interpreter and libraries 0.4 GiB, constants and partial results."""

MOST_THREADS = 4
"""Threads that share one interpreter before its lock is felt."""


@dataclass(frozen=True)
class WorkerSize:
    """How a machine or a job is cut into workers.

    Parameters
    ----------
    workers : int
        Processes.
    threads : int
        Of each.
    memory : int
        Bytes of each.
    """

    workers: int
    threads: int
    memory: int

    @property
    def cores(self) -> int:
        """Threads of all workers."""
        return self.workers * self.threads


def least_memory(threads: int, chunk_bytes: int) -> int:
    """Return the bytes that a worker needs to hold the chunks its threads work on."""
    return PROCESS_BYTES + threads * CHUNKS_PER_THREAD * chunk_bytes


def worker_size(
    cores: int,
    memory: int,
    *,
    workers: int | None = None,
    threads: int | None = None,
    chunk_bytes: int | None = None,
) -> WorkerSize:
    """Cut a machine or a job into workers.

    At most four threads a worker and at least two workers where there are two cores, fewer
    where the memory does not hold the chunks of so many threads.

    Parameters
    ----------
    cores : int
    memory : int
        Bytes that all workers together may take.
    workers, threads : int, optional
        What is asked for; not changed.
    chunk_bytes : int, optional
        Size of a chunk; by default that of `psana_dask.set_options`.

    Examples
    --------
    >>> worker_size(120, 480_000_000_000)
    WorkerSize(workers=30, threads=4, memory=16000000000)
    """
    chunk = chunk_bytes or current().chunk_bytes
    most = threads or (max(1, cores // workers) if workers else min(MOST_THREADS, max(1, cores // 2)))
    if workers:
        share = memory // workers
        while threads is None and most > 1 and least_memory(most, chunk) > share:
            most -= 1
        return WorkerSize(workers, most, share)
    fitting = max(1, min(cores // most, memory // least_memory(most, chunk)))
    while threads is None and most > 1 and least_memory(most, chunk) * fitting > memory:
        most -= 1
    return WorkerSize(fitting, most, memory // fitting)


def malloc_settings(memory: int) -> dict[str, str]:
    """Return the environment that makes glibc keep the memory of chunks for the next chunk.

    Dask's own setting (``MALLOC_TRIM_THRESHOLD_=65536``) hands every freed chunk back to the
    system and fills the next one page fault by page fault: up to 17 times slower.  These
    keep blocks below 2 GB on the heap, and return memory once a quarter of the limit is free.

    Parameters
    ----------
    memory : int
        Bytes of a worker.
    """
    trim = min(8_000_000_000, memory // 4)
    return {"MALLOC_TRIM_THRESHOLD_": str(trim), "MALLOC_MMAP_THRESHOLD_": str(_mmap_threshold())}


def _mmap_threshold() -> int:
    """Return the largest block that is not mapped afresh: before glibc 2.35 more than 32 MiB is refused."""
    library, version = platform.libc_ver()
    old = library == "glibc" and tuple(map(int, version.split(".")[:2])) < (2, 35)
    return 32 * 2**20 if old else 2_000_000_000

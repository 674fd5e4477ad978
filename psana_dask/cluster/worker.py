"""What every worker does first (a Dask preload): ``dask worker --preload psana_dask.cluster.worker``."""

from __future__ import annotations

import signal
import threading

from psana_dask.options import set_options


def dask_setup(worker: object) -> None:
    """Leave Ctrl-C to the client, and the cores to the tasks.

    A terminal sends Ctrl-C to the workers of `psana_dask.cluster.local` too; they would die with
    a traceback each.  The client cancels its tasks, and they live on.  One read is not
    split over threads: the other tasks of the worker have the other cores.
    """
    del worker
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    set_options(read_threads=1)

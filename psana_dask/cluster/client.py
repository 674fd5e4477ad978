"""A Dask client that owns its workers."""

from __future__ import annotations

import logging
from typing import Any

from distributed import Client, Future
from distributed.client import AllExit, no_default


class ClusterClient(Client):
    """A `dask.distributed.Client` with the cluster that was started for it; closing it ends both.

    It is the active client, so every computation of the process runs on its workers.
    What a client lacks is asked of the cluster: ``client.scale(4)``, ``client.job_script()``.

    Parameters
    ----------
    cluster : distributed.deploy.Cluster
    direct : bool
        Fetch results from the workers themselves, not through the scheduler; workers on other
        machines may not be within reach.
    """

    def __init__(self, cluster: Any, *, direct: bool = False) -> None:
        super().__init__(cluster, direct_to_workers=direct)
        logging.getLogger("asyncio").addFilter(_is_news)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or "cluster" not in vars(self) or self.cluster is None:
            raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")
        return getattr(self.cluster, name)

    def get(self, *args: Any, **options: Any) -> Any:
        """Compute a graph; Ctrl-C takes its tasks back at once.

        Dask takes them back when nobody refers to the results any more, which the traceback of the
        interrupt does for as long as a notebook keeps it.
        """
        before = set(self.futures)
        try:
            return super().get(*args, **options)
        except KeyboardInterrupt:
            self.cancel([Future(key, self) for key in set(self.futures) - before], force=True)
            raise

    def close(self, timeout: Any = no_default) -> Any:
        """Close the client and end the workers."""
        closed = super().close(timeout)
        if self.cluster is not None:
            self.cluster.close()
        return closed


def _is_news(record: logging.LogRecord) -> bool:
    """Drop what asyncio says of each result that nobody waits for any more after Ctrl-C."""
    return not (record.exc_info and isinstance(record.exc_info[1], AllExit))

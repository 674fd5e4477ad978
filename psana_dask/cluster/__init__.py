"""Workers for Dask with the settings that detector data need.

>>> client = psana_dask.cluster.local()                           # this machine
>>> client = psana_dask.cluster.slurm("s3df", account="lcls:xpptut15", nodes=4)   # the batch system

Any other `dask.distributed` client works as well; what these two set is in docs/cluster.md.
"""

from __future__ import annotations

from psana_dask.cluster.launch import local, slurm
from psana_dask.cluster.presets import Preset, presets

__all__ = ["Preset", "local", "presets", "slurm"]

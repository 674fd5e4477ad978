"""Open X-ray laser runs (LCLS XTC and XTC2) as lazy Dask arrays and xarray datasets.

>>> import psana_dask
>>> run = psana_dask.open("exp=xpptut15:run=54")
>>> run.epixquad.raw.isel(time=0)

Names are imported when they are first used, so importing the package is quick.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from psana_dask.lazily import on_first_use

if TYPE_CHECKING:
    from psana_dask import (
        algorithms,
        analysis,
        calib,
        cluster,
        conditions,
        dump,
        errors,
        export,
        geometry,
        plot,
        psana,
        simulate,
    )  # fmt: skip
    from psana_dask.archive import archiver
    from psana_dask.checks import quality
    from psana_dask.clocks import find_offset
    from psana_dask.entry import open_source as open
    from psana_dask.experiment_table import summary
    from psana_dask.keys import times
    from psana_dask.opening import list_runs, open_run, open_runs
    from psana_dask.options import set_options
    from psana_dask.progress import progress_bar
    from psana_dask.reductions import reduce
    from psana_dask.run import Run
    from psana_dask.stream import open_stream

__version__ = "0.1.0"

__getattr__, __dir__ = on_first_use(__name__)

__all__ = [
    "Run", "algorithms", "analysis", "archiver", "calib", "cluster", "conditions", "dump", "errors",
    "export", "find_offset", "geometry", "list_runs", "open", "open_run", "open_runs", "open_stream",
    "plot", "progress_bar", "psana", "quality", "reduce", "set_options", "simulate", "summary", "times",
]  # fmt: skip

if "xarray" in sys.modules:  # the accessor is there as soon as both packages are
    import psana_dask.accessor  # noqa: F401

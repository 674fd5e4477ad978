"""Open X-ray laser runs (LCLS XTC and XTC2) as lazy Dask arrays and xarray datasets.

>>> import psana_dask
>>> run = psana_dask.open("exp=xpptut15:run=54")
>>> run.epixquad.raw.isel(time=0)

Names are imported when they are first used, so importing the package is quick.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

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

_HOMES = {
    "open": ("psana_dask.entry", "open_source"),
    "open_run": ("psana_dask.opening", "open_run"),
    "open_runs": ("psana_dask.opening", "open_runs"),
    "list_runs": ("psana_dask.opening", "list_runs"),
    "open_stream": ("psana_dask.stream", "open_stream"),
    "Run": ("psana_dask.run", "Run"),
    "times": ("psana_dask.keys", "times"),
    "reduce": ("psana_dask.reductions", "reduce"),
    "archiver": ("psana_dask.archive", "archiver"),
    "find_offset": ("psana_dask.clocks", "find_offset"),
    "progress_bar": ("psana_dask.progress", "progress_bar"),
    "set_options": ("psana_dask.options", "set_options"),
    "algorithms": ("psana_dask.algorithms", None),
    "analysis": ("psana_dask.analysis", None),
    "calib": ("psana_dask.calib", None),
    "cluster": ("psana_dask.cluster", None),
    "errors": ("psana_dask.errors", None),
    "quality": ("psana_dask.checks", "quality"),
    "summary": ("psana_dask.experiment_table", "summary"),
    "conditions": ("psana_dask.conditions", None),
    "dump": ("psana_dask.dump", None),
    "export": ("psana_dask.export", None),
    "geometry": ("psana_dask.geometry", None),
    "plot": ("psana_dask.plot", None),
    "psana": ("psana_dask.psana", None),
    "simulate": ("psana_dask.simulate", None),
}

__all__ = [
    "Run", "algorithms", "analysis", "archiver", "calib", "cluster", "conditions", "dump", "errors",
    "export", "find_offset", "geometry", "list_runs", "open", "open_run", "open_runs", "open_stream",
    "plot", "progress_bar", "psana", "quality", "reduce", "set_options", "simulate", "summary", "times",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        from psana_dask.errors import no_attribute

        raise no_attribute(__name__, name, __all__)
    module, attribute = _HOMES[name]
    home = importlib.import_module(module)
    found = home if attribute is None else getattr(home, attribute)
    setattr(sys.modules[__name__], name, found)
    return found


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


if "xarray" in sys.modules:  # the accessor is there as soon as both packages are
    import psana_dask.accessor  # noqa: F401

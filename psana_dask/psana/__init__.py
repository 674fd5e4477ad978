"""psana's faces over this package: a script of psana or psana2 needs only its import line changed.

>>> from psana_dask.psana import *
>>> ds = DataSource("exp=xpptut15:run=54:smd")     # psana
>>> det = Detector("cspad")
>>> for evt in ds.events():
...     img = det.image(evt)

>>> ds = DataSource(exp="tstx00117", run=1)        # psana2
>>> for run in ds.runs():
...     det = run.Detector("jungfrau")
...     for evt in run.events():
...         img = det.raw.image(evt)

What differs from psana is listed in ``docs/psana.md``.
"""

from __future__ import annotations

from typing import Any

from psana_dask.errors import no_attribute
from psana_dask.psana.datasource import (
    DataSource,
    Detector,
    DetNames,
    MPIDataSource,
    setConfigFile,
    setOption,
    setOptions,
)
from psana_dask.psana.ddl import PACKAGES, Package, Source
from psana_dask.psana.events import EventId, EventTime

__all__ = [  # noqa: PLE0604  (the packages of types are made when they are asked for)
    "DataSource", "DetNames", "Detector", "EventId", "EventTime", "MPIDataSource", "Source",
    "setConfigFile", "setOption", "setOptions", *PACKAGES,
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in PACKAGES:
        raise no_attribute(__name__, name, __all__)
    return Package(name)

"""Calibration: constants with provenance, and the kernels that apply them.

Constants come from stores (`directory`, `webdb`, chained by `store`) as values that know where
they came from (`constants`).  `tables` lays them out, `apply` turns raw words into calibrated
values with them; `commonmode`, `gain` and `masks` are its parts, `detectors` the table of what differs
between detectors, `darks` makes new constants from dark runs.  Nothing here reads runs or knows
dask and xarray: arrays, text and HTTP only.  `docs/calibration.md` explains all of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from psana_dask.lazily import on_first_use

if TYPE_CHECKING:
    from psana_dask.calib.commonmode import CommonMode
    from psana_dask.calib.constants import Constants, RunRange
    from psana_dask.calib.darks import DarkAccumulator, DarkResult
    from psana_dask.calib.deploying import deploy
    from psana_dask.calib.detectors import Detector, detector
    from psana_dask.calib.directory import CalibDirectory
    from psana_dask.calib.localstore import LocalStore
    from psana_dask.calib.store import Chain, Lookup
    from psana_dask.calib.tables import Choices, Tables, prepare
    from psana_dask.calib.webdb import WebStore
    from psana_dask.dark_runs import dark  # reads a run, so it lives above this package

__getattr__, __dir__ = on_first_use(__name__)

__all__ = [
    "CalibDirectory", "Chain", "Choices", "CommonMode", "Constants", "DarkAccumulator", "DarkResult",
    "Detector", "LocalStore", "Lookup", "RunRange", "Tables", "WebStore", "dark", "deploy", "detector",
    "prepare",
]  # fmt: skip

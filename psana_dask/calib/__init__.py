"""Calibration: constants with provenance, and the kernels that apply them.

Constants come from stores (`directory`, `webdb`, chained by `store`) as values that know where
they came from (`constants`).  `tables` lays them out, `apply` turns raw words into calibrated
values with them; `commonmode`, `gain` and `masks` are its parts, `detectors` the table of what differs
between detectors, `darks` makes new constants from dark runs.  Nothing here reads runs or knows
dask and xarray: arrays, text and HTTP only.  `docs/calibration.md` explains all of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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

_HOME = {
    "Choices": "tables", "Tables": "tables", "prepare": "tables", "CommonMode": "commonmode",
    "Constants": "constants", "RunRange": "constants", "DarkAccumulator": "darks",
    "DarkResult": "darks", "Detector": "detectors", "detector": "detectors",
    "CalibDirectory": "directory", "LocalStore": "localstore", "Chain": "store", "Lookup": "store",
    "WebStore": "webdb", "deploy": "deploying",
}
_ABOVE = {"dark": "psana_dask.dark_runs"}  # reads a run, so it lives above this package

__all__ = [
    "CalibDirectory", "Chain", "Choices", "CommonMode", "Constants", "DarkAccumulator", "DarkResult",
    "Detector", "LocalStore", "Lookup", "RunRange", "Tables", "WebStore", "dark", "deploy", "detector",
    "prepare",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME and name not in _ABOVE:
        from psana_dask.errors import no_attribute

        raise no_attribute(__name__, name, __all__)
    from importlib import import_module

    return getattr(import_module(_ABOVE.get(name) or f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, *_ABOVE})

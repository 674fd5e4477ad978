"""Algorithms on DataArrays: labelled, and lazy where the data are.

The same names as in `psana_dask.algorithms`, whose functions on numpy blocks do the work; the
results of an event depend on that event alone, so any chunking gives the same values.
`docs/algorithms.md` has formulas, units and sources.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from psana_dask.analysis.azimuthal import integrate
    from psana_dask.analysis.cuts import Cuts, apply_cuts
    from psana_dask.analysis.hsd import decode_hsd
    from psana_dask.analysis.peaks import find_peaks, lit_pixels, peak_table, write_cxi
    from psana_dask.analysis.photons import count_photons, find_droplets
    from psana_dask.analysis.statistics import autocorrelation, pump_probe, subtract_background
    from psana_dask.analysis.timetool import corrected_delay, project, time_edges, time_tool
    from psana_dask.analysis.waveforms import find_edges, fit_basis, integrate_windows, subtract_baseline

# fmt: off
_MODULES: dict[str, tuple[str, ...]] = {
    "azimuthal": ("integrate",),
    "cuts": ("Cuts", "apply_cuts"),
    "hsd": ("decode_hsd",),
    "peaks": ("find_peaks", "lit_pixels", "peak_table", "write_cxi"),
    "photons": ("count_photons", "find_droplets"),
    "statistics": ("autocorrelation", "pump_probe", "subtract_background"),
    "timetool": ("corrected_delay", "project", "time_edges", "time_tool"),
    "waveforms": ("find_edges", "fit_basis", "integrate_windows", "subtract_baseline"),
}
# fmt: on
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "Cuts", "apply_cuts", "autocorrelation", "corrected_delay", "count_photons", "decode_hsd",
    "find_droplets", "find_edges", "find_peaks", "fit_basis", "integrate", "integrate_windows",
    "lit_pixels", "peak_table", "project", "pump_probe", "subtract_background", "subtract_baseline",
    "time_edges", "time_tool", "write_cxi",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    setattr(sys.modules[__name__], name, found)
    return found


def __dir__() -> list[str]:
    return sorted(__all__)

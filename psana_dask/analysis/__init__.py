"""Algorithms on DataArrays: labelled, and lazy where the data are.

The same names as in `psana_dask.algorithms`, whose functions on numpy blocks do the work; the
results of an event depend on that event alone, so any chunking gives the same values.
`docs/algorithms.md` has formulas, units and sources.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from psana_dask.lazily import on_first_use

if TYPE_CHECKING:
    from psana_dask.analysis.azimuthal import integrate, profile_of
    from psana_dask.analysis.cuts import Cuts, apply_cuts
    from psana_dask.analysis.cxi import write_cxi
    from psana_dask.analysis.hsd import decode_hsd
    from psana_dask.analysis.peaks import find_hits, find_peaks, lit_pixels, peak_table, powder_of
    from psana_dask.analysis.perframe import PerFrame
    from psana_dask.analysis.photons import (
        count_photons,
        find_droplets,
        fit_photon_peaks,
        photons_of,
        spectrum_of,
    )
    from psana_dask.analysis.statistics import autocorrelation, pump_probe, subtract_background
    from psana_dask.analysis.timetool import corrected_delay, project, time_edges, time_tool
    from psana_dask.analysis.waveforms import (
        edge_table,
        find_edges,
        find_pulses,
        fit_basis,
        integrate_windows,
        subtract_baseline,
    )

__getattr__, __dir__ = on_first_use(__name__)

__all__ = [
    "Cuts", "PerFrame", "apply_cuts", "autocorrelation", "corrected_delay", "count_photons", "decode_hsd",
    "edge_table", "find_droplets", "find_edges", "find_hits", "find_peaks", "find_pulses", "fit_basis",
    "fit_photon_peaks", "integrate", "integrate_windows", "lit_pixels", "peak_table", "photons_of",
    "powder_of", "profile_of", "project", "pump_probe", "spectrum_of", "subtract_background",
    "subtract_baseline", "time_edges", "time_tool", "write_cxi",
]  # fmt: skip

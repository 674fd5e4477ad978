"""Algorithms on arrays: peaks, profiles, photons, waveforms, edges.

Pure functions on numpy blocks whose first dimension is events, compiled where it matters;
nothing here knows a file.  `psana_dask.analysis` applies them to DataArrays, lazily.
`docs/algorithms.md` has formulas, units and sources.

>>> import numpy as np
>>> from psana_dask import algorithms
>>> algorithms.lit_pixels(np.eye(8, dtype=np.float32)[None], threshold=0.5)
(array([8]), array([8.]))
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from psana_dask.lazily import on_first_use

if TYPE_CHECKING:
    from psana_dask.algorithms.azimuthal import Integrator, Profiles, integrate, prepare_azimuthal
    from psana_dask.algorithms.background import background_shapes, subtract_background
    from psana_dask.algorithms.correlation import MultiTau
    from psana_dask.algorithms.droplets import find_droplets
    from psana_dask.algorithms.extrema import cross_maxima, local_extrema
    from psana_dask.algorithms.groups import COLUMNS
    from psana_dask.algorithms.hits import lit_pixels
    from psana_dask.algorithms.hsd import HsdStreams, decode_hsd
    from psana_dask.algorithms.localpeaks import LocalFinder, Selection, prepare_adaptive, prepare_droplet
    from psana_dask.algorithms.peaks import Peaks, find_peaks, momentum, places
    from psana_dask.algorithms.photons import count_photons
    from psana_dask.algorithms.positions import Positions, flat_positions, momentum_factor, pixel_positions
    from psana_dask.algorithms.radialpeaks import RadialFinder, prepare_radial
    from psana_dask.algorithms.spectra import PhotonPeaks, fit_photon_peaks
    from psana_dask.algorithms.timetool import (
        TimeEdges,
        find_time_edges,
        project,
        running_references,
        step_weights,
        time_of,
    )
    from psana_dask.algorithms.waveforms import (
        Edges,
        Pulses,
        basis_of,
        find_edges,
        find_pulses,
        fit_basis,
        integrate_windows,
        subtract_baseline,
    )

__getattr__, __dir__ = on_first_use(__name__)

__all__ = [
    "COLUMNS", "Edges", "HsdStreams", "Integrator", "LocalFinder", "MultiTau", "Peaks", "PhotonPeaks",
    "Positions", "Profiles", "Pulses", "RadialFinder", "Selection", "TimeEdges", "background_shapes",
    "basis_of", "count_photons", "cross_maxima", "decode_hsd", "find_droplets", "find_edges", "find_peaks",
    "find_pulses", "find_time_edges", "fit_basis", "fit_photon_peaks", "flat_positions", "integrate",
    "integrate_windows", "lit_pixels", "local_extrema", "momentum", "momentum_factor", "pixel_positions",
    "places", "prepare_adaptive", "prepare_azimuthal", "prepare_droplet", "prepare_radial", "project",
    "running_references", "step_weights", "subtract_background", "subtract_baseline", "time_of",
]  # fmt: skip

"""Peak lists that CrystFEL reads: CXI files (``--peaks=cxi``), with the frames and the geometry if wanted.

CrystFEL looks for a peak among panels that lie in one slab: panels are stacked along the slow direction,
``peakXPosRaw`` is the column and ``peakYPosRaw`` is ``panel * rows + row``, with the centre of the first
pixel at 0 (CrystFEL adds the half pixel itself).  Sources: the manual pages ``crystfel_geometry`` ("peak
lists") and ``indexamajig``; CXI file format 1.5.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from psana_dask.analysis.events import EVENT
from psana_dask.geometry.convert.crystfel import write_crystfel
from psana_dask.geometry.model import Geometry

LISTS = "/entry_1/result_1"
DATA = "/entry_1/data_1"
BAD = np.uint16(1 << 7)
"""CXI: this pixel is bad."""


def write_cxi(
    path: str | Path,
    peaks: xr.Dataset,
    *,
    geometry: Geometry | None = None,
    rows: int | None = None,
    frames: xr.DataArray | None = None,
    energy: float | xr.DataArray | None = None,
    mask: Any = None,
) -> None:
    """Write peaks as a CXI peak list, and what else CrystFEL needs beside it.

    Parameters
    ----------
    path : path
        A new file; one that exists is replaced. With a geometry ``<path>.geom`` is written too.
    peaks : Dataset
        From `find_peaks`.
    geometry : Geometry, optional
        ``run.cspad.geometry``, for instance.
    rows : int, optional
        Rows of a panel, where no geometry is given.
    frames : DataArray (time[, panel], row, col), optional
        Written as ``/entry_1/data_1/data`` (time, panel * row, col), one event after another.
    energy : float or DataArray (time), optional
        Photon energy in eV.
    mask : array of a frame's shape, optional
        1 good, 0 bad.

    Raises
    ------
    ValueError
        Neither geometry nor rows.

    Examples
    --------
    >>> hits = run.select(peaks["count"] >= 15)
    >>> analysis.write_cxi("hits.cxi", peaks.sel(time=hits.events.time), geometry=run.cspad.geometry,
    ...                    frames=hits.cspad.calib, energy=hits.ebeam.photon_energy)

    Then: ``indexamajig -g hits.cxi.geom --peaks=cxi -i list -o hits.stream``.
    """
    import h5py

    rows = geometry.shape[1] if geometry is not None else rows
    if rows is None:
        raise ValueError("say geometry= or rows=: how many rows a panel has")
    loaded = peaks.compute()
    with h5py.File(path, "w") as file:
        file["cxi_version"] = 150
        _write_lists(file.create_group(LISTS), loaded, rows)
        time = loaded[EVENT].values.astype("datetime64[ns]")
        file["entry_1/event_time"] = time.astype(np.int64)
        file["entry_1/event_time"].attrs["units"] = "nanoseconds since 1970-01-01T00:00:00 UTC"
        if energy is not None:
            file["LCLS/photon_energy_eV"] = _energies(energy, loaded)
        if mask is not None:
            _write_mask(file, mask, len(time))
        if frames is not None:
            _write_frames(file, frames.sel({EVENT: loaded[EVENT]}))
    if geometry is not None:
        Path(f"{path}.geom").write_text(_geometry(geometry, mask), encoding="utf-8")


def _write_lists(group: Any, peaks: xr.Dataset, rows: int) -> None:
    lists = {
        "peakXPosRaw": peaks["col"],
        "peakYPosRaw": peaks["panel"] * rows + peaks["row"],
        "peakTotalIntensity": peaks["intensity"],
        "peakMaximumValue": peaks["highest"],
        "peakNPixels": peaks["npix"],
        "peakSNR": peaks["snr"],
    }
    group["nPeaks"] = peaks["count"].values.astype(np.int32)
    for name, values in lists.items():
        group[name] = np.nan_to_num(values.values).astype(np.float32)  # lists are padded with 0


def _energies(energy: float | xr.DataArray, peaks: xr.Dataset) -> NDArray[np.float64]:
    if isinstance(energy, xr.DataArray):
        return np.asarray(energy.reindex({EVENT: peaks[EVENT]}).values, np.float64)
    return np.full(peaks.sizes[EVENT], float(energy))


def _stacked(frame: NDArray[Any]) -> NDArray[Any]:
    """Return panels stacked along the slow direction."""
    return frame.reshape(-1, frame.shape[-1])


def _write_mask(file: Any, mask: Any, events: int) -> None:
    """Write the mask for each event, as CrystFEL takes it from where the data are."""
    bad = np.where(_stacked(np.asarray(mask, bool)), np.uint16(0), BAD)
    shape = (events, *bad.shape)
    made = file.create_dataset(f"{DATA}/mask", shape, bad.dtype, chunks=(1, *bad.shape), compression="gzip")
    for event in range(events):
        made[event] = bad


def _write_frames(file: Any, frames: xr.DataArray) -> None:
    """Write frames, stacked, an event at a time."""
    ordered = frames.transpose(EVENT, ...)
    shape = (int(np.prod(ordered.shape[1:-1])), ordered.shape[-1])
    data = file.create_dataset(
        f"{DATA}/data", (ordered.sizes[EVENT], *shape), ordered.dtype, chunks=(1, *shape)
    )
    for event in range(ordered.sizes[EVENT]):
        data[event] = _stacked(ordered.isel({EVENT: event}).values)


def _geometry(geometry: Geometry, mask: Any) -> str:
    place = None if mask is None else f"{DATA}/mask"
    return write_crystfel(geometry, data=f"{DATA}/data", mask=place, peak_list=LISTS)

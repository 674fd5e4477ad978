"""What waveform, counter and beam records mean: volts, seconds, wavelengths, event codes.

Formulas as psana's Detector classes use them; each takes one decoded record.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from psana_dask.errors import FormatError
from psana_dask.readers.records import View
from psana_dask.readers.tables.waveforms import SAMPLE_TYPES, samples

Array = npt.NDArray[Any]

EPICS_EPOCH = 631152000
"""Unix seconds of 1990-01-01T00:00:00 UTC, where EPICS time stamps start."""

TDC_SECONDS = 50e-12
"""One count of the Acqiris TDC."""


def acqiris_volts(view: View) -> npt.NDArray[np.float64]:
    """Return Acqiris waveforms in volts: counts x (full scale / 65536) - offset.

    Parameters
    ----------
    view : View
        Of Acqiris.DataDescV1.

    Returns
    -------
    (channel, segment, sample) float64
    """
    settings = view.cfg.vert if view.cfg is not None else []
    volts = [c.waveforms * v.slope - v.offset for c, v in zip(view.data, settings, strict=False)]
    return np.stack(volts) if volts else np.empty((0, 0, 0))


def acqiris_times(view: View) -> npt.NDArray[np.float64]:
    """Return the time of each Acqiris sample after the trigger, in seconds.

    Sample i of a segment is at the segment's trigger position + i x sampling interval.

    Parameters
    ----------
    view : View
        Of Acqiris.DataDescV1.

    Returns
    -------
    (channel, segment, sample) float64
    """
    if view.cfg is None or not view.data:
        return np.empty((0, 0, 0))
    horizontal = view.cfg.horiz
    position = np.array([[t.pos for t in channel.timestamp] for channel in view.data])
    steps: Array = np.arange(horizontal.nbr_samples) * horizontal.samp_interval
    return position[:, :, None] + steps


def tdc_times(view: View, *, overflow: bool = False) -> list[npt.NDArray[np.float64]]:
    """Return the hits of TDC channels 1 to 6 in seconds.

    Parameters
    ----------
    view : View
        Of Acqiris.TdcDataV1.
    overflow : bool
        The hits whose counter wrapped instead of the others.
    """
    place = view.place("data")
    words = np.ndarray(place.shape, "<u4", view.buffer, place.start)
    kind = words >> 28
    times = (words & 0xFFFFFFF) * TDC_SECONDS
    return [times[kind == channel | (8 if overflow else 0)] for channel in range(1, 7)]


def imp_waveforms(view: View) -> npt.NDArray[np.uint16]:
    """Return the waveforms of an Imp digitiser as (channel, sample)."""
    place = view.place("samples")
    waveforms: npt.NDArray[np.uint16] = np.ndarray((*place.shape, 4), "<u2", view.buffer, place.start).T
    return waveforms


def generic_channels(view: View) -> list[Array]:
    """Return the channels of a Generic1D record, each in the type that it is stored in."""
    kinds = [] if view.cfg is None else view.cfg.sample_type.tolist()
    unknown = set(kinds) - set(SAMPLE_TYPES)
    if unknown:
        raise FormatError(f"Generic1D sample types {sorted(unknown)} are unknown", offset=view.start)
    return [samples(view, i, SAMPLE_TYPES[kind]) for i, kind in enumerate(kinds)]


def generic_times(cfg: View) -> list[npt.NDArray[np.float64]]:
    """Return the times of the samples of each Generic1D channel in seconds: (offset + i) x period."""
    rows = zip(cfg.length.tolist(), cfg.offset.tolist(), cfg.period.tolist(), strict=True)
    return [(offset + np.arange(length)) * period for length, offset, period in rows]


def spectrum(view: View) -> npt.NDArray[np.float64]:
    """Return an OceanOptics spectrum, corrected for non-linearity if the coefficients are set.

    x / (c0 + c1 x + ... + c7 x^7); version 1 stores bit 13 of x inverted.
    """
    counts = view.data.astype(np.int64)
    x = (counts ^ 0x2000 if view.record.title == "OceanOptics.DataV1" else counts).astype(np.float64)
    coefficients = np.zeros(8) if view.cfg is None else view.cfg.nonlin_correct
    if not coefficients.any():
        return x
    corrected: npt.NDArray[np.float64] = x / np.polynomial.polynomial.polyval(x, coefficients)
    return corrected


def wavelengths(view: View) -> npt.NDArray[np.float64]:
    """Return the wavelength of each OceanOptics pixel in nm: c0 + c1 i + c2 i^2 + c3 i^3."""
    coefficients = np.zeros(4) if view.cfg is None else view.cfg.wave_len_calib
    pixels = np.arange(len(view.data), dtype=np.float64)
    values: npt.NDArray[np.float64] = np.polynomial.polynomial.polyval(pixels, coefficients)
    return values


def encoder_positions(view: View, fex: View) -> npt.NDArray[np.float64]:
    """Return USDUSB encoder positions in the configured unit: scale x (count + offset)."""
    positions: npt.NDArray[np.float64] = fex.scale * (view.encoder_count + fex.offset)
    return positions


def event_codes(view: View, fiducial: int | None = None) -> npt.NDArray[np.uint32]:
    """Return the event codes of an EvrData record.

    Parameters
    ----------
    view : View
    fiducial : int, optional
        Only codes of this fiducial: the record may hold those of earlier ones.
    """
    place = view.place("fifo_events")
    events = np.ndarray((*place.shape, 3), "<u4", view.buffer, place.start)
    chosen = events if fiducial is None else events[events[:, 0] == fiducial]
    codes: npt.NDArray[np.uint32] = chosen[:, 2].copy()
    return codes


def epics_time(view: View) -> np.datetime64:
    """Return when an EPICS value was stamped by its IOC, UTC."""
    stamp = view.stamp
    return np.datetime64((stamp.sec + EPICS_EPOCH) * 1_000_000_000 + stamp.nsec, "ns")


def shared_parts(view: View) -> list[tuple[tuple[int, int], View]]:
    """Split a shared BLD record into its parts, as psana does.

    Returns
    -------
    list of ((type id, version), View)
        Configuration parts belong to the configuration of the source, the others to the event;
        empty for other records.
    """
    return [(key, view[name]) for name, key in _SHARED.get(view.record.title, ())]


_SHARED = {
    "Bld.BldDataIpimbV0": (("ipimbConfig", (23, 1)), ("ipimbData", (22, 1)), ("ipmFexData", (31, 1))),
    "Bld.BldDataIpimbV1": (("ipimbConfig", (23, 2)), ("ipimbData", (22, 2)), ("ipmFexData", (31, 1))),
    "Bld.BldDataPimV1": (("camConfig", (9, 2)), ("pimConfig", (34, 1)), ("frame", (2, 1))),
    "Bld.BldDataUsdUsbV1": (
        ("config", (63, 1)), ("fexConfig", (101, 1)), ("data", (62, 1)), ("fexData", (102, 1)),
    ),
}  # fmt: skip

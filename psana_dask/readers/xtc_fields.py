"""The fields that a payload of LCLS-1 offers: its values (`xtc_values`), its pixels, and what is computed.

Of an area detector's record all views of the pixels are one field, ``raw``.  What psana's Detector
classes compute from a record (volts, wavelengths, assembled frames) stands beside its values; records that
carry others inside (shared beam-line data) are flattened, without the settings among them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from psana_dask.errors import FormatError
from psana_dask.model import Kind
from psana_dask.readers.records import Bytes, Record, View
from psana_dask.readers.tables.panels import Panels, is_imager, panels_of, pnccd_image
from psana_dask.readers.tables.signals import TDC_SECONDS
from psana_dask.readers.tables.waveforms import SAMPLE_TYPES
from psana_dask.readers.xtc_values import Ragged, Value, read_value, values_of

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
Read = Callable[[str], Any]
"""Gives the column of a value by its name in the record: (event, ...) or `Ragged`."""


@dataclass(frozen=True)
class Computed:
    """A field that is computed from others.

    Parameters
    ----------
    name : str
    of : callable
        ``of(read, cfg)``: `Read`, and the configuration; returns (event, ...) or `Ragged`.
    unit : str
    dims : tuple of str
    kind : Kind
    """

    name: str
    of: Callable[[Read, Any], Any]
    unit: str = ""
    dims: tuple[str, ...] = ()
    kind: Kind = Kind.NUMBER


@dataclass(frozen=True)
class Layout:
    """How the values of a record become fields.

    Parameters
    ----------
    strip : tuple of str
        Prefixes of names that are left out.
    hide : tuple of str
        Prefixes of values that are no fields: other views of the pixels, settings.
    rename : mapping of str to str
    ragged : tuple of str
        Values whose number differs from event to event, even where it happens not to.
    dims : mapping of str to tuple of str
        Names of the dimensions of values.
    raw : str
        The value that is the detector's `raw`, where that is no frame of an area detector.
    computed : tuple of Computed
    """

    strip: tuple[str, ...] = ()
    hide: tuple[str, ...] = ()
    rename: Mapping[str, str] = field(default_factory=dict)
    ragged: tuple[str, ...] = ()
    dims: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    raw: str = ""
    computed: tuple[Computed, ...] = ()


@dataclass(frozen=True)
class Column:
    """One field of a kind.

    Parameters
    ----------
    name : str
    dtype : numpy.dtype
    shape : tuple of int
        In the payload that was looked at.
    kind : Kind
    unit : str
    dims : tuple of str
    value : Value or None
        Where it is stored.
    computed : Computed or None
        Neither: it is the pixels of an area detector.
    ragged : bool
        Whether events have different numbers of it.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    kind: Kind = Kind.NUMBER
    unit: str = ""
    dims: tuple[str, ...] = ()
    value: Value | None = None
    computed: Computed | None = None
    ragged: bool = False

    @property
    def is_frame(self) -> bool:
        """Whether it is the pixels of an area detector."""
        return self.value is None and self.computed is None


# ---- what is computed ---------------------------------------------------------------------------
def _volts(waveforms: str) -> Callable[[Read, Any], Array]:
    """Return a formula: counts x slope - offset, in volts."""

    def of(read: Read, cfg: Any) -> Array:
        counts = read(waveforms)
        settings = cfg.vert[: counts.shape[1]]
        slope, offset = (np.array([getattr(v, n) for v in settings]) for n in ("slope", "offset"))
        volts: Array = counts * slope[:, None, None] - offset[:, None, None]
        return volts

    return of


def _sample_times(position: str) -> Callable[[Read, Any], Array]:
    """Return a formula: the segment's trigger position + i x sampling interval, in seconds."""

    def of(read: Read, cfg: Any) -> Array:
        times: Array = read(position)[..., None] + np.arange(cfg.horiz.nbr_samples) * cfg.horiz.samp_interval
        return times

    return of


def _intensity(inverted: int) -> Callable[[Read, Any], Array]:
    """Return a formula: x / (c0 + c1 x + ... + c7 x^7) where the coefficients are set."""

    def of(read: Read, cfg: Any) -> Array:
        x = (read("data").astype(np.int64) ^ inverted).astype(np.float64)
        coefficients = cfg.nonlin_correct
        if not coefficients.any():
            return x
        corrected: Array = x / np.polynomial.polynomial.polyval(x, coefficients)
        return corrected

    return of


def _wavelengths(read: Read, cfg: Any) -> Array:
    """Return the wavelength of each pixel, c0 + c1 i + c2 i^2 + c3 i^3, in nm."""
    counts = read("data")
    pixels = np.polynomial.polynomial.polyval(np.arange(counts.shape[1], dtype=float), cfg.wave_len_calib)
    return np.broadcast_to(pixels, counts.shape)


def _channel(number: int) -> Computed:
    """Return one channel of a Generic1D digitiser, in the type that it is stored in."""

    def of(read: Read, cfg: Any) -> Array:
        dtype = np.dtype("<" + SAMPLE_TYPES[int(cfg.sample_type[number])])
        start, count = cfg.data_offset(number), int(cfg.length[number])
        stored = read("sample_bytes")
        if isinstance(stored, Ragged) or start + count * dtype.itemsize > stored.shape[1]:
            raise FormatError(f"the samples of channel {number} are cut")
        piece = np.ascontiguousarray(stored[:, start : start + count * dtype.itemsize])
        return piece.view(dtype)

    return Computed(f"channel_{number}", of, dims=(f"channel_{number}_sample",))


def _tdc_times(read: Read, cfg: Any) -> Ragged:
    """Return the hits in seconds: counts of 50 ps."""
    counts = read("data_count")
    return Ragged(counts.counts, counts.items * TDC_SECONDS)


def _full_frame(read: Read, cfg: Any) -> Array:
    links = read("frame_data")
    if links.shape[1] != 4:
        raise FormatError(f"a pnCCD of {links.shape[1]} links has no full frame")
    return np.stack([pnccd_image(one) for one in links]) if len(links) else np.empty((0, 1024, 1024), "u2")


_WAVEFORMS = {"waveforms": ("channel", "segment", "sample"), "timestamp_pos": ("channel", "segment"),
              "timestamp_time_stamp_lo": ("channel", "segment"), "timestamp_value": ("channel", "segment"),
              "timestamp_time_stamp_hi": ("channel", "segment")}  # fmt: skip
_CAMERA_VIEWS = ("pixel_bytes", "int_pixel_data", "data8", "data16", "pixels")
_CODES = {"fifo_events_event_code": "event_codes", "fifo_events_timestamp_high": "code_fiducials",
          "fifo_events_timestamp_low": "code_ticks"}  # fmt: skip
_EVR = Layout(rename=_CODES, ragged=tuple(_CODES))
_CSPAD = Layout(hide=("quads_data",))
_SHARED_IPIMB = Layout(strip=("ipimb_data_", "ipm_fex_data_"), hide=("ipimb_config_",))


def _acqiris(prefix: str, strip: tuple[str, ...], hide: tuple[str, ...] = ()) -> Layout:
    dims = {f"{prefix}{name}": names for name, names in _WAVEFORMS.items()}
    volts = Computed("volts", _volts(f"{prefix}waveforms"), "V", ("channel", "segment", "sample"))
    times = Computed("times", _sample_times(f"{prefix}timestamp_pos"), "s", ("channel", "segment", "sample"))
    return Layout(strip, hide, dims=dims, raw=f"{prefix}waveforms", computed=(volts, times))


def _ocean_optics(inverted: int) -> Layout:
    intensity = Computed("intensity", _intensity(inverted), "", ("pixel",))
    return Layout(
        raw="data", dims={"data": ("pixel",)},
        computed=(intensity, Computed("wavelengths", _wavelengths, "nm", ("pixel",))),
    )  # fmt: skip


LAYOUTS = {
    "Acqiris.DataDescV1": _acqiris("data_", ("data_",)),
    "Bld.BldDataAcqADCV1": Layout(("data_data_",), ("config_",), raw="data_data_waveforms"),
    "Acqiris.TdcDataV1": Layout(
        ("data_",), ragged=("data_value", "data_count", "data_source", "data_overflow"),
        computed=(Computed("times", _tdc_times, "s"),),
    ),
    "Camera.FrameV1": Layout(hide=_CAMERA_VIEWS),
    "Bld.BldDataPimV1": Layout(
        ("frame_",), ("cam_config_", "pim_config_", *(f"frame_{name}" for name in _CAMERA_VIEWS))
    ),
    "Bld.BldDataIpimbV0": _SHARED_IPIMB,
    "Bld.BldDataIpimbV1": _SHARED_IPIMB,
    "Bld.BldDataUsdUsbV1": Layout(("data_", "fex_data_"), ("config_", "fex_config_")),
    "Bld.BldDataSpectrometerV1": Layout(ragged=("peak_pos", "peak_height", "peak_fwhm")),
    "CsPad.DataV1": _CSPAD,
    "CsPad.DataV2": _CSPAD,
    "EvrData.DataV3": _EVR,
    "EvrData.DataV4": _EVR,
    "Generic1D.DataV0": Layout(hide=("data_size",), computed=tuple(_channel(k) for k in range(16))),
    "Imp.ElementV1": Layout(
        hide=("samples_channels",),
        computed=(
            Computed("samples", lambda read, cfg: read("samples_channels").swapaxes(1, 2),
                     dims=("channel", "sample"), kind=Kind.PIXELS),
        ),
    ),
    "OceanOptics.DataV1": _ocean_optics(0x2000),
    "OceanOptics.DataV2": _ocean_optics(0),
    "OceanOptics.DataV3": _ocean_optics(0),
    "PNCCD.FramesV1": Layout(
        ("frame_",), ("frame_words", "frame_data"), computed=(Computed("full_frame", _full_frame),)
    ),
}  # fmt: skip
"""By title of the record; others are offered as they are."""

PIXEL_VALUES = ("frame", "frames", "data")
"""Values of area detectors that are their pixels, where they are not said here:"""

PIXEL_NAMES = {
    "Camera.FrameV1": "pixels", "Bld.BldDataPimV1": "pixels", "CsPad.DataV1": "quads_data",
    "CsPad.DataV2": "quads_data", "PNCCD.FramesV1": "frame_data",
}  # fmt: skip


# ---- the fields of a payload --------------------------------------------------------------------
def columns_of(sample: View) -> list[Column]:
    """Return the fields of a payload: pixels first, then its values, then what is computed."""
    return [*_pixels(sample), *_stored(sample), *_computed(sample)]


def frame_of(sample: View) -> Panels | None:
    """Return the panels of a payload; None if it is no frame of an area detector."""
    if not is_imager(sample.record.title):
        return None
    try:
        return panels_of(sample)
    except FormatError:  # 24-bit colour pictures: offered as bytes
        return None


def _pixels(sample: View) -> Iterator[Column]:
    panels = frame_of(sample)
    if panels is not None:
        several = len(panels.starts) > 1
        shape = (len(panels.starts), *panels.shape) if several else panels.shape
        yield Column(pixels_name(sample.record), panels.dtype, shape, Kind.PIXELS)


def pixels_name(record: Record) -> str:
    """Return what the record of an area detector calls its pixels."""
    own = (name for name in record.accessors.values() if name in PIXEL_VALUES)
    return PIXEL_NAMES.get(record.title) or next(own)


def _stored(sample: View) -> Iterator[Column]:
    layout = LAYOUTS.get(sample.record.title, Layout())
    hidden = layout.hide if frame_of(sample) is None else (*layout.hide, *PIXEL_VALUES)
    hidden = hidden if frame_of(sample) is not None else tuple(h for h in hidden if h != "pixels")
    for value in values_of(sample):
        if value.dtype.kind == "O" or _is_hidden(value.name, hidden):
            continue
        kind = Kind.STRING if value.dtype.kind == "S" else Kind.NUMBER
        kind = Kind.PIXELS if value.name == layout.raw else kind
        name = layout.rename.get(value.name, value.name)
        prefix = next((p for p in layout.strip if name.startswith(p)), "")
        yield Column(
            name.removeprefix(prefix), value.dtype, value.shape, kind, value.unit,
            layout.dims.get(value.name, ()), value, ragged=value.name in layout.ragged,
        )  # fmt: skip


def _is_hidden(name: str, hidden: tuple[str, ...]) -> bool:
    return any(name == h or (h.endswith("_") and name.startswith(h)) for h in hidden)


def _computed(sample: View) -> Iterator[Column]:
    layout = LAYOUTS.get(sample.record.title, Layout())
    start, stop = np.array([sample.start]), np.array([sample.stop])
    for computed in layout.computed:
        column = Column(computed.name, np.dtype(float), (), computed=computed)
        try:
            found = read_column(column, sample.record, sample.buffer, start, stop, sample.cfg)
        except (FormatError, AttributeError, IndexError, KeyError):  # not without its settings
            continue
        ragged = isinstance(found, Ragged)
        items = found.items if isinstance(found, Ragged) else found
        yield Column(
            computed.name, items.dtype, items.shape if ragged else items.shape[1:], computed.kind,
            computed.unit, computed.dims, None, computed, ragged,
        )  # fmt: skip


def read_column(
    column: Column, record: Record, data: Bytes, starts: Ints, stops: Ints, cfg: View | None
) -> Array | Ragged:
    """Read a field, no pixels of an area detector, from many whole payloads.

    Parameters
    ----------
    column : Column
    record : Record
    data : ndarray of uint8
    starts, stops : (event,) int64
        Where each payload lies in `data`.
    cfg : View, optional
        Their common configuration.

    Returns
    -------
    (event, ...) array, or Ragged

    Raises
    ------
    FormatError
        A payload is cut, or the arrays differ in shape.
    """
    if column.value is not None:
        return read_value(record, column.value, data, starts, stops, cfg)
    assert column.computed is not None  # noqa: S101  (pixels are read by panels)
    values = {value.name: value for value in values_of(record.view(data, int(starts[0]), int(stops[0]), cfg))}

    def read(name: str) -> Array | Ragged:
        return read_value(record, values[name], data, starts, stops, cfg)

    return column.computed.of(read, cfg)

"""The detectors of LCLS-1 that can be named: their records, their settings and what they write, as a table.

The layouts are those of `readers.tables`: a kind says which record an event holds and which record
configures it; the fields are the record's own values.  Frames are always the field ``raw``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from psana_dask.errors import suggestion
from psana_dask.readers.records import Record
from psana_dask.readers.tables import record_for
from psana_dask.readers.tables.names import BLD_NAMES
from psana_dask.readers.xtc_layout import Level, bld_source, detector_source, source_name
from psana_dask.simulate.describe import Algorithm, Config, Detector, Field, Value
from psana_dask.simulate.values import (
    Moment,
    event_codes,
    event_number,
    event_numbers,
    fiducials_of_codes,
    frame,
    photon_energy,
    pulse_energy,
    ticks_of_codes,
)

Shape = tuple[int, ...]
Key = tuple[int, int]
"""Type and version of a record."""
Settings = Mapping[str, Any]
Values = Mapping[str, Any]
Source = tuple[int, int]
"""log, phy."""


def _none(_: Shape) -> Settings:
    return {}


def _as_named(values: Values, settings: Settings) -> Values:
    return values


@dataclass(frozen=True)
class XtcKind:
    """What detectors of one kind have in common.

    Parameters
    ----------
    source : str
        Address of the first one; the last number counts up.
    data : (int, int)
        Type and version of the record in events.
    fields : callable
        From the shape and the settings.
    shape : tuple of int
        Of a frame.
    config : (int, int), optional
        Type and version of the record in Configure.
    settings : callable
        Values of that record, from the shape.
    arranged : callable
        From values of fields (and settings) to values of the record.
    compressible : int
        Bytes in front of each block of pixels that compression leaves alone; 0: the DAQ never
        compresses these data.
    """

    source: str
    data: Key
    fields: Callable[[Shape, Settings], tuple[Field, ...]]
    shape: Shape = ()
    config: Key | None = None
    settings: Callable[[Shape], Settings] = _none
    arranged: Callable[[Values, Settings], Values] = _as_named
    compressible: int = 0
    blocks: Callable[[Settings], int] = lambda settings: 1  # of pixels in a record


# ---- fields -------------------------------------------------------------------------------------
def stored_fields(
    record: Record, special: Mapping[str, Value] | None = None, only: Sequence[str] = ()
) -> tuple[Field, ...]:
    """Return a field for each value that a record stores at a fixed place.

    Parameters
    ----------
    record : Record
    special : mapping
        Values by name; the others are noise.
    only : sequence of str
        Names of the nested records that are filled; default: all.
    """
    found: list[Field] = []
    for one in record.fields:
        name = record.name_of(one)
        if one.record is not None and not one.shape and (not only or name in only):
            found += [replace(f, name=f"{name}_{f.name}") for f in stored_fields(one.record)]
        elif one.is_fixed and not one.hidden and isinstance(one.type, str) and one.type != "char":
            found.append(Field(name, one.type, tuple(n for n in one.shape if isinstance(n, int))))
    values = special or {}
    return tuple(replace(f, value=values[f.name]) if f.name in values else f for f in found)


def nested(record: Record, flat: Values) -> dict[str, Any]:
    """Turn flat names (``ipm_fex_data_sum``) into the nested values that `encode` takes."""
    out: dict[str, Any] = {}
    for name, value in flat.items():
        inner = [f for f in record.fields if f.record and name.startswith(f"{record.name_of(f)}_")]
        if name in record.lookup or not inner:
            out[name] = value
        else:
            prefix = record.name_of(inner[0])
            out.setdefault(prefix, {})[name.removeprefix(f"{prefix}_")] = value
    return {name: _inside(record, name, value) for name, value in out.items()}


def _inside(record: Record, name: str, value: Any) -> Any:
    target = record.lookup.get(name)
    inner = target[0].record if isinstance(target, tuple) else None
    return nested(inner, value) if inner is not None and isinstance(value, dict) else value


def _of_record(key: Key, special: Mapping[str, Value] | None = None, only: Sequence[str] = ()) -> Any:
    return lambda shape, settings: stored_fields(record_for(*key), special, only)


def _frame(*more: Field, dtype: str = "u2") -> Callable[[Shape, Settings], tuple[Field, ...]]:
    return lambda shape, settings: (Field("raw", dtype, shape, frame), *more)


def _cspad_fields(shape: Shape, settings: Settings) -> tuple[Field, ...]:
    there = [quad * 8 + section for quad in _quads(settings) for section in _sections(settings, quad)]
    absent = tuple(sorted(set(range(32)) - set(there)))
    return (Field("raw", "i2", shape, frame, absent=absent),)


def _evr_fields(shape: Shape, settings: Settings) -> tuple[Field, ...]:
    return (
        Field("fifo_events_event_code", "u4", (None,), event_codes),
        Field("fifo_events_timestamp_high", "u4", (None,), fiducials_of_codes),
        Field("fifo_events_timestamp_low", "u4", (None,), ticks_of_codes),
    )


def _acqiris_fields(shape: Shape, settings: Settings) -> tuple[Field, ...]:
    return (Field("raw", "i2", shape), Field("position", "f8", shape[:2], trigger_positions))


def trigger_positions(moment: Moment) -> Any:
    """Return the time from the trigger to the first sample of each segment, in seconds."""
    random = np.random.Generator(np.random.Philox(key=moment.key))
    return random.uniform(-1e-9, 0, moment.sized())


# ---- from fields to records ---------------------------------------------------------------------
def _quads(settings: Settings) -> list[int]:
    return [quad for quad in range(4) if settings["quad_mask"] >> quad & 1]


def _sections(settings: Settings, quad: int) -> list[int]:
    return [section for section in range(8) if settings["roi_masks"] >> 8 * quad + section & 1]


def _cspad(values: Values, settings: Settings) -> Values:
    raw = values["raw"]
    quads = [
        {"quad": quad, "data": raw[[8 * quad + s for s in _sections(settings, quad)]]}
        for quad in _quads(settings)
    ]
    return {"quads": quads}


def _cspad2x2(values: Values, settings: Settings) -> Values:
    return {"data": np.moveaxis(values["raw"], 0, -1)}


def _into(name: str) -> Callable[[Values, Settings], Values]:
    """Return the function that writes the frame as the record's value `name`."""
    return lambda values, settings: {name if key == "raw" else key: v for key, v in values.items()}


def _camera(values: Values, settings: Settings) -> Values:
    raw = values["raw"]
    pixels = np.ascontiguousarray(raw).view("u1").reshape(*raw.shape, raw.itemsize)
    rows, cols = raw.shape
    return {"width": cols, "height": rows, "depth": 8 * raw.itemsize, "pixel_bytes": pixels}


def _pnccd(values: Values, settings: Settings) -> Values:
    links = zip(values["raw"], values["frame_frame_number"], strict=True)
    return {"frame": [{"words": link.reshape(-1), "frame_number": number} for link, number in links]}


def _acqiris(values: Values, settings: Settings) -> Values:
    def channel(waveforms: Any, positions: Any) -> Values:
        return {
            "nbr_samples_in_seg": waveforms.shape[-1],
            "nbr_segments": waveforms.shape[0],
            "timestamp": [{"pos": position} for position in positions],
            "waveforms": waveforms,
        }

    return {"data": [channel(*pair) for pair in zip(values["raw"], values["position"], strict=True)]}


def _evr(values: Values, settings: Settings) -> Values:
    names = "timestamp_high", "timestamp_low", "event_code"
    columns = [values[f"fifo_events_{name}"].tolist() for name in names]
    return {"fifo_events": [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]}


# ---- settings -----------------------------------------------------------------------------------
HIGH_GAIN = {"gainMap": np.full((185, 194), 0xFFFF, np.uint16)}
"""Gain map of a quadrant whose pixels are all in high gain."""


def _cspad_settings(shape: Shape) -> Settings:
    quads = [{"gm": HIGH_GAIN} for _ in range(4)]
    masks = {"quad_mask": 15, "roi_masks": 0xFFFFFFFF, "asic_mask": 15}
    return {**masks, "quads": quads, "active_run_mode": 3, "event_code": 40}


def _cspad2x2_settings(shape: Shape) -> Settings:
    return {"asic_mask": 3, "roi_mask": 3, "quad": {"gm": HIGH_GAIN}}


def _epix_settings(shape: Shape) -> Settings:
    """Say that four ASICs share the frame, with one calibration and one environment row each."""
    rows, cols = shape
    return {
        "number_of_asics_per_row": 2,
        "number_of_asics_per_column": 2,
        "number_of_rows_per_asic": rows // 2,
        "number_of_readable_rows_per_asic": rows // 2,
        "number_of_pixels_per_asic_row": cols // 2,
        "calibration_row_count_per_asic": 1,
        "environmental_row_count_per_asic": 1,
        "version": 0xC0001234,
        "carrier_id0": 0x1234,
        "carrier_id1": 0x5678,
    }


def _jungfrau_settings(shape: Shape) -> Settings:
    modules, rows, cols = shape
    return {
        "number_of_modules": modules,
        "number_of_rows_per_module": rows,
        "number_of_columns_per_module": cols,
        "bias_voltage": 200,
        "exposure_time": 1e-5,
        "module_config": [{"serial_number": 100 + m if m < modules else 0} for m in range(32)],
    }


def _pnccd_settings(shape: Shape) -> Settings:
    links, rows, cols = shape
    return {"num_links": links, "payload_size_per_link": 2 * rows * cols + 16}


def _ccd_settings(shape: Shape) -> Settings:
    rows, cols = shape
    return {"width": cols, "height": rows, "bin_x": 1, "bin_y": 1, "exposure_time": 0.5}


def _acqiris_settings(shape: Shape) -> Settings:
    channels, segments, samples = shape
    return {
        "nbr_converters_per_channel": 1,
        "channel_mask": (1 << channels) - 1,
        "nbr_banks": 1,
        "horiz": {"samp_interval": 1e-9, "nbr_samples": samples, "nbr_segments": segments},
        "vert": [{"full_scale": 2.0, "offset": 0.25} for _ in range(20)],
    }


def _imp_settings(shape: Shape) -> Settings:
    return {"number_of_samples": shape[-1]}


def _imp(values: Values, settings: Settings) -> Values:
    return {"samples": [{"channels": column} for column in values["raw"].T]}


_EBEAM = {"photon_energy": photon_energy, "charge": 0.18, "l3_energy": 13_500.0, "damage_mask": 0}
_GAS = {"f_11_enrc": pulse_energy, "f_12_enrc": pulse_energy}
_GMD = {"milli_joules_per_pulse": pulse_energy}
_NUMBER = Field("frame_number", "u4", value=event_number)
_LINKS = Field("frame_frame_number", "u4", (4,), value=event_numbers)
_SHOT = Field("shot_id_start", "u4", value=event_number)
_IPM = ("ipimb_data", "ipm_fex_data")

# fmt: off
XTC_KINDS = {
    "cspad":        XtcKind("XppGon.0:Cspad.0", (28, 2), _cspad_fields, (32, 185, 388), (29, 5),
                            _cspad_settings, _cspad, 32, lambda s: s["quad_mask"].bit_count()),
    "cspad2x2":     XtcKind("XppGon.0:Cspad2x2.0", (41, 1), _frame(dtype="i2"), (2, 185, 388), (43, 2),
                            _cspad2x2_settings, _cspad2x2, compressible=32),
    "epix100a":     XtcKind("XppGon.0:Epix100a.0", (75, 3), _frame(_NUMBER), (704, 768), (84, 2),
                            _epix_settings, _into("frame")),
    "epix10ka":     XtcKind("MfxEndstation.0:Epix10ka.0", (75, 3), _frame(_NUMBER), (352, 384), (112, 2),
                            _epix_settings, _into("frame")),
    "epix10kaquad": XtcKind("MfxEndstation.0:Epix10kaQuad.0", (118, 1), _frame(_NUMBER), (4, 352, 384),
                            (120, 2), arranged=_into("frame")),
    "jungfrau":     XtcKind("MfxEndstation.0:Jungfrau.0", (108, 2),
                            _frame(replace(_NUMBER, dtype="u8")), (1, 512, 1024), (107, 4),
                            _jungfrau_settings, _into("frame")),
    "camera":       XtcKind("XppEndstation.0:Opal1000.0", (2, 1), _frame(), (1024, 1024), (6, 1),
                            lambda shape: {"output_resolution": 2}, _camera, compressible=16),
    "pnccd":        XtcKind("Camp.0:pnCCD.0", (11, 1), _frame(_LINKS), (4, 512, 512), (12, 2),
                            _pnccd_settings, _pnccd, 16, lambda s: s["num_links"]),
    "princeton":    XtcKind("MecTargetChamber.0:Princeton.0", (17, 2), _frame(_SHOT), (1300, 1340), (18, 5),
                            _ccd_settings, _into("data")),
    "andor":        XtcKind("SxrEndstation.0:Andor.0", (61, 1), _frame(_SHOT), (512, 2048), (60, 2),
                            _ccd_settings, _into("data")),
    "waveform":     XtcKind("AmoETOF.0:Acqiris.0", (3, 1), _acqiris_fields, (4, 1, 1000), (4, 1),
                            _acqiris_settings, _acqiris),
    "imp":          XtcKind("XppEndstation.0:Imp.0", (67, 1), lambda s, _: (Field("raw", "u2", s),),
                            (4, 1023), (68, 1), _imp_settings, _imp),
    "timing":       XtcKind("NoDetector.0:Evr.0", (19, 4), _evr_fields, (), (8, 7), arranged=_evr),
    "timetool":     XtcKind("XppEndstation.0:Opal1000.1", (87, 2), _of_record((87, 2)), (), (86, 2)),
    "encoder":      XtcKind("XppEndstation.0:Encoder.0", (24, 2), _of_record((24, 2)), (), (25, 2)),
    "ebeam":        XtcKind("EBeam", (15, 7), _of_record((15, 7), _EBEAM)),
    "gas_detector": XtcKind("FEEGasDetEnergy", (14, 1), _of_record((14, 1), _GAS)),
    "phase_cavity": XtcKind("PhaseCavity", (16, 1), _of_record((16, 1))),
    "gmd":          XtcKind("GMD", (64, 2), _of_record((64, 2), _GMD)),
    "ipm":          XtcKind("XppSb2_Ipm", (35, 1), _of_record((35, 1), only=_IPM)),
}
# fmt: on
"""Any other record: ``kind="record"`` with ``record=(type, version)`` and a source."""


@dataclass(frozen=True)
class XtcDetector:
    """A detector as LCLS-1 writes it: the description with everything filled in, and its addresses.

    Parameters
    ----------
    detector : Detector
        With fields and settings.
    kind : XtcKind
    sources : mapping of int to (int, int)
        (log, phy) of each segment.
    whole : (int, int)
        (log, phy) that the name stands for.
    """

    detector: Detector
    kind: XtcKind
    sources: Mapping[int, Source]
    whole: Source

    @property
    def is_bld(self) -> bool:
        """Whether it is beam-line data, which have no name but their own."""
        return self.whole[0] >> 24 == Level.REPORTER

    @property
    def data_key(self) -> Key:
        """Type and version of the event's record."""
        return self.detector.record or self.kind.data

    @property
    def config_key(self) -> Key | None:
        """Type and version of the configuration's record."""
        given = self.detector.config.record if self.detector.config else None
        return given or self.kind.config

    def settings(self, segment: int, step: int | None = None) -> Settings:
        """Return the values of the configuration, in Configure or as `step` brings them."""
        config = self.detector.config
        if config is None:
            return {}
        return {**config.of_segment(segment), **({} if step is None else config.of_step(step))}


@dataclass(frozen=True)
class _Merged:
    """Settings of a segment: the kind's, and over them the description's."""

    given: Callable[[int], Settings]
    usual: Settings

    def __call__(self, segment: int) -> Settings:
        return {**self.usual, **self.given(segment)}


def xtc_detectors(detectors: Sequence[Detector]) -> tuple[XtcDetector, ...]:
    """Return the detectors with everything that their kinds say, each at an address of its own.

    Raises
    ------
    ValueError
        If a kind or an address is unknown, or a detector cannot have segments.
    """
    found: list[XtcDetector] = []
    for detector in detectors:
        kind = _kind_of(detector)
        address = detector.source or _next_address(kind.source, [d.whole for d in found])
        found.append(_filled_in(detector, kind, source_of(address)))
    return tuple(found)


def _kind_of(detector: Detector) -> XtcKind:
    if detector.kind == "record" and detector.record and detector.source:
        return XtcKind(detector.source, detector.record, _of_record(detector.record))
    if detector.kind not in XTC_KINDS:
        near = suggestion(detector.kind, [*XTC_KINDS, "record (with record= and source=)"], 30)
        raise ValueError(f"no kind {detector.kind!r} of LCLS-1 detector{near}")
    return XTC_KINDS[detector.kind]


def _filled_in(detector: Detector, kind: XtcKind, whole: Source) -> XtcDetector:
    shape = kind.shape if detector.shape is None else detector.shape
    config = _config_of(detector, kind, shape)
    settings = config.of_segment(detector.segment_numbers[0]) if config else {}
    fields = kind.fields(shape, settings)
    if detector.dtype:
        fields = tuple(replace(f, dtype=detector.dtype) if f.value is frame else f for f in fields)
    algorithms = detector.algorithms or (Algorithm(fields=fields),)
    address = detector.source or source_name(*whole)
    filled = replace(detector, shape=shape, config=config, algorithms=algorithms, source=address)
    return XtcDetector(filled, kind, _sources(filled, whole, shape), whole)


def _config_of(detector: Detector, kind: XtcKind, shape: Shape) -> Config | None:
    usual, given = kind.settings(shape), detector.config
    if given is None:
        return Config(values=usual) if kind.config else None
    values = _Merged(given.values, usual) if callable(given.values) else {**usual, **given.values}
    return replace(given, values=values)


def _sources(detector: Detector, whole: Source, shape: Shape) -> dict[int, Source]:
    segments = detector.segment_numbers
    if len(segments) == 1:
        return {segments[0]: whole}
    if detector.kind != "jungfrau":
        raise ValueError(f"{detector.name}: of LCLS-1 detectors only the Jungfrau has segments")
    modules = shape[0]
    device = DEVICE_OF_MODULES[modules]
    place, number, _, device_number = whole[1].to_bytes(4, "big")
    total = modules * len(segments)
    return {
        segment: (
            whole[0],
            int.from_bytes(
                bytes([place, number << 4 | total, device, device_number << 4 | i * modules]), "big"
            ),
        )
        for i, segment in enumerate(segments)
    }


DEVICE_OF_MODULES = {1: 51, 2: 52, 3: 53, 4: 54}
"""Device number of a Jungfrau segment with so many modules."""


def source_of(address: str) -> Source:
    """Return (log, phy) of an address: ``XppGon.0:Cspad.0``, or the name of beam-line data."""
    if address in BLD_NAMES:
        return bld_source(address)
    try:
        (place, number), (device, device_number) = (side.split(".") for side in address.split(":"))
        return detector_source(place, int(number), device, int(device_number))
    except ValueError as error:
        raise ValueError(
            f"no LCLS-1 address {address!r}; they look like XppGon.0:Cspad.0 or EBeam"
        ) from error


def _next_address(address: str, taken: Sequence[Source]) -> str:
    stem, dot, number = address.rpartition(".")
    if not dot:
        return address
    numbers = (n for n in range(int(number), 256) if source_of(f"{stem}.{n}") not in taken)
    return f"{stem}.{next(numbers)}"

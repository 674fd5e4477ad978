"""The detectors that can be named: what each kind writes, as a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from psana_dask.errors import suggestion
from psana_dask.simulate.describe import Algorithm, Choice, Config, Detector, Enum, Field
from psana_dask.simulate.values import (
    Moment,
    event_number,
    frame,
    pulse_energy,
    pulse_id,
    sequence_values,
    timestamp,
)

Shape = tuple[int | None, ...]
Fields = Callable[[Shape], tuple[Algorithm, ...]]


@dataclass(frozen=True)
class Kind:
    """What detectors of one kind have in common; functions of the frame's shape."""

    det_type: str
    shape: tuple[int, ...]  # of a segment's frame
    algorithms: Fields
    config: Callable[[Shape], Config] | None = None


GAIN_MODE = Enum("gainModeEnum", {"DYNAMIC": 0, "FIX_G1": 3, "FIX_G2": 4})
GAIN_0 = Enum("gain0Enum", {"normal": 0, "high": 1})
STATE = Enum("stateEnum", {"Off": 0, "On": 1, "Fault": 7})


def every_third(moment: Moment) -> int:
    """Return an enum code that goes round Off, On, Fault."""
    return tuple(STATE.members.values())[moment.event % 3]


def _epix10ka_config(shape: Shape) -> Config:
    rows, cols = (n or 0 for n in shape[-2:])
    pixels = np.full((4, rows // 2, cols // 2), 12, np.uint8)
    return Config(values={"asicPixelConfig": pixels, "trbit": np.array([1, 1, 1, 0], np.uint8)})


def _jungfrau_values(segment: int) -> Mapping[str, object]:
    return {
        "user.gainMode": Choice(GAIN_MODE, 0),
        "user.gain0": Choice(GAIN_0, segment % 2),
        "user.exposure_period": 5e-05,
        "firmwareVersion": np.uint64(539167008 + segment),
        "name": f"module {segment}",
        "expert.trbit": np.arange(4, dtype=np.uint8),
    }


def _gain_of_step(step: int) -> Mapping[str, object]:
    return {"user.gain0": Choice(GAIN_0, step % 2)}


JUNGFRAU_CONFIG = Config(
    values=_jungfrau_values,
    begin_run={"user.exposure_period": 2e-05},
    begin_step=_gain_of_step,
    version=(0, 2, 0),
)

JUNGFRAU_COUNTERS = (
    Field("frame_cnt", "u8", value=event_number),
    Field("timestamp", "u8", value=timestamp),
    Field("hotPixelThresh", "u2", value=0),
    Field("numHotPixels", "u4"),
    Field("maxHotPixels", "u4", value=1000),
)

TIMING = (
    Field("pulseId", "u8", value=pulse_id),
    Field("timeStamp", "u8", value=timestamp),
    Field("fixedRates", "u1", (10,)),
    Field("beamPresent", "u1", value=1),
    Field("sequenceValues", "u2", (18,), value=sequence_values),
)

NUMBERS = ("u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f4", "f8")

ALL_TYPES = (
    *(Field(f"v_{code}", code) for code in NUMBERS),
    *(Field(f"a_{code}", code, (3,)) for code in NUMBERS),
    Field("text", "str"),
    Field("state", "enum", value=every_third, enum=STATE),
    Field("cube", "f4", (2, 3, 4)),
    Field("deep", "i2", (2, 1, 2, 1, 3)),
)

GMD = (
    Field("milliJoulesPerPulse", "f4", value=pulse_energy),
    Field("milliJoulesAverage", "f4", value=1.0),
)

HSD = (
    Field("eventHeader", "u4", value=event_number),
    Field("chan00", "u1", (None,), longest=400),
    Field("chan01", "u1", (None,), longest=40),
    Field("spectrum", "f4", (None, 3), longest=6),
    Field("after", "u2"),  # its place varies with the lengths before it
)

FEX = (Field("ampl", "f8"), Field("fltpos", "f8"), Field("status", "enum", value=every_third, enum=STATE))


def _frames(name: str, version: tuple[int, int, int], *more: Field) -> Fields:
    return lambda shape: (Algorithm("raw", version, (Field(name, "u2", shape, frame), *more)),)


def _epix10ka(shape: Shape) -> tuple[Algorithm, ...]:
    return _frames("raw", (2, 0, 1), Field("aux", "u2", (4, shape[-1])))(shape)


def _timetool(shape: Shape) -> tuple[Algorithm, ...]:
    return (*_frames("image", (2, 0, 0))(shape), Algorithm("fex", (4, 5, 6), FEX))


_jungfrau = _frames("raw", (0, 2, 0), *JUNGFRAU_COUNTERS)


def _waveform(shape: Shape) -> tuple[Algorithm, ...]:
    return (Algorithm("raw", (3, 0, 0), (Field("waveform", "f4", shape),)),)


def _fields(*fields: Field) -> Fields:
    return lambda shape: (Algorithm("raw", (2, 0, 0), fields),)


# fmt: off
KINDS = {
    "epix10ka": Kind("epix10ka", (352, 384),      _epix10ka, _epix10ka_config),
    "jungfrau": Kind("jungfrau", (1, 512, 1024),  _jungfrau, lambda _: JUNGFRAU_CONFIG),
    "camera":   Kind("opal",     (1024, 1024),    _frames("image", (2, 0, 0))),
    "andor":    Kind("andor",    (512, 2048),     _frames("value", (0, 0, 1))),
    "pixels":   Kind("cspad",    (185, 388),      _frames("arrayRaw", (2, 3, 42))),
    "timetool": Kind("opal",     (1024, 1024),    _timetool),
    "timing":   Kind("ts",       (),              _fields(*TIMING)),
    "gmd":      Kind("gmd",      (),              _fields(*GMD)),
    "waveform": Kind("wave8",    (1000,),         _waveform),
    "hsd":      Kind("hsd",      (),              _fields(*HSD)),
    "alltypes": Kind("alltypes", (),              _fields(*ALL_TYPES)),
}
# fmt: on


def filled_in(detector: Detector) -> Detector:
    """Return `detector` with everything that its kind says where the description says nothing.

    Raises
    ------
    ValueError
        If the kind is unknown.
    """
    if detector.kind not in KINDS:
        raise ValueError(f"no kind {detector.kind!r} of detector{suggestion(detector.kind, KINDS, 20)}")
    kind = KINDS[detector.kind]
    shape = kind.shape if detector.shape is None else detector.shape
    algorithms = kind.algorithms(shape) if detector.algorithms is None else detector.algorithms
    config = detector.config or (kind.config(shape) if kind.config and detector.algorithms is None else None)
    return replace(
        detector,
        algorithms=tuple(_renamed(algorithm, detector) for algorithm in algorithms),
        config=config,
        det_type=detector.det_type or kind.det_type,
        det_id=f"{detector.name}-1234" if detector.det_id is None else detector.det_id,
        shape=shape,
    )


def _renamed(algorithm: Algorithm, detector: Detector) -> Algorithm:
    def chosen(field: Field) -> Field:
        if field.value is not frame:
            return field
        return replace(field, name=detector.frame_field or field.name, dtype=detector.dtype or field.dtype)

    return replace(algorithm, fields=tuple(chosen(field) for field in algorithm.fields))

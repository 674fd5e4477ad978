"""Digitisers, spectrometers and other one-dimensional data: event data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from psana_dask.errors import FormatError
from psana_dask.readers.records import REST, Array, Bits, Derived, Field, Hidden, Method, Record, cast
from psana_dask.readers.tables import choices as named


def _timestamp_value(r: Any) -> Any:
    return (r.time_stamp_hi << 32) + r.time_stamp_lo


def _points_left(r: Any) -> Any:
    return 32 - r.index_first_point


def samples(r: Any, channel: int, dtype: str) -> Any:
    """Return one channel of a Generic1D record; empty if its samples are of another type."""
    if SAMPLE_TYPES.get(int(r.cfg.sample_type[channel])) != dtype:
        return np.empty(0, dtype)
    start = r.cfg.data_offset(channel)
    stop = start + int(r.cfg.length[channel]) * np.dtype(dtype).itemsize
    if stop > len(r.sample_bytes):
        raise FormatError(f"channel {channel} needs {stop} bytes of samples, there are {len(r.sample_bytes)}")
    return r.sample_bytes[start:stop].view("<" + dtype)


SAMPLE_TYPES = {0: "u1", 1: "u2", 2: "u4", 3: "f4", 4: "f8"}


def samples_of(dtype: str) -> Callable[..., Any]:
    """Return the accessor of the channels whose samples are `dtype`."""
    return lambda r, channel: samples(r, channel, dtype)


def frame_duration(r: Any) -> Any:
    """Return end minus start in seconds."""
    start, end = r.time_frame_start, r.time_frame_end
    return cast(end.tv_sec - start.tv_sec, "i8") + cast(end.tv_nsec - start.tv_nsec, "i8") * 1e-9


def psana_frame_duration(r: Any) -> Any:
    """Return what psana returns: its unsigned differences are 18e9 s off when end.tv_nsec < start.tv_nsec."""
    start, end = r.time_frame_start, r.time_frame_end
    nanoseconds = cast(end.tv_nsec - start.tv_nsec, "u8")
    return cast(end.tv_sec - start.tv_sec, "u8") + nanoseconds * 1e-9


def corrected_pixel(r: Any, pixel: int) -> float:
    """Return one pixel corrected for non-linearity: x / (c0 + c1 x + ... + c7 x^7) of the configuration."""
    return _linear(r, float(r.data[..., pixel]))


def corrected_pixel_v1(r: Any, pixel: int) -> float:
    """Return one pixel corrected for non-linearity; version 1 stores bit 13 inverted."""
    return _linear(r, float(int(r.data[..., pixel]) ^ 0x2000))


def _linear(r: Any, x: float) -> float:
    return x / float(np.polynomial.polynomial.polyval(x, r.cfg.nonlin_correct))


ACQIRIS_TIMESTAMP_V1 = Record(
    "Acqiris.TimestampV1",
    (
        Field("pos",          "f8",     0, unit="s"),
        Field("timeStampLo",  "u4",     8),
        Field("timeStampHi",  "u4",    12),
    ),
    size=16,
    derived=(
        Derived("value", "u8", _timestamp_value),
    ),
)
ACQIRIS_DATA_DESC_V1_ELEM = Record(
    "Acqiris.DataDescV1Elem",
    (
        Field("nbrSamplesInSeg",         "u4",     0),
        Field("indexFirstPoint",         "u4",     4),
        Hidden("_sampTime",              "f8",     8),
        Hidden("_vGain",                 "f8",    16),
        Hidden("_vOffset",               "f8",    24),
        Field("nbrSegments",             "u4",    32),
        Hidden("_nbrAvgWforms",          "u4",    36),
        Hidden("_actualTriggersInAcqLo", "u4",    40),
        Hidden("_actualTriggersInAcqHi", "u4",    44),
        Hidden("_actualDataSize",        "u4",    48),
        Hidden("_reserved2",             "u4",    52),
        Hidden("_reserved3",             "f8",    56),
        Array("timestamp",               ACQIRIS_TIMESTAMP_V1,  64, ("cfg.horiz.nbr_segments",)),
        Hidden("_skip",                  "i2",  None, ("index_first_point",)),
        Array("waveforms",               "i2",  None, ("cfg.horiz.nbr_segments", "cfg.horiz.nbr_samples")),
        Hidden("_extraSpace",            "i2",  None, (_points_left,)),
    ),
    configs=("Acqiris.ConfigV1",),
)
ACQIRIS_DATA_DESC_V1 = Record(
    "Acqiris.DataDescV1",
    (
        Array("data",  ACQIRIS_DATA_DESC_V1_ELEM,   0, ("cfg.nbr_channels",)),
    ),
    configs=("Acqiris.ConfigV1",),
)
ACQIRIS_TDC_DATA_V1_ITEM = Record(
    "Acqiris.TdcDataV1_Item",
    (
        Field("value",  "u4",     0, bits=(
            Bits("bf_val_", 0, 28, name="count"),
            Bits("source", 28, 3, choices=named.ACQIRIS_TDC_V1_ITEM_SOURCE),
            Bits("bf_ofv_", 31, 1, name="overflow"),
        )),
    ),
    size=4,
)
ACQIRIS_TDC_DATA_V1 = Record(
    "Acqiris.TdcDataV1",
    (
        Array("data",  ACQIRIS_TDC_DATA_V1_ITEM,   0, (REST,)),
    ),
)
IMP_SAMPLE = Record(
    "Imp.Sample",
    (
        Array("channels",  "u2",     0, (4,)),
    ),
    size=8,
)
IMP_LANE_STATUS = Record(
    "Imp.LaneStatus",
    (
        Hidden("_value", "u4",     0, bits=(
            Bits("linkErrCount", 0, 4), Bits("linkDownCount", 4, 4), Bits("cellErrCount", 8, 4),
            Bits("rxCount", 12, 4), Bits("locLinked", 16, 1), Bits("remLinked", 17, 1), Bits("zeros", 18, 10),
            Bits("powersOkay", 28, 4),
        )),
    ),
    size=4,
)
IMP_ELEMENT_V1 = Record(
    "Imp.ElementV1",
    (
        Hidden("_first",      "u4",     0, bits=(Bits("vc", 0, 2), Bits("lane", 6, 2))),
        Hidden("_second",     "u4",     4),
        Field("frameNumber",  "u4",     8),
        Hidden("_ticks",      "u4",    12),
        Hidden("_fiducials",  "u4",    16),
        Field("range",        "u4",    20),
        Field("laneStatus",   IMP_LANE_STATUS,  24),
        Hidden("_z",          "u4",    28),
        Array("samples",      IMP_SAMPLE,  32, ("cfg.number_of_samples",)),
    ),
    align=2,
    configs=("Imp.ConfigV1",),
)
GENERIC1D_DATA_V0 = Record(
    "Generic1D.DataV0",
    (
        Field("data_size",  "u4",     0),
        Array("_int_data",  "u1",     4, ("data_size",), name="sample_bytes"),
    ),
    derived=(
        Method("data_u8", samples_of("u1")),
        Method("data_u16", samples_of("u2")),
        Method("data_u32", samples_of("u4")),
        Method("data_f32", samples_of("f4")),
        Method("data_f64", samples_of("f8")),
    ),
    configs=("Generic1D.ConfigV0",),
)
GSC16AI_DATA_V1 = Record(
    "Gsc16ai.DataV1",
    (
        Array("timestamp",     "u2",     0, (3,)),
        Array("channelValue",  "u2",     6, ("cfg.num_channels",)),
    ),
    align=2,
    configs=("Gsc16ai.ConfigV1",),
)
OCEAN_OPTICS_TIMESPEC64 = Record(
    "OceanOptics.timespec64",
    (
        Field("tv_sec",   "u8",     0),
        Field("tv_nsec",  "u8",     8),
    ),
    size=16,
)
OCEAN_OPTICS_DATA_V1 = Record(
    "OceanOptics.DataV1",
    (
        Array("data",                "u2",     0, (3840,)),
        Field("frameCounter",        "u8",  7680),
        Field("numDelayedFrames",    "u8",  7688),
        Field("numDiscardFrames",    "u8",  7696),
        Field("timeFrameStart",      OCEAN_OPTICS_TIMESPEC64,7704),
        Field("timeFrameFirstData",  OCEAN_OPTICS_TIMESPEC64,7720),
        Field("timeFrameEnd",        OCEAN_OPTICS_TIMESPEC64,7736),
        Hidden("_i32Version",        "i4",  7752),
        Field("numSpectraInData",    "i1",  7756),
        Field("numSpectraInQueue",   "i1",  7757),
        Field("numSpectraUnused",    "i1",  7758),
        Hidden("_iReserved1",        "i1",  7759),
    ),
    size=7760,
    derived=(
        Derived("durationOfFrame", "f8", psana_frame_duration, unit="s"),
        Derived("frameDuration", "f8", frame_duration, unit="s"),
        Method("nonlinerCorrected", corrected_pixel_v1),
    ),
    configs=("OceanOptics.ConfigV1", "OceanOptics.ConfigV2"),
)
OCEAN_OPTICS_DATA_V2 = Record(
    "OceanOptics.DataV2",
    (
        Array("data",                "u2",     0, (2048,)),
        Field("frameCounter",        "u8",  4096),
        Field("numDelayedFrames",    "u8",  4104),
        Field("numDiscardFrames",    "u8",  4112),
        Field("timeFrameStart",      OCEAN_OPTICS_TIMESPEC64,4120),
        Field("timeFrameFirstData",  OCEAN_OPTICS_TIMESPEC64,4136),
        Field("timeFrameEnd",        OCEAN_OPTICS_TIMESPEC64,4152),
        Hidden("_i32Version",        "i4",  4168),
        Field("numSpectraInData",    "i1",  4172),
        Field("numSpectraInQueue",   "i1",  4173),
        Field("numSpectraUnused",    "i1",  4174),
        Hidden("_iReserved1",        "i1",  4175),
    ),
    size=4176,
    derived=(
        Derived("durationOfFrame", "f8", psana_frame_duration, unit="s"),
        Derived("frameDuration", "f8", frame_duration, unit="s"),
        Method("nonlinerCorrected", corrected_pixel),
    ),
    configs=("OceanOptics.ConfigV2",),
)
OCEAN_OPTICS_DATA_V3 = Record(
    "OceanOptics.DataV3",
    OCEAN_OPTICS_DATA_V1.fields,
    size=7760,
    derived=OCEAN_OPTICS_DATA_V2.derived,
    configs=("OceanOptics.ConfigV2",),
)
EPIX_SAMPLER_ELEMENT_V1 = Record(
    "EpixSampler.ElementV1",
    (
        Hidden("_first",       "u4",     0, bits=(Bits("vc", 0, 2), Bits("lane", 6, 2))),
        Hidden("_second",      "u4",     4, bits=(Bits("acqCount", 0, 16),)),
        Field("frameNumber",   "u4",     8),
        Field("ticks",         "u4",    12),
        Field("fiducials",     "u4",    16),
        Hidden("_z0",          "u4",    20),
        Hidden("_z1",          "u4",    24),
        Hidden("_z2",          "u4",    28),
        Array("frame",         "u2",    32, ("cfg.number_of_channels", "cfg.samples_per_channel")),
        Array("temperatures",  "u2",  None, ("cfg.number_of_channels",)),
        Field("lastWord",      "u4",  None),
    ),
    align=2,
    configs=("EpixSampler.ConfigV1",),
)
ARRAYCHAR_DATA_V1 = Record(
    "Arraychar.DataV1",
    (
        Field("numChars",  "u8",     0),
        Array("data",      "u1",     8, ("num_chars",)),
    ),
)

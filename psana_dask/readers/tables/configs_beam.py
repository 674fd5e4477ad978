"""Intensity-position monitors and encoders: configuration."""

from __future__ import annotations

from typing import Any

import numpy as np

from psana_dask.readers.records import Array, Derived, Field, Hidden, Method, Record
from psana_dask.readers.tables import choices as named


def _capacitor_2_bits(r: Any, channel: int) -> Any:
    return r.charge_amp_range >> (2 * channel) & 3


def _capacitor_4_bits(r: Any, channel: int) -> Any:
    return r.charge_amp_range >> (4 * channel) & 15


def _capacitors_2_bits(r: Any) -> Any:
    return np.stack([_capacitor_2_bits(r, channel) for channel in range(4)], axis=-1).astype(np.uint8)


def _capacitors_4_bits(r: Any) -> Any:
    return np.stack([_capacitor_4_bits(r, channel) for channel in range(4)], axis=-1).astype(np.uint8)


IPIMB_CONFIG_V1 = Record(
    "Ipimb.ConfigV1",
    (
        Field("triggerCounter",       "u8",     0),
        Field("serialID",             "u8",     8),
        Field("chargeAmpRange",       "u2",    16),
        Field("calibrationRange",     "u2",    18),
        Field("resetLength",          "u4",    20),
        Field("resetDelay",           "u4",    24),
        Field("chargeAmpRefVoltage",  "f4",    28, unit="V"),
        Field("calibrationVoltage",   "f4",    32, unit="V"),
        Field("diodeBias",            "f4",    36, unit="V"),
        Field("status",               "u2",    40),
        Field("errors",               "u2",    42),
        Field("calStrobeLength",      "u2",    44),
        Hidden("_pad0",               "u2",    46),
        Field("trigDelay",            "u4",    48),
    ),
    size=52,
    derived=(
        Method("capacitorValue", _capacitor_2_bits),
        Derived("capacitorValues", "u1", _capacitors_2_bits),
    ),
)
IPIMB_CONFIG_V2 = Record(
    "Ipimb.ConfigV2",
    (
        *IPIMB_CONFIG_V1.fields,
        Field("trigPsDelay",  "u4",    52),
        Field("adcDelay",     "u4",    56),
    ),
    size=60,
    derived=(
        Method("capacitorValue", _capacitor_4_bits),
        Derived("capacitorValues", "u1", _capacitors_4_bits),
    ),
)
LUSI_DIODE_FEX_CONFIG_V1 = Record(
    "Lusi.DiodeFexConfigV1",
    (
        Array("base",   "f4",     0, (3,)),
        Array("scale",  "f4",    12, (3,)),
    ),
    size=24,
)
LUSI_DIODE_FEX_CONFIG_V2 = Record(
    "Lusi.DiodeFexConfigV2",
    (
        Array("base",   "f4",     0, (16,)),
        Array("scale",  "f4",    64, (16,)),
    ),
    size=128,
)
LUSI_IPM_FEX_CONFIG_V1 = Record(
    "Lusi.IpmFexConfigV1",
    (
        Array("diode",   LUSI_DIODE_FEX_CONFIG_V1,   0, (4,)),
        Field("xscale",  "f4",    96),
        Field("yscale",  "f4",   100),
    ),
    size=104,
)
LUSI_IPM_FEX_CONFIG_V2 = Record(
    "Lusi.IpmFexConfigV2",
    (
        Array("diode",   LUSI_DIODE_FEX_CONFIG_V2,   0, (4,)),
        Field("xscale",  "f4",   512),
        Field("yscale",  "f4",   516),
    ),
    size=520,
)
LUSI_PIM_IMAGE_CONFIG_V1 = Record(
    "Lusi.PimImageConfigV1",
    (
        Field("xscale",  "f4",     0),
        Field("yscale",  "f4",     4),
    ),
    size=8,
)
USDUSB_CONFIG_V1 = Record(
    "UsdUsb.ConfigV1",
    (
        Field("counting_mode",    "u4",     0, (4,), choices=named.USDUSB_COUNT_MODE),
        Field("quadrature_mode",  "u4",    16, (4,), choices=named.USDUSB_QUAD_MODE),
    ),
    size=32,
)
USDUSB_FEX_CONFIG_V1 = Record(
    "UsdUsb.FexConfigV1",
    (
        Array("offset",  "i4",     0, (4,)),
        Array("scale",   "f8",    16, (4,)),
        Array("name",    "char",  48, (4, 48)),
    ),
    size=240,
)
ENCODER_CONFIG_V1 = Record(
    "Encoder.ConfigV1",
    (
        Field("chan_num",         "u4",     0),
        Field("count_mode",       "u4",     4, choices=named.ENCODER_COUNT_MODE),
        Field("quadrature_mode",  "u4",     8, choices=named.ENCODER_QUAD_MODE),
        Field("input_num",        "u4",    12),
        Field("input_rising",     "u4",    16),
        Field("ticks_per_sec",    "u4",    20),
    ),
    size=24,
)
ENCODER_CONFIG_V2 = Record(
    "Encoder.ConfigV2",
    (
        Field("chan_mask",        "u4",     0),
        Field("count_mode",       "u4",     4, choices=named.ENCODER_COUNT_MODE),
        Field("quadrature_mode",  "u4",     8, choices=named.ENCODER_QUAD_MODE),
        Field("input_num",        "u4",    12),
        Field("input_rising",     "u4",    16),
        Field("ticks_per_sec",    "u4",    20),
    ),
    size=24,
)

"""CSPAD and CSPAD 2x2: configuration."""

from __future__ import annotations

from typing import Any

from psana_dask.readers.records import Array, Derived, Field, Method, Record
from psana_dask.readers.tables.common import constant, popcount


def _num_asics_read(r: Any) -> Any:
    return 4 if ((r.asic_mask & 15) == 1) else 16


def _num_quads(r: Any) -> Any:
    return popcount(r.quad_mask)


def _sections_read(r: Any) -> Any:
    return r.num_asics_read // 2


def _roi_mask(r: Any, iq: Any) -> Any:
    return (r.roi_masks >> (8 * iq)) & 255


def _num_asics_stored(r: Any, iq: Any) -> Any:
    return popcount(r.roi_mask(iq)) * 2


def _sections_stored(r: Any) -> Any:
    return popcount(r.roi_masks)


def _asics_stored(r: Any) -> Any:
    return popcount(r.roi_mask) * 2


CSPAD_DIGITAL_POTS_CFG = Record(
    "CsPad.CsPadDigitalPotsCfg",
    (
        Array("pots",  "u1",     0, (80,)),
    ),
    size=80,
)
CSPAD_READ_ONLY_CFG = Record(
    "CsPad.CsPadReadOnlyCfg",
    (
        Field("shiftTest",  "u4",     0),
        Field("version",    "u4",     4),
    ),
    size=8,
)
CSPAD_PROTECTION_SYSTEM_THRESHOLD = Record(
    "CsPad.ProtectionSystemThreshold",
    (
        Field("adcThreshold",         "u4",     0),
        Field("pixelCountThreshold",  "u4",     4),
    ),
    size=8,
)
CSPAD_GAIN_MAP_CFG = Record(
    "CsPad.CsPadGainMapCfg",
    (
        Array("gainMap",  "u2",     0, (185, 194)),
    ),
    size=71780,
)
CSPAD_CONFIG_V1_QUAD_REG = Record(
    "CsPad.ConfigV1QuadReg",
    (
        Array("shiftSelect",     "u4",     0, (4,)),
        Array("edgeSelect",      "u4",    16, (4,)),
        Field("readClkSet",      "u4",    32),
        Field("readClkHold",     "u4",    36),
        Field("dataMode",        "u4",    40),
        Field("prstSel",         "u4",    44),
        Field("acqDelay",        "u4",    48),
        Field("intTime",         "u4",    52),
        Field("digDelay",        "u4",    56),
        Field("ampIdle",         "u4",    60),
        Field("injTotal",        "u4",    64),
        Field("rowColShiftPer",  "u4",    68),
        Field("ro",              CSPAD_READ_ONLY_CFG,  72),
        Field("dp",              CSPAD_DIGITAL_POTS_CFG,  80),
        Field("gm",              CSPAD_GAIN_MAP_CFG, 160),
    ),
    size=71940,
)
CSPAD_CONFIG_V2_QUAD_REG = Record(
    "CsPad.ConfigV2QuadReg",
    (
        *CSPAD_CONFIG_V1_QUAD_REG.before("ro"),
        Field("ampReset",   "u4",    72),
        Field("digCount",   "u4",    76),
        Field("digPeriod",  "u4",    80),
        Field("ro",         CSPAD_READ_ONLY_CFG,  84),
        Field("dp",         CSPAD_DIGITAL_POTS_CFG,  92),
        Field("gm",         CSPAD_GAIN_MAP_CFG, 172),
    ),
    size=71952,
)
CSPAD_CONFIG_V3_QUAD_REG = Record(
    "CsPad.ConfigV3QuadReg",
    (
        *CSPAD_CONFIG_V2_QUAD_REG.before("ro"),
        Field("biasTuning",       "u4",    84),
        Field("pdpmndnmBalance",  "u4",    88),
        Field("ro",               CSPAD_READ_ONLY_CFG,  92),
        Field("dp",               CSPAD_DIGITAL_POTS_CFG, 100),
        Field("gm",               CSPAD_GAIN_MAP_CFG, 180),
    ),
    size=71960,
)
CSPAD_CONFIG_V1 = Record(
    "CsPad.ConfigV1",
    (
        Field("concentratorVersion",  "u4",     0),
        Field("runDelay",             "u4",     4),
        Field("eventCode",            "u4",     8),
        Field("inactiveRunMode",      "u4",    12),
        Field("activeRunMode",        "u4",    16),
        Field("tdi",                  "u4",    20),
        Field("payloadSize",          "u4",    24),
        Field("badAsicMask0",         "u4",    28),
        Field("badAsicMask1",         "u4",    32),
        Field("asicMask",             "u4",    36),
        Field("quadMask",             "u4",    40),
        Array("quads",                CSPAD_CONFIG_V1_QUAD_REG,  44, (4,)),
    ),
    size=287804,
    derived=(
        Derived("numAsicsRead", "u4", _num_asics_read),
        Derived("numQuads", "u4", _num_quads),
        Derived("numSect", "u4", _sections_read),
    ),
)
CSPAD_CONFIG_V2 = Record(
    "CsPad.ConfigV2",
    (
        *CSPAD_CONFIG_V1.before("quads"),
        Field("roiMasks",  "u4",    44),
        Array("quads",     CSPAD_CONFIG_V1_QUAD_REG,  48, (4,)),
    ),
    size=287808,
    derived=(
        Derived("numAsicsRead", "u4", _num_asics_read),
        Method("roiMask", _roi_mask),
        Method("numAsicsStored", _num_asics_stored),
        Derived("numQuads", "u4", _num_quads),
        Derived("numSect", "u4", _sections_stored),
    ),
)
CSPAD_CONFIG_V3 = Record(
    "CsPad.ConfigV3",
    (
        Field("concentratorVersion",   "u4",     0),
        Field("runDelay",              "u4",     4),
        Field("eventCode",             "u4",     8),
        Array("protectionThresholds",  CSPAD_PROTECTION_SYSTEM_THRESHOLD,  12, (4,)),
        Field("protectionEnable",      "u4",    44),
        Field("inactiveRunMode",       "u4",    48),
        Field("activeRunMode",         "u4",    52),
        Field("tdi",                   "u4",    56),
        Field("payloadSize",           "u4",    60),
        Field("badAsicMask0",          "u4",    64),
        Field("badAsicMask1",          "u4",    68),
        Field("asicMask",              "u4",    72),
        Field("quadMask",              "u4",    76),
        Field("roiMasks",              "u4",    80),
        Array("quads",                 CSPAD_CONFIG_V1_QUAD_REG,  84, (4,)),
    ),
    size=287844,
    derived=CSPAD_CONFIG_V2.derived,
)
CSPAD_CONFIG_V4 = Record(
    "CsPad.ConfigV4",
    (
        *CSPAD_CONFIG_V3.before("quads"),
        Array("quads",  CSPAD_CONFIG_V2_QUAD_REG,  84, (4,)),
    ),
    size=287892,
    derived=CSPAD_CONFIG_V2.derived,
)
CSPAD_CONFIG_V5 = Record(
    "CsPad.ConfigV5",
    (
        *CSPAD_CONFIG_V3.before("tdi"),
        Field("internalTriggerDelay",  "u4",    56),
        Field("tdi",                   "u4",    60),
        Field("payloadSize",           "u4",    64),
        Field("badAsicMask0",          "u4",    68),
        Field("badAsicMask1",          "u4",    72),
        Field("asicMask",              "u4",    76),
        Field("quadMask",              "u4",    80),
        Field("roiMasks",              "u4",    84),
        Array("quads",                 CSPAD_CONFIG_V3_QUAD_REG,  88, (4,)),
    ),
    size=287928,
    derived=CSPAD_CONFIG_V2.derived,
)
CSPAD2X2_DIGITAL_POTS_CFG = Record(
    "CsPad2x2.CsPad2x2DigitalPotsCfg",
    (
        Array("pots",  "u1",     0, (80,)),
    ),
    size=80,
)
CSPAD2X2_READ_ONLY_CFG = Record(
    "CsPad2x2.CsPad2x2ReadOnlyCfg",
    (
        Field("shiftTest",  "u4",     0),
        Field("version",    "u4",     4),
    ),
    size=8,
)
CSPAD2X2_PROTECTION_SYSTEM_THRESHOLD = Record(
    "CsPad2x2.ProtectionSystemThreshold",
    (
        Field("adcThreshold",         "u4",     0),
        Field("pixelCountThreshold",  "u4",     4),
    ),
    size=8,
)
CSPAD2X2_GAIN_MAP_CFG = Record(
    "CsPad2x2.CsPad2x2GainMapCfg",
    (
        Array("gainMap",  "u2",     0, (185, 194)),
    ),
    size=71780,
)
CSPAD2X2_CONFIG_V1_QUAD_REG = Record(
    "CsPad2x2.ConfigV1QuadReg",
    (
        Field("shiftSelect",     "u4",     0),
        Field("edgeSelect",      "u4",     4),
        Field("readClkSet",      "u4",     8),
        Field("readClkHold",     "u4",    12),
        Field("dataMode",        "u4",    16),
        Field("prstSel",         "u4",    20),
        Field("acqDelay",        "u4",    24),
        Field("intTime",         "u4",    28),
        Field("digDelay",        "u4",    32),
        Field("ampIdle",         "u4",    36),
        Field("injTotal",        "u4",    40),
        Field("rowColShiftPer",  "u4",    44),
        Field("ampReset",        "u4",    48),
        Field("digCount",        "u4",    52),
        Field("digPeriod",       "u4",    56),
        Field("PeltierEnable",   "u4",    60),
        Field("kpConstant",      "u4",    64),
        Field("kiConstant",      "u4",    68),
        Field("kdConstant",      "u4",    72),
        Field("humidThold",      "u4",    76),
        Field("setPoint",        "u4",    80),
        Field("ro",              CSPAD2X2_READ_ONLY_CFG,  84),
        Field("dp",              CSPAD2X2_DIGITAL_POTS_CFG,  92),
        Field("gm",              CSPAD2X2_GAIN_MAP_CFG, 172),
    ),
    size=71952,
)
CSPAD2X2_CONFIG_V1 = Record(
    "CsPad2x2.ConfigV1",
    (
        Field("concentratorVersion",  "u4",     0),
        Field("protectionThreshold",  CSPAD2X2_PROTECTION_SYSTEM_THRESHOLD,   4),
        Field("protectionEnable",     "u4",    12),
        Field("inactiveRunMode",      "u4",    16),
        Field("activeRunMode",        "u4",    20),
        Field("tdi",                  "u4",    24),
        Field("payloadSize",          "u4",    28),
        Field("badAsicMask",          "u4",    32),
        Field("asicMask",             "u4",    36),
        Field("roiMask",              "u4",    40),
        Field("quad",                 CSPAD2X2_CONFIG_V1_QUAD_REG,  44),
    ),
    size=71996,
    derived=(
        Derived("numAsicsRead", "u4", constant(4)),
        Derived("numAsicsStored", "u4", _asics_stored),
    ),
)
CSPAD2X2_CONFIG_V2_QUAD_REG = Record(
    "CsPad2x2.ConfigV2QuadReg",
    (
        *CSPAD2X2_CONFIG_V1_QUAD_REG.before("ro"),
        Field("biasTuning",       "u4",    84),
        Field("pdpmndnmBalance",  "u4",    88),
        Field("ro",               CSPAD2X2_READ_ONLY_CFG,  92),
        Field("dp",               CSPAD2X2_DIGITAL_POTS_CFG, 100),
        Field("gm",               CSPAD2X2_GAIN_MAP_CFG, 180),
    ),
    size=71960,
)
CSPAD2X2_CONFIG_V2 = Record(
    "CsPad2x2.ConfigV2",
    (
        *CSPAD2X2_CONFIG_V1.before("tdi"),
        Field("runTriggerDelay",  "u4",    24),
        Field("tdi",              "u4",    28),
        Field("payloadSize",      "u4",    32),
        Field("badAsicMask",      "u4",    36),
        Field("asicMask",         "u4",    40),
        Field("roiMask",          "u4",    44),
        Field("quad",             CSPAD2X2_CONFIG_V2_QUAD_REG,  48),
    ),
    size=72008,
    derived=CSPAD2X2_CONFIG_V1.derived,
)

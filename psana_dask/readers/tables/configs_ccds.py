"""Cameras with cooled sensors (Princeton, Andor, Fli, Pimax, Pixis, pnCCD, FCCD): configuration."""

from __future__ import annotations

from typing import Any

from psana_dask.readers.records import Array, Derived, Field, Hidden, Record
from psana_dask.readers.tables import choices as named
from psana_dask.readers.tables.common import binned_x, binned_y, constant, pixels_x_times_y


def _frame_size_8(r: Any) -> Any:
    return 8 + (r.num_pixels * 2)


def _frame_size_12(r: Any) -> Any:
    return 12 + (r.num_pixels * 2)


def _frame_size_andor3d(r: Any) -> Any:
    return (8 + (r.num_sensors * 4)) + (r.num_pixels * 2)


def _num_pixels(r: Any) -> Any:
    return (r.num_pixels_x * r.num_pixels_y) * r.num_sensors


PRINCETON_CONFIG_V1 = Record(
    "Princeton.ConfigV1",
    (
        Field("width",              "u4",     0),
        Field("height",             "u4",     4),
        Field("orgX",               "u4",     8),
        Field("orgY",               "u4",    12),
        Field("binX",               "u4",    16),
        Field("binY",               "u4",    20),
        Field("exposureTime",       "f4",    24, unit="s"),
        Field("coolingTemp",        "f4",    28, unit="degC"),
        Field("readoutSpeedIndex",  "u4",    32),
        Field("readoutEventCode",   "u2",    36),
        Field("delayMode",          "u2",    38),
    ),
    size=40,
    derived=(
        Derived("frameSize", "u4", _frame_size_8),
        Derived("numPixelsX", "u4", binned_x),
        Derived("numPixelsY", "u4", binned_y),
        Derived("numPixels", "u4", pixels_x_times_y),
    ),
)
PRINCETON_CONFIG_V2 = Record(
    "Princeton.ConfigV2",
    (
        *PRINCETON_CONFIG_V1.before("readoutSpeedIndex"),
        Field("gainIndex",          "u2",    32),
        Field("readoutSpeedIndex",  "u2",    34),
        Field("readoutEventCode",   "u2",    36),
        Field("delayMode",          "u2",    38),
    ),
    size=40,
    derived=PRINCETON_CONFIG_V1.derived,
)
PRINCETON_CONFIG_V3 = Record(
    "Princeton.ConfigV3",
    (
        *PRINCETON_CONFIG_V1.before("readoutSpeedIndex"),
        Field("gainIndex",          "u1",    32),
        Field("readoutSpeedIndex",  "u1",    33),
        Field("exposureEventCode",  "u2",    34),
        Field("numDelayShots",      "u4",    36),
    ),
    size=40,
    derived=PRINCETON_CONFIG_V1.derived,
)
PRINCETON_CONFIG_V4 = Record(
    "Princeton.ConfigV4",
    (
        *PRINCETON_CONFIG_V1.before("exposureTime"),
        Field("maskedHeight",       "u4",    24),
        Field("kineticHeight",      "u4",    28),
        Field("vsSpeed",            "f4",    32),
        Field("exposureTime",       "f4",    36, unit="s"),
        Field("coolingTemp",        "f4",    40, unit="degC"),
        Field("gainIndex",          "u1",    44),
        Field("readoutSpeedIndex",  "u1",    45),
        Field("exposureEventCode",  "u2",    46),
        Field("numDelayShots",      "u4",    48),
    ),
    size=52,
    derived=PRINCETON_CONFIG_V1.derived,
)
PRINCETON_CONFIG_V5 = Record(
    "Princeton.ConfigV5",
    (
        *PRINCETON_CONFIG_V2.before("readoutEventCode"),
        Field("maskedHeight",        "u4",    36),
        Field("kineticHeight",       "u4",    40),
        Field("vsSpeed",             "f4",    44),
        Field("infoReportInterval",  "i2",    48),
        Field("exposureEventCode",   "u2",    50),
        Field("numDelayShots",       "u4",    52),
    ),
    size=56,
    derived=(
        Derived("frameSize", "u4", _frame_size_12),
        Derived("numPixelsX", "u4", binned_x),
        Derived("numPixelsY", "u4", binned_y),
        Derived("numPixels", "u4", pixels_x_times_y),
    ),
)
PIMAX_CONFIG_V1 = Record(
    "Pimax.ConfigV1",
    (
        Field("width",                "u4",     0),
        Field("height",               "u4",     4),
        Field("orgX",                 "u4",     8),
        Field("orgY",                 "u4",    12),
        Field("binX",                 "u4",    16),
        Field("binY",                 "u4",    20),
        Field("exposureTime",         "f4",    24, unit="s"),
        Field("coolingTemp",          "f4",    28, unit="degC"),
        Field("readoutSpeed",         "f4",    32),
        Field("gainIndex",            "u2",    36),
        Field("intensifierGain",      "u2",    38),
        Field("gateDelay",            "f8",    40),
        Field("gateWidth",            "f8",    48),
        Field("maskedHeight",         "u4",    56),
        Field("kineticHeight",        "u4",    60),
        Field("vsSpeed",              "f4",    64),
        Field("infoReportInterval",   "i2",    68),
        Field("exposureEventCode",    "u2",    70),
        Field("numIntegrationShots",  "u4",    72),
    ),
    size=76,
    derived=PRINCETON_CONFIG_V5.derived,
)
PIXIS_CONFIG_V1 = Record(
    "Pixis.ConfigV1",
    (
        Field("width",                  "u4",     0),
        Field("height",                 "u4",     4),
        Field("orgX",                   "u4",     8),
        Field("orgY",                   "u4",    12),
        Field("binX",                   "u4",    16),
        Field("binY",                   "u4",    20),
        Field("exposureTime",           "f4",    24, unit="s"),
        Field("coolingTemp",            "f4",    28, unit="degC"),
        Field("readoutSpeed",           "f4",    32),
        Field("gainMode",               "u2",    36, choices=named.PIXIS_GAIN_MODE),
        Field("adcMode",                "u2",    38, choices=named.PIXIS_ADC_MODE),
        Field("triggerMode",            "u2",    40, choices=named.PIXIS_TRIGGER_MODE),
        Hidden("_pad0",                 "u2",    42),
        Field("activeWidth",            "u4",    44),
        Field("activeHeight",           "u4",    48),
        Field("activeTopMargin",        "u4",    52),
        Field("activeBottomMargin",     "u4",    56),
        Field("activeLeftMargin",       "u4",    60),
        Field("activeRightMargin",      "u4",    64),
        Field("cleanCycleCount",        "u4",    68),
        Field("cleanCycleHeight",       "u4",    72),
        Field("cleanFinalHeight",       "u4",    76),
        Field("cleanFinalHeightCount",  "u4",    80),
        Field("maskedHeight",           "u4",    84),
        Field("kineticHeight",          "u4",    88),
        Field("vsSpeed",                "f4",    92),
        Field("infoReportInterval",     "i2",    96),
        Field("exposureEventCode",      "u2",    98),
        Field("numIntegrationShots",    "u4",   100),
    ),
    size=104,
    derived=PRINCETON_CONFIG_V5.derived,
)
ANDOR_CONFIG_V1 = Record(
    "Andor.ConfigV1",
    (
        Field("width",              "u4",     0),
        Field("height",             "u4",     4),
        Field("orgX",               "u4",     8),
        Field("orgY",               "u4",    12),
        Field("binX",               "u4",    16),
        Field("binY",               "u4",    20),
        Field("exposureTime",       "f4",    24, unit="s"),
        Field("coolingTemp",        "f4",    28, unit="degC"),
        Field("fanMode",            "u1",    32, choices=named.FAN_MODE),
        Field("baselineClamp",      "u1",    33),
        Field("highCapacity",       "u1",    34),
        Field("gainIndex",          "u1",    35),
        Field("readoutSpeedIndex",  "u2",    36),
        Field("exposureEventCode",  "u2",    38),
        Field("numDelayShots",      "u4",    40),
    ),
    size=44,
    derived=PRINCETON_CONFIG_V5.derived,
)
ANDOR_CONFIG_V2 = Record(
    "Andor.ConfigV2",
    (
        *ANDOR_CONFIG_V1.before("fanMode"),
        Field("fanMode",            "u2",    32, choices=named.FAN_MODE),
        Field("cropMode",           "u2",    34, choices=named.ANDOR_CROP_MODE),
        Field("baselineClamp",      "u1",    36),
        Field("highCapacity",       "u1",    37),
        Field("gainIndex",          "u1",    38),
        Hidden("_pad1",             "u1",    39),
        Field("readoutSpeedIndex",  "u2",    40),
        Field("exposureEventCode",  "u2",    42),
        Field("numDelayShots",      "u4",    44),
    ),
    size=48,
    derived=PRINCETON_CONFIG_V5.derived,
)
ANDOR3D_CONFIG_V1 = Record(
    "Andor3d.ConfigV1",
    (
        Field("width",               "u4",     0),
        Field("height",              "u4",     4),
        Field("numSensors",          "u4",     8),
        Field("orgX",                "u4",    12),
        Field("orgY",                "u4",    16),
        Field("binX",                "u4",    20),
        Field("binY",                "u4",    24),
        Field("exposureTime",        "f4",    28, unit="s"),
        Field("coolingTemp",         "f4",    32, unit="degC"),
        Field("fanMode",             "u1",    36, choices=named.FAN_MODE),
        Field("baselineClamp",       "u1",    37),
        Field("highCapacity",        "u1",    38),
        Field("gainIndex",           "u1",    39),
        Field("readoutSpeedIndex",   "u2",    40),
        Field("exposureEventCode",   "u2",    42),
        Field("exposureStartDelay",  "u4",    44),
        Field("numDelayShots",       "u4",    48),
    ),
    size=52,
    derived=(
        Derived("frameSize", "u4", _frame_size_andor3d),
        Derived("numPixelsX", "u4", binned_x),
        Derived("numPixelsY", "u4", binned_y),
        Derived("numPixelsPerSensor", "u4", pixels_x_times_y),
        Derived("numPixels", "u4", _num_pixels),
    ),
)
FLI_CONFIG_V1 = Record(
    "Fli.ConfigV1",
    (
        Field("width",              "u4",     0),
        Field("height",             "u4",     4),
        Field("orgX",               "u4",     8),
        Field("orgY",               "u4",    12),
        Field("binX",               "u4",    16),
        Field("binY",               "u4",    20),
        Field("exposureTime",       "f4",    24, unit="s"),
        Field("coolingTemp",        "f4",    28, unit="degC"),
        Field("gainIndex",          "u1",    32),
        Field("readoutSpeedIndex",  "u1",    33),
        Field("exposureEventCode",  "u2",    34),
        Field("numDelayShots",      "u4",    36),
    ),
    size=40,
    derived=PRINCETON_CONFIG_V5.derived,
)
PNCCD_CONFIG_V1 = Record(
    "PNCCD.ConfigV1",
    (
        Field("numLinks",            "u4",     0),
        Field("payloadSizePerLink",  "u4",     4),
    ),
    size=8,
)
PNCCD_CONFIG_V2 = Record(
    "PNCCD.ConfigV2",
    (
        Field("numLinks",              "u4",     0),
        Field("payloadSizePerLink",    "u4",     4),
        Field("numChannels",           "u4",     8),
        Field("numRows",               "u4",    12),
        Field("numSubmoduleChannels",  "u4",    16),
        Field("numSubmoduleRows",      "u4",    20),
        Field("numSubmodules",         "u4",    24),
        Field("camexMagic",            "u4",    28),
        Array("info",                  "char",  32, (256,)),
        Array("timingFName",           "char", 288, (256,)),
    ),
    size=544,
)
FCCD_CONFIG_V1 = Record(
    "FCCD.FccdConfigV1",
    (
        Field("outputMode",  "u2",     0),
    ),
    size=2,
    derived=(
        Derived("width", "u4", constant(576)),
        Derived("height", "u4", constant(500)),
        Derived("trimmedWidth", "u4", constant(480)),
        Derived("trimmedHeight", "u4", constant(480)),
    ),
)
FCCD_CONFIG_V2 = Record(
    "FCCD.FccdConfigV2",
    (
        Field("outputMode",    "u2",     0),
        Field("ccdEnable",     "u1",     2),
        Field("focusMode",     "u1",     3),
        Field("exposureTime",  "u4",     4),
        Array("dacVoltages",   "f4",     8, (17,)),
        Array("waveforms",     "u2",    76, (15,)),
    ),
    size=108,
    derived=(
        Derived("width", "u4", constant(1152)),
        Derived("height", "u4", constant(500)),
        Derived("trimmedWidth", "u4", constant(480)),
        Derived("trimmedHeight", "u4", constant(480)),
    ),
)

"""Jungfrau, Uxi, Archon and streak cameras: configuration."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import numpy as np

from psana_dask.readers.records import Array, Derived, Field, Hidden, Method, Record
from psana_dask.readers.tables import choices as named


def _frame_size(r: Any) -> Any:
    return r.num_pixels * 2


def _num_pixels(r: Any) -> Any:
    return (r.number_of_modules * r.number_of_rows_per_module) * r.number_of_columns_per_module


def _num_pixels_per_frame(r: Any) -> Any:
    return r.width * r.height


def _num_pixels_of_frames(r: Any) -> Any:
    return (r.width * r.height) * r.number_of_frames


def _frame_bytes(r: Any) -> Any:
    return r.num_pixels * r.number_of_bytes_per_pixel


def _num_pixels_x(r: Any) -> Any:
    return r.pixels * r.sensor_taps


def _num_pixels_y(r: Any) -> Any:
    return r.lines


def _archon_pixels(r: Any) -> Any:
    return r.num_pixels_x * r.num_pixels_y


def _pot_is_read_only(r: Any, pot: int) -> int:
    return int(pot < 13 and bool(r.read_only_pots >> pot & 1))


def _pot_is_tuned(r: Any, pot: int) -> int:
    return int(pot < 13 and bool(r.read_only_pots >> (pot + 13) & 1))


def timing_length(r: Any) -> int:
    """Return how many columns of the timing sequence the timing mode uses."""
    return {0: 3, 1: 40, 2: 7}.get(r.timing_mode, 0)


def timing_column(r: Any, column: int) -> Any:
    """Return one column of the basic timing for both sides; zeros in the other modes."""
    values = r.timing_sequence[:, column].copy()
    return values if r.timing_mode == 0 else np.zeros_like(values)


def _time_on(r: Any) -> Any:
    return timing_column(r, 0)


def _time_off(r: Any) -> Any:
    return timing_column(r, 1)


def _delay(r: Any) -> Any:
    return timing_column(r, 2)


def _side_timing(r: Any, side: int) -> Any:
    return r.timing_sequence[side, : timing_length(r)]


def timing_array(r: Any) -> Any:
    """Return the columns in use for both sides; (0, 0) in an unknown timing mode, as psana does."""
    length = timing_length(r)
    return r.timing_sequence[:, :length] if length else np.empty((0, 0), "<u4")


def streak_scale(r: Any) -> float:
    """Return the unit of the time calibration in seconds."""
    return {0: 1e-9, 1: 1e-6, 2: 1e-3}.get(r.calib_scale, 1.0)


def streak_times(r: Any) -> Any:
    """Return the time of each column: increments c0 + c1 n + c2 n^2 summed up from 0."""
    return _summed_times(r, 1.0)


def streak_times_in_seconds(r: Any) -> Any:
    """Return the time of each column in seconds."""
    return _summed_times(r, streak_scale(r))


def _summed_times(r: Any, scale: float) -> Any:
    c0, c1, c2 = (float(c) for c in r.calib)
    steps = [(c0 + c1 * n + c2 * n * n) * scale for n in range(1, 1344)]
    return np.array([0.0, *accumulate(steps)])


JUNGFRAU_MODULE_CONFIG_V1 = Record(
    "Jungfrau.ModuleConfigV1",
    (
        Field("serialNumber",     "u8",     0),
        Field("moduleVersion",    "u8",     8),
        Field("firmwareVersion",  "u8",    16),
    ),
    size=24,
)
JUNGFRAU_CONFIG_V1 = Record(
    "Jungfrau.ConfigV1",
    (
        Field("numberOfModules",           "u4",     0),
        Field("numberOfRowsPerModule",     "u4",     4),
        Field("numberOfColumnsPerModule",  "u4",     8),
        Field("biasVoltage",               "u4",    12, unit="V"),
        Field("gainMode",                  "u2",    16, choices=named.JUNGFRAU_GAIN_MODE),
        Field("speedMode",                 "u2",    18, choices=named.JUNGFRAU_SPEED_MODE),
        Field("triggerDelay",              "f8",    20, unit="s"),
        Field("exposureTime",              "f8",    28, unit="s"),
    ),
    size=36,
    derived=(
        Derived("frameSize", "u4", _frame_size),
        Derived("numPixels", "u4", _num_pixels),
    ),
)
JUNGFRAU_CONFIG_V2 = Record(
    "Jungfrau.ConfigV2",
    (
        *JUNGFRAU_CONFIG_V1.before("gainMode"),
        Field("gainMode",        "u2",    16, choices=named.JUNGFRAU_GAIN_MODE),
        Field("speedMode",       "u2",    18, choices=named.JUNGFRAU_SPEED_MODE),
        Field("triggerDelay",    "f8",    20, unit="s"),
        Field("exposureTime",    "f8",    28, unit="s"),
        Field("exposurePeriod",  "f8",    36, unit="s"),
        Field("vb_ds",           "u2",    44),
        Field("vb_comp",         "u2",    46),
        Field("vb_pixbuf",       "u2",    48),
        Field("vref_ds",         "u2",    50),
        Field("vref_comp",       "u2",    52),
        Field("vref_prech",      "u2",    54),
        Field("vin_com",         "u2",    56),
        Field("vdd_prot",        "u2",    58),
    ),
    size=60,
    derived=JUNGFRAU_CONFIG_V1.derived,
)
JUNGFRAU_CONFIG_V3 = Record(
    "Jungfrau.ConfigV3",
    (
        *JUNGFRAU_CONFIG_V1.before("gainMode"),
        Field("gainMode",        "u2",    16, choices=named.JUNGFRAU_GAIN_MODE),
        Field("speedMode",       "u2",    18, choices=named.JUNGFRAU_SPEED_MODE),
        Field("triggerDelay",    "f8",    20, unit="s"),
        Field("exposureTime",    "f8",    28, unit="s"),
        Field("exposurePeriod",  "f8",    36, unit="s"),
        Field("vb_ds",           "u2",    44),
        Field("vb_comp",         "u2",    46),
        Field("vb_pixbuf",       "u2",    48),
        Field("vref_ds",         "u2",    50),
        Field("vref_comp",       "u2",    52),
        Field("vref_prech",      "u2",    54),
        Field("vin_com",         "u2",    56),
        Field("vdd_prot",        "u2",    58),
        Array("moduleConfig",    JUNGFRAU_MODULE_CONFIG_V1,  60, (8,)),
    ),
    size=252,
    derived=JUNGFRAU_CONFIG_V1.derived,
)
JUNGFRAU_CONFIG_V4 = Record(
    "Jungfrau.ConfigV4",
    (
        *JUNGFRAU_CONFIG_V1.before("gainMode"),
        Field("gainMode",        "u2",    16, choices=named.JUNGFRAU_GAIN_MODE),
        Field("speedMode",       "u2",    18, choices=named.JUNGFRAU_SPEED_MODE),
        Field("triggerDelay",    "f8",    20, unit="s"),
        Field("exposureTime",    "f8",    28, unit="s"),
        Field("exposurePeriod",  "f8",    36, unit="s"),
        Field("vb_ds",           "u2",    44),
        Field("vb_comp",         "u2",    46),
        Field("vb_pixbuf",       "u2",    48),
        Field("vref_ds",         "u2",    50),
        Field("vref_comp",       "u2",    52),
        Field("vref_prech",      "u2",    54),
        Field("vin_com",         "u2",    56),
        Field("vdd_prot",        "u2",    58),
        Array("moduleConfig",    JUNGFRAU_MODULE_CONFIG_V1,  60, (32,)),
    ),
    size=828,
    derived=JUNGFRAU_CONFIG_V1.derived,
)
UXI_CONFIG_V1 = Record(
    "Uxi.ConfigV1",
    (
        Field("width",                  "u4",     0),
        Field("height",                 "u4",     4),
        Field("numberOfFrames",         "u4",     8),
        Field("numberOFBytesPerPixel",  "u4",    12),
        Field("sensorType",             "u4",    16),
        Array("timeOn",                 "u4",    20, (2,)),
        Array("timeOff",                "u4",    28, (2,)),
        Array("delay",                  "u4",    36, (2,)),
        Field("readOnlyPots",           "u4",    44),
        Array("pots",                   "f8",    48, (13,)),
    ),
    size=152,
    derived=(
        Method("potIsReadOnly", _pot_is_read_only),
        Method("potIsTuned", _pot_is_tuned),
        Derived("numPixelsPerFrame", "u4", _num_pixels_per_frame),
        Derived("numPixels", "u4", _num_pixels_of_frames),
        Derived("frameSize", "u4", _frame_bytes),
    ),
)
UXI_ROI_COORD = Record(
    "Uxi.RoiCoord",
    (
        Field("first",  "u2",     0),
        Field("last",   "u2",     2),
    ),
    size=4,
)
UXI_CONFIG_V2 = Record(
    "Uxi.ConfigV2",
    (
        Field("roiEnable",              "u4",     0, choices=named.SWITCH),
        Field("roiRows",                UXI_ROI_COORD,   4),
        Field("roiFrames",              UXI_ROI_COORD,   8),
        Field("width",                  "u4",    12),
        Field("height",                 "u4",    16),
        Field("numberOfFrames",         "u4",    20),
        Field("numberOFBytesPerPixel",  "u4",    24),
        Field("sensorType",             "u4",    28),
        Array("timeOn",                 "u4",    32, (2,)),
        Array("timeOff",                "u4",    40, (2,)),
        Array("delay",                  "u4",    48, (2,)),
        Field("readOnlyPots",           "u4",    56),
        Array("pots",                   "f8",    60, (13,)),
    ),
    size=164,
    derived=UXI_CONFIG_V1.derived,
)
UXI_CONFIG_V3 = Record(
    "Uxi.ConfigV3",
    (
        Field("roiEnable",              "u4",     0, choices=named.SWITCH),
        Field("roiRows",                UXI_ROI_COORD,   4),
        Field("roiFrames",              UXI_ROI_COORD,   8),
        Field("oscillator",             "u4",    12, choices=named.UXI_OSC_MODE),
        Field("width",                  "u4",    16),
        Field("height",                 "u4",    20),
        Field("numberOfFrames",         "u4",    24),
        Field("numberOFBytesPerPixel",  "u4",    28),
        Field("sensorType",             "u4",    32),
        Array("timeOn",                 "u4",    36, (2,)),
        Array("timeOff",                "u4",    44, (2,)),
        Array("delay",                  "u4",    52, (2,)),
        Field("readOnlyPots",           "u4",    60),
        Array("pots",                   "f8",    64, (13,)),
    ),
    size=168,
    derived=UXI_CONFIG_V1.derived,
)
UXI_REGISTER = Record(
    "Uxi.Register",
    (
        Array("name",   "char",   0, (128,)),
        Field("value",  "u4",   128),
    ),
    size=132,
)
UXI_CONFIG_V4 = Record(
    "Uxi.ConfigV4",
    (
        Field("roiEnable",              "u4",     0, choices=named.SWITCH),
        Field("roiRows",                UXI_ROI_COORD,   4),
        Field("roiFrames",              UXI_ROI_COORD,   8),
        Field("oscillator",             "u4",    12, choices=named.UXI_OSC_MODE),
        Field("width",                  "u4",    16),
        Field("height",                 "u4",    20),
        Field("numberOfFrames",         "u4",    24),
        Field("numberOFBytesPerPixel",  "u4",    28),
        Field("sensorType",             "u4",    32),
        Field("timingMode",             "u4",    36, choices=named.UXI_TIMING_MODE),
        Array("timingSequence",         "u4",    40, (2, 40)),
        Field("readOnlyPots",           "u4",   360),
        Array("pots",                   "f8",   364, (13,)),
        Field("numberOfRegisters",      "u4",   468),
        Array("registers",              UXI_REGISTER, 472, ("number_of_registers",)),
    ),
    derived=(
        Method("potIsReadOnly", _pot_is_read_only),
        Method("potIsTuned", _pot_is_tuned),
        Derived("numPixelsPerFrame", "u4", _num_pixels_per_frame),
        Derived("numPixels", "u4", _num_pixels_of_frames),
        Derived("frameSize", "u4", _frame_bytes),
        Method("timeArray", timing_column),
        Derived("timeOn", "u4", _time_on),
        Derived("timeOff", "u4", _time_off),
        Derived("delay", "u4", _delay),
        Derived("timingLength", "u4", timing_length),
        Method("timing", _side_timing),
        Derived("timingArray", "u4", timing_array),
    ),
)
ARCHON_CONFIG_V1 = Record(
    "Archon.ConfigV1",
    (
        Field("readoutMode",         "u2",     0, choices=named.ARCHON_READOUT_MODE),
        Field("sweepCount",          "u2",     2),
        Field("integrationTime",     "u4",     4),
        Field("nonIntegrationTime",  "u4",     8),
        Field("preSkipPixels",       "u4",    12),
        Field("pixels",              "u4",    16),
        Field("postSkipPixels",      "u4",    20),
        Field("overscanPixels",      "u4",    24),
        Field("preSkipLines",        "u2",    28),
        Field("lines",               "u2",    30),
        Field("postSkipLines",       "u2",    32),
        Field("overScanLines",       "u2",    34),
        Field("horizontalBinning",   "u2",    36),
        Field("verticalBinning",     "u2",    38),
        Field("rgh",                 "u2",    40),
        Field("rgl",                 "u2",    42),
        Field("shp",                 "u2",    44),
        Field("shd",                 "u2",    46),
        Field("st",                  "u2",    48),
        Field("stm1",                "u2",    50),
        Field("at",                  "u2",    52),
        Field("dwell1",              "u2",    54),
        Field("dwell2",              "u2",    56),
        Field("rgHigh",              "i2",    58),
        Field("rgLow",               "i2",    60),
        Field("sHigh",               "i2",    62),
        Field("sLow",                "i2",    64),
        Field("aHigh",               "i2",    66),
        Field("aLow",                "i2",    68),
        Field("rgSlew",              "i2",    70),
        Field("sSlew",               "i2",    72),
        Field("aSlew",               "i2",    74),
        Array("config",              "char",  76, (256,)),
    ),
    size=332,
)
ARCHON_CONFIG_V2 = Record(
    "Archon.ConfigV2",
    (
        Field("readoutMode",         "u2",     0, choices=named.ARCHON_READOUT_MODE),
        Field("exposureEventCode",   "u2",     2),
        Field("configSize",          "u4",     4),
        Field("preFrameSweepCount",  "u4",     8),
        Field("idleSweepCount",      "u4",    12),
        Field("integrationTime",     "u4",    16),
        Field("nonIntegrationTime",  "u4",    20),
        Field("batches",             "u4",    24),
        Field("pixels",              "u4",    28),
        Field("lines",               "u4",    32),
        Field("horizontalBinning",   "u4",    36),
        Field("verticalBinning",     "u4",    40),
        Field("sensorPixels",        "u4",    44),
        Field("sensorLines",         "u4",    48),
        Field("sensorTaps",          "u4",    52),
        Field("st",                  "u4",    56),
        Field("stm1",                "u4",    60),
        Field("at",                  "u4",    64),
        Array("config",              "char",  68, ("config_size",)),
    ),
)
ARCHON_CONFIG_V3 = Record(
    "Archon.ConfigV3",
    (
        Field("readoutMode",         "u2",     0, choices=named.ARCHON_READOUT_MODE_2),
        Field("power",               "u2",     2, choices=named.SWITCH),
        Field("exposureEventCode",   "u2",     4),
        Hidden("_pad0",              "u2",     6),
        Field("configSize",          "u4",     8),
        Field("preFrameSweepCount",  "u4",    12),
        Field("idleSweepCount",      "u4",    16),
        Field("integrationTime",     "u4",    20),
        Field("nonIntegrationTime",  "u4",    24),
        Field("batches",             "u4",    28),
        Field("pixels",              "u4",    32),
        Field("lines",               "u4",    36),
        Field("horizontalBinning",   "u4",    40),
        Field("verticalBinning",     "u4",    44),
        Field("sensorPixels",        "u4",    48),
        Field("sensorLines",         "u4",    52),
        Field("sensorTaps",          "u4",    56),
        Field("st",                  "u4",    60),
        Field("stm1",                "u4",    64),
        Field("at",                  "u4",    68),
        Field("bias",                "u2",    72, choices=named.SWITCH),
        Field("biasChan",            "i2",    74, choices=named.ARCHON_BIAS_CHANNEL_ID),
        Field("biasVoltage",         "f4",    76),
        Field("configVersion",       "u4",    80),
        Array("config",              "char",  84, ("config_size",)),
    ),
    derived=(
        Derived("numPixelsX", "u4", _num_pixels_x),
        Derived("numPixelsY", "u4", _num_pixels_y),
        Derived("numPixels", "u4", _archon_pixels),
    ),
)
ARCHON_CONFIG_V4 = Record(
    "Archon.ConfigV4",
    (
        Field("readoutMode",         "u2",     0, choices=named.ARCHON_READOUT_MODE_2),
        Field("power",               "u2",     2, choices=named.SWITCH),
        Field("exposureEventCode",   "u2",     4),
        Hidden("_pad0",              "u2",     6),
        Field("configSize",          "u4",     8),
        Field("preFrameSweepCount",  "u4",    12),
        Field("idleSweepCount",      "u4",    16),
        Field("preSkipLines",        "u4",    20),
        Field("integrationTime",     "u4",    24),
        Field("nonIntegrationTime",  "u4",    28),
        Field("batches",             "u4",    32),
        Field("pixels",              "u4",    36),
        Field("lines",               "u4",    40),
        Field("horizontalBinning",   "u4",    44),
        Field("verticalBinning",     "u4",    48),
        Field("sensorPixels",        "u4",    52),
        Field("sensorLines",         "u4",    56),
        Field("sensorTaps",          "u4",    60),
        Field("st",                  "u4",    64),
        Field("stm1",                "u4",    68),
        Field("at",                  "u4",    72),
        Field("bias",                "u2",    76, choices=named.SWITCH),
        Field("biasChan",            "i2",    78, choices=named.ARCHON_BIAS_CHANNEL_ID),
        Field("biasVoltage",         "f4",    80),
        Field("configVersion",       "u4",    84),
        Array("config",              "char",  88, ("config_size",)),
    ),
    derived=ARCHON_CONFIG_V3.derived,
)
STREAK_CONFIG_V1 = Record(
    "Streak.ConfigV1",
    (
        Field("timeRange",      "u8",     0),
        Field("mode",           "u4",     8, choices=named.STREAK_DEVICE_MODE),
        Field("gate",           "u4",    12, choices=named.STREAK_GATE_MODE),
        Field("gain",           "u4",    16),
        Field("shutter",        "u4",    20, choices=named.STREAK_SHUTTER_MODE),
        Field("triggerMode",    "u4",    24, choices=named.STREAK_TRIGGER_MODE),
        Field("focusTimeOver",  "u4",    28),
        Field("exposureTime",   "f8",    32),
        Field("calibScale",     "u4",    40, choices=named.STREAK_CALIB_SCALE),
        Array("calib",          "f8",    44, (3,)),
    ),
    size=68,
    derived=(
        Derived("calibScaleFactor", "f8", streak_scale),
        Derived("calibTimes", "f8", streak_times),
        Derived("calibTimesInSeconds", "f8", streak_times_in_seconds, unit="s"),
    ),
)

"""Video cameras (Opal, Quartz, Pulnix, Orca, Rayonix, Zyla, iStar, Alvium): configuration."""

from __future__ import annotations

from typing import Any

from psana_dask.readers.records import Array, Bits, Derived, Field, Hidden, Record, divide
from psana_dask.readers.tables import choices as named
from psana_dask.readers.tables.common import binned_x, binned_y, constant, pixels_x_times_y
from psana_dask.readers.tables.imagers import CAMERA_FRAME_COORD


def _lookup_entries(r: Any) -> Any:
    return 4096 * r.output_lookup_table_enabled


def _output_offset(r: Any) -> Any:
    return (r.black_level * r.gain_percent) // 100


def _output_resolution_bits(r: Any) -> Any:
    return (r.output_resolution * 2) + 8


def _pulnix_resolution_bits(r: Any) -> Any:
    return 8 + 2 * (r.output_resolution != 0)


def _pixel_width(r: Any) -> Any:
    return 44 * r.binning_f


def _pixel_height(r: Any) -> Any:
    return 44 * r.binning_s


def _width(r: Any) -> Any:
    return divide(r.max_width, r.binning_f)


def _height(r: Any) -> Any:
    return divide(r.max_height, r.binning_s)


def _num_pixels(r: Any) -> Any:
    return r.width * r.height


def _frame_size(r: Any) -> Any:
    return 12 + (r.num_pixels * 2)


def _pixel_bytes(r: Any) -> Any:
    return r.num_pixels * 2


def _num_pixels_x(r: Any) -> Any:
    return r.width


def _num_pixels_y(r: Any) -> Any:
    return r.height


def alvium_depth(r: Any) -> int:
    """Return the bits of a pixel in the camera's pixel mode."""
    return {0: 8, 1: 10, 2: 10, 3: 12, 4: 12}.get(r.pixel_mode, 0)


def rayonix_side(r: Any) -> int:
    """Return the pixels along one side: the MX340 has four times the sensors of the MX170."""
    return 7680 if r.device_id.startswith("MX340-HS") else 3840


CAMERA_FRAME_FCCD_CONFIG_V1 = Record(
    "Camera.FrameFccdConfigV1",
    (),
    size=0,
)
CAMERA_FRAME_FEX_CONFIG_V1 = Record(
    "Camera.FrameFexConfigV1",
    (
        Field("forwarding",                "u4",     0, choices=named.CAMERA_FRAME_FEX_FORWARDING),
        Field("forward_prescale",          "u4",     4),
        Field("processing",                "u4",     8, choices=named.CAMERA_FRAME_FEX_PROCESSING),
        Field("roiBegin",                  CAMERA_FRAME_COORD,  12),
        Field("roiEnd",                    CAMERA_FRAME_COORD,  16),
        Field("threshold",                 "u4",    20),
        Field("number_of_masked_pixels",   "u4",    24),
        Array("masked_pixel_coordinates",  CAMERA_FRAME_COORD,  28, ("number_of_masked_pixels",)),
    ),
)
CAMERA_CONTROLS_CAMERA_CONFIG_V1 = Record(
    "Camera.ControlsCameraConfigV1",
    (
        Field("width",          "u4",     0),
        Field("height",         "u4",     4),
        Field("depth",          "u4",     8),
        Field("color_mode",     "u4",    12, choices=named.CAMERA_CONTROLS_CAMERA_COLOR_MODE),
        Field("exposure_time",  "f8",    16, unit="s"),
        Field("gain",           "f8",    24),
        Array("manufacturer",   "char",  32, (48,)),
        Array("model",          "char",  80, (48,)),
    ),
    size=128,
)
OPAL1K_CONFIG_V1 = Record(
    "Opal1k.ConfigV1",
    (
        Hidden("_offsetAndGain",           "u4",     0, bits=(
            Bits("black_level", 0, 16), Bits("gain_percent", 16, 16),
        )),
        Hidden("_outputOptions",           "u4",     4, bits=(
            Bits("output_resolution", 0, 4, choices=named.OPAL1K_DEPTH),
            Bits("vertical_binning", 4, 4, choices=named.OPAL1K_BINNING),
            Bits("output_mirroring", 8, 4, choices=named.MIRRORING), Bits("vertical_remapping", 12, 1),
            Bits("output_lookup_table_enabled", 13, 1), Bits("defect_pixel_correction_enabled", 14, 1),
        )),
        Field("number_of_defect_pixels",   "u4",     8),
        Array("output_lookup_table",       "u2",    12, (_lookup_entries,)),
        Array("defect_pixel_coordinates",  CAMERA_FRAME_COORD, None, ("number_of_defect_pixels",)),
    ),
    derived=(
        Derived("output_offset", "u2", _output_offset),
        Derived("output_resolution_bits", "u4", _output_resolution_bits),
    ),
)
QUARTZ_CONFIG_V1 = Record(
    "Quartz.ConfigV1",
    (
        Hidden("_offsetAndGain",           "u4",     0, bits=(
            Bits("black_level", 0, 16), Bits("gain_percent", 16, 16),
        )),
        Hidden("_outputOptions",           "u4",     4, bits=(
            Bits("output_resolution", 0, 4, choices=named.DEPTH),
            Bits("horizontal_binning", 4, 2, choices=named.BINNING),
            Bits("vertical_binning", 6, 2, choices=named.BINNING),
            Bits("output_mirroring", 8, 4, choices=named.MIRRORING),
            Bits("output_lookup_table_enabled", 12, 1), Bits("defect_pixel_correction_enabled", 13, 1),
        )),
        Field("number_of_defect_pixels",   "u4",     8),
        Array("output_lookup_table",       "u2",    12, (_lookup_entries,)),
        Array("defect_pixel_coordinates",  CAMERA_FRAME_COORD, None, ("number_of_defect_pixels",)),
    ),
    derived=OPAL1K_CONFIG_V1.derived,
)
QUARTZ_CONFIG_V2 = Record(
    "Quartz.ConfigV2",
    (
        Hidden("_offsetAndGain",           "u4",     0, bits=(
            Bits("black_level", 0, 16), Bits("gain_percent", 16, 16),
        )),
        Hidden("_outputOptions",           "u4",     4, bits=(
            Bits("output_resolution", 0, 4, choices=named.DEPTH),
            Bits("horizontal_binning", 4, 2, choices=named.BINNING),
            Bits("vertical_binning", 6, 2, choices=named.BINNING),
            Bits("output_mirroring", 8, 4, choices=named.MIRRORING),
            Bits("output_lookup_table_enabled", 12, 1), Bits("defect_pixel_correction_enabled", 13, 1),
            Bits("use_hardware_roi", 14, 1), Bits("use_test_pattern", 15, 1), Bits("max_taps", 16, 4),
        )),
        Field("roi_lo",                    CAMERA_FRAME_COORD,   8),
        Field("roi_hi",                    CAMERA_FRAME_COORD,  12),
        Field("number_of_defect_pixels",   "u4",    16),
        Array("output_lookup_table",       "u2",    20, (_lookup_entries,)),
        Array("defect_pixel_coordinates",  CAMERA_FRAME_COORD, None, ("number_of_defect_pixels",)),
    ),
    derived=OPAL1K_CONFIG_V1.derived,
)
PULNIX_TM6740_CONFIG_V1 = Record(
    "Pulnix.TM6740ConfigV1",
    (
        Hidden("_gain_a_b",     "u4",     0, bits=(Bits("gain_a", 0, 16), Bits("gain_b", 16, 16))),
        Hidden("_vref_shutter", "u4",     4, bits=(Bits("vref", 0, 16), Bits("shutter_width", 16, 16))),
        Hidden("_control",      "u4",     8, bits=(
            Bits("gain_balance", 0, 1), Bits("output_resolution", 1, 1, choices=named.DEPTH),
            Bits("horizontal_binning", 2, 2, choices=named.BINNING),
            Bits("vertical_binning", 4, 2, choices=named.BINNING),
            Bits("lookuptable_mode", 6, 1, choices=named.PULNIX_TM6740_LOOKUP_TABLE),
        )),
    ),
    size=12,
    derived=(
        Derived("output_resolution_bits", "u1", _pulnix_resolution_bits),
    ),
)
PULNIX_TM6740_CONFIG_V2 = Record(
    "Pulnix.TM6740ConfigV2",
    (
        Hidden("_gain_a_b",     "u4",     0, bits=(Bits("gain_a", 0, 16), Bits("gain_b", 16, 16))),
        Hidden("_vref_shutter", "u4",     4, bits=(Bits("vref_a", 0, 10), Bits("vref_b", 16, 10))),
        Hidden("_control",      "u4",     8, bits=(
            Bits("gain_balance", 0, 1), Bits("output_resolution", 1, 1, choices=named.DEPTH),
            Bits("horizontal_binning", 2, 2, choices=named.BINNING),
            Bits("vertical_binning", 4, 2, choices=named.BINNING),
            Bits("lookuptable_mode", 6, 1, choices=named.PULNIX_TM6740_LOOKUP_TABLE),
        )),
    ),
    size=12,
    derived=PULNIX_TM6740_CONFIG_V1.derived,
)
ORCA_CONFIG_V1 = Record(
    "Orca.ConfigV1",
    (
        Hidden("_options", "u4",     0, bits=(
            Bits("mode", 0, 2, choices=named.ORCA_READOUT_MODE),
            Bits("cooling", 2, 2, choices=named.ORCA_COOLING), Bits("defect_pixel_correction_enabled", 4, 1),
        )),
        Field("rows",      "u4",     4),
    ),
    size=8,
)
RAYONIX_CONFIG_V1 = Record(
    "Rayonix.ConfigV1",
    (
        Field("binning_f",    "u1",     0),
        Field("binning_s",    "u1",     1),
        Hidden("_pad",        "i2",     2),
        Field("exposure",     "u4",     4),
        Field("trigger",      "u4",     8),
        Field("rawMode",      "u2",    12),
        Field("darkFlag",     "u2",    14),
        Field("readoutMode",  "u4",    16, choices=named.RAYONIX_READOUT_MODE),
        Array("deviceID",     "char",  20, (40,)),
    ),
    size=60,
    derived=(
        Derived("pixelWidth", "u4", _pixel_width, unit="um"),
        Derived("pixelHeight", "u4", _pixel_height, unit="um"),
        Derived("maxWidth", "u4", constant(3840)),
        Derived("maxHeight", "u4", constant(3840)),
        Derived("width", "u4", _width),
        Derived("height", "u4", _height),
        Derived("numPixels", "u4", _num_pixels),
    ),
)
RAYONIX_CONFIG_V2 = Record(
    "Rayonix.ConfigV2",
    (
        Field("binning_f",    "u1",     0),
        Field("binning_s",    "u1",     1),
        Field("testPattern",  "i2",     2),
        Field("exposure",     "u4",     4),
        Field("trigger",      "u4",     8),
        Field("rawMode",      "u2",    12),
        Field("darkFlag",     "u2",    14),
        Field("readoutMode",  "u4",    16, choices=named.RAYONIX_READOUT_MODE_2),
        Array("deviceID",     "char",  20, (40,)),
    ),
    size=60,
    derived=(
        Derived("pixelWidth", "u4", _pixel_width, unit="um"),
        Derived("pixelHeight", "u4", _pixel_height, unit="um"),
        Derived("maxWidth", "u4", rayonix_side),
        Derived("maxHeight", "u4", rayonix_side),
        Derived("width", "u4", _width),
        Derived("height", "u4", _height),
        Derived("numPixels", "u4", _num_pixels),
    ),
)
ZYLA_CONFIG_V1 = Record(
    "Zyla.ConfigV1",
    (
        Field("cooling",            "u1",     0, choices=named.BOOL),
        Field("overlap",            "u1",     1, choices=named.BOOL),
        Field("noiseFilter",        "u1",     2, choices=named.BOOL),
        Field("blemishCorrection",  "u1",     3, choices=named.BOOL),
        Field("shutter",            "u1",     4, choices=named.ZYLA_SHUTTERING_MODE),
        Field("fanSpeed",           "u1",     5, choices=named.ZYLA_FAN_SPEED),
        Field("readoutRate",        "u1",     6, choices=named.ZYLA_READOUT_RATE),
        Field("triggerMode",        "u1",     7, choices=named.TRIGGER_MODE),
        Field("gainMode",           "u1",     8, choices=named.GAIN_MODE),
        Field("setpoint",           "u1",     9, choices=named.ZYLA_COOLING_SETPOINT),
        Hidden("_pad0",             "u2",    10),
        Field("width",              "u4",    12),
        Field("height",             "u4",    16),
        Field("orgX",               "u4",    20),
        Field("orgY",               "u4",    24),
        Field("binX",               "u4",    28),
        Field("binY",               "u4",    32),
        Field("exposureTime",       "f8",    36, unit="s"),
        Field("triggerDelay",       "f8",    44),
    ),
    size=52,
    derived=(
        Derived("frameSize", "u4", _frame_size),
        Derived("numPixelsX", "u4", binned_x),
        Derived("numPixelsY", "u4", binned_y),
        Derived("numPixels", "u4", pixels_x_times_y),
    ),
)
ISTAR_CONFIG_V1 = Record(
    "iStar.ConfigV1",
    (
        Field("cooling",            "u1",     0, choices=named.BOOL),
        Field("overlap",            "u1",     1, choices=named.BOOL),
        Field("noiseFilter",        "u1",     2, choices=named.BOOL),
        Field("blemishCorrection",  "u1",     3, choices=named.BOOL),
        Field("mcpIntelligate",     "u1",     4, choices=named.BOOL),
        Field("fanSpeed",           "u1",     5, choices=named.SWITCH),
        Field("readoutRate",        "u1",     6, choices=named.ISTAR_READOUT_RATE),
        Field("triggerMode",        "u1",     7, choices=named.TRIGGER_MODE),
        Field("gainMode",           "u1",     8, choices=named.GAIN_MODE),
        Field("gateMode",           "u1",     9, choices=named.ISTAR_GATE_MODE),
        Field("insertionDelay",     "u1",    10, choices=named.ISTAR_INSERTION_DELAY),
        Hidden("_pad0",             "u1",    11),
        Field("mcpGain",            "u2",    12),
        Hidden("_pad1",             "u2",    14),
        Field("width",              "u4",    16),
        Field("height",             "u4",    20),
        Field("orgX",               "u4",    24),
        Field("orgY",               "u4",    28),
        Field("binX",               "u4",    32),
        Field("binY",               "u4",    36),
        Field("exposureTime",       "f8",    40, unit="s"),
        Field("triggerDelay",       "f8",    48),
    ),
    size=56,
    derived=ZYLA_CONFIG_V1.derived,
)
VIMBA_ALVIUM_CONFIG_V1 = Record(
    "Vimba.AlviumConfigV1",
    (
        Field("reverseX",             "u1",     0, choices=named.BOOL),
        Field("reverseY",             "u1",     1, choices=named.BOOL),
        Field("contrastEnable",       "u1",     2, choices=named.BOOL),
        Field("correctionEnable",     "u1",     3, choices=named.BOOL),
        Field("roiEnable",            "u1",     4, choices=named.VIMBA_ALVIUM_ROI_MODE),
        Hidden("_pad0",               "u1",     5, (3,)),
        Field("correctionType",       "u1",     8, choices=named.VIMBA_ALVIUM_IMG_CORRECTION_TYPE),
        Field("correctionSet",        "u1",     9, choices=named.VIMBA_ALVIUM_IMG_CORRECTION_SET),
        Field("pixelMode",            "u1",    10, choices=named.VIMBA_ALVIUM_PIXEL_MODE),
        Field("triggerMode",          "u1",    11, choices=named.VIMBA_ALVIUM_TRIGGER_MODE),
        Field("width",                "u4",    12),
        Field("height",               "u4",    16),
        Field("offsetX",              "u4",    20),
        Field("offsetY",              "u4",    24),
        Field("sensorWidth",          "u4",    28),
        Field("sensorHeight",         "u4",    32),
        Field("contrastDarkLimit",    "u4",    36),
        Field("contrastBrightLimit",  "u4",    40),
        Field("contrastShape",        "u4",    44),
        Field("exposureTime",         "f8",    48),
        Field("blackLevel",           "f8",    56),
        Field("gain",                 "f8",    64),
        Field("gamma",                "f8",    72),
        Array("manufacturer",         "char",  80, (48,)),
        Array("family",               "char", 128, (48,)),
        Array("model",                "char", 176, (48,)),
        Array("manufacturerId",       "char", 224, (48,)),
        Array("version",              "char", 272, (48,)),
        Array("serialNumber",         "char", 320, (48,)),
        Array("firmwareId",           "char", 368, (48,)),
        Array("firmwareVersion",      "char", 416, (48,)),
    ),
    size=464,
    derived=(
        Derived("depth", "u4", alvium_depth),
        Derived("frameSize", "u4", _pixel_bytes),
        Derived("numPixelsX", "u4", _num_pixels_x),
        Derived("numPixelsY", "u4", _num_pixels_y),
        Derived("numPixels", "u4", pixels_x_times_y),
    ),
)

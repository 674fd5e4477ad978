"""ePix detectors: configuration."""

from __future__ import annotations

from typing import Any

from psana_dask.readers.records import Array, Bits, Derived, Field, Hidden, Record
from psana_dask.readers.tables.common import constant
from psana_dask.readers.tables.configs_epix_registers import (
    EPIX_ASIC10K_CONFIG_V1,
    EPIX_ASIC10KA_CONFIG_V1,
    EPIX_ASIC100A_CONFIG_V1,
    EPIX_ASIC_CONFIG_V1,
    EPIX_ASIC_S_CONFIG_V1,
    EPIX_PGP_EVR_CONFIG,
    EPIX_QUAD10KA_CONFIG_V1,
    EPIX_QUAD10KA_CONFIG_V2,
)


def _number_of_rows(r: Any) -> Any:
    return r.number_of_asics_per_column * r.number_of_rows_per_asic


def _number_of_readable_rows(r: Any) -> Any:
    return r.number_of_asics_per_column * r.number_of_readable_rows_per_asic


def _number_of_columns(r: Any) -> Any:
    return r.number_of_asics_per_row * r.number_of_pixels_per_asic_row


def _number_of_calibration_rows(r: Any) -> Any:
    return r.number_of_asics_per_column * r.calibration_row_count_per_asic


def _number_of_environmental_rows(r: Any) -> Any:
    return r.number_of_asics_per_column * r.environmental_row_count_per_asic


def _number_of_asics(r: Any) -> Any:
    return r.number_of_asics_per_row * r.number_of_asics_per_column


def _mask_words(r: Any) -> Any:
    return (r.number_of_pixels_per_asic_row + 31) // 32


def _rows_kept(r: Any) -> Any:
    return (r.number_of_asics_per_column * r.number_of_rows_per_asic) - r.last_row_exclusions


def _calibration_row_pairs(r: Any) -> Any:
    return r.number_of_calibration_rows // 2


EPIX_ELEM10KA_CONFIG_V1 = Record(
    "Epix.Elem10kaConfigV1",
    (
        Field("carrierId0",             "u4",     0),
        Field("carrierId1",             "u4",     4),
        Field("asicMask",               "u4",     8),
        Array("asics",                  EPIX_ASIC10KA_CONFIG_V1,  12, (4,)),
        Array("asicPixelConfigArray",   "u2",   428, (352, 384)),
        Array("calibPixelConfigArray",  "u1",  270764, (2, 384)),
    ),
    size=271532,
    derived=(
        Derived("numberOfAsicsPerRow", "u4", constant(2)),
        Derived("numberOfAsicsPerColumn", "u4", constant(2)),
        Derived("numberOfRowsPerAsic", "u4", constant(176)),
        Derived("numberOfReadableRowsPerAsic", "u4", constant(176)),
        Derived("numberOfPixelsPerAsicRow", "u4", constant(192)),
        Derived("calibrationRowCountPerASIC", "u4", constant(2)),
        Derived("environmentalRowCountPerASIC", "u4", constant(1)),
        Derived("numberOfRows", "u4", _number_of_rows),
        Derived("numberOfReadableRows", "u4", _number_of_readable_rows),
        Derived("numberOfColumns", "u4", _number_of_columns),
        Derived("numberOfCalibrationRows", "u4", _number_of_calibration_rows),
        Derived("numberOfEnvironmentalRows", "u4", _number_of_environmental_rows),
        Derived("numberOfAsics", "u4", _number_of_asics),
    ),
)
EPIX_CONFIG10KA_QUAD_V1 = Record(
    "Epix.Config10kaQuadV1",
    (
        Field("evr",      EPIX_PGP_EVR_CONFIG,   0),
        Field("quad",     EPIX_QUAD10KA_CONFIG_V1,   8),
        Array("elemCfg",  EPIX_ELEM10KA_CONFIG_V1, 820, (4,)),
    ),
    size=1086948,
    derived=(
        Derived("numberOfElements", "u4", constant(4)),
        Derived("numberOfRows", "u4", constant(352)),
        Derived("numberOfReadableRows", "u4", constant(352)),
        Derived("numberOfColumns", "u4", constant(384)),
        Derived("numberOfCalibrationRows", "u4", constant(4)),
        Derived("numberOfEnvironmentalRows", "u4", constant(2)),
        Derived("numberOfAsics", "u4", constant(16)),
    ),
)
EPIX_CONFIG10KA_QUAD_V2 = Record(
    "Epix.Config10kaQuadV2",
    (
        Field("evr",      EPIX_PGP_EVR_CONFIG,   0),
        Field("quad",     EPIX_QUAD10KA_CONFIG_V2,   8),
        Array("elemCfg",  EPIX_ELEM10KA_CONFIG_V1,1164, (4,)),
    ),
    size=1087292,
    derived=EPIX_CONFIG10KA_QUAD_V1.derived,
)
EPIX_CONFIG10KA2_M_V1 = Record(
    "Epix.Config10ka2MV1",
    (
        Field("evr",      EPIX_PGP_EVR_CONFIG,   0),
        Array("quad",     EPIX_QUAD10KA_CONFIG_V1,   8, (4,)),
        Array("elemCfg",  EPIX_ELEM10KA_CONFIG_V1,3256, (16,)),
    ),
    size=4347768,
    derived=(
        Derived("numberOfElements", "u4", constant(16)),
        Derived("numberOfRows", "u4", constant(352)),
        Derived("numberOfReadableRows", "u4", constant(352)),
        Derived("numberOfColumns", "u4", constant(384)),
        Derived("numberOfCalibrationRows", "u4", constant(4)),
        Derived("numberOfEnvironmentalRows", "u4", constant(2)),
        Derived("numberOfAsics", "u4", constant(64)),
    ),
)
EPIX_CONFIG10KA2_M_V2 = Record(
    "Epix.Config10ka2MV2",
    (
        Field("evr",      EPIX_PGP_EVR_CONFIG,   0),
        Array("quad",     EPIX_QUAD10KA_CONFIG_V2,   8, (4,)),
        Array("elemCfg",  EPIX_ELEM10KA_CONFIG_V1,4632, (16,)),
    ),
    size=4349144,
    derived=EPIX_CONFIG10KA2_M_V1.derived,
)
EPIX_CONFIG_V1 = Record(
    "Epix.ConfigV1",
    (
        Field("version",                   "u4",     0),
        Field("runTrigDelay",              "u4",     4),
        Field("daqTrigDelay",              "u4",     8),
        Field("dacSetting",                "u4",    12),
        Hidden("_asicPins",                "u4",    16, bits=(
            Bits("asicGR", 0, 1), Bits("asicAcq", 1, 1), Bits("asicR0", 2, 1), Bits("asicPpmat", 3, 1),
            Bits("asicPpbe", 4, 1), Bits("asicRoClk", 5, 1),
        )),
        Hidden("_asicControls",            "u4",    20, bits=(
            Bits("asicGRControl", 0, 1), Bits("asicAcqControl", 1, 1), Bits("asicR0Control", 2, 1),
            Bits("asicPpmatControl", 3, 1), Bits("asicPpbeControl", 4, 1), Bits("asicR0ClkControl", 5, 1),
            Bits("prepulseR0En", 6, 1), Bits("adcStreamMode", 7, 1), Bits("testPatternEnable", 8, 1),
        )),
        Field("acqToAsicR0Delay",          "u4",    24),
        Field("asicR0ToAsicAcq",           "u4",    28),
        Field("asicAcqWidth",              "u4",    32),
        Field("asicAcqLToPPmatL",          "u4",    36),
        Field("asicRoClkHalfT",            "u4",    40),
        Field("adcReadsPerPixel",          "u4",    44),
        Field("adcClkHalfT",               "u4",    48),
        Field("asicR0Width",               "u4",    52),
        Field("adcPipelineDelay",          "u4",    56),
        Field("prepulseR0Width",           "u4",    60),
        Field("prepulseR0Delay",           "u4",    64),
        Field("digitalCardId0",            "u4",    68),
        Field("digitalCardId1",            "u4",    72),
        Field("analogCardId0",             "u4",    76),
        Field("analogCardId1",             "u4",    80),
        Field("lastRowExclusions",         "u4",    84),
        Field("numberOfAsicsPerRow",       "u4",    88),
        Field("numberOfAsicsPerColumn",    "u4",    92),
        Field("numberOfRowsPerAsic",       "u4",    96),
        Field("numberOfPixelsPerAsicRow",  "u4",   100),
        Field("baseClockFrequency",        "u4",   104),
        Field("asicMask",                  "u4",   108),
        Array("asics",                     EPIX_ASIC_CONFIG_V1, 112, (_number_of_asics,)),
        Array("asicPixelTestArray",        "u4",  None, (_number_of_asics, "number_of_rows_per_asic",
            _mask_words)),
        Array("asicPixelMaskArray",        "u4",  None, (_number_of_asics, "number_of_rows_per_asic",
            _mask_words)),
    ),
    derived=(
        Derived("numberOfRows", "u4", _rows_kept),
        Derived("numberOfColumns", "u4", _number_of_columns),
        Derived("numberOfAsics", "u4", _number_of_asics),
    ),
)
EPIX_CONFIG10K_V1 = Record(
    "Epix.Config10KV1",
    (
        *EPIX_CONFIG_V1.before("_asicControls"),
        Hidden("_asicControls",            "u4",    20, bits=(
            Bits("asicGRControl", 0, 1), Bits("asicAcqControl", 1, 1), Bits("asicR0Control", 2, 1),
            Bits("asicPpmatControl", 3, 1), Bits("asicPpbeControl", 4, 1), Bits("asicR0ClkControl", 5, 1),
            Bits("prepulseR0En", 6, 1), Bits("adcStreamMode", 7, 1), Bits("testPatternEnable", 8, 1),
            Bits("SyncMode", 9, 2), Bits("R0Mode", 11, 1),
        )),
        Field("DoutPipelineDelay",         "u4",    24),
        Field("acqToAsicR0Delay",          "u4",    28),
        Field("asicR0ToAsicAcq",           "u4",    32),
        Field("asicAcqWidth",              "u4",    36),
        Field("asicAcqLToPPmatL",          "u4",    40),
        Field("asicRoClkHalfT",            "u4",    44),
        Field("adcReadsPerPixel",          "u4",    48),
        Field("adcClkHalfT",               "u4",    52),
        Field("asicR0Width",               "u4",    56),
        Field("adcPipelineDelay",          "u4",    60),
        Hidden("_Sync",                    "u4",    64, bits=(
            Bits("SyncWidth", 0, 16), Bits("SyncDelay", 16, 16),
        )),
        Field("prepulseR0Width",           "u4",    68),
        Field("prepulseR0Delay",           "u4",    72),
        Field("digitalCardId0",            "u4",    76),
        Field("digitalCardId1",            "u4",    80),
        Field("analogCardId0",             "u4",    84),
        Field("analogCardId1",             "u4",    88),
        Field("lastRowExclusions",         "u4",    92),
        Field("numberOfAsicsPerRow",       "u4",    96),
        Field("numberOfAsicsPerColumn",    "u4",   100),
        Field("numberOfRowsPerAsic",       "u4",   104),
        Field("numberOfPixelsPerAsicRow",  "u4",   108),
        Field("baseClockFrequency",        "u4",   112),
        Field("asicMask",                  "u4",   116),
        Hidden("_Scope",                   "u4",   120, bits=(
            Bits("scopeEnable", 0, 1), Bits("scopeTrigEdge", 1, 1), Bits("scopeTrigChan", 2, 4),
            Bits("scopeArmMode", 6, 2), Bits("scopeADCThreshold", 16, 16),
        )),
        Hidden("_ScopeTriggerParms_1",     "u4",   124, bits=(
            Bits("scopeTrigHoldoff", 0, 13), Bits("scopeTrigOffset", 13, 13),
        )),
        Hidden("_ScopeTriggerParms_2",     "u4",   128, bits=(
            Bits("scopeTraceLength", 0, 13), Bits("scopeADCsameplesToSkip", 13, 13),
        )),
        Hidden("_ScopeWaveformSelects",    "u4",   132, bits=(
            Bits("scopeChanAwaveformSelect", 0, 5), Bits("scopeChanBwaveformSelect", 5, 5),
        )),
        Array("asics",                     EPIX_ASIC10K_CONFIG_V1, 136, (_number_of_asics,)),
        Array("asicPixelConfigArray",      "u2",  None, (_number_of_asics, "number_of_rows_per_asic",
            "number_of_pixels_per_asic_row")),
    ),
    derived=EPIX_CONFIG_V1.derived,
)
EPIX_CONFIG100A_V1 = Record(
    "Epix.Config100aV1",
    (
        *EPIX_CONFIG10K_V1.before("DoutPipelineDelay"),
        Field("acqToAsicR0Delay",              "u4",    24),
        Field("asicR0ToAsicAcq",               "u4",    28),
        Field("asicAcqWidth",                  "u4",    32),
        Field("asicAcqLToPPmatL",              "u4",    36),
        Field("asicPPmatToReadout",            "u4",    40),
        Field("asicRoClkHalfT",                "u4",    44),
        Field("adcReadsPerPixel",              "u4",    48),
        Field("adcClkHalfT",                   "u4",    52),
        Field("asicR0Width",                   "u4",    56),
        Field("adcPipelineDelay",              "u4",    60),
        Hidden("_Sync",                        "u4",    64, bits=(
            Bits("SyncWidth", 0, 16), Bits("SyncDelay", 16, 16),
        )),
        Field("prepulseR0Width",               "u4",    68),
        Field("prepulseR0Delay",               "u4",    72),
        Field("digitalCardId0",                "u4",    76),
        Field("digitalCardId1",                "u4",    80),
        Field("analogCardId0",                 "u4",    84),
        Field("analogCardId1",                 "u4",    88),
        Field("numberOfAsicsPerRow",           "u4",    92),
        Field("numberOfAsicsPerColumn",        "u4",    96),
        Field("numberOfRowsPerAsic",           "u4",   100),
        Field("numberOfReadableRowsPerAsic",   "u4",   104),
        Field("numberOfPixelsPerAsicRow",      "u4",   108),
        Field("calibrationRowCountPerASIC",    "u4",   112),
        Field("environmentalRowCountPerASIC",  "u4",   116),
        Field("baseClockFrequency",            "u4",   120),
        Field("asicMask",                      "u4",   124),
        Hidden("_Scope",                       "u4",   128, bits=(
            Bits("scopeEnable", 0, 1), Bits("scopeTrigEdge", 1, 1), Bits("scopeTrigChan", 2, 4),
            Bits("scopeArmMode", 6, 2), Bits("scopeADCThreshold", 16, 16),
        )),
        Hidden("_ScopeTriggerParms_1",         "u4",   132, bits=(
            Bits("scopeTrigHoldoff", 0, 13), Bits("scopeTrigOffset", 13, 13),
        )),
        Hidden("_ScopeTriggerParms_2",         "u4",   136, bits=(
            Bits("scopeTraceLength", 0, 13), Bits("scopeADCsameplesToSkip", 13, 13),
        )),
        Hidden("_ScopeWaveformSelects",        "u4",   140, bits=(
            Bits("scopeChanAwaveformSelect", 0, 5), Bits("scopeChanBwaveformSelect", 5, 5),
        )),
        Array("asics",                         EPIX_ASIC100A_CONFIG_V1, 144, (_number_of_asics,)),
        Array("asicPixelConfigArray",          "u2",  None, ("number_of_rows", "number_of_columns")),
        Array("calibPixelConfigArray",         "u1",  None, (_calibration_row_pairs, _number_of_columns)),
    ),
    derived=(
        Derived("numberOfRows", "u4", _number_of_rows),
        Derived("numberOfReadableRows", "u4", _number_of_readable_rows),
        Derived("numberOfColumns", "u4", _number_of_columns),
        Derived("numberOfCalibrationRows", "u4", _number_of_calibration_rows),
        Derived("numberOfEnvironmentalRows", "u4", _number_of_environmental_rows),
        Derived("numberOfAsics", "u4", _number_of_asics),
    ),
)
EPIX_CONFIG100A_V2 = Record(
    "Epix.Config100aV2",
    (
        Field("version",                           "u4",     0),
        Field("usePgpEvr",                         "u4",     4),
        Field("evrRunCode",                        "u4",     8),
        Field("evrDaqCode",                        "u4",    12),
        Field("evrRunTrigDelay",                   "u4",    16),
        Field("epixRunTrigDelay",                  "u4",    20),
        Field("dacSetting",                        "u4",    24),
        Hidden("_asicPins",                        "u4",    28, bits=(
            Bits("asicGR", 0, 1), Bits("asicAcq", 1, 1), Bits("asicR0", 2, 1), Bits("asicPpmat", 3, 1),
            Bits("asicPpbe", 4, 1), Bits("asicRoClk", 5, 1),
        )),
        Hidden("_asicControls",                    "u4",    32, bits=(
            Bits("asicGRControl", 0, 1), Bits("asicAcqControl", 1, 1), Bits("asicR0Control", 2, 1),
            Bits("asicPpmatControl", 3, 1), Bits("asicPpbeControl", 4, 1), Bits("asicR0ClkControl", 5, 1),
            Bits("prepulseR0En", 6, 1), Bits("adcStreamMode", 7, 1), Bits("testPatternEnable", 8, 1),
            Bits("SyncMode", 9, 2), Bits("R0Mode", 11, 1),
        )),
        Field("acqToAsicR0Delay",                  "u4",    36),
        Field("asicR0ToAsicAcq",                   "u4",    40),
        Field("asicAcqWidth",                      "u4",    44),
        Field("asicAcqLToPPmatL",                  "u4",    48),
        Field("asicPPmatToReadout",                "u4",    52),
        Field("asicRoClkHalfT",                    "u4",    56),
        Field("adcReadsPerPixel",                  "u4",    60),
        Field("adcClkHalfT",                       "u4",    64),
        Field("asicR0Width",                       "u4",    68),
        Field("adcPipelineDelay",                  "u4",    72),
        Field("adcPipelineDelay0",                 "u4",    76),
        Field("adcPipelineDelay1",                 "u4",    80),
        Field("adcPipelineDelay2",                 "u4",    84),
        Field("adcPipelineDelay3",                 "u4",    88),
        Hidden("_Sync",                            "u4",    92, bits=(
            Bits("SyncWidth", 0, 16), Bits("SyncDelay", 16, 16),
        )),
        Field("prepulseR0Width",                   "u4",    96),
        Field("prepulseR0Delay",                   "u4",   100),
        Field("digitalCardId0",                    "u4",   104),
        Field("digitalCardId1",                    "u4",   108),
        Field("analogCardId0",                     "u4",   112),
        Field("analogCardId1",                     "u4",   116),
        Field("carrierId0",                        "u4",   120),
        Field("carrierId1",                        "u4",   124),
        Field("numberOfAsicsPerRow",               "u4",   128),
        Field("numberOfAsicsPerColumn",            "u4",   132),
        Field("numberOfRowsPerAsic",               "u4",   136),
        Field("numberOfReadableRowsPerAsic",       "u4",   140),
        Field("numberOfPixelsPerAsicRow",          "u4",   144),
        Field("calibrationRowCountPerASIC",        "u4",   148),
        Field("environmentalRowCountPerASIC",      "u4",   152),
        Field("baseClockFrequency",                "u4",   156),
        Field("asicMask",                          "u4",   160),
        Field("enableAutomaticRunTrigger",         "u4",   164),
        Field("numberOf125MhzTicksPerRunTrigger",  "u4",   168),
        Hidden("_Scope",                           "u4",   172, bits=(
            Bits("scopeEnable", 0, 1), Bits("scopeTrigEdge", 1, 1), Bits("scopeTrigChan", 2, 4),
            Bits("scopeArmMode", 6, 2), Bits("scopeADCThreshold", 16, 16),
        )),
        Hidden("_ScopeTriggerParms_1",             "u4",   176, bits=(
            Bits("scopeTrigHoldoff", 0, 13), Bits("scopeTrigOffset", 13, 13),
        )),
        Hidden("_ScopeTriggerParms_2",             "u4",   180, bits=(
            Bits("scopeTraceLength", 0, 13), Bits("scopeADCsameplesToSkip", 13, 13),
        )),
        Hidden("_ScopeWaveformSelects",            "u4",   184, bits=(
            Bits("scopeChanAwaveformSelect", 0, 5), Bits("scopeChanBwaveformSelect", 5, 5),
        )),
        Array("asics",                             EPIX_ASIC100A_CONFIG_V1, 188, (_number_of_asics,)),
        Array("asicPixelConfigArray",              "u2",  None, ("number_of_rows", "number_of_columns")),
        Array("calibPixelConfigArray",             "u1",  None, (_calibration_row_pairs, _number_of_columns)),
    ),
    derived=EPIX_CONFIG100A_V1.derived,
)
EPIX_CONFIG_S_V1 = Record(
    "Epix.ConfigSV1",
    (
        *EPIX_CONFIG100A_V1.before("numberOfAsicsPerRow"),
        Field("carrierId0",                    "u4",    92),
        Field("carrierId1",                    "u4",    96),
        Field("numberOfAsicsPerRow",           "u4",   100),
        Field("numberOfAsicsPerColumn",        "u4",   104),
        Field("numberOfRowsPerAsic",           "u4",   108),
        Field("numberOfReadableRowsPerAsic",   "u4",   112),
        Field("numberOfPixelsPerAsicRow",      "u4",   116),
        Field("calibrationRowCountPerASIC",    "u4",   120),
        Field("environmentalRowCountPerASIC",  "u4",   124),
        Field("baseClockFrequency",            "u4",   128),
        Field("asicMask",                      "u4",   132),
        Hidden("_Scope",                       "u4",   136, bits=(
            Bits("scopeEnable", 0, 1), Bits("scopeTrigEdge", 1, 1), Bits("scopeTrigChan", 2, 4),
            Bits("scopeArmMode", 6, 2), Bits("scopeADCThreshold", 16, 16),
        )),
        Hidden("_ScopeTriggerParms_1",         "u4",   140, bits=(
            Bits("scopeTrigHoldoff", 0, 13), Bits("scopeTrigOffset", 13, 13),
        )),
        Hidden("_ScopeTriggerParms_2",         "u4",   144, bits=(
            Bits("scopeTraceLength", 0, 13), Bits("scopeADCsameplesToSkip", 13, 13),
        )),
        Hidden("_ScopeWaveformSelects",        "u4",   148, bits=(
            Bits("scopeChanAwaveformSelect", 0, 5), Bits("scopeChanBwaveformSelect", 5, 5),
        )),
        Array("asics",                         EPIX_ASIC_S_CONFIG_V1, 152, (_number_of_asics,)),
        Array("asicPixelConfigArray",          "u2",  None, ("number_of_rows", "number_of_columns")),
        Array("calibPixelConfigArray",         "u1",  None, (_calibration_row_pairs, _number_of_columns)),
    ),
    derived=EPIX_CONFIG100A_V1.derived,
)
EPIX_CONFIG10KA_V1 = Record(
    "Epix.Config10kaV1",
    (
        *EPIX_CONFIG100A_V2.before("asics"),
        Array("asics",                  EPIX_ASIC10KA_CONFIG_V1, 188, (_number_of_asics,)),
        Array("asicPixelConfigArray",   "u2",  None, ("number_of_rows", "number_of_columns")),
        Array("calibPixelConfigArray",  "u1",  None, (_calibration_row_pairs, _number_of_columns)),
    ),
    derived=EPIX_CONFIG100A_V1.derived,
)
EPIX_CONFIG10KA_V2 = Record(
    "Epix.Config10kaV2",
    (
        *EPIX_CONFIG100A_V2.before("dacSetting"),
        Field("epixDaqTrigDelay",                  "u4",    24),
        Field("dacSetting",                        "u4",    28),
        Hidden("_asicPins",                        "u4",    32, bits=(
            Bits("asicGR", 0, 1), Bits("asicAcq", 1, 1), Bits("asicR0", 2, 1), Bits("asicPpmat", 3, 1),
            Bits("asicPpbe", 4, 1), Bits("asicRoClk", 5, 1),
        )),
        Hidden("_asicControls",                    "u4",    36, bits=(
            Bits("asicGRControl", 0, 1), Bits("asicAcqControl", 1, 1), Bits("asicR0Control", 2, 1),
            Bits("asicPpmatControl", 3, 1), Bits("asicPpbeControl", 4, 1), Bits("asicR0ClkControl", 5, 1),
            Bits("prepulseR0En", 6, 1), Bits("adcStreamMode", 7, 1), Bits("testPatternEnable", 8, 1),
        )),
        Field("acqToAsicR0Delay",                  "u4",    40),
        Field("asicR0ToAsicAcq",                   "u4",    44),
        Field("asicAcqWidth",                      "u4",    48),
        Field("asicAcqLToPPmatL",                  "u4",    52),
        Field("asicPPmatToReadout",                "u4",    56),
        Field("asicRoClkHalfT",                    "u4",    60),
        Field("adcClkHalfT",                       "u4",    64),
        Field("asicR0Width",                       "u4",    68),
        Field("adcPipelineDelay",                  "u4",    72),
        Field("adcPipelineDelay0",                 "u4",    76),
        Field("adcPipelineDelay1",                 "u4",    80),
        Field("adcPipelineDelay2",                 "u4",    84),
        Field("adcPipelineDelay3",                 "u4",    88),
        Hidden("_Sync",                            "u4",    92, bits=(
            Bits("SyncWidth", 0, 16), Bits("SyncDelay", 16, 16),
        )),
        Field("prepulseR0Width",                   "u4",    96),
        Field("prepulseR0Delay",                   "u4",   100),
        Field("digitalCardId0",                    "u4",   104),
        Field("digitalCardId1",                    "u4",   108),
        Field("analogCardId0",                     "u4",   112),
        Field("analogCardId1",                     "u4",   116),
        Field("carrierId0",                        "u4",   120),
        Field("carrierId1",                        "u4",   124),
        Field("numberOfAsicsPerRow",               "u4",   128),
        Field("numberOfAsicsPerColumn",            "u4",   132),
        Field("numberOfRowsPerAsic",               "u4",   136),
        Field("numberOfReadableRowsPerAsic",       "u4",   140),
        Field("numberOfPixelsPerAsicRow",          "u4",   144),
        Field("calibrationRowCountPerASIC",        "u4",   148),
        Field("environmentalRowCountPerASIC",      "u4",   152),
        Field("baseClockFrequency",                "u4",   156),
        Field("asicMask",                          "u4",   160),
        Field("enableAutomaticRunTrigger",         "u4",   164),
        Field("numberOf125MhzTicksPerRunTrigger",  "u4",   168),
        Field("ghostCorrEn",                       "u4",   172),
        Field("oversampleEn",                      "u4",   176),
        Field("oversampleSize",                    "u4",   180),
        Hidden("_Scope",                           "u4",   184, bits=(
            Bits("scopeEnable", 0, 1), Bits("scopeTrigEdge", 1, 1), Bits("scopeTrigChan", 2, 4),
            Bits("scopeArmMode", 6, 2), Bits("scopeADCThreshold", 16, 16),
        )),
        Hidden("_ScopeTriggerParms_1",             "u4",   188, bits=(
            Bits("scopeTrigHoldoff", 0, 13), Bits("scopeTrigOffset", 13, 13),
        )),
        Hidden("_ScopeTriggerParms_2",             "u4",   192, bits=(
            Bits("scopeTraceLength", 0, 13), Bits("scopeADCsameplesToSkip", 13, 13),
        )),
        Hidden("_ScopeWaveformSelects",            "u4",   196, bits=(
            Bits("scopeChanAwaveformSelect", 0, 5), Bits("scopeChanBwaveformSelect", 5, 5),
        )),
        Array("firmwareHash",                      "char", 200, (64,)),
        Array("firmwareDesc",                      "char", 264, (256,)),
        Array("asics",                             EPIX_ASIC10KA_CONFIG_V1, 520, (_number_of_asics,)),
        Array("asicPixelConfigArray",              "u2",  None, ("number_of_rows", "number_of_columns")),
        Array("calibPixelConfigArray",             "u1",  None, (_calibration_row_pairs, _number_of_columns)),
    ),
    derived=EPIX_CONFIG100A_V1.derived,
)

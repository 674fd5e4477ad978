"""Digitisers, spectrometers and other one-dimensional detectors: configuration."""

from __future__ import annotations

from typing import Any

from psana_dask.readers.records import Array, Bits, Derived, Field, Hidden, Method, Record
from psana_dask.readers.tables import choices as named
from psana_dask.readers.tables.common import popcount


def _slope(r: Any) -> Any:
    return r.full_scale / 65536


def _nbr_channels(r: Any) -> Any:
    return popcount(r.channel_mask)


def _num_channels(r: Any) -> Any:
    return (r.last_chan - r.first_chan) + 1


def _number_of_rows(r: Any) -> Any:
    return r.frame_dim.rows


def _number_of_columns(r: Any) -> Any:
    return r.frame_dim.columns


def _last_row_exclusions(r: Any) -> Any:
    return r.aux_dim.rows


def _number_of_asics(r: Any) -> Any:
    return r.env_dim.columns


def sample_bytes(r: Any, channel: int) -> int:
    """Return the bytes of one sample of a Generic1D channel."""
    return {0: 1, 1: 2, 2: 4, 3: 4, 4: 8}.get(int(r.sample_type[channel]), 0)


def channel_offset(r: Any, channel: int) -> int:
    """Return where a Generic1D channel starts among the sample bytes."""
    return sum(int(r.length[i]) * sample_bytes(r, i) for i in range(channel))


def sample_interval(r: Any) -> float:
    """Return the sampling period in seconds; the clock is stored as hexadecimal digits, in 10 kHz."""
    digits = [int(digit, 16) for digit in f"{r.base_clock_frequency:x}"]
    frequency = sum(10 * digit for digit in digits)
    return r.adc_clk_half_t * 2.0e-3 / frequency if frequency else 0.0


ACQIRIS_VERT_V1 = Record(
    "Acqiris.VertV1",
    (
        Field("fullScale",  "f8",     0, unit="V"),
        Field("offset",     "f8",     8, unit="V"),
        Field("coupling",   "u4",    16),
        Field("bandwidth",  "u4",    20),
    ),
    size=24,
    derived=(
        Derived("slope", "f8", _slope, unit="V"),
    ),
)
ACQIRIS_HORIZ_V1 = Record(
    "Acqiris.HorizV1",
    (
        Field("sampInterval",  "f8",     0, unit="s"),
        Field("delayTime",     "f8",     8, unit="s"),
        Field("nbrSamples",    "u4",    16),
        Field("nbrSegments",   "u4",    20),
    ),
    size=24,
)
ACQIRIS_TRIG_V1 = Record(
    "Acqiris.TrigV1",
    (
        Field("coupling",  "u4",     0),
        Field("input",     "u4",     4),
        Field("slope",     "u4",     8),
        Field("level",     "f8",    12),
    ),
    size=20,
)
ACQIRIS_CONFIG_V1 = Record(
    "Acqiris.ConfigV1",
    (
        Field("nbrConvertersPerChannel",  "u4",     0),
        Field("channelMask",              "u4",     4),
        Field("nbrBanks",                 "u4",     8),
        Field("trig",                     ACQIRIS_TRIG_V1,  12),
        Field("horiz",                    ACQIRIS_HORIZ_V1,  32),
        Array("vert",                     ACQIRIS_VERT_V1,  56, (20,)),
    ),
    size=536,
    derived=(
        Derived("nbrChannels", "u4", _nbr_channels),
    ),
)
ACQIRIS_TDC_CHANNEL = Record(
    "Acqiris.TdcChannel",
    (
        Field("channel",    "i4",     0, choices=named.ACQIRIS_TDC_CHANNEL_CHANNEL),
        Field("_mode_int",  "u4",     4, bits=(
            Bits("slope", 0, 1, choices=named.ACQIRIS_TDC_CHANNEL_SLOPE),
            Bits("mode", 31, 1, choices=named.ACQIRIS_TDC_CHANNEL_MODE),
        )),
        Field("level",      "f8",     8, unit="V"),
    ),
    size=16,
)
ACQIRIS_TDC_AUX_IO = Record(
    "Acqiris.TdcAuxIO",
    (
        Field("channel",  "u4",     0, choices=named.ACQIRIS_TDC_AUX_IO_CHANNEL),
        Field("mode",     "u4",     4, choices=named.ACQIRIS_TDC_AUX_IO_MODE),
        Field("term",     "u4",     8, choices=named.ACQIRIS_TDC_AUX_IO_TERMINATION),
    ),
    size=12,
)
ACQIRIS_TDC_VETO_IO = Record(
    "Acqiris.TdcVetoIO",
    (
        Field("channel",  "u4",     0, choices=named.ACQIRIS_TDC_VETO_IO_CHANNEL),
        Field("mode",     "u4",     4, choices=named.ACQIRIS_TDC_VETO_IO_MODE),
        Field("term",     "u4",     8, choices=named.ACQIRIS_TDC_AUX_IO_TERMINATION),
    ),
    size=12,
)
ACQIRIS_TDC_CONFIG_V1 = Record(
    "Acqiris.TdcConfigV1",
    (
        Array("channels",  ACQIRIS_TDC_CHANNEL,   0, (8,)),
        Array("auxio",     ACQIRIS_TDC_AUX_IO, 128, (2,)),
        Field("veto",      ACQIRIS_TDC_VETO_IO, 152),
    ),
    size=164,
)
IMP_CONFIG_V1 = Record(
    "Imp.ConfigV1",
    (
        Field("range",            "u4",     0),
        Field("calRange",         "u4",     4),
        Field("reset",            "u4",     8),
        Field("biasData",         "u4",    12),
        Field("calData",          "u4",    16),
        Field("biasDacData",      "u4",    20),
        Field("calStrobe",        "u4",    24),
        Field("numberOfSamples",  "u4",    28),
        Field("trigDelay",        "u4",    32),
        Field("adcDelay",         "u4",    36),
    ),
    size=40,
)
GENERIC1D_CONFIG_V0 = Record(
    "Generic1D.ConfigV0",
    (
        Field("NChannels",   "u4",     0),
        Array("Length",      "u4",     4, ("n_channels",)),
        Array("SampleType",  "u4",  None, ("n_channels",)),
        Array("Offset",      "i4",  None, ("n_channels",)),
        Array("Period",      "f8",  None, ("n_channels",), unit="s"),
    ),
    derived=(
        Method("data_offset", channel_offset),
        Method("Depth", sample_bytes),
    ),
)
GSC16AI_CONFIG_V1 = Record(
    "Gsc16ai.ConfigV1",
    (
        Field("voltageRange",     "u2",     0, choices=named.GSC16AI_VOLTAGE_RANGE),
        Field("firstChan",        "u2",     2),
        Field("lastChan",         "u2",     4),
        Field("inputMode",        "u2",     6, choices=named.GSC16AI_INPUT_MODE),
        Field("triggerMode",      "u2",     8, choices=named.GSC16AI_TRIGGER_MODE),
        Field("dataFormat",       "u2",    10, choices=named.GSC16AI_DATA_FORMAT),
        Field("fps",              "u2",    12),
        Field("autocalibEnable",  "u1",    14),
        Field("timeTagEnable",    "u1",    15),
    ),
    size=16,
    derived=(
        Derived("numChannels", "u2", _num_channels),
    ),
)
OCEAN_OPTICS_CONFIG_V1 = Record(
    "OceanOptics.ConfigV1",
    (
        Field("exposureTime",        "f4",     0, unit="s"),
        Array("waveLenCalib",        "f8",     4, (4,)),
        Array("nonlinCorrect",       "f8",    36, (8,)),
        Field("strayLightConstant",  "f8",   100),
    ),
    size=108,
)
OCEAN_OPTICS_CONFIG_V2 = Record(
    "OceanOptics.ConfigV2",
    (
        Field("exposureTime",        "f4",     0, unit="s"),
        Field("deviceType",          "i4",     4),
        Array("waveLenCalib",        "f8",     8, (4,)),
        Array("nonlinCorrect",       "f8",    40, (8,)),
        Field("strayLightConstant",  "f8",   104),
    ),
    size=112,
)
EPIX_SAMPLER_CONFIG_V1 = Record(
    "EpixSampler.ConfigV1",
    (
        Field("version",             "u4",     0),
        Field("runTrigDelay",        "u4",     4),
        Field("daqTrigDelay",        "u4",     8),
        Field("daqSetting",          "u4",    12),
        Field("adcClkHalfT",         "u4",    16),
        Field("adcPipelineDelay",    "u4",    20),
        Field("digitalCardId0",      "u4",    24),
        Field("digitalCardId1",      "u4",    28),
        Field("analogCardId0",       "u4",    32),
        Field("analogCardId1",       "u4",    36),
        Field("numberOfChannels",    "u4",    40),
        Field("samplesPerChannel",   "u4",    44),
        Field("baseClockFrequency",  "u4",    48),
        Hidden("_bitControls",       "u4",    52, bits=(Bits("testPatternEnable", 8, 1),)),
    ),
    size=56,
    derived=(
        Derived("sampleInterval_sec", "f8", sample_interval, unit="s"),
    ),
)
QUADADC_CONFIG_V1 = Record(
    "QuadAdc.ConfigV1",
    (
        Field("chanMask",        "u4",     0),
        Field("delayTime",       "f8",     4),
        Field("interleaveMode",  "u4",    12),
        Field("nbrSamples",      "u4",    16),
        Field("evtCode",         "u4",    20),
        Field("sampleRate",      "f8",    24),
    ),
    size=32,
)
GENERIC_PGP_C_DIMENSION = Record(
    "GenericPgp.CDimension",
    (
        Field("rows",     "u4",     0),
        Field("columns",  "u4",     4),
    ),
    size=8,
)
GENERIC_PGP_C_REGISTER = Record(
    "GenericPgp.CRegister",
    (
        Hidden("_Action", "u4",     0, bits=(
            Bits("action", 0, 8, choices=named.PGP_C_REGISTER_ACTION), Bits("datasize", 8, 24),
        )),
        Field("address",  "u4",     4),
        Field("offset",   "u4",     8),
        Field("mask",     "u4",    12),
    ),
    size=16,
)
GENERIC_PGP_C_STREAM = Record(
    "GenericPgp.CStream",
    (
        Field("pgp_channel",    "u4",     0),
        Field("data_type",      "u4",     4),
        Field("config_type",    "u4",     8),
        Field("config_offset",  "u4",    12),
    ),
    size=16,
)
GENERIC_PGP_CONFIG_V1 = Record(
    "GenericPgp.ConfigV1",
    (
        Field("id",                   "u4",     0),
        Field("frame_dim",            GENERIC_PGP_C_DIMENSION,   4),
        Field("aux_dim",              GENERIC_PGP_C_DIMENSION,  12),
        Field("env_dim",              GENERIC_PGP_C_DIMENSION,  20),
        Field("number_of_registers",  "u4",    28),
        Field("number_of_sequences",  "u4",    32),
        Field("number_of_streams",    "u4",    36),
        Field("payload_size",         "u4",    40),
        Array("pixel_settings",       "u4",    44, ("frame_dim.rows", "frame_dim.columns")),
        Array("sequence_length",      "u4",  None, ("number_of_sequences",)),
        Array("sequence",             GENERIC_PGP_C_REGISTER, None, ("number_of_registers",)),
        Array("stream",               GENERIC_PGP_C_STREAM, None, ("number_of_streams",)),
        Array("payload",              "u4",  None, ("payload_size",)),
    ),
    derived=(
        Derived("numberOfRows", "u4", _number_of_rows),
        Derived("numberOfColumns", "u4", _number_of_columns),
        Derived("lastRowExclusions", "u4", _last_row_exclusions),
        Derived("numberOfAsics", "u4", _number_of_asics),
    ),
)

"""Beam-line data (BLD), intensity-position monitors, diodes and encoders: event data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from psana_dask.readers.records import Array, Derived, Field, Hidden, Method, Record
from psana_dask.readers.tables.common import low_24_bits
from psana_dask.readers.tables.configs_beam import (
    IPIMB_CONFIG_V1,
    IPIMB_CONFIG_V2,
    LUSI_PIM_IMAGE_CONFIG_V1,
    USDUSB_CONFIG_V1,
    USDUSB_FEX_CONFIG_V1,
)
from psana_dask.readers.tables.configs_cameras import PULNIX_TM6740_CONFIG_V2
from psana_dask.readers.tables.configs_waveforms import ACQIRIS_CONFIG_V1
from psana_dask.readers.tables.imagers import CAMERA_FRAME_V1
from psana_dask.readers.tables.waveforms import ACQIRIS_DATA_DESC_V1


def ipimb_v1_volts(channel: str) -> Callable[[Any], Any]:
    """Return the function that gives a 16-bit channel in volts, 3.3 V full scale."""
    return lambda r: getattr(r, channel) * 3.3 / 65535


def ipimb_v2_volts(channel: str) -> Callable[[Any], Any]:
    """Return the function that gives a 16-bit channel in volts, 5 V full scale."""
    return lambda r: getattr(r, channel) * 5 / 65535


def reversed_trigger_counter(r: Any) -> Any:
    """Return the counter, whose four 16-bit words are stored in reversed order."""
    word = r._triggerCounter
    low = (word >> 48 & 0xFFFF) | (word >> 16 & 0xFFFF0000)
    return low | (word << 16 & 0xFFFF00000000) | (word << 48 & 0xFFFF000000000000)


def _usdusb_counts(r: Any) -> Any:
    return low_24_bits(r._count)


def _encoder_value(r: Any) -> Any:
    return low_24_bits(r.encoder_count)


def _encoder_channel(r: Any, channel: int) -> Any:
    return low_24_bits(r.encoder_count[..., channel])


IPIMB_DATA_V1 = Record(
    "Ipimb.DataV1",
    (
        Field("triggerCounter",  "u8",     0),
        Field("config0",         "u2",     8),
        Field("config1",         "u2",    10),
        Field("config2",         "u2",    12),
        Field("channel0",        "u2",    14),
        Field("channel1",        "u2",    16),
        Field("channel2",        "u2",    18),
        Field("channel3",        "u2",    20),
        Field("checksum",        "u2",    22),
    ),
    size=24,
    derived=(
        Derived("channel0Volts", "f4", ipimb_v1_volts("channel0"), unit="V"),
        Derived("channel1Volts", "f4", ipimb_v1_volts("channel1"), unit="V"),
        Derived("channel2Volts", "f4", ipimb_v1_volts("channel2"), unit="V"),
        Derived("channel3Volts", "f4", ipimb_v1_volts("channel3"), unit="V"),
    ),
)
IPIMB_DATA_V2 = Record(
    "Ipimb.DataV2",
    (
        Hidden("_triggerCounter", "u8",     0),
        Field("config0",          "u2",     8),
        Field("config1",          "u2",    10),
        Field("config2",          "u2",    12),
        Field("channel0",         "u2",    14),
        Field("channel1",         "u2",    16),
        Field("channel2",         "u2",    18),
        Field("channel3",         "u2",    20),
        Field("channel0ps",       "u2",    22),
        Field("channel1ps",       "u2",    24),
        Field("channel2ps",       "u2",    26),
        Field("channel3ps",       "u2",    28),
        Field("checksum",         "u2",    30),
    ),
    size=32,
    derived=(
        Derived("channel0Volts", "f4", ipimb_v2_volts("channel0"), unit="V"),
        Derived("channel1Volts", "f4", ipimb_v2_volts("channel1"), unit="V"),
        Derived("channel2Volts", "f4", ipimb_v2_volts("channel2"), unit="V"),
        Derived("channel3Volts", "f4", ipimb_v2_volts("channel3"), unit="V"),
        Derived("channel0psVolts", "f4", ipimb_v2_volts("channel0ps"), unit="V"),
        Derived("channel1psVolts", "f4", ipimb_v2_volts("channel1ps"), unit="V"),
        Derived("channel2psVolts", "f4", ipimb_v2_volts("channel2ps"), unit="V"),
        Derived("channel3psVolts", "f4", ipimb_v2_volts("channel3ps"), unit="V"),
        Derived("triggerCounter", "u8", reversed_trigger_counter),
    ),
)
LUSI_DIODE_FEX_V1 = Record(
    "Lusi.DiodeFexV1",
    (
        Field("value",  "f4",     0),
    ),
    size=4,
)
LUSI_IPM_FEX_V1 = Record(
    "Lusi.IpmFexV1",
    (
        Array("channel",  "f4",     0, (4,)),
        Field("sum",      "f4",    16),
        Field("xpos",     "f4",    20),
        Field("ypos",     "f4",    24),
    ),
    size=28,
)
USDUSB_DATA_V1 = Record(
    "UsdUsb.DataV1",
    (
        Hidden("_header",    "u1",     0, (6,)),
        Field("digital_in",  "u1",     6),
        Hidden("_estop",     "u1",     7),
        Field("timestamp",   "u4",     8),
        Hidden("_count",     "u4",    12, (4,)),
        Array("status",      "u1",    28, (4,)),
        Array("analog_in",   "u2",    32, (4,)),
    ),
    size=40,
    derived=(
        Derived("encoder_count", "i4", _usdusb_counts),
    ),
)
USDUSB_FEX_DATA_V1 = Record(
    "UsdUsb.FexDataV1",
    (
        Array("encoder_values",  "f8",     0, (4,)),
    ),
    size=32,
)
ENCODER_DATA_V1 = Record(
    "Encoder.DataV1",
    (
        Field("timestamp",      "u4",     0),
        Field("encoder_count",  "u4",     4),
    ),
    size=8,
    derived=(
        Derived("value", "i4", _encoder_value),
    ),
)
ENCODER_DATA_V2 = Record(
    "Encoder.DataV2",
    (
        Field("timestamp",      "u4",     0),
        Array("encoder_count",  "u4",     4, (3,)),
    ),
    size=16,
    derived=(
        Method("value", _encoder_channel),
    ),
)
BLD_FEE_GAS_DET_ENERGY = Record(
    "Bld.BldDataFEEGasDetEnergy",
    (
        Field("f_11_ENRC",  "f8",     0, unit="mJ"),
        Field("f_12_ENRC",  "f8",     8, unit="mJ"),
        Field("f_21_ENRC",  "f8",    16, unit="mJ"),
        Field("f_22_ENRC",  "f8",    24, unit="mJ"),
    ),
    size=32,
)
BLD_FEE_GAS_DET_ENERGY_V1 = Record(
    "Bld.BldDataFEEGasDetEnergyV1",
    (
        *BLD_FEE_GAS_DET_ENERGY.fields,
        Field("f_63_ENRC",  "f8",    32, unit="mJ"),
        Field("f_64_ENRC",  "f8",    40, unit="mJ"),
    ),
    size=48,
)
BLD_EBEAM_V0 = Record(
    "Bld.BldDataEBeamV0",
    (
        Field("damageMask",     "u4",     0),
        Field("ebeamCharge",    "f8",     4, unit="nC"),
        Field("ebeamL3Energy",  "f8",    12, unit="MeV"),
        Field("ebeamLTUPosX",   "f8",    20, unit="mm"),
        Field("ebeamLTUPosY",   "f8",    28, unit="mm"),
        Field("ebeamLTUAngX",   "f8",    36, unit="mrad"),
        Field("ebeamLTUAngY",   "f8",    44, unit="mrad"),
    ),
    size=52,
    drop="ebeam",
)
BLD_EBEAM_V1 = Record(
    "Bld.BldDataEBeamV1",
    (
        *BLD_EBEAM_V0.fields,
        Field("ebeamPkCurrBC2",  "f8",    52, unit="A", name="peak_current_bc2"),
    ),
    size=60,
    drop="ebeam",
)
BLD_EBEAM_V2 = Record(
    "Bld.BldDataEBeamV2",
    (
        *BLD_EBEAM_V1.fields,
        Field("ebeamEnergyBC2",  "f8",    60, unit="mm"),
    ),
    size=68,
    drop="ebeam",
)
BLD_EBEAM_V3 = Record(
    "Bld.BldDataEBeamV3",
    (
        *BLD_EBEAM_V2.fields,
        Field("ebeamPkCurrBC1",  "f8",    68, unit="A", name="peak_current_bc1"),
        Field("ebeamEnergyBC1",  "f8",    76, unit="mm"),
    ),
    size=84,
    drop="ebeam",
)
BLD_EBEAM_V4 = Record(
    "Bld.BldDataEBeamV4",
    (
        *BLD_EBEAM_V3.fields,
        Field("ebeamUndPosX",  "f8",    84, unit="mm"),
        Field("ebeamUndPosY",  "f8",    92, unit="mm"),
        Field("ebeamUndAngX",  "f8",   100, unit="mrad"),
        Field("ebeamUndAngY",  "f8",   108, unit="mrad"),
    ),
    size=116,
    drop="ebeam",
)
BLD_EBEAM_V5 = Record(
    "Bld.BldDataEBeamV5",
    (
        *BLD_EBEAM_V4.fields,
        Field("ebeamXTCAVAmpl",   "f8",   116, unit="MV", name="xtcav_amplitude"),
        Field("ebeamXTCAVPhase",  "f8",   124, unit="deg", name="xtcav_phase"),
        Field("ebeamDumpCharge",  "f8",   132, unit="electrons"),
    ),
    size=140,
    drop="ebeam",
)
BLD_EBEAM_V6 = Record(
    "Bld.BldDataEBeamV6",
    (
        *BLD_EBEAM_V5.fields,
        Field("ebeamPhotonEnergy",  "f8",   140, unit="eV"),
        Field("ebeamLTU250",        "f8",   148, unit="mm", name="ltu250_position"),
        Field("ebeamLTU450",        "f8",   156, unit="mm", name="ltu450_position"),
    ),
    size=164,
    drop="ebeam",
)
BLD_EBEAM_V7 = Record(
    "Bld.BldDataEBeamV7",
    BLD_EBEAM_V6.fields,
    size=164,
    drop="ebeam",
)
BLD_EORBITS_V0 = Record(
    "Bld.BldDataEOrbitsV0",
    (
        Field("nBPMS",      "u4",     0, name="bpm_count"),
        Array("fBPM_X",     "f8",     4, ("bpm_count",), unit="mm"),
        Array("fBPM_Y",     "f8",  None, ("bpm_count",), unit="mm"),
        Array("fBPM_TMIT",  "f8",  None, ("bpm_count",), unit="Nel"),
    ),
    drop="f",
)
BLD_PHASE_CAVITY = Record(
    "Bld.BldDataPhaseCavity",
    (
        Field("fitTime1",  "f8",     0, unit="ps"),
        Field("fitTime2",  "f8",     8, unit="ps"),
        Field("charge1",   "f8",    16, unit="pC"),
        Field("charge2",   "f8",    24, unit="pC"),
    ),
    size=32,
)
BLD_PHASE_CAVITY_V1 = Record(
    "Bld.BldDataPhaseCavityV1",
    BLD_PHASE_CAVITY.fields,
    size=32,
)
BLD_IPIMB_V0 = Record(
    "Bld.BldDataIpimbV0",
    (
        Field("ipimbData",    IPIMB_DATA_V1,   0),
        Field("ipimbConfig",  IPIMB_CONFIG_V1,  24),
        Field("ipmFexData",   LUSI_IPM_FEX_V1,  76),
    ),
    size=104,
)
BLD_IPIMB_V1 = Record(
    "Bld.BldDataIpimbV1",
    (
        Field("ipimbData",    IPIMB_DATA_V2,   0),
        Field("ipimbConfig",  IPIMB_CONFIG_V2,  32),
        Field("ipmFexData",   LUSI_IPM_FEX_V1,  92),
    ),
    size=120,
)
BLD_PIM_V1 = Record(
    "Bld.BldDataPimV1",
    (
        Field("camConfig",  PULNIX_TM6740_CONFIG_V2,   0),
        Field("pimConfig",  LUSI_PIM_IMAGE_CONFIG_V1,  12),
        Field("frame",      CAMERA_FRAME_V1,  20),
    ),
)
BLD_USDUSB_V1 = Record(
    "Bld.BldDataUsdUsbV1",
    (
        Field("config",     USDUSB_CONFIG_V1,   0),
        Field("fexConfig",  USDUSB_FEX_CONFIG_V1,  32),
        Field("data",       USDUSB_DATA_V1, 272),
        Field("fexData",    USDUSB_FEX_DATA_V1, 312),
    ),
    size=344,
)
BLD_GMD_V0 = Record(
    "Bld.BldDataGMDV0",
    (
        Array("gasType",                 "char",   0, (32,)),
        Field("pressure",                "f8",    32),
        Field("temperature",             "f8",    40),
        Field("current",                 "f8",    48),
        Field("hvMeshElectron",          "f8",    56),
        Field("hvMeshIon",               "f8",    64),
        Field("hvMultIon",               "f8",    72),
        Field("chargeQ",                 "f8",    80),
        Field("photonEnergy",            "f8",    88),
        Field("multPulseIntensity",      "f8",    96),
        Field("keithleyPulseIntensity",  "f8",   104),
        Field("pulseEnergy",             "f8",   112),
        Field("pulseEnergyFEE",          "f8",   120),
        Field("transmission",            "f8",   128),
        Field("transmissionFEE",         "f8",   136),
        Hidden("_fSpare6",               "f8",   144),
    ),
    size=152,
)
BLD_GMD_V1 = Record(
    "Bld.BldDataGMDV1",
    (
        Field("milliJoulesPerPulse",     "f8",     0, unit="mJ"),
        Field("milliJoulesAverage",      "f8",     8, unit="mJ"),
        Field("correctedSumPerPulse",    "f8",    16),
        Field("bgValuePerSample",        "f8",    24),
        Field("relativeEnergyPerPulse",  "f8",    32, unit="arb."),
        Hidden("_fSpare1",               "f8",    40),
    ),
    size=48,
)
BLD_GMD_V2 = Record(
    "Bld.BldDataGMDV2",
    (
        Field("milliJoulesPerPulse",     "f8",     0, unit="mJ"),
        Field("milliJoulesAverage",      "f8",     8, unit="mJ"),
        Field("sumAllPeaksFiltBkgd",     "f8",    16),
        Field("rawAvgBkgd",              "f8",    24),
        Field("relativeEnergyPerPulse",  "f8",    32, unit="arb."),
        Field("sumAllPeaksRawBkgd",      "f8",    40),
    ),
    size=48,
)
BLD_ACQ_ADC_V1 = Record(
    "Bld.BldDataAcqADCV1",
    (
        Field("config",  ACQIRIS_CONFIG_V1,   0),
        Field("data",    ACQIRIS_DATA_DESC_V1, 536),
    ),
    inner_config="config",
)
BLD_SPECTROMETER_V0 = Record(
    "Bld.BldDataSpectrometerV0",
    (
        Array("hproj",  "u4",     0, (1024,)),
        Array("vproj",  "u4",  4096, (256,)),
    ),
    size=5120,
)
BLD_SPECTROMETER_V1 = Record(
    "Bld.BldDataSpectrometerV1",
    (
        Field("width",       "u4",     0),
        Field("hproj_y1",    "u4",     4),
        Field("hproj_y2",    "u4",     8),
        Field("comRaw",      "f8",    12),
        Field("baseline",    "f8",    20),
        Field("com",         "f8",    28),
        Field("integral",    "f8",    36),
        Field("nPeaks",      "u4",    44),
        Array("hproj",       "i4",    48, ("width",)),
        Array("peakPos",     "f8",  None, ("n_peaks",)),
        Array("peakHeight",  "f8",  None, ("n_peaks",)),
        Array("FWHM",        "f8",  None, ("n_peaks",), name="peak_fwhm"),
    ),
)
BLD_ANALOG_INPUT_V1 = Record(
    "Bld.BldDataAnalogInputV1",
    (
        Field("numChannels",      "u4",     0),
        Array("channelVoltages",  "f8",     4, ("num_channels",), unit="V"),
    ),
)
BLD_BEAM_MONITOR_V1 = Record(
    "Bld.BldDataBeamMonitorV1",
    (
        Field("TotalIntensity",  "f8",     0, unit="J"),
        Field("X_Position",      "f8",     8, unit="m"),
        Field("Y_Position",      "f8",    16, unit="m"),
        Array("peakA",           "f8",    24, (16,)),
        Array("peakT",           "u2",   152, (16,)),
    ),
    size=184,
)

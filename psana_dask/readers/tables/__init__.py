"""Every LCLS-1 record by (type number, version): which table describes a payload.

The tables are loaded when a type is first met, so opening a run loads only its own.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module

from psana_dask.errors import FormatError
from psana_dask.readers.records import REST, Array, Bytes, Record, View
from psana_dask.readers.tables.names import CONFIG_TYPES, TYPE_NAMES

EPICS = 13
"""Type number of EPICS payloads: the record follows from the dbr type inside."""

# fmt: off
RECORDS = {
    (2, 1): "imagers.CAMERA_FRAME_V1",  # Frame
    (3, 1): "waveforms.ACQIRIS_DATA_DESC_V1",  # AcqWaveform
    (4, 1): "configs_waveforms.ACQIRIS_CONFIG_V1",  # AcqConfig
    (5, 1): "imagers.CAMERA_TWOD_GAUSSIAN_V1",  # TwoDGaussian
    (6, 1): "configs_cameras.OPAL1K_CONFIG_V1",  # Opal1kConfig
    (7, 1): "configs_cameras.CAMERA_FRAME_FEX_CONFIG_V1",  # FrameFexConfig
    (8, 1): "configs_evr.EVR_CONFIG_V1",  # EvrConfig
    (8, 2): "configs_evr.EVR_CONFIG_V2",  # EvrConfig
    (8, 3): "configs_evr.EVR_CONFIG_V3",  # EvrConfig
    (8, 4): "configs_evr.EVR_CONFIG_V4",  # EvrConfig
    (8, 5): "configs_evr.EVR_CONFIG_V5",  # EvrConfig
    (8, 6): "configs_evr.EVR_CONFIG_V6",  # EvrConfig
    (8, 7): "configs_evr.EVR_CONFIG_V7",  # EvrConfig
    (9, 1): "configs_cameras.PULNIX_TM6740_CONFIG_V1",  # TM6740Config
    (9, 2): "configs_cameras.PULNIX_TM6740_CONFIG_V2",  # TM6740Config
    (10, 1): "controls.CONTROL_CONFIG_V1",  # RunControlConfig
    (10, 2): "controls.CONTROL_CONFIG_V2",  # RunControlConfig
    (10, 3): "controls.CONTROL_CONFIG_V3",  # RunControlConfig
    (10, 4): "controls.CONTROL_CONFIG_V4",  # RunControlConfig
    (11, 1): "imagers.PNCCD_FRAMES_V1",  # pnCCDframe
    (12, 1): "configs_ccds.PNCCD_CONFIG_V1",  # pnCCDconfig
    (12, 2): "configs_ccds.PNCCD_CONFIG_V2",  # pnCCDconfig
    (14, 0): "beam.BLD_FEE_GAS_DET_ENERGY",  # FEEGasDetEnergy
    (14, 1): "beam.BLD_FEE_GAS_DET_ENERGY_V1",  # FEEGasDetEnergy
    (15, 0): "beam.BLD_EBEAM_V0",  # EBeamBld
    (15, 1): "beam.BLD_EBEAM_V1",  # EBeamBld
    (15, 2): "beam.BLD_EBEAM_V2",  # EBeamBld
    (15, 3): "beam.BLD_EBEAM_V3",  # EBeamBld
    (15, 4): "beam.BLD_EBEAM_V4",  # EBeamBld
    (15, 5): "beam.BLD_EBEAM_V5",  # EBeamBld
    (15, 6): "beam.BLD_EBEAM_V6",  # EBeamBld
    (15, 7): "beam.BLD_EBEAM_V7",  # EBeamBld
    (16, 0): "beam.BLD_PHASE_CAVITY",  # PhaseCavity
    (16, 1): "beam.BLD_PHASE_CAVITY_V1",  # PhaseCavity
    (17, 1): "imagers.PRINCETON_FRAME_V1",  # PrincetonFrame
    (17, 2): "imagers.PRINCETON_FRAME_V2",  # PrincetonFrame
    (18, 1): "configs_ccds.PRINCETON_CONFIG_V1",  # PrincetonConfig
    (18, 2): "configs_ccds.PRINCETON_CONFIG_V2",  # PrincetonConfig
    (18, 3): "configs_ccds.PRINCETON_CONFIG_V3",  # PrincetonConfig
    (18, 4): "configs_ccds.PRINCETON_CONFIG_V4",  # PrincetonConfig
    (18, 5): "configs_ccds.PRINCETON_CONFIG_V5",  # PrincetonConfig
    (19, 3): "timing.EVR_DATA_V3",  # EvrData
    (19, 4): "timing.EVR_DATA_V4",  # EvrData
    (20, 1): "configs_cameras.CAMERA_FRAME_FCCD_CONFIG_V1",  # FrameFccdConfig
    (21, 1): "configs_ccds.FCCD_CONFIG_V1",  # FccdConfig
    (21, 2): "configs_ccds.FCCD_CONFIG_V2",  # FccdConfig
    (22, 1): "beam.IPIMB_DATA_V1",  # IpimbData
    (22, 2): "beam.IPIMB_DATA_V2",  # IpimbData
    (23, 1): "configs_beam.IPIMB_CONFIG_V1",  # IpimbConfig
    (23, 2): "configs_beam.IPIMB_CONFIG_V2",  # IpimbConfig
    (24, 1): "beam.ENCODER_DATA_V1",  # EncoderData
    (24, 2): "beam.ENCODER_DATA_V2",  # EncoderData
    (25, 1): "configs_beam.ENCODER_CONFIG_V1",  # EncoderConfig
    (25, 2): "configs_beam.ENCODER_CONFIG_V2",  # EncoderConfig
    (26, 1): "configs_evr.EVR_IOCONFIG_V1",  # EvrIOConfig
    (26, 2): "configs_evr.EVR_IOCONFIG_V2",  # EvrIOConfig
    (27, 1): "imagers.PRINCETON_INFO_V1",  # PrincetonInfo
    (28, 1): "imagers.CSPAD_DATA_V1",  # CspadElement
    (28, 2): "imagers.CSPAD_DATA_V2",  # CspadElement
    (29, 1): "configs_cspad.CSPAD_CONFIG_V1",  # CspadConfig
    (29, 2): "configs_cspad.CSPAD_CONFIG_V2",  # CspadConfig
    (29, 3): "configs_cspad.CSPAD_CONFIG_V3",  # CspadConfig
    (29, 4): "configs_cspad.CSPAD_CONFIG_V4",  # CspadConfig
    (29, 5): "configs_cspad.CSPAD_CONFIG_V5",  # CspadConfig
    (30, 1): "configs_beam.LUSI_IPM_FEX_CONFIG_V1",  # IpmFexConfig
    (30, 2): "configs_beam.LUSI_IPM_FEX_CONFIG_V2",  # IpmFexConfig
    (31, 1): "beam.LUSI_IPM_FEX_V1",  # IpmFex
    (32, 1): "configs_beam.LUSI_DIODE_FEX_CONFIG_V1",  # DiodeFexConfig
    (32, 2): "configs_beam.LUSI_DIODE_FEX_CONFIG_V2",  # DiodeFexConfig
    (33, 1): "beam.LUSI_DIODE_FEX_V1",  # DiodeFex
    (34, 1): "configs_beam.LUSI_PIM_IMAGE_CONFIG_V1",  # PimImageConfig
    (35, 0): "beam.BLD_IPIMB_V0",  # SharedIpimb
    (35, 1): "beam.BLD_IPIMB_V1",  # SharedIpimb
    (36, 1): "configs_waveforms.ACQIRIS_TDC_CONFIG_V1",  # AcqTDCConfig
    (37, 1): "waveforms.ACQIRIS_TDC_DATA_V1",  # AcqTDCData
    (41, 1): "imagers.CSPAD2X2_ELEMENT_V1",  # Cspad2x2Element
    (42, 1): "beam.BLD_PIM_V1",  # SharedPIM
    (43, 1): "configs_cspad.CSPAD2X2_CONFIG_V1",  # Cspad2x2Config
    (43, 2): "configs_cspad.CSPAD2X2_CONFIG_V2",  # Cspad2x2Config
    (46, 1): "configs_waveforms.GSC16AI_CONFIG_V1",  # Gsc16aiConfig
    (47, 1): "waveforms.GSC16AI_DATA_V1",  # Gsc16aiData
    (49, 1): "configs_timepix.TIMEPIX_CONFIG_V1",  # TimepixConfig
    (49, 2): "configs_timepix.TIMEPIX_CONFIG_V2",  # TimepixConfig
    (49, 3): "configs_timepix.TIMEPIX_CONFIG_V3",  # TimepixConfig
    (50, 1): "imagers.TIMEPIX_DATA_V1",  # TimepixData
    (50, 2): "imagers.TIMEPIX_DATA_V2",  # TimepixData
    (52, 1): "configs_waveforms.OCEAN_OPTICS_CONFIG_V1",  # OceanOpticsConfig
    (52, 2): "configs_waveforms.OCEAN_OPTICS_CONFIG_V2",  # OceanOpticsConfig
    (53, 1): "waveforms.OCEAN_OPTICS_DATA_V1",  # OceanOpticsData
    (53, 2): "waveforms.OCEAN_OPTICS_DATA_V2",  # OceanOpticsData
    (53, 3): "waveforms.OCEAN_OPTICS_DATA_V3",  # OceanOpticsData
    (54, 1): "epics.EPICS_CONFIG_V1",  # EpicsConfig
    (55, 1): "configs_ccds.FLI_CONFIG_V1",  # FliConfig
    (56, 1): "imagers.FLI_FRAME_V1",  # FliFrame
    (57, 1): "configs_cameras.QUARTZ_CONFIG_V1",  # QuartzConfig
    (57, 2): "configs_cameras.QUARTZ_CONFIG_V2",  # QuartzConfig
    (60, 1): "configs_ccds.ANDOR_CONFIG_V1",  # AndorConfig
    (60, 2): "configs_ccds.ANDOR_CONFIG_V2",  # AndorConfig
    (61, 1): "imagers.ANDOR_FRAME_V1",  # AndorFrame
    (62, 1): "beam.USDUSB_DATA_V1",  # UsdUsbData
    (63, 1): "configs_beam.USDUSB_CONFIG_V1",  # UsdUsbConfig
    (64, 0): "beam.BLD_GMD_V0",  # GMD
    (64, 1): "beam.BLD_GMD_V1",  # GMD
    (64, 2): "beam.BLD_GMD_V2",  # GMD
    (65, 1): "beam.BLD_ACQ_ADC_V1",  # SharedAcqADC
    (66, 1): "configs_cameras.ORCA_CONFIG_V1",  # OrcaConfig
    (67, 1): "waveforms.IMP_ELEMENT_V1",  # ImpData
    (68, 1): "configs_waveforms.IMP_CONFIG_V1",  # ImpConfig
    (69, 1): "controls.ALIAS_CONFIG_V1",  # AliasConfig
    (70, 1): "configs_timing.L3T_CONFIG_V1",  # L3TConfig
    (71, 1): "timing.L3T_DATA_V1",  # L3TData
    (71, 2): "timing.L3T_DATA_V2",  # L3TData
    (72, 0): "beam.BLD_SPECTROMETER_V0",  # Spectrometer
    (72, 1): "beam.BLD_SPECTROMETER_V1",  # Spectrometer
    (73, 1): "configs_cameras.RAYONIX_CONFIG_V1",  # RayonixConfig
    (73, 2): "configs_cameras.RAYONIX_CONFIG_V2",  # RayonixConfig
    (74, 1): "configs_epix.EPIX_CONFIG_V1",  # EpixConfig
    (75, 1): "imagers.EPIX_ELEMENT_V1",  # EpixElement
    (75, 2): "imagers.EPIX_ELEMENT_V2",  # EpixElement
    (75, 3): "imagers.EPIX_ELEMENT_V3",  # EpixElement
    (76, 1): "configs_waveforms.EPIX_SAMPLER_CONFIG_V1",  # EpixSamplerConfig
    (77, 1): "waveforms.EPIX_SAMPLER_ELEMENT_V1",  # EpixSamplerElement
    (78, 1): "configs_evr.EVR_SRC_CONFIG_V1",  # EvsConfig
    (79, 1): "controls.PARTITION_CONFIG_V1",  # PartitionConfig
    (79, 2): "controls.PARTITION_CONFIG_V2",  # PartitionConfig
    (80, 1): "configs_ccds.PIMAX_CONFIG_V1",  # PimaxConfig
    (81, 1): "imagers.PIMAX_FRAME_V1",  # PimaxFrame
    (82, 1): "waveforms.ARRAYCHAR_DATA_V1",  # Arraychar
    (83, 1): "configs_epix.EPIX_CONFIG10K_V1",  # Epix10kConfig
    (84, 1): "configs_epix.EPIX_CONFIG100A_V1",  # Epix100aConfig
    (84, 2): "configs_epix.EPIX_CONFIG100A_V2",  # Epix100aConfig
    (85, 1): "configs_waveforms.GENERIC_PGP_CONFIG_V1",  # GenericPgpConfig
    (86, 1): "configs_timing.TIMETOOL_CONFIG_V1",  # TimeToolConfig
    (86, 2): "configs_timing.TIMETOOL_CONFIG_V2",  # TimeToolConfig
    (86, 3): "configs_timing.TIMETOOL_CONFIG_V3",  # TimeToolConfig
    (87, 1): "timing.TIMETOOL_DATA_V1",  # TimeToolData
    (87, 2): "timing.TIMETOOL_DATA_V2",  # TimeToolData
    (87, 3): "timing.TIMETOOL_DATA_V3",  # TimeToolData
    (88, 1): "configs_epix.EPIX_CONFIG_S_V1",  # EpixSConfig
    (89, 1): "controls.SMLDATA_CONFIG_V1",  # SmlDataConfig
    (90, 1): "controls.SMLDATA_ORIG_DGRAM_OFFSET_V1",  # SmlDataOrigDgramOffset
    (91, 1): "controls.SMLDATA_PROXY_V1",  # SmlDataProxy
    (94, 1): "beam.BLD_ANALOG_INPUT_V1",  # AnalogInput
    (96, 1): "configs_ccds.ANDOR3D_CONFIG_V1",  # Andor3dConfig
    (97, 1): "imagers.ANDOR3D_FRAME_V1",  # Andor3dFrame
    (98, 1): "beam.BLD_BEAM_MONITOR_V1",  # BeamMonitorBldData
    (99, 0): "configs_waveforms.GENERIC1D_CONFIG_V0",  # Generic1DConfig
    (100, 0): "waveforms.GENERIC1D_DATA_V0",  # Generic1DData
    (101, 1): "configs_beam.USDUSB_FEX_CONFIG_V1",  # UsdUsbFexConfig
    (102, 1): "beam.USDUSB_FEX_DATA_V1",  # UsdUsbFexData
    (103, 0): "beam.BLD_EORBITS_V0",  # EOrbits
    (104, 1): "beam.BLD_USDUSB_V1",  # SharedUsdUsb
    (105, 1): "configs_cameras.CAMERA_CONTROLS_CAMERA_CONFIG_V1",  # ControlsCameraConfig
    (106, 1): "configs_fast.ARCHON_CONFIG_V1",  # ArchonConfig
    (106, 2): "configs_fast.ARCHON_CONFIG_V2",  # ArchonConfig
    (106, 3): "configs_fast.ARCHON_CONFIG_V3",  # ArchonConfig
    (106, 4): "configs_fast.ARCHON_CONFIG_V4",  # ArchonConfig
    (107, 1): "configs_fast.JUNGFRAU_CONFIG_V1",  # JungfrauConfig
    (107, 2): "configs_fast.JUNGFRAU_CONFIG_V2",  # JungfrauConfig
    (107, 3): "configs_fast.JUNGFRAU_CONFIG_V3",  # JungfrauConfig
    (107, 4): "configs_fast.JUNGFRAU_CONFIG_V4",  # JungfrauConfig
    (108, 1): "imagers.JUNGFRAU_ELEMENT_V1",  # JungfrauElement
    (108, 2): "imagers.JUNGFRAU_ELEMENT_V2",  # JungfrauElement
    (109, 0): "configs_waveforms.QUADADC_CONFIG_V1",  # QuadAdcConfig
    (110, 1): "configs_cameras.ZYLA_CONFIG_V1",  # ZylaConfig
    (111, 1): "imagers.ZYLA_FRAME_V1",  # ZylaFrame
    (112, 1): "configs_epix.EPIX_CONFIG10KA_V1",  # Epix10kaConfig
    (112, 2): "configs_epix.EPIX_CONFIG10KA_V2",  # Epix10kaConfig
    (113, 1): "configs_ccds.PIXIS_CONFIG_V1",  # PixisConfig
    (114, 1): "imagers.PIXIS_FRAME_V1",  # PixisFrame
    (115, 1): "configs_fast.UXI_CONFIG_V1",  # UxiConfig
    (115, 2): "configs_fast.UXI_CONFIG_V2",  # UxiConfig
    (115, 3): "configs_fast.UXI_CONFIG_V3",  # UxiConfig
    (115, 4): "configs_fast.UXI_CONFIG_V4",  # UxiConfig
    (116, 1): "imagers.UXI_FRAME_V1",  # UxiFrame
    (117, 1): "configs_epix.EPIX_CONFIG10KA2_M_V1",  # Epix10ka2MConfig
    (117, 2): "configs_epix.EPIX_CONFIG10KA2_M_V2",  # Epix10ka2MConfig
    (118, 1): "imagers.EPIX_ARRAY_V1",  # Epix10kaArray
    (119, 1): "configs_fast.STREAK_CONFIG_V1",  # StreakConfig
    (120, 1): "configs_epix.EPIX_CONFIG10KA_QUAD_V1",  # Epix10kaQuadConfig
    (120, 2): "configs_epix.EPIX_CONFIG10KA_QUAD_V2",  # Epix10kaQuadConfig
    (121, 1): "configs_cameras.ISTAR_CONFIG_V1",  # iStarConfig
    (122, 1): "configs_cameras.VIMBA_ALVIUM_CONFIG_V1",  # AlviumConfig
    (123, 1): "imagers.VIMBA_FRAME_V1",  # VimbaFrame
}
"""(type number, version) -> table and record."""

EPICS_RECORDS = {
    14: "epics.EPICS_PV_TIME_STRING",
    15: "epics.EPICS_PV_TIME_SHORT",
    16: "epics.EPICS_PV_TIME_FLOAT",
    17: "epics.EPICS_PV_TIME_ENUM",
    18: "epics.EPICS_PV_TIME_CHAR",
    19: "epics.EPICS_PV_TIME_LONG",
    20: "epics.EPICS_PV_TIME_DOUBLE",
    28: "epics.EPICS_PV_CTRL_STRING",
    29: "epics.EPICS_PV_CTRL_SHORT",
    30: "epics.EPICS_PV_CTRL_FLOAT",
    31: "epics.EPICS_PV_CTRL_ENUM",
    32: "epics.EPICS_PV_CTRL_CHAR",
    33: "epics.EPICS_PV_CTRL_LONG",
    34: "epics.EPICS_PV_CTRL_DOUBLE",
}
"""dbr type (int16 at byte 2 of an EPICS payload) -> table and record."""
# fmt: on


def record_for(type_id: int, version: int, payload: Bytes | None = None) -> Record:
    """Return the record of a payload; for what no table knows, one that keeps the bytes.

    Parameters
    ----------
    type_id, version : int
        From the type word, without the compression bit.
    payload : ndarray of uint8, optional
        Needed for EPICS, whose record depends on the dbr type in the payload.
    """
    if type_id == EPICS and version == 1:
        dbr = -1 if payload is None or len(payload) < 4 else int.from_bytes(payload[2:4].tobytes(), "little")
        place = EPICS_RECORDS.get(dbr)
        return load(place) if place else opaque(f"EPICS dbr type {dbr}")
    place = RECORDS.get((type_id, version))
    return load(place) if place else opaque(f"{type_name(type_id)} version {version}")


@cache
def load(place: str) -> Record:
    """Return the record at ``"table.NAME"``."""
    module, name = place.split(".")
    record: Record = getattr(import_module(f"{__name__}.{module}"), name)
    return record


@cache
def _by_title() -> dict[str, Record]:
    """Return every record of every table by its title, nested ones included."""
    waiting = [load(place) for place in (*RECORDS.values(), *EPICS_RECORDS.values())]
    found: dict[str, Record] = {}
    while waiting:
        record = waiting.pop()
        if record.title not in found:
            found[record.title] = record
            waiting += [field.record for field in record.fields if field.record is not None]
    return found


def record_of(title: str) -> Record | None:
    """Return the record with a title, as ``Bld.BldDataEBeamV7``; None if no table has it."""
    if title.startswith(_UNKNOWN):
        return opaque(title.removeprefix(_UNKNOWN))
    return _by_title().get(title)


_UNKNOWN = "Unknown."


def titles() -> list[str]:
    """Return the names of all records, as the facility's libraries have them."""
    return sorted(_by_title())


@cache
def opaque(what: str) -> Record:
    """Return a record for a type that no table knows: its only value is `bytes`."""
    return Record(_UNKNOWN + what, (Array("bytes", "u1", 0, (REST,)),), align=1)


def is_known(record: Record) -> bool:
    """Tell whether a table describes the record."""
    return not record.title.startswith(_UNKNOWN)


def type_name(type_id: int) -> str:
    """Return the DAQ's name of a type number."""
    return TYPE_NAMES[type_id] if 0 <= type_id < len(TYPE_NAMES) else f"type {type_id}"


def is_config(type_id: int) -> bool:
    """Tell whether a type is a configuration record (it describes later events)."""
    return type_id in CONFIG_TYPES


@cache
def config_keys(record: Record) -> tuple[tuple[int, int], ...]:
    """Return the (type, version) pairs of the configurations that the record may need, in order of search."""
    titles = {load(place).title: key for key, place in RECORDS.items()}
    return tuple(titles[title] for title in record.configs)


def decode(type_id: int, version: int, payload: Bytes, cfg: View | None = None) -> View:
    """Decode one payload.

    Parameters
    ----------
    type_id, version : int
        From the type word, without the compression bit.
    payload : ndarray of uint8
        Uncompressed.
    cfg : View, optional
        The configuration of the same source, for records that need it (`config_keys`).

    Raises
    ------
    FormatError
        If the payload is shorter than its layout, or a needed configuration is missing.
    """
    record = record_for(type_id, version, payload)
    if record.configs and cfg is None:
        raise FormatError(f"{record.title} needs a configuration: {' or '.join(record.configs)}")
    return record.view(payload, cfg=cfg)

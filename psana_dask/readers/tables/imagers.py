"""Area detectors, event data: frames, quads, links and elements."""

from __future__ import annotations

from typing import Any

import numpy as np

from psana_dask.errors import FormatError
from psana_dask.readers.records import Array, Bits, Derived, Field, Hidden, Method, Record
from psana_dask.readers.tables.common import constant


def _depth_bytes(r: Any) -> Any:
    return (r.depth + 7) // 8


def _sections_read(r: Any) -> Any:
    return r.cfg.num_asics_read // 2


def _sections_of_asics(r: Any) -> Any:
    return 3 if ((r.cfg.asic_mask & 15) == 1) else 255


def _sections_stored(r: Any) -> Any:
    return r.cfg.num_asics_stored(r.quad) // 2


def _sections_of_roi(r: Any) -> Any:
    return r.cfg.roi_mask(r.quad)


def _word_columns(r: Any) -> Any:
    return r.cfg.number_of_columns >> 1


def _link_words(r: Any) -> Any:
    return (r.cfg.payload_size_per_link - 16) // 2


def _num_links(r: Any) -> Any:
    return r.cfg.num_links


def _data_size(r: Any) -> Any:
    return (r.width * r.height) * r.depth_bytes


def flat_pixel_bytes(r: Any) -> Any:
    """Return the stored bytes of a frame in one row."""
    return r.pixel_bytes.reshape(*r.pixel_bytes.shape[:-3], -1)


def pixels_of_8_bits(r: Any) -> Any:
    """Return the frame as (height, width) if it is stored in bytes, else (0, 0) as psana does."""
    return r.pixel_bytes[..., 0] if r.pixel_bytes.shape[-1] == 1 else _no_frame(r, "u1")


def pixels_of_16_bits(r: Any) -> Any:
    """Return the frame as (height, width) if it is stored in 16-bit words, else (0, 0) as psana does."""
    depth = r.pixel_bytes.shape[-1]
    if depth == 1:
        return _no_frame(r, "<u2")
    if depth == 2:
        return r.pixel_bytes.view("<u2")[..., 0]
    shape = r.pixel_bytes.shape[:-1]  # of deeper pixels psana takes the first words
    return flat_pixel_bytes(r)[..., : 2 * shape[-1] * shape[-2]].view("<u2").reshape(shape)


def _no_frame(r: Any, dtype: str) -> Any:
    return np.empty((*r.pixel_bytes.shape[:-3], 0, 0), dtype)


def frame_pixels(r: Any) -> Any:
    """Return the frame as (height, width), in as many bits as it is stored; 24-bit pixels as bytes."""
    types = {1: "u1", 2: "<u2", 4: "<u4", 8: "<u8"}
    depth = r.pixel_bytes.shape[-1]
    return r.pixel_bytes.view(types[depth])[..., 0] if depth in types else r.pixel_bytes


def no_common_mode(r: Any, section: int) -> float:
    """Return 0.0: the DAQ never stored a common mode, the accessor exists for old programs."""
    return 0.0


def link_pixels(r: Any) -> Any:
    """Return the 512 x 512 pixels that one link of a pnCCD reads."""
    if r.words.shape[-1] != 512 * 512:
        raise FormatError(f"a pnCCD link of {r.words.shape[-1]} pixels, not 512 x 512")
    return r.words.reshape(*r.words.shape[:-1], 512, 512)


CAMERA_FRAME_COORD = Record(
    "Camera.FrameCoord",
    (
        Field("column",  "u2",     0),
        Field("row",     "u2",     2),
    ),
    size=4,
)
CAMERA_FRAME_V1 = Record(
    "Camera.FrameV1",
    (
        Field("width",            "u4",     0),
        Field("height",           "u4",     4),
        Field("depth",            "u4",     8, unit="bit"),
        Field("offset",           "u4",    12),
        Array("pixelBytes",       "u1",    16, ("height", "width", _depth_bytes)),
    ),
    derived=(
        Derived("_int_pixel_data", "u1", flat_pixel_bytes),
        Derived("data8", "u1", pixels_of_8_bits),
        Derived("data16", "u2", pixels_of_16_bits),
        Derived("pixels", "object", frame_pixels),
        Derived("depth_bytes", "u4", _depth_bytes),
    ),
)
CAMERA_TWOD_GAUSSIAN_V1 = Record(
    "Camera.TwoDGaussianV1",
    (
        Field("integral",          "u8",     0),
        Field("xmean",             "f8",     8),
        Field("ymean",             "f8",    16),
        Field("major_axis_width",  "f8",    24),
        Field("minor_axis_width",  "f8",    32),
        Field("major_axis_tilt",   "f8",    40),
    ),
    size=48,
)
CSPAD_ELEMENT_V1 = Record(
    "CsPad.ElementV1",
    (
        Hidden("_word0",     "u4",     0, bits=(
            Bits("virtual_channel", 0, 2), Bits("lane", 6, 2), Bits("tid", 8, 24),
        )),
        Hidden("_word1",     "u4",     4, bits=(
            Bits("acq_count", 0, 16), Bits("op_code", 16, 8), Bits("quad", 24, 2),
        )),
        Field("seq_count",   "u4",     8),
        Field("ticks",       "u4",    12),
        Field("fiducials",   "u4",    16),
        Array("sb_temp",     "u2",    20, (4,)),
        Field("frame_type",  "u4",    28),
        Array("data",        "i2",    32, (_sections_read, 185, 388)),
        Hidden("_extra",     "u2",  None, (2,)),
    ),
    derived=(
        Derived("sectionMask", "u4", _sections_of_asics),
        Method("common_mode", no_common_mode),
    ),
    configs=("CsPad.ConfigV1", "CsPad.ConfigV2", "CsPad.ConfigV3", "CsPad.ConfigV4", "CsPad.ConfigV5"),
)
CSPAD_DATA_V1 = Record(
    "CsPad.DataV1",
    (
        Array("quads",  CSPAD_ELEMENT_V1,   0, ("cfg.num_quads",)),
    ),
    configs=("CsPad.ConfigV1", "CsPad.ConfigV2", "CsPad.ConfigV3", "CsPad.ConfigV4", "CsPad.ConfigV5"),
)
CSPAD_ELEMENT_V2 = Record(
    "CsPad.ElementV2",
    (
        *CSPAD_ELEMENT_V1.before("data"),
        Array("data",    "i2",    32, (_sections_stored, 185, 388)),
        Hidden("_extra", "u2",  None, (2,)),
    ),
    derived=(
        Derived("sectionMask", "u4", _sections_of_roi),
        Method("common_mode", no_common_mode),
    ),
    configs=("CsPad.ConfigV2", "CsPad.ConfigV3", "CsPad.ConfigV4", "CsPad.ConfigV5"),
)
CSPAD_DATA_V2 = Record(
    "CsPad.DataV2",
    (
        Array("quads",  CSPAD_ELEMENT_V2,   0, ("cfg.num_quads",)),
    ),
    configs=("CsPad.ConfigV2", "CsPad.ConfigV3", "CsPad.ConfigV4", "CsPad.ConfigV5"),
)
CSPAD2X2_ELEMENT_V1 = Record(
    "CsPad2x2.ElementV1",
    (
        Hidden("_word0",     "u4",     0, bits=(
            Bits("virtual_channel", 0, 2), Bits("lane", 6, 2), Bits("tid", 8, 24),
        )),
        Hidden("_word1",     "u4",     4, bits=(
            Bits("acq_count", 0, 16), Bits("op_code", 16, 8), Bits("quad", 24, 2),
        )),
        Field("seq_count",   "u4",     8),
        Field("ticks",       "u4",    12),
        Field("fiducials",   "u4",    16),
        Array("sb_temp",     "u2",    20, (4,)),
        Field("frame_type",  "u4",    28),
        Array("data",        "i2",    32, (185, 388, 2)),
    ),
    derived=(
        Method("common_mode", no_common_mode),
    ),
)
EPIX_ELEMENT_V1 = Record(
    "Epix.ElementV1",
    (
        Hidden("_first",       "u4",     0, bits=(Bits("vc", 0, 2), Bits("lane", 6, 2))),
        Hidden("_second",      "u4",     4, bits=(Bits("acqCount", 0, 16),)),
        Field("frameNumber",   "u4",     8),
        Field("ticks",         "u4",    12),
        Field("fiducials",     "u4",    16),
        Hidden("_z0",          "u4",    20),
        Hidden("_z1",          "u4",    24),
        Hidden("_z2",          "u4",    28),
        Array("frame",         "u2",    32, ("cfg.number_of_rows", "cfg.number_of_columns")),
        Array("excludedRows",  "u2",  None, ("cfg.last_row_exclusions", "cfg.number_of_columns")),
        Array("temperatures",  "u2",  None, ("cfg.number_of_asics",)),
        Field("lastWord",      "u4",  None),
    ),
    align=2,
    configs=("Epix.ConfigV1", "Epix.Config10KV1", "GenericPgp.ConfigV1"),
)
EPIX_ELEMENT_V2 = Record(
    "Epix.ElementV2",
    (
        *EPIX_ELEMENT_V1.before("frame"),
        Array("frame",              "u2",    32, ("cfg.number_of_readable_rows", "cfg.number_of_columns")),
        Array("calibrationRows",    "u2",  None, ("cfg.number_of_calibration_rows",
            "cfg.number_of_columns")),
        Array("environmentalRows",  "u2",  None, ("cfg.number_of_environmental_rows",
            "cfg.number_of_columns")),
        Array("temperatures",       "u2",  None, ("cfg.number_of_asics",)),
        Field("lastWord",           "u4",  None),
    ),
    align=2,
    configs=("Epix.Config100aV1", "Epix.Config100aV2", "Epix.ConfigSV1"),
)
EPIX_ELEMENT_V3 = Record(
    "Epix.ElementV3",
    (
        *EPIX_ELEMENT_V2.before("environmentalRows"),
        Array("environmentalRows",  "u4",  None, ("cfg.number_of_environmental_rows", _word_columns)),
        Array("temperatures",       "u2",  None, ("cfg.number_of_asics",)),
        Field("lastWord",           "u4",  None),
    ),
    align=2,
    configs=(
        "Epix.Config100aV1",
        "Epix.Config100aV2",
        "Epix.ConfigSV1",
        "Epix.Config10kaV1",
        "Epix.Config10kaV2",
    ),
)
EPIX_ARRAY_V1 = Record(
    "Epix.ArrayV1",
    (
        Field("frameNumber",        "u4",     0),
        Array("frame",              "u2",     4, ("cfg.number_of_elements",
            "cfg.number_of_readable_rows", "cfg.number_of_columns")),
        Array("calibrationRows",    "u2",  None, ("cfg.number_of_elements",
            "cfg.number_of_calibration_rows", "cfg.number_of_columns")),
        Array("environmentalRows",  "u4",  None, ("cfg.number_of_elements",
            "cfg.number_of_environmental_rows", _word_columns)),
        Array("temperatures",       "u2",  None, ("cfg.number_of_asics",)),
    ),
    configs=("Epix.Config10ka2MV1", "Epix.Config10kaQuadV1", "Epix.Config10ka2MV2", "Epix.Config10kaQuadV2"),
)
JUNGFRAU_MODULE_INFO_V1 = Record(
    "Jungfrau.ModuleInfoV1",
    (
        Field("timestamp",     "u8",     0, unit="100 ns"),
        Field("exposureTime",  "u4",     8),
        Field("moduleID",      "u2",    12),
        Field("xCoord",        "u2",    14),
        Field("yCoord",        "u2",    16),
        Field("zCoord",        "u2",    18),
    ),
    size=20,
)
JUNGFRAU_ELEMENT_V1 = Record(
    "Jungfrau.ElementV1",
    (
        Field("frameNumber",  "u4",     0),
        Field("ticks",        "u4",     4),
        Field("fiducials",    "u4",     8),
        Array("frame",        "u2",    12, ("cfg.number_of_modules", "cfg.number_of_rows_per_module",
            "cfg.number_of_columns_per_module")),
    ),
    align=2,
    configs=("Jungfrau.ConfigV1", "Jungfrau.ConfigV2", "Jungfrau.ConfigV3", "Jungfrau.ConfigV4"),
)
JUNGFRAU_ELEMENT_V2 = Record(
    "Jungfrau.ElementV2",
    (
        Field("frameNumber",  "u8",     0),
        Field("ticks",        "u4",     8),
        Field("fiducials",    "u4",    12),
        Array("moduleInfo",   JUNGFRAU_MODULE_INFO_V1,  16, ("cfg.number_of_modules",)),
        Array("frame",        "u2",  None, ("cfg.number_of_modules", "cfg.number_of_rows_per_module",
            "cfg.number_of_columns_per_module")),
    ),
    align=2,
    configs=("Jungfrau.ConfigV1", "Jungfrau.ConfigV2", "Jungfrau.ConfigV3", "Jungfrau.ConfigV4"),
)
UXI_FRAME_V1 = Record(
    "Uxi.FrameV1",
    (
        Field("acquisitionCount",  "u4",     0),
        Field("timestamp",         "u4",     4),
        Field("temperature",       "f8",     8),
        Array("frames",            "u2",    16, ("cfg.number_of_frames", "cfg.height", "cfg.width")),
    ),
    align=2,
    configs=("Uxi.ConfigV1", "Uxi.ConfigV2", "Uxi.ConfigV3", "Uxi.ConfigV4"),
)
PNCCD_FRAME_V1 = Record(
    "PNCCD.FrameV1",
    (
        Field("specialWord",  "u4",     0),
        Field("frameNumber",  "u4",     4),
        Field("timeStampHi",  "u4",     8),
        Field("timeStampLo",  "u4",    12),
        Array("_data",        "u2",    16, (_link_words,), name="words"),
    ),
    derived=(
        Derived("data", "u2", link_pixels),
    ),
    configs=("PNCCD.ConfigV1", "PNCCD.ConfigV2"),
)
PNCCD_FRAMES_V1 = Record(
    "PNCCD.FramesV1",
    (
        Array("frame",  PNCCD_FRAME_V1,   0, ("cfg.num_links",)),
    ),
    derived=(
        Derived("numLinks", "u4", _num_links),
    ),
    configs=("PNCCD.ConfigV1", "PNCCD.ConfigV2"),
)
PRINCETON_FRAME_V1 = Record(
    "Princeton.FrameV1",
    (
        Field("shotIdStart",  "u4",     0),
        Field("readoutTime",  "f4",     4, unit="s"),
        Array("data",         "u2",     8, ("cfg.num_pixels_y", "cfg.num_pixels_x")),
    ),
    configs=(
        "Princeton.ConfigV1",
        "Princeton.ConfigV2",
        "Princeton.ConfigV3",
        "Princeton.ConfigV4",
        "Princeton.ConfigV5",
    ),
)
PRINCETON_FRAME_V2 = Record(
    "Princeton.FrameV2",
    (
        Field("shotIdStart",  "u4",     0),
        Field("readoutTime",  "f4",     4, unit="s"),
        Field("temperature",  "f4",     8, unit="degC"),
        Array("data",         "u2",    12, ("cfg.num_pixels_y", "cfg.num_pixels_x")),
    ),
    configs=(
        "Princeton.ConfigV1",
        "Princeton.ConfigV2",
        "Princeton.ConfigV3",
        "Princeton.ConfigV4",
        "Princeton.ConfigV5",
    ),
)
PRINCETON_INFO_V1 = Record(
    "Princeton.InfoV1",
    (
        Field("temperature",  "f4",     0, unit="degC"),
    ),
    size=4,
)
PIMAX_FRAME_V1 = Record(
    "Pimax.FrameV1",
    (
        Field("shotIdStart",  "u4",     0),
        Field("readoutTime",  "f4",     4, unit="s"),
        Field("temperature",  "f4",     8, unit="degC"),
        Array("data",         "u2",    12, ("cfg.num_pixels_y", "cfg.num_pixels_x")),
    ),
    configs=("Pimax.ConfigV1",),
)
PIXIS_FRAME_V1 = Record(
    "Pixis.FrameV1",
    (
        Field("shotIdStart",  "u4",     0),
        Field("readoutTime",  "f4",     4, unit="s"),
        Field("temperature",  "f4",     8, unit="degC"),
        Array("data",         "u2",    12, ("cfg.num_pixels_y", "cfg.num_pixels_x")),
    ),
    configs=("Pixis.ConfigV1",),
)
ANDOR_FRAME_V1 = Record(
    "Andor.FrameV1",
    (
        Field("shotIdStart",  "u4",     0),
        Field("readoutTime",  "f4",     4, unit="s"),
        Field("temperature",  "f4",     8, unit="degC"),
        Array("data",         "u2",    12, ("cfg.num_pixels_y", "cfg.num_pixels_x")),
    ),
    configs=("Andor.ConfigV1", "Andor.ConfigV2"),
)
ANDOR3D_FRAME_V1 = Record(
    "Andor3d.FrameV1",
    (
        Field("shotIdStart",  "u4",     0),
        Field("readoutTime",  "f4",     4, unit="s"),
        Array("temperature",  "f4",     8, ("cfg.num_sensors",), unit="degC"),
        Array("data",         "u2",  None, ("cfg.num_sensors", "cfg.num_pixels_y", "cfg.num_pixels_x")),
    ),
    configs=("Andor3d.ConfigV1",),
)
FLI_FRAME_V1 = Record(
    "Fli.FrameV1",
    (
        Field("shotIdStart",  "u4",     0),
        Field("readoutTime",  "f4",     4, unit="s"),
        Field("temperature",  "f4",     8, unit="degC"),
        Array("data",         "u2",    12, ("cfg.num_pixels_y", "cfg.num_pixels_x")),
    ),
    configs=("Fli.ConfigV1",),
)
ZYLA_FRAME_V1 = Record(
    "Zyla.FrameV1",
    (
        Field("timestamp",  "u8",     0),
        Array("data",       "u2",     8, ("cfg.num_pixels_y", "cfg.num_pixels_x")),
    ),
    align=2,
    configs=("Zyla.ConfigV1", "iStar.ConfigV1"),
)
VIMBA_FRAME_V1 = Record(
    "Vimba.FrameV1",
    (
        Field("frameid",    "u8",     0),
        Field("timestamp",  "u8",     8),
        Array("data",       "u2",    16, ("cfg.num_pixels_y", "cfg.num_pixels_x")),
    ),
    align=2,
    configs=("Vimba.AlviumConfigV1",),
)
TIMEPIX_DATA_V1 = Record(
    "Timepix.DataV1",
    (
        Field("timestamp",     "u4",     0),
        Field("frameCounter",  "u2",     4),
        Field("lostRows",      "u2",     6),
        Array("data",          "u2",     8, (512, 512)),
    ),
    size=524296,
    derived=(
        Derived("width", "u4", constant(512)),
        Derived("height", "u4", constant(512)),
        Derived("depth", "u4", constant(14)),
        Derived("depth_bytes", "u4", constant(2)),
        Derived("data_size", "u4", _data_size),
    ),
)
TIMEPIX_DATA_V2 = Record(
    "Timepix.DataV2",
    (
        Field("width",         "u2",     0),
        Field("height",        "u2",     2),
        Field("timestamp",     "u4",     4),
        Field("frameCounter",  "u2",     8),
        Field("lostRows",      "u2",    10),
        Array("data",          "u2",    12, ("height", "width")),
    ),
    derived=(
        Derived("depth", "u4", constant(14)),
        Derived("depth_bytes", "u4", constant(2)),
        Derived("data_size", "u4", _data_size),
    ),
)

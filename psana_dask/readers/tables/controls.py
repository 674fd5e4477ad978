"""Aliases, scan control, partition and small-data records."""

from __future__ import annotations

from typing import Any

from psana_dask.readers.records import Array, Bits, Derived, Field, Hidden, Method, Record
from psana_dask.readers.tables.common import CLOCK_TIME, SOURCE


def _is_array(r: Any) -> Any:
    return r.index != 4294967295


def _num_bld_mask_bits(r: Any) -> Any:
    return r.num_words * 32


def _bld_mask_is_zero(r: Any) -> int:
    return int(not r.bld_mask.any())


def _bld_mask_is_not_zero(r: Any) -> int:
    return int(r.bld_mask.any())


def _bld_mask_has_bit_set(r: Any, bit: int) -> int:
    return int(r.bld_mask[bit >> 5]) & (1 << (bit & 31))


def _bld_mask_has_bit_clear(r: Any, bit: int) -> bool:
    return not _bld_mask_has_bit_set(r, bit)


ALIAS_SRC_ALIAS = Record(
    "Alias.SrcAlias",
    (
        Field("src",        SOURCE,   0),
        Array("aliasName",  "char",   8, (31,)),
        Hidden("_pad1",     "char",  39),
    ),
    size=40,
)
ALIAS_CONFIG_V1 = Record(
    "Alias.ConfigV1",
    (
        Field("numSrcAlias",  "u4",     0),
        Array("srcAlias",     ALIAS_SRC_ALIAS,   4, ("num_src_alias",)),
    ),
)
CONTROL_PVCONTROL = Record(
    "ControlData.PVControl",
    (
        Array("name",   "char",   0, (32,)),
        Field("index",  "u4",    32),
        Field("value",  "f8",    36),
    ),
    size=44,
    derived=(
        Derived("array", "u1", _is_array),
    ),
)
CONTROL_PVCONTROL_V1 = Record(
    "ControlData.PVControlV1",
    (
        Array("name",   "char",   0, (128,)),
        Field("index",  "u4",   128),
        Field("value",  "f8",   132),
    ),
    size=140,
    derived=CONTROL_PVCONTROL.derived,
)
CONTROL_PVMONITOR = Record(
    "ControlData.PVMonitor",
    (
        Array("name",     "char",   0, (32,)),
        Field("index",    "u4",    32),
        Field("loValue",  "f8",    36),
        Field("hiValue",  "f8",    44),
    ),
    size=52,
    derived=CONTROL_PVCONTROL.derived,
)
CONTROL_PVMONITOR_V1 = Record(
    "ControlData.PVMonitorV1",
    (
        Array("name",     "char",   0, (128,)),
        Field("index",    "u4",   128),
        Field("loValue",  "f8",   132),
        Field("hiValue",  "f8",   140),
    ),
    size=148,
    derived=CONTROL_PVCONTROL.derived,
)
CONTROL_PVLABEL = Record(
    "ControlData.PVLabel",
    (
        Array("name",   "char",   0, (32,)),
        Array("value",  "char",  32, (64,)),
    ),
    size=96,
)
CONTROL_PVLABEL_V1 = Record(
    "ControlData.PVLabelV1",
    (
        Array("name",   "char",   0, (128,)),
        Array("value",  "char", 128, (256,)),
    ),
    size=384,
)
CONTROL_CONFIG_V1 = Record(
    "ControlData.ConfigV1",
    (
        Hidden("_control",    "u4",     0, bits=(
            Bits("events", 0, 30), Bits("uses_duration", 30, 1), Bits("uses_events", 31, 1),
        )),
        Hidden("_reserved",   "u4",     4),
        Field("duration",     CLOCK_TIME,   8),
        Field("npvControls",  "u4",    16),
        Field("npvMonitors",  "u4",    20),
        Array("pvControls",   CONTROL_PVCONTROL,  24, ("npv_controls",)),
        Array("pvMonitors",   CONTROL_PVMONITOR, None, ("npv_monitors",)),
    ),
)
CONTROL_CONFIG_V2 = Record(
    "ControlData.ConfigV2",
    (
        *CONTROL_CONFIG_V1.before("pvControls"),
        Field("npvLabels",   "u4",    24),
        Array("pvControls",  CONTROL_PVCONTROL,  28, ("npv_controls",)),
        Array("pvMonitors",  CONTROL_PVMONITOR, None, ("npv_monitors",)),
        Array("pvLabels",    CONTROL_PVLABEL, None, ("npv_labels",)),
    ),
)
CONTROL_CONFIG_V3 = Record(
    "ControlData.ConfigV3",
    (
        Hidden("_control",    "u4",     0, bits=(
            Bits("events", 0, 29), Bits("uses_l3t_events", 29, 1), Bits("uses_duration", 30, 1),
            Bits("uses_events", 31, 1),
        )),
        Hidden("_reserved",   "u4",     4),
        Field("duration",     CLOCK_TIME,   8),
        Field("npvControls",  "u4",    16),
        Field("npvMonitors",  "u4",    20),
        Field("npvLabels",    "u4",    24),
        Array("pvControls",   CONTROL_PVCONTROL,  28, ("npv_controls",)),
        Array("pvMonitors",   CONTROL_PVMONITOR, None, ("npv_monitors",)),
        Array("pvLabels",     CONTROL_PVLABEL, None, ("npv_labels",)),
    ),
)
CONTROL_CONFIG_V4 = Record(
    "ControlData.ConfigV4",
    (
        *CONTROL_CONFIG_V3.before("pvControls"),
        Array("pvControls",  CONTROL_PVCONTROL_V1,  28, ("npv_controls",)),
        Array("pvMonitors",  CONTROL_PVMONITOR_V1, None, ("npv_monitors",)),
        Array("pvLabels",    CONTROL_PVLABEL_V1, None, ("npv_labels",)),
    ),
)
PARTITION_SOURCE = Record(
    "Partition.Source",
    (
        Field("src",    SOURCE,   0),
        Field("group",  "u4",     8),
    ),
    size=12,
)
PARTITION_CONFIG_V1 = Record(
    "Partition.ConfigV1",
    (
        Field("bldMask",     "u8",     0),
        Field("numSources",  "u4",     8),
        Array("sources",     PARTITION_SOURCE,  12, ("num_sources",)),
    ),
    align=8,
)
PARTITION_CONFIG_V2 = Record(
    "Partition.ConfigV2",
    (
        Field("numWords",    "u4",     0, name="num_words"),
        Field("numSources",  "u4",     4),
        Array("bldMask",     "u4",     8, ("num_words",)),
        Array("sources",     PARTITION_SOURCE, None, ("num_sources",)),
    ),
    derived=(
        Derived("numBldMaskBits", "u4", _num_bld_mask_bits),
        Derived("bldMaskIsZero", "u4", _bld_mask_is_zero),
        Derived("bldMaskIsNotZero", "u4", _bld_mask_is_not_zero),
        Method("bldMaskHasBitSet", _bld_mask_has_bit_set),
        Method("bldMaskHasBitClear", _bld_mask_has_bit_clear),
    ),
)
SMLDATA_CONFIG_V1 = Record(
    "SmlData.ConfigV1",
    (
        Field("sizeThreshold",  "u4",     0),
    ),
    size=4,
)
SMLDATA_ORIG_DGRAM_OFFSET_V1 = Record(
    "SmlData.OrigDgramOffsetV1",
    (
        Field("fileOffset",  "i8",     0),
        Field("extent",      "u4",     8),
    ),
    size=12,
)
SMLDATA_PROXY_V1 = Record(
    "SmlData.ProxyV1",
    (
        Field("fileOffset",  "i8",     0),
        Field("type",        "u4",     8),
        Field("extent",      "u4",    12),
    ),
    size=16,
)

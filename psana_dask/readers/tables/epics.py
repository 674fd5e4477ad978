"""EPICS process variables: CTRL records in Configure, TIME records in events."""

from __future__ import annotations

from typing import Any

from psana_dask.readers.records import Array, Derived, Field, Hidden, Method, Record


def _dbr_status(r: Any) -> Any:
    return r.dbr.status


def _dbr_severity(r: Any) -> Any:
    return r.dbr.severity


def _dbr_stamp(r: Any) -> Any:
    return r.dbr.stamp


def _is_ctrl(r: Any) -> Any:
    return (r.dbr_type >= 28) & (r.dbr_type <= 34)


def _is_time(r: Any) -> Any:
    return (r.dbr_type >= 14) & (r.dbr_type <= 20)


def _element(r: Any, index: int) -> Any:
    value = r.data[index]
    return value if isinstance(value, str) else value.item()


EPICS_TIME_STAMP = Record(
    "Epics.epicsTimeStamp",
    (
        Field("sec",   "u4",     0, unit="s since 1990-01-01"),
        Field("nsec",  "u4",     4, unit="ns"),
    ),
    size=8,
)
EPICS_DBR_TIME_STRING = Record(
    "Epics.dbr_time_string",
    (
        Field("status",    "i2",     0),
        Field("severity",  "i2",     2),
        Field("stamp",     EPICS_TIME_STAMP,   4),
    ),
    size=12,
)
EPICS_DBR_TIME_SHORT = Record(
    "Epics.dbr_time_short",
    (
        *EPICS_DBR_TIME_STRING.fields,
        Hidden("RISC_pad", "i2",    12),
    ),
    size=14,
)
EPICS_DBR_TIME_FLOAT = Record(
    "Epics.dbr_time_float",
    EPICS_DBR_TIME_STRING.fields,
    size=12,
)
EPICS_DBR_TIME_ENUM = Record(
    "Epics.dbr_time_enum",
    EPICS_DBR_TIME_SHORT.fields,
    size=14,
)
EPICS_DBR_TIME_CHAR = Record(
    "Epics.dbr_time_char",
    (
        *EPICS_DBR_TIME_FLOAT.fields,
        Hidden("RISC_pad0", "i2",    12),
        Hidden("RISC_pad1", "u1",    14),
    ),
    size=15,
)
EPICS_DBR_TIME_LONG = Record(
    "Epics.dbr_time_long",
    EPICS_DBR_TIME_FLOAT.fields,
    size=12,
)
EPICS_DBR_TIME_DOUBLE = Record(
    "Epics.dbr_time_double",
    (
        *EPICS_DBR_TIME_LONG.fields,
        Hidden("RISC_pad", "i4",    12),
    ),
    size=16,
)
EPICS_DBR_STS_STRING = Record(
    "Epics.dbr_sts_string",
    (
        Field("status",    "i2",     0),
        Field("severity",  "i2",     2),
    ),
    size=4,
)
EPICS_DBR_CTRL_SHORT = Record(
    "Epics.dbr_ctrl_short",
    (
        Field("status",               "i2",     0),
        Field("severity",             "i2",     2),
        Array("units",                "char",   4, (8,)),
        Field("upper_disp_limit",     "i2",    12),
        Field("lower_disp_limit",     "i2",    14),
        Field("upper_alarm_limit",    "i2",    16),
        Field("upper_warning_limit",  "i2",    18),
        Field("lower_warning_limit",  "i2",    20),
        Field("lower_alarm_limit",    "i2",    22),
        Field("upper_ctrl_limit",     "i2",    24),
        Field("lower_ctrl_limit",     "i2",    26),
    ),
    size=28,
)
EPICS_DBR_CTRL_FLOAT = Record(
    "Epics.dbr_ctrl_float",
    (
        Field("status",               "i2",     0),
        Field("severity",             "i2",     2),
        Field("precision",            "i2",     4),
        Hidden("RISC_pad",            "i2",     6),
        Array("units",                "char",   8, (8,)),
        Field("upper_disp_limit",     "f4",    16),
        Field("lower_disp_limit",     "f4",    20),
        Field("upper_alarm_limit",    "f4",    24),
        Field("upper_warning_limit",  "f4",    28),
        Field("lower_warning_limit",  "f4",    32),
        Field("lower_alarm_limit",    "f4",    36),
        Field("upper_ctrl_limit",     "f4",    40),
        Field("lower_ctrl_limit",     "f4",    44),
    ),
    size=48,
)
EPICS_DBR_CTRL_ENUM = Record(
    "Epics.dbr_ctrl_enum",
    (
        Field("status",    "i2",     0),
        Field("severity",  "i2",     2),
        Field("no_str",    "i2",     4),
        Array("strings",   "char",   6, (16, 26)),
    ),
    size=422,
)
EPICS_DBR_CTRL_CHAR = Record(
    "Epics.dbr_ctrl_char",
    (
        *EPICS_DBR_CTRL_SHORT.before("upper_disp_limit"),
        Field("upper_disp_limit",     "u1",    12),
        Field("lower_disp_limit",     "u1",    13),
        Field("upper_alarm_limit",    "u1",    14),
        Field("upper_warning_limit",  "u1",    15),
        Field("lower_warning_limit",  "u1",    16),
        Field("lower_alarm_limit",    "u1",    17),
        Field("upper_ctrl_limit",     "u1",    18),
        Field("lower_ctrl_limit",     "u1",    19),
        Hidden("RISC_pad",            "u1",    20),
    ),
    size=21,
)
EPICS_DBR_CTRL_LONG = Record(
    "Epics.dbr_ctrl_long",
    (
        *EPICS_DBR_CTRL_SHORT.before("upper_disp_limit"),
        Field("upper_disp_limit",     "i4",    12),
        Field("lower_disp_limit",     "i4",    16),
        Field("upper_alarm_limit",    "i4",    20),
        Field("upper_warning_limit",  "i4",    24),
        Field("lower_warning_limit",  "i4",    28),
        Field("lower_alarm_limit",    "i4",    32),
        Field("upper_ctrl_limit",     "i4",    36),
        Field("lower_ctrl_limit",     "i4",    40),
    ),
    size=44,
)
EPICS_DBR_CTRL_DOUBLE = Record(
    "Epics.dbr_ctrl_double",
    (
        *EPICS_DBR_CTRL_FLOAT.before("RISC_pad"),
        Hidden("RISC_pad0",           "i2",     6),
        Array("units",                "char",   8, (8,)),
        Field("upper_disp_limit",     "f8",    16),
        Field("lower_disp_limit",     "f8",    24),
        Field("upper_alarm_limit",    "f8",    32),
        Field("upper_warning_limit",  "f8",    40),
        Field("lower_warning_limit",  "f8",    48),
        Field("lower_alarm_limit",    "f8",    56),
        Field("upper_ctrl_limit",     "f8",    64),
        Field("lower_ctrl_limit",     "f8",    72),
    ),
    size=80,
)
EPICS_PV_CTRL_STRING = Record(
    "Epics.EpicsPvCtrlString",
    (
        Field("pvId",         "i2",     0),
        Field("dbrType",      "i2",     2),
        Field("numElements",  "i2",     4),
        Array("pvName",       "char",   6, (64,)),
        Field("dbr",          EPICS_DBR_STS_STRING,  70),
        Array("data",         "char",  74, ("num_elements", 40)),
    ),
    align=2,
    derived=(
        Derived("isCtrl", "u1", _is_ctrl),
        Derived("isTime", "u1", _is_time),
        Derived("status", "u2", _dbr_status),
        Derived("severity", "u2", _dbr_severity),
        Method("value", _element),
    ),
)
EPICS_PV_CTRL_SHORT = Record(
    "Epics.EpicsPvCtrlShort",
    (
        *EPICS_PV_CTRL_STRING.before("dbr"),
        Field("dbr",   EPICS_DBR_CTRL_SHORT,  70),
        Array("data",  "i2",    98, ("num_elements",)),
    ),
    align=2,
    derived=EPICS_PV_CTRL_STRING.derived,
)
EPICS_PV_CTRL_FLOAT = Record(
    "Epics.EpicsPvCtrlFloat",
    (
        *EPICS_PV_CTRL_STRING.before("dbr"),
        Hidden("pad0", "i2",    70),
        Field("dbr",   EPICS_DBR_CTRL_FLOAT,  72),
        Array("data",  "f4",   120, ("num_elements",)),
    ),
    derived=EPICS_PV_CTRL_STRING.derived,
)
EPICS_PV_CTRL_ENUM = Record(
    "Epics.EpicsPvCtrlEnum",
    (
        *EPICS_PV_CTRL_STRING.before("dbr"),
        Field("dbr",   EPICS_DBR_CTRL_ENUM,  70),
        Array("data",  "u2",   492, ("num_elements",)),
    ),
    align=2,
    derived=EPICS_PV_CTRL_STRING.derived,
)
EPICS_PV_CTRL_CHAR = Record(
    "Epics.EpicsPvCtrlChar",
    (
        *EPICS_PV_CTRL_STRING.before("dbr"),
        Field("dbr",   EPICS_DBR_CTRL_CHAR,  70),
        Array("data",  "u1",    91, ("num_elements",)),
    ),
    align=1,
    derived=EPICS_PV_CTRL_STRING.derived,
)
EPICS_PV_CTRL_LONG = Record(
    "Epics.EpicsPvCtrlLong",
    (
        *EPICS_PV_CTRL_FLOAT.before("dbr"),
        Field("dbr",   EPICS_DBR_CTRL_LONG,  72),
        Array("data",  "i4",   116, ("num_elements",)),
    ),
    derived=EPICS_PV_CTRL_STRING.derived,
)
EPICS_PV_CTRL_DOUBLE = Record(
    "Epics.EpicsPvCtrlDouble",
    (
        *EPICS_PV_CTRL_FLOAT.before("dbr"),
        Field("dbr",   EPICS_DBR_CTRL_DOUBLE,  72),
        Array("data",  "f8",   152, ("num_elements",)),
    ),
    align=8,
    derived=EPICS_PV_CTRL_STRING.derived,
)
EPICS_PV_TIME_STRING = Record(
    "Epics.EpicsPvTimeString",
    (
        *EPICS_PV_CTRL_STRING.before("pvName"),
        Hidden("pad0", "i2",     6),
        Field("dbr",   EPICS_DBR_TIME_STRING,   8),
        Array("data",  "char",  20, ("num_elements", 40)),
    ),
    derived=(
        Derived("isCtrl", "u1", _is_ctrl),
        Derived("isTime", "u1", _is_time),
        Derived("status", "u2", _dbr_status),
        Derived("severity", "u2", _dbr_severity),
        Derived("stamp", "object", _dbr_stamp),
        Method("value", _element),
    ),
)
EPICS_PV_TIME_SHORT = Record(
    "Epics.EpicsPvTimeShort",
    (
        *EPICS_PV_TIME_STRING.before("dbr"),
        Field("dbr",   EPICS_DBR_TIME_SHORT,   8),
        Array("data",  "i2",    22, ("num_elements",)),
    ),
    align=2,
    derived=EPICS_PV_TIME_STRING.derived,
)
EPICS_PV_TIME_FLOAT = Record(
    "Epics.EpicsPvTimeFloat",
    (
        *EPICS_PV_TIME_STRING.before("dbr"),
        Field("dbr",   EPICS_DBR_TIME_FLOAT,   8),
        Array("data",  "f4",    20, ("num_elements",)),
    ),
    derived=EPICS_PV_TIME_STRING.derived,
)
EPICS_PV_TIME_ENUM = Record(
    "Epics.EpicsPvTimeEnum",
    (
        *EPICS_PV_TIME_STRING.before("dbr"),
        Field("dbr",   EPICS_DBR_TIME_ENUM,   8),
        Array("data",  "u2",    22, ("num_elements",)),
    ),
    align=2,
    derived=EPICS_PV_TIME_STRING.derived,
)
EPICS_PV_TIME_CHAR = Record(
    "Epics.EpicsPvTimeChar",
    (
        *EPICS_PV_TIME_STRING.before("dbr"),
        Field("dbr",   EPICS_DBR_TIME_CHAR,   8),
        Array("data",  "u1",    23, ("num_elements",)),
    ),
    align=2,
    derived=EPICS_PV_TIME_STRING.derived,
)
EPICS_PV_TIME_LONG = Record(
    "Epics.EpicsPvTimeLong",
    (
        *EPICS_PV_TIME_STRING.before("dbr"),
        Field("dbr",   EPICS_DBR_TIME_LONG,   8),
        Array("data",  "i4",    20, ("num_elements",)),
    ),
    derived=EPICS_PV_TIME_STRING.derived,
)
EPICS_PV_TIME_DOUBLE = Record(
    "Epics.EpicsPvTimeDouble",
    (
        *EPICS_PV_TIME_STRING.before("dbr"),
        Field("dbr",   EPICS_DBR_TIME_DOUBLE,   8),
        Array("data",  "f8",    24, ("num_elements",)),
    ),
    align=8,
    derived=EPICS_PV_TIME_STRING.derived,
)
EPICS_PV_CONFIG_V1 = Record(
    "Epics.PvConfigV1",
    (
        Field("pvId",         "i2",     0),
        Array("description",  "char",   2, (64,)),
        Hidden("_pad0",       "i2",    66),
        Field("interval",     "f4",    68),
    ),
    size=72,
)
EPICS_CONFIG_V1 = Record(
    "Epics.ConfigV1",
    (
        Field("numPv",        "i4",     0),
        Array("getPvConfig",  EPICS_PV_CONFIG_V1,   4, ("num_pv",)),
    ),
)

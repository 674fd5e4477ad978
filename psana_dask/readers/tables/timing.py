"""Event codes, time tool and level-3 trigger: event data."""

from __future__ import annotations

from typing import Any

from psana_dask.readers.records import Array, Bits, Field, Hidden, Method, Record
from psana_dask.readers.tables import choices as named


def has_code(r: Any, code: int) -> bool:
    """Return whether an event code is in the record."""
    return any(event.event_code == code for event in r.fifo_events)


EVR_FIFO_EVENT = Record(
    "EvrData.FIFOEvent",
    (
        Field("timestampHigh",  "u4",     0, unit="fiducials"),
        Field("timestampLow",   "u4",     4, unit="119 MHz ticks"),
        Field("eventCode",      "u4",     8),
    ),
    size=12,
)
EVR_DATA_V3 = Record(
    "EvrData.DataV3",
    (
        Field("numFifoEvents",  "u4",     0),
        Array("fifoEvents",     EVR_FIFO_EVENT,   4, ("num_fifo_events",)),
    ),
)
EVR_DATA_V4 = Record(
    "EvrData.DataV4",
    (
        Field("numFifoEvents",  "u4",     0),
        Array("fifoEvents",     EVR_FIFO_EVENT,   4, ("num_fifo_events",)),
    ),
    derived=(
        Method("present", has_code),
    ),
)
TIMETOOL_DATA_V1 = Record(
    "TimeTool.DataV1",
    (
        Field("event_type",          "u4",     0, choices=named.TIMETOOL_EVENT_TYPE),
        Hidden("_z",                 "u4",     4),
        Field("amplitude",           "f8",     8),
        Field("position_pixel",      "f8",    16, unit="pixel"),
        Field("position_time",       "f8",    24, unit="ps"),
        Field("position_fwhm",       "f8",    32, unit="pixel"),
        Field("ref_amplitude",       "f8",    40),
        Field("nxt_amplitude",       "f8",    48),
        Array("projected_signal",    "i4",    56, ("cfg.signal_projection_size",)),
        Array("projected_sideband",  "i4",  None, ("cfg.sideband_projection_size",)),
    ),
    align=8,
    configs=("TimeTool.ConfigV1",),
)
TIMETOOL_DATA_V2 = Record(
    "TimeTool.DataV2",
    (
        Field("event_type",           "u4",     0, choices=named.TIMETOOL_EVENT_TYPE),
        Hidden("_z",                  "u4",     4),
        Field("amplitude",            "f8",     8),
        Field("position_pixel",       "f8",    16, unit="pixel"),
        Field("position_time",        "f8",    24, unit="ps"),
        Field("position_fwhm",        "f8",    32, unit="pixel"),
        Field("ref_amplitude",        "f8",    40),
        Field("nxt_amplitude",        "f8",    48),
        Array("projected_signal",     "i4",    56, ("cfg.signal_projection_size",)),
        Array("projected_sideband",   "i4",  None, ("cfg.sideband_projection_size",)),
        Array("projected_reference",  "i4",  None, ("cfg.reference_projection_size",)),
    ),
    align=8,
    configs=("TimeTool.ConfigV2",),
)
TIMETOOL_DATA_V3 = Record(
    "TimeTool.DataV3",
    (
        Field("event_type",           "u4",     0, choices=named.TIMETOOL_EVENT_TYPE),
        Hidden("_z",                  "u4",     4),
        Field("amplitude",            "f8",     8),
        Field("position_pixel",       "f8",    16, unit="pixel"),
        Field("position_time",        "f8",    24, unit="ps"),
        Field("position_fwhm",        "f8",    32, unit="pixel"),
        Field("ref_amplitude",        "f8",    40),
        Field("nxt_amplitude",        "f8",    48),
        Array("projected_signal",     "i4",    56, ("cfg.signal_projection_size",)),
        Array("projected_sideband",   "i4",  None, ("cfg.sideband_projection_size",)),
        Array("projected_reference",  "i4",  None, ("cfg.reference_projection_size",)),
        Array("full_signal",          "i4",  None, ("cfg.signal_y_size", "cfg.signal_x_size")),
        Array("full_sideband",        "i4",  None, ("cfg.sideband_y_size", "cfg.sideband_x_size")),
        Array("full_reference",       "i4",  None, ("cfg.reference_y_size", "cfg.reference_x_size")),
    ),
    align=8,
    configs=("TimeTool.ConfigV3",),
)
L3T_DATA_V1 = Record(
    "L3T.DataV1",
    (
        Field("accept",  "u4",     0),
    ),
    size=4,
)
L3T_DATA_V2 = Record(
    "L3T.DataV2",
    (
        Field("accept",  "u4",     0, bits=(
            Bits("result", 0, 2, choices=named.L3_T_RESULT), Bits("bias", 2, 1, choices=named.L3_T_BIAS),
        )),
    ),
    size=4,
)

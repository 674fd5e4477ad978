"""Event receiver: which event codes, pulses and outputs were set up."""

from __future__ import annotations

from typing import Any

from psana_dask.readers.records import Array, Bits, Derived, Field, Hidden, Record
from psana_dask.readers.tables import choices as named
from psana_dask.readers.tables.common import SOURCE


def _trigger_pulse(r: Any) -> Any:
    return r.bf_trigger - 1


def _set_pulse(r: Any) -> Any:
    return r.bf_set - 1


def _clear_pulse(r: Any) -> Any:
    return r.bf_clear - 1


def _release_code(r: Any) -> Any:
    return r.report_width


def _connector(r: Any) -> Any:
    return r._conn


def output_map(r: Any) -> int:
    """Return the number of the source of an output in the receiver's own numbering."""
    first = {0: r.source_id, 1: r.source_id + 32, 2: r.source_id + 40, 3: 62, 4: 63}
    return int(first.get(r.source, 0))


def _beam_code(r: Any) -> int:
    return int(r.opcode > 100)


def _rate_code(r: Any) -> int:
    if r.opcode < 100:
        return int(r.opcode) - 40
    return int(r.opcode) - 140 if r.opcode < 150 else 7


EVR_PULSE_CONFIG = Record(
    "EvrData.PulseConfig",
    (
        Field("pulse",                  "u4",     0),
        Field("_input_control_value",   "u4",     4, bits=(
            Bits("bf_trigger", 0, 8, hidden=True), Bits("bf_set", 8, 8, hidden=True),
            Bits("bf_clear", 16, 8, hidden=True),
        )),
        Field("_output_control_value",  "u4",     8, bits=(
            Bits("polarity", 0, 1), Bits("map_set_enable", 1, 1), Bits("map_reset_enable", 2, 1),
            Bits("map_trigger_enable", 3, 1),
        )),
        Field("prescale",               "u4",    12),
        Field("delay",                  "u4",    16),
        Field("width",                  "u4",    20),
    ),
    size=24,
    derived=(
        Derived("trigger", "i2", _trigger_pulse),
        Derived("set", "i2", _set_pulse),
        Derived("clear", "i2", _clear_pulse),
    ),
)
EVR_PULSE_CONFIG_V3 = Record(
    "EvrData.PulseConfigV3",
    (
        Field("pulseId",   "u2",     0),
        Field("polarity",  "u2",     2),
        Field("prescale",  "u4",     4),
        Field("delay",     "u4",     8),
        Field("width",     "u4",    12),
    ),
    size=16,
)
EVR_EVENT_CODE_V3 = Record(
    "EvrData.EventCodeV3",
    (
        Field("code",               "u2",     0),
        Hidden("_u16MaskEventAttr", "u2",     2, bits=(Bits("isReadout", 0, 1), Bits("isTerminator", 1, 1))),
        Field("maskTrigger",        "u4",     4),
        Field("maskSet",            "u4",     8),
        Field("maskClear",          "u4",    12),
    ),
    size=16,
)
EVR_EVENT_CODE_V4 = Record(
    "EvrData.EventCodeV4",
    (
        Field("code",               "u2",     0),
        Hidden("_u16MaskEventAttr", "u2",     2, bits=(Bits("isReadout", 0, 1), Bits("isTerminator", 1, 1))),
        Field("reportDelay",        "u4",     4),
        Field("reportWidth",        "u4",     8),
        Field("maskTrigger",        "u4",    12),
        Field("maskSet",            "u4",    16),
        Field("maskClear",          "u4",    20),
    ),
    size=24,
)
EVR_EVENT_CODE_V5 = Record(
    "EvrData.EventCodeV5",
    (
        Field("code",               "u2",     0),
        Hidden("_u16MaskEventAttr", "u2",     2, bits=(
            Bits("isReadout", 0, 1), Bits("isCommand", 1, 1), Bits("isLatch", 2, 1),
        )),
        Field("reportDelay",        "u4",     4),
        Field("reportWidth",        "u4",     8),
        Field("maskTrigger",        "u4",    12),
        Field("maskSet",            "u4",    16),
        Field("maskClear",          "u4",    20),
        Array("desc",               "char",  24, (16,)),
    ),
    size=40,
    derived=(
        Derived("releaseCode", "u4", _release_code),
    ),
)
EVR_EVENT_CODE_V6 = Record(
    "EvrData.EventCodeV6",
    (
        *EVR_EVENT_CODE_V5.fields,
        Field("readoutGroup",  "u2",    40),
    ),
    size=44,
    derived=EVR_EVENT_CODE_V5.derived,
)
EVR_SRC_EVENT_CODE = Record(
    "EvrData.SrcEventCode",
    (
        Field("code",          "u2",     0),
        Hidden("_u16rsvd",     "u2",     2),
        Field("period",        "u4",     4),
        Field("maskTriggerP",  "u4",     8),
        Field("maskTriggerR",  "u4",    12),
        Array("desc",          "char",  16, (16,)),
        Field("readoutGroup",  "u2",    32),
    ),
    size=36,
)
EVR_OUTPUT_MAP = Record(
    "EvrData.OutputMap",
    (
        Field("value",  "u4",     0, bits=(
            Bits("source", 0, 8, choices=named.EVR_OUTPUT_MAP_SOURCE), Bits("source_id", 8, 8),
            Bits("conn", 16, 8, choices=named.EVR_OUTPUT_MAP_CONN), Bits("conn_id", 24, 8),
        )),
    ),
    size=4,
    derived=(
        Derived("map", "u4", output_map),
    ),
)
EVR_OUTPUT_MAP_V2 = Record(
    "EvrData.OutputMapV2",
    (
        Field("value",  "u4",     0, bits=(
            Bits("source", 0, 4, choices=named.EVR_OUTPUT_MAP_SOURCE), Bits("source_id", 4, 8),
            Bits("conn", 12, 4, choices=named.EVR_OUTPUT_MAP_CONN), Bits("conn_id", 16, 8),
            Bits("module", 24, 8),
        )),
    ),
    size=4,
    derived=EVR_OUTPUT_MAP.derived,
)
EVR_CONFIG_V1 = Record(
    "EvrData.ConfigV1",
    (
        Field("npulses",      "u4",     0),
        Field("noutputs",     "u4",     4),
        Array("pulses",       EVR_PULSE_CONFIG,   8, ("npulses",)),
        Array("output_maps",  EVR_OUTPUT_MAP, None, ("noutputs",)),
    ),
)
EVR_CONFIG_V2 = Record(
    "EvrData.ConfigV2",
    (
        Field("opcode",       "u4",     0),
        Field("npulses",      "u4",     4),
        Field("noutputs",     "u4",     8),
        Array("pulses",       EVR_PULSE_CONFIG,  12, ("npulses",)),
        Array("output_maps",  EVR_OUTPUT_MAP, None, ("noutputs",)),
    ),
    derived=(
        Derived("beam", "i2", _beam_code),
        Derived("rate", "i2", _rate_code),
    ),
)
EVR_CONFIG_V3 = Record(
    "EvrData.ConfigV3",
    (
        Field("neventcodes",  "u4",     0),
        Field("npulses",      "u4",     4),
        Field("noutputs",     "u4",     8),
        Array("eventcodes",   EVR_EVENT_CODE_V3,  12, ("neventcodes",)),
        Array("pulses",       EVR_PULSE_CONFIG_V3, None, ("npulses",)),
        Array("output_maps",  EVR_OUTPUT_MAP, None, ("noutputs",)),
    ),
)
EVR_CONFIG_V4 = Record(
    "EvrData.ConfigV4",
    (
        Field("neventcodes",  "u4",     0),
        Field("npulses",      "u4",     4),
        Field("noutputs",     "u4",     8),
        Array("eventcodes",   EVR_EVENT_CODE_V4,  12, ("neventcodes",)),
        Array("pulses",       EVR_PULSE_CONFIG_V3, None, ("npulses",)),
        Array("output_maps",  EVR_OUTPUT_MAP, None, ("noutputs",)),
    ),
)
EVR_SEQUENCER_ENTRY = Record(
    "EvrData.SequencerEntry",
    (
        Hidden("_value", "u4",     0, bits=(Bits("delay", 0, 24), Bits("eventcode", 24, 8))),
    ),
    size=4,
)
EVR_SEQUENCER_CONFIG_V1 = Record(
    "EvrData.SequencerConfigV1",
    (
        Hidden("_source", "u4",     0, bits=(
            Bits("sync_source", 0, 8, choices=named.EVR_SEQUENCER_SOURCE),
            Bits("beam_source", 8, 8, choices=named.EVR_SEQUENCER_SOURCE),
        )),
        Field("length",   "u4",     4),
        Field("cycles",   "u4",     8),
        Array("entries",  EVR_SEQUENCER_ENTRY,  12, ("length",)),
    ),
)
EVR_CONFIG_V5 = Record(
    "EvrData.ConfigV5",
    (
        Field("neventcodes",  "u4",     0),
        Field("npulses",      "u4",     4),
        Field("noutputs",     "u4",     8),
        Array("eventcodes",   EVR_EVENT_CODE_V5,  12, ("neventcodes",)),
        Array("pulses",       EVR_PULSE_CONFIG_V3, None, ("npulses",)),
        Array("output_maps",  EVR_OUTPUT_MAP, None, ("noutputs",)),
        Field("seq_config",   EVR_SEQUENCER_CONFIG_V1, None),
    ),
)
EVR_CONFIG_V6 = Record(
    "EvrData.ConfigV6",
    (
        *EVR_CONFIG_V5.before("output_maps"),
        Array("output_maps",  EVR_OUTPUT_MAP_V2, None, ("noutputs",)),
        Field("seq_config",   EVR_SEQUENCER_CONFIG_V1, None),
    ),
)
EVR_CONFIG_V7 = Record(
    "EvrData.ConfigV7",
    (
        Field("neventcodes",  "u4",     0),
        Field("npulses",      "u4",     4),
        Field("noutputs",     "u4",     8),
        Array("eventcodes",   EVR_EVENT_CODE_V6,  12, ("neventcodes",)),
        Array("pulses",       EVR_PULSE_CONFIG_V3, None, ("npulses",)),
        Array("output_maps",  EVR_OUTPUT_MAP_V2, None, ("noutputs",)),
        Field("seq_config",   EVR_SEQUENCER_CONFIG_V1, None),
    ),
)
EVR_SRC_CONFIG_V1 = Record(
    "EvrData.SrcConfigV1",
    (
        Field("neventcodes",  "u4",     0),
        Field("npulses",      "u4",     4),
        Field("noutputs",     "u4",     8),
        Array("eventcodes",   EVR_SRC_EVENT_CODE,  12, ("neventcodes",)),
        Array("pulses",       EVR_PULSE_CONFIG_V3, None, ("npulses",)),
        Array("output_maps",  EVR_OUTPUT_MAP_V2, None, ("noutputs",)),
    ),
)
EVR_IOCHANNEL = Record(
    "EvrData.IOChannel",
    (
        Array("name",   "char",   0, (12,)),
        Field("ninfo",  "u4",    12),
        Array("infos",  SOURCE,  16, (8,)),
    ),
    size=80,
)
EVR_IOCONFIG_V1 = Record(
    "EvrData.IOConfigV1",
    (
        Hidden("_conn",     "u2",     0),
        Field("nchannels",  "u2",     2),
        Array("channels",   EVR_IOCHANNEL,   4, ("nchannels",)),
    ),
    derived=(
        Derived("conn", "u2", _connector),
    ),
)
EVR_IOCHANNEL_V2 = Record(
    "EvrData.IOChannelV2",
    (
        Field("output",  EVR_OUTPUT_MAP_V2,   0),
        Array("name",    "char",   4, (64,)),
        Field("ninfo",   "u4",    68),
        Array("infos",   SOURCE,  72, (16,)),
    ),
    size=200,
)
EVR_IOCONFIG_V2 = Record(
    "EvrData.IOConfigV2",
    (
        Field("nchannels",  "u4",     0),
        Array("channels",   EVR_IOCHANNEL_V2,   4, ("nchannels",)),
    ),
)

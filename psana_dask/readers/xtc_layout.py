"""The XTC (LCLS-1) headers as tables, and the words in them; reader and writer share them.

A file is a plain sequence of datagrams: a header (`DGRAM`) followed by nested `XTC`
containers.  All integers are little-endian.  ``docs/formats/xtc.md`` describes the whole.
"""

from __future__ import annotations

import re
from enum import IntEnum, IntFlag

import numpy as np

from psana_dask.readers.tables.names import BLD_NAMES, DETECTORS, DEVICES, OLD_DETECTORS

# fmt: off
XTC = np.dtype([                 # offset; meaning
    ("damage",      "<u4"),      #  0; bits of Damage, bits 24-31 are the user's
    ("log",         "<u4"),      #  4; source: bits 24-31 Level, 0-23 process id
    ("phy",         "<u4"),      #  8; source: detector and device, BLD type or IP address
    ("contains",    "<u4"),      # 12; bits 0-15 type number, 16-30 version, 31 compressed
    ("extent",      "<u4"),      # 16; bytes of this header and its payload
])

DGRAM = np.dtype([
    ("nanoseconds", "<u4"),      #  0
    ("seconds",     "<u4"),      #  4; Unix, UTC
    ("ticks",       "<u4"),      #  8; bits 0-23 ticks of 119 MHz, 24-27 TransitionId, 28-29 sequence
    ("fiducial",    "<u4"),      # 12; bits 0-16 fiducial of 360 Hz, 17-31 event count since Configure
    ("env",         "<u4"),      # 16; BeginRun: run number; L1Accept: see L1Env
    ("damage",      "<u4"),      # 20; then one XTC header
    ("log",         "<u4"),      # 24
    ("phy",         "<u4"),      # 28
    ("contains",    "<u4"),      # 32
    ("extent",      "<u4"),      # 36; bytes of the datagram minus 20
])
# fmt: on

FIDUCIALS = 131040
"""Fiducials run from 0 to FIDUCIALS - 1 and start again: 364 s."""

NO_FIDUCIAL = 0x1FFFF
"""What the timing system writes when it has no fiducial."""

COMPRESSED = 1 << 31
"""Bit of `contains`: the payload is compressed (see `compression`)."""

ID_XTC, ID_EPICS, ID_EVR_DATA = 1, 13, 19

EBEAM = 15
"""Type whose payloads count although their user bits are set: psana's rule."""

USER_BITS = np.uint32(0xFF000000)
"""Bits of a damage word that are the user's."""

TYPE_COUNT = 124


class TransitionId(IntEnum):
    """The service of a datagram."""

    UNKNOWN = 0
    RESET = 1
    MAP = 2
    UNMAP = 3
    CONFIGURE = 4
    UNCONFIGURE = 5
    BEGIN_RUN = 6
    END_RUN = 7
    BEGIN_CALIB_CYCLE = 8
    END_CALIB_CYCLE = 9
    ENABLE = 10
    DISABLE = 11
    L1_ACCEPT = 12


class Level(IntEnum):
    """Where in the DAQ a source sits."""

    CONTROL = 0
    SOURCE = 1  # a detector: phy is detector, id, device, id
    SEGMENT = 2  # a readout node
    EVENT = 3  # an event builder node
    RECORDER = 4
    OBSERVER = 5
    REPORTER = 6  # beam-line data: phy is the BLD type


class Damage(IntFlag):
    """What is wrong with a container."""

    DROPPED_CONTRIBUTION = 1 << 1
    UNINITIALIZED = 1 << 11
    OUT_OF_ORDER = 1 << 12
    OUT_OF_SYNCH = 1 << 13
    USER_DEFINED = 1 << 14
    INCOMPLETE_CONTRIBUTION = 1 << 15  # the payload must not be entered
    CONTAINS_INCOMPLETE = 1 << 16


class L1Env(IntFlag):
    """Bits of `env` of an L1Accept; bits 0-7 are the readout groups."""

    L3_PASS = 1 << 8
    L3_FAIL = 1 << 9
    BIASED = 1 << 30
    TRIMMED = 1 << 31


_MODULES = {51: 1, 52: 2, 53: 3, 54: 4}  # Jungfrau segments: device number -> modules


def source_name(log: int, phy: int) -> str:
    """Return the name of a source as psana users write it.

    ``XppGon.0:Cspad.0`` for detectors, the BLD name (``EBeam``) for beam-line data,
    ``ProcInfo(172.21.10.1)`` for nodes, ``NoSource`` for none.
    """
    level = log >> 24
    if level == Level.SOURCE:
        detector, detector_id, device, device_id = _det_info(phy)
        return f"{_name(DETECTORS, detector)}.{detector_id}:{_name(DEVICES, device)}.{device_id}"
    if level == Level.REPORTER:
        return _name(BLD_NAMES, phy)
    if log == phy == 0xFFFFFFFF:
        return "NoSource"
    return f"ProcInfo({'.'.join(str(b) for b in phy.to_bytes(4, 'big'))})"


def psana_source_name(log: int, phy: int) -> str:
    """Return the name as psana prints it: ``DetInfo(XppGon.0:Cspad.0)``, ``BldInfo(EBeam)``."""
    name = source_name(log, phy)
    kind = {Level.SOURCE: "DetInfo", Level.REPORTER: "BldInfo"}.get(log >> 24)  # type: ignore[call-overload]
    return f"{kind}({name})" if kind else name


def daq_source_name(log: int, phy: int) -> str:
    """Return the name as the DAQ's own tools print it: ``DetInfo(XppGon-0|Cspad-0)``."""
    level = log >> 24
    if level == Level.SOURCE:
        detector, detector_id, device, device_id = _det_info(phy)
        return f"DetInfo({_name(DETECTORS, detector)}-{detector_id}|{_name(DEVICES, device)}-{device_id})"
    if level == Level.REPORTER:
        return f"BldInfo({_name(BLD_NAMES, phy)})"
    place = Level(level).name.capitalize() if level < len(Level) else "none"
    return f"ProcInfo({place}:{phy:08x}:{log & 0xFFFFFF})"


def _det_info(phy: int) -> tuple[int, int, int, int]:
    return phy >> 24, phy >> 16 & 0xFF, phy >> 8 & 0xFF, phy & 0xFF


def _name(names: tuple[str, ...], number: int) -> str:
    return names[number] if number < len(names) else f"unknown{number}"


def source_key(log: int, phy: int) -> tuple[int, int]:
    """Return what identifies a source: its level and phy; the process id in `log` does not count."""
    return log >> 24, phy


def detector_source(detector: str, detector_id: int, device: str, device_id: int) -> tuple[int, int]:
    """Return (log, phy) of a detector, as the simulator writes it."""
    numbers = DETECTORS.index(detector), detector_id, DEVICES.index(device), device_id
    return Level.SOURCE << 24, int.from_bytes(bytes(numbers), "big")


def bld_source(name: str) -> tuple[int, int]:
    """Return (log, phy) of beam-line data."""
    return Level.REPORTER << 24, BLD_NAMES.index(name)


def jungfrau_segment(phy: int) -> tuple[int, int, int] | None:
    """Return (phy of the whole detector, first module, number of modules) of a Jungfrau segment.

    A Jungfrau that several nodes read comes in segments of 1 to 4 modules, each with its own
    source; None if `phy` is no such source.
    """
    detector, detector_id, device, device_id = _det_info(phy)
    if device not in _MODULES:
        return None
    whole = detector, detector_id >> 4, DEVICES.index("Jungfrau"), device_id >> 4
    return int.from_bytes(bytes(whole), "big"), device_id & 15, _MODULES[device]


_PATTERN = re.compile(r"([A-Za-z0-9]*|\*)(?:[.-](\d+|\*))?")


def source_matches(pattern: str, log: int, phy: int) -> bool:
    """Tell whether a source has the address `pattern`, in any spelling that psana took.

    ``DetInfo(XppGon.0:Cspad.0)``, ``XppGon.0:Cspad.0``, ``XppGon-0|Cspad-0``, ``:Cspad``, ``XppGon.0:``,
    ``BldInfo(EBeam)``, ``EBeam``, ``ProcInfo(172.21.10.1)``; parts may be left out or ``*``, "" is any.
    """
    if pattern == "":
        return True
    kind, inner = _split_kind(pattern)
    level = log >> 24
    if level == Level.REPORTER:
        return kind in {"", "BldInfo"} and inner in ({_name(BLD_NAMES, phy)} | ({""} if kind else set()))
    if level == Level.SOURCE:
        return kind in {"", "DetInfo"} and _matches_detector(inner, phy, bare=not kind)
    return kind == "ProcInfo" and inner in {"", source_name(log, phy)[9:-1]}


def source_fits(pattern: str, source: str) -> bool:
    """Tell whether a source, by its name (see `source_name`), has an address; "" fits none."""
    detector, colon, device = source.partition(":")
    if not pattern:
        return False
    if not colon:
        return source in BLD_NAMES and source_matches(pattern, *bld_source(source))
    sides = [side.rpartition(".") for side in (detector, device)]
    if sides[0][0] not in DETECTORS or sides[1][0] not in DEVICES:
        return False
    return source_matches(
        pattern, *detector_source(sides[0][0], int(sides[0][2]), sides[1][0], int(sides[1][2]))
    )


def _split_kind(pattern: str) -> tuple[str, str]:
    found = re.fullmatch(r"(DetInfo|BldInfo|ProcInfo)\((.*)\)", pattern)
    return (found[1], found[2]) if found else ("", pattern)


def _matches_detector(inner: str, phy: int, *, bare: bool) -> bool:
    sides = re.split(r"[:|]", inner)
    if len(sides) > 2 or (bare and len(sides) != 2):
        return False
    detector, detector_id, device, device_id = _det_info(phy)
    names = ((_name(DETECTORS, detector), detector_id), (_name(DEVICES, device), device_id))
    return all(_matches_side(side, *name) for side, name in zip(sides, names, strict=False))


def _matches_side(side: str, name: str, number: int) -> bool:
    found = _PATTERN.fullmatch(side)
    if found is None:
        return False
    wanted = OLD_DETECTORS.get(found[1], found[1])
    wanted = "Tm6740" if wanted == "TM6740" else wanted
    return wanted in {"", "*", name} and (found[2] in {None, "*"} or int(found[2]) == number)


def later(a: int, b: int) -> bool:
    """Tell whether fiducial `a` comes after `b`, across the wrap."""
    return a != b and (a - b) % FIDUCIALS < FIDUCIALS // 2

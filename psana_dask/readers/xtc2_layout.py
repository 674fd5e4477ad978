"""The XTC2 records as tables: the reader and the writer share them.

All integers are little-endian and nothing is padded.  A file is a plain sequence of
datagrams; a datagram is a header (`DGRAM`) followed by nested `XTC` containers.
``docs/formats/xtc2.md`` describes the whole.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

EPOCH_1990 = 631152000
"""Unix seconds of 1990-01-01T00:00:00 UTC, where XTC2 time stamps start."""

# fmt: off
XTC = np.dtype([               # offset; meaning
    ("src",      "<u4"),       #  0; low 28 bits value (a NamesId or a node), high 4 bits level
    ("damage",   "<u2"),       #  4; bits of Damage, bits 12-15 are the user's
    ("contains", "<u2"),       #  6; low 12 bits TypeId, high 4 bits version
    ("extent",   "<u4"),       #  8; bytes of this header and its payload
])

DGRAM = np.dtype([
    ("low",      "<u4"),       #  0; nanoseconds
    ("high",     "<u4"),       #  4; seconds since 1990-01-01
    ("env",      "<u4"),       #  8; bits 24-27 TransitionId, 16-23 L1 bits, 0-15 readout groups
    ("src",      "<u4"),       # 12; then one XTC header
    ("damage",   "<u2"),       # 16
    ("contains", "<u2"),       # 18; always 0: a Parent of version 0
    ("extent",   "<u4"),       # 20
])

DGRAM_OLD = np.dtype([         # 2019 and older
    ("pulse",    "<u8"),       #  0; bits 56-59 TransitionId, low 56 bits pulse id
    ("low",      "<u4"),       #  8
    ("high",     "<u4"),       # 12
    ("env",      "<u4"),       # 16; service bits zero
    ("src",      "<u4"),       # 20
    ("damage",   "<u2"),       # 24
    ("contains", "<u2"),       # 26
    ("extent",   "<u4"),       # 28
])

NAMES = np.dtype([             # payload of a Names container, before its fields
    ("num_arrays",  "<u4"),    #    0; fields with a rank above 0
    ("det_type",    "S256"),   #    4
    ("det_name",    "S256"),   #  260
    ("det_id",      "S256"),   #  516; serial number(s)
    ("alg_name",    "S256"),   #  772
    ("alg_version", "<u4"),    # 1028; major << 16 | minor << 8 | micro
    ("segment",     "<u4"),    # 1032
])

FIELD = np.dtype([             # one per field, after NAMES
    ("alg_name",    "S256"),   #   0; usually empty
    ("alg_version", "<u4"),    # 256
    ("name",        "S256"),   # 260
    ("type",        "<u4"),    # 516; index into TYPES
    ("rank",        "<u4"),    # 520; 0 to 5
])

SHAPE = np.dtype(("<u4", 5))   # one per array field; words beyond its rank are garbage
# fmt: on

MAX_RANK = 5


class TypeId(IntEnum):
    """What an XTC container holds (low 12 bits of `contains`)."""

    PARENT = 0
    SHAPES_DATA = 1
    SHAPES = 2
    DATA = 3
    NAMES = 4


class TransitionId(IntEnum):
    """The service of a datagram."""

    CLEAR_READOUT = 0
    RESET = 1
    CONFIGURE = 2
    UNCONFIGURE = 3
    BEGIN_RUN = 4
    END_RUN = 5
    BEGIN_STEP = 6
    END_STEP = 7
    ENABLE = 8
    DISABLE = 9
    SLOW_UPDATE = 10
    L1_ACCEPT = 12


# by type code of a field: 10 is a character array, 11 an enum value, 12 an enum's dictionary entry
CHARSTR, ENUMVAL, ENUMDICT = 10, 11, 12
TYPES = tuple(
    np.dtype(code)
    for code in ("u1", "<u2", "<u4", "<u8", "i1", "<i2", "<i4", "<i8", "<f4", "<f8", "S1", "<i4", "<i4")
)

CORRUPTED = 1 << 3
"""Damage bit of a container whose payload must not be entered."""

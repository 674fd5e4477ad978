"""What the layers hand to each other: frozen values, columns of an index, protocols.

The vocabulary of the bytes tower::

    part      one file of a stream (the field says "chunk"; that word is Dask's here)
    dgram     a datagram: one transition or one event of one stream
    block     one piece of a datagram: the data of one detector segment and algorithm
    layout    the array shapes of a block; blocks of equal shapes share one
    names     what a block's bytes mean: detector, segment, algorithm, fields
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

Progress = Callable[[str, int, int], None]
"""Called with a path, the bytes scanned and the size of the file."""


class Service(IntEnum):
    """Kinds of datagram, for both formats (numbered as LCLS-II does)."""

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
    MAP = 13  # this and what follows: LCLS-1 only
    UNMAP = 14
    UNKNOWN = 15


class Kind(IntEnum):
    """How the values of a field are to be taken."""

    NUMBER = 0
    STRING = 1
    ENUM = 2
    ENUM_ENTRY = 3  # the value of one member of an enum: part of a dictionary, not data
    PIXELS = 4  # the pixels or samples of a detector, where the format says so (LCLS-1 does)


@dataclass(frozen=True)
class FieldSpec:
    """One field of a block.

    Parameters
    ----------
    name : str
        As in the file.
    dtype : numpy.dtype
        Of one element.
    rank : int
        0 for a scalar; the shape of an array is in the block's layout.
    kind : Kind
    unit : str
        Where the format says it (LCLS-1 does).
    dims : tuple of str
        Names of its dimensions, where the format says them.
    accessor : str
        What psana calls it, where that is another name (LCLS-1: ``ebeamPhotonEnergy``).
    """

    name: str
    dtype: np.dtype[Any]
    rank: int
    kind: Kind = Kind.NUMBER
    unit: str = ""
    dims: tuple[str, ...] = ()
    accessor: str = ""


@dataclass(frozen=True)
class Names:
    """What the blocks with one key mean.

    Parameters
    ----------
    key : int
        The number that blocks carry; unique within one stream and configuration.
    detector, det_type, det_id : str
        Name, type and serial number as in the file; the name is the source (``XppGon.0:Cspad.0``)
        in LCLS-1.
    algorithm : str
    version : tuple of int
        Major, minor, micro of the algorithm.
    segment : int
    fields : tuple of FieldSpec
        In the order of the bytes.
    """

    key: int
    detector: str
    det_type: str
    det_id: str
    algorithm: str
    version: tuple[int, int, int]
    segment: int
    fields: tuple[FieldSpec, ...]


class Problem(NamedTuple):
    """One thing that is wrong with a run; `event` is a time stamp word or -1."""

    file: str
    offset: int
    event: int
    what: str


# fmt: off
DGRAM_COLUMNS = {              # one row per datagram, in the order of the stream
    "timestamp":   "<u8",      # the file's word: seconds << 32 | nanoseconds
    "time":        "<i8",      # ns since 1970, UTC
    "service":     "u1",       # Service
    "part":        "<u2",      # index into StreamIndex.parts
    "offset":      "<i8",      # byte of the header in that part
    "size":        "<u4",      # bytes, header included
    "env":         "<u4",
    "damage":      "<u4",
    "config":      "<i2",      # index into StreamIndex.configs
    "run":         "<i4",      # BeginRuns seen so far in this stream - 1
    "step":        "<i4",      # BeginSteps of this run seen so far - 1
    "first_block": "<i8",      # index of its first block; ends where the next one's start
}
BLOCK_COLUMNS = {              # one row per block
    "key":         "<u4",      # Names.key
    "data":        "<u4",      # byte of the data, from the start of the datagram
    "block_damage": "<u4",
    "layout":      "<i4",      # row of the layout table; -1: unreadable, only the damage is known
}
LAYOUT_COLUMNS = {             # one row per distinct set of shapes
    "layout_key":    "<u4",    # Names.key ...
    "layout_config": "<i2",    # ... of this configuration
    "first_word":    "<i8",    # index of its first word in `words`: the shapes of its array fields
}

# LCLS-1 has DGRAM_COLUMNS, BLOCK_COLUMNS without the layout, and these
XTC_COLUMNS = {
    "fiducial":      "<u4",    # datagram: the header's word; bits 0-16 fiducial, 17-31 event count
    "ticks":         "<u4",    # datagram: the header's word; bits 0-23 ticks of 119 MHz, 24-31 control
    "payload":       "<u4",    # block: bytes of its data
    "kind_log":      "<u4",    # kind (a block's key is its row): source ...
    "kind_phy":      "<u4",
    "kind_contains": "<u4",    # ... and type word
    "sample_row":    "<i8",    # a payload that stands for each (state of configuration, kind): its datagram
    "sample_block":  "<i8",    # ... and block; -1 where there is none
}
# fmt: on


@dataclass(frozen=True)
class StreamIndex:
    """Where everything is in one stream: columns, and what the blocks mean.

    ``columns`` holds the arrays named by DGRAM_COLUMNS, BLOCK_COLUMNS and LAYOUT_COLUMNS,
    and ``words`` (uint32): the dimensions of the array fields of each layout, in the
    order of the fields.  `first_block` and `first_word` have one element more than rows.

    Parameters
    ----------
    stream : int
        Number of the stream.
    parts : tuple of str
        Paths; blocks of transitions may lie in a small-data file, the last one.
    configs : tuple of tuple of Names
        One per Configure.
    columns : mapping of str to array
    problems : tuple of Problem
    format : {"xtc2", "xtc"}
        LCLS-II or LCLS-1; decides which columns there are.
    aliases : mapping of str to str
        The DAQ's own names of detectors, where those are not what blocks are called (LCLS-1).
    """

    stream: int
    parts: tuple[str, ...]
    configs: tuple[tuple[Names, ...], ...]
    columns: Mapping[str, Array]
    problems: tuple[Problem, ...] = ()
    format: str = "xtc2"
    aliases: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, column: str) -> Array:
        return self.columns[column]

    def __len__(self) -> int:
        return len(self.columns["timestamp"])


@dataclass(frozen=True)
class EventTable:
    """The events of a run, in time order.

    Parameters
    ----------
    time : (event,) int64
        ns since 1970, sorted and unique.
    timestamp : (event,) uint64
        The file's word.
    step : (event,) int32
        0, 1, ... ; -1 before the first step.
    rows : (stream, event) int32
        Row of the datagram in each stream's index, -1 where the stream has none.
    problems : tuple of Problem
        What had to be done to order them.
    """

    time: npt.NDArray[np.int64]
    timestamp: npt.NDArray[np.uint64]
    step: npt.NDArray[np.int32]
    rows: npt.NDArray[np.int32]
    problems: tuple[Problem, ...] = ()

    def __len__(self) -> int:
        return len(self.time)

    def arrays(self) -> dict[str, Array]:
        """Return the columns by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "problems"}

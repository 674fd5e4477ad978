"""The messages between a sender and its receivers, version 1: fixed headers, tables, raw datagrams.

Nothing in a message is code: no pickle, no JSON. A receiver refuses what has another magic,
version or size, and every datagram whose header does not fit.  ``docs/formats/stream.md``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np

from psana_dask.errors import FormatError
from psana_dask.stream.datagrams import Data, Dgram, checked

MAGIC, VERSION = b"PSDS", 1
FORMATS = ("", "xtc", "xtc2")

HEADER = struct.Struct("<4sHBBIIQQ")
"""magic, version, format, kind, count of datagrams, state, session, number."""

TABLE = np.dtype([("size", "<u4"), ("stream", "<u2"), ("event", "<u2")])
"""One row per datagram; `event` counts the events of the message from 0."""

REQUEST = struct.Struct("<4sHHII")
"""magic, version, 0, the state wanted, the state known."""

MOST_BYTES = 256 * 2**20
"""The largest message that is taken."""

MOST_DGRAMS = 65_535


class Kind(IntEnum):
    """What a message is."""

    EVENTS = 1
    TRANSITIONS = 2
    END = 3


@dataclass(frozen=True)
class Message:
    """A message.

    Parameters
    ----------
    kind : Kind
    form : {"xtc", "xtc2"}
    events : tuple of list of Dgram
        The datagrams of each event; of transitions, of each transition.
    state : int
        How many transitions the sender had sent: those that must be known before the events.
    session : int
        Of the sender; another one after it was started again.
    number : int
        Events that the sender sent before these.
    """

    kind: Kind
    form: str
    events: Sequence[Sequence[Dgram]]
    state: int
    session: int
    number: int


def packed(message: Message) -> list[Any]:
    """Return the three frames of a message: header, table, datagrams (not copied if there is one)."""
    dgrams = [(k, d) for k, event in enumerate(message.events) for d in event]
    if len(dgrams) > MOST_DGRAMS:
        raise ValueError(f"{len(dgrams)} datagrams in one message; {MOST_DGRAMS} are the most")
    table = np.zeros(len(dgrams), TABLE)
    table["size"] = [len(d.data) for _, d in dgrams]
    table["stream"] = [d.stream for _, d in dgrams]
    table["event"] = [k for k, _ in dgrams]
    header = HEADER.pack(
        MAGIC, VERSION, FORMATS.index(message.form), message.kind, len(dgrams), message.state,
        message.session, message.number,
    )  # fmt: skip
    body = dgrams[0][1].data if len(dgrams) == 1 else b"".join([d.data for _, d in dgrams])
    return [header, table.tobytes(), body]


def unpacked(frames: Sequence[Data]) -> Message:
    """Return a message from its frames; its datagrams are views of the last one.

    Raises
    ------
    FormatError
        It is no message of this version, or says what is not so.
    """
    if len(frames) != 3 or len(frames[0]) != HEADER.size:
        raise FormatError(f"no message of psana_dask: {len(frames)} frames of {_sizes(frames)} bytes")
    magic, version, form, kind, count, state, session, number = HEADER.unpack(frames[0])
    if magic != MAGIC:
        raise FormatError(f"no message of psana_dask: it begins with {bytes(magic)!r}")
    if version != VERSION:
        raise FormatError(f"a message of version {version}; this is version {VERSION}: use equal versions")
    if form not in (1, 2) or kind not in Kind._value2member_map_ or len(frames[1]) != count * TABLE.itemsize:
        raise FormatError(f"a malformed message: format {form}, kind {kind}, {count} datagrams")
    table = np.frombuffer(frames[1], TABLE)
    body = memoryview(frames[2])
    ends = np.cumsum(table["size"], dtype=np.int64)
    if (int(ends[-1]) if count else 0) != len(body) or not _counts_up(table["event"]):
        raise FormatError(f"a malformed message: its table does not fit its {len(body)} bytes")
    events: list[list[Dgram]] = []
    for row, end in zip(table, ends.tolist(), strict=True):
        if int(row["event"]) == len(events):
            events.append([])
        data = body[end - int(row["size"]) : end]
        checked(FORMATS[form], data)
        events[-1].append(Dgram(int(row["stream"]), data))
    return Message(Kind(kind), FORMATS[form], events, state, session, number)


def _counts_up(event: np.ndarray[Any, Any]) -> bool:
    steps = np.diff(event.astype(np.int64))
    return len(event) == 0 or (event[0] == 0 and bool(((steps == 0) | (steps == 1)).all()))


def _sizes(frames: Iterable[Data]) -> str:
    return ", ".join(str(len(f)) for f in frames)


def packed_request(wanted: int, known: int) -> bytes:
    """Return the request for the transitions behind `known` up to `wanted`."""
    return REQUEST.pack(MAGIC, VERSION, 0, wanted, known)


def unpacked_request(data: Data) -> tuple[int, int]:
    """Return (wanted, known) of a request.

    Raises
    ------
    FormatError
        It is no request of this version.
    """
    if len(data) != REQUEST.size:
        raise FormatError(f"no request of psana_dask: {len(data)} bytes")
    magic, version, _, wanted, known = REQUEST.unpack(data)
    if magic != MAGIC or version != VERSION:
        raise FormatError(f"no request of psana_dask, or of another version: {bytes(magic)!r} {version}")
    return wanted, known

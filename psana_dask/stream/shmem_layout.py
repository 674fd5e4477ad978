"""Names and messages of the monitoring servers' shared memory, the same for LCLS-1 and LCLS-II.

``docs/formats/stream.md`` describes the protocol.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from psana_dask.errors import FormatError

TRANSITION_BUFFERS = 18
"""Buffers for transitions, behind those for events."""

MESSAGE = struct.Struct("<iIII")
"""index; counts: buffers, queues, return queue, 8 bits each; size: 28 bits; a word that the DAQ leaves 0."""


def memory_name(tag: str) -> str:
    """Return the name of the shared memory."""
    return f"PdsMonitorSharedMemory_{tag}"


def discovery_name(tag: str) -> str:
    """Return the name of the queue that says where to connect."""
    return f"/PdsFromMonitorDiscovery_{tag}"


def queue_name(tag: str, number: int) -> str:
    """Return the name of the event queue of a client; the one behind the last is the server's."""
    return f"/PdsToMonitorEvQueue_{tag}_{number}"


def marked(message: bytes, team: int) -> bytes:
    """Return a message that says which team took its event; all else in it stays."""
    return message[:-4] + team.to_bytes(4, "little")


@dataclass(frozen=True)
class Note:
    """A message on a queue or on the socket.

    Parameters
    ----------
    index : int
        Buffer; in the discovery queue the TCP port, in the first message the client's number.
    buffers : int
        Of events and transitions together.
    queues : int
        Event queues: how many clients there may be.
    returns : int
        Queue to which events go back; 0: from client to client.
    size : int
        Bytes of a buffer.
    team : int
        Of the readers that share the events of a server: one of them has taken this event. In a word that
        the servers leave alone; 0 if nobody has.
    """

    index: int
    buffers: int
    queues: int
    returns: int
    size: int
    team: int = 0

    def packed(self) -> bytes:
        """Return the 16 bytes."""
        counts = self.buffers & 0xFF | (self.queues & 0xFF) << 8 | (self.returns & 0xFF) << 16
        return MESSAGE.pack(self.index, counts, self.size & 0x0FFFFFFF, self.team)

    @classmethod
    def of(cls, data: bytes) -> Note:
        """Read the 16 bytes.

        Raises
        ------
        FormatError
            They are not 16.
        """
        if len(data) != MESSAGE.size:
            raise FormatError(
                f"a message of {len(data)} bytes from a monitoring server; they have {MESSAGE.size}"
            )
        index, counts, size, team = MESSAGE.unpack(data)
        return cls(index, counts & 0xFF, counts >> 8 & 0xFF, counts >> 16 & 0xFF, size & 0x0FFFFFFF, team)

    @property
    def events(self) -> int:
        """Buffers for events."""
        return self.buffers - TRANSITION_BUFFERS

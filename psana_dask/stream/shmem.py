"""The tap of a monitoring server on this machine: ``shmem://TAG``, LCLS-1 or LCLS-II.

Data are copied out of the shared memory before their buffer goes back; a buffer that went back
is never touched.  When the server is started again, the tap connects again.
"""

from __future__ import annotations

import mmap
import os
import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from psana_dask.errors import FormatError, ReadError
from psana_dask.model import Service
from psana_dask.stream.datagrams import HEADERS, Data, Dgram, Header
from psana_dask.stream.draining import Drain
from psana_dask.stream.mqueue import Queue
from psana_dask.stream.shmem_layout import Note, discovery_name, memory_name, queue_name
from psana_dask.stream.taps import Delivery, Refusals, Share
from psana_dask.stream.team import Team

MEMORY = "/dev/shm"  # noqa: S108  (where POSIX shared memory is, by definition)

GROUP = 64
"""Events that are taken at once, at most."""

DRAIN_SECONDS = 0.2
"""How long it may take to look whether an event came before a transition."""

BUSY = 8
"""Events that wait for one of a team before the others get what comes next, if they have room."""

NEUTRAL = (Service.SLOW_UPDATE, Service.UNKNOWN, Service.CLEAR_READOUT, Service.RESET)
"""Transitions that say nothing about whether events count."""

ENDS = (Service.DISABLE, Service.END_STEP, Service.END_RUN)
"""Nor do these say it to one of a team: another one may pass an event on that came before them."""


@dataclass
class _Connection:
    """An open connection: socket, memory, queues."""

    sock: socket.socket
    memory: mmap.mmap
    descriptor: int  # of the memory
    events: Queue
    onward: dict[int, Queue]  # by number; the last one is the server's
    geometry: Note
    drain: Drain
    poll: select.poll

    def close(self) -> None:
        self.drain.close()
        self.sock.close()
        self.memory.close()
        os.close(self.descriptor)
        for queue in (self.events, *self.onward.values()):
            queue.close()


class ShmemTap:
    """The tap of ``shmem://TAG``.

    Parameters
    ----------
    tag : str
        Partition tag of the server.
    timeout : float
        Seconds that the server gets to appear.
    share : Share, optional
        If others of a team take events, too: what one of them took it marks, and the others pass it on.

    Attributes
    ----------
    backlog : callable
        How many events wait to be processed; of a team, who has many leaves the next ones to the others.

    Raises
    ------
    ReadError
        No server, or it has as many clients as it takes.
    """

    def __init__(self, tag: str, timeout: float = 10.0, share: Share | None = None) -> None:
        self._tag, self._timeout, self._share = tag, timeout, share
        self._team = None if share is None else Team(os.path.join(MEMORY, memory_name(tag)), share.team)
        self.refused = Refusals()
        self._enabled = self._began = False
        self._anew = self._ran = False
        self.backlog: Callable[[], int] = lambda: 0
        self._before: int | None = None  # events that may have come before the transition that is announced
        self._late = 0  # events that came behind the Disable of their step: the protocol passes them over
        stop = time.monotonic() + timeout
        self._connection: _Connection | None = self._connect(stop)
        self._first: list[Dgram] = []
        self.form = self._find_format(stop)

    # ---- connecting ---------------------------------------------------------------------------
    def _connect(self, stop: float) -> _Connection:
        reason = "no server of this tag"
        while True:
            try:
                return self._try_to_connect(stop)
            except FileNotFoundError:
                pass
            except (ConnectionError, TimeoutError) as error:
                reason = str(error)
            if time.monotonic() > stop:
                raise ReadError(
                    f"shmem://{self._tag}: {reason} (queue {discovery_name(self._tag)}, see /dev/mqueue); "
                    "is the monitoring server running on this machine?"
                )
            time.sleep(0.05)

    def _try_to_connect(self, stop: float) -> _Connection:
        discovery = Queue(discovery_name(self._tag), os.O_RDONLY)
        try:
            data = discovery.receive(max(0.05, min(1.0, stop - time.monotonic())))
        finally:
            discovery.close()
        if data is None:
            raise TimeoutError("the server says nothing")
        sock = socket.create_connection(("127.0.0.1", Note.of(data).index), timeout=2.0)
        try:
            hello = _receive_exactly(sock)
            if hello is None:
                raise ConnectionError("the server takes no more clients")
            return self._opened(sock, Note.of(hello))
        except BaseException:
            sock.close()
            raise

    def _opened(self, sock: socket.socket, geometry: Note) -> _Connection:
        sock.setblocking(True)
        descriptor = os.open(os.path.join(MEMORY, memory_name(self._tag)), os.O_RDONLY)
        memory = mmap.mmap(descriptor, geometry.buffers * geometry.size, prot=mmap.PROT_READ)
        events = Queue(queue_name(self._tag, geometry.index), os.O_RDONLY)
        later = [geometry.returns] if geometry.returns else range(geometry.index + 1, geometry.queues + 1)
        onward = {k: Queue(queue_name(self._tag, k), os.O_WRONLY) for k in later}
        if self._team is not None:
            self._team.join(geometry.index)
        self._enabled = self._began = self._ran = False
        self._before = None
        poll = select.poll()
        queues = [q.fileno() for q in onward.values()]
        word = 0 if self._share is None else self._share.team
        drain = Drain(events.fileno(), descriptor, queues, geometry.size, word)
        for each in (sock.fileno(), drain.wake):
            poll.register(each, select.POLLIN)
        return _Connection(sock, memory, descriptor, events, onward, geometry, drain, poll)

    def _find_format(self, stop: float) -> str:
        """Wait for the first transition: its header tells the format."""
        while time.monotonic() < stop:
            connection = self._connection
            if connection is None or not self._ready(connection, 0.1):
                continue
            announced = self._announced(connection)
            if announced is None:
                continue
            message, data = announced
            for form in ("xtc2", "xtc"):
                try:
                    header = HEADERS[form](data)
                except FormatError:
                    continue
                self.form = form
                if self._counts(header):
                    self._first.append(Dgram(0, data[: header.size]))
                self._acknowledge(connection, message)
                return form
            raise ReadError(f"shmem://{self._tag}: the server sends neither XTC nor XTC2")
        raise ReadError(f"shmem://{self._tag}: a server, but no transition for {self._timeout:g} s")

    # ---- receiving ----------------------------------------------------------------------------
    def receive(self, seconds: float) -> Delivery | None:
        """Return what comes within some seconds, or None."""
        transitions: list[list[Dgram]] = [[d] for d in self._first]
        events: list[list[Dgram]] = []
        self._first = []
        stop = time.monotonic() + seconds
        while not events:
            connection = self._connection or self._again()
            left = stop - time.monotonic()
            if connection is None or left < 0:
                break
            connection.drain.ready()
            self._share_work(connection)
            told = self._ready(connection, 0.0 if connection.drain.waiting else left)
            if told and self._enabled and self._before != 0:
                self._wait_for_those_before(connection)
            events = self._events(connection)
            if told and not events:
                transition = self._transition(connection)
                transitions += [] if transition is None else [[transition]]
        anew, self._anew = self._anew, False
        late, self._late = self._late, 0
        if not (transitions or events or anew or late):
            return None
        return Delivery(transitions, events, missed=late, anew=anew)

    def _wait_for_those_before(self, connection: _Connection) -> None:
        """Wait until what was in the queue when the transition was announced is taken: it came before."""
        if self._before is None:
            self._before = connection.geometry.events  # no more than that
        connection.drain.ask()
        stop = time.monotonic() + DRAIN_SECONDS
        while not connection.drain.answered and time.monotonic() < stop:
            time.sleep(0.0005)

    def _events(self, connection: _Connection) -> list[list[Dgram]]:
        """Return what the other thread has taken; those that are no events are counted."""
        found: list[list[Dgram]] = []
        count = min(GROUP, connection.drain.waiting, GROUP if self._before is None else self._before)
        for _ in range(count):
            data = connection.drain.take()
            header = self._header(data)
            if header is not None and header.service == Service.L1_ACCEPT:
                found.append([Dgram(0, data)])
        if self._before is not None:
            self._before -= count
        self._late += connection.drain.late()
        return found

    def _share_work(self, connection: _Connection) -> None:
        """Leave what comes next to the others of the team, while much waits here and they have room."""
        if self._team is None:
            return
        busy = self.backlog() + connection.drain.waiting >= BUSY
        there = self._team.members() if busy else ()
        connection.drain.leave_to([q.fileno() for k, q in connection.onward.items() if k in there])

    def _again(self) -> _Connection | None:
        """Try to connect again after the server went away."""
        try:
            self._connection = self._try_to_connect(time.monotonic() + 0.1)
        except (OSError, ReadError):
            time.sleep(0.05)
            return None
        self._anew = True
        return self._connection

    def _ready(self, connection: _Connection, seconds: float) -> bool:
        """Wait until the socket or the other thread has something; return whether the socket has."""
        found = {fd for fd, _ in connection.poll.poll(max(0, int(1000 * seconds)))}
        if connection.drain.wake in found:
            os.eventfd_read(connection.drain.wake)
        return connection.sock.fileno() in found

    def _transition(self, connection: _Connection) -> Dgram | None:
        """Take a transition from its buffer, and give that back."""
        announced = self._announced(connection)
        if announced is None:
            return None
        message, data = announced
        header = self._header(data)
        counts = header is not None and self._counts(header)  # first: then events may come
        self._acknowledge(connection, message)
        return Dgram(0, data[: header.size]) if header is not None and counts else None

    def _announced(self, connection: _Connection) -> tuple[bytes, Data] | None:
        """Return what the socket says, and the bytes of its transition; None when the server went away."""
        self._before = None
        try:
            message = _receive_exactly(connection.sock)
        except OSError:
            message = None
        if message is None:
            connection.close()
            self._connection = None
            return None
        return message, self._copied(connection, Note.of(message))

    def _acknowledge(self, connection: _Connection, message: bytes) -> None:
        """Give the buffer of a transition back: events may follow."""
        try:
            connection.sock.sendall(message)
        except OSError:
            connection.close()
            self._connection = None

    def _counts(self, header: Header) -> bool:
        """Note a transition; tell whether it is one of a run: those before Map or Configure are not."""
        service = header.service
        self._began |= service in (Service.MAP, Service.CONFIGURE)
        if service not in (NEUTRAL if self._team is None else (*NEUTRAL, *ENDS)):
            self._enabled = service == Service.ENABLE
            self._ran |= self._enabled
            if self._connection is not None:
                self._connection.drain.enable(self.form, self._enabled, self._ran)
        return self._began

    def _copied(self, connection: _Connection, note: Note) -> Data:
        """Return a copy of the datagram in a buffer."""
        size, index = connection.geometry.size, note.index
        if not 0 <= index < connection.geometry.buffers:
            self.refused.add(f"buffer {index} of {connection.geometry.buffers}")
            return b""
        start = index * size
        form = getattr(self, "form", None)
        if form is None:
            return connection.memory[start : start + size]
        head = connection.memory[start : start + min(40, size)]
        try:
            wanted = HEADERS[form](head).size
        except FormatError:
            return head
        return connection.memory[start : start + min(wanted, size)]

    def _header(self, data: Data) -> Header | None:
        """Return the header of a whole datagram; count what is none."""
        try:
            header = HEADERS[self.form](data)
            if header.size > len(data):
                raise FormatError(f"a datagram of {header.size} bytes in a buffer of {len(data)}")
        except FormatError as error:
            self.refused.add(str(error))
            return None
        return header

    def close(self) -> None:
        """Let go."""
        if self._team is not None:
            self._team.leave()
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _receive_exactly(sock: socket.socket, size: int = 16) -> bytes | None:
    """Return so many bytes; None if the other side closed."""
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            return None
        data += more
    return data

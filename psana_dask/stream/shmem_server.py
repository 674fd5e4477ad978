"""A monitoring server like those of the DAQs, for tests and demonstrations: one run in shared memory."""

from __future__ import annotations

import contextlib
import mmap
import os
import socket
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from psana_dask.errors import ReadError
from psana_dask.model import Service
from psana_dask.readers.xtc2_layout import DGRAM, XTC
from psana_dask.readers.xtc_merge import FIRST_RECORDER
from psana_dask.recording import Recording
from psana_dask.stream.datagrams import HEADERS, Data, Dgram
from psana_dask.stream.mqueue import Queue, limit, unlink
from psana_dask.stream.replay import Moment, moments
from psana_dask.stream.sending import paced, repeated
from psana_dask.stream.shmem import MEMORY
from psana_dask.stream.shmem_layout import (
    TRANSITION_BUFFERS,
    Note,
    discovery_name,
    memory_name,
    queue_name,
)

FIRST_PORT = 32768
MOST_BUFFERS, BUFFER_BYTES = 32, 256 * 2**20
LAST_SECONDS = 2.0
"""How long clients get at the end to take what waits for them, at least."""

ANSWER_SECONDS = 5.0
"""How long a client gets to return a transition."""


def merged(form: str, dgrams: Sequence[Dgram]) -> Data | None:
    """Return one datagram from those of several streams, as an event builder makes it.

    LCLS-II: the contents of each stream become one container of the datagram. LCLS-1: the DAQ's
    datagram has all detectors; what recorders wrote is never in shared memory.
    """
    if form == "xtc":
        return next((d.data for d in dgrams if d.stream < FIRST_RECORDER), None)
    if len(dgrams) == 1:
        return dgrams[0].data
    parts = []
    for dgram in dgrams:
        payload = bytes(dgram.data)[DGRAM.itemsize :]
        head = bytearray(XTC.itemsize)  # a Parent without damage
        head[8:12] = (XTC.itemsize + len(payload)).to_bytes(4, "little")
        parts.append(bytes(head) + payload)
    whole = bytearray(bytes(dgrams[0].data)[: DGRAM.itemsize])
    whole[20:24] = (XTC.itemsize + sum(map(len, parts))).to_bytes(4, "little")
    return bytes(whole) + b"".join(parts)


@dataclass
class Served:
    """What a server has done."""

    events: int = 0
    dropped: int = 0
    taken_back: int = 0
    clients: int = 0

    def __str__(self) -> str:
        return f"{self.events:,} events, {self.dropped:,} dropped, {self.clients} clients"


@dataclass
class _Client:
    sock: socket.socket
    number: int
    owes: set[int] = field(default_factory=set)  # transition buffers that it has not returned


class ShmemServer:
    """Serves datagrams in shared memory.

    Parameters
    ----------
    tag : str
    form : {"xtc", "xtc2"}
    size : int
        Bytes of a buffer: of the largest datagram.
    clients : int
        How many there may be.
    buffers : int
        For events.
    serial : bool
        Every event goes from client to client (as xtcmonserver does); else each to one client.
    """

    def __init__(
        self, tag: str, form: str, size: int, *, clients: int = 2, buffers: int = 16, serial: bool = True
    ) -> None:
        if not 1 <= clients <= buffers or buffers + TRANSITION_BUFFERS > 255:
            raise ValueError(f"{clients} clients and {buffers} buffers: use 1 to {255 - TRANSITION_BUFFERS}")
        self._tag, self._form, self._serial = tag, form, serial
        self.served = Served()
        returns = 0 if serial else clients
        self._geometry = Note(0, buffers + TRANSITION_BUFFERS, clients, returns, -(-size // 4096) * 4096)
        self._queues: list[Queue] = []
        self._clients: list[_Client] = []
        self._history: list[tuple[Service, bytes]] = []
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._turn = 0
        try:
            self._open(clients, buffers)
        except BaseException:
            self._remove()
            raise
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def _open(self, clients: int, buffers: int) -> None:
        self._path = os.path.join(MEMORY, memory_name(self._tag))
        descriptor = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_TRUNC, 0o666)
        try:
            os.ftruncate(descriptor, self._geometry.buffers * self._geometry.size)
            self._memory = mmap.mmap(descriptor, self._geometry.buffers * self._geometry.size)
        finally:
            os.close(descriptor)
        self._names = [queue_name(self._tag, k) for k in range(clients + 1)] + [discovery_name(self._tag)]
        for name in self._names:
            unlink(name)
        depths = [max(1, buffers // clients)] * clients + [buffers, 2]  # one client cannot hold all buffers
        for name, depth in zip(self._names, depths, strict=True):
            self._queues.append(_as_deep_as_may_be(name, depth))
        self._free = list(range(buffers))
        self._listener = _listening()
        self._invite()

    def __enter__(self) -> ShmemServer:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop; the queues and the memory are removed."""
        self._stop.set()
        self._listener.close()
        self._accepting.join()
        with self._lock:
            for client in self._clients:
                client.sock.close()
        self._remove()

    def _remove(self) -> None:
        for queue in self._queues:
            queue.close()
            queue.unlink()
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(MEMORY, memory_name(self._tag)))

    # ---- clients ------------------------------------------------------------------------------
    def _invite(self) -> None:
        port = self._listener.getsockname()[1]
        self._queues[-1].send(Note(port, 0, 0, 0, 0).packed())

    def _accept(self) -> None:
        while not self._stop.is_set():
            try:
                sock, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            with self._lock:
                self._admit(sock)
                self._invite()

    def _admit(self, sock: socket.socket) -> None:
        """Give a client its number and what happened before it came."""
        sock.settimeout(ANSWER_SECONDS)
        taken = {c.number for c in self._clients}
        free = [k for k in range(self._geometry.queues) if k not in taken]
        if not free:
            sock.close()
            return
        client = _Client(sock, free[0])
        g = self._geometry
        with contextlib.suppress(OSError):
            sock.sendall(Note(client.number, g.buffers, g.queues, g.returns, g.size).packed())
            self._clients.append(client)
            self._clients.sort(key=lambda c: c.number)
            self.served.clients += 1
            for _, data in self._history:
                self._tell([client], data)

    def _lose(self, client: _Client) -> None:
        """Forget a client that went away, and take back what it holds."""
        if client in self._clients:
            self._clients.remove(client)
            client.sock.close()

    # ---- transitions --------------------------------------------------------------------------
    def transition(self, data: Data) -> None:
        """Send a transition to all clients, and wait until they took it."""
        data = bytes(data)
        service = HEADERS[self._form](data).service
        with self._lock:
            if service in (Service.MAP, Service.CONFIGURE):
                self._history = [h for h in self._history if service != Service.MAP and h[0] == Service.MAP]
            elif service == Service.BEGIN_RUN:
                self._history = [h for h in self._history if h[0] in (Service.MAP, Service.CONFIGURE)]
            elif service in (Service.ENABLE, Service.DISABLE, Service.SLOW_UPDATE):
                self._history = [h for h in self._history if h[0] != service]
            self._history.append((service, data))
            if service == Service.ENABLE:
                self._take_all_back()
            self._tell(list(self._clients), data)

    def _tell(self, clients: Sequence[_Client], data: bytes) -> None:
        index = self._geometry.events + self._turn % TRANSITION_BUFFERS
        self._turn += 1
        self._put(index, data)
        message = self._note(index)
        for client in clients:
            try:
                client.sock.sendall(message)
                answer = b""
                while len(answer) < len(message):
                    more = client.sock.recv(len(message) - len(answer))
                    if not more:
                        raise ConnectionError
                    answer += more
            except OSError:
                self._lose(client)

    # ---- events -------------------------------------------------------------------------------
    def event(self, data: Data, patience: float = 0.0) -> bool:
        """Give an event to the clients; return False if there was no room for it so long: it is dropped.

        Without patience unread events are taken back from the clients first, as the DAQ does.
        """
        stop = time.monotonic() + patience
        while True:
            with self._lock:
                index = self._buffer(steal=not patience)
                if index is not None and self._give(index, data, patient=patience > 0):
                    return True
            if time.monotonic() >= stop:
                self.served.dropped += 1
                return False
            time.sleep(0.0005)

    def settle(self, patience: float) -> None:
        """Wait until the clients returned all events."""
        stop = time.monotonic() + patience
        while time.monotonic() < stop:
            with self._lock:
                self._collect()
                if len(self._free) == self._geometry.events:
                    return
            time.sleep(0.001)

    def _buffer(self, *, steal: bool) -> int | None:
        self._collect()
        if not self._free and steal:
            self._take_back()
        return self._free.pop() if self._free else None  # the one that came back last is in the cache

    def _collect(self) -> None:
        """Take what came back, and what lies in queues that nobody reads."""
        reading = {c.number for c in self._clients}
        for number, queue in enumerate(self._queues[:-1]):
            if number == self._geometry.queues or number not in reading:
                while (message := queue.receive()) is not None:
                    self._onward(number, message, reading)

    def _onward(self, number: int, message: bytes, reading: set[int]) -> None:
        """Pass an event on from a queue without a reader; behind the last one its buffer is free."""
        later = [k for k in sorted(reading) if k > number] if self._serial else []
        if not any(self._queues[k].send(message) for k in later):
            self._free.append(Note.of(message).index)

    def _take_back(self) -> None:
        """Take one unread event from a client."""
        for client in self._clients:
            message = self._queues[client.number].receive()
            if message is not None:
                self._free.append(Note.of(message).index)
                self.served.taken_back += 1
                return

    def _take_all_back(self) -> None:
        before = -1
        while before != len(self._free):
            before = len(self._free)
            self._collect()
            self._take_back()

    def _give(self, index: int, data: Data, *, patient: bool) -> bool:
        """Put an event into a buffer and tell a client; return False if all their queues are full."""
        self._put(index, data)
        message = self._note(index)
        readers = self._clients if self._serial else self._round_robin()
        if self._serial and patient:
            readers = readers[:1]  # who comes first sees everything
        if readers and not any(self._queues[c.number].send(message) for c in readers):
            self._free.append(index)
            return False
        if not readers:
            self._free.append(index)
        self.served.events += 1
        return True

    def _round_robin(self) -> list[_Client]:
        self._turn += 1
        at = self._turn % max(1, len(self._clients))
        return self._clients[at:] + self._clients[:at]

    def _put(self, index: int, data: Data) -> None:
        if len(data) > self._geometry.size:
            raise ValueError(f"a datagram of {len(data)} bytes; buffers have {self._geometry.size}")
        start = index * self._geometry.size
        self._memory[start : start + len(data)] = data

    def _note(self, index: int) -> bytes:
        g = self._geometry
        return Note(index, g.buffers, g.queues, g.returns, g.size).packed()


def _as_deep_as_may_be(name: str, depth: int) -> Queue:
    """Return a queue of this depth, or of what the system allows."""
    flags = os.O_CREAT | os.O_RDWR
    try:
        return Queue(name, flags, depth)
    except ReadError:
        return Queue(name, flags, min(depth, limit("msg_max") or depth))


def _listening() -> socket.socket:
    """Return a listening socket, at a port from FIRST_PORT up."""
    for port in range(FIRST_PORT, 65536):
        sock = socket.socket()
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            sock.close()
            continue
        sock.listen(4)
        sock.settimeout(0.1)
        return sock
    raise OSError("no TCP port is free")


def serve_run(
    tag: str,
    recording: Recording,
    rate: float | None = None,
    *,
    loop: bool = False,
    wait: float = 0.0,
    clients: int = 2,
    buffers: int | None = None,
    serial: bool = True,
    patience: float | None = None,
    wait_clients: int = 0,
) -> Served:
    """Serve a run in shared memory; without `rate` events wait for their clients.

    Parameters
    ----------
    tag : str
    recording : Recording
    rate : float, optional
        Events a second. With one, events for which there is no buffer are dropped, as the DAQ does.
    loop : bool
        Again and again.
    wait : float
        Seconds before the first event.
    clients, buffers, serial
        As of `ShmemServer`; by default as many buffers as 256 MB have, at least 8 and at most 32.
    patience : float, optional
        Seconds that an event waits for a buffer; 10 without `rate`, else 0.
    wait_clients : int
        The first event waits until so many clients have come.
    """
    patience = (0.0 if rate else 10.0) if patience is None else patience
    size = max(int(s["size"].max()) + XTC.itemsize for s in recording.streams) + 4096
    size = size if recording.format == "xtc" else size * len(recording.streams)
    buffers = buffers or min(MOST_BUFFERS, max(8, clients, BUFFER_BYTES // size))
    with ShmemServer(tag, recording.format, size, clients=clients, buffers=buffers, serial=serial) as server:
        run = repeated(lambda: moments(recording), None if loop else 1)
        while server.served.clients < wait_clients:
            time.sleep(0.01)
        _serve(server, recording.format, run, rate, wait, patience)
        return server.served


def _serve(
    server: ShmemServer, form: str, run: Iterable[Moment], rate: float | None, wait: float, patience: float
) -> None:
    waited = False
    for moment in paced(run, rate, lambda m: int(m.service == Service.L1_ACCEPT)):
        data = merged(form, moment.dgrams)
        if data is None:
            continue
        if moment.service == Service.L1_ACCEPT:
            if not waited:
                time.sleep(wait)
                waited = True
            server.event(data, patience)
        else:
            server.settle(patience)
            server.transition(data)
    server.settle(max(patience, LAST_SECONDS))

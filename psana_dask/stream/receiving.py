"""Receiving a run over ZMQ."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from psana_dask.errors import FormatError, ReadError
from psana_dask.stream.datagrams import Dgram
from psana_dask.stream.sending import WAITING, address, zmq_library
from psana_dask.stream.taps import Delivery, Refusals
from psana_dask.stream.wire import MOST_BYTES, Kind, Message, packed_request, unpacked

ASK_SECONDS = 10.0
"""How long a sender gets to answer."""


class ZmqTap:
    """The tap of ``tcp://host:port``.

    Parameters
    ----------
    url : str
        Where a sender listens (`psana-dask serve --zmq`).
    timeout : float
        Seconds that the sender gets to appear.

    Raises
    ------
    ReadError
        Nobody answers.
    """

    def __init__(self, url: str, timeout: float = ASK_SECONDS) -> None:
        self._zmq = zmq_library()
        self._host, self._port = address(url)
        self._url, self._timeout = url, timeout
        self.refused = Refusals()
        self._context = self._zmq.Context()
        self._known = 0
        try:
            hello, _ = self._ask(0)
        except ReadError:
            self._context.term()
            raise
        self.form, self._session = hello.form, hello.session
        self._everyone = bool(hello.number)
        self._expected: int | None = None
        self._connect()

    def _connect(self) -> None:
        zmq = self._zmq
        self._socket = self._context.socket(zmq.SUB if self._everyone else zmq.PULL)
        self._socket.setsockopt(zmq.RCVHWM, WAITING)
        self._socket.setsockopt(zmq.MAXMSGSIZE, MOST_BYTES)
        self._socket.setsockopt(zmq.LINGER, 0)
        if self._everyone:
            self._socket.setsockopt(zmq.SUBSCRIBE, b"")
        self._socket.connect(f"tcp://{self._host}:{self._port}")

    @property
    def everyone(self) -> bool:
        """Whether the sender gives every event to every receiver."""
        return self._everyone

    def receive(self, seconds: float) -> Delivery | None:
        """Return what comes within some seconds, or None."""
        stop = time.monotonic() + seconds
        while (left := stop - time.monotonic()) > 0:
            if not self._socket.poll(max(1, int(1000 * left))):
                return None
            frames = self._socket.recv_multipart(copy=False)
            try:
                message = unpacked([f.buffer for f in frames])
            except FormatError as error:
                self.refused.add(str(error))
                continue
            return self._delivery(message)
        return None

    def _delivery(self, message: Message) -> Delivery:
        anew = message.session != self._session
        if anew:
            self._session, self._known, self._expected = message.session, 0, None
        transitions: list[Sequence[Dgram]] = []
        if message.state > self._known:
            transitions = self._ask(message.state)[1]
        missed = 0
        if self._everyone and self._expected is not None:
            missed = max(0, message.number - self._expected)
        self._expected = message.number + len(message.events)
        return Delivery(transitions, message.events, missed, anew, message.kind == Kind.END)

    def _ask(self, wanted: int) -> tuple[Message, list[Sequence[Dgram]]]:
        """Ask the sender for transitions up to `wanted`; return what it is, and them."""
        zmq = self._zmq
        socket = self._context.socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.MAXMSGSIZE, MOST_BYTES)
        try:
            socket.connect(f"tcp://{self._host}:{self._port + 1}")
            socket.send(packed_request(wanted, self._known))
            return self._answer(socket)
        finally:
            socket.close()

    def _answer(self, socket: Any) -> tuple[Message, list[Sequence[Dgram]]]:
        found: list[Sequence[Dgram]] = []
        while socket.poll(int(1000 * self._timeout)):
            try:
                message = unpacked(socket.recv_multipart())
            except FormatError as error:
                raise ReadError(
                    f"{self._url}: port {self._port + 1} answers, but not as a stream: {error}"
                ) from error
            if not message.events:
                self._known += len(found)
                return message, found
            found.append(message.events[0])
        raise ReadError(
            f"{self._url}: nobody answers at {self._host}:{self._port + 1} for {self._timeout:g} s; "
            f"is `psana-dask serve --zmq {self._url} SOURCE` running, and is the port after it open too?"
        )

    def close(self) -> None:
        """Let go."""
        self._socket.close()
        self._context.term()

"""Sending a run over ZMQ: events on one port, transitions on request on the next one.

Events go to one of the receivers each (``push``: with back-pressure, nothing is lost) or to all
of them (``pub``: who is too slow misses some, and counts them).  Transitions are asked for:
a message says how many there were, so a receiver may come late.
"""

from __future__ import annotations

import contextlib
import itertools
import secrets
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from psana_dask.errors import FormatError, MissingLibrary
from psana_dask.model import Service
from psana_dask.stream.datagrams import Dgram
from psana_dask.stream.replay import Moment
from psana_dask.stream.wire import Kind, Message, packed, unpacked_request

GROUP_BYTES = 4 * 2**20
GROUP_EVENTS = 64
"""Events that are sent in one message, at most."""

WAITING = 8
"""Messages that wait in the socket."""

END_SECONDS = 2.0


def zmq_library() -> Any:
    """Return the ZMQ library."""
    try:
        import zmq
    except ImportError as error:
        raise MissingLibrary.of("pyzmq", "stream", "a stream over tcp://") from error
    return zmq


def address(url: str) -> tuple[str, int]:
    """Return host and port of ``tcp://host:port``.

    Raises
    ------
    ValueError
        It is no such URL.
    """
    host, colon, port = url.removeprefix("tcp://").rpartition(":")
    if not (url.startswith("tcp://") and colon and host and port.isdigit()):
        raise ValueError(f"{url!r} is no address: tcp://HOST:PORT, such as tcp://127.0.0.1:5555")
    return host, int(port)


@dataclass
class Sent:
    """What a sender has sent."""

    events: int = 0
    messages: int = 0
    bytes: int = 0
    refused: int = 0


class Sender:
    """Sends what happens in a run to whoever asks.

    Parameters
    ----------
    url : str
        ``tcp://host:port``: where to listen; transitions are given out at port + 1.
    form : {"xtc", "xtc2"}
    pattern : {"push", "pub"}
    """

    def __init__(self, url: str, form: str, pattern: str = "push") -> None:
        zmq = zmq_library()
        if pattern not in ("push", "pub"):
            raise ValueError(
                f'pattern={pattern!r}: use "push" (each event to one receiver) or "pub" (to all)'
            )
        host, port = address(url)
        self._zmq, self._form = zmq, form
        self.session = secrets.randbits(63)
        self.sent = Sent()
        self._transitions: list[list[Dgram]] = []
        self._context = zmq.Context()
        self._events = self._context.socket(zmq.PUSH if pattern == "push" else zmq.PUB)
        self._events.setsockopt(zmq.SNDHWM, WAITING)
        self._events.setsockopt(zmq.LINGER, 2000)
        self._events.bind(f"tcp://{host}:{port}")
        self._answers = self._context.socket(zmq.ROUTER)
        self._answers.setsockopt(zmq.MAXMSGSIZE, 1024)
        self._answers.setsockopt(zmq.LINGER, 1000)
        self._answers.bind(f"tcp://{host}:{port + 1}")
        self._stop = threading.Event()
        self._pattern = pattern
        self._answering = threading.Thread(target=self._answer, daemon=True)
        self._answering.start()

    def __enter__(self) -> Sender:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop."""
        self._stop.set()
        self._answering.join()
        self._events.close()
        self._answers.close()
        self._context.term()

    def transition(self, dgrams: list[Dgram]) -> None:
        """Note a transition: the events that follow need it."""
        self._transitions.append(dgrams)

    def events(self, events: list[list[Dgram]]) -> None:
        """Send some events in one message; waits until there is room (``push``)."""
        message = Message(
            Kind.EVENTS, self._form, events, len(self._transitions), self.session, self.sent.events
        )
        frames = packed(message)
        self._events.send_multipart(frames, copy=False)
        self.sent.events += len(events)
        self.sent.messages += 1
        self.sent.bytes += sum(len(f) for f in frames)

    def end(self, seconds: float = END_SECONDS) -> None:
        """Tell every receiver that nothing more comes: for a while, again and again."""
        message = Message(Kind.END, self._form, [], len(self._transitions), self.session, self.sent.events)
        stop = time.monotonic() + seconds
        while time.monotonic() < stop:
            with contextlib.suppress(self._zmq.Again):
                self._events.send_multipart(packed(message), flags=self._zmq.NOBLOCK)
            time.sleep(0.02)

    def _answer(self) -> None:
        """Give out the transitions that receivers ask for."""
        zmq = self._zmq
        while not self._stop.is_set():
            if not self._answers.poll(50):
                continue
            who, *rest = self._answers.recv_multipart()
            try:
                wanted, known = unpacked_request(rest[-1] if rest else b"")
            except FormatError:
                self.sent.refused += 1
                continue
            for frames in self._asked(wanted, known):
                try:
                    self._answers.send_multipart([who, *frames], copy=False)
                except zmq.ZMQError:
                    break  # it went away

    def _asked(self, wanted: int, known: int) -> Iterator[list[Any]]:
        """Yield the answer: transitions one by one, each with its number; then what the sender is."""
        for number in range(known, min(wanted, len(self._transitions))):
            yield packed(
                Message(
                    Kind.TRANSITIONS, self._form, [self._transitions[number]], number + 1, self.session,
                    self.sent.events,
                )
            )  # fmt: skip
        hello = Message(
            Kind.TRANSITIONS, self._form, [], len(self._transitions), self.session,
            int(self._pattern == "pub"),
        )  # fmt: skip
        yield packed(hello)


def grouped(moments: Iterable[Moment], most: int = GROUP_EVENTS) -> Iterator[Moment | list[list[Dgram]]]:
    """Yield transitions, and events in groups that make good messages."""
    group: list[list[Dgram]] = []
    size = 0
    for moment in moments:
        if moment.service == Service.L1_ACCEPT:
            group.append(moment.dgrams)
            size += sum(len(d.data) for d in moment.dgrams)
        if group and (moment.service != Service.L1_ACCEPT or size >= GROUP_BYTES or len(group) >= most):
            yield group
            group, size = [], 0
        if moment.service != Service.L1_ACCEPT:
            yield moment
    if group:
        yield group


def paced(events: Iterable[Any], rate: float | None, count: Any = len) -> Iterator[Any]:
    """Yield things when they are due, `rate` events a second; at once if it is None.

    The clock starts with the first event and stands still while a transition waits for its clients:
    events do not come in a burst after it.
    """
    start: float | None = None
    given = 0
    for thing in events:
        counted = count(thing)
        if rate and counted and start is not None:
            time.sleep(max(0.0, start + given / rate - time.monotonic()))
        begun = time.monotonic()
        yield thing
        if start is None:
            start = time.monotonic() if counted else None
        elif not counted:
            start += time.monotonic() - begun
        given += counted


def serve(sender: Sender, moments: Iterable[Moment], rate: float | None = None) -> None:
    """Send a run.

    Parameters
    ----------
    sender : Sender
    moments : iterable of Moment
        See `replay.moments`.
    rate : float, optional
        Events a second; as fast as they are taken by default.
    """
    most = GROUP_EVENTS if rate is None else max(1, min(GROUP_EVENTS, int(rate / 50)))
    items = grouped(moments, most)
    for item in paced(items, rate, lambda i: len(i) if isinstance(i, list) else 0):
        if isinstance(item, list):
            sender.events(item)
        else:
            sender.transition(item.dgrams)


def repeated(make: Any, times: int | None) -> Iterator[Moment]:
    """Yield the moments of a run again and again."""
    for _ in range(times) if times is not None else itertools.count():
        yield from make()

"""Runs sent from another process over ZMQ: complete and equal, late receivers, drops, restarts."""

import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

import psana_dask
from psana_dask import simulate
from psana_dask.errors import ReadError, StreamWarning
from psana_dask.simulate.runs import DEMO_DETECTORS
from psana_dask.stream import open_stream
from psana_dask.stream.replay import moments
from psana_dask.stream.sending import Sender, grouped, paced, repeated, serve

zmq = pytest.importorskip("zmq")


@pytest.fixture(scope="module", params=["xtc2", "xtc"])
def closed(request, tmp_path_factory):
    detectors = tuple(d for d in DEMO_DETECTORS[request.param] if d.name not in ("cspad", "opal"))
    folder = tmp_path_factory.mktemp("closed")
    return psana_dask.open(simulate.demo_run(folder, 24, format=request.param, detectors=detectors))


@pytest.fixture
def url():
    while True:
        with socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            try:
                two.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return f"tcp://127.0.0.1:{port}"


@pytest.fixture
def server(url):
    """Start `psana-dask serve` on a source; all are stopped at the end."""
    started = []

    def start(source, *options):
        command = [sys.executable, "-m", "psana_dask", "serve", "--zmq", url, source, *options]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def folder_of(run):
    return str(__import__("pathlib").Path(run.files[0]).parent)


def test_everything_arrives_from_another_process(closed, server, url):
    server(folder_of(closed), "--rate", "200", "--wait", "1")
    name = "epixquad" if closed.format == "xtc2" else "epix100a"
    with open_stream(url, timeout=30) as stream:
        batches = list(stream.follow(batch=7, timeout=20))
        assert stream.counters.received == stream.counters.processed == len(closed)
    assert np.array_equal(np.concatenate([b.time.values for b in batches]), closed.events.time.values)
    got = np.concatenate([b[f"{name}_raw"].values for b in batches])
    assert np.array_equal(got, closed.dataset()[f"{name}_raw"].values)
    assert max(b.sizes["time"] for b in batches) <= 7


def test_nobody_there(url):
    with pytest.raises(ReadError, match="nobody answers"):
        open_stream(url, timeout=0.3)


def test_another_protocol_there(url):
    from psana_dask.stream.sending import address

    context = zmq.Context()
    rep = context.socket(zmq.ROUTER)
    rep.bind(f"tcp://127.0.0.1:{address(url)[1] + 1}")
    try:
        import threading

        def answer():
            who, *_ = rep.recv_multipart()
            rep.send_multipart([who, b"something else"])

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(ReadError, match="answers, but not as a stream"):
            open_stream(url, timeout=5)
        thread.join()
    finally:
        rep.close(linger=0)
        context.term()


@pytest.mark.parametrize("text", ["tcp://nowhere", "tcp://host:port", "http://a:1", "shm://x"])
def test_addresses_that_are_none(text):
    with pytest.raises(ValueError, match=r"no address|no stream"):
        open_stream(text)


def send(sender, run, first, last, most=4):
    """Send the events `first` to `last` of a run, and the transitions before them."""
    items, at = grouped(moments(run._recording), most), 0
    for item in items:
        if not isinstance(item, list):
            sender.transition(item.dgrams)
            continue
        some = item[max(0, first - at) : max(0, last - at)]
        at += len(item)
        if some:
            sender.events(some)
        if at >= last:
            return


def take(stream, count):
    """Batches until there are `count` events."""
    found = []
    for run in stream.follow_runs(batch=5, timeout=5):
        found.append(run)
        if sum(map(len, found)) >= count:
            return found
    return found


def test_a_receiver_that_comes_late_gets_the_transitions(closed, url):
    with Sender(url, closed.format, "pub") as sender:
        send(sender, closed, 0, 12)  # nobody listens
        with open_stream(url) as stream:
            time.sleep(0.3)  # a subscription takes a moment
            for item in list(grouped(moments(closed._recording), 4))[-6:]:
                if isinstance(item, list):
                    sender.events(item)
            runs = take(stream, 4)
            assert runs[0].number == closed.number
            assert stream.counters.unconfigured == 0


def test_what_a_slow_subscriber_misses_is_counted(closed, url):
    with Sender(url, closed.format, "pub") as sender, open_stream(url) as stream:
        time.sleep(0.3)
        send(sender, closed, 0, 8)
        take(stream, 8)
        sender.sent.events += 100  # as if a hundred had got lost on the way
        send(sender, closed, 8, 12)
        take(stream, 4)
        assert stream.counters.missed == 100


def test_a_sender_that_starts_again(closed, url):
    with open_with(closed, url) as (sender, stream):
        send(sender, closed, 0, 8)
        assert sum(map(len, take(stream, 8))) == 8
        sender.close()
        with Sender(url, closed.format) as again:
            send(again, closed, 0, 8)
            runs = take(stream, 8)
            assert sum(map(len, runs)) == 8
            assert stream.counters.restarts == 1


class open_with:
    """A sender and a stream that listens to it."""

    def __init__(self, run, url, **options):
        self.sender = Sender(url, run.format)
        self.stream = open_stream(url, **options)

    def __enter__(self):
        return self.sender, self.stream

    def __exit__(self, *error):
        self.stream.close()
        if not self.sender._context.closed:
            self.sender.close()


def test_foreign_and_oversized_messages_are_counted_and_passed_over(closed, url):
    with open_with(closed, url) as (sender, stream):
        sender._events.send_multipart([b"hello"])
        sender._events.send_multipart([b"x" * 36, b"", b""])
        send(sender, closed, 0, 8)
        assert sum(map(len, take(stream, 8))) == 8
        assert stream.counters.refused == 2


def test_the_policy_latest_drops_and_counts(closed, url):
    with open_with(closed, url, policy="latest", waiting=8) as (sender, stream):
        for _ in range(3):
            send(sender, closed, 0, 24)
        stop = time.monotonic() + 5
        while stream.counters.received < 72 and time.monotonic() < stop:
            time.sleep(0.02)
        sender.end(0.3)
        got = sum(len(r) for r in stream.follow_runs(batch=4, timeout=3))
        c = stream.counters
        assert c.received == 72
        assert got == c.processed <= 8
        assert c.received == c.processed + c.dropped


def test_the_policy_complete_holds_the_sender_back(closed, url):
    """With room for 8 events here and a few messages in the sockets, a slow consumer gets every event."""
    import threading

    with open_with(closed, url, waiting=8) as (sender, stream):
        made = lambda: moments(closed._recording)  # noqa: E731
        thread = threading.Thread(target=lambda: (serve(sender, repeated(made, 2)), sender.end(1.0)))
        thread.start()
        got = 0
        for run in stream.follow_runs(batch=3, timeout=10):
            got += len(run)
            time.sleep(0.02)
        thread.join()
        assert got == 2 * len(closed)
        assert stream.counters.dropped == stream.counters.missed == 0


def test_silence_ends_with_a_warning(closed, url):
    with open_with(closed, url) as (_, stream), pytest.warns(StreamWarning, match="no event for 0.3 s"):
        assert list(stream.follow(timeout=0.3)) == []


@pytest.mark.parametrize("closed", ["xtc2"], indirect=True)  # the format makes no difference
def test_serve_stops_at_a_signal(closed, server, url):
    process = server(folder_of(closed), "--rate", "50", "--loop")
    with open_stream(url, timeout=30) as stream:
        take(stream, 5)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 130


def test_a_transition_that_waits_is_followed_by_no_burst():
    """Ten events at 100 Hz; between them something that takes long and is no event."""
    begun = []
    for thing in paced([1] * 5 + [0] + [1] * 5, 100.0, int):
        begun.append(time.monotonic())
        time.sleep(0 if thing else 0.1)
    assert begun[-1] - begun[0] >= 0.1 + 9 * 0.01


def test_without_a_rate_nothing_waits():
    began = time.monotonic()
    assert list(paced(range(1000), None, int)) == list(range(1000))
    assert time.monotonic() - began < 1

"""Shared-memory streams: a server in another process, several clients, restarts, limits, the protocol."""

import os
import subprocess
import sys
import threading
import time
import uuid

import numpy as np
import pytest

import psana_dask
from psana_dask import simulate
from psana_dask.errors import FormatError, ReadError
from psana_dask.simulate.runs import DEMO_DETECTORS
from psana_dask.stream import mqueue, open_stream
from psana_dask.stream.mqueue import Queue
from psana_dask.stream.replay import moments
from psana_dask.stream.shmem import ShmemTap
from psana_dask.stream.shmem_layout import TRANSITION_BUFFERS, Note, discovery_name, memory_name, queue_name
from psana_dask.stream.shmem_server import ShmemServer, merged, serve_run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="POSIX message queues are Linux only")


@pytest.fixture(scope="module", params=["xtc2", "xtc"])
def closed(request, tmp_path_factory):
    detectors = tuple(d for d in DEMO_DETECTORS[request.param] if d.name not in ("cspad", "opal"))
    folder = tmp_path_factory.mktemp("closed")
    return psana_dask.open(simulate.demo_run(folder, 24, format=request.param, detectors=detectors))


@pytest.fixture
def tag():
    return f"test_{uuid.uuid4().hex[:12]}"


class serving:
    """Serve a run in a thread while the block runs; `served` says what was done."""

    def __init__(self, run, tag, **options):
        self.thread = threading.Thread(target=self._serve, args=(run, tag, options))

    def _serve(self, run, tag, options):
        self.served = serve_run(tag, run._recording, **options)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.thread.join()


def taken(stream, count):
    """Batches until there are `count` events."""
    found = []
    for run in stream.follow_runs(batch=5, timeout=10):
        found.append(run)
        if sum(map(len, found)) >= count:
            break
    return found


def in_threads(function, arguments):
    threads = [threading.Thread(target=function, args=(k,)) for k in arguments]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def times_of(runs):
    return np.concatenate([r.events.time.values for r in runs])


def frames_name(run):
    return "epixquad" if run.format == "xtc2" else "epix100a"


def test_a_server_in_another_process(closed, tag):
    folder = os.path.dirname(closed.files[0])
    command = [sys.executable, "-m", "psana_dask", "serve", "--shmem", tag, folder, "--wait", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        with open_stream(f"shmem://{tag}", timeout=60) as stream:
            runs = taken(stream, len(closed))
            assert np.array_equal(times_of(runs), closed.events.time.values)
            got = np.concatenate([r[frames_name(closed)].raw.values for r in runs])
            assert np.array_equal(got, closed[frames_name(closed)].raw.values)
            assert np.array_equal(np.concatenate([r.events.step for r in runs]), closed.events.step)
            assert stream.counters.refused == 0
        assert b"24 events, 0 dropped, 1 clients" in process.communicate(timeout=20)[0]
        assert process.returncode == 0
    assert not os.path.exists(f"/dev/shm/{memory_name(tag)}")


@pytest.mark.parametrize("closed", ["xtc2"], indirect=True)  # the format makes no difference
def test_a_server_that_is_terminated_leaves_nothing(closed, tag):
    command = [sys.executable, "-m", "psana_dask", "serve", "--shmem", tag, os.path.dirname(closed.files[0])]
    with (
        subprocess.Popen([*command, "--loop", "--rate", "50"], stdout=subprocess.PIPE) as process,
        open_stream(f"shmem://{tag}", timeout=60) as stream,
    ):
        taken(stream, 5)
        process.terminate()
        assert process.wait(timeout=10) == 130
    assert not os.path.exists(f"/dev/shm/{memory_name(tag)}")


@pytest.mark.parametrize("serial", [True, False])
def test_several_clients(closed, tag, serial):
    """In serial mode an event goes from client to client, past one that has no room; else to one of them."""
    with serving(closed, tag, clients=2, wait=0.7, serial=serial, buffers=8):
        streams = [open_stream(f"shmem://{tag}") for _ in range(2)]
        seen = [[], []]

        def read(k):
            for run in streams[k].follow_runs(timeout=1.5):
                seen[k].append(run)

        with pytest.warns(psana_dask.errors.StreamWarning):
            in_threads(read, range(2))
        for stream in streams:
            stream.close()
    both = [times_of(s) for s in seen]
    want = closed.events.time.values
    if serial:
        assert np.array_equal(both[0], want)
        assert len(both[1]) > 0
        assert np.isin(both[1], want).all()
    else:
        assert min(map(len, both)) > 0
        assert np.array_equal(np.sort(np.concatenate(both)), want)


def test_more_clients_than_the_server_takes(closed, tag):
    with serving(closed, tag, clients=1, wait=1.0), open_stream(f"shmem://{tag}") as stream:
        with pytest.raises(ReadError, match="takes no more clients"):
            open_stream(f"shmem://{tag}", timeout=0.3)
        assert len(times_of(taken(stream, len(closed)))) == len(closed)


def test_a_server_that_is_started_again(closed, tag):
    with serving(closed, tag, wait=0.7):
        stream = open_stream(f"shmem://{tag}")
        first = taken(stream, len(closed))
    with serving(closed, tag, wait=1.0):
        second = taken(stream, len(closed))
    assert np.array_equal(times_of(first), times_of(second))
    assert stream.counters.restarts == 1
    name = frames_name(closed)
    assert np.array_equal(first[0][name].raw.values[0], second[0][name].raw.values[0])
    stream.close()


def test_a_client_that_comes_late_gets_the_configuration(closed, tag):
    with serving(closed, tag, rate=60.0):
        time.sleep(0.15)
        with open_stream(f"shmem://{tag}") as stream:
            run = taken(stream, 1)[0]
            assert run.number == closed.number
            assert np.isin(run.events.time.values, closed.events.time.values).all()


def test_events_that_nobody_takes_are_taken_back(closed, tag):
    """Without patience the server reuses buffers: a client that sleeps loses events, gets no wrong ones."""
    made = [(m.service.name, merged(closed.format, m.dgrams)) for m in moments(closed._recording)]
    made = [(name, data) for name, data in made if data is not None]
    first = next(k for k, (name, _) in enumerate(made) if name == "L1_ACCEPT")
    events = [data for name, data in made if name == "L1_ACCEPT"]
    with ShmemServer(tag, closed.format, max(len(d) for _, d in made), clients=1, buffers=3) as server:
        for _, data in made[:first]:
            server.transition(data)
        tap = ShmemTap(tag)
        while not tap._enabled:
            tap.receive(0.1)
        drain = tap._connection.drain
        memory, drain._slots[:] = drain._slots.copy(), 0  # events stay where they are
        time.sleep(0.05)
        for data in events:
            server.event(data)
        drain._slots[:] = memory
        got = []
        while (delivery := tap.receive(0.2)) is not None:
            got += [bytes(d.data) for e in delivery.events for d in e]
        tap.close()
    assert len(got) == 3
    assert got == events[-3:]
    assert server.served.taken_back == len(events) - 3


def test_no_server(tag):
    with pytest.raises(ReadError, match=f"no server of this tag.*{tag}"):
        open_stream(f"shmem://{tag}", timeout=0.2)


# ---- the protocol -------------------------------------------------------------------------------
def test_the_bits_of_a_message():
    note = Note(index=5, buffers=8 + TRANSITION_BUFFERS, queues=3, returns=3, size=0x123456)
    data = note.packed()
    assert data == bytes.fromhex("05000000 1a030300 56341200 00000000")
    assert Note.of(data) == note
    assert note.events == 8
    with pytest.raises(FormatError, match="15 bytes"):
        Note.of(data[:15])


def test_the_names(tag):
    assert memory_name("amo") == "PdsMonitorSharedMemory_amo"
    assert discovery_name("amo") == "/PdsFromMonitorDiscovery_amo"
    assert queue_name("amo", 2) == "/PdsToMonitorEvQueue_amo_2"


@pytest.fixture
def queue(tag):
    made = Queue(f"/{tag}", os.O_CREAT | os.O_RDWR, depth=2)
    yield made
    made.close()
    made.unlink()


def test_queues_are_first_in_first_out_and_have_an_end(queue):
    assert queue.receive() is None
    assert queue.send(b"one")
    assert queue.send(b"two")
    start = time.monotonic()
    assert not queue.send(b"three", seconds=0.1)
    assert time.monotonic() - start > 0.05
    assert [queue.receive(), queue.receive(), queue.receive()] == [b"one", b"two", None]


def test_a_queue_that_is_not_there(tag):
    with pytest.raises(FileNotFoundError):
        Queue(f"/{tag}", os.O_RDONLY)


def test_a_depth_above_the_limit_is_explained(tag, monkeypatch):
    """The administrator may make deeper queues; others are told the limit."""
    library = mqueue._library()

    class Refusing:
        def __getattr__(self, name):
            return getattr(library, name)

        def mq_open(self, *arguments):
            import ctypes
            import errno

            ctypes.set_errno(errno.EINVAL)
            return -1

    monkeypatch.setattr(mqueue, "_library", Refusing)
    with pytest.raises(ReadError, match=r"64 messages are more than fs.mqueue.msg_max = \d+ allows.*sysctl"):
        Queue(f"/{tag}", os.O_CREAT | os.O_RDWR, depth=64)


def test_limits_of_the_system():
    assert mqueue.limit("msg_max") >= 1
    assert mqueue.limit("nonsense") is None


def test_streams_are_merged_into_one_datagram(closed):
    """As an event builder does: all blocks of all streams of an event, in one datagram of the right size."""
    event = max(moments(closed._recording), key=lambda m: (m.service.name == "L1_ACCEPT", len(m.dgrams)))
    data = merged(closed.format, event.dgrams)
    from psana_dask.stream.datagrams import checked

    assert checked(closed.format, data).service.name == "L1_ACCEPT"
    if closed.format == "xtc2":
        assert all(bytes(d.data)[24:] in data for d in event.dgrams)

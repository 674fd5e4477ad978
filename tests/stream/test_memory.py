"""Memory of datagrams: used again when nobody holds it, and never before."""

import gc
import os
import sys

import numpy as np
import pytest

from psana_dask.sources import FileSource
from psana_dask.stream import memory
from psana_dask.stream.memory import SMALL, Landing, MemoryFile


def whole(file):
    out = np.empty(file.size, np.uint8)
    FileSource(file.path).read_into(0, out)
    return out.tobytes()


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="anonymous memory is of Linux")
def test_memory_of_a_file_that_is_gone_is_used_again_and_its_bytes_are_not_seen(monkeypatch):
    gc.collect()
    monkeypatch.setattr(memory, "_IDLE", memory._Idle())
    first = MemoryFile(".xtc2")
    first.append([b"x" * 100_000])
    inode, path = os.stat(first.path).st_ino, first.path
    del first
    gc.collect()
    assert not os.path.lexists(path)
    second = MemoryFile()
    assert os.stat(second.path).st_ino == inode
    assert FileSource(second.path).size() == 0
    second.append([b"new", b"er"])
    assert FileSource(second.path).size() == 5
    assert whole(second) == b"newer"


def test_more_pieces_than_the_system_takes_at_once():
    file = MemoryFile()
    file.append([bytes([k % 256]) for k in range(3000)])
    file.append([b"end"])
    assert whole(file) == bytes(k % 256 for k in range(3000)) + b"end"


def test_copies_are_not_overwritten_while_they_are_held():
    landing, held = Landing(), []
    for k in range(5):
        held.append(landing.copied(memoryview(bytes([k]) * 100_000)))
        if len(held) > 2:
            held.pop(0)
    assert [bytes(h[:2]) for h in held] == [bytes([k, k]) for k in (3, 4)]
    assert bytes(held[0]) == bytes([3]) * 100_000
    assert sum(map(len, landing._arrays.values())) <= 4


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="counts references")
def test_trimming_frees_what_nobody_holds_beyond_what_is_kept(monkeypatch):
    monkeypatch.setattr(memory, "MOST_IDLE_BYTES", 300_000)
    landing = Landing()
    held = [landing.copied(memoryview(bytes([k]) * 100_000)) for k in range(6)]
    landing.trim()
    assert sum(map(len, landing._arrays.values())) == 6
    last = held.pop()
    held.clear()
    landing.trim()
    kept = [a for arrays in landing._arrays.values() for a in arrays]
    assert 1 <= len(kept) <= 3
    assert bytes(last) == bytes([5]) * 100_000
    fresh = landing.copied(memoryview(b"new" * 40_000))
    assert bytes(fresh) == b"new" * 40_000
    assert bytes(last) == bytes([5]) * 100_000


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="counts references")
def test_small_and_large_copies_have_the_bytes():
    landing = Landing()
    for size in (0, 1, SMALL - 1, SMALL, SMALL + 1, 3 * SMALL + 7):
        data = os.urandom(size)
        assert bytes(landing.copied(memoryview(data))) == data

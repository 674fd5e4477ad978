"""Index and small-data files: read, refused when cut, and never trusted."""

import struct

import numpy as np
import pytest

from psana_dask.errors import FormatError, TruncatedError
from psana_dask.readers.xtc_index_files import (
    IDX_EVENT,
    IDX_STEP,
    Idx,
    IdxSegment,
    big_file_of,
    headers_at,
    idx_file_of,
    read_idx,
    verify_offsets,
    write_idx,
)
from psana_dask.readers.xtc_layout import TransitionId
from psana_dask.readers.xtc_write import dgram
from psana_dask.sources import MemorySource


def small_run(events=5):
    clocks = [(9 + i) << 32 | 7 for i in range(events)]
    pieces = [
        dgram(TransitionId.L1_ACCEPT, [bytes(20)], timestamp=clock, fiducial=3 * i)
        for i, clock in enumerate(clocks)
    ]
    return b"".join(pieces), [i * len(pieces[0]) for i in range(events)]


def index(offsets):
    events = np.zeros(len(offsets), IDX_EVENT)
    events["seconds"], events["nanoseconds"] = 9 + np.arange(len(offsets)), 7
    events["fiducial"], events["offset"] = 3 * np.arange(len(offsets)), offsets
    steps = np.zeros(2, IDX_STEP)
    steps["first_event"] = [0, 3]
    node = IdxSegment(1 << 24, 77, ((1 << 24, 256, 19), (6 << 24, 0, 15)))
    return Idx("e1-r0001-s00-c00.xtc", events, steps, np.array([140, 40], np.uint8), (node,))


def test_round_trip():
    idx = read_idx(write_idx(index([0, 60])))
    assert idx.name == "e1-r0001-s00-c00.xtc"
    assert idx.codes.tolist() == [140, 40]
    assert idx.steps["first_event"].tolist() == [0, 3]
    assert idx.segments == index([]).segments
    assert np.array_equal(idx.events, index([0, 60]).events)


def test_version_1():
    head = struct.pack("<I32shbbi", 38 | 1 << 16, b"old.xtc", 0, 1, 0, 1)
    idx = read_idx(head + index([5]).events.tobytes() + b"\x8c")
    assert (idx.name, idx.codes.tolist(), idx.events["offset"].tolist()) == ("old.xtc", [140], [5])


def test_a_cut_index_is_an_error():
    data = write_idx(index([0, 60]))
    for size in range(len(data)):
        with pytest.raises(TruncatedError if size >= 4 else FormatError):
            read_idx(data[:size])


def test_something_else_is_no_index():
    with pytest.raises(FormatError, match="not an \\.idx file"):
        read_idx(small_run()[0])


def test_wrong_offsets_are_mended():
    data, offsets = small_run()
    said = [offsets[0], offsets[0], offsets[1], offsets[3], 10_000]
    mended, problems = verify_offsets(index(said), MemorySource(data, "run.xtc"))
    assert mended.tolist() == [*offsets[:4], -1]
    assert [(p.file, p.offset) for p in problems] == [("run.xtc", said[i]) for i in (1, 2, 4)]
    assert f"the datagram is at byte {offsets[1]}" in problems[0].what
    assert problems[1].event == 11 << 32 | 7


def test_headers_outside_the_file_are_zero():
    data, offsets = small_run(2)
    headers = headers_at(MemorySource(data), np.array([offsets[1], -5, len(data) - 39, 1 << 40]))
    assert headers["seconds"].tolist() == [10, 0, 0, 0]


def test_where_the_files_lie():
    assert big_file_of("/d/xtc/smalldata/x-r0001-s00-c00.smd.xtc") == "/d/xtc/x-r0001-s00-c00.xtc"
    assert big_file_of("smalldata/x.smd.xtc") == "x.xtc"
    assert big_file_of("/d/x.smd.xtc") == "/d/x.xtc"
    assert idx_file_of("/d/xtc/x.xtc") == "/d/xtc/index/x.xtc.idx"
    assert idx_file_of("x.xtc") == "index/x.xtc.idx"

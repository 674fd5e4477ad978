"""psana's rules of event order, on streams made here."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psana_dask.readers.xtc_layout import FIDUCIALS, TransitionId
from psana_dask.readers.xtc_merge import LOOK_AHEAD, Stream, merge_order, sort_stream

L1 = TransitionId.L1_ACCEPT
CONFIGURE, BEGIN, END = TransitionId.CONFIGURE, TransitionId.BEGIN_CALIB_CYCLE, TransitionId.END_CALIB_CYCLE


def stream(number, *dgrams):
    """A stream of (service, seconds, fiducial) or (service, seconds, fiducial, nanoseconds)."""
    rows = np.array([(*d, 0)[:4] for d in dgrams], np.int64).reshape(-1, 4)
    service, seconds, fiducial, nanoseconds = rows.T
    clock = seconds.astype(np.uint64) << np.uint64(32) | nanoseconds.astype(np.uint64)
    return Stream(number, service.astype(np.uint32), clock, fiducial.astype(np.uint32))


def groups(*streams):
    order = merge_order(streams)
    bounds = zip(order.first[:-1], order.first[1:], strict=True)
    return [list(zip(order.stream[a:b].tolist(), order.row[a:b].tolist(), strict=True)) for a, b in bounds]


def test_daq_events_never_join_even_with_equal_times():
    assert groups(stream(0, (L1, 5, 9)), stream(1, (L1, 5, 9))) == [[(0, 0)], [(1, 0)]]


def test_recorders_join_by_fiducial():
    daq = stream(0, (L1, 100, 6), (L1, 101, 9))
    camera = stream(80, (L1, 184, 6), (L1, 184, 8, 1), (L1, 186, 9))
    assert groups(daq, camera) == [[(0, 0), (1, 0)], [(1, 1)], [(0, 1)], [(1, 2)]]


def test_fiducials_wrap():
    daq = stream(0, (L1, 1, FIDUCIALS - 3), (L1, 1, 3))
    other = stream(1, (L1, 1, 0))
    assert groups(daq, other) == [[(0, 0)], [(1, 0)], [(0, 1)]]


def test_transitions_join_when_kind_and_clock_agree():
    a = stream(0, (CONFIGURE, 1, 0), (BEGIN, 2, 0), (L1, 3, 3), (END, 4, 0))
    b = stream(1, (CONFIGURE, 1, 0), (BEGIN, 2, 0, 1), (L1, 3, 6), (END, 4, 0))
    assert groups(a, b) == [[(0, 0), (1, 0)], [(0, 1)], [(1, 1)], [(0, 2)], [(1, 2)], [(0, 3), (1, 3)]]


def test_events_stay_in_their_step():
    a = stream(0, (BEGIN, 1, 0), (END, 2, 0), (BEGIN, 3, 0), (L1, 4, 6))
    b = stream(1, (BEGIN, 1, 0), (L1, 9, 900), (END, 2, 0), (BEGIN, 3, 0))
    assert groups(a, b)[:3] == [[(0, 0), (1, 0)], [(1, 1)], [(0, 1), (1, 2)]]


def test_what_is_left_out():
    enable, disable = (TransitionId.ENABLE, 1, 0), (TransitionId.DISABLE, 4, 0)
    a = stream(0, enable, (L1, 2, 131071), (L1, 2, FIDUCIALS), (L1, 3, 6), disable)
    assert groups(a) == [[(0, 3)]]


def test_nothing():
    assert groups() == []
    assert groups(stream(0)) == []


def test_out_of_order_within_the_look_ahead():
    clocks = list(range(LOOK_AHEAD + 5))
    late = [*clocks[1:LOOK_AHEAD], 0, *clocks[LOOK_AHEAD:]]
    rows = sort_stream(stream(0, *((L1, 10 + c, 3 * c) for c in late)))
    assert [late[r] for r in rows] == clocks
    too_late = [*clocks[1 : LOOK_AHEAD + 1], 0]
    rows = sort_stream(stream(0, *((L1, 10 + c, 3 * c) for c in too_late)))
    assert [too_late[r] for r in rows] == [1, 0, *clocks[2 : LOOK_AHEAD + 1]]


def test_no_event_crosses_a_transition():
    assert sort_stream(stream(0, (L1, 5, 0), (END, 6, 0), (L1, 1, 0))).tolist() == [0, 1, 2]


def test_twins_of_a_recorder_are_dropped():
    dgrams = [(L1, 1, 0), (L1, 2, 3), (L1, 2, 6), (L1, 3, 9)]
    assert sort_stream(stream(80, *dgrams)).tolist() == [0, 3]
    assert sort_stream(stream(0, *dgrams)).tolist() == [0, 1, 2, 3]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=80), st.randoms())
def test_every_event_comes_once_and_in_order(where, random):
    """Events dealt to 3 DAQ streams and a recorder come back in the order of their fiducials."""
    dealt = [[], [], [], []]
    for i, place in enumerate(where):
        dealt[place].append((L1, 1000 + i // 10, (FIDUCIALS - 60 + 3 * i) % FIDUCIALS, i))
    streams = [stream(number, *rows) for number, rows in zip((0, 1, 5, 80), dealt, strict=True)]
    order = merge_order(streams)
    found = [int(streams[s].timestamp[r]) & 0xFFFFFFFF for s, r in zip(order.stream, order.row, strict=True)]
    assert found == list(range(len(where)))
    assert len(order) == len(where)


def test_a_million_datagrams_are_merged():
    n = 250_000
    clock = np.arange(n, dtype=np.uint64) << np.uint64(32)
    fiducials = [(4 * np.arange(n) + s) % FIDUCIALS for s in range(4)]
    streams = [Stream(s, np.full(n, int(L1)), clock, f) for s, f in enumerate(fiducials)]
    order = merge_order(streams)
    assert len(order) == 4 * n
    assert np.array_equal(order.stream[:8], [0, 1, 2, 3] * 2)


@pytest.mark.parametrize("recorder", [False, True])
def test_a_stream_in_order_stays(recorder):
    rows = sort_stream(stream(80 if recorder else 0, *((L1, i, 3 * i) for i in range(100))))
    assert rows.tolist() == list(range(100))

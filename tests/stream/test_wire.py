"""The wire format: what goes in comes out; everything else is refused, and nothing is ever unpickled."""

import contextlib
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from psana_dask.errors import FormatError
from psana_dask.readers import xtc2_write, xtc_write
from psana_dask.readers.xtc_layout import TransitionId
from psana_dask.stream import wire
from psana_dask.stream.datagrams import Dgram
from psana_dask.stream.wire import Kind, Message, packed, packed_request, unpacked, unpacked_request

ONE = wire.HEADER.pack(b"PSDS", 1, 2, 1, 1, 0, 0, 0)


def dgrams(form, sizes):
    """Datagrams with payloads of the given sizes."""
    if form == "xtc2":
        return [Dgram(k, xtc2_write.datagram(5 << 32 | k, 12, bytes(n))) for k, n in enumerate(sizes)]
    made = [xtc_write.dgram(TransitionId.L1_ACCEPT, [bytes(n // 4 * 4)], timestamp=5 << 32) for n in sizes]
    return [Dgram(k, data) for k, data in enumerate(made)]


def message(form="xtc2", events=((3, 40), (0,)), **changes):
    given = {"state": 7, "session": 1 << 60, "number": 12} | changes
    return Message(Kind.EVENTS, form, [dgrams(form, sizes) for sizes in events], **given)


@given(
    st.sampled_from(["xtc", "xtc2"]),
    st.lists(st.lists(st.integers(0, 100), min_size=1, max_size=3), max_size=4),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**64 - 1),
)
def test_what_goes_in_comes_out(form, events, state, number):
    sent = message(form, events, state=state, number=number)
    got = unpacked(packed(sent))
    assert [[(d.stream, bytes(d.data)) for d in e] for e in got.events] == [
        [(d.stream, bytes(d.data)) for d in e] for e in sent.events
    ]
    assert (got.kind, got.form, got.state, got.session, got.number) == (
        Kind.EVENTS, form, state, 1 << 60, number,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("frames", "said"),
    [
        ([], "0 frames"),
        ([b"hello"], "1 frames of 5 bytes"),
        ([pickle.dumps({"a": 1}), b"", b""], "no message of psana_dask"),
        ([bytes(wire.HEADER.size), b"", b""], "begins with"),
        ([wire.HEADER.pack(b"PSDS", 2, 2, 1, 0, 0, 0, 0), b"", b""], "version 2; this is version 1"),
        ([wire.HEADER.pack(b"PSDS", 1, 9, 1, 0, 0, 0, 0), b"", b""], "format 9"),
        ([wire.HEADER.pack(b"PSDS", 1, 2, 8, 0, 0, 0, 0), b"", b""], "kind 8"),
        ([wire.HEADER.pack(b"PSDS", 1, 2, 1, 2**32 - 1, 0, 0, 0), b"", b""], "4294967295 datagrams"),
        ([ONE, struct.pack("<IHH", 99, 0, 0), bytes(9)], "does not fit"),
        ([ONE, struct.pack("<IHH", 24, 0, 5), bytes(24)], "does not fit"),
        ([ONE, struct.pack("<IHH", 24, 0, 0), b"\xff" * 24], "no XTC2"),
    ],
)  # fmt: skip
def test_what_is_refused(frames, said):
    with pytest.raises(FormatError, match=said):
        unpacked(frames)


def test_a_datagram_of_another_size_than_it_says_is_refused():
    header, table, body = packed(message(events=((40,),)))
    rows = np.frombuffer(table, wire.TABLE).copy()
    rows["size"] += 4
    with pytest.raises(FormatError, match="a datagram of 64 bytes in 68"):
        unpacked([header, rows.tobytes(), bytes(body) + bytes(4)])


@pytest.mark.parametrize("bit", range(8))
def test_flipped_bits_never_do_more_than_raise_format_errors(bit):
    frames = [bytes(f) for f in packed(message())]
    for k, frame in enumerate(frames):
        for at in range(len(frame)):
            broken = bytearray(frame)
            broken[at] ^= 1 << bit
            with contextlib.suppress(FormatError):
                unpacked([*frames[:k], bytes(broken), *frames[k + 1 :]])


def test_requests():
    assert unpacked_request(packed_request(9, 3)) == (9, 3)
    for data in (b"", b"x" * 16, wire.REQUEST.pack(b"PSDS", 2, 0, 1, 0)):
        with pytest.raises(FormatError, match="no request"):
            unpacked_request(data)


def test_too_many_datagrams_for_a_message():
    with pytest.raises(ValueError, match="65535 are the most"):
        packed(Message(Kind.EVENTS, "xtc2", [dgrams("xtc2", [0])] * 65_536, 0, 0, 0))


def test_the_streams_use_no_pickle():
    folder = Path(wire.__file__).parent
    for path in folder.glob("*.py"):
        assert "pickle" not in path.read_text().replace("no pickle", ""), path.name

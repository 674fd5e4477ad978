"""The compiled copy of many pieces of a file."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psana_dask.gather import NEAR, WINDOW, read_pieces

SIZE = 3 * WINDOW
DATA = np.random.default_rng(0).integers(0, 256, SIZE, np.uint8)


@pytest.fixture(scope="module")
def descriptor(tmp_path_factory):
    path = tmp_path_factory.mktemp("gather") / "data"
    path.write_bytes(DATA.tobytes())
    opened = os.open(path, os.O_RDONLY)
    yield opened
    os.close(opened)


def copied(descriptor, offsets, sizes):
    offsets, sizes = np.asarray(offsets, np.int64), np.asarray(sizes, np.int64)
    places = np.cumsum(sizes[::-1])[::-1] - sizes  # filled from the back
    out = np.zeros(int(sizes.sum()), np.uint8)
    return read_pieces(descriptor, offsets, sizes, out, places), out, places


NEAR_SIZES = st.integers(0, 300) | st.sampled_from([NEAR, NEAR + 1, WINDOW - 1, WINDOW, WINDOW + 5])
PIECES = st.lists(st.tuples(st.integers(0, SIZE), NEAR_SIZES), max_size=30)


@settings(max_examples=200)
@given(pieces=PIECES, ordered=st.booleans())
def test_pieces_are_those_of_the_file(descriptor, pieces, ordered):
    pieces = [(min(o, SIZE - s), s) for o, s in (sorted(pieces) if ordered else pieces)]
    failed, out, places = copied(descriptor, [o for o, _ in pieces], [s for _, s in pieces])
    assert failed == -1
    for (offset, size), place in zip(pieces, places, strict=True):
        np.testing.assert_array_equal(out[place : place + size], DATA[offset : offset + size])


@pytest.mark.parametrize("stride", [8, 100, NEAR, NEAR + 1])
def test_a_column_of_small_values(descriptor, stride):
    offsets = np.arange(0, SIZE - 8, stride)
    failed, out, _ = copied(descriptor, offsets, np.full(len(offsets), 8))
    want = DATA[offsets[:, None] + np.arange(8)]
    assert failed == -1
    np.testing.assert_array_equal(out.reshape(-1, 8)[::-1], want)


def test_the_first_piece_that_fails_is_named(descriptor):
    assert copied(descriptor, [0, 10, SIZE - 3, 20], [4, 4, 4, 4])[0] == 2
    assert copied(descriptor, [0, SIZE + 10], [4, 1])[0] == 1
    out = np.zeros(10, np.uint8)
    for size, place in ((-1, 0), (11, 0), (4, 8), (4, -1)):
        assert read_pieces(descriptor, np.array([5]), np.array([size]), out, np.array([place])) == 0
    assert not out.any()


def test_a_file_that_cannot_be_read():
    nothing = read_pieces(-1, np.array([0]), np.array([1]), np.zeros(1, np.uint8), np.array([0]))
    assert nothing == 0

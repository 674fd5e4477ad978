"""Exact sums never overflow, whatever the words, and are calibrated as numpy would."""

import numpy as np
import pytest

from psana_dask.calib.detectors import EPIX10KA_BITS, EPIXUHR_BITS, JUNGFRAU_BITS, PLAIN
from psana_dask.reductions.exact import ExactSums, finished
from psana_dask.reductions.tiles import MOST_EVENTS, Tile


def push(exact, rows):
    use = np.ones(len(rows), bool)
    exact.push(Tile(rows, None, 0, rows.shape[1], 0, 0, use, np.ones(len(rows)), 0))
    exact.advance(len(rows))


@pytest.mark.parametrize(
    ("dtype", "value"),
    [("u2", 65535), ("i2", -32768), ("i2", 32767), ("u1", 255), ("i4", -(2**31)), ("u4", 2**32 - 1)],
)
def test_large_words_of_many_events(dtype, value):
    exact = ExactSums(1, 3, np.dtype(dtype), PLAIN, squares=np.dtype(dtype).itemsize <= 2)
    rows = np.full((MOST_EVENTS, 3), value, dtype)
    for _ in range(17):
        push(exact, rows)
    node = exact.node()
    assert (node.sums.astype(object) == 17 * MOST_EVENTS * value).all()
    if len(node.squares):
        assert (node.squares.astype(object) == 17 * MOST_EVENTS * value**2).all()


@pytest.mark.parametrize("pieces", [1, 9])
def test_nodes_are_widened_when_they_are_merged(pieces):
    nodes = []
    for _ in range(pieces):
        exact = ExactSums(1, 2, np.dtype("u2"), PLAIN, squares=False)
        push(exact, np.full((MOST_EVENTS, 2), 65535, "u2"))
        nodes.append(exact.node())
    total = nodes[0]
    for node in nodes[1:]:
        total = total.merge(node)
    assert (total.sums.astype(object) == pieces * MOST_EVENTS * 65535).all()
    assert total.present.tolist() == [pieces * MOST_EVENTS]


def test_nodes_that_cannot_be_written_are_copied():
    exact = ExactSums(1, 2, np.dtype("u2"), PLAIN, squares=False)
    push(exact, np.full((4, 2), 7, "u2"))
    node = exact.node()
    node.sums.flags.writeable = False
    assert node.merge(node).sums.tolist() == [[56, 56]]
    assert node.sums.tolist() == [[28, 28]]


def words_of(decoding, r, events, pixels, share):
    rows = r.integers(0, 1 << 14, (events, pixels)).astype("u2")
    if decoding.kind == "jungfrau":
        codes = np.where(r.random(rows.shape) < share, r.integers(1, 4, rows.shape), 0)
        return (rows | codes << 14).astype("u2")
    rows &= decoding.data_bits
    return np.where(r.random(rows.shape) < share, rows | decoding.gain_bit, rows).astype("u2")


def values_of(words, decoding, pedestal, factor, bad):
    """Calibrate in float64, as the definition says."""
    value = (words & decoding.data_bits).astype("f8")
    if decoding.kind == "jungfrau":
        which = np.array([0, 1, 3, 2])[words >> 14]
    else:
        which = ((words & decoding.gain_bit) != 0).astype(int)
    column = np.arange(words.shape[1])
    ped = np.vstack([pedestal, np.zeros((1, words.shape[1]))])[which, column]
    gain = np.vstack([factor, np.full((1, words.shape[1]), bad)])[which, column]
    return (value - ped) * gain


@pytest.mark.parametrize("decoding", [JUNGFRAU_BITS, EPIX10KA_BITS, EPIXUHR_BITS])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.3])
@pytest.mark.parametrize("bad", [0.0, np.nan])
def test_calibrated_sums_and_spreads(decoding, share, bad):
    r = np.random.default_rng(7)
    events, pixels = 101, 700
    planes = 3 if decoding.kind == "jungfrau" else 2
    pedestal = r.normal(5000, 900, (planes, pixels)).astype("f4")
    factor = r.uniform(0.1, 30, (planes, pixels)).astype("f4")
    factor[:, ::50] = 0
    words = words_of(decoding, r, events, pixels, share)
    exact = ExactSums(1, pixels, np.dtype("u2"), decoding, squares=True)
    for first in range(0, events, 23):
        push(exact, words[first : first + 23])
    node = exact.node()
    assert (len(node.counts) == 0) == (share == 0)
    number, total, spread = finished(node, pixels, pedestal, factor, bad, planes)
    expected = values_of(words, decoding, pedestal.astype("f8"), factor.astype("f8"), bad)
    there = ~np.isnan(expected)
    np.testing.assert_array_equal(number, there.sum(axis=0))
    scale = np.abs(np.nan_to_num(expected)).max()  # float64 sums in another order
    np.testing.assert_allclose(total, np.nansum(expected, axis=0), atol=1e-12 * scale * events)
    np.testing.assert_allclose(
        spread, np.nanvar(expected, axis=0) * number, rtol=1e-9, atol=1e-12 * scale**2 * events
    )

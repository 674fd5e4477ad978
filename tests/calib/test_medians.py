"""The median kernels against np.median, bit for bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psana_dask.calib import banks, medians
from psana_dask.calib.corrections import BankMedian, ColumnMedian, Limits, RunMedian


def expected(groups, used, fewest=1, largest=np.inf, everywhere=False):
    """The rule with np.median, group by group (groups, used: (group, pixel))."""
    out = groups.copy()
    for line, good in zip(out, used.astype(bool), strict=True):
        if good.sum() < fewest:
            continue
        cm = np.median(line[good])
        if abs(cm) <= largest:
            line[everywhere | good] -= cm
    return out


def frame(seed, shape, ties=False, masked=0.1):
    r = np.random.default_rng(seed)
    values = r.normal(0, 12, shape).astype(np.float32)
    values += (370 * (r.random(shape) < 0.05)).astype(np.float32)
    if ties:
        values = np.round(values / 5)
    return values, (r.random(shape) >= masked).astype(np.uint8)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("masked", [0.0, 0.3, 0.97, 1.0])
@pytest.mark.parametrize("length", [1, 2, 7, 48, 64, 97, 176, 352])
def test_runs(length, masked, ties):
    values, used = frame(length, (70, length), ties, masked)
    step = RunMedian(length, Limits(fewest=3, largest=9.0))
    out = values.copy().reshape(-1)
    step(out, used.reshape(-1), step.work(out.dtype))
    assert np.array_equal(out.reshape(values.shape), expected(values, used, 3, 9.0))


@pytest.mark.parametrize("everywhere", [False, True])
@pytest.mark.parametrize(("rows", "cols"), [(176, 45), (256, 64), (11, 100)])
def test_columns(rows, cols, everywhere):
    values, used = frame(1, (2 * rows, cols))
    step = ColumnMedian(cols, rows, Limits(fewest=11, largest=30.0, everywhere=everywhere))
    out = values.copy().reshape(-1)
    step(out, used.reshape(-1), step.work(out.dtype))
    halves = [expected(values[k].T, used[k].T, 11, 30.0, everywhere).T
              for k in (slice(rows), slice(rows, None))]
    assert np.array_equal(out.reshape(values.shape), np.concatenate(halves))


@pytest.mark.parametrize("ties", [False, True])
def test_banks(ties):
    values, used = frame(2, (40, 96), ties)
    step = BankMedian(96, 20, 24, Limits(fewest=10))
    out = values.copy().reshape(-1)
    step(out, used.reshape(-1), step.work(out.dtype))
    banks = [a.reshape(2, 20, 4, 24).swapaxes(1, 2).reshape(8, 480) for a in (values, used)]
    wanted = expected(*banks, 10).reshape(2, 4, 20, 24).swapaxes(1, 2).reshape(40, 96)
    assert np.array_equal(out.reshape(values.shape), wanted)


def test_float64_values_keep_their_precision():
    values, used = frame(3, (40, 64))
    wide = values.astype(np.float64) + 1e-9
    step = RunMedian(64, Limits())
    out = wide.copy().reshape(-1)
    step(out, used.reshape(-1), step.work(out.dtype))
    assert np.array_equal(out.reshape(wide.shape), expected(wide, used))


def test_a_shorter_last_run_is_corrected_by_itself():
    values, used = frame(4, (1, 150))
    step = RunMedian(100, Limits())
    out = values.copy().reshape(-1)
    step(out, used.reshape(-1), step.work(out.dtype))
    wanted = [expected(values[:, k], used[:, k]) for k in (slice(100), slice(100, 150))]
    assert np.array_equal(out, np.concatenate(wanted, axis=1)[0])


def test_nan_and_infinity_do_not_enter():
    values, used = frame(5, (64, 64), masked=0)
    values[:, 3], values[:, 5] = np.nan, np.inf
    used[:, 5] = 0
    step = RunMedian(64, Limits())
    out = values.copy().reshape(-1)
    step(out, used.reshape(-1), step.work(out.dtype))
    good = used.astype(bool) & np.isfinite(values)
    wanted = np.where(used, values - np.array([np.median(v[g]) for v, g in zip(values, good, strict=True)],
                                              np.float32)[:, None], values)
    assert np.array_equal(out.reshape(values.shape), wanted, equal_nan=True)


@pytest.mark.parametrize("length", [176, 352])
def test_the_search_and_the_network_agree(length):
    """Whole distributions that the search cannot bracket still give the exact median."""
    r = np.random.default_rng(6)
    values = np.where(r.random((64, length)) < 0.5, 1e-30, 1e30).astype(np.float32)
    values[:32] = r.choice(np.array([-3e38, 0, 1e-40, 5, 3e38], np.float32), (32, length))
    used = np.ones(values.shape, np.uint8)
    step = RunMedian(length, Limits(largest=1e38))
    out = values.copy().reshape(-1)
    step(out, used.reshape(-1), step.work(out.dtype))
    with np.errstate(over="ignore"):
        wanted = expected(values, used, 1, 1e38)
    assert np.array_equal(out.reshape(values.shape), wanted)


@given(st.integers(1, 40).map(lambda n: 2 * n), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_networks_put_the_middle_in_the_middle(size, random):
    values = [random.randint(0, size) for _ in range(size)]
    wires = list(values)
    for i, j, kind in medians.median_network(size).tolist():
        low, high = sorted((wires[i], wires[j]))
        wires[i] = low if kind != medians.ONLY_MAX else None
        wires[j] = high if kind != medians.ONLY_MIN else None
    middle = sorted(values)[size // 2 - 1 : size // 2 + 1]
    assert wires[size // 2 - 1 : size // 2 + 1] == middle


def test_networks_are_for_even_numbers():
    with pytest.raises(ValueError, match="even number of inputs, not 7"):
        medians.median_network(7)


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=200), st.data())
@settings(max_examples=100, deadline=None)
def test_select_rank_is_exact(values, data):
    rank = data.draw(st.integers(0, len(values) - 1))
    work = np.array(values, np.float32)
    wanted = np.sort(work)[rank]  # before the values are reordered
    assert banks.select_rank(work, work.size, rank, np.zeros(64, np.int32)) == wanted

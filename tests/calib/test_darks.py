"""Dark processing: known answers, blocks of any size, memory, status bits, gain stages."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psana_dask.calib import darks
from psana_dask.calib.darks import DarkAccumulator, DarkSettings
from psana_dask.calib.detectors import GENERIC, detector
from psana_dask.errors import ConstantsError

SHAPE = (2, 10, 12)


def frames(n=300, seed=0, level=3000, sigma=6):
    r = np.random.default_rng(seed)
    return np.clip(np.round(r.normal(level, sigma, (n, *SHAPE))), 0, 16383).astype(np.uint16)


def processed(blocks, **changes):
    dark = DarkAccumulator(DarkSettings(**{"gate_frames": 50, **changes}))
    for block in blocks:
        dark.push(block)
    return dark.result()


def test_known_answer():
    result = processed([frames()])
    assert result.frames == 300
    assert np.abs(result.pedestals - 3000).max() < 2  # 300 frames of sigma 6: standard error 0.35
    assert 0.7 < result.rms.mean() / 6 < 0.9  # the 5-95 % gate narrows the distribution
    assert not result.status.any()
    assert result.counts()["rms too large"] == 0


def test_against_numpy():
    data = frames()
    result = processed([data])
    low, high = result.gates.low, result.gates.high
    inside = (data >= low) & (data <= high)
    mean = np.where(inside, data.astype(np.float64), 0).sum(0) / inside.sum(0)
    assert np.array_equal(result.pedestals, mean)
    assert np.array_equal(low, np.quantile(data[:50], 0.05, axis=0, method="lower"))
    assert np.array_equal(high, np.quantile(data[:50], 0.95, axis=0, method="higher"))
    deviations = np.where(inside, (data - mean) ** 2, 0).sum(0) / inside.sum(0)
    # the two formulas differ by cancellation: 9e6 squared mean against a variance of 24
    assert np.allclose(result.rms, np.sqrt(deviations), rtol=1e-8)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=12))
@settings(max_examples=25, deadline=None)
def test_blocks_do_not_matter(sizes):
    data = frames(120)
    cuts = [c for c in np.cumsum(sizes) if c < len(data)]
    one, many = processed([data]), processed(np.split(data, cuts))
    for name in ("pedestals", "rms", "status", "smallest", "largest"):
        assert np.array_equal(getattr(one, name), getattr(many, name)), name


def test_a_result_on_the_way_changes_nothing():
    data = frames(120)
    dark = DarkAccumulator(DarkSettings(gate_frames=50))
    for block in np.split(data, 6):
        dark.push(block)
        if dark.frames >= 2:
            dark.result()
    assert np.array_equal(dark.result().pedestals, processed([data]).pedestals)


def test_memory_does_not_grow_with_the_run():
    dark = DarkAccumulator(DarkSettings(gate_frames=20))
    most = 0
    for k in range(12):
        dark.push(frames(30, k))
        most = max(most, dark.nbytes)
    pixels = int(np.prod(SHAPE))
    assert dark.frames == 360
    assert most <= pixels * (20 * 2 + 35)


def test_status_bits():
    data = frames(400, sigma=4)
    r = np.random.default_rng(5)
    data[:, 0, 0, 0] = 16383  # saturated
    data[:, 0, 1, 1] = 0  # dead
    data[:, 1, 2, 2] = np.clip(r.normal(3000, 800, 400), 1, 16000)  # noisy
    data[:, 1, 3, 3] = 9000  # frozen, bright
    result = processed([data], highest=16000)
    word = result.status
    assert word[0, 0, 0] & darks.HIGH
    assert word[0, 1, 1] & darks.LOW
    assert word[1, 2, 2] & darks.NOISY
    assert word[1, 3, 3] & darks.BRIGHT
    assert word[1, 3, 3] & darks.QUIET
    assert (word != 0).sum() == 4
    assert result.pedestals[0, 0, 0] == 0


def test_code_2_of_jungfrau_is_remembered():
    data = frames(60)
    data[40, 1, 4, 5] |= 2 << 14
    result = processed([data], jungfrau=True)
    assert np.flatnonzero(result.status & np.uint64(darks.BAD_CODE)).tolist() == [120 + 4 * 12 + 5]
    assert result.pedestals.max() < 3100  # the gain bits are not part of the value
    assert not (processed([data]).status & np.uint64(darks.BAD_CODE)).any()


def test_allowed_fraction_counts_all_frames():
    """10 % of 100 frames are 10: psana allows int(0.1 * 99) = 9 and flags this pixel."""
    data = frames(100)
    data[:10, 0, 0, 0] = 0
    assert not processed([data], gate_frames=100).status[0, 0, 0] & darks.LOW
    data[10, 0, 0, 0] = 0
    assert processed([data], gate_frames=100).status[0, 0, 0] & darks.LOW


@pytest.mark.parametrize(("block", "message"), [
    (np.zeros((3, 2, 10, 13), np.uint16), "after frames of"),
    (np.zeros((3, *SHAPE), np.float32), "raw words"),
    (np.full((3, *SHAPE), -1, np.int32), "raw words"),
])
def test_blocks_that_do_not_fit(block, message):
    dark = DarkAccumulator()
    dark.push(frames(3))
    with pytest.raises(ConstantsError, match=message):
        dark.push(block)


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_frames(n):
    dark = DarkAccumulator()
    dark.push(frames(2)[:n])
    with pytest.raises(ConstantsError, match=f"two frames or more, there are {n}"):
        dark.result()


@pytest.mark.parametrize(("name", "bits", "highest"), [
    ("Jungfrau", 0x3FFF, 16000), ("Epix10ka", 0x3FFF, 16000),
    ("Opal1000", 0xFFFF, 65534), ("x", 0xFFFF, 65534),
])
def test_settings_of_a_detector(name, bits, highest):
    made = DarkSettings.of(detector(name), gate_frames=7)
    assert (made.data_bits, made.highest, made.gate_frames) == (bits, highest, 7)
    assert made.jungfrau == (name == "Jungfrau")


def test_constants_of_a_dark():
    found = processed([frames(60)]).constants(detector="d", comment="dark of run 3")
    assert {k: v.value.dtype.name for k, v in found.items()} == {
        "pedestals": "float32", "pixel_rms": "float32", "pixel_status": "uint64", "pixel_max": "uint64",
        "pixel_min": "uint64"}
    assert found["pedestals"].comment == "dark of run 3"


def test_stages_become_one_constant():
    stages = {k: processed([frames(60, k, level)]) for k, level in enumerate((3000, 13500, 13800))}
    joined = darks.stack_ranges(stages, detector("Jungfrau"), detector="d")
    assert joined["pedestals"].value.shape == (3, *SHAPE)
    assert np.allclose(joined["pedestals"].value[2], stages[2].pedestals, atol=1e-3)
    del stages[1]
    with pytest.raises(ConstantsError, match="gain range g1 of Jungfrau was not measured"):
        darks.stack_ranges(stages, detector("Jungfrau"))
    filled = darks.stack_ranges(stages, detector("Jungfrau"), previous=joined)
    assert np.array_equal(filled["pedestals"].value[1], joined["pedestals"].value[1])


def test_pedestals_of_the_low_stage():
    """Two straight lines that meet: pulse 0 in the low stage, from the fits of both."""
    pulse = np.arange(10)
    gain_high, gain_low, dark = 50.0, 0.5, 3000.0
    high, low = dark + gain_high * pulse, 5200 + gain_low * pulse
    offset_high, offset_low = high[0] + 40, low[0] + 0.4  # both fits start 0.8 of a step late
    found = darks.low_range_pedestals(offset_low, offset_high, dark, gain_low, gain_high)
    assert found == pytest.approx(5200)


def test_outliers():
    values = np.random.default_rng(0).normal(10, 1, 1000)
    values[3], values[4] = 100, -100
    assert np.flatnonzero(darks.outliers(values)).tolist() == [3, 4]
    assert not darks.outliers(np.full(5, 3.0)).any()
    edge = np.array([0, 1, 2, 3, 4, 10])  # median 2.5, median deviation 1.5
    assert darks.outliers(edge, 5.0)[-1]
    assert not darks.outliers(edge, 5.1).any()


def test_the_median_guard():
    data = frames(100)
    data[:, 0, 0, 0] = np.where(np.arange(100) % 5 == 0, 3200, 3000)
    result = processed([data], medians=True, gate_frames=100, high_fraction=0.99)
    guarded = darks.guarded(result.pedestals, result.gates)
    assert result.pedestals[0, 0, 0] == 3040
    assert guarded[0, 0, 0] == 3000
    with pytest.raises(ConstantsError, match="medians=True"):
        darks.guarded(result.pedestals, processed([data]).gates)


def test_generic_detectors_have_one_stage():
    assert GENERIC.decoding.ranges == ()

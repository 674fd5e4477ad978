"""Waveforms and the time tool: edges that were injected, any chunking, and what is missing."""

import numpy as np
import pytest
import xarray as xr

from psana_dask import algorithms, analysis

SAMPLES = np.arange(600)


def pulse(at, height, width=6.0):
    return height * np.exp(-0.5 * ((SAMPLES - at) / width) ** 2)


@pytest.fixture(scope="module")
def waves():
    """(event, channel, sample): two pulses each, and the places of their half heights."""
    random = np.random.default_rng(2)
    places = np.stack([random.uniform(100, 200, (8, 2)), random.uniform(350, 500, (8, 2))], axis=-1)
    heights = random.uniform(-80, -30, (8, 2))
    waves = np.stack([[sum(pulse(p, h) for p in ps) for ps, h in zip(*row, strict=True)]
                      for row in zip(places, heights, strict=True)])  # fmt: skip
    half = 6.0 * np.sqrt(2 * np.log(2))
    return waves + random.normal(0, 0.05, waves.shape), places - half, heights


@pytest.mark.parametrize("baseline", [0.0, 250.0])
def test_injected_edges_are_found(waves, baseline):
    values, edges, heights = waves
    found = algorithms.find_edges(values + baseline, baseline=baseline, threshold=baseline - 10, deadtime=3)
    assert (found.count == 2).all()
    # noise 0.05 against a slope of 3 to 9 per sample, and the straight line between samples
    np.testing.assert_allclose(found.position[..., :2], edges, atol=0.05)
    np.testing.assert_allclose(found.amplitude[..., 0], heights, atol=0.5)
    assert np.isnan(found.position[..., 2:]).all()


def test_edges_that_find_no_room_are_counted(waves):
    found = algorithms.find_edges(waves[0], threshold=-10, most=1)
    assert (found.count == 1).all()
    assert (found.overflow == 1).all()


def test_a_pulse_cut_off_by_the_end_has_no_edge_there():
    wave = np.array([0, 0, 5, 10, 10.0])
    assert algorithms.find_edges(wave, threshold=2, leading=True).count == 1
    assert algorithms.find_edges(wave, threshold=2, leading=False).count == 0
    assert algorithms.find_edges(wave * np.nan, threshold=2).count == 0
    assert algorithms.find_edges(np.zeros((0, 5)), threshold=2).position.shape == (0, 16)


def test_baselines_and_windows(waves):
    values = waves[0] + np.arange(16).reshape(8, 2, 1)
    flat = algorithms.subtract_baseline(values, slice(0, 50))
    np.testing.assert_allclose(flat, waves[0], atol=0.1)  # the median of 50 samples of noise 0.05
    area = algorithms.integrate_windows(flat, [(50, 280), (280, 600)], period=2.0)
    expected = waves[2][..., None] * 6.0 * np.sqrt(2 * np.pi) * 2.0
    np.testing.assert_allclose(area, expected + np.zeros(2), atol=60)  # 320 samples of baseline off by 0.1
    assert np.isnan(algorithms.integrate_windows(np.full((1, 9), np.nan), [(0, 9)])).all()
    with pytest.raises(ValueError, match="do not lie in 0 to 9"):
        algorithms.integrate_windows(np.zeros((1, 9)), [(3, 10)])
    with pytest.raises(ValueError, match="no sample of 9"):
        algorithms.subtract_baseline(np.zeros((1, 9)), slice(20, 30))


def test_pulses_have_position_height_area_and_length(waves):
    values, edges, heights = waves
    middles = edges + 6.0 * np.sqrt(2 * np.log(2))
    found = algorithms.find_pulses(values, threshold=-3, shortest=3)
    assert (found.count == 2).all()
    # symmetric pulses far above noise: the centroid is the middle, 3 of 30 and more cut the tails off
    np.testing.assert_allclose(found.position[..., :2], middles, atol=0.5)
    np.testing.assert_allclose(found.height[..., 0], heights, atol=0.8)
    np.testing.assert_allclose(found.area[..., 0], heights * 6.0 * np.sqrt(2 * np.pi), rtol=0.06)
    assert np.isnan(found.position[..., 2:]).all()
    first, length = (int(v[0, 0, 0]) for v in (found.first, found.length))
    beyond = values[0, 0] < -3
    assert beyond[first : first + length].all()
    assert not beyond[first - 1]
    assert not beyond[first + length]
    few = algorithms.find_pulses(values, threshold=-3, shortest=3, most=1)
    assert (few.overflow == 1).all()
    assert algorithms.find_pulses(np.full((2, 9), np.nan), threshold=1).count.sum() == 0
    assert algorithms.find_pulses(np.zeros((0, 9)), threshold=1).position.shape == (0, 16)


def test_a_basis_describes_what_it_was_made_of():
    random = np.random.default_rng(1)
    shapes = np.stack([pulse(200, 1.0), pulse(230, 1.0, 12.0), pulse(400, 1.0, 3.0)])
    weights = random.uniform(0, 5, (40, 3))
    waves = weights @ shapes
    basis = algorithms.basis_of(waves, 3)
    np.testing.assert_allclose(basis @ basis.T, np.eye(3), atol=1e-12)
    _, residual = algorithms.fit_basis(waves, basis)
    assert residual.max() < 1e-12
    coefficients, _ = algorithms.fit_basis(waves, shapes)  # shapes that overlap
    np.testing.assert_allclose(coefficients, weights, atol=1e-10)
    with pytest.raises(ValueError, match="2 whole waveforms do not have 3 shapes"):
        algorithms.basis_of(waves[:2], 3)


def test_any_chunking_finds_the_same_edges(waves):
    time = np.datetime64("2024-06-14", "ns") + np.arange(8)
    data = xr.DataArray(waves[0], {"time": time}, ("time", "channel", "sample"))
    whole = analysis.find_edges(data, threshold=-10, deadtime=3, most=4)
    assert whole["position"].dims == ("time", "channel", "edge")
    for size in (1, 3, 8):
        lazy = analysis.find_edges(data.chunk(time=size, sample=200), threshold=-10, deadtime=3, most=4)
        xr.testing.assert_identical(lazy.compute(), whole)
    basis = algorithms.basis_of(waves[0].reshape(16, 600), 3)
    others = {
        "pulses": lambda d: analysis.find_pulses(d, threshold=-10, most=4),
        "baseline": lambda d: analysis.subtract_baseline(d, slice(0, 50)),
        "fit": lambda d: analysis.fit_basis(d, basis),
    }
    for name, made in others.items():
        for size in (1, 3):
            lazy = made(data.chunk(time=size, channel=1)).compute()
            assert lazy.identical(made(data)), name
    windows = analysis.integrate_windows(data, [(0, 300), (300, 600)])
    xr.testing.assert_identical(
        analysis.integrate_windows(data.chunk(time=3), [(0, 300), (300, 600)]), windows
    )


# ---- time tool -----------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def camera():
    """Projections with a falling edge, every fifth without X-rays, and where the edges are."""
    random = np.random.default_rng(11)
    x = np.arange(1024)
    envelope = 200 * np.exp(-(((x - 500) / 400) ** 2)) + 20
    at = random.uniform(250, 780, 60)
    drop = 0.1 / (1 + np.exp((at[:, None] - x) / 5))
    dropped = np.arange(60) % 5 == 0
    drop[dropped] = 0
    signals = envelope * (1 - drop) * random.uniform(0.9, 1.1, (60, 1))
    return signals + random.normal(0, 0.2, signals.shape), dropped, at


def test_injected_time_edges_are_found(camera):
    signals, dropped, at = camera
    references, which = algorithms.running_references(signals, dropped)
    found = algorithms.find_time_edges(signals, references, algorithms.step_weights(60), which)
    error = (found.position - at)[~dropped]
    # noise of 0.2 against a step of about 20, over 120 samples: well below a sample; the laser's own
    # level changes from shot to shot by a tenth, which a step filter does not see
    assert np.abs(error).max() < 1.0
    assert np.abs(error.mean()) < 0.2
    assert found.amplitude[~dropped].min() > 5 * np.nan_to_num(found.amplitude[dropped]).max()


def test_the_reference_is_the_running_mean_of_dropped_shots():
    signals = np.array([[1.0, 1], [2, 2], [9, 9], [4, 4], [9, 9]])
    dropped = np.array([False, True, False, True, False])
    references, which = algorithms.running_references(signals, dropped, fraction=0.25)
    assert np.array_equal(references[:, 0], [2.0, 2.5])
    assert np.array_equal(which, [0, 0, 0, 1, 1])
    with pytest.raises(ValueError, match="no event without X-rays"):
        algorithms.running_references(signals, dropped & False)


def test_projections_leave_out_missing_pixels():
    images = np.ones((2, 6, 4))
    images[0, 2, 1] = np.nan
    images[1] = np.nan
    found = algorithms.project(images, slice(1, 4), np.full((6, 4), 0.5))
    assert np.array_equal(found[0], [0.5] * 4)
    assert np.isnan(found[1]).all()
    edges = algorithms.find_time_edges(np.full((1, 50), np.nan), np.ones(50), algorithms.step_weights(5))
    assert np.isnan(edges.position[0])


def test_a_calibration_gives_picoseconds():
    assert np.allclose(algorithms.time_of(np.array([0.0, 10.0]), [1.0, 0.1, 0.01]), [1.0, 3.0])

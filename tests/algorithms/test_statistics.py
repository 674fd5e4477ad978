"""Backgrounds, correlations, photon peaks and pump-probe differences: known answers."""

import numpy as np
import pytest
import xarray as xr

from psana_dask import algorithms, analysis


def test_g2_equals_the_direct_sum():
    random = np.random.default_rng(0)
    frames = random.gamma(2.0, 1.0, (40, 5, 6))
    regions = np.repeat([[0, 0, 1, 1, -1, 1]], 5, axis=0)
    tau = algorithms.MultiTau(regions, channels=8, levels=3)
    tau.push(frames)
    found = tau.value()
    pairs = (frames[::2] + frames[1::2]) / 2
    fours = (pairs[::2] + pairs[1::2]) / 2
    assert tau.delays.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28]
    for column, delay in enumerate(tau.delays):
        series, lag = (
            (frames, delay) if delay < 8 else (pairs, delay // 2) if delay < 16 else (fours, delay // 4)
        )
        for region in (0, 1):
            chosen = series[:, regions == region]
            early, late = chosen[: len(chosen) - lag], chosen[lag:]
            expected = np.nan if not len(early) else (early * late).mean() / (early.mean() * late.mean())
            np.testing.assert_allclose(found[region, column], expected, rtol=1e-12)


def test_an_event_that_is_not_whole_keeps_its_place():
    frames = np.random.default_rng(9).gamma(2.0, 1.0, (20, 12))
    frames[7, 3] = np.nan
    tau = algorithms.MultiTau(np.zeros(12, int), channels=4, levels=2)
    tau.push(frames)
    good = np.isfinite(frames).all(axis=1)
    for delay, found in zip(tau.delays[:4], tau.value()[0], strict=False):
        pairs = [(t, t + delay) for t in range(20 - delay) if good[t] and good[t + delay]]
        early, late = (frames[[p[k] for p in pairs]] for k in (0, 1))
        np.testing.assert_allclose(found, (early * late).mean() / (early.mean() * late.mean()), rtol=1e-12)


def test_g2_of_known_decay():
    """Speckle of amplitudes that forget exponentially: g2 = 1 + exp(-2 t / T)."""
    random = np.random.default_rng(1)
    keep = np.exp(-1 / 20)
    field = (random.normal(size=(2, 4000)) * np.sqrt(0.5)).T @ [1, 1j]
    frames = []
    for _ in range(600):
        fresh = (random.normal(size=(2, 4000)) * np.sqrt(0.5)).T @ [1, 1j]
        field = keep * field + np.sqrt(1 - keep**2) * fresh
        frames.append(np.abs(field) ** 2)
    tau = algorithms.MultiTau(np.zeros(4000, int), channels=16, levels=2)
    tau.push(np.array(frames))
    # 4000 speckles, some 15 independent times each: 0.01
    np.testing.assert_allclose(tau.value()[0], 1 + np.exp(-2 * tau.delays / 20), atol=0.04)


def test_g2_does_not_depend_on_chunks():
    frames = (
        xr.DataArray(np.random.default_rng(2).poisson(3.0, (25, 4, 4)), dims=("time", "row", "col")) * 1.0
    )
    frames[7, 1, 1] = np.nan
    regions = np.zeros((4, 4), int)
    whole = analysis.autocorrelation(frames, regions, channels=4, levels=3)
    assert np.isfinite(whole[0, 0])
    for size in (1, 4, 25):
        xr.testing.assert_identical(
            analysis.autocorrelation(frames.chunk(time=size), regions, channels=4, levels=3), whole
        )
    assert np.isnan(analysis.autocorrelation(frames[:0], regions)).all()
    with pytest.raises(ValueError, match="channels=5"):
        algorithms.MultiTau(regions, channels=5)


# ---- background ----------------------------------------------------------------------------------
def test_a_background_of_known_shapes_is_taken_off():
    random = np.random.default_rng(4)
    shapes = random.normal(size=(3, 20, 30))
    empty = np.einsum("ek,kyx->eyx", random.uniform(1, 5, (30, 3)), shapes)
    learnt = algorithms.background_shapes(empty, 3)
    signal = np.zeros((20, 30))
    signal[8:12, 10:20] = 7
    frames = np.einsum("ek,kyx->eyx", random.uniform(1, 5, (5, 3)), shapes) + signal
    frames[1, 0, 0] = np.nan
    frames[4] = np.nan
    found = algorithms.subtract_background(frames, learnt, mask=signal == 0)
    np.testing.assert_allclose(found[[0, 2, 3]], np.stack([signal] * 3), atol=1e-5)  # float32
    assert np.isnan(found[1, 0, 0])
    np.testing.assert_allclose(found[1, 1:], signal[1:], atol=1e-5)
    assert np.isnan(found[4]).all()
    data = xr.DataArray(frames, dims=("time", "row", "col"), name="calib")
    lazy = analysis.subtract_background(data.chunk(time=2, row=10), learnt, mask=signal == 0)
    assert np.array_equal(lazy.values, found, equal_nan=True)


# ---- photon peaks --------------------------------------------------------------------------------
def test_planted_gains_are_found():
    random = np.random.default_rng(5)
    pedestals, gains = random.uniform(-3, 3, 50), random.uniform(27, 33, 50)
    edges = np.arange(-40.5, 80.5)
    counts = []
    for pedestal, gain in zip(pedestals, gains, strict=True):
        photons = random.poisson(0.3, 20_000)
        counts.append(np.histogram(pedestal + gain * photons + random.normal(0, 4, 20_000), edges)[0])
    found = algorithms.fit_photon_peaks(np.array(counts), edges, adu=30)
    # 15,000 counts of sigma 4 in one peak, 4,500 in the other: 0.07; bins of one unit
    np.testing.assert_allclose(found.pedestal, pedestals, atol=0.2)
    np.testing.assert_allclose(found.gain, gains, atol=0.5)
    np.testing.assert_allclose(found.noise, 4.0, rtol=0.06)
    empty = algorithms.fit_photon_peaks(np.zeros((2, 120)), edges, adu=30)
    assert np.isnan(empty.gain).all()
    assert np.isnan(empty.pedestal).all()


# ---- pump and probe ------------------------------------------------------------------------------
def test_a_difference_is_normalised_by_the_monitor():
    random = np.random.default_rng(6)
    time = np.datetime64("2024-06-14", "ns") + np.arange(40)
    light = random.uniform(0.5, 2.0, 40)
    light[3] = np.nan
    light[4] = 0.0
    laser = np.arange(40) % 2 == 0
    pattern = random.uniform(5, 10, (6, 7))
    change = np.where(laser[:, None, None], 1.1, 1.0)
    values = light[:, None, None] * pattern * change
    values[3] = 99.0
    values[4] = 99.0
    values[10, 0, 0] = np.nan
    frames = xr.DataArray(values, {"time": time}, ("time", "y", "x"))
    on, monitor = (xr.DataArray(v, {"time": time}, "time") for v in (laser, light))
    found = analysis.pump_probe(frames, on, ~on, monitor)
    np.testing.assert_allclose(found["on"], 1.1 * pattern, rtol=1e-12)
    np.testing.assert_allclose(found["relative"], 0.1, rtol=1e-10)
    assert found.attrs == {"events_on": 19, "events_off": 19}
    for size in (1, 7, 40):
        lazy = analysis.pump_probe(frames.chunk(time=size), on, ~on, monitor)
        xr.testing.assert_identical(lazy.compute(), found)
    nothing = analysis.pump_probe(frames, on & False, ~on)
    assert np.isnan(nothing["difference"]).all()

"""Photons and droplets: known answers, masks, and what is missing."""

import numpy as np
import pytest
import xarray as xr

from psana_dask import algorithms, analysis

ADU = 25.0


@pytest.fixture(scope="module")
def shared():
    """Three events of photons, 40 each, whose charge falls on two neighbouring pixels; and the truth."""
    random = np.random.default_rng(7)
    frames, truth = np.zeros((3, 2, 64, 80), np.float32), np.zeros((3, 2, 64, 80), int)
    rows, cols = np.mgrid[2:62:6, 2:78:6].reshape(2, -1)  # apart: no charge of two on one pixel
    for event in range(3):
        for k in random.choice(len(rows), 40, replace=False):
            panel, share = random.integers(2), random.uniform(0.55, 1.0)
            frames[event, panel, rows[k], cols[k]] += share * ADU
            frames[event, panel, rows[k], cols[k] + 1] += (1 - share) * ADU
            truth[event, panel, rows[k], cols[k]] += 1
    return frames + random.normal(0, 0.01 * ADU, frames.shape).astype(np.float32), truth


def test_every_photon_is_counted_where_most_of_it_fell(shared):
    frames, truth = shared
    found = algorithms.count_photons(frames, ADU)
    # a whole photon with noise: 0.98 and what is beside it, or 1.02 counted as it is
    assert np.array_equal(found, truth)


def test_droplets_hold_the_charge_of_their_photons(shared):
    frames, truth = shared
    found = algorithms.find_droplets(frames, high=0.4 * ADU, low=0.1 * ADU, least=0.7 * ADU)
    assert np.array_equal(found.count, truth.sum(axis=(1, 2, 3)))
    charge = found.table()["intensity"] / ADU
    # up to 0.1 of a photon lies below the low threshold; noise of up to three pixels
    assert 0.85 < charge.min() <= charge.max() < 1.1


def test_any_chunking_counts_the_same_photons(shared):
    frames = xr.DataArray(shared[0], dims=("time", "panel", "row", "col"))
    frames[1, 0] = np.nan
    whole = analysis.count_photons(frames, ADU)
    assert whole.dtype == np.uint16
    assert whole[1, 0].sum() == 0
    droplets = analysis.find_droplets(frames, high=10, low=3, most=60)
    for chunks in ({"time": 1}, {"time": 2, "panel": 1, "row": 32}):
        lazy = frames.chunk(chunks)
        xr.testing.assert_identical(analysis.count_photons(lazy, ADU).compute(), whole)
        xr.testing.assert_identical(analysis.find_droplets(lazy, high=10, low=3, most=60).compute(), droplets)
    assert analysis.count_photons(frames[:0], ADU).shape == (0, 2, 64, 80)


def test_bad_pixels_hold_nothing(shared):
    frames, truth = shared
    mask = np.ones(frames.shape[1:], np.uint8)
    mask[0] = 0
    assert np.array_equal(algorithms.count_photons(frames, ADU, mask=mask)[:, 1], truth[:, 1])
    assert algorithms.count_photons(frames, ADU, mask=mask)[:, 0].sum() == 0
    assert (algorithms.find_droplets(frames, high=10, low=3, mask=mask).table()["panel"] == 1).all()


def test_a_photon_on_every_border_is_counted():
    frame = np.zeros((1, 6, 7), np.float32)
    for place in ((0, 0), (0, 6), (5, 0), (5, 6), (0, 3), (5, 3), (2, 0), (3, 6)):
        frame[(0, *place)] = 0.95
    found = algorithms.count_photons(frame, 1.0)
    assert found.sum() == 8
    assert np.array_equal(found, frame > 0)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="too small"):
        algorithms.count_photons(np.zeros((1, 1, 5)), 1.0)
    with pytest.raises(ValueError, match="low=5 is above high=3"):
        algorithms.find_droplets(np.zeros((1, 4, 5)), high=3, low=5)

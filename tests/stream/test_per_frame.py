"""What is made of each frame, reduced on a stream: the bits of the closed run."""

import numpy as np

from psana_dask import algorithms, analysis

FRAMES = {"xtc2": "epixquad", "xtc": "epix100a"}


def test_profiles_and_photons_have_the_bits_of_the_closed_run(calibrated, calibrated_stream_of):
    name = FRAMES[calibrated.format]
    where = algorithms.pixel_positions(calibrated[name].geometry, distance=0.1)
    table = algorithms.prepare_azimuthal(where, bins=50, unit="radius")
    profile = analysis.profile_of(f"{name}.calib", table)
    bright = analysis.photons_of(f"{name}.calib", adu=20.0)
    *_, last = calibrated_stream_of((5, 2, 9)).reduce(["mean", "std"], [profile, bright])
    want = calibrated.reduce(["mean", "std"], [profile, bright])
    assert set(last.data_vars) == set(want.data_vars)
    for key in want.data_vars:
        assert np.array_equal(last[key].values, want[key].values, equal_nan=True), key


def test_one_profile_on_the_way(calibrated, calibrated_stream_of):
    name = FRAMES[calibrated.format]
    where = algorithms.pixel_positions(calibrated[name].geometry, distance=0.1)
    profile = analysis.profile_of(
        f"{name}.calib", algorithms.prepare_azimuthal(where, bins=20, unit="radius")
    )
    found = list(calibrated_stream_of((8,)).reduce("mean", profile, every=0.0, batch=8))
    assert found[0].dims == ("radius",)
    assert np.array_equal(found[-1], calibrated.mean(profile))

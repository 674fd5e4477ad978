"""Simulated runs bring constants: calibrated frames are photons, images are the picture."""

import numpy as np
import pytest

import psana_dask
from psana_dask import simulate
from psana_dask.simulate import Detector, RunSpec

DETECTORS = {
    "xtc2": (
        Detector(name="epixquad", kind="epix10ka", segments=4),
        Detector(name="jungfrau", kind="jungfrau", segments=2, shape=(2, 32, 48)),
        Detector(name="opal", kind="camera", shape=(40, 60)),
    ),
    "xtc": (
        Detector(name="evr0", kind="timing"),
        Detector(name="epixquad", kind="epix10kaquad"),
        Detector(name="jungfrau", kind="jungfrau", segments=2, shape=(2, 32, 48)),
        Detector(name="opal", kind="camera", stream=80, shape=(40, 60)),
    ),
}


@pytest.mark.parametrize("form", DETECTORS)
@pytest.mark.parametrize("name", ["epixquad", "jungfrau", "opal"])
def test_calibrated_frames_are_photons_and_images_the_picture(tmp_path, form, name):
    truth = simulate.write(RunSpec(format=form, events=2, detectors=DETECTORS[form]), tmp_path)
    run = psana_dask.open(tmp_path, calib=truth.calib)
    picture, detector = truth.picture(name), run[name]
    photons = detector.calibrated(common_mode=None)[1].values
    field = "image" if (form, name) == ("xtc2", "opal") else "raw"  # as the file calls it
    counts = np.stack([truth.value(name, field, 1, s) for s in truth.segments(name)])
    wanted = (counts.reshape(picture.pedestals.shape) - picture.pedestals) / picture.scene.adu_per_photon
    np.testing.assert_allclose(photons.reshape(wanted.shape), wanted, rtol=1e-5, atol=1e-5)  # float32
    image = detector.assembled(detector.calibrated(common_mode=None)[1]).values
    np.testing.assert_allclose(image, picture.assembled(wanted), rtol=1e-5, atol=1e-5)

"""Centre and distance from rings that are simulated here, with noise, gaps and a sloping background."""

import numpy as np
import pytest

from psana_dask.errors import GeometryError
from psana_dask.geometry import refine, tree
from psana_dask.geometry.defaults import default_geometry
from psana_dask.geometry.model import placed

WAVELENGTH = 1.3
ANGLES = refine.two_theta(refine.spacings("LaB6", 6), WAVELENGTH)


def epix(distance=120000.0):
    geometry = default_geometry("epix10ka2m")
    return placed(geometry, "CAMERA", 0, origin=(0.0, 0.0, -distance))


def powder(geometry, angles, rng, width=1.2e-3, counts=30.0):
    """Poisson counts of Gaussian rings on a background that slopes and falls with the angle."""
    x, y, z = tree.coordinates(geometry, frame="lab")
    angle = np.arctan2(np.hypot(x, y), z)
    rate = 4 * np.exp(-angle) * (1 + 0.3 * x / 1e5)
    for k, ring in enumerate(angles):
        rate += counts / (1 + k) * np.exp(-0.5 * ((angle - ring) / width) ** 2)
    return rng.poisson(rate).astype(np.float32)


@pytest.mark.parametrize("shift", [(850.0, -430.0, 2500.0), (-3300.0, 2100.0, -1500.0), (0.0, 0.0, 0.0)])
def test_rings_give_centre_and_distance(shift):
    rng = np.random.default_rng(1)
    thought = epix()
    true = refine.shifted(thought, shift)
    image = powder(true, ANGLES, rng)
    image[3, 100:120, 50:90] = np.nan
    mask = tree.mask(true)
    found = refine.fit_rings(image, thought, ANGLES, mask=mask)
    # a tenth of a pixel across the beam; along it the rings of 0.4 to 0.8 rad fix it as well
    assert np.abs(np.subtract(found.shift, shift)).max() < 10
    assert max(found.uncertainty) < 10
    # 4 uncertainties, and 1 um for the centroid's own bias
    assert (np.abs(np.subtract(found.shift, shift)) < 4 * np.array(found.uncertainty) + 1).all()
    assert sum(found.points) > 60
    ours, theirs = (tree.coordinates(g, frame="lab") for g in (found.geometry, true))
    assert max(np.abs(a - b).max() for a, b in zip(ours, theirs, strict=True)) < 10


def test_distance_may_be_kept():
    true = refine.shifted(epix(), (200.0, 300.0, 0.0))
    image = powder(true, ANGLES, np.random.default_rng(2))
    found = refine.fit_rings(image, epix(), ANGLES, search=0, distance=False)
    assert found.shift[2] == 0
    assert found.uncertainty[2] == 0
    assert np.abs(np.subtract(found.shift[:2], (200.0, 300.0))).max() < 10


def test_no_rings_is_an_error():
    noise = np.random.default_rng(3).poisson(5.0, epix().shape).astype(np.float32)
    with pytest.raises(GeometryError, match=r"control points|stands out|not found"):
        refine.fit_rings(noise, epix(), ANGLES, search=0)


def test_shifted_moves_every_pixel_by_the_same():
    before, after = epix(), refine.shifted(epix(), (10.0, 20.0, 30.0))
    pairs = zip(tree.coordinates(after, frame="lab"), tree.coordinates(before, frame="lab"), strict=True)
    for (a, b), step in zip(pairs, (10.0, 20.0, 30.0), strict=True):
        np.testing.assert_allclose(a - b, step, rtol=0, atol=1e-8)


def test_spacings_of_the_calibrants():
    # first reflections: 100 110 111 of LaB6, 111 200 220 of CeO2, 111 220 311 of Si
    np.testing.assert_allclose(refine.spacings("LaB6", 3), 4.156826 / np.sqrt([1, 2, 3]))
    np.testing.assert_allclose(refine.spacings("CeO2", 3), 5.411651 / np.sqrt([3, 4, 8]))
    np.testing.assert_allclose(refine.spacings("Si", 3), 5.43123 / np.sqrt([3, 8, 11]))
    np.testing.assert_allclose(refine.spacings("AgBeh", 2), [58.38, 29.19])
    with pytest.raises(GeometryError, match="no calibrant 'salt'; there are AgBeh, LaB6"):
        refine.spacings("salt")


def test_bragg():
    assert refine.two_theta([1.0, 0.4], 1.0) == pytest.approx([np.pi / 3])

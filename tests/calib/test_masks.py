"""Masks: what each part does, and that nothing is remembered between calls."""

import numpy as np
import pytest

from psana_dask.calib import masks
from psana_dask.calib.detectors import detector
from psana_dask.errors import ConstantsError


def test_status_bits_and_ranges():
    status = np.zeros((3, 1, 2, 2), np.uint64)
    status[0, 0, 0, 0], status[2, 0, 1, 1] = 1, 1 << 40
    assert masks.status_mask(status, ranges=(0, 1, 2)).tolist() == [[[0, 1], [1, 0]]]
    assert masks.status_mask(status, ranges=(0, 1)).tolist() == [[[0, 1], [1, 1]]]
    assert masks.status_mask(status, bits=0xFFFF, ranges=(0, 1, 2)).tolist() == [[[0, 1], [1, 1]]]


def test_only_measurable_ranges_of_epix10ka_count():
    """Ranges 5 and 6 cannot be measured dark; their status words are left out, as in psana."""
    status = np.zeros((7, 1, 352, 384), np.uint64)
    status[5:] = 1
    status[4, 0, 7, 8] = 1
    mask = masks.combined_mask({"pixel_status": status}, (1, 352, 384), detector("Epix10ka"))
    assert (mask == 0).sum() == 1
    assert mask[0, 7, 8] == 0


@pytest.mark.parametrize(("shape", "bad"), [("rhombus", 13), ("circle", 13), ("square", 25)])
def test_neighbours_stay_on_their_panel(shape, bad):
    good = np.ones((2, 9, 9), np.uint8)
    good[0, 4, 4] = 0
    grown = masks.neighbour_mask(good, 2, shape)
    assert (grown[0] == 0).sum() == bad
    assert grown[1].all()
    assert good.sum() == good.size - 1  # the argument is left alone


def test_edges_and_center():
    assert (masks.edge_mask((2, 6, 8), 1, 2) == 0).sum() == 2 * (48 - 4 * 4)
    center = masks.center_mask((1, 6, 8), 1, 0)
    assert np.flatnonzero(center[0, :, 0] == 0).tolist() == [2, 3]
    with pytest.raises(ValueError, match="cannot mask 4 rows"):
        masks.edge_mask((6, 8), 4, 0)
    with pytest.raises(ValueError, match="around the middle"):
        masks.center_mask((6, 8), 1, 5)


def test_unbonded_pixels():
    mask = masks.unbonded_mask((32, 185, 388))
    assert (mask == 0).sum() == 32 * 38
    assert mask[3, 180, 180 + 194] == 0
    with pytest.raises(ValueError, match="185 x 388"):
        masks.unbonded_mask((512, 1024))


def test_the_product_of_all_parts():
    shape = (1, 185, 388)
    user = np.ones(shape)
    user[0, 50, 60] = 0
    pixel_mask = np.ones(shape, np.uint8)
    pixel_mask[0, 70, 80] = 0
    extra = np.zeros(shape, np.uint64)
    extra[0, 90, 100] = 4
    parts = {"status_extra": extra, "pixel_mask": pixel_mask}
    mask = masks.combined_mask(parts, shape, detector("Cspad"), user=user, edges=1, unbonded=True,
                               calib=True)
    for pixel in ((50, 60), (70, 80), (90, 100), (0, 200), (10, 10)):
        assert mask[0][pixel] == 0
    assert masks.combined_mask(parts, shape, status=False).all()


def test_user_mask_of_another_size():
    with pytest.raises(ConstantsError, match="user mask has shape"):
        masks.combined_mask({}, (4, 4), user=np.ones((4, 5)))


def test_unknown_neighbour_shape():
    with pytest.raises(ValueError, match="not 'star'"):
        masks.neighbour_mask(np.ones((4, 4)), 1, "star")

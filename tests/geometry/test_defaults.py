"""Every detector type has a default geometry that can be written, read and assembled."""

import numpy as np
import pytest

from psana_dask.errors import GeometryError
from psana_dask.geometry import tree
from psana_dask.geometry.assembly import assembled
from psana_dask.geometry.defaults import BY_PANELS, LAYOUTS, default_geometry
from psana_dask.geometry.model import check
from psana_dask.geometry.text import read_text, write_text

SHAPES = {"archon": (12, 4800), "axis": (64, 128)}


@pytest.mark.parametrize("convention", ["psana1", "psana2"])
@pytest.mark.parametrize("name", [*LAYOUTS, "pnccd"])
def test_every_default_is_one_tree_downstream(name, convention):
    geometry = default_geometry(name, shape=SHAPES.get(name), convention=convention)
    check(geometry)
    again = read_text(
        write_text(geometry), convention=convention, segment_shape=geometry.segment_shape
    )
    assert again == geometry
    assert np.nanmin(tree.coordinates(geometry, frame="lab").z) > 0


def test_the_smallest_layout_with_room_is_taken():
    for name, sizes in BY_PANELS.items():
        previous = 0
        for room, _ in sizes:
            assert default_geometry(name, panels=previous + 1).shape[0] == room
            assert default_geometry(name, panels=room).shape[0] == room
            previous = room
    assert default_geometry("jungfrau", panels=3).shape == (8, 512, 1024)
    assert default_geometry("Jungfrau", panels=8, convention="psana1").segment.name == "JUNGFRAU:V1"


def test_sensors_do_not_overlap_by_default():
    # a sensor's own pixels share bins where it is slanted: 8 % of them for the pnCCD's 20 degrees
    for name in ("jungfrau4m", "epix10ka2m", "pnccd", "epixhr1x4x20"):
        geometry = default_geometry(name)
        index = np.broadcast_to(np.arange(geometry.shape[0])[:, None, None], geometry.shape)
        image = assembled(index.astype(np.float32), geometry)
        per_panel = np.bincount(image[~np.isnan(image)].astype(int), minlength=geometry.shape[0])
        assert per_panel.min() > 0.9 * np.prod(geometry.shape[1:])


def test_a_camera_is_shown_as_it_is():
    geometry = default_geometry("camera", shape=(30, 40), pixel_size=5.5)
    data = np.random.default_rng(1).random((1, 30, 40))
    np.testing.assert_array_equal(assembled(data, geometry), data[0])
    assert default_geometry("Opal1000", shape=(30, 40), pixel_size=5.5) == geometry


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"detector": "jungfra"}, r"no default geometry for 'jungfra'; did you mean jungfrau"),
        ({"detector": "jungfrau", "panels": 33}, r"jungfrau has 32 panels by default, not 33"),
        ({"detector": "cspad2x2", "panels": 3}, r"cspad2x2 has 2 panels by default, not 3"),
        ({"detector": "camera", "shape": (3, 4)}, r"needs shape=\(rows, columns\) and pixel_size="),
    ],
)
def test_unknown_defaults(arguments, message):
    with pytest.raises(GeometryError, match=message):
        default_geometry(**arguments)

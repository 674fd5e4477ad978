"""Coordinates, areas, masks and moved parts against plain formulas."""

from math import cos, radians, sin

import numpy as np
import pytest

from psana_dask.errors import GeometryError
from psana_dask.geometry import tree
from psana_dask.geometry.model import Geometry, Part, find, moved, placed, tilted
from psana_dask.geometry.segments import PSANA1, PSANA2, segment_coordinates, segment_type

# sums of a few numbers of up to 1e5 um: some units in the last place of float64
ROUNDING = 1e-9


def single(name="MTRX:V2:4:6:100:100", **place):
    camera = Part("IP", 0, "CAMERA", 0, (0.0, 0.0, -1e5))
    return Geometry((Part("CAMERA", 0, name, 0, **place), camera))


def matrix(axis, degrees):
    s, c = sin(radians(degrees)), cos(radians(degrees))
    rows = {"z": [[c, -s, 0], [s, c, 0], [0, 0, 1]], "y": [[c, 0, s], [0, 1, 0], [-s, 0, c]]}
    return np.array(rows.get(axis, [[1, 0, 0], [0, c, -s], [0, s, c]]))


def test_rotation_is_about_z_then_y_then_x_then_translation():
    geometry = single(origin=(1000.0, -2000.0, 30.0), rotation=(90.0, 0.0, 10.0), tilt=(1.0, 2.0, 3.0))
    x, y = segment_coordinates(geometry.segment)
    local = np.stack([x, y, np.zeros_like(x)])
    turn = matrix("x", 13) @ matrix("y", 2) @ matrix("z", 91)
    expected = np.einsum("ij,jrc->irc", turn, local) + np.array([1000.0, -2000.0, 30.0 - 1e5])[:, None, None]
    found = np.stack(tree.coordinates(geometry))[:, 0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=ROUNDING)


def test_without_tilts_only_the_design_angles_count():
    with_tilt = single(rotation=(90.0, 0.0, 0.0), tilt=(1.0, 2.0, 3.0))
    plain = single(rotation=(90.0, 0.0, 0.0))
    np.testing.assert_array_equal(tree.coordinates(with_tilt, tilts=False), tree.coordinates(plain))


def test_lab_frame_and_back():
    psana = tree.coordinates(single(origin=(1.0, 2.0, 3.0)))
    lab = tree.in_frame(psana, "lab")
    np.testing.assert_array_equal(lab.x, -psana.y)
    np.testing.assert_array_equal(lab.z, -psana.z)
    assert (lab.z > 0).all()  # downstream of the interaction point
    np.testing.assert_array_equal(tree.in_frame(lab, "lab"), psana)
    with pytest.raises(ValueError, match="'psana' or 'lab'"):
        tree.in_frame(psana, "nexus")


@pytest.mark.parametrize("name", sorted(PSANA2))
@pytest.mark.parametrize("convention", ["psana1", "psana2"])
def test_every_segment_type_is_symmetric_about_its_centre(name, convention):
    segment = segment_type(name, convention)
    for axis in (segment.rows, segment.cols):
        assert axis.asics[0][0] == 0
        assert axis.asics[-1][1] == len(axis.positions)
        if not segment.rows_along_x:
            np.testing.assert_allclose(axis.positions, -axis.positions[::-1], rtol=0, atol=ROUNDING)
    assert segment.shape == tree.areas(single(name)).shape[1:]


@pytest.mark.parametrize("name", ["SENS2X1:V1", "EPIX100:V1", "EPIX10KA:V1", "EPIXUHR3X2:V1"])
def test_wide_pixels_in_their_centres_leave_no_gap(name):
    segment = segment_type(name)
    for axis in (segment.rows, segment.cols):
        centres = axis.positions + axis.shifts
        touching = (axis.sizes[1:] + axis.sizes[:-1]) / 2
        np.testing.assert_allclose(np.abs(np.diff(centres)), touching, rtol=1e-12)


def test_areas_are_products_of_sizes():
    geometry = single("EPIX100:V1")
    down, right = tree.sizes(geometry)
    np.testing.assert_allclose(tree.areas(geometry), down * right / 50**2)
    assert tree.areas(geometry)[0, 351, 383] == 3.5**2
    assert tree.areas(geometry)[0, 0, 383] == 3.5


def test_conventions_differ_where_the_libraries_do():
    differ = {
        name
        for name in PSANA1
        if not np.array_equal(
            segment_coordinates(segment_type(name, "psana1")), segment_coordinates(segment_type(name))
        )
    }
    assert differ == {"EPIX10KA:V1", "JUNGFRAU:V2"}


def test_mask_widths_and_unbonded_neighbours():
    geometry = single("SENS2X1:V1")
    nothing = {"edges": 0, "centre": 0, "unbonded": False}
    assert tree.mask(geometry, **nothing).all()
    edges = tree.mask(geometry, **nothing | {"edges": 2})
    assert int((~edges).sum()) == 185 * 388 - 181 * 384
    unbonded = tree.mask(geometry, **nothing | {"unbonded": True})
    assert int((~unbonded).sum()) == 2 * 19
    around = tree.mask(geometry, **nothing | {"unbonded": True, "neighbours": 8})
    # 18 whole neighbourhoods of 9 and one in a corner of 4, for both ASICs
    assert int((~around).sum()) == 2 * (18 * 9 + 4)
    with pytest.raises(ValueError, match="0, 4 or 8"):
        tree.mask(geometry, neighbours=5)


def test_columns_that_are_no_pixels_are_masked_and_have_no_bin():
    geometry = Geometry((Part("IP", 0, "ARCHON:V1", 0, (0.0, 0.0, -1e5)),), segment_shape=(4, 4800))
    fake = np.isnan(tree.coordinates(geometry).x)
    assert int(fake.sum()) == 4 * 16 * 36
    np.testing.assert_array_equal(tree.bins(tree.coordinates(geometry), 10).rows == -1, fake)
    assert not tree.mask(geometry, edges=0, centre=0)[fake].any()


def test_projection_keeps_directions():
    where = tree.coordinates(single(origin=(5e4, 0.0, 300.0), tilt=(0.0, 5.0, 0.0)))
    x, y = tree.projected(where, -2e5)
    np.testing.assert_allclose(x / -2e5, where.x / where.z, rtol=1e-12)
    np.testing.assert_allclose(y / -2e5, where.y / where.z, rtol=1e-12, atol=1e-18)
    np.testing.assert_array_equal(tree.projected(where, 500.0), (where.x, where.y))


QUADS = Geometry(
    tuple(Part("QUAD", q, "SENS2X1:V1", k, (0.0, 25000.0 * k, 0.0)) for q in (0, 1) for k in (0, 1))
    + tuple(Part("CSPAD", 0, "QUAD", q, (60000.0 * q, 0.0, 0.0)) for q in (0, 1))
    + (Part("IP", 0, "CSPAD", 0, (0.0, 0.0, -1e5)),)
)


def test_a_part_can_be_moved_and_tilted():
    before = tree.coordinates(QUADS).x
    after = tree.coordinates(moved(QUADS, "QUAD", 1, by=(100.0, 0.0, 0.0))).x
    np.testing.assert_allclose(after - before, [[[0]], [[0]], [[100]], [[100]]] * np.ones_like(before))
    turned = tilted(QUADS, "QUAD", 1, by=(180.0, 0.0, 0.0))
    np.testing.assert_allclose(
        tree.coordinates(turned).x[2:] - 60000, -(before[2:] - 60000), rtol=0, atol=ROUNDING
    )
    assert placed(QUADS, "QUAD", 1, tilt=(180.0, 0.0, 0.0)) == turned
    assert QUADS.key != turned.key


def test_parts_of_one_name_need_their_parent():
    with pytest.raises(GeometryError, match="several parts are called SENS2X1:V1 1"):
        find(QUADS, "SENS2X1:V1", 1)
    assert find(QUADS, "SENS2X1:V1", 1, parent=("QUAD", 1)) == 3
    with pytest.raises(GeometryError, match=r"no part QUAD 7.*QUAD 0, QUAD 1"):
        find(QUADS, "QUAD", 7)


def test_coordinates_of_one_part_are_in_its_parents_frame():
    whole, quad = tree.coordinates(QUADS), tree.coordinates(QUADS, part=("QUAD", 1))
    assert quad.x.shape == (2, 185, 388)
    np.testing.assert_allclose(quad.x, whole.x[2:], rtol=0, atol=ROUNDING)
    assert (quad.z == 0).all()

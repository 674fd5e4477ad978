"""Conversions both ways: positions survive, and independent readers see the same pixels."""

import json
from dataclasses import replace
from functools import lru_cache

import h5py
import numpy as np
import pytest

from psana_dask.errors import GeometryError
from psana_dask.geometry import tree
from psana_dask.geometry.convert import cheetah, crystfel, dxtbx, extra_geom, nexus, pyfai
from psana_dask.geometry.model import Geometry, Part
from psana_dask.geometry.text import read_text, write_text
from psana_dask.geometry.tiles import angles_of, geometry_of, rotation_matrix, tiles_of

METRE = 1e-9
# what issue 5 asks of CrystFEL; all formats that keep float64 are held to it


def detector(name, turns=(0.0, 90.0, 180.0, 270.0), distance=-0.31234567e6, pitch=80000.0):
    parts = [
        Part(
            "QUAD" if name == "SENS2X1:V1" else "CAMERA",
            k // 8 if name == "SENS2X1:V1" else 0,
            name,
            k % 8 if name == "SENS2X1:V1" else k,
            (pitch * (k % 2) - 41234.567, pitch * (k // 2) - 39876.543, 12.3456 * k),
            (turn, 0.0, 0.0),
            (0.1234 * (k + 1), -0.0567 * k, 0.0891),
        )
        for k, turn in enumerate(turns)
    ]
    frames = [Part("CAMERA", 0, "QUAD", q) for q in range(len(turns) // 8)] if name == "SENS2X1:V1" else []
    camera = Part("IP", 0, "CAMERA", 0, (123.4, -567.8, distance), (90.0, 0.0, 0.0), (0.01, 0.02, -0.03))
    return Geometry((*parts, *frames, camera))


NAMES = ["JUNGFRAU:V1", "JUNGFRAU:V2", "EPIX10KA:V1", "EPIX100:V1", "EPIXUHR3X2:V1", "PNCCD:V1"]
NAMES += ["EPIXHR2X2:V1", "EPIXMASIC:V1", "MTRX:V2:128:256:50:75"]
FOUR = (0.0, 90.0, 180.0, 270.0)
# two panels are enough for most; the tests of one type have four
DETECTORS = [detector(name, FOUR if name in ("JUNGFRAU:V1", "PNCCD:V1") else FOUR[1:3]) for name in NAMES]
DETECTORS += [detector("SENS2X1:V1", FOUR * 4)]
IDS = [*NAMES, "SENS2X1:V1"]


@lru_cache(maxsize=4)
def positions(geometry):
    """(panel, row, col, 3) laboratory metres of the regular pixel grid."""
    return np.stack(tree.coordinates(geometry, frame="lab", wide_centres=False), axis=-1) * 1e-6


def assert_same_pixels(found, expected, tolerance=METRE):
    assert found.shape == expected.shape
    np.testing.assert_allclose(positions(found), positions(expected), rtol=0, atol=tolerance)


@pytest.mark.parametrize("geometry", DETECTORS, ids=IDS)
def test_tiles_are_the_coordinates_and_lead_back(geometry):
    where = positions(geometry)
    found = tiles_of(geometry)
    for tile in found:
        here = where[tile.panel, slice(*tile.rows), slice(*tile.cols)]
        np.testing.assert_allclose(tile.positions(), here, rtol=0, atol=1e-13)
    back = geometry_of(found, geometry.segment.name)
    assert_same_pixels(back, geometry, 1e-13)
    assert_same_pixels(read_text(write_text(back)), geometry, 1e-13)
    assert all(abs(angle) <= 45 for part in back.parts for angle in part.tilt)


def test_the_segment_type_is_found():
    for geometry in DETECTORS:
        assert geometry_of(tiles_of(geometry)).segment.shape == geometry.segment.shape
    # the same ASICs, rows up or down: only one of them faces the source
    assert geometry_of(tiles_of(DETECTORS[0])).segment.name == "JUNGFRAU:V1"
    assert geometry_of(tiles_of(DETECTORS[1])).segment.name == "JUNGFRAU:V2"


def test_wrong_segments_and_missing_panels_are_refused():
    found = tiles_of(DETECTORS[0])
    with pytest.raises(GeometryError, match="panel 0 does not have the ASICs of EPIX100:V1"):
        geometry_of(found, "EPIX100:V1")
    with pytest.raises(GeometryError, match=r"panels \[0\] are missing"):
        geometry_of([tile for tile in found if tile.panel])
    with pytest.raises(GeometryError, match="no panels"):
        geometry_of([])
    stretched = [t if t.rows[0] == 0 else replace(t, first=t.first + 1e-3) for t in found]
    with pytest.raises(GeometryError, match=r"panel 0 is no JUNGFRAU:V1: an ASIC lies .* um"):
        geometry_of(stretched, "JUNGFRAU:V1")


def test_angles_lead_back_to_the_rotation():
    for angles in [(91.0, 2.0, -3.0), (-170.0, 60.0, 140.0), (0.0, 0.0, 180.0), (45.0, -89.0, 10.0)]:
        turn = rotation_matrix(angles)
        np.testing.assert_allclose(rotation_matrix(angles_of(turn)), turn, atol=1e-14)


@pytest.mark.parametrize("geometry", DETECTORS, ids=IDS)
@pytest.mark.parametrize("panel_axis", [False, True])
def test_crystfel_round_trip(geometry, panel_axis):
    text = crystfel.write_crystfel(geometry, panel_axis=panel_axis)
    assert_same_pixels(crystfel.read_crystfel(text, geometry.segment.name), geometry)
    assert_same_pixels(crystfel.read_crystfel(text), geometry)


@pytest.mark.parametrize("name", ["JUNGFRAU:V1", "EPIX100:V1", "EPIX10KA:V1"])
def test_crystfel_is_read_by_extra_geom(name, tmp_path):
    library = pytest.importorskip("extra_geom")
    kinds = {"JUNGFRAU:V1": "JUNGFRAU", "EPIX100:V1": "Epix100", "EPIX10KA:V1": "Epix10K"}
    geometry = detector(name, (0.0, 90.0, 180.0, 270.0) if name.startswith("J") else (90.0,))
    path = tmp_path / "detector.geom"
    distance = 0.25
    path.write_text(crystfel.write_crystfel(geometry, clen=distance, panel_axis=name.startswith("J")))
    reader = getattr(library, f"{kinds[name]}Geometry")
    theirs = reader.from_crystfel_geom(str(path)).get_pixel_positions(centre=True)
    # EXtra-geom keeps z relative to the camera length
    ours = positions(geometry) - (0, 0, distance)
    assert np.abs(theirs.reshape(ours.shape) - ours).max() < METRE


@pytest.mark.parametrize("geometry", DETECTORS, ids=IDS)
def test_crystfel_is_read_by_cfelpyutils_parser(geometry, tmp_path):
    """The parser of EXtra-geom is CrystFEL's own format library; every segment type goes through it."""
    library = pytest.importorskip("cfel_fmt.geometry")
    path = tmp_path / "detector.geom"
    path.write_text(crystfel.write_crystfel(geometry))
    where = positions(geometry)
    panels = library.load_crystfel_geometry(str(path)).detector["panels"]
    assert len(panels) == len(tiles_of(geometry))
    for panel in panels.values():
        fast, slow = (np.array([panel[f"{axis}{n}"] for n in "xyz"]) for axis in ("fs", "ss"))
        corner = np.array([panel["cnx"], panel["cny"], 0]) / panel["res"]
        corner[2] = panel["clen"] + panel["coffset"]
        index, row = divmod(panel["orig_min_ss"], geometry.shape[1])
        rows = np.arange(row, panel["orig_max_ss"] - index * geometry.shape[1] + 1)
        cols = np.arange(panel["orig_min_fs"], panel["orig_max_fs"] + 1)
        steps = (rows - row + 0.5)[:, None, None] * slow + (cols - cols[0] + 0.5)[None, :, None] * fast
        here = where[index, rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
        np.testing.assert_allclose(corner + steps / panel["res"], here, rtol=0, atol=METRE)


def test_crystfel_camera_length_groups_and_regions():
    geometry = DETECTORS[0]
    bad = [(1, (250, 260), (0, 10)), (3, (0, 1), (0, 1024))]
    text = crystfel.write_crystfel(geometry, bad=bad, mask="/m")
    parsed = crystfel.parse_crystfel(text)
    assert parsed.groups["rigid_group_p1"] == tuple(f"p1a{k}" for k in range(8))
    assert parsed.groups["rigid_group_collection_panels"] == ("p0", "p1", "p2", "p3")
    assert (parsed.header["mask"], parsed.header["mask_bad"]) == ("/m", "0xffff")
    mean = np.mean([tile.first[2] for tile in tiles_of(geometry)])
    assert float(parsed.header["clen"]) == pytest.approx(mean, abs=1e-12)
    good = parsed.good(parsed.tiles((512, 1024)), geometry.shape)
    expected = np.ones(geometry.shape, bool)
    expected[1, 250:260, :10] = False
    expected[3, 0] = False
    np.testing.assert_array_equal(good, expected)
    moved = crystfel.read_crystfel(text, distance=1.0)
    np.testing.assert_allclose(positions(moved)[..., 2] - positions(geometry)[..., 2], 1 - mean, atol=METRE)
    path = crystfel.write_crystfel(geometry, clen="/LCLS/encoder")
    assert_same_pixels(crystfel.read_crystfel(path), geometry)


def test_crystfel_quads_are_rigid_groups():
    groups = crystfel.parse_crystfel(crystfel.write_crystfel(DETECTORS[-1])).groups
    assert groups["rigid_group_collection_frames"] == ("f0", "f1")
    assert groups["rigid_group_f1"] == tuple(f"p{p}a{a}" for p in range(8, 16) for a in (0, 1))


UNKNOWN = """
res = 10000 ; the default of what follows
min_ss = 0
left/fs = x
left/ss = -y
left/corner_x = -5
left/corner_y = 1e1
left/min_fs = 0
left/max_fs = 6
left/max_ss = 4
right/fs = 1.0x +0.0y
right/ss = -1.0y
right/corner_x = 5
right/corner_y = 10
right/min_fs = 7
right/max_fs = 13
right/max_ss = 4
bad_corner/min_x = -5
bad_corner/max_x = -4
bad_corner/min_y = 9
bad_corner/max_y = 10
"""


def test_crystfel_of_an_unknown_detector_gives_a_panel_each():
    geometry = crystfel.read_crystfel(UNKNOWN)
    assert geometry.segment.name == "MTRX:V2:5:7:100:100"
    assert geometry.shape == (2, 5, 7)
    # the corner is half a pixel before the first centre
    np.testing.assert_allclose(positions(geometry)[0, 0, 0], [-4.5e-4, 9.5e-4, 0], atol=METRE)
    np.testing.assert_allclose(positions(geometry)[1, 4, 6], [11.5e-4, 5.5e-4, 0], atol=METRE)
    parsed = crystfel.parse_crystfel(UNKNOWN)
    good = parsed.good(parsed.tiles((5, 7)), (2, 5, 7))
    assert np.argwhere(~good).tolist() == [[0, 0, 0]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("left/fs = x", "left/fs x"), r"line 4: not of the form"),
        (("left/fs = x", "left/fs = 1.0w"), r"line 4: fs of panel 'left' is no vector: '1.0w'"),
        (("left/corner_x = -5", "left/corner_x = five"), r"line 6: corner_x of panel 'left' is no number"),
        (("left/corner_x = -5", ""), r"panel 'left' has no corner_x"),
        (("left/max_ss = 4", "left/max_ss = -4"), r"line 10: panel 'left' ends before it begins"),
    ],
)
def test_malformed_crystfel_names_the_line(change, message):
    with pytest.raises(GeometryError, match=message):
        crystfel.read_crystfel(UNKNOWN.replace(*change))


CAMERA_LENGTHS = [("80 mm", 0.08), ("0.08 m", 0.08), ("0.08", 0.08), ("/LCLS/z", 0.0)]


@pytest.mark.parametrize(("clen", "metres"), CAMERA_LENGTHS)
def test_crystfel_camera_length_has_units(clen, metres):
    geometry = crystfel.read_crystfel(f"clen = {clen}\n{UNKNOWN}")
    np.testing.assert_allclose(positions(geometry)[..., 2], metres, atol=METRE)


def test_crystfel_without_panels():
    with pytest.raises(GeometryError, match="no panels"):
        crystfel.read_crystfel("clen = 1\n")


@pytest.mark.parametrize("geometry", DETECTORS, ids=IDS)
def test_cheetah_round_trip(geometry):
    pixel_map = cheetah.to_pixel_map(geometry)
    # float32 of up to 0.2 m in x and y (2e-8 m) and 0.3e6 um in z (3e-8 m)
    assert_same_pixels(cheetah.from_pixel_map(pixel_map, geometry.segment.name), geometry, 4e-8)
    if geometry.segment.name == "SENS2X1:V1":
        assert pixel_map.x.shape == (1480, 776)
        panel = 1 * 8 + 3
        block = pixel_map.y[3 * 185 : 4 * 185, 1 * 388 : 2 * 388]
        np.testing.assert_array_equal(block, positions(geometry)[panel, ..., 1].astype(np.float32))


def test_cheetah_of_the_wrong_shape():
    wrong = cheetah.PixelMap(*(np.zeros((100, 1024), np.float32),) * 3)
    with pytest.raises(GeometryError, match=r"\(100, 1024\) does not hold whole panels"):
        cheetah.from_pixel_map(wrong, "JUNGFRAU:V1")


PYFAI = [detector(name, (0.0, 90.0)) for name in NAMES]
PYFAI += [detector("SENS2X1:V1", (0.0, 90.0, 180.0, 270.0) * 2)]


@pytest.mark.parametrize("geometry", PYFAI, ids=lambda g: g.segment.name)
def test_pyfai_two_theta_and_round_trip(geometry):
    pytest.importorskip("pyFAI")
    from pyFAI.geometry import Geometry as PyfaiGeometry

    found, place = pyfai.to_pyfai(geometry)
    shape = (geometry.shape[0] * geometry.shape[1], geometry.shape[2])
    theirs = PyfaiGeometry(detector=found, **place)
    x, y, z = tree.coordinates(geometry, frame="lab")
    two_theta = np.arctan2(np.hypot(x, y), z).reshape(shape)
    np.testing.assert_allclose(theirs.twoThetaArray(shape), two_theta, rtol=0, atol=1e-6)
    # chi is counted from axis 2 (-x) towards axis 1 (y); float32 corners fix it to 1e-5 off the beam
    chi = np.arctan2(y, -x).reshape(shape)
    off = np.angle(np.exp(1j * (theirs.chiArray(shape) - chi)))
    assert np.abs(off[two_theta > 0.01]).max() < 1e-5
    assert_same_pixels(pyfai.from_pyfai(found, place, geometry.segment.name), geometry, 4e-8)


def test_pyfai_rotations_are_pyfais():
    pytest.importorskip("pyFAI")
    from pyFAI.geometry import Geometry as PyfaiGeometry

    geometry = detector("MTRX:V2:128:256:75:75", (0.0, 90.0))
    found, _ = pyfai.to_pyfai(geometry)
    place = {"dist": 0.3, "poni1": 0.01, "poni2": -0.02, "rot1": 0.1, "rot2": -0.2, "rot3": 0.3}
    theirs = PyfaiGeometry(detector=found, **place)
    turned = pyfai.from_pyfai(found, place, "MTRX:V2:128:256:75:75")
    x, y, z = tree.coordinates(turned, frame="lab")
    shape = (256, 256)
    np.testing.assert_allclose(
        theirs.twoThetaArray(shape), np.arctan2(np.hypot(x, y), z).reshape(shape), rtol=0, atol=1e-6
    )


def test_poni_text_is_read_by_pyfai(tmp_path):
    pytest.importorskip("pyFAI")
    from pyFAI.io.ponifile import PoniFile

    path = tmp_path / "detector.poni"
    path.write_text(pyfai.poni_text(DETECTORS[5], wavelength=1e-10))
    read = PoniFile(str(path)).as_dict()
    assert read["dist"] == pyfai.to_pyfai(DETECTORS[5])[1]["dist"]
    assert read["wavelength"] == 1e-10


@pytest.mark.parametrize("geometry", DETECTORS, ids=IDS)
def test_nexus_round_trip(geometry):
    with h5py.File("detector.nxs", "w", driver="core", backing_store=False) as file:
        group = file.create_group("entry/instrument/detector")
        nexus.write_nxmx(group, geometry)
        assert_same_pixels(nexus.read_nxmx(group), geometry)
        assert_same_pixels(nexus.read_nxmx(group, geometry.segment.name), geometry)


def chain_matrix(file, name):
    """4 x 4 matrix of a NeXus transformation chain, written from the definition of NXtransformations."""
    total = np.eye(4)
    while name != ".":
        axis = file[name]
        vector = axis.attrs["vector"] / np.linalg.norm(axis.attrs["vector"])
        step = np.eye(4)
        if axis.attrs["transformation_type"] == "rotation":
            assert axis.attrs["units"] == "deg"
            half = np.radians(axis[()]) / 2
            w, (a, b, c) = np.cos(half), np.sin(half) * vector
            step[:3, :3] = [
                [1 - 2 * (b * b + c * c), 2 * (a * b - c * w), 2 * (a * c + b * w)],
                [2 * (a * b + c * w), 1 - 2 * (a * a + c * c), 2 * (b * c - a * w)],
                [2 * (a * c - b * w), 2 * (b * c + a * w), 1 - 2 * (a * a + b * b)],
            ]
        else:
            assert axis.attrs["units"] == "m"
            step[:3, 3] = axis[()] * vector
        step[:3, 3] += axis.attrs["offset"]
        total = step @ total
        name = axis.attrs["depends_on"]
    return total


def test_nexus_follows_the_definition_of_nxmx():
    geometry = DETECTORS[0]
    where = positions(geometry)
    with h5py.File("detector.nxs", "w", driver="core", backing_store=False) as file:
        group = file.create_group("entry/instrument/detector")
        nexus.write_nxmx(group, geometry)
        assert group.attrs["NX_class"] == "NXdetector"
        assert group["transformations"].attrs["NX_class"] == "NXtransformations"
        assert {"depends_on", "description", "x_pixel_size", "y_pixel_size"} <= set(group)
        modules = [g for g in group.values() if g.attrs.get("NX_class") == "NXdetector_module"]
        assert len(modules) == 4 * 8
        for module in modules:
            for name in ("module_offset", "fast_pixel_direction", "slow_pixel_direction"):
                required = {"transformation_type", "vector", "offset", "depends_on", "units"}
                assert required <= set(module[name].attrs)
            panel, row, col = module["data_origin"][()]
            deep, rows, cols = module["data_size"][()]
            assert deep == 1
            pixels = np.mgrid[:rows, :cols] + 0.5
            offset = chain_matrix(file, f"{module.name}/module_offset")
            local = np.zeros((3, rows, cols))
            for name, steps in zip(("slow", "fast"), pixels, strict=True):
                direction = module[f"{name}_pixel_direction"]
                assert direction.attrs["depends_on"] == f"{module.name}/module_offset"
                local += direction[()] * direction.attrs["vector"][:, None, None] * steps
            found = np.einsum("ij,jrc->rci", offset[:3, :3], local) + offset[:3, 3]
            here = where[panel, row : row + rows, col : col + cols]
            np.testing.assert_allclose(found, here, rtol=0, atol=METRE)


def broken(file, change):
    group = file.create_group("entry/detector")
    nexus.write_nxmx(group, detector("PNCCD:V1", (0.0,)))
    change(group)
    return group


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: g["transformations/AXIS_P0"].attrs.modify("depends_on", "/no/where"), "does not exist"),
        (
            lambda g: g["transformations/AXIS_RAIL"].attrs.modify("depends_on", "AXIS_P0"),
            "form a loop",
        ),
        (lambda g: g["transformations/AXIS_P0"].attrs.modify("units", "furlong"), "unknown units 'furlong'"),
        (lambda g: g["transformations/AXIS_P0"].attrs.modify("transformation_type", "shear"), "'shear'"),
        (lambda g: g["transformations/AXIS_P0"].attrs.modify("offset_units", "ell"), "offset_units 'ell'"),
        (lambda g: g.pop("ARRAY_P0A0"), "no NXdetector_module"),
    ],
)
def test_malformed_nexus(change, message):
    with (
        h5py.File("detector.nxs", "w", driver="core", backing_store=False) as file,
        pytest.raises(GeometryError, match=message),
    ):
        nexus.read_nxmx(broken(file, change))


@pytest.mark.parametrize("geometry", DETECTORS, ids=IDS)
def test_dxtbx_vectors_and_round_trip(geometry):
    model = json.loads(json.dumps(dxtbx.to_dxtbx(geometry)))
    where = positions(geometry) * 1e3 * [-1, 1, -1]
    for panel, tile in zip(model["panels"], tiles_of(geometry), strict=True):
        origin, fast, slow = (np.array(panel[key]) for key in ("origin", "fast_axis", "slow_axis"))
        np.testing.assert_allclose([fast @ fast, slow @ slow], 1, rtol=1e-12)
        cols, rows = panel["image_size"]
        here = where[tile.panel, slice(*tile.rows), slice(*tile.cols)]
        last = origin + fast * (cols - 0.5) * panel["pixel_size"][0] + slow * 0.5 * panel["pixel_size"][1]
        np.testing.assert_allclose(last, here[0, -1], rtol=0, atol=METRE * 1e3)
        assert here.shape[:2] == (rows, cols)
    assert_same_pixels(dxtbx.from_dxtbx(model, geometry.segment.name), geometry)


def test_dxtbx_panels_may_hang_in_frames():
    geometry = DETECTORS[5]
    model = dxtbx.to_dxtbx(geometry)
    frame = dict(model["hierarchy"], origin=[1.0, 2.0, 3.0], fast_axis=[0.0, 1.0, 0.0])
    frame["slow_axis"] = [-1.0, 0.0, 0.0]
    inner = dict(frame, children=[{"panel": k} for k in range(4)])
    model["hierarchy"] = dict(model["hierarchy"], children=[inner])
    turned = positions(dxtbx.from_dxtbx(model, "PNCCD:V1")) * [-1, 1, -1]
    x, y, z = np.moveaxis(positions(geometry) * [-1, 1, -1], -1, 0)
    expected = np.stack([-y + 1e-3, x + 2e-3, z + 3e-3], axis=-1)
    np.testing.assert_allclose(turned, expected, rtol=0, atol=METRE)
    with pytest.raises(GeometryError, match="3 panels; JUNGFRAU:V1 has 8 ASICs"):
        dxtbx.from_dxtbx({"panels": model["panels"][:3]}, "JUNGFRAU:V1")
    with pytest.raises(GeometryError, match=r"has .* pixels"):
        dxtbx.from_dxtbx({"panels": model["panels"]}, "MTRX:V2:512:511:75:75")


@pytest.mark.parametrize("geometry", DETECTORS, ids=IDS)
def test_extra_geom_round_trip(geometry):
    pytest.importorskip("extra_geom")
    theirs = extra_geom.to_extra_geom(geometry)
    ours = positions(geometry)
    np.testing.assert_allclose(theirs.get_pixel_positions().reshape(ours.shape), ours, rtol=0, atol=METRE)
    assert_same_pixels(extra_geom.from_extra_geom(theirs, geometry.segment.name), geometry)
    assert_same_pixels(extra_geom.from_extra_geom(theirs), geometry)
    image, _ = theirs.position_modules(np.ones(geometry.shape, np.float32))
    assert np.nansum(image) > 0.9 * np.prod(geometry.shape)

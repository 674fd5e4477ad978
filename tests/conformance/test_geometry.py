"""Geometry against psana1 (PSCalib b9f60ba) and psana2 (lcls2 4e09af7): every oracle, every value.

Where psana's result is a defect by `spec/geometry.md`, the exception is named in a table here
and the value that is right is checked instead.
"""

import hashlib
import os
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from psana_dask.geometry import tree
from psana_dask.geometry.assembly import apply, prepare
from psana_dask.geometry.convert.cheetah import stacked
from psana_dask.geometry.convert.crystfel import parse_crystfel, read_crystfel, write_crystfel
from psana_dask.geometry.defaults import default_geometry
from psana_dask.geometry.text import read_text
from psana_dask.geometry.tiles import tiles_of

ROOT = Path(os.environ.get("PSANA_DASK_CONFORMANCE", Path(__file__).parents[2] / ".." / "shared" / "data"))
FOLDER = ROOT / "geometry"
pytestmark = pytest.mark.skipif(not FOLDER.exists(), reason=f"no oracles at {FOLDER}")

CASES = sorted(f"{p.parent.name}/{p.stem}" for p in FOLDER.glob("p[12]/*.npz"))
IMAGES = [case for case in CASES if "archon" not in case]  # psana2 makes none: NaN coordinates
# coordinates are sums of at most a dozen terms of up to 1e6 um: a few units in the last place
ROUNDING = 2e-9
# psana2 fills the sizes of JUNGFRAU:V2 with arange instead of ones; ARCHON:V2's array has another shape
AREA_DEFECT = {"JUNGFRAU:V2", "ARCHON:V2"}


@lru_cache(maxsize=2)
def load(case):
    with np.load(FOLDER / f"{case}.npz") as archive:
        oracle = {name: archive[name] for name in archive.files}
    shape = tuple(int(n) for n in oracle["shape"])
    geometry = read_text(
        str(oracle["geo_text"]),
        convention="psana1" if case.startswith("p1") else "psana2",
        segment_shape=shape[-2:],
    )
    return oracle, geometry, shape


def in_psana_order(array, shape):
    """(panel, row, col) -> psana's flat order; the CSPAD 2x2 has the panel last."""
    return (np.moveaxis(array, 0, -1) if shape[-1] == 2 else array).ravel()


def sha256(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def pattern(count):
    """The data of the oracle's images: pixel i holds (7919 i + 31 (i // 128)) mod 16384."""
    i = np.arange(count, dtype=np.int64)
    return ((i * 7919 + (i >> 7) * 31) % 16384).astype(np.float32)


@pytest.mark.parametrize("case", CASES)
def test_coordinates(case):
    oracle, geometry, shape = load(case)
    assert geometry.segment.name == str(oracle["seg_name"])
    assert np.prod(geometry.shape) == np.prod(shape)
    assert geometry.segment.pixel_size == float(oracle["pixel_scale_size"])
    for suffix, choice in {"": {}, "_notilt": {"tilts": False}, "_lab": {"frame": "lab"}}.items():
        ours = tree.coordinates(geometry, **choice)
        for axis, values in zip("xyz", ours, strict=True):
            flat = in_psana_order(values, shape)
            np.testing.assert_allclose(flat[oracle["idx"]], oracle[axis + suffix], rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("case", CASES)
def test_coordinate_statistics(case):
    oracle, geometry, _ = load(case)
    ours = [[np.nanmin(v), np.nanmax(v), np.nanmean(v), np.nanstd(v)] for v in tree.coordinates(geometry)]
    # means of up to 4M values, summed in another order
    np.testing.assert_allclose(ours, oracle["stats"], rtol=1e-9, atol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_areas(case):
    oracle, geometry, shape = load(case)
    areas = in_psana_order(tree.areas(geometry), shape)
    if geometry.segment.name in AREA_DEFECT and case.startswith("p2"):
        row_sizes, col_sizes = tree.sizes(geometry)
        expected = (row_sizes * col_sizes).ravel() / np.nanmin(row_sizes * col_sizes)
        np.testing.assert_array_equal(areas, expected)
        return
    np.testing.assert_allclose(areas[oracle["idx"]], oracle["area"], rtol=1e-15)
    np.testing.assert_allclose(np.nansum(areas), oracle["area_sum"], rtol=1e-12)


@pytest.mark.parametrize("case", IMAGES)
def test_image_indices(case):
    oracle, geometry, shape = load(case)
    rows, cols = tree.bins(tree.coordinates(geometry), geometry.segment.pixel_size)
    for name, values in (("ix", rows), ("iy", cols)):
        flat = in_psana_order(values, shape).astype(np.uint32)
        np.testing.assert_array_equal(flat[oracle["idx"]], oracle[name])
        assert int(flat.sum(dtype=np.int64)) == int(oracle[f"{name}_sum"])
        assert sha256(flat) == str(oracle[f"{name}_sha256"])


def in_our_order(array, shape):
    """psana's array of any order -> (panel, row, col)."""
    return np.ascontiguousarray(np.moveaxis(array.reshape(shape), -1, 0) if shape[-1] == 2 else array)


@pytest.mark.parametrize("case", IMAGES)
def test_image(case):
    oracle, geometry, shape = load(case)
    data = pattern(int(np.prod(shape)))
    tables = prepare(geometry)
    panels = in_our_order(data, shape).reshape(geometry.shape)
    image = apply(panels, tables, np.empty(tables.shape, np.float32), fill=0)
    counts = np.bincount(tables.bins[tables.bins >= 0], minlength=image.size)
    assert image.shape == tuple(oracle["img_shape"])
    assert tables.overlapping == int(oracle["n_multi_bins"])
    assert int(np.maximum(counts - 1, 0).sum()) == int(oracle["n_pix_lost"])
    assert int((counts == 0).sum()) == int(oracle["n_empty"])
    if shape[-1] == 2:
        image = in_daq_order(image, tables, counts, data, shape)
    assert float(image.sum(dtype=np.float64)) == float(oracle["img_sum"])
    assert sha256(image) == str(oracle["img_sha256"])
    if "img_full" in oracle:
        np.testing.assert_array_equal(image, oracle["img_full"])


def in_daq_order(image, tables, counts, data, shape):
    """A CSPAD 2x2's panels are interleaved in the file, so psana's "last" is another pixel there.

    Only bins that hold several pixels may differ; they are set to the last in that order.
    """
    expected = np.zeros(image.size, np.float32)
    expected[np.moveaxis(tables.bins, 0, -1).ravel()] = data
    assert (counts[np.flatnonzero(expected != image.ravel())] > 1).all()
    return expected.reshape(image.shape)


BITS = {1: {"edges": 1}, 2: {"centre": 1}, 4: {"unbonded": True}, 8: {"neighbours": 4}, 16: {"neighbours": 8}}
NOTHING = {"edges": 0, "centre": 0, "unbonded": False, "neighbours": 0}


# psana2 masks no edges of these unless told to
NO_EDGES = ("MTRX:V2", "MTRXANY", "EPIXMASIC", "EPIXUHRASIC", "ARCHON")


def mask_choices(bits, library, segment):
    """Our arguments for psana's bit word; psana2 takes no notice of bits 1 and 2."""
    chosen = dict(NOTHING)
    for bit in (b for b in BITS if b & bits):
        chosen |= BITS[bit] | ({"unbonded": True} if bit > 4 else {})
    if library == "p2":
        plain = segment.startswith(NO_EDGES)
        chosen |= {"edges": 0 if plain else 1, "centre": 0 if plain or segment == "EPIXHR1X4:V1" else 1}
    return chosen


@pytest.mark.parametrize("case", CASES)
def test_masks(case):
    oracle, geometry, shape = load(case)
    for bits in (1, 2, 4, 8, 16, 31):
        if f"mask_mbits{bits}_err" in oracle:
            assert geometry.segment.name.startswith("JUNGFRAU")  # psana2 raises: dtype=np.dtype
            continue
        mask = tree.mask(geometry, **mask_choices(bits, case[:2], geometry.segment.name))
        if bits == 8 and case.startswith("p1"):
            # psana's bit 8 forgets the two unbonded pixels of row 0 themselves
            mask[:, 0, [col for row, col in geometry.segment.unbonded if row == 0]] = True
        flat = in_psana_order(mask, shape)
        assert int((~flat).sum()) == int(oracle[f"mask_mbits{bits}_nzero"]), bits
        assert sha256(flat.astype(np.uint8)) == str(oracle[f"mask_mbits{bits}_sha256"]), bits


EXTRA = [case for case in CASES if case.endswith(("/cspad_quads", "/epix10ka2m_quads"))]


@pytest.mark.parametrize("case", EXTRA)
def test_projection_scale_offset_and_frames(case):
    oracle, geometry, _ = load(case)
    where, size = tree.coordinates(geometry), geometry.segment.pixel_size
    at = oracle["idx"]
    for name, values in zip(("xatz", "yatz"), tree.projected(where), strict=True):
        np.testing.assert_allclose(values.ravel()[at], oracle[name], rtol=1e-12, atol=ROUNDING)
    found = tree.bins(where, size * 1.1, offset=(12, 7.5))
    for name, values in zip(("ix_scale1p1_off12_7p5", "iy_scale1p1_off12_7p5"), found, strict=True):
        np.testing.assert_array_equal(values.ravel()[at], oracle[name])
    found = tree.bins(tree.in_frame(where, "lab"), size, frame="lab")
    for name, values in zip(("row_lab", "col_lab"), found, strict=True):
        np.testing.assert_array_equal(values.ravel()[at], oracle[name])
    np.testing.assert_allclose(tree.bin_of_point((0, 0), where, size), oracle["point0_rc"], rtol=1e-9)
    # psana2 keeps the first segment object it made, so asking for wide centres changes nothing
    centres = tree.coordinates(geometry, wide_centres=case.startswith("p1"))
    np.testing.assert_allclose(centres.x.ravel()[at], oracle["x_wpc"], rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(centres.y.ravel()[at], oracle["y_wpc"], rtol=0, atol=ROUNDING)


MODES = sorted(p.stem for p in FOLDER.glob("p2_image_modes_*.npz"))


@pytest.mark.parametrize("name", MODES)
def test_psana2_image_modes(name):
    """psana2's modes 1 to 3 all give "last": its overlap dictionary is always empty."""
    with np.load(FOLDER / f"{name}.npz") as archive:
        oracle = {key: archive[key] for key in archive.files}
    geometry = read_text((FOLDER / "geo_files" / f"{oracle['geo']}.data").read_text(), convention="psana2")
    for holes, fill in (("none", 0), ("minimum", 1)):
        tables = prepare(geometry, holes=holes)
        data = pattern(int(np.prod(geometry.shape))).reshape(geometry.shape)
        image = apply(data, tables, np.empty(tables.shape, np.float32), fill=0)
        counts = np.bincount(tables.bins.ravel(), minlength=image.size).astype(np.float32)
        assert sha256(counts) == str(oracle[f"sha_mapmode0_fill{fill}"])
        for mode in (1, 2, 3):
            assert float(image.sum(dtype=np.float64)) == float(oracle[f"sum_mapmode{mode}_fill{fill}"])
            assert sha256(image) == str(oracle[f"sha_mapmode{mode}_fill{fill}"])
    filled = image[oracle["filled_rows"], oracle["filled_cols"]]
    np.testing.assert_array_equal(filled, oracle["filled_vals"])


def test_psana2_overlap_modes_as_meant():
    """What psana2's modes 2 and 3 would give without the defect, against numpy."""
    _, geometry, shape = load("p2/cspad_quads")
    data = pattern(int(np.prod(shape))).reshape(geometry.shape)
    for rule, ufunc in (("max", np.maximum), ("mean", np.add)):
        tables = prepare(geometry, overlap=rule)
        image = apply(data, tables, np.empty(tables.shape, np.float32), fill=0)
        expected = np.zeros(image.size)
        ufunc.at(expected, tables.bins.ravel(), data.ravel())
        counts = np.maximum(np.bincount(tables.bins.ravel(), minlength=image.size), 1)
        expected = expected / counts if rule == "mean" else expected
        np.testing.assert_array_equal(image.ravel(), expected.astype(np.float32))
    assert tables.overlapping == 283468


CRYSTFEL = sorted(p.stem for p in FOLDER.glob("crystfel/*.geom"))
# psana's converter prints 6 decimals of unit vectors, corners and metres of z
PRINTED = np.array([0.05, 0.05, 1.0])


@pytest.mark.parametrize("name", CRYSTFEL)
def test_psana_crystfel_files(name):
    """psana's own CrystFEL files hold our pixels; it writes the first pixel's centre as its corner."""
    geometry = source_of(name.removesuffix("_cframe0"))
    parsed = parse_crystfel((FOLDER / "crystfel" / f"{name}.geom").read_text())
    frame = "psana" if name.endswith("cframe0") else "lab"
    # in JUNGFRAU:V2 psana's first pixel may be a wide one; the grid behind it is then half a pixel off
    wide = geometry.segment.wide_centres
    printed = PRINTED + (2.5 if name.startswith("pnccd_mtrxv2") else 0)  # source known to 1 um only
    where = np.stack(tree.coordinates(geometry, frame=frame), axis=-1)
    found = parsed.tiles(geometry.segment.shape, corner="centre")
    assert len(found) == len(tiles_of(geometry))
    for tile in found:
        here = where[tile.panel, slice(*tile.rows), slice(*tile.cols)]
        there = tile.positions() * 1e6
        off = np.abs(there - here)[: 1 if wide else None, : 1 if wide else None]
        assert (off.max(axis=(0, 1)) < printed).all()


def source_of(name):
    """The geometry that psana converted; for pnccd_mtrxv2 only psana's way back is stored."""
    if name == "pnccd_mtrxv2":
        return read_text((FOLDER / "crystfel" / "pnccd_mtrxv2_back.data").read_text())
    source = {"jungfrau1m_V1": "jungfrau1m_V2"}.get(name, name)
    geometry = read_text((FOLDER / "geo_files" / f"{source}.data").read_text())
    if source == name:
        return geometry
    parts = (replace(p, name=p.name.replace("JUNGFRAU:V2", "JUNGFRAU:V1")) for p in geometry.parts)
    return replace(geometry, parts=tuple(parts))


# what psana's way back loses, um in x, y, z: whole um, 5 decimals of a degree, small-angle tilts
BACK = {"cspad_quads": (1.9, 3.6, 3.1), "jungfrau4m_V2": (0.9, 1.9, 1.9)}


@pytest.mark.parametrize("name", sorted(BACK))
def test_psana_crystfel_way_back(name):
    """The geometry text that psana makes from its CrystFEL file lies where the first one did."""
    back = read_text((FOLDER / "crystfel" / f"{name}_back.data").read_text())
    pairs = zip(tree.coordinates(back), tree.coordinates(source_of(name)), BACK[name], strict=True)
    assert all(np.abs(there - here).max() < limit for there, here, limit in pairs)


def test_our_crystfel_way_back_is_exact():
    """For every geometry of the oracles, where psana's converter fails or loses micrometres."""
    for path in sorted(FOLDER.glob("geo_files/*.data")):
        geometry = read_text(path.read_text())
        if geometry.segment.name.startswith("ARCHON"):
            continue
        back = read_crystfel(write_crystfel(geometry))
        for axis in zip(*(tree.coordinates(g, wide_centres=False) for g in (back, geometry)), strict=True):
            np.testing.assert_allclose(*axis, rtol=0, atol=1e-3)  # 1e-9 m in um


def test_psgeom_crystfel_file():
    """psgeom writes true corners and x to the other side; its 2-d vectors and one z per file lose z."""
    oracle = np.load(FOLDER / "psgeom" / "cspad_ref_from_psana.npz")
    parsed = parse_crystfel((FOLDER / "psgeom" / "cspad_refgeom_psgeom.geom").read_text())
    where = np.empty((32, 185, 388, 3))
    for tile in parsed.tiles((185, 388)):
        where[tile.panel, slice(*tile.rows), slice(*tile.cols)] = tile.positions() * 1e6 * [-1, 1, 1]
    ours, theirs = where.reshape(-1, 3)[oracle["idx"]], oracle["xyz_psgeom"]
    # its vectors have length 1 in 2-d: the shortening by tilts is lost, 5e-6 of 42 mm
    np.testing.assert_allclose(ours[:, :2], theirs[:, :2], rtol=0, atol=0.21)


def test_cheetah_layout_of_psgeom():
    """Where both oracles sample the same pixel, our layout leads from one to the other."""
    cheetah = np.load(FOLDER / "psgeom" / "cspad_cheetah_samples.npz")
    psgeom = np.load(FOLDER / "psgeom" / "cspad_ref_from_psana.npz")
    layout = stacked(np.arange(32 * 185 * 388).reshape(32, 185, 388), "SENS2X1:V1")
    assert layout.shape == tuple(cheetah["shape"])
    _, here, there = np.intersect1d(layout.ravel()[cheetah["idx"]], psgeom["idx"], return_indices=True)
    assert len(here) > 100
    for axis, (name, unit) in enumerate({"x": -1e-6, "y": 1e-6, "z": 1.0}.items()):
        expected = (psgeom["xyz_psgeom"][there, axis] * unit).astype(np.float32)
        np.testing.assert_array_equal(cheetah[name][here], expected)


# oracle -> our default; psana1 uses its Jungfrau 4M for every Jungfrau
DEFAULTS = {
    "p1/def_cspad2x2": ("cspad2x2", 2),
    "p1/def_epix100a": ("epix100a", 1),
    "p1/def_epix10ka": ("epix10ka", 1),
    "p1/def_epix10ka2m": ("epix10ka", 16),
    "p1/def_jungfrau05m": ("jungfrau", 1),
    "p1/def_jungfrau1m": ("jungfrau", 2),
    "p1/def_jungfrau4m": ("jungfrau", 8),
    "p1/def_pnccd": ("pnccd", 4),
    "p2/def_pnccd": ("pnccd", 4),
    "p2/def_archon": ("archon", 1),
    "p2/def_axis": ("axis", 1),
    "p2/def_cspad2x2": ("cspad2x2", 2),
    "p2/def_epix100a": ("epix100", 1),
    "p2/def_epixhr1x4-01": ("epixhr1x4", 1),
    "p2/def_epixhr1x4-20": ("epixhremu", 20),
    "p2/def_epixhremu": ("epixhremu", 1),
    "p2/def_epixm320": ("epixm320", 4),
    "p2/def_epixuhr": ("epixuhr", 4),
    "p2/def_epixuhr3x2-01": ("epixuhr3x2", 1),
    "p2/def_epixuhr3x2-02": ("epixuhr3x2", 2),
    "p2/def_jungfrau05M": ("jungfrau", 1),
    "p2/def_jungfrau1M": ("jungfrau", 2),
    "p2/def_jungfrau4M": ("jungfrau", 8),
}


def test_every_default_oracle_has_a_default_of_ours():
    assert {case for case in CASES if "/def_" in case} == set(DEFAULTS)


@pytest.mark.parametrize("case", sorted(DEFAULTS))
def test_default_geometry(case):
    oracle, _, shape = load(case)
    name, panels = DEFAULTS[case]
    convention = "psana1" if case.startswith("p1") else "psana2"
    geometry = default_geometry(name, panels=panels, shape=shape[-2:], convention=convention)
    assert geometry.segment.name == str(oracle["seg_name"])
    for axis, values in zip("xyz", tree.coordinates(geometry), strict=True):
        flat = in_psana_order(values, shape)
        np.testing.assert_allclose(flat[oracle["idx"]], oracle[axis], rtol=0, atol=ROUNDING)

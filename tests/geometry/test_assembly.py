"""Images from panels, by every rule, against plain numpy on the bins of `tree.bins`."""

import pickle

import numpy as np
import pytest

from psana_dask.errors import GeometryError
from psana_dask.geometry import tree
from psana_dask.geometry.assembly import apply, assembled, panels_of, prepare
from psana_dask.geometry.defaults import default_geometry
from psana_dask.geometry.model import Geometry, Part

ANGLES = {"along": (0.0, 180.0), "turned": (90.0, 270.0), "tilted": (0.7, 181.0), "askew": (33.0, 100.5)}


def camera(angles, name="MTRX:V2:37:52:100:100", pitch=4500.0):
    parts = [
        Part("CAMERA", 0, name, k, (pitch * (k // 2), pitch * 1.2 * (k % 2), 0.0), (a, 0.0, 0.0))
        for k, a in enumerate(angles * 2)
    ]
    return Geometry((*parts, Part("IP", 0, "CAMERA", 0, (0.0, 0.0, -1e5))))


def reference(data, geometry, rule, fill):
    """The image by numpy: every bin's pixels in data order, then the rule."""
    rows, cols = (b.ravel() for b in tree.bins(tree.coordinates(geometry), geometry.segment.pixel_size))
    image = np.full((rows.max() + 1, cols.max() + 1), fill, np.float64)
    bins: dict[tuple[int, int], list[float]] = {}
    for row, col, value in zip(rows, cols, data.ravel(), strict=True):
        if row >= 0:
            bins.setdefault((row, col), []).append(value)
    for place, values in bins.items():
        good = [v for v in values if not np.isnan(v)]
        one = {"last": values[-1], "mean": np.mean(good) if good else fill, "max": max(good, default=fill)}
        image[place] = one[rule]
    return image.astype(data.dtype)


@pytest.mark.parametrize("angles", ANGLES.values(), ids=ANGLES)
@pytest.mark.parametrize("rule", ["last", "mean", "max"])
def test_overlap_rules(angles, rule):
    geometry = camera(angles, pitch=3000.0)  # panels overlap
    data = np.random.default_rng(1).random(geometry.shape).astype(np.float32)
    data[0, :5] = np.nan
    tables = prepare(geometry, overlap=rule)
    assert tables.overlapping > 100
    image = apply(data, tables, np.full(tables.shape, 7, np.float32))
    # float32 means of float64 sums: numpy's mean of a list is float64 as well
    np.testing.assert_allclose(image, reference(data, geometry, rule, np.nan), rtol=1e-6)


@pytest.mark.parametrize("angles", ANGLES.values(), ids=ANGLES)
@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "i4", "f4", "f8"])
def test_types_and_stacks(angles, dtype):
    geometry = camera(angles)
    data = np.random.default_rng(2).integers(0, 100, (3, *geometry.shape)).astype(dtype)
    tables = prepare(geometry)
    fill = np.nan if dtype[0] == "f" else 0
    stack = apply(data, tables, np.empty((3, *tables.shape), dtype))
    for frame, image in zip(data, stack, strict=True):
        np.testing.assert_array_equal(image, reference(frame, geometry, "last", fill))
        np.testing.assert_array_equal(apply(frame, tables, np.empty(tables.shape, dtype)), image)
        np.testing.assert_array_equal(assembled(frame, geometry), image)


def test_integer_mean_is_rounded_and_types_may_differ():
    geometry = camera((0.0, 0.0), pitch=0.0)  # all four panels on one another
    data = np.broadcast_to(np.array([1, 2, 2, 2], np.uint16)[:, None, None], geometry.shape)
    tables = prepare(geometry, overlap="mean")
    assert set(np.unique(apply(data, tables, np.empty(tables.shape, np.uint16)))) == {2}
    assert set(np.unique(apply(data, tables, np.empty(tables.shape, np.float32)))) == {1.75}


@pytest.mark.parametrize("angles", ANGLES.values(), ids=ANGLES)
@pytest.mark.parametrize("rule", ["last", "mean", "max"])
def test_missing_panels(angles, rule):
    geometry = camera(angles, pitch=3000.0)
    data = np.random.default_rng(3).random(geometry.shape)
    present = np.array([True, False, True, False])
    masked = np.where(present[:, None, None], data, np.nan)
    tables = prepare(geometry, overlap=rule)
    image = apply(data, tables, np.empty(tables.shape), present=present)
    # where a missing panel overlaps another, the other one shows: drop its pixels altogether
    rows, cols = (b[present].ravel() for b in tree.bins(tree.coordinates(geometry), 100))
    expected = np.full(tables.shape, np.nan)
    if rule == "last":
        expected[rows, cols] = masked[present].ravel()
    else:
        expected = reference(masked, geometry, rule, np.nan)
    np.testing.assert_allclose(image, expected, rtol=1e-12)
    stack = apply(np.stack([data, data]), tables, np.empty((2, *tables.shape)), present=[present, ~present])
    np.testing.assert_array_equal(stack[0], image)
    assert not np.array_equal(stack[1], image, equal_nan=True)


def test_missing_panels_of_integers_get_the_fill_value():
    geometry = camera((0.0, 90.0))
    data = np.ones(geometry.shape, np.uint16)
    tables = prepare(geometry)
    out = np.empty(tables.shape, np.uint16)
    assert int(apply(data, tables, out, present=np.zeros(4, bool)).sum()) == 0
    assert set(np.unique(apply(data, tables, out, present=np.zeros(4, bool), fill=9))) == {9}


def holes_of(occupied):
    around = np.pad(occupied, 1, constant_values=True)
    sides = around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    return ~occupied & sides


@pytest.mark.parametrize("angle", [2.0, 30.0, 47.0, 92.0])
def test_holes_are_filled_and_gaps_are_not(angle):
    geometry = camera((angle, angle))
    data = np.random.default_rng(4).random(geometry.shape)
    plain = assembled(data, geometry)
    holes = holes_of(~np.isnan(plain))
    assert holes.any()
    least = assembled(data, geometry, holes="minimum")
    np.testing.assert_array_equal(np.isnan(least), np.isnan(plain) & ~holes)
    np.testing.assert_array_equal(least[~holes], plain[~holes])
    around = np.pad(plain, 1, constant_values=np.nan)
    four = np.stack([around[:-2, 1:-1], around[2:, 1:-1], around[1:-1, :-2], around[1:-1, 2:]])
    np.testing.assert_array_equal(least[holes], np.nanmin(four[:, holes], axis=0))


def nearest_by_search(geometry, tables, plain):
    """The bins on a sensor that are empty between others, and the distance of the nearest pixel, um."""
    where = tree.coordinates(geometry, frame="lab")
    full = np.pad(~np.isnan(plain), 1)
    between = (full[:-2, 1:-1] & full[2:, 1:-1]) | (full[1:-1, :-2] & full[1:-1, 2:])
    shown = np.isin(np.arange(where.x.size), plain)  # pixels that no other pixel hides
    for row, col in np.argwhere(np.isnan(plain) & between):
        far = np.hypot(where.y - tables.y[row] * 1e6, where.x - tables.x[col] * 1e6).ravel()
        far = np.where(shown, far, np.inf)
        if far.min() < 100 * np.sqrt(0.5):
            yield (row, col), far


@pytest.mark.parametrize("angle", [3.0, 30.0, 44.0])
def test_nearest_takes_the_pixel_nearest_in_space(angle):
    geometry = camera((angle, angle))
    tables = prepare(geometry, holes="nearest")
    index = np.arange(np.prod(geometry.shape), dtype=np.float64).reshape(geometry.shape)
    image, plain = assembled(index, geometry, holes="nearest"), assembled(index, geometry)
    expected = dict(nearest_by_search(geometry, tables, plain))
    filled = {tuple(place) for place in np.argwhere(np.isnan(plain) & ~np.isnan(image)).tolist()}
    assert filled == {(int(row), int(col)) for row, col in expected}
    assert filled
    for place, far in expected.items():
        # several may be equally far up to rounding (1e-6 um)
        assert far[int(image[place])] <= far.min() + 1e-6
    np.testing.assert_array_equal(image[~np.isnan(plain)], plain[~np.isnan(plain)])


def test_lines_between_pixels_on_the_border_of_bins_are_filled():
    """Rows of a default ePix10ka quad fall on either side by rounding and leave dashes of empty bins."""
    geometry = default_geometry("epix10kaquad")
    ones = np.ones(geometry.shape, np.float32)
    plain, image = assembled(ones, geometry), assembled(ones, geometry, holes="nearest")
    enclosed = assembled(ones, geometry, holes="minimum")
    empty = [int(np.isnan(i).sum()) for i in (plain, enclosed, image)]
    assert empty[0] >= empty[1] > empty[2]
    # what is left are the gaps between ASICs (176 x 192 pixels): nothing is empty inside of one
    tables = prepare(geometry)
    asics = tables.bins.reshape(4, 2, 176, 2, 192).transpose(0, 1, 3, 2, 4).reshape(16, -1)
    for asic in asics:
        rows, cols = np.divmod(asic, tables.shape[1])
        inside = slice(rows.min() + 1, rows.max()), slice(cols.min() + 1, cols.max())
        assert not np.isnan(image[inside]).any()


@pytest.mark.parametrize("frame", ["psana", "lab"])
def test_image_axes_are_laboratory_metres(frame):
    geometry = camera((0.0, 90.0))
    tables = prepare(geometry, frame=frame)
    where = tree.coordinates(geometry, frame="lab")
    rows, cols = np.divmod(tables.bins, tables.shape[1])
    # a pixel lies within half a bin (50 um) of the middle of its own
    assert np.abs(tables.y[rows] - where.y * 1e-6).max() <= 50.001e-6
    assert np.abs(tables.x[cols] - where.x * 1e-6).max() <= 50.001e-6
    # rows go down on the page in both; only the view along the beam has x to the left
    assert tables.y[0] > tables.y[-1]
    assert (tables.x[0] < tables.x[-1]) == (frame == "lab")


ALONG = [(0.0, False), (0.4, False), (90.0, True), (269.7, True), (45.0, False)]


@pytest.mark.parametrize(("angle", "along"), ALONG)
def test_panels_along_image_rows_are_copied_run_by_run(angle, along):
    # the psana image has x down, so a panel whose columns run along y lies along the image rows
    geometry = camera((angle, angle), "JUNGFRAU:V1", 90000.0)
    tables = prepare(geometry)
    runs, starts, visits, visit_starts = tables.kernel[:4]
    copied, scattered = np.diff(starts) > 0, np.diff(visit_starts) > 0
    assert (copied == along).all()
    assert (scattered != along).all()
    assert int(runs[:, 2].sum()) + len(visits) == np.prod(geometry.shape)


def test_image_to_panels_and_back():
    geometry = camera((0.0, 90.0), pitch=5600.0)
    tables = prepare(geometry)
    data = np.random.default_rng(5).random((2, *geometry.shape)).astype(np.float32)
    images = apply(data, tables, np.empty((2, *tables.shape), np.float32))
    assert tables.overlapping == 0
    np.testing.assert_array_equal(panels_of(images, tables, np.empty_like(data)), data)
    np.testing.assert_array_equal(panels_of(images[1], tables, np.empty_like(data[0])), data[1])


@pytest.mark.parametrize("angle", [0.0, 90.0])
def test_columns_that_are_no_pixels(angle):
    part = Part("IP", 0, "ARCHON:V2", 0, (0.0, 0.0, -1e5), (angle, 0.0, 0.0))
    geometry = Geometry((part,), segment_shape=(3, 4800))
    tables = prepare(geometry)
    data = np.random.default_rng(6).random(geometry.shape)
    image = apply(data, tables, np.empty(tables.shape))
    real = tables.bins >= 0
    np.testing.assert_array_equal(np.sort(image[~np.isnan(image)]), np.sort(data[real]))
    back = panels_of(image, tables, np.empty_like(data))
    np.testing.assert_array_equal(np.isnan(back), ~real)
    np.testing.assert_array_equal(back[real], data[real])


def test_projection_and_bin_size():
    geometry = camera((0.0, 0.0))
    half, twice = prepare(geometry, pixel_size=50), prepare(geometry, plane=-2e5)
    assert abs(half.shape[0] - 2 * prepare(geometry).shape[0]) <= 2
    assert abs(twice.shape[0] - 2 * prepare(geometry).shape[0]) <= 2


def test_tables_are_cached_by_content():
    geometry, same = camera((0.0, 90.0)), camera((0.0, 90.0))
    assert geometry is not same
    assert prepare(geometry) is prepare(same)
    other = prepare(geometry, overlap="max")
    assert other.key != prepare(geometry).key
    assert pickle.loads(pickle.dumps(other)).key == other.key


def test_a_stack_may_be_empty_and_panels_need_not_be_contiguous():
    geometry = camera((0.0, 90.0))
    tables = prepare(geometry)
    empty = apply(np.empty((0, *geometry.shape)), tables, np.empty((0, *tables.shape)))
    assert empty.shape == (0, *tables.shape)
    data = np.random.default_rng(7).random((*geometry.shape, 2))[..., 0]
    np.testing.assert_array_equal(assembled(data, geometry), assembled(data.copy(), geometry))


@pytest.mark.parametrize("rule", ["last", "mean", "max"])
def test_masks_are_assembled(rule):
    geometry = camera((0.0, 90.0), pitch=5600.0)
    mask = np.random.default_rng(8).random(geometry.shape) > 0.5
    tables = prepare(geometry, overlap=rule)
    image = apply(mask, tables, np.empty(tables.shape, np.bool_))
    assert int(image.sum()) == int(mask.sum())
    np.testing.assert_array_equal(panels_of(image, tables, np.empty_like(mask)), mask)


@pytest.mark.parametrize("holes", ["none", "minimum", "nearest"])
def test_panels_that_a_window_touches(holes):
    geometry = camera((10.0, 95.0))
    tables = prepare(geometry, holes=holes)
    rows, cols = np.divmod(tables.bins, tables.shape[1])
    for window in [np.s_[0:1, 0:1], np.s_[10:30, 40:], np.s_[:, 5:6], np.s_[::-7, ::9], np.s_[:, :]]:
        inside = np.zeros(tables.shape, bool)
        inside[window] = True
        shows = inside[rows, cols].any(axis=(1, 2))
        found = tables.touched(*window)
        assert (found | ~shows).all()
        # the whole picture minus what was left out is what shows
        data = np.random.default_rng(9).random(geometry.shape)
        whole = apply(data, tables, np.empty(tables.shape))
        part = apply(data, tables, np.empty(tables.shape), present=found)
        np.testing.assert_array_equal(part[window], whole[window])
    assert tables.touched(slice(0, 1), slice(0, 1)).sum() < 4
    assert not tables.touched(slice(5, 5), slice(None)).any()


def test_wrong_shapes_and_choices_are_refused():
    geometry = camera((0.0, 90.0))
    tables = prepare(geometry)
    data, out = np.zeros(geometry.shape), np.zeros(tables.shape)
    with pytest.raises(ValueError, match=r"panels has shape \(3, 37, 52\)"):
        apply(data[:3], tables, out)
    with pytest.raises(ValueError, match="out must be C-contiguous"):
        apply(data, tables, np.asfortranarray(out))
    with pytest.raises(ValueError, match="2 frames do not fit into out for 1"):
        apply(np.stack([data, data]), tables, out)
    with pytest.raises(ValueError, match=r"present has shape \(3,\)"):
        apply(data, tables, out, present=np.ones(3, bool))
    with pytest.raises(ValueError, match="overlap is one of"):
        prepare(geometry, overlap="sum")
    with pytest.raises(ValueError, match="holes is one of"):
        prepare(geometry, holes="linear")
    with pytest.raises(ValueError, match="pixel_size is 0; it must be positive"):
        prepare(geometry, pixel_size=0)
    with pytest.raises(GeometryError, match="give a larger pixel_size"):
        prepare(geometry, pixel_size=0.001)

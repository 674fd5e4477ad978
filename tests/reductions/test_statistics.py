"""Statistics equal numpy, and their bits depend on nothing but the events."""

import itertools

import dask
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import psana_dask
from psana_dask.errors import NameNotFound
from psana_dask.reductions import Histogram, Projection, compute, tiles
from psana_dask.reductions.leaves import span

NUMPY = {
    "count": lambda a: np.sum(~np.isnan(a), axis=0),
    "sum": lambda a: np.nansum(a, axis=0),
    "mean": lambda a: np.nanmean(a, axis=0),
    "var": lambda a: np.nanvar(a, axis=0),
    "std": lambda a: np.nanstd(a, axis=0),
    "min": lambda a: np.nanmin(a, axis=0),
    "max": lambda a: np.nanmax(a, axis=0),
}
EXACT = ("count", "min", "max")

EMPTY = ("Mean of empty slice", "Degrees of freedom", "All-NaN")  # what numpy says of missing pixels
pytestmark = pytest.mark.filterwarnings(*(f"ignore:{text}" for text in EMPTY))


def equal_bits(one, two):
    assert one.dims == two.dims
    assert one.dtype == two.dtype
    assert one.values.tobytes() == two.values.tobytes()


@pytest.mark.parametrize("name", ["cam.raw", "wild.raw", "wild.x", "wild.n"])
@pytest.mark.parametrize("which", list(NUMPY))
def test_statistics_of_what_is_in_the_file_are_those_of_numpy(run, values, name, which):
    found = getattr(run, which)(name)
    expected = NUMPY[which](values(name))
    if which in EXACT or (which == "sum" and name in ("cam.raw", "jf.raw", "wild.n")):
        np.testing.assert_array_equal(found.values, expected)
    else:  # float64 sums of 300 values in another order; squares lose twice as much
        np.testing.assert_allclose(found.values, expected, rtol=1e-12 if which in ("mean", "sum") else 1e-10)


@pytest.mark.parametrize("choices", [{"common_mode": None}, {"common_mode": "default"}])
@pytest.mark.parametrize("which", list(NUMPY))
def test_statistics_of_calibrated_frames_are_those_of_numpy(run, values, which, choices):
    found = getattr(run, which)("jf.calib", calibration=choices)
    expected = NUMPY[which](values("jf.calib", **choices))
    if which in EXACT:
        np.testing.assert_array_equal(found.values, expected)
    else:  # frames are float32: 6e-8 of a value each, which is up to 1e4 times a deviation
        scale = np.abs(values("jf.calib", **choices)).max() * (300 if which == "sum" else 1)
        power = 2 if which == "var" else 1
        np.testing.assert_allclose(found.values, expected, rtol=1e-5, atol=1e-6 * scale**power)


def test_integers_keep_exact_sums(run):
    total = run.sum("cam.raw")
    assert total.dtype == np.int64
    np.testing.assert_array_equal(total, run.cam.raw.sum("time").values.astype(np.int64))


def test_variances_survive_large_offsets(run):
    from psana_dask.reductions.moments import Moments
    from psana_dask.reductions.tiles import Tile

    values = 1e9 + np.random.default_rng(0).integers(0, 9, (300, 1)).astype("f8")
    moments = Moments(1, squares=True)
    moments.push(Tile(values, None, 0, 1, 0, 0, np.ones(300, bool), np.ones(300), 0))
    moments.advance(300)
    found = moments.node().sums[2, 0] / 300  # sums of squares would have lost all digits
    assert found == pytest.approx((values - 1e9).var(), rel=1e-6)  # means near 1e9 have steps of 1.2e-7


# ---- the same bits ------------------------------------------------------------------------------
def reference(run, name, which="mean", **choices):
    with dask.config.set(scheduler="synchronous"):
        return run.reduce(which, name, **choices)


@pytest.mark.parametrize("name", ["wild.raw", "cam.raw", "jf.calib"])
@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize("block", [1, 1 << 12, 1 << 30])
def test_bits_do_not_depend_on_tasks_or_blocks(run, monkeypatch, name, level, block):
    expected = {which: reference(run, name, which) for which in ("mean", "var")}
    monkeypatch.setattr(compute, "task_level", lambda events, nbytes: level)
    monkeypatch.setattr(compute, "even_pieces", lambda events, nbytes: 16 * 3**level)
    monkeypatch.setattr(tiles, "BLOCK_BYTES", block)
    monkeypatch.setattr(tiles, "TILE_BYTES", max(64, block // 7))
    monkeypatch.setattr(tiles, "LARGE_BYTES", 0 if block > 1 else 1 << 40)
    for which, array in expected.items():
        equal_bits(getattr(run, which)(name), array)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_selection_in_any_order_has_the_bits_of_the_same_events_in_order(run, data):
    chosen = np.array(data.draw(st.lists(st.integers(0, 299), min_size=1, max_size=299, unique=True)))
    scheduler = data.draw(st.sampled_from(["threads", "synchronous"]))
    with dask.config.set(scheduler=scheduler):
        found = run.isel(chosen).mean("wild.raw")
    equal_bits(found, reference(run.isel(np.sort(chosen)), "wild.raw"))
    sums = run.isel(chosen).sum("cam.raw")
    np.testing.assert_array_equal(sums, run.isel(chosen).cam.raw.sum("time").values.astype(np.int64))


@settings(max_examples=20)
@given(data=st.data())
def test_batches_of_any_size_have_the_bits_of_one(run, data):
    from psana_dask.reductions.moments import Moments
    from psana_dask.reductions.tiles import Tile

    r = np.random.default_rng(data.draw(st.integers(0, 99)))
    events = data.draw(st.integers(0, 600))
    rows = (r.normal(size=(events, 6)) * 10.0 ** r.integers(-9, 9, (events, 6))).astype("f4")
    use = r.random(events) < 0.9
    cuts = sorted(data.draw(st.lists(st.integers(0, events), max_size=8)))

    def pushed(bounds):
        moments = Moments(6, squares=True)
        for a, b in itertools.pairwise(bounds):
            if b > a:
                moments.push(Tile(rows[a:b], None, 0, 6, 0, 0, use[a:b], np.ones(b - a), a))
                moments.advance(b - a)
        return moments.node().sums

    assert pushed([0, *cuts, events]).tobytes() == pushed([0, events]).tobytes()


def test_nodes_of_others_can_be_absorbed():
    from psana_dask.reductions.moments import Moments
    from psana_dask.reductions.tiles import Tile

    r = np.random.default_rng(0)
    rows = r.normal(size=(3 * span(1) + 50, 4)) * 10.0 ** r.integers(-9, 9, (3 * span(1) + 50, 4))

    def push(moments, first, last, start):
        some = rows[first:last]
        use, weights = np.ones(len(some), bool), np.ones(len(some))
        moments.push(Tile(some, None, 0, 4, 0, 0, use, weights, start))
        moments.advance(len(some))
        return moments

    whole = push(Moments(4, squares=True), 0, len(rows), 0).node()
    parts = push(Moments(4, squares=True), 0, span(1), 0)
    for k in (1, 2):
        parts.absorb(push(Moments(4, squares=True), k * span(1), (k + 1) * span(1), 0).node(), 1)
    push(parts, 3 * span(1), len(rows), 3 * span(1))
    assert parts.node().sums.tobytes() == whole.sums.tobytes()
    with pytest.raises(ValueError, match="cannot merge here"):
        parts.absorb(whole, 1)


# ---- what is left out ---------------------------------------------------------------------------
def test_zero_one_and_missing_events(run):
    none, one = run.isel([]), run.isel([5])
    assert np.isnan(none.mean("wild.raw")).all()
    assert (none.sum("cam.raw") == 0).all()
    assert (none.count("cam.raw") == 0).all()
    assert np.isnan(none.min("cam.raw")).all()
    assert int(none.mean("cam.raw").cam_events) == 0
    np.testing.assert_array_equal(one.mean("cam.raw"), run.cam.raw.isel(time=5).values)
    assert (one.std("cam.raw") == 0).all()
    gone = run.isel([18, 19])  # the camera is in neither
    assert np.isnan(gone.mean("cam.raw")).all()
    assert np.isnan(gone.max("cam.raw")).all()
    some = run.isel(slice(40, 60))  # one panel is in none of them
    half = some.max("cam.raw")
    assert np.isnan(half.sel(panel=1)).all()
    np.testing.assert_array_equal(half.sel(panel=0), some.cam.raw.isel(panel=0).max("time"))


def test_masks_of_pixels_and_of_events(run, values):
    good = np.ones((2, 8, 12), bool)
    good[1, 3:5] = False
    mean = run.mean("cam.raw", mask=good)
    np.testing.assert_array_equal(np.isnan(mean), ~good)
    assert (run.sum("cam.raw", mask=good).values[~good] == 0).all()
    events = np.arange(300) % 3 == 0
    equal_bits(run.mean("wild.raw", mask=events), run.select(events).mean("wild.raw"))
    on = run.evr.has(90)
    equal_bits(run.mean("wild.raw", mask=on), run.select(on).mean("wild.raw"))
    with pytest.raises(ValueError, match=r"the mask has shape \(3, 3\)"):
        run.mean("cam.raw", mask=np.ones((3, 3), bool))


def test_weights(run, values):
    weights = run.gmd.milliJoulesPerPulse.values.astype("f8")
    cam = values("cam.raw")
    w = np.where(np.isnan(cam), 0, weights[:, None, None, None])
    mean = (np.nan_to_num(cam) * w).sum(axis=0) / w.sum(axis=0)
    found = run.mean("cam.raw", weights="gmd.milliJoulesPerPulse")
    np.testing.assert_allclose(found, mean, rtol=1e-12)
    variance = (np.nan_to_num(cam - mean) ** 2 * w).sum(axis=0) / w.sum(axis=0)
    np.testing.assert_allclose(run.var("cam.raw", weights=weights), variance, rtol=1e-10)
    np.testing.assert_array_equal(run.count("cam.raw", weights=weights), run.count("cam.raw"))
    with pytest.raises(ValueError, match="weights cannot be negative"):
        run.mean("cam.raw", weights=-weights)


# ---- histograms, projections, images ------------------------------------------------------------
@pytest.mark.parametrize("edges", [np.linspace(2000, 4000, 21), [0, 1000, 1001.5, 9000, 20000]])
@pytest.mark.parametrize("name", ["jf.raw", "jf.calib", "cam.raw"])
def test_histograms_are_those_of_numpy(run, values, name, edges):
    found = run.reduce(Histogram(edges, per_pixel=False), name)
    all_values = values(name)
    np.testing.assert_array_equal(found, np.histogram(all_values[~np.isnan(all_values)], edges)[0])
    each = run.reduce(Histogram(edges), name)
    assert each.dims[0] == f"{name.replace('.', '_')}_bin"
    pixel = all_values[:, 1, 2, 3]
    np.testing.assert_array_equal(each[:, 1, 2, 3], np.histogram(pixel[~np.isnan(pixel)], edges)[0])
    np.testing.assert_array_equal(each.sum(("panel", "row", "col")), found)


def test_values_on_bin_edges_fall_where_numpy_puts_them():
    from psana_dask.reductions.kernels import bin_of

    for edges in (np.linspace(0, 1, 11), np.array([0.0, 0.1, 0.5, 0.7]), np.linspace(-3, 7, 1001)):
        scale = (len(edges) - 1) / (edges[-1] - edges[0]) if len(edges) > 5 else 0.0
        for value in [*edges, *np.nextafter(edges, -9), *np.nextafter(edges, 9)]:
            counts = np.histogram([value], edges)[0]
            expected = int(np.argmax(counts)) if counts.any() else -1
            assert bin_of(value, edges, scale) == expected


def test_projections(run, values):
    cam = values("cam.raw")
    np.testing.assert_allclose(run.reduce(Projection("col"), "cam.raw"), np.nansum(cam, axis=(0, 1, 2)))
    mean = run.reduce(Projection(("panel", "row"), "mean"), "cam.raw")
    np.testing.assert_allclose(mean, np.nanmean(cam, axis=(0, 3)), rtol=1e-12)
    with pytest.raises(ValueError, match="no dimension 'y'; it has panel, row, col"):
        run.reduce(Projection("y"), "cam.raw")


def test_several_names_and_wild_cards(run):
    both = run.mean(["cam.raw", "wild.raw"])
    assert set(both.data_vars) == {"cam_raw", "wild_raw"}
    equal_bits(both.cam_raw.rename(cam_row="row", cam_col="col"), run.mean("cam.raw"))
    assert set(run.mean("wild").data_vars) == {"wild_raw", "wild_x", "wild_n"}
    assert "hsd_chan00" not in run.mean("hsd")


def test_what_cannot_be_reduced_is_said(run):
    with pytest.raises(NameNotFound, match=r"hsd\.chan00 has no fixed shape"):
        run.mean("hsd.chan00")
    with pytest.raises(NameNotFound, match="no detector 'came'; did you mean cam"):
        run.mean("came.raw")
    with pytest.raises(ValueError, match="no statistic 'median'"):
        run.reduce("median", "cam.raw")


def test_the_package_has_the_call_too(run):
    equal_bits(psana_dask.reduce(run, "mean", "wild.raw"), run.mean("wild.raw"))

"""Reductions of streams: bins, masks, weights, functions and half-lives have the bits of the closed run's."""

import numpy as np
import pytest
import xarray as xr

from psana_dask.errors import FunctionError
from psana_dask.reductions import Histogram, Projection

FRAMES = {"xtc2": "epixquad", "xtc": "epix100a"}


@pytest.fixture(scope="module")
def closed(small):
    return small


@pytest.fixture
def stream_of(small_stream_of):
    return small_stream_of


def name_of(run, field="raw"):
    return f"{FRAMES[run.format]}.{field}"


def same(got, want):
    """Compare everything: values bit for bit, dims, coordinates, names."""
    assert type(got) is type(want)
    xr.testing.assert_identical(got.drop_attrs(), want.drop_attrs())


BY = {
    "step": "step",
    "condition": lambda run: run.evr.has(90),
    "edges": ("delay", [-1.5, 0.0, 1.0, 2.5]),
    "several": {"delay": [-1.5, 0.5, 3.0], "laser": lambda run: run.evr.has(90)},
}


@pytest.mark.parametrize("by", BY)
@pytest.mark.parametrize("field", ["raw", "calib"])
def test_bins(closed, stream_of, by, field):
    if by == "condition":
        asked = closed.evr.has(90)
    elif by == "several":
        asked = {**BY[by], "laser": closed.evr.has(90)}
    else:
        asked = BY[by]
    what = ["mean", "std", "count", "max"]
    *_, last = stream_of().reduce(what, name_of(closed, field), by=asked)
    same(last, closed.reduce(what, name_of(closed, field), by=asked))


def test_bins_that_are_not_known_before_are_added_as_they_come(closed, stream_of):
    def thirds(run):
        return xr.DataArray(run.events.step.values // 2, dims="time", name="third")

    name = name_of(closed)
    *_, last = stream_of((3,)).reduce("sum", name, by=thirds)
    want = closed.sum(name, by=thirds(closed))
    same(last, want)


def test_bins_that_need_all_events_are_refused(stream_of):
    with pytest.raises(ValueError, match=r"by=\(\.\.\., 20\): a stream does not know where its values end"):
        next(stream_of().reduce("mean", by=("delay", 20)))


def test_masks_of_events_and_of_pixels(closed, stream_of):
    name = name_of(closed)
    condition = closed.evr.has(90)
    same(stream_of().mean(name, mask=condition), closed.mean(name, mask=condition))
    odd = stream_of().mean(name, mask=lambda run: run.events.timestamp.values % 2 == 1)
    same(odd, closed.mean(name, mask=closed.events.timestamp.values % 2 == 1))
    shape = closed[FRAMES[closed.format]].raw.shape[1:]
    pixels = np.random.default_rng(0).random(shape) > 0.5
    both = [Histogram([0, 1000, 2000], per_pixel=False), "mean", "max"]
    *_, last = stream_of().reduce(both, name, mask=pixels)
    same(last, closed.reduce(both, name, mask=pixels))


def test_weights_and_projections(closed, stream_of):
    name, what = name_of(closed), ["mean", Projection("col")]
    *_, last = stream_of().reduce(what, name, weights="gas_pressure")
    same(last, closed.reduce(what, name, weights="gas_pressure"))
    *_, last = stream_of().reduce("var", name, weights=lambda run: run.events.step.values + 0.5)
    same(last, closed.var(name, weights=closed.events.step.values + 0.5))


@pytest.mark.parametrize(("half_life", "sizes"), [(1.0, (1,)), (7.3, (5, 2, 9)), (1000, (40,))])
def test_exponential_averages(closed, stream_of, half_life, sizes):
    name = name_of(closed)
    *_, last = stream_of(sizes).reduce(["mean", "var"], name, half_life=half_life)
    want = closed.reduce(["mean", "var"], name, half_life=half_life)
    same(last, want)
    detector = closed[FRAMES[closed.format]]
    raw = detector.raw.psana.masked().values[detector.present.values.reshape(len(closed), -1).any(axis=1)]
    weights = 0.5 ** ((len(raw) - 1 - np.arange(len(raw))) / half_life)
    weights = np.broadcast_to(weights.reshape(-1, *[1] * (raw.ndim - 1)), raw.shape)
    mean = np.nansum(weights * raw, axis=0) / np.sum(weights * np.isfinite(raw), axis=0)
    np.testing.assert_allclose(last[f"{name.replace('.', '_')}_mean"], mean, rtol=1e-12)  # numpy's order


def test_exponential_averages_for_ever(closed, stream_of, monkeypatch):
    """Weights grow with the events; taking them back changes no bit."""
    from psana_dask.stream import running

    name = name_of(closed)
    want = closed.mean(name, half_life=2.0)
    monkeypatch.setattr(running, "FADED", 3)
    *_, last = stream_of((3,)).reduce("mean", name, half_life=2.0)
    assert np.array_equal(last.values, want.values)


def test_what_half_lives_refuse(closed, stream_of):
    for what, said in (("max", "for mean, var, std, not for 'max'"), (lambda ds: ds, "not for a function")):
        with pytest.raises(ValueError, match=said):
            next(stream_of().reduce(what, name_of(closed), half_life=3))
        with pytest.raises(ValueError, match=said):
            closed.reduce(what, name_of(closed), half_life=3)
    with pytest.raises(ValueError, match="events, 1 or more"):
        closed.mean(name_of(closed), half_life=0.1)
    with pytest.raises(ValueError, match="use one of them"):
        next(stream_of().reduce("mean", name_of(closed), half_life=3, window=5))


# ---- functions ----------------------------------------------------------------------------------
def partials(name):
    def of(ds):
        frames = ds[name].astype(np.float64)
        dims = [d for d in frames.dims if d != "time"]
        return xr.Dataset(
            {
                "total": frames.sum("time"),
                "weird": (frames.mean(dims) ** 1.5).sum(),
                "events": ds.sizes["time"],
            }
        )

    return of


@pytest.mark.parametrize(
    ("field", "sizes", "by"),
    [("raw", (1,), "step"), ("calib", (5, 2, 9), None), ("calib", (40,), "step")],
)
def test_functions_get_the_same_events_together(closed, stream_of, sizes, by, field):
    name = name_of(closed, field)
    function = partials(name.replace(".", "_"))
    *_, last = stream_of(sizes).reduce(function, name, by=by)
    same(last, closed.reduce(function, name, by=by))


def test_a_function_of_images(calibrated, calibrated_stream_of):
    name = name_of(calibrated, "image")
    function = partials(name.replace(".", "_"))
    *_, last = calibrated_stream_of((16, 3)).reduce(function, name)
    same(last, calibrated.reduce(function, name))


def test_functions_with_a_merge_of_their_own(closed, stream_of):
    name = name_of(closed)

    def brightest(ds):
        return ds[name.replace(".", "_")].max()

    *_, last = stream_of().reduce(brightest, name, merge=np.maximum)
    assert last == closed.reduce(brightest, name, merge=np.maximum)


def test_a_function_that_fails_names_the_event(closed, stream_of):
    name, bad = name_of(closed), closed.events.time.values[20]

    def failing(ds):
        if (ds.time == bad).any():
            raise RuntimeError("no such luck")
        return ds.time.astype(np.int64).sum()

    with pytest.raises(FunctionError, match=rf"failing failed at event {bad}.*no such luck"):
        list(stream_of().reduce(failing, name))


def test_results_on_the_way_do_not_disturb_what_follows(closed, stream_of):
    name = name_of(closed)
    function = partials(name.replace(".", "_"))
    *some, last = stream_of((3,)).reduce(function, name, every=0.0, batch=3)
    assert len(some) > 5
    same(last, closed.reduce(function, name))
    *_, last = stream_of((3,)).reduce("std", name, by="step", every=0.0, batch=3)
    same(last, closed.std(name, by="step"))


def test_what_is_refused(closed, stream_of):
    with pytest.raises(ValueError, match="no statistic 'mode'"):
        next(stream_of().reduce("mode", name_of(closed)))
    with pytest.raises(ValueError, match="statistics know how to merge"):
        next(stream_of().reduce("mean", name_of(closed), merge=np.add))
    with pytest.raises(ValueError, match="window= is for statistics"):
        next(stream_of().reduce(partials("a"), name_of(closed), window=3))

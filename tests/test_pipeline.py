"""Lazy arrays: any index of any of them is what numpy gives, chunked or not, here or elsewhere."""

import os
import pickle

import dask
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import psana_dask
from psana_dask import recording, simulate
from psana_dask.choice import Choice
from psana_dask.errors import ReadError
from psana_dask.graph import dask_array
from psana_dask.indexing import full_key
from psana_dask.pipeline import DamageArray, PresenceArray
from psana_dask.simulate import Detector, RunSpec

FIXED = [
    ("epix", "raw", "raw"),
    ("epix", "aux", "aux"),
    ("jf", "raw", "raw"),
    ("tt", "raw", "image"),
    ("tt", "fex_ampl", "ampl"),
    ("hsd", "after", "after"),
    ("wave", "raw", "waveform"),
    ("timing", "sequenceValues", "sequenceValues"),
    ("gmd", "milliJoulesPerPulse", "milliJoulesPerPulse"),
    ("types", "v_i8", "v_i8"),
    ("types", "cube", "cube"),
    ("types", "deep", "deep"),
    ("types", "text", "text"),
    ("types", "state", "state"),
]
RAGGED = ["chan00", "chan01", "spectrum"]


@pytest.fixture(scope="module")
def arrays(rich, rich_run, expected):
    """Every kind of lazy array of the rich run, and its values: name to (lazy, truth)."""
    view, found = rich_run._view, {}
    for detector, public, field in FIXED:
        lazy = view.arrays(view.entries[detector], public)[public]
        found[f"{detector}_{public}"] = lazy, expected(rich, detector, field)
    for field in RAGGED:
        pieces = [[rich.value("hsd", field, e, s) for s in (0, 1)] for e in rich.order.tolist()]
        made = view.arrays(view.entries["hsd"], field)
        found[f"hsd_{field}"] = made[field], np.concatenate([a for pair in pieces for a in pair])
        found[f"hsd_{field}_count"] = made[f"{field}_count"], np.array([[len(a) for a in p] for p in pieces])
    target = view.target(view.entries["epix"].channels["raw"])
    present = rich.present("epix")[rich.order]
    damage = rich.damage("epix", 2) | rich.damage("epix", 3) | rich.damage("epix", 7)
    found["present"] = PresenceArray(target, per_panel=False), present.any(axis=1)
    found["panel_present"] = PresenceArray(target, per_panel=True), present
    found["damage"] = DamageArray(target), damage[rich.order].astype(np.uint32)
    return found


NAMES = [
    *(f"{d}_{p}" for d, p, _ in FIXED),
    *(f"hsd_{f}{end}" for f in RAGGED for end in ("", "_count")),
    "present", "panel_present", "damage",
]  # fmt: skip


def indices(length):
    """One index of a dimension: everything, a slice, a number, or a list of numbers in any order."""
    places = st.integers(-length, length - 1)
    ends = st.none() | st.integers(-length, length + 2)  # Dask gets [-length - 1::-1] wrong, also of arrays
    steps = st.none() | st.sampled_from([1, 2, 5, -1, -3])
    slices = st.builds(slice, ends, ends, steps)
    return st.one_of(st.just(slice(None)), slices, places, st.lists(places, max_size=5))


def keys(shape):
    return st.tuples(*map(indices, shape))


def picked(truth, key):
    """Index one dimension after the other, from the last."""
    for axis in reversed(range(truth.ndim)):
        index = np.array(key[axis], np.intp) if isinstance(key[axis], list) else key[axis]
        truth = truth[(slice(None),) * axis + (index,)]
    return truth


@pytest.mark.parametrize("name", NAMES)
def test_shapes_and_types(arrays, name):
    lazy, truth = arrays[name]
    assert lazy.shape == truth.shape
    assert lazy.dtype.kind == truth.dtype.kind
    assert lazy.dtype == truth.dtype or lazy.dtype.kind == "U"
    assert len(lazy.dims) == lazy.ndim == len(set(lazy.dims))
    np.testing.assert_array_equal(np.asarray(lazy), truth)


@settings(max_examples=400)
@given(data=st.data(), name=st.sampled_from(NAMES))
def test_any_index_is_that_of_numpy(arrays, data, name):
    lazy, truth = arrays[name]
    key = data.draw(keys(truth.shape), "key")
    found = lazy[tuple(np.array(k, np.int64) if isinstance(k, list) else k for k in key)]
    want = picked(truth, key)
    assert found.shape == want.shape
    assert found.dtype == lazy.dtype or lazy.dtype.kind == "U"  # numpy's text scalars are as wide as the text
    np.testing.assert_array_equal(found, want)


@settings(max_examples=150)
@given(data=st.data(), name=st.sampled_from(NAMES))
def test_any_chunks_and_any_index_are_those_of_numpy(arrays, data, name):
    lazy, truth = arrays[name]
    least = [max(1, n // 4) for n in truth.shape]  # not thousands of chunks
    sizes = data.draw(st.tuples(*map(st.integers, least, truth.shape)), "chunks")
    array = dask_array(lazy, dict(zip(lazy.dims, sizes, strict=True)))
    key = data.draw(keys(truth.shape), "key")
    for axis in reversed(range(truth.ndim)):
        array = array[(slice(None),) * axis + (key[axis],)]
    found = array.compute(scheduler="synchronous")
    np.testing.assert_array_equal(found, picked(truth, key))


@pytest.mark.parametrize("name", NAMES)
def test_keys_may_be_short_or_have_an_ellipsis(arrays, name):
    lazy, truth = arrays[name]
    for key in (..., (), 1, (..., slice(0, 2)), (slice(1, 3), ...), np.int64(-1)):
        np.testing.assert_array_equal(lazy[key], truth[key])
    assert full_key((1, ..., 2), 4) == (1, slice(None), slice(None), 2)


def test_a_selection_is_numbered_from_its_own_start(arrays, rich_run):
    _, truth = arrays["epix_raw"]
    chosen = np.array([30, 2, 2, 11])
    view = rich_run.isel(chosen)._view
    lazy = view.arrays(view.entries["epix"], "raw")["raw"]
    np.testing.assert_array_equal(lazy[[3, 0], 1:], truth[chosen][[3, 0], 1:])
    assert lazy.shape[0] == 4


def test_variables_of_one_detector_do_not_mix_in_one_graph(rich_run):
    lazy = rich_run.dataset(chunks=None).load()
    assert rich_run.dataset(chunks={"time": 7}).compute(scheduler="synchronous").identical(lazy)
    assert rich_run.dataset().compute(scheduler="synchronous").identical(lazy)


def test_the_same_variable_with_other_chunks_is_another_graph(arrays):
    lazy, truth = arrays["epix_raw"]
    one, other = dask_array(lazy, {"time": 7}), dask_array(lazy, {"time": 11})
    both = dask.compute(one, other, one.sum() - other.sum(), scheduler="synchronous")
    np.testing.assert_array_equal(both[0], truth)
    np.testing.assert_array_equal(both[1], truth)
    assert both[2] == 0


def test_names_of_graphs_say_what_is_in_them(rich, rich_run, arrays):
    again = psana_dask.open(rich.folder)
    kept = psana_dask.open(rich.folder, damaged="keep")
    first, second = rich_run.isel(slice(0, 10)), rich_run.isel(slice(10, 20))
    names = [run.epix.raw.data.name for run in (rich_run, again, kept, first, second)]
    assert names[0] == names[1]
    assert len({*names, rich_run.epix.aux.data.name}) == 5


def test_lazy_arrays_travel(arrays, elsewhere):
    chunked = [dask_array(lazy, {lazy.dims[0]: max(1, lazy.shape[0] // 3)}) for lazy, _ in arrays.values()]
    found = elsewhere(
        ([lazy for lazy, _ in arrays.values()], chunked),
        "[a[3:9] for a in x[0]], [a[5:30].compute(scheduler='synchronous') for a in x[1]]",
    )
    for name, one, other in zip(arrays, *found, strict=True):
        np.testing.assert_array_equal(one, arrays[name][1][3:9])
        np.testing.assert_array_equal(other, arrays[name][1][5:30])


def test_an_array_that_travels_is_small(arrays):
    assert len(pickle.dumps(arrays["epix_raw"][0])) < 3000


@pytest.mark.parametrize(
    ("numbers", "most"), [(np.arange(80_000), 100), (np.arange(0, 80_000, 3), 10_100), ([5, 3, 3], 300)]
)
def test_choices_travel_as_bits(numbers, most):
    choice = Choice(np.array(numbers), 80_000)
    sent = pickle.dumps(choice)
    again = pickle.loads(sent)
    assert again.numbers.tolist() == list(numbers)
    assert (again.total, again.digest) == (80_000, choice.digest)
    assert len(sent) <= most


def test_an_array_of_files_that_changed_is_refused(tmp_path):
    truth = simulate.write(RunSpec(events=3, detectors=(Detector(name="g", kind="gmd"),)), tmp_path)
    lazy = psana_dask.open(tmp_path)["g", "milliJoulesPerPulse"].variable
    os.utime(truth.files[0], ns=(1, 1))
    recording.forget_all()  # as in another process
    with pytest.raises(ReadError, match=r"s000-c000.xtc2 changed since the run was opened: open it again"):
        lazy.load()


def test_chunks_are_explicit(arrays):
    lazy, _ = arrays["epix_raw"]
    assert lazy.chunks() == lazy.chunks({}) == lazy.chunks(None) == ((40,), (3,), (8,), (12,))
    assert lazy.chunks(15)[0] == (15, 15, 10)
    assert lazy.chunks({"time": 16, "row": 5, "other": 3}) == ((16, 16, 8), (3,), (5, 3), (12,))
    assert lazy.chunks({"time": -1, "panel": "auto"}) == ((40,), (3,), (8,), (12,))
    assert lazy.chunks({"time": (30, 10)})[0] == (30, 10)


@pytest.mark.parametrize("size", [0, -3, "many", 2.5])
def test_chunks_that_are_none(arrays, size):
    for chunks in (size, {"time": size}):
        with pytest.raises(ValueError, match=r'a chunk of .*: use "auto", -1 .all., a number above 0'):
            arrays["epix_raw"][0].chunks(chunks)


@pytest.mark.parametrize(
    ("budget", "events"), [(1, 1), (3 * 576, 2), (5 * 576, 4), (64 * 576, 64), (1 << 30, 64)]
)
def test_automatic_chunks_are_whole_frames(arrays, budget, events):
    lazy, _ = arrays["epix_raw"]  # 576 bytes per event
    with psana_dask.set_options(chunk_bytes=budget):
        assert lazy.preferred_chunks == {"time": events, "panel": 3, "row": 8, "col": 12}
        assert lazy.chunks()[1:] == ((3,), (8,), (12,))

"""Graphs: small, deterministic, and right on workers in other processes."""

import cloudpickle
import dask
import distributed
import numpy as np
import pytest

import psana_dask
from psana_dask import simulate
from psana_dask.options import current
from psana_dask.simulate import Detector, RunSpec


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """Two worker processes that share no index with this one: they build their own."""
    folder = tmp_path_factory.mktemp("workers")
    (folder / "kernels").symlink_to((current().cache_folder() / "kernels").resolve())
    options = {"threads_per_worker": 1, "dashboard_address": ":0", "env": {"PSANA_DASK_CACHE": str(folder)}}
    with (
        distributed.LocalCluster(n_workers=2, **options) as cluster,
        distributed.Client(cluster) as connected,
    ):
        connected.cache_folder = folder
        yield connected


def test_a_mean_on_processes_is_that_of_numpy(client, rich, rich_run, expected):
    values = expected(rich, "wave", "waveform")
    mean = rich_run.wave.field("raw", chunks={"time": 5}).astype("f8").mean("time")
    found = client.compute(mean).result()
    # float64 sums of 40 values in another order
    np.testing.assert_allclose(found.values, values.astype("f8").mean(axis=0), rtol=1e-13)
    assert list((client.cache_folder / "index").iterdir())  # the workers could not see ours


def test_a_dataset_on_processes_is_what_it_is_here(client, rich_run):
    here = rich_run.dataset(chunks=None).load()
    there = client.compute(rich_run.dataset(chunks={"time": 9})).result()
    assert there.identical(here)


def test_selections_on_processes(client, rich, rich_run, expected):
    chosen = [33, 2, 17, 2]
    raw = rich_run.isel(chosen).epix.field("raw", chunks={"time": 2})
    found = client.compute(raw).result()
    np.testing.assert_array_equal(found.values, expected(rich, "epix", "raw")[chosen])


def test_a_worker_opens_the_run_once(client, rich_run):
    def opened():
        from psana_dask import recording

        return len(recording._opened)

    client.compute(rich_run.epix.field("raw", chunks={"time": 2}).sum()).result()
    assert all(1 <= count <= 3 for count in client.run(opened).values())


def test_an_error_on_a_worker_says_what_to_do(client, tmp_path):
    truth = simulate.write(RunSpec(events=3, detectors=(Detector(name="g", kind="gmd"),)), tmp_path)
    lazy = psana_dask.open(tmp_path).g.milliJoulesPerPulse
    truth.files[0].unlink()
    with pytest.raises(psana_dask.errors.ReadError, match=r"cannot open .*s000-c000.xtc2: No such file"):
        client.compute(lazy).result()


# ---- graphs -------------------------------------------------------------------------------------
EVENTS = 200_000


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many")
    simulate.write_many(folder, events=EVENTS, size=160, pool=1000)
    return psana_dask.open(folder)


def graph_of(array):
    return dict(dask.optimize(array)[0].__dask_graph__())


@pytest.mark.parametrize("selected", [False, True])
def test_graphs_grow_with_chunks_and_not_with_events(many, selected):
    run = many.select(np.random.default_rng(0).random(EVENTS) < 0.9) if selected else many
    (name,) = run.detectors
    # as frames are chunked: 64 events
    array = run[name].field("number", chunks={"time": 64})
    graph = graph_of(array.data.sum())
    # of the budget for 1e6 events, 25 000 tasks and 1 MB + 1/8 byte per event, a fifth of the tasks
    assert len(graph) <= 25_000 * EVENTS / 1e6
    chunked = dask.optimize(array.data)[0].__dask_graph__()
    size = len(cloudpickle.dumps(chunked))
    assert size <= 1e6 + EVENTS / 8


def test_the_array_is_in_a_graph_once(many):
    (name,) = many.detectors
    some = many.select(np.random.default_rng(0).random(EVENTS) < 0.5)[name]
    sizes = [
        len(cloudpickle.dumps(some.field("number", chunks={"time": n}).data.__dask_graph__()))
        for n in (64, 6400)
    ]
    assert max(sizes) - min(sizes) < EVENTS / 8  # not one mask for each chunk


def test_graphs_are_deterministic(rich, rich_run):
    again = psana_dask.open(rich.folder)
    for name in ("epix", "hsd", "types"):
        keys = [set(graph_of(run[name].dataset()["damage"].data)) for run in (rich_run, again)]
        assert keys[0] == keys[1]
        one, other = (run[name].dataset() for run in (rich_run, again))
        assert dask.base.tokenize(one) == dask.base.tokenize(other)


def test_graphs_of_another_file_have_other_names(tmp_path):
    names = []
    for seed in (0, 1):
        detectors = (Detector(name="g", kind="gmd"),)
        simulate.write(RunSpec(events=3, detectors=detectors, seed=seed), tmp_path)
        array = psana_dask.open(tmp_path).g.milliJoulesPerPulse
        names.append(array.data.name)
        assert array.compute().values.tolist() == array.values.tolist()
    assert names[0] != names[1]


def test_chunks_of_all_kinds_compute_the_same(rich_run):
    kinds = ["auto", {}, {"time": 3}, {"time": -1}, {"time": "auto"}, 7]
    sums = [float(rich_run.epix.field("raw", chunks=c).sum()) for c in kinds]
    assert len(set(sums)) == 1

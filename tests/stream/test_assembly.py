"""Datagrams to micro-batches: the same events, fields, slow data and steps as the files'."""

import numpy as np
import pytest

import psana_dask
from psana_dask import simulate
from psana_dask.dataset import View, run_dataset
from psana_dask.model import Service
from psana_dask.run import Run
from psana_dask.stream import assembly as assembly_module
from psana_dask.stream.assembly import Assembly
from psana_dask.stream.replay import moments


@pytest.fixture(scope="module", params=["xtc2", "xtc"])
def closed(request, tmp_path_factory):
    return psana_dask.open(simulate.demo_run(tmp_path_factory.mktemp("closed"), 24, format=request.param))


def batches(run, size, assembly=None):
    """Runs of at most `size` events, as a stream gives them."""
    assembly = assembly or Assembly(run.format)
    waiting = []

    def flushed():
        if waiting:
            found = assembly.events(waiting)
            waiting.clear()
            yield Run(View(*found))

    for moment in moments(run._recording):
        if moment.service == Service.L1_ACCEPT:
            waiting.append(moment.dgrams)
            if len(waiting) == size:
                yield from flushed()
        else:
            yield from flushed()
            assembly.transition(moment.dgrams)
    yield from flushed()


def same_values(got, want, name):
    assert got.dtype == want.dtype, name
    assert np.array_equal(got, want, equal_nan=got.dtype.kind == "f"), name


@pytest.mark.filterwarnings("ignore:left out:psana_dask.errors.DroppedWarning")
def test_everything_is_as_in_the_files(closed):
    whole, at = closed.dataset(chunks=None), 0
    for run in batches(closed, 12):
        part = run_dataset(run._view, None, None, None, absent_too=True)
        n = part.sizes["time"]
        assert np.array_equal(part.time.values, whole.time.values[at : at + n])
        for name, array in part.variables.items():
            if array.dims[:1] == ("time",):
                same_values(array.values, whole[name].values[at : at + n], name)
        assert np.array_equal(run.events.step, closed.events.step[at : at + n])
        at += n
    assert at == len(closed)


def test_slow_data_follow(closed):
    got = [r.epics.at(r.events.time.values).to_array().values.astype(str) for r in batches(closed, 7)]
    want = closed.epics.at(closed.events.time.values).to_array().values.astype(str)
    assert np.array_equal(np.concatenate(got, axis=1), want)


def test_memory_is_taken_over_and_given_back(closed, monkeypatch):
    """With memory for six events the schema stays, once a detector was seen; no old memory is left."""
    monkeypatch.setattr(assembly_module, "MOST_EVENTS", 6)
    made = []
    keep = assembly_module.MemoryFile.__init__

    def noted(self, suffix=""):
        keep(self, suffix)
        made.append(self._close)

    monkeypatch.setattr(assembly_module.MemoryFile, "__init__", noted)
    streams = len(closed._recording.streams)
    seen, times = set(), []
    for run in batches(closed, 3):
        names = set(run_dataset(run._view, None, "outer", None, absent_too=True).data_vars)
        assert seen <= names
        seen = names
        times.append(run.events.time.values)
        del run
        assert sum(f.alive for f in made) <= 3 * streams
    assert np.array_equal(np.concatenate(times), closed.events.time.values)
    assert len(made) >= 3 * streams
    assert seen == set(closed.dataset(chunks=None).data_vars)


def test_a_second_run_begins_anew(closed):
    assembly = Assembly(closed.format)
    first = list(batches(closed, 50, assembly))
    again = list(batches(closed, 50, assembly))
    assert [len(r) for r in first] == [len(r) for r in again]
    assert again[0].number == closed.number
    assert np.array_equal(again[-1].events.step, first[-1].events.step)
    name = "epixquad" if closed.format == "xtc2" else "epix100a"
    assert np.array_equal(
        first[0][name].raw.values, again[0][name].raw.values
    )  # the first one is still there


def test_events_before_a_configuration_are_no_events(closed):
    event = next(m for m in moments(closed._recording) if m.service == Service.L1_ACCEPT)
    assert Assembly(closed.format).events([event.dgrams]) is None

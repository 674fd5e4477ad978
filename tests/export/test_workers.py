"""Exports on the workers of a Dask client: the same files, and nothing is read on this side."""

import distributed
import numpy as np
import pytest

import psana_dask
from psana_dask import simulate
from psana_dask.export import plan
from psana_dask.fields import FrameReader


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    simulate.demo_run(folder, 40)
    return psana_dask.open_run(folder)


@pytest.fixture(scope="module", autouse=True)
def client():
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        distributed.Client(cluster) as made,
    ):
        yield made


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_workers_write_what_this_process_does_not_read(run, tmp_path, monkeypatch, suffix):
    read = []

    def watched(reader, events, panels, rows, out):
        read.append(out.nbytes)
        return original(reader, events, panels, rows, out)

    monkeypatch.setattr(plan, "PIECE_BYTES", 2**20)
    original = FrameReader.read_into
    frames = run.epixquad.field("raw", chunks=None)
    with monkeypatch.context() as watching:
        watching.setattr(FrameReader, "read_into", watched)
        path = run.export(tmp_path / f"by_workers{suffix}", ["epixquad", "gmd"])
    assert sum(read) < frames.nbytes / 10
    again = psana_dask.open_run(path)
    np.testing.assert_array_equal(again.epixquad.raw.values, frames.values)
    np.testing.assert_array_equal(again.gmd.milliJoulesPerPulse.values, run.gmd.milliJoulesPerPulse.values)

"""The command line exports, whole or step by step."""

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

import psana_dask
from psana_dask.cli import main
from psana_dask.simulate import demo_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli")
    demo_run(path, 24)
    return path


def call(*words):
    return CliRunner().invoke(main, ["export", *map(str, words)])


def test_a_choice_of_events_and_pixels(folder, tmp_path):
    out = tmp_path / "some.h5"
    done = call(
        folder, "epixquad.raw", "gmd", "-o", out, "--select", "step >= 1", "--events", 5,
        "--roi", "epixquad:row=3:7", "--compression", "none",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "5 events" in done.output
    run = psana_dask.open_run(folder)
    first = np.flatnonzero(run.events.step.values >= 1)[:5]
    with h5py.File(out) as file:
        expected = run.isel(first).epixquad.field("raw", chunks=None)[:, :, 3:7].values
        np.testing.assert_array_equal(file["epixquad/raw"][()], expected)


def test_steps_for_job_arrays(folder, tmp_path):
    out = tmp_path / "steps.zarr"
    words = (folder, "epixquad", "-o", out)
    pieces = int(call(*words, "--begin").output)
    assert pieces
    for piece in range(pieces):
        assert call(*words, "--piece", piece).exit_code == 0
    assert not out.exists()
    assert call(*words, "--finish").exit_code == 0
    assert out.exists()


def test_frames_for_crystallography_and_a_table(folder, tmp_path):
    beam = ("--photon-energy", "9500", "--distance", "0.1", "--events", "4")
    done = call(folder, "epixquad.raw", "-o", tmp_path / "few.cxi", *beam)
    assert done.exit_code == 0, done.output
    with h5py.File(tmp_path / "few.cxi") as file:
        assert file["entry_1/data_1/data"].shape == (4, 4, 352, 384)
        assert file["LCLS/photon_energy_eV"][0] == 9500
    assert (tmp_path / "few.cxi.geom").exists()
    assert "photon_energy" in call(folder, "epixquad.raw", "-o", tmp_path / "few.nxs").output
    assert call(folder, "gmd", "-o", tmp_path / "gmd.parquet").exit_code == 0
    assert (tmp_path / "gmd.parquet").exists()
    assert "no pieces" in call(folder, "gmd", "-o", tmp_path / "two.parquet", "--begin").output


def test_events_as_they_are(folder, tmp_path):
    done = call(folder, "hsd", "-o", tmp_path / "small.xtc2", "--events", 3)
    assert done.exit_code == 0, done.output
    small = psana_dask.open_run(tmp_path / "small.xtc2")
    assert len(small) == 3
    assert "hsd" in small.detectors
    assert "epixquad" not in small.detectors
    assert "roi" in call(folder, "-o", tmp_path / "b.xtc2", "--roi", "hsd:row=0:1").output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["epixquad", "--roi", "epixquad:row"], "START:STOP"),
        (["epixquad", "--select", "step >"], "invalid syntax"),
        (["epix"], "epixquad"),
    ],
)
def test_mistakes_are_one_line(folder, tmp_path, words, said):
    done = call(folder, *words, "-o", tmp_path / "x.h5")
    assert done.exit_code == 1
    assert said in done.output
    assert len(done.output.strip().splitlines()) == 1

"""The page that counts lines counts right, and our snippets on it do what it says."""

import re
from pathlib import Path

import h5py
import numpy as np
import pytest

import psana_dask
from psana_dask import simulate
from psana_dask.simulate import Detector, RunSpec

PAGE = (Path(__file__).parents[1] / "docs/explanation/lines.md").read_text()
WHOSE = ("psana", "psana2", "psana_dask")
TASKS = re.findall(r"^## (.+)$", PAGE, re.MULTILINE)


def snippet(task, whose):
    section = PAGE.split(f"## {task}\n")[1].split("\n## ")[0]
    return re.search(rf"^{whose}:\n```python\n(.*?)```", section, re.MULTILINE | re.DOTALL)[1]


@pytest.mark.parametrize("task", TASKS)
def test_the_numbers_in_the_table_are_those_of_the_snippets(task):
    row = re.search(rf"^\| {task} \| (.+) \|$", PAGE, re.MULTILINE | re.IGNORECASE)[1].split(" | ")
    assert [int(n) for n in row] == [
        sum(bool(line.strip()) for line in snippet(task, whose).splitlines()) for whose in WHOSE
    ]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("whose", WHOSE)
def test_snippets_are_python(task, whose):
    compile(snippet(task, whose), task, "exec")


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    """Truth of xpptut15 run 54, where the site keeps it."""
    detectors = (
        Detector(name="evr0", kind="timing"), Detector(name="ebeam", kind="ebeam"),
        Detector(name="gas_detector", kind="gas_detector"), Detector(name="cspad", kind="cspad"),
    )  # fmt: skip
    spec = RunSpec(format="xtc", experiment="xpptut15", number=54, events=6, detectors=detectors)
    return simulate.write(spec, tmp_path_factory.mktemp("root") / "xpp/xpptut15/xtc")


@pytest.fixture
def done(truth, tmp_path, monkeypatch):
    """Run the snippet of a task, psana's through our face of it; return its names."""
    monkeypatch.chdir(tmp_path)

    def run(number, whose="psana_dask"):
        names = {}
        text = snippet(TASKS[number], whose).replace("from psana import", "from psana_dask.psana import")
        with psana_dask.set_options(data_root=truth.folder.parents[2], calib=truth.calib):
            exec(text, names)
        return names

    return run


def test_an_image(done, truth):
    from matplotlib import pyplot

    shown = []
    for whose in WHOSE[::-1]:
        pyplot.switch_backend("agg")
        pyplot.close("all")
        done(0, whose)
        shown.append(pyplot.gca().get_images()[0].get_array().filled(0))
        pyplot.close("all")
    ours, psana2, psana = shown
    assert ours.any()
    for theirs in (psana, psana2):
        np.testing.assert_allclose(np.nan_to_num(ours), theirs, rtol=1e-6)


def test_a_mean(done, truth):
    names = done(1)
    codes = map(truth.event_codes, range(6))
    chosen = [k for k, fired in enumerate(codes) if 90 in fired and 162 not in fired]
    assert 0 < len(chosen) < 6
    images = names["run"].cspad.image.values[chosen].astype(np.float64)
    np.testing.assert_allclose(names["mean"].values, images.mean(axis=0), rtol=1e-6, atol=1e-5)  # float32


PATHS = {
    "psana_dask": ("ebeam/photon_energy", "gas_detector/f_11_enrc"),
    "psana": ("photon_energy", "pulse_energy"),
}


@pytest.mark.parametrize("whose", PATHS)
def test_a_file(done, truth, tmp_path, whose):
    done(2, whose)
    with h5py.File(tmp_path / "small.h5") as file:
        for path, detector in zip(PATHS[whose], ("ebeam", "gas_detector"), strict=True):
            field = "photon_energy" if detector == "ebeam" else "f_11_enrc"
            assert np.array_equal(file[path][:], [truth.value(detector, field, k) for k in range(6)])

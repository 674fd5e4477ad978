"""The scripts of `examples/` that psana users know: psana's face and our own words give equal results."""

import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import psana_dask
from psana_dask import simulate
from psana_dask.simulate import Detector, RunSpec

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def cspad_run(tmp_path_factory):
    """An experiment of 6 events with a CSPAD, and its pedestals in the calib directory beside it."""
    folder = tmp_path_factory.mktemp("xpptut15")
    cspad = Detector(name="cspad", kind="cspad")
    spec = RunSpec(format="xtc", experiment="xpptut15", number=54, events=6, rate=10.0, detectors=(cspad,))
    truth = simulate.write(spec, folder / "xtc")
    pedestals = truth.picture("cspad").pedestals.reshape(32, 185, 388)
    psana_dask.calib.deploy({"pedestals": pedestals}, folder / "calib", "XppGon.0:Cspad.0", runs=1)
    return f"exp=xpptut15:run=54:dir={folder / 'xtc'}"


def script(name, source, monkeypatch):
    """Run a script; return its variables and the number of pictures that it showed."""
    import matplotlib.pyplot as plt

    shown = []
    monkeypatch.setattr(plt, "show", lambda: (shown.append(plt.gcf()), plt.close("all")))
    monkeypatch.setattr(sys, "argv", [name, source])
    return runpy.run_path(str(EXAMPLES / name)), len(shown)


def test_first_script(cspad_run, monkeypatch):
    theirs, pictures = script("psana_first.py", f"{cspad_run}:smd", monkeypatch)
    ours, same_pictures = script("native_first.py", cspad_run, monkeypatch)
    assert pictures == same_pictures == 2
    image = ours["image"].values
    assert image.shape == theirs["image"].shape
    assert np.array_equal(theirs["image"], np.nan_to_num(image, nan=0))
    assert np.count_nonzero(image == image) > 32 * 185 * 388 * 0.8  # it is a picture, not a hole


def test_demonstration(cspad_run, monkeypatch):
    theirs, pictures = script("psana_demo.py", f"{cspad_run}:idx", monkeypatch)
    ours, same_pictures = script("native_demo.py", cspad_run, monkeypatch)
    assert pictures == same_pictures == 1
    assert theirs["count"] == 6
    run = psana_dask.open(cspad_run)
    mean = run.cspad.calib.values.mean(axis=0, dtype=np.float64)
    np.testing.assert_allclose(theirs["mean"], mean, rtol=1e-12)  # sums in float64, in another order
    np.testing.assert_allclose(ours["mean"].values, mean, rtol=1e-12)
    np.testing.assert_allclose(theirs["profile"], ours["profile"].values, rtol=1e-12)
    assert np.isfinite(theirs["profile"]).sum() > 50


AS_ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
MORE_RANKS = "--oversubscribe"  # than cores
LAUNCHED = """
import os, runpy, sys
import numpy as np
sys.argv = ["psana_demo.py", sys.argv[1]]
names = runpy.run_path(SCRIPT)
if names["rank"] == 0:
    np.savez("found.npz", **{name: names[name] for name in ("mean", "count", "profile", "size")})
"""


@pytest.mark.parametrize("ranks", [2, pytest.param(7, marks=pytest.mark.full)])
def test_demonstration_under_mpirun(cspad_run, ranks, tmp_path, monkeypatch):
    """Ranks share the six events; of seven one has none."""
    pytest.importorskip("mpi4py", reason="needs mpi4py")
    if shutil.which("mpirun") is None:
        pytest.skip("needs mpirun")
    (tmp_path / "launched.py").write_text(LAUNCHED.replace("SCRIPT", repr(str(EXAMPLES / "psana_demo.py"))))
    environment = {**os.environ, **AS_ROOT, "MPLBACKEND": "agg"}
    command = ["mpirun", "-n", str(ranks), MORE_RANKS, sys.executable, "launched.py", f"{cspad_run}:idx"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    found, alone = (
        np.load(tmp_path / "found.npz"),
        script("psana_demo.py", f"{cspad_run}:idx", monkeypatch)[0],
    )
    assert (int(found["size"]), int(found["count"])) == (ranks, 6)
    np.testing.assert_allclose(found["mean"], alone["mean"], rtol=1e-12)  # sums in another order
    np.testing.assert_allclose(found["profile"], alone["profile"], rtol=1e-12)


def test_scripts_are_short():
    lines = {p.name: len(p.read_text().splitlines()) for p in EXAMPLES.glob("*_first.py")}
    assert lines["native_first.py"] < lines["psana_first.py"]

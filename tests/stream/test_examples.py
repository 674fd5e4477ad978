"""The example: one script on a run, a live run, shared memory and a cluster, with the same bits."""

import contextlib
import subprocess
import sys
import uuid
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import psana_dask
from psana_dask import simulate

SCRIPT = Path(__file__).parents[2] / "examples" / "average.py"
DETECTOR = "epixquad"
EVENTS = 24
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="POSIX message queues are Linux only")


def spec():
    frames = simulate.Detector(
        name=DETECTOR, kind="epix10ka", segments=4, shape=(32, 48), stream=(1, 1, 2, 2)
    )
    timing = simulate.Detector(name="timing", kind="timing", stream=0)
    return simulate.RunSpec(events=EVENTS, detectors=(timing, frames))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A run, its calibration folder, and what the script makes of it."""
    folder = tmp_path_factory.mktemp("example")
    truth = simulate.write(spec(), folder / "run")
    for constants in truth.calib.constants:
        if constants.detector == DETECTOR:
            psana_dask.calib.deploy(constants, folder / "calib", DETECTOR, runs="1-end")
    return folder, *of_script(folder, folder / "run", folder / "offline")


def of_script(folder, source, out, *options):
    """Run the script; return the means, the times of bright events, and what it printed."""
    out.mkdir()
    command = [
        sys.executable,
        str(SCRIPT),
        str(source),
        DETECTOR,
        "--calib",
        str(folder / "calib"),
        "--bright",
    ]
    found = subprocess.run(
        [*command, "1700", *options], cwd=out, capture_output=True, text=True, check=False, timeout=100
    )
    assert found.returncode == 0, found.stderr
    return xr.load_dataset(out / "mean.nc"), (out / "bright.times").read_text(), found.stdout


@contextlib.contextmanager
def process(*command):
    with subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE) as running:
        try:
            yield running
        finally:
            running.kill()


def same(got, want):
    xr.testing.assert_identical(got, want)


def test_the_script_is_short_and_right(recorded):
    folder, mean, bright, said = recorded
    assert len(SCRIPT.read_text().splitlines()) <= 25
    run = psana_dask.open(folder / "run", calib=folder / "calib")
    image = mean[f"{DETECTOR}_image"]
    same(image.drop_attrs(), run.mean(f"{DETECTOR}.image").drop_attrs())
    assert mean[f"{DETECTOR}_profile"].sizes["two_theta"] == 100
    top = run[DETECTOR].raw.max(["panel", "row", "col"]).values
    assert 0 < np.sum(top > 1700) < EVENTS
    assert bright.count("\n") == np.sum(top > 1700)
    assert printed(said) == [int(value) for value in top[top > 1700]]


def printed(said):
    """The brightest pixels that the script printed of the events it jumped to."""
    return [
        int(line.split()[1]) for line in said.splitlines() if line.startswith("20") and len(line.split()) == 2
    ]


def test_on_a_cluster(recorded, tmp_path):
    distributed = pytest.importorskip("distributed")
    folder, mean, bright, _ = recorded
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster:
        got, times, said = of_script(
            folder, folder / "run", tmp_path / "out", "--client", cluster.scheduler_address
        )
    same(got, mean)
    assert times == bright
    assert len(printed(said)) == bright.count("\n")


def test_on_shared_memory(recorded, tmp_path):
    folder, mean, bright, _ = recorded
    tag = f"test_{uuid.uuid4().hex[:12]}"
    with process("-m", "psana_dask", "serve", "--shmem", tag, str(folder / "run"), "--wait-clients", "1"):
        got, times, _ = of_script(folder, f"shmem://{tag}", tmp_path / "out", "--run", str(folder / "run"))
    same(got, mean)
    assert times == bright


WRITER = """
import sys
from psana_dask.simulate import RunSpec, Detector, write_live
sys.path.insert(0, sys.argv[2])
from test_examples import spec
write_live(spec(), sys.argv[1], rate=40)
"""


def test_on_a_live_run(recorded, tmp_path):
    folder, mean, bright, _ = recorded
    with process("-c", WRITER, str(tmp_path / "live"), str(Path(__file__).parent)) as writer:
        plots = ["--plot", str(folder / "run")] if find_spec("panel") else []
        got, times, said = of_script(folder, f"live:{tmp_path / 'live'}", tmp_path / "out", *plots)
        assert writer.wait(timeout=20) == 0
    same(got, mean)
    assert times.count("\n") == bright.count("\n")
    assert ("plots: http://127.0.0.1:" in said) == bool(plots)
    assert len(printed(said)) == bright.count("\n")

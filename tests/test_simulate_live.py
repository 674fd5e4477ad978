"""A simulated run that is taken now: its files grow, and are renamed when they are closed."""

import subprocess
import sys
import time

import numpy as np
import pytest

import psana_dask
from psana_dask import simulate
from psana_dask.simulate.live import write_live


@pytest.mark.parametrize("form", ["xtc2", "xtc"])
def test_followed_while_it_is_written(form, tmp_path):
    begin = np.datetime64(time.time_ns(), "ns")
    command = [sys.executable, "-m", "psana_dask", "simulate", str(tmp_path), "--live", "--rate", "60"]
    with subprocess.Popen([*command, "--format", form, "--events", "40"], stdout=subprocess.PIPE) as process:
        while not (growing := list(tmp_path.glob("*.inprogress"))):
            assert process.poll() is None
            time.sleep(0.01)
        with psana_dask.open_stream(f"live:{tmp_path}") as stream:
            times = np.concatenate([r.events.time.values for r in stream.follow_runs(timeout=20)])
        assert process.wait(timeout=20) == 0
        assert b"the run has ended" in process.communicate()[0]
    closed = psana_dask.open(tmp_path)
    assert np.array_equal(times, closed.events.time.values)
    assert begin < times[0] < np.datetime64(time.time_ns(), "ns")
    assert growing
    assert not list(tmp_path.rglob("*.inprogress"))
    assert closed.problems.empty


@pytest.mark.parametrize("form", ["xtc2", "xtc"])
def test_what_is_written_is_the_run(form, tmp_path):
    """Names, parts and contents are those of a run that is written at once; only the times are of now."""
    spec = simulate.demo_spec(24, format=form)
    truth = write_live(spec, tmp_path / "live", rate=5000)
    assert truth.folder == tmp_path / "live"
    want = psana_dask.open(simulate.write(spec, tmp_path / "once").folder)
    run = psana_dask.open(tmp_path / "live")
    names = sorted(p.relative_to(tmp_path / "once") for p in (tmp_path / "once").rglob("*.*"))
    assert sorted(p.relative_to(tmp_path / "live") for p in (tmp_path / "live").rglob("*.*")) == names
    detector = {"xtc2": "epixquad", "xtc": "epix100a"}[form]
    assert np.array_equal(run[detector].raw.values, want[detector].raw.values)
    assert run.problems.empty
    assert want.problems.empty


def test_a_rate_needs_live(tmp_path):
    command = [sys.executable, "-m", "psana_dask", "simulate", str(tmp_path), "--rate", "60"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert "--rate belongs to --live" in found.stderr

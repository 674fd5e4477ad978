"""The commands, run as a user runs them."""

import json
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from psana_dask import simulate
from psana_dask.cli import main
from psana_dask.options import current
from psana_dask.simulate import corrupt


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(simulate.demo_run(tmp_path_factory.mktemp("cli"), 24))


def call(*arguments, status=0):
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == status, result.output
    return result.output


def png_size(path):
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG")
    return int.from_bytes(data[16:20]), int.from_bytes(data[20:24])


def test_info_names_detectors_and_events(folder):
    text = call("info", folder)
    assert "24 events" in text
    assert "4×352×384" in text


def test_info_json_is_for_programs(folder):
    facts = json.loads(call("info", folder, "--json"))
    assert facts["events"] == 24
    assert facts["detectors"]["epixquad"]["fields"]["raw"] == {"dtype": "uint16", "shape": "4×352×384"}
    assert facts["detectors"]["opal"]["present"] == pytest.approx(5 / 24)
    assert facts["epics"]["variables"] == 4


def test_ls_lists_runs(folder):
    rows = json.loads(call("ls", "tstx00117", "--dir", folder, "--json"))
    assert [(r["run"], r["streams"], r["files"]) for r in rows] == [(1, 4, 5)]
    assert "tstx00117" in call("ls", "tstx00117", "--dir", folder)


@pytest.mark.parametrize("detector", ["epixquad", "opal.raw", "hsd.chan00", "gmd", "timing.fixedRates"])
def test_show_draws_every_kind_of_detector(folder, tmp_path, detector):
    picture = tmp_path / "picture.png"
    call("show", folder, detector, "-o", str(picture))
    assert min(png_size(picture)) > 300


def test_show_takes_positions_and_times(folder, tmp_path):
    picture = str(tmp_path / "picture.png")
    assert "12:03.058333333" in call("show", folder, "gmd", "--event", "7", "-o", picture)
    near = "2024-06-14T06:12:03.059"
    assert "12:03.058333333" in call("show", folder, "gmd", "--event", near, "-o", picture)


def test_index_keeps_what_it_built(folder):
    text = call("index", folder)
    assert "24 events" in text
    assert "0 problems" in text
    assert list((current().cache_folder() / "index").glob("tstx00117-r0001-s002*"))


def test_simulate_writes_a_run_that_opens(tmp_path):
    call("simulate", str(tmp_path / "run"), "--events", "8", "--run", "7", "--experiment", "xppx00318")
    assert "xppx00318 run 7: 8 events" in call("info", str(tmp_path / "run"))


def test_simulate_writes_lcls1_runs_too(tmp_path):
    call("simulate", str(tmp_path / "run"), "--events", "8", "--format", "xtc")
    text = call("info", str(tmp_path / "run"))
    assert "xtc, 3 streams, 4 files" in text
    assert "32×185×388" in text


@pytest.mark.parametrize("form", ["xtc2", "xtc"])
def test_demo_draws_the_mean(tmp_path, form):
    picture = tmp_path / "demo.png"
    text = call("demo", "--events", "16", "-o", str(picture), "--format", form)
    assert "16 events" in text
    assert min(png_size(picture)) > 300


def test_bench_measures_every_row():
    from psana_dask.benchmark import REQUIRED

    rows = json.loads(call("bench", "--small", "--rounds", "1", "--json"))
    assert {r["what"] for r in rows} == set(REQUIRED)
    assert all(np.isfinite(r["value"]) and r["value"] > 0 for r in rows)


def test_errors_are_one_line_and_status_1(folder):
    text = call("show", folder, "epixqad", status=1)
    assert text == "Error: no detector 'epixqad'; did you mean epixquad?\n"
    assert "no file or folder" in call("info", "/nowhere/at/all.xtc2", status=1)


def test_problems_are_told_on_stderr(tmp_path):
    spec = simulate.RunSpec(events=4, detectors=(simulate.Detector(name="gmd", kind="gmd"),))
    run = simulate.write(spec, tmp_path)
    corrupt.cut(run.files[0], run.files[0].stat().st_size - 3)
    command = [sys.executable, "-m", "psana_dask", "info", str(run.files[0])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "warning: the datagram is longer than the file" in done.stderr
    assert "4 events" in done.stdout

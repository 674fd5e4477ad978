"""The summary of an experiment: rows, columns of the user, what is kept, and runs that cannot be read."""

import json
import os
import shutil
from functools import partial

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import psana_dask
from psana_dask import simulate
from psana_dask.cli import main
from psana_dask.errors import RunNotFound
from psana_dask.experiment_table import fingerprint, named_function, page_of
from psana_dask.simulate import Detector, RunSpec

DETECTORS = (Detector(name="gmd", kind="gmd"), Detector(name="cam", kind="camera", shape=(6, 8)))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    where = tmp_path_factory.mktemp("experiment")
    for number, events in ((5, 9), (6, 4), (7, 12)):
        spec = RunSpec(number=number, events=events, detectors=DETECTORS, start=f"2024-06-14T0{number}:00:00")
        simulate.write(spec, where)
    return where


@pytest.fixture
def folder(written, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return shutil.copytree(written, tmp_path / "data")


def data_file(folder, run):
    return next(folder.glob(f"*-r{run:04}-s*.xtc2"))


class Counted:
    """A column that knows how often it was asked; its count is no part of what it is."""

    calls = 0

    def __call__(self, run):
        type(self).calls += 1
        return run.mean("gmd.milliJoulesPerPulse")


def test_a_row_for_each_run(folder):
    table = psana_dask.summary(
        "tstx00117",
        {"energy": lambda run: run.mean("gmd.milliJoulesPerPulse"), "last": lambda run: run.stop},
        dir=folder,
    )
    assert table.index.tolist() == [5, 6, 7]
    assert table.events.tolist() == [9, 4, 12]
    assert table.detectors.tolist() == ["cam, gmd"] * 3
    assert table.error.tolist() == [""] * 3
    runs = psana_dask.open_runs(folder)
    assert table.energy.tolist() == [float(run.mean("gmd.milliJoulesPerPulse")) for run in runs]
    assert table["last"].tolist() == [pd.Timestamp(run.stop) for run in runs]
    assert table.start.tolist() == [pd.Timestamp(run.start) for run in runs]
    assert table.columns[-1] == "error"


def test_what_was_said_of_a_run_is_kept_until_its_files_change(folder, monkeypatch):
    monkeypatch.setattr(Counted, "calls", 0)
    first = psana_dask.summary(folder, {"energy": Counted()})
    again = psana_dask.summary(folder, {"energy": Counted()})
    pd.testing.assert_frame_equal(first, again)
    assert Counted.calls == 3
    os.utime(data_file(folder, 6), ns=(1, 1))
    psana_dask.summary(folder, {"energy": Counted()})
    assert Counted.calls == 4
    psana_dask.summary(folder, {"energy": Counted()}, refresh=True, runs=[5, 7])
    assert Counted.calls == 6
    psana_dask.summary(folder, {"energy": Counted()}, damaged="keep")
    assert Counted.calls == 9  # another question


def test_a_function_of_several_columns_and_what_it_cannot_return(folder):
    def both(run):
        return {"n": np.int64(len(run)), "who": run.experiment, "none": None, "yes": True}

    table = psana_dask.summary(folder, both)
    assert table[["n", "who", "none", "yes"]].iloc[0].tolist() == [9, "tstx00117", None, True]
    bad = psana_dask.summary(folder, {"x": lambda run: [1, 2], "y": lambda run: 1 / (len(run) - 4), "z": len})
    assert bad.error[6] == (
        "x: TypeError: a column is one number, text or time for each run, "
        "x is a list of shape (2,); y: ZeroDivisionError: division by zero"
    )
    assert bad.z.tolist() == [9, 4, 12]
    assert np.isnan(bad.y[6])


def test_a_damaged_run_has_a_row_that_says_why(folder):
    path = data_file(folder, 6)
    whole = path.read_bytes()
    path.write_bytes(b"\x00" * 100)
    table = psana_dask.summary(folder, {"n": len})
    assert table.error[[5, 7]].tolist() == ["", ""]
    assert str(path) in table.error[6]
    assert np.isnan(table.events[6])
    path.write_bytes(whole[:-300])  # ends inside a datagram
    table = psana_dask.summary(folder, {"n": len})
    assert table.problems[6] > 0
    assert table.error[6] == ""


def test_what_a_function_does_is_part_of_the_key():
    def made(x):
        return lambda run: x

    assert fingerprint(made(1)) == fingerprint(made(1))
    assert fingerprint(made(1)) != fingerprint(made(2))
    assert fingerprint(lambda run: run.mean("a")) != fingerprint(lambda run: run.mean("b"))
    assert fingerprint(partial(made, 1)) != fingerprint(partial(made, 2))
    assert fingerprint(Counted()) == fingerprint(Counted())
    assert fingerprint(len) == fingerprint(len) != fingerprint(sum)


def test_no_run(folder):
    with pytest.raises(RunNotFound, match=r"none of the runs \[9\]"):
        psana_dask.summary(folder, runs=[9])


def test_the_page_is_safe():
    table = pd.DataFrame(
        {"error": ["<script>alert(1)</script>"], "x": [1.5]}, index=pd.Index([3], name="run")
    )
    page = page_of(table, "<b>t</b>", {3: {"quality": "q'><script>"}}, ["<i>"])
    assert "<script>" not in page
    assert "<b>t" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "1.5" in page


def test_the_command(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_columns.py").write_text("def more(run):\n    return {'n': len(run)}\n")
    call = ["summary", "tstx00117", "--dir", str(folder)]
    shown = CliRunner().invoke(main, [*call, "--columns", "my_columns.py:more", "--runs", "5,6-7", "--json"])
    rows = json.loads(shown.output)
    assert [row["n"] for row in rows] == [9, 4, 12]
    assert rows[0]["start"].startswith("2024-06-14T05:00:00")
    for kind in ("html", "parquet", "csv"):
        assert CliRunner().invoke(main, [*call, "-o", f"table.{kind}"]).exit_code == 0
    assert pd.read_parquet("table.parquet").events.tolist() == [9, 4, 12]
    assert pd.read_csv("table.csv").events.tolist() == [9, 4, 12]
    assert "Summary of tstx00117" in (tmp_path / "table.html").read_text()
    for wrong, said in (
        (["-o", "table.xls"], "must be .html, .parquet or .csv"),
        (["--columns", "nowhere:more"], "No module named 'nowhere'"),
        (["--columns", "my_columns.py:less"], "has no attribute 'less'"),
        (["--columns", "none.py:less"], "no file none.py"),
        (["--columns", "more"], "write module:function"),
        (["--runs", "a"], "is not a list of numbers"),
    ):
        result = CliRunner().invoke(main, [*call, *wrong])
        assert (result.exit_code, said in result.output) == (1, True), result.output


def test_functions_by_name(tmp_path, monkeypatch):
    assert named_function("os.path:basename") is os.path.basename
    with pytest.raises(ValueError, match="is no function"):
        named_function("os:sep")

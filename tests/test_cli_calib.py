"""``psana-dask calib`` and ``psana-dask dark``, run as a user runs them."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import psana_dask
from psana_dask import simulate
from psana_dask.cli import main
from psana_dask.simulate import Algorithm, Detector, Field, RunSpec

SHAPE = (1, 32, 64)
SOURCE = "XppEndstation.0:Opal1000.0"


def call(*arguments, status=0):
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == status, result.output
    return result.output


def loaded(*arguments):
    return json.loads(call(*arguments, "--json"))


@pytest.fixture
def store(tmp_path):
    """A store with pedestals of run 10 on, and others of runs 20 to 30."""
    for begin, level in ((10, 5.0), ("20-30", 7.5)):
        np.save(tmp_path / "peds.npy", np.full((4, 5), level))
        call("calib", "deploy", tmp_path / "calib", SOURCE, "pedestals", tmp_path / "peds.npy",
             "--runs", begin, "--comment", f"level {level}")
    return tmp_path / "calib"


def test_help_names_every_command():
    text = call("calib", "--help")
    for name in ("ls", "show", "get", "deploy", "diff", "validate", "history", "undo"):
        assert f"  {name} " in text


def test_ls(store):
    rows = loaded("calib", "ls", store)
    assert [(r["detector"], r["kind"], r["runs"]) for r in rows] == [
        (SOURCE, "pedestals", "10-end"), (SOURCE, "pedestals", "20-30")]
    assert [r["runs"] for r in loaded("calib", "ls", store, SOURCE, "--run", "25")] == ["20-30"]
    assert loaded("calib", "ls", store, "--kind", "pixel_gain") == []
    assert "20-30" in call("calib", "ls", store)
    assert "no such folder" in call("calib", "ls", store / "none", status=1)


def test_show_says_why_and_draws(store, tmp_path):
    known = loaded("calib", "show", store, SOURCE, "pedestals", "--run", "25")
    assert (known["median"], known["shape"], known["runs"]) == (7.5, [4, 5], "20-30")
    assert "largest begin" in known["looked"][-1]
    text = call("calib", "show", store, SOURCE, "pedestals", "--run", 31, "-o", tmp_path / "p.png")
    assert "took" in text
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    wrong = call("calib", "show", store, SOURCE, "pedestal", "--run", 31, status=1)
    assert "did you mean pedestals" in wrong
    assert "none covers run 3" in call("calib", "show", store, SOURCE, "pedestals", "--run", 3, status=1)


def test_get_and_diff(store, tmp_path):
    for name in ("got.npy", "got.data"):
        call("calib", "get", store, SOURCE, "pedestals", "--run", 10, "-o", tmp_path / name)
        assert loaded("calib", "get", store, SOURCE, "pedestals", "-o", tmp_path / name)["runs"] == "10-end"
        same = loaded("calib", "diff", store, SOURCE, "pedestals", "--run", 10, "--file", tmp_path / name)
        assert same["changed"] == 0
    found = loaded("calib", "diff", store, SOURCE, "pedestals", "--run", 10, "--other-run", 20)
    assert (found["changed"], found["largest"], found["mean"]) == (20, 2.5, 2.5)
    text = call("calib", "diff", store, SOURCE, "pedestals", "--run", 10, "--other-run", 20,
                "-o", tmp_path / "d.png")
    assert "20 of 20 values differ, by at most 2.5" in text
    assert (tmp_path / "d.png").stat().st_size > 5000
    assert "say what to compare" in call("calib", "diff", store, SOURCE, "pedestals", "--run", 10, status=2)


def test_deploy_dry_run_history_undo(store, tmp_path):
    new = ("calib", "deploy", store, SOURCE, "pedestals", tmp_path / "peds.npy", "--runs", "10-end")
    trial = loaded(*new, "--dry-run")
    assert (trial["done"], trial["difference"]["changed"]) == (False, 20)
    assert len(loaded("calib", "history", store, SOURCE)) == 2
    assert "wrote" in call(*new)
    assert loaded("calib", "show", store, SOURCE, "pedestals", "--run", 12)["median"] == 7.5
    assert "took back pedestals 10-end.data" in call("calib", "undo", store, SOURCE, "pedestals")
    assert loaded("calib", "show", store, SOURCE, "pedestals", "--run", 12)["median"] == 5
    rows = loaded("calib", "history", store, SOURCE, "pedestals")
    assert [r["action"] for r in rows] == ["deploy", "deploy", "deploy", "undo"]
    assert rows[0]["comment"] == "level 5.0"


def test_validate_names_what_is_wrong(store):
    assert "no problems" in call("calib", "validate", store)
    folder = next(store.glob("*/*/pedestals"))
    (folder / "12-xyz.data").write_text("1 2 3\n")
    (folder / "40-30.data").write_text("1 2 3\n")
    (folder / "50-60.data").write_text("1 2 nan\n")
    (folder / "70-80.data").write_text("one two\n")
    text = call("calib", "validate", store, SOURCE, status=1)
    for what in ("12-xyz.data", "begins (40) after it ends (30)", "NaN or infinite", "not a table"):
        assert what in text, what
    assert "nothing to validate" in call("calib", "validate", store, "none", status=1)


@pytest.mark.parametrize(("content", "message"), [
    (b"\x93NUMPY garbage", "cannot be read as pedestals"), (b"one two", "not a table"),
])
def test_files_that_are_no_constants(store, tmp_path, content, message):
    path = tmp_path / ("bad.npy" if content.startswith(b"\x93") else "bad.txt")
    path.write_bytes(content)
    assert message in call("calib", "deploy", store, SOURCE, "pedestals", path, "--runs", 3, status=1)


def test_the_service_is_read_only(store, tmp_path):
    peds = tmp_path / "peds.npy"
    assert "read only" in call("calib", "deploy", "web", SOURCE, "pedestals", peds, "--runs", 3, status=1)


def test_pickles_are_not_opened(store, tmp_path):
    np.save(tmp_path / "object.npy", np.array([{"a": 1}], object), allow_pickle=True)
    text = call("calib", "deploy", store, SOURCE, "pedestals", tmp_path / "object.npy", "--runs", 3, status=1)
    assert "allow_pickle=False" in text


# ---- dark ---------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A Jungfrau pedestal scan: a step for each gain range."""

    def frame(moment):
        noise = np.random.default_rng(moment.key % 2**32).normal(0, 6, SHAPE)
        return (3000 + noise).astype(np.uint16) | np.uint16((0, 1, 3)[moment.step % 3] << 14)

    algorithm = Algorithm("raw", (0, 2, 0), (Field("raw", "u2", SHAPE, frame),))
    folder = tmp_path_factory.mktemp("dark") / "xtc"
    detector = Detector(name="jf", kind="jungfrau", segments=2, algorithms=(algorithm,))
    simulate.write(RunSpec(events=30, steps=3, detectors=(detector,), number=9), folder)
    return folder


def test_dark_reports(run, tmp_path):
    text = call("dark", run, "jf", "-o", tmp_path / "dark.png")
    assert "g2: 10 frames" in text
    assert (tmp_path / "dark.png").read_bytes().startswith(b"\x89PNG")
    found = loaded("dark", run, "jf")
    assert set(found["stages"]) == {"g0", "g1", "g2"}
    assert found["stages"]["g0"]["pedestal_median"] == pytest.approx(3000, abs=1)


def test_dark_deploys_beside_the_data(run):
    trial = call("dark", run, "jf", "--deploy", "--dry-run")
    assert "would write" in trial
    assert "none before" in trial
    assert not (run.parent / "calib").exists()
    done = loaded("dark", run, "jf", "--deploy", "--comment", "first light")["deployed"]
    assert {d["path"].rpartition("/")[2] for d in done} == {"9-end.data"}
    assert all("/Jungfrau::CalibV1/jf/" in d["path"] for d in done)
    values = psana_dask.open(run).jf.calibrated(gain=False).values
    assert abs(values.mean()) < 0.5  # the mean of the frames that made it
    again = call("dark", run, "jf", "--deploy", "--dry-run", "--for-runs", "12-20")
    assert "0 of 12288 values differ" in again
    history = loaded("calib", "history", run.parent / "calib", "jf", "pedestals")
    assert history[0]["comment"] == "first light"


def test_dark_of_too_little(run):
    assert "g1 of Jungfrau was not measured" in call("dark", run, "jf", "--events", 10, "--deploy", status=1)
    assert "two frames or more" in call("dark", run, "jf", "--events", 1, status=1)


# ---- a detector that nobody has described ---------------------------------------------------------
def test_show_draws_calibrated_panels_of_an_unknown_detector(tmp_path, monkeypatch):
    def frame(moment):
        return np.arange(20 * 30, dtype=np.uint16).reshape(20, 30) + np.uint16(100)

    algorithms = (Algorithm("raw", (9, 9, 9), (Field("flux", "u2", (20, 30), frame),)),)
    detector = Detector(name="odd", kind="camera", det_type="neverheardof", segments=3, algorithms=algorithms)
    simulate.write(RunSpec(events=2, detectors=(detector,), number=4), tmp_path / "xtc")
    np.save(tmp_path / "peds.npy", np.full((3, 20, 30), 100.0))
    call("calib", "deploy", tmp_path / "calib", "odd", "pedestals", tmp_path / "peds.npy", "--runs", 1)
    monkeypatch.chdir(tmp_path)
    assert "odd_calib {'panel': 3, 'row': 20, 'col': 30}" in call("show", "xtc", "odd")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    assert "odd_calib" in call("show", "xtc", "odd", "-o", "again.png")


# ---- the service --------------------------------------------------------------------------------
_spec = importlib.util.spec_from_file_location("webdb", Path(__file__).parent / "calib/test_webdb.py")
webdb = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(webdb)


def test_the_service_is_a_store_too(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    service = webdb.Service()
    service.add("cdb_tst", "det_000001", "pedestals", webdb.PEDS, run=3, run_end=7)
    options = ("-e", "tst")
    try:
        rows = loaded("calib", "ls", service.url, *options)
        assert [(r["detector"], r["kind"], r["runs"]) for r in rows] == [("det_000001", "pedestals", "3-7")]
        known = loaded("calib", "show", service.url, "det_000001", "pedestals", "--run", 5, *options)
        assert known["shape"] == list(webdb.PEDS.shape)
        path = tmp_path / "peds.npy"
        call("calib", "get", service.url, "det_000001", "pedestals", "--run", 5, "-o", path, *options)
        assert np.array_equal(np.load(path), webdb.PEDS)
        answer = call("calib", "show", service.url, "det_000001", "pedestals", "--run", 9, *options, status=1)
        assert "none covers run 9" in answer
        assert "validate a folder" in call("calib", "validate", service.url, status=1)
    finally:
        service.server.shutdown()
        service.server.server_close()

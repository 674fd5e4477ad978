"""The run dashboard, and all pages together as the command serves them."""

import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request

import numpy as np
import pytest
from click.testing import CliRunner

from psana_dask import plot
from psana_dask.checks import quality
from psana_dask.cli import main
from psana_dask.errors import ConditionError, EventNotFound, NameNotFound
from psana_dask.pages.browse import asked_for, pages
from psana_dask.pages.choosing import Shelf
from psana_dask.pages.dashboard import DashboardPage, Judged, quality_text
from psana_dask.pages.scans import BINS, MOST_VALUES, _grouped, over_names, scan_of
from psana_dask.pages.serving import serve

EVIL = "<img src=x onerror=alert(1)>"
ENERGY = "gmd.milliJoulesPerPulse"


@pytest.fixture
def shelf(beamtime):
    return Shelf(folder=beamtime / "xtc")


@pytest.fixture
def run(shelf):
    return shelf.open(shelf.choice("tstx00117", 6))


# ---- scans --------------------------------------------------------------------------------------
def test_means_over_what_was_scanned_are_those_of_pandas(run):
    assert over_names(run)[:2] == ["scan delay", "scan step_value"]
    frame = run.events.to_dataframe()
    frame["y"] = run.gmd.milliJoulesPerPulse.values.astype(np.float64)
    frame["delay"] = run.steps["delay"].to_numpy()[frame["step"]]
    for x, key in (("scan delay", "delay"), ("step", "step")):
        found = scan_of(run, ENERGY, x)
        wanted = frame.groupby(key)["y"]
        np.testing.assert_array_equal(found.x, sorted(frame[key].unique()))
        np.testing.assert_allclose(found.mean, wanted.mean(), rtol=1e-12)
        np.testing.assert_allclose(found.error, wanted.sem(), rtol=1e-10)
        np.testing.assert_array_equal(found.count, wanted.count())
    some = scan_of(run, ENERGY, "step", f"{ENERGY} > 1 and evr.has(40)")
    np.testing.assert_allclose(some.mean, frame[frame["y"] > 1].groupby("step")["y"].mean(), rtol=1e-12)


def test_what_cannot_be_drawn_is_said(run):
    for y, x, condition, error in (
        ("wave.raw", "step", "", ConditionError),
        (EVIL, "step", "", NameNotFound),
        (ENERGY, "scan " + EVIL, "", NameNotFound),
        (ENERGY, "step", "gmd.milliJoulesPerPulse > 1e9", EventNotFound),
        (ENERGY, "step", "open('x')", ConditionError),
    ):
        with pytest.raises(error):
            scan_of(run, y, x, condition)


def test_many_values_are_put_into_bins():
    places = np.linspace(0.0, 10.0, MOST_VALUES + 1)
    group, at = _grouped(places)
    assert len(at) == BINS
    np.testing.assert_array_equal(np.abs(at[group] - places) <= 10 / BINS / 2 + 1e-12, True)
    assert len(_grouped(places[:-1])[1]) == MOST_VALUES


# ---- the page without a browser -----------------------------------------------------------------
def test_quality_is_worked_out_once_and_escaped(run, shelf):
    choice, judged = shelf.choice("tstx00117", 6), Judged()
    found = judged.of(choice, run)
    assert judged.of(choice, run) is found is judged.known(choice)
    found = found.assign_coords(detector=[EVIL, *found.detector.values[1:]])
    assert "<img" not in quality_text(found)
    assert "&lt;img" in quality_text(found)


def test_a_dashboard_says_what_is_in_a_run(shelf):
    page = DashboardPage(shelf, Judged(), asked={"run": "6"})
    assert "tstx00117 run 6: 30 events" in page.status.view.object
    assert page.scan.x_name == "scan delay"
    page.judge.clicks += 1
    wanted = quality(shelf.open(shelf.choice("tstx00117", 6)))
    assert f"<td class='number'>{int(wanted['missing'].sel(detector='jf'))}</td>" in page.quality.object
    page.condition.value = "nonsense("
    assert "was never closed" in page.scan_note.object


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ({"run": [b"6"], "event": [b"2024-06-14"]}, {"run": "6", "event": "2024-06-14"}),
        ({"token": [b"x"], "other": [b"y"]}, {}),
        ({"run": [b"x" * 201], "detector": [b"a\x00b"], "experiment": []}, {}),
    ],
)
def test_what_an_address_may_ask_for(arguments, found):
    assert asked_for(arguments) == found


# ---- in a browser -------------------------------------------------------------------------------
@pytest.mark.filterwarnings("ignore::psana_dask.errors.PartialRunWarning")  # of run 7
def test_quality_and_scan_of_a_run(page, browsing, shot):
    page.goto(f"{browsing().url}runs?run=6")
    page.get_by_text("tstx00117 run 6: 30 events").wait_for()
    page.get_by_text("Quality", exact=True).click()
    page.get_by_role("button", name="Judge this run").click()
    page.get_by_text("longest absence").wait_for()
    shot("browse_quality")
    page.get_by_text("Scan", exact=True).click()
    page.get_by_text("30 events at 3 places").wait_for()
    page.get_by_label("Only events where").fill("step > 0")
    page.get_by_label("Only events where").press("Enter")
    page.get_by_text("20 events at 2 places").wait_for()
    shot("browse_scan")
    page.get_by_role("link", name="Events").click()
    page.get_by_text("event 0 of 0 to").wait_for()


def test_live_plots_are_part_of_a_dashboard(page, shelf, run, shot):
    with plot.live(run, ["gmd"], rate=2.0) as plots, serve(pages(shelf, live=plots.page)) as server:
        page.goto(f"{server.url}runs?run=6")
        page.get_by_text("tstx00117 run 6: 30 events").wait_for()
        page.get_by_role("link", name="Live").wait_for()
        page.get_by_text("Live", exact=True).last.click()
        page.frame_locator("iframe").get_by_role("heading", name="gmd_milli").first.wait_for()
        shot("browse_live")


# ---- the command --------------------------------------------------------------------------------
def test_the_command_serves_pages_behind_a_token(beamtime, page):
    command = [sys.executable, "-m", "psana_dask", "browse", "--dir", str(beamtime / "xtc")]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as program:
        try:
            assert program.stdout.readline() == "tstx00117; constants are read only\n"
            address = program.stdout.readline().strip()
            bare = re.sub(r"(:\d+/).*", r"\1", address)
            for wrong in (bare, f"{bare}events", f"{bare}{'x' * 32}/events", f"{bare}../../etc/passwd"):
                with pytest.raises(urllib.error.HTTPError, match="403"):
                    urllib.request.urlopen(wrong, timeout=30)
            page.goto(f"{address}events?run=6&detector=../../etc/passwd&experiment={EVIL}")
            page.get_by_text("event 0 of 0 to 29").wait_for()
        finally:
            program.send_signal(signal.SIGINT)
        program.communicate(timeout=60)
    assert program.returncode == 130


def test_wrong_options_are_explained(tmp_path):
    for arguments, words in (
        (["--calib", str(tmp_path / "none")], "is no calib directory"),
        (["--live", "tcp://127.0.0.1:9"], "belong together"),
        ([str(tmp_path / "none")], "no file or folder"),
    ):
        result = CliRunner().invoke(main, ["browse", *arguments])
        assert result.exit_code
        assert words in result.output

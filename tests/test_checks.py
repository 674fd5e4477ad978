"""The quality of a run: each defect is planted, and found."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

import psana_dask
from psana_dask import checks, simulate
from psana_dask.checks import findings, longest, off_by
from psana_dask.cli import main
from psana_dask.simulate import Algorithm, Damage, Detector, Field, Missing, RunSpec

EVENTS = 60


def beam(shift):
    """A monitor that sees no beam `shift` events after each dropped shot (every tenth)."""
    return Algorithm("raw", (2, 0, 0), (
        Field("sum", "f4", (), lambda m: 0.01 if (m.event - shift) % 10 == 0 else 1.0 + 0.01 * (m.event % 3)),
    ))  # fmt: skip


def channels():
    """Three channels of a digitiser: a sound one, a dead one, and one at the end of its range."""
    noise = lambda m: np.random.default_rng(m.event).integers(90, 110, 50).astype("u2")  # noqa: E731
    values = (noise, lambda m: np.full(50, 7, "u2"), lambda m: np.full(50, 65535, "u2") - (m.event == 0))
    return Algorithm("raw", (0, 0, 1), tuple(Field(f"raw_{k}", "u2", (50,), v) for k, v in enumerate(values)))


def picture(moment):
    """A frame of noise with a dead pixel, a hot one and a saturated one."""
    frame = np.random.default_rng(moment.event).normal(100, 3, (20, 30))
    frame[3, 4], frame[5, 6], frame[7, 8] = 77, 900, 16383
    return np.rint(frame).astype(np.uint16)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    camera = Algorithm("raw", (2, 0, 0), (Field("raw", "u2", (20, 30), picture),))
    stamps = np.arange(EVENTS) * (1e9 / 120) + 1e9 * (np.arange(EVENTS) >= 40)
    first = 1_000_000_000 << 32
    words = [first + (int(ns // 1e9) << 32) + int(ns % 1e9) for ns in stamps]
    spec = RunSpec(
        events=EVENTS,
        timestamps=np.array(words, np.uint64),
        detectors=(
            Detector(name="timing", kind="timing"),
            Detector(name="cam", kind="camera", shape=(20, 30), algorithms=(camera,), stream=1),
            Detector(name="early", kind="gmd", algorithms=(beam(-1),)),
            Detector(name="sound", kind="gmd", algorithms=(beam(0),)),
            Detector(name="silent", kind="gmd"),
            Detector(name="wave8", kind="waveform", algorithms=(channels(),)),
            Detector(name="once", kind="gmd"),
            Detector(name="stopped", kind="gmd"),
            Detector(name="slow", kind="gmd"),
        ),
        missing=(
            Missing(events=(11, 12, 13), detector="cam"),
            Missing(events=tuple(range(EVENTS)), detector="silent"),
            Missing(events=(7,), detector="once"),
            Missing(events=tuple(range(20, EVENTS)), detector="stopped"),
            Missing(events=tuple(k for k in range(EVENTS) if k % 4), detector="slow"),
        ),
        damage=(Damage(events=(20,), detector="cam"),),
    )
    return psana_dask.open(simulate.write(spec, tmp_path_factory.mktemp("odd")).folder)


@pytest.fixture(scope="module")
def found(run):
    return psana_dask.quality(run)


def test_what_is_missing_is_counted(found):
    cam = found.sel(detector="cam")
    assert cam["missing"] == 4  # three not written, one damaged
    assert cam["damaged"] == 1
    assert cam["longest_absence"] == 3
    assert cam["present"] == pytest.approx(56 / 60)
    assert found.sel(detector="sound")["present"] == 1
    silent = found.sel(detector="silent")  # declared, and in no event
    assert (silent["present"], silent["missing"], silent["longest_absence"]) == (0, EVENTS, EVENTS)
    assert not any("silent" in name for name in found["scalar"].values)
    assert "silent is declared, but in no event" in findings(found)
    assert "cam: missing in 4 events, 3 of them in a row" in findings(found)


def test_what_ends_early_is_said_and_what_is_slow_is_not(found):
    said = findings(found)
    assert "once: missing in 1 event" in said
    assert "stopped: missing in 40 events, 40 of them in a row" in said
    assert not any("slow" in sentence for sentence in said)


def test_pixels_are_judged(found):
    cam = found.sel(detector="cam")
    assert cam["dead"] == 3  # the one that is stuck, and the two that are hot and steady
    assert cam["hot"] == 2
    assert cam["saturated"] == pytest.approx(1 / 600)
    assert np.isnan(found.sel(detector="sound")["dead"])
    assert {"cam: 3 dead", "cam: 2 hot"} <= set(findings(found))


def test_channels_of_digitisers_are_judged(found):
    wave8 = found.sel(detector="wave8")
    assert (wave8["dead"], wave8["hot"]) == (1, 1)
    # a third of the samples but those of the first event, which is among the 32 that are read
    assert wave8["saturated"] == pytest.approx(31 / 32 / 3)


def test_the_command_says_the_same(run, found, tmp_path):
    page = tmp_path / "quality.html"
    text = CliRunner().invoke(main, ["quality", run.files[0].rpartition("/")[0], "-o", str(page)])
    assert text.exit_code == 0, text.output
    for said in findings(found):
        assert said in text.output
        assert said in page.read_text()
    told = json.loads(CliRunner().invoke(main, ["quality", *run.files, "--json"]).output)
    assert told["findings"] == findings(found)
    assert told["detectors"]["cam"]["missing"] == 4
    assert told["detectors"]["sound"]["dead"] is None
    assert told["scalars"]["early_sum"]["off_by"] == -1
    assert told["gaps"] == 1


def test_noise_does_not_answer_to_the_beam(run):
    noise = np.random.default_rng(0).normal(0.01, 1, 6000)
    dropped = np.arange(6000) % 10 == 0
    levels, error = checks.dropped_levels(noise, dropped), checks.dropped_noise(noise, dropped)
    assert np.isnan(off_by(levels, error))
    seen = np.where(dropped, 0, 1.0) + 0.3 * noise
    levels, error = checks.dropped_levels(seen, dropped), checks.dropped_noise(seen, dropped)
    assert off_by(levels, error) == 0


def test_a_detector_that_is_off_by_one_is_named(found):
    assert found["off_by"].sel(scalar="early_sum") == -1
    assert found["off_by"].sel(scalar="sound_sum") == 0
    assert found.attrs["dropped_shots"] == 6
    assert any("early_sum is off by -1" in said for said in findings(found))
    assert not any("sound_sum" in said for said in findings(found))


def test_gaps_in_time_are_found(found):
    assert found.attrs["gaps"] == 1
    assert found.attrs["missed_events"] == 120
    assert found.attrs["rate"] == pytest.approx(120, rel=1e-3)


def test_the_page_says_the_same(run, tmp_path):
    found = psana_dask.quality(run, html=tmp_path / "quality.html", sample=4)
    page = (tmp_path / "quality.html").read_text()
    assert "<h1>Quality of tstx00117 run 1</h1>" in page
    for said in findings(found):
        assert said in page
    assert found["sampled"].sel(detector="cam") == 4


def test_no_events(run):
    found = psana_dask.quality(run.isel(slice(0)))
    assert found.attrs["events"] == 0
    assert np.isnan(found["present"]).all()
    assert np.isnan(found["off_by"]).all()


def test_stretches_and_shifts():
    assert longest(np.zeros(3, bool)) == 0
    assert longest(np.array([1, 1, 0, 1], bool)) == 2
    assert off_by([1, 1, 0.2, 1, 1, 1, 1]) == -1
    assert np.isnan(off_by([1, 1, 0.9, 1, 1, 1, 1]))

"""Dark runs: known levels come back, gain stages are told apart, memory stays bounded."""

import numpy as np
import pytest

import psana_dask
from psana_dask import simulate
from psana_dask.calib import dark, deploy, gain
from psana_dask.calib.darks import DarkAccumulator, DarkSettings, guarded
from psana_dask.calib.detectors import detector as detector_row
from psana_dask.calib.localstore import LocalStore
from psana_dask.errors import ConstantsError, ConstantsWarning, MissingLibrary, NameNotFound
from psana_dask.simulate import Algorithm, Config, Detector, Field, Missing, RunSpec

EVENTS, PANELS = 60, 2
JUNGFRAU = (1, 32, 64)
LEVELS = (2900, 13500, 13800)  # ADU, of the three gain ranges
CODES = (0, 1, 3)  # in the two highest bits of a word


def noisy(moment, level, shape):
    """A frame of dark noise: level by pixel, sigma 6."""
    pixels = level + 10 * moment.segment + np.arange(shape[-1])
    noise = np.random.default_rng(moment.key % 2**32).normal(0, 6, shape)
    return np.clip(np.round(pixels + noise), 1, 16383).astype(np.uint16)


def jungfrau_frame(moment):
    k = moment.step % 3
    return noisy(moment, LEVELS[k], JUNGFRAU) | np.uint16(CODES[k] << 14)


def epix_frame(moment):
    return noisy(moment, 3000 + 100 * moment.step, (352, 384))


def epix_config(step):
    """Settings of a pedestal scan: FH, FM, FL, then auto ranging from high and from medium."""
    bits = (12, 12, 8, 0, 0)[step % 5]
    return {
        "asicPixelConfig": np.full((4, 176, 192), bits, np.uint8),
        "trbit": np.full(4, (1, 0, 0, 1, 0)[step % 5], np.uint8),
    }


def raw_of(value, shape):
    return (Algorithm("raw", (0, 2, 0), (Field("raw", "u2", shape, value),)),)


@pytest.fixture(scope="module")
def jungfrau(tmp_path_factory):
    detectors = (
        Detector(name="jf", kind="jungfrau", segments=PANELS, algorithms=raw_of(jungfrau_frame, JUNGFRAU)),
        Detector(name="opal", kind="camera", shape=(20, 30),
                 algorithms=raw_of(lambda m: noisy(m, 32, (20, 30)), (20, 30))),
    )
    folder = tmp_path_factory.mktemp("jungfrau")
    missing = (Missing(events=(5,), detector="jf", segment=1),)
    simulate.write(RunSpec(events=EVENTS, detectors=detectors, steps=3, missing=missing, number=7), folder)
    return psana_dask.open(folder)


def levels(k):
    """What a stage should find: the level of each pixel."""
    panels = [LEVELS[k] + 10 * p + np.arange(JUNGFRAU[-1]) for p in range(PANELS)]
    return np.array(panels)[:, None]


def test_each_step_of_a_scan_is_a_gain_range(jungfrau):
    found = dark(jungfrau, "jf")
    assert list(found.names().values()) == ["g0", "g1", "g2"]
    assert found.skipped == 1
    for k, result in found.stages.items():
        assert result.frames == 20 - (k == 0)
        # 20 frames of sigma 6: standard error 1.3; 4 sigma of it over 4096 pixels
        assert np.abs(result.pedestals - levels(k)).max() < 6.5
        assert abs((result.pedestals - levels(k)).mean()) < 0.1
    assert "g1: 20 frames" in repr(found)


def test_it_is_what_the_accumulator_says_of_all_frames(jungfrau):
    found = dark(jungfrau, "jf").stages[1]
    events = np.flatnonzero(jungfrau.events.step.values == 1)
    accumulator = DarkAccumulator(DarkSettings.of(detector_row("jungfrau"), gate_frames=len(events)))
    accumulator.push(jungfrau.jf.raw.values[events])
    wanted = accumulator.result()
    for name in ("pedestals", "rms", "status", "smallest", "largest"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))


def test_panels_in_groups_give_the_same(jungfrau):
    whole, parts = dark(jungfrau, "jf"), dark(jungfrau, "jf", memory=1)
    for k in whole.stages:
        for name in ("pedestals", "rms", "status", "smallest", "largest"):
            np.testing.assert_array_equal(
                getattr(whole.stages[k], name), getattr(parts.stages[k], name), strict=True
            )
        assert whole.stages[k].limits == parts.stages[k].limits


def test_memory_is_bounded(jungfrau, monkeypatch):
    most = []
    original = DarkAccumulator.push

    def measured(self, block):
        original(self, block)
        most.append(self.nbytes + block.nbytes)

    monkeypatch.setattr(DarkAccumulator, "push", measured)
    one_panel = 32 * 64 * (2 * 20 + 35 + 2 * 16)
    dark(jungfrau, "jf", memory=one_panel)
    assert max(most) <= one_panel


def test_a_camera_has_one_stage_whatever_the_steps(jungfrau):
    found = dark(jungfrau, "opal")
    assert list(found.stages) == [0]
    assert found.stages[0].frames == EVENTS
    assert found.constants()["pedestals"].value.shape == (20, 30)


def test_progress_is_told(jungfrau):
    told = []
    dark(jungfrau, "jf", memory=1, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (EVENTS - 1, EVENTS - 1)
    assert [d for d, _ in told] == sorted(d for d, _ in told)


def test_events_and_stages_can_be_chosen(jungfrau):
    some = dark(jungfrau.isel(slice(20, 40)), "jf")
    assert list(some.names().values()) == ["g1"]
    forced = dark(jungfrau.isel(slice(20, 40)), "jf", stage="g2")
    assert list(forced.stages) == [2]
    with pytest.raises(ConstantsError, match="no gain range 'FH'; there are: g0, g1, g2"):
        dark(jungfrau, "jf", stage="FH")


def test_several_runs_make_one_dark(jungfrau):
    runs = [jungfrau.isel(slice(20 * k, 20 * k + 20)) for k in range(3)]
    one, many = dark(jungfrau, "jf"), dark(runs, "jf")
    for k in one.stages:
        np.testing.assert_array_equal(one.stages[k].pedestals, many.stages[k].pedestals)


def test_missing_ranges_are_an_error_or_taken_from_elsewhere(jungfrau, tmp_path):
    part = dark(jungfrau.isel(slice(0, 20)), "jf")
    with pytest.raises(ConstantsError, match="gain range g1 of Jungfrau was not measured"):
        part.constants()
    assert not part.constants("neutral")["pedestals"].value[1:].any()
    deploy(dark(jungfrau, "jf"), tmp_path, runs=1)
    again = dark(jungfrau.isel(slice(0, 20)), "jf", against=tmp_path)
    filled = again.constants("in force")["pedestals"].value
    np.testing.assert_array_equal(filled[1], dark(jungfrau, "jf").constants()["pedestals"].value[1])
    np.testing.assert_array_equal(filled[0], part.stages[0].pedestals.astype(np.float32))
    with pytest.raises(ValueError, match="missing='zero'"):
        part.constants("zero")


def test_errors_say_what_is_wrong(jungfrau):
    with pytest.raises(NameNotFound, match="jf"):
        dark(jungfrau, "jff")
    with pytest.raises(ConstantsError, match=r"two frames or more of jf, there are 1"):
        dark(jungfrau.isel([0]), "jf")
    with pytest.raises(ConstantsError, match="no event has all panels"):
        dark(jungfrau.isel([5]), "jf")


def test_a_deployed_dark_calibrates_the_run_to_zero(jungfrau, tmp_path):
    found = dark(jungfrau, "jf")
    trial = deploy(found, tmp_path / "calib", runs=7, dry_run=True)
    assert not (tmp_path / "calib").exists()
    assert {d.difference.note for d in trial} == {"none before"}
    done = deploy(found, tmp_path / "calib", runs="7-end", comment="dark scan")
    assert [d.path.name for d in done] == ["7-end.data"] * 5
    store = LocalStore(tmp_path / "calib")
    assert store.history("jf", "pedestals")[0].comment == "dark scan"
    frames = psana_dask.open(jungfrau.files[0].rpartition("/")[0], calib=tmp_path / "calib").jf.calib.values
    good = found.stages[0].status == 0
    assert abs(np.nanmean(frames[:20, :, :, :][:, good])) < 0.2  # mean over the dark that made it
    again = deploy(found, store, runs=9, dry_run=True)
    assert all(d.difference.changed == 0 for d in again)


def test_deploy_checks_all_before_it_writes_one(tmp_path):
    bad = {"pedestals": np.ones((32, 185, 388)), "pixel_status": np.ones((2, 3), np.uint16)}
    with pytest.raises(ConstantsError, match=r"6 values of pixel_status, XppGon\.0:Cspad\.0 needs 2296960"):
        deploy(bad, tmp_path, "XppGon.0:Cspad.0", 3)
    assert not list(tmp_path.rglob("*.data"))


@pytest.mark.parametrize(("arguments", "message"), [
    ({"runs": 3}, "say which detector"), ({"detector": "opal"}, "say for which runs"),
    ({"detector": "opal", "runs": "3-x"}, "write 10, 10-20 or 10-end"),
    ({"detector": "opal", "runs": (9, 3)}, "begins"),
    ({"detector": "opal", "runs": 3, "kinds": ["pixel_rms"]}, "no pixel_rms to deploy, only pedestals"),
])
def test_deploy_says_what_it_needs(tmp_path, arguments, message):
    with pytest.raises(ConstantsError, match=message):
        deploy({"pedestals": np.ones((2, 3))}, tmp_path, **arguments)


def test_an_epix10ka_scan_is_told_apart_by_its_settings(tmp_path):
    settings = Config(values=lambda segment: epix_config(0), begin_step=epix_config)
    detector = Detector(name="epix", kind="epix10ka", segments=1, config=settings,
                        algorithms=raw_of(epix_frame, (352, 384)))
    simulate.write(RunSpec(events=20, detectors=(detector,), steps=5), tmp_path)
    run = psana_dask.open(tmp_path)
    found = dark(run, "epix")
    assert list(found.names().values()) == ["FH", "FM", "FL", "AHL-H", "AML-M"]
    frames = run.epix.raw.values[:4]
    accumulator = DarkAccumulator(DarkSettings.of(detector_row("epix10ka"), gate_frames=4))
    accumulator.push(frames)
    wanted = guarded(accumulator.result().pedestals, accumulator.state()[1])
    np.testing.assert_array_equal(found.stages[0].pedestals, wanted)
    assert found.constants("neutral")["pedestals"].value.shape == (7, 1, 352, 384)
    for step, number in ((0, 0), (2, 2), (3, 3)):  # settings are those of the events
        one = run.isel(slice(4 * step, 4 * step + 4)).epix
        assert set(np.unique(one.gain_range.values)) == {number}
    with pytest.warns(ConstantsWarning, match="gain ranges change within these events"):
        run.epix.gain_range  # noqa: B018
    deploy(found.constants("neutral"), tmp_path / "calib", runs=1)
    again = dark(run.isel(slice(4, 8)), "epix", against=tmp_path / "calib").constants("in force")
    np.testing.assert_array_equal(again["pedestals"].value, found.constants("neutral")["pedestals"].value)


def test_darks_of_lcls1_lie_where_psana_looks(tmp_path):
    detectors = (Detector(name="front", kind="epix100a"),)
    simulate.write(RunSpec(events=3, detectors=detectors, format="xtc", number=5), tmp_path / "xtc")
    run = psana_dask.open(tmp_path / "xtc")
    found = dark(run, "front")
    assert found.stages[0].frames == 3
    [done] = deploy(found, tmp_path / "calib", kinds=["pedestals"])
    assert str(done.path).endswith("calib/Epix100a::CalibV1/XppGon.0:Epix100a.0/pedestals/5-end.data")
    again = psana_dask.open(tmp_path / "xtc").front
    np.testing.assert_array_equal(again.pedestals.values, found.constants()["pedestals"].value)


def test_mixed_ranges_are_refused(tmp_path):
    def mixed(moment):
        codes = np.random.default_rng(0).choice(np.array([0, 1, 3], np.uint16), JUNGFRAU)
        return noisy(moment, 3000, JUNGFRAU) | codes << np.uint16(14)

    detector = Detector(name="jf", kind="jungfrau", segments=1, algorithms=raw_of(mixed, JUNGFRAU))
    simulate.write(RunSpec(events=4, detectors=(detector,)), tmp_path)
    with pytest.raises(ConstantsError, match=r"no gain range has half of the pixels.*give stage="):
        dark(psana_dask.open(tmp_path), "jf")


def test_the_report_is_a_picture(jungfrau, tmp_path):
    pytest.importorskip("matplotlib")
    dark(jungfrau, "jf").report(tmp_path / "dark.png")
    data = (tmp_path / "dark.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    width, height = int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
    assert width > 1500
    assert height > 900  # three gain stages


def test_without_matplotlib_the_error_is_the_command(jungfrau, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(MissingLibrary, match="pip install"):
        dark(jungfrau, "opal").report(tmp_path / "dark.png")


def test_gain_ranges_of_every_step_are_those_of_the_words(jungfrau):
    found = jungfrau.jf.gain_range
    assert found.attrs["flag_meanings"] == "none g0 g1 g2"
    words = jungfrau.jf.raw.values
    wanted = gain.gain_range(words, detector_row("jungfrau").decoding)
    wanted[5, 1] = -1  # the panel that is missing
    np.testing.assert_array_equal(found.values, wanted)
    np.testing.assert_array_equal(found[5:25, 1, 3:9].values, wanted[5:25, 1, 3:9])

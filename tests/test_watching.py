"""Watching an experiment: what is made of runs as they appear, what is dark, and what never happens."""

import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

import psana_dask
from psana_dask import dark_runs, simulate, watching
from psana_dask.calib import dark
from psana_dask.calib.localstore import LocalStore
from psana_dask.cli import main
from psana_dask.dark_rules import DarkRun, cameras, dark_groups, said_by_rule, said_by_scan
from psana_dask.errors import ConstantsError, PsanaWarning
from psana_dask.simulate import Algorithm, Detector, Field, RunSpec, Scan
from psana_dask.watching import Watch, WatchSettings

JUNGFRAU = (1, 16, 32)
GMD = Detector(name="gmd", kind="gmd")


def jungfrau(ranges):
    """A Jungfrau whose steps measure the given gain ranges, and its neighbour that is no camera."""

    def frame(moment):
        k = ranges[moment.step % len(ranges)]
        noise = np.random.default_rng(moment.key % 2**32).normal(0, 6, JUNGFRAU)
        return (3000 + np.round(noise)).astype(np.uint16) | np.uint16((0, 1, 3)[k] << 14)

    raw = Algorithm("raw", (0, 2, 0), (Field("raw", "u2", JUNGFRAU, frame),))
    return Detector(name="jf", kind="jungfrau", algorithms=(raw,))


CAM = Detector(name="opal", kind="camera", shape=(6, 8))
PEDESTAL = Scan(detname="jf_0", scantype="pedestal")


def write(folder, number, **spec):
    given = {"events": 12, "detectors": (GMD, CAM), "start": f"2024-06-14T0{number}:00:00", **spec}
    simulate.write(RunSpec(number=number, **given), folder)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Run 5 is a pedestal scan of three gain ranges, 6 and 8 are plain, 7 is damaged."""
    where = tmp_path_factory.mktemp("watched") / "xtc"
    write(where, 5, events=24, steps=3, scan=PEDESTAL, detectors=(GMD, jungfrau((0, 1, 2)), CAM))
    for number in (6, 7, 8):
        write(where, number)
    data_file(where, 7).write_bytes(bytes(300))
    return where


def data_file(folder, run):
    return next(folder.glob(f"*-r{run:04}-s*"))


@pytest.fixture
def data(written, tmp_path):
    return shutil.copytree(written, tmp_path / "xtc")


@pytest.fixture
def watch(data, tmp_path, monkeypatch, request):
    """Make a watch of the data; `.said` collects its lines. Pictures are drawn where a test looks at them."""
    if request.function is not test_pages_and_proposals:
        monkeypatch.setattr(dark_runs.Dark, "report", lambda self, path: path.write_bytes(b""))

    def made(**settings):
        said = []
        given = {"settle": 0.0, "sample": 4, **settings}
        found = Watch("tstx00117", data, WatchSettings(tmp_path / "out", **given), said.append)
        found.said = said
        return found

    return made


# ---- which runs are dark ------------------------------------------------------------------------
def test_the_scan_of_a_run_says_that_it_is_dark(written):
    found = said_by_scan(psana_dask.open(written, 5))
    assert found == DarkRun(("jf",), "its scan says pedestal of jf_0")
    assert said_by_scan(psana_dask.open(written, 6)) is None


@pytest.mark.parametrize(
    "scan",
    [Scan(), Scan(docstring=False, detname="jf", scantype="pedestal"), Scan(detname="jf", scantype="timing")],
)
def test_other_scans_are_not_dark(tmp_path, scan):
    write(tmp_path, 1, steps=2, scan=scan, detectors=(jungfrau((0,)),))
    assert said_by_scan(psana_dask.open(tmp_path)) is None


def test_a_pedestal_scan_of_an_unknown_detector_is_said(tmp_path):
    write(tmp_path, 1, scan=Scan(detname="epixquad_0", scantype="pedestal"))
    with pytest.raises(
        ConstantsError, match=r"'epixquad_0', but there is no such detector; there are gmd, opal"
    ):
        said_by_scan(psana_dask.open(tmp_path))


def test_rules_of_the_user(written):
    run = psana_dask.open(written, 5)
    assert said_by_rule(run, lambda run: None) is None
    assert said_by_rule(run, lambda run: False) is None
    assert said_by_rule(run, lambda run: []) is None
    assert said_by_rule(run, lambda run: run.number == 5).detectors == ()
    assert said_by_rule(run, lambda run: "jf").detectors == ("jf",)
    assert said_by_rule(run, lambda run: ["jf", "opal"]).detectors == ("jf", "opal")
    with pytest.raises(ConstantsError, match="True, False, or names"):
        said_by_rule(run, lambda run: 3)
    assert cameras(run) == ["jf", "opal"]
    assert cameras(run, ("opal",)) == ["opal"]


def test_names_of_dark_runs():
    assert dark_groups(" 3, 5 - 6,8+9 + 10") == ((3,), (5,), (6,), (8, 9, 10))
    for wrong in ("", "a", "5-", "5+", "5,,6", "-3"):
        with pytest.raises(ValueError, match="name dark runs as"):
            dark_groups(wrong)


# ---- what is made -------------------------------------------------------------------------------
def test_pages_and_proposals(watch, data, tmp_path):
    seen = watch()
    assert seen.look() == 4
    out = tmp_path / "out"
    assert sorted(p.name for p in (out / "quality").iterdir()) == [
        f"tstx00117-r000{n}.html" for n in (5, 6, 8)
    ]
    page = (out / "index.html").read_text()
    assert "href='quality/tstx00117-r0006.html'" in page
    assert "r0007-s000-c000.xtc2 is neither XTC2 nor XTC" in page
    assert "psana-dask dark tstx00117 jf --run 5 --dir" in page
    known = dark(psana_dask.open(data, 5), "jf").constants()
    store = LocalStore(out / "proposals")
    assert store.detectors() == ["jf"]
    for kind in ("pedestals", "pixel_rms", "pixel_status"):
        lookup = store.find("jf", kind, 6)
        # text files of constants have three decimals
        np.testing.assert_allclose(lookup.found().value, known[kind].value, atol=6e-4)
        assert store.history("jf", kind)[0].comment.startswith("proposed by psana-dask watch")
    assert (out / "darks" / "tstx00117-r0005_jf.png").stat().st_size > 1000
    assert not (data.parent / "calib").exists()  # nothing is put in force
    assert "pedestals" not in psana_dask.open(data, 6).opal.constants


def test_only_what_is_new_is_worked_on(watch, data, tmp_path):
    assert watch().look() == 4
    assert watch().look() == 0
    write(data, 9)
    again = watch()
    assert again.look() == 1
    assert any("5 runs" in line for line in again.said)
    assert psana_dask.open_runs(data, [9]).numbers == [9]
    named = watch(dark_runs=((6,),), detectors=("opal",))  # what the user says of run 6 is new
    assert named.look() == 1
    assert set(LocalStore(tmp_path / "out/proposals").detectors()) == {"jf", "opal"}


def test_a_run_that_is_being_written_waits(watch, data, tmp_path):
    path = data_file(data, 6)
    path.rename(path.with_name(path.name + ".inprogress"))
    first = watch(settle=1000.0)
    assert first.look() == 0
    assert (tmp_path / "out/index.html").read_text().count("is still being written") == 4
    assert watch().look() == 3
    assert (tmp_path / "out/index.html").read_text().count("is still being written") == 1


def test_an_interrupted_watch_goes_on_where_it_was(watch, monkeypatch, tmp_path):
    whole = watching.quality

    def interrupted(run, **options):
        if run.number == 6:
            raise KeyboardInterrupt
        return whole(run, **options)

    monkeypatch.setattr(watching, "quality", interrupted)
    with pytest.raises(KeyboardInterrupt):
        watch().look()
    monkeypatch.setattr(watching, "quality", whole)
    assert watch().look() == 3
    assert set(json.loads((tmp_path / "out/state.json").read_text())["done"]) == {
        f"tstx00117-r000{n}" for n in range(5, 9)
    }


def test_a_file_that_cannot_be_read_is_tried_again(watch, monkeypatch):
    def failing(run, **options):
        raise OSError("the disk is away")

    monkeypatch.setattr(watching, "quality", failing)
    seen = watch()
    assert [seen.look() for _ in range(4)] == [4, 3, 3, 0]  # run 7 is damaged: that does not change
    assert "run 8: cannot be read: the disk is away" in seen.said


def test_several_runs_are_one_dark(watch, data, tmp_path):
    for number, gain_range in ((1, 0), (2, 1)):
        write(data, number, events=8, detectors=(jungfrau((gain_range,)),))
    seen = watch(dark_runs=((1, 2, 3),))
    seen.look()
    assert not [line for line in seen.said if line.startswith("runs 1+2+3")]
    write(data, 3, events=8, detectors=(jungfrau((2,)),))
    assert seen.look() == 2  # the run, and the dark
    lookup = LocalStore(tmp_path / "out/proposals").find("jf", "pedestals", 1)
    assert lookup.found().value.shape[0] == 3
    alone = watch(dark_runs=((1,),), detectors=("jf",))
    alone.look()
    assert any("no dark of jf" in line for line in alone.said)  # two ranges are missing


def test_proposals_are_never_where_constants_are_in_force(watch, monkeypatch, tmp_path):
    monkeypatch.setenv("PSANA_DASK_CALIB", str(tmp_path / "out/proposals"))
    seen = watch()
    seen.look()
    assert any("is in force for run 5: proposals belong in another folder" in line for line in seen.said)
    assert not (tmp_path / "out/proposals").exists()


def test_one_watch_a_folder(watch, tmp_path):
    with watching._alone(tmp_path / "out"), pytest.raises(ValueError, match="another watch is writing into"):
        watch().look()


def test_a_broken_state_is_said_and_begun_anew(watch, tmp_path):
    watch().look()
    (tmp_path / "out/state.json").write_text('{"done": [')
    with pytest.warns(PsanaWarning, match=r"state.json is not readable: everything is done again"):
        assert watch().look() == 4


# ---- the command --------------------------------------------------------------------------------
def test_the_command(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dark_runs.Dark, "report", lambda self, path: path.write_bytes(b""))
    call = ["watch", "tstx00117", "--dir", str(data), "--settle", "0", "--sample", "4"]
    once = CliRunner().invoke(main, [*call, "--once", "-o", "here"])
    assert once.exit_code == 0, once.output
    assert "run 5: dark of jf, as its scan says pedestal of jf_0" in once.output
    assert (tmp_path / "here/index.html").exists()

    def interrupted(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(watching.time, "sleep", interrupted)
    stopped = CliRunner().invoke(main, [*call, "--every", "1"])
    assert stopped.exit_code == 130
    assert "stopped: started again, it goes on where it was" in stopped.output
    assert (tmp_path / "tstx00117-watch/index.html").exists()


def test_an_experiment_without_runs_yet(tmp_path):
    (tmp_path / "xtc").mkdir()
    said = []
    Watch("tstx00117", tmp_path / "xtc", WatchSettings(tmp_path / "out"), said.append).look()
    assert "No constants are proposed." in (tmp_path / "out/index.html").read_text()


def test_a_folder_of_two_experiments(tmp_path):
    for name in ("tstx00117", "xppl00118"):
        write(tmp_path / "xtc", 5, experiment=name)
    seen = Watch(tmp_path / "xtc", None, WatchSettings(tmp_path / "out", settle=0.0, sample=0), print)
    assert (seen.look(), seen.look()) == (2, 0)
    page = (tmp_path / "out/index.html").read_text()
    assert "href='quality/tstx00117-r0005.html'" in page
    assert "href='quality/xppl00118-r0005.html'" in page

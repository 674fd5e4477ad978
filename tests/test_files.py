"""Every way to name a run, and what is said about wrong ones."""

import shutil

import pytest

import psana_dask
from psana_dask import simulate
from psana_dask.errors import AmbiguousRun, RunNotFound, UnknownFormat
from psana_dask.files import find_run, group_runs, parse_data_set, smd_file
from psana_dask.simulate import Detector, RunSpec

EXPERIMENT = "tstx00117"
TWO = (Detector(name="gmd", kind="gmd"), Detector(name="cam", kind="camera", stream=1, shape=(4, 6)))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """<root>/tst/tstx00117/xtc with runs 3 (two parts) and 12; both have small-data files."""
    root = tmp_path_factory.mktemp("site")
    folder = root / "tst" / EXPERIMENT / "xtc"
    simulate.write(RunSpec(experiment=EXPERIMENT, number=3, events=6, detectors=TWO, cuts={1: (4,)}), folder)
    simulate.write(RunSpec(experiment=EXPERIMENT, number=12, events=5, detectors=TWO), folder)
    return root


@pytest.fixture
def folder(site, monkeypatch):
    monkeypatch.setenv("SIT_PSDM_DATA", str(site))
    return site / "tst" / EXPERIMENT / "xtc"


WAYS = {
    "commas": lambda f: (f"exp={EXPERIMENT},run=3,dir={f}", {}),
    "colons": lambda f: (f"exp={EXPERIMENT}:run=3:dir={f}", {}),
    "mode words": lambda f: (f"exp={EXPERIMENT}:run=3:smd:dir={f}:idx", {}),
    "instrument": lambda f: (f"exp=tst/{EXPERIMENT}:run=3", {}),
    "the site's folder": lambda f: (f"exp={EXPERIMENT}:run=3", {}),
    "run with r": lambda f: (f"exp={EXPERIMENT}:run=r0003", {}),
    "run as a number": lambda f: (f"exp={EXPERIMENT}", {"run": 3}),
    "experiment": lambda f: (EXPERIMENT, {"run": 3}),
    "experiment and folder": lambda f: (EXPERIMENT, {"run": 3, "dir": f}),
    "dir is text": lambda f: (f"exp={EXPERIMENT}:run=3", {"dir": str(f)}),
    "folder": lambda f: (f, {"run": 3}),
    "folder above": lambda f: (f.parent, {"run": 3}),
    "glob": lambda f: (f"{f}/*-r0003-*.xtc2", {}),
    "list": lambda f: (sorted(f.glob("*-r0003-*.xtc2")), {}),
    "list of text": lambda f: (sorted(map(str, f.glob("*-r0003-*.xtc2"))), {}),
    "files twice": lambda f: (2 * sorted(f.glob("*-r0003-*.xtc2")), {}),
    "list and run": lambda f: (sorted(f.glob("*.xtc2")), {"run": 3}),
    "without later parts": lambda f: (sorted(f.glob("*-r0003-*-c000.xtc2")), {}),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_run_has_many_names(folder, way):
    source, options = way(folder)
    run = psana_dask.open(source, **options)
    names = [f"{EXPERIMENT}-r0003-{s}.xtc2" for s in ("s000-c000", "s001-c000", "s001-c001")]
    assert (run.experiment, run.number, len(run)) == (EXPERIMENT, 3, 6)
    assert run.files == [str(folder / name) for name in names]
    assert run.cam.raw[-1].shape == (4, 6)


@pytest.mark.parametrize("kind", [str, lambda p: p])
def test_one_file_is_a_run(folder, kind):
    run = psana_dask.open(kind(folder / f"{EXPERIMENT}-r0012-s001-c000.xtc2"))
    assert (run.number, list(run.detectors), len(run)) == (12, ["cam"], 5)


def test_streams_may_be_chosen(folder):
    runs = [
        psana_dask.open(f"exp={EXPERIMENT}:run=12:stream=1"),
        psana_dask.open(f"exp={EXPERIMENT},run=12,stream=1-1"),
        psana_dask.open(EXPERIMENT, 12, streams=[1]),
    ]
    assert [list(r.detectors) for r in runs] == [["cam"]] * 3
    assert list(psana_dask.open(EXPERIMENT, 12, streams=(0, 1)).detectors) == ["cam", "gmd"]


def test_a_folder_with_several_runs(folder):
    with pytest.raises(AmbiguousRun, match=r"several runs \(tstx00117 run 3, tstx00117 run 12\): say run="):
        psana_dask.open(folder)
    assert [r.number for r in psana_dask.open_runs(folder)] == [3, 12]
    assert [len(r) for r in psana_dask.open_runs(EXPERIMENT, [12])] == [5]
    table = psana_dask.list_runs(EXPERIMENT)
    assert table[["run", "streams", "files"]].to_numpy().tolist() == [[3, 2, 3], [12, 2, 2]]
    assert table["bytes"][0] == sum(p.stat().st_size for p in folder.glob("*-r0003-*.xtc2"))


@pytest.mark.parametrize("naming", ["s000-c000", "s00-c00", "s00"])
@pytest.mark.parametrize("in_progress", [False, True])
@pytest.mark.parametrize("smalldata", ["offline", "daq", None])
def test_old_and_new_file_names(tmp_path, naming, in_progress, smalldata):
    spec = RunSpec(
        events=9, detectors=TWO, naming=naming, in_progress=in_progress, smalldata=smalldata, cuts={1: (3, 7)}
    )
    truth = simulate.write(spec, tmp_path)
    streams = find_run(tmp_path).streams
    assert [s.parts for s in streams] == [tuple(map(str, truth.streams[k])) for k in (0, 1)]
    assert [s.smd for s in streams] == [str(truth.smd_files[k]) if smalldata else None for k in (0, 1)]
    run = psana_dask.open(tmp_path)
    assert run.events.timestamp.values.tolist() == truth.timestamps.tolist()


def test_a_part_with_another_name_is_found_by_the_part_before_it(tmp_path):
    names = {(1, 1): "data-r0001-s000-c001.xtc2", (1, 2): "more-r0099-s009-c002.xtc2"}
    spec = RunSpec(events=9, detectors=TWO, cuts={1: (3, 7)}, part_names=names)
    truth = simulate.write(spec, tmp_path)
    for source in (tmp_path, f"{tmp_path}/tstx*", [truth.streams[k][0] for k in (0, 1)]):
        run = psana_dask.open(source)
        assert run.files == [str(p) for p in truth.files]
        assert bool(run.cam.present.all())


def test_the_finished_file_counts_where_both_are_listed(tmp_path):
    truth = simulate.write(RunSpec(events=2, detectors=TWO[:1], smalldata=None), tmp_path)
    shutil.copy(truth.files[0], f"{truth.files[0]}.inprogress")
    assert find_run(tmp_path).paths == (str(truth.files[0]),)


def test_files_with_any_name_are_streams_of_one_run(tmp_path):
    truth = simulate.write(RunSpec(events=4, detectors=TWO, smalldata=None), tmp_path)
    places = [tmp_path / "b.xtc2", tmp_path / "a.xtc2"]
    for path, place in zip(truth.files, places, strict=True):
        path.rename(place)
    run = psana_dask.open(places)
    assert (run.number, run.experiment, sorted(run.detectors)) == (1, EXPERIMENT, ["cam", "gmd"])
    assert find_run(tmp_path).paths == (str(places[1]), str(places[0]))


def test_a_file_with_several_runs(tmp_path):
    specs = [
        RunSpec(number=5, events=4, detectors=TWO),
        RunSpec(number=6, events=3, detectors=TWO, configure=False, start="2024-06-14T07:00:00"),
        RunSpec(number=9, events=2, detectors=TWO, start="2024-06-14T08:00:00"),
    ]
    truths = simulate.write_runs(specs, tmp_path)
    with pytest.raises(AmbiguousRun, match="holds runs 5, 6, 9: say run=NUMBER"):
        psana_dask.open(tmp_path)
    with pytest.raises(RunNotFound, match=r"no run 7 in .*; its runs are 5, 6, 9"):
        psana_dask.open(tmp_path, run=7)
    runs = psana_dask.open_runs(tmp_path)
    assert [r.number for r in runs] == [5, 6, 9]
    for run, truth in zip(runs, truths, strict=True):
        assert run.events.timestamp.values.tolist() == truth.timestamps.tolist()
        assert len(run.steps) == 1
        assert run.cam.raw[1].values.tolist() == truth.value("cam", "image", 1).tolist()


def test_smalldata_files_are_found_beside_the_data(tmp_path):
    (tmp_path / "smalldata").mkdir()
    for data, smd in {
        "e-r0001-s000-c000.xtc2": "e-r0001-s000-c000.smd.xtc2",
        "e-r0001-s01-c00.xtc": "e-r0001-s01.smd.xtc",
        "e-r0001-s02.xtc2.inprogress": "e-r0001-s02.smd.xtc2.inprogress",
    }.items():
        assert smd_file(str(tmp_path / data)) is None
        (tmp_path / "smalldata" / smd).touch()
        assert smd_file(str(tmp_path / data)) == str(tmp_path / "smalldata" / smd)


def test_a_data_set_string_is_taken_apart():
    found = parse_data_set("exp=xpp/xpptut15:run=54:smd:live:stream=0,2,4-6:dir=/a:b/c,d")
    assert (found.experiment, found.run, found.folder) == ("xpptut15", 54, "/a:b/c,d")
    assert (found.streams, found.modes) == ((0, 2, 4, 5, 6), {"smd", "live"})


WRONG = {
    "exp=xpptut15:runs=54": r"'runs=54' in data set .* means nothing: use exp=, run=",
    "exp=xpptut15:run=5-8": r"run='5-8' is not one run number; open_runs\(\) takes several",
    "exp=xpptut15:run=": r"run='' is not one run number",
    "run=5": r"names no experiment: add exp=NAME",
    "exp=xpptut15:stream=a": r"'a' is not a list of numbers such as 0,2,4-6",
}


@pytest.mark.parametrize(("text", "message"), WRONG.items())
def test_wrong_data_set_strings(text, message):
    with pytest.raises(ValueError, match=message):
        find_run(text)


MISSING = {
    "no folder": ("exp=abcd1234:run=1", r"no folder .*abc/abcd1234/xtc; say dir=FOLDER, or set SIT_PSDM"),
    "no folder of dir": ("exp=abcd1234,dir=/not/there", r"no folder /not/there$"),
    "no run": ("exp=tstx00117:run=4", r"no run 4 in .*; there are runs 3, 12"),
    "no file": ("/not/there.xtc2", r"no file or folder /not/there.xtc2, and no experiment is called so"),
    "no match": ("/not/*.xtc2", r"no XTC or XTC2 file in /not/\*.xtc2"),
}


@pytest.mark.parametrize(("source", "message"), MISSING.values(), ids=MISSING)
def test_runs_that_are_not_there(folder, source, message):
    with pytest.raises(RunNotFound, match=message):
        psana_dask.open(source)


def test_an_empty_folder(tmp_path):
    with pytest.raises(RunNotFound, match=f"no XTC or XTC2 file in {tmp_path}"):
        psana_dask.open(tmp_path)
    with pytest.raises(RunNotFound, match="no XTC or XTC2 file"):
        psana_dask.open([])


def test_what_is_no_run(tmp_path):
    other = tmp_path / "notes.xtc2"
    other.write_text("anything else, but long enough for a header\n" * 10)
    with pytest.raises(UnknownFormat, match=r"notes.xtc2 is neither XTC2 nor XTC"):
        psana_dask.open(other)
    other.write_bytes(b"")
    with pytest.raises(EOFError, match=r"only 0 bytes: not even a datagram header in .*notes.xtc2"):
        psana_dask.open(other)


def test_files_are_grouped_by_their_names():
    names = ["x-y-r0010-s1-c1.xtc", "x-y-r0010-s1-c0.xtc", "x-y-r0010-s0.xtc"]
    names += ["x-y-r0002-s0-c00.xtc2", "z-r0002-s0.xtc2"]
    runs = group_runs(f"/d/{n}" for n in names)
    assert [(r.experiment, r.number) for r in runs] == [("x-y", 2), ("x-y", 10), ("z", 2)]
    assert [s.parts for s in runs[1].streams] == [(f"/d/{names[2]}",), (f"/d/{names[1]}", f"/d/{names[0]}")]


def test_files_of_another_experiment_are_not_taken(site, tmp_path):
    folder = site / "tst" / EXPERIMENT / "xtc"
    for source in (f"exp=tstx00118:run=3:dir={folder}", "tstx00118"):
        with pytest.raises(RunNotFound, match=rf"no file of tstx00118 in .*there are files of {EXPERIMENT}"):
            find_run(source, 3, folder)
    both = tmp_path / "both"
    shutil.copytree(folder, both)
    simulate.write(RunSpec(experiment="tstx00118", number=3, events=2, detectors=TWO), both)
    assert find_run("exp=tstx00118:run=3", folder=both).experiment == "tstx00118"
    assert [r.number for r in psana_dask.open_runs("tstx00118", dir=both)] == [3]
    plain = tmp_path / "plain"
    plain.mkdir()
    shutil.copy(next(folder.glob("*r0003-s001*")), plain / "copied.xtc2")  # a name that says nothing
    assert find_run("exp=tstx00118:run=3", folder=plain).experiment is None


def test_names_of_lcls1_say_a_number_instead_of_an_experiment(tmp_path):
    for name in ("e665-r0054-s00-c00.xtc", "e665-r0054-s01-c00.xtc"):
        (tmp_path / name).write_bytes(b"")
    found = find_run(f"exp=xpptut15:run=54:dir={tmp_path}")
    assert (found.experiment, len(found.paths)) == ("e665", 2)

"""Finding one's way: a wrong name is told the nearest ones, and an experiment's name is enough to begin."""

import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import psana_dask
from psana_dask import psana
from psana_dask.cli import main
from psana_dask.errors import NameNotFound, PsanaWarning, RunNotFound
from psana_dask.simulate import Detector, RunSpec, write

MISSES = {
    "a name of the package": (lambda run: psana_dask.opne, "did you mean open"),
    "a name of a subpackage": (lambda run: psana_dask.analysis.find_peks, "did you mean find_peaks"),
    "a name of the psana face": (lambda run: psana.DataSorce, "did you mean DataSource"),
    "a call of a run": (lambda run: run.serach, "did you mean search"),
    "a detector": (lambda run: run.epixx, "did you mean epix"),
    "a detector by item": (lambda run: run["gdm"], "did you mean gmd"),
    "a detector of the mapping": (lambda run: run.detectors["epixx"], "did you mean epix"),
    "a field": (lambda run: run.epix.rwa, "did you mean raw"),
    "a field by item": (lambda run: run["epix", "rwa"], "did you mean raw"),
    "a call of a detector": (lambda run: run.epix.calibrate, "'calibrated' is near"),
    "an EPICS variable": (lambda run: run.epics["TST:TMEP"], "did you mean TST:TEMP"),
    "settings of a detector": (lambda run: run.config("epixx"), "did you mean epix"),
    "a setting": (lambda run: run.epix.config[2]["asicPixlConfig"], "did you mean asicPixelConfig"),
    "a name of a dataset": (lambda run: run.dataset(["gmd.milliJoules"]), "milliJoulesPerPulse"),
    "a choice of a reduction": (lambda run: run.mean("epix.raw", wieghts=3), "did you mean weights"),
    "a statistic": (lambda run: run.reduce("maen", "gmd"), "did you mean mean"),
    "what to group by": (lambda run: run.mean("gmd", by="setp"), "did you mean step"),
    "a scan variable": (lambda run: run.mean("gmd", by=("deley", [0, 1])), "did you mean delay"),
    "a field in a loop": (lambda run: next(run.loop("epix.rwa")), "did you mean raw"),
    "a detector in a loop": (lambda run: next(iter(run)).epixx, "did you mean epix"),
    "a choice of calibration": (lambda run: run.jf.calibrated(comon_mode=None), "did you mean common_mode"),
    "a part of a mask": (lambda run: run.jf.masked(egdes=1), "did you mean edges"),
    "a choice of open": (lambda run: psana_dask.open(run.files, calb="x"), "did you mean calib"),
    "an option": (lambda run: psana_dask.set_options(cach_dir="x"), "did you mean cache_dir"),
    "an integrating detector": (lambda run: run.group_by_readout("ttt"), "did you mean tt"),
    "a condition as text": (
        lambda run: psana_dask.conditions.events_where(run, "gmdd.energy > 3"),
        "did you mean gmd",
    ),
    "a site": (lambda run: psana_dask.cluster.slurm("s3dff"), "did you mean s3df"),
    "a kind of simulated detector": (
        lambda run: write(RunSpec(detectors=(Detector(name="a", kind="camra"),)), "nowhere"),
        "did you mean camera",
    ),
    "a time": (lambda run: run.sel("2024-06-14T06:13:03"), "the nearest is 2024-06-14T06:12:03"),
}


@pytest.mark.parametrize("what", MISSES)
def test_a_miss_names_what_is_near(what, rich_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call, near = MISSES[what]
    with pytest.raises((AttributeError, NameNotFound, TypeError, ValueError)) as raised:
        call(rich_run)
    assert near in str(raised.value)


def place(run):
    """Return the folder of a run."""
    return str(Path(run.files[0]).parent)


def one_stream(run, name):
    with psana_dask.open_stream(place(run)) as stream:
        return next(stream.reduce("mean", name))


TAKE_NAMES = {
    "mean": lambda run, name: run.mean(name),
    "sum": lambda run, name: run.sum(name),
    "var": lambda run, name: run.var(name),
    "std": lambda run, name: run.std(name),
    "min": lambda run, name: run.min(name),
    "max": lambda run, name: run.max(name),
    "count": lambda run, name: run.count(name),
    "reduce": lambda run, name: run.reduce("mean", name),
    "psana_dask.reduce": lambda run, name: psana_dask.reduce(run, "mean", name),
    "map": lambda run, name: run.map(lambda events: events, name),
    "loop": lambda run, name: next(run.loop(name)),
    "smalldata": lambda run, name: run.smalldata(lambda event: {}, "x.h5", names=name),
    "dataset": lambda run, name: run.dataset(name),
    "dataframe": lambda run, name: run.dataframe(name),
    "follow": lambda run, name: next(run.follow(name)),
    "export": lambda run, name: run.export("x.zarr", [name]),
    "export to NeXus": lambda run, name: run.export("x.nxs", name, photon_energy=9000.0, distance=0.1),
    "export to Parquet": lambda run, name: run.export("x.parquet", [name]),
    "export for CrystFEL": lambda run, name: run.export_crystfel("x", name),
    "to_virtual_zarr": lambda run, name: run.to_virtual_zarr("x.json", name),
    "readouts": lambda run, name: run.group_by_readout("tt").mean(name),
    "several runs": lambda run, name: psana_dask.open_runs(place(run)).mean(name),
    "a condition as text": lambda run, name: psana_dask.conditions.events_where(run, f"{name} > 3"),
    "bins": lambda run, name: run.mean("gmd", by=(name, [0, 1])),
    "weights": lambda run, name: run.mean("gmd", weights=name),
    "profile_of": lambda run, name: run.mean(psana_dask.analysis.photons_of(name, adu=30)),
    "a stream": one_stream,
    "live plots": lambda run, name: psana_dask.plot.live(run, [name]),
    "show": lambda run, name: command_says("show", place(run), name),
    "monitor": lambda run, name: command_says("monitor", place(run), name),
    "psana-dask export": lambda run, name: command_says("export", place(run), name, "-o", "x.zarr"),
    "search": lambda run, name: ", ".join(run.search(name)),
    "item": lambda run, name: run[name.partition(".")[0]][name.partition(".")[2]],
}
"""Every call that takes names of detectors and fields."""


def command_says(*arguments):
    done = CliRunner().invoke(main, [str(a) for a in arguments])
    assert done.exit_code == 1, done.output
    raise ValueError(done.output)


@pytest.mark.parametrize(("name", "near"), [("epixx.raw", "epix"), ("epix.rwa", "raw")])
@pytest.mark.parametrize("call", TAKE_NAMES)
def test_a_wrong_detector_or_field_is_told_what_is_near(call, name, near, rich_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if call == "search":
        assert f"epix.{near}" in TAKE_NAMES[call](rich_run, name) or near == "epix"
        return
    with pytest.raises((NameNotFound, ValueError, KeyError)) as raised:
        TAKE_NAMES[call](rich_run, name)
    assert re.search(rf"did you mean .*\b{near}\b", str(raised.value)), raised.value


@pytest.mark.parametrize(
    "call", ["mean", "reduce", "map", "loop", "smalldata", "export", "a stream", "show", "monitor"]
)
def test_what_is_made_of_pixels_is_near_too(call, rich_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((NameNotFound, ValueError), match=r"did you mean .*\bcalib\b"):
        TAKE_NAMES[call](rich_run, "epix.claib")


def test_what_is_no_field_says_where_it_is(rich_run):
    with pytest.raises(NameNotFound, match=r"made of one: use run\.epix\.calib"):
        rich_run.dataset("epix.calib")
    with pytest.raises(TypeError, match="events_where"):
        rich_run.mean("gmd", mask="gmd.energy > 3")
    with pytest.raises(ValueError, match="events_where"):
        rich_run.select("gmd.energy > 3")
    with pytest.raises(TypeError, match="codes are numbers"):
        rich_run.evr.has("laser")
    with pytest.raises(TypeError, match=r"run\.follow"):
        psana_dask.open_stream(rich_run)


def test_a_kind_of_constant_that_nobody_reads_is_told(tmp_path):
    with pytest.warns(PsanaWarning, match="did you mean pedestals"):
        psana_dask.calib.deploy({"pedestal": np.zeros(3)}, tmp_path, "jf", 1)


def test_search(rich_run):
    assert rich_run.search("temp") == ["temperature", "TST:TEMP"]
    assert rich_run.search("MILLI") == ["gmd.milliJoulesPerPulse", "gmd.milliJoulesAverage"]
    assert "temperature" in rich_run.search("tempreature")  # nothing contains it: what is spelled like it
    assert rich_run.search("xyzzy plugh") == []


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Where two experiments are, one with the runs 3 and 4."""
    place = tmp_path_factory.mktemp("root")
    cam = Detector(name="cam", kind="camera", shape=(8, 12))
    for experiment, number in (("tstx00117", 3), ("tstx00117", 4), ("tstl00217", 1)):
        spec = RunSpec(experiment=experiment, number=number, events=5, detectors=(cam,))
        write(spec, place / "tst" / experiment / "xtc")
    return place


def command(root, *arguments):
    with psana_dask.set_options(data_root=root):
        return CliRunner().invoke(main, arguments)


def test_who_knows_only_the_experiment(root):
    with psana_dask.set_options(data_root=root):
        assert psana_dask.list_runs("tstx00117").run.tolist() == [3, 4]
        with pytest.raises(ValueError, match=r"3.*4") as several:
            psana_dask.open("tstx00117")
        assert "run=" in str(several.value)
        with pytest.raises(RunNotFound, match="tstx00117"):
            psana_dask.open("tstx00171", run=3)
        with pytest.raises(RunNotFound, match="there are runs 3, 4"):
            psana_dask.open("tstx00117", run=5)
        assert psana_dask.open("tstl00217").number == 1


def test_commands_for_who_knows_only_the_experiment(root):
    listed = command(root, "ls", "tstx00117")
    assert listed.exit_code == 0, listed.output
    assert [line.split()[1] for line in listed.output.splitlines()[1:]] == ["3", "4"]
    said = command(root, "info", "tstx00117", "--run", "4")
    assert "tstx00117 run 4: 5 events" in said.output
    several = command(root, "info", "tstx00117")
    assert several.exit_code == 1
    assert "3" in several.output
    assert "4" in several.output
    wrong = command(root, "inof", "tstx00117")
    assert wrong.exit_code == 2
    assert "did you mean info" in wrong.output

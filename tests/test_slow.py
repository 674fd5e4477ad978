"""Slow data as step functions of time: EPICS, scan steps, configurations."""

import pickle

import numpy as np
import pytest

import psana_dask
from psana_dask import simulate
from psana_dask.errors import NameNotFound
from psana_dask.settings import Config as Settings
from psana_dask.settings import EnumValue
from psana_dask.simulate import PV, Choice, Config, Detector, Enum, Epics, RunSpec, Scan, corrupt
from psana_dask.simulate.describe import unpacked

GMD = Detector(name="gmd", kind="gmd")
VALVE = Enum("valveEnum", {"CLOSED": 0, "OPEN": 1, "MOVING": 7})
KINDS = (
    PV("f8", lambda m: m.event / 3, address="TST:F8"),
    PV("f4", lambda m: m.event / 4, "f4"),
    PV("i4", lambda m: -m.event, "i4"),
    PV("u1", lambda m: m.event, "u1"),
    PV("word", lambda m: f"n{m.event}", "str", address="TST:WORD"),
    PV("valve", lambda m: (0, 1, 7)[m.event % 3], "enum", VALVE),
    PV("slash/name", 5.0, address="TST:SLASH"),
)


def opened(folder, **changes):
    truth = simulate.write(RunSpec(**{"detectors": (GMD,), "events": 30, **changes}), folder)
    return truth, psana_dask.open(folder)


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    """Updates before events 4, 11, 18, 25."""
    folder = tmp_path_factory.mktemp("kinds")
    return opened(folder, epics=(Epics(pvs=KINDS),), slow_every=7, slow_offset=4)


BEFORE = {"f8": np.nan, "f4": np.nan, "i4": 0, "u1": 0, "word": "", "valve": -1}


@pytest.mark.parametrize("name", BEFORE)
def test_values_are_those_of_the_last_update(kinds, name):
    truth, run = kinds
    want = truth.epics(name)
    found = run.epics.at()
    assert found[f"{name}_present"].values.tolist() == [w is not None for w in want]
    filled = [BEFORE[name] if w is None else w for w in want]
    np.testing.assert_array_equal(found[name].values, filled)
    assert want[:5] == [None] * 4 + [truth.epics_updates(name)[1][0]]
    assert found[name].dtype == run.epics[name].dtype


def test_values_do_not_depend_on_the_order_of_access(kinds):
    _, run = kinds
    order = np.random.default_rng(0).permutation(30)
    times = run.events.time.values[order]
    one = run.epics.at(times)
    assert one.identical(run.epics.at().isel(time=order))
    assert run.isel(order).epics.at().identical(one)
    for time, value in zip(times.tolist(), one.f8.values, strict=True):
        single = run.epics.at(np.datetime64(time, "ns")).f8.values
        np.testing.assert_array_equal(single, [value])


def test_an_update_holds_from_its_own_time_on(kinds):
    _, run = kinds
    updates = run.epics["f8"]
    for k, time in enumerate(updates.time.values):
        assert run.epics.at(time).f8.values == updates.values[k]
        before = run.epics.at(time - 1)
        assert bool(before.f8_present) == (k > 0)


def test_updates_at_their_own_rate(kinds):
    truth, run = kinds
    for name in BEFORE:
        stamps, values = truth.epics_updates(name)
        series = run.epics[name]
        assert series.values.tolist() == list(values)
        assert series.time.values.astype(np.int64).tolist() == (unpacked(stamps) + 631152000 * 10**9).tolist()


def test_enums_have_names(kinds):
    _, run = kinds
    for array in (run.epics["valve"], run.epics.at()["valve"]):
        assert array.attrs["flag_values"] == [0, 1, 7]
        assert array.attrs["flag_meanings"] == "CLOSED OPEN MOVING"


@pytest.mark.parametrize("name", ["f8", "TST:F8", "slash/name", "slash_name", "TST:SLASH", "valve"])
def test_variables_answer_to_name_and_pv(kinds, name):
    _, run = kinds
    assert name in run.epics
    assert len(run.epics[name]) == 4


def test_a_name_that_is_not_there(kinds):
    _, run = kinds
    assert "TST:F9" not in run.epics
    with pytest.raises(NameNotFound, match=r"no EPICS variable 'TST:F9'; did you mean TST:F8"):
        run.epics["TST:F9"]


def test_what_there_is(kinds):
    _, run = kinds
    assert list(run.epics) == ["f4", "f8", "i4", "slash_name", "u1", "valve", "word"]
    assert run.epics.moved == ["f4", "f8", "i4", "u1", "valve", "word"]
    assert "<EPICS: 7 variables, 6 moved>" in repr(run.epics)
    assert "TST:WORD" in run.epics._ipython_key_completions_()
    assert run.search("slash") == ["slash_name", "TST:SLASH"]


def two_streams(folder):
    early = Epics(pvs=(PV("T", lambda m: 1.5 * m.event), PV("only", lambda m: m.event, "i4")), every=2)
    late = Epics(pvs=(PV("T", lambda m: -1.0 * m.event),), stream=4, every=2, offset=1, segment=1)
    return opened(folder, epics=(early, late), slow_every=5, slow_offset=3)


def test_the_newest_value_of_several_streams_counts(tmp_path):
    truth, run = two_streams(tmp_path)
    found = run.epics.at()
    for name in ("T", "only"):
        want = [np.nan if w is None else w for w in truth.epics(name)]
        np.testing.assert_array_equal(np.where(found[f"{name}_present"], found[name], np.nan), want)
    assert found["T"].values[3:20:5].tolist() == [0.0, -1.0, 3.0, -3.0]


def test_a_variable_of_several_streams_is_a_problem(tmp_path):
    _, run = two_streams(tmp_path)
    assert run.problems["what"].tolist() == ["EPICS T is in streams 0, 4: the newest value counts"]


def test_a_run_without_epics(plain_run):
    assert len(plain_run.epics) == 0
    assert plain_run.epics.at().sizes == {"time": 100}
    with pytest.raises(NameNotFound, match="no EPICS variable 'T'; there are none"):
        plain_run.epics["T"]


# ---- steps --------------------------------------------------------------------------------------
MOTORS = {"x": np.float32([1, 2, 3]), "n": np.array([7, 8, 9], "i4")}


def test_steps_have_times_events_and_scan_values(tmp_path):
    truth, run = opened(tmp_path, steps=(12, 0, 18), scan=Scan(motors=MOTORS, step_value=[10, 20, 30]))
    steps = run.steps
    assert steps.index.name == "step"
    assert steps["events"].tolist() == [12, 0, 18]
    assert steps["x"].tolist() == [1, 2, 3]
    assert steps["n"].tolist() == [7, 8, 9]
    assert steps["step_value"].tolist() == [10, 20, 30]
    assert steps["step_docstring"].tolist() == truth.docstrings
    assert (steps["start"] < steps["stop"]).all()
    assert run.events.step.values.tolist() == truth.step.tolist()


def test_steps_of_a_selection_count_its_events(tmp_path):
    _, run = opened(tmp_path, steps=3)
    assert run.isel(slice(0, None, 7)).steps["events"].tolist() == [2, 1, 2]
    assert len(run.isel([]).steps) == 3


def test_the_scan_as_a_dataset(tmp_path):
    _, run = opened(tmp_path, steps=3, scan=Scan(motors=MOTORS))
    scan = run.scan
    assert scan.sizes == {"step": 3}
    assert scan.n.values.tolist() == [7, 8, 9]
    assert scan.start.dtype == np.dtype("M8[ns]")


@pytest.mark.parametrize("configure", ["cut", "unfinished"])
def test_a_step_without_its_end(tmp_path, configure):
    if configure == "unfinished":
        _, run = opened(tmp_path, steps=3, finished=False)
        missing = [2]
    else:
        truth = simulate.write(RunSpec(events=30, steps=3, detectors=(GMD,), smalldata=None), tmp_path)
        services = truth.datagrams[0]["service"]
        corrupt.drop_datagram(truth.files[0], int(np.flatnonzero(services == 7)[1]))  # EndStep of step 1
        run = psana_dask.open(tmp_path)
        missing = [1]
    assert np.flatnonzero(run.steps["stop"].isna()).tolist() == missing
    assert run.steps["events"].tolist() == [10, 10, 10]
    assert "3 steps" in repr(run)


def test_steps_are_gathered_from_all_streams(tmp_path):
    late = Detector(name="late", kind="gmd", stream=5, every=30, offset=29)
    _, run = opened(tmp_path, steps=3, detectors=(GMD, late), scan=Scan(motors=MOTORS, stream=5))
    assert run.steps["n"].tolist() == [7, 8, 9]


def test_a_run_without_steps(tmp_path):
    _, run = opened(tmp_path)
    assert len(run.steps) == 1  # the DAQ always begins one
    assert list(run.steps.columns) == ["start", "stop", "events"]


# ---- configurations -----------------------------------------------------------------------------
MODE = Enum("modeEnum", {"NORMAL": 0, "HIGH": 1})


def settings(segment):
    return {
        "user.mode": Choice(MODE, segment % 2),
        "user.period": 5e-05,
        "expert.trbit": np.arange(4, dtype="u1"),
        "expert.deep.er": np.int32(segment),
        "name": f"module {segment}",
        "version": np.uint64(539167008),
    }


CONFIG = Config(
    values=settings,
    begin_run={"user.period": 2e-05},
    begin_step=lambda step: {"user.mode": Choice(MODE, step % 2)},
)


@pytest.fixture(scope="module")
def configured(tmp_path_factory):
    box = Detector(name="Box", kind="gmd", segments=(1, 4), config=CONFIG, stream=(0, 1))
    return opened(tmp_path_factory.mktemp("config"), detectors=(box,), steps=3)


def test_settings_nest(configured):
    _, run = configured
    config = run.config("box")
    assert sorted(config.segments) == [1, 4]
    one = config[1]
    assert (one.name, one.expert.deep.er, one["expert.deep.er"]) == ("module 1", 1, 1)
    assert one.expert.trbit.tolist() == [0, 1, 2, 3]
    assert "expert.trbit" in one
    assert config[4].name == "module 4"
    assert config.name == "module 1"  # of the first segment


@pytest.mark.parametrize("step", [0, 1, 2])
def test_settings_follow_their_updates(configured, step):
    truth, run = configured
    time = run.events.time.values[10 * step + 5]
    for segment in (1, 4):
        found = run.config("Box", time)[segment].to_dict()
        want = truth.config("Box", segment, step=step)
        assert found.keys() == want.keys()
        for name, value in want.items():
            np.testing.assert_array_equal(found[name], value)


def test_settings_before_any_update_and_at_the_end(configured):
    truth, run = configured
    configure, begin_run = truth.datagrams[0]["timestamp"][:2].tolist()
    assert run.config("box", configure)[1].user.period == 5e-05
    assert run.config("box", begin_run)[1].user.period == 2e-05
    assert run.config("box")[4].to_dict()["user.mode"] == 0  # step 2
    assert run.box.config[4].user.mode.name == "NORMAL"
    assert run.config("box", "2000-01-01").segments == {}


def test_enums_have_value_and_name(configured):
    _, run = configured
    mode = run.config("box", run.events.time.values[15])[1].user.mode
    assert (mode.value, mode.name, mode == 1, mode.names) == (1, "HIGH", True, {0: "NORMAL", 1: "HIGH"})
    assert repr(mode) == "<HIGH: 1>"
    again = pickle.loads(pickle.dumps(mode))
    assert (again, again.name) == (1, "HIGH")
    assert EnumValue(9, {0: "NORMAL"}).name == "9"


def test_settings_that_are_not_there(configured):
    _, run = configured
    one = run.config("box")[1]
    with pytest.raises(AttributeError, match=r"no setting 'perid'; did you mean period\?"):
        one.user.perid  # noqa: B018
    with pytest.raises(NameNotFound, match=r"no setting 'usr'; did you mean user\?"):
        one["usr"]
    with pytest.raises(NameNotFound, match="no detector 'bix'; did you mean box"):
        run.config("bix")


def test_settings_are_shown_and_completed(configured):
    _, run = configured
    config = run.config("box")
    assert "expert.trbit = array([0, 1, 2, 3], dtype=uint8)" in repr(config)
    assert "segment 4" in repr(config)
    assert {"user", "expert", "name"} <= set(dir(config[1])) & set(dir(config))
    assert pickle.loads(pickle.dumps(config[1])) == config[1]
    assert len(config[1]) == len(list(config[1])) == 6


def test_settings_of_kinds_as_the_daq_writes_them(rich, rich_run):
    for detector in ("epix", "jf"):
        for segment in rich.segments(detector):
            found = rich_run.config(detector)[segment].to_dict()
            for name, value in rich.config(detector, segment, step=3).items():
                np.testing.assert_array_equal(found[name], value)


def test_a_name_that_is_both_a_value_and_a_group():
    config = Settings({"a": 1, "a.b": 2, "c.d": 3, "c": 4})
    assert len(config) == 2
    assert config["c"] == 4

"""Stores: choice, explanations, malformed files, atomic deployment with history and undo."""

import os
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from psana_dask.calib.constants import Constants, RunRange, checked, kind_of, neutral, summary
from psana_dask.calib.directory import CalibDirectory, chosen_file, parse_name
from psana_dask.calib.localstore import LocalStore
from psana_dask.calib.store import (
    Chain,
    ConstantsStore,
    MemoryStore,
    choose,
    constants_for,
    difference,
)
from psana_dask.calib.textfile import parse_text, write_text
from psana_dask.errors import ConstantsError, ConstantsNotFound, NameNotFound

SOURCE = "XppEndstation.0:Opal1000.0"
CSPAD = "CxiDs1.0:Cspad.0"


def peds(value=1.5, shape=(4, 5)):
    return Constants("pedestals", np.full(shape, value, np.float32), comment="made")


def put(root, name, text, kind="pedestals", source=SOURCE, group="Camera::CalibV1"):
    folder = root / group / source / kind
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


# ---- values ----

def test_run_ranges():
    assert 12000 in RunRange(5)  # psana clips runs to 9999
    assert 4 not in RunRange(5, 9)
    assert (str(RunRange(5)), str(RunRange(5, 7))) == ("5-end", "5-7")
    with pytest.raises(ConstantsError, match="begins"):
        RunRange(9, 8)
    with pytest.raises(ConstantsError, match="runs are 0 to 9999"):
        RunRange(0, 10000)


def test_provenance():
    constant = Constants("pedestals", np.zeros(3, np.float32), SOURCE, RunRange(4), "s", "o", "v", "c", "t")
    attrs = summary({"pedestals": constant})["pedestals"]
    assert attrs["runs"] == "4-end"
    assert len(attrs["sha256"]) == 64
    assert constant.unit == "ADU"
    assert "float32[3] runs 4-end from o" in repr(constant)
    assert constant.with_value([1, 2]).sha256 != constant.sha256


@pytest.mark.parametrize(("kind", "value", "message"), [
    ("pedestals", "text", "must be numbers"), ("geometry", [1], "must be text"),
    ("pedestals", np.array(["a"]), "must be numbers"), ("pixel_status", [-1], "must be 0 to"),
    ("pixel_mask", [256], "must be 0 to 255"), ("pixel_status", [0.5], "whole numbers"),
    ("pixel_status", [np.nan], "whole numbers"),
])
def test_values_that_do_not_fit_their_kind(kind, value, message):
    with pytest.raises(ConstantsError, match=message):
        checked(kind, value)


def test_values_take_the_type_of_their_kind():
    assert checked("pixel_status", np.array([1.0, 2**40])).dtype == np.uint64
    assert checked("pedestals", [1, 2], shape=(2, 1)).shape == (2, 1)
    assert checked("pixel_max", np.array([2**40])).tolist() == [2**40]
    with pytest.raises(ConstantsError, match=r"expected \(3,\)"):
        checked("pedestals", [1, 2], shape=(3,))
    assert neutral("pixel_gain", (2,)).tolist() == [1, 1]
    with pytest.raises(ConstantsError, match="no neutral geometry"):
        neutral("geometry", (1,))
    with pytest.raises(NameNotFound, match="did you mean pedestals"):
        kind_of("pedestal")


# ---- text files ----

ARRAYS = st.sampled_from(["float32", "float64", "uint16", "uint64", "int32"]).flatmap(
    lambda dtype: st.tuples(st.just(dtype), st.lists(st.integers(1, 4), min_size=1, max_size=4),
                            st.integers(0, 2**32)))


@given(ARRAYS)
def test_text_round_trip_keeps_every_bit(case):
    dtype, shape, seed = case
    r = np.random.default_rng(seed)
    if dtype[0] == "f":
        array = (r.normal(0, 1, shape) * 10.0 ** r.integers(-37, 38, shape)).astype(dtype)
    else:
        limits = np.iinfo(dtype)
        array = r.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)
    back = parse_text(write_text(array, {"TITLE": "t"}))
    assert back.dtype == dtype
    assert np.array_equal(back, array)


@pytest.mark.parametrize(("text", "message"), [
    ("", "no numbers"), ("# DTYPE float32\n", "no numbers"), ("1 2\n3\n", "not a table"),
    ("1 two\n", "not a table"), ("# DTYPE object\n1\n", "no type of numbers"),
    ("# NDIM 3\n# DIM:0 2\n1 2\n", "NDIM is 3"), ("# NDIM x\n1\n", "whole numbers"),
    ("# NDIM 3\n# DIM:0 2\n# DIM:1 2\n# DIM:2 2\n1 2 3\n", "3 numbers, but the dimensions"),
    ("# DTYPE uint16\n-1 70000\n", "not a table"),
    ("# NDIM 1\n# DIM:0 -2\n1 2\n", "DIM lines give"),
])
def test_malformed_text(text, message):
    with pytest.raises(ConstantsError, match=message):
        parse_text(text, "x.data")


# ---- directory ----

@pytest.mark.parametrize(("name", "why"), [
    ("12-xyz.data", "not named"), ("abc-end.data", "not named"), ("7.data", "not named"),
    ("3-4-5.data", "not named"), ("5-end.txt", "not a .data file"), ("HISTORY", "not a .data file"),
    ("9-8.data", "begins"), ("1-20000.data", "run numbers end"), ("20000-end.data", "run numbers end"),
    ("5-end.data-2020-01-01", "not a .data file"), ("-5-end.data", "not named"), ("+5-end.data", "not named"),
    ("٣-end.data", "not named"), ("5-END.data", "not named"),
])
def test_names_that_are_skipped(name, why):
    assert why in parse_name(name)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=12), st.integers(0, 40))
def test_choice_against_its_definition(pairs, run):
    names = [f"{b}-{e}.data" for b, e in pairs]
    fits = sorted((b, -e) for b, e in pairs if b <= run <= e)
    wanted = f"{fits[-1][0]}-{-fits[-1][1]}.data" if fits else None
    assert chosen_file(names, run) == wanted


def test_newest_insertion_settles_equal_ranges():
    same = RunRange(1, 5)
    assert choose([(same, 3, "b"), (same, 9, "c"), (same, 1, "a")], 2)[2] == "c"


def test_directory_explains_itself(tmp_path):
    put(tmp_path, "1-end.data", "1 2\n")
    put(tmp_path, "5-9.data", "3 4\n")
    put(tmp_path, "12-xyz.data", "5 6\n")
    store = CalibDirectory(tmp_path)
    lookup = store.find(f"DetInfo({SOURCE})", "pedestals", 7)
    assert lookup.found().value.tolist() == [3, 4]
    assert lookup.constants.runs == RunRange(5, 9)
    text = lookup.explain()
    assert "took" in text
    assert "5-9.data: largest begin, then smallest end, of 2 that cover run 7" in text
    assert "12-xyz.data: not named" in text
    assert isinstance(store, ConstantsStore)


@pytest.mark.parametrize(("source", "kind", "run", "because"), [
    ("Nobody.0:Opal1000.0", "pedestals", 1, "no folder"), (SOURCE, "pixel_gain", 1, "no such folder"),
    (SOURCE, "pedestals", 1, "1 files, none covers run 1"),
])
def test_what_is_missing_is_said(tmp_path, source, kind, run, because):
    put(tmp_path, "5-end.data", "1 2\n")
    lookup = CalibDirectory(tmp_path).find(source, kind, run)
    assert not lookup
    assert because in lookup.explain()
    with pytest.raises(ConstantsNotFound, match="policy='warn'"):
        lookup.found()


@pytest.mark.parametrize(("text", "message"), [
    ("1 2\nnan 4\n", r"1 values of pedestals are NaN or infinite, first at \(1, 0\)"),
    ("1 two\n", "not a table"), ("", "no numbers"), ("1 2\n3 4\n", "needs 2296960"),
])
def test_malformed_files_are_errors(tmp_path, text, message):
    """The file in force must be right: an older one or a default would be silently wrong."""
    put(tmp_path, "0-end.data", "1\n", source=CSPAD, group="CsPad::CalibV1")
    put(tmp_path, "1-end.data", text, source=CSPAD, group="CsPad::CalibV1")
    with pytest.raises(ConstantsError, match=message):
        CalibDirectory(tmp_path).find(CSPAD, "pedestals", 3)


def test_files_that_are_not_text(tmp_path):
    path = put(tmp_path, "1-end.data", "")
    path.write_bytes(b"\x93NUMPY\xff\xfe")
    with pytest.raises(ConstantsError, match="not a text file"):
        CalibDirectory(tmp_path).find(SOURCE, "pedestals", 3)


def test_geometry_and_common_mode_and_unknown_group(tmp_path):
    put(tmp_path, "0-end.data", "# HDR a\nIP 0 SENS 0\n", "geometry")
    put(tmp_path, "0-end.data", "4 6 30 30\n", "common_mode")
    put(tmp_path, "0-end.data", "1\n", source="X.0:Strange.0", group="Strange::CalibV1")
    store = CalibDirectory(tmp_path)
    assert store.find(SOURCE, "geometry", 1).found().value.startswith("# HDR a")
    assert store.find(SOURCE, "common_mode", 1).found().value.tolist() == [4, 6, 30, 30]
    assert store.find("X.0:Strange.0", "pedestals", 1)
    assert store.kinds(SOURCE) == ("common_mode", "geometry")


def test_status_keeps_all_64_bits(tmp_path):
    put(tmp_path, "0-end.data", f"# DTYPE uint64\n{2**40} 0\n", "pixel_status")
    value = CalibDirectory(tmp_path).find(SOURCE, "pixel_status", 1).found().value
    assert value.tolist() == [2**40, 0]  # psana casts to 16 bits and loses it


def test_problems_of_a_folder(tmp_path):
    for name in ("1-10.data", "5-end.data", "9-8.data"):
        put(tmp_path, name, "1 2\n")
    put(tmp_path, "20-end.data", "x\n")
    problems = "\n".join(CalibDirectory(tmp_path).problems(SOURCE, "pedestals"))
    assert "5-end.data hides 1-10.data for runs 5 to 10" in problems
    assert "9-8.data: begins (9) after it ends (8)" in problems
    assert "not a table" in problems
    assert CalibDirectory(tmp_path).problems(SOURCE, "pixel_gain")[0].endswith(f"pixel_gain for {SOURCE}")


# ---- local store ----

def test_deploy_history_undo(tmp_path):
    store = LocalStore(tmp_path / "calib")
    first = store.deploy(peds(1), SOURCE, RunRange(5), comment="first: one")
    assert first.path.name == "5-end.data"
    assert first.backup is None
    assert "none before" in str(first.difference)
    second = store.deploy(peds(2), SOURCE, RunRange(5), comment="second")
    assert second.backup.exists()
    assert second.difference.largest == 1
    assert store.find(SOURCE, "pedestals", 7).found().value[0, 0] == 2
    assert [line.comment for line in store.history(SOURCE, "pedestals")] == ["first: one", "second"]
    assert store.undo(SOURCE, "pedestals").comment == "second"
    assert store.find(SOURCE, "pedestals", 7).found().value[0, 0] == 1
    store.undo(SOURCE, "pedestals", comment="wrong run")
    assert not store.find(SOURCE, "pedestals", 7)
    with pytest.raises(ConstantsNotFound, match="no deployment of pedestals"):
        store.undo(SOURCE, "pedestals")
    assert [line.action for line in store.history(SOURCE, "pedestals")] == ["deploy"] * 2 + ["undo"] * 2


def test_dry_run_writes_nothing(tmp_path):
    store = LocalStore(tmp_path / "calib")
    plan = store.deploy(peds(), SOURCE, RunRange(1, 2), dry_run=True)
    assert not plan.done
    assert not (tmp_path / "calib").exists()


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    store = LocalStore(tmp_path)
    store.deploy(peds(1), SOURCE, RunRange(5))

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        store.deploy(peds(2), SOURCE, RunRange(5))
    monkeypatch.undo()
    assert store.find(SOURCE, "pedestals", 7).found().value[0, 0] == 1
    assert [p for p in tmp_path.rglob("*") if p.name.startswith(".")] == []


def test_readers_never_see_half_a_file(tmp_path):
    store = LocalStore(tmp_path)
    store.deploy(peds(0, (60, 60)), SOURCE, RunRange(0))
    seen, stop = [], threading.Event()

    def read():
        while not stop.is_set():
            seen.append(float(store.find(SOURCE, "pedestals", 1).found().value.std()))

    reader = threading.Thread(target=read)
    reader.start()
    for k in range(10):
        store.deploy(peds(k, (60, 60)), SOURCE, RunRange(0))
    stop.set()
    reader.join()
    assert seen
    assert set(seen) == {0.0}


def test_history_of_other_programs_is_read(tmp_path):
    store = LocalStore(tmp_path)
    store.deploy(peds(), SOURCE, RunRange(0))
    with open(store.folder(SOURCE, "pedestals") / "HISTORY", "a") as file:
        file.write("file:3-end.data   copy_of:/a/b.txt ctype:pedestals user:me host:h "
                   "cptime:2020-01-01T00:00:00 cwd:/x cmt:by hand\n")
    last = store.history(SOURCE, "pedestals")[-1]
    assert (last.action, last.file, last.comment) == ("other", "3-end.data", "by hand")
    assert store.undo(SOURCE, "pedestals").file == "0-end.data"


@pytest.mark.parametrize("name", ["../../etc", "a/b", "", ".hidden"])
def test_names_that_would_leave_the_store(tmp_path, name):
    with pytest.raises(ConstantsError, match="cannot make a folder"):
        LocalStore(tmp_path).deploy(peds(), name, RunRange(0))


# ---- chains ----

def test_a_chain_takes_the_first_and_says_so(tmp_path):
    put(tmp_path, "1-end.data", "9 9\n")
    mine = MemoryStore((peds(3), Constants("pixel_gain", np.ones(2, np.float32), "other")), "export")
    chain = Chain([LocalStore(tmp_path / "empty"), mine, CalibDirectory(tmp_path)])
    lookup = chain.find(SOURCE, "pedestals", 4)
    assert lookup.found().store == "export"
    assert [step.outcome for step in lookup.steps] == ["none", "took"]
    assert chain.kinds(SOURCE) == ("pedestals",)
    found, lookups = constants_for(chain, SOURCE, 4, ["pedestals", "pixel_gain"])
    assert list(found) == ["pedestals"]
    assert "none for run 4" in lookups["pixel_gain"].explain()
    assert list(constants_for(chain, SOURCE, 4)[0]) == ["pedestals"]


def test_an_empty_chain():
    with pytest.raises(ConstantsNotFound, match="no store is known"):
        Chain([]).find(SOURCE, "pedestals", 1).found()


@pytest.mark.parametrize(("new", "old", "text"), [
    (np.array([1, 2.0]), np.array([1, 4.0]), "1 of 2 values differ, by at most 2, -1 on average"),
    (np.array([1, 2.0]), np.array([1.0]), "shape (2,) in place of (1,)"),
    ("a", "a", "same text"), ("a", "b", "text differs"),
])
def test_differences(new, old, text):
    kind = "geometry" if isinstance(new, str) else "pedestals"
    assert text in str(difference(Constants(kind, new), Constants(kind, old)))


def test_names_longer_than_a_folder_can_have_are_not_there(tmp_path):
    """An ePix10ka quad is called after four serial numbers of 76 characters in the LCLS-II service."""
    (tmp_path / "Epix10ka2M::CalibV1").mkdir()
    name = "epix10ka_" + "3926196238-0175152897-1157627926-0000000000-" * 8
    assert not CalibDirectory(tmp_path).has(name)
    assert CalibDirectory(tmp_path).find(name, "geometry", 1).constants is None

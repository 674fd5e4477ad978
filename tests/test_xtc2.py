"""XTC2 files of every variant, read value by value."""

import dataclasses

import numpy as np
import pytest

import psana_dask
from psana_dask import simulate
from psana_dask.model import Kind, Service
from psana_dask.readers import xtc2_scanner
from psana_dask.readers.xtc2 import parse_names, recognise, text
from psana_dask.readers.xtc2_layout import DGRAM, DGRAM_OLD, TransitionId
from psana_dask.readers.xtc2_scanner import Scanner
from psana_dask.simulate import Detector, Missing, RunSpec, corrupt
from psana_dask.sources import FileSource, MemorySource

SMALL = (8, 12)
ALL = (
    Detector(name="timing", kind="timing"),
    Detector(name="types", kind="alltypes"),
    Detector(name="epix", kind="epix10ka", segments=(2, 3, 7), stream=(1, 2, 1), shape=SMALL),
    Detector(name="jf", kind="jungfrau", segments=2, stream=2, shape=(2, *SMALL)),
    Detector(name="tt", kind="timetool", stream=3, every=5, offset=2, shape=SMALL),
    Detector(name="hsd", kind="hsd", segments=2, stream=3),
    Detector(name="f4", kind="pixels", stream=4, shape=SMALL, dtype="f4", frame_field="arrayRaw2"),
)
GAPS = (
    Missing(events=(3, 4), stream=1),
    Missing(events=(6,), detector="epix"),
    Missing(events=(8, 9), detector="epix", segment=7),
)
VARIANTS = {
    "plain": {},
    "data before shapes": {"data_first": True},
    "bytes after the shapes": {"shapes_tail": 4},
    "nested blocks": {"nested": True},
    "old header": {"old_header": True},
    "old header, nested, tail": {"old_header": True, "nested": True, "shapes_tail": 4},
    "old names": {"naming": "s00-c00", "cuts": {1: (7,)}},
    "offsets by the DAQ": {"smalldata": "daq"},
    "no small data": {"smalldata": None},
    "parts": {"cuts": {1: (3, 10, 15), 2: (11,)}, "steps": 3},
    "not finished": {"finished": False, "in_progress": True},
    "no run transitions": {"begin_run": False, "end_run": False},
    "fake times": {"timestamps": np.arange(20)},
    "missing pieces": {"missing": GAPS},
}


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_every_value_of_every_variant(tmp_path, expected, changes):
    truth = simulate.write(RunSpec(**{"events": 20, "detectors": ALL, "slow_every": 7, **changes}), tmp_path)
    run = psana_dask.open(tmp_path)
    assert run.events.timestamp.values.tolist() == truth.timestamps.tolist()
    assert run.events.step.values.tolist() == truth.step.tolist()
    data, compared = run.dataset(chunks=None), 0
    for name in truth.detectors:
        for field in truth._content.detector(name).algorithms:
            for spec in field.fields:
                if None not in spec.shape:
                    compared += same_field(data, truth, expected, name, field.name, spec.name)
    assert compared == 44


def same_field(data, truth, expected, detector, algorithm, field):
    entry = psana_dask.open(truth.folder)[detector]
    public = entry[f"{algorithm}.{field}"].name
    want = expected(truth, detector, f"{algorithm}.{field}")
    found = data[public].values
    assert found.dtype == want.dtype or want.dtype.kind == "U"
    np.testing.assert_array_equal(found, want)
    return 1


def test_datagrams_out_of_order(tmp_path, expected):
    spec = RunSpec(events=20, detectors=ALL, swapped={1: ((3, 4), (8, 12)), 3: ((0, 1),)})
    truth = simulate.write(spec, tmp_path)
    with pytest.warns(psana_dask.errors.PartialRunWarning, match="datagrams out of time order: sorted"):
        run = psana_dask.open(tmp_path)
    np.testing.assert_array_equal(run.epix.raw.values, expected(truth, "epix", "raw"))
    assert run.events.timestamp.values.tolist() == truth.timestamps.tolist()


def test_several_configures_in_one_file(tmp_path):
    first = RunSpec(number=5, events=6, detectors=ALL[:3], cuts={1: (3,)})
    second = RunSpec(number=6, events=4, detectors=ALL[:3], configure=False, start="2024-06-14T07:00", seed=1)
    renamed = (*ALL[:1], dataclasses.replace(ALL[2], name="epix_new", shape=(16, 16)))
    third = RunSpec(number=7, events=5, detectors=renamed, start="2024-06-14T08:00:00")
    truths = simulate.write_runs((first, second, third), tmp_path)
    runs = [psana_dask.open(tmp_path, run=n) for n in (5, 6, 7)]
    assert [len(r) for r in runs] == [6, 4, 5]
    assert [sorted(r.detectors) for r in runs] == [["epix", "timing", "types"]] * 2 + [["epix_new", "timing"]]
    for run, truth, name in zip(runs, truths, ("epix", "epix", "epix_new"), strict=True):
        for event in range(len(run)):
            np.testing.assert_array_equal(run[name].raw[event].values, truth.value(name, "raw", event))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """One file of each kind of header."""
    made = {}
    for old in (False, True):
        spec = RunSpec(events=10, detectors=ALL, slow_every=4, old_header=old)
        made[old] = simulate.write(spec, tmp_path_factory.mktemp(f"old {old}"))
    return made


@pytest.mark.parametrize("old", [False, True])
def test_the_kind_of_header_is_recognised(files, old):
    for path in (*files[old].files, *files[old].smd_files.values()):
        assert recognise(FileSource(str(path))) == (DGRAM_OLD if old else DGRAM)
        assert recognise(MemorySource(path.read_bytes())) == (DGRAM_OLD if old else DGRAM)


@pytest.mark.parametrize("data", [b"", b"short", bytes(1000), b"\xff" * 1000, b"%PDF-1.4 and so on" * 50])
def test_other_content_is_not_recognised(data):
    assert recognise(MemorySource(data)) is None
    scanner = Scanner()
    assert scanner.scan(MemorySource(data, "notes"), 0) == 0
    assert not scanner.has_rows()
    assert scanner.problems == [("notes", 0, -1, "not XTC2: no chain of datagram headers at its start")]


@pytest.mark.parametrize("old", [False, True])
def test_memory_and_files_give_the_same_index(files, old):
    for path in files[old].files:
        found = []
        for source in (FileSource(str(path)), MemorySource(path.read_bytes())):
            scanner = Scanner()
            assert scanner.scan(source, 3) == path.stat().st_size
            found.append((scanner.columns(), scanner.configs, scanner.problems))
        (one, names, problems), (other, *same) = found
        assert [names, problems] == same
        assert not problems
        for column, values in one.items():
            np.testing.assert_array_equal(values, other[column])
        assert set(one["part"].tolist()) == {3}


def test_a_scan_may_stop_and_go_on(files):
    path = files[False].streams[1][0]
    data, whole = path.read_bytes(), Scanner()
    whole.scan(MemorySource(data), 0)
    want = whole.columns()
    for row in range(2, len(want["offset"])):
        scanner = Scanner(live=True)
        place = scanner.scan(MemorySource(data[: want["offset"][row] + want["size"][row] // 2]), 0)
        assert place == want["offset"][row]
        assert scanner.scan(MemorySource(data), 0, place) == len(data)
        for column in ("timestamp", "offset", "size", "service", "key", "data", "first_block"):
            np.testing.assert_array_equal(scanner.columns()[column], want[column])


def test_names_say_what_blocks_mean(files):
    path = files[False].streams[0][0]
    scanner = Scanner()
    scanner.scan(FileSource(str(path)), 0)
    columns = scanner.columns()
    assert columns["service"][0] == Service.CONFIGURE
    payload = path.read_bytes()[24 : columns["size"][0]]
    names, faults = parse_names(payload)
    assert faults == []
    assert tuple(names) == scanner.configs[0]
    (types,) = [n for n in names if n.detector == "types"]
    fields = {f.name: (f.dtype.str, f.rank, f.kind) for f in types.fields}
    assert fields["v_u8"] == ("<u8", 0, Kind.NUMBER)
    assert fields["deep"] == ("<i2", 5, Kind.NUMBER)
    assert fields["text"][1:] == (1, Kind.STRING)
    assert fields["state:stateEnum"] == ("<i4", 0, Kind.ENUM)
    assert fields["Fault:stateEnum"] == ("<i4", 0, Kind.ENUM_ENTRY)
    assert (types.det_type, types.det_id, types.segment) == ("alltypes", "types-1234", 0)


def test_names_that_are_cut_are_faults_not_crashes(files):
    path = files[False].streams[0][0]
    payload = path.read_bytes()[24:9000]
    names, _ = parse_names(payload)
    changed = bytearray(payload)
    place = payload.index(b"types\0") + 2000
    changed[place : place + 2000] = b"\xff" * 2000
    found, faults = parse_names(bytes(changed))
    assert len(found) <= len(names)
    assert all(isinstance(where, int) and what for where, what in faults)
    for cut in range(0, len(payload), 97):
        parse_names(payload[:cut])


def test_words_of_the_file_as_times(tmp_path):
    words = (7, 8, 5 << 32 | 999_999_999)
    spec = RunSpec(events=3, timestamps=words, detectors=(Detector(name="gmd", kind="gmd"),))
    scanner = Scanner()
    scanner.scan(FileSource(str(simulate.write(spec, tmp_path).files[0])), 0)
    columns = scanner.columns()
    events = columns["service"] == TransitionId.L1_ACCEPT
    start = np.datetime64("1990-01-01", "ns")
    assert (columns["time"][events].view("M8[ns]") - start).astype(int).tolist() == [7, 8, 5_999_999_999]


def test_text_ends_at_its_first_nul():
    assert text(b"abc\0def") == "abc"
    assert text("µ".encode()) == "µ"


def same_rows(one, other):
    """Compare what two scans found; layouts may be told apart differently, so their words are compared."""
    first, second = one.columns(), other.columns()
    names = ("timestamp", "service", "offset", "size", "config", "first_block", "key", "data", "block_damage")
    for name in names:
        np.testing.assert_array_equal(first[name], second[name])
    for columns, pieces in ((first, []), (second, [])):
        for row in columns["layout"].tolist():
            words = columns["words"][columns["first_word"][row] : columns["first_word"][row + 1]]
            pieces.append(words.tolist() if row >= 0 else None)
        columns["shapes"] = pieces
    assert first["shapes"] == second["shapes"]
    assert one.problems == other.problems


@pytest.mark.parametrize("damage", ["none", "header", "cut"])
def test_pieces_scanned_side_by_side_give_what_one_walk_gives(tmp_path, monkeypatch, damage):
    detectors = (Detector(name="hsd", kind="hsd"), Detector(name="cam", kind="camera", shape=SMALL))
    truth = simulate.write(RunSpec(events=300, steps=3, detectors=detectors, smalldata=None), tmp_path)
    path = truth.files[0]
    size = path.stat().st_size
    if damage == "header":
        corrupt.overwrite(path, int(truth.datagrams[0]["offset"][200]) + 18, b"\xff\xff")
    elif damage == "cut":
        corrupt.cut(path, size - 7)
    one = Scanner()
    assert one.scan(FileSource(str(path)), 0) > size // 2
    monkeypatch.setattr(xtc2_scanner, "PIECE", size // 6)
    several = Scanner()
    several.scan(FileSource(str(path)), 0)
    same_rows(one, several)


def test_pieces_under_several_configures(tmp_path, monkeypatch):
    cameras = [Detector(name=f"cam{k}", kind="camera", shape=SMALL) for k in (1, 2)]
    given = {"events": 40, "smalldata": None}
    specs = [RunSpec(number=k, detectors=(cam,), **given) for k, cam in enumerate(cameras, 1)]
    path = str(simulate.write_runs(specs, tmp_path)[0].files[0])
    one, several = Scanner(), Scanner()
    one.scan(FileSource(path), 0)
    monkeypatch.setattr(xtc2_scanner, "PIECE", 4096)
    several.scan(FileSource(path), 0)
    assert len(one.configs) == 2
    same_rows(one, several)

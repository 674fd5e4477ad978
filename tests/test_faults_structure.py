"""Every way a file can be wrong on purpose: what is said, and that the other events stay right."""

import os
import warnings

import numpy as np
import pytest

import psana_dask
from psana_dask import simulate, sources
from psana_dask.errors import (
    AmbiguousRun,
    DuplicateData,
    PartialRunWarning,
    PsanaError,
    PsanaWarning,
    ReadError,
    RunNotFound,
    TruncatedError,
    UnknownFormat,
)
from psana_dask.readers import xtc2_write as enc
from psana_dask.readers.xtc2_layout import CORRUPTED, TransitionId, TypeId
from psana_dask.simulate import Detector, RunSpec, corrupt
from psana_dask.sources import POOL

START = 1_000_000_000  # seconds since 1990
EVENTS = 12
CAM = enc.Names(
    src=enc.names_id(0, 1),
    det_name="cam",
    det_type="cam",
    alg_name="raw",
    fields=(enc.FieldName("frame", 1, 2), enc.FieldName("number", 3)),
)
GMD = enc.Names(
    src=enc.names_id(0, 2),
    det_name="gmd",
    det_type="gmd",
    alg_name="raw",
    fields=(enc.FieldName("energy", 9),),
)


TIMING = (Detector(name="timing", kind="timing"),)


def stamp(k):
    return (START + k) << 32 | 7


def frame(k):
    return np.arange(20, dtype=np.uint16).reshape(4, 5) + np.uint16(100 * k)


def blocks(k):
    return enc.shapes_data(CAM, (frame(k), k)) + enc.shapes_data(GMD, (k / 2,))


def configure(*names):
    return enc.datagram(stamp(-2), TransitionId.CONFIGURE, b"".join(names))


def event(k, payload=None, **header):
    return enc.datagram(stamp(k), TransitionId.L1_ACCEPT, blocks(k) if payload is None else payload, **header)


def good_dgrams():
    start = configure(enc.names_block(CAM), enc.names_block(GMD))
    return [start, enc.datagram(stamp(-1), TransitionId.BEGIN_STEP), *map(event, range(EVENTS))]


def offset_of(dgrams, number):
    return sum(map(len, dgrams[:number]))


FIRST = 2
"""Number of the first event's datagram."""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "some.xtc2"


def opened(source, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PsanaWarning)
        return psana_dask.open(source, cache=False, **options)


def attempt(function, *args):
    """Return what a call gives and None, or None and the clear error that it raises."""
    try:
        return function(*args), None
    except PsanaError as error:
        return None, error


def problems(run):
    return list(run.problems.itertuples(index=False))


def check(run, events=range(EVENTS), *, without=()):
    """Compare all events; those in `without` are there but have no camera."""
    assert run.events.timestamp.values.tolist() == [stamp(k) for k in events]
    data = run.dataset(["cam", "gmd"], join="outer", chunks=None)
    has = np.array([k not in without for k in events])
    np.testing.assert_array_equal(data.cam_present, has)
    np.testing.assert_array_equal(data.cam_number.values[has], np.array(events)[has])
    np.testing.assert_array_equal(data.cam_raw.values[has], [frame(k) for k in np.array(events)[has]])
    np.testing.assert_array_equal(data.cam_raw.values[~has], 0)
    kept = data.gmd_present.values
    assert kept[has].all()
    np.testing.assert_array_equal(data.gmd_energy.values[kept], np.array(events)[kept] / 2)


def test_the_file_without_a_fault(path):
    path.write_bytes(b"".join(good_dgrams()))
    run = opened(path)
    check(run)
    assert problems(run) == []


# ---- files that are no run ------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", TruncatedError),
        (bytes(10), TruncatedError),
        (bytes(24), UnknownFormat),
        (bytes(100_000), UnknownFormat),
        (b"\xff" * 1000, UnknownFormat),
        (b"hello world, this is text and no run at all\n" * 20, UnknownFormat),
        (good_dgrams()[0][:-1], PsanaError),
        (good_dgrams()[0][:24], PsanaError),
        (b"".join(good_dgrams()[1:]), None),
    ],
    ids=["empty", "10 zeros", "24 zeros", "zeros", "ones", "text", "cut", "a header", "no Configure"],
)
def test_files_that_hold_no_run(path, content, error):
    path.write_bytes(content)
    if error is None:  # events, but nothing says what is in them
        run = opened(path)
        assert len(run) == EVENTS
        assert list(run.detectors) == []
        assert any("no Configure declares" in p.what for p in problems(run))
        return
    with pytest.raises(error, match=str(path)):
        opened(path)


@pytest.mark.parametrize("seed", range(20))
def test_random_bytes(path, seed):
    content = np.random.default_rng(seed).integers(0, 256, 20_000, np.uint8)
    if seed % 2:  # small numbers look like headers much more often
        content &= 1
    path.write_bytes(content.tobytes())
    run, error = attempt(opened, path)
    assert problems(run) if error is None else str(path) in str(error)


def test_folders_and_files_that_are_not_there(tmp_path):
    with pytest.raises(RunNotFound, match=str(tmp_path)):
        opened(tmp_path)
    with pytest.raises(RunNotFound, match=r"absent\.xtc2"):
        opened(tmp_path / "absent.xtc2")
    (tmp_path / "notes.txt").write_text("no run")
    with pytest.raises(RunNotFound):
        opened(tmp_path)
    (tmp_path / "folder.xtc2").mkdir()
    with pytest.raises(PsanaError, match=str(tmp_path)):
        opened(tmp_path)


def test_a_text_file_beside_a_run(tmp_path):
    (tmp_path / "a-r0001-s000-c000.xtc2").write_bytes(b"".join(good_dgrams()))
    (tmp_path / "a-r0001-s001-c000.xtc2").write_bytes(b"this is not data" * 100)
    run = opened(tmp_path)
    check(run)
    assert [(p.file.rpartition("/")[2], p.offset) for p in problems(run)] == [("a-r0001-s001-c000.xtc2", 0)]


# ---- datagrams that are not whole, or none --------------------------------------------------------
@pytest.mark.parametrize("keep", [1, 23, 24, 30, -1])
def test_a_truncated_last_datagram(path, keep):
    dgrams = good_dgrams()
    path.write_bytes(b"".join(dgrams[:-1]) + dgrams[-1][:keep])
    run = opened(path)
    check(run, range(EVENTS - 1))
    (problem,) = problems(run)
    assert (problem.file, problem.offset) == (str(path), offset_of(dgrams, len(dgrams) - 1))


GARBAGE = {
    "1 byte": b"\x07",
    "zeros": bytes(1000),
    "ones": b"\xff" * 333,
    "random": np.random.default_rng(0).bytes(5000),
    "text": b"This is the log of a DAQ node that lost its way.\n" * 50,
    "more than a window": np.random.default_rng(1).bytes(600_000),
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
@pytest.mark.parametrize("place", [3, 8])
def test_garbage_between_datagrams(path, garbage, place):
    dgrams = good_dgrams()
    dgrams.insert(FIRST + place, garbage)
    path.write_bytes(b"".join(dgrams))
    run = opened(path)
    check(run)
    where = [p.offset for p in problems(run)]
    assert where[0] == offset_of(dgrams, FIRST + place)


@pytest.mark.parametrize("garbage", [bytes(24), b"\xff" * 24, np.random.default_rng(3).bytes(60)])
def test_a_datagram_that_was_written_over(path, garbage):
    dgrams = good_dgrams()
    dgrams[FIRST + 5] = garbage + dgrams[FIRST + 5][len(garbage) :]
    path.write_bytes(b"".join(dgrams))
    run = opened(path)
    check(run, [k for k in range(EVENTS) if k != 5])
    assert problems(run)[0].offset == offset_of(dgrams, FIRST + 5)


@pytest.mark.parametrize("service", [11, 13, 14, 15])
def test_an_unknown_service(path, service):
    dgrams = good_dgrams()
    dgrams[FIRST + 5] = enc.datagram(stamp(5), service, blocks(5))
    path.write_bytes(b"".join(dgrams))
    run = opened(path)
    check(run, [k for k in range(EVENTS) if k != 5])
    assert problems(run)[0].offset == offset_of(dgrams, FIRST + 5)


@pytest.mark.parametrize("extent", [0, 11, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 100_000])
def test_an_extent_that_lies(path, extent):
    dgrams = good_dgrams()
    path.write_bytes(b"".join(dgrams))
    corrupt.set_extent(path, FIRST + 5, extent)
    run = opened(path)
    check(run, [k for k in range(EVENTS) if k != 5])
    assert problems(run)[0].offset == offset_of(dgrams, FIRST + 5)


# ---- containers -----------------------------------------------------------------------------------
def with_payload(path, payload, k=5):
    """Write the run with another payload in one event, and open it."""
    dgrams = good_dgrams()
    dgrams[FIRST + k] = event(k, payload)
    path.write_bytes(b"".join(dgrams))
    start = offset_of(dgrams, FIRST + k)
    return opened(path), range(start, start + len(dgrams[FIRST + k]))


def patched(raw, at, value):
    return raw[:at] + value.to_bytes(4, "little") + raw[at + 4 :]


@pytest.mark.parametrize("extent", [0, 11, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_container_that_runs_past_its_parent(path, extent):
    block = enc.shapes_data(CAM, (frame(5), 5))
    for at in (8, 20, 20 + 32):  # the extent of ShapesData, Shapes and Data
        run, where = with_payload(path, patched(block, at, extent))
        check(run, without=[5])
        assert all(p.offset in where for p in problems(run))
        assert problems(run)


HUGE = [(0xFFFFFFFF, 0xFFFFFFFF), (1 << 31, 1 << 31), (1 << 16, 1 << 16), (1 << 31, 1), (1, 1 << 31), (5, 5)]


@pytest.mark.parametrize("shape", HUGE)
def test_shapes_that_the_data_do_not_hold(path, shape):
    block = enc.shapes_data(CAM, (frame(5), 5))
    for k, size in enumerate(shape):
        block = patched(block, 24 + 4 * k, size)
    run, where = with_payload(path, block)
    check(run, without=[5])
    (problem,) = problems(run)
    assert problem.offset in where


def test_a_product_of_sizes_that_wraps_round(path):
    """Five sizes whose product is 40 modulo 2**64 must not pass for 40 bytes."""
    fields = (enc.FieldName("v", 0, 5),)
    cube = enc.Names(src=CAM.src, det_name="cam", det_type="cam", alg_name="raw", fields=fields)
    block = enc.shapes_data(cube, (np.zeros((1, 1, 1, 5, 8), np.uint8),))
    for k, size in enumerate((1 << 31, 1 << 31, 4, 5, 8)):
        block = patched(block, 24 + 4 * k, size)
    dgrams = [configure(enc.names_block(cube)), event(0, block)]
    path.write_bytes(b"".join(dgrams))
    run = opened(path)
    assert len(run) == 1
    (problem,) = problems(run)
    assert "shorter than its shapes" in problem.what


@pytest.mark.parametrize("depth", [1, 2, 50, 2000])
def test_nested_parents(path, depth):
    payload = blocks(5)
    for _ in range(depth):
        payload = enc.parent(payload)
    run, _ = with_payload(path, payload)
    check(run)
    assert problems(run) == []


def test_a_corrupted_parent_is_not_entered(path):
    corrupted = enc.xtc(TypeId.PARENT, enc.shapes_data(CAM, (frame(9), 9)), damage=CORRUPTED)
    run, where = with_payload(path, corrupted + enc.shapes_data(GMD, (2.5,)))
    check(run, without=[5])
    assert run.gmd.energy.values[5] == 2.5
    (problem,) = problems(run)
    assert problem.offset in where
    assert "corrupted" in problem.what


@pytest.mark.parametrize("word", [1 << k for k in range(7)])
def test_damage_of_a_datagram_and_of_a_block(path, word):
    dgrams = good_dgrams()
    dgrams[FIRST + 5] = event(5, damage=word)
    block = enc.shapes_data(CAM, (frame(6), 6), damage=word)
    dgrams[FIRST + 6] = event(6, block + enc.shapes_data(GMD, (3.0,)))
    path.write_bytes(b"".join(dgrams))
    run = opened(path)
    check(run, without=[5, 6])
    np.testing.assert_array_equal(run.gmd.present.values, [k != 5 for k in range(EVENTS)])
    np.testing.assert_array_equal(run.cam.damage.values, [word if k in (5, 6) else 0 for k in range(EVENTS)])
    check(opened(path, damaged="keep"))


@pytest.mark.parametrize("kind", [5, 77, 0xFFF])
def test_containers_of_unknown_type_are_passed_over(path, kind):
    run, where = with_payload(path, enc.xtc(kind, b"what?" * 10) + blocks(5))
    check(run)
    (problem,) = problems(run)
    assert problem.offset == where.start + 24


@pytest.mark.parametrize("tail", [1, 5, 11])
def test_a_few_bytes_after_the_last_container(path, tail):
    run, where = with_payload(path, blocks(5) + bytes(tail))
    check(run)
    (problem,) = problems(run)
    assert problem.offset == where.stop - tail


def test_a_block_without_shapes_or_without_data(path):
    shapes = enc.xtc(TypeId.SHAPES, bytes(20))
    for inside in (b"", shapes, enc.xtc(TypeId.DATA, bytes(48))):
        run, where = with_payload(path, enc.xtc(TypeId.SHAPES_DATA, inside, src=CAM.src))
        check(run, without=[5])
        assert [p.offset in where for p in problems(run)] == [True]


def test_blocks_of_names_that_are_not_declared(path):
    fields = (enc.FieldName("v", 9),)
    stranger = enc.Names(src=enc.names_id(3, 3), det_name="x", alg_name="raw", fields=fields)
    run, where = with_payload(path, enc.shapes_data(stranger, (1.0,)) + blocks(5))
    check(run)
    assert [p.offset in where for p in problems(run)] == [True]


# ---- the Configure --------------------------------------------------------------------------------
def with_names(path, *names):
    dgrams = good_dgrams()
    dgrams[0] = configure(*names)
    path.write_bytes(b"".join(dgrams))
    return opened(path)


def test_names_that_come_twice(path):
    fields = (enc.FieldName("n", 0),)
    other = enc.Names(src=CAM.src, det_name="cam", det_type="cam", alg_name="raw", fields=fields)
    run = with_names(path, *map(enc.names_block, (CAM, GMD, other)))
    check(run)
    (problem,) = problems(run)
    assert "second Names" in problem.what


@pytest.mark.parametrize(("at", "value"), [(516, 13), (516, 0xFFFFFFFF), (520, 6), (520, 0xFFFFFFFF)])
def test_types_and_ranks_that_do_not_exist(path, at, value):
    wrong = enc.Names(src=enc.names_id(0, 9), det_name="odd", alg_name="raw", fields=(enc.FieldName("v", 9),))
    block = patched(enc.names_block(wrong), 12 + 1036 + at, value)
    run = with_names(path, *map(enc.names_block, (CAM, GMD)), block)
    check(run)
    assert "odd" not in run.detectors
    (problem,) = problems(run)
    assert "do not exist" in problem.what
    assert str(value) in problem.what


def test_names_cut_short(path):
    block = enc.names_block(CAM)
    short = enc.xtc(TypeId.NAMES, block[12:-100], src=enc.names_id(0, 9))
    run = with_names(path, *map(enc.names_block, (CAM, GMD)), short)
    check(run)
    assert "no number of fields" in problems(run)[0].what


def test_a_second_configure_without_names_hides_nothing(path):
    dgrams = good_dgrams()
    dgrams.insert(FIRST + 5, enc.datagram(stamp(4) + 1, TransitionId.CONFIGURE, blocks(4)))
    path.write_bytes(b"".join(dgrams))
    run = opened(path)
    check(run)
    assert "Configure" in problems(run)[0].what


def test_text_that_is_no_text(path):
    names = enc.Names(
        src=GMD.src, det_name="gmd", det_type="gmd", alg_name="raw",
        fields=(enc.FieldName("energy", 9), enc.FieldName("note", 10, 1)),
    )  # fmt: skip
    dgrams = [configure(enc.names_block(names))]
    words = [b"fine\0", b"\xff\xfe\x80\0", b"no end", b""]
    dgrams += [event(k, enc.shapes_data(names, (1.0, word))) for k, word in enumerate(words)]
    path.write_bytes(b"".join(dgrams))
    run = opened(path)
    assert run.gmd.note.values.tolist() == ["fine", "\ufffd\ufffd\ufffd", "no end", ""]


# ---- files that change while they are open --------------------------------------------------------
def test_a_file_that_shrinks(path):
    dgrams = good_dgrams()
    path.write_bytes(b"".join(dgrams))
    run = opened(path)
    frames = run.cam.field("raw", chunks=None)
    cut = offset_of(dgrams, FIRST + 8)
    os.truncate(path, cut)
    np.testing.assert_array_equal(frames[3].values, frame(3))
    with pytest.raises(ReadError, match=str(path)) as caught:
        frames[9].values  # noqa: B018
    said = [int(word) for word in str(caught.value).replace(",", " ").split() if word.isdigit()]
    start = offset_of(dgrams, FIRST + 9)
    assert any(start < number < start + len(dgrams[FIRST + 9]) for number in said)
    with pytest.raises(ReadError):
        run.dataset().load()
    check(opened(path), range(8))


def test_a_file_that_vanishes(path):
    path.write_bytes(b"".join(good_dgrams()))
    run = opened(path)
    path.unlink()
    _, error = attempt(check, run)  # where the file is still open its bytes are still there
    assert error is None or str(path) in str(error)
    POOL.forget(str(path))
    with pytest.raises(ReadError, match=str(path)):
        check(run)
    with pytest.raises(RunNotFound, match=str(path)):
        opened(path)


def test_a_file_that_is_replaced(path):
    path.write_bytes(b"".join(good_dgrams()))
    run = opened(path)
    frames = run.cam.field("raw", chunks=None)
    np.testing.assert_array_equal(frames[3].values, frame(3))
    shifted = [configure(enc.names_block(GMD), enc.names_block(CAM))] + [event(k) for k in range(3, 9)]
    new = path.with_suffix(".new")
    new.write_bytes(b"".join(shifted))
    os.replace(new, path)
    check(opened(path), range(3, 9))
    for number in (3, 11):  # never bytes of the new file by offsets of the old one
        got, error = attempt(lambda k=number: frames[k].values)
        assert np.array_equal(got, frame(number)) if error is None else str(path) in str(error)


# ---- parts ----------------------------------------------------------------------------------------
def parts_of(tmp_path, smalldata="offline"):
    spec = RunSpec(events=30, detectors=TIMING, cuts={0: (10, 20)}, smalldata=smalldata)
    return simulate.write(spec, tmp_path)


def pulses(run):
    return run.timing.pulseId.values.tolist()


@pytest.mark.parametrize("smalldata", ["offline", None])
@pytest.mark.parametrize("gone", [1, 2])
def test_a_part_that_is_not_there(tmp_path, gone, smalldata):
    truth = parts_of(tmp_path, smalldata)
    lost = truth.streams[0][gone]
    lost.unlink()
    run = opened(tmp_path)
    stay = [k for k in range(30) if k // 10 != gone]
    assert pulses(run) == truth.pulse_ids[stay].tolist()
    assert any(lost.name in p.what for p in problems(run))


def test_a_part_that_vanishes_after_opening(tmp_path):
    truth = parts_of(tmp_path)
    run = opened(tmp_path)
    truth.streams[0][1].unlink()
    POOL.forget(str(truth.streams[0][1]))
    column = run.timing.field("pulseId", chunks=None)
    assert column[5].values == truth.pulse_ids[5]
    assert column[25].values == truth.pulse_ids[25]
    with pytest.raises(ReadError, match=truth.streams[0][1].name):
        column[15].values  # noqa: B018


def test_the_first_part_is_not_there(tmp_path):
    truth = parts_of(tmp_path)
    truth.streams[0][0].unlink()
    run, error = attempt(opened, tmp_path)
    assert problems(run) if error is None else str(tmp_path) in str(error)


# ---- small-data files -----------------------------------------------------------------------------
def smd_moved(truth):
    path = truth.smd_files[0]
    content = bytearray(path.read_bytes())
    for offset, size in corrupt.datagrams(bytes(content)):
        if size == 76:
            content[offset + 60] ^= 1
    path.write_bytes(content)


def smd_of_another(truth):
    spec = RunSpec(events=30, seed=4, start="2025-01-01", detectors=(Detector(name="other", kind="gmd"),))
    other = simulate.write(spec, truth.folder / "elsewhere")
    truth.smd_files[0].write_bytes(other.smd_files[0].read_bytes())


def smd_cut(truth):
    corrupt.cut(truth.smd_files[0], truth.smd_files[0].stat().st_size - 76 * 9 - 5)


def smd_empty(truth):
    truth.smd_files[0].write_bytes(b"")


def smd_zeros(truth):
    truth.smd_files[0].write_bytes(bytes(1000))


def smd_random(truth):
    truth.smd_files[0].write_bytes(np.random.default_rng(2).bytes(5000))


def smd_folder(truth):
    truth.smd_files[0].unlink()
    truth.smd_files[0].mkdir()


@pytest.mark.parametrize(
    ("change", "said"),
    [(smd_moved, True), (smd_of_another, True), (smd_cut, False), (smd_empty, True), (smd_zeros, True),
     (smd_random, True), (smd_folder, True)],
)  # fmt: skip
def test_a_wrong_smalldata_file(tmp_path, change, said):
    truth = parts_of(tmp_path)
    change(truth)
    run = opened(tmp_path)
    assert pulses(run) == truth.pulse_ids.tolist()
    found = problems(run)
    assert bool(found) == said
    assert {p.file for p in found} <= {str(truth.smd_files[0])}


# ---- what does not belong together ----------------------------------------------------------------
def test_two_streams_with_the_same_segment(tmp_path):
    for stream in (0, 3):
        (tmp_path / f"a-r0001-s00{stream}-c000.xtc2").write_bytes(b"".join(good_dgrams()))
    with pytest.raises(DuplicateData, match=r"cam\.raw\.frame segment 0.*stream 0.*stream 3"):
        opened(tmp_path)
    check(opened(tmp_path, streams=[3]))


def test_two_runs_in_one_folder(tmp_path):
    for number in (7, 8):
        simulate.write(RunSpec(events=number, number=number, seed=number, detectors=TIMING), tmp_path)
    with pytest.raises(AmbiguousRun, match=r"7.*8"):
        opened(tmp_path)
    assert len(opened(tmp_path, run=8)) == 8
    with pytest.raises(RunNotFound, match="7, 8"):
        opened(tmp_path, run=9)


def test_two_runs_in_one_file(tmp_path):
    specs = [RunSpec(events=n, number=n, start=f"2024-06-14T0{n}:00", detectors=TIMING) for n in (7, 8)]
    truths = simulate.write_runs(specs, tmp_path)
    path = truths[0].files[0]
    with pytest.raises(AmbiguousRun, match=r"7, 8"):
        opened(path)
    for truth in truths:
        assert pulses(opened(path, run=truth.spec.number)) == truth.pulse_ids.tolist()


def test_large_datagrams_after_a_corrupt_one_without_preadv(tmp_path, monkeypatch):
    """The chain of datagrams that proves where to go on is longer than the usual window."""
    cam = Detector(name="cam", kind="camera", shape=(1000, 1000))
    truth = simulate.write(RunSpec(events=8, detectors=(cam,), smalldata=None), tmp_path)
    table = truth.datagrams[0]
    third = int(table["offset"][(table["event"] == 2) & (table["service"] == TransitionId.L1_ACCEPT)][0])
    corrupt.overwrite(truth.files[0], third + 18, b"\xff\xff\xff\xff\xff\xff")
    monkeypatch.setattr(sources, "PREAD", None)
    with pytest.warns(PartialRunWarning, match="the next datagrams follow"):
        run = psana_dask.open(tmp_path, cache=False)
    assert [int(t) for t in run.events.timestamp] == [t for k, t in enumerate(truth.timestamps) if k != 2]

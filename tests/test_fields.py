"""One channel over many events: frames, ragged values, text, and what is missing."""

import numpy as np
import pytest

import psana_dask
from psana_dask import simulate
from psana_dask.errors import ReadError
from psana_dask.fields import FrameReader, RaggedReader, StringReader, missing_value
from psana_dask.pipeline import channel_reader
from psana_dask.simulate import Algorithm, Damage, Detector, Field, Missing, RunSpec, corrupt


def reader(run, detector, field, keep_damaged=False):
    entry = run._view.entries[detector]
    return channel_reader(run._recording, entry.channels[field].id, keep_damaged)


def frames(reader, events, panels=None, rows=slice(None)):
    events = np.asarray(events)
    panels = np.arange(len(reader.panels)) if panels is None else np.asarray(panels)
    height = len(range(*rows.indices(reader.panel_shape[0])))
    out = np.empty((len(events), len(panels), height, *reader.panel_shape[1:]), reader.dtype)
    out.view("u1").fill(0xA5)  # nothing of what was there may stay
    reader.read_into(events, panels, rows, out)
    return out


@pytest.mark.parametrize(("detector", "field"), [("epix", "raw"), ("jf", "raw"), ("types", "cube")])
def test_frames_are_what_was_written(rich, rich_run, expected, detector, field):
    found = reader(rich_run, detector, field)
    names = {"raw": "raw", "cube": "cube"}
    np.testing.assert_array_equal(frames(found, np.arange(40)), expected(rich, detector, names[field]))


@pytest.mark.parametrize("panels", [[1], [2, 0], [1, 1], []])
@pytest.mark.parametrize("rows", [slice(2, 5), slice(7, 8), slice(3, 3), slice(None)])
def test_any_panels_and_rows_of_events_in_any_order(rich, rich_run, expected, panels, rows):
    events = np.array([17, 3, 3, 39, 0, 25])
    want = expected(rich, "epix", "raw")[events][:, panels][:, :, rows]
    np.testing.assert_array_equal(frames(reader(rich_run, "epix", "raw"), events, panels, rows), want)


def test_panels_of_segments_that_hold_several(rich_run):
    found = reader(rich_run, "jf", "raw")
    assert (found.panels.tolist(), found.panel_shape, found.segmented) == ([0, 1, 2, 3], (6, 10), True)
    assert reader(rich_run, "epix", "raw").panels.tolist() == [2, 3, 7]


@pytest.mark.parametrize("keep", [False, True])
def test_what_is_present_is_what_was_written(rich, keep):
    run = psana_dask.open(rich.folder, damaged="keep" if keep else "missing")
    for name in rich.detectors:
        field = next(iter(run._view.entries[name].channels))
        found = reader(run, name, field, keep).present(np.arange(40))
        want = rich.present(name, damaged=keep)[rich.order]
        np.testing.assert_array_equal(found, np.repeat(want, found.shape[1] // want.shape[1], axis=1))


def test_damaged_frames_are_missing_or_kept(rich, rich_run, expected):
    for keep in (False, True):
        found = frames(reader(rich_run, "epix", "raw", keep), np.arange(40))
        np.testing.assert_array_equal(found, expected(rich, "epix", "raw", damaged=keep))
    assert not frames(reader(rich_run, "epix", "raw"), [5]).any()


def test_damage_words_tell_of_blocks_and_datagrams(tmp_path):
    damage = (
        Damage(events=(1,), detector="cam", word=0x4008),
        Damage(events=(2,), detector="cam", segment=1, word=0x1),
        Damage(events=(3,), stream=0, word=0x20),
    )
    cam = Detector(name="cam", kind="camera", segments=2, shape=(4, 6))
    truth = simulate.write(RunSpec(events=6, detectors=(cam,), damage=damage), tmp_path)
    run = psana_dask.open(tmp_path)
    words = truth.damage("cam", 0) | truth.damage("cam", 1)
    assert run.cam.damage.values.tolist() == words.tolist() == [0, 0x4008, 1, 0x20, 0, 0]
    assert run.cam.raw.cam_panel_present.values.tolist() == truth.present("cam").tolist()
    assert run.cam.present.values.tolist() == [True, False, True, False, True, True]


@pytest.mark.parametrize("damaged", ["missing", "keep"])
def test_a_damaged_block_without_data_is_missing_and_tells_its_damage(tmp_path, damaged):
    cam = Detector(name="cam", kind="camera", shape=(4, 6))
    gone = Damage(events=(4,), detector="cam", word=0x2, payload=False)
    simulate.write(RunSpec(events=6, detectors=(cam,), damage=(gone,)), tmp_path)
    run = psana_dask.open(tmp_path, damaged=damaged)
    assert np.flatnonzero(~run.cam.present.values).tolist() == [4]
    assert run.cam.damage.values.tolist() == [0, 0, 0, 0, 2, 0]
    assert not run.cam.raw[4].values.any()
    assert not len(run.problems)


def test_missing_floats_are_nan_and_integers_zero(tmp_path):
    fields = (Field("f4", "f4", (3,)), Field("i2", "i2", (3,)), Field("u8", "u8"), Field("word", "str"))
    detector = Detector(name="det", algorithms=(Algorithm(fields=fields),))
    other = Detector(name="gmd", kind="gmd", stream=1)
    gone = (Missing(events=(1, 3), detector="det"),)
    simulate.write(RunSpec(events=5, detectors=(detector, other), missing=gone), tmp_path)
    run = psana_dask.open(tmp_path)
    data = run.dataset("det", join="outer", chunks=None).load()
    assert np.isnan(data.det_f4.values).all(axis=1).tolist() == [False, True, False, True, False]
    for name, dtype in (("f4", "f4"), ("i2", "i2"), ("u8", "u8")):
        assert data[f"det_{name}"].dtype == dtype
    assert not data.det_i2[[1, 3]].values.any()
    assert data.det_word.values.tolist() == ["word-0", "", "word-2", "", "word-4"]


@pytest.mark.parametrize("field", ["chan00", "chan01", "spectrum"])
def test_ragged_values_are_what_was_written(rich, rich_run, field):
    found = reader(rich_run, "hsd", field)
    assert isinstance(found, RaggedReader)
    events = np.array([12, 0, 39, 12])
    want = [[rich.value("hsd", field, e, s) for s in (0, 1)] for e in rich.order[events].tolist()]
    assert found.counts(events).tolist() == [[len(a) for a in pair] for pair in want]
    values = found.read(events)
    assert values.dtype == want[0][0].dtype
    np.testing.assert_array_equal(values, np.concatenate([a for pair in want for a in pair]))


def test_a_field_after_ragged_ones_is_found_in_every_event(rich, rich_run, expected):
    found = reader(rich_run, "hsd", "after")
    assert isinstance(found, FrameReader)
    out = np.zeros((40, 2), found.dtype)
    found.read_into(np.arange(40), np.arange(2), slice(0, 1), out)
    np.testing.assert_array_equal(out, expected(rich, "hsd", "after"))


def test_texts(rich_run):
    found = reader(rich_run, "types", "text")
    assert isinstance(found, StringReader)
    assert found.read(np.array([3, 0, 39])).tolist() == [["text-3"], ["text-0"], ["text-39"]]


def test_texts_of_any_length_and_alphabet(tmp_path):
    words = ["", "a", "µ-strahl", "x" * 300, "日本"]
    fields = (Field("word", "str", value=lambda m: words[m.event]),)
    detector = Detector(name="det", segments=2, algorithms=(Algorithm(fields=fields),))
    simulate.write(RunSpec(events=5, detectors=(detector,)), tmp_path)
    found = psana_dask.open(tmp_path).det.word.values
    assert found.tolist() == [[w, w] for w in words]


def test_enum_values_carry_their_dictionary(rich, rich_run, expected):
    for detector, field, name in (("types", "state", "state"), ("tt", "fex_status", "fex.status")):
        array = rich_run[detector, field]
        np.testing.assert_array_equal(array.values, expected(rich, detector, name))
        assert array.attrs["flag_values"] == [0, 1, 7]
        assert array.attrs["flag_meanings"] == "Off On Fault"


def test_a_rare_frame_of_another_shape_is_missing_and_a_problem(tmp_path):
    def frame(moment):
        return np.full((3, 6) if moment.event == 150 else (4, 6), moment.event, "u2")

    fields = (Field("raw", "u2", (4, 6), frame),)
    detector = Detector(name="cam", algorithms=(Algorithm(fields=fields),))
    truth = simulate.write(RunSpec(events=300, detectors=(detector,)), tmp_path)
    run = psana_dask.open(tmp_path)
    assert np.flatnonzero(~run.cam.present.values).tolist() == [150]
    assert run.cam.raw[149:152, 0, 0].values.tolist() == [149, 0, 151]
    (problem,) = run.problems.itertuples()
    assert (problem.event, problem.file) == (truth.timestamps[150], str(truth.files[0]))
    assert problem.what == "cam.raw.raw has 36 bytes, not 48: missing"


def test_large_reads_are_split_over_threads(plain_run, plain, expected, monkeypatch):
    monkeypatch.setattr("psana_dask.fields.SPLIT_BYTES", 1000)
    with psana_dask.set_options(read_threads=3):
        found = frames(reader(plain_run, "cam", "raw"), np.arange(100))
    np.testing.assert_array_equal(found, expected(plain, "cam", "image"))


def test_a_file_that_shrank_says_so(tmp_path):
    cam = Detector(name="cam", kind="camera", shape=(4, 6))
    truth = simulate.write(RunSpec(events=6, detectors=(cam,)), tmp_path)
    run = psana_dask.open(tmp_path)
    corrupt.cut(truth.files[0], 5000)
    with pytest.raises(ReadError, match=r"s000-c000.xtc2: wanted 48 bytes at byte \d+"):
        run.cam.raw[5].load()


@pytest.mark.parametrize(
    ("dtype", "value"), [("f4", np.nan), ("i8", 0), ("?", False), ("<U3", ""), ("u1", 0)]
)
def test_what_stands_for_a_missing_value(dtype, value):
    assert missing_value(np.dtype(dtype)) == value or np.isnan(value)

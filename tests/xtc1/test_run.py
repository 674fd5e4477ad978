"""LCLS-1 runs that were simulated, through the public face: streams, times, presence, detectors."""

import dataclasses

import numpy as np
import pytest

import psana_dask
from psana_dask import simulate
from psana_dask.errors import EventNotFound, PartialRunWarning
from psana_dask.model import Service
from psana_dask.readers.xtc_layout import TransitionId
from psana_dask.simulate import PV, Config, Damage, Daq, Detector, Epics, Missing, RunSpec, Scan
from psana_dask.sources import FileSource

pytestmark = pytest.mark.filterwarnings("ignore::psana_dask.errors.PartialRunWarning")

RICH = RunSpec(
    format="xtc", experiment="xpptut15", number=54, events=36, steps=3,
    detectors=(
        Detector(name="evr0", kind="timing"),
        Detector(name="ebeam", kind="ebeam"),
        Detector(name="gas_detector", kind="gas_detector"),
        Detector(name="epix", kind="epix100a", shape=(16, 24)),
        Detector(name="jungfrau", kind="jungfrau", segments=2, shape=(2, 8, 16)),
        Detector(name="cam", kind="camera", shape=(10, 12)),
        Detector(name="acq", kind="waveform", shape=(2, 1, 20)),
        Detector(name="yag", kind="camera", source="XppSb3Pim.1:Tm6740.1", stream=80, every=2, shape=(6, 8)),
    ),
    daq=Daq(streams=3, first_fiducial=131_000, trimmed=(9,)),
    epics=(Epics(pvs=(PV("temp", 295.0, address="XPP:TEMP", unit="K"),)),),
    scan=Scan(motors={"delay": [0.5, 1.5, 2.5]}),
    missing=(Missing(events=(7,), detector="epix"),),
    damage=(Damage(events=(5,), word=1 << 12, detector="cam"),),
    cuts={1: (20,)},
)  # fmt: skip


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return simulate.write(RICH, tmp_path_factory.mktemp("rich"))


@pytest.fixture(scope="module")
def run(written):
    return psana_dask.open_run(written.files[0].parent)


def test_facts(run, written):
    assert (run.experiment, run.number, run.format) == ("xpptut15", 54, "xtc")
    assert len(run) == RICH.events
    assert np.array_equal(run.events.time.values, written.times[written.order])
    assert np.array_equal(run.events.fiducial.values, written.fiducials[written.order])
    assert "xtc, 4 streams, 5 files" in repr(run)


@pytest.mark.parametrize(
    ("detector", "field"),
    [("ebeam", "photon_energy"), ("gas_detector", "f_11_enrc"), ("epix", "raw"), ("jungfrau", "raw"),
     ("cam", "raw"), ("acq", "raw"), ("yag", "raw")],
)  # fmt: skip
@pytest.mark.parametrize("chunks", ["auto", None])
def test_values(run, written, detector, field, chunks):
    data = run[detector].dataset(chunks).load()
    present = written.present(detector).any(axis=1)[written.order]
    lost = np.isin(written.order, [5]) & (detector == "cam")
    assert np.array_equal(data.present.values, present & ~lost)
    for k, event in enumerate(written.order.tolist()):
        if data.present.values[k]:
            segments = range(written.present(detector).shape[1])
            parts = [written.value(detector, field, event, segment=s) for s in segments]
            expected = parts[0] if len(parts) == 1 else np.concatenate(parts)
            np.testing.assert_array_equal(data[field].values[k], expected)


def test_units(run):
    assert run.ebeam.photon_energy.attrs["units"] == "eV"
    assert run.gas_detector.f_11_enrc.attrs["units"] == "mJ"
    assert run.acq.volts.attrs["units"] == "V"
    assert run.acq.times.dims == ("time", "acq_channel", "acq_segment", "acq_sample")


def test_event_table(run, written):
    table = run.events
    assert np.flatnonzero(table.trimmed.values).tolist() == np.flatnonzero(written.order == 9).tolist()
    assert set(table.l3.values.tolist()) == {1, 2}
    assert not table.recorder_only.values.any()
    daq = np.stack([table[f"stream_{k}"].values for k in range(3)])
    assert (daq.sum(axis=0) == 1).all()
    assert np.array_equal(table.step.values, written.step[written.order])


def test_damage_is_told_and_kept_if_asked(written):
    folder = written.files[0].parent
    event = int(np.flatnonzero(written.order == 5)[0])
    missing, kept = (psana_dask.open_run(folder, damaged=d).cam for d in ("missing", "keep"))
    assert missing.damage.values[event] == 1 << 12
    assert not missing.present.values[event]
    assert kept.present.values[event]
    np.testing.assert_array_equal(kept.raw.values[event], written.value("cam", "raw", 5))


FORMS = ["{}", "DetInfo({})", "{daq}", "DetInfo({daq})", ":Epix100a", ":Epix100a.0", "*|Epix100a"]


@pytest.mark.parametrize("form", FORMS)
def test_every_spelling_leads_to_the_detector(run, form):
    source = run.epix.raw.attrs["source"]
    assert source.endswith(":Epix100a.0")
    daq = source.replace(".", "-").replace(":", "|")
    assert run[form.format(source, daq=daq)].name == "epix"


@pytest.mark.parametrize("name", ["EBeam", "BldInfo(EBeam)", "ebeam"])
def test_every_spelling_leads_to_beam_line_data(run, name):
    assert run[name].name == "ebeam"


def test_transitions_have_the_names_of_both_formats(run):
    recording = run._recording
    for position in range(3):
        assert len(recording.transitions(position, Service.CONFIGURE)) == 1
        assert len(recording.transitions(position, Service.BEGIN_STEP)) == 3
        assert len(recording.transitions(position, Service.END_STEP)) == 3
        assert len(recording.transitions(position, Service.L1_ACCEPT)) == 12


def test_a_region_reads_only_its_rows(run, written):
    whole = run.jungfrau.field("raw", chunks=None)
    for key in ((3, 1, slice(2, 5)), (slice(4, 9), slice(None), slice(0, 8, 3)), (-1, [1, 0], [7, 2])):
        index = dict(zip(("time", "panel", "row"), key, strict=True))
        np.testing.assert_array_equal(whole.isel(index).values, whole.load().isel(index).values)


def test_a_cache_gives_the_same_run(written, tmp_path):
    folder = written.files[0].parent
    fresh = psana_dask.open_run(folder, cache=False)
    psana_dask.recording.forget_all()
    kept = psana_dask.open_run(folder)
    assert fresh.events.identical(kept.events)
    assert fresh.dataset(chunks=None).load().identical(kept.dataset(chunks=None).load())


@pytest.mark.parametrize("without", ["index", "smalldata", "both"])
def test_files_beside_the_data_are_not_needed(tmp_path, without):
    daq = dataclasses.replace(RICH.daq, index=without == "smalldata")
    spec = dataclasses.replace(RICH, daq=daq, smalldata="offline" if without == "index" else None)
    truth = simulate.write(spec, tmp_path)
    run = psana_dask.open_run(tmp_path, cache=False)
    assert len(run) == RICH.events
    assert not run.problems.what.str.contains("lists").any()
    np.testing.assert_array_equal(run.events.timestamp.values, truth.timestamps[truth.order])


# ---- clocks -------------------------------------------------------------------------------------
def equal_clocks(tmp_path, fiducials, dealt):
    word = int(np.datetime64("2015-01-01T00:00:00", "s").astype(int)) << 32
    spec = RunSpec(
        format="xtc", events=len(fiducials), timestamps=[word | 100] * len(fiducials), smalldata=None,
        detectors=(Detector(name="ebeam", kind="ebeam"),),
        daq=Daq(streams=max(dealt) + 1, fiducials=fiducials, dealt=dealt, index=False),
    )  # fmt: skip
    return simulate.write(spec, tmp_path), word | 100


@pytest.mark.parametrize("fiducials", [(10, 4, 7), (2, 131030, 131036), (131038, 131035, 1)])
def test_equal_clocks_go_by_fiducial_across_the_wrap(tmp_path, fiducials):
    _, word = equal_clocks(tmp_path, fiducials, dealt=(0, 1, 2))
    run = psana_dask.open_run(tmp_path, cache=False)
    table = run.events
    expected = sorted(fiducials, key=lambda f: (f - 131000) % 131040)
    assert table.fiducial.values.tolist() == expected
    assert np.diff(table.time.values).astype(int).tolist() == [1, 1]
    assert table.timestamp.values.tolist() == [word] * 3
    assert run.problems.what.str.contains("moved by").tolist().count(True) == 2
    for k, fiducial in enumerate(expected):
        assert run.event((word >> 32, word & 0xFFFFFFFF, fiducial)).time.values == table.time.values[k]
    listed = ", ".join(map(str, expected))
    with pytest.raises(EventNotFound, match=f"77; those of that timestamp have the fiducial {listed}"):
        run.event((word >> 32, word & 0xFFFFFFFF, 77))


@pytest.mark.parametrize("only", [(0,), (1,), (2,), (0, 2)])
def test_restricting_streams_moves_no_event(tmp_path, only):
    equal_clocks(tmp_path, (10, 4, 7), dealt=(0, 1, 2))
    whole = psana_dask.open_run(tmp_path, cache=False).events
    part = psana_dask.open_run(tmp_path, cache=False, streams=only).events
    told = dict(zip(whole.fiducial.values.tolist(), whole.time.values, strict=True))
    assert [told[f] for f in part.fiducial.values.tolist()] == list(part.time.values)
    assert len(part.time) == len(only)


def test_events_without_a_fiducial_are_problems(tmp_path):
    spec = RunSpec(
        format="xtc", events=4, detectors=(Detector(name="ebeam", kind="ebeam"),), smalldata=None,
        daq=Daq(fiducials=(5, 0x1FFFF, 11, 14)),
    )  # fmt: skip
    simulate.write(spec, tmp_path)
    run = psana_dask.open_run(tmp_path, cache=False)
    assert run.events.fiducial.values.tolist() == [5, 11, 14]
    assert run.problems.what.str.contains("without a valid fiducial").sum() == 1


def test_datagrams_out_of_order_are_sorted(tmp_path):
    spec = dataclasses.replace(RICH, swapped={0: ((3, 6),)}, daq=Daq(streams=1), cuts={})
    truth = simulate.write(spec, tmp_path)
    run = psana_dask.open_run(tmp_path, cache=False)
    assert np.array_equal(run.events.timestamp.values, np.sort(truth.timestamps))
    assert run.problems.what.str.contains("out of time order").any()


# ---- configurations -----------------------------------------------------------------------------
def test_settings_that_change_with_a_step_change_shapes(tmp_path):
    """A CSPAD whose regions of interest change: missing sections are missing panels."""
    cspad = Detector(name="cspad", kind="cspad", config=Config(values={"roi_masks": 0xFF}))
    spec = RunSpec(format="xtc", events=2, detectors=(cspad,), smalldata=None)
    truth = simulate.write(spec, tmp_path)
    data = psana_dask.open_run(tmp_path, cache=False).cspad.dataset(None).load()
    assert data.raw.shape == (2, 32, 185, 388)
    assert data.panel_present.values.sum(axis=1).tolist() == [8, 8]
    np.testing.assert_array_equal(data.raw.values[0][:8], truth.value("cspad", "raw", 0)[:8])


@pytest.mark.parametrize("codec", ["hist16", "histn"])
def test_compressed_frames_equal_plain_ones(tmp_path, codec):
    camera = Detector(name="cam", kind="camera", shape=(20, 24), compression=codec)
    truth = simulate.write(RunSpec(format="xtc", events=5, detectors=(camera,)), tmp_path)
    raw = psana_dask.open_run(tmp_path, cache=False).cam.raw
    for k, event in enumerate(truth.order.tolist()):
        np.testing.assert_array_equal(raw.values[k], truth.value("cam", "raw", event))
    np.testing.assert_array_equal(raw[2:4, 5:9, 3].values, raw.values[2:4, 5:9, 3])


def test_a_type_that_no_table_knows_keeps_its_bytes(tmp_path, written):
    path = tmp_path / "x-r0001-s00-c00.xtc"
    data = bytearray(written.streams[0][0].read_bytes())
    word = (15 | 7 << 16).to_bytes(4, "little")  # EBeam version 7 ...
    strange = (15 | 77 << 16).to_bytes(4, "little")  # ... to a version that never was
    path.write_bytes(bytes(data).replace(word, strange))
    run = psana_dask.open_run(path, cache=False)
    assert run["EBeam"].fields == ["e_beam_bld_v77_bytes"]
    assert run["EBeam"].e_beam_bld_v77_bytes.dtype == np.uint8


def test_growing_files_are_indexed_further(tmp_path, written):
    source = written.streams[0][0]
    content, path = source.read_bytes(), tmp_path / source.name
    path.write_bytes(content[: len(content) // 2])
    with pytest.warns(PartialRunWarning):
        half = psana_dask.open_run(path)
    path.write_bytes(content[: len(content) // 2])
    with path.open("ab") as file:
        file.write(content[len(content) // 2 :])
    whole = psana_dask.open_run(path)
    fresh = psana_dask.open_run(path, cache=False)
    assert len(half) < len(whole) == len(fresh)
    assert whole.events.identical(fresh.events)
    assert whole.ebeam.photon_energy.identical(fresh.ebeam.photon_energy)


# ---- what is read -------------------------------------------------------------------------------
@pytest.fixture
def read(monkeypatch):
    """Bytes of each reading of pieces."""
    sizes, original = [], FileSource.read_pieces

    def counted(self, offsets, lengths, out, places):
        sizes.append(int(lengths.sum()))
        return original(self, offsets, lengths, out, places)

    monkeypatch.setattr(FileSource, "read_pieces", counted)
    return sizes


WORDS = ["frame_number", "acq_count", "temperatures", "last_word", "calibration_rows"]


@pytest.mark.parametrize("field", WORDS)
def test_a_word_of_a_frame_is_read_alone(run, read, field):
    lazy = run.epix.field(field, chunks=None)
    read.clear()
    values = lazy.values
    assert sum(read) <= values[:, ...].nbytes + 4 * len(values)


@pytest.mark.parametrize("field", ["quads_quad", "quads_sb_temp", "quads_ticks"])
def test_a_word_of_a_quad_is_read_from_its_head(tmp_path, read, field):
    cspad = Detector(name="cspad", kind="cspad", config=Config(values={"roi_masks": 0xFF}))
    simulate.write(RunSpec(format="xtc", events=3, detectors=(cspad,), smalldata=None), tmp_path)
    run = psana_dask.open_run(tmp_path, cache=False)
    lazy = run.cspad.field(field, chunks=None)
    (some,) = run._view.target(run.cspad._entry.channels[field]).reader().payloads.some(np.arange(3))
    whole = some.kind.decode(some.rows, some.blocks)
    read.clear()
    np.testing.assert_array_equal(lazy.values, whole)
    assert sum(read) <= 3 * 4 * 32


def test_one_event_reads_one_frame(run, read):
    lazy = run.epix.field("raw", chunks=None)
    read.clear()
    frame = lazy.isel(time=3).values
    assert sum(read) == frame.nbytes
    read.clear()
    rows = lazy.isel(time=slice(2, 6), row=slice(4, 7)).values
    assert sum(read) == rows.nbytes


def test_a_damaged_begin_run_is_outvoted(tmp_path):
    spec = RunSpec(
        format="xtc", number=3, events=6, detectors=(Detector(name="ebeam", kind="ebeam"),),
        daq=Daq(streams=2), smalldata=None,
    )  # fmt: skip
    truth = simulate.write(spec, tmp_path)
    (path,) = truth.streams[1]
    data = bytearray(path.read_bytes())
    begin = next(row for row in truth.datagrams[1] if row["service"] == TransitionId.BEGIN_RUN)
    data[int(begin["offset"]) + 18] ^= 0x40  # a high byte of the run number
    path.write_bytes(data)
    run = psana_dask.open_run(tmp_path, cache=False)
    assert (run.number, len(run)) == (3, 6)
    assert run.problems.what.str.contains("BeginRun says run").sum() == 1


def test_fields_answer_to_the_names_that_psana_has(run):
    assert run["ebeam", "ebeamPhotonEnergy"].identical(run.ebeam.photon_energy)
    assert run.ebeam["ebeamPkCurrBC2"].name == "ebeam_peak_current_bc2"
    assert run.gas_detector["f_11_ENRC"].attrs["field"] == "f_11_ENRC"

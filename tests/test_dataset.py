"""Detectors as xarray Datasets: names, joins, dimensions, presence, damage, types, coordinates."""

import numpy as np
import pytest
import xarray as xr

import psana_dask
from psana_dask import simulate
from psana_dask.errors import DroppedWarning, NameNotFound
from psana_dask.simulate import Algorithm, Damage, Detector, Field, Missing, RunSpec

FIELDS = {"epix": ["raw", "aux"], "tt": ["raw", "fex_ampl", "fex_fltpos", "fex_status"]}


def opened(folder, *detectors, **changes):
    spec = RunSpec(**{"events": 12, "detectors": detectors, **changes})
    return simulate.write(spec, folder), psana_dask.open(folder)


# ---- names --------------------------------------------------------------------------------------
NAMES = {
    "detector": ("epix", {"epix_raw", "epix_aux", "epix_damage"}),
    "field": ("epix.raw", {"epix_raw", "epix_damage"}),
    "pair": (("epix", "raw"), {"epix_raw", "epix_damage"}),
    "list": (["epix.raw", "wave"], {"epix_raw", "epix_damage", "wave_raw", "wave_damage"}),
    "list of pairs": (
        [("epix", "aux"), ("wave", "raw")],
        {"epix_aux", "epix_damage", "wave_raw", "wave_damage"},
    ),
    "two detectors": (("epix", "wave"), {"epix_raw", "epix_aux", "epix_damage", "wave_raw", "wave_damage"}),
    "pattern": ("?pix", {"epix_raw", "epix_aux", "epix_damage"}),
    "name in the file": ("tt.image", {"tt_raw", "tt_damage"}),
    "field of an algorithm": ("tt.fex.ampl", {"tt_fex_ampl", "tt_damage"}),
    "twice": (["epix", "epix.raw"], {"epix_raw", "epix_aux", "epix_damage"}),
}


@pytest.mark.parametrize("kind", NAMES)
def test_names(rich_run, kind):
    names, variables = NAMES[kind]
    assert set(rich_run.dataset(names)) == variables


def test_without_names_everything_is_there(rich_run):
    data = rich_run.dataset()
    assert {v.partition("_")[0] for v in data} == set(rich_run.detectors)
    for name, detector in rich_run.detectors.items():
        assert {f"{name}_{f}" for f in detector.fields} <= set(data)


WRONG = {
    "epixx": r"no detector 'epixx'; did you mean epix\?",
    "epix.row": r"no field of epix 'row'; did you mean raw\?",
    "z*": r"no detector 'z\*'",
    "nothing.raw": "no detector 'nothing'",
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_names(rich_run, name):
    with pytest.raises(NameNotFound, match=WRONG[name]):
        rich_run.dataset([name])


def test_two_fields_with_one_name_are_an_error_that_names_both(tmp_path):
    field = lambda name: (Algorithm(fields=(Field(name),)),)  # noqa: E731
    _, run = opened(
        tmp_path, Detector(name="a", algorithms=field("b_c")), Detector(name="a_b", algorithms=field("c"))
    )
    with pytest.raises(ValueError, match=r"a.b_c and a_b.c would both be a_b_c: ask for one of them"):
        run.dataset()
    assert set(run.dataset("a")) == {"a_b_c", "a_damage"}


@pytest.mark.parametrize("field", ["present", "is_present", "panel_present", "damage", "time", "panel"])
def test_fields_named_like_ours(tmp_path, field):
    truth, run = opened(tmp_path, Detector(name="det", algorithms=(Algorithm(fields=(Field(field, "i4"),)),)))
    (public,) = run.det.fields
    want = [truth.value("det", field, e) for e in range(12)]
    assert run["det", field].values.tolist() == want
    assert run.dataset(chunks=None)[f"det_{public}"].values.tolist() == want
    assert run.det.present.values.all()
    assert run.det.damage.values.tolist() == [0] * 12


# ---- joins --------------------------------------------------------------------------------------
def test_a_join_with_names_is_inner_and_says_what_it_dropped(rich, rich_run):
    data = rich_run.dataset(["epix", "tt"])
    both = rich.present("epix").any(axis=1) & rich.present("tt", 0)
    assert data.timestamp.values.tolist() == rich.timestamps[both].tolist()
    assert (data.attrs["join"], data.attrs["dropped_events"]) == ("inner", 40 - both.sum())
    assert data.tt_present.values.all()
    assert data.epix_raw.dtype == np.uint16


def test_a_join_without_names_is_outer(rich, rich_run, expected):
    data = rich_run.dataset()
    assert (data.attrs["join"], data.attrs["dropped_events"], data.sizes["time"]) == ("outer", 0, 40)
    for name in rich.detectors:
        assert data[f"{name}_present"].values.tolist() == rich.present(name).any(axis=1).tolist()
    np.testing.assert_array_equal(data.tt_raw.values, expected(rich, "tt", "image"))


def test_joins_may_be_chosen(rich_run):
    assert rich_run.dataset(["epix", "tt"], join="outer").sizes["time"] == 40
    inner = rich_run.dataset(join="inner")
    assert bool(
        np.all([v.values for n, v in inner.coords.items() if str(n).endswith("_present") and v.ndim == 1])
    )
    with pytest.raises(ValueError, match=r"join='left': use .inner. .* or .outer."):
        rich_run.dataset(join="left")


def test_slow_data_and_events_take_no_part_in_a_join(rich_run):
    assert rich_run.dataset("tt").sizes["time"] == 8
    assert len(rich_run.events.time) == len(rich_run.epics.at().time) == 40


def test_a_detector_that_never_appears_is_left_out_with_a_warning(tmp_path):
    gone = Missing(events=tuple(range(12)), detector="cam")
    gmd, cam = Detector(name="gmd", kind="gmd"), Detector(name="cam", kind="camera", shape=(4, 6))
    _, run = opened(tmp_path, gmd, cam, missing=(gone,))
    with pytest.warns(DroppedWarning, match="left out, as no event has them: cam"):
        data = run.dataset()
    assert data.attrs["absent_detectors"] == ["cam"]
    assert not [v for v in data.variables if str(v).startswith("cam")]
    assert data.sizes["time"] == 12
    with pytest.raises(AttributeError, match=r"cam.raw is declared, but no event of the run has it"):
        run.cam.raw  # noqa: B018
    for values, dtype in ((run.cam.present, np.bool_), (run.cam.damage, np.uint32)):
        assert values.dtype == dtype
        assert not values.values.any()
        np.testing.assert_array_equal(values.time, run.events.time)


def test_a_detector_that_the_selection_lacks_is_left_out(rich_run):
    with pytest.warns(DroppedWarning, match="no event has them: tt"):
        data = rich_run.isel([0, 1]).dataset(["wave", "tt"])
    assert data.sizes["time"] == 2


# ---- types --------------------------------------------------------------------------------------
@pytest.mark.parametrize("join", ["inner", "outer"])
@pytest.mark.parametrize("chunks", [None, "auto"])
def test_a_join_never_changes_a_type(rich, rich_run, expected, join, chunks):
    data = rich_run.dataset(join=join, chunks=chunks)
    codes = ("u1", "u8", "i1", "i8", "f4", "f8")
    typed = [("types", f"{kind}_{code}", None) for kind in "va" for code in codes]
    frames = [("epix", "raw", "raw"), ("tt", "image", "raw"), ("wave", "waveform", "raw")]
    for name, field, public in [*frames, ("tt", "ampl", "fex_ampl"), *typed]:
        array = data[f"{name}_{public or field}"]
        assert array.dtype == expected(rich, name, field).dtype
        assert array.compute().dtype == array.dtype


def test_missing_values_are_said_to_be_missing(rich, rich_run):
    data = rich_run.dataset(chunks=None).load()
    absent = ~rich.present("tt", 0)
    assert np.isnan(data.tt_fex_ampl.values[absent]).all()
    assert not data.tt_raw.values[absent].any()
    masked = data.tt_raw.psana.masked()
    assert np.isnan(masked.values[absent]).all()
    assert not np.isnan(masked.values[~absent]).any()


# ---- missing segments and damage ----------------------------------------------------------------
def test_the_other_segments_stay(rich, rich_run, expected):
    data = rich_run.dataset("epix", join="outer")
    want = rich.present("epix")
    assert data.epix_panel_present.dims == ("time", "panel")
    assert data.epix_panel_present.values.tolist() == want.tolist()
    assert want[3].tolist() == [False, True, False]
    np.testing.assert_array_equal(data.epix_raw.values, expected(rich, "epix", "raw"))
    masked = data.epix_raw.psana.masked()
    assert np.array_equal(np.isnan(masked.values).all(axis=(2, 3)), ~want)


def test_presence_of_segments_that_hold_several_panels(rich, rich_run):
    present = rich_run.jf.raw.jf_panel_present.values
    assert present.tolist() == np.repeat(rich.present("jf"), 2, axis=1).tolist()
    assert present[9].tolist() == [True, True, False, False]


@pytest.mark.parametrize("damaged", ["missing", "keep"])
def test_damage(rich, expected, damaged):
    run = psana_dask.open(rich.folder, damaged=damaged)
    keep = damaged == "keep"
    data = run.dataset(["epix", "jf"], join="outer")
    for name in ("epix", "jf"):
        words = np.bitwise_or.reduce([rich.damage(name, s) for s in rich.segments(name)])
        assert data[f"{name}_damage"].values.tolist() == words.tolist()
        np.testing.assert_array_equal(data[f"{name}_raw"].values, expected(rich, name, "raw", damaged=keep))
    assert data.attrs["damaged"] == damaged
    assert bool(data.epix_present[5]) == keep


def test_a_word_for_damage_that_means_nothing(rich):
    with pytest.raises(ValueError, match='damaged=\'drop\': use "missing" or "keep"'):
        psana_dask.open(rich.folder, damaged="drop")


def test_another_algorithm_has_a_presence_of_its_own(tmp_path):
    def fields(name):
        return (
            Algorithm("raw", fields=(Field("value", "u2", (4, 6)),)),
            Algorithm("fex", fields=(Field("x"),)),
        )

    _, run = opened(tmp_path, Detector(name="det", algorithms=fields("det")))
    data = run.det.dataset()
    assert {"present", "fex_present"} <= set(data.coords)
    assert {"damage", "fex_damage"} <= set(data)


# ---- dimensions and coordinates -----------------------------------------------------------------
def test_dimensions_that_disagree_get_the_detector_in_front(tmp_path):
    shapes = {"a": (4, 6), "b": (4, 6), "c": (5, 6)}
    cams = [Detector(name=n, kind="camera", segments=2, shape=s) for n, s in shapes.items()]
    other = Detector(name="d", kind="camera", segments=(0, 7), shape=(4, 6))
    _, run = opened(tmp_path, *cams, other)
    same = run.dataset(["a", "b"])
    assert same.a_raw.dims == same.b_raw.dims == ("time", "panel", "row", "col")
    rows = run.dataset(["a", "c"])
    assert rows.a_raw.dims == ("time", "panel", "a_row", "col")
    assert rows.c_raw.dims == ("time", "panel", "c_row", "col")
    panels = run.dataset(["a", "d"])
    assert panels.d_raw.dims == ("time", "d_panel", "row", "col")
    assert panels.d_panel.values.tolist() == [0, 7]
    assert run.d.raw.dims == ("time", "panel", "row", "col")


def test_arrays_that_are_no_frames_have_dimensions_of_their_own(rich_run):
    assert rich_run.wave.raw.dims == ("time", "wave_waveform_0")
    assert rich_run.epix.aux.dims == ("time", "panel", "epix_aux_0", "epix_aux_1")
    assert rich_run.timing.sequenceValues.dims == ("time", "timing_sequenceValues_0")


def test_coordinates(rich, rich_run):
    raw = rich_run.epix.raw
    assert raw.time.values.tolist() == rich.times.astype("M8[ns]").tolist()
    assert raw.time.dtype == "M8[ns]"
    assert raw.indexes["time"].is_unique
    assert raw.timestamp.values.tolist() == rich.timestamps.tolist()
    assert raw.step.values.tolist() == rich.step.tolist()
    assert raw.pulse_id.values.tolist() == rich.pulse_ids.tolist()
    assert raw.panel.values.tolist() == [2, 3, 7]
    assert rich_run.jf.raw.panel.values.tolist() == [0, 1, 2, 3]
    assert rich_run.tt.raw.coords.keys() == {"time", "timestamp", "step", "pulse_id", "tt_present"}


def test_pulse_ids_are_a_coordinate_only_where_every_event_has_one(tmp_path):
    timing, gmd = Detector(name="timing", kind="timing"), Detector(name="gmd", kind="gmd", stream=1)
    _, run = opened(tmp_path, timing, gmd, missing=(Missing(events=(4,), stream=0),))
    assert "pulse_id" not in run.events.coords
    assert "pulse_id" in run.isel(slice(5, None)).gmd.milliJoulesPerPulse.coords


def test_attributes_say_where_the_data_come_from(rich_run):
    attrs = rich_run.epix.raw.attrs
    assert attrs == {
        "detector": "epix", "alias": "epix", "det_type": "epix10ka", "det_id": ["epix-1234"] * 3,
        "algorithm": "raw", "version": "2.0.1", "field": "raw",
        "experiment": "tstx00117", "run": 7, "format": "xtc2",
    }  # fmt: skip
    whole = rich_run.dataset().attrs
    assert (whole["experiment"], whole["run"], whole["format"]) == ("tstx00117", 7, "xtc2")


def test_the_event_table(rich, rich_run):
    events = rich_run.events
    assert events.time.values.tolist() == rich.times.astype("M8[ns]").tolist()
    assert list(events.data_vars) == [f"stream_{stream}" for stream in (0, 1, 2, 3)]
    for stream in (0, 1, 2, 3):
        assert events[f"stream_{stream}"].values.tolist() == rich.in_stream(stream).tolist()
    table = events.to_dataframe()  # a row for each event, not for each event and stream
    np.testing.assert_array_equal(table.index, rich.times.astype("M8[ns]"))


def test_one_event_is_loaded_whole(rich, rich_run):
    event = rich_run.event(rich.times[7])
    np.testing.assert_array_equal(event.epix_raw.values, rich.value("epix", "raw", 7))
    np.testing.assert_array_equal(event.tt_raw.values, rich.value("tt", "image", 7))
    assert "tt_raw" not in rich_run.event(rich.times[8])
    assert all(isinstance(v.data, np.ndarray) for v in event.variables.values())


# ---- trees --------------------------------------------------------------------------------------
def test_the_tree_has_events_epics_and_a_node_per_detector(rich, rich_run, expected):
    tree = rich_run.tree()
    assert set(tree.children) == {"events", "epics", *rich.detectors}
    assert (tree.attrs["run"], len(tree.variables)) == (7, 0)
    assert set(tree["epics"].children) == {"temperature", "valve", "note"}
    assert tree["epics/temperature/value"].values.tolist() == rich.epics_updates("temperature")[1]
    np.testing.assert_array_equal(tree["epix/raw"].values, expected(rich, "epix", "raw"))
    assert tree["events"].sizes["time"] == 40


@pytest.mark.parametrize("alias", ["events", "Epics"])
def test_a_detector_named_like_a_node_hides_nothing(tmp_path, alias):
    epics = simulate.Epics(pvs=(simulate.PV("T", 1.5),))
    truth, run = opened(tmp_path, Detector(name=alias, kind="gmd"), epics=(epics,))
    tree = run.tree()
    assert "stream_0" in tree["events"]
    assert "T" in tree["epics"].children
    found = tree[f"{alias.lower()}_/milliJoulesPerPulse"].values.tolist()
    assert found == [truth.value(alias, "milliJoulesPerPulse", e) for e in range(12)]


def test_datasets_can_be_written(rich_run, tmp_path):
    data = rich_run.dataset(["epix", "gmd"])
    data.to_netcdf(tmp_path / "run.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "run.nc", engine="h5netcdf") as again:
        xr.testing.assert_equal(again.load(), data.compute())


def test_damage_of_a_stream_is_told_by_all_its_detectors(tmp_path):
    damage = (Damage(events=(3,), stream=0, word=0x40),)
    _, run = opened(tmp_path, Detector(name="a", kind="gmd"), Detector(name="b", kind="gmd"), damage=damage)
    for name in "ab":
        assert run[name].damage.values.tolist() == [0, 0, 0, 0x40, *[0] * 8]


def test_chunks_along_no_dimension_are_refused(rich_run):
    with pytest.raises(ValueError, match="chunks along 'tim': no such dimension; did you mean time"):
        rich_run.dataset("gmd", chunks={"tim": 8})

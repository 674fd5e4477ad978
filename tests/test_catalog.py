"""What a run declares, and the names that users know it by."""

import numpy as np
import pytest

import psana_dask
from psana_dask import simulate
from psana_dask.catalog import public_names
from psana_dask.errors import DuplicateData
from psana_dask.model import FieldSpec
from psana_dask.names import RESERVED, snake_case
from psana_dask.pipeline import catalog_of
from psana_dask.simulate import Algorithm, Config, Detector, Field, RunSpec

NAMES = {
    "epixquad": "epixquad",
    "XppGon.0": "xpp_gon_0",
    "cspad-2": "cspad_2",
    "1QuadLeft": "d_1quad_left",
    "EBeam": "ebeam",
    "MfxEndstation-0|Epix100a-0": "mfx_endstation_0_epix100a_0",
    "...": "d_",
}


@pytest.mark.parametrize(("alias", "name"), NAMES.items())
def test_names_are_identifiers(alias, name):
    assert snake_case(alias) == name
    assert name.isidentifier()


def opened(folder, *detectors, **changes):
    simulate.write(RunSpec(events=4, detectors=detectors, **changes), folder)
    return psana_dask.open(folder)


def test_two_sources_with_one_name(tmp_path):
    run = opened(tmp_path, *(Detector(name=n, kind="gmd") for n in ("My.Det", "my_det", "My-Det")))
    assert {n: d.alias for n, d in run.detectors.items()} == {
        "my_det": "My-Det", "my_det_1": "My.Det", "my_det_2": "my_det",
    }  # fmt: skip


@pytest.mark.parametrize("spelling", ["epix_quad_1", "EpixQuad.1", "epixquad.1", "EPIX_QUAD_1"])
def test_every_spelling_finds_the_detector(tmp_path, spelling):
    run = opened(tmp_path, Detector(name="EpixQuad.1", kind="gmd"))
    assert run[spelling].name == "epix_quad_1"


FIELDS = (
    Algorithm("raw", (1, 2, 3), (Field("arrayRaw", "u2", (4, 6)), Field("gain", "f4"), Field("temp.ture"))),
    Algorithm("fex", (4, 5, 6), (Field("ampl"), Field("calib", "f4", (4, 6)), Field("time"))),
)


def test_fields_get_names_that_never_hide_ours(tmp_path):
    run = opened(tmp_path, Detector(name="cam", algorithms=FIELDS, det_type="opal"))
    files = {n: c.id[1:] for n, c in catalog_of(run._recording).detectors["cam"].channels.items()}
    assert files == {
        "raw": ("raw", "arrayRaw"),
        "raw_gain": ("raw", "gain"),
        "temp_ture": ("raw", "temp.ture"),
        "fex_ampl": ("fex", "ampl"),
        "fex_calib": ("fex", "calib"),
        "fex_time": ("fex", "time"),
    }
    assert (set(files) & RESERVED) == {"raw"}
    attrs = run.cam.raw.attrs
    assert (attrs["field"], attrs["algorithm"], attrs["version"]) == ("arrayRaw", "raw", "1.2.3")


@pytest.mark.parametrize(
    ("spelling", "public"),
    [
        ("raw", "raw"),
        ("arrayRaw", "raw"),
        ("raw.arrayRaw", "raw"),
        ("raw.gain", "raw_gain"),
        ("fex.calib", "fex_calib"),
        ("ampl", "fex_ampl"),
        ("temp.ture", "temp_ture"),
    ],
)
def test_fields_answer_to_the_names_of_the_file(tmp_path, spelling, public):
    run = opened(tmp_path, Detector(name="cam", algorithms=FIELDS))
    assert run["cam", spelling].name == f"cam_{public}"


@pytest.mark.parametrize(
    "kind", ["epix10ka", "jungfrau", "camera", "pixels", "timetool", "waveform", "andor"]
)
def test_raw_means_the_pixels_whatever_the_file_calls_them(tmp_path, kind):
    shapes = {"jungfrau": (1, 6, 8), "waveform": (20,)}
    shape = shapes.get(kind, (6, 8))
    run = opened(tmp_path, Detector(name="det", kind=kind, shape=shape))
    assert run.det.raw.shape == (4, *shape[-2:])


def test_coordinates_are_attributes_of_every_detector(rich, rich_run):
    assert rich_run.wave.time.values.tolist() == rich.times.astype("M8[ns]").tolist()
    assert rich_run.wave.timestamp.values.tolist() == rich.timestamps.tolist()
    assert rich_run.wave.pulse_id.values.tolist() == rich.pulse_ids.tolist()
    assert rich_run.wave.step.values.tolist() == rich.step.tolist()
    assert rich_run.epix.panel.values.tolist() == [2, 3, 7]
    with pytest.raises(AttributeError, match="no field of wave 'panel'"):
        rich_run.wave.panel  # noqa: B018


def test_several_candidates_for_pixels_are_no_guess():
    channel = type("C", (), {})

    def make(name, dtype, rank):
        made = channel()
        made.algorithm, made.field, made.spec = "raw", name, FieldSpec(name, np.dtype(dtype), rank)
        return made

    assert list(public_names([make("a", "u2", 2), make("b", "u2", 2)])) == ["a", "b"]
    assert list(public_names([make("a", "u2", 2), make("b", "f4", 2)])) == ["raw", "b"]


def test_fields_that_would_get_the_same_name(tmp_path):
    fields = (Algorithm("raw", fields=(Field("x.y"), Field("x_y"), Field("x-y"))),)
    run = opened(tmp_path, Detector(name="det", algorithms=fields))
    assert run.det.fields == ["x_y", "x_y_1", "x_y_2"]
    assert run.det["raw.x-y"].attrs["field"] == "x-y"


def test_slow_data_and_settings_are_no_detectors(rich_run):
    assert sorted(rich_run.detectors) == ["epix", "gmd", "hsd", "jf", "timing", "tt", "types", "wave"]
    assert "config" not in " ".join(rich_run.epix.fields)


def test_a_detector_with_nothing_but_settings(tmp_path):
    config = Config(values={"delay": 5})
    run = opened(
        tmp_path, Detector(name="gmd", kind="gmd"), Detector(name="box", algorithms=(), config=config)
    )
    assert run.box.fields == []
    assert run.config("box")[0].delay == 5
    assert "(settings only)" in repr(run)


def test_a_segment_in_two_streams_is_an_error_that_names_both(tmp_path):
    twice = [Detector(name="cam", kind="camera", shape=(4, 6), stream=s) for s in (3, 8)]
    truth = simulate.write(RunSpec(events=4, detectors=tuple(twice)), tmp_path)
    places = rf"stream 3 \({truth.streams[3][0]}\) and stream 8 \({truth.streams[8][0]}\)"
    with pytest.raises(DuplicateData, match=rf"cam.raw.image segment 0 is in {places}: open .* streams="):
        psana_dask.open(tmp_path)
    run = psana_dask.open(tmp_path, streams=[8])
    assert bool(run.cam.present.all())


def test_what_a_detector_is(rich_run):
    source = rich_run.epix.source
    assert source["det_ids"] == ["epix-1234"] * 3
    assert (source["alias"], source["det_type"], source["algorithms"]) == (
        "epix",
        "epix10ka",
        {"raw": "2.0.1"},
    )
    assert rich_run.tt.source["algorithms"] == {"raw": "2.0.0", "fex": "4.5.6"}

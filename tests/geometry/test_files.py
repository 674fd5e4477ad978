"""Geometry files of every format, both ways, by name, by ending and by content; the commands on them."""

import json

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from psana_dask import geometry, simulate
from psana_dask.calib.constants import Constants, RunRange
from psana_dask.calib.localstore import LocalStore
from psana_dask.cli import main
from psana_dask.errors import GeometryError
from psana_dask.geometry import tree
from psana_dask.geometry.convert import nexus
from psana_dask.geometry.files import FORMATS, as_geometry, form_of, text_of
from psana_dask.simulate import Detector, RunSpec

QUAD = geometry.moved(geometry.default_geometry("epix10kaquad"), "CAMERA", 0, by=(100.25, -50.5, 9e5))
# float32 of Cheetah's z in um and of pyFAI's corners: 1e5 um to 7 digits
LOSS = {"cheetah": 1e-2, "pyfai": 1e-2}


def assert_same_pixels(found, expected, tolerance):
    pairs = zip(*(tree.coordinates(g, wide_centres=False) for g in (found, expected)), strict=True)
    for ours, theirs in pairs:
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance)


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_comes_back(form, tmp_path):
    if form == "pyfai":
        pytest.importorskip("pyFAI")
    path = tmp_path / f"detector{FORMATS[form].suffixes[0]}"
    assert geometry.save(QUAD, path) == path
    assert form_of(path) == form
    back = geometry.load(path)
    assert back.segment.name == "EPIX10KA:V1"
    # 1e-3 um are the 1e-9 m of issue 5
    assert_same_pixels(back, QUAD, LOSS.get(form, 1e-3))
    assert_same_pixels(geometry.load(path, form, segment="EPIX10KA:V1"), QUAD, LOSS.get(form, 1e-3))
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("detector", ["jungfrau", "cspad2x2", "epix100"])
def test_segment_types_are_recognised(form, detector, tmp_path):
    if form == "pyfai":
        pytest.importorskip("pyFAI")
    known = geometry.default_geometry(detector, panels=1 if detector == "jungfrau" else None)
    path = tmp_path / "detector"
    back = geometry.load(geometry.save(known, path, form))
    assert back.segment.name == known.segment.name
    # a default stands up to 1 m away, which float32 has to 0.06 um
    assert_same_pixels(back, known, 0.1 if form in LOSS else 1e-3)


SENSOR = "MTRX:V2:64:96:50:75"


@pytest.mark.parametrize("form", FORMATS)
def test_a_camera_of_one_sensor(form, tmp_path):
    if form == "pyfai":
        pytest.importorskip("pyFAI")
    known = geometry.Geometry((geometry.Part("IP", 0, SENSOR, 0, (10.0, -20.0, -1e5), (90.0, 0.0, 0.0)),))
    back = geometry.load(geometry.save(known, tmp_path / "camera", form))
    assert back.segment.name == SENSOR
    assert_same_pixels(back, known, LOSS.get(form, 1e-3))


@pytest.mark.parametrize("form", ["crystfel", "nexus", "dxtbx"])
def test_columns_that_are_no_pixels_come_back_when_the_type_is_said(form, tmp_path):
    known = geometry.default_geometry("archon", shape=(300, 4800))
    back = geometry.load(geometry.save(known, tmp_path / "archon", form), segment="ARCHON:V1")
    assert back.shape == known.shape
    for ours, theirs in zip(tree.coordinates(back), tree.coordinates(known), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-3)


def test_a_pixel_map_with_pixels_that_are_nowhere_is_refused(tmp_path):
    known = geometry.default_geometry("archon", shape=(300, 4800))
    path = geometry.save(known, tmp_path / "archon.h5")
    with pytest.raises(GeometryError, match=r"some pixels have no position \(NaN\)"):
        geometry.load(path, segment="ARCHON:V1")


def test_a_pyfai_detector_of_its_own_is_one_sensor(tmp_path):
    pytest.importorskip("pyFAI")
    path = tmp_path / "pilatus.poni"
    lines = ["poni_version: 2.1", "Detector: Pilatus100k", 'Detector_config: {"orientation": 3}']
    path.write_text("\n".join([*lines, "Distance: 0.1", "Poni1: 0.01", "Poni2: 0.02", *("Rot1: 0",) * 1]))
    found = geometry.load(path)
    assert found.segment.name == "MTRX:V2:195:487:172:172"
    x, y, z = tree.coordinates(found, frame="lab")
    # the point of normal incidence lies on the beam: rows go up, columns to the right seen along it
    assert y[0, 0, 0] == pytest.approx(86 - 1e4, abs=1e-2)
    assert x[0, 0, 0] == pytest.approx(2e4 - 86, abs=1e-2)
    np.testing.assert_allclose(z, 1e5, atol=1e-2)


def test_options_of_formats(tmp_path):
    path = tmp_path / "d.geom"
    geometry.save(QUAD, path, clen=0.05, data="/d", mask="/m", panel_axis=True)
    text = path.read_text()
    assert all(word in text for word in ("clen = 0.05", "data = /d", "mask = /m", "dim3 = fs"))
    assert text == text_of(QUAD, "crystfel", clen=0.05, data="/d", mask="/m", panel_axis=True)
    assert_same_pixels(geometry.load(path, distance=0.05), QUAD, 1e-3)
    # half a pixel off along both
    off = geometry.load(path, corner="centre")
    assert_same_pixels(geometry.moved(off, "CAMERA", 0, by=(-50.0, -50.0, 0.0)), QUAD, 1e-3)
    with h5py.File(
        geometry.save(QUAD, tmp_path / "d.nxs", wavelength=1.3, start_time="2024-06-14T06:12:03Z")
    ) as f:
        assert f["entry/instrument/beam/incident_wavelength"][()] == 1.3
        assert f["entry/start_time"].asstr()[()] == "2024-06-14T06:12:03Z"
    with pytest.raises(GeometryError, match="nexus has no option 'clen'; it has title, start_time"):
        geometry.save(QUAD, tmp_path / "d.nxs", clen=1)
    with pytest.raises(GeometryError, match="psana has no option 'clen'; it has none"):
        geometry.save(QUAD, tmp_path / "d.data", clen=1)


def test_files_that_cannot_be_read_or_written(tmp_path):
    def written(name, text):
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    cases = [
        (tmp_path / "none.data", "no file"),
        (written("short.data", "\nIP 0 CAMERA 0 1 2\n"), r"short\.data: line 2: 6 fields instead of 13"),
        (written("d.geom", "a/fs = x\na/ss\n"), r"d\.geom: line 2: not of the form"),
        (written("d.expt", '{"panels":\n[}'), "line 2: not JSON"),
        (written("e.expt", '{"panels": [{"name": 1}]}'), "not a dxtbx detector model: KeyError"),
        (written("latin.data", b"IP 0 CAMERA\xff"), "not a text"),
    ]
    with h5py.File(tmp_path / "empty.nxs", "w"):
        cases.append((tmp_path / "empty.nxs", "one NXdetector with modules is wanted, found none"))
    for path, message in cases:
        with pytest.raises(GeometryError, match=message):
            geometry.load(path)
    with pytest.raises(GeometryError, match=r"this one has no x"):
        geometry.load(tmp_path / "empty.nxs", "cheetah")
    with pytest.raises(GeometryError, match=r"d\.foo: the ending says no format; there are psana \(\.data"):
        geometry.save(QUAD, tmp_path / "d.foo")
    with pytest.raises(GeometryError, match="no format 'crystfell'; did you mean crystfel"):
        geometry.save(QUAD, tmp_path / "d.geom", "crystfell")
    before = (tmp_path / "d.geom").read_text()
    with pytest.raises(TypeError):
        geometry.save(QUAD, tmp_path / "d.geom", bad=[1])
    assert (tmp_path / "d.geom").read_text() == before
    assert as_geometry(QUAD) is QUAD


def test_a_file_with_two_detectors_is_refused(tmp_path):
    path = tmp_path / "two.nxs"
    with h5py.File(path, "w") as file:
        for name in ("a", "b"):
            nexus.write_nxmx(file.create_group(name), geometry.default_geometry("epix100"))
    with pytest.raises(GeometryError, match="found /a, /b"):
        geometry.load(path)


# ---- commands -----------------------------------------------------------------------------------
def call(*arguments, status=0):
    result = CliRunner().invoke(main, ["geometry", *map(str, arguments)])
    assert result.exit_code == status, result.output
    return result.output


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of a quad whose geometry is a constant of run 1, and one without constants."""
    place = tmp_path_factory.mktemp("geometry")
    detector = Detector(name="quad", kind="epix10ka", segments=4)
    simulate.write(RunSpec(events=2, detectors=(detector,)), place / "xtc")
    store = LocalStore(place / "calib")
    store.deploy(Constants("geometry", geometry.write_text(QUAD)), "quad", RunRange(0))
    return place


def test_show_names_the_panels():
    text = call("show", "default:jungfrau:8")
    assert "8 x JUNGFRAU:V2, 512 x 1024 pixels of 75 um" in text
    assert "mean distance 100.000 mm" in text
    lines = text.splitlines()[-8:]
    assert lines[0].split() == ["0", "56.807", "44.005", "100.000", "90.000", "0.000"]
    assert "JUNGFRAU:V1" in call("show", "default:jungfrau:8", "--convention", "psana1")


def test_show_json_of_a_run(folder):
    known = json.loads(call("show", folder / "xtc", "quad", "--json"))
    assert known["distance_mm"] == pytest.approx(100.0)
    assert [panel["panel"] for panel in known["panels"]] == [0, 1, 2, 3]
    x, y, _ = tree.coordinates(QUAD, frame="lab")
    for k, panel in enumerate(known["panels"]):
        # to 1 nm
        assert (panel["x_mm"], panel["y_mm"]) == pytest.approx(
            (x[k].mean() * 1e-3, y[k].mean() * 1e-3), abs=1e-6
        )


def test_convert_there_and_back(folder, tmp_path):
    first, second = tmp_path / "a.geom", tmp_path / "b.data"
    assert "4 x EPIX10KA:V1" in call("convert", folder / "xtc", "quad", "-o", first, "--clen", "0.1")
    assert "clen = 0.1\n" in first.read_text()
    call("convert", first, "-o", second)
    assert_same_pixels(geometry.load(second), QUAD, 1e-3)
    assert call("convert", first, "--to", "psana") == second.read_text()
    call("convert", first, "-o", tmp_path / "odd.name", "--to", "nexus")
    assert_same_pixels(geometry.load(tmp_path / "odd.name"), QUAD, 1e-3)


def test_plot_draws(folder, tmp_path):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "geometry.png"
    call("plot", folder / "xtc", "quad", "-o", picture)
    assert picture.read_bytes().startswith(b"\x89PNG")
    call("plot", "default:cspad", "-o", tmp_path / "cspad.svg", "--no-labels")


def test_wrong_arguments_are_told(folder):
    assert "for the geometry of a run name a detector" in call("show", folder / "xtc", status=1)
    assert "no default geometry for 'jungfra'; did you mean" in call("show", "default:jungfra", status=1)
    assert "give -o FILE, or --to one of" in call("convert", "default:epix100", "--to", "nexus", status=2)
    assert "no detector 'qad'" in call("show", folder / "xtc", "qad", status=1)

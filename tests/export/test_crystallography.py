"""Frames in NeXus and CXI files are where programs of crystallography look for them."""

import logging

import h5py
import hdf5plugin  # noqa: F401  (the filters of the files)
import numpy as np
import pytest

import psana_dask
from psana_dask import geometry
from psana_dask.errors import ExportError
from psana_dask.export import Wanted, begin, finish, plan, write_piece
from psana_dask.export.crystallography import adu_per_ev
from psana_dask.simulate import demo_run

EV_ANGSTROM = 12398.41984332


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(plan, "CHUNK_BYTES", 2**20)
    monkeypatch.setattr(plan, "PIECE_BYTES", 2 * 2**20)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quad")
    demo_run(folder, 12)
    rng = np.random.default_rng(0)
    constants = {
        "pedestals": rng.normal(90, 5, (7, 4, 352, 384)).astype(np.float32),
        "pixel_status": (rng.random((7, 4, 352, 384)) < 0.01).astype(np.uint64),
    }
    return psana_dask.open_run(folder, calib=constants)


@pytest.fixture(scope="module")
def xtc_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    demo_run(folder, 12, format="xtc")
    return psana_dask.open_run(folder)


BEAM = {"photon_energy": 9500.0, "distance": 0.11}


def lab_positions(detector, distance):
    """Pixel centres (panel, row, col, 3) in metres, at a distance."""
    where = geometry.coordinates(detector.geometry, frame="lab", wide_centres=False)
    x, y, z = np.array(where) * 1e-6
    return np.stack([x, y, z - z.mean() + distance], axis=-1)


# ---- NeXus --------------------------------------------------------------------------------------
def errors_of(path):
    """Number of errors that the validator of the NeXus library finds against NXmx."""
    validate = pytest.importorskip("nexusformat.nexus.validate", reason="no nexusformat: pip install it")
    logging.getLogger("NXValidate").setLevel(logging.CRITICAL)
    return validate.validate_application(str(path))[1]


def place(file, dataset, point):
    """Follow a chain of transformations from a point to the laboratory."""
    while True:
        attrs = dataset.attrs
        vector = attrs["vector"] / np.linalg.norm(attrs["vector"])
        if attrs["transformation_type"] == "rotation":
            angle = np.radians(dataset[()])
            along = vector * (vector @ point)
            across = point - along
            point = along + across * np.cos(angle) + np.cross(vector, point) * np.sin(angle)
        else:
            point = point + vector * dataset[()]
        point = point + attrs["offset"]
        if attrs["depends_on"] == ".":
            return point
        dataset = file[attrs["depends_on"]]


def test_nexus_file_of_calibrated_frames(run, tmp_path):
    path = run.export(tmp_path / "quad.nxs", ["epixquad.calib", "gmd"], **BEAM)
    assert errors_of(path) == 0
    with h5py.File(path) as file:
        data = file["entry/data/data"][()]
        np.testing.assert_array_equal(data, run.epixquad.calibrated(chunks=None).values)
        assert file["entry/instrument/detector/data"] == file["entry/data/data"]
        wavelength = file["entry/instrument/beam/incident_wavelength"][()]
        assert wavelength == pytest.approx(EV_ANGSTROM / 9500, rel=1e-12)
        bad = file["entry/instrument/detector/pixel_mask"][()]
        np.testing.assert_array_equal(bad == 0, run.epixquad.mask.values == 1)
        assert 0 < np.count_nonzero(bad) < bad.size
        assert file["entry/instrument/detector/distance"][()] == pytest.approx(0.11, abs=1e-12)
        assert file["entry/instrument/detector/calibrated"][()]
        np.testing.assert_array_equal(file["entry/events/time"][()], run.events.time.values.astype(np.int64))
        gmd = run.gmd.milliJoulesPerPulse.values
        np.testing.assert_array_equal(file["entry/events/gmd_milliJoulesPerPulse"][()], gmd)
        check_pixels(file, lab_positions(run.epixquad, 0.11))


def check_pixels(file, expected):
    """Compare the first pixel of each module and the steps from it with where pixels are."""
    modules = [m for name, m in file["entry/instrument/detector"].items() if name.startswith("ARRAY")]
    seen = 0
    for module in modules:
        corner = place(file, module["module_offset"], np.zeros(3))
        (panel, row, col), (_, rows, cols) = module["data_origin"][()], module["data_size"][()]
        steps = [
            place(file, module["module_offset"], module[n].attrs["vector"] * module[n][()]) - corner
            for n in ("slow_pixel_direction", "fast_pixel_direction")
        ]
        slow, fast = np.arange(rows) + 0.5, np.arange(cols) + 0.5
        found = corner + slow[:, None, None] * steps[0] + fast[None, :, None] * steps[1]
        np.testing.assert_allclose(found, expected[panel, row : row + rows, col : col + cols], atol=2e-9)
        seen += rows * cols
    assert seen == expected[..., 0].size


def test_the_beam_of_each_event_and_a_single_panel(xtc_run, tmp_path):
    name = next(n for n, d in xtc_run.detectors.items() if "raw" in d.fields and d.raw.ndim == 3)
    path = xtc_run.export(tmp_path / "one.nxs", f"{name}.raw", distance=0.2)
    assert errors_of(path) == 0
    there = xtc_run[name].dataset(None).present.values
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["entry/data/data"][()], xtc_run[name].raw.values[there])
        energy = EV_ANGSTROM / file["entry/instrument/beam/incident_wavelength"][()]
        np.testing.assert_allclose(energy, xtc_run.ebeam.photon_energy.values[there], rtol=1e-12)
        modules = [m for k, m in file["entry/instrument/detector"].items() if k.startswith("ARRAY")]
        assert {len(m["data_origin"]) for m in modules} == {2}
        assert not file["entry/instrument/detector/calibrated"][()]


def test_the_library_that_dxtbx_reads_nxmx_with(run, tmp_path):
    nxmx = pytest.importorskip("nxmx", reason="no nxmx: pip install it")
    path = run.export(tmp_path / "quad.nxs", "epixquad.calib", **BEAM)
    expected = lab_positions(run.epixquad, 0.11)
    with h5py.File(path) as file:
        (entry,) = nxmx.NXmx(file).entries
        (instrument,) = entry.instruments
        (beam,), (detector,) = instrument.beams, instrument.detectors
        assert entry.start_time.timestamp() == pytest.approx(run.events.time.values[0].astype(int) / 1e9)
        wavelength = beam.incident_wavelength.to("angstrom").magnitude
        assert wavelength == pytest.approx(EV_ANGSTROM / 9500, rel=1e-12)
        assert detector.sensor_thickness.to("um").magnitude == pytest.approx(500)
        assert entry.source.short_name == "LCLS"
        np.testing.assert_array_equal(detector.data, run.epixquad.calibrated(chunks=None).values)
        np.testing.assert_array_equal(detector.pixel_mask[()] == 0, run.epixquad.mask.values == 1)
        assert len(detector.modules) == 16
        for module in detector.modules:
            (panel, row, col), (_, rows, cols) = module.data_origin, module.data_size
            steps = []
            for axis in (module.slow_pixel_direction, module.fast_pixel_direction):
                chain = nxmx.get_dependency_chain(axis)
                moved, corner = (  # all of the chain, and what it is at without the pixel's own step
                    nxmx.get_cumulative_transformation(part)[0] @ [0, 0, 0, 1] for part in (chain, chain[1:])
                )
                steps.append(moved - corner)
            at = np.arange(rows)[:, None, None] + 0.5, np.arange(cols)[None, :, None] + 0.5
            found = corner + at[0] * steps[0] + at[1] * steps[1]  # mm
            place = expected[panel, row : row + rows, col : col + cols]
            np.testing.assert_allclose(found[..., :3] / 1e3, place, atol=2e-9)


# ---- CXI ----------------------------------------------------------------------------------------
def test_cxi_file_and_its_crystfel_geometry(run, tmp_path):
    reader = pytest.importorskip("cfel_fmt.geometry", reason="no EXtra-geom, which brings it")
    path = run.export(tmp_path / "quad.cxi", "epixquad.calib", **BEAM)
    found = reader.load_crystfel_geometry(tmp_path / "quad.cxi.geom")
    (place_of_data,) = {panel["data"] for panel in found.detector["panels"].values()}
    with h5py.File(path) as file:
        assert file["cxi_version"][()] == 150
        data = file[place_of_data]
        expected = run.epixquad.calibrated(chunks=None).values
        np.testing.assert_array_equal(data[()], expected)
        assert data == file["entry_1/instrument_1/detector_1/data"]
        masks = file["entry_1/data_1/mask"]
        assert masks.shape == data.shape
        for event in (0, 5, 11):
            np.testing.assert_array_equal(masks[event] == 0, run.epixquad.mask.values == 1)
        np.testing.assert_array_equal(file["LCLS/photon_energy_eV"][()], np.full(12, 9500.0))
        joules = file["entry_1/instrument_1/source_1/energy"][()]
        np.testing.assert_allclose(joules, 9500 * 1.602176634e-19, rtol=1e-12)
        seconds, rest = file["LCLS/machineTime"][()], file["LCLS/machineTimeNanoSeconds"][()]
        np.testing.assert_array_equal(seconds * 10**9 + rest, run.events.time.values.astype(np.int64))
        check_cxi_pixels(file["entry_1/instrument_1/detector_1"], lab_positions(run.epixquad, 0.11))
        assert file[found.beam["photon_energy_from"]] == file["LCLS/photon_energy_eV"]
    check_crystfel_pixels(found.detector["panels"], lab_positions(run.epixquad, 0.11))


def filters_of(dataset):
    known = dataset.id.get_create_plist()
    return {known.get_filter(k)[0] for k in range(known.get_nfilters())}


@pytest.mark.parametrize(("suffix", "mask"), [(".cxi", "entry_1/data_1/mask"),
                                              (".nxs", "entry/instrument/detector/pixel_mask")])  # fmt: skip
def test_without_compression_no_reader_needs_a_plugin(run, tmp_path, suffix, mask):
    path = run.export(tmp_path / f"plain{suffix}", "epixquad.raw", compression=None, **BEAM)
    with h5py.File(path) as file:
        assert filters_of(file[mask]) == {h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE}
        assert not filters_of(file["entry_1/data_1/data" if suffix == ".cxi" else "entry/data/data"])


@pytest.mark.parametrize(
    ("det_type", "gain", "said"),
    [
        ("jungfrau", "constants", 1e-3),
        ("epix10ka", "constants", 1e-3),
        ("epix100", "default", 1e-3),
        ("cspad", "constants", None),
        ("jungfrau", "none", None),
        ("jungfrau", "off", None),
    ],
)
def test_what_a_photon_is_in_a_frame(det_type, gain, said):
    assert adu_per_ev({"gain": gain}, det_type) == said


def check_crystfel_pixels(panels, expected):
    """Compare where CrystFEL puts the centres of pixels."""
    assert len(panels) == 16
    for panel in panels.values():
        frame, number, *rest = panel["dim_structure"]
        assert (frame, rest) == ("%", ["ss", "fs"])
        rows = np.arange(panel["orig_min_ss"], panel["orig_max_ss"] + 1)
        cols = np.arange(panel["orig_min_fs"], panel["orig_max_fs"] + 1)
        slow = (rows - rows[0] + 0.5)[:, None] / panel["res"]
        fast = (cols - cols[0] + 0.5)[None, :] / panel["res"]
        place = expected[number, rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
        x = panel["cnx"] / panel["res"] + slow * panel["ssx"] + fast * panel["fsx"]
        y = panel["cny"] / panel["res"] + slow * panel["ssy"] + fast * panel["fsy"]
        np.testing.assert_allclose(x, place[..., 0], atol=1e-9)
        np.testing.assert_allclose(y, place[..., 1], atol=1e-9)
        np.testing.assert_allclose(panel["clen"] + panel["coffset"], place[..., 2].mean(), atol=1e-9)


def check_cxi_pixels(detector, expected):
    for region, corner, basis in zip(
        detector["regions"][()], detector["corner_positions"][()], detector["basis_vectors"][()], strict=True
    ):
        panel, row, end_row, col, end_col = region
        slow, fast = np.arange(end_row - row) + 0.5, np.arange(end_col - col) + 0.5
        found = corner + slow[:, None, None] * basis[0] + fast[None, :, None] * basis[1]
        np.testing.assert_allclose(found, expected[panel, row:end_row, col:end_col], atol=2e-9)


def test_a_selection_in_steps(run, tmp_path):
    chosen = run.isel([9, 2, 5])
    wanted = Wanted("epixquad.raw", **BEAM)
    path = tmp_path / "some.cxi"
    _, made = begin(chosen, path, wanted)
    assert len(made.pieces) > 1
    for piece in made.pieces:
        write_piece(chosen, path, piece.number, wanted)
    assert not path.exists()
    finish(path)
    with h5py.File(path) as file:
        expected = run.isel([2, 5, 9]).epixquad.field("raw", chunks=None).values
        np.testing.assert_array_equal(file["entry_1/data_1/data"][()], expected)


@pytest.mark.parametrize(
    ("names", "choices", "said"),
    [
        (None, BEAM, "epixquad.calib"),
        (["gmd"], BEAM, "epixquad.calib"),
        (["epixquad.raw", "epixquad.calib"], BEAM, "frames of one detector"),
        ("epixquad.raw", {"distance": 0.1}, "photon_energy="),
        ("epixquad.raw", BEAM | {"roi": {"epixquad": {"row": slice(3)}}}, "regions"),
        ("epixquad.raw", BEAM | {"distance": 0.0}, "distance="),
    ],
)
def test_mistakes_are_said_and_leave_nothing(run, tmp_path, names, choices, said):
    with pytest.raises(ExportError, match=said):
        run.export(tmp_path / "x.nxs", names, **choices)
    assert not list(tmp_path.iterdir())


def test_a_beam_is_for_frames_only(run, tmp_path):
    with pytest.raises(ExportError, match=r"\.nxs and \.cxi"):
        run.export(tmp_path / "x.h5", "gmd", distance=0.1)

"""Runs as dxtbx images: against a stand-in of dxtbx's documented classes, or the real ones where they are."""

import contextlib
import importlib
import importlib.util
import subprocess
import sys
import types
from functools import partial
from importlib.metadata import entry_points

import h5py
import hdf5plugin  # noqa: F401  (the filters of the files)
import numpy as np
import pytest

import psana_dask
from psana_dask import geometry, simulate
from psana_dask.errors import MissingLibrary
from psana_dask.interop import stills
from psana_dask.interop.stills import MISSING, TRUSTED, LocatorError, open_stills
from psana_dask.simulate import Algorithm, Detector, Field, Missing, RunSpec

ENERGY = 9000.0  # eV, of event 0; 1 eV more in each
MODULE = "psana_dask.interop.dxtbx_format"
REAL = importlib.util.find_spec("dxtbx") is not None


def energy(moment):
    return np.float64(ENERGY + moment.event)


BEAM = Detector(
    name="beam", kind="gmd", algorithms=(Algorithm("raw", (2, 0, 0), (Field("energy", "f8", (), energy),)),)
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Seven events of two Jungfrau panels; event 2 lacks the detector, event 4 its second panel."""
    where = tmp_path_factory.mktemp("dxtbx")
    gone = (Missing(events=(2,), detector="jf"), Missing(events=(4,), detector="jf", segment=1))
    detectors = (
        Detector(name="jf", kind="jungfrau", segments=2),
        Detector(name="timing", kind="timing"),
        BEAM,
    )
    simulate.write(RunSpec(events=7, number=3, detectors=detectors, missing=gone), where / "xtc")
    return where


@pytest.fixture(autouse=True, scope="module")
def constants():
    rng = np.random.default_rng(0)
    made = {
        "pedestals": rng.normal(90, 5, (3, 2, 512, 1024)).astype(np.float32),
        "pixel_status": (rng.random((3, 2, 512, 1024)) < 0.01).astype(np.uint64),
    }
    with psana_dask.set_options(calib=made):
        yield


@pytest.fixture
def locator(folder, tmp_path):
    """Write a locator with some more lines."""

    def made(*lines):
        path = tmp_path / "run.loc"
        source = [stills.MARK, f"source = {folder / 'xtc'}", "detector = jf", "photon_energy = beam.energy"]
        path.write_text("\n".join([*source, *lines]) + "\n")
        return str(path)

    return made


@pytest.fixture(scope="module")
def run(folder):
    return psana_dask.open_run(folder / "xtc").isel([0, 1, 3, 4, 5, 6])


# ---- locators -----------------------------------------------------------------------------------
def test_a_locator_says_what_to_open(locator, run):
    found = open_stills(locator("select = beam.energy > 9002.5  # the last ones", "distance = 0.25"))
    assert len(found) == 4
    assert found.wavelength(0) == pytest.approx(12398.41984332 / 9003, rel=1e-15)
    z = np.mean([tile.first[2] for tile in found.tiles])
    assert z == pytest.approx(0.25, abs=1e-12)
    np.testing.assert_array_equal(found.run.events.time, run.events.time[2:])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("detector = jf", "says no source"),
        ("source = x\nsource = y", "line 3: 'source = y' is there twice"),
        ("sorce = x", "line 2: 'sorce = x' is no key = value; did you mean source"),
        ("source", "is no key = value"),
        ("source = x\nrun = five", "invalid literal"),
    ],
)
def test_locators_that_are_not_understood(tmp_path, text, said):
    path = tmp_path / "a.loc"
    path.write_text(f"{stills.MARK}\n{text}\n")
    with pytest.raises(LocatorError, match=said):
        open_stills(path)


def test_which_detector_must_be_said_if_there_are_several(tmp_path):
    detectors = (Detector(name="a", kind="jungfrau"), Detector(name="b", kind="jungfrau"))
    truth = simulate.write(RunSpec(events=1, detectors=detectors), tmp_path)
    path = tmp_path / "a.loc"
    path.write_text(f"{stills.MARK}\nsource = {truth.folder}\nphoton_energy = 9500\n")
    with pytest.raises(
        LocatorError, match=r"which detector\? There are a, b: a locator says detector = NAME"
    ):
        open_stills(path)


# ---- images -------------------------------------------------------------------------------------
def test_pixels_values_and_masks_are_those_of_the_run(locator, run):
    found = open_stills(locator())
    calib, mask = run.jf.calib.values, run.jf.mask.values != 0
    assert len(found) == len(calib) == 6
    assert len(found.tiles) == 16
    good = found.mask()
    where = geometry.coordinates(run.jf.geometry, frame="lab", wide_centres=False)
    for number in range(6):
        image = found.image(number)
        for piece, allowed, tile in zip(image, good, found.tiles, strict=True):
            at = (tile.panel, slice(*tile.rows), slice(*tile.cols))
            known = calib[number][at].astype(np.float64)
            np.testing.assert_array_equal(piece, np.where(np.isnan(known), MISSING, known))
            np.testing.assert_array_equal(allowed, mask[at])
            if number == 0:
                place = np.stack([axis[at] for axis in where], axis=-1) * 1e-6
                # positions are kept in double precision: micrometres to 1e-9
                np.testing.assert_allclose(tile.positions(), place, atol=1e-9)
    assert all((piece == MISSING).all() for piece in found.image(3)[8:])  # the panel that was missing
    assert TRUSTED[0] > MISSING
    with pytest.raises(IndexError, match="image 6 of 6"):
        found.image(6)


def test_images_and_places_are_those_of_an_export(locator, run, tmp_path):
    found = open_stills(locator("distance = 0.25"))
    made = run.export(tmp_path / "x.cxi", "jf.calib", photon_energy="beam.energy", distance=0.25)
    with h5py.File(made) as file:
        detector = file["entry_1/instrument_1/detector_1"]
        frames, corners, steps = (detector[k][()] for k in ("data", "corner_positions", "basis_vectors"))
        energies = file["LCLS/photon_energy_eV"][()]
    np.testing.assert_array_equal(found.photon_energy, energies)
    for k, tile in enumerate(found.tiles):
        np.testing.assert_array_equal(tile.corner, corners[k])
        np.testing.assert_array_equal([tile.slow, tile.fast], steps[k])
    for number, frame in enumerate(frames):
        for piece, tile in zip(found.image(number), found.tiles, strict=True):
            known = frame[tile.panel, slice(*tile.rows), slice(*tile.cols)].astype(np.float64)
            np.testing.assert_array_equal(piece, np.where(np.isnan(known), MISSING, known))


def test_without_constants_nothing_is_called_calibrated(locator):
    from psana_dask.errors import ConstantsNotFound

    with pytest.raises(ConstantsNotFound):
        open_stills(locator("calib = /nowhere")).image(0)


# ---- dxtbx --------------------------------------------------------------------------------------
def test_the_module_is_imported_without_dxtbx_and_lightly():
    code = (
        f"import sys; import {MODULE} as m; assert not m.FormatPsana.understand('x.cbf'); "
        "print([n for n in ('xarray', 'dask', 'numba', 'h5py') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.skipif(REAL, reason="dxtbx is installed")
def test_without_dxtbx_the_class_says_what_is_missing(locator):
    from psana_dask.interop.dxtbx_format import FormatPsana

    with pytest.raises(MissingLibrary, match="FormatPsana needs dxtbx: conda install"):
        FormatPsana(locator())


def test_dxtbx_finds_the_class():
    (entry,) = [e for e in entry_points(group="dxtbx.format") if e.value.startswith("psana_dask")]
    assert entry.name == "FormatPsana:FormatMultiImage,FormatStill,Format"
    assert entry.load().__name__ == "FormatPsana"


class Format:
    """What dxtbx's Format does when an image is opened: it asks for the models, once."""

    schemes = ("",)

    def __init__(self, image_file, **kwargs):
        self._image_file = image_file
        self._beam_factory = BeamFactory
        self._goniometer_instance = self._scan_instance = None
        self._detector_instance = self._beam_instance = None
        self.setup()

    @staticmethod
    def understand(image_file):
        return False

    @classmethod
    def get_instance(cls, filename, **kwargs):
        return cls(filename, **kwargs)


class FormatStill(Format):
    def setup(self):
        with contextlib.suppress(Exception):  # as dxtbx's does
            self._detector_instance = self._detector()
            self._beam_instance = self._beam()
            assert self._beam_instance is not None


class FormatMultiImage(Format):
    def __init__(self, **kwargs):
        pass

    def get_num_images(self):
        raise NotImplementedError

    @classmethod
    def images(cls, filename):
        """What an image set of dxtbx asks of each image, in its words."""
        opened = cls.get_instance(filename)
        assert opened.get_vendortype()
        for i in range(opened.get_num_images()):
            models = (opened.get_beam(i), opened.get_detector(i))
            assert opened.get_goniometer(i) is opened.get_scan(i) is None
            yield *models, opened.get_raw_data(i), opened.get_static_mask()


class Flex:
    """An array of scitbx: no numpy array, and flat for numpy's eyes."""

    def __init__(self, values, dtype):
        self._values = np.array(values, dtype)

    def as_numpy_array(self):
        return self._values

    def focus(self):
        return self._values.shape


class BeamFactory:
    @staticmethod
    def simple(wavelength):
        return types.SimpleNamespace(get_wavelength=lambda: wavelength)


class DetectorFactory:
    @staticmethod
    def from_dict(model):
        assert all({"origin", "fast_axis", "slow_axis", "pixel_size"} <= set(p) for p in model["panels"])
        return types.SimpleNamespace(to_dict=lambda: model)


@pytest.fixture
def format_class(monkeypatch):
    """FormatPsana on top of a stand-in for dxtbx (that of dxtbx itself where it is installed)."""
    if not REAL:
        modules = {
            "dxtbx": {"IncorrectFormatError": type("IncorrectFormatError", (RuntimeError,), {})},
            "dxtbx.format": {},
            "dxtbx.format.Format": {"Format": Format},
            "dxtbx.format.FormatMultiImage": {"FormatMultiImage": FormatMultiImage},
            "dxtbx.format.FormatStill": {"FormatStill": FormatStill},
            "dxtbx.model": {},
            "dxtbx.model.detector": {"DetectorFactory": DetectorFactory},
            "scitbx": {},
            "scitbx.array_family": {
                "flex": types.SimpleNamespace(double=partial(Flex, dtype="f8"), bool=partial(Flex, dtype="?"))
            },
        }
        for name, content in modules.items():
            module = types.ModuleType(name)
            vars(module).update(content)
            monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    yield importlib.import_module(MODULE).FormatPsana
    sys.modules.pop(MODULE, None)


def test_a_run_as_images_of_dxtbx(format_class, locator, run):
    path = locator("distance = 0.25")
    assert format_class.understand(path)
    opened = format_class(path)
    assert (opened.get_num_images(), opened.lazy, opened.get_scan(), opened.get_goniometer()) == (
        6,
        True,
        None,
        None,
    )
    found = open_stills(path)
    for number in (0, 3):
        raw = opened.get_raw_data(number)
        for one, two in zip(raw, found.image(number), strict=True):
            np.testing.assert_array_equal(one.as_numpy_array(), two)
    for one, two in zip(opened.get_static_mask(), found.mask(), strict=True):
        assert one.as_numpy_array().dtype == bool
        np.testing.assert_array_equal(one.as_numpy_array(), two)
    assert opened.get_beam(2).get_wavelength() == found.wavelength(2)
    assert opened.get_event_time(0) == str(run.events.time.values[0])
    panels = opened.get_detector(0).to_dict()["panels"]
    assert list(panels[0]["image_size"]) == [256, 256]
    assert (panels[0]["thickness"], panels[0]["material"]) == (pytest.approx(0.32), "Si")
    assert list(panels[0]["trusted_range"]) == list(TRUSTED)
    back = geometry.convert.dxtbx.from_dxtbx(opened.get_detector().to_dict())
    # dxtbx's numbers are millimetres in double precision
    both = [geometry.coordinates(g, frame="lab", wide_centres=False) for g in (back, found.geometry)]
    for one, two in zip(*both, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-6)  # um


def test_what_an_image_set_asks_for(format_class, locator):
    if not REAL:
        models = list(format_class.images(locator()))
    else:
        from dxtbx.model.experiment_list import ExperimentListFactory

        models = [
            (e.beam, e.detector, e.imageset.get_raw_data(0), e.imageset.get_mask(0))
            for e in ExperimentListFactory.from_filenames([locator()])
        ]
    found = open_stills(locator())
    assert len(models) == len(found) == 6
    for number, (beam, _, raw, mask) in enumerate(models):
        assert beam.get_wavelength() == pytest.approx(found.wavelength(number), rel=1e-15)
        assert [r.focus() for r in raw] == [m.focus() for m in mask] == [(256, 256)] * 16


def test_what_goes_wrong_with_a_detector_is_said(format_class, locator, monkeypatch):
    def broken(self):
        raise psana_dask.errors.GeometryError("no geometry of jf")

    monkeypatch.setattr(stills.Stills, "model", broken)
    with pytest.raises(psana_dask.errors.GeometryError, match="no geometry of jf"):
        format_class(locator())


def test_a_data_file_stands_for_its_run(format_class, folder, monkeypatch):
    path = str(next((folder / "xtc").glob("*.xtc2")))
    assert format_class.understand(path)
    assert not format_class.understand(__file__)
    assert not format_class.understand("/nowhere.xtc2")
    monkeypatch.setattr("psana_dask.export.crystallography._beam_field", lambda run: "beam.energy")
    opened = format_class(path)
    assert opened.get_num_images() == 6
    with pytest.raises(RuntimeError, match="test_dxtbx"):
        format_class(__file__)

"""The detector table: names in every spelling, fields, gain codes, and no import of heavy rooms."""

import subprocess
import sys

import numpy as np
import pytest

from psana_dask import calib
from psana_dask.calib import gain
from psana_dask.calib.detectors import DETECTORS, GENERIC, detector, pixel_field, row_of_folder


@pytest.mark.parametrize(("name", "row"), [
    ("DetInfo(XppGon.0:Cspad.0)", "Cspad"), ("XppGon.0:Cspad2x2.3", "Cspad2x2"), ("cspad", "Cspad"),
    ("XcsEndstation.0:Epix10ka2M.0", "Epix10ka2M"), ("epix10ka", "Epix10ka"),
    ("epix10kaquad", "Epix10kaQuad"),
    ("epix10ka_000001", "Epix10ka"), ("epix100_raw_2_0_1", "Epix100a"), ("epix100hw", "Epix100a"),
    ("MfxEndstation.0:Jungfrau.0", "Jungfrau"), ("jungfrau", "Jungfrau"), ("jungfrauemu_000003", "Jungfrau"),
    ("NoDetector.0:Opal1000.1", "Opal1000"), ("opal", "Opal"), ("Camp.0:pnCCD.1", "pnCCD"),
    ("epixhr2x2", "ePixHR2x2"), ("epixhr", "ePixHR2x2"), ("epixuhr3x2_raw_0_1_0", "ePixUHR"),
    ("epixm320_0016908288-0000000000", "ePixM320"), ("epixquad", "Epix10kaQuad"), ("archon", "Archon"),
    ("SxrEndstation.0:Fccd960.0", "Fccd960"), ("SxrEndstation.0:Fccd.0", "Fccd"),
    ("newdetector_raw_9_9_9", "generic"), ("", "generic"),
])
def test_every_spelling_finds_its_row(name, row):
    assert detector(name).name == row


def test_rows_are_complete():
    names = [row.name for row in DETECTORS]
    assert len(set(names)) == len(names)
    for row in DETECTORS:
        assert row.group.endswith("::CalibV1")
        assert row.field
        assert row.decoding.kind == "plain" or row.decoding.ranges
        assert set(row.decoding.steady) <= set(range(len(row.decoding.ranges)))
        if 0 not in row.shape and row.shape:
            assert row.shape[-2] % row.banks[0] == row.shape[-1] % row.banks[1] == 0


@pytest.mark.parametrize(("names", "row", "field"), [
    (["arrayRaw"], GENERIC, "arrayRaw"), (["offset", "data8", "data16"], detector("Opal1000"), "data16"),
    (["image"], detector("opal"), "image"), (["raw", "image"], detector("opal"), "image"),
    (["value"], detector("archon"), "value"), (["time"], GENERIC, None),
])
def test_the_pixel_field(names, row, field):
    assert pixel_field(names, row) == field


def test_gain_meaning_differs_between_facilities():
    assert [detector("Epix100a").gain_meaning(x) for x in (False, True)] == ["multiply", "divide"]
    assert [detector("Jungfrau").gain_meaning(x) for x in (False, True)] == ["divide", "divide"]


@pytest.mark.parametrize(("bits", "ranges"), [
    (28, (0, 0)), (12, (1, 1)), (8, (2, 2)), (24, (2, 2)), (16, (3, 5)), (0, (4, 6)),
    (4, (-1, -1)), (20, (-1, -1)),
])
def test_epix10ka_control_bits(bits, ranges):
    assert tuple(gain.allowed_ranges(np.array([[bits]], np.uint8))[:, 0, 0]) == ranges


def test_asics_in_a_panel():
    asics = np.zeros((4, 176, 192), np.uint8)
    for k in range(4):
        asics[k], asics[k, 0, 0] = k, 10 + k
    panel = gain.assemble_asics(asics)
    assert [panel[5, 5], panel[5, -5], panel[-5, 5], panel[-5, -5]] == [2, 1, 3, 0]
    assert panel[175, 191] == 12  # turned by 180 degrees: its first pixel is in the middle
    assert panel[176, 192] == 10


def test_ranges_without_configuration():
    raw = np.array([0, 1 << 14, 1 << 15, 3 << 14], np.uint16)
    assert gain.gain_range(raw, detector("Jungfrau").decoding).tolist() == [0, 1, -1, 2]
    assert gain.gain_range(raw, detector("epixm320").decoding).tolist() == [0, 0, 1, 1]
    assert gain.gain_range(raw, GENERIC.decoding).tolist() == [0, 0, 0, 0]


def test_public_names_are_lazy_and_real():
    for name in calib.__all__:
        assert getattr(calib, name) is not None
        assert name in dir(calib)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        calib.nothing  # noqa: B018


def test_the_science_tower_loads_no_dask_and_no_files():
    code = (
        "import sys, pkgutil, importlib, psana_dask.calib as c\n"
        "[importlib.import_module('psana_dask.calib.' + m.name) for m in pkgutil.iter_modules(c.__path__)]\n"
        "bad = [m for m in sys.modules if m.split('.')[0] in ('dask', 'xarray', 'distributed', 'h5py')\n"
        "       or m.startswith(('psana_dask.readers', 'psana_dask.files', 'psana_dask.sources'))]\n"
        "sys.exit(str(bad) if bad else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_control_bits_of_a_small_simulated_detector():
    config = np.arange(2 * 4 * 4 * 6, dtype=np.uint8).reshape(2, 4, 4, 6)
    found = gain.control_bits(config, np.array([[1, 0, 0, 0], [0, 0, 0, 0]], np.uint8))
    assert found.shape == (2, 8, 12)
    np.testing.assert_array_equal(found[0, 4:, 6:], config[0, 0] & 12 | 16)
    np.testing.assert_array_equal(found[1, 4:, 6:], config[1, 0] & 12)


@pytest.mark.parametrize(("path", "name"), [
    ("calib/CsPad::CalibV1/XppGon.0:Cspad.0/pedestals/1-end.data", "Cspad"),
    ("/a/Jungfrau::CalibV1/jf/pedestals/1-end.data", "Jungfrau"),
    ("Camera::CalibV1/Xpp.0:Opal1000.0/x", "Opal1000"), ("Camera::CalibV1/odd", "generic"),
    ("cdb_tst/jungfrau_000001/5f", "generic"),
])
def test_folders_say_what_detector_it_is(path, name):
    assert row_of_folder(path).name == name

"""Plans: units, parameters, layouts that do not fit, and rules that psana has no oracle for."""

import numpy as np
import pytest

from psana_dask.calib import corrections
from psana_dask.calib.commonmode import CommonMode, plan
from psana_dask.calib.detectors import DETECTORS, GENERIC, detector
from psana_dask.errors import ConstantsError

JUNGFRAU = (2, 512, 1024)


@pytest.mark.parametrize(("values", "unit"), [
    ((7, 1, 100), 64), ((7, 2, 100), 256 * 1024), ((7, 4, 100), 256 * 1024), ((7, 7, 100), 256 * 1024),
])
def test_units(values, unit):
    made = plan(values, JUNGFRAU, detector("Jungfrau"))
    assert made.unit == unit
    assert np.prod(JUNGFRAU) % made.chunk() == 0
    assert made.chunk() % unit == 0


@pytest.mark.parametrize("values", [None, (0,), (0, 1, 2), (7, 0, 100)])
def test_off(values):
    assert plan(values, JUNGFRAU, detector("Jungfrau")) is None


def test_every_default_can_be_planned():
    planned = 0
    for row in DETECTORS:
        shape = tuple(n or (512 if axis < 2 else 2) for axis, n in enumerate(row.shape[::-1]))[::-1]
        for xtc2 in (False, True):
            made = plan(row.default_common_mode(xtc2), shape, row, xtc2=xtc2)
            if made is not None:
                values = np.random.default_rng(0).normal(3, 1, int(np.prod(shape))).astype(np.float32)
                made.correct(values, np.ones(values.size, np.uint8))
                assert abs(values.mean()) < 0.6, row.name  # integer medians leave up to half an ADU
                planned += 1
    assert planned >= 12


@pytest.mark.parametrize(("values", "det", "shape", "message"), [
    ((7, 1, 100), "Jungfrau", (1, 500, 1000), "2 x 16 banks"),
    ((5, 100), "Jungfrau", JUNGFRAU, "unbonded pixels"),
    ((6, 30), "Epix100a", (704, 768), "needs pixel_rms"),
    ((1, 50, 50, 10, 4, 1000, 1), "Princeton", (40, 50), "4 sections of 1000 pixels"),
    ((9, 36, 300), "Archon", (10, 512), "runs of 300 pixels"),
    ((99, 1), "Jungfrau", JUNGFRAU, "no common-mode algorithm 99"),
    ((1, 5), "Cspad", (32, 185, 388), "needs 2 parameters or more"),
    ((), "Cspad", (32, 185, 388), "finite numbers"),
])
def test_layouts_and_parameters_that_do_not_fit(values, det, shape, message):
    with pytest.raises(ConstantsError, match=message):
        plan(values, shape, detector(det))


def test_a_last_short_run_of_the_mean():
    """psana's loop runs past the end of the data here; ours corrects what is left."""
    values = np.arange(250, dtype=np.float32)
    plan((2, 1000, 1000, 100), (1, 250), GENERIC).correct(values, np.ones(250, np.uint8))
    assert [values[k].mean() for k in (slice(100), slice(100, 200), slice(200, 250))] == [0, 0, 0]


def test_archon_fake_pixels():
    r = np.random.default_rng(0)
    frame = r.normal(0, 1, (5, 600)).astype(np.float32)
    offsets = np.repeat(r.normal(0, 50, (5, 2)), 300, axis=1).astype(np.float32)
    values = (frame + offsets).reshape(-1)
    wanted = values.reshape(5, 2, 300) - np.median(values.reshape(5, 2, 300)[..., -36:], axis=-1)[..., None]
    plan((9, 36, 300), (5, 600), detector("Archon"), xtc2=True).correct(values, np.ones(3000, np.uint8))
    assert np.array_equal(values, wanted.reshape(-1))


def test_lcls2_ignores_the_number():
    """0 with bits means the bits of 7, except that all gain ranges take part."""
    ignored = plan((0, 7, 100, 10), JUNGFRAU, detector("Jungfrau"), xtc2=True)
    seven = plan((7, 7, 100, 10), JUNGFRAU, detector("Jungfrau"), xtc2=True)
    assert ignored.steps == seven.steps
    assert (ignored.steady_only, seven.steady_only) == (False, True)


def test_algorithm_6_from_numbers():
    rms = np.full((704, 768), 3, np.float32)
    made = plan((6, 20, 25, 1), (704, 768), detector("Epix100a"), rms=rms)
    assert made.steps == (corrections.QuietPixels(rms, largest=20, half_range=25, columns_and_rows=1),)


def test_flooded_section_has_no_peak():
    values = np.random.default_rng(0).uniform(0, 1e6, 185 * 388).astype(np.float32)
    before = values.copy()
    plan((1, 25, 25, 100), (1, 185, 388), detector("Cspad")).correct(values, np.ones(values.size, np.uint8))
    assert np.array_equal(values, before)


def test_numbers_become_a_value():
    cm = CommonMode.of(np.array([7, 1, 100.0]))
    assert cm == CommonMode(7, (1.0, 100.0))
    assert CommonMode.of(cm) is cm
    assert cm.parameter(2, 10) == 10

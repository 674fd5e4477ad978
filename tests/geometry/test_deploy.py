"""From powder rings to a geometry constant in force: fit, deploy, read back, history, undo."""

import numpy as np
import pytest

import psana_dask
from psana_dask import calib, geometry, simulate
from psana_dask.calib.localstore import LocalStore
from psana_dask.errors import GeometryError
from psana_dask.geometry import refine, tree
from psana_dask.simulate import Detector, RunSpec

THOUGHT = geometry.moved(geometry.default_geometry("epix10kaquad"), "CAMERA", 0, by=(0.0, 0.0, 9e5))
SHIFT = (420.0, -310.0, 800.0)
ANGLES = refine.two_theta(refine.spacings("AgBeh", 6), 8.0)


@pytest.fixture
def folder(tmp_path):
    """A run of three of the four panels of a quad; where the quad is thought to be is a constant."""
    detector = Detector(name="quad", kind="epix10ka", segments=(0, 1, 3))
    simulate.write(RunSpec(events=2, detectors=(detector,), number=7), tmp_path / "xtc")
    calib.deploy({"geometry": geometry.write_text(THOUGHT)}, tmp_path / "calib", "quad", "1-end")
    return tmp_path


def powder(panels):
    x, y, z = tree.coordinates(refine.shifted(THOUGHT, SHIFT), frame="lab")
    angle = np.arctan2(np.hypot(x, y), z)[panels]
    rate = 3.0 + sum(25 * np.exp(-0.5 * ((angle - ring) / 2e-3) ** 2) for ring in ANGLES)
    return np.random.default_rng(1).poisson(rate).astype(np.float32)


def test_refined_geometry_becomes_a_constant_and_can_be_taken_back(folder):
    run = psana_dask.open(folder / "xtc")
    mean = run.quad.raw.mean("time").copy(data=powder([0, 1, 3]))
    before = run.quad.assembled().x.values
    fit = run.quad.fit_rings(mean, ANGLES)
    # a fifth of a pixel across the beam; rings of up to 0.45 rad fix the distance less well
    assert np.abs(np.subtract(fit.shift, SHIFT))[:2].max() < 20
    assert abs(fit.shift[2] - SHIFT[2]) < 150
    store = LocalStore(folder / "calib")
    plan = calib.deploy(fit, store, "quad", 7, comment="AgBeh of run 7", dry_run=True)
    assert (plan[0].done, str(plan[0].difference)) == (False, "geometry: text differs")
    [done] = calib.deploy(fit, store, "quad", 7, comment="AgBeh of run 7")
    assert done.path.name == "7-end.data"

    refined = psana_dask.open(folder / "xtc").quad
    assert refined.geometry.key == fit.geometry.key
    assert refined.assembled().attrs["geometry"] == "constant"
    assert refined.constants["geometry"].origin.endswith("7-end.data")
    moved = (refined.assembled().x.values[0] - before[0]) * 1e6
    assert moved == pytest.approx(fit.shift[0], abs=1e-6)
    notes = [line for _, line in refined.geometry.comments]
    assert "REFINED from powder rings" in notes[0]
    assert f"moved by x {fit.shift[0]:+.2f}" in notes[1]
    assert THOUGHT.key[:16] in notes[2]
    assert "AgBeh of run 7" in store.history("quad", "geometry")[-1].comment

    store.undo("quad", "geometry")
    assert psana_dask.open(folder / "xtc").quad.geometry.key == THOUGHT.key


def test_masked_pixels_do_not_count(folder):
    quad = psana_dask.open(folder / "xtc").quad
    image = powder([0, 1, 3])
    bad = np.ones(image.shape, np.uint8)
    bad[1] = 0
    image[1] = np.roll(image[1], 60, axis=-1)
    found = quad.fit_rings(image, ANGLES, mask=bad)
    assert np.abs(np.subtract(found.shift, SHIFT))[:2].max() < 30
    with pytest.raises(GeometryError):
        quad.fit_rings(np.ones_like(image), ANGLES)


def test_a_malformed_constant_names_its_file_and_line(folder):
    calib.deploy({"geometry": geometry.write_text(THOUGHT) + "IP 0 CAMERA\n"}, folder / "calib", "quad", 7)
    quad = psana_dask.open(folder / "xtc").quad
    with pytest.raises(GeometryError, match=r"geometry of quad, .*7-end\.data: line 6: 3 fields"):
        quad.assembled()
    # the picture of another geometry does not need it
    assert quad.assembled(geometry=THOUGHT).sizes["y"] > 700

"""Files for CrystFEL: what the lists name is there, frames are those of the run, pixels in their places."""

from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  (the filters of the files)
import numpy as np
import pytest
from click.testing import CliRunner

import psana_dask
from psana_dask import geometry, simulate
from psana_dask.cli import main
from psana_dask.errors import ExportError
from psana_dask.export import crystfel_lists
from psana_dask.geometry.convert.crystfel import parse_crystfel
from psana_dask.simulate import Detector, Missing, RunSpec

BEAM = {"photon_energy": 9500.0, "distance": 0.11}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    detectors = (Detector(name="jf", kind="jungfrau"), Detector(name="gmd", kind="gmd"))
    gone = Missing(events=(2,), detector="jf")
    spec = RunSpec(events=7, number=3, detectors=detectors, missing=(gone,))
    folder = tmp_path_factory.mktemp("crystfel")
    simulate.write(spec, folder)
    rng = np.random.default_rng(0)
    constants = {
        "pedestals": rng.normal(90, 5, (3, 1, 512, 1024)).astype(np.float32),
        "pixel_status": (rng.random((3, 1, 512, 1024)) < 0.01).astype(np.uint64),
    }
    return psana_dask.open_run(folder, calib=constants)


def listed(path):
    """Return (file, number) of each line of a list of events."""
    found = [line.rsplit(" //", 1) for line in Path(path).read_text().splitlines()]
    return [(file, int(number)) for file, number in found]


def pixels(geom, frame):
    """Return value and place (x, y, z in m) of every pixel of a frame, as CrystFEL works them out."""
    values, places = [], []
    for panel in parse_crystfel(geom).panels:
        limits = {k: int(panel.number(k)) for k in ("min_ss", "max_ss", "min_fs", "max_fs")}
        part = frame
        axis = [v for k, v in panel.values.items() if k.startswith("dim") and v.isdigit()]
        part = part[int(axis[0])] if axis else part
        rows, cols = (
            slice(limits[f"min_{a}"], limits[f"max_{a}"] + 1) for a in ("ss", "fs")
        )  # fmt: skip
        part = part[rows, cols]
        ss, fs = np.mgrid[: part.shape[0], : part.shape[1]] + 0.5  # of a pixel's centre
        res = panel.number("res")
        steps = panel.vector("ss"), panel.vector("fs")
        place = ss[..., None] * steps[0] + fs[..., None] * steps[1]
        corner = [panel.number("corner_x"), panel.number("corner_y"), 0.0]
        z = panel.number("coffset", 0.0) + float(panel.values["clen"])
        places.append(((place + corner) / res + [0, 0, z]).reshape(-1, 3))
        values.append(part.ravel())
    return np.concatenate(values), np.concatenate(places)


def test_every_event_is_listed_and_every_pixel_is_in_its_place(run, tmp_path):
    path = run.export_crystfel(tmp_path / "out", ["jf.calib", "gmd"], per_file=4, **BEAM)
    name = "tstx00117-r0003-jf"
    assert sorted(p.name for p in path.parent.iterdir() if not p.name.startswith(".")) == [
        f"{name}-000.cxi", f"{name}-001.cxi", f"{name}-events.lst", f"{name}.geom", f"{name}.lst",
    ]  # fmt: skip
    files = (path.parent / f"{name}.lst").read_text().split()
    events = listed(path)
    assert [e for e in events if e[0] == files[0]] == [(files[0], k) for k in range(4)]
    assert [e for e in events if e[0] == files[1]] == [(files[1], k) for k in range(2)]
    geom = (path.parent / f"{name}.geom").read_text()
    assert "photon_energy = /LCLS/photon_energy_eV" in geom
    assert "\nadu_per_photon = 1.0\n" in geom  # CrystFEL reads no geometry without it
    whole = run.isel([0, 1, 3, 4, 5, 6])
    calib, mask = whole.jf.calib.values, run.jf.mask.values
    where = geometry.coordinates(run.jf.geometry, frame="lab", wide_centres=False)
    x, y, z = np.array(where) * 1e-6
    known = np.stack([x, y, z - z.mean() + BEAM["distance"]], axis=-1)
    for k, (file, number) in enumerate(events):
        with h5py.File(file) as cxi:
            frame = cxi["/entry_1/data_1/data"][number]
            bad = cxi["/entry_1/data_1/mask"][number]
            assert cxi["/LCLS/photon_energy_eV"][number] == 9500.0
        np.testing.assert_array_equal(frame, calib[k])
        np.testing.assert_array_equal(bad == 0, mask == 1)
    values, places = pixels(geom, frame)
    order = np.lexsort(places.round(9).T)
    flat = known.reshape(-1, 3)
    own = np.lexsort(flat.round(9).T)
    # the text has 15 digits of vectors in pixels; sums of a thousand of them are good to a picometre
    np.testing.assert_allclose(places[order], flat[own], atol=1e-9)
    np.testing.assert_array_equal(values[order], calib[-1].reshape(-1)[own])


def test_what_was_written_is_kept_and_an_interrupted_one_goes_on(run, tmp_path, monkeypatch):
    whole, written = crystfel_lists.export, []

    def counted(part, path, *rest, **choices):
        if len(written) == 1:
            raise KeyboardInterrupt
        written.append(path)
        return whole(part, path, *rest, **choices)

    monkeypatch.setattr(crystfel_lists, "export", counted)
    with pytest.raises(KeyboardInterrupt):
        run.export_crystfel(tmp_path, "jf.calib", per_file=4, **BEAM)
    monkeypatch.setattr(crystfel_lists, "export", lambda *a, **k: written.append(a[1]) or whole(*a, **k))
    path = run.export_crystfel(tmp_path, "jf.calib", per_file=4, **BEAM)
    assert [p.name[-7:] for p in written] == ["000.cxi", "001.cxi"]
    assert len(listed(path)) == 6
    assert run.export_crystfel(tmp_path, "jf.calib", per_file=4, **BEAM) == path
    assert len(written) == 2
    with pytest.raises(ExportError, match="is there already"):
        run.isel([0, 1]).export_crystfel(tmp_path, "jf.calib", **BEAM)
    again = run.isel([0, 1]).export_crystfel(tmp_path, "jf.calib", overwrite=True, **BEAM)
    assert len(listed(again)) == 2


def test_what_cannot_be_written(run, tmp_path):
    with pytest.raises(ExportError, match=r'say which frames: "cspad.calib"'):
        run.export_crystfel(tmp_path, None)
    with pytest.raises(ExportError, match="the run has no photon energy"):
        run.export_crystfel(tmp_path, "jf.calib", distance=0.1)
    with pytest.raises(ExportError, match="no event has jf"):
        run.isel([2]).export_crystfel(tmp_path, "jf.calib", **BEAM)
    with pytest.raises(ValueError, match="one event at least"):
        run.export_crystfel(tmp_path, "jf.calib", per_file=0, **BEAM)


def test_the_command(run, tmp_path):
    call = ["export", run.files[0], "jf.raw", "-o", str(tmp_path / "out"), "--per-file", "4"]
    done = CliRunner().invoke(main, [*call, "--photon-energy", "9500", "--distance", "0.11"])
    assert done.exit_code == 0, done.output
    assert len(listed(tmp_path / "out/tstx00117-r0003-jf-events.lst")) == 6
    wrong = CliRunner().invoke(main, [*call, "--overwrite"])
    assert (wrong.exit_code, "the run has no photon energy" in wrong.output) == (1, True)

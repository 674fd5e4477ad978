"""Runs that the facility's translator wrote as HDF5 open as runs: two calib cycles, gaps, records, images."""

import h5py
import numpy as np
import pytest

import psana_dask

TIME = np.dtype([(n, "<u4") for n in ("seconds", "nanoseconds", "ticks", "fiducials", "control", "vector")])
EBEAM = np.dtype([("uDamageMask", "<u4"), ("fEbeamCharge", "<f8"), ("fEbeamPhotonEnergy", "<f8")])
EPICS = np.dtype([("sPvName", "S20"), ("value", "<f8")])
START = 1_402_726_323


def stamps(events):
    out = np.zeros(len(events), TIME)
    time = START * 10**9 + np.asarray(events) * 8_333_333
    out["seconds"], out["nanoseconds"] = time // 10**9, time % 10**9
    out["fiducials"] = np.asarray(events) * 3
    return out


def put(group, name, events, damage=None, **datasets):
    made = group.create_group(name)
    made["time"] = stamps(events)
    if damage is not None:
        made["_mask"] = (~np.asarray(damage)).astype(np.uint8)
    for key, values in datasets.items():
        made[key] = values


@pytest.fixture
def truth(tmp_path):
    rng = np.random.default_rng(1)
    frames = rng.integers(0, 4000, (12, 2, 5, 6)).astype(np.int16)
    images = rng.integers(0, 4000, (12, 7, 8)).astype(np.uint16)
    beam = np.zeros(12, EBEAM)
    beam["fEbeamCharge"], beam["fEbeamPhotonEnergy"] = rng.normal(size=12), 9500 + rng.normal(size=12)
    with h5py.File(tmp_path / "xpptut15-r0054.h5", "w") as file:
        run = file.create_group("Configure:0000/Run:0000")
        for cycle, events in enumerate((np.arange(0, 7), np.arange(7, 12))):
            step = run.create_group(f"CalibCycle:{cycle:04d}")
            put(step, "CsPad::ElementV2/XppGon.0:Cspad.0", events, data=frames[events])
            put(step, "Bld::BldDataEBeamV5/EBeam", events, events % 4 == 1, data=beam[events])
            some = events[events % 3 == 0]
            put(step, "Camera::FrameV1/XppEndstation.0:Opal1000.1", some)
            kind = h5py.h5t.array_create(h5py.h5t.STD_U16LE, (7, 8))
            home = step["Camera::FrameV1/XppEndstation.0:Opal1000.1"]
            space = h5py.h5s.create_simple((len(some),))
            h5py.h5d.create(home.id, b"image", kind, space).write(
                h5py.h5s.ALL, h5py.h5s.ALL, np.ascontiguousarray(images[some]), kind
            )
            put(step, "Epics::EpicsPv/EpicsArch.0:NoDevice.0/XPP:TEMP", events[:2])
            values = np.zeros(2, EPICS)
            values["value"] = [cycle, cycle + 0.5]
            step["Epics::EpicsPv/EpicsArch.0:NoDevice.0/XPP:TEMP/data"] = values
    return tmp_path / "xpptut15-r0054.h5", frames, images, beam


def test_it_is_a_run(truth):
    path, frames, images, beam = truth
    run = psana_dask.open(path)
    assert (run.experiment, run.number, len(run)) == ("xpptut15", 54, 12)
    np.testing.assert_array_equal(run.events.step.values, [0] * 7 + [1] * 5)
    np.testing.assert_array_equal(run.events.fiducial.values, np.arange(12) * 3)
    expected = (START * 10**9 + np.arange(12) * 8_333_333).astype("M8[ns]")
    np.testing.assert_array_equal(run.events.time.values, expected)
    assert list(run.detectors) == ["ebeam", "xpp_endstation_0_opal1000_1", "xpp_gon_0_cspad_0"]
    np.testing.assert_array_equal(run.xpp_gon_0_cspad_0.raw.values, frames)
    assert run.xpp_gon_0_cspad_0.raw.dims == ("time", "panel", "row", "col")
    opal = run.xpp_endstation_0_opal1000_1
    there = np.arange(12) % 3 == 0
    np.testing.assert_array_equal(opal.dataset(None).present.values, there)
    np.testing.assert_array_equal(opal.raw.values, np.where(there[:, None, None], images, 0))
    usable = np.arange(12) % 4 != 1
    energy = run.ebeam["f_ebeam_photon_energy"]
    np.testing.assert_array_equal(energy.values, np.where(usable, beam["fEbeamPhotonEnergy"], np.nan))
    assert run.mean("ebeam.f_ebeam_charge").item() == pytest.approx(beam["fEbeamCharge"][usable].mean())
    pv = run.epics["XPP:TEMP"]
    assert pv.values.tolist() == [0, 0.5, 1, 1.5]
    assert run.epics.at()["XPP_TEMP"].values.tolist() == [0, *[0.5] * 6, 1, *[1.5] * 4]
    assert len(run.steps) == 2


def test_it_exports_and_reduces(truth, tmp_path):
    path, frames, *_ = truth
    run = psana_dask.open(path)
    expected = frames.astype(np.int64).sum(axis=0)
    np.testing.assert_array_equal(run.sum("xpp_gon_0_cspad_0.raw").values, expected)
    found = psana_dask.open(run.export(tmp_path / "again.h5"))
    for name in run.detectors:
        assert run[name].dataset(None).load().identical(found[name].dataset(None).load()), name

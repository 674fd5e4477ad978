"""Scripts as users of psana and psana2 write them run with nothing but the import line changed.

The scripts (`psana_scripts/`) say ``import psana`` or ``from psana import ...``; what they find is
compared with what was written into the runs.
"""

import os
import pickle
import re
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

import psana_dask
from psana_dask import simulate
from psana_dask.simulate import PV, Algorithm, Config, Daq, Detector, Epics, Field, Missing, RunSpec, Scan

SCRIPTS = Path(__file__).parent / "psana_scripts"
EVENTS = 40
CODES = {40: 1, 140: 1, 90: 3, 162: 12}  # code: every so many events
LACKS_OPAL = 3

GEOMETRY = """# DETECTOR own
IP         0    CAMERA              0        0      0   100000   0  0  0   0  0  0
CAMERA     0    MTRX:64:128:75:75   0    -5000      0        0   0  0  0   0  0  0
CAMERA     0    MTRX:64:128:75:75   1     5000      0        0   0  0  0   0  0  0
"""


def lcls1():
    detectors = (
        Detector(name="evr0", kind="timing"), Detector(name="ebeam", kind="ebeam"),
        Detector(name="gas", kind="gas_detector"), Detector(name="ipm", kind="ipm"),
        Detector(name="acq", kind="waveform", shape=(2, 1, 100)),
        Detector(name="opal", kind="camera", shape=(48, 64)),
        Detector(name="jungfrau", kind="jungfrau", shape=(2, 64, 128)),
    )  # fmt: skip
    temp = PV("temp", lambda m: 295.0 + m.event, address="XPP:TEMP", unit="K")
    return RunSpec(
        format="xtc", experiment="xpptut15", number=54, events=EVENTS, steps=4, detectors=detectors,
        scan=Scan(motors={"delay": [0.0, 0.5, 1.0, 1.5]}), epics=(Epics(pvs=(temp,)),), event_codes=CODES,
        missing=(Missing(events=(LACKS_OPAL,), detector="opal"),), daq=Daq(streams=2),
        slow_every=7, slow_offset=3,
    )  # fmt: skip


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """Truth of a run of LCLS-1, with constants beside it."""
    place = tmp_path_factory.mktemp("xpptut15")
    truth = simulate.write(lcls1(), place / "xtc")
    constants = {
        "pedestals": np.stack([pedestals(truth)] * 3).astype(np.float32),
        "pixel_status": np.zeros((3, 2, 64, 128), np.uint16),
        "geometry": GEOMETRY,
    }
    constants["pixel_status"][0, 1, 30, 40] = 1
    psana_dask.calib.deploy(constants, place / "calib", "MfxEndstation.0:Jungfrau.0", runs=1)
    return truth


def pedestals(truth):
    return truth.picture("jungfrau").pedestals.reshape(2, 64, 128)


@pytest.fixture
def script(tmp_path, monkeypatch):
    """Run a script with arguments, its import line changed; return its variables."""

    def run(name, *arguments):
        text = (SCRIPTS / f"{name}.py").read_text()
        changed = re.sub(r"^import psana$", "import psana_dask.psana as psana", text, flags=re.MULTILINE)
        changed = re.sub(r"^from psana import", "from psana_dask.psana import", changed, flags=re.MULTILINE)
        lines = zip(text.splitlines(), changed.splitlines(), strict=True)
        assert sum(a != b for a, b in lines) == 1
        names = {"__name__": "__main__"}
        exec(compile(changed, name, "exec"), names)
        return names

    def with_arguments(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        return run(name)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    return with_arguments


def dataset(truth, mode=""):
    return f"exp=xpptut15:run=54:dir={truth.folder}{mode}"


def values(truth, detector, field):
    return np.array([truth.value(detector, field, event) for event in range(EVENTS)])


def loaded(path):
    return pickle.loads(Path(path).read_bytes())


# ---- psana --------------------------------------------------------------------------------------
def test_laser_on_off(script, one, tmp_path):
    script("laser_on_off", dataset(one, ":smd"), tmp_path / "found.npz")
    found = np.load(tmp_path / "found.npz")
    codes = [one.event_codes(event) for event in range(EVENTS)]
    energy = values(one, "ebeam", "photon_energy")
    used = [k for k in range(EVENTS) if 162 not in codes[k] and energy[k] >= 9000]
    on = [k for k in used if 90 in codes[k]]
    off = [k for k in used if 90 not in codes[k]]
    assert found["counts"].tolist() == [len(on), len(off)]
    assert min(len(on), len(off)) > 0
    assert found["rows"][:, 0].tolist() == used
    temperature = [one.epics("temp")[k] for k in used]
    assert found["rows"][:, 5].tolist() == temperature
    assert len(set(temperature)) > 3
    images = psana_dask.open(dataset(one)).jungfrau.image.values
    for which, events in (("on", on), ("off", off)):
        wanted = np.nan_to_num(images[events]).mean(axis=0, dtype=np.float64)
        np.testing.assert_allclose(found[which], wanted, rtol=1e-12)  # another order of float64 sums


def test_small_data_maker(script, one, tmp_path):
    script("small_data_maker", dataset(one), tmp_path / "small.h5", 20)
    opal = [one.value("opal", "raw", event) for event in range(20)]
    frames = psana_dask.open(dataset(one)).jungfrau.calibrated(common_mode=(7, 1, 100)).values[:20]
    with h5py.File(tmp_path / "small.h5") as file:
        mask = file["UserDataCfg/jungfrau/mask"][:]
        assert mask[1, 30, 40] == 0
        assert len(file["event_time"]) == 20
        assert file["lightStatus/xray"][:].tolist() == [162 not in one.event_codes(k) for k in range(20)]
        assert file["lightStatus/laser"][:].tolist() == [90 in one.event_codes(k) for k in range(20)]
        assert np.array_equal(file["XppSb2_Ipm/sum"], values(one, "ipm", "ipm_fex_data_sum")[:20])
        assert file["XppSb2_Ipm/channels"].shape == (20, 4)
        assert file["epics/temp"][:].tolist() == [one.epics("temp")[k] for k in range(20)]
        assert file["opal/sum"][:].tolist() == [-99999 if f is None else f.sum() for f in opal]
        good = np.where(mask == 0, 0, frames)
        assert np.array_equal(file["jungfrau/ROI_0"], good[:, 1, 10:20, 30:40])
        np.testing.assert_allclose(file["Sums/jungfrau_calib"], good.sum(axis=0, dtype=float), atol=1e-9)
        assert file["note"].asstr()[()] == "done"


def test_scan_and_jump(script, one, tmp_path):
    script("scan_and_jump", dataset(one), tmp_path / "times.txt", tmp_path / "found")
    found, sums = loaded(tmp_path / "found"), values(one, "ipm", "ipm_fex_data_sum")
    assert [s[:4] for s in found["steps"]] == [(k, "delay", k / 2, 10) for k in range(4)]
    assert np.allclose([s[4] for s in found["steps"]], sums.reshape(4, 10).mean(axis=1))
    pulse = values(one, "gas", "f_11_enrc")
    brightest = np.argsort(pulse)[::-1][:5]
    opal = [one.value("opal", "raw", k) for k in brightest]
    assert [f[0] for f in found["found"]] == pulse[brightest].tolist()
    assert [f[1] for f in found["found"]] == [-1 if f is None else f.sum() for f in opal]
    seconds, nanoseconds = found["last"]
    assert psana_dask.open(dataset(one)).stop == np.datetime64(seconds * 10**9 + nanoseconds, "ns")


def test_types_and_sources(script, one, tmp_path):
    script("types_and_sources", dataset(one, ":smd"), tmp_path / "found")
    found = loaded(tmp_path / "found")
    assert [sorted(codes) for codes in found["codes"]] == [sorted(one.event_codes(k)) for k in range(EVENTS)]
    assert found["beam"] == values(one, "ebeam", "photon_energy").tolist()
    assert found["sums"] == values(one, "ipm", "ipm_fex_data_sum").tolist()
    assert found["temperature"] == [(one.epics("temp")[k],) * 2 for k in range(EVENTS)]
    assert np.array_equal(found["jungfrau"], values(one, "jungfrau", "raw"))
    for k, frame in enumerate(found["opal"]):
        wanted = one.value("opal", "raw", k)
        assert (frame is None) == (wanted is None) == (k == LACKS_OPAL)
        assert frame is None or np.array_equal(frame, wanted)
    volts = psana_dask.open(dataset(one)).acq.volts.values[:, 0, 0]
    length = min(len(found["volts"][0]), volts.shape[1])
    np.testing.assert_allclose([v[:length] for v in found["volts"]], volts[:, :length], rtol=1e-12)
    assert ("EvrData.DataV4", "NoDetector.0:Evr.0", "evr0") in found["keys"]
    assert (found["bias"], found["channels"]) == (200, 2)
    assert found["stored"] > 3


def test_pixels(script, one, tmp_path):
    names = script("pixels", dataset(one, ":smd"), tmp_path / "found.npz")
    found = np.load(tmp_path / "found.npz")
    native = psana_dask.open(dataset(one)).jungfrau
    frame = one.value("jungfrau", "raw", 0).astype(np.float32) - pedestals(one)
    assert names["det"].dettype == 26
    assert str(names["det"].source) == "MfxEndstation.0:Jungfrau.0"
    assert np.array_equal(found["nda"], frame)
    corrected = native.calibrated(common_mode=(7, 1, 100, 10)).values[0]
    good = native.masked(status=True).values == 1
    np.testing.assert_allclose(found["corrected"][good], corrected[good], atol=1e-4)  # float32
    mask = native.masked(status=True, edges=1).values  # panels of this layout have no middle
    assert np.array_equal(found["mask"], mask)
    assert found["grown"][1, 28, 40] == found["grown"][1, 30, 42] == found["grown"][1, 31, 41] == 0
    assert found["grown"][1, 28, 41] == 1
    assert np.array_equal(found["image"], found["by_hand"])
    assert np.array_equal(found["pixels"], frame)
    assert np.array_equal(found["back"], frame)
    assert np.array_equal(found["photons"][found["mask"] == 0], np.zeros((found["mask"] == 0).sum()))
    assert found["photons"].sum() > 0
    assert found["size"] == 75
    assert len(found["axis"]) == found["image"].shape[0]


def test_common_mode_of_whole_numbers_is_refused(one):
    det = psana_dask.psana.Detector("jungfrau", psana_dask.psana.DataSource(dataset(one)).env())
    with pytest.raises(TypeError, match=r"use values\.astype\(np\.float32\)"):
        det.common_mode_apply(54, np.zeros((2, 64, 128), int), cmpars=(7, 1, 100))
    values = np.ones((2, 64, 128), np.float32)
    det.common_mode_apply(54, values, cmpars=0)
    assert (values == 1).all()


# ---- psana2 -------------------------------------------------------------------------------------
def test_preprocessing_of_psana2(script, rich, rich_run, tmp_path):
    script("preproc2", rich.folder, tmp_path / "small.h5")
    table = rich_run.isel(slice(0, 30)).dataset(["gmd", "tt", "timing"], join="outer").load()
    kept = np.flatnonzero(table.gmd_present & table.timing_present)
    with h5py.File(tmp_path / "small.h5") as file:
        assert file["nevt"][:].tolist() == kept.tolist()
        assert np.array_equal(file["gmd/mj"], table.gmd_milliJoulesPerPulse.values[kept])
        assert file["timing/codes"].shape == (len(kept), 288)
        there = table.tt_present.values[kept]
        assert np.array_equal(np.isnan(file["tt/ampl"]), ~there)
        assert np.array_equal(file["tt/ampl"][:][there], table.tt_fex_ampl.values[kept][there])
        shown = table.tt_raw.values[kept][there]
        np.testing.assert_allclose(file["opal_mean"], shown.mean(axis=0))
        assert file["used"][0] == there.sum() > 0


def test_scan_and_jump_of_psana2(script, rich, rich_run, tmp_path):
    script("scan_and_jump2", rich.folder, tmp_path / "found")
    found = loaded(tmp_path / "found")
    assert [s[:2] for s in found["steps"]] == [(k, float(k)) for k in range(4)]
    assert [s[3] for s in found["steps"]] == [-1, 0, 1, 2]
    table = rich_run.dataset(["gmd"], join="outer")
    bright = table.isel(
        time=np.flatnonzero((table.gmd_milliJoulesPerPulse > 1).values & table.gmd_present.values)
    )
    assert found["stamps"] == bright.timestamp.values.tolist()
    assert found["bright"] == list(
        zip(found["stamps"], bright.gmd_milliJoulesPerPulse.values.tolist(), strict=True)
    )
    assert found["jumped"] == found["bright"][::-1]
    assert list(found["frames"]) == found["stamps"]
    whole = rich_run.sel(np.array(found["stamps"], np.uint64)).epix
    frames, complete = whole.raw.values, whole.dataset()["panel_present"].values.all(axis=1)
    for k, frame in enumerate(found["frames"].values()):
        assert (frame is not None) == complete[k]
        assert frame is None or np.array_equal(frame, frames[k])


def test_digitiser_and_frames_of_psana2(script, rich, tmp_path):
    panels = [f"CAMERA 0 MTRX:6:10:100:100 {k} 0 {2000 * k} 0 0 0 0 0 0 0" for k in range(4)]
    constants = {
        "pedestals": np.random.default_rng(3).uniform(900, 1100, (3, 4, 6, 10)).astype(np.float32),
        "geometry": "\n".join(["IP 0 CAMERA 0 0 0 100000 0 0 0 0 0 0", *panels, ""]),
    }
    files = sorted(rich.folder.glob("*.xtc2"))
    with psana_dask.set_options(calib=constants):
        script("digitiser_and_frames2", *files, tmp_path / "found")
    native = psana_dask.open(rich.folder, calib=constants)
    found, stamps = loaded(tmp_path / "found"), native.events.timestamp.values.tolist()
    calib = native.jf.calib.values
    assert len(found["calib"]) > 30
    for stamp, frame in found["calib"].items():
        assert np.array_equal(frame, calib[stamps.index(stamp)])
    assert found["constants"] == {"pedestals": (3, 4, 6, 10), "geometry": None}
    assert np.array_equal(found["mask"], native.jf.masked(edges=(1, 2)).values)
    assert found["sum"] == 4 * 6 * 10


def test_padded_waveforms_of_an_hsd(tmp_path):
    """Peaks in their places; between them the middle of what is left out (lcls2 ``hsd.pyx``)."""
    skipped, peak = [0x8000 | 8, 0x8000, 0x8000, 0x8000], [2500, 2600, 2700, 2550]
    words = np.array([*skipped, *peak, 0x8000 | 100, 0x8000, 0x8000, 0x8000], "<u2")
    header = np.array([len(words), 1 << 24, 0, 0], "<u4")  # samples; a stream of peaks
    payload = np.frombuffer(header.tobytes() + words.tobytes(), np.uint8)
    settings = {"user.fex.ymin": 2000, "user.fex.ymax": 2101, "user.fex.gate_ns": 40}
    channel = Field("chan00", "u1", (None,), value=payload, longest=len(payload))
    hsd = Detector(
        name="hsd", kind="hsd", config=Config(values=settings),
        algorithms=(Algorithm("raw", (2, 0, 0), (channel,)),),
    )  # fmt: skip
    simulate.write(RunSpec(events=2, detectors=(hsd,)), tmp_path)
    run = next(psana_dask.psana.DataSource(str(tmp_path)).runs())
    det, evt = run.Detector("hsd"), next(run.events())
    (starts, (samples,)) = det.raw.peaks(evt)[0][0]
    assert (starts, samples.tolist()) == ([8], peak)
    padded = det.raw.padded(evt)[0]
    assert padded[0].tolist() == [2050] * 8 + peak + [2050] * (200 - 12)  # 5 clocks of 40 samples
    np.testing.assert_allclose(padded["times"], np.arange(200) / (6.4e9 * 13 / 14))
    np.testing.assert_allclose(det.raw.peak_times(evt)[0][0], [padded["times"][8:12]])
    assert det.raw._seg_configs()[0].config.user.fex.gate_ns == 40
    assert det.raw.waveforms(evt) is None

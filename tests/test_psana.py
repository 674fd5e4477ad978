"""The faces of psana and psana2: data sources, loops, jumps, detectors, small data; as the native calls."""

import pickle
import sys
import threading
import uuid
import warnings

import h5py
import numpy as np
import pytest

import psana_dask
from psana_dask import psana, simulate
from psana_dask.errors import ConstantsNotFound, NameNotFound, PsanaWarning, RunNotFound
from psana_dask.psana import DataSource, DetNames, EventId, EventTime, MPIDataSource, Source
from psana_dask.simulate import PV, Daq, Detector, Epics, Missing, RunSpec, Scan
from psana_dask.stream.shmem_server import serve_run

EVENTS = 40


def lcls1(number, **changes):
    detectors = (
        Detector(name="evr0", kind="timing"),
        Detector(name="ebeam", kind="ebeam"),
        Detector(name="gas", kind="gas_detector"),
        Detector(name="cavity", kind="phase_cavity"),
        Detector(name="ipm", kind="ipm"),
        Detector(name="acq", kind="waveform", shape=(2, 1, 100)),
        Detector(name="opal", kind="camera", shape=(48, 64)),
        Detector(name="jungfrau", kind="jungfrau", shape=(2, 64, 128)),
    )
    temp = PV("temp", lambda m: 295.0 + m.event, address="XPP:TEMP", unit="K")
    return RunSpec(
        format="xtc", experiment="xpptut15", number=number, events=EVENTS, steps=4, detectors=detectors,
        scan=Scan(motors={"delay": [0.0, 0.5, 1.0, 1.5]}), epics=(Epics(pvs=(temp,)),),
        missing=(Missing(events=(3,), detector="opal"),), daq=Daq(streams=2), **changes,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An experiment of LCLS-1 with the runs 54, 55, 57, and pedestals."""
    place = tmp_path_factory.mktemp("xpptut15")
    for number in (55, 57):
        simulate.write(lcls1(number), place / "xtc")
    truth = simulate.write(lcls1(54), place / "xtc")
    for name, source in (("opal", "XppEndstation.0:Opal1000.0"), ("jungfrau", "MfxEndstation.0:Jungfrau.0")):
        pedestals = truth.picture(name).pedestals
        shape = (48, 64) if name == "opal" else (2, 64, 128)
        value = pedestals.reshape(shape) if name == "opal" else np.stack([pedestals.reshape(shape)] * 3)
        psana_dask.calib.deploy({"pedestals": value.astype(np.float32)}, place / "calib", source, runs=1)
    return place


@pytest.fixture
def text(folder):
    return f"exp=xpptut15:run=54:smd:dir={folder / 'xtc'}"


@pytest.fixture
def native(text):
    return psana_dask.open(text)


# ---- data sources ---------------------------------------------------------------------------------
def test_forms_of_a_data_source(folder, text):
    files = sorted(map(str, (folder / "xtc").glob("*r0054*.xtc")))
    forms = (
        lambda: DataSource(text),
        lambda: DataSource(text.replace(":smd", ":idx")),
        lambda: DataSource(f"exp=XPP/xpptut15,run=54,dir={folder / 'xtc'}"),
        lambda: DataSource(exp="xpptut15", run=54, dir=folder / "xtc", batch_size=10),
        lambda: DataSource(files=files),
        lambda: DataSource(*files),
        lambda: MPIDataSource(text),
    )
    for form in forms:
        ds = form()
        events = [evt.get(EventId).time() for evt in ds.events()]
        assert len(events) == EVENTS == len(set(events))
        assert [run.run() for run in ds.runs()] == [54]
        assert ds.env().experiment() == "xpptut15"
        assert ds.env().instrument() == "XPP"


def test_several_runs(folder):
    ds = DataSource(f"exp=xpptut15:run=54-57:dir={folder / 'xtc'}")
    assert [run.run() for run in ds.runs()] == [54, 55, 57]  # a range takes what is there
    assert sum(1 for _ in ds.events()) == 3 * EVENTS
    assert {evt.run() for evt in ds.events()} == {54, 55, 57}
    with pytest.raises(RunNotFound):
        DataSource(f"exp=xpptut15:run=54,56:dir={folder / 'xtc'}")
    both = DataSource(exp="xpptut15", run=[55, 57], dir=folder / "xtc")
    assert [run.runnum for run in both.runs()] == [55, 57]
    everything = DataSource(exp="xpptut15", dir=folder / "xtc")
    assert [run.runnum for run in everything.runs()] == [54, 55, 57]


def test_keywords_of_psana2(folder):
    where = {"exp": "xpptut15", "run": 54, "dir": folder / "xtc"}
    run = next(DataSource(**where, max_events=7).runs())
    stamps = [evt.timestamp for evt in run.events()]
    assert len(stamps) == 7
    chosen = next(DataSource(**where, timestamps=np.array(stamps[::-2], np.uint64)).runs())
    assert [evt.timestamp for evt in chosen.events()] == stamps[::2]
    kept = next(DataSource(**where, smd_callback=lambda run: (e for e in run.events() if e.step == 2)).runs())
    assert {evt.step for evt in kept.events()} == {2}
    with pytest.warns(PsanaWarning, match=r"filter=: ignored.*"):
        DataSource(**where, filter=lambda evt: True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        DataSource(**where, batch_size=1000, small_xtc=[], monitor=True)
    with pytest.raises(TypeError, match="exp= and run="):
        DataSource()


def test_what_is_wrong_is_said(folder, text):
    with pytest.raises(RunNotFound, match="xpptut15:smdd"):
        DataSource(f"exp=xpptut15:run=54:smdd:dir={folder / 'xtc'}")
    with pytest.raises(RunNotFound):
        DataSource(f"exp=xpptut15:run=99:dir={folder / 'xtc'}")
    ds = DataSource(text)
    with pytest.raises(NameNotFound, match="did you mean opal"):
        psana.Detector("opalx")
    with pytest.raises(KeyError):
        psana.Detector("nothing of this kind")
    assert psana.Detector("opalx", accept_missing=True).raw(next(ds.events())) is None
    with pytest.raises(AttributeError, match=r"did you mean EvrData\.Data"):
        psana.EvrData.DataV9  # noqa: B018
    with pytest.raises(AttributeError, match="did you mean ebeamPhotonEnergy"):
        psana.Detector("EBeam").get(next(ds.events())).ebeamPhotonEnrgy  # noqa: B018
    with pytest.raises(TypeError, match="no type of psana"):
        next(ds.events()).get("EBeam")
    with pytest.warns(PsanaWarning, match="did you mean psana.calib-dir"):
        psana.setOption("psana.calib_dir", "/nowhere")


def test_every_name_of_the_module_is_there():
    for name in psana.__all__:
        assert getattr(psana, name) is not None
    names = {}
    exec("from psana_dask.psana import *", names)
    assert {"DataSource", "Detector", "EventId", "EvrData", "CsPad"} <= set(names)


# ---- events ---------------------------------------------------------------------------------------
def test_jumps_and_names_of_events(text, native):
    run = next(DataSource(text).runs())
    times = run.times()
    assert [t.fiducial() for t in times] == native.events.fiducial.values.tolist()
    assert [t.time() for t in times] == native.events.timestamp.values.tolist()
    saved = pickle.loads(pickle.dumps(times[11]))
    evt = run.event(saved)
    assert evt.get(EventId).idxtime() == saved == EventTime(saved.time(), saved.fiducial())
    assert run.event(EventTime(saved.time(), saved.fiducial() + 1)) is None
    assert run.event(native.events.time.values[5]).position == 5
    assert run.times(3) == times[30:]
    assert run.nsteps() == 4


def test_steps(text, native):
    ds, seen = DataSource(text), []
    control = psana.Detector("ControlData")
    for step in ds.steps():
        (pv,) = control().pvControls()
        seen.append((pv.name(), pv.value(), sum(1 for _ in step.events())))
        assert next(ds.runs()).Detector("delay")(step) == pv.value()
        assert control(next(step.events())).pvControls()[0].value() == pv.value()
    assert seen == [("delay", k / 2, 10) for k in range(4)]


def test_two_runs_can_be_mixed(folder, text):
    one, other = (next(DataSource(text.replace("run=54", f"run={n}")).runs()) for n in ("54", "55"))
    opal = psana.Detector("opal")
    first, second = one.event(one.times()[0]), other.event(other.times()[0])
    wanted = [psana_dask.open(text.replace("run=54", f"run={n}")).opal.raw[0].values for n in ("54", "55")]
    assert np.array_equal(opal.raw(first), wanted[0])
    assert np.array_equal(opal.raw(second), wanted[1])
    assert np.array_equal(opal.raw(first), wanted[0])


# ---- detectors ------------------------------------------------------------------------------------
def test_frames_equal_the_native_ones(text, native):
    ds = DataSource(text)
    for name in ("opal", "jungfrau"):
        det, raw = psana.Detector(name), native[name].raw.values
        calib = native[name].calib.values
        own = native[name].calibrated(common_mode=None).values
        there = native[name].present.values
        for k, evt in enumerate(ds.events()):
            if not there[k]:
                assert det.raw(evt) is det.calib(evt) is None
                continue
            assert np.array_equal(det.raw(evt), raw[k])
            assert np.array_equal(det.calib(evt), calib[k])
            assert np.array_equal(det.calib(evt, cmpars=0), own[k])
        assert there.sum() == EVENTS - (name == "opal")


def test_images_and_masks_equal_the_native_ones(text, native):
    ds, det = DataSource(text), psana.Detector("opal")
    images = native.opal.image.values
    for k, evt in zip(range(3), ds.events(), strict=False):
        assert np.array_equal(det.image(evt), images[k])
    assert det.mask(evt) is None
    assert np.array_equal(det.mask(evt, status=True, edges=True), native.opal.masked(edges=1).values)
    assert np.array_equal(
        det.mask_v2(54, edges=True, mrows=2, mcols=3), native.opal.masked(edges=(2, 3)).values
    )
    for par in (54, evt, evt._run, None):
        assert np.array_equal(det.pedestals(par), native.opal.pedestals.values)
    assert det.shape(evt) == (48, 64)
    assert (det.size(), det.ndim(), det.runnum(evt), det.instrument()) == (48 * 64, 2, 54, "XPP")
    with pytest.raises(ConstantsNotFound):
        det.gain(evt)
    with pytest.raises(RunNotFound, match="it has 54"):
        det.pedestals(12)


def test_an_array_that_was_changed_is_read_again(text, native):
    evt, det = next(DataSource(text).events()), psana.Detector("opal")
    frame = det.calib(evt)
    frame[:] = -1
    assert np.array_equal(det.calib(evt), native.opal.calib[0].values)


def test_missing_pedestals_are_an_error(folder, tmp_path, native):
    run = psana_dask.psana.DataSource(*native.files, calib=tmp_path)
    evt = next(run.events())
    with pytest.raises(ConstantsNotFound, match="no pedestals"):
        psana.Detector("opal").calib(evt)
    assert psana.Detector("opal").raw(evt) is not None


def test_small_detectors(text, native):
    ds = DataSource(text)
    evr, ebeam, ipm, acq, temp = map(psana.Detector, ("evr0", "EBeam", "XppSb2_Ipm", "acq", "XPP:TEMP"))
    codes, energy = native.evr.codes.values, native.ebeam.photon_energy.values
    sums, volts = native["XppSb2_Ipm"].sum.values, native.acq.volts.values
    temps = native.epics.at()["XPP:TEMP"].values
    for k, evt in enumerate(ds.events()):
        assert sorted(evr.eventCodes(evt)) == np.flatnonzero(codes[k]).tolist()
        assert ebeam.get(evt).ebeamPhotonEnergy() == energy[k]
        assert evt.get(psana.Bld.BldDataEBeamV7, Source("BldInfo(EBeam)")).ebeamPhotonEnergy() == energy[k]
        assert ipm.sum(evt) == sums[k]
        assert np.array_equal(acq.waveform(evt), volts[k, :, 0])
        assert temp() == temp(evt) == temps[k] == ds.env().epicsStore().value("XPP:TEMP")
    assert ("XppEndstation.0:Opal1000.0", "opal", "") in DetNames()
    assert [n for n, _, _ in DetNames("epics")] == ["XPP:TEMP"]
    config = ds.env().configStore().get(psana.Jungfrau.ConfigV4, Source("jungfrau"))
    assert config.biasVoltage() == native.config("jungfrau").bias_voltage == 200


# ---- small data -----------------------------------------------------------------------------------
def test_small_data_of_psana(text, native, tmp_path):
    ds, seen = MPIDataSource(text), []
    small = ds.small_data(tmp_path / "small.h5", gather_interval=7)
    small.add_monitor_function(seen.append)
    opal, total = psana.Detector("opal"), 0.0
    for n, evt in enumerate(ds.events()):
        frame = opal.calib(evt)
        if frame is None:
            continue
        total += frame.sum()
        small.event(total=frame.sum(), roi={"a": frame[:2, :3]}, n=n)
        if n % 4 == 0:
            small.event(every_fourth=n, label=f"event {n}", var_x=np.arange(n % 3), half=0.5)
    small.save(run_sum=small.sum(total), note="done")
    assert (ds.master, ds.rank, ds.size) == (True, 0, 1)
    frames = np.delete(native.opal.calib.values, 3, axis=0)
    with h5py.File(tmp_path / "small.h5") as file:
        assert len(file["event_time"]) == EVENTS - 1 == len(seen)
        assert np.array_equal(file["event_time"], np.delete(native.events.timestamp.values, 3))
        assert np.array_equal(file["fiducials"], np.delete(native.events.fiducial.values, 3))
        assert np.array_equal(file["roi/a"], frames[:, :2, :3])
        assert np.allclose(file["total"], frames.sum(axis=(1, 2)), rtol=1e-4)  # float32 sums
        energy = np.delete(native.ebeam.photon_energy.values, 3)
        assert np.array_equal(file["ebeam/photon_energy"], energy)
        assert {"f_11_ENRC", "f_64_ENRC"} <= set(file["gas_detector"])
        assert set(file["phase_cav"]) == {"charge1", "charge2", "fit_time_1", "fit_time_2"}
        numbers = np.array([n for n in range(EVENTS) if n != 3])
        there = numbers % 4 == 0
        assert np.array_equal(file["every_fourth"], np.where(there, numbers, -99999))
        assert np.array_equal(file["every_fourth_present"], there)
        assert np.array_equal(np.isnan(file["half"]), ~there)
        assert file["label"].asstr()[:2].tolist() == ["event 0", ""]
        assert np.array_equal(file["var_x_len"], np.where(there, numbers % 3, 0))
        assert len(file["var_x"]) == sum(numbers[there] % 3)
        assert file["run_sum"][0] == total
        assert file["note"].asstr()[()] == "done"


def test_small_data_keeps_what_is_named(text, tmp_path):
    ds = MPIDataSource(text)
    small = ds.small_data(tmp_path / "few.h5", keys_to_save=["a"])
    ds.break_after(5)
    for n, _ in enumerate(ds.events()):
        small.event(a=n, b=2 * n)
    small.close()
    with h5py.File(tmp_path / "few.h5") as file:
        assert set(file) == {"a", "event_time", "fiducials"}
        assert file["a"][:].tolist() == list(range(5))


def test_small_data_say_what_they_cannot_hold(text, tmp_path):
    ds = MPIDataSource(text)
    with pytest.raises(RuntimeError, match="within the loop"):
        ds.small_data().event(a=1)
    small = ds.small_data(tmp_path / "bad.h5", gather_interval=1)
    for n in (0, 1):
        next(events_at := ds.events())
        small.event(a=np.zeros(2 + n))
    with pytest.raises(ValueError, match="var_a or ragged_a"):
        small.close()
    other = ds.small_data(tmp_path / "worse.h5")
    next(events_at)
    other.event(a=object())
    with pytest.raises(TypeError, match="small data are numbers"):
        other.close()


def test_integers_become_what_comes_later(text, tmp_path):
    ds = MPIDataSource(text)
    small = ds.small_data(tmp_path / "types.h5", gather_interval=2)
    for n, _ in enumerate(ds.events()):
        small.event(x=n if n < 10 else n + 0.5, flag=n % 2 == 0, text="a" * n)
        small.event(**({"u": np.uint8(n)} if n > 5 else {}))
    small.save()
    with h5py.File(tmp_path / "types.h5") as file:
        assert file["x"][:].tolist() == [n if n < 10 else n + 0.5 for n in range(EVENTS)]
        assert file["flag"][:4].tolist() == [1, 0, 1, 0]
        assert file["u"][:8].tolist() == [-99999] * 6 + [6, 7]
        assert file["u_present"][:8].tolist() == [False] * 6 + [True] * 2


# ---- LCLS-II --------------------------------------------------------------------------------------
@pytest.fixture
def rich2(rich):
    return next(DataSource(files=str(rich.folder)).runs())


def test_loop_of_psana2(rich2, rich_run):
    timing, gmd, epix, opal = map(rich2.Detector, ("timing", "gmd", "epix", "tt"))
    table, frames = rich_run.dataset(join="outer"), rich_run.epix
    whole = frames.dataset()["panel_present"].values.all(axis=1)
    for k, evt in enumerate(rich2.events()):
        assert evt.timestamp == int(table.timestamp[k])
        assert evt.timestamp_diff(evt.timestamp + 5) == -5
        wanted = table.gmd_milliJoulesPerPulse.values[k] if table.gmd_present.values[k] else None
        assert gmd.raw.milliJoulesPerPulse(evt) == wanted
        raw = epix.raw.raw(evt)
        assert (raw is not None) == whole[k]
        assert raw is None or np.array_equal(raw, frames.raw[k].values)
        picture = opal.raw.image(evt)
        assert (picture is not None) == bool(table.tt_present[k])
        assert picture is None or picture.shape == (6, 10)
        assert opal.fex.ampl(evt) == (table.tt_fex_ampl.values[k] if picture is not None else None)
        flags = timing.raw.eventcodes(evt)
        assert flags is None or flags == rich_run.evr.codes.values[k].astype(int).tolist()
    assert 0 < whole.sum() < len(whole)


def test_slow_data_of_psana2(rich2, rich_run):
    temps = rich_run.epics.at()
    for evt in rich2.events():
        present = temps.temperature_present.values[evt.position]
        wanted = temps.temperature.values[evt.position] if present else None
        assert rich2.Detector("TST:TEMP")(evt) == rich2.Detector("temperature")(evt) == wanted
        assert rich2.Detector("delay")(evt) == rich_run.steps.delay.iloc[evt.step]
    for step in rich2.steps():
        assert rich2.Detector("delay")(step.evt) == rich_run.steps.delay.iloc[step.number]
        assert {rich2.step(evt).number for evt in step.events()} <= {step.number}
    assert ("delay", "raw") in rich2.scaninfo
    assert ("TST:TEMP", "raw") in rich2.epicsinfo
    assert rich2.detinfo["tt", "fex"] == ["ampl", "config", "fltpos", "status"]
    assert rich2.xtcinfo["gmd", "raw"] == ["milliJoulesPerPulse", "milliJoulesAverage"]
    with rich2.build_table() as made:
        assert made
        assert rich2.event(next(rich2.events()).timestamp).position == 0
    with pytest.raises(NameNotFound, match="did you mean"):
        rich2.Detector("temperatur")
    with pytest.raises(AttributeError, match="did you mean ampl"):
        rich2.Detector("tt").fex.amplitude  # noqa: B018


def test_streams_by_detectors(rich):
    one = next(DataSource(files=str(rich.folder), detectors=["tt"]).runs())
    same = next(DataSource(files=str(rich.folder), detnames=["tt"]).runs())
    assert len(same.native) == len(one.native)
    assert "epix" not in one.detnames or len(one.native) < 40
    assert all(evt is not None for evt in one.events())
    other = next(DataSource(files=str(rich.folder), xdetectors=["tt"]).runs())
    assert "tt" not in {n for n in other.detnames if other.native[n].presence > 0}


def test_small_data_of_psana2(rich2, rich, tmp_path):
    ds, seen = DataSource(files=str(rich.folder)), []
    run = next(ds.runs())
    smd = ds.smalldata(filename=tmp_path / "smd.h5", batch_size=6, callbacks=[seen.append])
    gmd = run.Detector("gmd")
    for evt in run.events():
        energy = gmd.raw.milliJoulesPerPulse(evt)
        if energy is not None:
            smd.event(evt, {"gmd": {"energy": energy}})
            smd.event(evt, n=evt.position)
    if smd.summary:
        smd.save_summary(mean=np.ones(3))
    smd.done()
    with h5py.File(tmp_path / "smd.h5") as file:
        assert len(file["timestamp"]) == len(seen) == len(file["gmd/energy"])
        assert np.all(np.diff(file["timestamp"][:].astype(np.int64)) > 0)
        assert file["mean"][:].tolist() == [1, 1, 1]


def test_either_face_reads_either_format(rich, folder):
    ds = DataSource(str(rich.folder))  # psana's face on LCLS-II
    det, evt = psana.Detector("gmd"), next(ds.events())
    assert det.get(evt).milliJoulesPerPulse() == pytest.approx(
        float(psana_dask.open(rich.folder).gmd.milliJoulesPerPulse[0])
    )
    seconds, nanoseconds = evt.get(EventId).time()
    assert np.datetime64(seconds * 10**9 + nanoseconds, "ns") == evt.time
    run = next(DataSource(exp="xpptut15", run=54, dir=folder / "xtc").runs())  # psana2's on LCLS-1
    evt = next(run.events())
    assert run.Detector("opal").raw.raw(evt).shape == (1, 48, 64)
    assert (
        run.Detector("ebeam").raw.photon_energy(evt) == psana.Detector("EBeam").get(evt).ebeamPhotonEnergy()
    )


# ---- live -----------------------------------------------------------------------------------------
def test_a_run_that_is_written(text, native):
    ds = DataSource(text.replace(":smd", ":live"))
    opal, temp = psana.Detector("opal"), psana.Detector("XPP:TEMP")
    temps = native.epics.at()["XPP:TEMP"].values
    seen = [(evt.timestamp, opal.raw(evt) is not None, temp(evt)) for evt in ds.events()]
    assert [s[0] for s in seen] == native.events.timestamp.values.tolist()
    assert [s[1] for s in seen] == native.opal.present.values.tolist()
    assert [s[2] for s in seen] == temps.tolist()


@pytest.mark.skipif(sys.platform != "linux", reason="POSIX message queues are Linux only")
@pytest.mark.parametrize("form", ["shmem={}.0:stop=no", "shmem"])
def test_shared_memory(form, text, native, folder):
    tag = f"test_{uuid.uuid4().hex[:12]}"
    serving = threading.Thread(target=serve_run, args=(tag, native._recording), kwargs={"wait": 1.0})
    serving.start()
    calib = folder / "calib"
    ds = DataSource(shmem=tag, calib=calib) if form == "shmem" else DataSource(form.format(tag), calib=calib)
    opal, frames, seen = psana.Detector("opal"), native.opal.calib.values, []
    words = native.events.timestamp.values.tolist()
    for evt in ds.events():
        k = words.index(evt.timestamp)
        calibrated = opal.calib(evt)
        assert calibrated is None or np.array_equal(calibrated, frames[k])
        seen.append(k)
        if len(seen) == 20:
            break
    ds.end()
    serving.join()
    assert seen == list(range(20))


# ---- other sources --------------------------------------------------------------------------------
def test_an_export_has_the_same_face(text, native, tmp_path):
    native.isel(slice(0, 12)).export(tmp_path / "part.h5", ["opal.raw", "ebeam", "evr0"], bundle=True)
    ds = DataSource(str(tmp_path / "part.h5"))
    opal, ebeam, evr, temp = map(psana.Detector, ("opal", "EBeam", "evr0", "XPP:TEMP"))
    theirs = next(DataSource(text).runs())
    for evt in ds.events():
        original = theirs.event(evt.get(EventId).idxtime())
        assert evt.get(EventId).time() == original.get(EventId).time()
        assert ebeam.get(evt).ebeamPhotonEnergy() == ebeam.get(original).ebeamPhotonEnergy()
        assert sorted(evr.eventCodes(evt)) == sorted(evr.eventCodes(original))
        assert temp(evt) == temp(original)
        assert (opal.raw(evt) is None) == (opal.raw(original) is None)
        assert opal.raw(evt) is None or np.array_equal(opal.calib(evt), opal.calib(original))
    assert evt.position == 11


def test_calibrated_values_of_psana2_equal_the_native_ones(rich):
    constants = {"pedestals": np.random.default_rng(3).uniform(900, 1100, (3, 4, 6, 10)).astype(np.float32)}
    run = next(DataSource(files=str(rich.folder), calib=constants).runs())
    native = psana_dask.open(rich.folder, calib=constants)
    det, calib = (
        run.Detector("jf", edges=True, edge_rows=1, edge_cols=1),
        native.jf.calibrated(mask={"edges": 1}),
    )
    whole = native.jf.dataset()["panel_present"].values.all(axis=1)
    values = calib.values
    for evt in run.events():
        found = det.raw.calib(evt)
        assert (found is not None) == whole[evt.position]
        assert found is None or np.array_equal(found, values[evt.position])
    assert np.array_equal(det.raw._mask(), native.jf.masked(edges=1).values)
    assert np.array_equal(det.raw._pedestals(), constants["pedestals"])
    assert det.calibconst["pedestals"][0].shape == (3, 4, 6, 10)
    assert det.raw._segment_numbers(next(run.events())).tolist() == native.jf.raw.panel.values.tolist()

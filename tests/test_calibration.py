"""Calibration of runs: which constants serve, every step by choice, what is said of it, what travels."""

import importlib.util
import json
import pickle
from pathlib import Path

import cloudpickle
import distributed
import numpy as np
import pytest
import xarray as xr

import psana_dask
from psana_dask import simulate
from psana_dask.calib import deploy, gain, kept
from psana_dask.calib.apply import apply, prepare
from psana_dask.calib.apply import common_mode as common_mode_of
from psana_dask.calib.detectors import DETECTORS
from psana_dask.calib.detectors import detector as detector_row
from psana_dask.calib.directory import CalibDirectory
from psana_dask.calib.webdb import Limits, WebStore
from psana_dask.errors import ConstantsError, ConstantsNotFound, ConstantsWarning
from psana_dask.options import current, set_options
from psana_dask.simulate import Algorithm, Config, Detector, Field, Missing, RunSpec

_spec = importlib.util.spec_from_file_location("webdb", Path(__file__).parent / "calib/test_webdb.py")
webdb = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(webdb)

SHAPE = (2, 32, 64)  # of a small Jungfrau: two panels with banks of 16 x 4
CAMERA = (20, 30)


def words(moment):
    """Words with switched pixels: a fifth of them in g1 and g2, one in a hundred with the bad code."""
    r = np.random.default_rng(moment.key % 2**32)
    values = r.integers(2900, 3100, (1, *SHAPE[1:]))
    codes = r.choice(4, values.shape, p=[0.79, 0.1, 0.01, 0.1])
    return (values | codes << 14).astype(np.uint16)


def small_frame(moment):
    return np.random.default_rng(moment.key % 2**32).integers(30, 90, CAMERA).astype(np.uint16)


def raw_of(value, shape, version=(0, 2, 0), name="raw"):
    return (Algorithm("raw", version, (Field(name, "u2", shape, value),)),)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    detectors = (
        Detector(name="jf", kind="jungfrau", segments=2, algorithms=raw_of(words, (1, *SHAPE[1:]))),
        Detector(name="opal", kind="camera", algorithms=raw_of(small_frame, CAMERA, name="image")),
        Detector(name="odd", kind="camera", det_type="neverheardof", stream=1,
                 algorithms=raw_of(small_frame, CAMERA, (7, 8, 9), "flux")),
    )
    missing = (Missing(events=(2,), detector="jf", segment=1),)
    place = tmp_path_factory.mktemp("runs") / "xtc"
    simulate.write(RunSpec(events=5, detectors=detectors, missing=missing, number=12), place)
    return place


@pytest.fixture(scope="module")
def constants():
    r = np.random.default_rng(3)
    return {
        "pedestals": r.normal(2990, 20, (3, *SHAPE)).astype(np.float32),
        "pixel_gain": r.uniform(20, 40, (3, *SHAPE)).astype(np.float32),
        "pixel_status": (r.random((3, *SHAPE)) < 0.01).astype(np.uint64),
    }


@pytest.fixture
def jf(folder, constants):
    return psana_dask.open(folder, calib=constants).jf


def by_hand(jf, constants, **choices):
    tables = prepare(constants, detector_row("jungfrau"), xtc2=True, shape=SHAPE, **choices)
    out = apply(jf.raw.values, tables)
    out[2, 1] = np.nan
    return out


# ---- every step by choice -----------------------------------------------------------------------
CHOICES = [
    {}, {"common_mode": (7, 7, 100, 3)}, {"common_mode": None, "gain": False}, {"mask": False},
    {"pedestals": False}, {"mask": {"edges": 2, "neighbours": 1}}, {"fill": np.nan},
]


@pytest.mark.parametrize("choices", CHOICES, ids=str)
def test_choices_are_those_of_the_kernels(jf, constants, choices):
    np.testing.assert_array_equal(jf.calibrated(**choices).values, by_hand(jf, constants, **choices))


def test_arrays_and_functions_take_the_place_of_steps(jf, constants):
    doubled = constants["pixel_gain"] * 2
    mask = np.ones(SHAPE, bool)
    mask[:, 3] = False
    given = jf.calibrated(gain=doubled, mask=mask, pedestals=constants["pedestals"] + 1).values
    wanted = by_hand(jf, constants, gain=doubled, mask=mask, pedestals=constants["pedestals"] + 1)
    np.testing.assert_array_equal(given, wanted)

    def halve(values, ranges):
        values[ranges == 0] /= 2

    def minus_mean(values, used):
        values -= values[used != 0].mean(dtype=np.float32)

    functions = {"gain": halve, "common_mode": minus_mean}
    found = jf.calibrated(**functions)
    np.testing.assert_array_equal(found.values, by_hand(jf, constants, **functions))
    assert found.attrs["gain"].endswith("halve")
    part = found[1:4, 0, 5:9].values
    np.testing.assert_array_equal(part, found.values[1:4, 0, 5:9])


def test_the_common_mode_alone(jf, constants):
    numbers = (7, 7, 100, 3)
    found = jf.common_mode(numbers)
    tables = prepare(constants, detector_row("jungfrau"), xtc2=True, shape=SHAPE, common_mode=numbers)
    wanted = common_mode_of(jf.raw.values, tables)
    wanted[2, 1] = np.nan
    np.testing.assert_array_equal(found.values, wanted)
    assert found.attrs["units"] == "ADU"
    assert not found.attrs["calibrated"]
    assert not jf.common_mode(None).values[0].any()


def test_attributes_say_what_was_done(jf):
    attrs = jf.calib.attrs
    assert attrs["calibrated"] is True
    said = [attrs[k] for k in ("pedestals", "common_mode", "gain", "mask")]
    assert said == ["constants", "off", "constants", "status words"]
    used = json.loads(attrs["constants"])
    assert set(used) == {"pedestals", "pixel_gain", "pixel_status"}
    assert len(used["pedestals"]["sha256"]) == 64
    assert used["pedestals"]["store"] == "given"
    chosen = jf.calibrated(common_mode=(7, 1, 100), mask={"edges": 1}, gain=False).attrs
    assert (chosen["common_mode"], chosen["mask"], chosen["gain"]) == ("7, 1, 100", "edges=1", "off")
    assert chosen["units"] == "ADU"
    assert jf.calibrated(pedestals=False).attrs["calibrated"] is False


def test_an_unknown_choice_is_an_error(jf):
    with pytest.raises(TypeError, match="colour"):
        jf.calibrated(colour="red")


# ---- which store --------------------------------------------------------------------------------
@pytest.fixture
def store(constants, tmp_path):
    deploy(constants, tmp_path / "calib", "jf", 3)
    return tmp_path / "calib"


@pytest.mark.parametrize("how", ["argument", "store", "list", "option", "environment", "beside"])
def test_which_store_serves(folder, store, constants, monkeypatch, how):
    empty = store.parent / "empty"
    arguments = {"argument": store, "store": CalibDirectory(store), "list": [empty, store]}
    source, argument = folder, arguments.get(how)
    option = store if how == "option" else None
    if how == "environment":
        monkeypatch.setenv("PSANA_DASK_CALIB", f"{empty}, {store}")
    if how == "beside":
        (store.parent / "xtc").symlink_to(folder)
        source = store.parent / "xtc"
    with set_options(calib=option):
        jf = psana_dask.open(source, calib=argument).jf
        np.testing.assert_array_equal(jf.constants["pedestals"].value, constants["pedestals"])
    assert f"took    calib directory {store}" in jf.explain_constants()


def test_constants_in_the_call_win(jf, store):
    deploy({"pedestals": np.zeros((3, *SHAPE))}, store, "jf", 4)
    here = jf.calibrated(constants=store, gain=False, mask=False).values
    np.testing.assert_array_equal(here[0][jf.gain_range.values[0] == 0], (jf.raw.values[0] & 0x3FFF)[
        jf.gain_range.values[0] == 0])


def test_constants_are_looked_up_once_and_only_what_is_needed(folder, store, monkeypatch):
    asked = []
    original = CalibDirectory.find

    def counted(self, detector, kind, run):
        asked.append(kind)
        return original(self, detector, kind, run)

    monkeypatch.setattr(CalibDirectory, "find", counted)
    (next(store.glob("*/jf")) / "pixel_rms").mkdir()
    (next(store.glob("*/jf")) / "pixel_rms" / "0-end.data").write_text("no numbers\n")
    run = psana_dask.open(folder, calib=store)
    run.jf  # noqa: B018
    repr(run)
    assert not asked
    run.jf.calib  # noqa: B018
    run.isel(slice(0, 2)).jf.calib  # noqa: B018  a selection knows what the run knows
    run["jf"].calibrated(common_mode=(7, 1, 100))
    assert sorted(asked) == sorted({*asked})
    assert "pixel_rms" not in asked
    assert "geometry" not in asked
    with pytest.raises(ConstantsError, match="not a table"):
        run.jf.rms  # noqa: B018


def test_a_malformed_constant_in_force_is_an_error(folder, store):
    path = next(store.glob("*/jf/pixel_gain/3-end.data"))
    path.write_text("1 2 3\n")
    with pytest.raises(ConstantsError, match=r"pixel_gain has shape \(3,\), an event has"):
        psana_dask.open(folder, calib=store).jf.calib  # noqa: B018


# ---- the web service ----------------------------------------------------------------------------
@pytest.fixture
def service(constants, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    made = webdb.Service()
    long_name = "jungfrau_jf-1234_jf-1234"
    made.documents["cdb_detnames", "jungfrau"] = [{"long": long_name, "short": "jungfrau_000001"}]
    for kind, value in constants.items():
        made.add("cdb_tstx00117", "jungfrau_000001", kind, value, run=10)
    yield made
    made.server.shutdown()
    made.server.server_close()


QUICK = Limits(timeout=0.5, total=4, attempts=4, pause=0.01)


def online(folder, service, cache=None):
    return psana_dask.open(folder, calib=WebStore("tstx00117", service.url, cache, QUICK)).jf


@pytest.mark.parametrize("how", ["address", "web", "environment"])
def test_the_service_serves_a_run(folder, service, constants, monkeypatch, how):
    if how != "address":
        monkeypatch.setenv("LCLS_CALIB_HTTP", service.url)
    jf = psana_dask.open(folder, calib={"address": service.url, "web": "web"}.get(how)).jf
    np.testing.assert_array_equal(jf.calib.values, by_hand(jf, constants))
    assert f"web service {service.url}" in jf.explain_constants()
    assert json.loads(jf.calib.attrs["constants"])["pedestals"]["detector"] == "jungfrau_000001"


@pytest.mark.parametrize("fault", [webdb.slow, webdb.fails(500), webdb.truncated])
def test_faults_that_pass_do_not_matter(folder, service, constants, fault):
    service.faults = [fault]
    jf = online(folder, service)
    np.testing.assert_array_equal(jf.calib.values, by_hand(jf, constants))


@pytest.mark.parametrize("fault", [webdb.slow, webdb.fails(500), webdb.truncated])
def test_a_service_that_stays_down_is_an_error_at_once(folder, service, fault):
    service.faults = [fault] * 9
    with pytest.raises(ConstantsNotFound, match="the calibration service does not answer"):
        online(folder, service).calib  # noqa: B018
    service.faults = [fault] * 9
    with pytest.warns(ConstantsWarning, match="raw counts.*does not answer"):
        raw = online(folder, service).calibrated(policy="warn")
    assert raw.attrs["calibrated"] is False


def test_wrong_shapes_are_refused(folder, service):
    for document in service.documents["cdb_tstx00117", "jungfrau_000001"]:
        document["data_shape"] = "(3, 2, 32, 63)"
    with pytest.raises(ConstantsError, match=r"shape \(3, 2, 32, 63\) needs"):
        online(folder, service).calib  # noqa: B018


def test_constants_seen_once_serve_without_the_network(folder, service, constants, tmp_path):
    online(folder, service, tmp_path).calib  # noqa: B018
    service.faults = [webdb.fails(500)] * 99
    jf = online(folder, service, tmp_path)
    np.testing.assert_array_equal(jf.calib.values, by_hand(jf, constants))
    assert "used the documents of the last time" in jf.explain_constants()


def test_pickles_are_never_opened(folder, service):
    for document in service.documents["cdb_tstx00117", "jungfrau_000001"]:
        document["data_type"] = "any"
    with pytest.raises(ConstantsError, match="a pickle is never opened"):
        online(folder, service).calib  # noqa: B018


# ---- detectors of all kinds ---------------------------------------------------------------------
def test_an_unknown_imaging_detector_is_calibrated_and_viewed(folder, constants):
    odd = psana_dask.open(folder, calib={"pedestals": np.full(CAMERA, 30.0)}).odd
    assert odd.det_type == "neverheardof"
    np.testing.assert_array_equal(odd.calib.values, odd.raw.values.astype(np.float32) - 30)
    np.testing.assert_array_equal(odd.image.values, odd.calib.values)
    assert odd.image.dims == ("time", "y", "x")
    assert not odd.gain_range.values.any()
    assert odd.mask.values.all()


@pytest.mark.parametrize("name", [row.name.lower() for row in DETECTORS])
def test_every_row_of_the_table_calibrates(tmp_path, name):
    row = detector_row(name)
    rows, cols = {"cspad": (185, 388), "cspad2x2": (185, 388), "archon": (32, 9600)}.get(name, (32, 64))
    levels = max(1, len(row.decoding.ranges))

    def frame(moment):
        return np.random.default_rng(moment.key % 2**32).integers(100, 140, (rows, cols)).astype(np.uint16)

    settings = Config(values={"cbitsConfig": np.full((rows, cols), 28, np.uint8)})
    detector = Detector(name="d", kind="camera", det_type=name, config=settings, segments=2,
                        algorithms=raw_of(frame, (rows, cols)))
    simulate.write(RunSpec(events=1, detectors=(detector,)), tmp_path)
    peds = np.full((levels, 2, rows, cols) if levels > 1 else (2, rows, cols), 100.0)
    d = psana_dask.open(tmp_path, calib={"pedestals": peds}).d
    values = d.calibrated(common_mode=None).values
    scale = np.float32(row.keV_per_adu or 1)
    inside = (d.raw.values & row.decoding.data_bits).astype(np.float32)
    if name in ("epixuhr",):  # the lowest bit of a word says the range
        assert (d.gain_range.values == (d.raw.values & 1)).all()
    np.testing.assert_array_equal(values, (inside - np.float32(100)) * scale)
    assert d.calib.attrs["calibrated"]


@pytest.mark.parametrize(("version", "common_mode"), [((2, 0, 1), "7, 3, 10, 10"), ((3, 0, 1), "off")])
def test_newer_epix10ka_have_no_common_mode_by_default(tmp_path, version, common_mode):
    settings = Config(values={"cbitsConfig": np.full((352, 384), 28, np.uint8)})
    algorithms = raw_of(lambda moment: np.full((352, 384), 3000, np.uint16), (352, 384), version)
    detector = Detector(name="e", kind="epix10ka", segments=1, config=settings, algorithms=algorithms)
    simulate.write(RunSpec(events=1, detectors=(detector,)), tmp_path)
    constants = {"pedestals": np.full((7, 352, 384), 3000.0), "common_mode": [7, 3, 10, 10]}
    e = psana_dask.open(tmp_path, calib=constants).e
    assert e.calib.attrs["common_mode"] == common_mode
    assert e.calibrated(common_mode=(7, 3, 10, 10)).attrs["common_mode"] == "7, 3, 10, 10"


# ---- LCLS-1 -------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def cspad(tmp_path_factory):
    place = tmp_path_factory.mktemp("lcls1") / "xtc"
    simulate.write(RunSpec(events=2, detectors=(Detector(name="front", kind="cspad"),), format="xtc"), place)
    levels = np.random.default_rng(0).normal(1000, 30, (32, 185, 388))
    deploy({"pedestals": levels}, place.parent / "calib", "XppGon.0:Cspad.0", 0)
    return place


def lcls1(place):
    """Open the run with pedestals from the folder beside it and gains at hand."""
    gains = np.random.default_rng(1).uniform(0.8, 1.2, (32, 185, 388))
    return psana_dask.open(place, calib=[place.parent / "calib", {"pixel_gain": gains}]).front


def test_lcls1_runs_follow_psana1(cspad):
    front = lcls1(cspad)
    used = {kind: c.value for kind, c in front.constants.items()}
    assert "CsPad::CalibV1/XppGon.0:Cspad.0/pedestals/0-end.data" in front.constants["pedestals"].origin
    tables = prepare(used, detector_row("Cspad"), xtc2=False)  # gain multiplies, common mode 1
    np.testing.assert_array_equal(front.calib.values, apply(front.raw.values, tables))
    assert front.calib.attrs["common_mode"] == "1, 25, 25, 100"
    assert "low_gain_pixels" not in front.calib.attrs


def test_low_gain_of_a_cspad_comes_from_its_settings(cspad, monkeypatch):
    maps = np.random.default_rng(0).integers(0, 2**16, (4, 185, 194)).astype(np.uint16)
    monkeypatch.setattr("psana_dask.calibration._gain_maps", lambda config: list(maps))
    front = lcls1(cspad)
    high = np.empty((32, 185, 388), bool)
    for section in range(32):
        for half in range(2):
            bit = maps[section // 8] >> (2 * (section % 8) + half) & 1
            high[section, :, 194 * half : 194 * half + 194] = bit
    plain = front.calibrated(gain_mask=np.ones(high.shape), common_mode=None).values
    scaled = front.calibrated(common_mode=None)
    # one factor for both gains: at most 2 units in the last place from one after the other
    np.testing.assert_allclose(scaled.values, plain * np.where(high, 1, np.float32(6.85)), rtol=3e-7)
    assert scaled.attrs["low_gain_pixels"] == int((~high).sum())


def test_gain_ranges_of_lcls1_settings(tmp_path):
    detector = Detector(name="q", kind="epix10kaquad")
    simulate.write(RunSpec(events=1, detectors=(detector,), format="xtc"), tmp_path)
    quad = psana_dask.open(tmp_path).q
    assert set(np.unique(quad.gain_range.values)) == {4}  # auto ranging from medium, not switched


# ---- what travels -------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A Jungfrau of one whole panel: 20 MB of tables, 200 events of one picture."""
    picture = np.random.default_rng(0).integers(2900, 3100, (1, 512, 1024)).astype(np.uint16)
    algorithms = raw_of(lambda moment: picture, (1, 512, 1024))
    place = tmp_path_factory.mktemp("large")
    detector = Detector(name="jf", kind="jungfrau", algorithms=algorithms)
    simulate.write(RunSpec(events=40, detectors=(detector,)), place)
    peds = np.full((3, 512, 1024), 3000, np.float32)
    gains = np.full((3, 512, 1024), 40, np.float32)
    return psana_dask.open(place, calib={"pedestals": peds, "pixel_gain": gains}).jf


@pytest.mark.parametrize("what", ["calib", "image", "calibrate"])
def test_graphs_do_not_hold_constants(large, what):
    raw = large.field("raw", chunks={"time": 1})
    arrays = {
        "calib": lambda: large.calibrated(chunks={"time": 1}),
        "image": lambda: large.assembled(calibrated=True, chunks={"time": 1}),
        "calibrate": lambda: raw.psana.calibrate(large.constants),
    }
    graph = arrays[what]().data.__dask_graph__()
    size = len(cloudpickle.dumps(graph))
    assert size < 60_000  # 40 tasks; the tables are 20 MB
    each = [len(cloudpickle.dumps(task)) for task in dict(graph).values()]
    assert max(each) < 10_000


def test_a_worker_maps_one_copy(large):
    wanted = large.calibrated(chunks=None).mean("time").values

    def opened():
        from psana_dask.calib import kept

        return len(kept._opened)

    options = {"n_workers": 1, "threads_per_worker": 2, "dashboard_address": ":0"}
    cache = {"PSANA_DASK_CACHE": str(current().cache_folder().resolve())}
    with distributed.LocalCluster(**options, env=cache) as cluster, distributed.Client(cluster) as client:
        mean = client.compute(large.calibrated(chunks={"time": 2}).mean("time")).result()
        # float32 sums of 40 equal values in another order
        np.testing.assert_allclose(mean.values, wanted, rtol=1e-5)
        assert set(client.run(opened).values()) == {1}


def test_a_worker_that_cannot_see_the_cache_looks_constants_up_again(folder, store, tmp_path):
    jf = psana_dask.open(folder, calib=store).jf
    with set_options(cache_dir=tmp_path / "cache"):
        text = pickle.dumps(jf.calibrated(chunks=None)[0].variable._data)
        for file in (tmp_path / "cache" / "constants").iterdir():
            file.unlink()
        kept._opened.clear()
        again = pickle.loads(text)
    np.testing.assert_array_equal(np.asarray(again), jf.calib[0].values)


# ---- any array ----------------------------------------------------------------------------------
def test_arrays_without_a_run_are_calibrated(jf, constants):
    raw = jf.raw
    wanted = jf.calibrated(common_mode=None)
    for array in (raw, raw.compute(), raw.isel(time=1), raw.transpose("panel", "time", "row", "col")):
        found = array.psana.calibrate(jf.constants)
        assert found.dims == array.dims
        same = wanted.sel(time=found.time).transpose(*found.dims)
        np.testing.assert_array_equal(found.values, same.values)
    assert found.attrs["calibrated"]
    assert json.loads(found.attrs["constants"])["pixel_gain"]["sha256"]
    part = raw.isel(panel=[1]).psana.calibrate(constants)
    np.testing.assert_array_equal(part.values, wanted.isel(panel=[1]).values)


def test_a_bare_array_is_generic_unless_said(jf, constants):
    bare = xr.DataArray(np.full((3, 4), 9, np.uint16), dims=("row", "col"))
    assert (bare.psana.calibrate({"pedestals": np.full((3, 4), 4.0)}) == 5).all()
    named = xr.DataArray(jf.raw.values, dims=("shot", "panel", "row", "col"))
    found = named.psana.calibrate(constants, detector="jungfrau").values
    wanted = jf.calibrated(common_mode=None).values
    np.testing.assert_array_equal(np.delete(found, 2, 0), np.delete(wanted, 2, 0))


def test_epix10ka_arrays_need_their_ranges():
    words_ = xr.DataArray(np.full((2, 352, 384), 3100, np.uint16), dims=("time", "row", "col"))
    peds = {"pedestals": np.arange(3000, 3007)[:, None, None] * np.ones((352, 384))}
    with pytest.raises(ConstantsError, match="give ranges="):
        words_.psana.calibrate(peds, detector="epix10ka")
    ranges = gain.allowed_ranges(np.full((352, 384), 28, np.uint8))
    found = words_.psana.calibrate(peds, detector="epix10ka", ranges=ranges, common_mode=None)
    assert (found == 100).all()


def test_what_is_no_frame_is_refused():
    with pytest.raises(ConstantsError, match="row and col"):
        xr.DataArray(np.ones(3), dims="time").psana.calibrate({"pedestals": np.ones(3)})
    with pytest.raises(ConstantsNotFound, match="no pedestals"):
        xr.DataArray(np.ones((3, 4)), dims=("row", "col")).psana.calibrate({})

"""The same reductions on an LCLS-1 run, and on detectors of several panels that are assembled."""

import numpy as np
import pytest

import psana_dask
from psana_dask import simulate
from psana_dask.simulate import Detector, RunSpec


@pytest.fixture(scope="module")
def lcls1(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lcls1")
    simulate.demo_run(folder, events=40, format="xtc")
    return psana_dask.open(folder)


FIELDS = ("cspad.raw", "cspad.quads_lane", "opal.raw", "gas_detector.f_11_enrc", "xpp_sb2_ipm.channel")


@pytest.mark.filterwarnings("ignore:All-NaN", "ignore:Mean of empty slice")  # numpy on pixels never there
@pytest.mark.parametrize("name", FIELDS)
def test_fields_of_an_lcls1_run(lcls1, name):
    values = lcls1[name].psana.masked().astype("f8")
    # float64 sums in another order
    np.testing.assert_allclose(lcls1.mean(name), values.mean("time"), rtol=1e-12)
    np.testing.assert_array_equal(lcls1.max(name), values.max("time"))


def test_loops_over_an_lcls1_run(lcls1):
    frames, there = lcls1.opal.raw.values, lcls1.opal.present.values
    for event in lcls1.loop("opal.raw"):
        assert ("opal.raw" in event) == there[event.position]
        if "opal.raw" in event:
            np.testing.assert_array_equal(event["opal.raw"], frames[event.position])
    assert [e.timestamp for e in lcls1] == lcls1.events.timestamp.values.tolist()


@pytest.fixture(scope="module")
def jungfrau(tmp_path_factory):
    folder = tmp_path_factory.mktemp("jungfrau")
    detector = Detector(name="jf", kind="jungfrau", segments=2, shape=(1, 512, 1024))
    simulate.write(RunSpec(events=20, detectors=(detector,)), folder)
    r = np.random.default_rng(0)
    shape = (3, 2, 512, 1024)
    constants = {"pedestals": r.normal(900, 30, shape).astype("f4"), "pixel_gain": r.uniform(5, 20, shape)}
    return psana_dask.open(folder, calib=constants)


def test_an_image_is_reduced_as_panels_and_assembled_once(jungfrau):
    mean = jungfrau.mean("jf.image")
    assert mean.dims == ("y", "x")
    assert mean.y.attrs["units"] == "m"
    images = jungfrau.jf.image.astype("f8").mean("time").values
    np.testing.assert_array_equal(np.isnan(mean), np.isnan(images))
    np.testing.assert_allclose(mean, images, rtol=1e-5, atol=1e-3)  # frames are float32, values up to 1e3
    assert mean.attrs["calibrated"]


def test_large_panels_are_read_by_the_kernel_and_by_the_reader_alike(jungfrau, monkeypatch):
    from psana_dask.reductions.tiles import Frames

    read = []
    original = Frames._read_tiles

    def counted(self, *args):
        read.append(args[2])
        yield from original(self, *args)

    monkeypatch.setattr(Frames, "_read_tiles", counted)
    fast = jungfrau.var("jf.raw")
    assert sorted(set(read)) == [0, 1]
    read.clear()
    monkeypatch.setattr("psana_dask.sources.PREAD", None)
    slow = jungfrau.var("jf.raw")
    assert fast.values.tobytes() == slow.values.tobytes()
    np.testing.assert_allclose(fast, jungfrau.jf.raw.astype("f8").var("time"), rtol=1e-9)


def test_masks_drawn_on_the_image(jungfrau):
    image = jungfrau.mean("jf.image")
    good = np.ones(image.shape, bool)
    good[100:200, 50:90] = False
    found = jungfrau.mean("jf.image", mask=good)
    assert np.isnan(found.values[100:200, 50:90]).all()
    kept = good & ~np.isnan(image.values)
    np.testing.assert_array_equal(found.values[kept], image.values[kept])

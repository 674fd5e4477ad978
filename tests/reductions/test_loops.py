"""Event loops give every event once, in order, whatever is read ahead."""

import gc

import numpy as np
import pytest

from psana_dask.errors import NameNotFound


@pytest.mark.parametrize("prefetch", [0, 1, 8, 64])
@pytest.mark.parametrize("names", [None, "cam.raw", ["cam.raw", "gmd", "hsd.chan00"]])
def test_every_event_has_its_values(run, values, names, prefetch):
    cam, chan = values("cam.raw"), run.dataset("hsd.chan00").psana.ragged("hsd_chan00")
    seen = 0
    for event in run.loop(names, prefetch):
        assert event.position == seen
        frame = event["cam.raw"]
        there = event.present("cam.raw")
        assert (frame is None) == (not there.any())
        if frame is not None:
            np.testing.assert_array_equal(frame[there], cam[seen][there])
            assert frame is event.cam.raw or np.array_equal(frame, event["cam", "raw"])
        np.testing.assert_array_equal(event.hsd.chan00, chan[seen])
        assert event.time == run.events.time.values[seen]
        seen += 1
    assert seen == 300


def test_iterating_a_run_is_a_loop(run):
    on = run.select(run.evr.has(90))
    stamps = [event.timestamp for event in on]
    assert stamps == on.events.timestamp.values.tolist()
    assert [event.step for event in on] == on.events.step.values.tolist()


def test_calibrated_frames(run, values):
    calib = values("jf.calib")
    for event in run.isel(slice(0, 20)).loop("jf.calib"):
        np.testing.assert_array_equal(event["jf.calib"], calib[event.position].astype("f4"))


def test_arrays_that_are_kept_never_change(tmp_path):
    import psana_dask
    from psana_dask import simulate
    from psana_dask.simulate import Detector, RunSpec

    spec = RunSpec(events=40, detectors=(Detector(name="big", shape=(200, 200)),))
    simulate.write(spec, tmp_path)
    run = psana_dask.open(tmp_path)
    expected = run.big.raw.values
    kept = [event["big.raw"] for event in run.loop("big.raw", prefetch=4)]
    np.testing.assert_array_equal(np.stack(kept), expected)
    addresses = set()
    for event in run.loop("big.raw", prefetch=4):
        addresses.add(event["big.raw"].__array_interface__["data"][0])
    del event
    gc.collect()
    assert len(addresses) < 40  # memory was used again


def test_a_loop_can_be_left(run):
    for event in run.loop("cam.raw"):
        if event.position == 3:
            break
    assert event.position == 3


def test_unknown_names_are_said(run):
    event = next(iter(run))
    with pytest.raises(NameNotFound, match="no detector 'came'; did you mean cam"):
        event["came.raw"]
    with pytest.raises(NameNotFound, match="no field of cam 'rav'"):
        event["cam.rav"]
    with pytest.raises(AttributeError, match="no detector 'came'"):
        event.came  # noqa: B018
    assert "cam.raw" in event
    assert event.get("cam.raw") is not None
    with pytest.raises(ValueError, match="prefetch=-1"):
        next(run.loop(prefetch=-1))

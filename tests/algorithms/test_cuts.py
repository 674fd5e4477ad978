"""Cuts and the variables of the time tool."""

import numpy as np
import pytest
import xarray as xr

import psana_dask
from psana_dask import algorithms, analysis, simulate
from psana_dask.errors import NameNotFound
from psana_dask.simulate import PV, Algorithm, Detector, Epics, Field, RunSpec

TIME = np.datetime64("2024-06-14", "ns") + np.arange(6)


def flags(values, time=TIME):
    return xr.DataArray(np.array(values, bool), {"time": time}, "time")


def test_each_cut_says_what_it_removed():
    cuts = analysis.apply_cuts(
        {"laser": flags([1, 1, 1, 1, 0, 0]), "i0": flags([1, 0, 1, 1], TIME[1:5]).chunk(time=2)},
    )
    assert cuts.table.loc["laser"].tolist() == [4, 4, 2, 0]
    assert cuts.table.loc["i0"].tolist() == [3, 2, 2, 2]
    assert np.array_equal(cuts.mask, [False, True, False, True, False, False])
    assert np.array_equal(cuts.mask.time, TIME)


def test_a_cut_is_boolean_along_time():
    with pytest.raises(ValueError, match="cut 'a' is float64"):
        analysis.apply_cuts({"a": flags([1] * 6) * 1.0})
    with pytest.raises(ValueError, match="no condition"):
        analysis.apply_cuts({})


def test_cuts_select_events(rich_run):
    chosen = rich_run.flags({"on": [90, -162]})
    cuts = analysis.apply_cuts(chosen, rich_run.events.time)
    assert len(rich_run.select(cuts.mask)) == cuts.table["left"].iloc[-1] == int(chosen["on"].sum())


# ---- time tool -----------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def timed(tmp_path_factory):
    """A run whose DAQ writes edges, and one with EPICS variables alone."""
    fex = Algorithm("ttfex", (2, 0, 0), tuple(
        Field(name, "f8", (), lambda m, k=k: 100.0 * k + m.event)
        for k, name in enumerate(("ampl", "fltpos", "fltpos_ps", "fltposfwhm", "amplnxt", "refampl"))
    ))  # fmt: skip
    daq = RunSpec(events=20, detectors=(Detector(name="opal", kind="camera", algorithms=(fex,)),))
    pvs = tuple(
        PV(f"TTSPEC_{n}", lambda m: 1.0 * m.event, address=f"XPP:TIMETOOL:{n}")
        for n in ("FLTPOS", "FLTPOS_PS")
    )
    slow = RunSpec(
        number=2,
        events=20,
        detectors=(Detector(name="gmd", kind="gmd"),),
        epics=(Epics(pvs=pvs),),
        slow_every=5,
    )
    return [psana_dask.open(simulate.write(s, tmp_path_factory.mktemp("tt")).folder) for s in (daq, slow)]


def test_one_set_of_names_whatever_the_source(timed):
    daq = analysis.time_tool(timed[0])
    assert daq.attrs["source"] == "detector opal"
    for k, name in enumerate(("amplitude", "position", "time_ps", "fwhm", "next_amplitude", "ref_amplitude")):
        assert np.array_equal(daq[name], 100.0 * k + np.arange(20)), name
    slow = analysis.time_tool(timed[1])
    assert slow.attrs["source"] == "EPICS"
    assert set(slow.data_vars) == {"position", "time_ps"}
    assert np.array_equal(slow["position"], np.repeat(np.arange(4.0), 5))
    with pytest.raises(NameNotFound, match="no time tool among gmd"):
        analysis.time_tool(timed[1], "gmd")


def test_a_run_has_a_time_tool_whoever_wrote_it(timed, tmp_path):
    for run, position in zip(timed, (100.0 + np.arange(20), np.repeat(np.arange(4.0), 5)), strict=True):
        xr.testing.assert_identical(run.timetool, analysis.time_tool(run))
        assert np.array_equal(run.timetool.position, position)
    stage = xr.DataArray(np.full(20, 3e-12), {"time": timed[0].events.time}, "time")
    delay = analysis.time_tool(timed[0], stage=stage, sign=-1).delay
    np.testing.assert_allclose(delay, 3e-12 - 1e-12 * (200.0 + np.arange(20)), rtol=1e-12)
    lcls1 = RunSpec(
        format="xtc", events=8, detectors=(Detector(name="tt", kind="timetool"),), slow_every=3,
        epics=(Epics(pvs=(PV("stage", lambda m: 1e-12 * m.event, address="LAS:STAGE"),)),),
    )  # fmt: skip
    truth = simulate.write(lcls1, tmp_path)
    run = psana_dask.open(truth.folder)
    found = analysis.time_tool(run, stage="stage")
    for name, field in {
        "position": "position_pixel",
        "fwhm": "position_fwhm",
        "time_ps": "position_time",
    }.items():
        assert np.array_equal(found[name], [truth.value("tt", field, event) for event in range(8)])
    nominal = 1e-12 * (np.arange(8) // 3)  # what was written last, at or before the event
    np.testing.assert_allclose(found.delay, nominal + 1e-12 * found.time_ps, rtol=1e-12)
    assert found.delay.attrs == {"units": "s"}


def test_edges_of_images_do_not_depend_on_chunks():
    random = np.random.default_rng(3)
    x = np.arange(300)
    at = random.uniform(80, 220, 20)
    time = np.datetime64("2024-06-14", "ns") + np.arange(20)
    dropped = xr.DataArray(np.arange(20) % 4 == 0, {"time": time}, "time")
    drop = np.where(dropped.values[:, None], 0, 0.2 / (1 + np.exp((at[:, None] - x) / 3)))
    images = np.repeat((500 * (1 - drop))[:, None], 8, axis=1) + random.normal(0, 2, (20, 8, 300))
    images = xr.DataArray(images, {"time": time}, ("time", "row", "col"))
    weights = algorithms.step_weights(25)
    choices = {"calibration": (1.0, 0.5), "fraction": 0.2}
    whole = analysis.time_edges(analysis.project(images, slice(2, 7)), dropped, weights, **choices)
    error = (whole["position"] - at)[~dropped]
    assert np.abs(error).max() < 1.0  # noise of 0.9 against a step of 100
    assert np.array_equal(whole["time_ps"], 1.0 + 0.5 * whole["position"], equal_nan=True)
    for size in (1, 3, 20):
        lazy = analysis.project(images.chunk(time=size), slice(2, 7))
        xr.testing.assert_identical(analysis.time_edges(lazy, dropped, weights, **choices).compute(), whole)


def test_a_corrected_delay_is_in_seconds():
    stage = xr.DataArray(np.full(6, 2e-12), {"time": TIME}, "time")
    shift = xr.DataArray([0.5, 1.0], {"time": TIME[[1, 3]]}, "time")
    delay = analysis.corrected_delay(stage, shift, sign=-1)
    np.testing.assert_allclose(delay[[1, 3]], [1.5e-12, 1e-12])
    assert np.isnan(delay[[0, 2, 4, 5]]).all()
    assert delay.attrs["units"] == "s"
    with pytest.raises(ValueError, match="sign=2"):
        analysis.corrected_delay(stage, shift, sign=2)

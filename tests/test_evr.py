"""Event codes as conditions, masks and counts."""

import numpy as np
import pytest

import psana_dask
from psana_dask import simulate
from psana_dask.errors import NameNotFound
from psana_dask.simulate import Detector, Missing, RunSpec

CODES = {40: 1, 90: 2, 162: 5, 287: 7, 0: 3}
GONE = (4, 10, 11)  # events without timing data


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    detectors = (Detector(name="timing", kind="timing", stream=1), Detector(name="gmd", kind="gmd"))
    missing = (Missing(events=GONE[:2], stream=1), Missing(events=GONE[2:], detector="timing"))
    folder = tmp_path_factory.mktemp("codes")
    simulate.write(RunSpec(events=60, detectors=detectors, event_codes=CODES, missing=missing), folder)
    return psana_dask.open(folder)


EVENTS = np.arange(60)
PRESENT = ~np.isin(EVENTS, GONE)


def fires(code):
    return EVENTS % CODES[code] == 0


def events(run):
    return run._view.choice.numbers


CONDITIONS = {
    "one": ((90,), fires(90)),
    "two": ((90, 162), fires(90) & fires(162)),
    "one and not the other": ((90, -162), fires(90) & ~fires(162)),
    "none of them": ((-90, -162), ~fires(90) & ~fires(162)),
    "highest": ((287,), fires(287)),
    "lowest": ((0,), fires(0)),
    "always": ((40,), PRESENT),
    "never": ((-40,), ~PRESENT & PRESENT),
}


@pytest.mark.parametrize("name", CONDITIONS)
def test_conditions_need_timing_data_also_when_turned_round(run, name):
    codes, fits = CONDITIONS[name]
    condition = run.evr.has(*codes)
    assert events(run.select(condition)).tolist() == np.flatnonzero(fits & PRESENT).tolist()
    assert events(run.select(~condition)).tolist() == np.flatnonzero(~fits & PRESENT).tolist()
    assert events(run.select(~~condition)).tolist() == events(run.select(condition)).tolist()


def test_conditions_combine(run):
    both = run.evr.has(90) & ~run.evr.has(162) & run.evr.has(-287)
    want = fires(90) & ~fires(162) & ~fires(287) & PRESENT
    assert events(run.select(both)).tolist() == np.flatnonzero(want).tolist()
    assert str(both) == "evr 90 and not evr 162 and evr -287"


def test_the_repr_says_what_was_selected(run):
    laser = run.select(run.evr.has(90, -162))
    assert f"{len(laser)} of 60 events (evr 90 -162)" in repr(laser)


def test_a_condition_holds_for_a_selection(run):
    condition = run.evr.has(90)
    later = run.isel(slice(30, None)).select(condition)
    assert events(later).tolist() == [e for e in range(30, 60) if e % 2 == 0]


def test_codes_of_every_event(run):
    codes = run.evr.codes
    assert (codes.dims, codes.shape, codes.dtype) == (("time", "code"), (60, 288), bool)
    assert codes.code.values.tolist() == list(range(288))
    for code in CODES:
        assert run.evr[code].values.tolist() == (fires(code) & PRESENT).tolist()
    assert int(codes.sum()) == sum(int((fires(c) & PRESENT).sum()) for c in CODES)


def test_counts(run):
    assert run.evr.counts() == {c: int((fires(c) & PRESENT).sum()) for c in sorted(CODES)}
    assert "event codes of 60 events: 0: 20, 40: 57" in repr(run.evr)


def test_flags(run):
    flags = run.flags({"laser_on": [90, -162], "all": [40]})
    assert flags.laser_on.values.tolist() == (fires(90) & ~fires(162) & PRESENT).tolist()
    assert flags["all"].values.tolist() == PRESENT.tolist()
    assert flags.laser_on.dtype == bool
    fewer = run.isel([0, 3, 2])
    assert fewer.flags({"x": [90]}).x.values.tolist() == [True, False, True]


@pytest.mark.parametrize("codes", [(288,), (-300, 90), ()])
def test_codes_that_do_not_exist(run, codes):
    with pytest.raises(ValueError, match=r"event codes are 0 to 287, not (288|-300|none)"):
        run.evr.has(*codes)


def test_a_run_without_event_codes(plain_run):
    with pytest.raises(NameNotFound, match="this run has no event codes: no detector with sequenceValues"):
        plain_run.evr.has(90)

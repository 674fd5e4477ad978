"""Slow data of simulated LCLS-1 runs, by the public face: EPICS, steps, settings, event codes."""

import warnings

import numpy as np
import pytest

import psana_dask
from psana_dask import simulate
from psana_dask.errors import NameNotFound, PartialRunWarning
from psana_dask.readers.record_writing import encode
from psana_dask.readers.tables import record_for
from psana_dask.readers.xtc_layout import TransitionId, detector_source
from psana_dask.readers.xtc_write import container, dgram, node
from psana_dask.settings import EnumValue
from psana_dask.simulate import (
    PV,
    Algorithm,
    Config,
    Damage,
    Daq,
    Detector,
    Enum,
    Epics,
    Field,
    Missing,
    RunSpec,
    Scan,
    corrupt,
)

EBEAM = Detector(name="ebeam", kind="ebeam")
STATE = Enum("state", {"CLOSED": 0, "OPEN": 1})
PVS = (
    PV("temperature", lambda m: 295.0 + m.event, address="XPP:TEMP", unit="K"),
    PV("state", lambda m: m.event % 2, "enum", STATE, alarm=lambda update: (update, 1)),
    PV("note", lambda m: f"update {m.event}", "str"),
    PV("counts", lambda m: np.arange(3) * m.event, "i4", shape=(3,)),
    PV("small", lambda m: m.event % 5, "u1"),
    PV("short", lambda m: -m.event, "i2"),
    PV("slash/float", lambda m: m.event / 4, "f4"),
)


def opened(folder, **changes):
    given = {"format": "xtc", "experiment": "xpptut15", "number": 3, "events": 20, "detectors": (EBEAM,)}
    truth = simulate.write(RunSpec(**{**given, **changes}), folder)
    return truth, psana_dask.open(folder)


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    """Updates in events 2, 7, 12, 17 over two streams; that of event 12 is lost."""
    return opened(
        tmp_path_factory.mktemp("slow"), epics=(Epics(pvs=PVS),), slow_every=5, slow_offset=2,
        daq=Daq(streams=2, trimmed=(7,)), missing=(Missing(events=(12,), stream=0),),
    )  # fmt: skip


def name_of(pv):
    return (pv.address or pv.name).replace("/", "_")


@pytest.mark.parametrize("pv", PVS, ids=lambda pv: pv.name)
def test_values_are_those_of_the_last_update(slow, pv):
    truth, run = slow
    found = run.epics.at()[name_of(pv)]
    want = [truth.epics(pv.name)[event] for event in truth.order]
    np.testing.assert_array_equal(found.values, np.array(want))
    assert run.epics.at()[f"{name_of(pv)}_present"].values.all()  # from Configure on
    assert found.dtype == run.epics[pv.name].dtype
    assert len(run.epics[pv.name]) == 1 + 3


def test_values_do_not_depend_on_the_order_of_access(slow):
    _, run = slow
    order = np.random.default_rng(0).permutation(len(run))
    shuffled, straight = run.epics.at(run.events.time.values[order]), run.epics.at()
    for name in run.epics:
        np.testing.assert_array_equal(shuffled[name].values, straight[name].values[order])


def test_updates_carry_status_severity_and_stamp(slow):
    truth, run = slow
    series = run.epics["state"]
    times = truth.times[[2, 7, 17]]
    assert series.time.values[1:].tolist() == times.astype("M8[ns]").tolist()
    assert series.status.values.tolist() == [0, 0, 1, 3]
    assert series.severity.values.tolist() == [0, 1, 1, 1]
    assert np.isnat(series.stamp.values[0])
    assert (times - series.stamp.values[1:] == np.timedelta64(1, "ms")).all()
    assert series.attrs["flag_meanings"].split() == ["CLOSED", "OPEN"]


def test_variables_are_found_by_name_description_and_with_slashes(slow):
    _, run = slow
    assert run.epics["temperature"].identical(run.epics["XPP:TEMP"])
    assert run.epics["XPP:TEMP"].attrs == {"pv": "XPP:TEMP", "units": "K", "description": "temperature"}
    assert run.epics["slash/float"].name == "slash_float"
    assert "temperature" in run.epics
    assert "XPP:TEMP" in run.search("xpp:t")
    with pytest.raises(NameNotFound, match="did you mean state"):
        _ = run.epics["stat"]


def test_before_the_first_update_nothing_is_there(slow):
    _, run = slow
    early = run.epics.at(["2000-01-01", run.events.time.values[0]])
    assert early.state_present.values.tolist() == [False, True]
    assert early.state.values.tolist() == [-1, 1]
    assert np.isnan(early["XPP:TEMP"].values[0])


def test_streams_that_are_not_read_still_bring_slow_data(slow):
    truth, run = slow
    for only in (0, 1):
        part = psana_dask.open(truth.folder, streams=[only])
        assert len(part) == truth.in_stream(only).sum()
        whole = run.epics.at(part.events.time.values)
        for name in run.epics:
            np.testing.assert_array_equal(part.epics.at()[name].values, whole[name].values)


def test_of_two_archivers_the_newest_stamp_counts(tmp_path):
    one = Epics(pvs=(PV("x", lambda m: 10.0 + m.event),), every=2)
    other = Epics(pvs=(PV("x", lambda m: -1.0 - m.event),), every=2, offset=1, segment=1)
    _, run = opened(tmp_path, epics=(one, other), slow_every=3)
    want = [10, 10, 10, -2, -2, -2, 12, 12, 12, -4, -4, -4, 14, 14, 14, -6, -6, -6, 16, 16]
    assert run.epics.at()["x"].values.tolist() == want
    assert run.problems.what.tolist() == ["EPICS x comes from 2 archivers: the newest value counts"]


ARCHIVE = detector_source("EpicsArch", 0, "NoDevice", 0)


def epics_leaf(pv_id, dbr_type, value, stamp, dtype="<f8"):
    values = np.atleast_1d(np.asarray(value, dtype))
    head = np.array([pv_id, dbr_type, len(values)], "<i2")
    given = {"pvId": pv_id, "dbrType": dbr_type, "numElements": len(values), "data": values}
    if dbr_type < 28:
        given["dbr"] = {"stamp": {"sec": stamp, "nsec": 0}}
    record = record_for(13, 1, head.view(np.uint8))
    return container(encode(record, given), type_id=13, version=1, source=ARCHIVE)


def by_hand(folder, *events):
    """Write a run of events with given containers, and nothing in Configure."""
    pieces = [dgram(TransitionId.CONFIGURE, timestamp=10 << 32)]
    pieces += [dgram(TransitionId.BEGIN_RUN, timestamp=11 << 32, env=1)]
    for i, leaves in enumerate(events):
        pieces.append(dgram(TransitionId.L1_ACCEPT, [node(leaves)], timestamp=20 + i << 32, fiducial=360 * i))
    path = folder / "xpptut15-r0001-s00-c00.xtc"
    path.write_bytes(b"".join(pieces))
    return psana_dask.open(path)


def test_a_variable_without_a_name_gets_one(tmp_path):
    run = by_hand(tmp_path, [], [epics_leaf(4, 20, 1.5, 100)], [])
    name = "EpicsArch.0:NoDevice.0:pv4"
    assert list(run.epics) == [name]
    np.testing.assert_array_equal(run.epics.at()[name].values, [np.nan, 1.5, 1.5])
    assert run.epics.at()[f"{name}_present"].values.tolist() == [False, True, True]


def test_of_two_values_in_one_event_the_newer_counts(tmp_path):
    run = by_hand(tmp_path, [epics_leaf(4, 20, 2.0, 101), epics_leaf(4, 20, 1.0, 100)])
    assert run.epics["EpicsArch.0:NoDevice.0:pv4"].values.tolist() == [2.0]


def test_a_variable_may_change_its_length_and_its_type(tmp_path):
    longer, whole = epics_leaf(4, 20, [1.0, 2.0], 101), epics_leaf(4, 19, [7, 8, 9], 102, "<i4")
    run = by_hand(tmp_path, [epics_leaf(4, 20, 0.5, 100)], [longer], [whole])
    values = run.epics["EpicsArch.0:NoDevice.0:pv4"].values
    np.testing.assert_array_equal(values, [[0.5, np.nan, np.nan], [1, 2, np.nan], [7, 8, 9]])


def test_a_value_that_is_cut_or_unknown_is_a_problem(tmp_path):
    good = epics_leaf(4, 20, 0.5, 100)
    cut = bytearray(good)
    cut[20 + 4] = 9  # elements
    unknown = bytearray(good)
    unknown[20 + 2] = 99  # dbr type
    run = by_hand(tmp_path, [good], [bytes(cut)], [bytes(unknown)])
    assert run.epics["EpicsArch.0:NoDevice.0:pv4"].values.tolist() == [0.5]
    said = run.problems.what.tolist()
    assert len(said) == 2
    assert "dbr type 20 is cut or unknown" in said[0]
    assert "dbr type 99" in said[1]
    assert (run.problems.offset > 0).all()


# ---- steps --------------------------------------------------------------------------------------
def test_steps_say_what_was_set(tmp_path):
    scan = Scan(motors={"delay": [0.5, 1.5, 2.5], "m[3]": [7, 8, 9]}, monitors={"rate": (0.0, 120.0)},
                labels={"scan": ["first", "second", "third"]})  # fmt: skip
    truth, run = opened(tmp_path, steps=(5, 0, 15), scan=scan, daq=Daq(streams=2))
    table = run.steps
    assert table.delay.tolist() == [0.5, 1.5, 2.5]
    assert table["m[3]"].tolist() == [7, 8, 9]
    assert table.scan.tolist() == ["first", "second", "third"]
    assert table.rate_low.tolist() == [0.0] * 3
    assert table.rate_high.tolist() == [120.0] * 3
    assert table.events.tolist() == [5, 0, 15]
    assert run.events.step.values.tolist() == truth.step.tolist()
    assert "3 steps of delay, m[3]" in repr(run)
    assert run.scan["delay"].values.tolist() == [0.5, 1.5, 2.5]
    assert (table.stop > table.start).all()


def test_a_run_without_scan_has_steps_without_values(tmp_path):
    _, run = opened(tmp_path, steps=2)
    assert run.steps.columns.tolist() == ["start", "stop", "events"]


# ---- settings -----------------------------------------------------------------------------------
def test_settings_by_name_and_time(tmp_path):
    config = Config(values={"gain_mode": 3}, begin_step=lambda step: {"bias_voltage": 100 + step})
    detector = Detector(name="jf", kind="jungfrau", shape=(1, 8, 12), config=config)
    _, run = opened(tmp_path, steps=3, detectors=(detector, EBEAM), events=9)
    assert run.jf.config.bias_voltage == 102
    assert run.config("jf", run.events.time.values[3]).bias_voltage == 101
    assert run.config("MfxEndstation.0:Jungfrau.0", run.steps.start[0]).bias_voltage == 100
    gain = run.jf.config.gain_mode
    assert (gain, gain.name, isinstance(gain, EnumValue)) == (3, "ForcedGain1", True)
    assert run.jf.config.module_config[0].serial_number == 100
    assert len(run.jf.config.module_config) == 32
    assert "module_config = 32 of <Config" in repr(run.jf.config)
    assert len(run.ebeam.config.segments) == 0


def test_settings_of_every_segment(tmp_path):
    config = Config(values=lambda segment: {"exposure_time": 1e-5 * (segment + 1)})
    detector = Detector(name="jf", kind="jungfrau", segments=2, shape=(2, 8, 12), config=config)
    _, run = opened(tmp_path, detectors=(detector,), events=2)
    assert [run.jf.config[s].exposure_time for s in sorted(run.jf.config.segments)] == [1e-5, 2e-5]


# ---- event codes --------------------------------------------------------------------------------
CODES = {40: 1, 90: 2, 162: 5}


def test_event_codes_are_conditions(tmp_path):
    evr = Detector(name="evr0", kind="timing")
    gone = (Missing(events=(4, 11), detector="evr0"),)
    bad = (Damage(events=(6,), word=1 << 12, detector="evr0"),)
    truth, run = opened(
        tmp_path, detectors=(evr, EBEAM), event_codes=CODES, missing=gone, damage=bad, daq=Daq(streams=3)
    )
    lost = {4, 6, 11}
    for event in range(20):
        want = [] if event in lost else list(truth.event_codes(event))
        assert np.flatnonzero(run.evr.codes.values[event]).tolist() == want
    laser = run.select(run.evr.has(90, -162))
    numbers = [e for e in range(20) if e % 2 == 0 and e % 5 and e not in lost]
    assert laser.events.time.values.tolist() == truth.times[numbers].astype("M8[ns]").tolist()
    rest = run.select(~run.evr.has(90))
    assert len(rest) == sum(e % 2 for e in range(20) if e not in lost)
    assert run.evr[162].values.sum() == run.evr.counts()[162]
    assert run.flags({"laser": [90, -162]}).laser.values.sum() == len(numbers)
    kept = psana_dask.open(truth.folder, damaged="keep")
    assert kept.evr.codes.values[6].sum() == 2


def listed(*offsets):
    """Describe an EVR whose codes 40, 41, ... came so many fiducials before the event."""
    count = len(offsets)
    fields = (
        Field("fifo_events_event_code", "u4", (None,), lambda m: np.arange(40, 40 + count)),
        Field("fifo_events_timestamp_high", "u4", (None,), lambda m: m.fiducial - np.array(offsets)),
        Field("fifo_events_timestamp_low", "u4", (None,), lambda m: np.zeros(count)),
    )
    return (Algorithm(fields=fields),)


def test_codes_of_earlier_fiducials_and_of_several_receivers(tmp_path):
    one = Detector(name="evr0", kind="timing", algorithms=listed(3, 0))
    other = Detector(name="evr1", kind="timing", algorithms=listed(0, 3, 6), every=2)
    _, run = opened(tmp_path, detectors=(one, other), events=4)
    assert run.evr.counts() == {40: 4, 41: 4, 42: 2}
    assert run.evr.this_fiducial.counts() == {40: 2, 41: 4}
    assert len(run.select(run.evr.this_fiducial.has(41, -40))) == 2


def test_a_receiver_that_contradicts_itself_hides_only_its_event(tmp_path):
    evr = Detector(name="evr0", kind="timing")
    truth, _ = opened(tmp_path, detectors=(evr,), event_codes=CODES)
    row = truth.datagrams[0][truth.datagrams[0]["event"] == 7][0]
    corrupt.overwrite(truth.files[0], int(row["offset"]) + 80, (1000).to_bytes(4, "little"))
    run = psana_dask.open(tmp_path, cache=False)
    assert len(run) == 20
    assert run.evr.codes.values.any(axis=1).tolist() == [event != 7 for event in range(20)]
    assert len(run.select(run.evr.has(-90))) == 9


def test_a_run_without_receivers_has_no_event_codes(tmp_path):
    _, run = opened(tmp_path)
    with pytest.raises(NameNotFound, match="no event codes"):
        run.evr.has(40)


def test_codes_beyond_255_are_refused(tmp_path):
    _, run = opened(tmp_path, detectors=(Detector(name="evr0", kind="timing"),))
    with pytest.raises(ValueError, match="0 to 255"):
        run.evr.has(256)


# ---- corrupt files ------------------------------------------------------------------------------
def test_slow_data_of_a_cut_file(tmp_path):
    scan = Scan(motors={"delay": [1.0, 2.0]})
    truth, run = opened(tmp_path, epics=(Epics(pvs=PVS),), slow_every=4, steps=2, scan=scan)
    want = run.epics.at()
    size = int(truth.datagrams[0][truth.datagrams[0]["event"] == 15]["offset"][0]) + 100
    corrupt.cut(truth.files[0], size)
    with pytest.warns(PartialRunWarning):
        again = psana_dask.open(truth.folder)
    assert len(again) == 15
    for name in want:
        np.testing.assert_array_equal(again.epics.at()[name].values, want[name].values[:15])
    assert again.steps.delay.tolist() == [1.0, 2.0]
    assert np.isnat(again.steps.stop.values[1])


def test_flipped_bits_hide_only_what_they_hit(tmp_path):
    scan = Scan(motors={"delay": [1.0, 2.0]}, labels={"text": ["a", "b"]})
    config = Config(values={"gain_mode": 1}, begin_step=lambda step: {"bias_voltage": step})
    detectors = (
        Detector(name="evr0", kind="timing"),
        EBEAM,
        Detector(name="jf", kind="jungfrau", shape=(1, 8, 8), config=config),
    )
    truth, _ = opened(
        tmp_path, events=10, detectors=detectors, epics=(Epics(pvs=PVS),), slow_every=2, steps=2, scan=scan,
        daq=Daq(streams=2, index=False), smalldata=None,
    )  # fmt: skip
    whole = [path.read_bytes() for path in truth.files]
    opened_runs = 0
    for seed in range(60):
        for path, data in zip(truth.files, whole, strict=True):
            path.write_bytes(data)
        corrupt.flip_bits(truth.files[seed % 2], 1 + seed % 3, seed=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run = psana_dask.open(tmp_path, cache=False)
        assert 8 <= len(run) <= 10
        assert set(run.epics.at().sizes) >= {"time"}
        assert len(run.steps) in {1, 2}
        assert run.evr.codes.shape == (len(run), 256)
        assert all(run.config(name) is not None for name in run.detectors)
        opened_runs += 1
    assert opened_runs == 60

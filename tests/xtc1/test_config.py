"""Aliases, process variables, event codes and scan steps, from configurations written here."""

import numpy as np
import pytest

from psana_dask.errors import FormatError
from psana_dask.readers import xtc
from psana_dask.readers.record_writing import encode
from psana_dask.readers.tables import record_for
from psana_dask.readers.xtc_config import (
    Configuration,
    aliases,
    event_codes,
    made_up_name,
    process_variables,
    scan_step,
)
from psana_dask.readers.xtc_layout import TransitionId, detector_source, source_key
from psana_dask.readers.xtc_write import container, dgram, record_container
from psana_dask.sources import MemorySource

EVR = detector_source("NoDetector", 0, "Evr", 0)
IMP = detector_source("AmoETOF", 0, "Imp", 0)
ARCHIVE = detector_source("EpicsArch", 0, "NoDevice", 0)
USB = (6 << 24, 69)


def configure(*containers, before=None):
    data = dgram(TransitionId.CONFIGURE, containers, timestamp=1 << 32)
    leaves = xtc.scan(MemorySource(data)).leaves
    return (before or Configuration()).with_dgram(np.frombuffer(data, np.uint8), leaves)


def written(key, values, source):
    return record_container(record_for(*key), values, key=key, source=source)


def epics(dbr_type, values, source=ARCHIVE):
    head = np.array([values["pvId"], dbr_type, values.get("numElements", 1)], "<i2")
    record = record_for(13, 1, head.view(np.uint8))
    values = {"dbrType": dbr_type, "numElements": 1} | values
    return container(encode(record, values), type_id=13, version=1, source=source)


def test_a_payload_finds_its_configuration():
    config = configure(written((68, 1), {"numberOfSamples": 2}, IMP))
    payload = np.frombuffer(bytes(32) + np.arange(8, dtype="<u2").tobytes(), np.uint8)
    view = config.decode(67 | 1 << 16, source_key(*IMP), payload)
    assert view.samples[1].channels.tolist() == [4, 5, 6, 7]
    elsewhere = config.decode(67 | 1 << 16, source_key(*EVR), payload)
    with pytest.raises(FormatError, match="needs its configuration"):
        _ = elsewhere.samples


def test_a_step_changes_what_it_brings():
    first = configure(written((68, 1), {"numberOfSamples": 2}, IMP), written((10, 3), {"events": 5}, EVR))
    second = configure(written((10, 3), {"events": 7}, EVR), before=first)
    assert [v.events for _, v in first.of_type(10)] == [5]
    assert [v.events for _, v in second.of_type(10)] == [7]
    assert next(second.of_type(68))[1].number_of_samples == 2


def test_aliases():
    entries = [{"src": {"log": IMP[0] | 99, "phy": IMP[1]}, "aliasName": "etof"}]
    config = configure(written((69, 1), {"srcAlias": entries}, EVR))
    assert aliases(config) == {source_key(*IMP): "etof"}
    assert aliases(Configuration()) == {}


def test_process_variables():
    states = {"no_str": 2, "strings": ["out", "in"] + [""] * 14}
    config = configure(
        written((54, 1), {"getPvConfig": [{"pvId": 1, "description": "energy"}]}, ARCHIVE),
        epics(34, {"pvId": 1, "pvName": "X:E", "dbr": {"units": "eV"}, "data": [2.5]}),
        epics(31, {"pvId": 2, "pvName": "X:S", "dbr": states, "data": [1]}),
        epics(28, {"pvId": 3, "pvName": "X:T", "data": ["hello"]}),
    )
    found = process_variables(config)
    energy, shutter, text = (found[source_key(*ARCHIVE), i] for i in (1, 2, 3))
    assert (energy.name, energy.description, energy.unit, energy.dbr_type) == ("X:E", "energy", "eV", 20)
    assert (shutter.states, shutter.description) == (("out", "in"), "")
    assert (text.dbr_type, text.count, text.unit) == (14, 1, "")
    assert made_up_name(source_key(*ARCHIVE), 9) == "EpicsArch.0:NoDevice.0:pv9"


def test_event_codes():
    codes = [{"code": 140, "desc": "beam"}, {"code": 40}]
    other = [{"code": 40, "desc": "120 Hz"}]
    config = configure(
        written((8, 7), {"eventcodes": codes}, EVR),
        written((78, 1), {"eventcodes": other}, IMP),
        written((8, 1), {}, ARCHIVE),
    )
    assert event_codes(config) == {40: "120 Hz", 140: "beam"}


@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_scan_steps(version):
    motor = {"name": "motor", "index": 0xFFFFFFFF, "value": 1.5}
    values = {
        "uses_duration": 1,
        "duration": {"seconds": 2, "nanoseconds": 500_000_000},
        "pvControls": [motor, {"name": "array", "index": 3, "value": 2}],
        "pvMonitors": [{"name": "rate", "index": 0xFFFFFFFF, "loValue": 0, "hiValue": 120}],
        "pvLabels": [{"name": "scan", "value": "delay"}],
    }
    step = scan_step(configure(written((10, version), values, EVR)))
    assert step.controls == {"motor": 1.5, "array[3]": 2.0}
    assert step.monitors == {"rate": (0.0, 120.0)}
    assert step.labels == ({"scan": "delay"} if version > 1 else {})
    assert (step.duration, step.events) == (2.5, None)
    assert scan_step(Configuration()) is None


def test_configuration_inside_shared_beam_line_data():
    config = configure(written((104, 1), {"fexConfig": {"scale": [2, 2, 2, 2]}}, USB))
    assert [key for key, _ in config.records] == [(63, 1), (101, 1)]
    assert config.records[(101, 1), source_key(*USB)].scale[0] == 2.0


def test_a_record_that_contradicts_itself_is_a_problem():
    broken = container(np.array([1000], "<u4").tobytes(), type_id=69, version=1, source=EVR)
    unknown = container(b"abcd", type_id=58, source=IMP)
    config = configure(broken, written((68, 1), {"numberOfSamples": 2}, IMP), unknown)
    assert len(config.records) == 1
    assert config.problems[0][0] == 40
    assert "srcAlias" in config.problems[0][1]

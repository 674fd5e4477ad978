"""A file as plain values, for looking at it."""

import json

from psana_dask.readers.tables import record_for
from psana_dask.readers.xtc_dump import damage_text, dump
from psana_dask.readers.xtc_layout import TransitionId, detector_source
from psana_dask.readers.xtc_write import container, dgram, node, record_container
from psana_dask.sources import MemorySource

CSPAD = detector_source("XppGon", 0, "Cspad2x2", 0)
IMP = detector_source("XppGon", 0, "Imp", 0)


def small_file():
    cfg = record_container(record_for(68, 1), {"numberOfSamples": 1}, key=(68, 1), source=IMP)
    data = container(bytes(32) + b"\1\0\2\0\3\0\4\0", type_id=67, version=1, source=IMP)
    image = container(bytes(32 + 287_120), type_id=41, version=1, source=CSPAD, damage=1 << 14 | 5 << 24)
    unknown = container(b"\1\2\3\4", type_id=58, version=1, source=CSPAD)
    configure = dgram(TransitionId.CONFIGURE, [node([cfg])], timestamp=10 << 32 | 7)
    children = [node([data, image, unknown])]
    return configure + dgram(
        TransitionId.L1_ACCEPT, children, timestamp=11 << 32, fiducial=9, vector=2
    )


def test_everything_is_plain_and_decoded():
    data = small_file()
    first, second = dump(MemorySource(data))
    assert json.loads(json.dumps([first, second])) == [first, second]
    assert (first["service"], first["nanoseconds"]) == ("CONFIGURE", 7)
    assert (second["fiducial"], second["vector"]) == (9, 2)
    assert [c["depth"] for c in second["containers"]] == [0, 1, 2, 2, 2]
    imp, image, unknown = second["containers"][2:]
    assert imp["source"] == "XppGon.0:Imp.0"
    assert imp["values"]["samples"] == [{"channels": [1, 2, 3, 4]}]
    assert image["damage"] == "user_defined user 0x5"
    assert image["values"]["data"] == {"shape": [185, 388, 2], "dtype": "int16", "min": 0, "max": 0}
    assert unknown["record"] == "Unknown.Reserved1 version 1"
    assert unknown["values"] == {"bytes": [1, 2, 3, 4]}


def test_from_an_offset_the_configuration_is_known():
    data = small_file()
    offset = len(dgram(TransitionId.CONFIGURE, [node([b""])], timestamp=0)) + 20 + 40
    (only,) = dump(MemorySource(data), start=offset)
    assert only["containers"][2]["record"] == "Imp.ElementV1"
    assert "values" in only["containers"][2]


def test_a_payload_that_cannot_be_decoded_says_why():
    lonely = container(bytes(40), type_id=67, version=1, source=IMP)
    (only,) = dump(MemorySource(dgram(TransitionId.L1_ACCEPT, [lonely], timestamp=1 << 32)))
    assert "needs its configuration: Imp.ConfigV1" in only["containers"][1]["problem"]


def test_problems_are_among_the_datagrams():
    found = list(dump(MemorySource(small_file()[:-1])))
    assert "longer than the file" in found[-1]["problem"]


def test_damage_text():
    assert damage_text(0) == ""
    assert damage_text(1 << 1 | 1 << 15) == "dropped_contribution incomplete_contribution"

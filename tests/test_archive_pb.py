"""Answers of an archiver in protocol buffers: what Google's library wrote comes back; broken ones say so."""

import contextlib
import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import psana_dask
from psana_dask.archive_answers import ESCAPES, _fields, _varint, parse_json, parse_pb
from psana_dask.errors import ArchiverError, NameNotFound

protobuf = pytest.importorskip("google.protobuf")
YEAR = 2024
SECONDS = 14_278_323  # 2024-06-14T06:12:03 into the year
START = 1718345523

# type number: name, type of `val`, repeated
TYPES = {
    0: ("ScalarString", "STRING", False), 1: ("ScalarShort", "SINT32", False),
    2: ("ScalarFloat", "FLOAT", False), 3: ("ScalarEnum", "SINT32", False),
    4: ("ScalarByte", "BYTES", False), 5: ("ScalarInt", "SFIXED32", False),
    6: ("ScalarDouble", "DOUBLE", False), 8: ("VectorShort", "SINT32", True),
    9: ("VectorFloat", "FLOAT", True), 10: ("VectorEnum", "SINT32", True),
    11: ("VectorChar", "BYTES", False), 12: ("VectorInt", "SFIXED32", True),
    13: ("VectorDouble", "DOUBLE", True),
}  # fmt: skip


@pytest.fixture(scope="module")
def messages():
    """The message classes of EPICSEvent.proto, made by Google's library."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    field_type = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="EPICSEvent.proto", package="EPICS", syntax="proto2")

    def message(name, *fields):
        made = file.message_type.add(name=name)
        for number, what, kind, repeated in fields:
            label = field_type.LABEL_REPEATED if repeated else field_type.LABEL_OPTIONAL
            own = made.field.add(name=what, number=number, label=label)
            if kind.startswith("."):
                own.type, own.type_name = field_type.TYPE_MESSAGE, kind
            else:
                own.type = getattr(field_type, f"TYPE_{kind}")
                if repeated and kind not in ("STRING", "BYTES"):
                    own.options.packed = True

    text, number = "STRING", "INT32"
    message("FieldValue", (1, "name", text, False), (2, "val", text, False))
    info = [(1, "type", number, False), (2, "pvname", text, False), (3, "year", number, False)]
    headers = (15, "headers", ".EPICS.FieldValue", True)
    message("PayloadInfo", *info, (4, "elementCount", number, False), headers)
    times = [(1, "secondsintoyear", "UINT32", False), (2, "nano", "UINT32", False)]
    words = [(4, "severity", number, False), (5, "status", number, False)]
    rest = [(7, "fieldvalues", ".EPICS.FieldValue", True), (8, "fieldactualchange", "BOOL", False)]
    for name, kind, repeated in TYPES.values():
        message(name, *times, (3, "val", kind, repeated), *words, *rest)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)

    def of(name):
        return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"EPICS.{name}"))

    return of


def escaped(raw):
    for code, byte in ESCAPES.items():  # ESC comes first
        raw = raw.replace(bytes([byte]), bytes([0x1B, code]))
    return raw


def chunk(messages, number, values, year=YEAR, first=SECONDS, units="mm"):
    """Write values, one a second, as the archiver does."""
    header = messages("PayloadInfo")(type=number, pvname="PV", year=year)
    header.headers.add(name="EGU", val=units)
    lines = [header.SerializeToString()]
    for k, value in enumerate(values):
        one = messages(TYPES[number][0])(secondsintoyear=first + k, nano=250, severity=k % 2, status=-3)
        if TYPES[number][2]:
            one.val.extend(value)
        else:
            one.val = value
        one.fieldvalues.add(name="cnxlostepsecs", val="1")
        lines.append(one.SerializeToString())
    return b"\n".join(map(escaped, lines)) + b"\n"


SAMPLES = {
    0: ["a", "bé\n", ""], 1: [1, -2, 32767], 2: [1.5, -0.25], 3: [0, 13, 10], 5: [-(2**31), 27, 2**31 - 1],
    6: [1e-300, -2.5, 3.0], 8: [[1, -2], [3, 10]], 9: [[1.5], [2.5, -3.5]], 10: [[0, 1]],
    12: [[-5, 27, 10]], 13: [[1.0, 2.0, 1e300]],
}  # fmt: skip


@pytest.mark.parametrize("number", SAMPLES)
def test_what_was_written_comes_back(messages, number):
    values = SAMPLES[number]
    found = parse_pb(chunk(messages, number, values), "PV", "http://a/retrieval/x")
    data = [
        {"secs": START + k, "nanos": 250, "val": v, "severity": k % 2, "status": -3}
        for k, v in enumerate(values)
    ]
    answer = json.dumps([{"meta": {"EGU": "mm"}, "data": data}]).encode()
    known = parse_json(answer, "PV", "http://a/retrieval/x")
    assert found.identical(known)
    assert found.time.values[0] == np.datetime64("2024-06-14T06:12:03.000000250", "ns")


def test_bytes_are_small_integers(messages):
    assert parse_pb(chunk(messages, 4, [b"\xfb", b"\x0a"]), "PV", "u").values.tolist() == [-5, 10]
    assert parse_pb(chunk(messages, 11, [b"\x01\xff\x1b\x0d"]), "PV", "u").values.tolist() == [
        [1, -1, 27, 13]
    ]


@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=20))
@settings(max_examples=50)
def test_any_doubles(messages, values):
    assert parse_pb(chunk(messages, 6, values), "PV", "u").values.tolist() == values


def test_chunks_of_several_years_are_one_series(messages):
    old = chunk(messages, 6, [1.0], year=2023, first=365 * 86400 - 1)
    answer = chunk(messages, 6, [2.0, 3.0], first=0) + b"\n" + old + b"\n"
    found = parse_pb(answer, "PV", "u")
    assert found.values.tolist() == [1.0, 2.0, 3.0]
    assert found.time.values.astype("M8[s]").astype(str).tolist() == [
        "2023-12-31T23:59:59", "2024-01-01T00:00:00", "2024-01-01T00:00:01",
    ]  # fmt: skip


@given(st.integers(0, 2**64 - 1))
def test_integers_of_seven_bits_a_byte(number):
    raw, rest = b"", number
    while rest >= 0x80:
        raw, rest = raw + bytes([rest & 0x7F | 0x80]), rest >> 7
    raw += bytes([rest])
    assert _varint(raw, 0) == (number, len(raw))


# ---- what is broken -----------------------------------------------------------------------------
def test_nothing_and_unknown_variables(messages):
    with pytest.raises(NameNotFound, match="does not know PV"):
        parse_pb(b"", "PV", "u")
    empty = parse_pb(chunk(messages, 6, []), "PV", "u")
    assert (len(empty), empty.attrs["units"]) == (0, "mm")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"<html>404</html>", "line 1"),
        (b"\x08\x0e\x18\xe8\x0f", "payload type 14 is not read"),
        (b"\x08\x07\x18\xe8\x0f", "payload type 7 is not read"),
        (b"\x08\x06\x18\x01", "the year 1"),
        (b"\x08\x06\x1a\x02ab", "line 1: TypeError"),  # the year as text
        (b"\x08\x06\x18\xe8\x0f\x78\x05", "line 1: TypeError"),  # headers as a number
        (b"\x08" + b"\xff" * 11, "more than 10 bytes"),
        (b"\x1b\x05", "KeyError 5"),
        (b"\x08\x06\x12\x7fx", "field 2 ends behind the message"),
        (b"\x0b", "wire type 3 of field 1"),
        (b"\x08", "line 1: IndexError"),
    ],
)
def test_headers_that_are_none(line, said):
    with pytest.raises(ArchiverError, match="not the answer of an archiver") as caught:
        parse_pb(line, "PV", "http://host/x")
    assert said in str(caught.value)
    assert "http://host/x" in str(caught.value)


def test_samples_that_are_none(messages):
    head = chunk(messages, 6, [])
    for line in (
        b"\x08\x01\x10\x02\x18\x05",  # the double is an integer
        b"\x08\x01\x10\x02\x1d" + struct.pack("<f", 1.0),  # four bytes of it
        b"\x08\x01\x19" + bytes(8),  # no nanoseconds
        b"\x08\xff\xff\xff\xff\x0f\x10\x02\x19" + bytes(8),  # not within the year
        b"\x08\x01\x10\xff\xff\xff\xff\x0f\x19" + bytes(8),
    ):
        with pytest.raises(ArchiverError, match="line 2"):
            parse_pb(head + escaped(line) + b"\n", "PV", "u")


@given(st.binary(max_size=200))
@settings(max_examples=300)
def test_any_bytes_are_an_answer_or_an_archiver_error(answer):
    with contextlib.suppress(ArchiverError, NameNotFound):
        parse_pb(answer, "PV", "u")


@given(st.binary(max_size=60))
def test_any_bytes_are_fields_or_an_error(raw):
    with contextlib.suppress(ValueError, IndexError):
        assert all(isinstance(v, int | bytes) for _, v in _fields(raw))


# ---- the client ---------------------------------------------------------------------------------
def test_the_client_asks_for_it(messages, monkeypatch, tmp_path):
    from psana_dask import archive

    asked = []

    def fetch(opener, url, limits, pv):
        asked.append(url)
        return chunk(messages, 6, [1.5, 2.5])

    monkeypatch.setattr(archive, "_fetch", fetch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    archiver = psana_dask.archiver("http://host:1", form="pb")
    for _ in range(2):
        found = archiver.get("A:B", "2024-06-14T06:12:03Z", "2024-06-14T06:12:05Z")
        assert found.values.tolist() == [1.5, 2.5]
    assert len(asked) == 1  # the second came from disk
    assert asked[0].startswith(
        "http://host:1/retrieval/data/getData.raw?pv=A%3AB&from=2024-06-14T06%3A12%3A03"
    )
    with pytest.raises(ValueError, match="form='protobuf'"):
        psana_dask.archiver("http://host:1", form="protobuf")

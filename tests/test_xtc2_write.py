"""The bytes of the writer against an independent parser, and against the facility's files."""

import importlib.util
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from psana_dask.readers import xtc2_write as enc
from psana_dask.readers.xtc2_layout import TransitionId

_spec = importlib.util.spec_from_file_location("xtc2_parser", Path(__file__).with_name("xtc2_parser.py"))
parser = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(parser)

SHARED = Path(__file__).parents[2] / "shared/data"
CONFORMANCE = Path(os.environ.get("PSANA_DASK_CONFORMANCE", SHARED)) / "xtc2"


def as_names(described):
    fields = tuple(
        enc.FieldName(name, code, rank, alg, version) for alg, version, name, code, rank in described.fields
    )
    return enc.Names(
        src=described.src,
        det_name=described.det_name,
        alg_name=described.alg,
        fields=fields,
        det_type=described.det_type,
        det_id=described.det_id,
        alg_version=described.version,
        segment=described.segment,
    )


def encoded(child):
    if isinstance(child, tuple):
        return enc.parent(b"".join(encoded(inner) for inner in child[2]), child[1])
    if isinstance(child, parser.Described):
        return enc.names_block(as_names(child))
    values = list(child.arrays.values())
    options = {"damage": child.damage, "data_first": child.data_first, "shapes_tail": child.tail}
    return enc.shapes_data(as_names(child.names), values, **options)


def encoded_datagram(one, old=False):
    payload = b"".join(encoded(child) for child in one.children)
    return enc.datagram(
        one.timestamp,
        one.service,
        payload,
        bits=one.bits,
        src=one.src,
        damage=one.damage,
        old=old,
        pulse_id=one.pulse,
    )


def earlier_part(path):
    """Names of a part that has no Configure stand in the first part."""
    odd = {"data-r0001-s000-c001": "xpptut15-r0014-s000-c000"}
    return path.with_stem(odd.get(path.stem, path.stem.replace("c001", "c000")))


@pytest.mark.skipif(not CONFORMANCE.is_dir(), reason=f"no conformance data at {CONFORMANCE}")
def test_every_real_file_is_encoded_byte_for_byte(capsys):
    files = sorted(p for p in CONFORMANCE.rglob("*.xtc2") if "oracle" not in p.parts)
    count, compared, tail = 0, 0, 0
    for path in files:
        table = {}
        parser.parse(bytearray(earlier_part(path).read_bytes()), table)
        original = bytearray(path.read_bytes())
        found, end = parser.parse(original, table)  # zeroes what the spec calls uninitialised
        again = b"".join(encoded_datagram(one) for one in found)
        assert again == original[:end], path
        count, compared, tail = count + len(found), compared + end, tail + len(original) - end
    with capsys.disabled():
        print(f"\n{len(files)} files, {count} datagrams, {compared} bytes equal; {tail} in partial tails")
    assert len(files) >= 30
    assert count >= 2449


FIELDS = (
    enc.FieldName("a", 1, 2),
    enc.FieldName("b", 9),
    enc.FieldName("text", 10, 1),
    enc.FieldName("empty", 5, 1),
    enc.FieldName("e:Mode", 11),
)
NAMES = enc.Names(
    src=enc.names_id(3, 7),
    det_name="cam",
    alg_name="raw",
    fields=FIELDS,
    det_type="opal",
    alg_version=enc.version_word(1, 2, 3),
    segment=5,
)
GIVEN = [np.arange(6, dtype="u2").reshape(2, 3), 1.5, "hello", np.empty(0, "i2"), -4]


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("data_first", [False, True])
@pytest.mark.parametrize("tail", [0, 4])
def test_values_come_back(old, data_first, tail):
    block = enc.shapes_data(NAMES, GIVEN, damage=9, data_first=data_first, shapes_tail=tail)
    payload = enc.names_block(NAMES) + enc.parent(block, 3)
    stamp = 123 << 32 | 456
    data = enc.datagram(stamp, TransitionId.L1_ACCEPT, payload, bits=0x10003, src=3, damage=32, old=old)
    (one,), end = parser.parse(bytearray(data), old=old)
    assert end == len(data)
    assert (one.timestamp, one.service, one.bits, one.src, one.damage) == (stamp, 12, 0x10003, 3, 32)
    (got,) = one.blocks("cam", "raw")
    assert (got.damage, got.data_first, got.tail, got.names.version) == (9, data_first, tail, 0x10203)
    assert (got["text"], got["b"], got["e:Mode"], got["empty"].shape) == ("hello", 1.5, -4, (0,))
    np.testing.assert_array_equal(got["a"], GIVEN[0])


def test_smalldata_event_is_76_bytes():
    data = enc.smd_datagram(5 << 32, enc.smd_names(enc.names_id(enc.SMD_NODE, 0)), 1 << 40, 12345)
    assert len(data) == 76
    assert struct.unpack("<QQ", data[-16:]) == (1 << 40, 12345)


@pytest.mark.parametrize(
    ("text", "size"), [("", 4), ("abc", 4), ("abcd", 8), ("tstx00117", 12), ("r0001-s001-c001.xtc2", 24)]
)
def test_text_is_padded_to_a_multiple_of_4(text, size):
    assert enc.char_array(text).size == size


@pytest.mark.parametrize(("field", "value"), [(FIELDS[0], np.zeros(3)), (FIELDS[1], [1.0])])
def test_wrong_rank_is_refused(field, value):
    with pytest.raises(ValueError, match="rank"):
        enc.field_array(field, value)


@pytest.mark.parametrize("value", [-1, 65536])
def test_integers_that_do_not_fit_are_refused(value):
    with pytest.raises((ValueError, OverflowError), match=r"does not fit|out of bounds|unable to convert"):
        enc.field_array(enc.FieldName("x", 1), np.int64(value))


def test_long_names_are_refused():
    with pytest.raises(ValueError, match="255"):
        enc.names_block(enc.Names(src=0, det_name="x" * 256, alg_name="raw", fields=()))


@pytest.mark.parametrize(("node", "index"), [(4096, 0), (0, 256), (-1, 0)])
def test_ids_that_do_not_fit_are_refused(node, index):
    with pytest.raises(ValueError, match="NamesId"):
        enc.names_id(node, index)

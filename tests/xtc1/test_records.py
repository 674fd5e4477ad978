"""The type tables and their interpreter, on payloads written here."""

import pickle
import struct

import numpy as np
import pytest

from psana_dask.errors import FormatError, NameNotFound
from psana_dask.readers.record_blocks import Batch, batches, gather, ragged
from psana_dask.readers.record_writing import encode
from psana_dask.readers.records import REST, Array, Bits, Derived, Field, Hidden, Method, Record, snake
from psana_dask.readers.tables import (
    EPICS_RECORDS,
    RECORDS,
    config_keys,
    decode,
    is_config,
    is_known,
    load,
    record_for,
    record_of,
    type_name,
)

EVERY = sorted({*RECORDS.values(), *EPICS_RECORDS.values()})
TEST_CONFIG = Record("Test.Config", (Field("rows", "u4", 0), Field("cols", "u4", 4)), size=8)
TEST_FRAME = Record(
    "Test.Frame",
    (
        Field("shot", "u4", 0),
        Array("data", "u2", 4, ("cfg.rows", "cfg.cols")),
        Array("tail", "u1", None, (3,)),
        Field("last", "u4", None),
    ),
    configs=("Test.Config",),
)
TEST_LIST = Record(
    "Test.List",
    (
        Hidden("_head", "u4", 0, bits=(Bits("flag", 31, 1), Bits("kind", 0, 4))),
        Field("count", "u2", 4),
        Array("name", "char", 6, (6,)),
        Array("samples", "f4", 12, ("count",), unit="V"),
    ),
    derived=(
        Derived("halfCount", "u2", lambda r: r.count // 2),
        Method("nth", lambda r, i: float(r.samples[i])),
    ),
)


def view_of(record, payload, cfg=None):
    return record.view(np.frombuffer(payload, np.uint8), cfg=cfg)


def nested(record):
    return {record}.union(*(nested(f.record) for f in record.fields if f.record))


ALL_RECORDS = sorted(set().union(*(nested(load(place)) for place in EVERY)), key=lambda r: r.title)


def test_every_type_and_version_has_a_table():
    assert len(RECORDS) == 184
    assert len(EPICS_RECORDS) == 14
    assert len({load(place).title for place in EVERY}) == len(EVERY) == 184 + 14


@pytest.mark.parametrize("record", ALL_RECORDS, ids=lambda r: r.title)
def test_names_are_unique_and_fields_do_not_overlap(record):
    names = list(record.accessors.values())
    assert len(names) == len(set(names)), names
    end = 0
    for field in record.fields:
        if field.offset is not None:
            assert field.offset >= end, field
        if field.is_fixed:
            end = field.offset + field.dtype.itemsize * int(np.prod(field.shape))
    assert record.size is None or end <= record.size


@pytest.mark.parametrize("record", [r for r in ALL_RECORDS if r.size], ids=lambda r: r.title)
def test_any_bytes_of_a_fixed_record_are_written_as_they_were_read(record):
    payload = np.random.default_rng(record.size).integers(1, 256, record.size, np.uint8)
    covered = np.frombuffer(encode(record, view_of(record, bytes(payload)).stored()), np.uint8)
    gaps = covered == 0  # no byte of the payload is 0, so these belong to no field
    assert np.array_equal(covered[~gaps], payload[~gaps])
    assert gaps.sum() <= record.size - sum(width(f) for f in record.fields)


def width(field):
    return field.dtype.itemsize * int(np.prod(field.shape))


def test_a_fixed_record():
    values = [0x20000, *np.arange(20.0)]
    beam = view_of(record_for(15, 7), struct.pack("<I20d", *values))
    assert beam.damage_mask == beam["damageMask"] == 0x20000
    assert beam.photon_energy == beam["ebeamPhotonEnergy"] == 17.0
    assert beam.record.units["photon_energy"] == "eV"
    assert beam.record.units["charge"] == "nC"
    assert list(beam.values())[:2] == ["damage_mask", "charge"]


def test_our_names_come_from_the_accessors():
    assert snake("numPixelsX") == "num_pixels_x"
    assert snake("f_11_ENRC") == "f_11_enrc"
    assert "f_11_enrc" in record_for(14, 1).accessors.values()


def test_choices_say_what_numbers_mean():
    assert record_for(107, 4).choices["gain_mode"][3] == "ForcedGain1"
    assert record_for(71, 2).choices["result"] == {0: "Fail", 1: "Pass", 2: "None"}


def test_shapes_from_the_head():
    record = record_for(19, 4)
    codes = [{"timestampHigh": 7, "timestampLow": i, "eventCode": 140 + i} for i in range(3)]
    event = view_of(record, encode(record, {"fifo_events": codes}) + b"pad!")
    assert event.num_fifo_events == 3
    assert [code.event_code for code in event.fifo_events] == [140, 141, 142]
    assert event.present(141)
    assert not event.present(40)
    assert event.nbytes == 40


def test_shapes_from_the_configuration():
    cfg = view_of(TEST_CONFIG, encode(TEST_CONFIG, {"rows": 2, "cols": 3}))
    frame = view_of(TEST_FRAME, encode(TEST_FRAME, {"data": np.arange(6).reshape(2, 3), "last": 9}, cfg), cfg)
    assert frame["data"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert (frame.last, frame.nbytes) == (9, 24)
    with pytest.raises(FormatError, match=r"needs its configuration: Test\.Config"):
        _ = view_of(TEST_FRAME, bytes(20))["data"]


def test_bits_text_and_formulas():
    item = view_of(TEST_LIST, encode(TEST_LIST, {"flag": 1, "kind": 5, "name": "abc", "samples": [1, 2, 3]}))
    assert (item.flag, item.kind, item.name, item.half_count, item.nth(2)) == (1, 5, "abc", 1, 3.0)
    assert "_head" not in item.record.accessors
    assert item.stored()["_head"] == 0x80000005


def test_text_ends_at_the_first_nul():
    payload = struct.pack("<IH6s", 0, 0, b"ab\0cd\xe9")
    assert view_of(TEST_LIST, payload).name == "ab"
    assert view_of(TEST_LIST, struct.pack("<IH6s", 0, 0, b"ab\xe9def")).name == "ab\xe9def"


def test_missing_names_list_near_ones():
    with pytest.raises(NameNotFound, match="photon_energy"):
        _ = view_of(record_for(15, 7), bytes(164))["photonenergy"]
    with pytest.raises(AttributeError, match="charge"):
        _ = view_of(record_for(15, 7), bytes(164)).chargee


@pytest.mark.parametrize("size", [0, 3, 163])
def test_a_short_fixed_payload_is_an_error(size):
    with pytest.raises(FormatError, match=f"needs 164 bytes, the payload has {size}"):
        view_of(record_for(15, 7), bytes(size))


def test_a_head_that_asks_for_more_than_there_is():
    with pytest.raises(FormatError, match="fifoEvents with shape"):
        _ = view_of(record_for(19, 4), struct.pack("<I", 1_000_000))["fifoEvents"]
    with pytest.raises(FormatError, match="lies beyond the payload"):
        _ = view_of(record_for(19, 4), b"\1\0")["numFifoEvents"]


def test_a_view_can_be_sent_to_another_process():
    cfg = view_of(record_for(117, 1), bytes(record_for(117, 1).size))
    shape = (16, 352, 384)
    payload = encode(record_for(118, 1), {"frame": np.ones(shape)}, cfg)
    again = pickle.loads(pickle.dumps(view_of(record_for(118, 1), payload, cfg)))
    assert again["frame"].sum() == np.prod(shape)
    assert again.record is record_for(118, 1)
    assert again.cfg.number_of_elements == 16
    unknown = pickle.loads(pickle.dumps(view_of(record_for(58, 3), b"abc")))
    assert (unknown.record, bytes(unknown["bytes"])) == (record_for(58, 3), b"abc")


def test_every_record_is_found_by_its_title():
    assert all(record_of(record.title) is record for record in ALL_RECORDS)
    assert record_of("No.Such") is None


def test_unknown_types_keep_their_bytes():
    record = record_for(58, 3)
    assert not is_known(record)
    assert record.title == "Unknown.Reserved1 version 3"
    assert view_of(record, b"\1\2\3")["bytes"].tolist() == [1, 2, 3]
    assert record_for(13, 1, np.frombuffer(b"\0\0\5\0\0\0", np.uint8)).title == "Unknown.EPICS dbr type 5"
    assert type_name(500) == "type 500"


def test_configurations():
    assert is_config(8)
    assert not is_config(19)
    assert config_keys(record_for(28, 2)) == ((29, 2), (29, 3), (29, 4), (29, 5))
    with pytest.raises(FormatError, match=r"needs a configuration: CsPad\.ConfigV2 or"):
        decode(28, 2, np.zeros(100, np.uint8))
    assert decode(31, 1, np.zeros(28, np.uint8)).xpos == 0.0


def test_encode_checks_shapes():
    cfg = view_of(TEST_CONFIG, encode(TEST_CONFIG, {"rows": 2, "cols": 3}))
    with pytest.raises(FormatError, match=r"has the shape \(3, 2\), the layout says \(2, 3\)"):
        encode(TEST_FRAME, {"data": np.zeros((3, 2))}, cfg)


# ---- many at once -------------------------------------------------------------------------------
def joined(payloads):
    stops = np.cumsum([len(p) for p in payloads])
    return np.frombuffer(b"".join(payloads), np.uint8), stops - [len(p) for p in payloads], stops


def test_a_block_of_fixed_records():
    payloads = [struct.pack("<4d", i, 2, 3, 4) + bytes(8) for i in range(100)]
    (batch,) = batches(record_for(14, 0), *joined(payloads))
    assert batch["f_11_enrc"].tolist() == list(range(100))


def test_a_block_with_several_layouts():
    payloads = [encode(TEST_LIST, {"samples": np.arange(i % 3), "kind": i % 16}) for i in range(30)]
    found = list(batches(TEST_LIST, *joined(payloads)))
    assert sorted(len(b.picked) for b in found) == [10, 10, 10]
    for batch in found:
        assert np.array_equal(batch["kind"], batch.picked % 16)
        assert batch["samples"].shape[1] == batch.picked[0] % 3


def test_a_short_payload_in_a_block_is_named():
    data, starts, stops = joined([bytes(164)] * 3)
    stops = stops.copy()
    stops[1] -= 1
    with pytest.raises(FormatError, match="164 bytes") as caught:
        list(batches(record_for(15, 7), data, starts, stops))
    assert caught.value.offset == 164


def test_formulas_on_columns_do_not_overflow():
    record = record_for(22, 2)
    words = np.array([[1, 2, 3, 0xFFFF]] * 4, "<u2")
    payloads = [row.tobytes() + bytes(24) for row in words]
    (batch,) = batches(record, *joined(payloads))
    single = view_of(record, payloads[0]).trigger_counter
    assert batch["trigger_counter"].tolist() == [single] * 4


def test_ragged_arrays():
    record = record_for(19, 4)
    codes = [[140, 40], [], [90, 91, 92]]
    payloads = [encode(record, {"fifo_events": [{"eventCode": c} for c in row]}) + bytes(8) for row in codes]
    counts, items = ragged(record, "fifo_events", *joined(payloads))
    assert counts.tolist() == [2, 0, 3]
    assert items["event_code"].tolist() == [140, 40, 90, 91, 92]
    data, starts, stops = joined(payloads)
    with pytest.raises(FormatError, match="fifoEvents of 2 items runs past the payload"):
        ragged(record, "fifo_events", data, starts, starts + 8)
    with pytest.raises(FormatError, match="no array at a fixed place"):
        ragged(record, "num_fifo_events", data, starts, stops)


def test_gather_of_nothing():
    assert gather(np.zeros(0, np.uint8), np.zeros(0, np.int64), record_for(15, 7).dtype).shape == (0,)
    nowhere = np.zeros(0, np.int64)
    (batch,) = batches(record_for(15, 7), np.zeros(0, np.uint8), nowhere, nowhere)
    assert isinstance(batch, Batch)
    assert len(batch["charge"]) == 0


def test_an_array_to_the_end_of_the_payload():
    record = Record("Test.Rest", (Array("words", "u2", 2, (REST,)),), align=2)
    assert view_of(record, bytes(9))["words"].shape == (3,)

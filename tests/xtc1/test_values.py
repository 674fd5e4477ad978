"""Payloads as flat columns."""

import numpy as np
import pytest

from psana_dask.errors import FormatError
from psana_dask.readers.record_writing import encode
from psana_dask.readers.tables import record_for
from psana_dask.readers.xtc_values import Ragged, read_value, values_of


def make(key, values, cfg=None):
    record = record_for(*key)
    return record.view(np.frombuffer(encode(record, values, cfg), np.uint8), cfg=cfg)


def read(name, views):
    """The value `name` of several payloads of one record."""
    record, cfg = views[0].record, views[0].cfg
    payloads = [view.buffer.tobytes() for view in views]
    stops = np.cumsum([len(p) for p in payloads])
    value = next(v for v in values_of(views[0]) if v.name == name)
    data = np.frombuffer(b"".join(payloads), np.uint8)
    return read_value(record, value, data, stops - [len(p) for p in payloads], stops, cfg)


def test_scalars_have_names_and_units():
    beams = [make((15, 7), {"photon_energy": 9000.0 + i}) for i in range(3)]
    values = {v.name: v for v in values_of(beams[0])}
    energy = values["photon_energy"]
    assert (energy.dtype, energy.shape, energy.fixed, energy.unit) == (np.float64, (), True, "eV")
    assert len(values) == 21
    assert read("photon_energy", beams).tolist() == [9000.0, 9001.0, 9002.0]


def test_a_short_payload_is_an_error():
    beam = make((15, 7), {})
    energy = next(v for v in values_of(beam) if v.name == "photon_energy")
    with pytest.raises(FormatError, match="no photon_energy") as caught:
        read_value(beam.record, energy, np.zeros(400, np.uint8), np.array([0, 200]), np.array([164, 340]))
    assert caught.value.offset == 200


def test_nested_records_are_unfolded():
    view = make((35, 1), {"ipmFexData": {"sum": 2.5}, "ipimbData": {"channel0": 65535}})
    values = {v.name: v for v in values_of(view)}
    assert values["ipm_fex_data_sum"].path == ("ipmFexData", "sum")
    assert values["ipimb_data_channel0_volts"].unit == "V"
    assert read("ipm_fex_data_sum", [view, view]).tolist() == [2.5, 2.5]
    assert read("ipimb_data_channel0_volts", [view]).tolist() == [5.0]
    places = {name: values[name].place for name in ("ipm_fex_data_sum", "ipimb_data_channel0_volts")}
    assert places == {"ipm_fex_data_sum": 92 + 16, "ipimb_data_channel0_volts": None}


def test_lists_of_records_are_arrays():
    cfg = make((68, 1), {"numberOfSamples": 3})
    samples = [{"channels": [i, 10 + i, 20 + i, 30 + i]} for i in range(3)]
    view = make((67, 1), {"samples": samples}, cfg)
    value = next(v for v in values_of(view) if v.name == "samples_channels")
    assert (value.shape, value.fixed, value.dtype) == ((3, 4), True, np.uint16)
    assert read("samples_channels", [view, view])[1, 2].tolist() == [2, 12, 22, 32]


def test_event_codes_are_ragged():
    codes = [[140, 40], [], [162]]
    views = [make((19, 4), {"fifo_events": [{"eventCode": c} for c in row]}) for row in codes]
    value = next(v for v in values_of(views[0]) if v.name == "fifo_events_event_code")
    assert not value.fixed
    found = read("fifo_events_event_code", views)
    assert isinstance(found, Ragged)
    assert found.counts.tolist() == [2, 0, 1]
    assert found.items.tolist() == [140, 40, 162]


def test_arrays_of_one_length_stay_together():
    views = [make((94, 1), {"channelVoltages": [i, 2.0]}) for i in range(4)]
    found = read("channel_voltages", views)
    assert found.shape == (4, 2)
    assert found[:, 0].tolist() == [0, 1, 2, 3]


def test_frames_of_different_shapes_are_refused():
    sizes = [{"height": 2, "width": 3}, {"height": 3, "width": 2}]
    pixels = [np.zeros((size["height"], size["width"], 2)) for size in sizes]
    pairs = zip(sizes, pixels, strict=True)
    views = [make((2, 1), size | {"depth": 16, "pixelBytes": p}) for size, p in pairs]
    assert read("pixels", views[:1]).shape == (1, 2, 3)
    with pytest.raises(FormatError, match="pixels has the shapes"):
        read("pixels", views)


def test_text():
    views = [make((64, 0), {"gasType": gas}) for gas in ("Xe", "krypton")]
    value = values_of(views[0])[0]
    assert (value.name, value.dtype) == ("gas_type", np.dtype("S32"))
    assert read("gas_type", views).tolist() == [b"Xe", b"krypton"]


def test_waveforms():
    cfg = make((4, 1), {"channelMask": 3, "horiz": {"nbrSamples": 4, "nbrSegments": 1}})
    channels = [{"waveforms": np.full((1, 4), i), "indexFirstPoint": 0} for i in (5, 6)]
    view = make((3, 1), {"data": channels}, cfg)
    assert read("data_waveforms", [view, view])[:, :, 0, 0].tolist() == [[5, 6], [5, 6]]

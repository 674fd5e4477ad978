"""What records mean: panels, volts, times, event codes."""

import numpy as np
import pytest

from psana_dask.errors import FormatError
from psana_dask.readers.record_writing import encode
from psana_dask.readers.tables import record_for
from psana_dask.readers.tables.panels import panel_stack, panel_table, panels_of, pnccd_image
from psana_dask.readers.tables.signals import (
    acqiris_times,
    acqiris_volts,
    encoder_positions,
    epics_time,
    event_codes,
    generic_channels,
    generic_times,
    imp_waveforms,
    shared_parts,
    spectrum,
    tdc_times,
    wavelengths,
)


def make(key, values, cfg=None):
    """A decoded record of (type, version) or of an EPICS payload, written from values."""
    record = record_for(*key) if len(key) == 2 else record_for(13, 1, np.frombuffer(key, np.uint8))
    return record.view(np.frombuffer(encode(record, values, cfg), np.uint8), cfg=cfg)


def images(*shape):
    return np.random.default_rng(3).integers(0, 4000, shape)


def table_of(views):
    """The panel table of several payloads, from their heads alone."""
    record, cfg, asked = views[0].record, views[0].cfg, []

    def heads(offsets, size):
        asked.append(size)
        return np.stack([v.buffer[o : o + size] for v, o in zip(views, offsets, strict=True)])

    table = panel_table(record, cfg, len(views), heads)
    assert sum(asked) <= 32
    return table


def same_places(views):
    table = table_of(views)
    for starts, view in zip(table.starts, views, strict=True):
        panels = panels_of(view)
        assert np.array_equal(starts, panels.starts)
        assert (table.shape, table.dtype, table.step) == (panels.shape, panels.dtype, panels.step)


def test_panel_tables_need_only_the_heads():
    same_places([make((41, 1), {})] * 3)
    cfg = make((107, 4), {"numberOfModules": 2, "numberOfRowsPerModule": 3, "numberOfColumnsPerModule": 4})
    same_places([make((108, 2), {}, cfg)] * 2)
    pnccd = make((12, 1), {"numLinks": 2, "payloadSizePerLink": 16 + 2 * 512 * 512})
    same_places([make((11, 1), {}, pnccd)])
    same_places([make((50, 2), {"height": 3, "width": 2})] * 2)
    frame = {"width": 2, "height": 5, "depth": 8}
    same_places([make((2, 1), frame)] * 2)
    same_places([make((42, 1), {"frame": frame, "camConfig": {"gain_a": i}}) for i in range(2)])
    with pytest.raises(FormatError, match="frame 1 of the block has another shape"):
        table_of([make((2, 1), frame), make((2, 1), frame | {"height": 2})])


def test_panel_table_of_cspad_events_with_their_quads_in_different_orders():
    cfg = make((29, 5), {"quadMask": 0b1101, "roiMasks": 0b1 << 24 | 0b10000001 << 16 | 0b11})
    counts = {0: 2, 2: 2, 3: 1}
    orders = [(0, 2, 3), (3, 2, 0), (2, 0, 3)]
    views = [
        make((28, 2), {"quads": [{"quad": q, "data": images(counts[q], 185, 388)} for q in order]}, cfg)
        for order in orders
    ]
    same_places(views)
    old = make((29, 1), {"quadMask": 0b11, "asicMask": 1})
    quads = [{"quad": q, "data": images(2, 185, 388)} for q in (1, 0)]
    same_places([make((28, 1), {"quads": quads}, old)])


def test_cspad_quads_come_in_any_order_with_regions_of_interest():
    cfg = make((29, 5), {"quadMask": 0b1101, "roiMasks": 0b1 << 24 | 0b10000001 << 16 | 0b11})
    pixels = {0: images(2, 185, 388), 2: images(2, 185, 388) + 1, 3: images(1, 185, 388)}
    quads = [{"quad": q, "data": pixels[q]} for q in (3, 0, 2)]
    stack, present = panel_stack(make((28, 2), {"quads": quads}, cfg))
    assert stack.shape == (32, 185, 388)
    assert np.flatnonzero(present).tolist() == [0, 1, 16, 23, 24]
    assert np.array_equal(stack[[0, 1, 16, 23, 24]], np.concatenate([pixels[0], pixels[2], pixels[3]]))
    assert not stack[~present].any()


def test_cspad2x2_panels_are_interleaved():
    pixels = images(185, 388, 2)
    frame = make((41, 1), {"data": pixels})
    assert panels_of(frame).step == 4
    assert np.array_equal(panel_stack(frame)[0], pixels.transpose(2, 0, 1))


@pytest.mark.parametrize(("depth", "dtype"), [(8, "u1"), (12, "<u2"), (16, "<u2"), (32, "<u4")])
def test_camera_frames(depth, dtype):
    pixels = images(3, 4).astype(dtype)
    size = pixels.itemsize
    values = {"width": 4, "height": 3, "depth": depth, "pixelBytes": pixels.view("u1").reshape(3, 4, size)}
    frame = make((2, 1), values)
    assert np.array_equal(panel_stack(frame)[0][0], pixels)
    assert np.array_equal(frame.pixels, pixels)
    assert frame.pixels.dtype == pixels.dtype
    panels = panels_of(frame)
    assert (panels.starts.tolist(), panels.shape) == ([16], (3, 4))


def test_frames_inside_shared_records():
    frame = {"width": 2, "height": 1, "depth": 16, "pixelBytes": [[[1, 0], [2, 0]]]}
    view = make((42, 1), {"frame": frame, "pimConfig": {"xscale": 2.5}})
    assert panel_stack(view)[0].tolist() == [[[1, 2]]]
    parts = dict(shared_parts(view))
    assert parts[34, 1].xscale == 2.5
    assert parts[2, 1].width == 2
    assert shared_parts(make((31, 1), {})) == []


def test_jungfrau_modules_are_panels():
    cfg = make((107, 4), {"numberOfModules": 2, "numberOfRowsPerModule": 3, "numberOfColumnsPerModule": 4})
    pixels = images(2, 3, 4)
    assert np.array_equal(panel_stack(make((108, 2), {"frame": pixels}, cfg))[0], pixels)


def test_pnccd():
    cfg = make((12, 1), {"numLinks": 4, "payloadSizePerLink": 16 + 2 * 512 * 512})
    links = images(4, 512, 512)
    stack, present = panel_stack(make((11, 1), {"frame": [{"words": link.ravel()} for link in links]}, cfg))
    assert present.all()
    assert np.array_equal(stack, links)
    image = pnccd_image(stack)
    assert image[0, 0] == links[0, 0, 0]
    assert image[0, 512] == links[3, 0, 0]
    assert image[1023, 511] == links[1, 0, 0]
    assert image[1023, 1023] == links[2, 0, 0]
    assert image.shape == (1024, 1024)


def test_what_is_no_imager_has_no_panels():
    with pytest.raises(FormatError, match="no area detector"):
        panels_of(make((31, 1), {}))


def test_acqiris():
    horizontal = {"sampInterval": 2e-9, "nbrSamples": 5, "nbrSegments": 1}
    vertical = [{"fullScale": 6.5536, "offset": 0.25 * i} for i in range(20)]
    cfg = make((4, 1), {"channelMask": 0b101, "horiz": horizontal, "vert": vertical})
    channels = [
        {"indexFirstPoint": i, "timestamp": [{"pos": 1e-9 * i}], "waveforms": np.arange(5)[None] * 100}
        for i in range(2)
    ]
    view = make((3, 1), {"data": channels}, cfg)
    volts, times = acqiris_volts(view), acqiris_times(view)
    assert volts.shape == times.shape == (2, 1, 5)
    assert np.allclose(volts[0, 0], np.arange(5) * 0.01)  # 6.5536 / 65536 is not exact
    assert np.allclose(volts[1, 0], np.arange(5) * 0.01 - 0.25)
    assert np.array_equal(times[1, 0], 1e-9 + np.arange(5) * 2e-9)


def test_tdc_channels():
    hits = [1 << 28 | 100, 3 << 28 | 7, 0x80000000 | 1 << 28 | 5, 0]
    view = make((37, 1), {"data": [{"value": hit} for hit in hits]})
    times = tdc_times(view)
    assert [t.tolist() for t in times] == [[100 * 50e-12], [], [7 * 50e-12], [], [], []]
    assert tdc_times(view, overflow=True)[0].tolist() == [5 * 50e-12]


def test_imp():
    cfg = make((68, 1), {"numberOfSamples": 6})
    samples = images(6, 4)
    view = make((67, 1), {"samples": [{"channels": row} for row in samples]}, cfg)
    assert np.array_equal(imp_waveforms(view), samples.T)


def test_generic_channels():
    config = {"Length": [3, 2], "SampleType": [1, 4], "Offset": [0, -1], "Period": [1e-9, 0.5]}
    cfg = make((99, 0), config)
    stored = np.arange(3, dtype="<u2").tobytes() + np.array([1.5, 2.5]).tobytes()
    view = make((100, 0), {"sample_bytes": np.frombuffer(stored, np.uint8)}, cfg)
    first, second = generic_channels(view)
    assert (first.tolist(), second.tolist()) == ([0, 1, 2], [1.5, 2.5])
    assert view.data_u16(0).tolist() == [0, 1, 2]
    assert view.data_u8(0).size == 0
    short = make((100, 0), {"sample_bytes": np.zeros(20, np.uint8)}, cfg)
    with pytest.raises(FormatError, match="channel 1 needs 22 bytes of samples, there are 20"):
        generic_channels(short)
    assert [t.tolist() for t in generic_times(cfg)] == [[0.0, 1e-9, 2e-9], [-0.5, 0.0]]


def test_spectrometer():
    counts = images(2048)
    plain = make((52, 2), {"waveLenCalib": [200.0, 0.5, 0, 0]})
    assert np.array_equal(spectrum(make((53, 2), {"data": counts}, plain)), counts)
    assert wavelengths(make((53, 2), {"data": counts}, plain))[:3].tolist() == [200.0, 200.5, 201.0]
    bent = make((52, 2), {"nonlinCorrect": [1, 1e-5, 0, 0, 0, 0, 0, 0]})
    view = make((53, 2), {"data": counts}, bent)
    assert np.allclose(spectrum(view), counts / (1 + 1e-5 * counts))  # rounding of the polynomial
    assert view.nonliner_corrected(7) == spectrum(view)[7]


def test_frame_duration_is_right_where_psana_is_not():
    start = {"tv_sec": 10, "tv_nsec": 900_000_000}
    view = make((53, 2), {"timeFrameStart": start, "timeFrameEnd": {"tv_sec": 12, "tv_nsec": 0}})
    assert view.frame_duration == pytest.approx(1.1)
    assert view["durationOfFrame"] == pytest.approx(1.8446744073e10, rel=1e-6)


def test_encoders():
    view = make((62, 1), {"_count": [0xFFFFFF, 5, 0x800000, 0x7FFFFF]})
    assert view.encoder_count.tolist() == [-1, 5, -(1 << 23), (1 << 23) - 1]
    fex = make((101, 1), {"offset": [1, 0, 0, 0], "scale": [2.0, 0.5, 1, 1]})
    assert encoder_positions(view, fex)[:2].tolist() == [0.0, 2.5]
    assert make((24, 1), {"encoder_count": 0xFFFFFE}).value == -2


def test_event_codes():
    codes = [(7, 140), (7, 40), (6, 162)]
    view = make((19, 4), {"fifo_events": [{"timestampHigh": f, "eventCode": c} for f, c in codes]})
    assert event_codes(view).tolist() == [140, 40, 162]
    assert event_codes(view, fiducial=7).tolist() == [140, 40]


def test_epics():
    head = np.array([7, 20, 1], "<i2").tobytes()
    view = make(head, {"pvId": 7, "dbrType": 20, "dbr": {"stamp": {"sec": 10, "nsec": 5}}, "data": [2.5]})
    assert (view.pv_id, view.data.tolist(), view.value(0)) == (7, [2.5], 2.5)
    assert epics_time(view) == np.datetime64("1990-01-01T00:00:10.000000005")

"""`det.waveforms` of simulated runs: every digitiser in one form, volts and seconds, injected edges."""

import numpy as np
import pytest
import xarray as xr

from psana_dask import analysis
from psana_dask.algorithms.hsd import PERIOD
from psana_dask.errors import NameNotFound, ReadError

# tests/algorithms/conftest.py: what the digitisers saw
PULSE_SAMPLES = 256


def samples_seen(truth, detector, field, event):
    return np.asarray(truth.value(detector, field, event)).astype(float)


of_lcls1 = pytest.mark.parametrize("beamtime", ["xtc"], indirect=True)
of_lcls2 = pytest.mark.parametrize("beamtime", ["xtc2"], indirect=True)


@of_lcls1
def test_acqiris_gives_volts_and_seconds(beamtime):
    run, truth = beamtime.run, beamtime.truth
    waves = run.acqiris.waveforms()
    assert waves.waveform.dims == waves.seconds.dims == ("time", "channel", "sample")
    assert (waves.waveform.attrs["units"], waves.seconds.attrs["units"]) == ("V", "s")
    # the settings of simulate: full scale 2 V of 16 bits, offset 0.25 V, 1 ns, trigger at -2 ns
    for event in range(0, len(run), 13):
        counts = samples_seen(truth, "acqiris", "raw", event)[:, 0]
        np.testing.assert_allclose(waves.waveform[event], counts * 2.0 / 65536 - 0.25, atol=1e-12)
        expected = np.broadcast_to(-2e-9 + 1e-9 * np.arange(PULSE_SAMPLES), (4, PULSE_SAMPLES))
        np.testing.assert_allclose(waves.seconds[event], expected, atol=1e-18)


@of_lcls1
def test_generic_channels_have_their_own_lengths_and_clocks(beamtime):
    run, truth = beamtime.run, beamtime.truth
    waves = run.wave8.waveforms()
    assert waves.waveform.shape == (len(run), 2, 256)
    first = truth.value("wave8", "sample_bytes", 5)
    np.testing.assert_array_equal(waves.waveform[5, 0], first[:512].view("<u2"))
    np.testing.assert_array_equal(waves.waveform[5, 1, :128], first[512:].view("<f4"))
    assert np.isnan(waves.waveform[5, 1, 128:]).all()
    np.testing.assert_allclose(waves.seconds[0, :2], [80e-9, 88e-9])  # offset 10 samples of 8 ns
    np.testing.assert_allclose(waves.seconds[1, :2], [0, 16e-9])


def test_imp_and_wave8_channels_lie_side_by_side(beamtime):
    run, truth = beamtime.run, beamtime.truth
    if run.format == "xtc":
        waves = run.imp.waveforms()
        assert waves.waveform.dims == ("time", "channel", "sample")
        assert np.array_equal(waves.waveform[7], truth.value("imp", "raw", 7))
        assert "seconds" not in waves
        return
    waves = run.wave8.waveforms(period=8e-9)
    assert waves.waveform.dtype == np.uint16
    expected = [truth.value("wave8", f"raw_{k}", 7) for k in range(8)]
    assert np.array_equal(waves.waveform[7], expected)
    np.testing.assert_allclose(waves.seconds[:3], [0, 8e-9, 16e-9])


@of_lcls2
def test_hsd_streams_are_waveforms_and_peaks(beamtime):
    run, truth = beamtime.run, beamtime.truth
    raw = run.hsd.waveforms()
    assert raw.waveform.dims == ("time", "panel", "channel", "sample")
    np.testing.assert_allclose(raw.seconds[:2], [0, PERIOD])
    padded = run.hsd.waveforms(stream="peaks")
    for event in range(len(run)):
        for panel in range(2):
            found, kept = raw.waveform[event, panel, 0].values, padded.waveform[event, panel, 0].values
            payload = truth.value("hsd", "chan00", event, panel)
            if not len(payload):
                assert np.isnan(found).all()
                assert np.isnan(kept).all()
                continue
            assert np.array_equal(found, payload[16 : 16 + 512].view("<u2"))
            above = np.repeat((found.reshape(-1, 4) > 150).any(axis=1), 4)
            assert np.array_equal(kept, np.where(above, found, np.nan), equal_nan=True)
    peaks = run.hsd.hsd_peaks("chan00", panel=1)
    assert peaks.peak_count.sum() == peaks.sizes["peak_item"] > 100
    with pytest.raises(ReadError, match=r"an event has 256 samples, not 200: ask for waveforms\(samples=256"):
        run.hsd.waveforms(samples=200).load()
    with pytest.raises(NameNotFound, match="has no waveforms"):
        run.gmd.waveforms()


@pytest.mark.parametrize("chunks", [None, {"time": 1}, {"time": 7}])
def test_injected_edges_are_found_in_any_digitiser(beamtime, chunks):
    run = beamtime.run
    name, channel = {"xtc2": ("hsd", 0), "xtc": ("acqiris", 3)}[run.format]
    waves = run[name].waveforms(chunks=chunks).waveform.isel(channel=channel)
    waves = waves.isel(panel=0) if "panel" in waves.dims else waves
    flat = analysis.subtract_baseline(waves, slice(0, 30))
    scale = {"xtc2": 1.0, "xtc": 4 * 5 * 2.0 / 65536}[run.format]
    found = analysis.find_edges(flat, threshold=100 * scale, fraction=0.5, deadtime=2, most=4).load()
    for event in range(len(run)):
        if run.format == "xtc2" and event % 7 == 6:
            assert found["count"][event] == 0
            continue
        halves = [60.25 + event % 7, 151.5 - event % 5]
        assert found["count"][event] == 2
        # the top of a triangle falls between samples: its height is up to 1/16 low, its half 0.25 early
        np.testing.assert_allclose(found.position[event, :2], halves, atol=0.3)
        np.testing.assert_allclose(found.amplitude[event, :2], np.array([900, 400]) * scale, rtol=0.07)
    table = analysis.edge_table(found)
    assert len(table) == int(found["count"].sum())
    assert {"time", "event", "position", "amplitude"} <= set(table.columns)


@of_lcls2
def test_selected_events_alone_are_decoded(beamtime):
    run = beamtime.run
    some = run.isel([3, 10, 6])
    whole = run.hsd.waveforms().waveform
    xr.testing.assert_equal(some.hsd.waveforms(samples=256).waveform.load(), whole[[3, 10, 6]].load())
    one = run.hsd.waveforms(chunks=None).waveform.isel(time=4, panel=1, channel=0)[10:20]
    assert np.array_equal(one, whole[4, 1, 0, 10:20])
    assert run.isel(slice(0, 0)).hsd.waveforms().waveform.sizes["time"] == 0

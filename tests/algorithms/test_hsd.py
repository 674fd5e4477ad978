"""High-speed digitisers: streams that were encoded, psana's rules, and broken payloads."""

import os
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import psana_dask
from psana_dask import algorithms, analysis, simulate
from psana_dask.algorithms.hsd import MALFORMED, OVERFLOW, PERIOD
from psana_dask.simulate import Algorithm, Detector, Field, RunSpec

ROOT = Path(os.environ.get("PSANA_DASK_CONFORMANCE", Path(__file__).parents[2] / ".." / "shared" / "data"))


@pytest.fixture(scope="module")
def waves():
    random = np.random.default_rng(8)
    waves = random.integers(100, 110, (6, 400))
    waves[:, 40:46] += 500
    waves[2:, 201:230] += 900
    waves[3, -3:] += 50
    return waves


def test_what_was_encoded_is_decoded(waves, encoding):
    stream, encoded = encoding.stream, encoding.encoded
    payload = [stream(0, w) + stream(1, encoded(w, 130)) for w in waves]
    payload[1] = stream(1, encoded(waves[1], 130))
    payload[4] = b""
    counts = np.array([len(p) for p in payload])
    found = algorithms.decode_hsd(np.frombuffer(b"".join(payload), np.uint8), counts)
    assert found.flags.tolist() == [0] * 6
    assert found.raw_count.tolist() == [400, 0, 400, 400, 0, 400]
    assert np.array_equal(found.waveforms(400)[2], waves[2])
    assert np.isnan(found.waveforms(400)[1]).all()
    assert found.peak_count.tolist() == [1, 1, 2, 3, 0, 2]
    assembled = found.assembled(400)
    for event in (0, 1, 2, 3, 5):
        kept = np.repeat((waves[event].reshape(-1, 4) > 130).any(axis=1), 4)
        assert np.array_equal(assembled[event], np.where(kept, waves[event], np.nan), equal_nan=True)
    assert found.assembled(42).shape == (6, 42)


def test_broken_payloads_are_flagged_and_hide_no_other(waves, encoding):
    stream = encoding.stream
    good = stream(0, waves[0])
    broken = [good, good[:-2], b"\x01\x00", stream(7, [1, 2, 3, 4]), stream(0, waves[1], 4), stream(0, [])]
    counts = np.array([len(p) for p in broken])
    found = algorithms.decode_hsd(np.frombuffer(b"".join(broken), np.uint8), counts)
    assert found.flags.tolist() == [0, MALFORMED, MALFORMED, MALFORMED, OVERFLOW, MALFORMED]
    assert found.raw_count.tolist() == [400, 0, 0, 0, 400, 0]
    assert np.array_equal(found.waveforms(400)[4], waves[1])
    with pytest.raises(ValueError, match="but 3 are given"):
        algorithms.decode_hsd(np.zeros(3, np.uint8), np.array([4]))
    assert algorithms.decode_hsd(np.zeros(0, np.uint8), np.zeros(0, int)).waveforms(5).shape == (0, 5)


def test_channels_of_a_run(encoding, waves):
    payload = [encoding.stream(1, encoding.encoded(w, 130)) for w in waves]
    counts = np.array([len(p) for p in payload]).reshape(3, 2)  # three events of two digitisers
    data = xr.Dataset(
        {
            "chan00": ("chan00_item", np.frombuffer(b"".join(payload), np.uint8)),
            "chan00_count": (("time", "panel"), counts),
        },
        {"time": np.datetime64("2024-06-14", "ns") + np.arange(3)},
    )
    found = analysis.decode_hsd(data, panel=1)
    assert found["peak_count"].values.tolist() == [1, 3, 2]  # waves 1, 3 and 5
    np.testing.assert_allclose(found["start"], found["first"] * PERIOD)
    assert found["sample_count"].sum() == found.sizes["sample_item"] == found["length"].sum()
    with pytest.raises(ValueError, match="chan00 has 2 digitisers"):
        analysis.decode_hsd(data)


def test_payloads_of_one_length_are_decoded_too(encoding, tmp_path):
    """As of a digitiser that sends its raw samples only: always as many bytes."""
    counts = np.arange(3 * 8).reshape(3, 8)
    payload = Field("chan00", "u1", (None,), longest=64, value=lambda m: np.frombuffer(
        encoding.stream(0, counts[m.event]), np.uint8))  # fmt: skip
    hsd = Detector(name="hsd", kind="hsd", algorithms=(Algorithm("raw", (2, 0, 0), (payload,)),))
    simulate.write(RunSpec(events=3, detectors=(hsd,)), tmp_path)
    run = psana_dask.open(tmp_path)
    assert np.array_equal(run.hsd.waveforms().waveform.values[:, 0], counts)
    assert analysis.decode_hsd(run.hsd.chan00).raw.values.tolist() == counts.ravel().tolist()
    evt = next(next(psana_dask.psana.DataSource(str(tmp_path)).runs()).events())
    assert evt._run.Detector("hsd").raw.waveforms(evt)[0][0].tolist() == counts[0].tolist()


@pytest.mark.skipif(not (ROOT / "xtc2" / "test_hsd.xtc2").exists(), reason=f"no files at {ROOT / 'xtc2'}")
@pytest.mark.filterwarnings("ignore::psana_dask.errors.PartialRunWarning")  # the file is cut off
def test_every_peak_of_a_file_of_the_facility(figures):
    run = psana_dask.open(str(ROOT / "xtc2" / "test_hsd.xtc2"))
    channel = run.xpphsd.hsd_chan00
    payload, counts = channel["hsd_chan00"].values, channel["hsd_chan00_count"].values
    starts = (np.cumsum(counts.reshape(-1)) - counts.reshape(-1)).reshape(counts.shape)
    peaks = samples = 0
    for panel in range(counts.shape[1]):
        found = analysis.decode_hsd(channel, panel=panel)
        assert not found["flags"].any()
        pieces = [payload[a : a + n] for a, n in zip(starts[:, panel], counts[:, panel], strict=True)]
        expected = [by_the_rules(piece) for piece in pieces]
        assert found["raw"].values.tolist() == [v for raw, _ in expected for v in raw]
        assert found["peak_count"].values.tolist() == [len(e) for _, e in expected]
        assert found["first"].values.tolist() == [first for _, e in expected for first, _ in e]
        assert found["samples"].values.tolist() == [v for _, e in expected for _, values in e for v in values]
        waves = run.xpphsd.waveforms(chunks=None).waveform.isel(panel=panel, channel=0).values
        assert [row[np.isfinite(row)].tolist() for row in waves] == [raw for raw, _ in expected]
        peaks += sum(len(e) for _, e in expected)
        samples += found.sizes["raw_item"]
    assert peaks > 100
    figures("hsd streams decoded", payloads=counts.size, peaks=peaks, raw_samples=samples)


def by_the_rules(payload):
    """Return raw samples and the (start, samples) of each peak, word by word."""
    raw, found = [], []
    while len(payload):
        count = int(payload[:4].view("<u4")[0]) & 0x1FFFFFFF
        kind, body, payload = payload[7], payload[16 : 16 + 2 * count], payload[16 + 2 * count :]
        words = body.view("<u2").tolist()
        raw += words if kind == 0 else []
        found += peaks_of(words) if kind == 1 else []
    return raw, found


def peaks_of(words):
    found, position, inside = [], 0, False
    for k in range(0, len(words), 4):
        group = words[k : k + 4]
        if group[0] & 0x8000:
            position += sum(w & 0x7FFF for w in group)
            inside = False
        elif inside:
            found[-1][1].extend(group)
            position += 4
        else:
            found.append((position, list(group)))
            position, inside = position + 4, True
    return found

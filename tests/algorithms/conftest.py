"""Simulated beam times, one of each format, whose answers are known: what a user would open."""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest

import psana_dask
from psana_dask import simulate
from psana_dask.simulate import PV, Algorithm, Config, Detector, Epics, Field, Missing, RunSpec, Scene

EVENTS = 60
CODES = {40: 1, 90: 2, 91: 3, 162: 6}
FAST = 0.1  # ps per pixel of the time tool's camera
CALIBRATION = (-12.0, FAST)
WIDTH = 240

CRYSTALS = Scene(rings=(24.0, 41.0, 58.0), peaks=6, ring_level=1.0, read_noise=2.0)
SPARSE = Scene(rings=(), peaks=0, background=0.02, stop_radius=0.0, read_noise=0.5)


def edge_of(event):
    """Where the X-rays draw the edge, pixels of the camera."""
    return 120 + 45 * np.sin(1.7 * event)


def stage(event):
    """Nominal delay, seconds."""
    return 1e-12 * (event // 20 - 1)


def edge_picture(moment):
    """A camera image of the laser; in events with X-rays it is dimmer left of the edge."""
    random = np.random.default_rng(moment.event)
    x = np.arange(WIDTH)
    drop = 0.0 if 162 in moment.codes else 0.2 / (1 + np.exp((x - edge_of(moment.event)) / 3))
    laser = 800 * np.exp(-(((x - 120) / 90) ** 2)) + 200
    rows = np.where((np.arange(24) > 7) & (np.arange(24) < 16), 1.0, 0.0)[:, None]
    return (random.normal(0, 3, (24, WIDTH)) + 100 + rows * laser * (1 - drop)).astype("u2")


def pulses_of(event):
    """(sample of the half height, height in ADC counts) of each pulse of the digitisers."""
    return [(60.25 + event % 7, 900.0), (151.5 - event % 5, 400.0)]


def pulses(event, size=256):
    """A waveform: straight slopes of eight samples up and down, on a baseline of 100."""
    x = np.arange(size)
    wave = np.full(size, 100.0)
    for half, height in pulses_of(event):
        wave += height * np.clip(1 - np.abs(x - half - 4) / 8, 0, None)
    return wave


# ---- streams of a high-speed digitiser -----------------------------------------------------------
def stream(kind, samples, top_bits=0):
    header = np.array([len(samples) | top_bits << 29, kind << 24, 0, 0], "<u4")
    return header.tobytes() + np.asarray(samples, "<u2").tobytes()


def gap(count):
    """Return the group that stands for samples that were left out; four words of 15 bits."""
    words = [min(count, 0x7FFF), 0, 0, 0]
    words[1] = count - words[0]
    return [word | 0x8000 for word in words]


def encoded(waveform, threshold):
    """Encode as the digitiser does: groups of four with a sample above threshold are kept."""
    words, skipped = [], 0
    for group in np.reshape(waveform, (-1, 4)):
        if (group > threshold).any():
            words += ([*gap(skipped)] if skipped else []) + group.tolist()
            skipped = 0
        else:
            skipped += 4
    return words + (gap(skipped) if skipped else [])


@pytest.fixture(scope="session")
def encoding():
    """How a high-speed digitiser writes streams of samples and of peaks."""
    return SimpleNamespace(stream=stream, encoded=encoded)


def hsd_bytes(moment):
    """The raw and the peaks stream; every seventh event is empty."""
    if moment.event % 7 == 6:
        return np.zeros(0, np.uint8)
    wave = np.rint(pulses(moment.event)).astype(int)
    return np.frombuffer(stream(0, wave) + stream(1, encoded(wave, 150)), np.uint8)


# ---- the runs ------------------------------------------------------------------------------------
def camera_field(name, shape, value, dtype="u2"):
    return (Algorithm("raw", (2, 0, 0), (Field(name, dtype, shape, value),)),)


def bytes_of(waves):
    """The samples of all channels of a Generic1D digitiser, as it stores them."""
    return np.concatenate([np.ascontiguousarray(w).view("u1") for w in waves])


def generic(moment):
    return bytes_of([pulses(moment.event).astype("<u2"), pulses(moment.event, 128).astype("<f4")])


def adc(moment):
    """Acqiris: four channels of counts; channel k is 5 (k + 1) times the pulses."""
    waves = np.stack([(k + 1) * 5 * (pulses(moment.event) - 100) for k in range(4)])
    return waves[:, None].astype("i2")


def energy(moment):
    return 9480.0 + moment.event % 5


COMMON = (
    Detector(name="jungfrau", kind="jungfrau", segments=4, shape=(1, 64, 96), scene=CRYSTALS),
    Detector(name="sparse", kind="camera", shape=(64, 80), scene=SPARSE),
)
DETECTORS = {
    "xtc2": (
        Detector(name="timing", kind="timing"),
        Detector(name="gmd", kind="gmd"),
        *COMMON,
        Detector(name="opal", kind="camera", shape=(24, WIDTH),
                 algorithms=camera_field("image", (24, WIDTH), edge_picture)),
        Detector(name="ebeam", kind="gmd", det_type="ebeam",
                 algorithms=camera_field("photon_energy", (), energy, "f8")),
        Detector(name="hsd", kind="hsd", segments=2,
                 algorithms=camera_field("chan00", (None,), hsd_bytes, "u1")),
        Detector(name="wave8", kind="waveform", algorithms=(Algorithm("raw", (0, 0, 1), tuple(
            Field(f"raw_{k}", "u2", (256,), lambda m, k=k: ((k + 1) * pulses(m.event)).astype("u2"))
            for k in range(8)
        )),)),
    ),
    "xtc": (
        Detector(name="evr0", kind="timing"),
        *COMMON,
        Detector(name="opal", kind="camera", shape=(24, WIDTH),
                 algorithms=camera_field("raw", (24, WIDTH), edge_picture)),
        Detector(name="ebeam", kind="ebeam"),
        Detector(name="acqiris", kind="waveform", shape=(4, 1, 256), algorithms=(Algorithm(fields=(
            Field("raw", "i2", (4, 1, 256), adc),
            Field("position", "f8", (4, 1), lambda m: np.full((4, 1), -2e-9)),
        )),)),
        Detector(name="imp", kind="imp", shape=(4, 64)),
        Detector(
            name="wave8", kind="record", record=(100, 0), source="XppEndstation.0:Wave8.0",
            algorithms=(Algorithm(fields=(
                Field("data_size", "u4", (), 1024), Field("sample_bytes", "u1", (1024,), generic),
            )),),
            config=Config(record=(99, 0), values={
                "n_channels": 2, "length": np.array([256, 128], "u4"), "sample_type": np.array([1, 3], "u4"),
                "offset": np.array([10, 0], "i4"), "period": np.array([8e-9, 1.6e-8]),
            }),
        ),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class BeamTime:
    """A run, and what is true of it."""

    run: psana_dask.Run
    truth: simulate.Truth

    @property
    def dropped(self):
        return np.arange(EVENTS) % CODES[162] == 0


@pytest.fixture(scope="session", params=["xtc2", "xtc"])
def beamtime(request, tmp_path_factory):
    spec = RunSpec(
        format=request.param, events=EVENTS, detectors=DETECTORS[request.param], event_codes=CODES,
        epics=(Epics(pvs=(PV("las_delay", lambda m: stage(m.event), address="LAS:DELAY"),)),), slow_every=1,
        missing=(Missing(events=(9,), detector="jungfrau"),),
    )  # fmt: skip
    truth = simulate.write(spec, tmp_path_factory.mktemp(f"beamtime_{request.param}"))
    return BeamTime(psana_dask.open(truth.folder, calib=truth.calib), truth)

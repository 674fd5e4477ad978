"""A run of 300 events with bins, gaps and all kinds of values, and its values as plain arrays."""

import numpy as np
import pytest

import psana_dask
from psana_dask import simulate
from psana_dask.simulate import Algorithm, Detector, Field, Missing, RunSpec, Scan

EVENTS = 300
SHAPE = (8, 12)


def wild(moment):
    """Floats of very different sizes, some NaN: sums depend on the order of the additions."""
    r = np.random.default_rng(1000 + moment.event)
    values = r.normal(size=(5, 7)) * 10.0 ** r.integers(-8, 8, (5, 7))
    values[r.random((5, 7)) < 0.1] = np.nan
    return values


FLOATS = Algorithm("raw", (1, 0, 0), (Field("raw", "f8", (5, 7), wild), Field("x", "f8"), Field("n", "i4")))
SPEC = RunSpec(
    events=EVENTS,
    steps=3,
    scan=Scan(motors={"delay": np.array([-1.0, 0.0, 1.0])}),
    detectors=(
        Detector(name="timing", kind="timing"),
        Detector(name="gmd", kind="gmd"),
        Detector(name="cam", kind="camera", segments=2, stream=(0, 1), shape=SHAPE),
        Detector(name="jf", kind="jungfrau", segments=2, shape=(1, *SHAPE)),
        Detector(name="wild", algorithms=(FLOATS,), det_type="wild"),
        Detector(name="hsd", kind="hsd"),
    ),
    missing=(
        Missing(events=(18, 19, 120), detector="cam"),
        Missing(events=tuple(range(40, 60)), detector="cam", segment=1),
        Missing(events=(7,), stream=1),
    ),
)


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    return simulate.write(SPEC, tmp_path_factory.mktemp("reductions"))


@pytest.fixture(scope="session")
def constants():
    r = np.random.default_rng(1)
    shape = (3, 2, *SHAPE)
    return {
        "pedestals": r.normal((2900, 13500, 13800), 100, (2, *SHAPE, 3)).transpose(3, 0, 1, 2).astype("f4"),
        "pixel_gain": r.uniform(5, 40, shape).astype("f4"),
        "pixel_status": (r.random(shape) < 0.02).astype("u8"),
    }


@pytest.fixture(scope="session")
def run(written, constants):
    return psana_dask.open(written.folder, calib=constants)


@pytest.fixture(scope="session")
def values(run):
    """Values of each array as float64 (event, ...), NaN where they are missing."""

    def of(name, **choices):
        detector, _, field = name.partition(".")
        det = run[detector]
        if field in ("calib", "image"):
            array = det.calibrated(**choices) if field == "calib" else det.image
            return array.values.astype("f8")
        return det.field(field).psana.masked().values.astype("f8")

    return of

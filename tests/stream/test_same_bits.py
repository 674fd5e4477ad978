"""One function of the user on a closed run, a live file, shared memory, ZMQ and a replay: the same bits.

The constants are given, so frames are calibrated and assembled everywhere; each source but the closed run
and the replay is another process.  Variables, dims, attrs and dtypes are compared too.
"""

import contextlib
import socket
import subprocess
import sys
import uuid
import warnings
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

import psana_dask
from psana_dask import simulate
from psana_dask.errors import StreamWarning
from psana_dask.simulate.runs import DEMO_DETECTORS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="POSIX message queues are Linux only")

EVENTS = 24
FRAMES = {"xtc2": ("epixquad",), "xtc": ("epix100a", "cspad")}
SCALARS = {"xtc2": "gmd.milliJoulesPerPulse", "xtc": "gas_detector.f_11_ENRC"}
KEPT = {
    "xtc2": ("timing", "gmd", "epixquad"),
    "xtc": ("evr0", "gas_detector", "epix100a", "cspad"),
}
SHAPES = {"epixquad": (32, 48), "epix100a": (44, 48)}
SOURCES = ("replay", "live", "shmem", "zmq")


def spec(form):
    """Frames in two streams, a scan of four steps, two parts, an event without a panel."""
    detectors = (d for d in DEMO_DETECTORS[form] if d.name in KEPT[form])
    cut = tuple(replace(d, shape=SHAPES[d.name]) if d.name in SHAPES else d for d in detectors)
    return simulate.demo_spec(EVENTS, format=form, detectors=cut)


def names(form):
    """What the function gets: frames as they are, calibrated and assembled, and a number of the beam."""
    return [*(f"{FRAMES[form][0]}.{f}" for f in ("raw", "calib", "image")), SCALARS[form]]


def figures(ds):
    """Sums, maxima and centres of mass of each event, the pictures themselves, the root of a number."""
    found = {}
    for name, array in ds.data_vars.items():
        dims = [d for d in array.dims if d != "time"]
        if name.endswith("_image"):
            found[name] = array
            for dim in dims:
                at = xr.DataArray(np.arange(array.sizes[dim], dtype=np.float32), dims=dim)
                found[f"{name}_{dim}"] = (array * at).sum(dims) / array.sum(dims)
        elif dims:
            found[f"{name}_sum"], found[f"{name}_max"] = array.sum(dims), array.max(dims)
        else:
            found[name] = np.sqrt(array)
    return xr.Dataset(found, attrs=ds.attrs)


@pytest.fixture(scope="module", params=["xtc2", "xtc"])
def truth(request, tmp_path_factory):
    return simulate.write(spec(request.param), tmp_path_factory.mktemp("same") / "run")


@pytest.fixture(scope="module")
def closed(truth):
    return psana_dask.open(truth.folder, calib=truth.calib)


WRITER = """
import sys, time
sys.path.insert(0, sys.argv[1])
from test_same_bits import spec
from psana_dask.simulate import grow
from dataclasses import replace
for entry in grow(replace(spec(sys.argv[2]), renames=True), sys.argv[3]):
    time.sleep(0.005)
"""


def free_url():
    """A port of which the next one is free as well."""
    while True:
        with socket.socket() as one, socket.socket() as two, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", 0))
            two.bind(("127.0.0.1", one.getsockname()[1] + 1))
            return f"tcp://127.0.0.1:{one.getsockname()[1]}"


@contextlib.contextmanager
def served(source, truth, folder):
    """Yield the name of a source of the run's events; its process is stopped at the end."""
    tag, url = f"test_{uuid.uuid4().hex[:12]}", free_url()
    serve, run = [sys.executable, "-m", "psana_dask", "serve"], str(truth.folder)
    name, command = {
        "replay": (f"replay://{run}?rate=400", None),
        "live": (f"live:{folder}", [sys.executable, "-c", WRITER, __file__.rpartition("/")[0],
                                    truth.spec.format, str(folder)]),
        "shmem": (f"shmem://{tag}", [*serve, "--shmem", tag, run, "--wait-clients", "1"]),
        "zmq": (url, [*serve, "--zmq", url, run]),
    }[source]  # fmt: skip
    if command is None:
        yield name
        return
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            yield name
        finally:
            process.kill()


@contextlib.contextmanager
def opened(source, truth, folder):
    with (
        served(source, truth, folder) as name,
        psana_dask.open_stream(
            name, calib=truth.calib, timeout=30, experiment=truth.spec.experiment
        ) as stream,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", StreamWarning)  # shared memory has no end: it is given up
        yield stream


def joined(parts):
    return xr.concat(parts, "time", join="exact", combine_attrs="identical")


@pytest.mark.parametrize("source", SOURCES)
def test_one_function_of_the_user(closed, truth, tmp_path, source):
    form = truth.spec.format
    want = closed.map(figures, names(form)).compute()
    assert want.sizes["time"] >= EVENTS - 1
    assert all(np.isfinite(want[v]).any() for v in want.data_vars)
    with opened(source, truth, tmp_path / "live") as stream:
        got = joined(list(stream.map(figures, names(form), batch=5, timeout=patience(source))))
        assert stream.counters.processed == EVENTS
    xr.testing.assert_identical(got, want)
    assert {k: v.dtype for k, v in got.variables.items()} == {k: v.dtype for k, v in want.variables.items()}


@pytest.mark.parametrize("source", SOURCES[1:])
def test_means_of_frames(closed, truth, tmp_path, source):
    """Of all detectors, also of one that only every eighth event has."""
    what = ["mean", "std", "sum", "count"]
    wanted = [f"{d}.{f}" for d in FRAMES[truth.spec.format] for f in ("calib", "image")]
    with opened(source, truth, tmp_path / "live") as stream:
        *_, got = stream.reduce(what, wanted, batch=5, timeout=patience(source), every=60)
    xr.testing.assert_identical(got, closed.reduce(what, wanted))


def patience(source):
    return 1.5 if source == "shmem" else 20

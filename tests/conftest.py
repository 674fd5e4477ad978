"""Runs that many tests read: written once per session, in a cache folder of the session's own."""

import contextlib
import ctypes
import fcntl
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import hypothesis
import numpy as np
import pytest

from psana_dask import simulate
from psana_dask.options import current
from psana_dask.simulate import PV, Damage, Detector, Enum, Epics, Missing, RunSpec, Scan

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as under nohup: commands that tests start inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

hypothesis.settings.register_profile("suite", deadline=None)  # the first example may compile kernels
hypothesis.settings.load_profile("suite")


def _keep_memory():
    """Let malloc keep what is freed for what comes next: fresh memory is dear on virtual machines."""
    trim_threshold, mmap_threshold = -1, -3  # of malloc.h
    with contextlib.suppress(AttributeError, OSError):  # not glibc
        libc = ctypes.CDLL(None)
        libc.mallopt(trim_threshold, 2**30)
        libc.mallopt(mmap_threshold, 2**30)


_keep_memory()


def _session_cache():
    """Make an empty cache folder; only compiled kernels are shared with other sessions."""
    kept = current().cache_folder() / "kernels"
    folder = Path(tempfile.mkdtemp(prefix="psana_dask_tests_"))
    try:
        kept.mkdir(parents=True, exist_ok=True)
        (folder / "kernels").symlink_to(kept.resolve())
    except OSError:
        pass  # the kernels are compiled in this session, then
    os.environ["PSANA_DASK_CACHE"] = str(folder)
    return folder


_CACHE = _session_cache()


def pytest_unconfigure():
    shutil.rmtree(_CACHE, ignore_errors=True)


@pytest.fixture(autouse=True)
def _no_figures_left():
    """Close the figures of a test: where pyplot is loaded they are pyplot's, which warns at the 21st."""
    yield
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")


VALVE = Enum("valveEnum", {"CLOSED": 0, "OPEN": 1})

RICH = RunSpec(
    experiment="tstx00117",
    number=7,
    events=40,
    steps=4,
    detectors=(
        Detector(name="timing", kind="timing"),
        Detector(name="gmd", kind="gmd"),
        Detector(name="types", kind="alltypes"),
        Detector(name="epix", kind="epix10ka", segments=(2, 3, 7), stream=(1, 2, 1), shape=(8, 12)),
        Detector(name="jf", kind="jungfrau", segments=2, stream=2, shape=(2, 6, 10)),
        Detector(name="tt", kind="timetool", stream=3, every=5, offset=2, shape=(6, 10)),
        Detector(name="hsd", kind="hsd", segments=2, stream=3),
        Detector(name="wave", kind="waveform", stream=3, shape=(50,)),
    ),
    epics=(
        Epics(
            pvs=(
                PV("temperature", lambda m: 295 + m.event, address="TST:TEMP"),
                PV("valve", lambda m: m.event % 2, "enum", VALVE, "TST:VALVE"),
                PV("note", lambda m: f"update {m.event}", "str", address="TST:NOTE"),
            )
        ),
    ),
    slow_every=7,
    slow_offset=3,
    scan=Scan(motors={"delay": np.array([-1.0, 0.0, 1.0, 2.0])}),
    missing=(
        Missing(events=(3, 4), stream=1),
        Missing(events=(6,), detector="epix"),
        Missing(events=(8, 9), detector="epix", segment=7),
    ),
    damage=(Damage(events=(5,), detector="epix"), Damage(events=(9,), detector="jf", segment=1, word=0x11)),
    cuts={1: (10, 25), 2: (11,)},
)


@pytest.fixture(scope="session")
def rich(tmp_path_factory):
    """Truth of a run with everything: segments, parts, mixed rates, gaps, damage, slow data."""
    return simulate.write(RICH, tmp_path_factory.mktemp("rich"))


@pytest.fixture(scope="session")
def rich_run(rich):
    import psana_dask

    return psana_dask.open(rich.folder)


@pytest.fixture(scope="session")
def plain(tmp_path_factory):
    """Truth of a run of 100 events with two panels of 8 x 12 in every event, and one scalar."""
    detectors = (
        Detector(name="cam", kind="camera", segments=2, shape=(8, 12)),
        Detector(name="gmd", kind="gmd", stream=1),
    )
    return simulate.write(RunSpec(events=100, detectors=detectors), tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="session")
def plain_run(plain):
    import psana_dask

    return psana_dask.open(plain.folder)


@pytest.fixture(scope="session")
def expected():
    """Return the values of a field in time order, as the package arranges them.

    (event[, panel], ...): missing pieces are NaN, 0 or ''; one segment has no panel dimension.
    """
    return _expected


def _expected(truth, detector, field, *, damaged=False):
    segments = truth.segments(detector)
    present = truth.present(detector, damaged=damaged)
    example = truth.value(detector, field, int(np.argmax(present[:, 0])), segments[0])
    pieces = []
    for event in truth.order:
        for k, segment in enumerate(segments):
            there = present[event, k]
            pieces.append(truth.value(detector, field, event, segment) if there else _nothing(example))
    stacked = np.array(pieces).reshape(len(truth.order), len(segments), *np.shape(example))
    if stacked.ndim == 5:  # several panels per segment
        stacked = stacked.reshape(len(truth.order), -1, *stacked.shape[3:])
    return stacked if stacked.shape[1] > 1 else stacked[:, 0]


def _nothing(example):
    if isinstance(example, str):
        return ""
    dtype = np.asarray(example).dtype
    return np.full(np.shape(example), np.nan if dtype.kind == "f" else 0, dtype)


_ELSEWHERE = """
import pickle, sys
code, value = pickle.load(sys.stdin.buffer)
result = eval(code, {"x": value})
sys.stdout.buffer.write(pickle.dumps(result))
"""


@pytest.fixture(scope="session")
def elsewhere():
    """Evaluate an expression of ``x`` in a process that knows nothing but the pickled value."""

    def evaluate(value, code):
        sent = pickle.dumps((code, value))
        done = subprocess.run(
            [sys.executable, "-c", _ELSEWHERE], input=sent, stdout=subprocess.PIPE, check=True
        )
        return pickle.loads(done.stdout)

    return evaluate


@pytest.fixture(scope="session")
def run_notebook(tmp_path_factory, request):
    """Return a function that runs a notebook of ``notebooks/`` and gives it back with its outputs.

    A notebook is run once for all tests of a session, in whatever process they are, but for
    ``run_notebook(name, again=True)``.
    """
    base = tmp_path_factory.getbasetemp()
    folder = base.parent if hasattr(request.config, "workerinput") else base

    def run(name, again=False):
        kept = folder / f"{name}.ipynb"
        with kept.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if again or not kept.exists():
                kept.write_text(_executed(name))
        return _without_bars(json.loads(kept.read_text()))

    return run


_EXECUTE = """
import nbclient, nbformat, sys
print(nbformat.writes(nbclient.execute(nbformat.read(sys.argv[1], 4))))
"""
# as nbconvert does it, which takes a second longer to begin


def _executed(name):
    source = Path(__file__).parents[1] / "notebooks" / f"{name}.ipynb"
    with tempfile.TemporaryDirectory() as folder:
        # in a process of its own: nbclient wants the loop of the main thread, which a browser may hold
        shutil.copy(source, folder)
        command = [sys.executable, "-c", _EXECUTE, source.name]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, f"{name}: {done.stderr[-4000:]}"
    if os.environ.get("CI_ARTEFACTS"):
        kept = Path(os.environ["CI_ARTEFACTS"]) / "notebooks"
        kept.mkdir(parents=True, exist_ok=True)
        (kept / source.name).write_text(done.stdout)
    return done.stdout


def _without_bars(notebook):
    """Leave out progress bars: they show themselves where something takes a second, on a busy machine."""
    for cell in notebook["cells"]:
        if "outputs" in cell:
            cell["outputs"] = [o for o in cell["outputs"] if "<progress" not in json.dumps(o)]
    return notebook

"""The tasks of docs/tasks.md: the code of the table is run here on simulated data, with an assertion each."""

import functools
import json
import pkgutil
import re
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

import psana_dask
from psana_dask import algorithms, analysis, simulate
from psana_dask.simulate import PV, Detector, Epics, RunSpec, Scan

DOCS = Path(__file__).parents[1] / "docs"
EVENTS = 48
CODES = {40: 1, 140: 1, 90: 3, 162: 12}  # code: every so many events

GEOMETRY = """# DETECTOR own
IP         0    CAMERA              0        0      0   100000   0  0  0   0  0  0
CAMERA     0    MTRX:64:128:75:75   0    -5000      0        0   0  0  0   0  0  0
CAMERA     0    MTRX:64:128:75:75   1     5000      0        0   0  0  0   0  0  0
"""


def spec(number):
    detectors = (
        Detector(name="evr0", kind="timing"),
        Detector(name="ebeam", kind="ebeam"),
        Detector(name="gas", kind="gas_detector"),
        Detector(name="ipm", kind="ipm"),
        Detector(name="jungfrau", kind="jungfrau", shape=(2, 64, 128)),
        Detector(name="opal", kind="camera", shape=(24, 32)),
        Detector(name="xtcav", kind="camera", shape=(24, 32)),
        Detector(name="tt", kind="timetool"),
        Detector(name="acq", kind="waveform", shape=(2, 1, 200)),
        Detector(name="andor", kind="andor", shape=(16, 16), every=8, offset=7),
    )
    return RunSpec(
        format="xtc", experiment="xpptut15", number=number, events=EVENTS, rate=120.0, steps=4,
        event_codes=CODES, detectors=detectors, scan=Scan(motors={"delay": np.linspace(-0.9, 0.9, 4)}),
        epics=(Epics(pvs=(PV("temp", lambda m: 295.0 + m.event, address="XPP:TEMP", unit="K"),)),),
    )  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Where experiments are: two runs, and constants beside them."""
    root = tmp_path_factory.mktemp("data")
    folder = root / "xpp" / "xpptut15"
    simulate.write(spec(55), folder / "xtc")
    truth = simulate.write(spec(54), folder / "xtc")
    pedestals = np.broadcast_to(truth.picture("jungfrau").pedestals.reshape(2, 64, 128), (3, 2, 64, 128))
    constants = {
        "pedestals": pedestals,
        "pixel_gain": np.ones((3, 2, 64, 128), np.float32),
        "geometry": GEOMETRY,
    }
    psana_dask.calib.deploy(constants, folder / "calib", "MfxEndstation.0:Jungfrau.0", runs=1)
    dark = {"pedestals": truth.picture("opal").pedestals.reshape(24, 32)}
    psana_dask.calib.deploy(dark, folder / "calib", "XppEndstation.0:Opal1000.0", runs=1)
    with psana_dask.set_options(data_root=root):
        yield folder, truth


# ---- what some tasks need beside a run -----------------------------------------------------------
@pytest.fixture(scope="module")
def address(data):
    """Where `psana-dask serve` sends the run, on a port of its own, again and again."""
    import socket

    while True:
        with socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            try:
                two.bind(("127.0.0.1", port + 1))
                break
            except OSError:
                continue
    url = f"tcp://127.0.0.1:{port}"
    command = [sys.executable, "-m", "psana_dask", "serve", "--zmq", url, "--loop", "--rate", "200"]
    process = subprocess.Popen([*command, str(data[0] / "xtc" / "*r0054*.xtc")], stdout=subprocess.DEVNULL)
    yield url
    process.kill()
    process.wait()


@pytest.fixture
def archive(monkeypatch, data):
    """An archiver with one variable, 20.5 at the start of the run."""
    start = int(psana_dask.open("exp=xpptut15:run=54").start.astype("M8[s]").astype(int))
    samples = [{"secs": start - 5, "nanos": 0, "val": 20.5, "severity": 0, "status": 0}]
    answer = json.dumps([{"meta": {"name": "XPP:ROOM:TEMP", "PREC": "3"}, "data": samples}]).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("PSANA_DASK_ARCHIVER", f"http://127.0.0.1:{server.server_port}")
    yield
    server.shutdown()
    server.server_close()


# ---- what must come out ---------------------------------------------------------------------------
def frames(name):
    """The calibrated frames, from what was written."""
    truth = name["truth"]
    raw = np.stack([truth.value("jungfrau", "raw", event) for event in truth.order])
    return raw.astype(np.float32) - truth.picture("jungfrau").pedestals.reshape(2, 64, 128)


def written(name, detector, field):
    truth = name["truth"]
    return np.array([truth.value(detector, field, event) for event in truth.order])


CHECKS = {
    1: lambda n: (n["run"].experiment, n["run"].number, len(n["run"])) == ("xpptut15", 54, EVENTS),
    2: lambda n: n["both"].sizes["time"] == 2 * EVENTS and set(n["both"].run.values.tolist()) == {54, 55},
    3: lambda n: np.allclose(n["sums"], frames(n).sum(axis=(1, 2, 3)), rtol=1e-4),  # float32 sums
    4: lambda n: any("TEMP" in found for found in n["last"]) and "jungfrau" in n["run"].detectors,
    5: lambda n: float(n["last"].ebeam_photon_energy) == written(n, "ebeam", "photon_energy")[3],
    6: lambda n: np.array_equal(n["last"][1].values, frames(n)) and n["last"][2].dims == ("time", "y", "x"),
    7: lambda n: n["last"].shape == frames(n).shape and n["last"].attrs["calibrated"],
    8: lambda n: n["last"].values[:, 0].max() == 0 and n["last"].values[:, 1:31, 1:63].min() == 1,
    9: lambda n: n["last"].values.sum() == 2 * 64 * 128,
    10: lambda n: np.array_equal(n["last"].values, np.ones((2, 64, 128), np.uint8)),
    11: lambda n: np.allclose(n["last"].values, frames(n).std(axis=0, dtype=float)),
    12: lambda n: (
        np.allclose(n["last"].total.values, frames(n).sum(axis=(1, 2, 3)), rtol=1e-4)
        and Path("small.h5").stat().st_size > 0
    ),
    13: lambda n: len(n["bright"]) == np.count_nonzero(written(n, "ebeam", "photon_energy") > 9500) > 0,
    14: lambda n: np.allclose(n["last"].values, written(n, "gas", "f_11_enrc").reshape(4, -1).mean(axis=1)),
    15: lambda n: len(n["shots"]) == EVENTS - 4,
    16: lambda n: np.array_equal(n["last"].values, written(n, "ebeam", "photon_energy")),
    17: lambda n: np.array_equal(n["last"].values, written(n, "gas", "f_11_enrc")),
    18: lambda n: np.array_equal(n["last"][0].values, written(n, "ipm", "ipm_fex_data_sum")),
    19: lambda n: np.array_equal(n["last"].position.values, written(n, "tt", "position_pixel")),
    20: lambda n: (
        np.all(np.diff(n["last"]["XPP:TEMP"].values) >= 0)
        and n["run"].epics["XPP:TEMP"].attrs["units"] == "K"
    ),
    21: lambda n: n["waves"].waveform.shape == (EVENTS, 2, 200) and n["last"]["count"].shape == (EVENTS, 2),
    22: lambda n: (
        abs(n["last"].time.values - np.datetime64("2024-06-14T06:12:03.2")) < np.timedelta64(5, "ms")
    ),
    23: lambda n: n["last"].events.timestamp.values.tolist() == n["kept"].tolist(),
    24: lambda n: sum(n["batches"]) == EVENTS,
    25: lambda n: n["image"].dims == ("y", "x") and n["stream"].close() is None,
    26: lambda n: shows_something(n["live"]),
    27: lambda n: np.array_equal(psana_dask.open("run54.h5").jungfrau.calib.values, frames(n)),
    28: lambda n: n["last"].bias_voltage == 200,
    29: lambda n: np.allclose(
        psana_dask.calib.LocalStore("own/calib")
        .find("XppEndstation.0:Opal1000.0", "pedestals", 54)
        .found()
        .value,
        np.asarray(n["dark"].constants()["pedestals"].value),
    ),
    30: lambda n: (
        n["x"].shape == (2, 64, 128)
        and np.allclose(psana_dask.geometry.coordinates(psana_dask.geometry.load("own.data")).x, n["x"])
    ),
    31: lambda n: np.array_equal(n["last"].values == 0, (frames(n) == 0) | (n["good"].values == 0)),
    32: lambda n: n["peaks"]["count"].shape == (EVENTS,) and "intensity" in n["peaks"],
    33: lambda n: len(n["hits"]) == np.count_nonzero((frames(n) > 20).sum(axis=(1, 2, 3)) > 5),
    34: lambda n: n["last"].dims == ("q",) and np.isfinite(n["last"].values).any(),
    35: lambda n: n["photons"].dtype == np.uint16 and int(n["photons"].sum()) > 0,
    36: lambda n: np.allclose(n["last"][0].values, frames(n)[:, 1, 10:20, 30:40].sum(axis=(1, 2)), rtol=1e-5),
    37: lambda n: int(n["cube"].jungfrau_image_count.max()) == EVENTS // 4,
    38: lambda n: n["difference"].dims == ("y", "x") and np.isfinite(n["difference"].values).any(),
    39: lambda n: n["last"].sizes["time"] == np.count_nonzero(written(n, "gas", "f_11_enrc") > 0.9) > 0,
    40: lambda n: np.isclose(
        n["last"], np.corrcoef(written(n, "gas", "f_11_enrc"), written(n, "ebeam", "photon_energy"))[0, 1]
    ),
    41: lambda n: np.allclose(n["last"].values, written(n, "gas", "f_11_enrc").reshape(6, 8).mean(axis=1)),
    42: lambda n: n["profile"].dims == ("time", "col") and abs(float(n["profile"].mean())) < 1e4,
    43: lambda n: n["last"].dims == ("scalar",),
    44: lambda n: np.all(n["last"]["XPP:ROOM:TEMP"].values == 20.5),
}


def shows_something(live):
    """Whether a live plot gets events, within a while."""
    until = time.monotonic() + 30
    while live.error is None and not live.counters.processed and time.monotonic() < until:
        time.sleep(0.05)
    seen, error = live.counters.processed, live.error
    live.close()
    return seen > 0 and error is None


def rows():
    """The rows of the table: number to (code snippets, call that is linked)."""
    lines = (DOCS / "tasks.md").read_text().splitlines()
    table = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in lines if re.match(r"\| \d", line)
    ]
    return {
        int(cells[0]): (cells[4].split("<br>"), re.fullmatch(r"\[(.+)\]\(api\.md#\1\)", cells[5])[1])
        for cells in table
    }


ROWS = rows()
API = (DOCS / "api.md").read_text()


def reference(call):
    """Return the name that the site's links use, as `docs/conf.py` has it."""
    text = (DOCS / "conf.py").read_text()
    names = {"re": re, "Any": None}
    exec(text[text.index("CLASSES = {") : text.index("def _link_to_docstrings")], names)
    return names["_reference"](call)


def test_there_are_44_tasks():
    assert list(ROWS) == list(range(1, 45)) == sorted(CHECKS)


@pytest.mark.parametrize("number", ROWS)
def test_each_row_links_to_the_call(number):
    """To the row that has it, and on the site to its docstring (`docs/conf.py`; the build checks that)."""
    call = ROWS[number][1]
    (row,) = [line for line in API.splitlines() if f'<a id="{call}"></a>' in line]
    assert call.rpartition(".")[2] in row
    found = pkgutil.resolve_name(reference(call))
    assert callable(found) or isinstance(found, property | functools.cached_property)


@pytest.mark.parametrize("number", [n for n in ROWS if n not in (25, 26, 44)])
def test_task(number, data, tmp_path, monkeypatch):
    check(number, data, tmp_path, monkeypatch)


def test_task_44(archive, data, tmp_path, monkeypatch):
    check(44, data, tmp_path, monkeypatch)


@pytest.mark.parametrize("number", [25, 26])
def test_task_of_live_data(number, address, data, tmp_path, monkeypatch):
    pytest.importorskip("zmq")
    check(number, data, tmp_path, monkeypatch, address=address)


def check(number, data, tmp_path, monkeypatch, **more):
    """Run the code of a row in an empty folder, and check what comes out."""
    monkeypatch.chdir(tmp_path)
    names = {"psana_dask": psana_dask, "np": np, "algorithms": algorithms, "analysis": analysis, **more}
    names |= {
        "run": psana_dask.open("exp=xpptut15:run=54"),
        "edges": np.linspace(-1, 1, 9),
        "truth": data[1],
        "folder": data[0] / "calib",
    }
    for snippet in ROWS[number][0]:
        code = re.fullmatch(r"`(.+)`", snippet)[1]
        try:
            names["last"] = eval(compile(code, f"task {number}", "eval"), names)
        except SyntaxError:
            exec(compile(code, f"task {number}", "exec"), names)
    assert CHECKS[number](names), (number, names.get("last"))

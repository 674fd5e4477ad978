"""The client of the EPICS archiver, against a server that speaks its protocol, well and badly."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

import psana_dask
from psana_dask import simulate
from psana_dask.archive import ArchiverLimits
from psana_dask.archive_answers import parse_json
from psana_dask.errors import ArchiverError, NameNotFound
from psana_dask.simulate import Detector, RunSpec

START = 1718345523  # 2024-06-14T06:12:03
QUICK = ArchiverLimits(timeout=0.5, total=1.0, attempts=2, pause=0.01, largest=100_000)


def series(name, values, first=START - 5, **meta):
    data = [
        {"secs": first + k, "nanos": 250, "val": v, "severity": k % 2, "status": 3}
        for k, v in enumerate(values)
    ]
    return [{"meta": {"name": name, "PREC": "3", **meta}, "data": data}]


class Server:
    """An archiver: answers by name of variable, each bytes or a function of the handler."""

    def __init__(self):
        self.answers, self.asked = {}, []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                query = {k: v[0] for k, v in parse_qs(urlsplit(self.path).query).items()}
                outer.asked.append(query)
                answer = outer.answers.get(query.get("pv"), b"[]")
                if callable(answer):
                    return answer(self)
                assert urlsplit(self.path).path == "/retrieval/data/getData.json"
                return send(self, answer)

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error):
        self.server.shutdown()
        self.server.server_close()

    def says(self, name, values, **meta):
        self.answers[name] = json.dumps(series(name, values, **meta)).encode()


def send(handler, body, code=200, **headers):
    handler.send_response(code)
    for name, value in ({"Content-Length": str(len(body))} | headers).items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


@pytest.fixture
def server():
    with Server() as running:
        yield running


@pytest.fixture
def archiver(server):
    return psana_dask.archiver(server.url, limits=QUICK, cache=False)


RANGE = ("2024-06-14T06:12:03Z", "2024-06-14T06:12:04.0005")


def test_samples_with_status_severity_and_units(server, archiver):
    server.says("XPP:TEMP", [1.5, 2, "NaN", None], EGU="K")
    found = archiver.get("XPP:TEMP", *RANGE)
    assert found.name == "XPP:TEMP"
    np.testing.assert_array_equal(found.values, [1.5, 2, np.nan, np.nan])
    assert found.time.values[0] == np.datetime64("2024-06-14T06:11:58.000000250", "ns")
    assert found.severity.values.tolist() == [0, 1, 0, 1]
    assert found.status.values.tolist() == [3] * 4
    assert found.attrs == {"pv": "XPP:TEMP", "units": "K", "source": server.url}
    # what was asked lies inside of what was sent
    assert server.asked == [
        {"pv": "XPP:TEMP", "from": "2024-06-14T06:12:03.000Z", "to": "2024-06-14T06:12:04.001Z"}
    ]


@pytest.mark.parametrize(
    ("values", "kind", "shape"),
    [
        ([1, 2, 3], "i", (3,)),
        (["a", "bc"], "U", (2,)),
        ([[1, 2], [3.5]], "f", (2, 2)),
        ([], "f", (0,)),
        ([1, 2.5], "f", (2,)),
    ],
)
def test_kinds_of_values(server, archiver, values, kind, shape):
    server.says("PV", values)
    found = archiver.get("PV", *RANGE)
    assert (found.dtype.kind, found.shape) == (kind, shape)


def test_samples_are_put_in_order(server, archiver):
    answer = series("PV", [1, 2, 3])
    answer[0]["data"].reverse()
    server.answers["PV"] = json.dumps(answer).encode()
    assert archiver.get("PV", *RANGE).values.tolist() == [1, 2, 3]


def test_several_at_once_take_as_long_as_one(server, archiver):
    def slowly(handler):
        time.sleep(0.2)
        name = parse_qs(urlsplit(handler.path).query)["pv"][0]
        send(handler, json.dumps(series(name, [int(name[2:])])).encode())

    names = [f"PV{k}" for k in range(8)]
    server.answers = dict.fromkeys(names, slowly)
    began = time.monotonic()
    assert [int(s.values[0]) for s in archiver.get(names, *RANGE)] == list(range(8))
    assert time.monotonic() - began < 8 * 0.2


def test_operators_and_what_is_no_operator(server, archiver):
    server.says("mean_60(PV)", [1.0])
    assert archiver.get("PV", *RANGE, operator="mean_60").values.tolist() == [1.0]
    for wrong in ("mean_60(", "a b", "", "mean_60)&x=1"):
        with pytest.raises(ValueError, match="operator="):
            archiver.get("PV", *RANGE, operator=wrong)


def test_names_are_quoted(server, archiver):
    name = "A{B:1}&to=1970 %2F#"
    server.says(name, [1])
    archiver.get(name, *RANGE)
    assert (server.asked[0]["pv"], server.asked[0]["to"]) == (name, "2024-06-14T06:12:04.001Z")
    for wrong in ("", "x" * 300, "a\nb"):
        with pytest.raises(NameNotFound, match="no name"):
            archiver.get(wrong, *RANGE)


# ---- a bad day of the server --------------------------------------------------------------------
def test_variables_that_it_does_not_know(server, archiver):
    with pytest.raises(NameNotFound, match="does not know NO:SUCH"):
        archiver.get("NO:SUCH", *RANGE)
    server.answers["PV"] = lambda handler: send(handler, b"<html>not found</html>", 404)
    with pytest.raises(NameNotFound, match=r"does not know PV.*404"):
        archiver.get("PV", *RANGE)


def test_errors_of_the_server_are_tried_again(server, archiver):
    tries = []

    def first_fails(handler):
        tries.append(1)
        good = json.dumps(series("PV", [7])).encode()
        send(handler, b"" if len(tries) == 1 else good, 503 if len(tries) == 1 else 200)

    server.answers["PV"] = first_fails
    assert archiver.get("PV", *RANGE).values.tolist() == [7]
    server.answers["PV"] = lambda handler: send(handler, b"", 500)
    with pytest.raises(ArchiverError, match=r"no answer in 2 attempts: HTTP Error 500"):
        archiver.get("PV", *RANGE)
    server.answers["PV"] = lambda handler: send(handler, b"", 403)
    before = len(server.asked)
    with pytest.raises(ArchiverError, match="403"):
        archiver.get("PV", *RANGE)
    assert len(server.asked) == before + 1  # asking again does not help


@pytest.mark.parametrize(
    "answer",
    [
        b"", b"<html>", b"{}", b"[1]", b"[[]]", b"null", b'"x"', b"\xff\xfe",
        b'[{"meta": {}}]', b'[{"data": []}]',
        b"[" * 100_000,
        json.dumps(series("PV", [{"a": 1}])).encode(),
        json.dumps(series("PV", [1, "x"])).encode(),
        json.dumps(series("PV", [[1], 2])).encode(),
        b'[{"meta":{},"data":[{"secs":"1","val":1}]}]',
        b'[{"meta":{},"data":[{"secs":99999999999,"val":1}]}]',
        b'[{"meta":{},"data":[{"secs":1,"nanos":-1,"val":1}]}]',
        b'[{"meta":{},"data":[{"secs":1,"val":1,"severity":1e400}]}]',
        b'[{"meta":[],"data":[{"secs":1,"val":1}]}]',
        json.dumps(series("PV", [1]) * 2).encode(),
    ],
)  # fmt: skip
def test_answers_that_no_archiver_gives(answer):
    with pytest.raises(ArchiverError, match="http://x/retrieval"):
        parse_json(answer, "PV", "http://x/retrieval")


def test_cut_answers_are_not_taken_for_whole(server, archiver):
    body = json.dumps(series("PV", [1] * 100)).encode()

    def cut(handler):
        send(handler, body[:-10], **{"Content-Length": str(len(body))})
        handler.close_connection = True

    server.answers["PV"] = cut
    with pytest.raises(ArchiverError, match="no answer in 2 attempts"):
        archiver.get("PV", *RANGE)


def test_huge_answers_end_early(server, archiver):
    sent = []

    def endless(handler):
        handler.send_response(200)
        handler.end_headers()
        try:
            for _ in range(10_000):
                handler.wfile.write(b" " * 65536)
                sent.append(65536)
        except OSError:
            pass

    server.answers["PV"] = endless
    with pytest.raises(ArchiverError, match=r"larger than 100000 bytes: ask for less time"):
        archiver.get("PV", *RANGE)
    time.sleep(0.1)
    assert sum(sent) < 50e6  # of 655 MB: what lies in the buffers of the connection


def test_slow_answers_end_in_time(server, archiver):
    def drips(handler):
        handler.send_response(200)
        handler.end_headers()
        try:
            for _ in range(100):
                handler.wfile.write(b" ")
                time.sleep(0.1)
        except OSError:
            pass

    def silent(handler):
        time.sleep(3)

    server.answers = {"DRIPS": drips, "SILENT": silent}
    began = time.monotonic()
    with pytest.raises(ArchiverError, match=r"no complete answer within 1\.0 s"):
        archiver.get("DRIPS", *RANGE)
    with pytest.raises(ArchiverError, match=r"no answer in 2 attempts: (timed out|The read)"):
        archiver.get("SILENT", *RANGE)
    assert time.monotonic() - began < 5


def redirect(to):
    return lambda handler: send(handler, b"", 302, Location=to)


def test_redirects_stay_on_allowed_hosts(server, archiver):
    server.says("REAL", [4])
    path = "/retrieval/data/getData.json?pv=REAL"
    server.answers["NEAR"] = redirect(f"{server.url}{path}")
    assert archiver.get("NEAR", *RANGE).values.tolist() == [4]
    elsewhere = f"http://localhost:{server.server.server_port}{path}"  # another name is another host
    server.answers["FAR"] = redirect(elsewhere)
    before = len(server.asked)
    with pytest.raises(
        ArchiverError, match=r"redirects to http://localhost:\d+, which is not allowed: hosts="
    ):
        archiver.get("FAR", *RANGE)
    assert len(server.asked) == before + 1
    wide = psana_dask.archiver(server.url, hosts=["localhost"], limits=QUICK, cache=False)
    assert wide.get("FAR", *RANGE).values.tolist() == [4]
    for wrong in ("file:///etc/passwd", "ftp://127.0.0.1/x"):
        server.answers["WRONG"] = redirect(wrong)
        with pytest.raises(ArchiverError, match=r"not allowed|no answer"):
            archiver.get("WRONG", *RANGE)
    server.answers["ROUND"] = redirect(f"{server.url}/retrieval/data/getData.json?pv=ROUND")
    with pytest.raises(ArchiverError):
        archiver.get("ROUND", *RANGE)


def test_nobody_there():
    with pytest.raises(ArchiverError, match="no answer in 2 attempts"):
        psana_dask.archiver("http://127.0.0.1:9", limits=QUICK).get("PV", *RANGE)


def test_which_archiver(monkeypatch, server):
    monkeypatch.delenv("PSANA_DASK_ARCHIVER", raising=False)
    with pytest.raises(ArchiverError, match="set PSANA_DASK_ARCHIVER="):
        psana_dask.archiver()
    for wrong in ("file:///etc", "127.0.0.1:80", "http://"):
        with pytest.raises(ArchiverError, match="has an address such as"):
            psana_dask.archiver(wrong)
    monkeypatch.setenv("PSANA_DASK_ARCHIVER", server.url + "/retrieval/")
    assert psana_dask.archiver().url == server.url


def test_the_end_lies_behind_the_start(archiver):
    with pytest.raises(ValueError, match="the end lies before the start"):
        archiver.get("PV", *reversed(RANGE))


# ---- the cache ----------------------------------------------------------------------------------
def test_the_past_is_asked_for_once(server, tmp_path):
    server.says("PV", [1])
    with psana_dask.set_options(cache_dir=tmp_path):
        for _ in range(2):
            kept = psana_dask.archiver(server.url, limits=QUICK).get("PV", *RANGE)
        assert kept.values.tolist() == [1]
        assert len(server.asked) == 1
        now = np.datetime64(int(time.time()), "s")
        for _ in range(2):
            psana_dask.archiver(server.url, limits=QUICK).get("PV", now - np.timedelta64(60, "s"), now)
        assert len(server.asked) == 3  # what is recent may still grow
        server.answers["BAD"] = b"<html>"
        for _ in range(2):
            with pytest.raises(ArchiverError):
                psana_dask.archiver(server.url, limits=QUICK).get("BAD", *RANGE)
        assert len(server.asked) == 5  # what is no answer is not kept
    assert len(list(tmp_path.glob("archiver/*"))) == 1


# ---- runs ---------------------------------------------------------------------------------------
def test_a_run_has_its_variables_at_every_event(server, monkeypatch, tmp_path):
    spec = RunSpec(
        events=30, rate=10.0, start="2024-06-14T06:12:03", detectors=(Detector(name="g", kind="gmd"),)
    )
    simulate.write(spec, tmp_path / "run")
    run = psana_dask.open(tmp_path / "run")
    monkeypatch.setenv("PSANA_DASK_ARCHIVER", server.url)
    server.answers["A:B"] = json.dumps(series("A:B", [10, 11, 12], first=START + 1, EGU="mm")).encode()
    server.answers["W"] = json.dumps(series("W", [[1.0, 2.0]], first=START - 9)).encode()
    with psana_dask.set_options(cache_dir=tmp_path):
        variables = run.archiver
        assert variables["A:B"].values.tolist() == [10, 11, 12]
        at = variables.at(["A:B", "W"])
    assert len(server.asked) == 2
    # samples lie 250 ns behind whole seconds, events on tenths of them
    assert at["A:B"].values.tolist() == [0] * 11 + [10] * 10 + [11] * 9
    assert at["A:B_present"].values.tolist() == [False] * 11 + [True] * 19
    assert at["A:B_severity"].values.tolist() == [0] * 11 + [0] * 10 + [1] * 9
    assert at["W"].values.tolist() == [[1.0, 2.0]] * 30
    assert at["A:B"].attrs["units"] == "mm"
    np.testing.assert_array_equal(at.time.values, run.events.time.values)

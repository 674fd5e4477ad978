"""The web client against a server on the loopback that speaks the documented protocol."""

import json
import pickle
import socket
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from psana_dask.calib.store import ConstantsStore
from psana_dask.calib.webdb import (
    Limits,
    WebStore,
    chosen_document,
    decode,
    default_url,
    document_runs,
    fetch,
    parse_shape,
)
from psana_dask.errors import ConstantsError, ConstantsNotFound

QUICK = Limits(timeout=0.5, total=2, attempts=3, pause=0.01, largest=1 << 20)
PEDS = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


class Service:
    """Databases of documents and payloads; `faults` says how the next answers go wrong."""

    def __init__(self):
        self.documents, self.payloads, self.faults, self.asked = {}, {}, [], []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                service.asked.append(self.path)
                fault = service.faults.pop(0) if service.faults else None
                service.answer(self, fault)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/calib_ws"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def add(self, db, name, ctype, value, run=0, run_end="end", seconds=1, **changes):
        """Put a constant into a database, as MDBWebUtils does."""
        number = len(self.payloads) + 1
        data_id = f"{number:024x}"
        self.payloads[db, data_id] = value.encode() if isinstance(value, str) else value.tobytes()
        document = {
            "_id": f"{seconds:08x}{number:016x}", "detector": name, "ctype": ctype, "run": run,
            "run_end": run_end, "id_data": data_id, "version": "V1", "comment": "c", "time_stamp": "t",
            "data_type": "str" if isinstance(value, str) else "ndarray",
        }
        if not isinstance(value, str):
            document |= {"data_dtype": str(value.dtype), "data_shape": str(value.shape)}
        self.documents.setdefault((db, name), []).append({**document, **changes})

    def answer(self, request, fault):
        if fault is not None and fault(request):
            return
        url = urllib.parse.urlsplit(request.path)
        db, name, *rest = [*url.path.removeprefix("/calib_ws/").split("/"), ""][:3]
        if not name:
            names = [n for d, n in self.documents if d == db]
            body = json.dumps([*names, "fs.files", "fs.chunks"]).encode()
        elif name == "gridfs":
            body = self.payloads.get((db, rest[0]))
        else:
            query = json.loads(urllib.parse.parse_qs(url.query)["query_string"][0])
            found = self.documents.get((db, name), [])
            kept = [d for d in found if all(d.get(k) == v for k, v in query.items())]
            body = json.dumps(kept).encode() if (db, name) in self.documents else None
        self.send(request, 404 if body is None else 200, body or b"")

    @staticmethod
    def send(request, code, body, length=None):
        request.send_response(code)
        request.send_header("Content-Length", str(len(body) if length is None else length))
        request.end_headers()
        request.wfile.write(body)


def fails(code):
    def fault(request):
        Service.send(request, code, b"sorry")
        return True
    return fault


def truncated(request):
    Service.send(request, 200, b"[]", length=1000)
    request.wfile.flush()
    request.connection.shutdown(socket.SHUT_RDWR)
    return True


def slow(request):
    time.sleep(0.8)
    return False


def dribble(request):
    """Bytes that keep coming, slower than any patience."""
    request.send_response(200)
    request.send_header("Content-Length", "100000")
    request.end_headers()
    for _ in range(60):
        try:
            request.wfile.write(b" ")
            request.wfile.flush()
        except OSError:
            break
        time.sleep(0.05)
    return True


@pytest.fixture
def service(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    made = Service()
    made.add("cdb_tst", "det_000001", "pedestals", PEDS, run=1)
    yield made
    made.server.shutdown()
    made.server.server_close()


def store(service, **kwargs):
    return WebStore("tst", service.url, limits=kwargs.pop("limits", QUICK), **kwargs)


def test_the_constant_in_force(service):
    service.add("cdb_tst", "det_000001", "pedestals", PEDS + 1, run=10, run_end=20)
    service.add("cdb_tst", "det_000001", "pedestals", PEDS + 2, run=10, run_end=20, seconds=9)
    service.add("cdb_tst", "det_000001", "pedestals", PEDS + 3, run=7, run_end=3)
    mine = store(service)
    lookup = mine.find("det_000001", "pedestals", 15)
    constant = lookup.found()
    assert np.array_equal(constant.value, PEDS + 2)
    assert (str(constant.runs), constant.version, constant.comment) == ("10-20", "V1", "c")
    assert "begins (7) after it ends (3)" in lookup.explain()
    assert "largest begin, smallest end, newest of 4 documents" in lookup.explain()
    assert np.array_equal(mine.find("det_000001", "pedestals", 21).found().value, PEDS)
    assert isinstance(mine, ConstantsStore)
    assert constant.value.flags.writeable


def test_listing(service):
    service.add("cdb_tst", "det_000002", "pixel_gain", PEDS, run=3, run_end=7)
    service.add("cdb_tst", "det_000002", "pixel_gain", PEDS, run=9, run_end=7)  # begins after it ends
    mine = store(service)
    assert mine.detectors() == ["det_000001", "det_000002"]
    assert [(c.detector, c.kind, str(c.runs)) for c in mine.listing()] == [
        ("det_000001", "pedestals", "1-end"), ("det_000002", "pixel_gain", "3-7")]
    assert len(mine.listing("det_000002")) == 1
    with pytest.raises(ConstantsError, match="name an experiment or a detector"):
        WebStore("", service.url, limits=QUICK).listing()


def test_documents_are_asked_for_once(service):
    mine = store(service)
    for run in (1, 2, 3):
        mine.find("det_000001", "pedestals", run)
    assert sum("query_string" in path for path in service.asked) == 1


def test_missing_kinds_come_from_the_detectors_database(service):
    service.add("cdb_det_000001", "det_000001", "pixel_gain", PEDS, run=500, seconds=5)
    service.add("cdb_det_000001", "det_000001", "pixel_gain", PEDS * 2, run=900, seconds=4)
    service.add("cdb_det_000001", "det_000001", "geometry", "IP 0\n", seconds=4)
    mine = store(service)
    lookup = mine.find("det_000001", "pixel_gain", 3)
    assert np.array_equal(lookup.found().value, PEDS)
    assert [s.outcome for s in lookup.steps] == ["none", "took"]
    assert "whatever its run range" in lookup.explain()
    assert mine.find("det_000001", "geometry", 3).found().value == "IP 0\n"
    assert mine.kinds("det_000001") == ("geometry", "pedestals", "pixel_gain")
    nothing = mine.find("det_000001", "pixel_rms", 3)
    assert not nothing
    assert "no document of kind pixel_rms" in nothing.explain()


def test_run_zero_means_the_last_run(service):
    service.add("cdb_tst", "det_000001", "pedestals", PEDS * 5, run=9000)
    assert store(service).find("det_000001", "pedestals", 0).found().value[0, 0, 1] == 5


def test_long_names_are_looked_up(service):
    long = "det_0123456789-0123456789-0123456789"
    service.documents["cdb_detnames", "det"] = [{"long": long, "short": "det_000001"}]
    assert store(service).find(long, "pedestals", 2)
    unknown = store(service).find("det_" + "9" * 30, "pedestals", 2)
    assert not unknown
    assert "no short name" in unknown.explain()


@pytest.mark.parametrize("faults", [
    [fails(500), fails(503)], [truncated], [slow], [fails(500), truncated],
])
def test_faults_that_pass(service, faults):
    service.faults = list(faults)
    assert store(service).find("det_000001", "pedestals", 2)


@pytest.mark.parametrize(("fault", "asked"), [(fails(500), 3), (truncated, 3), (slow, 3), (fails(403), 1)])
def test_faults_that_stay(service, fault, asked):
    service.faults = [fault] * 3
    with pytest.raises(ConstantsNotFound, match=rf"does not answer: http://.*\({asked} attempts\)"):
        store(service).find("det_000001", "pedestals", 2)
    assert len(service.asked) == asked


def test_an_answer_that_never_ends(service):
    service.faults = [dribble]
    started = time.monotonic()
    with pytest.raises(ConstantsNotFound, match="no complete answer"):
        fetch(f"{service.url}/cdb_tst/det_000001", Limits(timeout=1, total=0.3, attempts=1))
    assert time.monotonic() - started < 2


def test_an_answer_that_is_too_large(service):
    service.add("cdb_tst", "det_000001", "pixel_rms", np.zeros(1 << 19, np.float32))
    with pytest.raises(ConstantsError, match="larger than 1048576 bytes"):
        store(service).find("det_000001", "pixel_rms", 2)


def test_a_server_that_is_not_there(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ConstantsNotFound, match="does not answer"):
        WebStore("tst", url, limits=QUICK).find("det_000001", "pedestals", 2)


@pytest.mark.parametrize(("change", "message"), [
    ({"data_shape": "(2, 3, 5)"}, "truncated, 96 bytes, but float32 of shape"),
    ({"data_shape": "(2, 3)"}, "96 bytes, but float32"),
    ({"data_shape": "__import__('os').system('true')"}, "not a tuple of whole numbers"),
    ({"data_dtype": "object"}, "no type of numbers"), ({"data_dtype": ">f4"}, "no type of numbers"),
    ({"data_type": "any"}, "a pickle is never opened"), ({"data_type": None}, "is not read"),
    ({"id_data": "../../etc/passwd"}, "cannot be a name"), ({"id_data": "f" * 24}, "has no payload"),
    ({"_id": "xyz"}, "24 hexadecimal digits"), ({"data_type": "str"}, "not UTF-8"),
])
def test_malformed_documents(service, change, message):
    service.documents["cdb_tst", "det_000001"][0].update(change)
    with pytest.raises(ConstantsError, match=message):
        store(service).find("det_000001", "pedestals", 2)


def test_a_pickle_is_not_opened(service):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("the payload was unpickled",))

    service.add("cdb_tst", "det_000001", "pixel_rms", "x", data_type="any")
    service.payloads["cdb_tst", list(service.payloads)[-1][1]] = pickle.dumps(Bomb())
    with pytest.raises(ConstantsError, match="never opened"):
        store(service).find("det_000001", "pixel_rms", 2)


@pytest.mark.parametrize("body", [b"{not json", b'{"a": 1}', b"[1, 2]"])
def test_answers_that_are_no_documents(service, body):
    def strange(request):
        Service.send(request, 200, body)
        return True

    service.faults = [strange]
    with pytest.raises(ConstantsError, match="answered no"):
        store(service).find("det_000001", "pedestals", 2)


def test_disk_copies_serve_without_the_network(service, tmp_path):
    first = store(service, cache=tmp_path)
    assert np.array_equal(first.find("det_000001", "pedestals", 2).found().value, PEDS)
    service.faults = [fails(500)] * 100
    lookup = store(service, cache=tmp_path).find("det_000001", "pedestals", 2)
    assert np.array_equal(lookup.found().value, PEDS)
    assert "used the documents of the last time" in lookup.explain()


def test_a_damaged_disk_copy_is_fetched_again(service, tmp_path):
    store(service, cache=tmp_path).find("det_000001", "pedestals", 2)
    (copy,) = tmp_path.glob("cdb_tst/*.bin")
    copy.write_bytes(copy.read_bytes()[:50])
    again = store(service, cache=tmp_path).find("det_000001", "pedestals", 2).found()
    assert np.array_equal(again.value, PEDS)
    assert copy.stat().st_size == PEDS.nbytes


def test_only_http(tmp_path):
    with pytest.raises(ConstantsError, match="by http or https"):
        fetch(f"file://{tmp_path}", QUICK)


@pytest.mark.parametrize(("text", "shape"), [
    ("(3, 8, 512, 1024)", (3, 8, 512, 1024)), ("(4,)", (4,)), ("()", ()), (" ( 2,3 ) ", (2, 3)),
])
def test_shapes(text, shape):
    assert parse_shape(text) == shape


@pytest.mark.parametrize("text", ["3, 4", "[3]", "(3.0,)", "(-1,)", "(a,)",
                                  "(3)(4)", None, 5, "(" + "9" * 30 + ",)"])
def test_shapes_that_are_none(text):
    with pytest.raises(ConstantsError, match="not a tuple of whole numbers"):
        parse_shape(text)


def test_text_payloads():
    assert decode("µm".encode(), {"data_type": "str"}) == "µm"
    with pytest.raises(ConstantsError, match="not UTF-8 at byte 0"):
        decode(b"\xff", {"data_type": "str"})


@pytest.mark.parametrize("runs", [(None, "end"), (-1, 5), ("a", 5), (1, "later"),
                                  (1, 99999), (20000, "end"), (5, 4)])
def test_documents_with_senseless_runs_are_skipped(runs):
    document = {"_id": "0" * 24, "run": runs[0], "run_end": runs[1]}
    assert isinstance(document_runs(document), str)
    assert chosen_document([document], 5) is None


def test_the_default_address(monkeypatch):
    monkeypatch.delenv("LCLS_CALIB_HTTP", raising=False)
    monkeypatch.delenv("SIT_PSDM_OFFSITE", raising=False)
    assert "psdmint" in default_url()
    monkeypatch.setenv("SIT_PSDM_OFFSITE", "1")
    assert "psextapi" in default_url()
    monkeypatch.setenv("LCLS_CALIB_HTTP", "http://here/")
    assert default_url() == "http://here/"

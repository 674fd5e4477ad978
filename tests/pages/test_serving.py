"""Pages are served to those who know the token, from this machine unless told otherwise."""

import asyncio
import http.client
import re
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest

from psana_dask.errors import PageError

pn = pytest.importorskip("panel")

from psana_dask.pages.serving import is_loopback, serve  # noqa: E402


def hello():
    button = pn.widgets.Button(label="count")
    text = pn.pane.Markdown("clicked 0 times", css_classes=["answer"])
    button.on_click(lambda event: setattr(text, "object", f"clicked {event.new} times"))
    return pn.Column("# secret words", button, text)


@pytest.fixture
def server():
    with serve(hello) as server:
        yield server


def asked(server, path, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    body = answer.read().decode(errors="replace")
    connection.close()
    return answer.status, dict(answer.getheaders()), body


def websocket(server, token, origin):
    key = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
           "Sec-WebSocket-Key": "x3JJHMbDL1EzLkh9GBhXDw==", "Sec-WebSocket-Protocol": "bokeh, t"}  # fmt: skip
    if origin is not None:
        key["Origin"] = origin
    return asked(server, f"/{token}/ws", **key)[0]


def test_a_page_works_in_a_browser(server, page, shot):
    page.goto(server.url)
    page.get_by_role("button", name="count").click()
    page.get_by_text("clicked 1 times").wait_for()
    shot("serving_hello")


def test_without_the_token_nothing_is_shown(server):
    right = server.token
    paths = ["", "x", "x" * len(right), right[:-1], right + "x", right.swapcase()]
    for first in paths:
        for rest in ("", "/", "/ws", "/autoload.js", "/static/js/bokeh.min.js", "/metadata"):
            status, _, body = asked(server, f"/{first}{rest}")
            assert status == 403, (first, rest)
            assert "secret words" not in body
            assert server.token not in body
    assert asked(server, f"/?token={server.token[:-1]}")[0] == 403


def test_other_methods_need_the_token_too(server):
    for method in ("POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        connection.request(method, "/")
        assert connection.getresponse().status == 403, method
        connection.close()


def test_the_token_can_be_typed(server, page):
    page.expected.append("403")
    page.goto(f"http://127.0.0.1:{server.port}/")
    page.get_by_label("token").fill(server.token)
    page.get_by_role("button", name="Open").click()
    page.get_by_text("secret words").wait_for()
    assert page.url == server.url


def test_the_address_is_told_to_nobody(server):
    status, headers, body = asked(server, urlsplit(server.url).path)
    assert status == 200
    assert "secret" in body or "docs_json" in body
    assert headers["Referrer-Policy"] == "no-referrer"
    assert not re.search(r"(src|href)=\"https?://", body)


def test_connections_come_from_pages_of_this_server(server):
    own = f"http://127.0.0.1:{server.port}"
    assert websocket(server, server.token, "http://evil.example") == 403
    assert websocket(server, server.token, f"http://127.0.0.1:{server.port + 1}") == 403
    assert websocket(server, server.token, None) == 403
    assert websocket(server, "x" * 32, own) == 403
    # through a tunnel the browser calls the server by another name and port, and so does the page
    assert asked(server, f"/{server.token}/", Host="localhost:9", Origin="http://localhost:9")[0] == 200
    assert asked(server, f"/{server.token}/", Origin="http://evil.example")[0] == 403


def test_it_listens_on_loopback_unless_told_otherwise(server):
    assert is_loopback(server.host)
    others = {a[4][0] for a in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)} - {"127.0.0.1"}
    for address in others:
        with pytest.raises(OSError, match="refused"):
            socket.create_connection((address, server.port), timeout=5)
    assert f"ssh -N -L {server.port}:127.0.0.1:{server.port}" in server.hint
    with serve(hello, host="0.0.0.0") as everywhere:
        assert asked(everywhere, "/")[0] == 403
        assert everywhere.token in everywhere.url
        assert "everyone with this address" in everywhere.hint


def test_several_pages_and_titles():
    with serve({"": hello, "two": lambda: "# two"}, title={"": "One", "two": "Two"}) as server:
        assert "<title>One</title>" in asked(server, f"/{server.token}/")[2]
        assert "<title>Two</title>" in asked(server, f"/{server.token}/two")[2]


def test_a_taken_port_and_a_wrong_host_are_explained(server):
    with pytest.raises(PageError, match=f"port {server.port} of 127.0.0.1 is taken"):
        serve(hello, port=server.port)
    with pytest.raises(PageError, match=r"cannot listen at 192\.0\.2\.1"):
        serve(hello, host="192.0.2.1")
    with pytest.raises(ValueError, match="a token has 16"):
        serve(hello, token="short")


def test_tokens_differ_and_servers_stop_cleanly():
    servers = [serve(hello) for _ in range(3)]
    assert len({s.token for s in servers}) == len({s.port for s in servers}) == 3
    for server in servers:
        asked(server, f"/{server.token}/")
        server.stop()
        server.stop()
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", server.port), timeout=5)
    assert not [t for t in threading.enumerate() if t.name == "psana_dask pages"]
    assert "stopped" in repr(servers[0])


def test_a_server_starts_where_a_loop_runs():
    """As in a notebook, whose kernel runs one."""

    async def inside():
        with serve(hello) as server:
            return await asyncio.to_thread(asked, server, f"/{server.token}/")

    with ThreadPoolExecutor() as elsewhere:  # playwright keeps a loop in this thread
        assert elsewhere.submit(asyncio.run, inside()).result()[0] == 200

"""Panel pages on a port of this machine, for those who know the address.

Every address begins with a random token: ``http://127.0.0.1:40123/<token>/``. A request without it is
answered with 403 and a field that asks for the token, so other users of the machine and of the network
see nothing. Contract: tests/pages/test_serving.py.
"""

from __future__ import annotations

import asyncio
import errno
import getpass
import hmac
import ipaddress
import logging
import secrets
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from psana_dask.errors import MissingLibrary, PageError

LOOPBACK = "127.0.0.1"
SHORTEST_TOKEN = 16
"""Characters that a token has at least."""

Page = Callable[[], Any]
"""Makes what one browser shows: anything that panel displays."""

_DENIED = """<!doctype html><html lang="en"><title>Token needed</title>
<style>body{font:16px system-ui,sans-serif;margin:20vh auto;max-width:30em;color:#222}
input{font:inherit;padding:.3em;width:20em}button{font:inherit;padding:.3em 1em}</style>
<h1>Token needed</h1><p>The program that serves this page printed an address with a token. Open that
address, or enter the token here.</p>
<form><input name="token" autofocus autocomplete="off" aria-label="token"> <button>Open</button></form>"""


def serve(
    pages: Page | Mapping[str, Page],
    *,
    host: str = LOOPBACK,
    port: int = 0,
    token: str | None = None,
    title: str | Mapping[str, str] = "psana_dask",
) -> PageServer:
    """Serve pages from a thread until `PageServer.stop`.

    Parameters
    ----------
    pages : callable, or mapping of path to callable
        Each makes a page for a browser that opens it. The one with the path ``""`` is the first page.
    host : str
        Address to listen at. ``127.0.0.1`` is reached from this machine only, ``0.0.0.0`` from everywhere.
    port : int
        0 chooses a free one.
    token : str, optional
        The secret part of the address; random by default.
    title : str, or mapping of path to str
        Of the browser's tab.

    Returns
    -------
    PageServer

    Raises
    ------
    PageError
        The port is taken, or the host is not of this machine.
    MissingLibrary
        Panel is not installed.

    Examples
    --------
    >>> with serve(lambda: "# Hello") as server:
    ...     print(server.url)
    ...     server.wait()
    """
    try:
        import panel  # noqa: F401
    except ImportError:
        raise MissingLibrary.of("panel", "plot", "a page in the browser") from None
    token = secrets.token_urlsafe(24) if token is None else token
    if len(token) < SHORTEST_TOKEN or not token.replace("-", "").replace("_", "").isalnum():
        raise ValueError(f"a token has {SHORTEST_TOKEN} letters, digits, - and _ or more")
    by_path = {"": pages} if callable(pages) else dict(pages)
    titles = title if isinstance(title, str) else {_route(path): text for path, text in title.items()}
    routes = {_route(path): page for path, page in by_path.items()}
    return PageServer(routes, host, port, token, titles)


def _route(path: str) -> str:
    return "/" + path.strip("/")


class PageServer:
    """Pages that are being served. Made by `serve`; stop it, or use ``with``.

    Parameters
    ----------
    routes, host, port, token, title
        As of `serve`.
    """

    def __init__(
        self,
        routes: Mapping[str, Page],
        host: str,
        port: int,
        token: str,
        title: str | dict[str, str],
    ) -> None:
        self.host, self.port, self.token = host, port, token
        self._error: BaseException | None = None
        self._loop: Any = None
        ready = threading.Event()
        guard = Guard(token)
        self._thread = threading.Thread(
            target=self._run, args=(routes, title, guard, ready), name="psana_dask pages", daemon=True
        )
        self._thread.start()
        ready.wait()
        if self._error is not None:
            raise _explained(self._error, host, port)

    @property
    def url(self) -> str:
        """The address of the first page, with its token."""
        return f"http://{self._name}:{self.port}/{self.token}/"

    @property
    def _name(self) -> str:
        """The host as a browser is told: a name where all addresses are listened at."""
        host = socket.getfqdn() if _everywhere(self.host) else self.host
        return f"[{host}]" if ":" in host else host

    @property
    def hint(self) -> str:
        """How another computer gets to the page."""
        if not is_loopback(self.host):
            return "everyone with this address sees the page, unencrypted"
        tunnel = f"ssh -N -L {self.port}:{self._name}:{self.port} {getpass.getuser()}@{socket.getfqdn()}"
        return f"from another computer: {tunnel}, then open the same address there"

    def wait(self) -> None:
        """Wait until the server is stopped; Ctrl-C stops it."""
        try:
            while self._thread.is_alive():
                self._thread.join(0.5)
        except KeyboardInterrupt:
            self.stop()
            raise

    def stop(self) -> None:
        """Close the pages and the port."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    def __enter__(self) -> PageServer:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<pages at {self.url}{'' if self._thread.is_alive() else ', stopped'}>"

    def _run(
        self, routes: Mapping[str, Page], title: str | dict[str, str], guard: Guard, ready: threading.Event
    ) -> None:
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(_told)
        asyncio.set_event_loop(self._loop)
        try:
            _try_to_bind(self.host, self.port)
            server = _bound(routes, title, self.host, self.port, self.token)
            self.port = server.port
            guard.watch(server._tornado)
            server.start()
            self._loop.call_soon(ready.set)
            self._loop.run_forever()
            server.stop()
            self._loop.run_until_complete(_quiet(server))
        except BaseException as error:
            self._error = error
        finally:
            self._loop.close()
            ready.set()


def _try_to_bind(host: str, port: int) -> None:
    """Raise what binding raises; the server would leave sockets open."""
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        with socket.socket(family, kind, protocol) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(address)


def _bound(
    routes: Mapping[str, Page], title: str | dict[str, str], host: str, port: int, token: str
) -> Any:
    """Return a panel server that listens, and answers when the loop of this thread runs."""
    from panel.io.resources import DIST_DIR
    from panel.io.server import get_server
    from panel.io.state import state
    from tornado.web import StaticFileHandler

    log = logging.getLogger("bokeh.server.util")
    level, name = log.level, secrets.token_hex(8)
    log.setLevel(logging.ERROR)  # it warns of "*": the origin is checked by the guard
    try:
        server = get_server(
            dict(routes), port=port, address=host, title=title, prefix=token, websocket_origin="*",
            server_id=name,
            extra_patterns=[(r"/(favicon\.ico)", StaticFileHandler, {"path": str(DIST_DIR / "images")})],
        )  # fmt: skip
    finally:
        log.setLevel(level)
    state._servers.pop(name)  # else panel keeps it, and what it shows, for good
    return server


def _told(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Tell what went wrong on the loop, but not that a browser left while something was sent to it."""
    from tornado.iostream import StreamClosedError
    from tornado.websocket import WebSocketClosedError

    if not isinstance(context.get("exception"), StreamClosedError | WebSocketClosedError):
        loop.default_exception_handler(context)


async def _quiet(server: Any) -> None:
    """Close connections and end what still runs."""
    await server._http.close_all_connections()
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _explained(error: BaseException, host: str, port: int) -> BaseException:
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return PageError(f"port {port} of {host} is taken: choose another, or none to get a free one")
    if isinstance(error, OSError):
        return PageError(f"cannot listen at {host}:{port}: {error}")
    return error


def is_loopback(host: str) -> bool:
    """Return whether an address is reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _everywhere(host: str) -> bool:
    return host in ("", "0.0.0.0", "::")  # noqa: S104  (asked for by the user)


# ---- who may see it -----------------------------------------------------------------------------
@dataclass(frozen=True)
class Guard:
    """Says which requests are answered.

    Parameters
    ----------
    token : str
    """

    token: str

    def watch(self, application: Any) -> None:
        """Let a tornado application answer only what is allowed, and tell nobody the address."""
        from tornado.routing import Matcher, Rule
        from tornado.web import OutputTransform, RequestHandler

        guard = self

        class Refused(Matcher):
            def match(self, request: Any) -> dict[str, Any] | None:
                return None if guard.allows(request) else {}

        class Denied(RequestHandler):
            def prepare(self) -> None:
                if guard.is_token(self.get_query_argument("token", "")):
                    self.redirect(f"/{guard.token}{self.request.path}")
                    return
                self.set_status(403)
                self.finish(_DENIED)

        class Secret(OutputTransform):
            def transform_first_chunk(self, status: int, headers: Any, chunk: bytes, finishing: bool) -> Any:
                headers["Referrer-Policy"] = "no-referrer"
                headers["X-Content-Type-Options"] = "nosniff"
                return status, headers, chunk

        application.default_router.rules.insert(0, Rule(Refused(), Denied))
        application.add_transform(Secret)

    def is_token(self, text: str) -> bool:
        """Return whether this is the token, in a time that tells nothing about it."""
        return hmac.compare_digest(text.encode(), self.token.encode())

    def allows(self, request: Any) -> bool:
        """Return whether a request has the token in its path, and comes from a page of this server."""
        if not self.is_token(request.path.split("/")[1] if "/" in request.path else ""):
            return False
        origin = request.headers.get("Origin")
        if origin is None:
            return request.headers.get("Upgrade", "").lower() != "websocket"
        return urlsplit(origin).netloc.lower() == request.headers.get("Host", "").lower()

"""A web site of a customer or an attacker, and functions that wait for the browser."""

import contextlib
import json
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import monotonic
from typing import Any, Final
from urllib.request import Request, urlopen

from playwright.sync_api import Frame, Page

TIMEOUT_SECONDS: Final = 30
MINT: Final = "/api/ext/users/personal-access-token"
#: The headers of a page that is cross-origin isolated.
ISOLATED: Final = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
}
#: Whether the app's scripts and htmx have run, and style sheets and pictures are loaded.
IS_READY: Final = """() => window.embed && document.readyState === "complete"
    && !document.querySelector("[embed-src]:not([src])")
    && [...document.querySelectorAll("link[rel=stylesheet]")].every(({ sheet }) => sheet)"""


@dataclass
class Site:
    """A web site with pages by path, under each of this machine's names.

    `posts` computes the JSON answer to a POST by path; `headers` are extra headers by path.
    """

    port: int
    pages: dict[str, str] = field(default_factory=dict)
    posts: dict[str, Callable[[], Any]] = field(default_factory=dict)
    headers: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def origin(self) -> str:
        return f"http://localhost:{self.port}"

    def url(self, path: str = "/", host: str = "localhost") -> str:
        return f"http://{host}:{self.port}{path}"


@contextlib.contextmanager
def site(*, keep_alive: bool = False) -> Iterator[Site]:
    """Serve a `Site` without pages."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1" if keep_alive else "HTTP/1.0"

        def do_GET(self) -> None:
            html = served.pages.get(self.path)
            if html is None:
                self._answer(404, "text/plain", b"")
            else:
                self._answer(200, "text/html; charset=utf-8", html.encode())

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"] or 0))
            self._answer(200, "application/json", json.dumps(served.posts[self.path]()).encode())

        def _answer(self, status: int, content_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            for name, value in served.headers.get(self.path, {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        served = Site(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield served
        finally:
            server.shutdown()
            thread.join()


def mint(service: str, client: str, **options: Any) -> dict[str, Any]:
    """Mint over HTTP with `id:secret`, as a portal's server does, and return the answer."""
    body = json.dumps({"sessionExpiry": 60, "patExpiry": 300, **options}).encode()
    basic = f"Basic {b64encode(client.encode()).decode()}"
    headers = {"Authorization": basic, "Content-Type": "application/json"}
    with urlopen(Request(service + MINT, body, headers), timeout=10) as answer:
        minted: dict[str, Any] = json.load(answer)
        return minted


def wait_until_ready(frame: Frame) -> None:
    """Wait until the frame's page has run its scripts and loaded its resources."""
    # The browser draws no frames out of view, so the default polling by animation frame could hang.
    frame.wait_for_function(IS_READY, polling=50)


def wait_until(page: Page, is_true: Callable[[], bool]) -> None:
    """Wait for a condition in Python, while the page's events are processed."""
    end = monotonic() + TIMEOUT_SECONDS
    while not is_true():
        assert monotonic() < end, f"The condition did not become true within {TIMEOUT_SECONDS} s"
        page.wait_for_timeout(20)

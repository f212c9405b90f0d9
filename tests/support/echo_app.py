"""An app that exists already: it knows nothing of this service, and answers with what it received."""

import base64
import contextlib
import hashlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

_ACCEPT_SUFFIX = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3


@dataclass
class Received:
    """A request as it arrived. `headers` are in their order, with repetitions."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def value(self, name: str) -> str | None:
        """Return the only value of a header, or None."""
        values = self.values(name)
        assert len(values) < 2, values
        return values[0] if values else None


@dataclass
class EchoApp:
    """A running app and all that it received.

    A query sets the answer: `status=302`, and `h=Name: value` for each header. With `wait=1` a second part
    follows, and the answer ends only at `release`. `pages` has such queries by path. `names` has the host of
    each connection with TLS.
    """

    port: int
    received: list[Received] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)
    pages: dict[str, str] = field(default_factory=dict)
    names: list[str | None] = field(default_factory=list)

    @property
    def upstream(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def take(self) -> list[Received]:
        """Return the requests since the last call."""
        taken, self.received = self.received, []
        return taken


@contextlib.contextmanager
def echo_app(certificate: ssl.SSLContext | None = None) -> Iterator[EchoApp]:
    """Run the app on a free port, with TLS if there is a certificate."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            # `self.path` has lost a doubled slash at its beginning.
            target = self.requestline.split(" ")[1]
            received = Received(self.command, target, self.headers.items(), self._body())
            app.received.append(received)
            if "websocket" in (self.headers["Upgrade"] or "").lower():
                self._echo_messages()
                return
            query = parse_qsl(app.pages.get(self.path) or urlsplit(self.path).query)
            given = [value.split(": ", 1) for name, value in query if name == "h"]
            text = json.dumps(
                {"method": received.method, "target": received.target, "size": len(received.body)}
            )
            self.send_response(int(dict(query).get("status", "200")))
            for name, value in given:
                self.send_header(name, value)
            if "Content-Type" not in dict(given):
                self.send_header("Content-Type", "text/html" if "html" in dict(query) else "application/json")
            body = dict(query).get("html", text).encode()
            waits = "wait" in dict(query)
            self.send_header(*(("Connection", "close") if waits else ("Content-Length", str(len(body)))))
            self.end_headers()
            self.wfile.write(body)
            if waits:
                time.sleep(0.1)
                self.wfile.write(b" and more")
                app.release.wait(30)
                self.close_connection = True

        def _body(self) -> bytes:
            if self.headers["Transfer-Encoding"] != "chunked":
                return self.rfile.read(int(self.headers["Content-Length"] or 0))
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def _echo_messages(self) -> None:
            """Answer each short text frame (RFC 6455) with the same text, until the other side closes."""
            key = self.headers["Sec-WebSocket-Key"].encode()
            accept = base64.b64encode(hashlib.sha1(key + _ACCEPT_SUFFIX).digest()).decode()
            self.send_response(101)
            for name, value in (("Upgrade", "websocket"), ("Connection", "Upgrade")):
                self.send_header(name, value)
            self.send_header("Sec-WebSocket-Accept", accept)
            self.end_headers()
            self.close_connection = True
            while len(head := self.rfile.read(2)) == 2 and head[0] & 15 == 1:
                mask = self.rfile.read(4)
                text = bytes(byte ^ mask[at % 4] for at, byte in enumerate(self.rfile.read(head[1] & 127)))
                self.wfile.write(bytes([0x81, len(text)]) + text)

        def __getattr__(self, name: str) -> Any:
            if name.startswith("do_"):
                return self._answer
            raise AttributeError(name)

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

    with Server(("127.0.0.1", 0), Handler) as server:
        app = EchoApp(server.server_address[1])
        if certificate:
            certificate.sni_callback = lambda _socket, name, _context: app.names.append(name)
            server.socket = certificate.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield app
        finally:
            app.release.set()
            server.shutdown()
            thread.join()


def text_frame(text: str) -> bytes:
    """Return a short text as a client's frame, masked with zeros."""
    return bytes([0x81, 0x80 | len(text)]) + bytes(4) + text.encode()


def read_frame(connection: socket.socket) -> str:
    """Return the text of a short frame of the server."""
    head = _exactly(connection, 2)
    return _exactly(connection, head[1]).decode()


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data

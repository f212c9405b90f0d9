"""HTTP requests byte by byte, for what no client library sends."""

import contextlib
import http.client
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

UPGRADE: Final = (
    "Upgrade: WebSocket",  # in any case (RFC 6455, section 4.2.1)
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: " + "a" * 22 + "==",
)


@dataclass
class Answer:
    status: int
    headers: list[tuple[str, str]]
    text: str

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def value(self, name: str) -> str | None:
        """Return the only value of a header, or None."""
        values = self.values(name)
        assert len(values) < 2, values
        return values[0] if values else None


@contextlib.contextmanager
def connected(port: int, host: str) -> Iterator[ssl.SSLSocket]:
    """Connect with TLS to a port of this machine, and accept any certificate."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    plain = socket.create_connection(("127.0.0.1", port), timeout=30)
    with context.wrap_socket(plain, server_hostname=host) as connection:
        yield connection


def request_text(
    target: str,
    *lines: str,
    host: str,
    method: str = "GET",
    cookie: str = "",
    connection: str = "close",
) -> str:
    """Return the head of a request with these lines, as they are."""
    head = [f"{method} {target} HTTP/1.1", f"Host: {host}", f"Connection: {connection}"]
    return "\r\n".join([*head, *([f"Cookie: {cookie}"] if cookie else []), *lines, "", ""])


def sent(port: int, text: str | bytes, *, host: str, method: str = "GET") -> Answer:
    """Send these bytes over a connection to the host, and return the answer."""
    with connected(port, host) as connection:
        connection.sendall(text.encode("latin-1") if isinstance(text, str) else text)
        answer = http.client.HTTPResponse(connection, method=method)
        answer.begin()
        return Answer(answer.status, answer.getheaders(), answer.read().decode())


def ask(
    port: int, target: str, *lines: str, host: str, via: str = "", body: bytes = b"", **options: Any
) -> Answer:
    """Send a request, and return the answer. The options are those of `request_text`.

    `via` is the host of the connection, if it is another one.
    """
    length = [f"Content-Length: {len(body)}"] if body else []
    text = request_text(target, *lines, *length, host=host, **options).encode("latin-1")
    return sent(port, text + body, host=via or host, method=options.get("method", "GET"))


def upgraded(connection: ssl.SSLSocket, target: str, *lines: str, host: str, cookie: str = "") -> int:
    """Ask for a WebSocket, and return the status."""
    text = request_text(target, *UPGRADE, *lines, host=host, cookie=cookie, connection="Upgrade")
    connection.sendall(text.encode())
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    return answer.status

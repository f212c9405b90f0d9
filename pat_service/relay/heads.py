"""Heads of HTTP messages: a client's request for a WebSocket, and what the app gets of it."""

import base64
import binascii
import re
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from http.client import responses
from typing import Final, TypeGuard

import h11

Headers = list[tuple[bytes, bytes]]

MAX_HEAD_BYTES: Final = 16_384
#: gunicorn accepts header fields up to 8190 bytes, and the path becomes one.
MAX_TARGET_BYTES: Final = 8000
#: The start of the names of the service's own cookies, which the app must not see.
OWN_COOKIES: Final = b"__Host-pat-"
#: A service reads this many of its cookies.
MAX_COOKIES: Final = 8
END_OF_HEAD: Final = b"\r\n\r\n"

_WEBSOCKET: Final = b"websocket"
_VERSION: Final = b"13"  # RFC 6455
_KEY_BYTES: Final = 16
#: Headers that a request may have once. h11 checks Host.
_SINGLE: Final = (b"origin", b"sec-websocket-key", b"sec-websocket-version", b"upgrade")
#: Headers of one connection (RFC 9110), and those that frame a body.
_HOP_BY_HOP: Final = frozenset(
    {b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"content-length"}
)
_FOLD_OR_BARE_FEED = re.compile(rb"\n[ \t]|(?<!\r)\n")
#: What a client says of its own identity counts for nothing. Apps may read `_` and `.` in a name as `-`.
_IDENTITY = re.compile(
    rb"x-embed-.*|remote-.*|proxy-.*|x-forwarded-(user|email|preferred-username|groups)|.*[^a-z0-9-].*"
)
#: The identity in an answer of the service, passed on to the app.
_GRANTED = re.compile(rb"x-embed-jwt|x-forwarded-(user|email|preferred-username|groups)")
#: The headers by which the service recognizes the viewer, and the proxy's word about the client.
_ASKED = re.compile(rb"host|origin|sec-fetch-[a-z-]+|x-forwarded-(for|proto)")


class Refused(Exception):
    """The status and headers with which a request is refused. The text is for its sender."""

    def __init__(self, status: int, text: str, **headers: str) -> None:
        super().__init__(text)
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    def answer(self) -> bytes:
        """Return the whole response."""
        body = f"{self}\n".encode()
        fields = {
            "Content-Type": "text/plain; charset=utf-8",
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "Connection": "close",
        } | self.headers
        reason = responses.get(self.status, "")
        lines = [f"HTTP/1.1 {self.status} {reason}", *(f"{name}: {value}" for name, value in fields.items())]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


@dataclass(frozen=True)
class Upgrade:
    """A client's valid request for a WebSocket. Names of headers are in lower case."""

    target: bytes
    headers: Headers

    @property
    def host(self) -> str:
        return next(value for name, value in self.headers if name == b"host").decode("latin-1").lower()

    def question(self) -> Headers:
        """Return the headers that the service needs to recognize the viewer."""
        cookies = [cookie for cookie in self._cookies() if cookie.startswith(OWN_COOKIES)]
        return [
            *((name, value) for name, value in self.headers if _ASKED.fullmatch(name)),
            (b"cookie", b"; ".join(cookies)),
            (b"x-forwarded-method", b"GET"),
            # Without the query, which may hold secrets of the app.
            (b"x-forwarded-uri", self.target.partition(b"?")[0]),
            (b"x-forwarded-upgrade", _WEBSOCKET),
        ]

    def for_app(self, identity: Iterable[tuple[bytes, bytes]]) -> Headers:
        """Return the headers for the app: the client's, with this identity in place of its own."""
        named = set(_tokens(self.headers, b"connection"))
        dropped = _HOP_BY_HOP | named | {b"cookie"}
        kept = [
            (name, value)
            for name, value in self.headers
            if name not in dropped and not _IDENTITY.fullmatch(name)
        ]
        cookies = [cookie for cookie in self._cookies() if not cookie.startswith(OWN_COOKIES)]
        if cookies:
            kept.append((b"cookie", b"; ".join(cookies)))
        return [*kept, *identity, (b"connection", b"Upgrade"), (b"upgrade", _WEBSOCKET)]

    def _cookies(self) -> list[bytes]:
        # A proxy may split the cookies of one request into several headers (RFC 9113).
        sent = b";".join(value for name, value in self.headers if name == b"cookie")
        return [cookie.strip() for cookie in sent.split(b";") if cookie.strip()]


def add_cookies(question: Headers, cookies: Iterable[bytes]) -> Headers:
    """Return the question with these cookies first. It keeps as many as the service reads."""
    sent = next(value for name, value in question if name == b"cookie").split(b"; ")
    newest_first = list(dict.fromkeys([*cookies, *sent]))[:MAX_COOKIES]
    others = [(name, value) for name, value in question if name != b"cookie"]
    return [*others, (b"cookie", b"; ".join(newest_first))]


def identity_in(headers: Headers) -> Headers:
    """Return the viewer's identity from an answer of the service."""
    return [(name, value) for name, value in headers if _GRANTED.fullmatch(name)]


def parse_upgrade(head: bytes) -> Upgrade:
    """Return the request for a WebSocket in a whole head, or raise Refused."""
    parser = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
    try:
        parser.receive_data(head)
        request = parser.next_event()
    except h11.RemoteProtocolError:
        raise Refused(400, "This request is malformed.") from None
    # h11 also ends lines at a bare line feed and joins folded ones, as not every server does.
    ambiguous = _FOLD_OR_BARE_FEED.search(head)
    if not isinstance(request, h11.Request) or parser.trailing_data[0] or ambiguous:
        raise Refused(400, "This request is malformed.")
    headers: Headers = list(request.headers)
    names = [name for name, _ in headers]
    if b"transfer-encoding" in names or any(
        value != b"0" for name, value in headers if name == b"content-length"
    ):
        raise Refused(400, "A request for a WebSocket has no body.")
    if any(names.count(name) > 1 for name in _SINGLE):
        raise Refused(400, "This request repeats a header.")
    values = dict(headers)
    _check_handshake(request, values, _tokens(headers, b"connection"))
    if not request.target.startswith(b"/"):
        raise Refused(400, "The address must begin with a slash.")
    if len(request.target) > MAX_TARGET_BYTES:
        raise Refused(414, f"The address must be at most {MAX_TARGET_BYTES} bytes long.")
    return Upgrade(request.target, headers)


def _check_handshake(request: h11.Request, values: dict[bytes, bytes], connection: list[bytes]) -> None:
    asked = values.get(b"upgrade", b"").strip().lower()
    if asked != _WEBSOCKET or b"upgrade" not in connection:
        text = "This address answers requests for WebSockets only."
        raise Refused(426, text, Upgrade="websocket", Connection="Upgrade, close")
    if request.method != b"GET" or request.http_version != b"1.1":
        raise Refused(400, "A request for a WebSocket is a GET of HTTP/1.1.")
    if values.get(b"sec-websocket-version") != _VERSION:
        raise Refused(426, "Only version 13 of WebSocket works.", Sec_WebSocket_Version=_VERSION.decode())
    if not _is_key(values.get(b"sec-websocket-key", b"")):
        raise Refused(400, "Sec-WebSocket-Key must be 16 bytes in Base64.")


def is_switch(response: object) -> TypeGuard[h11.InformationalResponse]:
    """Return whether the app's answer opens the WebSocket."""
    return (
        isinstance(response, h11.InformationalResponse)
        and response.status_code == HTTPStatus.SWITCHING_PROTOCOLS
        and dict(response.headers).get(b"upgrade", b"").lower() == _WEBSOCKET
    )


def switch(response: h11.InformationalResponse) -> bytes:
    """Return the head that opens the client's WebSocket, with the app's own headers."""
    kept = [(name, value) for name, value in response.headers if name not in _HOP_BY_HOP]
    fields = [*kept, (b"connection", b"Upgrade"), (b"upgrade", _WEBSOCKET)]
    lines = [b"HTTP/1.1 101 Switching Protocols", *(name + b": " + value for name, value in fields)]
    return b"\r\n".join(lines) + END_OF_HEAD


def _is_key(value: bytes) -> bool:
    try:
        return len(base64.b64decode(value, validate=True)) == _KEY_BYTES
    except binascii.Error:
        return False


def _tokens(headers: Headers, wanted: bytes) -> list[bytes]:
    """Return the list elements of all headers of this name, in lower case."""
    return [token.strip().lower() for name, value in headers if name == wanted for token in value.split(b",")]

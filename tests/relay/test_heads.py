"""Heads: what the relay accepts, what it asks the service, and what the app gets to see."""

import pytest

from pat_service.relay.heads import (
    MAX_TARGET_BYTES,
    Headers,
    Refused,
    Upgrade,
    add_cookies,
    parse_upgrade,
)

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
OWN = "__Host-pat-0123abcd=a-session"
HANDSHAKE = {
    "Host": "sales--abc.embed.example",
    "Connection": "keep-alive, Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": KEY,
    "Origin": "https://sales--abc.embed.example",
}


def head(*more: str, line: str = "GET /ws?room=1 HTTP/1.1", **changes: str | None) -> bytes:
    """Return the head of a handshake. A change to None omits the header; `_` stands for `-`."""
    fields = HANDSHAKE | {name.replace("_", "-"): value for name, value in changes.items()}
    lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
    return "\r\n".join([line, *lines, *more, "", ""]).encode("latin-1")


def names(headers: Headers) -> list[str]:
    return [name.decode() for name, _ in headers]


def sent(*more: str, **changes: str) -> Upgrade:
    return parse_upgrade(head(*more, **changes))


@pytest.mark.parametrize(
    ("hostile", "status"),
    [
        (b"\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400),
        (head(line="GET /ws"), 400),
        (head(line="GET  /ws HTTP/1.1"), 400),
        (head(line="GET /w s HTTP/1.1"), 400),
        (head(line="GET http://10.0.0.7/ HTTP/1.1"), 400),
        (head(line="GET * HTTP/1.1"), 400),
        (head(line="POST /ws HTTP/1.1"), 400),
        (head(line="GET /ws HTTP/1.0"), 400),
        (head(line="PRI * HTTP/2.0"), 400),
        (head(line=f"GET /{'x' * MAX_TARGET_BYTES} HTTP/1.1"), 414),
        (head(Host=None), 400),
        (head("Host: ben--xyz.embed.example"), 400),
        (head("Origin: https://evil.example"), 400),
        (head("Upgrade: h2c"), 400),
        (head("Upgrade: websocket"), 400),
        (head("Sec-WebSocket-Version: 12"), 400),
        (head("Transfer-Encoding: chunked"), 400),
        (head("Transfer-Encoding : chunked"), 400),
        (head("Transfer-Encoding: xchunked"), 400),
        (head("Content-Length: 5"), 400),
        (head("Content-Length: 5", "Content-Length: 6"), 400),
        (head("Content-Length: +0"), 400),
        (head("X-A: b", " folded"), 400),
        (head("X-A: b\nTransfer-Encoding: chunked\n\nGET /admin HTTP/1.1"), 400),
        (head("X A: b"), 400),
        (head("X-A: \x00"), 400),
        (head(Sec_WebSocket_Key=None), 400),
        (head(Sec_WebSocket_Key="short"), 400),
        (head(Sec_WebSocket_Key="AAAA"), 400),
        (head(Sec_WebSocket_Version="8"), 426),
        (head(Upgrade=None), 426),
        (head(Upgrade="h2c"), 426),
        (head(Upgrade="websocket, h2c"), 426),
        (head(Connection=None), 426),
        (head(Connection="close"), 426),
        (head(Connection="xupgrade"), 426),
    ],
)
def test_hostile_heads_are_refused(hostile: bytes, status: int) -> None:
    with pytest.raises(Refused) as refused:
        parse_upgrade(hostile)
    assert refused.value.status == status
    answer = refused.value.answer().decode()
    assert answer.startswith(f"HTTP/1.1 {status} ")
    assert "evil" not in answer


def test_a_request_without_upgrade_learns_what_is_needed() -> None:
    with pytest.raises(Refused) as refused:
        parse_upgrade(b"GET /healthz HTTP/1.1\r\nHost: sales--abc.embed.example\r\n\r\n")
    assert b"\r\nUpgrade: websocket\r\n" in refused.value.answer()


@pytest.mark.parametrize("spelling", ["websocket", "WebSocket", "WEBSOCKET"])
def test_browsers_may_spell_the_handshake_in_any_case(spelling: str) -> None:
    upgrade = parse_upgrade(head(Upgrade=spelling, Connection="UPGRADE"))
    assert (upgrade.target, upgrade.host) == (b"/ws?room=1", "sales--abc.embed.example")


def test_the_question_has_what_identifies_the_viewer_and_nothing_else() -> None:
    upgrade = sent(
        f"Cookie: theme=dark; {OWN}",
        "Cookie: __Host-pat-9=b;x=1",
        "Sec-Fetch-Site: same-origin",
        "X-Forwarded-For: 203.0.113.9",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Uri: /lie",
        "X-Forwarded-Method: POST",
        "Authorization: Bearer of-the-app",
    )
    assert dict(upgrade.question()) == {
        b"host": b"sales--abc.embed.example",
        b"origin": b"https://sales--abc.embed.example",
        b"cookie": f"{OWN}; __Host-pat-9=b".encode(),
        b"sec-fetch-site": b"same-origin",
        b"x-forwarded-for": b"203.0.113.9",
        b"x-forwarded-proto": b"https",
        b"x-forwarded-method": b"GET",
        b"x-forwarded-uri": b"/ws",
        b"x-forwarded-upgrade": b"websocket",
    }


@pytest.mark.parametrize(
    "name",
    [
        "X-Forwarded-User",
        "x-forwarded-EMAIL",
        "X_Forwarded_Email",
        "X.Forwarded.Groups",
        "X-Forwarded_Preferred-Username",
        "X-Embed-Jwt",
        "X_Embed_Jwt",
        "X-Embed-Upstream",
        "Remote-User",
        "REMOTE_USER",
        "Proxy-Authorization",
    ],
)
def test_the_app_gets_no_identity_that_a_client_claims(name: str) -> None:
    identity = [(b"x-forwarded-email", b"ana@acme.test")]
    headers = sent(f"{name}: mallory").for_app(identity)
    assert [value for _, value in headers if value == b"mallory"] == []
    assert [pair for pair in headers if pair in identity] == identity


def test_no_connection_header_removes_the_identity() -> None:
    upgrade = sent(Connection="Upgrade, X-Forwarded-Email, Host-Note", Host_Note="x")
    headers = dict(upgrade.for_app([(b"x-forwarded-email", b"ana@acme.test")]))
    assert headers[b"x-forwarded-email"] == b"ana@acme.test"
    assert b"host-note" not in headers
    assert headers[b"connection"] == b"Upgrade"


def test_the_app_gets_its_own_cookies_alone() -> None:
    headers = sent(f"Cookie: {OWN}; theme=dark", f"Cookie: a=b; {OWN}").for_app([])
    assert [value for name, value in headers if name == b"cookie"] == [b"theme=dark; a=b"]
    assert "cookie" not in names(sent(f"Cookie: {OWN}").for_app([]))


def test_the_app_gets_the_rest_as_the_browser_sent_it() -> None:
    headers = sent("Sec-WebSocket-Protocol: a, b", "Sec-WebSocket-Extensions: permessage-deflate").for_app([])
    assert dict(headers) == {
        b"host": b"sales--abc.embed.example",
        b"sec-websocket-version": b"13",
        b"sec-websocket-key": KEY.encode(),
        b"origin": b"https://sales--abc.embed.example",
        b"sec-websocket-protocol": b"a, b",
        b"sec-websocket-extensions": b"permessage-deflate",
        b"connection": b"Upgrade",
        b"upgrade": b"websocket",
    }


def test_a_question_keeps_the_newest_cookies() -> None:
    question = sent(f"Cookie: {OWN}").question()
    for number in range(20):
        question = add_cookies(question, [f"__Host-pat-{number}=x".encode()])
        question = add_cookies(question, [f"__Host-pat-{number}=x".encode()])
    [cookies] = [value for name, value in question if name == b"cookie"]
    assert cookies == b"; ".join(f"__Host-pat-{number}=x".encode() for number in range(19, 11, -1))

"""Hostile senders on raw sockets to gunicorn are refused, and other senders notice nothing."""

import contextlib
import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.deploy.load import Connection, minting, visit
from tests.e2e.deploy.test_gunicorn import TOKEN
from tests.support.people import KEY, MINT, ORDERS, PUBLIC_URL, basic, long_lived_service
from tests.support.servers import WebServer, gunicorn

pytestmark = pytest.mark.slow

#: The service must never answer the hidden request.
HIDDEN = f"GET /embed-apps/{ORDERS}?personal-access-token={TOKEN}&smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
POST = f"POST {MINT} HTTP/1.1\r\nHost: x\r\n"
CREDENTIALS = f"Authorization: {basic('portal')['Authorization']}\r\nContent-Type: application/json\r\n"
CHUNKED = f"{POST}{CREDENTIALS}Transfer-Encoding: chunked\r\n\r\n"
SIZE = f"Content-Length: {len(HIDDEN)}\r\n"

REFUSED = {
    # Two headers that disagree about the end of the body.
    "length and chunks": (f"{POST}{SIZE}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{HIDDEN}", 400),
    "chunks and length": (f"{POST}Transfer-Encoding: chunked\r\n{SIZE}\r\n0\r\n\r\n{HIDDEN}", 400),
    "two lengths": (f"{POST}Content-Length: 0\r\n{SIZE}\r\n{HIDDEN}", 400),
    "a list of lengths": (f"{POST}Content-Length: 0, {len(HIDDEN)}\r\n\r\n{HIDDEN}", 400),
    "the same length twice": (f"{POST}Content-Length: 0\r\nContent-Length: 0\r\n\r\n{HIDDEN}", 400),
    "a negative length": (f"{POST}Content-Length: -1\r\n\r\n{HIDDEN}", 400),
    "a length with a sign": (f"{POST}Content-Length: +0\r\n\r\n{HIDDEN}", 400),
    "a hexadecimal length": (f"{POST}Content-Length: 0x0\r\n\r\n{HIDDEN}", 400),
    "a length with a space before the colon": (f"{POST}Content-Length : 0\r\n\r\n{HIDDEN}", 400),
    "a folded length": (f"{POST}Content-Length:\r\n 0\r\n\r\n{HIDDEN}", 400),
    "chunks with a space before the colon": (
        f"{POST}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{HIDDEN}",
        400,
    ),
    "chunks in other words": (f"{POST}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{HIDDEN}", 501),
    "chunks, then more": (f"{POST}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{HIDDEN}", 400),
    "chunks twice": (f"{POST}Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n{HIDDEN}", 400),
    "chunks in HTTP/1.0": (
        f"POST {MINT} HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{HIDDEN}",
        400,
    ),
    "chunks and a comma": (f"{POST}Transfer-Encoding: chunked,\r\n\r\n0\r\n\r\n{HIDDEN}", 501),
    "chunks in quotes": (f'{POST}Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n{HIDDEN}', 501),
    "chunks after a vertical tab": (f"{POST}Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n{HIDDEN}", 400),
    "chunks, then no chunks": (
        f"{POST}Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n{HIDDEN}",
        400,
    ),
    "no chunks, with a length": (
        f"{POST}Transfer-Encoding: identity\r\nContent-Length: 0\r\n\r\n{HIDDEN}",
        400,
    ),
    "an empty length": (f"{POST}Content-Length: \r\n\r\n{HIDDEN}", 400),
    "a length in two parts": (f"{POST}Content-Length: 0 0\r\n\r\n{HIDDEN}", 400),
    "a length in superscript": (f"{POST}Content-Length: \xb2\r\n\r\n{HIDDEN}", 400),
    "a length of thousands of digits": (f"{POST}Content-Length: {'9' * 5000}\r\n\r\n{HIDDEN}", 400),
    # Text that is not a request.
    "a line of the PROXY protocol": (f"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n{HIDDEN}", 400),
    "a header of the PROXY protocol": (
        f"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x01\2\3\4\5\6\7\x08\0\1\0\2{HIDDEN}",
        400,
    ),
    "a folded first header": (f"GET / HTTP/1.1\r\n Host: x\r\n\r\n{HIDDEN}", 400),
    "a method in lower case": (f"get / HTTP/1.1\r\nHost: x\r\n\r\n{HIDDEN}", 400),
    "two spaces before the address": (f"GET  / HTTP/1.1\r\nHost: x\r\n\r\n{HIDDEN}", 400),
    "an absolute address without an end": (f"GET http://[::1/ HTTP/1.1\r\nHost: x\r\n\r\n{HIDDEN}", 400),
    "HTTP/0.9": (f"GET /\r\n\r\n{HIDDEN}", 400),
    "the first lines of HTTP/2": (f"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{HIDDEN}", 400),
    "a NUL in the address": (f"GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n{HIDDEN}", 400),
    "a NUL in a header": (f"GET / HTTP/1.1\r\nHost: x\r\nX: \0\r\n\r\n{HIDDEN}", 400),
    "lines that end with LF only": (f"GET / HTTP/1.1\nHost: x\n\n{HIDDEN}", 400),
    "a lone LF among the headers": (f"GET / HTTP/1.1\r\nHost: x\nX: y\r\n\r\n{HIDDEN}", 400),
    "a lone CR among the headers": (f"GET / HTTP/1.1\r\nHost: x\rX: y\r\n\r\n{HIDDEN}", 400),
    "a folded header": (f"GET / HTTP/1.1\r\nHost: x\r\nX: y\r\n  z\r\n\r\n{HIDDEN}", 400),
    "two hosts": (f"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n{HIDDEN}", 400),
    "a header with an underscore and again with a dash": (
        f"{POST}Content_Length: 9\r\nContent-Length: x\r\n\r\n{HIDDEN}",
        400,
    ),
    "an unknown expectation": (f"{POST}Expect: a-token\r\n\r\n{HIDDEN}", 417),
    "TLS on a plain port": ("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + "\r\n" * 4, 400),
    # Requests above the size limits.
    "an address too long": (f"GET /{'a' * 9000} HTTP/1.1\r\nHost: x\r\n\r\n{HIDDEN}", 414),
    "an address without end": (f"GET /{'a' * 20000}", 414),
    "101 headers": ("GET / HTTP/1.1\r\nHost: x\r\n" + "X: y\r\n" * 100 + f"\r\n{HIDDEN}", 431),
    "more cookies than a browser keeps": (
        f"GET / HTTP/1.1\r\nHost: x\r\nCookie: {'a' * 800_000}\r\n\r\n{HIDDEN}",
        431,
    ),
    "a header too long": (f"GET / HTTP/1.1\r\nHost: x\r\nX: {'a' * 9000}\r\n\r\n{HIDDEN}", 431),
    # Malformed chunks.
    "a chunk of a size that is not a number": (f"{CHUNKED}zz\r\n\r\n{HIDDEN}", 400),
    "a chunk of a negative size": (f"{CHUNKED}-1\r\n\r\n{HIDDEN}", 400),
    "a chunk of a size with a prefix": (f"{CHUNKED}0x1\r\na\r\n0\r\n\r\n{HIDDEN}", 400),
    "a chunk of a size with an underscore": (f"{CHUNKED}1_0\r\n{'a' * 16}\r\n0\r\n\r\n{HIDDEN}", 400),
    "a chunk of a size with a space": (f"{CHUNKED}1 \r\na\r\n0\r\n\r\n{HIDDEN}", 400),
    "a host behind the last chunk": (f"{CHUNKED}0\r\nHost: y\r\n\r\n{HIDDEN}", 400),
    "a chunk longer than it says": (f"{CHUNKED}1\r\nabc\r\n0\r\n\r\n{HIDDEN}", 400),
    "a chunk with an extension without end": (f"{CHUNKED}1;{'a' * 20000}", 400),
    "a lone LF behind a chunk's size": (f"{CHUNKED}0\n\n{HIDDEN}", 400),
    "a CR in a chunk's extension": (f"{CHUNKED}0;a=\rb\r\n\r\n{HIDDEN}", 400),
    "a length behind the last chunk": (f"{CHUNKED}0\r\n{SIZE}\r\n{HIDDEN}", 400),
}


@pytest.fixture(scope="module")
def environ(schema: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("installation")
    with long_lived_service(schema, folder):
        url = f"sqlite:///{folder / 'pat-service.db'}"
        return {"SECRET_KEY": KEY, "PUBLIC_URL": PUBLIC_URL, "DATABASE_URL": url}


@pytest.fixture(scope="module")
def server(environ: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    """One worker with eight threads, and no proxy."""
    log = tmp_path_factory.mktemp("log") / "log"
    with gunicorn(environ, workers=1, log=log) as server:
        yield server


@contextlib.contextmanager
def sender(server: WebServer, text: str = "") -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(text.encode("latin-1"))
        yield connection


def everything(connection: socket.socket) -> str:
    """Return what arrives until the server closes. A reset counts as the end."""
    got = b""
    with contextlib.suppress(ConnectionError):
        while data := connection.recv(65536):
            got += data
    return got.decode("latin-1")


def statuses(text: str) -> list[int]:
    return [int(status) for status in re.findall(r"HTTP/1\.1 (\d{3}) ", text)]


def is_well(server: WebServer) -> bool:
    """Assert that another sender can mint and open a page."""
    with contextlib.closing(Connection(server.port)) as connection:
        return [status for status, _ in visit(connection)] == [201, 200, 200]


@pytest.mark.parametrize("name", REFUSED)
def test_an_ambiguous_request_is_refused_and_its_hidden_request_is_never_answered(
    server: WebServer, name: str
) -> None:
    text, status = REFUSED[name]
    with sender(server, text) as connection:
        assert statuses(everything(connection)) == [status]
    log = server.log.read_text()
    assert "Traceback" not in log
    assert TOKEN[4:20] not in log


@pytest.mark.parametrize(
    "request_text",
    [
        f"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n{HIDDEN}",
        f"GET /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nGET /\r\n0\r\n\r\n{HIDDEN}",
        f"{POST}{CREDENTIALS}Transfer-Encoding: gzip, chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n{HIDDEN}",
    ],
    ids=["a tunnel", "chunks in a GET", "compressed chunks"],
)
def test_nothing_is_answered_after_a_request_with_an_unclear_end(
    server: WebServer, request_text: str
) -> None:
    with sender(server, request_text) as connection:
        (status,) = statuses(everything(connection))
    assert status in (400, 404, 415)
    assert "smuggled" not in server.log.read_text()


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_an_unread_body_is_not_taken_for_the_next_request(server: WebServer, method: str) -> None:
    last = "GET /the-last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with sender(server, f"{method} /nowhere HTTP/1.1\r\nHost: x\r\n{SIZE}\r\n{HIDDEN}{last}") as connection:
        assert statuses(everything(connection)) == [404, 404]
    assert "smuggled" not in server.log.read_text()


@pytest.mark.parametrize(
    "body",
    [
        f"Content-Length: 100000\r\n\r\n{'a' * 100_000}",
        f"Transfer-Encoding: chunked\r\n\r\n{100_000:x}\r\n{'a' * 100_000}\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n",
    ],
    ids=["length", "chunks", "malformed chunks"],
)
@pytest.mark.parametrize("credentials", ["", CREDENTIALS], ids=["of a stranger", "of a client"])
def test_an_answer_before_the_end_of_the_body_closes_the_connection(
    server: WebServer, body: str, credentials: str
) -> None:
    """A proxy would otherwise send another request on the same connection."""
    with sender(server, f"{POST}{credentials}{body}") as connection:
        answer = everything(connection)
    assert len(statuses(answer)) == 1
    assert "\r\nConnection: close\r\n" in answer


@pytest.mark.parametrize(
    "host", ["", "Host: \r\n", "X-Host: x\r\n"], ids=["no host", "an empty host", "another header"]
)
def test_http_1_1_without_a_host_is_400_and_http_1_0_needs_none(server: WebServer, host: str) -> None:
    """RFC 9112, 3.2. The address may be absolute and name a host."""
    for target in ("/healthz", "http://x/healthz"):
        with sender(server, f"GET {target} HTTP/1.1\r\n{host}Connection: close\r\n\r\n") as connection:
            assert statuses(everything(connection)) == [400]
        with sender(server, f"GET {target} HTTP/1.0\r\n{host}\r\n") as connection:
            assert everything(connection).startswith("HTTP/1.0 200 ")


@pytest.mark.parametrize(
    "path", ["//healthz", "///healthz", "/%2fhealthz", "//x/healthz", "http://x//healthz"]
)
def test_a_path_that_begins_with_two_slashes_is_404(server: WebServer, path: str) -> None:
    with sender(server, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n") as connection:
        assert statuses(everything(connection)) == [404]


def test_pipelined_requests_are_answered_in_order(server: WebServer) -> None:
    body = json.dumps(minting())
    mint = f"{POST}{CREDENTIALS}Content-Length: {len(body)}\r\n\r\n{body}"
    nowhere = "GET /nowhere HTTP/1.1\r\nHost: x\r\n"
    text = f"{mint}{nowhere}\r\n{mint}{nowhere}Connection: close\r\n\r\n"
    with sender(server, text) as connection:
        assert statuses(everything(connection)) == [201, 404, 201, 404]


@pytest.mark.parametrize(
    "host",
    [
        *(
            "a, b",
            "a/b",
            "a@b",
            "a b",
            "\ta",
            "\xff",
            "[::1",
            "[::1]:80",
            "x:y",
            "x:",
            "x:999999",
            ".",
            "-",
            "*",
        ),
        *('"><script>', "embed.example.", "a" * 8000, "%00", "../..", "localhost:1:2"),
    ],
)
def test_an_odd_host_is_not_repeated_and_never_a_server_error(server: WebServer, host: str) -> None:
    for path in ("/healthz", "/api/docs", "/nowhere", f"/embed-apps/{ORDERS}?personal-access-token={TOKEN}"):
        with sender(
            server, f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        ) as connection:
            answer = everything(connection)
        assert statuses(answer)[0] in (200, 400, 401, 404)
        assert len(host) < 5 or host.strip() not in answer


def test_no_address_or_host_of_a_request_gets_into_an_answer(server: WebServer) -> None:
    body = json.dumps(minting())
    text = (
        f"POST http://evil.example{MINT} HTTP/1.1\r\nHost: evil.example\r\nX-Forwarded-Host: evil.example\r\n"
        f"{CREDENTIALS}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    )
    with sender(server, text) as connection:
        answer = everything(connection)
    assert statuses(answer) == [201]
    assert "evil.example" not in answer


# Senders that send nothing, or half a request


def test_hundreds_of_silent_connections_occupy_no_thread(server: WebServer) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(sender(server))
        assert is_well(server)


def test_refused_senders_that_stay_connected_occupy_no_thread(server: WebServer) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(60):
            connection = stack.enter_context(sender(server, "GET / HTTP/7\r\n\r\n"))
            assert connection.recv(12) == b"HTTP/1.1 400"
        assert is_well(server)


def test_a_request_that_arrives_while_the_worker_is_paused_is_answered(environ: dict[str, str]) -> None:
    """On a busy machine a worker can be paused for seconds. A sender that waits then is not idle."""
    still = {"GUNICORN_CMD_ARGS": "--keep-alive 1 --worker-class tests.e2e.deploy.paused_worker.Worker"}
    ask = "GET /nowhere HTTP/1.1\r\nHost: x\r\n"
    with gunicorn(environ | still, workers=1) as server, sender(server, f"{ask}\r\n") as connection:
        assert connection.recv(12) == b"HTTP/1.1 404"
        connection.sendall(f"{ask}Connection: close\r\n\r\n".encode())
        assert statuses(everything(connection)) == [404]


def test_an_unfinished_request_frees_its_thread(environ: dict[str, str], tmp_path: Path) -> None:
    """More senders than threads send half a header, half a body, or single bytes."""
    log = tmp_path / "log"
    halves = ["GET / HTTP/1.1\r\nHost:", f"{POST}{CREDENTIALS}Content-Length: 100\r\n\r\n{{"]
    impatient = {"GUNICORN_CMD_ARGS": "--worker-class tests.e2e.deploy.short_wait_worker.Worker"}
    with gunicorn(environ | impatient, workers=1, log=log) as server, contextlib.ExitStack() as stack:
        slow = [stack.enter_context(sender(server, half)) for _ in range(6) for half in halves]
        assert is_well(server)
        answers = [statuses(everything(connection)) for connection in slow]
        assert answers == [[], [400]] * 6
    assert "Traceback" not in log.read_text()

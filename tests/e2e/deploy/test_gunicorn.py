"""The deployed service: gunicorn with gunicorn.conf.py, several workers, and Redis."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.support.http_calls import call, jwt_of, mint, open_frame, run_concurrently
from tests.support.people import KEY, MINT, ORDERS, SECRETS, basic, long_lived_service, provision
from tests.support.servers import WebServer, free_port, gunicorn, redis_server, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.redis]

PROJECT = Path(__file__).resolve().parents[3]
TOKEN = "pat_" + "ab" * 36
#: Each test that counts has a client of its own, with the default limit.
COUNTED = ("counted", "reborn")


@pytest.fixture(scope="module")
def environ(schema: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of an installation with the people of the tests."""
    folder = tmp_path_factory.mktemp("installation")
    with long_lived_service(schema, folder) as service:
        counted = [{"id": id_, "secret": SECRETS["portal"], "workspaces": ["acme"]} for id_ in COUNTED]
        provision(service.app, {"clients": counted})
    return {
        "SECRET_KEY": KEY,
        "PUBLIC_URL": "https://embed.example",
        "DATABASE_URL": f"sqlite:///{folder / 'pat-service.db'}",
    }


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    with redis_server() as url:
        yield url


@pytest.fixture(scope="module")
def fleet(
    environ: dict[str, str], store: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WebServer]:
    """Two workers that share a Redis."""
    settings = {"REDIS_URL": store, "OPEN_RATE_LIMIT": "5 per minute", "FAILURE_RATE_LIMIT": "7 per minute"}
    log = tmp_path_factory.mktemp("log") / "log"
    with gunicorn(environ | settings, workers=2, log=log) as server:
        yield server


# Several workers are one service


def test_ana_mints_and_opens_whichever_worker_answers(fleet: WebServer) -> None:
    minted = mint(fleet)
    assert minted.status == 201
    token = minted.json["personalAccessToken"]
    assert minted.json["redirectUrl"] == (
        f"https://embed.example/embed-apps/{ORDERS}?personal-access-token={token}"
    )
    page = open_frame(fleet, token)
    assert page.status == 200
    bearer = {"Authorization": f"Bearer {jwt_of(page)}"}
    facts = run_concurrently(8, lambda _: call(fleet, "GET", f"/embed-apps/{ORDERS}/session", bearer))
    assert {answer.status for answer in facts} == {200}
    assert call(fleet, "DELETE", f"/embed-apps/{ORDERS}/session", bearer).status == 204
    after = run_concurrently(8, lambda _: call(fleet, "GET", f"/embed-apps/{ORDERS}/session", bearer))
    assert {answer.json["code"] for answer in after} == {"session_revoked"}


def test_a_hundred_header_fields_are_accepted(fleet: WebServer) -> None:
    """http.client adds two: Host and Accept-Encoding."""
    for others, status in ((98, 200), (99, 431)):
        headers = {f"X-Other-{number}": "x" for number in range(others)}
        assert call(fleet, "GET", "/healthz", headers).status == status


def test_exactly_ten_of_forty_concurrent_mints_pass(fleet: WebServer) -> None:
    answers = run_concurrently(40, lambda _: mint(fleet, "counted", SECRETS["portal"]))
    assert Counter(answer.status for answer in answers) == {201: 10, 429: 30}
    for answer in answers:
        if answer.status == 429:
            assert 1 <= int(answer.headers["Retry-After"]) <= 61
            assert answer.json["code"] == "rate_limited"
    assert mint(fleet).status == 201  # another client is not affected


def test_exactly_five_of_twenty_concurrent_openings_of_one_token_pass(fleet: WebServer) -> None:
    token = mint(fleet, email="ben@acme.test").json["personalAccessToken"]
    answers = run_concurrently(20, lambda _: open_frame(fleet, token, Accept="application/json"))
    assert Counter(answer.status for answer in answers) == {200: 5, 429: 15}


def test_a_flood_of_wrong_secrets_is_limited_and_affects_no_client(fleet: WebServer) -> None:
    answers = run_concurrently(20, lambda _: mint(fleet, secret="w" * 40))
    assert Counter(answer.status for answer in answers) == {401: 7, 429: 13}
    assert mint(fleet).status == 201


def test_redis_holds_counters_and_no_token(fleet: WebServer, store: str) -> None:
    token = mint(fleet).json["personalAccessToken"]
    open_frame(fleet, token)
    with contextlib.closing(redis.Redis.from_url(store)) as connection:
        keys = [key.decode() for key in connection.scan_iter()]
    assert any("portal" in key for key in keys)
    assert not any("pat_" in key or token[4:] in key for key in keys)


def test_a_deployment_has_no_demo_portal(fleet: WebServer) -> None:
    answer = call(fleet, "GET", "/")
    assert answer.json["name"] == "pat-service"
    assert "Brackenford" not in answer.text


# The log


def test_each_request_is_one_line_of_json_without_its_query(fleet: WebServer) -> None:
    token = mint(fleet).json["personalAccessToken"]
    page = open_frame(fleet, token)
    jwt = jwt_of(page)
    bearer = {"Authorization": f"Bearer {jwt}"}
    answers = {
        "mint": mint(fleet),
        "refused mint": mint(fleet, secret="w" * 40),
        "page": page,
        "session": call(fleet, "GET", f"/embed-apps/{ORDERS}/session?x={jwt}", bearer),
        "refused page": open_frame(fleet, TOKEN),
        "not found": call(fleet, "GET", f"/nowhere?personal-access-token={token}"),
        "token in the path": call(fleet, "GET", f"/embed-apps/{token}"),
    }
    text = fleet.log.read_text()
    found: dict[str, list[Any]] = {
        name: [
            json.loads(line)
            for line in text.splitlines()
            if line.startswith("{") and answer.headers["X-Request-Id"] in line
        ]
        for name, answer in answers.items()
    }
    for name, lines in found.items():
        assert len(lines) == 1, name
        assert {"method", "path", "status", "ms", "request_id"} <= set(lines[0])
        assert lines[0]["status"] == answers[name].status
        assert "?" not in lines[0]["path"]
    assert found["mint"][0]["client_id"] == "portal"
    assert found["mint"][0]["path"] == MINT
    assert "client_id" not in found["refused mint"][0]
    assert found["session"][0]["session_id"]
    for secret in (token, token[4:], jwt, jwt.split(".")[2], SECRETS["portal"], "w" * 40):
        assert secret not in text


MALFORMED = [
    "GET {path} HTTP/9.9",
    "GET {path}",
    "GET {path} and more HTTP/1.1",
    "GET {path}\0 HTTP/1.1",
    "G@T {path} HTTP/1.1",
    "{token} / HTTP/1.1",
    "GET http://[::1{path} HTTP/1.1",
    "GET {path}" + "a" * 9000 + " HTTP/1.1",
    "PROXY TCP4 {token} 127.0.0.1 1 2",
    "GET / HTTP/1.1\r\nHost: x\r\nX {token}: y",
    "GET / HTTP/1.1\r\nHost: x\r\n{token}",
    "GET / HTTP/1.1\r\nHost: x\r\nReferer: {path}" + "a" * 9000,
    "GET / HTTP/1.1\r\nHost: x\r\nReferer: {path}\0",
    "GET / HTTP/1.1\r\nHost: x\r\nAuthorization Basic {basic}",
    "GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {basic}\0",
    "GET / HTTP/1.1\r\nHost: x\r\n Authorization: Basic {basic}",
    "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {token}",
    "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: {token}",
    "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{token}",
    "POST / HTTP/1.1\r\nHost: x\r\nExpect: {token}",
    "GET / HTTP/1.1\r\nHost: x\r\n\r\nGET {path} HTTP/7",
    "GET /{token} HTTP/1.1\r\nHost: {token}@[[",
]


def send_raw(server: WebServer, text: str) -> str:
    """Send this text as it is, and return everything that comes back."""
    received = b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(text.encode("latin-1"))
        connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while part := connection.recv(4096):
                received += part
    return received.decode("latin-1")


def test_a_request_that_gunicorn_refuses_leaks_no_secret(fleet: WebServer) -> None:
    credentials = b64encode(b"portal:correct horse battery staple, and more").decode()
    path = f"/embed-apps/{ORDERS}?personal-access-token={TOKEN}"
    before = len(fleet.log.read_text())
    answers = ""
    for request in MALFORMED:
        filled = request.replace("{path}", path).replace("{token}", TOKEN).replace("{basic}", credentials)
        answers += send_raw(fleet, filled + "\r\n\r\n")
    assert call(fleet, "GET", "/after-all-that").status == 404
    text = fleet.log.read_text()[before:]
    assert text.count("Invalid request") >= len(MALFORMED) // 2
    assert "Traceback" not in text
    assert answers.count("400 Bad Request") >= len(MALFORMED) // 2
    for shown in (text, answers):
        assert TOKEN[4:20] not in shown
        assert credentials[:16] not in shown


@pytest.mark.parametrize(
    ("request_text", "status", "code"),
    [
        ("get / HTTP/1.1\r\nHost: x", 400, "invalid_payload"),
        ("GET /embed-apps/x HTTP/1.1\r\nHost: x\r\nContent-Length: many", 400, "invalid_payload"),
        ("GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: rot13", 501, "not_implemented"),
    ],
)
def test_a_request_that_gunicorn_refuses_gets_a_problem_document(
    fleet: WebServer, request_text: str, status: int, code: str
) -> None:
    head, _, body = send_raw(fleet, request_text + "\r\n\r\n").partition("\r\n\r\n")
    first, *lines = head.split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    assert first.startswith(f"HTTP/1.1 {status} ")
    problem = json.loads(body)
    assert (problem["status"], problem["code"], problem["message"]) == (status, code, problem["detail"])
    assert ("errors" in problem) == (status == 400)
    assert headers["Content-Type"] == "application/problem+json"
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Request-Id"] == problem["requestId"]
    assert problem["requestId"] in fleet.log.read_text()


def test_gunicorns_own_access_log_shows_no_token(environ: dict[str, str], tmp_path: Path) -> None:
    log = tmp_path / "log"
    settings = {"GUNICORN_CMD_ARGS": "--access-logfile=- --log-level=debug"}
    with gunicorn(environ | settings, workers=1, log=log) as server:
        token = mint(server).json["personalAccessToken"]
        page = open_frame(server, token, Referer=f"https://embed.example/?personal-access-token={token}")
        assert page.status == 200
    text = log.read_text()
    assert f'"GET /embed-apps/{ORDERS}?[hidden] HTTP/1.1\\" 200' in text  # the access log was on
    assert token[4:] not in text
    assert jwt_of(page) not in text


# Start


def start(*args: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Start gunicorn, check that it refuses, and return its output."""
    return subprocess.run(
        [sys.executable, "-m", "gunicorn", *args, "app:create_app()"],
        cwd=PROJECT,
        env={"PATH": os.environ["PATH"], "PORT": str(free_port())} | environ,
        capture_output=True,
        text=True,
        timeout=60,
    )


OUTSIDE = {"SECRET_KEY": KEY, "PUBLIC_URL": "https://embed.example"}


@pytest.mark.parametrize(
    ("args", "environ", "named"),
    [
        ([], {"PUBLIC_URL": "https://embed.example"}, "SECRET_KEY"),
        ([], OUTSIDE | {"DATABASE_URL": "mysql://ana:correct-horse@db/pat"}, "DATABASE_URL"),
        (["-w", "2"], OUTSIDE, "REDIS_URL"),
        (["--workers=3"], OUTSIDE | {"WEB_CONCURRENCY": "1"}, "REDIS_URL"),
        ([], OUTSIDE | {"GUNICORN_CMD_ARGS": "--workers 2"}, "REDIS_URL"),
    ],
    ids=str,
)
def test_an_unsafe_setting_stops_the_start_with_one_line(
    args: list[str], environ: dict[str, str], named: str
) -> None:
    done = start(*args, **environ)
    assert done.returncode == 1
    said = done.stdout + done.stderr
    assert len(said.splitlines()) == 1, said
    assert said.startswith(f"pat-service: {named} ")
    assert "Listening" not in said
    assert "Traceback" not in said
    assert "correct-horse" not in said


# Stop


def test_a_request_in_progress_is_answered_before_the_worker_stops(
    environ: dict[str, str], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    body = json.dumps({"email": "ana@acme.test", "appSlug": "orders", "sessionExpiry": 60, "patExpiry": 9})
    head = (
        f"POST {MINT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n"
        f"Authorization: {basic('portal')['Authorization']}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with gunicorn(environ, workers=1, log=log) as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as slow:
            slow.sendall((head + body[:5]).encode())
            assert mint(server).status == 201  # the worker has accepted both requests
            server.process.send_signal(signal.SIGTERM)
            wait_for(lambda: "Handling signal: term" in log.read_text())
            slow.sendall(body[5:].encode())
            answer = slow.makefile("rb").read()
        assert answer.startswith(b"HTTP/1.1 201 ")
        assert server.process.wait(30) == 0
    assert "Traceback" not in log.read_text()
    assert "Shutting down" in log.read_text()

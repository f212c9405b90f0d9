"""Every failure of every route is a problem (RFC 9457) with the request's id and without internals."""

import http.client
import json
import re
import sqlite3
from collections import defaultdict
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from shutil import copy
from typing import Any

import pytest
from flask import Flask, Response
from werkzeug.exceptions import abort, default_exceptions
from werkzeug.routing import Rule
from werkzeug.test import TestResponse

from pat_service.credentials import generate
from pat_service.storage import database, prepared
from pat_service.storage.database import db
from pat_service.storage.models import Event, Session, Token
from tests.support.people import (
    KEY,
    LEDGER,
    MINT,
    MINT_BODY,
    ORDERS,
    PUBLIC_URL,
    WORLD,
    Frame,
    Service,
    basic,
    database_folder,
    problem_of,
    provision,
)
from tests.support.servers import free_port, gunicorn

EXCHANGE = "/api/ext/users/session"
FRAME = f"/embed-apps/{ORDERS}"
JSON = {"Accept": "application/json"}
#: The variable parts of routes.
PARTS = {"app_id": ORDERS, "filename": "no-such-file.css", "kind": "js"}
NAMES = {"embed.data": "orders.csv", "embed.page": "index", "embed.submit": "index"}
#: The code of a status that the framework or an app raises.
CODES = {
    **{400: "invalid_payload", 404: "not_found", 405: "method_not_allowed", 409: "conflict"},
    **{413: "payload_too_large", 415: "unsupported_media_type", 429: "rate_limited"},
    **{500: "internal_error", 503: "unavailable"},
}
ACTIONS = ("mint", "exchange", "open", "open by form", "facts", "end", "page", "submit", "data")


def act(service: Service, name: str, token: str, frame: Frame) -> TestResponse:
    """Do an action that needs the database, as a caller who wants JSON."""
    if name == "mint":
        return service.mint(email="ben@acme.test")
    if name == "exchange":
        return service.client.post(EXCHANGE, json={"appId": ORDERS, "accessToken": token})
    if name == "open":
        return service.open(token, Accept="application/json")
    method, path, data = {
        "open by form": ("POST", "", {"personal-access-token": token}),
        "facts": ("GET", "/session", None),
        "end": ("DELETE", "/session", None),
        "page": ("GET", "/pages/index", None),
        "submit": ("POST", "/pages/create", {"subject": "x"}),
        "data": ("GET", "/data/orders.csv", None),
    }[name]
    return service.client.open(FRAME + path, method=method, data=data, headers=frame.bearer | JSON)


def address_of(app: Flask, rule: Rule) -> str:
    values = defaultdict(lambda: LEDGER, PARTS | {"name": NAMES.get(rule.endpoint, "")})
    path: str = app.url_map.bind("localhost").build(
        rule.endpoint, {name: values[name] for name in rule.arguments}, next(iter(rule.methods or ()))
    )
    return path


def methods_by_address(app: Flask) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for rule in app.url_map.iter_rules():
        found.setdefault(address_of(app, rule), set()).update((rule.methods or set()) - {"OPTIONS", "HEAD"})
    return found


#: The proxy of upstream apps reads nothing but statuses here; see tests/gateway.
FOR_PROXIES = ("/internal/embed-auth", "/internal/embed-socket")

# 404 and 405.


@pytest.mark.parametrize(
    "path",
    [
        *("/nothing", "/api", "/api/", "/api/ext", "/api/ext/nothing", f"{MINT}/", f"{EXCHANGE}/"),
        *(f"/{MINT}", MINT.upper(), "/static", "/static/", "/static//etc/passwd", "/x" * 2000, "/.env"),
        *("/embed-apps", "/embed-apps/", f"{FRAME}/", f"{FRAME}/nothing", f"{FRAME}/pages", f"{FRAME}/data/"),
        *(f"{FRAME}/pages/Index", f"{FRAME}/pages/_chart", f"{FRAME}/pages/index.html", f"{FRAME}/data/.."),
        *("/%00", "/%ff", "/%0d%0aSet-Cookie:%20x=y", "/\N{OWL}", "/api/openapi.json/"),
    ],
)
def test_an_unknown_address_is_not_found(shared: Service, path: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        answer = shared.client.open(path, method=method, headers=JSON)
        problem_of(answer, 404, "not_found")
        assert "Location" not in answer.headers


@pytest.mark.parametrize(
    "path", ["nothing", "../app.py", "..%2fapp.py", "%2e%2e/app.py", "embed", "/etc/passwd"]
)
def test_no_other_file_is_served(shared: Service, path: str) -> None:
    problem_of(shared.client.get(f"/static/{path}"), 404, "not_found")


def test_every_route_refuses_other_methods(shared: Service) -> None:
    addresses = methods_by_address(shared.app)
    assert {MINT, EXCHANGE, FRAME, f"{FRAME}/session", f"{FRAME}/pages/index"} <= set(addresses)
    for path, methods in addresses.items():
        if path in FOR_PROXIES:
            continue
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "BREW"} - methods:
            answer = shared.client.open(path, method=method, headers=JSON)
            problem_of(answer, 405, "method_not_allowed")
            allowed = set(answer.headers["Allow"].split(", "))
            assert allowed - {"OPTIONS", "HEAD"} == methods, (path, method)


def test_a_refused_head_request_has_headers_and_no_body(shared: Service) -> None:
    below = ("", "/frame", "/session", "/pages/index", "/data/orders.csv")
    for path in (MINT, EXCHANGE, *(FRAME + rest for rest in below)):
        answer = shared.client.head(path, headers=JSON)
        assert (answer.status_code, answer.content_type) == (405, "application/problem+json")
        assert answer.headers["X-Request-Id"]
        assert answer.data == b""


# 500.

INTERNAL_TEXT = "SELECT secret FROM customers"


def test_a_failing_view_answers_a_problem_without_internals(
    shared: Service,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    request_lines: Callable[[], list[dict[str, Any]]],
) -> None:
    def fail(**_: Any) -> None:
        raise RuntimeError(INTERNAL_TEXT)

    for rule in shared.app.url_map.iter_rules():
        if rule.rule in FOR_PROXIES:
            continue
        with monkeypatch.context() as patched:
            patched.setitem(shared.app.view_functions, rule.endpoint, fail)
            for method in (rule.methods or set()) - {"OPTIONS", "HEAD"}:
                caplog.clear()
                answer = shared.client.open(address_of(shared.app, rule), method=method, headers=JSON)
                problem = problem_of(answer, 500, "internal_error")
                assert "Retry-After" not in answer.headers
                assert "RuntimeError" not in answer.text
                assert INTERNAL_TEXT not in answer.text
                assert any(record.exc_info for record in caplog.records)
                line = request_lines()[-1]
                assert (line["status"], line["request_id"]) == (500, problem["requestId"])


def test_a_failing_rule_is_rolled_back(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    token = service.token()

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError(INTERNAL_TEXT)

    def execute(connection: Any, compiled: Any, values: Any) -> Any:
        return fail() if "INTO events" in compiled.text else directly(connection, compiled, values)

    directly = prepared.execute
    with monkeypatch.context() as patched:
        patched.setattr("pat_service.storage.prepared.insert", fail)
        patched.setattr("pat_service.storage.prepared.execute", execute)
        problem_of(service.mint(), 500, "internal_error")
        problem_of(service.mint(endSessions=True), 500, "internal_error")
        problem_of(service.open(token, Accept="application/json"), 500, "internal_error")
    assert service.count(Session) == 0
    assert service.open(token).status_code == 200
    assert service.mint().status_code == 201


# Errors of an app's own functions.


@pytest.mark.parametrize("status", sorted(default_exceptions))
def test_an_apps_http_error_is_a_problem_with_its_status(
    shared: Service, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setitem(shared.app.view_functions, "embed.data", lambda **_: abort(status))
    answer = shared.client.get(f"{FRAME}/data/orders.csv")
    code = (answer.json or {})["code"]
    problem_of(answer, status, code)
    assert re.fullmatch("[a-z]+(_[a-z]+)*", code)
    assert code == CODES.get(status, code)


def test_an_app_can_abort_with_its_own_response(shared: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    own = Response("Ask Ben.", 403)
    monkeypatch.setitem(shared.app.view_functions, "embed.data", lambda **_: abort(own))
    answer = shared.client.get(f"{FRAME}/data/orders.csv")
    assert (answer.status_code, answer.text) == (403, "Ask Ben.")


# 503: the database is unavailable.


def break_database(folder: Path, harm: str) -> None:
    """Remove the database's files, and leave this in their place."""
    database = folder / "pat-service.db"
    half = database.read_bytes()[:6000]
    for file in folder.glob("pat-service.db*"):
        file.unlink()
    if harm == "a folder":
        database.mkdir()
    elif harm == "another database":
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("CREATE TABLE unrelated (id INTEGER)")
    elif harm != "nothing":
        database.write_bytes(half if harm == "half" else b"This is no database. " * 1000)


def unavailable(answer: TestResponse) -> None:
    problem_of(answer, 503, "unavailable")
    assert 1 <= int(answer.headers["Retry-After"]) <= 60


@pytest.mark.parametrize("harm", ["nothing", "garbage", "a folder", "another database", "half"])
def test_without_a_usable_database_every_request_gets_503(
    service: Service, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    frame = service.frame()
    token = service.token()
    with service.app.app_context():
        db.engine.dispose()
    break_database(database_folder(service.app), harm)
    for name in ACTIONS:
        unavailable(act(service, name, token, frame))
    # Without a database, the service cannot call a secret wrong.
    unavailable(service.client.post(MINT, json=MINT_BODY, headers=basic("portal", "w" * 40)))
    assert token not in caplog.text
    assert frame.jwt not in caplog.text
    # Requests that need no database get their usual answer.
    problem_of(service.client.get("/nothing"), 404, "not_found")
    problem_of(service.open("pat_0", Accept="application/json"), 401, "token_invalid")


@pytest.fixture
def impatient(make_app: Callable[..., Flask], monkeypatch: pytest.MonkeyPatch) -> Service:
    """A service that waits 0.1 s for a lock instead of 5 s."""
    monkeypatch.setattr(database, "STATEMENT_TIMEOUT_MS", 100)
    app = make_app()
    provision(app, WORLD)
    return Service(app.test_client())


def test_while_the_database_is_locked_writes_get_503_and_change_nothing(
    impatient: Service, tmp_path: Path
) -> None:
    frame = impatient.frame()
    token = impatient.token()
    before = [impatient.count(table) for table in (Session, Event)]
    other = sqlite3.connect(tmp_path / "pat-service.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for name in ("mint", "exchange", "open", "open by form", "end"):
        unavailable(act(impatient, name, token, frame))
    # SQLite's readers do not wait for writers.
    assert act(impatient, "facts", token, frame).status_code == 200
    other.execute("ROLLBACK")
    other.close()
    with database._sqlite_writers:
        for name in ("mint", "exchange", "open", "end"):
            unavailable(act(impatient, name, token, frame))
    after = [impatient.count(table) for table in (Session, Event)]
    assert after == before
    assert impatient.count(Token) == 1
    for name in ACTIONS[:4]:
        assert act(impatient, name, token, frame).status_code in (200, 201)


def test_a_refusal_stays_the_same_if_its_event_cannot_be_recorded(impatient: Service, tmp_path: Path) -> None:
    old, _ = impatient.token(), impatient.token()
    other = sqlite3.connect(tmp_path / "pat-service.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert impatient.refusal(old) == "token_superseded"
    problem_of(impatient.mint(email="nobody@acme.test"), 404, "user_not_found")
    other.execute("ROLLBACK")
    other.close()


# 503: Redis is unavailable.


@pytest.fixture
def without_redis(make_app: Callable[..., Flask]) -> Service:
    """A service without an available Redis."""
    app = make_app(REDIS_URL=f"redis://127.0.0.1:{free_port()}/0")
    provision(app, WORLD)
    return Service(app.test_client())


def test_without_redis_every_limited_request_gets_503(without_redis: Service) -> None:
    unavailable(without_redis.mint())
    unavailable(without_redis.client.post(MINT, json=MINT_BODY, headers=basic("portal", "w" * 40)))
    token = generate("pat").reveal()
    unavailable(without_redis.client.post(EXCHANGE, json={"appId": ORDERS, "accessToken": token}))
    unavailable(without_redis.open(token, Accept="application/json"))
    for table in (Token, Session):
        assert without_redis.count(table) == 0
    # Refusals before the limit stay the same.
    problem_of(without_redis.mint(client="auditor"), 403, "scope_missing")
    problem_of(without_redis.open("pat_0", Accept="application/json"), 401, "token_invalid")


def test_open_frames_work_without_redis_unless_they_have_a_limit(
    make_app: Callable[..., Flask],
) -> None:
    app = make_app()
    provision(app, WORLD)
    frame = Service(app.test_client()).frame()
    unavailable_redis = f"redis://127.0.0.1:{free_port()}/0"
    unlimited = make_app(REDIS_URL=unavailable_redis).test_client()
    assert unlimited.get(f"{FRAME}/session", headers=frame.bearer).status_code == 200
    limited = make_app(REDIS_URL=unavailable_redis, SESSION_RATE_LIMIT="100 per minute").test_client()
    unavailable(limited.get(f"{FRAME}/session", headers=frame.bearer))


# The request's id.


def test_every_answer_has_its_own_request_id_and_the_log_has_the_same(
    shared: Service, request_lines: Callable[[], list[dict[str, Any]]]
) -> None:
    token = shared.token()
    answers = [
        shared.mint(),
        shared.mint(patExpiry=0),
        shared.open(token),
        shared.client.get("/nothing"),
        shared.client.get("/api/openapi.json"),
        shared.client.options(MINT),
    ]
    ids = [answer.headers["X-Request-Id"] for answer in answers]
    assert len(set(ids)) == len(ids)
    assert [line["request_id"] for line in request_lines()][-len(ids) :] == ids


@pytest.mark.parametrize("given", ["0123456789abcdef", "x", "", "<script>", "a" * 10_000, "á" * 10])
def test_a_strangers_request_id_is_ignored(shared: Service, given: str) -> None:
    answer = shared.client.get("/nothing", headers={"X-Request-Id": given})
    assert re.fullmatch(r"[0-9a-f-]{36}", problem_of(answer, 404, "not_found")["requestId"])


def test_a_trusted_proxys_request_id_is_used_if_it_is_valid(make_app: Callable[..., Flask]) -> None:
    client = make_app(TRUSTED_PROXIES="1").test_client()
    for given in ("0123456789abcdef", "req_01.AZ-az", "a" * 64):
        answer = client.get("/nothing", headers={"X-Request-Id": given})
        assert problem_of(answer, 404, "not_found")["requestId"] == given
    for given in ("short", "a" * 65, "white space", '"quoted"', "{}{}{}{}", "<script>"):
        answer = client.get("/nothing", headers={"X-Request-Id": given})
        assert re.fullmatch(r"[0-9a-f-]{36}", problem_of(answer, 404, "not_found")["requestId"])


@pytest.mark.slow
def test_a_real_server_ignores_a_proxys_headers_without_trusted_proxies(schema: Path, tmp_path: Path) -> None:
    """The server trusts TRUSTED_PROXIES only, not the loopback address that proxies often use."""
    copy(schema, tmp_path / "pat-service.db")
    database = f"sqlite:///{tmp_path / 'pat-service.db'}"
    environ = {"SECRET_KEY": KEY, "PUBLIC_URL": PUBLIC_URL, "DATABASE_URL": database}
    with gunicorn(environ, workers=1) as server:
        for header in ("SCRIPT_NAME", "PATH_INFO", "X-Forwarded-Proto", "X-Forwarded-For", "X-Request-Id"):
            with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)) as connection:
                connection.request("GET", "/nothing", headers={header: "/api/openapi.json"})
                answer = connection.getresponse()
                kind = answer.headers["Content-Type"]
                assert (header, answer.status, kind) == (header, 404, "application/problem+json")
                assert json.load(answer)["requestId"] == answer.headers["X-Request-Id"]


# Pages and JSON.


def test_the_api_always_answers_in_json(shared: Service) -> None:
    for accept in ("text/html", "*/*", "", "image/png"):
        answer = shared.client.post(MINT, json=MINT_BODY, headers={"Accept": accept})
        problem_of(answer, 401, "invalid_client")


def test_no_part_of_a_request_becomes_markup_in_the_answer(shared: Service) -> None:
    evil = "<script>alert(1)</script>"
    answers = [
        shared.mint(json.dumps({evil: evil})),
        shared.mint(email=f"{evil}@acme.test"),
        shared.client.get(f"/{evil}"),
        shared.client.get(f"{FRAME}/pages/{evil}"),
    ]
    for answer in answers:
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.mimetype == "application/problem+json" or evil not in answer.text

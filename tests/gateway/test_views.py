"""The answers to the proxy and to the relay, as sessions begin, change and end."""

import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any, Final

import pytest
import time_machine
from limits.errors import StorageError
from sqlalchemy import select, update

from pat_service.credentials import Keyring
from pat_service.gateway import views
from pat_service.http import limits
from pat_service.http.authentication import utcnow
from pat_service.rules import events, sessions
from pat_service.storage.models import App, Session, new_id
from tests.support.people import (
    ACCESS_LOSSES,
    KEY,
    NEW_KEY,
    ORDERS,
    PORTAL,
    WORLD,
    Service,
    basic,
    lose_the_database,
    provision,
)
from tests.support.shared_fixtures import MakeService
from tests.support.upstreams import (
    REPORT,
    SALES,
    SETTINGS,
    UPSTREAM,
    Gateway,
    Opened,
    add_sales,
    cookie_header,
    cookies_of,
    refusal_of,
)

INVALID: Final = (401, "session_invalid")
MISSING: Final = (401, "session_missing")
UNAVAILABLE: Final = (403, "unavailable")


def codes(gateway: Gateway, frame: Opened) -> set[tuple[int, str]]:
    """Return the refusals of the proxy's and of the relay's question."""
    return {refusal_of(gateway.ask(frame.host, frame.cookie, path=path)) for path in ("auth", "socket")}


def renew(gateway: Gateway, frame: Opened, **fields: Any) -> Opened:
    """Renew the session as frame.js does."""
    _, token = gateway.mint(**fields)
    answer = gateway.hand_over(frame.host, token, cookies=frame.cookies, session=frame.jwt)
    assert answer.status_code == 200, answer.text
    both = frame.cookies | cookies_of(answer)
    return Opened(frame.host, answer.json["session"], both, answer)  # type: ignore[index]


def forget(frame: Opened, other: Opened) -> Opened:
    """Return the frame without the cookies of the other one."""
    kept = {name: value for name, value in frame.cookies.items() if name not in other.cookies}
    return Opened(frame.host, frame.jwt, kept, frame.answer)


def session_id_of(frame: Opened) -> str:
    found = Keyring(KEY).read_cookie(next(iter(frame.cookies.values())))
    assert found is not None
    return found


# Admission.


def test_ana_reaches_her_app(on_both: Gateway) -> None:
    frame = on_both.open()
    for path in ("auth", "socket"):
        answer = on_both.ask(frame.host, frame.cookie, path=path)
        assert answer.status_code == 200
        assert answer.data == b""
        assert answer.headers["X-Embed-Upstream"] == UPSTREAM
        assert answer.headers["X-Embed-Policy"] == f"frame-ancestors 'self' {PORTAL}"
        assert answer.headers["Cache-Control"] == "no-store"
        assert "X-Embed-Code" not in answer.headers


def test_a_request_costs_one_query(on_both: Gateway) -> None:
    frame = on_both.open()
    with on_both.service.statements() as asked:
        assert on_both.ask(frame.host, frame.cookie).status_code == 200
    assert len(asked) == 1


def test_the_policy_names_the_origins_that_the_token_allows(gateway: Gateway) -> None:
    add_sales(gateway.service, allowed_origins=["https://other.example", PORTAL])
    frame = gateway.open(allowedOrigins=[PORTAL])
    answer = gateway.ask(frame.host, frame.cookie)
    assert answer.headers["X-Embed-Policy"] == f"frame-ancestors 'self' {PORTAL}"
    add_sales(gateway.service, allowed_origins=["*"])
    frame = gateway.open()
    answer = gateway.ask(frame.host, frame.cookie)
    assert answer.headers["X-Embed-Policy"] == "frame-ancestors 'self' *"
    add_sales(gateway.service)


def test_an_upgrade_that_the_proxy_passes_on_changes_nothing(gateway: Gateway) -> None:
    frame = gateway.open()
    answer = gateway.ask(
        frame.host,
        frame.cookie,
        Connection="Upgrade",
        Upgrade="websocket",
        X_Forwarded_Upgrade="websocket",
        Origin=f"https://{frame.host}",
    )
    assert answer.status_code == 200
    assert refusal_of(gateway.ask(frame.host, "", Connection="Upgrade", Upgrade="websocket")) == MISSING


# Cookies.


@pytest.mark.parametrize(
    "cookie",
    [
        *(
            "",
            ";",
            "=",
            "a=b",
            "__Host-pat-",
            "__Host-pat-=x",
            "__Host-pat-12345678=",
            "__Host-pat-12345678=x",
        ),
        *(f"__Host-pat-12345678={'A' * 43}", f"__Host-pat-12345678={'-' * 43}", "\udcff=\udcff", "ö=ö; ; ;"),
        *("__Host-pat-12345678=" + "A" * 8000, "__host-pat-12345678=" + "A" * 43),
    ],
)
def test_without_a_genuine_cookie_there_is_no_query(gateway: Gateway, cookie: str) -> None:
    host = gateway.mint()[0]
    with gateway.service.statements() as asked:
        answer = gateway.ask(host, cookie.encode("utf-8", "surrogateescape").decode("latin-1"))
    assert refusal_of(answer) == MISSING
    assert asked == []


def test_no_change_of_a_cookie_is_genuine(gateway: Gateway) -> None:
    ana, ben = gateway.open(), gateway.open("ben@acme.test")
    ((name, value),), ((other, others),) = ana.cookies.items(), ben.cookies.items()
    wrong = {
        "a swapped MAC": {name: value[:21] + others[21:]},
        "another key": {name: Keyring(NEW_KEY).sign_cookie(session_id_of(ana))},
        "another name": {other: value},
        "a cut value": {name: value[:-1]},
        "padding": {name: f"{value}="},
        "quotes": {name: f'"{value}"'},
        "another case": {name.upper(): value},
    }
    changed = {name: value[:30] + ("A" if value[30] != "A" else "B") + value[31:]}
    for what, cookies in (wrong | {"a changed letter": changed}).items():
        assert refusal_of(gateway.ask(ana.host, cookie_header(cookies))) == MISSING, what
    assert gateway.ask(ana.host, ana.cookie).status_code == 200


def test_bens_genuine_cookie_opens_nothing_at_anas_host(on_both: Gateway) -> None:
    ana, ben = on_both.open(), on_both.open("ben@acme.test")
    assert ana.host != ben.host
    assert refusal_of(on_both.ask(ana.host, ben.cookie)) == INVALID
    # Her own cookie counts all the same.
    for both in (ana.cookies | ben.cookies, ben.cookies | ana.cookies):
        answer = on_both.ask(ana.host, cookie_header(both))
        assert answer.headers["X-Forwarded-Email"] == "ana@acme.test"


def test_a_session_of_a_template_app_has_no_cookie_and_opens_no_upstream(gateway: Gateway) -> None:
    host, token = gateway.mint(appSlug="orders")
    client = gateway.service.app.test_client(use_cookies=False)
    body = {"accessToken": token, "parentOrigin": PORTAL}
    answer = client.post(f"/embed-apps/{ORDERS}/frame", json=body, headers={"Host": host})
    assert answer.status_code == 200
    assert "Set-Cookie" not in answer.headers
    id_ = Keyring(KEY).read_session(answer.json["session"], ORDERS).session_id  # type: ignore[index]
    forged = f"__Host-pat-{id_[-8:]}={Keyring(KEY).sign_cookie(id_)}"
    assert refusal_of(gateway.ask(gateway.mint()[0], forged)) == INVALID
    assert refusal_of(gateway.ask(host, forged)) == (403, "not_found")


def test_the_session_of_another_app_with_the_same_viewer_is_not_valid(gateway: Gateway) -> None:
    frame = gateway.open()
    id_ = new_id()
    unknown = f"__Host-pat-{id_[-8:]}={Keyring(KEY).sign_cookie(id_)}"
    assert refusal_of(gateway.ask(frame.host, unknown)) == INVALID
    assert gateway.ask(frame.host, f"{unknown}; {frame.cookie}").status_code == 200


def test_of_many_cookies_the_newest_eight_count(gateway: Gateway) -> None:
    frame = gateway.open()
    ids = [f"7fffffff-0000-7000-8000-00000000000{number}" for number in range(8)]
    newer = {f"__Host-pat-{id_[-8:]}": Keyring(KEY).sign_cookie(id_) for id_ in ids}
    with gateway.service.statements() as asked:
        assert refusal_of(gateway.ask(frame.host, cookie_header(frame.cookies | newer))) == INVALID
    assert len(asked) == 8
    newer.popitem()
    assert gateway.ask(frame.host, cookie_header(frame.cookies | newer)).status_code == 200


def test_cookies_and_hosts_of_a_fallback_key_count(
    make_shared: MakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = Gateway(make_shared(**SETTINGS))
    add_sales(gateway.service)
    frame = gateway.open()
    extensions = gateway.service.app.extensions
    monkeypatch.setitem(extensions, "pat_service.keyring", Keyring(NEW_KEY, (KEY,)))
    assert gateway.ask(frame.host, frame.cookie).status_code == 200
    assert gateway.session(frame).json["cookie"] is True  # type: ignore[index]
    newer = gateway.open()
    assert newer.host != frame.host
    assert gateway.ask(newer.host, newer.cookie).status_code == 200
    # A session that was opened before the rotation is renewed at its own host.
    renewed = renew(gateway, frame)
    assert gateway.ask(frame.host, forget(renewed, frame).cookie).status_code == 200
    monkeypatch.setitem(extensions, "pat_service.keyring", Keyring(NEW_KEY))
    assert refusal_of(gateway.ask(frame.host, frame.cookie)) == MISSING
    assert refusal_of(gateway.ask(frame.host, newer.cookie)) == INVALID


# Sessions.


def test_an_expired_session_ends_at_its_second(on_both: Gateway, clock: time_machine.Traveller) -> None:
    frame = on_both.open(sessionExpiry=1)
    clock.shift(timedelta(seconds=59, milliseconds=999))
    assert on_both.ask(frame.host, frame.cookie).status_code == 200
    clock.shift(timedelta(milliseconds=1))
    assert codes(on_both, frame) == {(401, "session_expired")}


def test_a_revocation_counts_on_the_next_request(on_both: Gateway) -> None:
    frame = on_both.open()
    assert on_both.session(frame, "DELETE").status_code == 204
    assert codes(on_both, frame) == {(401, "session_revoked")}


@pytest.mark.parametrize("loss", ACCESS_LOSSES)
def test_ana_who_loses_her_access_is_refused(on_both: Gateway, loss: str) -> None:
    frame = on_both.open()
    lost = json.loads(json.dumps(ACCESS_LOSSES[loss]).replace(ORDERS, SALES).replace("orders", "sales"))
    for app in lost.get("apps", ()):
        del app["template"]
        app |= {"upstream": UPSTREAM, "name": "Sales"}
    provision(on_both.service.app, lost)
    assert codes(on_both, frame) == {(401, "access_revoked")}
    provision(on_both.service.app, WORLD)
    add_sales(on_both.service)
    assert on_both.ask(frame.host, frame.cookie).status_code == 200


def test_an_app_that_moved_is_not_reached(on_both: Gateway) -> None:
    frame = on_both.open()
    on_both.service.change(update(App).where(App.id == SALES).values(moves=App.moves + 1))
    assert codes(on_both, frame) == {(401, "access_revoked")}


def test_a_renamed_app_is_not_reached_at_its_old_host(on_both: Gateway) -> None:
    frame = on_both.open()
    on_both.service.change(update(App).where(App.id == SALES).values(slug="renamed"))
    assert codes(on_both, frame) == {INVALID}
    on_both.service.change(update(App).where(App.id == SALES).values(slug="sales"))
    assert on_both.ask(frame.host, frame.cookie).status_code == 200


def test_an_app_that_got_a_template_is_not_reached(on_both: Gateway) -> None:
    frame = on_both.open()
    on_both.service.change(update(App).where(App.id == SALES).values(upstream=None, template="orders"))
    assert codes(on_both, frame) == {INVALID}
    on_both.service.change(update(App).where(App.id == SALES).values(upstream=UPSTREAM, template="upstream"))


# Renewals.


def test_the_first_request_of_a_renewed_session_ends_the_former_one(on_both: Gateway) -> None:
    frame = on_both.open()
    renewed = renew(on_both, frame)
    assert on_both.ask(frame.host, frame.cookie).status_code == 200
    # The browser sends both cookies, and the newer one counts.
    assert on_both.ask(frame.host, renewed.cookie).status_code == 200
    assert refusal_of(on_both.ask(frame.host, frame.cookie)) == (401, "session_replaced")
    assert on_both.ask(frame.host, renewed.cookie).status_code == 200


def test_concurrent_requests_of_a_renewed_session_are_all_answered(on_both: Gateway) -> None:
    frame = on_both.open()
    renewed = renew(on_both, frame)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: on_both.ask(frame.host, renewed.cookie).status_code, range(24)))
    assert answers == [200] * 24
    rows = on_both.service.rows(
        select(Session.unconfirmed, Session.ended_at).where(Session.id == session_id_of(frame))
    )
    assert rows[0].ended_at is not None


def test_the_relay_follows_renewals_and_gets_the_newest_cookie(on_both: Gateway) -> None:
    frame = latest = on_both.open()
    for _ in range(3):
        renewed = renew(on_both, latest)
        latest = forget(renewed, latest)
        assert on_both.ask(frame.host, latest.cookie).status_code == 200
    assert refusal_of(on_both.ask(frame.host, frame.cookie)) == (401, "session_replaced")
    answer = on_both.ask(frame.host, frame.cookie, path="socket")
    assert answer.status_code == 200
    assert cookies_of(answer) == latest.cookies
    assert on_both.session(latest, "DELETE").status_code == 204
    assert refusal_of(on_both.ask(frame.host, frame.cookie, path="socket")) == (401, "session_revoked")


def test_the_relay_is_not_the_first_request_of_a_renewed_session(
    on_both: Gateway, clock: time_machine.Traveller
) -> None:
    frame = on_both.open(sessionExpiry=1)
    renewed = renew(on_both, frame, sessionExpiry=10)
    assert on_both.ask(frame.host, frame.cookie, path="socket").status_code == 200
    clock.shift(timedelta(seconds=61))
    answer = on_both.ask(frame.host, frame.cookie, path="socket")
    assert answer.status_code == 200
    newer = forget(renewed, frame)
    assert cookies_of(answer) == newer.cookies
    statement = select(Session.unconfirmed).where(Session.id == session_id_of(newer))
    assert on_both.service.rows(statement)[0][0] is True


def test_a_circle_of_successors_ends(gateway: Gateway) -> None:
    """No operation makes one, and a worker must not run for ever."""
    frame, other = gateway.open(), gateway.open()
    ids = session_id_of(frame), session_id_of(other)
    for id_, successor in (ids, ids[::-1]):
        ended = {"ended_at": utcnow(), "replaced_by": successor}
        gateway.service.change(update(Session).where(Session.id == id_).values(**ended))
    assert refusal_of(gateway.ask(frame.host, frame.cookie, path="socket")) == (401, "session_replaced")


# Failures.


def test_a_lost_database_is_a_refusal(make_app: Callable[..., Any], tmp_path: Any) -> None:
    app = make_app(**SETTINGS)
    provision(app, WORLD)
    gateway = Gateway(Service(app.test_client()))
    add_sales(gateway.service)
    frame = gateway.open()
    lose_the_database(app, tmp_path)
    assert codes(gateway, frame) == {UNAVAILABLE}
    assert refusal_of(gateway.ask(frame.host, "")) == MISSING


def test_a_fault_of_the_service_is_a_refusal_and_is_logged(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    frame = gateway.open()

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("a fault")

    for module, name in ((views, "identity_headers"), (sessions, "check_any")):
        monkeypatch.setattr(module, name, fail)
        caplog.clear()
        assert codes(gateway, frame) == {UNAVAILABLE}
        assert any(record.exc_info for record in caplog.records)
        assert "Set-Cookie" not in gateway.ask(frame.host, frame.cookie, path="socket").headers


def test_a_lost_limiter_is_a_refusal(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = gateway.open()

    def fail(*_: Any, **__: Any) -> None:
        raise StorageError(ConnectionError())

    monkeypatch.setattr(limits, "hit", fail)
    assert refusal_of(gateway.ask(frame.host, frame.cookie)) == UNAVAILABLE
    # The relay keeps its open sockets.
    assert gateway.ask(frame.host, frame.cookie, path="socket").status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW", "HEAD"])
def test_a_question_by_another_method_is_a_refusal(gateway: Gateway, method: str) -> None:
    frame = gateway.open()
    for path in ("auth", "socket"):
        client = gateway.service.app.test_client(use_cookies=False)
        headers = {"Host": frame.host, "Cookie": frame.cookie}
        answer = client.open(f"/internal/embed-{path}", method=method, headers=headers)
        assert answer.status_code == 403


def test_a_question_in_a_form_that_http_does_not_have_is_a_refusal(gateway: Gateway) -> None:
    client = gateway.service.app.test_client(use_cookies=False)
    for environ in ({"HTTP_HOST": ""}, {"HTTP_HOST": "\xff"}, {"QUERY_STRING": "%"}, {"CONTENT_LENGTH": "x"}):
        answer = client.get("/internal/embed-auth", environ_overrides=environ)
        assert answer.status_code == 403, environ


# Limits, log and events.


def test_requests_of_an_app_are_counted_apart_from_those_of_its_frame(
    make_shared: MakeService, clock: time_machine.Traveller
) -> None:
    service = make_shared(**SETTINGS, SESSION_RATE_LIMIT="2 per minute")
    add_sales(service)
    gateway = Gateway(service)
    frame = gateway.open()
    answers = [gateway.ask(frame.host, frame.cookie) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 403]
    assert refusal_of(answers[2]) == (403, "rate_limited")
    assert [gateway.session(frame).status_code for _ in range(3)] == [200, 200, 429]
    # The relay asks often, and must never lose an open socket to a limit.
    assert {gateway.ask(frame.host, frame.cookie, path="socket").status_code for _ in range(9)} == {200}
    clock.shift(timedelta(seconds=61))
    assert gateway.ask(frame.host, frame.cookie).status_code == 200


def test_only_refusals_are_logged(
    gateway: Gateway, request_lines: Callable[[], list[dict[str, Any]]]
) -> None:
    frame = gateway.open()
    before = len(request_lines())
    for _ in range(5):
        assert gateway.ask(frame.host, frame.cookie, X_Forwarded_Uri="/secret-path").status_code == 200
    assert len(request_lines()) == before
    gateway.session(frame, "DELETE")
    gateway.ask(frame.host, frame.cookie, X_Forwarded_Uri="/secret-path")
    line = request_lines()[-1]
    assert (line["status"], line["code"]) == (401, "session_revoked")
    assert line["route"] == "/internal/embed-auth"
    written = json.dumps(request_lines())
    assert "secret-path" not in written
    assert all(value not in written for value in frame.cookies.values())


def test_many_refused_requests_of_one_session_are_one_event(on_both: Gateway) -> None:
    frame = on_both.open()
    assert on_both.session(frame, "DELETE").status_code == 204
    before = len(on_both.service.events(events.SESSION_REFUSED))
    for _ in range(20):
        assert on_both.ask(frame.host, frame.cookie).status_code == 401
    recorded = on_both.service.events(events.SESSION_REFUSED)[before:]
    assert [(event.code, event.session_id, event.app_id) for event in recorded] == [
        ("session_revoked", session_id_of(frame), SALES)
    ]


def test_a_dead_cookie_next_to_a_live_one_is_no_refusal(on_both: Gateway) -> None:
    live, dead = on_both.open(), on_both.open()
    assert on_both.session(dead, "DELETE").status_code == 204
    before = len(on_both.service.events(events.SESSION_REFUSED))
    assert on_both.ask(live.host, cookie_header(live.cookies | dead.cookies)).status_code == 200
    assert len(on_both.service.events(events.SESSION_REFUSED)) == before


# The page in the app's place.


def show(gateway: Gateway, code: str | None, accept: str, host: str | None = None) -> Any:
    client = gateway.service.app.test_client(use_cookies=False)
    headers = {"Host": host or gateway.mint()[0], "Accept": accept, **REPORT}
    named = {} if code is None else {"X-Embed-Code": code}
    return client.get("/internal/embed-refused", headers=headers | named)


@pytest.mark.parametrize(
    ("code", "status", "shown"),
    [
        ("session_revoked", 401, "session_revoked"),
        ("session_missing", 401, "session_missing"),
        ("cross_site", 403, "cross_site"),
        ("unavailable", 403, "unavailable"),
        ("rate_limited", 403, "rate_limited"),
        ("not_found", 403, "not_found"),
        (None, 401, "session_missing"),
        ("<script>", 401, "session_missing"),
    ],
)
def test_a_refusal_is_shown_with_its_code(
    gateway: Gateway, code: str | None, status: int, shown: str
) -> None:
    page = show(gateway, code, "text/html,application/xhtml+xml,*/*;q=0.8")
    assert (page.status_code, page.mimetype) == (status, "text/html")
    assert f'content="{shown}"' in page.text
    # The frame of the app has our page in it, whatever page is around.
    assert "frame-ancestors" not in page.headers["Content-Security-Policy"]
    assert "script" not in re.sub(r"default-src.*", "", page.text)
    problem = show(gateway, code, "*/*")
    assert (problem.status_code, problem.mimetype) == (status, "application/problem+json")
    assert (problem.json["code"], problem.json["status"]) == (shown, status)


def test_the_page_is_at_viewers_hosts_only(gateway: Gateway) -> None:
    for host in ("embed.example", "orders.embed.example", "sales--x.embed.example"):
        assert show(gateway, "unavailable", "text/html", host).status_code == 404


def test_a_client_sees_the_sessions_of_an_upstream_app(gateway: Gateway) -> None:
    frame = gateway.open()
    client = gateway.service.app.test_client(use_cookies=False)
    answer = client.post("/api/ext/introspect", data={"token": frame.jwt}, headers=basic("auditor"))
    assert answer.json["active"] is True  # type: ignore[index]

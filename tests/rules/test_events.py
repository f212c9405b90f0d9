"""The audit trail: each event with its ids, and none that an unknown caller could cause without limit."""

import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import jwt
import pytest
import time_machine
from sqlalchemy import delete, func, select, text, update
from werkzeug.test import TestResponse

from pat_service.errors import TokenExpired, Unavailable
from pat_service.http.authentication import utcnow
from pat_service.rules import events, sessions
from pat_service.rules.access import Place
from pat_service.storage import circuit_breaker
from pat_service.storage.models import App, Event, Session, Token, User, Workspace
from tests.support.api_calls import BEN, id_of
from tests.support.people import (
    LEDGER,
    MINT,
    ORDERS,
    SUPPORT,
    Service,
    basic,
    changed,
    problem_of,
    provision,
)

START: Final = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
LONG_AGO: Final = datetime(2020, 1, 1, tzinfo=UTC)
JSON: Final = {"Accept": "application/json"}
ANA: Final = "ana@acme.test"
IDS: Final = ("client_id", "workspace_id", "app_id", "user_id", "token_id", "session_id")


def trail(service: Service) -> list[Any]:
    """Return the events of tokens and sessions, oldest first."""
    return [event for event in service.events() if event.type.startswith(("token:", "session:"))]


def last(service: Service) -> Any:
    return trail(service)[-1]


def ids_of(event: Any) -> dict[str, str]:
    return {name: getattr(event, name) for name in IDS if getattr(event, name) is not None}


def token_id(service: Service) -> str:
    found: str = service.rows(select(Token.id))[0][0]
    return found


def anas(service: Service) -> dict[str, str]:
    """Return the ids that every event of Ana's tokens and sessions at Orders has."""
    return {
        "app_id": ORDERS,
        "user_id": id_of(service, User, ANA),
        "workspace_id": id_of(service, Workspace, "acme"),
    }


def assert_event(service: Service, answer: TestResponse, type_: str, code: str | None, **ids: str) -> None:
    """Check that the last event is of this type, with these ids, and of the answer's request."""
    event = last(service)
    assert (event.type, event.code) == (type_, code)
    assert ids_of(event) == ids
    assert event.request_id == answer.headers["X-Request-Id"]
    assert abs(event.at - datetime.now(UTC)) < timedelta(seconds=60)


@dataclass
class Clock:
    """A worker's clock that the test moves."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def stopped(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Count refusals by a clock that the test moves."""
    clock = Clock()
    monkeypatch.setattr(events, "_refusals", events.Refusals(timer=clock))
    return clock


def kind(code: str) -> events._Kind:
    return events._Kind("session:refused", code, (("client_id", "portal"),))


def times_of(service: Service, code: str) -> list[int]:
    return [event.details["times"] for event in trail(service) if event.code == code]


def open_as_json(service: Service, token: str, app_id: str = ORDERS) -> TestResponse:
    return service.open(token, app_id, Accept="application/json")


# ---- Events ----


def test_a_mint_is_recorded(service: Service) -> None:
    answer = service.mint()
    ids = anas(service) | {"client_id": "portal", "token_id": answer.get_json()["tokenId"]}
    assert_event(service, answer, "token:minted", None, **ids)
    assert last(service).details is None


def test_the_event_of_a_mint_shows_that_it_ended_sessions(service: Service) -> None:
    service.frame()
    service.mint(endSessions=True)
    assert last(service).details == {"ended_sessions": True}


@pytest.mark.parametrize(
    ("fields", "code", "subject"),
    [
        ({"email": "nobody@acme.test"}, "user_not_found", ()),
        ({"email": "mallory@globex.test"}, "user_not_found", ()),
        ({"appSlug": "nothing"}, "app_not_found", ("user_id",)),
        ({"appSlug": "ledger"}, "app_not_found", ("user_id",)),
        (
            {"email": "ben@acme.test", "appSlug": "support"},
            "app_forbidden",
            ("user_id", "app_id", "workspace_id"),
        ),
    ],
)
def test_the_event_of_a_refused_mint_has_the_ids_that_the_client_sees(
    service: Service, fields: dict[str, str], code: str, subject: tuple[str, ...]
) -> None:
    """The event has no id that the client may not see."""
    answer = service.mint(**fields)
    known = {
        "user_id": id_of(service, User, fields.get("email", ANA)) if subject else "",
        "app_id": SUPPORT,
        "workspace_id": id_of(service, Workspace, "acme"),
    }
    expected = {"client_id": "portal"} | {name: known[name] for name in subject}
    assert_event(service, answer, "token:mint-refused", code, **expected)


def test_a_missing_scope_is_recorded(service: Service) -> None:
    answer = service.mint(client="auditor")
    assert_event(service, answer, "token:mint-refused", "scope_missing", client_id="auditor")


def test_a_client_beyond_its_limit_is_recorded(service: Service) -> None:
    provision(service.app, changed("clients", "portal", mint_limit="1 per minute"))
    service.mint()
    answer = service.mint()
    assert answer.status_code == 429
    assert_event(service, answer, "token:mint-refused", "rate_limited", client_id="portal")


@pytest.mark.parametrize("way", ["address", "form", "program"])
def test_an_opening_is_recorded(service: Service, way: str) -> None:
    token = service.token()
    if way == "address":
        answer = service.open(token)
    elif way == "form":
        answer = service.client.post(f"/embed-apps/{ORDERS}", data={"personal-access-token": token})
    else:
        answer = service.client.post("/api/ext/users/session", json={"appId": ORDERS, "accessToken": token})
    assert answer.status_code in (200, 201)
    session = service.rows(select(Session.id))[0][0]
    assert_event(
        service,
        answer,
        "session:opened",
        None,
        session_id=session,
        token_id=token_id(service),
        client_id="portal",
        **anas(service),
    )


def revoke(service: Service) -> None:
    service.change(update(Token).values(revoked_at=LONG_AGO))


def test_the_refusal_of_a_token_at_another_app_has_its_own_ids(service: Service) -> None:
    answer = open_as_json(service, service.token(), LEDGER)
    expected = anas(service) | {"token_id": token_id(service), "client_id": "portal"}
    assert_event(service, answer, "session:open-refused", "token_invalid", **expected)


def test_the_end_of_a_session_is_recorded_once(service: Service) -> None:
    frame = service.frame()
    session = last(service).session_id
    assert session == jwt.decode(frame.jwt, options={"verify_signature": False})["jti"]
    answer = service.client.delete(f"/embed-apps/{ORDERS}/session", headers=frame.bearer)
    expected = anas(service) | {"token_id": token_id(service), "client_id": "portal"}
    assert_event(service, answer, "session:ended", None, session_id=session, **expected)
    service.client.delete(f"/embed-apps/{ORDERS}/session", headers=frame.bearer)
    assert len(service.events("session:ended")) == 1


def test_two_ends_of_one_session_are_recorded_once(service: Service) -> None:
    """Both requests passed the check before either ended the session."""
    frame, now = service.frame(), datetime.now(UTC)
    with service.app.app_context():
        keyring = service.app.extensions["pat_service.keyring"]
        both = [sessions.check(keyring, frame.jwt, Place(app_id=ORDERS), now) for _ in range(2)]
        for session in both:
            sessions.end(session, now)
    assert [event.type for event in trail(service)].count("session:ended") == 1


def test_the_refusal_of_a_long_expired_session_is_recorded(service: Service) -> None:
    with time_machine.travel(START, tick=False) as clock:
        frame = service.frame(sessionExpiry=1)
        session = last(service).session_id
        clock.move_to(START + timedelta(minutes=5))
        answer = service.client.get(f"/embed-apps/{ORDERS}/session", headers=frame.bearer)
        problem_of(answer, 401, "session_expired")
        assert (last(service).type, last(service).session_id) == ("session:refused", session)


# ---- Failures ----


def test_the_event_of_a_refusal_survives_the_rollback(service: Service) -> None:
    """The mint leaves only the event of its refusal."""
    before = service.rows(select(Token.__table__))
    service.mint(email="ben@acme.test", appSlug="support")
    assert service.rows(select(Token.__table__)) == before
    assert [event.code for event in trail(service)] == ["app_forbidden"]


def test_without_its_event_nothing_is_minted_or_opened_but_refusals_are_answered(service: Service) -> None:
    token = service.token()
    bens = service.token(email="ben@acme.test")
    service.change(
        update(Token).where(Token.user_id == id_of(service, User, BEN)).values(revoked_at=LONG_AGO)
    )
    service.change(text("ALTER TABLE events RENAME TO elsewhere"))
    assert service.mint().status_code == 503
    assert service.open(token).status_code == 503
    problem_of(open_as_json(service, bens), 401, "token_revoked")
    problem_of(service.mint(appSlug="nothing"), 404, "app_not_found")
    assert service.count(Session) == 0
    service.change(text("ALTER TABLE elsewhere RENAME TO events"))
    assert service.open(token).status_code == 200, "the failed mint did not replace the token"


def test_events_outlive_deleted_apps_and_users(service: Service) -> None:
    service.frame()
    before = [ids_of(event) for event in trail(service)]
    service.change(delete(App).where(App.id == ORDERS))
    service.change(delete(User).where(User.email == "ana@acme.test"))
    assert [ids_of(event) for event in trail(service)] == before
    assert len(before) == 2


# ---- Floods ----


def unknown_token() -> str:
    body = "pat_" + "5" * 64
    return body + format(zlib.crc32(body.encode()), "08x")


def test_unknown_callers_write_no_event(service: Service) -> None:
    frame = service.frame()
    before = service.rows(select(func.count()).select_from(Event))
    client, path = service.client, f"/embed-apps/{ORDERS}"
    header, payload, signature = frame.jwt.split(".")
    forged = [f"{header}.{payload}.{signature[::-1]}", f"{header}.{payload}.", "x.y.z", "", "pat_0"]
    answers = [
        client.get(path),
        open_as_json(service, "garbage"),
        open_as_json(service, "pat_" + "0" * 72),
        open_as_json(service, unknown_token()),
        open_as_json(service, unknown_token(), "no-app"),
        client.post(path, data={"personal-access-token": unknown_token()}),
        client.get(path, query_string={"personal-access-token": ["a", "b"]}),
        client.get(path, headers={"Sec-Purpose": "prefetch"}),
        client.head(path),
        client.get(f"{path}/pages/index"),
        client.get(f"{path}/nothing"),
        client.post("/api/ext/users/session", json={"appId": ORDERS, "accessToken": unknown_token()}),
        client.post("/api/ext/users/session", json={}),
        client.post(MINT, json={}),
        client.post(MINT, headers=basic("portal", "wrong" * 10), json={}),
        client.post(MINT, headers=basic("nobody", "wrong" * 10), json={}),
        client.get("/nothing"),
    ]
    answers += [
        client.get(f"{path}/session", headers={"Authorization": f"Bearer {text_}"}) for text_ in forged
    ]
    assert all(answer.status_code >= 400 for answer in answers)
    assert service.rows(select(func.count()).select_from(Event)) == before


def test_a_revoked_token_writes_one_event_a_minute(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = stopped(monkeypatch)
    token = service.token()
    revoke(service)
    lines: list[int] = []
    for seconds, new in ((0.0, [1]), (30.0, []), (59.0, []), (60.5, [15]), (100.0, []), (121.0, [10])):
        clock.now = seconds
        for _ in range(5):
            problem_of(open_as_json(service, token), 401, "token_revoked")
        lines += new
        assert times_of(service, "token_revoked") == lines


def test_counted_refusals_are_recorded_by_the_next_refusal_after_their_minute(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = stopped(monkeypatch)
    dead = service.token()
    service.token()
    for _ in range(4):
        answer = open_as_json(service, dead)
    counted = last(service)
    clock.now = 59.9
    service.mint(appSlug="nothing")
    assert times_of(service, "token_superseded") == [1], "the minute has not passed"
    clock.now = 60.0
    service.mint(appSlug="ledger", email="ben@acme.test")
    *_, summary, own = trail(service)
    assert (summary.code, summary.details) == ("token_superseded", {"times": 3})
    assert ids_of(summary) == ids_of(counted)
    assert summary.request_id == answer.headers["X-Request-Id"], "the request of the last refusal"
    assert (own.code, own.details) == ("app_not_found", {"times": 1})
    clock.now = 200.0
    open_as_json(service, dead)
    assert times_of(service, "token_superseded") == [1, 3, 1], "each refusal is counted once"


def test_refusals_that_could_not_be_recorded_are_recorded_later(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped(monkeypatch)
    monkeypatch.setattr(circuit_breaker, "OPEN_SECONDS", 0)
    dead = service.token()
    service.token()
    service.change(text("ALTER TABLE events RENAME TO elsewhere"))
    for _ in range(3):
        problem_of(open_as_json(service, dead), 401, "token_superseded")
    service.change(text("ALTER TABLE elsewhere RENAME TO events"))
    problem_of(open_as_json(service, dead), 401, "token_superseded")
    assert times_of(service, "token_superseded") == [4]


def test_a_worker_counts_a_limited_number_of_kinds_of_refusals_and_loses_none(service: Service) -> None:
    clock = Clock()
    few = events.Refusals(max_counted=3, timer=clock)
    recorded = [few.count(kind(name), START) for name in ("a", "a", "b", "b", "b", "c", "d")]
    assert [[(series.kind.code, series.times) for series in due] for due in recorded] == [
        *([("a", 1)], [], [("b", 1)], [], [], [("c", 1)]),
        [("a", 1), ("d", 1)],  # the series of a is recorded early, to make room for d
    ]
    clock.now = 60
    assert [(series.kind.code, series.times) for series in few.count(kind("c"), START)] == [
        ("b", 2),
        ("c", 1),
    ]


def test_one_refusal_records_a_limited_number_of_others(service: Service) -> None:
    clock = Clock()
    many = events.Refusals(timer=clock)
    for number in range(events.MAX_RECORDED + 20):
        for _ in range(3):
            many.count(kind(f"code{number}"), START)
    clock.now = 60
    due = [many.count(kind(name), START) for name in ("x", "y", "z")]
    assert [len(series) for series in due] == [events.MAX_RECORDED + 1, 21, 1]
    assert {series.times for series in due[0][:-1] + due[1][:-1]} == {2}


def test_refusals_are_counted_exactly_by_many_threads() -> None:
    clock = Clock()
    counted = events.Refusals(timer=clock)

    def refuse(number: int) -> int:
        clock.now = number / 10
        due = counted.count(kind("same"), START)
        if number % 7 == 0:
            counted.give_back(due)  # the database was unavailable
            return 0
        return sum(series.times for series in due)

    with ThreadPoolExecutor(8) as pool:
        recorded = sum(pool.map(refuse, range(1000)))
    clock.now = 10_000
    recorded += sum(series.times for series in counted.count(kind("same"), START))
    assert recorded == 1001


def test_anas_refusals_do_not_hide_bens(service: Service) -> None:
    tokens = [service.token(email=email) for email in ("ana@acme.test", "ben@acme.test")]
    revoke(service)
    for token in tokens * 2:
        problem_of(open_as_json(service, token), 401, "token_revoked")
    refused = [event.user_id for event in trail(service) if event.code == "token_revoked"]
    assert sorted(refused) == sorted(id_of(service, User, email) for email in (ANA, BEN))


def test_if_events_cannot_be_written_only_one_refusal_tries(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    def away() -> None:
        tried.append(1)
        raise Unavailable

    monkeypatch.setattr(events, "transaction", away)
    with service.app.app_context():
        for number in range(5):
            refusal = TokenExpired().about(token_id=str(number))
            events.record_refusal(events.OPEN_REFUSED, refusal, utcnow())
    assert tried == [1]

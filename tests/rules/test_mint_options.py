"""What else a mint may wish for: attributes, narrower origins, one use, a newcomer."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
import time_machine
from flask import Flask
from sqlalchemy import func, select
from werkzeug.test import TestResponse

from pat_service.rules.access import Viewer
from pat_service.storage.models import Event, Session, Token
from tests.support.people import (
    ORDERS,
    PORTAL,
    SUPPORT,
    WORLD,
    Service,
    boot,
    changed,
    problem_of,
    provision,
)

EXCHANGE = "/api/ext/users/session"
NOON = datetime(2026, 11, 2, 12, tzinfo=UTC)
ELSEWHERE = "https://elsewhere.example"
#: A flat object with one of each kind.
KINDS = {"region": "north", "seats": 4, "share": 0.5, "vip": True, "tags": ["a", 1, 2.5, False], "none": []}


def ancestors(answer: TestResponse) -> str:
    policy = answer.headers["Content-Security-Policy"]
    return policy.partition("frame-ancestors ")[2].partition(";")[0]


def count(service: Service, *tables: Any) -> list[int]:
    return [service.rows(select(func.count()).select_from(table))[0][0] for table in tables]


def trail(service: Service, type_: str) -> list[Any]:
    return service.rows(select(Event.__table__).where(Event.type == type_).order_by(Event.id))


# ---- Attributes ----


@pytest.fixture
def seen(service: Service, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The attributes that the index page of Orders was given, one each time."""
    given: list[dict[str, Any]] = []
    functions = service.app.extensions["pat_service.registry"].get("orders").pages
    index = functions["index"]

    def looked_at(viewer: Viewer) -> Any:
        given.append(viewer.attributes)
        return index(viewer)

    monkeypatch.setitem(functions, "index", looked_at)
    return given


def test_attributes_reach_templates_and_functions_and_nothing_else(
    service: Service, seen: list[dict[str, Any]]
) -> None:
    token = service.token(attributes=KINDS)
    frame = service.open(token)
    assert seen == [KINDS]
    page = service.client.get(
        f"/embed-apps/{ORDERS}/pages/index", headers={"Authorization": f"Bearer {boot(frame)['session']}"}
    )
    assert page.status_code == 200
    assert seen == [KINDS, KINDS]
    claims = jwt.decode(boot(frame)["session"], options={"verify_signature": False})
    assert set(claims) == {"iss", "aud", "sub", "jti", "wid", "iat", "nbf", "exp"}
    assert "north" not in json.dumps(boot(frame))
    details = service.rows(select(Event.details))
    assert not any("north" in json.dumps(row.details) for row in details)


def test_without_attributes_there_are_none(service: Service, seen: list[dict[str, Any]]) -> None:
    wishes: tuple[dict[str, Any], ...] = ({}, {"attributes": {}})
    for wish in wishes:
        assert service.open(service.token(**wish)).status_code == 200
    assert seen == [{}, {}]


def test_a_frame_keeps_the_attributes_that_it_was_opened_with(
    service: Service, seen: list[dict[str, Any]]
) -> None:
    north = service.frame(attributes={"region": "north"})
    service.frame(attributes={"region": "south"})
    seen.clear()
    assert service.get(north, "pages/index").status_code == 200
    assert seen == [{"region": "north"}]


@pytest.mark.parametrize(
    "attributes",
    [
        [],
        "north",
        4,
        True,
        {"a": {"b": 1}},
        {"a": [[1]]},
        {"a": [{"b": 1}]},
        {"a": None},
        {"a": [None]},
        {"a\0": 1},
        {"a": "x\0"},
        {"a": ["\n"]},
        {"a": "\ud800"},
        {f"key{number}": number for number in range(51)},
        {"a": "x" * 4090},
        {"a": "é" * 2046},
    ],
)
def test_attributes_that_are_not_flat_or_too_many_are_refused(shared: Service, attributes: Any) -> None:
    problem = problem_of(shared.mint(attributes=attributes), 400, "invalid_payload")
    assert set(problem["errors"]) == {"attributes"}


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 200])
def test_a_number_that_is_none_is_no_attribute(shared: Service, number: str) -> None:
    body = (
        '{"email": "ana@acme.test", "appSlug": "orders", "sessionExpiry": 1, "patExpiry": 1,'
        f' "attributes": {{"a": {number}}}}}'
    )
    problem = problem_of(shared.mint(body), 400, "invalid_payload")
    assert set(problem["errors"]) == {"attributes"}


@pytest.mark.parametrize(
    "attributes", [{f"key{number}": number for number in range(50)}, {"a": "x" * 4088}, {"": ""}]
)
def test_attributes_up_to_the_bounds_are_taken(shared: Service, attributes: Any) -> None:
    assert shared.mint(attributes=attributes).status_code == 201


# ---- Allowed parents ----


@pytest.mark.parametrize(
    ("listed", "asked", "left"),
    [
        ([PORTAL, ELSEWHERE], [PORTAL], PORTAL),
        ([PORTAL], [PORTAL, ELSEWHERE], PORTAL),
        ([PORTAL], [ELSEWHERE], "'none'"),
        (["*"], [ELSEWHERE], ELSEWHERE),
        ([PORTAL], ["*"], PORTAL),
        ([], [PORTAL], "'none'"),
        ([PORTAL], ["http://PORTAL.example:80"], PORTAL),
    ],
)
def test_a_token_narrows_who_may_frame_the_app_and_never_widens_it(
    service: Service, listed: list[str], asked: list[str], left: str
) -> None:
    provision(service.app, changed("apps", "orders", allowed_origins=listed))
    frame = service.frame(allowedOrigins=asked)
    assert ancestors(frame.response) == left
    assert boot(frame.response)["parents"] == ([] if left == "'none'" else [left])
    assert ancestors(service.get(frame, "session")) == left
    assert ancestors(service.get(frame, "pages/index")) == left


def test_a_narrow_token_narrows_nobody_elses_frame(service: Service) -> None:
    provision(service.app, changed("apps", "orders", allowed_origins=[PORTAL, ELSEWHERE]))
    service.frame(allowedOrigins=[PORTAL])
    assert ancestors(service.frame(email="ben@acme.test").response) == f"{PORTAL} {ELSEWHERE}"
    # A refusal that asks no database has what the worker last knew: the app's list.
    assert ancestors(service.open("pat_garbage")) == f"{PORTAL} {ELSEWHERE}"


def test_an_origin_that_the_app_loses_is_lost_to_an_open_frame_too(service: Service) -> None:
    provision(service.app, changed("apps", "orders", allowed_origins=[PORTAL, ELSEWHERE]))
    frame = service.frame(allowedOrigins=[ELSEWHERE])
    provision(service.app, changed("apps", "orders", allowed_origins=[PORTAL]))
    assert ancestors(service.get(frame, "pages/index")) == "'none'"


@pytest.mark.parametrize(
    "origins",
    [
        [],
        "https://a.example",
        ["https://a.example/x"],
        ["null"],
        [1],
        [None],
        ["x; script-src *"],
        {},
        4,
        [f"https://a{number}.example" for number in range(51)],
    ],
)
def test_what_is_no_list_of_origins_is_refused(shared: Service, origins: Any) -> None:
    problem = problem_of(shared.mint(allowedOrigins=origins), 400, "invalid_payload")
    assert all(name.startswith("allowedOrigins") for name in problem["errors"])


def exchange(service: Service, token: str, **fields: Any) -> TestResponse:
    return service.client.post(EXCHANGE, json={"appId": ORDERS, "accessToken": token} | fields)


def test_a_token_is_handed_over_only_by_a_page_that_may_frame_the_app(service: Service) -> None:
    provision(service.app, changed("apps", "orders", allowed_origins=[PORTAL, ELSEWHERE]))
    token = service.token(allowedOrigins=[PORTAL])
    assert exchange(service, token, parentOrigin=PORTAL).status_code == 201
    assert exchange(service, token).status_code == 201
    before = count(service, Session)
    for parent in (ELSEWHERE, "https://evil.example", "*"):
        problem_of(exchange(service, token, parentOrigin=parent), 403, "origin_not_allowed")
    assert count(service, Session) == before
    problem_of(exchange(service, token, parentOrigin="evil"), 400, "invalid_payload")
    provision(service.app, changed("apps", "orders", allowed_origins=["*"]))
    assert exchange(service, service.token(), parentOrigin="https://any.example").status_code == 201


# ---- One use ----


def test_a_single_use_token_opens_one_frame(service: Service) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        token = service.token(singleUse=True)
        assert service.open(token).status_code == 200
        clock.shift(10)
        answer = service.open(token, Accept="application/json")
        problem_of(answer, 401, "token_used")
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert "been used" in service.open(token).text
    assert count(service, Session) == [1]
    assert [event.code for event in trail(service, "session:open-refused")] == ["token_used"]


def test_a_repeat_within_ten_seconds_opens_in_place_of_the_first(service: Service) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        token = service.token(singleUse=True)
        first = service.open(token)
        clock.shift(timedelta(seconds=9.9))
        second = service.open(token)
        assert second.status_code == 200
        for answer, status in ((first, 401), (second, 200)):
            headers = {"Authorization": f"Bearer {boot(answer)['session']}"}
            facts = service.client.get(f"/embed-apps/{ORDERS}/session", headers=headers)
            assert facts.status_code == status
        clock.shift(timedelta(seconds=0.1))
        assert service.refusal(token) == "token_used"  # counted from the first use, not from the last
    (event,) = trail(service, "session:replaced")
    ids = [
        jwt.decode(boot(a)["session"], options={"verify_signature": False})["jti"] for a in (first, second)
    ]
    assert [event.session_id, event.details["by"]] == ids


def test_a_single_use_token_that_is_replaced_or_revoked_says_so(service: Service) -> None:
    token = service.token(singleUse=True)
    service.open(token)
    newer = service.token(singleUse=True)
    assert service.refusal(token) == "token_superseded"
    assert service.open(newer).status_code == 200


def test_a_refused_opening_uses_nothing_up(service: Service) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        token = service.token(singleUse=True, patExpiry=1000)
        assert service.refusal(token, SUPPORT) == "token_invalid"
        provision(service.app, changed("users", "ana@acme.test", status="archived"))
        assert service.refusal(token) == "access_revoked"
        provision(service.app, WORLD)
        clock.shift(60)
        assert service.open(token).status_code == 200


def test_a_token_of_many_uses_notes_its_first_and_last(service: Service) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        token = service.token()
        for _ in range(3):
            assert service.open(token).status_code == 200
            clock.shift(60)
    (row,) = service.rows(select(Token.first_used_at, Token.last_used_at))
    assert (row.first_used_at, row.last_used_at) == (NOON, NOON + timedelta(seconds=120))
    service.token()
    (row,) = service.rows(select(Token.first_used_at, Token.last_used_at))
    assert (row.first_used_at, row.last_used_at) == (None, None)


@pytest.mark.parametrize("value", ["true", 1, [], "yes"])
def test_single_use_is_a_boolean(shared: Service, value: Any) -> None:
    problem = problem_of(shared.mint(singleUse=value), 400, "invalid_payload")
    assert set(problem["errors"]) == {"singleUse"}


# ---- Sessions of one token ----


def test_the_newcomer_is_refused_and_nobody_is_pushed_out(make_app: Callable[..., Flask]) -> None:
    app = make_app(MAX_SESSIONS_PER_TOKEN="2")
    provision(app, WORLD)
    service = Service(app.test_client())
    with time_machine.travel(NOON, tick=False) as clock:
        token = service.token(sessionExpiry=1)
        first = service.open(token)
        clock.shift(30)
        assert service.open(token).status_code == 200
        answer = service.open(token, Accept="application/json")
        problem_of(answer, 429, "too_many_sessions")
        assert answer.headers["Retry-After"] == "31"
        problem_of(exchange(service, token), 429, "too_many_sessions")
        assert count(service, Session) == [2]
        headers = {"Authorization": f"Bearer {boot(first)['session']}"}
        assert service.client.delete(f"/embed-apps/{ORDERS}/session", headers=headers).status_code == 204
        assert service.open(token).status_code == 200
        assert service.refusal(token) == "too_many_sessions"
        # Another pair, and the pair's next token, have a count of their own.
        assert service.open(service.token(email="ben@acme.test")).status_code == 200
        assert service.open(service.token()).status_code == 200
    assert {event.code for event in trail(service, "session:open-refused")} == {"too_many_sessions"}


def test_a_repeat_of_a_single_use_is_no_session_more(make_app: Callable[..., Flask]) -> None:
    app = make_app(MAX_SESSIONS_PER_TOKEN="1")
    provision(app, WORLD)
    service = Service(app.test_client())
    token = service.token(singleUse=True)
    assert service.open(token).status_code == 200
    assert service.open(token).status_code == 200

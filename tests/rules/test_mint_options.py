"""Options of a mint: attributes, allowed origins, single use, and the limit of sessions."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
import time_machine
from flask import Flask
from sqlalchemy import select
from werkzeug.test import TestResponse

from pat_service.rules.access import Viewer
from pat_service.storage.models import Event, Session, Token
from tests.support.people import (
    MINT_BODY,
    ORDERS,
    PORTAL,
    SUPPORT,
    WORLD,
    Service,
    boot,
    changed,
    frame_ancestors,
    problem_of,
    provision,
)

EXCHANGE = "/api/ext/users/session"
NOON = datetime(2026, 11, 2, 12, tzinfo=UTC)
ELSEWHERE = "https://elsewhere.example"
#: Attributes with every kind of value.
KINDS = {"region": "north", "seats": 4, "share": 0.5, "vip": True, "tags": ["a", 1, 2.5, False], "none": []}


# ---- Attributes ----


@pytest.fixture
def seen(service: Service, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The attributes that each view of Orders' index page received."""
    received: list[dict[str, Any]] = []
    functions = service.app.extensions["pat_service.registry"].get("orders").pages
    index = functions["index"]

    def recording_index(viewer: Viewer) -> Any:
        received.append(viewer.attributes)
        return index(viewer)

    monkeypatch.setitem(functions, "index", recording_index)
    return received


def test_attributes_reach_templates_and_functions_only(service: Service, seen: list[dict[str, Any]]) -> None:
    without: list[dict[str, Any]] = [{}, {"attributes": {}}]
    for fields in without:
        assert service.open(service.token(**fields)).status_code == 200
    assert seen == [{}, {}]
    seen.clear()
    frame = service.open(service.token(attributes=KINDS))
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


def test_a_frame_keeps_its_attributes(service: Service, seen: list[dict[str, Any]]) -> None:
    north = service.frame(attributes={"region": "north"})
    service.frame(attributes={"region": "south"})
    seen.clear()
    assert service.get(north, "pages/index").status_code == 200
    assert seen == [{"region": "north"}]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("attributes", [[], "north", 4, True, {"a": {"b": 1}}, {"a": [[1]]}, {"a": [{"b": 1}]}, {"a": None}]),
        ("attributes", [{"a": [None]}, {"a\0": 1}, {"a": "x\0"}, {"a": ["\n"]}, {"a": "\ud800"}]),
        ("attributes", [{f"key{n}": n for n in range(51)}, {"a": "x" * 4090}, {"a": "é" * 2046}]),
        ("allowedOrigins", [[], "https://a.example", ["https://a.example/x"], ["null"], [1], [None], {}, 4]),
        ("allowedOrigins", [["x; script-src *"], [f"https://a{n}.example" for n in range(51)]]),
        ("singleUse", ["true", 1, [], "yes"]),
    ],
)
def test_a_wrong_option_is_named(shared: Service, name: str, values: list[Any]) -> None:
    for value in values:
        problem = problem_of(shared.mint(**{name: value}), 400, "invalid_payload")
        assert {error.partition(".")[0] for error in problem["errors"]} == {name}, value


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 200])
def test_an_attribute_is_a_finite_number(shared: Service, number: str) -> None:
    body = json.dumps(MINT_BODY | {"attributes": {"a": 0}}).replace('{"a": 0}', f'{{"a": {number}}}')
    problem = problem_of(shared.mint(body), 400, "invalid_payload")
    assert set(problem["errors"]) == {"attributes"}


@pytest.mark.parametrize(
    "attributes", [{f"key{number}": number for number in range(50)}, {"a": "x" * 4088}, {"": ""}]
)
def test_attributes_up_to_the_limits_are_valid(shared: Service, attributes: Any) -> None:
    assert shared.mint(attributes=attributes).status_code == 201


# ---- Allowed origins ----


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
def test_a_token_narrows_an_apps_origins_and_never_widens_them(
    service: Service, listed: list[str], asked: list[str], left: str
) -> None:
    provision(service.app, changed("apps", "orders", allowed_origins=listed))
    frame = service.frame(allowedOrigins=asked)
    assert frame_ancestors(frame.response) == left
    assert boot(frame.response)["parents"] == ([] if left == "'none'" else [left])
    assert frame_ancestors(service.get(frame, "session")) == left
    assert frame_ancestors(service.get(frame, "pages/index")) == left


def test_anas_narrow_token_does_not_narrow_bens_frame(service: Service) -> None:
    provision(service.app, changed("apps", "orders", allowed_origins=[PORTAL, ELSEWHERE]))
    service.frame(allowedOrigins=[PORTAL])
    assert frame_ancestors(service.frame(email="ben@acme.test").response) == f"{PORTAL} {ELSEWHERE}"
    # A refusal without a query uses the app's list that the worker remembers.
    assert frame_ancestors(service.open("pat_garbage")) == f"{PORTAL} {ELSEWHERE}"


def test_an_origin_removed_from_the_app_is_removed_from_open_frames(service: Service) -> None:
    provision(service.app, changed("apps", "orders", allowed_origins=[PORTAL, ELSEWHERE]))
    frame = service.frame(allowedOrigins=[ELSEWHERE])
    provision(service.app, changed("apps", "orders", allowed_origins=[PORTAL]))
    assert frame_ancestors(service.get(frame, "pages/index")) == "'none'"


def exchange(service: Service, token: str, **fields: Any) -> TestResponse:
    return service.client.post(EXCHANGE, json={"appId": ORDERS, "accessToken": token} | fields)


def test_only_a_page_that_may_frame_the_app_hands_over_a_token(service: Service) -> None:
    provision(service.app, changed("apps", "orders", allowed_origins=[PORTAL, ELSEWHERE]))
    token = service.token(allowedOrigins=[PORTAL])
    assert exchange(service, token, parentOrigin=PORTAL).status_code == 201
    assert exchange(service, token).status_code == 201
    before = service.count(Session)
    for parent in (ELSEWHERE, "https://evil.example", "*"):
        problem_of(exchange(service, token, parentOrigin=parent), 403, "origin_not_allowed")
    assert service.count(Session) == before
    problem_of(exchange(service, token, parentOrigin="evil"), 400, "invalid_payload")
    provision(service.app, changed("apps", "orders", allowed_origins=["*"]))
    assert exchange(service, service.token(), parentOrigin="https://any.example").status_code == 201


# ---- Single use ----


def test_a_single_use_token_opens_one_frame(service: Service) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        token = service.token(singleUse=True)
        assert service.open(token).status_code == 200
        clock.shift(10)
        answer = service.open(token, Accept="application/json")
        problem_of(answer, 401, "token_used")
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert "been used" in service.open(token).text
    assert service.count(Session) == 1
    assert [event.code for event in service.events("session:open-refused")] == ["token_used"]


def test_a_repeat_within_ten_seconds_replaces_the_first_session(service: Service) -> None:
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
        assert service.refusal(token) == "token_used", "the window starts at the first use"
    (event,) = service.events("session:replaced")
    ids = [
        jwt.decode(boot(a)["session"], options={"verify_signature": False})["jti"] for a in (first, second)
    ]
    assert [event.session_id, event.details["by"]] == ids


def test_a_refused_opening_does_not_use_the_token(service: Service) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        token = service.token(singleUse=True, patExpiry=1000)
        assert service.refusal(token, SUPPORT) == "token_invalid"
        provision(service.app, changed("users", "ana@acme.test", status="archived"))
        assert service.refusal(token) == "access_revoked"
        provision(service.app, WORLD)
        clock.shift(60)
        assert service.open(token).status_code == 200


def test_a_token_records_its_first_and_last_use(service: Service) -> None:
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


# ---- Sessions of one token ----


def test_one_session_too_many_is_refused_and_no_other_ends(make_app: Callable[..., Flask]) -> None:
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
        assert service.count(Session) == 2
        headers = {"Authorization": f"Bearer {boot(first)['session']}"}
        assert service.client.delete(f"/embed-apps/{ORDERS}/session", headers=headers).status_code == 204
        assert service.open(token).status_code == 200
        assert service.refusal(token) == "too_many_sessions"
        # Another user, and the next token, have their own counts.
        assert service.open(service.token(email="ben@acme.test")).status_code == 200
        once = service.token(singleUse=True)
        for _ in range(2):
            assert service.open(once).status_code == 200, "a repeat replaces the first session"
    assert {event.code for event in service.events("session:open-refused")} == {"too_many_sessions"}

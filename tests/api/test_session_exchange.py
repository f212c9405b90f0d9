"""A program opens a session. The rules of tokens and sessions have their tests in tests/rules."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import jwt
import pytest
import time_machine
from flask import Flask
from sqlalchemy import delete, func, select, update
from werkzeug.test import TestResponse

from pat_service.credentials import generate
from pat_service.storage.models import App, Event, Grant, Session, Token, User
from tests.support.people import LEDGER, ORDERS, SUPPORT, WORLD, Service, basic, problem_of, provision

EXCHANGE = "/api/ext/users/session"
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def exchange(
    service: Service, token: Any, app_id: Any = ORDERS, headers: dict[str, str] | None = None
) -> TestResponse:
    return service.client.post(EXCHANGE, json={"appId": app_id, "accessToken": token}, headers=headers)


def read_session(service: Service, jwt: str) -> TestResponse:
    return service.client.get(f"/embed-apps/{ORDERS}/session", headers={"Authorization": f"Bearer {jwt}"})


def sessions(service: Service) -> int:
    count: int = service.rows(select(func.count()).select_from(Session))[0][0]
    return count


def test_a_program_opens_a_session_with_a_token(service: Service) -> None:
    answer = exchange(service, service.token(sessionExpiry=5))
    ana = service.rows(select(User.id).where(User.email == "ana@acme.test"))[0].id
    assert (answer.status_code, answer.content_type) == (201, "application/json")
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Set-Cookie" not in answer.headers
    opened = answer.json
    assert opened is not None
    assert opened == {
        "signedPat": opened["signedPat"],
        "session": {"id": str(UUID(opened["session"]["id"])), "expiresIn": 300},
        "user": {"id": ana, "email": "ana@acme.test", "name": "Ana"},
        "app": {"id": ORDERS, "slug": "orders", "name": "Orders"},
    }
    claims = jwt.decode(opened["signedPat"], options={"verify_signature": False})
    assert (claims["aud"], claims["sub"], claims["exp"] - claims["iat"]) == (f"embed:{ORDERS}", ana, 300)


def test_a_program_gets_the_session_of_a_frame(service: Service) -> None:
    opened: Any = exchange(service, service.token()).json
    found: Any = read_session(service, opened["signedPat"]).json
    assert (found["sessionId"], found["user"], found["app"]) == (
        *(opened["session"]["id"], opened["user"], opened["app"]),
    )
    headers = {"Authorization": f"Bearer {opened['signedPat']}"}
    assert service.client.get(f"/embed-apps/{ORDERS}/pages/index", headers=headers).status_code == 200
    assert service.client.delete(f"/embed-apps/{ORDERS}/session", headers=headers).status_code == 204
    problem_of(read_session(service, opened["signedPat"]), 401, "session_revoked")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        basic("portal", "w" * 40),
        {"Authorization": "Bearer x"},
        {"Cookie": "session=1"},
        *({"Sec-Fetch-Dest": destination} for destination in ("empty", "document", "iframe")),
    ],
)
def test_headers_are_ignored_and_each_opening_is_a_new_session(
    shared: Service, headers: dict[str, str]
) -> None:
    token = shared.token()
    answers: list[Any] = [exchange(shared, token, ORDERS.upper(), headers).json for _ in range(2)]
    assert len({answer["session"]["id"] for answer in answers}) == 2


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, {"appId", "accessToken"}),
        ({"appId": ORDERS}, {"accessToken"}),
        ({"accessToken": "pat_0"}, {"appId"}),
        ({"appId": None, "accessToken": None}, {"appId", "accessToken"}),
        ({"appId": 5, "accessToken": ["pat_0"]}, {"appId", "accessToken"}),
        ({"appId": True, "accessToken": {}}, {"appId", "accessToken"}),
        ({"appId": "orders", "accessToken": "pat_0"}, {"appId"}),
        ({"appId": "", "accessToken": "pat_0"}, {"appId"}),
        ({"appId": ORDERS + "\n", "accessToken": "pat_0"}, {"appId"}),
        ({"appSlug": "orders", "accessToken": "pat_0"}, {"appId", "appSlug"}),
        ({"appId": ORDERS, "accessToken": "pat_0", "sessionExpiry": 1}, {"sessionExpiry"}),
        ({"appId": ORDERS, "accessToken": "pat_0", "x": None}, {"x"}),
    ],
)
def test_an_error_names_the_wrong_fields_of_the_body(
    shared: Service, body: dict[str, Any], named: set[str]
) -> None:
    answer = shared.client.post(EXCHANGE, json=body)
    assert set(problem_of(answer, 400, "invalid_payload")["errors"]) == named


def test_a_token_in_the_address_is_not_read(shared: Service) -> None:
    token = shared.token()
    answer = shared.client.post(f"{EXCHANGE}?accessToken={token}&personal-access-token={token}", json={})
    problem_of(answer, 400, "invalid_payload")


def test_a_malformed_token_is_invalid_without_a_database_query(shared: Service) -> None:
    token = shared.token()
    with shared.statements() as statements:
        for spoiled in ("", token[:-1], token + "\n", token.upper(), token[:-8] + "00000000", "x" * 5000):
            assert "pat_" not in problem_of(exchange(shared, spoiled), 401, "token_invalid")["detail"]
    assert statements == []


def after(statement: Any) -> Callable[[Service, str], tuple[str, str]]:
    def change(service: Service, token: str) -> tuple[str, str]:
        service.change(statement)
        return token, ORDERS

    return change


def mint_again(times: int) -> Callable[[Service, str], tuple[str, str]]:
    def mint(service: Service, token: str) -> tuple[str, str]:
        for _ in range(times):
            service.token()
        return token, ORDERS

    return mint


#: What happens to Ana's token, and the code of the refusal.
REFUSALS: dict[str, tuple[Callable[[Service, str], tuple[str, str]], str]] = {
    "forged": (lambda service, token: (generate("pat").reveal(), ORDERS), "token_invalid"),
    "a JWT": (lambda service, token: (service.frame().jwt, ORDERS), "token_invalid"),
    "at Support": (lambda service, token: (token, SUPPORT), "token_invalid"),
    "at Ledger": (lambda service, token: (token, LEDGER), "token_invalid"),
    "at no app": (lambda service, token: (token, str(UUID(int=1))), "token_invalid"),
    "replaced once": (mint_again(1), "token_superseded"),
    "replaced twice": (mint_again(2), "token_invalid"),
    "expired": (after(update(Token).values(expires_at=NOON)), "token_expired"),
    "revoked": (after(update(Token).values(revoked_at=NOON)), "token_revoked"),
    "without access": (after(delete(Grant)), "access_revoked"),
    "moved": (after(update(App).values(moves=App.moves + 1)), "access_revoked"),
    "of a deleted app": (after(delete(App).where(App.id == ORDERS)), "token_invalid"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_bad_token_opens_no_session(service: Service, name: str) -> None:
    prepare, code = REFUSALS[name]
    token, app_id = prepare(service, service.token())
    before = sessions(service)
    problem_of(exchange(service, token, app_id), 401, code)
    assert sessions(service) == before


def test_openings_and_refusals_of_real_tokens_are_audited_and_garbage_is_not(service: Service) -> None:
    old, new = service.token(), service.token()
    opened, refused = exchange(service, new), exchange(service, old)
    before = service.rows(select(func.count()).select_from(Event))[0][0]
    exchange(service, generate("pat").reveal())
    exchange(service, "nonsense")
    trail = {row.request_id: row for row in service.rows(select(Event.__table__)) if row.request_id}
    assert len(service.rows(select(Event.id))) == before
    event = trail[opened.headers["X-Request-Id"]]
    assert opened.json is not None
    assert (event.type, event.session_id) == ("session:opened", opened.json["session"]["id"])
    event = trail[refused.headers["X-Request-Id"]]
    assert (event.type, event.code, event.app_id) == ("session:open-refused", "token_superseded", ORDERS)
    assert "pat_" not in str(trail)
    assert opened.json["signedPat"] not in str(trail)


def test_openings_here_and_in_frames_share_one_limit(make_app: Callable[..., Flask]) -> None:
    app = make_app(OPEN_RATE_LIMIT="3 per minute")
    provision(app, WORLD)
    service = Service(app.test_client())
    with time_machine.travel(NOON, tick=False) as clock:
        token, bens = service.token(), service.token(email="ben@acme.test")
        assert exchange(service, token).status_code == 201
        assert service.open(token).status_code == 200
        assert exchange(service, token).status_code == 201
        answer = exchange(service, token)
        problem_of(answer, 429, "rate_limited")
        assert service.refusal(token) == "rate_limited"
        assert exchange(service, bens).status_code == 201
        clock.shift(int(answer.headers["Retry-After"]))
        assert exchange(service, token).status_code == 201
    assert sessions(service) == 5


def test_a_token_is_refused_as_a_session(shared: Service) -> None:
    problem_of(read_session(shared, shared.token()), 401, "session_invalid")

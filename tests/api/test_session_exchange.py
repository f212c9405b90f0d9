"""A program opens a session: with the same tokens and rules as a frame, and an answer in JSON."""

import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import jwt
import pytest
import time_machine
from flask import Flask
from sqlalchemy import delete, func, select, update
from werkzeug.test import TestResponse

from pat_service.credentials import generate
from pat_service.storage.models import App, Event, Grant, Member, Session, Token, User
from tests.support.people import (
    KEY,
    LEDGER,
    ORDERS,
    SUPPORT,
    WORLD,
    Service,
    basic,
    changed,
    problem_of,
    provision,
)

EXCHANGE = "/api/ext/users/session"
FULL_WIDTH = str.maketrans("0123456789", "０１２３４５６７８９")
NOON = datetime(2026, 11, 2, 12, tzinfo=UTC)


def exchange(
    service: Service, token: Any, app_id: Any = ORDERS, headers: dict[str, str] | None = None, **fields: Any
) -> TestResponse:
    body = {"appId": app_id, "accessToken": token} | fields
    return service.client.post(EXCHANGE, json=body, headers=headers)


def bearer(answer: TestResponse) -> dict[str, str]:
    assert answer.status_code == 201, answer.text
    assert answer.json is not None
    return {"Authorization": f"Bearer {answer.json['signedPat']}"}


def read_session(service: Service, headers: dict[str, str], app_id: str = ORDERS) -> TestResponse:
    return service.client.get(f"/embed-apps/{app_id}/session", headers=headers)


def sessions(service: Service) -> int:
    count: int = service.rows(select(func.count()).select_from(Session))[0][0]
    return count


def forge(token: str, body: str) -> str:
    """Return a token with this text and a right checksum, as anyone can compute it."""
    text = token[:4] + body
    return f"{text}{zlib.crc32(text.encode()):08x}"


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


def test_a_program_gets_the_session_of_a_frame(service: Service) -> None:
    answer = exchange(service, service.token())
    headers = bearer(answer)
    assert answer.json is not None
    found = read_session(service, headers)
    assert found.status_code == 200
    assert found.json is not None
    assert found.json["sessionId"] == answer.json["session"]["id"]
    assert found.json["user"] == answer.json["user"]
    assert found.json["app"] == answer.json["app"]
    page = service.client.get(f"/embed-apps/{ORDERS}/pages/index", headers=headers)
    assert page.status_code == 200
    assert service.client.delete(f"/embed-apps/{ORDERS}/session", headers=headers).status_code == 204
    problem_of(read_session(service, headers), 401, "session_revoked")


def test_the_jwt_has_the_contracts_form(service: Service) -> None:
    with time_machine.travel(NOON, tick=False):
        answer = exchange(service, service.token(sessionExpiry=5))
    assert answer.json is not None
    signed = answer.json["signedPat"]
    header = jwt.get_unverified_header(signed)
    claims = jwt.decode(signed, options={"verify_signature": False})
    assert (header["alg"], header["typ"], set(header)) == ("HS256", "embed+jwt", {"alg", "typ", "kid"})
    assert set(claims) == {"iss", "aud", "sub", "jti", "wid", "iat", "nbf", "exp"}
    assert claims["aud"] == f"embed:{ORDERS}"
    assert claims["jti"] == answer.json["session"]["id"]
    assert claims["sub"] == answer.json["user"]["id"]
    assert (claims["iat"], claims["exp"] - claims["iat"]) == (int(NOON.timestamp()), 300)


def test_the_id_of_the_app_may_be_in_capitals(service: Service) -> None:
    assert exchange(service, service.token(), ORDERS.upper()).status_code == 201


def test_opening_needs_no_client_credentials_and_ignores_wrong_ones(service: Service) -> None:
    token = service.token()
    for headers in ({}, basic("portal", "w" * 40), {"Authorization": "Bearer x"}, {"Cookie": "session=1"}):
        assert exchange(service, token, headers=headers).status_code == 201


def test_a_token_opens_more_than_one_session(service: Service) -> None:
    token = service.token()
    answers = [exchange(service, token) for _ in range(3)]
    assert all(read_session(service, bearer(answer)).status_code == 200 for answer in answers)
    assert len({(answer.json or {})["session"]["id"] for answer in answers}) == 3


def test_the_destination_that_a_browser_sends_does_not_matter(service: Service) -> None:
    token = service.token()
    for destination in ("empty", "document", "iframe"):
        assert exchange(service, token, headers={"Sec-Fetch-Dest": destination}).status_code == 201


# The body.


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


def test_a_token_in_the_address_is_not_read(service: Service) -> None:
    token = service.token()
    answer = service.client.post(f"{EXCHANGE}?accessToken={token}&personal-access-token={token}", json={})
    problem_of(answer, 400, "invalid_payload")


# The token.


@pytest.mark.parametrize(
    "spoil",
    [
        lambda token: "",
        lambda token: "pat_",
        lambda token: token[:-1],
        lambda token: token + "0",
        lambda token: token + "\n",
        lambda token: " " + token,
        lambda token: token.upper(),
        lambda token: "PAT_" + token[4:],
        lambda token: token[:-1] + ("0" if token[-1] != "0" else "1"),
        lambda token: token.translate(FULL_WIDTH),
        lambda token: token + "\0",
        lambda token: "pcs_" + token[4:],
        lambda token: token * 70,
        lambda token: f"{token},{token}",
        lambda token: forge(token, "0" * 64),
        lambda token: forge(token, token[4:67] + ("0" if token[67] != "0" else "1")),
        lambda token: generate("pat").reveal(),
        lambda token: jwt.encode({"sub": "ana"}, "k" * 64, algorithm="HS256"),
    ],
)
def test_a_malformed_or_forged_token_is_invalid(shared: Service, spoil: Callable[[str], str]) -> None:
    answer = exchange(shared, spoil(shared.token()))
    problem = problem_of(answer, 401, "token_invalid")
    assert "pat_" not in problem["detail"]


def test_a_malformed_token_causes_no_database_query(shared: Service) -> None:
    token = shared.token()
    with shared.statements() as statements:
        for spoiled in (token[:-1], token.upper(), token[:-8] + "00000000", "x" * 5000):
            problem_of(exchange(shared, spoiled), 401, "token_invalid")
    assert statements == []


@pytest.mark.parametrize("app_id", [SUPPORT, LEDGER, str(UUID(int=1))])
def test_a_token_is_invalid_at_another_app(shared: Service, app_id: str) -> None:
    problem_of(exchange(shared, shared.token(), app_id), 401, "token_invalid")


def test_a_replaced_token_is_superseded_at_its_own_app_and_older_tokens_are_invalid(service: Service) -> None:
    first, second, third = (service.token() for _ in range(3))
    problem_of(exchange(service, first), 401, "token_invalid")
    problem_of(exchange(service, second), 401, "token_superseded")
    problem_of(exchange(service, second, SUPPORT), 401, "token_invalid")
    assert exchange(service, third).status_code == 201
    assert sessions(service) == 1


def test_a_token_expires_at_its_very_second(service: Service) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        token = service.token(patExpiry=10)
        clock.move_to(NOON + timedelta(seconds=10, microseconds=-1))
        assert exchange(service, token).status_code == 201
        clock.move_to(NOON + timedelta(seconds=10))
        problem_of(exchange(service, token), 401, "token_expired")
        problem_of(exchange(service, token, SUPPORT), 401, "token_invalid")


def test_a_token_survives_a_key_rotation_while_its_key_is_a_fallback(
    make_app: Callable[..., Flask],
) -> None:
    before = Service(make_app().test_client())
    provision(before.app, WORLD)
    first, second = before.token(), before.token()
    headers = bearer(exchange(before, second))
    after = Service(make_app(SECRET_KEY="n" * 64, SECRET_KEY_FALLBACKS=KEY).test_client())
    assert exchange(after, second).status_code == 201
    assert read_session(after, headers).status_code == 200
    problem_of(exchange(after, first), 401, "token_superseded")
    third = after.token()
    problem_of(exchange(after, second), 401, "token_superseded")
    assert exchange(after, third).status_code == 201
    problem_of(exchange(before, third), 401, "token_invalid")
    later = Service(make_app(SECRET_KEY="n" * 64).test_client())
    # The use of the second re-keyed its digest; the first was never used.
    problem_of(exchange(later, second), 401, "token_superseded")
    problem_of(exchange(later, first), 401, "token_invalid")
    problem_of(read_session(later, headers), 401, "session_invalid")
    assert exchange(later, third).status_code == 201


def test_a_revoked_token_opens_nothing(service: Service) -> None:
    token = service.token()
    service.change(update(Token).values(revoked_at=datetime.now(UTC)))
    problem_of(exchange(service, token), 401, "token_revoked")


@pytest.mark.parametrize(
    "loss",
    [
        update(User).where(User.email == "ana@acme.test").values(status="archived"),
        delete(Grant).where(Grant.app_id == ORDERS),
        delete(Member),
        update(App).where(App.id == ORDERS).values(moves=App.moves + 1),
    ],
)
def test_ana_opens_nothing_after_she_lost_access(service: Service, loss: Any) -> None:
    token = service.token()
    headers = bearer(exchange(service, token))
    service.change(loss)
    problem_of(exchange(service, token), 401, "access_revoked")
    problem_of(read_session(service, headers), 401, "access_revoked")
    assert sessions(service) == 1


def test_a_restored_grant_revives_tokens_and_sessions_but_a_move_ends_them_for_good(
    service: Service,
) -> None:
    token = service.token()
    headers = bearer(exchange(service, token))
    provision(service.app, changed("apps", "orders", users=[]))
    problem_of(exchange(service, token), 401, "access_revoked")
    provision(service.app, WORLD)
    assert read_session(service, headers).status_code == 200
    assert exchange(service, token).status_code == 201
    provision(service.app, changed("apps", "orders", workspace="globex"))
    provision(service.app, WORLD)
    problem_of(exchange(service, token), 401, "access_revoked")
    problem_of(read_session(service, headers), 401, "access_revoked")
    assert exchange(service, service.token()).status_code == 201


def test_a_deleted_app_makes_its_tokens_invalid(service: Service) -> None:
    token = service.token()
    headers = bearer(exchange(service, token))
    service.change(delete(App).where(App.id == ORDERS))
    problem_of(exchange(service, token), 401, "token_invalid")
    problem_of(read_session(service, headers), 401, "session_invalid")


def test_a_session_is_invalid_at_another_app(service: Service) -> None:
    headers = bearer(exchange(service, service.token()))
    problem_of(read_session(service, headers, SUPPORT), 401, "session_invalid")
    assert read_session(service, headers).status_code == 200


def test_a_session_is_no_token_and_a_token_is_no_session(service: Service) -> None:
    token = service.token()
    answer = exchange(service, token)
    assert answer.json is not None
    problem_of(exchange(service, answer.json["signedPat"]), 401, "token_invalid")
    problem_of(read_session(service, {"Authorization": f"Bearer {token}"}), 401, "session_invalid")


# The audit trail.


def test_openings_and_refusals_of_real_tokens_are_audited_and_garbage_is_not(
    service: Service,
) -> None:
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


# The limit.


def test_one_token_has_one_limit_here_and_in_frames(make_app: Callable[..., Flask]) -> None:
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

"""Just-in-time provisioning: a mint brings its user along."""

from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import func, select
from werkzeug.test import TestResponse

from pat_service.storage.models import Event, Grant, Member, Token, User
from tests.support.people import (
    LEDGER,
    MINT,
    ORDERS,
    SUPPORT,
    Service,
    basic,
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


NEWCOMER: dict[str, Any] = {
    "client": "manager",
    "email": "New@Acme.test",
    "provision": {"name": "Nia", "role": "builder"},
}


def test_a_mint_brings_its_user_along(service: Service) -> None:
    answer = service.mint(**NEWCOMER)
    assert answer.status_code == 201
    frame = service.open(answer.get_json()["personalAccessToken"])
    assert frame.status_code == 200
    viewer = boot(frame)["viewer"]
    assert (viewer["user"]["email"], viewer["user"]["name"], viewer["role"]) == (
        "new@acme.test",
        "Nia",
        "builder",
    )
    user = viewer["user"]["id"]
    for type_ in ("user:created", "member:added", "grant:added"):
        (event,) = [event for event in trail(service, type_) if event.user_id == user]
        assert event.client_id == "manager"
        assert event.request_id == answer.headers["X-Request-Id"]


def test_bringing_somebody_along_again_changes_nothing(service: Service) -> None:
    assert service.mint(**NEWCOMER).status_code == 201
    before = count(service, User, Member, Grant), len(service.rows(select(Event.id)))
    again = NEWCOMER | {"provision": {"name": "Other", "role": "end-user"}}
    assert service.mint(**again).status_code == 201
    after = count(service, User, Member, Grant), len(service.rows(select(Event.id)))
    assert after == (before[0], before[1] + 1)  # the mint's own event
    (user,) = service.rows(select(User.name, Member.role).join(Member).where(User.email == "new@acme.test"))
    assert tuple(user) == ("Nia", "builder")


def test_what_is_missing_is_made_and_nothing_else(service: Service) -> None:
    provision(service.app, changed("users", "ben@acme.test", workspaces={"acme": "admin"}))
    answer = service.mint(
        client="manager", email="ben@acme.test", appSlug="support", provision={"role": "end-user"}
    )
    assert answer.status_code == 201
    (ben,) = service.rows(select(User.name, Member.role).join(Member).where(User.email == "ben@acme.test"))
    assert tuple(ben) == ("Ben", "admin")
    assert [event.app_id for event in trail(service, "grant:added")][-1] == SUPPORT


def test_without_a_name_the_email_stands_for_it_and_the_role_is_the_least(service: Service) -> None:
    assert service.mint(**NEWCOMER | {"provision": {}}).status_code == 201
    (new,) = service.rows(select(User.name, Member.role).join(Member).where(User.email == "new@acme.test"))
    assert tuple(new) == ("New@Acme.test", "end-user")


def test_somebody_of_another_company_joins_with_the_name_they_have(service: Service) -> None:
    wish = NEWCOMER | {
        "email": "mallory@globex.test",
        "provision": {"name": "Not Mallory", "role": "builder"},
    }
    answer = service.mint(**wish)
    assert answer.status_code == 201
    rows = service.rows(
        select(User.name, Member.role).join(Member).where(User.email == "mallory@globex.test")
    )
    assert sorted(map(tuple, rows)) == [("Mallory", "admin"), ("Mallory", "builder")]


@pytest.mark.parametrize(
    ("wish", "status", "code"),
    [
        ({"client": "portal"}, 403, "scope_missing"),
        ({"provision": {"role": "admin"}}, 403, "scope_missing"),
        ({"appSlug": "ledger"}, 404, "app_not_found"),
        ({"appSlug": None, "appId": LEDGER}, 404, "app_not_found"),
        ({"appSlug": "nothing"}, 404, "app_not_found"),
        ({"email": None, "userId": "nobody"}, 404, "user_not_found"),
        ({"provision": {"name": ""}}, 400, "invalid_payload"),
        ({"provision": {"name": "x" * 201}}, 400, "invalid_payload"),
        ({"provision": {"name": "a\0"}}, 400, "invalid_payload"),
        ({"provision": {"role": "owner"}}, 400, "invalid_payload"),
        ({"provision": {"role": 1}}, 400, "invalid_payload"),
        ({"provision": {"status": "active"}}, 400, "invalid_payload"),
        ({"provision": []}, 400, "invalid_payload"),
        ({"provision": "yes"}, 400, "invalid_payload"),
        ({"provision": True}, 400, "invalid_payload"),
    ],
)
def test_a_newcomer_who_is_refused_leaves_no_trace(
    service: Service, wish: dict[str, Any], status: int, code: str
) -> None:
    before = count(service, User, Member, Grant, Token)
    problem_of(service.mint(**NEWCOMER | wish), status, code)
    assert count(service, User, Member, Grant, Token) == before
    assert not [event for event in trail(service, "user:created") if event.client_id in ("manager", "portal")]


def test_an_archived_user_is_not_let_in_and_nothing_is_made(service: Service) -> None:
    provision(service.app, changed("users", "ben@acme.test", status="archived", workspaces={}))
    before = count(service, User, Member, Grant, Token)
    for wish in ({"appSlug": "support"}, {"appSlug": None, "workspaceSlug": "acme"}):
        answer = service.mint(**NEWCOMER | {"email": "ben@acme.test"} | wish)
        problem_of(answer, 403, "app_forbidden")
    assert count(service, User, Member, Grant, Token) == before


def test_a_refusal_does_not_make_somebody_of_another_company_known(service: Service) -> None:
    provision(service.app, changed("users", "mallory@globex.test", status="archived"))
    answer = service.mint(**NEWCOMER | {"email": "mallory@globex.test"})
    problem_of(answer, 403, "app_forbidden")
    (event,) = trail(service, "token:mint-refused")
    assert (event.user_id, event.app_id) == (None, ORDERS)


def test_a_wrong_field_of_the_newcomer_is_named(shared: Service) -> None:
    problem = problem_of(shared.mint(client="manager", provision={"role": "owner"}), 400, "invalid_payload")
    assert set(problem["errors"]) == {"provision.role"}


def test_a_null_newcomer_is_none(shared: Service) -> None:
    body = {"email": "ana@acme.test", "appSlug": "orders", "sessionExpiry": 60, "patExpiry": 1000}
    body |= dict.fromkeys(("provision", "attributes", "allowedOrigins", "singleUse", "workspaceId"))
    answer = shared.client.post(MINT, json=body, headers=basic("portal"))
    assert answer.status_code == 201

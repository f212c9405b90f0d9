"""Just-in-time provisioning: a mint that creates its user."""

from typing import Any

import pytest
from sqlalchemy import select

from pat_service.storage.models import Event, Grant, Member, Token, User
from tests.support.people import LEDGER, ORDERS, SUPPORT, Service, boot, changed, problem_of, provision

MADE = (User, Member, Grant, Token)
NEW_USER: dict[str, Any] = {
    "client": "manager",
    "email": "New@Acme.test",
    "provision": {"name": "Nia", "role": "builder"},
}


def test_a_mint_creates_its_user_member_and_grant(service: Service) -> None:
    answer = service.mint(**NEW_USER)
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
        (event,) = [event for event in service.events(type_) if event.user_id == user]
        assert event.client_id == "manager"
        assert event.request_id == answer.headers["X-Request-Id"]


def test_a_second_mint_does_not_change_the_user(service: Service) -> None:
    assert service.mint(**NEW_USER).status_code == 201
    before = [service.count(table) for table in (*MADE, Event)]
    again = NEW_USER | {"provision": {"name": "Other", "role": "end-user"}}
    assert service.mint(**again).status_code == 201
    after = [service.count(table) for table in (*MADE, Event)]
    assert after == [*before[:-1], before[-1] + 1], "only the mint's own event is new"
    (user,) = service.rows(select(User.name, Member.role).join(Member).where(User.email == "new@acme.test"))
    assert tuple(user) == ("Nia", "builder")


def test_a_mint_creates_only_what_ben_lacks(service: Service) -> None:
    provision(service.app, changed("users", "ben@acme.test", workspaces={"acme": "admin"}))
    answer = service.mint(
        client="manager", email="ben@acme.test", appSlug="support", provision={"role": "end-user"}
    )
    assert answer.status_code == 201
    (ben,) = service.rows(select(User.name, Member.role).join(Member).where(User.email == "ben@acme.test"))
    assert tuple(ben) == ("Ben", "admin")
    assert [event.app_id for event in service.events("grant:added")][-1] == SUPPORT


def test_the_default_name_is_the_email_and_the_default_role_the_least(service: Service) -> None:
    assert service.mint(**NEW_USER | {"provision": {}}).status_code == 201
    (new,) = service.rows(select(User.name, Member.role).join(Member).where(User.email == "new@acme.test"))
    assert tuple(new) == ("New@Acme.test", "end-user")


def test_mallory_joins_acme_under_her_own_name(service: Service) -> None:
    fields = NEW_USER | {
        "email": "mallory@globex.test",
        "provision": {"name": "Not Mallory", "role": "builder"},
    }
    answer = service.mint(**fields)
    assert answer.status_code == 201
    rows = service.rows(
        select(User.name, Member.role).join(Member).where(User.email == "mallory@globex.test")
    )
    assert sorted(map(tuple, rows)) == [("Mallory", "admin"), ("Mallory", "builder")]


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"client": "portal", "provision": {}}, 403, "scope_missing"),
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
def test_a_refused_mint_creates_nothing(
    service: Service, fields: dict[str, Any], status: int, code: str
) -> None:
    before = [service.count(table) for table in MADE]
    problem_of(service.mint(**NEW_USER | fields), status, code)
    assert [service.count(table) for table in MADE] == before
    assert not [event for event in service.events("user:created") if event.client_id in ("manager", "portal")]


def test_an_archived_user_stays_out_and_nothing_is_created(service: Service) -> None:
    provision(service.app, changed("users", "ben@acme.test", status="archived", workspaces={}))
    before = [service.count(table) for table in MADE]
    for fields in ({"appSlug": "support"}, {"appSlug": None, "workspaceSlug": "acme"}):
        answer = service.mint(**NEW_USER | {"email": "ben@acme.test"} | fields)
        problem_of(answer, 403, "app_forbidden")
    assert [service.count(table) for table in MADE] == before


def test_a_refusal_does_not_reveal_mallory_to_acme(service: Service) -> None:
    provision(service.app, changed("users", "mallory@globex.test", status="archived"))
    answer = service.mint(**NEW_USER | {"email": "mallory@globex.test"})
    problem_of(answer, 403, "app_forbidden")
    (event,) = service.events("token:mint-refused")
    assert (event.user_id, event.app_id) == (None, ORDERS)

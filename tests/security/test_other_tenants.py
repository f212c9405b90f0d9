"""The back end of another tenant, with every right in its own workspace, attacks people of this one.

Acme is the victim, with its client `manager`. Globex's client `rival` is the attacker. The person may know
both tenants: she leaves one for the other, or will be hired by one.
"""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from apps.support import Ticket
from pat_service.rules import retention
from pat_service.storage.models import Event, User
from tests.support.directory import ANA, BEN, Directory
from tests.support.people import (
    LEDGER,
    ORDERS,
    SUPPORT,
    Service,
    basic,
    changed,
    make_secret,
    problem_of,
    provision,
)

HIRE = "newhire@acme.test"


@pytest.fixture
def world(tenants: Directory) -> Directory:
    """The manager can give every role, as the rival can."""
    provision(tenants.service.app, changed("clients", "manager", highest_role="admin"))
    return tenants


def write_ticket(service: Service) -> None:
    """Let Ana write a ticket in Acme's app."""
    frame = service.frame(SUPPORT)
    ticket = {"subject": "My own", "topic": "other", "message": "Hello"}
    answer = service.post(frame, "pages/create", data=ticket)
    assert answer.status_code == 200, answer.text


def tickets(service: Service) -> int:
    return service.count(Ticket)


def leave_for_globex(world: Directory, email: str = ANA) -> None:
    world.leave(email, "manager")
    world.join(email, "rival")


# Attacks that once worked


def test_a_person_who_left_is_not_deleted_with_the_rows_of_acmes_app(world: Directory) -> None:
    """Ana wrote a ticket, and left Acme. Globex lets her join, and tries to delete her."""
    write_ticket(world.service)
    leave_for_globex(world)
    before = tickets(world.service)
    assert before > 0
    problem_of(world.call("DELETE", f"users/{world.user(ANA)}", None, "rival"), 409, "conflict")
    assert tickets(world.service) == before
    assert world.service.rows(select(User.id).where(User.email == ANA)) != []


def test_a_person_who_left_does_not_become_another(world: Directory) -> None:
    """Globex tries to give Ana's id the email of her successor, who would see her tickets."""
    write_ticket(world.service)
    leave_for_globex(world)
    for changes in ({"email": "successor@acme.test"}, {"name": "Successor"}):
        problem_of(world.call("PATCH", f"users/{world.user(ANA)}", changes, "rival"), 409, "conflict")
    successor = world.join("successor@acme.test", "manager")
    assert successor["id"] != world.user(ANA)


@pytest.mark.parametrize("way", ["the API", "just-in-time provisioning"])
def test_acmes_future_hire_cannot_be_kept_out_by_a_record_of_globex(world: Directory, way: str) -> None:
    """Globex creates the hire, as archived, before Acme does."""
    hire = world.join(HIRE, "rival", status="archived")
    if way == "the API":
        assert world.join(HIRE, "manager")["status"] == "active"
        world.ok("PUT", f"apps/{ORDERS}/grants/{hire['id']}", status=201)
        assert world.service.mint(client="manager", email=HIRE).status_code == 201
    else:
        assert world.service.mint(client="manager", email=HIRE, provision={}).status_code == 201
    world.ok("PATCH", f"users/{hire['id']}", {"status": "archived"}, "rival")
    frame = world.service.frame(client="manager", email=HIRE)
    assert world.service.get(frame, "session").status_code == 200


def test_acme_archives_its_employee_whom_globex_added(world: Directory) -> None:
    """A mint of Globex provisions Ben at Globex. Acme wants to archive him at Acme."""
    provision(
        world.service.app, changed("clients", "rival", scopes=["mint", "provision"], highest_role="admin")
    )
    answer = world.service.mint(client="rival", email=BEN, appSlug="ledger", provision={})
    assert answer.status_code == 201
    assert world.ok("PATCH", f"users/{world.user(BEN)}", {"status": "archived"})["status"] == "archived"
    problem_of(world.service.mint(client="manager", email=BEN), 403, "app_forbidden")
    world.ok("PATCH", f"users/{world.user(BEN)}", {"status": "active"}, "rival")
    problem_of(world.service.mint(client="manager", email=BEN), 403, "app_forbidden")
    assert world.service.mint(client="rival", email=BEN, appSlug="ledger").status_code == 201


def test_a_client_for_end_users_cannot_take_the_place_of_an_admin(world: Directory) -> None:
    """The client tries to take over, archive, demote, remove and delete an admin."""
    office = {
        "id": "office",
        "secret": make_secret("office"),
        "workspaces": ["acme"],
        "scopes": ["provision"],
    }
    provision(world.service.app, {"clients": [office]})
    world.ok("PUT", f"workspaces/{world.acme}/members/{world.user(ANA)}", {"role": "admin"})
    for method, path, body in (
        ("PATCH", f"users/{world.user(ANA)}", {"email": "accomplice@evil.test"}),
        ("PATCH", f"users/{world.user(ANA)}", {"status": "archived"}),
        ("PUT", f"workspaces/{world.acme}/members/{world.user(ANA)}", {"role": "end-user"}),
        ("DELETE", f"workspaces/{world.acme}/members/{world.user(ANA)}", None),
        ("DELETE", f"users/{world.user(ANA)}", None),
    ):
        options: dict[str, Any] = {} if body is None else {"json": body}
        answer = world.service.client.open(
            f"/api/ext/{path}", method=method, headers=basic("office", make_secret("office")), **options
        )
        problem_of(answer, 403, "scope_missing")


# A person who left: her id, and nothing else


@pytest.fixture
def left(world: Directory) -> Directory:
    """Ana has a token and a session at Acme. She left, and the installation knows her new name and email."""
    world.service.frame()
    world.ok("PATCH", f"users/{world.user(ANA)}", {"name": "Ana Ruiz"})
    world.leave(ANA, "manager")
    world.join(ANA, "rival")
    secret = {"name": "Secret-Marriedname", "email": "private@globex.test"}
    world.ok("PATCH", f"users/{world.user(ANA)}", secret, "everywhere")
    return world


@pytest.mark.parametrize("path", ["personal-access-tokens", "sessions", "events", "events/export", "users"])
def test_acme_sees_no_name_and_no_email_of_a_person_who_left(left: Directory, path: str) -> None:
    """Neither lists nor earlier events show them."""
    answer = left.call("GET", path)
    assert answer.status_code == 200
    assert left.user(ANA) in answer.text or path == "users"
    for text in ("Secret-Marriedname", "private@globex.test", '"Ana', ANA):
        assert text not in answer.text
    everything = left.call("GET", path, client="everywhere").text
    assert "Secret-Marriedname" in everything


@pytest.mark.parametrize("kind", ["personal-access-tokens", "sessions"])
def test_a_token_and_a_session_of_a_person_who_left_name_the_id_only(left: Directory, kind: str) -> None:
    (item,) = left.items(kind)
    assert item["user"] == {"id": left.user(ANA), "email": None, "name": None}
    assert left.ok("GET", f"{kind}/{item['id']}") == item
    left.join("private@globex.test", "manager")
    assert left.ok("GET", f"{kind}/{item['id']}")["user"]["name"] == "Secret-Marriedname"


def test_events_of_a_person_who_left_keep_what_is_not_personal(left: Directory) -> None:
    left.ok("PATCH", f"users/{left.user(BEN)}", {"name": "Benjamin"})
    found = left.items("events?type=user:changed")
    shown = {item["userId"]: item["details"] for item in found}
    assert shown[left.user(ANA)] == {"before": {}, "after": {}}
    assert shown[left.user(BEN)] == {"before": {"name": "Ben"}, "after": {"name": "Benjamin"}}
    (removed,) = left.items("events?type=member:removed")
    assert removed["details"] == {"before": {"role": "end-user"}}


# Other attacks


def test_a_purge_of_the_trail_gives_globex_no_right_to_delete_a_person_who_left(world: Directory) -> None:
    """After a while, Acme's events are the only evidence, and a purge deletes them."""
    service = world.service
    write_ticket(service)
    ana, now = world.user(ANA), datetime.now(UTC)
    world.leave(ANA, "manager")
    world.join(ANA, "rival")
    world.ok("PATCH", f"users/{ana}", {"homeWorkspaceId": world.globex}, "everywhere")
    for grant in (ORDERS, SUPPORT):
        world.ok("DELETE", f"apps/{grant}/grants/{ana}", None, "everywhere", 204)
    service.change(update(Event).values(at=now - timedelta(days=100)))
    later = now + timedelta(days=90)
    with service.app.app_context():
        for _ in range(2):  # the first purge records the expiry of the session
            retention.purge(later, timedelta(days=1), timedelta(days=1))
    assert service.rows(select(Event.id).where(Event.user_id == ana, Event.workspace_id == world.acme)) == []
    before = tickets(service)
    problem_of(world.call("DELETE", f"users/{ana}", None, "rival"), 409, "conflict")
    problem_of(world.call("PATCH", f"users/{ana}", {"email": "x@y.test"}, "rival"), 409, "conflict")
    assert tickets(service) == before


def test_a_recreated_person_does_not_get_past_an_archived_status(world: Directory) -> None:
    """Globex's own person is archived at Acme. Deleting and creating her again would forget that."""
    mallory = world.join("mallory@globex.test", "manager")["id"]
    world.ok("PATCH", f"users/{mallory}", {"status": "archived"})
    world.leave("mallory@globex.test", "manager")
    problem_of(world.call("DELETE", f"users/{mallory}", None, "rival"), 409, "conflict")
    rename = {"email": "other@globex.test"}
    problem_of(world.call("PATCH", f"users/{mallory}", rename, "rival"), 409, "conflict")
    assert world.join("mallory@globex.test", "manager")["status"] == "archived"


def test_a_home_is_not_taken_by_creating_or_joining_again(world: Directory) -> None:
    leave_for_globex(world)
    for email in (ANA, ANA.upper()):
        body = {"email": email, "memberships": [{"workspaceId": world.globex, "role": "admin"}]}
        problem_of(world.call("POST", "users", body, "rival"), 409, "conflict")
    for changes in ({"homeWorkspaceId": world.globex}, {"homeWorkspaceId": world.globex, "name": "X"}):
        problem_of(world.call("PATCH", f"users/{world.user(ANA)}", changes, "rival"), 403, "scope_missing")
    (ana,) = world.service.rows(select(User.home_workspace_id, User.name).where(User.email == ANA))
    assert tuple(ana) == (world.acme, "Ana")


def test_a_tenant_that_is_not_the_home_decides_who_has_access_to_it(world: Directory) -> None:
    """The home is Globex, which tries everything to prevent this."""
    mallory = world.join("mallory@globex.test", "manager")["id"]
    world.ok("PUT", f"apps/{ORDERS}/grants/{mallory}", status=201)
    world.ok("PATCH", f"users/{mallory}", {"status": "archived"}, "rival")
    mint: dict[str, Any] = {"client": "manager", "email": "mallory@globex.test"}
    assert world.service.mint(**mint).status_code == 201
    world.ok("PATCH", f"users/{mallory}", {"status": "archived"})
    world.ok("PATCH", f"users/{mallory}", {"status": "active"}, "rival")
    assert world.service.mint(**mint).status_code == 403
    world.leave("mallory@globex.test", "rival")
    world.ok("PATCH", f"users/{mallory}", {"status": "active"})
    assert world.service.mint(**mint).status_code == 201
    world.leave("mallory@globex.test", "manager")
    problem_of(world.service.mint(**mint), 404, "user_not_found")


def test_the_trails_show_no_tenant_the_other_one(world: Directory) -> None:
    """Neither a joining, nor a status, nor a new home shows the other workspace."""
    ana = world.user(ANA)
    world.join(ANA, "rival")
    world.ok("PATCH", f"users/{ana}", {"status": "archived"}, "rival")
    world.ok("PATCH", f"users/{ana}", {"homeWorkspaceId": world.globex}, "everywhere")
    for client, other in (("manager", world.globex), ("rival", world.acme)):
        for path in ("events", "events/export", "users", f"users/{ana}"):
            answer = world.call("GET", path, client=client)
            assert answer.status_code == 200
            assert other not in answer.text, (client, path)


def test_refusals_do_not_say_who_the_other_tenant_is(world: Directory) -> None:
    leave_for_globex(world)
    for method, body in (("PATCH", {"name": "X"}), ("PATCH", {"email": "x@y.test"}), ("DELETE", None)):
        answer = world.call(method, f"users/{world.user(ANA)}", body, "rival")
        problem_of(answer, 409, "conflict")
        for text in (world.acme, "acme", "Acme", "manager", ORDERS):
            assert text not in json.dumps({"detail": answer.get_json()["detail"]}).replace(ANA, "")


def test_an_app_that_moves_away_takes_no_rights_over_its_users_along(world: Directory) -> None:
    """Orders moves to Globex with its trail of Ana at Acme; Globex gets no right over Ana."""
    world.service.frame()
    world.ok("PATCH", f"apps/{ORDERS}", {"workspaceId": world.globex}, "everywhere")
    ana = f"users/{world.user(ANA)}"
    problem_of(world.call("GET", ana, None, "rival"), 404, "user_not_found")
    problem_of(world.call("PATCH", ana, {"status": "archived"}, "rival"), 404, "user_not_found")
    assert world.service.mint(client="manager", appSlug="support").status_code == 201


def test_a_token_of_globex_opens_nothing_after_globex_archives(world: Directory) -> None:
    world.service.change(update(User).where(User.email == "mallory@globex.test").values(name="M"))
    frame = world.service.frame(LEDGER, client="rival", email="mallory@globex.test")
    world.ok("PATCH", f"users/{world.user('mallory@globex.test')}", {"status": "archived"}, "rival")
    problem_of(world.service.get(frame, "session"), 401, "access_revoked")

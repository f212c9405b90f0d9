"""The status of a user in a workspace: each tenant lets people in and out of its own workspace only."""

from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from pat_service.storage.models import ClientWorkspace, Event, User, Workspace, WorkspaceStatus, new_id
from tests.support.directory import ANA, BEN, MALLORY, Directory
from tests.support.people import LEDGER, SUPPORT, changed, problem_of, provision


def set_status(directory: Directory, email: str, status: str, client: str = "manager") -> Any:
    return directory.ok("PATCH", f"users/{directory.user(email)}", {"status": status}, client)


def status_of(directory: Directory, email: str, client: str = "manager") -> str:
    return str(directory.ok("GET", f"users/{directory.user(email)}", client=client)["status"])


@pytest.fixture
def joined(tenants: Directory) -> Directory:
    """Mallory of Globex is also a member of Acme, and may open Support there."""
    tenants.join(MALLORY, "manager")
    tenants.ok("PUT", f"apps/{SUPPORT}/grants/{tenants.user(MALLORY)}", status=201)
    tenants.take_event_facts()
    return tenants


def mint(directory: Directory, client: str) -> int:
    app = "support" if client == "manager" else "ledger"
    return directory.service.mint(client=client, email=MALLORY, appSlug=app).status_code


def test_a_status_of_one_tenant_counts_in_its_workspace_only(joined: Directory) -> None:
    here = joined.service.frame(SUPPORT, client="manager", email=MALLORY)
    there = joined.service.frame(LEDGER, client="rival", email=MALLORY)
    assert set_status(joined, MALLORY, "archived")["status"] == "archived"
    problem_of(joined.service.get(here, "session"), 401, "access_revoked")
    assert joined.service.get(there, "session").status_code == 200
    assert (mint(joined, "manager"), mint(joined, "rival")) == (403, 201)
    assert [status_of(joined, MALLORY, client) for client in ("rival", "everywhere")] == ["active"] * 2
    change = {"before": {"status": "active"}, "after": {"status": "archived"}}
    assert joined.take_event_facts() == [("user:changed", "manager", "acme", change)]
    set_status(joined, MALLORY, "active")
    assert joined.service.get(here, "session").status_code == 200
    back = {"before": {"status": "archived"}, "after": {"status": "active"}}
    assert joined.take_event_facts() == [("user:changed", "manager", "acme", back)]


def test_a_status_is_set_twice_and_recorded_once(tenants: Directory) -> None:
    for _ in range(2):
        set_status(tenants, ANA, "archived")
    assert len(tenants.take_events()) == 1


def test_a_status_outlives_the_membership(joined: Directory) -> None:
    """Joining again gives no access until a client of the workspace activates the person."""
    ways: list[tuple[str, str, Any]] = [
        (
            "POST",
            "users",
            {"email": MALLORY, "memberships": [{"workspaceId": joined.acme, "role": "end-user"}]},
        ),
        ("PUT", f"workspaces/{joined.acme}/members/{joined.user(MALLORY)}", {"role": "end-user"}),
    ]
    set_status(joined, MALLORY, "archived")
    for method, path, body in ways:
        joined.leave(MALLORY, "manager")
        client = "everywhere" if method == "PUT" else "manager"
        joined.ok(method, path, body, client, 201 if method == "PUT" else 200)
        assert status_of(joined, MALLORY) == "archived"
        assert mint(joined, "manager") == 403
    joined.leave(MALLORY, "manager")
    just_in_time: dict[str, Any] = {
        "client": "manager",
        "email": MALLORY,
        "appSlug": "support",
        "provision": {},
    }
    problem_of(joined.service.mint(**just_in_time), 403, "app_forbidden")
    joined.join(MALLORY, "manager")
    set_status(joined, MALLORY, "active")
    assert mint(joined, "manager") == 201


def test_a_new_user_of_a_limited_client_is_archived_in_its_workspace_only(tenants: Directory) -> None:
    assert tenants.join("hire@acme.test", "rival", status="archived")["status"] == "archived"
    assert tenants.join("hire@acme.test", "manager")["status"] == "active"
    tenants.ok("PUT", f"apps/{SUPPORT}/grants/{tenants.user('hire@acme.test')}", status=201)
    assert (
        tenants.service.mint(client="manager", email="hire@acme.test", appSlug="support").status_code == 201
    )
    assert status_of(tenants, "hire@acme.test", "rival") == "archived"


def test_a_status_counts_in_every_workspace_of_the_client(tenants: Directory) -> None:
    """Even in a workspace that the person joins later."""
    provision(
        tenants.service.app,
        changed("clients", "manager", workspaces=["acme", "globex"], highest_role="admin"),
    )
    set_status(tenants, ANA, "archived")
    tenants.ok(
        "PUT",
        f"workspaces/{tenants.globex}/members/{tenants.user(ANA)}",
        {"role": "end-user"},
        "everywhere",
        201,
    )
    assert status_of(tenants, ANA, "rival") == "archived"
    set_status(tenants, ANA, "active", "rival")
    assert [status_of(tenants, ANA, client) for client in ("manager", "rival")] == ["archived", "active"]


def test_a_user_created_as_archived_is_archived_in_every_workspace_of_the_client(
    directory: Directory,
) -> None:
    provision(directory.service.app, changed("clients", "manager", workspaces=["acme", "globex"]))
    directory.join("hire@acme.test", "manager", status="archived")
    provision(directory.service.app, changed("clients", "manager", workspaces=["acme"]))
    assert directory.join("hire@acme.test", "rival")["status"] == "archived"


def test_lists_show_the_status_that_the_client_sees(joined: Directory) -> None:
    set_status(joined, MALLORY, "archived")
    mallory = joined.user(MALLORY)
    for client, status in (("manager", "archived"), ("rival", "active"), ("everywhere", "active")):
        other = "active" if status == "archived" else "archived"
        assert MALLORY in {item["email"] for item in joined.items(f"users?status={status}", client)}
        assert MALLORY not in {item["email"] for item in joined.items(f"users?status={other}", client)}
    for client in ("manager", "everywhere"):
        member = joined.ok("GET", f"workspaces/{joined.acme}/members/{mallory}", client=client)
        grant = joined.ok("GET", f"apps/{SUPPORT}/grants/{mallory}", client=client)
        assert (member["user"]["status"], grant["user"]["status"]) == ("archived", "archived")
        assert grant["effective"] is False
    there = joined.ok("GET", f"workspaces/{joined.globex}/members/{mallory}", client="rival")
    assert there["user"]["status"] == "active"


# The status of the installation


def test_a_client_of_all_workspaces_archives_everywhere(joined: Directory) -> None:
    set_status(joined, MALLORY, "archived", "everywhere")
    assert (mint(joined, "manager"), mint(joined, "rival")) == (403, 403)
    for client in ("manager", "rival"):
        assert status_of(joined, MALLORY, client) == "archived"
        body = {"status": "active"}
        problem = problem_of(
            joined.call("PATCH", f"users/{joined.user(MALLORY)}", body, client), 409, "conflict"
        )
        assert "whole installation" in problem["detail"]
    set_status(joined, MALLORY, "active", "everywhere")
    assert (mint(joined, "manager"), mint(joined, "rival")) == (201, 201)


@pytest.mark.parametrize("way", ["a client of all workspaces", "the file"])
def test_activating_in_the_installation_keeps_a_tenants_decision(joined: Directory, way: str) -> None:
    set_status(joined, MALLORY, "archived")
    if way == "the file":
        both = {"acme": "end-user", "globex": "admin"}
        provision(joined.service.app, changed("users", MALLORY, workspaces=both))
    else:
        set_status(joined, MALLORY, "active", "everywhere")
    assert (mint(joined, "manager"), mint(joined, "rival")) == (403, 201)


def test_a_client_of_the_home_reactivates_a_user_who_was_archived_before_the_upgrade(
    joined: Directory,
) -> None:
    """`archived_at` of this user is null."""
    joined.service.change(update(User).where(User.email == MALLORY).values(status="archived"))
    path, body = f"users/{joined.user(MALLORY)}", {"status": "active"}
    assert (mint(joined, "manager"), mint(joined, "rival")) == (403, 403)
    problem_of(joined.call("PATCH", path, body, "manager"), 409, "conflict")
    joined.ok("PATCH", path, body, "rival")
    assert (mint(joined, "manager"), mint(joined, "rival")) == (201, 201)


def test_a_client_of_the_home_cannot_activate_a_user_whom_the_file_archived(directory: Directory) -> None:
    provision(directory.service.app, changed("users", ANA, status="archived"))
    path = f"users/{directory.user(ANA)}"
    problem_of(directory.call("PATCH", path, {"status": "active"}), 409, "conflict")


def test_a_session_check_is_still_one_query(directory: Directory) -> None:
    frame = directory.service.frame()
    set_status(directory, BEN, "archived")
    with directory.service.statements() as statements:
        assert directory.service.get(frame, "session").status_code == 200
    assert len(statements) == 1, statements
    assert "workspace_statuses" in statements[0]


def test_a_deletion_of_the_user_or_the_workspace_deletes_the_status(tenants: Directory) -> None:
    set_status(tenants, ANA, "archived")
    tenants.ok("DELETE", f"users/{tenants.user(ANA)}", status=204)
    assert tenants.service.rows(select(WorkspaceStatus)) == []
    set_status(tenants, MALLORY, "archived", "rival")
    tenants.ok("DELETE", f"apps/{LEDGER}", client="rival", status=204)
    tenants.ok("DELETE", f"workspaces/{tenants.globex}", client="rival", status=204)
    assert tenants.service.rows(select(WorkspaceStatus)) == []


def test_a_client_of_many_workspaces_sets_a_status_in_all_of_them(directory: Directory) -> None:
    now, ids = datetime.now(UTC), [new_id() for _ in range(50)]
    for number, id_ in enumerate(ids):
        row = {"id": id_, "slug": f"w{number}", "name": "W", "allowed_origins": [], "created_at": now}
        directory.service.change(insert(Workspace).values(row))
        reach = {"client_id": "manager", "workspace_id": id_}
        directory.service.change(insert(ClientWorkspace).values(reach))
    with directory.service.statements() as statements:
        set_status(directory, ANA, "archived")
    assert len(statements) < 20, "their number does not depend on that of the workspaces"
    rows = directory.service.rows(select(WorkspaceStatus.workspace_id))
    assert {row.workspace_id for row in rows} == {*ids, directory.acme}
    recorded = directory.service.rows(select(Event.workspace_id).where(Event.type == "user:changed"))
    assert len(recorded) == 51

"""A deletion records the members, grants, tokens and sessions that end with it."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from pat_service.rules.directory import deletion
from pat_service.storage.models import Grant, Member, Session, Token, User, new_id
from tests.support.directory import ANA, Directory
from tests.support.people import ORDERS, SUPPORT, changed, provision


def take_ended(directory: Directory, by: str) -> list[Any]:
    """Return the events that name this deletion as their cause."""
    rows = directory.service.events()
    return [row for row in rows if row.details and row.details.get("by") == by]


def count_types(rows: list[Any]) -> Counter[str]:
    return Counter(row.type for row in rows)


def test_a_deleted_user_is_recorded_with_everything_that_ends(tenants: Directory) -> None:
    service = tenants.service
    service.frame()
    service.token()
    workspace = service.mint(client="manager", appSlug=None, workspaceSlug="acme")
    assert workspace.status_code == 201
    (session,) = service.rows(select(Session.id))
    tenants.ok("DELETE", f"users/{tenants.user(ANA)}", status=204)
    ended = take_ended(tenants, "user:deleted")
    assert count_types(ended) == {
        "member:removed": 1,
        "grant:removed": 2,
        "token:revoked": 2,
        "session:ended": 1,
    }
    for row in ended:
        assert (row.user_id, row.workspace_id, row.client_id) == (
            *(tenants.user(ANA), tenants.acme, "manager"),
        )
    assert [row.session_id for row in ended if row.session_id] == [session.id]
    assert {row.app_id for row in ended if row.type == "token:revoked"} == {ORDERS, None}
    assert {row.app_id for row in ended if row.type == "grant:removed"} == {ORDERS, SUPPORT}


def test_a_deleted_app_and_a_deleted_workspace_are_recorded_too(tenants: Directory) -> None:
    service = tenants.service
    service.frame()
    service.mint(client="manager", appSlug=None, workspaceSlug="acme")
    for app_id in (ORDERS, SUPPORT):
        tenants.ok("DELETE", f"apps/{app_id}", status=204)
    expected = {"grant:removed": 3, "token:revoked": 1, "session:ended": 1}
    assert count_types(take_ended(tenants, "app:deleted")) == expected
    tenants.ok("DELETE", f"workspaces/{tenants.acme}", status=204)
    ended = take_ended(tenants, "workspace:deleted")
    assert count_types(ended) == {"member:removed": 2, "token:revoked": 1}
    assert {row.workspace_id for row in ended} == {tenants.acme}


def test_rows_that_had_ended_before_are_not_recorded_again(tenants: Directory) -> None:
    service, past = tenants.service, datetime.now(UTC) - timedelta(hours=1)
    service.frame()
    service.frame(SUPPORT)
    service.change(update(Token).where(Token.app_id == ORDERS).values(revoked_at=past))
    service.change(update(Session).where(Session.app_id == ORDERS).values(ended_at=past))
    service.change(update(Token).where(Token.app_id == SUPPORT).values(expires_at=past))
    service.change(update(Session).where(Session.app_id == SUPPORT).values(expires_at=past))
    tenants.ok("DELETE", f"users/{tenants.user(ANA)}", status=204)
    ended = count_types(take_ended(tenants, "user:deleted"))
    assert ended == {"member:removed": 1, "grant:removed": 2}


def test_rows_that_a_move_ended_are_not_recorded_in_the_old_workspace(tenants: Directory) -> None:
    tenants.service.frame()
    tenants.ok("PATCH", f"apps/{ORDERS}", {"workspaceId": tenants.globex}, "everywhere")
    tenants.ok("DELETE", f"apps/{ORDERS}", client="rival", status=204)
    assert take_ended(tenants, "app:deleted") == []


@pytest.mark.parametrize(("limit", "single"), [(6, 6), (5, 5), (3, 3)])
def test_a_large_deletion_records_a_limited_number_of_rows_and_counts_the_others(
    tenants: Directory, monkeypatch: pytest.MonkeyPatch, limit: int, single: int
) -> None:
    """Orders has two grants, one token and three sessions."""
    monkeypatch.setattr(deletion, "MAX_EVENTS", limit)
    service = tenants.service
    service.frame()
    one = service.rows(select(Session.__table__))[0]._asdict()
    for _ in range(2):
        service.change(insert(Session).values(one | {"id": new_id()}))
    tenants.ok("DELETE", f"apps/{ORDERS}", status=204)
    ended = take_ended(tenants, "app:deleted")
    counted = {row.type: row.details["count"] for row in ended if "count" in row.details}
    assert len(ended) - len(counted) == single
    assert counted == ({"session:ended": 6 - limit} if limit < 6 else {})
    assert {row.workspace_id for row in ended} == {tenants.acme}


def test_the_remaining_rows_are_counted_in_each_workspace(
    tenants: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deletion, "MAX_EVENTS", 0)
    provision(
        tenants.service.app, changed("users", ANA, workspaces={"acme": "end-user", "globex": "end-user"})
    )
    tenants.ok("DELETE", f"users/{tenants.user(ANA)}", client="everywhere", status=204)
    ended = take_ended(tenants, "user:deleted")
    assert sorted((row.type, row.workspace_id, row.details["count"]) for row in ended) == sorted(
        [
            ("grant:removed", tenants.acme, 2),
            ("member:removed", tenants.acme, 1),
            ("member:removed", tenants.globex, 1),
        ]
    )


@pytest.mark.slow
def test_a_workspace_with_many_members_is_deleted_with_at_most_a_thousand_events(tenants: Directory) -> None:
    service, now = tenants.service, datetime.now(UTC)
    users = [
        {"id": new_id(), "email": f"u{n}@x.test", "name": "U", "status": "active", "created_at": now}
        for n in range(1500)
    ]
    service.change(insert(User).values(users[:750]))
    service.change(insert(User).values(users[750:]))
    rows = [{"workspace_id": tenants.acme, "user_id": u["id"], "role": "end-user"} for u in users]
    service.change(insert(Member).values(rows))
    for app_id in (ORDERS, SUPPORT):
        tenants.ok("DELETE", f"apps/{app_id}", status=204)
    tenants.ok("DELETE", f"workspaces/{tenants.acme}", status=204)
    ended = take_ended(tenants, "workspace:deleted")
    assert len(ended) == 1001
    assert [row.details["count"] for row in ended if "count" in row.details] == [502]
    assert service.rows(select(Grant.user_id).where(Grant.app_id == ORDERS)) == []

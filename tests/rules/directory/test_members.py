"""Add, change and remove members of workspaces."""

from typing import Any

from sqlalchemy import select

from pat_service.storage.models import Grant, Member
from tests.support.directory import ANA, BEN, MALLORY, Directory
from tests.support.people import ORDERS, problem_of


def path(directory: Directory, email: str, workspace: str | None = None) -> str:
    return f"workspaces/{workspace or directory.acme}/members/{directory.users.get(email, email)}"


def person(directory: Directory, email: str, name: str) -> dict[str, Any]:
    return {"id": directory.user(email), "email": email, "name": name, "status": "active"}


def test_a_workspace_lists_its_members(directory: Directory) -> None:
    found = {item["userId"]: item for item in directory.items(f"workspaces/{directory.acme}/members?limit=1")}
    assert found == {
        directory.user(email): {
            "workspaceId": directory.acme,
            "userId": directory.user(email),
            "role": role,
            "user": person(directory, email, name),
        }
        for email, name, role in ((ANA, "Ana", "end-user"), (BEN, "Ben", "builder"))
    }
    assert directory.ok("GET", path(directory, ANA)) == found[directory.user(ANA)]


def test_a_membership_can_be_put_twice(directory: Directory) -> None:
    directory.ok("DELETE", path(directory, BEN), status=204)
    directory.ok(
        "POST", "users", {"email": BEN, "memberships": [{"workspaceId": directory.acme, "role": "end-user"}]}
    )
    directory.take_event_facts()
    body = {"role": "builder"}
    made = directory.ok("PUT", path(directory, BEN), body)
    assert made["role"] == "builder"
    assert directory.ok("PUT", path(directory, BEN), body) == made
    details = {"before": {"role": "end-user"}, "after": {"role": "builder"}}
    assert directory.take_event_facts() == [("member:changed", "manager", "acme", details)]


def test_a_new_membership_answers_201(directory: Directory) -> None:
    there = path(directory, ANA, directory.globex)
    made = directory.ok("PUT", there, {"role": "end-user"}, "everywhere", 201)
    assert made["workspaceId"] == directory.globex
    directory.ok("PUT", there, {"role": "end-user"}, "everywhere", 200)
    assert directory.take_event_facts() == [
        ("member:added", "everywhere", "globex", {"after": {"role": "end-user"}})
    ]


def test_each_tenant_changes_only_its_own_memberships_of_a_shared_user(directory: Directory) -> None:
    here = path(directory, MALLORY)
    directory.ok(
        "POST",
        "users",
        {"email": MALLORY, "memberships": [{"workspaceId": directory.acme, "role": "end-user"}]},
    )
    assert directory.ok("PUT", here, {"role": "builder"})["role"] == "builder"
    problem_of(
        directory.call("PUT", path(directory, MALLORY, directory.globex), {"role": "builder"}),
        404,
        "not_found",
    )
    problem_of(directory.call("DELETE", path(directory, MALLORY, directory.globex)), 404, "not_found")
    directory.ok("DELETE", here, status=204)
    problem_of(directory.call("GET", f"users/{directory.user(MALLORY)}"), 404, "user_not_found")
    assert directory.ok("GET", path(directory, MALLORY, directory.globex), client="rival")["role"] == "admin"


def test_a_client_cannot_give_a_role_above_its_highest(directory: Directory) -> None:
    """The manager's highest role is builder."""
    problem_of(directory.call("PUT", path(directory, ANA), {"role": "admin"}), 403, "scope_missing")
    (refused,) = directory.service.events("client:refused")
    assert (refused.client_id, refused.code) == ("manager", "scope_missing")
    assert directory.take_event_facts() == []


def test_a_client_cannot_take_a_role_above_its_highest(directory: Directory) -> None:
    directory.ok("PUT", path(directory, ANA), {"role": "admin"}, "everywhere")
    directory.take_event_facts()
    for method, body in (("PUT", {"role": "end-user"}), ("DELETE", None)):
        problem = problem_of(directory.call(method, path(directory, ANA), body), 403, "scope_missing")
        assert "no user with a role above builder" in problem["detail"]
    assert directory.take_event_facts() == []


def test_a_changed_role_takes_effect_on_the_next_request_of_an_open_frame(directory: Directory) -> None:
    service = directory.service
    frame = service.frame()
    directory.ok("PUT", path(directory, ANA), {"role": "builder"})
    with service.statements() as statements:
        assert service.get(frame, "session").status_code == 200
    assert any("members" in statement for statement in statements), "the role is read at each request"
    rows = service.rows(select(Member.role).where(Member.user_id == directory.user(ANA)))
    assert [row.role for row in rows] == ["builder"]


def test_a_removed_membership_takes_effect_at_once_and_its_return_restores_access(
    directory: Directory,
) -> None:
    service = directory.service
    frame, token = service.frame(), service.token()
    directory.ok("DELETE", path(directory, ANA), status=204)
    problem_of(service.get(frame, "session"), 401, "access_revoked")
    assert service.refusal(token) == "access_revoked"
    assert service.rows(select(Grant).where(Grant.user_id == directory.user(ANA)))
    held = directory.ok("GET", f"apps/{ORDERS}/grants/{directory.user(ANA)}", client="everywhere")
    assert held["effective"] is False
    assert directory.take_event_facts() == [
        ("member:removed", "manager", "acme", {"before": {"role": "end-user"}})
    ]
    directory.ok("PUT", path(directory, ANA), {"role": "end-user"}, "everywhere", 201)
    assert service.get(frame, "session").status_code == 200
    assert service.open(token).status_code == 200


def test_removing_a_membership_again_is_not_found(directory: Directory) -> None:
    directory.ok("DELETE", path(directory, BEN), status=204)
    problem_of(directory.call("DELETE", path(directory, BEN)), 404, "not_found")

"""Create, list, change and delete workspaces."""

from sqlalchemy import select

from pat_service.storage.models import ClientWorkspace, Member, Session, Token, Workspace
from tests.support.directory import Directory
from tests.support.people import ORDERS, PORTAL, SUPPORT, problem_of


def test_a_client_lists_its_own_workspaces(directory: Directory) -> None:
    assert [item["slug"] for item in directory.items("workspaces")] == ["acme"]
    assert [item["slug"] for item in directory.items("workspaces", client="rival")] == ["globex"]
    assert {item["slug"] for item in directory.items("workspaces", client="everywhere")} == {"acme", "globex"}


def test_a_workspace_has_all_documented_fields(directory: Directory) -> None:
    acme = directory.ok("GET", f"workspaces/{directory.acme}")
    created_at = acme.pop("createdAt")
    assert created_at.endswith("Z")
    assert acme == {
        "id": directory.acme,
        "slug": "acme",
        "name": "Acme",
        "allowedOrigins": [PORTAL],
        "appsUrl": None,
    }
    (listed,) = directory.items("workspaces")
    assert listed == acme | {"createdAt": created_at}


def test_workspaces_are_filtered_by_slug(directory: Directory) -> None:
    assert [item["id"] for item in directory.items("workspaces?slug=acme")] == [directory.acme]
    assert directory.items("workspaces?slug=globex") == []
    assert directory.items("workspaces?slug=nothing") == []


def test_an_upper_case_id_finds_the_workspace(directory: Directory) -> None:
    assert directory.ok("GET", f"workspaces/{directory.acme.upper()}")["id"] == directory.acme


def test_a_client_of_all_workspaces_creates_a_workspace(directory: Directory) -> None:
    body = {"slug": "initech", "name": "Initech", "allowedOrigins": ["https://A.example:443", PORTAL, PORTAL]}
    made = directory.ok("POST", "workspaces", body, "everywhere", 201)
    assert (made["slug"], made["name"]) == ("initech", "Initech")
    assert made["allowedOrigins"] == ["https://a.example", PORTAL]
    assert directory.ok("GET", f"workspaces/{made['id']}", client="everywhere") == made
    facts = {"slug": "initech", "name": "Initech", "allowed_origins": ["https://a.example", PORTAL]}
    assert directory.take_event_facts() == [("workspace:created", "everywhere", made["id"], {"after": facts})]


def test_the_name_defaults_to_the_slug(directory: Directory) -> None:
    for slug, body in (("one", {}), ("two", {"name": None, "allowedOrigins": None})):
        made = directory.ok("POST", "workspaces", {"slug": slug} | body, "everywhere", 201)
        assert (made["name"], made["allowedOrigins"]) == (slug, [])


def test_a_limited_client_cannot_create_a_workspace(directory: Directory) -> None:
    problem = problem_of(directory.call("POST", "workspaces", {"slug": "initech"}), 403, "scope_missing")
    assert "limited to workspaces" in problem["detail"]
    assert len(directory.items("workspaces", client="everywhere")) == 2


def test_a_taken_slug_is_a_conflict_without_details(directory: Directory) -> None:
    made = problem_of(
        directory.call("POST", "workspaces", {"slug": "acme"}, client="everywhere"), 409, "conflict"
    )
    changed = problem_of(
        directory.call("PATCH", f"workspaces/{directory.acme}", {"slug": "globex"}), 409, "conflict"
    )
    for problem in (made, changed):
        assert not {"Acme", "Globex", directory.acme, directory.globex} & set(problem["detail"].split())
    assert directory.take_event_facts() == []


def test_a_change_leaves_other_columns(directory: Directory) -> None:
    path = f"workspaces/{directory.acme}"
    before = directory.ok("GET", path)
    changed = directory.ok("PATCH", path, {"name": "Acme & Sons", "slug": None})
    assert changed == before | {"name": "Acme & Sons"}
    details = {"before": {"name": "Acme"}, "after": {"name": "Acme & Sons"}}
    assert directory.take_event_facts() == [("workspace:changed", "manager", "acme", details)]


def test_an_equal_change_records_no_event(directory: Directory) -> None:
    path = f"workspaces/{directory.acme}"
    before = directory.ok("GET", path)
    for body in ({}, {"name": "Acme"}, {"slug": "acme", "allowedOrigins": [PORTAL]}, {"name": None}):
        assert directory.ok("PATCH", path, body) == before
    assert directory.take_event_facts() == []


def test_a_workspace_with_apps_cannot_be_deleted(directory: Directory) -> None:
    problem = problem_of(directory.call("DELETE", f"workspaces/{directory.acme}"), 409, "conflict")
    assert "move or delete them" in problem["detail"]
    assert directory.take_event_facts() == []
    directory.ok("GET", f"workspaces/{directory.acme}")


def test_deleting_an_empty_workspace_deletes_its_members_tokens_and_sessions(directory: Directory) -> None:
    service = directory.service
    service.frame()
    for app_id in (ORDERS, SUPPORT):
        directory.ok("DELETE", f"apps/{app_id}", status=204)
    directory.take_event_facts()
    directory.ok("DELETE", f"workspaces/{directory.acme}", status=204)
    for table in (Member, Token, Session, ClientWorkspace):
        assert service.rows(select(table).where(table.workspace_id == directory.acme)) == []
    problem_of(directory.call("GET", f"workspaces/{directory.acme}"), 404, "not_found")
    facts = {"slug": "acme", "name": "Acme", "allowed_origins": [PORTAL]}
    deleted, *ended = directory.take_event_facts()
    assert deleted == ("workspace:deleted", "manager", "acme", {"before": facts})
    assert {(type_, details["by"]) for type_, _, _, details in ended} == {("member:removed", deleted[0])}
    assert [row.slug for row in service.rows(select(Workspace.slug))] == ["globex"]


def test_a_client_of_a_deleted_workspace_cannot_reach_a_new_one_with_its_slug(directory: Directory) -> None:
    for app_id in (ORDERS, SUPPORT):
        directory.ok("DELETE", f"apps/{app_id}", status=204)
    directory.ok("DELETE", f"workspaces/{directory.acme}", status=204)
    directory.ok("POST", "workspaces", {"slug": "acme"}, "everywhere", 201)
    assert directory.items("workspaces") == []

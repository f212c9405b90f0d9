"""Workspaces: who may make, see, change and delete them."""

from sqlalchemy import select

from pat_service.storage.models import ClientWorkspace, Member, Session, Token, Workspace
from tests.support.directory import UNKNOWN, Directory
from tests.support.people import ORDERS, PORTAL, SUPPORT, problem_of


def test_a_client_lists_its_own_workspaces(directory: Directory) -> None:
    assert [item["slug"] for item in directory.items("workspaces")] == ["acme"]
    assert [item["slug"] for item in directory.items("workspaces", client="rival")] == ["globex"]
    assert {item["slug"] for item in directory.items("workspaces", client="everywhere")} == {"acme", "globex"}


def test_a_workspace_has_these_fields(directory: Directory) -> None:
    acme = directory.ok("GET", f"workspaces/{directory.acme}")
    created_at = acme.pop("createdAt")
    assert created_at.endswith("Z")
    assert acme == {"id": directory.acme, "slug": "acme", "name": "Acme", "allowedOrigins": [PORTAL]}
    (listed,) = directory.items("workspaces")
    assert listed == acme | {"createdAt": created_at}


def test_a_list_can_be_narrowed_to_a_slug(directory: Directory) -> None:
    assert [item["id"] for item in directory.items("workspaces?slug=acme")] == [directory.acme]
    assert directory.items("workspaces?slug=globex") == []
    assert directory.items("workspaces?slug=nothing") == []


def test_an_id_in_upper_case_is_the_same_workspace(directory: Directory) -> None:
    assert directory.ok("GET", f"workspaces/{directory.acme.upper()}")["id"] == directory.acme


def test_another_tenants_workspace_is_not_there(directory: Directory) -> None:
    for method, body in (("GET", None), ("PATCH", {"name": "Mine"}), ("DELETE", None)):
        answers = [
            directory.call(method, f"workspaces/{id_}", body, client="rival")
            for id_ in (directory.acme, UNKNOWN)
        ]
        problems = [problem_of(answer, 404, "not_found") for answer in answers]
        assert problems[0]["detail"] == problems[1]["detail"]
    assert directory.take_event_facts() == []


def test_a_client_with_all_workspaces_makes_one(directory: Directory) -> None:
    body = {"slug": "initech", "name": "Initech", "allowedOrigins": ["https://A.example:443", PORTAL, PORTAL]}
    made = directory.ok("POST", "workspaces", body, "everywhere", 201)
    assert (made["slug"], made["name"]) == ("initech", "Initech")
    assert made["allowedOrigins"] == ["https://a.example", PORTAL]
    assert directory.ok("GET", f"workspaces/{made['id']}", client="everywhere") == made
    facts = {"slug": "initech", "name": "Initech", "allowed_origins": ["https://a.example", PORTAL]}
    assert directory.take_event_facts() == [("workspace:created", "everywhere", made["id"], {"after": facts})]


def test_the_slug_stands_for_a_name_that_is_left_out_or_null(directory: Directory) -> None:
    for slug, body in (("one", {}), ("two", {"name": None, "allowedOrigins": None})):
        made = directory.ok("POST", "workspaces", {"slug": slug} | body, "everywhere", 201)
        assert (made["name"], made["allowedOrigins"]) == (slug, [])


def test_a_limited_client_makes_no_workspace(directory: Directory) -> None:
    problem = problem_of(directory.call("POST", "workspaces", {"slug": "initech"}), 403, "scope_missing")
    assert "limited to workspaces" in problem["detail"]
    assert len(directory.items("workspaces", client="everywhere")) == 2


def test_a_slug_that_is_taken_is_a_conflict_that_tells_nothing_of_its_holder(directory: Directory) -> None:
    made = problem_of(
        directory.call("POST", "workspaces", {"slug": "acme"}, client="everywhere"), 409, "conflict"
    )
    changed = problem_of(
        directory.call("PATCH", f"workspaces/{directory.acme}", {"slug": "globex"}), 409, "conflict"
    )
    for problem in (made, changed):
        assert not {"Acme", "Globex", directory.acme, directory.globex} & set(problem["detail"].split())
    assert directory.take_event_facts() == []


def test_a_change_names_what_it_changes(directory: Directory) -> None:
    path = f"workspaces/{directory.acme}"
    before = directory.ok("GET", path)
    changed = directory.ok("PATCH", path, {"name": "Acme & Sons", "slug": None})
    assert changed == before | {"name": "Acme & Sons"}
    details = {"before": {"name": "Acme"}, "after": {"name": "Acme & Sons"}}
    assert directory.take_event_facts() == [("workspace:changed", "manager", "acme", details)]


def test_a_change_that_changes_nothing_is_no_event(directory: Directory) -> None:
    path = f"workspaces/{directory.acme}"
    before = directory.ok("GET", path)
    for body in ({}, {"name": "Acme"}, {"slug": "acme", "allowedOrigins": [PORTAL]}, {"name": None}):
        assert directory.ok("PATCH", path, body) == before
    assert directory.take_event_facts() == []


def test_a_workspace_with_apps_stays(directory: Directory) -> None:
    problem = problem_of(directory.call("DELETE", f"workspaces/{directory.acme}"), 409, "conflict")
    assert "move or delete them" in problem["detail"]
    assert directory.take_event_facts() == []
    directory.ok("GET", f"workspaces/{directory.acme}")


def test_an_empty_workspace_goes_with_all_that_hangs_on_it(directory: Directory) -> None:
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
    assert directory.take_event_facts() == [("workspace:deleted", "manager", "acme", {"before": facts})]
    assert [row.slug for row in service.rows(select(Workspace.slug))] == ["globex"]


def test_a_deleted_workspaces_client_reaches_no_new_one_of_its_slug(directory: Directory) -> None:
    for app_id in (ORDERS, SUPPORT):
        directory.ok("DELETE", f"apps/{app_id}", status=204)
    directory.ok("DELETE", f"workspaces/{directory.acme}", status=204)
    directory.ok("POST", "workspaces", {"slug": "acme"}, "everywhere", 201)
    assert directory.items("workspaces") == []

"""Create, change and delete users; each tenant sees and changes only its own part of them."""

from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

import pytest
from sqlalchemy import insert, select

from pat_service.storage.models import Event, Grant, Member, Session, Token, User, WorkspaceStatus
from tests.support.directory import ANA, BEN, MALLORY, UNKNOWN, Directory
from tests.support.people import LEDGER, ORDERS, SUPPORT, changed, problem_of, provision

NOW: Final = datetime(2026, 11, 30, tzinfo=UTC)


@pytest.fixture
def shared_ana(directory: Directory) -> Directory:
    """Ana is also a member of Globex."""
    provision(
        directory.service.app, changed("users", ANA, workspaces={"acme": "end-user", "globex": "builder"})
    )
    directory.take_event_facts()
    return directory


def zoe(directory: Directory, **changes: Any) -> dict[str, Any]:
    membership = {"workspaceId": directory.acme, "role": "end-user"}
    return {"email": "zoe@acme.test", "name": "Zoe", "memberships": [membership]} | changes


def test_a_client_lists_the_members_of_its_workspaces(directory: Directory) -> None:
    assert {item["email"] for item in directory.items("users")} == {ANA, BEN}
    assert {item["email"] for item in directory.items("users", client="rival")} == {MALLORY}
    assert {item["email"] for item in directory.items("users", client="everywhere")} == {ANA, BEN, MALLORY}


def test_a_user_has_all_documented_fields(directory: Directory) -> None:
    ana = directory.ok("GET", f"users/{directory.user(ANA)}")
    assert ana.pop("createdAt").endswith("Z")
    assert ana == {
        "id": directory.user(ANA),
        "email": ANA,
        "name": "Ana",
        "status": "active",
        "memberships": [{"workspaceId": directory.acme, "role": "end-user"}],
    }


@pytest.mark.parametrize(
    ("query", "emails"),
    [
        ("email=ANA@Acme.test", {ANA}),
        ("email=mallory@globex.test", set()),
        ("email=nobody@acme.test", set()),
        ("status=active", {ANA, BEN}),
        ("status=archived", set()),
        ("workspaceId={acme}", {ANA, BEN}),
        ("workspaceId={globex}", set()),
        ("workspaceId=" + UNKNOWN, set()),
        ("workspaceId={acme}&status=active&email=ben@acme.test", {BEN}),
    ],
)
def test_users_are_filtered(directory: Directory, query: str, emails: set[str]) -> None:
    query = query.format(acme=directory.acme, globex=directory.globex)
    assert {item["email"] for item in directory.items(f"users?{query}")} == emails


def test_each_tenant_sees_its_own_membership_of_a_shared_user(shared_ana: Directory) -> None:
    path = f"users/{shared_ana.user(ANA)}"
    acme = {"workspaceId": shared_ana.acme, "role": "end-user"}
    globex = {"workspaceId": shared_ana.globex, "role": "builder"}
    assert shared_ana.ok("GET", path)["memberships"] == [acme]
    assert shared_ana.ok("GET", path, client="rival")["memberships"] == [globex]
    both = shared_ana.ok("GET", path, client="everywhere")["memberships"]
    assert sorted(both, key=str) == sorted([acme, globex], key=str)
    assert [item["memberships"] for item in shared_ana.items("users?email=" + ANA)] == [[acme]]
    assert shared_ana.items(f"users?workspaceId={shared_ana.globex}") == []


def test_pages_show_each_user_once(directory: Directory) -> None:
    for number in range(5):
        directory.ok("POST", "users", zoe(directory, email=f"zoe{number}@acme.test"), status=201)
    for limit in (1, 2, 3, 7, 8):
        emails = [item["email"] for item in directory.items(f"users?limit={limit}")]
        assert len(emails) == len(set(emails)) == 7
    page = directory.ok("GET", "users?limit=2")
    shouted = directory.ok("GET", f"users?limit=2&cursor={page['nextCursor'].upper()}")
    assert shouted == directory.ok("GET", f"users?limit=2&cursor={page['nextCursor']}")


def test_a_page_of_any_length_takes_the_same_statements(directory: Directory) -> None:
    costs = []
    for limit in (1, 50):
        for number in range(limit):
            email = f"user{limit}-{number}@acme.test"
            directory.ok("POST", "users", zoe(directory, email=email), status=201)
        with directory.service.statements() as statements:
            directory.ok("GET", f"users?limit={limit}")
        costs.append(len(statements))
    assert costs[0] == costs[1]


def test_only_clients_of_all_workspaces_see_a_user_without_workspaces(directory: Directory) -> None:
    made = directory.ok("POST", "users", {"email": "dan@acme.test"}, "everywhere", 201)
    assert (made["name"], made["status"], made["memberships"]) == ("dan@acme.test", "active", [])
    assert directory.ok("GET", f"users/{made['id']}", client="everywhere") == made
    problem_of(directory.call("GET", f"users/{made['id']}"), 404, "user_not_found")


# Creation


def test_zoe_is_created_and_gets_access(directory: Directory) -> None:
    made = directory.ok("POST", "users", zoe(directory, email="Zoe@ACME.test"), status=201)
    assert (made["email"], made["name"], made["status"]) == ("zoe@acme.test", "Zoe", "active")
    assert made["memberships"] == [{"workspaceId": directory.acme, "role": "end-user"}]
    assert directory.ok("GET", f"users/{made['id']}") == made
    facts = {"email": "zoe@acme.test", "name": "Zoe", "status": "active"}
    assert directory.take_event_facts() == [
        ("user:created", "manager", "acme", {"after": facts}),
        ("member:added", "manager", "acme", {"after": {"role": "end-user"}}),
    ]


def test_a_limited_client_must_name_a_workspace_of_a_new_user(directory: Directory) -> None:
    for body in (
        {"email": "zoe@acme.test"},
        zoe(directory, memberships=[]),
        zoe(directory, memberships=None),
    ):
        problem = problem_of(directory.call("POST", "users", body), 400, "invalid_payload")
        assert list(problem["errors"]) == ["memberships"]


def test_a_client_cannot_create_a_user_with_a_role_above_its_highest(directory: Directory) -> None:
    """The manager's highest role is builder."""
    for role, status in (("end-user", 201), ("builder", 201), ("admin", 403)):
        membership = [{"workspaceId": directory.acme, "role": role}]
        body = zoe(directory, email=f"zoe-{role}@acme.test", memberships=membership)
        assert directory.call("POST", "users", body).status_code == status
    problem = problem_of(directory.call("POST", "users", body), 403, "scope_missing")
    assert "builder" in problem["detail"]
    assert directory.items("users?email=zoe-admin@acme.test", client="everywhere") == []


def test_creating_a_visible_user_is_a_conflict_that_says_what_to_do(directory: Directory) -> None:
    for client, email in (("manager", ANA), ("manager", "Ana@ACME.test"), ("everywhere", MALLORY)):
        answer = directory.call("POST", "users", zoe(directory, email=email), client)
        problem = problem_of(answer, 409, "conflict")
        assert "PATCH" in problem["detail"]
        assert "PUT" in problem["detail"]
    assert directory.take_event_facts() == []


def test_another_tenants_user_joins_unchanged(directory: Directory) -> None:
    body = zoe(directory, email="Mallory@Globex.test", name="Mal", status="archived")
    joined = directory.ok("POST", "users", body, status=200)
    assert (joined["id"], joined["name"], joined["status"]) == (
        *(directory.user(MALLORY), "Mallory", "active"),
    )
    assert joined["memberships"] == [{"workspaceId": directory.acme, "role": "end-user"}]
    assert directory.take_event_facts() == [
        ("member:added", "manager", "acme", {"after": {"role": "end-user"}})
    ]
    rival = directory.ok("GET", f"users/{directory.user(MALLORY)}", client="rival")
    assert rival["memberships"] == [{"workspaceId": directory.globex, "role": "admin"}]


def test_a_user_without_workspaces_joins_too(directory: Directory) -> None:
    dan = directory.ok("POST", "users", {"email": "dan@acme.test"}, "everywhere", 201)
    joined = directory.ok("POST", "users", zoe(directory, email="dan@acme.test"), status=200)
    assert joined["id"] == dan["id"]


# Changes


def test_a_change_leaves_other_columns(directory: Directory) -> None:
    path = f"users/{directory.user(ANA)}"
    before = directory.ok("GET", path)
    assert directory.ok("PATCH", path, {"name": "Ana María", "email": None}) == before | {"name": "Ana María"}
    assert directory.ok("PATCH", path, {"email": "Ana.M@acme.test"})["email"] == "ana.m@acme.test"
    assert directory.take_event_facts() == [
        ("user:changed", "manager", "acme", {"before": {"name": "Ana"}, "after": {"name": "Ana María"}}),
        (
            "user:changed",
            "manager",
            "acme",
            {"before": {"email": ANA}, "after": {"email": "ana.m@acme.test"}},
        ),
    ]


def test_a_new_name_is_recorded_in_each_workspace_of_ana(shared_ana: Directory) -> None:
    shared_ana.ok("PATCH", f"users/{shared_ana.user(ANA)}", {"name": "Ana María"}, "everywhere")
    events = shared_ana.take_event_facts()
    assert sorted(event[:3] for event in events) == [
        ("user:changed", "everywhere", slug) for slug in ("acme", "globex")
    ]


def test_an_equal_change_records_no_event(directory: Directory) -> None:
    path = f"users/{directory.user(ANA)}"
    for body in ({}, {"name": "Ana"}, {"email": "ANA@acme.test", "status": "active"}):
        directory.ok("PATCH", path, body)
    assert directory.take_event_facts() == []


def test_a_taken_email_is_a_conflict_without_details(directory: Directory) -> None:
    for email in (BEN, "MALLORY@globex.test"):
        answer = directory.call("PATCH", f"users/{directory.user(ANA)}", {"email": email})
        problem = problem_of(answer, 409, "conflict")
        for name in ("Ben", "Mallory", directory.user(MALLORY), directory.globex, "globex"):
            assert name not in problem["detail"]
    assert directory.take_event_facts() == []


def test_archiving_ana_takes_effect_on_the_next_request_of_her_open_frame(directory: Directory) -> None:
    service = directory.service
    frame, token = service.frame(), service.token()
    directory.ok("PATCH", f"users/{directory.user(ANA)}", {"status": "archived"})
    problem_of(service.get(frame, "session"), 401, "access_revoked")
    assert service.refusal(token) == "access_revoked"
    directory.ok("PATCH", f"users/{directory.user(ANA)}", {"status": "active"})
    assert service.get(frame, "session").status_code == 200


def test_a_new_name_shows_in_an_open_frame(directory: Directory) -> None:
    frame = directory.service.frame()
    directory.ok("PATCH", f"users/{directory.user(ANA)}", {"name": "Ana María", "email": "am@acme.test"})
    user = directory.service.facts(frame)["user"]
    assert (user["name"], user["email"]) == ("Ana María", "am@acme.test")


# Homes: who may change a shared user


@pytest.mark.parametrize(
    ("tenant", "name_status"), [("manager", 200), ("rival", 409)], ids=["the home", "another tenant"]
)
def test_only_the_home_changes_the_name_of_a_shared_user(
    shared_ana: Directory, tenant: str, name_status: int
) -> None:
    path = f"users/{shared_ana.user(ANA)}"
    answer = shared_ana.call("PATCH", path, {"name": "X"}, tenant)
    assert answer.status_code == name_status
    if name_status == 409:
        problem = problem_of(answer, 409, "conflict")
        assert "home workspace" in problem["detail"]
        assert "memberships" in problem["detail"]
        assert shared_ana.acme not in problem["detail"]
        assert shared_ana.take_event_facts() == []


@pytest.mark.parametrize("tenant", ["manager", "rival"])
@pytest.mark.parametrize(("method", "body"), [("PATCH", {"email": "x@acme.test"}), ("DELETE", None)])
def test_no_tenant_changes_the_email_of_a_shared_user_or_deletes_them(
    shared_ana: Directory, tenant: str, method: str, body: Any
) -> None:
    path = f"users/{shared_ana.user(ANA)}"
    before = shared_ana.ok("GET", path, client="everywhere")
    problem = problem_of(shared_ana.call(method, path, body, tenant), 409, "conflict")
    assert shared_ana.globex not in problem["detail"]
    assert shared_ana.ok("GET", path, client="everywhere") == before
    assert shared_ana.take_event_facts() == []
    shared_ana.ok(method, path, body, "everywhere", 200 if body else 204)


def test_an_equal_change_needs_no_home(shared_ana: Directory) -> None:
    path = f"users/{shared_ana.user(ANA)}"
    for body in ({}, {"name": "Ana", "email": "ANA@acme.test", "status": "active"}):
        shared_ana.ok("PATCH", path, body, "rival")
    assert shared_ana.take_event_facts() == []


def test_the_workspace_that_creates_a_user_is_the_home(tenants: Directory) -> None:
    tenants.join("zoe@acme.test", "manager")
    tenants.service.token(client="manager", email="nia@acme.test", provision={})
    both = [{"workspaceId": id_, "role": "end-user"} for id_ in (tenants.globex, tenants.acme)]
    tenants.ok("POST", "users", {"email": "two@acme.test", "memberships": both}, "everywhere", 201)
    tenants.ok("POST", "users", {"email": "dan@acme.test"}, "everywhere", 201)
    homes = {
        item["email"]: item["homeWorkspaceId"]
        for item in tenants.items("users", client="everywhere")
        if item["email"] in ("zoe@acme.test", "nia@acme.test", "two@acme.test", "dan@acme.test", MALLORY)
    }
    assert homes == {
        "zoe@acme.test": tenants.acme,
        "nia@acme.test": tenants.acme,
        "two@acme.test": tenants.globex,
        "dan@acme.test": None,
        MALLORY: tenants.globex,
    }


def test_a_user_without_a_home_is_changed_by_clients_of_all_workspaces_only(directory: Directory) -> None:
    dan = directory.ok("POST", "users", {"email": "dan@acme.test"}, "everywhere", 201)["id"]
    directory.join("dan@acme.test", "manager")
    for method, body in (("PATCH", {"name": "X"}), ("PATCH", {"email": "x@acme.test"}), ("DELETE", None)):
        problem_of(directory.call(method, f"users/{dan}", body), 409, "conflict")
    directory.ok("PATCH", f"users/{dan}", {"name": "X"}, "everywhere")


def test_only_a_client_of_all_workspaces_sees_and_moves_a_home(directory: Directory) -> None:
    path = f"users/{directory.user(ANA)}"
    assert "homeWorkspaceId" not in directory.ok("GET", path)
    move = {"homeWorkspaceId": directory.globex}
    for method, where, body in (
        ("PATCH", path, move),
        ("PATCH", path, {"homeWorkspaceId": directory.acme}),
        ("POST", "users", zoe(directory) | move),
    ):
        problem_of(directory.call(method, where, body), 403, "scope_missing")
    problem_of(directory.call("PATCH", path, {"homeWorkspaceId": UNKNOWN}, "everywhere"), 404, "not_found")
    assert directory.take_event_facts() == []
    assert directory.ok("PATCH", path, move, "everywhere")["homeWorkspaceId"] == directory.globex
    problem_of(directory.call("PATCH", path, {"name": "X"}), 409, "conflict")
    assert directory.take_event_facts() == [
        ("user:changed", "everywhere", "acme", {"before": {"home_workspace_id": directory.acme}}),
        ("user:changed", "everywhere", "globex", {"after": {"home_workspace_id": directory.globex}}),
    ]
    made = directory.ok("POST", "users", zoe(directory) | move, "everywhere", 201)
    assert made["homeWorkspaceId"] == directory.globex


def test_a_user_of_a_deleted_workspace_has_no_home(tenants: Directory) -> None:
    tenants.ok("DELETE", f"apps/{LEDGER}", client="rival", status=204)
    tenants.join(MALLORY, "manager")
    tenants.ok("DELETE", f"workspaces/{tenants.globex}", client="rival", status=204)
    path = f"users/{tenants.user(MALLORY)}"
    assert tenants.ok("GET", path, client="everywhere")["homeWorkspaceId"] is None
    problem_of(tenants.call("PATCH", path, {"name": "X"}), 409, "conflict")


@pytest.mark.parametrize("trace", ["membership", "grant", "token", "session", "status", "event"])
@pytest.mark.parametrize(("method", "body"), [("PATCH", {"email": "x@acme.test"}), ("DELETE", None)])
def test_any_trace_in_another_workspace_prevents_a_new_email_and_a_deletion(
    tenants: Directory, trace: str, method: str, body: Any
) -> None:
    service, ana = tenants.service, tenants.user(ANA)
    owned = {"workspace_id": tenants.globex, "user_id": ana}
    issued = owned | {
        "client_id": "rival",
        "key_id": "k",
        "moves": 0,
        "created_at": NOW,
        "expires_at": NOW,
    }
    rows: dict[str, tuple[Any, dict[str, Any]]] = {
        "membership": (Member, owned | {"role": "end-user"}),
        "grant": (Grant, {"app_id": LEDGER, "user_id": ana}),
        "token": (
            Token,
            issued | {"id": UNKNOWN, "digest": b"d" * 32, "session_seconds": 60, "single_use": False},
        ),
        "session": (Session, issued | {"id": UNKNOWN, "token_id": UNKNOWN}),
        "status": (WorkspaceStatus, owned | {"status": "active"}),
        "event": (Event, owned | {"type": "member:removed", "at": NOW}),
    }
    table, row = rows[trace]
    service.change(insert(table).values(row))
    path = f"users/{ana}"
    problem = problem_of(tenants.call(method, path, body), 409, "conflict")
    assert "client of all workspaces" in problem["detail"]
    tenants.ok("PATCH", path, {"name": "Ana María"})
    tenants.ok(method, path, body, "everywhere", 200 if body else 204)


def test_a_client_of_both_workspaces_changes_a_user_whom_both_have_known(shared_ana: Directory) -> None:
    provision(shared_ana.service.app, changed("clients", "manager", workspaces=["acme", "globex"]))
    path = f"users/{shared_ana.user(ANA)}"
    shared_ana.ok("PATCH", path, {"email": "x@acme.test"})
    shared_ana.ok("DELETE", path, status=204)


def test_a_client_changes_nothing_of_a_user_with_a_role_above_its_highest(tenants: Directory) -> None:
    """The manager's highest role is builder, and Ana is an admin in its workspace."""
    ana = tenants.user(ANA)
    tenants.ok("PUT", f"workspaces/{tenants.acme}/members/{ana}", {"role": "admin"}, "everywhere")
    tenants.take_event_facts()
    user, member = f"users/{ana}", f"workspaces/{tenants.acme}/members/{ana}"
    for method, path, body in (
        ("PATCH", user, {"name": "Mallory"}),
        ("PATCH", user, {"email": "mallory@evil.test"}),
        ("PATCH", user, {"status": "archived"}),
        ("DELETE", user, None),
        ("PUT", member, {"role": "end-user"}),
        ("DELETE", member, None),
        ("PUT", f"apps/{SUPPORT}/grants/{ana}", None),
        ("DELETE", f"apps/{ORDERS}/grants/{ana}", None),
    ):
        problem_of(tenants.call(method, path, body), 403, "scope_missing")
    assert tenants.take_event_facts() == []
    assert tenants.service.mint(client="manager").status_code == 201, "a mint changes no user"


def test_a_higher_role_in_another_tenants_workspace_does_not_count(shared_ana: Directory) -> None:
    ana = shared_ana.user(ANA)
    shared_ana.ok("PUT", f"workspaces/{shared_ana.globex}/members/{ana}", {"role": "admin"}, "rival")
    shared_ana.ok("PATCH", f"users/{ana}", {"name": "Ana María"})


# Deletion


def test_a_deleted_user_leaves_only_the_audit_trail(directory: Directory) -> None:
    service, user_id = directory.service, directory.user(ANA)
    frame, token = service.frame(), service.token()
    directory.ok("DELETE", f"users/{user_id}", status=204)
    assert service.get(frame, "session").status_code == 401
    assert service.open(token).status_code == 401
    for table in (Member, Grant, Token, Session):
        assert service.rows(select(table).where(table.user_id == user_id)) == []
    assert service.rows(select(User).where(User.id == user_id)) == []
    facts = {"email": ANA, "name": "Ana", "status": "active"}
    by = {"by": "user:deleted"}
    assert directory.take_event_facts() == [
        ("user:deleted", "manager", "acme", {"before": facts}),
        ("member:removed", "manager", "acme", {"before": {"role": "end-user"}} | by),
        *[("grant:removed", "manager", "acme", by)] * 2,
    ]
    problem_of(directory.call("DELETE", f"users/{user_id}"), 404, "user_not_found")


def test_a_deletion_is_recorded_in_every_workspace_that_it_touches(directory: Directory) -> None:
    """Mallory's token and grant of Globex are left after her move to Acme."""
    service, user_id = directory.service, directory.user(MALLORY)
    service.token(client="rival", email=MALLORY, appSlug="ledger")
    provision(service.app, changed("users", MALLORY, workspaces={"acme": "end-user"}))
    directory.ok("DELETE", f"users/{user_id}", client="everywhere", status=204)
    told = service.rows(
        select(Event.type).where(Event.workspace_id == directory.globex, Event.client_id == "everywhere")
    )
    assert sorted(row.type for row in told) == ["grant:removed", "token:revoked"]


def test_a_recreated_user_starts_without_access(directory: Directory) -> None:
    directory.ok("DELETE", f"users/{directory.user(ANA)}", status=204)
    made = directory.ok("POST", "users", zoe(directory, email=ANA), status=201)
    assert made["id"] != directory.user(ANA)
    problem_of(directory.service.mint(), 403, "app_forbidden")


def test_the_paths_of_minting_are_not_taken_for_user_ids(directory: Directory) -> None:
    for path in ("users/session", "users/personal-access-token"):
        problem_of(directory.call("GET", path), 405, "method_not_allowed")
    problem_of(directory.call("GET", "users/nobody"), 404, "not_found")


# Spellings of an email.


@pytest.mark.parametrize("first", ["zoë@bücher.example", "ZOË@XN--BCHER-KVA.example"])
def test_every_spelling_of_a_domain_names_one_user(directory: Directory, first: str) -> None:
    body = {"email": first, "memberships": [{"workspaceId": directory.acme, "role": "end-user"}]}
    made = directory.ok("POST", "users", body, status=201)
    assert made["email"] == "zoë@bücher.example"
    for other in ("zoë@bücher.example", "zoë@xn--bcher-kva.example"):
        problem_of(directory.call("POST", "users", body | {"email": other}), 409, "conflict")
        assert [user["id"] for user in directory.items(f"users?email={quote(other)}")] == [made["id"]]
        orders = directory.call("PUT", f"apps/{ORDERS}/grants/{made['id']}")
        assert orders.status_code in (200, 201)
        mint = {"email": other, "appSlug": "orders", "sessionExpiry": 60, "patExpiry": 60}
        assert directory.call("POST", "users/personal-access-token", mint).status_code == 201
    # IDNA 2008 has no transitional mapping.
    for distinct in ("zoe@faß.de", "zoe@fass.de"):
        directory.ok("POST", "users", body | {"email": distinct}, status=201)


@pytest.mark.parametrize(
    "email", ["mi\u212ae@acme.test", "an\u200ba@acme.test", "ana@acme.test ", "<ana@acme.test>"]
)
def test_an_email_that_looks_like_anothers_creates_nobody(directory: Directory, email: str) -> None:
    for body in ({"email": email}, {"email": email, "memberships": []}):
        problem = problem_of(
            directory.call("POST", "users", body, client="everywhere"), 400, "invalid_payload"
        )
        assert list(problem["errors"]) == ["email"]
    mint = {"email": email, "appSlug": "orders", "sessionExpiry": 60, "patExpiry": 60, "provision": {}}
    problem_of(directory.call("POST", "users/personal-access-token", mint), 400, "invalid_payload")

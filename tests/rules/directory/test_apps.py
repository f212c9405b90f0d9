"""Create, change, move and delete apps."""

from typing import Any

import pytest
from sqlalchemy import select

from pat_service.storage.models import App, Event, Grant, Session, Token
from tests.support.directory import ANA, BEN, UNKNOWN, Directory
from tests.support.people import LEDGER, ORDERS, PORTAL, SUPPORT, changed, problem_of, provision

FACTS = {"slug": "orders", "name": "Orders", "template": "orders", "allowed_origins": [PORTAL]}


@pytest.fixture
def both(directory: Directory) -> Directory:
    """Ana is a member of both workspaces, so only the move can end her access."""
    provision(
        directory.service.app, changed("users", ANA, workspaces={"acme": "end-user", "globex": "end-user"})
    )
    directory.take_event_facts()
    return directory


def new(directory: Directory, **changes: Any) -> dict[str, Any]:
    return {"slug": "stock", "workspaceId": directory.acme} | changes


def test_a_client_lists_the_apps_of_its_workspaces(directory: Directory) -> None:
    assert {item["id"] for item in directory.items("apps?limit=1")} == {ORDERS, SUPPORT}
    assert {item["id"] for item in directory.items("apps", client="rival")} == {LEDGER}
    assert len(directory.items("apps", client="everywhere")) == 3


def test_an_app_has_all_documented_fields(directory: Directory) -> None:
    orders = directory.ok("GET", f"apps/{ORDERS}")
    assert orders.pop("createdAt").endswith("Z")
    assert orders == {
        "id": ORDERS,
        "slug": "orders",
        "name": "Orders",
        "workspaceId": directory.acme,
        "template": "orders",
        "upstream": None,
        "start": None,
        "permissions": None,
        "allowedOrigins": [PORTAL],
    }


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("slug=orders", [ORDERS]),
        ("slug=ledger", []),
        ("workspaceId={acme}&slug=support", [SUPPORT]),
        ("workspaceId={globex}", []),
        ("workspaceId=" + UNKNOWN, []),
    ],
)
def test_apps_are_filtered(directory: Directory, query: str, ids: list[str]) -> None:
    query = query.format(acme=directory.acme, globex=directory.globex)
    assert [item["id"] for item in directory.items(f"apps?{query}")] == ids


def test_a_new_app_can_be_granted_and_opened(directory: Directory) -> None:
    body = new(directory, name="Stock", template="orders", allowedOrigins=[PORTAL, PORTAL.upper()])
    made = directory.ok("POST", "apps", body, status=201)
    assert (made["slug"], made["name"], made["template"], made["allowedOrigins"]) == (
        *("stock", "Stock", "orders", [PORTAL]),
    )
    assert directory.ok("GET", f"apps/{made['id']}") == made
    facts = {"slug": "stock", "name": "Stock", "template": "orders", "allowed_origins": [PORTAL]}
    assert directory.take_event_facts() == [("app:created", "manager", "acme", {"after": facts})]
    directory.ok("PUT", f"apps/{made['id']}/grants/{directory.user(ANA)}", status=201)
    assert directory.service.frame(made["id"]).response.status_code == 200


def test_name_and_template_default_to_the_slug_and_the_id_can_be_chosen(directory: Directory) -> None:
    chosen = "ABCDEF01-2345-4678-89AB-CDEF01234567"
    made = directory.ok("POST", "apps", new(directory, id=chosen, name=None, template=None), status=201)
    assert made["id"] == chosen.lower()
    assert (made["name"], made["template"], made["allowedOrigins"]) == ("stock", "stock", [])


def test_a_taken_slug_or_id_is_a_conflict_without_details(directory: Directory) -> None:
    """This also holds if another tenant has it."""
    answers = [
        directory.call("POST", "apps", new(directory, **body))
        for body in ({"slug": "orders"}, {"slug": "ledger"}, {"id": ORDERS}, {"id": LEDGER.upper()})
    ]
    answers.append(directory.call("PATCH", f"apps/{ORDERS}", {"slug": "ledger"}))
    for answer in answers:
        problem = problem_of(answer, 409, "conflict")
        for secret in (LEDGER, "Ledger", directory.globex, "globex"):
            assert secret not in problem["detail"]
    assert len({answer.get_json()["detail"] for answer in answers[:4]}) == 1
    assert directory.take_event_facts() == []


def test_a_change_leaves_other_columns(directory: Directory) -> None:
    service = directory.service
    frame = service.frame()
    path = f"apps/{ORDERS}"
    before = directory.ok("GET", path)
    body = {
        "slug": "purchases",
        "name": "Purchases",
        "allowedOrigins": ["https://new.example"],
        "template": None,
    }
    changed = directory.ok("PATCH", path, body)
    assert changed == before | {k: v for k, v in body.items() if v is not None}
    assert service.facts(frame)["app"]["slug"] == "purchases"
    policy = service.get(frame, "session").headers["Content-Security-Policy"]
    assert "frame-ancestors https://new.example" in policy
    ((kind, client, workspace, details),) = directory.take_event_facts()
    assert (kind, client, workspace) == ("app:changed", "manager", "acme")
    assert details == {
        "before": {"slug": "orders", "name": "Orders", "allowed_origins": [PORTAL]},
        "after": {"slug": "purchases", "name": "Purchases", "allowed_origins": ["https://new.example"]},
    }


def test_an_equal_change_records_no_event_and_moves_nothing(directory: Directory) -> None:
    frame = directory.service.frame()
    for body in ({}, {"name": "Orders", "slug": "orders"}, {"workspaceId": directory.acme.upper()}):
        directory.ok("PATCH", f"apps/{ORDERS}", body)
    assert directory.take_event_facts() == []
    assert directory.service.get(frame, "session").status_code == 200


# Moves


def test_a_move_ends_tokens_and_sessions_for_good_and_removes_grants(both: Directory) -> None:
    service = both.service
    frame, token = service.frame(), service.token()
    moved = both.ok("PATCH", f"apps/{ORDERS}", {"workspaceId": both.globex}, "everywhere")
    assert moved["workspaceId"] == both.globex
    assert both.items(f"apps/{ORDERS}/grants", client="everywhere") == []
    problem_of(service.mint(client="everywhere"), 403, "app_forbidden")
    both.ok("PUT", f"apps/{ORDERS}/grants/{both.user(ANA)}", client="rival", status=201)
    for workspace in (None, both.acme, both.globex):
        if workspace:
            both.ok("PATCH", f"apps/{ORDERS}", {"workspaceId": workspace}, "everywhere")
            both.ok("PUT", f"apps/{ORDERS}/grants/{both.user(ANA)}", client="everywhere", status=201)
        problem_of(service.get(frame, "session"), 401, "access_revoked")
        assert service.refusal(token) == "access_revoked"
    assert service.frame(client="rival").response.status_code == 200


def test_each_tenant_gets_its_own_event_of_a_move(both: Directory) -> None:
    body = {"workspaceId": both.globex, "name": "Purchases"}
    both.ok("PATCH", f"apps/{ORDERS}", body, "everywhere")
    came = {"after": FACTS | {"name": "Purchases"}}
    assert both.take_event_facts() == [
        ("grant:removed", "everywhere", "acme", None),
        ("grant:removed", "everywhere", "acme", None),
        ("app:moved", "everywhere", "acme", {"before": FACTS}),
        ("app:moved", "everywhere", "globex", came),
    ]
    halves = both.service.rows(select(Event.__table__).where(Event.app_id == ORDERS))
    for event in halves:
        ids = {both.acme, both.globex, "acme", "globex"}
        own = {event.workspace_id, next(k for k, v in both.workspaces.items() if v == event.workspace_id)}
        assert not any(other in str(event.details) for other in ids - own)


# Deletions


def test_deleting_an_app_deletes_its_grants_tokens_and_sessions(directory: Directory) -> None:
    service = directory.service
    frame, token = service.frame(), service.token(email=BEN)
    directory.ok("DELETE", f"apps/{ORDERS}", status=204)
    for table in (Grant, Token, Session):
        assert service.rows(select(table).where(table.app_id == ORDERS)) == []
    assert service.get(frame, "session").status_code == 401
    assert service.refusal(token) == "token_invalid"
    granted = ("grant:removed", "manager", "acme", {"by": "app:deleted"})
    assert directory.take_event_facts() == [
        ("app:deleted", "manager", "acme", {"before": FACTS}),
        *[granted] * 2,
    ]
    problem_of(directory.call("DELETE", f"apps/{ORDERS}"), 404, "app_not_found")
    assert {row.id for row in service.rows(select(App.id))} == {SUPPORT, LEDGER}


def test_a_client_deletes_an_app_although_a_user_with_a_higher_role_may_open_it(directory: Directory) -> None:
    """Mallory is an admin, above the highest role of the client. A deletion changes the app, not Mallory."""
    provision(
        directory.service.app, changed("clients", "rival", scopes=["provision"], highest_role="builder")
    )
    directory.ok("DELETE", f"apps/{LEDGER}", client="rival", status=204)
    directory.ok("DELETE", f"workspaces/{directory.globex}", client="rival", status=204)

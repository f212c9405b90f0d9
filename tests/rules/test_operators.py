"""Who may use the console, on both databases."""

from collections.abc import Iterator
from datetime import UTC, datetime
from threading import Barrier, Thread
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import delete, select

from pat_service.addresses import Site
from pat_service.errors import Conflict, OperatorNotFound, Refused, WorkspaceNotFound
from pat_service.rules import audit_export, events, operators
from pat_service.rules.audit_export import EventFilter
from pat_service.rules.callers import OPERATOR
from pat_service.rules.directory import apps, users, workspaces
from pat_service.storage.database import transaction
from pat_service.storage.models import Event, Operator
from pat_service.storage.paging import PageRequest
from tests.support.console import OLGA, OTTO, VERA
from tests.support.people import LEDGER, ORDERS

NOW = datetime(2026, 12, 1, tzinfo=UTC)
SITE = Site("https://embed.example")


@pytest.fixture(params=["app", pytest.param("postgres_app", marks=pytest.mark.postgres)])
def on(request: pytest.FixtureRequest) -> Iterator[Flask]:
    """The app on each database, within its context and without operators."""
    app: Flask = request.getfixturevalue(request.param)
    with app.app_context():
        with transaction() as connection:
            connection.execute(delete(Operator))
            connection.execute(delete(Event))
        yield app


def list_events() -> list[Any]:
    """Return all events, oldest first."""
    return list(reversed(audit_export.list_latest(OPERATOR, EventFilter(), None, 100).items))


def put(email: str, role: str, *slugs: str) -> operators.OperatorView:
    return operators.put(email, role, slugs, NOW)


def test_an_owner_has_all_workspaces_and_others_have_theirs(on: Flask) -> None:
    assert put(OLGA, "owner").workspaces is None
    assert put(OTTO, "operator", "globex", "acme", "acme").workspaces == ("acme", "globex")
    assert [view.email for view in operators.list_operators()] == [OLGA, OTTO]


@pytest.mark.parametrize(
    ("role", "slugs"),
    [("owner", ("acme",)), ("operator", ()), ("viewer", ()), ("viewer", ("unknown",)), ("admin", ("acme",))],
)
def test_a_role_needs_fitting_workspaces(on: Flask, role: str, slugs: tuple[str, ...]) -> None:
    with pytest.raises(Conflict):
        put(OTTO, role, *slugs)
    assert operators.list_operators() == []


def test_the_last_owner_stays(on: Flask) -> None:
    put(OLGA, "owner")
    put(OTTO, "operator", "acme")
    for change in (lambda: operators.remove(OLGA, NOW), lambda: put(OLGA, "viewer", "acme")):
        with pytest.raises(Conflict, match="last owner"):
            change()
    put(VERA, "owner")
    operators.remove(OLGA, NOW)
    with pytest.raises(Conflict, match="last owner"):
        operators.remove(VERA, NOW)
    assert [view.email for view in operators.list_operators()] == [OTTO, VERA]


@pytest.mark.postgres
def test_two_owners_cannot_remove_each_other(postgres_app: Flask) -> None:
    with postgres_app.app_context():
        for _ in range(10):
            with transaction() as connection:
                connection.execute(delete(Operator))
            put(OLGA, "owner")
            put(VERA, "owner")
            barrier, refused = Barrier(2), list[Exception]()

            def remove(email: str, barrier: Barrier, refused: list[Exception]) -> None:
                with postgres_app.app_context():
                    barrier.wait()
                    try:
                        operators.remove(email, NOW)
                    except Exception as error:
                        refused.append(error)  # noqa: B023 - the thread ends within the round

            threads = [Thread(target=remove, args=(email, barrier, refused)) for email in (OLGA, VERA)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert [type(error) for error in refused] == [Conflict]
            assert len(operators.list_operators()) == 1


def test_a_removed_operator_is_gone_until_added_again(on: Flask) -> None:
    put(OLGA, "owner")
    put(OTTO, "operator", "acme")
    operators.remove(OTTO, NOW)
    for find in (operators.find_live, lambda email: operators.remove(email, NOW)):
        with pytest.raises(OperatorNotFound):
            find(OTTO)
    assert [view.email for view in operators.list_operators(archived=True)] == [OLGA, OTTO]
    assert put(OTTO, "viewer", "globex").workspaces == ("globex",)
    types = [(event.type, event.details["operator"]) for event in list_events()]
    assert types == [
        (events.OPERATOR_ADDED, operators.id_of(OLGA)),
        (events.OPERATOR_ADDED, operators.id_of(OTTO)),
        (events.OPERATOR_REMOVED, operators.id_of(OTTO)),
        (events.OPERATOR_ADDED, operators.id_of(OTTO)),
    ]


def test_a_change_is_recorded_with_its_difference_and_its_author(on: Flask) -> None:
    put(OLGA, "owner")
    put(OTTO, "operator", "acme")
    olga = operators.as_caller(operators.find_live(OLGA))
    operators.put(OTTO, "viewer", ["acme"], NOW, olga)
    operators.put(OTTO, "viewer", ["acme"], NOW, olga)  # changes nothing
    (changed,) = [event for event in list_events() if event.type == events.OPERATOR_CHANGED]
    assert changed.client_id == operators.id_of(OLGA)
    assert changed.details == {
        "operator": operators.id_of(OTTO),
        "before": {"role": "operator"},
        "after": {"role": "viewer"},
    }


def test_the_rules_take_otto_as_they_take_a_client_of_acme(on: Flask) -> None:
    put(OTTO, "operator", "acme")
    otto = operators.as_caller(operators.find_live(OTTO))
    first = PageRequest()
    assert [row.slug for row in workspaces.list_workspaces(otto, first).items] == ["acme"]
    assert {row.slug for row in apps.list_apps(otto, first).items} == {"orders", "support"}
    assert {row.email for row in users.list_users(otto, first).items} == {"ana@acme.test", "ben@acme.test"}
    with pytest.raises(Refused):
        apps.read(otto, LEDGER)
    assert apps.read(otto, ORDERS).slug == "orders"


def test_ottos_changes_name_him_in_the_trail_of_acme(on: Flask) -> None:
    put(OTTO, "operator", "acme")
    otto = operators.as_caller(operators.find_live(OTTO))
    (acme,) = workspaces.list_workspaces(otto, PageRequest()).items
    workspaces.change(otto, acme.id, {"name": "Acme Ltd"}, NOW, site=SITE)
    seen = audit_export.list_latest(otto, EventFilter(type=events.WORKSPACE_CHANGED), None, 10).items
    assert [(event.client_id, event.workspace_id) for event in seen] == [(operators.id_of(OTTO), acme.id)]
    (globex,) = workspaces.list_workspaces(OPERATOR, PageRequest(), slug="globex").items
    with pytest.raises(WorkspaceNotFound):
        workspaces.change(otto, globex.id, {"name": "Ours"}, NOW, site=SITE)


def test_an_export_ends_with_the_operator(on: Flask) -> None:
    put(OLGA, "owner")
    put(OTTO, "operator", "acme")
    otto = operators.as_caller(operators.find_live(OTTO))
    assert audit_export.export(otto, EventFilter(), 0) is not None
    operators.remove(OTTO, NOW)
    with pytest.raises(Refused):
        list(audit_export.export(otto, EventFilter(), 0))


def test_an_operator_outlives_a_workspace(on: Flask) -> None:
    put(OLGA, "owner")
    with transaction() as connection:
        assert connection.execute(select(Operator.role)).scalars().all() == ["owner"]
    workspaces.create(OPERATOR, slug="initech", now=NOW, site=SITE)
    put(OTTO, "viewer", "initech")
    (row,) = workspaces.list_workspaces(OPERATOR, PageRequest(), slug="initech").items
    workspaces.remove(OPERATOR, row.id, NOW)
    assert operators.find_live(OTTO).workspaces == ()


def test_events_of_a_request_name_the_operator_who_causes_them(on: Flask) -> None:
    token = events.operator_id.set(operators.id_of(OLGA))
    try:
        with transaction() as connection:
            events.record(connection, events.CLIENT_ROTATED, NOW, client_id="portal")
            events.record(connection, events.OPERATOR_SIGNED_OUT, NOW, client_id=operators.id_of(OLGA))
            events.record_many(connection, [events.build(events.TOKEN_REVOKED, NOW, details={"times": 1})])
    finally:
        events.operator_id.reset(token)
    by = {event.type: (event.details or {}).get("by") for event in list_events()}
    assert by == {
        events.CLIENT_ROTATED: operators.id_of(OLGA),
        events.OPERATOR_SIGNED_OUT: None,
        events.TOKEN_REVOKED: operators.id_of(OLGA),
    }

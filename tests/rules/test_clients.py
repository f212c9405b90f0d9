"""Clients: rotation, overlapping secrets, revocation, and the audit events of changes."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from sqlalchemy import select

from pat_service.rules import clients
from pat_service.storage.models import Event
from tests.support.api_calls import mint_with_secret, rotate
from tests.support.people import (
    SECRETS,
    WORLD,
    Service,
    changed,
    make_secret,
    problem_of,
    provision,
)

NOON = datetime(2026, 11, 2, 12, tzinfo=UTC)
DAY = timedelta(days=1)


# Secrets over time.


def test_two_secrets_overlap_until_the_exact_second(service: Service) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        new = rotate(service, NOON, DAY)
        assert mint_with_secret(service, SECRETS["portal"]).status_code == 201
        assert mint_with_secret(service, new).status_code == 201
        clock.move_to(NOON + DAY - timedelta(microseconds=1))
        assert mint_with_secret(service, SECRETS["portal"]).status_code == 201
        clock.move_to(NOON + DAY)
        problem_of(mint_with_secret(service, SECRETS["portal"]), 401, "invalid_client")
        assert mint_with_secret(service, new).status_code == 201


def test_a_new_overlap_does_not_extend_an_old_one(service: Service) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        second = rotate(service, NOON, timedelta(hours=1))
        third = rotate(service, NOON, DAY)
        clock.move_to(NOON + timedelta(hours=1))
        problem_of(mint_with_secret(service, SECRETS["portal"]), 401, "invalid_client")
        assert mint_with_secret(service, second).status_code == 201
        clock.move_to(NOON + DAY)
        problem_of(mint_with_secret(service, second), 401, "invalid_client")
        assert mint_with_secret(service, third).status_code == 201


def test_a_rotation_without_overlap_ends_an_overlap(service: Service) -> None:
    with time_machine.travel(NOON, tick=False):
        second = rotate(service, NOON, DAY)
        third = rotate(service, NOON)
        for ended in (SECRETS["portal"], second):
            problem_of(mint_with_secret(service, ended), 401, "invalid_client")
        assert mint_with_secret(service, third).status_code == 201


def test_a_retired_secret_stays_invalid_after_a_rotation(service: Service) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        rotate(service, NOON, DAY)
        clock.shift(2 * DAY)
        rotate(service, NOON + 2 * DAY, DAY)
        problem_of(mint_with_secret(service, SECRETS["portal"]), 401, "invalid_client")


def test_a_rotation_does_not_affect_other_clients(service: Service) -> None:
    rotate(service, NOON)
    problem_of(mint_with_secret(service, SECRETS["rival"], "rival"), 404, "user_not_found")


# Audit events.


def events_of(service: Service, client: str) -> list[Any]:
    of_client = (Event.client_id == client, Event.type.startswith("client:"))
    return service.rows(select(Event.__table__).where(*of_client).order_by(Event.id))


def test_the_event_of_a_new_client_has_its_rights(service: Service) -> None:
    created, *_ = events_of(service, "manager")
    assert (created.type, created.details) == (
        "client:created",
        {
            "after": {
                "scopes": ["audit", "mint", "mint:workspace", "provision"],
                "workspaces": ["acme"],
                "mint_limit": "1000 per minute",
                "highest_role": "builder",
                "revoked": False,
            }
        },
    )


@pytest.mark.parametrize(
    ("change", "before"),
    [
        ({"scopes": ["audit", "mint"]}, {"scopes": ["mint"]}),
        ({"workspaces": ["globex", "acme"]}, {"workspaces": ["acme"]}),
        ({"workspaces": []}, {"workspaces": ["acme"]}),
        ({"workspaces": None}, {"workspaces": ["acme"]}),
        ({"mint_limit": None}, {"mint_limit": "1000 per minute"}),
        ({"highest_role": "admin"}, {"highest_role": "end-user"}),
        (
            {"highest_role": "admin", "mint_limit": "1 per day"},
            {"highest_role": "end-user", "mint_limit": "1000 per minute"},
        ),
    ],
)
def test_the_event_of_a_change_has_the_values_before_and_after(
    service: Service, change: dict[str, Any], before: dict[str, Any]
) -> None:
    number = len(events_of(service, "portal"))
    document = changed("clients", "portal", **change)
    provision(service.app, document)
    (event,) = events_of(service, "portal")[number:]
    after = {name: sorted(value) if isinstance(value, list) else value for name, value in change.items()}
    assert (event.type, event.details) == ("client:changed", {"before": before, "after": after})
    provision(service.app, document)
    assert len(events_of(service, "portal")) == number + 1, "nothing changed the second time"


def test_the_same_file_again_changes_nothing(service: Service) -> None:
    before = [events_of(service, client) for client in SECRETS]
    provision(service.app, WORLD)
    assert [events_of(service, client) for client in SECRETS] == before


def test_restoring_a_client_is_recorded(service: Service) -> None:
    with service.app.app_context():
        clients.revoke("portal", datetime.now(UTC))
    provision(service.app, changed("clients", "portal", secret=make_secret("new")))
    events = [event for event in events_of(service, "portal") if event.type == "client:changed"]
    assert [event.details for event in events] == [{"before": {"revoked": True}, "after": {"revoked": False}}]
    assert mint_with_secret(service, make_secret("new")).status_code == 201

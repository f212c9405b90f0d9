"""People who were refused an app lately: bounded, and of the caller's own workspaces."""

from typing import Any

import pytest
from sqlalchemy import delete, insert, select

from pat_service.http.authentication import utcnow
from pat_service.rules import refused_people
from pat_service.rules.callers import OPERATOR, Caller
from pat_service.storage.models import App, Event, User
from tests.support.people import LEDGER, ORDERS, SUPPORT, Service

ACME = Caller("portal", frozenset(), all_workspaces=False)


@pytest.fixture
def service(each_service: Service) -> Service:
    each_service.change(delete(Event))
    return each_service


def record(service: Service, email: str, app_id: str = SUPPORT, **columns: Any) -> None:
    (app,) = service.rows(select(App.workspace_id).where(App.id == app_id))
    (user,) = service.rows(select(User.id).where(User.email == email))
    row = {"at": utcnow(), "type": "token:mint-refused", "code": "app_forbidden"} | columns
    service.change(insert(Event).values(app_id=app_id, workspace_id=app.workspace_id, user_id=user.id, **row))


def list_emails(service: Service, caller: Caller = ACME) -> list[str]:
    with service.app.app_context():
        return [person.email for person in refused_people.list_refused(caller, 20)]


def test_a_person_is_listed_once_for_an_app_until_the_grant(service: Service) -> None:
    for _ in range(2):
        record(service, "ben@acme.test")
    record(service, "ben@acme.test", code="token_expired")
    record(service, "ana@acme.test")  # has a grant
    assert list_emails(service) == ["ben@acme.test"]


def test_a_caller_sees_neither_apps_nor_people_of_another_tenant(service: Service) -> None:
    record(service, "mallory@globex.test", ORDERS)
    record(service, "ben@acme.test", LEDGER)
    assert list_emails(service) == []
    assert sorted(list_emails(service, OPERATOR)) == ["ben@acme.test", "mallory@globex.test"]


def test_a_long_trail_is_searched_up_to_a_bound(service: Service) -> None:
    record(service, "ben@acme.test")
    (app,) = service.rows(select(App.workspace_id).where(App.id == ORDERS))
    newer = {"at": utcnow(), "type": "token:minted", "workspace_id": app.workspace_id}
    service.change(insert(Event).values([newer] * (refused_people.SEARCHED - 1)))
    assert list_emails(service) == ["ben@acme.test"]
    service.change(insert(Event).values(newer))
    assert list_emails(service) == []

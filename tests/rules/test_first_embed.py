"""The steps to a first embed, and apps that no page may frame."""

import pytest
from sqlalchemy import delete, update

from pat_service.rules import first_embed
from pat_service.rules.callers import OPERATOR, Caller
from pat_service.storage.models import App, Grant
from tests.support.people import LEDGER, ORDERS, SUPPORT, Service

PORTAL = Caller("portal", frozenset(), all_workspaces=False)


def read(service: Service, caller: Caller = OPERATOR) -> first_embed.Progress:
    with service.app.app_context():
        return first_embed.read_progress(caller)


def list_unframed(service: Service, caller: Caller = OPERATOR, limit: int = 5) -> set[str]:
    with service.app.app_context():
        return {row.id for row in first_embed.list_unframed(caller, limit)}


def test_each_step_counts_in_the_callers_workspaces(each_service: Service) -> None:
    expected = first_embed.Progress(app=True, grant=True, origin=True, client=True, mint=False, opening=False)
    assert read(each_service, PORTAL) == expected
    each_service.frame()
    assert read(each_service, PORTAL).is_complete
    # Nothing of Acme counts for a caller of Globex.
    rival = Caller("rival", frozenset(), all_workspaces=False)
    assert not read(each_service, rival).mint


def test_a_caller_with_all_workspaces_sees_the_steps_of_an_empty_service(each_service: Service) -> None:
    assert not read(each_service).mint
    each_service.change(delete(App))
    progress = read(each_service)
    assert (progress.app, progress.mint) == (False, False)


def test_an_undone_step_shows_again(each_service: Service) -> None:
    each_service.change(delete(Grant).where(Grant.app_id.in_([ORDERS, SUPPORT])))
    each_service.change(update(App).where(App.id != LEDGER).values(allowed_origins=[]))
    progress = read(each_service, PORTAL)
    assert (progress.app, progress.grant, progress.origin) == (True, False, False)


@pytest.mark.parametrize(("caller", "expected"), [(PORTAL, {ORDERS}), (OPERATOR, {ORDERS, LEDGER})])
def test_apps_without_origins_are_listed(each_service: Service, caller: Caller, expected: set[str]) -> None:
    each_service.change(update(App).where(App.id.in_([ORDERS, LEDGER])).values(allowed_origins=[]))
    assert list_unframed(each_service, caller) == expected
    assert len(list_unframed(each_service, caller, 1)) == 1

"""Access to an app: each missing fact closes it."""

from types import SimpleNamespace
from typing import Any, Final

import pytest

from pat_service.credentials import Keyring
from pat_service.errors import AccessRevoked
from pat_service.rules.access import (
    Host,
    Place,
    is_for_place,
    may_open,
    may_visit,
    narrow_origins,
    require_viewer,
    require_visitor,
)

KEYRING: Final = Keyring("a key of these tests")

#: Ana is an active member of Acme with a grant for Orders, and her token is for Orders.
ANA: Final[dict[str, Any]] = {
    "user_id": "ana",
    "user_email": "ana@acme.test",
    "user_name": "Ana",
    "user_status": "active",
    "status_in_workspace": None,
    "app_id": "orders",
    "app_slug": "orders",
    "app_name": "Orders",
    "app_template": "orders",
    "app_moves": 2,
    "app_workspace": "acme",
    "app_moved_from": None,
    "app_upstream": None,
    "app_start": None,
    "app_permissions": None,
    "workspace_id": "acme",
    "workspace_slug": "acme",
    "workspace_name": "Acme",
    "workspace_apps_url": None,
    "role": "end-user",
    "granted": "ana",
    "target_app": "orders",
    "moves": 2,
    "attributes": None,
}

LEFT_ACME: Final[dict[str, Any]] = {"target_app": None, "app_workspace": "globex", "app_moved_from": "acme"}


def ana(**changes: Any) -> Any:
    return SimpleNamespace(**ANA | changes)


def test_ana_opens_orders() -> None:
    seen = require_viewer(ana())
    assert (seen.user.name, seen.app.slug, seen.workspace.slug, seen.role) == (
        "Ana",
        "orders",
        "acme",
        "end-user",
    )
    assert seen.attributes == {}


@pytest.mark.parametrize(
    "change",
    [
        {"user_status": "archived"},
        {"user_status": None},
        {"role": None},
        {"granted": None},
        {"app_workspace": "globex"},
    ],
)
def test_each_missing_fact_closes_the_app(change: dict[str, Any]) -> None:
    assert not may_open(ana(**change))
    with pytest.raises(AccessRevoked):
        require_viewer(ana(**change))


@pytest.mark.parametrize("role", ["end-user", "builder", "admin"])
def test_no_role_replaces_a_grant(role: str) -> None:
    assert may_visit(ana(role=role, granted=None))
    assert not may_open(ana(role=role, granted=None))


def test_a_token_made_before_a_move_never_opens_again() -> None:
    with pytest.raises(AccessRevoked):
        require_viewer(ana(moves=1))


def test_a_workspace_token_does_not_end_with_a_move_of_one_app() -> None:
    assert require_viewer(ana(target_app=None, moves=0)).app.id == "orders"


def test_the_launcher_requires_only_membership() -> None:
    assert require_visitor(ana(granted=None)).user.id == "ana"
    for change in ({"user_status": "archived"}, {"role": None}):
        with pytest.raises(AccessRevoked):
            require_visitor(ana(**change))


@pytest.mark.parametrize(
    ("change", "place", "meant"),
    [
        ({}, Place(app_id="orders"), True),
        ({}, Place(app_id="support"), False),
        ({}, Place(app_id="orders", host=Host("orders")), True),
        ({}, Place(app_id="orders", host=Host("support")), False),
        ({}, Place(workspace_id="acme"), False),
        ({"target_app": None}, Place(workspace_id="acme"), True),
        ({"target_app": None}, Place(workspace_id="globex"), False),
        ({"target_app": None}, Place(app_id="orders"), True),
        ({"target_app": None, "app_workspace": "globex"}, Place(app_id="orders"), False),
        # The app has left Acme, so the holder learns that access is gone.
        (
            {"target_app": None, "app_workspace": "globex", "app_moved_from": "acme"},
            Place(app_id="orders"),
            True,
        ),
    ],
)
def test_a_token_is_valid_only_for_its_app_or_workspace(
    change: dict[str, Any], place: Place, meant: bool
) -> None:
    assert is_for_place(KEYRING, ana(**change), place) is meant


@pytest.mark.parametrize(
    ("origins", "allowed", "left"),
    [
        (["https://a.example", "https://b.example"], None, ["https://a.example", "https://b.example"]),
        (["https://a.example", "https://b.example"], ["https://b.example"], ["https://b.example"]),
        (["https://a.example"], ["https://b.example"], []),
        (["https://a.example"], ["*"], ["https://a.example"]),
        (["*"], ["https://b.example"], ["https://b.example"]),
        (["https://a.example"], [], []),
    ],
)
def test_a_token_narrows_origins_and_never_adds_one(
    origins: list[str], allowed: list[str] | None, left: list[str]
) -> None:
    assert narrow_origins(origins, allowed) == left

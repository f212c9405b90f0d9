"""Every page for every role: one walk over the console's URL map.

A new page needs a row in `PAGES`, and a new change one in `CHANGES`. Operators of Acme see and change nothing
of Globex.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
from sqlalchemy import delete, select

from pat_service.storage.database import Base
from pat_service.storage.models import Event, Session, Token, User, WorkspaceStatus
from tests.support.console import OLGA, OTTO, VERA, Browser
from tests.support.people import LEDGER, ORDERS, PORTAL, WORLD, Service, provision

EVERYONE: Final = (OLGA, OTTO, VERA)
CHANGERS: Final = (OLGA, OTTO)
OWNERS: Final = (OLGA,)

#: The values of an address or a form. A function finds the id of a row.
Values = dict[str, Any]


def person(email: str) -> Callable[[Service], str]:
    return lambda service: service.rows(select(User.id).where(User.email == email))[0][0]


def newest(table: type[Token | Session], email: str) -> Callable[[Service], str]:
    """Find the newest token or session of this person."""

    def find(service: Service) -> str:
        statement = select(table.id).join(User, User.id == table.user_id).where(User.email == email)
        return service.rows(statement.order_by(table.id.desc()))[0][0]

    return find


def resolve(service: Service, values: Values) -> Values:
    return {name: value(service) if callable(value) else value for name, value in values.items()}


ANA: Final = person("ana@acme.test")
MALLORY: Final = person("mallory@globex.test")


@dataclass(frozen=True)
class Page:
    """Who may open a page. `acme` and `globex` fill in the parameters of its address."""

    roles: tuple[str, ...]
    acme: Values = field(default_factory=dict)
    globex: Values = field(default_factory=dict)


@dataclass(frozen=True)
class Change:
    """Who may make a change. `fields` and `values` (of the address) name rows of Globex, if it has any."""

    roles: tuple[str, ...]
    fields: Values = field(default_factory=dict)
    values: Values = field(default_factory=dict)


APP: Final = {"app_id": ORDERS}
OTHER_APP: Final = {"app_id": LEDGER}
PAGES: Final = {
    "overview": Page(EVERYONE),
    "problems": Page(EVERYONE),
    "apps": Page(EVERYONE),
    "new_app": Page(EVERYONE),
    "app": Page(EVERYONE, APP, OTHER_APP),
    "app_preview": Page(CHANGERS, APP, OTHER_APP),
    "app_embed": Page(EVERYONE, APP, OTHER_APP),
    "check_origin": Page(EVERYONE, APP, OTHER_APP),
    "operators": Page(OWNERS),
    "own_sessions": Page(EVERYONE),
    "health": Page(OWNERS),
    "doctor": Page(OWNERS),
    "people": Page(EVERYONE),
    "new_person": Page(CHANGERS),
    "person": Page(EVERYONE, {"user_id": ANA}, {"user_id": MALLORY}),
    "clients": Page(OWNERS),
    "new_client": Page(OWNERS),
    "client": Page(OWNERS, {"client_id": "portal"}, {"client_id": "rival"}),
    "revoking_client": Page(OWNERS, {"client_id": "portal"}, {"client_id": "rival"}),
    "live": Page(EVERYONE),
    "ending": Page(CHANGERS, {"workspace": "acme"}),
    "audit": Page(EVERYONE),
    "export_audit": Page(EVERYONE),
}
CHANGES: Final = {
    "allow_origin": Change(CHANGERS, {"app": LEDGER, "origin": "https://new.example"}),
    "grant_refused_person": Change(CHANGERS, {"app": LEDGER, "user": ORDERS}),
    "create_app": Change(CHANGERS, {"workspace": LEDGER, "slug": "new", "template": "orders"}),
    "change_app": Change(CHANGERS, {"name": "Ledger", "slug": "taken"}, OTHER_APP),
    "open_preview": Change(CHANGERS, {"email": "mallory@globex.test"}, OTHER_APP),
    "add_origin": Change(CHANGERS, {"origin": "https://new.example"}, OTHER_APP),
    "remove_origin": Change(CHANGERS, {"origin": PORTAL}, OTHER_APP),
    "add_grant": Change(CHANGERS, {"email": "mallory@globex.test"}, OTHER_APP),
    "remove_grant": Change(CHANGERS, {"user": ORDERS}, OTHER_APP),
    "remove_app": Change(CHANGERS, {}, OTHER_APP),
    "put_operator": Change(OWNERS, {"email": "nora@acme.test", "role": "viewer", "workspace": "globex"}),
    "create_operator_link": Change(OWNERS, {"email": OTTO}),
    "examine": Change(OWNERS, {"app": "nothing"}),
    "remove_operator": Change(OWNERS, {"email": VERA}),
    "end_own_sessions": Change(EVERYONE, {"session": "00000000-0000-4000-8000-000000000000"}),
    "sign_out": Change(EVERYONE),
    "add_person": Change(CHANGERS, {"email": "nora@acme.test", "workspace": "globex", "role": "admin"}),
    "change_person": Change(CHANGERS, {"email": "mallory@globex.test", "name": "M"}, {"user_id": MALLORY}),
    "put_status": Change(CHANGERS, {"status": "archived", "workspace": "globex"}, {"user_id": MALLORY}),
    "put_membership": Change(CHANGERS, {"workspace": "globex", "role": "admin"}, {"user_id": ANA}),
    "remove_membership": Change(CHANGERS, {"workspace": "globex"}, {"user_id": MALLORY}),
    "give_app": Change(CHANGERS, {"app": "ledger"}, {"user_id": ANA}),
    "take_app": Change(CHANGERS, {"app": "ledger"}, {"user_id": MALLORY}),
    "end_person": Change(CHANGERS, {}, {"user_id": MALLORY}),
    "create_client": Change(
        OWNERS, {"id": "new", "scope": "mint", "reach": "all", "highest_role": "end-user"}
    ),
    "change_client": Change(OWNERS, {"scope": "mint", "reach": "all"}, {"client_id": "rival"}),
    "rotate_client": Change(OWNERS, {"overlap": "24h"}, {"client_id": "gone"}),
    "revoke_client": Change(OWNERS, {"tokens": "1"}, {"client_id": "gone"}),
    "end_selected_sessions": Change(CHANGERS, {"session": newest(Session, "mallory@globex.test")}),
    "revoke_selected_tokens": Change(CHANGERS, {"token": newest(Token, "mallory@globex.test")}),
    "end_matching": Change(CHANGERS, {"workspace": "globex", "show": "tokens"}),
}
#: What anyone may open, signed in or not.
PUBLIC: Final = {"sign_in", "use_link", "start_openid", "finish_openid", "asset"}
#: What the pages of an operator of Acme must not have.
GLOBEX: Final = ("globex", "Globex", "mallory", "Mallory", "ledger", "Ledger", "rival")
#: Tables that signing in and refusals change.
OF_SESSIONS: Final = ("console_sessions", "used_links", "events")


def list_rules(service: Service) -> dict[str, Any]:
    """Return the console's rules by endpoint."""
    return {
        rule.endpoint.removeprefix("console."): rule
        for rule in service.app.url_map.iter_rules()
        if rule.endpoint.startswith("console.")
    }


def address(service: Service, name: str, values: Values) -> str:
    """Return the address of an endpoint on the console's host."""
    adapter = service.app.url_map.bind("console.example", subdomain="console")
    return adapter.build(f"console.{name}", resolve(service, values))


def use_globex(service: Service) -> None:
    """Mallory has a token, a session and events."""
    service.frame(LEDGER, email="mallory@globex.test", client="rival")


def dump(service: Service) -> dict[str, list[str]]:
    """Return every row that is not about signing in."""
    return {
        name: sorted(map(repr, service.rows(select(table))))
        for name, table in Base.metadata.tables.items()
        if name not in OF_SESSIONS
    }


def test_every_page_and_change_has_a_row(console: Service) -> None:
    rules = list_rules(console)
    assert set(rules) == PAGES.keys() | CHANGES.keys() | PUBLIC
    for name, rule in rules.items():
        assert ("POST" in rule.methods) == (name in CHANGES or name == "use_link"), name


@pytest.mark.parametrize("name", PAGES)
def test_a_page_opens_for_its_roles_and_for_no_stranger(
    console: Service, sign_in: Callable[[str], Browser], name: str
) -> None:
    page = PAGES[name]
    path = address(console, name, page.acme)
    for email in EVERYONE:
        answer = sign_in(email).get(path)
        assert answer.status_code == (200 if email in page.roles else 403), email
    assert Browser(console).get(path).headers["Location"].startswith("/sign-in")


@pytest.mark.parametrize("name", PAGES)
def test_a_page_shows_ottos_and_veras_workspaces_alone(
    console: Service, sign_in: Callable[[str], Browser], name: str
) -> None:
    page = PAGES[name]
    use_globex(console)
    for email in (OTTO, VERA):
        browser = sign_in(email)
        text = browser.get(address(console, name, page.acme)).text
        assert not [word for word in GLOBEX if word in text], email
        if page.globex:
            answer = browser.get(address(console, name, page.globex))
            assert answer.status_code == (404 if email in page.roles else 403), email
            assert not [word for word in GLOBEX if word in answer.text], email


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_refused_to_other_roles(
    console: Service, sign_in: Callable[[str], Browser], name: str
) -> None:
    change = CHANGES[name]
    use_globex(console)
    path, fields = address(console, name, change.values), resolve(console, change.fields)
    # The owner comes last, since its change may succeed.
    for email, browser in [(email, sign_in(email)) for email in reversed(EVERYONE)]:
        console.change(delete(Event))
        before = dump(console)
        status = browser.post(path, **fields).status_code
        assert status < 500
        assert (status == 403) == (email not in change.roles), (email, status)
        if email not in change.roles:
            assert [event.code for event in console.events()] == ["role_missing"]
        if email != OLGA:
            assert dump(console) == before, email
    console.change(delete(WorkspaceStatus))
    provision(console.app, WORLD)


@pytest.mark.parametrize("name", CHANGES)
def test_a_stranger_changes_nothing(console: Service, name: str) -> None:
    use_globex(console)
    path, fields = address(console, name, CHANGES[name].values), resolve(console, CHANGES[name].fields)
    before = dump(console)
    answer = Browser(console).post(path, **fields)
    assert answer.status_code == 401
    assert dump(console) == before

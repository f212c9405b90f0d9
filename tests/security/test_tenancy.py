"""A client of one workspace sees, lists, counts, changes and ends nothing of another, on any route.

The cases are compared with the URL map, so that a route without one fails here.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from sqlalchemy import select
from werkzeug.test import TestResponse

from pat_service.storage.models import App, Event, Grant, Member, Session, Token, User, Workspace
from tests.support.api_calls import UNKNOWN, id_of
from tests.support.people import LEDGER, ORDERS, PORTAL, Service, basic, boot, changed, provision

MALLORY = "mallory@globex.test"
HOLDINGS = (Workspace, User, Member, App, Grant, Token, Session)


@dataclass
class Foreign:
    """Globex's ids by name, and the texts that no answer to Acme's client may contain."""

    ids: dict[str, str]
    token: str
    of_workspace: str
    jwt: str

    @property
    def filters(self) -> dict[str, str]:
        ids = {
            f"{kind}Id": self.ids[f"{kind}_id"] for kind in ("workspace", "user", "app", "token", "session")
        }
        return ids | {"clientId": "rival", "email": MALLORY}

    @property
    def texts(self) -> set[str]:
        names = {MALLORY, "Mallory", "Globex", "globex", "Ledger", "ledger", "rival"}
        # Search for the value with its quotes: an id may contain the same four letters.
        ending = json.dumps(json.dumps(self.token[-4:]))[1:-1]
        return names | set(self.ids.values()) | {ending, self.token, self.jwt}


@pytest.fixture
def foreign(service: Service) -> Foreign:
    """Acme's manager has every scope; Globex has one of everything."""
    provision(service.app, changed("clients", "manager", highest_role="admin"))
    scopes = ["mint", "mint:workspace", "provision", "audit"]
    provision(service.app, changed("clients", "rival", scopes=scopes, highest_role="admin"))
    whose = {"client": "rival", "email": MALLORY}
    answer = service.mint(**whose, appSlug="ledger")
    assert answer.status_code == 201, answer.text
    minted = answer.get_json()
    frame = service.open(minted["personalAccessToken"], LEDGER)
    of_workspace = service.mint(**whose, appSlug=None, workspaceSlug="globex").get_json()
    # Acme's lists are not empty.
    service.frame()

    ids = {
        "workspace_id": id_of(service, Workspace, "globex"),
        "user_id": id_of(service, User, MALLORY),
        "app_id": LEDGER,
        "token_id": minted["tokenId"],
        "session_id": service.rows(select(Session.id).where(Session.app_id == LEDGER))[0].id,
    }
    return Foreign(
        ids, minted["personalAccessToken"], of_workspace["personalAccessToken"], boot(frame)["session"]
    )


Call = Callable[[Service, Foreign], list[TestResponse]]


def manager(service: Service, method: str, path: str, **options: Any) -> TestResponse:
    return service.client.open(f"/api/ext/{path}", method=method, headers=basic("manager"), **options)


def answer_as_unknown(foreign: Foreign, ask: Callable[[Foreign], list[TestResponse]]) -> list[TestResponse]:
    """Return the answers for Globex's ids. Unknown ids must get the same answers."""
    answers, others = ask(foreign), ask(replace(foreign, ids=dict.fromkeys(foreign.ids, UNKNOWN)))
    for answer, other in zip(answers, others, strict=True):
        assert answer.get_json() | {"requestId": ""} == other.get_json() | {"requestId": ""}
    return answers


def at(method: str, path: str, body: Any = None) -> Call:
    """Call with Globex's ids. If the address has two ids, also call with one of Acme's."""

    def call(service: Service, foreign: Foreign) -> list[TestResponse]:
        own = {
            "workspace_id": id_of(service, Workspace, "acme"),
            "app_id": ORDERS,
            "user_id": id_of(service, User, "ana@acme.test"),
        }
        names = [name for name in foreign.ids if f"{{{name}}}" in path]
        sets: list[dict[str, str]] = [{}, *({name: own[name]} for name in names if len(names) > 1)]

        def ask(of: Foreign) -> list[TestResponse]:
            return [manager(service, method, path.format(**of.ids | known), json=body) for known in sets]

        return answer_as_unknown(foreign, ask)

    return call


def listing(path: str, *filters: str) -> Call:
    """List without a filter, and with each filter set to Globex's value."""

    def call(service: Service, foreign: Foreign) -> list[TestResponse]:
        values = foreign.filters | {"slug": "ledger" if path == "apps" else "globex"}
        queries: list[dict[str, str]] = [{}, *({name: values[name]} for name in filters)]
        answers = [manager(service, "GET", path, query_string=query) for query in queries]
        assert all(answer.status_code == 200 for answer in answers)
        for answer in answers[1:]:
            if answer.mimetype == "application/json":
                assert answer.get_json() == {"items": [], "nextCursor": None}
            else:
                assert answer.text == ""
        return answers

    return call


def ending(path: str, *filters: str) -> Call:
    def call(service: Service, foreign: Foreign) -> list[TestResponse]:
        queries = [{name: foreign.filters[name]} for name in filters]
        answers = [manager(service, "DELETE", path, query_string=query) for query in queries]
        for answer in answers:
            assert answer.status_code in (200, 404)
            assert answer.status_code == 404 or set(answer.get_json().values()) == {0}
        return [answer for answer in answers if answer.status_code != 200]

    return call


def mints(service: Service, foreign: Foreign) -> list[TestResponse]:
    requests: list[dict[str, Any]] = [
        {"email": MALLORY},
        {"email": None, "userId": foreign.ids["user_id"]},
        {"appSlug": "ledger"},
        {"appSlug": None, "appId": LEDGER},
        {"appSlug": None, "workspaceSlug": "globex"},
        {"appSlug": None, "workspaceId": foreign.ids["workspace_id"]},
        {"email": MALLORY, "appSlug": "ledger", "provision": {"role": "admin"}},
        {"email": "new@acme.test", "appSlug": "ledger", "provision": {"role": "admin"}},
        {"email": None, "userId": foreign.ids["user_id"], "provision": {"role": "admin"}},
        {"email": "new@acme.test", "appSlug": None, "workspaceSlug": "globex", "provision": {}},
    ]
    return [service.mint(client="manager", **fields) for fields in requests]


def introspections(service: Service, foreign: Foreign) -> list[TestResponse]:
    for text in (foreign.token, foreign.of_workspace, foreign.jwt):
        answer = manager(service, "POST", "introspect", json={"token": text})
        assert (answer.status_code, answer.get_json()) == (200, {"active": False})
    return []


def opens_with_the_token_itself(service: Service, foreign: Foreign) -> list[TestResponse]:
    """This route needs no client: the token itself is the credential."""
    return [
        service.client.post("/api/ext/users/session", json={"appId": ORDERS, "accessToken": token})
        for token in (foreign.token, foreign.of_workspace)
    ]


def creates(path: str, *bodies: Callable[[Foreign, str], dict[str, Any]]) -> Call:
    def call(service: Service, foreign: Foreign) -> list[TestResponse]:
        acme = id_of(service, Workspace, "acme")
        return answer_as_unknown(
            foreign, lambda of: [manager(service, "POST", path, json=body(of, acme)) for body in bodies]
        )

    return call


def globexs_membership(foreign: Foreign, *, more: Any = ()) -> list[dict[str, str]]:
    return [*more, {"workspaceId": foreign.ids["workspace_id"], "role": "end-user"}]


def moves_an_app_away(service: Service, foreign: Foreign) -> list[TestResponse]:
    def ask(of: Foreign) -> list[TestResponse]:
        body = {"workspaceId": of.ids["workspace_id"]}
        return [manager(service, "PATCH", f"apps/{id_}", json=body) for id_ in (ORDERS, of.ids["app_id"])]

    return answer_as_unknown(foreign, ask)


def changes_an_app(service: Service, foreign: Foreign) -> list[TestResponse]:
    own = {"workspaceId": id_of(service, Workspace, "acme")}
    return [
        *moves_an_app_away(service, foreign),
        *(manager(service, "PATCH", f"apps/{LEDGER}", json=body) for body in (own, {"name": "Mine"}, {})),
    ]


NEW = {"email": "new@acme.test", "name": "New"}
CASES: dict[str, Call] = {
    "POST /users/personal-access-token": mints,
    "POST /users/session": opens_with_the_token_itself,
    "POST /introspect": introspections,
    "GET /workspaces": listing("workspaces", "slug"),
    "POST /workspaces": creates("workspaces", lambda foreign, _: {"slug": "third", "name": "Third"}),
    "GET /workspaces/<id:workspace_id>": at("GET", "workspaces/{workspace_id}"),
    "PATCH /workspaces/<id:workspace_id>": at("PATCH", "workspaces/{workspace_id}", {"name": "Mine"}),
    "DELETE /workspaces/<id:workspace_id>": at("DELETE", "workspaces/{workspace_id}"),
    "GET /workspaces/<id:workspace_id>/members": at("GET", "workspaces/{workspace_id}/members"),
    "GET /workspaces/<id:workspace_id>/members/<id:user_id>": at(
        "GET", "workspaces/{workspace_id}/members/{user_id}"
    ),
    "PUT /workspaces/<id:workspace_id>/members/<id:user_id>": at(
        "PUT", "workspaces/{workspace_id}/members/{user_id}", {"role": "end-user"}
    ),
    "DELETE /workspaces/<id:workspace_id>/members/<id:user_id>": at(
        "DELETE", "workspaces/{workspace_id}/members/{user_id}"
    ),
    "GET /users": listing("users", "email", "workspaceId"),
    "POST /users": creates(
        "users",
        lambda foreign, _: NEW | {"memberships": globexs_membership(foreign)},
        lambda foreign, acme: (
            NEW
            | {"memberships": globexs_membership(foreign, more=[{"workspaceId": acme, "role": "end-user"}])}
        ),
        lambda foreign, _: {"email": MALLORY, "memberships": globexs_membership(foreign)},
    ),
    "GET /users/<id:user_id>": at("GET", "users/{user_id}"),
    "PATCH /users/<id:user_id>": at("PATCH", "users/{user_id}", {"status": "archived"}),
    "DELETE /users/<id:user_id>": at("DELETE", "users/{user_id}"),
    "GET /apps": listing("apps", "slug", "workspaceId"),
    "POST /apps": creates(
        "apps", lambda foreign, _: {"slug": "new", "name": "New", "workspaceId": foreign.ids["workspace_id"]}
    ),
    "GET /apps/<id:app_id>": at("GET", "apps/{app_id}"),
    "PATCH /apps/<id:app_id>": changes_an_app,
    "DELETE /apps/<id:app_id>": at("DELETE", "apps/{app_id}"),
    "GET /apps/<id:app_id>/grants": at("GET", "apps/{app_id}/grants"),
    "GET /apps/<id:app_id>/grants/<id:user_id>": at("GET", "apps/{app_id}/grants/{user_id}"),
    "PUT /apps/<id:app_id>/grants/<id:user_id>": at("PUT", "apps/{app_id}/grants/{user_id}"),
    "DELETE /apps/<id:app_id>/grants/<id:user_id>": at("DELETE", "apps/{app_id}/grants/{user_id}"),
    "GET /personal-access-tokens": listing(
        "personal-access-tokens", "workspaceId", "userId", "appId", "clientId"
    ),
    "DELETE /personal-access-tokens": ending("personal-access-tokens", "workspaceId", "userId", "appId"),
    "GET /personal-access-tokens/<id:token_id>": at("GET", "personal-access-tokens/{token_id}"),
    "DELETE /personal-access-tokens/<id:token_id>": at("DELETE", "personal-access-tokens/{token_id}"),
    "GET /sessions": listing("sessions", "workspaceId", "userId", "appId", "tokenId"),
    "DELETE /sessions": ending("sessions", "workspaceId", "userId", "appId", "tokenId"),
    "GET /sessions/<id:session_id>": at("GET", "sessions/{session_id}"),
    "DELETE /sessions/<id:session_id>": at("DELETE", "sessions/{session_id}"),
    "GET /events": listing("events", "workspaceId", "userId", "appId", "clientId", "tokenId", "sessionId"),
    "GET /events/export": listing(
        "events/export", "workspaceId", "userId", "appId", "clientId", "tokenId", "sessionId"
    ),
}


def test_every_route_of_the_api_has_a_case(shared: Service) -> None:
    routes = {
        f"{method} {rule.rule.removeprefix('/api/ext')}"
        for rule in shared.app.url_map.iter_rules()
        if rule.rule.startswith("/api/ext/")
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert routes == set(CASES)


def holdings(service: Service) -> list[list[tuple[Any, ...]]]:
    return [sorted(map(tuple, service.rows(select(table.__table__))), key=repr) for table in HOLDINGS]


@pytest.mark.parametrize("route", CASES)
def test_a_client_of_acme_finds_nothing_of_globex(service: Service, foreign: Foreign, route: str) -> None:
    before = holdings(service)
    for answer in CASES[route](service, foreign):
        assert answer.status_code in (200, 401, 403, 404), answer.text
        if answer.status_code == 200:
            assert route.startswith("GET "), answer.text
        text = answer.text
        leaked = {secret for secret in foreign.texts if secret in json.dumps(text)}
        assert leaked == set(), text
    assert holdings(service) == before
    seen = service.rows(select(Event.client_id, Event.workspace_id, Event.user_id, Event.app_id))
    named = [event for event in seen if event.client_id == "manager" and LEDGER in event]
    assert named == []


def test_the_cases_detect_a_leak(service: Service, foreign: Foreign) -> None:
    """A client of both workspaces does see these texts in the same answers."""
    provision(service.app, changed("clients", "manager", workspaces=["acme", "globex"], highest_role="admin"))
    provision(service.app, changed("workspaces", "acme", allowed_origins=[PORTAL]))
    for route in ("GET /users", "GET /apps", "GET /personal-access-tokens", "GET /sessions", "GET /events"):
        path = route.split("/", 1)[1]
        assert any(text in manager(service, "GET", path).text for text in foreign.texts), route
    for route, path in (
        ("GET /users/<id:user_id>", "users/{user_id}"),
        ("GET /personal-access-tokens/<id:token_id>", "personal-access-tokens/{token_id}"),
        ("GET /sessions/<id:session_id>", "sessions/{session_id}"),
    ):
        assert manager(service, "GET", path.format(**foreign.ids)).status_code == 200, route

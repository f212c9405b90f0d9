"""Calls on tokens and sessions through the test client, and three more clients of Acme.

`shop` mints, `keeper` provisions, `watcher` mints and reads the audit trail.
"""

from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import select
from werkzeug.test import TestResponse

from pat_service.credentials import Keyring
from pat_service.rules import clients
from pat_service.storage.database import Base
from tests.support.people import (
    MINT,
    MINT_BODY,
    ORDERS,
    SECRETS,
    Service,
    basic,
    make_secret,
    problem_of,
    provision,
)

TOKENS: Final = "/api/ext/personal-access-tokens"
SESSIONS: Final = "/api/ext/sessions"
INTROSPECT: Final = "/api/ext/introspect"
EXCHANGE: Final = "/api/ext/users/session"
UNKNOWN: Final = "00000000-0000-4000-8000-000000000000"
BEN: Final = "ben@acme.test"

CALLERS: Final = {"shop": ["mint", "mint:workspace"], "keeper": ["provision"], "watcher": ["mint", "audit"]}
_SECRETS: Final = SECRETS | {id_: make_secret(id_) for id_ in CALLERS}


def add_clients(service: Service) -> Service:
    """Create the clients of CALLERS."""
    callers = [
        {
            "id": id_,
            "secret": _SECRETS[id_],
            "workspaces": ["acme"],
            "scopes": scopes,
            "mint_limit": "1000 per minute",
        }
        for id_, scopes in CALLERS.items()
    ]
    provision(service.app, {"clients": callers})
    return service


def call(service: Service, method: str, path: str, client: str = "manager", **options: Any) -> TestResponse:
    headers = basic(client, _SECRETS[client]) | options.pop("headers", {})
    return service.client.open(path, method=method, headers=headers, **options)


def mint_with_header(
    service: Service, authorization: str | None, address: str = "192.0.2.1", **headers: str
) -> TestResponse:
    """Mint with this Authorization header, from this address."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    if authorization is not None:
        given["Authorization"] = authorization
    return service.client.post(
        MINT, json=MINT_BODY, headers=given, environ_overrides={"REMOTE_ADDR": address}
    )


def mint_with_secret(service: Service, secret: str, client: str = "portal", **options: Any) -> TestResponse:
    """Mint as this client with this secret."""
    return mint_with_header(service, basic(client, secret)["Authorization"], **options)


def keyring(service: Service) -> Keyring:
    found: Keyring = service.app.extensions["pat_service.keyring"]
    return found


def rotate(service: Service, at: datetime, overlap: timedelta = timedelta(0)) -> str:
    """Give the portal a new secret, and return it."""
    with service.app.app_context():
        return clients.rotate(keyring(service), "portal", at, overlap).reveal()


def fetch_json(service: Service, path: str, client: str = "manager", **query: Any) -> Any:
    """Return the JSON of a GET that must succeed."""
    answer = call(service, "GET", path, client, query_string=query)
    assert answer.status_code == 200, answer.text
    return answer.json


def list_ids(service: Service, path: str, client: str = "manager", **query: Any) -> list[str]:
    """Return the ids of a list that has one page."""
    page = fetch_json(service, path, client, **query)
    assert page["nextCursor"] is None
    ids: list[str] = [item["id"] for item in page["items"]]
    assert ids == sorted(set(ids))
    return ids


def mint(service: Service, client: str = "portal", **fields: Any) -> tuple[str, str]:
    """Return a new token and its id. `workspaceSlug` replaces the app."""
    if "workspaceSlug" in fields:
        fields |= {"appSlug": None}
    body = {key: value for key, value in (MINT_BODY | fields).items() if value is not None}
    answer = call(service, "POST", "/api/ext/users/personal-access-token", client, json=body)
    assert answer.status_code == 201, answer.text
    found: Any = answer.json
    return found["personalAccessToken"], found["tokenId"]


def open_session(service: Service, token: str, app_id: str = ORDERS) -> tuple[str, str]:
    """Open a session for a program, and return its JWT and its id."""
    answer = service.client.post(EXCHANGE, json={"appId": app_id, "accessToken": token})
    assert answer.status_code == 201, answer.text
    found: Any = answer.json
    return found["signedPat"], found["session"]["id"]


def session_code(service: Service, jwt: str, app_id: str = ORDERS) -> str:
    """Return `served`, or the code of the refusal."""
    answer = service.client.get(f"/embed-apps/{app_id}/session", headers={"Authorization": f"Bearer {jwt}"})
    code: str = "served" if answer.status_code == 200 else (answer.json or {})["code"]
    if code != "served":
        problem_of(answer, 401, code)
    return code


def id_of(service: Service, kind: Any, name: str) -> str:
    """Return the id of a workspace, app or user by its slug or email."""
    column = kind.email if hasattr(kind, "email") else kind.slug
    return str(service.rows(select(kind.id).where(column == name))[0].id)


def dump_database(service: Service, *, events: bool = True) -> dict[str, list[Any]]:
    """Return every row, without client secrets: their last use changes with each call."""
    return {
        name: sorted(map(repr, service.rows(select(table))))
        for name, table in Base.metadata.tables.items()
        if name != "client_secrets" and (events or name != "events")
    }

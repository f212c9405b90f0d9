"""A database of revision 0005 keeps its users, tokens, sessions and events, and its users get homes."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from flask import Flask
from flask_migrate import upgrade
from sqlalchemy import MetaData, insert, select
from sqlalchemy.engine import Connection

from pat_service.credentials import TOKEN_PREFIX, Keyring, SessionClaims, generate
from pat_service.rules.directory import users
from pat_service.storage.database import db
from pat_service.storage.models import ROLES, User, WorkspaceStatus, new_id
from tests.storage.test_migrations import empty, url
from tests.support.directory import KEEPERS, Directory
from tests.support.people import ORDERS, PORTAL, WORLD, Service, problem_of, provision

__all__ = ["empty", "url"]

pytestmark = pytest.mark.slow

NOW: Final = datetime.now(UTC).replace(microsecond=0)
ACME, GLOBEX, DELETED = new_id(), new_id(), new_id()
#: The roles by workspace, and the workspaces of events by type, oldest first.
PEOPLE: Final[dict[str, tuple[dict[str, str], list[tuple[str, str | None]]]]] = {
    "created": ({ACME: "end-user"}, [("user:created", ACME), ("member:added", ACME)]),
    "moved": (
        {GLOBEX: "admin"},
        [("member:added", ACME), ("member:removed", ACME), ("member:added", GLOBEX)],
    ),
    "by-command": ({GLOBEX: "end-user"}, [("user:created", None), ("member:added", GLOBEX)]),
    "without-trail": ({GLOBEX: "builder"}, []),
    "in-two": ({ACME: "builder", GLOBEX: "end-user"}, []),
    "nowhere": ({}, [("user:created", None)]),
    "orphan": ({GLOBEX: "end-user"}, [("user:created", DELETED), ("member:added", GLOBEX)]),
    "archived": ({ACME: "end-user", GLOBEX: "end-user"}, [("user:created", ACME), ("member:added", GLOBEX)]),
}
HOMES: Final = {
    "created": ACME,
    "moved": ACME,
    "by-command": GLOBEX,
    "without-trail": GLOBEX,
    "in-two": None,
    "nowhere": None,
    "orphan": None,
    "archived": ACME,
}


class Database:
    """Inserts rows into the tables of the revision that the database has."""

    def __init__(self, connection: Connection) -> None:
        self.connection, self.tables = connection, MetaData()
        self.tables.reflect(connection)

    def add(self, table: str, **row: Any) -> None:
        self.connection.execute(insert(self.tables.tables[table]), row)


def rows_of(connection: Connection, table: str, names: list[str]) -> list[tuple[Any, ...]]:
    tables = MetaData()
    tables.reflect(connection, only=[table])
    columns = [tables.tables[table].c[name] for name in names]
    return sorted((tuple(row) for row in connection.execute(select(*columns))), key=repr)


def fill(connection: Connection, keyring: Keyring) -> tuple[dict[str, str], str, str]:
    """Insert workspaces, an app, people with their trail, and a token with its session."""
    database, ids = Database(connection), {name: new_id() for name in PEOPLE}
    for id_, slug in ((ACME, "acme"), (GLOBEX, "globex")):
        database.add("workspaces", id=id_, slug=slug, name=slug, allowed_origins=[], created_at=NOW)
    app = {"id": ORDERS, "slug": "orders", "name": "Orders", "template": "orders", "workspace_id": ACME}
    database.add("apps", **app, allowed_origins=[PORTAL], moves=0, created_at=NOW)
    for name, (roles, trail) in PEOPLE.items():
        status = "archived" if name == "archived" else "active"
        user: dict[str, str] = {"id": ids[name], "email": f"{name}@acme.test", "name": name, "status": status}
        database.add("users", **user, created_at=NOW)
        for workspace_id, role in roles.items():
            assert role in ROLES
            database.add("members", workspace_id=workspace_id, user_id=ids[name], role=role)
        for number, (type_, where) in enumerate(trail):
            at = NOW + timedelta(seconds=number)
            database.add("events", at=at, type=type_, user_id=ids[name], workspace_id=where)
        database.add("grants", app_id=ORDERS, user_id=ids[name])
    secret, token_id, session_id = generate(TOKEN_PREFIX), new_id(), new_id()
    issued: dict[str, Any] = {
        "app_id": ORDERS,
        "workspace_id": ACME,
        "user_id": ids["created"],
        "client_id": "portal",
    }
    issued |= {
        "key_id": keyring.current.id,
        "moves": 0,
        "created_at": NOW,
        "expires_at": NOW + timedelta(days=1),
    }
    digest = keyring.current.digest(secret)
    database.add("tokens", id=token_id, **issued, digest=digest, session_seconds=3600, single_use=False)
    database.add("sessions", id=session_id, token_id=token_id, **issued)
    claims = SessionClaims(
        session_id=session_id,
        user_id=ids["created"],
        app_id=ORDERS,
        workspace_id=ACME,
        issued_at=NOW,
        expires_at=NOW + timedelta(days=1),
    )
    return ids, secret.reveal(), keyring.sign_session(claims)


def columns_of(connection: Connection) -> dict[str, list[str]]:
    tables = MetaData()
    tables.reflect(connection)
    return {table.name: [c.name for c in table.columns] for table in tables.sorted_tables}


def test_an_upgrade_keeps_every_row_and_fills_the_homes(empty: Flask) -> None:
    upgrade(revision="0005")
    keyring: Keyring = empty.extensions["pat_service.keyring"]
    with db.engine.connect().execution_options(writes=True) as connection, connection.begin():
        ids, secret, jwt = fill(connection, keyring)
    kept = ("users", "members", "grants", "tokens", "sessions", "events")
    with db.engine.connect() as connection:
        names = columns_of(connection)
        before = {table: rows_of(connection, table, names[table]) for table in kept}
    upgrade(revision="heads")
    with db.engine.connect() as connection:
        assert {table: rows_of(connection, table, names[table]) for table in kept} == before
        homes = dict(connection.execute(select(User.id, User.home_workspace_id)).all())
        assert {name: homes[id_] for name, id_ in ids.items()} == HOMES
        assert connection.execute(select(WorkspaceStatus)).all() == []
    assert users.count_homeless() == 3
    upgrade(revision="heads")

    # The token opens its app, and the session's requests are served.
    service = Service(empty.test_client())
    assert service.open(secret).status_code == 200
    bearer = {"Authorization": f"Bearer {jwt}"}
    assert service.client.get(f"/embed-apps/{ORDERS}/session", headers=bearer).status_code == 200

    # A client of the home reactivates the archived user; another tenant's client cannot.
    provision(empty, {"clients": WORLD["clients"]})
    provision(empty, KEEPERS)
    directory = Directory(service)
    path, active = f"users/{ids['archived']}", {"status": "active"}
    for client in ("manager", "rival"):
        assert directory.ok("GET", path, client=client)["status"] == "archived"
    problem_of(directory.call("PATCH", path, active, "rival"), 409, "conflict")
    assert directory.ok("PATCH", path, active)["status"] == "active"
    assert directory.ok("GET", path, client="rival")["status"] == "active"

    # Only a client of all workspaces has rights over a user without a home.
    problem_of(directory.call("PATCH", f"users/{ids['orphan']}", {"name": "X"}, "rival"), 409, "conflict")


def test_users_of_the_previous_release_have_no_home_until_the_operator_gives_one(empty: Flask) -> None:
    """The previous release still runs and creates users after the upgrade."""
    upgrade(revision="heads")
    with db.engine.connect().execution_options(writes=True) as connection, connection.begin():
        user = {"id": new_id(), "email": "late@acme.test", "name": "Late", "status": "active"}
        Database(connection).add("users", **user, created_at=NOW)
    assert users.count_homeless() == 1
    provision(empty, {"workspaces": [{"slug": "acme"}], "users": [{"email": user["email"], "home": "acme"}]})
    assert users.count_homeless() == 0

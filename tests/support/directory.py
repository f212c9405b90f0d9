"""Calls on the directory as a client, the ids in it, and its audit events."""

import json
from typing import Any, Final

import pytest
from sqlalchemy import select
from werkzeug.test import TestResponse

from pat_service.storage.models import Event, User, Workspace
from tests.support.people import Service, basic, changed, provision

UNKNOWN: Final = "99999999-9999-4999-8999-999999999999"
SUBJECTS: Final = ("workspace:", "user:", "member:", "app:", "grant:")
ANA: Final = "ana@acme.test"
BEN: Final = "ben@acme.test"
MALLORY: Final = "mallory@globex.test"
#: `rival` and `everywhere` may change the directory, as `manager` may.
KEEPERS: Final = {
    "clients": [
        changed("clients", name, scopes=["mint", "provision", "audit"], highest_role="admin")["clients"][0]
        for name in ("rival", "everywhere")
    ]
}


class Directory:
    """The directory for Acme's `manager`, Globex's `rival`, and `everywhere`."""

    def __init__(self, service: Service) -> None:
        self.service = service
        provision(service.app, KEEPERS)
        self.workspaces = dict(service.rows(select(Workspace.slug, Workspace.id)))
        self.users = dict(service.rows(select(User.email, User.id)))
        self._seen = self._last_event()

    @property
    def acme(self) -> str:
        return str(self.workspaces["acme"])

    @property
    def globex(self) -> str:
        return str(self.workspaces["globex"])

    def call(
        self, method: str, path: str, body: Any = None, client: str = "manager", **options: Any
    ) -> TestResponse:
        """Call a path below /api/ext. A body that is not text or bytes is sent as JSON."""
        if body is not None:
            data = body if isinstance(body, (bytes, str)) else json.dumps(body)
            options = {"data": data, "content_type": "application/json"} | options
        return self.service.client.open(f"/api/ext/{path}", method=method, headers=basic(client), **options)

    def ok(self, method: str, path: str, body: Any = None, client: str = "manager", status: int = 200) -> Any:
        """Call, check the status, and return the JSON."""
        answer = self.call(method, path, body, client)
        assert answer.status_code == status, answer.text
        assert answer.headers["Cache-Control"] == "no-store"
        return answer.json if status != 204 else None

    def items(self, path: str, client: str = "manager") -> list[Any]:
        """Return the items of every page."""
        found, cursor = [], None
        while True:
            joint = "&" if "?" in path else "?"
            page = self.ok("GET", path if cursor is None else f"{path}{joint}cursor={cursor}", client=client)
            assert set(page) == {"items", "nextCursor"}
            found += page["items"]
            cursor = page["nextCursor"]
            if cursor is None:
                return found

    def join(self, email: str, client: str, role: str = "end-user", **fields: Any) -> Any:
        """Let the client add a person to its workspace, and return the user."""
        workspace = self.globex if client == "rival" else self.acme
        body = {"email": email, "memberships": [{"workspaceId": workspace, "role": role}]} | fields
        answer = self.call("POST", "users", body, client)
        assert answer.status_code in (200, 201), answer.text
        self.users[email] = (answer.json or {})["id"]
        return answer.json

    def leave(self, email: str, client: str) -> None:
        """Let the client remove the person from its workspace."""
        workspace = self.globex if client == "rival" else self.acme
        self.ok("DELETE", f"workspaces/{workspace}/members/{self.user(email)}", None, client, 204)

    def user(self, email: str) -> str:
        return str(self.users[email])

    def take_event_facts(self) -> list[tuple[Any, ...]]:
        """Return type, client, workspace and details of each directory event since the last call."""
        return [
            (row.type, row.client_id, self._slug(row.workspace_id), row.details) for row in self.take_events()
        ]

    def take_events(self) -> list[Any]:
        rows = self.service.rows(select(Event.__table__).where(Event.id > self._seen).order_by(Event.id))
        self._seen = self._last_event()
        return [row for row in rows if row.type.startswith(SUBJECTS)]

    def _last_event(self) -> int:
        rows = self.service.rows(select(Event.id).order_by(Event.id.desc()).limit(1))
        return int(rows[0].id) if rows else 0

    def _slug(self, workspace_id: str | None) -> str | None:
        return next((slug for slug, id_ in self.workspaces.items() if id_ == workspace_id), workspace_id)


@pytest.fixture
def directory(service: Service) -> Directory:
    return Directory(service)


@pytest.fixture
def tenants(each_service: Service) -> Directory:
    """The directory on each database."""
    return Directory(each_service)

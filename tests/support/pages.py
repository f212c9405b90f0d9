"""Read the console's pages in tests, and fill a database with more rows than a page has."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from html import unescape
from html.parser import HTMLParser
from typing import Any, Final
from unittest.mock import patch

from sqlalchemy import event, insert, select
from sqlalchemy.engine import cursor

from pat_service.http.authentication import utcnow
from pat_service.storage.database import db, transaction
from pat_service.storage.models import App, Event, Grant, Member, Session, Token, User, Workspace, new_id
from tests.support.people import Service, make_secret

#: More than a page of every list.
MANY: Final = 120
#: Names that attack a page. Each is a valid name of a person, an app or a workspace.
HOSTILE: Final = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{ 7007 * 13 }}{% raw %}",
    "\u202egnp.exe\u2066",
    "' OR 1=1 --",
    "=cmd|' /C calc'!A0",
    "W" * 200,
)


class _Texts(HTMLParser):
    """Collects the texts and tags of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def read(page: str) -> str:
    """Return the text that a page shows, with single spaces."""
    parser = _Texts()
    parser.feed(page)
    return " ".join(" ".join(parser.texts).split())


def require_inert(page: str) -> None:
    """Require that a page has no script, style or handler but ours."""
    parser = _Texts()
    parser.feed(page)
    for tag, attributes in parser.tags:
        assert not [name for name in attributes if name.startswith("on") or name == "style"], (
            tag,
            attributes,
        )
        if tag in ("script", "img", "iframe", "link"):
            address = str(attributes.get("src") or attributes.get("href"))
            assert address.startswith("/static/console/"), (tag, attributes)
    assert "91091" not in page


def find_ids(page: str, name: str) -> list[str]:
    """Return the different values of a field's inputs."""
    values = re.findall(rf'name="{name}" value="([^"]*)"', page)
    return [unescape(value) for value in dict.fromkeys(values)]


@dataclass
class Read:
    """What a block of a test read from the database."""

    statements: list[str] = field(default_factory=list)
    rows: int = 0


@contextmanager
def counting(service: Service) -> Iterator[Read]:
    """Count the statements of the block, and the rows that reach the service."""
    seen = Read()
    with service.app.app_context():
        engine = db.engine

    def executes(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if not statement.startswith(("BEGIN", "PRAGMA")):
            seen.statements.append(" ".join(statement.split()))

    event.listen(engine, "before_cursor_execute", executes)
    try:
        with _counting_rows(seen):
            yield seen
    finally:
        event.remove(engine, "before_cursor_execute", executes)


@contextmanager
def _counting_rows(seen: Read) -> Iterator[None]:
    strategy = cursor.CursorFetchStrategy
    originals = {name: getattr(strategy, name) for name in ("fetchone", "fetchmany", "fetchall")}

    def wrap(name: str) -> Any:
        def fetch(self: Any, *args: Any, **options: Any) -> Any:
            found = originals[name](self, *args, **options)
            seen.rows += len(found) if isinstance(found, list) else found is not None
            return found

        return fetch

    with patch.multiple(strategy, **{name: wrap(name) for name in originals}):
        yield


def crowd(service: Service, number: int = MANY) -> None:
    """Add people, workspaces, apps, grants, tokens, sessions and events: `number` of each."""
    now = utcnow()
    with service.app.app_context(), transaction() as connection:
        acme = connection.scalar(select(Workspace.id).where(Workspace.slug == "acme"))
        for n in range(number):
            user, app, token = new_id(), new_id(), new_id()
            common = {"app_id": app, "workspace_id": acme, "user_id": user, "client_id": "portal"}
            dated = {"created_at": now, "expires_at": now + timedelta(hours=1), "moves": 0, "key_id": "k"}
            rows: list[tuple[Any, dict[str, Any]]] = [
                (
                    Workspace,
                    {"slug": f"w{user}", "name": f"W {n}", "allowed_origins": [], "created_at": now},
                ),
                (
                    User,
                    {
                        "id": user,
                        "email": f"crowd{user}@acme.test",
                        "name": f"Crowd {n}",
                        "status": "active",
                        "created_at": now,
                    },
                ),
                (Member, {"workspace_id": acme, "user_id": user, "role": "end-user"}),
                (
                    App,
                    {
                        "id": app,
                        "slug": f"crowd{app}",
                        "name": f"Crowd {n}",
                        "workspace_id": acme,
                        "template": "orders",
                        "allowed_origins": [],
                        "moves": 0,
                        "created_at": now,
                    },
                ),
                (Grant, {"app_id": app, "user_id": user}),
                (
                    Token,
                    common
                    | dated
                    | {
                        "id": token,
                        "digest": make_secret(token, 32).encode(),
                        "session_seconds": 60,
                        "single_use": False,
                    },
                ),
                (Session, common | dated | {"id": new_id(), "token_id": token}),
                (Event, common | {"type": "token:minted", "at": now, "token_id": token}),
            ]
            for table, row in rows:
                connection.execute(insert(table), row)

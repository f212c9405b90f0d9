"""An installation with the people of the tests, and queries of its database."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

import psycopg

from app import create_app
from config import Config
from pat_service.cli import upgrade_schema
from pat_service.storage.database import db
from tests.support.people import KEY, PUBLIC_URL, SECRETS, WORLD, provision
from tests.support.servers import WebServer, fresh_database, gunicorn

#: The shortened statement timeout in milliseconds. `make soak` uses the real one.
SHORT_TIMEOUTS: Final = "tests.e2e.faults.short_timeouts:create_app()"
STATEMENT_TIMEOUT: Final = os.environ.get("FAULT_STATEMENT_TIMEOUT", "1000")
#: A limit that no test reaches.
MANY: Final = "1000000 per minute"
CROWD: Final = [f"user{number}@acme.test" for number in range(5)]
#: The apps of the crowd by slug. Every user may open each.
PLACES: Final = {f"place{number}": f"00000000-0000-4000-8000-{number:012}" for number in range(4)}
PAIRS: Final = [(email, slug) for slug in PLACES for email in CROWD]

_CROWD: Final[dict[str, Any]] = {
    "users": [{"email": email, "workspaces": {"acme": "end-user"}} for email in CROWD],
    "apps": [
        {"id": id_, "slug": slug, "workspace": "acme", "template": "orders", "users": CROWD}
        for slug, id_ in PLACES.items()
    ],
    "clients": [
        {"id": name, "secret": SECRETS[name], "workspaces": reach, "scopes": scopes, "mint_limit": MANY}
        | ({"highest_role": "admin"} if "provision" in scopes else {})
        for name, reach, scopes in (
            ("portal", ["acme"], ["mint"]),
            ("manager", ["acme", "globex"], ["mint", "mint:workspace", "provision", "audit"]),
        )
    ],
}


@dataclass(frozen=True)
class Installation:
    """The settings of an installation, and direct queries of its database."""

    environ: dict[str, str]

    @property
    def on_postgres(self) -> bool:
        return self.environ["DATABASE_URL"].startswith("postgresql")

    @property
    def file(self) -> Path:
        """Return the file of the SQLite database."""
        return Path(self.environ["DATABASE_URL"].removeprefix("sqlite:///"))

    def with_(self, **environ: str) -> Self:
        return replace(self, environ=self.environ | environ)

    def serving(self, workers: int | None = None, **options: Any) -> AbstractContextManager[WebServer]:
        """Start gunicorn. The default is one worker on SQLite and two on PostgreSQL."""
        return gunicorn(self.environ, workers=workers or (2 if self.on_postgres else 1), **options)

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        if self.on_postgres:
            with psycopg.connect(self.environ["DATABASE_URL"], autocommit=True) as connection:
                return connection.execute(statement.encode()).fetchall()
        with closing(sqlite3.connect(self.file, timeout=30)) as connection:
            return connection.execute(statement).fetchall()


def installed(folder: Path, database_url: str, *more: dict[str, Any]) -> Installation:
    """Create the schema and the people, and return the installation."""
    limits = {f"{name}_RATE_LIMIT": MANY for name in ("MINT", "USER_MINT", "OPEN", "FAILURE")}
    environ = {"SECRET_KEY": KEY, "PUBLIC_URL": PUBLIC_URL, "DATABASE_URL": database_url} | limits
    app = create_app(Config.from_environment(environ, folder))
    with app.app_context():
        upgrade_schema()
    for document in (WORLD, _CROWD, *more):
        provision(app, document)
    with app.app_context():
        db.engine.dispose()
    return Installation(environ)


@contextmanager
def on_postgres(admin_url: str, folder: Path) -> Iterator[Installation]:
    """Return an installation in a new database of this server."""
    with fresh_database(admin_url) as url:
        yield installed(folder, url)

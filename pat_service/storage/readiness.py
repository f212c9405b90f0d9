"""The state of the database, the schema and Redis: for the start, the command `check` and /readyz.

A state is one word per part, never a driver's text, which may contain a password.
"""

import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, Engine, NullPool, create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from pat_service.storage.database import engine_options, parse_url

MIGRATIONS: Final = Path(__file__).parents[2] / "migrations"
#: A migration's line that names its predecessor.
_PREDECESSOR: Final = re.compile(r"""^down_revision = ["'](\w+)["']$""", re.MULTILINE)
PING_TIMEOUT_SECONDS: Final = 2

OK: Final = "ok"
UNAVAILABLE: Final = "unavailable"
READ_ONLY: Final = "read-only"
BEHIND: Final = "behind"
UNKNOWN: Final = "unknown"

#: A part and its state → a finding's text, and whether it is transient.
_TEXTS: Final = {
    ("database", UNAVAILABLE): ("DATABASE_URL names a database that does not answer", True),
    ("database", READ_ONLY): ("DATABASE_URL names a database that is read-only at present", True),
    ("schema", BEHIND): ("the schema is behind: run `flask --app app db upgrade`", False),
    ("limiter", UNAVAILABLE): ("REDIS_URL names a store that does not answer", True),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line that says what keeps the service from serving, and what to do.

    A `transient` one does not stop a start: the service answers 503 until the store is back.
    """

    text: str
    transient: bool = False


def list_findings(database_url: str, redis_url: str | None) -> list[Finding]:
    """Return what keeps a service with these stores from serving. Open new connections for it."""
    unwritable = _check_file(database_url)
    if unwritable is not None:
        return [unwritable, *_to_findings(_check_redis(redis_url))]
    return _to_findings(_connect_and_check(database_url) | _check_redis(redis_url))


def _to_findings(states: dict[str, str]) -> list[Finding]:
    return [Finding(*_TEXTS[state]) for state in states.items() if state in _TEXTS]


def _check_file(database_url: str) -> Finding | None:
    """Check that an SQLite file, and the folder for its journal, can be written."""
    url = parse_url(database_url)
    if url.get_backend_name() != "sqlite":
        return None
    file = Path(url.database or "")
    if not os.access(file.parent, os.W_OK | os.X_OK):
        return Finding(f"DATABASE_URL must name a file in a folder that can be written, not {file.parent}")
    if file.exists() and not (file.is_file() and os.access(file, os.R_OK | os.W_OK)):
        return Finding(f"DATABASE_URL must name a file that can be written, not {file}")
    return None


def _connect_and_check(database_url: str) -> dict[str, str]:
    url = parse_url(database_url)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():
        # To connect would create it.
        return {"database": OK, "schema": BEHIND}
    connect_args = engine_options(url, 1).get("connect_args", {})
    return check_database(create_engine(url, poolclass=NullPool, connect_args=connect_args))


def _check_redis(redis_url: str | None) -> dict[str, str]:
    if redis_url is None:
        return {}
    # Imported late: a service without REDIS_URL does not need it.
    import redis

    # `limits` has its own scheme for sockets.
    url = redis_url.replace("redis+unix", "unix", 1)
    try:
        timeouts = dict.fromkeys(("socket_timeout", "socket_connect_timeout"), PING_TIMEOUT_SECONDS)
        with redis.Redis.from_url(url, **timeouts) as store:
            store.ping()
    except redis.RedisError:
        return {"limiter": UNAVAILABLE}
    return {"limiter": OK}


def check_database(engine: Engine) -> dict[str, str]:
    """Return the states of `database` and `schema`."""
    try:
        with engine.connect() as connection:
            return {"database": _check_writable(connection), "schema": _check_schema(connection)}
    except SQLAlchemyError:
        return {"database": UNAVAILABLE, "schema": UNKNOWN}


def _check_writable(connection: Connection) -> str:
    """Check whether the database can be written, as far as that shows without a write."""
    if connection.dialect.name == "postgresql":
        read_only = connection.scalar(text("SELECT current_setting('transaction_read_only')"))
        return READ_ONLY if read_only == "on" else OK
    file = Path(connection.engine.url.database or "")
    return OK if os.access(file, os.W_OK) and os.access(file.parent, os.W_OK) else READ_ONLY


def _check_schema(connection: Connection) -> str:
    """Check whether the schema is as new as this code. A newer one is fine."""
    if not connection.dialect.has_table(connection, "alembic_version"):
        return BEHIND
    applied = set(connection.scalars(text("SELECT version_num FROM alembic_version")))
    return BEHIND if not applied or applied & _list_older_revisions() else OK


@cache
def _list_older_revisions() -> frozenset[str]:
    """Return all revisions but the newest.

    Read from the files, since alembic costs a worker a tenth of a second and 9 MB.
    """
    files = sorted((MIGRATIONS / "versions").glob("*.py"))
    return frozenset(name for file in files for name in _PREDECESSOR.findall(file.read_text()))

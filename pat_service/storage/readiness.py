"""Can this service do its work now? Asked before a start, by `check`, and by whoever routes traffic here.

The answers are a word for each part and never a driver's own text, which may hold a password.
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
#: Where a migration names the one that it comes after.
_BEFORE: Final = re.compile(r"""^down_revision = ["'](\w+)["']$""", re.MULTILINE)
#: How long the limiter's store may take before a start, in seconds.
PATIENCE: Final = 2

OK: Final = "ok"
AWAY: Final = "unavailable"
READ_ONLY: Final = "read-only"
BEHIND: Final = "behind"
UNKNOWN: Final = "unknown"

#: How a part is → what to say of it, and whether it may pass by itself. Then a start goes ahead: the service
#: answers 503 meanwhile, and an instance that restarts while a store is away is there when that is back.
_TEXTS: Final = {
    ("database", AWAY): ("DATABASE_URL names a database that does not answer", True),
    ("database", READ_ONLY): ("DATABASE_URL names a database that is read-only at present", True),
    ("schema", BEHIND): ("the schema is behind: run `flask --app app db upgrade`", False),
    ("limiter", AWAY): ("REDIS_URL names a store that does not answer", True),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """What keeps the service from its work, in one line that says what to do. `passing`: it may pass."""

    text: str
    passing: bool = False


def findings(database_url: str, redis_url: str | None) -> list[Finding]:
    """Return what keeps a service with these stores from its work, on connections of its own."""
    found = _unwritable(database_url)
    if found is not None:
        return [found, *_told(_ask_redis(redis_url))]
    return _told(_ask_new(database_url) | _ask_redis(redis_url))


def _told(states: dict[str, str]) -> list[Finding]:
    return [Finding(*_TEXTS[state]) for state in states.items() if state in _TEXTS]


def _unwritable(database_url: str) -> Finding | None:
    """Return what stands in the way of an SQLite file: it, and the folder for its journal, are written."""
    url = parse_url(database_url)
    if url.get_backend_name() != "sqlite":
        return None
    file = Path(url.database or "")
    if not os.access(file.parent, os.W_OK | os.X_OK):
        return Finding(f"DATABASE_URL must name a file in a folder that can be written, not {file.parent}")
    if file.exists() and not (file.is_file() and os.access(file, os.R_OK | os.W_OK)):
        return Finding(f"DATABASE_URL must name a file that can be written, not {file}")
    return None


def _ask_new(database_url: str) -> dict[str, str]:
    url = parse_url(database_url)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():
        # To ask would make it.
        return {"database": OK, "schema": BEHIND}
    connect_args = engine_options(url, 1).get("connect_args", {})
    return ask_database(create_engine(url, poolclass=NullPool, connect_args=connect_args))


def _ask_redis(redis_url: str | None) -> dict[str, str]:
    if redis_url is None:
        return {}
    # Only here: without a store nobody needs it.
    import redis

    # The limiter has a spelling of its own for sockets.
    url = redis_url.replace("redis+unix", "unix", 1)
    try:
        timeouts = {"socket_timeout": PATIENCE, "socket_connect_timeout": PATIENCE}
        with redis.Redis.from_url(url, **timeouts) as store:
            store.ping()
    except redis.RedisError:
        return {"limiter": AWAY}
    return {"limiter": OK}


def ask_database(engine: Engine) -> dict[str, str]:
    """Return how `database` and `schema` are: ok, or in which way not."""
    try:
        with engine.connect() as connection:
            return {"database": _writable(connection), "schema": _schema(connection)}
    except SQLAlchemyError:
        return {"database": AWAY, "schema": UNKNOWN}


def _writable(connection: Connection) -> str:
    """Tell whether the database can be written, as far as it can be told without writing."""
    if connection.dialect.name == "postgresql":
        read_only = connection.scalar(text("SELECT current_setting('transaction_read_only')"))
        return READ_ONLY if read_only == "on" else OK
    file = Path(connection.engine.url.database or "")
    return OK if os.access(file, os.W_OK) and os.access(file.parent, os.W_OK) else READ_ONLY


def _schema(connection: Connection) -> str:
    """Tell whether the schema has what this code needs. What a newer release has added does no harm."""
    if not connection.dialect.has_table(connection, "alembic_version"):
        return BEHIND
    applied = set(connection.scalars(text("SELECT version_num FROM alembic_version")))
    return BEHIND if not applied or applied & _older() else OK


@cache
def _older() -> frozenset[str]:
    """Return the revisions that this code has left behind: all that another comes after.

    Read from the files: alembic, which would know, takes a worker a tenth of a second and 9 MB.
    """
    files = sorted((MIGRATIONS / "versions").glob("*.py"))
    return frozenset(before for file in files for before in _BEFORE.findall(file.read_text()))

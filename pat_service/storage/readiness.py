"""The state of the database, the schema and Redis: for the start, the command `check` and /readyz.

A state is one word per part, never a driver's text, which may contain a password.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, NullPool, create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from pat_service.findings import Finding, problem
from pat_service.storage import revisions
from pat_service.storage.database import configure, engine_options, make_private, parse_url

OK: Final = "ok"
UNAVAILABLE: Final = "unavailable"
UNFIT: Final = "unfit"
READ_ONLY: Final = "read-only"
BEHIND: Final = "behind"
UNKNOWN: Final = "unknown"

START_DATABASE: Final = "Start the database, or correct DATABASE_URL. Until then every answer is 503."
_WRITABLE_FILE: Final = "Correct DATABASE_URL, or the permissions of the file and its folder."
#: A part and its state → the finding.
_FINDINGS: Final = {
    ("database", UNAVAILABLE): problem(
        "database", "DATABASE_URL names a database that does not answer", START_DATABASE, transient=True
    ),
    ("database", READ_ONLY): problem(
        "database",
        "DATABASE_URL names a database that is read-only at present",
        START_DATABASE,
        transient=True,
    ),
    ("schema", BEHIND): problem(
        "database", "the schema is behind: run `flask --app app db upgrade`", "flask --app app db upgrade"
    ),
}


def list_findings(
    database_url: str,
    redis_url: str | None,
    migrations: Mapping[str, Path],
    is_taken: Callable[[str], bool] | None = None,
) -> list[Finding]:
    """Return the findings that would stop a service with these stores. The check opens new connections.

    `migrations` are the folders of apps' migrations, by app. `is_taken` returns whether an address of a
    workspace has the console's host.
    """
    unwritable = _check_file(database_url)
    if unwritable is not None:
        return [unwritable, *_check_redis(redis_url)]
    return _connect_and_check(database_url, migrations, is_taken) + _check_redis(redis_url)


def explain(error: Exception) -> str | None:
    """Return what to change, if the database answers but cannot serve."""
    text: str | None = getattr(getattr(error, "orig", None), "unfit", None)
    return text


def _is_transient(error: Exception) -> bool:
    return bool(getattr(getattr(error, "orig", None), "transient", True))


def describe_pooler(engine: Engine) -> str | None:
    """Return a line about a pooler between this service and PostgreSQL."""
    if engine.dialect.name != "postgresql":
        return None
    with engine.connect() as connection:
        driver: Any = connection.connection.dbapi_connection
        line: str | None = driver.describe_pooler()
        return line


def _to_findings(states: dict[str, str]) -> list[Finding]:
    return [_FINDINGS[state] for state in states.items() if state in _FINDINGS]


def _check_file(database_url: str) -> Finding | None:
    """Check that an SQLite file, and the folder for its journal, can be written."""
    url = parse_url(database_url)
    if url.get_backend_name() != "sqlite":
        return None
    file = Path(url.database or "")
    if not os.access(file.parent, os.W_OK | os.X_OK):
        text = f"DATABASE_URL must name a file in a folder that can be written, not {file.parent}"
        return problem("database", text, _WRITABLE_FILE)
    if file.exists() and not (file.is_file() and os.access(file, os.R_OK | os.W_OK)):
        text = f"DATABASE_URL must name a file that can be written, not {file}"
        return problem("database", text, _WRITABLE_FILE)
    return None


def _connect_and_check(
    database_url: str, migrations: Mapping[str, Path], is_taken: Callable[[str], bool] | None
) -> list[Finding]:
    url = parse_url(database_url)
    if url.get_backend_name() == "sqlite":
        file = Path(url.database or "")
        if not file.exists():
            # Connecting would create the missing file.
            return _to_findings({"schema": BEHIND})
        make_private(file)
        connect_args = engine_options(url, 1)["connect_args"]
        engine = create_engine(url, poolclass=NullPool, connect_args=connect_args)
        return _check(engine, migrations, is_taken)
    engine = create_engine(url, poolclass=NullPool)
    configure(engine)
    try:
        with engine.connect():
            return _check(engine, migrations, is_taken)
    except SQLAlchemyError as error:
        if text := explain(error):
            return [problem("database", text, text, transient=_is_transient(error))]
        return _to_findings({"database": UNAVAILABLE})


def _check(
    engine: Engine, migrations: Mapping[str, Path], is_taken: Callable[[str], bool] | None
) -> list[Finding]:
    found = _to_findings(check_database(engine, migrations))
    if found or is_taken is None:
        return found
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT slug, apps_url FROM workspaces WHERE apps_url IS NOT NULL"))
        return [
            problem(
                "console",
                f"CONSOLE_URL must not be a host of frames, but workspace {slug} has {apps_url}",
                "Give the console another host, or the workspace another address.",
            )
            for slug, apps_url in rows
            if is_taken(apps_url)
        ]


def _check_redis(redis_url: str | None) -> list[Finding]:
    if redis_url is None:
        return []
    # Imported late: a service without REDIS_URL does not need it.
    from pat_service.storage import redis_check

    state = redis_check.check_url(redis_url)
    return [redis_check.FINDINGS[state]] if state != OK else []


def check_database(engine: Engine, migrations: Mapping[str, Path]) -> dict[str, str]:
    """Return the states of `database` and `schema`."""
    try:
        with engine.connect() as connection:
            return {"database": _check_writable(connection), "schema": _check_schema(connection, migrations)}
    except SQLAlchemyError as error:
        unfit = explain(error) is not None and not _is_transient(error)
        return {"database": UNFIT if unfit else UNAVAILABLE, "schema": UNKNOWN}


def _check_writable(connection: Connection) -> str:
    """Check without a write whether the database seems writable."""
    if connection.dialect.name == "postgresql":
        read_only = connection.scalar(text("SELECT current_setting('transaction_read_only')"))
        return READ_ONLY if read_only == "on" else OK
    file = Path(connection.engine.url.database or "")
    return OK if os.access(file, os.W_OK) and os.access(file.parent, os.W_OK) else READ_ONLY


def _check_schema(connection: Connection, migrations: Mapping[str, Path]) -> str:
    """Check whether each of this code's newest migrations was applied. A newer schema is fine."""
    if not connection.dialect.has_table(connection, "alembic_version"):
        return BEHIND
    applied = _list_applied(connection)
    behind = any(branch.is_behind(applied) for branch in revisions.read_branches(migrations))
    return BEHIND if behind or not applied else OK


def list_gone_revisions(engine: Engine, migrations: Mapping[str, Path]) -> list[str]:
    """Return the database's revisions whose app is gone."""
    with engine.connect() as connection:
        return revisions.list_gone(_list_applied(connection), revisions.read_branches(migrations))


def _list_applied(connection: Connection) -> set[str]:
    return set(connection.scalars(text("SELECT version_num FROM alembic_version")))

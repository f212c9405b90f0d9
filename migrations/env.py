"""How a migration runs: on the app's own engine, all or nothing, one process at a time."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from alembic import context
from click import ClickException
from flask import current_app
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from pat_service.database import UtcDateTime, db

#: Any number will do, as long as every release of this service takes the same.
MIGRATION_LOCK = 7_226_110


def render_item(kind: str, thing: Any, _autogen: Any) -> str | bool:
    """Write our types as SQLAlchemy's own: a migration must not change when our code does."""
    if kind == "type" and isinstance(thing, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    return False


def skip_empty(_context: Any, _revision: Any, directives: list[Any]) -> None:
    """Make no migration where nothing has changed."""
    if getattr(context.config.cmd_opts, "autogenerate", False) and directives[0].upgrade_ops.is_empty():
        directives.clear()


@contextmanager
def without_cascades(connection: Connection) -> Iterator[None]:
    """Let SQLite change a table by making a new one: to drop the old would delete what refers to it.

    This is the procedure of its manual. The pragma counts outside a transaction alone.
    """
    driver: Any = connection.connection.dbapi_connection
    driver.execute("PRAGMA foreign_keys = OFF")
    try:
        with connection.begin():
            yield
            broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
            if broken:
                raise RuntimeError(f"the migration would break references: {broken[:5]}")
    finally:
        driver.execute("PRAGMA foreign_keys = ON")


def connect() -> Connection:
    """Connect, or say in a line why not: the driver's first line tells it, and has no password."""
    try:
        return db.engine.connect().execution_options(writes=True)
    except OperationalError as error:
        why = str(error.orig).splitlines()[0]
        raise ClickException(f"The database does not answer: {why}") from None


def run() -> None:
    options = current_app.extensions["migrate"].configure_args
    with connect() as connection, ExitStack() as stack:
        sqlite = connection.dialect.name == "sqlite"
        stack.enter_context(without_cascades(connection) if sqlite else connection.begin())
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
        context.configure(
            connection=connection,
            target_metadata=db.metadata,
            transactional_ddl=True,
            render_item=render_item,
            process_revision_directives=skip_empty,
            **options,
        )
        with context.begin_transaction():
            context.run_migrations()


run()

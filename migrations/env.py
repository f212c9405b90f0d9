"""How a migration runs: on the app's own engine, all or nothing, one process at a time."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from alembic import context
from flask import current_app
from sqlalchemy import Connection, text

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


def take_time(connection: Connection) -> None:
    """Lift, for this transaction, the bounds that the statements of requests have: a table may be large."""
    driver: Any = connection.connection.dbapi_connection
    driver.patience = None
    for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
        connection.execute(text(f"SET LOCAL {name} = 0"))


def run() -> None:
    options = current_app.extensions["migrate"].configure_args
    with db.engine.connect().execution_options(writes=True) as connection, ExitStack() as stack:
        sqlite = connection.dialect.name == "sqlite"
        stack.enter_context(without_cascades(connection) if sqlite else connection.begin())
        if connection.dialect.name == "postgresql":
            take_time(connection)
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
            # For a lock of a table it waits no longer than requests do, who would have to wait behind it.
            connection.execute(text("SET LOCAL lock_timeout TO DEFAULT"))
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

"""How a migration runs: on the app's own engine, all or nothing, one process at a time."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from alembic import context
from click import ClickException
from flask import current_app
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from pat_service.storage.database import UtcDateTime, db

#: How long a migration may queue for a table, in milliseconds: whoever comes behind it waits as long. Then
#: it fails, changes nothing, and can be tried again. Shorter than PostgreSQL's deadlock_timeout (1 s), so
#: that it is never a request that is ended for the two to go on.
LOCK_TIMEOUT = 500
#: How often to ask whether another process is done, in seconds.
LOCK_POLL = 0.2
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


@contextmanager
def one_at_a_time(connection: Connection) -> Iterator[None]:
    """Let nobody else migrate this PostgreSQL meanwhile, and take all the time, but for locks."""
    # A session of its own, since a migration that makes an index beside traffic commits on the way.
    with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as keeper:
        for session, patience in ((keeper, 0), (connection, LOCK_TIMEOUT)):
            driver: Any = session.connection.dbapi_connection
            driver.reply_timeout_seconds = None
            session.execute(text("SET statement_timeout = 0"))
            session.execute(text("SET idle_in_transaction_session_timeout = 0"))
            session.execute(text(f"SET lock_timeout = {patience}"))
        connection.commit()
        # Asked again and again: who waits in a statement is waited for by an index made beside traffic.
        while not keeper.scalar(text("SELECT pg_try_advisory_lock(:lock)"), {"lock": MIGRATION_LOCK}):
            time.sleep(LOCK_POLL)
        try:
            yield
        finally:
            # Not back to the pool with settings like these; and the lock goes when its session does.
            connection.invalidate()
            keeper.invalidate()


def run() -> None:
    options = current_app.extensions["migrate"].configure_args
    with connect() as connection, ExitStack() as stack:
        sqlite = connection.dialect.name == "sqlite"
        stack.enter_context(without_cascades(connection) if sqlite else one_at_a_time(connection))
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

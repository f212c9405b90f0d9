"""Run migrations on the app's engine, all or nothing, in one process at a time."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from alembic import context
from click import ClickException
from flask import current_app
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from pat_service.storage import revisions
from pat_service.storage.database import Model, UtcDateTime, db
from pat_service.storage.readiness import explain

#: Limit of a migration's wait for a table, since requests queue behind it. After that time the migration
#: fails without a change, and can be repeated. The limit is below PostgreSQL's deadlock_timeout (1 s), so a
#: deadlock never ends a request.
LOCK_TIMEOUT_MS = 500
#: Seconds between two attempts to get the lock.
LOCK_POLL_SECONDS = 0.2
#: An arbitrary number, the same in every release.
MIGRATION_LOCK = 7_226_110


def render_item(kind: str, thing: Any, _autogen: Any) -> str | bool:
    """Write our types as SQLAlchemy's, so that a migration does not depend on our code."""
    if kind == "type" and isinstance(thing, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    return False


def include_object(thing: Any, name: str | None, kind: str, reflected: bool, _other: Any) -> bool:
    """Write a migration for the tables of one branch. Ignore tables that no code declares."""
    return kind != "table" or (not reflected and context.config.attributes.get("app") in owners_of(name))


def owners_of(table: str | None) -> set[str | None]:
    """Return the app that declares a `Model` of this table, or None for the service."""
    owners: set[str | None] = set()
    for mapper in Model.registry.mappers:
        if mapper.local_table.name == table:
            package, _, rest = mapper.class_.__module__.partition(".")
            owners.add(rest.partition(".")[0] if package == "apps" else None)
    return owners


def skip_empty(_context: Any, _revision: Any, directives: list[Any]) -> None:
    """Create no migration if nothing has changed."""
    if getattr(context.config.cmd_opts, "autogenerate", False) and directives[0].upgrade_ops.is_empty():
        directives.clear()


@contextmanager
def without_cascades(connection: Connection) -> Iterator[None]:
    """Let SQLite replace a table without deleting the rows that reference it.

    This is the procedure of SQLite's manual. The pragma works only outside a transaction.
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
    """Return a connection. Raise ClickException with the driver's first line, which contains no password."""
    try:
        return db.engine.connect().execution_options(writes=True)
    except OperationalError as error:
        reason = str(error.orig).splitlines()[0]
        raise ClickException(explain(error) or f"The database does not answer: {reason}") from None


@contextmanager
def one_at_a_time(connection: Connection) -> Iterator[None]:
    """Migrate this PostgreSQL in one process at a time. Lift all time limits except the one for locks."""
    # The lock has its own transaction, since CREATE INDEX CONCURRENTLY commits the migration's.
    with db.engine.connect().execution_options(writes=True) as keeper:
        for session, lock_timeout_ms in ((keeper, 0), (connection, LOCK_TIMEOUT_MS)):
            driver: Any = session.connection.dbapi_connection
            driver.lift_limits(lock_timeout_ms)
        keeper.begin()
        # CREATE INDEX CONCURRENTLY waits for sessions with a running statement or a snapshot. So the lock is
        # polled, and not by a prepared statement, which keeps its snapshot.
        lock: Any = keeper.connection.dbapi_connection
        while not lock.execute(
            f"SELECT pg_try_advisory_xact_lock({MIGRATION_LOCK})", prepare=False
        ).fetchone()[0]:
            time.sleep(LOCK_POLL_SECONDS)
        try:
            yield
        finally:
            # These settings must not return to the pool. The lock ends with its session.
            connection.invalidate()
            keeper.invalidate()


def restore_lock_timeout(ctx: Any, **_: Any) -> None:
    """Limit the waits of the next migration again: one that builds an index lifts the limit."""
    if ctx.opts["has_session"]:
        ctx.connection.execute(text(f"SET lock_timeout = {LOCK_TIMEOUT_MS}"))


def with_branches(plan: Any) -> Any:
    """Return a plan of steps that runs the service's migrations first, and ignores apps that are gone."""
    branches = context.config.attributes["branches"]
    ours = branches[0].predecessors

    def plan_all(heads: Any, ctx: Any) -> list[Any]:
        gone = revisions.list_gone(set(heads), branches)
        steps = list(plan(tuple(head for head in heads if head not in gone), ctx))
        if not all(hasattr(step, "revision") for step in steps):
            return steps
        # Branches are independent, so that each order of them is valid. A downgrade ends with the service.
        return sorted(steps, key=lambda step: (step.revision.revision in ours) != step.is_upgrade)

    return plan_all


def run() -> None:
    options = current_app.extensions["migrate"].configure_args
    with connect() as connection, ExitStack() as stack:
        sqlite = connection.dialect.name == "sqlite"
        stack.enter_context(without_cascades(connection) if sqlite else one_at_a_time(connection))
        settings = options | {
            "connection": connection,
            "target_metadata": db.metadata,
            "transactional_ddl": True,
            "render_item": render_item,
            "process_revision_directives": skip_empty,
            "on_version_apply": restore_lock_timeout,
            # Behind a pooler, SET would change a session that others use. Each transaction begins with the
            # limit, and a statement outside of a transaction has none.
            "has_session": not sqlite and connection.connection.dbapi_connection.has_settings,  # type: ignore[union-attr]
            "include_object": include_object,
        }
        context.configure(**settings)
        # The command's own plan is known only now.
        context.configure(**settings, fn=with_branches(context.get_context().opts["fn"]))
        with context.begin_transaction():
            context.run_migrations()


run()

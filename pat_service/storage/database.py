"""The database: engine settings of SQLite and PostgreSQL, transactions, and times in UTC.

Rules use `reading()` and `transaction()` with SQLAlchemy Core statements that are built once, at
import. Code outside this package works on both databases.
"""

import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import Connection, DateTime, Dialect, Engine, MetaData, Row, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, InvalidatePoolError, InvalidRequestError
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.pool import PoolProxiedConnection
from sqlalchemy.types import TypeDecorator

from pat_service.errors import Unavailable

#: Limit of a statement's run and of its wait for a lock. After it, the caller gets a 503.
STATEMENT_TIMEOUT_MS: Final = 5000

#: The mode of an SQLite file, and the bits of all other users. SQLite creates journals with the file's mode.
PRIVATE: Final = 0o600
OTHERS: Final = 0o077
JOURNALS: Final = ("-wal", "-shm", "-journal")
#: Page cache of one SQLite connection.
SQLITE_CACHE_KIB: Final = 8192
#: After a shorter wait for the writer, reducing SQLite's own wait is not worth a PRAGMA.
NOTICEABLE_WAIT_MS: Final = 500

# Stable constraint names: migrations on both databases refer to them.
NAMING: Final = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class UrlError(ValueError):
    """DATABASE_URL cannot be used. The text continues "DATABASE_URL …", and contains no secret."""


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING)


db = SQLAlchemy(model_class=Base, disable_autonaming=True)
if TYPE_CHECKING:
    Model = Base
else:
    Model = db.Model

AnyRow = Row[*tuple[Any, ...]]
Result = TypeVar("Result")

_inserts: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}

# Threads queue here, since SQLite's own wait for its one writer sleeps and is unfair.
_sqlite_writers = threading.Lock()


class UtcDateTime(TypeDecorator[datetime]):
    """A moment, timezone-aware and in UTC on both databases. Raise ValueError for a naive datetime."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a datetime must have a time zone")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def parse_url(text: str) -> URL:
    """Return the URL with its driver. `postgres://` and `postgresql://` both mean psycopg 3.

    Raise UrlError for other databases than SQLite and PostgreSQL, and for unknown parameters.
    """
    if text.startswith("postgres"):
        # Imported late, here and below: SQLite needs no PostgreSQL driver.
        from pat_service.storage import postgres_url

        return postgres_url.parse(text)
    with suppress(ArgumentError):
        url = make_url(text)
        if url.get_backend_name() == "sqlite":
            return url.set(drivername="sqlite")
    raise UrlError("must be a sqlite:/// or postgresql:// URL")


def engine_options(url: URL, threads: int) -> dict[str, Any]:
    """Return SQLAlchemy's engine options for this database, with a connection for each thread."""
    common = {
        "pool_size": threads,
        # Error texts must not repeat a statement's parameters.
        "hide_parameters": True,
        # Named parameters on both databases, for statements that `prepared` executes on the driver.
        "paramstyle": "named" if url.get_backend_name() == "sqlite" else "pyformat",
        # Each user of a connection ends its own transaction.
        "pool_reset_on_return": None,
        # On SQLite the connection used last has a warm cache. On PostgreSQL the others may idle.
        "pool_use_lifo": True,
    }
    if url.get_backend_name() == "sqlite":
        return common | {"connect_args": {"timeout": STATEMENT_TIMEOUT_MS / 1000}}
    return common | {
        "max_overflow": 2,
        "pool_timeout": STATEMENT_TIMEOUT_MS / 1000,
        # A single statement is its own transaction, in one round trip; `began` begins longer ones.
        "isolation_level": "AUTOCOMMIT",
    }


def configure(engine: Engine) -> None:
    """Set the start of transactions and each connection's settings, which engine options cannot do."""
    if engine.dialect.name == "sqlite":
        _configure_sqlite(engine)
    else:
        _configure_postgresql(engine)


def _configure_postgresql(engine: Engine) -> None:
    from pat_service.storage import postgres

    postgres.limit_waits(engine, STATEMENT_TIMEOUT_MS)

    @event.listens_for(engine, "begin")
    def began(connection: Connection) -> None:
        options = connection.get_execution_options()
        # CREATE INDEX CONCURRENTLY cannot run in a transaction.
        if options.get("writes") and options.get("isolation_level") != "AUTOCOMMIT":
            driver: Any = connection.connection.dbapi_connection
            for statement in driver.begin:
                connection.exec_driver_sql(statement)

    @event.listens_for(engine, "checkout")
    def checked_out(connection: Any, _record: Any, _proxy: Any) -> None:
        # If the socket is readable before any query, the server has closed it. The pool then opens new ones.
        if connection.closed:
            raise InvalidatePoolError
        poller = select.poll()
        poller.register(connection.pgconn.socket, select.POLLIN)
        if poller.poll(0):
            connection.close()
            raise InvalidatePoolError


def make_private(file: Path) -> None:
    """Let only the owner read an SQLite file and its journals. Other users' files stay as they are."""
    file = file.resolve()
    for part in (file, *(file.with_name(file.name + suffix) for suffix in JOURNALS)):
        with suppress(OSError):
            if part.stat().st_mode & OTHERS:
                part.chmod(PRIVATE)


def _configure_sqlite(engine: Engine) -> None:
    """Make SQLite durable and private, with one writer and many readers."""
    file = Path(engine.url.database or "")

    @event.listens_for(engine, "do_connect")
    def connecting(*_: Any) -> None:
        # SQLite would create a file that every user can read.
        with suppress(OSError):
            os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, PRIVATE))
        make_private(file)

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _record: Any) -> None:
        # `began` begins transactions; the driver would choose other moments.
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout = {STATEMENT_TIMEOUT_MS}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute(f"PRAGMA cache_size = -{SQLITE_CACHE_KIB}")

    @event.listens_for(engine, "begin")
    def began(connection: Connection) -> None:
        # A deferred transaction fails at its first write if another one writes.
        writes = connection.get_execution_options().get("writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _open(connect: Callable[[], Result]) -> Result:
    try:
        return connect()
    except InvalidRequestError:
        # The pool gives up when the server ends each new connection at once.
        raise Unavailable from None


_thread = threading.local()


def check_out_connection(engine: Engine) -> PoolProxiedConnection:
    """Return this thread's driver connection; it stays checked out until `check_in_connection`."""
    connection: PoolProxiedConnection | None = getattr(_thread, "connection", None)
    if connection is None or _thread.engine is not engine:
        check_in_connection()
        connection = _thread.connection = _open(engine.raw_connection)
        _thread.engine, _thread.pool = engine, engine.pool
    return connection


def check_in_connection(_error: BaseException | None = None) -> None:
    """Return this thread's connection to its pool, if it has one. Every request ends with this."""
    connection: PoolProxiedConnection | None = getattr(_thread, "connection", None)
    if connection is not None:
        _thread.connection = None
        if _thread.engine.pool is not _thread.pool:
            # A disposed pool would keep the connection open without a user.
            connection.invalidate()
        connection.close()


@contextmanager
def reading() -> Iterator[Connection]:
    """Yield a connection that sees one state of the database. Its changes are rolled back."""
    check_in_connection()
    with _open(db.engine.connect) as connection:
        yield connection


@contextmanager
def transaction() -> Iterator[Connection]:
    """Yield a connection. Commit its work at the end, or roll it back on an exception.

    A thread has one transaction at a time. Raise Unavailable if SQLite's writer is busy for too long.
    """
    engine = db.engine
    check_in_connection()
    with write_lock(engine) as waited_ms, _open(engine.connect) as connection:
        connection = connection.execution_options(writes=True)
        driver: Any = connection.connection.dbapi_connection
        try:
            with reduced_timeout(driver, waited_ms), connection.begin():
                yield connection
        except IntegrityError:
            # SQLite keeps the transaction open if its COMMIT violates a deferred constraint.
            driver.rollback()
            raise


@contextmanager
def write_lock(engine: Engine) -> Iterator[int]:
    """Acquire the process's writer lock on SQLite; yield the milliseconds waited, 0 on PostgreSQL.

    Raise Unavailable after `STATEMENT_TIMEOUT_MS`.
    """
    if engine.dialect.name != "sqlite":
        yield 0
        return
    started = time.monotonic()
    if not _sqlite_writers.acquire(timeout=STATEMENT_TIMEOUT_MS / 1000):
        raise Unavailable
    try:
        yield int((time.monotonic() - started) * 1000)
    finally:
        _sqlite_writers.release()


@contextmanager
def reduced_timeout(driver: Any, waited_ms: int) -> Iterator[None]:
    """Subtract the wait for `write_lock` from SQLite's wait for another process."""
    if waited_ms < NOTICEABLE_WAIT_MS:
        yield
        return
    driver.execute(f"PRAGMA busy_timeout = {max(1, STATEMENT_TIMEOUT_MS - waited_ms)}")
    try:
        yield
    finally:
        driver.execute(f"PRAGMA busy_timeout = {STATEMENT_TIMEOUT_MS}")


def add(connection: Connection, table: type[Base], row: dict[str, Any]) -> bool:
    """Insert the row unless one of its keys exists; return whether it was inserted.

    Concurrent inserts of one key run one after the other. The later one finds the first one's row.
    """
    statement = _inserts[connection.dialect.name](table).on_conflict_do_nothing()
    # SQLAlchemy has no rowcount for an INSERT on PostgreSQL.
    inserted = connection.execute(statement.returning(*table.__table__.primary_key), row)
    return inserted.first() is not None

"""The database: engine settings of SQLite and PostgreSQL, transactions, and times in UTC.

Rules use `reading()` and `transaction()` with SQLAlchemy Core statements that are built once, at
import. Nothing here or above is written for one of the two databases alone.
"""

import select
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import Connection, DateTime, Dialect, Engine, MetaData, Row, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import InvalidatePoolError, InvalidRequestError
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.pool import PoolProxiedConnection
from sqlalchemy.types import TypeDecorator

from pat_service.errors import Unavailable

#: How long one statement may wait for a lock or run, in milliseconds, before the caller gets a 503.
STATEMENT_TIMEOUT_MS: Final = 5000

#: What one connection to SQLite remembers of a large file, in KiB.
SQLITE_CACHE: Final = 8192
#: A wait that is shorter, in milliseconds, is not taken off the time that the next may take.
NOTICEABLE: Final = 500

# Stable constraint names: migrations on both databases refer to them.
NAMING: Final = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


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

# SQLite's own wait for its one writer sleeps and is not fair; threads of a process queue here instead.
_sqlite_writers = threading.Lock()


class UtcDateTime(TypeDecorator[datetime]):
    """A moment, always timezone-aware and in UTC, on databases that know time zones and those that don't."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a naive datetime is no moment")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def parse_url(text: str) -> URL:
    """Return the URL with its driver. `postgres://` and `postgresql://` both mean psycopg 3.

    Raise ValueError for anything but SQLite and PostgreSQL.
    """
    url = make_url(text)
    if url.get_backend_name() in ("postgres", "postgresql"):
        return url.set(drivername="postgresql+psycopg")
    if url.get_backend_name() == "sqlite":
        return url.set(drivername="sqlite")
    raise ValueError("neither SQLite nor PostgreSQL")


def engine_options(url: URL, threads: int) -> dict[str, Any]:
    """Return SQLAlchemy's engine options for this database, with a connection for each thread."""
    common = {
        "pool_size": threads,
        # An error's text would repeat what the statement was given.
        "hide_parameters": True,
        # By name on both databases, for statements that are executed without SQLAlchemy (`prepared`).
        "paramstyle": "named" if url.get_backend_name() == "sqlite" else "pyformat",
        # What borrows a connection ends its transaction itself.
        "pool_reset_on_return": None,
        # The one that was used last: SQLite has what it read at hand, and PostgreSQL's others may idle.
        "pool_use_lifo": True,
    }
    if url.get_backend_name() == "sqlite":
        return common | {"connect_args": {"timeout": STATEMENT_TIMEOUT_MS / 1000}}
    # Only here, and below: on SQLite nobody needs the other driver.
    from pat_service.storage import postgres

    return common | {
        "max_overflow": 2,
        "pool_timeout": STATEMENT_TIMEOUT_MS / 1000,
        # A statement by itself is a transaction, in one round trip; `began` begins those of several.
        "isolation_level": "AUTOCOMMIT",
        "connect_args": postgres.connect_args(STATEMENT_TIMEOUT_MS),
    }


def configure(engine: Engine) -> None:
    """Give the engine what its options cannot: how transactions begin, and what a connection is set to."""
    if engine.dialect.name == "sqlite":
        _configure_sqlite(engine)
    else:
        _configure_postgresql(engine)


def _configure_postgresql(engine: Engine) -> None:
    from pat_service.storage import postgres

    postgres.make_impatient(engine, STATEMENT_TIMEOUT_MS)

    @event.listens_for(engine, "begin")
    def began(connection: Connection) -> None:
        options = connection.get_execution_options()
        # What asks for no transaction gets none: an index that is made beside traffic.
        if options.get("writes") and options.get("isolation_level") != "AUTOCOMMIT":
            connection.exec_driver_sql("BEGIN")

    @event.listens_for(engine, "checkout")
    def checked_out(connection: Any, _record: Any, _proxy: Any) -> None:
        # A server that went away has closed its end: seen without a word to it. The pool then opens others.
        if connection.closed:
            raise InvalidatePoolError
        waiting = select.poll()
        waiting.register(connection.pgconn.socket, select.POLLIN)
        if waiting.poll(0):
            connection.close()
            raise InvalidatePoolError


def _configure_sqlite(engine: Engine) -> None:
    """Make it a durable store with one writer and many readers."""

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _record: Any) -> None:
        # The driver would begin transactions at moments of its own choice; `began` does it instead.
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout = {STATEMENT_TIMEOUT_MS}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute(f"PRAGMA cache_size = -{SQLITE_CACHE}")

    @event.listens_for(engine, "begin")
    def began(connection: Connection) -> None:
        # A deferred transaction that turns to writing fails at once when another writes.
        writes = connection.get_execution_options().get("writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _open(connect: Callable[[], Result]) -> Result:
    try:
        return connect()
    except InvalidRequestError:
        # The pool gives up on connections that the server ends as soon as they are there.
        raise Unavailable from None


_held = threading.local()


def hold(engine: Engine) -> PoolProxiedConnection:
    """Return the driver's connection that this thread holds until the request at work ends, or `let_go`."""
    held: PoolProxiedConnection | None = getattr(_held, "connection", None)
    if held is None or _held.engine is not engine:
        let_go()
        held = _held.connection = _open(engine.raw_connection)
        _held.engine, _held.pool = engine, engine.pool
    return held


def let_go(_error: BaseException | None = None) -> None:
    """Give back the connection that this thread holds, if any."""
    held: PoolProxiedConnection | None = getattr(_held, "connection", None)
    if held is not None:
        _held.connection = None
        if _held.engine.pool is not _held.pool:
            # That pool was disposed of meanwhile, and would keep it for nobody.
            held.invalidate()
        held.close()


@contextmanager
def reading() -> Iterator[Connection]:
    """Yield a connection that sees one state of the database. Nothing done with it is kept."""
    let_go()
    with _open(db.engine.connect) as connection:
        yield connection


@contextmanager
def transaction() -> Iterator[Connection]:
    """Yield a connection whose work is committed together at the end, or not at all on an exception.

    One at a time in a thread. Raise Unavailable where SQLite's writer is busy for too long.
    """
    engine = db.engine
    let_go()
    with writers_turn(engine) as waited, _open(engine.connect) as connection:
        connection = connection.execution_options(writes=True)
        with less_patient(connection.connection.dbapi_connection, waited), connection.begin():
            yield connection


@contextmanager
def writers_turn(engine: Engine) -> Iterator[int]:
    """Wait for the turn to write, on SQLite one at a time, and yield how many milliseconds that took.

    Raise Unavailable where it takes too long.
    """
    if engine.dialect.name != "sqlite":
        yield 0
        return
    begun = time.monotonic()
    if not _sqlite_writers.acquire(timeout=STATEMENT_TIMEOUT_MS / 1000):
        raise Unavailable
    waited = int((time.monotonic() - begun) * 1000)
    try:
        yield waited
    finally:
        _sqlite_writers.release()


@contextmanager
def less_patient(driver: Any, waited: int) -> Iterator[None]:
    """Let SQLite wait for another process only as long as the wait in this one has left over."""
    if waited < NOTICEABLE:
        yield
        return
    driver.execute(f"PRAGMA busy_timeout = {max(1, STATEMENT_TIMEOUT_MS - waited)}")
    try:
        yield
    finally:
        driver.execute(f"PRAGMA busy_timeout = {STATEMENT_TIMEOUT_MS}")


def add(connection: Connection, table: type[Base], row: dict[str, Any]) -> bool:
    """Insert the row unless there is one with a key of it; tell whether it was inserted.

    Racing insertions of one key follow each other: the later one finds what the first has made.
    """
    statement = _inserts[connection.dialect.name](table).on_conflict_do_nothing()
    # Not its rowcount: SQLAlchemy keeps none of an INSERT on PostgreSQL.
    inserted = connection.execute(statement.returning(*table.__table__.primary_key), row)
    return inserted.first() is not None

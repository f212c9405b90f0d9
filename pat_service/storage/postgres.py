"""Connections to PostgreSQL, direct or through a pooler, with a limit for every wait.

The server ends statements, lock waits and idle transactions that take too long. Only this side can notice
that the server, or the network to it, no longer answers.

A session gets its settings with its start-up packet. A pooler may refuse or drop them, and may give each
transaction another session. Then each writing transaction sets them for itself, and nothing is prepared.
"""

import os
import re
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import psycopg
from psycopg.errors import (
    ConnectionTimeout,
    Error,
    OperationalError,
    ProgrammingError,
    ReadOnlySqlTransaction,
    _WaitTimeout,
)
from sqlalchemy import Engine, event

from pat_service.storage.circuit_breaker import CircuitBreaker
from pat_service.storage.postgres_url import PGBOUNCER, PREPARE_THRESHOLD

CONNECT_TIMEOUT_SECONDS: Final = 3
#: Seconds to wait for a reply beyond `statement_timeout`.
REPLY_GRACE_SECONDS: Final = 1
#: Executions of a statement before the driver prepares it, unless DATABASE_URL says otherwise.
EXECUTIONS_BEFORE_PREPARE: Final = 5

#: Settings of a session, in addition to its time limits. Spaces are escaped for libpq's `options`.
_SETTINGS: Final = {
    "DateStyle": "ISO",
    "TimeZone": "UTC",
    "default_transaction_isolation": r"read\ committed",
}
#: The name of a setting in `options`: `-c name=value` or `--name=value`.
_OPTION: Final = re.compile(r"(?:-c\s*|--)([\w.-]+)=")
#: A wrong value of a parameter, in libpq's words.
_INVALID: Final = re.compile(r"(?:invalid|bad) (?:\w+ )?value.*")
#: The reason why the server, or libpq after its answer, refuses a connection: a password, a name, TLS.
_REFUSAL: Final = re.compile(
    r"FATAL:\s+(.*)|failed: ((?:server does not support|channel binding|SSL|root certificate|certificate).*)"
)
#: Sources in pg_settings of a setting that came with this connection.
_SOURCES: Final = ("client", "session")
_PROBE: Final = """
SELECT pg_backend_pid(), lower(name), setting, source FROM pg_settings WHERE lower(name) = ANY(%s)
"""

Result = TypeVar("Result")


class UnfitDatabase(OperationalError):
    """The database answers, but cannot serve. `unfit` says what to change, and contains no secret.

    If the state is `transient`, it may pass without a change.
    """

    def __init__(self, text: str, *, transient: bool = False) -> None:
        super().__init__(text)
        self.unfit, self.transient = text, transient


def _begin_with(limits: Mapping[str, int]) -> tuple[str, ...]:
    settings = ", ".join(f"set_config('{name}', '{value}', true)" for name, value in limits.items())
    return "BEGIN ISOLATION LEVEL READ COMMITTED", f"SELECT {settings}"


class TimeoutConnection(psycopg.Connection[Any]):
    """Closes itself if the server times out or has become read-only.

    A read-only server is a former primary, and a new connection reaches the new primary.
    """

    #: None: no limit.
    reply_timeout_seconds: float | None = None
    breaker: CircuitBreaker | None = None
    #: Whether this connection is to one session of the server, and not to a pooler.
    has_session = True
    #: Whether the session has our settings. If not, each writing transaction sets them.
    has_settings = True
    #: The statements that begin a writing transaction.
    begin: tuple[str, ...] = ("BEGIN",)

    def wait(
        self, gen: Generator[Any, Any, Result], interval: float = 0.1, timeout: float | None = None
    ) -> Result:
        try:
            return super().wait(gen, interval, timeout or self.reply_timeout_seconds)
        except _WaitTimeout:
            # close() would wait for the server.
            self.pgconn.finish()
            if self.breaker is not None:
                self.breaker.trip()
            raise OperationalError("the server timed out") from None
        except ReadOnlySqlTransaction:
            self.pgconn.finish()
            raise

    @contextmanager
    def limited(self) -> Iterator[None]:
        """Run the block's one write with our settings. It is its own transaction if the session has them."""
        if self.has_settings:
            yield
            return
        try:
            for statement in self.begin:
                self.execute(statement, prepare=False)
            yield
            self.commit()
        except BaseException:
            try:
                self.rollback()
            except Error:
                self.pgconn.finish()
            raise

    def describe_pooler(self) -> str | None:
        """Return a line about the pooler in front of the server, if there is one."""
        prepared = "off" if self.prepare_threshold is None else "on"
        text = f"PostgreSQL is behind a pooler; prepared statements are {prepared}"
        if self.has_settings:
            return None
        return f"{text}. It drops {', '.join(_limits(0))}: each writing transaction sets them"

    def lift_limits(self, lock_timeout_ms: int) -> None:
        """Lift all time limits for a migration, and set the limit for locks; 0 lifts it too."""
        self.reply_timeout_seconds = None
        limits = {**dict.fromkeys(_limits(0), 0), "lock_timeout": lock_timeout_ms}
        if self.has_settings:
            for name, value in limits.items():
                self.execute(f"SET {name} = {value}", prepare=False)
        else:
            self.begin = _begin_with(limits)


def _limits(statement_timeout_ms: int) -> dict[str, int]:
    return {
        "statement_timeout": statement_timeout_ms,
        "lock_timeout": statement_timeout_ms,
        # The server frees the locks of a worker that hangs or has vanished.
        "idle_in_transaction_session_timeout": 2 * statement_timeout_ms,
    }


class _Connector:
    """Opens the connections of one engine."""

    def __init__(self, statement_timeout_ms: int) -> None:
        self._timeout_ms = statement_timeout_ms
        self._limits = _limits(statement_timeout_ms)
        self._takes_options = True
        self._breaker = CircuitBreaker()

    def connect(self, parameters: Mapping[str, Any]) -> TimeoutConnection:
        """Return a connection with these parameters of DATABASE_URL. Raise the driver's errors."""
        if self._breaker.is_open():
            raise OperationalError("the circuit breaker is open: the server timed out a moment ago")
        parameters = {"connect_timeout": CONNECT_TIMEOUT_SECONDS, **parameters, "client_encoding": "utf8"}
        behind_pgbouncer = parameters.pop(PGBOUNCER, "false") == "true"
        threshold = parameters.pop(PREPARE_THRESHOLD, None)
        given = parameters.pop("options", None) or os.environ.get("PGOPTIONS", "")
        try:
            connection = self._open(parameters, given, ours=not behind_pgbouncer)
        except (OperationalError, ProgrammingError) as error:
            # With several hosts, the error of the last one quotes the others.
            if isinstance(error, ConnectionTimeout) or "connection timeout expired" in str(error):
                self._breaker.trip()
            raise _explained(error) from None
        self._breaker.reset()
        connection.breaker = self._breaker
        connection.reply_timeout_seconds = self._timeout_ms / 1000 + REPLY_GRACE_SECONDS
        try:
            self._inspect(connection, {name.lower().replace("-", "_") for name in _OPTION.findall(given)})
        except BaseException:
            connection.pgconn.finish()
            raise
        connection.has_session &= not behind_pgbouncer
        connection.prepare_threshold = EXECUTIONS_BEFORE_PREPARE if connection.has_session else None
        if threshold is not None:
            connection.prepare_threshold = int(threshold) or None
        return connection

    def _open(self, parameters: dict[str, Any], given: str, *, ours: bool) -> TimeoutConnection:
        if ours and self._takes_options:
            settings = self._limits | _SETTINGS
            options = " ".join([given, *(f"-c {name}={value}" for name, value in settings.items())])
            try:
                return TimeoutConnection.connect(**parameters, options=options, autocommit=True)
            except OperationalError as error:
                if not _is_refusal_of_options(error):
                    raise
                self._takes_options = False
        try:
            return TimeoutConnection.connect(**parameters, options=given, autocommit=True)
        except OperationalError as error:
            if given and _is_refusal_of_options(error):
                raise _dropped(_OPTION.findall(given)) from None
            raise

    def _inspect(self, connection: TimeoutConnection, given: set[str]) -> None:
        """Find out what a pooler dropped. Raise UnfitDatabase if the service cannot do without it."""
        names = ["statement_timeout", "server_encoding", *given]
        rows = connection.execute(_PROBE, (names,), prepare=False).fetchall()
        settings = {name: setting for _, name, setting, _ in rows}
        if settings["server_encoding"] != "UTF8":
            raise UnfitDatabase(
                f"DATABASE_URL names a database in {settings['server_encoding']}, not UTF8; "
                "create one with `createdb --encoding UTF8 --template template0`"
            )
        dropped = sorted(name for _, name, _, source in rows if name in given and source not in _SOURCES)
        if dropped:
            raise _dropped(dropped)
        if not (connection.info.parameter_status("DateStyle") or "ISO").startswith("ISO"):
            # The driver reads no other style. PgBouncer keeps this setting for its client.
            connection.execute("SET DateStyle TO ISO", prepare=False)
        connection.has_session = rows[0][0] == connection.info.backend_pid
        connection.has_settings = (
            connection.has_session and settings["statement_timeout"] == f"{self._timeout_ms}"
        )
        if not connection.has_settings:
            connection.begin = _begin_with(self._limits)


def _explained(error: Error) -> Error:
    """Return the error with its reason, if the server or libpq gave one that a setting can change."""
    text = str(error)
    if invalid := _INVALID.search(text):
        return UnfitDatabase(f"DATABASE_URL has a parameter that libpq refuses: {invalid[0]}")
    if refusal := _REFUSAL.search(text):
        reason = refusal[1] or refusal[2]
        return UnfitDatabase(
            f"DATABASE_URL names a server that refuses the service: {reason}", transient=True
        )
    return error


def _is_refusal_of_options(error: OperationalError) -> bool:
    # Two texts of PgBouncer; from 1.20 it names the setting.
    return re.search("unsupported (options )?startup parameter", str(error)) is not None


def _dropped(names: list[str]) -> UnfitDatabase:
    return UnfitDatabase(
        f"DATABASE_URL names a pooler that drops {', '.join(names)}; "
        "set it by ALTER ROLE … SET, and remove it from the URL"
    )


def limit_waits(engine: Engine, statement_timeout_ms: int) -> None:
    """Limit each wait for a reply to slightly more than the statement timeout."""
    connector = _Connector(statement_timeout_ms)

    @event.listens_for(engine, "do_connect")
    def connects(_dialect: Any, _record: Any, _args: Any, options: Any) -> TimeoutConnection:
        return connector.connect(options)

"""Connections to PostgreSQL with a limit for every wait.

The server ends statements, lock waits and idle transactions that take too long. Only this side can notice
that the server, or the network to it, no longer answers.
"""

from collections.abc import Generator
from typing import Any, Final, TypeVar

import psycopg
from psycopg.errors import ConnectionTimeout, OperationalError, ReadOnlySqlTransaction, _WaitTimeout
from sqlalchemy import Engine, event

from pat_service.storage.circuit_breaker import CircuitBreaker

CONNECT_TIMEOUT_SECONDS: Final = 3
#: Seconds to wait for a reply beyond `statement_timeout`.
REPLY_GRACE_SECONDS: Final = 1

Result = TypeVar("Result")


def connect_args(statement_timeout_ms: int) -> dict[str, Any]:
    """Return libpq's parameters."""
    settings = {
        "statement_timeout": statement_timeout_ms,
        "lock_timeout": statement_timeout_ms,
        # The server frees the locks of a worker that hangs or has vanished.
        "idle_in_transaction_session_timeout": 2 * statement_timeout_ms,
    }
    return {
        "connect_timeout": CONNECT_TIMEOUT_SECONDS,
        "options": " ".join(f"-c {name}={value}" for name, value in settings.items()),
    }


class TimeoutConnection(psycopg.Connection[Any]):
    """Closes itself if the server times out or has become read-only.

    A read-only server is a former primary, and a new connection reaches the new primary.
    """

    #: None: no limit.
    reply_timeout_seconds: float | None = None
    breaker: CircuitBreaker | None = None

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


def limit_waits(engine: Engine, statement_timeout_ms: int) -> None:
    """Limit each wait for a reply to slightly more than the statement timeout."""
    breaker = CircuitBreaker()

    @event.listens_for(engine, "do_connect")
    def connects(_dialect: Any, _record: Any, args: Any, options: Any) -> TimeoutConnection:
        if breaker.is_open():
            raise OperationalError("the circuit breaker is open: the server timed out a moment ago")
        try:
            connection = TimeoutConnection.connect(*args, **options)
        except ConnectionTimeout:
            breaker.trip()
            raise
        breaker.reset()
        connection.breaker = breaker
        connection.reply_timeout_seconds = statement_timeout_ms / 1000 + REPLY_GRACE_SECONDS
        return connection

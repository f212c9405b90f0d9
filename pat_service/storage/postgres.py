"""Connections to PostgreSQL that wait for nothing without end.

The server itself ends what takes too long there: statements, locks, transactions that nobody goes on
with. Where it is silent, since its host or the way to it is gone, only this side can notice.
"""

from collections.abc import Generator
from typing import Any, Final, TypeVar

import psycopg
from psycopg.errors import ConnectionTimeout, OperationalError, ReadOnlySqlTransaction, _WaitTimeout
from sqlalchemy import Engine, event

from pat_service.storage.circuit_breaker import CircuitBreaker

#: How long a connection may take to open, in seconds.
CONNECT_TIMEOUT: Final = 3
#: How much longer than a statement may take its answer is awaited, in seconds.
GRACE: Final = 1

Result = TypeVar("Result")


def connect_args(statement_timeout: int) -> dict[str, Any]:
    """Return libpq's parameters, for statements that may take so many milliseconds."""
    settings = {
        "statement_timeout": statement_timeout,
        "lock_timeout": statement_timeout,
        # Of a worker that hangs or has vanished: nobody else should wait for what it holds.
        "idle_in_transaction_session_timeout": 2 * statement_timeout,
    }
    return {
        "connect_timeout": CONNECT_TIMEOUT,
        "options": " ".join(f"-c {name}={value}" for name, value in settings.items()),
    }


class ImpatientConnection(psycopg.Connection[Any]):
    """One that ends itself where the server is silent, or takes no writes any more.

    The latter is a server that another has taken over from: a new connection finds the other.
    """

    #: How long an answer is awaited, in seconds; None: without end.
    patience: float | None = None
    breaker: CircuitBreaker | None = None

    def wait(
        self, gen: Generator[Any, Any, Result], interval: float = 0.1, timeout: float | None = None
    ) -> Result:
        try:
            return super().wait(gen, interval, timeout or self.patience)
        except _WaitTimeout:
            # Not close(), which would take leave of the server first.
            self.pgconn.finish()
            if self.breaker is not None:
                self.breaker.trip()
            raise OperationalError("the server is silent") from None
        except ReadOnlySqlTransaction:
            self.pgconn.finish()
            raise


def make_impatient(engine: Engine, statement_timeout: int) -> None:
    """Let the engine's connections await an answer little longer than so many milliseconds."""
    breaker = CircuitBreaker()

    @event.listens_for(engine, "do_connect")
    def connects(_dialect: Any, _record: Any, args: Any, options: Any) -> ImpatientConnection:
        if breaker.is_open():
            raise OperationalError("the server was silent a moment ago")
        try:
            connection = ImpatientConnection.connect(*args, **options)
        except ConnectionTimeout:
            breaker.trip()
            raise
        breaker.reset()
        connection.breaker = breaker
        connection.patience = statement_timeout / 1000 + GRACE
        return connection

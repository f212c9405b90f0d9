"""Connections to PostgreSQL that wait for nothing without end.

The server itself ends what takes too long there: statements, locks, transactions that nobody goes on
with. Where it is silent, since its host or the way to it is gone, only this side can notice.
"""

import logging
import time
from collections.abc import Generator
from threading import Lock
from typing import Any, Final, TypeVar

import psycopg
from psycopg.errors import ConnectionTimeout, OperationalError, ReadOnlySqlTransaction, _WaitTimeout
from sqlalchemy import Engine, event

#: How long a connection may take to open, in seconds; and how long nobody tries anew where it took longer.
CONNECT_TIMEOUT: Final = 3
#: How much longer than a statement may take its answer is awaited, in seconds.
GRACE: Final = 1

Result = TypeVar("Result")
_log = logging.getLogger(__name__)


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
    silence: "Silence | None" = None

    def wait(
        self, gen: Generator[Any, Any, Result], interval: float = 0.1, timeout: float | None = None
    ) -> Result:
        try:
            return super().wait(gen, interval, timeout or self.patience)
        except _WaitTimeout:
            # Not close(), which would take leave of the server first.
            self.pgconn.finish()
            if self.silence is not None:
                self.silence.begin()
            raise OperationalError("the server is silent") from None
        except ReadOnlySqlTransaction:
            self.pgconn.finish()
            raise


class Silence:
    """While the server is silent, one asks it now and then, and all others are refused at once.

    Else every thread would wait for it, and nobody be told anything.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._until: float | None = None

    def begin(self) -> None:
        with self._lock:
            self._until = time.monotonic() + CONNECT_TIMEOUT

    def connect(self, *args: Any, **options: Any) -> ImpatientConnection:
        with self._lock:
            if self._until is not None:
                if time.monotonic() < self._until:
                    raise OperationalError("the server was silent a moment ago")
                # This one asks, and the others await what comes of it.
                self._until = time.monotonic() + CONNECT_TIMEOUT
        try:
            connection = ImpatientConnection.connect(*args, **options)
        except ConnectionTimeout:
            self.begin()
            raise
        with self._lock:
            self._until = None
        return connection


def make_impatient(engine: Engine, statement_timeout: int) -> None:
    """Let the engine's connections await an answer little longer than so many milliseconds."""
    silence = Silence()

    @event.listens_for(engine, "do_connect")
    def connects(_dialect: Any, _record: Any, args: Any, options: Any) -> ImpatientConnection:
        connection = silence.connect(*args, **options)
        connection.silence = silence
        connection.patience = statement_timeout / 1000 + GRACE
        return connection

"""The audit trail: what happened, when, to which ids. Never a secret.

An event is written where a real token, session or client was recognised. Anonymous noise is for the
log and its counters, so that a stranger cannot fill the table.
"""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import datetime
from threading import Lock
from typing import Any, Final

from sqlalchemy import Connection, insert
from sqlalchemy.exc import SQLAlchemyError

from pat_service import metrics
from pat_service.errors import Refused, Unavailable
from pat_service.storage.circuit_breaker import CircuitBreaker
from pat_service.storage.database import transaction
from pat_service.storage.models import Event

TOKEN_MINTED: Final = "token:minted"
MINT_REFUSED: Final = "token:mint-refused"
TOKEN_REVOKED: Final = "token:revoked"
TOKEN_REKEYED: Final = "token:rekeyed"
TOKEN_EXPIRED: Final = "token:expired"
SESSION_OPENED: Final = "session:opened"
OPEN_REFUSED: Final = "session:open-refused"
SESSION_ENTERED: Final = "session:app-entered"
SESSION_REPLACED: Final = "session:replaced"
SESSION_REFUSED: Final = "session:refused"
SESSION_ENDED: Final = "session:ended"
SESSION_EXPIRED: Final = "session:expired"
WORKSPACE_CREATED: Final = "workspace:created"
WORKSPACE_CHANGED: Final = "workspace:changed"
WORKSPACE_DELETED: Final = "workspace:deleted"
USER_CREATED: Final = "user:created"
USER_CHANGED: Final = "user:changed"
USER_DELETED: Final = "user:deleted"
MEMBER_ADDED: Final = "member:added"
MEMBER_CHANGED: Final = "member:changed"
MEMBER_REMOVED: Final = "member:removed"
GRANT_ADDED: Final = "grant:added"
GRANT_REMOVED: Final = "grant:removed"
CLIENT_CREATED: Final = "client:created"
CLIENT_CHANGED: Final = "client:changed"
CLIENT_ROTATED: Final = "client:rotated"
CLIENT_REVOKED: Final = "client:revoked"
CLIENT_REKEYED: Final = "client:rekeyed"
CLIENT_REFUSED: Final = "client:refused"
APP_CREATED: Final = "app:created"
APP_CHANGED: Final = "app:changed"
APP_MOVED: Final = "app:moved"
APP_DELETED: Final = "app:deleted"
DIRECTORY_PROVISIONED: Final = "directory:provisioned"

#: The same refusal of the same subject is recorded once in this many seconds by one worker, so that
#: whoever holds a dead token cannot fill the table either. How often it was is told by the next one.
REFUSAL_WINDOW: Final = 60
#: So many kinds of refusals are counted at a time, and so many told in one transaction.
MOST_COUNTED: Final = 10_000
MOST_TOLD: Final = 100

#: The id of the request at work, for every event and log line that it causes.
request_id: ContextVar[str | None] = ContextVar("request_id", default=None)

_log = logging.getLogger(__name__)
_insert = insert(Event)
#: Where a refusal cannot be told, for a while nobody waits to tell another.
_breaker = CircuitBreaker()
#: An event as `prepared.Writes` inserts it with what it tells of.
ROW: Final = (
    Event,
    (
        *("type", "at", "details", "request_id"),
        *("client_id", "workspace_id", "app_id", "user_id", "token_id", "session_id"),
    ),
)


def row(type_: str, at: datetime, **ids: Any) -> dict[str, Any]:
    """Return an event with the columns of ROW; of the ids, those that are left out are null."""
    return dict.fromkeys(ROW[1]) | {"type": type_, "at": at, "request_id": request_id.get()} | ids


def record(
    connection: Connection,
    type_: str,
    at: datetime,
    *,
    code: str | None = None,
    details: dict[str, Any] | None = None,
    **ids: Any,
) -> None:
    """Add an event to the transaction that does what it tells of."""
    row = {"type": type_, "at": at, "code": code, "details": details, "request_id": request_id.get()} | ids
    connection.execute(_insert, row)


def add(connection: Connection, row_: dict[str, Any]) -> None:
    """Add an event that `row` has made."""
    connection.execute(_insert, row_)


def record_many(connection: Connection, rows: list[dict[str, Any]]) -> None:
    """Add events that have the same columns, in one go."""
    if rows:
        connection.execute(_insert, rows)


@contextmanager
def recording_refusals(type_: str, at: datetime, **ids: str) -> Iterator[None]:
    """Record a refusal that leaves the block, in a transaction of its own: it survives the rollback."""
    try:
        yield
    except Refused as refusal:
        refused(type_, refusal, at, **ids)
        raise


def refused(type_: str, refusal: Refused, at: datetime, **ids: str) -> None:
    """Record a refusal whose subject was recognised. A trail that cannot be written changes no answer."""
    subject: dict[str, Any] = ids | refusal.subject
    # Of a store that is away nothing can be told, and to try would take as long again.
    if not subject or isinstance(refusal, Unavailable):
        return
    due = _refusals.count(_Kind(type_, refusal.code, tuple(sorted(subject.items()))), at)
    if not due:
        return
    if _breaker.is_open():
        _refusals.give_back(due)
        return
    try:
        with transaction() as connection:
            for told in due:
                record(
                    connection,
                    told.kind.type,
                    told.at,
                    code=told.kind.code,
                    details={"times": told.times},
                    request_id=told.request_id,
                    **dict(told.kind.subject),
                )
    except (SQLAlchemyError, Unavailable):
        metrics.UNWRITTEN.inc()
        _breaker.trip()
        _log.warning("a refusal could not be recorded", exc_info=True)
        _refusals.give_back(due)
    else:
        _breaker.reset()


@dataclass(frozen=True, slots=True)
class _Kind:
    """The same refusal of the same subject."""

    type: str
    code: str
    subject: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class _Series:
    """How often it happened that nobody was told of yet, and when it did last. `ends` closes its window."""

    kind: _Kind
    times: int
    at: datetime
    request_id: str | None
    ends: float


class Refusals:
    """Counts refusals of each kind, and says when they are to be told: each kind once in a window.

    What is counted is told sooner or later, unless the process ends: by the next refusal of the kind,
    or, once the window is over, by the next of any kind.
    """

    def __init__(self, most: int = MOST_COUNTED, timer: Callable[[], float] = time.monotonic) -> None:
        self._most, self._timer = most, timer
        # All windows are equally long, so the first in is the first to be over.
        self._series: OrderedDict[_Kind, _Series] = OrderedDict()
        self._lock = Lock()

    def clear(self) -> None:
        with self._lock:
            self._series.clear()

    def count(self, kind: _Kind, at: datetime) -> list[_Series]:
        """Count one more, and return what is to be told at this moment."""
        with self._lock:
            now, times = self._timer(), 1
            if (known := self._series.get(kind)) is not None:
                times += known.times
                if now < known.ends:
                    self._series[kind] = replace(known, times=times, at=at, request_id=request_id.get())
                    return []
                del self._series[kind]
            due = list(self._pop_over(now))
            this = _Series(kind, times, at, request_id.get(), now + REFUSAL_WINDOW)
            self._series[kind] = replace(this, times=0)
            return [*due, this]

    def _pop_over(self, now: float) -> Iterator[_Series]:
        told = 0
        while self._series and told < MOST_TOLD:
            first = next(iter(self._series.values()))
            if now < first.ends and len(self._series) < self._most:
                return
            del self._series[first.kind]
            if first.times:
                told += 1
                yield first

    def give_back(self, due: list[_Series]) -> None:
        """Count again what could not be told: the next refusal tries anew."""
        with self._lock:
            for told in due:
                since = self._series.pop(told.kind, None)
                times = told.times + (since.times if since else 0)
                self._series[told.kind] = replace(told, times=times, ends=self._timer())
                self._series.move_to_end(told.kind, last=False)


_refusals = Refusals()

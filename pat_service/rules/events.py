"""The audit trail: a type, a time and ids for each event, and never a secret.

An event concerns a known token, session, user or client. Anonymous requests are only logged and counted, so
a stranger cannot fill the table.
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
SESSION_REPLACED: Final = "session:replaced"
SESSION_PREVIEWED: Final = "session:previewed"
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
OPERATOR_ADDED: Final = "operator:added"
OPERATOR_CHANGED: Final = "operator:changed"
OPERATOR_REMOVED: Final = "operator:removed"
OPERATOR_LINK_CREATED: Final = "operator:link-created"
OPERATOR_SIGNED_IN: Final = "operator:signed-in"
OPERATOR_SIGNED_OUT: Final = "operator:signed-out"
SIGN_IN_REFUSED: Final = "operator:sign-in-refused"
DIRECTORY_PROVISIONED: Final = "directory:provisioned"
TRAIL_PURGED: Final = "trail:purged"

#: In this time a worker records the same refusal of the same subject once, with a count. So the holder of a
#: revoked token cannot fill the table either.
REFUSAL_WINDOW_SECONDS: Final = 60
#: Kinds of refusals that a worker counts at a time.
MAX_COUNTED: Final = 10_000
#: Closed windows whose counts one transaction records.
MAX_RECORDED: Final = 100

#: The id of the current request, for its events and log lines.
request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
#: The id of the console's operator who causes the current events.
operator_id: ContextVar[str | None] = ContextVar("operator_id", default=None)

_log = logging.getLogger(__name__)
_insert = insert(Event)
#: While the breaker is open, refusals are counted but not recorded, so no answer waits for a failing
#: database.
_breaker = CircuitBreaker()
#: An event as a row for `prepared.Writes`.
ROW: Final = (Event, [column.name for column in Event.__table__.c if column.name not in ("id", "code")])


def build(type_: str, at: datetime, **ids: Any) -> dict[str, Any]:
    """Return an event with the columns of `ROW`. Ids that are not given are null."""
    given = {"type": type_, "at": at, "request_id": request_id.get()} | ids
    return dict.fromkeys(ROW[1]) | _attribute(given)


def record(
    connection: Connection,
    type_: str,
    at: datetime,
    *,
    code: str | None = None,
    details: dict[str, Any] | None = None,
    **ids: Any,
) -> None:
    """Record an event in the transaction that causes it."""
    event = {"type": type_, "at": at, "code": code, "details": details, "request_id": request_id.get()} | ids
    connection.execute(_insert, _attribute(event))


def _attribute(event: dict[str, Any]) -> dict[str, Any]:
    """Return the event with the operator as `by` in its details, unless the operator is its `client_id`."""
    operator = operator_id.get()
    if operator is None or operator == event.get("client_id"):
        return event
    return event | {"details": (event.get("details") or {}) | {"by": operator}}


def record_many(connection: Connection, events: list[dict[str, Any]]) -> None:
    """Record events with the same columns, in one statement."""
    if events:
        connection.execute(_insert, events)


@contextmanager
def recording_refusals(type_: str, at: datetime, **ids: str) -> Iterator[None]:
    """Record a refusal that the block raises. A transaction of its own keeps the event despite the
    rollback."""
    try:
        yield
    except Refused as refusal:
        record_refusal(type_, refusal, at, **ids)
        raise


def record_refusal(type_: str, refusal: Refused, at: datetime, **ids: str | None) -> None:
    """Record a refusal if its subject is known. A failure to record never changes the answer."""
    subject: dict[str, Any] = ids | refusal.subject
    # If the database is unavailable, recording would fail too, after another timeout.
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
            for series in due:
                # Not by `record`: another request may have caused a refusal that is due now.
                refusal_event = {
                    "type": series.kind.type,
                    "at": series.at,
                    "code": series.kind.code,
                    "details": {"times": series.times},
                    "request_id": series.request_id,
                }
                connection.execute(_insert, refusal_event | dict(series.kind.subject))
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
    subject: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True, slots=True)
class _Series:
    """Unrecorded refusals of one kind, with the time and request of the last one.

    The window of the kind closes at `ends`, measured by the timer of `Refusals`.
    """

    kind: _Kind
    times: int
    at: datetime
    request_id: str | None
    ends: float


class Refusals:
    """Counts refusals by kind, and returns those to record: each kind once in a window.

    The first refusal in a window is recorded at once, and later ones are counted. After the window has
    closed, the next recorded refusal of any kind also records the count. Counts are lost only if the process
    ends.
    """

    def __init__(self, max_counted: int = MAX_COUNTED, timer: Callable[[], float] = time.monotonic) -> None:
        self._max_counted, self._timer = max_counted, timer
        # All windows are equally long, so the oldest one closes first.
        self._series: OrderedDict[_Kind, _Series] = OrderedDict()
        self._lock = Lock()

    def clear(self) -> None:
        with self._lock:
            self._series.clear()

    def count(self, kind: _Kind, at: datetime) -> list[_Series]:
        """Count a refusal, and return the series to record now."""
        with self._lock:
            now, times = self._timer(), 1
            if (counted := self._series.get(kind)) is not None:
                times += counted.times
                if now < counted.ends:
                    self._series[kind] = replace(counted, times=times, at=at, request_id=request_id.get())
                    return []
                del self._series[kind]
            due = list(self._pop_closed(now))
            this = _Series(kind, times, at, request_id.get(), now + REFUSAL_WINDOW_SECONDS)
            self._series[kind] = replace(this, times=0)
            return [*due, this]

    def _pop_closed(self, now: float) -> Iterator[_Series]:
        popped = 0
        while self._series and popped < MAX_RECORDED:
            first = next(iter(self._series.values()))
            if now < first.ends and len(self._series) < self._max_counted:
                return
            del self._series[first.kind]
            if first.times:
                popped += 1
                yield first

    def give_back(self, due: list[_Series]) -> None:
        """Put back series that could not be recorded. The next refusal tries to record them again."""
        with self._lock:
            for series in due:
                newer = self._series.pop(series.kind, None)
                times = series.times + (newer.times if newer else 0)
                self._series[series.kind] = replace(series, times=times, ends=self._timer())
                self._series.move_to_end(series.kind, last=False)


_refusals = Refusals()

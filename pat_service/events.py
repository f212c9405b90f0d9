"""The audit trail: what happened, when, to which ids. Never a secret.

An event is written where a real token, session or client was recognised. Anonymous noise is for the
log and its counters, so that a stranger cannot fill the table.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from threading import Lock
from typing import Any, Final

from cachetools import TTLCache
from sqlalchemy import Connection, insert
from sqlalchemy.exc import SQLAlchemyError

from pat_service.database import transaction
from pat_service.errors import Refused, Unavailable
from pat_service.models import Event

TOKEN_MINTED: Final = "token:minted"
MINT_REFUSED: Final = "token:mint-refused"
TOKEN_REKEYED: Final = "token:rekeyed"
SESSION_OPENED: Final = "session:opened"
OPEN_REFUSED: Final = "session:open-refused"
SESSION_ENTERED: Final = "session:app-entered"
SESSION_REPLACED: Final = "session:replaced"
SESSION_REFUSED: Final = "session:refused"
SESSION_ENDED: Final = "session:ended"
USER_CREATED: Final = "user:created"
MEMBER_ADDED: Final = "member:added"
GRANT_ADDED: Final = "grant:added"
CLIENT_CREATED: Final = "client:created"
CLIENT_CHANGED: Final = "client:changed"
CLIENT_ROTATED: Final = "client:rotated"
CLIENT_REVOKED: Final = "client:revoked"
CLIENT_REFUSED: Final = "client:refused"
APP_MOVED: Final = "app:moved"
DIRECTORY_PROVISIONED: Final = "directory:provisioned"

#: The same refusal of the same subject is recorded once in this many seconds by one worker, so that
#: whoever holds a dead token cannot fill the table either.
REFUSAL_WINDOW: Final = 60

#: The id of the request at work, for every event and log line that it causes.
request_id: ContextVar[str | None] = ContextVar("request_id", default=None)

_log = logging.getLogger(__name__)
_insert = insert(Event)
_recent_refusals: TTLCache[tuple[object, ...], bool] = TTLCache(maxsize=10_000, ttl=REFUSAL_WINDOW)
_recent_lock = Lock()


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
    key = (type_, refusal.code, *sorted(subject.items()))
    if not subject or not _first_in_window(key):
        return
    try:
        with transaction() as connection:
            record(connection, type_, at, code=refusal.code, **subject)
    except (SQLAlchemyError, Unavailable):
        _log.warning("a refusal could not be recorded", exc_info=True)
        with _recent_lock:
            _recent_refusals.pop(key, None)


def _first_in_window(key: tuple[object, ...]) -> bool:
    with _recent_lock:
        if key in _recent_refusals:
            return False
        _recent_refusals[key] = True
        return True

"""Retention: what expired long ago is deleted."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, bindparam, delete, exists, func, not_, select
from sqlalchemy.sql.elements import ColumnElement

from pat_service.rules import events
from pat_service.storage.database import AnyRow, UtcDateTime, transaction
from pat_service.storage.models import SAME_PAIR, Event, Session, Token

#: Rows that one transaction deletes. Behind it traffic has the database for itself: for so many times as long
#: as that took, and so many seconds at least.
BATCH: Final = 100
REST: Final = 20
PAUSE: Final = 0.05


@dataclass(frozen=True, slots=True)
class Purged:
    """How many of each were deleted."""

    tokens: int
    sessions: int
    events: int


def purge(now: datetime, retain: timedelta, retain_events: timedelta | None = None) -> Purged:
    """Delete the tokens and sessions that expired more than `retain` ago, and tell of each that it expired.

    Events older than `retain_events` go first; None keeps them all. A batch and its events are one
    transaction, so a purge may be interrupted, repeated, or run twice at once: each expiry is told once.
    The secrets of clients stay, so that those that were ended stay dead.
    """
    events_deleted = 0 if retain_events is None else _in_batches(_purge_events, now - retain_events)
    return Purged(
        sessions=_in_batches(_purge_sessions, now - retain),
        tokens=_in_batches(_purge_tokens, now - retain),
        events=events_deleted,
    )


def _in_batches(delete_some: Callable[[Connection, datetime], int], before: datetime) -> int:
    total = 0
    while True:
        begun = time.monotonic()
        with transaction() as connection:
            deleted = delete_some(connection, before)
        total += deleted
        if deleted < BATCH:
            return total
        time.sleep(max(PAUSE, REST * (time.monotonic() - begun)))


def _purge_sessions(connection: Connection, before: datetime) -> int:
    rows = _take(connection, Session, before)
    told = [row for row in rows if row.ended_at is None or row.ended_at >= row.expires_at]
    events.record_many(
        connection,
        [_expiry(events.SESSION_EXPIRED, row, token_id=row.token_id, session_id=row.id) for row in told],
    )
    return len(rows)


def _purge_tokens(connection: Connection, before: datetime) -> int:
    rows = _take(connection, Token, before, not_(_still_open))
    told = [row for row in rows if row.revoked_at is None or row.revoked_at >= row.expires_at]
    events.record_many(connection, [_expiry(events.TOKEN_EXPIRED, row, token_id=row.id) for row in told])
    return len(rows)


def _take(
    connection: Connection,
    table: type[Token | Session],
    before: datetime,
    *conditions: ColumnElement[bool],
) -> list[AnyRow]:
    """Delete some that expired before this moment, and return them.

    What somebody holds just now, such as a mint that renews it, is left out: locked first, deleted after.
    """
    expired = select(table.__table__).where(table.expires_at < before, *conditions)
    some = expired.order_by(table.expires_at).limit(BATCH).with_for_update(skip_locked=True)
    rows = list(connection.execute(some, {"retained_since": before}))
    connection.execute(delete(table).where(table.id.in_([row.id for row in rows])))
    return rows


#: The pair of the token has a session that is not to be deleted yet: revoking the token is to end it too.
_still_open = exists().where(
    SAME_PAIR,
    Session.ended_at.is_(None),
    Session.expires_at >= bindparam("retained_since", type_=UtcDateTime),
)


def _expiry(type_: str, row: AnyRow, **ids: str) -> dict[str, Any]:
    return ids | {
        "type": type_,
        "at": row.expires_at,
        "client_id": row.client_id,
        "workspace_id": row.workspace_id,
        "app_id": row.app_id,
        "user_id": row.user_id,
    }


def _purge_events(connection: Connection, before: datetime) -> int:
    # The last one stays: SQLite would give its id to another, which who follows the trail would miss.
    last = select(func.max(Event.id)).scalar_subquery()
    some = select(Event.id).where(Event.at < before, Event.id < last).order_by(Event.id).limit(BATCH)
    return connection.execute(delete(Event).where(Event.id.in_(some))).rowcount

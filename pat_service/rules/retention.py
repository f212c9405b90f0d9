"""Retention: delete tokens, sessions and events that are too old."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, bindparam, delete, exists, func, not_, select
from sqlalchemy.sql.elements import ColumnElement

from pat_service.rules import embed_problems, events, usage
from pat_service.rules.directory import slugs
from pat_service.storage.database import AnyRow, UtcDateTime, add, transaction
from pat_service.storage.models import (
    ACTIVE,
    SAME_PAIR,
    Event,
    Session,
    Token,
    User,
    Workspace,
    WorkspaceStatus,
)

#: Rows that one transaction deletes. The purge then pauses for `REST_FACTOR` times the transaction's
#: duration, to leave the database to requests.
BATCH_ROWS: Final = 100
REST_FACTOR: Final = 20
MIN_REST_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True)
class Purged:
    """The numbers of deleted rows."""

    tokens: int
    sessions: int
    events: int


def purge(now: datetime, retain: timedelta, retain_events: timedelta | None = None) -> Purged:
    """Delete tokens and sessions that expired more than `retain` ago, and record each expiry.

    Also delete reservations of slugs that have ended, old counts and refused origins. Count an hour for
    `usage` before its first event is deleted. First delete events older than `retain_events`; None keeps
    them all. A batch and its events are one transaction, so each expiry is recorded once. A
    purge may therefore be interrupted, repeated or run concurrently. Client secrets stay, so a retired
    secret stays invalid. If the purge deleted something, its last event has the numbers of deleted rows
    and the cut-off times.
    """
    slugs.purge(now)
    usage.purge(now)
    embed_problems.purge(now)
    events_before = None if retain_events is None else now - retain_events
    events_deleted = 0 if events_before is None else _delete_in_batches(_purge_events, events_before)
    expired_before = now - retain
    purged = Purged(
        sessions=_delete_in_batches(_purge_sessions, expired_before),
        tokens=_delete_in_batches(_purge_tokens, expired_before),
        events=events_deleted,
    )
    if any(asdict(purged).values()):
        bounds = {"expired_before": expired_before, "events_before": events_before}
        times = {name: bound.isoformat() for name, bound in bounds.items() if bound is not None}
        with transaction() as connection:
            events.record(connection, events.TRAIL_PURGED, now, details=asdict(purged) | times)
    return purged


def _delete_in_batches(delete_batch: Callable[[Connection, datetime], int], before: datetime) -> int:
    total = 0
    while True:
        begun = time.monotonic()
        with transaction() as connection:
            deleted = delete_batch(connection, before)
        total += deleted
        if deleted < BATCH_ROWS:
            return total
        time.sleep(max(MIN_REST_SECONDS, REST_FACTOR * (time.monotonic() - begun)))


def _purge_sessions(connection: Connection, before: datetime) -> int:
    rows = _delete_expired(connection, Session, before)
    lived_on = [row for row in rows if row.ended_at is None or row.ended_at >= row.expires_at]
    # The event of the replacement is the end of a replaced session.
    expired = [row for row in lived_on if row.replaced_by is None]
    _record_expiries(connection, events.SESSION_EXPIRED, expired, token_id="token_id", session_id="id")
    return len(rows)


def _purge_tokens(connection: Connection, before: datetime) -> int:
    rows = _delete_expired(connection, Token, before, not_(_has_open_session))
    expired = [row for row in rows if row.revoked_at is None or row.revoked_at >= row.expires_at]
    _record_expiries(connection, events.TOKEN_EXPIRED, expired, token_id="id")
    return len(rows)


def _delete_expired(
    connection: Connection,
    table: type[Token | Session],
    before: datetime,
    *conditions: ColumnElement[bool],
) -> list[AnyRow]:
    """Delete a batch of rows that expired before this time, and return them.

    Skip rows that another transaction has locked, since a mint may be renewing them.
    """
    expired = select(table.__table__).where(table.expires_at < before, *conditions)
    batch = expired.order_by(table.expires_at).limit(BATCH_ROWS).with_for_update(skip_locked=True)
    rows = list(connection.execute(batch, {"retained_since": before}))
    connection.execute(delete(table).where(table.id.in_([row.id for row in rows])))
    return rows


#: Keep a token while its user and app have an open session, so revoking the token can end it.
_has_open_session = exists().where(
    SAME_PAIR,
    Session.ended_at.is_(None),
    Session.expires_at >= bindparam("retained_since", type_=UtcDateTime),
)


def _record_expiries(connection: Connection, type_: str, rows: list[AnyRow], **ids: str) -> None:
    """Record the expiry of each row. `ids` maps more columns of the event to columns of the row."""
    columns = ids | {name: name for name in ("client_id", "workspace_id", "app_id", "user_id")}
    events.record_many(
        connection,
        [
            {"type": type_, "at": row.expires_at}
            | {name: getattr(row, column) for name, column in columns.items()}
            for row in rows
        ],
    )


def _purge_events(connection: Connection, before: datetime) -> int:
    # Keep the last event: SQLite would reuse its id, and an export would miss the next event.
    last = select(func.max(Event.id)).scalar_subquery()
    wanted = select(Event.id, Event.at).where(Event.at < before, Event.id < last)
    batch = wanted.order_by(Event.id).limit(BATCH_ROWS).with_for_update(skip_locked=True)
    rows = connection.execute(batch).all()
    ids = [row.id for row in rows]
    usage.count_before_deletion(connection, [row.at for row in rows])
    _remember_workspaces(connection, ids)
    return connection.execute(delete(Event).where(Event.id.in_(ids))).rowcount


def _remember_workspaces(connection: Connection, event_ids: Sequence[int]) -> None:
    """Store which workspaces have known which users, before these events are deleted.

    The rights to change and to delete a user depend on this: see `directory.users`.
    """
    # The lock prevents a concurrent deletion of the user or the workspace.
    locked = _known.where(Event.id.in_(event_ids)).with_for_update(
        read=True, key_share=True, of=(User, Workspace)
    )
    for workspace_id, user_id in sorted(
        {(row.workspace_id, row.user_id) for row in connection.execute(locked)}
    ):
        row = {"workspace_id": workspace_id, "user_id": user_id, "status": ACTIVE}
        add(connection, WorkspaceStatus, row)


_known = (
    select(Event.workspace_id, Event.user_id)
    .join(User, User.id == Event.user_id)
    .join(Workspace, Workspace.id == Event.workspace_id)
    .where(
        not_(
            exists().where(
                WorkspaceStatus.workspace_id == Event.workspace_id, WorkspaceStatus.user_id == Event.user_id
            )
        )
    )
)

"""Keep the house: what still hangs on which key, and what may be deleted since it is long over."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, Select, bindparam, delete, exists, func, not_, or_, select
from sqlalchemy.sql.elements import ColumnElement

from pat_service import events
from pat_service.credentials import Keyring
from pat_service.database import AnyRow, UtcDateTime, reading, transaction
from pat_service.models import OF_ONE_PAIR, Client, ClientSecret, Event, Session, Token

#: Rows that one transaction deletes. Behind it traffic has the database for itself: for so many times as long
#: as that took, and so many seconds at least.
BATCH: Final = 100
REST: Final = 20
PAUSE: Final = 0.05


@dataclass(frozen=True, slots=True)
class KeyUse:
    """What is live and hangs on one key. `place` is its place in the keyring: 0 is the current one's.

    None: it is no key of the keyring, so what hangs on it is dead until the key is a fallback again.
    """

    key_id: str
    place: int | None
    tokens: int
    client_secrets: int
    sessions: int

    @property
    def idle(self) -> bool:
        return not (self.tokens or self.client_secrets or self.sessions)


def key_uses(keyring: Keyring, now: datetime) -> list[KeyUse]:
    """Return what hangs on each key of the keyring, in its order, and then on keys that are none of it."""
    with reading() as connection:
        tokens, secrets, sessions = (_by_key(connection, live) for live in _live(now))
    ours = list(dict.fromkeys(key.id for key in keyring.keys))
    others = sorted((tokens.keys() | secrets.keys() | sessions.keys()) - set(ours))
    return [
        KeyUse(
            id_,
            ours.index(id_) if id_ in ours else None,
            tokens.get(id_, 0),
            secrets.get(id_, 0),
            sessions.get(id_, 0),
        )
        for id_ in ours + others
    ]


def all_secrets_lost(uses: Sequence[KeyUse]) -> bool:
    """Tell whether clients have live secrets and all hang on keys that are none of the keyring.

    That is what a SECRET_KEY looks like that was lost or mistyped.
    """
    kept, lost = (
        sum(use.client_secrets for use in uses if (use.place is None) == gone) for gone in (False, True)
    )
    return lost > 0 and not kept


def _live(now: datetime) -> tuple[Select[str, int], Select[str, int], Select[str, int]]:
    """Return how many live tokens, client secrets and sessions each key has."""
    tokens = select(Token.key_id, func.count()).where(Token.expires_at > now, Token.revoked_at.is_(None))
    secrets = (
        select(ClientSecret.key_id, func.count())
        .join(Client, Client.id == ClientSecret.client_id)
        .where(
            Client.revoked_at.is_(None),
            or_(ClientSecret.expires_at.is_(None), ClientSecret.expires_at > now),
        )
    )
    sessions = select(Session.key_id, func.count()).where(
        Session.expires_at > now, Session.ended_at.is_(None)
    )
    return (
        tokens.group_by(Token.key_id),
        secrets.group_by(ClientSecret.key_id),
        sessions.group_by(Session.key_id),
    )


def _by_key(connection: Connection, statement: Select[str, int]) -> dict[str, int]:
    return dict(connection.execute(statement).all())


@dataclass(frozen=True, slots=True)
class Live:
    """So many tokens that are neither expired nor revoked, so many sessions that are neither nor ended."""

    tokens: int
    sessions: int


def count_live(now: datetime) -> Live:
    """Count what is live, from indexes alone: some 0.1 s for a million of each."""
    with reading() as connection:
        tokens, sessions = (connection.scalar(statement, {"now": now}) for statement in _counts)
    return Live(tokens or 0, sessions or 0)


_counts = tuple(
    select(func.count())
    .select_from(table)
    .where(table.expires_at > bindparam("now", type_=UtcDateTime), ended.is_(None))
    for table, ended in ((Token, Token.revoked_at), (Session, Session.ended_at))
)


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
    OF_ONE_PAIR,
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

"""Delete a workspace, a user or an app, and record what ends with it.

The database deletes the members, grants, tokens and sessions together with the row. A deletion records at
most `MAX_EVENTS` of them, so that it stays fast. Then one event for each kind and workspace has the number of
the others in `details.count`.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sql
from sqlalchemy import Select, bindparam, func, select

from pat_service.rules import events
from pat_service.rules.directory.changes import Change, Noun
from pat_service.rules.token_admin import has_stayed
from pat_service.storage.database import UtcDateTime
from pat_service.storage.models import LIVE_SESSION, App, Grant, Member, Session, Token

MAX_EVENTS: Final = 1000


@dataclass(frozen=True, slots=True)
class _Kind:
    """A table, the type of its events, and a SELECT of the ids of its live rows in a fixed order."""

    event_type: str
    table: type[Member | Grant | Token | Session]
    rows: Select[*tuple[Any, ...]]


def delete(change: Change, noun: Noun, row: Any, workspace_ids: Collection[str] = ()) -> None:
    """Delete a row and everything that references it. Lock the row and its tokens before this call."""
    change.record_deletion(noun, row, workspace_ids)
    room = MAX_EVENTS
    for kind in _KINDS:
        if hasattr(kind.table, noun.id_name):
            statement = kind.rows.where(getattr(kind.table, noun.id_name) == row.id)
            room -= _record_kind(change, noun.deleted, kind, statement, room)
    change.connection.execute(sql.delete(noun.table).where(noun.table.id == row.id))


def _record_kind(change: Change, by: str, kind: _Kind, statement: Select[*tuple[Any, ...]], room: int) -> int:
    """Record up to `room` rows and the number of the others, and return how many rows were recorded."""
    parameters = {"now": change.now}
    locked = statement.limit(room).with_for_update(of=kind.table)
    rows = [row._asdict() for row in change.connection.execute(locked, parameters)]
    ended: list[dict[str, Any]] = []
    for row in rows:
        before = {"before": {"role": row.pop("role")}} if "role" in row else {}
        ended.append(_build(change, kind, before | {"by": by}, **row))
    if len(rows) == room:
        counted = statement.order_by(None).subquery()
        totals = select(counted.c.workspace_id, func.count()).group_by(counted.c.workspace_id)
        recorded = Counter(row["workspace_id"] for row in rows)
        for workspace_id, total in change.connection.execute(totals, parameters):
            if others := total - recorded[workspace_id]:
                ended.append(_build(change, kind, {"by": by, "count": others}, workspace_id=workspace_id))
    events.record_many(change.connection, ended)
    return len(rows)


def _build(change: Change, kind: _Kind, details: dict[str, Any], **ids: str | None) -> dict[str, Any]:
    return events.build(kind.event_type, change.now, client_id=change.caller.id, details=details, **ids)


_KINDS: Final = (
    _Kind(
        events.MEMBER_REMOVED,
        Member,
        select(Member.workspace_id, Member.user_id, Member.role).order_by(
            Member.workspace_id, Member.user_id
        ),
    ),
    _Kind(
        events.GRANT_REMOVED,
        Grant,
        select(Grant.app_id, Grant.user_id, App.workspace_id)
        .join(App, App.id == Grant.app_id)
        .order_by(Grant.app_id, Grant.user_id),
    ),
    _Kind(
        events.TOKEN_REVOKED,
        Token,
        select(Token.id.label("token_id"), Token.app_id, Token.workspace_id, Token.user_id)
        .where(
            Token.revoked_at.is_(None),
            Token.expires_at > bindparam("now", type_=UtcDateTime),
            has_stayed(Token),
        )
        .order_by(Token.id),
    ),
    _Kind(
        events.SESSION_ENDED,
        Session,
        select(
            Session.id.label("session_id"),
            Session.token_id,
            Session.app_id,
            Session.workspace_id,
            Session.user_id,
        )
        .where(*LIVE_SESSION, has_stayed(Session))
        # Every transaction locks several sessions in this order, to avoid a deadlock.
        .order_by(Session.id),
    ),
)

"""What somebody has left in workspaces that they belong to no longer: grants, tokens, sessions.

It opens nothing, and revives when they come back. It must not revive for another person.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, bindparam, delete, not_, select, update
from sqlalchemy.sql.elements import ColumnElement

from pat_service import events
from pat_service.callers import Caller, reaches_workspace
from pat_service.database import UtcDateTime
from pat_service.models import LIVE_SESSION, App, Grant, Session, Token


def end_elsewhere(connection: Connection, caller: Caller, user_id: str, now: datetime) -> None:
    """End what the user has left outside the caller's workspaces: the id is to be somebody else's.

    The trail tells each workspace of its own, and does not say by whom. Hold the user's tokens first.
    """
    parameters = {"user": user_id, "now": now} | caller.reach()
    grants = connection.execute(_grants, parameters).all()
    for app_id in {row.app_id for row in grants}:
        connection.execute(_take, {"app": app_id, "user": user_id})
    tokens = connection.execute(_revoke, parameters).all()
    # Held in the order of everybody who ends several, so that nobody waits in a circle.
    connection.execute(_hold, parameters).all()
    sessions = connection.execute(_end, parameters).all()
    for type_, rows in (
        (events.GRANT_REMOVED, grants),
        (events.TOKEN_REVOKED, tokens),
        (events.SESSION_ENDED, sessions),
    ):
        common: dict[str, Any] = {"type": type_, "at": now, "request_id": events.request_id.get()}
        events.record_many(connection, [common | row._asdict() for row in rows])


_user: ColumnElement[str] = bindparam("user")
_now = bindparam("now", type_=UtcDateTime)
_grants = (
    select(Grant.app_id, Grant.user_id, App.workspace_id)
    .join(App, App.id == Grant.app_id)
    .where(Grant.user_id == _user, not_(reaches_workspace(App.workspace_id)))
)
_take = delete(Grant).where(and_(Grant.app_id == bindparam("app"), Grant.user_id == _user))
_revoke = (
    update(Token)
    .where(Token.user_id == _user, Token.revoked_at.is_(None), not_(reaches_workspace(Token.workspace_id)))
    .values(revoked_at=_now)
    .returning(Token.id.label("token_id"), Token.app_id, Token.workspace_id, Token.user_id)
)
_open_elsewhere = (
    Session.user_id == _user,
    *LIVE_SESSION,
    not_(reaches_workspace(Session.workspace_id)),
)
_hold = select(Session.id).where(*_open_elsewhere).order_by(Session.id).with_for_update()
_end = (
    update(Session)
    .where(*_open_elsewhere)
    .values(ended_at=_now)
    .returning(
        Session.id.label("session_id"),
        Session.token_id,
        Session.app_id,
        Session.workspace_id,
        Session.user_id,
    )
)

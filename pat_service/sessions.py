"""Open a session with a token, check it at each request, end it."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import bindparam, insert, select, update

from pat_service import events
from pat_service.access import FACTS, Viewer, facts_of, viewer
from pat_service.credentials import Keyring, Secret, SessionClaims
from pat_service.database import AnyRow, UtcDateTime, reading, transaction
from pat_service.errors import (
    SessionExpired,
    SessionInvalid,
    SessionRevoked,
)
from pat_service.models import App, Session, User, new_id
from pat_service.tokens import Recognised, recognise, still_opens


@dataclass(frozen=True, slots=True)
class OpenSession:
    """A session that is good at this moment. `expires_in` is in whole seconds."""

    id: str
    viewer: Viewer
    expires_in: int
    origins: list[str]


def open(keyring: Keyring, secret: Secret, app_id: str, now: datetime) -> tuple[OpenSession, Secret]:
    """Open the app with the token, and return the session with its signed JWT.

    Raise what `tokens.recognise` raises; then nothing was opened.
    """
    with events.recording_refusals(events.OPEN_REFUSED, now):
        while True:
            token = recognise(keyring, secret, app_id, now)
            session_id = new_id()
            if _insert_session(token, session_id, now):
                break
            # Replaced or revoked since it was read: read again, to say which.
    claims = SessionClaims(
        session_id=session_id,
        user_id=token.viewer.user.id,
        app_id=app_id,
        workspace_id=token.viewer.workspace.id,
        issued_at=now,
        expires_at=now + timedelta(seconds=token.session_seconds),
    )
    opened = OpenSession(session_id, token.viewer, token.session_seconds, token.origins)
    return opened, Secret(keyring.sign_session(claims))


def _insert_session(token: Recognised, session_id: str, now: datetime) -> bool:
    ids: dict[str, Any] = {
        "token_id": token.id,
        "app_id": token.viewer.app.id,
        "user_id": token.viewer.user.id,
        "workspace_id": token.viewer.workspace.id,
    }
    with transaction() as connection:
        row = ids | {
            "id": session_id,
            "moves": token.moves,
            "created_at": now,
            "expires_at": now + timedelta(seconds=token.session_seconds),
        }
        if connection.execute(_hold_token, {"digest": token.digest}).first() is None:
            return False
        connection.execute(_insert, row)
        events.record(connection, events.SESSION_OPENED, now, session_id=session_id, **ids)
    return True


def check(keyring: Keyring, token: str, app_id: str, now: datetime) -> OpenSession:
    """Return the session that the JWT stands for, if it is good for this app at this moment.

    Read from the database each time, so that a revocation, an archived user, a lost grant or a moved
    app counts on the next request. Raise SessionInvalid, SessionExpired, SessionRevoked, AccessRevoked.
    """
    with events.recording_refusals(events.SESSION_REFUSED, now):
        claims = keyring.read_session(token, app_id)
    with reading() as connection:
        row = connection.execute(_by_id, {"id": claims.session_id}).first()
    if row is None or (row.session_app, row.session_user, row.session_workspace) != (
        app_id,
        claims.user_id,
        claims.workspace_id,
    ):
        raise SessionInvalid
    with events.recording_refusals(events.SESSION_REFUSED, now, **_ids(row)):
        if row.ended_at is not None:
            raise SessionRevoked
        if row.expires_at <= now:
            raise SessionExpired
        seen_by = viewer(row, row.moves)
    expires_in = int((row.expires_at - now).total_seconds())
    return OpenSession(row.session_id, seen_by, expires_in, row.app_origins)


def end(session: OpenSession, now: datetime) -> None:
    """End the session at once; its next request is refused. Ending it twice is the same as once."""
    ids: dict[str, Any] = {
        "session_id": session.id,
        "app_id": session.viewer.app.id,
        "user_id": session.viewer.user.id,
    }
    with transaction() as connection:
        if connection.execute(_end, {"ended": session.id, "now": now}).rowcount:
            events.record(connection, events.SESSION_ENDED, now, **ids)


def _ids(row: AnyRow) -> dict[str, str]:
    return {"session_id": row.session_id, "app_id": row.session_app, "user_id": row.session_user}


# Statements, built once.

_hold_token = still_opens(bindparam("digest"))
_insert = insert(Session)
_end = (
    update(Session)
    .where(Session.id == bindparam("ended"), Session.ended_at.is_(None))
    .values(ended_at=bindparam("now", type_=UtcDateTime))
)
_by_id = (
    select(
        *FACTS,
        Session.id.label("session_id"),
        Session.app_id.label("session_app"),
        Session.user_id.label("session_user"),
        Session.workspace_id.label("session_workspace"),
        Session.moves,
        Session.expires_at,
        Session.ended_at,
    )
    .select_from(facts_of(Session.__table__, App.id == Session.app_id, User.id == Session.user_id))
    .where(Session.id == bindparam("id"))
)

"""Open a session with a token, check it at each request, end it."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, bindparam, func, insert, select, update

from pat_service import metrics
from pat_service.credentials import Keyring, Secret, SessionClaims
from pat_service.errors import (
    OriginNotAllowed,
    Refused,
    SessionExpired,
    SessionInvalid,
    SessionRevoked,
    TooManySessions,
)
from pat_service.rules import events
from pat_service.rules.access import (
    FACTS,
    Place,
    Viewer,
    Visitor,
    facts_of,
    meant_for,
    narrow_origins,
    require_viewer,
    require_visitor,
)
from pat_service.rules.tokens import USE, Recognised, recognise, use, use_of
from pat_service.shapes import ANY_ORIGIN
from pat_service.storage.database import AnyRow, UtcDateTime, transaction
from pat_service.storage.models import LIVE_SESSION, App, Session, User, Workspace, new_id
from pat_service.storage.prepared import Query, Writes


@dataclass(frozen=True, slots=True)
class Opened:
    """A session that is good at this moment. `expires_in` is in whole seconds.

    `own_origins` are those of the app or launcher, `origins` what the token leaves of them. A session
    that is `workspace_wide` is good for every app of the workspace that the user may open.
    """

    id: str
    token_id: str
    client_id: str
    expires_in: int
    origins: list[str]
    own_origins: list[str]
    workspace_wide: bool


@dataclass(frozen=True, slots=True)
class OpenSession(Opened):
    """A session at an app."""

    viewer: Viewer


@dataclass(frozen=True, slots=True)
class OpenLauncher(Opened):
    """A session at the launcher of its workspace."""

    visitor: Visitor


def open(
    keyring: Keyring,
    secret: Secret,
    app_id: str,
    now: datetime,
    *,
    most: int | None = None,
    parent: str | None = None,
    slug: str | None = None,
) -> tuple[OpenSession, Secret]:
    """Open the app with the token, and return the session with its signed JWT.

    `most` limits the live sessions of one token. `parent` is the origin that the token was handed over
    from, where that is known; `slug` the one that the host names, where each app has its own. Raise what
    `tokens.recognise` raises, OriginNotAllowed or TooManySessions; then nothing was opened.
    """
    session, signed = _open(keyring, secret, Place(app_id=app_id, slug=slug), now, most, parent)
    assert isinstance(session, OpenSession)  # noqa: S101 - at an app there is a viewer
    return session, signed


def open_launcher(
    keyring: Keyring,
    secret: Secret,
    workspace_id: str,
    now: datetime,
    *,
    most: int | None = None,
    parent: str | None = None,
) -> tuple[OpenLauncher, Secret]:
    """Open the launcher of the workspace with the token; the rest is as with `open`."""
    session, signed = _open(keyring, secret, Place(workspace_id=workspace_id), now, most, parent)
    assert isinstance(session, OpenLauncher)  # noqa: S101 - at the launcher there is a visitor
    return session, signed


def _open(
    keyring: Keyring, secret: Secret, place: Place, now: datetime, most: int | None, parent: str | None
) -> tuple[OpenSession | OpenLauncher, Secret]:
    with events.recording_refusals(events.OPEN_REFUSED, now):
        while True:
            token = recognise(keyring, secret, place, now)
            session_id = new_id()
            opened = _opened(session_id, token.row.session_seconds, token.seen_by, token.row)
            if parent is not None and not {parent, ANY_ORIGIN} & set(opened.origins):
                raise OriginNotAllowed().about(**_ids(token.row))
            if _insert_session(keyring, secret, token, session_id, now, most):
                break
            # Replaced, revoked or used up since it was read: read again, to say which.
    metrics.OPENS.inc()
    claims = SessionClaims(
        session_id=session_id,
        user_id=token.row.user_id,
        app_id=token.row.target_app,
        workspace_id=token.row.workspace_id,
        issued_at=now,
        expires_at=now + timedelta(seconds=token.row.session_seconds),
    )
    return opened, Secret(keyring.sign_session(claims))


def _insert_session(
    keyring: Keyring, secret: Secret, token: Recognised, session_id: str, now: datetime, most: int | None
) -> bool:
    row = token.row
    ids = {
        "token_id": token.id,
        "client_id": row.client_id,
        "app_id": row.target_app,
        "workspace_id": row.workspace_id,
        "user_id": row.user_id,
    }
    session = ids | {
        "id": session_id,
        "key_id": keyring.current.id,
        "moves": row.moves,
        "attributes": row.attributes,
        "allowed_origins": row.allowed_origins,
        "created_at": now,
        "expires_at": now + timedelta(seconds=row.session_seconds),
    }
    # Also a session of a workspace token is told with the app that it opened.
    told = events.row(events.SESSION_OPENED, now, session_id=session_id, **(ids | {"app_id": row.app_id}))
    if not (row.single_use or most is not None or not token.kept_under(keyring.current)):
        return _opening.run(use_of(keyring, secret, token, now), session, told)
    with transaction() as connection:
        if not use(connection, keyring, secret, token, now):
            return False
        if row.single_use:
            _end_first(connection, session_id, ids, now)
        if most is not None:
            _require_room(connection, ids, most, now)
        connection.execute(_insert, session)
        events.add(connection, told)
    return True


def _end_first(connection: Connection, session_id: str, ids: dict[str, Any], now: datetime) -> None:
    """End what a single-use token has opened before: the repeat opens in its place."""
    for first in connection.execute(_live_of_token, {"token": ids["token_id"], "now": now}).all():
        connection.execute(_end, {"ended": first.id, "now": now})
        details = {"by": session_id}
        events.record(connection, events.SESSION_REPLACED, now, session_id=first.id, details=details, **ids)


def _require_room(connection: Connection, ids: dict[str, Any], most: int, now: datetime) -> None:
    # Exact, since `use` holds the token's row: openings of one token follow each other.
    live = connection.execute(_count_of_token, {"token": ids["token_id"], "now": now}).one()
    if live.number >= most:
        wait = max(1, int((live.first_end - now).total_seconds()) + 1)
        raise TooManySessions(wait).about(**ids)


def _opened(
    session_id: str, expires_in: int, seen_by: Viewer | Visitor, row: AnyRow
) -> OpenSession | OpenLauncher:
    at_app = isinstance(seen_by, Viewer)
    own = list(row.app_origins if at_app else row.workspace_origins)
    common = (
        session_id,
        row.token_id,
        row.client_id,
        expires_in,
        narrow_origins(own, row.allowed_origins),
        own,
        row.target_app is None,
    )
    return OpenSession(*common, seen_by) if isinstance(seen_by, Viewer) else OpenLauncher(*common, seen_by)


def check(
    keyring: Keyring, token: str, app_id: str, now: datetime, *, slug: str | None = None
) -> OpenSession:
    """Return the session that the JWT stands for, if it is good for this app at this moment.

    Read from the database each time, so that a revocation, an archived user, a lost grant or a moved
    app counts on the next request. `slug` is as with `open`. Raise SessionInvalid, SessionExpired,
    SessionRevoked, AccessRevoked.
    """
    session = _check(keyring, token, Place(app_id=app_id, slug=slug), now)
    assert isinstance(session, OpenSession)  # noqa: S101 - at an app there is a viewer
    return session


def check_launcher(keyring: Keyring, token: str, workspace_id: str, now: datetime) -> OpenLauncher:
    """Return the session that the JWT stands for, if it is good for the launcher; else as `check`."""
    session = _check(keyring, token, Place(workspace_id=workspace_id), now)
    assert isinstance(session, OpenLauncher)  # noqa: S101 - at the launcher there is a visitor
    return session


def _check(keyring: Keyring, token: str, place: Place, now: datetime) -> OpenSession | OpenLauncher:
    row = None
    try:
        row = find(keyring.read_session(token, place.app_id), place)
        seen_by = judge(row, place, now)
    except Refused as refusal:
        ids = {} if row is None else _ids(row) | {"session_id": row.session_id}
        events.refused(events.SESSION_REFUSED, refusal, now, **ids)
        raise
    return _opened(row.session_id, int((row.expires_at - now).total_seconds()), seen_by, row)


def find(claims: SessionClaims, place: Place) -> AnyRow:
    """Return the session of the claims, with what binds it to the place; or raise SessionInvalid."""
    row: AnyRow | None = _by_id.first({"id": claims.session_id, "app": place.known_app})
    if row is None or (row.target_app, row.session_user, row.session_workspace) != (
        claims.app_id,
        claims.user_id,
        claims.workspace_id,
    ):
        raise SessionInvalid
    return row


def judge(row: AnyRow, place: Place, now: datetime) -> Viewer | Visitor:
    """Return who looks at the place with the session that was found, or raise as `check` does."""
    if not meant_for(row, place):
        raise SessionInvalid
    if row.ended_at is not None:
        raise SessionRevoked
    if row.expires_at <= now:
        raise SessionExpired
    return require_visitor(row) if place.app_id is None else require_viewer(row)


def enter(session: OpenSession, now: datetime) -> None:
    """Tell the trail that a session which was open already came to this app: no new one is made."""
    ids: dict[str, Any] = {
        "session_id": session.id,
        "token_id": session.token_id,
        "client_id": session.client_id,
        "app_id": session.viewer.app.id,
        "user_id": session.viewer.user.id,
        "workspace_id": session.viewer.workspace.id,
    }
    with transaction() as connection:
        events.record(connection, events.SESSION_ENTERED, now, **ids)


def end(session: Opened, now: datetime) -> None:
    """End the session at once; its next request is refused. Ending it twice is the same as once."""
    with transaction() as connection:
        ended = connection.execute(_end_returning, {"ended": session.id, "now": now}).first()
        if ended is not None:
            events.record(connection, events.SESSION_ENDED, now, session_id=session.id, **ended._asdict())


def _ids(row: AnyRow) -> dict[str, str]:
    ids = {
        "token_id": row.token_id,
        "client_id": row.client_id,
        "app_id": row.target_app,
        "user_id": row.user_id,
        "workspace_id": row.workspace_id,
    }
    return {name: id_ for name, id_ in ids.items() if id_ is not None}


# Statements, built once.

_now = bindparam("now", type_=UtcDateTime)
_insert = insert(Session)
_opening = Writes(
    {"sqlite": USE, "postgresql": USE},
    (
        Session,
        (
            *("id", "token_id", "client_id", "app_id", "workspace_id", "user_id", "key_id", "moves"),
            *("attributes", "allowed_origins", "created_at", "expires_at"),
        ),
    ),
    events.ROW,
)
_end = (
    update(Session).where(Session.id == bindparam("ended"), Session.ended_at.is_(None)).values(ended_at=_now)
)
_end_returning = _end.returning(
    Session.token_id, Session.client_id, Session.app_id, Session.workspace_id, Session.user_id
)
_live = (Session.token_id == bindparam("token"), *LIVE_SESSION)
_live_of_token = select(Session.id).where(*_live)
_count_of_token = select(func.count().label("number"), func.min(Session.expires_at).label("first_end")).where(
    *_live
)
_by_id = Query(
    select(
        *FACTS,
        Session.id.label("session_id"),
        Session.token_id,
        Session.client_id,
        Session.app_id.label("target_app"),
        Session.user_id.label("session_user"),
        Session.workspace_id.label("session_workspace"),
        Session.moves,
        Session.attributes,
        Session.allowed_origins,
        Session.expires_at,
        Session.ended_at,
    )
    .select_from(
        facts_of(
            Session.__table__,
            App.id == bindparam("app"),
            User.id == Session.user_id,
            Workspace.id == Session.workspace_id,
        )
    )
    .where(Session.id == bindparam("id"))
)

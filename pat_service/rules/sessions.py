"""Open a session with a token, check it at each request, and end it."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Protocol, TypeAlias

from sqlalchemy import Connection, bindparam, func, insert, select, update

from pat_service import errors, metrics
from pat_service.credentials import Keyring, Secret, SessionClaims
from pat_service.rules import access, events
from pat_service.rules.access import AnyViewer, CredentialFacts, Place, Viewer, Visitor
from pat_service.rules.tokens import MARK_USED, ValidToken, build_use_values, check_token, use_token
from pat_service.shapes import ANY_ORIGIN
from pat_service.storage.database import UtcDateTime, transaction
from pat_service.storage.models import LIVE_SESSION, Session, new_id
from pat_service.storage.prepared import Query, Writes


class SessionRow(CredentialFacts, Protocol):
    """A session with its `FACTS`."""

    session_id: str
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class Opened:
    """A session that is valid now. `expires_in` is in whole seconds.

    `own_origins` are the allowed origins of the app or launcher. `origins` are those of them that the token
    allows too. A `workspace_wide` session opens every app of the workspace that the user may open.
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


AnySession: TypeAlias = OpenSession | OpenLauncher


def open(
    keyring: Keyring,
    secret: Secret,
    place: Place,
    now: datetime,
    *,
    max_sessions: int | None = None,
    parent: str | None = None,
) -> tuple[AnySession, Secret]:
    """Open the place with the token; return the session and its signed JWT.

    `max_sessions` limits the live sessions of one token. `parent` is the origin of the page that passed on
    the token, if known. Raise the errors of `tokens.check_token`, OriginNotAllowed or TooManySessions.
    """
    with events.recording_refusals(events.OPEN_REFUSED, now):
        while True:
            token = check_token(keyring, secret, place, now)
            row, session_id = token.row, new_id()
            opened = _build_session(session_id, row.session_seconds, token.viewer, row)
            if parent is not None and not {parent, ANY_ORIGIN} & set(opened.origins):
                raise errors.OriginNotAllowed().about(**_ids(row))
            if _insert_session(keyring, secret, token, session_id, now, max_sessions):
                break
            # The token changed after the check, so check again to raise the right error.
    metrics.OPENS.inc()
    claims = SessionClaims(
        session_id=session_id,
        user_id=row.user_id,
        app_id=row.target_app,
        workspace_id=row.workspace_id,
        issued_at=now,
        expires_at=now + timedelta(seconds=row.session_seconds),
    )
    return opened, Secret(keyring.sign_session(claims))


def _insert_session(
    keyring: Keyring,
    secret: Secret,
    token: ValidToken,
    session_id: str,
    now: datetime,
    max_sessions: int | None,
) -> bool:
    """Use the token and insert its session with the event; return False if the token changed."""
    row, ids = token.row, _ids(token.row)
    session = ids | {
        "id": session_id,
        "key_id": keyring.current.id,
        "moves": row.moves,
        "attributes": row.attributes,
        "allowed_origins": row.allowed_origins,
        "created_at": now,
        "expires_at": now + timedelta(seconds=row.session_seconds),
    }
    # The event names the opened app, even if the token is for the whole workspace.
    event = events.build(events.SESSION_OPENED, now, session_id=session_id, **ids | {"app_id": row.app_id})
    if not row.single_use and max_sessions is None and token.is_under(keyring.current):
        return _insert_at_once.run(build_use_values(keyring, secret, token, now), session, event)
    with transaction() as connection:
        if not use_token(connection, keyring, secret, token, now):
            return False
        if row.single_use:
            _end_replaced(connection, token.id, session_id, now)
        if max_sessions is not None:
            _require_room(connection, ids, max_sessions, now)
        connection.execute(insert(Session), session)
        events.record_many(connection, [event])
    return True


def _end_replaced(connection: Connection, token_id: str, session_id: str, now: datetime) -> None:
    """End the first session of a single-use token, since a repeated opening replaces it."""
    for ended in connection.execute(_end_of_token, {"token": token_id, "now": now}).all():
        details = {"by": session_id}
        events.record(connection, events.SESSION_REPLACED, now, details=details, **ended._asdict())


def _require_room(connection: Connection, ids: dict[str, Any], max_sessions: int, now: datetime) -> None:
    # The count is exact, since `use_token` has locked the token.
    live = connection.execute(_count_of_token, {"token": ids["token_id"], "now": now}).one()
    if live.number >= max_sessions:
        wait = max(1, int((live.first_end - now).total_seconds()) + 1)
        raise errors.TooManySessions(wait).about(**ids)


def _build_session(session_id: str, expires_in: int, viewer: AnyViewer, row: CredentialFacts) -> AnySession:
    own = list(row.app_origins if isinstance(viewer, Viewer) else row.workspace_origins)
    origins = access.narrow_origins(own, row.allowed_origins)
    common = (session_id, row.token_id, row.client_id, expires_in, origins, own, row.target_app is None)
    return OpenSession(*common, viewer) if isinstance(viewer, Viewer) else OpenLauncher(*common, viewer)


def check(keyring: Keyring, token: str, place: Place, now: datetime) -> AnySession:
    """Return the session of the JWT if it is valid at the place now.

    Each check queries the database, so every change of access takes effect on the next request. Revocations,
    archived users, removed grants and moved apps are changes of access. Raise SessionInvalid, SessionExpired,
    SessionRevoked or AccessRevoked.
    """
    row = None
    try:
        row = find(keyring.read_session(token, place.app_id), place)
        viewer = require_valid(row, place, now)
    except errors.Refused as refusal:
        ids = {} if row is None else _ids(row) | {"session_id": row.session_id}
        events.record_refusal(events.SESSION_REFUSED, refusal, now, **ids)
        raise
    return _build_session(row.session_id, int((row.expires_at - now).total_seconds()), viewer, row)


def find(claims: SessionClaims, place: Place) -> SessionRow:
    """Return the session of the claims with its facts at the place, or raise SessionInvalid."""
    row: SessionRow | None = _by_id.first({"id": claims.session_id, "app": place.valid_app_id})
    claimed = (claims.app_id, claims.user_id, claims.workspace_id)
    if row is None or (row.target_app, row.user_id, row.workspace_id) != claimed:
        raise errors.SessionInvalid
    return row


def require_valid(row: SessionRow, place: Place, now: datetime) -> AnyViewer:
    """Return the viewer or visitor of the session at the place, or raise the errors of `check`."""
    if not access.is_for_place(row, place):
        raise errors.SessionInvalid
    if row.ended_at is not None:
        raise errors.SessionRevoked
    if row.expires_at <= now:
        raise errors.SessionExpired
    return access.require_access(row, place)


def record_entry(session: OpenSession, now: datetime) -> None:
    """Record that an open session has entered another app of its workspace."""
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
    """End the session at once: its next request is refused. Ending it twice changes nothing."""
    with transaction() as connection:
        ended = connection.execute(_end_by_id, {"session": session.id, "now": now}).first()
        if ended is not None:
            events.record(connection, events.SESSION_ENDED, now, **ended._asdict())


def _ids(row: CredentialFacts) -> dict[str, Any]:
    return {
        "token_id": row.token_id,
        "client_id": row.client_id,
        "app_id": row.target_app,
        "workspace_id": row.workspace_id,
        "user_id": row.user_id,
    }


# Statements, built once.

#: Columns that `_insert_at_once` leaves null.
SET_LATER: Final = (
    *("ended_at", "workspace_token", "launcher_session_id", "code_digest", "replaced_by", "unconfirmed"),
)
_insert_at_once = Writes(
    {"sqlite": MARK_USED, "postgresql": MARK_USED},
    (Session, [column.name for column in Session.__table__.c if column.name not in SET_LATER]),
    events.ROW,
)
_live_of_token = (Session.token_id == bindparam("token"), *LIVE_SESSION)
_end = (
    update(Session)
    .values(ended_at=bindparam("now", type_=UtcDateTime))
    .returning(
        Session.id.label("session_id"),
        Session.token_id,
        Session.client_id,
        Session.app_id,
        Session.workspace_id,
        Session.user_id,
    )
)
_end_by_id = _end.where(Session.id == bindparam("session"), Session.ended_at.is_(None))
_end_of_token = _end.where(*_live_of_token)
_count_of_token = select(func.count().label("number"), func.min(Session.expires_at).label("first_end")).where(
    *_live_of_token
)
_by_id = Query(
    access.select_credentials(
        Session, Session.id.label("session_id"), Session.token_id, Session.ended_at
    ).where(Session.id == bindparam("id"))
)

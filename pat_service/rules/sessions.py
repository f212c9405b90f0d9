"""Check a session at each request, and end it. `openings` opens sessions."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Protocol, TypeAlias

from sqlalchemy import bindparam, or_, select, update

from pat_service import errors
from pat_service.credentials import Keyring, SessionClaims
from pat_service.rules import access, events
from pat_service.rules.access import AnyViewer, CredentialFacts, Host, Place, Viewer, Visitor
from pat_service.rules.tokens import END_REPEAT
from pat_service.storage.database import UtcDateTime, reading, transaction
from pat_service.storage.models import LIVE_SESSION, ROLES, Session
from pat_service.storage.prepared import Query

#: The renewals of one session that `check_any` follows. The relay asks often, so it meets one or two.
MAX_FOLLOWED: Final = 20


class SessionRow(CredentialFacts, Protocol):
    """A session with its `FACTS`."""

    session_id: str
    created_at: datetime
    ended_at: datetime | None
    launcher_session_id: str | None
    replaced_by: str | None
    unconfirmed: bool | None
    preview_role: str | None


@dataclass(frozen=True, slots=True)
class Opened:
    """A session that is valid now. `expires_in` is in whole seconds.

    `own_origins` are the allowed origins of the app or launcher. `origins` are those of them that the token
    allows too. `from_launcher`: a launcher opened the app, so it may frame it as well.
    """

    id: str
    token_id: str
    client_id: str
    expires_in: int
    origins: list[str]
    own_origins: list[str]
    from_launcher: bool


@dataclass(frozen=True, slots=True)
class OpenSession(Opened):
    """A session at an app."""

    viewer: Viewer


@dataclass(frozen=True, slots=True)
class OpenLauncher(Opened):
    """A session at the launcher of its workspace."""

    visitor: Visitor


AnySession: TypeAlias = OpenSession | OpenLauncher


def build_session(
    session_id: str, expires_in: int, viewer: AnyViewer, row: CredentialFacts, *, from_launcher: bool = False
) -> AnySession:
    """Return the session with the present facts of its row."""
    own = list(row.app_origins if isinstance(viewer, Viewer) else row.workspace_origins)
    origins = access.narrow_origins(own, row.allowed_origins)
    common = (session_id, row.token_id, row.client_id, expires_in, origins, own, from_launcher)
    return OpenSession(*common, viewer) if isinstance(viewer, Viewer) else OpenLauncher(*common, viewer)


def build_from_row(row: SessionRow, viewer: AnyViewer, now: datetime) -> AnySession:
    """Return the session of a stored row."""
    expires_in = int((row.expires_at - now).total_seconds())
    from_launcher = row.launcher_session_id is not None
    session = build_session(row.session_id, expires_in, viewer, row, from_launcher=from_launcher)
    # Only the console may frame a preview, whatever the app allows.
    return session if row.preview_role is None else replace(session, origins=list(row.allowed_origins or ()))


def check(keyring: Keyring, token: str, place: Place, now: datetime) -> AnySession:
    """Return the session of the JWT if it is valid at the place now.

    Each check queries the database, so every change of access takes effect on the next request. Revocations,
    archived users, removed grants and moved apps are changes of access. The first request of a session ends
    the session that it replaces. Raise SessionInvalid, SessionExpired, SessionRevoked, SessionReplaced or
    AccessRevoked.
    """
    row = None
    try:
        row = find(keyring.read_session(token, place.app_id))
        viewer = require_valid(keyring, row, place, now)
        if row.unconfirmed:
            _confirm(row, now)
    except errors.Refused as refusal:
        _record_refusal(refusal, row, now)
        raise
    return build_from_row(row, viewer, now)


def check_any(
    keyring: Keyring, session_ids: Sequence[str], host: Host, now: datetime, *, follow: bool = False
) -> OpenSession:
    """Return the first of these sessions at upstream apps that is valid at the viewer's host now.

    There is at least one. The checks are those of `check`. If none is valid, raise the error of the first.
    `follow` is for a connection that outlives its session: the successor of a replaced session counts. That
    is not the successor's first request.
    """
    failed: tuple[errors.Refused, SessionRow | None] | None = None
    for session_id in session_ids:
        row = _read_newest(session_id, now) if follow else _read(session_id)
        try:
            if row is None or row.app_upstream is None:
                raise errors.SessionInvalid
            viewer = require_valid(keyring, row, Place(row.target_app, host=host), now)
            if row.unconfirmed and not follow:
                _confirm(row, now)
        except errors.Unavailable:
            raise
        except errors.Refused as refusal:
            failed = failed or (refusal, row)
        else:
            session = build_from_row(row, viewer, now)
            assert isinstance(session, OpenSession)  # noqa: S101 - only apps have an upstream
            return session
    assert failed  # noqa: S101 - there is at least one session
    _record_refusal(*failed, now)
    raise failed[0]


def _read_newest(session_id: str, now: datetime) -> SessionRow | None:
    """Return the session, or its live successor if it was replaced."""
    row = _read(session_id)
    for _ in range(MAX_FOLLOWED):
        if row is None or row.replaced_by is None or (row.ended_at is None and row.expires_at > now):
            break
        row = _read(row.replaced_by)
    return row


def _read(session_id: str) -> SessionRow | None:
    row: SessionRow | None = _by_id.first({"id": session_id, "app": None})
    return row


def list_live(session_ids: Collection[str], now: datetime) -> set[str]:
    """Return those of the sessions that have not ended. Their users may have lost access."""
    if not session_ids:
        return set()
    with reading() as connection:
        return set(connection.scalars(_live_ids, {"ids": list(session_ids), "now": now}))


def _record_refusal(refusal: errors.Refused, row: SessionRow | None, now: datetime) -> None:
    ids = {} if row is None else ids_of(row) | {"session_id": row.session_id}
    events.record_refusal(events.SESSION_REFUSED, refusal, now, **ids)


def find(claims: SessionClaims) -> SessionRow:
    """Return the session of the claims with its facts, or raise SessionInvalid."""
    row = _read(claims.session_id)
    claimed = (claims.app_id, claims.user_id, claims.workspace_id, claims.issued_at)
    if row is None or (row.target_app, row.user_id, row.workspace_id, _begin(row)) != claimed:
        raise errors.SessionInvalid
    return row


def _begin(row: SessionRow) -> datetime:
    """Return the row's begin as its JWT has it, in whole seconds."""
    return row.created_at.replace(microsecond=0)


def require_valid(keyring: Keyring, row: SessionRow, place: Place, now: datetime) -> AnyViewer:
    """Return the viewer or visitor of the session at the place, or raise the errors of `check`."""
    if row.target_app != place.app_id or not access.is_for_place(keyring, row, place):
        raise errors.SessionInvalid
    has_expired = row.expires_at <= now
    if row.replaced_by is not None and (has_expired or row.ended_at is not None):
        raise errors.SessionReplaced
    # Later the JWT's expiry refuses the session without a query, so the answer must not depend on the end.
    if has_expired:
        raise errors.SessionExpired
    if row.ended_at is not None:
        raise errors.SessionRevoked
    viewer = access.require_access(row, place)
    if row.preview_role is not None and isinstance(viewer, Viewer):
        # The user may have lost the role since the preview began.
        return replace(viewer, role=max(viewer.role, row.preview_role, key=ROLES.index), preview=True)
    return viewer


def _confirm(row: SessionRow, now: datetime) -> None:
    """End what waits for the session's first request: its predecessor, and the repeat of its token."""
    values = {"session": row.session_id, "user": row.user_id, "token": row.token_id, "now": now}
    with transaction() as connection:
        # Lock the token before its sessions, to avoid a deadlock.
        connection.execute(END_REPEAT, values)
        connection.execute(LOCK, values)
        connection.execute(END_PREDECESSOR, values)
        if not connection.execute(_mark_confirmed, values).rowcount:
            raise errors.SessionRevoked


def end(session: AnySession, now: datetime) -> None:
    """End the session at once: its next request is refused. Ending it twice changes nothing.

    The sessions of the apps that a launcher opened end with its own.
    """
    viewer = session.viewer if isinstance(session, OpenSession) else session.visitor
    values = {"session": session.id, "user": viewer.user.id, "now": now}
    with transaction() as connection:
        connection.execute(LOCK, values)
        ended = connection.execute(_end_by_id, values).all()
        dependents = connection.execute(_end_dependents, values).all()
        by = {"by": session.id}
        for details, row in [(None, row) for row in ended] + [(by, row) for row in dependents]:
            events.record(connection, events.SESSION_ENDED, now, details=details, **row._asdict())


def depends_on(session_id: Any) -> Any:
    """Return the condition for sessions that end with this one. Add the user, whose index finds them."""
    return or_(Session.launcher_session_id == session_id, Session.replaced_by == session_id)


def ids_of(row: CredentialFacts) -> dict[str, Any]:
    """Return the ids for an event about the row."""
    return {
        "token_id": row.token_id,
        "client_id": row.client_id,
        "app_id": row.target_app,
        "workspace_id": row.workspace_id,
        "user_id": row.user_id,
    }


# Statements, built once.

#: End sessions, and return the ids of their events.
END: Any = (
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
_of_user = Session.user_id == bindparam("user")
#: Lock a session and those that end with it. Every transaction locks several sessions in the order of their
#: ids, to avoid a deadlock.
LOCK: Any = (
    select(Session.id)
    .where(
        _of_user,
        or_(Session.id == bindparam("session"), depends_on(bindparam("session"))),
        Session.ended_at.is_(None),
    )
    .order_by(Session.id)
    .with_for_update()
)
_end_by_id = END.where(Session.id == bindparam("session"), Session.ended_at.is_(None))
_end_dependents = END.where(_of_user, depends_on(bindparam("session")), *LIVE_SESSION)
#: End the session that this one replaces.
END_PREDECESSOR: Any = (
    update(Session)
    .where(_of_user, Session.replaced_by == bindparam("session"), Session.ended_at.is_(None))
    .values(ended_at=bindparam("now", type_=UtcDateTime))
)
_mark_confirmed = (
    update(Session)
    .where(Session.id == bindparam("session"), Session.ended_at.is_(None))
    .values(unconfirmed=None)
)
#: A session with its facts.
SESSIONS: Any = access.select_credentials(
    Session,
    Session.id.label("session_id"),
    Session.token_id,
    Session.created_at,
    Session.ended_at,
    Session.launcher_session_id,
    Session.replaced_by,
    Session.unconfirmed,
    Session.preview_role,
)
_live_ids = select(Session.id).where(Session.id.in_(bindparam("ids", expanding=True)), *LIVE_SESSION)
_by_id = Query(SESSIONS.where(Session.id == bindparam("id")))

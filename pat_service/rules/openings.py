"""Open a session with a token, from a launcher, or with a one-time code.

A code claims a session that is already open. It works once, within `CODE_SECONDS`, at the session's own app
or launcher. Only a code's redemption gives out the JWT of its session.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, bindparam, case, func, insert, or_, select, update
from sqlalchemy.orm import aliased
from sqlalchemy.sql.elements import ColumnElement

from pat_service import errors, metrics
from pat_service.credentials import CODE_PREFIX, Keyring, Secret, SessionClaims, generate
from pat_service.errors import Refused
from pat_service.rules import access, events
from pat_service.rules.access import Place, Viewer
from pat_service.rules.sessions import (
    END,
    END_PREDECESSOR,
    SESSIONS,
    AnySession,
    OpenLauncher,
    SessionRow,
    build_from_row,
    build_session,
    find,
    ids_of,
    require_valid,
)
from pat_service.rules.tokens import (
    MARK_USED,
    Navigation,
    ValidToken,
    build_use_values,
    check_token,
    use_token,
)
from pat_service.shapes import ANY_ORIGIN
from pat_service.storage.database import UtcDateTime, transaction
from pat_service.storage.models import COUNTED_SESSION, LIVE_SESSION, Session, User, new_id
from pat_service.storage.prepared import Query, Writes

#: A one-time code expires after this time.
CODE_SECONDS: Final = 30
CODE_LIFE: Final = timedelta(seconds=CODE_SECONDS)
#: A renewed session ends at its successor's first request, and at the latest after this time.
REPLACED_WITHIN: Final = timedelta(seconds=60)

#: The detail of a refusal.
NEEDS_APP_TOKEN: Final = (
    "The access token is for a workspace, but an app's page takes only a token of the app. Mint one for it."
)

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Framing:
    """The pages around a frame, by their origins.

    `ancestors` are the origins of all pages around the frame, or None if the browser does not report them.
    `launchers` are the origins of this installation's launchers. One of them may frame an app that it opened.
    """

    parent: str
    ancestors: Collection[str] | None = ()
    launchers: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Attempt:
    """How a caller opens a place.

    `navigation` is the browser's way, or None for a script or program. `handed_over`: the script of a frame
    has the credential. `former` is the JWT of the session that this opening renews. `max_sessions` limits the
    live sessions of one token.
    """

    place: Place
    navigation: Navigation | None = None
    handed_over: bool = False
    framing: Framing | None = None
    former: str | None = None
    max_sessions: int | None = None


@dataclass(frozen=True, slots=True)
class Ready:
    """A session that is about to open, with its JWT, or with a code for the navigation that claims it."""

    session: AnySession
    signed: Secret | None
    code: Secret | None


def open(
    keyring: Keyring, secret: Secret, attempt: Attempt, now: datetime, prepare: Callable[[Ready], Answer]
) -> Answer:
    """Open the place with the token, and return the answer that `prepare` makes from the session.

    If `prepare` raises an error, nothing has been opened or used. Raise the errors of `tokens.check_token`,
    OriginNotAllowed or TooManySessions.
    """
    with events.recording_refusals(events.OPEN_REFUSED, now):
        while True:
            token = check_token(keyring, secret, attempt.place, now, attempt.navigation)
            row, session_id = token.row, new_id()
            ids = ids_of(row) | {"app_id": attempt.place.app_id}
            opens_more = row.target_app is None and attempt.place.app_id is not None
            if opens_more and attempt.handed_over:
                raise errors.TokenInvalid(NEEDS_APP_TOKEN).about(**ids)
            session = build_session(session_id, row.session_seconds, token.viewer, row)
            former = _find_former(keyring, attempt, row.user_id, now)
            # A page of an app never loads from an address with a token that opens more than the app. Scripts
            # of an upstream app can read the address of the page around them, and a token may last a year.
            hides_token = (opens_more and attempt.navigation is not None) or (
                row.app_upstream is not None and attempt.navigation == "address"
            )
            if _must_move(session, attempt, former, ids) or hides_token:
                ready = Ready(session, None, generate(CODE_PREFIX))
            else:
                expires_at = now + timedelta(seconds=row.session_seconds)
                ready = Ready(session, _sign(keyring, session_id, ids, now, expires_at), None)
            answer = prepare(ready)
            if _insert_session(keyring, secret, token, ready, attempt, former, now):
                break
            # The token changed after the check, so check again to raise the right error.
    metrics.OPENS.inc()
    return answer


def redeem(
    keyring: Keyring, code: Secret, attempt: Attempt, now: datetime, prepare: Callable[[Ready], Answer]
) -> Answer:
    """Claim the session of a one-time code, and return the answer that `prepare` makes from the session.

    If `prepare` raises an error, the code can still be used. Raise TokenInvalid if the code is unknown, used
    or for another place, else TokenExpired, OriginNotAllowed or the errors of `sessions.require_valid`.
    """
    with events.recording_refusals(events.OPEN_REFUSED, now):
        digest, row = _find_by_code(keyring, code)
        try:
            viewer = _require_redeemable(keyring, row, attempt.place, now)
            session = build_from_row(row, viewer, now)
            former = _find_former(keyring, attempt, row.user_id, now)
            if _must_move(session, attempt, former, ids_of(row)):
                return prepare(Ready(session, None, code))
        except Refused as refusal:
            raise refusal.about(session_id=row.session_id, **ids_of(row)) from None
        signed = _sign(keyring, session.id, ids_of(row), row.created_at, row.expires_at)
        answer = prepare(Ready(session, signed, None))
        with transaction() as connection:
            replaces = former is not None and _replace(
                connection, former, ids_of(row), session.id, row.expires_at, now
            )
            values = {"session": session.id, "digest": digest, "now": now, "code_since": now - CODE_LIFE}
            statement = _redeem_successor if replaces else _redeem
            if not connection.execute(statement, values).rowcount:
                raise errors.TokenInvalid().about(session_id=row.session_id, **ids_of(row))
    return answer


def enter(
    keyring: Keyring, launcher: OpenLauncher, app_id: str, now: datetime, *, own_host: bool
) -> tuple[Secret, Viewer]:
    """Open an app from a launcher; return a one-time code for the session, and its viewer.

    The session ends with the launcher's at the latest. `own_host`: each app has a host, which contains its
    slug. Raise AppNotFound, AppForbidden, SessionRevoked or the errors of `access.require_host`.
    """
    with events.recording_refusals(events.OPEN_REFUSED, now), transaction() as connection:
        # The session will reference the user. Lock them in the order of a deletion, to avoid a deadlock.
        connection.execute(_share_user, {"user": launcher.visitor.user.id})
        values = {"id": launcher.id, "app": Place(app_id=app_id).valid_app_id, "now": now}
        # The lock makes a concurrent end of the launcher's session wait, which then ends the new one too.
        row = connection.execute(_live_launcher, values).first()
        if row is None:
            raise errors.SessionRevoked
        code, session_id = generate(CODE_PREFIX), new_id()
        ids = ids_of(row) | {"app_id": row.app_id}
        viewer = _require_openable(row, ids, own_host=own_host)
        session = ids | {
            "id": session_id,
            "key_id": keyring.current.id,
            "moves": row.app_moves,
            "attributes": row.attributes,
            "allowed_origins": row.allowed_origins,
            "created_at": now,
            "expires_at": row.expires_at,
            "workspace_token": True,
            "launcher_session_id": row.replaced_by or row.session_id,
            "code_digest": keyring.current.digest(code),
        }
        connection.execute(insert(Session), session)
        details = {"launcher": row.session_id}
        events.record(connection, events.SESSION_OPENED, now, details=details, session_id=session_id, **ids)
    metrics.OPENS.inc()
    return code, viewer


def _require_openable(row: SessionRow, ids: dict[str, Any], *, own_host: bool) -> Viewer:
    if row.app_id is None or row.app_workspace != row.workspace_id:
        raise errors.AppNotFound("No such app in this workspace.").about(**ids | {"app_id": None})
    try:
        access.require_host(row, own_host=own_host)
    except errors.Conflict as refusal:
        raise refusal.about(**ids) from None
    if not access.may_open(row):
        raise errors.AppForbidden().about(**ids)
    return access.require_viewer(row)


def _sign(
    keyring: Keyring, session_id: str, ids: dict[str, Any], issued_at: datetime, expires_at: datetime
) -> Secret:
    place = (ids["user_id"], ids["app_id"], ids["workspace_id"])
    return Secret(keyring.sign_session(SessionClaims(session_id, *place, issued_at, expires_at)))


# ---- The pages around a frame ----


def _must_move(session: AnySession, attempt: Attempt, former: AnySession | None, ids: dict[str, Any]) -> bool:
    """Return whether only a navigation can apply the token's origins. Raise OriginNotAllowed.

    A browser that does not report the pages around a frame still applies a policy to a page that it loads.
    The page of a renewed session has been loaded with the policy of that session.
    """
    framing = attempt.framing
    if framing is None:
        return False
    allowed = {*session.origins, *(framing.launchers if session.from_launcher else ())}
    around = {framing.parent, *(framing.ancestors or ())}
    if ANY_ORIGIN not in allowed and not around <= allowed:
        raise errors.OriginNotAllowed().about(**ids)
    if framing.ancestors is not None or session.origins == session.own_origins:
        return False
    if former is None:
        return True
    return not {*former.origins, *(framing.launchers if former.from_launcher else ())} <= allowed


# ---- Tokens ----


def _insert_session(
    keyring: Keyring,
    secret: Secret,
    token: ValidToken,
    ready: Ready,
    attempt: Attempt,
    former: AnySession | None,
    now: datetime,
) -> bool:
    """Use the token and insert its session with the event; return False if the token changed."""
    row, navigation = token.row, attempt.navigation
    ids = ids_of(row) | {"app_id": attempt.place.app_id}
    session = ids | {
        "id": ready.session.id,
        "key_id": keyring.current.id,
        # A workspace's token has no count of an app's moves.
        "moves": row.moves if row.target_app == ids["app_id"] else row.app_moves,
        "attributes": row.attributes,
        "allowed_origins": row.allowed_origins,
        "created_at": now,
        "expires_at": now + timedelta(seconds=row.session_seconds),
        "workspace_token": row.target_app is None or None,
    }
    event = events.build(events.SESSION_OPENED, now, session_id=ready.session.id, **ids)
    max_sessions = attempt.max_sessions
    stepwise = row.single_use or max_sessions is not None or former is not None or ready.code is not None
    if not stepwise and token.is_under(keyring.current):
        use = build_use_values(keyring, secret, token, now, navigation)
        return _insert_at_once.run(use, session, event)
    with transaction() as connection:
        if not use_token(connection, keyring, secret, token, now, navigation):
            return False
        if row.single_use:
            _end_repeated(connection, token.id, ready.session.id, now)
        replaces = former is not None and _replace(
            connection, former, ids, ready.session.id, session["expires_at"], now
        )
        if max_sessions is not None:
            _require_room(connection, ids, max_sessions, now)
        repeatable = row.single_use and navigation is not None
        session |= {
            "unconfirmed": replaces or repeatable or None,
            "code_digest": None if ready.code is None else keyring.current.digest(ready.code),
        }
        connection.execute(insert(Session), session)
        events.record_many(connection, [event])
    return True


def _end_repeated(connection: Connection, token_id: str, session_id: str, now: datetime) -> None:
    """End the first session of a single-use token, since a repeated opening replaces it."""
    for ended in connection.execute(_end_of_token, {"token": token_id, "now": now}).all():
        _record_replaced(connection, session_id, now, ended._asdict())


def _require_room(connection: Connection, ids: dict[str, Any], max_sessions: int, now: datetime) -> None:
    # The count is exact, since `use_token` has locked the token.
    live = connection.execute(
        _count_of_token, {"token": ids["token_id"], "now": now, "code_since": now - CODE_LIFE}
    ).one()
    if live.number >= max_sessions:
        wait = max(1, int((live.first_end - now).total_seconds()) + 1)
        raise errors.TooManySessions(wait).about(**ids)


# ---- Codes ----


def _find_by_code(keyring: Keyring, code: Secret) -> tuple[bytes, SessionRow]:
    """Return the digest of the code and its session, or raise TokenInvalid."""
    for key in keyring.keys:
        digest = key.digest(code)
        row: SessionRow | None = _by_code.first({"digest": digest, "app": None})
        if row is not None:
            return digest, row
    raise errors.TokenInvalid


def _require_redeemable(keyring: Keyring, row: SessionRow, place: Place, now: datetime) -> access.AnyViewer:
    if row.target_app != place.app_id or not access.is_for_place(keyring, row, place):
        raise errors.TokenInvalid
    if row.ended_at is None and row.created_at <= now - CODE_LIFE:
        raise errors.TokenExpired
    return require_valid(keyring, row, place, now)


# ---- Renewals ----


def _find_former(keyring: Keyring, attempt: Attempt, user_id: str, now: datetime) -> AnySession | None:
    """Return the session to renew, if it is valid and of the same user and place. Ignore any other."""
    if attempt.former is None:
        return None
    try:
        row = find(keyring.read_session(attempt.former, attempt.place.app_id))
        viewer = require_valid(keyring, row, attempt.place, now)
    except Refused:
        return None
    if row.user_id != user_id or row.preview_role is not None:
        return None
    return build_from_row(row, viewer, now)


def _replace(
    connection: Connection,
    former: AnySession,
    ids: dict[str, Any],
    session_id: str,
    expires_at: datetime,
    now: datetime,
) -> bool:
    """Let the new session replace the former one, if that is still live. Return whether it does.

    The apps of a launcher then belong to the new session, and expire with it at the latest.
    """
    values = {"session": former.id, "successor": session_id, "user": ids["user_id"], "now": now}
    connection.execute(_lock_renewed, values)
    live = connection.execute(_live, values).first()
    if live is None:
        return False
    # A renewal shows that the former session has arrived, as its first request does.
    connection.execute(END_PREDECESSOR, values)
    # An earlier renewal whose answer was lost left a session that has sent no request.
    if live.replaced_by is not None:
        ended = connection.execute(_end_lost, {"session": live.replaced_by, "now": now}).first()
        if ended is None:
            return False
        _record_replaced(connection, session_id, now, ended._asdict())
    end = min(live.expires_at, now + REPLACED_WITHIN)
    connection.execute(_set_successor, {"session": former.id, "successor": session_id, "end": end})
    if isinstance(former, OpenLauncher):
        passed = {"lost": live.replaced_by or former.id, "end": expires_at}
        connection.execute(_pass_on, values | passed)
    ids = ids | {"token_id": former.token_id, "client_id": former.client_id, "session_id": former.id}
    _record_replaced(connection, session_id, now, ids)
    return True


def _record_replaced(connection: Connection, by: str, now: datetime, ids: dict[str, Any]) -> None:
    events.record(connection, events.SESSION_REPLACED, now, details={"by": by}, **ids)


# Statements, built once.

#: Columns that `_insert_at_once` leaves null.
_SET_LATER: Final = (
    "ended_at",
    "launcher_session_id",
    "code_digest",
    "replaced_by",
    "unconfirmed",
    "preview_role",
)
_insert_at_once = Writes(
    {"sqlite": MARK_USED, "postgresql": MARK_USED},
    (Session, [column.name for column in Session.__table__.c if column.name not in _SET_LATER]),
    events.ROW,
)
_end_of_token = END.where(Session.token_id == bindparam("token"), *LIVE_SESSION)
_count_of_token = select(func.count().label("number"), func.min(Session.expires_at).label("first_end")).where(
    Session.token_id == bindparam("token"), *COUNTED_SESSION
)
_by_code = Query(SESSIONS.where(Session.code_digest == bindparam("digest")))
_live_launcher = SESSIONS.where(Session.id == bindparam("id"), *LIVE_SESSION).with_for_update(of=Session)
_claim = update(Session).where(
    Session.id == bindparam("session"),
    Session.code_digest == bindparam("digest"),
    Session.created_at > bindparam("code_since", type_=UtcDateTime),
    *LIVE_SESSION,
)
_redeem, _redeem_successor = (
    _claim.values(code_digest=None),
    _claim.values(code_digest=None, unconfirmed=True),
)
_share_user = select(User.id).where(User.id == bindparam("user")).with_for_update(read=True, key_share=True)
_former = aliased(Session)
_lost_id = select(_former.replaced_by).where(_former.id == bindparam("session")).scalar_subquery()
#: Lock everything that a renewal changes, in the order of ids, as every transaction does.
_lock_renewed = (
    select(Session.id)
    .where(
        Session.user_id == bindparam("user"),
        or_(
            Session.id.in_([bindparam("session"), bindparam("successor"), _lost_id]),
            Session.launcher_session_id.in_([bindparam("session"), _lost_id]),
            Session.replaced_by == bindparam("session"),
        ),
        Session.ended_at.is_(None),
    )
    .order_by(Session.id)
    .with_for_update()
)
_live = select(Session.expires_at, Session.replaced_by).where(
    Session.id == bindparam("session"), *LIVE_SESSION
)
_end_lost = END.where(
    Session.id == bindparam("session"), Session.unconfirmed.is_(True), Session.ended_at.is_(None)
)
_set_successor = (
    update(Session)
    .where(Session.id == bindparam("session"))
    .values(replaced_by=bindparam("successor"), expires_at=bindparam("end", type_=UtcDateTime))
)
_end: ColumnElement[datetime] = bindparam("end", type_=UtcDateTime)
_pass_on = (
    update(Session)
    .where(
        Session.user_id == bindparam("user"),
        Session.launcher_session_id.in_([bindparam("session"), bindparam("lost")]),
        *LIVE_SESSION,
    )
    .values(
        launcher_session_id=bindparam("successor"),
        expires_at=case((Session.expires_at > _end, _end), else_=Session.expires_at),
    )
)

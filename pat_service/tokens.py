"""Mint a token, and recognise one. Read from top to bottom, this is the policy of tokens."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import (
    Connection,
    Select,
    and_,
    bindparam,
    false,
    func,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.sql.elements import ColumnElement

from pat_service import clients, events
from pat_service.access import (
    FACTS,
    Place,
    Viewer,
    Visitor,
    facts_of,
    may_open,
    may_visit,
    meant_for,
    viewer,
    visitor,
)
from pat_service.arrivals import Newcomer, welcome
from pat_service.clients import Caller, reaches_user, reaches_workspace
from pat_service.credentials import TOKEN_PREFIX, Keyring, Secret, generate
from pat_service.database import AnyRow, UtcDateTime, reading, transaction
from pat_service.errors import (
    AppForbidden,
    AppNotFound,
    Refused,
    TokenExpired,
    TokenInvalid,
    TokenRevoked,
    TokenSuperseded,
    TokenUsed,
    UserNotFound,
    WorkspaceNotFound,
)
from pat_service.models import App, Session, Token, User, Workspace, new_id
from pat_service.shapes import email_key

SCOPES: Final = (clients.MINT, clients.MINT_WORKSPACE)
#: A browser may load a frame twice in a row: so long after its first use a single-use token still opens,
#: in place of the first.
REPEAT_WITHIN: Final = timedelta(seconds=10)
LAST_SHOWN: Final = 4


@dataclass(frozen=True, slots=True)
class Wish:
    """What a mint asks for: one of `email` and `user_id`, and one name of an app or of a workspace."""

    email: str | None
    user_id: str | None
    app_id: str | None
    app_slug: str | None
    pat_seconds: int
    session_seconds: int
    end_sessions: bool = False
    workspace_id: str | None = None
    workspace_slug: str | None = None
    newcomer: Newcomer | None = None
    attributes: dict[str, Any] | None = None
    allowed_origins: list[str] | None = None
    single_use: bool = False

    @property
    def for_app(self) -> bool:
        return self.app_id is not None or self.app_slug is not None


@dataclass(frozen=True, slots=True)
class Minted:
    """A new token, and the only sight of its secret. Without an app it is for the workspace."""

    id: str
    secret: Secret
    app_id: str | None
    workspace_id: str


def mint(caller: Caller, keyring: Keyring, wish: Wish, now: datetime) -> Minted:
    """Give the pair of user and app, or of user and workspace, a new token.

    The one it had stops opening frames at that instant. Frames that are open go on, unless the wish
    ends them. Raise ScopeMissing, UserNotFound, AppNotFound, WorkspaceNotFound or AppForbidden; what
    is outside the caller's workspaces is not there.
    """
    with events.recording_refusals(events.MINT_REFUSED, now, client_id=caller.id):
        _require_scopes(caller, wish)
        try:
            return _mint(caller, keyring, wish, now)
        except IntegrityError:
            # Deleted since it was looked up: look again, to say what.
            return _mint(caller, keyring, wish, now)


def _mint(caller: Caller, keyring: Keyring, wish: Wish, now: datetime) -> Minted:
    facts = None
    if wish.newcomer is None:
        with reading() as connection:
            facts = _facts_of_wish(connection, caller, wish)
    with transaction() as connection:
        facts = facts or _facts_with_newcomer(connection, caller, wish, now)
        return _replace(connection, caller, keyring, wish, facts, now)


def _require_scopes(caller: Caller, wish: Wish) -> None:
    caller.require(clients.MINT if wish.for_app else clients.MINT_WORKSPACE)
    if wish.newcomer is not None:
        caller.require(clients.PROVISION)
        caller.require_role(wish.newcomer.role)


def _facts_of_wish(connection: Connection, caller: Caller, wish: Wish) -> AnyRow:
    facts = _look_up(connection, caller, wish)
    if facts.user_id is None or not facts.user_reached:
        raise UserNotFound
    _require_target(facts, wish)
    if not (may_open if wish.for_app else may_visit)(facts):
        detail = None if wish.for_app else "The user is no active member of this workspace."
        raise AppForbidden(detail).about(
            user_id=facts.user_id, app_id=facts.app_id, workspace_id=facts.workspace_id
        )
    return facts


def _require_target(facts: AnyRow, wish: Wish) -> None:
    missing = AppNotFound if wish.for_app else WorkspaceNotFound
    if facts.workspace_id is None or not facts.workspace_reached:
        raise missing().about(user_id=facts.user_id if facts.user_reached else None)


def _facts_with_newcomer(connection: Connection, caller: Caller, wish: Wish, now: datetime) -> AnyRow:
    """Return the facts once the wish's user has what was missing, unless that would not help."""
    facts = _look_up(connection, caller, wish)
    # Somebody who is named by id is there already, or is nobody.
    if wish.email is None and (facts.user_id is None or not facts.user_reached):
        raise UserNotFound
    _require_target(facts, wish)
    # As everybody does, the token before what it hangs on: or a deletion and this would wait in a circle.
    connection.execute(
        _hold_pair[wish.for_app],
        {"pair_target": facts.app_id or facts.workspace_id, "pair_user": facts.user_id},
    )
    assert wish.newcomer is not None  # noqa: S101 - this is the way of a wish that has one
    welcome(
        connection,
        wish.newcomer,
        email=wish.email,
        user_id=facts.user_id,
        workspace_id=facts.workspace_id,
        app_id=facts.app_id,
        by=caller.id,
        now=now,
    )
    try:
        return _facts_of_wish(connection, caller, wish)
    except AppForbidden:
        # Whom the client did not know before this mint it does not get to know by its refusal.
        if facts.user_id is None or not facts.user_reached:
            raise AppForbidden().about(app_id=facts.app_id, workspace_id=facts.workspace_id) from None
        # What else was missing has been made.
        raise AppForbidden("The user is archived, and a mint changes no status.").about(
            user_id=facts.user_id, app_id=facts.app_id, workspace_id=facts.workspace_id
        ) from None


def _look_up(connection: Connection, caller: Caller, wish: Wish) -> AnyRow:
    user = email_key(wish.email) if wish.email is not None else wish.user_id
    named = {
        "app_id": wish.app_id,
        "app_slug": wish.app_slug,
        "workspace_id": wish.workspace_id,
        "workspace_slug": wish.workspace_slug,
    }
    by, target = next((by, value) for by, value in named.items() if value is not None)
    statement = _wishes[wish.email is not None, by]
    return connection.execute(statement, {"user": user, "target": target} | caller.reach()).one()


def _replace(
    connection: Connection, caller: Caller, keyring: Keyring, wish: Wish, facts: AnyRow, now: datetime
) -> Minted:
    minted = Minted(new_id(), generate(TOKEN_PREFIX), facts.app_id, facts.workspace_id)
    pair: dict[str, Any] = {
        "app_id": facts.app_id,
        "workspace_id": facts.workspace_id,
        "user_id": facts.user_id,
    }
    connection.execute(
        _upserts[connection.dialect.name, wish.for_app],
        pair
        | {
            "id": minted.id,
            "client_id": caller.id,
            "digest": keyring.current.digest(minted.secret),
            "key_id": keyring.current.id,
            "last_four": minted.secret.reveal()[-LAST_SHOWN:],
            # As read with the verdict: a move in between leaves a token that never opens.
            "moves": facts.app_moves if wish.for_app else 0,
            "session_seconds": wish.session_seconds,
            "attributes": wish.attributes,
            "allowed_origins": wish.allowed_origins,
            "single_use": wish.single_use,
            "created_at": now,
            "expires_at": now + timedelta(seconds=wish.pat_seconds),
        },
    )
    if wish.end_sessions:
        named = {"pair_target": facts.app_id or facts.workspace_id, "pair_user": facts.user_id}
        # Held in the order of everybody who ends several, so that nobody waits in a circle.
        connection.execute(_hold_sessions[wish.for_app], named).all()
        connection.execute(_end_sessions[wish.for_app], named | {"now": now})
    details = {"ended_sessions": True} if wish.end_sessions else None
    events.record(
        connection,
        events.TOKEN_MINTED,
        now,
        client_id=caller.id,
        token_id=minted.id,
        details=details,
        **pair,
    )
    return minted


@dataclass(frozen=True, slots=True)
class Recognised:
    """A token that opens its place at this moment, whose session it may become."""

    id: str
    seen_by: Viewer | Visitor
    row: AnyRow


def recognise(keyring: Keyring, secret: Secret, place: Place, now: datetime) -> Recognised:
    """Return what the token opens there, or raise why it opens nothing.

    TokenInvalid for a stranger or a token of another place; TokenSuperseded, TokenRevoked,
    TokenExpired, TokenUsed and AccessRevoked for one that really was for it: its holder may know.
    """
    digests = [key.digest(secret) for key in keyring.keys]
    with reading() as connection:
        parameters = {"digests": digests[:1], "app": place.known_app}
        row = connection.execute(_by_digest, parameters).first()
        if row is None and len(digests) > 1:
            # All of them in one look: a digest may be made anew between two.
            row = connection.execute(_by_digest, parameters | {"digests": digests}).first()
        if row is not None:
            return _judge(row, place, now)
        newer = connection.execute(_by_superseded_digest, parameters | {"digests": digests}).first()
    if newer is not None and meant_for(newer, place):
        raise _about(TokenSuperseded(), newer)
    raise TokenInvalid


def _judge(row: AnyRow, place: Place, now: datetime) -> Recognised:
    if not meant_for(row, place):
        raise _about(TokenInvalid(), row)
    if row.revoked_at is not None:
        raise _about(TokenRevoked(), row)
    if row.expires_at <= now:
        raise _about(TokenExpired(), row)
    if used_up(row, now):
        raise _about(TokenUsed(), row)
    try:
        seen_by = visitor(row) if place.app_id is None else viewer(row)
    except Refused as refusal:
        raise _about(refusal, row) from None
    return Recognised(row.token_id, seen_by, row)


def used_up(row: AnyRow, now: datetime) -> bool:
    """Tell whether a single-use token has had its use, and the time for a repeat is over."""
    return bool(row.single_use and row.first_used_at is not None and row.first_used_at <= now - REPEAT_WITHIN)


def _about(refusal: Refused, row: AnyRow) -> Refused:
    return refusal.about(
        token_id=row.token_id,
        app_id=row.target_app,
        user_id=row.user_id,
        workspace_id=row.token_workspace,
        client_id=row.client_id,
    )


def use(connection: Connection, keyring: Keyring, secret: Secret, token: Recognised, now: datetime) -> bool:
    """Note that the token opens a frame, and hold its row until the transaction ends.

    False where it was replaced, revoked or used up since it was recognised. A digest of an older key
    is made anew with the current one.
    """
    current = keyring.current
    used = connection.execute(
        _use,
        {
            "held": token.row.digest,
            "fresh": current.digest(secret),
            "fresh_key": current.id,
            "used_now": now,
            "repeat_since": now - REPEAT_WITHIN,
        },
    )
    if used.rowcount and token.row.key_id != current.id:
        events.record(
            connection,
            events.TOKEN_REKEYED,
            now,
            token_id=token.id,
            app_id=token.row.target_app,
            user_id=token.row.user_id,
            workspace_id=token.row.token_workspace,
            details={"before": {"key": token.row.key_id}, "after": {"key": current.id}},
        )
    return bool(used.rowcount)


# Statements, built once.


def _wish_statement(user: ColumnElement[bool], by: str) -> Select[*tuple[Any, ...]]:
    target: ColumnElement[str] = bindparam("target")
    conditions: dict[str, tuple[ColumnElement[bool], ColumnElement[bool]]] = {
        "app_id": (App.id == target, Workspace.id == App.workspace_id),
        "app_slug": (App.slug == target, Workspace.id == App.workspace_id),
        "workspace_id": (false(), Workspace.id == target),
        "workspace_slug": (false(), Workspace.slug == target),
    }
    app, workspace = conditions[by]
    return select(
        *FACTS,
        reaches_user(User.id).label("user_reached"),
        reaches_workspace(Workspace.id).label("workspace_reached"),
    ).select_from(facts_of(select(literal(1)).subquery("one"), app, user, workspace))


#: By whether the user is named by email, and what names the app or workspace.
_wishes = {
    (by_email, by): _wish_statement((User.email if by_email else User.id) == bindparam("user"), by)
    for by_email in (True, False)
    for by in ("app_id", "app_slug", "workspace_id", "workspace_slug")
}

_REPLACED: Final = (
    "id",
    "workspace_id",
    "client_id",
    "digest",
    "key_id",
    "last_four",
    "moves",
    "session_seconds",
    "attributes",
    "allowed_origins",
    "single_use",
    "created_at",
    "expires_at",
)


def _upsert_for(dialect: Any, for_app: bool) -> Any:
    # One statement, so that racing mints of a pair follow each other instead of tripping its index.
    statement = dialect.insert(Token)
    replaced = {name: statement.excluded[name] for name in _REPLACED}
    unused = {"revoked_at": None, "first_used_at": None, "last_used_at": None}
    pair: dict[str, Any] = {"index_elements": ["app_id", "user_id"]}
    if not for_app:
        pair = {"index_elements": ["workspace_id", "user_id"], "index_where": Token.app_id.is_(None)}
    return statement.on_conflict_do_update(
        **pair, set_=replaced | unused | {"superseded_digest": Token.digest}
    )


_upserts = {
    (name, for_app): _upsert_for(dialect, for_app)
    for name, dialect in (("sqlite", sqlite), ("postgresql", postgresql))
    for for_app in (True, False)
}


def _of_pair(table: type[Token | Session], for_app: bool) -> ColumnElement[bool]:
    target: ColumnElement[str] = bindparam("pair_target")
    place = table.app_id == target if for_app else and_(table.app_id.is_(None), table.workspace_id == target)
    return and_(place, table.user_id == bindparam("pair_user"))


_hold_pair = {
    for_app: select(Token.id).where(_of_pair(Token, for_app)).with_for_update() for for_app in (True, False)
}
_hold_sessions = {
    for_app: select(Session.id)
    .where(_of_pair(Session, for_app), Session.ended_at.is_(None))
    .order_by(Session.id)
    .with_for_update()
    for for_app in (True, False)
}
_end_sessions = {
    for_app: update(Session)
    .where(_of_pair(Session, for_app), Session.ended_at.is_(None))
    .values(ended_at=bindparam("now", type_=UtcDateTime))
    for for_app in (True, False)
}

_IDS = (
    Token.id.label("token_id"),
    Token.client_id,
    Token.app_id.label("target_app"),
    Token.workspace_id.label("token_workspace"),
)
_joined = facts_of(
    Token.__table__,
    App.id == bindparam("app"),
    User.id == Token.user_id,
    Workspace.id == Token.workspace_id,
)

_by_digest = (
    select(
        *FACTS,
        *_IDS,
        Token.digest,
        Token.key_id,
        Token.moves,
        Token.session_seconds,
        Token.attributes,
        Token.allowed_origins,
        Token.single_use,
        Token.first_used_at,
        Token.expires_at,
        Token.revoked_at,
    )
    .select_from(_joined)
    .where(Token.digest.in_(bindparam("digests", expanding=True)))
)

_by_superseded_digest = (
    select(*FACTS, *_IDS)
    .select_from(_joined)
    .where(Token.superseded_digest.in_(bindparam("digests", expanding=True)))
)

_used_now: ColumnElement[datetime] = bindparam("used_now", type_=UtcDateTime)
#: The guard of an opening. On PostgreSQL its lock also makes a revocation wait for the opening, so that
#: it cannot miss the session that this adds; SQLite has one writer.
_use = (
    update(Token)
    .where(
        Token.digest == bindparam("held"),
        Token.revoked_at.is_(None),
        or_(
            Token.single_use.is_(False),
            Token.first_used_at.is_(None),
            Token.first_used_at > bindparam("repeat_since", type_=UtcDateTime),
        ),
    )
    .values(
        digest=bindparam("fresh"),
        key_id=bindparam("fresh_key"),
        first_used_at=func.coalesce(Token.first_used_at, _used_now),
        last_used_at=_used_now,
    )
)

"""What is live: list, read and end tokens and sessions, for whoever looks after them.

A client sees what it minted, in the workspaces that it reaches; with the scope `audit` or `provision`
all that is in them, and with `provision` it ends all that it sees. What a move of its app has ended is
gone from here, since it belongs to neither workspace.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    Boolean,
    Connection,
    Select,
    and_,
    bindparam,
    case,
    delete,
    exists,
    func,
    not_,
    or_,
    select,
    update,
)
from sqlalchemy.orm import aliased
from sqlalchemy.sql.dml import ReturningUpdate
from sqlalchemy.sql.elements import ColumnElement

from pat_service.errors import ScopeMissing, SessionNotFound, TokenNotFound
from pat_service.rules import callers, events
from pat_service.rules.callers import Caller, reaches_workspace
from pat_service.rules.tokens import REPEAT_WITHIN
from pat_service.storage import paging
from pat_service.storage.database import AnyRow, UtcDateTime, reading, transaction
from pat_service.storage.models import LIVE_SESSION, SAME_PAIR, App, Grant, Session, Token, User, Workspace
from pat_service.storage.paging import Listing, PageRequest

#: Who may look, and who may end what.
READERS: Final = (callers.MINT, callers.MINT_WORKSPACE, callers.AUDIT, callers.PROVISION)
ENDERS: Final = (callers.MINT, callers.MINT_WORKSPACE, callers.PROVISION)
#: With one of these a client also sees what others have minted.
SEES_ALL: Final = frozenset({callers.AUDIT, callers.PROVISION})
ENDS_ALL: Final = frozenset({callers.PROVISION})

#: Ids in one statement.
CHUNK: Final = 1000

LIVE: Final = "live"
TOKEN_STATUSES: Final = (LIVE, "expired", "revoked", "used")


@dataclass(frozen=True, slots=True)
class TokenFilter:
    """Of all tokens or sessions those with these ids. None leaves it open."""

    app_id: str | None = None
    user_id: str | None = None
    workspace_id: str | None = None
    client_id: str | None = None
    token_id: str | None = None

    def conditions(self, table: type[Token | Session]) -> list[ColumnElement[bool]]:
        page_request = {name: value for name, value in asdict(self).items() if value is not None}
        return [getattr(table, name) == value for name, value in page_request.items()]


@dataclass(frozen=True, slots=True)
class Revoked:
    """What a revocation ended: so many tokens, so many sessions."""

    tokens: int
    sessions: int


@dataclass(frozen=True, slots=True)
class Live:
    """So many tokens that are neither expired nor revoked, so many sessions that are neither nor ended."""

    tokens: int
    sessions: int


def count_live(now: datetime) -> Live:
    """Count what is live, from indexes alone: some 0.1 s for a million of each."""
    with reading() as connection:
        tokens, sessions = (connection.scalar(statement, {"now": now}) for statement in _live_counts)
    return Live(tokens or 0, sessions or 0)


_live_counts = tuple(
    select(func.count())
    .select_from(table)
    .where(table.expires_at > bindparam("now", type_=UtcDateTime), ended.is_(None))
    for table, ended in ((Token, Token.revoked_at), (Session, Session.ended_at))
)


# Tokens.


def list_tokens(
    caller: Caller,
    token_filter: TokenFilter,
    page_request: PageRequest,
    now: datetime,
    *,
    live: bool | None = None,
) -> Listing:
    """Return a page of the tokens that the caller sees. `live`: those that open frames, or the others."""
    statement = _tokens.where(*token_filter.conditions(Token))
    if live is not None:
        statement = statement.where(_status == LIVE if live else _status != LIVE)
    with reading() as connection:
        return paging.page(connection, statement, Token.id, page_request, sight(caller) | _times(now))


def read_token(caller: Caller, token_id: str, now: datetime) -> AnyRow:
    """Return the token that the caller sees, or raise TokenNotFound."""
    with reading() as connection:
        row = connection.execute(_token, {"wanted": token_id} | sight(caller) | _times(now)).first()
    if row is None:
        raise TokenNotFound
    return row


def revoke_token(caller: Caller, token_id: str, now: datetime) -> Revoked:
    """Revoke the token and end the open sessions of its pair, those of earlier tokens included.

    Twice is the same as once. Raise TokenNotFound, or ScopeMissing where the caller sees it and may
    not revoke it.
    """
    with events.recording_refusals(events.CLIENT_REFUSED, now), transaction() as connection:
        token = connection.execute(_token_held, {"wanted": token_id} | sight(caller)).first()
        if token is None:
            raise TokenNotFound
        _require_own(caller, token, token_id=token_id)
        tokens = _revoke(connection, caller, [Token.id == token_id], now)
        sessions = _end(connection, caller, _of_pair(token), now, events.TOKEN_REVOKED)
    return Revoked(tokens, sessions)


def revoke_tokens(caller: Caller, token_filter: TokenFilter, now: datetime) -> Revoked:
    """Revoke those of the tokens that the caller may revoke, and end the sessions of the same kind.

    That is all of its workspaces for one with the scope `provision`; else what it minted, with the
    sessions that a revoked token's pair has from others.
    """
    with transaction() as connection:
        tokens = _revoke(connection, caller, token_filter.conditions(Token), now)
        sessions = _end(
            connection,
            caller,
            [*token_filter.conditions(Session), or_(_own(Session), _pair_is_revoked)],
            now,
            events.TOKEN_REVOKED,
        )
    return Revoked(tokens, sessions)


# Sessions.


def list_sessions(
    caller: Caller, token_filter: TokenFilter, page_request: PageRequest, now: datetime
) -> Listing:
    """Return a page of the live sessions that the caller sees."""
    statement = _sessions.where(*token_filter.conditions(Session), *LIVE_SESSION)
    with reading() as connection:
        return paging.page(connection, statement, Session.id, page_request, sight(caller) | _times(now))


def read_session(caller: Caller, session_id: str) -> AnyRow:
    """Return the session that the caller sees, live or not, or raise SessionNotFound."""
    with reading() as connection:
        row = connection.execute(_session, {"wanted": session_id} | sight(caller)).first()
    if row is None:
        raise SessionNotFound
    return row


def end_session(caller: Caller, session_id: str, now: datetime) -> int:
    """End the session at once, and return how many that were: the second time none.

    Raise SessionNotFound, or ScopeMissing where the caller sees it and may not end it.
    """
    with events.recording_refusals(events.CLIENT_REFUSED, now):
        session = read_session(caller, session_id)
        _require_own(caller, session, session_id=session_id)
    with transaction() as connection:
        return _end(connection, caller, [Session.id == session_id], now)


def end_sessions(caller: Caller, token_filter: TokenFilter, now: datetime) -> int:
    """End those of the live sessions that the caller may end, and return how many there were."""
    with transaction() as connection:
        return _end(connection, caller, [*token_filter.conditions(Session), _own(Session)], now)


# How it is done.


def sight(caller: Caller, scopes: frozenset[str] = SEES_ALL) -> dict[str, Any]:
    """The parameters of the condition `seen`: with one of the scopes the caller is not held to its own."""
    return caller.reach() | {"of_anybody": not caller.scopes.isdisjoint(scopes)}


def _times(now: datetime) -> dict[str, datetime]:
    return {"now": now, "repeat_since": now - REPEAT_WITHIN}


def _require_own(caller: Caller, row: AnyRow, **ids: str) -> None:
    if row.client_id != caller.id and caller.scopes.isdisjoint(ENDS_ALL):
        raise ScopeMissing(
            f"This client lacks the scope {callers.PROVISION}, which ending what others minted takes."
        ).about(client_id=caller.id, workspace_id=row.workspace_id, **ids)


def _revoke(
    connection: Connection, caller: Caller, conditions: Sequence[ColumnElement[bool]], now: datetime
) -> int:
    """Revoke the caller's tokens with these conditions, and hold their rows until the commit.

    So an opening that came first is done before the sessions are ended, and one that comes later sees
    the revocation.
    """
    where = [*conditions, Token.revoked_at.is_(None), seen(Token)]
    held = select(Token.id).where(*where).order_by(Token.user_id, Token.app_id, Token.workspace_id)
    revoked = _change_held(connection, held, _revoke_these, sight(caller, ENDS_ALL) | {"now": now})
    _tell(connection, events.TOKEN_REVOKED, revoked, caller, now)
    return len(revoked)


def _end(
    connection: Connection,
    caller: Caller,
    conditions: Sequence[ColumnElement[bool]],
    now: datetime,
    by: str | None = None,
) -> int:
    """End the live sessions with these conditions that the caller reaches. `by`: what else ended them."""
    where = [*conditions, *LIVE_SESSION, _within(Session)]
    held = select(Session.id).where(*where).order_by(Session.id)
    ended = _change_held(connection, held, _end_these, sight(caller, ENDS_ALL) | {"now": now})
    _tell(connection, events.SESSION_ENDED, ended, caller, now, {"by": by} if by else None)
    return len(ended)


def _change_held(
    connection: Connection,
    held: Select[str],
    change: ReturningUpdate[*tuple[Any, ...]],
    parameters: dict[str, Any],
) -> list[AnyRow]:
    """Hold the rows in the order that the statement gives them, then change these and no others.

    In one order, so that two who end several wait for each other and never in a circle; and what has
    been added since is in nobody's order.
    """
    ids = connection.execute(held.with_for_update(), parameters).scalars().all()
    changed: list[AnyRow] = []
    for start in range(0, len(ids), CHUNK):
        some = {"held": ids[start : start + CHUNK], "now": parameters["now"]}
        changed += connection.execute(change, some)
    return changed


def _tell(
    connection: Connection,
    type_: str,
    subjects: Sequence[AnyRow],
    caller: Caller,
    now: datetime,
    details: dict[str, Any] | None = None,
) -> None:
    common = {"type": type_, "at": now, "client_id": caller.id, "details": details}
    common["request_id"] = events.request_id.get()
    events.record_many(connection, [common | subject._asdict() for subject in subjects])


def _of_pair(token: AnyRow) -> list[ColumnElement[bool]]:
    if token.app_id is not None:
        return [Session.app_id == token.app_id, Session.user_id == token.user_id]
    place = [Session.app_id.is_(None), Session.workspace_id == token.workspace_id]
    return [*place, Session.user_id == token.user_id]


def revoke_outside(connection: Connection, caller: Caller, user_id: str, now: datetime) -> None:
    """Remove grants and end tokens and sessions of this user outside the caller's workspaces.

    The id is about to belong to another person, who must not inherit them. Each workspace gets its own audit
    events, without the client. Lock the user's tokens first.
    """
    parameters = {"user": user_id, "now": now} | caller.reach()
    grants = connection.execute(_grants_outside, parameters).all()
    for app_id in {row.app_id for row in grants}:
        connection.execute(_remove_grant, {"app": app_id, "user": user_id})
    tokens = connection.execute(_revoke_outside, parameters).all()
    # Held in the order of everybody who ends several, so that nobody waits in a circle.
    connection.execute(_hold_outside, parameters).all()
    sessions = connection.execute(_end_outside, parameters).all()
    for type_, rows in (
        (events.GRANT_REMOVED, grants),
        (events.TOKEN_REVOKED, tokens),
        (events.SESSION_ENDED, sessions),
    ):
        common: dict[str, Any] = {"type": type_, "at": now, "request_id": events.request_id.get()}
        events.record_many(connection, [common | row._asdict() for row in rows])


# Conditions and statements, built once.

_now = bindparam("now", type_=UtcDateTime)
_home = aliased(App)  # not the one that a statement around the condition joins


def _within(table: type[Token | Session]) -> ColumnElement[bool]:
    """In a workspace that the caller reaches, and not ended by a move of its app."""
    stayed = exists().where(_home.id == table.app_id, _home.moves == table.moves)
    return and_(reaches_workspace(table.workspace_id), or_(table.app_id.is_(None), stayed))


def _own(table: type[Token | Session]) -> ColumnElement[bool]:
    return or_(bindparam("of_anybody", type_=Boolean), table.client_id == bindparam("caller"))


def seen(table: type[Token | Session]) -> ColumnElement[bool]:
    """The condition that the caller may know of the row: within its workspaces, and its own or anybody's."""
    return and_(_within(table), _own(table))


#: The pair of the session has a token of the caller's that is revoked: then the session ends too.
_pair_is_revoked = exists().where(
    Token.client_id == bindparam("caller"),
    Token.revoked_at.is_not(None),
    SAME_PAIR,
)

_revoke_these = (
    update(Token)
    .where(Token.id.in_(bindparam("held", expanding=True)), Token.revoked_at.is_(None))
    .values(revoked_at=_now)
    .returning(Token.id.label("token_id"), Token.app_id, Token.workspace_id, Token.user_id)
)
_end_these = (
    update(Session)
    .where(Session.id.in_(bindparam("held", expanding=True)), Session.ended_at.is_(None))
    .values(ended_at=_now)
    .returning(
        Session.id.label("session_id"),
        Session.token_id,
        Session.app_id,
        Session.workspace_id,
        Session.user_id,
    )
)

# In the order in which an opening asks, so that the two say the same.
_status = case(
    (Token.revoked_at.is_not(None), "revoked"),
    (Token.expires_at <= _now, "expired"),
    (and_(Token.single_use, Token.first_used_at <= bindparam("repeat_since", type_=UtcDateTime)), "used"),
    else_=LIVE,
)
_live_sessions = select(func.count()).select_from(Session).where(Session.token_id == Token.id, *LIVE_SESSION)


def _described(table: type[Token | Session], *columns: Any) -> Select[*tuple[Any, ...]]:
    """Select rows that the caller sees, with the names of what their ids stand for."""
    named = {"app": (App, "slug"), "workspace": (Workspace, "slug"), "user": (User, "email")}
    return (
        select(
            table.id.label("key"),
            table.id,
            table.client_id,
            table.created_at,
            table.expires_at,
            *(
                getattr(model, column).label(f"{noun}_{column}")
                for noun, (model, short) in named.items()
                for column in ("id", short, "name")
            ),
            *columns,
        )
        .select_from(table)
        .join(Workspace, Workspace.id == table.workspace_id)
        .join(User, User.id == table.user_id)
        .outerjoin(App, App.id == table.app_id)
        .where(seen(table))
    )


_tokens = _described(
    Token,
    Token.last_four,
    Token.single_use,
    Token.allowed_origins,
    Token.last_used_at,
    Token.revoked_at,
    Token.session_seconds,
    _status.label("status"),
    _live_sessions.scalar_subquery().label("live_sessions"),
)
_token = _tokens.where(Token.id == bindparam("wanted"))
_token_held = (
    select(Token.client_id, Token.app_id, Token.workspace_id, Token.user_id)
    .where(Token.id == bindparam("wanted"), seen(Token))
    .with_for_update()
)
_sessions = _described(Session, Session.token_id, Session.ended_at)
_session = _sessions.where(Session.id == bindparam("wanted"))

_left_by: ColumnElement[str] = bindparam("user")
_grants_outside = (
    select(Grant.app_id, Grant.user_id, App.workspace_id)
    .join(App, App.id == Grant.app_id)
    .where(Grant.user_id == _left_by, not_(reaches_workspace(App.workspace_id)))
)
_remove_grant = delete(Grant).where(and_(Grant.app_id == bindparam("app"), Grant.user_id == _left_by))
_revoke_outside = (
    update(Token)
    .where(Token.user_id == _left_by, Token.revoked_at.is_(None), not_(reaches_workspace(Token.workspace_id)))
    .values(revoked_at=_now)
    .returning(Token.id.label("token_id"), Token.app_id, Token.workspace_id, Token.user_id)
)
_live_outside = (
    Session.user_id == _left_by,
    *LIVE_SESSION,
    not_(reaches_workspace(Session.workspace_id)),
)
_hold_outside = select(Session.id).where(*_live_outside).order_by(Session.id).with_for_update()
_end_outside = (
    update(Session)
    .where(*_live_outside)
    .values(ended_at=_now)
    .returning(
        Session.id.label("session_id"),
        Session.token_id,
        Session.app_id,
        Session.workspace_id,
        Session.user_id,
    )
)

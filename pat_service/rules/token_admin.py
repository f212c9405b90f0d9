"""List, read and end tokens and sessions.

A client sees the tokens and sessions that it minted, within its workspaces. With the scope `audit` or
`provision` it sees all of them in its workspaces. With `provision` it can also end them all. A token or
session that ended when its app moved is hidden, since it belongs to neither workspace.
"""

from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final, Protocol

from sqlalchemy import Boolean, Connection, Select, bindparam, case, exists, func, or_, select, update
from sqlalchemy.orm import aliased
from sqlalchemy.sql.elements import BindParameter, ColumnElement

from pat_service.errors import Refused, ScopeMissing, SessionNotFound, TokenNotFound
from pat_service.rules import callers, events
from pat_service.rules.callers import Caller, reaches_user, reaches_workspace
from pat_service.rules.openings import CODE_LIFE
from pat_service.rules.sessions import LOCK, depends_on
from pat_service.rules.tokens import REPEAT_WITHIN, in_pair
from pat_service.storage import paging
from pat_service.storage.database import UtcDateTime, reading, transaction
from pat_service.storage.models import (
    LIVE_SESSION,
    OPENED_SESSION,
    SAME_PAIR,
    App,
    Session,
    Token,
    User,
    Workspace,
)
from pat_service.storage.paging import Listing, PageRequest

#: A client needs one of these scopes to read, or to end, tokens and sessions.
READERS: Final = (callers.MINT, callers.MINT_WORKSPACE, callers.AUDIT, callers.PROVISION)
ENDERS: Final = (callers.MINT, callers.MINT_WORKSPACE, callers.PROVISION)
#: With one of these scopes a client also sees, or ends, the tokens and sessions of other clients.
SEES_ALL: Final = frozenset({callers.AUDIT, callers.PROVISION})
ENDS_ALL: Final = frozenset({callers.PROVISION})

#: A count stops here.
MAX_COUNTED: Final = 10_000
#: The largest number of ids in one statement.
CHUNK: Final = 1000

LIVE: Final = "live"
TOKEN_STATUSES: Final = (LIVE, "expired", "revoked", "used")


@dataclass(frozen=True, slots=True)
class TokenFilter:
    """Selects tokens or sessions by their ids. None matches every id."""

    app_id: str | None = None
    user_id: str | None = None
    workspace_id: str | None = None
    client_id: str | None = None
    token_id: str | None = None

    def conditions(self, table: type[Token | Session]) -> list[ColumnElement[bool]]:
        return paging.match(table, **asdict(self))


@dataclass(frozen=True, slots=True)
class Counts:
    """Numbers of tokens and sessions."""

    tokens: int
    sessions: int


class IssuedRow(Protocol):
    """A token or session, without the columns that only lists show."""

    id: str
    client_id: str
    app_id: str | None
    workspace_id: str
    user_id: str
    created_at: datetime
    expires_at: datetime


def count_live(now: datetime) -> Counts:
    """Count live tokens and sessions from indexes only: about 0.1 s for a million of each."""
    with reading() as connection:
        tokens, sessions = (connection.scalar(statement, {"now": now}) for statement in _live_counts)
    return Counts(tokens or 0, sessions or 0)


def count_endable(caller: Caller, token_filter: TokenFilter, now: datetime) -> Counts:
    """Count the matching live tokens and sessions that the caller may end, each up to `MAX_COUNTED` + 1."""
    parameters = visibility(caller, ENDS_ALL) | {"now": now}
    with reading() as connection:
        tokens, sessions = (
            connection.scalar(_count(table, conditions, token_filter), parameters) or 0
            for table, conditions in _live.items()
        )
    return Counts(tokens, sessions)


def _count(
    table: type[Token | Session], conditions: Iterable[ColumnElement[bool]], token_filter: TokenFilter
) -> Select[int]:
    found = select(table.id).where(*token_filter.conditions(table), *conditions, is_visible(table))
    return select(func.count()).select_from(found.limit(MAX_COUNTED + 1).subquery())


# Tokens.


def list_tokens(
    caller: Caller,
    token_filter: TokenFilter,
    page_request: PageRequest,
    now: datetime,
    *,
    live: bool | None = None,
) -> Listing:
    """Return a page of the tokens that the caller sees. `live` filters by whether they can open frames."""
    statement = _tokens.where(*token_filter.conditions(Token))
    if live is not None:
        statement = statement.where(_status == LIVE if live else _status != LIVE)
    with reading() as connection:
        return paging.page(connection, statement, Token.id, page_request, visibility(caller) | _times(now))


def read_token(caller: Caller, token_id: str, now: datetime) -> IssuedRow:
    """Return the token, or raise TokenNotFound."""
    with reading() as connection:
        return _find(connection, _token, caller, TokenNotFound, id=token_id, **_times(now))


def revoke_token(caller: Caller, token_id: str, now: datetime) -> Counts:
    """Revoke the token and end all open sessions of its user and app, or of its user and workspace.

    Revoking it twice changes nothing. Raise TokenNotFound, or ScopeMissing if the caller sees the token but
    may not revoke it.
    """
    with events.recording_refusals(events.CLIENT_REFUSED, now), transaction() as connection:
        token = _find(connection, _locked_token, caller, TokenNotFound, id=token_id)
        _require_own(caller, token, token_id=token_id)
        tokens = _end(connection, Token, [Token.id == token_id, is_visible(Token)], caller, now)
        pair = in_pair(Session, token.user_id, token.app_id, token.workspace_id)
        endable = [*pair, _is_reached(Session)]
        sessions = _end(connection, Session, endable, caller, now, by=events.TOKEN_REVOKED)
    return Counts(tokens, sessions)


def revoke_tokens(caller: Caller, token_filter: TokenFilter, now: datetime) -> Counts:
    """Revoke the matching tokens that the caller may revoke, and end the matching sessions.

    With the scope `provision` the caller ends all sessions in its workspaces. Without it, the caller ends the
    sessions that it minted. It also ends all sessions of a user and app if it revokes their token.
    """
    with transaction() as connection:
        revocable = [*token_filter.conditions(Token), is_visible(Token)]
        tokens = _end(connection, Token, revocable, caller, now)
        may_end = or_(_is_own(Session), _pair_is_revoked)
        endable = [*token_filter.conditions(Session), may_end, _is_reached(Session)]
        sessions = _end(connection, Session, endable, caller, now, by=events.TOKEN_REVOKED)
    return Counts(tokens, sessions)


def revoke_each(caller: Caller, token_ids: Collection[str], now: datetime) -> Counts:
    """Revoke these tokens as `revoke_token` does. Skip those that were replaced in the meantime."""
    tokens = sessions = 0
    for token_id in dict.fromkeys(token_ids):
        with suppress(TokenNotFound):
            counts = revoke_token(caller, token_id, now)
            tokens, sessions = tokens + counts.tokens, sessions + counts.sessions
    return Counts(tokens, sessions)


# Sessions.


def list_sessions(
    caller: Caller, token_filter: TokenFilter, page_request: PageRequest, now: datetime
) -> Listing:
    """Return a page of the live sessions that the caller sees, without those whose code expired unused."""
    statement = _sessions.where(*token_filter.conditions(Session), *LIVE_SESSION, OPENED_SESSION)
    with reading() as connection:
        return paging.page(connection, statement, Session.id, page_request, visibility(caller) | _times(now))


def read_session(caller: Caller, session_id: str) -> IssuedRow:
    """Return the session, live or not, or raise SessionNotFound."""
    with reading() as connection:
        return _find(connection, _session, caller, SessionNotFound, id=session_id)


def end_session(caller: Caller, session_id: str, now: datetime) -> int:
    """End the session at once and return 1, or 0 if it was not live.

    This also ends the sessions of apps that a launcher opened with this session, and a session that this one
    replaces. Raise SessionNotFound, or ScopeMissing if the caller sees the session but may not end it.
    """
    with events.recording_refusals(events.CLIENT_REFUSED, now):
        session = read_session(caller, session_id)
        _require_own(caller, session, session_id=session_id)
    with transaction() as connection:
        connection.execute(LOCK, {"session": session_id, "user": session.user_id})
        ended = _end(connection, Session, [Session.id == session_id, _is_reached(Session)], caller, now)
        dependents = [Session.user_id == session.user_id, depends_on(session_id), _is_reached(Session)]
        _end(connection, Session, dependents, caller, now, by=events.SESSION_ENDED)
    return ended


def end_each(caller: Caller, session_ids: Collection[str], now: datetime) -> int:
    """End these sessions as `end_session` does, and return the number of those that were live."""
    ended = 0
    for session_id in dict.fromkeys(session_ids):
        with suppress(SessionNotFound):
            ended += end_session(caller, session_id, now)
    return ended


def end_sessions(caller: Caller, token_filter: TokenFilter, now: datetime) -> int:
    """End the matching live sessions that the caller may end, and return their number."""
    with transaction() as connection:
        return _end(
            connection, Session, [*token_filter.conditions(Session), is_visible(Session)], caller, now
        )


def visibility(caller: Caller, scopes: frozenset[str] = SEES_ALL) -> dict[str, Any]:
    """Return the parameters of `is_visible`. With one of the scopes a caller sees all clients' rows."""
    return caller.reach() | {"sees_all": not caller.scopes.isdisjoint(scopes)}


def _times(now: datetime) -> dict[str, datetime]:
    return {"now": now, "repeat_since": now - REPEAT_WITHIN, "code_since": now - CODE_LIFE}


def _find(
    connection: Connection,
    statement: Select[*tuple[Any, ...]],
    caller: Caller,
    missing: type[Refused],
    **parameters: Any,
) -> IssuedRow:
    row: IssuedRow | None = connection.execute(statement, parameters | visibility(caller)).first()
    if row is None:
        raise missing
    return row


def _require_own(caller: Caller, row: IssuedRow, **ids: str) -> None:
    if row.client_id != caller.id and caller.scopes.isdisjoint(ENDS_ALL):
        raise ScopeMissing(
            f"This client lacks the scope {callers.PROVISION}, which is needed to end what others minted."
        ).about(client_id=caller.id, workspace_id=row.workspace_id, **ids)


def _end(
    connection: Connection,
    table: type[Token | Session],
    conditions: list[ColumnElement[bool]],
    caller: Caller,
    now: datetime,
    *,
    by: str | None = None,
) -> int:
    """Revoke the matching live tokens or end the matching live sessions, and return their number.

    `by` is the type of the event that caused this. Lock the rows first, in one order, to avoid a deadlock
    with other transactions. Change only the locked rows. Locked tokens also make openings wait, so the
    sessions of earlier openings are ended too.
    """
    type_, lock, change = _endings[table]
    parameters = visibility(caller, ENDS_ALL) | {"now": now}
    common: dict[str, Any] = {"client_id": caller.id, "details": {"by": by} if by else None}
    ended: list[dict[str, Any]] = []
    # Query sessions twice: a launcher may open an app while the first query waits for the launcher's lock.
    for _ in range(2 if table is Session else 1):
        locked = connection.execute(lock.where(*conditions), parameters).scalars().all()
        for start in range(0, len(locked), CHUNK):
            chunk = {"locked": locked[start : start + CHUNK], "now": now}
            ended += [
                events.build(type_, now, **common, **row._asdict())
                for row in connection.execute(change, chunk)
            ]
        if not locked:
            break
    events.record_many(connection, ended)
    return len(ended)


# Conditions and statements, built once.

_now = bindparam("now", type_=UtcDateTime)
_app = aliased(App)  # an alias, since an enclosing statement may join `apps` too


def has_stayed(table: type[Token | Session]) -> ColumnElement[bool]:
    """Return the condition that no move of the app has ended the row."""
    return table.app_id.is_(None) | exists().where(_app.id == table.app_id, _app.moves == table.moves)


def _is_reached(table: type[Token | Session]) -> ColumnElement[bool]:
    """Return the condition that the caller reaches the workspace, and that no move has ended the row."""
    return reaches_workspace(table.workspace_id) & has_stayed(table)


def _is_own(table: type[Token | Session]) -> ColumnElement[bool]:
    return or_(bindparam("sees_all", type_=Boolean), table.client_id == bindparam("caller"))


def is_visible(table: type[Token | Session]) -> ColumnElement[bool]:
    """Return the condition that the caller reaches the row, and minted it or sees other clients' rows."""
    return _is_reached(table) & _is_own(table)


#: The caller has revoked the token of the session's user and app, or of its user and workspace.
_pair_is_revoked = exists().where(
    Token.client_id == bindparam("caller"), Token.revoked_at.is_not(None), SAME_PAIR
)

_locked_ids: BindParameter[list[str]] = bindparam("locked", expanding=True)
#: By table: the type of the event, the statement that locks the live rows, and the one that ends them.
_endings: dict[Any, tuple[str, Select[str], Any]] = {
    Token: (
        events.TOKEN_REVOKED,
        select(Token.id)
        .where(Token.revoked_at.is_(None))
        .order_by(Token.user_id, Token.app_id, Token.workspace_id)
        .with_for_update(),
        update(Token)
        .where(Token.id.in_(_locked_ids))
        .values(revoked_at=_now)
        .returning(Token.id.label("token_id"), Token.app_id, Token.workspace_id, Token.user_id),
    ),
    Session: (
        events.SESSION_ENDED,
        select(Session.id).where(*LIVE_SESSION).order_by(Session.id).with_for_update(),
        update(Session)
        .where(Session.id.in_(_locked_ids))
        .values(ended_at=_now)
        .returning(
            Session.id.label("session_id"),
            Session.token_id,
            Session.app_id,
            Session.workspace_id,
            Session.user_id,
        ),
    ),
}

_live: dict[type[Token | Session], Sequence[ColumnElement[bool]]] = {
    Token: (Token.revoked_at.is_(None), Token.expires_at > _now),
    Session: LIVE_SESSION,
}
_live_counts = tuple(
    select(func.count()).select_from(table).where(table.expires_at > _now, ended.is_(None))
    for table, ended in ((Token, Token.revoked_at), (Session, Session.ended_at))
)

# Use the order of `tokens.check_token`, so the list agrees with an opening.
_status = case(
    (Token.revoked_at.is_not(None), "revoked"),
    (Token.expires_at <= _now, "expired"),
    (
        Token.single_use
        & Token.first_used_at.is_not(None)
        & or_(Token.repeat_by.is_(None), Token.first_used_at <= bindparam("repeat_since", type_=UtcDateTime)),
        "used",
    ),
    else_=LIVE,
)
_live_sessions = (
    select(func.count())
    .select_from(Session)
    .where(Session.token_id == Token.id, *LIVE_SESSION, OPENED_SESSION)
)


def _select_visible(table: type[Token | Session], *columns: Any) -> Select[*tuple[Any, ...]]:
    """Select the rows that the caller sees, with the names of their app, workspace and user.

    The email and the name are null if the caller no longer reaches the user: they may have left its
    workspaces, and have another name since.
    """
    named = {"app": App, "workspace": Workspace}
    return (
        select(
            table.id.label("key"),
            table.id,
            table.client_id,
            table.created_at,
            table.expires_at,
            *(
                getattr(model, column).label(f"{noun}_{column}")
                for noun, model in named.items()
                for column in ("id", "slug", "name")
            ),
            table.user_id,
            User.email.label("user_email"),
            User.name.label("user_name"),
            *columns,
        )
        .select_from(table)
        .join(Workspace, Workspace.id == table.workspace_id)
        .outerjoin(User, (User.id == table.user_id) & reaches_user(User.id))
        .outerjoin(App, App.id == table.app_id)
        .where(is_visible(table))
    )


_tokens = _select_visible(
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
_token = _tokens.where(Token.id == bindparam("id"))
_locked_token = (
    select(Token.client_id, Token.app_id, Token.workspace_id, Token.user_id)
    .where(Token.id == bindparam("id"), is_visible(Token))
    .with_for_update()
)
_sessions = _select_visible(Session, Session.token_id, Session.ended_at)
_session = _sessions.where(Session.id == bindparam("id"))

"""Mint a token, and recognise one. Read from top to bottom, this is the policy of tokens."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Select, bindparam, literal, select, true, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.elements import ColumnElement

from pat_service import events
from pat_service.access import FACTS, Viewer, facts_of, may_open, viewer
from pat_service.clients import Caller, reaches_user, reaches_workspace
from pat_service.credentials import TOKEN_PREFIX, Keyring, Secret, generate
from pat_service.database import AnyRow, reading, transaction
from pat_service.errors import (
    AppForbidden,
    AppNotFound,
    Refused,
    TokenExpired,
    TokenInvalid,
    TokenRevoked,
    TokenSuperseded,
    UserNotFound,
)
from pat_service.models import App, Session, Token, User, new_id
from pat_service.shapes import email_key

SCOPE: Final = "mint"


@dataclass(frozen=True, slots=True)
class Wish:
    """What a mint asks for: one of `email` and `user_id`, one of `app_id` and `app_slug`."""

    email: str | None
    user_id: str | None
    app_id: str | None
    app_slug: str | None
    pat_seconds: int
    session_seconds: int
    end_sessions: bool = False


@dataclass(frozen=True, slots=True)
class Minted:
    """A new token, and the only sight of its secret."""

    id: str
    secret: Secret
    app_id: str


def mint(caller: Caller, keyring: Keyring, wish: Wish, now: datetime) -> Minted:
    """Give the pair of user and app a new token. The one it had stops opening frames at that instant.

    Frames that are open go on, unless the wish ends them. Raise UserNotFound, AppNotFound or
    AppForbidden; a user or an app outside the caller's workspaces is not there.
    """
    with events.recording_refusals(events.MINT_REFUSED, now, client_id=caller.id):
        facts = _facts_of_wish(caller, wish)
        minted = Minted(new_id(), generate(TOKEN_PREFIX), facts.app_id)
        pair: dict[str, Any] = {"app_id": facts.app_id, "user_id": facts.user_id}
        with transaction() as connection:
            connection.execute(
                _upsert[connection.dialect.name],
                pair
                | {
                    "id": minted.id,
                    "client_id": caller.id,
                    "digest": keyring.current.digest(minted.secret),
                    "key_id": keyring.current.id,
                    # As read with the verdict: a move in between leaves a token that never opens.
                    "moves": facts.app_moves,
                    "session_seconds": wish.session_seconds,
                    "created_at": now,
                    "expires_at": now + timedelta(seconds=wish.pat_seconds),
                },
            )
            if wish.end_sessions:
                connection.execute(
                    _end_sessions, {"pair_app": facts.app_id, "pair_user": facts.user_id, "now": now}
                )
            events.record(
                connection,
                events.TOKEN_MINTED,
                now,
                client_id=caller.id,
                token_id=minted.id,
                workspace_id=facts.workspace_id,
                details={"ended_sessions": True} if wish.end_sessions else None,
                **pair,
            )
    return minted


def _facts_of_wish(caller: Caller, wish: Wish) -> AnyRow:
    statement = _wishes[wish.email is not None, wish.app_id is not None]
    user = email_key(wish.email) if wish.email is not None else wish.user_id
    app = wish.app_id if wish.app_id is not None else wish.app_slug
    with reading() as connection:
        facts = connection.execute(statement, {"user": user, "app": app} | caller.reach()).one()
    if facts.user_id is None or not facts.user_reached:
        raise UserNotFound
    if facts.app_id is None or not facts.app_reached:
        raise AppNotFound().about(user_id=facts.user_id)
    if not may_open(facts):
        raise AppForbidden().about(user_id=facts.user_id, app_id=facts.app_id)
    return facts


@dataclass(frozen=True, slots=True)
class Recognised:
    """A token that opens its app at this moment, whose session it may become."""

    id: str
    digest: bytes
    viewer: Viewer
    moves: int
    session_seconds: int
    origins: list[str]


def recognise(keyring: Keyring, secret: Secret, app_id: str, now: datetime) -> Recognised:
    """Return what the token opens, or raise why it opens nothing.

    TokenInvalid for a stranger or another app's token; TokenSuperseded, TokenRevoked, TokenExpired
    and AccessRevoked for one that really was this app's: its holder may know.
    """
    digests = [key.digest(secret) for key in keyring.keys]
    with reading() as connection:
        for digest in digests:
            row = connection.execute(_by_digest, {"digest": digest}).first()
            if row is not None:
                return _judge(row, digest, app_id, now)
        for digest in digests:
            newer = connection.execute(_by_superseded_digest, {"digest": digest}).first()
            if newer is not None and newer.app_id == app_id:
                raise _about(TokenSuperseded(), newer)
    raise TokenInvalid


def _judge(row: AnyRow, digest: bytes, app_id: str, now: datetime) -> Recognised:
    if row.app_id != app_id:
        raise _about(TokenInvalid(), row)
    if row.revoked_at is not None:
        raise _about(TokenRevoked(), row)
    if row.expires_at <= now:
        raise _about(TokenExpired(), row)
    try:
        seen_by = viewer(row, row.moves)
    except Refused as refusal:
        raise _about(refusal, row) from None
    return Recognised(row.token_id, digest, seen_by, row.moves, row.session_seconds, row.app_origins)


def _about(refusal: Refused, row: AnyRow) -> Refused:
    return refusal.about(token_id=row.token_id, app_id=row.app_id, user_id=row.user_id)


# Statements, built once.


def _wish_statement(user: ColumnElement[bool], app: ColumnElement[bool]) -> Select[*tuple[Any, ...]]:
    return select(
        *FACTS,
        reaches_user(User.id).label("user_reached"),
        reaches_workspace(App.workspace_id).label("app_reached"),
    ).select_from(facts_of(select(literal(1)).subquery("one"), app, user))


#: By whether the user is named by email, and the app by id.
_wishes = {
    (by_email, by_id): _wish_statement(
        (User.email if by_email else User.id) == bindparam("user"),
        (App.id if by_id else App.slug) == bindparam("app"),
    )
    for by_email in (True, False)
    for by_id in (True, False)
}

_REPLACED: Final = (
    "id",
    "client_id",
    "digest",
    "key_id",
    "moves",
    "session_seconds",
    "created_at",
    "expires_at",
)


def _upsert_for(dialect: Any) -> Any:
    # One statement, so that racing mints of a pair follow each other instead of tripping its index.
    statement = dialect.insert(Token)
    replaced = {name: statement.excluded[name] for name in _REPLACED}
    return statement.on_conflict_do_update(
        index_elements=["app_id", "user_id"],
        set_=replaced | {"superseded_digest": Token.digest, "revoked_at": None},
    )


_upsert = {"sqlite": _upsert_for(sqlite), "postgresql": _upsert_for(postgresql)}

_end_sessions = (
    update(Session)
    .where(
        Session.app_id == bindparam("pair_app"),
        Session.user_id == bindparam("pair_user"),
        Session.ended_at.is_(None),
    )
    .values(ended_at=bindparam("now"))
)

_by_digest = (
    select(
        *FACTS,
        Token.id.label("token_id"),
        Token.moves,
        Token.session_seconds,
        Token.expires_at,
        Token.revoked_at,
    )
    .select_from(facts_of(Token.__table__, App.id == Token.app_id, User.id == Token.user_id))
    .where(Token.digest == bindparam("digest"))
)

_by_superseded_digest = select(Token.id.label("token_id"), Token.app_id, Token.user_id).where(
    Token.superseded_digest == bindparam("digest")
)


def still_opens(digest: Any) -> Select[*tuple[Any, ...]]:
    """The guard of a write that hangs on the token: a row while the digest is live, and locked meanwhile.

    The lock (PostgreSQL's; SQLite has one writer) makes a revocation wait for the write, so that it
    cannot miss what the write adds.
    """
    return (
        select(true()).select_from(Token).where(Token.digest == digest, Token.revoked_at.is_(None))
    ).with_for_update(read=True)

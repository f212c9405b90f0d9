"""Recognise a token, and use it. Read from top to bottom, this is the policy of tokens."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, bindparam, func, or_, select, update
from sqlalchemy.sql.elements import BindParameter, ColumnElement

from pat_service.credentials import Key, Keyring, Secret
from pat_service.errors import (
    Refused,
    TokenExpired,
    TokenInvalid,
    TokenRevoked,
    TokenSuperseded,
    TokenUsed,
)
from pat_service.rules import events
from pat_service.rules.access import (
    FACTS,
    Place,
    Viewer,
    Visitor,
    facts_of,
    meant_for,
    require_viewer,
    require_visitor,
)
from pat_service.storage.database import AnyRow, UtcDateTime, reading
from pat_service.storage.models import App, Token, User, Workspace
from pat_service.storage.prepared import Query

#: A browser may load a frame twice in a row: so long after its first use a single-use token still opens,
#: in place of the first.
REPEAT_WITHIN: Final = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class Recognised:
    """A token that opens its place at this moment, whose session it may become."""

    id: str
    seen_by: Viewer | Visitor
    row: AnyRow

    def kept_under(self, key: Key) -> bool:
        """Tell whether the digest that is stored is one of this key."""
        return bool(self.row.key_id == key.id)


def recognise(keyring: Keyring, secret: Secret, place: Place, now: datetime) -> Recognised:
    """Return what the token opens there, or raise why it opens nothing.

    TokenInvalid for a stranger or a token of another place; TokenSuperseded, TokenRevoked,
    TokenExpired, TokenUsed and AccessRevoked for one that really was for it: its holder may know.
    """
    row = _by_digest.first({"digest": keyring.current.digest(secret), "app": place.known_app})
    if row is None:
        row = _among_older(keyring, secret, place)
    return _judge(row, place, now)


def _among_older(keyring: Keyring, secret: Secret, place: Place) -> AnyRow:
    """Return the token that is kept under an older key, or raise what became of it."""
    # All keys in one look: a digest may be made anew between two.
    values = {"digests": [key.digest(secret) for key in keyring.keys], "app": place.known_app}
    with reading() as connection:
        if len(keyring.keys) > 1 and (row := connection.execute(_by_digests, values).first()) is not None:
            return row
        newer = connection.execute(_by_superseded_digests, values).first()
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
        seen_by = require_visitor(row) if place.app_id is None else require_viewer(row)
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
    used = connection.execute(USE, use_of(keyring, secret, token, now))
    if used.rowcount and not token.kept_under(keyring.current):
        events.record(
            connection,
            events.TOKEN_REKEYED,
            now,
            token_id=token.id,
            app_id=token.row.target_app,
            user_id=token.row.user_id,
            workspace_id=token.row.token_workspace,
            details={"before": {"key": token.row.key_id}, "after": {"key": keyring.current.id}},
        )
    return bool(used.rowcount)


def use_of(keyring: Keyring, secret: Secret, token: Recognised, now: datetime) -> dict[str, Any]:
    """Return the values of USE."""
    return {
        "held": token.row.digest,
        "fresh": keyring.current.digest(secret),
        "fresh_key": keyring.current.id,
        "used_now": now,
        "repeat_since": now - REPEAT_WITHIN,
    }


# Statements, built once.

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

_known = select(
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
).select_from(_joined)
_digests: BindParameter[bytes] = bindparam("digests", expanding=True)
_by_digest = Query(_known.where(Token.digest == bindparam("digest")))
_by_digests = _known.where(Token.digest.in_(_digests))
_by_superseded_digests = (
    select(*FACTS, *_IDS).select_from(_joined).where(Token.superseded_digest.in_(_digests))
)

_used_now: ColumnElement[datetime] = bindparam("used_now", type_=UtcDateTime)
#: The guard of an opening. On PostgreSQL its lock also makes a revocation wait for the opening, so that
#: it cannot miss the session that this adds; SQLite has one writer.
USE: Final = (
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

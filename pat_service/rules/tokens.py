"""Check a token, and use it to open a session.

`check_token` applies the checks in this order: made for this place, not revoked, not expired, not used,
access. Browsers load some frames twice, so a second navigation of the same kind may repeat the opening of a
single-use token for `REPEAT_WITHIN`. Programs and hand-overs get no repeat. The first request of the first
session ends this possibility. `is_used` decides this, and `MARK_USED` guards it against concurrent openings.
When the repeat opens a session, `openings` ends the first one.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal, Protocol, TypeAlias

from sqlalchemy import Connection, Text, and_, bindparam, case, func, or_, update
from sqlalchemy.sql.elements import BindParameter, ColumnElement

from pat_service.credentials import Key, Keyring, Secret
from pat_service.errors import Refused, TokenExpired, TokenInvalid, TokenRevoked, TokenSuperseded, TokenUsed
from pat_service.rules import access, events
from pat_service.rules.access import AnyViewer, CredentialFacts, Place, is_for_place, require_access
from pat_service.storage.database import UtcDateTime, reading
from pat_service.storage.models import OF_APP, OF_WORKSPACE, Session, Token
from pat_service.storage.prepared import Query

#: A browser's navigation with a token: its address, or a form that targets the frame.
Navigation: TypeAlias = Literal["address", "form"]

#: A navigation may repeat the opening of a single-use token for this long.
REPEAT_WITHIN: Final = timedelta(seconds=10)


class TokenRow(CredentialFacts, Protocol):
    """A token with its `FACTS`."""

    digest: bytes
    key_id: str
    session_seconds: int
    single_use: bool
    first_used_at: datetime | None
    revoked_at: datetime | None
    repeat_by: str | None


@dataclass(frozen=True, slots=True)
class ValidToken:
    """A token that may open its place now."""

    id: str
    viewer: AnyViewer
    row: TokenRow

    def is_under(self, key: Key) -> bool:
        """Return whether the stored digest was made with this key."""
        return self.row.key_id == key.id


def check_token(
    keyring: Keyring, secret: Secret, place: Place, now: datetime, navigation: Navigation | None = None
) -> ValidToken:
    """Return the token if it opens the place. `navigation` is None for a script or program.

    Raise TokenInvalid if the token is unknown or for another place. For a token of this place, raise
    TokenSuperseded, TokenRevoked, TokenExpired, TokenUsed or AccessRevoked.
    """
    values = {"digest": keyring.current.digest(secret), "app": place.valid_app_id}
    row: TokenRow | None = _by_digest.first(values)
    if row is None:
        row = _find_older(keyring, secret, place)
    if not is_for_place(keyring, row, place):
        raise _describe(TokenInvalid(), row)
    if row.revoked_at is not None:
        raise _describe(TokenRevoked(), row)
    if row.expires_at <= now:
        raise _describe(TokenExpired(), row)
    if is_used(row, now, navigation):
        raise _describe(TokenUsed(), row)
    try:
        return ValidToken(row.token_id, require_access(row, place), row)
    except Refused as refusal:
        raise _describe(refusal, row) from None


def _find_older(keyring: Keyring, secret: Secret, place: Place) -> TokenRow:
    """Return the token whose digest an older key made, or raise TokenSuperseded or TokenInvalid."""
    # Query all keys at once, since a digest may be re-keyed between two queries.
    values = {"digests": [key.digest(secret) for key in keyring.keys], "app": place.valid_app_id}
    row: TokenRow | None
    with reading() as connection:
        if len(keyring.keys) > 1 and (row := connection.execute(_by_digests, values).first()) is not None:
            return row
        row = connection.execute(_by_superseded_digests, values).first()
    if row is not None and is_for_place(keyring, row, place):
        raise _describe(TokenSuperseded(), row)
    raise TokenInvalid


def is_used(row: TokenRow, now: datetime, navigation: str | None) -> bool:
    """Return whether a single-use token was used, and this navigation cannot repeat the opening."""
    if not row.single_use or row.first_used_at is None:
        return False
    return navigation is None or row.repeat_by != navigation or row.first_used_at <= now - REPEAT_WITHIN


def _describe(refusal: Refused, row: TokenRow) -> Refused:
    return refusal.about(
        token_id=row.token_id,
        app_id=row.target_app,
        user_id=row.user_id,
        workspace_id=row.workspace_id,
        client_id=row.client_id,
    )


def use_token(
    connection: Connection,
    keyring: Keyring,
    secret: Secret,
    token: ValidToken,
    now: datetime,
    navigation: Navigation | None,
) -> bool:
    """Record the use, re-key an old digest, and lock the token until the transaction ends.

    Return False if the token was replaced, revoked or used since it was checked.
    """
    used = connection.execute(MARK_USED, build_use_values(keyring, secret, token, now, navigation))
    if used.rowcount and not token.is_under(keyring.current):
        events.record(
            connection,
            events.TOKEN_REKEYED,
            now,
            token_id=token.id,
            app_id=token.row.target_app,
            user_id=token.row.user_id,
            workspace_id=token.row.workspace_id,
            details={"before": {"key": token.row.key_id}, "after": {"key": keyring.current.id}},
        )
    return bool(used.rowcount)


def build_use_values(
    keyring: Keyring, secret: Secret, token: ValidToken, now: datetime, navigation: Navigation | None
) -> dict[str, Any]:
    """Return the parameters of `MARK_USED`."""
    return {
        "old_digest": token.row.digest,
        "new_digest": keyring.current.digest(secret),
        "new_key": keyring.current.id,
        "used_now": now,
        "repeat_since": now - REPEAT_WITHIN,
        "navigation": navigation,
    }


def in_pair(
    table: type[Token | Session], user_id: str, app_id: str | None, workspace_id: str
) -> list[ColumnElement[bool]]:
    """Return the conditions for rows of this user and app, or without an app of this user and workspace.

    A session at an app belongs to the workspace's pair if a workspace token opened it.
    """
    if app_id is not None:
        of_app = [table.user_id == user_id, table.app_id == app_id]
        return [*of_app, OF_APP] if table is Session else of_app
    of_workspace = OF_WORKSPACE if table is Session else table.app_id.is_(None)
    return [table.user_id == user_id, of_workspace, table.workspace_id == workspace_id]


# Statements, built once.

_tokens = access.select_credentials(
    Token,
    Token.id.label("token_id"),
    Token.digest,
    Token.key_id,
    Token.session_seconds,
    Token.single_use,
    Token.first_used_at,
    Token.revoked_at,
    Token.repeat_by,
)
_digests: BindParameter[bytes] = bindparam("digests", expanding=True)
_by_digest = Query(_tokens.where(Token.digest == bindparam("digest")))
_by_digests = _tokens.where(Token.digest.in_(_digests))
_by_superseded_digests = _tokens.where(Token.superseded_digest.in_(_digests))

_used_now: ColumnElement[datetime] = bindparam("used_now", type_=UtcDateTime)
_navigation: ColumnElement[str] = bindparam("navigation", type_=Text)
#: This guards an opening. On PostgreSQL its row lock makes a concurrent revocation wait, which then ends the
#: new session too. SQLite has only one writer.
MARK_USED: Final = (
    update(Token)
    .where(
        Token.digest == bindparam("old_digest"),
        Token.revoked_at.is_(None),
        or_(
            Token.single_use.is_(False),
            Token.first_used_at.is_(None),
            and_(
                Token.first_used_at > bindparam("repeat_since", type_=UtcDateTime),
                Token.repeat_by == _navigation,
            ),
        ),
    )
    .values(
        digest=bindparam("new_digest"),
        key_id=bindparam("new_key"),
        first_used_at=func.coalesce(Token.first_used_at, _used_now),
        last_used_at=_used_now,
        # The second use is the repeat, so no third one is possible.
        repeat_by=case((Token.first_used_at.is_(None), _navigation)),
    )
)
#: The first request of a session ends the repeat of its token.
END_REPEAT: Final = (
    update(Token).where(Token.id == bindparam("token"), Token.repeat_by.is_not(None)).values(repeat_by=None)
)

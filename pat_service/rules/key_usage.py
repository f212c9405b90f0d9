"""Count the live tokens, sessions and client secrets of each SECRET_KEY."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Select, exists, func, or_, select

from pat_service.credentials import Keyring
from pat_service.storage.database import reading
from pat_service.storage.models import Client, ClientSecret, Session, Token


@dataclass(frozen=True, slots=True)
class KeyUse:
    """The numbers of live tokens, client secrets and sessions that use one key.

    `place` is the key's index in the keyring; 0 is the current key. Without a `place` the key is not
    configured. Its tokens, secrets and sessions do not work until it becomes a fallback key.
    """

    key_id: str
    place: int | None
    tokens: int
    client_secrets: int
    sessions: int

    @property
    def idle(self) -> bool:
        return not (self.tokens or self.client_secrets or self.sessions)


def key_uses(keyring: Keyring, now: datetime) -> list[KeyUse]:
    """Return the usage of each key: first the keyring in its order, then keys that are not configured."""
    with reading() as connection:
        return _build(keyring, [dict(connection.execute(live).all()) for live in _count_live(now)])


def few_key_uses(keyring: Keyring, now: datetime, most: int) -> list[KeyUse] | None:
    """Return the usage of each key as `key_uses` does, but read at most `most` tokens, secrets and sessions.

    Return None if there are more.
    """
    with reading() as connection:
        counts = [dict(connection.execute(live).all()) for live in _count_live(now, most + 1)]
    return _build(keyring, counts) if max(sum(count.values()) for count in counts) <= most else None


def _build(keyring: Keyring, counts: Sequence[dict[str, int]]) -> list[KeyUse]:
    ours = list(dict.fromkeys(key.id for key in keyring.keys))
    others = sorted(set().union(*counts) - set(ours))
    return [
        KeyUse(id_, ours.index(id_) if id_ in ours else None, *(count.get(id_, 0) for count in counts))
        for id_ in ours + others
    ]


def all_secrets_lost(uses: Sequence[KeyUse]) -> bool:
    """Return whether live client secrets exist and all of them use keys that are not configured.

    This happens after a SECRET_KEY is lost or mistyped.
    """
    usable, lost = (
        sum(use.client_secrets for use in uses if (use.place is None) == missing) for missing in (False, True)
    )
    return lost > 0 and not usable


def _count_live(now: datetime, most: int | None = None) -> list[Select[str, int]]:
    """Return the statements that count live tokens, client secrets and sessions by key, up to `most` each."""
    lasting = or_(ClientSecret.expires_at.is_(None), ClientSecret.expires_at > now)
    live_client = exists().where(Client.id == ClientSecret.client_id, Client.revoked_at.is_(None))
    live = (
        (Token, (Token.expires_at > now, Token.revoked_at.is_(None))),
        (ClientSecret, (lasting, live_client)),
        (Session, (Session.expires_at > now, Session.ended_at.is_(None))),
    )
    rows = [select(table.key_id).where(*conditions).limit(most).subquery() for table, conditions in live]
    return [select(row.c.key_id, func.count()).group_by(row.c.key_id) for row in rows]

"""Which SECRET_KEY the live tokens, sessions and client secrets still use."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Select, func, or_, select

from pat_service.credentials import Keyring
from pat_service.storage.database import reading
from pat_service.storage.models import Client, ClientSecret, Session, Token


@dataclass(frozen=True, slots=True)
class KeyUse:
    """What is live and hangs on one key. `place` is its place in the keyring: 0 is the current one's.

    None: it is no key of the keyring, so what hangs on it is dead until the key is a fallback again.
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
    """Return what hangs on each key of the keyring, in its order, and then on keys that are none of it."""
    with reading() as connection:
        tokens, secrets, sessions = (_by_key(connection, live) for live in _live(now))
    ours = list(dict.fromkeys(key.id for key in keyring.keys))
    others = sorted((tokens.keys() | secrets.keys() | sessions.keys()) - set(ours))
    return [
        KeyUse(
            id_,
            ours.index(id_) if id_ in ours else None,
            tokens.get(id_, 0),
            secrets.get(id_, 0),
            sessions.get(id_, 0),
        )
        for id_ in ours + others
    ]


def all_secrets_lost(uses: Sequence[KeyUse]) -> bool:
    """Tell whether clients have live secrets and all hang on keys that are none of the keyring.

    That is what a SECRET_KEY looks like that was lost or mistyped.
    """
    kept, lost = (
        sum(use.client_secrets for use in uses if (use.place is None) == gone) for gone in (False, True)
    )
    return lost > 0 and not kept


def _live(now: datetime) -> tuple[Select[str, int], Select[str, int], Select[str, int]]:
    """Return how many live tokens, client secrets and sessions each key has."""
    tokens = select(Token.key_id, func.count()).where(Token.expires_at > now, Token.revoked_at.is_(None))
    secrets = (
        select(ClientSecret.key_id, func.count())
        .join(Client, Client.id == ClientSecret.client_id)
        .where(
            Client.revoked_at.is_(None),
            or_(ClientSecret.expires_at.is_(None), ClientSecret.expires_at > now),
        )
    )
    sessions = select(Session.key_id, func.count()).where(
        Session.expires_at > now, Session.ended_at.is_(None)
    )
    return (
        tokens.group_by(Token.key_id),
        secrets.group_by(ClientSecret.key_id),
        sessions.group_by(Session.key_id),
    )


def _by_key(connection: Connection, statement: Select[str, int]) -> dict[str, int]:
    return dict(connection.execute(statement).all())

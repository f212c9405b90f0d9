"""Is this token or session good at this moment, and whose is it? (RFC 7662, token introspection)

For back ends of apps that run elsewhere. It decides by the rules of an opening and of a request, and
changes nothing: no use is noted, no limit counts it, and the trail does not tell of it.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Select, bindparam, select

from pat_service.credentials import Keyring, parse_token
from pat_service.errors import Refused
from pat_service.rules import sessions, tokens
from pat_service.rules.access import Place, Viewer, Visitor
from pat_service.rules.callers import Caller
from pat_service.rules.token_admin import seen, sight
from pat_service.storage.database import AnyRow, reading
from pat_service.storage.models import Session, Token


@dataclass(frozen=True, slots=True)
class Active:
    """A token that would open its place at this moment, or a session that would be served there.

    Without `app_id` it is one of a workspace.
    """

    kind: Literal["pat", "session"]
    id: str
    client_id: str
    app_id: str | None
    issued_at: datetime
    expires_at: datetime
    seen_by: Viewer | Visitor


def introspect(caller: Caller, keyring: Keyring, text: str, now: datetime) -> Active | None:
    """Return what the text is, if it is good at this moment and one that the caller may know of."""
    for look in (_token, _session):
        try:
            return look(caller, keyring, text, now)
        except Refused:
            continue
    return None


def _token(caller: Caller, keyring: Keyring, text: str, now: datetime) -> Active | None:
    secret = parse_token(text)
    digests = [key.digest(secret) for key in keyring.keys]
    row = _first(_token_seen, caller, digests=digests)
    if row is None:
        return None
    token = tokens.recognise(keyring, secret, _place(row), now)
    return _active("pat", row, token.seen_by)


def _session(caller: Caller, keyring: Keyring, text: str, now: datetime) -> Active | None:
    claims = keyring.read_any_session(text)
    row = _first(_session_seen, caller, id=claims.session_id)
    if row is None:
        return None
    place = _place(row)
    return _active("session", row, sessions.judge(sessions.find(claims, place), place, now))


def _first(statement: Select[*tuple[Any, ...]], caller: Caller, **parameters: Any) -> AnyRow | None:
    with reading() as connection:
        return connection.execute(statement, parameters | sight(caller)).first()


def _place(row: AnyRow) -> Place:
    """Where the token or session is for: its app, or the launcher of its workspace."""
    return Place(workspace_id=row.workspace_id) if row.app_id is None else Place(app_id=row.app_id)


def _active(kind: Literal["pat", "session"], row: AnyRow, seen_by: Viewer | Visitor) -> Active:
    return Active(kind, row.id, row.client_id, row.app_id, row.created_at, row.expires_at, seen_by)


_token_seen, _session_seen = (
    select(
        table.id, table.client_id, table.app_id, table.workspace_id, table.created_at, table.expires_at
    ).where(wanted, seen(table))
    for table, wanted in (
        (Token, Token.digest.in_(bindparam("digests", expanding=True))),
        (Session, Session.id == bindparam("id")),
    )
)

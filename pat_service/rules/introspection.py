"""Introspect a token or session for the back end of an app that runs elsewhere (RFC 7662).

It applies the rules of an opening or of a request, but changes nothing. It records no use and no event, and
no limit counts it.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Select, bindparam, select
from sqlalchemy.sql.elements import ColumnElement

from pat_service.credentials import Keyring, parse_token
from pat_service.errors import Refused
from pat_service.rules import sessions, tokens
from pat_service.rules.access import AnyViewer, Place
from pat_service.rules.callers import Caller
from pat_service.rules.token_admin import IssuedRow, is_visible, visibility
from pat_service.storage.database import reading
from pat_service.storage.models import Session, Token


@dataclass(frozen=True, slots=True)
class Active:
    """A token or session that is valid now. Without `app_id` it is for a workspace."""

    kind: Literal["pat", "session"]
    id: str
    client_id: str
    app_id: str | None
    issued_at: datetime
    expires_at: datetime
    viewer: AnyViewer


def introspect(caller: Caller, keyring: Keyring, text: str, now: datetime) -> Active | None:
    """Return the token or session. Return None if it is not valid now or the caller may not see it."""
    for introspect_kind in (_introspect_token, _introspect_session):
        try:
            return introspect_kind(caller, keyring, text, now)
        except Refused:
            continue
    return None


def _introspect_token(caller: Caller, keyring: Keyring, text: str, now: datetime) -> Active | None:
    secret = parse_token(text)
    row = _find(_visible_token, caller, digests=[key.digest(secret) for key in keyring.keys])
    if row is None:
        return None
    return _build("pat", row, tokens.check_token(keyring, secret, _place(row), now).viewer)


def _introspect_session(caller: Caller, keyring: Keyring, text: str, now: datetime) -> Active | None:
    claims = keyring.read_any_session(text)
    row = _find(_visible_session, caller, id=claims.session_id)
    if row is None:
        return None
    place = _place(row)
    return _build("session", row, sessions.require_valid(keyring, sessions.find(claims), place, now))


def _find(statement: Select[*tuple[Any, ...]], caller: Caller, **parameters: Any) -> IssuedRow | None:
    with reading() as connection:
        row: IssuedRow | None = connection.execute(statement, parameters | visibility(caller)).first()
    return row


def _place(row: IssuedRow) -> Place:
    return Place(workspace_id=row.workspace_id) if row.app_id is None else Place(app_id=row.app_id)


def _build(kind: Literal["pat", "session"], row: IssuedRow, viewer: AnyViewer) -> Active:
    return Active(kind, row.id, row.client_id, row.app_id, row.created_at, row.expires_at, viewer)


def _select_visible(table: type[Token | Session], matches: ColumnElement[bool]) -> Select[*tuple[Any, ...]]:
    ids = (table.id, table.client_id, table.app_id, table.workspace_id, table.user_id)
    return select(*ids, table.created_at, table.expires_at).where(matches, is_visible(table))


_visible_token = _select_visible(Token, Token.digest.in_(bindparam("digests", expanding=True)))
_visible_session = _select_visible(Session, Session.id == bindparam("id"))

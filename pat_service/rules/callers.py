"""Authenticate the calling client by its id and secret, and say what a caller reaches.

A caller is a client or an operator. It has scopes, and may be limited to workspaces.
"""

import hmac
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

from sqlalchemy import Boolean, and_, bindparam, exists, or_, select, union_all, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import aliased
from sqlalchemy.sql.elements import ColumnElement, SQLColumnExpression

from pat_service.credentials import Keyring, Secret
from pat_service.errors import InvalidClient, ScopeMissing, Unavailable
from pat_service.rules import events
from pat_service.shapes import is_client_id
from pat_service.storage.circuit_breaker import CircuitBreaker
from pat_service.storage.database import UtcDateTime, transaction
from pat_service.storage.models import (
    ROLES,
    Client,
    ClientSecret,
    ClientWorkspace,
    Member,
    OperatorWorkspace,
)
from pat_service.storage.prepared import Query

#: Scopes: mint for an app, mint for a workspace, change the directory, read the audit trail.
MINT: Final = "mint"
MINT_WORKSPACE: Final = "mint:workspace"
PROVISION: Final = "provision"
AUDIT: Final = "audit"
SCOPES: Final = (MINT, MINT_WORKSPACE, PROVISION, AUDIT)
#: The use of a secret is recorded at most once in this interval.
RECORD_USE_EVERY: Final = timedelta(minutes=1)

_log = logging.getLogger(__name__)
_NO_DIGEST: Final = bytes(32)
#: While the breaker is open, no use is recorded, so no request waits for a failing database.
_breaker = CircuitBreaker()

#: A client with its secrets. `authenticate` needs these columns, and the condition `IS_LIVE`.
SECRETS: Final = Client.__table__.join(ClientSecret.__table__, ClientSecret.client_id == Client.id)
COLUMNS: Final = (
    Client.id,
    Client.scopes,
    Client.all_workspaces,
    Client.mint_limit,
    Client.highest_role,
    ClientSecret.id.label("secret_id"),
    ClientSecret.digest,
    ClientSecret.key_id,
    ClientSecret.last_used_at,
)
IS_LIVE: Final = and_(
    Client.id == bindparam("id"),
    Client.revoked_at.is_(None),
    or_(ClientSecret.expires_at.is_(None), ClientSecret.expires_at > bindparam("now", type_=UtcDateTime)),
)
#: The condition that the secret is the presented one, and its digest is under the current key.
IS_PRESENTED: Final = ClientSecret.digest == bindparam("presented")
_by_id = Query(select(*COLUMNS).select_from(SECRETS).where(IS_LIVE))
#: The old digest guards the update: only one of several concurrent requests re-keys it.
_record_use = (
    update(ClientSecret)
    .where(ClientSecret.id == bindparam("secret"), ClientSecret.digest == bindparam("old_digest"))
    .values(
        digest=bindparam("new_digest"),
        key_id=bindparam("new_key"),
        last_used_at=bindparam("used_now", type_=UtcDateTime),
    )
)


class SecretRow(Protocol):
    """A live secret with its client."""

    id: str
    scopes: list[str]
    all_workspaces: bool
    mint_limit: str | None
    highest_role: str
    secret_id: str
    digest: bytes
    key_id: str
    last_used_at: datetime | None


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated client, an operator in the console, or the operator of commands."""

    id: str
    scopes: frozenset[str]
    all_workspaces: bool
    mint_limit: str | None = None
    highest_role: str = ROLES[0]

    def require(self, *scopes: str) -> None:
        """Raise ScopeMissing unless the client has one of the scopes."""
        if self.scopes.isdisjoint(scopes):
            raise ScopeMissing(f"This client lacks the scope {' or '.join(scopes)}.").about(client_id=self.id)

    def require_role(self, role: str) -> None:
        """Raise ScopeMissing if the role is above the highest that the client can give."""
        self._require_at_most(role, "can give no role")

    def require_rank(self, role: str) -> None:
        """Raise ScopeMissing if the client cannot change a user who has this role."""
        self._require_at_most(role, "can change no user with a role")

    def _require_at_most(self, role: str, limit: str) -> None:
        if ROLES.index(role) < ROLES.index(self.highest_role):
            raise ScopeMissing(f"This client {limit} above {self.highest_role}.").about(client_id=self.id)

    def reach(self) -> dict[str, object]:
        """Return the parameters of the conditions `reaches_workspace` and `reaches_user`."""
        return {"caller": self.id, "everywhere": self.all_workspaces}


#: Commands on the server run as this caller. No client can have its id.
OPERATOR: Final = Caller("(operator)", frozenset(SCOPES), all_workspaces=True)

_everywhere: ColumnElement[bool] = bindparam("everywhere", type_=Boolean)


_caller: ColumnElement[str] = bindparam("caller")
#: The workspaces of each limited caller: of clients and of operators.
REACHED: Final = union_all(
    select(ClientWorkspace.client_id.label("caller_id"), ClientWorkspace.workspace_id),
    select(OperatorWorkspace.operator_id, OperatorWorkspace.workspace_id),
).subquery("caller_workspaces")


def reaches_workspace(
    workspace_id: SQLColumnExpression[Any],
    caller: SQLColumnExpression[str] = _caller,
    everywhere: SQLColumnExpression[bool] = _everywhere,
) -> ColumnElement[bool]:
    """Return the condition that the workspace is one of the caller's. No limited caller reaches null."""
    return or_(
        everywhere,
        *(
            exists().where(caller_id == caller, reached_id == workspace_id)
            for caller_id, reached_id in _list_reached_by(caller)
        ),
    )


def _list_reached_by(
    caller: SQLColumnExpression[str],
) -> tuple[tuple[ColumnElement[str], ColumnElement[str]], ...]:
    """Return the columns of callers and of their workspaces, for each kind of caller.

    PostgreSQL takes half as long for two conditions as for one on `REACHED`.
    """
    of_clients, of_operators = ClientWorkspace.__table__.c, OperatorWorkspace.__table__.c
    clients = (of_clients.client_id, of_clients.workspace_id)
    if caller is not _caller:
        # A column of a client: a mint need not read the workspaces of operators.
        return (clients,)
    return (clients, (of_operators.operator_id, of_operators.workspace_id))


_membership = aliased(Member)  # an alias, since an enclosing statement may join `members` too


def reaches_user(
    user_id: SQLColumnExpression[str],
    caller: SQLColumnExpression[str] = _caller,
    everywhere: SQLColumnExpression[bool] = _everywhere,
) -> ColumnElement[bool]:
    """Return the condition that the user is a member of one of the caller's workspaces."""
    return or_(
        everywhere,
        *(
            exists().where(
                _membership.user_id == user_id, reached_id == _membership.workspace_id, caller_id == caller
            )
            for caller_id, reached_id in _list_reached_by(caller)
        ),
    )


def authenticate(keyring: Keyring, client_id: str, secret: Secret, now: datetime) -> Caller:
    """Return the caller, or raise InvalidClient. An unknown id takes as long as a wrong secret.

    The error is about the client if its id is known. Record the use of the secret, and re-key its digest if
    an older key made it.
    """
    return authenticate_by(_by_id, {}, keyring, client_id, secret, now)[0]


def authenticate_by(
    query: Query, values: Mapping[str, Any], keyring: Keyring, client_id: str, secret: Secret, now: datetime
) -> tuple[Caller, Any]:
    """Authenticate as `authenticate` does, and also return the row of the presented secret.

    `query` selects at least `COLUMNS` of `SECRETS` that are `IS_LIVE`.
    """
    presented = keyring.current.digest(secret)
    rows: list[SecretRow] = []
    if is_client_id(client_id):
        rows = query.all({**values, "id": client_id, "now": now, "presented": presented})
    matched = None
    for row in rows:
        key = keyring.get(row.key_id)
        expected = row.digest if key else _NO_DIGEST
        given = presented if key is None or key is keyring.current else key.digest(secret)
        if hmac.compare_digest(given, expected):
            matched = row
    if not rows:
        hmac.compare_digest(presented, _NO_DIGEST)
    if matched is None:
        raise InvalidClient().about(client_id=rows[0].id if rows else None)
    recorded = matched.last_used_at
    if recorded is None or recorded <= now - RECORD_USE_EVERY or matched.key_id != keyring.current.id:
        _record(keyring, matched, secret, now)
    caller = Caller(
        matched.id,
        frozenset(matched.scopes),
        matched.all_workspaces,
        matched.mint_limit,
        matched.highest_role,
    )
    return caller, matched


def _record(keyring: Keyring, row: SecretRow, secret: Secret, now: datetime) -> None:
    """Record the use of the secret. A failing database refuses no caller, and delays it only briefly."""
    if _breaker.is_open():
        return
    current = keyring.current
    values = {
        "secret": row.secret_id,
        "old_digest": row.digest,
        "new_digest": current.digest(secret),
        "new_key": current.id,
        "used_now": now,
    }
    try:
        with transaction() as connection:
            recorded = connection.execute(_record_use, values)
            if recorded.rowcount and row.key_id != current.id:
                details = {"before": {"key": row.key_id}, "after": {"key": current.id}}
                events.record(connection, events.CLIENT_REKEYED, now, client_id=row.id, details=details)
        _breaker.reset()
    except (SQLAlchemyError, Unavailable):
        _breaker.trip()
        _log.warning("the use of a client secret could not be recorded", exc_info=True)

"""The operators of the console: who they are, their roles, and the workspaces that they reach.

An owner reaches every workspace, and manages clients, keys and operators. An operator changes the workspaces
that it has. A viewer sees them and changes nothing.
"""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol

from sqlalchemy import Connection, delete, insert, select, update

from pat_service.errors import Conflict, OperatorNotFound
from pat_service.rules import events
from pat_service.rules.callers import AUDIT, OPERATOR, PROVISION, SCOPES, Caller
from pat_service.rules.previews import PREVIEW_LIFE
from pat_service.storage.database import add, reading, transaction
from pat_service.storage.models import (
    OPERATOR_ROLES,
    OWNER,
    ROLES,
    VIEWER,
    ConsoleSession,
    Operator,
    OperatorWorkspace,
    Session,
    Workspace,
)

#: The start of an operator's id. The id of a client has no colon.
ID_PREFIX: Final = "operator:"
#: What a caller with each role may do.
_SCOPES: Final = {
    OWNER: frozenset(SCOPES),
    "operator": frozenset((PROVISION, AUDIT)),
    VIEWER: frozenset((AUDIT,)),
}


class OperatorRow(Protocol):
    """A live operator. `id` names the operator in events."""

    @property
    def id(self) -> str: ...
    @property
    def email(self) -> str: ...
    @property
    def role(self) -> str: ...


@dataclass(frozen=True, slots=True)
class OperatorView:
    """An operator as owners see it. `workspaces` are slugs; None means all."""

    id: str
    email: str
    role: str
    workspaces: tuple[str, ...] | None
    oidc: bool
    created_at: datetime
    last_seen_at: datetime | None
    archived_at: datetime | None


def id_of(email: str) -> str:
    """Return the id of the operator with this email, as `shapes.normalize_email` returns it."""
    return f"{ID_PREFIX}{email}"


def as_caller(operator: OperatorRow) -> Caller:
    """Return the operator as the rules of the directory, tokens and events take it."""
    return Caller(
        operator.id,
        _SCOPES[operator.role],
        all_workspaces=operator.role == OWNER,
        highest_role=ROLES[0],
    )


def put(
    email: str, role: str, workspaces: Collection[str], now: datetime, caller: Caller = OPERATOR
) -> OperatorView:
    """Create or change the operator to have this role and exactly these workspaces (slugs).

    A removed operator returns. Raise Conflict if the role does not fit the workspaces, a workspace is
    unknown, or no owner would be left.
    """
    _require_fitting(role, workspaces)
    with transaction() as connection:
        if role != OWNER:
            _require_other_owner(connection, id_of(email))
        _put(connection, email, role, workspaces, now, caller)
        return _read(connection, id_of(email))


def _put(
    connection: Connection, email: str, role: str, workspaces: Collection[str], now: datetime, caller: Caller
) -> None:
    slugs, id_ = sorted(set(workspaces)), id_of(email)
    facts: dict[str, Any] = {"role": role, "archived_at": None}
    # Of two first additions, the later one changes the row.
    is_new = add(connection, Operator, facts | {"id": id_, "email": email, "created_at": now})
    _lock(connection, email)
    before = _read(connection, id_)
    is_back = before.archived_at is not None
    if not is_new:
        # Sign-in links from before the removal stay void.
        facts |= {"created_at": now} if is_back else {}
        connection.execute(update(Operator).where(Operator.id == id_), facts)
    _put_workspaces(connection, id_, slugs)
    after = {"role": role, "workspaces": None if role == OWNER else slugs}
    if is_new or is_back:
        _record(connection, events.OPERATOR_ADDED, id_, now, caller, {"after": after})
        return
    former = {
        "role": before.role,
        "workspaces": None if before.workspaces is None else list(before.workspaces),
    }
    if changed := [name for name in after if former[name] != after[name]]:
        _end_previews(connection, id_, now)
        details = {"before": {n: former[n] for n in changed}, "after": {n: after[n] for n in changed}}
        _record(connection, events.OPERATOR_CHANGED, id_, now, caller, details)


def add_viewer(connection: Connection, email: str, now: datetime) -> None:
    """Create a viewer without workspaces in this transaction, for a first sign-in that a setting allows.

    A concurrent first sign-in may have created it.
    """
    id_ = id_of(email)
    if not add(connection, Operator, {"id": id_, "email": email, "role": VIEWER, "created_at": now}):
        return
    details = {"operator": id_, "after": {"role": VIEWER, "workspaces": []}}
    events.record(connection, events.OPERATOR_ADDED, now, client_id=id_, details=details)


def remove(email: str, now: datetime, caller: Caller = OPERATOR) -> None:
    """Remove the operator, and end its sessions and previews at once. Its events keep its name.

    Raise OperatorNotFound, or Conflict for the last owner.
    """
    with transaction() as connection:
        _require_other_owner(connection, id_of(email))
        row = _lock(connection, email)
        if row is None or row.archived_at is not None:
            raise OperatorNotFound(f"There is no operator {email!r}.")
        # A new identity may have the same email later.
        gone = {"archived_at": now, "issuer": None, "subject": None}
        connection.execute(update(Operator).where(Operator.id == row.id), gone)
        live = (ConsoleSession.operator_id == row.id, ConsoleSession.ended_at.is_(None))
        connection.execute(update(ConsoleSession).where(*live).values(ended_at=now))
        _end_previews(connection, row.id, now)
        _record(connection, events.OPERATOR_REMOVED, row.id, now, caller, {"before": {"role": row.role}})


def list_operators(*, archived: bool = False) -> list[OperatorView]:
    """Return the operators, sorted by email, and with `archived` the removed ones too."""
    with reading() as connection:
        condition = () if archived else (Operator.archived_at.is_(None),)
        return _views(connection, *condition)


def find_live(email: str) -> OperatorView:
    """Return the operator with this email. Raise OperatorNotFound if there is none, or it was removed."""
    with reading() as connection:
        for view in _views(connection, Operator.email == email, Operator.archived_at.is_(None)):
            return view
    raise OperatorNotFound(f"There is no operator {email!r}.")


def _require_fitting(role: str, workspaces: Collection[str]) -> None:
    if role not in OPERATOR_ROLES:
        raise Conflict(f"There is no role {role!r} in the console.")
    if role == OWNER and workspaces:
        raise Conflict("An owner has all workspaces. Name no workspace, or choose another role.")
    if role != OWNER and not workspaces:
        raise Conflict(f"Name the workspaces of this {role}. Only owners have all of them.")


def _lock(connection: Connection, email: str) -> Any:
    """Lock the operator's row. Changes of one operator run one after the other."""
    return connection.execute(
        select(Operator.__table__).where(Operator.email == email).with_for_update()
    ).first()


def _require_other_owner(connection: Connection, id_: str) -> None:
    """Raise Conflict if this operator is the only owner.

    All owners are locked, before any other row, so that two owners cannot remove each other.
    """
    owners = select(Operator.id).where(Operator.role == OWNER, Operator.archived_at.is_(None))
    ids = connection.execute(owners.order_by(Operator.id).with_for_update()).scalars().all()
    if set(ids) == {id_}:
        raise Conflict("This is the last owner. Make another operator an owner first.")


def _end_previews(connection: Connection, id_: str, now: datetime) -> None:
    """End the operator's previews, which its role and workspaces allowed."""
    live = (Session.expires_at > now, Session.expires_at <= now + PREVIEW_LIFE, Session.ended_at.is_(None))
    own = (Session.client_id == id_, Session.preview_role.is_not(None))
    connection.execute(update(Session).where(*live, *own).values(ended_at=now))


def _put_workspaces(connection: Connection, id_: str, slugs: Collection[str]) -> None:
    connection.execute(delete(OperatorWorkspace).where(OperatorWorkspace.operator_id == id_))
    for slug in slugs:
        found = select(Workspace.id).where(Workspace.slug == slug)
        workspace_id = connection.execute(found).scalar() if slug.isascii() else None
        if workspace_id is None:
            raise Conflict(f"There is no workspace {slug!r}.")
        connection.execute(insert(OperatorWorkspace), {"operator_id": id_, "workspace_id": workspace_id})


def _read(connection: Connection, id_: str) -> OperatorView:
    return _views(connection, Operator.id == id_)[0]


def _views(connection: Connection, *conditions: Any) -> list[OperatorView]:
    slugs: defaultdict[str, list[str]] = defaultdict(list)
    for operator_id, slug in connection.execute(_slugs):
        slugs[operator_id].append(slug)
    seen: dict[str, datetime] = {}
    for operator_id, at in connection.execute(_seen):
        seen[operator_id] = at
    rows = connection.execute(select(Operator.__table__).where(*conditions).order_by(Operator.email))
    return [
        OperatorView(
            id=row.id,
            email=row.email,
            role=row.role,
            workspaces=None if row.role == OWNER else tuple(slugs[row.id]),
            oidc=row.subject is not None,
            created_at=row.created_at,
            last_seen_at=seen.get(row.id),
            archived_at=row.archived_at,
        )
        for row in rows
    ]


def _record(
    connection: Connection,
    type_: str,
    operator: str,
    now: datetime,
    caller: Caller,
    details: dict[str, Any],
) -> None:
    events.record(connection, type_, now, client_id=caller.id, details={"operator": operator} | details)


_slugs = (
    select(OperatorWorkspace.operator_id, Workspace.slug)
    .join(Workspace, Workspace.id == OperatorWorkspace.workspace_id)
    .order_by(Workspace.slug)
)
_seen = select(ConsoleSession.operator_id, ConsoleSession.last_seen_at).order_by(ConsoleSession.last_seen_at)

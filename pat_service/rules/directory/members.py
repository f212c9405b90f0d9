"""Members: which users belong to a workspace, and in what role.

A membership that is taken away leaves the user's grants: they open nothing until it is given back.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import Connection, bindparam, delete, select, update

from pat_service.errors import MemberNotFound
from pat_service.rules import events
from pat_service.rules.callers import Caller, reaches_workspace
from pat_service.rules.directory import reach, workspaces
from pat_service.rules.directory.changes import changing
from pat_service.storage.database import AnyRow, add, reading
from pat_service.storage.models import Member, User
from pat_service.storage.paging import Listing, PageRequest, page


@dataclass(frozen=True, slots=True)
class Person:
    """Whom a membership or a grant is of."""

    id: str
    email: str
    name: str
    status: str


@dataclass(frozen=True, slots=True)
class Membership:
    workspace_id: str
    user_id: str
    role: str
    user: Person


def list_members(caller: Caller, workspace_id: str, page_request: PageRequest) -> Listing:
    """Return a page of the workspace's members, or raise WorkspaceNotFound."""
    with reading() as connection:
        reach.workspace(connection, caller, workspace_id)
        found = page(connection, _of_workspace, Member.user_id, page_request, {"workspace": workspace_id})
    return replace(found, items=[_membership(row) for row in found.items])


def read(caller: Caller, workspace_id: str, user_id: str) -> Membership:
    """Return the membership, or raise WorkspaceNotFound or MemberNotFound."""
    with reading() as connection:
        reach.workspace(connection, caller, workspace_id)
        return _read(connection, workspace_id, user_id)


def put(caller: Caller, workspace_id: str, user_id: str, role: str, now: datetime) -> tuple[Membership, bool]:
    """Make the user a member with this role; tell whether they were none before.

    Raise ScopeMissing for a role that the caller cannot give, WorkspaceNotFound or UserNotFound.
    """
    with changing(caller, now) as connection:
        caller.require_role(role)
        reach.workspace(connection, caller, workspace_id)
        reach.user(connection, caller, user_id)
        is_new = _give_role(connection, caller, workspace_id, user_id, role, now)
        return _read(connection, workspace_id, user_id), is_new


def remove(caller: Caller, workspace_id: str, user_id: str, now: datetime) -> None:
    """Take the membership away, or raise WorkspaceNotFound or MemberNotFound.

    It counts on the next request of every open frame.
    """
    with changing(caller, now) as connection:
        reach.workspace(connection, caller, workspace_id)
        if not _take(connection, caller, workspace_id, user_id, now):
            raise MemberNotFound


def give(
    connection: Connection, caller: Caller, workspace_id: str, user_id: str, role: str, now: datetime
) -> bool:
    """Make the user a member, unless they are one; tell whether they were none."""
    ids = {"workspace_id": workspace_id, "user_id": user_id}
    if not add(connection, Member, ids | {"role": role}):
        return False
    details = {"after": {"role": role}}
    events.record(connection, events.MEMBER_ADDED, now, client_id=caller.id, details=details, **ids)
    return True


def put_all(
    connection: Connection, caller: Caller, user_id: str, roles: Mapping[str, str], now: datetime
) -> None:
    """Make the user a member of the workspaces with these ids, in these roles, and of no others."""
    for workspace_id in workspaces_of(connection, user_id):
        if workspace_id not in roles:
            _take(connection, caller, workspace_id, user_id, now)
    for workspace_id, role in sorted(roles.items()):
        _give_role(connection, caller, workspace_id, user_id, role, now)


def workspaces_of(connection: Connection, user_id: str) -> list[str]:
    return list(connection.execute(_workspaces_of, {"user": user_id}).scalars())


def by_slug(connection: Connection, roles: Mapping[str, str]) -> dict[str, str]:
    """Return roles by workspace id for those by slug, or raise Conflict: for what the operator names."""
    return {workspaces.by_slug(connection, slug).id: role for slug, role in roles.items()}


def roles_of(connection: Connection, caller: Caller, user_ids: list[str]) -> dict[str, list[AnyRow]]:
    """Return the users' memberships, by user: those that the caller may know of."""
    found: dict[str, list[AnyRow]] = {user_id: [] for user_id in user_ids}
    for row in connection.execute(_of_users, {"users": user_ids} | caller.reach()):
        found[row.user_id].append(row)
    return found


def _read(connection: Connection, workspace_id: str, user_id: str) -> Membership:
    statement = _of_workspace.where(Member.user_id == bindparam("user"))
    row = connection.execute(statement, {"workspace": workspace_id, "user": user_id}).first()
    if row is None:
        raise MemberNotFound
    return _membership(row)


def _membership(row: AnyRow) -> Membership:
    person = Person(row.user_id, row.email, row.name, row.status)
    return Membership(row.workspace_id, row.user_id, row.role, person)


def _give_role(
    connection: Connection, caller: Caller, workspace_id: str, user_id: str, role: str, now: datetime
) -> bool:
    """Make the user a member in this role, and no other; tell whether they were none."""
    # Where others give and take the same membership meanwhile, one of the two finds it as it needs it.
    while not (is_new := give(connection, caller, workspace_id, user_id, role, now)):
        if _change_role(connection, caller, workspace_id, user_id, role, now):
            break
    return is_new


def _change_role(
    connection: Connection, caller: Caller, workspace_id: str, user_id: str, role: str, now: datetime
) -> bool:
    """Give a member this role; False where there is none."""
    ids = {"workspace_id": workspace_id, "user_id": user_id}
    before = connection.execute(
        _role.with_for_update(), {"workspace": workspace_id, "user": user_id}
    ).scalar()
    if before is None:
        return False
    if before != role:
        of_pair = (Member.workspace_id == workspace_id, Member.user_id == user_id)
        connection.execute(update(Member).where(*of_pair).values(role=role))
        details = {"before": {"role": before}, "after": {"role": role}}
        events.record(connection, events.MEMBER_CHANGED, now, client_id=caller.id, details=details, **ids)
    return True


def _take(connection: Connection, caller: Caller, workspace_id: str, user_id: str, now: datetime) -> bool:
    taken = connection.execute(
        delete(Member)
        .where(Member.workspace_id == workspace_id, Member.user_id == user_id)
        .returning(Member.role)
    ).first()
    if taken is None:
        return False
    ids = {"workspace_id": workspace_id, "user_id": user_id}
    details = {"before": {"role": taken.role}}
    events.record(connection, events.MEMBER_REMOVED, now, client_id=caller.id, details=details, **ids)
    return True


# Statements, built once.

_of_workspace = (
    select(
        Member.workspace_id,
        Member.user_id,
        Member.user_id.label("key"),
        Member.role,
        User.email,
        User.name,
        User.status,
    )
    .join(User, User.id == Member.user_id)
    .where(Member.workspace_id == bindparam("workspace"))
)
_of_users = (
    select(Member.user_id, Member.workspace_id, Member.role)
    .where(Member.user_id.in_(bindparam("users", expanding=True)), reaches_workspace(Member.workspace_id))
    .order_by(Member.workspace_id)
)
_workspaces_of = select(Member.workspace_id).where(Member.user_id == bindparam("user"))
_role = select(Member.role).where(
    Member.workspace_id == bindparam("workspace"), Member.user_id == bindparam("user")
)

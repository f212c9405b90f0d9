"""Members are the users of a workspace, each with a role.

Removing a membership keeps the user's grants. They have no effect until the user is a member again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from sqlalchemy import Connection, and_, bindparam, delete, false, func, or_, select, update

from pat_service.errors import MemberNotFound
from pat_service.rules import events
from pat_service.rules.callers import Caller, reaches_workspace
from pat_service.rules.directory import statuses, workspaces
from pat_service.rules.directory.changes import Change, changing
from pat_service.rules.directory.reach import Reach, reading_as
from pat_service.storage.database import AnyRow, add
from pat_service.storage.models import ARCHIVED, Member, User, Workspace, WorkspaceStatus
from pat_service.storage.paging import Listing, PageRequest, page


@dataclass(frozen=True, slots=True)
class Person:
    """The user of a membership or a grant."""

    id: str
    email: str
    name: str
    status: str


class PlaceRow(Protocol):
    """A workspace of a user. `role` is null if the user has left, and `archived` holds in this workspace."""

    workspace_id: str
    slug: str
    name: str
    role: str | None
    archived: bool


@dataclass(frozen=True, slots=True)
class Membership:
    workspace_id: str
    user_id: str
    role: str
    user: Person


def list_members(caller: Caller, workspace_id: str, page_request: PageRequest) -> Listing:
    """Return a page of the workspace's members, or raise WorkspaceNotFound."""
    with reading_as(caller) as reached:
        reached.find_workspace(workspace_id)
        values = {"workspace": workspace_id} | caller.reach()
        listing = page(reached.connection, _members, Member.user_id, page_request, values)
    return replace(listing, items=[_build(row) for row in listing.items])


def list_places(caller: Caller, user_id: str, page_request: PageRequest) -> Listing:
    """Return a page of the caller's workspaces in which the user is a member or archived (`PlaceRow`).

    Raise UserNotFound.
    """
    with reading_as(caller) as reached:
        reached.find_user(user_id)
        values = {"user": user_id} | caller.reach()
        return page(reached.connection, _places, Workspace.id, page_request, values)


def read(caller: Caller, workspace_id: str, user_id: str) -> Membership:
    """Return the membership, or raise WorkspaceNotFound or MemberNotFound."""
    with reading_as(caller) as reached:
        reached.find_workspace(workspace_id)
        return _read(reached, workspace_id, user_id)


def put(caller: Caller, workspace_id: str, user_id: str, role: str, now: datetime) -> tuple[Membership, bool]:
    """Make the user a member with this role; return the membership and whether it is new.

    Raise ScopeMissing if the caller cannot give the role or change the user, WorkspaceNotFound or
    UserNotFound.
    """
    with changing(caller, now) as change:
        caller.require_role(role)
        change.find_workspace(workspace_id)
        change.find_user(user_id)
        require_rank(change, user_id)
        is_new = _put(change, workspace_id, user_id, role)
        return _read(change, workspace_id, user_id), is_new


def remove(caller: Caller, workspace_id: str, user_id: str, now: datetime) -> None:
    """Remove the membership, or raise WorkspaceNotFound, MemberNotFound or ScopeMissing.

    The removal takes effect on the next request of every open frame.
    """
    with changing(caller, now) as change:
        change.find_workspace(workspace_id)
        require_rank(change, user_id)
        if not _remove(change, workspace_id, user_id):
            raise MemberNotFound


def give(change: Change, workspace_id: str, user_id: str, role: str) -> bool:
    """Make the user a member unless they already are one; return whether the membership is new."""
    ids = {"workspace_id": workspace_id, "user_id": user_id}
    is_new = add(change.connection, Member, ids | {"role": role})
    if is_new:
        change.record(events.MEMBER_ADDED, {"after": {"role": role}}, **ids)
    return is_new


def put_all(change: Change, user_id: str, roles: Mapping[str, str]) -> None:
    """Make the user a member of exactly these workspaces (by id), in these roles."""
    for workspace_id in list_workspace_ids(change.connection, user_id):
        if workspace_id not in roles:
            _remove(change, workspace_id, user_id)
    for workspace_id, role in sorted(roles.items()):
        _put(change, workspace_id, user_id, role)


def list_workspace_ids(connection: Connection, user_id: str) -> list[str]:
    return list(connection.execute(_workspace_ids, {"user": user_id}).scalars())


def find_workspaces(connection: Connection, roles: Mapping[str, str]) -> dict[str, str]:
    """Return the roles by workspace id instead of slug. Raise Conflict if one is unknown."""
    return {workspaces.find_by_slug(connection, slug): role for slug, role in roles.items()}


def require_rank(reached: Reach, user_id: str) -> None:
    """Raise ScopeMissing if the user has a role above the caller's highest in one of its workspaces."""
    for row in list_roles(reached.connection, reached.caller, [user_id])[user_id]:
        reached.caller.require_rank(row.role)


def list_roles(connection: Connection, caller: Caller, user_ids: list[str]) -> dict[str, list[AnyRow]]:
    """Return the users' memberships in the caller's workspaces, by user."""
    roles: dict[str, list[AnyRow]] = {user_id: [] for user_id in user_ids}
    for row in connection.execute(_roles, {"users": user_ids} | caller.reach()):
        roles[row.user_id].append(row)
    return roles


def _read(reached: Reach, workspace_id: str, user_id: str) -> Membership:
    statement = _members.where(Member.user_id == bindparam("user"))
    values = {"workspace": workspace_id, "user": user_id} | reached.caller.reach()
    row = reached.connection.execute(statement, values).first()
    if row is None:
        raise MemberNotFound
    return _build(row)


def _build(row: AnyRow) -> Membership:
    person = Person(row.user_id, row.email, row.name, row.status)
    return Membership(row.workspace_id, row.user_id, row.role, person)


def _put(change: Change, workspace_id: str, user_id: str, role: str) -> bool:
    """Make the user a member with exactly this role; return whether the membership is new."""
    # A concurrent request may remove the membership in between, so try both again.
    while not (is_new := give(change, workspace_id, user_id, role)):
        if _change_role(change, workspace_id, user_id, role):
            break
    return is_new


def _change_role(change: Change, workspace_id: str, user_id: str, role: str) -> bool:
    """Change the role of a member; return False if there is none."""
    ids = {"workspace_id": workspace_id, "user_id": user_id}
    in_pair = (Member.workspace_id == workspace_id, Member.user_id == user_id)
    before = change.connection.execute(select(Member.role).where(*in_pair).with_for_update()).scalar()
    if before is not None and before != role:
        # A concurrent request may have raised the role since `require_rank`.
        change.caller.require_rank(before)
        change.connection.execute(update(Member).where(*in_pair).values(role=role))
        details = {"before": {"role": before}, "after": {"role": role}}
        change.record(events.MEMBER_CHANGED, details, **ids)
    return before is not None


def _remove(change: Change, workspace_id: str, user_id: str) -> bool:
    in_pair = (Member.workspace_id == workspace_id, Member.user_id == user_id)
    role = change.connection.execute(delete(Member).where(*in_pair).returning(Member.role)).scalar()
    if role is not None:
        change.caller.require_rank(role)
        details = {"before": {"role": role}}
        change.record(events.MEMBER_REMOVED, details, workspace_id=workspace_id, user_id=user_id)
    return role is not None


# Statements, built once.

_members = (
    select(
        Member.workspace_id,
        Member.user_id,
        Member.user_id.label("key"),
        Member.role,
        User.email,
        User.name,
        statuses.build_shown_status(Member.workspace_id).label("status"),
    )
    .join(User, User.id == Member.user_id)
    .where(Member.workspace_id == bindparam("workspace"))
)
_roles = (
    select(Member.user_id, Member.workspace_id, Member.role, Workspace.slug.label("workspace_slug"))
    .join(Workspace, Workspace.id == Member.workspace_id)
    .where(Member.user_id.in_(bindparam("users", expanding=True)), reaches_workspace(Member.workspace_id))
    .order_by(Member.workspace_id)
)
_archived = WorkspaceStatus.status == ARCHIVED
_places = (
    select(
        Workspace.id.label("key"),
        Workspace.id.label("workspace_id"),
        Workspace.slug,
        Workspace.name,
        Member.role,
        func.coalesce(_archived, false()).label("archived"),
    )
    .outerjoin(Member, and_(Member.workspace_id == Workspace.id, Member.user_id == bindparam("user")))
    .outerjoin(
        WorkspaceStatus,
        and_(WorkspaceStatus.workspace_id == Workspace.id, WorkspaceStatus.user_id == bindparam("user")),
    )
    .where(or_(Member.user_id.is_not(None), _archived), reaches_workspace(Workspace.id))
)
_workspace_ids = select(Member.workspace_id).where(Member.user_id == bindparam("user"))

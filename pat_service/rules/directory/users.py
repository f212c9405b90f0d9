"""Users: the people who view apps. One email, one user, whatever workspaces they belong to.

A client that is limited to workspaces changes and deletes only users who belong to no other. Anybody
else it can make a member of its workspaces, and no more.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, bindparam, delete, not_, select, update

from pat_service.errors import Conflict, InvalidPayload
from pat_service.rules import events, token_admin
from pat_service.rules.callers import OPERATOR, Caller, reaches_user, reaches_workspace
from pat_service.rules.directory import members, reach
from pat_service.rules.directory.changes import changing, difference, told
from pat_service.shapes import normalize_email
from pat_service.storage.database import AnyRow, add, reading
from pat_service.storage.models import Member, Token, User, new_id
from pat_service.storage.paging import Listing, PageRequest, page

TOLD: Final = ("email", "name", "status")


@dataclass(frozen=True, slots=True)
class VisibleUser:
    """A user as a caller may know them: with the memberships in workspaces of the caller's."""

    id: str
    email: str
    name: str
    status: str
    created_at: datetime
    memberships: list[AnyRow]


def list_users(
    caller: Caller,
    page_request: PageRequest,
    *,
    email: str | None = None,
    status: str | None = None,
    workspace_id: str | None = None,
) -> Listing:
    """Return a page of the members of the caller's workspaces: those that the filters leave."""
    statement = _listed
    if email is not None:
        statement = statement.where(User.email == normalize_email(email))
    if status is not None:
        statement = statement.where(User.status == status)
    if workspace_id is not None:
        within = (Member.workspace_id == workspace_id, reaches_workspace(Member.workspace_id))
        statement = statement.where(User.id.in_(select(Member.user_id).where(*within)))
    with reading() as connection:
        found = page(connection, statement, User.id, page_request, caller.reach())
        return replace(found, items=_visible_users(connection, caller, found.items))


def read(caller: Caller, user_id: str) -> VisibleUser:
    """Return the user, or raise UserNotFound."""
    with reading() as connection:
        return _read(connection, caller, user_id)


def create(
    caller: Caller,
    *,
    email: str,
    roles: Mapping[str, str],
    now: datetime,
    name: str | None = None,
    status: str = "active",
) -> tuple[VisibleUser, bool]:
    """Make a user, with these roles by workspace id; without a name, the email stands for it.

    Somebody who belongs to no workspace of the caller's joins them, and stays as they are: then the
    second value is False. Raise InvalidPayload where a limited client names no workspace, ScopeMissing
    for a role that it cannot give, WorkspaceNotFound, and Conflict for a user whom it knows already.
    """
    with changing(caller, now) as connection:
        if not roles and not caller.all_workspaces:
            page_request = "Must name at least one: this client is limited to workspaces."
            raise InvalidPayload({"memberships": [page_request]})
        for role in roles.values():
            caller.require_role(role)
        for workspace_id in roles:
            reach.workspace(connection, caller, workspace_id)
        facts = {"email": normalize_email(email), "name": name or email, "status": status}
        user_id = _add(connection, facts, now)
        is_new = user_id is not None
        if user_id is None:
            user_id = _somebody_elses(connection, caller, facts["email"])
        else:
            _tell(connection, events.USER_CREATED, caller, user_id, {"after": facts}, sorted(roles), now)
        for workspace_id, role in sorted(roles.items()):
            members.give(connection, caller, workspace_id, user_id, role, now)
        return _read(connection, caller, user_id), is_new


@reach.retry_on_new_tokens
def change(caller: Caller, user_id: str, changes: dict[str, Any], now: datetime) -> VisibleUser:
    """Change what `changes` names: email, name, status. Raise UserNotFound or Conflict.

    A status counts on the next request of every open frame.
    """
    with changing(caller, now) as connection:
        locked = reach.lock_tokens(connection, Token.user_id == user_id) if "email" in changes else None
        current = _own(connection, caller, user_id)
        if locked is not None:
            reach.require_all_locked(connection, locked)
            changes = changes | {"email": normalize_email(changes["email"])}
            holder = connection.execute(_by_email, {"email": changes["email"]}).scalar()
            if holder not in (None, user_id):
                raise Conflict("This email is another user's.")
            if changes["email"] != current.email:
                # Under a new email this may be another person: what others had given was not for them.
                token_admin.revoke_outside(connection, caller, user_id, now)
        _change(connection, caller, current, changes, now)
        return _read(connection, caller, user_id)


@reach.retry_on_new_tokens
def remove(caller: Caller, user_id: str, now: datetime) -> None:
    """Delete the user with all that is theirs, tokens and sessions included; or raise as `change`."""
    with changing(caller, now) as connection:
        locked = reach.lock_tokens(connection, Token.user_id == user_id)
        current = _own(connection, caller, user_id)
        reach.require_all_locked(connection, locked)
        token_admin.revoke_outside(connection, caller, user_id, now)
        places = members.workspaces_of(connection, user_id)
        _tell(connection, events.USER_DELETED, caller, user_id, {"before": told(current, TOLD)}, places, now)
        members.put_all(connection, caller, user_id, {}, now)
        connection.execute(delete(User).where(User.id == user_id))


def put(
    connection: Connection, email: str, *, name: str, status: str, roles: Mapping[str, str], now: datetime
) -> str | None:
    """Create the user or make them be just this, with these roles by workspace slug and no others.

    Return the status that they had, or None.
    """
    before: str | None = None
    facts = {"email": normalize_email(email), "name": name, "status": status}
    by_id = members.by_slug(connection, roles)
    user_id = _add(connection, facts, now)
    if user_id is not None:
        _tell(connection, events.USER_CREATED, OPERATOR, user_id, {"after": facts}, sorted(by_id), now)
    else:
        # Made first: then there is a row to lock, whoever made it.
        statement = select(User.__table__).where(User.email == facts["email"])
        current = connection.execute(statement.with_for_update(key_share=True)).one()
        _change(connection, OPERATOR, current, facts, now)
        user_id, before = str(current.id), current.status
    members.put_all(connection, OPERATOR, user_id, by_id, now)
    return before


def id_of(connection: Connection, email: str) -> str:
    """Return the user's id, or raise Conflict: for what the operator names."""
    found: str | None = connection.execute(_by_email, {"email": normalize_email(email)}).scalar()
    if found is None:
        raise Conflict(f"There is no user {email!r}.")
    return found


def _somebody_elses(connection: Connection, caller: Caller, email: str) -> str:
    """Return the id of the user with this email, or raise Conflict where the caller knows them."""
    # Locked, and looked at after that: of racing requests that would let them join, one does.
    connection.execute(_by_email.with_for_update(key_share=True), {"email": email}).first()
    found = connection.execute(_reached_by_email, {"email": email} | caller.reach()).first()
    if found is None or found.reached:
        raise Conflict("This user exists: change them with PATCH, and their memberships with PUT.")
    return str(found.id)


def _own(connection: Connection, caller: Caller, user_id: str) -> AnyRow:
    """Return and lock a user who belongs to workspaces of the caller's alone; or raise."""
    # The lock makes those wait who add a membership: it is looked at in a statement that begins after it.
    current = reach.user(connection, caller, user_id, lock=True)
    if connection.execute(_elsewhere, {"user": user_id} | caller.reach()).first():
        raise Conflict(
            "This user belongs to workspaces of others too; "
            "this client may add and remove memberships of its own workspaces, and no more."
        )
    return current


def _add(connection: Connection, facts: dict[str, Any], now: datetime) -> str | None:
    """Add a user and return their id, or None where the email is taken."""
    user_id = new_id()
    if not add(connection, User, facts | {"id": user_id, "created_at": now}):
        return None
    return user_id


def _change(
    connection: Connection, caller: Caller, current: AnyRow, facts: dict[str, Any], now: datetime
) -> None:
    before, after = difference(current, facts)
    if after:
        connection.execute(update(User).where(User.id == current.id).values(after))
        details = {"before": before, "after": after}
        places = members.workspaces_of(connection, current.id)
        _tell(connection, events.USER_CHANGED, caller, current.id, details, places, now)


def _tell(
    connection: Connection,
    type_: str,
    caller: Caller,
    user_id: str,
    details: dict[str, Any],
    workspaces: list[str],
    now: datetime,
) -> None:
    """Tell the trail of a user: once for each of their workspaces, since each has a trail of its own."""
    for workspace_id in workspaces or (None,):
        ids = {"client_id": caller.id, "user_id": user_id, "workspace_id": workspace_id}
        events.record(connection, type_, now, details=details, **ids)


def _read(connection: Connection, caller: Caller, user_id: str) -> VisibleUser:
    (known,) = _visible_users(connection, caller, [reach.user(connection, caller, user_id)])
    return known


def _visible_users(connection: Connection, caller: Caller, rows: list[AnyRow]) -> list[VisibleUser]:
    roles = members.roles_of(connection, caller, [row.id for row in rows])
    return [
        VisibleUser(row.id, row.email, row.name, row.status, row.created_at, roles[row.id]) for row in rows
    ]


# Statements, built once.

_listed = select(User.__table__, User.id.label("key")).where(reaches_user(User.id))
_by_email = select(User.id).where(User.email == bindparam("email"))
_reached_by_email = select(User.id, reaches_user(User.id).label("reached")).where(
    User.email == bindparam("email")
)
_elsewhere = (
    select(Member.workspace_id)
    .where(Member.user_id == bindparam("user"), not_(reaches_workspace(Member.workspace_id)))
    .limit(1)
)

"""Users are the people who view apps. Each email belongs to one user, who may be a member of several
workspaces.

A client may be limited to workspaces. It can change or delete a user only if all memberships are in these
workspaces. For any other user, it can only add and remove memberships of these workspaces.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, bindparam, delete, not_, select

from pat_service.errors import Conflict, InvalidPayload
from pat_service.rules import events, token_admin
from pat_service.rules.callers import Caller, reaches_user, reaches_workspace
from pat_service.rules.directory import members, reach
from pat_service.rules.directory.changes import Change, Noun, changing
from pat_service.rules.directory.reach import Reach, UserRow, reading_as
from pat_service.shapes import normalize_email
from pat_service.storage.database import AnyRow
from pat_service.storage.models import Member, Token, User
from pat_service.storage.paging import Listing, PageRequest, match, page

USER: Final = Noun(
    User,
    "user_id",
    events.USER_CREATED,
    events.USER_CHANGED,
    events.USER_DELETED,
    audited=("email", "name", "status"),
)


@dataclass(frozen=True, slots=True)
class VisibleUser:
    """A user with the memberships in the caller's workspaces."""

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
    """Return a page of the matching members of the caller's workspaces."""
    normalized = None if email is None else normalize_email(email)
    statement = _reached.where(*match(User, email=normalized, status=status))
    if workspace_id is not None:
        within = (Member.workspace_id == workspace_id, reaches_workspace(Member.workspace_id))
        statement = statement.where(User.id.in_(select(Member.user_id).where(*within)))
    with reading_as(caller) as reached:
        listing = page(reached.connection, statement, User.id, page_request, caller.reach())
        return replace(listing, items=_build_all(reached, listing.items))


def read(caller: Caller, user_id: str) -> VisibleUser:
    """Return the user, or raise UserNotFound."""
    with reading_as(caller) as reached:
        return _read(reached, user_id)


def create(
    caller: Caller,
    *,
    email: str,
    roles: Mapping[str, str],
    now: datetime,
    name: str | None = None,
    status: str = "active",
) -> tuple[VisibleUser, bool]:
    """Create a user with these roles by workspace id. Their name defaults to the email.

    If the user exists but the caller does not see them, only add the memberships. The second value is then
    False. Raise InvalidPayload if a limited client names no workspace, and ScopeMissing if it cannot give a
    role. Raise WorkspaceNotFound for an unknown workspace, and Conflict if the caller already sees the user.
    """
    with changing(caller, now) as change:
        if not roles and not caller.all_workspaces:
            error = "Must name at least one: this client is limited to workspaces."
            raise InvalidPayload({"memberships": [error]})
        for role in roles.values():
            caller.require_role(role)
        for workspace_id in roles:
            change.find_workspace(workspace_id)
        facts = {"email": normalize_email(email), "name": name or email, "status": status}
        new_id = change.add(USER, facts, sorted(roles))
        user_id = new_id or _find_unseen(change, facts["email"])
        for workspace_id, role in sorted(roles.items()):
            members.give(change, workspace_id, user_id, role)
        return _read(change, user_id), new_id is not None


@reach.retry_on_new_tokens
def change(caller: Caller, user_id: str, changes: dict[str, Any], now: datetime) -> VisibleUser:
    """Change the email, name or status. Raise UserNotFound or Conflict.

    A new status takes effect on the next request of every open frame.
    """
    with changing(caller, now) as change:
        connection = change.connection
        locked = reach.lock_tokens(connection, Token.user_id == user_id) if "email" in changes else None
        current = _lock_own(change, user_id)
        if locked is not None:
            reach.require_all_locked(connection, locked)
            changes = changes | {"email": normalize_email(changes["email"])}
            if find_id(connection, changes["email"]) not in (None, user_id):
                raise Conflict("This email is another user's.")
            if changes["email"] != current.email:
                # The new email may belong to another person, who must not inherit access that others have
                # granted.
                token_admin.revoke_outside(connection, caller, user_id, now)
        _update(change, current, changes)
        return _read(change, user_id)


@reach.retry_on_new_tokens
def remove(caller: Caller, user_id: str, now: datetime) -> None:
    """Delete the user with their memberships, grants, tokens and sessions. Raise the errors of `change`."""
    with changing(caller, now) as change:
        locked = reach.lock_tokens(change.connection, Token.user_id == user_id)
        current = _lock_own(change, user_id)
        reach.require_all_locked(change.connection, locked)
        token_admin.revoke_outside(change.connection, caller, user_id, now)
        workspace_ids = members.list_workspace_ids(change.connection, user_id)
        change.record_deletion(USER, current, workspace_ids)
        members.put_all(change, user_id, {})
        change.connection.execute(delete(User).where(User.id == user_id))


def put(change: Change, email: str, *, name: str, status: str, roles: Mapping[str, str]) -> str | None:
    """Create the user, or change them to have exactly these values and these roles by workspace slug.

    Return their former status, or None if they are new.
    """
    before: str | None = None
    facts = {"email": normalize_email(email), "name": name, "status": status}
    by_id = members.find_workspaces(change.connection, roles)
    # Add the user first, so there is a row to lock even if another request has added it.
    user_id = change.add(USER, facts, sorted(by_id))
    if user_id is None:
        statement = select(User.__table__).where(User.email == facts["email"])
        current: UserRow = change.connection.execute(statement.with_for_update(key_share=True)).one()
        _update(change, current, facts)
        user_id, before = current.id, current.status
    members.put_all(change, user_id, by_id)
    return before


def find_id(connection: Connection, email: str) -> str | None:
    """Return the id of the user with this normalized email, or None."""
    user_id: str | None = connection.execute(_by_email, {"email": email}).scalar()
    return user_id


def require_id(connection: Connection, email: str) -> str:
    """Return the user's id. Raise Conflict if the operator named an unknown user."""
    user_id = find_id(connection, normalize_email(email))
    if user_id is None:
        raise Conflict(f"There is no user {email!r}.")
    return user_id


def _find_unseen(change: Change, email: str) -> str:
    """Return the id of the user with this email, or raise Conflict if the caller sees them."""
    # Lock the user before the check, so only one of several concurrent requests adds the memberships.
    change.connection.execute(_by_email.with_for_update(key_share=True), {"email": email}).first()
    row = change.connection.execute(_reached_by_email, {"email": email} | change.caller.reach()).first()
    if row is None or row.reached:
        raise Conflict("This user exists: change them with PATCH, and their memberships with PUT.")
    return str(row.id)


def _lock_own(change: Change, user_id: str) -> UserRow:
    """Lock and return a user whose memberships are all in the caller's workspaces, or raise."""
    # Check the memberships in a later statement: this one may have waited while another was added.
    current = change.find_user(user_id, lock=True)
    if change.connection.execute(_elsewhere, {"user": user_id} | change.caller.reach()).first():
        raise Conflict(
            "This user also belongs to workspaces of others; "
            "this client can only add and remove memberships of its own workspaces."
        )
    return current


def _update(change: Change, current: UserRow, facts: Mapping[str, Any]) -> None:
    change.update(USER, current, facts, members.list_workspace_ids(change.connection, current.id))


def _read(reached: Reach, user_id: str) -> VisibleUser:
    return _build_all(reached, [reached.find_user(user_id)])[0]


def _build_all(reached: Reach, rows: list[UserRow]) -> list[VisibleUser]:
    roles = members.list_roles(reached.connection, reached.caller, [row.id for row in rows])
    return [
        VisibleUser(row.id, row.email, row.name, row.status, row.created_at, roles[row.id]) for row in rows
    ]


# Statements, built once.

_reached = select(User.__table__, User.id.label("key")).where(reaches_user(User.id))
_by_email = select(User.id).where(User.email == bindparam("email"))
_reached_by_email = select(User.id, reaches_user(User.id).label("reached")).where(
    User.email == bindparam("email")
)
_elsewhere = (
    select(Member.workspace_id)
    .where(Member.user_id == bindparam("user"), not_(reaches_workspace(Member.workspace_id)))
    .limit(1)
)

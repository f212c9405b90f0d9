"""Users are the people who view apps. Each email belongs to one user, who may be a member of several
workspaces.

A user has a home workspace: the first one of the request that created the user. A client that is limited to
workspaces can change

- the name, if it reaches the home;
- the email, and delete the user, if it reaches the home and no workspace outside its own has known the user;
- the status in its workspaces: see `statuses`.

Clients of all workspaces, the provisioning file and commands are not limited.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Select, bindparam, exists, func, not_, or_, select, update
from sqlalchemy.sql.elements import ColumnElement, SQLColumnExpression

from pat_service.errors import Conflict, InvalidPayload, ScopeMissing, UserNotFound
from pat_service.rules import events
from pat_service.rules.callers import OPERATOR, Caller, reaches_user, reaches_workspace
from pat_service.rules.directory import deletion, members, reach, statuses, workspaces
from pat_service.rules.directory.changes import Change, Noun, changing, difference
from pat_service.rules.directory.reach import FoundUserRow, Reach, UserRow, reading_as
from pat_service.shapes import normalize_email
from pat_service.storage.database import AnyRow, reading
from pat_service.storage.models import (
    ACTIVE,
    ARCHIVED,
    App,
    Event,
    Grant,
    Member,
    Session,
    Token,
    User,
    Workspace,
    WorkspaceStatus,
)
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
    """A user with the status and the memberships that the caller sees."""

    id: str
    email: str
    name: str
    status: str
    created_at: datetime
    memberships: list[AnyRow]


@dataclass(frozen=True, slots=True)
class UserWithHome(VisibleUser):
    """A user for a caller of all workspaces. The home may be a workspace that other callers do not reach."""

    home_workspace_id: str | None


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
    statement = _reached.where(*match(User, email=normalized))
    return _list(caller, statement, User.id, page_request, status, workspace_id)


def _list(
    caller: Caller,
    statement: Select[*tuple[Any, ...]],
    key: SQLColumnExpression[str],
    page_request: PageRequest,
    status: str | None,
    workspace_id: str | None,
) -> Listing:
    if status is not None:
        statement = statement.where(_shown_status == status)
    if workspace_id is not None:
        within = (Member.workspace_id == workspace_id, reaches_workspace(Member.workspace_id))
        statement = statement.where(User.id.in_(select(Member.user_id).where(*within)))
    with reading_as(caller) as reached:
        listing = page(reached.connection, statement, key, page_request, caller.reach())
        return replace(listing, items=_build_all(reached, listing.items))


def search(
    caller: Caller,
    page_request: PageRequest,
    text: str,
    *,
    status: str | None = None,
    workspace_id: str | None = None,
) -> Listing:
    """Return a page as `list_users` does, sorted by email, of users whose email or name contains the text.

    The text is compared without case as far as the database can: SQLite knows the case of ASCII only.
    """
    statement = _reached_by_address
    if text:
        email = User.email.contains(normalize_email(text), autoescape=True)
        statement = statement.where(email | User.name.icontains(text, autoescape=True))
    return _list(caller, statement, User.email, page_request, status, workspace_id)


def read(caller: Caller, user_id: str) -> VisibleUser:
    """Return the user, or raise UserNotFound."""
    with reading_as(caller) as reached:
        return _read(reached, user_id)


def count_homeless() -> int:
    """Return the number of users without a home workspace."""
    with reading() as connection:
        return connection.scalar(_homeless) or 0


def create(
    caller: Caller,
    *,
    email: str,
    roles: Mapping[str, str],
    now: datetime,
    name: str | None = None,
    status: str = ACTIVE,
    home_workspace_id: str | None = None,
) -> tuple[VisibleUser, bool]:
    """Create a user with these roles by workspace id.

    The name defaults to the email, and the home to the first workspace of `roles`. If the user exists but the
    caller does not see them, only add the memberships. The second value is then False.

    Raise InvalidPayload if a limited client names no workspace. Raise ScopeMissing if the client cannot give
    a role or choose a home. Raise WorkspaceNotFound for an unknown workspace, and Conflict if the caller
    already sees the user.
    """
    with changing(caller, now) as change:
        if not roles and not caller.all_workspaces:
            error = "Must name at least one: this client is limited to workspaces."
            raise InvalidPayload({"memberships": [error]})
        for role in roles.values():
            caller.require_role(role)
        for workspace_id in roles:
            change.find_workspace(workspace_id)
        if home_workspace_id is not None:
            _require_may_move_home(change, home_workspace_id)
        facts = {"email": normalize_email(email), "name": name or email, "status": status}
        home = home_workspace_id or next(iter(roles), None)
        new_id = _add(change, facts, home, roles)
        user_id = new_id or _find_unseen(change, facts["email"])
        for workspace_id, role in sorted(roles.items()):
            members.give(change, workspace_id, user_id, role)
        return _read(change, user_id), new_id is not None


def change(caller: Caller, user_id: str, changes: dict[str, Any], now: datetime) -> VisibleUser:
    """Change the email, name, status or home_workspace_id.

    Raise UserNotFound, Conflict, WorkspaceNotFound or ScopeMissing. A new status takes effect on the next
    request of every open frame.
    """
    with changing(caller, now) as change:
        # The lock makes new memberships, grants and tokens wait, so no workspace joins during the checks.
        current = change.find_user(user_id, lock=True)
        facts = dict(changes)
        status, home_id = facts.pop("status", None), facts.pop("home_workspace_id", None)
        if changes:
            members.require_rank(change, user_id)
        if home_id is not None:
            _require_may_move_home(change, home_id)
            _move_home(change, current, home_id)
        if "email" in facts:
            facts["email"] = normalize_email(facts["email"])
        _change_facts(change, current, facts)
        if status is not None:
            _change_status(change, current, status)
        return _read(change, user_id)


@reach.retry_on_new_tokens
def remove(caller: Caller, user_id: str, now: datetime) -> None:
    """Delete the user with their memberships, grants, tokens and sessions. Raise the errors of `change`."""
    with changing(caller, now) as change:
        locked = reach.lock_tokens(change.connection, Token.user_id == user_id)
        current = change.find_user(user_id, lock=True)
        reach.require_all_locked(change.connection, locked)
        members.require_rank(change, user_id)
        _require_sole_owner(change, current, "delete the user")
        workspace_ids = members.list_workspace_ids(change.connection, user_id)
        deletion.delete(change, USER, current, workspace_ids)


def change_status_in(
    workspace_id: str, user_id: str, status: str, now: datetime, caller: Caller = OPERATOR
) -> None:
    """Change the status in one workspace. Raise WorkspaceNotFound, UserNotFound or ScopeMissing, and Conflict
    if the workspace has never known the user.
    """
    with changing(caller, now) as change:
        change.find_workspace(workspace_id)
        change.find_user(user_id, lock=True)
        members.require_rank(change, user_id)
        # A status makes the workspace one that has known the user, which limits the clients of the home.
        if not change.connection.scalar(_is_known_in, {"user": user_id, "workspace": workspace_id}):
            raise Conflict("This workspace has never known the user. Name a workspace of the user.")
        statuses.put(change, user_id, [workspace_id], status)


def put(
    change: Change, email: str, *, name: str, status: str, roles: Mapping[str, str], home: str | None = None
) -> str | None:
    """Create the user, or change them to have exactly these values and these roles by workspace slug.

    `home` is a slug. If it is None, a new user's home is the first workspace of `roles`, and an existing user
    keeps their home. Return the former status, or None if the user is new.
    """
    before: str | None = None
    facts = {"email": normalize_email(email), "name": name, "status": status}
    by_id = members.find_workspaces(change.connection, roles)
    home_id = workspaces.find_by_slug(change.connection, home) if home is not None else None
    # Add the user first, so there is a row to lock even if another request has added it.
    user_id = _add(change, facts, home_id or next(iter(by_id), None), by_id)
    if user_id is None:
        statement = select(User.__table__).where(User.email == facts["email"])
        current: UserRow = change.connection.execute(statement.with_for_update(key_share=True)).one()
        _update(change, current, facts)
        if home_id is not None:
            _move_home(change, current, home_id)
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


def _add(
    change: Change, facts: Mapping[str, Any], home_id: str | None, workspace_ids: Collection[str]
) -> str | None:
    """Add a user and return the id. Return None if the email is taken.

    If a limited client adds a user as archived, the user is archived only in this client's workspaces.
    """
    is_limited = not change.caller.all_workspaces
    stored = {**facts, "status": ACTIVE} if is_limited else {**facts}
    stored |= {"home_workspace_id": home_id, "archived_at": _archived_at(change, stored["status"])}
    user_id = change.add(USER, stored, sorted(workspace_ids))
    if user_id is not None and is_limited:
        statuses.put(change, user_id, statuses.list_reached(change), facts["status"])
    return user_id


def _archived_at(change: Change, status: str) -> datetime | None:
    return change.now if status == ARCHIVED else None


def _change_facts(change: Change, current: FoundUserRow, facts: Mapping[str, Any]) -> None:
    """Change the email and the name, if they differ and the caller may change them."""
    _, after = difference(current, facts)
    if "email" in after:
        _require_sole_owner(change, current, "change the email")
        if find_id(change.connection, after["email"]) is not None:
            raise Conflict("This email is another user's.")
    elif after:
        _require_home(current, "change the name")
    _update(change, current, after)


def _change_status(change: Change, current: FoundUserRow, status: str) -> None:
    """Change the status in the caller's workspaces, or in the installation if the caller is not limited."""
    if change.caller.all_workspaces:
        _update(change, current, {"status": status})
        return
    if (status, current.status) == (ACTIVE, ARCHIVED):
        if current.archived_at is not None or not current.home_reached:
            raise Conflict(
                "This user is archived in the whole installation; only its operator, or a client of all "
                "workspaces, can activate them."
            )
        _update(change, current, {"status": status})
    statuses.put(change, current.id, statuses.list_reached(change), status)


def _require_may_move_home(change: Change, workspace_id: str) -> None:
    if not change.caller.all_workspaces:
        raise ScopeMissing("This client is limited to workspaces, so it cannot choose a user's home.")
    change.find_workspace(workspace_id)


def _move_home(change: Change, current: UserRow, home_id: str) -> None:
    before, ids = current.home_workspace_id, {"user_id": current.id}
    if before == home_id:
        return
    change.connection.execute(update(User).where(User.id == current.id).values(home_workspace_id=home_id))
    # Record two events, since neither tenant may learn the other workspace.
    if before is not None:
        details = {"before": {"home_workspace_id": before}}
        change.record(events.USER_CHANGED, details, workspace_id=before, **ids)
    details = {"after": {"home_workspace_id": home_id}}
    change.record(events.USER_CHANGED, details, workspace_id=home_id, **ids)


def _require_home(current: FoundUserRow, action: str) -> None:
    """Raise Conflict unless the caller reaches the user's home."""
    if not current.home_reached:
        raise Conflict(
            f"Only clients of this user's home workspace can {action}; "
            "this client can change the status and the memberships in its own workspaces."
        )


def _require_sole_owner(change: Change, current: FoundUserRow, action: str) -> None:
    """Raise Conflict unless the caller reaches the home and every workspace that has known the user.

    Otherwise, rows and rights of other tenants would be deleted, or would go to another person.
    """
    _require_home(current, action)
    values = {"user": current.id} | change.caller.reach()
    if not change.caller.all_workspaces and change.connection.scalar(_is_known_elsewhere, values):
        raise Conflict(
            f"Workspaces of others have known this user: only a client of all workspaces can {action}; "
            "this client can change the status and the memberships in its own workspaces."
        )


def _update(change: Change, current: UserRow, facts: Mapping[str, Any]) -> None:
    change.update(USER, current, facts, members.list_workspace_ids(change.connection, current.id))
    if facts.get("status", current.status) != current.status:
        values = {"archived_at": _archived_at(change, facts["status"])}
        change.connection.execute(update(User).where(User.id == current.id).values(values))


def _read(reached: Reach, user_id: str) -> VisibleUser:
    values = {"user": user_id} | reached.caller.reach()
    rows = list(reached.connection.execute(_reached.where(User.id == bindparam("user")), values))
    if not rows:
        raise UserNotFound
    return _build_all(reached, rows)[0]


def _build_all(reached: Reach, rows: list[AnyRow]) -> list[VisibleUser]:
    roles = members.list_roles(reached.connection, reached.caller, [row.id for row in rows])
    return [_build(reached.caller, row, roles[row.id]) for row in rows]


def _build(caller: Caller, row: AnyRow, roles: list[AnyRow]) -> VisibleUser:
    shown = (row.id, row.email, row.name, row.status, row.created_at, roles)
    return UserWithHome(*shown, row.home_workspace_id) if caller.all_workspaces else VisibleUser(*shown)


# Statements, built once.

_shown_status = statuses.build_shown_status()
_existing_home = select(Workspace.id).where(Workspace.id == User.home_workspace_id)
_shown: Final = (
    User.id,
    User.email,
    User.name,
    _shown_status.label("status"),
    User.created_at,
    _existing_home.scalar_subquery().label("home_workspace_id"),
)
_reached = select(User.id.label("key"), *_shown).where(reaches_user(User.id))
_reached_by_address = select(User.email.label("key"), *_shown).where(reaches_user(User.id))
_homeless = select(func.count()).select_from(User).where(not_(_existing_home.exists()))
_by_email = select(User.id).where(User.email == bindparam("email"))
_reached_by_email = select(User.id, reaches_user(User.id).label("reached")).where(
    User.email == bindparam("email")
)


def _build_known(
    is_meant: Callable[[SQLColumnExpression[Any]], ColumnElement[bool]],
) -> Select[tuple[bool]]:
    """Select whether such a workspace has known the user. Purged events leave a `WorkspaceStatus`."""
    return select(
        or_(
            *(
                exists().where(is_meant(table.workspace_id), table.user_id == bindparam("user"))
                for table in (Member, WorkspaceStatus, Token, Session)
            ),
            exists().where(
                is_meant(App.workspace_id), Grant.app_id == App.id, Grant.user_id == bindparam("user")
            ),
            exists().where(
                is_meant(Event.workspace_id),
                Event.user_id == bindparam("user"),
                Event.workspace_id.is_not(None),
            ),
        )
    )


_is_known_elsewhere = _build_known(lambda workspace_id: not_(reaches_workspace(workspace_id)))
_is_known_in = _build_known(lambda workspace_id: workspace_id == bindparam("workspace"))

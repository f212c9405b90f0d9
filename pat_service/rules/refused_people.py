"""The people who were refused an app lately, because they have no grant of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import bindparam, select
from sqlalchemy.sql.elements import BindParameter

from pat_service.errors import AccessRevoked, AppForbidden
from pat_service.rules.callers import Caller, reaches_user, reaches_workspace
from pat_service.storage.database import reading
from pat_service.storage.models import App, Event, Grant, User, Workspace

#: Newest events that are searched: of each workspace, or of all for a caller of all workspaces.
SEARCHED: Final = 500
#: Workspaces of a limited caller that are searched.
MAX_WORKSPACES: Final = 10
CODES: Final = (AppForbidden.code, AccessRevoked.code)


@dataclass(frozen=True, slots=True)
class RefusedPerson:
    """A person without a grant of an app, and the last refusal."""

    app_id: str
    app_name: str
    user_id: str
    email: str
    last_at: datetime


def list_refused(caller: Caller, limit: int) -> list[RefusedPerson]:
    """Return up to `limit` people, the newest refusal first. It reads a bounded part of the trail."""
    with reading() as connection:
        if caller.all_workspaces:
            rows: Sequence[Any] = connection.execute(_newest).all()
        else:
            workspaces = connection.execute(_workspaces, caller.reach()).scalars().all()
            rows = [row for id_ in workspaces for row in connection.execute(_newest_of, {"workspace": id_})]
        pairs = {
            (row.app_id, row.user_id): row.at
            for row in sorted(rows, key=lambda row: row.id)
            if row.code in CODES and row.app_id and row.user_id
        }
        values = caller.reach() | {"apps": [app for app, _ in pairs], "users": [user for _, user in pairs]}
        names = {row.id: row.name for row in connection.execute(_apps, values)}
        emails = {row.id: row.email for row in connection.execute(_users, values)}
        granted = {(row.app_id, row.user_id) for row in connection.execute(_grants, values)}
    found = [
        RefusedPerson(app, names[app], user, emails[user], at)
        for (app, user), at in pairs.items()
        if app in names and user in emails and (app, user) not in granted
    ]
    return sorted(found, key=lambda person: person.last_at, reverse=True)[:limit]


# Statements, built once.

_newest = (
    select(Event.id, Event.at, Event.code, Event.app_id, Event.user_id)
    .order_by(Event.id.desc())
    .limit(SEARCHED)
)
_newest_of = _newest.where(Event.workspace_id == bindparam("workspace"))
_workspaces = (
    select(Workspace.id).where(reaches_workspace(Workspace.id)).order_by(Workspace.id).limit(MAX_WORKSPACES)
)
_in_apps: BindParameter[list[str]] = bindparam("apps", expanding=True)
_in_users: BindParameter[list[str]] = bindparam("users", expanding=True)
_apps = select(App.id, App.name).where(App.id.in_(_in_apps), reaches_workspace(App.workspace_id))
_users = select(User.id, User.email).where(User.id.in_(_in_users), reaches_user(User.id))
_grants = select(Grant.app_id, Grant.user_id).where(Grant.app_id.in_(_in_apps), Grant.user_id.in_(_in_users))

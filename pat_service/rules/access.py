"""May this user open this app now? The one place that answers.

A statement that starts from a token or a session joins `facts_of` it and selects `FACTS`; `viewer`
gives the verdict on such a row. So a mint, an opening and every request of an open frame decide by
the same rule, on what the database says at that moment.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, bindparam, select
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.sql.selectable import FromClause, Join

from pat_service.errors import AccessRevoked
from pat_service.shapes import ANY_ORIGIN, is_uuid
from pat_service.storage.database import AnyRow, reading
from pat_service.storage.models import App, Grant, Member, User, Workspace


@dataclass(frozen=True, slots=True)
class Place:
    """Where a token or session is used: at an app, or at the launcher of a workspace.

    `slug` is the one that the host names, where each app has a host of its own.
    """

    app_id: str | None = None
    workspace_id: str | None = None
    slug: str | None = None

    @property
    def known_app(self) -> str | None:
        """The app's id, unless no app can have it: not every text can be asked of a database."""
        return self.app_id if self.app_id is not None and is_uuid(self.app_id) else None


@dataclass(frozen=True, slots=True)
class ViewingUser:
    id: str
    email: str
    name: str


@dataclass(frozen=True, slots=True)
class ViewedApp:
    id: str
    slug: str
    name: str
    template: str


@dataclass(frozen=True, slots=True)
class ViewedWorkspace:
    id: str
    slug: str
    name: str


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who has come, with what the mint said of them: what the launcher is given."""

    user: ViewingUser
    workspace: ViewedWorkspace
    role: str
    attributes: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Viewer(Visitor):
    """Who looks at which app: what templates and functions of an app are given."""

    app: ViewedApp


#: The columns that the verdict needs, under names that no other table has.
FACTS = (
    User.id.label("user_id"),
    User.email.label("user_email"),
    User.name.label("user_name"),
    User.status.label("user_status"),
    App.id.label("app_id"),
    App.slug.label("app_slug"),
    App.name.label("app_name"),
    App.template.label("app_template"),
    App.moves.label("app_moves"),
    App.workspace_id.label("app_workspace"),
    App.moved_from.label("app_moved_from"),
    App.allowed_origins.label("app_origins"),
    Workspace.id.label("workspace_id"),
    Workspace.slug.label("workspace_slug"),
    Workspace.name.label("workspace_name"),
    Workspace.allowed_origins.label("workspace_origins"),
    Member.role.label("role"),
    Grant.user_id.label("granted"),
)


def facts_of(
    source: FromClause, app: ColumnElement[bool], user: ColumnElement[bool], workspace: ColumnElement[bool]
) -> Join:
    """Join to `source` the app, user and workspace that the conditions name, and what binds them.

    Every join is an outer one: what is missing shows as NULL, and the verdict says what it means.
    """
    return (
        source.outerjoin(App, app)
        .outerjoin(User, user)
        .outerjoin(Workspace, workspace)
        .outerjoin(Member, and_(Member.workspace_id == Workspace.id, Member.user_id == User.id))
        .outerjoin(Grant, and_(Grant.app_id == App.id, Grant.user_id == User.id))
    )


def may_visit(facts: AnyRow) -> bool:
    """An active user, a member of the workspace. A role opens nothing by itself."""
    return facts.user_status == "active" and facts.role is not None


def may_open(facts: AnyRow) -> bool:
    """Who may visit the workspace, with a grant of an app that is in it."""
    return may_visit(facts) and facts.app_workspace == facts.workspace_id and facts.granted is not None


def meant_for(facts: AnyRow, place: Place) -> bool:
    """Tell whether the token or session of the row is one for this place, good or not."""
    if place.app_id is None:
        return facts.target_app is None and facts.workspace_id == place.workspace_id
    if place.slug is not None and facts.app_slug != place.slug:
        return False
    if facts.target_app is not None:
        return bool(facts.target_app == place.app_id)
    # Of an app that has left the workspace it is the verdict that says: access is gone.
    return facts.workspace_id in (facts.app_workspace, facts.app_moved_from)


def require_visitor(facts: AnyRow) -> Visitor:
    """Return who is at the launcher, or raise AccessRevoked: archived, or no member any more."""
    if not may_visit(facts):
        raise AccessRevoked
    return Visitor(_user(facts), _workspace(facts), facts.role, facts.attributes or {})


def require_viewer(facts: AnyRow) -> Viewer:
    """Return the viewer of the app, or raise AccessRevoked: access is gone, or the app has moved since.

    What was made for one app ends for good when that moves; what was made for a workspace opens the
    apps that are in it at this moment.
    """
    moved = facts.target_app is not None and facts.moves != facts.app_moves
    if moved or not may_open(facts):
        raise AccessRevoked
    app = ViewedApp(facts.app_id, facts.app_slug, facts.app_name, facts.app_template)
    return Viewer(_user(facts), _workspace(facts), facts.role, facts.attributes or {}, app)


def _user(facts: AnyRow) -> ViewingUser:
    return ViewingUser(facts.user_id, facts.user_email, facts.user_name)


def _workspace(facts: AnyRow) -> ViewedWorkspace:
    return ViewedWorkspace(facts.workspace_id, facts.workspace_slug, facts.workspace_name)


def narrow_origins(origins: list[str], allowed: Sequence[str] | None) -> list[str]:
    """Return those of a frame's origins that the token allows too. A token never adds one."""
    if allowed is None or ANY_ORIGIN in allowed:
        return origins
    if ANY_ORIGIN in origins:
        return list(allowed)
    return [origin for origin in origins if origin in allowed]


def apps_of(who: Visitor) -> list[ViewedApp]:
    """Return the apps of the workspace that the visitor may open, by name."""
    with reading() as connection:
        rows = connection.execute(_apps_of, {"workspace": who.workspace.id, "user": who.user.id})
        apps = [ViewedApp(row.id, row.slug, row.name, row.template) for row in rows]
    # Sorted here, since the two databases order texts each in its own way.
    return sorted(apps, key=lambda app: (app.name.casefold(), app.id))


_apps_of = (
    select(App.id, App.slug, App.name, App.template)
    .join(Grant, Grant.app_id == App.id)
    .where(App.workspace_id == bindparam("workspace"), Grant.user_id == bindparam("user"))
)

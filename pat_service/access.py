"""May this user open this app now? The one place that answers.

A statement that starts from a token or a session joins `facts_of` it and selects `FACTS`; `viewer`
gives the verdict on such a row. So a mint, an opening and every request of an open frame decide by
the same rule, on what the database says at that moment.
"""

from dataclasses import dataclass

from sqlalchemy import and_
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.sql.selectable import FromClause, Join

from pat_service.database import AnyRow
from pat_service.errors import AccessRevoked
from pat_service.models import App, Grant, Member, User, Workspace


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
class Viewer:
    """Who looks at which app: what templates and functions of an app are given."""

    user: ViewingUser
    app: ViewedApp
    workspace: ViewedWorkspace
    role: str


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
    App.allowed_origins.label("app_origins"),
    Workspace.id.label("workspace_id"),
    Workspace.slug.label("workspace_slug"),
    Workspace.name.label("workspace_name"),
    Member.role.label("role"),
    Grant.user_id.label("granted"),
)


def facts_of(source: FromClause, app: ColumnElement[bool], user: ColumnElement[bool]) -> Join:
    """Join to `source` the app and the user that the two conditions name, and what binds them.

    Every join is an outer one: what is missing shows as NULL, and the verdict says what it means.
    """
    return (
        source.outerjoin(App, app)
        .outerjoin(User, user)
        .outerjoin(Workspace, Workspace.id == App.workspace_id)
        .outerjoin(Member, and_(Member.workspace_id == App.workspace_id, Member.user_id == User.id))
        .outerjoin(Grant, and_(Grant.app_id == App.id, Grant.user_id == User.id))
    )


def may_open(facts: AnyRow) -> bool:
    """An active user, a member of the app's workspace, with a grant. A role opens nothing by itself."""
    return facts.user_status == "active" and facts.role is not None and facts.granted is not None


def viewer(facts: AnyRow, moves: int) -> Viewer:
    """Return the viewer, or raise AccessRevoked: access is gone, or the app has moved since `moves`."""
    if moves != facts.app_moves or not may_open(facts):
        raise AccessRevoked
    return Viewer(
        ViewingUser(facts.user_id, facts.user_email, facts.user_name),
        ViewedApp(facts.app_id, facts.app_slug, facts.app_name, facts.app_template),
        ViewedWorkspace(facts.workspace_id, facts.workspace_slug, facts.workspace_name),
        facts.role,
    )

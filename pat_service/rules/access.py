"""Decide whether a user may open an app. No other module decides this.

`may_open` requires an active user, a membership of the app's workspace, and a grant of the app. The user must
be active in the installation and in the workspace. A mint, an opening and each request of an open frame apply
this rule. They join their row with `join_facts` and select `FACTS`, so they see the present state of the
database.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, TypeAlias

from sqlalchemy import Select, and_, bindparam, func, select
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.sql.selectable import FromClause, Join

from pat_service.addresses import APP_LABEL
from pat_service.credentials import Keyring
from pat_service.errors import AccessRevoked, HostsMissing, SlugUnfit, UpstreamSlugUnfit
from pat_service.shapes import ANY_ORIGIN, is_dns_label, is_upstream_label, is_uuid
from pat_service.storage.database import reading
from pat_service.storage.models import (
    ACTIVE,
    ARCHIVED,
    App,
    Grant,
    Member,
    Session,
    Token,
    User,
    Workspace,
    WorkspaceStatus,
)


@dataclass(frozen=True, slots=True)
class ViewerHost:
    """The parts of a host that one viewer of an upstream app has: `{slug}--{tag}.{domain}`.

    `own_domain` is the domain with its port, or None if it is that of PUBLIC_URL.
    """

    slug: str
    tag: str
    own_domain: str | None


@dataclass(frozen=True, slots=True)
class Host:
    """The host of a frame. `slug` is that of its template app, or None if all apps share one host.

    `viewer` has the parts of the same host if it can be a viewer's.
    """

    slug: str | None = None
    viewer: ViewerHost | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """The app or the workspace's launcher at which a token or session is used.

    `host` is the host of the app's frame. A program has none.
    """

    app_id: str | None = None
    workspace_id: str | None = None
    host: Host | None = None

    @property
    def valid_app_id(self) -> str | None:
        """The app's id, or None if it is not a UUID: PostgreSQL refuses some texts as parameters."""
        return self.app_id if self.app_id is not None and is_uuid(self.app_id) else None


@dataclass(frozen=True, slots=True)
class ViewingUser:
    id: str
    email: str
    name: str


@dataclass(frozen=True, slots=True)
class ViewedApp:
    """An app. One with an `upstream` runs elsewhere; `start` is its first path, if it has one of its own."""

    id: str
    slug: str
    name: str
    template: str
    upstream: str | None = None
    start: str | None = None
    permissions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ViewedWorkspace:
    """A workspace. `apps_url` is its own address of upstream apps, with `{app}`."""

    id: str
    slug: str
    name: str
    apps_url: str | None = None


@dataclass(frozen=True, slots=True)
class Visitor:
    """A user at a launcher. Templates receive it; `attributes` come from the mint."""

    user: ViewingUser
    workspace: ViewedWorkspace
    role: str
    attributes: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Viewer(Visitor):
    """A user at an app. Templates and functions of the app receive it.

    `preview`: an operator looks at the app as this user. Writes are as real as the user's own.
    """

    app: ViewedApp
    preview: bool = False


AnyViewer: TypeAlias = Viewer | Visitor


#: The columns that decide access. Their names are unique, so a statement can select others too.
DECIDING = (
    User.id.label("user_id"),
    User.status.label("user_status"),
    WorkspaceStatus.status.label("status_in_workspace"),
    App.id.label("app_id"),
    App.slug.label("app_slug"),
    App.moves.label("app_moves"),
    App.workspace_id.label("app_workspace"),
    App.upstream.label("app_upstream"),
    Workspace.id.label("workspace_id"),
    Workspace.apps_url.label("workspace_apps_url"),
    Member.role.label("role"),
    Grant.user_id.label("granted"),
)
#: The columns that decide access, and those that a frame shows.
FACTS = (
    *DECIDING,
    User.email.label("user_email"),
    User.name.label("user_name"),
    App.name.label("app_name"),
    App.template.label("app_template"),
    App.moved_from.label("app_moved_from"),
    App.allowed_origins.label("app_origins"),
    App.start.label("app_start"),
    App.permissions.label("app_permissions"),
    Workspace.slug.label("workspace_slug"),
    Workspace.name.label("workspace_name"),
    Workspace.allowed_origins.label("workspace_origins"),
)


class DecidingFacts(Protocol):
    """A row of `DECIDING`. A column is None if its outer join found nothing."""

    user_id: str
    user_status: str
    status_in_workspace: str | None
    app_id: str
    app_slug: str
    app_moves: int
    app_workspace: str
    app_upstream: str | None
    workspace_id: str
    workspace_apps_url: str | None
    role: str
    granted: str | None


class AccessFacts(DecidingFacts, Protocol):
    """A row of `FACTS`."""

    user_email: str
    user_name: str
    app_name: str
    app_template: str
    app_moved_from: str | None
    app_origins: list[str]
    app_start: str | None
    app_permissions: list[str] | None
    workspace_slug: str
    workspace_name: str
    workspace_origins: list[str]


class CredentialFacts(AccessFacts, Protocol):
    """A row of a token or session with its `FACTS`. Without `target_app` it is for the whole workspace."""

    token_id: str
    client_id: str
    target_app: str | None
    moves: int
    attributes: dict[str, Any] | None
    allowed_origins: list[str] | None
    expires_at: datetime


def select_credentials(table: type[Token | Session], *columns: Any) -> Select[*tuple[Any, ...]]:
    """Select tokens or sessions, with their facts for an app.

    For an app's session, this is the session's own app. For a token or a launcher's session, it is the app in
    the parameter `app`.
    """
    common = (table.client_id, table.app_id.label("target_app"), table.moves, table.attributes)
    given: ColumnElement[str] = bindparam("app")
    app = App.id == (func.coalesce(table.app_id, given) if table is Session else given)
    user = User.id == table.user_id
    facts = join_facts(table.__table__, app, user, Workspace.id == table.workspace_id)
    return select(*FACTS, *common, table.allowed_origins, table.expires_at, *columns).select_from(facts)


def join_facts(
    source: FromClause, app: ColumnElement[bool], user: ColumnElement[bool], workspace: ColumnElement[bool]
) -> Join:
    """Join `source` with the app, user and workspace that match, and their status, membership and grant."""
    return (
        source.outerjoin(App, app)
        .outerjoin(User, user)
        .outerjoin(Workspace, workspace)
        .outerjoin(
            WorkspaceStatus,
            and_(WorkspaceStatus.workspace_id == Workspace.id, WorkspaceStatus.user_id == User.id),
        )
        .outerjoin(Member, and_(Member.workspace_id == Workspace.id, Member.user_id == User.id))
        .outerjoin(Grant, and_(Grant.app_id == App.id, Grant.user_id == User.id))
    )


def is_active(facts: DecidingFacts) -> bool:
    """Return whether the user is archived neither in the installation nor in the workspace."""
    return facts.user_status == ACTIVE and facts.status_in_workspace != ARCHIVED


def may_visit(facts: DecidingFacts) -> bool:
    """Return whether the user is an active member of the workspace. Every role may visit."""
    return is_active(facts) and facts.role is not None


def may_open(facts: DecidingFacts) -> bool:
    """Return whether the user may visit the app's workspace and has a grant of the app."""
    return may_visit(facts) and facts.app_workspace == facts.workspace_id and facts.granted is not None


def fits_host(slug: str, upstream: str | None, *, own_host: bool) -> bool:
    """Return whether an app with this slug can open. `own_host`: each app has its own host.

    Without hosts of apps, an upstream app has none, and any other app needs none.
    """
    if upstream is None:
        return not own_host or is_dns_label(slug)
    return own_host and is_upstream_label(slug)


def require_host(facts: DecidingFacts, *, own_host: bool) -> None:
    """Raise SlugUnfit, UpstreamSlugUnfit or HostsMissing if the app has no host to open at."""
    if fits_host(facts.app_slug, facts.app_upstream, own_host=own_host):
        return
    if facts.app_upstream is None:
        raise SlugUnfit(facts.app_slug)
    raise UpstreamSlugUnfit(facts.app_slug) if own_host else HostsMissing


def is_for_place(keyring: Keyring, facts: CredentialFacts, place: Place) -> bool:
    """Return whether the token or session was made for this place, even if it is no longer valid."""
    if place.app_id is None:
        return facts.target_app is None and facts.workspace_id == place.workspace_id
    if place.host is not None and not _is_at_host(keyring, facts, place.host):
        return False
    if facts.target_app is not None:
        return facts.target_app == place.app_id
    # Also match an app that has left the workspace, so the holder gets AccessRevoked.
    return facts.workspace_id in (facts.app_workspace, facts.app_moved_from)


def _is_at_host(keyring: Keyring, facts: CredentialFacts, host: Host) -> bool:
    """Return whether this is the host of the app, or of this viewer if the app runs elsewhere."""
    if facts.app_upstream is None:
        return host.slug in (None, facts.app_slug)
    viewer, own = host.viewer, facts.workspace_apps_url
    if viewer is None or viewer.slug != facts.app_slug:
        return False
    if viewer.own_domain != (own and own.partition(APP_LABEL)[2]):
        return False
    return keyring.is_viewer_tag(viewer.tag, facts.app_id, facts.user_id, facts.attributes)


def require_visitor(facts: CredentialFacts) -> Visitor:
    """Return the visitor of the launcher, or raise AccessRevoked."""
    if not may_visit(facts):
        raise AccessRevoked
    return Visitor(build_user(facts), build_workspace(facts), facts.role, facts.attributes or {})


def require_viewer(facts: CredentialFacts) -> Viewer:
    """Return the viewer of the app, or raise AccessRevoked.

    Moving an app permanently ends its own tokens and sessions. Tokens and sessions for a workspace open the
    apps that are in it now.
    """
    moved = facts.target_app is not None and facts.moves != facts.app_moves
    if moved or not may_open(facts):
        raise AccessRevoked
    app = ViewedApp(
        facts.app_id,
        facts.app_slug,
        facts.app_name,
        facts.app_template,
        facts.app_upstream,
        facts.app_start,
        tuple(facts.app_permissions or ()),
    )
    return Viewer(build_user(facts), build_workspace(facts), facts.role, facts.attributes or {}, app)


def require_access(facts: CredentialFacts, place: Place) -> AnyViewer:
    """Return the viewer of the place's app or the visitor of its launcher, or raise AccessRevoked."""
    return require_visitor(facts) if place.app_id is None else require_viewer(facts)


def build_user(facts: AccessFacts) -> ViewingUser:
    return ViewingUser(facts.user_id, facts.user_email, facts.user_name)


def build_workspace(facts: AccessFacts) -> ViewedWorkspace:
    return ViewedWorkspace(
        facts.workspace_id, facts.workspace_slug, facts.workspace_name, facts.workspace_apps_url
    )


def narrow_origins(origins: list[str], allowed: Sequence[str] | None) -> list[str]:
    """Return the frame's origins that its token allows too. A token never adds an origin."""
    if allowed is None or ANY_ORIGIN in allowed:
        return origins
    if ANY_ORIGIN in origins:
        return list(allowed)
    return [origin for origin in origins if origin in allowed]


def list_openable_apps(visitor: Visitor) -> list[ViewedApp]:
    """Return the apps of the workspace that the visitor may open, sorted by name."""
    with reading() as connection:
        rows = connection.execute(_granted_apps, {"workspace": visitor.workspace.id, "user": visitor.user.id})
        apps = [ViewedApp(row.id, row.slug, row.name, row.template, row.upstream) for row in rows]
    # The two databases order texts differently, so Python sorts.
    return sorted(apps, key=lambda app: (app.name.casefold(), app.id))


_granted_apps = (
    select(App.id, App.slug, App.name, App.template, App.upstream)
    .join(Grant, Grant.app_id == App.id)
    .where(App.workspace_id == bindparam("workspace"), Grant.user_id == bindparam("user"))
)

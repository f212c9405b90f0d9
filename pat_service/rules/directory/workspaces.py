"""Workspaces are the tenants. A client that is limited to workspaces cannot create one, since it would not
reach it.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from marshmallow import ValidationError
from sqlalchemy import Connection, select

from pat_service.addresses import Site, covers_host, have_common_hosts
from pat_service.errors import Conflict, InvalidPayload, ScopeMissing
from pat_service.rules import events
from pat_service.rules.callers import Caller, reaches_workspace
from pat_service.rules.directory import deletion, reach
from pat_service.rules.directory.changes import Change, Noun, changing, edit_origins
from pat_service.rules.directory.reach import TargetRow, WorkspaceRow, reading_as
from pat_service.storage.database import reading
from pat_service.storage.models import App, Token, Workspace
from pat_service.storage.paging import Listing, PageRequest, match, page

#: The name of the field in requests, for errors.
APPS_URL: Final = "appsUrl"
WORKSPACE: Final = Noun(
    Workspace,
    "workspace_id",
    events.WORKSPACE_CREATED,
    events.WORKSPACE_CHANGED,
    events.WORKSPACE_DELETED,
    audited=("slug", "name", "allowed_origins", "apps_url"),
)


def list_workspaces(caller: Caller, page_request: PageRequest, slug: str | None = None) -> Listing:
    """Return a page of the caller's workspaces, or only the one with this slug."""
    statement = _reached.where(*match(Workspace, slug=slug))
    with reading() as connection:
        return page(connection, statement, Workspace.id, page_request, caller.reach())


def read(caller: Caller, workspace_id: str) -> WorkspaceRow:
    """Return the workspace, or raise WorkspaceNotFound."""
    with reading_as(caller) as reached:
        return reached.find_workspace(workspace_id)


def create(
    caller: Caller,
    *,
    slug: str,
    now: datetime,
    site: Site,
    name: str | None = None,
    allowed_origins: Sequence[str] = (),
    apps_url: str | None = None,
) -> WorkspaceRow:
    """Create a workspace. Its name defaults to the slug.

    Raise ScopeMissing or Conflict, or InvalidPayload for an address that no workspace may have.
    """
    with changing(caller, now) as change:
        if not caller.all_workspaces:
            raise ScopeMissing("This client is limited to workspaces, so it cannot create one.")
        _require_free(change.connection, site, slug, apps_url or None)
        facts = {
            "slug": slug,
            "name": name or slug,
            "allowed_origins": allowed_origins,
            "apps_url": apps_url or None,
        }
        workspace_id = change.add(WORKSPACE, facts)
        if workspace_id is None:
            raise Conflict("This slug is taken; choose another.")
        return change.find_workspace(workspace_id)


def change(
    caller: Caller, workspace_id: str, changes: dict[str, Any], now: datetime, *, site: Site
) -> WorkspaceRow:
    """Change the slug, name, allowed_origins or apps_url. An empty apps_url removes the address.

    Raise ScopeMissing, WorkspaceNotFound or Conflict, or InvalidPayload for an address that no workspace may
    have.
    """
    with changing(caller, now) as change:
        current = change.find_workspace(workspace_id, lock=True)
        if "apps_url" in changes:
            if not caller.all_workspaces:
                raise ScopeMissing(
                    "This client is limited to workspaces. Only a client of all workspaces can set appsUrl."
                )
            changes = changes | {"apps_url": changes["apps_url"] or None}
            _require_free(change.connection, site, current.slug, changes["apps_url"])
        slug = changes.get("slug", current.slug)
        if slug != current.slug and change.connection.execute(_select_by_slug(slug)).first():
            raise Conflict("This slug is taken; choose another.")
        change.update(WORKSPACE, current, changes)
        return change.find_workspace(workspace_id)


def change_origins(
    caller: Caller,
    workspace_id: str,
    now: datetime,
    *,
    add: Collection[str] = (),
    remove: Collection[str] = (),
) -> TargetRow:
    """Add and remove allowed origins of the launcher, or raise WorkspaceNotFound."""
    with changing(caller, now) as change:
        current = change.find_workspace(workspace_id, lock=True)
        change.update(WORKSPACE, current, edit_origins(current.allowed_origins, add, remove))
        return change.find_workspace(workspace_id)


@reach.retry_on_new_tokens
def remove(caller: Caller, workspace_id: str, now: datetime) -> None:
    """Delete a workspace without apps, with its members, tokens and sessions. Users whose home it was then
    have no home.

    Raise WorkspaceNotFound, or Conflict while it has apps.
    """
    with changing(caller, now) as change:
        locked = reach.lock_tokens(change.connection, Token.workspace_id == workspace_id)
        current = change.find_workspace(workspace_id, lock=True)
        reach.require_all_locked(change.connection, locked)
        apps = select(App.id).where(App.workspace_id == workspace_id).limit(1)
        if change.connection.execute(apps).first():
            raise Conflict("There are apps in this workspace; move or delete them first.")
        deletion.delete(change, WORKSPACE, current)


def put(
    change: Change,
    slug: str,
    *,
    name: str,
    allowed_origins: Sequence[str],
    apps_url: str | None,
    site: Site,
) -> None:
    """Create the workspace, or change it to have exactly these values. Raise as `create` does."""
    facts = {"slug": slug, "name": name, "allowed_origins": allowed_origins, "apps_url": apps_url}
    _require_free(change.connection, site, slug, apps_url)
    # Add it first, so there is a row to lock even if another request has added it.
    if change.add(WORKSPACE, facts) is None:
        statement = _select_by_slug(slug).with_for_update(key_share=True)
        current = change.connection.execute(statement).first()
        if current is None:
            raise Conflict(_TAKEN)
        change.update(WORKSPACE, current, facts)


def give_up_addresses(change: Change, listed: Mapping[str, str | None]) -> None:
    """Remove the addresses that a file changes, so that another workspace of the file may take them.

    `listed` has the address of each listed workspace by its slug.
    """
    having = select(Workspace.__table__).where(Workspace.apps_url.is_not(None)).order_by(Workspace.id)
    for row in change.connection.execute(having.with_for_update(key_share=True)).all():
        if row.apps_url != listed.get(row.slug, row.apps_url):
            change.update(WORKSPACE, row, {"apps_url": None})


def find_frames_at(host: str) -> str | None:
    """Return the slug of a workspace whose own address has this host."""
    having = select(Workspace.slug, Workspace.apps_url).where(Workspace.apps_url.is_not(None))
    with reading() as connection:
        return next((row.slug for row in connection.execute(having) if covers_host(row.apps_url, host)), None)


def _require_free(connection: Connection, site: Site, slug: str, apps_url: str | None) -> None:
    """Raise InvalidPayload for a host of the service, and Conflict for one of another workspace."""
    if apps_url is None:
        return
    try:
        site.check_apps_url(apps_url)
    except ValidationError as error:
        raise InvalidPayload({APPS_URL: [str(text) for text in error.messages]}) from None
    others = select(Workspace.apps_url).where(Workspace.apps_url.is_not(None), Workspace.slug != slug)
    if any(have_common_hosts(apps_url, str(other)) for other in connection.execute(others).scalars()):
        raise Conflict(_TAKEN)


def find_by_slug(connection: Connection, slug: str) -> str:
    """Return the id of the workspace. Raise Conflict if the operator named an unknown one."""
    row = connection.execute(_select_by_slug(slug)).first()
    if row is None:
        raise Conflict(f"There is no workspace {slug!r}.")
    return str(row.id)


def _select_by_slug(slug: str) -> Any:
    return select(Workspace.__table__).where(Workspace.slug == slug)


_TAKEN: Final = "Another workspace has this address, or one above or below it. Choose another host."
_reached = select(Workspace.__table__, Workspace.id.label("key")).where(reaches_workspace(Workspace.id))

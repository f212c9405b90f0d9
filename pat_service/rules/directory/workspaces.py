"""Workspaces, the tenants. Only a client with all workspaces can make one: no other would reach it."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, delete, select, update

from pat_service.errors import Conflict, ScopeMissing
from pat_service.rules import events
from pat_service.rules.callers import OPERATOR, Caller, reaches_workspace
from pat_service.rules.directory import reach
from pat_service.rules.directory.changes import altered, changing, difference, each_once, told
from pat_service.storage.database import AnyRow, add, reading
from pat_service.storage.models import App, Token, Workspace, new_id
from pat_service.storage.paging import Listing, PageRequest, page

TOLD: Final = ("slug", "name", "allowed_origins")


def list_workspaces(caller: Caller, page_request: PageRequest, slug: str | None = None) -> Listing:
    """Return a page of the caller's workspaces, or of the one with this slug."""
    statement = _listed if slug is None else _listed.where(Workspace.slug == slug)
    with reading() as connection:
        return page(connection, statement, Workspace.id, page_request, caller.reach())


def read(caller: Caller, workspace_id: str) -> AnyRow:
    """Return the workspace, or raise WorkspaceNotFound."""
    with reading() as connection:
        return reach.workspace(connection, caller, workspace_id)


def create(
    caller: Caller,
    *,
    slug: str,
    now: datetime,
    name: str | None = None,
    allowed_origins: Sequence[str] = (),
) -> AnyRow:
    """Make a workspace; without a name, the slug stands for it. Raise ScopeMissing or Conflict."""
    with changing(caller, now) as connection:
        if not caller.all_workspaces:
            raise ScopeMissing("This client is limited to workspaces, so it can make no new one.")
        facts = {"slug": slug, "name": name or slug, "allowed_origins": each_once(allowed_origins)}
        workspace_id = _add(connection, caller, facts, now)
        if workspace_id is None:
            raise Conflict("This slug is taken; choose another.")
        return reach.workspace(connection, caller, workspace_id)


def change(caller: Caller, workspace_id: str, changes: dict[str, Any], now: datetime) -> AnyRow:
    """Change what `changes` names: slug, name, allowed_origins. Raise WorkspaceNotFound or Conflict."""
    with changing(caller, now) as connection:
        current = reach.workspace(connection, caller, workspace_id, lock=True)
        if "allowed_origins" in changes:
            changes = changes | {"allowed_origins": each_once(changes["allowed_origins"])}
        slug = changes.get("slug", current.slug)
        if slug != current.slug and connection.execute(_by_slug(slug)).first():
            raise Conflict("This slug is taken; choose another.")
        _change(connection, caller, current, changes, now)
        return reach.workspace(connection, caller, workspace_id)


def change_origins(
    caller: Caller,
    workspace_id: str,
    now: datetime,
    *,
    add: Collection[str] = (),
    remove: Collection[str] = (),
) -> AnyRow:
    """Add to the launcher's allowed origins and take from them; or raise WorkspaceNotFound."""
    with changing(caller, now) as connection:
        current = reach.workspace(connection, caller, workspace_id, lock=True)
        _change(connection, caller, current, altered(current, add, remove), now)
        return reach.workspace(connection, caller, workspace_id)


@reach.retry_on_new_tokens
def remove(caller: Caller, workspace_id: str, now: datetime) -> None:
    """Delete an empty workspace with its members, tokens and sessions. Raise Conflict while it has apps."""
    with changing(caller, now) as connection:
        locked = reach.lock_tokens(connection, Token.workspace_id == workspace_id)
        current = reach.workspace(connection, caller, workspace_id, lock=True)
        reach.require_all_locked(connection, locked)
        if connection.execute(select(App.id).where(App.workspace_id == workspace_id).limit(1)).first():
            raise Conflict("There are apps in this workspace; move or delete them first.")
        details = {"before": told(current, TOLD)}
        ids = {"client_id": caller.id, "workspace_id": workspace_id}
        events.record(connection, events.WORKSPACE_DELETED, now, details=details, **ids)
        connection.execute(delete(Workspace).where(Workspace.id == workspace_id))


def put(
    connection: Connection, slug: str, *, name: str, allowed_origins: Sequence[str], now: datetime
) -> None:
    """Create the workspace, or make it be just this."""
    facts = {"name": name, "allowed_origins": each_once(allowed_origins)}
    # Made first: then there is a row to lock, whoever made it.
    if _add(connection, OPERATOR, {"slug": slug} | facts, now) is None:
        current = connection.execute(_by_slug(slug).with_for_update(key_share=True)).one()
        _change(connection, OPERATOR, current, facts, now)


def by_slug(connection: Connection, slug: str) -> AnyRow:
    """Return the workspace, or raise Conflict: for what the operator names."""
    row = connection.execute(_by_slug(slug)).first()
    if row is None:
        raise Conflict(f"There is no workspace {slug!r}.")
    return row


def _add(connection: Connection, caller: Caller, facts: dict[str, Any], now: datetime) -> str | None:
    """Add a workspace and return its id, or None where the slug is taken."""
    workspace_id = new_id()
    if not add(connection, Workspace, facts | {"id": workspace_id, "created_at": now}):
        return None
    ids = {"client_id": caller.id, "workspace_id": workspace_id}
    events.record(connection, events.WORKSPACE_CREATED, now, details={"after": facts}, **ids)
    return workspace_id


def _change(
    connection: Connection, caller: Caller, current: AnyRow, facts: dict[str, Any], now: datetime
) -> None:
    before, after = difference(current, facts)
    if after:
        connection.execute(update(Workspace).where(Workspace.id == current.id).values(after))
        details = {"before": before, "after": after}
        ids = {"client_id": caller.id, "workspace_id": current.id}
        events.record(connection, events.WORKSPACE_CHANGED, now, details=details, **ids)


def _by_slug(slug: str) -> Any:
    return select(Workspace.__table__).where(Workspace.slug == slug)


_listed = select(Workspace.__table__, Workspace.id.label("key")).where(reaches_workspace(Workspace.id))

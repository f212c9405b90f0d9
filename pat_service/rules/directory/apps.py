"""Apps: what is embedded. Another workspace moves an app, which ends what was made for it there."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, delete, select, update

from pat_service.errors import Conflict
from pat_service.rules import events
from pat_service.rules.callers import OPERATOR, Caller, reaches_workspace
from pat_service.rules.directory import reach, workspaces
from pat_service.rules.directory.changes import altered, changing, difference, each_once, told
from pat_service.shapes import is_dns_label
from pat_service.storage.database import AnyRow, add, reading
from pat_service.storage.models import App, Grant, Token, new_id
from pat_service.storage.paging import Listing, PageRequest, page

#: The workspace is told as what the event is of.
TOLD: Final = ("slug", "name", "template", "allowed_origins")


def list_apps(
    caller: Caller, page_request: PageRequest, *, slug: str | None = None, workspace_id: str | None = None
) -> Listing:
    """Return a page of the apps in the caller's workspaces: those that the filters leave."""
    statement = _listed
    if slug is not None:
        statement = statement.where(App.slug == slug)
    if workspace_id is not None:
        statement = statement.where(App.workspace_id == workspace_id)
    with reading() as connection:
        return page(connection, statement, App.id, page_request, caller.reach())


def read(caller: Caller, app_id: str) -> AnyRow:
    """Return the app, or raise AppNotFound."""
    with reading() as connection:
        return reach.app(connection, caller, app_id)


def unfit_slugs() -> list[str]:
    """Return the slugs that cannot name a host, in order."""
    with reading() as connection:
        return sorted(
            slug for slug in connection.execute(select(App.slug)).scalars() if not is_dns_label(slug)
        )


def create(
    caller: Caller,
    *,
    slug: str,
    workspace_id: str,
    now: datetime,
    name: str | None = None,
    template: str | None = None,
    allowed_origins: Sequence[str] = (),
    app_id: str | None = None,
) -> AnyRow:
    """Make an app; without a name or a template, the slug stands for it.

    Raise WorkspaceNotFound or Conflict.
    """
    with changing(caller, now) as connection:
        reach.workspace(connection, caller, workspace_id)
        facts = {
            "slug": slug,
            "name": name or slug,
            "workspace_id": workspace_id,
            "template": template or slug,
            "allowed_origins": each_once(allowed_origins),
        }
        made = _add(connection, caller, app_id or new_id(), facts, now)
        if made is None:
            raise Conflict("The slug or the id is taken; choose another.")
        return reach.app(connection, caller, made)


def change(caller: Caller, app_id: str, changes: dict[str, Any], now: datetime) -> AnyRow:
    """Change what `changes` names: slug, name, workspace_id, template, allowed_origins.

    Another workspace moves the app. Raise AppNotFound, WorkspaceNotFound or Conflict.
    """
    with changing(caller, now) as connection:
        current = reach.app(connection, caller, app_id, lock=True)
        if "workspace_id" in changes:
            reach.workspace(connection, caller, changes["workspace_id"])
        if "allowed_origins" in changes:
            changes = changes | {"allowed_origins": each_once(changes["allowed_origins"])}
        if _holder(connection, changes.get("slug", current.slug)) not in (None, app_id):
            raise Conflict("This slug is taken; choose another.")
        _change(connection, caller, current, changes, now)
        return reach.app(connection, caller, app_id)


def change_origins(
    caller: Caller, app_id: str, now: datetime, *, add: Collection[str] = (), remove: Collection[str] = ()
) -> AnyRow:
    """Add to the app's allowed origins and take from them, whatever others do; or raise AppNotFound."""
    with changing(caller, now) as connection:
        current = reach.app(connection, caller, app_id, lock=True)
        _change(connection, caller, current, altered(current, add, remove), now)
        return reach.app(connection, caller, app_id)


@reach.retry_on_new_tokens
def remove(caller: Caller, app_id: str, now: datetime) -> None:
    """Delete the app with its grants, tokens and sessions; or raise AppNotFound."""
    with changing(caller, now) as connection:
        locked = reach.lock_tokens(connection, Token.app_id == app_id)
        current = reach.app(connection, caller, app_id, lock=True)
        reach.require_all_locked(connection, locked)
        ids = {"client_id": caller.id, "app_id": app_id, "workspace_id": current.workspace_id}
        details = {"before": told(current, TOLD)}
        events.record(connection, events.APP_DELETED, now, details=details, **ids)
        connection.execute(delete(App).where(App.id == app_id))


def put(
    connection: Connection,
    slug: str,
    *,
    id_: str | None,
    name: str,
    workspace: str,
    template: str,
    allowed_origins: Sequence[str],
    now: datetime,
) -> str:
    """Create the app or make it be just this, and return its id.

    It is found by its id where one is given, else by its slug. Raise Conflict where both are given and
    are not of one app, or where there is no such workspace.
    """
    facts = {
        "slug": slug,
        "name": name,
        "workspace_id": workspaces.by_slug(connection, workspace).id,
        "template": template,
        "allowed_origins": each_once(allowed_origins),
    }
    app_id = id_ or _holder(connection, slug) or new_id()
    if (made := _add(connection, OPERATOR, app_id, facts, now)) is not None:
        return made
    current = connection.execute(select(App.__table__).where(App.id == app_id).with_for_update()).first()
    holder = _holder(connection, slug)
    if current is None or holder not in (None, app_id):
        raise Conflict(f"The slug {slug!r} belongs to the app {holder}, not to {id_}.")
    _change(connection, OPERATOR, current, facts, now)
    return app_id


def _add(
    connection: Connection, caller: Caller, app_id: str, facts: dict[str, Any], now: datetime
) -> str | None:
    """Add an app and return its id, or None where the id or the slug is taken."""
    if not add(connection, App, facts | {"id": app_id, "moves": 0, "created_at": now}):
        return None
    ids = {"client_id": caller.id, "app_id": app_id, "workspace_id": facts["workspace_id"]}
    events.record(connection, events.APP_CREATED, now, details={"after": told(facts, TOLD)}, **ids)
    return app_id


def _change(
    connection: Connection, caller: Caller, current: AnyRow, facts: Mapping[str, Any], now: datetime
) -> None:
    """Change a locked app; where the workspace is another, move it."""
    before, after = difference(current, facts)
    if "workspace_id" in after:
        _move(connection, caller, current, after, now)
    elif after:
        connection.execute(update(App).where(App.id == current.id).values(after))
        ids = {"client_id": caller.id, "app_id": current.id, "workspace_id": current.workspace_id}
        details = {"before": before, "after": after}
        events.record(connection, events.APP_CHANGED, now, details=details, **ids)


def _move(
    connection: Connection, caller: Caller, current: AnyRow, after: dict[str, Any], now: datetime
) -> None:
    """Take the app to another workspace: its tokens and sessions end for good, its grants are dropped.

    The lock on it makes racing moves, and whoever adds a grant, wait for one another.
    """
    ids = {"client_id": caller.id, "app_id": current.id}
    old, new = ids | {"workspace_id": current.workspace_id}, ids | {"workspace_id": after["workspace_id"]}
    dropped = connection.execute(delete(Grant).where(Grant.app_id == current.id).returning(Grant.user_id))
    for user_id in sorted(dropped.scalars()):
        events.record(connection, events.GRANT_REMOVED, now, user_id=user_id, **old)
    moved = {"moves": App.moves + 1, "moved_from": current.workspace_id}
    connection.execute(update(App).where(App.id == current.id).values(after | moved))
    # Two events, since neither tenant may learn where the app is or was besides.
    left = {"before": told(current, TOLD)}
    came = {"after": told(dict(current._mapping) | after, TOLD)}
    events.record(connection, events.APP_MOVED, now, details=left, **old)
    events.record(connection, events.APP_MOVED, now, details=came, **new)


def _holder(connection: Connection, slug: str) -> str | None:
    """Return the id of the app with this slug, if there is one."""
    found: str | None = connection.execute(select(App.id).where(App.slug == slug)).scalar()
    return found


_listed = select(App.__table__, App.id.label("key")).where(reaches_workspace(App.workspace_id))

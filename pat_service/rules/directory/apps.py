"""Apps are what the service embeds. Tokens and sessions end if an app moves to another workspace, or changes
between a template and an upstream.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, bindparam, delete, select, update

from pat_service.addresses import Site
from pat_service.errors import AppNotFound, Conflict, InvalidPayload
from pat_service.rules import events
from pat_service.rules.callers import OPERATOR, Caller, reaches_workspace
from pat_service.rules.directory import deletion, reach, slugs, upstreams, workspaces
from pat_service.rules.directory.changes import Change, Noun, changing, difference, edit_origins
from pat_service.rules.directory.reach import AppRow, reading_as
from pat_service.shapes import is_dns_label
from pat_service.storage.database import reading
from pat_service.storage.models import App, Grant, Token, new_id
from pat_service.storage.paging import Listing, PageRequest, match, page

APP: Final = Noun(
    App,
    "app_id",
    events.APP_CREATED,
    events.APP_CHANGED,
    events.APP_DELETED,
    # The workspace is not listed here, since the event has it as an id.
    audited=("slug", "name", "template", "allowed_origins", *upstreams.FIELDS),
)


def list_apps(
    caller: Caller, page_request: PageRequest, *, slug: str | None = None, workspace_id: str | None = None
) -> Listing:
    """Return a page of the matching apps in the caller's workspaces."""
    statement = _reached.where(*match(App, slug=slug, workspace_id=workspace_id))
    with reading() as connection:
        return page(connection, statement, App.id, page_request, caller.reach())


def read(caller: Caller, app_id: str) -> AppRow:
    """Return the app, or raise AppNotFound."""
    with reading_as(caller) as reached:
        return reached.find_app(app_id)


def list_templates() -> dict[str, str]:
    """Return the template of each app by its slug, sorted by slug. Upstream apps have none."""
    with reading() as connection:
        rows = connection.execute(_templates)
        return {row.slug: row.template for row in rows}


def list_upstreams() -> list[str]:
    """Return the slugs of the upstream apps, sorted."""
    with reading() as connection:
        return list(connection.execute(_upstream_slugs).scalars())


def find_upstream(slug: str) -> str:
    """Return the address of the upstream app with this slug, or raise AppNotFound."""
    with reading() as connection:
        upstream: str | None = connection.execute(_upstream_of, {"slug": slug}).scalar()
    if upstream is None:
        raise AppNotFound
    return upstream


def create(
    caller: Caller,
    *,
    slug: str,
    workspace_id: str,
    now: datetime,
    site: Site,
    name: str | None = None,
    allowed_origins: Sequence[str] = (),
    app_id: str | None = None,
    **kind: Any,
) -> AppRow:
    """Create an app. Its name defaults to the slug. `kind` has its template, or its upstream with start and
    permissions; the template defaults to the slug.

    Raise ScopeMissing, WorkspaceNotFound or Conflict, or InvalidPayload for a slug that no app may take and
    for fields that do not go together.
    """
    with changing(caller, now) as change:
        upstreams.require_right(caller, kind)
        facts = upstreams.build_new(kind, slug)
        _require_allowed(caller, slug, site)
        change.find_workspace(workspace_id)
        _take_upstream(change, site, slug, workspace_id, facts["upstream"])
        facts |= {
            "slug": slug,
            "name": name or slug,
            "workspace_id": workspace_id,
            "allowed_origins": allowed_origins,
        }
        new_app = _add(change, facts, app_id)
        if new_app is None or not slugs.take(change, slug, workspace_id):
            raise Conflict("The slug or the id is taken; choose another.")
        return change.find_app(new_app)


def change(caller: Caller, app_id: str, changes: dict[str, Any], now: datetime, *, site: Site) -> AppRow:
    """Change the slug, name, workspace_id, allowed_origins, template, upstream, start or permissions.

    A new workspace_id moves the app. A template replaces an upstream, and the other way round.

    Raise ScopeMissing, AppNotFound, WorkspaceNotFound or Conflict, or InvalidPayload for a slug that no app
    may take and for fields that do not go together.
    """
    with changing(caller, now) as change:
        current = change.find_app(app_id, lock=True)
        upstreams.require_right(caller, changes, current)
        facts = changes | upstreams.build_changes(changes, current)
        if "workspace_id" in changes:
            change.find_workspace(changes["workspace_id"])
        slug = changes.get("slug", current.slug)
        if slug != current.slug:
            _require_allowed(caller, slug, site)
        upstream = facts.get("upstream", current.upstream)
        workspace_id = changes.get("workspace_id", current.workspace_id)
        _take_upstream(change, site, slug, workspace_id, upstream, current)
        if _find_id(change.connection, slug) not in (None, app_id) or not _change(change, current, facts):
            raise Conflict("This slug is taken; choose another.")
        return change.find_app(app_id)


def change_origins(
    caller: Caller, app_id: str, now: datetime, *, add: Collection[str] = (), remove: Collection[str] = ()
) -> AppRow:
    """Add and remove allowed origins of the app, or raise AppNotFound."""
    with changing(caller, now) as change:
        current = change.find_app(app_id, lock=True)
        _change(change, current, edit_origins(current.allowed_origins, add, remove))
        return change.find_app(app_id)


@reach.retry_on_new_tokens
def remove(caller: Caller, app_id: str, now: datetime) -> None:
    """Delete the app with its grants, tokens and sessions, or raise AppNotFound."""
    with changing(caller, now) as change:
        locked = reach.lock_tokens(change.connection, Token.app_id == app_id)
        current = change.find_app(app_id, lock=True)
        reach.require_all_locked(change.connection, locked)
        deletion.delete(change, APP, current, [current.workspace_id])
        slugs.release(change, current.slug, current.workspace_id)


def put(
    change: Change,
    slug: str,
    *,
    id_: str | None,
    name: str,
    workspace: str,
    allowed_origins: Sequence[str],
    site: Site,
    kind: Mapping[str, Any],
) -> str:
    """Create the app, or change it to have exactly these values, and return its id.

    The id finds the app; without an id, the slug does. `kind` is as for `create`. `claim_upstreams` has
    claimed its address. Raise Conflict if the id and the slug belong to different apps, if the app may not
    take the slug, or if the workspace is unknown, and InvalidPayload as `create` does.
    """
    workspace_id = workspaces.find_by_slug(change.connection, workspace)
    facts = upstreams.build_new(kind, slug) | {
        "slug": slug,
        "name": name,
        "workspace_id": workspace_id,
        "allowed_origins": allowed_origins,
    }
    if facts["upstream"] is not None:
        upstreams.check(site, slug, facts["upstream"])
    app_id = id_ or _find_id(change.connection, slug) or new_id()
    if _find_id(change.connection, slug) != app_id:
        refusal = slugs.explain_refusal(slug, app_hosts=site.app_hosts, by_operator=True)
        if refusal is not None:
            raise Conflict(f"The slug {slug!r}: {refusal}")
    if _add(change, facts, app_id) is not None:
        may_take = slugs.take(change, slug, workspace_id)
    else:
        statement = select(App.__table__).where(App.id == app_id).with_for_update()
        current: AppRow | None = change.connection.execute(statement).first()
        slug_owner = _find_id(change.connection, slug)
        if current is None or slug_owner not in (None, app_id):
            raise Conflict(f"The slug {slug!r} belongs to the app {slug_owner}, not to {id_}.")
        may_take = _change(change, current, facts)
    if not may_take:
        raise Conflict(
            f"An app of another workspace gave up the slug {slug!r} "
            f"in the last {slugs.RESERVED_FOR.days} days, so it is reserved for that workspace."
        )
    return app_id


def claim_upstreams(change: Change, listed: Iterable[tuple[str | None, str, str, str | None]]) -> None:
    """Let workspaces have the addresses that a file lists: id, slug, workspace and upstream of each app.

    An address that one listed app gives up may go to another. Raise Conflict.
    """
    entries = list(listed)
    ids = [id_ or _find_id(change.connection, slug) for id_, slug, _, _ in entries]
    claims = [
        (upstream, workspaces.find_by_slug(change.connection, workspace))
        for _, _, workspace, upstream in entries
        if upstream is not None
    ]
    if claims:
        upstreams.claim_all(change.connection, claims, [id_ for id_ in ids if id_ is not None])


def _add(change: Change, facts: dict[str, Any], app_id: str | None) -> str | None:
    return change.add(APP, facts | {"moves": 0}, [facts["workspace_id"]], app_id)


def _require_allowed(caller: Caller, slug: str, site: Site) -> None:
    refusal = slugs.explain_refusal(slug, app_hosts=site.app_hosts, by_operator=caller == OPERATOR)
    if site.app_hosts and not is_dns_label(slug):
        refusal = "Must be at most 63 of a-z, 0-9 and inner dashes, since it is part of the app's host."
    if refusal is not None:
        raise InvalidPayload({"slug": [refusal]})


def _take_upstream(
    change: Change,
    site: Site,
    slug: str,
    workspace_id: str,
    upstream: str | None,
    current: AppRow | None = None,
) -> None:
    """Check what an app with an upstream needs, and claim the address for its workspace."""
    if upstream is None:
        return
    if current is None or upstream != current.upstream:
        upstreams.require_hosts(site)
    if current is None or (slug, upstream) != (current.slug, current.upstream):
        upstreams.check(site, slug, upstream)
    if current is None or (upstream, workspace_id) != (current.upstream, current.workspace_id):
        leaving = () if current is None else (current.id,)
        upstreams.claim(change.connection, upstream, workspace_id, leaving)


def _change(change: Change, current: AppRow, facts: Mapping[str, Any]) -> bool:
    """Change or move the app. Return False if its new slug is reserved for another workspace."""
    workspace_id, slug = facts.get("workspace_id", current.workspace_id), facts.get("slug", current.slug)
    if workspace_id == current.workspace_id:
        change.update(APP, current, facts, [current.workspace_id])
        if (facts.get("upstream", current.upstream) is None) != (current.upstream is None):
            _end_access(change, current)
    else:
        _move(change, current, facts)
    if slug == current.slug:
        return True
    slugs.release(change, current.slug, current.workspace_id)
    return slugs.take(change, slug, workspace_id)


def _end_access(change: Change, current: AppRow) -> None:
    """Permanently end the app's tokens and sessions, as a move does: other scripts have held them."""
    change.connection.execute(update(App).where(App.id == current.id).values(moves=App.moves + 1))


def _move(change: Change, current: AppRow, facts: Mapping[str, Any]) -> None:
    """Move the app to another workspace. Permanently end its tokens and sessions, and remove its grants.

    The lock on the app makes concurrent moves and new grants wait.
    """
    _, after = difference(current, facts)
    old: dict[str, Any] = {"app_id": current.id, "workspace_id": current.workspace_id}
    new = old | {"workspace_id": after["workspace_id"]}
    removed = change.connection.execute(
        delete(Grant).where(Grant.app_id == current.id).returning(Grant.user_id)
    )
    for user_id in sorted(removed.scalars()):
        change.record(events.GRANT_REMOVED, user_id=user_id, **old)
    moved = {"moves": App.moves + 1, "moved_from": current.workspace_id}
    change.connection.execute(update(App).where(App.id == current.id).values(after | moved))
    # Record two events, since neither tenant may learn the app's other workspace.
    change.record(events.APP_MOVED, {"before": APP.audit(current, {})}, **old)
    change.record(events.APP_MOVED, {"after": APP.audit(current, after)}, **new)


def _find_id(connection: Connection, slug: str) -> str | None:
    app_id: str | None = connection.execute(select(App.id).where(App.slug == slug)).scalar()
    return app_id


_templates = select(App.slug, App.template).where(App.upstream.is_(None)).order_by(App.slug)
_upstream_of = select(App.upstream).where(App.slug == bindparam("slug"))
_upstream_slugs = select(App.slug).where(App.upstream.is_not(None)).order_by(App.slug)
_reached = select(App.__table__, App.id.label("key")).where(reaches_workspace(App.workspace_id))

"""Apps that run elsewhere: their fields, and the workspace of each address.

The proxy connects to the address of an upstream app. So only callers of all workspaces may name or change it,
and one address belongs to one workspace.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from marshmallow import ValidationError
from sqlalchemy import Connection, select, update

from pat_service.addresses import Site
from pat_service.errors import Conflict, InvalidPayload, ScopeMissing
from pat_service.rules.callers import Caller
from pat_service.rules.directory.reach import AppRow
from pat_service.shapes import GRANTABLE, MAX_UPSTREAM_SLUG, UPSTREAM_TEMPLATE, is_upstream_label
from pat_service.storage.database import add
from pat_service.storage.models import App, Upstream

FIELDS: Final = ("upstream", "start", "permissions")
FIRST_PATH: Final = "/"
NEEDS_HOSTS: Final = "needs {app} in PUBLIC_URL, such as https://{app}.embed.example"


def require_right(caller: Caller, given: Mapping[str, Any], current: AppRow | None = None) -> None:
    """Raise ScopeMissing if a limited caller names these fields, or replaces or moves an upstream app."""
    named = any(name in given for name in FIELDS)
    if current is not None and current.upstream is not None:
        moves = given.get("workspace_id", current.workspace_id) != current.workspace_id
        named = named or moves or given.get("template", UPSTREAM_TEMPLATE) != UPSTREAM_TEMPLATE
    if named and not caller.all_workspaces:
        raise ScopeMissing(
            "This client is limited to workspaces. Only a client of all workspaces can set the upstream, "
            "start and permissions of an app, and move or replace an app that has them."
        )


def build_new(given: Mapping[str, Any], slug: str) -> dict[str, Any]:
    """Return the template, upstream, start and permissions of an app with the given ones.

    Raise InvalidPayload if they do not go together.
    """
    upstream = given.get("upstream")
    if upstream is None:
        for name in FIELDS:
            if given.get(name) is not None:
                raise InvalidPayload({name: ["Needs an upstream: an app with a template has none."]})
        template = given.get("template") or slug
        if template == UPSTREAM_TEMPLATE:
            text = f"Must not be {UPSTREAM_TEMPLATE}, which is reserved for apps with an upstream."
            raise InvalidPayload({"template": [text]})
        return {"template": template, **dict.fromkeys(FIELDS)}
    if given.get("template") not in (None, UPSTREAM_TEMPLATE):
        raise InvalidPayload({"template": ["Must be absent if the app has an upstream."]})
    permissions = given.get("permissions") or ()
    return {
        "template": UPSTREAM_TEMPLATE,
        "upstream": upstream,
        "start": given.get("start") or FIRST_PATH,
        "permissions": [name for name in GRANTABLE if name in permissions],
    }


def build_changes(given: Mapping[str, Any], current: AppRow) -> dict[str, Any]:
    """Return the facts that the given fields change in an app.

    Raise Conflict for fields that the app's kind lacks, and InvalidPayload as `build_new` does.
    """
    named = {name: given[name] for name in ("template", *FIELDS) if name in given}
    if not named:
        return {}
    if current.upstream is None and not named.keys() & {"template", "upstream"}:
        raise Conflict("This app has a template. Only an app with an upstream has start and permissions.")
    kept = {}
    if current.upstream is not None and named.get("template", UPSTREAM_TEMPLATE) == UPSTREAM_TEMPLATE:
        kept = {name: getattr(current, name) for name in FIELDS}
    return build_new(kept | named, current.slug)


def check(site: Site, slug: str, upstream: str) -> None:
    """Raise InvalidPayload if no upstream app may have this slug or this address."""
    if not is_upstream_label(slug):
        text = (
            f"Must be at most {MAX_UPSTREAM_SLUG} of a-z, 0-9 and single inner dashes, and not xn, "
            "since it is part of each viewer's host."
        )
        raise InvalidPayload({"slug": [text]})
    try:
        site.check_upstream(upstream)
    except ValidationError as error:
        raise InvalidPayload({"upstream": [str(text) for text in error.messages]}) from None


def require_hosts(site: Site) -> None:
    """Raise Conflict unless each app has its own host."""
    if not site.app_hosts:
        raise Conflict(f"An upstream {NEEDS_HOSTS}. The operator sets it.")


def claim(connection: Connection, upstream: str, workspace_id: str, leaving: Collection[str] = ()) -> None:
    """Let the workspace have the address. `leaving` are ids of apps that this transaction moves or changes.

    Lock these apps first. Raise Conflict while an app of another workspace has the address.
    """
    add(connection, Upstream, {"address": upstream, "workspace_id": workspace_id})
    # The lock makes concurrent claims wait, also one that keeps the owner.
    owner = connection.execute(
        select(Upstream.workspace_id).where(Upstream.address == upstream).with_for_update()
    ).scalar()
    if owner == workspace_id:
        return
    others = select(App.id).where(App.upstream == upstream, App.id.not_in(leaving)).limit(1)
    if owner is None or connection.execute(others).first():
        raise Conflict(
            f"An app of another workspace has the upstream {upstream}. An address belongs to one workspace."
        )
    connection.execute(update(Upstream).where(Upstream.address == upstream).values(workspace_id=workspace_id))


def claim_all(connection: Connection, claims: Iterable[tuple[str, str]], leaving: Collection[str]) -> None:
    """Claim addresses, each with its workspace's id, for a file that changes the `leaving` apps."""
    connection.execute(select(App.id).where(App.id.in_(leaving)).order_by(App.id).with_for_update())
    for upstream, workspace_id in sorted(set(claims)):
        claim(connection, upstream, workspace_id, leaving)

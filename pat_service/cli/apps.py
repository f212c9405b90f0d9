"""Commands for apps in the directory."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import click
from flask import current_app
from flask.cli import AppGroup

from pat_service.addresses import check_start, parse_upstream
from pat_service.api.directory_schemas import AppAnswerSchema
from pat_service.cli.common import (
    TIME_FORMAT,
    checked,
    clip,
    confirm,
    find,
    find_id,
    first_page,
    parsed,
    plain_errors,
    require_some,
    show,
    with_yes,
)
from pat_service.cli.lists import View, iterate_pages, read_workspace_slugs, with_json
from pat_service.cli.origins import add_origin_commands, parse_origins
from pat_service.embed import Registry
from pat_service.http.public_url import has_app_origins, site
from pat_service.rules.callers import OPERATOR
from pat_service.rules.directory import apps, upstreams
from pat_service.shapes import GRANTABLE, UPSTREAM_TEMPLATE, check_name, check_slug, is_dns_label

app_commands = AppGroup("app", help="Manage apps in the directory.")
add_origin_commands(app_commands, "app", apps, "app")

_SLUG = click.argument("slug", metavar="SLUG")


def _build_view(slugs: Mapping[str, str]) -> View:
    """Return the view of apps. `slugs` are those of the workspaces by id."""
    return View(
        {
            "SLUG": lambda row: row.slug,
            "NAME": lambda row: row.name,
            "WORKSPACE": lambda row: slugs.get(row.workspace_id),
            "TEMPLATE": lambda row: row.template,
            "ORIGINS": lambda row: row.allowed_origins,
            "UPSTREAM": lambda row: row.upstream,
        },
        AppAnswerSchema().dump,
        {
            "START": lambda row: row.start,
            "PERMISSIONS": lambda row: row.permissions,
            "ID": lambda row: row.id,
            "CREATED": lambda row: f"{row.created_at:{TIME_FORMAT}}",
        },
    )


def list_obstacles(slug: str, template: str) -> list[str]:
    """Return why the app cannot open: a missing file or setting, or a slug that cannot be part of a host."""
    registry: Registry = current_app.extensions["pat_service.registry"]
    obstacles = []
    if template == UPSTREAM_TEMPLATE:
        if not has_app_origins():
            obstacles.append(f"{slug} cannot open yet: its upstream {upstreams.NEEDS_HOSTS}")
    elif not registry.has_first_page(template):
        obstacles.append(f"{slug} cannot open yet: add {first_page(template)}")
    if has_app_origins() and not is_dns_label(slug):
        obstacles.append(f"{slug} cannot open: its slug cannot be the first part of its host")
    return obstacles


def _parse_permissions(
    _context: click.Context, _parameter: click.Parameter, text: str | None
) -> list[str] | None:
    """Return the features, which commas separate."""
    if text is None:
        return None
    features = [name.strip() for name in text.split(",") if name.strip()]
    if wrong := [name for name in features if name not in GRANTABLE]:
        raise click.ClickException(clip(f"{wrong[0]}: Must be one of {', '.join(GRANTABLE)}."))
    return features


_UPSTREAM = click.option(
    "--upstream",
    metavar="URL",
    callback=parsed(parse_upstream),
    help="The address of an app that runs elsewhere.",
)
_START = click.option(
    "--start",
    metavar="PATH",
    callback=checked(check_start),
    help="The first page of an app with an upstream. Default: /",
)
_PERMISSIONS = click.option(
    "--permissions",
    metavar="LIST",
    callback=_parse_permissions,
    help=f"What the frame of an app with an upstream may use: {', '.join(GRANTABLE)}. "
    'Separate them by commas; "" is none.',
)


@app_commands.command("list")
@click.option("--workspace", metavar="SLUG", help="Only apps of this workspace.")
@with_json
@plain_errors()
def list_apps(workspace: str | None, as_json: bool) -> None:
    """List the apps."""
    workspace_id = find_id("workspace", workspace)
    pages = iterate_pages(
        lambda page_request: apps.list_apps(OPERATOR, page_request, workspace_id=workspace_id)
    )
    _build_view(read_workspace_slugs()).show_list(pages, as_json=as_json)


@app_commands.command("show")
@_SLUG
@with_json
@plain_errors()
def show_app(slug: str, as_json: bool) -> None:
    """Show an app."""
    _build_view(read_workspace_slugs()).show_one(find("app", slug), as_json=as_json)


@app_commands.command("create")
@click.argument("slug", metavar="SLUG", callback=checked(check_slug))
@click.option("--workspace", required=True, metavar="SLUG", help="The workspace of the app.")
@click.option("--name", metavar="NAME", callback=checked(check_name), help="Default: the slug.")
@click.option(
    "--template",
    metavar="NAME",
    callback=checked(check_slug),
    help="The folder below apps/. Default: the slug.",
)
@_UPSTREAM
@_START
@_PERMISSIONS
@click.option(
    "--origin",
    "origins",
    multiple=True,
    metavar="ORIGIN",
    help="Let pages of this origin frame the app. Repeat the option for more.",
)
@with_json
@plain_errors()
def create_app(
    slug: str,
    workspace: str,
    name: str | None,
    template: str | None,
    upstream: str | None,
    start: str | None,
    permissions: list[str] | None,
    origins: tuple[str, ...],
    as_json: bool,
) -> None:
    """Create an app in the directory. It writes no files."""
    kind: dict[str, Any] = {
        "template": template,
        "upstream": upstream,
        "start": start,
        "permissions": permissions,
    }
    row = apps.create(
        OPERATOR,
        slug=slug,
        workspace_id=find("workspace", workspace).id,
        name=name,
        allowed_origins=parse_origins(origins),
        now=datetime.now(UTC),
        site=site(),
        **{name: value for name, value in kind.items() if value is not None},
    )
    for note in list_obstacles(row.slug, row.template):
        show(f"Note: {note}.", err=True)
    _build_view({}).show_changed(f"App {slug} is created. Its id is {row.id}.", row, as_json=as_json)


@app_commands.command("change")
@_SLUG
@click.option("--slug", "new_slug", metavar="SLUG", callback=checked(check_slug), help="The new slug.")
@click.option("--name", metavar="NAME", callback=checked(check_name), help="The new name.")
@click.option("--template", metavar="NAME", callback=checked(check_slug), help="The folder below apps/.")
@_UPSTREAM
@_START
@_PERMISSIONS
@click.option(
    "--workspace",
    metavar="SLUG",
    help="Move the app to this workspace. This ends its tokens and sessions, and removes its grants.",
)
@with_yes
@with_json
@plain_errors()
def change_app(
    slug: str,
    new_slug: str | None,
    name: str | None,
    template: str | None,
    upstream: str | None,
    start: str | None,
    permissions: list[str] | None,
    workspace: str | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Change the slug, name, template, upstream or workspace of an app."""
    changes = require_some(
        slug=new_slug,
        name=name,
        template=template,
        upstream=upstream,
        start=start,
        permissions=permissions,
        workspace=workspace,
    )
    row = find("app", slug)
    if "template" in changes if row.upstream else "upstream" in changes:
        confirm(f"Replace what app {slug} shows, and end its tokens and sessions?", yes=yes)
    if changes.pop("workspace", None) is not None:
        changes["workspace_id"] = find("workspace", str(workspace)).id
        if changes["workspace_id"] != row.workspace_id:
            confirm(f"Move app {slug}, end its tokens and sessions, and remove its grants?", yes=yes)
    changed = apps.change(OPERATOR, row.id, changes, datetime.now(UTC), site=site())
    _build_view({}).show_changed(f"App {changed.slug} is changed.", changed, as_json=as_json)


@app_commands.command("delete")
@_SLUG
@with_yes
@plain_errors()
def delete_app(slug: str, yes: bool) -> None:
    """Delete an app, and its grants, tokens and sessions."""
    row = find("app", slug)
    confirm(f"Delete app {slug} ({row.name}) with its grants, tokens and sessions?", yes=yes)
    apps.remove(OPERATOR, row.id, datetime.now(UTC))
    show(f"App {slug} is deleted.")

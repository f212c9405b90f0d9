"""Commands for workspaces."""

from datetime import UTC, datetime

import click
from flask.cli import AppGroup

from pat_service.addresses import parse_apps_url
from pat_service.api.directory_schemas import WorkspaceAnswerSchema
from pat_service.cli.common import (
    TIME_FORMAT,
    checked,
    confirm,
    find,
    parsed,
    plain_errors,
    require_some,
    show,
    with_yes,
)
from pat_service.cli.lists import View, iterate_pages, with_json
from pat_service.cli.origins import add_origin_commands, parse_origins
from pat_service.http.authentication import keyring
from pat_service.http.public_url import site
from pat_service.rules import clients
from pat_service.rules.callers import OPERATOR
from pat_service.rules.directory import workspaces
from pat_service.shapes import check_name, check_slug

workspace_commands = AppGroup("workspace", help="Manage workspaces.")
add_origin_commands(
    workspace_commands, "workspace", workspaces, "launcher, whose apps have their own origins"
)

_SLUG = click.argument("slug", metavar="SLUG")
_VIEW = View(
    {
        "SLUG": lambda row: row.slug,
        "NAME": lambda row: row.name,
        "ORIGINS": lambda row: row.allowed_origins,
    },
    WorkspaceAnswerSchema().dump,
    {
        "APPS_URL": lambda row: row.apps_url,
        "ID": lambda row: row.id,
        "CREATED": lambda row: f"{row.created_at:{TIME_FORMAT}}",
    },
)
_APPS_URL = click.option(
    "--apps-url",
    metavar="URL",
    callback=parsed(lambda text: text and parse_apps_url(text)),
    help="The workspace's own address for its apps with an upstream: https://{app}.apps.portal.example. "
    '"" removes it.',
)


@workspace_commands.command("list")
@with_json
@plain_errors()
def list_workspaces(as_json: bool) -> None:
    """List the workspaces."""
    pages = iterate_pages(lambda page_request: workspaces.list_workspaces(OPERATOR, page_request))
    _VIEW.show_list(pages, as_json=as_json)


@workspace_commands.command("show")
@_SLUG
@with_json
@plain_errors()
def show_workspace(slug: str, as_json: bool) -> None:
    """Show a workspace."""
    _VIEW.show_one(find("workspace", slug), as_json=as_json)


@workspace_commands.command("create")
@click.argument("slug", metavar="SLUG", callback=checked(check_slug))
@click.option("--name", metavar="NAME", callback=checked(check_name), help="Default: the slug.")
@click.option(
    "--origin",
    "origins",
    multiple=True,
    metavar="ORIGIN",
    help="Let pages of this origin frame the launcher. Repeat the option for more.",
)
@_APPS_URL
@with_json
@plain_errors()
def create_workspace(
    slug: str, name: str | None, origins: tuple[str, ...], apps_url: str | None, as_json: bool
) -> None:
    """Create a workspace."""
    row = workspaces.create(
        OPERATOR,
        slug=slug,
        name=name,
        allowed_origins=parse_origins(origins),
        apps_url=apps_url,
        now=datetime.now(UTC),
        site=site(),
    )
    _VIEW.show_changed(f"Workspace {slug} is created. Its id is {row.id}.", row, as_json=as_json)


@workspace_commands.command("change")
@_SLUG
@click.option("--slug", "new_slug", metavar="SLUG", callback=checked(check_slug), help="The new slug.")
@click.option("--name", metavar="NAME", callback=checked(check_name), help="The new name.")
@_APPS_URL
@with_json
@plain_errors()
def change_workspace(
    slug: str, new_slug: str | None, name: str | None, apps_url: str | None, as_json: bool
) -> None:
    """Change the slug, the name or the own address of a workspace."""
    changes = require_some(slug=new_slug, name=name, apps_url=apps_url)
    row = workspaces.change(OPERATOR, find("workspace", slug).id, changes, datetime.now(UTC), site=site())
    _VIEW.show_changed(f"Workspace {row.slug} is changed.", row, as_json=as_json)


@workspace_commands.command("delete")
@_SLUG
@with_yes
@plain_errors()
def delete_workspace(slug: str, yes: bool) -> None:
    """Delete a workspace without apps.

    This deletes its memberships, tokens and sessions too. Clients that are limited to it stay, and are noted.
    """
    row = find("workspace", slug)
    confirm(f"Delete workspace {slug} ({row.name}) with its memberships, tokens and sessions?", yes=yes)
    now = datetime.now(UTC)
    limited = [
        client.id
        for client in clients.list_clients(keyring(), now)
        if client.workspaces == (slug,) and client.revoked_at is None
    ]
    workspaces.remove(OPERATOR, row.id, now)
    show(f"Workspace {slug} is deleted.")
    for client_id in limited:
        show(
            f"Note: client {client_id} reaches no workspace now. client revoke {client_id} ends it.", err=True
        )

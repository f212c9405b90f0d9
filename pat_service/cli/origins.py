"""Allowed origins: which pages may frame an app, or the launcher of a workspace."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import click
from flask.cli import AppGroup
from marshmallow import ValidationError

from pat_service.cli.common import app_id, plain_errors, visible, workspace_id
from pat_service.rules.callers import OPERATOR
from pat_service.rules.directory import apps, workspaces
from pat_service.shapes import parse_origin
from pat_service.storage.database import AnyRow

app_commands = AppGroup("app", help="Apps: which pages may frame them.")
workspace_commands = AppGroup("workspace", help="Workspaces: which pages may frame their launchers.")

_SLUG = click.argument("slug", metavar="SLUG")
_ORIGINS = click.argument("origins", metavar="ORIGIN…", nargs=-1, required=True)


@app_commands.command("allow")
@_SLUG
@_ORIGINS
def allow_app(slug: str, origins: tuple[str, ...]) -> None:
    """Let pages of each ORIGIN frame the app. Prints all that may, one a line."""
    with plain_errors():
        _told(apps.change_origins(OPERATOR, app_id(slug), datetime.now(UTC), add=_parsed(origins)))


@app_commands.command("disallow")
@_SLUG
@_ORIGINS
def disallow_app(slug: str, origins: tuple[str, ...]) -> None:
    """No longer let pages of each ORIGIN frame the app. Prints all that may, one a line."""
    with plain_errors():
        id_ = app_id(slug)
        left = _parsed(origins, stored=apps.read(OPERATOR, id_).allowed_origins)
        _told(apps.change_origins(OPERATOR, id_, datetime.now(UTC), remove=left))


@workspace_commands.command("allow")
@_SLUG
@_ORIGINS
def allow_workspace(slug: str, origins: tuple[str, ...]) -> None:
    """Let pages of each ORIGIN frame the launcher; its apps have lists of their own. Prints all that may."""
    with plain_errors():
        _told(
            workspaces.change_origins(OPERATOR, workspace_id(slug), datetime.now(UTC), add=_parsed(origins))
        )


@workspace_commands.command("disallow")
@_SLUG
@_ORIGINS
def disallow_workspace(slug: str, origins: tuple[str, ...]) -> None:
    """No longer let pages of each ORIGIN frame the launcher. Prints all that may, one a line."""
    with plain_errors():
        id_ = workspace_id(slug)
        left = _parsed(origins, stored=workspaces.read(OPERATOR, id_).allowed_origins)
        _told(workspaces.change_origins(OPERATOR, id_, datetime.now(UTC), remove=left))


def _parsed(origins: Iterable[str], stored: Sequence[str] = ()) -> list[str]:
    """Return the origins as browsers write them; what is stored may be of a shape that is refused now."""
    return [text if text in stored else _origin(text) for text in origins]


def _origin(text: str) -> str:
    try:
        return parse_origin(text)
    except ValidationError as error:
        raise click.ClickException(f"{visible(text)}: {error.messages[0]}") from None


def _told(row: AnyRow) -> None:
    for origin in row.allowed_origins:
        click.echo(visible(origin))

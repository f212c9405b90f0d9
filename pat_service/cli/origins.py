"""Commands for allowed origins: the pages that may frame an app, or the launcher of a workspace."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import click
from flask.cli import AppGroup
from marshmallow import ValidationError

from pat_service.cli.common import app_id, escape, plain_errors, workspace_id
from pat_service.rules.callers import OPERATOR
from pat_service.rules.directory import apps, workspaces
from pat_service.rules.directory.reach import TargetRow
from pat_service.shapes import parse_origin

app_commands = AppGroup("app", help="Allowed origins of apps.")
workspace_commands = AppGroup("workspace", help="Allowed origins of launchers.")

_SLUG = click.argument("slug", metavar="SLUG")
_ORIGINS = click.argument("origins", metavar="ORIGIN…", nargs=-1, required=True)


@app_commands.command("allow")
@_SLUG
@_ORIGINS
def allow_app(slug: str, origins: tuple[str, ...]) -> None:
    """Let pages of each ORIGIN frame the app. Print all allowed origins, one per line."""
    with plain_errors():
        _print_origins(apps.change_origins(OPERATOR, app_id(slug), datetime.now(UTC), add=_parsed(origins)))


@app_commands.command("disallow")
@_SLUG
@_ORIGINS
def disallow_app(slug: str, origins: tuple[str, ...]) -> None:
    """Stop pages of each ORIGIN from framing the app. Print all allowed origins, one per line."""
    with plain_errors():
        id_ = app_id(slug)
        left = _parsed(origins, stored=apps.read(OPERATOR, id_).allowed_origins)
        _print_origins(apps.change_origins(OPERATOR, id_, datetime.now(UTC), remove=left))


@workspace_commands.command("allow")
@_SLUG
@_ORIGINS
def allow_workspace(slug: str, origins: tuple[str, ...]) -> None:
    """Let pages of each ORIGIN frame the launcher. Print all allowed origins, one per line.

    Each app in the launcher has its own allowed origins.
    """
    with plain_errors():
        _print_origins(
            workspaces.change_origins(OPERATOR, workspace_id(slug), datetime.now(UTC), add=_parsed(origins))
        )


@workspace_commands.command("disallow")
@_SLUG
@_ORIGINS
def disallow_workspace(slug: str, origins: tuple[str, ...]) -> None:
    """Stop pages of each ORIGIN from framing the launcher. Print all allowed origins, one per line."""
    with plain_errors():
        id_ = workspace_id(slug)
        left = _parsed(origins, stored=workspaces.read(OPERATOR, id_).allowed_origins)
        _print_origins(workspaces.change_origins(OPERATOR, id_, datetime.now(UTC), remove=left))


def _parsed(origins: Iterable[str], stored: Sequence[str] = ()) -> list[str]:
    """Return the origins as browsers write them. A stored origin passes even if it is no longer valid."""
    return [text if text in stored else _origin(text) for text in origins]


def _origin(text: str) -> str:
    try:
        return parse_origin(text)
    except ValidationError as error:
        raise click.ClickException(f"{escape(text)}: {error.messages[0]}") from None


def _print_origins(row: TargetRow) -> None:
    for origin in row.allowed_origins:
        click.echo(escape(origin))

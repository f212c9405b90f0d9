"""Commands for allowed origins: the pages that may frame an app, or the launcher of a workspace."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import click
from flask.cli import AppGroup
from marshmallow import ValidationError

from pat_service.cli.common import find, plain_errors, show
from pat_service.rules.callers import OPERATOR
from pat_service.rules.directory import apps, workspaces
from pat_service.rules.directory.reach import TargetRow
from pat_service.shapes import parse_origin, visible

app_commands = AppGroup("app", help="Change the allowed origins of apps.")
workspace_commands = AppGroup("workspace", help="Change the allowed origins of launchers.")

_SLUG = click.argument("slug", metavar="SLUG")
_ORIGINS = click.argument("origins", metavar="ORIGIN…", nargs=-1, required=True)


def _add_commands(group: AppGroup, kind: str, rules: Any, framed: str) -> None:
    @group.command(
        "allow", help=f"Let pages of each ORIGIN frame the {framed}. Print all allowed origins, one per line."
    )
    @_SLUG
    @_ORIGINS
    def allow(slug: str, origins: tuple[str, ...]) -> None:
        with plain_errors():
            row = find(kind, slug)
            _print_origins(rules.change_origins(OPERATOR, row.id, datetime.now(UTC), add=_parsed(origins)))

    @group.command(
        "disallow",
        help=f"Stop pages of each ORIGIN from framing the {framed}. Print all allowed origins, one per line.",
    )
    @_SLUG
    @_ORIGINS
    def disallow(slug: str, origins: tuple[str, ...]) -> None:
        with plain_errors():
            row = find(kind, slug)
            removed = _parsed(origins, stored=row.allowed_origins)
            _print_origins(rules.change_origins(OPERATOR, row.id, datetime.now(UTC), remove=removed))


def _parsed(origins: Iterable[str], stored: Sequence[str] = ()) -> list[str]:
    """Return the origins as browsers write them. A stored origin passes even if it is no longer valid."""
    return [text if text in stored else _origin(text) for text in origins]


def _origin(text: str) -> str:
    try:
        return parse_origin(text)
    except ValidationError as error:
        raise click.ClickException(f"{visible(text)}: {error.messages[0]}") from None


def _print_origins(row: TargetRow) -> None:
    for origin in row.allowed_origins:
        show(origin)


_add_commands(app_commands, "app", apps, "app")
_add_commands(workspace_commands, "workspace", workspaces, "launcher, whose apps have their own origins")

"""Commands for allowed origins: the pages that may frame an app, or the launcher of a workspace."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import click
from flask.cli import AppGroup
from marshmallow import ValidationError

from pat_service.cli.common import find, plain_errors, refused, show
from pat_service.rules.callers import OPERATOR
from pat_service.rules.directory.reach import TargetRow
from pat_service.shapes import parse_origin

_SLUG = click.argument("slug", metavar="SLUG")
_ORIGINS = click.argument("origins", metavar="ORIGIN…", nargs=-1, required=True)


def add_origin_commands(group: AppGroup, kind: str, rules: Any, framed: str) -> None:
    """Add `allow` and `disallow` to the commands of apps or workspaces."""

    @group.command(
        "allow",
        short_help=f"Let pages frame the {framed}.",
        help=f"Let pages of each ORIGIN frame the {framed}. Print all allowed origins, one per line.",
    )
    @_SLUG
    @_ORIGINS
    @plain_errors()
    def allow(slug: str, origins: tuple[str, ...]) -> None:
        row = find(kind, slug)
        _print_origins(rules.change_origins(OPERATOR, row.id, datetime.now(UTC), add=parse_origins(origins)))

    @group.command(
        "disallow",
        short_help=f"Stop pages from framing the {framed}.",
        help=f"Stop pages of each ORIGIN from framing the {framed}. Print all allowed origins, one per line.",
    )
    @_SLUG
    @_ORIGINS
    @plain_errors()
    def disallow(slug: str, origins: tuple[str, ...]) -> None:
        row = find(kind, slug)
        removed = parse_origins(origins, stored=row.allowed_origins)
        _print_origins(rules.change_origins(OPERATOR, row.id, datetime.now(UTC), remove=removed))


def parse_origins(origins: Iterable[str], stored: Sequence[str] = ()) -> list[str]:
    """Return the origins as browsers write them. A stored origin passes even if it is no longer valid."""
    return [text if text in stored else _parse_origin(text) for text in origins]


def _parse_origin(text: str) -> str:
    try:
        return parse_origin(text)
    except ValidationError as error:
        raise refused(text, error) from None


def _print_origins(row: TargetRow) -> None:
    for origin in row.allowed_origins:
        show(origin)

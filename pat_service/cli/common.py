"""Helpers of the commands: plain errors, schema upgrades, ids by name, secrets."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import click
from flask import current_app
from flask_migrate import upgrade
from marshmallow import ValidationError
from sqlalchemy.exc import DBAPIError, IntegrityError

from pat_service.errors import AppNotFound, InvalidPayload, Refused, UserNotFound, WorkspaceNotFound
from pat_service.rules.callers import OPERATOR
from pat_service.rules.directory import apps, users, workspaces
from pat_service.shapes import check_email, check_slug, is_uuid, visible
from pat_service.storage.database import AnyRow
from pat_service.storage.paging import PageRequest
from pat_service.storage.readiness import explain


def upgrade_schema() -> None:
    """Bring the schema of the current app's database up to date."""
    upgrade(directory=str(Path(current_app.root_path) / "migrations"))


@contextmanager
def plain_errors() -> Iterator[None]:
    """Print refusals and database errors as plain lines, and exit with 1."""
    try:
        yield
    except InvalidPayload as refusal:
        lines = [f"{field}: {text}" for field, texts in refusal.errors.items() for text in texts]
        raise click.ClickException("\n".join(map(visible, lines))) from None
    except Refused as refusal:
        raise click.ClickException(visible(refusal.detail)) from None
    except IntegrityError:
        raise click.ClickException("A concurrent change conflicts with this one; try again.") from None
    except DBAPIError as error:
        raise click.ClickException(
            explain(error)
            or "The database failed. Check DATABASE_URL, and upgrade the schema: flask --app app db upgrade"
        ) from None


def show(*fields: str, err: bool = False) -> None:
    """Print a line of fields, separated by tabs. A field may come from outside."""
    click.echo("\t".join(map(visible, fields)), err=err)


_KINDS: Final[dict[str, Any]] = {
    "user": (users.list_users, "email", check_email, UserNotFound),
    "app": (apps.list_apps, "slug", check_slug, AppNotFound),
    "workspace": (workspaces.list_workspaces, "slug", check_slug, WorkspaceNotFound),
}


def find(kind: str, name: str) -> AnyRow:
    """Return the user, app or workspace with this email or slug.

    Raise UserNotFound, AppNotFound or WorkspaceNotFound if there is none. A user's id names the user too.
    """
    if kind == "user" and is_uuid(name.lower()):
        user: Any = users.read(OPERATOR, name.lower())
        return user  # type: ignore[no-any-return]
    list_rows, column, check, missing = _KINDS[kind]
    with suppress(ValidationError):
        check(name)
        row: AnyRow
        for row in list_rows(OPERATOR, PageRequest(), **{column: name}).items:
            return row
    raise missing(f"There is no {kind} {name!r}.")


def find_id(kind: str, name: str | None) -> str | None:
    """Return the id of the user, app or workspace with this name; None without a name."""
    return None if name is None else str(find(kind, name).id)


def show_secret(client_id: str, secret: str) -> None:
    show(f"Secret of client {client_id}, shown this once:", err=True)
    show(secret)

"""Helpers of the commands: plain errors, schema upgrades, ids by name, secrets."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import click
from flask import current_app
from flask_migrate import upgrade
from marshmallow import ValidationError
from sqlalchemy.exc import DBAPIError, IntegrityError

from pat_service.errors import AppNotFound, InvalidPayload, Refused, UserNotFound, WorkspaceNotFound
from pat_service.rules.callers import OPERATOR
from pat_service.rules.directory import apps, users, workspaces
from pat_service.shapes import check_email, check_slug
from pat_service.storage.paging import PageRequest


def upgrade_schema() -> None:
    """Bring the schema of the current app's database up to date."""
    upgrade(directory=str(Path(current_app.root_path) / "migrations"))


@contextmanager
def plain_errors() -> Iterator[None]:
    """Turn refusals and database errors into a line or a few, and exit with 1."""
    try:
        yield
    except InvalidPayload as refusal:
        lines = [f"{escape(field)}: {text}" for field, texts in refusal.errors.items() for text in texts]
        raise click.ClickException("\n".join(lines)) from None
    except Refused as refusal:
        raise click.ClickException(refusal.detail) from None
    except IntegrityError:
        raise click.ClickException("A concurrent change conflicts with this one; try again.") from None
    except DBAPIError:
        raise click.ClickException(
            "The database failed. Check DATABASE_URL, and upgrade the schema: flask --app app db upgrade"
        ) from None


def escape(text: str) -> str:
    """Return a text from outside with its control characters escaped, for a terminal."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def user_id(email: str) -> str:
    """Return the id of the user, or raise UserNotFound."""
    with suppress(ValidationError):
        check_email(email)
        for user in users.list_users(OPERATOR, PageRequest(), email=email).items:
            return str(user.id)
    raise UserNotFound(f"There is no user {email!r}.")


def app_id(slug: str) -> str:
    """Return the id of the app, or raise AppNotFound."""
    with suppress(ValidationError):
        check_slug(slug)
        for app in apps.list_apps(OPERATOR, PageRequest(), slug=slug).items:
            return str(app.id)
    raise AppNotFound(f"There is no app {slug!r}.")


def workspace_id(slug: str) -> str:
    """Return the id of the workspace, or raise WorkspaceNotFound."""
    with suppress(ValidationError):
        check_slug(slug)
        for workspace in workspaces.list_workspaces(OPERATOR, PageRequest(), slug=slug).items:
            return str(workspace.id)
    raise WorkspaceNotFound(f"There is no workspace {slug!r}.")


def show_secret(client_id: str, secret: str) -> None:
    click.echo(f"Secret of client {client_id}, shown this once:", err=True)
    click.echo(secret)

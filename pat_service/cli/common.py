"""Helpers of the commands: plain errors, schema upgrades, checked texts, ids by name, secrets."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import click
from flask import current_app
from flask_migrate import upgrade
from marshmallow import ValidationError
from sqlalchemy.exc import DBAPIError, IntegrityError

from pat_service.app_folders import INCLUDED, choose_place
from pat_service.embed import Registry
from pat_service.errors import AppNotFound, InvalidPayload, Refused, UserNotFound, WorkspaceNotFound
from pat_service.rules.callers import OPERATOR
from pat_service.rules.directory import apps, users, workspaces
from pat_service.shapes import check_email, check_slug, is_uuid, visible
from pat_service.storage.database import AnyRow
from pat_service.storage.paging import PageRequest
from pat_service.storage.readiness import explain

#: The form of a time in UTC.
TIME_FORMAT: Final = "%Y-%m-%dT%H:%M:%SZ"
#: Characters of a line of an error.
MAX_ERROR_LENGTH: Final = 300


def upgrade_schema() -> None:
    """Bring the schema of the current app's database up to date."""
    upgrade(revision="heads")


@contextmanager
def plain_errors() -> Iterator[None]:
    """Print refusals and database errors as plain lines, and exit with 1. It is a decorator too."""
    try:
        yield
    except InvalidPayload as refusal:
        lines = [f"{field}: {text}" for field, texts in refusal.errors.items() for text in texts]
        raise click.ClickException("\n".join(map(clip, lines))) from None
    except Refused as refusal:
        raise click.ClickException(clip(refusal.detail)) from None
    except IntegrityError:
        raise click.ClickException("A concurrent change conflicts with this one; try again.") from None
    except DBAPIError as error:
        raise click.ClickException(
            explain(error)
            or "The database failed. Check DATABASE_URL, and upgrade the schema: flask --app app db upgrade"
        ) from None


def show(*fields: str, err: bool = False) -> None:
    """Print a line of fields, separated by tabs. A field may come from outside.

    Characters that the stream cannot encode are escaped.
    """
    line = "\t".join(map(visible, fields))
    encoding = (sys.stderr if err else sys.stdout).encoding
    click.echo(line.encode(encoding, "backslashreplace").decode(encoding), err=err)


def is_terminal() -> bool:
    return sys.stdout.isatty()


with_yes = click.option("--yes", is_flag=True, help="Do not ask for a confirmation in a terminal.")


def confirm(question: str, *, yes: bool) -> None:
    """Ask in a terminal whether to go on. Scripts are not asked."""
    if not yes and is_terminal() and sys.stdin.isatty():
        click.confirm(visible(question), abort=True)


def require_some(**changes: str | list[str] | None) -> dict[str, Any]:
    """Return the options that were given, or raise a usage error."""
    given = {name: value for name, value in changes.items() if value is not None}
    if not given:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in changes)
        raise click.UsageError(f"Name at least one of {names}.")
    return given


def clip(line: str) -> str:
    """Return a line for an error. It may contain a long text that the operator gave."""
    return visible(line if len(line) <= MAX_ERROR_LENGTH else f"{line[:MAX_ERROR_LENGTH]}…")


def refused(text: str, error: ValidationError) -> click.ClickException:
    """Return the one-line error for a text that a check refuses."""
    return click.ClickException(f"{clip(text)}: {error.messages[0]}")


def checked(check: Callable[[str], object]) -> Callable[..., str | None]:
    """Return the callback of a parameter, which refuses other texts in one line."""

    def parse(text: str) -> str:
        check(text)
        return text

    return parsed(parse)


def parsed(parse: Callable[[str], str]) -> Callable[..., str | None]:
    """Return the callback of a parameter, which parses its text or refuses it in one line."""

    def callback(_context: click.Context, parameter: click.Parameter, text: str | None) -> str | None:
        try:
            return None if text is None else parse(text)
        except ValidationError as error:
            name = parameter.metavar if isinstance(parameter, click.Argument) else parameter.opts[0]
            raise refused(f"{name} {text}", error) from None

    return callback


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


def first_page(template: str) -> str:
    """Return the file of a template's first page, also if it is missing."""
    registry: Registry = current_app.extensions["pat_service.registry"]
    folder = registry.folder(template) or choose_place(current_app.config["APPS_PATH"]) / template
    file = folder / "templates" / "index.html"
    return str(file.relative_to(INCLUDED.parent) if file.is_relative_to(INCLUDED) else file)


def show_secret(client_id: str, secret: str) -> None:
    show(f"Secret of client {client_id}, shown this once:", err=True)
    show(secret)

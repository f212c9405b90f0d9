"""Commands for the operators of the console: add, link, list, remove."""

from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlsplit

import click
from flask import Flask, current_app
from flask.cli import AppGroup
from marshmallow import fields
from sqlalchemy.exc import SQLAlchemyError

from pat_service.api.fields import AnswerSchema, Moment
from pat_service.cli.common import TIME_FORMAT, checked, plain_errors, show
from pat_service.cli.lists import View, with_json
from pat_service.http import console_host
from pat_service.http.authentication import keyring
from pat_service.rules import console_sessions, operators
from pat_service.rules.directory import workspaces
from pat_service.shapes import check_email, normalize_email
from pat_service.storage.models import OPERATOR_ROLES, OWNER

#: The port of `flask run` and `make run`, for a console without CONSOLE_URL.
USUAL_PORT: Final = 5000

console_commands = AppGroup("console", help="Manage the operators of the console.")
_email = click.argument("email", metavar="EMAIL", callback=checked(check_email))


@console_commands.command("add")
@_email
@click.option("--role", type=click.Choice(OPERATOR_ROLES), required=True, help="What the operator may do.")
@click.option(
    "--workspace", "workspaces", multiple=True, metavar="SLUG", help="A workspace of an operator or viewer."
)
def add_operator(email: str, role: str, workspaces: tuple[str, ...]) -> None:
    """Add an operator, or change its role and workspaces. Owners have all workspaces."""
    with plain_errors():
        view = operators.put(normalize_email(email), role, workspaces, datetime.now(UTC))
    where = "all workspaces" if view.workspaces is None else ", ".join(view.workspaces)
    show(f"{view.email} is {view.role} of {where}.")
    show(f"A sign-in link: flask --app app console link {view.email}", err=True)


@console_commands.command("link")
@_email
@click.option("--port", type=click.IntRange(1, 65535), default=USUAL_PORT, help="Of a server in development.")
def create_link(email: str, port: int) -> None:
    """Print a link that signs an operator in, once, within ten minutes."""
    if not console_host.is_on(current_app):
        raise click.ClickException("There is no console. Set CONSOLE_URL.")
    with plain_errors():
        show(build_link(normalize_email(email), port))


def build_link(email: str, port: int) -> str:
    """Return the address that signs this operator in, once."""
    link = console_sessions.create_link(keyring(), email, datetime.now(UTC))
    return f"{console_host.url(port)}/sign-in#link={link.reveal()}"


def describe(app: Flask, port: int) -> str:
    """Return a line about the console for `flask run`, with a sign-in link of the first owner.

    Turn the console off if a workspace has its host.
    """
    if not console_host.is_on(app):
        return "The console is off, since PUBLIC_URL has its host"
    host = urlsplit(console_host.url(port)).hostname or ""
    try:
        if slug := workspaces.find_frames_at(host):
            console_host.turn_off(app)
            return f"The console is off, since workspace {slug} has its host, {host}"
        owners = [view.email for view in operators.list_operators() if view.role == OWNER]
        if owners:
            return f"Open the console as {owners[0]}, once: {build_link(owners[0], port)}"
    except SQLAlchemyError:
        return "The console needs the database: flask --app app db upgrade"
    return f"{console_host.url(port)}/ is the console: flask --app app console add EMAIL --role owner"


@console_commands.command("list")
@with_json
@plain_errors()
def list_operators(as_json: bool) -> None:
    """List the operators. Times are UTC."""
    _VIEW.show_list([operators.list_operators()], as_json=as_json)


@console_commands.command("remove")
@_email
def remove_operator(email: str) -> None:
    """Remove an operator and end its sessions at once. The last owner stays."""
    email = normalize_email(email)
    with plain_errors():
        operators.remove(email, datetime.now(UTC))
    show(f"{email} is no operator any more.")


class _OperatorSchema(AnswerSchema):
    """An operator. `workspaces` is null for all workspaces."""

    email = fields.String()
    role = fields.String()
    workspaces = fields.List(fields.String())
    oidc = fields.Boolean()
    created_at = Moment()
    last_seen_at = Moment()


_VIEW: Final = View(
    {
        "EMAIL": lambda row: row.email,
        "ROLE": lambda row: row.role,
        "WORKSPACES": lambda row: "all workspaces" if row.workspaces is None else row.workspaces,
        "SIGN-IN": lambda row: "OpenID Connect" if row.oidc else "link",
        "LAST SEEN": lambda row: row.last_seen_at and f"{row.last_seen_at:{TIME_FORMAT}}",
    },
    _OperatorSchema().dump,
)

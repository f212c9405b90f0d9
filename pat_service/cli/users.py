"""Commands for users: home, email, status, deletion. They act for the whole installation."""

from datetime import UTC, datetime

import click
from flask.cli import AppGroup
from marshmallow import ValidationError

from pat_service.cli.common import find_id, plain_errors, show
from pat_service.rules.callers import OPERATOR
from pat_service.rules.directory import users
from pat_service.shapes import check_email, visible
from pat_service.storage.models import ACTIVE, ARCHIVED

user_commands = AppGroup("user", help="Manage users in the whole installation.")

_EMAIL = click.argument("email", metavar="EMAIL")
_WORKSPACE = click.option("--workspace", metavar="SLUG", help="Only in this workspace. Default: everywhere.")


@user_commands.command("home")
@_EMAIL
@click.argument("slug", metavar="SLUG")
def move_home(email: str, slug: str) -> None:
    """Make a workspace the home of a user: its clients can then change the name."""
    with plain_errors():
        changes = {"home_workspace_id": find_id("workspace", slug)}
        users.change(OPERATOR, _find_id(email), changes, datetime.now(UTC))
    show(f"The home of {email} is {slug}.")


@user_commands.command("email")
@_EMAIL
@click.argument("new_email", metavar="NEW-EMAIL")
def change_email(email: str, new_email: str) -> None:
    """Change the email of a user. Tokens and open frames stay valid."""
    try:
        check_email(new_email)
    except ValidationError as error:
        raise click.ClickException(visible(f"{new_email}: {error.messages[0]}")) from None
    with plain_errors():
        user = users.change(OPERATOR, _find_id(email), {"email": new_email}, datetime.now(UTC))
    show(f"The email of {email} is {user.email}.")


@user_commands.command("archive")
@_EMAIL
@_WORKSPACE
def archive(email: str, workspace: str | None) -> None:
    """Archive a user, who can then open nothing."""
    _change_status(email, workspace, ARCHIVED)


@user_commands.command("activate")
@_EMAIL
@_WORKSPACE
def activate(email: str, workspace: str | None) -> None:
    """Activate an archived user. Without --workspace, users whom a workspace archived stay archived there."""
    _change_status(email, workspace, ACTIVE)


@user_commands.command("delete")
@_EMAIL
def delete(email: str) -> None:
    """Delete a user, and their memberships, grants, tokens, sessions and rows of apps."""
    with plain_errors():
        users.remove(OPERATOR, _find_id(email), datetime.now(UTC))
    show(f"{email} is deleted.")


def _change_status(email: str, workspace: str | None, status: str) -> None:
    now = datetime.now(UTC)
    with plain_errors():
        if workspace is None:
            users.change(OPERATOR, _find_id(email), {"status": status}, now)
        else:
            users.change_status_in(str(find_id("workspace", workspace)), _find_id(email), status, now)
    place = "the whole installation" if workspace is None else f"workspace {workspace}"
    show(f"{email} is {status} in {place}.")


def _find_id(email: str) -> str:
    return str(find_id("user", email))

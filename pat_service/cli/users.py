"""Commands for users. They act for the whole installation."""

from collections.abc import Mapping
from datetime import UTC, datetime

import click
from flask.cli import AppGroup

from pat_service.api.directory_schemas import UserAnswerSchema
from pat_service.cli.common import TIME_FORMAT, checked, confirm, find, find_id, plain_errors, show, with_yes
from pat_service.cli.lists import View, iterate_pages, read_workspace_slugs, with_json
from pat_service.errors import Conflict
from pat_service.rules.callers import OPERATOR
from pat_service.rules.directory import users
from pat_service.shapes import check_email, check_name
from pat_service.storage.models import ACTIVE, ARCHIVED, LEAST_ROLE, ROLES, USER_STATUSES

user_commands = AppGroup("user", help="Manage users in the whole installation.")

_EMAIL = click.argument("email", metavar="EMAIL")
_WORKSPACE = click.option("--workspace", metavar="SLUG", help="Only in this workspace. Default: everywhere.")


def _build_view(slugs: Mapping[str, str]) -> View:
    """Return the view of users. `slugs` are those of the workspaces by id."""
    return View(
        {
            "EMAIL": lambda row: row.email,
            "NAME": lambda row: row.name,
            "STATUS": lambda row: row.status,
            "MEMBER OF": lambda row: [f"{slugs.get(m.workspace_id)}: {m.role}" for m in row.memberships],
            "HOME": lambda row: slugs.get(row.home_workspace_id or ""),
        },
        UserAnswerSchema().dump,
        {"ID": lambda row: row.id, "CREATED": lambda row: f"{row.created_at:{TIME_FORMAT}}"},
    )


@user_commands.command("list")
@click.option("--workspace", metavar="SLUG", help="Only members of this workspace.")
@click.option("--status", type=click.Choice(USER_STATUSES), help="Only users with this status.")
@with_json
@plain_errors()
def list_users(workspace: str | None, status: str | None, as_json: bool) -> None:
    """List the users. The status is that of the installation."""
    workspace_id = find_id("workspace", workspace)
    pages = iterate_pages(
        lambda page_request: users.list_users(
            OPERATOR, page_request, status=status, workspace_id=workspace_id
        )
    )
    _build_view(read_workspace_slugs()).show_list(pages, as_json=as_json)


@user_commands.command("show")
@_EMAIL
@with_json
@plain_errors()
def show_user(email: str, as_json: bool) -> None:
    """Show a user with their memberships."""
    _build_view(read_workspace_slugs()).show_one(find("user", email), as_json=as_json)


@user_commands.command("create")
@click.argument("email", metavar="EMAIL", callback=checked(check_email))
@click.option("--name", metavar="NAME", callback=checked(check_name), help="Default: the email.")
@click.option(
    "--workspace",
    "workspaces",
    multiple=True,
    metavar="SLUG",
    help="Make the user a member of this workspace. Repeat the option for more; the first is the home.",
)
@click.option(
    "--role",
    type=click.Choice(ROLES),
    default=LEAST_ROLE,
    show_default=True,
    help="The role there.",
)
@with_json
@plain_errors()
def create_user(email: str, name: str | None, workspaces: tuple[str, ...], role: str, as_json: bool) -> None:
    """Create a user."""
    roles = {find("workspace", slug).id: role for slug in workspaces}
    try:
        row, _ = users.create(OPERATOR, email=email, name=name, roles=roles, now=datetime.now(UTC))
    except Conflict:
        # The API's text names its methods.
        raise Conflict(f"The user {email} exists. `member add` gives them another workspace.") from None
    _build_view({}).show_changed(f"User {row.email} is created. The id is {row.id}.", row, as_json=as_json)


@user_commands.command("change")
@_EMAIL
@click.option("--name", required=True, metavar="NAME", callback=checked(check_name), help="The new name.")
@with_json
@plain_errors()
def change_user(email: str, name: str, as_json: bool) -> None:
    """Change the name of a user. Other commands change the email, the home and the status."""
    row = users.change(OPERATOR, _find_id(email), {"name": name}, datetime.now(UTC))
    _build_view({}).show_changed(f"The name of {email} is {row.name}.", row, as_json=as_json)


@user_commands.command("home")
@_EMAIL
@click.argument("slug", metavar="SLUG")
@plain_errors()
def move_home(email: str, slug: str) -> None:
    """Change the home workspace of a user.

    Clients of the home can change the name.
    """
    changes = {"home_workspace_id": find_id("workspace", slug)}
    users.change(OPERATOR, _find_id(email), changes, datetime.now(UTC))
    show(f"The home of {email} is {slug}.")


@user_commands.command("email")
@_EMAIL
@click.argument("new_email", metavar="NEW-EMAIL", callback=checked(check_email))
@plain_errors()
def change_email(email: str, new_email: str) -> None:
    """Change the email of a user.

    Tokens and open frames stay valid.
    """
    user = users.change(OPERATOR, _find_id(email), {"email": new_email}, datetime.now(UTC))
    show(f"The email of {email} is {user.email}.")


@user_commands.command("archive")
@_EMAIL
@_WORKSPACE
@plain_errors()
def archive(email: str, workspace: str | None) -> None:
    """Archive a user, who can then open nothing."""
    _change_status(email, workspace, ARCHIVED)


@user_commands.command("activate")
@_EMAIL
@_WORKSPACE
@plain_errors()
def activate(email: str, workspace: str | None) -> None:
    """Activate an archived user.

    Without --workspace, users stay archived in the workspaces that archived them.
    """
    _change_status(email, workspace, ACTIVE)


@user_commands.command("delete")
@_EMAIL
@with_yes
@plain_errors()
def delete(email: str, yes: bool) -> None:
    """Delete a user and all that they have.

    This deletes the memberships, grants, tokens, sessions and rows of apps too.
    """
    user = find("user", email)
    confirm(f"Delete {email} ({user.name}) with grants, tokens, sessions and rows of apps?", yes=yes)
    users.remove(OPERATOR, user.id, datetime.now(UTC))
    show(f"{email} is deleted.")


def _change_status(email: str, workspace: str | None, status: str) -> None:
    now = datetime.now(UTC)
    if workspace is None:
        users.change(OPERATOR, _find_id(email), {"status": status}, now)
    else:
        users.change_status_in(str(find_id("workspace", workspace)), _find_id(email), status, now)
    place = "the whole installation" if workspace is None else f"workspace {workspace}"
    show(f"{email} is {status} in {place}.")


def _find_id(email: str) -> str:
    return str(find("user", email).id)

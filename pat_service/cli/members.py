"""Commands for members of workspaces."""

from datetime import UTC, datetime

import click
from flask.cli import AppGroup

from pat_service.api.directory_schemas import MemberAnswerSchema
from pat_service.cli.common import find, plain_errors, show
from pat_service.cli.lists import View, iterate_pages, with_json
from pat_service.errors import MemberNotFound
from pat_service.rules.callers import OPERATOR
from pat_service.rules.directory import members
from pat_service.storage.models import ROLES

member_commands = AppGroup("member", help="Manage the members of workspaces.")

_EMAIL = click.argument("email", metavar="EMAIL")
_WORKSPACE = click.argument("workspace", metavar="WORKSPACE")
_VIEW = View(
    {
        "EMAIL": lambda row: row.user.email,
        "NAME": lambda row: row.user.name,
        "ROLE": lambda row: row.role,
        "STATUS": lambda row: row.user.status,
    },
    MemberAnswerSchema().dump,
    {"USER ID": lambda row: row.user_id},
)


@member_commands.command("list")
@_WORKSPACE
@with_json
@plain_errors()
def list_members(workspace: str, as_json: bool) -> None:
    """List the members of a workspace."""
    id_ = find("workspace", workspace).id
    pages = iterate_pages(lambda page_request: members.list_members(OPERATOR, id_, page_request))
    _VIEW.show_list(pages, as_json=as_json)


@member_commands.command("show")
@_EMAIL
@_WORKSPACE
@with_json
@plain_errors()
def show_member(email: str, workspace: str, as_json: bool) -> None:
    """Show a member of a workspace."""
    workspace_id, user_id = find("workspace", workspace).id, find("user", email).id
    try:
        row = members.read(OPERATOR, workspace_id, user_id)
    except MemberNotFound:
        raise _not_found(email, workspace) from None
    _VIEW.show_one(row, as_json=as_json)


@member_commands.command("add")
@_EMAIL
@_WORKSPACE
@click.option("--role", required=True, type=click.Choice(ROLES), help="The role in the workspace.")
@with_json
@plain_errors()
def add_member(email: str, workspace: str, role: str, as_json: bool) -> None:
    """Make a user a member of a workspace, or change the role.

    A user who was archived in the workspace stays archived.
    """
    workspace_id, user_id = find("workspace", workspace).id, find("user", email).id
    row, _ = members.put(OPERATOR, workspace_id, user_id, role, datetime.now(UTC))
    _VIEW.show_changed(f"{email} is a member of workspace {workspace}: {role}.", row, as_json=as_json)


@member_commands.command("remove")
@_EMAIL
@_WORKSPACE
@plain_errors()
def remove_member(email: str, workspace: str) -> None:
    """Remove a user from a workspace. The user's grants stay, but open nothing."""
    workspace_id, user_id = find("workspace", workspace).id, find("user", email).id
    try:
        members.remove(OPERATOR, workspace_id, user_id, datetime.now(UTC))
    except MemberNotFound:
        raise _not_found(email, workspace) from None
    show(f"{email} is no longer a member of workspace {workspace}.")


def _not_found(email: str, workspace: str) -> MemberNotFound:
    return MemberNotFound(f"{email} is not a member of workspace {workspace}.")

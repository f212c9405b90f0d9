"""Commands for grants: who may open which app."""

from datetime import UTC, datetime

import click
from flask.cli import AppGroup

from pat_service.api.directory_schemas import GrantAnswerSchema
from pat_service.cli.common import find, plain_errors, show
from pat_service.cli.lists import View, iterate_pages, with_json
from pat_service.errors import GrantNotFound
from pat_service.rules.callers import OPERATOR
from pat_service.rules.directory import grants

grant_commands = AppGroup("grant", help="Manage who may open which app.")

_EMAIL = click.argument("email", metavar="EMAIL")
_APP = click.argument("app", metavar="APP")
_VIEW = View(
    {
        "EMAIL": lambda row: row.user.email,
        "NAME": lambda row: row.user.name,
        "STATUS": lambda row: row.user.status,
        "EFFECTIVE": lambda row: "yes" if row.effective else "no",
    },
    GrantAnswerSchema().dump,
    {"USER ID": lambda row: row.user_id},
)


_VIEW_OF_USER = View(
    {"APP": lambda row: row.app_slug, "EFFECTIVE": lambda row: "yes" if row.effective else "no"},
    GrantAnswerSchema().dump,
)


@grant_commands.command("list")
@click.argument("app", metavar="[APP]", required=False)
@click.option("--user", metavar="EMAIL", help="In place of APP: the grants of this user.")
@with_json
@plain_errors()
def list_grants(app: str | None, user: str | None, as_json: bool) -> None:
    """List the grants of an app or of a user. A grant is effective if its user may open the app now."""
    if (app is None) == (user is None):
        raise click.UsageError("Name either an APP or --user.")
    if user is not None:
        user_id = find("user", user).id
        pages = iterate_pages(lambda request: grants.list_grants_of_user(OPERATOR, user_id, request))
        _VIEW_OF_USER.show_list(pages, as_json=as_json)
        return
    id_ = find("app", str(app)).id
    pages = iterate_pages(lambda page_request: grants.list_grants(OPERATOR, id_, page_request))
    _VIEW.show_list(pages, as_json=as_json)


@grant_commands.command("show")
@_EMAIL
@_APP
@with_json
@plain_errors()
def show_grant(email: str, app: str, as_json: bool) -> None:
    """Show whether a user may open an app."""
    app_id, user_id = find("app", app).id, find("user", email).id
    try:
        row = grants.read(OPERATOR, app_id, user_id)
    except GrantNotFound:
        raise _not_found(email, app) from None
    _VIEW.show_one(row, as_json=as_json)


@grant_commands.command("add")
@_EMAIL
@_APP
@with_json
@plain_errors()
def add_grant(email: str, app: str, as_json: bool) -> None:
    """Let a user open an app."""
    app_id, user_id = find("app", app).id, find("user", email).id
    row, _ = grants.put(OPERATOR, app_id, user_id, datetime.now(UTC))
    if not row.effective:
        note = "the user is not an active member of the app's workspace, so the grant has no effect yet"
        show(f"Note: {note}.", err=True)
    _VIEW.show_changed(f"{email} has a grant of app {app}.", row, as_json=as_json)


@grant_commands.command("remove")
@_EMAIL
@_APP
@plain_errors()
def remove_grant(email: str, app: str) -> None:
    """Remove a grant. It takes effect on the next request of every open frame."""
    app_id, user_id = find("app", app).id, find("user", email).id
    try:
        grants.remove(OPERATOR, app_id, user_id, datetime.now(UTC))
    except GrantNotFound:
        raise _not_found(email, app) from None
    show(f"{email} has no grant of app {app} any more.")


def _not_found(email: str, app: str) -> GrantNotFound:
    return GrantNotFound(f"{email} has no grant of app {app}.")

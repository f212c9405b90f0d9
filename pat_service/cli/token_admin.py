"""Commands that list and revoke tokens, and list and end sessions."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import wraps
from typing import Any, Final

import click
from flask.cli import AppGroup

from pat_service.api.token_admin_schemas import SessionItemSchema, TokenItemSchema
from pat_service.cli.common import TIME_FORMAT, find_id, plain_errors, show
from pat_service.cli.lists import View, iterate_pages, with_json
from pat_service.errors import SessionNotFound, TokenNotFound
from pat_service.rules import clients, token_admin
from pat_service.rules.callers import OPERATOR
from pat_service.rules.token_admin import TokenFilter
from pat_service.shapes import is_uuid

token_commands = AppGroup("token", help="List and revoke tokens.")
session_commands = AppGroup("session", help="List and end the sessions of open frames.")

_FILTERS = (
    click.option("--user", metavar="EMAIL", help="Only tokens or sessions of this user."),
    click.option("--app", metavar="SLUG", help="Only tokens or sessions of this app."),
    click.option("--workspace", metavar="SLUG", help="Only tokens or sessions of this workspace."),
    click.option("--client", metavar="ID", help="Only tokens or sessions that this client minted."),
)


def with_filters(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options to the command. The command receives them as `token_filter`, or None if all are
    absent."""

    @wraps(command)
    def called(
        user: str | None, app: str | None, workspace: str | None, client: str | None, **options: Any
    ) -> None:
        with plain_errors():
            token_filter = TokenFilter(
                app_id=find_id("app", app),
                user_id=find_id("user", user),
                workspace_id=find_id("workspace", workspace),
                client_id=None if client is None else clients.require_existing(client),
            )
            command(token_filter=None if token_filter == TokenFilter() else token_filter, **options)

    for option in reversed(_FILTERS):
        called = option(called)
    return called


def _require_one(id_: str | None, token_filter: TokenFilter | None) -> None:
    if (id_ is None) == (token_filter is None):
        raise click.UsageError(
            "Name either an ID, or at least one of --user, --app, --workspace and --client."
        )


_COLUMNS: Final[dict[str, Callable[[Any], str]]] = {
    "ID": lambda row: row.id,
    "APP": lambda row: f"{row.workspace_slug}/{row.app_slug or '*'}",
    "USER": lambda row: row.user_email,
    "CLIENT": lambda row: row.client_id,
    "EXPIRES": lambda row: f"{row.expires_at:{TIME_FORMAT}}",
}
_TOKENS = View(
    {
        **_COLUMNS,
        "LAST FOUR": lambda row: row.last_four,
        "STATUS": lambda row: row.status,
        "SESSIONS": lambda row: row.live_sessions,
    },
    TokenItemSchema().dump,
)
_SESSIONS = View({**_COLUMNS, "TOKEN ID": lambda row: row.token_id}, SessionItemSchema().dump)


@token_commands.command("list")
@click.option("--all", "everything", is_flag=True, help="Also tokens that open no frame any more.")
@with_filters
@with_json
def list_tokens(everything: bool, token_filter: TokenFilter | None, as_json: bool) -> None:
    """List the tokens that open frames, by id and last four characters."""
    now, live_only = datetime.now(UTC), None if everything else True
    pages = iterate_pages(
        lambda page_request: token_admin.list_tokens(
            OPERATOR, token_filter or TokenFilter(), page_request, now, live=live_only
        )
    )
    _TOKENS.show_list(pages, as_json=as_json)


@token_commands.command("revoke")
@click.argument("id_", metavar="[ID]", required=False)
@with_filters
def revoke_tokens(id_: str | None, token_filter: TokenFilter | None) -> None:
    """Revoke tokens and end their sessions.

    Name the token's ID, or the user, app, workspace or client of the tokens.
    """
    _require_one(id_, token_filter)
    now = datetime.now(UTC)
    if token_filter is not None:
        revoked = token_admin.revoke_tokens(OPERATOR, token_filter, now)
    else:
        revoked = token_admin.revoke_token(OPERATOR, _parse_id(id_, TokenNotFound), now)
    show(f"Revoked {revoked.tokens} token(s), ended {revoked.sessions} session(s).")


@session_commands.command("list")
@with_filters
@with_json
def list_sessions(token_filter: TokenFilter | None, as_json: bool) -> None:
    """List the live sessions."""
    now = datetime.now(UTC)
    pages = iterate_pages(
        lambda page_request: token_admin.list_sessions(
            OPERATOR, token_filter or TokenFilter(), page_request, now
        )
    )
    _SESSIONS.show_list(pages, as_json=as_json)


@session_commands.command("end")
@click.argument("id_", metavar="[ID]", required=False)
@with_filters
def end_sessions(id_: str | None, token_filter: TokenFilter | None) -> None:
    """End sessions. Their tokens stay valid.

    Name the session's ID, or the user, app, workspace or client of the sessions.
    """
    _require_one(id_, token_filter)
    now = datetime.now(UTC)
    if token_filter is not None:
        ended = token_admin.end_sessions(OPERATOR, token_filter, now)
    else:
        ended = token_admin.end_session(OPERATOR, _parse_id(id_, SessionNotFound), now)
    show(f"Ended {ended} session(s).")


def _parse_id(id_: str | None, missing: type[TokenNotFound | SessionNotFound]) -> str:
    """Return the id in its stored form. Raise if it is not a UUID: PostgreSQL fails on some other texts."""
    found = (id_ or "").lower()
    if not is_uuid(found):
        raise missing
    return found

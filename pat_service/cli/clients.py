"""Commands for clients: create, list, limit, rotate, revoke."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

import click
from flask.cli import AppGroup
from marshmallow import fields

from pat_service.api.fields import AnswerSchema, Moment
from pat_service.cli.common import TIME_FORMAT, plain_errors, show, show_secret
from pat_service.cli.lists import View, with_json
from pat_service.http.authentication import keyring
from pat_service.rules import clients
from pat_service.rules.callers import OPERATOR, SCOPES
from pat_service.storage.models import LEAST_ROLE, ROLES

_DURATION = re.compile(r"(\d{1,6})([smhd])", re.ASCII)
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

client_commands = AppGroup("client", help="Manage the back ends that may call this service.")


@client_commands.command("create")
@click.argument("client_id", metavar="ID")
@click.option(
    "--workspace", "workspaces", multiple=True, metavar="SLUG", help="Limit the client to this workspace."
)
@click.option("--all-workspaces", is_flag=True, help="Let the client reach all workspaces, also future ones.")
@click.option(
    "--scope", "scopes", multiple=True, type=click.Choice(SCOPES), help="Allow this scope. Default: mint."
)
@click.option(
    "--highest-role",
    type=click.Choice(ROLES),
    default=LEAST_ROLE,
    show_default=True,
    help="The highest role that the client can give.",
)
@click.option("--mint-limit", metavar="LIMIT", help='Such as "600 per minute". Default: MINT_RATE_LIMIT.')
def create_client(
    client_id: str,
    workspaces: tuple[str, ...],
    all_workspaces: bool,
    scopes: tuple[str, ...],
    highest_role: str,
    mint_limit: str | None,
) -> None:
    """Create a client and print its secret, once. Give --workspace or --all-workspaces."""
    if bool(workspaces) == all_workspaces:
        raise click.UsageError("Name either --workspace, once or more, or --all-workspaces.")
    with plain_errors():
        secret = clients.create(
            keyring(),
            client_id,
            clients.ClientOptions(workspaces or None, scopes or ("mint",), mint_limit, highest_role),
            datetime.now(UTC),
        )
    show_secret(client_id, secret.reveal())


@client_commands.command("list")
@with_json
@plain_errors()
def list_clients(as_json: bool) -> None:
    """List the clients, and facts about their secrets. Times are UTC."""
    _VIEW.show_list([clients.list_clients(keyring(), datetime.now(UTC))], as_json=as_json)


def _describe_state(row: clients.ClientView) -> str:
    if row.revoked_at is not None:
        return f"revoked {row.revoked_at:%Y-%m-%d}"
    return f"{row.live_secrets} live secret(s)"


def _describe(secret: clients.ListedSecret) -> str:
    ends = f"ends {secret.expires_at:{TIME_FORMAT}}" if secret.expires_at else "does not end"
    used = f"last used {secret.last_used_at:{TIME_FORMAT}}" if secret.last_used_at else "not used yet"
    key = f"key {secret.key_id}" if secret.key_known else f"dead: its key {secret.key_id} is not configured"
    return f"of {secret.created_at:{TIME_FORMAT}}, {ends}, {used}, {key}"


class _SecretSchema(AnswerSchema):
    created_at = Moment()
    expires_at = Moment()
    last_used_at = Moment()
    key_id = fields.String()
    key_known = fields.Boolean()


class _ClientSchema(AnswerSchema):
    """A client. `workspaces` is null for a client of all workspaces, `mintLimit` for MINT_RATE_LIMIT."""

    id = fields.String()
    workspaces = fields.List(fields.String())
    scopes = fields.List(fields.String())
    mint_limit = fields.String()
    highest_role = fields.String()
    revoked_at = Moment()
    secrets = fields.List(fields.Nested(_SecretSchema))


_VIEW: Final = View(
    {
        "ID": lambda row: row.id,
        "WORKSPACES": lambda row: "all workspaces" if row.workspaces is None else row.workspaces,
        "SCOPES": lambda row: row.scopes,
        "MINT LIMIT": lambda row: row.mint_limit or "default limit",
        "HIGHEST ROLE": lambda row: row.highest_role,
        "STATE": _describe_state,
        "SECRETS": lambda row: [_describe(secret) for secret in row.secrets if row.revoked_at is None],
    },
    _ClientSchema().dump,
)


@client_commands.command("limit")
@click.argument("client_id", metavar="ID")
@click.argument("mint_limit", metavar="LIMIT")
def limit_client(client_id: str, mint_limit: str) -> None:
    """Limit the mints of a client.

    LIMIT is a text such as "600 per minute", or `none` for MINT_RATE_LIMIT.
    """
    own = None if mint_limit == "none" else mint_limit
    with plain_errors():
        clients.limit(client_id, own, datetime.now(UTC))
    show(f"Client {client_id} may mint {own or 'as often as MINT_RATE_LIMIT says'}.")


@client_commands.command("rotate")
@click.argument("client_id", metavar="ID")
@click.option(
    "--overlap", default="0s", metavar="TIME", help="How long the old secret stays valid: 24h, 30m, 7d."
)
def rotate_client(client_id: str, overlap: str) -> None:
    """Give a client a new secret and print it, once. The old secret ends at once, or after the overlap."""
    found = _DURATION.fullmatch(overlap)
    if found is None:
        raise click.BadParameter("write a duration such as 24h, 30m or 7d", param_hint="--overlap")
    period = timedelta(**{_UNITS[found[2]]: int(found[1])})
    with plain_errors():
        secret = clients.rotate(keyring(), client_id, datetime.now(UTC), period)
    show_secret(client_id, secret.reveal())


@client_commands.command("revoke")
@click.argument("client_id", metavar="ID")
@click.option("--tokens", is_flag=True, help="Also revoke the tokens that it minted, and end their sessions.")
def revoke_client(client_id: str, tokens: bool) -> None:
    """Revoke a client at once. Without --tokens, tokens that it minted stay valid until they expire."""
    with plain_errors():
        # The client goes first, so that it cannot mint while its tokens are being revoked.
        clients.revoke(client_id, datetime.now(UTC))
        show(f"Client {client_id} is revoked.")
        if tokens:
            revoked = clients.revoke_tokens(OPERATOR, client_id, datetime.now(UTC))
            show(f"Revoked {revoked.tokens} token(s), ended {revoked.sessions} session(s).")

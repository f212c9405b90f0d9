"""Commands for operators: `flask --app app …`. They call the same rules as the views."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import click
from flask import Flask, current_app
from flask.cli import AppGroup, with_appcontext
from flask_migrate import upgrade
from sqlalchemy.exc import DBAPIError, IntegrityError

from pat_service import clients, provisioning
from pat_service.credentials import Keyring
from pat_service.errors import InvalidPayload, Refused
from pat_service.models import LEAST_ROLE, ROLES

_OVERLAP = re.compile(r"(\d{1,6})([smhd])", re.ASCII)
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

client_commands = AppGroup("client", help="Back ends that may call this service.")


def init_app(app: Flask) -> None:
    app.cli.add_command(provision)
    app.cli.add_command(client_commands)


def upgrade_schema() -> None:
    """Bring the schema of the current app's database up to date."""
    upgrade(directory=str(Path(current_app.root_path) / "migrations"))


def _keyring() -> Keyring:
    found: Keyring = current_app.extensions["pat_service.keyring"]
    return found


@contextmanager
def plain_errors() -> Iterator[None]:
    """Say what was refused in a line or a few, and exit with 1."""
    try:
        yield
    except InvalidPayload as refusal:
        lines = [f"{field}: {text}" for field, texts in refusal.errors.items() for text in texts]
        raise click.ClickException("\n".join(lines)) from None
    except Refused as refusal:
        raise click.ClickException(refusal.detail) from None
    except IntegrityError:
        raise click.ClickException(
            "Somebody else changed the same things at the same time; try again."
        ) from None
    except DBAPIError:
        raise click.ClickException(
            "The database does not answer as it should. Is DATABASE_URL right, and the schema up "
            "(flask --app app db upgrade)?"
        ) from None


@click.command()
@with_appcontext
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def provision(file: Path) -> None:
    """Create or update what a TOML FILE lists: workspaces, users, apps, clients. All or nothing."""
    try:
        text = file.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise click.ClickException(f"{file} cannot be read as UTF-8: {error}") from None
    with plain_errors():
        done = provisioning.provision(_keyring(), provisioning.parse(text), datetime.now(UTC))
    click.echo("Provisioned " + ", ".join(f"{count} {kind}" for kind, count in done.counts.items()) + ".")
    for slug, template in done.templates.items():
        folder = Path(current_app.root_path, current_app.template_folder or "", "apps", template)
        if not (folder / "index.html").is_file():
            done.notes.append(f"{slug} cannot open yet: there is no templates/apps/{template}/index.html")
    for note in done.notes:
        click.echo(f"Note: {note}.", err=True)
    for client_id, secret in done.secrets.items():
        _show_secret(client_id, secret.reveal())


def _show_secret(client_id: str, secret: str) -> None:
    click.echo(f"Secret of client {client_id}, shown this once:", err=True)
    click.echo(secret)


@client_commands.command("create")
@click.argument("client_id", metavar="ID")
@click.option(
    "--workspace", "workspaces", multiple=True, metavar="SLUG", help="Limit it to this. Default: all."
)
@click.option("--scope", "scopes", multiple=True, type=click.Choice(clients.SCOPES), help="Default: mint.")
@click.option(
    "--highest-role",
    type=click.Choice(ROLES),
    default=LEAST_ROLE,
    show_default=True,
    help="The highest role that it can give.",
)
@click.option("--mint-limit", metavar="LIMIT", help='Such as "600 per minute". Default: MINT_RATE_LIMIT.')
def create_client(
    client_id: str,
    workspaces: tuple[str, ...],
    scopes: tuple[str, ...],
    highest_role: str,
    mint_limit: str | None,
) -> None:
    """Make a client and print its secret, once."""
    with plain_errors():
        secret = clients.create(
            _keyring(),
            client_id,
            workspaces=workspaces or None,
            scopes=scopes or ("mint",),
            mint_limit=mint_limit,
            highest_role=highest_role,
            now=datetime.now(UTC),
        )
    _show_secret(client_id, secret.reveal())


@client_commands.command("list")
def list_clients() -> None:
    """List the clients, without secrets."""
    with plain_errors():
        rows = clients.listed(datetime.now(UTC))
    for row in rows:
        state = (
            f"revoked {row.revoked_at:%Y-%m-%d}" if row.revoked_at else f"{row.live_secrets} live secret(s)"
        )
        places = "all workspaces" if row.workspaces is None else ", ".join(row.workspaces) or "no workspace"
        limit = row.mint_limit or "default limit"
        click.echo(f"{row.id}\t{places}\t{', '.join(row.scopes)}\t{limit}\t{state}")


@client_commands.command("rotate")
@click.argument("client_id", metavar="ID")
@click.option(
    "--overlap", default="0s", metavar="TIME", help="How long the old secret works on: 24h, 30m, 7d."
)
def rotate_client(client_id: str, overlap: str) -> None:
    """Give a client a new secret and print it, once. The old one ends at once, or after the overlap."""
    found = _OVERLAP.fullmatch(overlap)
    if found is None:
        raise click.BadParameter("write a time such as 24h, 30m or 7d", param_hint="--overlap")
    period = timedelta(**{_UNITS[found[2]]: int(found[1])})
    with plain_errors():
        secret = clients.rotate(_keyring(), client_id, datetime.now(UTC), period)
    _show_secret(client_id, secret.reveal())


@client_commands.command("revoke")
@click.argument("client_id", metavar="ID")
def revoke_client(client_id: str) -> None:
    """End a client at once. Tokens that it minted go on until they expire."""
    with plain_errors():
        clients.revoke(client_id, datetime.now(UTC))
    click.echo(f"Client {client_id} is revoked.")

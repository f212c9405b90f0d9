"""The command that provisions the directory from a file."""

from datetime import UTC, datetime
from pathlib import Path

import click
from flask import current_app
from flask.cli import with_appcontext

from pat_service.cli.common import plain_errors, show, show_secret
from pat_service.embed import Registry
from pat_service.http.authentication import keyring
from pat_service.http.public_url import has_app_origins
from pat_service.rules import file_provisioning
from pat_service.shapes import is_dns_label


@click.command()
@with_appcontext
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def provision(file: Path) -> None:
    """Create or update the directory from a TOML file.

    FILE lists workspaces, users, apps and clients. The command applies all of them or none.
    """
    try:
        text = file.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise click.ClickException(f"{file} cannot be read as UTF-8: {error}") from None
    with plain_errors():
        done = file_provisioning.provision(
            keyring(), file_provisioning.parse(text), datetime.now(UTC), app_hosts=has_app_origins()
        )
    counts = (f"{count} {kind[: -1 if count == 1 else None]}" for kind, count in done.counts.items())
    show(f"Provisioned {', '.join(counts)}.")
    registry: Registry = current_app.extensions["pat_service.registry"]
    for slug, template in done.templates.items():
        if not registry.has_first_page(template):
            done.notes.append(f"{slug} cannot open yet: add apps/{template}/templates/index.html")
        if has_app_origins() and not is_dns_label(slug):
            done.notes.append(f"{slug} cannot open: its slug cannot be the first part of its host")
    for note in done.notes:
        show(f"Note: {note}.", err=True)
    for client_id, secret in done.secrets.items():
        show_secret(client_id, secret.reveal())

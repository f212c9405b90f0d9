"""The command that provisions the directory from a file."""

from datetime import UTC, datetime
from pathlib import Path

import click
from flask.cli import with_appcontext

from pat_service.cli.apps import list_obstacles
from pat_service.cli.common import plain_errors, show, show_secret
from pat_service.cli.lists import show_json, with_json
from pat_service.http.authentication import keyring
from pat_service.http.public_url import site
from pat_service.rules import file_provisioning
from pat_service.shapes import visible


@click.command()
@with_appcontext
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@with_json
@plain_errors()
def provision(file: Path, as_json: bool) -> None:
    """Create or update the directory from a TOML file.

    FILE lists workspaces, users, apps and clients. The command applies all of them or none.
    """
    try:
        text = file.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise click.ClickException(visible(f"{file} cannot be read as UTF-8: {error}")) from None
    done = file_provisioning.provision(
        keyring(), file_provisioning.parse(text), datetime.now(UTC), site=site()
    )
    for slug, template in done.templates.items():
        done.notes.extend(list_obstacles(slug, template))
    secrets = {client_id: secret.reveal() for client_id, secret in done.secrets.items()}
    if as_json:
        show_json({**done.counts, "notes": done.notes, "secrets": secrets})
        return
    counts = (f"{count} {kind[: -1 if count == 1 else None]}" for kind, count in done.counts.items())
    show(f"Provisioned {', '.join(counts)}.")
    for note in done.notes:
        show(f"Note: {note}.", err=True)
    for client_id, secret in secrets.items():
        show_secret(client_id, secret)

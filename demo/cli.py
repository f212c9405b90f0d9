"""`flask --app app demo load`: the demo's people, apps, clients and rows. In development only."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import click
from flask import current_app
from flask.cli import AppGroup
from marshmallow import ValidationError
from sqlalchemy import select

from demo import people, rows
from demo.back_end import loaded_demo
from pat_service.cli import plain_errors, upgrade_schema
from pat_service.credentials import CLIENT_SECRET_PREFIX, generate
from pat_service.http.public_url import site
from pat_service.rules import file_provisioning, operators
from pat_service.shapes import ANY_ORIGIN, parse_origin
from pat_service.storage.database import transaction
from pat_service.storage.models import OWNER, User

demo_commands = AppGroup("demo", help="Load the demo portal.")


@demo_commands.command("load")
@click.option("--origin", default="http://localhost:5000", show_default=True, help="The portal's origin.")
@click.option(
    "--upstream",
    nargs=3,
    metavar="SLUG ADDRESS START",
    help="Add the app that runs elsewhere. `make run` does this.",
)
def load(origin: str, upstream: tuple[str, str, str] | None) -> None:
    """Load the demo. Missing things are added, existing rows stay, and client secrets are replaced."""
    try:
        origin = parse_origin(origin)
        if origin == ANY_ORIGIN:
            raise ValidationError("Must be an origin such as http://localhost:5000.")
    except ValidationError as error:
        raise click.BadParameter(str(error.messages[0]), param_hint="--origin") from None
    upgrade_schema()
    now = datetime.now(UTC)
    document = people.directory(origin)
    if upstream:
        document["apps"].append(people.elsewhere(*upstream, origin))
    secrets = {client["id"]: generate(CLIENT_SECRET_PREFIX).reveal() for client in document["clients"]}
    for client in document["clients"]:
        client["secret"] = secrets[client["id"]]
    with plain_errors():
        file_provisioning.provision(current_app.extensions["pat_service.keyring"], document, now, site=site())
        operators.put(people.OLA, OWNER, (), now)
        with transaction() as connection:
            ids = {user.email: user.id for user in connection.execute(select(User.email, User.id))}
            rows.load_rows(connection, ids, now)
    clients = {id_: {"id": id_, "secret": secret} for id_, secret in secrets.items()}
    path = Path(current_app.instance_path) / "demo.json"
    former = loaded_demo(current_app.instance_path)
    elsewhere = upstream[0] if upstream else former and former.elsewhere
    try:
        _keep(path, {"clients": clients, "origin": origin, "elsewhere": elsewhere})
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written: {error.strerror}") from None
    click.echo("The demo is loaded.")


def _keep(path: Path, what: object) -> None:
    """Write a file that only its owner can read, completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(what, file, indent=2)
    draft.replace(path)

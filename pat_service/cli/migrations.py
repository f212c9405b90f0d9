"""The commands of Flask-Migrate, on the branches of the service and of all apps."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import click
from alembic import command
from alembic.util import CommandError
from flask import Flask, current_app
from flask.cli import with_appcontext
from flask_migrate import Migrate
from flask_migrate.cli import db as db_commands

from pat_service.app_folders import migration_folders
from pat_service.cli.common import clip, show
from pat_service.shapes import visible
from pat_service.storage import revisions
from pat_service.storage.database import db

#: The label of the service's own branch.
SERVICE: Final = "pat_service"
#: Flask-Migrate's defaults are for a single branch. A command → its option and our default.
_DEFAULTS: Final = {
    "upgrade": ("revision", "heads"),
    # A step back of an app could drop its tables, so the app must be named.
    "downgrade": ("revision", f"{SERVICE}@-1"),
    "migrate": ("head", f"{SERVICE}@head"),
    "revision": ("head", f"{SERVICE}@head"),
}


def init_app(app: Flask, folders: Mapping[str, Path]) -> None:
    """Add the commands `db …`. `folders` has each app's folder by its name."""
    migrate = Migrate(directory=str(Path(app.root_path) / "migrations"))
    migrate.configure(_add_branches(folders))
    migrate.init_app(app, db, render_as_batch=True)
    for name, (option, value) in _DEFAULTS.items():
        [parameter] = [each for each in db_commands.commands[name].params if each.name == option]
        parameter.default = value


def _add_branches(folders: Mapping[str, Path]) -> Callable[[Any], Any]:
    def configure(config: Any) -> Any:
        """Name the folders of all migrations. Called at the start of each command."""
        migrations = migration_folders(folders)
        versions = Path(config.get_main_option("script_location")) / "versions"
        try:
            revisions.check(migrations, versions)
        except revisions.UnusableMigrations as error:
            raise click.ClickException(visible(str(error))) from None
        places = (versions, *migrations.values())
        config.set_main_option("path_separator", "newline")
        config.set_main_option("version_locations", "\n".join(str(p).replace("%", "%%") for p in places))
        config.attributes["branches"] = revisions.read_branches(migrations, versions)
        return config

    return configure


@click.command()
@with_appcontext
@click.argument("name", metavar="NAME")
@click.option("--message", "-m", default="tables", help="What the migration does.")
def migrate(name: str, message: str) -> None:
    """Write a migration for changed tables into an app's folder."""
    registry = current_app.extensions["pat_service.registry"]
    folder: Path | None = registry.folder(name)
    if folder is None:
        raise click.ClickException(f"There is no app {clip(name)}.")
    label, place = revisions.label_of(folder), folder / "migrations"
    branch = revisions.read_branch(label, place)
    if label == SERVICE or label.isdecimal():
        raise click.ClickException(f"An app named {name} can have no migrations: give it another name.")
    if len(branch.heads) > 1:
        raise click.ClickException(f"{place} has two newest migrations: {', '.join(sorted(branch.heads))}.")
    place.mkdir(exist_ok=True)
    config = current_app.extensions["migrate"].migrate.get_config(opts=["autogenerate"])
    config.attributes["app"] = name
    try:
        written = command.revision(
            config,
            message,
            autogenerate=True,
            head=next(iter(branch.heads), "base"),
            branch_label=None if branch.heads else label,
            version_path=str(place),
            rev_id=f"{label}_{len(branch.predecessors) + 1:04}",
        )
    except CommandError as error:
        raise click.ClickException(f"{error} Run `flask --app app db upgrade` first.") from None
    finally:
        if not any(place.iterdir()):
            place.rmdir()
    path = getattr(written, "path", None)
    show(
        f"Wrote {path}. Read it, then run `flask --app app db upgrade`." if path else "No table has changed."
    )
